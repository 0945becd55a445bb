"""From viseme probabilities to mouth shapes: coarticulation, lip closure, loudness.

Shapes are weights of ARKit's blendshapes. Every curve is a weighted mean of the targets of the visemes around a moment,
each with a dominance of its own per channel (Cohen and Massaro, "Modeling coarticulation in synthetic visual speech",
1993): a /t/ barely resists the rounding of the /u/ beside it, a /w/ imposes its own. Closures of the lips do not take
part in that compromise: a closed /p/ is closed, so gates pull the lips shut.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.motion.analysis import Heard
from being_rt.motion.viseme_network import STEP
from being_rt.motion.visemes import INDEX, VISEMES

Float64 = NDArray[np.float64]

CHANNELS = (
    "jawOpen",
    "mouthFunnel",
    "mouthPucker",
    "mouthStretch",
    "mouthSmile",
    "mouthLowerDown",
    "mouthUpperUp",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthPress",
    "mouthShrugLower",
    "mouthClose",
)
SIDED = {"mouthStretch", "mouthSmile", "mouthLowerDown", "mouthUpperUp", "mouthPress"}

# Target weight of each viseme in the order of CHANNELS; what is not named is 0.
TARGETS: dict[str, dict[str, float]] = {
    "sil": {"mouthPress": 0.15, "mouthClose": 0.015},  # at rest the lips touch
    "PP": {"jawOpen": 0.03},
    "FF": {"jawOpen": 0.05, "mouthUpperUp": 0.10},
    "TH": {"jawOpen": 0.11, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10},
    "DD": {"jawOpen": 0.12, "mouthLowerDown": 0.22, "mouthUpperUp": 0.10, "mouthStretch": 0.08},
    "kk": {"jawOpen": 0.15, "mouthLowerDown": 0.15, "mouthUpperUp": 0.08},
    "CH": {"jawOpen": 0.11, "mouthFunnel": 0.50, "mouthLowerDown": 0.12, "mouthUpperUp": 0.12},
    "SS": {"jawOpen": 0.06, "mouthStretch": 0.25, "mouthLowerDown": 0.30, "mouthUpperUp": 0.14, "mouthSmile": 0.08},
    "nn": {"jawOpen": 0.12, "mouthLowerDown": 0.20, "mouthUpperUp": 0.08},
    "RR": {"jawOpen": 0.15, "mouthFunnel": 0.28, "mouthPucker": 0.20},
    "aa": {"jawOpen": 0.50, "mouthLowerDown": 0.22, "mouthUpperUp": 0.14},
    "E": {"jawOpen": 0.33, "mouthStretch": 0.22, "mouthLowerDown": 0.24, "mouthUpperUp": 0.12, "mouthSmile": 0.12},
    "ih": {"jawOpen": 0.20, "mouthStretch": 0.32, "mouthLowerDown": 0.24, "mouthUpperUp": 0.10, "mouthSmile": 0.18},
    "oh": {"jawOpen": 0.36, "mouthFunnel": 0.48, "mouthPucker": 0.20},
    "ou": {"jawOpen": 0.14, "mouthFunnel": 0.22, "mouthPucker": 0.75},
}
# How strongly a viseme insists on its target. Lips: rounded sounds insist, sounds made inside the mouth do not care.
# For the jaw, dominances beside 1 gave no better agreement with phone timings.
LIP_DOMINANCE = {"kk": 0.35, "nn": 0.4, "DD": 0.5, "TH": 0.6, "ou": 1.4, "oh": 1.2, "CH": 1.2, "PP": 0.5}
# Reach of a curve into the past and the future, seconds: rounding begins early, the heavy jaw is slow.
JAW_REACH = (0.060, 0.080)
LIP_REACH = (0.055, 0.060)
ROUNDING_REACH = (0.070, 0.110)
ROUNDING = {"mouthFunnel", "mouthPucker"}


@dataclass(frozen=True)
class Gate:
    """How probability of a closing viseme becomes closure: fully on above ``high``, and timed in seconds."""

    viseme: str
    low: float
    high: float
    attack: float
    hold: float
    release: float
    pose: dict[str, float]
    jaw_limit: float  # the jaw opens no further while the gate is shut


LIPS_TOGETHER = Gate(
    viseme="PP",
    low=0.14,
    high=0.38,
    attack=0.055,
    hold=0.018,
    release=0.080,
    pose={"mouthPress": 0.35, "mouthRollLower": 0.12, "mouthRollUpper": 0.08, "mouthClose": 0.02},
    jaw_limit=0.12,
)
LIP_UNDER_TEETH = Gate(
    viseme="FF",
    low=0.22,
    high=0.50,
    attack=0.050,
    hold=0.014,
    release=0.070,
    pose={"mouthRollLower": 0.80, "mouthUpperUp": 0.30, "mouthShrugLower": 0.30},
    jaw_limit=0.08,
)
# The jaw opens wider when the voice is loud: scale at LOUDNESS_RANGE's ends, dB against the speaker's peak level.
LOUDNESS_RANGE, LOUDNESS_SCALE = (-26.0, -3.0), (0.85, 1.08)
# A network is never sure; a mouth at rest is. Probability of silence from where on, and from where it counts as 1.
SURE_SILENCE = (0.45, 0.75)
# Room noise and breath: nothing within NEIGHBOURS steps is louder than this, in dB against the speaker's peak level.
# A consonant may be as quiet, but it has a vowel beside it.
FAINT, FAINT_FADE, NEIGHBOURS = -27.0, 6.0, 3
MEMORY = 32  # steps that are kept
# Lips and jaw have mass: each curve follows its target as a critically damped spring, whose delay of two time constants
# is made good by aiming that much ahead. It also smooths over the network's second thoughts about the newest sound.
TICK = STEP / 2
TIME_CONSTANT = {"jawOpen": 0.016}
LIP_TIME_CONSTANT = 0.012


class Articulation:
    """Remembers what was heard and moves the mouth.

    ``look_ahead_ms`` are the look-aheads of the network's heads: of the newest steps the first guesses are used, of
    older ones the best. ``look_ahead`` is how much sound after a moment is heard, in seconds, before the moment is
    drawn; ``strength`` scales the opening.
    """

    def __init__(self, look_ahead_ms: tuple[int, ...], look_ahead: float, strength: float = 1.0) -> None:
        self._strength = strength
        self._lags = [round(ms / 1000 / STEP) for ms in look_ahead_ms]
        self._targets = np.array([[TARGETS[v].get(c, 0.0) for c in CHANNELS] for v in VISEMES])
        lips = np.array([LIP_DOMINANCE.get(name, 1.0) for name in VISEMES])
        self._dominance = np.stack([np.ones(len(VISEMES)) if c == "jawOpen" else lips for c in CHANNELS], 1)
        reach = [JAW_REACH if c == "jawOpen" else ROUNDING_REACH if c in ROUNDING else LIP_REACH for c in CHANNELS]
        self._past, self._future = np.array(reach).T[:, :, None]
        # Who cannot look ahead cannot aim ahead: the springs are stiffer then, rather than late.
        stiffest = max(0.007, look_ahead / 4)
        self._time_constant = np.array([min(stiffest, TIME_CONSTANT.get(c, LIP_TIME_CONSTANT)) for c in CHANNELS])
        self.reset()

    def reset(self) -> None:
        """Forget what was heard: there was silence, and the mouth is at rest."""
        self._visemes = np.zeros((MEMORY, len(VISEMES)))
        self._visemes[:, INDEX["sil"]] = 1
        self._loudness = np.full(MEMORY, -60.0)
        self._times = (np.arange(MEMORY) - MEMORY + 1) * STEP
        self._tick = 0.0
        self._value = self._velocity = np.zeros(len(CHANNELS))

    def hear(self, heard: Heard, time: float) -> None:
        """Take one step of sound and move the mouth on to ``time``, the first moment that is drawn with it."""
        # The sound before this step had moved the mouth up to one tick before.
        self._value, self._velocity = self._moved(time)
        self._tick = time
        self._visemes = np.roll(self._visemes, -1, 0)
        self._loudness = np.append(self._loudness[1:], heard.loudness)
        self._times = self._times + STEP
        for head, lag in enumerate(self._lags):
            self._visemes[MEMORY - 1 - lag] = heard.visemes[head]

    def weights(self, time: float) -> dict[str, float]:
        """ARKit weights of the mouth at ``time``, at or after the last `hear`."""
        return _sided(dict(zip(CHANNELS, map(float, self._moved(time)[0]), strict=True)))

    def _moved(self, time: float) -> tuple[Float64, Float64]:
        """Value and velocity of every curve at ``time``: springs from the last tick on, exactly integrated."""
        value, velocity = self._value, self._velocity
        tick = self._tick
        while tick < time - 1e-9:
            duration = min(TICK, time - tick)
            tick += duration
            rate = 1 / self._time_constant
            target = self._aim(tick)
            away = value - target
            slope = velocity + rate * away
            decay = np.exp(-rate * duration)
            value = target + (away + slope * duration) * decay
            velocity = (velocity - rate * slope * duration) * decay
        return value, velocity

    def _aim(self, time: float) -> Float64:
        """Targets of all curves for the springs at ``time``."""
        visemes = self._silenced()
        distance = self._times - time - 2 * self._time_constant[:, None]  # [channels, steps]
        kernel = _raised_cosine(distance, self._past, self._future)
        weight = (kernel @ visemes) * self._dominance.T
        curves = self._strength * (weight * self._targets.T).sum(1) / weight.sum(1)
        kernel = _raised_cosine(distance[0], 0.1, 0.1)
        curves[0] *= np.interp(kernel @ self._loudness / kernel.sum(), LOUDNESS_RANGE, LOUDNESS_SCALE)
        for gate in (LIP_UNDER_TEETH, LIPS_TOGETHER):
            amount = _gate_amount(gate, visemes[:, INDEX[gate.viseme]], distance[1])
            pose = np.array([gate.pose.get(name, 0.0) for name in CHANNELS[1:]])
            curves[1:] += amount * (pose - curves[1:])
            # The jaw is slower than the lips: only near the closure itself is it held.
            curves[0] += amount**3 * (min(curves[0], gate.jaw_limit) - curves[0])
        curves[-1] += amount * curves[0]  # ARKit's mouthClose brings the lips together over an open jaw
        return curves

    def _silenced(self) -> Float64:
        """Probabilities with full silence wherever nothing is audible or silence is more than likely."""
        low, high = SURE_SILENCE
        padded = np.pad(self._loudness, NEIGHBOURS, constant_values=-60.0)
        loudest = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1).max(1)
        faint = np.clip((FAINT - loudest) / FAINT_FADE, 0, 1)
        silent = np.maximum(faint, _smoothstep((self._visemes[:, INDEX["sil"]] - low) / (high - low)))[:, None]
        return self._visemes * (1 - silent) + silent * (np.arange(len(VISEMES)) == INDEX["sil"])


def _raised_cosine(distance: Float64, past: Float64 | float, future: Float64 | float) -> Float64:
    reach = np.where(distance < 0, past, future)
    return np.where(np.abs(distance) < reach, 0.5 + 0.5 * np.cos(np.pi * distance / reach), 1e-9)


def _smoothstep(x: Float64) -> Float64:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _gate_amount(gate: Gate, probability: Float64, distance: Float64) -> float:
    # One step alone is no evidence.
    smooth = np.convolve(np.pad(probability, 1, "edge"), (0.25, 0.5, 0.25), "valid")
    strength = _smoothstep((smooth - gate.low) / (gate.high - gate.low))
    approach = np.where(distance > 0, gate.attack, gate.release)
    nearness = _smoothstep(1 - (np.abs(distance) - gate.hold) / approach)
    return float((strength * nearness).max())


def _sided(shape: dict[str, float]) -> dict[str, float]:
    result = {}
    for name, weight in shape.items():
        weight = min(1.0, max(0.0, weight))
        for key in (f"{name}Left", f"{name}Right") if name in SIDED else (name,):
            result[key] = weight
    return result
