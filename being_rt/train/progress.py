"""Who is told how a run goes: a terminal, a log, TensorBoard, or whatever an application brings."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import TrainingError
from being_rt.files import atomic_write, os_error_reason
from being_rt.train.evaluate import Evaluation

UInt8 = NDArray[np.uint8]

LINE_SECONDS = 30.0  # between lines where there is no terminal to draw a bar on


@dataclass(frozen=True)
class Status:
    """Where a run is, after some steps."""

    step: int  # steps done
    progress: float  # 0..1
    seconds: float  # of training so far, evaluations and checkpoints not counted, over all resumed parts
    remaining: float  # seconds, at the present rate; NaN while unknown
    images_per_second: float  # over all GPUs, of the last steps; NaN while unknown
    losses: Mapping[str, float]  # means over the steps since the last status: "total" and its terms
    quality: Mapping[str, float] = field(default_factory=dict)  # of the last evaluation


class Observer:
    """Is called by a trainer, on its thread. Override what is of interest; nothing here does anything."""

    def phase(self, name: str) -> None:
        """Something begins that takes a while: "reading frames", "training", "evaluating" ..."""

    def count(self, done: int, total: int) -> None:
        """How far the phase is, where it can be counted."""

    def status(self, status: Status) -> None:
        """Some steps have been done."""

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        """Held-out frames have been drawn."""

    def preview(self, status: Status, drawn: UInt8, seen: UInt8) -> None:
        """One of them, as the avatar has it and as the camera saw it: uint8 [H, W, 3]."""

    def message(self, text: str) -> None:
        """Something that a person should know."""

    def close(self) -> None:
        """The run is over, well or not."""


class Observers(Observer):
    """Several observers, called in order."""

    def __init__(self, members: Sequence[Observer] = ()) -> None:
        self.members = list(members)

    def phase(self, name: str) -> None:
        for member in self.members:
            member.phase(name)

    def count(self, done: int, total: int) -> None:
        for member in self.members:
            member.count(done, total)

    def status(self, status: Status) -> None:
        for member in self.members:
            member.status(status)

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        for member in self.members:
            member.evaluation(status, evaluation)

    def preview(self, status: Status, drawn: UInt8, seen: UInt8) -> None:
        for member in self.members:
            member.preview(status, drawn, seen)

    def message(self, text: str) -> None:
        for member in self.members:
            member.message(text)

    def close(self) -> None:
        for member in self.members:
            member.close()


class Log(Observer):
    """The run as lines of JSON: ``{"kind": "loss", "step": 50, "total": ...}`` and ``"kind": "evaluation"``.

    A run that resumes continues its log from the checkpoint's step; what was written after that is forgotten, for the
    steps are done again.

    Args:
        path: the file; its folder exists.
        resumed: the step that the run starts from; 0: a new log.

    Raises:
        TrainingError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], resumed: int = 0) -> None:
        self._path = Path(path)
        kept = [entry for entry in read_log(path) if entry["step"] <= resumed] if resumed else []
        with atomic_write(self._path, TrainingError) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        with self._writing():
            self._stream = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)

    def status(self, status: Status) -> None:
        rate = {"images_per_second": _finite(status.images_per_second)}
        self._write("loss", status, {**status.losses, **rate})

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        self._write("evaluation", status, evaluation.summary())

    def close(self) -> None:
        self._stream.close()

    def _write(self, kind: str, status: Status, values: Mapping[str, Any]) -> None:
        entry = {"kind": kind, "step": status.step, "seconds": round(status.seconds, 3), **values}
        with self._writing():
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise TrainingError(f"cannot write {self._path}: {os_error_reason(problem)}") from problem


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The entries of a log; a last line that was cut off, and a log that is missing, are no error."""
    entries = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


class Previews(Observer):
    """Pictures of a held-out frame over the run: ``000500.png``, what the avatar shows beside what the camera saw.

    Raises:
        TrainingError: one cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def preview(self, status: Status, drawn: UInt8, seen: UInt8) -> None:
        from PIL import Image

        with atomic_write(self._folder / f"{status.step:06d}.png", TrainingError) as temporary:
            Image.fromarray(np.concatenate([drawn, seen], axis=1)).save(temporary, "PNG")


class TensorBoard(Observer):
    """Curves and previews for TensorBoard.

    Raises:
        MissingDependencyError: the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as problem:
            from being_rt.errors import MissingDependencyError

            raise MissingDependencyError("TensorBoard's files need its package: pip install tensorboard") from problem
        self._writer: Any = SummaryWriter(str(folder))

    def status(self, status: Status) -> None:
        for name, value in status.losses.items():
            self._writer.add_scalar(f"loss/{name}", value, status.step)
        if math.isfinite(status.images_per_second):
            self._writer.add_scalar("images per second", status.images_per_second, status.step)

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        for name, value in evaluation.summary().items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{evaluation.split}/{name}", value, status.step)

    def preview(self, status: Status, drawn: UInt8, seen: UInt8) -> None:
        pair = np.concatenate([drawn, seen], axis=1)
        self._writer.add_image("avatar, camera", pair, status.step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Terminal(Observer):
    """A line with a bar on a terminal; elsewhere a plain line now and then.

    Raises:
        MissingDependencyError: ``rich`` is not installed.
    """

    def __init__(self) -> None:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        except ImportError as problem:
            from being_rt.errors import MissingDependencyError

            raise MissingDependencyError('progress on a terminal needs rich: pip install "being_rt[cli]"') from problem
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
        alive = self._console.is_terminal
        self._display = Progress(*columns, console=self._console, transient=True, disable=not alive)
        self._display.start()
        self._task = self._display.add_task("starting", total=None, state="")
        self._last_line = time.perf_counter()

    def phase(self, name: str) -> None:
        self._display.reset(self._task, description=name, total=None, state="")

    def count(self, done: int, total: int) -> None:
        self._display.update(self._task, completed=done, total=total, state=f"{done}/{total}")

    def status(self, status: Status) -> None:
        line = describe(status)
        self._display.update(self._task, description="training", completed=status.progress, total=1.0, state=line)
        if not self._console.is_terminal and time.perf_counter() - self._last_line > LINE_SECONDS:
            self._last_line = time.perf_counter()
            self._console.print(line)

    def evaluation(self, status: Status, evaluation: Evaluation) -> None:
        self.message(
            f"step {status.step}: held-out PSNR {evaluation.mean('psnr'):.2f} dB, "
            f"mouth {evaluation.mean('mouth_psnr'):.2f} dB, SSIM {evaluation.mean('ssim'):.4f} "
            f"({len(evaluation.scores)} frames, {duration(status.seconds)})"
        )

    def message(self, text: str) -> None:
        self._console.print(text)

    def close(self) -> None:
        self._display.stop()


def describe(status: Status) -> str:
    """A status in one line."""
    parts = [f"step {status.step}", f"loss {status.losses.get('total', math.nan):.4f}"]
    if "psnr" in status.quality:
        parts.append(f"PSNR {status.quality['psnr']:.2f} dB")
    if math.isfinite(status.images_per_second):
        parts.append(f"{status.images_per_second:.0f} images/s")
    if math.isfinite(status.remaining):
        parts.append(f"{duration(status.remaining)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``75`` as ``1:15``."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
