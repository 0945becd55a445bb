"""From what a tracker wrote to a data set: the tracks are converted, the pictures copied, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from being_rt.dataset.dataset import Dataset
from being_rt.dataset.pictures import read_mask, read_picture
from being_rt.dataset.readers import ReadOptions, Recording, Shot, Stored, read_recording
from being_rt.dataset.writer import DatasetWriter, UInt8, check_folder_target
from being_rt.flame.model import FlameModel

Progress = Callable[[int, int], None]  # frames written, frames in all


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: FlameModel,
    options: ReadOptions | None = None,
    *,
    format: str = "auto",
    name: str = "",
    licence: str = "",
    consent: str = "",
    metadata: Mapping[str, str] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> tuple[Dataset, tuple[str, ...]]:
    """Make a data set of a folder of another tracker: see ``READERS`` in being_rt/dataset/readers.

    Args:
        source: the folder; its format is recognised by its files.
        out: the data set to make.
        model: the FLAME model that the tracks are of: expression coefficients of another edition mean something else.
        options: pictures in other places, crops, the identity where the format lacks it.
        name: of the person; the folder's, if not given.
        replace: whether a data set of that name is replaced.
        progress: called after every frame.

    Returns:
        The data set, and notes on what was assumed or left out.

    Raises:
        DatasetError: a file is missing, damaged or contradicts another; nothing is left behind.

    Example::

        dataset, notes = convert("output/duda", "duda", load_flame_model("generic_model.pkl"))
    """
    source, out = Path(source), Path(out)
    check_folder_target(out, replace)
    recording = read_recording(source, model, options or ReadOptions(), format)
    label = name or source.resolve().name
    with DatasetWriter(
        out,
        rig=recording.rig,
        cameras=recording.cameras,
        fps=recording.params.fps,
        name=label,
        source=f"{recording.format}: {source.name}",
        licence=licence,
        consent=consent,
        metadata={**recording.metadata, **(metadata or {})},
        replace=replace,
    ) as writer:
        write_recording(recording, writer, progress)
    return Dataset.load(out), recording.notes


def write_recording(recording: Recording, writer: DatasetWriter, progress: Progress | None = None) -> None:
    """Add every shot of a recording to a data set, in the order of time."""
    order = sorted(recording.shots, key=lambda shot: (shot.timestep, shot.camera))
    written: dict[int, int] = {}  # timestep of the recording -> of the data set, which has those with pictures only
    for count, shot in enumerate(order, 1):
        row = recording.params[shot.timestep]
        mask = shot_mask(shot, recording.cameras[shot.camera].size)
        step = written.setdefault(shot.timestep, len(written))
        image = shot.image.read() if isinstance(shot.image, Stored) else shot.image
        writer.add(image, mask, row, shot.camera, shot.split, step)
        if progress is not None:
            progress(count, len(order))


def shot_mask(shot: Shot, size: tuple[int, int]) -> UInt8 | None:
    """The mask of a shot: its file, or the alpha channel of its file or picture, or None."""
    if isinstance(shot.mask, Stored):
        return shot.mask.read()
    source = shot.image if shot.mask is None else shot.mask
    if isinstance(source, Stored):
        return None
    picture = read_picture(source, size)
    if picture.ndim == 3 and picture.shape[2] == 4:
        return np.ascontiguousarray(picture[:, :, 3])
    return None if shot.mask is None else read_mask(shot.mask, size)
