"""Training by the wall clock: whole steps, as ``being train`` does them.

A row is a run of :func:`being_rt.train.trainer.train` in miniature: the preset's schedule, shortened, on frames of a
demo person, everything included that a step costs (frames, learning rates, losses read back, densification) but for
evaluations and checkpoints. Where a step's time goes is told by :mod:`being_rt.bench.training_profile`.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from being_rt.bench.measure import BLOCKS, Float64
from being_rt.bench.training_profile import Profile, profiles
from being_rt.dataset import Dataset
from being_rt.dataset.synth import Synthesize
from being_rt.errors import InvalidParameterError, TrainingError
from being_rt.flame.params import FlameParams
from being_rt.ops.adam import FusedAdam
from being_rt.train.config import ModelConfig, TrainConfig
from being_rt.train.distributed import Group
from being_rt.train.feed import Feed
from being_rt.train.model import AvatarModel
from being_rt.train.presets import preset
from being_rt.train.progress import Observer, Status
from being_rt.train.relocate import Statistics
from being_rt.train.sampling import evenly
from being_rt.train.step import Stepper
from being_rt.train.tracks import Tracks
from being_rt.train.trainer import TrainResult, train

FRAMES = 32  # of the demo person; a rate asks for no more
STEPS = {"quick": 300, "default": 1000, "full": 2000}  # measured on CUDA
CPU_STEPS = {"quick": 4, "default": 8, "full": 16}
WARM_UP = 100  # steps on CUDA: graphs are captured, rooms find their size
CPU_WARM_UP = 2
LEAST_GAUSSIANS = 100


@dataclass(frozen=True)
class Case:
    """One row to measure."""

    size: tuple[int, int]  # width, height of the frames
    gaussians: int  # of head and torso together
    batch: int  # frames per step, over all GPUs
    crops: Literal["auto", "whole", "foveated"] = "whole"

    @property
    def name(self) -> str:
        """The case in words."""
        return f"{self.size[0]}x{self.size[1]}, {self.gaussians} Gaussians, batch {self.batch}, crops {self.crops}"


@dataclass(frozen=True)
class Row:
    """What was measured. Memory in MB, on the device; None on the CPU."""

    case: Case
    head: int  # Gaussians; a torso that the frames hardly show has fewer than it might
    torso: int
    coverage: float  # share of the frames' pixels that the person covers more than half
    steps: int  # measured
    steps_per_second: float  # of all of them, by the wall clock
    images_per_second: float  # frames of all GPUs
    step: float  # ms, median over blocks of steps
    noise: float  # half the spread of the medians of the fifths of the run, over the median
    allocated: float | None  # the most that tensors took
    reserved: float | None  # the most that PyTorch held of the device, with what graphs keep and what lies idle
    frames: float | None  # of both, training frames kept there
    profiles: list[Profile]  # of a step of each kind


@dataclass(frozen=True)
class Skipped:
    """A case that could not be trained."""

    case: Case
    reason: str


def cases(device: str, level: str) -> list[Case]:
    """The rows of a run. ``level``: "quick", "default" or "full"; the CPU has small ones."""
    if device == "cpu":
        rows = [Case((128, 128), 5_000, 2)]
        rows += [Case((256, 256), 10_000, 1)] if level != "quick" else []
        rows += [Case((512, 512), 50_000, 1)] if level == "full" else []
        return rows
    rows = [Case((512, 512), 50_000, 8)]
    if level != "quick":
        rows += [Case((512, 512), 100_000, 8), Case((1920, 1080), 100_000, 1), Case((1920, 1080), 150_000, 8, "auto")]
    if level == "full":
        rows += [Case((512, 512), 50_000, batch) for batch in (1, 32)]
        rows += [Case((1920, 1080), 150_000, batch) for batch in (1, 8)]
    return rows


def lengths(level: str, on_cpu: bool) -> tuple[int, int]:
    """Steps that are measured, and those before them."""
    return (CPU_STEPS[level], CPU_WARM_UP) if on_cpu else (STEPS[level], WARM_UP)


def software(group: Group) -> dict[str, str]:
    """What trains, by name, beside :func:`being_rt.bench.environment.environment`."""
    facts = {"PyTorch": torch.__version__, "threads": str(torch.get_num_threads())}
    return facts | ({"GPUs": str(group.ranks)} if group.device.type == "cuda" else {})


def configuration(case: Case, steps: int, base: TrainConfig | None = None) -> TrainConfig:
    """``base`` (the preset ``being``) with a case's Gaussians, in its own proportions, and all of its run in ``steps``.

    Windows and reduced frames, where there are both, take turns from the start, and the offset network takes part from
    then on, so that every step has all of the work.

    Raises:
        InvalidParameterError: too few Gaussians, or a batch or size that no run can have.
    """
    if case.gaussians < LEAST_GAUSSIANS:
        raise InvalidParameterError(f"training needs at least {LEAST_GAUSSIANS} Gaussians, got {case.gaussians}")
    base = base or preset("being")
    return replace(
        base,
        model=replace(_with_count(base.model, case.gaussians), network_start=0.0),
        schedule=replace(
            base.schedule, steps=steps, visits=0, batch=case.batch, evaluate_interval=0, checkpoint_seconds=0.0
        ),
        feed=replace(base.feed, crops=case.crops, whole_until=0.0),
    )


def measure(
    rows: Sequence[Case],
    group: Group,
    *,
    avatar: str = "ada",
    steps: int,
    warm_up: int,
    frames: int = FRAMES,
    base: TrainConfig | None = None,
    progress: Callable[[Case], None] = lambda case: None,
) -> Iterator[Row | Skipped]:
    """Measure every case, then look at the steps of each. On several GPUs the first rank alone has rows.

    Args:
        rows: the cases.
        group: whose device trains; every rank of several GPUs calls this alike.
        avatar: whom the frames show: an avatar file, or a preset's name.
        steps, warm_up: that are measured, and that come before.
        frames: in the training set.
        base: the configuration that :func:`configuration` starts from.
        progress: is told of every case before it begins.

    Raises:
        InvalidParameterError: a case, or a number of steps or frames, that no run can have.
        AvatarFileError, MissingDependencyError: the avatar cannot be had.

    Example::

        with join("cuda") as group:
            for row in measure(cases("cuda", "quick"), group, steps=300, warm_up=100):
                print(row)
    """
    if steps < 1 or warm_up < 1:
        raise InvalidParameterError(f"steps and warm-up must be at least 1, got {steps} and {warm_up}")
    configurations = [configuration(case, warm_up + steps, base) for case in rows]
    measured: list[_Run | Skipped] = []
    with tempfile.TemporaryDirectory(prefix="being_rt-bench-") as folder:
        for case, config in zip(rows, configurations, strict=True):
            if case.batch % group.ranks:
                measured.append(Skipped(case, f"a batch of {case.batch} has no equal parts for {group.ranks} GPUs"))
                continue
            progress(case)
            interval = min(config.schedule.check_interval, warm_up, steps)
            config = replace(config, schedule=replace(config.schedule, check_interval=interval))
            data = Path(folder) / f"{case.size[0]}x{case.size[1]}"
            if not data.exists():
                Synthesize(
                    out=data, avatar=avatar, frames=frames, size=case.size, test_share=0, views=(),
                    device=str(group.device),
                ).run()  # fmt: skip
            try:
                with tempfile.TemporaryDirectory(dir=folder) as kept:
                    measured.append(_run(case, Dataset.load(data), config, Path(kept), group, warm_up))
            except TrainingError as problem:
                measured.append(Skipped(case, str(problem)))
        # Only now: a process that was once looked at by the profiler is slower ever after.
        for run in measured:
            if isinstance(run, Skipped):
                yield run
            else:
                yield from _looked_at(run, group)


@dataclass(frozen=True)
class _Run:
    """What a run leaves for those who look at its steps, off the device."""

    row: Row | None  # without profiles; None on all ranks but the first, who are not told how the run goes
    case: Case
    dataset: Dataset
    config: TrainConfig
    params: FlameParams
    state: tuple[dict[str, torch.Tensor], dict[str, Any]]  # of the model


def _looked_at(run: _Run, group: Group) -> Iterator[Row | Skipped]:
    """The run's row, with profiles if they can be had. Goes on from where the run ended."""
    _clear(group.device)
    dataset, config = replace(run.dataset, params=run.params), run.config
    batch = config.schedule.batch
    feed = Feed(dataset, config.feed, group.device, seed=config.seed, batch=batch, rank=group.rank, ranks=group.ranks)
    found: list[Profile] = []
    stepper = None
    try:
        model = AvatarModel.from_state(config.model, dataset.rig, *run.state, group.device)
        tracks = Tracks(dataset.params, dataset.timestep[feed.frames], config.tracks, group.device)
        optimizer = FusedAdam(model.parameters | tracks.leaves, 0.0, eps=1e-15)
        stepper = Stepper(model, tracks, feed, optimizer, config.loss, Statistics.of(model), group)
        found = profiles(stepper)
    except TrainingError as problem:
        yield Skipped(run.case, f"measured, but its steps could not be looked at: {problem}")
    finally:
        if stepper is not None:
            stepper.close()
        feed.close()
    if run.row is not None:
        frames = feed.bytes_on_device / 1e6 if group.device.type == "cuda" else None
        yield replace(run.row, profiles=found, frames=frames)


def _clear(device: torch.device) -> None:
    """Let go of what earlier runs held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


class _Watch(Observer):
    """Notes when blocks of steps ended. The trainer has read their losses by then, so the device is done with them."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.moments: list[float] = []

    def status(self, status: Status) -> None:
        self.steps.append(status.step)
        self.moments.append(time.perf_counter())


def _run(case: Case, dataset: Dataset, config: TrainConfig, folder: Path, group: Group, warm_up: int) -> _Run:
    _clear(group.device)
    watch = _Watch()
    result = train(dataset, config, folder, group=group, observers=(watch,))
    row = _row(case, watch, result, warm_up, _coverage(dataset), group.device) if group.is_first else None
    return _Run(row, case, dataset, config, result.params, result.model.state())


def _row(case: Case, watch: _Watch, result: TrainResult, warm_up: int, coverage: float, device: torch.device) -> Row:
    on_cuda = device.type == "cuda"
    first = next(i for i, step in enumerate(watch.steps) if step >= warm_up)
    steps, moments = np.array(watch.steps[first:]), np.array(watch.moments[first:])
    rate, step, noise = speed(steps, moments)
    return Row(
        case=case,
        head=result.model.count("head"),
        torso=result.model.count("torso"),
        coverage=coverage,
        steps=int(steps[-1] - steps[0]),
        steps_per_second=rate,
        images_per_second=rate * case.batch,
        step=step,
        noise=noise,
        allocated=torch.cuda.max_memory_allocated(device) / 1e6 if on_cuda else None,
        reserved=torch.cuda.max_memory_reserved(device) / 1e6 if on_cuda else None,
        frames=None,
        profiles=[],
    )


def speed(steps: NDArray[np.int64], moments: Float64) -> tuple[float, float, float]:
    """Steps per second, milliseconds of a step (median over blocks), and the noise, of a run.

    Args:
        steps: [n] done at the ends of blocks; the first block is not counted.
        moments: [n] seconds, when they ended.

    >>> speed(np.array([0, 10, 20]), np.array([5.0, 6.0, 7.0]))
    (10.0, 100.0, 0.0)
    """
    each = 1000 * np.diff(moments) / np.diff(steps)
    medians = [float(np.median(part)) for part in np.array_split(each, min(BLOCKS, len(each)))]
    median = float(np.median(each))
    rate = float((steps[-1] - steps[0]) / (moments[-1] - moments[0]))
    return rate, median, (max(medians) - min(medians)) / 2 / median


def _coverage(dataset: Dataset) -> float:
    frames = evenly(dataset.split("train"), 4)
    return float(np.mean([(dataset.mask(int(frame)) > 127).mean() for frame in frames]))


def _with_count(model: ModelConfig, count: int) -> ModelConfig:
    own = [model.head_gaussians, model.hair_gaussians, model.mouth_gaussians, model.torso_gaussians]
    ends = np.rint(count * np.cumsum(own) / np.sum(own)).astype(int)
    head, hair, mouth, torso = np.diff(ends, prepend=0).tolist()
    return replace(model, head_gaussians=head, hair_gaussians=hair, mouth_gaussians=mouth, torso_gaussians=torso)
