"""The picture behind the person, where a data set does not bring it along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.dataset.plates import MedianPlate, fill
from being_rt.errors import InvalidParameterError
from being_rt.train.torso import spread

UInt8 = NDArray[np.uint8]

_FRAMES = 15
_BARE = 8  # of 255: alpha below which a pixel shows the background


def background_plate(dataset: Dataset, camera_index: int = 0) -> UInt8:
    """What a camera sees without the person: uint8 [H, W, 3].

    The data set's own picture where it has one; otherwise, pixel by pixel, the median over up to 15 frames of those
    that the masks leave bare. What no frame leaves bare is filled smoothly from around. Without any mask it is the
    median of all frames.

    Raises:
        InvalidParameterError: there is no such camera, or it has no frame.
        DatasetError: a picture cannot be read.

    Example::

        plate = background_plate(Dataset.load("ada"))
    """
    if not 0 <= camera_index < len(dataset.cameras):
        raise InvalidParameterError(f"camera_index must be one of 0..{len(dataset.cameras) - 1}, got {camera_index}")
    given = dataset.backgrounds[camera_index]
    if given is not None:
        return given
    own = np.flatnonzero(dataset.camera_index == camera_index).astype(np.int32)
    if not len(own):
        raise InvalidParameterError(f"camera {camera_index} has no frame that would show what is behind the person")
    frames = [int(frame) for frame in spread(own, _FRAMES)]
    masked = any(dataset.has_mask(frame) for frame in frames)
    median = MedianPlate(dataset.cameras[camera_index].size, _FRAMES)
    for frame in frames:
        mask = dataset.mask(frame)
        median.add(dataset.image(frame), mask <= _BARE if masked else np.ones(mask.shape, bool))
    plate, count = median.result()
    return fill(plate, count > 0)
