"""metrical-tracker: one ``.frame`` per frame, a camera that moves about a head that does not.

Zielonka et al., "Towards metrical reconstruction of human faces", ECCV 2022. Of each frame: expression 100, shape 300,
jaw and eyes as two rows of a rotation matrix (eyes: left, right, FLAME's order), eyelids (left, right), and the camera
twice: in PyTorch3D's convention, and as OpenCV's R, t, K. FLAME's global joint and neck stay at rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.pictures import picture_size
from being_rt.dataset.readers.cameras import (
    PYTORCH3D_TO_OPENCV,
    camera_of,
    common_intrinsics,
    from_ndc,
    hold_camera,
    pinhole,
    rigid,
)
from being_rt.dataset.readers.crops import fit_camera
from being_rt.dataset.readers.recording import (
    ReadOptions,
    Recording,
    checked_params,
    common_shape,
    edition_note,
    neutral,
    padded_expression,
    shots_of,
    splits,
)
from being_rt.dataset.readers.source_files import array, matched, numbered_files, read_torch
from being_rt.errors import DatasetError
from being_rt.flame.model import FlameModel
from being_rt.flame.rotations import matrices_of_rows, matrix_axis_angles
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]

_IMAGE_FOLDERS = ("input", "images", "imgs")
_MASK_FOLDERS = ("masks", "alpha", "matting")


class TrackedFrame(NamedTuple):
    """One ``.frame`` in our conventions, but for the moving camera."""

    expression: Float64  # [n <= 100]
    shape: Float64  # [S <= 300]
    jaw: Float64  # [3] axis-angle
    eyes: Float64  # [6]
    eyelids: Float64  # [2]
    pose: Float64  # [4, 4] world to camera, OpenCV
    intrinsics: Float64  # [3, 3]
    size: tuple[int, int]  # width, height of the tracked picture


def is_metrical(folder: Path) -> bool:
    """Whether a folder is the tracker's output, or the folder ``checkpoint`` of one."""
    return frame_folder(folder) is not None


def frame_folder(folder: Path) -> Path | None:
    """Where the ``.frame`` files of a folder are, if it has any."""
    for candidate in (folder / "checkpoint", folder):
        if candidate.is_dir() and next(candidate.glob("*.frame"), None) is not None:
            return candidate
    return None


def read_metrical(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read the output folder of metrical-tracker: ``checkpoint/00000.frame`` ... and ``input/00000.png`` ...

    Raises:
        DatasetError: a file is missing, damaged or contradicts another.
    """
    checkpoints = frame_folder(folder)
    if checkpoints is None:
        raise DatasetError(f"{folder} has no .frame files, nor has its folder checkpoint")
    files = numbered_files(checkpoints, (".frame",))
    numbers = sorted(files)
    tracks = [read_frame(files[number]) for number in numbers]
    names = [str(files[number]) for number in numbers]
    sizes = {track.size for track in tracks}
    if len(sizes) > 1:
        raise DatasetError(f"{checkpoints} has frames of different sizes: {sorted(sizes)}")
    shape, shape_notes = common_shape([track.shape for track in tracks], options)
    rig = bake_rig(model, shape)
    fields = neutral(len(tracks))
    fields["expression"] = padded_expression(np.stack([track.expression for track in tracks]))
    for name in ("jaw", "eyes", "eyelids"):
        fields[name] = np.stack([getattr(track, name) for track in tracks])
    still, fields = hold_camera(np.stack([track.pose for track in tracks]), rig, fields)
    intrinsics = common_intrinsics(np.stack([track.intrinsics for track in tracks]), names)
    images, masks, notes = find_pictures(checkpoints, numbers, options)
    camera, metadata = fit_camera(
        camera_of(still, intrinsics, tracks[0].size), picture_size(images[0]), options.crop, images[0].parent
    )
    return Recording(
        format="metrical-tracker",
        rig=rig,
        params=checked_params(fields, options.fps, names),
        cameras=(camera,),
        shots=shots_of(images, masks, splits(len(tracks), options.test_frames)),
        notes=(*edition_note(model, "flame-2020"), *eyelid_note(model, fields["eyelids"]), *shape_notes, *notes),
        metadata=metadata,
    )


def read_frame(path: Path) -> TrackedFrame:
    """Read one ``.frame``. Raises ``DatasetError``."""
    content = read_torch(path)
    flame = _table(content, "flame", path)
    size = array(content.get("img_size"), f"{path}: img_size", (2,))
    if not (np.isfinite(size).all() and size.min() >= 1 and size.max() <= 1e5):
        raise DatasetError(f"{path} has an impossible img_size")
    width, height = int(size[1]), int(size[0])
    pose, intrinsics = _camera(content, (width, height), path)

    def row(name: str, count: int | None) -> Float64:
        return array(flame.get(name), f"{path}: {name}", (1, count))[0]

    return TrackedFrame(
        expression=row("exp", None),
        shape=row("shape", None),
        jaw=axis_angles_of_rows(row("jaw", 6)),
        eyes=axis_angles_of_rows(row("eyes", 12)),
        eyelids=row("eyelids", 2) if "eyelids" in flame else np.zeros(2),
        pose=pose,
        intrinsics=intrinsics,
        size=(width, height),
    )


def find_pictures(
    checkpoints: Path, numbers: list[int], options: ReadOptions
) -> tuple[list[Path], list[Path | None], tuple[str, ...]]:
    """Picture and mask of every frame, and notes. Raises ``DatasetError``."""
    beside = checkpoints.parent if checkpoints.name == "checkpoint" else checkpoints
    folder = options.images or next((beside / name for name in _IMAGE_FOLDERS if (beside / name).is_dir()), None)
    if folder is None:
        raise DatasetError(f"{beside} has no folder {' or '.join(_IMAGE_FOLDERS)}: say where the images are")
    images, ahead = matched(numbers, numbered_files(folder), options.frame_offset, folder)
    notes = (f"{folder}: picture {numbers[0] + ahead} belongs to frame {numbers[0]}",) if ahead else ()
    folders = [options.masks] if options.masks else [beside / name for name in _MASK_FOLDERS]
    masks: list[Path | None] = [None] * len(images)
    for place in folders:
        if options.masks or place.is_dir():
            # Masks are numbered as the pictures are, however the tracks are numbered.
            masks = [*matched([number + ahead for number in numbers], numbered_files(place), 0, place)[0]]
            break
    return images, masks, notes


def eyelid_note(model: FlameModel, eyelids: Float64) -> tuple[str, ...]:
    """A note where eyelids move that the model does not have."""
    if not np.any(eyelids) or np.any(model.eyelid_basis):
        return ()
    return ("the tracks close the eyelids, which FLAME cannot; give the tracker's l_eyelid.npy and r_eyelid.npy",)


def axis_angles_of_rows(rows: Float64) -> Float64:
    with np.errstate(all="ignore"):  # rows of zeros become NaN, which the check of the tracks reports
        rotations = matrices_of_rows(rows.reshape(-1, 6))
    finite = np.isfinite(rotations)
    turned = matrix_axis_angles(np.where(finite, rotations, 0))
    return np.where(finite.all(axis=2), turned, np.nan).reshape(-1)


def _camera(content: dict[str, Any], size: tuple[int, int], path: Path) -> tuple[Float64, Float64]:
    if "opencv" in content:
        camera = _table(content, "opencv", path)
        k = array(camera.get("K"), f"{path}: K", (1, 3, 3))[0]
        intrinsics = pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2], str(path))
        rotation = array(camera.get("R"), f"{path}: R", (1, 3, 3))[0]
        translation = array(camera.get("t"), f"{path}: t", (1, 3))[0]
        return rigid(np.column_stack([rotation, translation]), str(path)), intrinsics
    camera = _table(content, "camera", path)
    given = camera.get("R")
    try:
        # PyTorch3D multiplies rows: what it calls R is the transpose of ours.
        rotation = matrices_of_rows(array(given, f"{path}: R", (1, 6)))[0].T
    except DatasetError:
        rotation = array(given, f"{path}: R", (1, 3, 3))[0].T
    translation = array(camera.get("t"), f"{path}: t", (1, 3))[0]
    pose = PYTORCH3D_TO_OPENCV @ rigid(np.column_stack([rotation, translation]), str(path))
    focal = array(camera.get("fl"), f"{path}: fl", (1, None))[0]
    principal = array(camera.get("pp"), f"{path}: pp", (1, 2))[0]
    if focal.size not in (1, 2):
        raise DatasetError(f"{path} has {focal.size} focal lengths")
    return pose, from_ndc(focal, principal, size, str(path))


def _table(content: Any, name: str, path: Path) -> dict[str, Any]:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, dict):
        raise DatasetError(f"{path} is not a frame of metrical-tracker: it has no {name!r}")
    return value
