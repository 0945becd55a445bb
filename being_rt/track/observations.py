"""What the networks say of a video, frame by frame: where the face's landmarks are, and which pixels are the person."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.checks import check_arrays
from being_rt.errors import InvalidParameterError
from being_rt.track.record_file import Arrays, load_record, save_record

LANDMARKS = 478
FORMAT_VERSION = 1
LARGEST = 4 << 30  # bytes of a file of observations


@dataclass(frozen=True)
class Observations:
    """Observations of T frames at a constant rate, W x H pixels, upright.

    Landmarks are those of MediaPipe's face mesh: 0..467, then the irises, 468..472 of the subject's right eye and
    473..477 of the left. Coordinates are continuous pixels (the first pixel's centre is at 0.5, 0.5); z is in the same
    unit, towards the camera negative, relative to the head's middle.
    """

    size: tuple[int, int]  # width, height
    fps: float
    landmarks: NDArray[np.float32]  # [T, 478, 3]; NaN in frames without a face
    presence: NDArray[np.float32]  # [T] 0..1: how sure the network is of a face
    faces: NDArray[np.int32]  # [T] how many were seen; -1: not counted in this frame
    sharpness: NDArray[np.float32]  # [T] variance of the face's Laplacian in grey levels; NaN without a face
    masks: NDArray[np.uint8]  # [T, h, w] person 0..255 over the whole frame, coarse; [T, 0, 0]: not asked for
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays = {name: getattr(self, name) for name in _TENSORS}
        for name in ("landmarks", "sharpness"):  # NaN says that there is no face
            arrays[name] = np.nan_to_num(arrays[name]) if isinstance(arrays[name], np.ndarray) else arrays[name]
        check_arrays(arrays, _TENSORS)
        if min(self.size) < 1 or not 0 < self.fps < 1e4:
            raise InvalidParameterError(f"observations need a size and a rate, got {self.size} and {self.fps}")

    def __len__(self) -> int:
        return len(self.landmarks)

    @property
    def found(self) -> NDArray[np.bool_]:
        """[T] whether a frame has a face."""
        return np.isfinite(self.landmarks[:, 0, 0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an npz file; all of it or nothing. Raises ``FileFormatError``."""
        about = {"size": list(self.size), "fps": self.fps, "warnings": list(self.warnings)}
        save_record(path, FORMAT_VERSION, about, {name: getattr(self, name) for name in _TENSORS})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Observations:
        """Read what :meth:`save` wrote.

        Raises:
            FileFormatError: the file is missing, damaged, or of a newer version.
        """
        return load_record(path, FORMAT_VERSION, "observations of a video", cls._of, LARGEST)

    @classmethod
    def _of(cls, about: dict[str, Any], arrays: Arrays) -> Observations:
        width, height = about["size"]
        return cls(
            size=(int(width), int(height)),
            fps=float(about["fps"]),
            warnings=tuple(str(warning) for warning in about["warnings"]),
            **{name: arrays[name] for name in _TENSORS},
        )


_TENSORS = {
    "landmarks": ("float32", ("T", LANDMARKS, 3)),
    "presence": ("float32", ("T",)),
    "faces": ("int32", ("T",)),
    "sharpness": ("float32", ("T",)),
    "masks": ("uint8", ("T", "h", "w")),
}
assert set(_TENSORS) < {field.name for field in fields(Observations)}
