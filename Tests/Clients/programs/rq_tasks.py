"""What rq's workers run."""

import os
import time

from redis import Redis


def square(number: int) -> int:
    return number * number


def total(*numbers: int) -> int:
    return sum(numbers)


def fail(text: str) -> None:
    raise ValueError(text)


def succeed_at(attempt: int, key: str) -> int:
    """Fails until it is run for the `attempt`-th time."""
    made = Redis(host=os.environ["QUEUE_HOST"], port=int(os.environ["QUEUE_PORT"])).incr(key)
    if made < attempt:
        raise RuntimeError(f"attempt {made}")
    return made


def sleep(seconds: float) -> None:
    time.sleep(seconds)
