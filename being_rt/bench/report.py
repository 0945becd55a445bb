"""Results as a table, as JSON, and compared with earlier ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from being_rt.bench.environment import COMPARABLE
from being_rt.bench.measure import DIFFERENCE_CEILING, PSNR_FLOOR, Case, Guard, Row
from being_rt.errors import FileFormatError
from being_rt.files import atomic_write, reading

FORMAT_VERSION = 1
SMALLEST_NOISE = 0.03  # of the median: what a quiet machine's clock, caches and page placement vary by between runs


@dataclass(frozen=True)
class Result:
    """A run of the bench."""

    environment: dict[str, str]
    avatar: str
    rows: list[Row]
    guard: Guard
    peak_memory: float | None  # MB, of the whole process


def table(rows: Sequence[Row]) -> str:
    """The rows, a line each: speed and the distribution of whole-frame times, in ms."""
    head = (
        f"{'size':>10} {'Gaussians':>10} {'covered':>7} {'threads':>7} {'frames':>7} | {'fps':>7} {'1% low':>7} | "
        f"{'p50':>7} {'p90':>7} {'p99':>7} ms | {'noise':>6} {'memory':>8}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        size = f"{row.case.size[0]}x{row.case.size[1]}"
        lines.append(
            f"{size:>10} {row.case.gaussians:>10} {row.coverage:>7.0%} {row.case.threads:>7} {row.frames:>7} | "
            f"{row.fps:>7.1f} {row.low_fps:>7.1f} | {row.p50:>7.2f} {row.p90:>7.2f} {row.p99:>7.2f} ms | "
            f"{row.noise:>6.1%} {row.memory:>5.0f} MB"
        )
    return "\n".join(lines)


def stage_table(rows: Sequence[Row]) -> str:
    """Median milliseconds by stage, a line per row; ``other`` is what lies between the stages."""
    names = list(dict.fromkeys(name for row in rows for name in row.stages))
    if not names:
        return "the renderer reports no stages"
    head = f"{'size':>10} {'Gaussians':>10} {'threads':>7} | " + " ".join(f"{name:>9}" for name in (*names, "other"))
    lines = [head, "-" * len(head)]
    for row in rows:
        values = [row.stages.get(name, 0.0) for name in names]
        size = f"{row.case.size[0]}x{row.case.size[1]}"
        cells = " ".join(f"{value:>9.3f}" for value in (*values, max(0.0, row.p50 - sum(values))))
        lines.append(f"{size:>10} {row.case.gaussians:>10} {row.case.threads:>7} | {cells}")
    return "\n".join(lines)


def guard_line(guard: Guard) -> str:
    """What the picture guard found, in a line."""
    if guard.reason:
        return f"picture guard: not run ({guard.reason})"
    verdict = "passed" if guard.passed else f"FAILED (limits: {PSNR_FLOOR:.0f} dB, {DIFFERENCE_CEILING:.0f}/255)"
    return (
        f"picture guard: {verdict}: {guard.frames} frames against the float64 reference, PSNR >= {guard.psnr:.1f} dB, "
        f"largest difference {guard.largest:.2f}/255"
    )


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON. Raises ``FileFormatError`` where that is not possible."""
    document = {"format": FORMAT_VERSION, **asdict(result)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


def load(path: str | os.PathLike[str]) -> Result:
    """Read a result of :func:`save`. Raises ``FileFormatError``."""
    with reading(path, "a result of the bench", FileFormatError):
        document = json.loads(Path(path).read_text())
        if document["format"] != FORMAT_VERSION:
            raise FileFormatError(f"{path} has format {document['format']}, this version reads {FORMAT_VERSION}")
        return Result(
            environment=dict(document["environment"]),
            avatar=document["avatar"],
            rows=[_row(row) for row in document["rows"]],
            guard=Guard(**document["guard"]),
            peak_memory=document["peak_memory"],
        )


def _row(document: dict[str, Any]) -> Row:
    case = document["case"]
    return Row(**{**document, "case": Case(**{**case, "size": tuple(case["size"])})})


@dataclass(frozen=True)
class Verdict:
    """A row against the same row of an earlier run."""

    case: Case
    before: float  # ms, median
    after: float
    noise: float  # change, as a fraction, below which nothing can be said
    threshold: float  # change above which it counts as a regression

    @property
    def change(self) -> float:
        """Of the median time; -0.1 is a tenth less time."""
        return self.after / self.before - 1

    @property
    def word(self) -> str:
        if abs(self.change) <= self.noise:
            return "same"
        return "slower" if self.change > 0 else "faster"

    @property
    def regression(self) -> bool:
        return self.change > max(self.noise, self.threshold)


def verdicts(before: Result, after: Result, threshold: float) -> list[Verdict]:
    """One for every row that both have. A change counts if it exceeds the noise of both runs together."""
    old = {row.case: row for row in before.rows}
    return [
        Verdict(
            row.case,
            old[row.case].p50,
            row.p50,
            max(SMALLEST_NOISE, old[row.case].noise + row.noise),
            threshold,
        )
        for row in after.rows
        if row.case in old
    ]


def differences(before: Result, after: Result) -> list[str]:
    """What makes the two runs' speeds incomparable, a line each; none if they can be compared."""
    pairs = [(name, before.environment.get(name), after.environment.get(name)) for name in COMPARABLE]
    pairs.append(("avatar", before.avatar, after.avatar))
    return [f"{name}: {old} before, {new} now" for name, old, new in pairs if old != new]


def verdict_table(compared: Sequence[Verdict]) -> str:
    """The verdicts, a line each."""
    lines = []
    for verdict in compared:
        size = f"{verdict.case.size[0]}x{verdict.case.size[1]}"
        mark = "  <- regression" if verdict.regression else ""
        lines.append(
            f"{size:>10} {verdict.case.gaussians:>10} {verdict.case.threads:>7} | {verdict.before:>7.2f} -> "
            f"{verdict.after:>7.2f} ms {verdict.change:>+7.1%} (noise {verdict.noise:.1%}): {verdict.word}{mark}"
        )
    return "\n".join(lines)
