"""A stand-in for ElastiCache's front: IAM logins over TLS, before a real redis-server.

    proxy ── TLS ──► front (a process of its own) ── Unix socket ──► redis-server, `default` off
                     │ reads each request as far as its first word
                     │ AUTH and HELLO … AUTH: judges the IAM token (iam.py) and passes the login on
                     │   with the ACL user's real password, or with a wrong one
                     │ drops a connection so long after its last successful login
                     └ records logins, requests that came too early, connections that grew too old

What it is not: ElastiCache. It does what the documentation says of it, and where that says nothing
what redis-server does. Because refused logins reach the server too, with a password that is wrong,
every reply is the server's own and in its place, and the front need not understand replies at all.

- A login takes effect when the server next says something: behind BLPOP it waits as it does there.
- Inside MULTI an IAM login becomes an unknown command, which the server refuses and which aborts
  the transaction. Whether a MULTI was refused, for lack of permission, is not looked at.
- A subscriber that speaks RESP2 gets the server's own refusal.
- A throttled login, a removed user and every wrong token get WRONGPASS, as all users report.

Rejected: threads and blocking sockets (half the throughput), the front inside the test's process
(it would compete with the clients for the interpreter).
"""

import asyncio
import json
import os
import re
import secrets
import socket
import ssl
import sys
import time
from collections import Counter, deque
from pathlib import Path

from . import passwords
from .iam import ACCEPTED, AccessKey, Cache, Judge
from .ports import free_port
from .process import Process, wait_until
from .resp import encode
from .server import RedisServer

CONNECTION_SECONDS = 12 * 3600
CONTROL_SECONDS = 15.0

REFUSED_IN_TRANSACTION = "login inside a transaction"
REFUSED_SUBSCRIBED = "login of a RESP2 subscriber"
REFUSED_BY_ORDER = "refused by order"
THROTTLED = "throttled"
REMOVED = "user removed"
WRONG_PASSWORD = "wrong password"
LOST_ERROR = ", error reply lost"

SIGNATURE = re.compile("(?<=X-Amz-Signature=)[0-9a-f]{64}")

BEFORE_LOGIN = {b"AUTH", b"HELLO", b"QUIT", b"RESET"}
SUBSCRIBING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"}
UNSUBSCRIBING = {b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"}
# All that the front must see; the rest passes by.
WATCHED = {
    b"AUTH", b"HELLO", b"MULTI", b"EXEC", b"DISCARD", b"RESET", *SUBSCRIBING, *UNSUBSCRIBING,
}


class ElastiCache:
    """The test's side: starts the front and its server, tells it what to do, reads its records.

    `iam_users` log in with tokens, all other users of the server with their passwords. Times are
    in seconds of the clock on the wall: give small ones to let twelve hours pass in minutes.
    """

    def __init__(
        self, directory: Path, authority, cache: Cache = Cache("cache-01"), iam_users=("app",),
        server_kind=RedisServer, **settings,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.authority = authority
        self.cache = cache
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.client_context = ssl.create_default_context(cafile=str(authority.ca_file))
        self.server = server_kind(
            directory / "server", options={"unixsocket": directory / "server.sock"}
        )
        assert self.server.ask("ACL", "SETUSER", "default", "reset", "off") == b"OK"
        certificate = authority.issue(f"elasticache-{self.port}")
        users = {
            name: {"is_iam": name in iam_users, "passwords": [password]}
            for name, password in self.server.passwords.items()
        }
        configuration = directory / "front.json"
        configuration.write_text(json.dumps({
            "port": self.port,
            "certificate": str(certificate.certificate_file),
            "key": str(certificate.key_file),
            "server": str(directory / "server.sock"),
            "control": str(directory / "control.sock"),
            "cache": vars(cache),
            "users": users,
            "settings": settings,
        }))
        configuration.chmod(0o600)
        self.process = Process(
            [sys.executable, "-m", "harness.elasticache", configuration],
            directory / "elasticache.log",
            environment=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
        self._control = None
        wait_until(self._connects, self.process, "the stand-in for ElastiCache listens")

    def _connects(self) -> bool:
        control = socket.socket(socket.AF_UNIX)
        control.settimeout(CONTROL_SECONDS)
        try:
            control.connect(str(self.directory / "control.sock"))
        except OSError:
            control.close()
            return False
        self._control = control.makefile("rw")
        return True

    def tell(self, what: str, **arguments):
        """One order to the front, and what it answers."""
        self._control.write(json.dumps({"do": what} | arguments) + "\n")
        self._control.flush()
        answer = json.loads(self._control.readline())
        assert "error" not in answer, answer
        return answer["value"]

    def trust(self, key: AccessKey) -> None:
        """From now on tokens that are signed with `key` are good, until it expires."""
        passwords.remember(key.secret)
        passwords.remember(key.session_token)
        self.tell("trust", key=vars(key))

    def set(self, **settings) -> None:
        """Changes settings of the running front, see Front.settings."""
        self.tell("set", settings=settings)

    def set_passwords(self, user: str, *passwords: str) -> None:
        """The one or two passwords that are good for `user`; live connections stay."""
        rules = [">" + password for password in passwords]
        assert self.server.ask("ACL", "SETUSER", user, "resetpass", *rules) == b"OK"
        self.server.passwords[user] = passwords[0]
        self.tell("passwords", user=user, passwords=list(passwords))

    def remove_user(self, user: str) -> None:
        """As when a user leaves the group: logins are refused, its connections closed."""
        self.tell("remove", user=user)

    def restore_user(self, user: str) -> None:
        self.tell("restore", user=user)

    def cut(self) -> int:
        """Closes all connections at once; how many."""
        return self.tell("cut")

    def restart(self, seconds: float = 0.0) -> None:
        """All connections go, and for so long nobody can connect."""
        self.tell("restart", seconds=seconds)

    def report(self) -> dict:
        """logins, too_early (requests before a login), too_old (connections that were dropped at
        their limit), oldest_seconds (of a connection when it was renewed), connections."""
        return self.tell("report")

    def signatures(self) -> list[str]:
        """Of all tokens so far, good or not: what no log may contain."""
        return self.tell("signatures")

    def forget(self) -> None:
        """Starts the records anew."""
        self.tell("forget")

    def logins(self, **fields) -> list[dict]:
        """The recorded logins that have these values."""
        return [
            login for login in self.report()["logins"]
            if all(login[name] == value for name, value in fields.items())
        ]

    def results(self) -> Counter:
        return Counter(login["result"] for login in self.report()["logins"])

    def stop(self) -> None:
        if self._control:
            self._control.close()
        self.process.stop()
        self.server.stop()


# The front's process from here on.


class Front:
    """What all connections share."""

    def __init__(self, configuration: dict):
        self.judge = Judge(Cache(**configuration["cache"]))
        self.users = configuration["users"]
        self.removed = set()
        self.server_path = configuration["server"]
        self.port = configuration["port"]
        self.settings = {
            # How long a token is good, and a connection after its last login.
            "token_seconds": self.judge.token_seconds,
            "connection_seconds": CONNECTION_SECONDS,
            # How far the front's clock is ahead of the machine's.
            "clock_offset_seconds": 0.0,
            # What the check of a token takes, as one that asks IAM does.
            "login_seconds": 0.0,
            # More IAM logins than this in a second are refused; 0: no limit.
            "logins_per_second": 0,
            # The error reply of a login is lost when an earlier reply is still to come
            # (redis issue 15640).
            "loses_errors": False,
            # Every token is refused, as when the IAM policy is gone.
            "refuses_logins": False,
            # The same for connections that are logged in already.
            "refuses_renewals": False,
        }
        self.change(configuration["settings"])
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(configuration["certificate"], configuration["key"])
        self.connections = set()
        self.connections_made = 0
        self.recent_logins = deque()
        self.signatures = set()
        self.forget()

    def change(self, settings: dict) -> None:
        unknown = set(settings) - set(self.settings)
        if unknown:
            raise ValueError(f"no such settings: {unknown}")
        self.settings |= settings
        self.judge.token_seconds = self.settings["token_seconds"]
        self.judge.clock_offset_seconds = self.settings["clock_offset_seconds"]

    def forget(self) -> None:
        self.logins, self.too_early, self.too_old = [], [], []
        self.oldest_seconds = 0.0

    def report(self) -> dict:
        return {
            "logins": self.logins, "too_early": self.too_early, "too_old": self.too_old,
            "oldest_seconds": self.oldest_seconds, "connections": len(self.connections),
        }

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, ssl=self.tls, backlog=1024
        )

    def cut(self) -> int:
        gone = list(self.connections)
        for connection in gone:
            connection.abort()
        return len(gone)

    def verdict(self, connection: "Connection", user: str, secret: str) -> str:
        """What is to become of a login."""
        self.signatures.update(SIGNATURE.findall(secret))
        known = self.users.get(user)
        if known is None or user in self.removed:
            return REMOVED if known else "unknown user"
        if connection.is_subscribed and connection.protocol == 2:
            return REFUSED_SUBSCRIBED
        if not known["is_iam"]:
            return ACCEPTED if secret in known["passwords"] else WRONG_PASSWORD
        if connection.in_transaction:
            return REFUSED_IN_TRANSACTION
        limit, now = self.settings["logins_per_second"], time.monotonic()
        if limit:
            while self.recent_logins and self.recent_logins[0] < now - 1:
                self.recent_logins.popleft()
            if len(self.recent_logins) >= limit:
                return THROTTLED
            self.recent_logins.append(now)
        is_refused = self.settings["refuses_logins"]
        if connection.user is not None:
            is_refused |= self.settings["refuses_renewals"]
        if is_refused:
            return REFUSED_BY_ORDER
        return self.judge.verdict(secret, user)

    # Orders

    async def obey(self, order: dict):
        what = order.pop("do")
        if what == "trust":
            self.judge.trust(AccessKey(**order["key"]))
        elif what == "set":
            self.change(order["settings"])
        elif what == "passwords":
            self.users.setdefault(order["user"], {"is_iam": False})
            self.users[order["user"]]["passwords"] = order["passwords"]
        elif what == "remove":
            self.removed.add(order["user"])
            for connection in list(self.connections):
                if connection.user == order["user"]:
                    connection.abort()
        elif what == "restore":
            self.removed.discard(order["user"])
        elif what == "cut":
            return self.cut()
        elif what == "restart":
            self.listener.close()
            self.cut()
            await asyncio.sleep(order["seconds"])
            await self.listen()
        elif what == "report":
            return self.report()
        elif what == "signatures":
            return sorted(self.signatures)
        elif what == "forget":
            self.forget()
        else:
            raise ValueError(f"no such order: {what}")

    async def serve_control(self, reader, writer) -> None:
        while line := await reader.readline():
            try:
                answer = {"value": await self.obey(json.loads(line))}
            except Exception as error:
                answer = {"error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()


class ServerSide(asyncio.Protocol):
    """The front's connection to the server: all bytes go to the client as they come."""

    def __init__(self, connection: "Connection"):
        self.connection = connection

    def connection_made(self, transport) -> None:
        self.connection.server = transport

    def data_received(self, data: bytes) -> None:
        connection = self.connection
        connection.is_owed = False
        if connection.login is not None:
            connection.logged_in()
        connection.client.write(data)

    def connection_lost(self, error) -> None:
        self.connection.client.close()

    def pause_writing(self) -> None:
        self.connection.client.pause_reading()

    def resume_writing(self) -> None:
        self.connection.client.resume_reading()


class Connection(asyncio.Protocol):
    """One connection of the proxy's."""

    def __init__(self, front: Front):
        self.front = front
        self.client = self.server = self.user = self.alarm = None
        # The user of a login that was passed on and whose reply is not here.
        self.login = None
        self.renewed_at = None
        self.is_owed = self.is_held = False
        self.buffer = bytearray()
        # Less than this much is no whole request.
        self.needed = 1
        front.connections_made += 1
        self.number = front.connections_made
        self.forget()

    def forget(self) -> None:
        """As the server does at RESET."""
        self.protocol = 2
        self.in_transaction = False
        self.channels = {name: set() for name in SUBSCRIBING}

    @property
    def is_subscribed(self) -> bool:
        return any(self.channels.values())

    def connection_made(self, transport) -> None:
        self.client = transport
        self.front.connections.add(self)
        transport.pause_reading()
        asyncio.ensure_future(self.reach_server())

    async def reach_server(self) -> None:
        try:
            await asyncio.get_running_loop().create_unix_connection(
                lambda: ServerSide(self), self.front.server_path
            )
        except OSError:
            self.client.abort()
            return
        if self.client.is_closing():
            self.server.abort()
        else:
            self.client.resume_reading()

    def connection_lost(self, error) -> None:
        self.front.connections.discard(self)
        if self.alarm:
            self.alarm.cancel()
        if self.server:
            self.server.close()

    def abort(self) -> None:
        self.client.abort()

    def pause_writing(self) -> None:
        if self.server:
            self.server.pause_reading()

    def resume_writing(self) -> None:
        if self.server and not self.server.is_closing():
            self.server.resume_reading()

    # Requests

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= self.needed and not self.is_held:
            self.pass_on()

    def pass_on(self) -> None:
        """Everything whole that is there; logins one by one, the rest as it came."""
        buffer, start, plain = self.buffer, 0, 0
        while True:
            end, name = end_of_request(buffer, start)
            if name is None:
                self.needed = end - start
                break
            if self.user is None and name not in BEFORE_LOGIN:
                self.front.too_early.append({
                    "connection": self.number, "command": name.decode("latin-1")[:40],
                    "bytes": end - start,
                })
            if name in WATCHED:
                replacement = self.watch(name, buffer, start, end)
                if replacement is not None:
                    self.write(buffer[plain:start])
                    self.write(replacement)
                    plain = end
            start = end
            if self.is_held:
                self.needed = 1
                break
        self.write(buffer[plain:start])
        del buffer[:start]

    def write(self, data) -> None:
        if data:
            self.server.write(bytes(data))
            self.is_owed = True

    def watch(self, name: bytes, buffer, start: int, end: int):
        """Follows what a request changes; the bytes to send in its place, or None for itself."""
        if name == b"MULTI":
            self.in_transaction = True
        elif name in (b"EXEC", b"DISCARD"):
            self.in_transaction = False
        elif name == b"RESET":
            self.forget()
        elif name in SUBSCRIBING:
            self.channels[name].update(arguments_of(buffer, start, end)[1:])
        elif name in UNSUBSCRIBING:
            channels = self.channels[name.replace(b"UN", b"", 1)]
            named = arguments_of(buffer, start, end)[1:]
            channels.difference_update(named or set(channels))
        else:
            return self.watch_login(name, arguments_of(buffer, start, end), start)
        return None

    def watch_login(self, name: bytes, arguments: list, start: int):
        if name == b"AUTH":
            if len(arguments) not in (2, 3):
                return None
            at = len(arguments) - 1
            user = arguments[1] if at == 2 else b"default"
        else:
            options = [argument.upper() for argument in arguments]
            if b"AUTH" not in options[2:] or options.index(b"AUTH", 2) + 2 >= len(options):
                if self.user is not None:
                    self.switch(options)
                return None
            at = options.index(b"AUTH", 2) + 2
            user = arguments[at - 1]
        user = user.decode("latin-1")
        result = self.front.verdict(self, user, arguments[at].decode("latin-1"))
        is_lost = (
            self.front.settings["loses_errors"] and result != ACCEPTED
            and result != REFUSED_SUBSCRIBED and self.user is not None
            and (self.is_owed or start > 0)
        )
        now = time.time()
        self.front.logins.append({
            "time": now, "connection": self.number, "user": user, "command": name.decode(),
            "result": result + LOST_ERROR if is_lost else result, "is_first": self.user is None,
            "age_seconds": time.monotonic() - self.renewed_at if self.renewed_at else None,
        })
        if is_lost:
            return b""
        known = self.front.users.get(user, {"is_iam": False})
        if result == ACCEPTED:
            self.login = user
            if name == b"HELLO":
                self.switch(arguments)
            if known["is_iam"]:
                arguments[at] = known["passwords"][0].encode()
        elif result == REFUSED_IN_TRANSACTION:
            arguments = [b"IAM-LOGIN-INSIDE-MULTI"]
        elif result != REFUSED_SUBSCRIBED:
            arguments[at] = secrets.token_hex(16).encode()
        seconds = self.front.settings["login_seconds"] if known["is_iam"] else 0
        if not seconds:
            return encode(*arguments)
        # What follows the login waits with it.
        self.is_held = True
        self.client.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self.release, encode(*arguments))
        return b""

    def switch(self, hello: list) -> None:
        """To the protocol that HELLO asks for."""
        if len(hello) > 1 and hello[1] in (b"2", b"3"):
            self.protocol = int(hello[1])

    def release(self, login: bytes) -> None:
        self.is_held = False
        if self.client.is_closing() or self.server.is_closing():
            return
        self.write(login)
        self.client.resume_reading()
        if self.buffer:
            self.pass_on()

    # Time

    def logged_in(self) -> None:
        """The server said something after a good login was passed on to it."""
        self.user, self.login = self.login, None
        now = time.monotonic()
        if self.renewed_at is not None:
            age = now - self.renewed_at
            self.front.oldest_seconds = max(self.front.oldest_seconds, age)
        if self.alarm:
            self.alarm.cancel()
            self.alarm = None
        self.renewed_at = now
        if self.front.users[self.user]["is_iam"]:
            self.alarm = asyncio.get_running_loop().call_later(
                self.front.settings["connection_seconds"], self.grow_too_old
            )

    def grow_too_old(self) -> None:
        self.front.too_old.append({
            "connection": self.number, "user": self.user, "time": time.time(),
            "is_subscribed": self.is_subscribed, "in_transaction": self.in_transaction,
            "is_owed": self.is_owed, "waits_for_login": self.login is not None,
        })
        self.abort()


def end_of_request(buffer: bytearray, start: int):
    """The index behind the request at `start` and its first word in upper case; if the request is
    not whole, the least length that a whole one can have, and None."""
    if start >= len(buffer):
        return start + 1, None
    line_end = buffer.find(b"\r\n", start)
    if buffer[start] != 0x2A:
        line_end = buffer.find(b"\n", start)
        if line_end < 0:
            return len(buffer) + 1, None
        words = bytes(buffer[start:line_end]).split()
        return line_end + 1, words[0].upper() if words else b""
    if line_end < 0:
        return len(buffer) + 1, None
    count = int(buffer[start + 1 : line_end])
    position, name = line_end + 2, b""
    for index in range(count):
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return len(buffer) + 1, None
        length = int(buffer[position + 1 : line_end])
        position = line_end + 4 + length
        if position > len(buffer):
            return position, None
        if index == 0:
            name = bytes(buffer[line_end + 2 : position - 2]).upper()
    return position, name


def arguments_of(buffer: bytearray, start: int, end: int) -> list:
    """All words of a whole request."""
    if buffer[start] != 0x2A:
        return bytes(buffer[start:end]).split()
    words, position = [], buffer.find(b"\r\n", start) + 2
    while position < end:
        line_end = buffer.find(b"\r\n", position)
        length = int(buffer[position + 1 : line_end])
        words.append(bytes(buffer[line_end + 2 : line_end + 2 + length]))
        position = line_end + 4 + length
    return words


async def _run(configuration: dict) -> None:
    front = Front(configuration)
    await front.listen()
    control = await asyncio.start_unix_server(front.serve_control, configuration["control"])
    async with control:
        await control.serve_forever()


if __name__ == "__main__":
    asyncio.run(_run(json.loads(Path(sys.argv[1]).read_text())))
