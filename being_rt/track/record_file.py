"""Results of a stage in files: arrays and a little JSON in one npz of a known version; nothing executable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import NPZ_LIMIT, atomic_write, read_npz
from being_rt.flame.params import WIDTHS, FlameParams

Result = TypeVar("Result")
Arrays = dict[str, NDArray[Any]]


def save_record(
    path: str | os.PathLike[str], version: int, about: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write what JSON holds and arrays; all of it or nothing. Raises ``FileFormatError``.

    Example::

        save_record("seen.npz", 1, {"fps": 25.0}, {"landmarks": landmarks})
    """
    text = json.dumps({"version": version, **about}).encode()
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, about=np.frombuffer(text, np.uint8), **arrays)


def load_record(
    path: str | os.PathLike[str],
    version: int,
    what: str,
    build: Callable[[dict[str, Any], Arrays], Result],
    limit: int = NPZ_LIMIT,
) -> Result:
    """Read what :func:`save_record` wrote.

    Args:
        what: the file should hold, for messages: "a fit".
        build: makes the result of both; what it finds missing or wrong (KeyError, TypeError, ValueError, IndexError,
            InvalidParameterError) is told as a damaged file.
        limit: bytes that the arrays may take.

    Raises:
        FileFormatError: the file is missing, damaged, or of another version.
    """
    arrays = read_npz(path, FileFormatError, limit)
    try:
        about = json.loads(arrays.pop("about").tobytes())
        if about["version"] != version:
            raise FileFormatError(f"{path} has version {about['version']}, this being_rt reads {version}")
        return build(about, arrays)
    except (KeyError, TypeError, ValueError, IndexError, InvalidParameterError) as problem:
        raise FileFormatError(f"{path} does not hold {what}: {problem}") from problem


def arrays_of(params: FlameParams) -> Arrays:
    """A motion as arrays of a record; its rate is not among them."""
    return {f"params.{name}": getattr(params, name) for name in WIDTHS}


def params_of(arrays: Arrays, fps: float) -> FlameParams:
    """The motion of :func:`arrays_of`."""
    return FlameParams(**{name: arrays[f"params.{name}"] for name in WIDTHS}, fps=fps)
