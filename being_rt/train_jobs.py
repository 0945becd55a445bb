"""Training as a record with a ``run`` method: the CLI and an application use the same one.

    from being_rt.train.presets import preset
    from being_rt.train_jobs import Train

    made = Train("ada", out="ada.being", config=preset("being"), seconds=60).run()
    print(made.avatar, made.quality["psnr"])

Beside ``ada.being`` it writes ``ada.motion.npz`` (the refined motion), ``ada.report.html`` and the folder ``ada.train``
(configuration, log, previews, checkpoint). Only this file and ``being_rt.train`` need PyTorch.
"""

from __future__ import annotations

import heapq
import importlib.util
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import AvatarFileError, InvalidParameterError, MissingDependencyError
from being_rt.files import check_target
from being_rt.jobs import FilePath
from being_rt.train.config import TrainConfig
from being_rt.video import VideoWriter

if TYPE_CHECKING:
    from being_rt.dataset import Dataset
    from being_rt.train.evaluate import FrameScore
    from being_rt.train.progress import Observer
    from being_rt.train.report import Pair
    from being_rt.train.trainer import TrainResult

UInt8 = NDArray[np.uint8]

WORST = 4  # held-out frames in the report
VIDEO_WIDTH = 1920  # px at most, of avatar and camera side by side


@dataclass(frozen=True)
class Trained:
    """What a job wrote."""

    complete: bool  # False: it was interrupted, and --resume goes on
    avatar: Path | None  # None: interrupted, or a preset that an avatar file cannot hold
    motion: Path | None
    report: Path | None
    folder: Path
    steps: int
    seconds: float  # of training alone
    images_per_second: float
    quality: dict[str, float]  # means over the held-out frames, by measure; empty where there are none
    times: dict[str, float]  # seconds by phase, of this process


@dataclass(frozen=True, kw_only=True)
class Train:
    """A data set of tracked frames in, an avatar out. Works on a CPU too, slowly."""

    dataset: FilePath = field(kw_only=False)
    """The data set's folder."""
    out: FilePath = "avatar.being"
    """The avatar to write; report, motion and the run's folder lie beside it, under its name."""
    steps: int = 0
    """Steps of training; 0: the configuration's."""
    seconds: float = 0.0
    """Stop after so much training time, with all schedules fitted to it; 0: the configuration's."""
    resume: bool = False
    """Go on from the last checkpoint, with the configuration that the run began with."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto: the first CUDA device, or else the CPU."""
    name: str = ""
    """The avatar's; the data set's, if not given."""
    lpips: FilePath = ""
    """A file of LPIPS weights (safetensors), for the last evaluation and ``loss.perceptual``."""
    tensorboard: bool = False
    """Write curves for TensorBoard into the run's folder."""
    config: TrainConfig = field(default_factory=TrainConfig)

    def run(self, observers: Sequence[Observer] = ()) -> Trained:
        """Do the job. ``observers`` are told how it goes (:mod:`being_rt.train.progress`).

        Under torchrun every rank runs it, and rank 0 writes.

        Raises ``DatasetError``, ``InvalidParameterError``, ``CheckpointError``, ``TrainingError``, ``DeviceError``,
        ``MissingDependencyError``.
        """
        out = self._checked_out()
        _check_torch()
        from being_rt.dataset import Dataset
        from being_rt.train.distributed import join
        from being_rt.train.progress import Observers, TensorBoard
        from being_rt.train.trainer import CONFIGURATION, train

        folder = out.with_suffix(".train")
        config = self._configuration(folder / CONFIGURATION)
        dataset = Dataset.load(self.dataset)
        told = list(observers)
        with join(self.device) as group, ExitStack() as stack:
            if self.tensorboard and group.is_first:
                told.append(TensorBoard(folder / "tensorboard"))
            if group.device.type == "cpu" and group.is_first:
                Observers(told).message("training on the CPU: this works, and is some hundred times slower than a GPU")
            frames = _HeldOut(folder / "held-out.mp4", dataset.fps, stack)
            result = train(
                dataset,
                config,
                folder,
                resume=self.resume,
                group=group,
                observers=tuple(told),
                lpips=self.lpips or None,
                sink=frames,
            )
            stack.close()  # the video is complete
            if not result.complete or not group.is_first:
                return _trained(result, folder)
            return self._write(out, folder, config, dataset, result, frames)

    def _checked_out(self) -> Path:
        out = Path(self.out)
        if out.suffix != ".being":
            raise InvalidParameterError(f"out must end in .being, got {self.out}")
        check_target(out, AvatarFileError)
        if self.steps < 0 or not 0 <= self.seconds < math.inf:
            raise InvalidParameterError("steps and seconds must not be negative")
        return out

    def _configuration(self, written: Path) -> TrainConfig:
        if self.resume and written.exists():
            return TrainConfig.load(written)
        schedule = self.config.schedule
        if self.steps:  # asked for: all of them
            schedule = replace(schedule, steps=self.steps, visits=0)
        return replace(self.config, schedule=replace(schedule, seconds=self.seconds or schedule.seconds))

    def _write(
        self,
        out: Path,
        folder: Path,
        config: TrainConfig,
        dataset: Dataset,
        result: TrainResult,
        frames: _HeldOut,
    ) -> Trained:
        from being_rt.avatar.file import save_avatar
        from being_rt.train.export import to_avatar
        from being_rt.train.progress import read_log
        from being_rt.train.report import Report
        from being_rt.train.trainer import LOG

        trained = _trained(result, folder)
        name = self.name or dataset.name
        avatar = None
        if config.model.network != "points":  # which the file format does not hold
            avatar = out
            about = {"dataset": dataset.name, "steps": str(result.steps)}
            about |= {f"held-out {key}": f"{value:.4f}" for key, value in trained.quality.items()}
            made = to_avatar(
                result.model, name, result.camera, result.background, dataset.licence, dataset.consent, about
            )
            save_avatar(made, out)
        motion, report = out.with_suffix(".motion.npz"), out.with_suffix(".report.html")
        result.params.save(motion)
        summary = {
            "data set": f"{dataset.name}, {len(dataset.split('train'))} training frames",
            "preset": config.model.preset,
            "Gaussians": f"{result.model.count('head')} head, {result.model.count('torso')} torso",
            "steps": f"{result.steps}, batches of {config.schedule.batch}",
            "training": f"{result.seconds:.1f} s, {result.images_per_second:.1f} images/s on {result.model.device}",
            "avatar": f"{avatar.name}, {avatar.stat().st_size / 1e6:.1f} MB" if avatar else "none: kept in the folder",
        }
        if result.peak_memory:
            summary["device memory"] = f"{result.peak_memory / 1e9:.2f} GB at most"
        page = Report(
            f"{name}: training",
            summary,
            read_log(folder / LOG),
            result.evaluations,
            frames.worst(),
            result.times,
            frames.path,
            config.to_json(),
        )
        page.write(report)
        return replace(trained, avatar=avatar, motion=motion, report=report)


class _HeldOut:
    """Takes the held-out frames of the last evaluation: a video of all, and the worst of them."""

    def __init__(self, path: Path, fps: float, stack: ExitStack) -> None:
        self.path: Path | None = None
        self._target, self._fps, self._stack = path, fps, stack
        self._video: VideoWriter | None = None
        self._size = (0, 0)
        self._worst: list[tuple[float, int, Pair]] = []

    def __call__(self, score: FrameScore, drawn: UInt8, seen: UInt8) -> None:
        from being_rt.train.report import Pair

        if math.isfinite(score.psnr):
            heapq.heappush(self._worst, (-score.psnr, -score.frame, Pair(score, drawn, seen)))
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)
        self._show(np.concatenate([drawn, seen], axis=1))

    def worst(self) -> list[Pair]:
        """The frames with the lowest PSNR, worst first."""
        return [entry[2] for entry in sorted(self._worst, reverse=True)]

    def _show(self, pair: UInt8) -> None:
        from PIL import Image

        if self._video is None:
            if self._size != (0, 0) or importlib.util.find_spec("av") is None:
                return
            scale = min(1.0, VIDEO_WIDTH / pair.shape[1])
            width, height = (max(16, round(scale * side / 2) * 2) for side in (pair.shape[1], pair.shape[0]))
            self._size = width, height
            self._video = self._stack.enter_context(VideoWriter(self._target, self._size, self._fps))
            self.path = self._target
        if pair.shape[1::-1] != self._size:
            pair = np.asarray(Image.fromarray(pair).resize(self._size, Image.Resampling.LANCZOS))
        self._video.write(np.ascontiguousarray(pair))


def _trained(result: TrainResult, folder: Path) -> Trained:
    test = [evaluation for evaluation in result.evaluations if evaluation.split == "test"]
    summary: dict[str, Any] = test[0].summary() if test else {}
    return Trained(
        complete=result.complete,
        avatar=None,
        motion=None,
        report=None,
        folder=folder,
        steps=result.steps,
        seconds=result.seconds,
        images_per_second=result.images_per_second,
        quality={name: value for name, value in summary.items() if isinstance(value, float)},
        times=dict(result.times),
    )


def _check_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("training needs PyTorch; install it with: pip install 'being_rt[train]'")
