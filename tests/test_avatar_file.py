"""Avatar files: what is saved comes back, what is wrong is one typed line, and nothing half-written stays."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file
from scenes import make_avatar

from being_rt.avatar import file as avatar_file
from being_rt.avatar.avatar import Avatar
from being_rt.avatar.container import ALIGNMENT
from being_rt.avatar.file import inspect_avatar, load_avatar, save_avatar
from being_rt.avatar.validation import NETWORK_TENSORS, TENSORS, avatar_tensors, validate_avatar
from being_rt.errors import AvatarFileError, BeingError, InvalidParameterError, UnsupportedVersionError
from being_rt.flame.model import ExpressionMap
from being_rt.tensor_file import encode_tensors


def small_avatar(**changes: Any) -> Avatar:
    """A small avatar that has every optional part."""
    avatar = make_avatar(seed=3, head_count=60, torso_count=30, segments=8, rings=6, rank=4, size=(32, 24))
    random_ = np.random.default_rng(5)
    names = ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft")
    rig = replace(
        avatar.rig,
        expression_map=ExpressionMap(names, random_.normal(size=(3, 111)).astype(np.float32)),
        landmarks={
            "inner_lips_upper": (np.array([1, 4], np.int32), np.array([[1, 0, 0], [0.5, 0.25, 0.25]], np.float32)),
            "dlib68": (np.zeros(0, np.int32), np.zeros((0, 3), np.float32)),
        },
    )
    return replace(avatar, rig=rig, metadata={"made by": "test", "note": "zwei\nZeilen, ünïcode"}, **changes)


def assert_equal(one: Any, other: Any, where: str = "avatar") -> None:
    """Records equal in every field, arrays in dtype, shape and every bit."""
    if is_dataclass(one):
        assert type(one) is type(other), where
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        assert one.shape == other.shape, where
        assert one.tobytes() == other.tobytes(), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}[{key}]")
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b, where)
    else:
        assert one == other, where


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.being"
    save_avatar(small_avatar(), path)
    return path


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None], seal: bool = True) -> Path:
    """Rewrite members as another program might; with ``seal`` the checksums are made to fit again."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if seal and "manifest.json" in members:
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in members.items()
            if name != "manifest.json"
        }
        members["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def change_manifest(path: Path, **changes: Any) -> Path:
    def change(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"]) | changes
        members["manifest.json"] = json.dumps({k: v for k, v in manifest.items() if v is not ...}).encode()

    return rewrite(path, change)


def change_tensors(path: Path, **changes: Any) -> Path:
    """Keys spell dots as double underscores; ``...`` removes a tensor."""

    def change(members: dict[str, bytes]) -> None:
        tensors = avatar_tensors(small_avatar())
        tensors |= {name.replace("__", "."): value for name, value in changes.items()}
        members["avatar.safetensors"] = encode_tensors({k: v for k, v in tensors.items() if v is not ...})

    return change_manifest(rewrite(path, change), expressions=None)


@pytest.mark.parametrize("network", [True, False])
def test_a_saved_avatar_comes_back_bit_for_bit(tmp_path: Path, network: bool) -> None:
    avatar = small_avatar() if network else replace(small_avatar(), network=None, antialiased=False)
    save_avatar(avatar, tmp_path / "a.being")
    assert_equal(load_avatar(tmp_path / "a.being"), avatar)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    head=st.integers(0, 40),
    torso=st.integers(0, 20),
    network=st.booleans(),
    name=st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30),
    note=st.text(st.characters(categories=["L", "N", "P", "S", "Zs"], include_characters="\n\t"), max_size=100),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_every_avatar_comes_back(
    tmp_path: Path, seed: int, head: int, torso: int, network: bool, name: str, note: str, size: tuple[int, int]
) -> None:
    avatar = make_avatar(seed, head, torso, segments=4, rings=4, network=network, rank=1 + seed % 5, size=size)
    avatar = replace(avatar, name=name, consent=note.replace("\u00a0", ""), metadata={name: "x"})
    try:
        validate_avatar(avatar)
    except InvalidParameterError:  # spaces other than the plain one are not printable to Python
        return
    save_avatar(avatar, tmp_path / "any.being")
    assert_equal(load_avatar(tmp_path / "any.being"), avatar)


def test_the_same_avatar_gives_the_same_bytes(tmp_path: Path) -> None:
    save_avatar(small_avatar(), tmp_path / "a.being")
    save_avatar(load_avatar(tmp_path / "a.being"), tmp_path / "b.being")
    assert (tmp_path / "a.being").read_bytes() == (tmp_path / "b.being").read_bytes()


def test_loaded_arrays_are_aligned_read_only_views_of_the_file(saved: Path) -> None:
    avatar = load_avatar(saved)
    for name, tensor in avatar_tensors(avatar).items():
        assert not tensor.flags.writeable, name
        assert tensor.flags.aligned, name
        assert not tensor.flags.owndata, name
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        content = archive.read("avatar.safetensors")
    (header_size,) = struct.unpack("<Q", content[:8])
    assert (data.index(content) + 8 + header_size) % ALIGNMENT == 0


def test_other_tools_read_the_members(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", "avatar.safetensors", "background.png"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        archive.extract("avatar.safetensors", tmp_path)
        background = np.asarray(Image.open(archive.open("background.png")))
        manifest = json.load(archive.open("manifest.json"))
    tensors = load_file(tmp_path / "avatar.safetensors")
    avatar = small_avatar()
    assert avatar_tensors(avatar).keys() <= tensors.keys()
    assert np.array_equal(tensors["network.basis"], avatar.network.basis)  # type: ignore[union-attr]
    assert np.array_equal(background, avatar.background)
    assert manifest["format_version"] == avatar_file.FORMAT_VERSION
    assert manifest["camera"]["size"] == [32, 24]


def test_a_file_that_another_zip_program_packed_still_loads(saved: Path) -> None:
    assert_equal(load_avatar(rewrite(saved, lambda members: None)), small_avatar())


def test_inspect_tells_what_is_in_the_file(saved: Path) -> None:
    summary = inspect_avatar(saved)
    assert summary.name == "egg-3"
    assert summary.head_count == 60
    assert summary.torso_count == 30
    assert summary.network_count == 36
    assert summary.network_rank == 4
    assert summary.size == (32, 24)
    assert summary.expressions == ("jawOpen", "eyeBlinkLeft", "mouthSmileLeft")
    assert summary.landmarks == ("dlib68", "inner_lips_upper")
    assert summary.metadata["made by"] == "test"
    assert summary.file_size == saved.stat().st_size
    assert not summary.has_preview
    avatar = small_avatar()
    save_avatar(replace(avatar, network=None), saved, preview=np.zeros((8, 8, 3), np.uint8))
    assert inspect_avatar(saved).has_preview
    assert inspect_avatar(saved).network_count == 0
    assert_equal(load_avatar(saved), replace(avatar, network=None))


def test_inspect_does_not_read_the_data(saved: Path) -> None:
    rewrite(saved, lambda members: members.update({"background.png": b"damaged"}), seal=False)
    assert inspect_avatar(saved).head_count == 60
    with pytest.raises(AvatarFileError, match=r"background\.png is damaged: the checksum does not match"):
        load_avatar(saved)


def test_newer_versions_are_refused_by_name(saved: Path) -> None:
    change_manifest(saved, format_version=3, surprise=True, camera="holographic")
    for read in (load_avatar, inspect_avatar):
        with pytest.raises(UnsupportedVersionError, match=r"small\.being has avatar format 3, .* update being_rt"):
            read(saved)


def test_older_versions_are_upgraded_step_by_step(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if version 3 had renamed a tensor and version 4 had added a required text to the manifest."""
    with pytest.raises(AvatarFileError, match="has avatar format 0, which never existed"):
        load_avatar(change_manifest(saved, format_version=0))

    def to_3(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
        tensors["head.position"] = tensors.pop("head.centre")

    def to_4(manifest: dict[str, Any], tensors: dict[str, Any]) -> None:
        manifest["consent"] = f"{manifest['name']}: not recorded"

    monkeypatch.setattr(avatar_file, "FORMAT_VERSION", 4)
    monkeypatch.setitem(avatar_file.UPGRADES, 2, to_3)
    monkeypatch.setitem(avatar_file.UPGRADES, 3, to_4)
    change_tensors(saved, head__position=..., head__centre=small_avatar().head.gaussians.position)
    change_manifest(saved, format_version=2, consent=...)
    avatar = load_avatar(saved)
    assert avatar.consent == "egg-3: not recorded"
    assert np.array_equal(avatar.head.gaussians.position, small_avatar().head.gaussians.position)
    assert inspect_avatar(saved).format_version == 2


def test_bodies_of_version_1_do_not_answer_the_motion(saved: Path) -> None:
    change_tensors(saved, torso__response=..., torso__response_range=...)
    torso = load_avatar(change_manifest(saved, format_version=1)).torso
    assert not torso.response.any()
    assert not torso.response_range.any()
    assert np.array_equal(torso.weights, small_avatar().torso.weights)


@pytest.mark.parametrize("name", sorted(TENSORS | NETWORK_TENSORS))
def test_every_tensor_is_checked(saved: Path, name: str) -> None:
    tensor = avatar_tensors(small_avatar())[name]
    bad: list[tuple[Any, str]] = [(..., f"has no tensor '{name}'"), (tensor[None], f"{name} must be")]
    bad.append((tensor.astype(np.uint8 if tensor.dtype != np.uint8 else np.float32), f"{name} must be"))
    if tensor.ndim > 1:
        bad.append((np.concatenate([tensor, tensor[..., :1]], -1), "must be|must have"))
    if tensor.dtype.kind == "f":
        for value in (np.nan, np.inf, -np.inf):
            spoiled = tensor.copy()
            spoiled.reshape(-1)[-1] = value
            bad.append((spoiled, f"{name} has values that are NaN or infinite"))
    if name in ("rig.faces", "head.face", "seam.head_band", "seam.torso_band", "network.anchor_index"):
        for value in (-1, 65535) if tensor.dtype.kind == "i" else (65535,):
            spoiled = tensor.copy()
            spoiled.reshape(-1)[0] = value
            bad.append((spoiled, f"{name} has indices outside"))
    if name in ("rig.skinning_weights", "head.barycentric", "torso.weights", "network.anchor_weight"):
        bad.append((tensor * np.float32(1.01), f"{name} has rows that do not sum to 1"))
    if name.endswith(".rotation"):
        bad.append((tensor * np.float32(1.01), "quaternions that are not of length 1"))
    original = saved.read_bytes()
    for value, message in bad:
        saved.write_bytes(original)
        with pytest.raises(AvatarFileError, match=message) as caught:
            load_avatar(change_tensors(saved, **{name.replace(".", "__"): value}))
        assert "\n" not in str(caught.value)
        assert str(saved) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name must be one line of text"),
        ({"name": "a\nb"}, "name must be one line of text"),
        ({"name": "\x1b[2J"}, "no valid 'name'"),
        ({"name": 3}, "no valid 'name'"),
        ({"name": ...}, "no valid 'name'"),
        ({"format": "other"}, "does not say that it is one"),
        ({"format_version": "1"}, "no valid 'format_version'"),
        ({"format_version": True}, "no valid 'format_version'"),
        ({"antialiased": 1}, "no valid 'antialiased'"),
        ({"metadata": {"a": 1}}, "metadata that is not text"),
        ({"metadata": []}, "no valid 'metadata'"),
        ({"consent": "x" * 30_000}, "no valid 'consent'"),
        ({"expressions": ["one"]}, r"ExpressionMap\.matrix must be float32 \[1, 111\]"),
        ({"expressions": ["a", "a", "b"]}, "expression_map has a name twice"),
        ({"expressions": [1, 2, 3]}, "no valid 'expressions'"),
        ({"expressions": None}, "unexpected tensor 'expression_map.matrix'"),
        ({"seam": {"radius": 0.1, "half_height": 0.1}}, "no valid 'depth_softness'"),
        ({"seam": {"radius": -1, "half_height": 0.1, "depth_softness": 0.1}}, r"seam\.radius must lie in"),
        ({"seam": {"radius": 10**400, "half_height": 0.1, "depth_softness": 0.1}}, "int too large"),
        ({"camera": {"size": [0, 5]}}, "camera"),
        ({"camera": {"size": [1 << 30, 5]}}, "camera"),
    ],
)
def test_every_field_of_the_manifest_is_checked(saved: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AvatarFileError, match=message) as caught:
        load_avatar(change_manifest(saved, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 24)}, "camera.size must be two whole numbers"),
        ({"size": (16384, 16384)}, "at most 67108864 pixels"),
        ({"intrinsics": np.diag([-1, 1, 1]).astype(np.float32)}, "camera.intrinsics must be"),
        ({"intrinsics": np.ones((3, 3), np.float32)}, "camera.intrinsics must be"),
        ({"world_to_camera": 2 * np.eye(4, dtype=np.float32)}, "must be a rotation and a translation"),
        ({"world_to_camera": np.diag([-1, 1, 1, 1]).astype(np.float32)}, "must be a rotation and a translation"),
        ({"world_to_camera": np.eye(4)}, "camera.world_to_camera must be float32"),
        ({"world_to_camera": np.full((4, 4), np.nan, np.float32)}, "NaN or infinite"),
    ],
)
def test_cameras_are_checked(change: dict[str, Any], message: str) -> None:
    avatar = small_avatar()
    with pytest.raises(InvalidParameterError, match=message):
        validate_avatar(replace(avatar, camera=replace(avatar.camera, **change)))


def test_what_cannot_be_drawn_is_refused() -> None:
    avatar = small_avatar()
    gaussians = avatar.head.gaussians

    def refused(changed: Avatar, message: str) -> None:
        with pytest.raises(InvalidParameterError, match=message):
            validate_avatar(changed)

    def with_gaussians(**changes: Any) -> Avatar:
        return replace(avatar, head=replace(avatar.head, gaussians=replace(gaussians, **changes)))

    refused(with_gaussians(log_scale=gaussians.log_scale + 50), r"head\.log_scale has values outside -20\.\.20")
    refused(with_gaussians(position=gaussians.position + 1e6), "beyond 1 km")
    flat = avatar.rig.face_frames.copy()
    flat[avatar.head.face[0]] = 0
    refused(replace(avatar, rig=replace(avatar.rig, face_frames=flat)), "triangles without area")
    refused(replace(avatar, seam=replace(avatar.seam, axis=np.ones(3, np.float32))), "seam.axis must be of length 1")
    band = replace(avatar.seam, torso_band_weight=avatar.seam.torso_band_weight + 2)
    refused(replace(avatar, seam=band), "outside 0..1")
    refused(replace(avatar, background=np.zeros((24, 32), np.uint8)), r"background must be uint8 \[H, W, 3\]")
    refused(replace(avatar, antialiased=1), "antialiased must be True or False")
    refused(replace(avatar, rig=replace(avatar.rig, template=None)), r"rig\.template must be float32 .* got NoneType")
    more = make_avatar(head_count=200).network
    refused(replace(avatar, network=more), "network.basis has 120 rows for 60 head Gaussians")


def test_an_invalid_avatar_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError):
        save_avatar(replace(small_avatar(), name=""), tmp_path / "a.being")
    with pytest.raises(InvalidParameterError, match=r"a picture must be uint8 \[H, W, 3\]"):
        save_avatar(small_avatar(), tmp_path / "a.being", preview=np.zeros((4, 4), np.uint8))
    assert list(tmp_path.iterdir()) == []


def zip_of(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_containers_that_are_not_what_they_should_be(saved: Path) -> None:
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    cases = {
        "it is empty": b"",
        "too short": b"PK",
        "not a zip file": b"x" * 1000,
        "truncated": data[:-1],
        "directory is damaged": data + data[-22:],
        r"unexpected member '\.\./evil'": zip_of([*members, ("../evil", b"")]),
        r"unexpected member '/etc/passwd'": zip_of([("/etc/passwd", b""), *members]),
        r"unexpected member 'manifest\.json'": zip_of([*members, members[0]]),
        "compressed": zip_of(members, zipfile.ZIP_DEFLATED),
        r"no member background\.png": zip_of(members[:2]),
        r"no member manifest\.json": zip_of(members[1:]),
        r"zip directory": zip_of([(str(i), b"") for i in range(500)]),
        "not valid JSON": zip_of([("manifest.json", b"[" * 100_000), *members[1:]]),
        "longer than 1 MB": zip_of([("manifest.json", b" " * (1 << 21)), *members[1:]]),
        "is not a JSON object": zip_of([("manifest.json", b"[]"), *members[1:]]),
        "NaN is not a number": zip_of([("manifest.json", b'{"a": NaN}'), *members[1:]]),
        "a key occurs twice": zip_of([("manifest.json", b'{"a": 1, "a": 2}'), *members[1:]]),
    }
    for message, content in cases.items():
        saved.write_bytes(content)
        for read in (load_avatar, inspect_avatar):
            with pytest.raises(AvatarFileError, match=message):
                read(saved)


def test_members_that_overlap_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    place = data.rindex(b"background.png") - 46  # its directory entry
    (size,) = struct.unpack_from("<L", data, place + 24)
    struct.pack_into("<2L", data, place + 20, size + 1, size + 1)
    saved.write_bytes(data)
    with pytest.raises(AvatarFileError, match="overlap"):
        load_avatar(saved)


def safetensors(header: Any, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header of its avatar.safetensors is damaged"),
        (safetensors(b"[1]"), "not a JSON object"),
        (safetensors({"a": 1}), "damaged or unsupported header"),
        (safetensors({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)), "unsupported header"),
        (safetensors({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(3)), "does not have the size"),
        (safetensors({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 4]}}, bytes(4)), "does not have the size"),
        (safetensors({"a": {"dtype": "U8", "shape": [-1, -4], "data_offsets": [0, 4]}}, bytes(4)), "impossible shape"),
        (safetensors({"a": {"dtype": "U8", "shape": [1 << 40, 0], "data_offsets": [0, 0]}}), "impossible shape"),
        (safetensors({"a": {"dtype": "U8", "shape": [4.0], "data_offsets": [0, 4]}}, bytes(4)), "impossible shape"),
        (safetensors({"a": {"dtype": "U8", "shape": [1] * 9, "data_offsets": [0, 1]}}, bytes(1)), "impossible shape"),
        (safetensors({"a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}}, bytes(4)), "impossible shape"),
        (safetensors({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(5)), "leave gaps"),
        (
            safetensors({"a\n": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, bytes(1)),
            "whose name is not printable",
        ),
        (safetensors({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2"), "truth values"),
        (
            safetensors({n: {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]} for n in "ab"}, bytes(2)),
            "overlap or leave gaps",
        ),
    ],
)
def test_tensors_that_are_not_what_they_should_be(saved: Path, data: bytes, message: str) -> None:
    rewrite(saved, lambda members: members.update({"avatar.safetensors": data}))
    with pytest.raises(AvatarFileError, match=message):
        load_avatar(saved)


def test_backgrounds_that_are_not_pictures(saved: Path) -> None:
    def picture(mode: str, kind: str, size: tuple[int, int] = (4, 4)) -> bytes:
        stream = io.BytesIO()
        Image.new(mode, size).save(stream, kind)
        return stream.getvalue()

    original = saved.read_bytes()
    for data, message in [
        (b"not a picture", "cannot identify image"),
        (picture("RGB", "PNG", (64, 64))[:60], "background.png|truncated|broken|not an avatar"),
        (picture("RGBA", "PNG"), "not an 8-bit RGB picture"),
        (picture("RGB", "BMP"), "cannot identify image"),
        (picture("RGB", "PNG", (20_000, 1)), "must be two whole numbers from 1 to 16384"),
    ]:
        saved.write_bytes(original)
        rewrite(saved, lambda members, data=data: members.update({"background.png": data}))  # type: ignore[misc]
        with pytest.raises(AvatarFileError, match=message) as caught:
            load_avatar(saved)
        assert "\n" not in str(caught.value)


def test_missing_files_and_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(AvatarFileError, match=r"absent\.being does not exist"):
        load_avatar(tmp_path / "absent.being")
    with pytest.raises(AvatarFileError, match="cannot read"):
        load_avatar(tmp_path)
    with pytest.raises(AvatarFileError, match="the folder does not exist; create it first"):
        save_avatar(small_avatar(), tmp_path / "no" / "such" / "a.being")


@pytest.mark.parametrize("before", [b"", b"old content"])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    path = tmp_path / "a.being"
    if before:
        path.write_bytes(before)

    def full(stream: Any, members: Any) -> None:
        stream.write(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(avatar_file, "write_container", full)
    with pytest.raises(AvatarFileError, match=r"cannot write .*a\.being: the disk is full; free some space"):
        save_avatar(small_avatar(), path)
    assert [p.name for p in tmp_path.iterdir()] == (["a.being"] if before else [])
    assert not before or path.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="RLIMIT_FSIZE is POSIX")
def test_a_real_size_limit_leaves_nothing_half_written(tmp_path: Path) -> None:
    import resource
    import signal

    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old_limit[1]))
    try:
        with pytest.raises(AvatarFileError, match=r"cannot write .*size limit"):
            save_avatar(small_avatar(), tmp_path / "a.being")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_give_being_errors_alone(saved: Path) -> None:
    """Any change is found out: by structure, by checksum, or because it lies where nothing is."""
    data = saved.read_bytes()
    reference = small_avatar()
    header = data.index(b"avatar.safetensors")
    structure = [*range(0, 4500), *range(header - 40, header + 6000), *range(len(data) - 400, len(data))]
    source = random.Random(11)
    outcomes = set()
    for _ in range(600):
        broken = bytearray(data)
        kind = source.randrange(4)
        at = source.choice(structure) if source.random() < 0.8 else source.randrange(len(data))
        if kind == 0:
            broken[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del broken[at:]
        elif kind == 2:
            del broken[at : at + source.randint(1, 40)]
        else:
            start = source.randrange(len(data))
            broken[at:at] = data[start : start + source.randint(1, 40)]
        saved.unlink()
        saved.write_bytes(broken)
        try:
            inspect_avatar(saved)
        except BeingError:
            outcomes.add("not even inspected")
        try:
            avatar = load_avatar(saved)
        except BeingError as error:
            outcomes.add(f"{type(error).__name__} in {len(str(error).splitlines())} line")
        else:
            outcomes.add("loaded")
            assert_equal(avatar, reference)
    assert outcomes <= {"not even inspected", "loaded", "AvatarFileError in 1 line"}
    assert "AvatarFileError in 1 line" in outcomes


def test_resealed_damage_gives_being_errors_alone(saved: Path) -> None:
    """The same with checksums that fit, as a hostile writer would make them: the checks behind them must hold."""
    original = saved.read_bytes()
    source = random.Random(12)
    outcomes = set()
    for _ in range(300):
        saved.unlink()
        saved.write_bytes(original)

        def damage(members: dict[str, bytes]) -> None:
            name = source.choice(["manifest.json", "avatar.safetensors"])
            data = bytearray(members[name])
            end = len(data) if name == "manifest.json" or source.random() < 0.3 else 6000
            for _ in range(source.randint(1, 3)):
                data[source.randrange(end)] = source.choice(b'0179-.eE{}[]",:nt \xff')
            members[name] = bytes(data)

        try:
            rewrite(saved, damage)
        except ValueError:  # no longer JSON, so it cannot be sealed; tried above
            continue
        try:
            load_avatar(saved)
            outcomes.add("loaded")
        except BeingError as error:
            outcomes.add(f"{len(str(error).splitlines())} line")
    assert outcomes == {"loaded", "1 line"}


def test_replacing_a_loaded_file_leaves_the_avatar_alone(saved: Path) -> None:
    avatar = load_avatar(saved)
    before = avatar.head.gaussians.position.copy()
    save_avatar(make_avatar(seed=9, head_count=10, torso_count=5, size=(8, 8)), saved)
    assert np.array_equal(avatar.head.gaussians.position, before)
    shutil.rmtree(saved.parent)
    assert np.array_equal(avatar.head.gaussians.position, before)
