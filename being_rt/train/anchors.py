"""Anchors: points of the head whose latent vectors the Gaussians around them blend.

What lies close together may move apart: the lips touch at rest, and so do the lids. Distance is therefore measured in
a space of seven dimensions, in which a point's place is followed by what moves it: how much it follows the jaw and the
eyeballs, and how far the eyelid blendshapes carry it. No anchor is shared across a gap that can open.
"""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.train.surface import Part, Seeds, Surface

NEIGHBOURS = 4
# Metres of the rest pose that a difference in motion counts as: more than the reach of an anchor, about 2 cm.
_JAW, _EYE, _HAIR = 0.04, 0.03, 0.03
_EYELID = 4.0  # per metre that the lids carry a point: a centimetre counts as 4 cm
# Anchors per area beside that of the mesh's density; hair moves little.
_DENSITY = {Part.SKIN: 1.0, Part.LIP: 2.0, Part.LID: 4.0, Part.EYE: 1.5, Part.MOUTH: 4.0, Part.HAIR: 0.4}
_CHUNK = 8192
_EXACT = "donot_use_mm_for_euclid_dist"  # the same bits on any number of threads


def features(surface: Surface, seeds: Seeds) -> Tensor:
    """Where Gaussians lie and what moves them: [N, 7], comparable with metres.

    The skinning weights are those of the triangle that carries a Gaussian; so teeth that hang on the chin are far from
    those that hang on the skull.
    """
    rig = surface.rig
    weights = torch.tensor(rig.skinning_weights, dtype=torch.float64)
    lids = torch.tensor(rig.eyelid_basis, dtype=torch.float64).norm(dim=1)  # [V, 2] metres of a closed lid
    motion = torch.cat(
        [_JAW * weights[:, 2:3], _EYE * weights[:, 3:5].sum(1, keepdim=True), _EYELID * lids.sum(1)[:, None]], 1
    )
    carried = (seeds.barycentric[:, :, None] * motion[surface.faces[seeds.face]]).sum(1)
    place = surface.places(seeds.face, seeds.barycentric, seeds.position)
    hair = _HAIR * (seeds.part == Part.HAIR).double()
    return torch.cat([place, carried, hair[:, None]], dim=1)


def anchor_density(surface: Surface, seeds: Seeds) -> Tensor:
    """Anchors per area that the place of each Gaussian deserves, relative: [N]."""
    factor = torch.tensor([_DENSITY[kind] for kind in Part], dtype=torch.float64)[seeds.part.long()]
    on_mesh = seeds.part <= Part.EYE
    return torch.where(on_mesh, factor * surface.density[seeds.face], factor)


def choose_anchors(points: Tensor, density: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices [count] of points [N, D] that cover the others evenly, more closely where ``density [N]`` is high.

    Farthest-point sampling (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985): the next
    anchor is the point whose distance to all before it, times the root of its density, is largest.

    Raises:
        InvalidParameterError: fewer points than anchors.
    """
    if count > len(points):
        raise InvalidParameterError(f"{count} anchors need as many Gaussians, the head has {len(points)}")
    factor = density.sqrt()
    chosen = torch.empty(count, dtype=torch.int64)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)[0]
    distance = torch.full((len(points),), torch.inf, dtype=points.dtype)
    for k in range(1, count):
        distance = torch.minimum(distance, factor * (points - points[chosen[k - 1]]).norm(dim=1))
        distance[chosen[:k]] = -1  # points may coincide
        chosen[k] = distance.argmax()
    return chosen


def blend_weights(points: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The four nearest anchors of every point and their weights, which change smoothly from point to point.

    ``w_k = (1 - (d_k / R)^2)^2`` over their sum, R the distance of the fifth: an anchor that leaves the four has
    weight 0 when it does. Wendland, "Piecewise polynomial, positive definite and compactly supported radial functions",
    1995, has the like; Shepard, 1968, the quotient.

    Args:
        points: [N, D] from :func:`features`.
        anchors: [M, D]; where M is less than 4, the others get weight 0.

    Returns:
        index [N, 4] int32, weight [N, 4] in the type of ``points``, rows sum to 1.
    """
    count = len(anchors)
    index = torch.zeros(len(points), NEIGHBOURS, dtype=torch.int32)
    weight = torch.zeros(len(points), NEIGHBOURS, dtype=points.dtype)
    near = min(NEIGHBOURS, count)
    for start in range(0, len(points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        every = torch.cdist(points[rows], anchors, compute_mode=_EXACT)
        distance, order = every.topk(min(near + 1, count), largest=False)
        reach = distance[:, near:] if count > near else 2 * distance[:, -1:]
        ratio = distance[:, :near] / reach.clamp(min=1e-12)
        bell = (1 - ratio.clamp(max=1).square()).square() + 1e-9  # all five may be as far
        index[rows, :near] = order[:, :near].int()
        weight[rows, :near] = bell / bell.sum(1, keepdim=True)
    return index, weight
