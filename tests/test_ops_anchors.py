"""Latents of anchors: values and derivatives against the reference, sizes, precision, determinism, refusals."""

from __future__ import annotations

import pytest
import torch
from scenes import make_avatar
from torch import Tensor
from torch.autograd import gradcheck

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.anchors import AnchorNetwork, anchor_latents
from being_rt.ops.offsets import blend_offsets

DOUBLE = torch.float64
USUAL = (138, 128, 64, 16, 64, 20)  # inputs, three layers' sizes with the code's length before the last, rank


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def make_network(anchors: int, sizes: tuple[int, ...] = USUAL) -> AnchorNetwork:
    inputs, hidden0, hidden1, code, hidden2, rank = sizes
    shapes = (
        *((hidden0, inputs), (hidden0,), (hidden1, hidden0), (hidden1,), (anchors, code)),
        *((hidden2, hidden1 + code), (hidden2,), (rank, hidden2), (rank,)),
    )
    return AnchorNetwork(*(randn(k, *shape) / shape[-1] ** 0.5 for k, shape in enumerate(shapes)))


def plain(network: AnchorNetwork, condition: Tensor) -> Tensor:
    return torch.stack([reference.anchor_latents(network._asdict(), row) for row in condition])


def gradients(function, network: AnchorNetwork, condition: Tensor) -> list[Tensor]:
    """Latents, and the gradients of a random linear function of them for everything."""
    leaves = [value.clone().requires_grad_() for value in (*network, condition)]
    latent = function(AnchorNetwork(*leaves[:-1]), leaves[-1])
    slope = randn(20, *latent.shape).to(latent)
    return [latent.detach(), *torch.autograd.grad((slope * latent).sum(), leaves)]


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(("latent", *AnchorNetwork._fields, "condition"), got, expected, strict=True):
        assert (a.cpu().double() - b).abs().max() <= tolerance * b.abs().max(), name


@pytest.mark.parametrize(
    ("frames", "anchors", "sizes"),
    [
        (1, 1, (3, 2, 4, 1, 5, 1)),
        (3, 9, USUAL),
        (8, 64, (30, 65, 131, 3, 33, 7)),
        (2, 5, (6, 5, 4, 3, 700, 2)),  # PyTorch's
        (2, 5, (6, 5, 4, 3, 200, 64)),  # PyTorch's
    ],
)
def test_latents_are_the_reference(frames: int, anchors: int, sizes: tuple[int, ...]) -> None:
    network, condition = make_network(anchors, sizes), randn(10, frames, sizes[0])
    expected = gradients(plain, network, condition)
    assert_close(gradients(anchor_latents, network, condition), expected, 1e-12)
    single = AnchorNetwork(*(value.float() for value in network))
    assert_close(gradients(anchor_latents, single, condition.float()), expected, 5e-6)


def test_gradcheck() -> None:
    network, condition = make_network(3, (4, 5, 3, 2, 6, 3)), randn(10, 2, 4)
    leaves = [value.requires_grad_() for value in (*network, condition)]
    assert gradcheck(lambda *values: anchor_latents(AnchorNetwork(*values[:-1]), values[-1]), leaves, fast_mode=True)


@pytest.mark.parametrize("name", [*AnchorNetwork._fields, "condition"])
def test_one_gradient_alone(name: str) -> None:
    network, condition = make_network(5, (7, 6, 5, 4, 9, 3)), randn(10, 3, 7)
    expected = dict(zip((*AnchorNetwork._fields, "condition"), gradients(plain, network, condition)[1:], strict=True))
    leaves = network._asdict() | {"condition": condition}
    leaf = leaves[name] = leaves[name].clone().requires_grad_()
    row = leaves.pop("condition")
    latent = anchor_latents(AnchorNetwork(**leaves), row)
    (slope,) = torch.autograd.grad((randn(20, *latent.shape) * latent).sum(), leaf)
    torch.testing.assert_close(slope, expected[name], rtol=1e-11, atol=1e-12)


def test_a_network_of_an_avatar() -> None:
    record = make_avatar(head_count=200, torso_count=0, rank=8).network
    arrays = reference.tensors(record)
    theta = randn(1, 3, 138)
    latent = anchor_latents(AnchorNetwork.of(record, dtype=DOUBLE), theta)
    offsets = blend_offsets(latent, arrays["anchor_index"].int(), arrays["anchor_weight"], arrays["basis"])
    expected = torch.stack([reference.network_offsets(arrays, row) for row in theta])
    torch.testing.assert_close(offsets, expected, rtol=1e-12, atol=1e-14)


def test_latents_have_the_same_bits_in_every_run() -> None:
    network, condition = AnchorNetwork(*(value.float() for value in make_network(100))), randn(10, 5, 138).float()
    first, again = (gradients(anchor_latents, network, condition) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_latents_refuse() -> None:
    network, condition = make_network(5, (7, 6, 5, 4, 9, 3)), randn(10, 3, 7)
    with pytest.raises(InvalidParameterError, match=r"condition must be float64 \[any, 7\]"):
        anchor_latents(network, condition[:, 1:])
    with pytest.raises(InvalidParameterError, match=r"head_weight_0 must be float64 \[9, 9\]"):
        anchor_latents(network._replace(head_weight_0=network.head_weight_0[:, 1:]), condition)
    with pytest.raises(InvalidParameterError, match=r"head_bias_1 must be float64 \[3\]"):
        anchor_latents(network._replace(head_bias_1=network.head_bias_1.float()), condition)
    with pytest.raises(InvalidParameterError, match="needs a frame, an anchor"):
        anchor_latents(network, condition[:0])
    with pytest.raises(InvalidParameterError, match="condition must be contiguous"):
        anchor_latents(network, condition.T.contiguous().T)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("frames", "anchors", "sizes"),
    [(8, 256, USUAL), (10, 1, (138, 128, 128, 1, 128, 20)), (3, 9, (30, 65, 131, 3, 33, 64)), (33, 5, USUAL)],
)
def test_cuda_is_the_reference(frames: int, anchors: int, sizes: tuple[int, ...]) -> None:
    network, condition = make_network(anchors, sizes), randn(10, frames, sizes[0])
    on_device = AnchorNetwork(*(value.to("cuda", torch.float32) for value in network))
    got, again = (gradients(anchor_latents, on_device, condition.to("cuda", torch.float32)) for _ in range(2))
    assert_close(got, gradients(plain, network, condition), 1e-5)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
