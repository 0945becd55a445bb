"""Adaptive density control of 3DGS in a fixed amount of memory: clone, split, die, and a reset of all opacities.

Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, section 5.2. Gaussians that are not
there (yet, or any more) are dormant: so transparent that nothing draws them and no gradient reaches them. Clones and
splits go into their places, those with the largest gradients first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.train.model import AvatarModel
from being_rt.train.relocate import LEAST_OPACITY, LayerStatistics, copy_rows, scatter_positions

DORMANT_LOGIT = -12.0
RESET_OPACITY = 0.01
SPLIT_SCALE = 0.005  # metres: what is larger is split, what is smaller is cloned
SPLIT_SHRINK = 1.6


@torch.no_grad()
def adapt(
    model: AvatarModel, statistics: LayerStatistics, reset: bool, generator: torch.Generator
) -> dict[str, Tensor]:
    """Clone or split the head's Gaussians with large gradients into free places; let transparent ones die. In place.

    Args:
        reset: whether all opacities go down to 0.01, from where only what is needed comes back.

    Returns:
        For every parameter of the layer, the rows that have changed, int64.
    """
    rows = model.gaussian_rows("head")
    logit = rows["head.opacity_logit"]
    opacity = torch.sigmoid(logit)
    free = (opacity < LEAST_OPACITY) & ~_last_of_face(model, opacity)
    mean = statistics.gradient / statistics.count.clamp(min=1)
    wanted = torch.where(free, torch.zeros_like(mean), mean)
    order = wanted.argsort(descending=True, stable=True)
    places = torch.nonzero(free)[:, 0]
    count = min(int((wanted > model.config.growth_gradient).sum()), len(places))
    source, target = order[:count], places[:count]
    large = model.scale("head")[source].amax(1) > SPLIT_SCALE
    copy_rows(rows, source, target)
    halves = torch.cat([source[large], target[large]])
    scatter_positions(model, "head", halves, 1.0, generator)
    rows["head.log_scale"][halves] -= torch.tensor(SPLIT_SHRINK, dtype=logit.dtype).log().item()
    logit[places[count:]] = DORMANT_LOGIT
    changed = torch.cat([places, source[large]])
    if reset:
        awake = logit > 0.5 * DORMANT_LOGIT
        lowered = logit.clamp(max=float(torch.logit(torch.tensor(RESET_OPACITY))))
        logit.copy_(torch.where(awake, lowered, logit))
    result = dict.fromkeys(model.parameters.keys() & rows.keys(), changed)
    if reset:
        result["head.opacity_logit"] = torch.arange(len(logit), device=logit.device)
    return result


def _last_of_face(model: AvatarModel, opacity: Tensor) -> Tensor:
    """Gaussians [N] bool that stay because their triangle has no other (GaussianAvatars, 2024, section 3.3)."""
    if not model.config.face_scaled:
        return torch.zeros_like(opacity, dtype=torch.bool)
    face = model.tensors["head.face"].long()
    best = opacity.new_zeros(int(model.rig.faces.shape[0])).scatter_reduce(0, face, opacity, "amax")
    dormant = torch.sigmoid(torch.tensor(0.5 * DORMANT_LOGIT))
    return (opacity == best[face]) & (opacity > dormant.to(opacity.device))
