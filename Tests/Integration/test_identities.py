"""Who a client is decides which user it becomes: users of the system on sockets of every kind.

Clients are made by child processes that have become other users, which only root may.
"""

import os
import re
import statistics
import time
from pathlib import Path

import pytest

from harness.accounts import CONSUMER, GROUP, OTHER_GROUP, OUTSIDER, PRODUCER, ClientAs
from harness.proxy import Listener, Upstream
from harness.resp import Client, Error, bulk, encode, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

WAYS = ("tcp4", "tcp6", "unix")
REFUSAL = b"-NOPERM redis-auth-proxy: no identity rule of this listener admits this client\r\n"
FULL = b"-ERR max number of clients reached\r\n"


@pytest.fixture(params=WAYS)
def way(request):
    return request.param


@pytest.fixture
def listen(way, open_place):
    """Makes a listener of the way under test with these rules."""

    def make(*rules, **more) -> Listener:
        more["identities"] = list(rules)
        if way == "unix":
            return Listener("app", path=open_place / "s", socket_mode="0666", **more)
        return Listener("app", host="127.0.0.1" if way == "tcp4" else "::1", **more)

    return make


@pytest.fixture
def start(server, start_proxy):
    """Starts a proxy that may become these users of the shared server."""
    with server.admin() as admin:
        assert admin.value("FLUSHALL") == b"OK"

    def make(*listeners, users=("app",), upstream=None, **settings):
        return start_proxy(
            {"cache": upstream or Upstream.verified(server)},
            {user: server.passwords[user] for user in users},
            list(listeners),
            **settings,
        )

    return make


def user_of(client) -> bytes:
    return client.value("ACL", "WHOAMI")


def is_refused(client) -> bool:
    answer = client.read_to_end()
    assert answer in (b"", REFUSAL), answer
    return answer == REFUSAL


# Each kind of rule


def test_a_rule_for_a_user_admits_that_user_alone(listen, start):
    listener = listen({"uid": PRODUCER, "user": "app"})
    start(listener)
    with ClientAs(listener.address, PRODUCER) as client:
        assert user_of(client) == b"app"
    for uid in (CONSUMER, 0):
        with ClientAs(listener.address, uid) as client:
            assert is_refused(client)


def test_a_rule_for_a_user_goes_by_name_too(listen, start):
    listener = listen({"unix_user": "www-data", "user": "app"})
    start(listener)
    with ClientAs(listener.address, 33) as client:
        assert user_of(client) == b"app"
    with ClientAs(listener.address, 34) as client:
        assert is_refused(client)


def test_a_rule_for_a_group_goes_by_the_groups_that_the_kernel_attests(open_place, start):
    rule = {"gid": GROUP, "user": "app"}
    listener = Listener("app", path=open_place / "s", socket_mode="0666", identities=[rule])
    start(listener)
    many = [OTHER_GROUP + number for number in range(1, 1000)]
    for gid, groups in ((GROUP, []), (OTHER_GROUP, [GROUP]), (OTHER_GROUP, [*many, GROUP])):
        with ClientAs(listener.address, PRODUCER, gid, groups) as client:
            assert user_of(client) == b"app"
    for gid, groups in ((OTHER_GROUP, []), (OTHER_GROUP, many)):
        with ClientAs(listener.address, PRODUCER, gid, groups) as client:
            assert is_refused(client)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_rule_for_a_group_goes_by_the_group_database_over_tcp(start, host):
    listener = Listener("app", host=host, identities=[{"unix_group": "www-data", "user": "app"}])
    start(listener)
    with ClientAs(listener.address, 33, gid=OTHER_GROUP) as client:
        assert user_of(client) == b"app"
    # What the process says of its groups is not attested, and so does not count.
    with ClientAs(listener.address, PRODUCER, gid=33, groups=[33]) as client:
        assert is_refused(client)


@pytest.mark.parametrize("host, source, other", [
    ("127.0.0.1", "127.0.0.0/8", "10.0.0.0/8"),
    ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
    ("::1", "::1", "2001:db8::/32"),
])
def test_a_rule_for_addresses_admits_clients_from_there(start, host, source, other):
    here = Listener("app", host=host, identities=[{"source": source, "user": "app"}])
    elsewhere = Listener("app", host=host, identities=[{"source": other, "user": "app"}])
    start(here, elsewhere)
    with here.connect() as client:
        assert user_of(client) == b"app"
    with elsewhere.connect() as client:
        assert is_refused(client)


def test_an_ipv6_socket_connected_to_an_ipv4_listener_is_identified(start):
    listener = Listener("app", identities=[{"uid": PRODUCER, "user": "app"}])
    start(listener)
    mapped = ("::ffff:127.0.0.1", listener.address[1])
    with ClientAs(mapped, PRODUCER) as client:
        assert user_of(client) == b"app"
    with ClientAs(mapped, CONSUMER) as client:
        assert is_refused(client)


# Order, combination, denial


def test_the_first_rule_that_holds_decides(listen, start):
    listener = listen(
        {"uid": PRODUCER, "user": "producer"},
        {"uid": PRODUCER, "gid": 1, "user": "consumer"},
        {"uid": CONSUMER, "user": "consumer"},
        {"any": True, "user": "app"},
    )
    start(listener, users=("app", "producer", "consumer"))
    for uid, expected in ((PRODUCER, "producer"), (CONSUMER, "consumer"), (OUTSIDER, "app")):
        with ClientAs(listener.address, uid) as client:
            refusal = client.value("ACL", "WHOAMI")
            if expected == "app":
                assert refusal == b"app"
            else:
                # These users may not ask who they are; what they may do tells.
                assert isinstance(refusal, Error)
                command = ("SET", "k", "v") if expected == "producer" else ("GET", "k")
                assert not isinstance(client.value(*command), Error)


def test_all_conditions_of_a_rule_must_hold(open_place, start):
    by_group = Listener(
        "app", path=open_place / "s", socket_mode="0666",
        identities=[{"uid": PRODUCER, "gid": GROUP, "user": "app"}],
    )
    by_source = Listener(
        "app", identities=[{"uid": PRODUCER, "source": "127.0.0.1", "user": "app"}]
    )
    by_other_source = Listener(
        "app", identities=[{"uid": PRODUCER, "source": "127.0.0.2", "user": "app"}]
    )
    start(by_group, by_source, by_other_source)
    for listener, uid, groups, isIn in (
        (by_group, PRODUCER, [GROUP], True),
        (by_group, PRODUCER, [], False),
        (by_group, CONSUMER, [GROUP], False),
        (by_source, PRODUCER, [], True),
        (by_source, CONSUMER, [], False),
        (by_other_source, PRODUCER, [], False),
    ):
        with ClientAs(listener.address, uid, groups=groups) as client:
            assert user_of(client) == b"app" if isIn else is_refused(client)


def test_nobody_is_matched_by_no_rule(listen, start):
    # 65534 cannot be configured; here it would match if it were taken for an account.
    listener = listen({"uid": PRODUCER, "user": "app"}, {"gid": GROUP, "user": "app"})
    proxy = start(listener)
    with ClientAs(listener.address, 65534, gid=65534, groups=[65534]) as client:
        assert is_refused(client)
    assert "uid=65534" not in proxy.log()


@pytest.mark.parametrize("account", ["uid: 65534", "unix_user: nobody", "gid: 65534"])
def test_a_rule_for_nobody_is_refused(start, account, server):
    key, value = account.split(": ")
    rule = {key: int(value) if value.isdigit() else value, "user": "app"}
    proxy = start(Listener("app", identities=[rule]), wait=False)
    assert proxy.process.wait(10) == 78
    assert "65534" in proxy.log()


def test_users_that_are_not_in_our_namespace_are_nobody(listen, start):
    """The proxy runs where only root has a number: everybody else is the overflow user to it."""
    listener = listen({"uid": 0, "user": "app"}, {"uid": PRODUCER, "user": "app"})
    start(listener, wrapper=("unshare", "--user", "--map-root-user"))
    with ClientAs(listener.address, 0) as client:
        assert user_of(client) == b"app"
    with ClientAs(listener.address, PRODUCER) as client:
        assert is_refused(client)


def test_a_refused_client_is_told_so_even_when_it_has_sent_something(listen, start):
    listener = listen({"uid": PRODUCER, "user": "app"})
    start(listener)
    for _ in range(50):
        with ClientAs(listener.address, OUTSIDER) as client:
            try:
                client.send("PING")
            except BrokenPipeError:
                pass
            assert is_refused(client)


def test_refusals_are_logged_with_what_was_seen_and_counted(listen, start, way):
    listener = listen({"uid": PRODUCER, "user": "app"})
    proxy = start(listener)
    for _ in range(20):
        with ClientAs(listener.address, OUTSIDER) as client:
            assert is_refused(client)

    def lines() -> list:
        return [line for line in proxy.log().splitlines() if f"uid={OUTSIDER}" in line]

    assert len(lines()) == 1
    assert "no identity rule of the listener holds" in lines()[0]
    assert listener.settings["address"].removeprefix("unix:") in lines()[0]
    assert ("pid=" in lines()[0]) == (way == "unix")
    # Another one is another line.
    with ClientAs(listener.address, CONSUMER) as client:
        assert is_refused(client)
    (other,) = [line for line in proxy.log().splitlines() if f"uid={CONSUMER}" in line]
    # The probe that waited for the proxy was refused too.
    assert int(re.search(r"refused=(\d+)", other)[1]) >= 21


# Three identities on one machine


def test_producer_consumer_and_outsider_share_one_listener(listen, start, server, start_relay):
    relay = start_relay(server)
    listener = listen(
        {"uid": PRODUCER, "user": "producer"}, {"uid": CONSUMER, "user": "consumer"}
    )
    start(listener, users=("producer", "consumer"), upstream=Upstream.verified(relay))
    server.ask("ACL", "LOG", "RESET")
    with server.admin() as monitor:
        assert monitor.value("MONITOR") == b"OK"
        with ClientAs(listener.address, PRODUCER) as producer, \
                ClientAs(listener.address, CONSUMER) as consumer:
            assert producer.raw("SET", "order:1", "made") == b"+OK\r\n"
            assert producer.value("GET", "order:1").startswith(b"NOPERM")
            assert consumer.raw("GET", "order:1") == bulk("made")
            assert consumer.value("SET", "order:1", "forged").startswith(b"NOPERM")
            assert consumer.raw("GET", "order:1") == bulk("made")

            sent, connections = len(relay.sent()), len(relay.recordings)
            for _ in range(10):
                with ClientAs(listener.address, OUTSIDER) as outsider:
                    try:
                        outsider.send_bytes(encode("SET", "outsider-was-here", 1) * 3)
                    except BrokenPipeError:
                        pass
                    assert is_refused(outsider)
            assert (len(relay.sent()), len(relay.recordings)) == (sent, connections)
            # And the others are as they were.
            assert producer.raw("SET", "last", 1) == b"+OK\r\n"
        while b'"last"' not in (line := monitor.read().raw):
            assert b"outsider" not in line
    assert b"outsider" not in relay.sent()
    denied = {
        (fields["username"], fields["object"])
        for fields in map(_pairs, server.ask("ACL", "LOG"))
    }
    assert denied == {(b"producer", b"get"), (b"consumer", b"set")}


def _pairs(entry: list) -> dict:
    return {key.decode(): value for key, value in zip(entry[::2], entry[1::2])}


# Limits


def test_a_rule_has_room_for_so_many(listen, start):
    listener = listen(
        {"uid": PRODUCER, "user": "app", "max_sessions": 2}, {"uid": CONSUMER, "user": "app"}
    )
    proxy = start(listener)
    first, second = (ClientAs(listener.address, PRODUCER) for _ in range(2))
    assert first.raw("PING") == second.raw("PING") == b"+PONG\r\n"
    with ClientAs(listener.address, PRODUCER) as third:
        assert third.read_to_end() == FULL
    with ClientAs(listener.address, CONSUMER) as other:
        assert other.raw("PING") == b"+PONG\r\n"
    first.close()

    def is_room() -> bool:
        with ClientAs(listener.address, PRODUCER) as client:
            client.send("PING")
            return client.read().raw == b"+PONG\r\n"

    eventually(is_room, what="a place is free again")
    second.close()
    assert f"2 of uid:{PRODUCER} are connected" in proxy.log()


# The log


@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_session_has_a_line_when_it_closes_and_for_debugging_one_when_it_opens(
    level, listen, start, way
):
    listener = listen({"uid": PRODUCER, "user": "app"})
    proxy = start(listener, log={"level": level})
    with ClientAs(listener.address, PRODUCER) as client:
        sent = encode("SET", "k", "v") + encode("GET", "k") * 2 + encode("QUIT")
        client.send_bytes(sent)
        received = client.read_to_end()

    def line(event: str) -> str:
        found = [line for line in proxy.log().splitlines() if f"session {event}" in line]
        return found[-1] if len(found) == 1 else ""

    closed = eventually(lambda: line("closed"), what="the session's end in the log")
    opened = line("opened")
    assert bool(opened) == (level == "debug")
    for text in (opened, closed) if opened else (closed,):
        for field in ("listener=", f"principal=uid:{PRODUCER}", "user=app", f"uid={PRODUCER}"):
            assert field in text
        assert ("pid=" in text) == (way == "unix")
    for field in (
        "reason=quit", f"received={len(sent)}", f"sent={len(received)}", "commands=4",
    ):
        assert field in closed, closed


def test_the_server_can_name_the_culprit(listen, start, server):
    server.ask("ACL", "LOG", "RESET")
    listener = listen(
        {"uid": PRODUCER, "user": "producer"}, {"gid": GROUP, "user": "producer"}
    )
    start(listener, users=("producer",))
    with ClientAs(listener.address, PRODUCER) as client:
        assert client.value("GET", "k").startswith(b"NOPERM")
        names = {fields["name"] for fields in server.connections("producer")}
        assert f"redis-auth-proxy:uid:{PRODUCER}" in names
        (entry,) = (_pairs(entry) for entry in server.ask("ACL", "LOG"))
        assert f"name=redis-auth-proxy:uid:{PRODUCER} ".encode() in entry["client-info"]


# What it costs


def test_established_sessions_pay_nothing_for_their_identity(listen, start):
    """All of identification happens on the acceptor's thread: while commands run it never wakes."""
    # Everybody is let in, so that no farewell to whoever waited for the proxy wakes the thread: it
    # is gone before it can be identified.
    rules = [{"gid": GROUP}, {"uid": PRODUCER}, {"any": True}]
    listener = listen(*(rule | {"user": "app"} for rule in rules))
    proxy = start(listener)
    with ClientAs(listener.address, PRODUCER) as client:
        assert client.raw("PING") == b"+PONG\r\n"
        before = eventually(
            lambda: _switches(proxy.pid, "acceptor", asleep=True), what="the acceptor sleeps"
        )
        for _ in range(1000):
            assert client.raw("PING") == b"+PONG\r\n"
        assert _switches(proxy.pid, "acceptor") == before


def _switches(pid: int, thread: str, asleep: bool = False) -> int:
    """How often a thread has gone to sleep, which it does once for each time that it woke.

    With `asleep`, 0 while it is awake: it has not gone to sleep yet for the last time.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        if f"Name:\t{thread}\n" in status:
            if asleep and "State:\tS" not in status:
                return 0
            return int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)[1])
    raise AssertionError(f"no thread {thread} in {pid}")


def test_what_identification_costs_per_connection(open_place, start):
    """Prints it; what it may be is nobody's to assert on a busy machine."""
    rules = {"nobody is asked": {"any": True}, "the kernel is asked": {"uid": 0}}
    listeners = {}
    for name, rule in rules.items():
        listeners["TCP", name] = Listener("app", identities=[rule | {"user": "app"}])
        listeners["Unix", name] = Listener(
            "app", path=open_place / f"{len(listeners)}", identities=[rule | {"user": "app"}]
        )
    start(*listeners.values(), log={"level": "notice"})
    times = {key: [] for key in listeners}
    for _ in range(300):
        for key, listener in listeners.items():
            begin = time.perf_counter()
            with Client(listener.address) as client:
                assert client.raw("PING") == b"+PONG\r\n"
            times[key].append(time.perf_counter() - begin)
    for key, samples in times.items():
        print(f"{' '.join(key)}: {statistics.median(samples) * 1e6:.1f} µs per connection")
