"""``transforms.json`` and its splits, as Instant-NGP has them and as INSTA and VHAP extend them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.readers.cameras import pinhole, rigid
from being_rt.dataset.readers.source_files import array, frames_of, inside, read_json, text
from being_rt.errors import DatasetError

Float64 = NDArray[np.float64]
Table = dict[str, Any]

WHOLE = "transforms.json"


def read_transforms(folder: Path) -> tuple[Table, list[Table], Path]:
    """The table, its frames, and the file they are from: ``transforms.json``, or the parts of a split together.

    Raises:
        DatasetError: there is neither.
    """
    if (folder / WHOLE).exists():
        table = read_json(folder / WHOLE)
        return table, frames_of(table, folder / WHOLE), folder / WHOLE
    parts = [folder / f"transforms_{name}.json" for name in ("train", "val", "test")]
    present = [part for part in parts if part.exists()]
    if not present:
        raise DatasetError(f"{folder} has no {WHOLE}")
    tables = [read_json(part) for part in present]
    frames: dict[str, Table] = {}
    for table, part in zip(tables, present, strict=True):
        if table.get("frames") == [] and part is not present[0]:  # as VHAP's _val where there is one camera
            continue
        frames |= {text(frame, "file_path", str(part)): frame for frame in frames_of(table, part)}
    return tables[0], [frames[name] for name in sorted(frames)], present[0]


def split_frames(folder: Path, name: str) -> set[str]:
    """``file_path`` of every frame of ``transforms_NAME.json``; empty where there is no such file."""
    path = folder / f"transforms_{name}.json"
    if not path.exists():
        return set()
    table = read_json(path)
    if table.get("frames") == []:
        return set()
    return {text(frame, "file_path", str(path)) for frame in frames_of(table, path)}


def frame_name(frame: Table, index: int, path: Path) -> str:
    """What to call a frame in messages."""
    return f"{path}, frame {index} ({str(frame.get('file_path'))[:60]})"


def frame_file(frame: Table, key: str, folder: Path, where: str) -> Path:
    """A file that a frame names: of this folder, or of one beside it, as in unions. Raises ``DatasetError``."""
    home = folder.resolve()
    return inside(home.parent, str(home / text(frame, key, where)), where)


def number(frame: Table, table: Table, name: str, where: str) -> float:
    """A number of a frame, or else of the whole. Raises ``DatasetError``."""
    value = frame.get(name, table.get(name))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DatasetError(f"{where} has no number {name!r}")
    return float(value)


def size_of(frame: Table, table: Table, where: str) -> tuple[int, int]:
    """Width and height of a frame. Raises ``DatasetError``."""
    width, height = number(frame, table, "w", where), number(frame, table, "h", where)
    if not (1 <= width <= 1e5 and 1 <= height <= 1e5 and width == int(width) and height == int(height)):
        raise DatasetError(f"{where} has an impossible size {width} x {height}")
    return int(width), int(height)


def intrinsics_of(frame: Table, table: Table, where: str) -> Float64:
    """Intrinsics [3, 3] of a frame as they are written. Raises ``DatasetError``."""
    values = [number(frame, table, name, where) for name in ("fl_x", "fl_y", "cx", "cy")]
    return pinhole(values[0], values[1], values[2], values[3], where)


def world_to_camera(frame: Table, where: str) -> Float64:
    """The inverse [4, 4] of a frame's ``transform_matrix``, camera to world. Raises ``DatasetError``."""
    matrix = array(frame.get("transform_matrix"), f"{where}: transform_matrix", (4, 4))
    camera_to_world = rigid(matrix, where)
    rotation = camera_to_world[:3, :3].T
    pose = np.eye(4)
    pose[:3] = np.column_stack([rotation, -rotation @ camera_to_world[:3, 3]])
    return pose
