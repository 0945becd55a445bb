"""The rig's mesh at rest as a place to put Gaussians: its parts, how densely each is covered, samples of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.dataset.regions import face_regions
from being_rt.errors import InvalidParameterError
from being_rt.flame.rig import Rig
from being_rt.reference import triangle_frames


class Part(IntEnum):
    """What a Gaussian belongs to. The first four are parts of the mesh, the others are put beside it."""

    SKIN = 0
    LIP = 1  # lips and what the mesh has behind them
    LID = 2
    EYE = 3
    MOUTH = 4
    HAIR = 5


# Gaussians per area beside that of plain skin. Faces are looked at where they move; necks and scalps are not.
_DENSITY = {Part.SKIN: 1.0, Part.LIP: 3.0, Part.LID: 3.0, Part.EYE: 3.0}
_BROW_DENSITY = 3.0
_BROW_HEIGHT = 0.35  # of the distance between the eyes: how far over the eye's region a brow reaches
_SPARSE_DENSITY = 0.6  # neck and scalp
_BODY_WEIGHT = 0.5  # of the global joint: what it carries is the torso's


class Seeds(NamedTuple):
    """Gaussians of the head before training; float64 on the CPU."""

    face: Tensor  # [N] int64
    barycentric: Tensor  # [N, 3]
    position: Tensor  # [N, 3] metres, in the frame of the triangle
    rotation: Tensor  # [N, 4] in that frame
    scale: Tensor  # [N, 3] metres
    opacity: Tensor  # [N] 0..1
    colour: Tensor  # [N, 3]
    facing: Tensor  # [N] bool: fades as it turns away
    part: Tensor  # [N] uint8, a Part

    @classmethod
    def concatenate(cls, groups: list[Seeds]) -> Seeds:
        return cls(*(torch.cat(columns) for columns in zip(*groups, strict=True)))


@dataclass(frozen=True)
class Surface:
    """The mesh at rest; float64 on the CPU. V vertices, F triangles."""

    rig: Rig
    template: Tensor  # [V, 3]
    faces: Tensor  # [F, 3] int64
    frames: Tensor  # [F, 3, 3] columns tangent, bitangent, normal; zeros where a triangle has no area
    area: Tensor  # [F] m^2; 0 where the frame is 0
    part: Tensor  # [F] uint8
    scalp: Tensor  # [F] bool: hair may grow here
    density: Tensor  # [F] wanted Gaussians per area, relative

    @classmethod
    def of(cls, rig: Rig) -> Surface:
        """Measure a rig.

        Raises:
            InvalidParameterError: the rig is not that of a face, or has no triangle with an area.
        """
        template = torch.tensor(rig.template, dtype=torch.float64)
        faces = torch.tensor(rig.faces, dtype=torch.int64)
        inverse = torch.tensor(rig.face_frames, dtype=torch.float64)
        corner = template[faces]
        area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=1) / 2
        usable = (area > 0) & inverse.flatten(1).any(1)
        if not usable.any():
            raise InvalidParameterError("the rig has no triangle that could carry a Gaussian")
        frames = torch.zeros(len(faces), 3, 3, dtype=torch.float64)
        frames[usable] = triangle_frames(template, faces[usable], inverse[usable])
        regions = {name: torch.tensor(ids, dtype=torch.int64) for name, ids in face_regions(rig).items()}

        def inside(name: str) -> Tensor:
            vertices = torch.zeros(len(template), dtype=torch.bool)
            vertices[regions[name]] = True
            return vertices[faces].all(1)

        part = torch.full((len(faces),), Part.SKIN, dtype=torch.uint8)
        part[inside("mouth")] = Part.LIP
        part[inside("left_eye") | inside("right_eye")] = Part.LID
        part[torch.tensor(rig.skinning_weights[:, 3:5].sum(1))[faces].mean(1) > 0.5] = Part.EYE
        density = torch.tensor([_DENSITY[Part(kind)] for kind in range(4)], dtype=torch.float64)[part.long()]
        skin = part == Part.SKIN
        density[skin & (inside("neck") | inside("scalp"))] = _SPARSE_DENSITY
        density[skin & _brows(template, regions)[faces].all(1)] = _BROW_DENSITY
        return cls(rig, template, faces, frames, area * usable, part, inside("scalp") & skin, density)

    def without_body(self, clothed: NDArray[np.bool_] | None = None) -> Surface:
        """The same mesh with no Gaussians wanted on the shoulders, where a torso layer is.

        On them an offset network would have nothing to learn but to explain the body's motion by expressions.

        Args:
            clothed: [F] triangles that clothes lie over: what is seen there stays with the body when the neck turns.
        """
        weight = torch.tensor(self.rig.skinning_weights[:, 0], dtype=torch.float64)[self.faces].mean(1)
        wanted = weight < _BODY_WEIGHT
        if clothed is not None:
            wanted &= ~torch.from_numpy(clothed)
        return replace(self, density=self.density * wanted)

    def places(self, face: Tensor, barycentric: Tensor, position: Tensor) -> Tensor:
        """Rest positions [N, 3] of Gaussians that are bound to triangles."""
        anchor = (barycentric[:, :, None] * self.template[self.faces[face]]).sum(1)
        return anchor + (self.frames[face] @ position[:, :, None])[:, :, 0]

    def local(self, face: Tensor, barycentric: Tensor, place: Tensor) -> Tensor:
        """Positions [N, 3] in the frames of triangles of points [N, 3] of the rest pose: the inverse of ``places``."""
        anchor = (barycentric[:, :, None] * self.template[self.faces[face]]).sum(1)
        return (self.frames[face].mT @ (place - anchor)[:, :, None])[:, :, 0]

    def sample(self, density: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``count`` points on the mesh, ``density [F]`` times a constant of them per area.

        Stratified over the triangles, so that each gets its share to within one point.

        Returns:
            face [count] int64, barycentric [count, 3], and the distance [count] to neighbours that this makes, metres.
        """
        weight = density * self.area
        cumulative = weight.cumsum(0)
        marks = (torch.arange(count) + uniform(count, generator)) / max(count, 1) * cumulative[-1]
        face = torch.searchsorted(cumulative, marks, right=True).clamp(max=len(weight) - 1)
        root, v = uniform(count, generator).sqrt(), uniform(count, generator)
        barycentric = torch.stack([1 - root, root * (1 - v), root * v], dim=1)
        spacing = (cumulative[-1] / (max(count, 1) * density[face])).sqrt()
        return face, barycentric, spacing


def skin_seeds(
    surface: Surface, count: int, scale: float, opacity: float, facing: bool, generator: torch.Generator
) -> Seeds:
    """Flat Gaussians that lie in their triangles, all over the mesh.

    Args:
        scale: standard deviation in parts of the distance to neighbours.
        facing: whether skin fades as it turns away. Lips, lids and eyes never do: their folds show their backs.
    """
    face, barycentric, spacing = surface.sample(surface.density, count, generator)
    part = surface.part[face]
    return _seeds(face, barycentric, spacing, part, (scale, scale, 0.3 * scale), opacity, facing & (part == Part.SKIN))


def face_seeds(surface: Surface, count: int, scale: float, opacity: float, generator: torch.Generator) -> Seeds:
    """One Gaussian in the middle of each triangle, as many as fit into ``count``; the rest is spread over the mesh."""
    face = torch.nonzero(surface.area)[:count, 0]
    middle = torch.full((len(face), 3), 1 / 3, dtype=torch.float64)
    part = surface.part[face]
    nowhere = torch.zeros(len(face), dtype=torch.bool)
    first = _seeds(face, middle, surface.area[face].sqrt(), part, (scale,) * 3, opacity, nowhere)
    others = skin_seeds(surface, count - len(face), scale, opacity, False, generator)
    return Seeds.concatenate([first, others])


def hair_seeds(
    surface: Surface, count: int, scale: float, opacity: float, height: float, generator: torch.Generator
) -> Seeds:
    """Round Gaussians in a shell of ``height`` metres over the scalp: hair that leaves the mesh."""
    density = surface.scalp.double()
    if not (density * surface.area).any():
        density = (surface.part == Part.SKIN).double()
    face, barycentric, spacing = surface.sample(density, count, generator)
    part = torch.full((count,), Part.HAIR, dtype=torch.uint8)
    nowhere = torch.zeros(count, dtype=torch.bool)
    seeds = _seeds(face, barycentric, spacing, part, (1.5 * scale,) * 3, 0.5 * opacity, nowhere)
    seeds.position[:, 2] = height * uniform(count, generator)
    return seeds


def _seeds(
    face: Tensor,
    barycentric: Tensor,
    spacing: Tensor,
    part: Tensor,
    scale: tuple[float, ...],
    opacity: float,
    facing: Tensor,
) -> Seeds:
    count = len(face)
    upright = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).repeat(count, 1)
    return Seeds(
        face=face,
        barycentric=barycentric,
        position=torch.zeros(count, 3, dtype=torch.float64),
        rotation=upright,
        scale=spacing[:, None] * torch.tensor(scale, dtype=torch.float64),
        opacity=torch.full((count,), opacity, dtype=torch.float64),
        colour=torch.full((count, 3), 0.5, dtype=torch.float64),
        facing=facing,
        part=part,
    )


def _brows(template: Tensor, regions: dict[str, Tensor]) -> Tensor:
    """Vertices [V] bool in a strip over each eye."""
    eyes = [template[regions[name]] for name in ("left_eye", "right_eye")]
    between = (eyes[0].mean(0) - eyes[1].mean(0)).norm()
    face = torch.zeros(len(template), dtype=torch.bool)
    face[regions["face"]] = True
    strip = torch.zeros_like(face)
    for eye in eyes:
        low, high = eye.amin(0), eye.amax(0)
        over = (template[:, 1] > eye[:, 1].mean()) & (template[:, 1] < high[1] + _BROW_HEIGHT * between)
        strip |= over & (template[:, 0] > low[0]) & (template[:, 0] < high[0]) & (template[:, 2] > low[2])
    return strip & face


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """Numbers [count] in 0..1, float64 on the CPU: the same on every device."""
    return torch.rand(count, generator=generator, dtype=torch.float64)
