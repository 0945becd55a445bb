"""Crops: which part of the original picture a frame shows, and what that does to the camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from being_rt.avatar.avatar import Camera


@dataclass(frozen=True)
class Crop:
    """A box of a picture, drawn at another size: crop, padding and resize in one record.

    ``left``, ``top``, ``width`` and ``height`` are pixels of the picture before; the box may lie partly outside it,
    and what is outside was padded. With pixel centres at +0.5 a point x before lies at
    ``(x - left) * size[0] / width`` after.
    """

    left: float
    top: float
    width: float
    height: float
    size: tuple[int, int]  # width, height of the result
    original_size: tuple[int, int]  # of the picture before

    @classmethod
    def padded_square(cls, original_size: tuple[int, int], size: int) -> Crop:
        """The whole picture, padded to a square around its centre and resized to ``size`` x ``size``.

        The padding before the picture is rounded down, as trackers do it.
        """
        width, height = original_size
        side = max(width, height)
        return cls(-((side - width) // 2), -((side - height) // 2), side, side, (size, size), original_size)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels after per pixel before, along x and y."""
        return self.size[0] / self.width, self.size[1] / self.height

    def apply(self, camera: Camera) -> Camera:
        """The camera of the cropped picture, from that of the original."""
        intrinsics = camera.intrinsics.astype(np.float64)
        intrinsics[0, 2] -= self.left
        intrinsics[1, 2] -= self.top
        intrinsics[0] *= self.scale[0]
        intrinsics[1] *= self.scale[1]
        return Camera(camera.world_to_camera, intrinsics.astype(np.float32), self.size)

    def undo(self, camera: Camera) -> Camera:
        """The camera of the original picture, from that of the cropped one: the resize first, then the offset."""
        intrinsics = camera.intrinsics.astype(np.float64)
        intrinsics[0] /= self.scale[0]
        intrinsics[1] /= self.scale[1]
        intrinsics[0, 2] += self.left
        intrinsics[1, 2] += self.top
        return Camera(camera.world_to_camera, intrinsics.astype(np.float32), self.original_size)


def undo_crops(camera: Camera, crops: Sequence[Crop]) -> Camera:
    """The camera of the first picture, where ``crops`` (oldest first) led to the one that ``camera`` sees."""
    for crop in reversed(crops):
        camera = crop.undo(camera)
    return camera
