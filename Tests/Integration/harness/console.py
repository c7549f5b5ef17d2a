"""The admin console, asked through redis-cli as an operator would."""

import json
import subprocess
from pathlib import Path

from .resp import eventually


class Console:
    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def of(cls, path: Path) -> "Console":
        """The console of a process that is being started; its file is there before it listens."""
        console = cls(path)
        eventually(lambda: console.run("PING") == "PONG", 10, "the console answers")
        return console

    def run(self, *words, flags: tuple = (), timeout: float = 30.0) -> str:
        """What redis-cli prints into a pipe."""
        done = subprocess.run(
            ["redis-cli", "-s", self.path, *flags, *map(str, words)],
            capture_output=True, text=True, timeout=timeout, check=False,
        )
        return (done.stdout + done.stderr).strip()

    def order(self, *words, **options) -> None:
        answer = self.run(*words, **options)
        assert answer.startswith("OK"), f"{words}: {answer}"

    def table(self, *words) -> list[dict]:
        """The rows of a table, as programs get them."""
        return json.loads(self.run(*words, flags=("--json",)))

    def stats(self) -> dict:
        return {row["name"]: row["value"] for row in self.table("SHOW", "STATS")}
