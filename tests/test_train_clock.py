"""Progress of runs, with and without a time limit."""

from __future__ import annotations

import itertools
import math

import pytest

from being_rt.train.clock import FEWEST, Clock


def test_without_a_limit_progress_follows_the_steps() -> None:
    clock = Clock(40)
    assert [clock.progress(step) for step in (0, 10, 40, 50)] == [0, 0.25, 1, 1]
    for seconds in (1.0, 100.0, 1.0, 1.0):
        assert not clock.done
        clock.account(10, seconds)
        clock.refit(*clock.fit())
    assert clock.done
    assert clock.end == 40
    assert clock.seconds == 103


def test_a_limit_shortens_the_run_and_its_schedule() -> None:
    """A second a step, fifty seconds: some fifty steps, the last at progress 1, in even strides."""
    clock = Clock(1000, seconds=50)
    through = []
    while not clock.done:
        clock.account(5, 5.0)
        clock.refit(*clock.fit())
        through.append(clock.progress(clock.step))
    assert 45 <= clock.step <= 50
    assert through[-1] == 1
    strides = [b - a for a, b in itertools.pairwise(through[FEWEST:])]
    assert max(strides) == pytest.approx(min(strides), rel=0.2)


def test_a_slow_start_is_forgotten() -> None:
    clock = Clock(1000, seconds=1000)
    for seconds in (300.0, 1.0, 1.0, 1.0):
        clock.account(10, seconds)
        clock.refit(*clock.fit())
    assert clock.end == 1000  # at a tenth of a second a step there is time for all
    assert clock.per_step == 0.1
    assert clock.remaining == pytest.approx(96)


def test_a_limit_that_is_over_ends_the_run() -> None:
    clock = Clock(1000, seconds=10)
    for _ in range(FEWEST):
        clock.account(10, 10.0)
        clock.refit(*clock.fit())
    assert clock.done
    assert clock.progress(clock.step) == 1


def test_a_state_goes_on() -> None:
    clock, other = Clock(100, seconds=50), Clock(100, seconds=50)
    for _ in range(FEWEST + 1):
        clock.account(10, 7.0)
        clock.refit(*clock.fit())
    other.load_state(clock.state())
    assert other.step == clock.step
    assert other.end == clock.end
    assert other.progress(other.step + 3) == clock.progress(clock.step + 3)
    assert math.isnan(other.per_step)
