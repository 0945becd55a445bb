"""Frames of a video file: upright, 8-bit sRGB, at a constant rate, whatever the camera made of it.

PyAV (FFmpeg) decodes. Rotation and mirroring that the file asks for are applied, pixels that are not square are made
so, clips of variable rate are resampled, HDR is tone-mapped (:mod:`being_rt.track.hdr`), and damage is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import MissingDependencyError, TrackError
from being_rt.files import first_line, read_error_reason
from being_rt.track.hdr import TRANSFERS, to_srgb

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]
T = TypeVar("T")

SHORTEST = 1.0  # seconds
SMALLEST, LARGEST = 64, 16384  # pixels a side
LEAST_RATE, LARGEST_RATE = 5.0, 240.0
DEFAULT_RATE = 25.0  # of streams that do not say
_UNIT = 1 << 16  # one, in the numbers of a display matrix


@dataclass(frozen=True)
class VideoInfo:
    """What a video is."""

    size: tuple[int, int]  # width, height, upright, as frames are given
    full_size: tuple[int, int]  # without a limit of the size
    fps: float  # the constant rate that frames are given at
    frames: int  # at that rate; a damaged file may have fewer
    duration: float  # seconds
    rotation: int  # degrees clockwise by which the stored picture is turned: 0, 90, 180 or 270
    is_mirrored: bool  # the file asks for the stored picture to be mirrored
    is_variable: bool  # frames came at uneven times
    is_hdr: bool  # PQ or HLG
    bit_depth: int
    codec: str


class VideoSource:
    """The frames of a video file; each iteration reads it anew.

    Iterating gives ``(index, time, frame)``: frame number, seconds from the first frame, and uint8 [H, W, 3], sRGB.

    Args:
        path: whatever FFmpeg reads.
        size_limit: frames whose longer side has more pixels are shrunk to it.
        threads: of the decoder.

    Raises:
        TrackError: the file is missing, is no video, has no picture, or is too short; also in iterating, where nothing
            can be decoded.
        MissingDependencyError: PyAV is not installed.

    Example::

        source = VideoSource("selfie.mp4")
        print(source.info.size, source.info.fps)
        for index, time, frame in source:
            ...
        print(source.warnings)  # what was wrong with the file and what was done about it
    """

    def __init__(self, path: str | os.PathLike[str], *, size_limit: int | None = None, threads: int = 2) -> None:
        self.path = Path(path)
        self.warnings: tuple[str, ...] = ()
        self._av = _import_av()
        self._threads = max(int(threads), 1)
        self._limit = size_limit
        with self._opened() as container:
            stream = self._stream(container)
            self.info, self._orientation, self._stored, self._transfer = self._examine(container, stream)
        self._remark()

    def __len__(self) -> int:
        return self.info.frames

    def __iter__(self) -> Iterator[tuple[int, float, UInt8]]:
        count = 0
        with self._opened() as container:
            for index, picture in at_constant_rate(self._decoded(container), self.info.fps, self.info.frames):
                count = index + 1
                yield index, index / self.info.fps, self._converted(picture)
        if count < SHORTEST * self.info.fps:
            raise TrackError(f"{self.path} is damaged: only {count} frames can be read")
        if count < self.info.frames:
            self._warn(
                f"the file is damaged or incomplete: of {self.info.frames} frames, the last "
                f"{self.info.frames - count} cannot be read and are left out"
            )

    def sample(self, count: int) -> list[tuple[float, UInt8]]:
        """Up to ``count`` frames from all over the video, with their times: key frames, so that it takes little time.

        Short videos with few key frames give fewer. Frames that cannot be read are left out.
        """
        found: dict[float, UInt8] = {}
        with self._opened() as container:
            stream = self._stream(container)
            for number in range(count):
                wanted = self.info.duration * number / max(count, 1)
                try:
                    container.seek(int((stream.start_time or 0) + wanted / stream.time_base), stream=stream)
                    picture = next(container.decode(stream))
                except (self._av.FFmpegError, OSError, StopIteration):
                    continue
                time = float(picture.time or 0)
                if time not in found:
                    found[time] = self._converted(picture)
        return sorted(found.items(), key=lambda item: item[0])

    # ------------------------------------------------------------------ reading

    def _opened(self) -> Any:
        if self.path.is_dir():
            raise TrackError(f"cannot read {self.path}: it is a folder")
        try:
            return self._av.open(str(self.path))
        except (self._av.FFmpegError, OSError, ValueError) as problem:
            if isinstance(problem, (FileNotFoundError, PermissionError)):
                raise TrackError(f"cannot read {self.path}: {read_error_reason(problem)}") from problem
            raise TrackError(
                f"{self.path} is no video, or is cut off before its index: {_reason(problem)}; export it again"
            ) from problem

    def _stream(self, container: Any) -> Any:
        streams = [one for one in container.streams.video if not _is_cover(one)]
        if not streams:
            holds = "sound but no picture" if container.streams.audio else "no picture"
            raise TrackError(f"{self.path} has {holds}; a video of a person is needed")
        stream = streams[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = self._threads
        return stream

    def _examine(self, container: Any, stream: Any) -> tuple[VideoInfo, Orientation, tuple[int, int], str | None]:
        first = next(self._pictures(container, stream), None)
        if first is None:
            raise TrackError(f"{self.path} is damaged: no frame of it can be decoded")
        orientation = Orientation.of(_display_matrix(first))
        aspect = stream.sample_aspect_ratio or 1  # of a pixel
        stored = first.width, first.height
        if not (min(stored) >= SMALLEST and max(stored) <= LARGEST and 0.1 < aspect < 10):
            raise TrackError(f"{self.path} has {stored[0]}x{stored[1]} pixels, outside {SMALLEST}..{LARGEST} a side")
        width, height = stored[0] * max(float(aspect), 1.0), stored[1] / min(float(aspect), 1.0)
        full = round(width), round(height)
        shrink = min((self._limit or LARGEST) / max(full), 1.0)
        stored = max(round(width * shrink), 2), max(round(height * shrink), 2)
        times = self._packet_times(container, stream)
        fps, frames, variable = rate_of(times) if len(times) > 1 else (_stated_rate(stream), stream.frames, False)
        duration = frames / fps
        if duration < SHORTEST:
            raise TrackError(f"{self.path} lasts {duration:.2g} s: at least {SHORTEST:.0f} s of video is needed")
        if not LEAST_RATE <= fps <= LARGEST_RATE:
            raise TrackError(f"{self.path} has {fps:.3g} frames per second, outside {LEAST_RATE:g}..{LARGEST_RATE:g}")
        told = (getattr(holder, "color_trc", 0) for holder in (first, stream.codec_context))  # by later PyAVs both
        transfer = next((TRANSFERS[int(code)] for code in told if code and int(code) in TRANSFERS), None)
        info = VideoInfo(
            size=orientation.size(stored),
            full_size=orientation.size(full),
            fps=fps,
            frames=frames,
            duration=duration,
            rotation=orientation.rotation,
            is_mirrored=orientation.is_mirrored,
            is_variable=variable,
            is_hdr=transfer is not None,
            bit_depth=max(component.bits for component in first.format.components),
            codec=str(stream.codec_context.name),
        )
        return info, orientation, stored, transfer

    def _packet_times(self, container: Any, stream: Any) -> Float64:
        """When each frame is shown, in seconds, in order; without decoding."""
        times: list[float] = []
        try:
            container.seek(stream.start_time or 0, stream=stream)
            for packet in container.demux(stream):
                shown = packet.pts if packet.pts is not None else packet.dts
                if packet.size and shown is not None and not packet.is_discard:
                    times.append(float(shown * stream.time_base))
        except (self._av.FFmpegError, OSError):
            pass  # what comes after the damage does not count
        return np.unique(np.array(times, np.float64))

    def _pictures(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decoded pictures; what cannot be decoded is passed over."""
        broken = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                pictures = packet.decode()
            except StopIteration:
                break
            except (self._av.FFmpegError, OSError):
                broken += 1
                if broken > 1000:
                    break
                continue
            yield from pictures
        if broken:
            self._warn("parts of the file are damaged: the frame before stands in for those that cannot be read")

    def _decoded(self, container: Any) -> Iterator[tuple[float, Any]]:
        """Times from the first picture's on, and pictures."""
        start = None
        for number, picture in enumerate(self._pictures(container, self._stream(container))):
            time = float(picture.time) if picture.time is not None else number / self.info.fps
            start = time if start is None else start
            yield time - start, picture

    def _converted(self, picture: Any) -> UInt8:
        width, height = self._stored
        hdr = self._transfer is not None
        options = {"width": width, "height": height, "format": "rgb48le" if hdr else "rgb24"}
        if (picture.width, picture.height) != self._stored:
            options["interpolation"] = "AREA" if picture.width > width else "BICUBIC"
        try:
            # One thread: FFmpeg would start a pool for each frame, which takes longer than the work.
            frame = picture.to_ndarray(**options, threads=1)
        except TypeError:  # an earlier PyAV, which has no such choice
            frame = picture.to_ndarray(**options)
        return self._orientation.upright(to_srgb(frame, self._transfer) if self._transfer else frame)

    # ------------------------------------------------------------------ what is worth saying

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings = (*self.warnings, text)

    def _remark(self) -> None:
        info = self.info
        if info.is_hdr:
            self._warn("the video is HDR: it is tone-mapped to sRGB; record without HDR for truer colours")
        if info.is_variable:
            self._warn(
                f"frames come at uneven times: resampled to {info.fps:.5g} per second, some appear twice or never"
            )
        if info.fps < 20:
            self._warn(f"{info.fps:.3g} frames per second are few for lips and blinks: record at 25 or more")


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes upright: rows and columns exchanged first, then flipped."""

    transposed: bool = False
    flipped_x: bool = False
    flipped_y: bool = False

    @classmethod
    def of(cls, matrix: NDArray[np.int32] | None) -> Orientation:
        """From a display matrix (ISO/IEC 14496-12, 8.2.2.3), to the nearest quarter turn."""
        if matrix is None:
            return cls()
        (a, b, _), (c, d, _), _ = matrix.reshape(3, 3).astype(np.float64) / _UNIT
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, bool(a < 0), bool(d < 0))
        return cls(True, bool(c < 0), bool(b < 0))

    @property
    def is_mirrored(self) -> bool:
        return self.transposed ^ self.flipped_x ^ self.flipped_y

    @property
    def rotation(self) -> int:
        """Degrees clockwise, apart from mirroring (left and right exchanged after it)."""
        flipped_x = self.flipped_x ^ self.is_mirrored
        if self.transposed:
            return 90 if flipped_x else 270
        return 180 if flipped_x else 0

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (stored[1], stored[0]) if self.transposed else stored

    def upright(self, picture: UInt8) -> UInt8:
        """[H, W, 3] -> [H, W, 3] or [W, H, 3]."""
        if self == Orientation():
            return picture
        pixels = np.ascontiguousarray(picture).view("V3")[..., 0]  # moved as wholes, in half the time
        turned = pixels.T if self.transposed else pixels
        upright = np.ascontiguousarray(turned[:: -1 if self.flipped_y else 1, :: -1 if self.flipped_x else 1])
        return upright.view(np.uint8).reshape(*upright.shape, 3)


def rate_of(times: Float64) -> tuple[float, int, bool]:
    """Frames per second, their number at that rate, and whether they come unevenly, of times [n] in seconds, n > 1.

    Even means that each frame is where a constant rate has it, to within three quarters of a frame.
    """
    span = float(times[-1] - times[0])
    mean = (len(times) - 1) / span
    slots = (times - times[0]) * mean
    if np.abs(slots - np.arange(len(times))).max() < 0.75:
        return _tidy(mean), len(times), False
    steps = np.diff(times)
    usual = np.abs(steps / np.median(steps) - 1) < 0.25  # their mean is finer than a container's milliseconds
    fps = _tidy(1 / float(steps[usual].mean()))
    return fps, round(span * fps) + 1, True


def at_constant_rate(pictures: Iterable[tuple[float, T]], fps: float, count: int) -> Iterator[tuple[int, T]]:
    """(number, picture) for each of ``count`` even times, the picture nearest in time; ends with the pictures.

    Args:
        pictures: (seconds from the first on, picture), in order.
    """
    index = 0
    previous: tuple[float, T] | None = None
    for time, picture in pictures:
        if previous is not None:
            while index < count and index / fps <= (previous[0] + time) / 2:
                yield index, previous[1]
                index += 1
        previous = time, picture
    while previous is not None and index < count and index / fps < previous[0] + 0.5 / fps:
        yield index, previous[1]
        index += 1


def _tidy(fps: float) -> float:
    """The rate that is meant by one that was measured: a whole number or NTSC's 1000/1001 of one, where near."""
    candidates = (float(round(fps)), round(fps * 1.001) * 1000 / 1001)
    nearest = min(candidates, key=lambda rate: abs(rate - fps))
    return nearest if abs(nearest - fps) < 0.003 * fps else fps


def _stated_rate(stream: Any) -> float:
    return float(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def _display_matrix(picture: Any) -> NDArray[np.int32] | None:
    for side in picture.side_data:
        if "DISPLAYMATRIX" in str(getattr(side, "type", "")).upper():
            return np.frombuffer(bytes(side), "<i4", 9)
    return None


def _is_cover(stream: Any) -> bool:
    """A still that belongs to a sound file."""
    return "attached_pic" in str(getattr(stream, "disposition", "")).lower()


def _reason(problem: BaseException) -> str:
    return first_line(getattr(problem, "strerror", None) or problem)


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError('reading video needs PyAV: pip install "being_rt[track]"') from error
    return av
