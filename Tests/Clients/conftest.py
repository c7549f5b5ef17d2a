"""Real client programs: what each prints directly and through the proxy must be the same.

    programs/redis_py.py … ──► reference server                   "direct": the expectation
                         ├───► proxy, multiplexed ── TLS ──► server
                         └───► proxy, dedicated   ── TLS ──► server

The servers, certificates and the proxy are those of the integration tests. The reference lets a
client without a password in, so a program is called with the same arguments everywhere and only
the port differs.

    pytest Tests/Clients                     all of it
    REDIS_AUTH_PROXY=/path/to/binary pytest  another binary
"""

import importlib.util
import sys
from pathlib import Path

import pytest

INTEGRATION = Path(__file__).resolve().parent.parent / "Integration"

# By file, because a plain `import conftest` would find this one.
_specification = importlib.util.spec_from_file_location(
    "integration_conftest", INTEGRATION / "conftest.py"
)
integration = importlib.util.module_from_spec(_specification)
sys.modules["integration_conftest"] = integration
_specification.loader.exec_module(integration)

from harness.proxy import Listener, Proxy, Upstream  # noqa: E402

directory = integration.directory
authority = integration.authority
server = integration.server
reference = integration.reference
pytest_runtest_protocol = integration.pytest_runtest_protocol
pytest_runtest_makereport = integration.pytest_runtest_makereport

MODES = ("multiplexed", "dedicated")


@pytest.fixture(scope="session")
def proxy(directory, server):
    """One proxy with a listener per mode, as all clients' only way to `server`."""
    by_mode = {mode: Listener("app", mode) for mode in MODES}
    running = Proxy(
        directory / "clients-proxy",
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        list(by_mode.values()),
    )
    running.by_mode = by_mode
    yield running
    assert running.stop() == 0


class Way:
    """A way to an empty server: its name, and where clients connect."""

    def __init__(self, name: str, server, address):
        self.name = name
        self.server = server
        self.host, self.port = address


def _prepare(server) -> None:
    integration._clean(server)
    # `redis-cli --rdb` need not wait for other replicas to come.
    server.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)


@pytest.fixture
def direct(reference):
    _prepare(reference)
    return Way("direct", reference, reference.address)


@pytest.fixture(params=MODES)
def proxied(request, server, proxy):
    _prepare(server)
    yield Way(request.param, server, proxy.by_mode[request.param].address)
    integration._check_alive(proxy)
