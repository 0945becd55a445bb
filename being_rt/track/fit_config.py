"""What the fitter believes before it has seen a frame, and how long it looks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from being_rt.errors import InvalidParameterError


@dataclass(frozen=True)
class Trajectory:
    """How one kind of parameter moves over time: standard deviations; infinite where nothing is believed.

    ``spread``: of the value itself about 0. ``speed``: of a random walk, per square root of a second, so that the
    difference over d seconds deviates by ``speed * sqrt(d)``. ``acceleration``: of a walk of the velocity, per second
    to the power 1.5, so that the second difference over steps of d seconds deviates by ``acceleration * d**1.5``; of
    the head's pose alone.
    """

    spread: float
    speed: float
    acceleration: float = float("inf")


@dataclass(frozen=True)
class FitConfig:
    """Settings of :func:`being_rt.track.fit.fit`. Lengths in metres, angles in radians, times in seconds.

    Deviations of trajectories are those of people who talk: loose enough for a plosive or a blink to pass in two
    frames, tight enough to average noise while the face rests.
    """

    shapes: int = 100
    """Identity coefficients that are solved for, of 300."""
    expressions: int = 60
    """Expression coefficients, of 100."""
    skin: int = 40
    """Landmarks of cheeks, forehead and chin that are used; the named ones (eyes, lips, brows, nose) all are."""

    noise: float = 0.008
    """Deviation of a landmark of weight 1, of the distance between the eyes."""
    outlier: float = 0.03
    """Residual, of the distance between the eyes, beyond which a landmark's cost grows no longer with its square."""
    gap: float = 0.004
    """Deviation of the opening between paired landmarks of lids and lips, of the distance between the eyes."""
    bias: float = 0.0015
    """Deviation, per axis, of what the network's idea of a landmark differs from the embedding's, each for itself."""
    bias_smooth: float = 0.002
    """The same, of what neighbouring landmarks have in common: where the person's face is none of the model's."""
    bias_reach: float = 0.02
    """Metres over which they have it in common."""
    bias_gap: float = 0.0005
    """Deviation of the difference of paired landmarks' biases: lids and lips that meet do so on the mesh too."""

    focal: float = 1.2
    """Focal length that is expected, of the picture's longer side: that of a phone or a webcam, uncropped."""
    focal_deviation: float = 0.4
    """Of its logarithm."""
    distance: float = 0.8
    """Metres from the camera to the face that are expected. Of a cropped video this says more than its size."""
    distance_deviation: float = 0.3
    """Of its logarithm."""
    shape: float = 1.0
    """Deviation of identity coefficients; 1 is what FLAME's bases are scaled to."""

    rotation: Trajectory = field(default_factory=lambda: Trajectory(1.0, 2.0, 1.0))
    place: Trajectory = field(default_factory=lambda: Trajectory(float("inf"), 8.0, 2.0))
    """Of the face in the picture, in distances between the eyes."""
    nearness: Trajectory = field(default_factory=lambda: Trajectory(float("inf"), 0.8, 0.6))
    """Of the logarithm of the head's distance."""
    rest: float = 0.045
    """Acceleration of a head that rests, in that of one that moves."""
    jaw: Trajectory = field(default_factory=lambda: Trajectory(0.25, 0.5))
    jaw_sideways: Trajectory = field(default_factory=lambda: Trajectory(0.03, 0.1))
    gaze: Trajectory = field(default_factory=lambda: Trajectory(0.25, 1.0))
    eyelids: Trajectory = field(default_factory=lambda: Trajectory(1.0, 8.0))
    expression: Trajectory = field(default_factory=lambda: Trajectory(0.5, 0.4))
    vergence: tuple[float, float] = (0.02, 0.05)
    """Deviation of what the eyes' pitch and yaw differ by."""

    evidence: int = 30
    """Frames that count as independent for what is shared: what the network or the model gets wrong in one frame, it
    gets wrong in the next, so a thousand frames say little more of a face's shape than these."""
    shared_frames: int = 80
    """Frames, evenly spread over the clip, from which identity, focal length and biases are found."""
    iterations: int = 30
    """Most iterations of each of the two passes."""
    tolerance: float = 1e-4
    """Relative decrease of the cost below which a pass ends."""
    fewest: int = 5
    """Frames with a face below which nothing is fitted; 1 for a single picture, whose depth is the model's guess."""
    threads: int = 0
    """Of the computation; 0: one per core. The result is the same."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value: Any = getattr(self, item.name)
            if item.name == "threads":
                positive = value >= 0
            elif isinstance(value, Trajectory):
                positive = value.spread > 0 and value.speed > 0 and value.acceleration > 0
            else:
                positive = all(v > 0 for v in (value if isinstance(value, tuple) else (value,)))
            if not positive:
                raise InvalidParameterError(f"FitConfig.{item.name} must be above 0, got {value}")
        for name, most in (("shapes", 300), ("expressions", 100), ("skin", 254)):
            if getattr(self, name) > most:
                raise InvalidParameterError(f"FitConfig.{name} must be at most {most}, got {getattr(self, name)}")
