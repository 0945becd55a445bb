"""Offset networks: values and derivatives against the reference, precision, determinism, refusals."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.offsets import (
    AnchorTable,
    blend_offsets,
    penalised_offsets,
    point_offsets,
)

DOUBLE = torch.float64


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


class Blend(NamedTuple):
    latent: Tensor
    anchor_index: Tensor
    anchor_weight: Tensor
    basis: Tensor

    def to(self, device: str, dtype: torch.dtype) -> Blend:
        return Blend(*(v.to(device, dtype if v.is_floating_point() else v.dtype) for v in self))


def blend_inputs(frames: int = 3, anchors: int = 7, count: int = 300, rank: int = 8, seed: int = 0) -> Blend:
    """The last anchor has no Gaussian, the first has half of them as their first anchor."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, max(anchors - 1, 1), (count, 4), generator=generator, dtype=torch.int32)
    index[::2, 0] = 0
    weight = torch.rand(count, 4, dtype=DOUBLE, generator=generator)
    return Blend(randn(seed + 1, frames, anchors, rank), index, weight, randn(seed + 2, count, 13, rank))


def reference_blend(latent: Tensor, index: Tensor, weight: Tensor, basis: Tensor) -> Tensor:
    return torch.stack([reference.blend_offsets(of_frame, index.long(), weight, basis) for of_frame in latent])


def gradients(function, given: Blend, *more) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, and the gradients of a random linear function of them for latent and basis."""
    latent, basis = given.latent.clone().requires_grad_(), given.basis.clone().requires_grad_()
    offsets = function(latent, given.anchor_index, given.anchor_weight, basis, *more)
    slope = randn(9, *offsets.shape).to(offsets)
    return offsets, *torch.autograd.grad((slope * offsets).sum(), (latent, basis))


def assert_same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float) -> None:
    for name, a, b in zip(("offsets", "latent", "basis"), got, expected, strict=True):
        error = (a.to(b) - b).abs().max() / b.abs().max()
        assert error <= tolerance, f"{name}: {error:g}"


# ------------------------------------------------------------------------------------------------------- blend_offsets


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("rank", [1, 6, 20, 64])
def test_blend_is_the_reference(frames: int, rank: int) -> None:
    given = blend_inputs(frames, rank=rank)
    expected = gradients(reference_blend, given)
    assert_same(gradients(blend_offsets, given), expected, 1e-13)
    assert_same(gradients(blend_offsets, given, AnchorTable.of(given.anchor_index, 7)), expected, 1e-13)


def test_blend_of_one_anchor_is_a_product() -> None:
    given = blend_inputs(anchors=1)
    given = given._replace(anchor_weight=torch.tensor([1.0, 0, 0, 0], dtype=DOUBLE).repeat(300, 1))
    expected = torch.einsum("nck,bk->bnc", given.basis, given.latent[:, 0])
    torch.testing.assert_close(blend_offsets(*given), expected, rtol=1e-12, atol=1e-12)


def test_blend_gradcheck() -> None:
    given = blend_inputs(frames=2, anchors=3, count=3, rank=4)

    def function(latent: Tensor, basis: Tensor) -> Tensor:
        return blend_offsets(latent, given.anchor_index, given.anchor_weight, basis)

    assert gradcheck(function, (given.latent.requires_grad_(), given.basis.requires_grad_()), fast_mode=True)


def test_blend_in_float32() -> None:
    given = blend_inputs(rank=20)
    offsets, *_ = got = gradients(blend_offsets, given.to("cpu", torch.float32))
    assert offsets.dtype == torch.float32
    assert_same(got, gradients(blend_offsets, given), 1e-6)


def test_blend_gives_only_the_gradients_that_are_wanted() -> None:
    given = blend_inputs()
    expected = gradients(reference_blend, given)
    for name, slope in zip(("latent", "basis"), expected[1:], strict=True):
        leaf = getattr(given, name).clone().requires_grad_()
        offsets = blend_offsets(*given._replace(**{name: leaf}))
        (offsets * randn(9, *offsets.shape)).sum().backward()
        torch.testing.assert_close(leaf.grad, slope, rtol=1e-12, atol=1e-12)


def test_blend_has_the_same_bits_in_every_run() -> None:
    given = blend_inputs(count=2000, rank=20).to("cpu", torch.float32)
    first, again = gradients(blend_offsets, given), gradients(blend_offsets, given)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_table() -> None:
    index = torch.tensor([[2, 0, 2, 0], [0, 3, 3, 3]], dtype=torch.int32)
    table = AnchorTable.of(index, 5)
    assert table.entries.tolist() == [1, 3, 4, 0, 2, 5, 6, 7]
    assert table.starts.tolist() == [0, 3, 3, 5, 8, 8]
    assert {value.dtype for value in table} == {torch.int32}


def test_meta_tensors_have_the_right_shape() -> None:
    assert blend_offsets(*blend_inputs().to("meta", torch.float32)).shape == (3, 300, 13)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("latent", lambda v: v[0], r"latent must be float64 \[any, any, any\]"),
        ("latent", lambda v: v[:0], "needs a frame"),
        ("basis", lambda v: v[:, :10], r"basis must be float64 \[any, 13, 8\]"),
        ("basis", lambda v: v.float(), "basis must be float64"),
        ("basis", lambda v: v.mT.contiguous().mT, "basis must be contiguous"),
        ("anchor_index", lambda v: v.long(), r"anchor_index must be int32 \[300, 4\]"),
        ("anchor_index", lambda v: v + 5, r"anchor_index must lie in 0\.\.6, has values from 5 to 10"),
        ("anchor_weight", lambda v: v[1:], r"anchor_weight must be float64 \[300, 4\]"),
    ],
)
def test_blend_refuses(name: str, change, message: str) -> None:
    given = blend_inputs()
    with pytest.raises(InvalidParameterError, match=message):
        blend_offsets(*given._replace(**{name: change(getattr(given, name))}))


def test_blend_refuses_ranks_and_tables() -> None:
    given = blend_inputs()
    with pytest.raises(InvalidParameterError, match="rank of 1 to 64"):
        blend_offsets(*blend_inputs(rank=65))
    with pytest.raises(InvalidParameterError, match=r"table.starts must be int32 \[8\]"):
        blend_offsets(*given, AnchorTable.of(given.anchor_index, 9))
    with pytest.raises(InvalidParameterError, match=r"0\.\.1, has values from 0 to 5"):
        AnchorTable.of(given.anchor_index, 2)


# --------------------------------------------------------------------------------------------------- penalised_offsets


def factors() -> tuple[Tensor, Tensor]:
    """Penalty and scale [13]; the scale of a channel is 0."""
    scale = randn(12, 13)
    scale[4] = 0
    return randn(11, 13), scale


def plain_offsets(given: Blend, penalty: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    offsets = reference_blend(*given) * scale
    return offsets, (penalty * offsets).square().mean()


def penalised(given: Blend, *rest: Tensor) -> tuple[Tensor, Tensor]:
    penalty, scale = (value.to(given.basis) for value in rest)
    return penalised_offsets(*given, penalty, AnchorTable.of(given.anchor_index, 7), scale)


def penalised_gradients(function, given: Blend, of_offsets: float, of_cost: float) -> tuple[Tensor, ...]:
    """Offsets and cost, and the gradients of a linear function of them; a factor of 0 leaves its part out."""
    leaves = given._replace(latent=given.latent.clone(), basis=given.basis.clone())
    wanted = leaves.latent.requires_grad_(), leaves.basis.requires_grad_()
    offsets, cost = function(leaves, *factors())
    parts = []
    if of_offsets:
        parts.append(of_offsets * (randn(9, *offsets.shape).to(offsets) * offsets).sum())
    if of_cost:
        parts.append(of_cost * cost)
    return offsets.detach(), cost.detach(), *torch.autograd.grad(sum(parts), wanted)


@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("rank", [6, 20])
@pytest.mark.parametrize(("of_offsets", "of_cost"), [(1.0, 1000.0), (1.0, 0.0), (0.0, 1.0)])
def test_offsets_are_scaled_and_cost(frames: int, rank: int, of_offsets: float, of_cost: float) -> None:
    given = blend_inputs(frames, rank=rank)
    got = penalised_gradients(penalised, given, of_offsets, of_cost)
    expected = penalised_gradients(plain_offsets, given, of_offsets, of_cost)
    for name, a, b in zip(("offsets", "cost", "latent", "basis"), got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12 * float(b.abs().max()), msg=name)
    assert torch.equal(blend_offsets(*given, scale=factors()[1]), got[0])
    single = penalised_gradients(penalised, given.to("cpu", torch.float32), of_offsets, of_cost)
    for a, b in zip(single, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-6 * float(b.abs().max()))


def test_penalised_gradcheck() -> None:
    given = blend_inputs(frames=2, anchors=3, count=3, rank=4)
    penalty, scale = factors()

    def function(latent: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        return penalised_offsets(latent, given.anchor_index, given.anchor_weight, basis, penalty, scale=scale)

    assert gradcheck(function, (given.latent.requires_grad_(), given.basis.requires_grad_()), fast_mode=True)


def test_penalised_refuses() -> None:
    given, (penalty, scale) = blend_inputs(), factors()
    with pytest.raises(InvalidParameterError, match=r"penalty must be float64 \[13\]"):
        penalised_offsets(*given, penalty[1:])
    with pytest.raises(InvalidParameterError, match=r"scale must be float64 \[13\]"):
        blend_offsets(*given, scale=scale.float())


# ------------------------------------------------------------------------------------------------------- point_offsets


def layers(sizes: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    weights = [0.5 * randn(i, b, a) for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    return weights, [randn(20 + i, size) for i, size in enumerate(sizes[1:])]


@pytest.mark.parametrize("hidden", [[], [16], [16, 16, 8]])
def test_point_offsets_are_the_reference(hidden: list[int]) -> None:
    weights, biases = layers([5 + 7, *hidden, 10])
    positional, condition = randn(30, 11, 5), randn(31, 3, 7)
    leaves = [value.requires_grad_() for value in (positional, condition, *weights, *biases)]
    got = point_offsets(positional, condition, weights, biases)
    expected = torch.stack([reference.point_offsets(positional, row, weights, biases) for row in condition])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    slopes = torch.autograd.grad(got.square().sum(), leaves)
    for a, b in zip(slopes, torch.autograd.grad(expected.square().sum(), leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-9)


def test_point_offsets_refuse_layers_that_do_not_fit() -> None:
    weights, biases = layers([12, 16, 10])
    positional, condition = randn(30, 11, 5), randn(31, 3, 7)
    with pytest.raises(InvalidParameterError, match="as many layers"):
        point_offsets(positional, condition, weights, biases[:1])
    with pytest.raises(InvalidParameterError, match=r"weights\[0\] must be float64 \[any, 11\]"):
        point_offsets(positional, condition[:, 1:], weights, biases)
    with pytest.raises(InvalidParameterError, match=r"biases\[1\] must be float64 \[10\]"):
        point_offsets(positional, condition, weights, [biases[0], biases[0]])


# ---------------------------------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("frames", "anchors", "count", "rank"),
    [
        *((1, 1, 1, 4), (1, 256, 5003, 20), (2, 9, 1003, 12), (3, 9, 1003, 20), (4, 9, 40, 64)),
        *((8, 256, 5003, 20), (8, 1, 5003, 20), (19, 7, 300, 6), (33, 7, 300, 64)),
    ],
)
def test_cuda_is_the_cpu(frames: int, anchors: int, count: int, rank: int) -> None:
    given = blend_inputs(frames, anchors, count, rank)
    on_device = given.to("cuda", torch.float32)
    table = AnchorTable.of(on_device.anchor_index, anchors)
    got = gradients(blend_offsets, on_device, table)
    assert_same(tuple(value.cpu() for value in got), gradients(blend_offsets, given), 5e-6)
    without = gradients(blend_offsets, on_device)
    assert all(torch.equal(a, b) for a, b in zip(got, without, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize(("of_offsets", "of_cost"), [(1.0, 1000.0), (0.0, 1.0)])
def test_cuda_scales_and_penalises_as_the_cpu(of_offsets: float, of_cost: float) -> None:
    for frames, count, rank in ((1, 1, 4), (1, 5003, 20), (2, 70, 20), (3, 500, 8), (8, 5003, 20), (19, 300, 6)):
        given = blend_inputs(frames, 7, count, rank)
        got = penalised_gradients(penalised, given.to("cuda", torch.float32), of_offsets, of_cost)
        again = penalised_gradients(penalised, given.to("cuda", torch.float32), of_offsets, of_cost)
        expected = penalised_gradients(plain_offsets, given, of_offsets, of_cost)
        for a, b, c in zip(got, expected, again, strict=True):
            assert (a.cpu() - b).abs().max() <= 1e-5 * b.abs().max()
            assert torch.equal(a, c)


@pytest.mark.gpu
def test_cuda_refuses_doubles_and_tensors_out_of_line() -> None:
    given = blend_inputs()
    with pytest.raises(InvalidParameterError, match="float32, not float64"):
        blend_offsets(*given.to("cuda", DOUBLE))
    single = given.to("cuda", torch.float32)
    shifted = torch.empty(single.basis.numel() + 1, device="cuda")[1:].view_as(single.basis)
    with pytest.raises(InvalidParameterError, match="multiple of 16 bytes"):
        blend_offsets(*single._replace(basis=shifted))


@pytest.mark.gpu
def test_cuda_graph_without_a_table() -> None:
    given = blend_inputs(count=2000, rank=20).to("cuda", torch.float32)
    other = blend_inputs(count=2000, rank=20, seed=5).to("cuda", torch.float32)
    latent, basis = given.latent.requires_grad_(), given.basis.requires_grad_()

    def step() -> tuple[Tensor, ...]:
        offsets = blend_offsets(latent, given.anchor_index, given.anchor_weight, basis)
        return torch.autograd.grad(offsets.square().sum(), (latent, basis))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for to, value in zip(given, other, strict=True):
            to.copy_(value)
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))
