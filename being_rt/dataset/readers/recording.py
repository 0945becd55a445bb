"""What every reader makes of its format: tracks of one person in our conventions, and where the pictures are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.errors import DatasetError
from being_rt.flame.model import EXPRESSION_COUNT, FlameModel
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class ReadOptions:
    """What a format does not say about itself, or says of other pictures than those at hand."""

    shape: NDArray[Any] | None = None  # [S <= 300] identity; None: the format's own
    images: Path | None = None  # a folder of frames, numbered; None: the format's own
    masks: Path | None = None  # a folder of masks, numbered as the images are; None: the format's own
    tracks: Path | None = None  # a folder of the tracker's .frame files, where the format has only a part of the track
    crop: str = ""  # how ``images`` became the pictures that were tracked, see crops.py
    frame_offset: int | None = None  # number of a frame's picture minus the number of its track; None: 0, or 1 if seen
    test_frames: int | None = None  # frames of the test split, at the end; None: as the format says, or the last 350
    fps: float = 25.0


@dataclass(frozen=True)
class Stored:
    """A picture that lies among other things in a file."""

    path: Path
    read: Callable[[], UInt8]  # uint8 [H, W, 3], of a mask [H, W]; raises ``DatasetError``


@dataclass(frozen=True)
class Shot:
    """One picture: what it shows (a row of the tracks), which camera took it, its files."""

    image: Path | Stored
    mask: Path | Stored | None  # None: its alpha channel, where it has one
    timestep: int
    camera: int = 0
    split: str = "train"


@dataclass(frozen=True)
class Recording:
    """Tracks in our conventions (docs/conventions.md), before the pictures are copied."""

    format: str
    rig: Rig
    params: FlameParams
    cameras: tuple[Camera, ...]
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()  # what a user should know: assumptions, what was left out
    metadata: dict[str, str] = field(default_factory=dict)


def padded_expression(rows: NDArray[Any]) -> Float64:
    """Expression coefficients [T, n <= 100] with zeros up to 100. Raises ``DatasetError`` where there are more."""
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] > EXPRESSION_COUNT:
        raise DatasetError(f"expressions must have at most {EXPRESSION_COUNT} coefficients, got {list(rows.shape)}")
    return np.pad(rows, ((0, 0), (0, EXPRESSION_COUNT - rows.shape[1])))


def neutral(count: int) -> dict[str, Float64]:
    """The fields of ``count`` resting frames, to be filled in."""
    return {name: np.zeros((count, width)) for name, width in WIDTHS.items()}


def checked_params(params: dict[str, Float64], fps: float, names: list[str]) -> FlameParams:
    """Tracks from their fields. Raises ``DatasetError`` for the first frame, by its name, with a value not finite."""
    for field_name, rows in params.items():
        with np.errstate(over="ignore"):
            good = np.isfinite(rows.astype(np.float32)).all(1)
        if not good.all():
            raise DatasetError(f"{names[int(np.argmin(good))]}: its {field_name} is not finite; track it again")
    return FlameParams(**params, fps=fps)  # type: ignore[arg-type]


def common_shape(shapes: list[Float64], options: ReadOptions) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The identity of a recording, from those of its frames, and a note where they differ."""
    if options.shape is not None:
        return options.shape, ()
    if len({shape.size for shape in shapes}) > 1:
        raise DatasetError("the identities of the frames have different lengths")
    spread = float(np.abs(np.stack(shapes) - shapes[-1]).max())
    note = f"the identity changes between frames (by up to {spread:.2g}); the last frame's is taken"
    return shapes[-1], (note,) if spread > 1e-3 else ()


def splits(count: int, test_frames: int | None) -> list[str]:
    """The split that papers use of these formats: the last 350 frames test, or the last fifth of a shorter clip."""
    test = min(350, count // 5) if test_frames is None else test_frames
    if not 0 <= test < count:
        raise DatasetError(f"there are {count} frames; {test} of them cannot be for testing")
    return ["train"] * (count - test) + ["test"] * test


def shots_of(
    images: Sequence[Path | Stored], masks: Sequence[Path | Stored | None], splits: Sequence[str]
) -> tuple[Shot, ...]:
    """One shot per timestep, of a single camera. Raises ``ValueError`` where lengths differ."""
    return tuple(
        Shot(image, mask, index, 0, split)
        for index, (image, mask, split) in enumerate(zip(images, masks, splits, strict=True))
    )


def edition_note(model: FlameModel, tracked_with: str) -> tuple[str, ...]:
    """A note where a track was made with another edition of FLAME: its expressions then mean something else."""
    if model.edition in (tracked_with, "procedural", "unknown"):
        return ()
    return (f"such tracks are usually of {tracked_with}; the model is {model.edition}, whose expressions differ",)
