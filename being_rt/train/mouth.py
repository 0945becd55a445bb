"""The inside of the mouth, which FLAME's mesh does not have: teeth, gums, tongue and throat behind the lips.

Upper teeth and palate must move with the skull, lower teeth and tongue with the jaw, and neither with the skin. So each
half hangs on the one triangle that carries it most steadily through all expressions, however far away that is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from being_rt.reference import triangle_frames
from being_rt.train.surface import Part, Seeds, Surface, uniform

_TEETH, _GUMS = (0.80, 0.76, 0.70), (0.60, 0.33, 0.33)
_TONGUE, _THROAT = (0.62, 0.34, 0.34), (0.15, 0.06, 0.06)
_JAW_ANGLE = 0.3  # radians that a mouth opens, for the pose correctives
_CANDIDATES = 3000
_LIPS = 0.75  # of the region's width, which has some skin around the lips


class _Mouth(NamedTuple):
    """Where the lips are, in the rest pose."""

    centre: Tensor  # [3] between the lips, at their front
    half_width: Tensor  # metres, to the corner


def mouth_seeds(surface: Surface, count: int, scale: float, opacity: float, generator: torch.Generator) -> Seeds:
    """``count`` Gaussians behind the lips: arches of teeth in gums, a tongue, and a throat that closes the cavity.

    Sizes are fractions of the mouth's width (5 cm in an adult). Colours are typical ones, for what no frame shows.

    Args:
        scale: standard deviation in parts of the distance to neighbours.
    """
    mouth = _measure(surface)
    shares = [0.3, 0.3, 0.2, 0.1, 0.1]
    counts = [int(share * count) for share in shares]
    counts[0] += count - sum(counts)
    half = mouth.half_width
    parts = [
        (True, *_arch(counts[0], half, True, generator)),
        (False, *_arch(counts[1], half, False, generator)),
        (False, *_tongue(counts[2], half, generator)),
        (True, *_throat(counts[3], half, True, generator)),
        (False, *_throat(counts[4], half, False, generator)),
    ]
    carriers = {
        upper: steadiest_triangle(surface, jaw=not upper, place=mouth.centre - half * torch.tensor([0, 0, 0.5]))
        for upper in (True, False)
    }
    groups = []
    for upper, place, colour, area in parts:
        size = len(place)
        face = torch.full((size,), carriers[upper], dtype=torch.int64)
        middle = torch.full((size, 3), 1 / 3, dtype=torch.float64)
        spacing = (area / max(size, 1)) ** 0.5
        upright = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).repeat(size, 1)
        groups.append(
            Seeds(
                face=face,
                barycentric=middle,
                position=surface.local(face, middle, mouth.centre + place),
                rotation=upright,
                scale=torch.full((size, 3), float(scale * spacing), dtype=torch.float64),
                opacity=torch.full((size,), opacity, dtype=torch.float64),
                colour=colour,
                facing=torch.zeros(size, dtype=torch.bool),
                part=torch.full((size,), Part.MOUTH, dtype=torch.uint8),
            )
        )
    return Seeds.concatenate(groups)


def steadiest_triangle(surface: Surface, jaw: bool, place: Tensor) -> int:
    """The triangle that follows the jaw (or the skull) and would move a point at ``place [3]`` least beyond that.

    The point is carried rigidly by the triangle's frame while each expression, each lid and the correctives of an open
    jaw act in turn; the squares of how far it goes are added up.
    """
    rig = surface.rig
    weights = torch.tensor(rig.skinning_weights, dtype=torch.float64)[surface.faces].mean(1)  # [F, 5]
    follows = weights[:, 2] if jaw else weights[:, 1]
    follows = torch.where(surface.area > 0, follows, torch.zeros_like(follows))
    candidates = torch.nonzero(follows >= 0.99 * follows.max())[:, 0]
    candidates = candidates[:: max(1, -(-len(candidates) // _CANDIDATES))]
    faces = surface.faces[candidates]
    inverse = torch.tensor(rig.face_frames, dtype=torch.float64)[candidates]
    opened = torch.tensor(rig.pose_basis[:, :, 9:18], dtype=torch.float64) * _JAW_ANGLE  # of the jaw's R - I
    basis = torch.cat([torch.tensor(b, dtype=torch.float64) for b in (rig.expression_basis, rig.eyelid_basis)], dim=2)
    motions = torch.cat([basis, opened], dim=2).permute(2, 0, 1)
    middle = torch.full((len(candidates), 3), 1 / 3, dtype=torch.float64)
    local = surface.local(candidates, middle, place.expand(len(candidates), 3))
    moved = torch.zeros(len(candidates), dtype=torch.float64)
    for motion in motions:
        vertices = surface.template + motion
        carried = (triangle_frames(vertices, faces, inverse) @ local[:, :, None])[:, :, 0]
        moved += (vertices[faces].mean(1) + carried - place).square().sum(1)
    return int(candidates[moved.argmin()])


def _measure(surface: Surface) -> _Mouth:
    """The lips: vertices at the front of the mesh's mouth, and the line where the jaw's touch the skull's."""
    vertex = surface.faces[surface.part == Part.LIP].unique()
    jaw = torch.tensor(surface.rig.skinning_weights[:, 2], dtype=torch.float64)[vertex]
    place = surface.template[vertex]
    front = place[:, 2] > place[:, 2].quantile(0.6)
    place, jaw = place[front], jaw[front]
    lower = jaw > 0.5 * jaw.max()
    half_width = _LIPS * (place[:, 0].amax() - place[:, 0].amin()) / 2
    middle = (place[:, 0] - place[:, 0].mean()).abs() < 0.5 * half_width
    # Between the lowest of the upper lip and the highest of the lower one; quantiles, for folds may pass each other.
    upper_edge = place[middle & ~lower, 1].quantile(0.1) if (middle & ~lower).any() else place[:, 1].mean()
    lower_edge = place[middle & lower, 1].quantile(0.9) if (middle & lower).any() else place[:, 1].mean()
    x = (place[:, 0].amax() + place[:, 0].amin()) / 2
    return _Mouth(torch.stack([x, (upper_edge + lower_edge) / 2, place[:, 2].amax()]), half_width)


# Shapes: places [n, 3] relative to the mouth's centre, colours [n, 3], area m^2.


def _arch(count: int, half: Tensor, upper: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """A row of teeth in its gum: a band along half an ellipse."""
    angle = 1.3 * (2 * uniform(count, generator) - 1)
    height = uniform(count, generator)
    width = 0.95 * half if upper else 0.85 * half
    depth, tall = 1.2 * half, 0.55 * half
    x = width * angle.sin()
    # The upper incisors reach over the lower ones.
    z = -0.30 * half - (0.0 if upper else 0.08) * half - depth * (1 - angle.cos())
    y = tall * height - 0.08 * half if upper else -tall * height
    gum = height > 0.65
    colour = torch.where(gum[:, None], _colour(_GUMS), _colour(_TEETH))
    return torch.stack([x, y, z], 1), colour, float(2.6 * width * tall)


def _tongue(count: int, half: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """A flat half ellipsoid."""
    angle = torch.pi * uniform(count, generator)
    along = uniform(count, generator)
    width = 0.6 * half * (1 - (1 - 2 * along).clamp(min=0).square()).sqrt()  # rounded at the tip
    x = width * angle.cos()
    y = -0.5 * half + 0.25 * half * angle.sin()
    z = -0.55 * half - 1.1 * half * along
    return torch.stack([x, y, z], 1), _colour(_TONGUE).expand(count, 3), float(1.5 * half * half)


def _throat(count: int, half: Tensor, upper: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Half of a curved wall behind the teeth."""
    angle = 1.4 * (2 * uniform(count, generator) - 1)
    x = 0.9 * half * angle.sin()
    y = 0.8 * half * uniform(count, generator) * (1 if upper else -1)
    z = -1.0 * half - 0.7 * half * angle.cos()
    return torch.stack([x, y, z], 1), _colour(_THROAT).expand(count, 3), float(2.0 * half * half)


def _colour(colour: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colour, dtype=torch.float64)
