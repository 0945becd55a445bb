"""Pictures of another size than the tracked ones: how the one became the other, and the camera that follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from being_rt.avatar.avatar import Camera
from being_rt.dataset.crop import Crop
from being_rt.dataset.readers.source_files import array, read_torch
from being_rt.errors import DatasetError


def fit_camera(camera: Camera, size: tuple[int, int], crop: str, images: Path) -> tuple[Camera, dict[str, str]]:
    """The camera of pictures of ``size``, from that of the tracked ones, which ``crop`` made of them.

    Args:
        camera: of the tracked pictures.
        size: width, height of the pictures at hand.
        crop: "resized" (the whole picture at another size), "padded" (padded to a square, then resized), "centred" (the
            largest square in its middle, resized), a box
            "x_min,x_max,y_min,y_max" or the file ``bbox.pt`` of one (cut out, padded to a square, then resized).
            "" where the pictures are the tracked ones.

    Returns:
        The camera, and metadata that says what was undone.

    Raises:
        DatasetError: the sizes differ and no crop explains it.
    """
    if camera.size == size:
        return camera, {}
    shown, tracked = "x".join(map(str, size)), "x".join(map(str, camera.size))
    if not crop:
        raise DatasetError(
            f"{images} has pictures of {shown}, the tracks are of pictures of {tracked}: say how the ones became the "
            "others (crop: resized, padded, centred, or the tracker's box)"
        )
    done = parse_crop(crop, size, camera.size)
    box = f"{done.left:g}, {done.top:g}, {done.width:g} x {done.height:g}"
    return done.undo(camera), {"tracked on": f"the box {box} of the frames at {tracked}"}


def parse_crop(crop: str, original: tuple[int, int], tracked: tuple[int, int]) -> Crop:
    """The crop that made pictures of size ``tracked`` of pictures of size ``original``; see :func:`fit_camera`."""
    if crop == "resized":
        return Crop(0, 0, *original, tracked, original)
    if tracked[0] != tracked[1]:
        raise DatasetError(f"the tracked pictures are not square, so they were not made by the crop {crop!r}")
    if crop == "padded":
        return Crop.padded_square(original, tracked[0])
    if crop == "centred":
        side = min(original)
        return Crop((original[0] - side) / 2, (original[1] - side) / 2, side, side, tracked, original)
    return square_crop(_box(crop), original, tracked[0])


def square_crop(box: tuple[int, int, int, int], original: tuple[int, int], side: int) -> Crop:
    """A box (x_min, x_max, y_min, y_max), cut off at the picture's last row and column, padded to a square, resized.

    The same padding goes before and behind, rounded down: of an odd difference one pixel is missing, and the picture
    is stretched by it, as in metrical-tracker.
    """
    x_min, x_max, y_min, y_max = box
    left, right = max(x_min, 0), min(x_max, original[0] - 1)
    top, bottom = max(y_min, 0), min(y_max, original[1] - 1)
    width, height = right - left, bottom - top
    if min(width, height) < 1:
        raise DatasetError(f"the box {box} lies outside of pictures of {original[0]}x{original[1]}")
    across, down = (max(width, height) - width) // 2, (max(width, height) - height) // 2
    return Crop(left - across, top - down, width + 2 * across, height + 2 * down, (side, side), original)


def _box(crop: str) -> tuple[int, int, int, int]:
    if crop.endswith(".pt"):
        values = array(read_torch(Path(crop)), crop, (4,))
    else:
        try:
            values = np.array([float(number) for number in crop.split(",")])
        except ValueError:
            values = np.zeros(0)
    if values.shape != (4,) or not np.isfinite(values).all() or np.abs(values).max() > 1e6:
        raise DatasetError(f"crop must be resized, padded, centred, x_min,x_max,y_min,y_max or a bbox.pt, got {crop!r}")
    x_min, x_max, y_min, y_max = (int(value) for value in values)
    return x_min, x_max, y_min, y_max
