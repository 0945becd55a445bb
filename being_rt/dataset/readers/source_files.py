"""Files of other programs, read within bounds: JSON, text, pictures by number, what PyTorch saves. Nothing runs."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import DatasetError, ModelFileError
from being_rt.files import read_error_reason, reading
from being_rt.flame.unpickler import as_array, parse_pickle
from being_rt.tensor_file import json_object

JSON_LIMIT = 1 << 29  # bytes
TEXT_LIMIT = 1 << 20
TORCH_LIMIT = 1 << 26
PICKLE_LIMIT = 1 << 28
PICKLE_OPERATIONS = 5_000_000  # a frame has some 200
FRAME_LIMIT = 1_000_000
_PICTURES = (".png", ".jpg", ".jpeg")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ``DatasetError``."""
    with reading(path, "a description in JSON", DatasetError):
        if path.stat().st_size > JSON_LIMIT:
            raise ValueError(f"it is longer than {JSON_LIMIT >> 20} MB")
        return json_object(path.read_bytes(), "text")


def read_numbers(path: Path) -> NDArray[np.float64]:
    """The numbers of a text file, [n]. Raises ``DatasetError``."""
    with reading(path, "a text file of numbers", DatasetError):
        if path.stat().st_size > TEXT_LIMIT:
            raise ValueError(f"it is longer than {TEXT_LIMIT >> 20} MB")
        return np.array([float(word) for word in path.read_text("ascii").split()])


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote of NumPy arrays, numbers and text: plain data, arrays as :func:`array` takes them.

    Such a file is a zip with a pickle in it, which being_rt/flame/unpickler.py reads as data.

    Raises:
        DatasetError: the file is missing, damaged, or has anything else in it.
    """
    with reading(path, "a file of torch.save", DatasetError), zipfile.ZipFile(path) as archive:
        pickles = [member for member in archive.infolist() if re.fullmatch(r"([^/]+/)?data\.pkl", member.filename)]
        if len(pickles) != 1 or pickles[0].file_size > TORCH_LIMIT:
            raise ValueError("it has no pickle of a usual size in it")
        try:
            return parse_pickle(archive.read(pickles[0]))
        except ModelFileError as problem:
            raise ValueError(f"{problem}; save its tensors as NumPy arrays") from problem


def read_pickled(path: Path) -> Any:
    """What ``pickle.dump`` wrote of NumPy arrays, numbers and text, as :func:`read_torch` gives it.

    Raises:
        DatasetError: the file is missing, damaged, or has anything else in it.
    """
    with reading(path, "a pickle of tracks", DatasetError):
        if path.stat().st_size > PICKLE_LIMIT:
            raise ValueError(f"it is longer than {PICKLE_LIMIT >> 20} MB")
        try:
            return parse_pickle(path.read_bytes(), PICKLE_OPERATIONS)
        except ModelFileError as problem:
            raise ValueError(str(problem)) from problem


def array(value: Any, where: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
    """An array of a foreign file, of finite or other numbers, with the given shape; None fits any size.

    Args:
        value: a list of a JSON file, an array, or a record of :func:`read_torch`.
        where: file and name, for the message.

    Raises:
        DatasetError: it is not there, or not such an array.
    """
    spelled = ", ".join("any" if size is None else str(size) for size in shape)
    try:
        found = np.asarray(value if isinstance(value, list | np.ndarray | float | int) else as_array(value))
        numbers = found.astype(np.float64) if found.dtype.kind in "iuf" else None
    except (ModelFileError, ValueError, TypeError):
        numbers = None
    if (
        numbers is None
        or numbers.ndim != len(shape)
        or any(expected not in (None, size) for size, expected in zip(numbers.shape, shape, strict=True))
    ):
        given = "absent" if value is None else f"{list(numbers.shape)}" if numbers is not None else "something else"
        raise DatasetError(f"{where} must be numbers [{spelled}], it is {given}")
    return numbers


def frames_of(table: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The list ``frames`` of a JSON object: at least one object. Raises ``DatasetError``."""
    frames = table.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise DatasetError(f"{path} has no list of frames")
    if len(frames) > FRAME_LIMIT:
        raise DatasetError(f"{path} has more than {FRAME_LIMIT} frames")
    return frames


def text(table: dict[str, Any], name: str, where: str) -> str:
    """A text of a JSON object. Raises ``DatasetError``."""
    value = table.get(name)
    if not isinstance(value, str):
        raise DatasetError(f"{where} has no {name!r}")
    return value


def inside(folder: Path, name: str, where: str) -> Path:
    """The file that a foreign description names. Raises ``DatasetError`` where it leads out of the folder."""
    path = Path(os.path.normpath(folder / name))
    if "\0" in name or not path.is_relative_to(Path(os.path.normpath(folder))):
        raise DatasetError(f"{where} names a file outside of its folder: {name[:60]!r}")
    return path


def picture(path: Path) -> Path:
    """The picture of that name: with the suffix as it is, or the one of PNG or JPEG that is there.

    Raises:
        DatasetError: there is none.
    """
    for candidate in (path, *(Path(f"{path}{suffix}") for suffix in _PICTURES), *map(path.with_suffix, _PICTURES)):
        if candidate.suffix.lower() in _PICTURES and candidate.is_file():
            return candidate
    raise DatasetError(f"{path if path.suffix else f'{path}.png'} does not exist")


def numbered_files(folder: Path, suffixes: tuple[str, ...] = _PICTURES) -> dict[int, Path]:
    """Files of a folder by the number at the end of their names: ``00012.png`` and ``frame_12.png`` are 12.

    Raises:
        DatasetError: the folder cannot be read, is empty, or has two files of one number.
    """
    found: dict[int, Path] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError as problem:
        raise DatasetError(f"cannot read {folder}: {read_error_reason(problem)}") from problem
    for name in names:
        path = folder / name
        number = re.search(r"([0-9]{1,9})$", path.stem)
        if path.suffix.lower() not in suffixes or number is None:
            continue
        if int(number[1]) in found:
            raise DatasetError(f"{folder} has two files of number {number[1]}: {found[int(number[1])].name}, {name}")
        found[int(number[1])] = path
    if not found:
        raise DatasetError(f"{folder} has no files that end in a number and {', '.join(suffixes)}")
    return found


def matched(frames: list[int], files: dict[int, Path], offset: int | None, folder: Path) -> tuple[list[Path], int]:
    """The picture of every frame, and the number by which pictures are ahead of frames.

    Trackers number frames from 0; FFmpeg numbers pictures from 1. Without an ``offset`` the first numbers decide.

    Raises:
        DatasetError: a frame has no picture, or the first numbers differ by neither 0 nor 1.
    """
    ahead = min(files) - min(frames) if offset is None else offset
    if offset is None and ahead not in (0, 1):
        raise DatasetError(
            f"{folder} begins with number {min(files)}, the tracks with {min(frames)}: say which frame offset is right"
        )
    missing = [frame + ahead for frame in frames if frame + ahead not in files]
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DatasetError(f"{folder} has no picture of number {missing[0]}{more}, which the tracks need")
    return [files[frame + ahead] for frame in frames], ahead
