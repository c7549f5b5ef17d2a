"""One process follows another, and no client finds nobody there: hand-over, socket activation, and
what the service manager is told."""

import array
import contextlib
import ctypes
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from harness.accounts import OUTSIDER, connect_as
from harness.admin import Admin
from harness.console import Console
from harness.passwords import new_password
from harness.process import Process, wait_until
from harness.proxy import Listener, Upstream, binary
from harness.resp import Client, encode, eventually

USERS = ("app", "consumer")
RUN_AS_MANAGED = """
import os, sys
descriptors = [int(word) for word in sys.argv[1].split(",") if word]
# Above where they shall be, so that none is overwritten before it was moved.
high = [os.dup2(descriptor, 100 + index) for index, descriptor in enumerate(descriptors)]
for index, descriptor in enumerate(high):
    os.dup2(descriptor, 3 + index, inheritable=True)
    os.close(descriptor)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """What a service manager is to the proxy: it holds sockets, and is told things."""

    def __init__(self, place: Path, abstract: bool = False):
        self.sockets = []
        self.messages = []
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"{place}/notify"
        self.told.bind("\0" + path if abstract else path)
        self.told.settimeout(0.01)
        self.environment = {"NOTIFY_SOCKET": "@" + path if abstract else path}

    def listen(self, address) -> socket.socket:
        if isinstance(address, tuple):
            made = socket.create_server(address, backlog=128)
        else:
            made = socket.socket(socket.AF_UNIX)
            made.bind(str(address))
            made.listen(128)
        self.sockets.append(made)
        return made

    def options(self, names: str = None) -> dict:
        """How a proxy is started by it: for Proxy and Process."""
        numbers = [made.fileno() for made in self.sockets]
        for number in numbers:
            os.set_inheritable(number, True)
        environment = dict(self.environment)
        if numbers:
            environment["LISTEN_FDS"] = str(len(numbers))
        if names is not None:
            environment["LISTEN_FDNAMES"] = names
        shown = ",".join(map(str, numbers))
        return {
            "environment": environment,
            "wrapper": (sys.executable, "-c", RUN_AS_MANAGED, shown),
            "descriptors": numbers,
        }

    def receive(self) -> list:
        while True:
            try:
                self.messages.append(self.told.recv(4096).decode().splitlines())
            except TimeoutError:
                return self.messages

    def variables(self) -> list:
        return [line for message in self.receive() for line in message]

    def heard(self, variable: str) -> bool:
        return variable in self.variables()

    def forget(self) -> None:
        self.receive()
        self.messages.clear()

    def close(self) -> None:
        self.told.close()
        for made in self.sockets:
            made.close()


@pytest.fixture
def manager(place):
    manager = Manager(place)
    yield manager
    manager.close()


@pytest.fixture
def short_place():
    """A directory whose name leaves room for a socket's in an address."""
    path = Path(tempfile.mkdtemp(prefix="rap-"))
    yield path
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


class Generations:
    """One configuration, and processes that take over from one another."""

    def __init__(self, start_proxy, server, listeners, directory: Path, **settings):
        self.handover = directory / "handover.sock"
        settings.setdefault("handover_drain_timeout", "60s")
        users = {user: server.passwords[user] for user in USERS}
        self.proxy = start_proxy(
            {"cache": Upstream.verified(server)}, users, listeners,
            handover_socket=str(self.handover), **settings,
        )
        self.processes = [self.proxy.process]
        self.configuration = json.loads(self.proxy.configuration.read_text())

    @property
    def current(self) -> Process:
        return self.processes[-1]

    def write(self) -> None:
        self.proxy.configuration.write_text(json.dumps(self.configuration))

    def start(self, environment=None, **options) -> Process:
        """Another process, which will take over if it can."""
        process = Process(
            [*options.pop("wrapper", ()), binary(), "run", "--config", self.proxy.configuration],
            self.proxy.directory / f"proxy-{len(self.processes)}.log",
            environment=os.environ | (environment or {}),
            **options,
        )
        self.processes.append(process)
        return process

    def succeed(self, **options) -> Process:
        """Another process that has taken over."""
        process = self.start(**options)
        wait_until(lambda: "took over" in process.log(), process, "it takes over")
        return process

    def fail(self, code: int) -> str:
        """Another process that does not take over; what it logged."""
        process = self.start()
        assert process.wait() == code, process.log()
        self.processes.pop()
        return process.log()

    def stop(self) -> None:
        for process in self.processes:
            if process.is_running:
                process.kill()


@pytest.fixture
def generations(server, start_proxy, short_place):
    started = []
    with server.admin() as admin:
        assert admin.value("FLUSHALL") == b"OK"

    def start(*listeners, **settings) -> Generations:
        started.append(Generations(start_proxy, server, list(listeners), short_place, **settings))
        return started[-1]

    yield start
    for one in started:
        one.stop()


class Load:
    """Clients that come, ask and go, and clients that stay; every answer is checked."""

    def __init__(self, listener, short: int = 4):
        self.listener = listener
        self.failures = []
        self.done = [0] * short
        self.stayed = []
        self.finished = threading.Event()
        self.threads = []
        for number in range(short):
            self._run(self._come_and_go, number)

    def _run(self, work, number) -> None:
        thread = threading.Thread(target=self._watch, args=(work, number))
        self.threads.append(thread)
        thread.start()

    def _watch(self, work, number) -> None:
        try:
            work(number)
        except Exception as error:  # told by the test's own thread
            self.failures.append(error)

    def _come_and_go(self, number) -> None:
        while not self.finished.is_set():
            with self.listener.connect() as client:
                self.done[number] += 1
                expected = b":%d\r\n" % self.done[number]
                assert client.raw("INCR", f"short:{number}") == expected

    def stay(self) -> None:
        """One more client that keeps its connection and counts in pipelines."""
        number = len(self.stayed)
        self.stayed.append(0)
        self._run(self._count, number)

    def _count(self, number) -> None:
        with self.listener.connect() as client:
            while not self.finished.is_set():
                client.send_bytes(encode("INCR", f"long:{number}") * 20)
                for _ in range(20):
                    self.stayed[number] += 1
                    assert client.read_raw() == b":%d\r\n" % self.stayed[number]
                time.sleep(0.005)

    def get_on(self) -> None:
        """Everybody has had some answers since the call."""
        before = self.done + self.stayed
        eventually(
            lambda: self.failures
            or all(now >= then + 3 for now, then in zip(self.done + self.stayed, before)),
            what="everybody gets on",
            seconds=30,
        )
        assert not self.failures, self.failures

    def finish(self) -> None:
        self.finished.set()
        for thread in self.threads:
            thread.join(20)
        assert not self.failures, self.failures

    def check(self, server) -> None:
        for kind, counts in (("short", self.done), ("long", self.stayed)):
            for number, count in enumerate(counts):
                assert int(server.ask("GET", f"{kind}:{number}") or 0) == count


def assert_goes_on(*clients):
    for client in clients:
        assert client.raw("GET", "nothing") == b"$-1\r\n"


# Hand-over


@pytest.mark.parametrize("mode", ["multiplexed", "dedicated"])
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_ten_restarts_under_load_without_a_client_that_notices(
    generations, server, short_place, mode, way
):
    listener = Listener("app", mode, path=short_place / "app.sock" if way == "unix" else None)
    line = generations(listener, threads=2)
    load = Load(listener)
    try:
        load.stay()
        load.get_on()
        with listener.connect() as blocked, listener.connect() as subscriber:
            blocked.send("BLPOP", "list", "0")
            subscriber.send("SUBSCRIBE", "c")
            subscriber.read_raw()
            for _ in range(10):
                line.succeed()
                load.stay()
                load.get_on()
            assert server.ask("RPUSH", "list", "x") == 1
            assert blocked.read_raw() == b"*2\r\n$4\r\nlist\r\n$1\r\nx\r\n"
            assert server.ask("PUBLISH", "c", "m") == 1
            assert subscriber.read_raw() == b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
    finally:
        load.finish()
    load.check(server)
    assert sum(load.done) > 100
    # Nobody is left whom the earlier ones could serve.
    for process in line.processes[:-1]:
        assert process.wait() == 0
    with listener.connect() as client:
        assert_goes_on(client)
    assert line.current.stop() == 0
    assert not line.handover.exists()
    if way == "unix":
        assert not listener.address.exists()
    print(f"{mode}, {way}: {sum(load.done)} short clients, 10 restarts, no error")


def test_a_process_that_has_handed_over_serves_until_its_clients_leave(generations):
    listener = Listener("app")
    line = generations(listener)
    first = line.current
    with listener.connect() as client:
        assert client.raw("WATCH", "k") == b"+OK\r\n"
        line.succeed()
        assert client.raw("MULTI") == b"+OK\r\n"
        assert client.raw("EXEC") == b"*0\r\n"
        assert first.is_running
    assert first.wait() == 0
    assert "handed over" in first.log()


def test_who_does_not_leave_is_closed_when_the_time_is_over(generations):
    listener = Listener("app")
    line = generations(listener, handover_drain_timeout="300ms", drain_timeout="10s")
    first = line.current
    with listener.connect() as idle, listener.connect() as busy:
        assert_goes_on(idle, busy)
        busy.send_bytes(encode("DEBUG", "SLEEP", "1") + encode("GET", "nothing"))
        line.succeed()
        assert idle.read_to_end() == b""
        assert busy.read_raw(2) == b"+OK\r\n$-1\r\n"
        assert first.wait() == 0
    assert "handover_drain_timeout has passed: draining" in first.log()


def test_a_signal_drains_a_process_that_has_handed_over(generations):
    listener = Listener("app")
    line = generations(listener)
    first = line.current
    with listener.connect() as client:
        assert_goes_on(client)
        line.succeed()
        first.send_signal(signal.SIGTERM)
        assert client.read_to_end() == b""
        assert first.wait() == 0
    with listener.connect() as client:
        assert_goes_on(client)


def test_listeners_that_come_and_go_with_the_new_process(generations, short_place):
    stays = Listener("app", path=short_place / "stays.sock")
    goes, comes = Listener("consumer"), Listener("consumer")
    line = generations(stays, goes)
    inode = stays.address.stat().st_ino
    with goes.connect() as client:
        assert_goes_on(client)
        line.configuration["listeners"] = [comes.settings, stays.settings | {"socket_mode": "0660"}]
        line.write()
        log = line.succeed().log()
        assert "no longer listening on %s:%d" % goes.address in log
        assert_goes_on(client)
    with stays.connect() as first, comes.connect() as second:
        assert_goes_on(first, second)
    with pytest.raises(OSError):
        goes.connect()
    assert stays.address.stat().st_ino == inode
    assert stays.address.stat().st_mode & 0o777 == 0o660


def test_a_reload_is_refused_by_a_process_that_has_handed_over(generations):
    listener = Listener("app")
    line = generations(listener)
    first = line.current
    with listener.connect() as client:
        assert_goes_on(client)
        line.succeed()
        first.send_signal(signal.SIGHUP)
        eventually(lambda: "another process has taken over" in first.log())
        assert_goes_on(client)


def test_a_new_process_after_a_crash_finds_a_stale_socket_and_binds(generations, short_place):
    listener = Listener("app", path=short_place / "app.sock")
    line = generations(listener)
    line.current.kill()
    assert line.handover.exists() and listener.address.exists()
    process = line.start()
    wait_until(lambda: "listening on" in process.log(), process, "it listens")
    assert "taking over" not in process.log()
    with listener.connect() as client:
        assert_goes_on(client)
    line.succeed()


def test_two_new_processes_at_once_take_over_one_after_the_other(generations):
    listener = Listener("app")
    line = generations(listener)
    load = Load(listener)
    try:
        for _ in range(3):
            new = [line.start(), line.start()]
            eventually(
                lambda: all("took over" in process.log() for process in new), seconds=30,
                what="both took over",
            )
            load.get_on()
    finally:
        load.finish()
    eventually(
        lambda: sum(process.is_running for process in line.processes) == 1, what="one is left"
    )
    for process in line.processes:
        if not process.is_running:
            assert process.wait() == 0
    with listener.connect() as client:
        assert_goes_on(client)


# Where operators look


class Watched:
    """A line of processes with an admin listener and a console."""

    def __init__(self, generations, place: Path, listener: Listener, way: str):
        self.listener = listener
        self.admin = None
        if way != "console alone":
            self.admin = Admin(place / "status.sock" if way == "unix" else None)
        self.console = Console(place / "admin.sock")
        address = self.admin.settings if self.admin else {}
        self.line = generations(listener, admin=address | {"socket": str(self.console.path)})
        self.wait_until_open(self.line.current)

    def wait_until_open(self, process: Process) -> None:
        """This process has the places, and says that it is ready."""
        wait_until(lambda: "admin console on" in process.log(), process, "its console is open")
        assert self.owner(self.console.path) == process.pid
        if not self.admin:
            return
        eventually(self.admin.is_ready, what="ready")
        if self.admin.path:
            assert self.owner(self.admin.path) == process.pid

    def owner(self, path: Path) -> int:
        """The process that listens there, as the kernel says (unix(7), SO_PEERCRED)."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            return array.array(
                "i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def serves(self, client: Client) -> bool:
        """Whoever answers serves this client and no other, as the console and the metrics say."""
        rows = self.console.table("SHOW", "CLIENTS")
        port = client.socket.getsockname()[1]
        return [row["client"].endswith(f":{port}") for row in rows] == [True] and (
            not self.admin or self.admin.sum("sessions", user="app") == 1
        )


@pytest.fixture(params=["tcp", "unix", "console alone"])
def watched(request, generations, short_place):
    return Watched(generations, short_place, Listener("app"), request.param)


def test_the_places_of_operators_go_over_to_the_new_process(watched):
    line, console = watched.line, watched.console
    with contextlib.ExitStack() as stack:
        clients = []
        for generation in range(4):
            clients.append(stack.enter_context(watched.listener.connect()))
            assert_goes_on(*clients)
            # Those of before are with the processes of before.
            eventually(lambda: watched.serves(clients[-1]), what="it shows its own client")
            with Client(console.path) as open_console:
                assert open_console.raw("PING") == b"+PONG\r\n"
                process = line.succeed()
                watched.wait_until_open(process)
                assert open_console.read_to_end() == b"", "the console of before hangs up"
            for words in ("the admin console waits", "without the admin listener", "opened again"):
                assert words not in process.log()
        assert_goes_on(*clients)
        assert all(process.is_running for process in line.processes)
    # The ends of the others take nothing away from the last one.
    for process in line.processes[:-1]:
        assert process.wait() == 0
    watched.wait_until_open(line.current)
    assert console.run("PING") == "PONG"
    assert line.current.stop() == 0
    assert not console.path.exists()
    assert not (watched.admin and watched.admin.path and watched.admin.path.exists())


def test_the_places_of_operators_stay_where_a_hand_over_fails(watched):
    line, first = watched.line, watched.line.current
    other = line.proxy.directory / "other.password"
    other.write_text(new_password())
    line.configuration["users"]["app"]["credentials"]["password_file"] = str(other)
    line.write()
    line.fail(69)
    taker = Taker(line.handover)
    taker.hear("end")
    taker.say("ready")
    taker.hear("yours")
    taker.end()
    eventually(lambda: "did not take over; this one goes on" in first.log())
    watched.wait_until_open(first)
    with watched.listener.connect() as client:
        assert_goes_on(client)
        eventually(lambda: watched.serves(client), what="it shows its client")


def test_whoever_is_paused_is_not_left_behind_by_a_hand_over(watched):
    """With the console goes what could let the commands of the old process go."""
    line, console = watched.line, watched.console
    with watched.listener.connect() as client:
        assert_goes_on(client)
        console.order("PAUSE", "app")
        client.send("GET", "nothing")
        assert "commands of app are held back: RESUME first" in line.fail(69)
        watched.wait_until_open(line.current)
        taker = Taker(line.handover)
        taker.hear("refused commands of app are held back: RESUME first")
        taker.end()
        console.order("RESUME")
        assert client.read_raw() == b"$-1\r\n"
        # Or in the middle of one.
        taker = Taker(line.handover)
        taker.hear("end")
        console.order("PAUSE", "app")
        taker.say("ready")
        taker.hear("refused commands of app are held back: RESUME first")
        taker.end()
        console.order("RESUME")
        assert_goes_on(client)
        watched.wait_until_open(line.succeed())
        assert_goes_on(client)


def test_a_console_that_is_not_let_go_of_at_once_is_waited_for_without_a_warning(
    generations, short_place
):
    path = short_place / "admin.sock"
    line = generations(Listener("app"), admin={"socket": str(path)})
    assert line.current.stop() == 0
    with socket.socket(socket.AF_UNIX) as giver, socket.socket(socket.AF_UNIX) as console:
        for made, place in ((giver, line.handover), (console, path)):
            made.bind(str(place))
            made.listen(4)
            made.settimeout(10)
        process = line.start()
        giver.accept()[0].close()  # it only looked
        peer, _ = giver.accept()
        giver.close()  # the next one asks the new process
        with peer, peer.makefile("rb") as lines:
            assert lines.readline().startswith(b"redis-auth-proxy handover 1 pid ")
            peer.sendall(b"redis-auth-proxy handover 1 pid 1\nend\n")
            assert lines.readline() == b"ready\n", process.log()
            peer.sendall(b"yours\n")
            assert lines.readline() == b"mine\n"
        for _ in range(3):
            console.accept()[0].close()  # it looks again and again
    wait_until(lambda: "admin console on" in process.log(), process, "its console is open")
    assert "the admin console waits" not in process.log()


# A new process that fails


def test_a_configuration_that_cannot_be_used_leaves_the_running_process_alone(
    generations, short_place
):
    listener = Listener("app", path=short_place / "app.sock")
    line = generations(listener)
    good = line.proxy.configuration.read_text()
    taken = socket.create_server(("127.0.0.1", 0))
    broken = {
        "{": 78,
        good.replace('"cache"', '"chace"', 1): 78,
        json.dumps(
            line.configuration
            | {
                "listeners": line.configuration["listeners"]
                + [Listener("app").settings | {"address": "127.0.0.1:%d" % taken.getsockname()[1]}]
            }
        ): 69,
    }
    with taken, listener.connect() as client:
        for text, code in broken.items():
            line.proxy.configuration.write_text(text)
            line.fail(code)
            assert_goes_on(client)
            assert listener.address.exists()
            with listener.connect() as another:
                assert_goes_on(another)
        line.proxy.configuration.write_text(good)
        line.succeed()
        assert_goes_on(client)


def test_a_login_that_is_refused_leaves_the_running_process_alone(generations):
    listener = Listener("app")
    line = generations(listener)
    good = line.proxy.password_file("app").read_text()
    with listener.connect() as client:
        # Not the file itself, which the running process follows.
        other = line.proxy.directory / "other.password"
        other.write_text(new_password())
        line.configuration["users"]["app"]["credentials"]["password_file"] = str(other)
        line.write()
        log = line.fail(69)
        assert "user app cannot log in" in log and "WRONGPASS" in log
        assert "the running process goes on" in log
        assert_goes_on(client)
        with listener.connect() as another:
            assert_goes_on(another)
        other.write_text(good)
        line.succeed()
        assert_goes_on(client)


class Taker:
    """The new process's side of a hand-over, by hand."""

    def __init__(self, path: Path, hello: str = "redis-auth-proxy handover 1 pid 1"):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.descriptors = array.array("i")
        self.text = b""
        if hello:
            self.say(hello)

    def say(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\n")

    def hear(self, line: str) -> None:
        """Reads up to the end of this line."""
        while (line + "\n").encode() not in self.text:
            data, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 16)
            assert data, self.text
            self.text += data
            self.descriptors.extend(descriptors)

    def end(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.socket.close()


def test_a_process_that_ends_in_the_middle_of_a_hand_over_changes_nothing(
    generations, short_place
):
    listener = Listener("app", path=short_place / "app.sock")
    line = generations(listener)
    first = line.current
    load = Load(listener)
    try:
        load.stay()
        for steps in ([], ["end"], ["end", "yours"]):
            taker = Taker(line.handover, hello=steps and "redis-auth-proxy handover 1 pid 1")
            for step in steps:
                taker.hear(step)
                if step == "end":
                    assert len(taker.descriptors) == 2
                    if len(steps) > 1:
                        taker.say("ready")
            first.mark_log()
            taker.end()
            if steps:
                eventually(
                    lambda: "did not take over; this one goes on" in first.log_since_mark()
                )
            load.get_on()
            assert listener.address.exists() and line.handover.exists()
    finally:
        load.finish()
    load.check(server=_Asked(listener))
    # And it hands over to who comes then.
    line.succeed()
    assert first.wait() == 0


class _Asked:
    """A server that is asked through a listener."""

    def __init__(self, listener):
        self.listener = listener

    def ask(self, *arguments):
        with self.listener.connect() as client:
            return client.value(*arguments)


def test_a_process_that_takes_too_long_is_not_waited_for(generations):
    listener = Listener("app")
    line = generations(listener)
    taker = Taker(line.handover)
    taker.hear("end")
    taker.say("ready")
    taker.hear("yours")
    # Clients wait in the queue while it does not answer, and are served then.
    with listener.connect() as client:
        assert_goes_on(client)
    taker.hear("refused it took too long")
    taker.end()
    line.succeed()


def test_another_version_of_the_hand_over_is_refused_with_words(generations):
    listener = Listener("app")
    line = generations(listener)
    taker = Taker(line.handover, hello="redis-auth-proxy handover 2 pid 1")
    taker.hear(
        "refused it speaks version 2 of the hand-over, and this process version 1:"
        " stop this one and start the new one"
    )
    taker.end()
    with listener.connect() as client:
        assert_goes_on(client)
    line.current.stop()
    # The other way round.
    with socket.socket(socket.AF_UNIX) as giver:
        giver.bind(str(line.handover))
        giver.listen(4)
        process = line.start()
        giver.settimeout(10)
        giver.accept()[0].close()  # it only looked
        peer = giver.accept()[0]
        peer.sendall(b"redis-auth-proxy handover 2 pid 1\n")
        assert process.wait() == 69
        peer.close()
    assert "wanted version 1 of the hand-over, got 2" in process.log()


def test_nonsense_at_the_socket_of_the_hand_over_ends_that_connection_alone(generations):
    listener = Listener("app")
    line = generations(listener)
    for nonsense in ("ready", "mine", "PING", "x" * 5000, "socket", "redis-auth-proxy handover"):
        taker = Taker(line.handover, hello=nonsense)
        taker.socket.shutdown(socket.SHUT_WR)
        try:
            while taker.socket.recv(4096):
                pass
        except ConnectionResetError:
            pass
        taker.end()
    with listener.connect() as client:
        assert_goes_on(client)
    assert line.handover.stat().st_mode & 0o777 == 0o600
    line.succeed()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_process_of_another_user_gets_nothing_even_if_the_file_lets_it_in(
    generations, short_place
):
    listener = Listener("app")
    line = generations(listener)
    short_place.chmod(0o755)
    line.handover.chmod(0o666)
    with connect_as(str(line.handover), OUTSIDER) as stranger:
        data, descriptors, _, _ = socket.recv_fds(stranger, 4096, 16)
        assert data == b"refused wanted a process of the user 0 or root\n" and not descriptors
    # The other way round: a stranger listens where the new process asks.
    line.current.stop()
    line.configuration["handover_socket"] = str(short_place / "theirs.sock")
    line.write()
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(line.configuration["handover_socket"])
        child = os.fork()
        if child == 0:
            os.setresuid(OUTSIDER, OUTSIDER, OUTSIDER)
            theirs.listen()  # whoever does this is who the kernel attests
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert "got another's: both must be started as the same user" in line.fail(69)


def test_a_process_that_drains_gives_nothing_away(generations):
    listener = Listener("app")
    line = generations(listener, drain_timeout="10s")
    first = line.current
    with listener.connect() as busy:
        busy.send_bytes(encode("DEBUG", "SLEEP", "1"))
        time.sleep(0.1)
        first.send_signal(signal.SIGTERM)
        eventually(lambda: not line.handover.exists(), what="nobody is asked")
        process = line.start()
        wait_until(lambda: "listening on" in process.log(), process, "it listens")
        assert busy.read_raw() == b"+OK\r\n"
    assert first.wait() == 0
    with listener.connect() as client:
        assert_goes_on(client)


# The service manager's sockets


def start_managed(start_proxy, server, manager, *listeners, names=None, **settings):
    return start_proxy(
        {"cache": Upstream.verified(server)},
        {user: server.passwords[user] for user in USERS},
        list(listeners),
        **manager.options(names),
        **settings,
    )


@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_a_passed_socket_is_served_and_outlives_the_process(
    server, start_proxy, manager, short_place, way
):
    listener = Listener("app", path=short_place / "app.sock" if way == "unix" else None)
    manager.listen(listener.address)
    proxy = start_managed(start_proxy, server, manager, listener, names="redis")
    with listener.connect() as client:
        assert_goes_on(client)
    assert proxy.stop() == 0
    assert way == "tcp" or listener.address.exists()
    # Nobody is there, and the client waits in the queue.
    with listener.connect() as client:
        client.send("GET", "nothing")
        proxy.start_again()
        assert client.read_raw() == b"$-1\r\n"
    assert way == "tcp" or listener.address.exists()


def test_listeners_without_a_passed_socket_are_bound(server, start_proxy, manager):
    passed, own = Listener("app"), Listener("consumer")
    manager.listen(passed.address)
    start_managed(start_proxy, server, manager, own, passed)
    with passed.connect() as first, own.connect() as second:
        assert_goes_on(first, second)


def test_a_passed_socket_without_a_listener_is_an_error(server, start_proxy, manager):
    listener, other = Listener("app"), Listener("app")
    manager.listen(other.address)
    proxy = start_managed(
        start_proxy, server, manager, listener, names="cache.socket", wait=False
    )
    assert proxy.process.wait() == 69
    log = proxy.log()
    assert "for which there is no listener: 127.0.0.1:%d (cache.socket)" % other.address[1] in log
    assert "listeners: 127.0.0.1:%d" % listener.address[1] in log


@pytest.mark.parametrize("kind", ["file", "datagram", "connected"])
def test_a_passed_descriptor_that_no_listener_can_use_is_an_error(
    server, start_proxy, manager, place, kind
):
    if kind == "file":
        made = open(place / "file", "w")
    elif kind == "datagram":
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
    else:
        made = socket.socketpair()[0]
    manager.sockets.append(made)
    proxy = start_managed(
        start_proxy, server, manager, Listener("app"), names="odd", wait=False
    )
    assert proxy.process.wait() == 69
    assert "descriptor 3 (odd): wanted" in proxy.log()


def test_sockets_for_another_process_are_not_ours(server, start_proxy):
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {"app": server.passwords["app"]},
        [Listener("app")],
        environment={"LISTEN_PID": "1", "LISTEN_FDS": "3", "WATCHDOG_PID": "1"},
    )
    with proxy.connect() as client:
        assert_goes_on(client)


def test_a_listener_that_a_reload_removes_can_come_back_to_its_passed_socket(
    server, start_proxy, manager, short_place
):
    stays, goes = Listener("app"), Listener("app", path=short_place / "goes.sock")
    manager.listen(stays.address)
    manager.listen(goes.address)
    proxy = start_managed(start_proxy, server, manager, stays, goes)
    configuration = json.loads(proxy.configuration.read_text())
    with stays.connect() as untouched:
        assert_goes_on(untouched)
        for _ in range(3):
            for listeners in ([stays], [stays, goes]):
                configuration["listeners"] = [listener.settings for listener in listeners]
                proxy.configuration.write_text(json.dumps(configuration))
                proxy.process.mark_log()
                proxy.process.send_signal(signal.SIGHUP)
                eventually(lambda: ": reloaded" in proxy.process.log_since_mark())
            with goes.connect() as client:
                assert_goes_on(client, untouched)
    assert goes.address.exists()


def test_passed_sockets_are_not_handed_over(server, start_proxy, manager, short_place):
    listener = Listener("app")
    manager.listen(listener.address)
    path = short_place / "handover.sock"
    proxy = start_managed(start_proxy, server, manager, listener, handover_socket=str(path))
    eventually(lambda: "handover_socket is not used" in proxy.log())
    assert not path.exists()


# What the service manager is told


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_manager_is_told_of_start_reload_and_end(server, start_proxy, place, abstract):
    manager = Manager(place, abstract)
    proxy = start_managed(start_proxy, server, manager, Listener("app"))
    eventually(lambda: manager.heard("READY=1"))
    assert any(
        line.startswith("STATUS=serving on 1 listener") for line in manager.variables()
    )
    manager.forget()
    before = time.monotonic_ns() // 1000
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: manager.heard("READY=1"))
    first, last = manager.messages
    assert first[0] == "RELOADING=1" and last[0] == "READY=1"
    moment = int(first[1].removeprefix("MONOTONIC_USEC="))
    assert before <= moment <= time.monotonic_ns() // 1000
    manager.forget()
    proxy.configuration.write_text("{")
    proxy.process.send_signal(signal.SIGHUP)
    eventually(lambda: manager.heard("READY=1"))
    assert "the last reload was refused" in manager.messages[-1][1]
    manager.forget()
    assert proxy.stop() == 0
    assert manager.heard("STOPPING=1") and not manager.heard("READY=1")
    manager.close()


def test_signs_of_life_come_while_all_threads_go_on(server, start_proxy, manager):
    manager.environment["WATCHDOG_USEC"] = "100000"
    proxy = start_managed(start_proxy, server, manager, Listener("app"), threads=2)

    def count() -> int:
        return manager.variables().count("WATCHDOG=1")

    eventually(lambda: count() >= 5, what="signs of life")
    for name in ("worker 1", "acceptor"):
        with stopped_thread(proxy.pid, name):
            # The answer to the question before may still be told of.
            time.sleep(0.2)
            manager.forget()
            time.sleep(0.5)
            assert count() == 0, name
        eventually(lambda: count() >= 3, what="signs of life again")


class stopped_thread:
    """One thread of a process that does not run, as if it were stuck (ptrace(2))."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
    ALL_CHILDREN = 0x40000000  # __WALL

    def __init__(self, pid: int, name: str):
        (self.thread,) = [
            int(task.name)
            for task in Path(f"/proc/{pid}/task").iterdir()
            if (task / "comm").read_text().strip() == name
        ]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.libc.ptrace.restype = ctypes.c_long

    def _trace(self, request: int) -> None:
        if self.libc.ptrace(request, self.thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")

    def __enter__(self):
        self._trace(self.SEIZE)
        self._trace(self.INTERRUPT)
        os.waitpid(self.thread, self.ALL_CHILDREN)

    def __exit__(self, *_):
        self._trace(self.DETACH)


def test_the_manager_is_told_which_process_the_service_is_after_a_hand_over(
    generations, manager
):
    listener = Listener("app")
    line = generations(listener, environment=manager.environment)
    eventually(lambda: manager.heard("READY=1"))
    manager.forget()
    with listener.connect() as client:
        assert_goes_on(client)
        second = line.succeed()
        eventually(lambda: manager.heard(f"MAINPID={second.pid}"))
    assert line.processes[0].wait() == 0
    assert not manager.heard("STOPPING=1")


# Reload under load


def test_reloads_of_limits_and_certificates_under_load_without_a_client_that_notices(
    server, start_proxy, full_size
):
    listener, other = Listener("app"), Listener("consumer")
    proxy = start_proxy(
        {"cache": Upstream.verified(server)},
        {user: server.passwords[user] for user in USERS},
        [listener],
        threads=2,
    )
    configuration = json.loads(proxy.configuration.read_text())
    load = Load(listener)
    changes = itertools.cycle([
        {"max_pinned": 2, "reply_window": "64KiB", "gather": False},
        {"upstream_wait": "3s", "login_timeout": "3s", "reply_buffer": "64KiB"},
        {"max_pinned": 500, "slow_reader_timeout": "1s", "gather": True},
        {"listeners": [listener.settings, other.settings]},
        {"listeners": [listener.settings]},
        {"log": {"level": "info", "format": "json"}},
        {"log": {"level": "info", "format": "text"}},
    ])
    try:
        for _ in range(4):
            load.stay()
        for _ in range(40 if full_size else 14):
            configuration |= next(changes)
            proxy.configuration.write_text(json.dumps(configuration))
            proxy.process.mark_log()
            proxy.process.send_signal(signal.SIGHUP)
            eventually(lambda: "reloaded" in proxy.process.log_since_mark(), what="reloaded")
            load.get_on()
    finally:
        load.finish()
    load.check(server)
