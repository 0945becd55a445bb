"""Readers of trackers that see square crops: flame-head-tracker and GAGAvatar_track, and the latter's LMDB files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_formats import (
    FRAMES,
    Truth,
    converted,
    error_px,
    mask,
    model,
    picture,
    save,
    truth,
    write_flame_head_tracker,
    write_gagavatar,
    write_lmdb,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from being_rt.dataset import Crop
from being_rt.dataset.convert import convert
from being_rt.dataset.readers import ReadOptions, detect_format
from being_rt.dataset.readers.crops import parse_crop
from being_rt.dataset.readers.lmdb_file import LmdbFile
from being_rt.errors import BeingError, DatasetError
from being_rt.flame.rotations import matrices

TOLERANCE = 0.02  # pixels, of a head some 250 pixels high


def central(kind: str, size: tuple[int, int] = (512, 512)) -> Truth:
    """A recording as the tracker sees it: a camera that moves, and looks at the middle of its picture."""
    known = truth(moving=True, posed=False)
    if kind == "flame-head-tracker":
        focal = 0.5 * 256 / np.tan(np.radians(10))  # 20 degrees, the tracker's default
        k = np.diag([focal * size[0] / 256, focal * size[1] / 256, 1.0])
    else:
        k = np.diag([12 * 256, 12 * 256, 1.0])
    k[:2, 2] = np.array(size) / 2
    poses = known.poses.copy()
    poses[:, 2, 3] += 0.3 if kind == "flame-head-tracker" else 1.6
    fields = known.fields
    if kind == "flame-head-tracker":
        fields = {**fields, "neck": np.random.default_rng(5).normal(0, 0.1, (FRAMES, 3))}
    return Truth(known.shape, fields, poses, k, size)


WRITERS: dict[str, Callable[..., Path]] = {
    "flame-head-tracker": write_flame_head_tracker,
    "gagavatar": write_gagavatar,
}


@pytest.mark.parametrize("size", [(512, 512), (320, 180)], ids=["realigned", "squeezed"])
def test_flame_head_tracker(tmp_path: Path, size: tuple[int, int]) -> None:
    known = central("flame-head-tracker", size)
    source = write_flame_head_tracker(tmp_path / "video", known)
    (source / "texture.png").touch()
    assert detect_format(source).name == "flame-head-tracker"
    dataset = converted(source)
    assert dataset.size == size
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert len(dataset.cameras) == 1
    assert np.abs(dataset.params.rotation).max() > 0.05  # the camera's motion became the head's
    for i in range(FRAMES):
        assert np.array_equal(dataset.image(i), picture(i, size))
        person = dataset.mask(i)
        assert not person[: size[1] // 2 - 1].any()
        assert (person[size[1] // 2 + 1 :] == 255).all()


def test_flame_head_tracker_by_landmarks_has_no_neck(tmp_path: Path) -> None:
    known = central("flame-head-tracker")
    resting = Truth(
        known.shape, {**known.fields, "neck": np.zeros((FRAMES, 3))}, known.poses, known.intrinsics, (512, 512)
    )
    source = write_flame_head_tracker(tmp_path / "video", known, photometric=False)
    assert error_px(converted(source), resting.pixels()) < TOLERANCE


def test_frames_without_a_face_are_left_out(tmp_path: Path) -> None:
    known = central("flame-head-tracker")
    source = write_flame_head_tracker(tmp_path / "video", known, first=7)
    (source / "9.npz").unlink()
    dataset, notes = convert(source, tmp_path / "out", model())
    assert any("1 frames between the first and the last have no track" in note for note in notes)
    assert dataset.count == FRAMES - 1
    kept = [0, 1, 3, 4]
    assert error_px(dataset, known.pixels()[kept]) < TOLERANCE
    assert np.array_equal(dataset.image(2), picture(3, (512, 512)))
    for i in range(FRAMES):
        save(tmp_path / "film" / f"{i + 7}.png", picture(i, (512, 512)))
    again = convert(source, tmp_path / "again", model(), ReadOptions(images=tmp_path / "film"))[0]
    assert np.array_equal(again.image(2), picture(3, (512, 512)))
    assert not again.has_mask(0)


@pytest.mark.parametrize("smoothed", [True, False])
def test_gagavatar(tmp_path: Path, smoothed: bool) -> None:
    known = central("gagavatar")
    source = write_gagavatar(tmp_path / "obama", known, smoothed=smoothed)
    assert detect_format(source).name == "gagavatar"
    dataset, notes = convert(source, tmp_path / "out", model())
    assert error_px(dataset, known.pixels()) < TOLERANCE  # though the file begins with frame 10
    assert any("no masks are kept" in note for note in notes)
    for i in range(FRAMES):
        assert np.abs(dataset.image(i).astype(int) - picture(i, (512, 512))).max() <= 4  # JPEG
        assert not dataset.has_mask(i)
        save(tmp_path / "masks" / f"{i + 8:06}.png", mask(i, (512, 512)))
    masked = convert(source, tmp_path / "masked", model(), ReadOptions(masks=tmp_path / "masks"))[0]
    assert np.array_equal(masked.mask(2), mask(2, (512, 512)))


def test_the_smoothed_track_is_preferred(tmp_path: Path) -> None:
    known = central("gagavatar")
    source = write_gagavatar(tmp_path / "obama", known)
    other = replace(known, poses=known.poses[::-1].copy())
    write_gagavatar(tmp_path / "other", other, smoothed=False)
    (tmp_path / "other" / "optim.pkl").replace(source / "optim.pkl")
    assert error_px(converted(source), known.pixels()) < TOLERANCE


@pytest.mark.parametrize("kind", list(WRITERS))
@pytest.mark.parametrize("crop", ["padded", "centred", "60,201,20,179"])
def test_tracks_of_a_padded_and_resized_crop_on_the_original_frames(tmp_path: Path, kind: str, crop: str) -> None:
    """The tracker saw a square of 512, whose middle is its principal point; the data set is of the frames as filmed."""
    original = (320, 180)
    tracked = central(kind)
    # By hand, from what each crop does to a picture: scale, and where its left upper corner was.
    left, top, side_x, side_y = {
        "padded": (0, -70, 320, 320),
        "centred": (70, 0, 180, 180),
        "60,201,20,179": (51, 20, 159, 159),
    }[crop]
    k = tracked.intrinsics.copy()
    k[0] *= side_x / 512
    k[1] *= side_y / 512
    k[:2, 2] += [left, top]
    filmed = Truth(tracked.shape, tracked.fields, tracked.poses, k, original)
    source = WRITERS[kind](tmp_path / "tracked", tracked, first=3)
    for i in range(FRAMES):
        save(tmp_path / "film" / f"frame_{i + 3:04d}.png", picture(i, original))
        save(tmp_path / "alpha" / f"{i + 3}.png", mask(i, original))
    options = {"images": tmp_path / "film", "masks": tmp_path / "alpha"}
    with pytest.raises(DatasetError, match="has pictures of 320x180, the tracks are of pictures of 512x512"):
        converted(source, **options)
    dataset = converted(source, **options, crop=crop)
    assert dataset.size == original
    assert error_px(dataset, filmed.pixels()) < TOLERANCE
    assert "at 512x512" in dataset.metadata["tracked on"]
    for i in range(FRAMES):
        assert np.array_equal(dataset.image(i), picture(i, original))
        assert np.array_equal(dataset.mask(i), mask(i, original))


def test_a_centred_crop() -> None:
    assert parse_crop("centred", (320, 181), (128, 128)) == Crop(69.5, 0, 181, 181, (128, 128), (320, 181))


def change_npz(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        arrays = {**np.load(folder / "2.npz"), **changes}
        np.savez(folder / "2.npz", **{name: value for name, value in arrays.items() if value is not ...})

    return spoil


def change_pickle(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        frames = pickle.loads((folder / "smoothed.pkl").read_bytes())
        changed = change(frames)
        (folder / "smoothed.pkl").write_bytes(pickle.dumps(frames if changed is None else changed))

    return spoil


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/never",)


K = np.float32([[[700, 0, 128], [0, 700, 128], [0, 0, 1]]])


@pytest.mark.parametrize(
    ("kind", "spoil", "message"),
    [
        ("flame-head-tracker", change_npz(K=...), r"2\.npz is not a frame of flame-head-tracker 4: it has no K"),
        ("flame-head-tracker", change_npz(K=K), r"2\.npz: its intrinsics differ .* a fixed focal length"),
        ("flame-head-tracker", change_npz(K=-K), r"2\.npz has impossible intrinsics"),
        ("flame-head-tracker", change_npz(cam=np.full((1, 6), np.nan)), r"2\.npz: its cam is not finite"),
        ("flame-head-tracker", change_npz(cam=np.zeros(6)), r"cam must be numbers \[1, 6\], it is \[6\]"),
        ("flame-head-tracker", change_npz(jaw_pose=np.full((1, 3), np.inf)), r"2\.npz: its jaw is not finite"),
        ("flame-head-tracker", change_npz(img=np.zeros((1, 8, 8), np.uint8)), r"img must be uint8 \[1, H, W, 3\]"),
        ("flame-head-tracker", change_npz(img=np.zeros((1, 8, 8, 3), np.uint8)), "frames of different sizes"),
        ("flame-head-tracker", change_npz(parsing=...), r"2\.npz has no parsing"),
        ("flame-head-tracker", change_npz(shape=np.zeros((1, 5))), "identities of the frames have different lengths"),
        ("flame-head-tracker", lambda f: (f / "2.npz").write_bytes(b"PK"), r"2\.npz is not an \.npz file, or damaged"),
        ("gagavatar", change_pickle(lambda f: f["obama_10"].update(expcode=None)), r"10': expcode must be .* absent"),
        ("gagavatar", change_pickle(lambda f: f["obama_10"].update(eyecode=np.zeros(3))), r"eyecode must be .*\[6\]"),
        (
            "gagavatar",
            change_pickle(lambda f: f["obama_10"].update(transform_matrix=1.1 * np.eye(4)[:3])),
            r"obama_10'.*axes are not orthonormal",
        ),
        (
            "gagavatar",
            change_pickle(lambda f: f["obama_10"]["posecode"].fill(np.nan)),
            r"obama_10': its rotation is not finite|obama_10': its jaw is not finite",
        ),
        ("gagavatar", change_pickle(lambda f: f.update(obama=f.pop("obama_10"))), "does not end in its number"),
        ("gagavatar", change_pickle(lambda f: f.update(obama_99=f.pop("obama_10"))), "no picture of frame 'obama_99'"),
        ("gagavatar", change_pickle(lambda f: [1, 2]), "is not a track of GAGAvatar_track: it has no frames"),
        ("gagavatar", change_pickle(lambda f: {"a_1": 3}), "its frames have no names or no values"),
        ("gagavatar", change_pickle(lambda f: f.update(evil=Evil())), "posix.system"),
        ("gagavatar", lambda f: (f / "smoothed.pkl").write_bytes(b""), "is not a pickle of tracks, or damaged"),
        ("gagavatar", lambda f: (f / "img_lmdb/data.mdb").unlink(), r"data\.mdb does not exist: say where the images"),
        ("gagavatar", lambda f: (f / "img_lmdb/data.mdb").write_bytes(b"x" * 9000), "is not an LMDB file, or damaged"),
        ("gagavatar", lambda f: (f / "img_lmdb/data.mdb").write_bytes(b""), "is not an LMDB file, or damaged"),
        (
            "gagavatar",
            lambda f: write_lmdb(f / "img_lmdb/data.mdb", {f"obama_{i}": b"no JPEG" for i in range(8, 13)}),
            r"data\.mdb, obama_8 is not a PNG or JPEG picture",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, kind: str, spoil: Callable[[Path], object], message: str) -> None:
    source = WRITERS[kind](tmp_path / "source", central(kind))
    spoil(source)
    with pytest.raises(DatasetError, match=message) as caught:
        converted(source)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_identity_that_changes_is_said(tmp_path: Path) -> None:
    source = write_flame_head_tracker(tmp_path / "video", central("flame-head-tracker"))
    change_npz(shape=np.zeros((1, 300), np.float32))(source)
    notes = convert(source, tmp_path / "out", model())[1]
    assert any("the identity changes between frames" in note for note in notes)


def test_formats_are_not_confused(tmp_path: Path) -> None:
    (tmp_path / "0.npz").write_bytes(b"not a zip")
    with pytest.raises(
        DatasetError, match=r"of no known format .*flame-head-tracker: 0\.npz .*gagavatar: smoothed\.pkl"
    ):
        detect_format(tmp_path)
    np.savez(tmp_path / "0.npz", something=np.zeros(3))
    with pytest.raises(DatasetError, match="of no known format"):
        detect_format(tmp_path)


def test_angles_are_about_y_x_and_z(tmp_path: Path) -> None:
    """The order in the file, spelled out once more: a camera that is turned about one axis at a time."""
    known = central("flame-head-tracker")
    poses = known.poses.copy()
    for i, turn in enumerate([[0.3, 0, 0], [0, 0.3, 0], [0, 0, 0.3], [0.2, 0.3, -0.1], [0, 0, 0]]):
        poses[i, :3, :3] = np.diag([1.0, -1.0, -1.0]) @ matrices(np.array(turn))
    turned = replace(known, poses=poses)
    source = write_flame_head_tracker(tmp_path / "video", turned)
    angles = [np.load(source / f"{i}.npz")["cam"][0, :3] for i in range(3)]
    assert np.allclose(angles, [[0, -0.3, 0], [-0.3, 0, 0], [0, 0, -0.3]], atol=1e-6)
    assert error_px(converted(source), turned.pixels()) < TOLERANCE


# ----------------------------------------------------------------------------------------------------------- LMDB


@pytest.mark.parametrize("count", [0, 1, 2, 7, 40])
def test_lmdb(tmp_path: Path, count: int) -> None:
    random = np.random.default_rng(count)
    entries = {f"video_{i}": random.bytes(int(10 ** random.uniform(0, 4.5))) for i in range(count)}
    if not count:  # a new environment
        data = bytearray(write_lmdb(tmp_path / "data.mdb", {"a": b"b"}).read_bytes())
        data[4096 + 16 + 24 + 96 + 8] = 0  # the second state is as old as the first, which is empty
        data[16 + 24 + 96 + 8] = 1
        (tmp_path / "data.mdb").write_bytes(data)
    else:
        write_lmdb(tmp_path / "data.mdb", entries)
    with LmdbFile(tmp_path / "data.mdb") as file:
        assert file.keys() == sorted(entries)
        assert dict(zip(file.keys(), map(file.__getitem__, file.keys()), strict=True)) == entries
        with pytest.raises(DatasetError, match="has no entry 'other'"):
            file["other"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_lmdb_raises_our_errors_alone(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.mdb"
    write_lmdb(path, {f"key_{i}": bytes([i]) * (3000 if i == 2 else 20) for i in range(5)})
    content = bytearray(path.read_bytes())
    interesting = [
        *range(16, 180),
        *range(4112, 4280),
        *(p * 4096 + k for p in range(2, len(content) // 4096) for k in range(60)),
    ]
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.sampled_from(interesting))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), 4096, 9000]))])
    try:
        with LmdbFile(path) as file:
            assert all(isinstance(value, bytes) for value in map(file.__getitem__, file.keys()))
    except BeingError as problem:
        assert "\n" not in str(problem)  # noqa: PT017


def test_a_tree_that_leads_back_to_itself(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "data.mdb", {f"key_{i}": b"x" for i in range(5)})
    data = bytearray(path.read_bytes())
    root = len(data) // 4096 - 1
    last = int.from_bytes(data[root * 4096 + 16 : root * 4096 + 18], "little")
    data[root * 4096 + last] = root  # its first child is the root itself
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="its tree leads back to itself"):
        LmdbFile(path)
