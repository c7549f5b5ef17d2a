"""Processes that end with the run, whatever ends it."""

import ctypes
import os
import signal
from pathlib import Path

from harness.process import Process

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _end_with_the_parent() -> None:
    """Between fork and exec: SIGTERM when the run is gone, even when it was killed with SIGKILL.

    SIGTERM and not SIGKILL, so that a master process takes its workers along.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Child(Process):
    """A process that the kernel ends when the run ends."""

    def __init__(self, arguments, log_file: Path, environment=None):
        super().__init__(arguments, log_file, environment, limits=_end_with_the_parent)

    def pids(self) -> list[int]:
        """Its own and its children's, which is what a master with workers consists of."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    def end(self) -> None:
        """At once where possible; the workers of a master are never left behind."""
        if not self.is_running:
            return
        self.send_signal(signal.SIGTERM)
        try:
            self.child.wait(5)
        except Exception:
            os.killpg(self.pid, signal.SIGKILL)
            self.child.wait(5)
