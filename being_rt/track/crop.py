"""Squares cut out of a picture, turned upright and brought to the size that a network takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Crop:
    """A square of a picture: its middle and side in pixels, turned clockwise (as seen) by ``angle`` in radians.

    In a mirrored one, left and right are exchanged.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0
    mirrored: bool = False

    @classmethod
    def around(cls, points: Float32, scale: float, start: Float32, end: Float32) -> Crop:
        """The square around the bounding box of points [n, 2+], ``scale`` times its longer side, turned so that the
        line from ``start`` to ``end`` lies level in it."""
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        x, y = (low + high) / 2
        dx, dy = (end - start)[:2]
        return cls(float(x), float(y), float(scale * (high - low).max()), math.atan2(dy, dx))

    def changed(self, scale: float, mirrored: bool = False) -> Crop:
        """The same, scaled about its middle, mirrored or not."""
        return replace(self, side=self.side * scale, mirrored=mirrored)

    def cut(self, picture: UInt8 | Window, size: int) -> Float32:
        """The square as [size, size, 3] in 0..1, bilinear. Beyond the picture its outermost pixels go on."""
        window = picture if isinstance(picture, Window) else Window.of(picture, self, size)
        axes = self._axes() / (size * window.shrink)
        start = np.array([self.x - window.left, self.y - window.top]) / window.shrink - axes.sum(axis=1) * size / 2
        matrix = (*axes[0], start[0], *axes[1], start[1])
        warped = window.image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return np.asarray(warped, np.float32) * np.float32(1 / 255)

    def to_picture(self, points: Float32, size: int) -> Float32:
        """Points [n, 2 or 3] of the square of ``size`` pixels in the picture's pixels; z grows as x and y do."""
        middle = np.array([self.x, self.y])
        flat = middle + (points[:, :2] / size - 0.5) @ self._axes().T
        return np.concatenate([flat, points[:, 2:] * (self.side / size)], axis=1).astype(np.float32)

    def _axes(self) -> Float64:
        """[2, 2]: the square's x and y axes, as long as its side, in its columns."""
        cosine, sine = self.side * math.cos(self.angle), self.side * math.sin(self.angle)
        sign = -1 if self.mirrored else 1
        return np.array([[sign * cosine, -sine], [sign * sine, cosine]])


@dataclass(frozen=True)
class Window:
    """The part of a picture that a square lies in, smaller if the square will be: several cuts can share it.

    A square that is shrunk to less than half is averaged over whole pixels first: sampling it sparsely would turn the
    camera's noise into motion of the landmarks.
    """

    image: Image.Image
    left: int  # pixels of the picture
    top: int
    shrink: int  # pixels of the picture per pixel of the image

    @classmethod
    def of(cls, picture: UInt8, crop: Crop, size: int, slack: float = 1.0) -> Window:
        """The window of a square of ``size`` pixels, and of squares up to ``slack`` times as large."""
        reach = slack * crop.side * (abs(math.cos(crop.angle)) + abs(math.sin(crop.angle))) / 2
        left, top = math.floor(crop.x - reach) - 1, math.floor(crop.y - reach) - 1
        right, bottom = math.ceil(crop.x + reach) + 1, math.ceil(crop.y + reach) + 1
        shrink = max(int(crop.side / size), 1)
        image = Image.fromarray(_extended(picture, left, top, right, bottom))
        return cls(image.reduce(shrink) if shrink > 1 else image, left, top, shrink)


def _extended(picture: UInt8, left: int, top: int, right: int, bottom: int) -> UInt8:
    """picture[top:bottom, left:right], going on beyond its borders as its outermost pixels."""
    height, width = picture.shape[:2]
    inside = picture[_within(top, bottom, height), _within(left, right, width)]
    if inside.shape[:2] == (bottom - top, right - left):
        return np.ascontiguousarray(inside)
    before = [min(max(-start, 0), end - start - 1) for start, end in ((top, bottom), (left, right))]
    after = [bottom - top - before[0] - inside.shape[0], right - left - before[1] - inside.shape[1]]
    return np.pad(inside, (*zip(before, after, strict=True), (0, 0)), "edge")


def _within(start: int, end: int, length: int) -> slice:
    """The part of start..end that lies in 0..length; at least the element nearest to it."""
    first = min(max(start, 0), length - 1)
    return slice(first, max(min(end, length), first + 1))
