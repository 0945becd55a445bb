"""``python -m being_rt.bench --cloning``: how long ``being clone`` takes, stage by stage, and how good it gets.

The video is one's own, or one that a demo person plays: two seconds of the empty room, then a performance as people
are asked for (:mod:`being_rt.dataset.synth_motion`), with a sensor's noise, compressed as phones do. All of it is timed
by the wall clock, in one process that starts cold: networks load, kernels are prepared, files are written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.bench.environment import environment
from being_rt.clone_jobs import Clone
from being_rt.dataset import Dataset
from being_rt.dataset.synth_motion import perform
from being_rt.dataset.synth_picture import PictureErrors, noise_deviations, noisy_picture
from being_rt.errors import InvalidParameterError, TrainingError
from being_rt.files import atomic_write, check_target
from being_rt.jobs import FilePath, chosen_device, open_avatar, parse_size
from being_rt.parallel import in_order
from being_rt.renderer import Renderer, background_picture
from being_rt.video import VideoWriter

FORMAT_VERSION = 1
FPS = 25
EMPTY = 2.0  # seconds of the room alone
# Seconds of video, its size, steps of training (0: as many as `being clone` takes).
LEVELS = {"quick": (6.0, (480, 270), 50), "default": (30.0, (1920, 1080), 0), "full": (60.0, (1920, 1080), 0)}
FOOTNOTE = """\
Wall clock of one process that starts cold. training: the steps alone; avatar: its file and its report; talking: a video
in which it says a line."""


@dataclass(frozen=True)
class Result:
    """A clone that was timed."""

    environment: dict[str, str]
    video: str  # in words
    size: tuple[int, int]
    frames: int  # of the data set
    steps: int
    stages: dict[str, float]  # seconds
    track: dict[str, float]  # how well the face was followed
    quality: dict[str, float]  # of held-out frames

    @property
    def total(self) -> float:
        """Seconds from the video to the avatar that talks."""
        return sum(self.stages.values())


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; the exit code. Raises what :func:`measure` does."""
    if options.json:
        check_target(options.json)
    seconds, size, steps = LEVELS[options.level]
    if options.size and (len(options.size) > 1 or options.video):
        raise InvalidParameterError("--cloning takes one --size, and none with --video, which has its own")
    if options.size:
        size = parse_size(options.size[0])
    if options.steps is not None:
        steps = options.steps
    say = _Progress()
    with tempfile.TemporaryDirectory(prefix="being_rt-bench-") as folder:
        video, words = options.video, "a video of one's own"
        if video is None:
            video = Path(folder) / "performance.mp4"
            words = f"{options.avatar}, {seconds:g} s, after {EMPTY:g} s of the empty room"
            say("filming", 0.0)
            film(options.avatar, video, size, seconds, options.device)
        result = measure(video, words, folder, steps=steps, device=options.device, say=say)
    for name, value in result.environment.items():
        print(f"{name:>16}  {value}")
    print(f"{'scene':>16}  {result.video}; {result.size[0]}x{result.size[1]}, {result.frames} frames\n")
    print(table(result) + "\n\n" + FOOTNOTE)
    if options.json:
        save(result, options.json)
    return 0


def film(
    avatar: str, path: str | os.PathLike[str], size: tuple[int, int], seconds: float, device: str = "auto"
) -> None:
    """Write a video of an avatar that performs for so many seconds, after two of the room without it.

    Raises ``InvalidParameterError``, ``AvatarFileError``, ``VideoError``.
    """
    person = open_avatar(avatar)
    renderer = Renderer(person, size, chosen_device(device))
    motion = perform(person.rig, round(0.8 * seconds * FPS), round(0.2 * seconds * FPS), FPS)
    room = background_picture(person.background, size)
    assert room is not None  # a picture, as all avatars have it
    deviations = noise_deviations(PictureErrors())

    def recorded(frame: tuple[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return noisy_picture(frame[1], deviations, np.random.default_rng(frame[0]))

    frames = chain(repeat(room, round(EMPTY * FPS)), (renderer.render(motion[t]) for t in range(len(motion))))
    with VideoWriter(path, size, FPS) as video:
        for picture in in_order(recorded, enumerate(frames)):
            video.write(picture)


def measure(
    video: FilePath,
    words: str,
    folder: str | os.PathLike[str],
    *,
    steps: int = 0,
    device: str = "auto",
    say: Callable[[str, float], None] | None = None,
) -> Result:
    """Clone the person in a video, into a folder, and tell how long each stage took.

    Args:
        words: what the video is.
        steps: of training; 0: as many as ``being clone`` takes.
        say: hears what is done.

    Raises what :class:`being_rt.clone_jobs.Clone` does, and ``TrainingError`` where training was interrupted.

    Example::

        result = measure("selfie.mp4", "me", "scratch", device="cuda")
        print(result.total, result.stages)
    """
    job = Clone(video, name="clone", out=Path(folder) / "clone.being", steps=steps, device=device, sample=False)
    prepared = job.prepare(say)
    tell = say or (lambda stage, share: None)
    tell("training", 0.0)
    start = time.perf_counter()
    trained = job.train(prepared).trained
    trained_after = time.perf_counter() - start
    if not trained.complete:
        raise TrainingError("the bench was interrupted while it trained")
    tell("talking", 0.0)
    job.talk()
    quality = prepared.quality
    return Result(
        environment=environment(chosen_device(device)),
        video=words,
        size=Dataset.load(prepared.dataset).size,
        frames=prepared.frames,
        steps=trained.steps,
        stages={
            **prepared.times,
            **trained.times,
            "avatar": trained_after - sum(trained.times.values()),
            "talking": time.perf_counter() - start - trained_after,
        },
        track={
            "tracked, %": 100 * quality.tracked / quality.frames,
            "landmarks, % of the distance between the eyes": quality.error,
            "head jitter, px": quality.jitter,
        },
        quality=trained.quality,
    )


def table(result: Result) -> str:
    """Stages, a line each, with the frames per second where a stage goes through the video."""
    lines = []
    for name, seconds in result.stages.items():
        rate = f"{result.frames / seconds:>8.1f} frames/s" if name in ("looking", "fitting", "separating") else ""
        lines.append(f"{name:>16} {seconds:>8.1f} s {rate}".rstrip())
    lines.append(f"{'all':>16} {result.total:>8.1f} s, {result.steps} steps of training\n")
    lines += [f"{name:>46}  {value:.2f}" for name, value in (result.track | result.quality).items()]
    return "\n".join(lines)


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON. Raises ``FileFormatError`` where that is not possible."""
    document = {"format": FORMAT_VERSION, "kind": "cloning", **asdict(result), "total": result.total}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")


class _Progress:
    """What is being done: on a terminal in one line that the next one overwrites, else a line as a stage begins."""

    def __init__(self) -> None:
        self._start, self._stage = time.perf_counter(), ""

    def __call__(self, stage: str, share: float) -> None:
        if sys.stderr.isatty():
            print(f"\r{stage:>16} {share:4.0%}\r", end="", file=sys.stderr, flush=True)
        elif stage != self._stage:
            print(f"{stage}, after {time.perf_counter() - self._start:.0f} s", file=sys.stderr, flush=True)
        self._stage = stage
