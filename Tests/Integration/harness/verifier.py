"""Clients that know the right answer to every command they send.

Each client owns a few keys that nobody else touches and keeps a model of them, so the bytes of
every reply are known before it arrives; a whole pipeline is checked by comparing bytes. When the
connection is closed under a pipeline, a prefix of the unanswered commands may have run: the client
reconnects, reads all its keys with one MGET and demands that they are the state after *some*
prefix. A command that runs later than that (a stale write left in a buffer somewhere) shows up as
a wrong reply of a later command.

The load runs in processes of its own, several clients (threads) in each, so that Python keeps up.
"""

import multiprocessing
import queue
import random
import socket
import threading
import time
import traceback
from dataclasses import dataclass, field

from .resp import Client, ConnectionClosed, Error, ProtocolViolation, bulk, encode

KEYS_PER_CLIENT = 6
STALL_SECONDS = 30.0
RECONNECT_SECONDS = 20.0
RECONNECT_PAUSE_SECONDS = 0.01

OK = b"+OK\r\n"
NIL = b"$-1\r\n"


@dataclass(frozen=True)
class Plan:
    """What every client of a load does.

    After `commands` it ends; with `goes_on` it does not before it is asked to.
    """

    addresses: tuple
    clients: int
    commands: int
    goes_on: bool = False
    max_depth: int = 100
    seed: int = 1
    max_value: int = 200
    transactions: bool = False
    may_close: bool = False
    may_refuse: bool = False
    reconnect_every: int = 0
    pace_seconds: float = 0.0
    login: tuple = None
    prefix: str = "v"


@dataclass
class Outcome:
    """What happened to the clients of a load."""

    answered: int = 0
    closed: int = 0
    refused: int = 0
    reconnected: int = 0
    longest_pause_seconds: float = 0.0
    wrong: list = field(default_factory=list)
    refusals: dict = field(default_factory=dict)

    def add(self, other: "Outcome") -> None:
        self.answered += other.answered
        self.closed += other.closed
        self.refused += other.refused
        self.reconnected += other.reconnected
        self.longest_pause_seconds = max(self.longest_pause_seconds, other.longest_pause_seconds)
        self.wrong += other.wrong
        for text, count in other.refusals.items():
            self.refusals[text] = self.refusals.get(text, 0) + count


class Load:
    """A running load; `outcome` waits for its end."""

    def __init__(self, plan: Plan, processes: int = 2):
        context = multiprocessing.get_context("spawn")
        self.plan = plan
        self._results = context.Queue()
        self._stop = context.Event()
        self._through = context.Value("i", 0)
        self._started = time.monotonic()
        numbers = list(range(plan.clients))
        self._children = [
            context.Process(
                target=_run_process,
                args=(
                    plan, numbers[index::processes], self._results, self._stop, self._through
                ),
                daemon=True,
            )
            for index in range(min(processes, plan.clients))
        ]
        for child in self._children:
            child.start()

    @property
    def is_running(self) -> bool:
        return any(child.is_alive() for child in self._children)

    @property
    def is_through(self) -> bool:
        """Every client has sent its commands, or has failed."""
        return self._through.value == self.plan.clients or not self.is_running

    def stop(self) -> None:
        """Asks the clients to end after their present pipeline."""
        self._stop.set()

    def outcome(self, seconds: float = 300.0) -> Outcome:
        total = Outcome()
        deadline = time.monotonic() + seconds
        for _ in self._children:
            try:
                total.add(self._results.get(timeout=max(0.1, deadline - time.monotonic())))
            except queue.Empty:
                total.wrong.append(f"a load process did not finish within {seconds} s")
                break
        for child in self._children:
            child.join(5)
            if child.is_alive():
                child.kill()
        self.seconds = time.monotonic() - self._started
        return total


def run(plan: Plan, processes: int = 2, seconds: float = 300.0) -> Outcome:
    return Load(plan, processes).outcome(seconds)


def check(outcome: Outcome, plan: Plan) -> None:
    """Fails unless every command of every client was answered, and rightly."""
    assert not outcome.wrong, f"{len(outcome.wrong)} wrong:\n" + "\n".join(outcome.wrong[:5])
    if not plan.may_close and not plan.may_refuse:
        assert outcome.answered == plan.clients * plan.commands


def _run_process(plan: Plan, numbers, results, stop, through) -> None:
    outcomes = [Outcome() for _ in numbers]
    threads = [
        threading.Thread(target=_run_client, args=(plan, number, outcome, stop, through))
        for number, outcome in zip(numbers, outcomes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Outcome()
    for outcome in outcomes:
        total.add(outcome)
    results.put(total)


def _run_client(plan: Plan, number: int, outcome: Outcome, stop, through) -> None:
    is_counted = False

    def be_through() -> None:
        nonlocal is_counted
        if not is_counted:
            with through.get_lock():
                through.value += 1
        is_counted = True

    try:
        VerifyingClient(plan, number, outcome).run(stop, be_through)
    except Wrong as error:
        outcome.wrong.append(f"client {number} (seed {plan.seed}): {error}")
    except Exception:
        outcome.wrong.append(f"client {number} (seed {plan.seed}): {traceback.format_exc()}")
    finally:
        be_through()


class Wrong(Exception):
    """A reply that no correct proxy could have given."""


class State:
    """The client's model of its keys."""

    def __init__(self, values: dict, counter: int):
        self.values = values
        self.counter = counter

    def copy(self) -> "State":
        return State(dict(self.values), self.counter)


class VerifyingClient:
    def __init__(self, plan: Plan, number: int, outcome: Outcome):
        self.plan = plan
        self.outcome = outcome
        self.name = f"{plan.prefix}:{number}"
        self.address = plan.addresses[number % len(plan.addresses)]
        self.random = random.Random(plan.seed * 1_000_003 + number)
        self.keys = [f"{self.name}:{index}" for index in range(KEYS_PER_CLIENT)]
        self.counter_key = f"{self.name}:counter"
        self.sequence = 0
        self.client = None
        self.state = None
        # The states that may hold after a loss; None while `state` is known.
        self.candidates = None

    def run(self, stop, be_through=lambda: None) -> None:
        self._connect()
        self._reset_keys()
        done = 0
        while not stop.is_set():
            if done >= self.plan.commands:
                be_through()
                if not self.plan.goes_on:
                    break
            if self.client is None:
                self._resynchronise()
            depth = self.random.randint(1, self.plan.max_depth)
            if not self.plan.goes_on:
                depth = min(depth, self.plan.commands - done)
            started = time.monotonic()
            done += self._pipeline(depth)
            pause = time.monotonic() - started
            self.outcome.longest_pause_seconds = max(self.outcome.longest_pause_seconds, pause)
            if self.plan.reconnect_every and self.random.random() < 1 / self.plan.reconnect_every:
                self._leave()
            if self.plan.pace_seconds:
                time.sleep(self.plan.pace_seconds * self.random.random() * 2)
        if self.client is not None:
            self.client.close()

    # Connections

    def _connect(self) -> None:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self.client = Client(self.address, timeout=STALL_SECONDS)
                if self.plan.login:
                    self.client.value("AUTH", *self.plan.login)
                return
            except (OSError, ConnectionClosed):
                if not self.plan.may_close or time.monotonic() > deadline:
                    raise
                time.sleep(RECONNECT_PAUSE_SECONDS)

    def _leave(self) -> None:
        """Goes away at rest, in one of three ways, and comes back."""
        way = self.random.choice(("close", "abort", "half close"))
        if way == "half close":
            self.client.half_close()
            rest = self.client.read_to_end()
            if rest:
                raise Wrong(f"bytes after the last reply: {rest[:100]!r}")
            self.client.close()
        elif way == "abort":
            self.client.abort()
        else:
            self.client.close()
        self.outcome.reconnected += 1
        self._connect()

    def _reset_keys(self) -> None:
        self.state = State({key: None for key in self.keys}, 0)
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                answer = self.client.value("DEL", *self.keys, self.counter_key)
                if isinstance(answer, int):
                    return
            except (OSError, ConnectionClosed):
                answer = "closed"
                if self.plan.may_close:
                    self._connect()
            if not (self.plan.may_close or self.plan.may_refuse) or time.monotonic() > deadline:
                raise Wrong(f"DEL of the client's keys: {answer!r}")

    def _lost(self, candidates) -> None:
        if not self.plan.may_close:
            raise Wrong("the connection was closed")
        self.outcome.closed += 1
        self.client.close()
        self.client = None
        self.candidates = candidates

    def _resynchronise(self) -> None:
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self._connect()
                answer = self.client.value("MGET", *self.keys, self.counter_key)
            except (OSError, ConnectionClosed):
                answer = Error(b"closed")
            if not isinstance(answer, Error):
                break
            if time.monotonic() > deadline:
                raise Wrong(f"no answer after a loss for {RECONNECT_SECONDS} s: {answer!r}")
            self.client.close()
            time.sleep(RECONNECT_PAUSE_SECONDS)
        for candidate in self.candidates:
            counter = str(candidate.counter).encode() if candidate.counter else None
            if answer == [candidate.values[key] for key in self.keys] + [counter]:
                self.state = candidate
                self.candidates = None
                return
        shown = [value if value is None else value[:40] for value in answer]
        raise Wrong(f"the keys hold no state that a prefix of the lost commands leaves: {shown}")

    # Commands

    def _command(self, state: State):
        """One random unit: the request's bytes, the replies' bytes, its effect on a state."""
        choice = self.random.random()
        key = self.random.choice(self.keys)
        if choice < 0.35:
            self.sequence += 1
            size = self.random.randint(0, self.plan.max_value)
            value = (b"%s:%d:" % (self.name.encode(), self.sequence)) + b"x" * size
            return encode("SET", key, value), OK, ("set", key, value)
        if choice < 0.65:
            held = state.values[key]
            return encode("GET", key), NIL if held is None else bulk(held), None
        if choice < 0.80:
            return (
                encode("INCR", self.counter_key),
                b":%d\r\n" % (state.counter + 1),
                ("count", 1),
            )
        if choice < 0.85:
            gone = 0 if state.values[key] is None else 1
            return encode("DEL", key), b":%d\r\n" % gone, ("set", key, None)
        if choice < 0.90:
            return encode("STRLEN", key), b":%d\r\n" % len(state.values[key] or b""), None
        if choice < 0.95 or not self.plan.transactions:
            self.sequence += 1
            token = b"%s/%d" % (self.name.encode(), self.sequence)
            return encode("ECHO", token), bulk(token), None
        held = state.values[key]
        request = encode("MULTI") + encode("INCR", self.counter_key) + encode("GET", key)
        replies = b"*2\r\n:%d\r\n" % (state.counter + 1) + (NIL if held is None else bulk(held))
        return (
            request + encode("EXEC"),
            OK + b"+QUEUED\r\n+QUEUED\r\n" + replies,
            ("count", 1),
        )

    @staticmethod
    def _apply(state: State, effect) -> None:
        if effect is None:
            return
        if effect[0] == "set":
            state.values[effect[1]] = effect[2]
        else:
            state.counter += effect[1]

    def _pipeline(self, depth: int) -> int:
        """Sends `depth` units at once and checks all replies; how many were answered."""
        base = self.state.copy()
        units = []
        for _ in range(depth):
            unit = self._command(self.state)
            self._apply(self.state, unit[2])
            units.append(unit)
        expected = b"".join(unit[1] for unit in units)
        received = bytearray()
        try:
            self.client.send_bytes(b"".join(unit[0] for unit in units))
            while len(received) < len(expected):
                chunk = self.client.socket.recv(256 * 1024)
                if not chunk:
                    break
                end = len(received) + len(chunk)
                if expected[len(received) : end] != chunk:
                    received += chunk
                    return self._scrutinise(base, units, received)
                received += chunk
        except (TimeoutError, socket.timeout):
            raise Wrong(
                f"no reply for {STALL_SECONDS} s after {len(received)} of {len(expected)} bytes"
            ) from None
        except (ConnectionResetError, BrokenPipeError):
            pass
        if len(received) == len(expected):
            self.outcome.answered += depth
            return depth
        return self._closed_after(base, units, len(received))

    def _closed_after(self, base: State, units, received: int) -> int:
        """All bytes so far were right, then the connection went away."""
        answered = 0
        for unit in units:
            if received < len(unit[1]):
                break
            received -= len(unit[1])
            self._apply(base, unit[2])
            answered += 1
        candidates = [base]
        for unit in units[answered:]:
            following = candidates[-1].copy()
            self._apply(following, unit[2])
            candidates.append(following)
        self.outcome.answered += answered
        self._lost(candidates)
        return answered

    def _scrutinise(self, base: State, units, received: bytearray) -> int:
        """Some bytes differ: they are an error the proxy may give, or they are wrong.

        An error in place of a reply says that the command did not run, so the replies behind it
        are checked against the model without it.
        """
        if not self.plan.may_refuse or self.plan.transactions:
            offset = 0
            for index, (request, expected, _) in enumerate(units):
                got = bytes(received[offset : offset + len(expected)])
                if got != expected[: len(got)]:
                    raise Wrong(
                        f"reply {index} of {len(units)} to {request[:120]!r}: expected"
                        f" {expected[:120]!r}, got {bytes(received[offset : offset + 200])!r}"
                    )
                offset += len(expected)
        self.client._buffer[:0] = received
        answered = 0
        try:
            for request, _, effect in units:
                frame = self.client.read()
                if frame.is_error:
                    self.outcome.refused += 1
                    text = frame.raw.decode(errors="replace").strip()
                    self.outcome.refusals[text] = self.outcome.refusals.get(text, 0) + 1
                else:
                    self._check_late(base, request, frame, effect)
                    self._apply(base, effect)
                answered += 1
        except ConnectionClosed:
            candidates = [base]
            for unit in units[answered:]:
                following = candidates[-1].copy()
                self._apply(following, unit[2])
                candidates.append(following)
            self.outcome.answered += answered
            self._lost(candidates)
            return answered
        except ProtocolViolation as violation:
            raise Wrong(f"not RESP: {violation}") from None
        self.state = base
        self.outcome.answered += answered
        return answered

    def _check_late(self, state: State, request: bytes, frame, effect) -> None:
        parts = request.split(b"\r\n")
        name, argument = parts[2], parts[4]
        held = state.values.get(argument.decode(errors="replace"))
        expected = {
            b"SET": OK,
            b"GET": NIL if held is None else bulk(held),
            b"INCR": b":%d\r\n" % (state.counter + 1),
            b"DEL": b":%d\r\n" % (0 if held is None else 1),
            b"STRLEN": b":%d\r\n" % len(held or b""),
            b"ECHO": bulk(argument),
        }[name]
        if frame.raw != expected:
            raise Wrong(f"{request[:120]!r}: expected {expected[:120]!r}, got {frame.raw[:200]!r}")
