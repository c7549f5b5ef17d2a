"""The client programs: how each is called, and which steps it must go through."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent / "programs"
LIMIT_SECONDS = 90

# Every client goes through these; a program may have steps of its own besides.
SCENARIO = frozenset(
    (
        "connect", "ping", "set and get", "binary value", "empty value", "big value",
        "mset and mget", "incr", "expire and ttl", "hash", "list", "set", "sorted set", "scan",
        "pipeline", "big pipeline", "transaction", "transaction conflict", "eval", "evalsha",
        "select", "blocking pop", "blocking pop timeout", "subscribe", "psubscribe",
        "client name", "errors", "stream", "stream group", "reconnect", "hello",
    )
)  # fmt: skip

# Debian's node-redis lies here, which a node from elsewhere does not search by itself.
NODE_PATH = "/usr/share/nodejs"


@dataclass(frozen=True)
class Client:
    """One program; `command` is followed by the host, the port, a key prefix and `options`."""

    name: str
    command: tuple
    options: tuple = ()

    def start(self, way, prefix: str) -> "Run":
        return Run(self, way, prefix)

    def lines(self, way) -> list:
        """What the program prints, one line per result."""
        return self.start(way, self.prefix).lines()

    @property
    def prefix(self) -> str:
        return self.name.replace(" ", "-")


class Run:
    """A running program. Its output is read beside it, so that it never waits for us."""

    def __init__(self, client: Client, way, prefix: str):
        self.what = f"{client.name} ({way.name})"
        self.child = subprocess.Popen(
            [*client.command, way.host, str(way.port), prefix, *client.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"NODE_PATH": NODE_PATH, "PYTHONWARNINGS": "ignore"},
            cwd=PROGRAMS,
            start_new_session=True,
        )
        self.output = self.errors = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            self.output, self.errors = self.child.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._end_group()
            self.output, self.errors = self.child.communicate()
            self.errors += b"\nended by the test after %d s" % LIMIT_SECONDS

    def _end_group(self) -> None:
        """Ends the program and what it started: it is the leader of a session of its own."""
        os.killpg(self.child.pid, 9)

    def join(self) -> None:
        self._reader.join()

    def lines(self) -> list:
        """What it printed, once it ended; a failure or a word on standard error fails the test."""
        self.join()
        text = self.output.decode(errors="backslashreplace")
        errors = self.errors.decode(errors="backslashreplace")
        assert self.child.returncode == 0, (
            f"{self.what} exited with {self.child.returncode} after printing:\n"
            f"{text[-1500:]}\nstandard error:\n{errors[-3000:]}"
        )
        assert not errors, f"{self.what} wrote to standard error:\n{errors[-3000:]}"
        return text.splitlines()


def steps(lines: list) -> set:
    return {line.split(":", 1)[0] for line in lines}


def script(name: str, *command: str, options: tuple = ()) -> Client:
    return Client(name, (*command[:-1], str(PROGRAMS / command[-1])), options)


def redis_py(program: str, protocol: int, parser: str) -> Client:
    name = f"{program.replace('_', '-')} RESP{protocol} {parser}"
    return script(name, sys.executable, f"{program}.py", options=(str(protocol), parser))


CLIENTS = [
    *(
        redis_py(program, protocol, parser)
        for program in ("redis_py", "redis_py_asyncio")
        for protocol in (2, 3)
        for parser in ("python", "hiredis")
    ),
    script("hiredis", "sh", "hiredis.sh"),
    script("phpredis", "php", "phpredis.php"),
    script("redis-rb", "ruby", "redis_rb.rb"),
    script("node-redis", "node", "node_redis.js"),
    script("perl Redis", "perl", "perl_redis.pl"),
    script("redis-cli RESP2", sys.executable, "redis_cli.py", options=("2",)),
    script("redis-cli RESP3", sys.executable, "redis_cli.py", options=("3",)),
]

# What the programs of QUEUES must have done.
JOBS = frozenset(
    (
        "enqueue", "fetch", "fetch many", "position", "queues", "meta", "description", "cancel",
        "delete", "at front", "work", "failure", "requeue", "urgent", "retry", "retry later",
        "schedule", "dependency", "many", "stop", "workers", "shutdown", "empty", "delete queue",
    )
)  # fmt: skip

QUEUES = [script("rq", sys.executable, "rq_jobs.py")]
