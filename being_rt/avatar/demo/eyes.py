"""Eyes: iris with fibres, limbal ring and caustic, veined sclera, the lids' shadow, wet rim, highlights, lashes.

The eyeball's Gaussians ride on the eyeball and turn with the gaze. What belongs to the light does not turn: the lids'
shadow rides on the rims, so that it follows a blink, and the highlights ride on the inner corner of the eye.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import Cloud, Mesh, attach, cloud, concatenate, noise, scatter, smooth_normals, unit
from being_rt.avatar.demo.features import smooth_curve
from being_rt.avatar.demo.lighting import FILL, KEY, develop, linear
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep

Array = NDArray[np.float64]

IRIS_RADIUS = 0.00605  # on the sphere's face; human 5.9 +- 0.3 mm
PUPIL_RADIUS = 0.00215
BALL_RADIUS = 0.0128  # of the eyeball that these radii belong to


def fit_sphere(points: Array) -> tuple[Array, float]:
    """Least-squares sphere through points [N, 3]: centre and radius."""
    matrix = np.concatenate([2.0 * points, np.ones((len(points), 1))], 1)
    solution = np.linalg.lstsq(matrix, (points**2).sum(1), rcond=None)[0]
    centre = solution[:3]
    return centre, float(np.sqrt(solution[3] + centre @ centre))


def build_eye(
    mesh: Mesh,
    ball_faces: NDArray[np.int64],
    lid_faces: NDArray[np.int64],
    upper_rim: Array,
    lower_rim: Array,
    side: int,
    traits: PersonTraits,
    spacing: float = 1.0,
) -> tuple[Cloud, Cloud]:
    """One eye. Rims are polylines [L, 3] on this person from the inner to the outer corner; ``side`` +1 is the left.

    Returns:
        the eye, and the lashes and the line of their roots.
    """
    seed = traits.seed * 31 + side
    vertices = mesh.person[np.unique(mesh.faces[ball_faces])]
    centre, radius = fit_sphere(vertices[vertices[:, 2] < vertices[:, 2].max() - 0.004])
    upper, lower = smooth_curve(upper_rim, 96), smooth_curve(lower_rim, 96)
    parts = [_ball(mesh, ball_faces, centre, radius, upper, lower, side, traits, seed, spacing)]
    parts.append(_veins(mesh, ball_faces, centre, radius, side, traits, seed))
    parts.append(_lid_shadow(mesh, lid_faces, centre, radius, upper, lower))
    parts.append(_wet_line(mesh, lid_faces, centre, upper, lower, traits))
    parts.append(_caruncle(mesh, lid_faces, upper, lower, centre, side, traits))
    parts.append(_highlights(mesh, lid_faces, centre, radius, upper))
    return concatenate(parts), _lashes(mesh, lid_faces, centre, upper, lower, side, traits, seed)


def build_margins(mesh: Mesh, faces: NDArray[np.int64], traits: PersonTraits, spacing: float = 1.0) -> Cloud:
    """The lids' inner edges, from the rim to the ball: moist and pink, seen when the head turns."""
    samples = scatter(mesh, faces, np.full(len(faces), 0.00062 * spacing), seed=traits.seed + 6, oversampling=4.0)
    normals = smooth_normals(mesh, faces)
    normal = unit(np.einsum("nk,nkd->nd", samples.barycentric, normals[mesh.faces[samples.face]]))
    pink = traits.skin_albedo * 0.45 + linear((210, 132, 120)) * (0.55 - 0.35 * traits.skin_tone)
    colour = develop(pink * (0.34 + 0.30 * np.clip(normal[:, 1:2], 0.0, 1.0)))
    return cloud("lid", samples, normal, np.array([0.00055, 0.00055, 0.0002]) * spacing, colour, 0.95)


def _spiral(count: int, cosine_end: float) -> Array:
    """Even directions over a cap about +z (Fibonacci's lattice)."""
    index = np.arange(count) + 0.5
    z = 1.0 - index / count * (1.0 - cosine_end)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    across = np.sqrt(1.0 - z * z)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], 1)


def _ball(
    mesh: Mesh,
    faces: NDArray[np.int64],
    centre: Array,
    radius: float,
    upper: Array,
    lower: Array,
    side: int,
    traits: PersonTraits,
    seed: int,
    spacing: float,
) -> Cloud:
    rng = np.random.default_rng(seed)
    grown = radius / BALL_RADIUS
    iris = _spiral(int(1500 / spacing**2), np.sqrt(1.0 - ((IRIS_RADIUS + 0.0002) / BALL_RADIUS) ** 2))
    white = _spiral(int(1500 / spacing**2), 0.28)
    white = white[np.hypot(white[:, 0], white[:, 1]) * BALL_RADIUS > IRIS_RADIUS - 0.0001]
    direction = np.concatenate([iris, white])
    in_iris = np.arange(len(direction)) < len(iris)
    rho = np.hypot(direction[:, 0], direction[:, 1]) * BALL_RADIUS  # as on an eye of common size
    angle = np.arctan2(direction[:, 1], direction[:, 0])
    position = centre + direction * radius
    dx, dy = (position[:, 0] - centre[0]) * side, position[:, 1] - centre[1]

    # Iris: fibres from the collarette to the limbus, darker crypts, a warm inner ring, the dark limbal ring.
    base = linear(traits.eye_colour)
    phase = rng.uniform(0, 2 * np.pi, 6)
    fibres = np.zeros(len(angle))
    for index, (count, swirl) in enumerate(((17, 260.0), (29, -340.0), (47, 500.0), (71, -300.0))):
        fibres += np.cos(count * angle + swirl * rho + 1.6 * np.sin(5 * angle + phase[index]) + phase[index]) / (
            1.0 + 0.35 * index
        )
    fibres *= smoothstep(PUPIL_RADIUS, PUPIL_RADIUS + 0.0012, rho)
    crypts = np.clip(
        noise(np.stack([np.cos(angle) * 4.0, np.sin(angle) * 4.0, rho * 900], 1), 2.0, seed + 1) - 0.5, 0, None
    )
    inner = bell(rho - PUPIL_RADIUS - 0.0008, 0.0009)
    light_eye = float(np.clip(base.mean() / 0.16, 0.15, 1.0))
    colour = base * (1.12 + 0.34 * fibres - 0.45 * crypts)[:, None]
    warm = np.array([0.34, 0.17, 0.055]) * (0.55 + 0.45 * light_eye)
    colour = colour * (1.0 - 0.42 * inner[:, None]) + warm * (0.42 * inner * (1.0 + 0.3 * fibres))[:, None]
    # The cornea gathers the key light on the iris's far side.
    toward = (direction[:, 0] * KEY.direction[0] + direction[:, 1] * KEY.direction[1]) / np.hypot(*KEY.direction[:2])
    caustic = (
        smoothstep(0.10, -0.42, toward) * smoothstep(PUPIL_RADIUS, 0.0042, rho) * smoothstep(IRIS_RADIUS, 0.0046, rho)
    )
    colour = colour * (1.0 + 1.15 * caustic)[:, None]
    colour *= (1.0 - 0.86 * smoothstep(IRIS_RADIUS - 0.00125, IRIS_RADIUS - 0.0001, rho))[:, None]
    colour *= (1.0 - 0.30 * bell(rho - PUPIL_RADIUS, 0.0004))[:, None]
    pupil = smoothstep(PUPIL_RADIUS + 0.00022, PUPIL_RADIUS - 0.00018, rho)[:, None]
    colour = colour * (1.0 - pupil) + 0.0035 * pupil

    # Sclera: off-white, redder towards the corners, bluish beside the limbus, yellower with age.
    old = float(np.clip((traits.age - 30) / 40, 0, 1))
    sclera = linear((214, 206, 199)) * np.array([1.0, 1.0 - 0.03 * old, 1.0 - 0.10 * old])
    sclera = np.tile(sclera, (len(direction), 1)) * (1.0 + 0.03 * noise(position, 0.004, seed + 2))[:, None]
    corner = smoothstep(0.0070, 0.0125, np.abs(dx))
    medial = smoothstep(-0.0080, -0.0125, dx)
    sclera *= 1.0 - corner[:, None] * np.array([0.05, 0.20, 0.20]) - medial[:, None] * np.array([0.02, 0.16, 0.14])
    limbus = bell(rho - IRIS_RADIUS, 0.0009)[:, None]
    sclera *= 1.0 - limbus * np.array([0.46, 0.38, 0.30])
    blend = smoothstep(IRIS_RADIUS + 0.00035, IRIS_RADIUS - 0.00035, rho)[:, None]
    colour = sclera * (1.0 - blend) + colour * blend

    # The socket shades a ball much more than a ball in the open: from above most, at the corners, a little from below.
    top = np.interp(dx, (upper[:, 0] - centre[0]) * side, upper[:, 1] - centre[1])
    bottom = np.interp(dx, (lower[:, 0] - centre[0]) * side, lower[:, 1] - centre[1])
    shade = 1.0 - 0.42 * np.exp(-np.clip(top - dy, 0, None) / 0.0024)
    shade *= 1.0 - 0.22 * np.exp(-np.clip(dy - bottom, 0, None) / 0.0013)
    shade *= 1.0 - 0.42 * smoothstep(0.0075, 0.0130, np.abs(dx))
    lit = (
        0.30
        + 0.52 * np.clip(direction @ KEY.direction + 0.15, 0, 1.15)
        + 0.22 * np.clip(direction @ FILL.direction, 0, 1)
    )
    depth = np.where(in_iris & (rho < IRIS_RADIUS), 1.12, 1.0)
    bright = develop(colour * (1.02 * lit * shade * depth)[:, None] * [1.0, 0.985, 0.97])
    own_size = np.where(in_iris, 0.000255, 0.00050) * spacing * grown
    around = np.stack([-np.sin(angle), np.cos(angle), 0.0 * angle], 1)
    radial = np.cross(around, direction)
    # Fibres are longer than wide.
    long = np.where(in_iris & (rho > PUPIL_RADIUS), 1.5, 1.0)
    scale = np.stack([own_size * long, own_size / np.sqrt(long), np.full(len(own_size), 0.0001)], 1)
    samples = attach(mesh, faces, position)
    return cloud("eye", samples, direction, scale, bright, 0.985, tangent=radial)


def _veins(
    mesh: Mesh, faces: NDArray[np.int64], centre: Array, radius: float, side: int, traits: PersonTraits, seed: int
) -> Cloud:
    rng = np.random.default_rng(seed + 77)
    old = float(np.clip((traits.age - 25) / 45, 0, 1))
    points, tangents, strength = [], [], []
    for vein in range(int(9 + 7 * old)):
        sign = 1.0 if vein % 2 else -1.0
        x, y = sign * rng.uniform(0.0100, 0.0122), rng.uniform(-0.0042, 0.0040)
        heading = np.pi * (sign > 0) + rng.normal() * 0.35
        length = int(rng.integers(6, 13))
        for step in range(length):
            heading += rng.normal() * 0.40
            x, y = x + 0.00042 * np.cos(heading), y + 0.00042 * np.sin(heading)
            if np.hypot(x, y) < IRIS_RADIUS + 0.0010 or np.hypot(x, y) > radius * 0.97:
                break
            points.append([x * side, y, np.sqrt(radius**2 - x * x - y * y)])
            tangents.append([np.cos(heading) * side, np.sin(heading), 0.0])
            strength.append(1.0 - step / length)
    position, fade = np.array(points), np.array(strength)
    samples = attach(mesh, faces, centre + position * 1.004)
    colour = develop(linear((176, 92, 84)) * 0.55)
    scale = np.tile([0.00034, 0.00007, 0.00005], (len(position), 1))
    return cloud("eye", samples, unit(position), scale, colour, (0.20 + 0.16 * old) * fade, tangent=np.array(tangents))


def _between(upper: Array, lower: Array, share: float) -> Array:
    return upper * (1.0 - share) + lower * share


def _lid_shadow(
    mesh: Mesh, faces: NDArray[np.int64], centre: Array, radius: float, upper: Array, lower: Array
) -> Cloud:
    """Soft dark bands on the ball beneath the rims, carried by the lids."""
    parts = []
    for rim, other, reach, strength in (
        (upper, lower, 0.0010, 0.34),
        (upper, lower, 0.0024, 0.17),
        (lower, upper, 0.0005, 0.20),
    ):
        curve = smooth_curve(rim, 44)[2:-2]
        opposite = smooth_curve(other, 44)[2:-2]
        inward = unit(opposite - curve)
        opening = np.linalg.norm(opposite - curve, axis=1)
        place = curve + inward * np.minimum(reach, 0.4 * opening)[:, None]
        direction = unit(place - centre)
        place = centre + direction * (radius + 0.00025)
        samples = attach(mesh, faces, place)
        along = np.gradient(curve, axis=0)
        size = np.stack(
            [np.full(len(curve), 0.0007), np.full(len(curve), 0.55 * reach + 0.0003), np.full(len(curve), 0.00005)], 1
        )
        parts.append(
            cloud(
                "lid",
                samples,
                direction,
                size,
                np.array([0.16, 0.085, 0.07]),
                strength * smoothstep(0.0, 0.004, opening),
                tangent=along,
            )
        )
    return concatenate(parts)


def _wet_line(
    mesh: Mesh, faces: NDArray[np.int64], centre: Array, upper: Array, lower: Array, traits: PersonTraits
) -> Cloud:
    """The rims' pink margin with the tear film's bright line where lid meets ball."""
    skin = traits.skin_albedo
    parts = []
    for rim, is_lower in ((upper, False), (lower, True)):
        curve = smooth_curve(rim, 72)[1:-1]
        direction = unit(curve - centre)
        along = np.gradient(curve, axis=0)
        pink = skin * 0.55 + linear((214, 144, 130)) * (0.45 - 0.30 * traits.skin_tone)
        flesh = develop(pink * (0.95 if is_lower else 0.42))
        inward = curve - direction * 0.00055
        samples = attach(mesh, faces, inward)
        scale = np.stack([np.full(len(curve), 0.00042), np.full(len(curve), 0.00042), np.full(len(curve), 0.00030)], 1)
        parts.append(cloud("lid", samples, direction, scale, flesh, 0.92, tangent=along))
        if is_lower:
            film = curve - direction * 0.0008 + np.array([0.0, 0.00042, 0.0])
            glint = (
                0.20
                + 0.45 * bell((film[:, 0] - centre[0]) + 0.0035, 0.0035)
                + 0.14 * bell((film[:, 0] - centre[0]) - 0.006, 0.002)
            )
            samples = attach(mesh, faces, film)
            scale = np.stack(
                [np.full(len(curve), 0.00040), np.full(len(curve), 0.00012), np.full(len(curve), 0.00008)], 1
            )
            parts.append(cloud("lid", samples, direction, scale, np.array([0.96, 0.94, 0.93]), glint, tangent=along))
    return concatenate(parts)


def _caruncle(
    mesh: Mesh, faces: NDArray[np.int64], upper: Array, lower: Array, centre: Array, side: int, traits: PersonTraits
) -> Cloud:
    """The pink mound in the inner corner."""
    inner = 0.5 * (upper[0] + lower[0])
    rng = np.random.default_rng(9)
    offset = rng.uniform(-1, 1, (70, 3)) * [0.0013, 0.0011, 0.0]
    offset = offset[(offset[:, 0] / 0.0013) ** 2 + (offset[:, 1] / 0.0011) ** 2 < 1]
    middle = inner + np.array([0.0012 * side, -0.0001, 0.0])
    direction = unit(middle - centre)
    bulge = np.sqrt(np.clip(1.0 - (offset[:, 0] / 0.0016) ** 2 - (offset[:, 1] / 0.0014) ** 2, 0, 1))
    place = middle + offset - direction * 0.0013 + direction * (0.0009 * bulge)[:, None]
    lit = 0.55 + 0.45 * bulge - 0.25 * (offset[:, 1] > 0.0004)
    colour = develop(linear((206, 122, 110)) * (0.62 + 0.2 * (1 - traits.skin_tone)) * lit[:, None] * 1.1)
    samples = attach(mesh, faces, place)
    return cloud("lid", samples, np.tile(direction, (len(place), 1)), [0.00042, 0.00042, 0.00025], colour, 0.9)


def _highlights(mesh: Mesh, faces: NDArray[np.int64], centre: Array, radius: float, upper: Array) -> Cloud:
    """Mirror images of the softboxes on the cornea, carried by the inner corner: light stays when the eye turns."""
    grown = radius / BALL_RADIUS
    cornea_centre, cornea_radius = centre + np.array([0.0, 0.0, 0.0056 * grown]), 0.0081 * grown
    corner_faces = faces[
        np.argsort(np.linalg.norm(mesh.person[mesh.faces[faces]].mean(1) - upper[0], axis=1), kind="stable")[:6]
    ]
    position, size, opacity, tint = [], [], [], []
    for lamp, half_width, half_height, strength, shift in (
        (KEY, 0.00078, 0.00095, 0.97, 0.76),
        (FILL, 0.00050, 0.00085, 0.22, 0.90),
    ):
        half = unit(lamp.direction + np.array([0.0, 0.0, 1.0])) * [shift, shift, 1.0]
        middle = cornea_centre + cornea_radius * unit(half)
        middle = centre + unit(middle - centre) * (radius + 0.00022)  # behind the lids' edge, before the ball
        # A soft box is a square with even brightness: nine small Gaussians, not one round blob.
        for column in (-0.62, 0.0, 0.62):
            for row in (-0.62, 0.0, 0.62):
                position.append(
                    middle + np.array([column * half_width, row * half_height + 0.10 * column * half_height, 0.0])
                )
                size.append([0.42 * half_width, 0.42 * half_height, 0.00005])
                opacity.append(strength * 0.80)
                tint.append(np.array([1.0, 0.985, 0.96]) if lamp is KEY else np.array([0.80, 0.87, 0.95]))
    points = np.array(position)
    samples = attach(mesh, corner_faces, points)
    return cloud(
        "glint",
        samples,
        np.tile([0.0, 0.0, 1.0], (len(points), 1)),
        np.array(size),
        np.array(tint),
        np.array(opacity),
        tangent=np.array([1.0, 0.0, 0.0]),
    )


def _lashes(
    mesh: Mesh,
    faces: NDArray[np.int64],
    centre: Array,
    upper: Array,
    lower: Array,
    side: int,
    traits: PersonTraits,
    seed: int,
) -> Cloud:
    """Lashes in irregular groups that curve up and out, and the dark line of their roots."""
    rng = np.random.default_rng(seed + 5)
    parts = []
    lush = 0.55 + 0.45 * traits.femininity * (0.6 + 0.4 * traits.makeup)
    dark = np.clip(traits.brow_albedo * 0.45, 0.004, 0.06) * (1.0 - 0.6 * traits.makeup)
    colour = develop(dark * 0.7)
    for is_upper, count, longest in (
        (True, int(84 + 44 * lush), 0.0034 + 0.0020 * lush),
        (False, int(24 + 12 * lush), 0.0016 + 0.0008 * lush),
    ):
        rim = upper if is_upper else lower
        share = np.sort(rng.uniform(0.10, 0.975, count))
        tuft = np.round(share * 21) / 21  # neighbours lean together
        share = share + (tuft - share) * 0.25
        index = share * (len(rim) - 1)
        root = np.stack([np.interp(index, np.arange(len(rim)), rim[:, axis]) for axis in range(3)], 1)
        outward = unit(root - centre)
        fan = (share - 0.40) * 1.55 + 0.16 * rng.normal(size=count) + 2.4 * (tuft - share)
        sideways = np.array([float(side), 0.0, 0.0])
        rise = -0.25 if is_upper else -0.55
        heading = unit(outward * 0.95 + fan[:, None] * sideways * 0.60 + np.array([0.0, rise, 0.55]))
        length = (
            longest
            * (0.50 + 0.50 * np.sin(np.clip(share * 0.95 + 0.06, 0, 1) * np.pi) ** 0.6)
            * rng.uniform(0.45, 1.10, count)
        )
        length *= 0.80 + 0.35 * share
        lift = np.array([0.0, 0.36 if is_upper else -0.18, 0.0])
        samples = attach(mesh, faces, root)
        here = root + outward * 0.0001
        pieces = 4
        for piece in range(pieces):
            step = (length / pieces)[:, None] * unit(heading + lift * piece)
            middle = here + 0.5 * step
            width = 0.000060 * (1.0 - 0.16 * piece) * (0.85 + 0.3 * lush)
            scale = np.stack([length / pieces * 0.46, np.full(count, width), np.full(count, width)], 1)
            strength = (0.62 if is_upper else 0.16) * (1.0 - 0.18 * piece)
            parts.append(
                cloud(
                    "lash",
                    samples,
                    np.cross(step, sideways + np.array([0.0, 0.0, 0.01])),
                    scale,
                    colour,
                    strength,
                    position=middle,
                    tangent=step,
                )
            )
            here = here + step
    curve = smooth_curve(upper, 110)[6:-2]
    direction = unit(curve - centre)
    samples = attach(mesh, faces, curve)
    thick = 0.00026 + 0.00016 * traits.makeup
    share = np.linspace(0, 1, len(curve))
    scale = np.stack([np.full(len(curve), 0.00036), thick * (0.6 + 0.6 * share), np.full(len(curve), 0.0002)], 1)
    rooted = (0.52 + 0.36 * traits.makeup) * smoothstep(0.0, 0.12, share)
    line = develop(np.clip(traits.skin_albedo * 0.07 + dark * 0.5, 0.004, 0.1) * 0.8)
    parts.append(
        cloud(
            "lash",
            samples,
            direction,
            scale,
            line,
            rooted,
            position=curve + direction * 0.00015,
            tangent=np.gradient(curve, axis=0),
        )
    )
    return concatenate(parts)
