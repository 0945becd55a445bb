"""Points that walk over the mesh: a point pushed over an edge of its triangle goes on in the next one.

Shao et al., "SplattingAvatar", 2024 (walking on triangles), with one step at a time and all points at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from being_rt.reference import quaternion_multiply
from being_rt.train.surface import Surface


class Walk(NamedTuple):
    """What walking needs to know of a mesh at rest. F triangles."""

    corner: Tensor  # [F, 3, 3] metres
    neighbour: Tensor  # [F, 3] int64, across the edge opposite to each corner; -1: none
    turn: Tensor  # [F, 3, 4] quaternions from the triangle's frame to that of each neighbour

    @classmethod
    def over(cls, surface: Surface, device: torch.device, dtype: torch.dtype) -> Walk:
        """Measure a mesh."""
        neighbour = _neighbours(surface)
        near = neighbour.clamp(min=0)
        between = surface.frames[near].mT @ surface.frames[:, None]
        turn = _quaternions(between.flatten(0, 1)).unflatten(0, (-1, 3))
        corner = surface.template[surface.faces]
        return cls(corner.to(device, dtype), neighbour.to(device), turn.to(device, dtype))

    def settle(self, face: Tensor, barycentric: Tensor, rotation: Tensor) -> None:
        """Bring points that an update has pushed anywhere back onto the mesh, in place; no synchronisation.

        Args:
            face: [N] int32.
            barycentric: [N, 3], any numbers near a triangle.
            rotation: [N, 4] in the frame of the triangle; keeps its direction when the triangle changes.
        """
        index = face.long()
        weight = barycentric + (1 - barycentric.sum(1, keepdim=True)) / 3
        lowest, across = weight.min(1)
        step = self.neighbour[index, across]
        goes = (lowest < 0) & (step >= 0)
        # The point of the old triangle's plane, in the plane of the new one.
        place = (weight[:, :, None] * self.corner[index]).sum(1)
        target = torch.where(goes, step, index)
        inside = torch.where(goes[:, None], _barycentric(self.corner[target], place), weight).clamp(min=0)
        turned = quaternion_multiply(self.turn[index, across], rotation)
        barycentric.copy_(inside / inside.sum(1, keepdim=True))
        rotation.copy_(torch.where(goes[:, None], turned, rotation))
        face.copy_(target)


def _barycentric(corner: Tensor, place: Tensor) -> Tensor:
    """Barycentric coordinates [N, 3] of the projections of places [N, 3] onto triangles [N, 3, 3]."""
    first, second = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    offset = place - corner[:, 0]
    a, b, c = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    d, e = (first * offset).sum(1), (second * offset).sum(1)
    determinant = (a * c - b * b).clamp(min=1e-20)
    u, v = (c * d - b * e) / determinant, (a * e - b * d) / determinant
    return torch.stack([1 - u - v, u, v], dim=1)


def _neighbours(surface: Surface) -> Tensor:
    """[F, 3] int64: the triangle across the edge opposite to each corner, if there is one with an area."""
    faces = surface.faces.numpy()
    edges = np.sort(np.stack([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]], axis=1).reshape(-1, 2), axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    same = np.flatnonzero((edges[order[1:]] == edges[order[:-1]]).all(1))
    result = np.full(len(edges), -1, np.int64)
    first, second = order[same], order[same + 1]
    result[first], result[second] = second // 3, first // 3
    usable = (surface.area > 0).numpy()
    result[(result >= 0) & ~usable[np.maximum(result, 0)]] = -1
    return torch.tensor(result.reshape(-1, 3))


def _quaternions(matrix: Tensor) -> Tensor:
    """Unit quaternions [N, 4] of rotations [N, 3, 3]: the eigenvector of the largest eigenvalue (Bar-Itzhack, 2000)."""
    m = matrix
    symmetric = torch.stack(
        [
            torch.stack([m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2], m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0],
                         m[:, 1, 0] - m[:, 0, 1]], 1),
            torch.stack([m[:, 2, 1] - m[:, 1, 2], m[:, 0, 0] - m[:, 1, 1] - m[:, 2, 2], m[:, 0, 1] + m[:, 1, 0],
                         m[:, 0, 2] + m[:, 2, 0]], 1),
            torch.stack([m[:, 0, 2] - m[:, 2, 0], m[:, 0, 1] + m[:, 1, 0], m[:, 1, 1] - m[:, 0, 0] - m[:, 2, 2],
                         m[:, 1, 2] + m[:, 2, 1]], 1),
            torch.stack([m[:, 1, 0] - m[:, 0, 1], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1],
                         m[:, 2, 2] - m[:, 0, 0] - m[:, 1, 1]], 1),
        ],
        dim=1,
    )  # fmt: skip
    return torch.linalg.eigh(symmetric).eigenvectors[:, :, -1]
