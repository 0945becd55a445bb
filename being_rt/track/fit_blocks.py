"""Linear systems of many frames and a few unknowns that all frames share.

    [A   B] [x]   [g]      A block-banded, one block per frame, coupled to the next two;
    [B^T C] [s] = [h]      B and C dense, of the shared unknowns.

Solved exactly: A = L L^T by block Cholesky factors in one sweep over the frames, the shared unknowns from their Schur
complement C - B^T A^-1 B, then the frames backwards. Triggs et al., "Bundle adjustment: a modern synthesis", 2000,
section 6.1; George and Liu, "Computer solution of large sparse positive definite systems", 1981, chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_prior import Bands
from being_rt.track.fit_threads import runs, side_by_side

Float64 = NDArray[np.float64]


class NotPositiveDefiniteError(ArithmeticError):
    """A block has no Cholesky factor: more damping is needed."""


@dataclass(frozen=True)
class Solution:
    """A step, and what is known of the shared unknowns."""

    frames: Float64  # [T, P]
    shared: Float64  # [S]
    information: Float64  # [S, S] the Schur complement: inverse covariance of the shared unknowns


def solve(
    bands: Bands, cross: Float64, shared: Float64, gradient: Float64, shared_gradient: Float64, threads: int = 1
) -> Solution:
    """Solve ``[A B; B^T C] [x; s] = [g; h]``.

    Args:
        bands: A, T blocks of P x P. cross: B [T, P, S]. shared: C [S, S]. gradient: g [T, P]. shared_gradient: h [S].

    Raises:
        NotPositiveDefiniteError: the matrix is not positive definite.
    """
    count, size = gradient.shape
    unknowns = len(shared_gradient)
    diagonal = np.empty((count, size, size))  # lower triangular factors
    below = np.zeros((max(count - 1, 0), size, size))  # L[t + 1, t]
    # Only the head's pose is coupled to the next frame but one; its rows are the only ones of L[t + 2, t].
    coupled = int(np.flatnonzero(bands.second.any(0)).max(initial=-1)) + 1
    far = np.zeros((max(count - 2, 0), coupled, size))  # L[t + 2, t]
    right = np.concatenate([cross, gradient[:, :, None]], -1)  # becomes L^-1 [B g]
    for t in range(count):
        block, sides = bands.blocks[t].copy(), right[t]
        if t >= 2:
            block[:coupled, :coupled] -= far[t - 2] @ far[t - 2].T
            sides[:coupled] -= far[t - 2] @ right[t - 2]
        if t >= 1:
            block -= below[t - 1] @ below[t - 1].T
            sides -= below[t - 1] @ right[t - 1]
        diagonal[t] = factor = _cholesky(block)
        if t + 1 < count:
            coupling = np.diag(bands.first[t])
            if t >= 1:
                coupling[:coupled] -= far[t - 1] @ below[t - 1].T
            below[t] = _solve_lower(factor, coupling.T).T
        if t + 2 < count and coupled:
            edge = np.zeros((size, coupled))
            edge[np.arange(coupled), np.arange(coupled)] = bands.second[t, :coupled]
            far[t] = _solve_lower(factor, edge).T
        right[t] = _solve_lower(factor, sides)
    information, shared_step = np.zeros((0, 0)), np.zeros(0)
    if unknowns:

        def squared(run: slice) -> Float64:
            tall = right[run].reshape(-1, unknowns + 1)
            return tall.T @ tall

        complement = np.sum(side_by_side(squared, runs(count), threads), axis=0)
        information = shared - complement[:-1, :-1]
        factor = _cholesky(information)
        half = _solve_lower(factor, shared_gradient - complement[:-1, -1])
        shared_step = _solve_lower(factor, half, transposed=True)
    step = right[:, :, -1] - right[:, :, :-1] @ shared_step
    for t in range(count - 1, -1, -1):
        if t + 1 < count:
            step[t] -= below[t].T @ step[t + 1]
        if t + 2 < count and coupled:
            step[t] -= far[t].T @ step[t + 2, :coupled]
        step[t] = _solve_lower(diagonal[t], step[t], transposed=True)
    return Solution(step, shared_step, information)


def _cholesky(matrix: Float64) -> Float64:
    from scipy.linalg.lapack import dpotrf

    factor, failed = dpotrf(matrix, lower=1, clean=1)
    if failed:
        raise NotPositiveDefiniteError(f"leading minor {failed} is not positive")
    return np.asarray(factor)


def _solve_lower(factor: Float64, right: Float64, transposed: bool = False) -> Float64:
    """``factor^-1 right`` of a lower triangular factor, or of its transpose."""
    from scipy.linalg.lapack import dtrtrs

    solution, _ = dtrtrs(factor, right, lower=1, trans=int(transposed))
    return np.asarray(solution)
