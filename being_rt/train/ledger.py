"""What steps are told and what they report, on the device, by a place that steps move on themselves.

A graph that finds its own inputs needs nothing launched around it: the device goes from step to step while the host is
still busy with something else.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.train.upload import Upload

PAGE = 64  # steps between two looks at the reports, at most
SPARE = 4  # steps beyond a page that do not count, such as those before a capture


class Ledger:
    """A page of orders, one row per step, and of reports.

    Args:
        width: numbers of an order.
        device: of the steps.

    Attributes:
        order: float32 [width], of the step that has begun last.

    Example::

        ledger = Ledger(3, "cuda")
        ledger.turn()
        ledger.write(0, orders)  # float32 [n, 3], n <= PAGE
        for _ in orders:  # or replays of a graph of the same
            ledger.begin()
            ledger.finish(step(ledger.order))
        reports = ledger.reports(len(orders))
    """

    def __init__(self, width: int, device: torch.device | str) -> None:
        self._orders = torch.zeros(PAGE + SPARE, width, device=device)
        self._upload = Upload(self._orders)
        self._current = torch.zeros(1, width, device=device)
        self.place = torch.zeros(1, dtype=torch.int64, device=device)
        self._reports: Tensor | None = None

    @property
    def order(self) -> Tensor:
        return self._current[0]

    def turn(self) -> None:
        """Begin a page."""
        self.place.zero_()

    def write(self, start: int, orders: NDArray[np.float32]) -> None:
        """Orders [n, width] of steps ``start`` to ``start + n`` of the page."""
        self._upload(orders, start)

    def begin(self) -> None:
        """Take the order of the present step; captured in a graph as it is, as is :meth:`finish`."""
        torch.index_select(self._orders, 0, self.place, out=self._current)

    def finish(self, report: Tensor) -> None:
        """Keep a step's report, a row of floats as long as all others, and go on to the next step."""
        if self._reports is None:
            self._reports = report.new_zeros(PAGE + SPARE, len(report))
        self._reports.index_copy_(0, self.place, report[None])
        self.place.add_(1)

    def reports(self, count: int) -> Tensor:
        """A copy [count, numbers] of the reports of the page's first steps.

        Raises:
            ValueError: no step has finished.
        """
        if self._reports is None:
            raise ValueError("no step has finished")
        return self._reports[:count].clone()
