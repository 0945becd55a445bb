"""Colours that make a bare FLAME mesh look enough like a face for a network that has only seen people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.regions import face_regions
from being_rt.flame.rig import Rig
from being_rt.track.embedding_render import BACKGROUND, Seen
from being_rt.track.fit_landmarks import (
    LEFT_BROW,
    OUTER_CORNERS,
    OUTER_LOWER_LIP,
    OUTER_UPPER_LIP,
    RIGHT_BROW,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

SKIN, LIP, BROW, HAIR = (0.80, 0.60, 0.50), (0.66, 0.33, 0.32), (0.26, 0.18, 0.13), (0.22, 0.16, 0.12)
EYE_WHITE, IRIS, PUPIL, INSIDE, TEETH = (
    *((0.88, 0.86, 0.84), (0.30, 0.20, 0.13), (0.03, 0.03, 0.03)),
    *((0.20, 0.08, 0.08), (0.85, 0.82, 0.76)),
)
ROOM = (0.55, 0.58, 0.62)
IRIS_RADIUS, PUPIL_RADIUS, IRIS_EDGE = 0.0059, 0.0022, 0.0004  # metres
_BROW_ORDER = (0, 1, 2, 3, 4, 9, 8, 7, 6, 5)  # a brow's landmarks, lower edge inwards and upper edge back
_LEFT_EYE, _RIGHT_EYE = 3, 4


@dataclass(frozen=True)
class Paint:
    """Colours of the points of a mesh, by where they lie on the template."""

    template: Float64  # [V, 3]
    colour: Float64  # [V, 3]
    eyeball: Bool  # [V]
    eyes: Float64  # [2, 3] middles of the eyeballs
    front: float  # metres; what lies further back is no brow and no lip
    outlines: tuple[tuple[Float64, tuple[float, float, float]], ...]  # polygons [n, 2] seen from the front, and colours

    @classmethod
    def of(cls, rig: Rig, regions: dict[str, NDArray[np.int32]], landmarks: Float64 | None) -> Paint:
        """Colours of a rig.

        Args:
            regions: the model's own parts by name; those of the procedural head (lips, brows, mouth interior, teeth)
                are painted where they are. Others say less, and are not needed.
            landmarks: [478, 3] on the template, as a first look has found them: outlines of lips and brows where the
                model has no names for them. None: neither is painted then.
        """
        template = rig.template.astype(np.float64)
        colour = np.tile(np.array(SKIN), (len(template), 1))
        parts = face_regions(rig) | regions
        for name, value in (
            ("scalp", HAIR),
            ("lips", LIP),
            ("brows", BROW),
            ("mouth_interior", INSIDE),
            ("tongue", INSIDE),  # as red as the lips it would be taken for one
            ("teeth_lower", INSIDE),
            ("teeth_upper", TEETH),
        ):
            if name in parts:
                colour[parts[name]] = value
        weights = rig.skinning_weights
        eyeball = np.zeros(len(template), bool)
        eyes = []
        for joint in (_LEFT_EYE, _RIGHT_EYE):
            mine = weights[:, joint] > 0.5
            eyeball |= mine
            eyes.append((template[mine].min(0) + template[mine].max(0)) / 2)
        outlines: list[tuple[Float64, tuple[float, float, float]]] = []
        if landmarks is not None:
            flat = landmarks[:, :2]
            if "lips" not in regions:
                ring = (OUTER_CORNERS[0], *OUTER_UPPER_LIP, OUTER_CORNERS[1], *OUTER_LOWER_LIP[::-1])
                outlines.append((flat[list(ring)], LIP))
            if "brows" not in regions:
                outlines += [(flat[np.array(brow)[list(_BROW_ORDER)]], BROW) for brow in (LEFT_BROW, RIGHT_BROW)]
        front = float(np.mean(eyes, 0)[2])
        return cls(template, colour, eyeball, np.array(eyes), front, tuple(outlines))

    def picture(self, seen: Seen, faces: NDArray[np.int32], normals: Float64, light: Float64) -> UInt8:
        """The picture [H, W, 3] of what each pixel shows.

        Args:
            normals: [V, 3] of the vertices as they are drawn.
            light: [3] towards the light, a unit vector in the frame of the normals.
        """
        shown = seen.face != BACKGROUND
        corners = faces[seen.face[shown]]
        mix = seen.barycentric[shown].astype(np.float64)

        def across(values: Float64) -> Float64:
            return np.asarray(np.einsum("nk,nka->na", mix, values[corners]))

        albedo, rest = across(self.colour), across(self.template)
        for polygon, value in self.outlines:
            painted = inside_polygon(polygon, rest[:, :2]) & (rest[:, 2] > self.front)
            albedo[painted] = value
        ball = self.eyeball[corners].all(1)
        side = (rest[:, 0] < self.eyes.mean(0)[0]).astype(int)  # 0 the left eye, at positive x
        radius = np.linalg.norm(rest[:, :2] - self.eyes[side, :2], axis=1)
        iris = np.clip((IRIS_RADIUS - radius) / IRIS_EDGE + 0.5, 0, 1)[:, None]
        pupil = np.clip((PUPIL_RADIUS - radius) / IRIS_EDGE + 0.5, 0, 1)[:, None]
        eye = np.array(EYE_WHITE) * (1 - iris) + iris * (np.array(IRIS) * (1 - pupil) + pupil * np.array(PUPIL))
        albedo[ball] = eye[ball]
        normal = across(normals)
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        shade = 0.65 + 0.4 * np.clip(normal @ light, 0, 1)
        picture = np.tile(np.array(ROOM), (*seen.face.shape, 1))
        picture[shown] = albedo * shade[:, None]
        return (255 * np.clip(picture, 0, 1) + 0.5).astype(np.uint8)


def inside_polygon(polygon: Float64, points: Float64) -> Bool:
    """Which points [n, 2] lie in a polygon [k, 2]: those from which a ray crosses its border an odd number of times."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (start[:, 1] > y) != (end[:, 1] > y)
    rise = np.where(end[:, 1] == start[:, 1], 1, end[:, 1] - start[:, 1])
    crossing = start[:, 0] + (y - start[:, 1]) * (end[:, 0] - start[:, 0]) / rise
    return np.asarray((spans & (x < crossing)).sum(1) % 2 == 1)
