"""Gaussians in the space of the photograph, before they are bound to what carries them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Gaussians, HeadLayer
from being_rt.avatar.demo.cloud import quaternions, unit
from being_rt.flame.rig import Rig

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

OPAQUE = 0.97  # of a Gaussian that nothing should shine through


class Splats(NamedTuple):
    """N Gaussians in the pose of the photograph, metres."""

    place: Float64  # [N, 3]
    factor: Float64  # [N, 3, 3] M; the covariance is M M^T
    colour: Float64  # [N, 3] sRGB 0..1
    opacity: Float64  # [N] 0..1
    facing: Bool  # [N] fades as it turns away; the third column of its factor is its normal then
    seen: Bool  # [N] the photograph shows it: its colour can be compared with what is drawn

    @classmethod
    def of(cls, place: Float64, factor: Float64, colour: Float64, opacity: Float64 | float = OPAQUE,
           facing: bool = False, seen: bool = False) -> Splats:  # fmt: skip
        """Opacity, facing and seen as one value for all."""
        count = len(place)
        return cls(
            place,
            factor,
            colour,
            np.broadcast_to(np.asarray(opacity, np.float64), (count,)).copy(),
            np.full(count, facing),
            np.full(count, seen),
        )

    @classmethod
    def concatenate(cls, parts: list[Splats]) -> Splats:
        """Those of all parts, in their order."""
        columns: Any = zip(*parts, strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    def chosen(self, which: Bool | Int64) -> Splats:
        """Some of them."""
        columns: Any = self
        return Splats(*(column[which] for column in columns))


class Bound(NamedTuple):
    """Gaussians with the triangles that carry them."""

    splats: Splats
    face: Int64  # [N]
    barycentric: Float64  # [N, 3]

    @classmethod
    def concatenate(cls, parts: list[Bound]) -> Bound:
        """Those of all parts, in their order."""
        return cls(
            Splats.concatenate([part.splats for part in parts]),
            np.concatenate([part.face for part in parts]),
            np.concatenate([part.barycentric for part in parts]),
        )

    def chosen(self, which: Bool | Int64) -> Bound:
        """Some of them."""
        return Bound(self.splats.chosen(which), self.face[which], self.barycentric[which])


def posed_frames(rig: Rig, vertices: Float64) -> Float64:
    """Frames [t b n] of all triangles [F, 3, 3] in a pose, as the renderer builds them; zeros without area."""
    corners = vertices[rig.faces]
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    tangents = np.stack([edge_1, edge_2], 2) @ rig.face_frames.astype(np.float64)
    return np.concatenate([tangents, unit(np.cross(edge_1, edge_2))[:, :, None]], 2)


def head_layer(rig: Rig, vertices: Float64, bound: Bound) -> HeadLayer:
    """Gaussians on posed vertices [V, 3] as the layer that shows them so in that pose."""
    frames = posed_frames(rig, vertices)[bound.face]
    inverse = np.linalg.pinv(frames)
    anchor = np.einsum("nk,nkd->nd", bound.barycentric, vertices[rig.faces[bound.face]])
    splats = bound.splats
    position = np.einsum("nij,nj->ni", inverse, splats.place - anchor)
    rotation, scale = decomposed(inverse @ splats.factor)
    return HeadLayer(
        _gaussians(position, rotation, scale, splats), bound.face.astype(np.int32), bound.barycentric.astype(np.float32)
    )


def torso_gaussians(splats: Splats, position: Float64) -> Gaussians:
    """Gaussians of the torso layer, whose factors are those of the rest pose."""
    rotation, scale = decomposed(splats.factor)
    return _gaussians(position, rotation, scale, splats)


def decomposed(factor: Float64) -> tuple[Float64, Float64]:
    """Quaternions [N, 4] and deviations [N, 3] of Gaussians with M [N, 3, 3]; their third axis is the nearest to z."""
    variance, axes = np.linalg.eigh(factor @ np.swapaxes(factor, 1, 2))
    third = np.abs(axes[:, 2, :]).argmax(1)
    order = np.stack([(third + 1) % 3, (third + 2) % 3, third], 1)
    axes = np.take_along_axis(axes, order[:, None, :], 2)
    scale = np.sqrt(np.maximum(np.take_along_axis(variance, order, 1), 1e-14))
    axes[:, :, 2] *= np.where(axes[:, 2, 2] < 0, -1.0, 1.0)[:, None]
    axes[:, :, 0] *= np.sign(np.linalg.det(axes))[:, None]
    return quaternions(axes), scale


def _gaussians(position: Float64, rotation: Float64, scale: Float64, splats: Splats) -> Gaussians:
    opacity = np.clip(splats.opacity, 1e-4, 1 - 1e-4)
    return Gaussians(
        position=position.astype(np.float32),
        rotation=rotation.astype(np.float32),
        log_scale=np.log(scale).astype(np.float32),
        opacity_logit=np.log(opacity / (1 - opacity)).astype(np.float32),
        colour=np.clip(splats.colour, 0, 1).astype(np.float32),
        facing_fade=splats.facing,
    )
