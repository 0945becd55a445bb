"""What keeps Gaussians sensible where the pictures say little: named terms, their weights applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

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
    """The terms of a configuration whose weight is not 0, each a scalar. Captured in a CUDA graph as it is.

    Hinges as those of Qian et al., "GaussianAvatars", 2024, relative to their limits; the ratio of
    scales as in Xie et al., "PhysGaussian", 2024, which SplattingAvatar uses.
    """
    weights, tensors = model.config.regularisation, model.tensors
    terms: dict[str, Tensor] = {}
    if weights.position:
        distance = (tensors["head.position"] - tensors["head.home"]).square().sum(1).clamp(min=1e-16).sqrt()
        terms["position"] = weights.position * torch.relu(distance / tensors["head.limit"] - 1).mean()
    if weights.scale:
        head = _scale_cost(tensors["head.log_scale"], tensors["head.scale_limit"], weights.ratio_limit)
        terms["scale"] = weights.scale * head
    if layers.torso_splats is not None:  # the same in all presets
        torso = _scale_cost(tensors["torso.log_scale"], tensors["torso.scale_limit"], _TORSO.ratio_limit)
        terms["torso scale"] = _TORSO.scale * torso
    if weights.offset and layers.offset_cost is not None:
        terms["offset"] = layers.offset_cost
    if weights.opacity:
        opacity = torch.sigmoid(tensors["head.opacity_logit"])
        terms["opacity"] = weights.opacity * model.late * (4 * opacity * (1 - opacity)).mean()
    return terms


def _scale_cost(log_scale: Tensor, limit: Tensor, ratio: float) -> Tensor:
    excess = torch.relu(log_scale.exp() / limit[:, None] - 1).sum(1)
    stretch = (log_scale.amax(1) - log_scale.amin(1)).exp()
    return (excess + torch.relu(stretch / ratio - 1)).mean()
