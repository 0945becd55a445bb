"""Threads of the fit: a few of Python's, each with a BLAS that has one.

The fit's matrices are a hundred rows high. On them a BLAS that starts its own threads loses more time with waking them
than they save, and where other programs keep the cores busy, ten times as much; frames are independent of each other,
so they are what is shared out instead. NumPy holds no lock while it computes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

RUNS = 8  # pieces of the work: always as many, so that sums are rounded alike on every machine


@contextmanager
def one_thread_each() -> Iterator[None]:
    """BLAS with one thread per call, where threadpoolctl is installed; otherwise nothing changes."""
    import scipy.linalg  # noqa: F401, it has a BLAS of its own, which can only be told once it is loaded

    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """``[work(item) for item in items]`` on so many threads; 0: one per core."""
    threads = min(threads or os.cpu_count() or 1, len(items))
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def runs(count: int, multiple: int = 1) -> list[slice]:
    """At most :data:`RUNS` runs of 0..count-1, of lengths that are multiples of ``multiple`` but for the last."""
    length = max(-(-count // (RUNS * multiple)), 1) * multiple
    return [slice(begin, min(begin + length, count)) for begin in range(0, count, length)]
