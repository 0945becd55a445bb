"""Whole jobs, file in and file out: what the command line does, callable from Python.

Each job is one dataclass: its fields are the command's options and the constructor's arguments at once::

    from being_rt.jobs import Talk

    result = Talk("speech.wav", out="talk.mp4", avatar="ada", size=(1280, 720)).run()
    print(result.path, result.speed)

``run`` raises :class:`being_rt.errors.BeingError` for anything that is wrong with its input. A job that fails or is
interrupted leaves no file behind, and the file of that name that was there before stays as it was.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.video import VideoWriter, check_video_path, check_video_size, exact_fps

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
FilePath: TypeAlias = str | Path
Size: TypeAlias = str | tuple[int, int]
Background: TypeAlias = tuple[float, float, float] | UInt8 | None
Progress: TypeAlias = Callable[[int, int], None]  # frames drawn, frames in all

NATURAL_SIDE = 1080  # px
DEFAULT_AVATAR = "ada"
COMMENT = "synthetic video of a generated person, made with being_rt"


@dataclass(frozen=True)
class VideoResult:
    """What a job wrote and how long it took."""

    path: Path
    size: tuple[int, int]  # width, height
    fps: Fraction
    frames: int
    elapsed: float  # seconds of wall clock, from the first sample of the sound to the last byte of the file

    @property
    def duration(self) -> float:
        """Seconds of video."""
        return float(self.frames / self.fps)

    @property
    def speed(self) -> float:
        """Seconds of video made in one second; above 1 is faster than real time."""
        return self.duration / max(self.elapsed, 1e-9)


@dataclass(frozen=True, kw_only=True)
class VideoJob(ABC):
    """What all jobs that write a video have in common."""

    out: FilePath
    """The video to write: .mp4, .m4v, .mov, .mkv or .webm. An existing one is replaced."""
    avatar: str = DEFAULT_AVATAR
    """An avatar file (.being), or a preset's name (`being avatars` lists them)."""
    size: Size | None = None
    """Width and height in pixels, even; if not given, the avatar's own shape with 1080 pixels on the shorter side."""
    background: str = ""
    """A colour (#rrggbb) or a picture file, in place of the avatar's own background."""
    device: str = "auto"
    """What draws: auto, cpu, cuda or cuda:N. auto: the first CUDA device that this build can use, or else the CPU."""
    threads: int = 0
    """CPU threads that draw; 0: one per core."""
    quality: int = 17
    """The encoder's constant rate factor: 0 is lossless, 17 looks like the original, 28 is small."""

    @abstractmethod
    def run(self, progress: Progress | None = None) -> VideoResult:
        """Do the job. ``progress`` is called as ``progress(frames drawn, frames in all)`` after every frame."""

    def _check(self) -> None:
        """What can be checked before anything is loaded, so that a wrong option costs no time."""
        _check_threads(self.threads)
        chosen_device(self.device)
        check_video_path(self.out)
        if self.size is not None:
            check_video_size(parse_size(self.size))
        parse_background(self.background)

    def _draw(
        self,
        avatar: Avatar,
        params: FlameParams,
        fps: Fraction,
        sound: Float32 | None,
        sample_rate: int,
        progress: Progress | None,
        start: float | None = None,
    ) -> VideoResult:
        return draw_video(
            avatar,
            params,
            self.out,
            size=None if self.size is None else parse_size(self.size),
            fps=fps,
            sound=sound,
            sample_rate=sample_rate,
            background=parse_background(self.background),
            device=self.device,
            threads=self.threads,
            quality=self.quality,
            progress=progress,
            start=start,
        )


@dataclass(frozen=True, kw_only=True)
class SpeechJob(VideoJob):
    """A job whose motion comes from sound."""

    fps: float = 25.0
    """Frames per second, 1..240; 29.97 means 30000/1001."""
    seed: int = 0
    """Chooses the blinks, glances and head movements; the same seed gives the same video."""
    look_ahead: float = 0.1
    """Seconds of future sound that the lips may see, 0..0.1; more is crisper, 0 is as in a live call."""
    liveliness: float = 1.0
    """Scales the movements of head and brows, 0..2."""
    smile: float = 0.0
    """A lasting smile, 0..1."""

    @abstractmethod
    def sound(self) -> tuple[Float32, int]:
        """The speech: float32 [n] or [n, channels] in -1..1, and its rate in Hz."""

    def run(self, progress: Progress | None = None) -> VideoResult:
        from being_rt.motion.driver import drive
        from being_rt.motion.viseme_driver import VisemeDriver

        self._check()
        fps = exact_fps(self.fps)
        sound, sample_rate = self.sound()
        avatar = open_avatar(self.avatar)
        start = time.perf_counter()
        driver = VisemeDriver(
            avatar.rig.expression_map,
            fps=float(fps),
            look_ahead=self.look_ahead,
            seed=self.seed,
            liveliness=self.liveliness,
            smile=self.smile,
        )
        params = _with_length(drive(driver, sound, sample_rate), math.ceil(len(sound) * fps / sample_rate))
        return self._draw(avatar, params, fps, sound, sample_rate, progress, start)


@dataclass(frozen=True, kw_only=True)
class Talk(SpeechJob):
    """Speech in, a video of the avatar speaking it out, with the sound, in sync."""

    audio: FilePath = field(kw_only=False)
    """The speech: any sound or video file that FFmpeg reads, at any rate."""
    out: FilePath = "talk.mp4"

    def sound(self) -> tuple[Float32, int]:
        from being_rt.audio.decode import decode_audio

        return decode_audio(self.audio)


@dataclass(frozen=True, kw_only=True)
class Say(SpeechJob):
    """Text in, a video of the avatar saying it out. The voice is espeak-ng's: intelligible, robotic, offline."""

    text: str = field(kw_only=False)
    """What to say."""
    out: FilePath = "say.mp4"
    voice: str = "en-us"
    """A voice of espeak-ng, with an optional variant: en-us, en-gb+f3, de, fr, ..."""
    words_per_minute: int = 165

    def sound(self) -> tuple[Float32, int]:
        from being_rt.audio.synthesis import synthesize

        speech = synthesize(self.text, self.voice, words_per_minute=self.words_per_minute)
        return speech.pcm, speech.sample_rate


@dataclass(frozen=True, kw_only=True)
class Demo(SpeechJob):
    """The avatar speaks a line that comes with the package."""

    out: FilePath = "demo.mp4"

    def sound(self) -> tuple[Float32, int]:
        from being_rt.audio.decode import decode_audio
        from being_rt.audio.demo import DEMO_LINE

        return decode_audio(DEMO_LINE)


@dataclass(frozen=True, kw_only=True)
class Render(VideoJob):
    """A recorded motion (FlameParams, .npz) in, its video out."""

    params: FilePath = field(kw_only=False)
    """The motion: a file of FlameParams.save."""
    out: FilePath = "render.mp4"
    audio: FilePath = ""
    """Sound to go with it, from the first frame on; none if not given."""
    fps: float = 0.0
    """Frames per second; 0: the motion's own. Another rate resamples the motion."""

    def run(self, progress: Progress | None = None) -> VideoResult:
        self._check()
        params = FlameParams.load(self.params)
        fps = exact_fps(self.fps or params.fps)
        sound, sample_rate = Talk(self.audio).sound() if self.audio else (None, 0)
        avatar = open_avatar(self.avatar)
        return self._draw(avatar, params.resample(float(fps)), fps, sound, sample_rate, progress)


def draw_video(
    avatar: Avatar,
    params: FlameParams,
    path: FilePath,
    *,
    size: tuple[int, int] | None = None,
    fps: float | Fraction | None = None,
    sound: Float32 | None = None,
    sample_rate: int = 0,
    background: Background = None,
    device: str = "auto",
    threads: int = 0,
    quality: int = 17,
    progress: Progress | None = None,
    start: float | None = None,
) -> VideoResult:
    """Draw every frame of ``params`` into a video file, the sound beside it (:class:`being_rt.video.VideoWriter`).

    ``size``: of the video; None: :func:`natural_size` of the avatar's camera. ``fps`` is the exact rate where
    ``params.fps`` is a rounding of it. ``start`` is the ``time.perf_counter`` value that ``elapsed`` of the result
    counts from; now, if not given. ``device`` "auto" is :func:`being_rt.renderer.default_device`.

    Raises ``VideoError``, ``InvalidParameterError``, ``DeviceError``.

    Example::

        draw_video(demo_avatar("ada"), FlameParams.load("motion.npz"), "motion.mp4", size=(1280, 720))
    """
    from being_rt.renderer import Renderer

    start = time.perf_counter() if start is None else start
    rate = exact_fps(params.fps if fps is None else fps)
    if isinstance(background, str):
        raise InvalidParameterError("video has no transparency: background must be a colour, a picture or None")
    size = natural_size(avatar.camera.size) if size is None else size
    renderer = Renderer(avatar, size, chosen_device(device), threads=threads or None, background=background)
    with VideoWriter(path, size, rate, sound=sound, sample_rate=sample_rate, quality=quality, comment=COMMENT) as video:
        for i in range(len(params)):
            video.write(renderer.render(params[i], out=video.frame(), format="nv12"))
            if progress is not None:
                progress(i + 1, len(params))
    return VideoResult(Path(path), size, rate, len(params), time.perf_counter() - start)


def natural_size(size: tuple[int, int]) -> tuple[int, int]:
    """The same shape with 1080 pixels on the shorter side, even.

    An avatar has nothing to show beyond the frames that it was made from: in another shape its body is cut off.

    >>> natural_size((512, 640)), natural_size((3840, 2160))
    ((1080, 1350), (1920, 1080))
    """
    width, height = size
    scale = NATURAL_SIDE / min(size)
    return 2 * round(scale * width / 2), 2 * round(scale * height / 2)


def chosen_device(device: str) -> str:
    """The device that an option names, once it is sure that frames can be drawn on it. Raises ``DeviceError``."""
    from being_rt.cuda import check_device
    from being_rt.renderer import default_device

    chosen = default_device() if device == "auto" else device
    check_device(chosen)
    return chosen


def open_avatar(name: str) -> Avatar:
    """An avatar file, or a preset by its name (generated on first use, then cached).

    Raises ``AvatarFileError`` for a file that is missing or not an avatar, ``InvalidParameterError`` for an unknown
    name, ``MissingDependencyError`` where a preset must be generated and SciPy is absent.
    """
    from being_rt.avatar.demo import PRESETS, demo_avatar
    from being_rt.avatar.file import load_avatar

    if name in PRESETS:
        return demo_avatar(name)
    if Path(name).suffix or os.path.exists(name) or len(Path(name).parts) != 1:
        return load_avatar(name)
    raise InvalidParameterError(f"there is no avatar {name!r}: give a .being file or one of {', '.join(PRESETS)}")


def parse_size(size: Size) -> tuple[int, int]:
    """``"1920x1080"`` or ``(1920, 1080)`` as (width, height). Raises ``InvalidParameterError``."""
    try:
        width, height = (int(side) for side in (re.split("[x×]", size) if isinstance(size, str) else size))
    except (TypeError, ValueError):
        raise InvalidParameterError(f"size must be WIDTHxHEIGHT, such as 1920x1080, got {size!r}") from None
    return width, height


def parse_background(background: str) -> Background:
    """``"#rrggbb"`` as a colour 0..1, a picture file as uint8 [H, W, 3], ``""`` as None: the avatar's own."""
    if not background:
        return None
    if re.fullmatch(r"#[0-9a-fA-F]{6}", background):
        red, green, blue = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return red, green, blue
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(background) as picture:
                return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise InvalidParameterError(
            f"background {background!r} is neither a colour such as #203040 nor a picture file that exists"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as problem:
        raise InvalidParameterError(f"cannot use {background} as background: it has too many pixels") from problem
    except (OSError, ValueError, SyntaxError) as problem:  # Pillow finds damaged PNGs to be syntax errors
        raise InvalidParameterError(f"cannot use {background} as background: it is not a readable picture") from problem


def _with_length(params: FlameParams, count: int) -> FlameParams:
    """The first ``count`` frames; the last one held where there are fewer."""
    if len(params) >= count:
        return params[:count]
    return FlameParams.concatenate([params, *[params[len(params) - 1 :]] * (count - len(params))])


def _check_threads(threads: int) -> None:
    if not 0 <= threads <= 1024:
        raise InvalidParameterError(f"threads must be 0 (one per core) .. 1024, got {threads}")
