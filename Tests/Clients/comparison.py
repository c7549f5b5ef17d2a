"""How the output of two runs is compared."""


def compare(expected: list, got: list) -> None:
    """Fails at the first line that differs, showing both."""
    for number, (there, here) in enumerate(zip(expected, got), 1):
        assert here == there, f"line {number}: proxied, then direct"
    assert got[len(expected) :] == [], "printed through the proxy only"
    assert expected[len(got) :] == [], "printed directly only"


def ids(clients: list) -> list:
    return [client.name for client in clients]
