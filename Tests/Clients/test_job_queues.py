"""Job queues do their work through the proxy: workers, retries, schedules, remote commands."""

import pytest

from clients import JOBS, QUEUES, steps
from comparison import compare, ids


@pytest.mark.parametrize("queue", QUEUES, ids=ids(QUEUES))
def test_a_queue_does_the_same_work(queue, direct, proxied):
    expected = queue.lines(direct)
    assert steps(expected) == JOBS
    compare(expected, queue.lines(proxied))
