"""redis-benchmark's whole default test set passes through the proxy without an error.

redis-benchmark ends with exit code 1 at the first error reply or lost connection. The full form (`INTEGRATION_SIZE=full`) sends 100,000 requests per test.
"""

import re
import subprocess

import pytest

REQUESTS_FULL = 100_000
REQUESTS_QUICK = 5_000
TESTS_IN_THE_SET = 20


@pytest.mark.heavy
@pytest.mark.parametrize("depth", [1, 16])
def test_redis_benchmarks_default_set_runs_without_an_error(proxied, full_size, depth):
    requests = REQUESTS_FULL if full_size else REQUESTS_QUICK
    host, port = proxied.address()
    run = subprocess.run(
        ["redis-benchmark", "-h", host, "-p", str(port), "-q", "-c", "50",
         "-n", str(requests), "-P", str(depth)],
        capture_output=True,
        text=True,
        timeout=800,
    )
    output = run.stdout.replace("\r", "\n") + run.stderr
    assert run.returncode == 0, output[-3000:]
    assert "Error" not in output, output[-3000:]
    finished = re.findall(r"^(.+): [\d.]+ requests per second", output, re.MULTILINE)
    print(f"\n{proxied.name}, -P {depth}:\n" + "\n".join(
        line for line in output.splitlines() if "requests per second" in line
    ))
    assert len(set(finished)) >= TESTS_IN_THE_SET, finished


@pytest.mark.heavy
@pytest.mark.parametrize("protocol", [[], ["-3"]], ids=["RESP2", "RESP3"])
def test_redis_benchmark_works_with_short_lived_connections(proxied, protocol):
    host, port = proxied.address()
    run = subprocess.run(
        ["redis-benchmark", "-h", host, "-p", str(port), "-q", "-c", "50", "-k", "0",
         "-n", "3000", "-t", "set,get", *protocol],
        capture_output=True,
        text=True,
        timeout=120,
    )
    output = run.stdout.replace("\r", "\n") + run.stderr
    assert run.returncode == 0 and "Error" not in output, output[-3000:]
