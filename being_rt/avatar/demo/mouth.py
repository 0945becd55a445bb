"""Inside the mouth: single teeth in their gums, a wet tongue, the dark throat.

Light hardly reaches here while the mouth is nearly closed, so the base colours are those of a slightly open mouth;
the offset network brightens them as the jaw drops (see ``network``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import Cloud, Mesh, cloud, noise, scatter, smooth_normals, unit
from being_rt.avatar.demo.features import MOUTH_HALF
from being_rt.avatar.demo.lighting import EYE_POINT, KEY, develop, linear
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep

Array = NDArray[np.float64]

# Widths along the arch from the midline, metres: incisors, canine, premolars, molars (Wheeler's dental anatomy).
_WIDTHS = {
    True: np.array([8.4, 6.6, 7.4, 7.0, 6.8, 10.0, 9.5]) * 1e-3,
    False: np.array([5.3, 5.8, 6.7, 7.0, 7.1, 11.0, 10.0]) * 1e-3,
}
# How far each edge stays short of the longest, metres: laterals are shorter, canines pointed.
_SHORT = {
    True: np.array([0.0, 0.0007, 0.0001, 0.0007, 0.0009, 0.0012, 0.0014]),
    False: np.array([0.0001, 0.0, 0.0, 0.0005, 0.0008, 0.0010, 0.0012]),
}


def _arc(ax: Array, z: Array) -> tuple[Array, Array]:
    """Arc length along the arch as a function of |x|, from samples of its front: knots and lengths."""
    edges = np.linspace(0.0, float(ax.max()) + 1e-6, 40)
    middle, front = [], []
    for low, high in itertools.pairwise(edges):
        inside = (ax >= low) & (ax < high)
        if inside.any():
            middle.append(ax[inside].mean())
            front.append(np.quantile(z[inside], 0.85))
    x, depth = np.array([0.0, *middle]), np.array([front[0], *front])
    depth = np.convolve(np.pad(depth, 2, mode="edge"), np.ones(5) / 5, mode="valid")
    return x, np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(depth)))])


def build_teeth(mesh: Mesh, faces: NDArray[np.int64], upper: bool, traits: PersonTraits, spacing: float = 1.0) -> Cloud:
    """One row of teeth with its gum."""
    rng = np.random.default_rng(traits.seed + 41 + upper)
    centre_x = np.abs(mesh.average[mesh.faces[faces]].mean(1)[:, 0])
    radius = (0.00072 + 0.00060 * smoothstep(0.012, 0.024, centre_x)) * spacing
    samples = scatter(mesh, faces, radius, seed=traits.seed + upper)
    normals = smooth_normals(mesh, faces)
    normal = unit(np.einsum("nk,nkd->nd", samples.barycentric, normals[mesh.faces[samples.face]]))
    p = samples.average
    ax = np.abs(p[:, 0])
    labial = normal[:, 2] + 0.8 * normal[:, 0] * np.sign(p[:, 0]) > 0.15
    knots, lengths = _arc(ax[labial], p[labial, 2])
    along = np.interp(ax, knots, lengths)

    widths, short = _WIDTHS[upper], _SHORT[upper]
    borders = np.concatenate([[0.0], np.cumsum(widths)])
    tooth = np.clip(np.searchsorted(borders, along, side="right") - 1, 0, len(widths) - 1)
    across = (along - borders[tooth]) / widths[tooth] * 2.0 - 1.0  # -1..1 over the tooth
    gap = (1.0 - np.abs(across)) * widths[tooth] * 0.5
    edge_y = p[:, 1].min() if upper else p[:, 1].max()
    height = (p[:, 1] - edge_y) * (1.0 if upper else -1.0)  # from the biting edge towards the gum
    rounded = 0.00034 * np.abs(across) ** 4 + short[tooth] + np.where(tooth == 2, 0.0007 * np.abs(across), 0.0)
    gone = (height < rounded) | ((gap < 0.00008 + 0.00010 * smoothstep(0.004, 0.0, height)) & (height < 0.0065))
    # Samples that a biting edge cuts are drawn up to it: the edge is even however they fell.
    cut = np.clip(0.00036 - (height - rounded), 0.0, 0.00036) * labial * (1.0 if upper else -1.0)
    gum_line = (0.0086 if upper else 0.0078) - 0.0011 * across**2 - 0.0006 * (tooth == 1) - 0.00012 * tooth
    gum = smoothstep(gum_line - 0.00025, gum_line + 0.00025, height)

    side = np.sign(p[:, 0])
    tangent = unit(np.stack([normal[:, 2], 0.0 * ax, -normal[:, 0]], 1))
    bulge = 0.00055 * (1.0 - across**2) * (1.0 - 0.5 * gum)
    root_bump = 0.0005 * gum * (1.0 - across**2)
    position = samples.person + normal * (bulge + root_bump - 0.0003)[:, None] * labial[:, None]
    position[:, 1] += cut
    lean = 0.42 * across * side * (1.0 - gum) + 0.25 * across * side * gum
    shaded = unit(
        normal
        + tangent * (lean * labial)[:, None]
        + np.array([0.0, -0.10 if upper else 0.10, 0.0]) * (1 - gum)[:, None]
    )

    age = float(np.clip((traits.age - 20) / 60, 0, 1))
    enamel = linear((232, 222, 204)) * np.array([1.0, 1.0 - 0.05 * age, 1.0 - 0.20 * age])
    enamel = np.tile(enamel, (len(samples), 1))
    enamel *= (1.0 + 0.05 * rng.normal(size=len(widths))[tooth])[:, None]
    neck_tint = smoothstep(0.0035, 0.0080, height)[:, None]
    enamel *= 1.0 - neck_tint * np.array([0.10, 0.17, 0.26])
    translucent = smoothstep(0.0016, 0.0003, height - rounded)[:, None]
    enamel *= 1.0 - translucent * np.array([0.24, 0.18, 0.12])
    enamel *= (0.48 + 0.52 * smoothstep(0.0, 0.00055, gap))[:, None] ** np.array([0.8, 1.0, 1.1])
    flesh = linear((196, 112, 108)) * (1.0 - 0.35 * traits.skin_tone) * (1.0 + 0.10 * noise(p, 0.002, 3))[:, None]
    flesh *= (0.72 + 0.28 * smoothstep(0.0, 0.0009, gap))[:, None]
    colour = enamel * (1.0 - gum[:, None]) + flesh * gum[:, None]

    lamp = np.clip(shaded @ unit(KEY.direction * [1, 0.35, 1.2]), 0.0, 1.0)
    depth = np.exp(-np.clip(along - 0.004, 0.0, None) / 0.0150)
    from_lip = smoothstep(0.0105, 0.0030, height) if upper else smoothstep(0.0105, 0.0010, height)
    lit = (0.34 + 0.74 * lamp) * (0.30 + 0.70 * from_lip) * (0.10 + 0.90 * depth) * (1.0 if upper else 0.72)
    lit *= np.where(labial, 1.0, 0.28)
    half = unit(unit(EYE_POINT - position) + KEY.direction)
    shine = np.clip(np.einsum("nd,nd->n", shaded, half), 0, 1) ** 70 * depth * labial * (0.4 + 0.6 * from_lip)
    bright = develop(colour * lit[:, None] * 0.92 + 0.24 * shine[:, None])
    sigma = np.interp(ax, [0.010, 0.024], [0.00070, 0.00130]) * spacing
    made = cloud("mouth", samples, shaded, np.stack([sigma, sigma, 0.3 * sigma], 1), bright, 0.97, position=position)
    return made[~gone]


def build_cavity(mesh: Mesh, faces: NDArray[np.int64], traits: PersonTraits, spacing: float = 1.0) -> Cloud:
    """Cheeks, palate and throat: red near the lips, black behind."""
    behind = _behind_lips(mesh.average[np.unique(mesh.faces[faces])])
    radius = 0.00085 + 0.0015 * smoothstep(0.003, 0.016, behind(mesh.average[mesh.faces[faces]].mean(1)))
    samples = scatter(mesh, faces, radius * spacing, seed=traits.seed + 2)
    normals = smooth_normals(mesh, faces)
    normal = unit(np.einsum("nk,nkd->nd", samples.barycentric, normals[mesh.faces[samples.face]]))
    p = samples.average
    depth = behind(p)
    lit = 0.42 * np.exp(-depth / 0.0065) + 0.085 * np.exp(-depth / 0.030)
    inner = smoothstep(0.0, 0.005, depth)[:, None]
    flesh = linear((156, 72, 68)) * (1.0 - 0.45 * traits.skin_tone)
    flesh = linear(traits.lip_colour) * [0.85, 0.7, 0.7] * (1.0 - inner) + flesh * inner
    flesh = flesh * (1.0 + 0.10 * noise(p, 0.004, 8))[:, None]
    colour = develop(flesh * lit[:, None] ** np.array([0.9, 1.08, 1.08]))
    sigma = (0.00085 + 0.0015 * smoothstep(0.003, 0.016, depth)) * spacing * 1.1
    # Kept off the lips' and the chin's skin, through which it would show.
    back = (0.0016 * smoothstep(0.0008, 0.004, depth))[:, None] * np.array([0.0, 0.0, -1.0])
    scale = np.stack([sigma, sigma, 0.4 * sigma], 1)
    made = cloud("mouth", samples, normal, scale, colour, 0.98, position=samples.person + back)
    # At the corners, where the lips always touch, it would only show as specks when they bunch up.
    corner = (np.abs(p[:, 0]) > MOUTH_HALF - 0.0055) & (depth < 0.0080)
    return made[~(corner | ((np.abs(p[:, 0]) > MOUTH_HALF - 0.0080) & (depth < 0.0022)))]


def _behind_lips(vertices: Array) -> Callable[[Array], Array]:
    """Depth of points behind the inner edge of the lips, metres, from the vertices of the cavity."""
    knots = np.linspace(0.0, MOUTH_HALF, 9)
    column = np.clip(np.searchsorted(knots, np.abs(vertices[:, 0])) - 1, 0, len(knots) - 2)
    edge = np.array([vertices[column == index, 2].max(initial=-1.0) for index in range(len(knots) - 1)])
    middle = 0.5 * (knots[1:] + knots[:-1])
    filled = edge > -0.5

    def behind(points: Array) -> Array:
        return np.clip(np.interp(np.abs(points[:, 0]), middle[filled], edge[filled]) - points[:, 2], 0.0, None)

    return behind


def build_tongue(mesh: Mesh, faces: NDArray[np.int64], traits: PersonTraits, spacing: float = 1.0) -> Cloud:
    """The tongue: rosy, papillae as grain, a median groove, wet."""
    rng = np.random.default_rng(traits.seed + 12)
    samples = scatter(mesh, faces, np.full(len(faces), 0.00145 * spacing), seed=traits.seed + 4)
    normals = smooth_normals(mesh, faces)
    normal = unit(np.einsum("nk,nkd->nd", samples.barycentric, normals[mesh.faces[samples.face]]))
    p = samples.average
    depth = np.clip(p[:, 2].max() - p[:, 2], 0.0, None)
    flesh = linear((198, 112, 108)) * (1.0 + 0.10 * rng.normal(size=len(p)) + 0.08 * noise(p, 0.003, 5))[:, None]
    flesh *= (1.0 - 0.35 * bell(p[:, 0], 0.0011) * (normal[:, 1] > 0.2))[:, None]
    up = np.clip(0.45 + 0.55 * normal[:, 1] + 0.45 * normal[:, 2], 0.0, 1.2)
    lit = 0.58 * up * np.exp(-depth / 0.0135) + 0.02
    half = unit(unit(EYE_POINT - samples.person) + np.array([-0.2, 0.75, 0.6]))
    rough = unit(normal + 0.13 * rng.normal(size=p.shape))
    shine = np.clip(np.einsum("nd,nd->n", rough, half), 0, 1) ** 30 * np.exp(-depth / 0.010)
    colour = develop(flesh * lit[:, None] ** np.array([0.92, 1.05, 1.05]) + 0.16 * shine[:, None])
    return cloud("mouth", samples, normal, [0.0013 * spacing, 0.0013 * spacing, 0.0003], colour, 0.97)
