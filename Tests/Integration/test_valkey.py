"""What a newer server adds to the protocol, directly and through the proxy.

The same tests as for the older server are in the other files; here is only what that one does not
know: facts about a client's library, connections that touch no key, waits for the disk, times to
live of single fields, and answers that have more in them.
"""

import re

import pytest

from conftest import GATEWAYS, Gateway
from harness.proxy import Listener, Proxy, Upstream
from harness.resp import bulk, eventually
from harness.server import PASSWORDS, ValkeyServer

USERS = ("app", "consumer", "subcommand", "nothing")
LIBRARIES = re.compile(rb" lib-name=(\S*) lib-ver=(\S*)")


@pytest.fixture(scope="module")
def valkey_proxy(directory, valkey):
    listeners = {
        mode: {user: Listener(user, mode) for user in USERS} for mode in GATEWAYS[1:]
    }
    proxy = Proxy(
        directory / "valkey-proxy", {"cache": Upstream.plain(valkey)},
        {user: PASSWORDS[user] for user in USERS},
        [listener for mode in listeners.values() for listener in mode.values()],
    )
    proxy.by_mode = listeners
    yield proxy
    assert proxy.process.is_running
    assert proxy.stop() == 0


@pytest.fixture(params=GATEWAYS)
def gateway(request, valkey):
    """A way to an empty server."""
    assert valkey.ask("FLUSHALL") == b"OK"
    if request.param == "direct":
        return Gateway("direct", valkey)
    return request.getfixturevalue("proxied_" + request.param)


@pytest.fixture
def proxied_multiplexed(valkey, valkey_proxy):
    yield Gateway("multiplexed", valkey, valkey_proxy.by_mode["multiplexed"])
    assert valkey_proxy.process.is_running


@pytest.fixture
def proxied_dedicated(valkey, valkey_proxy):
    yield Gateway("dedicated", valkey, valkey_proxy.by_mode["dedicated"])
    assert valkey_proxy.process.is_running


@pytest.fixture(params=GATEWAYS[1:])
def proxied(request):
    return request.getfixturevalue("proxied_" + request.param)


@pytest.fixture
def direct(valkey):
    return Gateway("direct", valkey)


def library(client) -> tuple:
    """What the server says of the connection that serves this client at this moment."""
    return LIBRARIES.search(client.value("CLIENT", "INFO")).groups()


# CLIENT SETINFO


def test_every_client_has_the_library_it_named(gateway):
    with gateway.connect() as one, gateway.connect() as two, gateway.connect() as none:
        for number, client in enumerate((one, two), 1):
            for attribute, value in (("LIB-NAME", f"library{number}"), ("lib-ver", f"{number}.0")):
                assert client.raw("CLIENT", "SETINFO", attribute, value) == b"+OK\r\n"
        assert library(one) == (b"library1", b"1.0")
        assert library(two) == (b"library2", b"2.0")
        assert library(none) == (b"", b"")


@pytest.mark.parametrize("pin", [("MULTI",), ("WATCH", "k"), ("CLIENT", "ID")], ids=" ".join)
def test_a_connection_of_the_clients_own_bears_its_library(gateway, pin):
    with gateway.connect() as client:
        replies = client.pipeline(
            ("CLIENT", "SETINFO", "lib-name", "before"), ("CLIENT", "SETINFO", "lib-ver", "1"),
            pin,
        )
        assert replies.startswith(b"+OK\r\n+OK\r\n")
        found = b"".join(
            line for line in gateway.server.ask("CLIENT", "LIST").splitlines()
            if b" lib-name=before lib-ver=1" in line
        )
        assert b" user=app " in found
        if pin == ("MULTI",):
            assert client.raw("DISCARD") == b"+OK\r\n"
        assert client.raw("CLIENT", "SETINFO", "lib-name", "after") == b"+OK\r\n"
        assert library(client) == (b"after", b"1")


def test_a_library_is_the_sessions_own_after_a_transaction_too(gateway):
    with gateway.connect() as one, gateway.connect() as two:
        assert one.raw("CLIENT", "SETINFO", "lib-name", "first") == b"+OK\r\n"
        for client in (one, two):
            assert client.raw("WATCH", "k") == b"+OK\r\n"
            assert client.pipeline(("MULTI",), ("GET", "k"), ("EXEC",)).endswith(b"*1\r\n$-1\r\n")
        assert library(two) == (b"", b"")
        assert library(one) == (b"first", b"")


def test_a_library_named_inside_a_transaction_is_named_by_exec(gateway):
    with gateway.connect() as client:
        replies = client.pipeline(
            ("MULTI",), ("CLIENT", "SETINFO", "lib-name", "queued"), ("PING",), ("EXEC",)
        )
        assert replies == b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+PONG\r\n"
        assert library(client) == (b"queued", b"")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "command",
    [
        ("CLIENT", "SETINFO"),
        ("CLIENT", "SETINFO", "lib-name"),
        ("CLIENT", "SETINFO", "lib-name", "x"),
        ("CLIENT", "SETINFO", "lib-name", ""),
        ("CLIENT", "SETINFO", "lib-name", "two words"),
        ("CLIENT", "SETINFO", "lib-ver", "line\r\nfeed"),
        ("CLIENT", "SETINFO", "lib-ver", "non-ASCII ä"),
        ("CLIENT", "SETINFO", "lib-name", "x", "y"),
        ("CLIENT", "SETINFO", "nonsense", "x"),
        ("CLIENT", "NO-TOUCH"),
        ("CLIENT", "NO-TOUCH", "on"),
        ("CLIENT", "NO-TOUCH", "maybe"),
        ("CLIENT", "CAPA", "redirect"),
        ("CLIENT", "CAPA", "nonsense"),
        ("CLIENT", "CAPA"),
        ("CLIENT", "IMPORT-SOURCE", "on"),
        ("CLIENT", "KILL", "LADDR", "1.2.3.4:5", "MAXAGE", "1000000"),
        ("WAITAOF", "0", "0", "1"),
        ("WAITAOF", "0", "1", "1"),
        ("WAITAOF", "1", "0", "1"),
        ("WAITAOF", "x", "0", "1"),
        ("WAITAOF",),
        ("SCRIPT", "SHOW", "0" * 40),
        ("SELECT", "1"),
        ("RESET", "x"),
    ],
    ids=lambda command: " ".join(command).replace("\r\n", "\\r\\n"),
)
def test_every_user_is_answered_as_by_the_server(proxied, direct, user, command):
    with direct.connect(user) as there, proxied.connect(user) as here:
        for _ in range(2):
            assert here.raw(*command) == there.raw(*command)
        for client in (here, there):
            client.send("GET", "k")
        assert here.read().raw == there.read().raw


def test_the_server_is_asked_once_per_user_whether_libraries_may_be_named(valkey, start_proxy):
    listener = Listener("app", "multiplexed")
    start_proxy({"cache": Upstream.plain(valkey)}, {"app": PASSWORDS["app"]}, [listener])
    assert valkey.ask("CONFIG", "RESETSTAT") == b"OK"
    for number in range(20):
        with listener.connect() as client:
            assert client.pipeline(
                ("CLIENT", "SETINFO", "LIB-NAME", f"n{number}"),
                ("CLIENT", "SETINFO", "LIB-VER", "1"), ("PING",),
            ) == b"+OK\r\n+OK\r\n+PONG\r\n"
    statistics = valkey.ask("INFO", "commandstats")
    assert re.search(rb"cmdstat_client\|setinfo:calls=1,", statistics), (
        re.findall(rb"cmdstat_client\S*", statistics)
    )


# Other states of a connection


def test_a_connection_that_touches_nothing_is_the_clients_own(gateway):
    def flags():
        return {fields["flags"] for fields in gateway.server.connections("app")}

    with gateway.connect() as one, gateway.connect() as two:
        assert two.raw("PING") == b"+PONG\r\n"
        assert one.raw("CLIENT", "NO-TOUCH", "ON") == b"+OK\r\n"
        assert b" flags=T " in one.value("CLIENT", "INFO")
        assert b" flags=N " in two.value("CLIENT", "INFO")
        assert "T" in flags()
        assert one.raw("RESET") == b"+RESET\r\n"
        if not gateway.is_direct:
            eventually(lambda: "T" not in flags(), what="no connection is left that way")
    with gateway.connect() as three:
        assert b" flags=N " in three.value("CLIENT", "INFO")


def test_a_capability_is_the_clients_own(gateway):
    with gateway.connect() as one, gateway.connect() as two:
        assert one.raw("CLIENT", "CAPA", "REDIRECT") == b"+OK\r\n"
        assert b" capa=r " in one.value("CLIENT", "INFO")
        assert b" capa= " in two.value("CLIENT", "INFO")
    with gateway.connect() as three:
        assert b" capa= " in three.value("CLIENT", "INFO")


def test_what_is_still_served_during_a_script_is_served_for_clients_too(gateway):
    """Newer servers answer CLIENT SETNAME and the like while a script keeps them busy."""
    loop = "while true do end"
    with gateway.connect() as busy, gateway.connect() as other, gateway.server.admin() as admin:
        for command in [("CLIENT", "SETINFO", "lib-name", "x"), ("CLIENT", "SETNAME", "x")]:
            assert other.raw(*command) == b"+OK\r\n"
        busy.send("EVAL", loop, 0)
        eventually(lambda: admin.raw("PING").startswith(b"-BUSY"), what="the server is busy")
        try:
            for command in [
                ("CLIENT", "SETINFO", "lib-name", "y"), ("CLIENT", "SETNAME", "y"),
                ("CLIENT", "NO-TOUCH", "ON"), ("CLIENT", "ID"),
            ]:
                other.send(*command)
                assert not other.is_silent(3), f"no answer to {command}"
                assert other.read().raw[:1] in (b"+", b":")
        finally:
            assert admin.raw("SCRIPT", "KILL") == b"+OK\r\n"
        assert busy.read().is_error


# WAITAOF


@pytest.fixture
def durable(directory, place):
    server = ValkeyServer(place / "durable", durable=True, options={"appendfsync": "everysec"})
    yield server
    server.stop()


@pytest.mark.parametrize("mode", GATEWAYS)
def test_waitaof_waits_for_the_asking_clients_writes(durable, start_proxy, mode):
    connect = durable.connect
    if mode != "direct":
        listener = Listener("app", mode)
        start_proxy({"cache": Upstream.plain(durable)}, {"app": PASSWORDS["app"]}, [listener])

        def connect(user):
            return listener.connect()

    with connect("app") as client, connect("app") as other:
        for turn in range(2):
            assert client.raw("SET", "k", turn) == b"+OK\r\n"
            # Every second the server writes to the disk; before that nothing is there yet.
            assert client.raw("WAITAOF", 1, 0, 10_000) == b"*2\r\n:1\r\n:0\r\n"
            assert other.raw("PING") == b"+PONG\r\n"
        assert durable.ask("CONFIG", "SET", "appendfsync", "no") == b"OK"
        assert client.raw("SET", "k", "late") == b"+OK\r\n"
        assert client.raw("WAITAOF", 0, 1, 50) in (b"*2\r\n:0\r\n:0\r\n", b"*2\r\n:1\r\n:0\r\n")
        client.send("WAITAOF", 0, 1, 0)
        assert other.raw("GET", "k") == bulk("late")
        assert client.is_silent(0.2)


# Answers that have more in them


def test_hello_tells_the_availability_zone(gateway, direct):
    number = re.compile(rb"(\$2\r\nid\r\n:)\d+")
    with gateway.connect() as here, direct.connect() as there:
        for version in (3, 2):
            mine, theirs = (client.raw("HELLO", version) for client in (here, there))
            assert bulk("availability_zone") + bulk("xx-east-1a") in theirs
            assert number.sub(rb"\1", mine) == number.sub(rb"\1", theirs)


def test_fields_of_hashes_expire(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        assert client.pipeline(
            ("HSETEX", "h", "EX", 1000, "FIELDS", 2, "a", "1", "b", "2"),
            ("HTTL", "h", "FIELDS", 2, "a", "none"), ("HPERSIST", "h", "FIELDS", 1, "b"),
            ("HPEXPIRE", "h", 1, "FIELDS", 1, "b"),
        ) == b":1\r\n*2\r\n:1000\r\n:-2\r\n*1\r\n:1\r\n*1\r\n:1\r\n"
        eventually(lambda: other.raw("HGET", "h", "b") == b"$-1\r\n", what="the field is gone")
        assert other.raw("HGETEX", "h", "PERSIST", "FIELDS", 1, "a") == b"*1\r\n" + bulk("1")
        assert client.raw("HTTL", "h", "FIELDS", 1, "a") == b"*1\r\n:-1\r\n"


def test_a_field_that_expires_is_announced(gateway):
    valkey = gateway.server
    assert valkey.ask("CONFIG", "SET", "notify-keyspace-events", "KEA") == b"OK"
    try:
        with gateway.connect() as subscriber, gateway.connect() as client:
            subscriber.send("SUBSCRIBE", "__keyspace@0__:h")
            subscriber.read()
            assert client.raw("HSETEX", "h", "PX", 1, "FIELDS", 1, "f", "v") == b":1\r\n"
            seen = [subscriber.read().value[2] for _ in range(3)]
            assert seen[:2] == [b"hset", b"hexpire"]
            assert seen[2] in (b"hexpired", b"del")
    finally:
        assert valkey.ask("CONFIG", "SET", "notify-keyspace-events", "") == b"OK"


def test_a_transaction_with_a_refused_command_is_aborted(gateway):
    """MULTI, WATCH and CLIENT REPLY inside a transaction abort it on newer servers."""
    for refused in [("MULTI",), ("WATCH", "k"), ("CLIENT", "REPLY", "ON")]:
        with gateway.connect() as client:
            replies = client.pipeline(("MULTI",), ("SET", "k", "v"), refused, ("EXEC",))
            assert replies.startswith(b"+OK\r\n+QUEUED\r\n-ERR ")
            assert b"-EXECABORT " in replies
            assert client.raw("GET", "k") == b"$-1\r\n"


@pytest.mark.parametrize("protocol", (2, 3))
def test_messages_of_shards_reach_their_subscribers(gateway, protocol):
    with gateway.connect(protocol=protocol) as subscriber, gateway.connect() as client:
        assert b"ssubscribe" in subscriber.raw("SSUBSCRIBE", "orders")
        assert client.raw("SPUBLISH", "orders", "one") == b":1\r\n"
        assert client.raw("PUBLISH", "orders", "none") == b":0\r\n"
        kind = b"*" if protocol == 2 else b">"
        assert subscriber.read().raw == (
            kind + b"3\r\n" + bulk("smessage") + bulk("orders") + bulk("one")
        )
        assert b"sunsubscribe" in subscriber.raw("SUNSUBSCRIBE", "orders")
        assert subscriber.raw("GET", "k") == (b"$-1\r\n" if protocol == 2 else b"_\r\n")


def test_commands_the_older_server_does_not_have_are_shared(gateway):
    with gateway.connect() as client:
        assert client.pipeline(
            ("SET", "k", "1"), ("SET", "k", "2", "IFEQ", "1"), ("DELIFEQ", "k", "1"),
            ("MSETEX", 2, "a", "1", "b", "2", "EX", 100), ("MGET", "a", "b"),
        ) == b"+OK\r\n+OK\r\n:0\r\n:1\r\n*2\r\n" + bulk("1") + bulk("2")
        expiries = client.pipeline(*[("HEXPIRETIME", "none", "FIELDS", 1, "f")] * 3)
        assert expiries == b"*1\r\n:-2\r\n" * 3
