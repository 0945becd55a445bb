"""Levenberg and Marquardt's method over all frames and what they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_blocks import Bands, NotPositiveDefiniteError, Solution, solve
from being_rt.track.fit_equations import Equations, gather, landmark_cost
from being_rt.track.fit_prior import MotionPrior
from being_rt.track.fit_residuals import Observed
from being_rt.track.fit_rig import LandmarkRig, SharedParameters
from being_rt.track.fit_shared import SharedPrior

Float64 = NDArray[np.float64]

FIRST_OUTLIER = 0.32  # of the distance between the eyes: where poses are guesses, nothing is an outlier
_DAMPING, _LEAST, _MOST = 1e-6, 1e-9, 1e4  # of the diagonal


@dataclass(frozen=True)
class Problem:
    """All that does not change while the parameters do."""

    rig: LandmarkRig
    observed: Observed
    motion: MotionPrior
    shared: SharedPrior
    threads: int = 1


@dataclass(frozen=True)
class Estimate:
    """Parameters of T frames and what they share, with the costs on the way."""

    frames: Float64  # [T, P]
    shared: SharedParameters
    costs: tuple[float, ...] = ()
    information: Float64 | None = None  # inverse covariance of the shared unknowns, where they were solved for
    focal_deviation: float = math.nan  # of the focal length's logarithm


def minimise(
    problem: Problem,
    start: Estimate,
    *,
    columns: slice,
    unknowns: int,
    outliers: tuple[float, float],
    iterations: int,
    tolerance: float,
    progress: Callable[[float], None] | None = None,
) -> Estimate:
    """The most likely parameters from a start.

    Args:
        columns: which of a frame's parameters move.
        unknowns: how many of the shared ones do: 0, S + 1 without biases, or all.
        outliers: residual from which costs grow slowly, of the distance between the eyes: at first, and, halved in
            every iteration, at last.
        progress: hears the share of iterations that are done.
    """
    frames, shared = start.frames, start.shared
    outlier, last = outliers
    costs: list[float] = []
    information = start.information
    damping = _DAMPING
    for iteration in range(iterations):
        equations = gather(
            problem.rig, problem.observed, frames, shared, outlier * problem.observed.unit, unknowns, problem.threads
        )
        cost = equations.cost + problem.motion.cost(frames) + problem.shared.cost(shared)
        costs.append(cost)
        better = None
        while better is None and damping < _MOST:
            try:
                solution = _step(problem, equations, frames, shared, columns, unknowns, damping)
            except NotPositiveDefiniteError:
                damping = max(10 * damping, 1e-6)
                continue
            moved = frames.copy()
            moved[:, columns] += solution.frames
            changed = problem.shared.moved(shared, solution.shared)
            now = landmark_cost(problem.rig, problem.observed, moved, changed, equations.metrics)
            now += problem.motion.cost(moved) + problem.shared.cost(changed)
            if now < cost:
                better = moved, changed, now
                damping = max(damping / 10, _LEAST)
                information = solution.information if unknowns else information
            else:
                damping = max(10 * damping, 1e-6)
        if progress:
            progress((iteration + 1) / iterations)
        if better is None:
            break
        frames, shared, now = better
        if outlier <= last and cost - now < tolerance * cost:
            costs.append(now)
            break
        outlier = max(outlier / 2, last)
    return Estimate(frames, shared, (*start.costs, *costs), information, start.focal_deviation)


def _step(
    problem: Problem,
    equations: Equations,
    frames: Float64,
    shared: SharedParameters,
    columns: slice,
    unknowns: int,
    damping: float,
) -> Solution:
    bands, gradient = problem.motion.equations(frames)
    blocks = bands.blocks[:, columns, columns] + equations.frames[:, columns, columns]
    np.einsum("tpp->tp", blocks)[:] *= 1 + damping
    precision, pull = problem.shared.equations(shared)
    common = equations.shared + precision[:unknowns, :unknowns]
    np.einsum("ss->s", common)[:] *= 1 + damping
    return solve(
        Bands(blocks, bands.first[:, columns], bands.second[:, columns]),
        equations.cross[:, columns],
        common,
        -(gradient + equations.gradient)[:, columns],
        -(equations.shared_gradient + pull[:unknowns]),
        problem.threads,
    )
