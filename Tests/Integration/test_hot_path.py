"""What a command costs the built proxy, in things that can be counted: allocations, reference counts,
system calls, TLS records. How long it takes depends on the machine, and is Benchmarks' business."""

import os
import signal

import pytest

from harness.counts import Counter
from harness.proxy import Listener, Upstream
from harness.resp import encode

CLIENTS = 50
SET, GET = encode("SET", "hot:path", "x" * 64), encode("GET", "hot:path")
SET_REPLY, GET_REPLY = b"+OK\r\n", b"$64\r\n" + b"x" * 64 + b"\r\n"


class Load:
    """Clients of a proxy that counts."""

    def __init__(self, proxy, counter: Counter, clients: int):
        self.proxy, self.counter = proxy, counter
        self.clients = [proxy.connect() for _ in range(clients)]

    def ask(self, depth: int = 1) -> None:
        """Each client sends so many SETs and as many GETs at once, and reads all replies."""
        for client in self.clients:
            client.send_bytes((SET + GET) * depth)
        for client in self.clients:
            replies = (SET_REPLY + GET_REPLY) * depth
            assert client.read_exactly(len(replies)) == replies

    def cost_of(self, work):
        before = self.counter.read()
        work()
        return self.counter.read() - before

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def start_load(server, start_proxy, directory):
    loads = []

    def start(clients: int) -> Load:
        counter = Counter(directory)
        proxy = start_proxy(
            {"cache": Upstream.verified(server)},
            {"app": server.passwords["app"]},
            [Listener("app")],
            environment=counter.environment,
        )
        loads.append(Load(proxy, counter, clients))
        # The first commands make buffers grow and learn what the user may do.
        for _ in range(20):
            loads[-1].ask(depth=50)
        return loads[-1]

    yield start
    for load in loads:
        load.close()


@pytest.mark.parametrize("clients, depth", [(1, 1), (1, 50), (CLIENTS, 1), (CLIENTS, 50)])
def test_a_plain_command_costs_no_allocation_and_no_reference_count(clients, depth, start_load):
    load = start_load(clients)
    rounds = max(10, 20_000 // (clients * depth * 2))
    load.ask(depth)
    cost = load.cost_of(lambda: [load.ask(depth) for _ in range(rounds)])
    commands = rounds * clients * depth * 2
    # A timer may fire meanwhile, and a client whose replies come in two parts needs a buffer for the
    # first; none for a command.
    assert cost.allocations <= 10 + commands / 1_000, f"{cost}, {commands} commands"
    # A few for each turn: the objects of a connection to the server are touched once for all that
    # came in it.
    assert cost.references <= 10 * cost.turns + 100, f"{cost}, {commands} commands"
    # OpenSSL's own, for each record; see SSL_MODE_RELEASE_BUFFERS in TLSContext.
    assert cost.openssl_allocations <= 8 * (cost.records + cost.turns), f"{cost}"


def test_a_lone_clients_command_costs_six_system_calls(start_load):
    load = start_load(1)
    client, rounds = load.clients[0], 2_000

    def ask():
        for _ in range(rounds):
            client.send_bytes(GET)
            assert client.read_exactly(len(GET_REPLY)) == GET_REPLY

    cost = load.cost_of(ask)
    # In from the client and out to the server, in from there and out to the client, a poll for each
    # way. A few more for what is not this client's: timers, the end of the probe that waited for
    # the proxy to listen.
    assert cost.receives <= 2 * rounds + 10, cost
    assert cost.sends <= 2 * rounds + 10, cost
    assert cost.calls <= 6 * rounds + 50, cost
    assert cost.records == rounds, cost


def test_commands_of_fifty_clients_in_a_turn_share_one_record_and_one_send(start_load):
    load = start_load(CLIENTS)

    def burst():
        # Stopped, the proxy finds all of them when it goes on.
        os.kill(load.proxy.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, load.proxy.pid, os.WSTOPPED | os.WNOWAIT)
        for client in load.clients:
            client.send_bytes(GET)
        os.kill(load.proxy.pid, signal.SIGCONT)
        for client in load.clients:
            assert client.read_exactly(len(GET_REPLY)) == GET_REPLY

    costs = [load.cost_of(burst) for _ in range(5)]
    for cost in costs:
        assert cost.records == 1, costs
        # One in and one out for each client, and the same for all of them together.
        assert cost.sends == CLIENTS + 1, costs
        assert cost.receives <= CLIENTS + 3, costs
        # 2.2 for each command; a poll or two, and the gather window's sleep.
        assert cost.calls <= 2.2 * CLIENTS, costs


def test_a_deep_pipeline_goes_on_in_full_records(start_load):
    load, depth = start_load(1), 500
    request = len((SET + GET) * depth)
    cost = load.cost_of(lambda: load.ask(depth))
    # A client is read 64 KiB at a time at the most, TLS has records of 16 KiB (RFC 8446, 5.1), and
    # a session's window opens as it goes on.
    assert cost.records <= request / 16_384 + cost.turns, cost
    assert cost.sends + cost.receives <= 0.1 * depth, cost
