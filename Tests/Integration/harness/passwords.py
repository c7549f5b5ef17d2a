"""Passwords of one test run, all of them remembered so that no log may ever contain one."""

import secrets

SHORTEST_SECRET = 20

_known: set[str] = set()


def new_password(decoration: str = "") -> str:
    """A random password; `decoration` is appended for passwords with awkward characters."""
    password = "pw-" + secrets.token_hex(16) + decoration
    _known.add(password)
    return password


def remember(secret: str) -> None:
    """Another secret that no log may contain; short ones would be found in other words."""
    if secret and len(secret) >= SHORTEST_SECRET:
        _known.add(secret)


def found_in(text: str) -> list[str]:
    """The passwords of this run that stand in `text`, whole or in their random part."""
    return [password for password in _known if password in text or password[3:35] in text]
