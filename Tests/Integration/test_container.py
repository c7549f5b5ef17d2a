"""config/Dockerfile: read instruction by instruction, because an engine is not everywhere; what it
builds is built here in the full size, and run without the Swift that built it."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from harness.proxy import REPOSITORY, Listener, Upstream, binary

FILE = REPOSITORY / "config" / "Dockerfile"
BUILD = "swift build --configuration release --static-swift-stdlib --product redis-auth-proxy"
BUILD_LIMIT_SECONDS = 1800
INSTRUCTIONS = {
    "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD",
}


def instructions() -> list:
    """Pairs of an instruction and what is behind it, on one line."""
    text = re.sub(r"(?m)^\s*#.*\n", "", FILE.read_text())
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(" ", 1)) for line in lines if line]


@pytest.fixture(scope="module")
def stages() -> dict:
    """By image, what is done in it."""
    stages = {}
    for name, value in instructions():
        assert name in INSTRUCTIONS, name
        if name == "FROM":
            stages[value] = []
        else:
            stages[list(stages)[-1]].append((name, value))
    return stages


@pytest.fixture(scope="module")
def build(stages) -> list:
    return next(iter(stages.values()))


@pytest.fixture(scope="module")
def final(stages) -> list:
    return list(stages.values())[-1]


def values(stage: list, instruction: str) -> list:
    return [value for name, value in stage if name == instruction]


def packages(stage: list) -> set:
    [command] = [each for each in values(stage, "RUN") if "apt-get install" in each]
    assert command.startswith("apt-get update && ")
    assert command.endswith("&& rm -rf /var/lib/apt/lists/*")
    words = command.split(" && ")[1].split()[2:]
    return {word for word in words if not word.startswith("--")}


def test_both_stages_have_the_same_debian(stages):
    first, last = stages
    assert first.startswith("swift:6.") and first.endswith("-bookworm AS build")
    assert last == "debian:bookworm-slim"


def test_it_builds_with_the_packages_that_the_demo_builds_with(build):
    demo = (REPOSITORY / "config" / "demo").read_text()
    wanted = re.search(r"install-packages (.*)", demo).group(1).split()
    assert packages(build) == set(wanted) - {"redis-server", "redis-tools", "openssl"}
    assert BUILD in values(build, "RUN")


def test_what_it_copies_is_there_and_is_all_that_it_is_sent(build, final):
    lines = (FILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    for value in values(build, "COPY"):
        source, _ = value.split()
        assert (REPOSITORY / source).exists() and source in sent
    [copy] = values(final, "COPY")
    source, target = copy.removeprefix("--from=build ").split()
    assert source == f"{values(build, 'WORKDIR')[0]}/.build/release/redis-auth-proxy"
    assert target == "/usr/local/bin/redis-auth-proxy"


def test_it_runs_as_nobody_of_the_image(final):
    [user] = values(final, "USER")
    assert all(int(part) >= 1000 for part in user.split(":"))
    assert json.loads(values(final, "ENTRYPOINT")[0]) == ["redis-auth-proxy"]
    assert json.loads(values(final, "CMD")[0]) == ["run"]
    assert not re.search("(?i)password|secret|token", " ".join(values(final, "ENV")))


def test_its_health_check_is_content_with_a_proxy_that_lives(final, server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"app": server.passwords["app"]}, [Listener("app")]
    )
    options, command = values(final, "HEALTHCHECK")[0].split(" CMD ")
    program, *arguments = json.loads(command)
    assert program == "redis-auth-proxy"
    timeout = arguments[arguments.index("--timeout") + 1]
    assert int(timeout[:-1]) < int(re.search(r"--timeout=(\d+)s", options).group(1))
    [variable] = values(final, "ENV")
    name, _ = variable.split("=")

    def check() -> int:
        environment = os.environ | {name: str(proxy.configuration)}
        run = subprocess.run(
            [binary(), *arguments], capture_output=True, timeout=30, env=environment
        )
        return run.returncode

    assert check() == 0
    assert proxy.stop() == 0
    assert check() == 69


def test_its_libraries_are_in_the_packages_that_it_installs(final):
    """What the program here is linked with, apart from Swift's own."""
    linked = subprocess.run(["ldd", binary()], capture_output=True, text=True, check=True).stdout
    owners = set()
    for path in re.findall(r"=> (/\S+)", linked):
        if "/swift" not in path:
            owners |= owners_of(path)
    # Of the libraries that the program names itself; the others come with them.
    named = subprocess.run(
        ["objdump", "-p", binary()], capture_output=True, text=True, check=True
    ).stdout
    wanted = set()
    for library in re.findall(r"NEEDED\s+(\S+)", named):
        path = re.search(rf"{re.escape(library)} => (/\S+)", linked)
        if path and "/swift" not in path.group(1):
            wanted |= owners_of(path.group(1))
    assert wanted <= owners
    # Every Debian has these.
    assert wanted - {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"} == packages(final) - {
        "ca-certificates"
    }


def owners_of(path: str) -> set:
    """The package with this file, under the name that it had before /usr was merged too."""
    real = os.path.realpath(path)
    for each in (path, real, real.removeprefix("/usr"), "/usr" + path):
        run = subprocess.run(["dpkg-query", "-S", each], capture_output=True, text=True)
        if run.returncode == 0:
            return {run.stdout.split(":")[0]}
    raise AssertionError(f"no package has {path}")


@pytest.mark.heavy
def test_what_it_builds_runs_without_swift(full_size, build, server, start_proxy, monkeypatch):
    if not full_size:
        return
    scratch = REPOSITORY / ".build-static"
    command = [each for each in values(build, "RUN") if each.startswith("swift build")][0]
    subprocess.run(
        [*shlex.split(command), "--scratch-path", scratch], cwd=REPOSITORY, check=True,
        capture_output=True, timeout=BUILD_LIMIT_SECONDS,
    )
    program = scratch / "release" / "redis-auth-proxy"
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    assert not re.search("swift|Foundation|dispatch", linked), linked
    monkeypatch.setenv("REDIS_AUTH_PROXY", str(program))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"app": server.passwords["app"]}, [Listener("app")]
    )
    with proxy.connect() as client:
        assert client.raw("SET", "k", "v") == b"+OK\r\n"
    maps = Path(f"/proc/{proxy.pid}/maps").read_text()
    assert not re.search("libswift|libFoundation|libdispatch", maps)
    assert proxy.stop() == 0
