"""Fits in files: npz, nothing executable."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

import numpy as np

from being_rt.avatar.avatar import Camera
from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, read_npz
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.track.fit import Fit

FORMAT_VERSION = 2
_ARRAYS = ("shape", "resting_lids", "error", "per_landmark", "bias", "tracked")


def save_fit(fit: Fit, path: str | os.PathLike[str]) -> None:
    """Write a fit; all of it or nothing. Raises ``FileFormatError``.

    Example::

        save_fit(fit(observations, model, embedding), "fit.npz")
    """
    about = {
        "version": FORMAT_VERSION,
        "fps": fit.params.fps,
        "size": list(fit.camera.size),
        "unit": fit.unit,
        "focal_deviation": fit.focal_deviation,
        "costs": list(fit.costs),
        "warnings": list(fit.warnings),
    }
    arrays: dict[str, Any] = {f"params.{name}": getattr(fit.params, name) for name in WIDTHS}
    arrays |= {name: getattr(fit, name) for name in _ARRAYS}
    arrays |= {"camera.pose": fit.camera.world_to_camera, "camera.intrinsics": fit.camera.intrinsics}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def load_fit(path: str | os.PathLike[str]) -> Fit:
    """Read what :func:`save_fit` wrote. Raises ``FileFormatError``."""
    arrays = read_npz(path, FileFormatError)
    try:
        about = json.loads(arrays.pop("about").tobytes())
        if about["version"] != FORMAT_VERSION:
            raise FileFormatError(f"{path} has version {about['version']}, this being_rt reads {FORMAT_VERSION}")
        params = FlameParams(**{name: arrays[f"params.{name}"] for name in WIDTHS}, fps=float(about["fps"]))
        width, height = about["size"]
        return Fit(
            params=params,
            camera=Camera(arrays["camera.pose"], arrays["camera.intrinsics"], (int(width), int(height))),
            unit=float(about["unit"]),
            focal_deviation=float(about["focal_deviation"]),
            costs=tuple(float(cost) for cost in about["costs"]),
            warnings=tuple(str(warning) for warning in about["warnings"]),
            **{name: arrays[name] for name in _ARRAYS},
        )
    except (KeyError, TypeError, ValueError, InvalidParameterError) as problem:
        raise FileFormatError(f"{path} does not hold a fit: {problem}") from problem


assert {"params", "camera", "unit", "focal_deviation", "costs", "warnings", *_ARRAYS} == {f.name for f in fields(Fit)}
