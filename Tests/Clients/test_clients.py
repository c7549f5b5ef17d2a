"""Client libraries and tools see no difference between the proxy and a direct connection."""

import pytest

from clients import CLIENTS, JOBS, SCENARIO, Client, steps
from comparison import compare, ids


@pytest.fixture(scope="session")
def expectations():
    """What each client printed directly; filled when first asked for."""
    return {}


@pytest.fixture
def expected(expectations, direct):
    def lines(client: Client) -> list:
        if client.name not in expectations:
            expectations[client.name] = client.lines(direct)
        return expectations[client.name]

    return lines


def test_every_scenario_is_long_enough_to_mean_something():
    assert len(SCENARIO) >= 20
    assert len(JOBS) >= 20


@pytest.mark.parametrize("client", CLIENTS, ids=ids(CLIENTS))
def test_a_client_goes_through_the_whole_scenario(client, expected):
    assert SCENARIO - steps(expected(client)) == set()


@pytest.mark.parametrize("client", CLIENTS, ids=ids(CLIENTS))
def test_a_client_sees_no_difference(client, expected, proxied):
    compare(expected(client), client.lines(proxied))


def test_all_clients_at_once_see_no_difference(expected, proxied):
    expectations = {client: expected(client) for client in CLIENTS}
    runs = {client: client.start(proxied, client.prefix) for client in CLIENTS}
    # All of them end before the first is judged: none may run on into the next test.
    for run in runs.values():
        run.join()
    for client, run in runs.items():
        compare(expectations[client], run.lines())
