"""VHAP's export, which GaussianAvatars trains on: ``transforms.json`` with OpenGL cameras, ``flame_param/*.npz``.

Qian, "VHAP: versatile head alignment with adaptive appearance priors", 2024; Qian et al., "GaussianAvatars", CVPR 2024.
Cameras stand still and the head moves, as here. ``cy`` is measured from the lower border, because the exporter turns
the principal point upside down with the axes. The identity comes with an offset of every vertex, added before the
joints are found; vertices beyond FLAME's own (teeth) are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.pictures import picture_size
from being_rt.dataset.readers.cameras import (
    OPENGL_TO_OPENCV,
    camera_of,
    common_intrinsics,
    hold_camera,
    still_camera,
)
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
from being_rt.dataset.readers.source_files import array, matched, numbered_files, picture
from being_rt.dataset.readers.transforms import (
    WHOLE,
    Table,
    frame_file,
    frame_name,
    intrinsics_of,
    read_transforms,
    size_of,
    split_frames,
    world_to_camera,
)
from being_rt.errors import DatasetError
from being_rt.files import read_npz
from being_rt.flame.model import FlameModel
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]

_FIELDS = {"rotation": "rotation", "neck_pose": "neck", "jaw_pose": "jaw", "eyes_pose": "eyes"}
_FIELDS |= {"translation": "translation"}


def is_vhap(folder: Path) -> bool:
    """Whether a folder has VHAP's ``transforms.json``: its frames name FLAME parameters."""
    if not any((folder / name).is_file() for name in (WHOLE, "transforms_train.json")):
        return False
    return "flame_param_path" in read_transforms(folder)[1][0]


def read_vhap(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read an export of VHAP.

    Raises:
        DatasetError: a file is missing, damaged or contradicts another.
    """
    table, frames, path = read_transforms(folder)
    names = [frame_name(frame, index, path) for index, frame in enumerate(frames)]
    timesteps, first = _ranks(frames, names, "timestep_index")
    camera_index, _ = _ranks(frames, names, "camera_index")
    files = [frame_file(frames[index], "flame_param_path", folder, names[index]) for index in first]
    motions = [read_npz(file, DatasetError) for file in files]
    fields = neutral(len(motions))
    fields["expression"] = padded_expression(_stacked(motions, files, "expr", None))
    for theirs, ours in _FIELDS.items():
        fields[ours] = _stacked(motions, files, theirs, fields[ours].shape[1])
    if all("eyelids" in motion for motion in motions):  # which being_rt's own export adds
        fields["eyelids"] = _stacked(motions, files, "eyelids", 2)
    rig, notes = _rig(model, motions[0], files[0], options)
    if any(np.any(motion.get("dynamic_offset", 0)) for motion in motions):
        notes = (*notes, "offsets of vertices that change from frame to frame (dynamic_offset) are left out")
    poses = np.stack([OPENGL_TO_OPENCV @ world_to_camera(f, name) for f, name in zip(frames, names, strict=True)])
    tracked, fields = _cameras(frames, table, names, poses, camera_index, rig, fields)
    shots, cameras, metadata = _shots(folder, frames, names, timesteps, camera_index, tracked, options)
    return Recording(
        format="VHAP",
        rig=rig,
        params=checked_params(fields, options.fps, [str(file) for file in files]),
        cameras=cameras,
        shots=shots,
        notes=(*edition_note(model, "flame-2023"), *notes),
        metadata=metadata,
    )


def _ranks(frames: list[Table], names: list[str], key: str) -> tuple[list[int], list[int]]:
    """A number of every frame by its rank (0 for the smallest), and the first frame of each rank."""
    values = []
    for frame, name in zip(frames, names, strict=True):
        value = frame.get(key, 0 if key == "camera_index" else None)
        if not isinstance(value, int) or isinstance(value, bool):
            raise DatasetError(f"{name} has no whole number {key!r}")
        values.append(value)
    known = sorted(set(values))
    rank = {value: index for index, value in enumerate(known)}
    return [rank[value] for value in values], [values.index(value) for value in known]


def _stacked(motions: list[dict[str, Any]], files: list[Path], name: str, width: int | None) -> Float64:
    pairs = zip(motions, files, strict=True)
    rows = [array(motion.get(name), f"{file}: {name}", (1, width))[0] for motion, file in pairs]
    if len({row.size for row in rows}) > 1:
        raise DatasetError(f"{files[0].parent} has {name} of different lengths")
    return np.stack(rows)


def _rig(model: FlameModel, motion: dict[str, Any], file: Path, options: ReadOptions) -> tuple[Rig, tuple[str, ...]]:
    shape = options.shape
    if shape is None:
        given = np.asarray(motion.get("shape", np.zeros(0)), np.float64)
        shape = array(given.reshape(-1), f"{file}: shape", (None,))
    offset = motion.get("static_offset")
    if offset is None:
        return bake_rig(model, shape), ()
    moved = array(offset, f"{file}: static_offset", (1, None, 3))[0]
    if len(moved) < model.vertex_count:
        raise DatasetError(f"{file} has offsets of {len(moved)} vertices, the model has {model.vertex_count}")
    note = (f"{len(moved) - model.vertex_count} vertices beyond the model's (teeth) are left out",)
    template = (model.template + moved[: model.vertex_count]).astype(np.float32)
    return bake_rig(replace(model, template=template), shape), note if len(moved) > model.vertex_count else ()


def _cameras(
    frames: list[Table],
    table: Table,
    names: list[str],
    poses: Float64,
    camera_index: list[int],
    rig: Rig,
    fields: dict[str, Float64],
) -> tuple[list[Camera], dict[str, Float64]]:
    cameras = []
    index = np.array(camera_index)
    for number in range(max(camera_index) + 1):
        members = np.flatnonzero(index == number)
        its_names = [names[i] for i in members]
        sizes = {size_of(frames[i], table, names[i]) for i in members}
        if len(sizes) > 1:
            raise DatasetError(f"{its_names[0]}: its camera takes pictures of different sizes {sorted(sizes)}")
        size = next(iter(sizes))
        each = np.stack([intrinsics_of(frames[i], table, names[i]) for i in members])
        intrinsics = common_intrinsics(each, its_names)
        intrinsics[1, 2] = size[1] - intrinsics[1, 2]
        still = still_camera(poses[members])
        if still is None:
            if max(camera_index) or len(members) != len(fields["expression"]):
                raise DatasetError(f"{its_names[0]}: its camera moves, and is not the only one; it must stand still")
            still, fields = hold_camera(poses[_in_time(frames)], rig, fields)
        cameras.append(camera_of(still, intrinsics, size))
    return cameras, fields


def _in_time(frames: list[Table]) -> list[int]:
    return sorted(range(len(frames)), key=lambda i: frames[i]["timestep_index"])


def _shots(
    folder: Path,
    frames: list[Table],
    names: list[str],
    timesteps: list[int],
    camera_index: list[int],
    cameras: list[Camera],
    options: ReadOptions,
) -> tuple[tuple[Shot, ...], tuple[Camera, ...], dict[str, str]]:
    if options.images is not None and len(cameras) > 1:
        raise DatasetError("pictures from another folder can only be those of one camera")
    own = [frame_file(frame, "file_path", folder, name) for frame, name in zip(frames, names, strict=True)]
    if options.images is None:
        images, ahead = [picture(path) for path in own], 0
    else:
        images, ahead = matched(timesteps, numbered_files(options.images), options.frame_offset, options.images)
    masks: list[Path | None] = []
    if options.masks is not None:
        masks = [*matched([t + ahead for t in timesteps], numbered_files(options.masks), 0, options.masks)[0]]
    elif options.images is None:
        for frame, name in zip(frames, names, strict=True):
            has_mask = "fg_mask_path" in frame
            masks.append(picture(frame_file(frame, "fg_mask_path", folder, name)) if has_mask else None)
    else:
        masks = [None] * len(images)
    metadata: dict[str, str] = {}
    fitted = []
    for number, camera in enumerate(cameras):
        image = images[camera_index.index(number)]
        changed, metadata = fit_camera(camera, picture_size(image), options.crop, image.parent)
        fitted.append(changed)
    shots = [
        Shot(images[i], masks[i], timesteps[i], camera_index[i], kind)
        for i, kind in enumerate(_splits(folder, frames, timesteps, options))
    ]
    return tuple(shots), tuple(fitted), metadata


def _splits(folder: Path, frames: list[Table], timesteps: list[int], options: ReadOptions) -> list[str]:
    """Held-out timesteps are for testing; ``_val`` has held-out cameras of the timesteps that are trained on."""
    test, views = split_frames(folder, "test"), split_frames(folder, "val")
    if options.test_frames is not None or not test:
        kinds = splits(max(timesteps) + 1, options.test_frames)
        return [kinds[timestep] for timestep in timesteps]
    names = [frame.get("file_path") for frame in frames]
    return ["test" if name in test else "views" if name in views else "train" for name in names]
