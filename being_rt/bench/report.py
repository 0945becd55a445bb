"""Results as a table, as JSON, and compared with earlier ones."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from being_rt.bench.cuda import Skipped, floor
from being_rt.bench.environment import COMPARABLE
from being_rt.bench.measure import AGREEMENT_FLOOR, DIFFERENCE_CEILING, PSNR_FLOOR, Case, Gpu, Guard, Row
from being_rt.errors import FileFormatError
from being_rt.files import atomic_write, reading

FORMAT_VERSION = 1
FOOTNOTE = """\
stages: events around each, launched one by one by a second renderer; in a frame of one graph the gaps are shorter, so
that their sum may exceed p50. MB: bytes known to be moved, each counted once: what no frame changes (as the engine
packed it; an upper limit, for groups that face away are not read), posed vertices, 32 bytes per visible Gaussian,
output and the background behind it. The MB are thus estimates: lists of tiles are left out, and background is counted
by coverage.
floor: those bytes at the measured copy bandwidth; what stays in the second-level cache between frames can beat it."""
SMALLEST_NOISE = 0.03  # of the median: what a quiet machine's clock, caches and page placement vary by between runs


@dataclass(frozen=True)
class Result:
    """A run of the bench."""

    environment: dict[str, str]
    avatar: str
    rows: list[Row]
    guard: Guard
    peak_memory: float | None  # MB, of the whole process
    skipped: list[Skipped] = field(default_factory=list)
    bandwidth: float | None = None  # GB/s, of a copy on the CUDA device


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


def cuda_table(rows: Sequence[Row], skipped: Sequence[Skipped] = ()) -> str:
    """The rows of a CUDA device, a line each, and what could not be drawn.

    ``each``: ms per frame of many submitted at once. ``fps``: pictures per second at that rate, of all sessions.
    """
    head = (
        f"{'size':>10} {'lens':>5} {'Gaussians':>9} {'covered':>7} {'sessions':>8} | {'p50':>7} {'p90':>7} {'p99':>7} "
        f"{'max':>7} ms {'p99/p50':>7} | {'host us':>7} | {'each ms':>7} {'fps':>7} | {'noise':>6} {'memory':>8}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        case, gpu = row.case, row.gpu
        if gpu is None:
            continue
        size = f"{case.size[0]}x{case.size[1]}"
        fps = 1000 * max(1, case.sessions) / gpu.throughput
        mark = "" if case.format == "rgb" else f" {case.format}"
        mark += f" ({gpu.redrawn} frames drawn twice)" if gpu.redrawn else ""
        lines.append(
            f"{size:>10} {case.zoom:>5.2f} {case.gaussians:>9} {row.coverage:>7.0%} {case.sessions or '-':>8} | "
            f"{row.p50:>7.4f} {row.p90:>7.4f} {row.p99:>7.4f} {gpu.longest:>7.4f} ms {row.p99 / row.p50:>7.2f} | "
            f"{gpu.host:>7.1f} | {gpu.throughput:>7.4f} {fps:>7.0f} | {row.noise:>6.1%} {row.memory:>5.0f} MB{mark}"
        )
    lines += [f"skipped: {skip.case.name}: {skip.reason}" for skip in skipped]
    return "\n".join(lines)


def cuda_stage_table(rows: Sequence[Row], bandwidth: float) -> str:
    """By stage: median ms, megabytes known to be moved, the ms these take at ``bandwidth`` GB/s, and their share."""
    head = (
        f"{'size':>10} {'lens':>5} {'Gaussians':>9} {'sessions':>8} | {'stage':>26} {'ms':>9} {'MB':>9} "
        f"{'floor ms':>9} {'of it':>6}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        case = row.case
        size = f"{case.size[0]}x{case.size[1]}"
        label = f"{size:>10} {case.zoom:>5.2f} {case.gaussians:>9} {case.sessions or '-':>8}"
        known = row.gpu.bytes if row.gpu else {}
        for name, value in row.stages.items():
            cells = f"{name:>26} {value:>9.4f}"
            if name in known:
                least = floor(known[name], bandwidth)
                share = f"{least / value:>6.0%}" if value > 0 else f"{'-':>6}"
                cells += f" {known[name] / 1e6:>9.2f} {least:>9.4f} {share}"
            else:
                cells += f" {'-':>9} {'-':>9} {'-':>6}"
            lines.append(f"{label} | {cells}")
            label = " " * len(label)
        lines.append(f"{label} | {'sum':>26} {sum(row.stages.values()):>9.4f}")
    return "\n".join(lines)


def guard_line(guard: Guard) -> str:
    """What the picture guard found, in a line; on CUDA in two."""
    return "\n".join(filter(None, (_reference_line(guard), _agreement_line(guard))))


def _agreement_line(guard: Guard) -> str:
    if guard.agreement is None:
        return ""
    verdict = "passed" if guard.agreement >= AGREEMENT_FLOOR else f"FAILED (limit: {AGREEMENT_FLOOR:.1%})"
    return f"CUDA against CPU: {verdict}: at least {guard.agreement:.4%} of the pixels of a frame are within 1/255"


def _reference_line(guard: Guard) -> str:
    if guard.reason:
        return f"picture guard: not run ({guard.reason})"
    faithful = guard.psnr >= PSNR_FLOOR and guard.largest <= DIFFERENCE_CEILING
    verdict = "passed" if faithful else f"FAILED (limits: {PSNR_FLOOR:.0f} dB, {DIFFERENCE_CEILING:.0f}/255)"
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
            skipped=[Skipped(_case(skip["case"]), skip["reason"]) for skip in document.get("skipped", [])],
            bandwidth=document.get("bandwidth"),
        )


def _row(document: dict[str, Any]) -> Row:
    gpu = document.get("gpu")
    return Row(**{**document, "case": _case(document["case"]), "gpu": Gpu(**gpu) if gpu else None})


def _case(document: dict[str, Any]) -> Case:
    return Case(**{**document, "size": tuple(document["size"])})


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
        case = verdict.case
        size = f"{case.size[0]}x{case.size[1]}"
        mark = "  <- regression" if verdict.regression else ""
        label, digits = f"{size:>10} {case.gaussians:>10} {case.threads:>7}", 2
        if case.device == "cuda":
            label, digits = f"{case.name:>60}", 4
        lines.append(
            f"{label} | {verdict.before:>7.{digits}f} -> {verdict.after:>7.{digits}f} ms {verdict.change:>+7.1%} "
            f"(noise {verdict.noise:.1%}): {verdict.word}{mark}"
        )
    return "\n".join(lines)
