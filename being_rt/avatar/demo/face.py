"""One person's face, assembled: every part of the head but its hair, and the expression bases of what moves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import AnchorLatentNetwork, HeadLayer
from being_rt.avatar.demo.brows import brow_shadow, build_beard, build_brows
from being_rt.avatar.demo.cloud import PARTS, Cloud, Mesh, bind, concatenate
from being_rt.avatar.demo.eyes import build_eye, build_margins
from being_rt.avatar.demo.features import FaceMap, landmark_points, smooth_curve
from being_rt.avatar.demo.lighting import Distance
from being_rt.avatar.demo.mouth import build_cavity, build_teeth, build_tongue
from being_rt.avatar.demo.network import Bases, build_network, glint_bases, mouth_bases, skin_bases
from being_rt.avatar.demo.skin import SkinSurface, Studio, build_skin, skin_faces
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.model import FlameModel
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]
_NOT_SKIN = ("left_eyeball", "right_eyeball", "teeth_upper", "teeth_lower", "mouth_interior", "tongue")


@dataclass(frozen=True)
class _Regions:
    """Triangles by region of the shared topology."""

    model: FlameModel

    def vertices(self, *names: str) -> NDArray[np.bool_]:
        mask = np.zeros(self.model.vertex_count, bool)
        for name in names:
            mask[self.model.regions[name]] = True
        return mask

    def faces(self, *names: str) -> NDArray[np.int64]:
        """Triangles whose corners all lie in the regions."""
        return np.flatnonzero(self.vertices(*names)[self.model.faces].all(1))

    def touching(self, *names: str) -> NDArray[np.int64]:
        """Triangles of which any corner lies in the regions."""
        return np.flatnonzero(self.vertices(*names)[self.model.faces].any(1))


def build_face(
    model: FlameModel,
    face_map: FaceMap,
    rig: Rig,
    surface: Distance,
    occluders: Distance,
    cover: Distance,
    traits: PersonTraits,
    spacing: float = 1.0,
) -> tuple[HeadLayer, AnchorLatentNetwork]:
    """Skin, eyes, mouth, brows, lashes and beard of one person, and the network that moves and shades them.

    Args:
        model: the average head; its maps are painted on, its regions cut out.
        face_map: where features lie on it.
        rig: the same topology with the person's identity.
        surface: signed distance of the person's skin.
        occluders: signed distance of all that casts shadows on it, hair included.
        cover: opacity of the skin at points on this person, 0..1: it thins out where the torso takes over.
        traits: the person.
        spacing: multiplies the distance between Gaussians; 1 gives about 38 thousand.
    """
    mesh = Mesh(model.faces, model.template.astype(np.float64), rig.template.astype(np.float64))
    regions = _Regions(model)
    brow_average = _brow_curves(model, mesh.average)
    studio = Studio(surface, occluders, face_map, traits, lambda points: brow_shadow(points, brow_average, traits))
    faces, margins = skin_faces(mesh, regions.vertices(*_NOT_SKIN))
    brow_curves = _brow_curves(model, mesh.person)
    skin, skin_surface = build_skin(studio, mesh, faces, spacing)
    skin = replace(skin, opacity=skin.opacity * cover(skin.position))

    parts: list[Cloud] = [build_margins(mesh, margins, traits, spacing)]
    lashes: list[Cloud] = []
    for side, name in ((1, "left"), (-1, "right")):
        upper = landmark_points(model, mesh.person, f"eyelid_upper_{name}")[::-1]
        lower = landmark_points(model, mesh.person, f"eyelid_lower_{name}")[::-1]
        eye, lash = build_eye(
            mesh, regions.faces(f"{name}_eyeball"), regions.faces(f"{name}_eye"), upper, lower, side, traits, spacing
        )
        parts.append(eye)
        lashes.append(lash)
    inside = concatenate(
        [
            build_teeth(mesh, regions.faces("teeth_upper"), True, traits, spacing),
            build_teeth(mesh, regions.faces("teeth_lower"), False, traits, spacing),
            build_tongue(mesh, regions.faces("tongue"), traits, spacing),
            build_cavity(mesh, regions.touching("mouth_interior"), traits, spacing),
        ]
    )
    parts.append(build_brows(studio, mesh, faces, brow_curves, spacing))
    beard = build_beard(studio, mesh, faces, spacing)
    parts += lashes + ([] if beard is None else [beard])
    rest = concatenate(parts)
    return _with_network(rig, studio, skin, skin_surface, inside, rest, traits)


def _brow_curves(model: FlameModel, vertices: Array) -> dict[int, Array]:
    """Brow lines from the nose outwards by side, from dlib's points 17..26."""
    points = landmark_points(model, vertices, "dlib68")
    return {-1: smooth_curve(points[21:16:-1], 60), 1: smooth_curve(points[22:27], 60)}


def _with_network(
    rig: Rig, studio: Studio, skin: Cloud, skin_surface: SkinSurface, inside: Cloud, rest: Cloud, traits: PersonTraits
) -> tuple[HeadLayer, AnchorLatentNetwork]:
    """Order the Gaussians, those with bases first, neighbours close together, and write the network for them."""
    place = studio.face_map.locate(skin.average)
    bases = skin_bases(rig, skin_surface, place, traits)
    strength = np.abs(bases.colour).max((1, 2)) + np.abs(bases.position).max((1, 2)) * 1e3
    moving = np.flatnonzero(strength > 0.012)
    still = np.setdiff1d(np.arange(len(skin)), moving)
    glint = rest.part == PARTS.index("glint")
    groups = [
        (skin[moving], Bases(bases.position[moving], bases.colour[moving])),
        (inside, mouth_bases(inside)),
        (rest[glint], glint_bases(rest[glint])),
    ]
    orders = [_curve_order(each.average) for each, _ in groups]
    active = concatenate([each[order] for (each, _), order in zip(groups, orders, strict=True)])
    moved = Bases(
        np.concatenate([each.position[order] for (_, each), order in zip(groups, orders, strict=True)]),
        np.concatenate([each.colour[order] for (_, each), order in zip(groups, orders, strict=True)]),
    )
    passive = concatenate([skin[still], rest[~glint]])
    passive = passive[_curve_order(passive.average)]
    return bind(rig, concatenate([active, passive])), build_network(rig, active, moved)


def _curve_order(points: Array) -> NDArray[np.int64]:
    """Order along a Morton curve over 1 mm cells, so that neighbours in space are neighbours in memory."""
    cell = np.clip((points + 0.3) * 1000.0, 0, 1023).astype(np.uint64)
    code = np.zeros(len(points), np.uint64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> np.uint64(bit)) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return np.argsort(code, kind="stable")
