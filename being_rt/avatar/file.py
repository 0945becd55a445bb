"""``.being``: one person in one file. The format is described in docs/avatar-format.md."""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import being_rt
from being_rt.avatar.avatar import MOTIONS, AnchorLatentNetwork, Avatar, Camera, Gaussians, HeadLayer, Seam, TorsoLayer
from being_rt.avatar.container import (
    MANIFEST,
    TENSORS,
    read_container,
    read_manifest,
    write_container,
)
from being_rt.avatar.validation import avatar_tensors, check_size, is_text, validate_avatar
from being_rt.errors import AvatarFileError, InvalidParameterError, UnsupportedVersionError
from being_rt.files import atomic_write, reading
from being_rt.flame.rig_file import landmark_names, rig_tensors, take, take_rig
from being_rt.tensor_file import decode_tensors, encode_tensors

UInt8 = NDArray[np.uint8]
Tensors = dict[str, NDArray[Any]]
Manifest = dict[str, Any]
Record = TypeVar("Record")

FORMAT = "being"
FORMAT_VERSION = 2
BACKGROUND = "background.png"
PREVIEW = "preview.png"
# PNG's own scale of effort, 0..9: 3 writes a 1080p picture in 0.2 s and loses a few percent of size to 9.
_COMPRESSION = 3


def _without_response(manifest: Manifest, tensors: Tensors) -> None:
    """Version 1 had bodies that follow the translation as one piece."""
    tensors["torso.response"] = np.zeros((MOTIONS, 3, 4), np.float32)
    tensors["torso.response_range"] = np.zeros((2, MOTIONS), np.float32)


# version -> what makes an avatar of version + 1 of it: changes the manifest and the tensors in place
UPGRADES: dict[int, Callable[[Manifest, Tensors], None]] = {1: _without_response}


@dataclass(frozen=True)
class AvatarSummary:
    """What an avatar file says about itself, read without its data."""

    path: str
    file_size: int  # bytes
    format_version: int
    generator: str
    name: str
    licence: str
    consent: str
    edition: str
    antialiased: bool
    size: tuple[int, int]  # width, height in pixels that the camera is made for
    head_count: int  # Gaussians
    torso_count: int
    network_count: int  # head Gaussians with offset bases; 0: rigid binding
    network_rank: int
    anchor_count: int
    vertex_count: int
    face_count: int
    expressions: tuple[str, ...]
    landmarks: tuple[str, ...]
    has_preview: bool
    metadata: dict[str, str]


def save_avatar(avatar: Avatar, path: str | os.PathLike[str], preview: UInt8 | None = None) -> None:
    """Write an avatar file, all of it or nothing. The same avatar gives the same bytes.

    Args:
        avatar: checked first, so that an invalid one is never written.
        path: usually ends in ``.being``. An existing file is replaced.
        preview: a picture for file browsers, uint8 [H, W, 3] sRGB.

    Raises:
        InvalidParameterError: the avatar is not valid.
        AvatarFileError: the file cannot be written: disk full, no permission, no such folder.

    Example::

        save_avatar(demo_avatar("ada"), "ada.being")
    """
    validate_avatar(avatar)
    tensors = avatar_tensors(avatar) | rig_tensors(avatar.rig)
    members = {TENSORS: encode_tensors(tensors), BACKGROUND: _encode_picture(avatar.background)}
    if preview is not None:
        members[PREVIEW] = _encode_picture(preview)
    manifest = _manifest(avatar, members)
    with atomic_write(path, AvatarFileError) as temporary, open(temporary, "wb") as stream:
        write_container(stream, {MANIFEST: manifest, **members})


def load_avatar(path: str | os.PathLike[str]) -> Avatar:
    """Read and check an avatar file. Its arrays are read-only views of the mapped file, without a copy.

    While the avatar lives the file should not be changed in place; replacing it, as :func:`save_avatar` does, is fine
    (Windows refuses that until the avatar is gone).

    Raises:
        AvatarFileError: missing, damaged (a checksum differs), or not a valid avatar; one line says what.
        UnsupportedVersionError: written by a newer being_rt.

    Example::

        avatar = load_avatar("ada.being")
        renderer = Renderer(avatar)
    """
    with _open(path) as contents:
        for name, view in contents.members.items():
            if name != MANIFEST:
                _verify(contents.manifest, name, view)
        return _avatar(contents)


def inspect_avatar(path: str | os.PathLike[str]) -> AvatarSummary:
    """What an avatar file says about itself: reads the manifest and the tensors' header only, verifies no checksum.

    Raises:
        AvatarFileError, UnsupportedVersionError: as :func:`load_avatar`.

    Example::

        inspect_avatar("ada.being").head_count
    """
    with _open(path) as contents:
        manifest, tensors = contents.manifest, contents.tensors

        def size(name: str, axis: int) -> int:
            tensor = tensors.get(name)
            return tensor.shape[axis] if tensor is not None and tensor.ndim > axis else 0

        return AvatarSummary(
            path=str(path),
            file_size=Path(path).stat().st_size,
            format_version=contents.version,
            generator=_field(manifest, "generator", str),
            name=_field(manifest, "name", str),
            licence=_field(manifest, "licence", str),
            consent=_field(manifest, "consent", str),
            edition=_field(manifest, "edition", str),
            antialiased=_field(manifest, "antialiased", bool),
            size=_size(_field(manifest, "camera", dict)),
            head_count=size("head.position", 0),
            torso_count=size("torso.position", 0),
            network_count=size("network.basis", 0),
            network_rank=size("network.basis", 2),
            anchor_count=size("network.anchor_code", 0),
            vertex_count=size("rig.template", 0),
            face_count=size("rig.faces", 0),
            expressions=_expression_names(manifest),
            landmarks=tuple(landmark_names(tensors)),
            has_preview=PREVIEW in contents.members,
            metadata=_metadata(manifest),
        )


@dataclass
class _Contents:
    manifest: Manifest
    tensors: Tensors
    members: dict[str, memoryview]
    version: int  # of the file, before upgrades


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[_Contents]:
    """A mapped file as manifest, tensors and members of the current version; problems become one line."""
    with reading(path, "an avatar file", AvatarFileError):
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise ValueError("it is empty")
            data = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        members = read_container(data)
        for name in (MANIFEST, TENSORS, BACKGROUND):
            if name not in members:
                raise ValueError(f"it has no member {name}")
        manifest = read_manifest(members[MANIFEST])
        if manifest.get("format") != FORMAT:
            raise ValueError(f"its {MANIFEST} does not say that it is one")
        version = _field(manifest, "format_version", int)
        if version > FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"{path} has avatar format {version}, this being_rt reads up to {FORMAT_VERSION}; update being_rt"
            )
        tensors = decode_tensors(members[TENSORS], TENSORS)
        for step in range(version, FORMAT_VERSION):
            if step not in UPGRADES:
                raise ValueError(f"it has avatar format {step}, which never existed")
            UPGRADES[step](manifest, tensors)
        try:
            yield _Contents(manifest, tensors, members, version)
        except InvalidParameterError as problem:  # readable, but not a valid avatar
            raise ValueError(str(problem)) from problem


def _verify(manifest: Manifest, name: str, view: memoryview) -> None:
    entry = _field(_field(manifest, "members", dict), name, dict)
    if _field(entry, "bytes", int) != len(view) or _field(entry, "sha256", str) != hashlib.sha256(view).hexdigest():
        raise ValueError(f"its member {name} is damaged: the checksum does not match")


def _manifest(avatar: Avatar, members: dict[str, bytes]) -> bytes:
    expression_map = avatar.rig.expression_map
    manifest: Manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generator": f"being_rt {being_rt.__version__}",
        "name": avatar.name,
        "licence": avatar.licence,
        "consent": avatar.consent,
        "edition": avatar.rig.edition,
        "antialiased": avatar.antialiased,
        "camera": {
            "size": [int(side) for side in avatar.camera.size],
            "world_to_camera": avatar.camera.world_to_camera.tolist(),
            "intrinsics": avatar.camera.intrinsics.tolist(),
        },
        "seam": {name: float(getattr(avatar.seam, name)) for name in ("radius", "half_height", "depth_softness")},
        "expressions": None if expression_map is None else list(expression_map.names),
        "metadata": avatar.metadata,
        "members": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members.items()
        },
    }
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8")


def _avatar(contents: _Contents) -> Avatar:
    manifest, tensors = contents.manifest, dict(contents.tensors)
    expressions = None if manifest.get("expressions") is None else _expression_names(manifest)
    seam = _field(manifest, "seam", dict)
    seam_numbers = {name: _number(seam, name) for name in ("radius", "half_height", "depth_softness")}
    has_network = any(name.startswith("network.") for name in tensors)
    avatar = Avatar(
        name=_field(manifest, "name", str),
        rig=take_rig(tensors, _field(manifest, "edition", str), expressions),
        head=_record(HeadLayer, tensors, "head", gaussians=_record(Gaussians, tensors, "head")),
        torso=_record(TorsoLayer, tensors, "torso", gaussians=_record(Gaussians, tensors, "torso")),
        network=_record(AnchorLatentNetwork, tensors, "network") if has_network else None,
        seam=_record(Seam, tensors, "seam", **seam_numbers),
        camera=_camera(_field(manifest, "camera", dict)),
        background=_decode_picture(contents.members[BACKGROUND]),
        antialiased=_field(manifest, "antialiased", bool),
        licence=_field(manifest, "licence", str),
        consent=_field(manifest, "consent", str),
        metadata=_metadata(manifest),
    )
    if tensors:
        raise ValueError(f"it has an unexpected tensor {min(tensors)[:60]!r}")
    validate_avatar(avatar)
    return avatar


def _record(kind: type[Record], tensors: Tensors, prefix: str, **given: Any) -> Record:
    """A dataclass whose fields are given or are tensors ``prefix.field``, which are taken out of ``tensors``."""
    names = [field.name for field in fields(kind) if field.name not in given]  # type: ignore[arg-type]
    return kind(**given, **{name: take(tensors, f"{prefix}.{name}") for name in names})


def _field(table: Manifest, name: str, kind: type[Record]) -> Record:
    value = table.get(name)
    if type(value) is not kind or (kind is str and not is_text(value)):
        raise ValueError(f"its {MANIFEST} has no valid {name!r}")
    return value


def _number(table: Manifest, name: str) -> float:
    if type(table.get(name)) not in (int, float):
        raise ValueError(f"its {MANIFEST} has no valid {name!r}")
    return float(table[name])


def _metadata(manifest: Manifest) -> dict[str, str]:
    metadata = _field(manifest, "metadata", dict)
    if not all(is_text(text) for entry in metadata.items() for text in entry):
        raise ValueError(f"its {MANIFEST} has metadata that is not text")
    return metadata


def _expression_names(manifest: Manifest) -> tuple[str, ...]:
    if manifest.get("expressions") is None:
        return ()
    names = _field(manifest, "expressions", list)
    if not all(is_text(name) for name in names):
        raise ValueError(f"its {MANIFEST} has no valid 'expressions'")
    return tuple(names)


def _size(camera: Manifest) -> tuple[int, int]:
    size = _field(camera, "size", list)
    check_size("camera.size", tuple(size))
    return size[0], size[1]


def _camera(camera: Manifest) -> Camera:
    def matrix(name: str, side: int) -> NDArray[np.float32]:
        rows = _field(camera, name, list)
        flat = [number for row in rows if isinstance(row, list) for number in row]
        if len(rows) != side or len(flat) != side * side or not all(type(number) in (int, float) for number in flat):
            raise ValueError(f"its {MANIFEST} has no valid camera {name}")
        with np.errstate(over="ignore"):  # becomes infinite, and the camera's check refuses it
            return np.array(flat, np.float64).astype(np.float32).reshape(side, side)

    return Camera(matrix("world_to_camera", 4), matrix("intrinsics", 3), _size(camera))


def _encode_picture(picture: UInt8) -> bytes:
    from PIL import Image

    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise InvalidParameterError(f"a picture must be uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()


def _decode_picture(view: memoryview) -> UInt8:
    from PIL import Image

    with Image.open(io.BytesIO(view), formats=["PNG"]) as image:
        if image.mode != "RGB":
            raise ValueError(f"its {BACKGROUND} is not an 8-bit RGB picture")
        check_size(f"{BACKGROUND} size", image.size)
        return np.array(image)
