"""Hair of the face: brows strand by strand, and beards from shadow to full."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import Cloud, Mesh, attach, cloud, concatenate, nearest, noise, scatter, unit
from being_rt.avatar.demo.lighting import develop, shade_strands, visibility
from being_rt.avatar.demo.skin import Studio
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import smoothstep

Array = NDArray[np.float64]


def _strand(
    root: Array,
    heading: Array,
    length: Array,
    width: Array,
    colour: Array,
    opacity: Array,
    mesh: Mesh,
    faces: NDArray[np.int64],
    normal: Array,
    curl: Array,
    part: str,
    pieces: int = 2,
) -> list[Cloud]:
    """Bent hairs as chains of thin Gaussians: ``curl`` is added to the heading after every piece."""
    samples = attach(mesh, faces, root)
    here, made = root, []
    for piece in range(pieces):
        step = unit(heading + curl * piece) * (length / pieces)[:, None]
        middle = here + 0.5 * step
        taper = 1.0 - 0.30 * piece / max(pieces - 1, 1)
        scale = np.stack([length / pieces * 0.44, width * taper, width * taper], 1)
        fade = opacity * (1.0 - 0.35 * piece / max(pieces - 1, 1))
        made.append(cloud(part, samples, normal, scale, colour, fade, position=middle, tangent=step, facing_fade=True))
        here = here + step
    return made


def build_brows(
    studio: Studio, mesh: Mesh, faces: NDArray[np.int64], curves: dict[int, Array], spacing: float = 1.0
) -> Cloud:
    """Both brows. ``curves``: side (+1 left) -> polyline [L, 3] on this person, from the nose outwards."""
    traits = studio.traits
    made: list[Cloud] = []
    for side, curve in curves.items():
        rng = np.random.default_rng(traits.seed * 13 + (side > 0))
        count = int((330 + 230 * traits.brow_density) * (0.8 + 0.4 * traits.brow_thickness) / spacing)
        u = rng.uniform(0.0, 1.0, count) ** 0.92
        v = rng.uniform(-1.0, 1.0, count)
        half = (
            (0.0024 + 0.0026 * traits.brow_thickness) * (0.62 + 0.38 * smoothstep(0.0, 0.22, u)) * (1.0 - 0.78 * u**2.0)
        )
        knots = np.linspace(0.0, 1.0, len(curve))
        line = np.stack([np.interp(u, knots, curve[:, axis]) for axis in range(3)], 1)
        arch = traits.brow_arch - 0.5
        line[:, 1] += 0.0030 * arch * np.exp(-(((u - 0.66) / 0.22) ** 2)) - 0.0010 * arch * np.exp(
            -(((u - 1.0) / 0.2) ** 2)
        )
        line[:, 1] += v * half + 0.0003 * rng.normal(size=count)
        root = studio.settle(line, 0.006)
        normal = studio.normal(root, 6e-4)
        # Hairs stand up at the nose and lie along the brow further out; upper ones point down, lower ones up.
        angle = np.interp(u, [0.0, 0.10, 0.32, 0.65, 1.0], [1.42, 1.10, 0.58, 0.14, -0.42])
        angle = (
            angle - v * np.interp(u, [0.0, 0.25, 0.7, 1.0], [0.05, 0.42, 0.36, 0.10]) + 0.13 * rng.normal(size=count)
        )
        heading = np.stack([np.cos(angle) * side, np.sin(angle), -0.45 * np.cos(angle)], 1)
        heading = unit(heading - np.einsum("nd,nd->n", heading, normal)[:, None] * normal + 0.16 * normal)
        length = (
            (0.0046 + 0.0026 * traits.brow_thickness)
            * rng.uniform(0.7, 1.1, count)
            * (1.0 - 0.30 * u)
            * (0.72 + 0.28 * smoothstep(0, 0.2, u))
        )
        along = np.stack([np.full(count, float(side)), np.full(count, -0.10), np.full(count, -0.4)], 1)
        curl = along * 0.30 - normal * 0.12
        seen = visibility(root + normal * 1e-3, normal, studio.occluders)
        tint = traits.brow_albedo * rng.uniform(0.55, 1.25, (count, 1))
        grey = rng.random(count) < 0.5 * traits.hair_grey
        tint = np.where(grey[:, None], 0.34 * rng.uniform(0.7, 1.2, (count, 1)), tint)
        colour = develop(shade_strands(tint, heading, normal, seen, gloss=0.2))
        density = (
            (0.50 + 0.34 * traits.brow_density)
            * (0.50 + 0.50 * smoothstep(0.0, 0.16, u))
            * (1.0 - 0.35 * smoothstep(0.7, 1.0, u))
        )
        width = np.full(count, 0.000108) * rng.uniform(0.85, 1.2, count) * np.sqrt(spacing)
        made += _strand(
            root + normal * 0.0003, heading, length, width, colour, density, mesh, faces, normal, curl, "brow"
        )
    return concatenate(made)


def brow_shadow(points: Array, curves: dict[int, Array], traits: PersonTraits) -> Array:
    """How much the skin under the brows is darkened, [N] 0..1: the hairs too fine to draw."""
    cover = np.zeros(len(points))
    for curve in curves.values():
        distance, index = nearest(curve).query(points)
        u = index / (len(curve) - 1)
        half = (
            (0.0026 + 0.0026 * traits.brow_thickness) * (0.62 + 0.38 * smoothstep(0.0, 0.22, u)) * (1.0 - 0.75 * u**2.0)
        )
        inside = (
            np.exp(-((distance / half) ** 2))
            * (1.0 - 0.4 * smoothstep(0.8, 1.0, u))
            * (0.6 + 0.4 * smoothstep(0.0, 0.15, u))
        )
        cover = np.maximum(cover, inside)
    return cover * (0.36 + 0.34 * traits.brow_density)


def build_beard(studio: Studio, mesh: Mesh, faces: NDArray[np.int64], spacing: float = 1.0) -> Cloud | None:
    """Stubble as dots, a grown beard as short curved hairs; None for a smooth face."""
    traits = studio.traits
    if traits.beard <= 0.02 and traits.stubble <= 0.05:
        return None
    centres = studio.face_map.locate(mesh.average[mesh.faces[faces]].mean(1))
    where = faces[centres.beard > 0.02]
    grown = traits.beard > 0.02
    distance = (0.00165 if grown else 0.00110) * spacing
    samples = scatter(mesh, where, np.full(len(where), distance), seed=traits.seed + 9, oversampling=4.0)
    place = studio.face_map.locate(samples.average)
    rng = np.random.default_rng(traits.seed + 19)
    cover = place.beard * smoothstep(-0.125, -0.095, place.y) * (0.85 + 0.3 * noise(place.points, 0.006, 12))
    kept = rng.random(len(samples)) < cover * (0.35 + 0.65 * (traits.beard if grown else traits.stubble))
    samples, cover = samples[kept], np.clip(cover[kept], 0.0, 1.0)
    place = studio.face_map.locate(samples.average)
    root = studio.settle(samples.person, 0.002)
    normal = studio.normal(root, 6e-4)
    count = len(samples)
    outward = np.stack(
        [np.sign(place.x) * (0.25 + 0.2 * smoothstep(0.0, 0.03, place.ax)), np.full(count, -1.0), np.full(count, 0.10)],
        1,
    )
    heading = outward + 0.28 * rng.normal(size=(count, 3))
    heading = unit(heading - np.einsum("nd,nd->n", heading, normal)[:, None] * normal)
    lift = 0.40 if grown else 0.8
    heading = unit(heading + lift * normal)
    length = (traits.beard_length if grown else 0.0007) * rng.uniform(0.55, 1.1, count) * (0.45 + 0.55 * cover)
    seen = visibility(root + normal * 1e-3, normal, studio.occluders)
    hair = traits.hair_albedo * (0.8 if grown else 0.7)
    tint = hair * rng.uniform(0.6, 1.3, (count, 1))
    grey = rng.random(count) < traits.hair_grey * (0.5 + 0.5 * place.chin)
    tint = np.where(grey[:, None], 0.40 * rng.uniform(0.6, 1.1, (count, 1)), tint)
    colour = develop(shade_strands(tint, heading, normal, seen, gloss=0.15))
    width = np.full(count, 0.00026 if grown else 0.00017) * np.sqrt(spacing)
    strength = np.full(count, 0.86 if grown else 0.34) * (0.55 + 0.45 * cover)
    strength *= 0.45 + 0.55 * smoothstep(0.05, 0.55, normal[:, 2])  # no dark outline along the jaw
    curl = -0.5 * normal + 0.25 * rng.normal(size=(count, 3))
    made = _strand(
        root, heading, length, width, colour, strength, mesh, faces, normal, curl, "stubble", 2 if grown else 1
    )
    return concatenate(made)
