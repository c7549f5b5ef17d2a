"""What the proxy costs, side by side with its peers: the program behind Benchmarks/run.

    core 0: load ──► proxy or peer ──► redis-server :core 0
                        core 1

METHOD.md says what is measured and how far to trust it.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(HERE), str(REPOSITORY / "Tests" / "Integration")]

import chart  # noqa: E402
import load  # noqa: E402
import report  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.proxy import binary  # noqa: E402
from measure import measure, measure_idle, syscall_counter  # noqa: E402
from peers import OURS, PEERS, NotInstalled, Place  # noqa: E402
from scenarios import IDLE_CLIENTS, IDLE_CLIENTS_QUICK, SCENARIOS, Scenario  # noqa: E402
from server import Server  # noqa: E402

QUICK_PEERS = ["direct-plain", "direct-tls", "haproxy", "ours"]
UNUSUAL_PEERS = ("dedicated", "no-gather", "one-worker")
# They vary less than anything else.
SYSCALL_ROUNDS = 3
USUAL_PEERS = [name for name in PEERS if name not in UNUSUAL_PEERS]


class Cores:
    """Who runs where: the proxy on cores of its own, everybody else on the first one.

    With too few cores for that, or if it is asked for, nothing is pinned.
    """

    def __init__(self, workers: int, unpinned: bool = False):
        available = sorted(os.sched_getaffinity(0))
        self.enough = len(available) > workers and not unpinned
        self.first = {available[0]} if self.enough else None
        self.proxy = set(available[1:1 + workers]) if self.enough else None

    def pin(self, pids: list, cores) -> None:
        if cores is None:
            return
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), cores)

    def load_of(self, peer):
        """A direct client stands in the proxy's place, so that every row has the same cores."""
        if not self.enough:
            return None
        return min(self.proxy if peer.is_direct else self.first)


def version(*command) -> str:
    """The first line with a version in it."""
    try:
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=20)
    except OSError:
        return "not there"
    lines = (run.stdout + run.stderr).strip().splitlines()
    line = next((line.strip() for line in lines if re.search(r"\d+\.\d+", line)), "?")
    # Some begin with the path they were started from, which is nobody's business.
    return re.sub(r"^/\S+\s+", "", line)


def commit() -> str:
    run = subprocess.run(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty"],
                         capture_output=True, text=True)
    return run.stdout.strip() or "unknown"


def facts() -> dict:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} × {model[1] if model else platform.machine()}",
        "kernel": f"{platform.release()}, {congestion}",
        "load average before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        OURS: version(binary(), "--version"),
        "commit": commit(),
        "redis-server": version("redis-server", "--version"),
        "openssl": version("openssl", "version"),
        "system calls counted with": syscall_counter(),
    }
    for name, option in (("haproxy", "-v"), ("nginx", "-v"), ("stunnel", "-version"),
                         ("nutcracker", "-V"), ("envoy", "--version")):
        if shutil.which(name):
            found[name] = version(name, option)
    return found


class Comparison:
    """One run: starts everything, measures, ends everything."""

    def __init__(self, options, directory: Path):
        self.options = options
        self.directory = directory
        self.cores = Cores(options.workers, options.unpinned)
        self.running = []
        self.missing, self.failures = {}, {}
        self.samples, self.idle = [], []
        self.server = None

    def start(self, name: str, label: str):
        """A peer, or None if its program is not installed."""
        directory = self.directory / label
        directory.mkdir()
        try:
            peer = PEERS[name](Place(directory, self.server, self.options.workers))
        except NotInstalled as reason:
            self.missing[name] = f"{reason}"
            print(f"without {name}: {reason}", file=sys.stderr)
            return None
        self.running.append(peer)
        self.cores.pin(peer.pids(), self.cores.proxy)
        return peer

    def end(self) -> None:
        for peer in self.running:
            peer.end()
        if self.server is not None:
            self.server.stop()

    def run(self) -> dict:
        known = facts()
        generator = load.build(self.directory)
        authority = Authority(self.directory / "authority", "benchmark CA")
        self.server = Server(self.directory / "server", authority)
        self.cores.pin([self.server.process.pid], self.cores.first)
        peers = [self.start(name, name) for name in self.options.peers]
        peers = [peer for peer in peers if peer is not None]
        for number in range(self.options.rounds):
            # A B C, C B A: nobody always runs on a machine that the same other has just heated.
            order = peers if number % 2 == 0 else peers[::-1]
            for scenario in self.options.scenarios:
                for peer in order:
                    self.attempt(scenario.name, peer, number, lambda: self.samples.append(measure(
                        generator, peer, self.server, scenario, number, self.options.warm_up,
                        self.options.window, self.cores.load_of(peer),
                        self.options.syscalls and number < SYSCALL_ROUNDS,
                    )))
        names = [peer.name for peer in peers]
        for number in range(self.options.idle_rounds):
            self.measure_idle(generator, number)
        known["load average after"] = " ".join(f"{value:.2f}" for value in os.getloadavg())
        return {
            "quick": self.options.quick, "workers": self.options.workers,
            "rounds": self.options.rounds, "window_seconds": self.options.window,
            "pinned": self.cores.enough,
            "facts": known, "peers": names, "missing": self.missing, "failures": self.failures,
            "samples": [asdict(sample) for sample in self.samples],
            "idle": [asdict(sample) for sample in self.idle],
        }

    def measure_idle(self, generator: Path, number: int) -> None:
        """With freshly started proxies: what earlier load left in their memory is not the clients'."""
        for clients in self.options.idle_clients:
            scenario = Scenario(f"idle-{clients}", "", clients=clients, mode="idle")
            for name in self.options.peers:
                if name in self.missing or name.startswith("direct"):
                    continue
                peer = self.start(name, f"{name}-{clients}-{number}")
                self.attempt(scenario.name, peer, number, lambda: self.idle.append(measure_idle(
                    generator, peer, self.server, scenario, number, self.cores.load_of(peer),
                )))
                peer.end()

    def attempt(self, scenario: str, peer, number: int, measurement) -> None:
        """A peer that fails is reported and the others go on; a dead server ends the run."""
        try:
            measurement()
            outcome = self.outcome(scenario)
        except RuntimeError as error:
            self.failures[f"{scenario} {peer.name}"] = outcome = f"failed: {error}"
            if not self.server.process.is_running:
                raise
        rounds = f"{number + 1}/{self.options.rounds}"
        print(f"round {rounds} {scenario:<14} {peer.name:<22} {outcome}", file=sys.stderr)

    def outcome(self, scenario: str) -> str:
        if scenario.startswith("idle"):
            return f"{self.idle[-1].kib_per_client:9.2f} KiB per client"
        sample = self.samples[-1]
        cpu = "" if sample.proxy_us is None else f"{sample.proxy_us:9.3f} µs"
        return f"{cpu:>12} {sample.requests_per_second:12,.0f} requests/s"


def read_options():
    parser = argparse.ArgumentParser(
        prog="Benchmarks/run", description=__doc__.splitlines()[0],
        epilog="Scenarios: " + ", ".join(scenario.name for scenario in SCENARIOS)
        + ". Peers: " + ", ".join(PEERS) + ".",
    )
    parser.add_argument("--quick", action="store_true",
                        help="one short round of fewer peers, to see that it works")
    parser.add_argument("--rounds", type=int, help="default 5, quick 1")
    parser.add_argument("--window", type=float, metavar="SECONDS",
                        help="measured at a time, default 2, quick 0.4")
    parser.add_argument("--workers", type=int, default=1, help="threads of each proxy, default 1")
    parser.add_argument("--unpinned", action="store_true",
                        help="let every process run on any core")
    parser.add_argument("--scenarios", metavar="A,B", help="only these")
    parser.add_argument("--peers", metavar="A,B", help="only these")
    parser.add_argument("--idle-rounds", type=int, help="default 1; 0 leaves them out")
    parser.add_argument("--no-syscalls", action="store_true", help="do not count system calls")
    parser.add_argument("--output", type=Path, metavar="PREFIX",
                        help="write PREFIX.md, PREFIX.json and PREFIX.svg")
    parser.add_argument("--render", type=Path, metavar="FILE.json",
                        help="measure nothing, write an earlier run anew")
    options = parser.parse_args()
    quick = options.quick
    options.rounds = options.rounds or (1 if quick else 5)
    options.window = options.window or (0.4 if quick else 2.0)
    options.warm_up = 0.1 if quick else 0.3
    options.syscalls = not options.no_syscalls
    if options.idle_rounds is None:
        # Memory hardly varies, and ten thousand handshakes at a relay take their time.
        options.idle_rounds = 1
    options.idle_clients = IDLE_CLIENTS_QUICK if quick else IDLE_CLIENTS

    def chosen(text, known: list, usual: list) -> list:
        if text is None:
            return usual
        names = text.split(",")
        for name in names:
            if name not in known:
                parser.error(f"wanted some of {', '.join(known)}, got {name}")
        return names

    options.peers = chosen(options.peers, list(PEERS), QUICK_PEERS if quick else USUAL_PEERS)
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    usual = [one.name for one in SCENARIOS if (one.quick if quick else one.usual)]
    options.scenarios = [
        by_name[name] for name in chosen(options.scenarios, list(by_name), usual)
    ]
    return options


def write(result: dict, prefix: Path) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    # A line for each sample: a diff of two runs can be read.
    samples = [json.dumps(sample) for sample in result["samples"]]
    idle = [json.dumps(sample) for sample in result["idle"]]
    head = json.dumps(
        {key: value for key, value in result.items() if key not in ("samples", "idle")}, indent=1)
    prefix.with_suffix(".json").write_text(
        head.removesuffix("\n}")
        + ',\n "samples": [\n' + ",\n".join(samples)
        + '\n ],\n "idle": [\n' + ",\n".join(idle) + "\n ]\n}\n"
    )
    prefix.with_suffix(".md").write_text(report.markdown(result))
    prefix.with_suffix(".svg").write_text(chart.svg(result))


def main() -> int:
    options = read_options()
    if options.render:
        result = json.loads(options.render.read_text())
        write(result, options.output or options.render.with_suffix(""))
        return 0
    # Ended from outside it ends what it started; killed outright, the kernel does (children.py).
    signals = (signal.SIGTERM, signal.SIGHUP)

    def end(number, _) -> None:
        # Whoever asks twice must not interrupt the cleaning up.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in signals:
        signal.signal(number, end)
    # A relay needs two descriptors for each client.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    directory = Path(tempfile.mkdtemp(prefix="redis-auth-proxy-benchmark-"))
    comparison = Comparison(options, directory)
    try:
        result = comparison.run()
    finally:
        comparison.end()
        shutil.rmtree(directory, ignore_errors=True)
    print(report.markdown(result))
    if options.output:
        write(result, options.output)
    ours = {key: why for key, why in result["failures"].items() if OURS in key}
    for key, why in ours.items():
        print(f"{key}: {why}", file=sys.stderr)
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
