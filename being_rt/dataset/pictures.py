"""Frames and masks as PNG or JPEG files. A picture's size is known, and checked before it is decoded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.validation import check_size
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.files import reading

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

UInt8 = NDArray[np.uint8]

IMAGE_SUFFIXES = (".png", ".jpg")
_COMPRESSION = 1  # of PNG's 0..9: frames are many, and 9 saves a tenth of the size at ten times the time
_JPEG_QUALITY = 95


def read_picture(path: str | os.PathLike[str], size: tuple[int, int] | None = None, data: bytes | None = None) -> UInt8:
    """The picture in a PNG or JPEG file: uint8 [H, W], [H, W, 3] or [H, W, 4], as many channels as it has.

    Args:
        path: of the file; with ``data`` only what messages call it.
        size: width and height that it must have; None takes any up to the package's limits.
        data: the file's content, where it lies inside another.

    Raises:
        DatasetError: the file is missing, damaged, of another size or kind.
    """
    with _opened(path, data) as picture:
        if size is not None and picture.size != size:
            given = "x".join(map(str, picture.size))
            raise DatasetError(f"{path} is {given} pixels, its camera is made for {size[0]}x{size[1]}")
        check_size("its size", picture.size)  # before decoding, which allocates what the header promises
        if picture.mode == "P":
            picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        if picture.mode not in ("L", "RGB", "RGBA"):
            raise DatasetError(f"{path} is not an 8-bit grey, RGB or RGBA picture (Pillow calls it {picture.mode})")
        return np.array(picture)


def read_rgb(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> UInt8:
    """The picture in a file as uint8 [H, W, 3]; refuses one with transparency. Raises ``DatasetError``."""
    picture = read_picture(path, size)
    if picture.ndim == 3 and picture.shape[2] == 4:
        raise DatasetError(f"{path} has transparency; a frame is RGB, its mask a file of its own")
    return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, 2)


def read_mask(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> UInt8:
    """The 8-bit grey picture in a file as uint8 [H, W]; an RGB one must be grey. Raises ``DatasetError``."""
    picture = read_picture(path, size)
    if picture.ndim == 2:
        return picture
    if np.ptp(picture[:, :, :3].astype(np.int16), axis=2).max(initial=0) > 8:  # JPEG may tint a grey by a few levels
        raise DatasetError(f"{path} is a picture in colour; a mask is an 8-bit grey one: 0 background, 255 person")
    return np.ascontiguousarray(picture[:, :, 1])


def encode_picture(picture: UInt8, suffix: str) -> bytes:
    """The file of a picture uint8 [H, W] or [H, W, 3], by suffix ``.png`` or ``.jpg``."""
    stream = io.BytesIO()
    _encode(picture, suffix, stream)
    return stream.getvalue()


def write_picture(path: Path, picture: UInt8) -> None:
    """Write what :func:`encode_picture` gives, by the path's suffix. Raises ``OSError``.

    Straight into the file, Pillow compresses without Python's lock; into memory it holds it, and threads wait.
    """
    try:
        with open(path, "wb") as file:
            _encode(picture, path.suffix, file)
    except OSError:  # Pillow says "encoder error" of a full disk; the system says more
        path.write_bytes(encode_picture(picture, path.suffix))


def _encode(picture: UInt8, suffix: str, stream: IO[bytes]) -> None:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    if suffix == ".png":
        image.save(stream, "PNG", compress_level=_COMPRESSION)
    else:
        image.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def check_picture(name: str, picture: Any, size: tuple[int, int], channels: int) -> None:
    """Check an array that is to be written: uint8 [H, W, channels], or [H, W] where channels is 0."""
    shape = (size[1], size[0], channels)[: 3 if channels else 2]
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != shape:
        given = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise InvalidParameterError(f"{name} must be uint8 {list(shape)}, got {given}")


def is_rgb_file(path: Path) -> bool:
    """Whether a file holds an 8-bit RGB picture in PNG or JPEG, by its header: it can be a frame as it is."""
    with _opened(path) as picture:
        return bool(picture.mode == "RGB" and "transparency" not in picture.info)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG or JPEG file, by its header. Raises ``DatasetError``."""
    with _opened(path) as picture:
        check_size("its size", picture.size)
        return int(picture.size[0]), int(picture.size[1])


@contextmanager
def _opened(path: str | os.PathLike[str], data: bytes | None = None) -> Iterator[PillowImage]:
    """A file's picture, its header read; what is wrong with it in one line."""
    from PIL import Image, UnidentifiedImageError

    with reading(path, "a PNG or JPEG picture", DatasetError):
        try:
            with Image.open(path if data is None else io.BytesIO(data), formats=["PNG", "JPEG"]) as picture:
                yield picture
        except UnidentifiedImageError:
            raise ValueError("it begins like neither") from None
        except InvalidParameterError as problem:
            raise ValueError(str(problem)) from problem
