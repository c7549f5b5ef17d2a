"""The load generator (load/load.c): built once for a run, steered over its standard input."""

import json
import os
import select
import subprocess
import time
from pathlib import Path

from children import _end_with_the_parent

SOURCE = Path(__file__).resolve().parent / "load" / "load.c"
# 9,500 handshakes at a relay, on a machine that does something else.
SET_UP_SECONDS = 120


def build(directory: Path) -> Path:
    program = directory / "load"
    subprocess.run(
        [os.environ.get("CC", "cc"), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror",
         "-o", program, SOURCE, "-lssl", "-lcrypto"],
        check=True,
    )
    return program


class Load:
    """Clients at work, from the moment that all of them have had a reply; ended by `end`."""

    def __init__(self, program: Path, peer, scenario, password: str, core=None):
        def before_exec():
            _end_with_the_parent()
            if core is not None:
                os.sched_setaffinity(0, {core})

        arguments = [program, "--port", peer.port, *scenario.load_arguments(), *peer.login,
                     *peer.tls]
        self.child = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {"LOAD_PASSWORD": password}, preexec_fn=before_exec,
            start_new_session=True, bufsize=0,
        )
        try:
            assert self._line(SET_UP_SECONDS) == b"ready\n"
        except BaseException:
            self.end()
            raise

    def start_counting(self) -> None:
        self._say(b"start\n")

    def stop_counting(self) -> dict:
        """Requests, seconds and latencies since `start_counting`."""
        self._say(b"stop\n")
        return json.loads(self._line(10))

    def end(self) -> None:
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(5)
        self.child.stdout.close()
        self.child.stderr.close()

    def _say(self, command: bytes) -> None:
        try:
            self.child.stdin.write(command)
        except BrokenPipeError:
            raise self._failure() from None

    def _line(self, seconds: float) -> bytes:
        line, deadline = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            readable, _, _ = select.select([self.child.stdout], [], [], max(left, 0))
            if not readable:
                raise RuntimeError(f"the load said nothing for {seconds} s")
            piece = self.child.stdout.read(4096)
            if not piece:
                raise self._failure()
            line += piece
        return line

    def _failure(self) -> Exception:
        self.child.wait(5)
        return RuntimeError(self.child.stderr.read().decode(errors="backslashreplace").strip())
