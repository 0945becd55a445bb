"""The bench: its scenes look alike, its verdicts are right, its run ends with what it promises."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_params

from being_rt.avatar.avatar import Avatar
from being_rt.bench import __main__ as command
from being_rt.bench import cuda, measure, projection, report
from being_rt.bench.__main__ import main
from being_rt.bench.environment import environment
from being_rt.bench.scenes import with_count
from being_rt.errors import DeviceError, FileFormatError, InvalidParameterError


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
    options += ["--device", "cpu"]
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
        *("--device tpu", "--device cuda:99", "--no-graph", "--sessions 4", "--project rtx-4070-super"),
        *("--profile 0", "--profile 3 --json a.json"),
    ],
)
def test_wrong_input_is_one_line(options: str, avatar_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--avatar", str(avatar_file), "--no-guard", "--quick", *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bench: ")
    assert error.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------- CUDA


def cuda_row(sessions: int = 0, redrawn: int = 0) -> measure.Row:
    gpu = measure.Gpu(31.5, 0.15, 0.9, redrawn, 40_000.0, {"skin": 5e6, cuda.RASTERIZE: 10e6})
    times = np.linspace(0.20, 0.25, 500)
    stages = {"pose": 0.004, "skin": 0.01, cuda.DEFORM: 0.05, cuda.RASTERIZE: 0.1}
    return measure.summary(cuda.close_up(50_000, sessions=sessions), times, 90_000_000, 0.45, stages, gpu)


def test_cuda_cases() -> None:
    avatar = make_avatar()
    quick, default, full = (cuda.cases(avatar, level) for level in ("quick", "default", "full"))
    assert len(quick) == 2
    assert set(quick) < set(default) < set(full)
    for rows in (quick, default, full):
        assert len(set(rows)) == len(rows) == len({case.name for case in rows})
        assert all(case.device == "cuda" for case in rows)
    assert {case.gaussians for case in default} == {count(avatar), *cuda.COUNTS}
    assert [case.sessions for case in default if case.sessions] == [1, 4, 16, 64]
    assert any(case.format == "nv12" for case in full)
    assert any(case.sessions == 256 and case.size == (512, 512) for case in full)


def test_a_cuda_row() -> None:
    alone, batch = cuda_row(), cuda_row(sessions=4)
    assert (alone.frames, alone.memory) == (500, 90.0)
    assert alone.p50 == pytest.approx(0.225)
    assert batch.fps == pytest.approx(4 * alone.fps) == pytest.approx(4000 / 0.225)


def test_cuda_tables() -> None:
    skipped = cuda.Skipped(cuda.close_up(50_000, sessions=64), "out of memory")
    lines = report.cuda_table([cuda_row(), cuda_row(4, redrawn=2)], [skipped]).splitlines()
    assert len(lines) == 5
    assert "0.2250" in lines[2]
    assert " 31.5 " in lines[2]
    assert lines[3].endswith("(2 frames drawn twice)")
    assert "26667" in lines[3]  # 4 pictures per 0.15 ms
    assert lines[4].startswith("skipped: 1920x1080, 50000 Gaussians")
    assert lines[4].endswith("64 sessions: out of memory")
    assert max(map(len, lines[:3])) <= 140

    stages = report.cuda_stage_table([cuda_row()], 2000).splitlines()
    assert len(stages) == 2 + 4 + 1
    assert stages[3].split()[-5:] == ["skin", "0.0100", "5.00", "0.0025", "25%"]
    assert stages[2].split()[-3:] == ["-", "-", "-"]
    assert stages[-1].split()[-2:] == ["sum", "0.1640"]


def test_cuda_results_survive_a_file(tmp_path: Path) -> None:
    skipped = [cuda.Skipped(cuda.close_up(50_000, sessions=64), "out of memory")]
    guard = measure.Guard(1, 60.0, 1.0, agreement=0.9999)
    before = report.Result({"GPU": "one"}, "ada", [cuda_row(), cuda_row(4)], guard, None, skipped, 4000.0)
    report.save(before, tmp_path / "a.json")
    assert report.load(tmp_path / "a.json") == before
    (verdict, _) = report.verdicts(before, before, 0.1)
    assert "0.2250 ->  0.2250 ms" in report.verdict_table([verdict])
    assert report.differences(before, replace(before, environment={"GPU": "two"})) == ["GPU: one before, two now"]


def test_old_results_load(tmp_path: Path) -> None:
    report.save(result(row(5.0)), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    for name in ("skipped", "bandwidth"):
        del document[name]
    del document["guard"]["agreement"], document["rows"][0]["gpu"]
    for name in ("device", "sessions", "format"):
        del document["rows"][0]["case"][name]
    (tmp_path / "a.json").write_text(json.dumps(document))
    assert report.load(tmp_path / "a.json") == result(row(5.0))


def test_bytes_by_stage() -> None:
    constant = {"skin": 1000, "deform": 2000}
    moved = cuda.stage_bytes(cuda.close_up(100, (10, 20)), constant, vertices=5, visible=50, coverage=0.25)
    assert moved == {"skin": 1080, cuda.DEFORM: 2000 + 80 + 1600, cuda.RASTERIZE: 1600 + 600 * 1.75}
    many = cuda.stage_bytes(cuda.close_up(100, (10, 20), 3), constant, vertices=5, visible=50, coverage=0.25)
    assert many == {name: 3 * value for name, value in moved.items()}
    assert cuda.floor(5e8, 500) == pytest.approx(1.0)


def test_guard_needs_both_agreements() -> None:
    for share, passed in ((1.0, True), (0.9991, True), (0.998, False)):
        guard = measure.Guard(2, 60.0, 1.0, agreement=share)
        assert guard.passed == passed
        first, second = report.guard_line(guard).splitlines()
        assert first.startswith("picture guard: passed")
        assert ("FAILED" in second) != passed
        assert measure.Guard(reason="no PyTorch", agreement=share).passed == passed


def test_agreement_counts_pixels() -> None:
    first = np.full((4, 5, 3), 100, np.uint8)
    second = first.copy()
    second[0, 0, 1] = 102
    second[1, 1] = 101
    second[2, 2, 0] = 99
    assert measure.agreement(first, second) == measure.agreement(second, first) == pytest.approx(19 / 20)


def test_projection() -> None:
    target = projection.Target("half", 10, projection.H200_CLOCK / 2, 500.0, "nowhere")
    stages = projection.project({"pose": 0.01, "skin": 0.02}, {"skin": 50e6}, target)
    launch = projection.LAUNCH / 1000
    assert [stage.total for stage in stages] == pytest.approx([0.02 + launch, 0.1 + launch])
    said = projection.table(50_000, stages)
    assert f"projected: {0.12 + 2 * launch:.3f} ms" in said
    assert "boost" in projection.assumptions(projection.TARGETS["rtx-4070-super"], "a GPU", 56)


def test_projection_needs_a_larger_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Native:
        @staticmethod
        def cuda_devices() -> list[dict[str, object]]:
            return [{"name": "small", "multiprocessors": 56}, {"name": "large", "multiprocessors": 132}]

    monkeypatch.setattr(projection, "native", lambda: Native)
    with pytest.raises(DeviceError, match="more than 56 multiprocessors, small has 56"):
        projection.target_of("rtx-4070-super", "cuda")
    assert projection.target_of("rtx-4070-super", "cuda:1").clock == 2.475


class FakeCuda:
    """Answers as a renderer on CUDA does; draws nothing."""

    memory, lost_frames = 1_000_000, 0

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions
        self._backend = self.engine = self
        self.drawn = 0

    def draw(self, params: measure.FlameParams, format: str = "rgb", stream: int | None = None) -> FakeCuda:
        assert len(params) == max(1, self.sessions)
        self.drawn += 1
        return self

    def wait(self) -> bool:
        return False

    def stage_times(self) -> dict[str, float]:
        return {"pose": 0.001, "skin": 0.01}

    def stage_bytes(self, session: int) -> dict[str, int]:
        return {"skin": 1000, "deform": 2000}


def test_cuda_run_end_to_end_without_a_device(
    avatar_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def renderer(self: cuda.Scene, case: measure.Case, device: str, graph: bool) -> FakeCuda:
        if case.sessions == 3:
            raise DeviceError("out of memory")
        return FakeCuda(case.sessions)

    monkeypatch.setattr("being_rt.jobs.chosen_device", lambda device: "cuda")
    monkeypatch.setattr(command, "environment", lambda device: {"GPU": "fake"})
    monkeypatch.setattr(cuda, "copy_bandwidth", lambda device: 1000.0)
    monkeypatch.setattr(cuda.Scene, "renderer", renderer)
    monkeypatch.setattr(cuda, "_first_frame", lambda *arguments: (0.5, 100.0))
    monkeypatch.setattr(cuda, "native_engine", lambda fake: fake)
    options = ["--avatar", str(avatar_file), "--no-guard", "--seconds", "0", "--gaussians", "1k", "--sessions", "2"]
    assert main([*options, "--sessions", "3", "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "copy bandwidth  1000 GB/s" in said
    assert "3 sessions: out of memory" in said
    loaded = report.load(tmp_path / "a.json")
    assert [(row.case.sessions, row.frames) for row in loaded.rows] == [(2, cuda.FRAMES)]
    assert len(loaded.skipped) == 1
    assert main([*options, "--profile", "3"]) == 0
    assert capsys.readouterr().out.startswith("3 frames: 1920x1080, 1000 Gaussians")


def test_profile_on_the_cpu(avatar_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cpu", "--avatar", str(avatar_file), "--size", "64x48", "--threads", "1", "--profile", "2"]
    assert main(options) == 0
    assert capsys.readouterr().out.startswith("2 frames: 64x48")


@pytest.mark.gpu
def test_run_on_cuda(avatar_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    options = ["--device", "cuda", "--quick", "--seconds", "0.05", "--avatar", str(avatar_file)]
    assert main([*options, "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    for words in ("GPU", "copy bandwidth", "picture guard: passed", "CUDA against CPU: passed", cuda.RASTERIZE):
        assert words in said
    loaded = report.load(tmp_path / "a.json")
    assert len(loaded.rows) == 2
    for entry in loaded.rows:
        assert entry.gpu is not None
        assert entry.frames >= cuda.FRAMES
        assert 0 < entry.p50 <= entry.p90 <= entry.p99 <= entry.gpu.longest
        assert entry.gpu.throughput > 0
        assert entry.gpu.host < 1000 * entry.p50
        assert sum(entry.stages.values()) > 0
        assert 0 < entry.coverage < 1
        assert set(entry.gpu.bytes) < set(entry.stages)


@pytest.mark.gpu
def test_profile_and_batches_on_cuda(avatar_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "cuda", "--avatar", str(avatar_file), "--no-guard", "--seconds", "0", "--size", "256x144"]
    assert main([*options, "--profile", "5", "--no-graph"]) == 0
    assert capsys.readouterr().out.startswith("5 frames: 256x144")
    assert main([*options, "--sessions", "3"]) == 0
    assert "skipped" not in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------------- peers


@pytest.fixture
def peers() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "peers.py"
    spec = importlib.util.spec_from_file_location("peers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", [True, False])
def test_peers_get_the_same_gaussians(peers: ModuleType, network: bool) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("scipy")
    from being_rt import reference
    from being_rt.flame.rotations import quaternion_matrices

    avatar, params = make_avatar(network=network), make_params(2)[1]
    camera = avatar.camera
    given = peers.posed(avatar, params, camera)
    head, torso, _ = reference.frame_splats(replace(avatar, antialiased=False), params, camera)
    opacity = torch.cat([head.opacity, torso.opacity])
    seen = opacity >= peers.INVISIBLE
    assert len(given.means) == int(seen.sum()) > 100
    assert np.linalg.det(quaternion_matrices(given.quaternions)) == pytest.approx(1, abs=1e-5)

    factor = quaternion_matrices(given.quaternions) * given.scales[:, None, :]
    bound = reference.Bound(torch.tensor(given.means).double(), torch.tensor(factor), torch.zeros(1, 3))
    view, lens = (torch.tensor(m, dtype=torch.float64) for m in (camera.world_to_camera, camera.intrinsics))
    colours, opacities = torch.tensor(given.colours).double(), torch.tensor(given.opacities).double()
    splats = reference.project(bound, opacities, colours, view, lens, camera.size, False)
    for name in ("mean", "covariance", "opacity", "colour"):
        expected = torch.cat([getattr(head, name), getattr(torso, name)])[seen]
        torch.testing.assert_close(getattr(splats, name), expected, rtol=1e-3, atol=1e-3)


def test_peers_need_cuda(peers: ModuleType, avatar_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(["--avatar", str(avatar_file), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == "peers: peers are compared on a CUDA device: --device cuda\n"


def test_peers_table(peers: ModuleType) -> None:
    lines = peers.table([peers.Row("somebody", 1000, 0.5, 0.25)]).splitlines()
    assert lines[2].split() == ["somebody", "1000", "0.5000", "2000", "25.00%"]


@pytest.mark.gpu
def test_peers_on_cuda(peers: ModuleType, avatar_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("scipy")
    options = ["--avatar", str(avatar_file), "--gaussians", "2k", "--size", "320x180", "--frames", "5"]
    assert peers.main([*options, "--json", str(tmp_path / "a.json")]) == 0
    written = json.loads((tmp_path / "a.json").read_text())
    coverage = [row["coverage"] for row in written["rows"]]
    assert len(coverage) == (2 if written["missing"] else 5)
    assert max(coverage) - min(coverage) < 0.02
