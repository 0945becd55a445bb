"""The report of a run: one HTML file that needs nothing else, with curves, held-out frames, scores and times."""

from __future__ import annotations

import base64
import html
import io
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
from being_rt.train.evaluate import Evaluation, FrameScore
from being_rt.train.progress import duration

UInt8 = NDArray[np.uint8]
Series = Sequence[tuple[float, float]]

EMBEDDED_VIDEO = 24 << 20  # bytes; a longer video is linked
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 260, 56, 34, 12  # px of a chart
_COLOURS = ("#2563a8", "#c2571a", "#2d8a4e", "#8a3fa0", "#a08a1a", "#666666", "#b0305a", "#1a8f9e")
_NAMES = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "person_psnr": "PSNR of the person, dB",
    "face_psnr": "PSNR of the face, dB",
    "mouth_psnr": "PSNR of the mouth, dB",
    "eyes_psnr": "PSNR of the eyes, dB",
    "lpips": "LPIPS (VGG)",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #1c1c1c; }
table { border-collapse: collapse; margin: .5em 0 1.5em; } td, th { padding: .2em .9em .2em 0; text-align: left; }
td + td, th + th { text-align: right; font-variant-numeric: tabular-nums; } th { border-bottom: 1px solid #bbb; }
figure { margin: 0 0 1.2em; } figcaption { color: #555; } img, video { max-width: 100%; } pre { overflow-x: auto; }
svg text { font: 11px system-ui, sans-serif; fill: #444; } h2 { margin-top: 1.6em; }
"""


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
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(self.title)}</title>',
            f"<style>{_STYLE}</style></head><body>\n<h1>{_text(self.title)}</h1>",
            _table([], [[name, value] for name, value in self.summary.items()]),
            self._scores(),
            self._curves(),
            self._video(folder),
            self._worst(),
            self._times(),
        ]
        if self.configuration:
            parts.append(f"<details><summary>Configuration</summary><pre>{_text(self.configuration)}</pre></details>")
        return "\n".join(part for part in parts if part) + "\n</body></html>\n"

    def _scores(self) -> str:
        if not self.evaluations:
            return ""
        head = ["", *(f"{evaluation.split} ({len(evaluation.scores)} frames)" for evaluation in self.evaluations)]
        rows = []
        for measure, name in _NAMES.items():
            means = [evaluation.mean(measure) for evaluation in self.evaluations]
            if any(math.isfinite(mean) for mean in means):
                rows.append([name, *(_number(mean) for mean in means)])
        rows.append(["shoulders shake by, px", *(_number(evaluation.body_shake) for evaluation in self.evaluations)])
        note = "Motion: the track, steadied, without corrections. Nothing is fitted to a held-out picture."
        return f"<h2>Held-out frames</h2>{_table(head, rows)}<p>{note}</p>"

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
            _figure(title, chart(series, logarithmic)) for title, series, logarithmic in charts if any(series.values())
        ]
        return f"<h2>Curves</h2>{''.join(drawn)}" if drawn else ""

    def _video(self, folder: Path) -> str:
        if self.video is None:
            return ""
        path = Path(self.video)
        data = path.read_bytes() if path.stat().st_size <= EMBEDDED_VIDEO else b""
        source = f"data:video/mp4;base64,{base64.b64encode(data).decode()}" if data else os.path.relpath(path, folder)
        shown = f'<video controls loop muted src="{_text(source)}"></video>'
        return f"<h2>Held-out frames in motion</h2>{_figure('Left: the avatar. Right: the camera.', shown)}"

    def _worst(self) -> str:
        figures = []
        for pair in self.worst:
            difference = np.abs(pair.drawn.astype(np.int16) - pair.seen.astype(np.int16))
            strip = np.concatenate([pair.drawn, pair.seen, np.clip(4 * difference, 0, 255).astype(np.uint8)], axis=1)
            caption = f"frame {pair.score.frame}: {pair.score.psnr:.2f} dB; avatar, camera, four times the difference"
            figures.append(_figure(caption, f'<img alt="" src="{_picture(strip)}">'))
        return f"<h2>Worst frames</h2>{''.join(figures)}" if figures else ""

    def _times(self) -> str:
        if not self.times:
            return ""
        rows = [[name, f"{seconds:.1f} s"] for name, seconds in self.times.items()]
        rows.append(["all", duration(sum(self.times.values()))])
        return f"<h2>Time</h2>{_table([], rows)}"


_NOT_LOSSES = ("kind", "step", "seconds", "images_per_second")


def chart(series: Mapping[str, Series], logarithmic: bool = False) -> str:
    """Curves as SVG: a colour each, with axes, ticks and a legend. Points (x, y); y positive where logarithmic."""
    points = [(x, math.log10(y) if logarithmic else y) for values in series.values() for x, y in values]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    if high_y - low_y < 1e-9:
        low_y, high_y = low_y - 0.5, high_y + 0.5
    span_x = max(high_x - low_x, 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        height = math.log10(y) if logarithmic else y
        across = _LEFT + (x - low_x) / span_x * (_WIDTH - _LEFT - 10)
        return across, _TOP + (high_y - height) / (high_y - low_y) * (_HEIGHT - _BOTTOM - _TOP)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18}" width="{_WIDTH}" role="img">']
    for tick in _ticks(low_y, high_y):
        _, y = place(low_x, 10**tick if logarithmic else tick)
        label = f"{10**tick:.2g}" if logarithmic else f"{tick:g}"
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    for tick in _ticks(low_x, high_x):
        x = _LEFT + (tick - low_x) / span_x * (_WIDTH - _LEFT - 10)
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    place_legend = _LEFT
    for (name, values), colour in zip(series.items(), _COLOURS * len(series), strict=False):
        if not values:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*value) for value in values))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<rect x="{place_legend}" y="{_HEIGHT + 2}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{place_legend + 14}" y="{_HEIGHT + 11}">{_text(name)}</text>')
        place_legend += 26 + 7 * len(name)
    return "".join(parts) + "</svg>"


def _ticks(low: float, high: float) -> list[float]:
    """Some four round numbers between two."""
    if high - low < 1e-9:
        return [low]
    rough = (high - low) / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    top = f"<tr>{''.join(f'<th>{_text(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _figure(caption: str, content: str) -> str:
    return f"<figure>{content}<figcaption>{_text(caption)}</figcaption></figure>"


def _picture(picture: UInt8) -> str:
    """A picture as the address that an ``img`` takes."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}" if math.isfinite(value) else "–"


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value > 0


def _text(value: str) -> str:
    return html.escape(value)
