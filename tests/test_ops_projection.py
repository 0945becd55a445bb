"""Operation `project` against its twin in being_rt.reference, and its derivative."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scenes import make_camera
from torch import Tensor

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.projection import project

Named = dict[str, Tensor]
SIZE = (320, 240)
COLUMN_SIZE = (100.0, 100.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # of a splat's numbers, about


class Scene:
    """Random Gaussians before, beside and behind a camera, as named float64 tensors.

    Half of them face; colours are to both sides of 0..1. ``wide`` puts a third beyond the limits of the Jacobian and
    some behind the camera.
    """

    def __init__(self, frames: int, count: int, wide: bool = True, one_pose: bool = False) -> None:
        torch.manual_seed(frames * 1000 + count)
        camera = make_camera(SIZE, yaw=0.4)
        pose = torch.tensor(camera.world_to_camera[:3], dtype=torch.float64)
        poses = pose + 0.02 * torch.randn(frames, 3, 4, dtype=torch.float64)  # not quite rotations
        focal = float(camera.intrinsics[0, 0]) * (1 + 0.1 * torch.rand(frames, 2, dtype=torch.float64))
        centre = torch.tensor(SIZE, dtype=torch.float64) / 2 + torch.randn(frames, 2, dtype=torch.float64)
        limit = reference.FRUSTUM_MARGIN * torch.tensor(SIZE, dtype=torch.float64) / (2 * focal)
        spread = 0.35 if wide else 0.06
        mean = spread * torch.randn(frames, count, 3, dtype=torch.float64)
        if wide:  # every fourth to around and behind the camera
            forward = torch.tensor(camera.world_to_camera[2, :3], dtype=torch.float64)
            mean[:, ::4] -= forward * torch.rand(frames, len(mean[0, ::4]), 1, dtype=torch.float64).add(0.7)
        factor = 0.006 * torch.randn(frames, count, 9, dtype=torch.float64)
        factor[:, :: max(count // 3, 1)] *= 1e-3  # thinner than a pixel
        opacity = torch.rand(frames, count, 1, dtype=torch.float64)
        colour = 0.5 + 0.6 * torch.randn(frames, count, 3, dtype=torch.float64)
        self.facing = torch.arange(count, dtype=torch.uint8) % 2
        self.limit = limit
        self.given = {
            "bound": torch.cat([mean, factor, opacity, colour], dim=2),
            "world_to_camera": poses[0].clone() if one_pose else poses,
            "pinhole": torch.cat([focal, centre], dim=1),  # the part of the intrinsics that has a gradient
        }

    def operation(self, given: Named, antialiased: bool = True) -> Tensor:
        intrinsics = torch.cat([given["pinhole"], self.limit.to(given["pinhole"])], dim=1)
        facing = self.facing.to(intrinsics.device)
        return project(given["bound"], facing, given["world_to_camera"], intrinsics, antialiased)

    def twin(self, given: Named, antialiased: bool = True) -> Tensor:
        pose = given["world_to_camera"].expand(len(given["bound"]), 3, 4)
        rows = zip(given["bound"], pose, given["pinhole"], strict=True)
        return torch.stack([self.twin_frame(*row, antialiased) for row in rows])

    def twin_frame(self, row: Tensor, pose: Tensor, pinhole: Tensor, antialiased: bool) -> Tensor:
        factor = row[:, 3:12].unflatten(1, (3, 3))
        bound = reference.Bound(row[:, :3], factor, reference.normalise(factor[:, :, 2]))
        opacity = row[:, 12] * reference.facing_fade(bound, self.facing.bool(), pose)
        intrinsics = torch.diag(torch.cat([pinhole[:2], pinhole.new_ones(1)]))
        intrinsics = intrinsics + torch.nn.functional.pad(pinhole[2:, None], (2, 0, 0, 1))
        splats = reference.project(bound, opacity, row[:, 13:], pose, intrinsics, SIZE, antialiased)
        conic = torch.linalg.inv(splats.covariance).flatten(1)[:, [0, 1, 3]]
        columns = [splats.mean, conic, splats.opacity[:, None], splats.colour, splats.depth[:, None]]
        result = torch.cat([*columns, torch.zeros_like(splats.mean)], dim=1)
        return torch.where(splats.visible[:, None], result, torch.zeros_like(result))


def leaves(given: Named, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Named:
    return {name: tensor.detach().to(device, dtype).requires_grad_() for name, tensor in given.items()}


def gradients(result: Tensor, given: Named) -> Named:
    """Of a weighted sum in which each column counts about as much."""
    torch.manual_seed(5)
    weight = torch.randn(result.shape, dtype=torch.float64) / torch.tensor(COLUMN_SIZE, dtype=torch.float64)
    return dict(zip(given, torch.autograd.grad(result, list(given.values()), weight.to(result)), strict=True))


def assert_close(got: Named, expected: Named, tolerance: float) -> None:
    """Equal within ``tolerance`` of the largest value of each column."""
    for name, value in expected.items():
        error = (got[name].detach().cpu().double() - value.double()).abs()
        scale = value.double().abs().flatten(0, -2).amax(0).clamp(min=1e-30)
        worst = (error.flatten(0, -2).amax(0) / scale).max()
        assert worst <= tolerance, f"{name}: {worst:.3g}"


@pytest.mark.parametrize("antialiased", [True, False])
@pytest.mark.parametrize("one_pose", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_twin(wide: bool, one_pose: bool, antialiased: bool) -> None:
    """Values and derivatives; 700 Gaussians are several parts of a sum, the last of them not whole."""
    scene = Scene(frames=3, count=700, wide=wide, one_pose=one_pose)
    ours, theirs = leaves(scene.given), leaves(scene.given)
    got, expected = scene.operation(ours, antialiased), scene.twin(theirs, antialiased)
    # Near, dilation and fade are floats in the core.
    assert_close({"splats": got}, {"splats": expected.detach()}, 1e-7)
    got_gradients, expected_gradients = gradients(got, ours), gradients(expected, theirs)
    if wide:
        # The twin's limits move with the focal length.
        del expected_gradients["pinhole"]
        visible = expected[..., 5].detach() > 0
        assert 0.1 < visible.double().mean() < 0.9
    assert_close(got_gradients, expected_gradients, 1e-6)


def test_scene_has_every_case() -> None:
    """Clamped by each limit and not; fading, gone and full; colours in and out of range; behind the camera."""
    scene = Scene(frames=3, count=700)
    bound, poses = scene.given["bound"], scene.given["world_to_camera"]
    point = torch.einsum("brc,bnc->bnr", poses[:, :, :3], bound[..., :3]) + poses[:, None, :, 3]
    front = point[..., 2] > reference.NEAR
    assert 0.05 < (~front).double().mean() < 0.5
    beyond = (point[..., :2] / point[..., 2:]).abs() > scene.limit[:, None]
    for axis in (0, 1):
        assert 0.05 < beyond[front][:, axis].double().mean() < 0.95
    axis = reference.normalise(bound[..., [5, 8, 11]])
    camera = -torch.einsum("brc,br->bc", poses[:, :, :3], poses[:, :, 3])
    cosine = (axis * reference.normalise(camera[:, None] - bound[..., :3])).sum(-1)
    for low, high in ((-1, -0.1), (-0.1, 0.05), (0.05, 1)):
        assert ((cosine > low) & (cosine < high) & (scene.facing > 0)).double().mean() > 0.02


@pytest.mark.parametrize("antialiased", [True, False])
@pytest.mark.parametrize("one_pose", [True, False])
def test_gradcheck(one_pose: bool, antialiased: bool) -> None:
    scene = Scene(frames=2, count=12, one_pose=one_pose)
    names, inputs = list(scene.given), tuple(leaves(scene.given).values())

    def weighted(*tensors: Tensor) -> Tensor:
        result = scene.operation(dict(zip(names, tensors, strict=True)), antialiased)
        return result / torch.tensor(COLUMN_SIZE, dtype=torch.float64)

    assert torch.autograd.gradcheck(weighted, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_float32() -> None:
    scene = Scene(frames=3, count=700, wide=False)
    ours, exact = leaves(scene.given, torch.float32), leaves(scene.given)
    got, expected = scene.operation(ours), scene.operation(exact)
    assert got.dtype == torch.float32
    assert_close({"splats": got}, {"splats": expected.detach()}, 2e-5)
    assert_close(gradients(got, ours), gradients(expected, exact), 1e-4)


def test_each_gradient_alone() -> None:
    """Asking for one gradient gives the same as asking for all."""
    scene = Scene(frames=2, count=40)
    everything = leaves(scene.given)
    expected = gradients(scene.operation(everything), everything)
    for name in scene.given:
        inputs = dict(scene.given) | {name: scene.given[name].clone().requires_grad_()}
        got = gradients(scene.operation(inputs), {name: inputs[name]})
        assert torch.equal(got[name], expected[name]), name


def test_limits_have_no_gradient() -> None:
    scene = Scene(frames=2, count=40)
    intrinsics = torch.cat([scene.given["pinhole"], scene.limit], dim=1).requires_grad_()
    splats = project(scene.given["bound"], scene.facing, scene.given["world_to_camera"], intrinsics, True)
    splats.sum().backward()
    assert intrinsics.grad is not None
    assert intrinsics.grad[:, :4].all()
    assert not intrinsics.grad[:, 4:].any()


def test_behind_the_camera() -> None:
    """All zeros, and no gradient, not even where the camera's plane makes a division by 0."""
    scene = Scene(frames=1, count=3, wide=False)
    given = leaves(scene.given)
    position = -scene.given["world_to_camera"][0, :, :3].inverse() @ scene.given["world_to_camera"][0, :, 3]
    with torch.no_grad():
        given["bound"][:, 0, :3] = position
        given["bound"][:, 1, :3] = 2 * position
    splats = scene.operation(given)
    assert not splats[:, :2].any()
    assert (splats[:, 2, [0, 1, 5, 9]] > 0).all()
    splats.sum().backward()
    gradient = given["bound"].grad
    assert gradient is not None
    assert not gradient[:, :2].any()
    assert gradient[:, 2].any()
    assert gradient.isfinite().all()


def test_a_needle_and_a_point() -> None:
    """Covariances of no area: finite splats of finite gradients, dimmed to nothing where the area counts."""
    scene = Scene(frames=1, count=2, wide=False)
    with torch.no_grad():
        scene.given["bound"][:, 0, 3:12] = torch.tensor([0.01, 0, 0, 0, 0, 0, 0, 0, 0])
        scene.given["bound"][:, 1, 3:12] = 0
    for dtype in (torch.float32, torch.float64):
        given = leaves(scene.given, dtype)
        splats = scene.operation(given)
        assert splats.isfinite().all()
        assert not splats[:, :, 5].any()
        for name, gradient in gradients(splats, given).items():
            assert gradient.isfinite().all(), name


@pytest.mark.parametrize("one_pose", [True, False])
def test_registered(one_pose: bool) -> None:
    """Schema, shapes without data and the derivative's registration, as torch.library checks them."""
    scene = Scene(frames=2, count=40, one_pose=one_pose)
    given = leaves(scene.given)
    intrinsics = torch.cat([scene.given["pinhole"], scene.limit], dim=1).requires_grad_()
    arguments = (given["bound"], scene.facing, given["world_to_camera"], intrinsics, True)
    torch.library.opcheck(torch.ops.being_rt.project.default, arguments)


def test_nothing_to_project() -> None:
    scene = Scene(frames=2, count=0)
    given = leaves(scene.given)
    splats = scene.operation(given)
    assert splats.shape == (2, 0, 12)
    for gradient in gradients(splats, given).values():
        assert not gradient.any()


@pytest.mark.parametrize(
    ("index", "spoil", "message"),
    [
        (0, lambda x: x[..., :15], r"bound must be float64 \[any, any, 16\]"),
        (0, lambda x: x.half(), "bound must be float32"),
        (0, lambda x: x.mT.contiguous().mT, "bound must be contiguous"),
        (1, lambda x: x.bool(), r"facing must be uint8 \[5\]"),
        (1, lambda x: x[1:], r"facing must be uint8 \[5\]"),
        (2, lambda x: x[:1], r"world_to_camera must be float64 \[2, 3, 4\]"),
        (2, lambda x: x[0, :, :3], r"world_to_camera must be float64 \[3, 4\]"),
        (3, lambda x: x.float(), "intrinsics must be float64"),
        (3, lambda x: x[:, :4], r"intrinsics must be float64 \[2, 6\]"),
        (4, lambda x: 1, "antialiased must be True or False"),
    ],
)
def test_refuses(index: int, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    scene = Scene(frames=2, count=5)
    intrinsics = torch.cat([scene.given["pinhole"], scene.limit], dim=1)
    arguments = [scene.given["bound"], scene.facing, scene.given["world_to_camera"], intrinsics, True]
    arguments[index] = spoil(arguments[index])
    with pytest.raises(InvalidParameterError, match=message):
        project(*arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("antialiased", [True, False])
@pytest.mark.parametrize("one_pose", [True, False])
def test_cuda(one_pose: bool, antialiased: bool) -> None:
    """As on the CPU, and the same bits every time."""
    scene = Scene(frames=3, count=1000, wide=False, one_pose=one_pose)
    ours, theirs = leaves(scene.given, torch.float32, "cuda"), leaves(scene.given, torch.float32)
    got, expected = scene.operation(ours, antialiased), scene.operation(theirs, antialiased)
    assert_close({"splats": got}, {"splats": expected.detach()}, 2e-5)
    slopes = gradients(got, ours)
    assert_close(slopes, gradients(expected, theirs), 1e-4)
    again = scene.operation(ours, antialiased)
    assert torch.equal(again, got)
    for name, slope in gradients(again, ours).items():
        assert torch.equal(slope, slopes[name]), name


@pytest.mark.gpu
def test_cuda_without_gaussians() -> None:
    scene = Scene(frames=2, count=0)
    given = leaves(scene.given, torch.float32, "cuda")
    for gradient in gradients(scene.operation(given), given).values():
        assert not gradient.any()
