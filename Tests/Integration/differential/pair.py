"""Runs a scenario step by step on both sides at once and stops at the first difference.

What a step brings is known from the direct side, where nothing has to be guessed: its sessions are
Unix sockets, so the kernel says when the server has read everything, and one round trip of another
connection later the server has done it and written all replies. The proxied side must then bring
the same bytes, and after them nothing.

Effects without a reply (a session that left, a command that waits) are awaited by comparing what
CLIENT LIST says of subscriptions, waits and tracking on both servers.
"""

import fcntl
import os
import re
import select
import socket
import struct
import termios
import time
from collections import Counter
from dataclasses import dataclass

from harness.resp import Client, Error, encode

from .frames import split
from .commands import Grammar
from .scenario import ABORT, CLOSE, HALF_CLOSE, STAY, Scenario, Step
from .tables import (
    ALWAYS, CONNECTION_ID, HUSHED, MASKED_WITHOUT_ARGUMENTS_ONLY, MASKS, QUEUEING, RELAYED, SILENCED,
    SUBSCRIBED, UNORDERED, USER_IN_ERROR, WAITING,
)

DIRECT_SECONDS = 20.0
# A direct session that waits longer than this is left waiting; timeouts of generated commands are
# far shorter.
LEFT_WAITING_SECONDS = 0.15
# The server writes no less than this at a time of a reply that is longer.
WRITTEN_AT_ONCE_BYTES = 16_000
SHOWN_BYTES = 400
UNKNOWN_ID = b"424242"

# After these the proxy passes the server's bytes on without knowing where a reply ends; after the
# others too, if they run in a transaction or what a subscriber may not send follows.
UNCOUNTABLE = {"client", "client|reply", "client|tracking"}
SUBSCRIBING = {
    "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe",
}
FOR_SUBSCRIBERS = SUBSCRIBING | {"ping", "auth", "hello"}

SEED_KEYS = [
    ("set", "string0", "1"), ("set", "string1", "abc"), ("rpush", "list0", "a", "b", "c"),
    ("sadd", "set0", "a", "b", "1"), ("zadd", "sorted-set0", "1", "a", "2", "b", "2", "c"),
    ("hset", "hash0", "a", "1", "b", "two"), ("xadd", "stream0", "1-1", "f", "v"),
    ("xgroup", "create", "stream0", "g0", "0"), ("pfadd", "hyperloglog0", "a", "b"),
    ("geoadd", "geo0", "13.361389", "38.115556", "a", "15.087269", "37.502669", "b"),
    ("setbit", "bitmap0", "7", "1"), ("set", "generic0", "x" * 100),
]


@dataclass
class Difference(Exception):
    """Where the two sides parted."""

    kind: str
    session: int
    last_commands: str
    expected: bytes
    got: bytes
    step: int

    def describe(self) -> str:
        """From the first frame that differs."""
        theirs, ours = split(self.expected)[0], split(self.got)[0]
        same = len(b"".join(theirs[: len(os.path.commonprefix([theirs, ours]))]))
        return (
            f"{self.kind} of session {self.session} after {self.last_commands[-SHOWN_BYTES:]}\n"
            f"    direct:  {self.expected[same:][:SHOWN_BYTES]!r}\n"
            f"    proxied: {self.got[same:][:SHOWN_BYTES]!r}"
        )


class Stream:
    """One client connection that is read without waiting."""

    def __init__(self, client: Client):
        self.socket = client.socket
        self.socket.setblocking(False)
        self.buffer = bytearray()
        self.is_closed = False

    def pump(self) -> int:
        """Takes what is there."""
        taken = 0
        while not self.is_closed:
            try:
                chunk = self.socket.recv(256 * 1024)
            except BlockingIOError:
                break
            except (ConnectionResetError, BrokenPipeError):
                chunk = b""
            if not chunk:
                self.is_closed = True
            self.buffer += chunk
            taken += len(chunk)
        return taken

    def send(self, data: bytes) -> None:
        """A burst is far smaller than a socket's buffer."""
        try:
            self.socket.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            pass

    def take(self):
        """The frames so far, which are then forgotten, and the rest, which is kept."""
        frames, rest = split(bytes(self.buffer))
        self.buffer = bytearray(rest)
        return frames, rest

    def finish(self) -> None:
        """Nothing more will be sent."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def leave(self, ending: str) -> None:
        if ending == ABORT and self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.is_closed = True


class Session:
    """One client on both sides."""

    def __init__(self, protocol: int):
        self.protocol = protocol
        self.direct = None
        self.proxied = None
        self.forget()

    def forget(self) -> None:
        """All that ends with the connection."""
        self.server_id = None
        self.is_waiting = False
        self.is_queueing = False
        self.is_silenced = False
        self.is_subscribed = False
        self.is_relayed = False
        self.is_hushed = False
        self.needs_greeting = self.protocol == 3

    def leave(self, ending: str) -> None:
        for stream in (self.direct, self.proxied):
            if ending == HALF_CLOSE:
                stream.finish()
            stream.leave(ending)
        self.direct = self.proxied = None
        self.forget()

    @property
    def is_open(self) -> bool:
        return self.direct is not None

    @property
    def states(self) -> set:
        """Which of those that tables.py names."""
        return {ALWAYS} | {
            state for state, holds in (
                (QUEUEING, self.is_queueing), (SILENCED, self.is_silenced),
                (SUBSCRIBED, self.is_subscribed), (RELAYED, self.is_relayed),
                (HUSHED, self.is_hushed),
            ) if holds
        }


class Pair:
    """Two servers in the same state, one of them behind the proxy.

    `connect` makes a connection on the proxied side, `left_out` says which commands are not sent
    in which state; `ids` are what CLIENT ID answered each session, on each side.
    """

    def __init__(self, grammar: Grammar, direct_path, direct, proxied, connect, user, left_out):
        self.grammar = grammar
        self.direct_path = direct_path
        self.proxied = proxied
        self.connect = connect
        self.user = user
        self.left_out = left_out
        self.admins = [each.admin(timeout=DIRECT_SECONDS) for each in (direct, proxied)]
        self.highest_id = 0
        self.reply_seconds = 5.0
        self.sessions = []
        self.commands_sent = 0
        # What was compared, by kind: a comparison of errors alone would prove little.
        self.seen = Counter()
        # Another pair may have used these servers before.
        self.is_suspect = True

    def close(self) -> None:
        for admin in self.admins:
            admin.close()

    # A whole scenario

    def run(self, scenario: Scenario):
        """The first difference, or None."""
        self.prepare()
        self.sessions = [Session(protocol) for protocol in scenario.protocols]
        self.ids = [{}, {}]
        self.some_wait = False
        self.is_suspect = True
        try:
            for self.step_index, step in enumerate(scenario.steps):
                self._perform(step)
            self._finish()
            self.is_suspect = False
        except Difference as difference:
            return difference
        finally:
            self._leave_all()

    def _finish(self) -> None:
        """Nothing is left over: no reply, no data, no trace of a session."""
        for number, session in enumerate(self.sessions):
            if session.is_open and not session.is_waiting:
                self._perform(Step(number, [["the", "end"]]))
        digests = [admin.value("DEBUG", "DIGEST") for admin in self.admins]
        if digests[0] != digests[1]:
            self._part("data", None, "everything", *digests)
        self._leave_all()
        self._await_same_state(None, "everybody has left")

    def _part(self, kind: str, session, shown: str, expected: bytes, got: bytes):
        number = self.sessions.index(session) if session else -1
        raise Difference(kind, number, shown, expected, got, self.step_index)

    def _leave_all(self) -> None:
        for session in self.sessions:
            if session.is_open:
                session.leave(CLOSE)
        self.sessions = []

    def prepare(self) -> None:
        """Both servers without clients and with the same data."""
        self._leave_all()
        if self.is_suspect:
            # What went wrong before must not be met again through a connection that is reused.
            self.proxied.lose_connections(self.user)
        deadline = time.monotonic() + DIRECT_SECONDS
        while any(states := [self._state(admin) for admin in self.admins]):
            assert time.monotonic() < deadline, f"sessions of the scenario before stay: {states}"
            time.sleep(0.005)
        commands = [
            ("CLIENT", "UNPAUSE"), ("FLUSHALL",), ("SCRIPT", "FLUSH"), ("FUNCTION", "FLUSH"),
            ("CONFIG", "SET", "notify-keyspace-events", "", "slowlog-log-slower-than", "-1",
             "hz", "10", "maxmemory-samples", "5"),
            ("ACL", "DELUSER", "alice", "bob"), ("ACL", "LOG", "RESET"), ("SELECT", "0"),
            *SEED_KEYS,
        ]
        for admin in self.admins:
            admin.send_bytes(b"".join(encode(*command) for command in commands))
            for command in commands:
                answer = admin.read().value
                assert not isinstance(answer, Error), (command, answer)

    # A step

    def _perform(self, step: Step) -> None:
        session = self.sessions[step.session]
        if session.is_waiting:
            if step.ending in (CLOSE, ABORT):
                self._leave(step.ending, session)
            return
        if not session.is_open:
            self._open(session)
        pieces = list(self._pieces(self._permitted(session, step)))
        if session.needs_greeting:
            session.needs_greeting = False
            pieces.insert(0, [["hello", "3"]])
        for number, piece in enumerate(pieces):
            half_closes = (
                step.ending == HALF_CLOSE and number == len(pieces) - 1
                and not session.is_silenced and not any(map(_silences, piece))
            )
            self._exchange(session, piece, step.cut, half_closes)
            if session.is_waiting or not session.is_open:
                break
        # What a silenced session did is known to be done when it speaks again. Inside MULTI that
        # is queued without a word; RESET always answers.
        for fence in (["client", "reply", "on"], ["reset"]):
            if session.is_open and session.is_silenced and not session.is_waiting:
                self._exchange(session, [fence])
                session.is_silenced = not self.was_answered
        if session.is_open and step.ending != STAY:
            self._leave(step.ending, session)

    def _permitted(self, session: Session, step: Step) -> list:
        """Without what is not to be sent in the session's state, see tables.py, and without waits
        in a burst that ends with a half-close: whether they end first is a matter of chance."""
        permitted, states = [], session.states
        for command in step.commands:
            name = self.grammar.name_of(command)
            shown = " ".join(map(str, command)).lower()
            if any((text, state) in self.left_out for text in (name, shown) for state in states):
                continue
            # In EXEC's reply nobody knows which element is whose.
            if QUEUEING in states and self._mask(command):
                continue
            if self.grammar.may_block(command):
                if step.ending == HALF_CLOSE:
                    continue
                states.add(WAITING)
            if _silences(command):
                states.add(SILENCED)
            if name in SUBSCRIBING:
                states.add(SUBSCRIBED)
            is_odd = name not in FOR_SUBSCRIBERS or QUEUEING in states
            if name == "client|reply" and states & {QUEUEING, SUBSCRIBED, RELAYED}:
                states.add(HUSHED)
            if name in UNCOUNTABLE or SUBSCRIBED in states and is_odd:
                states.add(RELAYED)
                # What was said of replies before is said to the server now.
                if SILENCED in states:
                    states.add(HUSHED)
            if name == "multi":
                states.add(QUEUEING)
            elif name in ("exec", "discard", "reset") and len(command) == 1:
                states.discard(QUEUEING)
                if name == "reset":
                    states -= {SUBSCRIBED, RELAYED, HUSHED}
            permitted.append(command)
        session.is_relayed = RELAYED in states
        session.is_hushed = HUSHED in states
        session.is_subscribed = SUBSCRIBED in states
        return permitted

    def _pieces(self, commands):
        """Cuts a burst where replies have to be told apart, and behind what may wait for ever."""
        piece = []
        for command in commands:
            if self._mask(command):
                if piece:
                    yield piece
                yield [command]
                piece = []
                continue
            piece.append(command)
            if self.grammar.may_block(command) and "0" in command:
                yield piece
                piece = []
        if piece:
            yield piece

    def _mask(self, command):
        name = self.grammar.name_of(command)
        if name in MASKED_WITHOUT_ARGUMENTS_ONLY and len(command) > 1:
            return None
        entry = self.grammar.entries.get(name)
        if name in MASKS:
            return MASKS[name]
        if entry and "nondeterministic_output_order" in entry.tips:
            return UNORDERED
        return None

    def _exchange(self, session, piece, cut: float = 1.0, half_closes: bool = False) -> None:
        self.commands_sent += len(piece)
        shown = " ".join(" ".join(map(str, command)) for command in piece)
        if any(map(_silences, piece)):
            session.is_silenced = True
        session.direct.send(self._encode(piece, self.ids[0]))
        if half_closes:
            session.direct.finish()
        self._settle(session)
        request = self._encode(piece, self.ids[1])
        session.proxied.send(request[: int(len(request) * cut)])
        session.proxied.send(request[int(len(request) * cut) :])
        if half_closes:
            session.proxied.finish()
        # The acting session first: what the others are sent follows from it.
        for other in sorted(self.sessions, key=lambda other: other is not session):
            if other.is_open:
                self._compare(other, piece if other is session else [], shown)
        for other in self.sessions:
            if other.is_open and other.direct.is_closed:
                other.leave(CLOSE)
                self.some_wait = True
        # If somebody waits, or did until now, both servers must come to agree about it.
        must, self.some_wait = self.some_wait, any(s.is_waiting for s in self.sessions)
        if must or self.some_wait:
            self._await_same_state(session, shown)

    def _leave(self, ending: str, session) -> None:
        session.leave(ending)
        self._await_same_state(session, ending)

    def _open(self, session: Session) -> None:
        session.direct = Stream(Client(self.direct_path))
        session.proxied = Stream(self.connect())
        session.forget()
        deadline = time.monotonic() + DIRECT_SECONDS
        while session.server_id is None:
            for fields in _clients(self.admins[0]):
                if int(fields["id"]) > self.highest_id and fields["user"] == "default":
                    session.server_id = self.highest_id = int(fields["id"])
            assert time.monotonic() < deadline, "the reference server does not accept"

    @staticmethod
    def _encode(commands, ids) -> bytes:
        parts = []
        for command in commands:
            words = [
                re.sub(
                    rb"\{id:(\d+)\}",
                    lambda match: ids.get(int(match.group(1)), UNKNOWN_ID),
                    word if isinstance(word, bytes) else word.encode(),
                )
                for word in command
            ]
            parts.append(encode(*words))
        return b"".join(parts)

    # The direct side

    def _settle(self, session: Session) -> None:
        """Returns when the server has done all that was sent, and all its replies were taken."""
        deadline = time.monotonic() + DIRECT_SECONDS
        left_waiting = time.monotonic() + LEFT_WAITING_SECONDS
        while True:
            received = sum(s.direct.pump() for s in self.sessions if s.is_open)
            if session.direct.is_closed:
                break
            unread = fcntl.ioctl(session.direct.socket, termios.TIOCOUTQ, b"\0" * 4)
            if struct.unpack("i", unread)[0] == 0:
                found = list(_clients(self.admins[0], session.server_id))
                received += sum(s.direct.pump() for s in self.sessions if s.is_open)
                if not found:
                    break
                session.is_queueing = found[0]["multi"] != "-1"
                waits = "b" in found[0]["flags"]
                if not waits and received < WRITTEN_AT_ONCE_BYTES:
                    break
                if waits and time.monotonic() > left_waiting:
                    session.is_waiting = True
                    self.seen["left waiting"] += 1
                    break
                time.sleep(0.001)
            assert time.monotonic() < deadline, "the reference server does not take its input"
        # One round trip more: whoever was waiting may have gone on.
        waiting = [s for s in self.sessions if s.is_open and s.is_waiting]
        if waiting or session.direct.is_closed:
            flags = {int(f["id"]): f["flags"] for f in _clients(self.admins[0])}
            for other in waiting:
                other.is_waiting = "b" in flags.get(other.server_id, "")
                self.seen["served while waiting"] += not other.is_waiting
        for other in self.sessions:
            if other.is_open:
                other.direct.pump()

    # The comparison

    def _compare(self, session, piece, shown: str) -> None:
        frames, rest = session.direct.take()
        if piece:
            self.was_answered = bool(frames)
        must_close = session.direct.is_closed
        got = self._collect(session.proxied, len(frames), len(rest), must_close)
        expected_text = self._comparable(piece, frames, rest)
        got_text = self._comparable(piece, *got)
        if expected_text != got_text:
            kind = "reply" if piece else "push"
            if expected_text.startswith(got_text):
                kind += " missing"
            self._part(kind, session, shown, expected_text, got_text)
        if must_close != session.proxied.is_closed:
            state = {True: b"closed", False: b"open"}
            self._part(
                "end", session, shown, state[must_close], state[session.proxied.is_closed]
            )
        self._learn(session, piece, frames, got[0])
        self._count(piece, frames, must_close)

    def _collect(self, stream: Stream, frames: int, rest: int, must_close: bool):
        """As many frames as are expected, and what else is there by then."""
        deadline = time.monotonic() + self.reply_seconds
        while True:
            stream.pump()
            found, left = split(bytes(stream.buffer))
            complete = len(found) >= frames and (len(found) > frames or len(left) >= rest)
            if complete and (stream.is_closed or not must_close):
                break
            remaining = deadline - time.monotonic()
            if stream.is_closed or remaining <= 0:
                break
            select.select([stream.socket], [], [], remaining)
        return stream.take()

    def _comparable(self, piece, frames, rest) -> bytes:
        mask = self._mask(piece[0]) if len(piece) == 1 else None
        if mask and mask.frame:
            frames = [mask.frame(frame) if frame[:1] not in b"+-" else frame for frame in frames]
        if mask and mask.frames:
            frames = mask.frames(frames)
        text = CONNECTION_ID.sub(rb"\1<id>", b"".join(frames) + rest)
        return USER_IN_ERROR.sub(b"<user>", text)

    def _learn(self, session, piece, frames, got) -> None:
        """What later steps need to know of this one."""
        names = [self.grammar.name_of(command) for command in piece]
        if names == ["client|id"] and len(frames) == 1 and frames[0][:1] == b":":
            number = self.sessions.index(session)
            self.ids[0][number] = frames[0][1:-2]
            self.ids[1][number] = got[0][1:-2]

    def _count(self, piece, frames, closed) -> None:
        self.seen["closed by the server"] += closed
        self.seen["to others"] += 0 if piece else len(frames)
        names = [self.grammar.name_of(command) for command in piece]
        self.seen["masked replies"] += len(piece) == 1 and self._mask(piece[0]) is not None
        for frame in frames:
            self.seen["replies"] += 1
            self.seen["errors"] += frame[:1] == b"-"
            self.seen["pushes"] += frame[:1] == b">"
            self.seen["RESP3 types"] += frame[:1] in b"_,#!=(%~|"
            self.seen["queued"] += frame == b"+QUEUED\r\n"
            self.seen["messages"] += b"message\r\n" in frame[:20]
            self.seen["transactions"] += names == ["exec"] and frame[:1] == b"*"

    # What both servers know of their clients

    def _state(self, admin) -> Counter:
        """Everything that a client's connection can have and that others can notice."""
        state = Counter()
        for fields in _clients(admin):
            if fields["user"] == "admin":
                continue
            found = (
                fields["sub"], fields["psub"], fields["ssub"],
                "".join(flag for flag in fields["flags"] if flag in "btR"),
            )
            if found != ("0", "0", "0", ""):
                state[found] += 1
        return state

    def _await_same_state(self, session, shown: str) -> None:
        deadline = time.monotonic() + self.reply_seconds
        while True:
            states = [self._state(admin) for admin in self.admins]
            if states[0] == states[1]:
                return
            if time.monotonic() > deadline:
                self._part("state", session, shown, *(repr(each).encode() for each in states))
            time.sleep(0.002)


def _silences(command) -> bool:
    words = [word.lower() if isinstance(word, str) else word for word in command[:3]]
    return words[:2] == ["client", "reply"] and words[2:] in (["off"], ["skip"])


def _clients(admin: Client, client_id: int = None):
    """The lines of CLIENT LIST, as dictionaries."""
    command = ("CLIENT", "LIST") + (("ID", client_id) if client_id else ())
    for line in admin.value(*command).decode().splitlines():
        yield dict(field.partition("=")[::2] for field in line.split(" "))
