"""Pictures of a mesh that say of every pixel which point of which triangle it shows. NumPy, all triangles at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

BACKGROUND = -1  # triangle of a pixel that shows none


@dataclass(frozen=True)
class Seen:
    """What each pixel of a picture shows."""

    face: Int32  # [H, W] triangle, or BACKGROUND
    barycentric: Float32  # [H, W, 3] of the point on it


def rasterize(pixels: Float64, depth: Float64, faces: Int32, size: tuple[int, int]) -> Seen:
    """Triangles with corners at ``pixels`` [V, 2] and ``depth`` [V] (z along the camera's axis), nearest first.

    Triangles that face away are left out; barycentric coordinates are those on the triangle in space. A pixel belongs
    to the triangle that its centre lies in.
    """
    width, height = size
    corners = pixels[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    low = np.clip(np.ceil(corners.min(1) - 0.5).astype(np.int64), 0, [width, height])
    high = np.clip(np.floor(corners.max(1) - 0.5).astype(np.int64) + 1, 0, [width, height])
    extent = np.maximum(high - low, 0)
    # Outward is counterclockwise where y points up, so clockwise, of negative area, in a picture.
    drawn = np.flatnonzero((area < -1e-9) & (extent.prod(1) > 0) & (depth[faces].min(1) > 0))
    count = extent[drawn].prod(1)
    triangle = np.repeat(drawn, count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    x = low[triangle, 0] + place % extent[triangle, 0]
    y = low[triangle, 1] + place // extent[triangle, 0]
    weights, z = _coordinates(np.stack([x, y], 1) + 0.5, triangle, corners, depth[faces])
    inside = (weights >= 0).all(1)
    triangle, weights, z, at = triangle[inside], weights[inside], z[inside], (y * width + x)[inside]
    order = np.argsort(-z, kind="stable")  # the nearest is written last and stays
    face = np.full(width * height, BACKGROUND, np.int32)
    barycentric = np.zeros((width * height, 3), np.float32)
    face[at[order]] = triangle[order]
    barycentric[at[order]] = weights[order]
    return Seen(face.reshape(height, width), barycentric.reshape(height, width, 3))


def points_seen(seen: Seen, points: Float64, pixels: Float64, depth: Float64, faces: Int32) -> tuple[Int32, Float32]:
    """What lies at points [n, 2] of a picture: the triangle [n] (or BACKGROUND) and barycentric coordinates [n, 3]."""
    height, width = seen.face.shape
    x, y = np.floor(points).astype(np.int64).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    face = np.where(inside, seen.face[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)], BACKGROUND)
    used = np.maximum(face, 0)
    weights, _ = _coordinates(points, used, pixels[faces], depth[faces])
    weights = np.clip(weights, 0, None)  # the pixel's centre lies on the triangle, the point perhaps just beside it
    weights /= np.maximum(weights.sum(1, keepdims=True), 1e-12)
    return face.astype(np.int32), weights.astype(np.float32)


def _coordinates(
    points: Float64, triangle: NDArray[np.int64], corners: Float64, depth: Float64
) -> tuple[Float64, Float64]:
    """Barycentric coordinates [n, 3] in space and depth [n] of points [n, 2] of the picture on their triangles.

    Coordinates in the picture are those in space divided by depth, up to a common factor (Blinn, "Hyperbolic
    interpolation", IEEE CG&A 12(4), 1992).
    """
    a, b, c = (corners[triangle, k] for k in range(3))
    area = _cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-12, 1e-12, area)
    flat = np.stack([_cross(b - points, c - points), _cross(c - points, a - points), _cross(a - points, b - points)], 1)
    flat /= area[:, None]
    over = flat / depth[triangle]
    total = over.sum(1)
    z = 1 / np.where(np.abs(total) < 1e-12, 1e-12, total)
    return over * z[:, None], z


def _cross(a: Float64, b: Float64) -> Float64:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
