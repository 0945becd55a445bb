"""Densification under a fixed budget: Gaussians that show nothing move to where the error is.

Kheradmand et al., "3D Gaussian splatting as Markov chain Monte Carlo", 2024: a dead Gaussian becomes a copy
of a live one, and opacity and scale of all copies are set so that the picture hardly changes. Where live ones are taken
from is decided by the gradient of their place on the screen, as 3DGS decides where to densify.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from being_rt.ops.statistics import add_statistics
from being_rt.reference import quaternion_matrix
from being_rt.train.frames import Frames
from being_rt.train.model import AvatarModel, Layers

LEAST_OPACITY = 0.005  # 1.3 / 255: it hardly shows
RESERVE = 4  # of Gaussians that no frame shows, one in so many stays: other poses may show it
LARGEST_GROUP = 20  # copies of one Gaussian, itself included, that equation 9 is evaluated for
JITTER = 0.5  # standard deviations by which copies are moved apart, or nothing would ever part them


@dataclass(frozen=True)
class LayerStatistics:
    """What training saw of the N Gaussians of a layer since the last relocation."""

    gradient: Tensor  # [N] sum over frames of |d loss / d place on the screen|, in half pictures
    count: Tensor  # [N] frames in which there was such a gradient
    opacity: Tensor  # [N] the largest on the screen

    @classmethod
    def zeros(cls, count: int, like: Tensor) -> LayerStatistics:
        return cls(*(torch.zeros(count, dtype=like.dtype, device=like.device) for _ in range(3)))

    def accumulate(self, splats: Tensor, size: tuple[int, int]) -> None:
        """Add one batch, whose splats [B, N, 12] have a gradient. In place; captured in a CUDA graph as it is."""
        gradient = splats.grad
        if gradient is None:
            return
        # The loss is a mean over the batch; a frame's own gradient is B times as large.
        width, height = (0.5 * len(splats) * length for length in size)
        add_statistics(splats, gradient, (width, height), self.gradient, self.count, self.opacity)


@dataclass(frozen=True)
class Statistics:
    """Of both layers. Data-parallel ranks add ``gradient`` and ``count`` and take the maximum of ``opacity``."""

    head: LayerStatistics
    torso: LayerStatistics

    @classmethod
    def of(cls, model: AvatarModel) -> Statistics:
        """Empty ones, on the model's device."""
        return cls(*(LayerStatistics.zeros(model.count(n), model.tensors["head.position"]) for n in ("head", "torso")))

    def accumulate(self, layers: Layers, frames: Frames) -> None:
        """Add a batch, after ``backward``. In place; captured in a CUDA graph as it is."""
        self.head.accumulate(layers.head_splats, frames.size)
        if layers.torso_splats is not None:
            self.torso.accumulate(layers.torso_splats, frames.size)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, ``head.gradient`` to ``torso.opacity``."""
        return {
            f"{layer}.{name}": tensor
            for layer in ("head", "torso")
            for name, tensor in vars(getattr(self, layer)).items()
        }

    def clear(self) -> None:
        for tensor in self.tensors().values():
            tensor.zero_()


@torch.no_grad()
def relocate(
    model: AvatarModel, layer: str, statistics: LayerStatistics, generator: torch.Generator
) -> dict[str, Tensor]:
    """Move the dead Gaussians of ``layer`` ("head" or "torso") onto live ones, in place.

    Dead is what is nowhere more opaque than 0.005, and, but for one in four, what had no gradient in any frame.
    Sources are drawn in proportion to their gradients.

    Returns:
        For every parameter of the layer, the rows that have changed, int64: moments of an optimiser start anew there.
    """
    unseen = statistics.gradient <= 0
    reserve = torch.arange(len(unseen), device=unseen.device) % RESERVE == 0
    own = torch.sigmoid(model.tensors[f"{layer}.opacity_logit"])  # what hides or turns away may be opaque itself
    transparent = torch.maximum(statistics.opacity, own) < LEAST_OPACITY
    moves = torch.nonzero(transparent | (unseen & ~reserve))[:, 0]
    weight = (
        torch.where(transparent | unseen, torch.zeros_like(statistics.gradient), statistics.gradient).double().cpu()
    )
    if not len(moves) or not weight.sum() > 0:
        return {}
    source = torch.multinomial(weight, len(moves), replacement=True, generator=generator).to(moves.device)
    copies = torch.bincount(source, minlength=len(unseen)) + 1
    rows = model.gaussian_rows(layer)
    opacity, log_scale = rows[f"{layer}.opacity_logit"], rows[f"{layer}.log_scale"]
    shared, shrink = shared_opacity(torch.sigmoid(opacity[source]), copies[source])
    logit, smaller = torch.logit(shared).to(opacity.dtype), log_scale[source] + shrink.log()[:, None].to(opacity.dtype)
    copy_rows(rows, source, moves)
    for index in (moves, source):  # a source that was drawn twice gets the same values twice
        opacity[index], log_scale[index] = logit, smaller
    scatter_positions(model, layer, moves, JITTER, generator)
    return dict.fromkeys(model.parameters.keys() & rows.keys(), torch.cat([moves, torch.unique(source)]))


def copy_rows(rows: dict[str, Tensor], source: Tensor, target: Tensor) -> None:
    """Make Gaussians ``target [K]`` exact copies of ``source [K]``, in place."""
    for tensor in rows.values():
        tensor[target] = tensor[source]


def scatter_positions(
    model: AvatarModel, layer: str, index: Tensor, deviations: float, generator: torch.Generator
) -> None:
    """Move Gaussians ``index [K]`` to random places within themselves, normally distributed; in place."""
    rows = model.gaussian_rows(layer)
    drawn = torch.randn(len(index), 3, generator=generator, dtype=torch.float64)
    scale, unit = model.scale(layer)[index], model.position_unit(layer)
    offset = deviations * scale * drawn.to(scale.device, scale.dtype)
    offset = (quaternion_matrix(rows[f"{layer}.rotation"][index]) @ offset[:, :, None])[:, :, 0]
    if unit is not None:  # what it is 0 in, positions do not have
        unit = unit[index].expand_as(offset)
        offset = torch.where(unit > 0, offset / unit.clamp(min=1e-9), 0.0)
    rows[f"{layer}.position"][index] += offset


def shared_opacity(opacity: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """What each of n copies in one place needs so that together they look like one Gaussian.

    ``o' = 1 - (1 - o)^(1/n)`` and ``Sigma' = o^2 (sum_{i=1}^n sum_{k=0}^{i-1} C(i-1, k) (-1)^k o'^(k+1) /
    sqrt(k+1))^-2 Sigma``: Kheradmand et al. 2024, equation 9.

    Args:
        opacity: [N] 0..1 of the one.
        copies: [N] int64, n, the original included; counted up to 20.

    Returns:
        The opacity of each [N], and the factor [N] on its scale (the root of that on Sigma), in float64.
    """
    old = opacity.double().clamp(LEAST_OPACITY, 1 - 1e-6)
    count = copies.clamp(1, LARGEST_GROUP)
    new = 1 - (1 - old) ** (1 / count)
    total = torch.zeros_like(new)
    for i in range(1, int(count.max()) + 1):
        inner = sum(math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1) for k in range(i))
        total = total + torch.where(count >= i, inner, torch.zeros_like(total))
    return new, old / total
