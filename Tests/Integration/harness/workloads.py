"""Clients of all kinds at once, each of which knows what it must be told.

    plain        one command at a time on keys of its own, every reply known beforehand
    pipelines    the same in pipelines, half of them with transactions (verifier.py)
    watchers     optimistic increments of counters they share: WATCH GET … MULTI SET EXEC
    producers    push numbers to a queue each ──► consumers, which wait for ever or for a while
    writers      append to a stream each      ──► readers, which wait for ever
    publishers   send numbers to a channel    ──► subscribers, RESP2 and RESP3
    slow         ask for megabytes and read them in small sips
    visitors     come, say a word and go; each needs a login where connections are its own

Some queues, streams and channels are quiet: so long between two elements that whoever waits for
them waits longer than a login lives. All clients are ready before the first begins, and in the end
each producer says how much it sent: what was sent and what arrived must agree, number for number.

Nothing may go wrong for a client here: an error, a close, a wrong reply and a lost or doubled
number are all counted, each with what was seen, and a client that met one goes no further.

The clients are threads in processes of their own, so that the interpreter of the test stays free.
"""

import bisect
import multiprocessing
import queue
import random
import socket
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field

from . import verifier
from .resp import Client, ConnectionClosed, Error, ProtocolViolation, Push, bulk, encode

# Two hundred clients; those of a kind that deal with each other stand in one number.
SIZES = {
    "plain": 38, "pipelines": 38, "visitors": 4, "watchers": 30, "producers": 10, "consumers": 40,
    "writers": 2, "readers": 4, "publishers": 5, "resp2_subscribers": 13, "resp3_subscribers": 13,
    "slow": 3,
}
WATCHERS_PER_COUNTER = 5
# One in so many queues, streams and channels is a quiet one, at least one of each kind.
QUIET_SHARE = 4
TIMED_WAIT_SECONDS = 20
READY_SECONDS = 60.0
STALL_SECONDS = 60.0
SLOW_VALUE_BYTES, SLOW_VALUES, SLOW_PIPELINE = 60_000, 5, 60
SIP_BYTES = 32 * 1024

OK = b"+OK\r\n"
PILL = b"end"
SHOWN = 5


@dataclass(frozen=True)
class Setting:
    """What all clients of a run share."""

    address: object
    seconds: float
    # What a client must send as AUTH, or None.
    login: tuple = None
    # Where visitors come, if it is another place.
    visitors_address: object = None
    quiet_seconds: float = 14.0
    # The longest that a client thinks inside WATCH; inside MULTI nearly as long again.
    thought_seconds: float = 4.0
    # Who has not been told the end so long after it was said is not told it.
    grace_seconds: float = 20.0
    seed: int = 1
    prefix: str = "w"
    sizes: tuple = tuple(SIZES.items())

    def size(self, kind: str) -> int:
        return dict(self.sizes)[kind]


@dataclass
class Tally:
    """What happened; of one client, of a process, and of all."""

    commands: int = 0
    messages: int = 0
    # Replies that are errors, and what they said.
    errors: Counter = field(default_factory=Counter)
    closed: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    # By queue: how many were pushed, and each number that was popped.
    pushed: Counter = field(default_factory=Counter)
    popped: dict = field(default_factory=dict)
    # By counter: transactions that ran, and that did not because somebody was faster.
    increments: Counter = field(default_factory=Counter)
    collisions: int = 0
    # Waits that ended with nothing, as they should.
    empty_waits: int = 0
    # PUBLISH that did not reach as many as there are; no fault by itself.
    unlike_receivers: int = 0
    # When a plain command was sent (time.time()), and for how long it took.
    latencies: list = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if name == "popped":
                for key, numbers in value.items():
                    mine.setdefault(key, []).extend(numbers)
            elif isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)

    def percentile_milliseconds(self, percent: float, times=None, within: float = 0.0) -> float:
        """Of the plain commands; of those only that began near one of `times`, if given."""
        chosen = [seconds for _, seconds in self.latencies]
        if times is not None:
            times = sorted(times)
            chosen = [
                seconds for began, seconds in self.latencies
                if bisect.bisect_left(times, began - within)
                < bisect.bisect_right(times, began + seconds + within)
            ]
        chosen.sort()
        if not chosen:
            return 0.0
        return chosen[min(len(chosen) - 1, int(len(chosen) * percent / 100))] * 1000

    def check(self, reader: Client = None) -> None:
        """Fails unless nothing went wrong. `reader` looks at what the counters hold."""
        found = []
        if self.errors:
            found.append(f"errors: {self.errors.most_common(SHOWN)}")
        if self.closed:
            found.append(f"{len(self.closed)} closed: {self.closed[:SHOWN]}")
        if self.wrong:
            found.append(f"{len(self.wrong)} wrong: " + "\n  ".join(self.wrong[:SHOWN]))
        for name in sorted(set(self.pushed) | set(self.popped)):
            popped = Counter(self.popped.get(name, []))
            lost = [n for n in range(self.pushed[name]) if n not in popped]
            doubled = [n for n, times in popped.items() if times > 1]
            unknown = [n for n in popped if n >= self.pushed[name]]
            if lost or doubled or unknown:
                found.append(
                    f"{name}, {self.pushed[name]} pushed: lost {lost[:20]}, doubled"
                    f" {doubled[:20]}, never acknowledged {unknown[:20]}"
                )
        for name, expected in self.increments.items():
            held = reader.value("GET", name) if reader else None
            if reader and held != b"%d" % expected:
                found.append(f"{name}: {expected} increments, but it is {held!r}")
        assert not found, "\n".join(found)

    def describe(self) -> str:
        return (
            f"{self.commands} commands, {self.messages} messages, {sum(self.pushed.values())}"
            f" elements, {sum(self.increments.values())} transactions and {self.collisions}"
            f" collisions, {self.empty_waits} empty waits, {self.unlike_receivers} PUBLISH with"
            f" other receivers; plain commands p50 {self.percentile_milliseconds(50):.2f} ms,"
            f" p99 {self.percentile_milliseconds(99):.2f} ms"
        )


class Workloads:
    """All clients of a setting, at work until `seconds` have passed; `finish` waits for them."""

    def __init__(self, setting: Setting, processes: int = 3):
        context = multiprocessing.get_context("spawn")
        self.setting = setting
        clients = [
            (kind, number) for kind, count in setting.sizes for number in range(count)
        ]
        self._results = context.Queue()
        self._stop = context.Event()
        ready = context.Barrier(len(clients) + 1)
        self._children = [
            context.Process(
                target=_run_process,
                args=(setting, clients[index::processes], ready, self._stop, self._results),
                daemon=True,
            )
            for index in range(processes)
        ]
        for child in self._children:
            child.start()
        try:
            ready.wait(READY_SECONDS)
            self.is_ready = True
        except threading.BrokenBarrierError:
            # Why is what the clients say.
            self.is_ready = False
            self._stop.set()
        self.started = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Lets so much of the time pass; False if a client's process ended meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not all(child.is_alive() for child in self._children):
                return False
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
        return True

    def finish(self) -> Tally:
        """Waits for the rest of the time, ends the work and adds up."""
        if self.is_ready:
            self.wait(self.setting.seconds - (time.monotonic() - self.started))
        self._stop.set()
        total = Tally()
        if not self.is_ready:
            total.wrong.append(f"not all clients were ready within {READY_SECONDS} s")
        deadline = time.monotonic() + STALL_SECONDS + self.setting.grace_seconds
        for _ in self._children:
            try:
                total.add(self._results.get(timeout=max(0.1, deadline - time.monotonic())))
            except queue.Empty:
                total.wrong.append("the clients of a process did not come to an end")
        for child in self._children:
            child.join(5)
            if child.is_alive():
                child.kill()
        return total


class Refused(Exception):
    """An error reply."""


class Worker:
    """One client. `prepare` is done before anybody works, `work` until `stop`."""

    def __init__(self, setting: Setting, number: int, tally: Tally):
        self.setting = setting
        self.number = number
        self.tally = tally
        self.random = random.Random(f"{setting.seed} {type(self).__name__} {number}")
        self.client = None
        self.protocol = 2
        self.is_given_up = False

    def name(self, what: str, number: int) -> str:
        return f"{self.setting.prefix}:{what}{number}"

    def is_quiet(self, number: int) -> bool:
        return number % QUIET_SHARE == 0

    def prepare(self) -> None:
        self.client = Client(self.setting.address, timeout=STALL_SECONDS)
        if self.setting.login:
            self.ask("AUTH", *self.setting.login)
        if self.protocol == 3:
            self.ask("HELLO", 3)

    def wait_long(self) -> None:
        """From now on silence may last until the end of the run."""
        self.client.socket.settimeout(self.setting.seconds + 2 * STALL_SECONDS)

    def ask(self, *command):
        self.tally.commands += 1
        value = self.client.value(*command)
        if isinstance(value, Error):
            raise Refused(f"{type(self).__name__} {command[0]}: {value.decode(errors='replace')}")
        return value

    def expect(self, expected, *command) -> None:
        value = self.ask(*command)
        if value != expected:
            raise verifier.Wrong(f"{command}: wanted {expected!r}, got {value!r}"[:400])

    def pause(self, stop, seconds: float) -> None:
        """About so long; less when the work ends."""
        stop.wait(seconds * self.random.uniform(0.5, 1.5))


class Plain(Worker):
    def prepare(self) -> None:
        super().prepare()
        self.keys = {self.name(f"plain{self.number}:", index): None for index in range(4)}
        self.counter = self.name("plain-counter", self.number)
        self.ask("DEL", self.counter, *self.keys)

    def work(self, stop) -> None:
        keys, counter, count = self.keys, self.counter, 0
        while not stop.is_set():
            key = self.random.choice(list(keys))
            choice, value = self.random.random(), b"%d" % self.random.randrange(10**6)
            began, start = time.time(), time.monotonic()
            if choice < 0.4:
                self.expect(b"OK", "SET", key, value)
            elif choice < 0.7:
                self.expect(keys[key], "GET", key)
            else:
                self.expect(count + 1, "INCR", counter)
            self.tally.latencies.append((began, time.monotonic() - start))
            if choice < 0.4:
                keys[key] = value
            count += choice >= 0.7
            self.pause(stop, 0.02)


class Pipelines(Worker):
    def prepare(self) -> None:
        pass

    def work(self, stop) -> None:
        plan = verifier.Plan(
            (self.setting.address,), 1, 10**9, max_depth=30, seed=self.setting.seed,
            transactions=self.number % 2 == 0, pace_seconds=0.1, login=self.setting.login,
            prefix=self.name("pipeline", self.number),
        )
        outcome = verifier.Outcome()
        verifier.VerifyingClient(plan, self.number, outcome).run(stop)
        self.tally.commands += outcome.answered


class Watchers(Worker):
    def prepare(self) -> None:
        super().prepare()
        self.counter = self.name("counter", self.number // WATCHERS_PER_COUNTER)
        if self.number % WATCHERS_PER_COUNTER == 0:
            self.expect(b"OK", "SET", self.counter, 0)

    def work(self, stop) -> None:
        while not stop.is_set():
            # Now and then somebody thinks for longer than a token is good, once behind WATCH and
            # once in the open transaction.
            thought = self.random.choice([0, 0, 0, 0.05] * 10 + [self.setting.thought_seconds])
            self.expect(b"OK", "WATCH", self.counter)
            following = int(self.ask("GET", self.counter)) + 1
            self.pause(stop, thought)
            token = b"%d/%d" % (self.number, following)
            commands = [("MULTI",), ("SET", self.counter, following), ("ECHO", token), ("EXEC",)]
            if self.random.random() < 0.5:
                self.client.send_bytes(b"".join(encode(*command) for command in commands))
                self.tally.commands += len(commands)
                replies = [self.client.read().value for _ in commands]
            else:
                replies = []
                for command in commands:
                    replies.append(self.ask(*command))
                    self.pause(stop, thought / 4)
            if replies[:3] != [b"OK", b"QUEUED", b"QUEUED"]:
                errors = [reply for reply in replies if isinstance(reply, Error)]
                raise Refused(f"transaction: {errors or replies}")
            if replies[3] is None:
                self.tally.collisions += 1
            elif replies[3] == [b"OK", token]:
                self.tally.increments[self.counter] += 1
            else:
                raise verifier.Wrong(f"EXEC answered {replies[3]!r}")
            self.pause(stop, 0.05)


class Producers(Worker):
    def work(self, stop) -> None:
        count, name = 0, self.name("queue", self.number)
        every = self.setting.quiet_seconds if self.is_quiet(self.number) else 0.03
        consumers = len(range(
            self.number, self.setting.size("consumers"), self.setting.size("producers")
        ))
        while not stop.is_set():
            if not isinstance(self.ask("RPUSH", name, count), int):
                raise verifier.Wrong("RPUSH answers with a number")
            count += 1
            self.tally.pushed[name] = count
            self.pause(stop, every)
        self.ask("RPUSH", name, *[PILL] * consumers)


class Consumers(Worker):
    """What waits for an element: every fourth in the same way."""

    def work(self, _) -> None:
        source = self.number % self.setting.size("producers")
        name, done = self.name("queue", source), self.name("done", source)
        way = self.number // self.setting.size("producers") % 4
        command, timeout = {
            0: (("BLPOP", name, 0), 0),
            1: (("BLMOVE", name, done, "LEFT", "RIGHT", 0), 0),
            2: (("BLMPOP", 0, 1, name, "LEFT"), 0),
            3: (("BLPOP", name, TIMED_WAIT_SECONDS), TIMED_WAIT_SECONDS),
        }[way]
        self.wait_long()
        last, popped = -1, self.tally.popped.setdefault(name, [])
        while True:
            start = time.monotonic()
            answer = self.ask(*command)
            if answer is None and timeout:
                if time.monotonic() - start < timeout - 0.05:
                    raise verifier.Wrong(f"{command} gave up after {time.monotonic() - start} s")
                self.tally.empty_waits += 1
                continue
            element = {0: lambda: answer[1], 1: lambda: answer, 2: lambda: answer[1][0]}[way % 3]()
            if element == PILL:
                return
            if int(element) <= last:
                raise verifier.Wrong(f"{name}: {element!r} came behind {last}")
            last = int(element)
            popped.append(last)


class Writers(Worker):
    def prepare(self) -> None:
        super().prepare()
        self.stream = self.name("stream", self.number)
        self.ask("DEL", self.stream)

    def work(self, stop) -> None:
        count = 0
        every = self.setting.quiet_seconds if self.is_quiet(self.number) else 0.1
        while not stop.is_set():
            count += 1
            self.expect(b"%d-1" % count, "XADD", self.stream, f"{count}-1", "n", count)
            self.pause(stop, every)
        self.ask("XADD", self.stream, f"{count + 1}-1", "n", PILL)


class Readers(Worker):
    def work(self, _) -> None:
        stream = self.name("stream", self.number % self.setting.size("writers"))
        self.wait_long()
        last = 0
        while True:
            answer = self.ask("XREAD", "BLOCK", 0, "STREAMS", stream, f"{last}-1")
            for identifier, (_, number) in answer[0][1]:
                last += 1
                if identifier != b"%d-1" % last or number not in (b"%d" % last, PILL):
                    raise verifier.Wrong(f"{stream}: {identifier!r} {number!r} as entry {last}")
                self.tally.messages += 1
                if number == PILL:
                    return


class Publishers(Worker):
    def work(self, stop) -> None:
        count, channel = 0, self.name("channel", self.number)
        every = self.setting.quiet_seconds if self.is_quiet(self.number) else 0.03
        publishers = self.setting.size("publishers")
        receivers = sum(
            len(range(self.number, self.setting.size(kind), publishers))
            for kind in ("resp2_subscribers", "resp3_subscribers")
        )
        while not stop.is_set():
            count += 1
            self.tally.unlike_receivers += self.ask("PUBLISH", channel, count) != receivers
            self.pause(stop, every)
        self.ask("PUBLISH", channel, b"%s %d" % (PILL, count))


class Subscribers(Worker):
    """Every other one by a pattern. They also say PING, and in RESP3 more than that."""

    def prepare(self) -> None:
        super().prepare()
        channel = self.name("channel", self.number % self.setting.size("publishers"))
        self.has_pattern = self.number % 2 == 1
        # No more than one channel's name begins so.
        command = ("PSUBSCRIBE", channel + "*") if self.has_pattern else ("SUBSCRIBE", channel)
        answer = self.ask(*command)
        if answer[0] != command[0].lower().encode() or answer[2] != 1:
            raise verifier.Wrong(f"{command[0]} answers {answer!r}")
        self.channel = channel.encode()

    def work(self, _) -> None:
        self.wait_long()
        last = 0
        asked = None
        while True:
            frame = self.client.read()
            if isinstance(frame.value, Error):
                raise Refused(f"{type(self).__name__}: {frame.value.decode(errors='replace')}")
            if asked is not None and self._answers(frame, asked):
                asked = None
                continue
            kind = b"pmessage" if self.has_pattern else b"message"
            is_push = isinstance(frame.value, Push) == (self.protocol == 3)
            values = frame.value
            if not is_push or values[0] != kind or values[-2] != self.channel:
                raise verifier.Wrong(f"a subscriber of {self.channel} got {frame.raw[:200]!r}")
            self.tally.messages += 1
            if values[-1].startswith(PILL):
                if values[-1] != b"%s %d" % (PILL, last):
                    raise verifier.Wrong(f"{self.channel}: {values[-1]!r} behind {last}")
                return
            last += 1
            if values[-1] != b"%d" % last:
                raise verifier.Wrong(f"{self.channel}: {values[-1]!r} in the place of {last}")
            if asked is None and self.random.random() < 0.1:
                asked = b"%d" % last
                self.client.send("PING" if self.protocol == 2 else "ECHO", asked)

    def _answers(self, frame, asked: bytes) -> bool:
        if self.protocol == 3:
            return frame.raw == bulk(asked)
        return frame.raw == b"*2\r\n" + bulk("pong") + bulk(asked)


class Resp2Subscribers(Subscribers):
    pass


class Resp3Subscribers(Subscribers):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.protocol = 3


class Slow(Worker):
    def work(self, stop) -> None:
        values = []
        for index in range(SLOW_VALUES):
            value = b"%d:%d:" % (self.number, index) + b"v" * SLOW_VALUE_BYTES
            self.expect(b"OK", "SET", self.name(f"slow{self.number}:", index), value)
            values.append(value)
        while not stop.is_set():
            chosen = [self.random.randrange(SLOW_VALUES) for _ in range(SLOW_PIPELINE)]
            names = [self.name(f"slow{self.number}:", index) for index in chosen]
            expected = b"".join(bulk(values[index]) for index in chosen)
            self.client.send_bytes(b"".join(encode("GET", name) for name in names))
            received = 0
            while received < len(expected):
                chunk = self.client.socket.recv(SIP_BYTES)
                if not chunk:
                    raise ConnectionClosed(b"")
                if expected[received : received + len(chunk)] != chunk:
                    raise verifier.Wrong(f"byte {received} or one behind it of a big reply")
                received += len(chunk)
                # Some 600 kB in a second.
                if not stop.is_set():
                    time.sleep(0.05)
            self.tally.commands += SLOW_PIPELINE
            self.pause(stop, 0.05)


class Visitors(Worker):
    def prepare(self) -> None:
        pass

    def work(self, stop) -> None:
        key, count = self.name("visitor", self.number), 0
        while not stop.is_set():
            address = self.setting.visitors_address or self.setting.address
            self.client = Client(address, timeout=STALL_SECONDS)
            if self.setting.login:
                self.ask("AUTH", *self.setting.login)
            self.expect(b"OK", "SET", key, count)
            self.expect(b"%d" % count, "GET", key)
            self.client.close()
            count += 1
            self.pause(stop, 0.3)


WORKERS = {
    "plain": Plain, "pipelines": Pipelines, "watchers": Watchers, "producers": Producers,
    "consumers": Consumers, "writers": Writers, "readers": Readers, "publishers": Publishers,
    "resp2_subscribers": Resp2Subscribers, "resp3_subscribers": Resp3Subscribers, "slow": Slow,
    "visitors": Visitors,
}


def _run_process(setting: Setting, clients, ready, stop, results) -> None:
    workers = [WORKERS[kind](setting, number, Tally()) for kind, number in clients]
    threads = [
        threading.Thread(target=_run_client, args=(worker, ready, stop)) for worker in workers
    ]
    for thread in threads:
        thread.start()
    stop.wait()
    deadline = time.monotonic() + setting.grace_seconds
    for worker, thread in zip(workers, threads):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive() and worker.client:
            worker.is_given_up = True
            worker.client.socket.shutdown(socket.SHUT_RDWR)
    total = Tally()
    for worker, thread in zip(workers, threads):
        thread.join(STALL_SECONDS)
        total.add(worker.tally)
    results.put(total)


def _run_client(worker: Worker, ready, stop) -> None:
    tally = worker.tally
    shown = f"{type(worker).__name__} {worker.number}"
    try:
        try:
            worker.prepare()
        except BaseException:
            ready.abort()
            raise
        ready.wait(READY_SECONDS)
        worker.work(stop)
    except threading.BrokenBarrierError:
        pass
    except Refused as error:
        tally.errors[str(error)] += 1
    except (ConnectionClosed, ConnectionResetError, BrokenPipeError) as error:
        if worker.is_given_up:
            tally.wrong.append(f"{shown} waited in vain for the end")
        else:
            tally.closed.append(f"{shown}: {error!r}"[:200])
    except TimeoutError:
        tally.wrong.append(f"{shown}: no reply for {worker.client.socket.gettimeout()} s")
    except (verifier.Wrong, ProtocolViolation) as error:
        tally.wrong.append(f"{shown} (seed {worker.setting.seed}): {error}")
    except Exception:
        tally.wrong.append(f"{shown}: {traceback.format_exc()}")
    finally:
        if worker.client:
            worker.client.close()
