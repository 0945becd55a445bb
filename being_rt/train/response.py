"""How a body answers the motion of its head: what of it is trained, and what the avatar's format holds.

Collar, chest and shoulders of a person who leans do not go as one piece, and FLAME has no joint in any of them. So the
root of the torso is an affine map of the rest pose that follows the head's motion linearly
(:func:`being_rt.reference.body_root`). What is trained has one unit throughout: metres by which a place 10 cm from the
torso's middle moves when a motion goes from the middle of its range to its end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from being_rt.avatar.avatar import MOTIONS
from being_rt.dataset import Dataset
from being_rt.ops.body import ResponseUnits

_ARM = 0.1  # metres
_MARGIN = 0.25  # of half the range, beyond what training shows
_STILL = 5e-4  # metres or radians: of what hardly moves nothing can be learned


def initial_response(dataset: Dataset, position: Tensor) -> dict[str, Tensor]:
    """Tensors by name for a torso whose Gaussians are at rest ``position [T, 3]``; it answers nothing yet."""
    rows = dataset.timestep[dataset.split("train")]
    params = dataset.params
    answered = np.concatenate([params.translation, params.rotation, params.neck], axis=1)[rows]
    low, high = answered.min(0), answered.max(0)
    margin = _MARGIN * (high - low) / 2
    return {
        "sheet.response": torch.zeros(MOTIONS, 12),
        "sheet.response_range": torch.tensor(np.stack([low - margin, high + margin])),
        "sheet.centre": position.mean(0) if len(position) else torch.zeros(3),
    }


class ResponseScale:
    """From what is trained to the maps G of the format; made once, for all steps.

    Example::

        scale = ResponseScale(tensors["sheet.response_range"], tensors["sheet.centre"])
        body = body_frames(translation, axis_angles, transforms, tensors["sheet.response"], scale.units)
        maps = scale.maps(tensors["sheet.response"])
    """

    def __init__(self, response_range: Tensor, centre: Tensor) -> None:
        self.units = _units(response_range, centre)

    def update(self, response_range: Tensor, centre: Tensor) -> None:
        """Take another range and centre, in place: a captured graph reads what comes of them."""
        for kept, new in zip(self.units, _units(response_range, centre), strict=True):
            kept.copy_(new)

    def maps(self, response: Tensor) -> Tensor:
        """G [9, 3, 4] of a trained response [9, 12]; differentiable."""
        return (response.unflatten(1, (3, 4)) @ self.units.about) * self.units.per_motion[:, None, None]


def _units(response_range: Tensor, centre: Tensor) -> ResponseUnits:
    """``about`` takes places at rest to places about the centre, in arms."""
    half = (response_range[1] - response_range[0]) / 2
    per_motion = torch.where(half > _STILL, 1 / half.clamp(min=_STILL), torch.zeros_like(half))
    about = torch.eye(4, dtype=centre.dtype, device=centre.device) / _ARM
    about[:3, 3] = -centre / _ARM
    about[3, 3] = 1
    return ResponseUnits(response_range, per_motion, about)
