"""Refined tracks in files: npz, nothing executable."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, read_npz
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.track.photometric import Refined

FORMAT_VERSION = 1
_ARRAYS = ("accepted", "held_out", "psnr", "face_psnr", "landmarks")
_PAIRS = ("head_jitter", "body_jitter")


def save_refined(refined: Refined, path: str | os.PathLike[str]) -> None:
    """Write a refined track; all of it or nothing. Raises ``FileFormatError``.

    Example::

        save_refined(refine(dataset, work="me.appearance"), "refined.npz")
    """
    about = {"version": FORMAT_VERSION, "fps": refined.params.fps, **{name: getattr(refined, name) for name in _PAIRS}}
    arrays: dict[str, Any] = {f"params.{name}": getattr(refined.params, name) for name in WIDTHS}
    arrays |= {name: getattr(refined, name) for name in _ARRAYS}
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)


def load_refined(path: str | os.PathLike[str]) -> Refined:
    """Read what :func:`save_refined` wrote. Raises ``FileFormatError``."""
    arrays = read_npz(path, FileFormatError)
    try:
        about = json.loads(arrays.pop("about").tobytes())
        if about["version"] != FORMAT_VERSION:
            raise FileFormatError(f"{path} has version {about['version']}, this being_rt reads {FORMAT_VERSION}")
        params = FlameParams(**{name: arrays[f"params.{name}"] for name in WIDTHS}, fps=float(about["fps"]))
        pairs = {name: (float(about[name][0]), float(about[name][1])) for name in _PAIRS}
        fields: dict[str, Any] = pairs | {name: arrays[name] for name in _ARRAYS}
        return Refined(params=params, **fields)
    except (KeyError, TypeError, ValueError, IndexError, InvalidParameterError) as problem:
        raise FileFormatError(f"{path} does not hold a refined track: {problem}") from problem
