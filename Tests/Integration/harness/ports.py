"""Loopback ports that nothing listens on.

They are taken from below the kernel's ephemeral range: a thousand outgoing connections of another
test must not be able to occupy a port between its choice here and the bind of the server. Nor must
pytest's other process, which has ports of its own.
"""

import os
import random
import socket

FIRST_PORT = 20_000
LAST_PORT = 31_999
ATTEMPTS = 200

# gw0, gw1 and so on; without a name where pytest runs alone.
_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
_process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_share = (LAST_PORT + 1 - FIRST_PORT) // _processes
_first = FIRST_PORT + _process * _share
_handed_out: set[int] = set()


def free_port() -> int:
    """A port that can be bound on 127.0.0.1 now and that no earlier call returned."""
    for _ in range(ATTEMPTS):
        port = random.randrange(_first, _first + _share)
        if port in _handed_out:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise RuntimeError(f"no free port in {_first}-{_first + _share - 1} after {ATTEMPTS} attempts")
