"""The scenario with redis-cli: single calls, sessions through a pipe, and its tools.

usage: redis_cli.py HOST PORT PREFIX PROTOCOL      PROTOCOL 2|3
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from report import digest, step, wait_until

LIMIT_SECONDS = 30

host, port, prefix, protocol = sys.argv[1:]
# The tools look at a whole database, so at one that nobody else uses.
TOOLS_DATABASE = {"2": "5", "3": "6"}[protocol]
command = ["redis-cli", f"-{protocol}", "-h", host, "-p", port]


def key(name: str) -> str:
    return f"{prefix}:{name}"


def cli(*arguments, data: bytes = None, options: tuple = (), code: int = 0) -> str:
    """What one call prints, formatted as for a person."""
    run = subprocess.run(
        [*command, "--no-raw", *options, *map(str, arguments)],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT_SECONDS,
    )
    assert run.returncode == code, (arguments, run.returncode, run.stdout)
    return run.stdout.decode(errors="backslashreplace").rstrip("\n")


def raw(*arguments, data: bytes = None) -> bytes:
    """What one call prints when another program reads it."""
    return subprocess.run(
        [*command, "--raw", *arguments],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT_SECONDS,
    ).stdout


class Session:
    """One redis-cli, and so one connection, that is told its commands one by one."""

    def __init__(self, *options):
        self.child = subprocess.Popen(
            [*command, "--no-raw", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def send(self, line: str) -> None:
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def line(self) -> str:
        return self.child.stdout.readline().decode(errors="backslashreplace").rstrip("\n")

    def lines(self, count: int) -> list:
        return [self.line() for _ in range(count)]

    def ask(self, line: str, count: int = 1) -> str:
        """The first `count` lines of the answer."""
        self.send(line)
        return "\n".join(self.lines(count))

    def end(self) -> list:
        """Says that nothing follows; what is printed until the program ends."""
        self.child.stdin.close()
        rest = self.child.stdout.read()
        assert self.child.wait(LIMIT_SECONDS) == 0, rest
        return rest.decode(errors="backslashreplace").splitlines()

    def leave(self) -> None:
        """Ends a redis-cli that listens for ever."""
        self.child.terminate()
        self.child.communicate(timeout=LIMIT_SECONDS)


def is_blocked(name: str) -> bool:
    lines = raw("CLIENT", "LIST").decode().splitlines()
    return any(f" name={key(name)} " in line and " flags=b " in line for line in lines)


step("connect", cli("ECHO", "connected"))
step("ping", cli("PING"), cli("PING", "hello"), cli(data=b"PING\nPING again\n"))

step("set and get", cli("SET", key("text"), "value"), cli("GET", key("text")))
step("set and get", cli("GET", key("missing")), cli("DEL", key("text"), "missing"))

binary = bytes(range(256)) + b"\r\n+OK\r\n$5\r\n\0"
step("binary value", cli("SET", key("binary"), data=binary, options=("-x",)))
step("binary value", raw("GET", key("binary")) == binary + b"\n", cli("GET", key("binary")))
step("empty value", cli("SET", key("empty"), ""), cli("GET", key("empty")))
big = binary * 4096
step("big value", cli("SET", key("big"), data=big, options=("-x",)), cli("STRLEN", key("big")))
step("big value", raw("GET", key("big")) == big + b"\n", cli("GET", key("big")))

step("mset and mget", cli("MSET", key("m1"), 1, key("m2"), "\r\n"))
step("mset and mget", cli("MGET", key("m1"), key("missing"), key("m2")))
step("incr", cli("INCR", key("n")), cli("INCRBY", key("n"), 41), cli("INCR", key("empty")))
step("incr", cli("INCRBYFLOAT", key("f"), 0.5), cli("INCR", key("r"), options=("-r", "5")))
step("expire and ttl", cli("EXPIRE", key("n"), 100), cli("PERSIST", key("n")))
step("expire and ttl", cli("TTL", key("n")), cli("TTL", key("missing")))
step("hash", cli("HSET", key("hash"), "a", 1, "b", "x"), cli("HGETALL", key("hash")))
step("list", cli("RPUSH", key("list"), 1, 2, 3), cli("LRANGE", key("list"), 0, -1))
step("list", cli("LRANGE", key("list"), 0, -1, options=("--csv",)), cli("LPOP", key("missing")))
step("set", cli("SADD", key("set"), 3, 1, 2), cli("SMEMBERS", key("set")))
step("sorted set", cli("ZADD", key("zset"), 1, "one", 2.5, "more", "inf", "all"))
step("sorted set", cli("ZRANGE", key("zset"), 0, -1, "WITHSCORES"))
step("sorted set", cli("ZRANGE", key("zset"), 0, -1, "WITHSCORES", options=("--json",)))

lines = "".join(f"SET {key(f'scan:{index}')} {index}\n" for index in range(500))
step("pipeline", digest(cli(data=lines.encode()).splitlines()))
step("scan", digest(sorted(raw("--scan", "--pattern", key("scan:*")).split())))

# Mass insertion: the protocol itself on standard input, with ECHO at the end to know the end.
requests = "".join(
    f"*3\r\n$3\r\nSET\r\n${len(key(f'bp{index}'))}\r\n{key(f'bp{index}')}\r\n$5\r\n{index:05}\r\n"
    for index in range(20_000)
)
step("big pipeline", cli("--pipe", data=requests.encode()), cli("GET", key("bp19999")))
step("big pipeline", cli("--pipe", data=b"*1\r\n$4\r\nINCR\r\n*1\r\n$4\r\nPING\r\n", code=1))

session = Session()
step("transaction", session.ask(f"WATCH {key('n')}"), session.ask("MULTI"))
step("transaction", session.ask(f"INCR {key('n')}"), session.ask(f"LPUSH {key('empty')} x"))
step("transaction", session.ask(f"GET {key('n')}"), session.ask("EXEC", 3))
step("transaction", session.ask("MULTI"), session.ask("NOSUCHCOMMAND x"))
step("transaction", session.ask("EXEC"), session.ask("MULTI"), session.ask("DISCARD"))
step("transaction", session.ask("EXEC"), session.end())

session = Session()
step("transaction conflict", session.ask(f"WATCH {key('n')}"), cli("SET", key("n"), "changed"))
step("transaction conflict", session.ask("MULTI"), session.ask(f"SET {key('n')} mine"))
step("transaction conflict", session.ask("EXEC"), session.ask(f"GET {key('n')}"), session.end())

step("eval", cli("EVAL", "return {KEYS[1], ARGV[1], 7, false}", 1, key("k"), "a\r\nb"))
step("eval", cli("EVAL", "return redis.error_reply('MY error')", 0))
with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
    script.write("return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}")
    script.flush()
    step("eval", cli("--eval", script.name, key("n"), ",", "argument"))
sha = raw("SCRIPT", "LOAD", f"return tonumber(ARGV[1]) + 2 -- {prefix}").decode().strip()
step("evalsha", sha, cli("EVALSHA", sha, 0, 40), cli("EVALSHA", "0123456789" * 4, 0))
step("evalsha", cli("SCRIPT", "EXISTS", sha, "0123456789" * 4))

session = Session()
step("select", session.ask("SELECT 1"), session.ask(f"SET {key('db')} one"))
step("select", cli("GET", key("db")), cli("GET", key("db"), options=("-n", "1")))
step("select", session.ask("SELECT 99"), session.ask(f"GET {key('db')}"))
step("select", session.ask("SELECT 0"), session.ask(f"GET {key('db')}"), session.end())

session = Session()
step("blocking pop", session.ask(f"CLIENT SETNAME {key('blocker')}"))
session.send(f"BLPOP {key('q1')} {key('q2')} 15")
wait_until(lambda: is_blocked("blocker"), "BLPOP blocks")
step("blocking pop", cli("RPUSH", key("q2"), "b\r\n", "c"), session.lines(2))
step("blocking pop", session.ask(f"BRPOP {key('q2')} 1", 2), session.ask(f"GET {key('n')}"))
session.send(f"BLPOP {key('q1')} 0.1")
# redis-cli adds how long it took when that was more than half a second.
step("blocking pop timeout", session.line(), session.ask("PING"))
session.send(f"BLPOP {key('q3')} 15")
wait_until(lambda: is_blocked("blocker"), "BLPOP blocks")
session.leave()
wait_until(lambda: not is_blocked("blocker"), "the abandoned BLPOP ends")
step("blocking pop", cli("RPUSH", key("q3"), "kept"), cli("LPOP", key("q3")))

subscriber = Session()
step("subscribe", subscriber.ask(f"SUBSCRIBE {key('c1')} {key('c2')}", 7))
step("subscribe", cli("PUBLISH", key("c1"), "m\r\n\tx"), subscriber.lines(3))
step("subscribe", cli("PUBLISH", key("c2"), data=big, options=("-x",)), subscriber.lines(3))
subscriber.leave()
wait_until(lambda: cli("PUBLISH", key("c1"), "late") == "(integer) 0", "no subscriber is left")
patterns = Session()
step("psubscribe", patterns.ask(f"PSUBSCRIBE {key('p*')}", 4), cli("PUBLISH", key("p1"), "x"))
step("psubscribe", patterns.lines(4))
patterns.leave()

monitor = Session()
step("monitor", monitor.ask("MONITOR"))
cli("SET", key("watched by monitor"), "a\r\nb")
while key("watched by monitor") not in (line := monitor.line()):
    pass
step("monitor", re.sub(r"^\d+\.\d+ \[(\d+) \S+\]", r"<time> [\1 <address>]", line))
monitor.leave()

session = Session()
step("client name", session.ask("CLIENT GETNAME"), session.ask(f"CLIENT SETNAME {key('name')}"))
step("client name", session.ask("CLIENT GETNAME"), session.ask("CLIENT SETNAME 'a b'"))
step("client name", session.end())

step("errors", cli("GET", key("set")), cli("NOSUCHCOMMAND", "a\r\nb", "c"), cli("GET"))
step("errors", cli("GET", key("set"), options=("-e",), code=1), cli("SELECT", "x"))

step("stream", cli("XADD", key("s"), "1-1", "f", "v\r\n"), cli("XADD", key("s"), "2-1", "g", "x"))
step("stream", cli("XREAD", "COUNT", 10, "STREAMS", key("s"), 0))
step("stream", cli("XREAD", "BLOCK", 20, "STREAMS", key("s"), "2-1"))
group = ("XREADGROUP", "GROUP", "group", "one")
step("stream group", cli("XGROUP", "CREATE", key("s"), "group", 0))
step("stream group", cli(*group, "COUNT", 1, "STREAMS", key("s"), ">"))
step("stream group", cli("XACK", key("s"), "group", "1-1"))
step("stream group", cli(*group, "BLOCK", 20, "STREAMS", key("s"), ">"))
step("stream group", cli(*group, "BLOCK", 20, "STREAMS", key("s"), ">"))
step("stream group", cli("XPENDING", key("s"), "group"))

session = Session()
step("reconnect", session.ask(f"SET {key('r')} kept"), session.ask("CLIENT SETNAME x"))
step("reconnect", session.ask("RESET"), session.ask("CLIENT GETNAME"), session.end())
session = Session()
step("reconnect", session.ask("QUIT"), session.end(), cli("GET", key("r")))

session = Session()
step("hello", re.sub(r'("id"(?: =>|\n.*\)) \(integer\)) \d+', r"\1 <id>", cli("HELLO")))
step("hello", session.ask("HELLO 9"), session.ask("PING"), session.end())

if protocol == "3":
    session = Session("--show-pushes", "yes")
    step("tracking", session.ask("CLIENT TRACKING ON"), session.ask(f"GET {key('n')}"))
    step("tracking", cli("SET", key("n"), "invalidated"))
    # redis-cli looks for pushes when it reads a reply: it may come before or after this one.
    shown = [session.ask("PING")]
    while not any("invalidate" in line for line in shown):
        shown.append(session.ask("PING"))
    step("tracking", sorted({*shown, *session.end()}))

cli("MSET", *(text for index in range(50) for text in (key(f"t{index}"), "x" * index)),
    options=("-n", TOOLS_DATABASE))  # fmt: skip
summary = cli("--bigkeys", options=("-n", TOOLS_DATABASE)).split("summary")[1].splitlines()
step("tools", [line for line in summary if "Sampled" in line or "Biggest" in line])
with tempfile.TemporaryDirectory() as place:
    dump = Path(place) / "dump.rdb"
    step("rdb", "Transfer finished with success" in cli("--rdb", dump))
    check = subprocess.run(["redis-check-rdb", dump], stdout=subprocess.PIPE, timeout=LIMIT_SECONDS)
    step("rdb", check.returncode, b"Checksum OK" in check.stdout, b"looks OK" in check.stdout)
