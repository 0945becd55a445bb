"""What is done to Gaussians after a step: against plain PyTorch, NaN, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call
from being_rt.ops.tidy import tidy

LIMITS = {"largest_logit": 2.0, "log_scale_limits": (-6.0, -4.5), "reach": 2.5}


def make(count: int = 1000) -> dict[str, Tensor]:
    """Half of the numbers are beyond their limits; a rotation is 0."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"rotation": (count, 4), "colour": (count, 3), "opacity_logit": (count,), "log_scale": (count, 3)}
    shapes |= {"position": (count, 3), "home": (count, 3)}
    tensors = {name: 3 * torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()}
    tensors["rotation"][0] = 0
    tensors["log_scale"] -= 5
    return tensors


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    rotation, position, home = tensors["rotation"], tensors["position"], tensors["home"]
    held = position[:, :2].clamp(home[:, :2] - 2.5, home[:, :2] + 2.5)
    return {
        "rotation": rotation / rotation.norm(dim=1, keepdim=True).clamp(min=1e-12),
        "colour": tensors["colour"].clamp(0, 1),
        "opacity_logit": tensors["opacity_logit"].clamp(-2, 2),
        "log_scale": tensors["log_scale"].clamp(-6, -4.5),
        "position": torch.cat([held, position[:, 2:]], dim=1),
        "home": home,
    }


def check_against_torch(count: int, device: str, dtype: torch.dtype, tolerance: float) -> None:
    tensors = {name: value.to(device, dtype) for name, value in make(count).items()}
    addresses = [value.data_ptr() for value in tensors.values()]
    tidy(**tensors, **LIMITS)
    for name, expected in plain(make(count)).items():
        torch.testing.assert_close(tensors[name].cpu().double(), expected, rtol=0, atol=tolerance, msg=name)
    assert [value.data_ptr() for value in tensors.values()] == addresses


@pytest.mark.parametrize("count", [1, 1000])
def test_tidy_is_what_pytorch_does(count: int) -> None:
    check_against_torch(count, "cpu", torch.float64, 1e-15)
    check_against_torch(count, "cpu", torch.float32, 1e-6)


@pytest.mark.parametrize("left_out", ["rotation", "colour", "opacity_logit", "log_scale", "position"])
def test_what_is_left_out_stays(left_out: str) -> None:
    tensors, expected = make(), plain(make())
    kept = tensors.pop(left_out)
    if left_out == "position":
        tensors.pop("home")
    tidy(**tensors, **LIMITS)
    assert torch.equal(kept, make()[left_out])
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-15)


def test_nan_stays_nan() -> None:
    tensors = make(10)
    for tensor in tensors.values():
        tensor[1] = torch.nan
    tidy(**tensors, **LIMITS)
    for name, tensor in tensors.items():
        assert tensor[1].isnan().all(), name
        assert not tensor[2:].isnan().any(), name


def test_parameters_are_marked_as_changed() -> None:
    tensors = make()
    colour, position = tensors["colour"].requires_grad_(), tensors["position"].requires_grad_()
    products = (colour * colour).sum(), (position * position).sum()
    tidy(colour=colour, position=position, home=tensors["home"])
    for product in products:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()
    assert tensors["home"]._version == make()["home"]._version


def test_tidy_refuses() -> None:
    tensors = make(10)
    with pytest.raises(InvalidParameterError, match="there are no tensors"):
        tidy()
    with pytest.raises(InvalidParameterError, match=r"colour must be float64 \[10, 3\]"):
        tidy(**tensors | {"colour": tensors["colour"][1:]})
    with pytest.raises(InvalidParameterError, match=r"log_scale must be float64 \[10, 3\]"):
        tidy(**tensors | {"log_scale": tensors["log_scale"].float()})
    with pytest.raises(InvalidParameterError, match="position and home go together"):
        tidy(position=tensors["position"])
    with pytest.raises(InvalidParameterError, match=r"home must be float64 \[10, 3\]"):
        tidy(position=tensors["position"], home=tensors["home"][:, :2])
    with pytest.raises(InvalidParameterError, match="rotation must be contiguous"):
        tidy(tensors["rotation"].T.contiguous().T)


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 100_003])
def test_cuda_is_what_pytorch_does(count: int) -> None:
    check_against_torch(count, "cuda", torch.float32, 1e-6)


def test_a_build_of_another_version_is_noticed() -> None:
    tensors = {name: value.float() for name, value in make(4).items()}
    limits = {"largest_logit": 2.0, "least_log_scale": -6.0, "largest_log_scale": -4.5, "reach": 2.5}
    with pytest.raises(InvalidParameterError, match="does not know the argument sharpness; build it again"):
        call("tidy", tensors["rotation"], **tensors, **limits, count=4, sharpness=1.0)
