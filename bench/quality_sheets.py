"""Contact sheets: the same frame as the camera saw it and as every preset draws it, with its errors and its mouth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

CELL = 360  # px, height of a picture on a sheet
GAP = 4
LABEL = 18
AMPLIFIED = 4.0  # factor on differences before they are coloured
ZOOM = 0.5  # height of the mouth's picture, of a cell


@dataclass(frozen=True)
class Sample:
    """A frame that is shown."""

    label: str
    seen: UInt8  # [H, W, 3]
    drawn: Mapping[str, UInt8]  # by column; a column that lacks the frame stays empty
    mouth: Float32  # left, top, right, bottom px; NaN: not in the picture


def contact_sheet(samples: Sequence[Sample], columns: Sequence[str]) -> UInt8:
    """One picture of all samples, uint8 [H, W, 3]: a band each of frames, differences and mouths; the first column is
    what the camera saw."""
    bands = [_labels(["truth", *columns], _cell_width(samples[0]))]
    for sample in samples:
        pictures = [sample.seen, *(sample.drawn.get(name) for name in columns)]
        width = _cell_width(sample)
        errors = [None if drawn is None else error_map(drawn, sample.seen) for drawn in pictures]
        errors[0] = None
        mouths = [None if picture is None else _zoomed(picture, sample.mouth) for picture in pictures]
        bands.append(_labels([sample.label], width * len(pictures) + GAP * (len(pictures) - 1)))
        bands.append(_band(pictures, width, CELL))
        bands.append(_band(errors, width, CELL))
        bands.append(_band(mouths, width, round(ZOOM * CELL)))
    widest = max(band.shape[1] for band in bands)
    padded = [np.pad(band, ((0, GAP), (0, widest - band.shape[1]), (0, 0)), constant_values=255) for band in bands]
    return np.concatenate(padded)


def error_map(drawn: UInt8, seen: UInt8) -> UInt8:
    """The largest difference of a pixel's channels, amplified: black is none, through red and yellow to white."""
    largest = np.abs(drawn.astype(np.float32) - seen).max(2) / 255 * AMPLIFIED
    return (np.clip(largest[..., None] * 3 - np.arange(3), 0, 1) * 255).round().astype(np.uint8)


def _zoomed(picture: UInt8, box: Float32) -> UInt8 | None:
    if not np.isfinite(box).all():
        return None
    height, width = picture.shape[:2]
    left, top, right, bottom = np.clip(np.round(box), 0, [width, height, width, height]).astype(int)
    return picture[top:bottom, left:right] if right - left > 1 and bottom - top > 1 else None


def _cell_width(sample: Sample) -> int:
    height, width = sample.seen.shape[:2]
    return max(1, round(CELL * width / height))


def _band(pictures: Sequence[UInt8 | None], width: int, height: int) -> UInt8:
    """Pictures side by side, each as large as its cell allows."""
    band = np.full((height, len(pictures) * (width + GAP) - GAP, 3), 255, np.uint8)
    for k, picture in enumerate(pictures):
        if picture is None:
            continue
        scale = min(width / picture.shape[1], height / picture.shape[0])
        size = max(1, round(scale * picture.shape[1])), max(1, round(scale * picture.shape[0]))
        way = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        left = k * (width + GAP) + (width - size[0]) // 2
        band[: size[1], left : left + size[0]] = np.asarray(Image.fromarray(picture).resize(size, way))
    return band


def _labels(texts: Sequence[str], width: int) -> UInt8:
    strip = Image.new("RGB", (len(texts) * (width + GAP) - GAP, LABEL), "white")
    pen = ImageDraw.Draw(strip)
    for k, text in enumerate(texts):
        pen.text((k * (width + GAP) + 2, 2), text, fill="black")
    return np.asarray(strip)
