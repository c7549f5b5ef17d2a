"""The proxy logs in before anything else, with the newest secret, or lets nothing through."""

import os
import secrets as secrets_module
import time

import pytest

from harness import passwords, verifier
from harness.proxy import Listener, Upstream
from harness.resp import Client, ConnectionClosed, bulk, encode, eventually
from harness.verifier import Plan

FAST = {"login_timeout": "1s", "upstream_wait": "1s"}


@pytest.fixture(params=["multiplexed", "dedicated"])
def mode(request):
    return request.param


def test_the_login_goes_first_and_a_clients_login_goes_nowhere(
    server, start_proxy, start_relay, mode
):
    relay = start_relay(server)
    proxy = start_proxy(
        {"cache": Upstream.verified(relay)},
        {"app": server.passwords["app"]},
        [Listener("app", mode)],
    )
    secret = passwords.new_password()
    requests = [
        ("AUTH", secret), ("AUTH", "default", secret), ("AUTH", "app", secret),
        ("HELLO", "3", "AUTH", "default", secret), ("HELLO", "2", "AUTH", "admin", secret),
        ("HELLO", "3", "AUTH", "default", secret, "SETNAME", "n"),
        ("auth", secret, secret, secret),
    ]
    for request in requests:
        with proxy.connect() as client:
            client.raw(*request)
            client.value("GET", "k")
        with proxy.connect() as client:
            client.send_bytes(encode("SET", "k", 1) + encode(*request) + encode("GET", "k"))
            client.read_raw(3)
        with proxy.connect() as client:
            for byte in encode(*request):
                client.send_bytes(bytes([byte]))
            client.read()
        with proxy.connect() as client:
            client.send_bytes(b"MULTI\r\n" + encode(*request) + b"EXEC\r\n")
            try:
                client.read_raw(3)
            except ConnectionClosed:
                pass
        with proxy.connect() as client:
            client.send_bytes(f"AUTH {secret}\r\nauth 'default' \"{secret}\"\r\n".encode())
            client.read_raw(2)
        with proxy.connect() as client:
            client.send_bytes(encode(*request)[:-4])
    assert len(relay.recordings) >= 1
    sent = relay.sent()
    assert secret.encode() not in sent
    assert secret[:20].encode() not in sent
    for recording in relay.recordings:
        if not recording.sent:
            continue  # opened for a client that was gone before the connection was up
        first = bytes(recording.sent).split(b"\r\n")
        assert first[2].upper() in (b"HELLO", b"AUTH"), first[:3]


@pytest.mark.skipif(os.geteuid() != 0, reason="reads another process's memory")
def test_a_clients_login_is_nowhere_in_memory_once_it_is_answered(server, start_proxy, mode):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app", mode)],
    )
    # The value of a key shows that the search finds what is there.
    secrets = {form: secrets_module.token_hex(24) for form in ("array", "inline", "hello", "key")}
    with proxy.connect() as client:
        client.raw("AUTH", "default", secrets["array"])
        client.raw("HELLO", "3", "AUTH", "default", secrets["hello"])
    with proxy.connect() as client:
        line = f"AUTH default '{secrets['inline']}'\r\n".encode()
        client.send_bytes(line)
        assert client.read().value == b"OK"
        for byte in line:
            client.send_bytes(bytes([byte]))
        assert client.read().value == b"OK"
        # Behind a command that waits, in a transaction, twice in one read, never completed.
        client.send_bytes(encode("BLPOP", "nothing", "0.01") + line + line)
        client.read_raw(3)
        client.send_bytes(b"MULTI\r\n" + line + b"DISCARD\r\n")
        client.read_raw(3)
    with proxy.connect() as client:
        client.send_bytes(line[:-6])
    with proxy.connect() as client:
        client.send_bytes(encode("ECHO", secrets["key"])[:-2])
        eventually(lambda: secrets["key"].encode() in proxy.process.memory())
        memory = proxy.process.memory()
    found = {form for form, secret in secrets.items() if secret[:32].encode() in memory}
    assert found == {"key"}


def test_no_command_goes_out_before_the_login_is_answered(
    server, start_proxy, start_relay, mode
):
    relay = start_relay(server)
    proxy = start_proxy(
        {"cache": Upstream.verified(relay)},
        {"app": server.passwords["app"]},
        [Listener("app", mode)],
        login_timeout="5s",
    )
    server.kill_connections("app")
    relay.hold_replies()
    with proxy.connect() as client:
        client.send_bytes(encode("SET", "early", "x") * 10)
        eventually(lambda: b"AUTH" in relay.sent(), what="the login is sent")
        time.sleep(0.2)
        assert b"early" not in relay.sent()
        relay.release_replies()
        assert client.read_raw(10) == b"+OK\r\n" * 10


def test_a_wrong_password_lets_nothing_through_and_the_right_one_recovers_by_itself(
    server, start_proxy, mode
):
    right = server.add_user("patient")
    wrong = passwords.new_password()
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"patient": wrong}, [Listener("patient", mode)],
        **FAST,
    )
    with proxy.connect() as client:
        started = time.monotonic()
        answer = client.value("SET", "refused", "x")
        assert answer.startswith((b"ERR", b"NOAUTH", b"WRONGPASS")), answer
        assert time.monotonic() - started < 4
        assert b"\r" not in answer and b"\n" not in answer
    assert server.ask("EXISTS", "refused") == 0
    log = proxy.log()
    for word in ("patient", "cache", "WRONGPASS", str(proxy.password_file("patient"))):
        assert word in log, f"the log does not name {word!r}:\n{log}"
    with proxy.connect() as client:
        # Whoever carries state gets an error too, and nothing behind it runs bare.
        client.send_bytes(encode("MULTI") + encode("SET", "bare", 1) + encode("EXEC"))
        rest = client.read_to_end()
        assert rest.startswith(b"-") and b"+OK" not in rest
    proxy.write_password("patient", right)
    eventually(lambda: ok(proxy), 8, "the proxy recovers once the file is right")
    assert server.ask("EXISTS", "bare") == 0


def ok(proxy) -> bool:
    with proxy.connect() as client:
        try:
            return client.raw("SET", "recovered", "x") == b"+OK\r\n"
        except ConnectionClosed:
            return False


def test_a_command_waits_for_a_password_that_is_corrected_in_time(server, start_proxy, mode):
    right = server.add_user("waiting")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"waiting": passwords.new_password()},
        [Listener("waiting", mode)],
        login_timeout="10s",
    )
    with proxy.connect() as client:
        client.send("SET", "waited", "x")
        assert client.is_silent(0.3)
        proxy.write_password("waiting", right)
        assert client.read().raw == b"+OK\r\n"


def test_a_refused_login_is_not_repeated_without_pause(server, start_proxy):
    server.add_user("hammered")
    server.ask("ACL", "LOG", "RESET")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"hammered": passwords.new_password()},
        [Listener("hammered")],
        **FAST,
    )
    for _ in range(3):
        with proxy.connect() as client:
            assert client.value("GET", "k").startswith((b"ERR", b"NOAUTH", b"WRONGPASS"))
    entries = server.ask("ACL", "LOG")
    attempts = sum(entry[1] for entry in entries)
    assert 1 <= attempts < 60, entries
    assert proxy.process.cpu_seconds() < 2


def test_a_disabled_user_is_refused_and_named_in_the_log(server, start_proxy):
    password = server.add_user("disabled")
    server.ask("ACL", "SETUSER", "disabled", "off")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"disabled": password}, [Listener("disabled")],
        **FAST,
    )
    with proxy.connect() as client:
        assert client.value("GET", "k").startswith((b"ERR", b"NOAUTH", b"WRONGPASS"))
    assert "disabled" in proxy.log() and "WRONGPASS" in proxy.log()


@pytest.mark.parametrize("content", ["{}", "{}\n", "{}\r\n"], ids=["bare", "LF", "CR LF"])
def test_the_password_is_the_files_content_without_its_line_end(server, start_proxy, content):
    password = server.add_user("lines")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"lines": content.format(password)},
        [Listener("lines")],
    )
    assert ok(proxy)


def test_a_password_of_awkward_characters_logs_in(server, start_proxy):
    password = passwords.new_password(" with \"quotes\" 'and' $signs ünïcode \\ # : >")
    server.add_user("awkward")
    server.set_password("awkward", password)
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"awkward": password}, [Listener("awkward")]
    )
    assert ok(proxy)


def test_a_user_name_may_differ_from_its_key(server, start_proxy):
    password = server.add_user("real-name")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"alias": {"user_name": "real-name", "credentials": {"password_env": "ALIAS_PASSWORD"}}},
        [Listener("alias")],
        environment={"ALIAS_PASSWORD": password},
    )
    with proxy.connect() as client:
        assert client.raw("ACL", "WHOAMI") == bulk("real-name")


def test_a_missing_or_empty_password_file_lets_nothing_through_until_it_is_there(
    server, start_proxy, place
):
    password = server.add_user("late")
    file = place / "late.password"
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"late": {"credentials": {"password_file": str(file)}}},
        [Listener("late")],
        **FAST,
    )
    with proxy.connect() as client:
        assert client.value("GET", "k").startswith(b"ERR") or True
    assert str(file) in proxy.log()
    file.write_text("")
    time.sleep(0.2)
    file.write_text(password)
    eventually(lambda: ok(proxy), 8, "the proxy finds the file")


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "rewritten"])
def test_the_password_can_be_rotated_under_load(server, start_proxy, mode, in_place):
    """New password added, file replaced, old one removed, connections killed: nobody is refused."""
    password = server.add_user("rotating")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"rotating": password}, [Listener("rotating", mode)]
    )
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=20, commands=1_000_000, seed=21,
        may_close=True, prefix=f"rot{in_place}", max_depth=50,
    )
    load = verifier.Load(plan)
    for _ in range(6):
        time.sleep(0.4)
        rotate(server, proxy, "rotating", in_place)
        server.kill_connections("rotating")
    load.stop()
    outcome = load.outcome(60)
    verifier.check(outcome, plan)
    assert outcome.answered > 1000
    assert outcome.refused == 0
    assert ok(proxy)


def rotate(server, proxy, user: str, in_place: bool = False) -> None:
    new = passwords.new_password()
    server.ask("ACL", "SETUSER", user, ">" + new)
    proxy.write_password(user, new, in_place)
    server.ask("ACL", "SETUSER", user, "<" + server.passwords[user])
    server.passwords[user] = new


def test_a_rotation_without_killed_connections_disturbs_nobody(server, start_proxy, mode):
    password = server.add_user("calm")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)}, {"calm": password}, [Listener("calm", mode)]
    )
    plan = Plan(
        addresses=(proxy.listeners[0].address,), clients=10, commands=1_000_000, seed=22,
        prefix="calm", max_depth=20,
    )
    load = verifier.Load(plan)
    for _ in range(4):
        time.sleep(0.2)
        rotate(server, proxy, "calm")
    load.stop()
    outcome = load.outcome(60)
    assert not outcome.wrong, outcome.wrong[:3]
    assert outcome.closed == outcome.refused == 0


def test_a_password_replaced_by_a_symbolic_link_as_in_kubernetes_is_noticed(
    server, start_proxy, place
):
    password = server.add_user("mounted")
    for name in ("one", "two"):
        (place / name).mkdir()
    (place / "one" / "secret").write_text(password)
    (place / "..data").symlink_to("one")
    (place / "secret").symlink_to("..data/secret")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"mounted": {"credentials": {"password_file": str(place / "secret")}}},
        [Listener("mounted")],
        **FAST,
    )
    assert ok(proxy)
    new = passwords.new_password()
    server.set_password("mounted", new)
    (place / "two" / "secret").write_text(new)
    (place / "..data_tmp").symlink_to("two")
    (place / "..data_tmp").rename(place / "..data")
    server.lose_connections("mounted")
    eventually(lambda: ok(proxy), 8, "the new password is used")


def test_each_listener_is_its_own_user(server, shared_proxy):
    for users in shared_proxy.by_mode.values():
        for user in ("app", "tenant", "writer", "keyless"):
            with Client(users[user].address) as client:
                assert client.raw("ACL", "WHOAMI") == bulk(user)
