"""Reading a data set: everything cheap is checked when it is opened, pictures are read when they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.crop import Crop
from being_rt.dataset.manifest import (
    MANIFEST,
    MANIFEST_LIMIT,
    RIG,
    TRACKS,
    TRUTH,
    Manifest,
    decode_manifest,
)
from being_rt.dataset.pictures import read_mask, read_rgb
from being_rt.errors import DatasetError, FileFormatError, InvalidParameterError, UnsupportedVersionError
from being_rt.files import read_error_reason, reading
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rig_file import load_rig

Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

SPLITS = ("train", "test", "views")  # may be asked for in every data set; others where there are frames of that name


@dataclass(frozen=True, eq=False)
class Dataset:
    """Frames of one person, the FLAME parameters of every timestep, and the static cameras that took them.

    Example::

        dataset = Dataset.load("ada")
        for i in dataset.split("train"):
            picture, alpha = dataset.image(i), dataset.mask(i)
            motion = dataset.params[int(dataset.timestep[i])]
    """

    path: Path
    name: str
    fps: float
    rig: Rig  # the person's, identity baked in
    params: FlameParams  # one row per timestep
    cameras: tuple[Camera, ...]
    crops: tuple[tuple[Crop, ...], ...]  # per camera, oldest first: how the original video became these frames
    timestep: Int32  # [count] row of params that a frame shows
    camera_index: Int32  # [count]
    image_files: tuple[str, ...]  # [count] relative to path
    mask_files: tuple[str | None, ...]  # [count]
    background_files: tuple[str | None, ...]  # per camera
    splits: tuple[str, ...]  # [count] name of the split of each frame
    truth: FlameParams | None = None  # of synthetic data: what really happened, one row per timestep
    source: str = ""
    licence: str = ""
    consent: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Dataset:
        """Open a data set folder and check everything but the content of its pictures.

        Raises:
            DatasetError: a file is missing, damaged, or does not fit the others; the message names the file.
            UnsupportedVersionError: written by a newer being_rt.

        Example::

            Dataset.load("ada").count
        """
        dataset = open_dataset(Path(path))
        missing = missing_files(dataset)
        if missing:
            more = f" (and {len(missing) - 1} more files)" if len(missing) > 1 else ""
            raise DatasetError(f"{dataset.path / missing[0]} does not exist{more}; `being data check` lists all")
        return dataset

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.image_files)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first camera's frames."""
        return self.cameras[0].size

    def image(self, index: int) -> UInt8:
        """Frame ``index``: uint8 [H, W, 3] sRGB. Raises ``DatasetError``: the file is damaged or of a wrong size."""
        return read_rgb(self.path / self.image_files[index], self._size(index))

    def has_mask(self, index: int) -> bool:
        """Whether frame ``index`` has a mask."""
        return self.mask_files[index] is not None

    def mask(self, index: int) -> UInt8:
        """Alpha of frame ``index``: uint8 [H, W], 0 background, 255 person; 255 everywhere where there is none.

        Raises:
            DatasetError: as :meth:`image`.
        """
        name, size = self.mask_files[index], self._size(index)
        if name is None:
            return np.full((size[1], size[0]), 255, np.uint8)
        return read_mask(self.path / name, size)

    @cached_property
    def backgrounds(self) -> tuple[UInt8 | None, ...]:
        """The picture of the empty scene of every camera, uint8 [H, W, 3], or None. Raises ``DatasetError``."""
        return tuple(
            None if name is None else read_rgb(self.path / name, camera.size)
            for name, camera in zip(self.background_files, self.cameras, strict=True)
        )

    def split(self, name: str) -> Int32:
        """Frames of a split, in order: int32 [n]. Empty where "train", "test" or "views" has none.

        Raises:
            InvalidParameterError: a name that no frame has.
        """
        if name not in (*SPLITS, *self.split_names):
            raise InvalidParameterError(f"there is no split {name!r}; the data set has {', '.join(self.split_names)}")
        return np.flatnonzero(np.array(self.splits) == name).astype(np.int32)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of the splits, in the order of their first frames."""
        return tuple(dict.fromkeys(self.splits))

    def _size(self, index: int) -> tuple[int, int]:
        return self.cameras[self.camera_index[index]].size


def open_dataset(path: Path) -> Dataset:
    """As :meth:`Dataset.load`, but pictures may be missing: for those who report on all of them."""
    manifest = read_manifest(path)
    _check_sums(path, manifest)
    rig = load_rig(path / RIG, DatasetError)
    if rig.edition != manifest.edition:
        raise DatasetError(f"{path / RIG} is of {rig.edition}, {MANIFEST} says {manifest.edition}")
    params = _read_tracks(path / TRACKS)
    truth = _read_tracks(path / TRUTH) if (path / TRUTH).exists() else None
    for name, track in ((TRACKS, params), (TRUTH, truth)):
        if track is None:
            continue
        last = max(frame.timestep for frame in manifest.frames)
        if last >= len(track):
            raise DatasetError(f"{path / name} has {len(track)} timesteps, a frame shows timestep {last}")
        if len(track) != len(params):
            raise DatasetError(f"{path / name} has {len(track)} timesteps, {TRACKS} has {len(params)}")
        if track.fps != manifest.fps:
            raise DatasetError(f"{path / name} is at {track.fps} fps, {MANIFEST} says {manifest.fps}")
    frames, views = manifest.frames, manifest.views
    return Dataset(
        path=path,
        rig=rig,
        params=params,
        cameras=tuple(view.camera for view in views),
        crops=tuple(view.crops for view in views),
        timestep=np.array([frame.timestep for frame in frames], np.int32),
        camera_index=np.array([frame.camera for frame in frames], np.int32),
        image_files=tuple(frame.image for frame in frames),
        mask_files=tuple(frame.mask for frame in frames),
        background_files=tuple(view.background for view in views),
        splits=tuple(frame.split for frame in frames),
        truth=truth,
        **{name: getattr(manifest, name) for name in ("name", "fps", "source", "licence", "consent", "metadata")},
    )


def read_manifest(path: Path) -> Manifest:
    """The manifest of a data set folder. Raises ``DatasetError``, ``UnsupportedVersionError``."""
    file = path / MANIFEST
    if path.is_dir() and not file.exists():
        raise DatasetError(f"{path} is not a data set: it has no {MANIFEST}; `being data convert` makes one")
    with reading(file, "the description of a data set", DatasetError):
        if file.stat().st_size > MANIFEST_LIMIT:
            raise ValueError(f"it is longer than {MANIFEST_LIMIT >> 20} MB")
        return decode_manifest(file.read_bytes(), str(file))


def missing_files(dataset: Dataset) -> list[str]:
    """Pictures that the data set names and its folder lacks, relative to it, in the order of the frames."""
    present = set()
    for folder in ("images", "masks", ""):
        try:
            with os.scandir(dataset.path / folder) as entries:
                present |= {f"{folder}/{entry.name}".lstrip("/") for entry in entries}
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise DatasetError(f"cannot read {dataset.path / folder}: {read_error_reason(problem)}") from problem
    named = [*dataset.image_files, *dataset.mask_files, *dataset.background_files]
    return [name for name in named if name is not None and name not in present]


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_sums(path: Path, manifest: Manifest) -> None:
    for name, expected in manifest.checksums.items():
        if name not in (RIG, TRACKS, TRUTH):
            raise DatasetError(f"{path / MANIFEST} has a checksum of {name[:60]!r}, which is not a part of a data set")
        with reading(path / name, "a part of a data set", DatasetError):
            if checksum(path / name) != expected:
                raise DatasetError(
                    f"{path / name} is damaged or was changed: it does not have the checksum that {MANIFEST} says"
                )


def _read_tracks(path: Path) -> FlameParams:
    try:
        return FlameParams.load(path)
    except UnsupportedVersionError:
        raise
    except FileFormatError as problem:
        raise DatasetError(str(problem)) from problem
