"""Clients that log in at the proxy: with which password, as whom, how often, and until when."""

import hashlib
import os
import time

import pytest

from harness.accounts import CONSUMER, PRODUCER, ClientAs
from harness.passwords import new_password
from harness.proxy import Listener, Upstream
from harness.resp import Error, Map, encode, eventually
from test_hash_password import hash_password

NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
FULL = b"-ERR max number of clients reached\r\n"


def sha256(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


@pytest.fixture
def start(server, start_proxy):
    """Starts a proxy in front of the shared server, with one listener with these rules."""

    def make(*rules, upstream=None, users=("app", "consumer"), listener=None, **settings):
        proxy = start_proxy(
            {"cache": upstream or Upstream.verified(server)},
            {user: server.passwords[user] for user in users},
            [Listener("app", identities=list(rules), **(listener or {}))],
            **settings,
        )
        return proxy

    return make


@pytest.fixture(scope="module")
def scrypt():
    """A password that somebody chose, and its hash."""
    password = new_password()
    return password, hash_password(password.encode()).stdout.decode().strip()


def login(**more) -> dict:
    return {"login": more, "user": "app"}


# Which passwords


@pytest.mark.parametrize("kind", ["password_scrypt", "password_sha256", "password_file"])
def test_a_client_logs_in_with_a_password_of_each_kind(start, scrypt, place, kind):
    password, hash = scrypt
    (place / "p").write_text(password + "\n")
    values = {
        "password_scrypt": hash, "password_sha256": sha256(password),
        "password_file": str(place / "p"),
    }
    proxy = start(login(name="legacy", **{kind: values[kind]}))
    with proxy.connect() as client:
        assert client.raw("GET", "never-set") == NOAUTH
        assert client.raw("AUTH", "legacy", "wrong") == WRONGPASS
        assert client.raw("AUTH", "other", password) == WRONGPASS
        assert client.raw("AUTH", password) == WRONGPASS
        assert client.raw("GET", "never-set") == NOAUTH
        assert client.raw("AUTH", "legacy", password) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"
        # As on a server, a wrong password later changes nothing.
        assert client.raw("AUTH", "legacy", "wrong") == WRONGPASS
        assert client.value("ACL", "WHOAMI") == b"app"
    with proxy.connect() as client:
        answer = client.value("HELLO", 3, "AUTH", "legacy", password, "SETNAME", "me")
        assert isinstance(answer, Map) and answer[b"proto"] == 3
        assert client.value("CLIENT", "GETNAME") == b"me"


def test_a_password_without_a_name_is_for_default(start):
    password = new_password()
    proxy = start(login(password_sha256=sha256(password)))
    with proxy.connect() as client:
        assert client.raw("AUTH", password) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"
    with proxy.connect() as client:
        assert client.raw("AUTH", "default", password) == b"+OK\r\n"


def test_each_of_several_passwords_is_good(start, scrypt, place):
    chosen, hash = scrypt
    one, two = new_password(), new_password()
    (place / "p").write_text(two)
    proxy = start(
        login(
            password_scrypt=[hash], password_sha256=[sha256("x"), sha256(one)],
            password_file=[str(place / "p")],
        )
    )
    for password in (chosen, one, two):
        with proxy.connect() as client:
            assert client.raw("AUTH", password) == b"+OK\r\n"


def test_a_password_file_is_read_at_each_login(start, place):
    one, two = new_password(), new_password()
    (place / "p").write_text(one)
    proxy = start(login(password_file=str(place / "p")))
    with proxy.connect() as client:
        assert client.raw("AUTH", two) == WRONGPASS
        (place / "p").write_text(two)
        assert client.raw("AUTH", two) == b"+OK\r\n"
        assert client.raw("AUTH", one) == WRONGPASS
    (place / "p").unlink()
    with proxy.connect() as client:
        assert client.raw("AUTH", two) == WRONGPASS
    assert f"cannot open {place / 'p'}" in proxy.log()


# Order


def test_a_login_leads_to_the_first_rule_with_that_name_and_password(start):
    one, two = new_password(), new_password()
    proxy = start(
        {"login": {"name": "a", "password_sha256": sha256(one)}, "user": "consumer"},
        {"login": {"name": "a", "password_sha256": [sha256(one), sha256(two)]}, "user": "app"},
    )
    with proxy.connect() as client:
        assert client.raw("AUTH", "a", one) == b"+OK\r\n"
        assert isinstance(client.value("ACL", "WHOAMI"), Error)
        assert client.raw("AUTH", "a", two) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"


def test_a_later_rule_without_a_login_serves_until_the_client_logs_in(start):
    password = new_password()
    proxy = start(
        login(name="a", password_sha256=sha256(password)), {"any": True, "user": "consumer"}
    )
    with proxy.connect() as client:
        assert isinstance(client.value("ACL", "WHOAMI"), Error)
        assert client.raw("GET", "never-set") == b"$-1\r\n"
        assert client.raw("AUTH", "a", "wrong") == WRONGPASS
        assert client.raw("GET", "never-set") == b"$-1\r\n"
        assert client.raw("AUTH", "a", password) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_login_counts_only_for_those_for_whom_the_rule_holds_otherwise(start):
    password = new_password()
    proxy = start(
        {"uid": PRODUCER} | login(password_sha256=sha256(password)), {"uid": 0, "user": "app"}
    )
    address = proxy.listeners[0].address
    with ClientAs(address, PRODUCER) as client:
        assert client.raw("PING") == NOAUTH
        assert client.raw("AUTH", password) == b"+OK\r\n"
        assert client.raw("PING") == b"+PONG\r\n"
    with ClientAs(address, CONSUMER) as client:
        assert client.read_to_end().startswith(b"-NOPERM redis-auth-proxy: no identity rule")
    # Root needs none and could not have it.
    with proxy.connect() as client:
        assert client.raw("PING") == b"+PONG\r\n"
        assert client.value("AUTH", password).startswith(b"ERR AUTH <password> called without")


def test_any_login_is_accepted_where_that_is_wanted(start):
    proxy = start({"any": True, "user": "app"}, listener={"accept_any_login": True})
    with proxy.connect() as client:
        assert client.raw("AUTH", "anything") == b"+OK\r\n"
        assert client.raw("AUTH", "anybody", "anything") == b"+OK\r\n"
        assert client.value("HELLO", 3, "AUTH", "anybody", "anything")[b"proto"] == 3
        assert client.value("ACL", "WHOAMI") == b"app"
        assert client.value("AUTH").startswith(b"ERR wrong number of arguments")


def test_reset_takes_a_login_back(start):
    password = new_password()
    proxy = start(login(name="a", password_sha256=sha256(password)))
    with proxy.connect() as client:
        assert client.raw("AUTH", "a", password) == b"+OK\r\n"
        assert client.raw("RESET") == b"+RESET\r\n"
        assert client.raw("GET", "never-set") == NOAUTH
        assert client.raw("AUTH", "a", password) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"


def test_reset_takes_a_client_back_to_what_it_was_without_a_login(start):
    password = new_password()
    proxy = start(
        login(name="a", password_sha256=sha256(password)), {"any": True, "user": "consumer"}
    )
    with proxy.connect() as client:
        assert client.raw("AUTH", "a", password) == b"+OK\r\n"
        assert client.value("ACL", "WHOAMI") == b"app"
        assert client.raw("RESET") == b"+RESET\r\n"
        assert isinstance(client.value("ACL", "WHOAMI"), Error)
        assert client.raw("GET", "never-set") == b"$-1\r\n"


def test_places_follow_logins_there_and_back(start):
    """Each client has one place: of its rule, or among those without a login."""
    password = new_password()
    proxy = start(
        login(name="a", password_sha256=sha256(password)) | {"max_sessions": 1},
        {"any": True, "user": "consumer", "max_sessions": 2},
    )
    eventually(lambda: proxy.log().count("session closed") == 1, what="the probe has gone")
    for round in range(1, 4):
        with proxy.connect() as one:
            assert one.raw("AUTH", "a", password) == b"+OK\r\n"
            with proxy.connect() as two, proxy.connect() as three:
                assert two.raw("GET", "never-set") == three.raw("GET", "never-set") == b"$-1\r\n"
                with proxy.connect() as four:
                    assert four.read_to_end() == FULL
                # There is one place for logins, which RESET gives back.
                assert two.raw("AUTH", "a", password) == WRONGPASS
                assert one.raw("RESET") == b"+RESET\r\n"
                assert two.raw("AUTH", "a", password) == b"+OK\r\n"
                assert two.value("ACL", "WHOAMI") == b"app"
        # Three each time, and the probe; whoever was refused had no session.
        eventually(
            lambda: proxy.log().count("session closed") == 1 + 3 * round,
            what="all of them have gone",
        )


def test_a_login_that_cannot_be_followed_costs_no_place(start):
    one, two = new_password(), new_password()
    proxy = start(
        {"login": {"name": "one", "password_sha256": sha256(one)}, "user": "app"},
        {"login": {"name": "two", "password_sha256": sha256(two)}, "user": "app", "max_sessions": 1},
    )
    with proxy.connect() as tied, proxy.connect() as other:
        assert tied.raw("AUTH", "one", one) == other.raw("AUTH", "one", one) == b"+OK\r\n"
        assert tied.raw("WATCH", "k") == b"+OK\r\n"
        assert tied.value("AUTH", "two", two).startswith(b"ERR redis-auth-proxy: this login leads")
        assert tied.raw("AUTH", "one", one) == b"+OK\r\n"
        assert other.raw("AUTH", "two", two) == b"+OK\r\n"


# Nothing goes upstream


def test_nothing_of_a_client_that_has_not_logged_in_goes_upstream(start, server, start_relay):
    relay = start_relay(server)
    password, wrong = new_password(), new_password()
    proxy = start(
        login(name="a", password_sha256=sha256(password)), upstream=Upstream.verified(relay)
    )
    with proxy.connect() as client:
        client.send_bytes(
            encode("SET", "before", 1) + encode("AUTH", "a", wrong) + encode("SET", "before", 2)
            + encode("MULTI") + encode("SUBSCRIBE", "before") + b"SET before 3\r\n"
            + encode("AUTH", "a", password) + encode("SET", "after", 1)
        )
        assert client.read_raw(8) == (
            NOAUTH + WRONGPASS + NOAUTH + NOAUTH + NOAUTH + NOAUTH + b"+OK\r\n" + b"+OK\r\n"
        )
    for text in (b"before", password.encode(), wrong.encode(), b"MULTI", b"SUBSCRIBE"):
        assert text not in relay.sent()
    assert b"after" in relay.sent()


# Limits


def test_a_client_that_does_not_log_in_is_closed(start):
    proxy = start(login(password_sha256=sha256("x")), login_deadline="300ms")
    with proxy.connect() as client:
        assert client.raw("PING") == NOAUTH
        assert client.read_to_end() in (b"", NOAUTH)
    eventually(lambda: "reason=loginDeadline" in proxy.log(), what="the reason in the log")


def test_a_client_that_has_logged_in_stays(start):
    password = new_password()
    proxy = start(login(password_sha256=sha256(password)), login_deadline="300ms")
    with proxy.connect() as client:
        assert client.raw("AUTH", password) == b"+OK\r\n"
        assert client.is_silent(0.6)
        assert client.raw("PING") == b"+PONG\r\n"


def test_so_many_clients_and_no_more_may_be_without_a_login(start):
    password = new_password()
    proxy = start(login(password_sha256=sha256(password)), max_sessions_before_login=2)
    eventually(lambda: proxy.log().count("session closed") == 1, what="the probe has gone")
    with proxy.connect() as one, proxy.connect() as two:
        assert one.raw("PING") == two.raw("PING") == NOAUTH
        with proxy.connect() as three:
            assert three.read_to_end() == FULL
        assert one.raw("AUTH", password) == b"+OK\r\n"
        with proxy.connect() as four:
            assert four.raw("PING") == NOAUTH
    assert "which is max_sessions_before_login" in proxy.log()


def test_a_login_to_a_rule_that_is_full_is_refused(start):
    password = new_password()
    proxy = start(login(password_sha256=sha256(password)) | {"max_sessions": 1})
    with proxy.connect() as one, proxy.connect() as two:
        assert one.raw("AUTH", password) == b"+OK\r\n"
        assert isinstance(two.value("AUTH", password), Error)
        assert two.raw("PING") == NOAUTH
        assert "max_sessions of its rule are connected" in proxy.log()


def test_wrong_passwords_are_answered_later_and_later_and_hold_up_nobody(start, scrypt):
    password, hash = scrypt
    proxy = start(login(name="a", password_scrypt=hash), {"any": True, "user": "app"})
    with proxy.connect() as guesser, proxy.connect() as other:
        asked = time.monotonic()
        for number in range(4):
            guesser.send("AUTH", "a", f"wrong-{number}")
            # Others are served meanwhile, on the same loop.
            assert other.raw("PING") == b"+PONG\r\n"
            assert guesser.read().raw == WRONGPASS
        # 100 + 200 + 400 + 800 ms, which no machine is too fast for.
        assert time.monotonic() - asked >= 1.5
        # A right one is not late.
        assert other.raw("AUTH", "a", password) == b"+OK\r\n"
    assert proxy.log().count("refused a client's login") == 1


def test_many_guesses_at_once_are_few_at_a_time(start):
    """A crowd of guessers of one source gets its answers eight at a time."""
    proxy = start(login(name="a", password_sha256=sha256(new_password())))
    clients = [proxy.connect() for _ in range(24)]
    asked = time.monotonic()
    for client in clients:
        client.send("AUTH", "a", "wrong")
    for client in clients:
        assert client.read().raw == WRONGPASS
        client.close()
    # The first eight fail within 2 s of each other, and so on: three rounds of at least one answer
    # that is 2 s late.
    assert time.monotonic() - asked >= 3
