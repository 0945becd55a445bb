"""flame-head-tracker, version 4: an ``.npz`` per frame with tracks, camera and the picture itself.

P. Yan, github.com/PeizhiYan/flame-head-tracker. FLAME rests and the camera moves about it: ``cam`` is its place and its
turn in the world, with OpenGL's axes, the turn as angles about y, x and z (in this order in the file) of
Rz Ry Rx. Intrinsics are of a picture of 256 x 256, whatever the size and proportions of the picture that is
stored, which was squeezed to that. A frame in which no face was found has no file.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.pictures import picture_size
from being_rt.dataset.readers.cameras import OPENGL_TO_OPENCV, camera_of, common_intrinsics, hold_camera, pinhole, rigid
from being_rt.dataset.readers.crops import fit_camera
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
from being_rt.dataset.readers.source_files import array, matched, numbered_files
from being_rt.errors import DatasetError
from being_rt.files import read_npz
from being_rt.flame.model import FlameModel
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

RENDERED = 256  # pixels a side of the pictures that intrinsics are of
_POSES = {"head_pose": ("rotation", 3), "neck_pose": ("neck", 3), "jaw_pose": ("jaw", 3), "eye_pose": ("eyes", 6)}
_TRACK = ("shape", "exp", *_POSES, "cam", "K")
_NEEDED = {"shape", "exp", "jaw_pose", "eye_pose", "cam", "K", "img"}


class _Frame(NamedTuple):
    shape: Float64
    expression: Float64
    joints: dict[str, Float64]
    pose: Float64  # [4, 4] world to camera, OpenCV
    intrinsics: Float64  # [3, 3] of a picture of 256 x 256
    size: tuple[int, int]  # of the stored picture


def is_flame_head_tracker(folder: Path) -> bool:
    """Whether a folder has the tracker's ``[frame].npz``."""
    import zipfile

    first = next((path for path in sorted(folder.glob("*.npz")) if re.fullmatch("[0-9]+", path.stem)), None)
    if first is None:
        return False
    try:
        with zipfile.ZipFile(first) as archive:
            return {"cam.npy", "exp.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_flame_head_tracker(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read the folder of a video: ``0.npz``, ``1.npz`` ...

    Raises:
        DatasetError: a file is missing, damaged or contradicts another.
    """
    files = numbered_files(folder, (".npz",))
    numbers = sorted(files)
    names = [str(files[number]) for number in numbers]
    frames = [_read(files[number]) for number in numbers]
    shape, notes = common_shape([frame.shape for frame in frames], options)
    rig = bake_rig(model, shape)
    fields = neutral(len(frames))
    fields["expression"] = padded_expression(np.stack([frame.expression for frame in frames]))
    for field in ("rotation", "neck", "jaw", "eyes"):
        fields[field] = np.stack([frame.joints[field] for frame in frames])
    still, fields = hold_camera(np.stack([frame.pose for frame in frames]), rig, fields)
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise DatasetError(f"{folder} has frames of different sizes: {sorted(sizes)}")
    tracked = next(iter(sizes))
    scale = np.array([[tracked[0] / RENDERED], [tracked[1] / RENDERED], [1.0]])
    intrinsics = scale * common_intrinsics(np.stack([frame.intrinsics for frame in frames]), names)
    camera, metadata = camera_of(still, intrinsics, tracked), dict[str, str]()
    images: list[Path | Stored] = [Stored(files[number], partial(_picture, files[number])) for number in numbers]
    masks: list[Path | Stored | None] = [Stored(files[number], partial(_mask, files[number])) for number in numbers]
    ahead = 0
    if options.images is not None:
        found, ahead = matched(numbers, numbered_files(options.images), options.frame_offset, options.images)
        camera, metadata = fit_camera(camera, picture_size(found[0]), options.crop, options.images)
        images, masks = [*found], [None] * len(found)
    if options.masks is not None:
        masks = [*matched([number + ahead for number in numbers], numbered_files(options.masks), 0, options.masks)[0]]
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        notes = (*notes, f"{missing} frames between the first and the last have no track; they are left out")
    return Recording(
        format="flame-head-tracker",
        rig=rig,
        params=checked_params(fields, options.fps, names),
        cameras=(camera,),
        shots=shots_of(images, masks, splits(len(frames), options.test_frames)),
        notes=(*edition_note(model, "flame-2020"), *notes),
        metadata=metadata,
    )


def _read(path: Path) -> _Frame:
    content = read_npz(path, DatasetError, names={*_TRACK, "img"})
    lacking = sorted(_NEEDED - set(content))
    if lacking:
        raise DatasetError(f"{path} is not a frame of flame-head-tracker 4: it has no {', '.join(lacking)}")

    def row(name: str, *shape: int | None) -> Float64:
        return array(content[name], f"{path}: {name}", (1, *shape))[0]

    joints = {ours: row(theirs, n) if theirs in content else np.zeros(n) for theirs, (ours, n) in _POSES.items()}
    return _Frame(
        row("shape", None),
        row("exp", None),
        joints,
        _world_to_camera(row("cam", 6), str(path)),
        _intrinsics(row("K", 3, 3), str(path)),
        _checked_picture(content["img"], path).shape[1::-1],
    )


def _world_to_camera(cam: Float64, where: str) -> Float64:
    if not np.isfinite(cam).all():
        raise DatasetError(f"{where}: its cam is not finite; track it again")
    about_y, about_x, about_z = cam[:3]
    turn = matrices(np.diag([about_x, about_y, about_z]))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn[2] @ turn[1] @ turn[0], cam[3:]
    return np.asarray(np.linalg.inv(rigid(pose, where) @ OPENGL_TO_OPENCV), np.float64)


def _intrinsics(matrix: Float64, where: str) -> Float64:
    return pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], where)


def _checked_picture(picture: NDArray[np.generic], path: Path) -> UInt8:
    if picture.dtype != np.uint8 or picture.ndim != 4 or picture.shape[0] != 1 or picture.shape[3] != 3:
        raise DatasetError(f"{path}: img must be uint8 [1, H, W, 3], it is {picture.dtype} {list(picture.shape)}")
    found: UInt8 = picture[0]
    return found


def _picture(path: Path) -> UInt8:
    return np.ascontiguousarray(_checked_picture(read_npz(path, DatasetError, names={"img"})["img"], path))


def _mask(path: Path) -> UInt8:
    """The person of a stored picture: all that its parsing does not call background."""
    from PIL import Image

    content = read_npz(path, DatasetError, names={"img", "parsing"})
    size = _checked_picture(content["img"], path).shape[1::-1]
    if "parsing" not in content:
        raise DatasetError(f"{path} has no parsing; give masks in a folder")
    person = (array(content["parsing"], f"{path}: parsing", (1, None, None))[0] != 0).astype(np.uint8) * 255
    return np.asarray(Image.fromarray(person).resize(size, Image.Resampling.BOX))
