"""IMavatar's ``flame_params.json``, which PointAvatar and SplattingAvatar read too: FLAME four times its size.

Zheng et al., "I M Avatar: implicit morphable head avatars from videos", CVPR 2022. The mesh and the translation of the
camera are in units of a quarter of a metre; the camera has OpenGL's axes; intrinsics are in parts of the picture's
sides, the first focal length with a minus. Poses are global, neck, jaw, left eye, right eye, axis-angle. Pictures count
from 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.pictures import picture_size
from being_rt.dataset.readers.cameras import OPENGL_TO_OPENCV, camera_of, hold_camera, pinhole, rigid, still_camera
from being_rt.dataset.readers.crops import fit_camera
from being_rt.dataset.readers.recording import (
    ReadOptions,
    Recording,
    Shot,
    checked_params,
    edition_note,
    neutral,
    padded_expression,
    splits,
)
from being_rt.dataset.readers.source_files import array, frames_of, inside, numbered_files, picture, read_json, text
from being_rt.errors import DatasetError
from being_rt.flame.model import FlameModel
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]

FILE = "flame_params.json"
SCALE = 4.0  # of mesh and camera, to fill the unit sphere
_OLD_SIDE = 512  # of the pictures that intrinsics in pixels, in older files, are of
_POSE = {"rotation": slice(0, 3), "neck": slice(3, 6), "jaw": slice(6, 9), "eyes": slice(9, 15)}


def is_imavatar(folder: Path) -> bool:
    """Whether a folder has IMavatar's ``flame_params.json``."""
    return (folder / FILE).is_file()


def read_imavatar(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read one video of an IMavatar data set: ``flame_params.json``, ``image/1.png`` ..., ``mask/1.png`` ...

    Raises:
        DatasetError: a file is missing, damaged or contradicts another.
    """
    path = folder / FILE
    table = read_json(path)
    frames = frames_of(table, path)
    names = [f"{path}, frame {index} ({str(frame.get('file_path'))[:60]})" for index, frame in enumerate(frames)]

    def rows(key: str, shape: tuple[int | None, ...]) -> list[Float64]:
        return [array(frame.get(key), f"{name}: {key}", shape) for frame, name in zip(frames, names, strict=True)]

    fields = neutral(len(frames))
    expressions = rows("expression", (None,))
    if len({row.size for row in expressions}) > 1:
        raise DatasetError(f"{path} has expressions of different lengths")
    fields["expression"] = padded_expression(np.stack(expressions))
    pose = np.stack(rows("pose", (15,)))
    fields |= {name: pose[:, columns] for name, columns in _POSE.items()}
    shape = array(table.get("shape_params"), f"{path}: shape_params", (None,))
    rig = bake_rig(model, shape if options.shape is None else options.shape)
    poses = np.stack([_metres(matrix, name) for matrix, name in zip(rows("world_mat", (3, 4)), names, strict=True)])
    still = still_camera(poses)
    if still is None:
        still, fields = hold_camera(poses, rig, fields)
    own = [inside(folder, text(frame, "file_path", name), name) for frame, name in zip(frames, names, strict=True)]
    images, masks, tracked = _pictures(own, options)
    camera = camera_of(still, _intrinsics(table, tracked, path), tracked)
    camera, metadata = fit_camera(camera, picture_size(images[0]), options.crop, images[0].parent)
    kinds = splits(len(frames), options.test_frames)
    return Recording(
        format="IMavatar",
        rig=rig,
        params=checked_params(fields, options.fps, names),
        cameras=(camera,),
        shots=tuple(Shot(images[i], masks[i], i, 0, kinds[i]) for i in range(len(frames))),
        notes=edition_note(model, "flame-2020"),
        metadata=metadata,
    )


def _metres(world_mat: Float64, where: str) -> Float64:
    """World to camera [4, 4] with OpenCV's axes, in metres."""
    pose = OPENGL_TO_OPENCV @ rigid(world_mat, where)
    pose[:3, 3] /= SCALE
    return pose


def _intrinsics(table: dict[str, Any], size: tuple[int, int], path: Path) -> Float64:
    values = np.abs(array(table.get("intrinsics"), f"{path}: intrinsics", (4,)))
    sides = np.array([size[0], size[1], size[0], size[1]], np.float64)
    pixels = values * (sides / _OLD_SIDE if values[3] > 1 else sides)
    return pinhole(pixels[0], pixels[1], pixels[2], pixels[3], str(path))


def _pictures(own: list[Path], options: ReadOptions) -> tuple[list[Path], list[Path | None], tuple[int, int]]:
    """Pictures, masks, and the size of the pictures that were tracked, which the intrinsics are in parts of."""
    tracked_pictures = None
    try:
        tracked_pictures = [_picture(path) for path in own]
    except DatasetError:
        if options.images is None:
            raise
    tracked = picture_size(tracked_pictures[0]) if tracked_pictures else (_OLD_SIDE, _OLD_SIDE)
    if options.images is None:
        assert tracked_pictures is not None
        images = tracked_pictures
    else:
        images = _by_number(own, options.images, options.frame_offset or 0)
        if not tracked_pictures and not options.crop:
            tracked = picture_size(images[0])
    masks: list[Path | None] = [None] * len(own)
    if options.masks is not None:
        masks = [*_by_number(own, options.masks, options.frame_offset or 0)]
    elif picture_size(images[0]) == tracked:
        folder = own[0].parent.parent / "mask"
        if folder.is_dir():
            masks = [picture(folder / path.name) for path in own]
    return images, masks, tracked


def _picture(path: Path) -> Path:
    """``./image/1`` is ``image/1.png``; SplattingAvatar's copies call the folder ``images``."""
    try:
        return picture(path)
    except DatasetError:
        if path.parent.name != "image":
            raise
        return picture(path.parent.parent / "images" / path.name)


def _by_number(own: list[Path], folder: Path, offset: int) -> list[Path]:
    files = numbered_files(folder)
    found = []
    for path in own:
        if not path.stem.isdecimal() or int(path.stem) + offset not in files:
            raise DatasetError(f"{folder} has no picture of the number of {path.name}")
        found.append(files[int(path.stem) + offset])
    return found
