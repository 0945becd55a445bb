"""What carries a torso: values and derivatives against the twin, precision, the range's ends, refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from being_rt import reference
from being_rt.avatar.avatar import MOTIONS
from being_rt.errors import InvalidParameterError
from being_rt.ops.body import ResponseUnits, body_frames
from being_rt.train.response import ResponseScale

DOUBLE = torch.float64
NAMES = ("body", "translation", "transforms", "response")


class Scene(NamedTuple):
    """Motion of which some lies beyond the range, and one that never moves."""

    translation: Tensor
    axis_angles: Tensor
    transforms: Tensor
    response: Tensor
    range: Tensor
    centre: Tensor

    def to(self, device: str, dtype: torch.dtype) -> Scene:
        return Scene(*(value.to(device, dtype) for value in self))

    def units(self) -> ResponseUnits:
        return ResponseScale(self.range, self.centre).units

    def body(self) -> Tensor:
        return body_frames(*self[:4], self.units())


def make_scene(frames: int) -> Scene:
    generator = torch.Generator().manual_seed(frames)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=DOUBLE, generator=generator)

    middle, half = 0.1 * randn(MOTIONS), 0.05 + 0.1 * randn(MOTIONS).abs()
    half[4] = 0
    motion = middle + (half + 0.01) * 2 * (torch.rand(frames, MOTIONS, dtype=DOUBLE, generator=generator) - 0.5)
    motion[0, 0], motion[-1, 8] = 10.0, -10.0
    axis_angles = randn(frames, 5, 3)
    axis_angles[:, :2] = motion[:, 3:].unflatten(1, (2, 3))
    span = torch.stack([middle - half, middle + half])
    return Scene(
        motion[:, :3].clone(), axis_angles, randn(frames, 5, 3, 4), 0.05 * randn(MOTIONS, 12), span, 0.3 * randn(3)
    )


def twin(scene: Scene) -> Tensor:
    motion = torch.cat([scene.translation, scene.axis_angles[:, 0], scene.axis_angles[:, 1]], dim=1).detach()
    maps = ResponseScale(scene.range, scene.centre).maps(scene.response)
    root = reference.body_root(motion, maps, scene.range)
    return reference.body_frames(root, scene.transforms, scene.translation)


def gradients(function: Callable[[Scene], Tensor], scene: Scene) -> dict[str, Tensor]:
    """The body, and slopes of a sum in which every number counts differently."""
    inputs = [scene[k].clone().requires_grad_() for k in (0, 2, 3)]
    translation, transforms, response = inputs
    body = function(scene._replace(translation=translation, transforms=transforms, response=response))
    weights = torch.linspace(-1, 2, body.numel(), dtype=DOUBLE).sin().view(body.shape).to(body)
    slopes = torch.autograd.grad(body, inputs, weights)
    return dict(zip(NAMES, (body.detach(), *slopes), strict=True))


def assert_close(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        assert (got[name].cpu().double() - value).abs().max() <= tolerance * value.abs().max(), name


@pytest.mark.parametrize("frames", [1, 5])
def test_it_is_the_twin(frames: int) -> None:
    scene = make_scene(frames)
    expected = gradients(twin, scene)
    assert all(bool(value.any()) for value in expected.values())
    assert_close(gradients(Scene.body, scene), expected, 1e-13)
    single = gradients(Scene.body, scene.to("cpu", torch.float32))
    assert all(value.dtype == torch.float32 for value in single.values())
    assert_close(single, expected, 1e-6)


def test_gradcheck() -> None:
    scene = make_scene(2)
    transforms, response = scene.transforms.requires_grad_(), scene.response.requires_grad_()
    assert gradcheck(
        lambda a, b: body_frames(scene.translation, scene.axis_angles, a, b, scene.units()), (transforms, response)
    )
    # The translation as what carries; what the root answers of it, which has no gradient, is nothing here.
    nothing = torch.zeros_like(scene.response)
    translation = scene.translation.requires_grad_()
    assert gradcheck(
        lambda x: body_frames(x, scene.axis_angles, scene.transforms.detach(), nothing, scene.units()), (translation,)
    )


def test_only_what_is_wanted_has_a_gradient() -> None:
    scene = make_scene(3)
    expected = gradients(twin, scene)
    for index, name in ((0, "translation"), (2, "transforms"), (3, "response")):
        leaf = scene[index].clone().requires_grad_()
        body = scene._replace(**{name: leaf}).body()
        weights = torch.linspace(-1, 2, body.numel(), dtype=DOUBLE).sin().view(body.shape)
        (slope,) = torch.autograd.grad(body, leaf, weights)
        torch.testing.assert_close(slope, expected[name], rtol=1e-12, atol=1e-13)
    axis_angles = scene.axis_angles.requires_grad_()
    body = scene._replace(axis_angles=axis_angles, response=scene.response.requires_grad_()).body()
    assert torch.autograd.grad(body.sum(), axis_angles, allow_unused=True) == (None,)
    assert not make_scene(3).body().requires_grad


def test_beyond_the_range_nothing_more_is_answered() -> None:
    scene = make_scene(2)
    farther = scene.translation.clone()
    farther[0, 0] += 5
    moved = scene._replace(translation=farther).body() - scene.body()
    moved[0, :, 0, 3] -= 5  # what is common to all three
    assert moved.abs().max() < 1e-13


def test_an_empty_range_answers_nothing() -> None:
    scene = make_scene(5)
    scene = scene._replace(range=scene.range[:1].expand(2, -1).contiguous())
    body = gradients(Scene.body, scene)
    expected = torch.eye(3, 4, dtype=DOUBLE).repeat(5, 1, 1)
    expected[:, :, 3] += scene.translation
    assert torch.equal(body["body"][:, 0], expected)
    assert not body["response"].any()


def test_without_frames() -> None:
    scene = make_scene(1)
    empty = scene._replace(
        translation=scene.translation[:0], axis_angles=scene.axis_angles[:0], transforms=scene.transforms[:0]
    )
    got = gradients(Scene.body, empty)
    assert got["body"].shape == (0, 3, 3, 4)
    assert not got["response"].any()


@pytest.mark.parametrize("name", ["translation", "axis_angles", "transforms", "response"])
def test_nan_is_not_hidden(name: str) -> None:
    scene = make_scene(2)
    getattr(scene, name)[1] = torch.nan
    assert scene.body().isnan().any()


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("translation", lambda x: x[:, :2], r"translation must be float64 \[any, 3\]"),
        ("translation", lambda x: x.half(), r"translation must be float32 \[any, 3\]"),
        ("axis_angles", lambda x: x[:1], r"axis_angles must be float64 \[2, 5, 3\]"),
        ("transforms", lambda x: x[:, :3], r"transforms must be float64 \[2, 5, 3, 4\]"),
        ("transforms", lambda x: x.mT.contiguous().mT, "transforms must be contiguous"),
        ("response", lambda x: x.float(), r"response must be float64 \[9, 12\]"),
        ("range", lambda x: x.T, r"units.range must be float64 \[2, 9\]"),
        ("per_motion", lambda x: x[:, None], r"units.per_motion must be float64 \[9\]"),
        ("about", lambda x: x[:3], r"units.about must be float64 \[4, 4\]"),
    ],
)
def test_refuses(name: str, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    scene = make_scene(2)
    units = scene.units()
    given = scene._asdict() | units._asdict()
    given[name] = spoil(given[name])
    units = ResponseUnits(*(given[field] for field in units._fields))
    with pytest.raises(InvalidParameterError, match=message):
        body_frames(*(given[field] for field in scene._fields[:4]), units)


@pytest.mark.gpu
@pytest.mark.parametrize("frames", [0, 1, 5, 67])
def test_cuda_is_the_cpu(frames: int) -> None:
    scene = make_scene(max(1, frames))
    scene = scene._replace(
        translation=scene.translation[:frames],
        axis_angles=scene.axis_angles[:frames],
        transforms=scene.transforms[:frames],
    )
    on_device = scene.to("cuda", torch.float32)
    got, again = gradients(Scene.body, on_device), gradients(Scene.body, on_device)
    if frames:
        assert_close(got, gradients(twin, scene), 2e-6)
    for name, value in got.items():
        assert torch.equal(value, again[name]), name
    assert not on_device.body().requires_grad


@pytest.mark.gpu
def test_cuda_in_a_graph() -> None:
    scene = make_scene(5).to("cuda", torch.float32)
    expected = gradients(Scene.body, scene)
    units, leaves = scene.units(), [scene[k].clone().requires_grad_() for k in (0, 2, 3)]
    weights = torch.linspace(-1, 2, 180, dtype=DOUBLE).sin().view(5, 3, 3, 4).to(scene.response)

    def step() -> tuple[Tensor, ...]:
        body = body_frames(leaves[0], scene.axis_angles, *leaves[1:], units)
        return body.detach(), *torch.autograd.grad(body, leaves, weights)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    graph.replay()
    for name, value in zip(NAMES, results, strict=True):
        assert torch.equal(value, expected[name]), name
