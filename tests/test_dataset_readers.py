"""Readers of other trackers' formats: the mesh is seen where it really was, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from dataset_formats import (
    FRAMES,
    SIZE,
    Truth,
    converted,
    error_px,
    mask,
    model,
    picture,
    save,
    truth,
    write_imavatar,
    write_insta,
    write_insta_extras,
    write_metrical,
    write_vhap,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from being_rt.dataset import Crop, Dataset
from being_rt.dataset.convert import convert
from being_rt.dataset.readers import ReadOptions, detect_format, read_recording
from being_rt.dataset.readers.metrical import read_frame
from being_rt.errors import BeingError, DatasetError
from being_rt.flame.model import FlameModel
from being_rt.flame.rotations import matrices, matrix_axis_angles, matrix_quaternions, quaternions

TOLERANCE = 0.005  # pixels, of a head about 80 pixels high


def check_pictures(dataset: Dataset, masks: bool = True) -> None:
    for i in range(dataset.count):
        step = int(dataset.timestep[i])
        assert np.array_equal(dataset.image(i), picture(step, dataset.size))
        assert dataset.has_mask(i) == masks
        if masks:
            assert np.array_equal(dataset.mask(i), mask(step, dataset.size))


def test_rotation_conversions() -> None:
    random = np.random.default_rng(0)
    turns = random.normal(0, 1.5, (500, 3))
    turns[:100] *= np.pi / np.linalg.norm(turns[:100], axis=1, keepdims=True)  # half turns
    turns[100:103] = np.pi * np.eye(3)
    turns[103] = 0
    rotations = matrices(turns)
    assert np.abs(matrices(matrix_axis_angles(rotations)) - rotations).max() < 1e-12
    q, expected = matrix_quaternions(rotations), quaternions(turns)
    assert np.abs(np.abs(np.sum(q * expected, -1)) - 1).max() < 1e-12
    assert q[:, 0].min() >= 0


@pytest.mark.parametrize("opencv", [True, False], ids=["opencv", "pytorch3d"])
def test_metrical(tmp_path: Path, opencv: bool) -> None:
    pytest.importorskip("torch")
    known = truth(moving=True, posed=False)
    if not opencv:
        known.intrinsics[1, 1] = known.intrinsics[0, 0]  # one focal length
    dataset = converted(write_metrical(tmp_path / "duda", known, opencv=opencv))
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert len(dataset.cameras) == 1
    assert dataset.name == "duda"
    assert np.abs(dataset.params.rotation).max() > 0.05  # the camera's motion became the head's
    assert dataset.splits == ("train",) * 4 + ("test",)
    check_pictures(dataset, masks=False)


def test_metrical_eyelids(tmp_path: Path) -> None:
    """The tracker closes the lids after skinning, left first; FLAME's joints rest, so it may come before as well."""
    pytest.importorskip("torch")
    known = truth(moving=True, posed=False)
    lids = np.random.default_rng(3).uniform(0, 1, (FRAMES, 2))
    known.vertices += np.einsum("vae,te->tva", model().eyelid_basis.astype(np.float64), lids)
    known.fields["eyelids"] = lids
    source = write_metrical(tmp_path / "duda", known)
    assert error_px(converted(source), known.pixels()) < TOLERANCE
    without_lids = replace(model(), eyelid_basis=np.zeros_like(model().eyelid_basis))
    notes = convert(source, tmp_path / "b", without_lids)[1]
    assert any("l_eyelid.npy" in note for note in notes)


@pytest.mark.parametrize("first", [0, 1])
def test_pictures_may_count_from_one(tmp_path: Path, first: int) -> None:
    pytest.importorskip("torch")
    source = write_metrical(tmp_path / "duda", truth(True, False), first_picture=first)
    for i in range(FRAMES):
        save(source / "alpha" / f"{i + first:05d}.png", mask(i))
    dataset, notes = convert(source, tmp_path / "out", model())
    check_pictures(dataset)
    assert any("picture 1 belongs to frame 0" in note for note in notes) == (first == 1)


def test_a_larger_frame_offset_must_be_said(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = write_metrical(tmp_path / "duda", truth(True, False), first_picture=7)
    with pytest.raises(DatasetError, match="begins with number 7, the tracks with 0"):
        converted(source)
    check_pictures(converted(source, frame_offset=7), masks=False)
    with pytest.raises(DatasetError, match=r"no picture of number 3 and 3 others"):
        convert(source, tmp_path / "b", model(), ReadOptions(frame_offset=3))


@pytest.mark.parametrize("tracks", ["text", "frames", "frames elsewhere"])
def test_insta(tmp_path: Path, tracks: str) -> None:
    known = truth(moving=True, posed=False, seed=2)
    source = write_insta(tmp_path / "obama", known)
    options: dict[str, Any] = {}
    if tracks == "text":
        write_insta_extras(source, known, ("jaw", "eyes", "eyelids", "shape"))
    else:
        pytest.importorskip("torch")
        write_metrical(source if tracks == "frames" else tmp_path / "tracked", known)
        if tracks != "frames":
            options["tracks"] = tmp_path / "tracked" / "checkpoint"
    assert detect_format(source).name == "insta"
    dataset = converted(source, **options)
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert dataset.splits == ("train",) * 3 + ("test",) * 2
    check_pictures(dataset)


def test_insta_with_the_expression_alone(tmp_path: Path) -> None:
    known = truth(moving=True, posed=False)
    source = write_insta(tmp_path / "obama", known)
    with pytest.raises(DatasetError, match=r"does not say who it is: give the shape"):
        converted(source)
    dataset, notes = convert(source, tmp_path / "out", model(), ReadOptions(shape=known.shape, test_frames=1))
    assert any("no jaw, eyes, eyelids in this data set" in note for note in notes)
    rest = Truth(
        known.shape, {**known.fields, "jaw": np.zeros((5, 3)), "eyes": np.zeros((5, 6))}, known.poses, known.intrinsics
    )
    assert error_px(dataset, rest.pixels()) < TOLERANCE
    assert dataset.splits.count("test") == 1


def test_vhap(tmp_path: Path) -> None:
    known = truth(moving=False, posed=True)
    dataset = converted(write_vhap(tmp_path / "306", known))
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert np.allclose(dataset.params.rotation, known.fields["rotation"], atol=1e-6)  # nothing had to be moved
    check_pictures(dataset)


def test_vhap_with_an_offset_of_every_vertex(tmp_path: Path) -> None:
    plain = truth(moving=False, posed=True)
    offset = np.random.default_rng(4).normal(0, 0.004, (model().vertex_count, 3))
    known = Truth(plain.shape, plain.fields, plain.poses, plain.intrinsics, static_offset=offset)
    source = write_vhap(tmp_path / "306", known)
    dataset, notes = convert(source, tmp_path / "out", model())
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert any("120 vertices beyond the model's" in note for note in notes)


def test_vhap_with_several_cameras_and_splits(tmp_path: Path) -> None:
    known = truth(moving=False, posed=True)
    other = known.poses[0].copy()
    other[:3, :3] = other[:3, :3] @ matrices(np.array([0, 0.6, 0]))
    dataset = converted(write_vhap(tmp_path / "306", known, (other,), split=True))
    assert len(dataset.cameras) == 2
    assert len(dataset.params) == FRAMES
    assert dataset.count == 2 * FRAMES
    assert dataset.timestep.tolist() == np.repeat(np.arange(FRAMES), 2).tolist()
    assert dataset.splits == ("train", "views") * (FRAMES - 1) + ("test", "test")
    seen = Truth(known.shape, known.fields, np.tile(other, (FRAMES, 1, 1)), known.intrinsics).pixels()
    assert error_px(dataset, np.stack([known.pixels(), seen], 1).reshape(2 * FRAMES, -1, 2)) < TOLERANCE
    check_pictures(dataset)


def test_a_moving_camera_and_a_posed_head_become_one_motion(tmp_path: Path) -> None:
    known = truth(moving=True, posed=True)
    assert error_px(converted(write_vhap(tmp_path / "306", known)), known.pixels()) < TOLERANCE


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("moving", [False, True])
def test_imavatar(tmp_path: Path, moving: bool, pixels: bool) -> None:
    known = truth(moving=moving, posed=True, translated=False)
    dataset = converted(write_imavatar(tmp_path / "MVI_1810", known, pixels=pixels))
    assert error_px(dataset, known.pixels()) < TOLERANCE
    if not moving:
        assert not dataset.params.translation.any()
    check_pictures(dataset)


def test_imavatar_pictures_in_a_folder_of_another_name(tmp_path: Path) -> None:
    source = write_imavatar(tmp_path / "subject", truth(False, True))
    (source / "image").rename(source / "images")
    check_pictures(converted(source))


def crop_by_hand(original: np.ndarray, box: tuple[int, int, int, int] | None, side: int) -> np.ndarray:
    """What a tracker does to a frame: cut out, pad with black to a square, resize.

    metrical-tracker, which cuts out, pads by the same number of pixels on both sides, even where one is missing.
    """
    if box is not None:
        original = original[box[2] : box[3], box[0] : box[1]]
    height, width = original.shape[:2]
    odd = (height - width) % 2 if box is None else 0
    across, down = (max(width, height) - width) // 2, (max(width, height) - height) // 2
    padded = np.pad(
        original, [(down, down + odd * (height < width)), (across, across + odd * (width < height)), (0, 0)]
    )
    return np.asarray(Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC))


def centroid(image: np.ndarray) -> np.ndarray:
    """Of the first channel, pixel centres at +0.5."""
    weight = image[:, :, 0].astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([np.sum(x * weight), np.sum(y * weight)]) / weight.sum()


CROPS: list[tuple[tuple[int, int], tuple[int, int, int, int] | None]] = [
    ((320, 180), None),
    ((180, 321), None),
    ((320, 180), (40, 240, 10, 170)),
    ((320, 180), (60, 201, 20, 179)),
]


@pytest.mark.parametrize(("original", "box"), CROPS)
def test_crops_say_where_a_point_goes(original: tuple[int, int], box: tuple[int, int, int, int] | None) -> None:
    from being_rt.dataset.readers.crops import parse_crop

    side = 128
    crop = parse_crop("padded" if box is None else ",".join(map(str, box)), original, (side, side))
    for point in ((150.3, 70.8), (110.6, 120.2)):
        y, x = np.mgrid[: original[1], : original[0]] + 0.5
        blob = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 5.0**2))
        frame = np.repeat(blob.round().astype(np.uint8)[:, :, None], 3, 2)
        expected = (centroid(frame) - [crop.left, crop.top]) * np.array(crop.scale)
        assert np.abs(centroid(crop_by_hand(frame, box, side)) - expected).max() < 0.02
    assert crop.original_size == original


@pytest.mark.parametrize("kind", ["metrical", "insta", "vhap", "imavatar"])
@pytest.mark.parametrize(("original", "box"), [CROPS[0], CROPS[3]])
def test_tracks_of_a_padded_and_resized_crop_on_the_original_frames(
    tmp_path: Path, kind: str, original: tuple[int, int], box: tuple[int, int, int, int] | None
) -> None:
    """The tracker saw a square of 128; the data set is of the frames as they were filmed."""
    if kind == "metrical":
        pytest.importorskip("torch")
    known = truth(kind in ("metrical", "insta"), kind in ("vhap", "imavatar"), translated=kind == "vhap")
    filmed = Truth(
        known.shape, known.fields, known.poses, np.array([[700.0, 0, 150], [0, 700.0, 90], [0, 0, 1]]), original
    )
    left, right, top, bottom = box or (0, original[0], 0, original[1])
    side = max(right - left, bottom - top)
    across, down = (side - (right - left)) // 2, (side - (bottom - top)) // 2
    scale = np.array([128 / (right - left + 2 * across), 128 / (bottom - top + 2 * down)])
    k = filmed.intrinsics.copy()
    k[:2, 2] = (k[:2, 2] - [left - across, top - down]) * scale
    k[[0, 1], [0, 1]] *= scale
    tracked = Truth(known.shape, known.fields, known.poses, k, (128, 128))
    write = {"metrical": write_metrical, "insta": write_insta, "vhap": write_vhap, "imavatar": write_imavatar}[kind]
    source = write(tmp_path / "tracked", tracked)
    if kind == "insta":
        write_insta_extras(source, known, ("jaw", "eyes", "shape"))
    for i in range(FRAMES):
        number = i + 1 if kind == "imavatar" else i
        save(tmp_path / "film" / f"frame_{number:04d}.png", picture(i, original))
        save(tmp_path / "alpha" / f"{number}.png", mask(i, original))
    crop = "padded" if box is None else ",".join(map(str, box))
    options = {"images": tmp_path / "film", "masks": tmp_path / "alpha"}
    with pytest.raises(DatasetError, match="has pictures of 320x180, the tracks are of pictures of 128x128"):
        converted(source, **options)
    dataset = converted(source, **options, crop=crop)
    assert dataset.size == original
    assert error_px(dataset, filmed.pixels()) < 2 * TOLERANCE
    assert "at 128x128" in dataset.metadata["tracked on"]
    check_pictures(dataset)


def test_the_box_file_of_the_tracker(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from being_rt.dataset.readers.crops import parse_crop

    torch.save(np.array([60, 201, 20, 179]), tmp_path / "bbox.pt")
    by_file = parse_crop(str(tmp_path / "bbox.pt"), (320, 180), (128, 128))
    assert (
        by_file == parse_crop("60,201,20,179", (320, 180), (128, 128)) == Crop(51, 20, 159, 159, (128, 128), (320, 180))
    )
    assert parse_crop("resized", (320, 180), (160, 90)) == Crop(0, 0, 320, 180, (160, 90), (320, 180))


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ("nonsense", "crop must be resized, padded"),
        ("1,2,3", "crop must be"),
        ("400,500,0,10", "lies outside"),
        ("nan,1,2,3", "crop must be"),
    ],
)
def test_crops_that_cannot_be(crop: str, message: str) -> None:
    from being_rt.dataset.readers.crops import parse_crop

    with pytest.raises(DatasetError, match=message):
        parse_crop(crop, (320, 180), (128, 128))


def test_a_crop_is_undone_and_done_again() -> None:
    from being_rt.dataset.crop import undo_crops
    from being_rt.dataset.readers.cameras import camera_of

    crops = [Crop(10, -5, 300, 250, (150, 200), (320, 240)), Crop.padded_square((150, 200), 64)]
    camera = camera_of(np.eye(4), np.array([[500.0, 0, 160], [0, 500, 120], [0, 0, 1]]), (320, 240))
    cropped = crops[1].apply(crops[0].apply(camera))
    assert cropped.size == (64, 64)
    back = undo_crops(cropped, crops)
    assert back.size == camera.size
    assert np.allclose(back.intrinsics, camera.intrinsics, rtol=1e-6)


def change_json(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        table = json.loads((folder / name).read_text())
        change(table)
        (folder / name).write_text(json.dumps(table))

    return spoil


def spoil_npz(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "flame_param" / "00002.npz"
        arrays = {**np.load(path), **changes}
        np.savez(path, **{name: value for name, value in arrays.items() if value is not ...})

    return spoil


def frame(table: dict[str, Any], index: int = 2) -> dict[str, Any]:
    return table["frames"][index]


VHAP, IMAVATAR, INSTA = "transforms.json", "flame_params.json", "transforms.json"


@pytest.mark.parametrize(
    ("write", "spoil", "message"),
    [
        (write_vhap, lambda f: (f / "images/00002_00.png").unlink(), r"images/00002_00\.png does not exist"),
        (write_vhap, lambda f: (f / "flame_param/00002.npz").unlink(), r"flame_param/00002\.npz does not exist"),
        (write_vhap, spoil_npz(jaw_pose=np.full((1, 3), np.nan)), r"00002\.npz: its jaw is not finite"),
        (write_vhap, spoil_npz(jaw_pose=...), r"00002\.npz: jaw_pose must be numbers \[1, 3\], it is absent"),
        (write_vhap, spoil_npz(eyes_pose=np.zeros((1, 3))), r"eyes_pose must be numbers \[1, 6\], it is \[1, 3\]"),
        (write_vhap, spoil_npz(expr=np.zeros((1, 101))), "expr of different lengths"),
        (write_vhap, change_json(VHAP, lambda t: t.update(frames=[])), "has no list of frames"),
        (write_vhap, change_json(VHAP, lambda t: frame(t).update(file_path="../../x.png")), "outside of its folder"),
        (write_vhap, change_json(VHAP, lambda t: frame(t).update(file_path="/etc/passwd")), "outside of its folder"),
        (write_vhap, change_json(VHAP, lambda t: frame(t).update(fl_x=-5)), "impossible intrinsics"),
        (write_vhap, change_json(VHAP, lambda t: frame(t).update(fl_x=400.0)), "frame 2 .*intrinsics differ"),
        (write_vhap, change_json(VHAP, lambda t: frame(t).update(w=161)), "pictures of different sizes"),
        (
            write_vhap,
            change_json(VHAP, lambda t: frame(t).update(timestep_index="x")),
            "no whole number 'timestep_index'",
        ),
        (
            write_vhap,
            change_json(VHAP, lambda t: frame(t).update(transform_matrix=[[1, 0, 0, 0]] * 4)),
            "frame 2 .*not orthonormal",
        ),
        (
            write_vhap,
            change_json(VHAP, lambda t: frame(t).update(transform_matrix=np.diag([1, 1, -1, 1]).tolist())),
            "frame 2 .*mirrors",
        ),
        (write_imavatar, lambda f: (f / "mask/3.png").unlink(), r"mask/3\.png does not exist"),
        (
            write_imavatar,
            change_json(IMAVATAR, lambda t: frame(t).update(pose=[0] * 14)),
            r"pose must be numbers \[15\]",
        ),
        (write_imavatar, change_json(IMAVATAR, lambda t: frame(t).pop("expression")), "frame 2 .*expression must be"),
        (
            write_imavatar,
            change_json(IMAVATAR, lambda t: t.update(intrinsics=[1, 2])),
            r"intrinsics must be numbers \[4\]",
        ),
        (write_imavatar, change_json(IMAVATAR, lambda t: frame(t).update(pose=["a"] * 15)), "it is something else"),
        (
            write_insta,
            lambda f: (f / "flame/exp/00002.txt").write_text("1 2 x"),
            r"00002\.txt is not a text file of numbers",
        ),
        (write_insta, lambda f: (f / "flame/exp/00002.txt").write_text("1 2"), "has 2 numbers instead of 100"),
        (
            write_insta,
            lambda f: (f / "flame/exp/00002.txt").write_text("nan " * 100),
            "frame 2 .*expression is not finite",
        ),
        (write_insta, lambda f: (f / "transforms.json").write_text("{"), r"transforms\.json.*not valid JSON"),
        (write_insta, change_json(INSTA, lambda t: t.pop("fl_x")), "no number 'fl_x'"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, write: Callable[[Path, Truth], Path], spoil: Callable[[Path], object], message: str
) -> None:
    source = write(tmp_path / "source", truth(moving=False, posed=write is not write_insta))
    spoil(source)
    with pytest.raises(DatasetError, match=message) as caught:
        converted(source, shape=np.zeros(3))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_frames_that_are_not_the_trackers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = write_metrical(tmp_path / "duda", truth(True, False))
    path = source / "checkpoint" / "00002.frame"
    good = path.read_bytes()
    content = torch.load(path, weights_only=False)

    def refused(message: str) -> None:
        with pytest.raises(DatasetError, match=message) as caught:
            converted(source)
        assert "00002.frame" in str(caught.value)

    for change, message in (
        ({"flame": {}}, "exp must be numbers"),
        ({"flame": ...}, "not a frame of metrical-tracker: it has no 'flame'"),
        ({"img_size": np.array([0, -5])}, "impossible img_size"),
        ({"flame": {**content["flame"], "jaw": np.zeros((1, 6), np.float32)}}, "its jaw is not finite"),
        ({"flame": {**content["flame"], "exp": torch.zeros(1, 100)}}, "save its tensors as NumPy arrays"),
    ):
        torch.save({k: v for k, v in {**content, **change}.items() if v is not ...}, path)
        refused(message)
    path.write_bytes(good[: len(good) // 2])
    refused("not a file of torch.save, or damaged")
    path.write_bytes(b"")
    refused("not a file of torch.save, or damaged")

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, ("touch /tmp/never",)

    torch.save({"flame": Evil()}, path)
    refused("posix.system")


def test_formats_are_recognised(tmp_path: Path) -> None:
    known = truth(False, True)
    assert detect_format(write_vhap(tmp_path / "a", known)).name == "vhap"
    assert detect_format(write_imavatar(tmp_path / "b", known)).name == "imavatar"
    assert detect_format(write_insta(tmp_path / "c", known)).name == "insta"
    (tmp_path / "d" / "checkpoint").mkdir(parents=True)
    (tmp_path / "d" / "checkpoint" / "00000.frame").touch()
    assert detect_format(tmp_path / "d").name == "metrical"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"of no known format \(vhap: transforms\.json"):
        detect_format(tmp_path / "empty")
    with pytest.raises(DatasetError, match="is not a folder that exists"):
        detect_format(tmp_path / "nothing")
    converted(tmp_path / "a")
    with pytest.raises(DatasetError, match="is a data set of being_rt already"):
        detect_format(tmp_path / "out")
    with pytest.raises(DatasetError, match="format must be auto or one of vhap"):
        convert(tmp_path / "a", tmp_path / "x", model(), format="x")


def test_another_edition_is_said(tmp_path: Path) -> None:
    source = write_imavatar(tmp_path / "a", truth(False, True))
    notes = convert(source, tmp_path / "b", replace(model(), edition="flame-2023-open"))[1]
    assert any("usually of flame-2020; the model is flame-2023-open" in note for note in notes)
    assert not convert(source, tmp_path / "c", replace(model(), edition="flame-2020"))[1]


def test_a_union_names_files_beside_its_folder(tmp_path: Path) -> None:
    known = truth(False, True)
    write_vhap(tmp_path / "first", known)
    table = json.loads((tmp_path / "first" / "transforms.json").read_text())
    for entry in table["frames"]:
        entry |= {key: f"../first/{entry[key]}" for key in ("file_path", "fg_mask_path", "flame_param_path")}
    (tmp_path / "union").mkdir()
    for part, frames in (("train", table["frames"][:3]), ("test", table["frames"][3:])):
        (tmp_path / "union" / f"transforms_{part}.json").write_text(json.dumps({**table, "frames": frames}))
    dataset = converted(tmp_path / "union")
    assert error_px(dataset, known.pixels()) < TOLERANCE
    assert dataset.splits == ("train",) * 3 + ("test",) * 2


def small_model() -> FlameModel:
    """Twelve vertices, so that a thousand recordings can be read in a moment."""
    few = np.arange(12)
    return replace(
        model(),
        template=model().template[few],
        faces=np.array([[0, 1, 2], [2, 3, 4]], np.int32),
        **{name: getattr(model(), name)[few] for name in ("shape_basis", "expression_basis", "eyelid_basis")},
        **{name: getattr(model(), name)[few] for name in ("pose_basis", "skinning_weights")},
        joint_regressor=np.full((5, 12), 1 / 12, np.float32),
        uv=None,
        uv_faces=None,
        regions={},
        landmarks={},
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("../../x"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    known = truth(False, False)
    return {
        "transforms.json": write_vhap(folder / "vhap", known),
        "flame_params.json": write_imavatar(folder / "imavatar", known),
        "insta": write_insta(folder / "insta", known),
    }


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_anywhere_in_foreign_json(sources: dict[str, Path], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sources)))
    path = sources[name] / (name if name.endswith(".json") else "transforms.json")
    good = path.read_bytes()
    table = json.loads(good)
    where: Any = table
    while True:
        key = data.draw(st.sampled_from(sorted(where)) if isinstance(where, dict) else st.integers(0, len(where) - 1))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = data.draw(json_values)
    try:
        path.write_text(json.dumps(table), encoding="utf-8")
        read_recording(sources[name], small_model(), ReadOptions(shape=np.zeros(5)))
    except BeingError as problem:
        assert "\n" not in str(problem)  # noqa: PT017
    finally:
        path.write_bytes(good)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_frames_raise_our_errors_alone(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    pytest.importorskip("torch")
    good = frame_bytes()
    start = data.draw(st.integers(0, len(good) - 1))
    end = data.draw(st.integers(start, min(len(good), start + 30)))
    path = tmp_path_factory.getbasetemp() / "damaged.frame"
    path.write_bytes(good[:start] + data.draw(st.binary(max_size=10)) + good[end:])
    try:
        read_frame(path)
    except BeingError as problem:
        assert "\n" not in str(problem)  # noqa: PT017


@cache
def frame_bytes() -> bytes:
    with TemporaryDirectory() as folder:
        write_metrical(Path(folder), truth(True, False))
        return (Path(folder) / "checkpoint" / "00002.frame").read_bytes()


def test_size_of_test_frames(tmp_path: Path) -> None:
    source = write_imavatar(tmp_path / "a", truth(False, True))
    assert converted(source, test_frames=0).size == SIZE
    with pytest.raises(DatasetError, match="there are 5 frames; 5 of them cannot be for testing"):
        convert(source, tmp_path / "b", model(), ReadOptions(test_frames=5))
