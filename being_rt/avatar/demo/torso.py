"""Neck base, collar bones, shoulders and chest: the body under the head, and the seam between head and torso.

:mod:`being_rt.avatar.demo.body` has its shape, :mod:`being_rt.avatar.demo.garment` dresses it. Metres, FLAME space.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import HeadLayer, Seam, TorsoLayer
from being_rt.avatar.demo.body import Body, Patch, See, gradient_normal, scatter_on
from being_rt.avatar.demo.cloud import Samples, nearest, unit
from being_rt.avatar.demo.features import FaceMap
from being_rt.avatar.demo.garment import dress
from being_rt.avatar.demo.lighting import LAMPS, Distance, Visibility, develop, visibility
from being_rt.avatar.demo.skin import SkinSurface, albedo
from being_rt.avatar.demo.strands import HairDensity, SampledField, layer_density, pack
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import smoothstep
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]

SKIN_SPACING = 0.0027


def build_torso(
    rig: Rig,
    head: SampledField,
    face_map: FaceMap,
    traits: PersonTraits,
    rng: np.random.Generator,
    body: Body | None = None,
    hair: HeadLayer | None = None,
) -> tuple[TorsoLayer, Array]:
    """Neck base, décolleté, garment and the core of the neck: 10-14 thousand Gaussians.

    Args:
        rig: the head with its identity.
        head: the same head's distance, from :func:`being_rt.avatar.demo.strands.sample_head`.
        face_map: maps of the skin's colour.
        traits: build, skin and clothes.
        rng: source of all randomness; the same state gives the same torso.
        body: the body where the caller has it already (hair rests on it).
        hair: hair that casts shadows on neck and shoulders.

    Returns:
        The layer, and for each Gaussian how much of the seam's colour match it may take [N], for :func:`build_seam`.

    Example::

        torso, matched = build_torso(rig, head, FaceMap(model), PRESETS["ada"], np.random.default_rng(3))
    """
    body = body or Body(rig, head, traits)
    see = _studio(layer_density(rig, hair) if hair is not None else None)
    clothes, bare = dress(body, traits, see, rng)
    parts = [_skin(body, bare, face_map, traits, see, rng), _core(body, traits, rng), *clothes]
    names = ("position", "normal", "tangent", "scale", "colour", "opacity", "hold", "matched")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    fade = np.concatenate([np.full(len(part.position), part.fade) for part in parts])
    normal = unit(joined["normal"])
    tangent = unit(joined["tangent"] - np.einsum("nd,nd->n", joined["tangent"], normal)[:, None] * normal)
    axes = np.stack([tangent, np.cross(normal, tangent), normal], axis=2)
    gaussians = pack(joined["position"], axes, joined["scale"], joined["opacity"], joined["colour"], fade)
    weights = _weights(joined["position"], joined["hold"], rig, body)
    return TorsoLayer(gaussians, weights.astype(np.float32)), joined["matched"]


def _studio(hair: HairDensity | None) -> See:
    """The studio's light behind surfaces and hair."""

    def see(points: Array, normals: Array, distance: Distance) -> Visibility:
        seen = visibility(points, normals, distance, reach=0.05)
        if hair is None:
            return seen
        lamps = np.stack([hair.passed(points, lamp.direction, 0.22) for lamp in LAMPS], axis=1)
        above = hair.passed(points, unit(np.array([0.0, 0.8, 0.6])), 0.12)
        before = hair.passed(points, unit(normals + np.array([0.0, 0.0, 0.3])), 0.05)
        return Visibility(seen.ambient * (0.5 * above + 0.5 * before), seen.bent, seen.lamps * lamps**0.7)

    return see


def _skin(
    body: Body, bare: Distance, face_map: FaceMap, traits: PersonTraits, see: See, rng: np.random.Generator
) -> Patch:
    low, high = body.root - np.array([0.15, 0.20, 0.10]), body.root + np.array([0.15, 0.082, 0.17])
    points = scatter_on(body, 0.0, low, high, SKIN_SPACING, rng, turned=-0.60)
    points = points[bare(points) > -0.018]
    normal = gradient_normal(points, body.exact_distance)
    points = points - normal * np.clip(body.exact_distance(points), -0.003, 0.003)[:, None]
    seen = see(points + normal * 6e-4, normal, body.signed_distance)
    near = nearest(points).query(points, 7)[1]
    seen.ambient[:], seen.lamps[:] = seen.ambient[near].mean(axis=1), seen.lamps[near].mean(axis=1)
    pigment = albedo(face_map.locate(points), replace(traits, stubble=0.0))
    count = len(points)
    samples = Samples(np.zeros(count, np.int64), np.full((count, 3), 1 / 3), points, points)
    soft = unit(normal[near].mean(axis=1))
    surface = SkinSurface(samples, points, soft, normal, pigment, seen, np.full(count, 0.95), np.full(count, 0.47))
    height = points[:, 1] - body.root[1]
    # Under the head layer's own neck; deep in the throat, which an opening jaw pushes inwards.
    throat = smoothstep(0.020, 0.055, height) * np.clip(np.cos(body.azimuth(points)) + 0.3, 0.0, 1.0)
    sink = 0.0014 * smoothstep(0.000, 0.030, height) + 0.014 * throat
    return Patch(
        points - normal * sink[:, None],
        normal,
        np.tile([1.0, 0.2, 0.1], (count, 1)),
        np.tile(np.array([0.92, 0.92, 0.25]) * SKIN_SPACING, (count, 1)),
        surface.colour(),
        0.97 * smoothstep(0.080, 0.052, height),
        np.zeros(count),
        np.ones(count),
    )


def _core(body: Body, traits: PersonTraits, rng: np.random.Generator) -> Patch:
    """Inside the neck and behind the jaw: shadowed flesh that closes the view when the head turns."""
    count = 420
    height = rng.uniform(-0.03, 0.095, count)
    angle = rng.uniform(-np.pi, np.pi, count)
    outward = np.stack([np.sin(angle), np.zeros(count), np.cos(angle)], axis=1)
    points = body.axis(height) + 0.036 * outward
    # Well inside the neck, in front most: an opening jaw pushes the throat's skin inwards.
    depth = 0.011 + 0.016 * np.clip(np.cos(angle) + 0.2, 0.0, 1.0)
    for _ in range(3):
        points = points - outward * np.maximum(body.neck_distance(points) + depth, 0.0)[:, None]
    colour = develop(np.tile(traits.skin_albedo * [0.20, 0.14, 0.12], (count, 1)))
    scale = np.tile([0.0065, 0.0065, 0.0020], (count, 1))
    zero = np.zeros(count)
    return Patch(points, outward, np.tile([0.0, 1.0, 0.0], (count, 1)), scale, colour, zero + 0.97, zero, zero)


def _weights(points: Array, hold: Array, rig: Rig, body: Body) -> Array:
    """Root, global and neck shares, [N, 3]: skin at the neck moves as the head's own skin does there."""
    low = np.flatnonzero(
        (rig.template[:, 1] < body.root[1] + 0.12)
        & (np.abs(body.neck_distance(rig.template.astype(np.float64))) < 0.004)
    )
    distance, index = nearest(rig.template[low].astype(np.float64)).query(points, 4)
    share = 1.0 / np.maximum(distance, 1e-4) ** 2
    share /= share.sum(axis=1, keepdims=True)
    neck = (rig.skinning_weights[low][:, 1:].sum(axis=1)[index] * share).sum(axis=1)
    neck = neck * smoothstep(0.060, 0.020, distance[:, 0]) * (1.0 - hold)
    away = np.hypot(points[:, 0] - body.root[0], points[:, 2] - body.root[2])
    still = 0.75 * smoothstep(0.075, 0.190, away) * (1.0 - neck)
    return np.stack([still, 1.0 - neck - still, neck], axis=1)


def neck_opacity(points: Array, rig: Rig) -> Array:
    """Factor on the opacity of the head layer's neck skin at rest positions [N, 3]: it thins out over the torso.

    Head and torso overlap from here down to the mesh's edge; the torso carries on where the head ends.
    """
    return smoothstep(-0.002, 0.022, points[:, 1] - float(rig.joint_rest[0, 1]))


def build_seam(rig: Rig, head: HeadLayer, head_rest: Array, torso: TorsoLayer, matched: Array) -> Seam:
    """The ring where head and torso meet, and the bands whose colours are matched there.

    Args:
        rig: the head with its identity.
        head: the finished head layer.
        head_rest: rest positions of its Gaussians in FLAME space, [N, 3].
        torso: the finished torso layer.
        matched: how much of the match each of its Gaussians may take, [M].
    """
    root, neck = rig.joint_rest[0].astype(np.float64), rig.joint_rest[1].astype(np.float64)
    axis = unit((neck - root) * [0.0, 1.0, 1.0])
    vertices = rig.template.astype(np.float64)
    height = root[1] + 0.022
    ring = vertices[np.abs(vertices[:, 1] - height) < 0.012]
    centre = np.array([0.0, height, 0.5 * (ring[:, 2].min() + ring[:, 2].max())])
    radius = float(np.median(np.hypot(ring[:, 0], ring[:, 2] - centre[2])))

    def place(points: Array) -> tuple[Array, Array]:
        along = (points - centre) @ axis
        return along, np.linalg.norm(points - centre - along[:, None] * axis, axis=1)

    along, out = place(head_rest)
    skin = head.gaussians.facing_fade & (head.gaussians.opacity_logit > 0)
    head_band = np.flatnonzero(skin & (np.abs(along) < 0.020) & (out < 1.5 * radius) & (out > 0.5 * radius))
    position = torso.gaussians.position.astype(np.float64)
    along, out = place(position)
    weight = matched * smoothstep(0.070, 0.020, np.abs(along)) * smoothstep(2.4 * radius, 1.3 * radius, out)
    torso_band = np.flatnonzero(weight > 0.01)
    return Seam(
        centre=centre.astype(np.float32),
        axis=axis.astype(np.float32),
        radius=radius,
        half_height=0.030,
        depth_softness=0.004,
        head_band=head_band.astype(np.int32),
        torso_band=torso_band.astype(np.int32),
        torso_band_weight=weight[torso_band].astype(np.float32),
    )
