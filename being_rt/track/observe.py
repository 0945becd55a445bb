"""A video, looked at: landmarks, how many faces, how sharp, and which pixels are the person, frame by frame.

Three things go on at once: the next frames are decoded, one frame is segmented, and one is searched for landmarks.
Landmarks are not smoothed; what is noise and what is motion is for the fit to decide, which knows all frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError, TrackError
from being_rt.parallel import ahead
from being_rt.track.faces import FaceTracks, Track
from being_rt.track.observations import LANDMARKS, Observations
from being_rt.track.segmentation import PersonSegmentation
from being_rt.track.source import VideoSource

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # frames done, frames in all

AHEAD = 4  # frames that are decoded in advance

SMALL_FACE = 160  # pixels across; below, a network sees less than it could
PROFILE = 50.0  # degrees to the side from which landmarks of the far half are guessed
BLURRED = 0.3  # of a clip's median sharpness


def observe(
    path: str | os.PathLike[str],
    *,
    size_limit: int | None = None,
    progress: Progress | None = None,
    threads: int = 2,
    mask: bool = True,
) -> Observations:
    """What the networks say of a video file.

    Args:
        path: the video.
        size_limit: shrink frames to this many pixels on their longer side before they are looked at, which is faster
            for 4K. Coordinates are those of the full size all the same.
        progress: called as ``progress(frames done, frames in all)``.
        threads: 1 does one thing after the other; 2 or more decode and segment beside the search for landmarks.
        mask: segment the person as well.

    Raises:
        TrackError: the file is no usable video, nobody is in it, or a network cannot be had.
        MissingDependencyError: LiteRT or PyAV is not installed.

    Example::

        observations = observe("selfie.mp4")
        print(observations.found.mean(), *observations.warnings)
    """
    source = VideoSource(path, size_limit=size_limit, threads=threads)
    frames = (frame for _, _, frame in source)
    info = source.info
    try:
        seen = observe_frames(
            frames, info.fps, info.size, count=info.frames, progress=progress, threads=threads, mask=mask
        )
    except NobodyError as problem:
        raise TrackError(f"{source.path} shows no face: {problem}") from problem
    scale = np.float32(info.full_size[0] / info.size[0])
    return Observations(
        size=info.full_size,
        fps=seen.fps,
        landmarks=seen.landmarks * scale,
        presence=seen.presence,
        faces=seen.faces,
        sharpness=seen.sharpness,
        masks=seen.masks,
        warnings=(*source.warnings, *seen.warnings),
    )


class NobodyError(TrackError):
    """No face was found in any frame."""


def observe_frames(
    frames: Iterable[UInt8],
    fps: float,
    size: tuple[int, int],
    *,
    count: int = 0,
    progress: Progress | None = None,
    threads: int = 2,
    mask: bool = True,
) -> Observations:
    """What the networks say of frames uint8 [H, W, 3] of one size (width, height) at a constant rate.

    ``count`` is how many there will be, for ``progress`` alone. Everything else as :func:`observe`.

    Raises:
        NobodyError: no face was found in any frame.
        InvalidParameterError: there are no frames, or they differ in size.
    """
    tracks = FaceTracks()
    segment = PersonSegmentation(size) if mask else None
    masks: list[Any] = []  # of each frame, or the promise of one
    length = 0
    with ThreadPoolExecutor(1) as worker, ahead(frames, AHEAD if threads > 1 else 0) as pictures:
        for index, picture in enumerate(pictures):
            if picture.dtype != np.uint8 or picture.shape != (size[1], size[0], 3):
                raise InvalidParameterError(
                    f"frame {index} should be uint8 [{size[1]}, {size[0]}, 3], "
                    f"it is {picture.dtype} {list(picture.shape)}"
                )
            if segment is not None:
                if len(masks) >= AHEAD:
                    _result(masks[-AHEAD])  # the worker must not fall behind, for frames wait in memory
                masks.append(worker.submit(segment, picture) if threads > 1 else segment(picture))
            tracks.add(index, picture)
            length = index + 1
            if progress is not None:
                progress(length, max(count, length))
        coarse = np.zeros((length, *(segment.shape if segment else (0, 0))), np.uint8)
        for index in range(len(masks)):
            coarse[index], masks[index] = _result(masks[index]), None  # never all of them twice in memory
    if not length:
        raise InvalidParameterError("there are no frames to look at")
    person = tracks.main()
    if person is None:
        raise NobodyError(
            f"a person was looked for in {length} frames; film the head and shoulders from the front, in good light"
        )
    return _collected(person, tracks, coarse, fps, size)


def _collected(person: Track, tracks: FaceTracks, masks: UInt8, fps: float, size: tuple[int, int]) -> Observations:
    length = len(masks)
    landmarks = np.full((length, LANDMARKS, 3), np.nan, np.float32)
    presence = np.zeros(length, np.float32)
    sharpness = np.full(length, np.nan, np.float32)
    faces = np.full(length, -1, np.int32)
    for index, value in person.landmarks.items():
        landmarks[index], presence[index], sharpness[index] = value, person.presence[index], person.sharpness[index]
    for index, number in tracks.counts.items():
        faces[index] = number
    return Observations(
        size=size,
        fps=fps,
        landmarks=landmarks,
        presence=presence,
        faces=faces,
        sharpness=sharpness,
        masks=masks,
        warnings=remarks(landmarks, sharpness, faces, size, fps),
    )


def remarks(
    landmarks: Float32, sharpness: Float32, faces: NDArray[np.int32], size: tuple[int, int], fps: float
) -> tuple[str, ...]:
    """What the one who filmed should know, in plain words; what each array is, :class:`Observations` says."""
    said = []
    found = np.isfinite(landmarks[:, 0, 0])
    if not found.all():
        lost = ~found
        longest = max(len(run) for run in "".join("x" if one else " " for one in lost).split())
        said.append(
            f"the face is not seen in {lost.sum()} of {len(found)} frames, for up to {longest / fps:.1f} s: "
            "keep it in the picture and uncovered"
        )
    counted = faces[faces >= 0]
    if (crowd := counted > 1).any():
        said.append(
            f"{counted.max()} faces are in the picture at times ({crowd.mean():.0%} of the looks): "
            "the largest and most central is tracked"
        )
    seen = landmarks[found]
    width = np.median(np.ptp(seen[:, :468, 0], axis=1))
    if width < SMALL_FACE:
        said.append(f"the face is {width:.0f} pixels wide: come closer, or film at a higher resolution")
    turned = np.abs(yaw(seen)) > PROFILE
    if turned.any():
        said.append(
            f"the head is turned by more than {PROFILE:.0f} degrees in {turned.sum()} frames: "
            "landmarks of the far half are a guess there"
        )
    sharp = sharpness[found]
    blurred = sharp < BLURRED * np.median(sharp)
    if blurred.mean() > 0.02:
        said.append(f"blurred frames: {blurred.sum()} of {len(sharp)}; more light, or slower motion, helps")
    edges = np.array(size, np.float32)
    cut = ((seen[:, :468, :2] < 0) | (seen[:, :468, :2] > edges)).any(axis=(1, 2))
    if cut.mean() > 0.02:
        said.append(f"the face is cut off by the edge of the picture in {cut.sum()} frames")
    return tuple(said)


def yaw(landmarks: Float32) -> Float32:
    """[T] degrees by which heads [T, 478, 3] are turned to their left (positive) or right, about: from the depths of
    the temples."""
    across = landmarks[:, 454] - landmarks[:, 234]
    return np.degrees(np.arctan2(across[:, 2], np.hypot(across[:, 0], across[:, 1])))


def _result(one: Any) -> UInt8:
    result: UInt8 = one.result() if isinstance(one, Future) else one
    return result
