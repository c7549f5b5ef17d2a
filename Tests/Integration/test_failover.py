"""Two real servers that exchange their roles, while clients write.

The relay stands for the name of the primary: it leads to one server, and then to the other.
"""

import threading
import time

import pytest

from harness import verifier
from harness.console import Console
from harness.proxy import Listener, Upstream
from harness.resp import Error, eventually

WRITERS = 8


class Writer(threading.Thread):
    """Counts up a key of its own, one command after the other, and keeps what went wrong."""

    def __init__(self, listener: Listener, number: int):
        super().__init__(daemon=True)
        self.listener, self.key = listener, f"writer-{number}"
        self.errors, self.losses, self.acknowledged = [], 0, 0
        self.stopping = False

    def run(self):
        client = self.listener.connect(timeout=30)
        while not self.stopping:
            try:
                answer = client.value("INCR", self.key)
            except (OSError, AssertionError):
                self.losses += 1
                client = self.listener.connect(timeout=30)
                continue
            if isinstance(answer, Error):
                self.errors.append(str(answer))
            else:
                self.acknowledged += 1
        client.close()


class Pair:
    """A primary and its replica behind one name."""

    def __init__(self, start_server, start_relay):
        self.primary, self.replica = start_server(), start_server()
        for server in (self.primary, self.replica):
            password = server.passwords["admin"]
            for setting in (("tls-replication", "yes"), ("masteruser", "admin"),
                            ("masterauth", password), ("repl-diskless-sync-delay", "0")):
                assert server.ask("CONFIG", "SET", *setting) == b"OK"
        self.follow(self.replica, self.primary)
        self.relay = start_relay(self.primary)

    @staticmethod
    def follow(replica, primary):
        replica.ask("REPLICAOF", "127.0.0.1", primary.port)
        eventually(
            lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), 20,
            "the replica follows")

    def swap(self):
        """The replica becomes the primary, and the primary its replica; nothing is lost."""
        self.primary.ask("CLIENT", "PAUSE", 2_000, "WRITE")

        def offset(server, field):
            for line in server.ask("INFO", "replication").splitlines():
                if line.startswith(field + b":"):
                    return int(line.split(b":")[1])
            return None

        eventually(
            lambda: offset(self.primary, b"master_repl_offset")
            == offset(self.replica, b"slave_repl_offset"),
            10, "the replica has everything")
        self.replica.ask("REPLICAOF", "NO", "ONE")
        self.follow(self.primary, self.replica)
        self.primary.ask("CLIENT", "UNPAUSE")
        self.primary, self.replica = self.replica, self.primary

    def lead_to_primary(self):
        self.relay.lead_to(self.primary)


@pytest.fixture
def pair(start_server, start_relay):
    return Pair(start_server, start_relay)


@pytest.fixture
def started(pair, start_proxy, directory):
    path = directory / "failover.sock"
    listeners = [Listener("app"), Listener("app", "dedicated")]
    proxy = start_proxy(
        {"cache": Upstream.verified(pair.relay)}, {"app": pair.primary.passwords["app"]},
        listeners, admin={"socket": str(path)},
    )
    return proxy, listeners, Console.of(path)


@pytest.fixture
def writers(started):
    _, listeners, _ = started
    writers = [Writer(listeners[number % 2], number) for number in range(WRITERS)]
    for writer in writers:
        writer.start()
    eventually(lambda: all(writer.acknowledged > 50 for writer in writers), 30, "all write")
    yield writers
    for writer in writers:
        writer.stopping = True
    for writer in writers:
        writer.join(30)


def write_on(writers):
    before = [writer.acknowledged for writer in writers]
    eventually(
        lambda: all(
            writer.acknowledged > count + 20 for writer, count in zip(writers, before)),
        30, "all write again")


def settle(writers):
    for writer in writers:
        writer.stopping = True
    for writer in writers:
        writer.join(30)
        assert not writer.is_alive()


def test_after_a_failover_writes_succeed_again_on_their_own(pair, started, writers):
    pair.swap()
    pair.lead_to_primary()
    write_on(writers)
    settle(writers)
    losses = sum(writer.losses for writer in writers)
    errors = [error for writer in writers for error in writer.errors]
    assert losses == 0, "nobody is disconnected"
    assert all("READONLY" in error for error in errors), set(errors)
    print(f"{len(errors)} errors of {WRITERS} writers")
    for writer in writers:
        assert int(pair.primary.ask("GET", writer.key)) == writer.acknowledged


def test_a_name_that_is_late_is_found_when_it_leads_elsewhere(pair, started, writers):
    proxy, _, console = started
    pair.swap()
    eventually(lambda: all(writer.errors for writer in writers), 20, "writes are refused")
    connections = console.stats()["logins"]
    time.sleep(1)
    # While the name leads to the old server, attempts are few.
    assert console.stats()["logins"] - connections < 60
    pair.lead_to_primary()
    write_on(writers)
    settle(writers)
    assert sum(writer.losses for writer in writers) == 0
    assert "the server is not what it was" in proxy.log()


def test_with_pause_and_resume_no_client_sees_a_failover(pair, started, writers):
    _, _, console = started
    console.order("PAUSE", "cache")
    before = sum(writer.acknowledged for writer in writers)
    pair.swap()
    pair.lead_to_primary()
    assert sum(writer.acknowledged for writer in writers) <= before + WRITERS
    console.order("RESUME", "cache")
    write_on(writers)
    settle(writers)
    assert [writer.errors for writer in writers] == [[]] * WRITERS
    assert sum(writer.losses for writer in writers) == 0
    for writer in writers:
        assert int(pair.primary.ask("GET", writer.key)) == writer.acknowledged


def test_a_connection_is_replaced_when_it_is_too_old(server, start_proxy):
    upstream = Upstream.verified(server)
    upstream.settings["connection_max_age"] = "1s"
    # A user of its own: other proxies are connected as the others.
    user = "ageing"
    listeners = [Listener(user), Listener(user, "dedicated")]
    start_proxy({"cache": upstream}, {user: server.add_user(user)}, listeners)
    with listeners[0].connect() as shared, listeners[1].connect() as own:
        for client in (shared, own):
            assert client.raw("SET", "age", "1") == b"+OK\r\n"
        first = {row["id"] for row in server.connections(user)}
        assert len(first) >= 2

        def are_new():
            for client in (shared, own):
                assert client.raw("GET", "age") == b"$1\r\n1\r\n"
            return not first & {row["id"] for row in server.connections(user)}

        eventually(are_new, 15, "all connections are new ones")


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_replacements_under_load_lose_and_repeat_nothing_and_close_nobody(
    server, start_proxy, directory, mode
):
    upstream = Upstream.verified(server)
    upstream.settings["connection_max_age"] = "1s"
    user, listener = f"replaced-{mode}", Listener(f"replaced-{mode}", mode)
    path = directory / f"{user}.sock"
    start_proxy(
        {"cache": upstream}, {user: server.add_user(user)}, [listener], threads=2,
        connections_per_worker=2, admin={"socket": str(path)},
    )
    console = Console.of(path)
    plan = verifier.Plan(
        addresses=(listener.address,), clients=20, commands=200, goes_on=True, seed=41,
        transactions=True, max_depth=40, pace_seconds=0.005, prefix=user,
    )
    load = verifier.Load(plan)

    def connections():
        return {row["id"] for row in server.connections(user)}

    eventually(lambda: load.is_through, 60, "everybody has begun")
    for _ in range(20):
        before = connections()
        console.order("RECONNECT", "cache")
        eventually(lambda: not before & connections(), 20, "all connections are new ones")
        assert load.is_running
    load.stop()
    outcome = load.outcome(60)
    assert not outcome.wrong, outcome.wrong[:3]
    assert (outcome.closed, outcome.refused) == (0, 0)
    print(f"{mode}: {outcome.answered} commands answered, 20 replacements of all connections")
