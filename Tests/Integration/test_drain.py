"""SIGTERM and SIGINT: no new clients, all replies that are owed, then exit code 0."""

import signal
import threading
import time

import pytest

from harness import verifier
from harness.proxy import Listener, Upstream
from harness.resp import Client, ConnectionClosed, bulk, encode, eventually
from harness.verifier import Plan


@pytest.fixture(params=["multiplexed", "dedicated"])
def mode(request):
    return request.param


def start(start_proxy, server, mode="multiplexed", **settings):
    return start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app", mode)],
        **settings,
    )


def refuses(proxy) -> bool:
    try:
        with Client(proxy.listeners[0].address, timeout=2) as client:
            return client.read_to_end() == b""
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_proxy_without_clients_ends_at_once_with_zero(server, start_proxy, number):
    proxy = start(start_proxy, server)
    started = time.monotonic()
    assert proxy.stop(number) == 0
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_replies_owed_are_delivered_and_idle_clients_closed(server, start_proxy, mode, number):
    proxy = start(start_proxy, server, mode, drain_timeout="20s")
    with proxy.connect() as idle, proxy.connect() as busy:
        assert idle.raw("PING") == b"+PONG\r\n"
        assert busy.raw("PING") == b"+PONG\r\n"
        busy.send_bytes(
            encode("DEBUG", "SLEEP", "1.5")
            + b"".join(encode("ECHO", index) for index in range(500))
        )
        time.sleep(0.3)
        proxy.process.send_signal(number)
        assert idle.read_to_end() == b""
        eventually(lambda: refuses(proxy), 1, "new clients are refused")
        assert proxy.process.is_running
        expected = b"+OK\r\n" + b"".join(bulk(index) for index in range(500))
        assert busy.read_to_end() == expected
        started = time.monotonic()
        assert proxy.process.wait() == 0
        assert time.monotonic() - started < 2


def test_what_never_ends_is_ended_by_the_drain_timeout(server, start_proxy, mode):
    proxy = start(start_proxy, server, mode, drain_timeout="1s")
    with proxy.connect() as client:
        client.send("BLPOP", "never-there", 0)
        eventually(lambda: any("b" in c["flags"] for c in server.connections("app")), what="blocks")
        started = time.monotonic()
        assert proxy.stop() == 0
        assert 0.8 < time.monotonic() - started < 4
        assert client.read_to_end() == b""
    eventually(
        lambda: not any("b" in c["flags"] for c in server.connections("app")),
        what="the blocked connection is gone",
    )


def test_a_big_reply_on_its_way_is_finished(server, start_proxy, mode):
    proxy = start(start_proxy, server, mode, drain_timeout="30s")
    value = b"b" * (64 * 1024 * 1024)
    with proxy.connect(timeout=60) as client:
        assert client.raw("SET", "big", value) == b"+OK\r\n"
        client.send("GET", "big")
        assert client.read_exactly(11) == b"$67108864\r\n"
        proxy.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert client.read_to_end() == value + b"\r\n"
        assert proxy.process.wait() == 0


def test_a_drain_under_load_gives_no_wrong_reply(server, start_proxy, mode):
    proxy = start(start_proxy, server, mode)
    failures, counts = [], []

    def work(number: int):
        done = 0
        try:
            client = proxy.connect()
            while True:
                tokens = [f"{number}:{done + index}" for index in range(50)]
                client.send_bytes(b"".join(encode("ECHO", token) for token in tokens))
                for token in tokens:
                    raw = client.read().raw
                    if raw != bulk(token):
                        failures.append((number, done, raw))
                        return
                    done += 1
        except (ConnectionClosed, OSError):
            counts.append(done)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    assert proxy.stop() == 0
    for thread in threads:
        thread.join(10)
    assert not failures
    assert len(counts) == 10 and min(counts) > 0


def test_a_drain_while_the_server_is_away_ends_in_time(start_server, start_proxy):
    server = start_server(start=False)
    proxy = start(start_proxy, server, drain_timeout="1s", upstream_wait="30s")
    with proxy.connect() as client:
        client.send("PING")
        time.sleep(0.2)
        started = time.monotonic()
        assert proxy.stop() == 0
        assert time.monotonic() - started < 5


def test_after_a_drain_nothing_of_the_proxy_is_left_upstream(server, start_proxy, mode):
    server.add_user("drained")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"drained": server.passwords["drained"]},
        [Listener("drained", mode)],
    )
    plan = Plan(addresses=(proxy.listeners[0].address,), clients=10, commands=200, prefix="drain")
    verifier.check(verifier.run(plan), plan)
    assert proxy.stop() == 0
    eventually(lambda: not server.connections("drained"), what="all connections are closed")
