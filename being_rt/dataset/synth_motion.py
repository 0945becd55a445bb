"""What a synthetic person does before the camera: speech, babble, expressions, blinks, glances, turns of the head.

A performance is what people are asked for when an avatar of them is made, with one property that no capture has: which
expressions it holds is known. Expressions come in pairs, one of the upper and one of the lower face. A third of the
pairs (:func:`held_out`) and the last sentence of the bundled speech are never performed for training, so a test on
them asks for combinations that training has not seen, each part of which it has.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.demo import demo_line
from being_rt.errors import InvalidParameterError
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import MAXIMUM_FPS, FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import axis_angles
from being_rt.motion.articulation import SIDED, TARGETS
from being_rt.motion.driver import drive
from being_rt.motion.viseme_driver import VisemeDriver

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Weights = Mapping[str, float]

# Expressions by ARKit's names; a name without its side means both sides.
UPPER: dict[str, Weights] = {
    "surprise": {"browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.5},
    "anger": {"browDown": 0.9, "eyeSquint": 0.35},
    "worry": {"browInnerUp": 0.9, "browDown": 0.3},
    "one brow": {"browOuterUpLeft": 0.9, "browDownRight": 0.5},
    "squint": {"eyeSquint": 0.9, "cheekSquint": 0.6},
    "wink": {"eyeBlinkLeft": 1.0, "eyeSquintLeft": 0.5, "cheekSquintLeft": 0.6},
    "glance": {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9, "browOuterUp": 0.2},
}
LOWER: dict[str, Weights] = {
    "smile": {"mouthSmile": 0.8, "cheekSquint": 0.35, "mouthDimple": 0.2},
    "grin": {"mouthSmile": 0.7, "mouthUpperUp": 0.55, "mouthLowerDown": 0.5, "jawOpen": 0.12},
    "smirk": {"mouthSmileLeft": 0.8, "mouthDimpleRight": 0.3},
    "frown": {"mouthFrown": 0.8, "mouthShrugLower": 0.5},
    "pucker": {"mouthPucker": 0.85},
    "funnel": {"mouthFunnel": 0.8, "jawOpen": 0.2},
    "press": {"mouthPress": 0.7, "mouthRollLower": 0.4, "mouthRollUpper": 0.4},
    "open": {"jawOpen": 0.9},
    "sneer": {"noseSneer": 0.8, "mouthUpperUp": 0.6},
    "puff": {"cheekPuff": 0.8, "mouthPress": 0.3},
    "stretch": {"mouthStretch": 0.8, "mouthLowerDown": 0.5, "jawOpen": 0.08},
    "aside": {"mouthRight": 0.7, "jawRight": 0.5},
}

# Seconds of the bundled line, cut in the pauses between its phrases; the second sentence is held out.
TRAINING_PHRASES = ((0.10, 1.21), (1.21, 3.62), (3.62, 5.91))
HELD_OUT_PHRASES = ((5.91, 8.59),)

# A round of acts, repeated until the time is up.
TRAINING_ACTS = ("expression", "expression", "expression", "expression", "speech", "babble")
TEST_ACTS = ("speech", "expression", "expression", "expression")
EXPRESSION_TIME = (0.75, 1.15)  # seconds, an expression from rest to rest
EXPRESSION_STRENGTH = (0.65, 1.0)
BABBLE_TIME = (1.6, 2.4)
SOUND_TIME = (0.12, 0.26)  # of one sound of babble
SOUND_SOFTNESS = 0.045  # seconds, standard deviation of the moment at which one sound passes into the next
PAUSE = 0.25  # seconds of rest after speech and babble

# The head: two sines per axis, (period in seconds, share of the limit); the shares sum to 1, so the limit holds.
TURNS = {"yaw": ((6.1, 0.65), (2.9, 0.35)), "pitch": ((4.7, 0.6), (2.3, 0.4)), "roll": ((7.3, 0.7), (3.1, 0.3))}
SWAYS = ((8.3, 0.7), (3.7, 0.3))
SWAY_AXES = (1.0, 0.4, 1.0)  # of the limit, sideways, up and towards the camera
NECK_SHARE = 0.75  # of a turn; the rest turns the whole body
COUNTER_ROTATION, GAZE_LIMIT = 0.45, math.radians(20)  # eyes stay on the camera as far as they comfortably can


@dataclass(frozen=True)
class MotionLimits:
    """How far the head moves either way: degrees, and millimetres of sway."""

    yaw: float = 35.0
    pitch: float = 20.0
    roll: float = 10.0
    sway: float = 12.0

    def __post_init__(self) -> None:
        for name, most in (("yaw", 90.0), ("pitch", 60.0), ("roll", 60.0), ("sway", 500.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InvalidParameterError(f"{name} must be 0 to {most:g}, got {getattr(self, name)}")


def perform(
    rig: Rig, train: int, test: int, fps: float = 25.0, seed: int = 0, limits: MotionLimits | None = None
) -> FlameParams:
    """A performance of ``train + test`` frames; the last ``test`` ones hold only what the others lack.

    The head moves through the whole, so both parts have the same range of poses. Smooth in time, the same for the
    same seed, whatever is measured from it at another fps. The face is at rest where the parts meet.

    Args:
        rig: whose ``expression_map`` gives the expressions; without one, every expression is a fixed random code.
        train: frames, at least 1. test: frames, 0 or more.

    Raises:
        InvalidParameterError: a number of frames, fps or seed out of range.

    Example::

        params = perform(demo_avatar("ada").rig, train=640, test=110, seed=1)
    """
    if train < 1 or test < 0:
        raise InvalidParameterError(f"a performance needs train >= 1 and test >= 0 frames, got {train} and {test}")
    if not 0 < fps <= MAXIMUM_FPS:
        raise InvalidParameterError(f"fps must lie in (0, {MAXIMUM_FPS:g}], got {fps}")
    if seed < 0:
        raise InvalidParameterError(f"seed must not be negative, got {seed}")
    face = _face(rig, train, fps, np.random.default_rng([seed, 0]), testing=False)
    if test:
        face = FlameParams.concatenate([face, _face(rig, test, fps, np.random.default_rng([seed, 1]), testing=True)])
    time = np.arange(train + test) / fps
    turn, sway = _head(time, limits or MotionLimits(), np.random.default_rng([seed, 2]))
    gaze = np.clip(-COUNTER_ROTATION * turn[:, :2], -GAZE_LIMIT, GAZE_LIMIT)
    eyes = face.eyes.copy()
    eyes[:, 0:2] += gaze
    eyes[:, 3:5] += gaze
    return face.replace(rotation=(1 - NECK_SHARE) * turn, neck=NECK_SHARE * turn, translation=sway, eyes=eyes)


def held_out(upper: str, lower: str) -> bool:
    """Whether a pair of expressions (of ``UPPER`` and ``LOWER``) is kept for tests: a third of them, in every row.

    >>> held_out("surprise", "smile"), held_out("surprise", "grin")
    (True, False)
    """
    return (list(UPPER).index(upper) + list(LOWER).index(lower)) % 3 == 0


def expression_rows(rig: Rig) -> Callable[[Weights], Float64]:
    """How this rig makes a named expression: weights by ARKit's names to one row [111] of ``ExpressionMap.COLUMNS``.

    Without an expression map, jaw, gaze and eyelids move as they do by the convention, and every other name stands
    for a random code of its own: no smile, but a movement that is the same wherever the name stands.
    """
    table = rig.expression_map

    def row(name: str) -> Float64:
        if table is not None:
            return table.matrix[table.names.index(name)].astype(np.float64) if name in table.names else np.zeros(111)
        code = np.zeros(111)
        if name in _PLAIN:
            columns, value = _PLAIN[name]
            code[columns] = value
        else:
            random = np.random.default_rng(zlib.crc32(name.encode()))
            code[:20] = random.standard_normal(20) * 0.35
        return code

    def combined(weights: Weights) -> Float64:
        total = np.zeros(111)
        for name, weight in weights.items():
            for sided in _sides(name):
                total += weight * row(sided)
        return total

    return combined


_PLAIN: dict[str, tuple[int, float]] = {
    "jawOpen": (100, 0.30),
    "eyeBlinkLeft": (109, 1.0),
    "eyeBlinkRight": (110, 1.0),
    "eyeLookOutLeft": (104, 0.42),
    "eyeLookInRight": (107, 0.42),
}
_BOTH_SIDES = SIDED | {
    "browDown",
    "browOuterUp",
    "cheekSquint",
    "eyeSquint",
    "eyeWide",
    "mouthDimple",
    "mouthFrown",
    "noseSneer",
}


def _sides(name: str) -> tuple[str, ...]:
    return (f"{name}Left", f"{name}Right") if name in _BOTH_SIDES else (name,)


def _face(rig: Rig, count: int, fps: float, random: np.random.Generator, testing: bool) -> FlameParams:
    """Expressions, jaw, eyes and eyelids of one part; the head does not move."""
    duration = count / fps
    time = np.arange(count) / fps
    rows = expression_rows(rig)
    pairs = _pairs(testing, random)
    phrases = cycle(HELD_OUT_PHRASES if testing else TRAINING_PHRASES)
    line, rate, _ = demo_line()
    sound = np.zeros(math.ceil(duration * rate) + 1, np.float32)
    added = np.zeros((count, 111))
    begin = 0.0
    for act in cycle(TEST_ACTS if testing else TRAINING_ACTS):
        left = duration - begin
        if left <= 0:
            break
        if act == "speech":
            start, end = next(phrases)
            length = end - start + PAUSE
            if length <= left:  # or else the part's end would cut the phrase
                phrase = line[round(start * rate) : round(end * rate)]
                place = round(begin * rate)
                sound[place : place + len(phrase)] = phrase
                begin += length
        elif act == "babble":
            length = min(float(random.uniform(*BABBLE_TIME)), left)
            added += _window(time, begin, length, 0.2)[:, None] * _babble(time, begin, length, rows, random)
            begin += length + PAUSE
        else:
            length = min(float(random.uniform(*EXPRESSION_TIME)), left)
            if length < EXPRESSION_TIME[0] and begin > 0:  # too short for a face to move there and back
                break
            upper, lower = next(pairs)
            strengths = random.uniform(*EXPRESSION_STRENGTH, 2)
            row = strengths[0] * rows(UPPER[upper]) + strengths[1] * rows(LOWER[lower])
            added += _window(time, begin, length, 0.45 * length)[:, None] * row
            begin += length
    driver = VisemeDriver(rig.expression_map, fps=fps, seed=int(random.integers(1 << 31)))
    spoken = drive(driver, sound, rate)[:count]
    part = {name: getattr(spoken, name) + added[:, columns] for name, columns in ExpressionMap.COLUMNS.items()}
    still = np.zeros((count, 3))
    part |= {"eyelids": np.clip(part["eyelids"], 0, 1), "rotation": still, "neck": still, "translation": still}
    return spoken.replace(**part)


def _pairs(testing: bool, random: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Pairs of expressions without end, every lower one once before any comes again."""
    while True:
        for lower in random.permutation(list(LOWER)):
            yield str(random.choice([name for name in UPPER if held_out(name, lower) == testing])), str(lower)


def _babble(
    time: Float64, begin: float, length: float, rows: Callable[[Weights], Float64], random: np.random.Generator
) -> Float64:
    """Rows [T, 111] of random sounds in a row, each with a mouth shape of its own (motion.articulation.TARGETS)."""
    result = np.zeros((len(time), 111))
    sounds = [name for name in TARGETS if name != "sil"]
    start = begin
    while start < begin + length:
        end = start + float(random.uniform(*SOUND_TIME))
        share = _normal_step((time - start) / SOUND_SOFTNESS) - _normal_step((time - end) / SOUND_SOFTNESS)
        strength = float(random.uniform(0.7, 1.3))
        result += strength * share[:, None] * rows(TARGETS[sounds[int(random.integers(len(sounds)))]])
        start = end
    return result


def _head(time: Float64, limits: MotionLimits, random: np.random.Generator) -> tuple[Float64, Float64]:
    """Turns of the head, axis-angle [T, 3], and translations [T, 3] in metres."""

    def wave(parts: tuple[tuple[float, float], ...]) -> Float64:
        phases = random.uniform(0, 2 * math.pi, len(parts))
        return sum(
            (share * np.sin(2 * math.pi * time / period + p) for (period, share), p in zip(parts, phases, strict=True)),
            start=np.zeros(len(time)),
        )

    yaw, pitch, roll = (np.radians(getattr(limits, name)) * wave(parts) for name, parts in TURNS.items())
    sway = np.stack([1e-3 * limits.sway * share * wave(SWAYS) for share in SWAY_AXES], 1)
    return _turned(yaw, pitch, roll), sway


def _turned(yaw: Float64, pitch: Float64, roll: Float64) -> Float64:
    """Axis-angle [T, 3] of R_y(yaw) R_x(pitch) R_z(roll), by the product of the three quaternions."""
    (cy, sy), (cx, sx), (cz, sz) = ((np.cos(angle / 2), np.sin(angle / 2)) for angle in (yaw, pitch, roll))
    w, x = cy * cx * cz + sy * sx * sz, cy * sx * cz + sy * cx * sz
    y, z = sy * cx * cz - cy * sx * sz, cy * cx * sz - sy * sx * cz
    return axis_angles(np.stack([w, x, y, z], 1))


def _window(time: Float64, begin: float, length: float, ramp: float) -> Float64:
    """0 outside of ``begin`` to ``begin + length``, 1 inside, with smooth ramps of ``ramp`` seconds within."""
    ramp = max(min(ramp, 0.5 * length), 1e-9)
    rise = np.clip((time - begin) / ramp, 0, 1)
    fall = np.clip((begin + length - time) / ramp, 0, 1)
    edge = np.minimum(rise, fall)
    return edge * edge * (3 - 2 * edge)


def _normal_step(x: Float64) -> Float64:
    """The normal distribution's cumulative function, to 1e-3: a logistic curve (Bowling et al., JIEM 2(1), 2009)."""
    return 1 / (1 + np.exp(-np.clip(0.07056 * x**3 + 1.5976 * x, -60, 60)))
