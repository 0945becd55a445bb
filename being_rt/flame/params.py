"""FlameParams: what a face does, frame by frame. The one record that every driver writes and every renderer reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import FileFormatError, InvalidParameterError, UnsupportedVersionError
from being_rt.files import atomic_write, read_npz
from being_rt.flame.rotations import slerp

Float32 = NDArray[np.float32]

WIDTHS = {
    "expression": 100,
    "rotation": 3,
    "neck": 3,
    "jaw": 3,
    "eyes": 6,
    "translation": 3,
    "eyelids": 2,
}
ROTATIONS = ("rotation", "neck", "jaw", "eyes")
FORMAT_VERSION = 1
MAXIMUM_FPS = 1000.0


@dataclass(frozen=True, eq=False)
class FlameParams:
    """A motion of T >= 1 frames: FLAME's parameters over time, without the identity. Checked when it is made.

    Arrays are float32 with leading axis T (other real types are converted, a missing leading axis is not added).
    Rotations are axis-angle in radians; the order of the joints and of the frames of reference is FLAME's: global,
    neck, jaw, left eye, right eye (docs/conventions.md).

    Raises:
        InvalidParameterError: a wrong shape, a value that is not finite, or fps outside (0, 1000].

    Example::

        still = FlameParams.neutral(25, fps=25)
        jaw = np.zeros((25, 3), np.float32)
        jaw[:, 0] = np.linspace(0, 0.3, 25)
        opening = still.replace(jaw=jaw)
        opening[10].jaw  # [[0.125, 0, 0]]
    """

    expression: Float32  # [T, 100]
    rotation: Float32  # [T, 3] of the global joint
    neck: Float32  # [T, 3]
    jaw: Float32  # [T, 3]
    eyes: Float32  # [T, 6] left, right
    translation: Float32  # [T, 3] metres
    eyelids: Float32  # [T, 2] left, right; 0 open, 1 closed
    fps: float = 25.0

    def __post_init__(self) -> None:
        for name in WIDTHS:
            value = np.asarray(getattr(self, name))
            if value.dtype.kind not in "fiu":
                raise InvalidParameterError(f"FlameParams.{name} must be real numbers, got {value.dtype}")
            # A float64 beyond float32 becomes inf here, and validate() says so.
            with np.errstate(over="ignore"):
                object.__setattr__(self, name, np.ascontiguousarray(value, np.float32))
        try:
            object.__setattr__(self, "fps", float(self.fps))
        except (TypeError, ValueError):
            raise InvalidParameterError(f"FlameParams.fps must be a number, got {self.fps!r}") from None
        self.validate()

    def validate(self) -> None:
        """Check shapes, values and fps; every constructor calls it.

        Raises:
            InvalidParameterError: names the field and what it should be.
        """
        if not 0 < self.fps <= MAXIMUM_FPS:
            raise InvalidParameterError(f"FlameParams.fps must lie in (0, {MAXIMUM_FPS:g}], got {self.fps}")
        count = self.expression.shape[0] if self.expression.ndim == 2 else 0
        for name, width in WIDTHS.items():
            value = getattr(self, name)
            if value.shape != (count, width) or count == 0:
                expected = f"[{count or 'T >= 1'}, {width}]"
                raise InvalidParameterError(f"FlameParams.{name} must be {expected}, got {list(value.shape)}")
            if not np.isfinite(value).all():
                frame = int(np.argmin(np.isfinite(value).all(axis=1)))
                raise InvalidParameterError(f"FlameParams.{name} has a value that is not finite in frame {frame}")

    @classmethod
    def neutral(cls, count: int = 1, fps: float = 25.0) -> FlameParams:
        """``count`` frames of the resting face: all zeros, eyes open, mouth closed."""
        if count < 1:
            raise InvalidParameterError(f"a motion needs at least 1 frame, got {count}")
        return cls(**{name: np.zeros((count, width), np.float32) for name, width in WIDTHS.items()}, fps=fps)

    @classmethod
    def concatenate(cls, parts: Sequence[FlameParams]) -> FlameParams:
        """The parts one after the other. All must have the same fps (see :meth:`resample`)."""
        if not parts:
            raise InvalidParameterError("concatenate needs at least one FlameParams, got none")
        rates = {part.fps for part in parts}
        if len(rates) > 1:
            raise InvalidParameterError(f"concatenate needs one fps, got {sorted(rates)}; resample first")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in WIDTHS}
        return cls(**joined, fps=parts[0].fps)

    def __len__(self) -> int:
        return int(self.expression.shape[0])

    @property
    def duration(self) -> float:
        """Seconds from the start of the first frame to the end of the last."""
        return len(self) / self.fps

    def __getitem__(self, index: int | slice) -> FlameParams:
        """One frame, with T = 1, or a run of frames; views, not copies. An empty run is refused."""
        if isinstance(index, slice):
            run = index
        else:
            position = range(len(self))[index]  # negative indices, and IndexError out of range, which ends iteration
            run = slice(position, position + 1)
        return self.replace(**{name: getattr(self, name)[run] for name in WIDTHS})

    def __eq__(self, other: object) -> bool:
        """Whether fps and all arrays are equal, bit for bit apart from the sign of zero."""
        if not isinstance(other, FlameParams):
            return NotImplemented
        return self.fps == other.fps and all(np.array_equal(getattr(self, n), getattr(other, n)) for n in WIDTHS)

    __hash__ = None  # type: ignore[assignment]

    def replace(self, **changes: Any) -> FlameParams:
        """A copy with some fields replaced, checked again."""
        unknown = sorted(changes.keys() - {field.name for field in fields(self)})
        if unknown:
            raise InvalidParameterError(f"FlameParams has no field {unknown[0]!r}; it has {[*WIDTHS, 'fps']}")
        return FlameParams(**{field.name: getattr(self, field.name) for field in fields(self)} | changes)

    def resample(self, fps: float) -> FlameParams:
        """The same motion at another frame rate.

        Frame k of the result is the motion at k / fps seconds: rotations by spherical linear interpolation (both eyes
        apart), everything else linearly; past the last frame its value holds. The duration stays, rounded to a whole
        number of frames.
        """
        if not 0 < fps <= MAXIMUM_FPS:
            raise InvalidParameterError(f"fps must lie in (0, {MAXIMUM_FPS:g}], got {fps}")
        if fps == self.fps:
            return self
        count = max(1, round(len(self) * fps / self.fps))
        position = np.minimum(np.arange(count) * (self.fps / fps), len(self) - 1)
        before = np.floor(position).astype(np.intp)
        after = np.minimum(before + 1, len(self) - 1)
        fraction = position - before

        def between(name: str) -> NDArray[Any]:
            start, end = getattr(self, name)[before], getattr(self, name)[after]
            if name not in ROTATIONS:
                return start + fraction[:, None] * (end - start)
            joints = start.reshape(count, -1, 3), end.reshape(count, -1, 3)
            turned = slerp(*joints, np.broadcast_to(fraction[:, None], joints[0].shape[:2])).reshape(start.shape)
            # Exact frames stay exact, and keep angles beyond pi as they were written.
            return np.where(fraction[:, None] == 0, start, turned)

        return FlameParams(**{name: between(name) for name in WIDTHS}, fps=fps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` with one array per field, ``fps`` and ``format_version``; all of it or nothing.

        Raises:
            FileFormatError: the file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in WIDTHS}
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, format_version=np.int64(FORMAT_VERSION), fps=np.float64(self.fps), **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FlameParams:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            FileFormatError: missing, damaged, not a motion file, or with invalid values.
            UnsupportedVersionError: written by a newer version.
        """
        arrays = read_npz(path)
        missing = sorted({*WIDTHS, "fps", "format_version"} - arrays.keys())
        if missing:
            raise FileFormatError(f"{path} is not a motion file: it has no array {missing[0]!r}")
        try:
            version = int(arrays["format_version"])
            if version > FORMAT_VERSION:
                raise UnsupportedVersionError(
                    f"{path} has motion format {version}, this being_rt reads up to {FORMAT_VERSION}; update being_rt"
                )
            if version < FORMAT_VERSION:
                raise FileFormatError(f"{path} has motion format {version}, which never existed")
            return cls(**{name: arrays[name] for name in WIDTHS}, fps=float(arrays["fps"]))
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{path}: {error}") from error
