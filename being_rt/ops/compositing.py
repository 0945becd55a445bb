"""Compositing: rasterized layers to a picture over a background, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator
from being_rt.ops.pictures import background_arguments, check_background, whole_vectors

SUMS = 5  # red, green, blue (premultiplied), alpha, weighted depth


def composite(head: Tensor, torso: Tensor, softness: float, background: Tensor) -> Tensor:
    """Lay head and torso over each other, whichever is in front, and both over a background.

    Porter and Duff, "Compositing digital images", 1984, section 4.3 (over), in both orders, mixed by a soft depth test:
    ``f = smoothstep(1/2 + (D_torso - D_head) / (2 softness))`` is 1 where the head is in front, with D the weighted
    depth over alpha. The readable twins are :func:`being_rt.reference.composite` and :func:`being_rt.reference.over`.
    Holes at the neck are not filled and colours not matched, as a renderer does: training has to close the gap itself.

    Args:
        head: float32 (float64: CPU only) [B, H, W, 5], contiguous: the sums of
            :func:`being_rt.ops.rasterization.rasterize`.
        torso: likewise.
        softness: metres of depth over which the order changes, above 0.
        background: float of the same type, [B or 1, H or 1, W or 1, 3], contiguous: opaque sRGB 0..1. It gets no
            gradient.

    Returns:
        [B, H, W, 4]: red, green, blue over the background, and the layers' alpha.

    Raises:
        InvalidParameterError: wrong shape or dtype, not contiguous, or a softness that is not positive.

    Example::

        picture = composite(head_sums, torso_sums, 0.01, torch.ones(1, 1, 1, 3))
        (picture[..., :3] - photo).abs().mean().backward()
    """
    check_float("composite", "head", head, (-1, -1, -1, SUMS))
    check("composite", "torso", torso, head.shape, head.dtype)
    check_background("composite", background, head)
    if not 0 < softness < float("inf"):
        raise InvalidParameterError(f"composite: softness must be positive (metres), got {softness}")
    picture: Tensor = _composite(head, torso, softness, background)
    return picture


def over(layer: Tensor, background: Tensor) -> Tensor:
    """One layer alone over a background: ``C + (1 - A) background``. Depth does not matter, and gets no gradient.

    Porter and Duff 1984, section 4.3; the readable twin is :func:`being_rt.reference.over`. Arguments, result and
    errors are those of :func:`composite`.

    Example::

        picture = over(head_sums, torch.rand(8, 1, 1, 3))
    """
    check_float("over", "layer", layer, (-1, -1, -1, SUMS))
    check_background("over", background, layer)
    picture: Tensor = _over(layer, background)
    return picture


# ---------------------------------------------------------------- operators


@operator("composite")
def _composite(head: Tensor, torso: Tensor, softness: float, background: Tensor) -> Tensor:
    picture = head.new_empty(*head.shape[:3], 4)
    _run("composite", head, torso, softness, background, picture=picture)
    return picture


@gradient_operator("composite_backward")
def _composite_backward(
    head: Tensor, torso: Tensor, softness: float, background: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor]:
    by_head, by_torso = torch.empty_like(head), torch.empty_like(torso)
    gradient = whole_vectors(gradient.contiguous())
    _run(
        "composite_backward",
        head,
        torso,
        softness,
        background,
        picture_gradient=gradient,
        head_gradient=by_head,
        torso_gradient=by_torso,
    )
    return by_head, by_torso


@operator("over")
def _over(layer: Tensor, background: Tensor) -> Tensor:
    picture = layer.new_empty(*layer.shape[:3], 4)
    _run("composite", layer, None, 1.0, background, picture=picture)
    return picture


@gradient_operator("over_backward")
def _over_backward(layer: Tensor, background: Tensor, gradient: Tensor) -> Tensor:
    by_layer = torch.empty_like(layer)
    gradient = whole_vectors(gradient.contiguous())
    _run("composite_backward", layer, None, 1.0, background, picture_gradient=gradient, head_gradient=by_layer)
    return by_layer


def _run(
    name: str,
    head: Tensor,
    torso: Tensor | None,
    softness: float,
    background: Tensor,
    picture: Tensor | None = None,
    picture_gradient: Tensor | None = None,
    head_gradient: Tensor | None = None,
    torso_gradient: Tensor | None = None,
) -> None:
    pictures, height, width, _ = head.shape
    call(
        name,
        head,
        pictures=pictures,
        height=height,
        width=width,
        softness=softness,
        head=head,
        torso=torso,
        **background_arguments(background),
        picture=picture,
        picture_gradient=picture_gradient,
        head_gradient=head_gradient,
        torso_gradient=torso_gradient,
    )


@_composite.register_fake
def _(head: Tensor, torso: Tensor, softness: float, background: Tensor) -> Tensor:
    return head.new_empty(*head.shape[:3], 4)


@_composite_backward.register_fake
def _(head: Tensor, torso: Tensor, softness: float, background: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(head), torch.empty_like(torso)


@_over.register_fake
def _(layer: Tensor, background: Tensor) -> Tensor:
    return layer.new_empty(*layer.shape[:3], 4)


@_over_backward.register_fake
def _(layer: Tensor, background: Tensor, gradient: Tensor) -> Tensor:
    return torch.empty_like(layer)


# ---------------------------------------------------------------- derivatives


def _setup_composite(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, float, Tensor], output: Tensor) -> None:
    head, torso, ctx.softness, background = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(head, torso, background)


def _differentiate_composite(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
    head, torso, background = ctx.saved_tensors  # type: ignore[attr-defined]
    by_head, by_torso = _composite_backward(head, torso, ctx.softness, background, gradient)  # type: ignore[attr-defined]
    return by_head, by_torso, None, None


def _setup_over(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_over(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
    layer, background = ctx.saved_tensors  # type: ignore[attr-defined]
    return _over_backward(layer, background, gradient), None


_composite.register_autograd(_differentiate_composite, setup_context=_setup_composite)
_over.register_autograd(_differentiate_over, setup_context=_setup_over)
