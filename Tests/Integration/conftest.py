"""Integration tests: the built proxy in front of a real redis-server with TLS and ACL users.

Behaviour is tested three times by the same code, `direct` (plain connection to a reference server:
there the expectation comes from), `multiplexed` and `dedicated` (through the proxy). Faults,
rotation, drain and the like have a proxy of their own per test.

    pytest Tests/Integration                      all of it
    pytest Tests/Integration -k direct            the expectations alone; needs no proxy
    REDIS_AUTH_PROXY=/path/to/binary pytest …     another binary
    INTEGRATION_SIZE=full pytest …                the full size of the long ones (chaos, benchmark)
"""

import os
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import passwords  # noqa: E402
from harness import process as processes  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.proxy import Listener, Proxy, Upstream  # noqa: E402
from harness.relay import Relay  # noqa: E402
from harness.resp import Client, Error  # noqa: E402
from harness.server import ACCESS_STRINGS, PASSWORDS, RedisServer, ValkeyServer  # noqa: E402

TEST_LIMIT_SECONDS = 120
HEAVY_TEST_LIMIT_SECONDS = 900
LOG_TAIL_CHARACTERS = 6000
# Begins before all others: minutes in one file, which the last of two processes would end alone.
LONGEST_FILE = "test_twelve_hours.py"

GATEWAYS = ("direct", "multiplexed", "dedicated")


class Gateway:
    """A way to reach a server: directly, or through the proxy in one of its modes."""

    def __init__(self, name: str, server: RedisServer, listeners: dict = None):
        self.name = name
        self.server = server
        self.listeners = listeners

    @property
    def is_direct(self) -> bool:
        return self.listeners is None

    def connect(self, user: str = "app", protocol: int = 2, timeout: float = 15.0) -> Client:
        """A connection on which `user` can send commands at once."""
        if self.is_direct:
            return self.server.connect(user, protocol, timeout)
        client = self.listeners[user].connect(timeout)
        if protocol == 3:
            answer = client.value("HELLO", 3)
            assert not isinstance(answer, Error), f"HELLO 3 as {user}: {answer!r}"
        return client

    def connect_anonymously(self) -> Client:
        """A connection as a client without credentials makes it."""
        return Client(self.server.address) if self.is_direct else self.connect("app")

    def address(self, user: str = "app"):
        return self.server.address if self.is_direct else self.listeners[user].address

    def login(self, user: str = "app"):
        """What a client must send as AUTH, or None."""
        return (user, self.server.passwords[user]) if self.is_direct else None


@pytest.fixture(scope="session")
def directory():
    """A short path (Unix socket names are limited to 107 bytes), gone after the run."""
    path = Path(tempfile.mkdtemp(prefix="rap-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def authority(directory):
    return Authority(directory / "authority", "redis-auth-proxy test CA")


@pytest.fixture(scope="session")
def other_authority(directory):
    return Authority(directory / "other-authority", "some other CA")


@pytest.fixture(scope="session")
def server(directory, authority):
    """The TLS server that most tests share."""
    with _running(RedisServer(directory / "server", authority)) as running:
        yield running


@pytest.fixture(scope="session")
def reference(directory):
    """The plain server with the same users, on which expectations are checked."""
    with _running(RedisServer(directory / "reference")) as running:
        yield running


@pytest.fixture(scope="session")
def valkey(directory):
    """A newer server with the same users; plain, because its build has no TLS."""
    options = {"availability-zone": "xx-east-1a"}
    with _running(ValkeyServer(directory / "valkey", options=options)) as running:
        yield running


@pytest.fixture(scope="session")
def shared_proxy(directory, server):
    """One proxy with a listener per user and mode, for all tests of behaviour."""
    listeners = {
        mode: {user: Listener(user, mode) for user in ACCESS_STRINGS}
        for mode in GATEWAYS[1:]
    }
    proxy = Proxy(
        directory / "shared-proxy",
        {"cache": Upstream.verified(server)},
        dict(PASSWORDS),
        [listener for mode in listeners.values() for listener in mode.values()],
        max_sessions=3000,
    )
    proxy.by_mode = listeners
    yield proxy
    assert proxy.stop() == 0


@pytest.fixture(params=GATEWAYS)
def gateway(request, reference):
    """A way to an empty server."""
    if request.param == "direct":
        made = Gateway("direct", reference)
    else:
        proxy = request.getfixturevalue("shared_proxy")
        made = Gateway(
            request.param, request.getfixturevalue("server"), proxy.by_mode[request.param]
        )
    _clean(made.server)
    yield made
    if not made.is_direct:
        _check_alive(proxy)


@pytest.fixture(params=GATEWAYS[1:])
def proxied(request, server, shared_proxy):
    """The proxy alone, for what a server without a proxy cannot show."""
    _clean(server)
    yield Gateway(request.param, server, shared_proxy.by_mode[request.param])
    _check_alive(shared_proxy)


@pytest.fixture
def direct(reference):
    """The reference, for tests that compare with it."""
    _clean(reference)
    return Gateway("direct", reference)


@pytest.fixture
def start_proxy(directory, request):
    """Starts proxies that are drained, and whose logs are checked, after the test."""
    started = []

    def start(upstreams, users, listeners, name="proxy", **settings) -> Proxy:
        place = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=directory))
        proxy = Proxy(place, upstreams, users, listeners, **settings)
        started.append(proxy)
        return proxy

    def start_from_flags(listeners, *flags, **settings) -> Proxy:
        place = Path(tempfile.mkdtemp(prefix="proxy-", dir=directory))
        proxy = Proxy.from_flags(place, listeners, *flags, **settings)
        started.append(proxy)
        return proxy

    start.from_flags = start_from_flags
    yield start
    for proxy in started:
        if proxy.process.is_running:
            proxy.process.kill()
        proxy.check_log()


@pytest.fixture
def start_server(directory, authority):
    """Starts servers of a test's own."""
    started = []

    def start(**options) -> RedisServer:
        place = Path(tempfile.mkdtemp(prefix="server-", dir=directory))
        options.setdefault("authority", authority)
        server = RedisServer(place, **options)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process is not None:
            server.thaw()
        server.stop()


@pytest.fixture
def start_elasticache(directory, authority):
    """Starts stand-ins for ElastiCache, each with a server of its own."""
    with _elasticache(directory, authority) as start:
        yield start


@pytest.fixture(scope="module")
def module_elasticache(directory, authority):
    """The same for all tests of a file."""
    with _elasticache(directory, authority) as start:
        yield start


@contextmanager
def _elasticache(directory, authority):
    # Not above: what needs no AWS needs no botocore either.
    from harness.elasticache import ElastiCache

    started = []

    def start(cache, **options) -> ElastiCache:
        place = Path(tempfile.mkdtemp(prefix="elasticache-", dir=directory))
        started.append(ElastiCache(place, authority, cache, **options))
        return started[-1]

    yield start
    for front in started:
        front.stop()


@pytest.fixture(scope="module")
def module_moto(directory):
    """AWS's HTTP endpoints for all tests of a file."""
    from harness.moto import Moto

    moto = Moto(Path(tempfile.mkdtemp(prefix="moto-", dir=directory)))
    yield moto
    moto.stop()


@pytest.fixture
def start_relay(authority):
    """Starts recording relays in front of a server."""
    started = []

    def start(server) -> Relay:
        relay = Relay(server, authority.issue("relay"))
        started.append(relay)
        return relay

    yield start
    for relay in started:
        relay.close()


@pytest.fixture
def place(directory):
    return Path(tempfile.mkdtemp(prefix="place-", dir=directory))


@pytest.fixture
def open_place():
    """A directory that every user can reach, for sockets."""
    path = Path(tempfile.mkdtemp(prefix="rap-open-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def full_size() -> bool:
    return os.environ.get("INTEGRATION_SIZE", "quick") == "full"


def _check_alive(proxy: Proxy) -> None:
    """A proxy that died fails the test it died in, and not every test behind it."""
    if not proxy.process.is_running:
        code = proxy.process.wait()
        proxy.check_log()
        proxy.start_again()
        raise AssertionError(f"the proxy ended with {code} during this test")


def _clean(server: RedisServer) -> None:
    with server.admin() as admin:
        assert admin.value("FLUSHALL") == b"OK"
        assert admin.value("SCRIPT", "FLUSH") == b"OK"


class _running:
    def __init__(self, server):
        self.server = server

    def __enter__(self):
        return self.server

    def __exit__(self, *_):
        self.server.stop()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name != LONGEST_FILE)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """No test runs for ever: the alarm interrupts whatever it waits for."""
    heavy = item.get_closest_marker("heavy") is not None
    limit = HEAVY_TEST_LIMIT_SECONDS if heavy else TEST_LIMIT_SECONDS

    for child in processes._recently_running:
        child.mark_log()

    def give_up(*_):
        raise AssertionError(f"the test took longer than {limit} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what every proxy logged since the test began."""
    report = (yield).get_result()
    if report.failed:
        for child in processes._recently_running:
            if child.log_file.name == "proxy.log" and child.log_file.exists():
                text = child.log_since_mark()[-LOG_TAIL_CHARACTERS:]
                for secret in passwords.found_in(text):
                    text = text.replace(secret, "<a password!>")
                state = "running" if child.is_running else f"exited {child.child.returncode}"
                report.sections.append((f"{child.log_file} (pid {child.pid}, {state})", text))
    if call.when == "teardown":
        processes._recently_running[:] = [
            child for child in processes._recently_running if child.is_running
        ]
