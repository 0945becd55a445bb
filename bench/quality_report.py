"""What the quality bench found, as a Markdown table, as JSON, and as sheets of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from being_rt.dataset import Dataset
from being_rt.dataset.pictures import read_rgb
from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, reading
from being_rt.train.feed import frame_boxes
from being_rt.train.sampling import evenly
from bench.quality_runs import SHEET_FRAMES, SPLITS, Row, save_picture
from bench.quality_sheets import Sample, contact_sheet

FORMAT_VERSION = 1
# Heading, split, measure, digits: of held-out expressions, the same with fitted tracks, other sides.
MEASURES = (
    ("PSNR", "test", "psnr", 2),
    ("SSIM", "test", "ssim", 4),
    ("LPIPS", "test", "lpips", 4),
    ("person", "test", "person_psnr", 2),
    ("face", "test", "face_psnr", 2),
    ("mouth", "test", "mouth_psnr", 2),
    ("eyes", "test", "eyes_psnr", 2),
    ("fitted, PSNR", "fitted", "psnr", 2),
    ("fitted, face", "fitted", "face_psnr", 2),
    ("fitted, mouth", "fitted", "mouth_psnr", 2),
    ("views, PSNR", "views", "psnr", 2),
    ("views, face", "views", "face_psnr", 2),
    ("views, mouth", "views", "mouth_psnr", 2),
)
NOTES = """\
PSNR in dB, over the whole picture where nothing else is said; person: weighed by the mask; face, mouth, eyes: in
their boxes. Held-out frames have expressions that training lacks; views are such frames from cameras beside the one
that training has; fitted: with the track of held-out frames fitted to them, the avatar as it is. Shake: root mean
square change, from frame to frame, of how far the drawn torso lies off the one that was seen, in px; "trained": on
frames of the training split, with the track as training refined it. fps: of the exported avatar in the engine, whole
frames at the size of the data; engine: PSNR of its picture against the trainer's."""


def markdown(
    rows: Sequence[Row], options: Mapping[str, Any] | None = None, facts: Mapping[str, str] | None = None
) -> str:
    """The table: a row per identity and preset, and the mean of each preset where there is more than one identity."""
    measures = [each for each in MEASURES if any(each[2] in row.splits.get(each[1], {}) for row in rows)]
    head = ["identity", "preset", *(title for title, *_ in measures), "shake", "trained", "Gaussians", "steps"]
    head += ["train s", "images/s", "fps", "engine", "MB"]
    lines = [_line(head), _line(["---"] * 2 + ["--:"] * (len(head) - 2))]
    for row in rows:
        lines.append(_line([row.identity, row.preset, *_scores([row], measures), *_costs(row)]))
    identities = {row.identity for row in rows}
    if len(identities) > 1:
        for name in dict.fromkeys(row.preset for row in rows):
            members = [row for row in rows if row.preset == name]
            if len(members) == len(identities):
                blank = [""] * (len(head) - 2 - len(measures))
                lines.append(_line(["**mean**", name, *_scores(members, measures), *blank]))
    text = "\n".join(lines) + "\n\n" + NOTES + "\n"
    reasons = dict.fromkeys(row.not_exported for row in rows if row.not_exported)
    text += "".join(f"\nNot exported: {reason}.\n" for reason in reasons)
    for title, table in (("Options", options), ("Machine", facts)):
        if table:
            text += f"\n{title}: " + "; ".join(f"{name} {value}" for name, value in table.items()) + ".\n"
    return text


def write_results(out: Path, rows: Sequence[Row], options: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """``quality.json`` and ``quality.md``."""
    table = {
        "format_version": FORMAT_VERSION,
        "options": dict(options),
        "environment": dict(facts),
        "rows": [asdict(row) for row in rows],
    }
    with atomic_write(out / "quality.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    with atomic_write(out / "quality.md") as temporary:
        temporary.write_text("# Quality\n\n" + markdown(rows, options, facts), encoding="utf-8")


def earlier_rows(path: Path, options: Mapping[str, Any]) -> list[Row]:
    """The rows that a bench with the same options has written; none where there is no file.

    Raises:
        FileFormatError: the file is damaged.
        InvalidParameterError: it was written with other options.
    """
    if not path.exists():
        return []
    with reading(path, "results of the quality bench", FileFormatError):
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format_version"] != FORMAT_VERSION:
            raise ValueError(f"it has format {table['format_version']}")
        rows = [Row(**row) for row in table["rows"]]
        given = json.loads(json.dumps(dict(options)))
        differing = sorted(name for name in given if table["options"].get(name) != given[name])
    if differing:
        was, now = table["options"].get(differing[0]), given[differing[0]]
        raise InvalidParameterError(
            f"{path} was measured with {differing[0]} {was}, not {now}; choose another folder for --out"
        )
    return rows


def write_sheets(dataset: Dataset, presets: Sequence[str], out: Path) -> None:
    """``NAME-test.png`` and ``NAME-views.png``, of the pictures that the runs have left."""
    for split in SPLITS:
        samples = []
        indices = evenly(dataset.split(split), SHEET_FRAMES)
        boxes = frame_boxes(dataset, indices)["mouth"] if len(indices) else np.empty((0, 4), np.float32)
        for index, box in zip(indices.tolist(), boxes, strict=True):
            files = {name: out / "runs" / f"{dataset.name}-{name}" / f"{index:06d}.png" for name in presets}
            drawn = {name: read_rgb(file) for name, file in files.items() if file.exists()}
            label = f"{split}, frame {index}, camera {dataset.camera_index[index]}"
            samples.append(Sample(label, dataset.image(index), drawn, box))
        if samples:
            save_picture(out / f"{dataset.name}-{split}.png", contact_sheet(samples, presets))


def _scores(rows: Sequence[Row], measures: Sequence[tuple[str, str, str, int]]) -> list[str]:
    cells = []
    for _, split, measure, digits in measures:
        values = [row.splits.get(split, {}).get(measure) for row in rows]
        known = [value for value in values if value is not None]
        cells.append(f"{sum(known) / len(known):.{digits}f}" if len(known) == len(rows) else "–")
    return cells


def _costs(row: Row) -> list[str]:
    return [
        _cell(row.shake, 3),
        _cell(row.train_shake, 3),
        str(row.gaussians),
        str(row.steps),
        f"{row.seconds:.1f}",
        f"{row.images_per_second:.0f}",
        _cell(row.fps, 0),
        _cell(row.engine_psnr, 1),
        _cell(None if row.bytes is None else row.bytes / 1e6, 1),
    ]


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
