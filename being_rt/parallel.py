"""Work shared out to threads. NumPy, Pillow, FFmpeg and the engine hold no lock of Python's while they compute."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 16  # more only wait for memory, and for each other


def usable_cores() -> int:
    """Cores that this process may use, which in a container or under taskset are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(threads: int = 0) -> int:
    """So many threads; 0: one per usable core, at most :data:`MOST_THREADS`."""
    return threads if threads > 0 else min(usable_cores(), MOST_THREADS)


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int = 0) -> Iterator[Result]:
    """``map(work, items)`` on threads: results in the order of the items, which are taken as results are.

    Args:
        work: is called on other threads.
        items: are drawn from the caller's thread, at most one more than there are threads before their turn.
        threads: see :func:`thread_count`.

    Raises what ``work`` and ``items`` do, at the item that they fail at; work that has begun then ends, no more begins.

    Example::

        for picture in in_order(read, paths):
            ...
    """
    threads = thread_count(threads)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, "being") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
