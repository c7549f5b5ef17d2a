"""The errors of the proxy's own: each is documented, and none can be forged by a client's text."""

import re

import pytest

from harness.proxy import REPOSITORY
from harness.resp import Error, encode

SOURCES = REPOSITORY / "Sources"
PAGE = SOURCES / "RedisAuthProxy/Documentation.docc/Errors.md"
# Where the text of a reply continues with bytes of the client's.
GAP = "…"

# Text that would be a reply, or several, if it stood in one unchanged.
FORGERIES = [b"\r\n+OK", b"x\r\n+OK\r\n", b"x\n:1\n", b"\r\r\n\n$2\r\nhi\r\n", b"'\r\n-ERR forged\r\n"]


def errors_in_the_source() -> set:
    """Every text that begins like an error reply, in the rooms that can answer a client."""
    found = set()
    for room in ("Proxy", "RESP", "Server"):
        for file in (SOURCES / room).rglob("*.swift"):
            for line in file.read_text().splitlines():
                if ".starts(with:" in line or line.lstrip().startswith("//"):
                    continue
                for text in re.findall(r'"(-[A-Z]+ [^"]*)"', line):
                    if not text.endswith(r"\r\n"):
                        text += GAP
                    found.add(text.removesuffix(r"\r\n"))
    prefix = "-ERR Protocol error: "
    violations = (SOURCES / "RESP/ProtocolViolation.swift").read_text()
    cases = re.findall(r'case \.(\w+).*?reply \+= "([^"\\]+)"', violations, re.S)
    assert len(cases) > 5, "the source is read wrongly"
    # What is put together in several statements.
    found.remove(prefix + GAP)
    found.remove("-ERR Syntax error in HELLO option '" + GAP)
    # What is recognised in the server's answers, and never said.
    found.discard("-ERR unknown command " + GAP)
    found |= {prefix + text + (GAP + "'" if text.endswith("'") else "") for _, text in cases}
    return found | {"-ERR Syntax error in HELLO option '" + GAP + "'"}


def test_the_documentation_has_exactly_the_errors_that_there_are():
    documented = re.findall(r"^\| `(-[^`]*)` \|", PAGE.read_text(), re.M)
    documented = [text.replace(r"\|", "|") for text in documented]
    assert len(documented) == len(set(documented))
    assert set(documented) == errors_in_the_source()


def test_every_documented_error_has_a_meaning():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `-")]
    assert len(rows) > 20
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)[2].strip()) > 10, row


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("state", ["fresh", "own connection", "transaction", "subscribed"])
def test_text_of_a_client_is_never_a_reply_of_its_own(gateway, protocol, state):
    """One reply for one command, whatever stands in its arguments, and the next in its place."""
    commands = []
    for text in FORGERIES:
        commands += [
            ("HELLO", text), ("HELLO", "3", text), ("HELLO", str(protocol), "SETNAME", text),
            ("AUTH", text), ("AUTH", text, text), ("AUTH", "a", "b", text),
            ("HELLO", str(protocol), "AUTH", text, text), ("HELLO", "3", "AUTH", text),
            (text, "x"), (b"GET" + text, "x"), (b"CLIENT" + text,), ("CLIENT", text),
            ("CLIENT", "SETNAME", text), ("CLIENT", "REPLY", text), ("CLIENT", "KILL", text),
            ("CLIENT", "TRACKING", text), ("SELECT", text), ("CONFIG", text), ("RESET", text),
            ("EVAL", b"return redis.error_reply(ARGV[1])", 0, text), ("GET", text, text),
            ("SUBSCRIBE",), ("WAIT", text, text), ("BLPOP", text, text), ("OBJECT", text, "k"),
        ]
    with gateway.connect(protocol=protocol) as client:
        if state == "own connection":
            assert client.raw("CLIENT", "SETNAME", "me") == b"+OK\r\n"
        elif state == "subscribed":
            client.raw("SUBSCRIBE", "c")
        for command in commands:
            if state == "transaction":
                assert client.raw("MULTI") == b"+OK\r\n"
            answer = client.value(*command)
            if state == "transaction" and answer == b"QUEUED":
                [answer] = client.value("EXEC")
            elif state == "transaction":
                assert client.value("EXEC").startswith(b"EXECABORT")
            # What has a line end in it, the reader refuses.
            assert isinstance(answer, Error), (command, answer)
            assert client.raw("NOSUCH", "sentinel").startswith(
                b"-ERR unknown command 'NOSUCH', with args beginning with: 'sentinel'"
            ), command


def test_text_of_a_client_is_never_a_reply_of_its_own_where_the_connection_ends(proxied):
    for text in FORGERIES:
        for request in (
            b"*2\r\n$4\r\nECHO\r\n" + text, b"*" + text, b"*1\r\n$" + text + b"\r\n",
            b'"' + text, encode("POST", text), b"\x16\x03\x01" + text,
        ):
            with proxied.connect() as client:
                client.send_bytes(request)
                client.half_close()
                received = client.read_to_end()
                assert received.count(b"\n") <= 1 or all(
                    line.startswith((b"-ERR ", b"*", b"$")) for line in received.split(b"\r\n")[:-1]
                ), (request, received)
                assert b"+OK" not in received and b"forged\r\n" not in received
