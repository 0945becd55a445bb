"""Refined tracks in files: npz, nothing executable."""

from __future__ import annotations

import os
from typing import Any

from being_rt.track.photometric import Refined
from being_rt.track.record_file import Arrays, arrays_of, load_record, params_of, save_record

FORMAT_VERSION = 2
_ARRAYS = ("accepted", "held_out", "psnr", "face_psnr", "landmarks")
_PAIRS = ("head_jitter", "body_jitter", "shoulders")


def save_refined(refined: Refined, path: str | os.PathLike[str]) -> None:
    """Write a refined track; all of it or nothing. Raises ``FileFormatError``.

    Example::

        save_refined(refine(dataset, work="me.appearance"), "refined.npz")
    """
    about = {"fps": refined.params.fps, **{name: getattr(refined, name) for name in _PAIRS}}
    arrays = arrays_of(refined.params) | {name: getattr(refined, name) for name in _ARRAYS}
    if refined.global_joint is not None:
        arrays["global_joint"] = refined.global_joint
    save_record(path, FORMAT_VERSION, about, arrays)


def load_refined(path: str | os.PathLike[str]) -> Refined:
    """Read what :func:`save_refined` wrote. Raises ``FileFormatError``."""
    return load_record(path, FORMAT_VERSION, "a refined track", _refined)


def _refined(about: dict[str, Any], arrays: Arrays) -> Refined:
    pairs = {name: (float(about[name][0]), float(about[name][1])) for name in _PAIRS}
    fields: dict[str, Any] = pairs | {name: arrays[name] for name in _ARRAYS}
    joint = arrays.get("global_joint")
    return Refined(params=params_of(arrays, float(about["fps"])), global_joint=joint, **fields)
