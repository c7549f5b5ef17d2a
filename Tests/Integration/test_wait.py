"""wait: until a client would be served, and what stands in the way if none would."""

import json
import os
import pwd
import socket
import subprocess
import threading

import pytest

from harness.doctor import CONFIGURATION, OK, UNAVAILABLE, USAGE
from harness.passwords import found_in, new_password
from harness.ports import free_port
from harness.proxy import Listener, Upstream, binary

FAST = {"upstream_wait": "200ms", "login_timeout": "200ms"}


class Wait:
    """A call of wait that goes on beside the test."""

    def __init__(self, *arguments, environment=None, user=None):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REDIS_AUTH_PROXY")}
        self.child = subprocess.Popen(
            [binary(), "wait", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=inherited | (environment or {}), user=user,
        )

    def end(self, expected=OK) -> str:
        """What it said; nothing if it is content."""
        try:
            output, errors = self.child.communicate(timeout=60)
        finally:
            self.child.kill()
        assert self.child.returncode == expected, errors
        assert output == ""
        assert not found_in(errors)
        if expected == OK:
            assert errors == ""
        return errors


def wait(*arguments, expected=OK, **more) -> str:
    return Wait(*arguments, **more).end(expected)


def text_of(listener) -> str:
    return listener.settings["address"]


@pytest.fixture
def start(start_proxy, server):
    """A proxy whose users are those of the server, unless it is told other passwords."""

    def start(listeners, upstream=None, **settings):
        users = {user: server.passwords[user] for user in ("app", "nothing")}
        users |= settings.pop("passwords", {})
        return start_proxy(
            {"cache": upstream or Upstream.verified(server)}, users, listeners, **settings
        )

    return start


# Ready


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_a_proxy_that_serves_is_ready(start, place, mode):
    listeners = [Listener("app", mode), Listener("app", mode, path=place / "app.sock")]
    proxy = start(listeners)
    for listener in listeners:
        wait(text_of(listener))
    wait(*map(text_of, listeners))
    wait("--config", proxy.configuration)
    wait(environment={"REDIS_AUTH_PROXY_CONFIG": str(proxy.configuration)})
    wait(text_of(listeners[0]).replace("127.0.0.1", "localhost"), "--timeout", "30s")


def test_a_proxy_that_is_not_there_yet_is_waited_for(start, place):
    listener = Listener("app", path=place / "app.sock")
    waiting = Wait(text_of(listener))
    start([listener])
    waiting.end()


def test_a_server_that_is_not_there_yet_is_waited_for(start, start_server):
    late = start_server(start=False)
    listener = Listener("app")
    start([listener], Upstream.verified(late), **FAST)
    waiting = Wait(text_of(listener))
    wait(text_of(listener), "--timeout", "700ms", expected=UNAVAILABLE)
    late.start()
    waiting.end()


def test_a_user_that_may_not_ping_is_ready_once_the_server_has_said_so(start):
    listener = Listener("nothing")
    start([listener])
    with listener.connect() as client:
        assert client.raw("PING").startswith(b"-NOPERM")
    wait(text_of(listener))


def test_a_listener_that_wants_a_login_is_ready(start):
    password = new_password()
    rule = {"login": {"password_file": "/dev/null"}, "user": "app"}
    listener = Listener("app", identities=[rule])
    proxy = start([listener])
    password_file = proxy.directory / "login"
    password_file.write_text(password)
    with listener.connect() as client:
        assert client.raw("PING").startswith(b"-NOAUTH")
    wait(text_of(listener))


# Not ready, and why


def test_nothing_that_listens_is_told_after_the_time(place):
    port = free_port()
    said = wait(f"127.0.0.1:{port}", "--timeout", "300ms", expected=UNAVAILABLE)
    assert said == (
        f"wait: 127.0.0.1:{port}: wanted an answer of the server's to PING within 300ms, got"
        " last: Connection refused\n"
    )
    path = place / "none.sock"
    said = wait(f"unix:{path}", "--timeout", "100ms", expected=UNAVAILABLE)
    assert "got last: No such file or directory" in said


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_a_refused_login_is_told_in_the_words_that_clients_get(start, mode):
    listener = Listener("app", mode)
    start([listener], passwords={"app": new_password()}, **FAST)
    said = wait(text_of(listener), "--timeout", "2s", expected=UNAVAILABLE)
    assert "got last: ERR redis-auth-proxy: the server refused the proxy's login" in said


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_a_server_that_cannot_be_reached_is_told_in_the_words_that_clients_get(start, mode):
    listener = Listener("app", mode)
    start([listener], Upstream(f"127.0.0.1:{free_port()}", "off"), **FAST)
    said = wait(text_of(listener), "--timeout", "2s", expected=UNAVAILABLE)
    assert "got last: ERR redis-auth-proxy: the server cannot be reached" in said


def test_the_listener_that_is_not_ready_is_the_one_that_is_told(start, server):
    right, wrong = Listener("app"), Listener("nothing")
    proxy = start([right, wrong], passwords={"nothing": new_password()}, **FAST)
    said = wait("--config", proxy.configuration, "--timeout", "2s", expected=UNAVAILABLE)
    assert said.startswith(f"wait: {text_of(wrong)}: ")


def test_a_client_that_no_rule_admits_is_told_so(start, open_place):
    path = open_place / "app.sock"
    rule = {"unix_user": pwd.getpwuid(os.getuid()).pw_name, "user": "app"}
    listener = Listener("app", path=path, identities=[rule], socket_mode="0666")
    start([listener])
    wait(text_of(listener))
    if os.getuid() == 0:
        said = wait(
            text_of(listener), "--timeout", "300ms", expected=UNAVAILABLE, user="nobody"
        )
        assert "got last: NOPERM redis-auth-proxy: no identity rule of this listener" in said


class Peer:
    """Accepts connections, and does with each what it was told."""

    def __init__(self, answer):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.answer = answer
        self.times = 0
        self.open = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.times += 1
            self.open.append(connection)
            connection.recv(1000)
            if self.answer is not None:
                connection.sendall(self.answer)
                connection.close()

    def close(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join()
        for connection in self.open:
            connection.close()


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"", "a connection that was closed without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not RESP"),
        (b"+OK\r\n", "something that is no answer to PING"),
        (b"$-1\r\n", "something that is no answer to PING"),
        (b"-LOADING \x1b[2J data\r\n", "LOADING \\u{1B}[2J data"),
        (None, "a connection and no answer"),
    ],
)
def test_whatever_else_answers_is_told(answer, words):
    peer = Peer(answer)
    try:
        said = wait(f"127.0.0.1:{peer.port}", "--timeout", "500ms", expected=UNAVAILABLE)
    finally:
        peer.close()
    assert words in said
    # 20 ms, 40 ms, 80 ms …
    assert 1 <= peer.times <= 6


# Live


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_a_proxy_without_its_server_is_live_and_not_ready(start, mode):
    listener = Listener("app", mode)
    start([listener], Upstream(f"127.0.0.1:{free_port()}", "off"))
    wait(text_of(listener), "--live", "--timeout", "10s")
    wait(text_of(listener), "--timeout", "300ms", expected=UNAVAILABLE)


def test_a_proxy_that_is_stopped_is_not_live(start):
    listener = Listener("app")
    proxy = start([listener])
    wait(text_of(listener), "--live")
    proxy.process.send_signal(19)
    try:
        said = wait(text_of(listener), "--live", "--timeout", "300ms", expected=UNAVAILABLE)
    finally:
        proxy.process.send_signal(18)
    assert "wanted an answer of the proxy's to QUIT within 300ms, got last: a connection" in said
    wait(text_of(listener), "--live")


# The admin address


@pytest.mark.parametrize("is_unix", [False, True])
def test_the_admin_address_is_asked_in_place_of_the_listeners(start, place, is_unix):
    port = free_port()
    address = f"unix:{place / 'admin.sock'}" if is_unix else f"127.0.0.1:{port}"
    # A rule that admits nobody here: who is asked is not the listener.
    listener = Listener("app", identities=[{"uid": 70000, "user": "app"}])
    proxy = start([listener], admin={"address": address})
    wait("--config", proxy.configuration)
    wait("--config", proxy.configuration, "--live")
    said = wait(text_of(listener), "--timeout", "300ms", expected=UNAVAILABLE)
    assert "no identity rule" in said


def test_the_admin_address_says_who_could_not_be_logged_in(start):
    right, wrong = Listener("app"), Listener("nothing")
    proxy = start(
        [right, wrong], passwords={"nothing": new_password()},
        admin={"address": f"127.0.0.1:{free_port()}"}, **FAST,
    )
    said = wait("--config", proxy.configuration, "--timeout", "2s", expected=UNAVAILABLE)
    assert "wanted 200 for /ready of the admin address within 2s, got last: 503, " in said
    assert "user nothing: its last login failed" in said and "user app" not in said
    wait("--config", proxy.configuration, "--live")
    assert proxy.stop() == 0
    said = wait("--config", proxy.configuration, "--timeout", "300ms", expected=UNAVAILABLE)
    assert "Couldn't connect to server" in said


def test_an_admin_address_that_does_not_answer_is_told(place):
    peer = Peer(None)
    file = place / "proxy.yaml"
    file.write_text(
        json.dumps(
            {
                "upstreams": {"cache": {"address": "127.0.0.1:1"}},
                "users": {"app": {"upstream": "cache", "credentials": {"password_file": "/x"}}},
                "listeners": [
                    {"address": "127.0.0.1:0", "identities": [{"any": True, "user": "app"}]}
                ],
                "admin": {"address": f"127.0.0.1:{peer.port}"},
            }
        )
    )
    try:
        said = wait("--config", file, "--timeout", "500ms", expected=UNAVAILABLE)
    finally:
        peer.close()
    assert "got last: a connection and no answer" in said


# Command line


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "Nothing to wait for"),
        (["--config", "x", "127.0.0.1:1"], "exclude each other"),
        (["cache.example:6379"], "wanted HOST:PORT or unix:PATH, got cache.example:6379"),
        (["127.0.0.1"], "the port is missing"),
        (["127.0.0.1:0"], "give that address"),
        (["unix:"], "write the path after unix:"),
        (["127.0.0.1:1", "--timeout", "0s"], "--timeout: wanted 1ms to 7d, got 0ms"),
        (["127.0.0.1:1", "--timeout", "9999999999999d"], "timeout"),
        (["127.0.0.1:1", "--timeout", "106751991167d"], "--timeout: wanted 1ms to 7d"),
        (["127.0.0.1:1", "--timeout", "soon"], "soon"),
    ],
)
def test_a_call_that_makes_no_sense_is_a_usage_error(arguments, words):
    assert words in wait(*arguments, expected=USAGE)


def test_a_configuration_is_judged_as_run_does(place):
    file = place / "proxy.yaml"
    assert "proxy.yaml" in wait("--config", file, expected=CONFIGURATION)
    file.write_text(
        json.dumps(
            {
                "upstreams": {"cache": {"address": "127.0.0.1:1"}},
                "users": {"app": {"upstream": "cache", "credentials": {"password_file": "/x"}}},
                "listeners": [
                    {"address": "127.0.0.1:0", "identities": [{"any": True, "user": "app"}]}
                ],
            }
        )
    )
    assert "127.0.0.1:0: which port that became is in the proxy's log" in wait("--config", file, expected=USAGE)
