"""Data sets written as VHAP writes them and read back: the same cameras, masks, parameters, the mesh where it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_formats import FRAMES, SIZE, Truth, error_px, model, truth, write_vhap
from PIL import Image

from being_rt import FlameParams, demo_avatar
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.dataset.convert import convert
from being_rt.dataset.export import export_vhap, identity_of
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.flame.joints import with_global_joint
from being_rt.flame.procedural import procedural_identity
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, skin

TOLERANCE = 0.1  # pixels


def other_pose(known: Truth) -> np.ndarray:
    pose = known.poses[0].copy()
    pose[:3, :3] = pose[:3, :3] @ matrices(np.array([0, 0.6, 0]))
    return pose


@pytest.fixture(scope="module")
def known() -> Truth:
    return truth(moving=False, posed=True)


@pytest.fixture(scope="module")
def dataset(known: Truth, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two cameras, all three splits, masks that are neither empty nor full."""
    folder = tmp_path_factory.mktemp("export")
    source = write_vhap(folder / "source", known, (other_pose(known),), split=True)
    return convert(source, folder / "dataset", model())[0]


def pixels(dataset: Dataset) -> np.ndarray:
    """Where the mesh is seen in each frame [count, V, 2]."""
    result = []
    for step, number in zip(dataset.timestep, dataset.camera_index, strict=True):
        camera = dataset.cameras[number]
        seen = skin(dataset.rig, dataset.params[int(step)])[0] @ camera.world_to_camera[:3, :3].T.astype(np.float64)
        seen += camera.world_to_camera[:3, 3]
        k = camera.intrinsics.astype(np.float64)
        result.append(seen[:, :2] / seen[:, 2:] * np.diag(k)[:2] + k[:2, 2])
    return np.stack(result)


@pytest.mark.parametrize("background", ["white", "black", "keep"])
def test_what_is_written_is_read_back(dataset: Dataset, tmp_path: Path, background: str) -> None:
    made = export_vhap(dataset, tmp_path / "vhap", model(), background=background)
    assert (made.frames, made.timesteps) == (dataset.count, FRAMES)
    back = convert(tmp_path / "vhap", tmp_path / "back", model())[0]
    assert error_px(back, pixels(dataset)) < TOLERANCE
    assert back.splits == dataset.splits
    assert np.array_equal(back.timestep, dataset.timestep)
    assert np.array_equal(back.camera_index, dataset.camera_index)
    for ours, theirs in zip(dataset.cameras, back.cameras, strict=True):
        assert ours.size == theirs.size
        assert np.allclose(ours.intrinsics, theirs.intrinsics, atol=1e-4)
        assert np.allclose(ours.world_to_camera, theirs.world_to_camera, atol=1e-6)
    for name in ("rotation", "translation", "neck", "jaw", "eyes", "expression"):
        assert np.array_equal(getattr(back.params, name), getattr(dataset.params, name)), name
    for i in range(dataset.count):
        assert np.array_equal(back.mask(i), dataset.mask(i))
        alpha = dataset.mask(i)[..., None] / 255
        expected = dataset.image(i).astype(np.float64)
        if background != "keep":
            expected = alpha * expected + (1 - alpha) * (255 if background == "white" else 0)
        assert np.abs(back.image(i) - expected).max() <= 0.51


def test_files_and_conventions(dataset: Dataset, known: Truth, tmp_path: Path) -> None:
    """What the format's other readers look for, spelled out from their side."""
    export_vhap(dataset, tmp_path / "vhap", model())
    whole = json.loads((tmp_path / "vhap" / "transforms.json").read_text())
    assert whole["timestep_indices"] == list(range(FRAMES))
    assert whole["camera_indices"] == [0, 1]
    parts = {
        name: json.loads((tmp_path / "vhap" / f"transforms_{name}.json").read_text())
        for name in ("train", "val", "test")
    }
    assert [len(parts[name]["frames"]) for name in ("train", "val", "test")] == [FRAMES - 1, FRAMES - 1, 2]
    frame = next(f for f in whole["frames"] if f["timestep_index"] == 2 and f["camera_index"] == 0)
    assert frame["file_path"] == "images/00002_00.png"
    assert frame["fg_mask_path"] == "fg_masks/00002_00.png"
    assert frame["flame_param_path"] == "flame_param/00002.npz"
    assert {"timestep_index_original", "timestep_id", "camera_id", "camera_angle_x", "camera_angle_y"} <= set(frame)
    # OpenGL: x right, y up, looking along -z; the picture's rows count from below.
    seen = known.vertices[2] @ np.linalg.inv(frame["transform_matrix"])[:3, :3].T
    seen += np.linalg.inv(frame["transform_matrix"])[:3, 3]
    across = frame["fl_x"] * seen[:, 0] / -seen[:, 2] + frame["cx"]
    up = frame["fl_y"] * seen[:, 1] / -seen[:, 2] + frame["cy"]
    assert np.abs(np.stack([across, frame["h"] - up], 1) - known.pixels()[2]).max() < TOLERANCE
    assert np.isclose(frame["camera_angle_x"], 2 * np.arctan(SIZE[0] / 2 / frame["fl_x"]))
    params = dict(np.load(tmp_path / "vhap" / "flame_param" / "00002.npz"))
    shapes = {"translation": (1, 3), "rotation": (1, 3), "neck_pose": (1, 3), "jaw_pose": (1, 3), "eyes_pose": (1, 6)}
    shapes |= {"shape": (300,), "expr": (1, 100), "static_offset": (1, model().vertex_count, 3)}
    assert {name: value.shape for name, value in params.items()} == shapes
    assert all(value.dtype == np.float32 for value in params.values())
    assert np.abs(params["shape"][:100] - known.shape[:100]).max() < 1e-3
    assert not params["static_offset"].any()  # the model's identities explain it
    canonical = dict(np.load(tmp_path / "vhap" / "canonical_flame_param.npz"))
    assert np.allclose(canonical["jaw_pose"], [[0.3, 0, 0]])
    assert not canonical["expr"].any()
    assert np.array_equal(canonical["shape"], params["shape"])
    with Image.open(tmp_path / "vhap" / "images" / "00002_00.png") as picture:
        assert (picture.size, picture.mode) == (SIZE, "RGB")


def write_person(path: Path, **lids: object) -> Dataset:
    """A generated person, who rests with an expression that no identity explains."""
    avatar = demo_avatar("ada")
    camera = avatar.camera.resized((160, 90))
    motion = FlameParams.neutral(3).replace(
        rotation=[[0, 0.3, 0], [0.2, 0, 0], [0, 0, 0.1]], jaw=[[0.2, 0, 0]] * 3, translation=[[0.02, 0, 0]] * 3, **lids
    )
    with DatasetWriter(path, rig=avatar.rig, cameras=(camera,), fps=25, name="Ada") as writer:
        for t in range(3):
            writer.add(np.full((90, 160, 3), 40 * t, np.uint8), None, motion[t], split="dev" if t == 1 else "train")
    return Dataset.load(path)


def test_what_identities_do_not_explain_is_an_offset(tmp_path: Path) -> None:
    dataset = write_person(tmp_path / "ada", eyelids=[[0, 0], [1, 0.5], [0.2, 0]])
    made = export_vhap(dataset, tmp_path / "vhap", model())
    assert np.abs(np.load(tmp_path / "vhap" / "flame_param" / "00000.npz")["static_offset"]).max() > 1e-4
    for words in (
        "which static_offset holds",
        "has no eyelids",
        "frames of dev are in transforms.json alone",
        "without a mask",
    ):
        assert any(words in note for note in made.notes), words
    assert not (tmp_path / "vhap" / "fg_masks").exists()
    back = convert(tmp_path / "vhap", tmp_path / "back", model())[0]
    assert error_px(back, pixels(dataset)) < TOLERANCE
    assert np.array_equal(back.params.eyelids, dataset.params.eyelids)
    assert not back.has_mask(0)
    assert np.array_equal(back.image(2), dataset.image(2))


def test_a_global_joint_of_its_own_is_taken_back(dataset: Dataset, tmp_path: Path) -> None:
    """Others have FLAME's: the mesh is seen where it was, by another translation."""
    rig, params = with_global_joint(dataset.rig, dataset.params, dataset.rig.joint_rest[0] - [0, 0, 0.05])
    made = export_vhap(replace(dataset, rig=rig, params=params), tmp_path / "vhap", model())
    assert not any("joints" in note for note in made.notes)
    back = convert(tmp_path / "vhap", tmp_path / "back", model())[0]
    assert error_px(back, pixels(dataset)) < TOLERANCE
    np.testing.assert_allclose(back.params.translation, dataset.params.translation, atol=1e-6)


def test_the_identity_of_a_rig() -> None:
    shape = procedural_identity(3)
    found, offset, notes = identity_of(bake_rig(model(), shape), model())
    assert not offset.any()
    assert not notes
    rebuilt = model().template + model().shape_basis @ found
    assert np.abs(rebuilt - bake_rig(model(), shape).template).max() < 1e-6
    few = replace(model(), template=model().template[:12], shape_basis=model().shape_basis[:12])
    with pytest.raises(InvalidParameterError, match=r"the data set's mesh has .* vertices, the model 5023"):
        identity_of(replace(bake_rig(model(), shape), template=few.template), model())


def test_one_camera_leaves_nothing_to_validate_on(known: Truth, tmp_path: Path) -> None:
    """VHAP writes transforms_val.json all the same, with no frames in it."""
    source = write_vhap(tmp_path / "source", known, split=True)
    assert json.loads((source / "transforms_val.json").read_text())["frames"] == []
    assert convert(source, tmp_path / "a", model())[0].splits == ("train",) * (FRAMES - 1) + ("test",)
    (source / "transforms.json").unlink()
    dataset = convert(source, tmp_path / "b", model())[0]
    assert dataset.splits == ("train",) * (FRAMES - 1) + ("test",)
    export_vhap(dataset, tmp_path / "vhap", model())
    assert convert(tmp_path / "vhap", tmp_path / "c", model())[0].splits == dataset.splits


def test_nothing_is_left_behind(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(DatasetError, match="it exists; choose another name"):
        export_vhap(dataset, tmp_path / "mine", model())
    with pytest.raises(DatasetError, match="it is not an export of VHAP's format; choose another name"):
        export_vhap(dataset, tmp_path / "mine", model(), replace=True)
    with pytest.raises(InvalidParameterError, match="background must be white, black or keep, got 'red'"):
        export_vhap(dataset, tmp_path / "new", model(), background="red")
    broken = replace(dataset, image_files=(*dataset.image_files[:-1], "images/none.png"))
    with pytest.raises(DatasetError, match=r"none\.png does not exist"):
        export_vhap(broken, tmp_path / "new", model())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    export_vhap(dataset, tmp_path / "new", model())
    export_vhap(dataset, tmp_path / "new", model(), replace=True)


def test_from_the_command_line(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tyro")
    from being_rt.cli import main

    line = ["data", "export", str(dataset.path), "--format", "vhap", "--out", str(tmp_path / "vhap")]
    assert main([*line, "--flame", "procedural"]) == 0
    printed = capsys.readouterr()
    assert f"{tmp_path / 'vhap'}: {dataset.count} frames of {FRAMES} timesteps" in printed.out
    assert "note: camera 0 looks +3.0, -5.0 pixels beside the middle" in printed.out
    assert main([*line, "--flame", "missing.pkl"]) == 2
    assert main([*line[:-1], str(tmp_path / "b"), "--flame", "procedural", "--format", "x"]) == 2
    assert "format must be vhap, got 'x'" in capsys.readouterr().err
