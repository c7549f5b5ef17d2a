"""Input that is no RESP is refused as the server refuses it, and harms nobody else."""

import socket
import ssl

import pytest

from harness.resp import Client, bulk, encode, eventually

# Each of these draws an error from the server, which then closes the connection.
REFUSED = {
    "count that is no number": b"*abc\r\n",
    "count with a space": b"* 1\r\n$4\r\nPING\r\n",
    "count with a plus": b"*+1\r\n$4\r\nPING\r\n",
    "count with a leading zero": b"*01\r\n$4\r\nPING\r\n",
    "empty count": b"*\r\n$4\r\nPING\r\n",
    "count over the limit": b"*2147483648\r\n",
    "count beyond 64 bits": b"*99999999999999999999999\r\n",
    "count line without end": b"*" + b"1" * 70_000,
    "element that is no bulk": b"*1\r\n:1\r\n",
    "element that is inline": b"*2\r\n$3\r\nGET\r\nkey\r\n",
    "length that is no number": b"*1\r\n$x\r\n",
    "negative length": b"*1\r\n$-1\r\n",
    "empty length": b"*1\r\n$\r\n",
    "length over the limit": b"*1\r\n$536870913\r\n",
    "length beyond 64 bits": b"*1\r\n$99999999999999999999999\r\n",
    "length line without end": b"*1\r\n$" + b"1" * 70_000,
    "nested array": b"*1\r\n*1\r\n$4\r\nPING\r\n",
    "quote without end": b'SET k "unbalanced\r\n',
    "quote followed by text": b'SET k "a"b\r\n',
    "inline line without end": b"x" * 70_000,
    "RESP3 map as a request": b"*1\r\n%1\r\n+a\r\n+b\r\n",
    "huge count, then nonsense": b"*2147483647\r\n$4\r\nPING\r\n!oops\r\n",
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind)
@pytest.mark.parametrize("before", [b"", encode("SET", "k", "v") + encode("GET", "k")],
                         ids=["alone", "behind commands"])
def test_malformed_input_draws_the_servers_error_and_the_connection_closes(
    proxied, direct, kind, before
):
    with proxied.connect() as bystander:
        with direct.connect() as there, proxied.connect() as here:
            for client in (there, here):
                client.send_bytes(before + REFUSED[kind])
            expected = there.read_to_end()
            assert expected.startswith(b"-ERR Protocol error") or before
            assert here.read_to_end() == expected
        assert bystander.raw("ECHO", kind) == bulk(kind)


# The line without end gets one here, which makes it an unknown command.
@pytest.mark.parametrize(
    "kind", [kind for kind in REFUSED if kind != "inline line without end"], ids=lambda kind: kind
)
def test_nothing_behind_malformed_input_runs(proxied, kind):
    with proxied.connect() as client, proxied.connect() as other:
        try:
            client.send_bytes(REFUSED[kind] + b"\r\n" + encode("SET", "behind", "x") * 3)
        except (ConnectionResetError, BrokenPipeError):
            pass
        client.read_to_end()
        assert other.raw("EXISTS", "behind") == b":0\r\n"


# The server is lax about these; the proxy may be as lax, or refuse them, but nothing in between.
LAX = {
    "bulk without its CR LF": b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    "count line ended by CR alone": b"*1\rx$4\r\nPING\r\n",
    "length line ended by CR alone": b"*1\r\n$4\rxPING\r\n",
    "NUL in an inline command": b"ECHO a\x00b\r\n",
    "inline command with a stray CR": b"ECHO a\rb\r\n",
}


@pytest.mark.parametrize("kind", LAX, ids=lambda kind: kind)
def test_input_that_the_server_lets_pass_means_the_same_or_is_refused(proxied, direct, kind):
    with proxied.connect() as bystander:
        with direct.connect() as there, proxied.connect() as here:
            for client in (there, here):
                client.send_bytes(LAX[kind])
                client.half_close()
            expected, got = there.read_to_end(), here.read_to_end()
            assert got == expected or got.startswith(b"-ERR Protocol error"), (got, expected)
            assert got.count(b"-ERR Protocol error") <= 1
        assert bystander.raw("ECHO", kind) == bulk(kind)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\nSET crossed 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET crossed 1\r\n",
        b"POST / HTTP/1.1\r\n\r\n" + encode("SET", "crossed", "1"),
        b"post / HTTP/1.1\r\nSET crossed 1\r\n",
        encode("POST", "/") + encode("SET", "crossed", "1"),
        encode("Host:", "x") + encode("SET", "crossed", "1"),
        b"PUT / HTTP/1.1\r\nHost: x\r\n\r\nSET crossed 1\r\n",
    ],
    ids=["POST", "GET", "POST with RESP", "lower case", "as multibulk", "Host:", "PUT"],
)
def test_a_request_of_a_browser_is_closed_and_its_body_never_runs(proxied, request_bytes):
    with proxied.connect() as bystander:
        with proxied.connect() as client:
            client.send_bytes(request_bytes)
            client.read_to_end()
        # A fetch from a browser arrives in several pieces.
        with proxied.connect() as client:
            try:
                for start in range(0, len(request_bytes), 7):
                    client.send_bytes(request_bytes[start : start + 7])
            except (ConnectionResetError, BrokenPipeError):
                pass
            client.read_to_end()
        assert bystander.raw("EXISTS", "crossed") == b":0\r\n"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_client_that_speaks_TLS_is_refused_and_closed(proxied, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    out = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    hello = out.read()
    with proxied.connect() as bystander, proxied.connect(timeout=5) as client:
        client.send_bytes(hello)
        client.read_to_end()
        assert bystander.raw("PING") == b"+PONG\r\n"


def test_an_endless_stream_of_nonsense_is_closed(proxied):
    with proxied.connect(timeout=5) as client:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                client.send_bytes(b"\x00" * 65536)


def test_a_huge_count_costs_no_memory(proxied, shared_proxy):
    before = shared_proxy.process.resident_bytes()
    clients = [proxied.connect() for _ in range(50)]
    for client in clients:
        client.send_bytes(b"*2147483647\r\n$536870912\r\n")
    with proxied.connect() as bystander:
        assert bystander.raw("PING") == b"+PONG\r\n"
    for client in clients:
        client.close()
    assert shared_proxy.process.resident_bytes() - before < 32 * 1024 * 1024


def test_clients_that_say_nothing_or_leave_at_once_are_no_trouble(proxied, shared_proxy):
    before = shared_proxy.process.descriptors()
    for _ in range(200):
        client = Client(proxied.address())
        client.abort()
        with Client(proxied.address()) as client:
            client.send_bytes(b"*")
    with proxied.connect() as bystander:
        assert bystander.raw("PING") == b"+PONG\r\n"
        eventually(
            lambda: shared_proxy.process.descriptors() <= before + 3, what="descriptors are closed"
        )


def test_urgent_data_and_a_read_half_closed_by_the_client_are_no_trouble(proxied):
    with proxied.connect() as bystander:
        client = proxied.connect()
        client.socket.shutdown(socket.SHUT_RD)
        try:
            for _ in range(100):
                client.send("GET", "k")
        except OSError:
            pass
        client.close()
        assert bystander.raw("PING") == b"+PONG\r\n"
