"""The harness itself: what judges the proxy must notice what is wrong."""

import itertools
import socket
import threading

import pytest

from harness import passwords, verifier
from harness.ports import free_port
from harness.relay import Relay
from harness.resp import Client, ConnectionClosed, Error, ProtocolViolation, Push, encode
from harness.verifier import Plan


class Cut(bytes):
    """The last bytes before the connection is lost."""


class Meddler:
    """A plain relay to the reference server that passes replies through `tamper`."""

    def __init__(self, server, tamper):
        self.address = ("127.0.0.1", free_port())
        self.tamper = tamper
        self.server = server
        self.listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(self.server.address)
            for source, sink, change in ((client, upstream, None), (upstream, client, self.tamper)):
                threading.Thread(target=self._pump, args=(source, sink, change), daemon=True).start()

    @staticmethod
    def _pump(source, sink, change):
        try:
            while data := source.recv(65536):
                data = change(data) if change else data
                sink.sendall(data)
                if isinstance(data, Cut):
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class After:
    """Lets `count` chunks pass and changes the next one."""

    def __init__(self, count, change):
        self.left = count
        self.change = change

    def __call__(self, data):
        self.left -= 1
        return self.change(data) if self.left == -1 else data


TAMPERING = {
    "a digit changed": lambda data: data.replace(b"1", b"2", 1).replace(b"0", b"3", 1),
    "a reply doubled": lambda data: b"+OK\r\n" + data,
    "a reply replaced by an error": lambda data: b"-ERR no\r\n" + data,
    "a reply swallowed": lambda data: data[data.index(b"\n") + 1 :],
    "a byte lost": lambda data: data[1:],
    "the connection lost": lambda data: Cut(),
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_the_verifying_clients_notice(reference, kind):
    tamper = After(30, TAMPERING[kind])
    meddler = Meddler(reference, tamper)
    plan = Plan(addresses=(meddler.address,), clients=1, commands=2000, max_depth=10)
    outcome = verifier.run(plan, processes=1)
    with pytest.raises(AssertionError):
        verifier.check(outcome, plan)


def test_the_verifying_clients_notice_a_lost_write(reference):
    """A write that is answered and then undone is found by the next look at the key."""
    meddler = Meddler(reference, lambda data: data)
    plan = Plan(addresses=(meddler.address,), clients=1, commands=100_000, prefix="undone")
    load = verifier.Load(plan, processes=1)
    with reference.admin() as admin:
        while load.is_running:
            admin.value("DEL", "undone:0:counter")
    assert load.outcome().wrong


@pytest.mark.parametrize("may_refuse", [False, True])
def test_a_loss_with_an_uncertain_end_is_followed_up_rightly(reference, may_refuse):
    turns = itertools.count(1)

    def lose_sometimes(data):
        return Cut(data[: len(data) // 2]) if next(turns) % 20 == 0 else data

    meddler = Meddler(reference, lose_sometimes)
    plan = Plan(
        addresses=(meddler.address,), clients=2, commands=2000, max_depth=30, may_close=True,
        may_refuse=may_refuse, prefix=f"loss{may_refuse}",
    )
    outcome = verifier.run(plan, processes=1)
    assert not outcome.wrong, outcome.wrong
    assert outcome.closed > 5


@pytest.mark.parametrize(
    "wire",
    [
        b":01\r\n", b":+1\r\n", b":1\n", b"$1\r\nab\r\n", b"$-2\r\n", b"+O\rK\r\n", b"?\r\n",
        b"*01\r\n", b"#x\r\n", b",abc\r\n", b"=3\r\nabc\r\n", b"_x\r\n", b"\r\n", b"(1.5\r\n",
    ],
)
def test_the_reader_refuses_what_is_not_RESP(wire):
    with reading(wire) as client, pytest.raises(ProtocolViolation):
        client.read()


@pytest.mark.parametrize(
    "wire, value",
    [
        (b"+OK\r\n", b"OK"), (b"-ERR x\r\n", Error(b"ERR x")), (b":-5\r\n", -5),
        (b"$0\r\n\r\n", b""), (b"$-1\r\n", None), (b"*-1\r\n", None), (b"_\r\n", None),
        (b"*2\r\n:1\r\n*0\r\n", [1, []]), (b"%1\r\n+a\r\n:1\r\n", {b"a": 1}),
        (b"~1\r\n:1\r\n", [1]), (b">2\r\n+a\r\n:1\r\n", Push([b"a", 1])), (b"#t\r\n", True),
        (b",1.5\r\n", 1.5), (b"(99999999999999999999\r\n", 99999999999999999999),
        (b"=5\r\ntxt:x\r\n", b"x"), (b"!5\r\nERR x\r\n", Error(b"ERR x")),
        (b"|1\r\n+a\r\n:1\r\n:7\r\n", 7),
    ],
)
def test_the_reader_takes_exactly_one_frame(wire, value):
    with reading(wire + b"+next\r\n") as client:
        frame = client.read()
        assert (frame.raw, frame.value, type(frame.value)) == (wire, value, type(frame.value))
        assert client.read().value == b"next"


def test_the_reader_says_when_a_frame_was_cut():
    with reading(b"$10\r\nabc") as client, pytest.raises(ConnectionClosed):
        client.read()


def reading(wire: bytes) -> Client:
    """A client whose peer has sent `wire` and closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(listener.getsockname())
        peer, _ = listener.accept()
        peer.sendall(wire)
        peer.close()
    return client


def test_the_relay_records_holds_and_cuts(server, authority):
    relay = Relay(server, authority.issue("relay-check"))
    try:
        address = ("127.0.0.1", relay.port)
        with Client(address, tls=server.client_context) as client:
            assert client.value("AUTH", "app", server.passwords["app"]) == b"OK"
            relay.hold_replies()
            client.send("ECHO", "held")
            assert client.is_silent(0.2)
            relay.release_replies()
            assert client.read().value == b"held"
            assert encode("ECHO", "held") in relay.sent()
            relay.cut_after_reply_bytes = 3
            client.send("ECHO", "cut here")
            assert client.read_to_end() == b"$8\r"
    finally:
        relay.close()


def test_a_password_in_a_log_is_found():
    secret = passwords.new_password("!")
    assert passwords.found_in(f"login with {secret} refused")
    assert passwords.found_in(f"…{secret[3:35]}…")
    assert not passwords.found_in("login refused")
