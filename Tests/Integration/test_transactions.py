"""MULTI, EXEC, DISCARD and WATCH as on a connection of one's own."""

import contextlib
import random
import re
import time

import pytest

from harness.resp import bulk, encode
from harness.together import together

QUEUED = b"+QUEUED\r\n"


def test_a_transaction_runs_as_one(gateway):
    with gateway.connect() as client:
        assert client.raw("MULTI") == b"+OK\r\n"
        assert client.raw("SET", "a", 1) == QUEUED
        assert client.raw("INCR", "a") == QUEUED
        assert client.raw("GET", "a") == QUEUED
        assert client.raw("EXEC") == b"*3\r\n+OK\r\n:2\r\n" + bulk("2")
        assert client.raw("EXEC") == b"-ERR EXEC without MULTI\r\n"


@pytest.mark.parametrize("together", [True, False], ids=["one write", "one by one"])
def test_every_reply_in_and_around_a_transaction_is_the_servers(proxied, direct, together):
    script = [
        ("EXEC",), ("DISCARD",), ("UNWATCH",), ("MULTI",), ("MULTI",), ("WATCH", "a"),
        ("SET", "a", 1), ("LPUSH", "a", 1), ("GET", "a"), ("EXEC",), ("GET", "a"),
        ("MULTI",), ("SET", "b", 1), ("DISCARD",), ("GET", "b"),
        ("MULTI",), ("NOSUCH",), ("SET", "b", 1), ("EXEC",), ("GET", "b"),
        ("MULTI",), ("GET",), ("EXEC",), ("MULTI",), ("EXEC",), ("MULTI", "x"), ("EXEC", "x"),
        ("WATCH",), ("WATCH", "w"), ("SET", "w", 1), ("MULTI",), ("GET", "w"), ("EXEC",),
        ("WATCH", "w"), ("UNWATCH",), ("SET", "w", 2), ("MULTI",), ("GET", "w"), ("EXEC",),
        ("MULTI",), ("DISCARD", "x"), ("DISCARD",), ("MULTI",), ("BLPOP", "none", 0), ("EXEC",),
        ("MULTI",), ("SELECT", 3), ("SET", "three", 1), ("EXEC",), ("GET", "three"),
        ("SELECT", 0), ("GET", "three"), ("MULTI",), ("PING",), ("ECHO", "x"), ("EXEC",),
        ("MULTI",), ("UNWATCH",), ("EXEC",), ("MULTI",), ("CLIENT", "SETNAME", "n"), ("EXEC",),
        ("CLIENT", "GETNAME"), ("MULTI",), ("MONITOR",), ("EXEC",), ("MULTI",), ("XREAD",
        "BLOCK", "0", "STREAMS", "x", "$"), ("EXEC",), ("PING",),
    ]
    with direct.connect() as there, proxied.connect() as here:
        if together:
            assert here.pipeline(*script) == there.pipeline(*script)
        else:
            for index, command in enumerate(script):
                assert here.raw(*command) == there.raw(*command), (index, command)


@pytest.mark.parametrize("conflict", [True, False])
def test_a_watched_key_changed_by_another_client_stops_the_transaction(gateway, conflict):
    with gateway.connect() as client, gateway.connect() as other:
        assert client.raw("SET", "w", "1") == b"+OK\r\n"
        for _ in range(20):
            assert client.raw("WATCH", "w") == b"+OK\r\n"
            assert client.value("GET", "w") is not None
            if conflict:
                assert other.raw("INCR", "w").startswith(b":")
            else:
                assert other.raw("INCR", "unwatched").startswith(b":")
            assert client.pipeline(("MULTI",), ("SET", "w", "5")) == b"+OK\r\n" + QUEUED
            assert client.raw("EXEC") == (b"*-1\r\n" if conflict else b"*1\r\n+OK\r\n")


def test_a_discarded_or_unwatched_key_does_not_stop_a_later_transaction(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        for ending in (("DISCARD",), None):
            assert client.raw("WATCH", "w") == b"+OK\r\n"
            if ending:
                assert client.pipeline(("MULTI",), ending) == b"+OK\r\n+OK\r\n"
            else:
                assert client.raw("UNWATCH") == b"+OK\r\n"
            assert other.raw("INCR", "w").startswith(b":")
            assert client.pipeline(("MULTI",), ("PING",), ("EXEC",)) == (
                b"+OK\r\n" + QUEUED + b"*1\r\n+PONG\r\n"
            )


def test_a_watch_of_one_client_does_not_stop_another(gateway):
    with gateway.connect() as one, gateway.connect() as two:
        assert one.raw("WATCH", "w") == b"+OK\r\n"
        assert two.pipeline(("MULTI",), ("INCR", "w"), ("EXEC",)).endswith(b"*1\r\n:1\r\n")
        assert two.pipeline(("MULTI",), ("INCR", "w"), ("EXEC",)).endswith(b"*1\r\n:2\r\n")
        assert one.pipeline(("MULTI",), ("PING",), ("EXEC",)) == b"+OK\r\n" + QUEUED + b"*-1\r\n"


def test_a_client_that_leaves_inside_a_transaction_leaves_no_trace(gateway):
    for index in range(30):
        with gateway.connect() as client:
            client.raw("WATCH", "k")
            client.raw("MULTI")
            client.raw("SET", "k", "never")
            if index % 2:
                client.abort()
        with gateway.connect() as next_client:
            assert next_client.raw("SET", f"next{index}", 1) == b"+OK\r\n"
            assert next_client.raw("EXEC") == b"-ERR EXEC without MULTI\r\n"
            assert next_client.raw("EXISTS", "k") == b":0\r\n"


def test_half_a_transaction_of_one_client_does_not_catch_anothers_commands(gateway):
    with gateway.connect() as one, gateway.connect() as two:
        one.send_bytes(encode("MULTI") + encode("SET", "half", 1) + b"*2\r\n$3\r\nGE")
        assert one.read_raw(2) == b"+OK\r\n" + QUEUED
        for index in range(20):
            assert two.raw("SET", "two", index) == b"+OK\r\n"
        one.send_bytes(b"T\r\n$4\r\nhalf\r\n" + encode("EXEC"))
        assert one.read_raw(2) == QUEUED + b"*2\r\n+OK\r\n" + bulk("1")


def test_increments_under_watch_from_many_clients_are_all_counted(gateway):
    """Optimistic locking is only right if no other client's write can slip in between."""
    clients, rounds = 8, 40
    def work(number: int):
        dice = random.Random(number)
        with gateway.connect() as client:
            done = 0
            while done < rounds:
                client.raw("WATCH", "total")
                held = int(client.value("GET", "total") or 0)
                if dice.random() < 0.3:
                    client.raw("GET", "other")
                replies = client.pipeline(("MULTI",), ("SET", "total", held + 1), ("EXEC",))
                assert replies.startswith(b"+OK\r\n" + QUEUED), replies
                done += replies.endswith(b"*1\r\n+OK\r\n")

    together(work, zip(range(clients)))
    with gateway.connect() as client:
        assert client.raw("GET", "total") == bulk(clients * rounds)


def test_a_block_sent_at_once_is_atomic_among_many_clients(gateway):
    def work(number: int):
        with gateway.connect() as client:
            for _ in range(100):
                replies = client.pipeline(("MULTI",), ("INCR", "x"), ("INCR", "x"), ("EXEC",))
                first, second = replies.split(b"*2\r\n")[1].split()
                assert int(second[1:]) == int(first[1:]) + 1, replies

    together(work, zip(range(8)))


@pytest.mark.heavy
def test_transactions_of_many_clients_reuse_few_connections(server, shared_proxy, full_size):
    clients, rounds = 100, 10_000 if full_size else 100
    # Half of the clients wait for WATCH's answer, as most libraries do; half send all at once.
    watch = encode("WATCH", "w")
    block = b"".join(
        encode(*command) for command in (("MULTI",), ("INCR", "counter:nnnn"), ("EXEC",))
    )
    gateway = shared_proxy.by_mode["multiplexed"]["app"]

    def opened() -> int:
        statistics = server.ask("INFO", "stats").decode()
        return int(re.search(r"total_connections_received:(\d+)", statistics)[1])

    server.ask("FLUSHALL")
    # Each of the admin's own questions is a connection too.
    opened()
    before, cost = opened(), 1
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        everyone = [stack.enter_context(gateway.connect()) for _ in range(clients)]
        blocks = [block.replace(b"nnnn", b"%04d" % index) for index in range(clients)]
        for turn in range(rounds):
            replies = b"+OK\r\n" + QUEUED + b"*1\r\n:%d\r\n" % (turn + 1)
            for client, request in zip(everyone[::2], blocks[::2]):
                client.send_bytes(watch + request)
            for client in everyone[1::2]:
                client.send_bytes(watch)
            for client in everyone[::2]:
                assert client.read_exactly(5 + len(replies)) == b"+OK\r\n" + replies
            for client, request in zip(everyone[1::2], blocks[1::2]):
                assert client.read_exactly(5) == b"+OK\r\n"
                client.send_bytes(request)
            for client in everyone[1::2]:
                assert client.read_exactly(len(replies)) == replies
    new = opened() - before - cost
    print(
        f"\n{clients} clients, {rounds} rounds of WATCH, MULTI and EXEC each: {new} upstream"
        f" connections opened in {time.monotonic() - started:.0f} s"
    )
    # As many as were in a transaction at the same time, and then the same ones again.
    assert new <= clients + 10
