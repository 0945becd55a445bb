"""Frames and sound to a video file, encoded on a thread of its own while the next frame is drawn.

PyAV (FFmpeg) does the coding; it comes with the extra ``cli``. H.264 takes the renderer's NV12 frames as they are, so
between the compositing of a pixel and x264 there is one copy and no colour conversion.
"""

from __future__ import annotations

import math
import os
import queue
import threading
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError, MissingDependencyError, VideoError
from being_rt.files import atomic_write, check_target, os_error_reason

if TYPE_CHECKING:
    from typing_extensions import Self

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

SMALLEST, LARGEST = 16, 8192  # pixels per side; x264 level 6.2 ends at 8192
BUFFERS = 4  # frames between the renderer and the encoder: enough that neither waits for the other's hiccups
BT709 = 1  # ITU-T H.273: colour primaries, transfer characteristics and matrix coefficients all have it at 1
LIMITED_RANGE = 1  # AVCOL_RANGE_MPEG: luma 16..235


@dataclass(frozen=True)
class _Container:
    """What goes into a kind of file: FFmpeg's names."""

    format: str
    video: str
    video_options: dict[str, str]
    pixel_format: str
    audio: str
    options: dict[str, str]


# veryfast is the fastest preset whose files stay small on a still background (superfast: twice the size, a third
# faster); crf 17 is visually lossless for x264. Faststart moves the index to the front, so that players can stream.
_H264 = {"preset": "veryfast"}
_CONTAINERS = {
    ".mp4": _Container("mp4", "libx264", _H264, "nv12", "aac", {"movflags": "+faststart"}),
    ".m4v": _Container("mp4", "libx264", _H264, "nv12", "aac", {"movflags": "+faststart"}),
    ".mov": _Container("mov", "libx264", _H264, "nv12", "aac", {"movflags": "+faststart"}),
    ".mkv": _Container("matroska", "libx264", _H264, "nv12", "aac", {}),
    ".webm": _Container("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, "yuv420p", "libopus", {}),
}


def exact_fps(fps: float | Fraction) -> Fraction:
    """The frame rate that is meant: 25 -> 25, 29.97 -> 30000/1001, 12.5 -> 25/2.

    Raises ``InvalidParameterError`` outside 1..240.

    >>> exact_fps(23.976)
    Fraction(24000, 1001)
    """
    if not (isinstance(fps, (int, float, Fraction)) and math.isfinite(fps) and 1 <= fps <= 240):
        raise InvalidParameterError(f"fps must be 1..240, got {fps}")
    broadcast = Fraction(round(fps * 1.001) * 1000, 1001)  # NTSC's family: 24000/1001, 30000/1001, 60000/1001, ...
    if abs(float(fps) - float(broadcast)) < 0.005 and Fraction(fps).denominator != 1:
        return broadcast
    return Fraction(fps).limit_denominator(1001)


def check_video_path(path: str | os.PathLike[str]) -> Path:
    """``path`` as a Path if a video can be written there, so that a long job fails at its start and not at its end.

    Raises ``VideoError``: unknown suffix, missing folder, no permission, a folder in the way.
    """
    target = Path(path)
    if target.suffix.lower() not in _CONTAINERS:
        raise VideoError(f"cannot write {target}: a video's name must end in one of {', '.join(_CONTAINERS)}")
    check_target(target, VideoError)
    return target


def check_video_size(size: tuple[int, int]) -> tuple[int, int]:
    """``(width, height)`` if video can have it: even (4:2:0 halves the colour), 16..8192 pixels a side.

    Raises ``InvalidParameterError``, with the nearest size that would do.
    """
    width, height = size
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise InvalidParameterError(f"size must be {SMALLEST}..{LARGEST} pixels a side, got {width}x{height}")
    if width % 2 or height % 2:
        even = f"{width + width % 2}x{height + height % 2}"
        raise InvalidParameterError(f"video needs an even width and height, got {width}x{height}: use {even}")
    return width, height


class VideoWriter:
    """Writes one video file: H.264 (BT.709, limited range, 4:2:0) with AAC; VP9 with Opus for ``.webm``.

    A context manager: the file appears under its name when the block ends well; if anything goes wrong, ``Ctrl-C``
    included, nothing is left. Frame ``i`` is shown from ``i / fps``; the sound starts with frame 0 (the encoder's
    priming samples are cut by the file's edit list). The sound is written whole; for both to end within one frame,
    write ``ceil(seconds * fps)`` frames.

    Args:
        path: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``; replaced if it exists.
        size: (width, height) in pixels, even.
        fps: frames per second; 29.97 and its like mean 30000/1001 (:func:`exact_fps`).
        sound: float [n] or [n, channels] in -1..1, or None for a silent file. More than two channels become one.
        sample_rate: of ``sound``, in Hz; kept where the codec has it (AAC: the usual ones from 7350 to 96000).
        quality: x264's constant rate factor, 0 (lossless) .. 51; 17 looks like the original.
        comment: stored in the file's metadata.

    Raises:
        MissingDependencyError: PyAV is not installed.
        InvalidParameterError: size, fps, sound or a frame that a video cannot have.
        VideoError: the file cannot be written (folder, permission, full disk).

    Example::

        with VideoWriter("talk.mp4", (1920, 1080), 25, sound=pcm, sample_rate=16000) as video:
            for t in range(len(params)):
                video.write(renderer.render(params[t], out=video.frame(), format="nv12"))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        fps: float | Fraction,
        *,
        sound: Float32 | None = None,
        sample_rate: int = 0,
        quality: int = 17,
        comment: str = "",
    ) -> None:
        self.path = check_video_path(path)
        self.size = check_video_size(size)
        self.fps = exact_fps(fps)
        self.frames_written = 0
        if not 0 <= quality <= 51:
            raise InvalidParameterError(f"quality must be 0 (lossless) .. 51, got {quality}")
        self._sound = None if sound is None else _channels_first(sound, sample_rate)
        self._sample_rate = sample_rate
        self._quality = quality
        self._comment = comment
        self._kind = _CONTAINERS[self.path.suffix.lower()]
        self._av = _import_av()
        self._cleanup = ExitStack()
        self._container: Any = None
        self._problem: Exception | None = None
        self._cancelled = False
        self._buffers: list[UInt8] = []
        self._free: queue.SimpleQueue[UInt8] = queue.SimpleQueue()
        self._filled: queue.Queue[UInt8 | None] = queue.Queue(BUFFERS)
        self._thread = threading.Thread(target=self._work, name="being-video", daemon=True)

    def __enter__(self) -> Self:
        try:  # around all of it: Ctrl-C may come at any moment, and from the first line on there is a file to remove
            self._temporary = self._cleanup.enter_context(atomic_write(self.path, VideoError))
            self._open()
            width, height = self.size
            self._buffers = [np.empty((height * 3 // 2, width), np.uint8) for _ in range(BUFFERS)]
            for buffer in self._buffers:
                self._free.put(buffer)
            self._thread.start()
        except BaseException as problem:
            self._fail(problem)
        return self

    def frame(self) -> UInt8:
        """An NV12 frame, uint8 [H * 3 / 2, W], to draw into and give to :meth:`write`. Waits for the encoder."""
        self._raise_problem()
        return self._free.get()

    def write(self, frame: UInt8) -> None:
        """Append a frame: NV12 uint8 [H * 3 / 2, W], best one from :meth:`frame`, or sRGB uint8 [H, W, 3] (copied)."""
        self._raise_problem()
        if not any(frame is buffer for buffer in self._buffers):
            frame = self._copy(frame)
        self._filled.put(frame)
        self.frames_written += 1

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._filled.put(None)
            self._thread.join()
            self._raise_problem()
            self._finish()
            self._cleanup.__exit__(None, None, None)
        except BaseException as late:  # Ctrl-C while the last frames are encoded, or no room for the last bytes
            self._fail(late)

    def _fail(self, problem: BaseException) -> NoReturn:
        self._discard()
        explained = self._explained(problem)
        if explained is problem:
            raise problem
        raise explained from problem

    def _discard(self) -> None:
        """Stop the worker and remove what was written."""
        self._cancelled = True
        if self._thread.is_alive():
            self._filled.put(None)
            self._thread.join()
        if self._container is not None:
            with suppress(Exception):  # the file is about to be removed: what its trailer says no longer matters
                self._container.close()
        discarded = _Discarded()  # not the caller's own exception, which atomic_write might take for its own
        self._cleanup.__exit__(_Discarded, discarded, None)

    # Everything below touches FFmpeg: on the worker's thread between __enter__ and the join in __exit__.

    def _open(self) -> None:
        av, kind = self._av, self._kind
        self._container = av.open(str(self._temporary), "w", format=kind.format, options=kind.options)
        self._container.metadata["comment"] = self._comment
        video = self._container.add_stream(kind.video, rate=self.fps, options=self._video_options())
        video.width, video.height = self.size
        video.pix_fmt = kind.pixel_format
        codec = video.codec_context
        codec.time_base = 1 / self.fps
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = LIMITED_RANGE
        self._video, self._audio, self._samples_written = video, None, 0
        self._frames_encoded = 0
        if self._sound is not None:
            channels, rate = self._sound.shape[0], _supported_rate(av.Codec(kind.audio, "w"), self._sample_rate)
            if rate != self._sample_rate:
                self._sound = _resample(av, self._sound, self._sample_rate, rate)
                self._sample_rate = rate
            self._audio = self._container.add_stream(kind.audio, rate=rate, layout=_layout(self._sound))
            # AAC may spend 6 bits a sample and channel; 96 kbit/s is transparent for a voice.
            self._audio.codec_context.bit_rate = channels * min(96_000, 5 * rate)
            self._audio.codec_context.open()

    def _video_options(self) -> dict[str, str]:
        if self._kind.video == "libx264":
            return {**self._kind.video_options, "crf": str(self._quality)}
        return {**self._kind.video_options, "crf": str(min(63, self._quality * 63 // 51 + 3)), "b": "0"}

    def _work(self) -> None:
        while (frame := self._filled.get()) is not None:
            try:
                if self._problem is None and not self._cancelled:
                    self._encode(frame)
            except Exception as problem:  # told to the caller at its next call
                self._problem = problem
            if any(frame is buffer for buffer in self._buffers):
                self._free.put(frame)

    def _encode(self, frame: UInt8) -> None:
        av = self._av
        if frame.ndim == 3:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(
                format=self._kind.pixel_format, dst_colorspace="ITU709", src_color_range="JPEG", dst_color_range="MPEG"
            )
        else:
            picture = av.VideoFrame.from_ndarray(frame, format="nv12")
            if self._kind.pixel_format != "nv12":
                picture = picture.reformat(format=self._kind.pixel_format)
        picture.pts = self._frames_encoded
        picture.time_base = 1 / self.fps
        self._container.mux(self._video.encode(picture))
        self._frames_encoded += 1
        # Sound keeps step with the picture, so that the muxer never has to hold more than a frame of either.
        self._encode_sound(int(self._frames_encoded / self.fps * self._sample_rate), last=False)

    def _encode_sound(self, until: int, last: bool) -> None:
        """Encode whole packets of sound up to sample ``until``; the incomplete one at the end if ``last``."""
        if self._audio is None or self._sound is None:
            return
        step = self._audio.codec_context.frame_size or 1024
        until = min(until, self._sound.shape[1])
        while self._samples_written + (0 if last else step - 1) < until:
            block = self._sound[:, self._samples_written : self._samples_written + step]
            packet = self._av.AudioFrame.from_ndarray(
                np.ascontiguousarray(block), format="fltp", layout=_layout(self._sound)
            )
            packet.sample_rate = self._sample_rate
            packet.pts = self._samples_written
            packet.time_base = Fraction(1, self._sample_rate)
            self._container.mux(self._audio.encode(packet))
            self._samples_written += block.shape[1]

    def _finish(self) -> None:
        if self._frames_encoded == 0:
            raise InvalidParameterError(f"{self.path} would be empty: write at least one frame")
        self._container.mux(self._video.encode(None))
        if self._audio is not None and self._sound is not None:
            self._encode_sound(self._sound.shape[1], last=True)
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def _copy(self, frame: UInt8) -> UInt8:
        width, height = self.size
        if frame.dtype != np.uint8 or frame.shape not in ((height * 3 // 2, width), (height, width, 3)):
            raise InvalidParameterError(
                f"a frame must be uint8 [{height * 3 // 2}, {width}] (NV12) or [{height}, {width}, 3] (RGB), "
                f"got {frame.dtype} {list(frame.shape)}"
            )
        if frame.ndim == 3:
            return frame.copy()
        buffer = self._free.get()
        buffer[:] = frame
        return buffer

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._explained(self._problem) from self._problem

    def _explained(self, problem: BaseException) -> BaseException:
        """FFmpeg's errors as a VideoError of one line; every other exception as it is."""
        if isinstance(problem, VideoError) or not isinstance(problem, (OSError, self._av.FFmpegError)):
            return problem
        reason = os_error_reason(problem) if isinstance(problem, OSError) else str(problem).splitlines()[0]
        return VideoError(f"cannot write {self.path}: {reason}")


class _Discarded(Exception):
    """Ends atomic_write without a file."""


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError('writing video needs PyAV: pip install "being_rt[cli]"') from error
    return av


def _channels_first(sound: Float32, sample_rate: int) -> Float32:
    """[channels, n] float32 with one or two channels, checked."""
    pcm = np.asarray(sound, np.float32)
    pcm = pcm[:, None] if pcm.ndim == 1 else pcm
    if pcm.ndim != 2 or pcm.shape[0] == 0 or pcm.shape[1] == 0 or not np.isfinite(pcm).all():
        raise InvalidParameterError(f"sound must be finite float32 [n] or [n, channels], got {list(np.shape(sound))}")
    if not 1000 <= sample_rate <= 768_000:
        raise InvalidParameterError(f"sample_rate must be 1000..768000 Hz, got {sample_rate}")
    if pcm.shape[1] > 2:
        pcm = pcm.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(np.clip(pcm, -1, 1).T)


def _layout(sound: Float32) -> str:
    return "mono" if sound.shape[0] == 1 else "stereo"


def _supported_rate(codec: Any, sample_rate: int) -> int:
    """The codec's own rate nearest above ``sample_rate``, so that resampling, where needed, loses nothing."""
    rates = sorted(codec.audio_rates or [sample_rate])
    return int(next((rate for rate in rates if rate >= sample_rate), rates[-1]))


def _resample(av: Any, sound: Float32, source: int, target: int) -> Float32:
    resampler = av.AudioResampler(format="fltp", layout=_layout(sound), rate=target)
    frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=_layout(sound))
    frame.sample_rate = source
    parts = [part.to_ndarray() for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))
