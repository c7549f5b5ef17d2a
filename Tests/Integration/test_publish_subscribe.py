"""Subscriptions deliver every message, in order, to the subscriber alone."""

import pytest

from harness.resp import bulk, encode, eventually


def subscribers(gateway, channel: str) -> int:
    return gateway.server.ask("PUBSUB", "NUMSUB", channel)[1]


def frame(protocol: int, *parts) -> bytes:
    head = b"%s%d\r\n" % (b">" if protocol == 3 else b"*", len(parts))
    return head + b"".join(
        b":%d\r\n" % part if isinstance(part, int) else bulk(part) for part in parts
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_every_message_between_subscribe_and_unsubscribe_arrives_in_order(gateway, protocol):
    with gateway.connect(protocol=protocol) as subscriber, gateway.connect() as publisher:
        subscriber.send("SUBSCRIBE", "news")
        assert subscriber.read().raw == frame(protocol, "subscribe", "news", 1)
        for start in range(0, 1000, 100):
            publisher.pipeline(*[("PUBLISH", "news", n) for n in range(start, start + 100)])
        for index in range(1000):
            assert subscriber.read().raw == frame(protocol, "message", "news", str(index))
        subscriber.send("UNSUBSCRIBE", "news")
        assert subscriber.read().raw == frame(protocol, "unsubscribe", "news", 0)
        assert publisher.raw("PUBLISH", "news", "late") == b":0\r\n"
        assert subscriber.raw("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_several_channels_are_confirmed_one_by_one(gateway, protocol):
    with gateway.connect(protocol=protocol) as subscriber:
        subscriber.send("SUBSCRIBE", "a", "b", "a", "c")
        expected = [("a", 1), ("b", 2), ("a", 2), ("c", 3)]
        for channel, count in expected:
            assert subscriber.read().raw == frame(protocol, "subscribe", channel, count)
        subscriber.send("PSUBSCRIBE", "p*")
        assert subscriber.read().raw == frame(protocol, "psubscribe", "p*", 4)
        subscriber.send("UNSUBSCRIBE")
        counts = [subscriber.read().value[2] for _ in range(3)]
        assert counts == [3, 2, 1]
        subscriber.send("PUNSUBSCRIBE")
        assert subscriber.read().raw == frame(protocol, "punsubscribe", "p*", 0)
        assert subscriber.raw("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("command", ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"])
def test_unsubscribe_without_a_subscription_is_answered(gateway, protocol, command):
    null = b"_\r\n" if protocol == 3 else b"$-1\r\n"
    kind = b">3\r\n" if protocol == 3 else b"*3\r\n"
    with gateway.connect(protocol=protocol) as client:
        client.send_bytes(encode(command) + encode("ECHO", "behind"))
        assert client.read().raw == kind + bulk(command.lower()) + null + b":0\r\n"
        assert client.read().raw == bulk("behind")
        client.send(command, "x")
        assert client.read().raw == frame(protocol, command.lower(), "x", 0)
        assert client.raw("PING") == b"+PONG\r\n"


def test_patterns_and_shards_deliver(gateway):
    with gateway.connect() as patterns, gateway.connect() as shards, gateway.connect() as sender:
        patterns.send("PSUBSCRIBE", "news.*")
        assert patterns.read().raw == frame(2, "psubscribe", "news.*", 1)
        shards.send("SSUBSCRIBE", "shard")
        assert shards.read().raw == frame(2, "ssubscribe", "shard", 1)
        assert sender.raw("PUBLISH", "news.a", "x") == b":1\r\n"
        assert patterns.read().raw == frame(2, "pmessage", "news.*", "news.a", "x")
        assert sender.raw("SPUBLISH", "shard", "y") == b":1\r\n"
        assert shards.read().raw == frame(2, "smessage", "shard", "y")


def test_a_subscribed_RESP2_client_is_limited_as_on_the_server(proxied, direct):
    with direct.connect() as there, proxied.connect() as here:
        for client in (there, here):
            client.send("SUBSCRIBE", "c")
            client.read()
        for command in [
            ("PING",), ("PING", "x"), ("PING", "x", "y"), ("GET", "k"), ("GET",), ("NOSUCH",),
            ("CLIENT", "ID"), ("CLIENT", "GETNAME"), ("HELLO",), ("SELECT", "1"), ("MULTI",),
            ("EXEC",), ("SUBSCRIBE",), ("PUBLISH", "c", "x"), ("MONITOR",),
        ]:
            assert here.raw(*command) == there.raw(*command), command
        assert here.raw("RESET") == there.raw("RESET") == b"+RESET\r\n"
        assert here.raw("PING") == b"+PONG\r\n"


def test_quit_leaves_the_subscribed_state(gateway):
    with gateway.connect() as client:
        client.send("SUBSCRIBE", "c")
        client.read()
        client.send("QUIT")
        assert client.read_to_end() == b"+OK\r\n"


def test_a_RESP3_subscriber_can_use_every_command(gateway):
    with gateway.connect(protocol=3) as client:
        client.send("SUBSCRIBE", "c")
        assert client.read().raw == frame(3, "subscribe", "c", 1)
        assert client.raw("SET", "k", "v") == b"+OK\r\n"
        assert client.raw("GET", "k") == bulk("v")
        client.send("PUBLISH", "c", "to myself")
        frames = sorted([client.read().raw, client.read().raw])
        assert frames == sorted([frame(3, "message", "c", "to myself"), b":1\r\n"])


def test_subscribing_in_a_pipeline_keeps_the_order(gateway):
    with gateway.connect() as client:
        client.send_bytes(
            encode("SET", "k", 1) + encode("SUBSCRIBE", "a", "b") + encode("PING")
            + encode("UNSUBSCRIBE", "a") + encode("UNSUBSCRIBE", "b") + encode("GET", "k")
        )
        assert client.read_raw(7) == (
            b"+OK\r\n" + frame(2, "subscribe", "a", 1) + frame(2, "subscribe", "b", 2)
            + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" + frame(2, "unsubscribe", "a", 1)
            + frame(2, "unsubscribe", "b", 0) + bulk("1")
        )


def test_messages_reach_subscribers_alone(gateway):
    with gateway.connect() as subscriber, gateway.connect() as plain, gateway.connect() as sender:
        subscriber.send("SUBSCRIBE", "c")
        subscriber.read()
        for index in range(200):
            assert sender.raw("PUBLISH", "c", index) == b":1\r\n"
            assert plain.raw("ECHO", index) == bulk(index)
        for index in range(200):
            assert subscriber.read().raw == frame(2, "message", "c", str(index))


def test_a_subscriber_that_leaves_is_forgotten(gateway):
    for way in ("close", "abort"):
        client = gateway.connect()
        client.send("SUBSCRIBE", "gone")
        client.read()
        assert subscribers(gateway, "gone") == 1
        client.abort() if way == "abort" else client.close()
        eventually(lambda: subscribers(gateway, "gone") == 0, what="the subscription ended")


def test_a_subscriber_does_not_lose_a_big_message(gateway):
    message = bytes(range(256)) * 40_000
    with gateway.connect() as subscriber, gateway.connect(timeout=30) as sender:
        subscriber.send("SUBSCRIBE", "big")
        subscriber.read()
        assert sender.raw("PUBLISH", "big", message) == b":1\r\n"
        assert subscriber.read().value == [b"message", b"big", message]
