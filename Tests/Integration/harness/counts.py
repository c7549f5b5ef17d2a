"""What the worker threads of a running proxy do, counted (counted.c): no matter how fast, how often."""

import mmap
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("counted.c")
# In the order of counted.c.
NAMES = (
    "allocations", "openssl_allocations", "references", "receives", "sends", "other_calls", "turns",
    "records",
)
WORD = 8


@dataclass
class Counts:
    allocations: int
    openssl_allocations: int
    # Retains and releases of Swift objects.
    references: int
    receives: int
    sends: int
    # Of the system that are none of the others.
    other_calls: int
    # Of the loop, and so calls of epoll_wait.
    turns: int
    # Of TLS, with commands in them.
    records: int

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) - getattr(other, name) for name in NAMES))

    @property
    def calls(self) -> int:
        """Of the system, in all."""
        return self.receives + self.sends + self.other_calls + self.turns


class Counter:
    """Makes a proxy count that is started with `environment`."""

    def __init__(self, directory: Path):
        library = directory / "counted.so"
        subprocess.run(
            ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
             "-o", library, SOURCE, "-ldl"],
            check=True,
        )
        file = directory / "counts"
        file.write_bytes(bytes(WORD * len(NAMES)))
        with open(file, "r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "COUNTS_FILE": str(file)}

    def read(self) -> Counts:
        return Counts(*memoryview(self._memory).cast("Q"))
