"""The average head as one signed distance function, from which everything else is measured.

The mesh is projected onto it, and normals, occlusion and hair height are read off it. It is sculpted from the
proportions of classical portraiture (eye line at half the head's height; eye width = eye distance = nose width; mouth
as wide as the irises are apart; brow-nose and nose-chin equal) and from anthropometric means (62 mm between the
pupils, 139 mm across the cheekbones). Metres; x to the subject's left, y up, z to the front; symmetric in x.

The distance is exact nowhere and good everywhere near the surface: smooth unions of ellipsoids, capsules and one loft,
with height offsets ("bumps") for the forms of the face. Its gradient is 0.5 to 1.9 on 98 % of the skin,
less in the crease behind the ears, up to 2.6 under the chin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Distance = Callable[[Float64], Float64]

EYE = np.array([0.0310, 0.0250, 0.0258])  # centre of the left eyeball
EYEBALL_RADIUS = 0.0132
LID_RADIUS = 0.0145  # outer surface of the lids about the eye's centre
MOUTH_HALF_WIDTH = 0.0250
STOMION_Y = -0.0435  # where the lips meet on the midline
CHIN_Y = -0.0880
CROWN_Y = 0.1380
NECK_CUT_Y = -0.2050
EAR = np.array([0.0750, 0.0050, -0.0510])  # centre of the left auricle


def smoothstep(low: float, high: float, x: Float64) -> Float64:
    """Hermite ramp from 0 at ``low`` to 1 at ``high`` (either may be the larger)."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bell(x: Float64, width: float) -> Float64:
    """Gaussian bump exp(-(x/width)^2)."""
    return np.exp(-((x / width) ** 2))


def smooth_min(a: Float64, b: Float64, radius: float) -> Float64:
    """Union of two distances with a fillet (Quilez' polynomial smooth minimum)."""
    h = np.clip(0.5 + 0.5 * (b - a) / radius, 0.0, 1.0)
    return b + (a - b) * h - radius * h * (1.0 - h)


def smooth_max(a: Float64, b: Float64, radius: float) -> Float64:
    return -smooth_min(-a, -b, radius)


def _ellipsoid(x: Float64, y: Float64, z: Float64, radii: tuple[float, float, float]) -> Float64:
    k0 = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2) + 1e-9
    k1 = np.sqrt((x / radii[0] ** 2) ** 2 + (y / radii[1] ** 2) ** 2 + (z / radii[2] ** 2) ** 2) + 1e-9
    return k0 * (k0 - 1.0) / k1


def _capsule(
    x: Float64,
    y: Float64,
    z: Float64,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    start_radius: float,
    end_radius: float,
) -> Float64:
    dx, dy, dz = (e - s for s, e in zip(start, end, strict=True))
    px, py, pz = x - start[0], y - start[1], z - start[2]
    t = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0.0, 1.0)
    distance = np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2)
    return distance - (start_radius + (end_radius - start_radius) * t)


class _Curve:
    """Monotone piecewise cubic through (x, y) (Fritsch and Carlson 1980), without SciPy so that it loads fast."""

    def __init__(self, x: list[float], y: list[float]) -> None:
        self.x, self.y = np.array(x), np.array(y)
        h, slope = np.diff(self.x), np.diff(self.y) / np.diff(self.x)
        m = np.empty_like(self.y)
        m[0], m[-1] = slope[0], slope[-1]
        w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
        same = slope[1:] * slope[:-1] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            harmonic = (w1 + w2) / (w1 / slope[:-1] + w2 / slope[1:])
        m[1:-1] = np.where(same, harmonic, 0.0)
        self.m = m

    def __call__(self, at: Float64) -> Float64:
        at = np.clip(at, self.x[0], self.x[-1])
        i = np.clip(np.searchsorted(self.x, at) - 1, 0, len(self.x) - 2)
        h = self.x[i + 1] - self.x[i]
        t = (at - self.x[i]) / h
        t2, t3 = t * t, t * t * t
        return (
            (2 * t3 - 3 * t2 + 1) * self.y[i]
            + (t3 - 2 * t2 + t) * h * self.m[i]
            + (3 * t2 - 2 * t3) * self.y[i + 1]
            + (t3 - t2) * h * self.m[i + 1]
        )


# The face as horizontal superellipse slices. Heights of the slices, then per slice: half width, front (z on the
# midline), z of the widest point, back, and the superellipse's power (2 = ellipse, more = squarer).
_SLICES = [
    -0.0880,
    -0.0845,
    -0.0785,
    -0.0700,
    -0.0600,
    -0.0490,
    -0.0300,
    -0.0050,
    0.0200,
    0.0450,
    0.0700,
    0.0900,
    0.1200,
]
FACE_HALF_WIDTH = _Curve(
    _SLICES, [0.006, 0.0165, 0.0252, 0.0348, 0.0446, 0.0530, 0.0610, 0.0655, 0.0665, 0.0640, 0.0585, 0.051, 0.028]
)
_FACE_FRONT = _Curve(
    _SLICES, [0.030, 0.0425, 0.0480, 0.0490, 0.0465, 0.0475, 0.0490, 0.0485, 0.0475, 0.0485, 0.0448, 0.0350, 0.000]
)
FACE_WIDEST_Z = _Curve(
    _SLICES, [0.020, 0.0160, 0.0100, 0.0000, -0.012, -0.022, -0.032, -0.038, -0.040, -0.042, -0.042, -0.042, -0.042]
)
_FACE_BACK = _Curve(
    _SLICES, [0.010, 0.0, -0.012, -0.026, -0.048, -0.072, -0.095, -0.105, -0.105, -0.105, -0.105, -0.100, -0.070]
)
_FACE_POWER = _Curve(_SLICES, [2.0, 2.0, 2.05, 2.15, 2.25, 2.3, 2.35, 2.35, 2.3, 2.3, 2.3, 2.2, 2.0])


def neck_axis_z(y: Float64) -> Float64:
    """z of the neck's axis at height y: the base of the neck lies behind the head's centre."""
    return -0.050 - 0.30 * 0.012 * np.logaddexp(0.0, -(y + 0.092) / 0.012)


def lip_seam(x: Float64) -> Float64:
    """Height of the line where the closed lips meet: a shallow bow."""
    u = np.abs(x) / MOUTH_HALF_WIDTH
    return STOMION_Y - 0.0007 * bell(x, 0.0060) + 0.0004 * bell(u - 0.55, 0.28) + 0.0008 * np.minimum(u, 1.2) ** 4


def upper_lip_height(x: Float64) -> Float64:
    """Height of the upper vermilion above the seam, with the Cupid's bow."""
    u = np.abs(x) / MOUTH_HALF_WIDTH
    taper = np.clip(1.0 - u**2.0, 0.0, 1.0) ** 0.85
    return 0.0003 + (0.0068 + 0.0014 * bell(np.abs(x) - 0.0056, 0.0042) - 0.0010 * bell(x, 0.0030)) * taper


def lower_lip_height(x: Float64) -> Float64:
    u = np.abs(x) / MOUTH_HALF_WIDTH
    return 0.0003 + 0.0086 * np.clip(1.0 - u**3.4, 0.0, 1.0) ** 0.95


def lip_coordinate(x: Float64, y: Float64) -> Float64:
    """Height over the seam in lip heights: 0 seam, +1 upper vermilion border, -1 lower border."""
    ax = np.minimum(np.abs(x), MOUTH_HALF_WIDTH)
    over = y - lip_seam(ax)
    return np.where(
        over > 0, over / np.maximum(upper_lip_height(ax), 0.0012), over / np.maximum(lower_lip_height(ax), 0.0012)
    )


def _bumps(x: Float64, y: Float64, z: Float64) -> Float64:
    """Height of the soft forms above the basic volumes."""
    ax = np.abs(x)
    dx, dy = ax - EYE[0], y - EYE[1]
    h = 0.0026 * bell(ax - 0.025, 0.018) * bell(y - 0.0445, 0.0080)  # brow ridge
    h += 0.0015 * bell(ax - 0.042, 0.010) * bell(y - 0.0425, 0.009)
    h += 0.0012 * bell(x, 0.012) * bell(y - 0.047, 0.010)  # glabella
    h -= 0.0086 * bell(dx + 0.001, 0.0165) * bell(dy - 0.001, 0.0125)  # socket
    h -= 0.0022 * bell(ax - 0.0135, 0.0060) * bell(dy - 0.001, 0.0110)  # beside the nose's root
    h += 0.0042 * bell(ax - 0.047, 0.017) * bell(y + 0.003, 0.016)  # cheekbone
    h += 0.0030 * bell(ax - 0.031, 0.017) * bell(y + 0.013, 0.017)  # apple of the cheek
    h -= 0.0008 * bell(ax - 0.049, 0.016) * bell(y + 0.043, 0.018)  # hollow below it
    h += 0.0048 * np.exp(-((ax / 0.033) ** 3)) * bell(y - STOMION_Y - 0.001, 0.0175)  # dental arch
    fold = ax - (0.0175 + 0.55 * 0.004 * np.logaddexp(0.0, (-0.014 - y) / 0.004))
    h -= 0.0010 * bell(fold, 0.0046) * smoothstep(-0.054, -0.030, y) * smoothstep(-0.002, -0.018, y)  # nasolabial
    h -= 0.0012 * bell(x, 0.0032) * bell(y + 0.0300, 0.0060)  # philtrum and its columns
    h += 0.0005 * bell(ax - 0.0050, 0.0020) * bell(y + 0.0300, 0.0060)
    h -= 0.0019 * bell(x, 0.015) * bell(y + 0.0585, 0.0058)  # mentolabial fold
    h += 0.0030 * bell(x, 0.015) * bell(y + 0.0720, 0.0110)  # chin
    h += 0.0016 * bell(ax - 0.025, 0.016) * bell(y - 0.068, 0.014)  # frontal eminence
    h -= 0.0028 * bell(ax - 0.061, 0.013) * bell(y - 0.040, 0.020) * smoothstep(-0.01, 0.02, z)  # temple
    over = y - lip_seam(x)
    height = np.where(over > 0, upper_lip_height(x), lower_lip_height(x))
    t = over / np.maximum(height, 0.0018)
    span = np.clip(1.0 - (ax / MOUTH_HALF_WIDTH) ** 2, 0.0, 1.0) ** 0.8
    upper, lower = bell(t - 0.36, 0.58), bell(t + 0.42, 0.54)
    h += span * np.where(over > 0, 0.0040 * upper + 0.0006 * bell(x, 0.005) * upper, 0.0041 * lower)
    inside = np.clip(1.12 - (ax / MOUTH_HALF_WIDTH) ** 4, 0.0, 1.0) * (ax < MOUTH_HALF_WIDTH * 1.05)
    h -= 0.0012 * bell(over, 0.0013) * inside  # the seam's groove
    h -= 0.0011 * bell(ax - MOUTH_HALF_WIDTH - 0.0010, 0.0046) * bell(over + 0.0006, 0.0042)  # corner of the mouth
    return h * smoothstep(-0.030, 0.005, z)


def _nose(x: Float64, y: Float64, z: Float64) -> Float64:
    ax = np.abs(x)
    d = _capsule(ax, y, z, (0.0, 0.030, 0.0398), (0.0, -0.006, 0.0638), 0.0059, 0.0070)  # bridge
    d = smooth_min(d, _capsule(ax, y, z, (0.0064, 0.014, 0.0436), (0.0092, -0.010, 0.0512), 0.0064, 0.0068), 0.012)
    d = smooth_min(d, _ellipsoid(x, y + 0.0090, z - 0.0648, (0.0076, 0.0062, 0.0076)), 0.010)  # tip
    wing = _capsule(ax, y, z, (0.0070, -0.0122, 0.0595), (0.0116, -0.0144, 0.0505), 0.0036, 0.0043)
    d = smooth_min(d, wing, 0.0085)
    d = smooth_min(d, _capsule(ax, y, z, (0.0, -0.0130, 0.0635), (0.0, -0.0180, 0.0530), 0.0040, 0.0044), 0.006)
    return smooth_max(d, -_ellipsoid(ax - 0.0064, y + 0.0200, z - 0.0585, (0.0028, 0.0032, 0.0054)), 0.003)  # nostrils


def ear_frame(x: Float64, y: Float64, z: Float64) -> tuple[Float64, Float64, Float64]:
    """Coordinates in the left auricle's plate: backwards, up along the ear, outwards."""
    px, py, pz = np.abs(x) - EAR[0] - 0.16 * (y - EAR[1]), y - EAR[1], z - EAR[2]  # the top stands off
    back, out = -pz * np.cos(0.45) + px * np.sin(0.45), px * np.cos(0.45) + pz * np.sin(0.45)
    return back * np.cos(0.17) + py * np.sin(0.17), py * np.cos(0.17) - back * np.sin(0.17), out


def ear_point(back: Float64, up: Float64, out: Float64) -> Float64:
    """Inverse of :func:`ear_frame` for the left ear: [..., 3]."""
    b, py = back * np.cos(0.17) - up * np.sin(0.17), up * np.cos(0.17) + back * np.sin(0.17)
    px, pz = b * np.sin(0.45) + out * np.cos(0.45), -b * np.cos(0.45) + out * np.sin(0.45)
    return np.stack([px + 0.16 * py + EAR[0], py + EAR[1], pz + EAR[2]], -1)


def ear_outline_scale(back: Float64, up: Float64) -> Float64:
    """1 on the auricle's outline, 0 at its centre: an egg, narrow at the lobe."""
    width = 0.0168 * (1.0 - 0.30 * smoothstep(0.004, -0.032, up))
    return np.sqrt((back / width) ** 2 + (up / 0.0310) ** 2)


def ear_dish(back: Float64, up: Float64) -> Float64:
    """Height of the auricle's mid surface over its plate: concha, antihelix, scapha."""
    rho = ear_outline_scale(back, up)
    concha = np.hypot((back + 0.0035) / 0.0082, (up + 0.0040) / 0.0100)
    ridge = np.hypot((back + 0.0010) / 0.0112, (up - 0.0015) / 0.0180)
    height = -0.0062 * np.exp(-(concha**4) * 0.7)
    height += 0.0034 * bell(ridge - 1.0, 0.20) * smoothstep(-0.006, 0.001, back) * smoothstep(-0.018, -0.010, up)
    return height + 0.0012 * smoothstep(0.6, 1.0, rho)


def _ear(x: Float64, y: Float64, z: Float64) -> Float64:
    back, up, out = ear_frame(x, y, z)
    rho = ear_outline_scale(back, up)
    edge = (rho - 1.0) * 0.0165
    lobe = smoothstep(-0.014, -0.024, up)
    thickness = 0.0016 + 0.0012 * lobe
    plate = smooth_max(np.abs(out - ear_dish(back, up)) - thickness, edge + 0.001, 0.002)
    helix_radius = 0.0027 * (1.0 - lobe)
    helix = np.hypot(edge + 0.0022, out - 0.0022) - helix_radius
    d = smooth_min(plate, helix, 0.0022)
    tragus = _ellipsoid(back + 0.0128, up + 0.0035, out + 0.0005, (0.0042, 0.0058, 0.0030))
    return smooth_min(d, tragus, 0.003)


def _neck(x: Float64, y: Float64, z: Float64) -> Float64:
    axis = neck_axis_z(y)
    front = smoothstep(-0.04, 0.04, z - axis)
    d = np.sqrt(x**2 + ((z - axis) / (1.12 - 0.08 * front)) ** 2) - 0.0490
    u = np.clip((y + 0.09) / -0.10, 0.0, 1.1)
    muscle = np.abs(x) - (0.043 - 0.032 * u)  # sternocleidomastoid, towards the notch
    d = d - 0.0024 * bell(muscle, 0.010) * smoothstep(0.0, 0.03, z - axis) * smoothstep(0.0, 0.3, u)
    d = d - 0.0016 * bell(x, 0.010) * bell(y + 0.130, 0.012) * smoothstep(0.0, 0.02, z - axis)  # larynx
    shoulder = _ellipsoid(x, y + 0.262, z + 0.108, (0.160, 0.090, 0.070))
    return smooth_max(smooth_min(d, shoulder, 0.065), y + 0.02, 0.03)


def skull_distance(points: Float64) -> Float64:
    """The head without its ears: what the skin is sampled on beside them."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    zc = z + 0.050
    egg = 1.0 - 0.15 * smoothstep(-0.03, 0.09, zc) - 0.06 * smoothstep(0.0, -0.1, zc)
    cranium = _ellipsoid(x / egg, y - 0.0425, zc, (0.0770, 0.0955, 0.0965))
    width, front, widest = FACE_HALF_WIDTH(y), _FACE_FRONT(y), FACE_WIDEST_Z(y)
    back, power = _FACE_BACK(y), _FACE_POWER(y)
    dz = z - widest
    depth = np.where(dz > 0, front - widest, widest - back)
    r = np.sqrt(x * x + dz * dz) + 1e-9
    rho = ((np.abs(x) / width) ** power + (np.abs(dz) / depth) ** power) ** (1.0 / power) + 1e-9
    face = smooth_max(0.9 * r * (1.0 - 1.0 / rho), np.maximum(y - _SLICES[-1], _SLICES[0] - y), 0.008)
    d = smooth_min(cranium, face, 0.018)
    d = smooth_min(d, _neck(x, y, z), 0.016)
    d = d - _bumps(x, y, z)
    d = smooth_min(d, _nose(x, y, z), 0.0064)
    d = d + 0.0050 * bell(np.abs(x) - 0.0160, 0.0046) * bell(y - EYE[1] + 0.0006, 0.0062) * (
        z > 0.0
    )  # inner eye corner
    crease = (np.hypot((np.abs(x) - EYE[0] + 0.0005) / 0.0172, (y - EYE[1]) / 0.0106) - 1.0) * 0.0110  # fold of the lid
    d = d + 0.0007 * bell(crease, 0.0013) * smoothstep(0.001, 0.006, y - EYE[1]) * (z > 0.0)
    lid = _ellipsoid(np.abs(x) - EYE[0] + 0.0010, y - EYE[1], z - EYE[2], (LID_RADIUS + 0.0016, LID_RADIUS, LID_RADIUS))
    return smooth_min(d, lid, 0.0034)


def head_distance(points: Float64) -> Float64:
    """Signed distance of the average head's skin (negative inside). Float64 [..., 3] -> [...]."""
    return smooth_min(skull_distance(points), _ear(points[..., 0], points[..., 1], points[..., 2]), 0.0035)


_TETRAHEDRON = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], dtype=np.float64)


def gradient(points: Float64, distance: Distance = head_distance, step: float = 2e-4) -> Float64:
    """Gradient by four-point differences (the tetrahedron technique)."""
    total = np.zeros_like(points)
    for corner in _TETRAHEDRON:
        total += corner * distance(points + step * corner)[..., None]
    return total / (4.0 * step)


def project(points: Float64, distance: Distance = head_distance, iterations: int = 3) -> Float64:
    """Move points [N, 3] to the surface along the gradient, at most 4 mm a step."""
    for _ in range(iterations):
        g = gradient(points, distance)
        scale = np.clip(distance(points), -0.004, 0.004) / np.maximum((g * g).sum(-1), 0.2)
        points = points - scale[:, None] * g
    return points


def march(
    origins: Float64, directions: Float64, near: float, far: float, distance: Distance, steps: int = 40
) -> tuple[Float64, NDArray[np.bool_]]:
    """Outermost crossing along rays, searched from ``far`` inwards: points [N, 3] and whether each ray hit."""
    low, high = np.full(len(origins), near), np.full(len(origins), far)
    hit = np.zeros(len(origins), dtype=bool)
    active = np.arange(len(origins))
    samples = np.linspace(far, near, steps)
    for outer, inner in itertools.pairwise(samples):
        inside = distance(origins[active] + inner * directions[active]) < 0
        found = active[inside]
        high[found], low[found], hit[found] = outer, inner, True
        active = active[~inside]
        if not len(active):
            break
    for _ in range(12):
        middle = 0.5 * (low + high)
        inside = distance(origins + middle[:, None] * directions) < 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return origins + (0.5 * (low + high))[:, None] * directions, hit


def front(x: Float64, y: Float64) -> Float64:
    """The foremost point of the face at (x, y): [N, 3]."""
    origins = np.stack([x, y, np.zeros_like(x)], -1)
    return march(origins, np.tile([0.0, 0.0, 1.0], (len(origins), 1)), -0.03, 0.09, skull_distance, 60)[0]
