"""A data set of the same frames, smaller: reduced when they are read."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset
from being_rt.dataset.regions import region_boxes

UInt8 = NDArray[np.uint8]

SMALLEST = 32  # px of a reduced frame's shorter side


@dataclass(frozen=True, eq=False)
class ReducedDataset(Dataset):
    """Frames whose pixels are the means of blocks of another data set's.

    Example::

        small = ReducedDataset.of(Dataset.load("me"), 3)
        small.image(0).shape
    """

    original: Dataset | None = None
    reduction: int = 1

    @classmethod
    def of(cls, dataset: Dataset, reduction: int) -> ReducedDataset:
        """The frames of ``dataset`` in blocks of ``reduction`` x ``reduction`` pixels."""
        values = {item.name: getattr(dataset, item.name) for item in fields(Dataset)}
        values["cameras"] = tuple(smaller(camera, reduction) for camera in dataset.cameras)
        return cls(**values, original=dataset, reduction=reduction)

    def image(self, index: int) -> UInt8:
        """Frame ``index``, reduced: uint8 [h, w, 3]."""
        assert self.original is not None
        return block_means(self.original.image(index), self.reduction)

    def mask(self, index: int) -> UInt8:
        """Alpha of frame ``index``, reduced: uint8 [h, w]."""
        assert self.original is not None
        return block_means(self.original.mask(index), self.reduction)

    @cached_property
    def backgrounds(self) -> tuple[UInt8 | None, ...]:
        """The empty scenes of all cameras, reduced, or None."""
        assert self.original is not None
        return tuple(
            None if plate is None else block_means(plate, self.reduction) for plate in self.original.backgrounds
        )


def smaller(camera: Camera, reduction: int) -> Camera:
    """The camera whose pixels are blocks of ``reduction`` x ``reduction`` of another's; what is left is cut off."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2] /= reduction
    width, height = camera.size
    return replace(camera, intrinsics=intrinsics, size=(width // reduction, height // reduction))


def block_means(picture: UInt8, reduction: int) -> UInt8:
    """Means of blocks of ``reduction`` x ``reduction`` pixels; what is left over is cut off."""
    if reduction == 1:
        return picture
    height, width = (side // reduction * reduction for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).reduce(reduction, (0, 0, width, height)))


def face_reduction(dataset: Dataset, longest: int) -> int:
    """By how much frames are to be reduced until the face is about ``longest`` px high or wide."""
    face = region_boxes(dataset.rig, dataset.params, dataset.cameras[0], margin=0.1)["face"]
    extent = float(np.nanmedian((face[:, 2:] - face[:, :2]).max(1))) if np.isfinite(face).any() else longest
    most = max(1, min(dataset.size) // SMALLEST)
    return int(np.clip(round(extent / longest), 1, most))
