"""The head's one mesh: structured rings where things open and close, Poisson points elsewhere, one shared topology.

Only the left half is built; the right half is its mirror image, so the mesh is symmetric to the last bit.

- Eyelids, lips, mouth interior, auricles, teeth, tongue and eyeballs are grids whose rows and columns are known by
  number. A blink or an open mouth is then a statement about rows and columns, not about distances, and lids meet and
  lips seal exactly.
- The rest of the skin is dart-thrown on the implicit surface with a spacing that varies with the detail (Poisson disk
  samples), triangulated as the convex hull of a star-shaped chart (spherical Delaunay), and relaxed by edge flips and
  tangential smoothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.procedural import surface
from being_rt.flame.procedural._scipy import scipy_spatial
from being_rt.flame.procedural.surface import (
    EYE,
    EYEBALL_RADIUS,
    MOUTH_HALF_WIDTH,
    NECK_CUT_Y,
    STOMION_Y,
    bell,
    front,
    lip_seam,
    smoothstep,
)

Float64 = NDArray[np.float64]
Int = NDArray[np.int64]

VERTEX_COUNT = 5023  # FLAME's own
EYE_COLUMNS = 28  # around an eye, from the outer corner over the upper lid
MOUTH_COLUMNS = 21  # half the mouth: upper midline, ..., corner (column 10), ..., lower midline
MOUTH_CORNER = 10
EAR_COLUMNS = 24  # around an auricle, from its back edge over the top
TOOTH_COLUMNS = 13
LIP_ROWS = 6  # mouth rows 0..5 lie on the face, the rest inside the mouth
LID_RIM_ROW = 5  # eye rows 0..5 lie on the face, 6 touches the eyeball, 7 is tucked behind


class Part(IntEnum):
    """What a vertex belongs to."""

    SKIN = 0
    EYELIDS = 1
    LIPS = 2
    MOUTH_INTERIOR = 3
    UPPER_TEETH = 4
    LOWER_TEETH = 5
    EYEBALL = 6
    EAR = 7
    TONGUE = 8


@dataclass(frozen=True)
class HeadMesh:
    """The average head. V vertices; row lists hold indices of the left half, ``mirror`` gives the right twins."""

    vertices: Float64  # [V, 3]
    faces: Int  # [F, 3]
    part: Int  # [V] Part
    row: Int  # [V] row in its grid, -1 outside grids
    mirror: Int  # [V] index of the mirrored vertex (itself on the midline)
    eye_rows: tuple[Int, ...]  # of EYE_COLUMNS
    mouth_rows: tuple[Int, ...]  # of MOUTH_COLUMNS
    tooth_rows: dict[Part, tuple[Int, ...]]
    tongue_rows: tuple[Int, ...]
    ear_rows: tuple[Int, ...]
    neck_ring: Int  # left half of the mesh's lower border, front to back


def eye_contour(angle: Float64) -> tuple[Float64, Float64]:
    """Lid margin about the left eye's centre: 0 outer corner, pi/2 top, pi inner corner. Returns (dx, dy) [N]."""
    c, s = np.cos(angle), np.sin(angle)
    x = np.where(c > 0, 0.0142, 0.0154) * c  # the opening lies towards the nose from the ball's centre
    upper = 0.0068 * np.clip(s, 0.0, 1.0) ** 0.88 * (1.0 - 0.10 * c)
    lower = -0.0061 * np.clip(-s, 0.0, 1.0) ** 0.98 * (1.0 + 0.14 * c)
    return x, 0.0010 * c + np.where(s >= 0.0, upper, lower) - 0.0004


def _eye_rings() -> list[Float64]:
    angle = np.linspace(0.0, 2.0 * np.pi, EYE_COLUMNS, endpoint=False)
    x, y = eye_contour(angle)
    c, s = np.cos(angle), np.sin(angle)
    rings = []
    for offset in (0.0076, 0.0054, 0.0036, 0.0021, 0.0009, 0.0):
        dx = offset * c * (0.80 if offset > 0.004 else 1.0)
        dy = offset * s * np.where(s > 0, 1.12, 1.0)
        rings.append(front(EYE[0] + x + dx, EYE[1] + y + dy))
    outward = rings[-1] - EYE
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    for radius, tuck in ((EYEBALL_RADIUS + 0.0003, 0.0), (EYEBALL_RADIUS - 0.0010, 0.12)):
        v = outward + tuck * np.stack([c, s, np.full_like(c, -0.6)], 1)
        rings.append(EYE + radius * v / np.linalg.norm(v, axis=1, keepdims=True))
    return rings


def _mouth_rings() -> list[Float64]:
    along = np.linspace(1.0, -1.0, MOUTH_COLUMNS)
    c = 1.0 - np.abs(along) ** 1.4  # nearly even steps from the midline to the corner
    s = np.sign(along) * np.sqrt(1.0 - c**2)
    above = s > 1e-6
    rings = []
    # height in lip heights, and how far beyond the corner the ring reaches
    for height, beyond in ((1.75, 0.0085), (1.35, 0.0048), (1.0, 0.0020), (0.62, 0.0010), (0.26, 0.0004), (0.004, 0.0)):
        x = (MOUTH_HALF_WIDTH + beyond) * c
        lip_x = x * MOUTH_HALF_WIDTH / (MOUTH_HALF_WIDTH + beyond)
        margin = max(height - 1.0, 0.0) * 0.008 * np.abs(s)
        taper = min(height, 1.0) * np.abs(s) ** 0.12
        upper = surface.upper_lip_height(lip_x) * taper + margin
        lower = surface.lower_lip_height(lip_x) * taper + 1.1 * margin
        y = lip_seam(np.minimum(x, MOUTH_HALF_WIDTH)) + np.where(above, upper, -lower)
        if height > 1.0:  # a dip on the midline would make the hull skip its vertex
            y[0] = max(y[0], y[1] + 0.0004)
        y[MOUTH_CORNER] = lip_seam(np.array(MOUTH_HALF_WIDTH))
        rings.append(front(x, y))
    inner = rings[-1]
    x = inner[:, 0]
    sign = np.sign(np.where(np.abs(s) < 1e-6, 0.0, s))
    # depth behind the lips, heights of roof and floor, width factor
    for depth, roof, floor, width in (
        (0.0025, 0.0010, 0.0010, 0.98),
        (0.0060, 0.0042, 0.0045, 0.95),
        (0.0080, 0.0110, 0.0120, 0.95),
        (0.0150, 0.0150, 0.0165, 1.02),
        (0.0300, 0.0140, 0.0165, 0.95),
        (0.0480, 0.0080, 0.0110, 0.60),
    ):
        z = inner[:, 2] - depth if depth < 0.01 else inner[0, 2] - depth - 0.35 * x**2 / MOUTH_HALF_WIDTH
        height = np.where(sign >= 0, roof, floor) * np.abs(s) ** 0.5
        rings.append(np.stack([x * width, lip_seam(x) + sign * height, z], 1))
    return rings


def _ear_rings() -> tuple[list[Float64], Float64]:
    """Rows from the root on the head, behind the auricle, over its crest to the concha; and the concha's centre."""
    angle = np.linspace(0.0, 2.0 * np.pi, EAR_COLUMNS, endpoint=False)
    c, s = np.cos(angle), np.sin(angle)
    behind = smoothstep(-0.35, 0.45, c + 0.25 * s)  # 0 where the auricle grows out of the cheek, 1 where it is free
    up = 0.0310 * s
    width = 0.0168 * (1.0 - 0.30 * smoothstep(0.004, -0.032, up))
    back = width * c
    root_back = np.where(c > 0, -0.0075 + 0.0110 * c, -0.0075 + 0.0130 * c)
    ahead = smoothstep(0.3, -0.4, c) * np.maximum(s, 0.0)  # where the helix runs into the cheek
    root_up = -0.0005 + 0.0275 * s + 0.0036 * ahead
    start = surface.ear_point(root_back, root_up, np.full_like(c, -0.05))
    direction = surface.ear_point(0.0 * c, 0.0 * c, np.ones_like(c)) - surface.EAR
    root, _ = surface.march(start, direction, 0.0, 0.09, surface.skull_distance, 60)

    def on_plate(scale: float, lift: float) -> Float64:
        inwards = max(1.0 - scale, 0.0)  # rings close in on the concha, not on the middle
        b, u = back * scale - 0.0035 * inwards, up * scale - 0.0045 * inwards
        return surface.ear_point(b, u, surface.ear_dish(b, u) + lift)

    # over the rim (its outermost line, its crest), then down the front: scapha, antihelix, wall and floor of the concha
    crest = [on_plate(k, lift) for k, lift in ((1.03, 0.0), (0.93, 0.0050))]
    inner = [on_plate(k, 0.0022) for k in (0.79, 0.64, 0.46, 0.25)]
    rows = [root]
    root_out = surface.ear_frame(*root.T)[2]
    edge_out = surface.ear_frame(*crest[0].T)[2]
    for t in (0.36, 0.74):  # behind the plate where it is free, along the cheek where it grows out of it
        b, u = root_back + t * (1.03 * back - root_back), root_up + t * (1.03 * up - root_up)
        free = surface.ear_dish(b, u) - 0.0030
        rows.append(
            surface.ear_point(b, u, root_out + t * (edge_out - root_out) * (1 - behind) + behind * (free - root_out))
        )
    rows += crest + inner
    rows[1:] = [surface.project(r, surface.head_distance, 4) for r in rows[1:]]
    return rows, surface.project(on_plate(0.0, 0.0018)[:1])


def _tooth_rows(upper: bool) -> list[Float64]:
    """Half an arch, columns from the midline back; rows gum front, labial face, edge front, edge back, gum back."""
    t = np.linspace(0.0, 1.0, TOOTH_COLUMNS)
    half_width = 0.0262 if upper else 0.0246
    x = half_width * np.sin(t * 1.35) / np.sin(1.35)
    lips_z = front(np.zeros(1), np.array([STOMION_Y]))[0, 2]
    z = lips_z - (0.0090 if upper else 0.0116) - 0.034 * (x / half_width) ** 2.4
    edge = STOMION_Y - (0.0022 if upper else 0.0024) + (0.0012 if upper else -0.0004) * t**2
    sign = 1.0 if upper else -1.0
    height = 0.0098 - 0.0020 * t
    thickness = 0.0030 + 0.0045 * t  # incisors are blades, molars are not
    normal_x = np.gradient(z, x, edge_order=2)
    inward = np.stack([normal_x, 0.0 * x, -np.ones_like(x)], 1) / np.sqrt(1.0 + normal_x**2)[:, None]
    inward[0] = [0.0, 0.0, -1.0]
    rows = []
    for rise, depth, tilt in (
        (1.0, 0.0, -0.0020),
        (0.5, 0.0, 0.0),
        (0.05, 0.0, 0.0),
        (0.0, 0.35, 0.0),
        (0.6, 1.3, 0.0),
    ):
        base = np.stack([x, edge + sign * rise * height, z + tilt], 1)
        rows.append(base + inward * (depth * thickness)[:, None])
    return rows


TONGUE_ROWS = 10
TONGUE_COLUMNS = 9  # half: upper midline, ..., side (column 4), ..., lower midline


def _tongue_rows() -> tuple[list[Float64], Float64]:
    """Half the tongue as rings from its root forwards, and the point of its tip."""
    lips_z = front(np.zeros(1), np.array([STOMION_Y]))[0, 2]
    angle = np.linspace(np.pi / 2, -np.pi / 2, TONGUE_COLUMNS)
    c, s = np.cos(angle), np.sin(angle)
    c[[0, -1]] = 0.0
    rows = []
    for t in np.linspace(0.0, 0.97, TONGUE_ROWS):
        round_tip = np.sqrt(max(1.0 - t**5, 0.0))
        half_width = (0.0170 - 0.0035 * t) * round_tip
        half_height = (0.0075 - 0.0042 * t) * round_tip
        groove = 0.0012 * bell(c, 0.30) * (s > 0) * round_tip  # median sulcus
        y = STOMION_Y - 0.0108 + 0.0030 * np.sin(np.pi * min(t * 1.2, 1.0)) - 0.0012 * t
        z = lips_z - 0.0520 + 0.0370 * t
        rows.append(np.stack([half_width * c, y + half_height * s - groove, np.full_like(c, z)], 1))
    tip = rows[-1].mean(0) * [0.0, 1.0, 1.0] + [0.0, 0.0, 0.0012]
    return rows, tip


def _strip(outer: Int, inner: Int, closed: bool) -> Int:
    """Triangles between two rings of equal length; diagonals fall one way on the first half, the other on the rest."""
    faces = []
    n = len(outer)
    for i in range(n if closed else n - 1):
        j = (i + 1) % n
        a, b, c, d = outer[i], outer[j], inner[j], inner[i]
        faces += [[a, d, b], [b, d, c]] if 2 * i < n - 1 else [[a, d, c], [a, c, b]]
    return np.array(faces)


def _eyeball() -> tuple[Float64, Int]:
    columns = 24
    polar = np.concatenate([np.linspace(0.0, 0.64, 6), np.linspace(0.64, np.pi, 8)[1:]])[1:-1]
    azimuth = np.arange(columns) * 2.0 * np.pi / columns
    rings = [
        np.stack([np.sin(p) * np.cos(azimuth), np.sin(p) * np.sin(azimuth), np.full(columns, np.cos(p))], 1)
        for p in polar
    ]
    v = np.concatenate([[[0.0, 0.0, 1.0]], *rings, [[0.0, 0.0, -1.0]]])
    last, faces = len(v) - 1, []
    for i in range(columns):
        j = (i + 1) % columns
        faces += [[0, 1 + i, 1 + j], [last, last - columns + j, last - columns + i]]
    for r in range(len(polar) - 1):
        ring = 1 + r * columns + np.arange(columns)
        faces += _strip(ring, ring + columns, True).tolist()
    cornea = 0.0009 * smoothstep(0.52, 0.15, np.arccos(np.clip(v[:, 2], -1.0, 1.0)))
    position = v * EYEBALL_RADIUS
    position[:, 2] += cornea
    return EYE + position, np.array(faces)


# --- the skin between the grids -----------------------------------------------------------------------------------


def _spacing(points: Float64) -> Float64:
    """Wanted distance between skin vertices, metres: fine on nose, around the mouth and in the cheek's fold."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    face = smoothstep(-0.02, 0.02, z) * smoothstep(-0.105, -0.085, y) * smoothstep(0.085, 0.055, y)
    h = 0.0112 - 0.0064 * face
    h = np.minimum(h, 0.0030 + 0.0045 * smoothstep(0.010, 0.032, np.sqrt(x**2 + (y + 0.008) ** 2 + (z - 0.055) ** 2)))
    ear = np.sqrt((x - 0.072) ** 2 + (y - 0.004) ** 2 + (z + 0.050) ** 2)
    h = np.minimum(h, 0.0058 + 0.006 * smoothstep(0.030, 0.055, ear))
    return np.minimum(h, 0.0036 + 0.0030 * smoothstep(0.030, 0.06, np.hypot(x, y - STOMION_Y)) + 0.02 * (z < 0.0))


def _chart(points: Float64) -> Float64:
    """Map the head to the unit sphere: seen from its middle above, a conformal cylinder on the neck."""
    direction = points - [0.0, 0.018, -0.050]
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    y = points[:, 1]
    cylinder = smoothstep(-0.100, -0.130, y)[:, None]
    azimuth = np.arctan2(points[:, 0], points[:, 2] - surface.neck_axis_z(y))
    polar = np.minimum(0.346 * np.exp((y + 0.115) / 0.060), 1.2)
    neck = np.stack([np.sin(polar) * np.sin(azimuth), -np.cos(polar), np.sin(polar) * np.cos(azimuth)], 1)
    blend = direction * (1.0 - cylinder) + neck * cylinder
    return blend / np.linalg.norm(blend, axis=1, keepdims=True)


def inside_polygon(polygon: Float64, points: Float64) -> NDArray[np.bool_]:
    """Even-odd test of points [N, 2] against a closed polygon [M, 2]."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, :1], points[:, 1:]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    at = (b[:, 0] - a[:, 0]) * (y - a[:, 1]) / (b[:, 1] - a[:, 1] + 1e-15) + a[:, 0]
    return ((crosses & (x < at)).sum(1) % 2) == 1


def edges_of(faces: Int) -> Int:
    """Directed edges [3F, 2]; edge k of the list belongs to face k mod F."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def _unit(v: Float64) -> Float64:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-15)


def _flip_edges(v: Float64, faces: Int, passes: int = 12) -> Int:
    """Lawson flips in space: an edge whose opposite angles sum past 180 degrees goes to the other diagonal."""

    def angle(at: Int, p: Int, q: Int) -> Float64:
        return np.arccos(np.clip((_unit(v[p] - v[at]) * _unit(v[q] - v[at])).sum(1), -1.0, 1.0))

    def normal(p: Int, q: Int, r: Int) -> Float64:
        return _unit(np.cross(v[q] - v[p], v[r] - v[p]))

    for _ in range(passes):
        e = edges_of(faces)
        opposite = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
        owner = np.tile(np.arange(len(faces)), 3)
        low_high = np.sort(e, 1)
        key = low_high[:, 0] * len(v) + low_high[:, 1]
        order = np.argsort(key, kind="stable")
        twins = np.flatnonzero(key[order][1:] == key[order][:-1])
        i, j = order[twins], order[twins + 1]
        a, b, c, d = e[i, 0], e[i, 1], opposite[i], opposite[j]
        total = angle(c, a, b) + angle(d, a, b)
        mean = _unit(normal(a, b, c) + normal(b, a, d))
        smooth = ((normal(a, d, c) * mean).sum(1) > 0.35) & ((normal(d, b, c) * mean).sum(1) > 0.35)
        candidates = np.flatnonzero((total > np.pi + 1e-3) & smooth)
        candidates = candidates[np.argsort(-total[candidates], kind="stable")]
        used = np.zeros(len(faces), dtype=bool)
        existing = set(key.tolist())
        flipped = 0
        for q in candidates:
            f1, f2 = owner[i[q]], owner[j[q]]
            new = min(c[q], d[q]) * len(v) + max(c[q], d[q])
            if used[f1] or used[f2] or new in existing:
                continue
            used[f1] = used[f2] = True
            faces[f1], faces[f2] = (a[q], d[q], c[q]), (d[q], b[q], c[q])
            existing.add(new)
            flipped += 1
        if not flipped:
            break
    return faces


def _poisson(candidates: Float64, fixed: Float64, scale: float) -> Float64:
    """Greedy dart throwing: the candidates kept, in order, no two (nor a fixed point) closer than the spacing."""
    everything = np.concatenate([fixed, candidates])
    near = scipy_spatial().cKDTree(everything).query_ball_point(everything, _spacing(everything) * 0.80 * scale)
    alive = np.ones(len(everything), dtype=bool)
    kept = []
    for k in range(len(everything)):
        if alive[k] or k < len(fixed):
            if k >= len(fixed):
                kept.append(k)
            alive[near[k]] = False
    return everything[kept]


def _skin_candidates(rng: np.random.Generator) -> Float64:
    """Dense random points of the left half's skin, from rays out of the skull, the face and the neck's axis."""
    skull = surface.skull_distance
    n = 26000
    i = np.arange(n) + 0.5
    polar, turn = np.arccos(1.0 - 2.0 * i / n), np.pi * (1.0 + 5**0.5) * i
    d = np.stack([np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], 1)
    d = d[d[:, 0] > 0.003]
    head, hit = surface.march(np.tile([0.0, 0.018, -0.034], (len(d), 1)), d, 0.03, 0.24, skull, 44)
    head = head[hit & (head[:, 1] > -0.10)]
    d = rng.normal(size=(7000, 3)) * [0.7, 0.7, 0.3] + [0.0, -0.1, 1.0]
    d[:, 0] = np.abs(d[:, 0])
    face, hit = surface.march(np.tile([0.0, -0.012, 0.010], (len(d), 1)), _unit(d), 0.0, 0.12, skull, 36)
    face = face[hit & (face[:, 2] > 0.01)]
    y, azimuth = rng.uniform(NECK_CUT_Y, -0.085, 6000), rng.uniform(0.0, np.pi, 6000)
    origin = np.stack([0.0 * y, y, surface.neck_axis_z(y)], 1)
    d = np.stack([np.sin(azimuth), 0.0 * y, np.cos(azimuth)], 1)
    neck, hit = surface.march(origin, d, 0.0, 0.16, skull, 40)
    neck = neck[hit]
    neck = neck[surface.gradient(neck, skull)[:, 1] > -0.8]  # not the underside of the jaw
    points = np.concatenate([head, face, neck])
    points = points[points[:, 0] > 0.0008]
    return points[rng.permutation(len(points))]


def _midline_candidates() -> Float64:
    skull = surface.skull_distance
    angle = np.linspace(0.0, 2.0 * np.pi, 1400)
    d = np.stack([0.0 * angle, np.cos(angle), np.sin(angle)], 1)
    head, hit = surface.march(np.tile([0.0, 0.018, -0.034], (len(d), 1)), d, 0.02, 0.24, skull, 70)
    y = np.linspace(-0.075, NECK_CUT_Y, 200)
    origin = np.stack([0.0 * y, y, surface.neck_axis_z(y)], 1)
    ahead, _ = surface.march(origin, np.tile([0.0, 0.0, 1.0], (200, 1)), 0.0, 0.14, skull, 40)
    behind, _ = surface.march(origin, np.tile([0.0, 0.0, -1.0], (200, 1)), 0.0, 0.14, skull, 40)
    points = np.concatenate(
        [head[hit & (head[:, 1] > -0.115)], ahead[ahead[:, 1] < -0.11], behind[behind[:, 1] < -0.11]]
    )
    points[:, 0] = 0.0
    return points


def _neck_ring() -> Float64:
    azimuth = np.linspace(0.0, np.pi, 23)
    d = np.stack([np.sin(azimuth), 0.0 * azimuth, np.cos(azimuth)], 1)
    origin = np.tile([0.0, NECK_CUT_Y, float(surface.neck_axis_z(np.array(NECK_CUT_Y)))], (23, 1))
    ring, _ = surface.march(origin, d, 0.0, 0.18, surface.skull_distance, 60)
    ring[[0, -1], 0] = 0.0
    return ring


def _triangulate(half: Float64, rings: list[range]) -> Int:
    """Spherical Delaunay triangles of the half head, without those that only touch one ring (the holes)."""
    sphere = _chart(half)
    on_midline = half[:, 0] < 1e-7
    sphere[on_midline, 0] = 0.0
    sphere = _unit(sphere)
    mirrored = sphere[~on_midline] * [-1.0, 1.0, 1.0]
    hull = scipy_spatial().ConvexHull(np.concatenate([sphere, mirrored, [[0.0, -1.0, 0.0]]])).simplices
    faces = np.sort(hull[(hull < len(half)).all(1)], axis=1).astype(np.int64)
    faces = faces[np.lexsort(faces.T[::-1])]  # Qhull's order is its own business
    ring_of = np.full(len(half), -1)
    for k, ring in enumerate(rings):
        ring_of[ring] = k
    on_ring = ring_of[faces]
    faces = faces[~((on_ring[:, 0] >= 0) & (on_ring == on_ring[:, :1]).all(1))]
    normal = np.cross(sphere[faces[:, 1]] - sphere[faces[:, 0]], sphere[faces[:, 2]] - sphere[faces[:, 0]])
    inwards = (normal * sphere[faces].mean(1)).sum(1) < 0
    faces[inwards] = faces[inwards][:, ::-1]
    return faces


def _relax(half: Float64, faces: Int, fixed: int) -> tuple[Float64, Int]:
    """Alternate edge flips with tangential smoothing of all but the first ``fixed`` vertices."""
    moving = np.arange(fixed, len(half))
    for _ in range(5):
        faces = _flip_edges(half, faces)
        e = edges_of(faces)
        e = np.concatenate([e, e[:, ::-1]])
        total, count = np.zeros_like(half), np.bincount(e[:, 0], minlength=len(half))
        np.add.at(total, e[:, 0], half[e[:, 1]])
        step = total[moving] / count[moving, None] - half[moving]
        normal = _unit(surface.gradient(half[moving], surface.skull_distance))
        step -= (step * normal).sum(1, keepdims=True) * normal
        half[moving] = surface.project(half[moving] + 0.5 * step, surface.skull_distance, 2)
        half[moving, 0] = np.maximum(half[moving, 0], 0.0006)
    half[moving] = surface.project(half[moving], surface.head_distance, 2)
    half[moving, 0] = np.maximum(half[moving, 0], 0.0006)
    return half, _flip_edges(half, faces)


def build_mesh(seed: int = 20) -> HeadMesh:
    """Build the average head's mesh; deterministic. ``seed`` only moves the free skin vertices. About two seconds."""
    rng = np.random.default_rng(seed)
    eye_rings, mouth_rings = _eye_rings(), _mouth_rings()
    ear_rings, concha = _ear_rings()
    tongue_rings, tongue_tip = _tongue_rows()
    teeth = {Part.UPPER_TEETH: _tooth_rows(True), Part.LOWER_TEETH: _tooth_rows(False)}
    ball, ball_faces = _eyeball()
    neck = _neck_ring()

    mouth_polygon = np.concatenate([mouth_rings[0][:, :2], mouth_rings[0][::-1, :2] * [-1.0, 1.0]])
    ear_polygon = np.stack(surface.ear_frame(*ear_rings[0].T)[:2], 1)

    def outside_grids(points: Float64) -> Float64:
        ahead = points[:, 2] > 0.0
        hole = ahead & inside_polygon(mouth_polygon, points[:, :2])
        hole |= ahead & inside_polygon(eye_rings[0][:, :2], points[:, :2])
        in_ear = inside_polygon(ear_polygon, np.stack(surface.ear_frame(*points.T)[:2], 1))
        hole |= (points[:, 0] > 0.045) & in_ear
        return points[~hole & (points[:, 1] > NECK_CUT_Y + 0.0085)]

    midline, candidates = outside_grids(_midline_candidates()), outside_grids(_skin_candidates(rng))
    rings = np.concatenate([neck, eye_rings[0], mouth_rings[0], ear_rings[0]])
    structured = 2 * len(neck) - 2 + 2 * EYE_COLUMNS * len(eye_rings) + 2 * len(ball) + 1
    structured += (2 * MOUTH_COLUMNS - 2) * len(mouth_rings) + 2 * 5 * (2 * TOOTH_COLUMNS - 1)
    structured += 2 * (EAR_COLUMNS * len(ear_rings) + 1) + (2 * TONGUE_COLUMNS - 2) * TONGUE_ROWS + 1
    for scale in 1.15 * 0.985 ** np.arange(40):  # denser until the count is passed, then thin the scalp out in pairs
        middle = _poisson(midline, rings[rings[:, 0] < 1e-6], scale)
        skin = _poisson(candidates, np.concatenate([rings, middle]), scale)
        skin = skin[skin[:, 0] > 0.38 * _spacing(skin)]
        surplus = structured + len(middle) + 2 * len(skin) - VERTEX_COUNT
        if surplus >= 0:
            break
    if surplus % 2:  # the midline alone has no twins: it gives up one vertex on the crown
        middle = np.delete(middle, np.argmax(middle[:, 1]), 0)
        surplus -= 1
    scalp = np.flatnonzero((skin[:, 2] < -0.03) & (skin[:, 1] > 0.03))
    skin = np.delete(skin, rng.choice(scalp, surplus // 2, replace=False), 0)

    half = np.concatenate([rings, middle, skin])
    bounds = np.cumsum([0, len(neck), EYE_COLUMNS, MOUTH_COLUMNS, EAR_COLUMNS])
    neck_ids, eye_ids, mouth_ids, ear_ids = (np.arange(a, b) for a, b in itertools.pairwise(bounds))
    holes = [range(a, b) for a, b in itertools.pairwise(bounds)]
    half, skin_faces = _relax(half, _triangulate(half, holes), len(rings) + len(middle))

    vertices, faces = [half], [skin_faces]
    part, row = [np.full(len(half), Part.SKIN, dtype=np.int64)], [np.full(len(half), -1)]

    def add(points: Float64, of: Part, index: int) -> Int:
        start = sum(len(v) for v in vertices)
        vertices.append(points)
        part.append(np.full(len(points), of, dtype=np.int64))
        row.append(np.full(len(points), index))
        return np.arange(start, start + len(points))

    eye_rows = [eye_ids] + [add(r, Part.EYELIDS, k) for k, r in enumerate(eye_rings[1:], 1)]
    faces += [_strip(a, b, True)[:, ::-1] for a, b in itertools.pairwise(eye_rows)]
    mouth_rows = [mouth_ids] + [
        add(r, Part.LIPS if k < LIP_ROWS else Part.MOUTH_INTERIOR, k) for k, r in enumerate(mouth_rings[1:], 1)
    ]
    faces += [_strip(a, b, False) for a, b in itertools.pairwise(mouth_rows)]
    throat = mouth_rings[-1][[0, -1]].mean(0) * [0.0, 1.0, 1.0] - [0.0, 0.0, 0.004]
    back = add(throat[None], Part.MOUTH_INTERIOR, len(mouth_rings))[0]
    last = mouth_rows[-1]
    faces.append(np.stack([last[:-1], np.full(MOUTH_COLUMNS - 1, back), last[1:]], 1))
    ear_rows = [ear_ids] + [add(r, Part.EAR, k) for k, r in enumerate(ear_rings[1:], 1)]
    faces += [_strip(a, b, True)[:, ::-1] for a, b in itertools.pairwise(ear_rows)]
    inner_ear = add(concha, Part.EAR, len(ear_rings))[0]
    last = ear_rows[-1]
    faces.append(np.stack([last, np.roll(last, -1), np.full(EAR_COLUMNS, inner_ear)], 1))
    tooth_rows = {}
    for of, rows in teeth.items():
        ids = [add(r, of, k) for k, r in enumerate(rows)]
        strips = np.concatenate([_strip(a, b, False) for a, b in itertools.pairwise(ids)])
        faces.append(strips if of is Part.UPPER_TEETH else strips[:, ::-1])
        tooth_rows[of] = tuple(ids)
    tongue_rows = [add(r, Part.TONGUE, k) for k, r in enumerate(tongue_rings)]
    faces += [_strip(a, b, False) for a, b in itertools.pairwise(tongue_rows)]
    tip = add(tongue_tip[None], Part.TONGUE, TONGUE_ROWS)[0]
    last = tongue_rows[-1]
    faces.append(np.stack([last[:-1], np.full(TONGUE_COLUMNS - 1, tip), last[1:]], 1))
    faces.append(ball_faces + add(ball, Part.EYEBALL, 0)[0])

    v, f = np.concatenate(vertices), np.concatenate(faces)
    f = np.asarray(f, dtype=np.int64)
    on_midline = v[:, 0] < 1e-7
    v[on_midline, 0] = 0.0
    own, off = np.arange(len(v)), np.flatnonzero(~on_midline)
    to_right = own.copy()
    to_right[off] = len(v) + np.arange(len(off))
    return HeadMesh(
        vertices=np.concatenate([v, v[off] * [-1.0, 1.0, 1.0]]),
        faces=np.concatenate([f, to_right[f][:, ::-1]]),
        part=np.concatenate([np.concatenate(part), np.concatenate(part)[off]]),
        row=np.concatenate([np.concatenate(row), np.concatenate(row)[off]]),
        mirror=np.concatenate([to_right, off]),
        eye_rows=tuple(eye_rows),
        mouth_rows=tuple(mouth_rows),
        tooth_rows=tooth_rows,
        tongue_rows=tuple(tongue_rows),
        ear_rows=tuple(ear_rows),
        neck_ring=neck_ids,
    )


def vertex_normals(vertices: Float64, faces: Int) -> Float64:
    """Area-weighted unit normals [V, 3]."""
    corners = vertices[faces]
    face_normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], face_normal)
    return _unit(normals)
