"""The admin console on its Unix socket: what it shows, and what it can have done."""

import os
import signal
import socket
import stat
import threading

import pytest

from harness.console import Console
from harness.proxy import Listener, Upstream
from harness.resp import Client, eventually


@pytest.fixture
def started(server, start_proxy, directory):
    """A proxy with a console, and its listener."""
    listener = Listener("app")
    path = directory / "admin.sock"
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"], "consumer": server.passwords["consumer"]},
        [listener, Listener("consumer", "dedicated")], admin={"socket": str(path)},
    )
    return proxy, listener, Console.of(path)


def test_the_socket_is_for_its_owner_alone(started):
    _, _, console = started
    assert stat.S_IMODE(os.stat(console.path).st_mode) == 0o600


def test_each_table_is_lines_for_people_and_maps_for_programs(started):
    _, listener, console = started
    with listener.connect() as client:
        assert client.raw("SET", "console", "1") == b"+OK\r\n"
        for subject in (
            "CLIENTS", "USERS", "UPSTREAMS", "CREDENTIALS", "LISTENERS", "STATS", "CONFIG", "LIMITS"
        ):
            lines = console.run("SHOW", subject).splitlines()
            rows = console.table("show", subject.lower())
            assert len(lines) >= 2 and len(rows) == len(lines) - 1, f"{subject}: {lines}"
            assert lines[0].split() == list(rows[0]), subject
        session = console.table("SHOW", "CLIENTS")[0]
        assert session["user"] == "app" and session["commands"] == 1
        users = {row["user"]: row for row in console.table("SHOW", "USERS")}
        assert users["app"]["sessions"] == 1 and users["consumer"]["sessions"] == 0
        assert users["app"]["paused"] is False
        limits = {row["limit"]: row for row in console.table("SHOW", "LIMITS")}
        assert limits["max_sessions"]["in_use"] == 1
        config = {row["key"]: row["value"] for row in console.table("SHOW", "CONFIG")}
        assert config["upstreams.cache.reconnect_max"] == "2s"
        assert config["users.app.credentials"].startswith("password_file ")


def test_no_secret_is_shown(started, server):
    _, listener, console = started
    with listener.connect() as client:
        client.raw("PING")
        shown = "".join(
            console.run("SHOW", subject)
            for subject in ("CLIENTS", "USERS", "UPSTREAMS", "CREDENTIALS", "CONFIG")
        )
    assert server.passwords["app"] not in shown and server.passwords["consumer"] not in shown


@pytest.mark.parametrize("words, wanted, got", [
    (["SHOW", "NONSENSE"], "wanted one of CLIENTS, USERS", "'NONSENSE'"),
    (["NONSENSE"], "wanted a command that SHOW HELP shows", "'NONSENSE'"),
    (["PAUSE", "nobody"], "wanted the name of a user or an upstream (app, cache, consumer)", "'nobody'"),
    (["KILL", "me"], "wanted the number of a session", "'me'"),
    (["KILL", "999999"], "there is no session", "999999"),
    (["HELLO", "4"], "wanted 2 or 3", "'4'"),
])
def test_an_error_says_what_was_wanted_and_what_was_got(started, words, wanted, got):
    _, _, console = started
    answer = console.run(*words)
    assert wanted in answer and got in answer, answer


def test_it_speaks_as_redis_clients_expect(started):
    _, _, console = started
    with Client(console.path) as client:
        assert client.raw("PING") == b"+PONG\r\n"
        assert client.raw("COMMAND", "DOCS") == b"*0\r\n"
        client.send_bytes(b"ping hello\r\n")
        assert client.read().raw == b"+hello\r\n"
        assert client.raw("HELLO", 3).startswith(b"%3\r\n")
        assert client.raw("QUIT") == b"+OK\r\n"
        assert client.read_to_end() == b""
    assert "SHOW CLIENTS" in console.run("SHOW", "HELP")


def test_what_is_no_request_or_too_long_is_answered_and_closed(started):
    _, _, console = started
    for junk in (b"*x\r\n", b"*1\r\n$100000\r\n" + b"a" * 20_000, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        with Client(console.path) as client:
            client.send_bytes(junk)
            assert client.read_to_end().startswith(b"-ERR wanted "), junk


def test_its_clients_are_bounded_and_idle_ones_hold_up_nobody(started):
    _, listener, console = started
    clients = []

    def are_all_in() -> bool:
        # The place of a client before may not be free yet.
        client = Client(console.path)
        try:
            assert client.raw("PING") == b"+PONG\r\n"
        except (OSError, AssertionError):
            client.close()
        else:
            clients.append(client)
        return len(clients) == 16

    eventually(are_all_in, 10, "sixteen are in")
    with Client(console.path) as one_more:
        assert one_more.read_to_end().startswith(b"-ERR max number of clients reached")
    with listener.connect() as client:
        assert client.raw("SET", "a", "b") == b"+OK\r\n"
    for client in clients:
        client.close()
    eventually(lambda: console.run("PING") == "PONG", 10, "there is room again")


def test_kill_ends_one_client(started):
    _, listener, console = started
    with listener.connect() as first, listener.connect() as second:
        assert first.raw("SET", "a", "1") == b"+OK\r\n"
        assert second.raw("SET", "a", "2") == b"+OK\r\n"
        port = first.socket.getsockname()[1]
        row = next(
            row for row in console.table("SHOW", "CLIENTS") if row["client"].endswith(f":{port}")
        )
        console.order("KILL", row["session"])
        assert first.read_to_end() == b""
        assert second.raw("GET", "a") == b"$1\r\n2\r\n"
    assert console.stats()["sessions_closed_killed"] == 1


def test_pause_holds_commands_and_resume_lets_them_go(started):
    _, listener, console = started
    with listener.connect() as client:
        assert client.raw("SET", "a", "1") == b"+OK\r\n"
        console.order("PAUSE", "app")
        users = {row["user"]: row["paused"] for row in console.table("SHOW", "USERS")}
        assert users == {"app": True, "consumer": False}
        client.send("GET", "a")
        eventually(
            lambda: console.table("SHOW", "CLIENTS")[0]["owed"] == 1, 10, "the command waits")
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.setblocking(True)
        console.order("RESUME")
        assert client.read().raw == b"$1\r\n1\r\n"


def test_a_pause_says_what_is_still_under_way(started):
    _, listener, console = started
    with listener.connect() as client:
        client.send("BLPOP", "nothing", 0)
        eventually(
            lambda: console.table("SHOW", "CLIENTS")[0]["owed"] == 1, 10, "the command is sent")
        assert console.run("PAUSE") == (
            "OK, and 1 commands are blocked at the server, as BLPOP does")
        console.order("RESUME")
    with listener.connect() as client:
        assert client.raw("MULTI") == b"+OK\r\n"
        answers = []
        pausing = threading.Thread(target=lambda: answers.append(console.run("PAUSE")))
        pausing.start()
        eventually(lambda: console.table("SHOW", "USERS")[0]["paused"], 10, "it is paused")
        assert client.raw("SET", "a", "1") == b"+QUEUED\r\n", "a transaction goes on"
        assert client.raw("EXEC") == b"*1\r\n+OK\r\n"
        pausing.join(20)
        assert answers == ["OK"]
        console.order("RESUME")


def test_reconnect_replaces_connections_unnoticed(server, start_proxy, directory):
    # A user of its own: other proxies are connected as the others.
    user, listener = "reconnected", Listener("reconnected")
    path = directory / "reconnect.sock"
    start_proxy(
        {"cache": Upstream.verified(server)}, {user: server.add_user(user)}, [listener],
        admin={"socket": str(path)})
    console = Console.of(path)
    with listener.connect() as client:
        assert client.raw("SET", "a", "1") == b"+OK\r\n"
        before = {row["id"] for row in server.connections(user)}
        assert before
        console.order("RECONNECT", "cache")
        assert client.raw("GET", "a") == b"$1\r\n1\r\n"
        eventually(
            lambda: not before & {row["id"] for row in server.connections(user)}, 10,
            "all connections are new ones")


def test_renew_logs_in_again_where_connected(started, server):
    _, listener, console = started
    with listener.connect() as client:
        assert client.raw("SET", "a", "1") == b"+OK\r\n"
        before = console.stats()["logins_renewed"]
        console.order("RENEW", "app")
        eventually(
            lambda: console.stats()["logins_renewed"] > before, 10, "the login is renewed")
        assert client.raw("GET", "a") == b"$1\r\n1\r\n"


def test_reload_answers_with_what_was_wrong(started):
    proxy, _, console = started
    console.order("RELOAD")
    text = proxy.configuration.read_text()
    proxy.configuration.write_text(text.replace('"upstreams"', '"upstraems"'))
    answer = console.run("RELOAD")
    assert answer.startswith("ERR reload refused, nothing has changed: "), answer
    assert "did you mean upstreams?" in answer
    proxy.configuration.write_text(text)
    console.order("RELOAD")


def test_drain_ends_the_process_as_sigterm_does(started):
    proxy, _, console = started
    console.order("DRAIN")
    assert proxy.process.wait(15) == 0
    assert not console.path.exists(), "the socket's file is left behind"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_is_turned_away(started):
    _, _, console = started
    os.chmod(console.path, 0o666)
    os.chmod(console.path.parent, 0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65_533)
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(console.path))
            os.write(writing, peer.recv(1000))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    assert b"this console is for root" in os.read(reading, 1000)
    os.close(reading)
