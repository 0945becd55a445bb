"""What keeps Gaussians sensible where the pictures say little: named terms, their weights applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from being_rt.ops.costs import Extent, Opacity, Placement, gaussian_costs
from being_rt.train.config import RegularisationConfig

if TYPE_CHECKING:
    from being_rt.train.model import AvatarModel, Layers

# What offsets count in: 1 cm, 1 rad, a factor of e, one logit, all of a colour.
_OFFSET_UNITS = (100.0,) * 3 + (1.0,) * 3 + (1.0,) * 3 + (1.0,) + (1.0,) * 3
_TORSO = RegularisationConfig()


def offset_penalty(weights: RegularisationConfig) -> list[float] | None:
    """What offsets are multiplied by before they are squared, by channel, the weight included; None: they cost nothing.

    See :func:`being_rt.ops.offsets.penalised_offsets`.
    """
    return [unit * weights.offset**0.5 for unit in _OFFSET_UNITS] if weights.offset else None


def regularisation(model: AvatarModel, layers: Layers) -> dict[str, Tensor]:
    """The terms of a configuration whose weight is not 0, each a scalar. Captured in a CUDA graph as it is."""
    weights, t = model.config.regularisation, model.tensors
    placement = Placement(t["head.position"], t["head.home"], t["head.limit"]) if weights.position else None
    extent = Extent(t["head.log_scale"], t["head.scale_limit"], weights.ratio_limit) if weights.scale else None
    opacity = Opacity(t["head.opacity_logit"], model.late) if weights.opacity else None
    terms: dict[str, Tensor] = {}
    if placement or extent or opacity:
        costs = gaussian_costs(
            placement,
            extent,
            opacity,
            position_weight=weights.position,
            scale_weight=weights.scale,
            opacity_weight=weights.opacity,
        )
        parts = {"position": placement, "scale": extent, "opacity": opacity}
        terms |= {name: cost for (name, part), cost in zip(parts.items(), costs, strict=True) if part}
    if layers.torso_splats is not None:  # the same in all presets
        extent = Extent(t["torso.log_scale"], t["torso.scale_limit"], _TORSO.ratio_limit)
        terms["torso scale"] = gaussian_costs(extent=extent, scale_weight=_TORSO.scale).scale
    if weights.offset and model.config.network != "none":
        cost = layers.offset_cost  # none before the network takes part
        terms["offset"] = layers.picture.new_zeros(()) if cost is None else cost
    return terms
