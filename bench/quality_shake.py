"""How much a drawn body shakes against the one that the camera saw, measured in the pictures themselves.

Per frame: by how many pixels the torso that was drawn must be moved to lie on the torso that was seen. Tracking errors
that reach the body (a head that turns and takes the shoulders along, noise from frame to frame) show here, whatever
the parameters say; a body that stands a little off, but stands still, does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import skin

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

ROUNDS = 6  # of Gauss-Newton; three reach 0.01 px
SOFTNESS = 1.5  # px, deviation of the filter before: gradients then hold over the distances that are measured
LEAST_PIXELS = 100
BORDER = 6  # px of the picture's edge that are left out, where filters and shifts see nothing


def torso_weight(rig: Rig, params: FlameParams, camera: Camera, masks: Iterable[UInt8]) -> Float64:
    """Pixels [H, W], 1 or 0, that show the body below the mesh of the head in all frames.

    Args:
        params: of the frames. masks: theirs, uint8 [H, W].
    """
    pose = camera.world_to_camera.astype(np.float64)
    lowest = 0.0
    for vertices in skin(rig, params):
        seen = vertices @ pose[:3, :3].T + pose[:3, 3]
        rows = camera.intrinsics[1, 1] * seen[:, 1] / seen[:, 2] + camera.intrinsics[1, 2]
        lowest = max(lowest, float(rows.max()))
    weight = np.logical_and.reduce([mask > 250 for mask in masks]).astype(np.float64)
    weight[: min(len(weight), math.ceil(lowest) + 2)] = 0
    for edge in (weight[:BORDER], weight[-BORDER:], weight[:, :BORDER], weight[:, -BORDER:]):
        edge[:] = 0
    return weight


def displacement(drawn: UInt8, seen: UInt8, weight: Float64) -> Float64:
    """By which x and y (px) what was drawn lies off what was seen: [2]; NaN where too little can be seen to tell.

    Least squares over the weighted pixels of the brightness, by Gauss-Newton on one common shift (Lucas and Kanade,
    "An iterative image registration technique with an application to stereo vision", 1981).

    Args:
        drawn, seen: uint8 [H, W, 3]. weight: [H, W].
    """
    nothing = np.full(2, np.nan)
    if weight.sum() < LEAST_PIXELS:
        return nothing
    fixed, moving = _softened(seen), _softened(drawn)
    down, right = np.gradient(fixed)
    slopes = np.stack([right, down], -1)
    normal = np.einsum("yx,yxa,yxb->ab", weight, slopes, slopes)
    if np.linalg.eigvalsh(normal)[0] < 1e-3 * weight.sum():  # plain cloth: nothing in it can be followed
        return nothing
    shift = np.zeros(2)
    for _ in range(ROUNDS):
        difference = (_moved(moving, shift) - fixed) * weight
        difference -= weight * difference.sum() / weight.sum()  # a little brighter is not displaced
        shift -= np.linalg.solve(normal, np.einsum("yx,yxa->a", difference, slopes))
        if np.abs(shift).max() > BORDER:
            return nothing
    return shift


def shake(displacements: Float64) -> float:
    """Root mean square change of the displacement [T, 2] from frame to frame, px; NaN without two known ones in a row.

    Noise that is independent in every frame, of deviation s on each axis, gives 2 s.
    """
    change = np.diff(displacements, axis=0)
    squares = (change**2).sum(1)
    known = squares[np.isfinite(squares)]
    return float(np.sqrt(known.mean())) if len(known) else math.nan


def _softened(picture: UInt8) -> Float64:
    reach = math.ceil(3 * SOFTNESS)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SOFTNESS) ** 2)
    bell /= bell.sum()
    brightness = picture.astype(np.float64).mean(2)
    padded = np.pad(brightness, reach, "edge")
    height, width = brightness.shape
    down = sum(share * padded[k : k + height] for k, share in enumerate(bell))
    return np.asarray(sum(share * down[:, k : k + width] for k, share in enumerate(bell)))


def _moved(picture: Float64, shift: Float64) -> Float64:
    """The picture's value at (x + shift): bilinear, edges repeated."""
    height, width = picture.shape
    whole = np.floor(shift).astype(int)
    x_share, y_share = shift - whole

    def taken(dx: int, dy: int) -> Float64:
        rows = np.clip(np.arange(height) + whole[1] + dy, 0, height - 1)
        columns = np.clip(np.arange(width) + whole[0] + dx, 0, width - 1)
        return picture[rows[:, None], columns[None, :]]

    upper = (1 - x_share) * taken(0, 0) + x_share * taken(1, 0)
    lower = (1 - x_share) * taken(0, 1) + x_share * taken(1, 1)
    return (1 - y_share) * upper + y_share * lower
