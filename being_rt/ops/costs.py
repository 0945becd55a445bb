"""What keeps Gaussians sensible where the pictures say little: three costs of a layer, in one pass each way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator


class GaussianCosts(NamedTuple):
    """Costs of a layer, scalars with their weights applied. 0 for what costs nothing."""

    position: Tensor
    scale: Tensor
    opacity: Tensor


class Placement(NamedTuple):
    """Where Gaussians are, and where they belong."""

    position: Tensor  # [N, 3]
    home: Tensor  # [N, 3]
    limit: Tensor  # [N] distance that costs nothing


class Extent(NamedTuple):
    """How large Gaussians are, and how large they may be."""

    log_scale: Tensor  # [N, 3]
    limit: Tensor  # [N] standard deviation that costs nothing
    ratio_limit: float  # of the longest to the shortest that costs nothing


class Opacity(NamedTuple):
    """How opaque Gaussians are."""

    logit: Tensor  # [N]
    factor: Tensor | None = None  # [] or [1] on the weight; it may change between replays of a CUDA graph


def gaussian_costs(
    placement: Placement | None = None,
    extent: Extent | None = None,
    opacity: Opacity | None = None,
    *,
    position_weight: float = 1.0,
    scale_weight: float = 1.0,
    opacity_weight: float = 1.0,
) -> GaussianCosts:
    """Costs of N Gaussians: weights times means over them. What is None costs nothing.

    - position: ``max(0, |position - home| / limit - 1)``
    - scale: ``sum_k max(0, exp(log_scale_k) / limit - 1)
      + max(0, exp(max_k log_scale_k - min_k log_scale_k) / ratio_limit - 1)``
    - opacity: ``4 o (1 - o)``, ``o = sigmoid(logit)``, times ``factor``

    Gradients reach position, log_scale and logit. All tensors are contiguous, of one float type (float32; on the CPU
    float64 as well) and on one device.

    Args:
        placement, extent, opacity: of the same Gaussians.
        position_weight, scale_weight, opacity_weight: what the means are multiplied by.

    Raises:
        InvalidParameterError: no Gaussians, or a tensor of a wrong shape, dtype or device, or one that is not
            contiguous.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Source:
        Hinges as those of Qian et al., "GaussianAvatars", 2024, relative to their limits; the ratio of scales as in
        Xie et al., "PhysGaussian", 2024.

    Example::

        costs = gaussian_costs(Placement(position, home, limit), Extent(log_scale, scale_limit, 10.0))
        (costs.position + costs.scale).backward()
    """
    if placement is None and extent is None and opacity is None:
        raise InvalidParameterError("gaussian_costs: one of placement, extent and opacity must be given")
    position, home, limit = placement or (None, None, None)
    log_scale, scale_limit, ratio_limit = extent or (None, None, 1.0)
    logit, factor = opacity or (None, None)
    tensors = (position, home, limit, log_scale, scale_limit, logit)
    like = _first(*tensors)
    count = len(like)
    check_float("gaussian_costs", "the first tensor", like, like.shape)
    if count == 0:
        raise InvalidParameterError("gaussian_costs: there are no Gaussians")
    for (name, width), tensor in zip(_TENSORS.items(), tensors, strict=True):
        if tensor is not None:
            check("gaussian_costs", name, tensor, (count, *width), like.dtype)
    if factor is not None:
        check("gaussian_costs", "opacity.factor", factor.reshape(-1), (1,), like.dtype)
    weights = [position_weight, scale_weight, opacity_weight, ratio_limit]
    return GaussianCosts(*_costs(*tensors, factor, weights))


_TENSORS: dict[str, tuple[int, ...]] = {
    "placement.position": (3,),
    "placement.home": (3,),
    "placement.limit": (),
    "extent.log_scale": (3,),
    "extent.limit": (),
    "opacity.logit": (),
}


@operator("gaussian_costs")
def _costs(
    position: Tensor | None,
    home: Tensor | None,
    limit: Tensor | None,
    log_scale: Tensor | None,
    scale_limit: Tensor | None,
    opacity_logit: Tensor | None,
    opacity_factor: Tensor | None,
    weights: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """``weights``: of positions, scales and opacities, and the limit of ratios."""
    inputs = (position, home, limit, log_scale, scale_limit, opacity_logit, opacity_factor)
    like = _first(position, log_scale, opacity_logit)
    costs = like.new_empty(()), like.new_empty(()), like.new_empty(())
    share = like.new_empty(-(-len(like) // _C.operations.cost_group), 3)
    _call("costs", inputs, weights, share=share, costs=costs)
    return costs


@_costs.register_fake
def _(
    position: Tensor | None,
    home: Tensor | None,
    limit: Tensor | None,
    log_scale: Tensor | None,
    scale_limit: Tensor | None,
    opacity_logit: Tensor | None,
    opacity_factor: Tensor | None,
    weights: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    like = _first(position, log_scale, opacity_logit)
    return like.new_empty(()), like.new_empty(()), like.new_empty(())


@gradient_operator("gaussian_costs_backward")
def _costs_backward(
    d_position_cost: Tensor | None,
    d_scale_cost: Tensor | None,
    d_opacity_cost: Tensor | None,
    position: Tensor | None,
    home: Tensor | None,
    limit: Tensor | None,
    log_scale: Tensor | None,
    scale_limit: Tensor | None,
    opacity_logit: Tensor | None,
    opacity_factor: Tensor | None,
    weights: list[float],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of position, log_scale and opacity_logit, empty where they are not wanted."""
    gradients = _gradients(position, log_scale, opacity_logit, wanted)
    _call(
        "costs_backward",
        (position, home, limit, log_scale, scale_limit, opacity_logit, opacity_factor),
        weights,
        d_costs=(d_position_cost, d_scale_cost, d_opacity_cost),
        gradients=[gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)],
    )
    return gradients


@_costs_backward.register_fake
def _(
    d_position_cost: Tensor | None,
    d_scale_cost: Tensor | None,
    d_opacity_cost: Tensor | None,
    position: Tensor | None,
    home: Tensor | None,
    limit: Tensor | None,
    log_scale: Tensor | None,
    scale_limit: Tensor | None,
    opacity_logit: Tensor | None,
    opacity_factor: Tensor | None,
    weights: list[float],
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(position, log_scale, opacity_logit, wanted)


def _first(*tensors: Tensor | None) -> Tensor:
    return next(tensor for tensor in tensors if tensor is not None)


def _gradients(
    position: Tensor | None, log_scale: Tensor | None, opacity_logit: Tensor | None, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    like = _first(position, log_scale, opacity_logit)
    a, b, c = (
        torch.empty_like(tensor) if tensor is not None and want else like.new_empty(0)
        for tensor, want in zip((position, log_scale, opacity_logit), wanted, strict=True)
    )
    return a, b, c


def _call(
    name: str,
    inputs: tuple[Tensor | None, ...],
    weights: list[float],
    share: Tensor | None = None,
    costs: tuple[Tensor | None, ...] = (None,) * 3,
    d_costs: tuple[Tensor | None, ...] = (None,) * 3,
    gradients: tuple[Tensor | None, ...] | list[Tensor | None] = (None,) * 3,
) -> None:
    position, home, limit, log_scale, scale_limit, opacity_logit, opacity_factor = inputs
    like = _first(position, log_scale, opacity_logit)
    call(
        name,
        like,
        position=position,
        home=home,
        limit=limit,
        log_scale=log_scale,
        scale_limit=scale_limit,
        opacity_logit=opacity_logit,
        opacity_factor=opacity_factor,
        position_weight=weights[0],
        scale_weight=weights[1],
        opacity_weight=weights[2],
        ratio_limit=weights[3],
        count=len(like),
        share=share,
        position_cost=costs[0],
        scale_cost=costs[1],
        opacity_cost=costs[2],
        d_position_cost=d_costs[0],
        d_scale_cost=d_costs[1],
        d_opacity_cost=d_costs[2],
        d_position=gradients[0],
        d_log_scale=gradients[1],
        d_opacity_logit=gradients[2],
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.weights = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, *d_costs: Tensor | None) -> tuple[Tensor | None, ...]:
    # Positions are the first input, log scales the fourth, logits the sixth.
    wanted = [ctx.needs_input_grad[i] and d is not None for i, d in zip((0, 3, 5), d_costs, strict=True)]
    if not any(wanted):
        return (None,) * 8
    given = (d if d is None else d.contiguous() for d in d_costs)
    gradients = _costs_backward(*given, *ctx.saved_tensors, ctx.weights, wanted)
    position, log_scale, opacity = (g if want else None for g, want in zip(gradients, wanted, strict=True))
    return position, None, None, log_scale, None, opacity, None, None


_costs.register_autograd(_differentiate, setup_context=_setup_context)
