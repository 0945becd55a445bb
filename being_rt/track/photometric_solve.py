"""Refining a motion by pictures: one quadratic per frame, what is likely of motion, and all frames solved at once.

A frame's pixels, seen as a function of its P parameters, give Gauss and Newton's quadratic. That alone would follow the
noise of the pixels and wander where they say nothing. So each parameter is also held to the given track, and its second
difference over time to zero, both by standard deviations; the sum is one banded system over all frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_blocks import solve
from being_rt.track.fit_prior import Bands

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class MotionPrior:
    """What is believed of T frames of P parameters before their pictures are looked at.

    Example::

        step = prior.step(x, hessian, gradient)
    """

    given: Float64  # [T, P] the track that is refined
    closeness: Float64  # [T, P] inverse variance of a correction
    smoothness: Float64  # [P] inverse variance of a second difference
    acceleration: Float64  # [T - 2, 3] weights of each three frames in a row that give the second difference

    def cost(self, x: Float64) -> float:
        """Half the weighted sum of squares at x [T, P]."""
        total = np.sum((x - self.given) ** 2 * self.closeness)
        return 0.5 * float(total + np.sum(self._bent(x) ** 2 @ self.smoothness))

    def step(self, x: Float64, hessian: Float64, gradient: Float64) -> Float64:
        """The step [T, P] from ``x`` to the least cost, with a quadratic [T, P, P], [T, P] per frame about ``x``."""
        count, columns = x.shape
        coupled = [np.zeros((max(count - offset, 0), columns)) for offset in range(3)]  # frames so far apart
        coupled[0] += self.closeness
        slope = gradient + (x - self.given) * self.closeness
        bent = self._bent(x) * self.smoothness
        weights = self.acceleration
        for i in range(3):
            part = slice(i, i + len(weights))
            slope[part] += weights[:, i : i + 1] * bent
            for j in range(i, 3):
                coupled[j - i][part] += (weights[:, i] * weights[:, j])[:, None] * self.smoothness
        own, first, second = coupled
        bands = Bands(hessian + own[:, :, None] * np.eye(columns), first, second)
        return solve(bands, np.zeros((count, columns, 0)), np.zeros((0, 0)), -slope, np.zeros(0)).frames

    def _bent(self, x: Float64) -> Float64:
        """Second differences [T - 2, P]."""
        w = self.acceleration
        if not len(w):
            return np.zeros((0, x.shape[1]))
        return np.asarray(w[:, :1] * x[:-2] + w[:, 1:2] * x[1:-1] + w[:, 2:] * x[2:])
