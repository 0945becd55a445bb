"""What a living face does beside speaking: blinks, glances, movements of the head and brows, breath.

Everything is decided every 20 ms of sound from one seeded random generator, and drawn as functions of time, so the
motion depends neither on chunking nor on the frame rate. Angles are in radians, FLAME's axes: x turns down, y to the
person's left, z tilts to the person's right shoulder.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.motion.analysis import Heard
from being_rt.motion.viseme_network import STEP

Float64 = NDArray[np.float64]
DEGREE = math.pi / 180

# Blinks: 26 a minute in conversation, 17 at rest (Bentivoglio et al., Movement Disorders 12(6), 1997); intervals are
# log-normal. Times of the lid: VanderWerf et al., J. Neurophysiology 89, 2003.
BLINK_INTERVAL = 3.2  # seconds, median
BLINK_SPREAD = 0.45  # standard deviation of the logarithm
BLINK_SHORTEST, BLINK_LONGEST = 1.5, 7.0
BLINK_CLOSING, BLINK_CLOSED, BLINK_OPENING = (0.070, 0.100), (0.020, 0.055), (0.160, 0.240)
BLINK_DOUBLE = 0.07  # share of blinks that come twice
BLINK_WITH_GLANCE = 0.35  # share of glances beyond GLANCE_LARGE that bring a blink, if none was for 1.5 s
GLANCE_LARGE = 5 * DEGREE

# Saccades: duration 21 ms + 2.2 ms per degree (Carpenter, "Movements of the eyes", 1988); gaze times after Lee, Badler
# and Badler, "Eyes Alive", SIGGRAPH 2002: a speaker looks at the listener a bit more than half of the time.
SACCADE_BASE, SACCADE_PER_RADIAN = 0.021, 0.0022 / DEGREE
LOOK_TIME, AWAY_TIME = (0.9, 2.8), (0.35, 1.1)
AWAY_SHARE = 0.32
AWAY_YAW, AWAY_PITCH = (3 * DEGREE, 9 * DEGREE), (-4 * DEGREE, 5 * DEGREE)
FACE_YAW, FACE_PITCH = 1.1 * DEGREE, 0.9 * DEGREE  # from one eye of the listener to the other, and to the mouth
EYE_DRIFT = 0.10 * DEGREE
COUNTER_ROTATION = 0.9  # of the head's turn that the eyes undo (vestibulo-ocular reflex)
# The upper lid follows the gaze: share of closure per radian down.
LID_PER_RADIAN = 1.3
LID_REST = 0.0

# Head: slow wandering, (pitch, yaw, roll) standard deviation, more while speaking.
WANDER = (1.5 * DEGREE, 2.6 * DEGREE, 1.1 * DEGREE)
WANDER_BAND = (0.06, 0.55)  # Hz
NOD, NOD_RISE, NOD_FALL = (0.7 * DEGREE, 2.5 * DEGREE), 0.18, 0.46  # a nod's depth with an accent, and its times
TURN_WITH_NOD = 1.0 * DEGREE  # standard deviation of yaw and roll that come with it
NECK_SHARE = 0.8  # the rest turns the whole body a little
BROW_CHANCE, BROW_RAISE, BROW_GAP = 0.45, (0.12, 0.42), 1.4
BROW_RISE, BROW_FALL = 0.14, 0.45
BREATH_PERIOD, BREATH_LIFT, BREATH_PITCH = 3.9, 0.0011, 0.22 * DEGREE


@dataclass(frozen=True)
class Pose:
    """Behaviour at one moment: eyelids 0..1 [2], gaze (pitch, yaw), head and body rotations, and ARKit weights."""

    eyelids: Float64
    gaze: Float64
    neck: Float64
    rotation: Float64
    translation: Float64
    weights: dict[str, float]


@dataclass(frozen=True)
class _Gesture:
    """A smooth bump of ``amount`` that begins at ``begin``, is full after ``rise`` and gone ``fall`` later."""

    begin: float
    rise: float
    fall: float
    amount: Float64

    def at(self, time: float) -> Float64:
        since = time - self.begin
        if since <= 0 or since >= self.rise + self.fall:
            return self.amount * 0
        phase = since / self.rise if since < self.rise else 1 + (since - self.rise) / self.fall
        return self.amount * (0.5 - 0.5 * math.cos(math.pi * phase))


@dataclass(frozen=True)
class _Blink:
    begin: float
    closing: float
    closed: float
    opening: float
    depth: float

    def at(self, time: float) -> float:
        since = time - self.begin
        if since <= 0:
            return 0.0
        if since < self.closing:
            share = since / self.closing
            return self.depth * share * share * (3 - 2 * share)
        since -= self.closing + self.closed
        if since <= 0:
            return self.depth
        # The lid rises fast at first and settles slowly.
        left = max(0.0, 1 - since / self.opening)
        return self.depth * left * left * (3 - 2 * left) * (0.6 + 0.4 * left)


class _Wander:
    """Smooth noise: ten sines per axis, as a pure function of time with unit standard deviation."""

    def __init__(self, random: np.random.Generator, axes: int) -> None:
        low, high = WANDER_BAND
        self._frequency = low * (high / low) ** random.random((axes, 10))
        self._phase = random.random((axes, 10)) * 2 * np.pi
        amplitude = 1 / np.sqrt(self._frequency)
        self._amplitude = amplitude * np.sqrt(2 / (amplitude**2).sum(1, keepdims=True))

    def at(self, time: float) -> Float64:
        return (self._amplitude * np.sin(2 * np.pi * self._frequency * time + self._phase)).sum(1)


def _between(random: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(random.uniform(*limits))


class Behaviour:
    """Decides with every step of sound, and tells the pose at a moment.

    ``liveliness`` scales head, brows and the share of glances; 0 keeps blinks and breath alone.
    """

    def __init__(self, seed: int = 0, liveliness: float = 1.0) -> None:
        self._seed, self._liveliness = seed, liveliness
        self.reset()

    def reset(self) -> None:
        """Begin anew with the same seed."""
        # One generator each, so that more accents do not make other blinks.
        seeds = np.random.SeedSequence(self._seed).spawn(4)
        still, self._blinking, self._glancing, self._accenting = map(np.random.default_rng, seeds)
        self._wander = _Wander(still, 3)
        self._eye_drift = _Wander(still, 2)
        self._breath_phase = float(still.random())
        self._blinks: deque[_Blink] = deque(maxlen=4)
        self._next_blink = float(self._blinking.uniform(1.0, 3.6))
        self._nods: deque[_Gesture] = deque(maxlen=6)
        self._brows: deque[_Gesture] = deque(maxlen=4)
        self._last_brow = -BROW_GAP
        self._gaze_from = self._gaze_to = np.zeros(2)
        self._saccade_begin, self._saccade_time = 0.0, SACCADE_BASE
        self._next_glance = float(self._glancing.uniform(*LOOK_TIME))
        self._away = False
        self._energy = 0.0

    def hear(self, heard: Heard, time: float) -> None:
        """Take one step of sound; what it brings begins at ``time``, the moment that is drawn next."""
        self._energy += (heard.speaking - self._energy) * STEP / 0.6
        if time >= self._next_blink:
            self._blink(time)
        if time >= self._next_glance:
            self._glance(time)
        if heard.accent > 0:
            self._accent(time, heard.accent)

    def _blink(self, time: float) -> None:
        for _ in range(2 if self._blinking.random() < BLINK_DOUBLE else 1):
            blink = _Blink(
                time,
                _between(self._blinking, BLINK_CLOSING),
                _between(self._blinking, BLINK_CLOSED),
                _between(self._blinking, BLINK_OPENING),
                _between(self._blinking, (0.93, 1.0)),
            )
            self._blinks.append(blink)
            time = blink.begin + blink.closing + blink.closed + blink.opening + _between(self._blinking, (0.06, 0.2))
        interval = BLINK_INTERVAL * math.exp(BLINK_SPREAD * self._blinking.standard_normal())
        self._next_blink = time + min(BLINK_LONGEST, max(BLINK_SHORTEST, interval))

    def _glance(self, time: float) -> None:
        self._away = not self._away and self._glancing.random() < AWAY_SHARE * min(1.5, self._liveliness)
        if self._away:
            side = -1 if self._glancing.random() < 0.5 else 1
            target = np.array([_between(self._glancing, AWAY_PITCH), side * _between(self._glancing, AWAY_YAW)])
        else:
            target = self._glancing.standard_normal(2) * (FACE_PITCH, FACE_YAW)
        self._next_glance = time + _between(self._glancing, AWAY_TIME if self._away else LOOK_TIME)
        size = float(np.linalg.norm(target - self._gaze_to))
        self._gaze_from, self._gaze_to = self._gaze_to, target
        self._saccade_begin, self._saccade_time = time, SACCADE_BASE + SACCADE_PER_RADIAN * size
        last_blink = self._blinks[-1].begin if self._blinks else -9.0
        if size > GLANCE_LARGE and time - last_blink > 1.5 and self._glancing.random() < BLINK_WITH_GLANCE:
            self._blink(time)

    def _accent(self, time: float, strength: float) -> None:
        depth = (NOD[0] + (NOD[1] - NOD[0]) * strength) * _between(self._accenting, (0.5, 1.2)) * self._liveliness
        sway = self._accenting.standard_normal(2) * TURN_WITH_NOD * strength * self._liveliness
        self._nods.append(_Gesture(time, NOD_RISE, NOD_FALL, np.array([depth, sway[0], sway[1]])))
        raises = self._accenting.random() < BROW_CHANCE * min(1.5, self._liveliness)
        height = _between(self._accenting, BROW_RAISE) * min(1.5, self._liveliness)
        if raises and time - self._last_brow > BROW_GAP:
            self._last_brow = time
            self._brows.append(_Gesture(time, BROW_RISE, BROW_FALL, np.array([height])))

    def pose(self, time: float) -> Pose:
        """The pose at ``time``, which must not lie before the last ``time`` of `hear`."""
        head = self._wander.at(time) * WANDER * (0.55 + 0.45 * self._energy) * self._liveliness
        for nod in self._nods:
            head = head + nod.at(time)
        breath = 0.5 - 0.5 * math.cos(2 * math.pi * (time / BREATH_PERIOD + self._breath_phase))
        head[0] -= BREATH_PITCH * breath
        share = min(1.0, max(0.0, (time - self._saccade_begin) / self._saccade_time))
        moved = share**3 * (10 - 15 * share + 6 * share * share)  # minimum jerk
        gaze = self._gaze_from + (self._gaze_to - self._gaze_from) * moved + self._eye_drift.at(time) * EYE_DRIFT
        gaze = gaze - COUNTER_ROTATION * head[:2]
        closed = max((blink.at(time) for blink in self._blinks), default=0.0)
        rest = min(0.5, max(-0.12, LID_REST + LID_PER_RADIAN * float(gaze[0])))
        lid = rest + (1 - rest) * closed if closed > 0 else rest
        raised = float(sum((brow.at(time)[0] for brow in self._brows), start=0.0))
        weights = {
            "browInnerUp": 0.8 * raised,
            "browOuterUpLeft": raised,
            "browOuterUpRight": 0.9 * raised,
            "eyeWideLeft": max(0.0, -lid) + 0.25 * raised,
            "eyeWideRight": max(0.0, -lid) + 0.25 * raised,
            "eyeSquintLeft": 0.15 * closed,
            "eyeSquintRight": 0.15 * closed,
        }
        return Pose(
            eyelids=np.array([max(0.0, lid)] * 2),
            gaze=gaze,
            neck=head * NECK_SHARE,
            rotation=head * (1 - NECK_SHARE),
            translation=np.array([0.0, BREATH_LIFT * breath, 0.0]),
            weights={name: min(1.0, weight) for name, weight in weights.items()},
        )
