"""Projection: Gaussians in world space to splats on the picture, differentiably."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.binding import BOUND_FLOATS
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator
from being_rt.ops.rasterization import SPLAT_FLOATS

INTRINSIC_FLOATS = 6
_CAMERA_VALUES = 16  # world_to_camera, and fx, fy, cx, cy
_GROUP: int = _C.operations.project_group  # Gaussians in a part of a sum over Gaussians


def project(
    bound: Tensor, facing: Tensor, world_to_camera: Tensor, intrinsics: Tensor, antialiased: bool = True
) -> Tensor:
    """Project Gaussians to splats, in B frames at once: the camera's map, linearised at each mean.

    ``Sigma' = J W Sigma W^T J^T + 0.3 px^2`` (Zwicker et al., "EWA volume splatting", 2001, equations 24 to 31; Kerbl
    et al., "3D Gaussian splatting", 2023, equation 5). With ``antialiased`` the opacity shrinks by as much as the
    dilation swells the splat (Yu et al., "Mip-Splatting", 2024, section 5.2). ``facing`` Gaussians vanish as their
    third axis turns away from the camera. The twins are :func:`being_rt.reference.facing_fade` and
    :func:`being_rt.reference.project`; results are the same to the bit from run to run.

    Differentiable by ``bound``, ``world_to_camera`` (its twelve numbers, as they stand) and the first four of
    ``intrinsics``. What lies nearer than 0.01 m, or behind the camera, is all zeros and has no gradient.

    Args:
        bound: float32 (float64: CPU only) [B, N, 16] of :mod:`being_rt.ops.binding`: mean, factor, opacity, colour.
        facing: uint8 [N], not 0: fades.
        world_to_camera: [B, 3, 4], or [3, 4] for all frames; OpenCV's axes, metres.
        intrinsics: [B, 6]: fx, fy, cx, cy in px, and the bounds of |x/z| and |y/z| in J, 1.3 times half the picture
            over the focal length. Of a crop, they are those of the full frame: it then shows the same splats.
        antialiased: see above.

    Returns:
        splats [B, N, 12]: x, y (px), conic a, b, c (inverse covariance [[a, b], [b, c]], px^-2), opacity, red, green,
        blue (0..1), depth (metres), 0, 0. Opacity 0: not visible.

    Raises:
        InvalidParameterError: wrong shape, dtype or device, or not contiguous.

    Example::

        splats = project(bound, facing, world_to_camera, intrinsics, antialiased=True)
        sums = rasterize(splats, (512, 512))
    """
    check_float("project", "bound", bound, (-1, -1, BOUND_FLOATS))
    frames, count, _ = bound.shape
    check("project", "facing", facing, (count,), torch.uint8)
    pose = (3, 4) if world_to_camera.dim() == 2 else (frames, 3, 4)
    check("project", "world_to_camera", world_to_camera, pose, bound.dtype)
    check("project", "intrinsics", intrinsics, (frames, INTRINSIC_FLOATS), bound.dtype)
    if not isinstance(antialiased, bool):
        raise InvalidParameterError(f"project: antialiased must be True or False, got {antialiased!r}")
    splats: Tensor = _project(bound, facing, world_to_camera, intrinsics, antialiased)
    return splats


@operator("project")
def _project(bound: Tensor, facing: Tensor, world_to_camera: Tensor, intrinsics: Tensor, antialiased: bool) -> Tensor:
    splats = bound.new_empty(*bound.shape[:2], SPLAT_FLOATS)
    _run("project", bound, facing, world_to_camera, intrinsics, antialiased, splats=splats)
    return splats


@gradient_operator("project_backward")
def _project_backward(
    gradient: Tensor,
    bound: Tensor,
    facing: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    antialiased: bool,
    bound_needed: bool,
    camera_needed: bool,
) -> list[Tensor]:
    """Gradients of bound, world_to_camera and intrinsics; empty where they are not needed."""
    results = _results((bound, world_to_camera, intrinsics), bound_needed, camera_needed)
    frames, count, _ = bound.shape
    _run(
        "project_backward",
        bound,
        facing,
        world_to_camera,
        intrinsics,
        antialiased,
        splats=None,
        splats_gradient=gradient,
        bound_gradient=results[0] if bound_needed else None,
        parts=bound.new_empty(_CAMERA_VALUES, frames, -(-count // _GROUP)) if camera_needed else None,
        world_to_camera_gradient=results[1] if camera_needed else None,
        intrinsics_gradient=results[2] if camera_needed else None,
    )
    return results


def _run(
    name: str,
    bound: Tensor,
    facing: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    antialiased: bool,
    **more: Tensor | None,
) -> None:
    call(
        name,
        bound,
        frames=bound.shape[0],
        count=bound.shape[1],
        antialiased=antialiased,
        one_pose=world_to_camera.dim() == 2,
        bound=bound,
        facing=facing,
        world_to_camera=world_to_camera,
        intrinsics=intrinsics,
        **more,
    )


def _results(inputs: Sequence[Tensor], bound_needed: bool, camera_needed: bool) -> list[Tensor]:
    needed = (bound_needed, camera_needed, camera_needed)
    return [torch.empty_like(x) if wanted else x.new_empty(0) for x, wanted in zip(inputs, needed, strict=True)]


@_project.register_fake
def _(bound: Tensor, facing: Tensor, world_to_camera: Tensor, intrinsics: Tensor, antialiased: bool) -> Tensor:
    return bound.new_empty(*bound.shape[:2], SPLAT_FLOATS)


@_project_backward.register_fake
def _(
    gradient: Tensor,
    bound: Tensor,
    facing: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    antialiased: bool,
    bound_needed: bool,
    camera_needed: bool,
) -> list[Tensor]:
    return _results((bound, world_to_camera, intrinsics), bound_needed, camera_needed)


def _setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor, Tensor, bool], output: Tensor) -> None:
    *tensors, ctx.antialiased = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(*tensors)


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
    bound, _, pose, intrinsics, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
    tensors = ctx.saved_tensors  # type: ignore[attr-defined]
    results = _project_backward(gradient.contiguous(), *tensors, ctx.antialiased, bound, pose or intrinsics)  # type: ignore[attr-defined]
    return results[0] if bound else None, None, results[1] if pose else None, results[2] if intrinsics else None, None


_project.register_autograd(_backward, setup_context=_setup_context)
