"""Processes that a test started: watched by pid, their output kept, always ended by us."""

import os
import signal
import subprocess
import time
from pathlib import Path

STOP_TIMEOUT_SECONDS = 15.0

_recently_running: list["Process"] = []


class Process:
    """A child with its standard output and error in one log file."""

    def __init__(
        self, arguments, log_file: Path, environment=None, limits=None, user=None, descriptors=()
    ):
        self.arguments = [str(argument) for argument in arguments]
        self.log_file = log_file
        self._log = open(log_file, "ab")
        self._log_start = self._log_mark = self._log.tell()
        self.child = subprocess.Popen(
            self.arguments,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=limits,
            user=user,
            pass_fds=descriptors,
            start_new_session=True,
        )
        _recently_running.append(self)

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def is_running(self) -> bool:
        return self.child.poll() is None

    def log(self) -> str:
        """What this process has written so far."""
        return self._log_from(self._log_start)

    def mark_log(self) -> None:
        """What is written from now on is `log_since_mark`."""
        self._log_mark = self.log_file.stat().st_size

    def log_since_mark(self) -> str:
        return self._log_from(self._log_mark)

    def _log_from(self, offset: int) -> str:
        with open(self.log_file, "rb") as file:
            file.seek(offset)
            return file.read().decode(errors="backslashreplace")

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """The exit code; a process that does not end in time is killed and reported."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.arguments[0]} (pid {self.pid}) did not end within {seconds} s:\n"
                + self.log()[-4000:]
            ) from None

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        if self.is_running:
            self.send_signal(number)
        try:
            return self.wait(seconds)
        finally:
            self._log.close()

    def kill(self) -> None:
        if self.is_running:
            self.child.kill()
            self.child.wait(STOP_TIMEOUT_SECONDS)
        self._log.close()

    def cpu_seconds(self) -> float:
        """User and system time of all threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> bytes:
        """All that the process has in writable memory, one region after the other; needs root."""
        found = bytearray()
        with open(f"/proc/{self.pid}/maps") as maps, open(f"/proc/{self.pid}/mem", "rb", 0) as mem:
            for line in maps:
                span, permissions = line.split()[:2]
                if permissions.startswith("rw") and "[v" not in line:
                    start, end = (int(part, 16) for part in span.split("-"))
                    mem.seek(start)
                    try:
                        found += mem.read(end - start)
                    except OSError:
                        pass  # a guard page
        return bytes(found)

    def resident_bytes(self) -> int:
        return self._status_bytes("VmRSS")

    def peak_resident_bytes(self) -> int:
        """Since the start, or since 5 was written to /proc/PID/clear_refs."""
        return self._status_bytes("VmHWM")

    def _status_bytes(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} for pid {self.pid}")


def wait_until(condition, process: Process, what: str, seconds: float = 15.0) -> None:
    """Polls `condition` while `process` runs; its log is in the failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        if not process.is_running:
            raise AssertionError(
                f"{what}: {process.arguments[0]} exited with {process.child.returncode}:\n"
                + process.log()[-8000:]
            )
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s:\n" + process.log()[-8000:])
        time.sleep(0.01)
