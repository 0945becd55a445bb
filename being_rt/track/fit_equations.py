"""The normal equations of all frames around the current parameters, gathered a few frames at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_residuals import Metric, Observed
from being_rt.track.fit_rig import LandmarkRig, SharedParameters
from being_rt.track.fit_threads import runs, side_by_side

Float64 = NDArray[np.float64]

CHUNK = 16  # frames whose derivatives are held at a time: about 10 MB


@dataclass(frozen=True)
class Equations:
    """Second derivatives (Gauss and Newton's) and gradients of the landmarks' cost."""

    frames: Float64  # [T, P, P]
    cross: Float64  # [T, P, S]
    shared: Float64  # [S, S]
    gradient: Float64  # [T, P]
    shared_gradient: Float64  # [S]
    cost: float
    metrics: list[Metric]  # of the chunks, for the cost of a step


def chunks(begin: int, end: int) -> Iterator[slice]:
    """Runs of frames that are handled together."""
    for start in range(begin, end, CHUNK):
        yield slice(start, min(start + CHUNK, end))


def gather(
    rig: LandmarkRig,
    observed: Observed,
    frames: Float64,
    shared: SharedParameters,
    outlier: float,
    unknowns: int,
    threads: int = 1,
) -> Equations:
    """Linearise all frames.

    Args:
        outlier: residual in px from which costs grow slowly.
        unknowns: how many shared unknowns to solve for: 0, shape and focal length (S + 1), or the biases too
            (S + 1 + 3 L).
    """
    count, columns = frames.shape
    total = Equations(
        frames=np.empty((count, columns, columns)),
        cross=np.empty((count, columns, unknowns)),
        shared=np.zeros((unknowns, unknowns)),
        gradient=np.empty((count, columns)),
        shared_gradient=np.zeros(unknowns),
        cost=0.0,
        metrics=[],
    )

    def work(run: slice) -> tuple[Sums, list[Metric]]:
        sums = Sums.zero(rig, unknowns)
        metrics = [
            _add(rig, observed, frames, shared, outlier, total, sums, part) for part in chunks(run.start, run.stop)
        ]
        return sums, metrics

    parts = side_by_side(work, runs(count, CHUNK), threads)
    for sums, metrics in parts:
        total.metrics.extend(metrics)
        sums.add_to(total.shared, total.shared_gradient)
    return replace(total, cost=sum(sums.cost for sums, _ in parts))


@dataclass
class Sums:
    """What the frames of a run add to the shared unknowns."""

    basic: Float64  # [S + 1, S + 1]
    crossed: Float64  # [S + 1, L, 3]
    biases: Float64  # [L, 3, L, 3]
    gradient: Float64  # [S + 1]
    bias_gradient: Float64  # [L, 3]
    cost: float = 0.0

    @classmethod
    def zero(cls, rig: LandmarkRig, unknowns: int) -> Sums:
        basic = min(rig.shapes + 1, unknowns)
        count = rig.count if unknowns > basic else 0
        return cls(
            basic=np.zeros((basic, basic)),
            crossed=np.zeros((basic, count, 3)),
            biases=np.zeros((count, 3, count, 3)),
            gradient=np.zeros(basic),
            bias_gradient=np.zeros((count, 3)),
        )

    def add_to(self, matrix: Float64, gradient: Float64) -> None:
        basic = len(self.basic)
        crossed = self.crossed.reshape(basic, self.bias_gradient.size)
        matrix[:basic, :basic] += self.basic
        matrix[:basic, basic:] += crossed
        matrix[basic:, :basic] += crossed.T
        matrix[basic:, basic:] += self.biases.reshape(2 * (self.bias_gradient.size,))
        gradient[:basic] += self.gradient
        gradient[basic:] += self.bias_gradient.reshape(-1)


def _add(
    rig: LandmarkRig,
    observed: Observed,
    frames: Float64,
    shared: SharedParameters,
    outlier: float,
    total: Equations,
    sums: Sums,
    part: slice,
) -> Metric:
    """Linearise the frames of a part: into their own rows of ``total``, and into ``sums``."""
    projection, derivatives = rig.linearise(frames[part], shared)
    seen = observed[part]
    metric = Metric.at(projection, seen, outlier)
    residual = projection.pixels - seen.pixels
    form, pair = metric.weights(residual)
    sums.cost += metric.cost(residual)
    weighted = _weighted(derivatives.frame, form, pair, seen.pairs)
    turned = np.swapaxes(_rows(weighted), 1, 2)
    total.frames[part] = turned @ _rows(derivatives.frame)
    total.gradient[part] = (turned @ residual.reshape(len(residual), -1, 1))[..., 0]
    basic = len(sums.basic)
    if not basic:
        return metric
    common = derivatives.shared
    common_weighted = _weighted(common, form, pair, seen.pairs)
    tall = common_weighted.reshape(-1, basic)
    total.cross[part, :, :basic] = turned @ _rows(common)
    sums.basic += tall.T @ common.reshape(-1, basic)
    sums.gradient += tall.T @ residual.reshape(-1)
    if len(sums.biases):
        # A bias moves its own landmark alone: all products are small, landmark by landmark.
        own = derivatives.bias  # [t, L, 2, 3]
        crossed = np.swapaxes(weighted, -1, -2) @ own  # [t, L, P, 3]
        total.cross[part, :, basic:] = crossed.transpose(0, 2, 1, 3).reshape(len(own), turned.shape[1], -1)
        sums.crossed += np.einsum("tlxs,tlxk->slk", common_weighted, own, optimize=True)
        at = np.arange(rig.count)
        sums.biases[at, :, at, :] += np.einsum("tlxj,tlxy,tlyk->ljk", own, form, own, optimize=True)
        upper, lower = seen.pairs.T
        for a, b, sign in ((upper, upper, 1), (lower, lower, 1), (upper, lower, -1), (lower, upper, -1)):
            product = np.einsum("tg,tgxj,tgxk->gjk", pair, own[:, a], own[:, b], optimize=True)
            sums.biases[a, :, b, :] += sign * product
        pulled = _weighted(residual[..., None], form, pair, seen.pairs)[..., 0]
        sums.bias_gradient += np.einsum("tlxj,tlx->lj", own, pulled)
    return metric


def landmark_cost(
    rig: LandmarkRig, observed: Observed, frames: Float64, shared: SharedParameters, metrics: list[Metric]
) -> float:
    """The cost of other parameters by the metrics of a linearisation."""
    return sum(
        metric.cost(rig.project(frames[part], shared).pixels - observed.pixels[part])
        for part, metric in zip(chunks(0, len(frames)), metrics, strict=True)
    )


def _weighted(derivative: Float64, form: Float64, pair: Float64, pairs: NDArray[np.int32]) -> Float64:
    """``W J`` [t, L, 2, P]: the landmarks' own forms, and the pairs' on the difference of two landmarks."""
    result = form @ derivative
    upper, lower = pairs.T
    apart = pair[..., None, None] * (derivative[:, upper] - derivative[:, lower])
    result[:, upper] += apart  # a landmark belongs to one pair at most
    result[:, lower] -= apart
    return result


def _rows(derivative: Float64) -> Float64:
    """[t, L, 2, P] as [t, 2 L, P]."""
    count, landmarks, two, columns = derivative.shape
    return derivative.reshape(count, landmarks * two, columns)
