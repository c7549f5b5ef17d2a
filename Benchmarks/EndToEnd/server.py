"""The redis-server of a run: one process with a TLS port, a plain port and ACL users."""

import re

from children import Child
from harness.ports import free_port
from harness.process import wait_until
from harness.server import RedisServer


class Server(RedisServer):
    """Also has a plain port, for the row without TLS, and a default user with a password.

    Twemproxy can log in as no other user. One cipher, so that no row encrypts with a longer key
    than another.
    """

    def __init__(self, directory, authority):
        self.plain_port = free_port()
        super().__init__(directory, authority, options={
            "port": self.plain_port, "loglevel": "notice", "maxclients": 15_000,
            # Idle clients come from several loopback addresses.
            "protected-mode": "no", "tcp-backlog": 4096,
            "tls-ciphersuites": "TLS_AES_128_GCM_SHA256",
        })
        answer = self.ask("ACL", "SETUSER", "default", "reset", "on", ">" + self.password,
                          "~*", "&*", "+@all")
        assert answer == b"OK", answer
        self.observer = self.admin()

    @property
    def password(self) -> str:
        return self.passwords["app"]

    def start(self) -> None:
        self.process = Child([self.executable, self.configuration], self.directory / "redis.log")
        wait_until(self._answers, self.process, f"the server on port {self.port}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.end()

    def commands(self) -> int:
        """How many GET and SET the server has run."""
        text = self.observer.value("INFO", "commandstats").decode()
        return sum(map(int, re.findall(r"^cmdstat_(?:get|set):calls=(\d+)", text, re.MULTILINE)))
