"""The admin listener as an operator's programs use it."""

import http.client
import json
import re
import socket
import subprocess
from pathlib import Path

from .ports import free_port


class Admin:
    """Where a proxy's status can be had; `settings` goes into its configuration."""

    def __init__(self, path: Path = None):
        self.path = path
        self.port = None if path else free_port()
        address = f"unix:{path}" if path else f"127.0.0.1:{self.port}"
        self.settings = {"address": address}
        self.url = f"http://127.0.0.1:{self.port}"

    def request(self, path: str, method: str = "GET", host: str = None):
        """The answer's status, its headers and its text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port or 80, timeout=15)
        if self.path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(15)
            connection.sock.connect(str(self.path))
        headers = {} if host is None else {"Host": host}
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()
        finally:
            connection.close()

    def text(self, path: str) -> str:
        status, _, text = self.request(path)
        assert status == 200, f"{path}: {status} {text}"
        return text

    def status(self) -> dict:
        return json.loads(self.text("/status.json"))

    def is_ready(self) -> bool:
        return self.request("/ready")[0] == 200

    def samples(self) -> dict:
        """Every series of /metrics with its value."""
        lines = [line for line in self.text("/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def sum(self, name: str, **labels) -> float:
        """Of all series of a metric that have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            value
            for series, value in self.samples().items()
            if re.fullmatch(rf"redis_auth_proxy_{name}(\{{.*\}})?", series)
            and all(label in series for label in wanted)
        )


def promtool(*arguments, text: str = None) -> str:
    """What promtool says; it must be content."""
    outcome = subprocess.run(
        ["promtool", *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout + outcome.stderr


def chromium(*arguments, directory: Path) -> str:
    """What a browser without a window writes."""
    outcome = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={directory}", *map(str, arguments),
        ],
        capture_output=True, text=True, timeout=100,
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return outcome.stdout
