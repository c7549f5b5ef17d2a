"""A server that is part of a cluster: what the proxy says of it, and what comes through one endpoint."""

import json
import signal
import socket
import threading

import pytest

from harness.passwords import new_password
from harness.proxy import Listener, Upstream
from harness.resp import eventually
from harness.server import RedisServer, cluster_options, join_cluster

SEVERAL = "it is a cluster of 2 shards"
UNKNOWN = "could not be found out of how many shards"


@pytest.fixture(scope="module")
def shards(directory, authority):
    """A cluster of two; the first has the lower half of the slots."""
    servers = []
    try:
        for number in range(2):
            place = directory / f"shard-{number}"
            servers.append(RedisServer(place, authority, options=cluster_options(authority)))
        join_cluster(*servers)
        yield servers
    finally:
        for server in servers:
            server.stop()


def start(start_proxy, server, *users, listeners=None, **settings):
    """A proxy in front of a server that some users have in common."""
    users = users or ("app",)
    return start_proxy(
        {"cache": Upstream.verified(server)},
        {user: server.passwords[user] for user in users},
        listeners or [Listener(users[0])], **settings,
    )


def app_of(upstream: str) -> dict:
    """A user of the configuration, whose password is in the variable PASSWORD."""
    return {
        "upstream": upstream, "user_name": "app", "credentials": {"password_env": "PASSWORD"},
    }


def lines(proxy, text) -> list:
    return [line for line in proxy.log().splitlines() if text in line]


def questions(server) -> int:
    """Commands about clusters that the server was asked, refused ones too."""
    statistics = server.ask("INFO", "commandstats").decode().splitlines()
    calls = 0
    for line in statistics:
        if line.startswith(("cmdstat_cluster|info", "cmdstat_cluster|slots")):
            fields = dict(part.split("=") for part in line.split(":")[1].split(","))
            calls += int(fields["calls"]) + int(fields["rejected_calls"])
    return calls


def logins_of_checks(server) -> list:
    """Names of connections that came for the question alone, and have not gone."""
    return [one for one in server.connections("app") if "check" in one["name"]]


# What is said at the start


def test_a_start_in_front_of_several_shards_says_what_does_not_work(shards, start_proxy):
    proxy = start(start_proxy, shards[0])
    eventually(lambda: lines(proxy, SEVERAL), what="it is said without any client")
    (line,) = lines(proxy, SEVERAL)
    assert line.split()[1] == "warning"
    for word in (
        "-MOVED", "-ASK", "-CROSSSLOT", "SCAN", "past the proxy", "Remedy: ", "upstream=cache",
        f"address=localhost:{shards[0].port}", "shards=2",
    ):
        assert word in line, line
    eventually(lambda: not logins_of_checks(shards[0]), what="its connection is closed")


def test_it_is_said_once_whoever_comes_and_however_often_it_is_reloaded(shards, start_proxy):
    proxy = start(start_proxy, shards[0], "app", "tenant")
    eventually(lambda: lines(proxy, SEVERAL))
    asked = questions(shards[0])
    for _ in range(3):
        with proxy.connect() as client:
            assert client.raw("PING") == b"+PONG\r\n"
    for reloads in range(1, 3):
        proxy.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(lines(proxy, ": reloaded")) == reloads)
    assert proxy.stop() == 0
    assert len(lines(proxy, SEVERAL)) == 1
    assert questions(shards[0]) == asked


def test_an_upstream_that_a_reload_brings_is_looked_at(server, shards, start_proxy):
    proxy = start(start_proxy, server)
    configuration = json.loads(proxy.configuration.read_text())
    configuration["upstreams"]["cache"] = Upstream.verified(shards[0]).settings
    proxy.configuration.write_text(json.dumps(configuration))
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: lines(proxy, ": reloaded"))
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    eventually(lambda: lines(proxy, SEVERAL))


def test_each_upstream_is_told_by_its_own_name(shards, start_proxy):
    proxy = start_proxy(
        {"low": Upstream.verified(shards[0]), "high": Upstream.verified(shards[1])},
        {"a": app_of("low"), "b": app_of("high")}, [Listener("a"), Listener("b")],
        environment={"PASSWORD": shards[0].passwords["app"]},
    )
    eventually(lambda: len(lines(proxy, SEVERAL)) == 2)
    assert lines(proxy, "upstream=low") and lines(proxy, "upstream=high")


def test_nothing_is_said_of_a_cluster_of_one_shard(start_server, start_proxy, authority):
    server = start_server(options=cluster_options(authority))
    join_cluster(server)
    asked = questions(server)
    proxy = start(start_proxy, server)
    eventually(lambda: questions(server) > asked, what="it is asked")
    with proxy.connect() as client:
        assert client.raw("SET", "any", "key") == b"+OK\r\n"
    assert proxy.stop() == 0
    assert not lines(proxy, "cluster")


def test_a_server_without_cluster_mode_is_not_even_connected_to_again(start_server, start_proxy):
    server = start_server()
    proxy = start(start_proxy, server)
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    assert proxy.stop() == 0
    assert "cmdstat_hello:calls=1," in server.ask("INFO", "commandstats").decode()
    assert questions(server) == 0
    assert not lines(proxy, "cluster")


def test_a_dedicated_listener_says_it_when_the_first_client_comes(shards, start_proxy):
    proxy = start(start_proxy, shards[0], listeners=[Listener("app", "dedicated")])
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    eventually(lambda: lines(proxy, SEVERAL))


# Users with few rights


def test_a_user_that_may_not_ask_leaves_it_open(shards, start_proxy):
    proxy = start(start_proxy, shards[0], "consumer")
    eventually(lambda: lines(proxy, UNKNOWN))
    (line,) = lines(proxy, UNKNOWN)
    assert line.split()[1] == "notice"
    assert "NOPERM" in line and "+cluster|slots" in line
    with proxy.connect() as client:
        assert client.raw("GET", "b") == b"$-1\r\n"
    assert proxy.stop() == 0
    assert len(lines(proxy, "cluster")) == 1


def test_where_one_user_may_not_ask_another_does(shards, start_proxy):
    proxy = start(start_proxy, shards[0], "consumer", "nothing", "app")
    eventually(lambda: lines(proxy, SEVERAL))
    assert proxy.stop() == 0
    assert not lines(proxy, UNKNOWN)


@pytest.mark.parametrize("command", ["info", "slots"])
def test_one_of_the_two_questions_is_enough(shards, start_proxy, command):
    shards[0].add_user("asking", "~*", "-@all", f"+cluster|{command}")
    proxy = start(start_proxy, shards[0], "asking")
    eventually(lambda: lines(proxy, SEVERAL))


def test_a_server_that_comes_later_is_asked_then(start_server, start_proxy, authority):
    server = start_server(options=cluster_options(authority))
    server.stop()
    proxy = start(start_proxy, server, upstream_wait="20s")
    server.start()
    # Without slots, which is worth a line too.
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
    eventually(lambda: lines(proxy, "no slot is served yet"))


# Whatever a server answers


class Scripted:
    """A server without TLS that answers each command with what is written for it."""

    HELLO = [b"server", b"redis", b"version", b"7.1.0", b"proto", 2, b"id", 1, b"mode", b"cluster"]

    def __init__(self, answers: dict):
        self.answers = {"HELLO": reply(self.HELLO)} | answers
        self.asked = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client) -> None:
        with client, client.makefile("rb") as file:
            try:
                while head := file.readline():
                    words = []
                    for _ in range(int(head[1:])):
                        words.append(file.read(int(file.readline()[1:]) + 2)[:-2].decode())
                    command = " ".join(words[:2] if words[0] == "CLUSTER" else words[:1])
                    self.asked.append(command)
                    client.sendall(self.answers.get(command, b"-ERR unknown command\r\n"))
            except OSError:
                pass


def reply(value) -> bytes:
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(reply, value))
    if isinstance(value, int):
        return b":%d\r\n" % value
    return b"$%d\r\n%s\r\n" % (len(value), value)


def entry(first: int, last: int, *nodes) -> list:
    return [first, last, *([host, port, b"id"] for host, port in nodes)]


SERVERLESS = entry(0, 16383, (b"cache.example", 6379), (b"cache.example", 6380))
SPLIT = [entry(0, 1, (b"a", 1)), entry(2, 9, (b"b", 1), (b"c", 1)), entry(10, 16383, (b"a", 1))]
THREE = b"cluster_state:ok\r\ncluster_size:3\r\n"


@pytest.mark.parametrize(
    "slots, info, expected",
    [
        # As ElastiCache Serverless shows itself.
        (reply([SERVERLESS]), reply(THREE), None),
        (reply(SPLIT), b"-NOPERM no\r\n", "a cluster of 2 shards"),
        (reply([]), reply(THREE), "no slot is served yet"),
        (b"-NOPERM no\r\n", reply(THREE), "a cluster of 3 shards"),
        (b"-NOPERM no\r\n", reply(THREE.replace(b"3", b"1")), None),
        (b"-NOPERM no\r\n", reply(b"cluster_size:1\r\ncluster_state:fail"), "tells no size"),
        (b"-NOPERM no\r\n", reply(b"cluster_slots_assigned:0\r\n"), "no slot is served yet"),
        (b"-NOPERM no\r\n", b"-NOPERM nor this\r\n", "(NOPERM nor this)"),
        (b"*1\r\n*1\r\n:1\r\n", reply(THREE), "a cluster of 3 shards"),
        (b"*1\r\n:1\r\n", reply(b"cluster_size:x"), "makes no sense"),
        (b"+OK\r\n", b":1\r\n", "makes no sense"),
        (b"HTTP/1.1 400\r\n\r\n", b"", "not RESP"),
        (b"", b"", "no answer before login_timeout"),
    ],
)
def test_whatever_a_server_answers_is_counted_or_left_open(start_proxy, slots, info, expected):
    server = Scripted({"CLUSTER INFO": info, "CLUSTER SLOTS": slots})
    proxy = start_proxy(
        {"cache": Upstream(f"127.0.0.1:{server.port}", "off")}, {"app": new_password()},
        [Listener("app")], login_timeout="500ms",
    )
    try:
        if expected is None:
            last = "CLUSTER INFO" if slots.startswith(b"-") else "CLUSTER SLOTS"
            eventually(lambda: last in server.asked)
        else:
            eventually(lambda: lines(proxy, expected))
        assert proxy.stop() == 0
        assert len(lines(proxy, "it is a cluster")) == (expected is not None)
    finally:
        server.listener.close()


def test_a_server_that_does_not_answer_delays_neither_clients_nor_the_end(start_proxy):
    server = Scripted({"CLUSTER SLOTS": b"", "PING": b"+PONG\r\n"})
    proxy = start_proxy(
        {"cache": Upstream(f"127.0.0.1:{server.port}", "off")}, {"app": new_password()},
        [Listener("app")], login_timeout="10m",
    )
    try:
        eventually(lambda: "CLUSTER SLOTS" in server.asked)
        with proxy.connect() as client:
            assert client.raw("PING") == b"+PONG\r\n"
        # The harness gives it less time than login_timeout.
        assert proxy.stop() == 0
    finally:
        server.listener.close()


# What comes through one endpoint


@pytest.fixture(params=["multiplexed", "dedicated"])
def low(request, shards, start_proxy):
    """The lower half of the slots, through a proxy. `b` and `{b}…` are there, `a` is not."""
    for server in shards:
        assert server.ask("FLUSHALL") == b"OK"
    return start(start_proxy, shards[0], listeners=[Listener("app", request.param)])


def test_keys_of_the_endpoints_shard_work_and_others_are_told_to_the_client(low, shards):
    moved = b"-MOVED 15495 127.0.0.1:%d\r\n" % shards[1].port
    with low.connect() as client, low.connect() as other:
        assert client.raw("SET", "b", 1) == b"+OK\r\n"
        assert client.raw("GET", "a") == moved
        assert client.raw("MSET", "b", 2, "c", 2) == (
            b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
        )
        assert client.raw("MSET", "{b}1", 2, "{b}2", 2) == b"+OK\r\n"
        assert client.pipeline(("GET", "b"), ("GET", "a"), ("GET", "b")) == (
            b"$1\r\n1\r\n" + moved + b"$1\r\n1\r\n"
        )
        assert client.raw("SELECT", 1) == b"-ERR SELECT is not allowed in cluster mode\r\n"
        assert other.raw("GET", "b") == b"$1\r\n1\r\n"


def test_a_transaction_with_a_key_of_another_shard_ends_as_the_server_ends_it(low):
    with low.connect() as client:
        assert client.raw("MULTI") == b"+OK\r\n"
        assert client.raw("SET", "b", 1) == b"+QUEUED\r\n"
        assert client.raw("SET", "a", 1).startswith(b"-MOVED")
        assert client.raw("EXEC").startswith(b"-EXECABORT")
        assert client.raw("GET", "b") == b"$-1\r\n"


def test_messages_published_at_one_shard_arrive_at_the_other(low, shards):
    with low.connect() as subscriber:
        subscriber.raw("SUBSCRIBE", "news")
        assert shards[1].ask("PUBLISH", "news", "hello") is not None
        assert subscriber.read().raw == b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
