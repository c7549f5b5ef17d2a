"""Logins with IAM tokens: always a fresh token, signed by a credential that is good at that moment.

The stand-in for ElastiCache computes each token again and records every login; its clock can make a
token's quarter of an hour as short as three seconds.
"""

import time

import pytest

from harness.credential_endpoints import ContainerCredentials, SLOW
from harness.iam import ACCEPTED, NO_AWS, AccessKey, Cache
from harness.passwords import new_password
from harness.proxy import Listener, Upstream
from harness.resp import Client, ConnectionClosed, Error, eventually

CACHE = Cache("cache-01")
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
# A token good for three seconds wants a new one every second.
QUICK = {"renew_after": "8s", "connection_limit": "12s"}


def iam(cache: Cache = CACHE, **more) -> dict:
    settings = {"cache_name": cache.name, "region": cache.region, "service": cache.service}
    if cache.is_serverless:
        settings["serverless"] = True
    return {"credentials": {"iam": settings | more}}


@pytest.fixture
def start(start_proxy):
    def start(front, environment=KEY.environment(), user=None, users=None, **settings):
        users = users or {"app": user or iam(front.cache)}
        settings.setdefault("login_timeout", "2s")
        return start_proxy(
            {"cache": Upstream.verified(front)}, users, [Listener(name) for name in users],
            environment=environment, **settings,
        )

    return start


def answer(proxy, listener: int = 0):
    """To PING; nothing when the client met a connection that was being lost, and was closed."""
    with proxy.connect(listener) as client:
        try:
            return client.value("PING")
        except ConnectionClosed:
            return None


def is_served(proxy, listener: int = 0) -> bool:
    return answer(proxy, listener) == b"PONG"


@pytest.mark.parametrize(
    "cache",
    [
        CACHE, Cache("cache-01", is_serverless=True), Cache("cluster-01", service="memorydb"),
        Cache("cache-01", "cn-north-1"),
    ],
    ids=["node based", "serverless", "MemoryDB", "China"],
)
def test_every_kind_of_cache_takes_the_token(start_elasticache, start, cache):
    front = start_elasticache(cache)
    front.trust(KEY)
    proxy = start(front)
    with proxy.connect() as client:
        assert client.value("SET", "k", "v") == b"OK"
        assert client.value("GET", "k") == b"v"
    assert set(front.results()) == {ACCEPTED}
    assert front.report()["too_early"] == []
    for signature in front.signatures():
        assert signature not in proxy.log()


def test_every_login_has_a_fresh_token(start_elasticache, start):
    front = start_elasticache(CACHE, token_seconds=3)
    front.trust(KEY)
    proxy = start(front, user=iam(**QUICK))
    end = time.monotonic() + 8
    while time.monotonic() < end:
        eventually(lambda: is_served(proxy))
        front.cut()
        time.sleep(0.3)
    assert set(front.results()) == {ACCEPTED}
    assert len(front.logins()) >= 10


def test_credentials_of_a_session_never_reach_the_server_expired(start_elasticache, start):
    """The key that signs is a new one long before the old one ends, and only one asks for it."""
    front = start_elasticache(CACHE)
    source = ContainerCredentials(lifetime_seconds=8, issued=front.trust)
    try:
        proxy = start(front, NO_AWS | source.environment())
        eventually(lambda: source.requests)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            eventually(lambda: is_served(proxy))
            front.cut()
            time.sleep(0.3)
        assert set(front.results()) == {ACCEPTED}
        # Each is asked for at three quarters of the life of the one before, or a little sooner.
        assert 3 <= len(source.requests) <= 8
    finally:
        source.stop()


def test_when_credentials_end_and_no_others_come_nobody_logs_in(start_elasticache, start):
    front = start_elasticache(CACHE)
    source = ContainerCredentials(lifetime_seconds=4, issued=front.trust)
    try:
        proxy = start(front, NO_AWS | source.environment(), login_timeout="1s")
        eventually(lambda: is_served(proxy))
        source.lasting_fault = 500
        time.sleep(5)
        front.cut()
        front.forget()
        eventually(lambda: isinstance(answer(proxy), Error))
        assert front.logins() == []
        assert "HTTP 500" in proxy.log() and "container credentials" in proxy.log()
        source.lasting_fault = None
        eventually(lambda: is_served(proxy), 20)
        assert set(front.results()) == {ACCEPTED}
    finally:
        source.stop()


def test_aws_out_of_reach_holds_up_no_password_file(start_elasticache, start):
    """What waits for AWS waits on a thread of its own."""
    front = start_elasticache(CACHE)
    source = ContainerCredentials()
    source.lasting_fault = SLOW
    try:
        users = {"app": iam(), "reader": front.server.passwords["reader"]}
        proxy = start(front, NO_AWS | source.environment(), users=users, login_timeout="500ms")
        eventually(lambda: source.requests)
        new = new_password()
        front.set_passwords("reader", new)
        front.cut()
        proxy.write_password("reader", new)
        began = time.monotonic()
        eventually(lambda: is_served(proxy, 1))
        assert source.lasting_fault == SLOW and time.monotonic() - began < 5
        assert front.logins(user="app") == []
    finally:
        source.stop()


def test_a_wrong_name_is_refused_and_the_log_says_what_was_signed(start_elasticache, start):
    front = start_elasticache(CACHE)
    front.trust(KEY)
    proxy = start(front, user=iam(Cache("another", "eu-west-1")), login_timeout="500ms")
    with proxy.connect() as client:
        assert isinstance(client.value("GET", "k"), Error)
    assert "signed for the cache another" in front.results()
    assert "iam (elasticache another, eu-west-1)" in proxy.log()
    assert KEY.secret not in proxy.log()
    for signature in front.signatures():
        assert signature not in proxy.log()
    # Nothing but logins has reached the server.
    assert front.report()["too_early"] == []


def test_no_credentials_are_an_error_with_every_place_named(start_elasticache, start):
    front = start_elasticache(CACHE)
    proxy = start(front, NO_AWS, login_timeout="300ms")
    with proxy.connect() as client:
        assert isinstance(client.value("GET", "k"), Error)
    eventually(lambda: "no AWS credentials: none in the environment" in proxy.log())
    assert front.logins() == []


def test_the_region_may_come_from_the_environment(start_elasticache, start):
    front = start_elasticache(Cache("cache-01", "ap-southeast-2"))
    front.trust(KEY)
    user = iam()
    del user["credentials"]["iam"]["region"]
    proxy = start(front, KEY.environment() | {"AWS_DEFAULT_REGION": "ap-southeast-2"}, user=user)
    assert is_served(proxy)


@pytest.mark.parametrize("setting", [{"AWS_PROFILE": "gone"}, {"AWS_CONFIG_FILE": "/"}])
def test_aws_settings_that_cannot_be_used_end_the_start(
    start_elasticache, start_proxy, setting
):
    front = start_elasticache(CACHE)
    proxy = start_proxy(
        {"cache": Upstream.verified(front)}, {"app": iam()}, [Listener("app")],
        environment=KEY.environment() | setting, wait=False,
    )
    assert proxy.process.wait() == 78
    assert "gone" in proxy.log() or "regular file" in proxy.log()
