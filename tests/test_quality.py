"""The quality bench: a whole run at the size of a stamp, and its measures on pictures whose answers are known."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scenes
from PIL import Image
from train_scenes import head_rig, make_dataset

from being_rt.avatar.file import load_avatar, save_avatar
from being_rt.dataset import Dataset
from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.flame.params import FlameParams
from bench import quality, quality_report
from bench.quality_report import earlier_rows, markdown
from bench.quality_runs import Row
from bench.quality_shake import displacement, shake, torso_weight
from bench.quality_sheets import CELL, Sample, contact_sheet, error_map

TINY = (
    *("--size", "64x64", "--frames", "14", "--steps", "2", "--seconds", "0", "--device", "cpu", "--fit"),
    *("--set", "model.head_gaussians=200", "model.hair_gaussians=20", "model.mouth_gaussians=20"),
    *("model.torso_gaussians=60", "model.anchors=8", "schedule.batch=1", "model.point_sizes=[16]"),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face without features: blobs on the procedural head, above a bust."""
    path = tmp_path_factory.mktemp("teacher") / "blob.being"
    avatar = scenes.make_avatar(seed=1, head_count=900, torso_count=500, network=False, size=(64, 64))
    head = scenes._make_head(np.random.default_rng(1), head_rig(), 900)
    save_avatar(replace(avatar, name="blob", rig=head_rig(), head=head), path)
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    out = tmp_path_factory.mktemp("quality") / "out"
    given = ["--identities", str(teacher), "--presets", "being", "flashavatar", "--out", str(out), *TINY]
    assert quality.main(given) == 0
    return out


# ---------------------------------------------------------------- whole runs


def test_a_run_measures_every_preset(results: Path) -> None:
    table = json.loads((results / "quality.json").read_text())
    assert table["options"]["frames"] == 14
    assert table["environment"]["NumPy"] == np.__version__
    being, flash = rows = table["rows"]
    for row, name in zip(rows, ("being", "flashavatar"), strict=True):
        assert (row["identity"], row["preset"], row["steps"]) == ("blob", name, 2)
        assert row["splits"]["test"]["frames"] == 3
        assert row["splits"]["views"]["frames"] == 4 * 3
        assert row["splits"]["fitted"]["frames"] == 3
        assert row["splits"]["fitted"]["psnr"] > row["splits"]["test"]["psnr"]
        assert 5 < row["splits"]["test"]["psnr"] < 60
        assert 0 < row["splits"]["test"]["ssim"] < 1
        assert row["seconds"] > 0
        assert row["images_per_second"] > 0
    assert being["gaussians"] <= 300
    path = results / "runs" / "blob-being" / "avatar.being"
    assert being["bytes"] == path.stat().st_size
    assert load_avatar(path).name == "blob-being"
    assert being["fps"] > 0
    assert being["engine_psnr"] > 40
    assert flash["bytes"] is flash["fps"] is None
    assert "network per Gaussian" in flash["not_exported"]
    text = (results / "quality.md").read_text()
    assert "| blob | being |" in text
    assert "| blob | flashavatar |" in text
    assert "fitted, mouth" in text
    assert "LPIPS" not in text  # there were no weights


def test_sheets_show_every_preset(results: Path) -> None:
    for split, count in (("test", 3), ("views", 4)):
        with Image.open(results / f"blob-{split}.png") as sheet:
            assert sheet.size[0] == 3 * CELL + 2 * 4  # truth and two presets, squares, gaps of 4
            assert sheet.size[1] > count * 2.5 * CELL
    data = Dataset.load(next((results / "data").iterdir()))
    for index in data.split("test").tolist():
        assert (results / "runs" / "blob-being" / f"{index:06d}.png").exists()


def test_a_run_that_is_there_is_not_done_again(
    results: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> Row:
        raise AssertionError("trained again")

    monkeypatch.setattr(quality, "measured", fail)
    before = json.loads((results / "quality.json").read_text())["rows"]
    given = ["--identities", str(teacher), "--presets", "being", "flashavatar", "--out", str(results), *TINY]
    assert quality.main(given) == 0
    assert "| blob | being |" in capsys.readouterr().out
    assert json.loads((results / "quality.json").read_text())["rows"] == before
    assert quality.main([*given, "--seed", "1"]) == 2
    assert "was measured with seed 0, not 1" in capsys.readouterr().err


def test_a_data_set_is_taken_as_it_is(tmp_path: Path) -> None:
    make_dataset(tmp_path / "ellipse", count=6, background=True)
    out = tmp_path / "out"
    given = ["--identities", str(tmp_path / "ellipse"), "--presets", "rgbavatar", "--out", str(out), *TINY]
    assert quality.main(given) == 0
    (row,) = json.loads((out / "quality.json").read_text())["rows"]
    assert row["identity"] == "ellipse"
    assert set(row["splits"]) == {"test", "fitted"}
    assert not (out / "data").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--presets", "best"], "there is no preset 'best'"),
        (["--set", "model.hats=3"], "no 'model.hats'"),
        (["--set", "loss.l1.x=3"], "no 'loss.l1.x'"),
        (["--set", "schedule.batch=0"], "schedule.batch"),
        (["--identities", "nobody"], "there is no avatar 'nobody'"),
    ],
)
def test_wrong_options_cost_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], words: str
) -> None:
    assert quality.main(["--out", str(tmp_path / "out"), "--device", "cpu", *given]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


# ---------------------------------------------------------------- shaking


def textured(shift_x: float = 0.0, shift_y: float = 0.0) -> np.ndarray:
    """A smooth pattern moved by a known distance, uint8 [60, 80, 3]."""
    x, y = np.meshgrid(np.arange(80) - shift_x, np.arange(60) - shift_y)
    value = 120 + 40 * np.sin(0.35 * x + 0.2 * y) + 30 * np.sin(0.15 * x - 0.4 * y) + 20 * np.cos(0.5 * y)
    return np.repeat(value.round().astype(np.uint8)[..., None], 3, 2)


WEIGHT = np.pad(np.ones((40, 60)), 10)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.3, -0.2), (-1.6, 0.9), (2.5, 2.5)])
def test_displacement_is_found_below_a_pixel(shift: tuple[float, float]) -> None:
    found = displacement(textured(*shift), textured(), WEIGHT)
    assert found == pytest.approx(shift, abs=0.04)
    brighter = np.clip(textured(*shift).astype(int) + 12, 0, 255).astype(np.uint8)
    assert displacement(brighter, textured(), WEIGHT) == pytest.approx(shift, abs=0.05)


def test_displacement_of_nothing_is_not_known() -> None:
    plain = np.full((60, 80, 3), 90, np.uint8)
    assert np.isnan(displacement(plain, plain, WEIGHT)).all()
    assert np.isnan(displacement(textured(), textured(), np.zeros((60, 80)))).all()
    stripes = np.repeat(textured()[:1], 60, 0)  # nothing tells up from down
    assert np.isnan(displacement(stripes, stripes, WEIGHT)).all()


def test_shake_measures_change_and_not_distance() -> None:
    random = np.random.default_rng(0)
    assert shake(np.full((20, 2), 3.0)) == 0
    assert shake(5 + 0.1 * random.standard_normal((4000, 2))) == pytest.approx(0.2, rel=0.05)
    steps = np.zeros((5, 2))
    steps[2:, 0] = 1.0
    steps[4] = np.nan
    assert shake(steps) == pytest.approx(np.sqrt(1 / 3))
    assert np.isnan(shake(steps[:1]))


def test_torso_lies_below_the_head_in_all_frames() -> None:
    rig = head_rig()
    camera = scenes.make_camera((80, 100), distance=1.2, field_of_view=25.0)
    lifted = FlameParams.neutral(2)
    lifted.translation[1, 1] = 0.05
    whole = np.full((100, 80), 255, np.uint8)
    left = whole.copy()
    left[:, 40:] = 0
    weight = torso_weight(rig, lifted, camera, [whole, left])
    neutral = torso_weight(rig, lifted[1], camera, [whole])
    assert weight.any()
    assert not weight[:, 40:].any()
    first, higher = (int(np.flatnonzero(each.any(1))[0]) for each in (weight, neutral))
    scale = camera.intrinsics[1, 1] / 1.2
    assert first - higher == pytest.approx(0.05 * scale, abs=2.5)


# ---------------------------------------------------------------- tables and sheets


def a_row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        **{"identity": "ada", "preset": "being", "gaussians": 100, "steps": 5, "seconds": 1.5},
        **{"images_per_second": 20.0, "splits": {"test": {"psnr": 30.0, "ssim": 0.9}}, "shake": 0.1},
        **{"train_shake": None, "peak_memory": 0},
    }
    return Row(**(values | changes))


def test_means_need_all_identities() -> None:
    other = a_row(identity="ben", splits={"test": {"psnr": 32.0, "ssim": 0.8}})
    text = markdown([a_row(), other, a_row(preset="rgbavatar")])
    (mean,) = (line for line in text.splitlines() if "**mean**" in line)
    assert [cell.strip() for cell in mean.split("|")[1:5]] == ["**mean**", "being", "31.00", "0.8500"]
    assert "views" not in text.splitlines()[0]
    assert "**mean**" not in markdown([a_row()])


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [a_row(phases={"training": 1.5}), a_row(preset="rgbavatar", fps=99.5, bytes=1000)]
    options = asdict(quality.Options(overrides=("loss.l1=1",)))
    quality_report.write_results(tmp_path, rows, options, {"NumPy": "2"})
    assert earlier_rows(tmp_path / "quality.json", options) == rows
    with pytest.raises(InvalidParameterError, match="track realistic, not perfect"):
        earlier_rows(tmp_path / "quality.json", options | {"track": "perfect"})
    (tmp_path / "quality.json").write_text('{"format_version": 1, "rows": [{"identity": "ada"}]}')
    with pytest.raises(FileFormatError, match=r"quality\.json"):
        earlier_rows(tmp_path / "quality.json", options)
    assert earlier_rows(tmp_path / "none.json", options) == []


def test_errors_are_coloured_by_size() -> None:
    seen = np.full((2, 2, 3), 100, np.uint8)
    drawn = seen.copy()
    drawn[0, 1, 2] += 16  # 0.25 of the range that the colours span
    drawn[1, 1] += 100
    assert error_map(drawn, seen)[0, 0].tolist() == [0, 0, 0]
    assert error_map(drawn, seen)[0, 1].tolist() == [192, 0, 0]
    assert error_map(drawn, seen)[1, 1].tolist() == [255, 255, 255]


def test_a_sheet_has_room_for_what_is_missing() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    box = np.array([10, 5, 30, 15], np.float32)
    samples = [
        Sample("a", picture, {"being": picture}, box),
        Sample("b", picture, {}, np.full(4, np.nan, np.float32)),
    ]
    sheet = contact_sheet(samples, ["being", "other"])
    width = 2 * CELL
    assert sheet.shape[1] == 3 * width + 2 * 4
    assert (sheet[CELL, : width - 10] == 0).all()  # the frame that was seen
    assert (sheet[CELL, 2 * width + 40 :] == 255).all()  # nobody has drawn it
