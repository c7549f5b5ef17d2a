"""Blocking commands wait for as long as they should and block nobody else."""

import threading
import time

import pytest

from harness.resp import bulk, encode, eventually


def blocked(server) -> int:
    for line in server.ask("INFO", "clients").decode().splitlines():
        if line.startswith("blocked_clients:"):
            return int(line.split(":")[1])
    raise AssertionError("INFO has no blocked_clients")


def wait_for_blocked(gateway, count: int) -> None:
    eventually(lambda: blocked(gateway.server) == count, what=f"{count} clients blocked")


def test_a_blocked_client_gets_the_element_another_pushes(gateway):
    with gateway.connect() as consumer, gateway.connect() as producer:
        for index in range(10):
            consumer.send("BLPOP", "queue", 0)
            wait_for_blocked(gateway, 1)
            assert producer.raw("RPUSH", "queue", index) == b":1\r\n"
            assert consumer.read().raw == b"*2\r\n" + bulk("queue") + bulk(index)


def test_nobody_waits_behind_a_blocked_client(gateway):
    with gateway.connect() as blocked_client, gateway.connect() as other:
        blocked_client.send("BLPOP", "never", 0)
        wait_for_blocked(gateway, 1)
        started = time.monotonic()
        for index in range(100):
            assert other.raw("SET", "k", index) == b"+OK\r\n"
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "command, push, reply",
    [
        (("BRPOP", "a", "b", 0), ("RPUSH", "b", "x"), b"*2\r\n$1\r\nb\r\n$1\r\nx\r\n"),
        (("BLMOVE", "a", "b", "LEFT", "RIGHT", 0), ("RPUSH", "a", "x"), b"$1\r\nx\r\n"),
        (("BRPOPLPUSH", "a", "b", 0), ("RPUSH", "a", "x"), b"$1\r\nx\r\n"),
        (
            ("BLMPOP", 0, 1, "a", "LEFT"),
            ("RPUSH", "a", "x"),
            b"*2\r\n$1\r\na\r\n*1\r\n$1\r\nx\r\n",
        ),
        (
            ("BZPOPMIN", "a", 0),
            ("ZADD", "a", 1, "x"),
            b"*3\r\n$1\r\na\r\n$1\r\nx\r\n$1\r\n1\r\n",
        ),
        (
            ("BZMPOP", 0, 1, "a", "MAX"),
            ("ZADD", "a", 1, "x"),
            b"*2\r\n$1\r\na\r\n*1\r\n*2\r\n$1\r\nx\r\n$1\r\n1\r\n",
        ),
        (
            ("XREAD", "BLOCK", 0, "STREAMS", "a", "$"),
            ("XADD", "a", "1-1", "f", "v"),
            b"*1\r\n*2\r\n$1\r\na\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_blocking_command_wakes_up(gateway, command, push, reply):
    with gateway.connect() as consumer, gateway.connect() as producer:
        assert producer.raw("PING") == b"+PONG\r\n"
        consumer.send(*command)
        wait_for_blocked(gateway, 1)
        producer.value(*push)
        assert consumer.read().raw == reply
        assert consumer.raw("PING") == b"+PONG\r\n"


def test_a_blocking_command_gives_up_at_its_timeout(gateway):
    with gateway.connect() as client:
        started = time.monotonic()
        assert client.raw("BLPOP", "never", "0.3") == b"*-1\r\n"
        assert 0.25 < time.monotonic() - started < 3
        assert client.raw("BLPOP", "never", "-1") == b"-ERR timeout is negative\r\n"
        assert client.raw("PING") == b"+PONG\r\n"


def test_commands_behind_a_blocking_one_wait_for_it_and_keep_their_order(gateway):
    with gateway.connect() as client, gateway.connect() as producer:
        client.send_bytes(
            encode("SET", "before", 1) + encode("BLPOP", "q", 0) + encode("SET", "after", 1)
            + encode("GET", "after")
        )
        assert client.read().raw == b"+OK\r\n"
        wait_for_blocked(gateway, 1)
        assert producer.raw("EXISTS", "after") == b":0\r\n"
        assert producer.raw("RPUSH", "q", "x") == b":1\r\n"
        assert client.read_raw(3) == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n+OK\r\n$1\r\n1\r\n"


@pytest.mark.parametrize("leave", ["close", "abort"])
def test_a_blocked_client_that_is_gone_swallows_nothing(gateway, leave):
    with gateway.connect() as producer:
        for index in range(10):
            client = gateway.connect()
            client.send("BLPOP", "queue", 0)
            wait_for_blocked(gateway, 1)
            client.abort() if leave == "abort" else client.close()
            wait_for_blocked(gateway, 0)
            assert producer.raw("RPUSH", "queue", index) == b":1\r\n"
            assert producer.raw("LPOP", "queue") == bulk(index)


@pytest.mark.parametrize(
    "behind",
    [
        encode("QUIT"),
        encode("PING") * 500,
        encode("PING", "x" * 1000) * 500,
    ],
    ids=["QUIT", "many", "much"],
)
def test_a_client_that_leaves_more_behind_a_blocking_command_swallows_nothing(gateway, behind):
    with gateway.connect() as producer:
        for index in range(3):
            client = gateway.connect()
            client.send_bytes(encode("BLPOP", "queue", 0) + behind)
            wait_for_blocked(gateway, 1)
            client.close()
            wait_for_blocked(gateway, 0)
            assert producer.raw("RPUSH", "queue", index) == b":1\r\n"
            assert producer.raw("LPOP", "queue") == bulk(index)


def test_what_follows_a_blocking_command_that_need_not_wait_runs_after_a_half_close(gateway):
    with gateway.connect() as client:
        assert client.raw("RPUSH", "queue", "x") == b":1\r\n"
        client.send_bytes(encode("BLPOP", "queue", 0) + encode("PING", "y") * 1000 + encode("QUIT"))
        client.half_close()
        answer = b"*2\r\n" + bulk("queue") + bulk("x") + bulk("y") * 1000 + b"+OK\r\n"
        assert client.read_to_end() == answer


def test_many_clients_can_block_at_once(gateway):
    with gateway.connect() as producer:
        clients = [gateway.connect() for _ in range(40)]
        for client in clients:
            client.send("BLPOP", "queue", 0)
        wait_for_blocked(gateway, len(clients))
        assert producer.raw("RPUSH", "queue", *range(len(clients))).startswith(b":")
        got = sorted(int(client.read().value[1]) for client in clients)
        assert got == list(range(len(clients)))
        for client in clients:
            client.close()


def test_a_blocked_client_can_be_unblocked_by_its_id(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        mine = client.value("CLIENT", "ID")
        client.send("BLPOP", "never", 0)
        wait_for_blocked(gateway, 1)
        assert other.raw("CLIENT", "UNBLOCK", mine, "ERROR") == b":1\r\n"
        assert client.read().raw.startswith(b"-UNBLOCKED")
        assert client.raw("PING") == b"+PONG\r\n"


def test_a_work_queue_loses_and_doubles_nothing(gateway):
    items, workers = 1500, 8
    done, failures = [], []

    def work():
        try:
            with gateway.connect() as client:
                while True:
                    item = client.value("BLPOP", "work", 0)[1]
                    if item == b"stop":
                        return
                    done.append(int(item))
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    with gateway.connect() as producer:
        for start in range(0, items, 50):
            producer.pipeline(*[("RPUSH", "work", n) for n in range(start, start + 50)])
        producer.pipeline(*[("RPUSH", "work", "stop")] * workers)
        for thread in threads:
            thread.join(30)
    assert not failures
    assert sorted(done) == list(range(items))


def test_a_blocking_read_of_a_group_named_like_a_keyword_holds_up_nobody(gateway):
    with gateway.connect() as waiting, gateway.connect() as other:
        assert other.raw("XGROUP", "CREATE", "s", "STREAMS", "$", "MKSTREAM") == b"+OK\r\n"
        waiting.send("XREADGROUP", "GROUP", "STREAMS", "c", "BLOCK", 0, "STREAMS", "s", ">")
        for _ in range(3):
            assert other.raw("PING") == b"+PONG\r\n"
        other.raw("XADD", "s", "*", "f", "v")
        assert waiting.read_raw().startswith(b"*1\r\n")
