"""Work shared out to threads. NumPy, Pillow, FFmpeg and the engine hold no lock of Python's while they compute."""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 8  # more mostly wait for Python's lock, which each needs between two calls
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_PATIENCE = 0.1  # seconds after which a thread that waits for room looks whether it is still wanted


def usable_cores() -> int:
    """Cores that this process may use, which in a container or under taskset are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(threads: int = 0) -> int:
    """So many threads; 0: one per usable core, at most :data:`MOST_THREADS`."""
    return threads if threads > 0 else min(usable_cores(), MOST_THREADS)


@cache
def keep_memory() -> None:
    """Let this process keep the memory of pictures that are done with, up to a gigabyte, where its C library can.

    By default glibc asks the system for every large array and gives it back at once: pages are mapped, cleared and
    unmapped again and again, and threads that do so wait for one another. Pictures of a video come and go by the
    thousand.
    """
    with suppress(OSError, AttributeError, TypeError):  # another system, another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 32 << 20)  # the largest that it takes
        mallopt(_TRIM_THRESHOLD, 1 << 30)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """BLAS with one thread per call, where threadpoolctl is installed; otherwise nothing changes.

    For work on several threads: with threads of its own in each of them a BLAS mostly waits.
    """
    import scipy.linalg  # noqa: F401, it has a BLAS of its own, which can only be told once it is loaded

    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(1, user_api="blas"):
        yield


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
    keep_memory()
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


class ahead(Generic[Item]):
    """Items that a thread of its own fetches in advance, so many of them; 0: without one.

    What fetching raises is raised where items are used.

    Example::

        with ahead(VideoSource(path), 4) as frames:
            for index, time, frame in frames:
                ...
    """

    def __init__(self, items: Iterable[Item], count: int) -> None:
        self._items, self._count = items, count
        self._queue: queue.Queue[tuple[list[Item], BaseException | None]] = queue.Queue(max(count, 1))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="being-ahead", daemon=True)

    def __enter__(self) -> Iterator[Item]:
        if not self._count:
            return iter(self._items)
        self._thread.start()
        return self._received()

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        if self._thread.is_alive():
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()  # lets a thread that waits for room see that it is over
            self._thread.join()

    def _received(self) -> Iterator[Item]:
        while True:
            fetched, problem = self._queue.get()
            if problem is not None:
                raise problem
            if not fetched:
                return
            yield fetched[0]

    def _fetch(self) -> None:
        try:
            for item in self._items:
                if not self._put([item], None):
                    return
        except BaseException as problem:
            self._put([], problem)
        else:
            self._put([], None)

    def _put(self, fetched: list[Item], problem: BaseException | None) -> bool:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._queue.put((fetched, problem), timeout=_PATIENCE)
                return True
        return False
