"""The training bench: its rows are of whole steps, and every kernel of a step is put down to what launched it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scenes import make_avatar  # noqa: E402
from torch.autograd import DeviceType  # noqa: E402
from train_scenes import head_rig, small_config  # noqa: E402

from being_rt.avatar.file import save_avatar  # noqa: E402
from being_rt.bench import training, training_report  # noqa: E402
from being_rt.bench.__main__ import main  # noqa: E402
from being_rt.bench.training import Case, Row, Skipped, configuration, measure  # noqa: E402
from being_rt.bench.training_profile import OTHER, Stage, Work, by_phase, by_stage, longest, short_name, work  # noqa: E402
from being_rt.errors import InvalidParameterError, TrainingError  # noqa: E402
from being_rt.train.distributed import Group, join  # noqa: E402

SIZE = (48, 40)
DIFFERENTIATED = {"tracks", "skin", "offsets", "bind", "project", "composite", "loss", "regularisation"}


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An egg's Gaussians on a head that has eyes, a mouth and a neck, as training wants them."""
    egg, rig = make_avatar(head_count=600, torso_count=300, size=SIZE), head_rig()
    spread = (egg.head.face * (len(rig.faces) // len(egg.rig.faces))).astype(np.int32)
    path = tmp_path_factory.mktemp("avatar") / "egg.being"
    save_avatar(replace(egg, rig=rig, head=replace(egg.head, face=spread)), path)
    return str(path)


def measured(cases: list[Case], avatar: str, group: Group) -> list[Row | Skipped]:
    return list(measure(cases, group, avatar=avatar, steps=4, warm_up=2, frames=6, base=small_config()))


def test_a_run_on_the_cpu(avatar: str, tmp_path: Path) -> None:
    cases = [Case(SIZE, 240, 2, "foveated")]
    (row,) = measured(cases, avatar, Group(torch.device("cpu")))
    assert isinstance(row, Row)
    assert (row.steps, row.case) == (4, cases[0])
    assert 0 < row.torso < row.head <= 240
    assert 0.05 < row.coverage < 1
    assert row.images_per_second == pytest.approx(2 * row.steps_per_second)
    assert row.reserved is row.allocated is row.frames is None
    assert [profile.view for profile in row.profiles] == ["whole 24x20", "window 24x16"]
    for profile in row.profiles:
        assert profile.nodes == {}
        stages = profile.stages
        assert {"feed", "rasterize", "weights", "statistics", "adam", "constraints", OTHER} | DIFFERENTIATED == {
            *stages
        }
        assert {name for name, stage in stages.items() if stage.backward > 0} == {"rasterize", OTHER} | DIFFERENTIATED
        assert profile.busy == pytest.approx(sum(stage.total for stage in stages.values()))
        # Most of what PyTorch does belongs to something. What does not is largely gradients that arrive at parameters.
        assert stages[OTHER].launches < 0.4 * sum(stage.launches for stage in stages.values())

    assert "240" in training_report.table([row])
    assert "regularisation" in training_report.stage_table(row)
    training_report.save(training_report.Result({"GPU": "none"}, "egg", [row], []), tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["rows"][0]["case"]["gaussians"] == 240
    assert document["rows"][0]["profiles"][0]["stages"]["skin"].keys() == {"forward", "backward", "launches"}


@pytest.mark.gpu
def test_a_run_on_a_gpu(avatar: str) -> None:
    with join("cuda") as group:
        (row,) = measured([Case(SIZE, 240, 2)], avatar, group)
    assert isinstance(row, Row)
    assert row.reserved is not None
    assert row.allocated is not None
    assert row.reserved >= row.allocated > 0
    (profile,) = row.profiles
    assert profile.nodes["kernels"] > 20
    assert profile.busy > 0
    stages = profile.stages
    assert {"feed", "bin+sort", "blend", "adam"} | DIFFERENTIATED <= stages.keys()
    assert "rasterize" not in stages
    # Nearly the same launches, whether a graph makes them or we do.
    assert sum(stage.launches for stage in stages.values()) > 0.8 * sum(profile.nodes.values())


def test_what_cannot_be_trained_is_skipped(avatar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise TrainingError("too little memory")

    monkeypatch.setattr(training, "train", fail)
    (row,) = measured([Case(SIZE, 240, 2)], avatar, Group(torch.device("cpu")))
    assert row == Skipped(Case(SIZE, 240, 2), "too little memory")
    assert "skipped: 48x40, 240 Gaussians, batch 2, crops whole: too little memory" in training_report.table([], [row])


def test_rates_outlive_a_profiler_that_fails(avatar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stepper: Any) -> None:
        raise TrainingError("no tracing here")

    monkeypatch.setattr(training, "profiles", fail)
    said, row = measured([Case(SIZE, 240, 2)], avatar, Group(torch.device("cpu")))
    assert isinstance(said, Skipped)
    assert said.reason.endswith("no tracing here")
    assert isinstance(row, Row)
    assert (row.steps, row.profiles) == (4, [])
    assert len(training_report.table([row]).splitlines()) == 3
    assert training_report.stage_table(row) == ""


@pytest.mark.parametrize("count", [100, 12_345, 150_000])
def test_gaussians_are_shared_out_as_the_preset_does(count: int) -> None:
    model, own = configuration(Case((512, 512), count, 8), 100).model, configuration(Case((512, 512), 106_000, 8), 100)
    shares = [(m.head_gaussians, m.hair_gaussians, m.mouth_gaussians, m.torso_gaussians) for m in (model, own.model)]
    assert sum(shares[0]) == count
    np.testing.assert_allclose(np.array(shares[0]) / count, np.array(shares[1]) / 106_000, atol=1 / count)


def test_what_no_run_can_have(avatar: str) -> None:
    with pytest.raises(InvalidParameterError, match="at least 100 Gaussians"):
        configuration(Case((512, 512), 99, 8), 100)
    with pytest.raises(InvalidParameterError, match="at least 1, got 0"):
        next(measure([Case(SIZE, 240, 2)], Group(torch.device("cpu")), avatar=avatar, steps=0, warm_up=2))


def test_speed() -> None:
    steps, moments = np.array([100, 150, 200, 250, 300]), np.array([9.0, 10.0, 11.0, 12.0, 15.0])
    rate, step, noise = training.speed(steps, moments)
    assert rate == pytest.approx(200 / 6)
    assert step == pytest.approx(20.0)  # a slow block is in the rate, not in the median
    assert noise == pytest.approx((60 - 20) / 2 / 20)


@pytest.mark.parametrize("level", ["quick", "default", "full"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_level_has_cases(level: str, device: str) -> None:
    cases = training.cases(device, level)
    assert len(cases) == len(set(cases)) > 0
    for case in cases:
        assert configuration(case, 100).schedule.batch == case.batch


@pytest.mark.parametrize(
    "arguments",
    [["--training", "--threads", "1"], ["--training", "--compare", "a.json"], ["--batch", "8"], ["--steps", "0"],
     ["--training", "--device", "cpu", "--gaussians", "10"], ["--training", "--device", "none"]],
)  # fmt: skip
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("bench: ")


# ------------------------------------------------------------------------------- putting kernels down to operations


def event(
    name: str,
    start: float,
    end: float,
    parent: Any = None,
    kernels: tuple[tuple[str, float], ...] = (),
    number: int = -1,
    thread: int = 1,
    device: Any = DeviceType.CPU,
) -> SimpleNamespace:
    """An event as the profiler makes them, as far as it is read."""
    return SimpleNamespace(
        name=name,
        device_type=device,
        is_async=False,
        scope=0,
        sequence_nr=number,
        thread=thread,
        fwd_thread=1,
        cpu_parent=parent,
        time_range=SimpleNamespace(start=start, end=end),
        kernels=[SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels],
        self_cpu_time_total=0.0,
    )


def test_kernels_go_to_what_launched_them() -> None:
    tracks = event("bench: tracks", 0, 10, kernels=(("bench: tracks", 9.0),))
    view = event("aten::view", 1, 2, tracks, number=7)  # makes no node: its number is that of the next one's
    matmul = event("aten::mm", 2, 3, tracks, (("gemm", 5.0),), number=7)
    plain = event("aten::mul", 11, 12, None, (("multiply", 1.0),), number=8)
    blend = event("being_rt::rasterize", 13, 14, None, number=9)
    both = ("being_rt::bin_kernel<true>(int)", 2.0), ("being_rt::blend_kernel(int)", 3.0)
    inner = event("GeneratedBackwardFor_being_rt_rasterize_default", 13, 14, blend, both, number=9)
    engine = [event(f"autograd::engine::evaluate_function: {n}", 20 + n, 21 + n, number=n, thread=2) for n in (9, 8, 7)]
    behind = [
        event("being_rt::rasterize_backward", 29, 30, engine[0], (("blend_backward_kernel", 4.0),), thread=2),
        event("aten::mul", 28, 29, engine[1], (("multiply", 1.0),), thread=2),
        event("aten::mm", 27, 28, engine[2], (("gemm", 5.0), ("gemm", 5.0)), number=7, thread=2),
    ]
    gpu = [
        event(name, start, start + duration, device=DeviceType.CUDA)
        for start, (name, duration) in enumerate(
            [("gemm", 5.0)] * 3
            + [("multiply", 1.0)] * 2
            + list(both)
            + [("blend_backward_kernel", 4.0), ("bench: tracks", 9.0), ("being_rt::adam_kernel(int)", 8.0)]
            + [("Memset (Device)", 0.5)]
        )
    ]
    pieces = list(work([tracks, view, matmul, plain, blend, inner, *engine, *behind, *gpu], on_cuda=True))
    assert sorted((piece.stage, piece.operator, piece.microseconds) for piece in pieces) == [
        ("adam", "", 8.0),
        ("bin+sort", inner.name, 2.0),
        ("blend", inner.name, 3.0),
        ("blend backward", "being_rt::rasterize_backward", 4.0),
        (OTHER, "", 0.5),
        (OTHER, "aten::mul", 1.0),
        (OTHER + " backward", "aten::mul", 1.0),
        ("tracks", "aten::mm", 5.0),
        ("tracks backward", "aten::mm", 5.0),
        ("tracks backward", "aten::mm", 5.0),
    ]


def test_phases_have_the_events_that_began_in_them() -> None:
    first, second = event("bench: phase a", 0, 10), event("bench: phase b", 20, 30)
    image = event("bench: phase a", 2, 25, device=DeviceType.CUDA)
    inside, across, behind = event("x", 1, 2), event("y", 9, 15), event("z", 21, 22, device=DeviceType.CUDA)
    between = event("w", 12, 13)
    phases = by_phase([first, inside, image, across, between, second, behind])
    assert phases == {"a": [first, inside, image, across], "b": [second, behind]}
    assert [piece.name for piece in work(phases["b"], on_cuda=True)] == ["z"]
    assert [piece.name for piece in work(phases["a"], on_cuda=False)] == ["x", "y"]


def test_sums_are_of_a_step() -> None:
    pieces = [Work("a<1>(int)", "op", "skin", 2000.0)] * 4 + [Work("b", "op", "skin backward", 500.0)] * 2
    pieces += [Work("c", "", "new", 100.0)]
    stages = by_stage(pieces, 2)
    assert list(stages) == ["skin", "new"]  # a stage that has no place in the order comes behind
    assert stages["skin"] == Stage(forward=4.0, backward=0.5, launches=3.0)
    first, second, _ = longest(pieces, 2)
    assert (first.name, first.launches, first.milliseconds) == ("a<1>", 2.0, 4.0)
    assert (second.stage, second.milliseconds) == ("skin backward", 0.5)


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("void being_rt::(anonymous namespace)::bin_kernel<true>(being_rt::Stage<float>)", "bin_kernel<true>"),
        ("Memcpy DtoD (Device -> Device)", "Memcpy DtoD (Device -> Device)"),
        ("adam_kernel", "adam_kernel"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>, std::array<char*, 1ul> >"
         "(int, at::native::FillFunctor<float>)",
         "vectorized_elementwise_kernel<4, FillFunctor<float>, array<char*, 1ul> >"),
    ],
)  # fmt: skip
def test_short_names(long: str, short: str) -> None:
    assert short_name(long) == short
