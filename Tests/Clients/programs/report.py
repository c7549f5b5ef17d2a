"""What the Python programs share: how a step's result is printed, and how to wait for a state.

A line is `<step>: <result>`. A result must read the same in every run: long strings are printed by
length and digest, sets are sorted, and what a server makes up (ids) is left out by the program.
"""

import hashlib
import time

LONGEST_TEXT = 200
WAIT_SECONDS = 10
POLL_SECONDS = 0.005


def step(name: str, *results) -> None:
    print(f"{name}: {' '.join(canonical(result) for result in results)}", flush=True)


def canonical(value) -> str:
    if isinstance(value, (bytes, str)) and len(value) > LONGEST_TEXT:
        data = value if isinstance(value, bytes) else value.encode()
        kind = type(value).__name__
        return f"<{kind} of {len(value)}, {hashlib.sha1(data).hexdigest()}>"
    if isinstance(value, dict):
        items = sorted((canonical(key), canonical(item)) for key, item in value.items())
        return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(canonical(item) for item in value)) + "}"
    if isinstance(value, (list, tuple)):
        text = ", ".join(canonical(item) for item in value)
        return f"[{text}]" if isinstance(value, list) else f"({text})"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({value})"
    return repr(value)


def digest(values) -> str:
    """A short text for a long list."""
    text = "\n".join(canonical(value) for value in values)
    return f"{len(values)} values, {hashlib.sha1(text.encode()).hexdigest()}"


def is_blocked(clients: list, name: str) -> bool:
    """Whether CLIENT LIST shows a blocked connection with this client name."""
    return any(client["name"] == name and "b" in client["flags"] for client in clients)


def wait_until(condition, what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(POLL_SECONDS)
