"""Many clients at once, each in a thread of its own."""

from concurrent.futures import ThreadPoolExecutor


def together(work, arguments) -> None:
    """Calls `work` with each of the tuples at the same time, waits for all, and fails as the first
    of them that failed."""
    arguments = list(arguments)
    with ThreadPoolExecutor(len(arguments)) as pool:
        for call in [pool.submit(work, *each) for each in arguments]:
            call.result()
