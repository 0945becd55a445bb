"""Clothes: shells over the body with folds, and strips of cloth for everything that has an edge.

A shell covers the body below a neckline. Its raw edge lies under a strip: a ribbed band, a shirt's collar, a lapel.
Strips are surfaces over a curve around the neck and a way across, so that their edges are clean lines. Heights are
metres over the global joint, azimuths run around the neck's axis from the front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from being_rt.avatar.demo.cloud import bell, noise, smoothstep, unit
from being_rt.avatar.demo.lighting import Distance, Visibility, develop, diffuse, linear, specular
from being_rt.avatar.demo.torso import HIGH, LOW, Body, Patch, See, gradient_normal, scatter_on
from being_rt.avatar.demo.traits import PersonTraits

Array = NDArray[np.float64]

# Necklines: height over azimuth in degrees (0 front, 180 behind).
_DEGREES = (0.0, 10.0, 22.0, 36.0, 50.0, 70.0, 95.0, 130.0, 180.0)
NECKLINES = {
    "crew": (-0.024, -0.023, -0.018, -0.007, 0.006, 0.021, 0.028, 0.031, 0.032),
    "vneck": (-0.112, -0.086, -0.055, -0.025, 0.001, 0.021, 0.028, 0.031, 0.032),
    "open": (-0.096, -0.072, -0.044, -0.016, 0.004, 0.019, 0.026, 0.028, 0.028),
    "closed": (-0.008, -0.008, -0.006, 0.000, 0.009, 0.021, 0.028, 0.031, 0.032),
    "jacket": (-0.235, -0.160, -0.098, -0.047, -0.004, 0.018, 0.024, 0.026, 0.028),
}


@dataclass(frozen=True)
class Cloth:
    """What a garment is made of."""

    albedo: Array  # [3] linear
    roughness: float = 0.85
    sheen: float = 0.020  # reflectance of its highlight
    fuzz: float = 0.25  # brightening towards the outline, by fibres that stand off
    grain: float = 0.03  # spread of brightness from thread to thread
    yarn: tuple[float, float, float] = (0.0022, 0.00050, 0.0)  # length, width, slant (radians) of visible threads
    contrast: float = 0.10  # spread of their brightness


def _crease(phase: Array) -> Array:
    """A wave with narrow crests and wide valleys, as cloth folds, -0.4..1.1."""
    return 1.5 * (0.5 + 0.5 * np.sin(phase)) ** 2.2 - 0.4


class Neckline:
    """A closed curve around the neck on the body."""

    def __init__(self, body: Body, heights: tuple[float, ...]) -> None:
        self._height = PchipInterpolator(np.radians(_DEGREES), heights)
        self._body = body
        dense = np.linspace(-np.pi, np.pi, 1441)
        points = body.outwards(dense, self._height(np.abs(dense)))
        points[1:-1] = 0.25 * points[:-2] + 0.5 * points[1:-1] + 0.25 * points[2:]
        run = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
        self.length = float(run[-1])
        self._run, self._azimuth, self._points = run, dense, points
        self._tree = cKDTree(points)

    def above(self, points: Array) -> Array:
        """Distance from the curve, positive above it where skin shows, [N]."""
        side = points[:, 1] - self._body.root[1] - self._height(np.abs(self._body.azimuth(points)))
        return np.where(side > 0, 1.0, -1.0) * self._tree.query(points)[0]

    def at(self, share: Array) -> tuple[Array, Array]:
        """Points [N, 3] and azimuths [N] at shares 0..1 of the length, from behind over the subject's right."""
        run = np.clip(share, 0.0, 1.0) * self.length
        point = np.stack([np.interp(run, self._run, self._points[:, k]) for k in range(3)], axis=1)
        return point, np.interp(run, self._run, self._azimuth)


def dress(body: Body, traits: PersonTraits, see: See, rng: np.random.Generator) -> tuple[list[Patch], Distance]:
    """Clothes of one person.

    Returns:
        Patches of Gaussians; a function that is positive where skin stays bare.
    """
    main, under = linear(traits.garment_colour), linear(traits.undershirt_colour)
    knit = Cloth(main, 0.95, 0.012, 0.35, 0.040, (0.0019, 0.00055, 0.0), 0.13)
    tailor = Tailor(body, traits, see, rng)
    kind = traits.garment
    if kind == "crew":
        line = Neckline(body, NECKLINES["crew"])
        tailor.shell(line, knit, 0.0042, 0.0125)
        tailor.band(line, knit, 0.0042, 0.019)
        bare: Distance = line.above
    elif kind == "vneck":
        line, inner = Neckline(body, NECKLINES["vneck"]), Neckline(body, NECKLINES["crew"])
        tailor.shell(line, knit, 0.0062, 0.0115)
        tailor.band(line, knit, 0.0062, 0.019)
        bare = line.above
        if traits.femininity < 0.5:
            vest = Cloth(under, 0.85, 0.016, 0.25, 0.02, contrast=0.04)
            tailor.shell(inner, vest, 0.0026, 0.009, until=line, drape=0.2)
            tailor.band(inner, vest, 0.0028, 0.014)
            bare = inner.above
    elif kind == "turtleneck":
        line = Neckline(body, NECKLINES["closed"])
        tailor.shell(line, knit, 0.0055, 0.0)
        bare = tailor.roll(knit)
    elif kind == "shirt":
        bare = tailor.shirt(Cloth(main, 0.70, 0.022, 0.12, 0.012, (0.0055, 0.00035, 0.0), 0.055))
    else:
        jacket = Neckline(body, NECKLINES["jacket"])
        bare = tailor.shirt(Cloth(under, 0.70, 0.022, 0.12, 0.012, contrast=0.03), until=jacket)
        wool = Cloth(main, 0.80, 0.020, 0.22, 0.045, (0.0020, 0.00042, 0.8), 0.16)
        tailor.shell(jacket, wool, 0.0100, 0.012)
        tailor.lapels(jacket, wool, 0.0100)
    return tailor.finish(), bare


@dataclass
class _Piece:
    """Geometry that waits for light."""

    position: Array
    normal: Array
    tangent: Array
    scale: Array
    albedo: Array
    cloth: Cloth
    hold: Array
    raised: bool  # lies on other cloth and shades it
    dim: Array  # [N] local darkening: seams, gaps between ribs
    fade: bool = True  # seen from outside alone


class Tailor:
    """Cuts the pieces of one garment and lights them together."""

    def __init__(self, body: Body, traits: PersonTraits, see: See, rng: np.random.Generator) -> None:
        self.body, self.see, self.rng = body, see, rng
        self.pieces: list[_Piece] = []
        self.seed = int(traits.seed) * 13 + 5

    def occluder(self, points: Array) -> Array:
        """The body in its clothes and the head above."""
        return np.minimum(self.body.signed_distance(points) - 0.004, self.body.neck_distance(points))

    # Shells

    def folds(self, points: Array) -> Array:
        """Height of the drape, in units of its depth: folds from the armpits and from neck to shoulder, slow swell."""
        p = points - self.body.root
        ax, side = np.abs(p[:, 0]), np.sign(p[:, 0])
        slow = noise(points * [1.0, 0.55, 0.8], 0.085, self.seed)
        bend = noise(points, 0.11, self.seed + 1)
        angle = np.arctan2(p[:, 1] + 0.165, 0.175 - ax)
        reach = np.hypot(p[:, 1] + 0.165, 0.175 - ax)
        pit = (
            _crease(angle * 9.0 + 1.1 * bend + side * 0.9)
            * bell(reach - 0.065, 0.060)
            * smoothstep(-0.05, 0.0, p[:, 2])
        )
        pull = (
            _crease((0.50 * ax + p[:, 1]) * 120.0 + 1.6 * bend + side)
            * bell(ax - 0.110, 0.050)
            * bell(p[:, 1] + 0.055, 0.045)
        )
        sag = _crease(p[:, 1] * 95.0 + 900.0 * ax**2 + 1.2 * bend) * bell(ax, 0.085) * smoothstep(-0.06, -0.12, p[:, 1])
        return 0.35 * slow + 0.85 * pit + 0.40 * pull + 0.35 * sag

    def shell(
        self,
        line: Neckline,
        cloth: Cloth,
        thickness: float,
        tuck: float,
        until: Neckline | None = None,
        drape: float = 1.0,
        height: Callable[[Array], Array] | None = None,
    ) -> None:
        """Cloth over the body below a neckline, its edge ``tuck`` metres under a strip; with ``until`` above that."""
        body, depth = self.body, 0.0030 * drape * (0.5 + 50.0 * thickness)

        def spacing(points: Array) -> Array:
            p = points - body.root
            coarse = 1.0 + 1.1 * smoothstep(-0.145, -0.19, p[:, 1])
            # Finer on the crest of the shoulders: large disks would stand off it like feathers.
            return 0.0044 * coarse * (0.55 + 0.45 * smoothstep(0.0, 0.5, body.normal(points)[:, 2]))

        points = scatter_on(body, thickness, body.root + LOW + 0.002, body.root + HIGH - 0.002, spacing, self.rng)
        edge = -line.above(points)
        hem = np.full(len(points), tuck)
        if height is not None:  # a shirt: its collar stands over the cloth but for the opening in front
            hem -= (tuck + 0.012) * smoothstep(0.9, 1.3, np.abs(body.azimuth(points)))
        keep = edge > hem
        if until is not None:
            keep &= until.above(points) > -0.016
        points, edge = points[keep], edge[keep]

        def surface(at: Array) -> Array:
            h = thickness + depth * self.folds(at)
            p = at - body.root
            shoulder = np.abs(p[:, 2] + 0.012 + 0.06 * np.abs(p[:, 0]))
            h = h - 0.0009 * bell(shoulder, 0.0022) * smoothstep(0.05, 0.07, np.abs(p[:, 0])) * (p[:, 1] > -0.09)
            sleeve = np.abs(np.abs(p[:, 0]) - 0.178 + 0.10 * np.abs(p[:, 1] + 0.10))
            h = h - 0.0009 * bell(sleeve, 0.0022) * (p[:, 1] < -0.035)
            return body.exact_distance(at) - (h if height is None else h + height(at))

        for _ in range(2):
            normal = gradient_normal(points, surface)
            points = points - normal * np.clip(surface(points), -0.006, 0.006)[:, None]
        normal = gradient_normal(points, surface, 0.0012)
        own = spacing(points)
        count = len(points)
        grain = np.exp(
            cloth.grain * self.rng.normal(size=(count, 1)) + 0.02 * noise(points, 0.03, self.seed + 3)[:, None]
        )
        scale = np.stack([0.98 * own, 0.98 * own, 0.22 * own], axis=1)
        hold = np.full(count, 0.55) + 0.35 * smoothstep(0.0, 0.05, edge)
        up = np.tile([0.1, 1.0, 0.1], (count, 1))
        self.pieces.append(_Piece(points, normal, up, scale, cloth.albedo * grain, cloth, hold, False, np.ones(count)))
        # A coarse lining plugs what gaps the cloth has.
        lining = np.flatnonzero((self.rng.random(count) < 0.28) & (normal[:, 2] > 0.25))
        self.pieces.append(
            _Piece(
                points[lining] - normal[lining] * 0.0018,
                normal[lining],
                up[lining],
                scale[lining] * [1.6, 1.6, 1.0],
                np.tile(cloth.albedo, (len(lining), 1)),
                cloth,
                hold[lining],
                False,
                np.full(len(lining), 0.96),
            )
        )
        self._threads(points, normal, cloth, hold)

    def _threads(self, points: Array, normal: Array, cloth: Cloth, hold: Array) -> None:
        """Threads of the weave that catch the eye: thin Gaussians just over the cloth, lighter and darker than it."""
        near = (points[:, 1] > self.body.root[1] - 0.16) & (normal[:, 2] > 0.0)
        pick = self.rng.permutation(np.repeat(np.flatnonzero(near), 2))[:1700]
        length, width, slant = cloth.yarn
        way = np.array([np.sin(slant), np.cos(slant), 0.0])
        along = unit(way - (normal[pick] @ way)[:, None] * normal[pick])
        across = np.cross(normal[pick], along)
        shift = self.rng.uniform(-0.002, 0.002, (len(pick), 2))
        count = len(pick)
        tone = np.exp(cloth.contrast * self.rng.choice([-1.0, 1.0], count) * self.rng.uniform(0.5, 1.5, count))
        self.pieces.append(
            _Piece(
                points[pick] + along * shift[:, :1] + across * shift[:, 1:] + normal[pick] * 0.0007,
                normal[pick],
                along,
                np.tile([length, width, 0.0003], (count, 1)),
                cloth.albedo * tone[:, None],
                cloth,
                hold[pick],
                False,
                np.ones(count),
            )
        )

    # Strips

    def strip(
        self,
        nodes: Array,
        cloth: Cloth,
        along: float,
        across: float,
        dim: Array | None = None,
        hold: float = 0.5,
        fade: bool = True,
    ) -> None:
        """Gaussians on a sheet ``nodes [U, V, 3]``, one per node; ``along``, ``across``: sigma over spacing."""
        u, v = np.gradient(nodes, axis=0), np.gradient(nodes, axis=1)
        normal = unit(np.cross(u, v))
        outwards = gradient_normal(nodes.reshape(-1, 3), self.body.signed_distance, 0.003).reshape(nodes.shape)
        normal *= np.sign((normal * outwards).sum())
        du, dv = np.linalg.norm(u, axis=2), np.linalg.norm(v, axis=2)
        du = np.minimum(du, 1.5 * np.median(du))
        count = nodes.shape[0] * nodes.shape[1]
        dv[:, [0, -1]] *= 0.45  # crisp edges
        du[[0, -1], :] *= 0.60
        scale = np.stack([along * du, across * dv, np.full_like(du, 0.0005)], axis=2).reshape(-1, 3)
        grain = np.exp(cloth.grain * self.rng.normal(size=(count, 1)))
        self.pieces.append(
            _Piece(
                nodes.reshape(-1, 3),
                normal.reshape(-1, 3),
                u.reshape(-1, 3),
                scale,
                cloth.albedo * grain,
                cloth,
                np.full(count, hold),
                True,
                np.ones(count) if dim is None else dim.reshape(-1),
                fade,
            )
        )

    def _down(self, start: Array, offset: Array, share: Array, width: Array) -> Array:
        """From a curve [U, 3] down the body to ``share`` [V] of ``width`` [U], at heights ``offset`` [V]: [U, V, 3]."""
        body = self.body
        tangent = unit(np.gradient(start, axis=0))
        for _ in range(6):  # at a sharp corner the way down turns gradually, or rows would cross
            tangent[1:-1] = unit(tangent[:-2] + tangent[1:-1] + tangent[2:])
        here, rows = start, []
        for index, step in enumerate(np.diff(share, append=share[-1])):
            normal = gradient_normal(here, body.exact_distance)
            here = here - normal * body.exact_distance(here)[:, None]
            rows.append(here + normal * offset[index])
            here = here + unit(np.cross(tangent, normal)) * (width * step)[:, None]
        return np.stack(rows, axis=1)

    def band(self, line: Neckline, cloth: Cloth, thickness: float, width: float) -> None:
        """A ribbed band along a neckline: ribs across it, a rolled edge above, a stitched one below."""
        count, rows = int(line.length / 0.0019), 9
        curve, azimuth = line.at((np.arange(count) + 0.5) / count)
        forward = np.abs(azimuth) < np.radians(165)
        curve = curve[forward]
        v = np.array([0.0, 0.05, 0.14, 0.27, 0.42, 0.58, 0.74, 0.89, 1.0])
        offset = (
            thickness
            + 0.0016 * np.sqrt(np.clip(1.0 - (1.0 - v / 0.35) ** 2, 0.0, 1.0)) * (v < 0.35)
            + 0.0016 * (v >= 0.35)
        )
        offset[0] = 0.6 * thickness
        offset[-1] = thickness + 0.0004
        nodes = self._down(curve, offset, v, np.full(len(curve), width))
        rib = np.arange(len(curve)) % 2
        dim = np.where(rib[:, None] == 0, 1.0, 0.80) * np.where(np.arange(rows)[None, :] == rows - 1, 0.62, 1.0)
        self.strip(nodes, cloth, 0.62, 0.70, dim)

    def roll(self, cloth: Cloth) -> Distance:
        """A turtleneck's rolled collar; returns where skin is bare."""
        body = self.body
        count = 300
        azimuth = (np.arange(count) + 0.5) / count * np.radians(270) - np.radians(135)
        top = 0.060 - 0.016 * np.cos(azimuth) - 0.014
        base = body.outwards(azimuth, np.full(count, -0.018))
        # Section: up inside, over the top, down outside.
        lift = np.array([-0.004, 0.10, 0.35, 0.65, 0.90, 1.0, 0.97, 0.80, 0.60, 0.42, 0.30, 0.25])
        out = np.array([0.0060, 0.0058, 0.0056, 0.0054, 0.0056, 0.0075, 0.0100, 0.0118, 0.0126, 0.0128, 0.0118, 0.0085])
        rows = []
        for up, away in zip(lift, out, strict=True):
            height = -0.018 + (top + 0.018) * up
            skin = body.outwards(azimuth, height, 0.13)
            flat = skin - body.axis(height)
            rows.append(skin + unit(flat * [1.0, 0.0, 1.0]) * away)
        rows[0] = 0.5 * (rows[0] + base + unit((base - body.axis(np.full(count, -0.018))) * [1.0, 0.0, 1.0]) * 0.007)
        nodes = np.stack(rows, axis=1)
        fine = np.linspace(0, len(rows) - 1, 26)
        low = np.clip(fine.astype(int), 0, len(rows) - 2)
        nodes = nodes[:, low] * (1 - fine + low)[None, :, None] + nodes[:, low + 1] * (fine - low)[None, :, None]
        dim = np.where(np.arange(count)[:, None] % 2 == 0, 1.0, 0.84) * np.where(fine[None, :] > 10.6, 0.7, 1.0)
        self.strip(nodes, cloth, 0.62, 0.75, dim, hold=0.25)

        def bare(points: Array) -> Array:
            around = body.azimuth(points)
            return points[:, 1] - body.root[1] - (0.044 - 0.016 * np.cos(around))

        return bare

    def shirt(self, cloth: Cloth, until: Neckline | None = None) -> Distance:
        """An open collar, the button band and a button; returns where skin is bare."""
        body = self.body
        line = Neckline(body, NECKLINES["open"])

        def placket(at: Array) -> Array:
            p = at - body.root
            inside = (
                smoothstep(0.0006, -0.0006, np.abs(p[:, 0]) - 0.0155)
                * smoothstep(-0.094, -0.098, p[:, 1])
                * (p[:, 2] > 0)
            )
            return 0.0014 * inside - 0.0006 * bell(np.abs(p[:, 0]) - 0.0125, 0.0009) * inside

        self.shell(line, cloth, 0.0036, 0.0125, until, 1.0 if until is None else 0.3, placket)
        # The edges of the opening.
        count = 130
        share = np.linspace(0.28, 0.72, count)
        curve, _ = line.at(share)
        edge = self._down(
            curve,
            np.array([0.0030, 0.0052, 0.0056, 0.0056, 0.0052, 0.0042]),
            np.array([0.0, 0.10, 0.30, 0.55, 0.80, 1.0]),
            np.full(count, 0.019),
        )
        dim = np.ones((count, 6))
        dim[:, 4] = 0.86
        self.strip(edge, cloth, 0.60, 0.70, dim)
        for sign in (-1.0, 1.0):
            self._collar(cloth, sign, 0.024 if until is None else 0.008)
        for height in (-0.128, -0.205):
            if until is None or height > -0.2:
                self._button(height, cloth)
        return line.above

    def _collar(self, cloth: Cloth, sign: float, point: float) -> None:
        body = self.body
        count = 66
        u = np.linspace(0.0, 1.0, count)
        azimuth = np.radians(24.0 + 156.0 * u)
        fold_height = -0.006 + 0.052 * smoothstep(0.0, 0.62, u)
        skin = body.outwards(sign * azimuth, fold_height, 0.13)
        out = unit((skin - body.axis(fold_height)) * [1.0, 0.0, 1.0])
        fold = skin + out * (0.0065 + 0.004 * smoothstep(0.25, 0.0, u))[:, None]
        base_azimuth = np.radians(17.0 + 163.0 * u)
        base = body.outwards(sign * base_azimuth, -0.030 + 0.042 * smoothstep(0.0, 0.5, u), 0.16) + out * 0.0045
        beside = smoothstep(0.06, 0.18, u)[:, None]  # from here on the shoulder rises: straight down, inside it
        base = base * (1.0 - beside) + (fold - out * 0.003 - [0.0, 0.026, 0.0]) * beside
        # The leaf falls from the fold over the body below, longest at its point in front.
        length = 0.034 - 0.014 * smoothstep(0.22, 0.50, u) + point * smoothstep(0.35, 0.0, u)
        splay = 0.20 + 0.50 * smoothstep(0.6, 0.0, u)
        front = smoothstep(0.28, 0.0, u)[:, None]
        sideways = np.array([sign, 0.0, 0.0])
        way = unit(out * splay[:, None] * (1 - 0.6 * front) + [0.0, -1.0, 0.0] + 0.42 * front * sideways)
        edge = fold + way * length[:, None]
        rows = 11
        v = (0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, rows)))[None, :, None]
        bulge = (np.sin(np.pi * v) * 0.0050 + np.sin(np.pi * np.minimum(v * 3.0, 1.0)) * 0.0020) * out[:, None]
        leaf = fold[:, None] * (1 - v) + edge[:, None] * v + bulge
        away = body.exact_distance(leaf.reshape(-1, 3))
        flat = leaf.reshape(-1, 3)
        least = np.broadcast_to(0.0072 - 0.0016 * v[:, :, 0], leaf.shape[:2]).reshape(-1)
        leaf = flat + gradient_normal(flat, body.exact_distance) * np.maximum(least - away, 0.0)[:, None]
        leaf = leaf.reshape(count, rows, 3)
        for _ in range(3):  # starched: no dents
            leaf[1:-1] = 0.25 * leaf[:-2] + 0.5 * leaf[1:-1] + 0.25 * leaf[2:]
        dim = np.ones((count, rows))
        dim[:, -2] = 0.90  # stitching along the edge
        dim[1, :] = 0.90
        self.strip(leaf, cloth, 0.75, 0.72, dim, hold=0.35)
        w = np.linspace(0.0, 1.0, 5)[None, :, None]
        stand = fold[:, None] * (1 - w) + base[:, None] * w
        stand = stand - out[:, None] * 0.0022
        self.strip(stand, cloth, 0.95, 0.90, np.full((count, 5), 0.92), hold=0.35, fade=False)

    def _button(self, height: float, cloth: Cloth) -> None:
        centre = self.body.outwards(np.zeros(1), np.array([height]))[0] + [0.0, 0.0, 0.0065]
        radius = np.sqrt((np.arange(46) + 0.5) / 46) * 0.0050
        angle = np.arange(46) * 2.39996
        points = centre + np.stack([radius * np.cos(angle), radius * np.sin(angle), 0.0006 * (radius < 0.0040)], axis=1)
        holes = (
            np.hypot(np.abs(points[:, 0] - centre[0]) - 0.0011, np.abs(points[:, 1] - centre[1]) - 0.0011)
        ) < 0.0006
        tone = np.where(holes, 0.35, np.where(radius > 0.0042, 0.62, 1.0))
        count = len(points)
        self.pieces.append(
            _Piece(
                points,
                np.tile([0.0, 0.1, 1.0], (count, 1)),
                np.tile([1.0, 0.0, 0.0], (count, 1)),
                np.tile([0.00062, 0.00062, 0.0003], (count, 1)),
                np.tile(0.5 * cloth.albedo + 0.35, (count, 1)),
                Cloth(cloth.albedo, 0.35, 0.05, 0.0, 0.0),
                np.ones(count),
                True,
                tone,
            )
        )

    def lapels(self, line: Neckline, cloth: Cloth, thickness: float) -> None:
        """A jacket's lapels and collar with the notch between them."""
        for sign in (-1.0, 1.0):
            # Shares of the neckline: 0.5 is the front's lowest point, 0 and 1 the nape.
            for name, start, end, count in (("lapel", 0.502, 0.700, 84), ("collar", 0.690, 0.985, 70)):
                share = np.linspace(start, end, count)
                curve, azimuth = line.at(share if sign > 0 else 1.0 - share)
                if sign < 0:
                    curve = curve[::-1]
                t = np.linspace(0.0, 1.0, count)
                if name == "lapel":
                    width = 0.012 + 0.058 * smoothstep(0.0, 1.0, t) ** 0.8
                    rows = 13
                else:
                    width = 0.046 - 0.006 * t + 0.0 * azimuth
                    rows = 9
                if sign < 0:
                    width = width[::-1]
                v = 0.5 - 0.5 * np.cos(np.pi * np.linspace(0.0, 1.0, rows))  # rows close up at both edges
                offset = (
                    thickness
                    + 0.0030
                    + 0.0022 * np.sin(np.pi * np.minimum(1.6 * v, 1.0))
                    + (0.0012 if name == "collar" else 0.0)
                )
                offset[0] = thickness - 0.0035
                offset[1] = thickness + 0.0010
                offset[-1] = thickness + 0.0022
                nodes = self._down(curve, offset, v, width)
                dim = np.ones((count, rows))
                dim[:] = 1.10
                dim[:, -2] = 1.18
                dim[:, -1] = 0.85
                dim[:, 0] = 0.7
                last = -1 if sign > 0 else 0
                if name == "lapel":
                    dim[last, :] = 0.78
                else:
                    dim[0 if sign > 0 else -1, :] = 0.72
                self.strip(nodes, cloth, 0.64, 0.66, dim, hold=0.85)

    # Light

    def finish(self) -> list[Patch]:
        """All pieces in the studio's light."""
        raised = [piece.position for piece in self.pieces if piece.raised]
        tree = cKDTree(np.concatenate(raised)) if raised else None
        patches = []
        for piece in self.pieces:
            normal = unit(piece.normal)
            start = piece.position + normal * (0.0045 if piece.raised else 0.0060)
            seen = self.see(start, normal, self.occluder)
            if tree is not None and not piece.raised:
                seen = self._under(piece, normal, seen, tree)
            light = piece.albedo * piece.dim[:, None] * diffuse(normal, seen, 0.12)
            view = unit(np.array([0.0, 0.0, 1.4]) - piece.position)
            grazing = 1.0 - np.clip(np.einsum("nd,nd->n", normal, view), 0.0, 1.0)
            light *= 1.0 + piece.cloth.fuzz * (grazing**2)[:, None]
            light += (
                piece.cloth.sheen * specular(piece.position, normal, seen, piece.cloth.roughness) * piece.dim[:, None]
            )
            count = len(piece.position)
            patches.append(
                Patch(
                    piece.position,
                    normal,
                    piece.tangent,
                    piece.scale,
                    develop(light),
                    np.full(count, 0.975),
                    piece.hold,
                    np.zeros(count),
                    piece.fade,
                )
            )
        return patches

    @staticmethod
    def _under(piece: _Piece, normal: Array, seen: Visibility, tree: cKDTree) -> Visibility:
        """Contact shadow of strips on the cloth beneath them."""
        distance, _ = tree.query(piece.position, distance_upper_bound=0.02)
        near = smoothstep(0.0080, 0.0025, np.minimum(distance, 0.02))
        return Visibility(seen.ambient * (1 - 0.35 * near), seen.bent, seen.lamps * (1 - 0.30 * near)[:, None])
