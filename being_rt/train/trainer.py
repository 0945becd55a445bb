"""A run from a dataset to a trained model: what happens in which order, and what is kept in case it is cut short.

config = preset("being")
result = train("ada", config, "ada.train")
avatar = to_avatar(result.model, "ada", result.camera, result.background)
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset
from being_rt.errors import CheckpointError, InvalidParameterError, TrainingError
from being_rt.files import os_error_reason
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.ops.adam import FusedAdam
from being_rt.train.background import background_plate
from being_rt.train.checkpoint import Checkpoint, check_disk_space, copy_into, load_checkpoint, save_checkpoint
from being_rt.train.clock import NEVER, Clock
from being_rt.train.config import TrainConfig
from being_rt.train.densify import densify
from being_rt.train.distributed import Group
from being_rt.train.evaluate import Evaluation, FrameScore, evaluate
from being_rt.train.feed import Feed
from being_rt.train.initialise import colours, new_model
from being_rt.train.model import AvatarModel
from being_rt.train.perceptual import Lpips
from being_rt.train.progress import Log, Observer, Observers, Previews, Status
from being_rt.train.relocate import Statistics
from being_rt.train.sampling import evenly
from being_rt.train.step import Planned, Stepper, check_perceptual, out_of_memory
from being_rt.train.tracks import Tracks, steady

UInt8 = NDArray[np.uint8]

CONFIGURATION, CHECKPOINT, LOG, PREVIEWS = "config.json", "checkpoint.safetensors", "log.jsonl", "previews"
COLOUR_FRAMES = 16  # that the first colours are taken from
EPSILON = 1e-15  # of Adam, as in 3DGS: gradients of single Gaussians are means over all pixels, and tiny
BESIDE = 64 << 20  # bytes of log, previews, report and avatar that a run writes beside its checkpoints, at most


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves."""

    complete: bool  # False: it was interrupted, and can be resumed
    model: AvatarModel
    params: FlameParams  # the motion, steadied and refined: what the avatar was trained to follow
    camera: Camera  # of the training frames, refined
    background: UInt8  # [H, W, 3] what is behind the person
    steps: int
    seconds: float  # of training alone
    images_per_second: float
    evaluations: tuple[Evaluation, ...] = ()
    times: Mapping[str, float] = field(default_factory=dict)  # seconds by phase, of this process
    peak_memory: int = 0  # bytes on the device


def train(
    dataset: Dataset | str | os.PathLike[str],
    config: TrainConfig,
    folder: str | os.PathLike[str],
    *,
    resume: bool = False,
    group: Group | None = None,
    observers: tuple[Observer, ...] = (),
    lpips: str | os.PathLike[str] | None = None,
    sink: Any = None,
) -> TrainResult:
    """Train an avatar.

    The folder gets the configuration, a log, previews and checkpoints. Ctrl-C, or SIGTERM, ends the run after the steps
    at hand with a checkpoint; a second one ends it at once. A run that resumes gives the same avatar, bit for bit, as
    one that was never cut short, if no time limit shortens them.

    Args:
        dataset: or its folder.
        config: what :func:`being_rt.train.presets.preset` gives, or any other. A run resumes with the one that it
            began with.
        folder: is made if its parent exists.
        resume: go on from the folder's checkpoint; from the start where there is none.
        group: from :func:`being_rt.train.distributed.join`; None: this process alone, on the CPU.
        observers: are told how it goes, on rank 0.
        lpips: file of LPIPS weights, for the last evaluation, and for the loss where it has a perceptual term.
        sink: is called with every frame of the last evaluation; see :func:`being_rt.train.evaluate.evaluate`.

    Raises:
        DatasetError, InvalidParameterError: the dataset or the configuration cannot be trained on.
        FileFormatError: ``lpips`` cannot be read.
        CheckpointError: the checkpoint cannot be read or is of another run; too little room on the disk.
        TrainingError: the run diverged, which leaves the last good checkpoint; or too little memory.

    Example::

        with join("auto") as group:
            result = train("ada", preset("being"), "ada.train", group=group)
    """
    check_perceptual(config.loss, lpips)
    data = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    alone = group or Group(torch.device("cpu"))
    told = Observers(observers if alone.is_first else ())
    try:
        with out_of_memory(alone.device):
            distance = None if lpips is None else Lpips(lpips, alone.device)
            return _Run(data, config, Path(folder), resume, alone, told, distance).go(sink)
    finally:
        told.close()


class _Run:
    """One process's part in a run."""

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        folder: Path,
        resume: bool,
        group: Group,
        tell: Observers,
        lpips: Lpips | None,
    ) -> None:
        self.group, self.folder, self.tell, self.lpips = group, folder, tell, lpips
        self.times: dict[str, float] = {}
        self._make_folder()
        saved = load_checkpoint(folder / CHECKPOINT) if resume and (folder / CHECKPOINT).exists() else None
        self.config = config
        if saved is not None:
            self._check_same_run(saved, config, dataset)
        # From here on the dataset's motion is the steady one: for boxes, torso, training and evaluation alike.
        motion = steady(dataset.params, dataset.rig, _camera(dataset), config.tracks.steady_seconds)
        self.dataset = replace(dataset, params=motion)
        self._identity = _identity(dataset)

        with self._timed("reading frames"):
            self.feed = Feed(
                self.dataset,
                config.feed,
                group.device,
                seed=config.seed,
                batch=config.schedule.batch,
                rank=group.rank,
                ranks=group.ranks,
                progress=self.tell.count,
            )
        with self._timed("initialising"):
            self.tracks = Tracks(
                self.dataset.params, self.dataset.timestep[self.feed.frames], config.tracks, group.device
            )
            self._make_model(saved)
            # By name, for a model from a checkpoint has them in another order than one that was just made.
            parameters = dict(sorted((self.model.parameters | self.tracks.leaves).items()))
            self.optimizer = FusedAdam(parameters, 0.0, eps=EPSILON)
            self.statistics = Statistics.of(self.model)
            self.stepper = Stepper(
                self.model, self.tracks, self.feed, self.optimizer, config.loss, self.statistics, group, lpips
            )
            self.clock = Clock(self._steps(), config.schedule.seconds)
            self.quality: dict[str, float] = {}
            if saved is None:
                self._first_colours()
            else:
                self._load(saved)
        if group.is_first:
            check_disk_space(folder, self._tensors(), BESIDE)
            config.save(folder / CONFIGURATION)
            self.tell.members += [Log(folder / LOG, self.clock.step), Previews(folder / PREVIEWS)]
        self._saved_at = time.perf_counter()
        self._saved_step = self.clock.step if saved is not None else -1
        self._stop = threading.Event()

    def _steps(self) -> int:
        """Of a run that no time limit shortens."""
        schedule = self.config.schedule
        enough = -(-schedule.visits * len(self.feed.frames) // schedule.batch)
        return min(schedule.steps, enough) if schedule.visits else schedule.steps

    # ----------------------------------------------------------------------------------------------------- the run

    def go(self, sink: Any) -> TrainResult:
        try:
            with self._interruptible(), self._timed("training"):
                while not self.clock.done and not self._stopping():
                    self._block()
        finally:
            self.stepper.close()
            self.feed.close()
        self.times["training"] -= sum(self.times.get(name, 0.0) for name in ("evaluating", "saving"))
        self._save()
        complete = self.clock.done
        evaluations: tuple[Evaluation, ...] = ()
        if complete and self.group.is_first:
            with self._timed("last evaluation"):
                evaluations = self._final_evaluations(sink)
        self.group.wait()
        camera_index = _camera_index(self.dataset)
        return TrainResult(
            complete=complete,
            model=self.model,
            params=self.tracks.params(),
            camera=self.tracks.camera(_camera(self.dataset)),
            background=background_plate(self.dataset, camera_index),
            steps=self.clock.step,
            seconds=self.clock.seconds,
            images_per_second=self.clock.step * self.config.schedule.batch / max(self.clock.seconds, 1e-9),
            evaluations=evaluations,
            times=self.times,
            peak_memory=torch.cuda.max_memory_allocated(self.group.device) if self.group.device.type == "cuda" else 0,
        )

    def _block(self) -> None:
        """Steps up to the next moment at which something else is to be done, and that."""
        start = time.perf_counter()
        first, end = self.clock.step, self._next_stop()
        plan = [self._planned(step) for step in range(first, end)]
        following = [self._planned(step) for step in range(end, min(end + 3, self.clock.end))]
        try:
            losses = self.stepper.block(plan, following)
        except TrainingError as problem:
            raise self._explained(problem) from problem
        self.optimizer.raise_epsilons(self.model.epsilon_shares())
        seconds = time.perf_counter() - start
        self.clock.account(end - first, seconds)
        self.clock.refit(*self.group.first_says(self.clock.fit()))
        means = dict(zip(self.stepper.names, losses.mean(axis=0).tolist(), strict=True))
        status = self._status(means, (end - first) * self.config.schedule.batch / max(seconds, 1e-9))
        self.tell.status(status)
        if self._relocation_due():
            self._relocate()
        if self._every(self.config.schedule.evaluate_interval) and not self.clock.done:
            with self._timed("evaluating"):
                self._evaluate(status)
        overdue = time.perf_counter() - self._saved_at > (self.config.schedule.checkpoint_seconds or math.inf)
        if self.group.first_says([float(overdue)])[0]:
            with self._timed("saving"):
                self._save()

    def _next_stop(self) -> int:
        """The end of the block that begins now."""
        schedule = self.config.schedule
        intervals = (schedule.check_interval, schedule.relocate_interval, schedule.evaluate_interval)
        after = [(self.clock.step // interval + 1) * interval for interval in intervals if interval]
        return min(*after, self.clock.end)

    def _planned(self, step: int) -> Planned:
        progress = self.clock.progress(step)
        return Planned(step, progress, self.feed.sampler.view(step, progress))

    def _every(self, interval: int) -> bool:
        return bool(interval) and self.clock.step % interval == 0

    def _relocation_due(self) -> bool:
        schedule = self.config.schedule
        through = self.clock.progress(self.clock.step)
        return self._every(schedule.relocate_interval) and schedule.relocate_start <= through <= schedule.relocate_stop

    def _relocate(self) -> None:
        for name, tensor in self.statistics.tensors().items():
            if name.endswith("opacity"):
                self.group.maximum(tensor)
            else:
                self.group.sum(tensor)
        seed = np.random.SeedSequence([self.config.seed, self.clock.step]).generate_state(1)[0]
        self.model.set_progress(self.clock.progress(self.clock.step))
        changed = densify(self.model, self.statistics, torch.Generator().manual_seed(int(seed)))
        for name, rows in changed.items():
            self.optimizer.reset(name, rows)

    # -------------------------------------------------------------------------------------------------- evaluation

    def _evaluate(self, status: Status) -> None:
        if not self.group.is_first:
            return
        frames = evenly(self.dataset.split("test"), self.config.schedule.evaluate_frames)
        if not len(frames):
            return
        shown = frames[len(frames) // 2]

        def preview(score: FrameScore, drawn: UInt8, seen: UInt8) -> None:
            if score.frame == shown:
                self.tell.preview(status, drawn, seen)

        evaluation = evaluate(self.model, self.tracks, self.dataset, frames, sink=preview, device=self.group.device)
        self._graded(status, evaluation)

    def _final_evaluations(self, sink: Any) -> tuple[Evaluation, ...]:
        """All held-out frames, and where there are other views, those."""
        self.tell.phase("last evaluation")
        evaluations = []
        for split in ("test", "views"):
            frames = self.dataset.split(split)
            if len(frames):
                evaluation = evaluate(
                    self.model,
                    self.tracks,
                    self.dataset,
                    frames,
                    split,
                    lpips=self.lpips,
                    sink=sink if split == "test" else None,
                    device=self.group.device,
                )
                evaluations.append(evaluation)
                self._graded(self._status({}, NEVER), evaluation)
        return tuple(evaluations)

    def _graded(self, status: Status, evaluation: Evaluation) -> None:
        if evaluation.split == "test":
            summary = evaluation.summary()
            self.quality = {name: value for name, value in summary.items() if isinstance(value, float)}
        self.tell.evaluation(status, evaluation)

    def _status(self, losses: Mapping[str, float], images_per_second: float) -> Status:
        return Status(
            step=self.clock.step,
            progress=self.clock.progress(self.clock.step),
            seconds=self.clock.seconds,
            remaining=self.clock.remaining,
            images_per_second=images_per_second,
            losses=losses,
            quality=self.quality,
        )

    # -------------------------------------------------------------------------------------------------- beginnings

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as problem:
            raise CheckpointError(f"cannot make the folder {self.folder}: {os_error_reason(problem)}") from problem

    def _make_model(self, saved: Checkpoint | None) -> None:
        if saved is None:
            self.model = new_model(self.config.model, self.dataset, self.group.device, self.config.seed)
            return
        tensors = {
            name.removeprefix("model."): tensor for name, tensor in saved.tensors.items() if name.startswith("model.")
        }
        with _as_checkpoint_error(self.folder / CHECKPOINT):
            self.model = AvatarModel.from_state(
                self.config.model, self.dataset.rig, tensors, saved.state["model"], self.group.device
            )

    def _first_colours(self) -> None:
        row, view, images = self.feed.sample(COLOUR_FRAMES)
        with torch.no_grad():
            frames = self.stepper.frames_of(row, view, self.tracks.sequence())
        colours(self.model, frames, images)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def _tensors(self) -> dict[str, torch.Tensor]:
        return self.stepper.lasting()

    def _save(self) -> None:
        if not self.group.is_first or self._saved_step == self.clock.step:
            return
        tensors = self._tensors()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                problem = TrainingError(f"training diverged by step {self.clock.step}: {name} is not finite")
                raise self._explained(problem)
        state = {
            "clock": self.clock.state(),
            "model": self.model.state()[1],
            "config": json.loads(self.config.to_json()),
            "dataset": self._identity,
            "quality": self.quality,
            "seconds": self.clock.seconds,
        }
        save_checkpoint(self.folder / CHECKPOINT, tensors, state)
        self._saved_at, self._saved_step = time.perf_counter(), self.clock.step

    def _load(self, saved: Checkpoint) -> None:
        copy_into(self._tensors(), saved.tensors, self.folder / CHECKPOINT)
        with _as_checkpoint_error(self.folder / CHECKPOINT):
            self.clock.load_state(saved.state["clock"])
            self.quality = {name: float(value) for name, value in saved.state["quality"].items()}

    def _check_same_run(self, saved: Checkpoint, config: TrainConfig, dataset: Dataset) -> None:
        path = self.folder / CHECKPOINT
        with _as_checkpoint_error(path):
            written = TrainConfig.from_json(json.dumps(saved.state["config"]))
            identity = saved.state["dataset"]
        if identity != _identity(dataset):
            raise CheckpointError(f"{path} is of another dataset than {dataset.path}; train into another folder")
        if written != config:
            raise CheckpointError(
                f"{path} has another configuration: {_difference(written, config)}; resume with the options that the "
                "run began with, or train into another folder"
            )

    def _explained(self, problem: TrainingError) -> TrainingError:
        path = self.folder / CHECKPOINT
        kept = f"the checkpoint of step {self._saved_step} is kept in {path}" if path.exists() else "nothing was kept"
        return TrainingError(f"{problem}; {kept}; lower the learning rates")

    # ------------------------------------------------------------------------------------------------ interruption

    def _stopping(self) -> bool:
        """Whether anybody asked any rank to stop."""
        if self.group.ranks == 1:
            return self._stop.is_set()
        flag = torch.tensor([float(self._stop.is_set())], device=self.group.device)
        self.group.maximum(flag)
        return bool(flag.item())

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask the run to end after its block; the second time they do what they always do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: FrameType | None) -> None:
            self._stop.set()
            for other, handler in before.items():
                signal.signal(other, handler)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        self.tell.phase(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start


@contextmanager
def _as_checkpoint_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, InvalidParameterError) as problem:
        raise CheckpointError(f"{path} does not fit this run: {problem}") from problem


def _camera_index(dataset: Dataset) -> int:
    """The camera of the first training frame; the first camera where there is none, which the feed complains of."""
    frames = dataset.split("train")
    return int(dataset.camera_index[frames[0]]) if len(frames) else 0


def _camera(dataset: Dataset) -> Camera:
    return dataset.cameras[_camera_index(dataset)]


def _identity(dataset: Dataset) -> dict[str, Any]:
    """What tells one dataset from another: its name, its frames, and a digest of its tracks."""
    digest = hashlib.sha256()
    for name in WIDTHS:
        digest.update(getattr(dataset.params, name).tobytes())
    return {"name": dataset.name, "frames": dataset.count, "tracks": digest.hexdigest()}


def _difference(written: TrainConfig, config: TrainConfig) -> str:
    """The first field in which two configurations differ: "loss.l1 is 0.8 there, 1.0 here"."""

    def walk(a: Any, b: Any, path: str) -> Iterator[str]:
        if isinstance(a, dict) and isinstance(b, dict):
            for name in a:
                yield from walk(a[name], b.get(name), f"{path}{name}.")
        elif a != b:
            yield f"{path.rstrip('.')} is {a} there, {b} here"

    return next(walk(json.loads(written.to_json()), json.loads(config.to_json()), ""), "it differs")
