"""What is likely of a person and a camera: identity, focal length, and where the network's landmarks differ."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_landmarks import rows_of_pairs
from being_rt.track.fit_rig import LandmarkRig, SharedParameters

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

SIZE_DEVIATION = 5e-4  # of the head's size, relative
EYES_APART = 0.063  # metres; Dodgson, "Variation and extrema of human interpupillary distance", 2004
HELD = 1e12  # inverse variance of what is known


@dataclass(frozen=True)
class SharedPrior:
    """A normal distribution of the shared unknowns: S shape coefficients, log focal length, 3 L biases, in this order.

    A bias has a part of its own, and one that neighbours share: a Gaussian process over the face, for where a person is
    none of the model's, all landmarks around are off together (Rasmussen and Williams, "Gaussian processes for machine
    learning", 2006, section 2.2). Lids and lips that meet in the picture lie apart on the mesh by next to nothing; else
    what is the mean of a clip, a mouth a little open, would be taken for a bias.

    Frames do not err independently: what the network or the model gets wrong in one, it gets wrong in the next. From
    ``config.evidence`` frames on, the prior grows with their number, so that it keeps its say.

    The size of the head is the template's: no single camera can tell a large head far away from a small one nearby, and
    left free it would shrink, since the expressions of many frames would shrink with it and so become more likely. For
    the same reason biases do not stretch the face.
    """

    mean: Float64  # [S + 1 + 3 L]
    precision: Float64  # [S + 1 + 3 L, S + 1 + 3 L]
    shapes: int
    repeated: float  # how many frames say the same of what is shared; precisions are so many times as large

    @classmethod
    def of(cls, config: FitConfig, rig: LandmarkRig, ids: Int32, size: tuple[int, int], frames: int) -> SharedPrior:
        """The prior for a rig's landmarks ``ids`` [L] in so many frames of a size."""
        shapes, basic = config.shapes, config.shapes + 1
        count = basic + 3 * len(ids)
        precision = np.zeros((count, count))
        np.fill_diagonal(precision[:shapes, :shapes], config.shape**-2.0)
        growth = rig.growth()
        precision[:shapes, :shapes] += SIZE_DEVIATION**-2.0 * np.outer(growth, growth)
        log_focal, deviation = expected_focal_length(config, size, rig.unit)
        precision[shapes, shapes] = deviation**-2.0
        points = rig.points()
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        alike = config.bias_smooth**2 * np.exp(-0.5 * (apart / config.bias_reach) ** 2)
        together = np.linalg.inv(alike + config.bias**2 * np.eye(len(ids)))
        common = np.full(len(ids), 1 / len(ids))
        # Neither moved, nor stretched or turned, as a whole.
        for direction in (common, *(axis / np.sum(axis**2) for axis in points.T)):
            together += SIZE_DEVIATION**-2.0 * np.outer(direction, direction)
        for upper, lower in rows_of_pairs(ids):
            gap = np.zeros(len(ids))
            gap[upper], gap[lower] = 1, -1
            together += config.bias_gap**-2.0 * np.outer(gap, gap)
        precision[basic:, basic:] = np.kron(together, np.eye(3))
        repeated = max(1.0, frames / config.evidence)
        mean = np.zeros(count)
        mean[shapes] = log_focal
        return cls(mean, repeated * precision, shapes, repeated)

    def start(self) -> SharedParameters:
        """The most likely values before anything is seen."""
        return self._record(self.mean)

    def deviation(self, information: Float64) -> float:
        """Of the focal length's logarithm, given an inverse covariance [S + 1 ..., S + 1 ...] of what is shared."""
        unit = np.eye(len(information))[self.shapes]
        return math.sqrt(self.repeated * np.linalg.solve(information, unit)[self.shapes])

    def holding(self, log_focal: float) -> SharedPrior:
        """The same, sure of the focal length."""
        mean, precision = self.mean.copy(), self.precision.copy()
        mean[self.shapes] = log_focal
        precision[self.shapes, self.shapes] = HELD
        return replace(self, mean=mean, precision=precision)

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


def expected_focal_length(config: FitConfig, size: tuple[int, int], unit: float) -> tuple[float, float]:
    """The logarithm of a focal length in px and its deviation, before anything is seen but the face's size.

    Two things are known of it: what lenses there are, and how far from them people sit. Where a video was cropped, the
    first is wrong, and the face would be thought to be closer than anyone films it, hence drawn with its ears hidden.

    Args:
        size: of the picture. unit: px between the eyes.
    """
    guesses = math.log(config.focal * max(size)), math.log(config.distance * unit / EYES_APART)
    weights = config.focal_deviation**-2.0, config.distance_deviation**-2.0
    total = sum(weights)
    return sum(w * guess for w, guess in zip(weights, guesses, strict=True)) / total, total**-0.5
