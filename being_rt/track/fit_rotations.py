"""How a rotation changes with its axis-angle vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_SMALL = 1e-4  # radians below which the series is exact to 1e-16


def left_jacobians(axis_angle: NDArray[Any]) -> Float64:
    """``J`` [..., 3, 3] with ``R(r + d) = exp([J d]x) R(r)`` to first order, of axis-angle vectors r [..., 3].

    J = I + (1 - cos a) / a^2 [r]x + (a - sin a) / a^3 [r]x^2 with a = |r|: Chirikjian, "Stochastic Models, Information
    Theory, and Lie Groups" vol. 2, 2012, equation 10.86.
    """
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    second = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    cross = cross_matrices(vector)
    return np.eye(3) + first * cross + second * (cross @ cross)


def cross_matrices(vectors: Float64) -> Float64:
    """``[v]x`` [..., 3, 3] with ``[v]x w = v x w``, of vectors [..., 3]."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, -1) for row in rows], -2)
