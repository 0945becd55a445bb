"""Threads of the fit: a few of Python's, each with a BLAS that has one.

The fit's matrices are a hundred rows high. On them a BLAS that starts its own threads loses more time with waking them
than they save, and where other programs keep the cores busy, ten times as much; frames are independent of each other,
so they are what is shared out instead. NumPy holds no lock while it computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from being_rt.parallel import in_order, thread_count

Item = TypeVar("Item")
Result = TypeVar("Result")

RUNS = 8  # pieces of the work: always as many, so that sums are rounded alike on every machine


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """``[work(item) for item in items]`` on so many threads; 0: one per core."""
    threads = min(thread_count(threads), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    return list(in_order(work, items, threads))


def runs(count: int, multiple: int = 1) -> list[slice]:
    """At most :data:`RUNS` runs of 0..count-1, of lengths that are multiples of ``multiple`` but for the last."""
    length = max(-(-count // (RUNS * multiple)), 1) * multiple
    return [slice(begin, min(begin + length, count)) for begin in range(0, count, length)]
