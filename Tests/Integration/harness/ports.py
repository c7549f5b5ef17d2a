"""Loopback ports that nothing listens on.

They are taken from below the kernel's ephemeral range: a thousand outgoing connections of another
test must not be able to occupy a port between its choice here and the bind of the server.
"""

import random
import socket

FIRST_PORT = 20_000
LAST_PORT = 31_999
ATTEMPTS = 200

_handed_out: set[int] = set()


def free_port() -> int:
    """A port that can be bound on 127.0.0.1 now and that no earlier call returned."""
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST_PORT, LAST_PORT)
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
    raise RuntimeError(f"no free port in {FIRST_PORT}-{LAST_PORT} after {ATTEMPTS} attempts")
