"""Twelve hours in minutes: two hundred clients of all kinds while logins grow old beneath them.

    200 clients ──► proxy ── TLS ──► stand-in for ElastiCache ──► redis-server
    (workloads.py)    │              a token is good for 3 s, a connection for 12
                      └─ HTTP ─► moto, container credentials

Whatever the proxy has to do to stay logged in, no client may notice: no error, no close, no wrong
reply, no element or message lost or doubled. And the server must have seen what its documentation
demands: no connection beyond its limit, no token that is late, no command before a login.

    TWELVE_HOURS_SECONDS=…       how long the clients work in each form
    INTEGRATION_SIZE=full        five minutes, dedicated connections and Valkey too
"""

import os
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from harness.credential_endpoints import ContainerCredentials
from harness.elasticache import (
    LOST_ERROR, REFUSED_BY_ORDER, REFUSED_IN_TRANSACTION, REFUSED_SUBSCRIBED,
)
from harness.iam import ACCEPTED, NO_AWS, AccessKey, Cache, mint
from harness.moto import Moto
from harness.passwords import new_password
from harness.proxy import Listener, Upstream
from harness.resp import Client, eventually
from harness.server import RedisServer, ValkeyServer
from harness.workloads import SIZES, Setting, Workloads

IS_FULL_SIZE = os.environ.get("INTEGRATION_SIZE") == "full"
SECONDS = float(os.environ.get("TWELVE_HOURS_SECONDS") or (300 if IS_FULL_SIZE else 30))
MODES = ("multiplexed", "dedicated") if IS_FULL_SIZE else ("multiplexed",)

# The grain of a token's date is a second, so a fresh one may already look a second old.
TOKEN_SECONDS, CONNECTION_SECONDS = 3, 12
SESSION_SECONDS = 20
ROTATION_SECONDS = 2.0
OUTAGE_SECONDS = 30.0
# Clients that keep a connection of their own from the beginning to the end, at least so many.
LASTING_CONNECTIONS = 60

CACHE = Cache("twelve-hours", "eu-central-1")
KEY = AccessKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SECRET = "twelve/hours"


class Form:
    """A way to be logged in: where the credentials come from, and what happens to them."""

    is_iam = False
    server_kind = RedisServer
    # What the results of logins may be, besides accepted.
    may_be_refused = ()
    sizes = SIZES
    thought_seconds = 4.0
    # A connection that waits for these waits longer than it may live.
    quiet_seconds = CONNECTION_SECONDS + 2

    def __init__(self, start_elasticache, directory, cleanup: ExitStack):
        self.front = start_elasticache(
            CACHE, iam_users=("app",) if self.is_iam else (), token_seconds=TOKEN_SECONDS,
            connection_seconds=CONNECTION_SECONDS, server_kind=self.server_kind,
        )
        self.environment = dict(NO_AWS)
        self.directory = directory
        self.cleanup = cleanup
        self.prepare()

    def prepare(self) -> None:
        pass

    def credentials(self):
        """As they stand in the configuration; a password goes into a file."""
        return self.front.server.passwords["app"]

    # Called again and again during the run, each time so long after the last.
    turn_seconds = ROTATION_SECONDS

    def turn(self, proxy) -> None:
        """What happens to the credentials while the clients work."""

    def judge(self, logins: list) -> None:
        """What must be true of the logins after the run."""


class Password(Form):
    """The same password for ever: what the clients do is itself without a fault."""


class PasswordFile(Form):
    """A file with a new password every two seconds; for one of them the old one is good too."""

    may_be_refused = ("wrong password",)

    def turn(self, proxy) -> None:
        old, new = self.front.server.passwords["app"], new_password()
        self.front.set_passwords("app", new, old)
        proxy.write_password("app", new)
        time.sleep(ROTATION_SECONDS / 2)
        self.front.set_passwords("app", new)


class SecretsManager(Form):
    """The same with a secret that is rotated, and Secrets Manager out of reach in the middle."""

    may_be_refused = ("wrong password",)

    def prepare(self) -> None:
        self.moto = Moto(self.directory / "twelve-hours-moto")
        self.cleanup.callback(self.moto.stop)
        self.moto.create_secret(SECRET, self.value(self.front.server.passwords["app"]))
        self.environment |= self.moto.environment
        self.turns = 0
        self.outage_turns = min(OUTAGE_SECONDS, SECONDS / 3) / ROTATION_SECONDS

    @staticmethod
    def value(password: str) -> dict:
        return {"username": "app", "password": password}

    def credentials(self):
        return {"credentials": {"secrets_manager": {
            "secret_id": SECRET, "region": "us-east-1", "refresh_every": "1s",
        }}}

    def turn(self, proxy) -> None:
        self.turns += 1
        turns = SECONDS / ROTATION_SECONDS
        begins = turns / 2 - self.outage_turns / 2
        if begins <= self.turns < begins + self.outage_turns:
            if self.moto.process.is_running:
                self.moto.kill()
            return
        if not self.moto.process.is_running:
            self.moto.start()
        old, new = self.front.server.passwords["app"], new_password()
        version = self.moto.put_pending(SECRET, self.value(new))
        self.front.set_passwords("app", new, old)
        self.moto.make_current(SECRET, version)
        time.sleep(ROTATION_SECONDS / 2)
        self.front.set_passwords("app", new)


class TokenFile(Form):
    """Somebody else writes a fresh token into a file every second.

    The proxy takes it for a password: each new one is news, and it is not known when a login ends.
    So whoever waits must not wait longer than that.
    """

    is_iam = True
    # One that was read just before the next was written.
    may_be_refused = ("expired token",)
    turn_seconds = 1.0
    quiet_seconds = 2.0

    def prepare(self) -> None:
        self.front.trust(KEY)

    def credentials(self):
        return mint(KEY, CACHE, "app")

    def turn(self, proxy) -> None:
        proxy.write_password("app", self.credentials())


class IAM(Form):
    """Tokens signed with a key that lasts."""

    is_iam = True

    def prepare(self) -> None:
        self.front.trust(KEY)
        self.environment |= KEY.environment()

    def credentials(self):
        return {"credentials": {"iam": {
            "cache_name": CACHE.name, "region": CACHE.region,
            "renew_after": f"{CONNECTION_SECONDS // 2}s",
            "connection_limit": f"{CONNECTION_SECONDS}s",
        }}}

    def judge(self, logins: list) -> None:
        renewed = [login for login in logins if not login["is_first"]]
        assert renewed, "no connection was renewed"
        # Who waits and who subscribes has a connection of its own for the whole time. It is
        # renewed, and not replaced.
        wanted = LASTING_CONNECTIONS * SECONDS / CONNECTION_SECONDS
        assert len(renewed) > wanted, f"{len(renewed)} renewals, more than {wanted:.0f} are wanted"


class ValkeyIAM(IAM):
    """The same with a newer server behind."""

    server_kind = ValkeyServer


class SessionIAM(IAM):
    """Tokens signed with keys of twenty seconds, as a container gets them."""

    def prepare(self) -> None:
        self.container = ContainerCredentials(
            lifetime_seconds=SESSION_SECONDS, issued=self.front.trust
        )
        self.cleanup.callback(self.container.stop)
        self.environment |= self.container.environment()

    def judge(self, logins: list) -> None:
        super().judge(logins)
        assert len(self.container.keys) >= SECONDS / SESSION_SECONDS


class LostErrorsIAM(IAM):
    """Now and then renewals are refused, and the server drops the error of what is refused."""

    may_be_refused = (REFUSED_BY_ORDER, REFUSED_BY_ORDER + LOST_ERROR)

    def prepare(self) -> None:
        super().prepare()
        self.front.set(loses_errors=True)
        self.turns = 0

    def turn(self, proxy) -> None:
        # Two seconds in six: less than any connection has left when its renewal is due.
        self.turns += 1
        self.front.set(refuses_renewals=self.turns % 3 == 1)

    def judge(self, logins: list) -> None:
        super().judge(logins)
        assert [login for login in logins if login["result"] != ACCEPTED], "none was refused"


class UnrenewableIAM(IAM):
    """No renewal is ever accepted, new logins are: every connection must be replaced in time."""

    may_be_refused = (REFUSED_BY_ORDER,)
    # A subscriber cannot change its connection without a moment between, and what WATCH has seen
    # cannot be carried over.
    thought_seconds = 0.05
    sizes = {kind: 0 if "subscribers" in kind else count for kind, count in SIZES.items()}

    def prepare(self) -> None:
        super().prepare()
        self.front.set(refuses_renewals=True)

    def judge(self, logins: list) -> None:
        assert REFUSED_BY_ORDER in {login["result"] for login in logins}


FORMS = [
    Password, PasswordFile, SecretsManager, TokenFile, IAM, SessionIAM, LostErrorsIAM,
    UnrenewableIAM, *([ValkeyIAM] if IS_FULL_SIZE else []),
]


@pytest.fixture
def form(request, start_elasticache, place):
    with ExitStack() as cleanup:
        yield request.param(start_elasticache, place, cleanup)


def started(form: Form, start_proxy, mode: str):
    """A proxy for the form's user, its listener, and one where each client needs a login."""
    listeners = [Listener("app", mode), Listener("app", "dedicated")]
    proxy = start_proxy(
        {"cache": Upstream.verified(form.front)}, {"app": form.credentials()}, listeners,
        environment=form.environment,
    )
    eventually(lambda: answers(listeners[0]), 15, "the proxy serves clients")
    return proxy, *listeners


def answers(listener: Listener) -> bool:
    with listener.connect() as client:
        return client.raw("PING") == b"+PONG\r\n"


@pytest.mark.heavy
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", FORMS, indirect=True, ids=lambda form: form.__name__)
def test_two_hundred_clients_notice_nothing_of_their_logins_growing_old(form, start_proxy, mode):
    proxy, listener, visited = started(form, start_proxy, mode)
    form.front.forget()
    clients = Workloads(Setting(
        listener.address, SECONDS, quiet_seconds=form.quiet_seconds, sizes=tuple(form.sizes.items()),
        thought_seconds=form.thought_seconds, visitors_address=visited.address,
    ))
    over = threading.Event()
    turning = threading.Thread(target=turn, args=(form, proxy, over))
    turning.start()
    try:
        tally = clients.finish()
    finally:
        over.set()
        turning.join()
    report = form.front.report()
    logins = report["logins"]
    print(f"\n{type(form).__name__}, {mode}: {tally.describe()}\n  {describe(logins, tally)}")
    with form.front.server.admin() as reader:
        tally.check(reader)
    assert not turning.failed, turning.failed
    assert tally.commands > 1000 * SECONDS, "too little was done"
    if form.sizes == SIZES:
        assert tally.messages > 100 * SECONDS, "too little was said"
    assert tally.collisions, "no two transactions met"

    assert not report["too_old"], f"beyond the limit: {report['too_old'][:5]}"
    assert not report["too_early"], f"before a login: {report['too_early'][:5]}"
    results = {login["result"] for login in logins}
    assert not results & {REFUSED_IN_TRANSACTION, REFUSED_SUBSCRIBED}
    assert results <= {ACCEPTED, *form.may_be_refused}, form.front.results()
    form.judge(logins)
    log = proxy.log()
    assert not [signature for signature in form.front.signatures() if signature in log]
    assert proxy.stop() == 0


def turn(form: Form, proxy, over: threading.Event) -> None:
    """The form's turns until the run is over; `failed` says why there are no more."""
    thread = threading.current_thread()
    thread.failed = None
    try:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            due += form.turn_seconds
            form.turn(proxy)
    except Exception as error:
        thread.failed = repr(error)


def describe(logins: list, tally) -> str:
    """The logins of a run, and what plain commands took while one went on and while none did."""
    renewals = [login["time"] for login in logins if not login["is_first"]]
    ages = [login["age_seconds"] for login in logins if login["age_seconds"] is not None]
    results = Counter(login["result"] for login in logins)
    near = tally.percentile_milliseconds(99, renewals, within=0.02)
    return (
        f"{len(logins)} logins {dict(results)}, {len(renewals)} of them renewals, at most"
        f" {max(ages, default=0):.1f} s after the last; p99 of plain commands around a renewal"
        f" {near:.2f} ms, of all {tally.percentile_milliseconds(99):.2f} ms"
    )


@pytest.mark.parametrize("mode", ("multiplexed", "dedicated"))
@pytest.mark.parametrize("form", [Password, IAM], indirect=True, ids=lambda form: form.__name__)
def test_not_a_byte_of_a_clients_command_goes_out_before_a_login(form, start_proxy, mode):
    """The server refuses every login, then lets one through: only then it sees the command."""
    if form.is_iam:
        form.front.set(refuses_logins=True)
    else:
        form.front.server.passwords["app"], right = new_password(), form.credentials()
    listener = Listener("app", mode)
    proxy = start_proxy(
        {"cache": Upstream.verified(form.front)}, {"app": form.credentials()}, [listener],
        environment=form.environment,
    )
    with Client(listener.address, timeout=60) as client:
        client.send("SET", "secret-key", "secret-value")
        answer = client.read().raw
        assert answer[:1] == b"-", answer
    report = form.front.report()
    assert report["logins"] and not report["too_early"]
    assert ACCEPTED not in form.front.results()
    with form.front.server.admin() as reader:
        assert reader.value("EXISTS", "secret-key") == 0
    if form.is_iam:
        form.front.set(refuses_logins=False)
    else:
        proxy.write_password("app", right)
    eventually(lambda: answers(listener), 30, "the proxy serves clients")
    assert not form.front.report()["too_early"]


@pytest.mark.heavy
@pytest.mark.parametrize("form", [SessionIAM], indirect=True, ids=lambda form: form.__name__)
def test_no_token_is_signed_with_a_key_that_has_expired(form, start_proxy):
    """A new connection, and so a new token, again and again while keys of twenty seconds expire."""
    proxy, _, listener = started(form, start_proxy, "dedicated")
    expired = form.container.keys[0].expires_at
    while time.time() < expired + 2 or IS_FULL_SIZE and len(form.container.keys) < 6:
        assert answers(listener)
        time.sleep(0.05)
    assert len(form.container.keys) >= 2
    assert set(form.front.results()) == {ACCEPTED}
    assert not form.front.report()["too_early"]
    assert proxy.stop() == 0


def test_the_workloads_are_two_hundred_clients():
    assert sum(SIZES.values()) == 200
