"""Latents of anchors: what the expression says, once for every anchor of the head.

Definition: anchor_latents of :mod:`being_rt.reference`, for B frames at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

if TYPE_CHECKING:
    from being_rt.avatar.avatar import AnchorLatentNetwork


class AnchorNetwork(NamedTuple):
    """What turns a condition into latents, as :class:`being_rt.avatar.avatar.AnchorLatentNetwork` names it."""

    trunk_weight_0: Tensor  # [H0, 138]
    trunk_bias_0: Tensor  # [H0]
    trunk_weight_1: Tensor  # [H1, H0]
    trunk_bias_1: Tensor  # [H1]
    anchor_code: Tensor  # [M, C]
    head_weight_0: Tensor  # [H2, H1 + C]
    head_bias_0: Tensor  # [H2]
    head_weight_1: Tensor  # [K, H2]
    head_bias_1: Tensor  # [K]

    @classmethod
    def of(
        cls, network: AnchorLatentNetwork, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> AnchorNetwork:
        """Copies of an avatar's arrays.

        Example::

            network = AnchorNetwork.of(avatar.network, device="cuda")
        """
        return cls(*(torch.tensor(getattr(network, name)).to(device, dtype) for name in cls._fields))


def anchor_latents(network: AnchorNetwork, condition: Tensor) -> Tensor:
    """Latents of all anchors: ``h = relu(W1 relu(W0 theta + b0) + b1)``, ``Z_k = V1 relu(V0 [h, code_k] + c0) + c1``.

    Gradients reach everything. All tensors are contiguous, of one float type (float32; on the CPU float64 as well) and
    on one device. Networks with more than 512 units to a layer, or so many and so high a rank that a multiprocessor's
    memory does not hold the last layer, are left to PyTorch.

    Args:
        network: of the avatar.
        condition: [B, 138], from :func:`being_rt.ops.skinning.skin`.

    Returns:
        [B, M, K].

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous; no frames.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Source:
        Anchors and codes are this project's (docs/architecture.md); :func:`being_rt.reference.anchor_latents`.

    Example::

        latent = anchor_latents(AnchorNetwork.of(avatar.network, "cuda"), skinned.condition)
    """
    _check(network, condition)
    if not _fits(network):
        return _with_pytorch(network, condition)
    latent: Tensor = _forward(condition, *network)[0]
    return latent


def _check(network: AnchorNetwork, condition: Tensor) -> None:
    (hidden0, inputs), hidden1 = network.trunk_weight_0.shape, len(network.trunk_weight_1)
    (anchors, code), (rank, hidden2) = network.anchor_code.shape, network.head_weight_1.shape
    check_float("anchor_latents", "condition", condition, (-1, inputs))
    shapes = (
        (hidden0, inputs),
        (hidden0,),
        (hidden1, hidden0),
        (hidden1,),
        (anchors, code),
        (hidden2, hidden1 + code),
        (hidden2,),
        (rank, hidden2),
        (rank,),
    )
    for name, tensor, shape in zip(network._fields, network, shapes, strict=True):
        check("anchor_latents", name, tensor, shape, condition.dtype)
    if 0 in (len(condition), inputs, hidden0, hidden1, anchors, hidden2, rank):
        raise InvalidParameterError(
            f"anchor_latents: needs a frame, an anchor and a unit in every layer at least, got {len(condition)} "
            f"frames, {anchors} anchors, {inputs} inputs, layers of {hidden0}, {hidden1} and {hidden2}, rank {rank}"
        )


def _fits(network: AnchorNetwork) -> bool:
    sizes = _sizes(network)
    largest = max(sizes[name] for name in ("inputs", "hidden0", "hidden1", "hidden2"))
    return (
        largest <= _C.operations.anchor_layer
        and sizes["code"] > 0
        and sizes["rank"] <= _C.operations.largest_rank
        and _C.operations.anchors_fit(sizes["hidden2"], sizes["rank"])
    )


def _with_pytorch(network: AnchorNetwork, condition: Tensor) -> Tensor:
    hidden = torch.relu(linear(condition, network.trunk_weight_0, network.trunk_bias_0))
    hidden = torch.relu(linear(hidden, network.trunk_weight_1, network.trunk_bias_1))
    # What the first layer makes of the frame and what it makes of a code are sums apart: B + M products, not B M.
    split = hidden.shape[1]
    of_frame = hidden @ network.head_weight_0[:, :split].T  # [B, H2]
    of_anchor = linear(network.anchor_code, network.head_weight_0[:, split:], network.head_bias_0)  # [M, H2]
    return linear(torch.relu(of_frame[:, None] + of_anchor), network.head_weight_1, network.head_bias_1)


# ----------------------------------------------------------------------------------------------------------- operators

_NAMES = ("condition", *AnchorNetwork._fields)
_KEPT = ("first", "second", "of_frame", "of_anchor")  # by the forward pass for the backward pass
_INPUTS = ", ".join(f"Tensor {name}" for name in _NAMES)


def _sizes(network: AnchorNetwork) -> dict[str, int]:
    hidden0, inputs = network.trunk_weight_0.shape
    anchors, code = network.anchor_code.shape
    rank, hidden2 = network.head_weight_1.shape
    hidden1 = len(network.trunk_weight_1)
    return {
        "anchors": anchors,
        "inputs": inputs,
        "hidden0": hidden0,
        "hidden1": hidden1,
        "code": code,
        "hidden2": hidden2,
        "rank": rank,
    }


@operator("anchor_latents", schema=f"({_INPUTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
def _forward(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Latents, and what is kept."""
    condition, network = inputs[0], AnchorNetwork(*inputs[1:])
    latent, *kept = outputs = _outputs(condition, network)
    call(
        "anchors",
        condition,
        **dict(zip(_NAMES, inputs, strict=True)),
        **dict(zip(_KEPT, kept, strict=True)),
        latent=latent,
        frames=len(condition),
        **_sizes(network),
    )
    return outputs


@_forward.register_fake
def _(*inputs: Tensor) -> tuple[Tensor, ...]:
    return _outputs(inputs[0], AnchorNetwork(*inputs[1:]))


def _outputs(condition: Tensor, network: AnchorNetwork) -> tuple[Tensor, ...]:
    sizes, frames = _sizes(network), condition.shape[0]
    rows = {"first": frames, "second": frames, "of_frame": frames, "of_anchor": sizes["anchors"]}
    columns = {"first": "hidden0", "second": "hidden1", "of_frame": "hidden2", "of_anchor": "hidden2"}
    return (
        condition.new_empty(frames, sizes["anchors"], sizes["rank"]),
        *(condition.new_empty(rows[name], sizes[columns[name]]) for name in _KEPT),
    )


@gradient_operator(
    "anchor_latents_backward", schema=f"(Tensor d_latent, {_INPUTS}, Tensor[] kept, bool[] wanted) -> Tensor[]"
)
def _backward(d_latent: Tensor, *rest: Any) -> list[Tensor]:
    """Gradients of the inputs, empty where they are not wanted."""
    *inputs, kept, wanted = rest
    condition, network = inputs[0], AnchorNetwork(*inputs[1:])
    first, second, of_frame, of_anchor = kept
    gradients, sizes, frames = _gradients(inputs, wanted), _sizes(network), len(condition)
    tiles = -(-sizes["anchors"] // _C.operations.anchor_tile)
    share = sizes["rank"] * (sizes["hidden2"] + 1) + frames * sizes["hidden2"]
    slopes = {f"d_{name}": g if want else None for name, g, want in zip(_NAMES, gradients, wanted, strict=True)}
    call(
        "anchors_backward",
        condition,
        **dict(zip(_NAMES, inputs, strict=True)),
        **dict(zip(_KEPT, kept, strict=True)),
        latent=None,
        d_latent=d_latent,
        share=condition.new_empty(tiles, share),
        d_of_anchor=torch.empty_like(of_anchor),
        d_of_frame=torch.empty_like(of_frame),
        d_second=torch.empty_like(second),
        d_first=torch.empty_like(first),
        **slopes,
        frames=frames,
        **sizes,
    )
    return gradients


@_backward.register_fake
def _(d_latent: Tensor, *rest: Any) -> list[Tensor]:
    *inputs, _, wanted = rest
    return _gradients(inputs, wanted)


def _gradients(inputs: list[Tensor], wanted: list[bool]) -> list[Tensor]:
    return [torch.empty_like(x) if want else x.new_empty(0) for x, want in zip(inputs, wanted, strict=True)]


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, d_latent: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if d_latent is None:
        return (None,) * len(_NAMES)
    inputs, kept = ctx.saved_tensors[: len(_NAMES)], ctx.saved_tensors[len(_NAMES) :]
    wanted = list(ctx.needs_input_grad)
    gradients = _backward(d_latent.contiguous(), *inputs, list(kept), wanted)
    return tuple(gradient if want else None for gradient, want in zip(gradients, wanted, strict=True))


_forward.register_autograd(_differentiate, setup_context=_setup_context)
