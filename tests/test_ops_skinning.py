"""The operation `skin`: values and derivatives against the reference, precision, determinism, refusals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scenes import make_rig
from torch import Tensor
from torch.autograd import gradcheck

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.skinning import RigTensors, Skinned, skin

DOUBLE = torch.float64
TRAINED = ("template", "expression_basis", "eyelid_basis")


class Motion(NamedTuple):
    expression: Tensor
    axis_angles: Tensor
    eyelids: Tensor
    translation: Tensor


def rig_tensors(segments: int = 8, rings: int = 8, dtype: torch.dtype = DOUBLE) -> RigTensors:
    """V = segments (rings - 1) + 2: by default 58, not a multiple of any block. The joints move with the expression."""
    random = np.random.default_rng(0)
    rig = RigTensors.of(make_rig(random, segments, rings), dtype=DOUBLE)
    moving = torch.from_numpy(random.normal(0, 0.002, (5, 3, 100)))
    rig = rig._replace(joint_expression=moving)
    return RigTensors(*(value.to(dtype) if value.is_floating_point() else value for value in rig))


def motion(frames: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Motion:
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(frames, *shape, dtype=DOUBLE, generator=generator)

    axis_angles = 0.4 * randn(5, 3)
    axis_angles[:1, 2] = 0  # a joint at rest, where Rodrigues' formula is 0 / 0
    return Motion(*(v.to(dtype) for v in (randn(100), axis_angles, randn(2), 0.1 * randn(3))))


def reference_skin(rig: RigTensors, expression: Tensor, axis_angles: Tensor, *others: Tensor) -> Skinned:
    rows = []
    for e, a, eyelids, translation in zip(expression, axis_angles, *others, strict=True):
        joints = reference.pose(rig.joint_rest, rig.joint_expression, e, a)
        vertices = reference.skin(rig._asdict(), joints, e, eyelids, translation)
        rows.append((vertices, joints.transforms, reference.conditioning(e, joints.rotations, eyelids)))
    return Skinned(*(torch.stack(column) for column in zip(*rows, strict=True)))


def gradients(function, rig: RigTensors, moved: Motion, seed: int = 3) -> tuple[Skinned, dict[str, Tensor]]:
    """The outputs, and the gradients of a random linear function of all of them."""
    leaves = {name: getattr(rig, name).clone().requires_grad_() for name in TRAINED}
    inputs = {name: value.clone().requires_grad_() for name, value in moved._asdict().items()}
    outputs = function(rig._replace(**leaves), *inputs.values())
    generator = torch.Generator().manual_seed(seed)
    total = sum((torch.randn(out.shape, dtype=DOUBLE, generator=generator).to(out) * out).sum() for out in outputs)
    everything = leaves | inputs
    return outputs, dict(zip(everything, torch.autograd.grad(total, list(everything.values())), strict=True))


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    for name, value in expected.items():
        error = (got[name].to(value) - value).abs().max() / value.abs().max()
        assert error <= tolerance, f"{name}: {error:g}"


@pytest.mark.parametrize("frames", [1, 3, 11])
def test_values_and_gradients_are_the_reference(frames: int) -> None:
    rig, moved = rig_tensors(), motion(frames)
    outputs, slopes = gradients(skin, rig, moved)
    expected_outputs, expected_slopes = gradients(reference_skin, rig, moved)
    assert_same(outputs._asdict(), expected_outputs._asdict(), 1e-13)
    assert_same(slopes, expected_slopes, 1e-12)


def test_gradcheck() -> None:
    rig = rig_tensors(3, 3)
    names = ("expression", "axis_angles", "eyelids", "translation")
    inputs = [value.requires_grad_() for value in motion(2)]
    leaves = [getattr(rig, name).clone().requires_grad_() for name in TRAINED]

    def function(*values: Tensor) -> Skinned:
        return skin(rig._replace(**dict(zip(TRAINED, values[len(names) :], strict=True))), *values[: len(names)])

    assert gradcheck(function, [*inputs, *leaves], fast_mode=True)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-4, 1e-3, 0.1, 3.0])
def test_small_and_large_rotations(angle: float) -> None:
    rig = rig_tensors(3, 3)
    moved = motion(2)
    moved = moved._replace(axis_angles=angle * reference.normalise(moved.axis_angles + 1))
    _, expected = gradients(reference_skin, rig, moved)
    assert_same(gradients(skin, rig, moved)[1], expected, 1e-11)
    single = RigTensors(*(v.float() if v.is_floating_point() else v for v in rig))
    _, slopes = gradients(skin, single, Motion(*(value.float() for value in moved)))
    assert_same(slopes, expected, 5e-6)


def test_float32() -> None:
    expected, expected_slopes = gradients(skin, rig_tensors(), motion(4))
    outputs, slopes = gradients(skin, rig_tensors(dtype=torch.float32), motion(4, dtype=torch.float32))
    assert outputs.vertices.dtype == torch.float32
    assert_same(outputs._asdict(), expected._asdict(), 1e-6)
    assert_same(slopes, expected_slopes, 3e-6)


@pytest.mark.parametrize("used", ["vertices", "transforms", "condition"])
def test_one_output_alone(used: str) -> None:
    rig, moved = rig_tensors(3, 3), motion(2)
    got, expected = [], []
    for function, result in ((skin, got), (reference_skin, expected)):
        inputs = [value.clone().requires_grad_() for value in moved]
        out = getattr(function(rig, *inputs), used)
        # A sum's gradient is a stride-0 tensor, which must be laid out first.
        result += torch.autograd.grad(out.sum() + out[0].square().sum(), inputs, materialize_grads=True)
    for name, a, b in zip(Motion._fields, got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=name)


def test_only_what_is_wanted_has_a_gradient() -> None:
    rig, moved = rig_tensors(3, 3), motion(2)
    moved.expression.requires_grad_()
    rig.template.requires_grad_()
    skin(rig, *moved).vertices.square().sum().backward()
    assert moved.expression.grad is not None
    assert rig.template.grad is not None
    assert moved.axis_angles.grad is None
    assert rig.expression_basis.grad is None


def test_same_bits_in_every_run_and_batch() -> None:
    rig, moved = rig_tensors(16, 16, torch.float32), motion(5, dtype=torch.float32)
    first, first_slopes = gradients(skin, rig, moved)
    again, again_slopes = gradients(skin, rig, moved)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(first_slopes[name], again_slopes[name]) for name in first_slopes)
    alone = skin(rig, *(value[2:3].clone() for value in moved))
    assert torch.equal(alone.vertices[0], first.vertices[2])


def test_meta_tensors_have_the_right_shapes() -> None:
    rig, moved = rig_tensors(3, 3), motion(2)
    outputs = skin(RigTensors(*(v.to("meta") for v in rig)), *(v.to("meta") for v in moved))
    assert [tuple(out.shape) for out in outputs] == [(2, len(rig.template), 3), (2, 5, 3, 4), (2, 138)]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("expression", lambda v: v[:, :50], r"expression must be float64 \[any, 100\]"),
        ("axis_angles", lambda v: v[:1], r"axis_angles must be float64 \[2, 5, 3\]"),
        ("eyelids", lambda v: v.float(), r"eyelids must be float64"),
        ("translation", lambda v: v.int(), r"translation must be float64"),
        ("expression", lambda v: v.T.contiguous().T, "expression must be contiguous"),
    ],
)
def test_refuses_motion(name: str, change, message: str) -> None:
    moved = motion(2)
    with pytest.raises(InvalidParameterError, match=message):
        skin(rig_tensors(3, 3), *moved._replace(**{name: change(getattr(moved, name))}))


def test_refuses_rigs_and_empty_batches() -> None:
    rig, moved = rig_tensors(3, 3), motion(2)
    with pytest.raises(InvalidParameterError, match=r"rig.pose_basis must be float64 \[8, 3, 36\]"):
        skin(rig._replace(pose_basis=rig.pose_basis[1:]), *moved)
    with pytest.raises(InvalidParameterError, match="needs a frame"):
        skin(rig, *motion(0))


@pytest.mark.gpu
@pytest.mark.parametrize(("frames", "segments", "rings"), [(1, 3, 3), (8, 16, 16), (19, 40, 40)])
def test_cuda_is_the_cpu(frames: int, segments: int, rings: int) -> None:
    rig, moved = rig_tensors(segments, rings), motion(frames)
    expected, expected_slopes = gradients(skin, rig, moved)
    on_device = RigTensors(*(v.to("cuda", torch.float32 if v.is_floating_point() else v.dtype) for v in rig))
    moved = Motion(*(v.to("cuda", torch.float32) for v in moved))
    outputs, slopes = gradients(skin, on_device, moved)
    cpu = {name: value.cpu() for name, value in slopes.items()}
    assert_same({name: value.cpu() for name, value in outputs._asdict().items()}, expected._asdict(), 2e-6)
    assert_same(cpu, expected_slopes, 1e-5)
    _, again = gradients(skin, on_device, moved)
    assert all(torch.equal(slopes[name], again[name]) for name in slopes)


@pytest.mark.gpu
def test_cuda_refuses_doubles_and_bases_out_of_line() -> None:
    rig, moved = rig_tensors(3, 3), motion(2)
    with pytest.raises(InvalidParameterError, match="float32, not float64"):
        skin(RigTensors(*(v.cuda() for v in rig)), *(v.cuda() for v in moved))
    single = RigTensors(*(v.to("cuda", torch.float32 if v.is_floating_point() else v.dtype) for v in rig))
    shifted = torch.empty(single.pose_basis.numel() + 1, device="cuda")[1:].view_as(single.pose_basis)
    with pytest.raises(InvalidParameterError, match="multiple of 16 bytes"):
        skin(single._replace(pose_basis=shifted), *(v.to("cuda", torch.float32) for v in moved))


@pytest.mark.gpu
def test_cuda_graph() -> None:
    rig = RigTensors(*(v.to("cuda", torch.float32 if v.is_floating_point() else v.dtype) for v in rig_tensors(16, 16)))
    inputs = [v.to("cuda", torch.float32).requires_grad_() for v in motion(4)]
    other = [v.to("cuda", torch.float32) for v in motion(4, seed=9)]

    def step() -> tuple[Tensor, ...]:
        outputs = skin(rig, *inputs)
        return torch.autograd.grad(sum(out.square().sum() for out in outputs), inputs)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for to, value in zip(inputs, other, strict=True):
            to.copy_(value)
    graph.replay()
    expected = step()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
