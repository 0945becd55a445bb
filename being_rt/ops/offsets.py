"""What moves Gaussians with the expression: offsets blended from latents of anchors, a network per point.

Definition: blend_offsets and point_offsets of :mod:`being_rt.reference`, for B frames at once; the latents are those of
:mod:`being_rt.ops.anchors`. Letters in shapes: n Gaussians that have offsets, M anchors, K the rank. The 13 channels of
an offset are position 3, rotation vector 3, log scale 3, opacity logit 1, colour 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

CHANNELS, NEAREST = 13, 4  # NEAREST: anchors of a Gaussian
# On CUDA the entries of an anchor are summed in slices of about so many: short enough that all multiprocessors work
# and that anchors with more Gaussians than others hold nobody up.
_SLICE, _MOST_SLICES = 64, 1024


# ------------------------------------------------------------------------------------------------------ a network each


def point_offsets(positional: Tensor, condition: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Outputs of a perceptron for every point and frame: a point's own inputs and the condition side by side, ReLU
    between layers, nothing after the last.

    The share of a point's own inputs in the first layer is computed once for all frames, that of a condition once for
    all points. Gradients reach everything. Any float type and device that PyTorch multiplies matrices on.

    Args:
        positional: [n, P], such as FlashAvatar's encoding of where a point lies at rest, or learned features.
        condition: [B, C].
        weights: of the layers in order, [outputs, inputs] each; the first takes P + C inputs.
        biases: of the same layers, [outputs] each.

    Returns:
        [B, n, outputs of the last layer].

    Raises:
        InvalidParameterError: layers that do not fit each other or the inputs.

    Source:
        Xiang et al., "FlashAvatar: High-fidelity head avatar with efficient Gaussian embedding", CVPR 2024, section
        3.2; :func:`being_rt.reference.point_offsets`.

    Example::

        offsets = point_offsets(encoding, skinned.condition, weights, biases).tanh()
    """
    check_float("point_offsets", "positional", positional, (-1, -1))
    check("point_offsets", "condition", condition, (-1, -1), positional.dtype)
    if not weights or len(weights) != len(biases):
        raise InvalidParameterError(
            f"point_offsets: weights and biases must be of as many layers, one or more, "
            f"got {len(weights)} and {len(biases)}"
        )
    split = positional.shape[1]
    inputs = split + condition.shape[1]
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check("point_offsets", f"weights[{layer}]", weight, (-1, inputs), positional.dtype)
        inputs = len(weight)
        check("point_offsets", f"biases[{layer}]", bias, (inputs,), positional.dtype)
    of_points = linear(positional, weights[0][:, :split], biases[0])  # [n, W]
    hidden = of_points + (condition @ weights[0][:, split:].T)[:, None]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        hidden = linear(torch.relu(hidden), weight, bias)
    return hidden


# ------------------------------------------------------------------------------------------------------ blended offsets


class AnchorTable(NamedTuple):
    """Which Gaussians every anchor has: what the gradient of latents is gathered through."""

    entries: Tensor  # int32 [4 n] in the order of the anchors; 4 i + a: Gaussian i's a-th
    starts: Tensor  # int32 [M + 1] an anchor's first entry

    @classmethod
    def of(cls, anchor_index: Tensor, anchors: int) -> AnchorTable:
        """Make the table of int32 [n, 4] anchors of Gaussians, 0..anchors-1. Waits for the device, to check them.

        Raises:
            InvalidParameterError: a wrong shape or dtype, or an index outside 0..anchors-1.

        Example::

            table = AnchorTable.of(anchor_index, anchors=256)
        """
        check("AnchorTable", "anchor_index", anchor_index, (-1, NEAREST), torch.int32)
        _check_range("AnchorTable", anchor_index, anchors)
        return cls(*_sorted_entries(anchor_index, anchors))


def blend_offsets(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    table: AnchorTable | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Offsets of n Gaussians: each mixes the latents of its four anchors and multiplies its own basis with the mixture.

    ``z_i = sum_a weight_ia latent[index_ia]``, ``offset_i = scale basis_i z_i``. Gradients reach latent and basis. All
    tensors are contiguous, of one float type (float32; on the CPU float64 as well) and on one device; on CUDA they
    begin at multiples of 16 bytes, as whole tensors do. A rank that is not a multiple of 4 costs a copy of the basis.

    Args:
        latent: [B, M, K], K 1..64.
        anchor_index: int32 [n, 4], 0..M-1. The CPU checks it here; on CUDA that would have to wait for the device, so
            there :meth:`AnchorTable.of` does.
        anchor_weight: [n, 4].
        basis: [n, 13, K].
        table: of ``anchor_index``; None: it is made in every backward pass, which costs a sort of 4 n numbers.
        scale: [13] factors on the channels; they may change between replays of a CUDA graph. None: 1.

    Returns:
        [B, n, 13].

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous; an index
            outside 0..M-1 (see there); no frame, anchor or Gaussian.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Source:
        Ma et al., "3D Gaussian blendshapes for head avatar animation", 2024, equation 4, with coefficients that vary
        over the head; :func:`being_rt.reference.blend_offsets`.

    Example::

        offsets = blend_offsets(latent, anchor_index, anchor_weight, basis, AnchorTable.of(anchor_index, 256))
    """
    return _blend(latent, anchor_index, anchor_weight, basis, table, scale, None)[0]


class PenalisedOffsets(NamedTuple):
    """Offsets and what they cost."""

    offsets: Tensor  # [B, n, 13]
    cost: Tensor  # scalar


def penalised_offsets(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    penalty: Tensor,
    table: AnchorTable | None = None,
    scale: Tensor | None = None,
) -> PenalisedOffsets:
    """:func:`blend_offsets`, and the mean over frames, Gaussians and channels of ``(penalty offset)^2`` beside them.

    The cost's gradient is added where that of the offsets is read, so neither takes a pass of its own.

    Args:
        penalty: [13], the inverse of what each channel counts in. No gradient reaches it.
        latent, anchor_index, anchor_weight, basis, table, scale: see :func:`blend_offsets`, as for what is raised.

    Example::

        offsets, cost = penalised_offsets(latent, anchor_index, anchor_weight, basis, penalty, table)
        (picture_loss(offsets) + 1e-3 * cost).backward()
    """
    return PenalisedOffsets(*_blend(latent, anchor_index, anchor_weight, basis, table, scale, penalty))


def _blend(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    table: AnchorTable | None,
    scale: Tensor | None,
    penalty: Tensor | None,
) -> tuple[Tensor, Tensor]:
    _check_blend(latent, anchor_index, anchor_weight, basis, table, scale, penalty)
    if missing := -latent.shape[2] % 4:
        latent, basis = pad(latent, (0, missing)), pad(basis, (0, missing))
    results: tuple[Tensor, Tensor] = _forward(
        latent, anchor_index, anchor_weight, basis, *(table or (None, None)), scale, penalty
    )
    return results


def _check_blend(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    table: AnchorTable | None,
    scale: Tensor | None,
    penalty: Tensor | None,
) -> None:
    check_float("blend_offsets", "latent", latent, (-1, -1, -1))
    (frames, anchors, rank), count, dtype = latent.shape, len(basis), latent.dtype
    if min(frames, anchors, count) == 0 or not 1 <= rank <= _C.operations.largest_rank:
        raise InvalidParameterError(
            f"blend_offsets: needs a frame, an anchor and a Gaussian at least and a rank of 1 to "
            f"{_C.operations.largest_rank}, got {frames}, {anchors}, {count} and {rank}"
        )
    check("blend_offsets", "basis", basis, (-1, CHANNELS, rank), dtype)
    check("blend_offsets", "anchor_index", anchor_index, (count, NEAREST), torch.int32)
    check("blend_offsets", "anchor_weight", anchor_weight, (count, NEAREST), dtype)
    if table is not None:
        check("blend_offsets", "table.entries", table.entries, (NEAREST * count,), torch.int32)
        check("blend_offsets", "table.starts", table.starts, (anchors + 1,), torch.int32)
    for name, factors in (("scale", scale), ("penalty", penalty)):
        if factors is not None:
            check("blend_offsets", name, factors, (CHANNELS,), dtype)
    if anchor_index.device.type == "cpu":
        _check_range("blend_offsets", anchor_index, anchors)


def _check_range(operation: str, anchor_index: Tensor, anchors: int) -> None:
    if anchor_index.numel():
        least, greatest = (int(value) for value in anchor_index.aminmax())
        if least < 0 or greatest >= anchors:
            raise InvalidParameterError(
                f"{operation}: anchor_index must lie in 0..{anchors - 1}, has values from {least} to {greatest}"
            )


def _sorted_entries(anchor_index: Tensor, anchors: int) -> tuple[Tensor, Tensor]:
    """The tensors of an AnchorTable, without a look at their values: a CUDA graph may hold this."""
    ordered, entries = torch.sort(anchor_index.flatten(), stable=True)
    every = torch.arange(anchors + 1, dtype=torch.int32, device=anchor_index.device)
    return entries.to(torch.int32), torch.searchsorted(ordered, every, out_int32=True)


@operator("blend_offsets")
def _forward(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    entries: Tensor | None,
    starts: Tensor | None,
    scale: Tensor | None,
    penalty: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Offsets and their cost; without a penalty that is empty."""
    frames, anchors, rank = latent.shape
    offsets, cost = _outputs(latent, basis, penalty)
    call(
        "offsets_forward",
        latent,
        latent=latent,
        anchor_index=anchor_index,
        anchor_weight=anchor_weight,
        basis=basis,
        scale=scale,
        penalty=penalty,
        share=None if penalty is None else latent.new_empty(len(basis)),
        cost=None if penalty is None else cost,
        offsets=offsets,
        frames=frames,
        anchors=anchors,
        count=len(basis),
        rank=rank,
    )
    return offsets, cost


@_forward.register_fake
def _(
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    entries: Tensor | None,
    starts: Tensor | None,
    scale: Tensor | None,
    penalty: Tensor | None,
) -> tuple[Tensor, Tensor]:
    return _outputs(latent, basis, penalty)


def _outputs(latent: Tensor, basis: Tensor, penalty: Tensor | None) -> tuple[Tensor, Tensor]:
    cost = latent.new_empty(0 if penalty is None else ())
    return latent.new_empty(latent.shape[0], basis.shape[0], CHANNELS), cost


@gradient_operator("blend_offsets_backward")
def _backward(
    d_offsets: Tensor | None,
    d_cost: Tensor | None,
    offsets: Tensor | None,
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    entries: Tensor | None,
    starts: Tensor | None,
    scale: Tensor | None,
    penalty: Tensor | None,
    wants_latent: bool,
    wants_basis: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of latent and basis, empty where they are not wanted."""
    (frames, anchors, rank), count = latent.shape, len(basis)
    d_latent, d_basis = _gradients(latent, basis, wants_latent, wants_basis)
    d_mixed = partial = None
    slices = 1
    if wants_latent:
        if entries is None or starts is None:
            entries, starts = _sorted_entries(anchor_index, anchors)
        d_mixed = latent.new_empty(count, frames, rank)
        if latent.is_cuda:
            slices = min(max(NEAREST * count // (_SLICE * anchors), 1), _MOST_SLICES)
            partial = latent.new_empty(anchors, slices, frames, rank)
    call(
        "offsets_backward",
        latent,
        latent=latent,
        anchor_index=anchor_index,
        anchor_weight=anchor_weight,
        basis=basis,
        scale=scale,
        penalty=penalty,
        offsets=offsets,
        d_offsets=d_offsets,
        d_cost=d_cost,
        entries=entries,
        starts=starts,
        d_mixed=d_mixed,
        partial=partial,
        d_latent=d_latent if wants_latent else None,
        d_basis=d_basis if wants_basis else None,
        frames=frames,
        anchors=anchors,
        count=count,
        rank=rank,
        slices=slices,
    )
    return d_latent, d_basis


@_backward.register_fake
def _(
    d_offsets: Tensor | None,
    d_cost: Tensor | None,
    offsets: Tensor | None,
    latent: Tensor,
    anchor_index: Tensor,
    anchor_weight: Tensor,
    basis: Tensor,
    entries: Tensor | None,
    starts: Tensor | None,
    scale: Tensor | None,
    penalty: Tensor | None,
    wants_latent: bool,
    wants_basis: bool,
) -> tuple[Tensor, Tensor]:
    return _gradients(latent, basis, wants_latent, wants_basis)


def _gradients(latent: Tensor, basis: Tensor, wants_latent: bool, wants_basis: bool) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(latent) if wants_latent else latent.new_empty(0),
        torch.empty_like(basis) if wants_basis else basis.new_empty(0),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
    penalty = inputs[-1]
    ctx.save_for_backward(None if penalty is None else output[0], *inputs)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_offsets: Tensor | None, d_cost: Tensor | None) -> tuple[Tensor | None, ...]:
    wants_latent, _, _, wants_basis, *_ = ctx.needs_input_grad
    offsets, *inputs = ctx.saved_tensors
    if offsets is None:
        d_cost = None
    if d_offsets is None and d_cost is None:
        return (None,) * len(inputs)
    d_offsets, d_cost = (d if d is None else d.contiguous() for d in (d_offsets, d_cost))
    d_latent, d_basis = _backward(d_offsets, d_cost, offsets, *inputs, wants_latent, wants_basis)
    gradients = (d_latent if wants_latent else None, None, None, d_basis if wants_basis else None)
    return *gradients, *[None] * (len(inputs) - len(gradients))


_forward.register_autograd(_differentiate, setup_context=_setup_context)
