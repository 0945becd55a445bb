"""The body under the head, undressed, and Gaussians scattered over it. Metres, FLAME space.

It is one signed distance function that joins the head's own (so that skin meets skin without a step) with simple
volumes of human proportions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import unit
from being_rt.avatar.demo.lighting import Distance, Visibility
from being_rt.avatar.demo.strands import SampledField, thin
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import smooth_min
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]
See = Callable[[Array, Array, Distance], Visibility]  # points, normals, what blocks the light

REFERENCE_ROOT = np.array([0.0, -0.193, -0.072])  # where the body was drawn with its global joint
LOW, HIGH = np.array([-0.285, -0.250, -0.15]), np.array([0.285, 0.125, 0.17])  # of the torso, about the global joint


def _ellipsoid(p: Array, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Array:
    q = p - np.asarray(centre)
    k0 = np.sqrt(((q / radii) ** 2).sum(axis=1)) + 1e-9
    k1 = np.sqrt(((q / np.square(radii)) ** 2).sum(axis=1)) + 1e-9
    return k0 * (k0 - 1.0) / k1


def _capsule(p: Array, start: tuple[float, ...], end: tuple[float, ...], r0: float, r1: float) -> Array:
    a, d = np.asarray(start), np.subtract(end, start)
    t = np.clip((p - a) @ d / (d @ d), 0.0, 1.0)
    return np.linalg.norm(p - a - t[:, None] * d, axis=1) - (r0 + (r1 - r0) * t)


class Body:
    """Neck and torso of one person.

    Args:
        rig: the head; its global joint places the shoulders.
        head: the same head's distance.
        traits: femininity narrows the shoulders and rounds the chest.
    """

    def __init__(self, rig: Rig, head: SampledField, traits: PersonTraits) -> None:
        self.root = rig.joint_rest[0].astype(np.float64)
        self._feminine = float(traits.femininity)
        self._head = head
        self._field = SampledField(self._exact, self.root + LOW - 0.01, self.root + HIGH, 0.005)

    def neck_distance(self, points: Array) -> Array:
        """Signed distance of the head, [N]."""
        return self._head.distance(points)

    def signed_distance(self, points: Array) -> Array:
        """Signed distance of body and neck, sampled every 5 mm; good for hair, shadows and first guesses, [N]."""
        return self._field.distance(points)

    def normal(self, points: Array) -> Array:
        """Outward direction, from the samples, [N, 3]."""
        return self._field.normal(points)

    def _exact(self, points: Array) -> Array:
        p = points - self.root + REFERENCE_ROOT
        p = np.stack([np.sqrt(p[:, 0] ** 2 + 0.012**2) - 0.002, p[:, 1], p[:, 2]], axis=1)  # no crease on the midline
        f = self._feminine
        reach = 0.170 - 0.022 * f  # of the shoulder joint
        d = _capsule(p, (0.010, -0.176, -0.100), (reach, -0.240, -0.090), 0.034 - 0.004 * f, 0.042 - 0.004 * f)
        d = smooth_min(d, _ellipsoid(p, (0.0, -0.400, -0.082), (0.170 - 0.022 * f, 0.205, 0.104 - 0.006 * f)), 0.045)
        deltoid = (0.050 - 0.006 * f, 0.066, 0.054 - 0.006 * f)
        d = smooth_min(d, _ellipsoid(p, (reach + 0.004, -0.286, -0.088), deltoid), 0.045)
        arm = _capsule(p, (reach + 0.014, -0.29, -0.086), (reach + 0.036, -0.50, -0.080), 0.044 - 0.006 * f, 0.038)
        d = smooth_min(d, arm, 0.02)
        d = smooth_min(d, _ellipsoid(p, (0.080, -0.322, -0.022), (0.085, 0.062, 0.038)), 0.05)
        d = smooth_min(d, _ellipsoid(p, (0.078, -0.375, -0.010), (0.064, 0.066, 0.020 + 0.044 * f)), 0.03)
        bone = _capsule(p, (0.020, -0.211, -0.026), (0.085, -0.208, -0.052), 0.0080, 0.0070)
        bone = np.minimum(bone, _capsule(p, (0.085, -0.208, -0.052), (reach - 0.02, -0.214, -0.090), 0.0070, 0.0070))
        d = smooth_min(d, bone + 0.0015, 0.022)
        d = -smooth_min(-d, _ellipsoid(p, (0.0, -0.206, -0.018), (0.012, 0.012, 0.011)), 0.016)  # the notch
        # Above the shoulders only the head itself is left: nothing is rounded off under the jaw.
        return smooth_min(d, self.neck_distance(points), 0.020)

    def exact_distance(self, points: Array) -> Array:
        """Signed distance of body and neck without interpolation but for the neck, [N]."""
        return self._exact(points)

    def outwards(self, azimuth: Array, height: Array, reach: float = 0.30) -> Array:
        """Where the body ends at an azimuth about the neck's axis (0 front, towards +x), [N, 3].

        ``height`` is over the global joint.
        """
        direction = np.stack([np.sin(azimuth), np.zeros_like(azimuth), np.cos(azimuth)], axis=1)
        start = self.axis(height)
        low = np.full(len(azimuth), 0.01)
        within = np.ones(len(azimuth), bool)
        for step in np.linspace(0.01, reach, 60):
            within &= self.signed_distance(start + direction * step) < 0
            low = np.where(within, step, low)
        high = low + reach / 58
        for _ in range(12):
            middle = 0.5 * (low + high)
            inside = self._exact(start + direction * middle[:, None]) < 0
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        return start + direction * low[:, None]

    def axis(self, height: Array) -> Array:
        """The neck's axis at heights over the global joint, [N, 3]; it leans back downwards."""
        z = 0.004 + 0.20 * np.clip(height, -0.02, 0.12)
        return self.root + np.stack([np.zeros_like(height), height, z], axis=1)

    def azimuth(self, points: Array) -> Array:
        """Azimuth about the neck's axis, 0 in front, positive towards +x, [N]."""
        from_axis = points - self.axis(points[:, 1] - self.root[1])
        return np.arctan2(from_axis[:, 0], from_axis[:, 2])


def gradient_normal(points: Array, distance: Distance, step: float = 0.0008) -> Array:
    """Unit gradient by the tetrahedron technique, [N, 3]."""
    total = np.zeros_like(points)
    for corner in np.array([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]):
        total += corner * distance(points + step * corner)[:, None]
    return unit(total)


@dataclass
class Patch:
    """Gaussians of the torso before they are packed. N of them; ``hold`` 0 moves with the neck, 1 with the chest."""

    position: Array
    normal: Array
    tangent: Array
    scale: Array
    colour: Array
    opacity: Array
    hold: Array
    matched: Array  # 0..1: takes the colour match at the seam
    fade: bool = True


def scatter_on(
    body: Body,
    offset: float,
    low: Array,
    high: Array,
    spacing: Callable[[Array], Array] | float,
    rng: np.random.Generator,
    turned: float = -0.30,
) -> Array:
    """Points of the body's surface moved out by ``offset``, evenly spread, those that a viewer in front can see.

    ``spacing``: metres between neighbours, or a function of points that gives it. ``turned``: least z of the normal.
    """
    cell = 0.006
    counts = np.ceil((high - low) / cell).astype(int)
    axes = [low[k] + cell * (np.arange(counts[k]) + 0.5) for k in range(3)]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    near = centres[np.abs(body.signed_distance(centres) - offset) < 0.9 * cell]
    points = np.repeat(near, 6, axis=0) + rng.uniform(-0.5, 0.5, (6 * len(near), 3)) * cell
    for _ in range(2):
        away = body.signed_distance(points) - offset
        points = points - body.normal(points) * np.clip(away, -0.006, 0.006)[:, None]
    normal = body.normal(points)
    points = points[(normal[:, 2] > turned) & (points > low).all(axis=1) & (points < high).all(axis=1)]
    radius = spacing(points) if callable(spacing) else np.full(len(points), spacing)
    return points[thin(points, radius, rng)]
