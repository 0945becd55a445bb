"""A data set as VHAP exports its own: what GaussianAvatars and the trainers after it read.

Qian, "VHAP: versatile head alignment with adaptive appearance priors", 2024: ``transforms*.json`` with cameras to world
of OpenGL's axes, ``images`` and ``fg_masks`` by timestep and camera, ``flame_param`` by timestep. Its conventions are
those of being_rt/dataset/readers/vhap.py, turned round.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.folders import NewFolder, writing
from being_rt.dataset.pictures import encode_picture
from being_rt.dataset.readers.cameras import OPENGL_TO_OPENCV
from being_rt.dataset.readers.transforms import WHOLE
from being_rt.errors import InvalidParameterError
from being_rt.flame.joints import with_global_joint
from being_rt.flame.model import EXPRESSION_COUNT, SHAPE_COUNT, FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # frames written, frames in all

BACKGROUNDS = {"white": 255, "black": 0}  # or "keep": the pictures as they are
_PARTS = {"train": "train", "views": "val", "test": "test"}
_EXPLAINED = 1e-6  # metres: offsets below are rounding
_JOINTS = 1e-4  # metres by which joints may be off unsaid
_OPEN = 0.3  # radians that the jaw of the canonical face is open


@dataclass(frozen=True)
class Exported:
    """What :func:`export_vhap` wrote."""

    path: Path
    frames: int
    timesteps: int
    notes: tuple[str, ...]  # what the format cannot hold


def export_vhap(
    dataset: Dataset,
    out: str | os.PathLike[str],
    model: FlameModel,
    *,
    background: str = "white",
    replace: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write a data set in VHAP's format.

    Args:
        dataset: what to write.
        out: a folder that does not exist yet.
        model: the FLAME model that the data set was tracked with. The format wants the identity as coefficients of
            that; what these do not explain becomes an offset of every vertex, which it has too.
        background: what the person is put before where there are masks: "white", as VHAP does it, "black", or "keep"
            for pictures as they are.
        replace: whether a data set of that format and name is replaced.
        progress: called after every frame.

    Raises:
        DatasetError: ``out`` is in the way or cannot be written, or a picture cannot be read; nothing is left behind.
        InvalidParameterError: an unknown background, or a model with another number of vertices.

    Example::

        export_vhap(Dataset.load("ada"), "ada-vhap", load_flame_model("flame2023.pkl"))
    """
    if background not in (*BACKGROUNDS, "keep"):
        raise InvalidParameterError(f"background must be white, black or keep, got {background!r}")
    shape, offset, notes = identity_of(dataset.rig, model)
    params, joint = dataset.params, _joints(model, shape, offset)[0]
    if np.linalg.norm(joint - dataset.rig.joint_rest[0]) > _JOINTS:
        _, params = with_global_joint(dataset.rig, params, joint)
    steps = np.unique(dataset.timestep)  # those with pictures, which count from 0 there
    rank = {int(step): index for index, step in enumerate(steps)}
    frames = []
    with NewFolder(Path(out), replace=replace, mark=WHOLE, kind="an export of VHAP's format") as folder:
        with writing(Path(out)):
            for name in ("images", "fg_masks", "flame_param"):
                (folder / name).mkdir()
            _write_params(folder, params, steps, shape, offset)
        for index in range(dataset.count):
            step = int(dataset.timestep[index])
            frames.append(_write_frame(folder, dataset, index, rank[step], background))
            if progress is not None:
                progress(index + 1, dataset.count)
        with writing(Path(out)):
            if not any((folder / "fg_masks").iterdir()):
                (folder / "fg_masks").rmdir()
            _write_tables(folder, dataset, frames)
    return Exported(Path(out), dataset.count, len(steps), (*notes, *_notes(dataset)))


def identity_of(rig: Rig, model: FlameModel) -> tuple[Float32, Float32, tuple[str, ...]]:
    """The identity in a rig as coefficients [300] of a model, and what these leave, metres [V, 3]; and notes.

    Raises:
        InvalidParameterError: the model has another number of vertices.
    """
    if rig.template.shape != model.template.shape:
        raise InvalidParameterError(
            f"the data set's mesh has {len(rig.template)} vertices, the model {model.vertex_count}: give the FLAME "
            "model that it was tracked with"
        )
    basis = model.shape_basis.reshape(-1, SHAPE_COUNT).astype(np.float64)
    wanted = (rig.template.astype(np.float64) - model.template).reshape(-1)
    shape = np.linalg.lstsq(basis, wanted, rcond=1e-8)[0].astype(np.float32)
    offset = (wanted - basis @ shape).reshape(-1, 3).astype(np.float32)
    if np.abs(offset).max() < _EXPLAINED:
        offset[:] = 0
    notes = []
    largest = float(np.linalg.norm(offset, axis=1).max())
    if largest > 1e-4:
        notes.append(f"the model's identities leave up to {1000 * largest:.1f} mm, which static_offset holds")
    # The global joint may be anywhere: translations make up for it.
    off = float(np.linalg.norm(_joints(model, shape, offset) - rig.joint_rest, axis=1)[1:].max())
    if off > _JOINTS:
        notes.append(f"joints are {1000 * off:.1f} mm from where the data set has them: the model finds them otherwise")
    return shape, offset, tuple(notes)


def _joints(model: FlameModel, shape: Float32, offset: Float32) -> Float32:
    """Where a model finds the joints [5, 3] of an identity."""
    moved = dataclasses.replace(model, template=(model.template + offset).astype(np.float32))
    return bake_rig(moved, shape).joint_rest


def _write_params(folder: Path, params: FlameParams, steps: NDArray[Any], shape: Float32, offset: Float32) -> None:
    lids = bool(np.any(params.eyelids))
    still = FlameParams.neutral(1).replace(jaw=[[_OPEN, 0, 0]])
    np.savez_compressed(folder / "canonical_flame_param.npz", **_fields(still, shape, offset, False))
    for index, step in enumerate(steps):
        path = folder / "flame_param" / f"{index:05d}.npz"
        np.savez_compressed(path, **_fields(params[int(step)], shape, offset, lids))


def _fields(row: FlameParams, shape: Float32, offset: Float32, lids: bool) -> dict[str, Any]:
    fields = {
        "translation": row.translation,
        "rotation": row.rotation,
        "neck_pose": row.neck,
        "jaw_pose": row.jaw,
        "eyes_pose": row.eyes,
        "shape": shape,
        "expr": row.expression[:, :EXPRESSION_COUNT],
        "static_offset": offset[None],
    }
    return {**fields, "eyelids": row.eyelids} if lids else fields


def _write_frame(folder: Path, dataset: Dataset, index: int, step: int, background: str) -> dict[str, Any]:
    """Write the pictures of a frame; return its entry."""
    number = int(dataset.camera_index[index])
    name = f"{step:05d}_{number:02d}.png"
    entry = {
        "timestep_index": step,
        "timestep_index_original": int(dataset.timestep[index]),
        "timestep_id": f"{int(dataset.timestep[index]):05d}",
        "camera_index": number,
        "camera_id": str(number),
        **_camera(dataset.cameras[number]),
        "file_path": f"images/{name}",
        "flame_param_path": f"flame_param/{step:05d}.npz",
    }
    picture = dataset.image(index)
    if dataset.has_mask(index):
        mask = dataset.mask(index)
        entry["fg_mask_path"] = f"fg_masks/{name}"
        with writing(folder):
            (folder / "fg_masks" / name).write_bytes(encode_picture(mask, ".png"))
        if background != "keep":
            picture = _before(picture, mask, BACKGROUNDS[background])
    with writing(folder):
        (folder / "images" / name).write_bytes(encode_picture(picture, ".png"))
    return entry


def _before(picture: UInt8, mask: UInt8, level: int) -> UInt8:
    alpha = mask[:, :, None].astype(np.float32) / 255
    return (alpha * picture + (1 - alpha) * level + 0.5).astype(np.uint8)


def _camera(camera: Camera) -> dict[str, Any]:
    """The entries of a camera. The principal point is turned over with the axes, as the format has it."""
    width, height = camera.size
    k = camera.intrinsics.astype(np.float64)
    to_world = np.linalg.inv(camera.world_to_camera.astype(np.float64)) @ OPENGL_TO_OPENCV
    return {
        "cx": float(k[0, 2]),
        "cy": float(height - k[1, 2]),
        "fl_x": float(k[0, 0]),
        "fl_y": float(k[1, 1]),
        "h": height,
        "w": width,
        "camera_angle_x": float(2 * np.arctan(width / (2 * k[0, 0]))),
        "camera_angle_y": float(2 * np.arctan(height / (2 * k[1, 1]))),
        "transform_matrix": to_world.tolist(),
    }


def _write_tables(folder: Path, dataset: Dataset, frames: list[dict[str, Any]]) -> None:
    shared = {name: value for name, value in _camera(dataset.cameras[0]).items() if name != "transform_matrix"}

    def write(name: str, members: list[dict[str, Any]]) -> None:
        indices = {
            f"{kind}_indices": sorted({frame[f"{kind}_index"] for frame in members}) for kind in ("timestep", "camera")
        }
        text = json.dumps({"frames": members, **shared, **indices}, indent=1)
        (folder / name).write_text(text, encoding="ascii")

    write(WHOLE, frames)
    for split, part in _PARTS.items():
        members = [frame for frame, own in zip(frames, dataset.splits, strict=True) if own == split]
        write(f"transforms_{part}.json", members)


def _notes(dataset: Dataset) -> list[str]:
    notes = []
    if np.any(dataset.params.eyelids):
        notes.append("the format has no eyelids: flame_param holds them as eyelids, which only being_rt reads")
    for number, camera in enumerate(dataset.cameras):
        off = camera.intrinsics[:2, 2] - np.array(camera.size) / 2
        if np.abs(off).max() > 1:
            shift = f"{off[0]:+.1f}, {off[1]:+.1f}"
            notes.append(f"camera {number} looks {shift} pixels beside the middle, which GaussianAvatars does not read")
    other = sorted(set(dataset.splits) - set(_PARTS))
    if other:
        notes.append(f"frames of {', '.join(other)} are in {WHOLE} alone")
    if not all(dataset.has_mask(index) for index in range(dataset.count)):
        notes.append("frames without a mask keep their background")
    return notes
