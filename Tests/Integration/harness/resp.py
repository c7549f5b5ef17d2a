"""A raw RESP client: sends exactly the bytes it is told to, reads exactly one frame at a time.

The reader is strict: a length that is not canonical decimal, a missing CR LF, an unknown type byte
or a simple string with a line feed inside is a `ProtocolViolation`, never a guess. Every frame is
returned as the raw bytes together with their meaning, because most tests compare bytes.
"""

import re
import socket
import ssl
import struct
import time
from dataclasses import dataclass

DEFAULT_TIMEOUT_SECONDS = 15.0
RECEIVE_BYTES = 256 * 1024

_INTEGER = re.compile(rb"(0|-?[1-9][0-9]*)\Z")
_LENGTH = re.compile(rb"(0|[1-9][0-9]*)\Z")
_DOUBLE = re.compile(rb"(-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?|-?inf|-?nan)\Z")


class ProtocolViolation(Exception):
    """The other side sent bytes that are not RESP."""


class ConnectionClosed(Exception):
    """The other side closed (or reset) the connection before the frame was complete."""

    def __init__(self, partial: bytes):
        super().__init__(f"connection closed after {len(partial)} bytes of a frame: {partial[:80]!r}")
        self.partial = partial


class Simple(bytes):
    """A simple string."""


class Error(bytes):
    """A simple or bulk error, without its type byte."""


class Push(list):
    """An out-of-band frame."""


class Set(list):
    """A RESP3 set, in the order of the wire."""


class Map(dict):
    """A RESP3 map; aggregates as keys do not occur in what Redis sends."""


@dataclass(frozen=True)
class Frame:
    raw: bytes
    value: object

    @property
    def is_error(self) -> bool:
        return isinstance(self.value, Error)


def encode(*arguments) -> bytes:
    """The multibulk request for these arguments (bytes, str or int)."""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        data = argument if isinstance(argument, (bytes, bytearray)) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def bulk(data) -> bytes:
    """The reply that carries `data` as a bulk string."""
    data = data if isinstance(data, (bytes, bytearray)) else str(data).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


class Client:
    """One connection. `address` is (host, port) or the path of a Unix socket."""

    def __init__(self, address, timeout=DEFAULT_TIMEOUT_SECONDS, tls: ssl.SSLContext = None):
        if isinstance(address, tuple):
            self.socket = socket.create_connection(address, timeout=timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            self.socket.connect(str(address))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.timeout = timeout
        self._buffer = bytearray()
        self._consumed = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Sending

    def send_bytes(self, data) -> None:
        self.socket.sendall(data)

    def send(self, *arguments) -> None:
        self.socket.sendall(encode(*arguments))

    def half_close(self) -> None:
        """Says that nothing more will be sent; replies can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    # Receiving

    def read(self) -> Frame:
        """The next frame, pushes included."""
        self._consumed = bytearray()
        value = self._element()
        return Frame(bytes(self._consumed), value)

    def read_raw(self, count: int = 1) -> bytes:
        """The bytes of the next `count` frames."""
        return b"".join(self.read().raw for _ in range(count))

    def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes, whatever they mean."""
        self._consumed = bytearray()
        self._take(count)
        return bytes(self._consumed)

    def read_to_end(self) -> bytes:
        """Everything until the other side closes; a reset counts as a close."""
        received = bytes(self._buffer)
        self._buffer.clear()
        parts = [received]
        while True:
            chunk = self._receive()
            if not chunk:
                return b"".join(parts)
            parts.append(chunk)

    def raw(self, *arguments) -> bytes:
        """Sends one command and returns the bytes of one frame."""
        self.send(*arguments)
        return self.read().raw

    def value(self, *arguments):
        """Sends one command and returns the meaning of one frame."""
        self.send(*arguments)
        return self.read().value

    def pipeline(self, *commands) -> bytes:
        """Sends all commands (tuples of arguments) at once; the bytes of as many frames."""
        self.send_bytes(b"".join(encode(*command) for command in commands))
        return self.read_raw(len(commands))

    def is_silent(self, seconds: float) -> bool:
        """True if nothing arrives within `seconds` and the connection stays open."""
        if self._buffer:
            return False
        self.socket.settimeout(seconds)
        try:
            chunk = self.socket.recv(RECEIVE_BYTES)
        except (TimeoutError, socket.timeout):
            return True
        except ConnectionResetError:
            return False
        finally:
            self.socket.settimeout(self.timeout)
        self._buffer += chunk
        return False

    # Leaving

    def close(self) -> None:
        self.socket.close()

    def abort(self) -> None:
        """Leaves with a reset instead of an orderly close."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # The strict reader

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(RECEIVE_BYTES)
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return b""

    def _fill(self) -> None:
        chunk = self._receive()
        if not chunk:
            raise ConnectionClosed(bytes(self._consumed + self._buffer))
        self._buffer += chunk

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._consumed += taken
        return taken

    def _line(self) -> bytes:
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                break
            searched = len(self._buffer)
            self._fill()
        line = self._take(end + 1)
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise ProtocolViolation(f"line not ended by a single CR LF: {line[:200]!r}")
        return line[:-2]

    def _length(self, text: bytes) -> int:
        if not _LENGTH.match(text):
            raise ProtocolViolation(f"length is not canonical decimal: {text[:80]!r}")
        return int(text)

    def _bulk(self, text: bytes) -> bytes:
        data = self._take(self._length(text))
        if self._take(2) != b"\r\n":
            raise ProtocolViolation(f"bulk of {len(data)} bytes not followed by CR LF")
        return data

    def _elements(self, text: bytes, times: int = 1) -> list:
        return [self._element() for _ in range(self._length(text) * times)]

    def _element(self):
        line = self._line()
        kind, text = line[:1], line[1:]
        if kind == b"+":
            return Simple(text)
        if kind == b"-":
            return Error(text)
        if kind == b":":
            return self._integer(text)
        if kind == b"$":
            return None if text == b"-1" else self._bulk(text)
        if kind == b"*":
            return None if text == b"-1" else self._elements(text)
        if kind == b"_" and text == b"":
            return None
        if kind == b"#" and text in (b"t", b"f"):
            return text == b"t"
        if kind == b"," and _DOUBLE.match(text):
            return float(text)
        if kind == b"(":
            return self._integer(text)
        if kind == b"!":
            return Error(self._bulk(text))
        if kind == b"=":
            data = self._bulk(text)
            if data[3:4] != b":":
                raise ProtocolViolation(f"verbatim string without a format: {data[:10]!r}")
            return data[4:]
        if kind == b"%":
            flat = self._elements(text, 2)
            return Map(zip(flat[::2], flat[1::2]))
        if kind == b"~":
            return Set(self._elements(text))
        if kind == b">":
            return Push(self._elements(text))
        if kind == b"|":
            self._elements(text, 2)
            return self._element()
        raise ProtocolViolation(f"no RESP element starts like this: {line[:200]!r}")

    def _integer(self, text: bytes) -> int:
        if not _INTEGER.match(text):
            raise ProtocolViolation(f"integer is not canonical decimal: {text[:80]!r}")
        return int(text)


def eventually(condition, seconds: float = 10.0, what: str = "condition"):
    """Polls until `condition()` is true and returns its value; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not reached within {seconds} s (last: {result!r})")
        time.sleep(0.02)
