"""The report of a track: one HTML file with figures, curves, pictures, and what to film again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.dataset.overlay import overlay
from being_rt.errors import TrackError
from being_rt.files import atomic_write
from being_rt.flame.rotations import matrices
from being_rt.page import chart, figure, number, page, picture_address, table, text, video_address
from being_rt.parallel import in_order
from being_rt.track.prepare import Prepared
from being_rt.track.quality import Gap, TrackQuality, advice
from being_rt.video import VideoWriter

Float64 = NDArray[np.float64]

SHOWN = 3  # frames of each kind
VIDEO_SIDE = 1280  # px of an overlay video's longer side, at most


@dataclass(frozen=True)
class TrackReport:
    """What a report says.

    Example::

        TrackReport("Me", prepared, judge(prepared.observations, prepared.fit, model, embedding)).write("me.track.html")
    """

    title: str
    prepared: Prepared
    quality: TrackQuality
    video: str | os.PathLike[str] | None = None  # frames with the mesh over them
    times: Mapping[str, float] = field(default_factory=dict)  # seconds by stage

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file. Raises ``TrackError``."""
        with atomic_write(path, TrackError) as temporary:
            temporary.write_text(self.html(Path(path).parent), encoding="utf-8")

    def html(self, folder: Path) -> str:
        """The page; ``folder`` is where it will lie, for links to what it does not hold."""
        return page(
            self.title,
            [self._summary(), self._words(), self._errors(), self._curves(), self._video(folder), self._frames()],
        )

    def _summary(self) -> str:
        quality, made = self.quality, self.prepared
        width, height = made.observations.size
        rows = [
            ["video", f"{quality.frames} frames of {width} x {height} at {made.observations.fps:g} per second"],
            ["tracked", f"{quality.tracked} frames, {100 * quality.tracked / quality.frames:.1f} %"],
            ["landmarks off by", f"{quality.error:.2f} % of the distance between the eyes ({made.fit.unit:.0f} px)"],
            ["jaw's line off by", f"{quality.outline:.2f} %"],
            ["blinks", f"{quality.blinks_found} of {quality.blinks} are in the track"],
            ["opening of lids", _gap(quality.lids)],
            ["opening of lips", _gap(quality.lips)],
            ["head jitter", f"{quality.jitter:.2f} px"],
            ["head turns", f"{quality.yaw[0]:.0f} to {quality.yaw[1]:.0f} degrees sideways, "
                           f"{quality.pitch[0]:.0f} to {quality.pitch[1]:.0f} up and down"],
            ["focal length", f"{quality.focal:.0f} px, uncertain by {100 * quality.focal_deviation:.1f} %"],
            ["camera", made.motion.words],
            ["background seen", f"{100 * made.known:.0f} %"],
        ]  # fmt: skip
        rows += [[name, told] for name, told in made.refinement.items()]
        rows += [[name, f"{seconds:.1f} s"] for name, seconds in self.times.items()]
        return table([], rows)

    def _words(self) -> str:
        said = [*advice(self.quality, static=self.prepared.motion.is_static, known=self.prepared.known)]
        said += [f"{warning[:1].upper()}{warning[1:]}." for warning in self.prepared.warnings]
        if not said:
            return "<h2>What to film again</h2><p>Nothing.</p>"
        return f"<h2>What to film again</h2><ul>{''.join(f'<li>{text(line)}</li>' for line in said)}</ul>"

    def _errors(self) -> str:
        rows = [[name, f"{error:.2f} %"] for name, error in self.quality.errors.items() if math.isfinite(error)]
        return f"<h2>Landmarks, of the distance between the eyes</h2>{table(['', 'median'], rows)}"

    def _curves(self) -> str:
        fit, quality = self.prepared.fit, self.quality
        rotation = matrices(fit.params.rotation)
        drawn: list[tuple[str, dict[str, Any]]] = [
            ("Landmarks off by, % of the distance between the eyes", {"error": 100 * fit.error / fit.unit}),
            ("Opening of the lids", {"seen": quality.lids.seen, "track": quality.lids.fitted}),
            ("Opening of the lips", {"seen": quality.lips.seen, "track": quality.lips.fitted}),
            (
                "Head, degrees",
                {
                    "sideways": np.degrees(np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2])),
                    "up and down": np.degrees(np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1))),
                },
            ),
        ]
        charts = [
            figure(title, chart(_series(lines))) for title, lines in drawn if any(map(_has_points, lines.values()))
        ]
        return f"<h2>Over time, by frame</h2>{''.join(charts)}"

    def _video(self, folder: Path) -> str:
        if self.video is None:
            return ""
        shown = f'<video controls loop muted src="{text(video_address(self.video, folder))}"></video>'
        return f"<h2>The mesh over the video</h2>{shown}"

    def _frames(self) -> str:
        made = self.prepared
        error = made.fit.error[list(made.frames)].astype(np.float64)
        order = np.argsort(np.nan_to_num(error, nan=np.inf))
        parts = []
        for title, chosen in (("Worst frames", order[::-1][:SHOWN]), ("Typical frames", _middle(order))):
            parts.append(f"<h2>{title}</h2>")
            for index in chosen.tolist():
                caption = f"frame {made.frames[index]}: {100 * error[index] / made.fit.unit:.2f} %"
                parts.append(figure(caption, f'<img alt="" src="{picture_address(overlay(made.dataset, index))}">'))
        return "".join(parts)


def write_overlay(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write a video of a data set's frames with the mesh over them, reduced to at most 1280 px.

    Raises ``MissingDependencyError`` without PyAV, and ``VideoError``.
    """
    width, height = dataset.size
    scale = min(1.0, VIDEO_SIDE / max(width, height))
    size = max(16, round(scale * width / 2) * 2), max(16, round(scale * height / 2) * 2)
    with VideoWriter(path, size, dataset.fps) as video:
        for picture in in_order(lambda index: overlay(dataset, index, size), range(dataset.count)):
            video.write(picture)


def _gap(gap: Gap) -> str:
    return f"off by {100 * gap.error:.2f} %, correlation {number(gap.agreement)}"


def _series(lines: Mapping[str, NDArray[np.floating]]) -> dict[str, Sequence[tuple[float, float]]]:
    return {
        name: [(float(i), float(value)) for i, value in enumerate(values) if math.isfinite(value)]
        for name, values in lines.items()
    }


def _has_points(values: NDArray[np.floating]) -> bool:
    return bool(np.isfinite(values).any())


def _middle(order: NDArray[np.intp]) -> NDArray[np.intp]:
    start = max(0, len(order) // 2 - SHOWN // 2)
    return order[start : start + SHOWN]
