"""The photometric loss: pictures against what was seen, with everything that its gradient needs, in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator
from being_rt.ops.pictures import background_arguments, check_background, whole_vectors

TILE = _C.operations.loss_tile
_FACTORS = ("l1", "dssim", "alpha", "huber", "tolerance")  # what operators take as one list


def photometric_loss(
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None = None,
    l1: float = 0.8,
    dssim: float = 0.2,
    alpha: float = 0.0,
    huber: float | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """How far pictures are from what was seen: ``l1 * L1 + dssim * D + alpha * A``, and the three terms on their own.

    The target is seen over the background that the picture was drawn on, ``a rgb + (1 - a) background``. L1 is the mean
    over pixels and channels of the weighted absolute difference; D that of the weighted ``1 - SSIM`` (Wang et al. 2004,
    equation 13: 11 x 11 Gaussian window of 1.5 px, pictures go on as zeros), as in Kerbl et al. 2023, equation 7; A the
    mean over pixels of the absolute difference in coverage, beyond ``tolerance`` times the coverage seen, not weighted.
    Means are over all pixels, whatever they weigh. The readable twin is :func:`being_rt.reference.photometric_loss`.

    All four results are differentiable, by the picture alone. The gradient where a difference is exactly 0 is 0. On
    CUDA two of the three derivatives of SSIM pass through half floats: gradients differ by about a thousandth.

    Args:
        picture: float32 (float64: CPU only) [B, H, W, 4], contiguous: colour over the background, and alpha.
        target: uint8 [B, H, W, 4], contiguous: colour, straight alpha.
        background: float of the picture's type, [B or 1, H or 1, W or 1, 3], contiguous.
        weight: uint8 [B, H, W], contiguous, in sixteenths (16: 1, at most 15.9); 1 everywhere where None.
        l1: factor of L1, 0 or more.
        dssim: factor of D, 0 or more; with 0 SSIM is not computed, and D is 0.
        alpha: factor of A, 0 or more.
        huber: the difference below which L1 is quadratic, ``x^2 / 2``, and from where on it is
            ``huber (|x| - huber / 2)``; None or 0: ``|x|``.
        tolerance: the difference in coverage that costs nothing, in parts of the coverage seen, 0 or more.

    Returns:
        [4]: the total, L1, D, A.

    Raises:
        InvalidParameterError: wrong shape or dtype, not contiguous, no pixels, or a factor below 0 or not finite.

    Example::

        loss = photometric_loss(picture, target, background, weight)
        loss[0].backward()
    """
    check_float("photometric_loss", "picture", picture, (-1, -1, -1, 4))
    check("photometric_loss", "target", target, picture.shape, torch.uint8)
    check_background("photometric_loss", background, picture)
    if weight is not None:
        check("photometric_loss", "weight", weight, picture.shape[:3], torch.uint8)
    if picture.numel() == 0:
        raise InvalidParameterError(f"photometric_loss: there are no pixels in a picture of {list(picture.shape)}")
    factors = [l1, dssim, alpha, huber or 0.0, tolerance]
    for name, value in zip(_FACTORS, factors, strict=True):
        if not 0 <= value < float("inf"):
            raise InvalidParameterError(f"photometric_loss: {name} must be 0 or more, got {value}")
    keep = dssim > 0 and picture.requires_grad and torch.is_grad_enabled()
    losses: Tensor = _loss(picture, target, background, weight, factors, keep)[0]
    return losses


# ---------------------------------------------------------------- operators


def _kept_shape(picture: Tensor, keep: bool) -> tuple[int, ...]:
    """Of what SSIM's gradient needs per pixel and channel, see kernels/training/loss.h."""
    if not keep:
        return (0,)
    pictures, height, width, _ = picture.shape
    if picture.is_cuda:
        return (3 * pictures * height * width * _C.operations.ssim_kept_on_cuda + _tiles(picture),)
    return (pictures, 3, height, width, _C.operations.ssim_kept)


def _tiles(picture: Tensor) -> int:
    pictures, height, width, _ = picture.shape
    return pictures * -(-height // TILE) * -(-width // TILE)


@operator("photometric_loss")
def _loss(
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None,
    factors: list[float],
    keep: bool,
) -> tuple[Tensor, Tensor]:
    losses, kept = picture.new_empty(4), picture.new_empty(_kept_shape(picture, keep))
    call(
        "loss",
        picture,
        **_arguments(picture, target, background, weight, factors),
        kept=kept if keep else None,
        partial=picture.new_empty(_tiles(picture), 3),
        losses=losses,
        losses_gradient=None,
        picture_gradient=None,
    )
    return losses, kept


@gradient_operator("photometric_loss_backward")
def _loss_backward(
    gradient: Tensor,
    kept: Tensor,
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None,
    factors: list[float],
) -> Tensor:
    by_picture = torch.empty_like(picture)
    call(
        "loss_backward",
        picture,
        **_arguments(picture, target, background, weight, factors),
        kept=kept if kept.numel() else None,
        partial=None,
        losses=None,
        losses_gradient=gradient.contiguous(),
        picture_gradient=by_picture,
    )
    return by_picture


def _arguments(
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None,
    factors: list[float],
) -> dict[str, Tensor | float | None]:
    pictures, height, width, _ = picture.shape
    return {
        "picture": whole_vectors(picture),
        "target": whole_vectors(target),
        **background_arguments(background),
        "weight": weight,
        **{"pictures": pictures, "height": height, "width": width},
        **dict(zip(_FACTORS, factors, strict=True)),
    }


@_loss.register_fake
def _(
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None,
    factors: list[float],
    keep: bool,
) -> tuple[Tensor, Tensor]:
    return picture.new_empty(4), picture.new_empty(_kept_shape(picture, keep))


@_loss_backward.register_fake
def _(
    gradient: Tensor,
    kept: Tensor,
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None,
    factors: list[float],
) -> Tensor:
    return torch.empty_like(picture)


# ---------------------------------------------------------------- derivative


def _setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    picture, target, background, weight, ctx.factors, _ = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(output[1], picture, target, background, weight)
    # Else a gradient of zeros would be made for what is kept, as large as that is, only to be ignored.
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: FunctionCtx, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 6
    by_picture = _loss_backward(gradient, *ctx.saved_tensors, ctx.factors)  # type: ignore[attr-defined]
    return (by_picture, *[None] * 5)


_loss.register_autograd(_differentiate, setup_context=_setup_context)
