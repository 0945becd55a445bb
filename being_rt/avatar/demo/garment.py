"""Clothes: shells over the body with folds, and strips of cloth for everything that has an edge.

A shell covers the body below a neckline. Its raw edge lies under a strip: a ribbed band, a shirt's collar, a lapel.
Strips are surfaces over a curve around the neck and a way across, so that their edges are clean lines. Heights are
metres over the global joint, azimuths run around the neck's axis from the front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from being_rt.avatar.demo.body import HIGH, LOW, Body, Patch, See, gradient_normal, scatter_on
from being_rt.avatar.demo.cloud import noise, unit
from being_rt.avatar.demo.lighting import Distance, Visibility, develop, diffuse, linear, specular
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep

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
    rib: float = 0.0  # metres from one knitted rib to the next; 0: woven


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
    knit = Cloth(main, 0.95, 0.012, 0.35, 0.025, rib=0.0036)
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
        bare = tailor.shirt(
            # White cloth is kept greyer than it is: the key light would leave no room for its folds.
            Cloth(0.72 * main, 0.70, 0.022, 0.12, 0.012, (0.0055, 0.00035, 0.0), 0.055)
        )
    else:
        jacket = Neckline(body, NECKLINES["jacket"])
        inner = Neckline(body, NECKLINES["crew"])
        top = Cloth(0.72 * under, 0.80, 0.018, 0.20, 0.015, rib=0.0030)
        tailor.shell(inner, top, 0.0030, 0.007, until=jacket, drape=0.3)
        tailor.band(inner, top, 0.0030, 0.012)
        bare = inner.above
        wool = Cloth(main, 0.80, 0.020, 0.22, 0.045, (0.0020, 0.00042, 0.8), 0.16)
        tailor.shell(jacket, wool, 0.0100, 0.012, drape=0.7)
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
        self.feminine = float(traits.femininity)

    def occluder(self, points: Array) -> Array:
        """The body in its clothes and the head above."""
        return np.minimum(self.body.signed_distance(points) - 0.004, self.body.neck_distance(points))

    # Shells

    def folds(self, points: Array) -> Array:
        """Height of the drape, in units of its depth: folds from the armpits and from neck to shoulder, slow swell."""
        p = points - self.body.root
        ax, side = np.abs(p[:, 0]), np.sign(p[:, 0])
        bend = noise(points, 0.11, self.seed + 1)
        # From the armpit folds fan out over chest and sleeve; each is a ridge that runs away from it.
        down, inwards = p[:, 1] + 0.150, 0.165 - ax
        angle, reach = np.arctan2(down, inwards), np.hypot(down, inwards)
        pit = _crease(angle * 7.0 + 0.5 * bend + 0.9 * side) * smoothstep(0.006, 0.025, reach)
        pit = pit * smoothstep(0.125, 0.030, reach) * smoothstep(-0.05, 0.0, p[:, 2])
        # From the side of the neck cloth hangs in long, slanting pleats down to the chest.
        hang = _crease((ax + 0.30 * p[:, 1]) * 150.0 + 0.9 * bend + side) * bell(ax - 0.085, 0.045)
        hang = hang * bell(p[:, 1] + 0.105, 0.060) * smoothstep(0.0, 0.03, p[:, 2])
        # Between the breasts' sides it sags in shallow arcs; sleeves are pushed together above the elbow.
        sag = (
            _crease(p[:, 1] * 110.0 + 700.0 * ax**2 + 0.7 * bend) * bell(ax, 0.095) * smoothstep(-0.10, -0.17, p[:, 1])
        )
        push = _crease(p[:, 1] * 150.0 + 60.0 * side * p[:, 2] + bend) * smoothstep(0.172, 0.19, ax)
        push = push * smoothstep(-0.11, -0.18, p[:, 1])
        return 1.15 * pit + 0.50 * hang + 0.45 * sag + 0.7 * push

    def _seam(self, points: Array) -> Array:
        """Distance outwards from the seam between body and sleeve, [N]."""
        p = points - self.body.root
        reach = 0.172 - 0.022 * self.feminine
        return np.abs(p[:, 0]) - reach + 0.10 * np.abs(p[:, 1] + 0.10)

    def _shoulder_seam(self, points: Array) -> Array:
        """Distance forwards from the seam on top of the shoulders, [N]."""
        p = points - self.body.root
        return p[:, 2] - 0.004 + 0.06 * np.abs(p[:, 0])

    def _wale(self, points: Array) -> Array:
        """A coordinate in metres across the ribs of knitted cloth, which run down the body and along the sleeves."""
        p = points - self.body.root
        ax = np.abs(p[:, 0])
        centre = 0.186 - 0.022 * self.feminine + 0.105 * np.clip(-0.097 - p[:, 1], 0.0, None)
        around = 0.052 * np.arctan2(ax - centre, p[:, 2] + 0.012)
        return np.where(self._seam(points) > 0, 0.30 + around, ax) * np.sign(p[:, 0])

    def _snap(self, points: Array, surface: Distance, coordinate: Distance, pitch: float) -> tuple[Array, Array, Array]:
        """Move points along the surface onto lines where ``coordinate`` is a multiple of ``pitch`` (0: is zero).

        Returns positions, normals and the lines' directions, each [N, 3].
        """
        value = coordinate(points)
        goal = pitch * np.round(value / pitch) if pitch else np.zeros_like(value)
        for _ in range(2):
            normal = gradient_normal(points, surface)
            slope = np.stack([coordinate(points + 5e-4 * e) - coordinate(points - 5e-4 * e) for e in np.eye(3)], axis=1)
            slope = slope / 1e-3
            slope = slope - np.einsum("nd,nd->n", slope, normal)[:, None] * normal
            step = (coordinate(points) - goal) / np.maximum((slope**2).sum(axis=1), 0.04)
            points = points - slope * np.clip(step, -0.004, 0.004)[:, None]
            points = points - normal * np.clip(surface(points), -0.004, 0.004)[:, None]
        return points, normal, unit(np.cross(normal, slope))

    def _lines(
        self,
        points: Array,
        surface: Distance,
        coordinate: Distance,
        pitch: float,
        cloth: Cloth,
        hold: Array,
        size: Array,
        tone: Array,
        lift: float,
    ) -> None:
        """Elongated Gaussians along lines of the cloth: ribs and seams. ``size`` [N, 2]: their length and width."""
        points, normal, along = self._snap(points, surface, coordinate, pitch)
        fits = np.abs(surface(points)) < 0.0015
        count = int(fits.sum())
        self.pieces.append(
            _Piece(
                points[fits] + lift * normal[fits],
                gradient_normal(points[fits], surface, 0.0012),
                along[fits],
                np.concatenate([size[fits], np.full((count, 1), 0.0004)], axis=1),
                np.tile(cloth.albedo, (count, 1)),
                cloth,
                hold[fits],
                False,
                tone[fits],
            )
        )

    def shell(
        self,
        line: Neckline,
        cloth: Cloth,
        thickness: float,
        tuck: float,
        until: Neckline | None = None,
        drape: float = 1.0,
        collar: bool = False,
    ) -> None:
        """Cloth over the body below a neckline, its edge ``tuck`` metres under a strip; with ``until`` above that."""
        body, depth = self.body, 0.0030 * drape * (0.5 + 50.0 * thickness)

        pitch = 0.0054 if cloth.rib else 0.0046  # ribs cover what gaps a coarse ground has

        def spacing(points: Array) -> Array:
            p = points - body.root
            facing = smoothstep(0.35, 0.75, body.normal(points)[:, 2])  # small ones along outlines keep them clean
            coarse = 1.0 + (0.4 + 0.8 * facing) * smoothstep(-0.165, -0.20, p[:, 1])
            # Finer on the crest of the shoulders: large disks would stand off it like feathers.
            crest = 0.70 if cloth.rib else 0.55
            return pitch * coarse * (crest + (1.0 - crest) * smoothstep(0.0, 0.5, body.normal(points)[:, 2]))

        points = scatter_on(body, thickness, body.root + LOW + 0.002, body.root + HIGH - 0.002, spacing, self.rng)
        edge = -line.above(points)
        hem = np.full(len(points), tuck)
        if collar:  # it stands over the cloth but for the opening in front
            hem -= (tuck + 0.012) * smoothstep(0.9, 1.3, np.abs(body.azimuth(points)))
        keep = edge > hem
        if until is not None:
            keep &= until.above(points) > -0.009
        points, edge = points[keep], edge[keep]

        def surface(at: Array) -> Array:
            h = thickness + depth * self.folds(at) * smoothstep(0.010, 0.040, -line.above(at))  # edges lie flat
            return body.exact_distance(at) - h

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
        groove = np.full(count, 0.66 if cloth.rib else 1.0)
        self.pieces.append(_Piece(points, normal, up, scale, cloth.albedo * grain, cloth, hold, False, groove))
        # A coarse lining plugs what gaps the cloth has.
        lining = np.flatnonzero((self.rng.random(count) < (0.0 if cloth.rib else 0.12)) & (normal[:, 2] > 0.25))
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
        near = np.flatnonzero((normal[:, 2] > -0.1) & (points[:, 1] > body.root[1] - 0.205))
        if cloth.rib:
            twice = self.rng.random(len(near)) < (own[near] / pitch) ** 2 * 0.8 - 1.0
            near = np.concatenate([near, near[twice]])
            start = points[near] + self.rng.uniform(-0.4, 0.4, (len(near), 3)) * own[near, None]
            tone = 1.06 * np.exp(1.2 * cloth.grain * self.rng.normal(size=len(near)))
            length = 0.0068 * (0.35 + 0.65 * smoothstep(0.1, 0.6, normal[near, 2]))  # none stands off the shoulder
            size = np.stack([length, np.full(len(near), 0.27 * cloth.rib)], axis=1)
            self._lines(start, surface, self._wale, cloth.rib, cloth, hold[near], size, tone, 0.0009)
        else:
            self._threads(points, normal, cloth, hold)
        if until is not None:
            return
        for seam, part in (
            (self._seam, (points[:, 1] < body.root[1] - 0.010) & (normal[:, 2] > -0.2)),
            (self._shoulder_seam, (self._seam(points) < 0) & (normal[:, 1] > 0.5)),
        ):
            # A dark furrow, and beside it the welt that its stitches draw up.
            pick = np.flatnonzero(part & (np.abs(seam(points)) < 0.006))
            for aside, shade, width in ((0.0, 0.55 if cloth.rib else 0.72, 0.00055), (0.0020, 1.08, 0.00075)):
                self._lines(
                    points[pick],
                    surface,
                    lambda at, seam=seam, aside=aside: seam(at) + aside,  # type: ignore[misc]
                    0.0,
                    cloth,
                    hold[pick],
                    np.tile([0.0034, width], (len(pick), 1)),
                    np.full(len(pick), shade),
                    0.0013,
                )

    def _threads(self, points: Array, normal: Array, cloth: Cloth, hold: Array) -> None:
        """Threads of the weave that catch the eye: thin Gaussians just over the cloth, lighter and darker than it."""
        near = (points[:, 1] > self.body.root[1] - 0.16) & (normal[:, 2] > 0.0)
        pick = self.rng.permutation(np.repeat(np.flatnonzero(near), 2))[:1200]
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
        raised: bool = True,
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
                raised,
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
        count = int(line.length / 0.0019)
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
        dim = np.where(rib[:, None] == 0, 1.06, 0.62) * np.array([0.8, 1, 1, 1, 1, 1, 1, 0.9, 0.42])[None, :]
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

    def shirt(self, cloth: Cloth) -> Distance:
        """An open collar, the button band and a button; returns where skin is bare."""
        body = self.body
        line = Neckline(body, NECKLINES["open"])

        self.shell(line, cloth, 0.0036, 0.0125, collar=True)
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
        self.strip(edge, cloth, 0.60, 0.70, dim, raised=False)
        # The button band: a flat strip with a line of stitches along either edge.
        height = np.linspace(-0.1, -0.246, 74)
        across = np.array([-0.0150, -0.0142, -0.0128, -0.0112, -0.0060, 0.0, 0.0060, 0.0112, 0.0128, 0.0142, 0.0150])
        rows = []
        for x in across:
            front = body.outwards(np.zeros(len(height)), height)
            at = front + np.array([1.0, 0.0, 0.0]) * x
            normal = gradient_normal(at, body.exact_distance)
            at = at - normal * body.exact_distance(at)[:, None]
            rows.append(at + normal * (0.0064 + 0.30 * 0.0036 * self.folds(at)[:, None]))
        dim = np.tile([0.45, 1.04, 0.80, 1.0, 1.0, 1.0, 1.0, 1.0, 0.80, 1.04, 0.45], (len(height), 1))
        self.strip(np.stack(rows, axis=1), cloth, 0.60, 0.62, dim, hold=0.9, raised=False)
        for sign in (-1.0, 1.0):
            self._collar(cloth, sign)
        for level in (-0.128, -0.205):
            self._button(level, cloth)
        return line.above

    def _collar(self, cloth: Cloth, sign: float) -> None:
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
        length = 0.034 - 0.014 * smoothstep(0.22, 0.50, u) + 0.024 * smoothstep(0.35, 0.0, u)
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
        dim[:, -2] = 0.84  # stitches along the edge
        dim[2, :] = 0.84
        dim[:, -1] = 0.70
        dim[0] = 0.80
        self.strip(leaf, cloth, 0.75, 0.72, dim, hold=0.35)
        w = np.linspace(0.0, 1.0, 5)[None, :, None]
        base = fold + (base - fold) * smoothstep(0.0, 0.22, u)[:, None]  # it ends in a point at the leaf's corner
        stand = fold[:, None] * (1 - w) + base[:, None] * w
        stand = stand - out[:, None] * 0.0022
        self.strip(stand, cloth, 0.95, 0.90, np.full((count, 5), 0.92), hold=0.35, fade=False)

    def _button(self, height: float, cloth: Cloth) -> None:
        centre = self.body.outwards(np.zeros(1), np.array([height]))[0] + [0.0, 0.0, 0.0088]
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
                dim[:, -1] = 0.55
                dim[:, 0] = 0.6
                last = -1 if sign > 0 else 0
                if name == "lapel":
                    dim[last, :] = 0.5
                else:
                    dim[0 if sign > 0 else -1, :] = 0.5
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
                seen = self._under(piece, seen, tree)
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
    def _under(piece: _Piece, seen: Visibility, tree: cKDTree) -> Visibility:
        """Contact shadow of strips on the cloth beneath them."""
        distance, _ = tree.query(piece.position, distance_upper_bound=0.02)
        near = smoothstep(0.0085, 0.0025, np.minimum(distance, 0.02))
        return Visibility(seen.ambient * (1 - 0.50 * near), seen.bent, seen.lamps * (1 - 0.45 * near)[:, None])
