"""Readers of what other trackers wrote. Each gives a :class:`Recording`; which one fits is seen by the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from being_rt.dataset.manifest import MANIFEST
from being_rt.dataset.readers.flame_head_tracker import is_flame_head_tracker, read_flame_head_tracker
from being_rt.dataset.readers.gagavatar import is_gagavatar, read_gagavatar
from being_rt.dataset.readers.imavatar import is_imavatar, read_imavatar
from being_rt.dataset.readers.insta import is_insta, read_insta
from being_rt.dataset.readers.metrical import is_metrical, read_metrical
from being_rt.dataset.readers.recording import ReadOptions, Recording, Shot, Stored
from being_rt.dataset.readers.vhap import is_vhap, read_vhap
from being_rt.errors import DatasetError
from being_rt.flame.model import FlameModel

__all__ = ["READERS", "ReadOptions", "Reader", "Recording", "Shot", "Stored", "detect_format", "read_recording"]


@dataclass(frozen=True)
class Reader:
    """A format: how it is recognised, how it is read, and what it needs, for messages."""

    name: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, FlameModel, ReadOptions], Recording]
    files: str


# In this order: an INSTA folder may keep the tracker's checkpoints in it.
READERS = (
    Reader("vhap", is_vhap, read_vhap, "transforms.json whose frames have flame_param_path"),
    Reader("insta", is_insta, read_insta, "transforms.json whose frames have exp_path"),
    Reader("imavatar", is_imavatar, read_imavatar, "flame_params.json"),
    Reader("metrical", is_metrical, read_metrical, "checkpoint/00000.frame"),
    Reader("flame-head-tracker", is_flame_head_tracker, read_flame_head_tracker, "0.npz with cam and exp"),
    Reader("gagavatar", is_gagavatar, read_gagavatar, "smoothed.pkl or optim.pkl"),
)


def detect_format(folder: Path) -> Reader:
    """The reader that fits a folder, by its files.

    Raises:
        DatasetError: none does; the message says what each needs.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder that exists")
    if (folder / MANIFEST).exists():
        raise DatasetError(f"{folder} is a data set of being_rt already")
    for reader in READERS:
        if reader.fits(folder):
            return reader
    known = "; ".join(f"{reader.name}: {reader.files}" for reader in READERS)
    raise DatasetError(f"{folder} is of no known format ({known})")


def read_recording(folder: Path, model: FlameModel, options: ReadOptions, format: str = "auto") -> Recording:
    """Read what a tracker wrote, by a reader's name or the one that fits.

    Raises:
        DatasetError: no reader fits, or the files are not what they should be.

    Example::

        recording = read_recording(Path("output/duda"), load_flame_model("generic_model.pkl"), ReadOptions())
    """
    if format == "auto":
        return detect_format(folder).read(folder, model, options)
    for reader in READERS:
        if reader.name == format:
            return reader.read(folder, model, options)
    raise DatasetError(f"format must be auto or one of {', '.join(r.name for r in READERS)}, got {format!r}")
