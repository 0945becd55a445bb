"""Compositing against reference.py, in value and derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.compositing import composite, over

SOFTNESS = 0.01
BACKGROUNDS = [(1, 1, 1, 3), (2, 1, 1, 3), (1, 9, 11, 3), (2, 9, 11, 3), (1, 9, 1, 3), (2, 1, 11, 3)]


def make_layers(size: tuple[int, int, int] = (2, 9, 11), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sums of a head and a torso, float64: some pixels of each empty, depths near each other and far apart."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def layer() -> Tensor:
        alpha = 0.02 + 0.97 * uniform(*size, 1)
        depth = 1 + 0.03 * (uniform(*size, 1) - 0.5) * 10 ** (uniform(*size, 1) - 0.5)
        sums = torch.cat([alpha * uniform(*size, 3), alpha, alpha * depth], -1)
        return sums * (uniform(*size, 1) > 0.2)

    return layer(), layer()


def make_background(shape: tuple[int, ...]) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def to_layer(sums: Tensor) -> reference.Layer:
    depth = reference._divide(sums[..., 4], sums[..., 3])
    return reference.Layer(sums[..., :3], sums[..., 3], depth, torch.zeros_like(depth))


def expected_composite(head: Tensor, torso: Tensor, softness: float, background: Tensor) -> Tensor:
    """One picture after the other through the reference."""
    pictures = []
    for h, t, b in zip(head, torso, background.expand(*head.shape[:3], 3), strict=True):
        colour, alpha, _ = reference.composite(to_layer(h), to_layer(t), softness)
        pictures.append(torch.cat([reference.over(colour, alpha, b), alpha[..., None]], -1))
    return torch.stack(pictures)


def expected_over(layer: Tensor, background: Tensor) -> Tensor:
    return torch.cat([reference.over(layer[..., :3], layer[..., 3], background), layer[..., 3:4]], -1)


def gradients(picture: Tensor, *layers: Tensor) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(picture.shape, generator=generator, dtype=torch.float64).to(picture)
    return torch.autograd.grad((picture * weight).sum(), layers, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("shape", BACKGROUNDS, ids=str)
def test_composite_is_the_reference(shape: tuple[int, ...]) -> None:
    layers = [sums.requires_grad_() for sums in make_layers()]
    background = make_background(shape)
    picture = composite(*layers, SOFTNESS, background)
    expected = expected_composite(*layers, SOFTNESS, background)
    torch.testing.assert_close(picture, expected, rtol=0, atol=1e-14)
    for ours, theirs in zip(gradients(picture, *layers), gradients(expected, *layers), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", BACKGROUNDS, ids=str)
def test_over_is_the_reference(shape: tuple[int, ...]) -> None:
    layer = make_layers()[0].requires_grad_()
    background = make_background(shape)
    picture, expected = over(layer, background), expected_over(layer, background)
    torch.testing.assert_close(picture, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(gradients(picture, layer), gradients(expected, layer), rtol=1e-12, atol=1e-12)


def test_an_empty_layer_leaves_the_other() -> None:
    head, torso = make_layers()
    background = make_background((1, 1, 1, 3))
    nothing = torch.zeros_like(head)
    torch.testing.assert_close(composite(head, nothing, SOFTNESS, background), over(head, background))
    torch.testing.assert_close(composite(nothing, torso, SOFTNESS, background), over(torso, background))
    assert torch.equal(over(nothing, background)[..., :3], background.expand(*head.shape[:3], 3))


def test_what_is_in_front_hides_what_is_behind() -> None:
    """Opaque layers a step apart in depth; at equal depth half of each."""
    red = torch.tensor([1.0, 0, 0, 1, 1.00]).expand(1, 1, 3, 5).contiguous()
    depth = torch.tensor([1.02, 1.00, 0.98])
    blue = torch.stack([torch.tensor([0, 0, 1, 1, float(d)]) for d in depth]).reshape(1, 1, 3, 5)
    picture = composite(red, blue, SOFTNESS, torch.ones(1, 1, 1, 3))
    expected = torch.tensor([[1, 0, 0, 1], [0.5, 0, 0.5, 1], [0, 0, 1, 1]])
    torch.testing.assert_close(picture[0, 0], expected)


def test_gradcheck() -> None:
    layers = [sums.requires_grad_() for sums in make_layers((1, 2, 3), seed=1)]
    covered = [sums.detach()[..., 3:4] > 0 for sums in layers]
    background = make_background((1, 1, 3, 3))

    def covered_only(head: Tensor, torso: Tensor) -> Tensor:
        """Empty pixels stay so: at alpha 0 the depth, and with it the order, jumps."""
        return composite(head * covered[0], torso * covered[1], SOFTNESS, background)

    assert torch.autograd.gradcheck(covered_only, layers)
    assert torch.autograd.gradcheck(lambda sums: over(sums, background), layers[0])


def compare(device: str) -> None:
    """float32 against float64, with more pixels than a block has."""
    layers, background = make_layers((2, 37, 45)), make_background((2, 37, 45, 3))
    exact = [sums.requires_grad_() for sums in layers]
    rounded = [sums.detach().to(device, torch.float32).requires_grad_() for sums in layers]
    plate = background.to(device, torch.float32)
    for wanted, picture, count in (
        (composite(*exact, SOFTNESS, background), composite(*rounded, SOFTNESS, plate), 2),
        (over(exact[0], background), over(rounded[0], plate), 1),
    ):
        torch.testing.assert_close(picture.cpu().double(), wanted, rtol=0, atol=3e-5)
        for ours, theirs in zip(gradients(picture, *rounded[:count]), gradients(wanted, *exact[:count]), strict=True):
            # Depths of 1 m in float32 differ by 1e-7 m, a softness of 0.01 m makes 1e-5 of that, a thin layer more.
            torch.testing.assert_close(ours.cpu().double(), theirs, rtol=2e-3, atol=2e-3)


def test_float32_is_float64_rounded() -> None:
    compare("cpu")


@pytest.mark.gpu
def test_cuda_is_the_cpu() -> None:
    compare("cuda")
    layers = [sums.to("cuda", torch.float32) for sums in make_layers((3, 64, 33))]
    background = torch.rand(1, 1, 33, 3, device="cuda")
    pictures = [composite(*layers, SOFTNESS, background) for _ in range(3)]
    assert all(torch.equal(picture, pictures[0]) for picture in pictures)


@pytest.mark.gpu
@pytest.mark.parametrize("of_torso", [True, False])
def test_cuda_where_most_of_the_gradient_is_nothing(of_torso: bool) -> None:
    """A block of pixels without any gradient is not read, and gets zeros."""
    layers = [sums.float() for sums in make_layers((2, 40, 33))]
    gradient = torch.zeros(2, 40, 33, 4)
    gradient[0, 7, 30:] = torch.tensor([0.5, -1.0, 0.0, 2.0])
    gradient[1, 39, 32, 1] = 3.0
    background = torch.rand(1, 1, 1, 3)

    def differentiate(device: str) -> list[Tensor]:
        leaves = [sums.to(device).requires_grad_() for sums in layers[: 1 + of_torso]]
        behind = background.to(device)
        picture = composite(*leaves, SOFTNESS, behind) if of_torso else over(*leaves, behind)
        return [found.cpu() for found in torch.autograd.grad(picture, leaves, gradient.to(device))]

    for found, expected in zip(differentiate("cuda"), differentiate("cpu"), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert not found[(gradient == 0).all(3)].any()
        assert found.any()


def test_gradients_that_are_views() -> None:
    """Backward gets gradients that are broadcast, or lie at any address."""
    layer = make_layers()[0].requires_grad_()
    background = make_background((1, 1, 1, 3))
    whole, share = torch.autograd.grad(over(layer, background).sum(), layer)[0], torch.ones(2 * 9 * 11 * 4 + 1)
    shifted = share[1:].double().reshape(2, 9, 11, 4)
    assert torch.equal(torch.autograd.grad(over(layer, background), layer, shifted)[0], whole)


def test_registration() -> None:
    layers = [sums.requires_grad_() for sums in make_layers()]
    background = make_background((1, 1, 1, 3))
    torch.library.opcheck(torch.ops.being_rt.composite.default, (*layers, SOFTNESS, background))
    torch.library.opcheck(torch.ops.being_rt.over.default, (layers[0], background))


def test_bad_input() -> None:
    head, torso = make_layers()
    background = make_background((1, 1, 1, 3))
    with pytest.raises(InvalidParameterError, match=r"head must be float64 \[any, any, any, 5\], got float64 \[9, 11"):
        composite(head[0], torso[0], SOFTNESS, background)
    with pytest.raises(InvalidParameterError, match="torso must be float64"):
        composite(head, torso.float(), SOFTNESS, background)
    with pytest.raises(InvalidParameterError, match="torso must be float64"):
        composite(head, torso[:1], SOFTNESS, background)
    with pytest.raises(InvalidParameterError, match="background must be float64"):
        composite(head, torso, SOFTNESS, background.float())
    with pytest.raises(InvalidParameterError, match=r"background must be \[2 or 1, 9 or 1, 11 or 1, 3\], got"):
        over(head, make_background((1, 9, 9, 3)))
    with pytest.raises(InvalidParameterError, match="layer must be float32"):
        over(head.half(), background)
    with pytest.raises(InvalidParameterError, match="head must be contiguous"):
        composite(head.transpose(1, 2), torso.transpose(1, 2), SOFTNESS, background)
    for softness in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidParameterError, match="softness must be positive"):
            composite(head, torso, softness, background)
