"""Offset networks before training: they move nothing yet, and learn from the first step on."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import CHANNELS
from being_rt.avatar.validation import THETA_COUNT
from being_rt.flame.params import FlameParams
from being_rt.flame.rotations import matrices
from being_rt.reference import conditioning
from being_rt.train.anchors import anchor_density, blend_weights, choose_anchors, features
from being_rt.train.config import ModelConfig, RegularisationConfig
from being_rt.train.surface import Seeds, Surface

# What offsets count in: 1 cm, 1 rad, a factor of e, one logit, all of a colour.
_OFFSET_UNITS = (100.0,) * 3 + (1.0,) * 3 + (1.0,) * 3 + (1.0,) + (1.0,) * 3
FREQUENCIES = 8  # of the encoding of positions
NOISES = 4096  # of a condition: enough that no frame meets the same one often
POINT_OUTPUTS = 9  # position, rotation vector, log scale
_SMALL = 0.002  # of the usual size of weights: what a network per Gaussian says at first


def anchor_network(
    config: ModelConfig, surface: Surface, seeds: Seeds, generator: torch.Generator
) -> dict[str, Tensor]:
    """Tensors of the anchor-latent network, as :class:`being_rt.avatar.avatar.AnchorLatentNetwork` names them.

    Bases are 0, so no offset moves; latents are not, so bases have gradients.
    """
    (first, second), code = config.trunk_sizes, config.code_size
    if config.anchors == 1:
        index = torch.zeros(len(seeds.face), 4, dtype=torch.int32)
        weight = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).repeat(len(seeds.face), 1)
    else:
        points = features(surface, seeds)
        anchors = choose_anchors(points, anchor_density(surface, seeds), config.anchors, generator)
        index, weight = blend_weights(points, points[anchors])
    hidden = config.anchor_size or second
    tensors = {
        "trunk_weight_0": _weights(first, THETA_COUNT, generator),
        "trunk_bias_0": torch.zeros(first),
        "trunk_weight_1": _weights(second, first, generator),
        "trunk_bias_1": torch.zeros(second),
        "anchor_code": torch.randn(config.anchors, code, generator=generator, dtype=torch.float64),
        "head_weight_0": _weights(hidden, second + code, generator),
        "head_bias_0": torch.zeros(hidden),
        "head_weight_1": _weights(config.rank, hidden, generator) / 2**0.5,  # no ReLU follows
        "head_bias_1": torch.randn(config.rank, generator=generator, dtype=torch.float64),
        "anchor_index": index,
        "anchor_weight": weight,
        "basis": torch.zeros(len(seeds.face), CHANNELS, config.rank),
    }
    if not config.anchor_size:  # what the trunk says is not negative, so a ReLU after the identity changes nothing
        tensors["head_weight_0"] = torch.eye(second, second + code)
    return {f"network.{name}": tensor for name, tensor in tensors.items()}


def condition_spread(params: FlameParams, timestep: NDArray[np.int32]) -> Tensor:
    """Standard deviations [138] of what the network is told, over timesteps of a motion; all 0 for a single one."""
    joints = np.stack([params.rotation, params.neck, params.jaw, params.eyes[:, :3], params.eyes[:, 3:]], axis=1)
    rotations = matrices(joints[timestep].astype(np.float64))
    told = [
        conditioning(*(torch.tensor(part, dtype=torch.float64) for part in frame))
        for frame in zip(params.expression[timestep], rotations, params.eyelids[timestep], strict=True)
    ]
    return torch.stack(told).std(0, correction=0)


def condition_noise(spread: Tensor, size: float) -> Tensor:
    """Noise [NOISES, 138] of ``size`` times the spread, the same for all models: a table to draw rows from."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(NOISES, len(spread), generator=generator, dtype=torch.float64)
    return size * spread * drawn.to(spread.device, spread.dtype)


def point_network(config: ModelConfig, surface: Surface, seeds: Seeds, generator: torch.Generator) -> dict[str, Tensor]:
    """Tensors of a network per Gaussian: its layers, and the encoding [N, 51] of where each Gaussian lies at rest."""
    encoding = encode(surface.places(seeds.face, seeds.barycentric, seeds.position))
    sizes = [encoding.shape[1] + THETA_COUNT, *config.point_sizes, POINT_OUTPUTS]
    tensors = {"network.encoding": encoding}
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = layer == len(sizes) - 2
        tensors[f"network.point_weight_{layer}"] = _weights(outputs, inputs, generator) * (_SMALL if last else 1.0)
        tensors[f"network.point_bias_{layer}"] = torch.zeros(outputs)
    return tensors


def encode(place: Tensor) -> Tensor:
    """Positional encoding [N, 51] of places [N, 3]: ``x, sin(2^k x), cos(2^k x)``, k 0..7 (Mildenhall et al., "NeRF",
    2020, equation 4, with the place itself)."""
    octaves = 2.0 ** torch.arange(FREQUENCIES, dtype=place.dtype)
    angles = (place[:, None, :] * octaves[:, None]).flatten(1)
    return torch.cat([place, angles.sin(), angles.cos()], dim=1)


def channel_scale(config: ModelConfig) -> list[float]:
    """Factors [13] on what bases say: 0 for channels that are not moved; the others give each channel its rate.

    Adam takes steps of one size whatever the gradient's, so a factor on a parameter is a factor on its rate.
    """
    rates = config.learning_rates
    factors = (
        *(("position", rates.basis_position, 3), ("rotation", rates.basis_rotation, 3), ("scale", 1.0, 3)),
        *(("opacity", 1.0, 1), ("colour", 1.0, 3)),
    )
    return [factor if name in config.channels else 0.0 for name, factor, count in factors for _ in range(count)]


def _weights(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """He et al., "Delving deep into rectifiers", 2015, equation 10."""
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) * (2 / columns) ** 0.5


def offset_penalty(weights: RegularisationConfig) -> list[float] | None:
    """What offsets are multiplied by before they are squared, by channel, the weight included; None: they cost nothing.

    See :func:`being_rt.ops.offsets.penalised_offsets`.
    """
    return [unit * weights.offset**0.5 for unit in _OFFSET_UNITS] if weights.offset else None
