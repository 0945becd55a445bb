"""Squares cut out of a picture, turned upright and brought to the size that a network takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Crop:
    """A square of a picture: its middle and side in pixels, turned clockwise (as seen) by ``angle`` in radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    @classmethod
    def around(cls, points: Float32, scale: float, start: Float32, end: Float32) -> Crop:
        """The square around the bounding box of points [n, 2+], ``scale`` times its longer side, turned so that the
        line from ``start`` to ``end`` lies level in it."""
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        x, y = (low + high) / 2
        dx, dy = (end - start)[:2]
        return cls(float(x), float(y), float(scale * (high - low).max()), math.atan2(dy, dx))

    def cut(self, picture: UInt8, size: int, mirrored: bool = False) -> Float32:
        """The square as [size, size, 3] in 0..1, bilinear; left and right exchanged where ``mirrored``.

        Beyond the picture its edge goes on. A square that is shrunk to less than half is averaged over whole pixels
        first: sampling it sparsely would turn the camera's noise into motion of the landmarks.
        """
        reach = self.side * (abs(math.cos(self.angle)) + abs(math.sin(self.angle))) / 2
        left, top = math.floor(self.x - reach) - 1, math.floor(self.y - reach) - 1
        right, bottom = math.ceil(self.x + reach) + 1, math.ceil(self.y + reach) + 1
        shrink = max(int(self.side / size), 1)
        image = Image.fromarray(_window(picture, left, top, right, bottom))
        if shrink > 1:
            image = image.reduce(shrink)
        axes = self._axes() / (size * shrink)
        if mirrored:
            axes[:, 0] *= -1
        start = (np.array([self.x - left, self.y - top]) / shrink) - axes.sum(axis=1) * size / 2
        matrix = (*axes[0], start[0], *axes[1], start[1])
        warped = image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return np.asarray(warped, np.float32) * np.float32(1 / 255)

    def to_picture(self, points: Float32, size: int, mirrored: bool = False) -> Float32:
        """Points [n, 3] of the square of ``size`` pixels in the picture's pixels; z grows as x and y do."""
        centred = (points - np.array([size / 2, size / 2, 0], np.float32)) * np.float32(self.side / size)
        if mirrored:
            centred[:, 0] *= -1
        flat = centred[:, :2] @ (self._axes() / self.side).T + np.array([self.x, self.y])
        return np.concatenate([flat, centred[:, 2:]], axis=1).astype(np.float32)

    def _axes(self) -> NDArray[np.float64]:
        """[2, 2]: the square's x and y axes, as long as its side, in its columns."""
        cosine, sine = self.side * math.cos(self.angle), self.side * math.sin(self.angle)
        return np.array([[cosine, -sine], [sine, cosine]])


def _window(picture: UInt8, left: int, top: int, right: int, bottom: int) -> UInt8:
    """picture[top:bottom, left:right], going on beyond its borders as its outermost pixels."""
    height, width = picture.shape[:2]
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return np.ascontiguousarray(picture[top:bottom, left:right])
    rows = np.clip(np.arange(top, bottom), 0, height - 1)
    columns = np.clip(np.arange(left, right), 0, width - 1)
    return picture[rows[:, None], columns]
