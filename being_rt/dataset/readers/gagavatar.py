"""GAGAvatar_track (also known as lightning_track): one pickle of all frames, pictures in an LMDB beside it.

Chu and Harada, "Generalizable and animatable Gaussian head avatar", NeurIPS 2024; github.com/xg-chu/GAGAvatar_track.
FLAME five times its size rests; a camera of PyTorch3D's convention (X left, Y up, row vectors) moves about it, with
a focal length of 12 in normalised device coordinates, over crops of 512 x 512 pixels. Where in the video a crop was
is not kept, so the crops are the pictures. They lie before black, without masks.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.pictures import picture_size, read_picture
from being_rt.dataset.readers.cameras import PYTORCH3D_TO_OPENCV, camera_of, from_ndc, hold_camera, rigid
from being_rt.dataset.readers.crops import fit_camera
from being_rt.dataset.readers.lmdb_file import LmdbFile
from being_rt.dataset.readers.recording import (
    ReadOptions,
    Recording,
    Stored,
    checked_params,
    common_shape,
    edition_note,
    neutral,
    padded_expression,
    shots_of,
    splits,
)
from being_rt.dataset.readers.source_files import array, matched, numbered_files, read_pickled
from being_rt.errors import DatasetError
from being_rt.flame.model import FlameModel
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

FILES = ("smoothed.pkl", "optim.pkl")  # the better one first
IMAGES = Path("img_lmdb") / "data.mdb"
SCALE = 5.0  # of mesh and camera
FOCAL = 12.0  # normalised device coordinates
SIDE = 512  # pixels of the crops


def is_gagavatar(folder: Path) -> bool:
    """Whether a folder has the tracker's ``smoothed.pkl`` or ``optim.pkl``."""
    return any((folder / name).is_file() for name in FILES)


def read_gagavatar(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read the folder of a video: ``smoothed.pkl`` or ``optim.pkl``, and ``img_lmdb``.

    Raises:
        DatasetError: a file is missing, damaged or contradicts another.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), folder / FILES[0])
    frames = _frames(read_pickled(path), path)
    keys = [key for _, key in sorted((_number(key, path), key) for key in frames)]
    numbers = [_number(key, path) for key in keys]
    names = [f"{path}, frame {key[:60]!r}" for key in keys]

    def rows(name: str, *shape: int | None) -> list[Float64]:
        return [array(frames[key].get(name), f"{where}: {name}", shape) for key, where in zip(keys, names, strict=True)]

    shape, notes = common_shape(rows("shapecode", None), options)
    rig = bake_rig(model, shape)
    fields = neutral(len(keys))
    fields["expression"] = padded_expression(np.stack(rows("expcode", None)))
    pose = np.stack(rows("posecode", 6))  # global, jaw
    fields |= {"rotation": pose[:, :3], "jaw": pose[:, 3:], "eyes": np.stack(rows("eyecode", 6))}
    poses = np.stack([_opencv(m, w) for m, w in zip(rows("transform_matrix", 3, 4), names, strict=True)])
    still, fields = hold_camera(poses, rig, fields)
    tracked = camera_of(still, from_ndc(np.array([FOCAL]), np.zeros(2), (SIDE, SIDE), str(path)), (SIDE, SIDE))
    images, ahead = _images(folder, keys, numbers, options)
    camera, metadata = tracked, dict[str, str]()
    if options.images is not None and isinstance(images[0], Path):
        camera, metadata = fit_camera(tracked, picture_size(images[0]), options.crop, options.images)
    masks: list[Path | None] = [None] * len(keys)
    if options.masks is not None:
        masks = [*matched([number + ahead for number in numbers], numbered_files(options.masks), 0, options.masks)[0]]
    elif options.images is None:
        notes = (*notes, "the crops were cut out before black, and no masks are kept; give a folder of masks")
    return Recording(
        format="GAGAvatar_track",
        rig=rig,
        params=checked_params(fields, options.fps, names),
        cameras=(camera,),
        shots=shots_of(images, masks, splits(len(keys), options.test_frames)),
        notes=(*edition_note(model, "flame-2020"), *notes),
        metadata=metadata,
    )


def _frames(content: Any, path: Path) -> dict[str, dict[str, Any]]:
    if not isinstance(content, dict) or not content:
        raise DatasetError(f"{path} is not a track of GAGAvatar_track: it has no frames")
    if not all(isinstance(key, str) and isinstance(frame, dict) for key, frame in content.items()):
        raise DatasetError(f"{path} is not a track of GAGAvatar_track: its frames have no names or no values")
    return content


def _number(key: str, path: Path) -> int:
    """Frames are named ``VIDEO_NUMBER``; the file has them in the order of their letters."""
    number = key.rpartition("_")[2]
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise DatasetError(f"{path} has a frame {key[:60]!r} that does not end in its number")
    return int(number)


def _opencv(matrix: Float64, where: str) -> Float64:
    """World to camera [4, 4] in metres, from the tracker's [3, 4], whose rotation multiplies rows."""
    pose = PYTORCH3D_TO_OPENCV @ rigid(np.column_stack([matrix[:, :3].T, matrix[:, 3]]), where)
    pose[:3, 3] /= SCALE
    return pose


def _images(folder: Path, keys: list[str], numbers: list[int], options: ReadOptions) -> tuple[list[Path | Stored], int]:
    if options.images is not None:
        found, ahead = matched(numbers, numbered_files(options.images), options.frame_offset, options.images)
        return [*found], ahead
    path = folder / IMAGES
    if not path.exists():
        raise DatasetError(f"{path} does not exist: say where the images are")
    database = LmdbFile(path)
    lacking = sorted(set(keys) - set(database.keys()))
    if lacking:
        raise DatasetError(f"{path} has no picture of frame {lacking[0][:60]!r}")
    return [Stored(path, partial(_picture, database, key)) for key in keys], 0


def _picture(database: LmdbFile, key: str) -> UInt8:
    picture = read_picture(f"{database.path}, {key[:60]}", (SIDE, SIDE), database[key])
    return picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, 2)
