"""What keeps Gaussians sensible where the pictures say little: named terms, their weights applied."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from being_rt.ops.costs import Extent, Opacity, Placement, gaussian_costs
from being_rt.train.config import RegularisationConfig

_TORSO = RegularisationConfig()
_RESPONSE = 10.0  # per square metre by which a body answers: what pictures do not ask for stays 0


def regularisation(weights: RegularisationConfig, tensors: Mapping[str, Tensor], late: Tensor) -> dict[str, Tensor]:
    """The terms whose weight is not 0, each a scalar. Captured in a CUDA graph as it is.

    Args:
        tensors: of a model, by name.
        late: scalar, 1 where the run is so far that opacities cost something, 0 before.
    """
    t = tensors
    placement = Placement(t["head.position"], t["head.home"], t["head.limit"]) if weights.position else None
    extent = Extent(t["head.log_scale"], t["head.scale_limit"], weights.ratio_limit) if weights.scale else None
    opacity = Opacity(t["head.opacity_logit"], late) if weights.opacity else None
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
    if len(t["torso.position"]):  # the same in all presets
        extent = Extent(t["torso.log_scale"], t["torso.scale_limit"], _TORSO.ratio_limit)
        terms["torso scale"] = gaussian_costs(extent=extent, scale_weight=_TORSO.scale).scale
        terms["response"] = _RESPONSE * t["sheet.response"].square().sum()
    return terms
