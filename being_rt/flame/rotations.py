"""Axis-angle vectors, quaternions and matrices, for whole sequences at once. float64 inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def quaternions(axis_angle: NDArray[Any]) -> Float64:
    """Unit quaternions [..., 4] (w, x, y, z) of axis-angle vectors [..., 3] in radians."""
    vector = np.asarray(axis_angle, np.float64)
    half = 0.5 * np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(h) / (2 h), and its limit: np.sinc is sin(pi x) / (pi x), exact at 0.
    return np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * vector], axis=-1)


def axis_angles(quaternion: NDArray[Any]) -> Float64:
    """Axis-angle vectors [..., 3], angle at most pi, of unit quaternions [..., 4] (w, x, y, z)."""
    q = np.asarray(quaternion, np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    # At sine = 0 the ratio angle / sine tends to 2.
    return q[..., 1:] * np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 1e-12)


def slerp(start: NDArray[Any], end: NDArray[Any], fraction: NDArray[Any]) -> Float64:
    """Axis-angle rotations [..., 3] on the shortest way from ``start`` to ``end`` [..., 3], at ``fraction`` [...].

    Spherical linear interpolation: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985, section 3.3.
    """
    a, b = quaternions(start), quaternions(end)
    cosine = np.sum(a * b, axis=-1, keepdims=True)
    b = np.where(cosine < 0, -b, b)
    angle = np.arccos(np.clip(np.abs(cosine), 0, 1))
    t = np.asarray(fraction, np.float64)[..., None]
    sine = np.sin(angle)
    near = sine < 1e-6  # where both lie together, the chord is the arc
    safe = np.where(near, 1.0, sine)
    mixed = np.where(near, 1 - t, np.sin((1 - t) * angle) / safe) * a + np.where(near, t, np.sin(t * angle) / safe) * b
    return axis_angles(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def matrices(axis_angle: NDArray[Any]) -> Float64:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians (Rodrigues)."""
    return quaternion_matrices(quaternions(axis_angle))


def quaternion_matrices(quaternion: NDArray[Any]) -> Float64:
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4] (w, x, y, z)."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def matrix_quaternions(matrix: NDArray[Any]) -> Float64:
    """Unit quaternions [..., 4] (w, x, y, z), w >= 0, of rotation matrices [..., 3, 3].

    Of the four formulas that a matrix allows, each element is computed by the one that divides by the largest number:
    Shepperd, "Quaternion from rotation matrix", Journal of Guidance and Control 1(3), 1978.
    """
    m = np.asarray(matrix, np.float64)
    diagonal = np.moveaxis(np.diagonal(m, axis1=-2, axis2=-1), -1, 0)
    trace = diagonal.sum(0)
    # Row i is 4 q_i (w, x, y, z): q_i times the quaternion, so the longest row loses the least.
    rows = np.empty((*m.shape[:-2], 4, 4))
    rows[..., 0, 0] = 1 + trace
    antisymmetric = m - np.swapaxes(m, -1, -2)
    symmetric = m + np.swapaxes(m, -1, -2)
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
        rows[..., 0, i + 1] = rows[..., i + 1, 0] = antisymmetric[..., k, j]
        rows[..., i + 1, i + 1] = 1 + 2 * diagonal[i] - trace
        rows[..., j + 1, k + 1] = rows[..., k + 1, j + 1] = symmetric[..., j, k]
    length = np.linalg.norm(rows, axis=-1)
    longest = np.take_along_axis(rows, length.argmax(-1)[..., None, None], axis=-2)[..., 0, :]
    unit = longest / np.linalg.norm(longest, axis=-1, keepdims=True)
    return np.where(unit[..., :1] < 0, -unit, unit)


def matrix_axis_angles(matrix: NDArray[Any]) -> Float64:
    """Axis-angle vectors [..., 3], angle at most pi, of rotation matrices [..., 3, 3]."""
    return axis_angles(matrix_quaternions(matrix))


def nearest_rotations(matrix: NDArray[Any]) -> Float64:
    """The rotations [..., 3, 3] nearest to matrices [..., 3, 3] in the least squares sense (orthogonal Procrustes).

    Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31(1), 1966; the last
    singular vector changes sign where the product would be a reflection.
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, np.float64))
    left[..., :, 2] *= np.sign(np.linalg.det(left @ right))[..., None]
    return left @ right


def matrices_of_rows(rows: NDArray[Any]) -> Float64:
    """Rotation matrices [..., 3, 3] of two rows [..., 6] each, which need not be orthonormal ("6D rotations").

    Zhou et al., "On the continuity of rotation representations in neural networks", CVPR 2019, equation 15, with the
    vectors as rows, the order in which PyTorch3D writes them.
    """
    first, second = np.split(np.asarray(rows, np.float64), 2, axis=-1)
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    second = second - np.sum(first * second, -1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], -2)
