"""How far a run is: a share that grows evenly with the steps, faster where a time limit asks for it."""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

NEVER = math.nan
BLOCKS, FEWEST = 7, 3  # whose median is the rate; before there are a few, nothing is known


class Clock:
    """The steps of a run, their progress 0..1, and the time that they take.

    Without a time limit progress is a function of the step alone, and a run can be repeated to the bit. With one, the
    steps left are fitted to the seconds left, from the rate so far, whenever :meth:`account` is called.

    Args:
        steps: of a run that no limit shortens.
        seconds: limit; 0: none.

    Example::

        clock = Clock(6000, seconds=60)
        while not clock.done:
            ...                          # a block of 50 steps
            clock.account(50, elapsed)
    """

    def __init__(self, steps: int, seconds: float = 0.0) -> None:
        self._steps, self._limit = steps, seconds
        self.step = 0  # done
        self.seconds = 0.0  # that they took
        self.per_step = NEVER  # seconds, of late
        self._base, self._base_step, self._left = 0.0, 0, steps
        self._rates: deque[float] = deque(maxlen=BLOCKS)

    @property
    def end(self) -> int:
        """The step that the run ends before, as things are."""
        return self._base_step + self._left

    @property
    def done(self) -> bool:
        return self.step >= self.end

    def progress(self, step: int) -> float:
        """Share of the run that is over when ``step`` begins."""
        if step >= self.end:
            return 1.0
        return self._base + (1 - self._base) * (step - self._base_step) / self._left

    def account(self, steps: int, seconds: float) -> None:
        """So many steps have been done in so many seconds."""
        self._rates.append(seconds / max(1, steps))
        self.per_step = statistics.median(self._rates)  # blocks in which a graph is captured are few, and slow
        self.step += steps
        self.seconds += seconds

    def fit(self) -> tuple[float, float, float]:
        """What :meth:`refit` takes, of this rank's time."""
        left = self.end - self.step
        if self._limit > 0 and len(self._rates) >= FEWEST:
            affordable = math.floor((self._limit - self.seconds) / max(self.per_step, 1e-9))
            # Never more than the configuration's steps would need for what is left.
            whole = math.ceil((1 - self.progress(self.step)) * self._steps - 1e-9)
            left = max(0, min(whole, affordable))
        return float(left), self.seconds, self.per_step

    def refit(self, left: float, seconds: float, per_step: float) -> None:
        """Go on with so many steps left; all ranks alike."""
        self.seconds, self.per_step = seconds, per_step
        if int(left) != self.end - self.step:
            through = self.progress(self.step)
            self._base, self._base_step, self._left = through, self.step, int(left)

    @property
    def remaining(self) -> float:
        """Seconds, at the present rate; NaN while unknown."""
        return (self.end - self.step) * self.per_step

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "base": self._base,
            "base_step": self._base_step,
            "left": self._left,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self._base, self._base_step, self._left = float(state["base"]), int(state["base_step"]), int(state["left"])
