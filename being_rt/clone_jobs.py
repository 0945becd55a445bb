"""From a video to an avatar as whole jobs: what ``being prepare`` and ``being clone`` do, callable from Python.

    from being_rt.clone_jobs import Clone

    made = Clone("selfie.mp4", name="me").run()
    print(made.avatar, made.sample)

Networks that look at the video need the extra ``track``, training needs ``train``.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from being_rt.dataset.check import CheckReport, check_dataset
from being_rt.dataset_jobs import open_flame_model
from being_rt.errors import DatasetError, MissingDependencyError, TrackError
from being_rt.files import check_target
from being_rt.flame.model import FlameModel
from being_rt.jobs import Demo, FilePath
from being_rt.train.config import TrainConfig
from being_rt.train_jobs import Train, Trained

if TYPE_CHECKING:
    from being_rt.track.quality import TrackQuality
    from being_rt.train.progress import Observer

Progress = Callable[[str, float], None]  # what is being done, and the share of it that is

NEEDED = {"ai_edge_litert": "networks", "av": "videos", "scipy": "filters"}


@dataclass(frozen=True)
class PreparedJob:
    """What :class:`Prepare` wrote."""

    dataset: Path
    report: Path
    overlay: Path
    frames: int
    quality: TrackQuality
    advice: tuple[str, ...]  # what to film again, in words
    check: CheckReport
    times: dict[str, float]  # seconds by stage, of this run
    refinement: dict[str, str] = field(default_factory=dict)  # what refining the track by pictures did, by name


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """A video of a person in, a data set to train on out, with a report of how good the track is."""

    video: FilePath = field(kw_only=False)
    """One person before a camera that stands still; any file that FFmpeg reads."""
    out: FilePath = ""
    """The data set's folder; the video's name, if not given. Report and overlay video lie beside it."""
    name: str = ""
    """The person's; the folder's name, if not given."""
    flame: FilePath = "procedural"
    """A FLAME model file, or "procedural": the generated head, which needs none."""
    eyelids: tuple[FilePath, FilePath] | None = None
    """Eyelid bases for FLAME, left and right (.npy), if the model file has none."""
    licence: str = ""
    """Under which terms the video is used; goes into the data set and the avatar."""
    consent: str = ""
    """Who agreed to what; likewise."""
    held_out: float = 0.15
    """Share of the frames, the last ones, that training does not see: what the quality is measured on."""
    png: bool = False
    """Frames as PNG instead of JPEG of quality 95: five times the size."""
    replace: bool = False
    """Replace a data set of that name that was made from something else."""
    refine: Literal["auto", "on", "off"] = "auto"
    """Refine what landmarks found by the pictures themselves, with a small avatar of the person. auto: where PyTorch is
    installed."""
    device: str = "auto"
    """What refines: auto, cpu, cuda or cuda:N. auto: the first CUDA device, or else the CPU."""
    threads: int = 0
    """For decoding, networks and filters; 0: one per core."""

    def run(self, progress: Progress | None = None) -> PreparedJob:
        """Do the job; what an earlier run on the same video has done is not done again.

        Raises ``TrackError``, ``DatasetError``, ``ModelFileError``, ``InvalidParameterError``,
        ``MissingDependencyError``.
        """
        out = self.folder
        overlay, report = out.with_name(f"{out.name}.overlay.mp4"), out.with_name(f"{out.name}.track.html")
        check_target(report, TrackError)
        if out.exists() and not out.is_dir():
            raise DatasetError(f"cannot make the folder {out}: a file of that name is in the way; choose another name")
        check_extras()
        from being_rt.track.embedding import landmark_embedding
        from being_rt.track.prepare import prepare
        from being_rt.track.quality import advice, judge
        from being_rt.track.report import TrackReport, write_overlay

        clock = _Clock(progress)
        model = self.model()
        made = prepare(
            self.video,
            out,
            model,
            work=out.with_name(f"{out.name}.track"),
            name=self.name or out.name,
            licence=self.licence,
            consent=self.consent,
            held_out=self.held_out,
            image_suffix=".png" if self.png else ".jpg",
            replace=self.replace,
            refine=self.refine,
            device=self.device,
            threads=self.threads,
            progress=clock,
        )
        clock("reporting", 0.0)
        quality = judge(made.observations, made.fit, model, landmark_embedding(model))
        if not overlay.exists() or overlay.stat().st_mtime < (out / "dataset.json").stat().st_mtime:
            write_overlay(made.dataset, overlay)
        times = clock.stop()
        TrackReport(f"{self.name or out.name}: the track", made, quality, overlay, times).write(report)
        return PreparedJob(
            dataset=out,
            report=report,
            overlay=overlay,
            frames=made.dataset.count,
            quality=quality,
            advice=(*advice(quality, static=made.motion.is_static, known=made.known), *made.warnings),
            check=check_dataset(out),
            times=times,
            refinement=made.refinement,
        )

    @property
    def folder(self) -> Path:
        """Where the data set will be."""
        return Path(self.out or Path(self.video).stem)

    def model(self) -> FlameModel:
        """The head that is fitted."""
        return open_flame_model(self.flame, eyelids=self.eyelids)


@dataclass(frozen=True)
class Cloned:
    """What :class:`Clone` wrote."""

    prepared: PreparedJob
    trained: Trained
    avatar: Path | None  # None: interrupted; run it again to go on
    sample: Path | None  # a video of the avatar talking


@dataclass(frozen=True, kw_only=True)
class Clone:
    """A video of a person in, an avatar of that person out, and a video in which it talks. Run again, it goes on."""

    video: FilePath = field(kw_only=False)
    """One person before a camera that stands still, some 30 seconds; any file that FFmpeg reads."""
    name: str = ""
    """The person's, and the first part of all files' names; the video's, if not given."""
    out: FilePath = ""
    """The avatar to write; NAME.being, if not given. All else lies beside it."""
    flame: FilePath = "procedural"
    """A FLAME model file, or "procedural": the generated head, which needs none."""
    eyelids: tuple[FilePath, FilePath] | None = None
    """Eyelid bases for FLAME, left and right (.npy), if the model file has none."""
    licence: str = ""
    """Under which terms the video is used; goes into the data set and the avatar."""
    consent: str = ""
    """Who agreed to what; likewise."""
    held_out: float = 0.15
    """Share of the frames, the last ones, that training does not see: what the quality is measured on."""
    steps: int = 0
    """Steps of training; 0: the configuration's, or on a CPU some 1,500 of a smaller avatar."""
    seconds: float = 0.0
    """Stop after so much training time, with all schedules fitted to it; 0: no limit."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto: the first CUDA device, or else the CPU."""
    replace: bool = False
    """Begin anew where files of that name were made from something else."""
    refine: Literal["auto", "on", "off"] = "auto"
    """Refine what landmarks found by the pictures themselves, with a small avatar of the person, before training."""
    threads: int = 0
    """For decoding, networks and filters; 0: one per core."""
    sample: bool = True
    """Write NAME.talk.mp4, in which the avatar says a line."""
    config: TrainConfig = field(default_factory=TrainConfig)

    def run(self, progress: Progress | None = None, observers: Sequence[Observer] = ()) -> Cloned:
        """Do the job. ``progress`` hears of the track, ``observers`` of the training.

        Raises as :class:`Prepare` and :class:`being_rt.train_jobs.Train`.
        """
        return self.train(self.prepare(progress), observers)

    def prepare(self, progress: Progress | None = None) -> PreparedJob:
        """The first half: the data set."""
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError("training needs PyTorch; install it with: pip install 'being_rt[train]'")
        return Prepare(
            self.video,
            out=self._avatar.with_suffix(""),
            name=self._name,
            flame=self.flame,
            eyelids=self.eyelids,
            licence=self.licence,
            consent=self.consent,
            held_out=self.held_out,
            replace=self.replace,
            refine=self.refine,
            device=self.device,
            threads=self.threads,
        ).run(progress)

    def train(self, prepared: PreparedJob, observers: Sequence[Observer] = ()) -> Cloned:
        """The second half: the avatar, and what it says."""
        if not prepared.check.passed:
            problem = next(finding for finding in prepared.check.findings if finding.severity == "error")
            raise TrackError(f"{prepared.dataset} is not fit to train on: {problem.message}")
        out = self._avatar
        trained = Train(
            prepared.dataset,
            out=out,
            steps=self.steps,
            seconds=self.seconds,
            resume=_is_newer(out.with_suffix(".train") / "config.json", prepared.dataset / "dataset.json"),
            device=self.device,
            name=self._name,
            config=self._configuration(),
        ).run(observers)
        if not trained.complete or trained.avatar is None:
            return Cloned(prepared, trained, None, None)
        return Cloned(prepared, trained, trained.avatar, self.talk() if self.sample else None)

    def talk(self) -> Path:
        """A video in which the avatar, which is there, says a line."""
        sample = self._avatar.with_suffix(".talk.mp4")
        Demo(avatar=str(self._avatar), out=sample, device=self.device).run()
        return sample

    @property
    def _name(self) -> str:
        return self.name or Path(self.out or self.video).stem

    @property
    def _avatar(self) -> Path:
        return Path(self.out or f"{self._name}.being")

    def _configuration(self) -> TrainConfig:
        """The given one; on a CPU, where nothing else is asked for, one that ends within the hour."""
        from being_rt.train.distributed import chosen_device

        if chosen_device(self.device).type == "cuda" or self.config != TrainConfig():
            return self.config
        return light(self.config)


def light(config: TrainConfig) -> TrainConfig:
    """A configuration for a CPU: two fifths of the Gaussians, fewer steps of one frame, at higher learning rates."""
    model = config.model
    return replace(
        config,
        model=replace(
            model,
            head_gaussians=2 * model.head_gaussians // 5,
            hair_gaussians=2 * model.hair_gaussians // 5,
            mouth_gaussians=2 * model.mouth_gaussians // 5,
            torso_gaussians=2 * model.torso_gaussians // 5,
            learning_rates=replace(model.learning_rates, factor=3.0),
        ),
        schedule=replace(config.schedule, steps=1_500, batch=1, evaluate_interval=500),
    )


class _Clock:
    """Passes progress on, and adds up how long each stage took."""

    def __init__(self, progress: Progress | None) -> None:
        self._tell = progress or (lambda stage, share: None)
        self._times: dict[str, float] = {}
        self._stage, self._since = "", time.perf_counter()

    def __call__(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._account()
            self._stage = stage
        self._tell(stage, share)

    def stop(self) -> dict[str, float]:
        """Seconds by stage so far."""
        self._account()
        return dict(self._times)

    def _account(self) -> None:
        now = time.perf_counter()
        if self._stage:
            self._times[self._stage] = self._times.get(self._stage, 0.0) + now - self._since
        self._since = now


def _is_newer(path: Path, other: Path) -> bool:
    return path.exists() and path.stat().st_mtime >= other.stat().st_mtime


def check_extras() -> None:
    """Raise ``MissingDependencyError`` where a package that looking at pictures needs is not installed."""
    for module, purpose in NEEDED.items():
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f"{purpose} need the package {module}: pip install 'being_rt[track]'")
