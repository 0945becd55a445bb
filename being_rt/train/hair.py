"""How high hair stands, where no frame shows it: as high as it does along the head's outline.

Hair begins as a shell of a few centimetres over the whole scalp. Where masks show its outline, what lies outside them
fades; at the nape, behind ears and on the far side nothing does, and a short-haired head that turns would show a shell
there that it does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 12  # of height
_GRAZING = 0.3  # cosine between the scalp's normal and the view, below which a Gaussian is at the outline
_LEAST = 30  # Gaussians at an outline, over all frames, that tell about a step


class HairOutline:
    """What masks say about the hair at a head's outline, frame by frame.

    Example::

        outline = HairOutline(height)
        outline.add(place, cosine, alpha)  # of each frame
        opacity *= outline.share()
    """

    def __init__(self, height: Tensor) -> None:
        """``height [N]``: metres over the scalp of each Gaussian of hair."""
        largest = float(height.max()) if len(height) else 1.0
        self._step = (height / max(largest, 1e-6) * _STEPS).long().clamp(0, _STEPS - 1)
        # Whole numbers, so that the order in which a device adds them does not matter.
        self._inside, self._count = torch.zeros(2, _STEPS, dtype=torch.int64, device=height.device)
        self._seen = torch.zeros(len(height), dtype=torch.bool, device=height.device)

    def add(self, place: Tensor, cosine: Tensor, mask: Tensor) -> None:
        """A frame.

        Args:
            place: [N, 2] on the picture, px.
            cosine: [N] between the scalp's normal and the direction to the camera.
            mask: uint8 [H, W], the person's coverage.
        """
        height, width = mask.shape
        column, row = (place[:, k].floor().clamp(-1, 1e6).long() for k in (0, 1))
        there = (cosine.abs() < _GRAZING) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        covered = mask[row.clamp(0, height - 1), column.clamp(0, width - 1)] > 127
        self._count.index_add_(0, self._step, there.long())
        self._inside.index_add_(0, self._step, (there & covered).long())
        self._seen |= there

    def share(self) -> Tensor:
        """[N] in 0..1: of how much hair there is at a Gaussian's height; 1 for what lay at an outline itself, and where
        there was no outline."""
        share = torch.where(self._count >= _LEAST, self._inside / self._count.clamp(min=1), 1.0)
        return torch.where(self._seen, 1.0, share.cummin(0).values[self._step])
