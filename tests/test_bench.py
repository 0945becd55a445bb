"""The bench: its scenes look alike, its verdicts are right, its run ends with what it promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_params

from being_rt.avatar.avatar import Avatar
from being_rt.bench import measure, report
from being_rt.bench.__main__ import main
from being_rt.bench.environment import environment
from being_rt.bench.scenes import with_count
from being_rt.errors import FileFormatError, InvalidParameterError


def count(avatar: Avatar) -> int:
    return avatar.head.gaussians.count + avatar.torso.gaussians.count


@pytest.mark.parametrize("factor", [1.2, 2, 4])
def test_splitting_keeps_the_picture(factor: float) -> None:
    reference = pytest.importorskip("being_rt.reference")
    avatar, params = make_avatar(size=(160, 120)), make_params(2)[1]
    dense = with_count(avatar, int(factor * count(avatar)))
    assert reference.psnr(reference.render(dense, params), reference.render(avatar, params)) > 42


@settings(max_examples=15, deadline=None)
@given(wanted=st.integers(100, 9000), network=st.booleans())
def test_any_count_is_a_valid_avatar(wanted: int, network: bool) -> None:
    avatar = make_avatar(network=network)
    changed = with_count(avatar, wanted)
    head, torso, seam = changed.head, changed.torso, changed.seam
    assert count(changed) == wanted
    assert len(head.face) == len(head.barycentric) == head.gaussians.count
    assert len(torso.weights) == torso.gaussians.count
    for layer in (head.gaussians, torso.gaussians):
        for name, value in vars(layer).items():
            assert len(value) == layer.count
            assert value.dtype == getattr(avatar.head.gaussians, name).dtype
            assert np.isfinite(value).all()
    assert len(seam.torso_band_weight) == len(seam.torso_band)
    if changed.network is not None and avatar.network is not None:
        # The first ones, and only they, descend from those that had offset bases.
        had = avatar.network.count / avatar.head.gaussians.count
        assert changed.network.count / max(head.gaussians.count, 1) == pytest.approx(had, abs=0.25)
        assert len(changed.network.anchor_index) == len(changed.network.anchor_weight) == changed.network.count


def test_same_count_changes_nothing() -> None:
    avatar = make_avatar()
    same = with_count(avatar, count(avatar))
    for name, value in vars(same.head.gaussians).items():
        assert np.array_equal(value, getattr(avatar.head.gaussians, name))
    assert np.array_equal(same.seam.torso_band, np.sort(avatar.seam.torso_band))


@pytest.mark.parametrize("wanted", [-1, 0, 10**9])
def test_impossible_counts(wanted: int) -> None:
    with pytest.raises(InvalidParameterError, match="count must be"):
        with_count(make_avatar(), wanted)


def row(p50: float, noise: float = 0.01, gaussians: int = 60_000) -> measure.Row:
    case = measure.Case((1920, 1080), gaussians, 2)
    return measure.Row(
        case, 100, 1000 / p50, p50, p50 * 1.1, p50 * 1.3, 700 / p50, noise, 90.0, 0.25, {"project": p50 / 2}
    )


def result(*rows: measure.Row, processor: str = "one") -> report.Result:
    return report.Result({"processor": processor}, "ada", list(rows), measure.Guard(1, 60.0, 1.0), 300.0)


@pytest.mark.parametrize(
    ("after", "noise", "word", "regression"),
    [(5.1, 0.0, "same", False), (4.0, 0.0, "faster", False), (5.3, 0.0, "slower", False), (6.0, 0.0, "slower", True),
     (6.0, 0.15, "same", False), (3.0, 0.15, "faster", False)],
)  # fmt: skip
def test_verdicts(after: float, noise: float, word: str, regression: bool) -> None:
    (verdict,) = report.verdicts(result(row(5.0, noise)), result(row(after, noise), row(9.0, gaussians=10)), 0.10)
    assert (verdict.word, verdict.regression) == (word, regression)


def test_different_machines_are_told_apart() -> None:
    assert report.differences(result(row(5.0)), result(row(5.0))) == []
    assert report.differences(result(), result(processor="two")) == ["processor: one before, two now"]
    assert len(report.differences(result(), replace(result(), avatar="someone"))) == 1


def test_results_survive_a_file(tmp_path: Path) -> None:
    before = result(row(5.0), row(7.0, gaussians=10))
    report.save(before, tmp_path / "a.json")
    assert report.load(tmp_path / "a.json") == before


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"format": 99}', '{"format": 1, "rows": [{}]}'])
def test_other_files_are_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileFormatError):
        report.load(tmp_path / "a.json")


def test_environment_names_no_machine() -> None:
    import getpass
    import platform

    facts = " ".join(environment().values())
    assert environment()["instruction set"]
    for secret in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert secret not in facts
    assert getpass.getuser() not in facts.split()


@pytest.fixture
def avatar_file(tmp_path: Path) -> Path:
    from being_rt import save_avatar

    save_avatar(make_avatar(), tmp_path / "egg.being")
    return tmp_path / "egg.being"


def test_run(avatar_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    options = ["--quick", "--seconds", "0.05", "--avatar", str(avatar_file), "--size", "320x240", "--threads", "2"]
    assert main([*options, "--gaussians", "1k", "--gaussians", "5k", "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "picture guard: passed" in said
    for word in ("processor", "p50", "p99", "1% low", "deform+project", "rasterize+composite", "peak memory"):
        assert word in said
    written = json.loads((tmp_path / "a.json").read_text())
    assert [entry["case"]["gaussians"] for entry in written["rows"]] == [1000, 5000]
    for entry in written["rows"]:
        assert entry["frames"] >= 20
        assert 0 < entry["p50"] <= entry["p90"] <= entry["p99"]
        assert entry["low_fps"] <= entry["fps"] * 1.01
        assert sum(entry["stages"].values()) <= entry["p50"] * 1.5

    # Against a past a hundred times faster it must fail; against one a hundred times slower it must not.
    for factor, code in ((0.01, 1), (100, 0)):
        past = json.loads((tmp_path / "a.json").read_text())
        for entry in past["rows"]:
            entry["p50"] *= factor
            entry["noise"] = 0.0
        (tmp_path / "past.json").write_text(json.dumps(past))
        again = [*options, "--gaussians", "1k", "--no-guard", "--threshold", "20"]
        assert main([*again, "--compare", str(tmp_path / "past.json")]) == code
        assert ("slower  <- regression" in capsys.readouterr().out) == (code == 1)


def test_guard_catches_a_wrong_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    avatar, motion = make_avatar(size=measure.GUARD_SIZE), make_params(3)
    assert measure.guard(avatar, motion, 1).passed
    brighter = measure.Renderer.render

    def wrong(self: measure.Renderer, *arguments: object, **options: object) -> np.ndarray:
        return np.minimum(brighter(self, *arguments, **options), 252) + 3  # type: ignore[arg-type]

    monkeypatch.setattr(measure.Renderer, "render", wrong)
    assert not measure.guard(avatar, motion, 1).passed


@pytest.mark.parametrize(
    "options",
    [
        *("--avatar nobody", "--threads 0", "--compare missing.json", "--json no/folder/a.json"),
        *("--gaussians many", "--size 0x0", "--size big"),
    ],
)
def test_wrong_input_is_one_line(options: str, avatar_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--avatar", str(avatar_file), "--no-guard", "--quick", *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert error.count("\n") == 1
