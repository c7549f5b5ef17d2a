"""Many clients at once, coming and going in every way: each gets its own replies and no others."""

import random

import pytest

from harness import verifier
from harness.proxy import Listener, Upstream
from harness.resp import Client, bulk, encode, eventually
from harness.together import together
from harness.verifier import Plan


def test_fifty_clients_get_the_right_reply_to_every_command(gateway):
    plan = Plan(
        addresses=(gateway.address(),), login=gateway.login(), clients=50, commands=600, seed=11,
    )
    verifier.check(verifier.run(plan), plan)


def test_clients_with_transactions_and_big_values_get_the_right_replies(gateway):
    plan = Plan(
        addresses=(gateway.address(),), login=gateway.login(), clients=16, commands=200, seed=12,
        max_depth=20, max_value=40_000, transactions=True,
    )
    verifier.check(verifier.run(plan), plan)


def test_clients_that_come_and_go_get_the_right_replies(gateway):
    plan = Plan(
        addresses=(gateway.address(),), login=gateway.login(), clients=30, commands=400, seed=13,
        max_depth=10, reconnect_every=3,
    )
    outcome = verifier.run(plan)
    verifier.check(outcome, plan)
    assert outcome.reconnected > 100


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_two_workers_serve_as_one(mode, server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app", mode)],
        threads=2,
    )
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=50, commands=600, seed=14,
        transactions=True, prefix="two",
    )
    verifier.check(verifier.run(plan), plan)
    assert proxy.stop() == 0


def test_two_upstream_connections_per_worker_serve_as_one(server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app")],
        connections_per_worker=2,
    )
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=50, commands=600, seed=15, prefix="cpw",
    )
    verifier.check(verifier.run(plan), plan)


def test_clients_that_vanish_in_the_middle_of_a_pipeline_harm_nobody(gateway):
    """Some clients leave with replies on the way, some in the middle of a request."""
    plan = Plan(
        addresses=(gateway.address(),), login=gateway.login(), clients=20, commands=1500, seed=16,
    )
    load = verifier.Load(plan)
    dice = random.Random(16)
    while load.is_running:
        client = gateway.connect()
        request = b"".join(encode("ECHO", "gone" * dice.randint(1, 50)) for _ in range(50))
        client.send_bytes(request[: dice.randint(1, len(request))])
        if dice.random() < 0.5:
            client.is_silent(0.005)
        client.abort() if dice.random() < 0.5 else client.close()
    verifier.check(load.outcome(), plan)


def test_a_thousand_connections_are_served(gateway):
    # Spare ones of sessions before, which are closed when nobody has needed them for a while.
    before = len(gateway.server.connections("app"))
    clients = [gateway.connect() for _ in range(1000)]
    for turn in range(3):
        for number, client in enumerate(clients):
            client.send_bytes(
                encode("SET", f"t:{number}", f"{number}-{turn}") + encode("GET", f"t:{number}")
            )
        for number, client in enumerate(clients):
            assert client.read_raw(2) == b"+OK\r\n" + bulk(f"{number}-{turn}")
    if gateway.name == "multiplexed":
        assert len(gateway.server.connections("app")) < before + 20
    if gateway.name == "dedicated":
        assert len(gateway.server.connections("app")) >= 1000
    for client in clients:
        client.close()
    if gateway.name == "dedicated":
        eventually(
            lambda: len(gateway.server.connections("app")) < before + 20, 20, "connections end"
        )


def test_connections_refused_over_the_limit_are_told_so(server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app")],
        max_sessions=10,
    )
    # The harness's look whether the proxy listens may still hold a place.
    eventually(lambda: answers(proxy), what="the proxy is free")
    clients = []
    while len(clients) < 10:
        clients.append(proxy.connect())
        if clients[-1].raw("PING") != b"+PONG\r\n":
            clients.pop().close()
    with proxy.connect() as refused:
        assert refused.read_to_end().startswith(b"-ERR max number of clients reached")
    clients.pop().close()
    eventually(lambda: answers(proxy), what="a place is free again")


def answers(proxy) -> bool:
    with proxy.connect() as client:
        try:
            return client.raw("PING") == b"+PONG\r\n"
        except Exception:
            return False


# Half-closed connections: the client has said all it will say and still wants its replies.


def test_a_half_closed_client_gets_every_reply_then_the_end(gateway):
    for depth in (1, 10, 5000):
        with gateway.connect() as client:
            client.send_bytes(b"".join(encode("ECHO", index) for index in range(depth)))
            client.half_close()
            assert client.read_to_end() == b"".join(bulk(index) for index in range(depth))


def test_a_half_closed_client_gets_a_transactions_result(gateway):
    with gateway.connect() as client:
        client.send_bytes(
            encode("SET", "n", 1) + encode("MULTI") + encode("INCR", "n") * 3 + encode("EXEC")
        )
        client.half_close()
        assert client.read_to_end() == (
            b"+OK\r\n+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n:2\r\n:3\r\n:4\r\n"
        )


def test_a_half_closed_client_gets_a_big_reply(proxied):
    """More than the server itself does: it drops what it could not write before the FIN."""
    value = random.Random(1).randbytes(16 * 1024 * 1024)
    with proxied.connect(timeout=60) as client:
        client.raw("SET", "big", value)
        client.send_bytes(encode("GET", "big") + encode("ECHO", "behind"))
        client.half_close()
        assert client.read_to_end() == bulk(value) + bulk("behind")


def test_a_client_that_half_closes_right_after_a_big_upload_gets_its_reply(gateway):
    value = random.Random(2).randbytes(8 * 1024 * 1024)
    with gateway.connect(timeout=60) as client, gateway.connect(timeout=60) as other:
        client.send_bytes(encode("SET", "up", value))
        client.half_close()
        assert client.read_to_end() == b"+OK\r\n"
        assert other.raw("GET", "up") == bulk(value)


def test_a_half_closed_client_with_half_a_command_runs_the_whole_ones_only(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        client.send_bytes(encode("SET", "whole", 1) + b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n")
        client.half_close()
        assert client.read_to_end() == b"+OK\r\n"
        assert other.raw("EXISTS", "whole", "half") == b":1\r\n"


def test_a_half_closed_client_gets_every_reply_of_a_watched_transaction(gateway):
    with gateway.connect() as client:
        client.raw("WATCH", "w")
        client.send_bytes(
            encode("GET", "w") + encode("MULTI") + encode("SET", "w", 1) + encode("EXEC")
            + encode("GET", "w")
        )
        client.half_close()
        assert client.read_to_end() == (
            b"$-1\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n" + bulk(1)
        )


def test_a_half_closed_client_gets_what_its_blocking_commands_found(gateway):
    with gateway.connect() as client:
        client.send_bytes(
            encode("RPUSH", "q", "a", "b") + encode("BLPOP", "q", 0) + encode("BRPOP", "q", 0)
            + encode("LLEN", "q")
        )
        client.half_close()
        pair = b"*2\r\n" + bulk("q")
        assert client.read_to_end() == b":2\r\n" + pair + bulk("a") + pair + bulk("b") + b":0\r\n"


def test_a_half_closed_client_that_waits_is_gone_and_swallows_nothing(gateway):
    """As the server has it: a client that can say no more is no reason to wait."""
    with gateway.connect() as client, gateway.connect() as other:
        client.send_bytes(encode("ECHO", "before") + encode("BLPOP", "q", 0))
        assert client.read_raw() == bulk("before")
        client.half_close()
        assert client.read_to_end() == b""
        assert other.raw("RPUSH", "q", "a") == b":1\r\n"
        assert other.raw("LRANGE", "q", 0, -1) == b"*1\r\n" + bulk("a")


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_half_closed_client_gets_the_confirmation_of_its_subscriptions(gateway, protocol):
    with gateway.connect(protocol=protocol) as client:
        client.send_bytes(
            encode("ECHO", "before") + encode("SUBSCRIBE", "one", "two") + encode("UNSUBSCRIBE")
        )
        client.half_close()
        received = client.read_to_end()
        assert received.startswith(bulk("before"))
        assert received.count(b"subscribe\r\n") == 4
        assert received.endswith(b":0\r\n")


def test_a_half_close_with_nothing_owed_ends_the_session(gateway):
    with gateway.connect() as client:
        client.raw("PING")
        client.half_close()
        assert client.read_to_end() == b""


def test_short_lived_clients_are_all_served(gateway):
    def work(number: int):
        for turn in range(100):
            with Client(gateway.address()) as client:
                if gateway.login():
                    client.raw("AUTH", *gateway.login())
                token = f"{number}/{turn}"
                assert client.raw("ECHO", token) == bulk(token)

    together(work, zip(range(8)))
