"""The cloning bench: the video that it makes is a performance after an empty room, and its stages add up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("av")

from scenes import make_avatar

from being_rt.avatar.file import save_avatar
from being_rt.bench.__main__ import main
from being_rt.bench.cloning import EMPTY, FPS, Result, film, save, table
from being_rt.track.source import VideoSource

SIZE = (96, 64)


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = make_avatar(head_count=300, torso_count=100, size=SIZE)
    path = tmp_path_factory.mktemp("avatar") / "egg.being"
    save_avatar(replace(made, background=np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)), path)
    return str(path)


def test_the_video_shows_the_room_and_then_the_person(egg: str, tmp_path: Path) -> None:
    film(egg, tmp_path / "a.mp4", SIZE, 1.0, "cpu")
    pictures = [picture.astype(int) for _, _, picture in VideoSource(tmp_path / "a.mp4")]
    room = round(EMPTY * FPS)
    assert len(pictures) == room + FPS
    differs = np.array([np.abs(picture - 90).mean() for picture in pictures])
    assert differs[:room].max() < 5
    assert differs[room:].min() > 2 * differs[:room].max()


def test_stages_add_up(tmp_path: Path) -> None:
    result = Result({}, "ada", SIZE, 30, 7, {"looking": 1.5, "training": 2.0}, {"tracked, %": 99.0}, {"psnr": 30.0})
    assert result.total == 3.5
    told = table(result)
    assert "20.0 frames/s" in told
    assert "3.5 s, 7 steps" in told
    save(result, tmp_path / "a.json")
    kept = json.loads((tmp_path / "a.json").read_text())
    assert (kept["kind"], kept["total"], kept["quality"]) == ("cloning", 3.5, {"psnr": 30.0})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cloning", "--batch", "2"], "--batch is not of --cloning"),
        (["--training", "--video", "a.mp4"], "--video is not of --training"),
        (["--video", "a.mp4"], "--video is of --cloning"),
        (["--cloning", "--size", "64x64", "--video", "a.mp4"], "none with --video"),
        (["--cloning", "--video", "absent.mp4", "--device", "cpu"], "absent.mp4"),
    ],
)
def test_wrong_options_are_refused(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
