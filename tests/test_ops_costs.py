"""Costs of Gaussians: values and derivatives against plain PyTorch, precision, refusals."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from being_rt.errors import InvalidParameterError
from being_rt.ops.costs import Extent, GaussianCosts, Opacity, Placement, gaussian_costs

DOUBLE = torch.float64
WEIGHTS = {"position_weight": 0.7, "scale_weight": 1.3, "opacity_weight": 0.4}


class Layer(NamedTuple):
    """Some of each within its limits and some beyond."""

    position: Tensor
    log_scale: Tensor
    logit: Tensor
    home: Tensor
    limit: Tensor
    scale_limit: Tensor
    factor: Tensor

    def to(self, device: str, dtype: torch.dtype) -> Layer:
        return Layer(*(value.to(device, dtype) for value in self))

    def costs(self) -> GaussianCosts:
        return gaussian_costs(
            Placement(self.position, self.home, self.limit),
            Extent(self.log_scale, self.scale_limit, 3.0),
            Opacity(self.logit, self.factor),
            **WEIGHTS,
        )


def make_layer(count: int = 1000) -> Layer:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=DOUBLE, generator=generator)

    log_scale = randn(count, 3) - 5
    log_scale[::4, 1] = log_scale[::4, 0]  # two axes of one length, which may be the longest or the shortest
    log_scale[::5] = log_scale[::5, :1]
    position, home = 0.01 * randn(count, 3), 0.01 * randn(count, 3)
    home[::7] = position[::7]
    limit, scale_limit = 0.01 + 0.01 * randn(count).abs(), 0.005 + 0.005 * randn(count).abs()
    return Layer(position, log_scale, 3 * randn(count), home, limit, scale_limit, torch.tensor(0.6, dtype=DOUBLE))


def plain_costs(layer: Layer) -> GaussianCosts:
    distance = (layer.position - layer.home).square().sum(1).clamp(min=1e-16).sqrt()
    excess = torch.relu(layer.log_scale.exp() / layer.scale_limit[:, None] - 1).sum(1)
    stretch = (layer.log_scale.amax(1) - layer.log_scale.amin(1)).exp()
    opacity = torch.sigmoid(layer.logit)
    return GaussianCosts(
        WEIGHTS["position_weight"] * torch.relu(distance / layer.limit - 1).mean(),
        WEIGHTS["scale_weight"] * (excess + torch.relu(stretch / 3.0 - 1)).mean(),
        WEIGHTS["opacity_weight"] * layer.factor * (4 * opacity * (1 - opacity)).mean(),
    )


def gradients(function, layer: Layer) -> tuple[Tensor, ...]:
    """Costs, and the gradients of a sum in which each counts differently."""
    leaves = [value.clone().requires_grad_() for value in layer[:3]]
    costs = function(Layer(*leaves, *layer[3:]))
    total = costs.position + 2 * costs.scale - 3 * costs.opacity
    return *(cost.detach() for cost in costs), *torch.autograd.grad(total, leaves)


NAMES = ("position cost", "scale cost", "opacity cost", "position", "log_scale", "logit")


@pytest.mark.parametrize("count", [1, 1000])
def test_costs_are_those_of_pytorch(count: int) -> None:
    layer = make_layer(count)
    expected = gradients(plain_costs, layer)
    for name, a, b in zip(NAMES, gradients(Layer.costs, layer), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-14, msg=name)
    if count > 1:
        assert all(bool(value.any()) for value in expected)
    single = gradients(Layer.costs, layer.to("cpu", torch.float32))
    for name, a, b in zip(NAMES, single, expected, strict=True):
        assert a.dtype == torch.float32
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max(), name


def test_gradcheck() -> None:
    layer = make_layer(20)
    layer = layer._replace(log_scale=layer.log_scale + 0.1 * torch.rand(20, 3, dtype=DOUBLE))  # no ties, no kinks
    leaves = [value.requires_grad_() for value in layer[:3]]
    assert gradcheck(lambda *values: tuple(Layer(*values, *layer[3:]).costs()), leaves)


def test_what_is_left_out_costs_nothing() -> None:
    layer = make_layer()
    log_scale = layer.log_scale.clone().requires_grad_()
    costs = gaussian_costs(extent=Extent(log_scale, layer.scale_limit, 3.0), scale_weight=WEIGHTS["scale_weight"])
    assert costs.position == 0
    assert costs.opacity == 0
    torch.testing.assert_close(costs.scale.detach(), plain_costs(layer).scale, rtol=1e-12, atol=0)
    (slope,) = torch.autograd.grad(2 * costs.scale, log_scale)
    torch.testing.assert_close(slope, gradients(plain_costs, layer)[4], rtol=1e-11, atol=1e-14)
    plain = gaussian_costs(opacity=Opacity(layer.logit), opacity_weight=WEIGHTS["opacity_weight"])
    torch.testing.assert_close(plain.opacity, plain_costs(layer).opacity / layer.factor, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["position", "log_scale", "logit"])
def test_nan_is_not_hidden(name: str) -> None:
    layer = make_layer()
    getattr(layer, name)[3] = torch.nan
    of = {"position": "position", "log_scale": "scale", "logit": "opacity"}[name]
    assert getattr(layer.costs(), of).isnan()


def test_costs_refuse() -> None:
    layer = make_layer(10)
    place = Placement(layer.position, layer.home, layer.limit)
    with pytest.raises(InvalidParameterError, match="one of placement, extent and opacity"):
        gaussian_costs()
    with pytest.raises(InvalidParameterError, match=r"placement.home must be float64 \[10, 3\]"):
        gaussian_costs(place._replace(home=layer.home[1:]))
    with pytest.raises(InvalidParameterError, match=r"opacity.logit must be float64 \[10\]"):
        gaussian_costs(place, opacity=Opacity(layer.logit.float()))
    with pytest.raises(InvalidParameterError, match=r"opacity.factor must be float64 \[1\]"):
        gaussian_costs(place, opacity=Opacity(layer.logit, layer.limit))
    with pytest.raises(InvalidParameterError, match="there are no Gaussians"):
        gaussian_costs(Placement(layer.position[:0], layer.home[:0], layer.limit[:0]))
    with pytest.raises(InvalidParameterError, match="position must be contiguous"):
        gaussian_costs(place._replace(position=layer.position.T.contiguous().T))


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 1000, 100_003])
def test_cuda_is_the_cpu(count: int) -> None:
    layer = make_layer(count)
    on_device = layer.to("cuda", torch.float32)
    got, again = gradients(Layer.costs, on_device), gradients(Layer.costs, on_device)
    for name, a, b, c in zip(NAMES, got, gradients(plain_costs, layer), again, strict=True):
        assert (a.cpu().double() - b).abs().max() <= 1e-5 * b.abs().max(), name
        assert torch.equal(a, c), name
