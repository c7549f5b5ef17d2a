"""The proxy answers as the server does: random sequences of all its commands, reply for reply.

Several sessions at once send commands that are generated from the server's own COMMAND DOCS, to a
server directly and to another through the proxy; every reply, push and close is compared byte for
byte, and so is the data at the end. The first difference of a scenario is shrunk and printed. What
cannot be compared stands with its reason in differential/tables.py.

    DIFFERENTIAL_SEED=…          the printed seed: the same run again; in CI it is always the same
    DIFFERENTIAL_SCENARIOS=…     as many scenarios per mode and user
"""

import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from differential import tables
from differential.commands import SPECIAL, Generator, Grammar
from differential.frames import end_of_frame, sort_elements, sort_unsubscribed, split
from differential.pair import Pair
from differential.scenario import DATA, Scenario, Step, from_words, generate
from harness.proxy import Listener, Proxy, Upstream
from harness.resp import Client, bulk, encode
from harness.server import ACCESS_STRINGS, PASSWORDS, RedisServer, ValkeyServer

MODES = tables.BOTH
IS_FULL_SIZE = os.environ.get("INTEGRATION_SIZE") == "full"
# Users who may do little say little.
SCENARIOS = {"app": 600, "consumer": 100, "category": 100, "tenant": 100} if IS_FULL_SIZE else {
    "app": 50, "consumer": 10,
}
SCENARIOS_WITHOUT_PROXY = 10
SESSIONS = 4
STEPS = 40
SHRINK_SECONDS = 20.0

# What a run as a user who may do everything must have compared, or it proves nothing.
NEVER_ZERO = (
    "RESP3 types", "closed by the server", "errors", "left waiting", "masked replies", "messages",
    "pushes", "queued", "served while waiting", "to others", "transactions",
)
OPTIONS = {"latency-monitor-threshold": 0, "slowlog-log-slower-than": -1}


@pytest.fixture(scope="module", params=[RedisServer, ValkeyServer], ids=["redis", "valkey"])
def kind(request):
    """Which server is on both sides."""
    return request.param


@pytest.fixture(scope="module")
def place(directory, kind):
    made = directory / f"differential-{kind.__name__}"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def reference_server(place, kind):
    server = kind(place / "reference", options=OPTIONS | {"unixsocket": place / "socket"})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def grammar(reference_server) -> Grammar:
    with reference_server.connect("admin", 3) as admin:
        return Grammar.read(admin)


@pytest.fixture(scope="module")
def pairs(place, kind, authority, reference_server, grammar):
    """The reference server and one behind a proxy: a pair for each mode and user on request.

    In the mode `none` there is no proxy: a difference then is one that this test should not see.
    """
    plain = kind(place / "plain", options=OPTIONS)
    if kind is RedisServer:
        proxied = RedisServer(place / "server", authority, options=OPTIONS)
        upstream = Upstream.verified(proxied)
    else:
        proxied = kind(place / "server", options=OPTIONS)
        upstream = Upstream.plain(proxied)
    listeners = {(mode, user): Listener(user, mode) for mode in MODES for user in SCENARIOS}
    proxy = Proxy(
        place / "proxy", {"cache": upstream},
        {user: PASSWORDS[user] for user in SCENARIOS}, list(listeners.values()),
    )
    made = []

    def pair(mode: str, user: str) -> Pair:
        if made:
            made.pop().close()
        assert proxy.process.is_running, "the proxy died in an earlier test"
        server = plain if mode == "none" else proxied
        for each in (reference_server, server):
            # A client of the proxy is upstream a user with these rights, and need not say so.
            rules = ACCESS_STRINGS[user].split(" ")
            answer = each.ask("ACL", "SETUSER", "default", "reset", "on", "nopass", *rules)
            assert answer == b"OK", answer
        if mode == "none":
            user, connect = "default", lambda: Client(plain.address)
        else:
            connect = listeners[mode, user].connect
        path = place / "socket"
        made.append(Pair(grammar, path, reference_server, server, connect, user, tables.DECLARED))
        return made[-1]

    yield pair
    for each in made:
        each.close()
    assert proxy.stop() == 0
    proxied.stop()
    plain.stop()


@pytest.fixture(scope="module")
def seed() -> str:
    default = "1" if "CI" in os.environ else str(random.SystemRandom().randrange(10**9))
    return os.environ.get("DIFFERENTIAL_SEED") or default


@pytest.mark.heavy
@pytest.mark.parametrize(
    "mode,user", [("none", "app"), *((mode, user) for mode in MODES for user in SCENARIOS)]
)
def test_random_commands_of_several_sessions_are_answered_as_by_the_server(
    pairs, kind, seed, mode, user
):
    pair = pairs(mode, user)
    open_here = [found for found in tables.FOUND if (kind.kind, mode) in found.open_in]
    hidden = {key for found in open_here for key in found.hides}
    pair.left_out = set(tables.DECLARED) | hidden
    count = int(os.environ.get("DIFFERENTIAL_SCENARIOS", 0)) or SCENARIOS[user]
    if mode == "none":
        count = min(count, SCENARIOS_WITHOUT_PROXY)
    started = time.monotonic()
    for index in range(count):
        scenario = generate(pair.grammar, f"{seed}-{mode}-{user}-{index}", SESSIONS, STEPS)
        difference = pair.run(scenario)
        if difference:
            shortest, last = shrink(pair, scenario, difference)
            pytest.fail(f"DIFFERENTIAL_SEED={seed}\n{last.describe()}\n{shortest.describe()}")
    print(
        f"\nDIFFERENTIAL_SEED={seed} {mode}, {user}: {pair.commands_sent} commands in {count}"
        f" scenarios, {time.monotonic() - started:.1f} s\n  "
        + ", ".join(f"{kind}: {number}" for kind, number in sorted(pair.seen.items()))
    )
    assert pair.commands_sent > 50 * count, "too little was compared"
    assert pair.seen["masked replies"] < pair.seen["replies"] / 5, "too much is masked"
    if user == "app" and count >= SCENARIOS["app"]:
        assert not [kind for kind in NEVER_ZERO if not pair.seen[kind]]


# What sessions that share nothing send all at once: so much that only bytes can be compared.
CROWD = 24
CROWD_COMMANDS = 300
CROWD_ROUNDS = 40 if IS_FULL_SIZE else 4
PRIVATE = [name for name in DATA if name not in ("publish", "blpop", "xread", "wait")]
LAST = ["nosuch", "the last one"]


def private_commands(grammar: Grammar, dice: random.Random, prefix: str) -> list:
    """Commands on keys and channels of this session's own, and on its state."""
    generator = Generator(grammar, dice, prefix)
    key, channel = prefix + "string0", prefix + "news"
    states = [
        [["multi"], ["incr", key], ["get", key], ["exec"]], [["multi"], ["get", key], ["discard"]],
        [["watch", key], ["set", key, "x"], ["multi"], ["get", key], ["exec"]], [["exec"]],
        [["watch", key], ["get", key], ["unwatch"]], [["blpop", prefix + "list0", "0.01"]],
        [["select", dice.choice("0123")]], [["client", "setname", prefix], ["client", "getname"]],
        [["get", key]] * 100, [["set", key, "x" * dice.choice([10, 1_000, 100_000])]],
    ]
    # Logins on a connection that subscribes differ, see tables.FOUND.
    states += dice.choice([
        [[["hello", "3"]], [["hello", "2"]], [["reset"]], [["auth", "default", "x"]]],
        [[["subscribe", channel], ["ping"], ["publish", channel, "x"], ["unsubscribe", channel]]],
    ])
    commands = []
    while len(commands) < CROWD_COMMANDS:
        commands += dice.choice(states) if dice.random() < 0.2 else [
            generator.named(dice.choice(PRIVATE))
        ]
    return commands


def answers(connect, commands: list, dice: random.Random) -> bytes:
    """All that comes for these commands, which are sent in pieces of any size."""
    request = b"".join(encode(*command) for command in [*commands, LAST])
    cuts = sorted(dice.randrange(len(request)) for _ in range(dice.choice([0, 3, 30])))
    received = bytearray()

    def send():
        for start, end in zip([0, *cuts], [*cuts, len(request)]):
            client.send_bytes(request[start:end])

    with connect() as client:
        sender = threading.Thread(target=send)
        sender.start()
        while b"with args beginning with: 'the last one'" not in received[-100:]:
            chunk = client.socket.recv(256 * 1024)
            if not chunk:
                break
            received += chunk
        sender.join()
    return tables.USER_IN_ERROR.sub(b"<user>", tables.CONNECTION_ID.sub(rb"\1<id>", received))


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ("none", *MODES))
def test_a_crowd_of_sessions_is_answered_as_each_alone_by_the_server(pairs, grammar, seed, mode):
    pair = pairs(mode, "app")
    for number in range(CROWD_ROUNDS):
        pair.prepare()
        name = f"{seed}-{mode}-{number}"
        dice = random.Random(name)
        crowd = [private_commands(grammar, dice, f"own{index}:") for index in range(CROWD)]
        ways = [lambda: Client(pair.direct_path), pair.connect]
        runs = []
        for connect in ways:
            with ThreadPoolExecutor(CROWD) as together:
                seeds = [random.Random(f"{name}-{index}") for index in range(CROWD)]
                runs.append(list(together.map(answers, [connect] * CROWD, crowd, seeds)))
        for commands, *received in zip(crowd, *runs):
            expected, got = (split(each)[0] for each in received)
            assert len(expected) >= CROWD_COMMANDS
            same = len(os.path.commonprefix([expected, got]))
            assert expected == got, (
                f"DIFFERENTIAL_SEED={seed}, round {number}, from reply {same}: direct"
                f" {expected[same:][:3]!r}, proxied {got[same:][:3]!r}, of {commands}"
            )


def shrink(pair: Pair, scenario: Scenario, difference):
    """A shorter scenario that ends in a difference of the same kind, and that difference."""
    best, last = scenario.with_steps(scenario.steps[: difference.step + 1]), difference
    deadline = time.monotonic() + SHRINK_SECONDS
    patience, pair.reply_seconds = pair.reply_seconds, 0.7

    def smaller(candidates) -> bool:
        """Takes over the first candidate that still differs."""
        nonlocal best, last
        for candidate in candidates:
            if time.monotonic() > deadline:
                return False
            found = pair.run(candidate)
            if found and found.kind == difference.kind:
                best, last = candidate, found
                return True
        return False

    def without_steps(size: int):
        for start in range(0, len(best.steps), size):
            yield best.with_steps(best.steps[:start] + best.steps[start + size :])

    def without_a_command():
        for index, step in enumerate(best.steps):
            for number in range(len(step.commands) if len(step.commands) > 1 else 0):
                fewer = step.commands[:number] + step.commands[number + 1 :]
                shorter = replace(step, commands=fewer)
                yield best.with_steps(best.steps[:index] + [shorter] + best.steps[index + 1 :])

    size = len(best.steps) // 2
    while size:
        while smaller(without_steps(size)):
            pass
        size //= 2
    while smaller(without_a_command()):
        pass
    pair.reply_seconds = patience
    return best, last


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("found", tables.FOUND, ids=lambda found: found.name)
def test_what_was_found_once_is_as_on_the_server(pairs, kind, found, mode):
    pair = pairs(mode, "app")
    is_open = (kind.kind, mode) in found.open_in
    pair.reply_seconds = 1.0 if is_open else 5.0
    difference = pair.run(from_words(found.name, found.protocols, found.steps))
    if is_open:
        assert difference is not None, "it is repaired: take it out of `open_in`"
        pytest.xfail("open, see tables.FOUND")
    assert difference is None, difference.describe()


# The test's own tools


def test_a_planted_difference_is_found_and_shrunk_to_one_command(pairs):
    """A server that refuses INCR in the proxy's place: nothing else can be the difference."""
    pair = pairs("none", "app")
    answer = pair.proxied.ask("ACL", "SETUSER", "default", "-incr")
    assert answer == b"OK", answer
    filler = [["set", "string0", "1"], ["get", "string0"], ["multi"], ["ping"], ["exec"]]
    steps = [Step(number % SESSIONS, list(filler)) for number in range(20)]
    steps[13].commands.insert(1, ["incr", "string0"])
    scenario = Scenario("planted", [2, 3, 2, 3], steps)
    difference = pair.run(scenario)
    assert difference is not None and difference.step == 13
    shortest, last = shrink(pair, scenario, difference)
    assert [step.commands for step in shortest.steps] == [[["incr", "string0"]]], (
        shortest.describe()
    )
    assert b"NOPERM" in last.got


def test_every_command_of_the_server_is_generated_or_left_out_for_a_reason(grammar):
    generator = Generator(grammar, random.Random(1))
    assert len(grammar.generated()) + len(tables.EXCLUDED) >= len(grammar.entries) > 300
    for name in grammar.generated():
        for _ in range(20):
            made = generator.tame(name)
            assert grammar.name_of(made) == name, (name, made)
    for table in (tables.EXCLUDED, tables.MASKS, SPECIAL):
        assert set(table) - tables.NEWER <= set(grammar.entries), set(table) - set(grammar.entries)
    assert not set(tables.MASKS) & set(tables.EXCLUDED)


def test_a_seed_gives_the_same_scenario_every_time(grammar):
    first, second = (generate(grammar, "seed", SESSIONS, STEPS) for _ in range(2))
    assert first == second
    assert first != generate(grammar, "another", SESSIONS, STEPS)


def test_frames_are_found_in_a_stream_that_may_end_anywhere():
    frames = [
        b"+OK\r\n", b"$-1\r\n", b"$5\r\na\r\nbc\r\n", b"*2\r\n:1\r\n*1\r\n_\r\n",
        b"%1\r\n+a\r\n,1.5\r\n", b">2\r\n+x\r\n#t\r\n", b"|1\r\n+k\r\n+v\r\n*0\r\n", b"*-1\r\n",
        b"=7\r\ntxt:abc\r\n", b"~0\r\n", b"(123\r\n", b"!3\r\nE x\r\n",
    ]
    stream = b"".join(frames)
    ends = [sum(map(len, frames[:count])) for count in range(len(frames) + 1)]
    for cut in range(len(stream) + 1):
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        assert split(stream[:cut]) == (frames[:whole], stream[ends[whole] : cut])
    assert split(b"+OK\r\nHTTP/1.1\r\n") == ([b"+OK\r\n"], b"HTTP/1.1\r\n")
    assert end_of_frame(b"*1\r\n") is None


def test_masks_change_the_order_and_nothing_else():
    assert sort_elements(b"*2\r\n" + bulk("b") + bulk("a")) == b"*2\r\n" + bulk("a") + bulk("b")
    one, two = bulk("x") + b":1\r\n", bulk("a") + b"*2\r\n:2\r\n:1\r\n"
    assert sort_elements(b"%2\r\n" + one + two) == sort_elements(b"%2\r\n" + two + one)
    # A value that moves to another key is no matter of order.
    assert sort_elements(b"%1\r\n+a\r\n+b\r\n") != sort_elements(b"%1\r\n+b\r\n+a\r\n")

    def confirmation(channel, count):
        return b"*3\r\n" + bulk("unsubscribe") + bulk(channel) + b":%d\r\n" % count

    assert sort_unsubscribed([confirmation("b", 1), confirmation("a", 0)]) == (
        sort_unsubscribed([confirmation("a", 1), confirmation("b", 0)])
    )
