"""Binding: Gaussians of the rest pose, changed by each frame's offsets, to world space; differentiably.

A head's Gaussians ride on the triangles of the posed mesh, a torso's on a blend of the body's frames. Both give
``bound`` [B, N, 16]: mean 3 (metres), factor 9 (M row by row; the covariance is M M^T), opacity (0..1), colour 3 (not
clamped).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

BOUND_FLOATS = 16
OFFSET_FLOATS = 13
_GROUP: int = _C.operations.bind_group  # Gaussians in a part of a sum over Gaussians


@dataclass(frozen=True)
class VertexTables:
    """By which vertices gather their gradients: which Gaussians' triangles have them as a corner.

    :func:`bind_head` makes them where it is given none, in each backward pass, by sorting 3 N numbers. Where Gaussians
    stay on their triangles they are better made once; where they seldom move, :meth:`update` changes them in place, so
    that a recorded CUDA graph sees the change.

    Example::

        tables = VertexTables.of(faces, face, vertex_count=vertices.shape[1])
        bound = bind_head(*gaussians, offsets, vertices, faces, face_frames, face, barycentric, tables)
    """

    begin: Tensor  # int32 [V + 1] where each vertex begins in `corner`
    corner: Tensor  # int32 [3 N] 3 i + k for each Gaussian i whose triangle's corner k is the vertex

    @classmethod
    def of(cls, faces: Tensor, face: Tensor, vertex_count: int) -> VertexTables:
        """Check the indices and make the tables. Waits for the device.

        Args:
            faces: int32 [F, 3].
            face: int32 [N], the triangle of each Gaussian.
            vertex_count: V.

        Raises:
            InvalidParameterError: wrong shape or dtype, or an index out of range.
        """
        check("VertexTables", "faces", faces, (-1, 3), torch.int32)
        check("VertexTables", "face", face, (-1,), torch.int32)
        _check_indices("VertexTables", faces, face, vertex_count)
        return cls(*_vertex_tables(faces, face, vertex_count))

    def update(self, faces: Tensor, face: Tensor) -> None:
        """Make the tables anew for other triangles, in place. The host does not wait, so indices are not checked.

        Args:
            faces: int32 [F, 3].
            face: int32 [N], N as before.

        Raises:
            InvalidParameterError: wrong shape or dtype.
        """
        check("VertexTables", "faces", faces, (-1, 3), torch.int32)
        check("VertexTables", "face", face, (len(self.corner) // 3,), torch.int32)
        begin, corner = _vertex_tables(faces, face, len(self.begin) - 1)
        self.begin.copy_(begin)
        self.corner.copy_(corner)


def _vertex_tables(faces: Tensor, face: Tensor, vertex_count: int) -> tuple[Tensor, Tensor]:
    vertex, corner = torch.sort(faces[face.long()].flatten(), stable=True)
    begin = torch.searchsorted(vertex, torch.arange(vertex_count + 1, dtype=torch.int32, device=vertex.device))
    return begin.int(), corner.int()


def _check_indices(operation: str, faces: Tensor, face: Tensor, vertex_count: int) -> None:
    for name, index, limit in (("faces", faces, vertex_count), ("face", face, len(faces))):
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < limit:
            raise InvalidParameterError(f"{operation}: {name} has indices outside 0..{limit - 1}")


def bind_head(
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    vertices: Tensor,
    faces: Tensor,
    face_frames: Tensor,
    face: Tensor,
    barycentric: Tensor,
    tables: VertexTables | None = None,
) -> Tensor:
    """Carry a head's Gaussians with their triangles, in B frames at once.

    With the offsets added as :func:`being_rt.reference.deform` does, ``mean = sum_k beta_k v_k + F p``,
    ``M = F R(q) diag(s)``, F the frame of the posed triangle. Shao et al., "SplattingAvatar", 2024, section 3.2, with
    the local frame of Qian et al., "GaussianAvatars", 2024, section 3.2; the twin is
    :func:`being_rt.reference.bind_head`. Differentiable by every float argument but ``face_frames``; results are the
    same to the bit from run to run. Fastest where Gaussians are in the order of their triangles.

    Args:
        position: float32 (float64: CPU only) [N, 3] metres, in the frame of the triangle.
        rotation: [N, 4] quaternions w, x, y, z of any length but zero.
        log_scale: [N, 3] natural logarithms of metres.
        opacity_logit: [N].
        colour: [N, 3].
        offsets: [B, N, 13] in the order of being_rt.avatar.avatar.CHANNELS, or None.
        vertices: [B, V, 3] posed, metres.
        faces: int32 [F, 3].
        face_frames: [F, 2, 2], inverse rest edges, see being_rt.flame.rig.Rig.
        face: int32 [N], the triangle of each Gaussian.
        barycentric: [N, 3].
        tables: of the same faces, for the gradient of vertices; made when it is needed where None.

    Returns:
        bound [B, N, 16], see the head of this module.

    Raises:
        InvalidParameterError: wrong shape, dtype or device, not contiguous, or, on the CPU, an index out of range. On a
            CUDA device indices are not looked at, for which the host would have to wait.

    Example::

        gaussians = (position, rotation, log_scale, opacity_logit, colour)
        bound = bind_head(*gaussians, offsets, skinned.vertices, rig.faces, rig.face_frames, face, barycentric)
    """
    frames, count = len(vertices), len(position)
    dtype = _check_gaussians("bind_head", frames, position, rotation, log_scale, opacity_logit, colour, offsets)
    check("bind_head", "vertices", vertices, (frames, -1, 3), dtype)
    check("bind_head", "faces", faces, (-1, 3), torch.int32)
    check("bind_head", "face_frames", face_frames, (len(faces), 2, 2), dtype)
    check("bind_head", "face", face, (count,), torch.int32)
    check("bind_head", "barycentric", barycentric, (count, 3), dtype)
    begin = corner = None
    if tables is not None:
        begin, corner = tables.begin, tables.corner
        check("bind_head", "tables.begin", begin, (vertices.shape[1] + 1,), torch.int32)
        check("bind_head", "tables.corner", corner, (3 * count,), torch.int32)
    gaussians = (position, rotation, log_scale, opacity_logit, colour, offsets)
    bound: Tensor = _bind_head(*gaussians, vertices, barycentric, faces, face_frames, face, begin, corner)
    return bound


def bind_torso(
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    weights: Tensor,
    body: Tensor,
) -> Tensor:
    """Carry a torso's Gaussians with the body, in B frames at once: linear blend skinning.

    With the offsets added as :func:`being_rt.reference.deform` does, ``mean = sum_k w_k A_k p``,
    ``M = (sum_k w_k R_k) R(q) diag(s)``. The twin is :func:`being_rt.reference.bind_torso`. Differentiable by every
    argument; results are the same to the bit from run to run.

    Args:
        position: float32 (float64: CPU only) [N, 3] metres, in the rest pose.
        rotation: [N, 4] quaternions w, x, y, z of any length but zero.
        log_scale: [N, 3] natural logarithms of metres.
        opacity_logit: [N].
        colour: [N, 3].
        offsets: [B, N, 13] in the order of being_rt.avatar.avatar.CHANNELS, or None.
        weights: [N, 3] of root, global joint and neck joint.
        body: [B, 3, 3, 4] affine maps of these, rest pose to world; see :func:`being_rt.reference.body_frames`.

    Returns:
        bound [B, N, 16], see the head of this module.

    Raises:
        InvalidParameterError: wrong shape, dtype or device, or not contiguous.

    Example::

        bound = bind_torso(*gaussians, None, weights, body)
    """
    frames, count = len(body), len(position)
    dtype = _check_gaussians("bind_torso", frames, position, rotation, log_scale, opacity_logit, colour, offsets)
    check("bind_torso", "weights", weights, (count, 3), dtype)
    check("bind_torso", "body", body, (frames, 3, 3, 4), dtype)
    gaussians = (position, rotation, log_scale, opacity_logit, colour, offsets)
    bound: Tensor = _bind_torso(*gaussians, weights, body)
    return bound


def _check_gaussians(
    operation: str,
    frames: int,
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
) -> torch.dtype:
    count, dtype = len(position), position.dtype
    check_float(operation, "position", position, (-1, 3))
    check(operation, "rotation", rotation, (count, 4), dtype)
    check(operation, "log_scale", log_scale, (count, 3), dtype)
    check(operation, "opacity_logit", opacity_logit, (count,), dtype)
    check(operation, "colour", colour, (count, 3), dtype)
    if offsets is not None:
        check(operation, "offsets", offsets, (frames, count, OFFSET_FLOATS), dtype)
    return dtype


# ------------------------------------------------------------------------------------------------ the registered ops


@operator("bind_head")
def _bind_head(
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    vertices: Tensor,
    barycentric: Tensor,
    faces: Tensor,
    face_frames: Tensor,
    face: Tensor,
    vertex_begin: Tensor | None,
    vertex_corner: Tensor | None,
) -> Tensor:
    if not position.is_cuda:
        _check_indices("bind_head", faces, face, vertices.shape[1])
    bound = position.new_empty(len(vertices), len(position), BOUND_FLOATS)
    gaussians = _named(position, rotation, log_scale, opacity_logit, colour, offsets)
    carrier = _head_carrier(vertices, barycentric, faces, face_frames, face)
    call("bind_head", position, frames=len(vertices), count=len(position), **gaussians, **carrier, bound=bound)
    return bound


@operator("bind_torso")
def _bind_torso(
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    weights: Tensor,
    body: Tensor,
) -> Tensor:
    bound = position.new_empty(len(body), len(position), BOUND_FLOATS)
    gaussians = _named(position, rotation, log_scale, opacity_logit, colour, offsets)
    carrier = {"weights": weights, "body": body}
    call("bind_torso", position, frames=len(body), count=len(position), **gaussians, **carrier, bound=bound)
    return bound


# In the order of the forward ops: five of the Gaussians, offsets, then vertices and barycentric, or weights and
# body. Of what is not needed, an empty tensor is returned.


@gradient_operator("bind_head_backward")
def _bind_head_backward(
    gradient: Tensor,
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    vertices: Tensor,
    barycentric: Tensor,
    faces: Tensor,
    face_frames: Tensor,
    face: Tensor,
    vertex_begin: Tensor | None,
    vertex_corner: Tensor | None,
    needed: Sequence[bool],
) -> list[Tensor]:
    inputs = (position, rotation, log_scale, opacity_logit, colour, offsets, vertices, barycentric)
    results = _results(inputs, needed)
    frames, count = gradient.shape[:2]
    names = (*_GRADIENTS, "vertices_gradient", "place_gradient")
    corners = None
    if needed[6]:
        corners = gradient.new_empty(frames, count, 9)
        if vertex_begin is None or vertex_corner is None:
            vertex_begin, vertex_corner = _vertex_tables(faces, face, vertices.shape[1])
    call(
        "bind_head_backward",
        position,
        frames=frames,
        count=count,
        **_named(*inputs[:6]),
        **_head_carrier(vertices, barycentric, faces, face_frames, face),
        bound=None,
        bound_gradient=gradient,
        vertex_begin=vertex_begin,
        vertex_corner=vertex_corner,
        corner_gradient=corners,
        **_wanted(names, results, needed),
    )
    return results


@gradient_operator("bind_torso_backward")
def _bind_torso_backward(
    gradient: Tensor,
    position: Tensor,
    rotation: Tensor,
    log_scale: Tensor,
    opacity_logit: Tensor,
    colour: Tensor,
    offsets: Tensor | None,
    weights: Tensor,
    body: Tensor,
    needed: Sequence[bool],
) -> list[Tensor]:
    inputs = (position, rotation, log_scale, opacity_logit, colour, offsets, weights, body)
    results = _results(inputs, needed)
    frames, count = gradient.shape[:2]
    names = (*_GRADIENTS, "place_gradient", "body_gradient")
    parts = gradient.new_empty(36, frames, -(-count // _GROUP)) if needed[7] else None
    call(
        "bind_torso_backward",
        position,
        frames=frames,
        count=count,
        **_named(*inputs[:6]),
        weights=weights,
        body=body,
        bound=None,
        bound_gradient=gradient,
        parts=parts,
        **_wanted(names, results, needed),
    )
    return results


_GAUSSIANS = ("position", "rotation", "log_scale", "opacity_logit", "colour", "offsets")
_GRADIENTS = tuple(f"{name}_gradient" for name in _GAUSSIANS)


def _named(*gaussians: Tensor | None) -> dict[str, Tensor | None]:
    return dict(zip(_GAUSSIANS, gaussians, strict=True))


def _head_carrier(
    vertices: Tensor, barycentric: Tensor, faces: Tensor, face_frames: Tensor, face: Tensor
) -> dict[str, Tensor | int]:
    return {
        "vertex_count": vertices.shape[1],
        "vertices": vertices,
        "faces": faces,
        "face_frames": face_frames,
        "face": face,
        "barycentric": barycentric,
    }


def _results(inputs: Sequence[Tensor | None], needed: Sequence[bool]) -> list[Tensor]:
    nothing = next(tensor for tensor in inputs if tensor is not None)
    return [
        torch.empty_like(tensor) if wanted and tensor is not None else nothing.new_empty(0)
        for tensor, wanted in zip(inputs, needed, strict=True)
    ]


def _wanted(names: Sequence[str], results: Sequence[Tensor], needed: Sequence[bool]) -> dict[str, Tensor | None]:
    return {name: tensor if wanted else None for name, tensor, wanted in zip(names, results, needed, strict=True)}


@_bind_head.register_fake
def _(position: Tensor, *rest: Tensor | None) -> Tensor:
    vertices = rest[5]
    assert vertices is not None
    return position.new_empty(vertices.shape[0], position.shape[0], BOUND_FLOATS)


@_bind_torso.register_fake
def _(position: Tensor, *rest: Tensor | None) -> Tensor:
    body = rest[6]
    assert body is not None
    return position.new_empty(body.shape[0], position.shape[0], BOUND_FLOATS)


@_bind_head_backward.register_fake
def _(gradient: Tensor, *arguments: Any) -> list[Tensor]:
    return _results(arguments[:8], arguments[-1])


@_bind_torso_backward.register_fake
def _(gradient: Tensor, *arguments: Any) -> list[Tensor]:
    return _results(arguments[:8], arguments[-1])


def _setup_context(ctx: FunctionCtx, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)  # type: ignore[arg-type]


def _backward_head(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # type: ignore[attr-defined]
    needed = list(ctx.needs_input_grad[:8])  # type: ignore[attr-defined]
    results = _bind_head_backward(gradient.contiguous(), *inputs, needed)
    return (*_or_none(results, needed), None, None, None, None, None)


def _backward_torso(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors  # type: ignore[attr-defined]
    needed = list(ctx.needs_input_grad)  # type: ignore[attr-defined]
    results = _bind_torso_backward(gradient.contiguous(), *inputs, needed)
    return _or_none(results, needed)


def _or_none(results: Sequence[Tensor], needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    return tuple(tensor if wanted else None for tensor, wanted in zip(results, needed, strict=True))


_bind_head.register_autograd(_backward_head, setup_context=_setup_context)
_bind_torso.register_autograd(_backward_torso, setup_context=_setup_context)
