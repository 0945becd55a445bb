"""Everything that a training run can be told, in one record: what the command line takes, JSON holds and Python passes.

The defaults are those of the preset ``being``; other presets are functions ``TrainConfig -> TrainConfig`` in
:mod:`being_rt.train.presets`. The record is saved beside the result of a run, and a checkpoint resumes with its own.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, reading

Record = TypeVar("Record")
Channel = Literal["position", "rotation", "scale", "opacity", "colour"]
CHANNELS: tuple[Channel, ...] = ("position", "rotation", "scale", "opacity", "colour")


@dataclass(frozen=True)
class LearningRates:
    """Of the parameters, per step of Adam. Lengths are metres. 0: the parameter stays as it is."""

    factor: float = 1.0
    """On the rates of all that Gaussians and the offset network have, the torso's fixed ones among them. Short runs
    have fewer steps for the same way."""
    position: float = 1.6e-4
    position_end: float = 1.6e-6
    """Positions decay exponentially to this, as in 3DGS."""
    position_until: float = 1.0
    """Share of the run by which that end is reached."""
    end: float = 0.1
    """Share of their rate that all others have left at the end of the run, after an exponential decay."""
    rotation: float = 1e-3
    log_scale: float = 5e-3
    opacity: float = 2.5e-2
    colour: float = 2.5e-3
    barycentric: float = 1e-3
    network: float = 5e-4
    """Weights, biases and codes of the offset network."""
    basis: float = 2e-4
    """Bases of the Gaussians, of channels whose unit is 1; positions take ``basis * basis_position``."""
    basis_position: float = 0.05
    """Factor on ``basis`` for the position channels."""
    basis_rotation: float = 1.0
    """Factor on ``basis`` for the rotation channels."""
    torso_weights: float = 5e-3
    """Logits of the torso's skinning weights."""
    template: float = 0.0
    """Vertices of the rig: identity refinement."""


@dataclass(frozen=True)
class RegularisationConfig:
    """Weights of what keeps Gaussians sensible where the pictures say little. 0: off."""

    position: float = 0.1
    """Hinge on the distance from where a Gaussian was put, in parts of ``position_limit`` and beyond it."""
    position_limit: float = 0.01
    """Metres, or sizes of the triangle where the model is ``face_scaled``."""
    regional: bool = True
    """Lips, lids and eyes have 0.3 of that limit, hair three times as much."""
    scale: float = 1.0
    """Hinge on standard deviations beyond ``scale_limit``, likewise."""
    scale_limit: float = 0.008
    """Metres, or sizes of the triangle where the model is ``face_scaled``."""
    ratio_limit: float = 10.0
    """Longest over shortest standard deviation that costs nothing; weighed as ``scale`` is."""
    offset: float = 0.03
    """Mean square of the offset network's output, each channel in its own unit."""
    noise: float = 0.5
    """Noise on what the offset network of anchors is told in training, in parts of how much each input varies over the
    training frames: a network that cannot tell one frame from the next does not learn their errors by heart."""
    opacity: float = 0.0
    """Pushes opacities to 0 or 1."""
    opacity_start: float = 0.7
    """Share of the run after which it does."""


@dataclass(frozen=True)
class ModelConfig:
    """What is trained: the Gaussians of each region, how they are bound, and what moves them."""

    preset: str = "being"
    """The preset that these values started from: being, rgbavatar, splattingavatar, gaussianavatars, flashavatar."""
    head_gaussians: int = 60_000
    """On the mesh, eyeballs included; hair and mouth come on top."""
    hair_gaussians: int = 20_000
    mouth_gaussians: int = 6_000
    """Teeth, gums, tongue and throat, which FLAME's mesh does not have."""
    torso_gaussians: int = 20_000
    network: Literal["anchors", "points", "none"] = "anchors"
    """anchors: latents of anchors, blended (ALG). points: a network per Gaussian (FlashAvatar). none: rigid."""
    anchors: int = 256
    rank: int = 20
    channels: tuple[Channel, ...] = CHANNELS
    """What the offset network moves."""
    trunk_sizes: tuple[int, int] = (128, 64)
    """Hidden sizes of the network that all anchors share."""
    code_size: int = 16
    """Length of an anchor's code."""
    anchor_size: int = 64
    """Hidden size of the part that runs per anchor. 0: latents are linear in what the trunk says."""
    point_sizes: tuple[int, ...] = (256,) * 6
    """Hidden sizes of the network per Gaussian."""
    placement: Literal["free", "normal"] = "free"
    """How Gaussians may leave the point of the mesh that they are bound to. normal: along the triangle's normal, while
    the point walks over the mesh (SplattingAvatar)."""
    face_scaled: bool = False
    """Positions and scales are in units of the triangle's size (GaussianAvatars)."""
    facing_fade: bool = True
    """Skin that turns away from the camera fades."""
    initial_scale: float = 0.55
    """Standard deviation of a Gaussian at the start, in parts of the distance to its neighbours."""
    initial_opacity: float = 0.5
    hair_height: float = 0.03
    """Metres: thickness of the shell of hair over the scalp at the start."""
    network_start: float = 0.6
    """Share of the run after which the offset network moves anything. Begun early it explains what the pose of head and
    body should."""
    depth_softness: float = 0.01
    """Metres of depth difference over which head and torso swap order."""
    densification: Literal["relocate", "adaptive", "none"] = "relocate"
    """relocate: useless Gaussians move to where the error is. adaptive: the head's clone, split and die (3DGS), within
    ``head_gaussians``; the torso's relocate."""
    initial_share: float = 1.0
    """Share of ``head_gaussians`` that is there at the start; adaptive densification brings the others in."""
    growth_gradient: float = 2e-4
    """Of the mean gradient by screen position, in half pictures, that makes adaptive densification clone or split."""
    reset_interval: float = 0.1
    """Share of the run between resets of all opacities in adaptive densification; 0: never."""
    antialiased: bool = True
    """Opacity shrinks as the pixel filter widens a splat (Mip-Splatting)."""
    learning_rates: LearningRates = field(default_factory=LearningRates)
    regularisation: RegularisationConfig = field(default_factory=RegularisationConfig)

    def check(self) -> None:
        _require(self.head_gaussians >= 1, "model.head_gaussians must be at least 1", self.head_gaussians)
        for name in ("hair_gaussians", "mouth_gaussians", "torso_gaussians"):
            _require(getattr(self, name) >= 0, f"model.{name} must not be negative", getattr(self, name))
        _require(4 <= self.anchors <= 65_535 or self.anchors == 1, "model.anchors must be 1 or 4..65535", self.anchors)
        _require(1 <= self.rank <= 256, "model.rank must be 1..256", self.rank)
        _require(0 < self.initial_scale <= 10, "model.initial_scale must be in 0..10", self.initial_scale)
        _require(0 < self.initial_opacity < 1, "model.initial_opacity must be in 0..1", self.initial_opacity)
        _require(0 < self.initial_share <= 1, "model.initial_share must be in 0..1", self.initial_share)
        _require(0 <= self.network_start < 1, "model.network_start must be a share 0..1", self.network_start)
        _require(0 < self.depth_softness <= 1, "model.depth_softness must be in 0..1 m", self.depth_softness)
        _require(0 <= self.hair_height <= 1, "model.hair_height must be in 0..1 m", self.hair_height)
        _require(0 <= self.reset_interval <= 1, "model.reset_interval must be a share 0..1", self.reset_interval)
        factor = self.learning_rates.factor
        _require(factor > 0, "model.learning_rates.factor must be positive", factor)
        until = self.learning_rates.position_until
        _require(0 < until <= 1, "model.learning_rates.position_until must be a share 0..1", until)
        for name in ("position_limit", "scale_limit"):
            value = getattr(self.regularisation, name)
            _require(value > 0, f"model.regularisation.{name} must be positive", value)
        ratio = self.regularisation.ratio_limit
        _require(ratio >= 1, "model.regularisation.ratio_limit must be at least 1", ratio)
        _require(len(set(self.channels)) == len(self.channels), "model.channels names one twice", self.channels)
        _not_negative("model.learning_rates", self.learning_rates)
        _not_negative("model.regularisation", self.regularisation)


@dataclass(frozen=True)
class LossConfig:
    """How a picture is compared with a frame."""

    l1: float = 0.8
    dssim: float = 0.2
    alpha: float = 1.0
    """Coverage against the mask, where the dataset has masks."""
    alpha_tolerance: float = 0.02
    """The difference in coverage that costs nothing, in parts of what the mask says. Without it what is opaque is drawn
    towards the camera and grows, a little in every step and always that way: from other sides a body comes apart."""
    huber: float = 0.0
    """Below this difference the L1 term is quadratic; 0: plain L1."""
    mouth: float = 4.0
    """Weight of a pixel in the mouth's box; elsewhere 1. At most 100."""
    eyes: float = 4.0
    """Weight of a pixel in the eyes' boxes. At most 100."""
    perceptual: float = 0.0
    """Weight of LPIPS with VGG-16, which takes time and memory, and needs its weights: --lpips FILE. 0: off."""
    perceptual_start: float = 0.5
    """Share of the run after which it counts. Before that it costs nothing."""

    def check(self) -> None:
        _not_negative("loss", self)
        _require(self.l1 + self.dssim > 0, "loss.l1 or loss.dssim must be positive", 0)
        for name in ("mouth", "eyes"):
            _require(0.1 <= getattr(self, name) <= 100, f"loss.{name} must be 0.1..100", getattr(self, name))
        _require(self.perceptual_start <= 1, "loss.perceptual_start must be a share 0..1", self.perceptual_start)


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and what happens when."""

    steps: int = 20_000
    batch: int = 4
    """Frames per step, over all GPUs."""
    visits: int = 150
    """The run ends earlier where every training frame has been seen so often; 0: never. A short clip that is trained on
    for long is learned by heart, with all errors of its track."""
    seconds: float = 0.0
    """Stop after this much training time, with the schedule fitted to it; 0: no limit."""
    relocate_start: float = 0.1
    """Share of the run after which Gaussians begin to move to where the error is."""
    relocate_stop: float = 0.6
    relocate_interval: int = 100
    """Steps; 0: never."""
    evaluate_interval: int = 1_000
    """Steps between held-out evaluations; 0: at the end only."""
    evaluate_frames: int = 32
    """Held-out frames of an evaluation during the run; at the end all are used. 0: all."""
    checkpoint_seconds: float = 60.0
    """0: at the end of phases only."""
    check_interval: int = 50
    """Steps between looks at what the device has to say (loss, overflow); each costs a synchronisation."""

    def check(self) -> None:
        _require(self.steps >= 1, "schedule.steps must be at least 1", self.steps)
        _require(self.visits >= 0, "schedule.visits must not be negative", self.visits)
        _require(1 <= self.batch <= 1024, "schedule.batch must be 1..1024", self.batch)
        _require(self.check_interval >= 1, "schedule.check_interval must be at least 1", self.check_interval)
        _require(
            0 <= self.relocate_start <= self.relocate_stop <= 1,
            "schedule.relocate_start and relocate_stop must be shares 0..1 in order",
            (self.relocate_start, self.relocate_stop),
        )
        _not_negative("schedule", self)


@dataclass(frozen=True)
class FeedConfig:
    """Which pictures the trainer sees."""

    crops: Literal["auto", "whole", "foveated"] = "auto"
    """whole: whole frames at full resolution. foveated: windows at full resolution around face, mouth and body, and
    whole frames at reduced resolution. auto: foveated where frames have more than twice the pixels of a window."""
    window: tuple[int, int] = (512, 512)
    """Width and height of a window."""
    reduction: int = 2
    """By how much whole frames are reduced where there are windows: 2 or 4."""
    whole_until: float = 0.2
    """Share of the run that sees reduced whole frames only."""
    window_share: float = 0.75
    """Share of the steps after that which see windows."""
    random_background: bool = True
    """A new colour behind every frame, so that coverage is learned; needs masks. Else the dataset's background."""
    frame_limit: int = 0
    """Use at most so many training frames, evenly spread; 0: all."""
    device_gigabytes: float = -1.0
    """Frames beyond this stay in the host's memory and are copied while the device computes. -1: a third of what is
    free on the device."""

    def check(self) -> None:
        _require(min(self.window) >= 16, "feed.window must be at least 16 pixels a side", self.window)
        _require(self.reduction in (2, 4), "feed.reduction must be 2 or 4", self.reduction)
        for name in ("whole_until", "window_share"):
            _require(0 <= getattr(self, name) <= 1, f"feed.{name} must be a share 0..1", getattr(self, name))
        held = self.device_gigabytes
        _require(held >= 0 or held == -1, "feed.device_gigabytes must be 0 or more, or -1", held)
        _not_negative("feed", self, but=("device_gigabytes",))


@dataclass(frozen=True)
class TrackConfig:
    """Which parameters of the tracking are refined along with the avatar, and how freely."""

    refine: bool = True
    expression: float = 5e-4
    """Learning rates, in the parameters' own units; 0: as given."""
    rotation: float = 6e-5
    """Of the global joint."""
    neck: float = 6e-5
    jaw: float = 2e-5
    eyes: float = 3e-5
    eyelids: float = 5e-5
    translation: float = 6e-6
    focal: float = 0.0
    """Of the logarithm of the focal length of the one shared camera."""
    principal: float = 0.0
    """Of its principal point, in pixels."""
    start: float = 0.1
    """Share of the run after which refinement begins."""
    end: float = 0.03
    """Share of their rate that corrections have left at the end of the run, after a cosine."""
    smoothness: float = 1.0
    """Factor on the cost of second differences over time."""
    closeness: float = 1.0
    """Factor on the cost of leaving the given track."""
    slow_seconds: float = 100.0
    """What is slower than this in the corrections is taken out: errors that a tracker makes all the time, or always in
    the same pose, it also makes in held-out frames, which get no corrections. 0: nothing is."""
    steady_seconds: float = -1.0
    """Width of the low-pass on the translation, which carries the body; what is faster leans the neck instead, with the
    head where it was. 0: off. -1: 0.25 where the tracks leave the neck unused, for then nobody tracked a body; else
    off."""

    def check(self) -> None:
        _require(0 <= self.start <= 1, "tracks.start must be a share 0..1", self.start)
        _require(self.end <= 1, "tracks.end must be a share 0..1", self.end)
        _require(self.steady_seconds >= 0 or self.steady_seconds == -1, "tracks.steady_seconds must be -1 or more",
                 self.steady_seconds)  # fmt: skip
        _not_negative("tracks", self, but=("steady_seconds",))


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Immutable; every value is checked when it is made.

    Raises:
        InvalidParameterError: names the field and what it should be.

    Example::

        config = TrainConfig(schedule=ScheduleConfig(steps=2000, batch=4))
        config.save("me.config.json")
        assert TrainConfig.load("me.config.json") == config
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    feed: FeedConfig = field(default_factory=FeedConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    seed: int = 0
    """Everything random follows from it: the same seed gives the same avatar, bit for bit, on the same device."""

    def __post_init__(self) -> None:
        _check_finite("", self)
        for part in (self.model, self.loss, self.schedule, self.feed, self.tracks):
            part.check()
        _require(0 <= self.seed < 1 << 63, "seed must be 0 .. 2^63 - 1", self.seed)

    def to_json(self) -> str:
        """All values, as text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The record that ``text`` describes; what it leaves out has its default.

        Raises:
            InvalidParameterError: not JSON, a name that no field has, or a value that the field cannot take.
        """
        try:
            values = json.loads(text)
        except ValueError as problem:
            raise InvalidParameterError(f"the configuration is not JSON: {problem}") from problem
        return _record(cls, values, "")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_json`; all of it or nothing. Raises ``FileFormatError``."""
        with atomic_write(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainConfig:
        """Read what :meth:`save` wrote. Raises ``FileFormatError``, which names the file and the field."""
        with reading(path, "a configuration", FileFormatError):
            text = Path(path).read_text(encoding="utf-8")
        try:
            return cls.from_json(text)
        except InvalidParameterError as problem:
            raise FileFormatError(f"{path}: {problem}") from problem


def _record(kind: type[Record], values: Any, path: str) -> Record:
    """A dataclass of ``kind`` from a JSON object."""
    if not isinstance(values, dict):
        raise InvalidParameterError(f"{path.rstrip('.') or 'the configuration'} must be an object, got {values!r}")
    hints = get_type_hints(kind)
    for name in values:
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1, 0.0)[0]
            raise InvalidParameterError(f"unknown field {path}{name}; did you mean {path}{near}?")
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in values.items()})


def _value(kind: Any, value: Any, path: str) -> Any:
    """A JSON value as the type of a field."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, f"{path}.")
    if origin is Literal:
        if value in arguments:
            return value
        raise InvalidParameterError(f"{path} must be one of {', '.join(map(str, arguments))}, got {value!r}")
    if origin is tuple and isinstance(value, list):
        inner = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(inner) == len(value):
            return tuple(_value(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(inner, value, strict=True)))
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise InvalidParameterError(f"{path} must be {getattr(kind, '__name__', kind)}, got {value!r}")


def _check_finite(path: str, record: Any) -> None:
    for entry in fields(record):
        value = getattr(record, entry.name)
        if is_dataclass(value):
            _check_finite(f"{path}{entry.name}.", value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidParameterError(f"{path}{entry.name} must be finite, got {value}")


def _not_negative(path: str, record: Any, but: tuple[str, ...] = ()) -> None:
    for entry in fields(record):
        value = getattr(record, entry.name)
        if entry.name not in but and isinstance(value, (int, float)) and value < 0:
            raise InvalidParameterError(f"{path}.{entry.name} must not be negative, got {value}")


def _require(holds: bool, what: str, value: Any) -> None:
    if not holds:
        raise InvalidParameterError(f"{what}, got {value}")
