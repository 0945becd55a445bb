"""What is likely of a person and a camera: identity, focal length, and where the network's landmarks differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_landmarks import ALL_SETS, rows_of_pairs
from being_rt.track.fit_rig import LandmarkRig, SharedParameters

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

SIZE_DEVIATION = 5e-4  # of the head's size, relative


@dataclass(frozen=True)
class SharedPrior:
    """A normal distribution of the shared unknowns: S shape coefficients, log focal length, 3 L biases, in this order.

    Biases are independent but for their mean over each region of the face, which is nearly zero: a region that lies
    elsewhere is identity, not bias. Nor do lids and lips that meet in the picture lie apart on the mesh; else what is
    the mean of a clip, a mouth a little open, would be taken for a bias.

    The size of the head is the template's: no single camera can tell a large head far away from a small one nearby, and
    left free it would shrink, since the expressions of many frames would shrink with it and so become more likely. For
    the same reason biases do not stretch the face.
    """

    mean: Float64  # [S + 1 + 3 L]
    precision: Float64  # [S + 1 + 3 L, S + 1 + 3 L]
    shapes: int

    @classmethod
    def of(cls, config: FitConfig, rig: LandmarkRig, ids: Int32, size: tuple[int, int]) -> SharedPrior:
        """The prior for a rig's landmarks ``ids`` [L] in pictures of a size."""
        shapes, basic = config.shapes, config.shapes + 1
        count = basic + 3 * len(ids)
        precision = np.zeros((count, count))
        np.fill_diagonal(precision[:shapes, :shapes], config.shape**-2.0)
        growth = rig.growth()
        precision[:shapes, :shapes] += SIZE_DEVIATION**-2.0 * np.outer(growth, growth)
        precision[shapes, shapes] = config.focal_deviation**-2.0
        single = np.full(len(ids), config.bias**-2.0)
        together = np.zeros((len(ids), len(ids)))
        for group in ALL_SETS:
            inside = np.isin(ids, group.ids)
            share = inside / max(inside.sum(), 1)
            together += config.bias_mean**-2.0 * np.outer(share, share)
        centred = rig.points() - rig.points().mean(0)
        for axis in centred.T:
            stretch = axis / np.sum(axis**2)
            together += SIZE_DEVIATION**-2.0 * np.outer(stretch, stretch)
        for upper, lower in rows_of_pairs(ids):
            apart = np.zeros(len(ids))
            apart[upper], apart[lower] = 1, -1
            together += config.bias_gap**-2.0 * np.outer(apart, apart)
        precision[basic:, basic:] = np.kron(np.diag(single) + together, np.eye(3))
        mean = np.zeros(count)
        mean[shapes] = math.log(config.focal * max(size))
        return cls(mean, precision, shapes)

    def start(self) -> SharedParameters:
        """The most likely values before anything is seen."""
        return self._record(self.mean)

    def moved(self, shared: SharedParameters, step: Float64) -> SharedParameters:
        """After a step of the first unknowns, as many as it has."""
        vector = self._vector(shared)
        vector[: len(step)] += step
        return self._record(vector)

    def cost(self, shared: SharedParameters) -> float:
        away = self._vector(shared) - self.mean
        return 0.5 * float(away @ self.precision @ away)

    def equations(self, shared: SharedParameters) -> tuple[Float64, Float64]:
        """Second derivatives and gradient of :meth:`cost`."""
        return self.precision, self.precision @ (self._vector(shared) - self.mean)

    def _vector(self, shared: SharedParameters) -> Float64:
        return np.concatenate([shared.shape, [shared.log_focal], shared.bias.reshape(-1)])

    def _record(self, vector: Float64) -> SharedParameters:
        bias = vector[self.shapes + 1 :].reshape(-1, 3)
        return SharedParameters(vector[: self.shapes].copy(), float(vector[self.shapes]), bias.copy())
