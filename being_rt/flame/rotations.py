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
