"""The empty scene behind a tracked person: from the frames themselves, or from a picture of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.plates import MedianPlate, fill
from being_rt.errors import InvalidParameterError

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

BARE = 26  # of 255: alpha below which a pixel, and all around it, shows the background
AROUND = 0.015  # of the longer side: how far around a person nothing counts, for masks are coarse and hair is fine
SAMPLES = 25  # of each pixel; at 1080p 150 MB
FEWEST = 3  # frames that must agree on a pixel, where there are as many


class Plate(NamedTuple):
    """The empty scene: uint8 [H, W, 3], filled where nobody has seen it, and where it is known, bool [H, W]."""

    picture: UInt8
    known: Bool


def background_plate(
    frames: Iterable[UInt8], alphas: Iterable[UInt8], *, samples: int = SAMPLES, empty: UInt8 | None = None
) -> Plate:
    """What the camera sees without the person: the median over frames, where no frame shows it the colours around.

    Some 60 frames, evenly spread, are as good as all. Memory does not grow with their number.

    Args:
        frames: uint8 [H, W, 3], of a camera that stands still.
        alphas: uint8 [H, W] or coarse [h, w], the person 0..255 in each of them.
        samples: of each pixel that are kept for the median.
        empty: the same camera's picture of the empty scene, uint8 [H, W, 3]. It is brought to the brightness of the
            frames, and stands for what they never show: then all is known.

    Raises:
        InvalidParameterError: no frame, a wrong shape, more frames than alphas or the other way round; or ``empty``
            is not the same scene.

    Example::

        plate = background_plate(frames[::30], observations.masks[::30])
    """
    median: MedianPlate | None = None
    count = 0
    for frame, alpha in zip(frames, alphas, strict=True):
        if frame.dtype != np.uint8 or frame.ndim != 3 or alpha.dtype != np.uint8 or alpha.ndim != 2:
            raise InvalidParameterError("a frame must be uint8 [H, W, 3] and its alpha uint8 [H, W]")
        size = frame.shape[1], frame.shape[0]
        median = median or MedianPlate(size, samples)
        median.add(frame, bare_pixels(alpha, size))
        count += 1
    if median is None:
        raise InvalidParameterError("a background plate needs at least one frame")
    picture, bare = median.result()
    known = bare >= min(FEWEST, count)
    if empty is None:
        return Plate(fill(picture, known), known)
    if empty.dtype != np.uint8 or empty.shape != picture.shape:
        raise InvalidParameterError(f"the empty scene must be uint8 {list(picture.shape)}, as the frames are")
    matched = _matched(empty, picture, known)
    return Plate(np.where(known[..., None], picture, matched), np.ones_like(known))


def bare_pixels(alpha: UInt8, size: tuple[int, int], around: float = AROUND) -> Bool:
    """Where [H, W] a frame shows the background for sure: no person there nor within ``around`` of the longer side.

    Args:
        alpha: uint8 [h, w], the person 0..255, of the frame's proportions and any size.
        size: width, height of the frame.
    """
    from PIL import Image
    from scipy import ndimage

    # At a size of a few hundred pixels this is as sure, and quick.
    scale = max(1, round(max(size) / 512))
    small = Image.fromarray(alpha)
    if alpha.shape != (-(-size[1] // scale), -(-size[0] // scale)):
        small = small.resize((-(-size[0] // scale), -(-size[1] // scale)), Image.Resampling.BILINEAR)
    reach = 2 * max(1, round(around * max(size) / scale)) + 1
    near = ndimage.maximum_filter(np.asarray(small), reach) >= BARE
    cells = np.repeat(np.repeat(~near, scale, 0), scale, 1)
    return np.ascontiguousarray(cells[: size[1], : size[0]])


def _matched(empty: UInt8, picture: UInt8, known: Bool) -> UInt8:
    """The picture of the empty scene at the brightness and white balance of what is known of the frames."""
    if known.mean() < 0.01:
        return empty
    theirs, ours = empty[known].astype(np.float32), picture[known].astype(np.float32)
    gain = np.median(ours, axis=0) / np.maximum(np.median(theirs, axis=0), 1)
    brought = empty * gain
    off = float(np.median(np.abs(brought[known] - ours)))
    spread = float(np.median(np.abs(ours - np.median(ours, axis=0))))
    if off > max(12.0, spread):
        raise InvalidParameterError(
            "the picture of the empty scene does not fit the video: film both from the same place, in the same light"
        )
    return brought.round().clip(0, 255).astype(np.uint8)
