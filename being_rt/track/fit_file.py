"""Fits in files: npz, nothing executable."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from being_rt.avatar.avatar import Camera
from being_rt.track.fit import Fit
from being_rt.track.record_file import Arrays, arrays_of, load_record, params_of, save_record

FORMAT_VERSION = 2
_ARRAYS = ("shape", "resting_lids", "error", "per_landmark", "bias", "tracked")


def save_fit(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write a fit; all of it or nothing. Raises ``FileFormatError``.

    Example::

        save_fit(fit(observations, model, embedding), "fit.npz")
    """
    about = {
        "fps": fit.params.fps,
        "size": list(fit.camera.size),
        "unit": fit.unit,
        "focal_deviation": fit.focal_deviation,
        "costs": list(fit.costs),
        "warnings": list(fit.warnings),
    }
    camera = {"camera.pose": fit.camera.world_to_camera, "camera.intrinsics": fit.camera.intrinsics}
    arrays = arrays_of(fit.params) | {name: getattr(fit, name) for name in _ARRAYS} | camera
    save_record(path, FORMAT_VERSION, about, arrays)


def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read what :func:`save_fit` wrote. Raises ``FileFormatError``."""
    return load_record(path, FORMAT_VERSION, "a fit", _fit)


def _fit(about: dict[str, Any], arrays: Arrays) -> Fit:
    width, height = about["size"]
    return Fit(
        params=params_of(arrays, float(about["fps"])),
        camera=Camera(arrays["camera.pose"], arrays["camera.intrinsics"], (int(width), int(height))),
        unit=float(about["unit"]),
        focal_deviation=float(about["focal_deviation"]),
        costs=tuple(float(cost) for cost in about["costs"]),
        warnings=tuple(str(warning) for warning in about["warnings"]),
        **{name: arrays[name] for name in _ARRAYS},
    )


assert {"params", "camera", "unit", "focal_deviation", "costs", "warnings", *_ARRAYS} == {f.name for f in fields(Fit)}
