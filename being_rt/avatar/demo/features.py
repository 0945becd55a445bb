"""Where a point lies on the average face: by the eye, on which lip, in the beard. The maps that skin is painted with.

All functions take points on the average head [N, 3] (metres), so that one set of maps serves every identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import nearest, noise
from being_rt.flame.model import FlameModel
from being_rt.flame.procedural import surface
from being_rt.flame.procedural.surface import bell, smoothstep

Array = NDArray[np.float64]
EYE, MOUTH_Y, MOUTH_HALF = surface.EYE, surface.STOMION_Y, surface.MOUTH_HALF_WIDTH
LID_RADIUS = surface.LID_RADIUS
NOSE_TIP_Y = -0.010


def landmark_points(model: FlameModel, vertices: Array, name: str) -> Array:
    """Places of a landmark set on the given vertices, [L, 3]."""
    face, weight = model.landmarks[name]
    return np.einsum("lk,lkd->ld", weight.astype(np.float64), vertices[model.faces[face]])


def resample(curve: Array, count: int) -> Array:
    """A polyline [M, 3] at ``count`` points of equal arc length."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count)
    return np.stack([np.interp(at, length, curve[:, axis]) for axis in range(3)], 1)


def smooth_curve(curve: Array, count: int, rounds: int = 3) -> Array:
    """Resample a polyline and take its corners off, ends fixed."""
    curve = resample(curve, count)
    for _ in range(rounds):
        curve[1:-1] = 0.25 * curve[:-2] + 0.5 * curve[1:-1] + 0.25 * curve[2:]
    return curve


class FaceMap:
    """The average face's curves (lid rims, brows), and maps over it.

    Example::

        place = FaceMap(model).locate(points)
        lips = place.lips
    """

    def __init__(self, model: FlameModel) -> None:
        average = model.template.astype(np.float64)
        self.rims: dict[str, Array] = {}
        for side in ("left", "right"):
            for lid in ("upper", "lower"):
                curve = landmark_points(model, average, f"eyelid_{lid}_{side}")
                if abs(curve[0, 0]) > abs(curve[-1, 0]):
                    curve = curve[::-1]
                self.rims[f"{lid}_{side}"] = smooth_curve(curve, 80)
        self._rim_points = np.concatenate(list(self.rims.values()))
        self._rim_tree: Any = nearest(self._rim_points)

    def locate(self, points: Array) -> Place:
        return Place(points, self)

    def rim_distance(self, points: Array) -> Array:
        return self._rim_tree.query(points)[0]


@dataclass(frozen=True, eq=False)
class Place:
    """Maps at points [N, 3]; each property is [N], in 0..1 unless its name or comment says otherwise."""

    points: Array
    map: FaceMap

    @cached_property
    def x(self) -> Array:
        return self.points[:, 0]

    @cached_property
    def y(self) -> Array:
        return self.points[:, 1]

    @cached_property
    def z(self) -> Array:
        return self.points[:, 2]

    @cached_property
    def ax(self) -> Array:
        return np.abs(self.points[:, 0])

    @cached_property
    def front(self) -> Array:
        """1 on the face, 0 behind the temples and on the neck's back."""
        return smoothstep(-0.020, 0.015, self.z)

    @cached_property
    def lip(self) -> Array:
        """Signed lip coordinate: 0 seam, +1 upper border, -1 lower border."""
        return surface.lip_coordinate(self.x, self.y)

    @cached_property
    def lips(self) -> Array:
        along = smoothstep(MOUTH_HALF - 0.0002, MOUTH_HALF - 0.0040, self.ax)
        edge = 1.0 + 0.03 * np.cos(self.x * 2100.0)
        return smoothstep(1.20, 0.86, np.abs(self.lip) * edge) * along * (self.z > 0.015)

    @cached_property
    def seam(self) -> Array:
        """Depth in the crease between the closed lips."""
        height = self.y - surface.lip_seam(np.minimum(self.ax, MOUTH_HALF))
        return bell(height, 0.00085) * smoothstep(MOUTH_HALF + 0.0002, MOUTH_HALF - 0.0040, self.ax) * self.front

    @cached_property
    def rim(self) -> Array:
        """Distance to the nearest lid rim, metres."""
        return self.map.rim_distance(self.points)

    @cached_property
    def eye_x(self) -> Array:
        """Sideways distance from the eye's centre, metres, positive towards the temple."""
        return self.ax - EYE[0]

    @cached_property
    def eye_y(self) -> Array:
        return self.y - EYE[1]

    @cached_property
    def upper_lid(self) -> Array:
        arch = self.eye_y - 0.0035 - 0.0035 * bell(self.eye_x, 0.013)
        return bell(self.eye_x, 0.0165) * bell(arch, 0.0058) * self.front

    @cached_property
    def under_eye(self) -> Array:
        """The tear trough: from the inner corner, below the lower lid, fading outwards."""
        trough = self.eye_y + 0.0105 + 0.10 * (self.eye_x + 0.010)
        return bell(self.eye_x + 0.0045, 0.0150) * bell(trough, 0.0052) * self.front

    @cached_property
    def cheek(self) -> Array:
        return np.exp(-(((self.ax - 0.036) / 0.023) ** 2) - ((self.y + 0.004) / 0.018) ** 2) * self.front

    @cached_property
    def nose(self) -> Array:
        bridge = bell(self.ax, 0.0125) * smoothstep(0.024, 0.004, self.y) * smoothstep(-0.026, -0.020, self.y)
        return bridge * smoothstep(0.046, 0.054, self.z)

    @cached_property
    def nose_tip(self) -> Array:
        return np.exp(-((self.ax / 0.0085) ** 2) - ((self.y - NOSE_TIP_Y) / 0.0085) ** 2) * smoothstep(
            0.05, 0.06, self.z
        )

    @cached_property
    def ala(self) -> Array:
        """Wings of the nose and the crease behind them."""
        return np.exp(-(((self.ax - 0.0145) / 0.0050) ** 2) - ((self.y + 0.0150) / 0.0068) ** 2) * self.front

    @cached_property
    def ear(self) -> Array:
        return (
            smoothstep(0.066, 0.072, self.ax) * smoothstep(-0.036, -0.028, self.y) * smoothstep(-0.026, -0.034, self.z)
        )

    @cached_property
    def forehead(self) -> Array:
        return bell(self.ax, 0.060) * smoothstep(0.044, 0.056, self.y) * smoothstep(0.102, 0.080, self.y) * self.front

    @cached_property
    def chin(self) -> Array:
        return np.exp(-((self.ax / 0.017) ** 2) - ((self.y + 0.073) / 0.012) ** 2) * self.front

    @cached_property
    def t_zone(self) -> Array:
        """Where skin is oily: middle of the forehead, nose, a little chin."""
        middle = bell(self.ax, 0.026) * smoothstep(0.040, 0.052, self.y) * self.front
        return np.clip(0.85 * middle + self.nose + self.nose_tip + 0.45 * self.chin, 0.0, 1.0)

    @cached_property
    def fold(self) -> Array:
        """Signed distance across the nasolabial fold, metres, positive on the cheek's side."""
        below = np.clip(-0.010 - self.y, 0.0, 0.05)
        return self.ax - (0.0165 + 0.62 * below - 4.2 * below**2)

    @cached_property
    def fold_length(self) -> Array:
        return smoothstep(-0.052, -0.034, self.y) * smoothstep(-0.006, -0.017, self.y) * self.front

    @cached_property
    def neck(self) -> Array:
        return smoothstep(-0.086, -0.112, self.y - 0.35 * np.clip(self.z, 0.0, 0.05))

    @cached_property
    def beard(self) -> Array:
        """Where a beard grows: moustache, chin, jaw, sideburns, upper neck."""
        ragged = 0.0016 * noise(self.points, 0.013, 83) + 0.0005 * noise(self.points, 0.004, 84)
        y = self.y + ragged
        cheek_line = -0.024 - 0.42 * np.clip(0.052 - self.ax, 0.0, 0.03) + 0.9 * np.clip(-self.z - 0.004, 0.0, 0.05)
        jaw = smoothstep(0.004, -0.011, y - cheek_line) * smoothstep(-0.136, -0.106, y)
        inside = smoothstep(0.019, 0.028, self.ax + 0.45 * np.clip(-0.052 - y, 0.0, 0.06))
        chin = smoothstep(-0.0545, -0.0620, y)
        soul = bell(self.ax, 0.0060) * smoothstep(-0.0535, -0.0570, y) * smoothstep(-0.080, -0.070, y)
        moustache = smoothstep(-0.0195, -0.0285, y) * smoothstep(0.032, 0.022, self.ax) * (self.y > MOUTH_Y - 0.004)
        moustache *= 1.0 - 0.45 * bell(self.ax, 0.0022)
        beside = smoothstep(0.0225, 0.0275, self.ax) * smoothstep(0.038, 0.030, self.ax)
        beside *= smoothstep(-0.028, -0.038, y) * smoothstep(-0.085, -0.070, y)
        grown = np.maximum.reduce([jaw * np.maximum(inside, chin), moustache, beside, 0.8 * soul])
        burn = smoothstep(-0.016, -0.027, self.z + ragged) * smoothstep(-0.045, -0.038, self.z)
        burn *= smoothstep(0.056, 0.044, self.y)
        grown = np.maximum(grown, burn * (self.ax > 0.055) * (self.y > -0.05))
        clear = (
            (1.0 - self.lips)
            * smoothstep(-0.060, -0.020, self.z)
            * smoothstep(1.04, 1.28, np.abs(self.lip) + 2 * (self.ax > MOUTH_HALF))
        )
        return grown * clear * (1.0 - self.ear)
