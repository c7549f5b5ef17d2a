"""Logins with IAM tokens, judged by the stand-in for ElastiCache: what is signed, when, how often,
and what the operator is told when it is refused."""

import time

import pytest

from harness.elasticache import REMOVED, THROTTLED
from harness.iam import ACCEPTED, AccessKey, Cache
from harness.proxy import Listener, Upstream
from harness.resp import ConnectionClosed, eventually

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
CACHE = Cache("cache-01", "eu-central-1")
CACHES = [
    CACHE, Cache("serverless-01", "us-east-1", is_serverless=True),
    Cache("cluster-01", "us-gov-west-1", "memorydb"),
]
# Where fifteen minutes are three seconds, twelve hours are short too.
SHORT_TOKEN_SECONDS = 3
SHORT_LIFE = {"renew_after": "6s", "connection_limit": "12s"}
# A login that was refused is not tried again at once, and later less and less often.
MOST_LOGINS_WHILE_A_COMMAND_WAITS = 20


def as_configured(cache: Cache) -> dict:
    return {
        "cache_name": cache.name, "region": cache.region, "service": cache.service,
        "serverless": str(cache.is_serverless).lower(),
    }


@pytest.fixture
def start(start_elasticache, start_proxy):
    """A front that trusts KEY, and a proxy for `app` with a listener per mode."""

    def start(cache=CACHE, mode="multiplexed", iam=None, key=KEY, **settings):
        front = start_elasticache(cache, **settings)
        front.trust(KEY)
        listener = Listener("app", mode)
        proxy = start_proxy(
            {"cache": Upstream.verified(front)},
            {"app": {"credentials": {"iam": as_configured(cache) | (iam or {})}}}, [listener],
            environment=key.environment(),
        )
        return front, proxy, listener

    return start


def answer(listener) -> bytes:
    """Of a client of the moment; nothing if the server was lost while it waited."""
    with listener.connect(timeout=60) as client:
        try:
            return client.raw("PING")
        except ConnectionClosed:
            return b""


@pytest.mark.parametrize("mode", ("multiplexed", "dedicated"))
@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)
def test_a_token_is_signed_for_the_kind_of_cache(start, cache, mode):
    front, _, listener = start(cache, mode)
    eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
    assert front.results().keys() == {ACCEPTED}
    assert not front.report()["too_early"]


def test_every_login_has_a_token_of_its_moment(start):
    """Connections are lost again and again, each time after the last token has expired."""
    front, _, listener = start(iam=SHORT_LIFE, token_seconds=SHORT_TOKEN_SECONDS)
    for _ in range(3):
        eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
        time.sleep(SHORT_TOKEN_SECONDS + 0.5)
        front.cut()
    eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
    assert front.results().keys() == {ACCEPTED}


def test_a_server_that_is_away_for_a_while_is_logged_in_to_again(start):
    front, _, listener = start(iam=SHORT_LIFE, token_seconds=SHORT_TOKEN_SECONDS)
    eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
    front.restart(seconds=SHORT_TOKEN_SECONDS + 0.5)
    eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
    assert front.results().keys() == {ACCEPTED}


def test_a_user_that_was_removed_is_served_when_it_is_back(start):
    front, _, listener = start()
    eventually(lambda: answer(listener) == b"+PONG\r\n", what="a client is served")
    front.remove_user("app")
    eventually(lambda: answer(listener)[:1] == b"-", 30, what="a client is told")
    assert front.results()[REMOVED]
    front.restore_user("app")
    eventually(lambda: answer(listener) == b"+PONG\r\n", 30, what="a client is served")
    assert not front.report()["too_early"]


def test_throttled_logins_all_succeed_in_the_end(start):
    front, _, listener = start(mode="dedicated", logins_per_second=2)
    clients = [listener.connect(timeout=60) for _ in range(6)]
    try:
        for client in clients:
            client.send("PING")
        replies = [client.read().raw for client in clients]
    finally:
        for client in clients:
            client.close()
    assert replies == [b"+PONG\r\n"] * 6, front.results()
    assert front.results()[THROTTLED]


WRONG = {
    "cache name": {"cache_name": "cache-02"},
    "region": {"region": "us-east-1"},
    "service": {"service": "memorydb"},
    "serverless": {"serverless": "true"},
}


def refused(start, **options):
    """The proxy of a login that is refused, and what the front saw while a command waited."""
    front, proxy, listener = start(**options)
    with listener.connect(timeout=60) as client:
        client.send("SET", "secret-key", "secret-value")
        assert client.read().raw.startswith(b"-ERR redis-auth-proxy: ")
    assert ACCEPTED not in front.results() and not front.report()["too_early"]
    log = proxy.log()
    assert not [signature for signature in front.signatures() if signature in log]
    return front, proxy


@pytest.mark.parametrize("wrong", WRONG)
def test_a_refused_login_says_what_was_signed(start, wrong):
    signed = as_configured(CACHE) | WRONG[wrong]
    _, proxy = refused(start, iam=WRONG[wrong])
    line = next(line for line in proxy.log().splitlines() if "WRONGPASS" in line)
    kind = "(serverless)" if signed["serverless"] == "true" else "(node based)"
    cache = f"cluster {signed['cache_name']}" if signed["service"] == "memorydb" else (
        f"cache {signed['cache_name']} {kind}"
    )
    assert f"signed for {signed['service']} {cache}, user app, region {signed['region']}" in line


def test_a_refused_login_says_with_whose_key_it_was_signed_and_what_to_look_at(start):
    _, proxy = refused(start, key=AccessKey("AKIDOTHER", KEY.secret))
    line = next(line for line in proxy.log().splitlines() if "WRONGPASS" in line)
    # The key, where it came from, and the permission that is missing most often.
    for value in ("AKIDOTHER", "environment", "elasticache:Connect"):
        assert value in line, line


def test_refused_logins_are_tried_less_and_less_often(start):
    front, _ = refused(start, iam=WRONG["region"])
    assert len(front.report()["logins"]) <= MOST_LOGINS_WHILE_A_COMMAND_WAITS
