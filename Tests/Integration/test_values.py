"""Values of every size pass both ways unchanged."""

import hashlib
import socket
import random
import threading

import pytest

from harness.resp import Client, bulk, encode
from harness.together import together

KIB = 1024
MIB = 1024 * KIB

SIZES = [0, 1, 2, 63, 64, 1000, 4095, 4096, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537]
SIZES += [100_000, 256 * KIB - 7, MIB, MIB + 1, 5 * MIB + 3, 64 * MIB]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_value_comes_back_as_it_was_set(gateway, size):
    value = noise(size, size)
    with gateway.connect(timeout=60) as client:
        assert client.raw("SET", "value", value) == b"+OK\r\n"
        assert client.raw("GET", "value") == bulk(value)
        assert client.raw("STRLEN", "value") == b":%d\r\n" % size


def test_values_of_all_sizes_pass_in_one_pipeline(gateway):
    values = [noise(size, size) for size in SIZES if size < 2 * MIB]
    request = b"".join(
        encode("SET", f"v{index}", value) + encode("GET", f"v{index}")
        for index, value in enumerate(values)
    )
    expected = b"".join(b"+OK\r\n" + bulk(value) for value in values)
    with gateway.connect(timeout=60) as client:
        sender = threading.Thread(target=client.send_bytes, args=(request,))
        sender.start()
        received = client.read_exactly(len(expected))
        sender.join()
        assert received == expected


def test_big_and_small_values_of_many_clients_do_not_mix(gateway):
    def work(number: int):
        dice = random.Random(number)
        with gateway.connect(timeout=60) as client:
            for turn in range(12):
                size = dice.choice((10, 10, 1000, 70_000, 300_000, 2 * MIB))
                value = b"%d:%d:" % (number, turn) + noise(size, number * 100 + turn)
                assert client.raw("SET", f"mix{number}", value) == b"+OK\r\n"
                got = client.pipeline(("GET", f"mix{number}"), ("ECHO", f"{number}-{turn}"))
                assert got == bulk(value) + bulk(f"{number}-{turn}")

    together(work, zip(range(12)))


def test_an_upload_that_stalls_holds_up_nobody(gateway):
    with gateway.connect() as stalled, gateway.connect() as other:
        stalled.send_bytes(b"*3\r\n$3\r\nSET\r\n$5\r\nstall\r\n$%d\r\n" % (8 * MIB) + b"x" * MIB)
        for index in range(50):
            assert other.raw("SET", "other", index) == b"+OK\r\n"
            assert other.raw("GET", "other") == bulk(index)
        assert other.raw("EXISTS", "stall") == b":0\r\n"
        stalled.send_bytes(b"x" * (7 * MIB) + b"\r\n")
        assert stalled.read_raw() == b"+OK\r\n"
        assert other.raw("STRLEN", "stall") == b":%d\r\n" % (8 * MIB)


def test_a_big_reply_that_nobody_reads_holds_up_nobody(gateway):
    with gateway.connect(timeout=30) as client:
        assert client.raw("SET", "big", b"b" * (32 * MIB)) == b"+OK\r\n"
    with gateway.connect(timeout=30) as slow, gateway.connect(timeout=30) as other:
        slow.send("GET", "big")
        # What was sent before the reply began may be behind it on the same connection.
        assert slow.socket.recv(1, socket.MSG_PEEK) == b"$"
        for index in range(50):
            assert other.raw("SET", "other", index) == b"+OK\r\n"
            assert other.raw("GET", "other") == bulk(index)
        assert slow.read_raw() == bulk(b"b" * (32 * MIB))


def test_an_upload_cut_off_by_its_client_stores_nothing_and_harms_nobody(gateway):
    with gateway.connect() as other:
        for size in (100, 70_000, 3 * MIB):
            with gateway.connect() as client:
                client.send_bytes(b"*3\r\n$3\r\nSET\r\n$3\r\ncut\r\n$%d\r\n" % size)
                client.send_bytes(b"y" * (size - 10))
            assert other.raw("PING") == b"+PONG\r\n"
            assert other.raw("EXISTS", "cut") == b":0\r\n"


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_the_biggest_value_makes_the_round_trip(mode, server, shared_proxy):
    size = 512 * MIB
    block = noise(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with shared_proxy.by_mode[mode]["app"].connect(timeout=120) as client:
        client.send_bytes(b"*3\r\n$3\r\nSET\r\n$7\r\nbiggest\r\n$%d\r\n" % size)
        for _ in range(size // MIB):
            client.send_bytes(block)
            sent.update(block)
        client.send_bytes(b"\r\n")
        assert client.read_raw() == b"+OK\r\n"
        client.send("GET", "biggest")
        header = b"$%d\r\n" % size
        assert client.read_exactly(len(header)) == header
        left = size
        window = memoryview(bytearray(MIB))
        start = client._buffer[:left]
        received.update(start)
        left -= len(start)
        del client._buffer[:]
        while left:
            count = client.socket.recv_into(window, min(left, MIB))
            assert count, f"closed with {left} bytes missing"
            received.update(window[:count])
            left -= count
        assert client.read_exactly(2) == b"\r\n"
        assert received.hexdigest() == sent.hexdigest()
        assert client.raw("DEL", "biggest") == b":1\r\n"


def test_a_value_over_the_limit_is_refused_as_by_the_server(gateway):
    with gateway.connect() as client:
        client.send_bytes(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (512 * MIB + 1))
        assert client.read_to_end() == b"-ERR Protocol error: invalid bulk length\r\n"


def test_many_arguments_are_no_problem(gateway):
    arguments = [f"argument-{index}" for index in range(50_000)]
    with gateway.connect(timeout=30) as client:
        assert client.raw("RPUSH", "list", *arguments) == b":50000\r\n"
        assert client.value("LRANGE", "list", 0, -1) == [a.encode() for a in arguments]


def test_a_client_on_another_connection_sees_the_value(gateway):
    with gateway.connect() as one, gateway.connect() as two, Client(gateway.server.address,
            tls=gateway.server.client_context) as outside:
        outside.value("AUTH", "app", gateway.server.passwords["app"])
        assert one.raw("SET", "seen", "by all") == b"+OK\r\n"
        assert two.raw("GET", "seen") == bulk("by all") == outside.raw("GET", "seen")
