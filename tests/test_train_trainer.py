"""Whole runs: they learn, they stop cleanly, they go on as if nothing had happened, on several processes too."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from train_scenes import make_dataset, small_config

from being_rt.dataset import Dataset
from being_rt.errors import CheckpointError, TrainingError
from being_rt.train.checkpoint import load_checkpoint
from being_rt.train.config import TrainConfig
from being_rt.train.evaluate import Evaluation
from being_rt.train.export import to_avatar
from being_rt.train.progress import Observer, Status, read_log
from being_rt.train.trainer import CHECKPOINT, CONFIGURATION, LOG, PREVIEWS, TrainResult, train


class Recorder(Observer):
    """Keeps what it is told; interrupts the run after a step."""

    def __init__(self, interrupt_at: int = -1) -> None:
        self.statuses: list[Status] = []
        self.evaluations: list[Evaluation] = []
        self.phases: list[str] = []
        self.closed = 0
        self._interrupt_at = interrupt_at

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def status(self, status: Status) -> None:
        self.statuses.append(status)
        if status.step == self._interrupt_at:
            signal.raise_signal(signal.SIGINT)

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("trainer") / "data", count=8, size=(48, 40))


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(dataset, small_config(), folder).complete
    return folder


def assert_same_run(first: Path, second: Path) -> None:
    """The same bits in the end, and the same losses on the way."""
    one, other = load_checkpoint(first / CHECKPOINT), load_checkpoint(second / CHECKPOINT)
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    curves = [
        [(e["step"], e["total"]) for e in read_log(folder / LOG) if e["kind"] == "loss"] for folder in (first, second)
    ]
    assert curves[0] == curves[1]


def test_a_run_learns_and_says_what_it_does(dataset: Dataset, tmp_path: Path) -> None:
    config = small_config(steps=60, check_interval=10, relocate_interval=20, evaluate_interval=30)
    told = Recorder()
    shown = []
    result = train(dataset, config, tmp_path / "run", observers=(told,), sink=lambda *frame: shown.append(frame))
    assert result.complete
    assert result.steps == 60
    assert [status.step for status in told.statuses] == list(range(10, 70, 10))
    assert told.statuses[-1].progress == 1
    assert [len(evaluation.scores) for evaluation in told.evaluations] == [2, 2]
    assert told.evaluations[1].mean("psnr") > told.evaluations[0].mean("psnr")
    assert result.evaluations[0].mean("psnr") > 22
    assert len(shown) == 2
    assert shown[0][1].shape == (40, 48, 3)
    assert told.phases[:2] == ["reading frames", "initialising"]
    assert told.closed == 1
    assert {"training", "last evaluation"} <= result.times.keys()
    folder = tmp_path / "run"
    assert TrainConfig.load(folder / CONFIGURATION) == config
    assert [path.name for path in (folder / PREVIEWS).iterdir()] == ["000030.png"]
    kinds = [entry["kind"] for entry in read_log(folder / LOG)]
    assert kinds == ["loss"] * 3 + ["evaluation"] + ["loss"] * 3 + ["evaluation"]
    assert len(result.params) == len(dataset.params)


def test_the_result_is_an_avatar_that_draws_what_was_trained(dataset: Dataset, tmp_path: Path) -> None:
    from being_rt.avatar.file import load_avatar, save_avatar
    from being_rt.renderer import Renderer

    shown = []
    result = train(
        dataset, small_config(steps=20), tmp_path / "run", sink=lambda *frame: shown.append((frame[0], frame[1]))
    )
    background = np.full((40, 48, 3), 255, np.uint8)  # as in an evaluation of a data set without one
    save_avatar(to_avatar(result.model, "ellipse", result.camera, background), tmp_path / "me.being")
    renderer = Renderer(load_avatar(tmp_path / "me.being"), (48, 40))
    for score, drawn in shown:
        picture = renderer.render(result.params[score.timestep]).astype(int)
        assert np.abs(picture - drawn).mean() < 0.5


def test_an_interrupted_run_goes_on_to_the_same_bits(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    told = Recorder(interrupt_at=8)
    stopped = train(dataset, small_config(), tmp_path / "run", observers=(told,))
    assert not stopped.complete
    assert stopped.steps == 8
    assert stopped.evaluations == ()
    again = Recorder()
    resumed = train(dataset, small_config(), tmp_path / "run", resume=True, observers=(again,))
    assert resumed.complete
    assert [status.step for status in again.statuses] == [12]
    assert_same_run(whole, tmp_path / "run")


def test_a_finished_run_resumes_to_its_end(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    before = (whole / CHECKPOINT).read_bytes()
    told = Recorder()
    result = train(dataset, small_config(), whole, resume=True, observers=(told,))
    assert result.complete
    assert told.statuses == []
    assert (whole / CHECKPOINT).read_bytes() == before


def test_resuming_where_there_is_nothing_is_a_start(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    train(dataset, small_config(), tmp_path / "run", resume=True)
    assert_same_run(whole, tmp_path / "run")


def test_a_checkpoint_of_another_run_is_refused(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    other = replace(small_config(), loss=replace(small_config().loss, l1=0.5))
    with pytest.raises(CheckpointError, match=r"has another configuration: loss\.l1 is 0\.8 there, 0\.5 here"):
        train(dataset, other, whole, resume=True)
    with pytest.raises(CheckpointError, match="is of another dataset than"):
        train(make_dataset(tmp_path / "data", 7, (48, 40)), small_config(), whole, resume=True)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    """kill -9 at a moment of chance."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from train_scenes import small_config\n"
        "from being_rt.train.trainer import train\n"
        "train(sys.argv[1], small_config(checkpoint_seconds=1e-9), sys.argv[2], resume=True)\n"
    )
    command = [sys.executable, "-c", script, str(dataset.path), str(tmp_path / "run"), str(Path(__file__).parent)]
    process = subprocess.Popen(command, cwd=tmp_path)
    while process.poll() is None and not (tmp_path / "run" / LOG).exists():
        time.sleep(0.01)
    time.sleep(random.Random(os.getpid()).uniform(0, 0.5))
    process.kill()
    process.wait()
    subprocess.run(command, check=True, cwd=tmp_path)
    state = load_checkpoint(tmp_path / "run" / CHECKPOINT).state
    assert state["clock"]["step"] == 12
    one, other = (load_checkpoint(folder / CHECKPOINT).tensors for folder in (whole, tmp_path / "run"))
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    losses = {e["step"]: e["total"] for e in read_log(tmp_path / "run" / LOG) if e["kind"] == "loss"}
    assert losses == {e["step"]: e["total"] for e in read_log(whole / LOG) if e["kind"] == "loss"}


def test_a_time_limit_ends_the_run_with_its_schedule(dataset: Dataset, tmp_path: Path) -> None:
    told = Recorder()
    result = train(dataset, small_config(steps=10**6, seconds=0.5), tmp_path / "run", observers=(told,))
    assert result.complete
    assert 4 <= result.steps < 10**6
    assert 0.2 < result.seconds < 3
    assert told.statuses[-1].progress == 1


def test_a_diverging_run_keeps_the_last_good_checkpoint(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = train(dataset, small_config(), tmp_path / "run", observers=(Recorder(interrupt_at=4),))
    assert stopped.steps == 4
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    monkeypatch.setattr(
        "being_rt.train.model.AvatarModel.regularisation", lambda *_: {"scale": torch.tensor(float("inf"))}
    )
    told = Recorder()
    with pytest.raises(TrainingError, match=r"diverged at step 4: scale is inf; the checkpoint of step 4 is kept in"):
        train(dataset, small_config(), tmp_path / "run", resume=True, observers=(told,))
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert told.closed == 1


def test_parameters_that_are_not_finite_are_not_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object) -> None:
        self.tensors["head.colour"].detach()[0] = float("nan")  # type: ignore[attr-defined]

    monkeypatch.setattr("being_rt.train.model.AvatarModel.after_step", broken)
    with pytest.raises(TrainingError, match="diverged"):
        train(dataset, small_config(steps=1), tmp_path / "run")
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_room_on_the_disk_is_checked_at_the_start(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(CheckpointError, match=r"training needs 0\.07 GB there, 0\.00 GB are free"):
        train(dataset, small_config(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="cannot make the folder"):
        train(dataset, small_config(), tmp_path / "none" / "run")


@pytest.mark.slow
def test_two_processes_train_as_one_does(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[3])\n"
        "from train_scenes import small_config\n"
        "from being_rt.train import step\n"
        "from being_rt.train.distributed import join\n"
        "from being_rt.train.trainer import train\n"
        "step.LARGE = 1000\n"  # some gradients travel by themselves, the others together
        "with join('cpu') as group:\n"
        "    assert group.ranks == 2\n"
        "    train(sys.argv[1], small_config(), sys.argv[2], group=group)\n"
    )
    (tmp_path / "both.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(tmp_path / "both.py"), str(dataset.path), str(tmp_path / "run"), str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=100, capture_output=True, cwd=tmp_path)
    entries = [[e for e in read_log(folder / LOG) if e["kind"] == "loss"] for folder in (whole, tmp_path / "run")]
    assert [e["step"] for e in entries[1]] == [4, 8, 12]
    for one, two in zip(*entries, strict=True):
        assert two["total"] == pytest.approx(one["total"], rel=2e-3)
    first, second = (load_checkpoint(folder / CHECKPOINT).tensors for folder in (whole, tmp_path / "run"))
    assert second["model.head.colour"].sub(first["model.head.colour"]).abs().mean() < 1e-3


def test_the_configuration_is_kept_as_text(whole: Path) -> None:
    assert json.loads((whole / CONFIGURATION).read_text())["schedule"]["steps"] == 12


def result_bits(result: TrainResult) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in result.model.tensors.items()}


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_bits_on_a_device(dataset: Dataset, tmp_path: Path) -> None:
    from being_rt.train.distributed import join

    with join("cuda") as group:
        runs = [result_bits(train(dataset, small_config(steps=40), tmp_path / name, group=group)) for name in "ab"]
        stopped = train(
            dataset, small_config(steps=40), tmp_path / "c", group=group, observers=(Recorder(interrupt_at=16),)
        )
        assert not stopped.complete
        runs.append(result_bits(train(dataset, small_config(steps=40), tmp_path / "c", group=group, resume=True)))
    for name, tensor in runs[0].items():
        assert torch.equal(tensor, runs[1][name]), name
        assert torch.equal(tensor, runs[2][name]), name


def test_a_short_clip_is_not_learned_by_heart(dataset: Dataset, tmp_path: Path) -> None:
    """A run ends when every frame has been seen often enough, whatever its steps."""
    config = small_config(steps=50, visits=3, batch=2)
    result = train(dataset, config, tmp_path / "run")
    assert result.complete
    assert result.steps == -(-3 * len(dataset.split("train")) // 2)
