"""A run as Markdown."""

import statistics

from peers import BASE, OURS
from scenarios import SCENARIOS

TITLES = {scenario.name: scenario.title for scenario in SCENARIOS}


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def spread(values, digits: int) -> str:
    """The median with the least and the greatest value."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _figure(value, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _times(value) -> int:
    """Digits behind the point for CPU time, from nanoseconds to milliseconds."""
    return 0 if value is None or value >= 100 else 1 if value >= 20 else 2 if value >= 1 else 3


class Run:
    """The samples of one run, by scenario and peer."""

    def __init__(self, result: dict):
        self.result = result
        self.samples = result["samples"]
        self.scenarios = list(dict.fromkeys(sample["scenario"] for sample in self.samples))
        self.peers = result["peers"]

    def of(self, scenario: str, peer: str) -> list[dict]:
        return [s for s in self.samples if (s["scenario"], s["peer"]) == (scenario, peer)]

    def values(self, scenario: str, peer: str, key: str) -> list:
        return [sample[key] for sample in self.of(scenario, peer)]

    def ratios(self, scenario: str, peer: str, key: str = "proxy_us", base: str = BASE) -> list:
        """To the base, round by round: what loads the machine loads both."""
        against = {s["round"]: s[key] for s in self.of(scenario, base)}
        return [
            s[key] / against[s["round"]]
            for s in self.of(scenario, peer)
            if s[key] is not None and against.get(s["round"])
        ]


def _row(cells: list) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: list, rows: list) -> list:
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _name(peer: str) -> str:
    return f"**{peer}**" if peer.startswith(OURS) else peer


def summary(run: Run) -> list:
    """Everybody's CPU per request as a multiple of the base's."""
    proxies = [
        peer for peer in run.peers
        if any(s["proxy_us"] is not None for s in run.samples if s["peer"] == peer)
    ]
    rows = []
    for scenario in run.scenarios:
        cells = [TITLES[scenario]]
        for peer in proxies:
            base = median(run.values(scenario, peer, "proxy_us"))
            if peer == BASE:
                cells.append("1.00" if base is None else f"1.00 = {base:.{_times(base)}f} µs")
            else:
                cells.append(spread(run.ratios(scenario, peer), 2))
        rows.append(cells)
    return [
        f"Proxy CPU per request as a multiple of {BASE}'s, ratios taken round by round;"
        " median (least–greatest).",
        "",
        *_table(["scenario", *map(_name, proxies)], rows),
    ]


def _scenario(run: Run, scenario: str) -> list:
    rows = []
    for peer in run.peers:
        if not run.of(scenario, peer):
            why = run.result["failures"].get(f"{scenario} {peer}")
            rows.append([_name(peer), why or "not measured", *[""] * 7])
            continue

        def values(key):
            return run.values(scenario, peer, key)

        proxy = values("proxy_us")
        latency = " / ".join(
            _figure(median(values(key))) for key in ("p50_us", "p99_us", "p99_9_us")
        )
        server = median(values("server_us"))
        rows.append([
            _name(peer),
            spread(proxy, _times(median(proxy))),
            "1" if peer == BASE else spread(run.ratios(scenario, peer), 2),
            _figure(server, _times(server)),
            spread([value / 1e3 for value in values("requests_per_second")], 1),
            latency,
            _figure(median(values("syscalls")), 3),
            _figure(median(values("upstream_connections"))),
            _figure(median(values("resident_mib")), 1),
        ])
    head = ["", "proxy CPU µs", f"× {BASE}", "server CPU µs", "thousand requests/s",
            "p50 / p99 / p99.9 µs", "syscalls", "upstream connections", "RSS MiB"]
    return [f"### {TITLES[scenario]}", "", *_table(head, rows)]


def _idle(run: Run) -> list:
    samples = run.result["idle"]
    rows = []
    for clients in sorted({sample["clients"] for sample in samples}):
        for peer in run.peers:
            chosen = [s for s in samples if (s["clients"], s["peer"]) == (clients, peer)]
            if not chosen:
                continue

            def values(key):
                return [sample[key] for sample in chosen]

            rows.append([
                f"{clients:,}", _name(peer), spread(values("kib_per_client"), 2),
                _figure(median(values("resident_before_mib")), 1),
                _figure(median(values("resident_mib")), 1),
                _figure(median(values("resident_after_mib")), 1),
                _figure(median(values("upstream_connections"))),
                _figure(median(values("setup_us_per_client"))),
            ])
    if not rows:
        return []
    head = ["clients", "", "KiB per client", "RSS MiB before", "with them", "after them",
            "upstream connections", "proxy CPU µs per client"]
    return ["### Idle clients, each after one command", "", *_table(head, rows)]


def markdown(result: dict) -> str:
    run = Run(result)
    workers = result["workers"]
    lines = [
        f"## {workers} worker thread{'s' if workers > 1 else ''} per proxy,"
        f" {result['rounds']} rounds, windows of {result['window_seconds']} s"
        + ("" if result["pinned"] else ", nothing pinned to a core")
        + (" (quick: says that it works, not how fast it is)" if result["quick"] else ""),
        "",
        *summary(run),
        "",
        "Times are per request. *Requests/s* says which process was the bottleneck of a machine"
        " that all share, *proxy CPU* what the proxy costs; see METHOD.md.",
    ]
    for scenario in run.scenarios:
        lines += ["", *_scenario(run, scenario)]
    idle = _idle(run)
    if idle:
        lines += ["", *idle]
    lines += ["", "### The machine", ""]
    lines += [f"- {name}: {text}" for name, text in result["facts"].items()]
    others = [sample["others_cpus"] for sample in run.samples]
    if others:
        lines.append(f"- processors that others used meanwhile: {spread(others, 2)}")
    lines += [f"- not measured: {reason}" for reason in result["missing"].values()]
    return "\n".join(lines) + "\n"
