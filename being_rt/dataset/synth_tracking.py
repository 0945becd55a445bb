"""Errors of a face tracker, put on a known motion: what training on real captures has to live with, in known amounts.

Every error is either constant over the sequence (bias: the tracker's idea of this face is a little off) or a stationary
first-order process in time (noise: what a frame's fit leaves), ``x_t = r x_{t-1} + sqrt(1 - r^2) e_t`` with
``r = exp(-1 / (fps correlation))`` (Uhlenbeck and Ornstein, Physical Review 36, 1930).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import axis_angles, matrices, quaternions

Float64 = NDArray[np.float64]

MOVING = 0.1  # of the farthest movement: vertices beyond it are the face, over which errors of expression are measured


@dataclass(frozen=True)
class TrackingErrors:
    """Sizes of the errors: standard deviations, or the bias itself. Defaults: a good monocular track."""

    expression_noise: float = 0.25
    """Millimetres, root mean square over the face's vertices, from noise in the expression coefficients."""
    expression_bias: float = 0.3
    """Millimetres, the same for all frames."""
    jaw_noise: float = 0.5
    """Degrees of opening."""
    jaw_bias: float = 0.5
    """Degrees of opening, the same for all frames, either way."""
    rotation_noise: float = 0.15
    """Degrees about each axis of the head."""
    translation_noise: float = 0.25
    """Millimetres, sideways and up."""
    depth_noise: float = 2.0
    """Millimetres along the camera's axis, which one camera sees least."""
    gaze_noise: float = 1.5
    """Degrees about the first two axes of each eye."""
    eyelid_noise: float = 0.05
    """Of a full closure: eyelids come from a few landmarks."""
    eyelid_gain: float = 0.9
    """Share of a closure that is found; blinks are short and landmarks lag."""
    focal_error: float = 0.02
    """Share by which the track's focal lengths are too long; its cameras stand that much farther from the head."""
    correlation: float = 0.08
    """Seconds over which noise forgets itself; 0 is white."""
    head_only: bool = False
    """Report the head's pose as rotation and translation with the neck unused, as trackers of the face alone do."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.name == "head_only":
                continue
            value = getattr(self, item.name)
            low, high = _RANGES.get(item.name, (0.0, 100.0))
            if not low <= value <= high:
                raise InvalidParameterError(f"{item.name} must be {low:g} to {high:g}, got {value}")

    @classmethod
    def none(cls) -> TrackingErrors:
        """A perfect tracker."""
        sizes: dict[str, Any] = {item.name: 0.0 for item in fields(cls) if item.name != "head_only"}
        return cls(**sizes | {"eyelid_gain": 1.0})


_RANGES = {"focal_error": (-0.5, 1.0), "eyelid_gain": (0.0, 1.5), "correlation": (0.0, 60.0)}


def tracked_motion(
    rig: Rig,
    truth: FlameParams,
    camera: Camera,
    errors: TrackingErrors,
    seed: int = 0,
    noisy: NDArray[np.bool_] | None = None,
) -> FlameParams:
    """The motion as a tracker with these errors would have found it. The same seed gives the same errors.

    Args:
        rig: whose expression basis says how far a coefficient moves the face.
        truth: what was performed.
        camera: that saw it; its axis is the direction of ``depth_noise``.
        noisy: [T] which frames have noise; None: all. Biases are in every frame.

    Example::

        track = tracked_motion(rig, truth, camera, TrackingErrors(jaw_noise=1.0))
    """
    random = np.random.default_rng([seed, 3])
    count = len(truth)
    if errors.head_only:
        truth = without_neck(rig, truth)

    def noise(columns: int) -> Float64:
        drawn = _process(count, columns, errors.correlation * truth.fps, random)
        return drawn if noisy is None else drawn * noisy[:, None]

    deviations = _coefficient_deviations(rig, truth)
    expression = truth.expression + deviations * (
        1e-3 * errors.expression_noise * noise(100) + 1e-3 * errors.expression_bias * random.standard_normal(100)
    )
    opening = errors.jaw_noise * noise(1)[:, 0] + errors.jaw_bias * random.choice((-1.0, 1.0))
    jaw = truth.jaw + np.radians(opening)[:, None] * [1.0, 0.0, 0.0]
    rotation = truth.rotation + np.radians(errors.rotation_noise) * noise(3)
    sizes = 1e-3 * np.array([errors.translation_noise, errors.translation_noise, errors.depth_noise])
    # Camera axes are rows of the rotation: the error is drawn in them and turned into the world.
    translation = truth.translation + (sizes * noise(3)) @ camera.world_to_camera[:3, :3].astype(np.float64)
    gaze = np.zeros((count, 6))
    gaze[:, [0, 1, 3, 4]] = np.radians(errors.gaze_noise) * noise(4)
    eyelids = np.clip(errors.eyelid_gain * truth.eyelids + errors.eyelid_noise * noise(2), 0, 1)
    return truth.replace(
        expression=expression,
        jaw=jaw,
        rotation=rotation,
        translation=translation,
        eyes=truth.eyes + gaze,
        eyelids=eyelids,
    )


def without_neck(rig: Rig, params: FlameParams) -> FlameParams:
    """The same poses of the head with the neck unused: all in rotation and translation. Neck and shoulders differ.

    FLAME takes x to ``G (N (x - J1) + J1 - J0) + J0 + t``, which is ``R (x - J0) + J0 + t'`` with ``R = G N`` and
    ``t' = t + (G - R) (J1 - J0)``.
    """
    turned = matrices(params.rotation)
    joints = rig.joint_rest + np.einsum("jak,tk->tja", rig.joint_expression, params.expression)
    rotation = axis_angles(_product(quaternions(params.rotation), quaternions(params.neck)))
    lever = np.einsum("tab,tb->ta", turned - matrices(rotation), joints[:, 1] - joints[:, 0])
    still = np.zeros_like(params.neck)
    return params.replace(rotation=rotation, neck=still, translation=params.translation + lever)


def tracked_camera(camera: Camera, centre: NDArray[np.floating], errors: TrackingErrors) -> Camera:
    """The camera as the tracker has it: with another focal length, from where the head's centre looks as large.

    A single view hardly tells a long lens far away from a short one nearby, so trackers err along that line. Moving
    the camera and not the head keeps all cameras around the head in agreement.
    """
    scale = 1 + errors.focal_error
    intrinsics = camera.intrinsics.astype(np.float64)
    intrinsics[0, 0] *= scale
    intrinsics[1, 1] *= scale
    pose = camera.world_to_camera.astype(np.float64)
    pose[2, 3] += errors.focal_error * (pose[2, :3] @ centre + pose[2, 3])
    return Camera(pose.astype(np.float32), intrinsics.astype(np.float32), camera.size)


def _product(a: Float64, b: Float64) -> Float64:
    """Hamilton product of quaternions [T, 4]."""
    real = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(1, keepdims=True)
    return np.concatenate([real, a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + np.cross(a[:, 1:], b[:, 1:])], 1)


def _process(count: int, columns: int, frames: float, random: np.random.Generator) -> Float64:
    """Stationary noise [count, columns] of unit deviation that forgets itself over so many frames."""
    ratio = math.exp(-1 / frames) if frames > 0 else 0.0
    drawn = random.standard_normal((count, columns))
    drawn[1:] *= math.sqrt(1 - ratio * ratio)
    for t in range(1, count):
        drawn[t] += ratio * drawn[t - 1]
    return drawn


def _coefficient_deviations(rig: Rig, truth: FlameParams) -> Float64:
    """Deviation of each coefficient [100] at which independent errors move the face by 1 m, root mean square.

    Coefficients err in proportion to how much they are used; those at rest err by a tenth of the average.
    """
    used = truth.expression.astype(np.float64).std(0)
    used = used + 0.1 * (used.mean() if used.any() else 1.0)
    squares = (rig.expression_basis.astype(np.float64) ** 2).sum(1)  # [V, 100] square metres per unit
    moved = np.sqrt(squares @ used**2)
    face = moved > MOVING * moved.max()
    return used / np.sqrt((moved[face] ** 2).mean()) if moved.any() else np.zeros(100)
