"""Strands: curves of elongated Gaussians. Where the scalp is, how light falls through hair, how curves become a layer.

Hair styles (:mod:`being_rt.avatar.demo.hair`) are drawn in the coordinates of one standard skull, so that they fit any
head: :class:`Scalp` maps between the two by landmarks that every FLAME-shaped rig has. Lengths are metres.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

from being_rt.avatar.avatar import Gaussians, HeadLayer
from being_rt.avatar.demo.cloud import _thin as thin
from being_rt.avatar.demo.cloud import nearest, quaternions, rest_positions, triangle_frames, unit
from being_rt.avatar.demo.lighting import LAMPS, Distance, Visibility
from being_rt.flame.procedural.surface import smoothstep
from being_rt.flame.rig import Rig

ROOT_REACH = 0.012  # metres: fibres this near their root follow the skin there, the others the skull

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class SampledField:
    """A signed distance field sampled once on a grid, so that growing and shading need few exact evaluations."""

    def __init__(self, distance: Distance, low: Array, high: Array, step: float = 0.005) -> None:
        self.low, self.step = np.asarray(low, np.float64), step
        counts = np.ceil((np.asarray(high) - self.low) / step).astype(int) + 1
        axes = [self.low[k] + step * np.arange(counts[k]) for k in range(3)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        self.values = distance(grid.reshape(-1, 3)).reshape(counts)
        self.slopes = [gaussian_filter(part, 0.8) for part in np.gradient(self.values, step)]

        self.high = self.low + step * (counts - 1)

    def _look_up(self, grid: Array, points: Array) -> Array:
        return map_coordinates(grid, ((points - self.low) / self.step).T, order=1, mode="nearest")

    def distance(self, points: Array) -> Array:
        """Signed distance, [N]; it grows on outside the grid."""
        inside = np.clip(points, self.low, self.high)
        return self._look_up(self.values, inside) + np.linalg.norm(points - inside, axis=1)

    def smoothed(self, radius: float) -> SampledField:
        """The same field without details smaller than ``radius`` metres: hair does not follow an ear."""
        other = copy(self)
        other.values = gaussian_filter(self.values, radius / self.step)
        other.slopes = [np.asarray(part) for part in np.gradient(other.values, self.step)]
        return other

    def normal(self, points: Array) -> Array:
        """Outward direction of the envelope through each point, [N, 3]."""
        return unit(np.stack([self._look_up(part, points) for part in self.slopes], axis=1))


def sample_head(rig: Rig, surface: Distance) -> SampledField:
    """A head's distance with room around it for hair, sampled once for hair and torso (about two seconds)."""
    vertices = rig.template.astype(np.float64)
    return SampledField(
        surface,
        vertices.min(axis=0) - np.array([0.03, 0.03, 0.04]),
        vertices.max(axis=0) + np.array([0.03, 0.04, 0.03]),
        0.0045,
    )


class Scalp:
    """The head under the hair: standard coordinates, hairline, roots, and triangles to bind to.

    Standard skull (the coordinates of all hair styles): eyes at y 0.025, crown at y 0.138, cranium +-0.0765 wide,
    forehead at z 0.046, ears at z -0.034, occiput at z -0.1465; the same axes as FLAME space.
    """

    EYE, CROWN, HALF_WIDTH = 0.025, 0.138, 0.0765
    FOREHEAD, EAR, OCCIPUT = 0.046, -0.034, -0.1465

    def __init__(self, rig: Rig, head: SampledField) -> None:
        self.rig = rig
        self.field = head
        self.envelope = head.smoothed(0.014)
        vertices = rig.template.astype(np.float64)
        self.vertices = vertices
        eye = rig.joint_rest[3:5].astype(np.float64).mean(axis=0)
        crown = vertices[:, 1].max()
        upper = vertices[:, 1] > eye[1] + 0.35 * (crown - eye[1])
        lateral = np.where(vertices[:, 1] > eye[1] - 0.055, np.abs(vertices[:, 0]), 0.0)  # not the shoulders
        ears = lateral > lateral.max() - 0.008
        forehead = upper & (np.abs(vertices[:, 0]) < 0.02)
        self._x_scale = self.HALF_WIDTH / np.abs(vertices[upper, 0]).max()
        self._y_scale = (self.CROWN - self.EYE) / (crown - eye[1])
        self._y_eye = eye[1]
        ear_z = vertices[ears, 2].mean() + 0.006
        self._z_from = np.array([vertices[upper, 2].min(), ear_z, vertices[forehead, 2].max()])
        self._z_to = np.array([self.OCCIPUT, self.EAR, self.FOREHEAD])
        self._corners = vertices[rig.faces]
        edges = self._corners[:, 1:] - self._corners[:, :1]
        across = np.cross(edges[:, 0], edges[:, 1])
        self.area = 0.5 * np.linalg.norm(across, axis=1)
        self.frames = triangle_frames(rig)
        self._centre = self._corners.mean(axis=1)
        standard = self.standard(self._centre)
        outside = np.abs(self.field.distance(self._centre)) < 0.006
        self._ear = np.abs(self.standard(vertices[ears]) * [1.0, 0.0, 0.0]) + self.standard(vertices[ears]) * [
            0.0,
            1.0,
            1.0,
        ]
        self.on_cranium = outside & (standard[:, 1] > -0.075) & self._is_outer(across) & ~self.on_ear(self._centre)
        # Long hair hangs on triangles that neither expressions nor the neck's bend move: the upper, rear cranium.
        steady = self.on_cranium & (standard[:, 1] > 0.05) & (standard[:, 2] < 0.0)
        self._steady = np.flatnonzero(steady)
        self._steady_tree = nearest(self._centre[self._steady])

    def _is_outer(self, across: Array) -> NDArray[np.bool_]:
        return np.einsum("fd,fd->f", unit(across), self.field.normal(self._centre)) > 0.2

    def on_ear(self, points: Array) -> NDArray[np.bool_]:
        """Which points lie on or over an auricle, [N]."""
        place = self.standard(points)
        middle = self._ear.mean(axis=0)
        oval = np.hypot((place[:, 1] - middle[1]) / 0.036, (place[:, 2] - middle[2] - 0.004) / 0.024)
        return (np.abs(place[:, 0]) > middle[0] - 0.014) & (oval < 1.0)

    def standard(self, points: Array) -> Array:
        """FLAME space to the standard skull, [N, 3]."""
        z = np.interp(points[:, 2], self._z_from, self._z_to)
        z += np.minimum(points[:, 2] - self._z_from[0], 0.0) + np.maximum(points[:, 2] - self._z_from[2], 0.0)
        y = self.EYE + (points[:, 1] - self._y_eye) * self._y_scale
        return np.stack([points[:, 0] * self._x_scale, y, z], axis=1)

    def from_standard(self, points: Array) -> Array:
        """The standard skull to FLAME space, [N, 3]."""
        z = np.interp(points[:, 2], self._z_to, self._z_from)
        z += np.minimum(points[:, 2] - self._z_to[0], 0.0) + np.maximum(points[:, 2] - self._z_to[2], 0.0)
        y = self._y_eye + (points[:, 1] - self.EYE) / self._y_scale
        return np.stack([points[:, 0] / self._x_scale, y, z], axis=1)

    def roots(self, inside: Array, density: Array, count: int, rng: np.random.Generator) -> tuple[Index, Array, Array]:
        """About ``count`` evenly spread points on the triangles where ``inside`` [F] > 0.

        ``density`` [F] is relative. Returns triangle [N], barycentrics [N, 3] and position [N, 3].
        """
        faces = np.flatnonzero(self.on_cranium & (inside > 0))
        mass = self.area[faces] * density[faces]
        pick = rng.choice(faces, size=6 * count + 16, p=mass / mass.sum())
        first, second = rng.random((2, len(pick)))
        fold = first + second > 1
        first[fold], second[fold] = 1 - first[fold], 1 - second[fold]
        weights = np.stack([1 - first - second, first, second], axis=1)
        points = np.einsum("nk,nkd->nd", weights, self._corners[pick])
        radius = np.sqrt(0.66 * mass.sum() / count) / np.sqrt(density[pick])  # random disks fill about two thirds
        keep = thin(points, radius, rng)
        return pick[keep], weights[keep], points[keep]

    def steady_triangle(self, points: Array) -> Index:
        """Nearest triangle to each point [N] that neither expressions nor the neck's bend move against the skull."""
        return self._steady[self._steady_tree.query(points)[1]]

    def triangle_centres(self) -> Array:
        """Standard place of every triangle, [F, 3]."""
        return self.standard(self._centre)

    def hairline(self, points: Array, style: Hairline) -> Array:
        """Signed distance from the hairline along the skin, positive within the hair, roughly metres, [N]."""
        return style.distance(self.standard(points))


@dataclass(frozen=True)
class Hairline:
    """Where hair begins: height over azimuth around the vertical axis through the ears, on the standard skull.

    ``azimuth`` is in degrees, 0 in front, 180 behind; the curve is the same left and right.
    """

    azimuth: tuple[float, ...]
    height: tuple[float, ...]

    def distance(self, standard: Array) -> Array:
        """Signed distance, positive inside the hair, [N]."""
        curve = PchipInterpolator(self.azimuth, self.height)
        reach = np.hypot(standard[:, 0], standard[:, 2] - Scalp.EAR)
        azimuth = np.degrees(np.arctan2(np.abs(standard[:, 0]), standard[:, 2] - Scalp.EAR))
        slope = curve(azimuth, 1) * 180.0 / np.pi / np.maximum(reach, 0.03)
        return (standard[:, 1] - curve(azimuth)) / np.sqrt(1.0 + slope**2)


@dataclass
class Strands:
    """Curves of the same number of nodes, each with what its Gaussians need. N curves, S segments."""

    nodes: Array  # [N, S + 1, 3]
    triangle: Index  # [N] of the root; -1: carried by the skull alone
    albedo: Array  # [N, 3] linear
    width: Array  # [N] standard deviation across, metres
    opacity: Array  # [N]
    flatness: float = 0.7  # thickness along the normal over width
    root_shade: float = 0.55  # albedo factor at the root
    tip_width: float = 0.5  # width factor at the tip
    tip_fade: float = 0.6  # opacity factor at the tip
    root_fade: float = 1.0  # opacity factor at the root
    gloss: float = 1.0


@dataclass
class Fibres:
    """Single elongated Gaussians in FLAME space, before light."""

    centre: Array
    tangent: Array
    normal: Array
    scale: Array  # [N, 3] standard deviations along tangent, normal x tangent, normal
    albedo: Array
    opacity: Array
    triangle: Index
    gloss: Array

    def __getitem__(self, selection: NDArray[np.generic]) -> Fibres:
        return Fibres(*(getattr(self, name)[selection] for name in self.__dataclass_fields__))

    @staticmethod
    def concatenate(parts: list[Fibres]) -> Fibres:
        """All of them, in order."""
        names = Fibres.__dataclass_fields__
        return Fibres(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def fibres(strands: Strands, scalp: Scalp, overlap: float = 0.46) -> Fibres:
    """One Gaussian per segment; ``overlap`` is its deviation along the strand over the segment's length."""
    count, segments = strands.nodes.shape[0], strands.nodes.shape[1] - 1
    step = np.diff(strands.nodes, axis=1)
    lever = np.linalg.norm(strands.nodes[:, 1:] - strands.nodes[:, :1], axis=2)
    length = np.linalg.norm(step, axis=2)
    centre = 0.5 * (strands.nodes[:, 1:] + strands.nodes[:, :-1])
    s = (np.arange(segments) + 0.5) / segments
    width = strands.width[:, None] * (1.0 - (1.0 - strands.tip_width) * np.clip(s / 0.9, 0, 1) ** 3)
    fade = (1.0 - (1.0 - strands.tip_fade) * s**3) * (
        strands.root_fade + (1 - strands.root_fade) * smoothstep(0.0, 0.3, s)
    )
    shade = strands.root_shade + (1.0 - strands.root_shade) * smoothstep(0.0, 0.4, s)
    flat = centre.reshape(-1, 3)
    normal = scalp.field.normal(flat)
    tangent = unit(step.reshape(-1, 3))
    normal = unit(normal - np.einsum("nd,nd->n", normal, tangent)[:, None] * tangent)
    scale = np.stack([length * overlap, width, width * strands.flatness], axis=2).reshape(-1, 3)
    return Fibres(
        flat,
        tangent,
        normal,
        scale,
        (strands.albedo[:, None, :] * shade[None, :, None]).reshape(-1, 3),
        (strands.opacity[:, None] * fade).reshape(-1),
        np.where(lever < ROOT_REACH, strands.triangle[:, None], -1).reshape(-1),
        np.full(count * segments, strands.gloss),
    )


class HairDensity:
    """Hair as a density on a grid, through which light is marched (Beer-Lambert): a voxel form of deep opacity maps
    (Yuksel and Keyser, "Deep opacity maps", CGF 2008).

    Args:
        centre: places of the Gaussians [N, 3].
        along: their long half axes, one standard deviation [N, 3].
        area: the silhouette of each, square metres [N].
        cell: edge of a voxel, metres.
    """

    def __init__(self, centre: Array, along: Array, area: Array, cell: float = 0.003) -> None:
        self._low, self._cell = centre.min(axis=0) - 3 * cell, cell
        shape = np.ceil((centre.max(axis=0) + 3 * cell - self._low) / cell).astype(int) + 1
        spots = centre[:, None] + along[:, None] * np.array([-1.2, 0.0, 1.2])[None, :, None]
        cells = np.clip(np.rint((spots - self._low) / cell).astype(int), 0, shape - 1).reshape(-1, 3)
        density = np.zeros(shape)
        np.add.at(density, tuple(cells.T), np.repeat(area / 3.0, 3))
        self._density = gaussian_filter(density, 0.9) / cell**3  # area per volume, 1/m

    def passed(self, start: Array, direction: Array, reach: float, head: Distance | None = None) -> Array:
        """Share of light that reaches ``start`` [N, 3] from ``direction`` ([3] or [N, 3]); ``head`` blocks it, too."""
        depth, blocked = np.zeros(len(start)), np.ones(len(start))
        walked = step = 0.003
        while walked < reach:
            at = start + direction * walked
            cell = ((at - self._low) / self._cell).T
            depth += step * map_coordinates(self._density, cell, order=1, mode="constant")
            if head is not None:
                blocked = np.minimum(blocked, np.clip(0.7 + head(at) / (0.15 * walked + 0.004), 0.0, 1.0))
            walked += step
            step *= 1.18
        return np.exp(-0.55 * depth) * blocked


def layer_density(rig: Rig, hair: HeadLayer) -> HairDensity:
    """The density of a finished hair layer, for the shadows that it casts on shoulders."""
    gaussians = hair.gaussians
    scale = np.exp(gaussians.log_scale.astype(np.float64))
    w, x, y, z = gaussians.rotation.astype(np.float64).T
    first = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], axis=1)
    along = np.einsum("nij,nj->ni", triangle_frames(rig)[hair.face], first) * scale[:, :1]
    opacity = 1.0 / (1.0 + np.exp(-gaussians.opacity_logit.astype(np.float64)))
    return HairDensity(rest_positions(rig, hair), along, scale[:, 0] * scale[:, 1] * 2.0 * np.pi * opacity)


def light_through(hair: Fibres, scalp: Scalp) -> Visibility:
    """How much light reaches each fibre: the head blocks it, other hair absorbs it."""
    area = hair.scale[:, 0] * hair.scale[:, 1] * 2.0 * np.pi * hair.opacity
    density = HairDensity(hair.centre, hair.tangent * hair.scale[:, :1], area)
    head = scalp.field.distance
    lamps = np.stack([density.passed(hair.centre, lamp.direction, 0.09, head) for lamp in LAMPS], axis=1)
    outward = hair.normal
    side = unit(np.cross(outward, [0.21, 0.93, 0.3]))
    other = np.cross(outward, side)
    bent = np.zeros_like(outward)
    ambient = np.zeros(len(outward))
    for u, v, w in ((0.0, 0.0, 1.0), (0.8, 0.0, 0.6), (-0.8, 0.0, 0.6), (0.0, 0.8, 0.6), (0.0, -0.8, 0.6)):
        direction = u * side + v * other + w * outward
        free = density.passed(hair.centre, direction, 0.04, head)
        ambient += free / 5.0
        bent += free[:, None] * direction
    return Visibility(ambient, unit(bent + 0.1 * outward), lamps)


def pack(
    position: Array, axes: Array, scale: Array, opacity: Array, colour: Array, facing_fade: NDArray[np.bool_]
) -> Gaussians:
    """The stored record: log scales, logits, quaternions. ``axes`` [N, 3, 3] has the Gaussian's axes as columns."""
    opacity = np.clip(opacity, 0.004, 0.996)
    return Gaussians(
        position=np.ascontiguousarray(position, np.float32),
        rotation=quaternions(axes).astype(np.float32),
        log_scale=np.log(np.maximum(scale, 2e-5)).astype(np.float32),
        opacity_logit=np.log(opacity / (1.0 - opacity)).astype(np.float32),
        colour=np.clip(colour, 0.0, 1.0).astype(np.float32),
        facing_fade=facing_fade,
    )


def head_layer(hair: Fibres, colour: Array, scalp: Scalp) -> HeadLayer:
    """Bind fibres to their triangles, in the frames [t b n] of the rest pose."""
    triangle = hair.triangle.copy()
    loose = triangle < 0
    triangle[loose] = scalp.steady_triangle(hair.centre[loose])
    corners = scalp.vertices[scalp.rig.faces[triangle]]
    frames = scalp.frames[triangle]
    axes = np.stack([hair.tangent, np.cross(hair.normal, hair.tangent), hair.normal], axis=2)
    offset = hair.centre - corners.mean(axis=1)
    gaussians = pack(
        np.einsum("nji,nj->ni", frames, offset),
        np.einsum("nji,njk->nik", frames, axes),
        hair.scale,
        hair.opacity,
        colour,
        np.zeros(len(offset), bool),
    )
    return HeadLayer(gaussians, triangle.astype(np.int32), np.full((len(offset), 3), 1 / 3, np.float32))
