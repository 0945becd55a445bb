"""A track of landmarks refined by the pictures themselves: what a small avatar of the person shows, frame by frame.

Landmarks say where lids and lips are to some tenths of a pixel, and nothing of cheeks or collars. Pixels say more once
it is known what the person looks like. So a small rigid avatar is trained on the training frames. Then it is held fixed
while every frame's pose, jaw, gaze, lids and leading expressions move until it looks like the frame: Gauss and Newton's
method on two views of each frame and on its landmarks, all frames in one banded system, with the landmark track and
smooth motion as what is believed beforehand. GaussianAvatars (Qian et al., CVPR 2024) refines tracks while it trains,
by gradient descent; second order, and an appearance that is held, are what is different here.

Held-out frames are refined as all others are. Their pixels then have a say in their own motion, and in nothing else:
the appearance never sees them.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.errors import InvalidParameterError, MissingDependencyError
from being_rt.flame.joints import with_global_joint
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.track.photometric_gate import Landmarks, blended, head_and_body_jitter, landmark_error

if TYPE_CHECKING:
    from being_rt.dataset.reduced import ReducedDataset
    from being_rt.track.photometric_views import Renderable
    from being_rt.track.shoulders import Shoulders

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

Refine = Literal["auto", "on", "off"]
# Metres from the model's global joint to that of who is seen with shoulders. Necks of people who look into a camera
# rise forwards, so that a lean lifts the head or lowers it: by what head and shoulders move against each other up and
# down, which an upright neck forbids.
BASE = (0.0, 0.0, -0.05)
SHOULDERS_SHARE, TRAINING_SHARE = 0.03, 0.4  # of the work that is done by then, for who watches it


@dataclass(frozen=True)
class PhotometricConfig:
    """Settings of :func:`refine`. Pixels are those of the reduced frames, unless said otherwise."""

    gaussians: int = 5_000
    """Of the head; hair has a quarter as many on top, the mouth a sixth, the torso half."""
    steps: int = 800
    """Of training the appearance, two frames each."""
    frames: int = 1_000
    """Training frames that the appearance learns from, at most, evenly spread."""
    face: int = 160
    """Longer side of the face's box: frames are reduced until it is about that."""
    expressions: int = 20
    """Coefficients that are refined: those that move this face most in this clip."""
    iterations: int = 1
    """Of Gauss and Newton's method; each draws every frame some fifty times, and the first does most of it."""
    area: float = 100.0
    """Pixels whose differences count as one: neighbours err together."""
    outlier: float = 3.0
    """Difference, in deviations, at which a pixel counts a quarter (Geman and McClure's function)."""
    busy: float = 4.0
    """Weight of pixels around mouth and eyes."""
    landmarks: float = 0.1
    """Share of the landmarks that count as independent: neighbours err together."""
    openings: float = 1.0
    """The same of the openings of lids and lips, which a small avatar that has seen two blinks does not know better."""
    growth: float = 1.0
    """Pixels of the full frame by which a frame's landmarks may get worse; more, and its refinement is refused."""
    ramp: int = 4
    """Frames over which refinement sets in beside refused ones."""
    segment: int = 512
    """Frames that are in memory at once."""
    seed: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value: Any = getattr(self, item.name)
            least = 0 if item.name in ("seed", "ramp", "expressions", "growth") else 1e-9
            if not value >= least:
                raise InvalidParameterError(f"PhotometricConfig.{item.name} must be above 0, got {value}")
        if self.expressions > 100:
            raise InvalidParameterError(f"PhotometricConfig.expressions must be at most 100, got {self.expressions}")


@dataclass(frozen=True)
class Refined:
    """A motion of T timesteps, refined, and how good it was and is. Errors are NaN where nothing was compared."""

    params: FlameParams  # [T]
    accepted: Bool  # [T] where the pictures agree more, and the landmarks no less
    held_out: Bool  # [T] not shown to the appearance
    psnr: Float32  # [2, T] dB of the person in the reduced frames, before and after
    face_psnr: Float32  # [2, T] likewise of the face's window
    landmarks: Float32  # [2, T] px, root mean square, before and after; NaN where none are known
    head_jitter: tuple[float, float]  # px of the full frame, root mean square beyond smooth motion, before and after
    body_jitter: tuple[float, float]
    shoulders: tuple[float, float] = (math.nan, math.nan)  # px by which the body lies off, median, before and after
    global_joint: Float32 | None = None  # [3] metres at rest; None: where the given rig has it

    def rig(self, given: Rig) -> Rig:
        """The rig that the motion is of: the given one with the global joint of this person's."""
        if self.global_joint is None:
            return given
        return with_global_joint(given, FlameParams.neutral(1), self.global_joint)[0]

    @property
    def share(self) -> float:
        """Share of the timesteps whose refinement was accepted."""
        return float(self.accepted.mean())

    def held_out_psnr(self) -> tuple[float, float]:
        """Of the face in held-out frames, or in all where there are none, dB, before and after."""
        chosen = self.held_out if self.held_out.any() else np.ones(len(self.held_out), bool)
        before, after = (_mean(row[chosen]) for row in self.face_psnr)
        return before, after

    def landmark_error(self) -> tuple[float, float]:
        """Median over time, px of the full frame, before and after; NaN where none are known."""
        before, after = (float(np.nanmedian(row)) if np.isfinite(row).any() else np.nan for row in self.landmarks)
        return before, after

    def figures(self) -> dict[str, str]:
        """What to tell of it, by name; all names begin with "refined"."""
        chosen = "held-out frames" if self.held_out.any() else "all frames"
        told = {
            "refined by pictures": f"{100 * self.share:.1f} % of the frames",
            "refined, the face in a small avatar": "{:.2f} dB, before {:.2f}, ".format(*self.held_out_psnr()[::-1])
            + chosen,
            "refined, head jitter": "{:.2f} px, before {:.2f}".format(*self.head_jitter[::-1]),
            "refined, body jitter": "{:.2f} px, before {:.2f}".format(*self.body_jitter[::-1]),
        }
        if np.isfinite(self.landmarks).any():
            told["refined, landmarks"] = "off by {:.2f} px, before {:.2f}".format(*self.landmark_error()[::-1])
        if np.isfinite(self.shoulders).all():
            told["refined, shoulders"] = "off by {:.2f} px, before {:.2f}".format(*self.shoulders[::-1])
        if self.global_joint is not None:
            told["refined, base of the neck"] = f"{100 * np.linalg.norm(BASE):.0f} cm behind the model's"
        return told


def can_refine() -> bool:
    """Whether what refinement needs is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "scipy"))


def is_wanted(refine: Refine) -> bool:
    """Whether to refine, given the option's value and what is installed.

    Raises:
        MissingDependencyError: "on", and PyTorch or SciPy is missing.
        InvalidParameterError: another word.
    """
    if refine not in ("auto", "on", "off"):
        raise InvalidParameterError(f"refine must be auto, on or off, got {refine!r}")
    if refine == "on" and not can_refine():
        raise MissingDependencyError(
            "refining a track by pictures needs PyTorch and SciPy: pip install 'being_rt[track,train]', or --refine off"
        )
    return refine != "off" and can_refine()


def refine(
    dataset: Dataset,
    landmarks: Landmarks | None = None,
    config: PhotometricConfig | None = None,
    *,
    work: str | os.PathLike[str],
    device: str = "auto",
    progress: Callable[[float], None] | None = None,
) -> Refined:
    """Refine the track of a data set's first camera by its pictures.

    Args:
        dataset: with a split "train"; its frames, masks and background are read.
        landmarks: what was seen of them, for the gate; None: pictures alone decide.
        config: how.
        work: a folder for the appearance's training, which goes on from there after an interruption.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: hears the share of the work that is done, 0 to 1.

    Raises:
        MissingDependencyError: without PyTorch.
        DatasetError, InvalidParameterError, TrainingError: as :func:`being_rt.train.trainer.train`.

    Example::

        refined = refine(Dataset.load("me"), work="me.appearance")
        print(*refined.figures().items(), sep="\\n")
    """
    is_wanted("on")
    from being_rt.dataset.reduced import ReducedDataset, face_reduction
    from being_rt.track.photometric_appearance import appearance
    from being_rt.track.photometric_settle import settle
    from being_rt.track.photometric_shoulders import body_off
    from being_rt.track.shoulders import shoulders
    from being_rt.train.distributed import chosen_device

    config = config or PhotometricConfig()
    tell = progress or (lambda share: None)
    where = str(chosen_device(device))
    found = None
    if landmarks is not None and not dataset.params.neck.any():  # else it knows of shoulders already
        found = shoulders(dataset, lambda share: tell(SHOULDERS_SHARE * share))
    rig, given = dataset.rig, dataset.params
    if found is not None:
        rig, given = with_global_joint(rig, given, rig.joint_rest[0] + BASE)
    settled = settle(given, rig, dataset.cameras[0], landmarks, config, where, found)
    small = ReducedDataset.of(replace(dataset, rig=rig, params=settled), face_reduction(dataset, config.face))

    def part(begin: float, end: float) -> Callable[[float], None]:
        return lambda share: tell(begin + (end - begin) * share)

    model = appearance(small, config, Path(work), where, part(SHOULDERS_SHARE, TRAINING_SHARE))
    refined = refine_with(model, small, landmarks, config, where, part(TRAINING_SHARE, 1), found)
    # What is told of the track before is of the track that was given.
    camera = dataset.cameras[0]
    head, body = head_and_body_jitter(dataset.params, dataset.rig, camera)
    errors = refined.landmarks.copy()
    if landmarks is not None:
        errors[0] = landmark_error(landmarks, dataset.rig, dataset.params, camera)
    refined = replace(
        refined,
        landmarks=errors,
        head_jitter=(head, refined.head_jitter[1]),
        body_jitter=(body, refined.body_jitter[1]),
    )
    if found is None:
        return refined
    off = (body_off(found, rig, camera, motion) for motion in (dataset.params, refined.params))
    before, after = (float(np.median(np.linalg.norm(each, axis=1))) for each in off)
    return replace(refined, shoulders=(before, after), global_joint=rig.joint_rest[0])


def refine_with(
    model: Renderable,
    small: ReducedDataset,
    landmarks: Landmarks | None,
    config: PhotometricConfig,
    device: str,
    progress: Callable[[float], None],
    shoulders: Shoulders | None = None,
) -> Refined:
    """The second half of :func:`refine`: with an appearance of the person in a reduced data set.

    Args:
        model: draws frames; :class:`being_rt.train.model.AvatarModel` does.
        small: the frames, reduced, with a settled track.
        shoulders: where they were found in the full frames.
    """
    from being_rt.track.photometric_search import search

    camera, rig, given = small.cameras[0], small.rig, small.params
    found = search(model, small, given, landmarks, config, device, progress, shoulders)
    errors = np.full((2, len(given)), np.nan)
    candidate = errors[0]
    full = (small.original or small).cameras[0]
    if landmarks is not None:
        errors[0] = landmark_error(landmarks, rig, given, full)
        candidate = landmark_error(landmarks, rig, found.params, full)
    with np.errstate(invalid="ignore"):
        worse = candidate > errors[0] + config.growth
    accepted = found.compared & (found.cost[1] < found.cost[0]) & ~worse
    params = blended(given, found.params, accepted, config.ramp)
    if landmarks is not None:
        errors[1] = landmark_error(landmarks, rig, params, full)
    final = found.compare(params)
    shown = np.zeros(len(given), bool)
    shown[small.timestep[small.split("train")]] = True
    scale = float(small.reduction)
    heads, bodies = zip(*(head_and_body_jitter(motion, rig, camera) for motion in (given, params)), strict=True)
    return Refined(
        params=params,
        accepted=accepted,
        held_out=found.compared & ~shown,
        psnr=np.stack([found.psnr[0], final.psnr]).astype(np.float32),
        face_psnr=np.stack([found.face_psnr[0], final.face_psnr]).astype(np.float32),
        landmarks=errors.astype(np.float32),
        head_jitter=(scale * heads[0], scale * heads[1]),
        body_jitter=(scale * bodies[0], scale * bodies[1]),
    )


def _mean(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
