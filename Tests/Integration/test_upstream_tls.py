"""Only a server that proves to be the right one gets a password or a command."""

import itertools
import signal

import pytest

from harness.proxy import Listener, Upstream
from harness.resp import bulk

FAST = {"login_timeout": "1s", "upstream_wait": "1s"}


# Each proxy has a user of its own, so that its connections can be told from all others.
_numbers = itertools.count(1)


def expect_refused(proxy, server, *words: str) -> None:
    """No command gets through, no login arrives, and the log says why."""
    with proxy.connect(timeout=10) as client:
        answer = client.value("SET", "unverified", "x")
        assert answer.startswith((b"ERR", b"NOAUTH", b"UNAVAILABLE")), answer
    assert server.ask("EXISTS", "unverified") == 0
    assert server.connections(proxy.user) == []
    log = proxy.log().lower()
    for word in words:
        assert word in log, f"the log does not say {word!r}:\n{log}"


def start(start_proxy, server, address=None, **tls):
    upstream = Upstream.verified(server, **tls)
    if address:
        upstream.settings["address"] = f"{address}:{server.port}"
    return start_with(start_proxy, server, upstream)


def start_with(start_proxy, server, upstream):
    user = f"tls-{next(_numbers)}"
    proxy = start_proxy(
        {"cache": upstream}, {user: server.add_user(user)}, [Listener(user)], **FAST
    )
    proxy.user = user
    return proxy


def expect_served(proxy) -> None:
    with proxy.connect() as client:
        assert client.raw("SET", "verified", "x") == b"+OK\r\n"
        assert client.raw("GET", "verified") == bulk("x")


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1"])
def test_a_server_with_the_right_certificate_is_served(server, start_proxy, address):
    expect_served(start(start_proxy, server, address))


def test_a_server_of_an_unknown_authority_is_refused(server, start_proxy, other_authority):
    proxy = start(start_proxy, server, ca_file=other_authority.ca_file)
    expect_refused(proxy, server, "certificate")


def test_a_server_unknown_to_the_systems_store_is_refused(server, start_proxy):
    upstream = Upstream.verified(server)
    del upstream.settings["tls"]["ca_file"]
    expect_refused(start_with(start_proxy, server, upstream), server, "certificate")


def test_a_server_with_another_name_is_refused(start_server, start_proxy, authority):
    server = start_server(certificate=authority.issue("other", names=("other.example",)))
    expect_refused(start(start_proxy, server), server, "certificate", "localhost")
    expect_refused(start(start_proxy, server, "127.0.0.1"), server, "certificate")


def test_an_overridden_server_name_is_the_one_that_is_verified(
    start_server, start_proxy, authority
):
    server = start_server(certificate=authority.issue("named", names=("cache.example",)))
    expect_served(start(start_proxy, server, server_name="cache.example"))
    proxy = start(start_proxy, server, server_name="cash.example")
    expect_refused(proxy, server, "certificate", "cash.example")


def test_an_expired_certificate_is_refused(start_server, start_proxy, authority):
    server = start_server(certificate=authority.issue("expired", expired=True))
    expect_refused(start(start_proxy, server), server, "expired")


def test_a_certificate_of_a_client_is_refused_from_a_server(start_server, start_proxy, authority):
    server = start_server(certificate=authority.issue("purpose", client=True))
    expect_refused(start(start_proxy, server), server, "certificate")


def test_a_server_below_the_minimum_version_is_refused(start_server, start_proxy):
    server = start_server(options={"tls-protocols": '"TLSv1.2"'})
    expect_served(start(start_proxy, server))
    proxy = start(start_proxy, server, min_version="1.3")
    expect_refused(proxy, server, "tls")


def test_TLS_1_3_alone_is_spoken(start_server, start_proxy):
    server = start_server(options={"tls-protocols": '"TLSv1.3"'})
    expect_served(start(start_proxy, server, min_version="1.3"))


def test_a_client_certificate_is_shown_where_one_is_wanted(start_server, start_proxy, authority):
    mine = authority.issue("me", client=True)
    server = start_server(client_certificate=mine)
    expect_served(
        start(
            start_proxy, server, certificate_file=mine.certificate_file, key_file=mine.key_file
        )
    )
    expect_refused(start(start_proxy, server), server, "certificate")


def test_a_server_without_TLS_is_refused_unless_the_configuration_says_so(
    reference, server, start_proxy
):
    upstream = Upstream.verified(server)
    upstream.settings["address"] = f"localhost:{reference.port}"
    expect_refused(start_with(start_proxy, reference, upstream), reference, "tls")


def test_a_plaintext_upstream_works_when_asked_for_and_draws_a_warning(reference, start_proxy):
    proxy = start_with(start_proxy, reference, Upstream.plain(reference))
    expect_served(proxy)
    warnings = [line for line in proxy.log().lower().splitlines() if "warn" in line]
    assert any("tls" in line and "cache" in line for line in warnings), warnings


def test_a_refused_server_is_not_asked_again_and_again_without_pause(
    server, start_proxy, other_authority
):
    proxy = start(start_proxy, server, ca_file=other_authority.ca_file)
    before = server.ask("INFO", "stats")
    for _ in range(2):
        with proxy.connect(timeout=10) as client:
            client.value("PING")
    after = server.ask("INFO", "stats")
    assert connections_received(after) - connections_received(before) < 40
    assert proxy.process.cpu_seconds() < 2
    assert proxy.stop(signal.SIGTERM) == 0


def connections_received(info: bytes) -> int:
    for line in info.decode().splitlines():
        if line.startswith("total_connections_received:"):
            return int(line.split(":")[1])
    raise AssertionError("INFO has no total_connections_received")


def test_a_server_whose_certificate_was_replaced_is_served_by_new_connections(
    start_server, start_proxy, authority
):
    server = start_server()
    proxy = start(start_proxy, server)
    expect_served(proxy)
    renewed = authority.issue("renewed")
    assert server.ask(
        "CONFIG", "SET", "tls-cert-file", renewed.certificate_file, "tls-key-file",
        renewed.key_file,
    ) == b"OK"
    server.lose_connections(proxy.user)
    expect_served(proxy)
