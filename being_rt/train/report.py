"""The report of a run: one HTML file that needs nothing else, with curves, held-out frames, scores and times."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import TrainingError
from being_rt.files import atomic_write
from being_rt.page import chart, figure, number, page, picture_address, table, text, video_address
from being_rt.train.evaluate import Evaluation, FrameScore
from being_rt.train.progress import duration

UInt8 = NDArray[np.uint8]

_NAMES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "person_psnr": "PSNR of the person, dB",
    "face_psnr": "PSNR of the face, dB",
    "mouth_psnr": "PSNR of the mouth, dB",
    "eyes_psnr": "PSNR of the eyes, dB",
    "lpips": "LPIPS (VGG)",
}


@dataclass(frozen=True)
class Pair:
    """A held-out frame: what the avatar shows and what the camera saw, uint8 [H, W, 3]."""

    score: FrameScore
    drawn: UInt8
    seen: UInt8


@dataclass(frozen=True)
class Report:
    """What a report says.

    Example::

        Report("Ada", entries=read_log("ada.train/log.jsonl"), evaluations=[evaluation]).write("ada.report.html")
    """

    title: str
    summary: Mapping[str, str] = field(default_factory=dict)  # lines at the top
    entries: Sequence[Mapping[str, Any]] = ()  # of the run's log
    evaluations: Sequence[Evaluation] = ()
    worst: Sequence[Pair] = ()
    times: Mapping[str, float] = field(default_factory=dict)  # seconds by phase
    video: str | os.PathLike[str] | None = None  # held-out frames, avatar beside camera
    configuration: str = ""  # JSON

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file. Raises ``TrainingError``."""
        with atomic_write(path, TrainingError) as temporary:
            temporary.write_text(self.html(Path(path).parent), encoding="utf-8")

    def html(self, folder: Path) -> str:
        """The page; ``folder`` is where it will lie, for links to what it does not hold."""
        parts = [
            table([], [[name, value] for name, value in self.summary.items()]),
            self._scores(),
            self._curves(),
            self._video(folder),
            self._worst(),
            self._times(),
        ]
        if self.configuration:
            parts.append(f"<details><summary>Configuration</summary><pre>{text(self.configuration)}</pre></details>")
        return page(self.title, parts)

    def _scores(self) -> str:
        if not self.evaluations:
            return ""
        head = ["", *(f"{evaluation.split} ({len(evaluation.scores)} frames)" for evaluation in self.evaluations)]
        rows = []
        for measure, name in _NAMES.items():
            means = [evaluation.mean(measure) for evaluation in self.evaluations]
            if any(math.isfinite(mean) for mean in means):
                rows.append([name, *(number(mean) for mean in means)])
        rows.append(["shoulders shake by, px", *(number(evaluation.body_shake) for evaluation in self.evaluations)])
        note = "Motion: the track, steadied, without corrections. Nothing is fitted to a held-out picture."
        return f"<h2>Held-out frames</h2>{table(head, rows)}<p>{note}</p>"

    def _curves(self) -> str:
        losses = [entry for entry in self.entries if entry.get("kind") == "loss"]
        names = [name for name in (losses[0] if losses else ()) if name not in _NOT_LOSSES]
        charts = [
            (
                "Loss (logarithmic)",
                {name: [(e["step"], e[name]) for e in losses if _positive(e.get(name))] for name in names},
                True,
            )
        ]
        graded = [entry for entry in self.entries if entry.get("kind") == "evaluation"]
        decibels = {
            name: [(e["step"], e[key]) for e in graded if isinstance(e.get(key), float)]
            for key, name in (("psnr", "all"), ("mouth_psnr", "mouth"), ("eyes_psnr", "eyes"), ("face_psnr", "face"))
        }
        charts.append(("PSNR of held-out frames, dB", decibels, False))
        drawn = [
            figure(title, chart(series, logarithmic)) for title, series, logarithmic in charts if any(series.values())
        ]
        return f"<h2>Curves</h2>{''.join(drawn)}" if drawn else ""

    def _video(self, folder: Path) -> str:
        if self.video is None:
            return ""
        shown = f'<video controls loop muted src="{text(video_address(self.video, folder))}"></video>'
        return f"<h2>Held-out frames in motion</h2>{figure('Left: the avatar. Right: the camera.', shown)}"

    def _worst(self) -> str:
        figures = []
        for pair in self.worst:
            difference = np.abs(pair.drawn.astype(np.int16) - pair.seen.astype(np.int16))
            strip = np.concatenate([pair.drawn, pair.seen, np.clip(4 * difference, 0, 255).astype(np.uint8)], axis=1)
            caption = f"frame {pair.score.frame}: {pair.score.psnr:.2f} dB; avatar, camera, four times the difference"
            figures.append(figure(caption, f'<img alt="" src="{picture_address(strip)}">'))
        return f"<h2>Worst frames</h2>{''.join(figures)}" if figures else ""

    def _times(self) -> str:
        if not self.times:
            return ""
        rows = [[name, f"{seconds:.1f} s"] for name, seconds in self.times.items()]
        rows.append(["all", duration(sum(self.times.values()))])
        return f"<h2>Time</h2>{table([], rows)}"


_NOT_LOSSES = ("kind", "step", "seconds", "images_per_second")


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0
