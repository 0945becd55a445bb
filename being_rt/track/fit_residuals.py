"""What the picture says: differences between projected and observed landmarks, and how much each counts.

Four things decide the weight of a landmark: its kind (lids and lips count most), whether its surface faces the camera,
how large its residual is (Charbonnier et al., "Deterministic edge-preserving regularization in computed imaging", IEEE
TIP 6(2), 1997, minimised by iteratively reweighted least squares; it is convex, where functions that forget outliers
altogether let a badly placed head forget half of its face), and, for an iris, whether the lids let it be seen. The
face's outline is compared along its normal only, for the network's outline slides along it; where the head's own
outline lies inside, it is only believed as far as it is in view: beyond the horizon, the network marks the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_landmarks import (
    ALL_SETS,
    EYE_DISTANCE,
    LEFT_IRIS,
    LEFT_LOWER_LID,
    LEFT_UPPER_LID,
    RIGHT_IRIS,
    RIGHT_LOWER_LID,
    RIGHT_UPPER_LID,
    rows_of_pairs,
)
from being_rt.track.fit_rig import Projection

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]

FACING = (0.05, 0.30)  # cosine between surface and view at which a landmark begins to count, and from which it does
HORIZON = (-0.20, 0.0)  # the same of the outline, which is seen edge on
SPREAD = 0.004  # metres of an embedded landmark's spread at which it counts half
IRIS_SEEN = (
    0.08,
    0.20,
)  # lids' opening, of the eye's width, from which an iris begins to count, and from which it does


@dataclass(frozen=True)
class Observed:
    """Landmarks that are fitted to: T frames, L landmarks, G pairs."""

    pixels: Float64  # [T, L, 2]; 0 where there is no face
    weight: Float64  # [T, L] inverse variance in px^-2; 0 where there is no face
    pairs: Int32  # [G, 2] upper and lower landmark of a slit, rows of L
    pair_weight: Float64  # [T, G] px^-2
    contour: Bool  # [L] of the face's outline
    unit: float  # px between the eyes, the median over the clip

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, part: slice) -> Observed:
        weights = self.weight[part], self.pair_weight[part]
        return Observed(self.pixels[part], weights[0], self.pairs, weights[1], self.contour, self.unit)

    def restricted(self, kept: Bool) -> Observed:
        """The same, without what is not ``kept`` [L], and without pairs."""
        return replace(self, weight=self.weight * kept, pair_weight=0 * self.pair_weight)


def observed_landmarks(
    landmarks: NDArray[np.floating], found: Bool, ids: Int32, spread: NDArray[np.floating], config: FitConfig
) -> Observed:
    """What is fitted to of landmarks [T, 478, >= 2], ``found`` [T] those of a face, restricted to ``ids``.

    ``spread`` [478] in metres is that of the embedding: what lies elsewhere from every side is hardly a point.
    """
    pixels = np.where(found[:, None, None], landmarks[:, :, :2], 0).astype(np.float64)
    unit = eye_distance(pixels[found])
    base = np.zeros(len(landmarks[0]))
    for group in ALL_SETS:
        base[list(group.ids)] = group.weight
    base /= 1 + (spread.astype(np.float64) / SPREAD) ** 2
    weight = found[:, None] * base / (config.noise * unit) ** 2
    for iris, upper, lower, corners in (
        (RIGHT_IRIS, RIGHT_UPPER_LID, RIGHT_LOWER_LID, EYE_DISTANCE[0]),
        (LEFT_IRIS, LEFT_UPPER_LID, LEFT_LOWER_LID, EYE_DISTANCE[1]),
    ):
        gap = np.linalg.norm(pixels[:, list(upper)] - pixels[:, list(lower)], axis=-1).max(1)
        width = np.linalg.norm(pixels[:, corners[0]] - pixels[:, corners[1]], axis=-1)
        weight[:, list(iris)] *= _ramp(gap / np.maximum(width, 1e-6), *IRIS_SEEN)[:, None]
    pairs = rows_of_pairs(ids)
    outline = np.array([i for group in ALL_SETS if group.contour for i in group.ids])
    return Observed(
        pixels=pixels[:, ids],
        weight=weight[:, ids],
        pairs=pairs,
        pair_weight=np.repeat(found[:, None] / (config.gap * unit) ** 2, len(pairs), 1),
        contour=np.isin(ids, outline),
        unit=unit,
    )


def eye_distance(pixels: Float64) -> float:
    """The median distance between the eyes in frames [T, 478, 2], in pixels."""
    right, left = (pixels[:, list(corners)].mean(1) for corners in EYE_DISTANCE)
    return float(np.median(np.linalg.norm(left - right, axis=-1)))


@dataclass(frozen=True)
class Metric:
    """The cost of residuals around a linearisation: what is fixed there, and what follows from the residuals."""

    weight: Float64  # [t, L] px^-2, with visibility
    pair_weight: Float64  # [t, G]
    direction: Float64  # [t, L, 2] the only direction in which a contour's residual counts
    contour: Bool  # [L]
    pairs: Int32  # [G, 2]
    outlier: float  # px

    @classmethod
    def at(cls, projection: Projection, observed: Observed, outlier: float) -> Metric:
        """The metric around a projection; ``outlier`` is the residual in px from which costs grow slowly."""
        # One direction for all landmarks: by their own, a head that comes nearer would hide what does not fit.
        view = -projection.world.mean(1, keepdims=True)
        cosine = np.sum(projection.normal * view, -1) / np.linalg.norm(view, axis=-1)
        seen = np.where(observed.contour, _ramp(cosine, *HORIZON), _ramp(cosine, *FACING))
        direction = projection.normal[..., :2] * [1.0, -1.0]
        direction = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
        outside = np.sum(direction * (projection.pixels - observed.pixels), -1) > 0
        seen = np.where(observed.contour & outside, 1.0, seen)
        upper, lower = observed.pairs.T
        pair_weight = observed.pair_weight * np.minimum(seen[:, upper], seen[:, lower])
        return cls(observed.weight * seen, pair_weight, direction, observed.contour, observed.pairs, outlier)

    def cost(self, residual: Float64) -> float:
        """The robust cost of residuals [t, L, 2], projected minus observed."""
        total = np.sum(self.weight * _robust(self._squared(residual), self.outlier))
        total += np.sum(self.pair_weight * _robust(self._pair_squared(residual), self.outlier))
        return 0.5 * float(total)

    def weights(self, residual: Float64) -> tuple[Float64, Float64]:
        """Quadratic forms that touch :meth:`cost` at these residuals: [t, L, 2, 2] per landmark, [t, G] per pair."""
        point = self.weight * _reweighting(self._squared(residual), self.outlier)
        along = self.direction[..., :, None] * self.direction[..., None, :]
        form = np.where(self.contour[:, None, None], along, np.eye(2)) * point[..., None, None]
        return form, self.pair_weight * _reweighting(self._pair_squared(residual), self.outlier)

    def _squared(self, residual: Float64) -> Float64:
        along = np.sum(self.direction * residual, -1) ** 2
        return np.asarray(np.where(self.contour, along, np.sum(residual**2, -1)))

    def _pair_squared(self, residual: Float64) -> Float64:
        upper, lower = self.pairs.T
        return np.asarray(np.sum((residual[:, upper] - residual[:, lower]) ** 2, -1))


def _robust(squared: Float64, scale: float) -> Float64:
    """Charbonnier's function: e^2 where e is small, 2 scale |e| where it is large."""
    return 2 * scale**2 * (np.sqrt(1 + squared / scale**2) - 1)


def _reweighting(squared: Float64, scale: float) -> Float64:
    """Its derivative by e^2: the weight of a quadratic that touches it."""
    return 1 / np.sqrt(1 + squared / scale**2)


def _ramp(value: Float64, start: float, end: float) -> Float64:
    return np.clip((value - start) / (end - start), 0, 1)
