"""What the proxy costs: memory for big values, slow readers, stalled uploads and idle clients.

Each test prints its figure and asserts a bound that leaves room for a busy machine. Memory is the
proxy's resident set from /proc, its peak since a mark where a moment is what matters.
"""

import contextlib
import random
import resource
import select
import statistics
import threading
import time

import pytest

from harness.process import Process
from harness.proxy import Listener, Upstream
from harness.resp import Client, bulk, encode, eventually

KIB = 1024
MIB = 1024 * KIB
BIGGEST = 512 * MIB

MODES = ("multiplexed", "dedicated")
PROTOCOLS = (2, 3)


@pytest.fixture(params=MODES)
def proxy(request, server, start_proxy):
    """A proxy of the test's own, with one listener."""
    with server.admin() as admin:
        admin.value("FLUSHALL")
    started = start_proxy(
        {"cache": Upstream.verified(server)}, {"app": server.passwords["app"]},
        [Listener("app", request.param)], max_sessions=20_000,
    )
    yield started
    with server.admin() as admin:
        admin.value("FLUSHALL")


class Memory:
    """How far the proxy's resident memory rose above where it was, at its highest."""

    def __init__(self, process: Process):
        self.process = process
        # Forgets the peak so far.
        with open(f"/proc/{process.pid}/clear_refs", "w") as file:
            file.write("5")
        self.before = process.resident_bytes()

    @property
    def growth(self) -> int:
        return self.process.peak_resident_bytes() - self.before


def shown(count: float) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / KIB:.1f} KiB"


def skip_bytes(client: Client, count: int) -> None:
    """Takes `count` bytes without keeping them."""
    window = memoryview(bytearray(MIB))
    taken = min(count, len(client._buffer))
    del client._buffer[:taken]
    while taken < count:
        received = client.socket.recv_into(window, min(count - taken, MIB))
        assert received, f"closed with {count - taken} bytes missing"
        taken += received


@pytest.mark.heavy
def test_setting_the_biggest_value_costs_no_memory(proxy):
    block = random.Random(1).randbytes(MIB)
    with proxy.connect(timeout=120) as client:
        # What is allocated once and kept is not the value's doing.
        assert client.raw("SET", "small", "x" * 100_000) == b"+OK\r\n"
        memory = Memory(proxy.process)
        client.send_bytes(b"*3\r\n$3\r\nSET\r\n$7\r\nbiggest\r\n$%d\r\n" % BIGGEST)
        for _ in range(BIGGEST // MIB):
            client.send_bytes(block)
        client.send_bytes(b"\r\n")
        assert client.read_raw() == b"+OK\r\n"
    print(f"\n512 MiB set: memory grew by {shown(memory.growth)}")
    assert memory.growth < 4 * MIB


@pytest.mark.heavy
def test_getting_the_biggest_value_costs_no_memory(proxy, server):
    server.ask("SETRANGE", "biggest", BIGGEST - 1, "x")
    with proxy.connect(timeout=120) as client:
        assert client.raw("SET", "small", "x" * 1000) == b"+OK\r\n"
        assert client.raw("GET", "small") == bulk("x" * 1000)
        memory = Memory(proxy.process)
        client.send("GET", "biggest")
        skip_bytes(client, BIGGEST + len(b"$%d\r\n\r\n" % BIGGEST))
        assert client.raw("PING") == b"+PONG\r\n"
    print(f"\n512 MiB got: memory grew by {shown(memory.growth)}")
    assert memory.growth < 4 * MIB


@pytest.mark.heavy
@pytest.mark.parametrize("sent", [0, 32 * MIB], ids=["nothing of it", "half of it"])
def test_uploads_that_stall_hold_up_nobody_and_cost_little(proxy, full_size, sent):
    size = 64 * MIB
    count = 200 if full_size or sent == 0 else 20
    undisturbed = work_of_others(proxy)
    descriptors, memory = proxy.process.descriptors(), Memory(proxy.process)
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(proxy.connect(timeout=60)) for _ in range(count)]
        block = b"x" * MIB
        for number, client in enumerate(stalled):
            client.send_bytes(b"*3\r\n$3\r\nSET\r\n$3\r\n%03d\r\n$%d\r\n" % (number, size))
            for _ in range(sent // MIB):
                client.send_bytes(block)
        disturbed = work_of_others(proxy)
        used = proxy.process.descriptors() - descriptors
        print(
            f"\n{count} stalled uploads, {shown(sent)} sent: 99 of 100 replies within"
            f" {disturbed * 1e3:.1f} ms ({undisturbed * 1e3:.1f} ms without), {used} descriptors,"
            f" memory grew by {shown(memory.growth)}, is"
            f" {shown(proxy.process.resident_bytes() - memory.before)} above"
        )
        # One of them, at last, gets on.
        stalled[0].send_bytes(b"x" * (size - sent) + b"\r\n")
        assert stalled[0].read_raw() == b"+OK\r\n"
    # Each may have one connection upstream, and memory for TLS and what is under way at a time.
    assert used <= 2 * count + 20
    assert memory.growth < 8 * MIB + count * (512 if sent else 64) * KIB
    assert disturbed < 20 * undisturbed + 0.05
    eventually(lambda: proxy.process.descriptors() <= descriptors + 10, what="they are forgotten")


def work_of_others(proxy, clients: int = 10, rounds: int = 200) -> float:
    """Small commands of some clients, checked; what 99 of 100 replies did not take longer than."""
    seconds = []
    with contextlib.ExitStack() as stack:
        everyone = [stack.enter_context(proxy.connect()) for _ in range(clients)]
        for turn in range(rounds):
            for number, client in enumerate(everyone):
                started = time.monotonic()
                assert client.raw("SET", f"other{number}", turn) == b"+OK\r\n"
                assert client.raw("GET", f"other{number}") == bulk(turn)
                seconds.append(time.monotonic() - started)
    return statistics.quantiles(seconds, n=100)[-1]


# One reply's bytes; how many of them a client asks for follows from how much they are to be.
REPLIES = {"many small ones": 1_000, "a few big ones": 16 * MIB}


@pytest.mark.heavy
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", REPLIES)
def test_a_client_that_reads_nothing_costs_little_and_gets_it_all(
    proxy, full_size, kind, protocol
):
    size = REPLIES[kind]
    count = (1024 if full_size else 128) * MIB // size
    value = random.Random(protocol).randbytes(size)
    reply = bulk(value)
    with proxy.connect(timeout=60) as slow:
        if protocol == 3:
            slow.raw("HELLO", 3)
        assert slow.raw("SET", "value", value) == b"+OK\r\n"
        assert slow.raw("GET", "value") == reply
        memory = Memory(proxy.process)
        requests = encode("GET", "value") * count + encode("ECHO", "the end")
        asking = threading.Thread(target=slow.send_bytes, args=(requests,))
        asking.start()
        assert select.select([slow.socket], [], [], 30)[0]
        # The others are served all the while, and take what time it needs to fill every buffer.
        slowest = work_of_others(proxy)
        growth = memory.growth
        received = 0
        for _ in range(count):
            assert slow.read_exactly(len(reply)) == reply
            received += len(reply)
        assert slow.read_raw() == bulk("the end")
        asking.join()
    print(
        f"\n{shown(received)} in {kind}, RESP{protocol}: memory grew by {shown(growth)} unread, by"
        f" {shown(memory.growth)} in all; others within {slowest * 1e3:.1f} ms"
    )
    assert growth < 16 * MIB
    assert memory.growth < 24 * MIB


@pytest.mark.heavy
@pytest.mark.parametrize("proxy", ["multiplexed"], indirect=True)
def test_an_idle_client_costs_under_a_kibibyte(proxy):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 1_000)
    commands = encode("SET", "idle", "x" * 100) + encode("GET", "idle") + encode("PING")
    replies = b"+OK\r\n" + bulk("x" * 100) + b"+PONG\r\n"

    def idle_clients(number: int) -> list:
        made = []
        for _ in range(number):
            made.append(proxy.connect())
            made[-1].send_bytes(commands)
            assert made[-1].read_exactly(len(replies)) == replies
        return made

    clients = idle_clients(100)
    before = proxy.process.resident_bytes()
    clients += idle_clients(count)
    each = (proxy.process.resident_bytes() - before) / count
    print(f"\n{count} idle clients: {each:.0f} bytes each")
    for client in clients:
        client.close()
    assert each < KIB
