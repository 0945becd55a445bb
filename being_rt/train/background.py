"""The picture behind the person, where a data set does not bring it along."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
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
    pictures = np.stack([dataset.image(frame) for frame in frames])
    masked = any(dataset.has_mask(frame) for frame in frames)
    bare = np.stack(
        [dataset.mask(frame) <= _BARE if masked else np.ones(pictures.shape[1:3], bool) for frame in frames]
    )
    # Sorted, the values that count come first.
    ordered = np.sort(np.where(bare[..., None], pictures, 255), axis=0, kind="stable")
    count = bare.sum(0)
    middle = np.maximum(count - 1, 0) // 2
    median = np.take_along_axis(ordered, np.broadcast_to(middle[..., None], pictures.shape[1:])[None], axis=0)[0]
    return fill(median, count > 0)


def fill(picture: UInt8, known: NDArray[np.bool_]) -> UInt8:
    """Give the pixels [H, W, 3] that are not ``known [H, W]`` the colours around them, the smoother the farther inside.

    Pull and push (Gortler et al., "The lumigraph", 1996): means of known pixels at half the size, filled
    in turn, and back up where a pixel is not known. Grey where none is.
    """
    weight = known.astype(np.float64)[..., None]
    filled = _pull_push(picture * weight, weight)
    return np.where(known[..., None], picture, filled.round().clip(0, 255)).astype(np.uint8)


def _pull_push(colour: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours of all pixels, from colours times weights [H, W, 3] and weights 0..1 [H, W, 1]."""
    height, width = weight.shape[:2]
    if weight.all() or (height == 1 and width == 1):
        return np.where(weight > 0, colour / np.maximum(weight, 1e-9), 127.5)
    padding = ((0, height % 2), (0, width % 2), (0, 0))
    halves = [np.pad(values, padding).reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3))
              for values in (colour, weight)]  # fmt: skip
    scale = np.minimum(1.0, 1.0 / np.maximum(halves[1], 1e-9))
    coarse = _pull_push(halves[0] * scale, halves[1] * scale)
    raised = _blurred(np.repeat(np.repeat(coarse, 2, 0), 2, 1))[:height, :width]
    return colour + (1 - weight) * raised


def _blurred(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 3 x 3 pixels: what makes pixels twice as large smooth again."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    tall = padded[:-2] + padded[1:-1] + padded[2:]
    mean: NDArray[np.float64] = (tall[:, :-2] + tall[:, 1:-1] + tall[:, 2:]) / 9
    return mean
