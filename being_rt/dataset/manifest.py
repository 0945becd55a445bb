"""``dataset.json``: what a data set says about itself and its frames. Parsed within bounds, written in one place."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import being_rt
from being_rt.avatar.avatar import Camera
from being_rt.avatar.validation import check_size, is_text, validate_camera
from being_rt.dataset.crop import Crop
from being_rt.errors import InvalidParameterError, UnsupportedVersionError
from being_rt.flame.params import MAXIMUM_FPS
from being_rt.tensor_file import json_object

MANIFEST = "dataset.json"
RIG = "rig.safetensors"
TRACKS = "tracks.npz"
TRUTH = "truth.npz"
FORMAT = "being-dataset"
FORMAT_VERSION = 1
MANIFEST_LIMIT = 1 << 28  # bytes; a frame takes 110
FRAME_LIMIT = 1_000_000
CAMERA_LIMIT = 1000
CROP_LIMIT = 100  # of one camera's history

Value = TypeVar("Value")


@dataclass(frozen=True)
class Frame:
    """One picture: its files (relative to the data set), which timestep of the tracks it shows, and who took it."""

    image: str
    mask: str | None
    timestep: int
    camera: int
    split: str


@dataclass(frozen=True)
class View:
    """A static camera, the picture of the empty scene that it sees, and how the original video became its frames."""

    camera: Camera
    background: str | None = None
    crops: tuple[Crop, ...] = ()  # oldest first


@dataclass(frozen=True)
class Manifest:
    """The content of ``dataset.json``."""

    name: str
    fps: float
    views: tuple[View, ...]
    frames: tuple[Frame, ...]
    edition: str = "unknown"
    source: str = ""
    licence: str = ""
    consent: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)  # file -> SHA-256
    generator: str = f"being_rt {being_rt.__version__}"


def encode_manifest(manifest: Manifest) -> bytes:
    """The JSON of a manifest: one line per frame, so that it can be read and compared as text."""
    table = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **{name: getattr(manifest, name) for name in ("generator", "name", "fps", "edition", "source")},
        **{name: getattr(manifest, name) for name in ("licence", "consent", "metadata", "checksums")},
        "cameras": [
            {
                "size": list(map(int, view.camera.size)),
                "world_to_camera": view.camera.world_to_camera.tolist(),
                "intrinsics": view.camera.intrinsics.tolist(),
                "background": view.background,
                "crops": [asdict(crop) for crop in view.crops],
            }
            for view in manifest.views
        ],
    }
    head = json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False)
    frames = ",\n".join("  " + json.dumps(vars(frame)) for frame in manifest.frames)
    return f'{head[:-2]},\n "frames": [\n{frames}\n ]\n}}\n'.encode()


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Read ``dataset.json``.

    Raises:
        ValueError: it is not one, or one of its values cannot be.
        UnsupportedVersionError: it was written by a newer being_rt.
    """
    if len(data) > MANIFEST_LIMIT:
        raise ValueError(f"it is longer than {MANIFEST_LIMIT >> 20} MB")
    table = json_object(data, "text")
    if table.get("format") != FORMAT:
        raise ValueError('it does not say "format": "being-dataset"')
    version = _value(table, "format_version", int)
    if version > FORMAT_VERSION:
        raise UnsupportedVersionError(
            f"{path} has data set format {version}, this being_rt reads up to {FORMAT_VERSION}; update being_rt"
        )
    if version < FORMAT_VERSION:
        raise ValueError(f"it has data set format {version}, which never existed")
    try:
        manifest = _manifest(table)
        check_manifest(manifest)
    except InvalidParameterError as problem:
        raise ValueError(str(problem)) from problem
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Check what :func:`encode_manifest` is to write. Raises ``InvalidParameterError``."""
    texts = {name: getattr(manifest, name) for name in ("name", "edition", "source", "licence", "consent")}
    texts |= {f"metadata {key!r}": value for key, value in manifest.metadata.items()}
    texts |= {f"key {key!r} of metadata": key for key in manifest.metadata}
    for name, text in texts.items():
        if not is_text(text):
            raise InvalidParameterError(f"{name} must be printable text")
    if not manifest.name or "\n" in manifest.name:
        raise InvalidParameterError("name must be one line of text")
    if not 0 < manifest.fps <= MAXIMUM_FPS:
        raise InvalidParameterError(f"fps must lie in (0, {MAXIMUM_FPS:g}], got {manifest.fps}")
    if not manifest.views:
        raise InvalidParameterError("a data set needs at least one camera")
    if not manifest.frames:
        raise InvalidParameterError("a data set needs at least one frame")
    for view in manifest.views:
        validate_camera(view.camera)


def check_split(split: str) -> None:
    """Check the name of a split: a short word. Raises ``InvalidParameterError``."""
    if not isinstance(split, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", split):
        raise InvalidParameterError(f"the name of a split must be a short word in lower case, got {split!r}")


def _manifest(table: dict[str, Any]) -> Manifest:
    views = tuple(_view(entry) for entry in _list(table, "cameras", CAMERA_LIMIT))
    return Manifest(
        **{name: _value(table, name, str) for name in ("name", "edition", "source", "licence", "consent", "generator")},
        fps=_number(table, "fps"),
        views=views,
        frames=tuple(_frame(entry, len(views)) for entry in _list(table, "frames", FRAME_LIMIT)),
        metadata=_texts(table, "metadata"),
        checksums=_texts(table, "checksums"),
    )


def _view(entry: Any) -> View:
    table = _table(entry, "a camera")
    camera = Camera(_matrix(table, "world_to_camera", 4), _matrix(table, "intrinsics", 3), _size(table, "size"))
    background = table.get("background")
    if background is not None:
        _check_file(background, r"background[0-9]{0,4}\.png")
    crops = tuple(_crop(entry) for entry in _list(table, "crops", CROP_LIMIT))
    return View(camera, background, crops)


def _crop(entry: Any) -> Crop:
    table = _table(entry, "a crop")
    left, top, width, height = (_number(table, name) for name in ("left", "top", "width", "height"))
    if min(width, height) <= 0 or max(map(abs, (left, top, width, height))) > 1e6:
        raise ValueError("a crop has an impossible box")
    return Crop(left, top, width, height, _size(table, "size"), _size(table, "original_size"))


def _size(table: dict[str, Any], name: str) -> tuple[int, int]:
    sides = _value(table, name, list)
    check_size(f"a camera's {name}", tuple(sides))
    return sides[0], sides[1]


def _frame(entry: Any, cameras: int) -> Frame:
    table = _table(entry, "a frame")
    image, mask = _value(table, "image", str), table.get("mask")
    _check_file(image, r"images/[0-9]{1,9}\.(png|jpg)")
    if mask is not None:
        _check_file(mask, r"masks/[0-9]{1,9}\.png")
    timestep, camera = _value(table, "timestep", int), _value(table, "camera", int)
    if not 0 <= timestep < FRAME_LIMIT or not 0 <= camera < cameras:
        raise ValueError(f"the frame {image} has a timestep or a camera that does not exist")
    split = _value(table, "split", str)
    check_split(split)
    return Frame(image, mask, timestep, camera, split)


def _check_file(name: Any, pattern: str) -> None:
    """Names of files are as narrow as the writer's, so that none leads out of the folder."""
    if not isinstance(name, str) or not re.fullmatch(pattern, name, re.ASCII):
        raise ValueError(f"it names a file {str(name)[:60]!r}, which is not one of a data set's names")


def _table(entry: Any, what: str) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{what} is not a JSON object")
    return entry


def _value(table: dict[str, Any], name: str, kind: type[Value]) -> Value:
    value = table.get(name)
    if type(value) is not kind:
        raise ValueError(f"it has no valid {name!r}")
    return value


def _list(table: dict[str, Any], name: str, limit: int) -> list[Any]:
    value = _value(table, name, list)
    if len(value) > limit:
        raise ValueError(f"it has more than {limit} {name}")
    return value


def _number(table: dict[str, Any], name: str) -> float:
    value = table.get(name)
    if type(value) not in (int, float) or not abs(value) < 1e30:  # type: ignore[arg-type]
        raise ValueError(f"it has no valid {name!r}")
    return float(value)  # type: ignore[arg-type]


def _texts(table: dict[str, Any], name: str) -> dict[str, str]:
    value = _value(table, name, dict)
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"it has {name} that is not text")
    return value


def _matrix(table: dict[str, Any], name: str, side: int) -> NDArray[np.float32]:
    rows = _value(table, name, list)
    flat = [number for row in rows if isinstance(row, list) for number in row]
    if len(rows) != side or len(flat) != side * side or not all(type(n) in (int, float) for n in flat):
        raise ValueError(f"a camera has no valid {name!r}")
    with np.errstate(over="ignore"):  # becomes infinite, and the camera's check refuses it
        return np.array(flat, np.float64).astype(np.float32).reshape(side, side)
