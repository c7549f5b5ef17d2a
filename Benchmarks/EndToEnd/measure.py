"""Readings from /proc, the server and perf, and what they are per request."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from load import Load

# Until a peer has noticed that thousands of clients are gone.
CLOSED_SECONDS = 1.0
ESTABLISHED = "01"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Sample:
    """One window of one peer in one scenario; times are per request, in µs."""

    peer: str
    scenario: str
    round: int
    requests: int
    seconds: float
    requests_per_second: float
    p50_us: float
    p99_us: float
    p99_9_us: float
    max_us: float
    server_us: float
    proxy_us: float = None
    proxy_user_us: float = None
    proxy_system_us: float = None
    syscalls: float = None
    upstream_connections: int = None
    resident_mib: float = None
    # Processors' worth of work that neither the load nor the peer nor the server did.
    others_cpus: float = None


@dataclass
class IdleSample:
    """A freshly started peer with clients that have each sent one command and stay."""

    peer: str
    round: int
    clients: int
    resident_before_mib: float
    resident_mib: float
    resident_after_mib: float
    kib_per_client: float
    setup_us_per_client: float
    upstream_connections: int


def on_cpu_seconds(pids: list) -> float:
    """Time on a processor of all threads, also of those that have ended, to the nanosecond."""
    # How clock_getcpuclockid(3) makes a clock of a process: the scheduler's, kind 2.
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e9


def _user_and_system_seconds(pids: list) -> tuple:
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


def resident_bytes(pids: list) -> int:
    total = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024
    return total


def connections_to(port: int, pids: list) -> int:
    """Established connections that these processes hold to a port on this machine."""
    wanted = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rsplit(":", 1)[1], 16) == port and fields[3] == ESTABLISHED:
            wanted.add(f"socket:[{fields[9]}]")
    found = 0
    for pid in pids:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            for descriptor in descriptors:
                try:
                    found += os.readlink(descriptor.path) in wanted
                except OSError:
                    pass  # Closed meanwhile.
    return found


def _busy_seconds() -> float:
    """Time that all processors did anything for anybody."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle, waiting = fields[3:5]
    return (sum(fields) - idle - waiting) / TICKS


def _reading(peer, server, load) -> dict:
    user, system = _user_and_system_seconds(peer.pids())
    return {
        "time": time.monotonic(),
        "commands": server.commands(),
        "proxy": on_cpu_seconds(peer.pids()),
        "user": user,
        "system": system,
        "server": on_cpu_seconds([server.process.pid]),
        "load": on_cpu_seconds([load.child.pid]),
        "busy": _busy_seconds(),
    }


def measure(program: Path, peer, server, scenario, number: int, warm_up: float, window: float,
            core, count_syscalls: bool) -> Sample:
    load = Load(program, peer, scenario, server.password, core)
    try:
        time.sleep(warm_up)
        start = _reading(peer, server, load)
        load.start_counting()
        time.sleep(window)
        end = _reading(peer, server, load)
        counted = load.stop_counting()
        holders = [load.child.pid] if peer.is_direct else peer.pids()
        connections = connections_to(peer.port if peer.is_direct else server.port, holders)
        memory = resident_bytes(peer.pids())
        syscalls = None
        if count_syscalls and not peer.is_direct:
            syscalls = syscalls_per_request(peer.pids(), server)
            load.stop_counting()  # It still works.
    finally:
        load.end()
    requests = end["commands"] - start["commands"]
    if requests <= 0 or counted["requests"] <= 0:
        raise RuntimeError("nothing was answered in the window")

    def spent(key: str) -> float:
        return end[key] - start[key]

    def per_request(key: str) -> float:
        return spent(key) / requests * 1e6

    others = spent("busy") - spent("proxy") - spent("server") - spent("load")
    sample = Sample(
        peer=peer.name, scenario=scenario.name, round=number, requests=requests,
        seconds=counted["seconds"],
        requests_per_second=counted["requests"] / counted["seconds"],
        p50_us=counted["p50_us"], p99_us=counted["p99_us"], p99_9_us=counted["p99_9_us"],
        max_us=counted["max_us"], server_us=per_request("server"),
        upstream_connections=connections, others_cpus=max(others, 0) / spent("time"),
    )
    if not peer.is_direct:
        sample.proxy_us = per_request("proxy")
        sample.proxy_user_us = per_request("user")
        sample.proxy_system_us = per_request("system")
        sample.resident_mib = memory / 2**20
        sample.syscalls = syscalls
    return sample


def measure_idle(program: Path, peer, server, scenario, number: int, core) -> IdleSample:
    before, spent_before = resident_bytes(peer.pids()), on_cpu_seconds(peer.pids())
    load = Load(program, peer, scenario, server.password, core)
    try:
        held, connections = resident_bytes(peer.pids()), connections_to(server.port, peer.pids())
        spent = on_cpu_seconds(peer.pids()) - spent_before
    finally:
        load.end()
    time.sleep(CLOSED_SECONDS)
    return IdleSample(
        peer=peer.name, round=number, clients=scenario.clients,
        resident_before_mib=before / 2**20, resident_mib=held / 2**20,
        resident_after_mib=resident_bytes(peer.pids()) / 2**20,
        kib_per_client=(held - before) / 1024 / scenario.clients,
        setup_us_per_client=spent / scenario.clients * 1e6,
        upstream_connections=connections,
    )


# System calls: in a window of their own, because counting them costs time.

SYSCALL_WINDOW_SECONDS = 0.5


def syscall_counter() -> str:
    """perf if its tracepoint works, else strace, else nothing."""
    if shutil.which("perf"):
        probe = subprocess.run(
            ["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True
        )
        if probe.returncode == 0:
            return "perf"
    return "strace" if shutil.which("strace") else "none"


_counter = None


def syscalls_per_request(pids: list, server) -> float:
    global _counter
    _counter = _counter or syscall_counter()
    if _counter == "none":
        return None
    before, since = server.commands(), time.monotonic()
    if _counter == "perf":
        calls, seconds = _with_perf(pids)
    else:
        calls, seconds = _with_strace(pids)
    rate = (server.commands() - before) / (time.monotonic() - since)
    return calls / seconds / rate if rate else None


def _with_perf(pids: list) -> tuple:
    run = subprocess.run(
        ["perf", "stat", "-e", "raw_syscalls:sys_enter", "-p", ",".join(map(str, pids)),
         "sleep", str(SYSCALL_WINDOW_SECONDS)],
        capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"},
    )
    calls = re.search(r"([\d,]+)\s+raw_syscalls:sys_enter", run.stderr)
    seconds = re.search(r"([\d.]+) seconds time elapsed", run.stderr)
    if not calls or not seconds:
        raise RuntimeError("perf stat: " + run.stderr)
    return int(calls[1].replace(",", "")), float(seconds[1])


def _with_strace(pids: list) -> tuple:
    with tempfile.NamedTemporaryFile() as output:
        targets = [argument for pid in pids for argument in ("-p", str(pid))]
        child = subprocess.Popen(
            ["strace", "-f", "-c", "-o", output.name, *targets],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(SYSCALL_WINDOW_SECONDS)
        child.send_signal(signal.SIGINT)
        child.wait(10)
        text = Path(output.name).read_text()
    total = re.search(r"^\s*100\.00\s+\S+\s+\S+\s+(\d+)", text, re.MULTILINE)
    return (int(total[1]) if total else 0), SYSCALL_WINDOW_SECONDS
