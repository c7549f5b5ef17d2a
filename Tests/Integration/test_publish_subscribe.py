"""Subscriptions deliver every message, in order, to the subscriber alone."""

import random
import threading

import pytest

from harness.resp import Push, bulk, encode, eventually


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


def subscribe(client, *channels, protocol: int = 2) -> None:
    client.send("SUBSCRIBE", *channels)
    for index, channel in enumerate(channels):
        assert client.read().raw == frame(protocol, "subscribe", channel, index + 1)


def unsubscribe(client, *channels, protocol: int = 2) -> None:
    client.send("UNSUBSCRIBE", *channels)
    for index, channel in enumerate(channels):
        left = len(channels) - index - 1
        assert client.read().raw == frame(protocol, "unsubscribe", channel, left)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("size", [1_000_000, 70_000])
def test_big_messages_arrive_whole(gateway, protocol, size):
    message = bytes(random.Random(size).randbytes(size))
    with gateway.connect(protocol=protocol) as subscriber, gateway.connect() as sender:
        subscribe(subscriber, "big", "small", protocol=protocol)
        for index in range(5):
            sender.pipeline(("PUBLISH", "big", message), ("PUBLISH", "small", index))
        for index in range(5):
            assert subscriber.read().raw == frame(protocol, "message", "big", message)
            assert subscriber.read().raw == frame(protocol, "message", "small", str(index))
        unsubscribe(subscriber, "big", "small", protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3])
def test_each_message_between_confirmations_arrives_once(gateway, protocol):
    """The number of receivers that PUBLISH answers says who must get the message."""
    channels = [f"c{index}" for index in range(8)]
    dice = random.Random(protocol)
    wanted = {channel: [] for channel in channels}
    over = threading.Event()

    def publish():
        with gateway.connect() as sender:
            number = 0
            while not over.is_set() or number % 50:
                batch = [(channels[number % 8], number + index) for index in range(50)]
                batch = [(channels[n % 8], n) for _, n in batch]
                sender.send_bytes(b"".join(encode("PUBLISH", *item) for item in batch))
                for channel, n in batch:
                    if sender.read().value:
                        wanted[channel].append(n)
                number += 50

    publisher = threading.Thread(target=publish)
    got = {channel: [] for channel in channels}
    subscribed = set()
    with gateway.connect(protocol=protocol, timeout=30) as client:
        publisher.start()
        try:
            for _ in range(400):
                owed = 0
                for _ in range(dice.randrange(1, 5)):
                    names = dice.sample(channels, dice.randrange(1, 4))
                    word = dice.choice(["SUBSCRIBE", "UNSUBSCRIBE"])
                    client.send(word, *names)
                    owed += len(names)
                if dice.random() < 0.3:
                    client.send("UNSUBSCRIBE", *channels)
                    owed += len(channels)
                while owed:
                    word, channel, value = client.read().value
                    channel = channel.decode()
                    if word == b"message":
                        assert channel in subscribed
                        got[channel].append(int(value))
                        continue
                    owed -= 1
                    (subscribed.add if word == b"subscribe" else subscribed.discard)(channel)
                    assert value == len(subscribed)
                if not subscribed:
                    assert client.raw("ECHO", "x") == bulk("x")
        finally:
            over.set()
            publisher.join()
        client.send("UNSUBSCRIBE", *channels)
        owed = len(channels)
        while owed:
            word, channel, value = client.read().value
            if word == b"message":
                got[channel.decode()].append(int(value))
            else:
                owed -= 1
        assert got == wanted
        assert sum(map(len, got.values())) > 500
        assert client.raw("PING") == b"+PONG\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_connections_are_given_back_behind_the_last_unsubscription(proxied, protocol):
    used = set()
    for index in range(60):
        with proxied.connect(protocol=protocol) as client, proxied.connect() as sender:
            subscribe(client, "c", protocol=protocol)
            used |= {fields["id"] for fields in proxied.server.connections("app")
                     if int(fields["sub"]) > 0}
            assert sender.raw("PUBLISH", "c", index) == b":1\r\n"
            assert client.read().raw == frame(protocol, "message", "c", str(index))
            unsubscribe(client, "c", protocol=protocol)
            assert client.raw("ECHO", index) == bulk(index)
    if proxied.name == "multiplexed":
        assert len(used) == 1
    assert not any(int(fields["sub"]) for fields in proxied.server.connections("app"))


def test_nothing_reaches_the_next_client_of_the_connection(proxied):
    over = threading.Event()

    def publish():
        with proxied.connect() as sender:
            while not over.is_set():
                sender.pipeline(*[("PUBLISH", f"c{n % 4}", n) for n in range(100)])

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        for index in range(150):
            protocol = 2 + index % 2
            with proxied.connect(protocol=protocol) as client:
                client.send_bytes(
                    encode("SUBSCRIBE", "c0", "c1", "c2") + encode("UNSUBSCRIBE", "c0", "c1", "c2")
                )
                left = 6
                while left:
                    left -= client.read().value[0] != b"message"
                with proxied.connect(protocol=protocol) as other:
                    assert other.raw("WATCH", "k") == b"+OK\r\n"
                    assert other.raw("ECHO", index) == bulk(index)
                    assert other.raw("UNWATCH") == b"+OK\r\n"
                assert client.raw("ECHO", index) == bulk(index)
    finally:
        over.set()
        publisher.join()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_subscriber_is_served_in_RESP3(proxied, protocol):
    with proxied.connect(protocol=protocol) as client:
        subscribe(client, "c", protocol=protocol)
        found = [
            fields for fields in proxied.server.connections("app") if int(fields["sub"]) > 0
        ]
        assert [fields["resp"] for fields in found] == ["3"]
        unsubscribe(client, "c", protocol=protocol)
        client.send("WATCH", "k")
        client.read()
        own = {fields["id"]: fields["resp"] for fields in proxied.server.connections("app")}
        assert own[found[0]["id"]] == str(protocol)


@pytest.mark.parametrize(
    "command",
    [
        ("AUTH",), ("AUTH", "x"), ("AUTH", "default", "x"), ("AUTH", "x", "y", "z"), ("HELLO",),
        ("HELLO", "3"), ("HELLO", "9"), ("HELLO", "3", "AUTH", "default", "x"), ("GET", "k"),
        ("RESET", "x"), ("CLIENT", "REPLY", "OFF"), ("CLIENT", "TRACKING", "ON"), ("WATCH", "k"),
        ("DISCARD",), ("BLPOP", "k", "0"), ("CLIENT", "NOSUCH"), ("PSYNC", "?", "-1"),
    ],
    ids=" ".join,
)
def test_each_command_is_refused_to_a_RESP2_subscriber_as_by_the_server(proxied, direct, command):
    answers = []
    for gateway in (direct, proxied):
        with gateway.connect() as client, gateway.connect() as sender:
            subscribe(client, "c")
            answer = client.raw(*command)
            assert sender.raw("PUBLISH", "c", "x") == b":1\r\n"
            answer += client.read().raw + client.raw("PING") + client.raw("UNSUBSCRIBE")
            answers.append(answer + client.raw("ECHO", "x"))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("user", ["tenant", "category", "producer", "keyless"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_refused_channels_are_answered_once_for_the_command(gateway, user, protocol):
    with gateway.connect(user, protocol=protocol) as client:
        for _ in range(2):
            for word in ("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"):
                client.send_bytes(encode(word, "tenant:a", "b", "c") + encode("NOSUCH"))
                answer = client.read().raw
                assert answer.startswith(b"-NOPERM "), answer
                assert client.read().raw.startswith(b"-ERR unknown command")
    assert not any(
        int(fields["sub"]) + int(fields["psub"]) for fields in gateway.server.connections(user)
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_limited_user_can_subscribe_and_unsubscribe(gateway, protocol):
    gateway.server.ask("ACL", "SETUSER", "keyless", "-@all", "+subscribe", "+unsubscribe", "&c")
    try:
        with gateway.connect("keyless", protocol=protocol) as client, gateway.connect() as sender:
            for index in range(3):
                subscribe(client, "c", protocol=protocol)
                assert sender.raw("PUBLISH", "c", index) == b":1\r\n"
                assert client.read().raw == frame(protocol, "message", "c", str(index))
                assert client.raw("PING").startswith(b"-NOPERM ")
                assert client.raw("UNSUBSCRIBE") == frame(protocol, "unsubscribe", "c", 0)
                assert client.raw("GET", "k").startswith(b"-NOPERM ")
    finally:
        gateway.server.ask("ACL", "SETUSER", "keyless", "resetkeys", "resetchannels", "+@all")


def test_messages_inside_replies_of_a_RESP3_client_take_no_place(gateway):
    gateway.server.ask("CONFIG", "SET", "notify-keyspace-events", "KEA")
    try:
        with gateway.connect(protocol=3) as client:
            client.send("PSUBSCRIBE", "__key*__:*")
            client.read()
            client.send("ZADD", "z", 1, "a", 2, "b")
            replies = [client.read().value for _ in range(3)]
            assert [reply for reply in replies if not isinstance(reply, Push)] == [2]
            client.send("ZPOPMIN", "z", 2)
            client.send("MULTI")
            client.send("SET", "k", "v")
            client.send("PUBLISH", "x", "y")
            client.send("EXEC")
            client.send("ECHO", "behind")
            # A strict reader counts messages as elements, where the server does not.
            received = b""
            while bulk("behind") not in received:
                received += client.socket.recv(65536)
            assert b"*2\r\n>4\r\n" in received
            assert received.endswith(bulk("behind"))
            client.send("PUNSUBSCRIBE")
            assert client.read().raw == frame(3, "punsubscribe", "__key*__:*", 0)
            assert client.raw("PING") == b"+PONG\r\n"
    finally:
        gateway.server.ask("CONFIG", "SET", "notify-keyspace-events", "")


@pytest.mark.parametrize("protocol", [2, 3])
def test_invalidations_that_another_redirects_arrive(gateway, protocol):
    with gateway.connect(protocol=protocol) as listener, gateway.connect() as tracker:
        number = listener.value("CLIENT", "ID")
        listener.send("SUBSCRIBE", "__redis__:invalidate")
        listener.read()
        assert tracker.raw("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
        for value in range(3):
            tracker.raw("GET", "k")
            with gateway.connect() as writer:
                writer.raw("SET", "k", value)
            got = listener.read().raw
            if protocol == 2:
                assert got == (
                    b"*3\r\n" + bulk("message") + bulk("__redis__:invalidate") + b"*1\r\n"
                    + bulk("k")
                )
            else:
                assert got == b">2\r\n" + bulk("invalidate") + b"*1\r\n" + bulk("k")
        listener.send("UNSUBSCRIBE")
        listener.read()
        assert listener.raw("ECHO", "x") == bulk("x")


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("word", ["RESET", "QUIT"])
def test_messages_that_were_published_come_before_the_end(gateway, protocol, word):
    message = bytes(300_000)
    with gateway.connect() as sender:
        for _ in range(10):
            with gateway.connect(protocol=protocol) as client:
                subscribe(client, "c", protocol=protocol)
                assert sender.raw("PUBLISH", "c", message) == b":1\r\n"
                client.send(word)
                assert client.read().raw == frame(protocol, "message", "c", message)
                if word == "QUIT":
                    assert client.read_to_end() == b"+OK\r\n"
                else:
                    assert client.read().raw == b"+RESET\r\n"


def test_watch_outlives_a_subscription(gateway):
    with gateway.connect() as client, gateway.connect() as other:
        for change in (True, False):
            assert client.raw("WATCH", "k") == b"+OK\r\n"
            subscribe(client, "c")
            if change:
                other.raw("SET", "k", "changed")
            unsubscribe(client, "c")
            answer = client.pipeline(("MULTI",), ("GET", "k"), ("EXEC",))
            tail = b"*-1\r\n" if change else b"*1\r\n" + bulk("changed")
            assert answer == b"+OK\r\n+QUEUED\r\n" + tail


def test_many_names_in_one_command(gateway):
    names = [f"channel:{index}" for index in range(3000)]
    with gateway.connect() as client:
        for word in ("subscribe", "unsubscribe"):
            client.send(word, *names)
            for index, name in enumerate(names):
                total = index + 1 if word == "subscribe" else len(names) - index - 1
                assert client.read().raw == frame(2, word, name, total)
        assert client.raw("ECHO", "x") == bulk("x")
        client.send("SUBSCRIBE", *names[:500])
        client.send("UNSUBSCRIBE")
        replies = [client.read().value for _ in range(1000)]
        assert [reply[2] for reply in replies] == [*range(1, 501), *reversed(range(500))]
        assert {reply[1].decode() for reply in replies[500:]} == set(names[:500])
        assert client.raw("ECHO", "x") == bulk("x")


def test_a_subscriber_that_does_not_read_costs_bounded_memory(proxied, shared_proxy):
    def resident() -> int:
        with open(f"/proc/{shared_proxy.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    message = bytes(1_000_000)
    with proxied.connect(timeout=60) as client, proxied.connect(timeout=60) as sender:
        subscribe(client, "c")
        before = resident()
        for _ in range(25):
            sender.raw("PUBLISH", "c", message)
        assert resident() - before < 12_000
        for _ in range(25):
            assert client.read().raw == frame(2, "message", "c", message)
        unsubscribe(client, "c")
        assert client.raw("ECHO", "x") == bulk("x")
