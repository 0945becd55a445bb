"""Who the head is: displacement fields over space, the traits that name them, and FLAME's 300 coefficients.

Every identity field is a function of the point alone, so a person is a smooth warp of space. The mesh, its teeth and
eyeballs, and any point on the implicit surface move by the same warp (see :class:`HeadSurface` in ``head_surface``).
Around each eye the warp is rigid, so that lids keep touching the ball and still close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.flame.model import SHAPE_COUNT
from being_rt.flame.procedural.expressions import random_fields
from being_rt.flame.procedural.surface import EAR, EYE, MOUTH_HALF_WIDTH, STOMION_Y, bell, lip_seam, smoothstep

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class HeadTraits:
    """A person's head in words. Traits are in standard deviations about the average: 0 average, +-1 common, +-2 rare.

    ``masculinity`` (-1 a typical woman, +1 a typical man) and ``age`` (0 about thirty years, 1 about sixty) set many
    forms at once; the others are added on top.

    Example::

        model = procedural_head(traits=HeadTraits(masculinity=1.0, jaw_width=0.8, nose_length=0.5))
    """

    masculinity: float = 0.0
    age: float = 0.0
    fullness: float = 0.0
    face_width: float = 0.0
    face_length: float = 0.0
    forehead: float = 0.0
    brow_ridge: float = 0.0
    brow_height: float = 0.0
    cheekbones: float = 0.0
    jaw_width: float = 0.0
    chin_length: float = 0.0
    chin_projection: float = 0.0
    nose_length: float = 0.0
    nose_width: float = 0.0
    nose_bridge: float = 0.0
    nose_tip_up: float = 0.0
    mouth_width: float = 0.0
    mouth_height: float = 0.0
    lip_fullness: float = 0.0
    eye_distance: float = 0.0
    eye_tilt: float = 0.0
    eye_size: float = 0.0
    eye_hooding: float = 0.0
    ear_size: float = 0.0
    ear_angle: float = 0.0
    neck_width: float = 0.0
    neck_length: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not np.isfinite(value) or abs(value) > 4.0:
                raise InvalidParameterError(f"HeadTraits.{field.name} must lie between -4 and 4, got {value}")


# What the two compound traits stand for.
_MASCULINE = {
    "brow_ridge": 1.1,
    "brow_height": -0.55,
    "jaw_width": 0.9,
    "chin_length": 0.45,
    "chin_projection": 0.35,
    "nose_length": 0.40,
    "nose_width": 0.50,
    "nose_bridge": 0.35,
    "nose_tip_up": -0.35,
    "lip_fullness": -0.65,
    "cheekbones": -0.15,
    "eye_size": -0.5,
    "eye_tilt": -0.30,
    "forehead": -0.30,
    "neck_width": 1.15,
    "ear_size": 0.30,
    "size": 1.1,
    "mouth_width": 0.25,
}
_AGED = {
    "jowls": 1.6,
    "hollow_cheeks": 0.9,
    "eye_hooding": 1.1,
    "lip_fullness": -0.8,
    "nose_length": 0.4,
    "nose_tip_up": -0.4,
    "ear_size": 0.7,
    "brow_height": -0.4,
    "folds": 1.4,
}


class _Place:
    """Masks over points of space, [N]."""

    def __init__(self, points: Float64) -> None:
        self.p = points
        self.x, self.y, self.z = points.T
        self.ax = np.abs(self.x)
        self.ahead = smoothstep(-0.02, 0.02, self.z)
        zero = np.zeros_like(self.x)
        self.out = np.stack([self.x / np.sqrt(self.x**2 + 0.008**2), zero, zero], 1)

    def patch(self, center: tuple[float, float, float], size: tuple[float, float, float]) -> Float64:
        c = np.array(center)
        total = np.exp(-(((self.p - c) / size) ** 2).sum(1))
        if c[0] > 0:
            total = total + np.exp(-(((self.p - c * [-1.0, 1.0, 1.0]) / size) ** 2).sum(1))
        return total

    def mouth(self, width: float, height: float) -> Float64:
        return bell(self.ax, width) * bell(self.y - STOMION_Y, height) * smoothstep(-0.01, 0.03, self.z)

    def neck(self) -> Float64:
        """1 on the neck, less at its base, which the shoulders hold."""
        return smoothstep(-0.070, -0.120, self.y) * (0.35 + 0.65 * smoothstep(-0.205, -0.155, self.y))

    def eye(self) -> Float64:
        """1 at an eye with its lids, 0 beyond the orbit."""
        return self.near_eye(0.0165, 0.0260)

    def near_eye(self, inner: float, outer: float) -> Float64:
        distance = np.sqrt((self.ax - EYE[0]) ** 2 + (self.y - EYE[1]) ** 2 + (self.z - EYE[2]) ** 2)
        return smoothstep(outer, inner, distance)


_X, _Y, _Z = np.eye(3)


def _move(weight: Float64, direction: Float64) -> Float64:
    return weight[:, None] * direction


def _scaled(s: _Place, center: Float64, factors: tuple[float, float, float]) -> Float64:
    return (s.p - center) * np.array(factors)


def _jaw_width(s: _Place) -> Float64:
    low = smoothstep(0.010, -0.060, s.y) * smoothstep(-0.130, -0.085, s.y) * smoothstep(-0.075, -0.020, s.z)
    return _move(low * np.clip(s.ax / 0.05, 0.0, 1.0), s.out * 0.0038)


def _chin_length(s: _Place) -> Float64:
    low = smoothstep(-0.048, -0.086, s.y) * smoothstep(-0.125, -0.095, s.y)
    return _move(low * smoothstep(-0.04, 0.03, s.z), -_Y * 0.0042)


def _eye_centers(s: _Place) -> Float64:
    return np.stack([np.where(s.x >= 0, EYE[0], -EYE[0]), np.full_like(s.x, EYE[1]), np.full_like(s.x, EYE[2])], 1)


def _eye_tilt(s: _Place) -> Float64:
    """Outer corners up: a turn about the eye's own axis, which leaves the ball in place."""
    q = s.p - _eye_centers(s)
    side = np.where(s.x >= 0, 1.0, -1.0)
    turn = np.stack([-q[:, 1] * side, q[:, 0] * side, 0.0 * s.x], 1)
    return _move(s.near_eye(0.0165, 0.0270), turn * np.radians(2.6))


def _eye_size(s: _Place) -> Float64:
    return _move(s.eye(), (s.p - _eye_centers(s)) * 0.030)


def _eye_hooding(s: _Place) -> Float64:
    """Skin below the brow sinks over the fold of the upper lid, most at the outer side."""
    weight = bell(s.ax - 0.037, 0.013) * bell(s.y - 0.0375, 0.0050) * smoothstep(0.0, 0.02, s.z)
    return _move(weight, -_Y * 0.0022 + _Z * 0.0012)


def _folds(s: _Place) -> Float64:
    """Deeper nasolabial and mentolabial folds."""
    drop = np.clip(-0.012 - s.y, 0.0, 0.045)
    fold = s.ax - (0.0185 + 0.50 * drop + 4.0 * drop**2)
    along = smoothstep(-0.064, -0.046, s.y) * smoothstep(0.000, -0.016, s.y) * smoothstep(0.0, 0.03, s.z)
    field = _move(along, _Z * 0.0010) * (1.2 * bell(fold - 0.0095, 0.0085) - 0.8 * bell(fold, 0.0060))[:, None]
    marionette = bell(s.ax - 0.0300, 0.0050) * bell(s.y + 0.0580, 0.0090) * smoothstep(0.0, 0.03, s.z)
    return field - _move(marionette, _Z * 0.0010)


def _lip_fullness(s: _Place) -> Float64:
    weight = np.exp(-((s.ax / 0.023) ** 4)) * bell(s.y - STOMION_Y, 0.013) * smoothstep(0.02, 0.045, s.z)
    seam = lip_seam(np.minimum(s.ax, MOUTH_HALF_WIDTH))
    return _move(weight, _Z * 0.0013) + _move(weight * (s.y - seam), _Y * 0.16)


# Name -> displacement [N, 3] of one standard deviation. The first ones are the traits of the same name.
_FIELDS: dict[str, Callable[[_Place], Float64]] = {
    "fullness": lambda s: (
        _move(s.patch((0.046, -0.040, 0.015), (0.024, 0.028, 0.04)), s.out * 0.0042 + _Z * 0.0016)
        + _move(s.patch((0.0, -0.098, 0.020), (0.04, 0.016, 0.03)), -_Y * 0.0030)
        + _move(s.neck(), _scaled(s, np.array([0.0, 0.0, -0.060]), (0.035, 0.0, 0.035)))
    ),
    "face_width": lambda s: _scaled(s, np.zeros(3), (0.026, 0.0, 0.0)) * smoothstep(-0.19, -0.10, s.y)[:, None],
    "face_length": lambda s: _scaled(s, np.array([0.0, 0.025, 0.0]), (0.0, 0.020, 0.0)),
    "forehead": lambda s: _move(s.patch((0.0, 0.085, 0.030), (0.06, 0.030, 0.05)), _Z * 0.0036),
    "brow_ridge": lambda s: _move(bell(s.ax - 0.020, 0.028) * bell(s.y - 0.0445, 0.010) * s.ahead, _Z * 0.0024),
    "brow_height": lambda s: _move(bell(s.ax - 0.026, 0.030) * bell(s.y - 0.047, 0.011) * s.ahead, _Y * 0.0020),
    "cheekbones": lambda s: _move(s.patch((0.050, -0.002, 0.020), (0.018, 0.018, 0.03)), s.out * 0.0030 + _Z * 0.0014),
    "jaw_width": _jaw_width,
    "chin_length": _chin_length,
    "chin_projection": lambda s: _move(s.patch((0.0, -0.076, 0.045), (0.03, 0.020, 0.03)), _Z * 0.0032),
    "nose_length": lambda s: _move(s.patch((0.0, -0.010, 0.062), (0.018, 0.020, 0.024)), _Z * 0.0028 - _Y * 0.0016),
    "nose_width": lambda s: _move(s.patch((0.012, -0.014, 0.054), (0.010, 0.013, 0.016)), s.out * 0.0019),
    "nose_bridge": lambda s: _move(s.patch((0.0, 0.013, 0.054), (0.011, 0.016, 0.016)), _Z * 0.0020),
    "nose_tip_up": lambda s: _move(s.patch((0.0, -0.013, 0.066), (0.014, 0.013, 0.014)), _Y * 0.0022),
    "mouth_width": lambda s: _move(s.mouth(0.030, 0.018) * s.x, _X * 0.075),
    "mouth_height": lambda s: _move(s.mouth(0.034, 0.020), _Y * 0.0017),
    "lip_fullness": _lip_fullness,
    "eye_distance": lambda s: _move(s.near_eye(0.018, 0.040), s.out * 0.0011),
    "eye_tilt": _eye_tilt,
    "eye_size": _eye_size,
    "eye_hooding": _eye_hooding,
    "ear_size": lambda s: _move(
        s.patch((EAR[0] + 0.004, EAR[1], EAR[2]), (0.020, 0.042, 0.028)),
        (s.p - EAR * np.where(s.x >= 0, 1.0, -1.0)[:, None] ** [1, 0, 0]) * [0.05, 0.07, 0.07],
    ),
    "ear_angle": lambda s: _move(s.patch((0.086, 0.008, -0.062), (0.012, 0.032, 0.018)), s.out * 0.0030),
    "neck_width": lambda s: _move(s.neck(), _scaled(s, np.array([0.0, 0.0, -0.060]), (0.075, 0.0, 0.060))),
    "neck_length": lambda s: _move(smoothstep(-0.08, -0.18, s.y), -_Y * 0.0060),
    "size": lambda s: _scaled(s, np.array([0.0, -0.10, -0.05]), (0.024, 0.024, 0.024)),
    "depth": lambda s: _scaled(s, np.array([0.0, 0.0, -0.03]), (0.0, 0.0, 0.018)),
    "crown": lambda s: _move(smoothstep(0.06, 0.13, s.y), _Y * 0.0040),
    "jowls": lambda s: _move(s.patch((0.036, -0.070, 0.020), (0.015, 0.014, 0.03)), s.out * 0.0018 - _Y * 0.0034),
    "hollow_cheeks": lambda s: _move(
        s.patch((0.050, -0.030, 0.020), (0.015, 0.020, 0.03)), -s.out * 0.0026 - _Z * 0.0010
    ),
    "folds": _folds,
}
_EYE_FIELDS = ("eye_distance", "eye_tilt", "eye_size")  # made for the eyes: not stiffened there
FIELD_NAMES = tuple(_FIELDS)


def _random_amplitudes(count: int) -> tuple[Float64, Float64]:
    """Metres and wavelengths of the random fields: the finer, the smaller."""
    k = np.arange(count)
    symmetric = k % 4 != 3
    amplitude = np.where(symmetric, 0.0011, 0.0004) / (1.0 + 0.035 * k) ** 1.2
    return amplitude, 0.26 * (0.042 / 0.26) ** (k / count)


def displacement(points: Float64, weights: Float64, random: Callable[[Float64], Float64] | None = None) -> Float64:
    """Warp of points [N, 3] by the identity fields with weights [300]: displacements [N, 3] in metres.

    ``random`` stands in for :func:`random_displacement` where the caller has it tabulated.
    """

    def soft(place: _Place) -> Float64:
        total = random(place.p) if random is not None else random_displacement(place.p, weights)
        for name, weight in zip(FIELD_NAMES, weights, strict=False):
            if weight and name not in _EYE_FIELDS:
                total += weight * _FIELDS[name](place)
        return total

    place = _Place(points)
    total = soft(place)
    for side in (1.0, -1.0):  # rigid about each eye
        at_eye = soft(_Place((EYE * [side, 1.0, 1.0])[None]))
        rigid = place.near_eye(0.0170, 0.0280) * (place.x * side > 0)
        total += rigid[:, None] * (at_eye - total)
    for name in _EYE_FIELDS:
        weight = weights[FIELD_NAMES.index(name)]
        if weight:
            total += weight * _FIELDS[name](place)
    return total


def random_displacement(points: Float64, weights: Float64) -> Float64:
    """The share of the unnamed, smooth random fields (weights [300], of which the last ones) at points [N, 3]."""
    weights = weights[len(FIELD_NAMES) :]
    count = len(weights)
    w, phase, direction, symmetric = random_fields(count, seed=7)
    amplitude, wavelength = _random_amplitudes(count)
    chosen = np.flatnonzero(weights)
    total = np.zeros((len(points), 3))
    if not len(chosen):
        return total
    frequency = (w / wavelength[:, None, None])[chosen].transpose(1, 0, 2).reshape(3, -1)
    direction = ((amplitude * weights)[:, None, None] * direction)[chosen].reshape(-1, 3)
    mirror = np.array([-1.0, 1.0, 1.0])
    parity = np.repeat(np.where(symmetric, 0.5, -0.5)[chosen], 3)[:, None]
    for start in range(0, len(points), 8192):  # keeps the table of cosines in the cache
        p = points[start : start + 8192]
        here = np.cos(p @ frequency + phase[chosen].reshape(-1)) @ (0.5 * direction)
        there = np.cos((p * mirror) @ frequency + phase[chosen].reshape(-1)) @ (parity * direction)
        total[start : start + 8192] = here + there * mirror
    return total


def raw_fields(points: Float64) -> Float64:
    """Every identity field at points [N, 3]: [N, 3, 300]."""
    stack = np.empty((len(points), 3, SHAPE_COUNT))
    for k in range(SHAPE_COUNT):
        stack[:, :, k] = displacement(points, np.eye(SHAPE_COUNT)[k])
    return stack


def trait_weights(traits: HeadTraits) -> Float64:
    """Weights [300] of the identity fields for a person's traits."""
    weights = dict.fromkeys(FIELD_NAMES, 0.0)
    for field in fields(traits):
        value = float(getattr(traits, field.name))
        compound = {"masculinity": _MASCULINE, "age": _AGED}.get(field.name, {field.name: 1.0})
        for name, share in compound.items():
            weights[name] += share * value
    return np.concatenate([list(weights.values()), np.zeros(SHAPE_COUNT - len(weights))])


def seed_weights(seed: int) -> Float64:
    """Weights [300] of a random plausible person; seed 0 is the average head."""
    if seed == 0:
        return np.zeros(SHAPE_COUNT)
    rng = np.random.default_rng([seed, 300])
    masculinity = rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 1.2)
    weights = trait_weights(HeadTraits(masculinity=masculinity, age=float(rng.uniform(-0.3, 0.8))))
    spread = np.concatenate([np.full(len(FIELD_NAMES), 0.65), np.full(SHAPE_COUNT - len(FIELD_NAMES), 0.55)])
    return weights + np.clip(rng.normal(size=SHAPE_COUNT), -1.7, 1.7) * spread
