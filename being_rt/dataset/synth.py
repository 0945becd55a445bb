"""A data set whose truth is known: an avatar performs, and a sensor and a tracker with known errors look on.

What a capture cannot tell, this can: how far a trained avatar is from the person it learned, in expressions and from
sides that it has not seen, and how much of that is the fault of the tracking.

Synthesize(avatar="ada", out="ada-teacher", frames=750, size=(512, 512), seed=1).run()
dataset = Dataset.load("ada-teacher")
dataset.truth, truth_cameras(dataset)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.synth_motion import MotionLimits, perform
from being_rt.dataset.synth_picture import PictureErrors, mask_of, noise_deviations, noisy_picture
from being_rt.dataset.synth_tracking import TrackingErrors, tracked_camera, tracked_motion
from being_rt.dataset.writer import DatasetWriter, check_folder_target
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.parallel import in_order
from being_rt.renderer import Layers, Renderer, background_picture

UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]  # frames written, frames in all

LEAST_COVER = 0.001  # of the picture that a resting person must cover to be worth recording


@dataclass(frozen=True)
class SynthResult:
    """What was written and how long it took."""

    path: Path
    frames: int  # of all cameras
    size: tuple[int, int]
    elapsed: float  # seconds of wall clock


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Record an avatar as if it were a person: frames, masks, a track with known errors, and the truth beside them.

    Split "train" is the start of the performance; "test" its end, with expressions and speech that training lacks;
    "views" shows moments of "test" from cameras beside the one that training has.
    """

    out: str | Path
    """The data set to write: a folder that does not exist yet."""
    avatar: str = "ada"
    """An avatar file (.being), or a preset's name (`being avatars` lists them)."""
    frames: int = 750
    """Frames of the training camera: "train" and "test" together."""
    size: str | tuple[int, int] = "512x512"
    """Width and height in pixels."""
    fps: float = 25.0
    """Frames per second."""
    seed: int = 0
    """Chooses the performance, the noise and the errors; the same seed gives the same data set."""
    test_share: float = 0.2
    """Share of the frames, at the end, that is held out."""
    views: tuple[float, ...] = (-40.0, -20.0, 20.0, 40.0)
    """Degrees around the head, positive towards its left, at which cameras beside the first one stand."""
    view_frames: int = 24
    """Held-out moments that each of them shows, evenly spread."""
    limits: MotionLimits = field(default_factory=MotionLimits)
    """How far the head moves."""
    picture: PictureErrors = field(default_factory=PictureErrors)
    """Errors of frames and masks."""
    tracking: TrackingErrors = field(default_factory=TrackingErrors)
    """Errors of the track; the truth is kept beside it."""
    test_noise: bool = False
    """Put the tracker's noise on held-out moments too. Without it a test tells about the avatar alone; biases, which
    the avatar learned to live with, are in all moments."""
    clean: bool = False
    """No errors at all, whatever `picture` and `tracking` say."""
    replace: bool = False
    """Replace a data set of that name."""
    device: str = "auto"
    """What draws: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads that draw; 0: one per core."""

    def run(self, progress: Progress | None = None) -> SynthResult:
        """Do it. ``progress`` is called as ``progress(frames written, frames in all)`` after every frame.

        Raises:
            InvalidParameterError: an option out of range, an unknown avatar, one that its camera does not see.
            DatasetError: the folder is there already, or cannot be written.
            AvatarFileError, DeviceError: as :class:`being_rt.jobs.VideoJob`.
        """
        from being_rt.jobs import chosen_device, open_avatar, parse_size

        size, device = parse_size(self.size), chosen_device(self.device)
        train, test = self._counts()
        check_folder_target(Path(self.out), self.replace)
        avatar = open_avatar(self.avatar)
        start = time.perf_counter()
        picture = PictureErrors.none() if self.clean else self.picture
        tracking = TrackingErrors.none() if self.clean else self.tracking
        renderer = Renderer(avatar, size, device, threads=self.threads or None)
        _check_visible(renderer)
        centre = head_centre(avatar.rig)
        cameras = [orbited(avatar.camera.resized(size), centre, yaw) for yaw in (0.0, *self.views)]
        truth = perform(avatar.rig, train, test, self.fps, self.seed, self.limits)
        noisy = (np.arange(train + test) < train) | self.test_noise
        track = tracked_motion(avatar.rig, truth, cameras[0], tracking, self.seed, noisy)
        shots = self._shots(train, test)
        plate = background_picture(avatar.background, size)
        with DatasetWriter(
            self.out,
            rig=avatar.rig,
            cameras=[tracked_camera(camera, centre, tracking) for camera in cameras],
            fps=self.fps,
            name=avatar.name,
            source=f"rendered from the avatar {avatar.name}",
            licence=avatar.licence,
            consent=avatar.consent,
            metadata=self._metadata(cameras, picture, tracking),
            replace=self.replace,
        ) as writer:
            for index in range(len(cameras)):
                if plate is not None:
                    writer.background(index, plate)
            drawn = _drawn(renderer, truth, cameras, shots, picture, self.seed)
            for done, (shot, (frame, mask)) in enumerate(zip(shots, drawn, strict=True), 1):
                t = shot.timestep
                writer.add(frame, mask, track[t], shot.camera, shot.split, t, truth=truth[t])
                if progress is not None:
                    progress(done, len(shots))
        return SynthResult(Path(self.out), len(shots), size, time.perf_counter() - start)

    def _counts(self) -> tuple[int, int]:
        """Frames of "train" and of "test", after all that can be checked without the avatar."""
        if not 2 <= self.frames <= 1_000_000:
            raise InvalidParameterError(f"frames must be 2 to 1000000, got {self.frames}")
        if not 0 <= self.test_share <= 0.9:
            raise InvalidParameterError(f"test_share must be 0 to 0.9, got {self.test_share}")
        if not all(-180 <= yaw <= 180 for yaw in self.views):
            raise InvalidParameterError(f"views must be angles of -180 to 180 degrees, got {self.views}")
        if self.view_frames < 1:
            raise InvalidParameterError(f"view_frames must be at least 1, got {self.view_frames}")
        if not 0 <= self.threads <= 1024:
            raise InvalidParameterError(f"threads must be 0 (one per core) .. 1024, got {self.threads}")
        test = round(self.frames * self.test_share)
        return self.frames - test, test

    def _shots(self, train: int, test: int) -> list[_Shot]:
        shots = [_Shot(t, 0, "train" if t < train else "test") for t in range(train + test)]
        moments = np.unique(np.linspace(train, train + test - 1, min(self.view_frames, test)).round()).astype(int)
        for camera in range(1, 1 + len(self.views)):
            shots += [_Shot(int(t), camera, "views") for t in moments]
        return shots

    def _metadata(self, cameras: list[Camera], picture: PictureErrors, tracking: TrackingErrors) -> dict[str, str]:
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _HOW}
        settings |= {"limits": asdict(self.limits), "picture": asdict(picture), "tracking": asdict(tracking)}
        exact = [
            {"world_to_camera": camera.world_to_camera.tolist(), "intrinsics": camera.intrinsics.tolist()}
            for camera in cameras
        ]
        return {"synthetic": json.dumps(settings, default=str), "truth_cameras": json.dumps(exact)}


_HOW = ("out", "replace", "device", "threads")  # options that change nothing in the data set


def truth_cameras(dataset: Dataset) -> tuple[Camera, ...]:
    """The cameras that really took a synthetic data set; ``dataset.cameras`` are those that its tracker believes in.

    Raises:
        DatasetError: the data set is not synthetic, or its metadata are damaged.
    """
    try:
        exact = json.loads(dataset.metadata["truth_cameras"])
        return tuple(
            replace(
                camera,
                world_to_camera=np.array(entry["world_to_camera"], np.float32).reshape(4, 4),
                intrinsics=np.array(entry["intrinsics"], np.float32).reshape(3, 3),
            )
            for camera, entry in zip(dataset.cameras, exact, strict=True)
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise DatasetError(f"{dataset.path} has no true cameras; it is not from `being data synth`") from problem


def head_centre(rig: Rig) -> NDArray[np.float64]:
    """The middle of the resting head's bounding box, metres: what cameras go around."""
    head = rig.template[rig.skinning_weights[:, 1:].sum(1) > 0.5].astype(np.float64)
    return (head.min(0) + head.max(0)) / 2


def orbited(camera: Camera, centre: NDArray[np.float64], yaw: float) -> Camera:
    """The camera moved around the vertical axis through ``centre`` by ``yaw`` degrees, positive towards +X."""
    angle = np.radians(yaw)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    return replace(camera, world_to_camera=(camera.world_to_camera.astype(np.float64) @ turn).astype(np.float32))


@dataclass(frozen=True)
class _Shot:
    timestep: int
    camera: int
    split: str


def _drawn(
    renderer: Renderer,
    truth: FlameParams,
    cameras: list[Camera],
    shots: list[_Shot],
    errors: PictureErrors,
    seed: int,
) -> Iterator[tuple[UInt8, UInt8]]:
    """Frame and mask of every shot, in order."""
    deviations = noise_deviations(errors)

    def recorded(drawn: tuple[_Shot, Layers]) -> tuple[UInt8, UInt8]:
        shot, layers = drawn
        # A generator per frame: what is drawn before does not matter.
        random = np.random.default_rng([seed, 4, shot.timestep, shot.camera])
        return noisy_picture(layers.picture, deviations, random), mask_of(layers.alpha, errors)

    # This thread draws, for a renderer draws one frame at a time.
    drawn = ((shot, renderer.render_layers(truth[shot.timestep], cameras[shot.camera])) for shot in shots)
    return in_order(recorded, drawn)


def _check_visible(renderer: Renderer) -> None:
    cover = float(renderer.render_layers(FlameParams.neutral()).alpha.mean())
    if cover < LEAST_COVER:
        raise InvalidParameterError(
            f"the avatar {renderer.avatar.name} at rest covers {cover:.1%} of its camera's picture: "
            "it is out of sight, and cannot be recorded"
        )
