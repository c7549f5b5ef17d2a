"""Users of every kind of access string: the proxy's own commands need no permission."""

import random
import threading
import time

import pytest

from harness.resp import ConnectionClosed, bulk, encode
from harness.server import ACCESS_STRINGS
from harness.together import together

PROBES = [
    ("GET", "k"), ("SET", "k", "v"), ("GET", "tenant:k"), ("SET", "tenant:k", "v"),
    ("GET", "a:k"), ("SET", "a:k", "v"), ("GET", "b:k"), ("SET", "b:k", "v"), ("PING",),
    ("ECHO", "x"), ("SELECT", 1), ("SELECT", 0), ("SELECT", 99), ("CLIENT", "SETNAME", "n"),
    ("CLIENT", "GETNAME"), ("CLIENT", "SETINFO", "lib-name", "x"), ("CONFIG", "GET", "maxclients"),
    ("CONFIG", "SET", "nosuch", "x"), ("MGET", "k", "tenant:k"), ("PUBLISH", "c", "m"),
    ("PUBLISH", "tenant:c", "m"), ("WATCH", "k"), ("UNWATCH",), ("MULTI",), ("DISCARD",),
    ("EVAL", "return 1", 0), ("DBSIZE",), ("KEYS", "nothing*"), ("NOSUCH", "x"), ("GET",),
    ("ACL", "WHOAMI"), ("BLPOP", "k2", "0.01"), ("WAIT", 0, 1), ("CLIENT", "NO-EVICT", "off"),
    ("COMMAND", "COUNT"), ("DEL", "k"), ("OBJECT", "ENCODING", "nokey"), ("TYPE", "k"),
    ("SCRIPT", "EXISTS", "x"), ("MEMORY", "USAGE", "nokey"), ("CLIENT", "REPLY", "ON"),
    ("XREAD", "COUNT", 1, "STREAMS", "s", "0"), ("GET", "k"),
]

USERS = [user for user in ACCESS_STRINGS if user != "admin"]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("protocol", [2, 3])
def test_every_verdict_on_permissions_is_the_servers(proxied, direct, user, protocol):
    with direct.connect(user, protocol) as there, proxied.connect(user, protocol) as here:
        for command in PROBES:
            assert here.raw(*command) == there.raw(*command), command
        expected = there.raw("SUBSCRIBE", "tenant:c", "c")
        assert here.raw("SUBSCRIBE", "tenant:c", "c") == expected


@pytest.mark.parametrize("user", USERS)
def test_a_pipeline_of_allowed_and_forbidden_commands_is_answered_in_order(proxied, direct, user):
    plain = [command for command in PROBES if command[0] not in ("BLPOP", "WATCH", "WAIT")]
    with direct.connect(user) as there, proxied.connect(user) as here:
        assert here.pipeline(*plain * 5) == there.pipeline(*plain * 5)


@pytest.mark.parametrize("user", USERS)
def test_a_transaction_of_a_restricted_user_answers_as_on_the_server(proxied, direct, user):
    script = [("MULTI",), ("SET", "k", 1), ("GET", "k"), ("EXEC",), ("GET", "k"), ("DISCARD",)]
    with direct.connect(user) as there, proxied.connect(user) as here:
        assert here.pipeline(*script) == there.pipeline(*script)
    with direct.connect(user) as there, proxied.connect(user) as here:
        for command in script:
            assert here.raw(*command) == there.raw(*command), command


@pytest.mark.parametrize("user", USERS)
def test_hello_auth_quit_and_reset_need_no_permission(proxied, user):
    with proxied.connect(user) as client:
        assert client.value("HELLO", 3)[b"proto"] == 3
        assert client.value("HELLO", 2)[5] == 2
        assert client.raw("AUTH", "default", "x") == b"+OK\r\n"
        assert client.raw("RESET") == b"+RESET\r\n"
        assert client.raw("QUIT") == b"+OK\r\n"
        assert client.read_to_end() == b""


def test_a_producer_and_a_consumer_work_together(gateway):
    with gateway.connect("producer") as producer, gateway.connect("consumer") as consumer:
        for index in range(100):
            assert producer.raw("SET", "shared", index) == b"+OK\r\n"
            assert consumer.raw("GET", "shared") == bulk(index)
        assert b"NOPERM" in producer.raw("GET", "shared")
        assert b"NOPERM" in consumer.raw("SET", "shared", "x")
        assert consumer.raw("GET", "shared") == bulk(99)


def test_users_never_get_each_others_permissions(gateway):
    """Many clients of users with different rights at once, on one proxy."""

    def work(user: str, allowed: tuple, forbidden: tuple):
        for _ in range(10):
            with gateway.connect(user) as client:
                for _ in range(10):
                    client.send_bytes(encode(*allowed) + encode(*forbidden))
                    assert not client.read().is_error
                    assert b"NOPERM" in client.read().raw

    plans = [
        ("producer", ("SET", "k", "v"), ("GET", "k")),
        ("consumer", ("GET", "k"), ("SET", "k", "v")),
        ("tenant", ("SET", "tenant:k", "v"), ("SET", "k", "v")),
        ("reader", ("GET", "k"), ("SET", "k", "v")),
        ("selector", ("SET", "b:k", "v"), ("SET", "a:k", "v")),
        ("category", ("GET", "k"), ("SET", "k", "v")),
    ]
    together(work, plans * 2)


@pytest.mark.parametrize("user", USERS)
def test_a_restricted_user_notices_no_loss_of_idle_connections(server, shared_proxy, user):
    with shared_proxy.by_mode["multiplexed"][user].connect() as client:
        before = client.raw("GET", "k")
        for _ in range(3):
            assert server.lose_connections(user) >= 1
            assert client.raw("GET", "k") == before


@pytest.mark.parametrize("user", ["consumer", "producer"])
@pytest.mark.parametrize("lossy", [False, True], ids=["", "with losses"])
def test_fifty_restricted_clients_get_the_right_reply_to_every_command(proxied, user, lossy):
    """Users of one command each: nothing the proxy does for them may need another."""
    server, clients, seconds = proxied.server, 50, 1.5
    with server.admin() as admin:
        for number in range(clients):
            admin.value("SET", f"own:{number}", f"value of {number}")
    failures, answered = [], []

    def command(dice, number):
        if dice.random() < 0.1:
            other = "get" if user == "producer" else "set"
            denied = f"-NOPERM this user has no permissions to run the '{other}' command\r\n"
            return encode(other, f"own:{number}", *([] if other == "get" else ["x"])), (
                denied.encode()
            )
        if user == "consumer":
            return encode("GET", f"own:{number}"), bulk(f"value of {number}")
        # The reply to SET … GET would tell more, but needs the right to GET.
        return encode("SET", f"own:{number}", f"value of {number}"), b"+OK\r\n"

    def work(number: int, deadline: float):
        dice = random.Random(number)
        try:
            while time.monotonic() < deadline:
                with proxied.connect(user) as client:
                    try:
                        while time.monotonic() < deadline:
                            units = [command(dice, number) for _ in range(dice.randint(1, 60))]
                            client.send_bytes(b"".join(unit[0] for unit in units))
                            expected = b"".join(unit[1] for unit in units)
                            got = client.read_exactly(len(expected))
                            if got != expected:
                                failures.append((number, got[:200], expected[:200]))
                                return
                            answered.append(len(units))
                    except (ConnectionClosed, ConnectionResetError, BrokenPipeError) as error:
                        if not lossy:
                            failures.append((number, repr(error)))
                            return
        except Exception as error:
            failures.append((number, repr(error)))

    deadline = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(n, deadline)) for n in range(clients)]
    for thread in threads:
        thread.start()
    while lossy and time.monotonic() < deadline:
        time.sleep(0.15)
        server.kill_connections(user)
    for thread in threads:
        thread.join()
    assert not failures, failures[:3]
    assert sum(answered) > 1000
