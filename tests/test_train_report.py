"""What a run tells: a log that survives being cut off, lines on a terminal, a report that stands alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train_scenes import make_dataset

from being_rt.errors import TrainingError
from being_rt.page import chart
from being_rt.train.config import TrackConfig
from being_rt.train.evaluate import Evaluation, FrameScore, box_weight, evaluate, worst
from being_rt.train.frames import Frames
from being_rt.train.progress import (
    Log,
    Observer,
    Observers,
    Previews,
    Status,
    TensorBoard,
    Terminal,
    describe,
    duration,
    read_log,
)
from being_rt.train.report import Pair, Report
from being_rt.train.tracks import Tracks

STATUS = Status(50, 0.5, 12.3, 75.0, 321.4, {"total": 0.25, "l1": 0.125})


def evaluation(split: str = "test", count: int = 3) -> Evaluation:
    scores = [FrameScore(k, k, 30.0 + k, 0.9, 28.0, 27.0, 26.0, math.nan) for k in range(count)]
    return Evaluation(split, tuple(scores), 0.05)


def at(step: int, **changes: Any) -> Status:
    return Status(**({"step": step} | {n: getattr(STATUS, n) for n in vars(STATUS) if n != "step"} | changes))


def test_a_log_is_lines_of_json(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.status(STATUS)
    log.evaluation(STATUS, evaluation())
    log.status(at(100, images_per_second=math.nan))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "kind": "loss", "step": 50, "seconds": 12.3, "total": 0.25, "l1": 0.125, "images_per_second": 321.4,
    }  # fmt: skip
    assert lines[1]["kind"] == "evaluation"
    assert lines[1]["psnr"] == 31.0
    assert "eyes_psnr" not in lines[1]
    assert lines[2]["images_per_second"] is None


def test_a_resumed_log_forgets_what_is_done_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    for step in (50, 100, 150):
        log.status(at(step))
    log.close()
    with open(tmp_path / "log.jsonl", "a") as stream:
        stream.write('{"kind": "loss", "st')  # the process was killed here
    resumed = Log(tmp_path / "log.jsonl", resumed=100)
    resumed.status(at(150))
    resumed.close()
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [50, 100, 150]
    Log(tmp_path / "log.jsonl").close()
    assert read_log(tmp_path / "log.jsonl") == []
    assert read_log(tmp_path / "none.jsonl") == []
    with pytest.raises(TrainingError, match="the folder does not exist"):
        Log(tmp_path / "none" / "log.jsonl")


def test_observers_are_called_in_order() -> None:
    heard: list[tuple[str, str]] = []

    class Listener(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def __getattribute__(self, item: str) -> Any:
            if item in ("phase", "count", "status", "evaluation", "preview", "message", "close"):
                return lambda *_: heard.append((object.__getattribute__(self, "name"), item))
            return object.__getattribute__(self, item)

    both = Observers([Listener("a"), Listener("b")])
    picture = np.zeros((1, 1, 3), np.uint8)
    both.phase("x")
    both.count(1, 2)
    both.status(STATUS)
    both.evaluation(STATUS, evaluation())
    both.preview(STATUS, picture, picture)
    both.message("x")
    both.close()
    names = ["phase", "count", "status", "evaluation", "preview", "message", "close"]
    assert heard == [(who, name) for name in names for who in "ab"]


def test_status_in_a_line() -> None:
    assert describe(STATUS) == "step 50  loss 0.2500  321 images/s  1:15 left"
    assert describe(at(0, remaining=math.nan, images_per_second=math.nan, quality={"psnr": 30.123})) == (
        "step 0  loss 0.2500  PSNR 30.12 dB"
    )
    assert [duration(s) for s in (0, 59.6, 3661)] == ["0:00", "1:00", "1:01:01"]


def test_a_terminal_says_what_matters(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    terminal = Terminal()
    terminal.phase("reading frames")
    terminal.count(1, 3)
    terminal.status(STATUS)
    terminal.evaluation(STATUS, evaluation())
    terminal.message("a word")
    terminal.close()
    shown = capsys.readouterr().err
    assert "step 50: held-out PSNR 31.00 dB, mouth 26.00 dB, SSIM 0.9000 (3 frames, 0:12)" in shown
    assert "a word" in shown


def test_previews_are_pictures(tmp_path: Path) -> None:
    from PIL import Image

    drawn, seen = np.full((4, 6, 3), 10, np.uint8), np.full((4, 6, 3), 200, np.uint8)
    Previews(tmp_path / "previews").preview(STATUS, drawn, seen)
    with Image.open(tmp_path / "previews" / "000050.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.concatenate([drawn, seen], axis=1))


def test_tensorboard_gets_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = TensorBoard(tmp_path / "board")
    board.status(STATUS)
    board.evaluation(STATUS, evaluation())
    board.preview(STATUS, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8))
    board.close()
    (events,) = (tmp_path / "board").iterdir()
    data = events.read_bytes()
    for name in (b"loss/total", b"images per second", b"test/psnr", b"avatar, camera"):
        assert name in data


class Elements(HTMLParser):
    """Every tag's attributes, and that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_stands_alone(tmp_path: Path) -> None:
    entries = [{"kind": "loss", "step": s, "seconds": s / 10, "total": 1 / s, "l1": 0.5 / s} for s in (50, 100, 150)]
    entries += [{"kind": "evaluation", "step": s, "psnr": 20.0 + s / 50, "mouth_psnr": 22.5} for s in (50, 100)]
    (tmp_path / "held-out.mp4").write_bytes(b"film")
    picture = np.zeros((8, 10, 3), np.uint8)
    scores = [evaluation(), evaluation("views", 1)]
    report = Report(
        "Ada <& co>",
        {"steps": "150"},
        entries,
        scores,
        [Pair(scores[0].scores[0], picture, picture + 9)],
        {"reading frames": 1.5, "training": 60.0},
        tmp_path / "held-out.mp4",
        '{"seed": 1}',
    )
    report.write(tmp_path / "report.html")
    page = Elements()
    text = (tmp_path / "report.html").read_text()
    page.feed(text)
    assert page.open == []
    tags = [tag for tag, _ in page.seen]
    assert "script" not in tags
    assert tags.count("svg") == 2
    assert tags.count("polyline") == 4
    sources = [attributes["src"] for tag, attributes in page.seen if tag in ("img", "video")]
    assert [str(source)[:10] for source in sources] == ["data:video", "data:image"]
    assert "Ada <& co>" in page.text
    for said in ("test (3 frames)", "views (1 frames)", "31.00", "0.05", "frame 0: 30.00 dB", "60.0 s", '{"seed": 1}'):
        assert said in page.text, said
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", text)


def test_a_long_video_is_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("being_rt.page.EMBEDDED_VIDEO", 3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "film.mp4").write_bytes(b"film")
    assert 'src="run/film.mp4"' in Report("x", video=tmp_path / "run" / "film.mp4").html(tmp_path)


def test_charts_of_little() -> None:
    assert "polyline" in chart({"one": [(0, 5.0)]})
    assert chart({"flat": [(0, 1.0), (1, 1.0)], "none": []}, logarithmic=True).count("polyline") == 1


def test_scores_of_known_pictures(tmp_path: Path) -> None:
    """A model that draws the camera's own pictures is perfect; one that is off by 10 of 255 everywhere is at 28 dB."""
    dataset = make_dataset(tmp_path / "data", 4, (40, 32), background=True)
    tracks = Tracks(dataset.params, dataset.split("train"), TrackConfig(refine=False), "cpu")

    class Copy:
        def __init__(self, offset: int) -> None:
            self.offset, self.calls = offset, iter(dataset.split("test"))

        def render(self, frames: Frames) -> torch.Tensor:
            index = int(next(self.calls))
            assert frames.size == (40, 32)
            np.testing.assert_array_equal(frames.translation[0], dataset.params[index].translation[0])
            alpha = torch.tensor(dataset.mask(index))[..., None] / 255
            picture = alpha * torch.tensor(dataset.image(index)) / 255 + (1 - alpha) * frames.background[0]
            picture = (picture * 255).round() + self.offset
            return torch.cat([picture / 255, alpha], dim=2)[None]

    perfect = evaluate(Copy(0), tracks, dataset, dataset.split("test"))
    assert all(math.isinf(score.psnr) and score.ssim == pytest.approx(1) for score in perfect.scores)
    off = evaluate(Copy(-10), tracks, dataset, dataset.split("test"))
    expected = 20 * math.log10(255 / 10)
    assert off.mean("psnr") == pytest.approx(expected, abs=1e-3)
    assert off.mean("mouth_psnr") == pytest.approx(expected, abs=1e-3)
    assert math.isnan(off.mean("lpips"))
    assert off.summary()["frames"] == 2
    assert off.rows()[0]["lpips"] is None
    assert [score.frame for score in worst(off, 1)] == [min(off.scores, key=lambda score: score.psnr).frame]


def test_boxes_of_nowhere_weigh_nothing() -> None:
    boxes = [np.array([1, 1, 3, 2], np.float32), np.full(4, np.nan, np.float32), np.array([-5, -5, 1, 1], np.float32)]
    weight = box_weight(boxes, (4, 3), "cpu")
    assert weight.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
