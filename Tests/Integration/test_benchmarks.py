"""Benchmarks/ does what its METHOD.md claims: replies are checked, stalls are charged, nothing stays.

Nothing here is about speed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.resp import eventually

END_TO_END = Path(__file__).resolve().parents[2] / "Benchmarks" / "EndToEnd"
RATE, STALL_SECONDS = 2000, 0.5
GET_REPLY = b"$64\r\n0:" + b"a" * 62 + b"\r\n"


@pytest.fixture(scope="module")
def generator(tmp_path_factory) -> Path:
    program = tmp_path_factory.mktemp("load") / "load"
    subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program,
         END_TO_END / "load" / "load.c", "-lssl", "-lcrypto"],
        check=True,
    )
    return program


class Scripted:
    """A server for one client, whose replies to SET and GET are what a test says."""

    def __init__(self, get_reply: bytes):
        self.get_reply = get_reply
        self.may_reply = threading.Event()
        self.may_reply.set()
        self.requests = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while received := self._receive(connection):
                self.requests += received.count(b"SET") + received.count(b"GET")
                self.may_reply.wait()
                replies = [
                    b"+OK\r\n" if b"SET" in request else self.get_reply
                    for request in received.split(b"*")[1:]
                ]
                connection.sendall(b"".join(replies))


    @staticmethod
    def _receive(connection) -> bytes:
        try:
            return connection.recv(1 << 20)
        except ConnectionResetError:
            return b""  # The load stopped with a reply unread.


def start(generator: Path, port: int, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [generator, "--port", str(port), "--clients", "1", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )


@pytest.mark.parametrize(
    "reply",
    [GET_REPLY.replace(b"aaaa", b"aaba", 1), GET_REPLY.replace(b"0:", b"1:"), b"$-1\r\n",
     GET_REPLY + b"+OK\r\n"],
    ids=["altered", "another client's", "a null", "one too many"],
)
def test_a_reply_that_is_not_the_clients_own_ends_the_load(generator, reply):
    load = start(generator, Scripted(reply).port)
    assert load.wait(20) == 1
    error = load.stderr.read()
    assert b"client 0: wanted" in error, error


def test_the_load_ends_with_whoever_started_it(generator):
    load = start(generator, Scripted(GET_REPLY).port)
    assert load.stdout.readline() == b"ready\n"
    load.stdin.close()
    assert load.wait(20) == 0


def test_a_stall_is_charged_to_every_command_that_was_due_in_it(generator):
    """Asking only after the last reply came would see one slow request, and a fast rest."""
    server = Scripted(GET_REPLY)
    load = start(generator, server.port, "--mode", "rate", "--rate", str(RATE))
    assert load.stdout.readline() == b"ready\n"
    seen = server.requests
    eventually(lambda: server.requests > seen, what="commands arrive")
    server.may_reply.clear()
    load.stdin.write(b"start\n")
    threading.Timer(STALL_SECONDS, server.may_reply.set).start()
    server.may_reply.wait()
    seen = server.requests
    eventually(lambda: server.requests > seen + RATE * STALL_SECONDS * 0.9, what="it catches up")
    load.stdin.write(b"stop\n")
    report = json.loads(load.stdout.readline())
    load.stdin.close()
    load.wait(20)
    # A thousand commands were due while nothing was answered, and waited for up to the whole stall.
    assert report["p90_us"] > STALL_SECONDS * 1e6 / 5, report
    assert report["max_us"] > STALL_SECONDS * 1e6 * 0.8, report


def processes_mentioning(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if text in command:
                found.append(f"{entry.name}: {command}")
    return found


def comparison(directory: Path, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, END_TO_END / "compare.py", "--quick", "--scenarios", "p1",
         "--peers", "direct-tls,ours", "--no-syscalls", "--idle-rounds", "0", *arguments],
        env=os.environ | {"TMPDIR": str(directory)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def test_a_run_leaves_a_table_its_samples_and_a_chart(tmp_path):
    run = comparison(tmp_path, "--output", tmp_path / "result")
    output, error = run.communicate(timeout=120)
    assert run.returncode == 0, error
    assert "| **redis-auth-proxy** |" in output
    result = json.loads((tmp_path / "result.json").read_text())
    assert [sample["peer"] for sample in result["samples"]] == ["direct TLS", "redis-auth-proxy"]
    assert (tmp_path / "result.md").read_text() in output
    assert (tmp_path / "result.svg").read_text().startswith("<svg")
    assert not processes_mentioning(str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_leaves_no_process_behind(tmp_path, number):
    run = comparison(tmp_path, "--window", "60")
    eventually(
        lambda: any("/load " in line for line in processes_mentioning(str(tmp_path))),
        what="the load runs", seconds=60,
    )
    run.send_signal(number)
    run.communicate(timeout=60)
    eventually(lambda: not processes_mentioning(str(tmp_path)), what="everything has ended")
