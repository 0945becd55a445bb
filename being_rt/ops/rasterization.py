"""Rasterizing: splats to the sums that blending leaves in each pixel, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check_float

SPLAT_FLOATS = 12
SUM_FLOATS = 5
LARGEST_PICTURE = 8192  # px a side
INSTANCES_PER_SPLAT = 16  # default room on a CUDA device


def rasterize(splats: Tensor, size: tuple[int, int], stop: float = 1e-4, instances: int | None = None) -> Tensor:
    """Blend splats from front to back.

    ``alpha_i = min(0.999, o_i exp(-1/2 d^T Q d))`` with d from the mean to the pixel's centre and Q the conic, skipped
    below 1/255; ``T_i = prod_{j<i} (1 - alpha_j)``; the sums are ``sum_i T_i alpha_i (red, green, blue, 1, depth)``.
    Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, equations 2 and 3; the
    derivative is in ``kernels/common/blend.h``. The readable twin is :func:`being_rt.reference.rasterize`, with
    ``stop`` 0 and with the mean of depth instead of its sum.

    Where alpha is skipped or at its limit, opacity, mean and conic get no gradient from that pixel. Nothing is drawn of
    splats whose opacity is below 1/255, whose conic is not positive definite, or that hold a value that is not finite
    in place of mean, conic, opacity or depth; they get zeros. Results are the same to the bit from run to run.

    Args:
        splats: float32 (float64: CPU only) [B, N, 12], contiguous: x, y (px), conic a, b, c (``[[a, b], [b, c]]``,
            px^-2), opacity 0..1, red, green, blue, depth (metres), and two numbers that are not read. Any order; equal
            depths keep theirs.
        size: width, height of the picture in px, 1 to 8192.
        stop: a pixel takes no further splat once its transmittance is below; 0: all of them.
        instances: on CUDA, the room for pairs of a splat and a tile, over all frames; 16 per splat where None. The
            CPU takes what it needs.

    Returns:
        [B, H, W, 5]: red, green, blue (premultiplied by alpha), alpha, and depth weighted like a colour, for which see
        :func:`layer_depth`.

    Raises:
        InvalidParameterError: wrong shape or dtype, not contiguous, or a size, stop or instances out of range.

    Example::

        sums = rasterize(project(...), (512, 512))
        (sums[..., :3] - target).abs().mean().backward()
    """
    width, height = size
    check_float("rasterize", "splats", splats, (-1, -1, SPLAT_FLOATS))
    if not (1 <= width <= LARGEST_PICTURE and 1 <= height <= LARGEST_PICTURE):
        raise InvalidParameterError(f"rasterize: size must be 1 to {LARGEST_PICTURE} px a side, got {width} x {height}")
    if not 0 <= stop < 1:
        raise InvalidParameterError(f"rasterize: stop must be at least 0 and below 1, got {stop}")
    if instances is None:
        instances = INSTANCES_PER_SPLAT * splats.shape[0] * splats.shape[1]
    if not 0 <= instances < 2**31:
        raise InvalidParameterError(f"rasterize: instances must be 0 to {2**31 - 1}, got {instances}")
    sums: Tensor = _rasterize(splats, width, height, stop, instances)
    return sums


def layer_depth(sums: Tensor) -> Tensor:
    """The mean depth [..., H, W] in metres of what each pixel of :func:`rasterize`'s sums shows; 0 where alpha is 0."""
    alpha, depth = sums[..., 3], sums[..., 4]
    covered = alpha > 0
    return torch.where(covered, depth / torch.where(covered, alpha, 1.0), 0.0)


@torch.library.custom_op("being_rt::rasterize", mutates_args=())
def _rasterize(splats: Tensor, width: int, height: int, stop: float, instances: int) -> Tensor:
    sums = splats.new_empty(splats.shape[0], height, width, SUM_FLOATS)
    _run("rasterize", splats, stop, instances, sums=sums, sums_gradient=None, splats_gradient=None)
    return sums


@torch.library.custom_op("being_rt::rasterize_backward", mutates_args=())
def _rasterize_backward(splats: Tensor, sums: Tensor, gradient: Tensor, stop: float, instances: int) -> Tensor:
    result = torch.empty_like(splats)
    _run("rasterize_backward", splats, stop, instances, sums=sums, sums_gradient=gradient, splats_gradient=result)
    return result


def _run(name: str, splats: Tensor, stop: float, instances: int, sums: Tensor, **more: Tensor | None) -> None:
    frames, height, width, _ = sums.shape
    sizes = {"frames": frames, "splats_per_frame": splats.shape[1], "width": width, "height": height}
    call(name, splats, splats=splats, **sizes, stop=stop, sums=sums, **more, capacity=instances, scratch=None)


@_rasterize.register_fake
def _(splats: Tensor, width: int, height: int, stop: float, instances: int) -> Tensor:
    return splats.new_empty(splats.shape[0], height, width, SUM_FLOATS)


@_rasterize_backward.register_fake
def _(splats: Tensor, sums: Tensor, gradient: Tensor, stop: float, instances: int) -> Tensor:
    return torch.empty_like(splats)


def _setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, int, int, float, int], output: Tensor) -> None:
    splats, _, _, ctx.stop, ctx.instances = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(splats, output)


def _backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
    splats, sums = ctx.saved_tensors  # type: ignore[attr-defined]
    result = _rasterize_backward(splats, sums, gradient.contiguous(), ctx.stop, ctx.instances)  # type: ignore[attr-defined]
    return result, None, None, None, None


_rasterize.register_autograd(_backward, setup_context=_setup_context)
