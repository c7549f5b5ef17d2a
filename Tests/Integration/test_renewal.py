"""Connections in every state outlive their logins, several times.

The stand-in for ElastiCache ends a connection six seconds after its last login, and a token is good
for three. Each client here gets its own connection into a state, keeps it there for more than two
such lives, and must notice nothing. (Two hundred clients at once are in test_twelve_hours.py.)
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.elasticache import REFUSED_BY_ORDER
from harness.iam import ACCEPTED, AccessKey, Cache
from harness.proxy import Listener, Upstream
from harness.resp import Client, bulk, eventually

KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
CACHE = Cache("renewal-01", "eu-central-1")
TOKEN_SECONDS, CONNECTION_SECONDS = 3, 6
LONG_SECONDS = 2.5 * CONNECTION_SECONDS
VALUE = b"v" * 4_000_000
# `consumer` may do nothing but GET.
USERS = ("app", "consumer")


def iam() -> dict:
    return {"credentials": {"iam": {
        "cache_name": CACHE.name, "region": CACHE.region,
        "renew_after": f"{CONNECTION_SECONDS // 2}s", "connection_limit": f"{CONNECTION_SECONDS}s",
    }}}


@pytest.fixture
def started(start_elasticache, start_proxy):
    front = start_elasticache(
        CACHE, iam_users=USERS, token_seconds=TOKEN_SECONDS, connection_seconds=CONNECTION_SECONDS,
    )
    front.trust(KEY)
    listeners = {
        (user, mode): Listener(user, mode)
        for user in USERS for mode in ("multiplexed", "dedicated")
    }
    proxy = start_proxy(
        {"cache": Upstream.verified(front)}, {user: iam() for user in USERS},
        list(listeners.values()), environment=KEY.environment(),
    )
    eventually(lambda: answers(listeners["app", "multiplexed"]), 15, "the proxy serves clients")
    front.forget()
    return front, proxy, listeners


def answers(listener: Listener) -> bool:
    with listener.connect() as client:
        return client.raw("PING") == b"+PONG\r\n"


def connect(listener: Listener) -> Client:
    return Client(listener.address, timeout=LONG_SECONDS + 30)


class State:
    """What a client does before the long time, and what it must be told behind it."""

    user = "app"

    def __init__(self, listener: Listener, server):
        self.listener, self.server = listener, server
        self.client = connect(listener)
        self.key = type(self).__name__

    def begin(self) -> None:
        pass

    def meanwhile(self, until: float) -> None:
        time.sleep(max(0.0, until - time.monotonic()))

    def end(self) -> None:
        raise NotImplementedError


class Idle(State):
    def end(self):
        assert self.client.raw("SET", self.key, "x") == b"+OK\r\n"


class Watching(State):
    def begin(self):
        assert self.client.raw("WATCH", self.key) == b"+OK\r\n"

    def end(self):
        with self.server.admin() as other:
            other.value("SET", self.key, "seen")
        assert self.client.raw("MULTI") == b"+OK\r\n"
        assert self.client.raw("GET", self.key) == b"+QUEUED\r\n"
        assert self.client.raw("EXEC") == b"*-1\r\n", "what WATCH saw is forgotten"


class Popping(State):
    def begin(self):
        self.client.send("BLPOP", self.key, 0)

    def end(self):
        with self.server.admin() as other:
            assert other.value("RPUSH", self.key, "element") == 1
        assert self.client.read().raw == b"*2\r\n" + bulk(self.key.encode()) + bulk(b"element")


class PoppingForAWhile(State):
    """A timeout that ends by itself, in the middle of the second life."""

    seconds = 1.6 * CONNECTION_SECONDS

    def begin(self):
        self.started = time.monotonic()
        self.client.send("BZPOPMIN", self.key, self.seconds)

    def meanwhile(self, until):
        assert self.client.read().raw == b"*-1\r\n"
        assert time.monotonic() - self.started >= self.seconds - 0.02

    def end(self):
        assert self.client.raw("PING") == b"+PONG\r\n"


class ReadingFromNow(State):
    """XREAD from `$`: an entry that is added at any moment is seen."""

    def begin(self):
        self.client.send("XREAD", "BLOCK", 0, "STREAMS", self.key, "$")

    def end(self):
        with self.server.admin() as other:
            identifier = other.value("XADD", self.key, "*", "n", "1")
        answer = self.client.read().value
        assert answer[0][1][0][0] == identifier


class ReadingAsAGroup(State):
    def begin(self):
        with self.server.admin() as other:
            assert other.raw("XGROUP", "CREATE", self.key, "g", "$", "MKSTREAM") == b"+OK\r\n"
        self.client.send(
            "XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", self.key, ">")

    def end(self):
        with self.server.admin() as other:
            identifier = other.value("XADD", self.key, "*", "n", "1")
        assert self.client.read().value[0][1][0][0] == identifier


class Waiting(State):
    """For a replica that there is not."""

    def begin(self):
        assert self.client.raw("SET", self.key, "x") == b"+OK\r\n"
        self.started = time.monotonic()
        self.client.send("WAIT", 1, int(1000 * 1.6 * CONNECTION_SECONDS))

    def meanwhile(self, until):
        assert self.client.read().raw == b":0\r\n"
        assert time.monotonic() - self.started >= 1.6 * CONNECTION_SECONDS - 0.02

    def end(self):
        assert self.client.raw("GET", self.key) == bulk(b"x")


class Monitoring(State):
    def begin(self):
        assert self.client.raw("MONITOR") == b"+OK\r\n"

    def end(self):
        with self.server.admin() as other:
            other.value("ECHO", self.key)
        while True:
            line = self.client.read().raw
            assert line[:1] == b"+" and line != b"+OK\r\n", line
            assert b"redis-auth-proxy-" not in line and b"X-Amz" not in line
            if b'"ECHO" "' + self.key.encode() in line:
                return


class Tracking(State):
    def begin(self):
        self.client.send("HELLO", 3)
        self.client.read()
        assert self.client.raw("CLIENT", "TRACKING", "ON") == b"+OK\r\n"
        assert self.client.raw("GET", self.key) == b"_\r\n"

    def end(self):
        with self.server.admin() as other:
            other.value("SET", self.key, "changed")
        push = self.client.read().value
        assert push == [b"invalidate", [self.key.encode()]]


class Streaming(State):
    """A big value that is read in sips, one behind the other, all the time."""

    def begin(self):
        assert self.client.raw("SET", self.key, VALUE) == b"+OK\r\n"

    def meanwhile(self, until):
        wanted = bulk(VALUE)
        while time.monotonic() < until:
            self.client.send("GET", self.key)
            received = 0
            while received < len(wanted):
                chunk = self.client.socket.recv(64 * 1024)
                assert chunk and wanted[received : received + len(chunk)] == chunk
                received += len(chunk)
                time.sleep(0.02)

    def end(self):
        assert self.client.raw("PING") == b"+PONG\r\n"


class Subscribed(State):
    protocol = 2

    def begin(self):
        if self.protocol == 3:
            self.client.send("HELLO", 3)
            self.client.read()
        assert self.client.value("SUBSCRIBE", self.key)[2] == 1

    def meanwhile(self, until):
        self.said = 0
        with self.server.admin() as other:
            while time.monotonic() < until:
                self.said += 1
                assert other.value("PUBLISH", self.key, self.said) == 1
                time.sleep(0.01)

    def end(self):
        for number in range(1, self.said + 1):
            assert self.client.read().value[2] == b"%d" % number


class SubscribedInRESP3(Subscribed):
    protocol = 3


class AllowedToGet(State):
    """All that its user may do is GET."""

    user = "consumer"

    def meanwhile(self, until):
        while time.monotonic() < until:
            assert self.client.raw("GET", self.key) == b"$-1\r\n"
            time.sleep(0.01)

    def end(self):
        assert self.client.raw("SET", self.key, 1).startswith(b"-NOPERM")


STATES = [
    Idle, Watching, Popping, PoppingForAWhile, ReadingFromNow, ReadingAsAGroup, Waiting, Monitoring,
    Tracking, Streaming, Subscribed, SubscribedInRESP3, AllowedToGet,
]


def lived(state: State) -> None:
    """The whole of a state; an error in it says whose it is."""
    try:
        state.begin()
        state.meanwhile(time.monotonic() + LONG_SECONDS)
        state.end()
    except Exception as error:
        raise AssertionError(f"{state.key}: {error!r}") from error
    finally:
        state.client.close()


@pytest.mark.heavy
@pytest.mark.parametrize("mode", ("multiplexed", "dedicated"))
def test_a_connection_in_any_state_outlives_its_login(started, mode):
    front, proxy, listeners = started
    states = [kind(listeners[kind.user, mode], front.server) for kind in STATES]
    with ThreadPoolExecutor(len(states)) as pool:
        results = [pool.submit(lived, state) for state in states]
    wrong = [str(result.exception()) for result in results if result.exception()]
    assert not wrong, "\n".join(wrong)
    report = front.report()
    assert not report["too_old"] and not report["too_early"]
    assert front.results().keys() == {ACCEPTED}
    assert any(not login["is_first"] for login in report["logins"])
    assert "X-Amz-Signature" not in proxy.log()


def test_a_renewal_that_is_refused_is_explained_and_ended_by_the_next(started):
    front, proxy, listeners = started
    over = threading.Event()
    answers_seen = []

    def ask():
        with connect(listeners["app", "multiplexed"]) as client:
            while not over.wait(0.01):
                answers_seen.append(client.raw("PING"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        front.set(refuses_renewals=True, loses_errors=True)
        eventually(
            lambda: REFUSED_BY_ORDER in " ".join(front.results()), 15, "a renewal is refused")
        eventually(
            lambda: "cannot renew a login upstream: wanted to log in again as 'app'" in proxy.log()
            or "did not answer a login" in proxy.log(), 15, "the log says so")
        front.set(refuses_renewals=False, loses_errors=False)
        eventually(
            lambda: any(
                not login["is_first"] and login["result"] == ACCEPTED
                for login in front.report()["logins"]
            ), 15, "a renewal is accepted")
    finally:
        over.set()
        asking.join()
    assert set(answers_seen) == {b"+PONG\r\n"}
    assert not front.report()["too_old"]
