"""Gaussians go where they are needed, as the configuration says: both ways of doing it, behind one door."""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.train.adaptive import adapt
from being_rt.train.model import AvatarModel
from being_rt.train.relocate import Statistics, relocate


def densify(model: AvatarModel, statistics: Statistics, generator: torch.Generator) -> dict[str, Tensor]:
    """Densify in place, and clear the statistics. Between replays of a graph.

    Args:
        statistics: of the steps since the last call.
        generator: on the CPU; where Gaussians go is drawn from it.

    Returns:
        By parameter name the rows (int64) that have changed: an optimiser's moments are to be 0 there.
    """
    changed: dict[str, Tensor] = {}
    if model.config.densification != "none":
        if model.config.densification == "adaptive":
            changed |= adapt(model, statistics.head, model.reset_is_due(), generator)
        else:
            changed |= relocate(model, "head", statistics.head, generator)
        if model.count("torso"):
            changed |= relocate(model, "torso", statistics.torso, generator)
    statistics.clear()
    model.update_tables()
    return changed
