"""The native data set: what is written comes back, what is wrong is one typed line that names the file."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import make_avatar

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Crop, Dataset, DatasetWriter, folders
from being_rt.dataset.pictures import encode_picture, write_picture
from being_rt.errors import BeingError, DatasetError, InvalidParameterError, UnsupportedVersionError
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rig_file import rig_tensors

SIZE = (24, 16)
RIG: Rig = replace(
    make_avatar(seed=3, head_count=10, torso_count=5, segments=8, rings=6, rank=4).rig,
    expression_map=ExpressionMap(("jawOpen", "Lächeln"), np.arange(222, dtype=np.float32).reshape(2, 111)),
    landmarks={"chin": (np.array([1, 4], np.int32), np.array([[1, 0, 0], [0.5, 0.25, 0.25]], np.float32))},
)
CROP = Crop(-10.0, 4.0, 48.0, 32.0, SIZE, (40, 40))


def camera(size: tuple[int, int] = SIZE, distance: float = 1.0) -> Camera:
    pose = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, distance], [0, 0, 0, 1]], np.float32)
    k = np.array([[40, 0, size[0] / 2], [0, 40, size[1] / 2], [0, 0, 1]], np.float32)
    return Camera(pose, k, size)


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def motion(count: int, seed: int = 0) -> FlameParams:
    random = np.random.default_rng(seed)
    still = FlameParams.neutral(count, fps=30)
    return still.replace(expression=random.normal(size=(count, 100)), rotation=random.normal(0, 0.1, (count, 3)))


def write(path: Path, **options: Any) -> Path:
    """Two cameras; camera 0 takes timesteps 0..2, camera 1 timestep 1 again."""
    given_options: dict[str, Any] = {
        "rig": RIG,
        "cameras": (camera(), camera((20, 10), 1.5)),
        "fps": 30,
        "name": "Ada",
        "source": "made up",
        "licence": "CC-BY-4.0",
        "consent": "nobody is shown",
        "metadata": {"note": "zwei\nZeilen"},
        "crops": [[CROP], []],
    }
    with DatasetWriter(path, **{**given_options, **options}) as writer:
        writer.background(0, picture(100))
        for i, row in enumerate(motion(3)):
            mask = picture(200 + i)[:, :, 0]
            writer.add(picture(i), mask, row, split="test" if i == 2 else "train", truth=motion(3, 9)[i])
        writer.add(picture(3, (20, 10)), None, motion(3)[1], camera_index=1, split="views", timestep=1)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("original") / "ada")


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "ada"))


def test_what_is_written_comes_back(original: Path) -> None:
    ds = Dataset.load(original)
    assert (ds.name, ds.source, ds.licence, ds.consent) == ("Ada", "made up", "CC-BY-4.0", "nobody is shown")
    assert (ds.fps, ds.count, ds.size, dict(ds.metadata)) == (30, 4, SIZE, {"note": "zwei\nZeilen"})
    assert ds.params == motion(3)
    assert ds.truth == motion(3, 9)
    assert ds.timestep.tolist() == [0, 1, 2, 1]
    assert ds.camera_index.tolist() == [0, 0, 0, 1]
    assert ds.timestep.dtype == ds.camera_index.dtype == np.int32
    assert ds.crops == ((CROP,), ())
    for index, expected in enumerate((camera(), camera((20, 10), 1.5))):
        assert np.array_equal(ds.cameras[index].world_to_camera, expected.world_to_camera)
        assert np.array_equal(ds.cameras[index].intrinsics, expected.intrinsics)
        assert ds.cameras[index].size == expected.size
    read, written = rig_tensors(ds.rig), rig_tensors(RIG)
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == array.dtype
        assert np.array_equal(read[name], array), name
    assert ds.rig.edition == RIG.edition
    assert ds.rig.expression_map is not None
    assert ds.rig.expression_map.names == ("jawOpen", "Lächeln")


def test_pictures_come_back(original: Path) -> None:
    ds = Dataset.load(original)
    for i in range(3):
        assert np.array_equal(ds.image(i), picture(i))
        assert np.array_equal(ds.mask(i), picture(200 + i)[:, :, 0])
    assert np.array_equal(ds.image(3), picture(3, (20, 10)))
    assert not ds.has_mask(3)
    assert np.array_equal(ds.mask(3), np.full((10, 20), 255, np.uint8))
    background, nothing = ds.backgrounds
    assert background is not None
    assert np.array_equal(background, picture(100))
    assert nothing is None


def test_splits(original: Path) -> None:
    ds = Dataset.load(original)
    assert ds.split_names == ("train", "test", "views")
    assert [ds.split(name).tolist() for name in ds.split_names] == [[0, 1], [2], [3]]
    assert ds.split("train").dtype == np.int32
    with pytest.raises(InvalidParameterError, match="no split 'trian'; the data set has train, test, views"):
        ds.split("trian")


def test_a_split_that_everyone_may_ask_for_can_be_empty(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "a", rig=RIG, cameras=(camera(),), fps=30, name="a") as writer:
        writer.add(picture(0), None, motion(1))
    ds = Dataset.load(tmp_path / "a")
    assert ds.split("views").tolist() == []
    assert ds.truth is None
    assert not (tmp_path / "a" / "masks").exists()


def test_the_same_data_gives_the_same_bytes(original: Path, tmp_path: Path) -> None:
    again = write(tmp_path / "ada")
    for file in sorted(original.rglob("*")):
        if file.suffix in (".png", ".safetensors"):
            assert file.read_bytes() == (again / file.relative_to(original)).read_bytes(), file.name


def test_picture_files_are_copied_as_they_are(tmp_path: Path) -> None:
    source = tmp_path / "frame.jpeg"
    Image.fromarray(picture(1)).save(source, quality=70)
    grey = tmp_path / "grey.png"
    Image.fromarray(picture(1)[:, :, 0]).save(grey)
    with DatasetWriter(tmp_path / "a", rig=RIG, cameras=(camera(),), fps=30, name="a") as writer:
        writer.add(source, None, motion(1))
        writer.add(grey, None, motion(1))
    assert (tmp_path / "a" / "images" / "000000.jpg").read_bytes() == source.read_bytes()
    ds = Dataset.load(tmp_path / "a")
    assert np.array_equal(ds.image(1), np.repeat(picture(1)[:, :, :1], 3, 2))


def test_nothing_stays_after_an_error(tmp_path: Path) -> None:
    writer = DatasetWriter(tmp_path / "a", rig=RIG, cameras=(camera(),), fps=30, name="a")
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012
        writer.add(picture(0), None, motion(1))
        raise KeyboardInterrupt
    with pytest.raises(InvalidParameterError, match="nothing was added"), writer:
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidParameterError, match="inside its `with` block"):
        writer.background(0, picture(0))


def test_a_full_disk_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DatasetError, match="the disk is full"):
        write(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_were_added_may_be_changed(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "a", rig=RIG, cameras=(camera(),), fps=30, name="a") as writer:
        for seed in range(20):
            shown, alpha = picture(seed), picture(seed)[:, :, 0].copy()
            writer.add(shown, alpha, motion(1))
            shown[:], alpha[:] = 0, 0
        preview = writer.preview()
        assert np.array_equal(preview.image(19), picture(19))
    ds = Dataset.load(tmp_path / "a")
    for seed in range(20):
        assert np.array_equal(ds.image(seed), picture(seed))
        assert np.array_equal(ds.mask(seed), picture(seed)[:, :, 0])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_that_does_not_fit_says_why(tmp_path: Path, suffix: str) -> None:
    full = tmp_path / f"full{suffix}"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_picture(full, picture(0))
    file = tmp_path / f"fits{suffix}"
    write_picture(file, picture(0))
    assert file.read_bytes() == encode_picture(picture(0), suffix)


def test_what_a_killed_writer_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    left = tmp_path / ".a.partial-dead"
    left.mkdir()
    (left / ".lock").touch()
    with DatasetWriter(tmp_path / "a", rig=RIG, cameras=(camera(),), fps=30, name="a") as one:
        assert not left.exists()
        one.add(picture(0), None, motion(1))
        write(tmp_path / "b")
        with pytest.raises(DatasetError, match="it exists"), one_more(tmp_path / "b"):
            pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def one_more(path: Path, **options: Any) -> DatasetWriter:
    return DatasetWriter(path, rig=RIG, cameras=(camera(),), fps=30, name="a", **options)


def test_a_data_set_is_replaced_only_when_asked(saved: Path) -> None:
    with one_more(saved, replace=True) as writer:
        writer.add(picture(0), None, motion(1))
    assert Dataset.load(saved).count == 1
    assert [file.name for file in saved.parent.iterdir()] == ["ada"]
    other = saved.parent / "photos"
    other.mkdir()
    (other / "holiday.png").touch()
    with pytest.raises(DatasetError, match="not a data set"), one_more(other, replace=True):
        pass
    with pytest.raises(DatasetError, match="does not exist; create it"), one_more(saved / "x" / "y"):
        pass
    (saved.parent / "file").touch()
    with pytest.raises(DatasetError, match="in the way"), one_more(saved.parent / "file"):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": picture(0, (20, 16))}, r"image must be uint8 \[16, 24, 3\], got uint8 \[16, 20, 3\]"),
        ({"image": picture(0).astype(np.float32)}, "image must be uint8"),
        ({"mask": picture(0)}, r"mask must be uint8 \[16, 24\]"),
        ({"params_row": motion(2)}, "params_row must have T = 1"),
        ({"truth": motion(2)}, "truth must have T = 1"),
        ({"truth": motion(1)}, "truth must be given for every timestep or for none"),
        ({"camera_index": 1}, "camera_index must be one of 0..0"),
        ({"split": "../x"}, "name of a split"),
        ({"timestep": 5}, "timestep must be an earlier frame's or 1, got 5"),
        ({"timestep": 0, "params_row": motion(1, 7)}, "params_row differs from that of timestep 0"),
    ],
)
def test_frames_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    frame = {"image": picture(0), "mask": None, "params_row": motion(1)}
    with pytest.raises(InvalidParameterError, match=message), one_more(tmp_path / "a") as writer:  # noqa: PT012
        writer.add(**frame)
        writer.add(**{**frame, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name must be one line"),
        ({"name": "a\x1b[2J"}, "printable"),
        ({"fps": 0}, "fps must lie in"),
        ({"cameras": (), "crops": ()}, "at least one camera"),
        ({"crops": [[]]}, "a history for each of 2 cameras"),
        ({"image_suffix": ".bmp"}, "image_suffix"),
        ({"cameras": (camera((0, 5)),), "crops": None}, "camera.size"),
        ({"rig": replace(RIG, faces=RIG.faces + 10_000)}, "rig.faces has indices outside"),
        ({"metadata": {"a": 5}}, "metadata"),
    ],
)
def test_writers_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        write(tmp_path / "a", **options)
    assert list(tmp_path.iterdir()) == []


def change_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        change(table)
        (path / "dataset.json").write_text(json.dumps(table), encoding="utf-8")

    return spoil


def spoil_tracks(**changes: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        arrays = dict(np.load(path / "tracks.npz"))
        np.savez(path / "tracks.npz", **{**arrays, **changes})
        change_json(lambda table: table.update(checksums={}))(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "images" / "000001.png").unlink(), "000001.png does not exist; `being data check`"),
        (lambda path: shutil.rmtree(path / "masks"), r"000000.png does not exist \(and 2 more files\)"),
        (lambda path: (path / "background.png").unlink(), "background.png does not exist"),
        (lambda path: (path / "dataset.json").unlink(), "it has no dataset.json; `being data convert` makes one"),
        (lambda path: (path / "tracks.npz").unlink(), "tracks.npz does not exist"),
        (lambda path: (path / "rig.safetensors").write_bytes(b"x" * 20), "rig.safetensors is damaged or was changed"),
        (change_json(lambda t: t.update(format="x")), "does not say"),
        (change_json(lambda t: t.pop("name")), "dataset.json.*no valid 'name'"),
        (change_json(lambda t: t.update(cameras=[])), "a timestep or a camera that does not exist"),
        (change_json(lambda t: t.update(frames=[])), "at least one frame"),
        (change_json(lambda t: t["frames"][0].update(image="../../etc/passwd")), "not one of a data set's names"),
        (change_json(lambda t: t["frames"][0].update(mask="masks/../x.png")), "not one of a data set's names"),
        (change_json(lambda t: t["frames"][0].update(timestep=3)), "tracks.npz has 3 timesteps, .* timestep 3"),
        (change_json(lambda t: t["frames"][0].update(timestep=True)), "no valid 'timestep'"),
        (change_json(lambda t: t["frames"][0].update(split="Train!")), "name of a split"),
        (change_json(lambda t: t["cameras"][0].update(size=[10**6, 10**6])), "size must be"),
        (change_json(lambda t: t["cameras"][0]["intrinsics"][0].__setitem__(0, -1)), "intrinsics must be"),
        (change_json(lambda t: t["cameras"][0].update(background="/etc/passwd")), "not one of a data set's names"),
        (change_json(lambda t: t["cameras"][0]["crops"][0].update(width=0)), "impossible box"),
        (change_json(lambda t: t.update(fps=25.0)), "tracks.npz is at 30.0 fps, dataset.json says 25.0"),
        (change_json(lambda t: t.update(edition="flame-2020")), "rig.safetensors is of unknown"),
        (change_json(lambda t: t.update(checksums={"../x": "0"})), "not a part of a data set"),
        (spoil_tracks(jaw=np.full((3, 3), np.nan)), "FlameParams.jaw has a value that is not finite in frame 0"),
        (spoil_tracks(jaw=np.zeros((2, 3))), "tracks.npz.*jaw must be"),
        (spoil_tracks(**vars(motion(2))), "tracks.npz has 2 timesteps"),
    ],
)
def test_data_sets_that_are_refused(saved: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(saved)
    with pytest.raises(DatasetError, match=message) as caught:
        Dataset.load(saved)
    assert "\n" not in str(caught.value)


def test_newer_versions_are_refused_by_name(saved: Path) -> None:
    change_json(lambda table: table.update(format_version=2))(saved)
    with pytest.raises(UnsupportedVersionError, match="data set format 2, this being_rt reads up to 1"):
        Dataset.load(saved)


def test_places_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        Dataset.load(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="is not a data set"):
        Dataset.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a PNG or JPEG picture"),
        (Image.new("RGB", (24, 15)), "is 24x15 pixels, its camera is made for 24x16"),
        (Image.new("RGBA", SIZE), "has transparency"),
        (Image.new("I;16", SIZE), "not an 8-bit"),
    ],
)
def test_pictures_that_are_refused(saved: Path, content: Any, message: str) -> None:
    file = saved / "images" / "000001.png"
    file.write_bytes(content) if isinstance(content, bytes) else content.save(file)
    ds = Dataset.load(saved)
    with pytest.raises(DatasetError, match=message) as caught:
        ds.image(1)
    assert str(file) in str(caught.value)
    shutil.copy(file, saved / "masks" / "000001.png")
    if not isinstance(content, Image.Image) or content.mode != "RGBA":  # grey, as all of a mask's channels are
        with pytest.raises(DatasetError):
            ds.mask(1)


def test_a_mask_in_colour_is_refused(saved: Path) -> None:
    shutil.copy(saved / "images" / "000001.png", saved / "masks" / "000001.png")
    with pytest.raises(DatasetError, match=r"000001\.png is a picture in colour"):
        Dataset.load(saved).mask(1)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_raise_our_errors_alone(saved: Path, data: st.DataObject) -> None:
    """Any byte of any file changed, a piece of it missing or doubled: a BeingError or a data set, nothing else."""
    names = ("dataset.json", "tracks.npz", "rig.safetensors", "images/000001.png", "masks/000001.png")
    file = saved / data.draw(st.sampled_from(names))
    good = file.read_bytes()
    start = data.draw(st.integers(0, min(len(good), 4000) - 1))
    end = data.draw(st.integers(start, min(len(good), start + 50)))
    table = (saved / "dataset.json").read_bytes()
    if file.name != "dataset.json":
        change_json(lambda t: t.update(checksums={}))(saved)  # they would catch everything
    try:
        file.write_bytes(good[:start] + data.draw(st.binary(max_size=20)) + good[end:])
        ds = Dataset.load(saved)
        ds.image(1), ds.mask(1)
    except BeingError as problem:
        assert "\n" not in str(problem)  # noqa: PT017
    finally:
        (saved / "dataset.json").write_bytes(table)
        file.write_bytes(good)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_anywhere_in_the_json(saved: Path, data: st.DataObject) -> None:
    good = (saved / "dataset.json").read_bytes()
    table = json.loads(good)
    where: Any = table
    while True:
        key = data.draw(st.sampled_from(sorted(where)) if isinstance(where, dict) else st.integers(0, len(where) - 1))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = data.draw(json_values)
    try:
        (saved / "dataset.json").write_text(json.dumps(table), encoding="utf-8")
        Dataset.load(saved)
    except BeingError as problem:
        assert "\n" not in str(problem)  # noqa: PT017
    finally:
        (saved / "dataset.json").write_bytes(good)


def test_deep_json_is_refused(saved: Path) -> None:
    (saved / "dataset.json").write_bytes(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    with pytest.raises(DatasetError, match="not valid JSON"):
        Dataset.load(saved)


def test_limits(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from being_rt.dataset import manifest

    monkeypatch.setattr(manifest, "FRAME_LIMIT", 3)
    with pytest.raises(DatasetError, match="more than 3 frames"):
        Dataset.load(saved)
    monkeypatch.setattr(manifest, "MANIFEST_LIMIT", 10)
    with pytest.raises(DatasetError, match="longer than"):
        Dataset.load(saved)


def test_permissions_are_those_of_mkdir(original: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    expected = os.stat(tmp_path / "made").st_mode
    assert os.stat(original).st_mode == os.stat(original / "images").st_mode == expected
    assert not (original / folders.LOCK).exists()
