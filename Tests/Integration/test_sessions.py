"""What a client sets on its connection is its own: database, name, protocol, replies off."""

import re

import pytest

from harness.proxy import Listener, Upstream
from harness.resp import ConnectionClosed, bulk, encode, eventually


# SELECT


def test_a_selected_database_is_the_sessions_own(gateway):
    with gateway.connect() as one, gateway.connect() as two, gateway.connect() as three:
        assert one.raw("SELECT", 1) == b"+OK\r\n"
        assert two.raw("SELECT", 2) == b"+OK\r\n"
        for turn in range(20):
            for number, client in enumerate((three, one, two)):
                assert client.raw("SET", "k", f"{number}-{turn}") == b"+OK\r\n"
            for number, client in enumerate((three, one, two)):
                assert client.raw("GET", "k") == bulk(f"{number}-{turn}")


def test_a_pipeline_can_change_the_database_in_its_middle(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        replies = client.pipeline(
            ("SET", "k", "zero"), ("SELECT", 1), ("GET", "k"), ("SET", "k", "one"),
            ("SELECT", 0), ("GET", "k"), ("SELECT", 1), ("GET", "k"),
        )
        assert replies == (
            b"+OK\r\n+OK\r\n$-1\r\n+OK\r\n+OK\r\n" + bulk("zero") + b"+OK\r\n" + bulk("one")
        )
        assert other.raw("GET", "k") == bulk("zero")


def test_a_refused_select_says_what_the_server_says_and_changes_nothing(proxied, direct):
    with direct.connect() as there, proxied.connect() as here:
        for client in (there, here):
            assert client.raw("SELECT", 3) == b"+OK\r\n"
            assert client.raw("SET", "here", "3") == b"+OK\r\n"
        for command in [
            ("SELECT", 16), ("SELECT", -1), ("SELECT", "x"), ("SELECT",), ("SELECT", 1, 2),
            ("SELECT", "99999999999999999999"), ("SELECT", ""), ("select", "03"),
        ]:
            assert here.raw(*command) == there.raw(*command), command
            assert here.raw("GET", "here") == there.raw("GET", "here"), command


# CLIENT


def test_a_client_name_is_the_sessions_own(gateway):
    with gateway.connect() as one, gateway.connect() as two, gateway.connect() as none:
        assert one.raw("CLIENT", "SETNAME", "first") == b"+OK\r\n"
        assert two.raw("CLIENT", "SETNAME", "second") == b"+OK\r\n"
        for _ in range(10):
            assert one.raw("CLIENT", "GETNAME") == bulk("first")
            assert two.raw("CLIENT", "GETNAME") == bulk("second")
            assert none.raw("CLIENT", "GETNAME") == b"$-1\r\n"
        assert one.raw("CLIENT", "SETNAME", "") == b"+OK\r\n"
        assert one.raw("CLIENT", "GETNAME") == b"$-1\r\n"


@pytest.mark.parametrize(
    "command",
    [
        ("CLIENT", "SETNAME"),
        ("CLIENT", "SETNAME", "two words"),
        ("CLIENT", "SETNAME", "line\r\nfeed"),
        ("CLIENT", "SETNAME", "a", "b"),
        ("CLIENT", "GETNAME", "x"),
        ("CLIENT", "REPLY"),
        ("CLIENT", "REPLY", "SOMETIMES"),
        ("CLIENT", "SETINFO", "lib-name", "x"),
        ("CLIENT", "NO-TOUCH", "on"),
        ("CLIENT", "NO-EVICT", "on"),
        ("CLIENT", "NO-EVICT", "maybe"),
        ("CLIENT", "TRACKING", "perhaps"),
        ("CLIENT", "CACHING", "yes"),
        ("CLIENT", "GETREDIR"),
        ("CLIENT", "TRACKINGINFO"),
        ("CLIENT", "UNBLOCK", "999999999"),
        ("CLIENT", "KILL", "ID", "999999999"),
        ("CLIENT", "KILL", "not-an-address"),
        ("CLIENT", "LIST", "TYPE", "nonsense"),
        ("CLIENT", "HELP"),
        ("CLIENT",),
    ],
    ids=lambda command: " ".join(command).replace("\r\n", "\\r\\n"),
)
def test_client_subcommands_answer_as_on_the_server(proxied, direct, command):
    with direct.connect() as there, proxied.connect() as here:
        for _ in range(2):
            assert here.raw(*command) == there.raw(*command)
        assert here.raw("PING") == b"+PONG\r\n"


def test_a_client_id_stays_and_names_the_connection(gateway):
    with gateway.connect() as one, gateway.connect() as two:
        mine = one.value("CLIENT", "ID")
        assert isinstance(mine, int)
        assert two.value("CLIENT", "ID") != mine
        one.pipeline(*[("ECHO", "x")] * 20)
        assert one.value("CLIENT", "ID") == mine
        assert f"id={mine} ".encode() in one.value("CLIENT", "LIST", "ID", mine)
        assert one.value("CLIENT", "INFO").startswith(b"id=%d " % mine)


def test_a_client_killed_by_its_id_is_closed_and_nobody_else(gateway):
    with gateway.connect() as victim, gateway.connect() as killer, gateway.connect() as third:
        mine = victim.value("CLIENT", "ID")
        assert third.raw("PING") == b"+PONG\r\n"
        assert killer.raw("CLIENT", "KILL", "ID", mine) == b":1\r\n"
        assert victim.read_to_end() == b""
        assert killer.raw("PING") == b"+PONG\r\n"
        assert third.raw("PING") == b"+PONG\r\n"


def test_client_list_contains_the_asking_connection(gateway):
    with gateway.connect() as client:
        listing = client.value("CLIENT", "LIST")
        assert re.search(rb"cmd=client\|list user=app", listing)


def test_reply_off_and_on_leave_out_exactly_the_replies_between(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        client.send_bytes(
            encode("SET", "n", 1) + encode("CLIENT", "REPLY", "OFF") + encode("INCR", "n")
            + encode("GET", "n") + encode("NOSUCH") + encode("CLIENT", "REPLY", "ON")
            + encode("GET", "n")
        )
        assert client.read_raw(3) == b"+OK\r\n+OK\r\n" + bulk("2")
        assert other.raw("GET", "n") == bulk("2")
        assert client.raw("PING") == b"+PONG\r\n"


def test_reply_skip_leaves_out_one_reply(gateway):
    with gateway.connect() as client:
        client.send_bytes(
            encode("CLIENT", "REPLY", "SKIP") + encode("SET", "n", 5) + encode("GET", "n")
            + encode("CLIENT", "REPLY", "SKIP") + encode("GET", "n") + encode("INCR", "n")
        )
        assert client.read_raw(2) == bulk("5") + b":6\r\n"
        assert client.raw("PING") == b"+PONG\r\n"
        client.send("CLIENT", "REPLY", "SKIP")
        client.send("ECHO", "never")
        assert client.raw("ECHO", "seen") == bulk("seen")


def test_replies_stay_off_until_the_client_turns_them_on(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        client.send("CLIENT", "REPLY", "OFF")
        for index in range(10):
            client.send("SET", "quiet", index)
        eventually(lambda: other.raw("GET", "quiet") == bulk("9"), what="the silent writes ran")
        assert client.is_silent(0.1)
        assert client.raw("CLIENT", "REPLY", "ON") == b"+OK\r\n"


# QUIT and RESET


def test_quit_answers_and_closes_and_nothing_behind_it_runs(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        client.send_bytes(
            encode("SET", "before", 1) + encode("QUIT") + encode("SET", "after", 1) + b"PING\r\n"
        )
        assert client.read_to_end() == b"+OK\r\n+OK\r\n"
        assert other.raw("MGET", "before", "after") == b"*2\r\n$1\r\n1\r\n$-1\r\n"


def test_quit_inline_and_with_arguments_closes_too(gateway):
    for request in (b"QUIT\r\n", b"quit now\r\n", encode("qUiT", "x")):
        with gateway.connect() as client:
            client.send_bytes(request)
            assert client.read_to_end() == b"+OK\r\n"


def test_quit_waits_for_the_replies_owed(gateway):
    with gateway.connect() as client:
        client.send_bytes(encode("SET", "n", 0) + encode("INCR", "n") * 500 + encode("QUIT"))
        expected = b"+OK\r\n" + b"".join(b":%d\r\n" % n for n in range(1, 501)) + b"+OK\r\n"
        assert client.read_to_end() == expected


def test_reset_makes_the_session_new(gateway):
    with gateway.connect_anonymously() as client:
        assert client.raw("SELECT", 5) == b"+OK\r\n"
        assert client.raw("CLIENT", "SETNAME", "somebody") == b"+OK\r\n"
        assert client.raw("SET", "in", "five") == b"+OK\r\n"
        client.value("HELLO", 3)
        assert client.raw("RESET") == b"+RESET\r\n"
        assert client.raw("CLIENT", "GETNAME") == b"$-1\r\n"
        assert client.raw("GET", "in") == b"$-1\r\n"
        assert client.raw("HSET", "h", "f", "v") == b":1\r\n"
        assert client.raw("HGETALL", "h") == b"*2\r\n" + bulk("f") + bulk("v")


def test_a_connections_id_is_the_same_behind_reset(gateway):
    with gateway.connect_anonymously() as client, gateway.connect() as other:
        own = client.value("CLIENT", "ID")
        assert client.raw("SELECT", 3) == b"+OK\r\n"
        assert client.raw("RESET") == b"+RESET\r\n"
        assert client.value("CLIENT", "ID") == own
        client.raw("MONITOR")
        client.send("RESET")
        while client.read_raw() != b"+RESET\r\n":
            pass
        assert client.value("CLIENT", "ID") == own
        # The server's word on who the client is upstream is the proxy's user again.
        assert client.raw("SET", "behind", "reset") == b"+OK\r\n"
        assert other.raw("GET", "behind") == bulk("reset")


def test_reset_leaves_a_transaction_and_a_watch(gateway):
    with gateway.connect_anonymously() as client, gateway.connect() as other:
        assert client.raw("WATCH", "w") == b"+OK\r\n"
        assert client.raw("MULTI") == b"+OK\r\n"
        assert client.raw("SET", "w", "1") == b"+QUEUED\r\n"
        assert client.raw("RESET") == b"+RESET\r\n"
        assert client.raw("EXEC") == b"-ERR EXEC without MULTI\r\n"
        assert client.raw("EXISTS", "w") == b":0\r\n"
        assert other.raw("SET", "w", "2") == b"+OK\r\n"
        assert client.pipeline(("MULTI",), ("GET", "w"), ("EXEC",)).endswith(
            b"*1\r\n" + bulk("2")
        )


def test_reset_in_a_pipeline_keeps_the_order(gateway):
    with gateway.connect_anonymously() as client:
        assert client.pipeline(
            ("SELECT", 2), ("SET", "r", "two"), ("RESET",), ("GET", "r"), ("SELECT", 2), ("GET", "r")
        ) == b"+OK\r\n+OK\r\n+RESET\r\n$-1\r\n+OK\r\n" + bulk("two")


# AUTH and HELLO: the client faces a server without a password


@pytest.mark.parametrize(
    "command",
    [
        ("AUTH", "anything"),
        ("AUTH", "default", "anything"),
        ("AUTH", "default", ""),
        ("AUTH", "somebody", "anything"),
        ("AUTH", "Default", "anything"),
        ("AUTH",),
        ("AUTH", "a", "b", "c"),
        ("auth", "x\r\n+OK\r\n"),
        ("HELLO", "4"),
        ("HELLO", "1"),
        ("HELLO", "x"),
        ("HELLO", "3", "AUTH", "default"),
        ("HELLO", "3", "AUTH", "somebody", "anything"),
        ("HELLO", "3", "NONSENSE"),
        ("HELLO", "3", "SETNAME"),
        ("HELLO", "3", "SETNAME", "two words"),
        ("HELLO", "AUTH", "default", "x"),
        ("HELLO", "2", "AUTH", "default", "x", "SETNAME"),
    ],
    ids=lambda command: " ".join(command).replace("\r\n", "\\r\\n"),
)
def test_a_clients_login_is_answered_as_by_a_server_without_password(proxied, direct, command):
    with direct.connect_anonymously() as there, proxied.connect_anonymously() as here:
        assert here.raw(*command) == there.raw(*command)
        assert here.raw("SET", "k", "v") == there.raw("SET", "k", "v")
        assert here.raw("HGETALL", "none") == there.raw("HGETALL", "none")


def without_id(raw: bytes) -> bytes:
    return re.sub(rb"(\$2\r\nid\r\n):\d+\r\n", rb"\1:0\r\n", raw)


@pytest.mark.parametrize(
    "command",
    [
        ("HELLO",),
        ("HELLO", "2"),
        ("HELLO", "3"),
        ("hello", "3"),
        ("HELLO", "3", "AUTH", "default", "anything"),
        ("HELLO", "2", "AUTH", "default", ""),
        ("HELLO", "3", "SETNAME", "me"),
        ("HELLO", "3", "AUTH", "default", "x", "SETNAME", "me"),
        ("HELLO", "3", "SETNAME", "me", "AUTH", "default", "x"),
        ("HELLO", "3", "setname", ""),
    ],
    ids=" ".join,
)
def test_hello_tells_the_servers_facts_and_switches_the_protocol(proxied, direct, command):
    with direct.connect_anonymously() as there, proxied.connect_anonymously() as here:
        for client in (there, here):
            assert client.raw("HSET", "h", "f", "v") == b":1\r\n"
        assert without_id(here.raw(*command)) == without_id(there.raw(*command))
        for probe in (("HGETALL", "h"), ("CLIENT", "GETNAME"), ("GET", "none"), ("HELLO",)):
            assert without_id(here.raw(*probe)) == without_id(there.raw(*probe)), probe


def test_the_protocol_can_change_back_and_forth_in_one_pipeline(gateway):
    with gateway.connect_anonymously() as client:
        assert client.raw("HSET", "h", "f", "v") == b":1\r\n"
        pair = bulk("f") + bulk("v")
        for _ in range(3):
            client.send_bytes(
                encode("HGETALL", "h") + encode("HELLO", 3) + encode("HGETALL", "h")
                + encode("HELLO", 2) + encode("HGETALL", "h")
            )
            frames = [client.read() for _ in range(5)]
            assert [frame.raw for frame in frames[::2]] == [
                b"*2\r\n" + pair, b"%1\r\n" + pair, b"*2\r\n" + pair
            ]
            assert frames[1].value[b"proto"] == 3
            assert frames[3].value[5] == 2


def test_sessions_of_both_protocols_do_not_leak_into_each_other(gateway):
    with gateway.connect(protocol=2) as two, gateway.connect(protocol=3) as three:
        assert two.raw("HSET", "h", "f", "v") == b":1\r\n"
        for _ in range(30):
            assert two.raw("HGETALL", "h").startswith(b"*2\r\n")
            assert three.raw("HGETALL", "h").startswith(b"%1\r\n")
            assert two.raw("GET", "none") == b"$-1\r\n"
            assert three.raw("GET", "none") == b"_\r\n"


def test_a_login_in_the_middle_of_a_pipeline_keeps_the_order(proxied):
    with proxied.connect() as client:
        assert client.pipeline(
            ("SET", "k", 1), ("AUTH", "default", "x"), ("INCR", "k"), ("AUTH", "other", "x"),
            ("INCR", "k"), ("AUTH", "x"), ("INCR", "k"),
        ) == (
            b"+OK\r\n+OK\r\n:2\r\n"
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n:3\r\n"
            b"-ERR AUTH <password> called without any password configured for the default user."
            b" Are you sure your configuration is correct?\r\n:4\r\n"
        )


def test_a_login_inside_a_transaction_never_runs_upstream(proxied):
    proxied.server.ask("ACL", "LOG", "RESET")
    for request in (
        ("AUTH", "admin", "a-guess"),
        ("AUTH", "a-guess"),
        ("HELLO", "3", "AUTH", "admin", "a-guess"),
        ("HELLO", "2"),
    ):
        with proxied.connect() as client:
            assert client.raw("MULTI") == b"+OK\r\n"
            client.raw(*request)
            client.send("EXEC")
            try:
                client.read()
                assert client.value("ACL", "WHOAMI") == b"app"
            except ConnectionClosed:
                pass
    assert proxied.server.ask("ACL", "LOG") == []


# MONITOR, WAIT, scripts


def test_monitor_shows_commands_as_they_run(gateway):
    with gateway.connect() as watcher, gateway.connect() as worker:
        assert watcher.raw("MONITOR") == b"+OK\r\n"
        assert worker.raw("SET", "watched", "token-4711") == b"+OK\r\n"
        for _ in range(50):
            line = watcher.read().value
            if b'"SET" "watched" "token-4711"' in line:
                break
        else:
            raise AssertionError("the command was not shown")
        assert worker.raw("GET", "watched") == bulk("token-4711")


def test_wait_counts_the_writes_of_the_asking_client(start_server, start_proxy):
    primary = start_server()
    replica = start_server(
        options={
            "tls-replication": "yes",
            "replicaof": f"127.0.0.1 {primary.port}",
            "masteruser": "admin",
            "masterauth": primary.passwords["admin"],
        }
    )
    eventually(
        lambda: b"state=online" in primary.ask("INFO", "replication"), 20, "the replica follows"
    )
    proxy = start_proxy(
        {"cache": Upstream.verified(primary)},
        {"app": primary.passwords["app"]},
        [Listener("app", mode) for mode in ("multiplexed", "dedicated")],
    )
    for connect in (
        lambda: primary.connect("app"), lambda: proxy.connect(0), lambda: proxy.connect(1)
    ):
        with connect() as client:
            assert client.raw("SET", "k", "v") == b"+OK\r\n"
            assert client.raw("WAIT", 1, 5000) == b":1\r\n"
            replica.freeze()
            try:
                assert client.raw("SET", "k", "w") == b"+OK\r\n"
                assert client.raw("WAIT", 1, 300) == b":0\r\n"
                assert client.pipeline(("SET", "k", "x"), ("WAIT", 1, 300)) == b"+OK\r\n:0\r\n"
            finally:
                replica.thaw()
            assert client.raw("WAIT", 1, 5000) == b":1\r\n"


def test_scripts_run_and_can_be_killed_from_another_client(gateway):
    with gateway.connect() as looping, gateway.connect() as other:
        assert other.raw("PING") == b"+PONG\r\n"
        looping.send("EVAL", "while true do end", 0)
        eventually(
            lambda: other.value("SCRIPT", "KILL") == b"OK", 20, "SCRIPT KILL reaches the server"
        )
        assert b"Script killed by user" in looping.read().raw
        assert looping.raw("PING") == b"+PONG\r\n"


def test_tracking_tells_the_client_what_became_stale(gateway):
    with gateway.connect(protocol=3) as tracker, gateway.connect() as writer:
        assert writer.raw("SET", "cached", "1") == b"+OK\r\n"
        assert tracker.raw("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert tracker.raw("GET", "cached") == bulk("1")
        assert writer.raw("SET", "cached", "2") == b"+OK\r\n"
        assert tracker.read().raw == b">2\r\n" + bulk("invalidate") + b"*1\r\n" + bulk("cached")
        assert tracker.raw("GET", "cached") == bulk("2")
        with gateway.connect(protocol=3) as other:
            assert other.raw("GET", "cached") == bulk("2")
            assert writer.raw("SET", "cached", "3") == b"+OK\r\n"
            assert tracker.read().value == [b"invalidate", [b"cached"]]
            assert other.is_silent(0.1)


def stale(*keys) -> bytes:
    listed = f"*{len(keys)}\r\n".encode() + b"".join(bulk(key) for key in keys)
    return b">2\r\n" + bulk("invalidate") + listed


@pytest.mark.parametrize(
    "options, before, reads, is_told",
    [
        ((), (), True, True),
        ((), (), False, False),
        (("BCAST", "PREFIX", "cached"), (), False, True),
        (("BCAST", "PREFIX", "other"), (), True, False),
        (("OPTIN",), (("CLIENT", "CACHING", "YES"),), True, True),
        (("OPTIN",), (), True, False),
        (("OPTOUT",), (("CLIENT", "CACHING", "NO"),), True, False),
        (("OPTOUT",), (), True, True),
    ],
)
def test_tracking_follows_its_options(gateway, options, before, reads, is_told):
    with gateway.connect(protocol=3) as tracker, gateway.connect() as writer:
        assert writer.raw("SET", "cached:1", "1") == b"+OK\r\n"
        assert tracker.raw("CLIENT", "TRACKING", "ON", *options) == b"+OK\r\n"
        for command in before:
            assert tracker.raw(*command) == b"+OK\r\n"
        if reads:
            assert tracker.raw("GET", "cached:1") == bulk("1")
        assert writer.raw("SET", "cached:1", "2") == b"+OK\r\n"
        if is_told:
            assert tracker.read().raw == stale("cached:1")
        else:
            # Told before the answer, if at all.
            assert tracker.raw("ECHO", "end") == bulk("end")
            assert tracker.is_silent(0.1)


@pytest.mark.parametrize("options", [(), ("NOLOOP",)])
def test_a_tracking_clients_own_writes_come_back_unless_it_wants_none(gateway, options):
    with gateway.connect(protocol=3) as tracker:
        assert tracker.raw("CLIENT", "TRACKING", "ON", *options) == b"+OK\r\n"
        assert tracker.raw("GET", "mine") == b"_\r\n"
        tracker.send("SET", "mine", 1)
        got = tracker.read_raw(1 if options else 2)
        assert got.replace(stale("mine"), b"", 0 if options else 1) == b"+OK\r\n"
        assert tracker.is_silent(0.1)


def test_invalidations_inside_a_transaction_are_the_servers_byte_for_byte(gateway):
    with gateway.connect(protocol=3) as tracker:
        assert tracker.raw("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert tracker.raw("GET", "k") == b"_\r\n"
        tracker.pipeline(("MULTI",), ("SET", "k", "1"), ("INCR", "k"))
        tracker.send("EXEC")
        tracker.send("ECHO", "end")
        got = b""
        while not got.endswith(bulk("end")):
            got += tracker.read_exactly(1)
        assert stale("k") in got
        assert got.replace(stale("k"), b"") == b"*2\r\n+OK\r\n:2\r\n" + bulk("end")
        assert tracker.raw("GET", "k") == bulk("2")


@pytest.mark.parametrize("protocol", [2, 3])
def test_invalidations_go_to_the_sessions_own_other_connection(gateway, protocol):
    with (
        gateway.connect(protocol=protocol) as listener,
        gateway.connect(protocol=protocol) as tracker,
        gateway.connect() as writer,
    ):
        identity = listener.value("CLIENT", "ID")
        confirmation = listener.raw("SUBSCRIBE", "__redis__:invalidate")
        assert confirmation.endswith(bulk("__redis__:invalidate") + b":1\r\n")
        assert tracker.raw("CLIENT", "TRACKING", "ON", "REDIRECT", identity) == b"+OK\r\n"
        assert writer.raw("SET", "cached", "1") == b"+OK\r\n"
        assert tracker.raw("GET", "cached") == bulk("1")
        assert writer.raw("SET", "cached", "2") == b"+OK\r\n"
        keys = b"*1\r\n" + bulk("cached")
        assert listener.read().raw == (
            b">2\r\n" + bulk("invalidate") + keys
            if protocol == 3
            else b"*3\r\n" + bulk("message") + bulk("__redis__:invalidate") + keys
        )
        assert tracker.raw("GET", "cached") == bulk("2")
        assert tracker.is_silent(0.1)


def test_client_pause_and_unpause_work_from_another_client(gateway):
    with gateway.connect() as pauser, gateway.connect() as other:
        assert other.raw("PING") == b"+PONG\r\n"
        assert pauser.raw("CLIENT", "PAUSE", 60_000, "WRITE") == b"+OK\r\n"
        try:
            other.send("SET", "paused", 1)
            assert other.is_silent(0.2)
            assert pauser.raw("CLIENT", "UNPAUSE") == b"+OK\r\n"
            assert other.read().raw == b"+OK\r\n"
        finally:
            gateway.server.ask("CLIENT", "UNPAUSE")


def test_quit_with_replies_turned_off_leaves_nothing_behind(server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app")],
    )
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    before = len(server.connections("app"))
    for _ in range(3):
        with proxy.connect() as client:
            client.send("CLIENT", "REPLY", "OFF")
            client.send("PSUBSCRIBE", "*")
            client.send("QUIT")
            client.read_to_end()
    eventually(lambda: len(server.connections("app")) <= before, what="all connections are gone")


def test_reset_with_an_argument_is_refused_and_resets_nothing(gateway):
    with gateway.connect() as client:
        refusal = b"-ERR wrong number of arguments for 'reset' command\r\n"
        assert client.raw("RESET", "x") == refusal
        assert client.raw("SELECT", 1) == b"+OK\r\n"
        assert client.raw("RESET", "x") == refusal
        assert client.raw("SET", "one", 1) == b"+OK\r\n"
        assert client.raw("SELECT", 0) == b"+OK\r\n"
        assert client.raw("EXISTS", "one") == b":0\r\n"


@pytest.mark.parametrize("version", ["+3", "03", "3 ", "-3", "", "9223372036854775808"])
def test_hello_reads_its_version_as_the_server_does(proxied, direct, version):
    with direct.connect() as there, proxied.connect() as here:
        assert here.raw("HELLO", version) == there.raw("HELLO", version)
