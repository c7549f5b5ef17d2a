"""Losing the server: who has nothing in flight notices nothing, and nobody gets a wrong reply."""

import socket
import threading
import time

import pytest

from harness import verifier
from harness.ports import free_port
from harness.proxy import Listener, Upstream
from harness.resp import ConnectionClosed, bulk, encode, eventually
from harness.verifier import Plan

FAST = {"upstream_wait": "1s", "login_timeout": "1s"}


def start(start_proxy, server, mode="multiplexed", user="app", **settings):
    return start_proxy(
        {"cache": Upstream.verified(server)},
        {user: server.passwords[user]},
        [Listener(user, mode)],
        **settings,
    )


def served(proxy) -> bool:
    try:
        with proxy.connect(timeout=10) as client:
            return client.raw("SET", "served", "x") == b"+OK\r\n"
    except (OSError, ConnectionClosed):
        return False


# Killed connections


def test_sessions_at_rest_notice_nothing_when_connections_are_killed(server, shared_proxy):
    clients = [shared_proxy.by_mode["multiplexed"]["app"].connect() for _ in range(20)]
    for turn in range(10):
        for number, client in enumerate(clients):
            assert client.raw("ECHO", f"{number}-{turn}") == bulk(f"{number}-{turn}")
        assert server.lose_connections("app") >= 1
    for client in clients:
        assert client.raw("PING") == b"+PONG\r\n"
        client.close()


def test_the_sessions_own_settings_survive_the_loss_of_a_shared_connection(server, shared_proxy):
    """Either the session goes on as it was or it is closed; it never goes on as another one."""
    for prepare, probe, expected in [
        (("SELECT", 4), ("GET", "k"), bulk("four")),
        (("HELLO", 3), ("GET", "none"), b"_\r\n"),
        (("CLIENT", "SETNAME", "me"), ("CLIENT", "GETNAME"), bulk("me")),
        (("MULTI",), ("EXEC",), b"*0\r\n"),
        (("WATCH", "k"), ("UNWATCH",), b"+OK\r\n"),
        (("SUBSCRIBE", "c"), ("PING",), b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
    ]:
        with shared_proxy.by_mode["multiplexed"]["app"].connect() as other:
            other.pipeline(("SET", "k", "zero"), ("SELECT", 4), ("SET", "k", "four"))
        with shared_proxy.by_mode["multiplexed"]["app"].connect() as client:
            client.value(*prepare)
            server.lose_connections("app")
            try:
                assert client.raw(*probe) == expected, prepare
            except (ConnectionClosed, ConnectionResetError, BrokenPipeError):
                pass


def test_a_session_with_something_in_flight_is_closed_when_its_connection_is_lost(
    server, start_proxy, start_relay
):
    relay = start_relay(server)
    proxy = start_proxy(
        {"cache": Upstream.verified(relay)}, {"app": server.passwords["app"]}, [Listener("app")]
    )
    with proxy.connect() as resting, proxy.connect() as flying:
        assert resting.raw("SET", "n", 0) == b"+OK\r\n"
        assert flying.raw("PING") == b"+PONG\r\n"
        relay.hold_replies()
        flying.send("INCR", "n")
        eventually(lambda: server.ask("GET", "n") == b"1", what="the command ran")
        # What follows is not sent upstream by the time of the loss, or is lost with it.
        relay.cut()
        relay.release_replies()
        assert flying.read_to_end() == b""
        assert resting.raw("GET", "n") == bulk("1"), "a command in flight must not run twice"


@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 50, 500, 5003])
def test_a_connection_lost_inside_a_reply_never_yields_a_wrong_one(
    server, start_proxy, start_relay, at
):
    relay = start_relay(server)
    proxy = start_proxy(
        {"cache": Upstream.verified(relay)}, {"app": server.passwords["app"]}, [Listener("app")]
    )
    expected = b"".join(bulk(f"{index}".zfill(30)) for index in range(300))
    with proxy.connect() as resting, proxy.connect() as client:
        assert resting.raw("PING") == client.raw("PING") == b"+PONG\r\n"
        relay.cut_after_reply_bytes = at
        client.send_bytes(b"".join(encode("ECHO", f"{i}".zfill(30)) for i in range(300)))
        received = client.read_to_end()
        assert expected.startswith(received)
        assert len(received) <= at
        assert resting.raw("ECHO", "alive") == bulk("alive")


def test_killed_connections_under_load_lead_to_no_wrong_reply(server, start_proxy):
    proxy = start(start_proxy, server)
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=30, commands=1_000_000, seed=31,
        may_close=True, transactions=True, prefix="kill",
    )
    load = verifier.Load(plan)
    killed = 0
    for _ in range(15):
        time.sleep(0.2)
        killed += server.kill_connections("app")
    load.stop()
    outcome = load.outcome(60)
    verifier.check(outcome, plan)
    assert killed > 10 and outcome.answered > 1000
    assert outcome.longest_pause_seconds < 5


def test_a_blocked_session_is_closed_when_its_connection_is_lost(server, shared_proxy):
    with shared_proxy.by_mode["multiplexed"]["app"].connect() as client:
        client.send("BLPOP", "never-there", 0)
        eventually(
            lambda: any("b" in c["flags"] for c in server.connections("app")), what="blocked"
        )
        server.kill_connections("app")
        assert client.read_to_end() == b""


# The server restarts


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
@pytest.mark.parametrize("gently", [True, False], ids=["stopped", "killed"])
def test_a_restart_of_the_server_under_load_leads_to_no_wrong_reply(
    start_server, start_proxy, mode, gently
):
    server = start_server(durable=True)
    proxy = start(start_proxy, server, mode, upstream_wait="10s", login_timeout="10s")
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=20, commands=1_000_000, seed=32,
        may_close=True, may_refuse=True, prefix="restart",
    )
    load = verifier.Load(plan)
    for _ in range(2):
        time.sleep(0.7)
        server.restart(gently)
    time.sleep(0.7)
    load.stop()
    outcome = load.outcome(60)
    verifier.check(outcome, plan)
    assert outcome.answered > 1000
    assert served(proxy)


def test_sessions_at_rest_notice_nothing_of_a_restart(start_server, start_proxy):
    server = start_server(durable=True)
    proxy = start(start_proxy, server, upstream_wait="10s")
    clients = [proxy.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        assert client.raw("SET", f"rest{number}", number) == b"+OK\r\n"
    server.restart()
    for number, client in enumerate(clients):
        assert client.raw("GET", f"rest{number}") == bulk(number)
        client.close()


def test_commands_sent_while_the_server_is_away_wait_for_it(start_server, start_proxy):
    server = start_server(durable=True)
    proxy = start(start_proxy, server, upstream_wait="15s")
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
        server.stop()
        client.send_bytes(encode("SET", "patience", 1) + encode("INCR", "patience") * 5)
        assert client.is_silent(0.3)
        server.start()
        assert client.read_raw(6) == b"+OK\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n"


# The server is not there


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_a_server_that_is_not_there_yields_an_error_and_later_service(
    start_server, start_proxy, mode
):
    server = start_server(start=False)
    proxy = start(start_proxy, server, mode, **FAST)
    with proxy.connect() as client:
        started = time.monotonic()
        answer = client.value("SET", "absent", 1)
        assert answer.startswith((b"ERR", b"UNAVAILABLE")), answer
        assert 0.5 < time.monotonic() - started < 5
    # PING is no exception: it says whether the server can be used.
    with proxy.connect() as client:
        assert client.raw("PING").startswith(b"-")
    log = proxy.log()
    assert "cache" in log and str(server.port) in log
    server.start()
    eventually(lambda: served(proxy), 8, "the proxy recovers by itself")
    assert server.ask("EXISTS", "absent") == 0, "a refused command must not run later"


@pytest.mark.parametrize(
    "command",
    [("MULTI",), ("SELECT", 1), ("WATCH", "k"), ("SUBSCRIBE", "c"), ("HELLO", 3), ("RESET",)],
    ids=lambda command: command[0],
)
def test_an_error_in_place_of_a_command_that_carries_state_ends_the_session(
    start_server, start_proxy, command
):
    """What was pipelined behind a refused MULTI or SELECT must not run bare."""
    server = start_server(start=False)
    proxy = start(start_proxy, server, **FAST)
    with proxy.connect(timeout=5) as client:
        client.send_bytes(encode(*command) + encode("SET", "bare", "x") + encode("EXEC"))
        received = client.read_to_end()
        assert received.startswith(b"-") or command == ("RESET",), received
        assert b"+OK" not in received
    server.start()
    eventually(lambda: served(proxy), 8, "the proxy recovers")
    assert server.ask("EXISTS", "bare") == 0


def test_while_the_server_is_away_memory_stays_bounded_and_clients_are_slowed(
    start_server, start_proxy
):
    server = start_server(start=False)
    proxy = start(start_proxy, server, upstream_wait="30s", login_timeout="30s")
    before = proxy.process.resident_bytes()
    clients = [proxy.connect() for _ in range(50)]

    def flood(client):
        client.socket.settimeout(3)
        try:
            for _ in range(1000):
                client.send_bytes(encode("SET", "flood", "x" * 1000) * 64)
        except OSError:
            pass

    threads = [threading.Thread(target=flood, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.process.resident_bytes() - before < 64 * 1024 * 1024
    assert proxy.process.cpu_seconds() < 6
    for client in clients:
        client.close()
    server.start()
    eventually(lambda: served(proxy), 8, "the proxy recovers")


def test_a_server_that_hangs_is_waited_for_and_others_are_not_held(start_server, start_proxy):
    server = start_server(durable=True)
    proxy = start(start_proxy, server, upstream_wait="20s")
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
        server.freeze()
        client.send("ECHO", "after the thaw")
        assert client.is_silent(0.5)
        cpu = proxy.process.cpu_seconds()
        time.sleep(0.5)
        assert proxy.process.cpu_seconds() - cpu < 0.2
        server.thaw()
        assert client.read().raw == bulk("after the thaw")


def test_two_servers_fail_apart_from_each_other(start_server, start_proxy, server):
    absent = start_server(start=False)
    proxy = start_proxy(
        {"cache": Upstream.verified(server), "absent": Upstream.verified(absent)},
        {
            "app": server.passwords["app"],
            "lost": {
                "upstream": "absent",
                "user_name": "app",
                "credentials": {"password_env": "LOST_PASSWORD"},
            },
        },
        [Listener("app"), Listener("lost")],
        environment={"LOST_PASSWORD": absent.passwords["app"]},
        **FAST,
    )
    with proxy.connect(0) as client, proxy.connect(1) as lost:
        lost.send("PING")
        for index in range(50):
            assert client.raw("ECHO", index) == bulk(index)
        assert lost.read().raw.startswith(b"-")
        assert client.raw("PING") == b"+PONG\r\n"


def test_a_server_name_that_does_not_resolve_yields_an_error(server, start_proxy):
    upstream = Upstream.verified(server)
    upstream.settings["address"] = f"no-such-host.invalid:{server.port}"
    proxy = start_proxy(
        {"cache": upstream}, {"app": server.passwords["app"]}, [Listener("app")], **FAST
    )
    with proxy.connect() as client:
        assert client.value("PING").startswith(b"ERR")
    assert "no-such-host.invalid" in proxy.log()


def test_all_addresses_of_a_name_are_tried(start_server, start_proxy):
    """`localhost` is ::1 as well, where this server does not listen."""
    server = start_server()
    assert socket.getaddrinfo("localhost", server.port)
    assert served(start(start_proxy, server))


def test_a_server_that_accepts_and_says_nothing_is_given_up(start_proxy, server):
    port = free_port()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", port))
        silent.listen(50)
        upstream = Upstream.verified(server)
        upstream.settings |= {"address": f"127.0.0.1:{port}", "connect_timeout": "500ms"}
        proxy = start_proxy(
            {"cache": upstream}, {"app": server.passwords["app"]}, [Listener("app")], **FAST
        )
        with proxy.connect() as client:
            started = time.monotonic()
            assert client.value("PING").startswith(b"ERR")
            assert time.monotonic() - started < 5
