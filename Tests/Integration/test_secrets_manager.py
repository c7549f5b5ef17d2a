"""Passwords from AWS Secrets Manager: moto behind real HTTP, a real redis-server behind TLS."""

import time

import pytest

from harness.iam import NO_AWS
from harness.passwords import new_password
from harness.proxy import Listener, Upstream
from harness.resp import Error, eventually

SECRET = "test/cache"


@pytest.fixture
def moto(module_moto):
    """With no secret of another test."""
    if not module_moto.process.is_running:
        module_moto.start()
    yield module_moto
    module_moto.kill()
    module_moto.versions.clear()


@pytest.fixture
def start(server, start_proxy, moto):
    def start(environment=None, login_timeout="5s", **settings):
        source = {"secret_id": SECRET, "region": "us-east-1", "refresh_every": "1h"} | settings
        source = {name: value for name, value in source.items() if value is not None}
        return start_proxy(
            {"cache": Upstream.verified(server)},
            {"app": {"credentials": {"secrets_manager": source}}}, [Listener("app")],
            environment=NO_AWS | moto.environment | (environment or {}),
            login_timeout=login_timeout,
        )

    return start


@pytest.fixture
def password(server):
    """The server's, put back in the end."""
    before = server.passwords["app"]
    yield before
    server.set_password("app", before)


def is_served(proxy) -> bool:
    with proxy.connect() as client:
        return client.value("PING") == b"PONG"


def rotate(server, *, keep=None) -> str:
    """The server takes a new password, and besides it `keep`."""
    new = new_password()
    server.set_password("app", new)
    if keep:
        assert server.ask("ACL", "SETUSER", "app", ">" + keep) == b"OK"
    return new


@pytest.mark.parametrize(
    "value, settings",
    [
        (lambda password: password, {}),
        (lambda password: {"username": "app", "password": password, "user_arn": "arn:x"}, {}),
        (lambda password: {"password": password}, {}),
        (lambda password: {"name": "app", "pw": password, "password": 7},
         {"username_key": "name", "password_key": "pw"}),
    ],
    ids=["text", "JSON", "without a name", "other keys"],
)
def test_a_secret_in_any_of_its_forms(start, moto, password, value, settings):
    moto.create_secret(SECRET, value(password))
    proxy = start(**settings)
    assert is_served(proxy)


def test_the_region_of_an_arn_is_the_secrets(start, moto, password):
    arn = moto.create_secret(SECRET, password)
    # The environment's region has no such secret.
    proxy = start({"AWS_REGION": "eu-west-1"}, secret_id=arn, region=None)
    assert is_served(proxy)


def test_a_new_version_is_seen_by_looking(start, moto, server, password):
    moto.create_secret(SECRET, password)
    proxy = start(refresh_every="1s")
    assert is_served(proxy)
    new = rotate(server, keep=password)
    moto.put_current(SECRET, new)
    eventually(lambda: "credential changed" in proxy.log())
    server.set_password("app", new)
    server.lose_connections("app")
    assert is_served(proxy)
    assert "refused" not in proxy.log()


def test_a_refused_login_looks_at_once(start, moto, server, password):
    """Between two looks an hour apart the secret changes, and no client notices."""
    moto.create_secret(SECRET, password)
    proxy = start()
    assert is_served(proxy)
    moto.put_current(SECRET, rotate(server))
    server.lose_connections("app")
    began = time.monotonic()
    assert is_served(proxy)
    assert time.monotonic() - began < 4
    # Again at once, although the one before was a moment ago.
    moto.put_current(SECRET, rotate(server))
    server.lose_connections("app")
    assert is_served(proxy)


def test_a_rotation_that_is_not_finished_has_the_password_in_awspending(
    start, moto, server, password
):
    moto.create_secret(SECRET, password)
    proxy = start()
    assert is_served(proxy)
    version = moto.put_pending(SECRET, rotate(server))
    server.lose_connections("app")
    assert is_served(proxy)
    assert "stage=AWSPENDING" in proxy.log()
    # Finishing it changes a label and not the password.
    moto.make_current(SECRET, version)
    server.lose_connections("app")
    assert is_served(proxy)


def test_a_server_that_is_behind_still_has_the_password_of_awsprevious(
    start, moto, server, password
):
    moto.create_secret(SECRET, password)
    moto.put_current(SECRET, new_password())
    proxy = start()
    eventually(lambda: is_served(proxy))
    assert "stage=AWSPREVIOUS" in proxy.log()


def test_all_stages_are_tried_in_their_order(start, moto, server, password):
    moto.create_secret(SECRET, password)
    moto.put_current(SECRET, new_password())
    moto.put_pending(SECRET, new_password())
    proxy = start(login_timeout="10s")
    assert is_served(proxy)
    log = proxy.log()
    assert log.index("stage=AWSPENDING") < log.index("stage=AWSPREVIOUS")


def test_the_name_and_the_password_are_of_one_version(start, moto, server, password):
    """A rotation between two users: what logs in is never the name of one and the other's password."""
    other = server.add_user("app-clone", "~*", "&*", "+@all")
    moto.create_secret(SECRET, {"username": "app", "password": password})
    proxy = start(refresh_every="1s")
    with proxy.connect() as client:
        assert client.value("ACL", "WHOAMI") == b"app"
    moto.put_current(SECRET, {"username": "app-clone", "password": other})
    eventually(lambda: "credential changed" in proxy.log())
    server.lose_connections("app")
    with proxy.connect() as client:
        assert client.value("ACL", "WHOAMI") == b"app-clone"
    assert "refused" not in proxy.log()


def test_the_last_good_value_survives_an_outage(start, moto, server, password):
    moto.create_secret(SECRET, password)
    proxy = start(refresh_every="1s")
    assert is_served(proxy)
    moto.kill()
    eventually(lambda: "the last good one stays in use" in proxy.log(), 20)
    for _ in range(3):
        server.lose_connections("app")
        assert is_served(proxy)
    moto.start()
    eventually(lambda: "credential can be read again" in proxy.log(), 70)


def test_a_secret_that_comes_later(start, moto, password):
    proxy = start(login_timeout="300ms")
    with proxy.connect() as client:
        assert isinstance(client.value("PING"), Error)
    eventually(lambda: "ResourceNotFoundException" in proxy.log())
    moto.create_secret(SECRET, password)
    eventually(lambda: is_served(proxy), 20)


@pytest.mark.parametrize(
    "value", ["{", '{"username": "app"}', {"password": 7}, {"password": "x y", "username": "a b"}]
)
def test_a_secret_that_is_no_password_is_refused_and_not_shown(start, moto, value):
    moto.create_secret(SECRET, value)
    proxy = start(login_timeout="300ms")
    eventually(lambda: "credential cannot be read" in proxy.log())
    assert f"secret {SECRET}, AWSCURRENT" in proxy.log()
    assert '"username"' not in proxy.log() and "x y" not in proxy.log()


def test_refusals_that_go_on_ask_less_and_less(start, moto, server, password):
    """A password that nobody has: the looks become rare, whatever the clients do."""
    moto.create_secret(SECRET, new_password())
    proxy = start(login_timeout="200ms")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        with proxy.connect() as client:
            assert isinstance(client.value("PING"), Error)
    asked = moto.process.log().count('"POST / HTTP/1.1"')
    # At most at 0, 1, 3 and 7 seconds, three stages each, and the first look.
    assert asked <= 16, asked
