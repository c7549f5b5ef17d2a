"""The built proxy under test, with its configuration written for it and its log judged after it."""

import json
import os
import signal
import socket
from pathlib import Path

from . import passwords
from .ports import free_port
from .process import Process, wait_until
from .resp import Client

REPOSITORY = Path(__file__).resolve().parents[3]


def binary() -> Path:
    """The proxy's executable; a missing one fails the test, it never skips it."""
    path = Path(os.environ.get("REDIS_AUTH_PROXY", REPOSITORY / ".build/release/redis-auth-proxy"))
    assert path.is_file(), (
        f"no proxy at {path}: build it with `swift build -c release` or set REDIS_AUTH_PROXY"
    )
    return path


class Upstream:
    """What the proxy is told about one server."""

    def __init__(self, address, tls):
        self.settings = {"address": address, "tls": tls}

    @staticmethod
    def verified(server, **tls) -> "Upstream":
        """TLS with chain and host name verified against the server's authority."""
        tls.setdefault("ca_file", str(server.authority.ca_file))
        return Upstream(f"localhost:{server.port}", {k: str(v) for k, v in tls.items()})

    @staticmethod
    def plain(server) -> "Upstream":
        return Upstream(f"127.0.0.1:{server.port}", "off")


class Listener:
    """One listener: for which user of the configuration, in which mode, where.

    Every client becomes the user, unless `identities` says otherwise.
    """

    def __init__(
        self, user: str, mode: str = None, path: Path = None, host: str = "127.0.0.1", **more
    ):
        self.address = path or (host, free_port())
        shown = f"[{host}]" if ":" in host else host
        text = f"unix:{path}" if path else f"{shown}:{self.address[1]}"
        self.settings = {"address": text, "identities": [{"any": True, "user": user}]} | more
        if mode:
            self.settings["mode"] = mode

    def connect(self, timeout: float = 15.0) -> Client:
        return Client(self.address, timeout=timeout)


class Proxy:
    """One running proxy.

    `users` maps a user's name to its settings; a plain string stands for a password that goes into
    a file of its own, whose path is then `password_file(user)`. `wrapper` is a command that
    executes the proxy in its place; `descriptors` are left open for it.
    """

    def __init__(
        self,
        directory: Path,
        upstreams: dict,
        users: dict,
        listeners: list,
        environment: dict = None,
        limits=None,
        wait: bool = True,
        wrapper: tuple = (),
        descriptors: tuple = (),
        **settings,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.listeners = listeners
        first_upstream = next(iter(upstreams))
        configured_users = {}
        for name, given in users.items():
            if isinstance(given, str):
                self.write_password(name, given)
                given = {"credentials": {"password_file": str(self.password_file(name))}}
            configured_users[name] = {"upstream": first_upstream} | given
        configuration = {
            "upstreams": {name: upstream.settings for name, upstream in upstreams.items()},
            "users": configured_users,
            "listeners": [listener.settings for listener in listeners],
        } | settings
        self.configuration = directory / "proxy.yaml"
        # JSON is YAML, and it leaves no doubt about quoting.
        self.configuration.write_text(json.dumps(configuration, indent=2) + "\n")
        arguments = ["run", "--config", self.configuration]
        self._start_again = arguments, environment, limits, wait, wrapper, descriptors
        self.start_process(*self._start_again)

    def start_again(self) -> None:
        """A new process with the same configuration, after the old one ended."""
        self.start_process(*self._start_again)

    def start_process(
        self, arguments, environment=None, limits=None, wait=True, wrapper=(), descriptors=()
    ) -> None:
        self.process = Process(
            [*wrapper, binary(), *arguments],
            self.directory / "proxy.log",
            environment=os.environ | environment if environment else None,
            limits=limits,
            descriptors=descriptors,
        )
        if wait:
            self.wait_until_listening()

    @classmethod
    def from_flags(cls, directory: Path, listeners: list, *flags, **process) -> "Proxy":
        """A proxy without a configuration file."""
        proxy = cls.__new__(cls)
        directory.mkdir(parents=True, exist_ok=True)
        proxy.directory = directory
        proxy.listeners = listeners
        addresses = []
        for listener in listeners:
            addresses += ["--listen", listener.settings["address"]]
        proxy.start_process(["run", *addresses, *flags], **process)
        return proxy

    def wait_until_listening(self) -> None:
        wait_until(self._listens, self.process, "proxy listens")

    def _listens(self) -> bool:
        for listener in self.listeners:
            address = listener.address
            if isinstance(address, tuple):
                family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            else:
                family, address = socket.AF_UNIX, str(address)
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(address) != 0:
                    return False
        return True

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self, listener: int = 0, timeout: float = 15.0) -> Client:
        return self.listeners[listener].connect(timeout)

    def password_file(self, user: str) -> Path:
        return self.directory / f"{user}.password"

    def write_password(self, user: str, password: str, in_place: bool = False) -> None:
        """Replaces the file as a secrets mount does (rename), or rewrites it in place."""
        file = self.password_file(user)
        if in_place:
            file.write_text(password)
            return
        replacement = file.with_suffix(".new")
        replacement.write_text(password)
        replacement.chmod(0o600)
        replacement.rename(file)

    def log(self) -> str:
        return self.process.log()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Drains the proxy, checks that it kept its secrets, and returns its exit code."""
        code = self.process.stop(number)
        self.check_log()
        return code

    def check_log(self) -> None:
        found = passwords.found_in(self.log())
        assert not found, f"{len(found)} password(s) stand in the proxy's log {self.process.log_file}"
