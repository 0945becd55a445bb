"""Work on threads: results in order, items taken as they are needed, failures where they belong."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from being_rt.parallel import MOST_THREADS, ahead, in_order, thread_count, usable_cores


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0)
        return item * item

    assert list(in_order(work, range(20), 4)) == [item * item for item in range(20)]
    assert list(in_order(work, (), 4)) == []


def test_work_is_done_side_by_side_on_other_threads() -> None:
    meeting = threading.Barrier(3, timeout=20)  # nobody passes before three are there
    here = threading.get_ident()

    def work(item: int) -> bool:
        meeting.wait()
        return threading.get_ident() != here

    assert all(in_order(work, range(6), 3))


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(lambda item: item, items(), 2)
    assert taken == []
    assert next(results) == 0
    assert len(taken) == 3
    results.close()
    assert len(taken) == 3


@pytest.mark.parametrize("place", ["work", "items"])
def test_a_failure_comes_at_its_item(place: str) -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = in_order(fail, range(9), 2) if place == "work" else in_order(int, map(fail, range(9)), 1)
    assert next(results) == 0
    with pytest.raises(ValueError, match="three"):
        list(results)


def test_thread_count() -> None:
    assert thread_count(3) == 3
    assert thread_count() == min(usable_cores(), MOST_THREADS)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_ahead_gives_all_items_and_what_fetching_raises(count: int) -> None:
    with ahead(range(50), count) as items:
        assert list(items) == list(range(50))

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    with ahead(failing(), count) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="two"):
            next(items)


def test_ahead_fetches_on_a_thread_and_no_farther_than_it_should() -> None:
    taken: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(threading.get_ident())
            if len(taken) == 4:  # three wait, the fourth finds no room
                full.set()
            yield item

    with ahead(items(), 3) as fetched:
        assert full.wait(20)
        assert len(taken) == 4
        assert next(fetched) == 0
    assert set(taken) != {threading.get_ident()}
