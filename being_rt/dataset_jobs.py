"""Data sets as whole jobs: what ``being data check``, ``convert`` and ``export`` do, callable from Python.

from being_rt.dataset_jobs import Check, Convert, Export

result = Convert("output/duda", out="duda", flame="flame2023_Open.pkl").run()
for finding in Check(result.path, overlays="look").run().findings:
    print(finding)
Export(result.path, out="duda-vhap", flame="flame2023_Open.pkl").run()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.check import CheckReport, check_dataset
from being_rt.dataset.convert import convert
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.export import Exported, export_vhap
from being_rt.dataset.readers import ReadOptions
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.files import read_npy
from being_rt.flame.model import SHAPE_COUNT, FlameModel
from being_rt.jobs import FilePath

Progress = Callable[[int, int], None]  # frames written, frames in all


@dataclass(frozen=True)
class Converted:
    """What :class:`Convert` wrote."""

    path: Path
    frames: int
    size: tuple[int, int]  # width, height of the first camera
    notes: tuple[str, ...]  # what was assumed or left out
    report: CheckReport
    elapsed: float  # seconds of wall clock


@dataclass(frozen=True)
class Check:
    """Is a data set fit to train on? Files, tracks, cameras, and whether the head lies where the masks are."""

    dataset: FilePath
    """The data set's folder."""
    overlays: FilePath = ""
    """A folder for pictures of the tracked mesh over some frames; one look at them tells most."""
    output: FilePath = "."
    """Where training will write; its disk must have room."""
    samples: int = 16
    """Frames whose pictures are read and compared."""

    def run(self) -> CheckReport:
        """Do the job. Raises ``InvalidParameterError``, and ``DatasetError`` where overlays cannot be written."""
        if self.samples < 1:
            raise InvalidParameterError(f"samples must be 1 or more, got {self.samples}")
        return check_dataset(
            self.dataset, overlays=self.overlays or None, output=self.output or None, samples=self.samples
        )


@dataclass(frozen=True, kw_only=True)
class Convert:
    """What metrical-tracker, INSTA, VHAP (GaussianAvatars), IMavatar, flame-head-tracker or GAGAvatar_track wrote in, a
    data set out."""

    source: FilePath = field(kw_only=False)
    """The folder that the tracker wrote; its format is seen by its files."""
    out: FilePath
    """The data set to write: a folder that does not exist yet."""
    flame: FilePath
    """The FLAME model that was tracked with (.pkl, .npz): expressions of another edition mean something else."""
    format: str = "auto"
    """auto, metrical, insta, vhap, imavatar, flame-head-tracker or gagavatar."""
    shape: FilePath = ""
    """The person's identity (.npy, as MICA's identity.npy), where the format has none."""
    images: FilePath = ""
    """A folder of frames to take in place of the tracked ones: the original video's, say."""
    masks: FilePath = ""
    """A folder of masks, numbered as the frames are."""
    crop: str = ""
    """How --images became the tracked frames: resized, padded, centred, x_min,x_max,y_min,y_max or a bbox.pt."""
    tracks: FilePath = ""
    """A folder of metrical-tracker's .frame files, where the source has the expression alone (INSTA)."""
    frame_offset: int | None = None
    """Number of a frame's picture minus the number of its track; none: 0, or 1 where pictures count from 1."""
    test_frames: int | None = None
    """Frames at the end that are held out; none: as the format says, or the last 350, or a fifth of a shorter clip."""
    fps: float = 25.0
    """Frames per second of the recording."""
    eyelids: tuple[FilePath, FilePath] | None = None
    """l_eyelid.npy and r_eyelid.npy of metrical-tracker: what closing the lids adds to FLAME, which has no lids."""
    uv: FilePath = ""
    """FLAME's texture coordinates (.npz with vt and ft)."""
    landmarks: FilePath = ""
    """mediapipe_landmark_embedding.npz: 105 points of the face, for overlays and for finding the mouth."""
    name: str = ""
    """The person's; the folder's, if not given."""
    licence: str = ""
    """Under which terms the recording may be used."""
    consent: str = ""
    """Who agreed to what."""
    replace: bool = False
    """Replace a data set of that name."""

    def run(self, progress: Progress | None = None) -> Converted:
        """Do the job; then look the result over. ``progress`` is called as ``progress(frames written, frames in all)``.

        Raises ``DatasetError``, ``ModelFileError``, ``InvalidParameterError``.
        """
        start = time.perf_counter()
        model = open_flame_model(self.flame, self.uv, self.landmarks, self.eyelids)
        options = ReadOptions(
            shape=read_identity(self.shape) if self.shape else None,
            images=_folder(self.images),
            masks=_folder(self.masks),
            tracks=_folder(self.tracks),
            crop=self.crop,
            frame_offset=self.frame_offset,
            test_frames=self.test_frames,
            fps=self.fps,
        )
        dataset, notes = convert(
            self.source,
            self.out,
            model,
            options,
            format=self.format,
            name=self.name,
            licence=self.licence,
            consent=self.consent,
            replace=self.replace,
            progress=progress,
        )
        report = check_dataset(dataset.path)
        return Converted(dataset.path, dataset.count, dataset.size, notes, report, time.perf_counter() - start)


@dataclass(frozen=True, kw_only=True)
class Export:
    """A data set in, what VHAP would have exported out: for GaussianAvatars and the trainers after it."""

    dataset: FilePath = field(kw_only=False)
    """The data set's folder."""
    out: FilePath
    """The folder to write; it must not exist yet."""
    flame: FilePath
    """The FLAME model that the data set was tracked with (.pkl, .npz): identities are written as its coefficients."""
    format: str = "vhap"
    """vhap, the one there is."""
    background: str = "white"
    """What the person is put before, where there are masks: white, as VHAP does it, black, or keep."""
    replace: bool = False
    """Replace an export of that name."""

    def run(self, progress: Progress | None = None) -> Exported:
        """Do the job. ``progress`` is called as ``progress(frames written, frames in all)``.

        Raises ``DatasetError``, ``ModelFileError``, ``InvalidParameterError``.
        """
        if self.format != "vhap":
            raise InvalidParameterError(f"format must be vhap, got {self.format!r}")
        return export_vhap(
            Dataset.load(self.dataset),
            self.out,
            open_flame_model(self.flame),
            background=self.background,
            replace=self.replace,
            progress=progress,
        )


def open_flame_model(
    path: FilePath, uv: FilePath = "", landmarks: FilePath = "", eyelids: tuple[FilePath, FilePath] | None = None
) -> FlameModel:
    """A FLAME model file with what belongs to it, or the generated head, whose name is "procedural".

    Raises ``ModelFileError``, and ``MissingDependencyError`` where the head must be generated and SciPy is absent.
    """
    if str(path) == "procedural":
        from being_rt.flame.procedural import procedural_head

        return procedural_head()
    from being_rt.flame.loader import load_flame_model

    named = {"mediapipe105": landmarks} if landmarks else None
    return load_flame_model(path, uv=uv or None, landmarks=named, eyelids=eyelids)


def read_identity(path: FilePath) -> NDArray[np.float64]:
    """Identity coefficients [S <= 300] of an ``.npy`` file, [S] or [1, S]. Raises ``DatasetError``."""
    values = read_npy(path, DatasetError)
    if values.dtype.kind not in "iuf" or values.ndim > 2 or not 0 < values.size <= SHAPE_COUNT:
        raise DatasetError(
            f"{path} is no identity: it has {values.dtype} {list(values.shape)} instead of up to 300 numbers"
        )
    return values.reshape(-1).astype(np.float64)


def _folder(path: FilePath) -> Path | None:
    return Path(path) if path else None
