"""``being train``: from a data set to files, and one line for what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from train_scenes import make_dataset, small_config

from being_rt.avatar.file import load_avatar
from being_rt.errors import AvatarFileError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.train.config import TrainConfig
from being_rt.train.presets import PRESETS, preset
from being_rt.train.progress import Observer
from being_rt.train_jobs import Train

pytest.importorskip("tyro")

from being_rt.cli import _parse, main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("jobs") / "data", count=7, size=(48, 40)).path


def test_a_job_leaves_its_files(data: Path, tmp_path: Path) -> None:
    made = Train(data, out=tmp_path / "me.being", config=small_config(), steps=8, device="cpu", name="Me").run()
    assert made.complete
    assert made.steps == 8
    assert made.quality["psnr"] > 15
    avatar = load_avatar(tmp_path / "me.being")
    assert avatar.name == "Me"
    assert avatar.metadata["steps"] == "8"
    assert len(FlameParams.load(tmp_path / "me.motion.npz")) == 7
    assert "Held-out frames" in (tmp_path / "me.report.html").read_text()
    assert TrainConfig.load(tmp_path / "me.train" / "config.json").schedule.steps == 8
    assert {path.name for path in tmp_path.iterdir()} == {"me.being", "me.motion.npz", "me.report.html", "me.train"}


def test_resuming_takes_the_runs_own_configuration(data: Path, tmp_path: Path) -> None:
    class Stop(Observer):
        def status(self, status: object) -> None:
            import signal

            signal.raise_signal(signal.SIGINT)

    job = Train(data, out=tmp_path / "me.being", config=small_config(), device="cpu")
    stopped = job.run([Stop()])
    assert not stopped.complete
    assert stopped.avatar is None
    assert not (tmp_path / "me.being").exists()
    resumed = Train(data, out=tmp_path / "me.being", resume=True, device="cpu").run()
    assert resumed.complete
    assert resumed.steps == 12


def test_a_model_that_no_avatar_file_holds_leaves_a_report(data: Path, tmp_path: Path) -> None:
    config = small_config(steps=2)
    config = replace(config, model=replace(config.model, network="points", point_sizes=(8,)))
    made = Train(data, out=tmp_path / "me.being", config=config, device="cpu").run()
    assert made.avatar is None
    assert made.report is not None
    assert not (tmp_path / "me.being").exists()


def test_the_command_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_config(steps=4).save(tmp_path / "small.json")
    arguments = ["train", str(data), "--out", str(tmp_path / "me.being"), "--device", "cpu"]
    assert main([*arguments, "--configuration", str(tmp_path / "small.json"), "--tensorboard"]) == 0
    shown = capsys.readouterr()
    assert "me.being: 4 steps in 0:0" in shown.out
    assert "training on the CPU" in shown.err
    assert any((tmp_path / "me.train" / "tensorboard").iterdir())


@pytest.mark.parametrize("name", PRESETS)
def test_options_start_from_the_preset(name: str) -> None:
    command = _parse(["train", "data", "--preset", name, "--model.rank", "7", "--feed.window", "64", "32"])
    expected = preset(name)
    expected = replace(expected, model=replace(expected.model, rank=7), feed=replace(expected.feed, window=(64, 32)))
    assert command.config == expected


def test_wrong_input_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {
        ("train", str(data), "--preset", "nobody"): "there is no preset 'nobody'",
        ("train", str(data), "--out", "me.zip"): "out must end in .being",
        ("train", str(tmp_path / "none"), "--out", str(tmp_path / "x.being"), "--device", "cpu"): "does not exist",
        ("train", str(data), "--out", str(tmp_path / "x.being"), "--device", "tpu"): "device must be auto",
        ("train", str(data), "--configuration", str(tmp_path / "none.json")): "none.json does not exist",
        ("train", str(data), "--out", str(tmp_path / "no" / "x.being")): "create it first",
    }
    for arguments, message in wrong.items():
        assert main(list(arguments)) == 2, arguments
        error = capsys.readouterr().err
        assert message in error.splitlines()[-1], error


def test_what_is_wrong_is_found_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="steps and seconds"):
        Train("nothing", out=tmp_path / "x.being", steps=-1).run()
    (tmp_path / "folder.being").mkdir()
    with pytest.raises(AvatarFileError, match="a folder of that name"):
        Train("nothing", out=tmp_path / "folder.being").run()
