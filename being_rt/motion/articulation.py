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
    "sil": {},
    "PP": {"jawOpen": 0.06},
    "FF": {"jawOpen": 0.10, "mouthUpperUp": 0.15},
    "TH": {"jawOpen": 0.22, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10},
    "DD": {"jawOpen": 0.20, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10, "mouthStretch": 0.08},
    "kk": {"jawOpen": 0.26, "mouthLowerDown": 0.18, "mouthUpperUp": 0.10},
    "CH": {"jawOpen": 0.14, "mouthFunnel": 0.55, "mouthLowerDown": 0.15, "mouthUpperUp": 0.15},
    "SS": {"jawOpen": 0.09, "mouthStretch": 0.25, "mouthLowerDown": 0.32, "mouthUpperUp": 0.15, "mouthSmile": 0.08},
    "nn": {"jawOpen": 0.20, "mouthLowerDown": 0.22, "mouthUpperUp": 0.08},
    "RR": {"jawOpen": 0.22, "mouthFunnel": 0.28, "mouthPucker": 0.22},
    "aa": {"jawOpen": 0.78, "mouthLowerDown": 0.25, "mouthUpperUp": 0.15},
    "E": {"jawOpen": 0.50, "mouthStretch": 0.22, "mouthLowerDown": 0.25, "mouthUpperUp": 0.12, "mouthSmile": 0.12},
    "ih": {"jawOpen": 0.32, "mouthStretch": 0.32, "mouthLowerDown": 0.25, "mouthUpperUp": 0.10, "mouthSmile": 0.18},
    "oh": {"jawOpen": 0.55, "mouthFunnel": 0.50, "mouthPucker": 0.22},
    "ou": {"jawOpen": 0.26, "mouthFunnel": 0.25, "mouthPucker": 0.75},
}
# How strongly a viseme insists on its target. Jaw: silence and sibilants (the teeth must meet) insist, tongue sounds
# made behind the teeth follow their vowels. Lips: rounded sounds insist, consonants made inside the mouth do not care.
JAW_DOMINANCE = {"sil": 1.0, "PP": 0.9, "FF": 1.0, "SS": 1.2, "CH": 1.1, "kk": 0.7, "nn": 0.8, "DD": 0.9}
LIP_DOMINANCE = {"kk": 0.35, "nn": 0.4, "DD": 0.5, "TH": 0.6, "ou": 1.4, "oh": 1.2, "CH": 1.2, "PP": 0.5}
# Reach of a curve into the past and the future, seconds: rounding begins early, the heavy jaw is slow.
JAW_REACH = (0.060, 0.070)
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
    jaw_limit: float


LIPS_TOGETHER = Gate(
    "PP", 0.18, 0.42, 0.055, 0.018, 0.080, {"mouthPress": 0.35, "mouthRollLower": 0.12, "mouthRollUpper": 0.08}, 0.10
)
LIP_UNDER_TEETH = Gate(
    "FF", 0.22, 0.50, 0.050, 0.014, 0.070, {"mouthRollLower": 0.45, "mouthUpperUp": 0.22, "mouthShrugLower": 0.20}, 0.12
)
# The jaw opens wider when the voice is loud: scale at LOUDNESS_RANGE's ends, dB against the speaker's peak level.
LOUDNESS_RANGE, LOUDNESS_SCALE = (-26.0, -3.0), (0.65, 1.10)
MEMORY = 32  # steps that are kept


def _table(values: dict[str, float]) -> Float64:
    return np.array([values.get(name, 1.0) for name in VISEMES])


class Articulation:
    """Remembers what was heard and shapes the mouth for a moment of it.

    ``look_ahead_ms`` are the look-aheads of the network's heads: of the newest steps the first guesses are used, of
    older ones the best.
    """

    def __init__(self, look_ahead_ms: tuple[int, ...], strength: float = 1.0) -> None:
        self._strength = strength
        self._lags = [round(ms / 1000 / STEP) for ms in look_ahead_ms]
        self._targets = np.array([[TARGETS[v].get(c, 0.0) for c in CHANNELS] for v in VISEMES])
        jaw, lips = _table(JAW_DOMINANCE), _table(LIP_DOMINANCE)
        self._dominance = np.stack([jaw if c == "jawOpen" else lips for c in CHANNELS], 1)
        self._reach = [
            JAW_REACH if c == "jawOpen" else ROUNDING_REACH if c in ROUNDING else LIP_REACH for c in CHANNELS
        ]
        self.reset()

    def reset(self) -> None:
        """Forget what was heard: there was silence."""
        self._visemes = np.zeros((MEMORY, len(VISEMES)))
        self._visemes[:, INDEX["sil"]] = 1
        self._loudness = np.full(MEMORY, -60.0)
        self._times = (np.arange(MEMORY) - MEMORY + 1) * STEP

    def hear(self, heard: Heard) -> None:
        """Take one step; its best guesses about the steps before replace the earlier ones."""
        self._visemes = np.roll(self._visemes, -1, 0)
        self._loudness = np.append(self._loudness[1:], heard.loudness)
        self._times = self._times + STEP
        for head, lag in enumerate(self._lags):
            self._visemes[MEMORY - 1 - lag] = heard.visemes[head]

    def weights(self, time: float) -> dict[str, float]:
        """ARKit weights of the mouth at ``time``, from what was heard so far."""
        visemes, distance = self._silenced(), self._times - time
        curves = np.empty(len(CHANNELS))
        evidence = visemes @ self._dominance, visemes @ (self._dominance * self._targets)
        for c, (past, future) in enumerate(self._reach):
            kernel = _raised_cosine(distance, past, future)
            curves[c] = (kernel @ evidence[1][:, c]) / (kernel @ evidence[0][:, c])
        loudness = float(_raised_cosine(distance, 0.1, 0.1) @ self._loudness / _raised_cosine(distance, 0.1, 0.1).sum())
        curves *= self._strength
        curves[0] *= np.interp(loudness, LOUDNESS_RANGE, LOUDNESS_SCALE)
        shape = dict(zip(CHANNELS, map(float, curves), strict=True))
        for gate in (LIP_UNDER_TEETH, LIPS_TOGETHER):
            amount = _gate_amount(gate, visemes[:, INDEX[gate.viseme]], distance)
            for name in CHANNELS[1:]:
                shape[name] += amount * (gate.pose.get(name, 0.0) - shape[name])
            shape["jawOpen"] += amount * (min(shape["jawOpen"] * 0.4, gate.jaw_limit) - shape["jawOpen"])
        # ARKit's mouthClose brings the lips together over an open jaw.
        shape["mouthClose"] = shape["jawOpen"] * _gate_amount(LIPS_TOGETHER, visemes[:, INDEX["PP"]], distance)
        return _sided(shape)

    def _silenced(self) -> Float64:
        """Probabilities with silence wherever nothing is audible."""
        silent = np.clip((-44.0 - self._loudness) / 8.0, 0, 1)[:, None]
        return self._visemes * (1 - silent) + silent * (np.arange(len(VISEMES)) == INDEX["sil"])


def _raised_cosine(distance: Float64, past: float, future: float) -> Float64:
    reach = np.where(distance < 0, past, future)
    return np.where(np.abs(distance) < reach, 0.5 + 0.5 * np.cos(np.pi * distance / reach), 1e-9)


def _smoothstep(x: Float64) -> Float64:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _gate_amount(gate: Gate, probability: Float64, distance: Float64) -> float:
    strength = _smoothstep((probability - gate.low) / (gate.high - gate.low))
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
