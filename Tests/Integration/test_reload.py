"""SIGHUP: what the new configuration says takes effect, and nobody else notices."""

import hashlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from harness.accounts import CONSUMER, GROUP, OTHER_GROUP, PRODUCER, ClientAs
from harness.certificates import Authority
from harness.passwords import new_password
from harness.ports import free_port
from harness.proxy import Listener, Upstream
from harness.resp import Client, ConnectionClosed, Error, encode, eventually

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
USERS = ("app", "producer", "consumer", "tenant")


class Reloading:
    """A proxy whose configuration file the test changes."""

    def __init__(self, start_proxy, server, listeners, **settings):
        users = {user: server.passwords[user] for user in USERS}
        self.proxy = start_proxy(
            {"cache": Upstream.verified(server)}, users, listeners, **settings
        )
        self.configuration = json.loads(self.proxy.configuration.read_text())

    @property
    def listeners(self):
        return self.configuration["listeners"]

    @property
    def log(self) -> str:
        return self.proxy.process.log_since_mark()

    def hang_up(self, text: str = None) -> None:
        """Writes the configuration, or `text` in its place, and sends SIGHUP."""
        if text is None:
            text = json.dumps(self.configuration)
        replacement = self.proxy.configuration.with_suffix(".new")
        replacement.write_text(text)
        replacement.rename(self.proxy.configuration)
        self.proxy.process.mark_log()
        self.proxy.process.send_signal(signal.SIGHUP)

    def reload(self) -> str:
        """Goes over to the changed configuration; what was logged."""
        self.hang_up()
        eventually(lambda: ": reloaded" in self.log, what="reloaded")
        return self.log

    def refuse(self, text: str = None) -> str:
        """Does not go over to it; what was logged."""
        self.hang_up(text)
        eventually(lambda: "reload refused" in self.log, what="refused")
        assert ": reloaded" not in self.log
        return self.log


@pytest.fixture
def make(server, start_proxy):
    with server.admin() as admin:
        assert admin.value("FLUSHALL") == b"OK"

    def make(*listeners, **settings) -> Reloading:
        return Reloading(start_proxy, server, list(listeners), **settings)

    return make


def assert_goes_on(*clients):
    for client in clients:
        assert client.raw("GET", "nothing") == b"$-1\r\n"


def assert_ends(*clients):
    for client in clients:
        assert client.read_to_end() == b""


# Nothing changes


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_the_same_configuration_again_disturbs_nobody(make, server, mode):
    proxy = make(Listener("app", mode))
    with proxy.proxy.connect() as client, proxy.proxy.connect() as watcher:
        number = client.value("CLIENT", "ID")
        assert watcher.raw("WATCH", "k") == b"+OK\r\n"
        client.send("BLPOP", "list", "0")
        connections = {fields["id"] for fields in server.connections("app")}
        for _ in range(3):
            proxy.reload()
        assert watcher.value("RPUSH", "list", "x") == 1
        assert client.read_raw() == b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n"
        assert client.value("CLIENT", "ID") == number
        assert watcher.raw("MULTI") == b"+OK\r\n"
        assert watcher.raw("EXEC") == b"*0\r\n"
        assert {fields["id"] for fields in server.connections("app")} == connections


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["users"]["app"].update(upstream="chace"), ['got "chace"']),
        (
            lambda c: (c.update(thread=1), c["listeners"][0].update(adress="x")),
            ["did you mean threads?", "did you mean address?"],
        ),
        (lambda c: c["users"]["app"].update(credentials={"password_env": "NEW"}), ["NEW"]),
        (
            lambda c: c["upstreams"]["cache"]["tls"].update(ca_file="/nonexistent/ca.pem"),
            ["/nonexistent/ca.pem"],
        ),
        (
            lambda c: c["listeners"].append(
                {"address": "unix:/nonexistent/s", "identities": [{"any": True, "user": "app"}]}
            ),
            ["/nonexistent/s"],
        ),
        (lambda c: c["listeners"].clear(), ["listeners"]),
    ],
)
def test_a_configuration_that_cannot_be_used_changes_nothing_and_says_why(make, change, words):
    proxy = make(Listener("app"))
    with proxy.proxy.connect() as client:
        assert_goes_on(client)
        change(proxy.configuration)
        # What is right in it does not take effect either.
        address = ("127.0.0.1", free_port())
        proxy.configuration["listeners"].insert(
            0,
            {"address": "%s:%d" % address, "identities": [{"any": True, "user": "consumer"}]},
        )
        if len(proxy.listeners) == 1:  # there were to be none
            proxy.listeners.clear()
        log = proxy.refuse()
        for word in words:
            assert word in log
        assert_goes_on(client)
        with proxy.proxy.connect() as another:
            assert_goes_on(another)
        with pytest.raises(OSError):
            Client(address)


def test_a_text_that_is_no_configuration_changes_nothing(make):
    proxy = make(Listener("app"))
    for text in ("", "{", "listeners: [", "\0", "a: &a [*a]"):
        assert "error" in proxy.refuse(text)
    with proxy.proxy.connect() as client:
        assert_goes_on(client)
    assert proxy.reload()


def test_a_port_that_is_taken_changes_nothing(make):
    proxy = make(Listener("app"))
    other = Listener("app")
    with Client(proxy.proxy.listeners[0].address) as client:
        with socket.create_server(other.address):
            proxy.listeners.append(other.settings)
            assert "another process listens there" in proxy.refuse()
        assert_goes_on(client)
        proxy.reload()
        with other.connect() as new:
            assert_goes_on(client, new)


def test_what_cannot_change_is_said_and_the_rest_changes(make):
    proxy = make(Listener("app"))
    proxy.configuration |= {
        "threads": 2, "connections_per_worker": 2, "handover_socket": "/nonexistent/h.sock",
    }
    other = Listener("consumer")
    proxy.listeners.append(other.settings)
    log = proxy.reload()
    for name in ("threads", "connections_per_worker", "handover_socket"):
        assert f"{name} has changed, and stays as it is" in log
    with other.connect() as client:
        assert_goes_on(client)


# Limits and files


def test_a_limit_that_is_raised_lets_those_go_on_who_waited_for_it(make):
    listener = Listener("app")
    proxy = make(listener, max_pinned=1, upstream_wait="1h")
    with listener.connect() as first, listener.connect() as second, listener.connect() as third:
        assert first.raw("WATCH", "a") == b"+OK\r\n"
        second.send("WATCH", "b")
        assert second.is_silent(0.2)
        proxy.configuration["max_pinned"] = 2
        proxy.reload()
        assert second.read_raw() == b"+OK\r\n"
        # Lowered again: who has one keeps it, and others wait as long as is said now.
        proxy.configuration |= {"max_pinned": 1, "upstream_wait": "100ms"}
        proxy.reload()
        assert_goes_on(first, second)
        assert third.raw("WATCH", "c").startswith(b"-")


def test_the_log_follows_its_settings(make):
    proxy = make(Listener("app"))
    proxy.configuration["log"] = {"level": "warning", "format": "json"}
    proxy.hang_up()
    eventually(lambda: '"message":"reloaded"' in proxy.log, what="reloaded, as JSON")
    proxy.proxy.process.mark_log()
    with proxy.proxy.connect() as client:
        assert_goes_on(client)
    assert "session" not in proxy.log
    proxy.configuration["log"] = {"level": "debug", "format": "json"}
    proxy.hang_up()
    eventually(lambda: '"message":"reloaded"' in proxy.log, what="reloaded again")
    with proxy.proxy.connect() as client:
        assert_goes_on(client)
    eventually(lambda: '"message":"session closed"' in proxy.log, what="session closed, as JSON")


def test_the_rights_of_a_socket_s_file_change_and_its_sessions_stay(make, open_place):
    listener = Listener("app", path=open_place / "s")
    proxy = make(listener)
    with listener.connect() as client:
        assert_goes_on(client)
        before = listener.address.stat()
        assert before.st_mode & 0o777 == 0o600
        proxy.configuration["listeners"][0]["socket_mode"] = "0660"
        proxy.reload()
        after = listener.address.stat()
        assert after.st_mode & 0o777 == 0o660 and after.st_ino == before.st_ino
        # What somebody changes by hand stays until the settings change.
        listener.address.chmod(0o666)
        proxy.reload()
        assert listener.address.stat().st_mode & 0o777 == 0o666
        assert_goes_on(client)


def test_the_same_text_with_other_certificates_is_used_for_later_connections(
    make, server, place, authority
):
    listener = Listener("app")
    proxy = make(listener)
    copy = place / "ca.pem"
    right = authority.ca_file.read_text()
    copy.write_text(right)
    proxy.configuration["upstreams"]["cache"]["tls"]["ca_file"] = str(copy)
    proxy.reload()
    copy.write_text(Authority(place / "other", "other").ca_file.read_text())
    with listener.connect() as session:
        assert_goes_on(session)
        proxy.reload()
        # The connection that is there is none of those.
        assert_goes_on(session)
        server.lose_connections("app")
        session.send("GET", "nothing")
        eventually(lambda: "cannot connect to upstream" in proxy.log, what="it is not verified")
        copy.write_text(right)
        proxy.reload()
        assert session.read_raw() == b"$-1\r\n"
    copy.write_text("no certificate")
    assert str(copy) in proxy.refuse()
    with listener.connect() as another:
        assert_goes_on(another)


# Listeners


def test_listeners_come_and_go(make, open_place):
    stays, goes = Listener("app"), Listener("consumer", path=open_place / "goes")
    proxy = make(stays, goes)
    comes = Listener("producer", path=open_place / "comes")
    with stays.connect() as staying, goes.connect() as going:
        assert_goes_on(staying, going)
        proxy.configuration["listeners"] = [comes.settings, stays.settings]
        log = proxy.reload()
        assert f"listening on unix:{comes.address}" in log
        assert f"no longer listening on unix:{goes.address}" in log
        assert_ends(going)
        eventually(lambda: not goes.address.exists(), what="the socket's file is gone")
        with comes.connect() as coming:
            assert coming.raw("SET", "k", "v") == b"+OK\r\n"
            assert isinstance(coming.value("GET", "k"), Error)
            assert staying.raw("GET", "k") == b"$1\r\nv\r\n"
        # And back again.
        proxy.configuration["listeners"] = [goes.settings, stays.settings]
        proxy.reload()
        with goes.connect() as back:
            assert back.raw("GET", "k") == b"$1\r\nv\r\n"
            assert isinstance(back.value("SET", "k", "v"), Error)
        assert staying.raw("GET", "k") == b"$1\r\nv\r\n"


def test_reloads_for_ever_leave_nothing_behind(make, server):
    # Other tests' proxies may be logged in as the same users.
    others = {connection["id"] for connection in server.connections("consumer")}

    def is_left() -> bool:
        return any(fields["id"] not in others for fields in server.connections("consumer"))

    stays, goes = Listener("app"), Listener("consumer")
    proxy = make(stays, goes)
    with stays.connect() as staying, goes.connect() as going:
        assert_goes_on(staying, going)
    both, one = [stays.settings, goes.settings], [stays.settings]
    for _ in range(5):
        proxy.configuration["listeners"] = one
        proxy.reload()
        proxy.configuration["listeners"] = both
        proxy.reload()
    descriptors = proxy.proxy.process.descriptors()
    for _ in range(20):
        proxy.configuration["listeners"] = one
        proxy.reload()
        eventually(lambda: not is_left(), what="its connections are closed")
        proxy.configuration["listeners"] = both
        proxy.reload()
        with goes.connect() as going:
            assert_goes_on(going)
    eventually(
        lambda: proxy.proxy.process.descriptors() <= descriptors + 2, what="descriptors are closed"
    )


def test_an_address_can_be_listened_on_again_at_once(make, open_place):
    stays = Listener("app")
    others = [Listener("app"), Listener("app", path=open_place / "other")]
    proxy = make(stays, *others)
    every = [stays.settings] + [listener.settings for listener in others]
    for _ in range(15):
        for listeners in ([stays.settings], every):
            proxy.configuration["listeners"] = listeners
            # The next one comes as soon as this one is said to be over.
            proxy.hang_up()
            deadline = time.monotonic() + 10
            while "reload" not in proxy.log:
                assert time.monotonic() < deadline
            assert "refused" not in proxy.log


# Users


def test_a_listener_of_another_user_ends_its_sessions_and_no_others(make):
    first, second = Listener("app"), Listener("app")
    proxy = make(first, second)
    with first.connect() as changed, second.connect() as untouched:
        assert_goes_on(changed, untouched)
        first.settings["identities"][0]["user"] = "consumer"
        proxy.configuration["listeners"] = [first.settings, second.settings]
        assert "changed: " in proxy.reload()
        assert_ends(changed)
        assert_goes_on(untouched)
        with first.connect() as new:
            assert_goes_on(new)
            assert isinstance(new.value("SET", "k", "v"), Error)


def test_another_address_is_connected_to_once_its_credential_is_there(make, server, start_server):
    """Ahead of the first client, as at the start, and back again."""
    proxy = make(Listener("app"))
    eventually(lambda: "logged in upstream" in proxy.log)
    addresses = [Upstream.verified(one).settings for one in (start_server(), server)]
    for settings in addresses * 3:
        proxy.configuration["upstreams"]["cache"] = settings
        proxy.reload()
        said = f"logged in upstream address={settings['address']} "
        eventually(lambda: said in proxy.log, what=said)
        assert "no credential" not in proxy.log


def test_another_user_name_or_address_ends_the_sessions_of_that_user_alone(make, start_server):
    first, second = Listener("app"), Listener("producer")
    proxy = make(first, second)
    with first.connect() as changed, second.connect() as untouched:
        assert_goes_on(changed)
        assert untouched.raw("SET", "k", "v") == b"+OK\r\n"
        users = proxy.configuration["users"]
        users["app"]["user_name"] = "consumer"
        users["app"]["credentials"] = users["consumer"]["credentials"]
        proxy.reload()
        assert_ends(changed)
        with first.connect() as new:
            assert isinstance(new.value("SET", "k", "v"), Error)
            assert new.raw("GET", "k") == b"$1\r\nv\r\n"
            other = start_server()
            proxy.configuration["upstreams"]["other"] = Upstream.verified(other).settings
            users["app"]["upstream"] = "other"
            proxy.reload()
            assert_ends(new)
        with first.connect() as elsewhere:
            assert_goes_on(elsewhere)
            assert elsewhere.raw("GET", "k") == b"$-1\r\n"
        assert untouched.raw("SET", "k", "v") == b"+OK\r\n"


def test_another_password_file_is_used_for_later_logins_and_ends_nobody(make, server, place):
    user = "reloaded"
    password = server.add_user(user)
    first, second = Listener("app"), Listener(user)
    proxy = make(first)
    old, new = place / "old", place / "new"
    old.write_text(password)
    new.write_text(new_password())
    proxy.configuration["users"][user] = {
        "upstream": "cache", "credentials": {"password_file": str(old)},
    }
    proxy.listeners.append(second.settings)
    proxy.reload()
    with first.connect() as untouched, second.connect() as session:
        assert_goes_on(untouched, session)
        server.set_password(user, new.read_text())
        proxy.configuration["users"][user]["credentials"]["password_file"] = str(new)
        proxy.reload()
        # Still on the connection of before.
        assert_goes_on(untouched, session)
        server.lose_connections(user)
        with second.connect() as later:
            assert_goes_on(later, untouched)
    server.ask("ACL", "DELUSER", user)


def test_a_password_file_that_cannot_be_read_leaves_the_last_good_password(make, server, place):
    listener = Listener("app")
    proxy = make(listener)
    with listener.connect() as session:
        assert_goes_on(session)
    file = Path(proxy.configuration["users"]["app"]["credentials"]["password_file"])
    file.rename(file.with_suffix(".away"))
    proxy.reload()
    server.lose_connections("app")
    with listener.connect() as session:
        assert_goes_on(session)


# Rules


@as_root
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_rule_that_is_removed_ends_its_sessions_and_no_others(make, open_place, way):
    rules = [
        {"uid": PRODUCER, "user": "producer"}, {"uid": CONSUMER, "user": "consumer"},
    ]
    more = {"path": open_place / "s", "socket_mode": "0666"} if way == "unix" else {}
    listener = Listener("app", identities=rules, **more)
    proxy = make(listener)
    with (
        ClientAs(listener.address, PRODUCER) as producer,
        ClientAs(listener.address, CONSUMER) as consumer,
    ):
        assert producer.raw("SET", "k", "v") == b"+OK\r\n"
        assert consumer.raw("GET", "k") == b"$1\r\nv\r\n"
        proxy.configuration["listeners"][0]["identities"] = rules[1:]
        proxy.reload()
        assert_ends(producer)
        assert consumer.raw("GET", "k") == b"$1\r\nv\r\n"
        with ClientAs(listener.address, PRODUCER) as again:
            assert again.read_to_end().startswith(b"-NOPERM redis-auth-proxy")
        proxy.configuration["listeners"][0]["identities"] = rules
        proxy.reload()
        with ClientAs(listener.address, PRODUCER) as again:
            assert again.raw("SET", "k", "w") == b"+OK\r\n"
        assert consumer.raw("GET", "k") == b"$1\r\nw\r\n"


@as_root
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_rule_put_before_others_takes_the_sessions_that_it_is_about(make, open_place, way):
    more = {"path": open_place / "s", "socket_mode": "0666"} if way == "unix" else {}
    # Over TCP the kernel is asked who comes only where a rule wants to know.
    rules = [{"uid": 0, "user": "app"}, {"any": True, "user": "app"}][way == "unix" :]
    listener = Listener("app", identities=rules, **more)
    proxy = make(listener)
    with (
        ClientAs(listener.address, PRODUCER) as producer,
        ClientAs(listener.address, CONSUMER) as consumer,
    ):
        assert_goes_on(producer, consumer)
        rules = proxy.configuration["listeners"][0]["identities"]
        rules.insert(0, {"uid": PRODUCER, "user": "producer"})
        proxy.reload()
        assert_ends(producer)
        assert_goes_on(consumer)
        # A rule that leads to the same user makes no difference.
        rules.insert(0, {"uid": CONSUMER, "user": "app"})
        proxy.reload()
        assert_goes_on(consumer)


@as_root
def test_sessions_whose_users_nobody_asked_for_end_where_that_comes_to_matter(make):
    listener, other = Listener("app"), Listener("app")
    proxy = make(listener, other)
    with ClientAs(listener.address, CONSUMER) as session, other.connect() as untouched:
        assert_goes_on(session, untouched)
        rules = proxy.configuration["listeners"][0]["identities"]
        rules.insert(0, {"uid": CONSUMER, "user": "app"})
        proxy.reload()
        assert_goes_on(session)
        rules.insert(0, {"uid": PRODUCER, "user": "producer"})
        rules.pop(1)
        proxy.reload()
        assert_ends(session)
        assert_goes_on(untouched)
    # Whoever comes now is asked for.
    with ClientAs(listener.address, PRODUCER) as producer:
        assert producer.raw("SET", "k", "v") == b"+OK\r\n"


@as_root
def test_groups_are_looked_at_again(make, open_place):
    rules = [{"gid": GROUP, "user": "app"}]
    listener = Listener(
        "app", path=open_place / "s", socket_mode="0666", identities=rules
    )
    proxy = make(listener)
    with (
        ClientAs(listener.address, PRODUCER, groups=[GROUP]) as first,
        ClientAs(listener.address, CONSUMER, groups=[GROUP, OTHER_GROUP]) as second,
    ):
        assert_goes_on(first, second)
        proxy.reload()
        assert_goes_on(first, second)
        proxy.configuration["listeners"][0]["identities"] = [{"gid": OTHER_GROUP, "user": "app"}]
        proxy.reload()
        assert_ends(first)
        assert_goes_on(second)


def login_rule(name, password, user="app", **more):
    digest = hashlib.sha256(password.encode()).hexdigest()
    return {"login": {"name": name, "password_sha256": digest}, "user": user} | more


NOAUTH = b"-NOAUTH Authentication required.\r\n"


def test_a_login_that_is_taken_away_ends_its_sessions_and_no_others(make):
    first, second = new_password(), new_password()
    rules = [
        login_rule("one", first), login_rule("two", second, "consumer"),
        {"any": True, "user": "tenant"},
    ]
    proxy = make(Listener("app", identities=rules))
    listener = proxy.proxy.listeners[0]
    with (
        listener.connect() as one, listener.connect() as two,
        listener.connect() as neither, listener.connect() as late,
    ):
        assert one.raw("AUTH", "one", first) == b"+OK\r\n"
        assert two.raw("AUTH", "two", second) == b"+OK\r\n"
        assert one.value("ACL", "WHOAMI") == b"app"
        assert neither.value("ACL", "WHOAMI") == late.value("ACL", "WHOAMI") == b"tenant"
        proxy.configuration["listeners"][0]["identities"] = rules[1:]
        proxy.reload()
        assert_ends(one)
        assert_goes_on(two)
        assert neither.value("ACL", "WHOAMI") == b"tenant"
        # Who came before can no longer become what there is no more.
        assert late.raw("AUTH", "one", first).startswith(b"-WRONGPASS")
        assert late.raw("AUTH", "two", second) == b"+OK\r\n"
        assert_goes_on(late)


def test_another_password_of_a_login_is_asked_for_later_and_ends_nobody(make):
    old, new = new_password(), new_password()
    proxy = make(Listener("app", identities=[login_rule("one", old)]))
    listener = proxy.proxy.listeners[0]
    with listener.connect() as session, listener.connect() as waiting:
        assert session.raw("AUTH", "one", old) == b"+OK\r\n"
        assert waiting.raw("GET", "k") == NOAUTH
        proxy.configuration["listeners"][0]["identities"] = [login_rule("one", new)]
        proxy.reload()
        assert_goes_on(session)
        assert waiting.raw("AUTH", "one", old).startswith(b"-WRONGPASS")
        assert waiting.raw("AUTH", "one", new) == b"+OK\r\n"
        assert_goes_on(session, waiting)


def test_a_login_that_becomes_necessary_or_needless_ends_those_whom_it_concerns(make):
    password = new_password()
    proxy = make(Listener("app"))
    listener = proxy.proxy.listeners[0]
    with listener.connect() as before:
        assert_goes_on(before)
        proxy.configuration["listeners"][0]["identities"] = [login_rule("one", password)]
        proxy.reload()
        assert_ends(before)
    with listener.connect() as waiting, listener.connect() as session:
        assert waiting.raw("GET", "k") == NOAUTH
        assert session.raw("AUTH", "one", password) == b"+OK\r\n"
        proxy.configuration["listeners"][0]["identities"] = [{"any": True, "user": "app"}]
        proxy.reload()
        assert_ends(waiting, session)
    with listener.connect() as free:
        assert_goes_on(free)


def test_an_ended_session_gets_nothing_of_what_it_was_owed(make):
    listener = Listener("app")
    proxy = make(listener)
    with listener.connect() as blocked, listener.connect() as subscribed:
        blocked.send("BLPOP", "list", "0")
        subscribed.send("SUBSCRIBE", "c")
        subscribed.read_raw()
        listener.settings["identities"][0]["user"] = "consumer"
        proxy.configuration["listeners"] = [listener.settings]
        proxy.reload()
        assert_ends(blocked, subscribed)
        eventually(
            lambda: proxy.log.count("reason=noLongerAdmitted") == 2,
            what="the reason is in the log",
        )


def test_limits_of_sessions_change(make):
    listener = Listener("app")
    proxy = make(listener, max_sessions=1)

    def connected():
        # The harness's own look at the listener may hold the place for a moment.
        client = listener.connect()
        if client.raw("GET", "nothing") == b"$-1\r\n":
            return client
        client.close()

    with eventually(connected, what="the first client") as first:
        with listener.connect() as refused:
            assert refused.read_to_end() == b"-ERR max number of clients reached\r\n"
        proxy.configuration["max_sessions"] = 2
        proxy.reload()
        with listener.connect() as second:
            assert_goes_on(first, second)


# Under load


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
def test_reloads_under_load_lose_nothing_of_untouched_sessions(make, server, mode, full_size):
    stays, goes = Listener("app", mode), Listener("app")
    proxy = make(stays, goes, threads=2)
    failures, done, finished = [], [0] * 6, threading.Event()

    def count(number):
        """Counts upwards; every answer must be the next number."""
        try:
            with stays.connect() as client:
                while not finished.is_set():
                    client.send_bytes(encode("INCR", f"count:{number}") * 20)
                    for _ in range(20):
                        done[number] += 1
                        assert client.read_raw() == b":%d\r\n" % done[number]
        except Exception as error:  # told by the test's own thread
            failures.append(error)

    def come_and_go():
        """Sessions that may be ended at any moment, and are not let in at others."""
        while not finished.is_set():
            try:
                with goes.connect() as client:
                    while not finished.is_set():
                        client.pipeline(*[("GET", "x")] * 10)
            except (OSError, ConnectionClosed):
                time.sleep(0.002)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(6)]
    threads += [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(40 if full_size else 12):
            goes.settings["identities"][0]["user"] = ("app", "consumer")[turn % 2]
            proxy.configuration["listeners"] = (
                [stays.settings] if turn % 3 == 0 else [goes.settings, stays.settings]
            )
            before = list(done)
            proxy.reload()
            eventually(
                lambda: failures or all(now > then for now, then in zip(done, before)),
                what="everybody gets on",
            )
    finally:
        finished.set()
        for thread in threads:
            thread.join(20)
    assert not failures
    for number in range(6):
        assert server.ask("GET", f"count:{number}") == b"%d" % done[number]
