"""The stand-in for ElastiCache (harness/elasticache.py) does what the tests that use it rely on."""

import random
import time

import pytest

from harness.elasticache import (
    LOST_ERROR, REFUSED_BY_ORDER, REFUSED_IN_TRANSACTION, REFUSED_SUBSCRIBED, REMOVED, THROTTLED,
    WRONG_PASSWORD,
)
from harness.iam import ACCEPTED, AccessKey, Cache, mint
from harness.passwords import new_password
from harness.resp import Client, ConnectionClosed, bulk, encode, eventually
from harness.server import ValkeyServer

CACHE = Cache("cache-01", "eu-central-1")
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION_KEY = AccessKey("ASIDEXAMPLE", "an/other+secret", "FwoGZXIvYXdz+token/with=signs==")

WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
OK = b"+OK\r\n"


@pytest.fixture
def start(start_elasticache):
    def start(cache=CACHE, **settings):
        front = start_elasticache(cache, **settings)
        front.trust(KEY)
        front.trust(SESSION_KEY)
        return front

    return start


@pytest.fixture(scope="module")
def shared(module_elasticache):
    front = module_elasticache(CACHE)
    front.trust(KEY)
    front.trust(SESSION_KEY)
    return front


@pytest.fixture
def front(shared):
    shared.forget()
    return shared


def connect(front) -> Client:
    return Client(front.address, tls=front.client_context)


def logged_in(front, protocol: int = 2) -> Client:
    client = connect(front)
    token = mint(KEY, front.cache, "app")
    if protocol == 2:
        assert client.raw("AUTH", "app", token) == OK
    else:
        assert client.raw("HELLO", 3, "AUTH", "app", token).startswith(b"%")
    return client


# Tokens


@pytest.mark.parametrize("key", [KEY, SESSION_KEY], ids=lambda key: key.id)
@pytest.mark.parametrize(
    "words", [("AUTH", "app"), ("HELLO", 3, "AUTH", "app"), ("hello", 2, "setname", "x", "auth",
    "app")], ids=lambda words: " ".join(map(str, words)),
)
def test_a_good_token_logs_in(front, key, words):
    with connect(front) as client:
        assert client.raw("PING") == b"-NOAUTH Authentication required.\r\n"
        assert client.raw(*words, mint(key, CACHE, "app"))[:1] in (b"+", b"%", b"*")
        assert client.value("ACL", "WHOAMI") == b"app"
    assert front.results() == {ACCEPTED: 1}
    assert [early["command"] for early in front.report()["too_early"]] == ["PING"]


def _tampered(token: str) -> str:
    return token[:-1] + ("0" if token[-1] != "0" else "1")


WRONG = {
    "signed for the cache cache-02": lambda: mint(KEY, CACHE, "app", name="cache-02"),
    "cache name not in lower case": lambda: mint(KEY, CACHE, "app", name="Cache-01"),
    "signed for the cache cache-01.abc.example": lambda: mint(
        KEY, CACHE, "app", name="cache-01.abc.example"
    ),
    "signed for the user admin": lambda: mint(KEY, CACHE, "admin"),
    "signed for the region us-east-1": lambda: mint(KEY, CACHE, "app", region="us-east-1"),
    "signed for the service memorydb": lambda: mint(KEY, CACHE, "app", service="memorydb"),
    "ResourceType is ServerlessCache": lambda: mint(KEY, CACHE, "app", is_serverless=True),
    "X-Amz-Expires is 60": lambda: mint(KEY, CACHE, "app", expires=60),
    "unknown access key": lambda: mint(AccessKey("AKIDOTHER", KEY.secret), CACHE, "app"),
    "wrong signature": lambda: _tampered(mint(KEY, CACHE, "app")),
    "not this access key's session token": lambda: mint(
        AccessKey(SESSION_KEY.id, SESSION_KEY.secret, "stale"), CACHE, "app"
    ),
    "no presigned URL": lambda: "a password",
    "expired token": lambda: mint(KEY, CACHE, "app", at=time.time() - 901),
    "signed in the future": lambda: mint(KEY, CACHE, "app", at=time.time() + 310),
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_token_is_refused_and_the_reason_recorded(front, reason):
    with connect(front) as client:
        assert client.raw("AUTH", "app", WRONG[reason]()) == WRONGPASS
        assert client.raw("GET", "k").startswith(b"-NOAUTH")
    assert front.results() == {reason: 1}


def test_a_secret_that_signs_another_way_is_refused(front):
    forged = AccessKey(KEY.id, "another secret")
    with connect(front) as client:
        assert client.raw("AUTH", "app", mint(forged, CACHE, "app")) == WRONGPASS
    assert front.results() == {"wrong signature": 1}


@pytest.mark.parametrize(
    "cache", [Cache("serverless-01", "us-east-1", is_serverless=True),
              Cache("cluster-01", "us-gov-west-1", "memorydb")], ids=lambda cache: cache.name,
)
def test_other_kinds_of_caches_have_tokens_of_their_own(start, cache):
    front = start(cache)
    with connect(front) as client:
        wrong = mint(KEY, cache, "app", is_serverless=not cache.is_serverless)
        assert client.raw("AUTH", "app", wrong) == WRONGPASS
        assert client.raw("AUTH", "app", mint(KEY, cache, "app")) == OK


def test_the_clock_that_tokens_are_judged_by_can_be_another(front):
    token = mint(KEY, CACHE, "app")
    try:
        for offset, reply in ((890, OK), (910, WRONGPASS), (-290, OK), (-310, WRONGPASS)):
            front.set(clock_offset_seconds=offset)
            with connect(front) as client:
                assert client.raw("AUTH", "app", token) == reply
    finally:
        front.set(clock_offset_seconds=0)


def test_a_token_signed_with_a_key_that_expired_is_refused(front):
    front.trust(AccessKey("ASIDSHORT", "secret", "token", expires_at=time.time() - 1))
    short = AccessKey("ASIDSHORT", "secret", "token")
    with connect(front) as client:
        assert client.raw("AUTH", "app", mint(short, CACHE, "app")) == WRONGPASS
    assert front.results() == {"expired access key": 1}


def test_the_signatures_of_all_tokens_are_known(front):
    token = mint(KEY, CACHE, "admin")
    with connect(front) as client:
        assert client.raw("AUTH", "app", token) == WRONGPASS
    assert token[-64:] in front.signatures()


# Connections


def test_a_connection_ends_at_its_limit_and_a_renewed_one_does_not(start):
    front = start(connection_seconds=2.0)
    with logged_in(front) as renewed, logged_in(front) as forgotten:
        while not front.report()["too_old"]:
            assert renewed.raw("AUTH", "app", mint(KEY, CACHE, "app")) == OK
            time.sleep(0.1)
        with pytest.raises(ConnectionClosed):
            forgotten.read()
        assert renewed.raw("PING") == b"+PONG\r\n"
    report = front.report()
    assert [gone["connection"] for gone in report["too_old"]] == [2]
    assert 0 < report["oldest_seconds"] < 2


def test_a_refused_login_leaves_the_earlier_one_but_prolongs_nothing(start):
    front = start(connection_seconds=2.0)
    with logged_in(front) as client:
        while not front.report()["too_old"]:
            try:
                assert client.raw("AUTH", "app", "wrong") == WRONGPASS
                assert client.value("ACL", "WHOAMI") == b"app"
            except (ConnectionClosed, BrokenPipeError):
                break
            time.sleep(0.1)
    assert front.report()["too_old"]


def test_a_login_behind_a_blocking_command_takes_effect_when_that_ends(start):
    front = start(connection_seconds=2.0)
    with logged_in(front) as blocked, logged_in(front) as served:
        for client in (blocked, served):
            client.send("BLPOP", "queue", 0)
            client.send("AUTH", "app", mint(KEY, CACHE, "app"))
        with logged_in(front) as pusher:
            assert pusher.raw("RPUSH", "queue", "only") == b":1\r\n"
        assert blocked.read().value == [b"queue", b"only"]
        assert blocked.read().raw == OK
        with pytest.raises(ConnectionClosed):
            served.read()
    old = eventually(lambda: front.report()["too_old"], what="it is dropped")[0]
    assert old["connection"] == 2 and old["waits_for_login"]


def test_a_login_inside_a_transaction_is_refused_and_aborts_it(front):
    with logged_in(front) as client:
        replies = client.pipeline(
            ("MULTI",), ("SET", "k", "v"), ("AUTH", "app", mint(KEY, CACHE, "app")), ("EXEC",),
            ("AUTH", "app", mint(KEY, CACHE, "app")),
        )
        assert replies.startswith(b"+OK\r\n+QUEUED\r\n-ERR unknown command")
        assert b"-EXECABORT" in replies and replies.endswith(OK)
    assert front.results() == {ACCEPTED: 2, REFUSED_IN_TRANSACTION: 1}


def test_a_resp2_subscriber_cannot_log_in_and_a_resp3_subscriber_can(front):
    with logged_in(front) as two, logged_in(front, 3) as three:
        for client in (two, three):
            client.send("SUBSCRIBE", "news")
            client.read()
        assert two.raw("AUTH", "app", mint(KEY, CACHE, "app")).startswith(b"-ERR Can't execute")
        assert three.raw("AUTH", "app", mint(KEY, CACHE, "app")) == OK
        two.send("UNSUBSCRIBE")
        two.read()
        assert two.raw("AUTH", "app", mint(KEY, CACHE, "app")) == OK
    assert front.results() == {ACCEPTED: 4, REFUSED_SUBSCRIBED: 1}


def test_a_script_cannot_log_in(front):
    with logged_in(front) as client:
        answer = client.raw("EVAL", "return redis.call('auth', 'app', ARGV[1])", 0,
                            mint(KEY, CACHE, "app"))
        assert answer.startswith(b"-ERR") and b"script" in answer


# Faults


def test_the_error_of_a_refused_login_can_be_lost_behind_an_earlier_reply(start):
    front = start(loses_errors=True)
    with logged_in(front) as client:
        assert client.raw("AUTH", "app", "wrong") == WRONGPASS
        client.send_bytes(encode("ECHO", "1") + encode("AUTH", "app", "wrong")
                          + encode("ECHO", "2"))
        assert client.read_raw(2) == bulk("1") + bulk("2")
        good = mint(KEY, CACHE, "app")
        assert client.pipeline(("ECHO", "3"), ("AUTH", "app", good)) == bulk("3") + OK
    assert front.results() == {ACCEPTED: 2, "no presigned URL": 1,
                               "no presigned URL" + LOST_ERROR: 1}


def test_too_many_logins_in_a_second_are_refused(start):
    front = start(logins_per_second=3)
    replies = []
    for _ in range(12):
        with connect(front) as client:
            replies.append(client.raw("AUTH", "app", mint(KEY, CACHE, "app")))
    assert replies[:3] == [OK] * 3 and WRONGPASS in replies
    assert front.results()[THROTTLED] == replies.count(WRONGPASS)


def test_it_can_refuse_all_logins_or_renewals_alone(start):
    front = start()
    with logged_in(front) as client:
        front.set(refuses_renewals=True)
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == WRONGPASS
        logged_in(front).close()
        front.set(refuses_renewals=False, refuses_logins=True)
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == WRONGPASS
    with connect(front) as client:
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == WRONGPASS
    assert front.results() == {ACCEPTED: 2, REFUSED_BY_ORDER: 3}


def test_a_removed_users_connections_end_and_its_logins_are_refused(start):
    front = start()
    with logged_in(front) as client:
        front.remove_user("app")
        with pytest.raises(ConnectionClosed):
            client.read()
    with connect(front) as client:
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == WRONGPASS
        front.restore_user("app")
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == OK
    assert front.results() == {ACCEPTED: 2, REMOVED: 1}


def test_it_can_be_cut_restarted_and_slow_to_check(start):
    front = start(login_seconds=0.05)
    with connect(front) as client:
        # What stands behind a login that takes its time is answered behind it.
        token = mint(KEY, CACHE, "app")
        assert client.pipeline(("AUTH", "app", token), ("ECHO", "x"), ("HELLO", "3", "AUTH", "app",
                               token), ("ECHO", "y")).endswith(bulk("y"))
        assert front.cut() == 1
        with pytest.raises(ConnectionClosed):
            client.read()
    front.restart()
    logged_in(front).close()


def test_nothing_passes_between_before_the_first_login_unrecorded(front):
    with connect(front) as client:
        client.pipeline(("AUTH", "app", "wrong"), ("SET", "k", "v"))
        client.pipeline(("AUTH", "app", mint(KEY, CACHE, "app")), ("GET", "k"))
        client.raw("GET", "k")
    early = front.report()["too_early"]
    assert [entry["command"] for entry in early] == ["SET", "GET"]
    assert early[0]["bytes"] == len(encode("SET", "k", "v"))


# The server behind


def test_the_server_behind_can_be_valkey(start):
    front = start(server_kind=ValkeyServer)
    with logged_in(front, 3) as client:
        assert b"valkey_version" in client.value("INFO", "server")
        assert client.raw("CLIENT", "SETINFO", "lib-name", "x") == OK
        assert client.raw("AUTH", "app", mint(KEY, CACHE, "app")) == OK


# Passwords


def test_two_passwords_are_good_while_they_are_rotated(start):
    front = start()
    old, new = front.server.passwords["tenant"], new_password()
    steps = [((old,), (OK, WRONGPASS)), ((new, old), (OK, OK)), ((new,), (WRONGPASS, OK))]
    for passwords, expected in steps:
        front.set_passwords("tenant", *passwords)
        replies = []
        for password in (old, new):
            with connect(front) as client:
                replies.append(client.raw("AUTH", "tenant", password))
        assert tuple(replies) == expected
    assert front.results() == {ACCEPTED: 4, WRONG_PASSWORD: 2}


# The front passes on what it is given


@pytest.mark.parametrize("seed", range(5))
def test_requests_come_through_whole_however_they_are_cut(front, seed):
    dice = random.Random(seed)
    token = mint(KEY, CACHE, "app")
    request, expected = bytearray(encode("AUTH", "app", token)), bytearray(OK)
    for number in range(200):
        choice = dice.random()
        if choice < 0.1:
            request += encode("auth", "app", token)
            expected += OK
        elif choice < 0.2:
            request += b"ECHO inline%d\r\n\r\n" % number
            expected += bulk(f"inline{number}")
        else:
            value = dice.choice([b"", b"AUTH app x\r\n", b"*2\r\n$4\r\nAUTH\r\n", b"x" * 100_000])
            request += encode("ECHO", value)
            expected += bulk(value)
    cuts = sorted(dice.randrange(len(request)) for _ in range(dice.choice([0, 20, 200])))
    with connect(front) as client:
        for start, end in zip([0, *cuts], [*cuts, len(request)]):
            client.send_bytes(request[start:end])
        assert client.read_exactly(len(expected)) == expected
