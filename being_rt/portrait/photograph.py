"""A picture file as a photograph of a person: upright, 8-bit sRGB, of a size that makes sense."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import TrackError
from being_rt.files import read_error_reason

UInt8 = NDArray[np.uint8]

LONGEST = 1440  # pixels that are kept: a head and shoulders at 1080p have no more
SMALLEST = 160  # pixels of the shorter side that are needed
_GREY = (128, 128, 128)  # behind what is transparent


def read_photograph(path: str | os.PathLike[str], longest: int = LONGEST) -> UInt8:
    """A picture file as uint8 [H, W, 3] sRGB: turned as its EXIF orientation says, at most ``longest`` pixels a side.

    Grey and palette pictures, 16 bits per channel and transparency (over grey) are converted; of an animation it is
    the first frame.

    Raises:
        TrackError: the file cannot be read, is no picture, or is too small to show a face.

    Example::

        picture = read_photograph("portrait.jpg")
    """
    from PIL import Image, ImageOps

    name = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(name) as opened:
                opened.load()
                upright = ImageOps.exif_transpose(opened)
                picture = _eight_bits(upright)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as problem:
        raise TrackError(f"{name} has too many pixels; shrink it to {longest} a side first") from problem
    except Image.UnidentifiedImageError as problem:
        raise TrackError(f"{name} is not a picture that can be read; give a JPEG or PNG file") from problem
    except (OSError, ValueError, SyntaxError) as problem:  # Pillow finds damaged PNGs to be syntax errors
        reason = read_error_reason(problem) if isinstance(problem, OSError) else "it is damaged"
        raise TrackError(f"cannot read the picture {name}: {reason}") from problem
    if min(picture.size) < SMALLEST:
        width, height = picture.size
        raise TrackError(f"{name} is {width}x{height} pixels; a portrait needs at least {SMALLEST} on each side")
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.array(picture)


def _eight_bits(picture: Any) -> Any:
    """A Pillow picture of any mode as RGB."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":  # 16 or 32 bits of grey
        values = np.asarray(picture).astype(np.float64)
        top = 65535.0 if picture.mode.startswith("I") else max(float(values.max()), 1.0)
        return Image.fromarray((np.clip(values / top, 0, 1) * 255).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        behind = Image.new("RGBA", picture.size, (*_GREY, 255))
        return Image.alpha_composite(behind, picture).convert("RGB")
    return picture.convert("RGB")
