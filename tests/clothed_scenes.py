"""Pictures of a head over clothes that move on their own, as data sets. Made in a blink.

Import it as ``from clothed_scenes import filmed`` (pytest puts this folder on the path).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from train_scenes import head_rig

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.dataset.regions import project
from being_rt.dataset.synth_motion import perform
from being_rt.flame.skinning import skin

FRAMES, SIZE = 5, (150, 180)
SHIFT = np.array([[0.0, 0.0], [3.0, -2.0], [7.0, 1.5], [-4.0, 3.0], [-1.0, -1.0]])
ZOOM = np.array([0.0, 0.01, 0.02, -0.01, 0.0])
Float64 = NDArray[np.float64]


def camera() -> Camera:
    focal = 2.6 * SIZE[1]
    pose = np.array([[1, 0, 0, 0], [0, -1, 0, -0.03], [0, 0, -1, 0.9], [0, 0, 0, 1]], np.float32)
    return Camera(pose, np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]], np.float32), SIZE)


def filmed(
    folder: Path,
    cloth: Callable[[Float64, Float64], Float64],
    top: Callable[[Float64], Float64],
    masks: bool = True,
) -> Dataset:
    """A head that does what it likes over clothes [grey at x, y] below a line, which move by ``SHIFT`` and ``ZOOM``."""
    rig = head_rig()
    motion = perform(rig, FRAMES, 0, fps=25.0, seed=3)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    middle = np.array([SIZE[0] / 2, 150.0])
    with DatasetWriter(folder, rig=rig, cameras=(camera(),), fps=25, name="person") as writer:
        for t in range(FRAMES):
            own_x, own_y = (
                (axis - middle[k] - SHIFT[t, k]) / (1 + ZOOM[t]) + middle[k] for k, axis in enumerate((x, y))
            )
            head = np.zeros(SIZE[::-1], bool)
            column, row = project(skin(rig, motion[t])[0], camera())[0].astype(int).T
            seen = (column >= 0) & (column < SIZE[0]) & (row >= 0) & (row < 118)
            head[row[seen], column[seen]] = True
            head = ndimage.binary_closing(head, iterations=4)
            body = np.clip(own_y - top(own_x) + 0.5, 0, 1)
            grey = np.where(head, 170.0, cloth(own_x, own_y))
            picture = np.stack([grey, np.where(head, 120, grey), np.where(head, 100, grey)], -1)
            alpha = np.maximum(head, body)
            mask = np.round(255 * alpha).astype(np.uint8) if masks else None
            room = 90 * (1 - alpha[..., None])
            writer.add((alpha[..., None] * picture + room).round().astype(np.uint8), mask, motion[t])
    return Dataset.load(folder)


def woven(x: Float64, y: Float64) -> Float64:
    return 60 + 25 * np.sin(x / 4.0 + np.sin(y / 7.0)) + 25 * np.cos(y / 5.0 - np.sin(x / 9.0))


def plain(x: Float64, y: Float64) -> Float64:
    return np.full_like(x, 40.0)


def slopes(x: Float64) -> Float64:
    """Shoulders that fall to both sides."""
    return 122 + 0.004 * (x - SIZE[0] / 2) ** 2
