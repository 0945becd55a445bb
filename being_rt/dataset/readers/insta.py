"""INSTA's data sets: ``transforms.json`` with OpenCV cameras that move, RGBA pictures, the expression as text.

Zielonka et al., "Instant volumetric head avatars", CVPR 2023. They are made from metrical-tracker's output, of which
they keep the expression only; the rest of the track comes from the tracker's ``.frame`` files where those are at hand,
or from ``flame/NAME/ID.txt`` where the exporter was told to write them. The jaw is at rest in the tracker's default.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.pictures import picture_size
from being_rt.dataset.readers.cameras import camera_of, common_intrinsics, hold_camera
from being_rt.dataset.readers.crops import fit_camera
from being_rt.dataset.readers.metrical import axis_angles_of_rows, eyelid_note, frame_folder, read_frame
from being_rt.dataset.readers.recording import (
    ReadOptions,
    Recording,
    checked_params,
    edition_note,
    neutral,
    padded_expression,
    shots_of,
    splits,
)
from being_rt.dataset.readers.source_files import matched, numbered_files, picture, read_numbers
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
from being_rt.flame.model import SHAPE_COUNT, FlameModel
from being_rt.flame.skinning import bake_rig

Float64 = NDArray[np.float64]

_PARTS = {"jaw": 6, "eyes": 12, "eyelids": 2}


def is_insta(folder: Path) -> bool:
    """Whether a folder has INSTA's ``transforms.json``: its frames name expressions."""
    if not any((folder / name).is_file() for name in (WHOLE, "transforms_train.json")):
        return False
    return "exp_path" in read_transforms(folder)[1][0]


def read_insta(folder: Path, model: FlameModel, options: ReadOptions) -> Recording:
    """Read a data set of INSTA.

    Raises:
        DatasetError: a file is missing, damaged or contradicts another; or the identity is not given.
    """
    table, frames, path = read_transforms(folder)
    names = [frame_name(frame, index, path) for index, frame in enumerate(frames)]
    sizes = {size_of(frame, table, name) for frame, name in zip(frames, names, strict=True)}
    if len(sizes) > 1:
        raise DatasetError(f"{path} has frames of different sizes: {sorted(sizes)}")
    expressions = [frame_file(frame, "exp_path", folder, name) for frame, name in zip(frames, names, strict=True)]
    fields = neutral(len(frames))
    fields["expression"] = padded_expression(_rows(expressions))
    shape, notes = _fill(fields, folder, expressions, options)
    rig = bake_rig(model, shape)
    poses = np.stack([world_to_camera(frame, name) for frame, name in zip(frames, names, strict=True)])
    still, fields = hold_camera(poses, rig, fields)
    intrinsics = common_intrinsics(
        np.stack([intrinsics_of(frame, table, name) for frame, name in zip(frames, names, strict=True)]), names
    )
    images, masks = _pictures(frames, names, folder, options)
    tracked = camera_of(still, intrinsics, next(iter(sizes)))
    camera, metadata = fit_camera(tracked, picture_size(images[0]), options.crop, images[0].parent)
    return Recording(
        format="INSTA",
        rig=rig,
        params=checked_params(fields, options.fps, names),
        cameras=(camera,),
        shots=shots_of(images, masks, _splits(folder, frames, names, options)),
        notes=(*edition_note(model, "flame-2020"), *eyelid_note(model, fields["eyelids"]), *notes),
        metadata=metadata,
    )


def _fill(
    fields: dict[str, Float64], folder: Path, expressions: list[Path], options: ReadOptions
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Fill in jaw, eyes and eyelids from wherever they are; return the identity, and notes."""
    numbers = [_number(path) for path in expressions]
    checkpoints = options.tracks or frame_folder(folder)
    if checkpoints is not None:
        files = matched(numbers, numbered_files(checkpoints, (".frame",)), 0, checkpoints)[0]
        tracks = [read_frame(file) for file in files]
        for name in _PARTS:
            fields[name] = np.stack([getattr(track, name) for track in tracks])
        return (tracks[-1].shape if options.shape is None else np.asarray(options.shape)), ()
    absent = []
    for name, count in _PARTS.items():
        files = [path.parent.parent / name / path.name for path in expressions]
        if not files[0].exists():
            absent.append(name)
            continue
        rows = _rows(files, count)
        fields[name] = rows if name == "eyelids" else np.stack([axis_angles_of_rows(row) for row in rows])
    notes: tuple[str, ...] = ()
    if absent:
        notes = (f"no {', '.join(absent)} in this data set: at rest; the tracker's .frame files (tracks) have them",)
    if options.shape is not None:
        return np.asarray(options.shape), notes
    shape = expressions[0].parent.parent / "shape" / expressions[0].name
    if not shape.exists():
        raise DatasetError(
            f"{folder} does not say who it is: give the shape (MICA's identity.npy) or the tracker's .frame files"
        )
    return _rows([shape])[0], notes


def _rows(files: list[Path], count: int | None = None) -> Float64:
    rows = [read_numbers(file) for file in files]
    width = rows[0].size if count is None else count
    for file, row in zip(files, rows, strict=True):
        if row.size != width or not 0 < width <= SHAPE_COUNT:
            raise DatasetError(f"{file} has {row.size} numbers instead of {width}")
    return np.stack(rows)


def _number(path: Path) -> int:
    found = re.search(r"([0-9]{1,9})$", path.stem)
    if found is None:
        raise DatasetError(f"{path} does not end in the number of a frame")
    return int(found[1])


def _pictures(
    frames: list[Table], names: list[str], folder: Path, options: ReadOptions
) -> tuple[list[Path], list[Path | None]]:
    own = [frame_file(frame, "file_path", folder, name) for frame, name in zip(frames, names, strict=True)]
    numbers = [_number(path) for path in own]
    if options.images is None:
        images, ahead = [picture(path) for path in own], 0
    else:
        files = numbered_files(options.images)
        images, ahead = matched(numbers, files, options.frame_offset, options.images)
    masks: list[Path | None] = [None] * len(own)
    if options.masks is not None:
        masks = [*matched([n + ahead for n in numbers], numbered_files(options.masks), 0, options.masks)[0]]
    elif options.images is not None and options.images != own[0].parent and picture_size(images[0]) == _size(own[0]):
        masks = [picture(path) for path in own]  # the alpha of the data set's own pictures
    return images, masks


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return picture_size(picture(path))
    except DatasetError:
        return None


def _splits(folder: Path, frames: list[Table], names: list[str], options: ReadOptions) -> list[str]:
    """``transforms_test.json`` where it is there; ``_val`` is the end of it."""
    test = split_frames(folder, "test")
    if options.test_frames is not None or not test:
        return splits(len(frames), options.test_frames)
    return ["test" if frame.get("file_path") in test else "train" for frame in frames]
