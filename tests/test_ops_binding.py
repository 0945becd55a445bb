"""Operations `bind_head` and `bind_torso` against their twins in being_rt.reference, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scenes import make_avatar
from torch import Tensor

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.binding import VertexTables, bind_head, bind_torso

Named = dict[str, Tensor]


class Scene:
    """Random Gaussians on an egg and a bust, in several poses, as named float64 leaves."""

    def __init__(self, frames: int, count: int, offsets: bool = True, segments: int = 6, rings: int = 5) -> None:
        torch.manual_seed(frames * 1000 + count)
        avatar = make_avatar(seed=3, head_count=count, torso_count=count, segments=segments, rings=rings)
        rig = reference.tensors(avatar.rig)
        self.frames, self.faces, self.face_frames = frames, rig["faces"], rig["face_frames"]
        self.face = torch.from_numpy(avatar.head.face).long()
        vertex_count = len(avatar.rig.template)
        gaussians = reference.GaussianTensors.of(avatar.head.gaussians)._asdict()
        del gaussians["facing_fade"]
        # Quaternions of any length, barycentric coordinates and weights of any sum.
        gaussians["rotation"] = gaussians["rotation"] * torch.rand(count, 1).double().add(0.5)
        if offsets:
            gaussians["offsets"] = 0.1 * torch.randn(frames, count, 13, dtype=torch.float64)
        turn = reference.rodrigues(0.3 * torch.randn(frames, 3, 3, dtype=torch.float64))
        self.head = gaussians | {
            "vertices": rig["template"] + 0.004 * torch.randn(frames, vertex_count, 3, dtype=torch.float64),
            "barycentric": torch.rand(count, 3, dtype=torch.float64),
        }
        self.torso = gaussians | {
            "weights": torch.rand(count, 3, dtype=torch.float64),
            "body": torch.cat([turn, 0.1 * torch.randn(frames, 3, 3, 1, dtype=torch.float64)], dim=3),
        }

    def bind_head(self, given: Named, tables: VertexTables | None = None) -> Tensor:
        gaussians = (given["position"], given["rotation"], given["log_scale"], given["opacity_logit"], given["colour"])
        like = given["position"]
        faces, face = self.faces.int().to(like.device), self.face.int().to(like.device)
        carrier = (given["vertices"], faces, self.face_frames.to(like), face, given["barycentric"])
        return bind_head(*gaussians, given.get("offsets"), *carrier, tables)

    def bind_torso(self, given: Named) -> Tensor:
        gaussians = (given["position"], given["rotation"], given["log_scale"], given["opacity_logit"], given["colour"])
        return bind_torso(*gaussians, given.get("offsets"), given["weights"], given["body"])

    def twin_head(self, given: Named) -> Tensor:
        def bind(gaussians: reference.GaussianTensors, frame: int) -> reference.Bound:
            vertices = given["vertices"][frame]
            frames = reference.triangle_frames(vertices, self.faces, self.face_frames)
            return reference.bind_head(gaussians, vertices, self.faces, frames, self.face, given["barycentric"])

        return self.twin(given, bind)

    def twin_torso(self, given: Named) -> Tensor:
        def bind(gaussians: reference.GaussianTensors, frame: int) -> reference.Bound:
            return reference.bind_torso(gaussians, given["weights"], given["body"][frame])

        return self.twin(given, bind)

    def twin(self, given: Named, bind: Callable[[reference.GaussianTensors, int], reference.Bound]) -> Tensor:
        rows = []
        for frame in range(self.frames):
            gaussians = reference.GaussianTensors(
                *(given[name] for name in reference.GaussianTensors._fields[:5]),
                facing_fade=torch.zeros(len(given["position"]), dtype=torch.bool),
            )
            if "offsets" in given:
                gaussians = reference.deform(gaussians, given["offsets"][frame])
            bound = bind(gaussians, frame)
            opacity = torch.sigmoid(gaussians.opacity_logit)[:, None]
            rows.append(torch.cat([bound.mean, bound.factor.flatten(1), opacity, gaussians.colour], dim=1))
        return torch.stack(rows)

    def of(self, layer: str) -> tuple[Named, Callable[[Named], Tensor], Callable[[Named], Tensor]]:
        if layer == "head":
            return self.head, self.bind_head, self.twin_head
        return self.torso, self.bind_torso, self.twin_torso


def leaves(given: Named, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Named:
    return {name: tensor.detach().to(device, dtype).requires_grad_() for name, tensor in given.items()}


def gradients(result: Tensor, given: Named) -> Named:
    torch.manual_seed(5)
    weight = torch.randn(result.shape, dtype=torch.float64).to(result)
    return dict(zip(given, torch.autograd.grad(result, list(given.values()), weight), strict=True))


def assert_close(got: Named, expected: Named, tolerance: float) -> None:
    """Equal within ``tolerance`` of each tensor's largest value."""
    for name, value in expected.items():
        error = (got[name].detach().cpu().double() - value.double()).abs().max() / value.abs().max().clamp(min=1e-30)
        assert error <= tolerance, f"{name}: {error:.3g}"


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("layer", ["head", "torso"])
def test_twin(layer: str, offsets: bool) -> None:
    """Values and derivatives; 700 Gaussians are several parts of a sum, the last of them not whole."""
    scene = Scene(frames=3, count=700, offsets=offsets)
    given, operation, twin = scene.of(layer)
    ours, theirs = leaves(given), leaves(given)
    got, expected = operation(ours), twin(theirs)
    assert_close({"bound": got}, {"bound": expected.detach()}, 1e-13)
    assert_close(gradients(got, ours), gradients(expected, theirs), 1e-12)


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("layer", ["head", "torso"])
def test_gradcheck(layer: str, offsets: bool) -> None:
    given, operation, _ = Scene(frames=2, count=4, offsets=offsets, segments=3, rings=3).of(layer)
    names = list(given)
    inputs = tuple(leaves(given).values())
    assert torch.autograd.gradcheck(lambda *tensors: operation(dict(zip(names, tensors, strict=True))), inputs)


@pytest.mark.parametrize("layer", ["head", "torso"])
def test_float32(layer: str) -> None:
    given, operation, _ = Scene(frames=3, count=300).of(layer)
    ours, exact = leaves(given, torch.float32), leaves(given)
    got, expected = operation(ours), operation(exact)
    assert got.dtype == torch.float32
    assert_close({"bound": got}, {"bound": expected.detach()}, 2e-6)
    assert_close(gradients(got, ours), gradients(expected, exact), 2e-5)


@pytest.mark.parametrize("layer", ["head", "torso"])
def test_each_gradient_alone(layer: str) -> None:
    """Asking for one gradient gives the same as asking for all."""
    given, operation, _ = Scene(frames=2, count=40).of(layer)
    everything = leaves(given)
    expected = gradients(operation(everything), everything)
    for name in given:
        inputs = {other: tensor.detach() for other, tensor in given.items()} | {
            name: given[name].clone().requires_grad_()
        }
        got = gradients(operation(inputs), {name: inputs[name]})
        assert torch.equal(got[name], expected[name]), name


@pytest.mark.parametrize("layer", ["head", "torso"])
def test_registered(layer: str) -> None:
    """Schema, shapes without data and the derivative's registration, as torch.library checks them."""
    scene = Scene(frames=2, count=40)
    arguments = list(leaves(scene.of(layer)[0]).values())
    if layer == "head":
        arguments += [scene.faces.int(), scene.face_frames, scene.face.int(), None, None]
    torch.library.opcheck(getattr(torch.ops.being_rt, f"bind_{layer}").default, tuple(arguments))


def test_nothing_to_bind() -> None:
    for layer in ("head", "torso"):
        scene = Scene(frames=2, count=0)
        given, operation, _ = scene.of(layer)
        inputs = leaves(given)
        result = operation(inputs)
        assert result.shape == (2, 0, 16)
        for gradient in gradients(result, inputs).values():
            assert not gradient.any()


def test_a_collapsed_triangle_has_finite_gradients() -> None:
    scene = Scene(frames=1, count=200)
    given = leaves(scene.head, torch.float32)
    with torch.no_grad():
        first, second, _ = scene.faces[scene.face[0]]
        given["vertices"][:, second] = given["vertices"][:, first]
    for name, gradient in gradients(scene.bind_head(given), given).items():
        assert gradient.isfinite().all(), name


def test_tables() -> None:
    """Made once or in each backward pass, or changed in place: the same gradients."""
    scene = Scene(frames=2, count=200)
    faces, face, vertex_count = scene.faces.int(), scene.face.int(), scene.head["vertices"].shape[1]
    tables = VertexTables.of(faces, face.flip(0).contiguous(), vertex_count)
    given = leaves(scene.head)
    expected = gradients(scene.bind_head(given), given)
    assert not torch.equal(gradients(scene.bind_head(given, tables), given)["vertices"], expected["vertices"])
    addresses = [table.data_ptr() for table in vars(tables).values()]
    tables.update(faces, face)
    assert addresses == [table.data_ptr() for table in vars(tables).values()]
    for name, gradient in gradients(scene.bind_head(given, tables), given).items():
        assert torch.equal(gradient, expected[name]), name


def test_tables_refuse() -> None:
    scene = Scene(frames=1, count=10)
    faces, face = scene.faces.int(), scene.face.int()
    vertex_count = int(faces.max()) + 1
    for arguments, message in (
        ((faces.long(), face, vertex_count), r"faces must be int32 \[any, 3\]"),
        ((faces, face.double(), vertex_count), r"face must be int32 \[any\]"),
        ((faces, face, vertex_count - 1), f"faces has indices outside 0..{vertex_count - 2}"),
        ((faces, face - 1000, vertex_count), f"face has indices outside 0..{len(faces) - 1}"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            VertexTables.of(*arguments)
    tables = VertexTables.of(faces, face, vertex_count)
    with pytest.raises(InvalidParameterError, match=r"face must be int32 \[10\]"):
        tables.update(faces, face[1:])
    with pytest.raises(InvalidParameterError, match=r"tables.corner must be int32 \[30\]"):
        scene.bind_head(scene.head, VertexTables(tables.begin, tables.corner[3:]))


def test_indices_out_of_range() -> None:
    scene = Scene(frames=1, count=10)
    scene.face[3] = len(scene.faces)
    with pytest.raises(InvalidParameterError, match=f"face has indices outside 0..{len(scene.faces) - 1}"):
        scene.bind_head(scene.head)


@pytest.mark.parametrize(
    ("layer", "name", "spoil", "message"),
    [
        ("head", "position", lambda x: x.half(), r"position must be float32 \[any, 3\]"),
        ("head", "rotation", lambda x: x[:, :3], r"rotation must be float64 \[10, 4\]"),
        ("head", "log_scale", lambda x: x.float(), "log_scale must be float64"),
        ("head", "opacity_logit", lambda x: x[:, None], r"opacity_logit must be float64 \[10\]"),
        ("head", "colour", lambda x: x[1:], "colour must be"),
        ("head", "offsets", lambda x: x[1:], r"offsets must be float64 \[2, 10, 13\]"),
        ("head", "vertices", lambda x: x[:, :, 1:], "vertices must be"),
        ("head", "barycentric", lambda x: x[:, :2], "barycentric must be"),
        ("torso", "weights", lambda x: x.T.contiguous().T, "weights must be contiguous"),
        ("torso", "body", lambda x: x[:, :2], r"body must be float64 \[2, 3, 3, 4\]"),
    ],
)
def test_refuses(layer: str, name: str, spoil: Callable[[Tensor], Tensor], message: str) -> None:
    given, operation, _ = Scene(frames=2, count=10).of(layer)
    with pytest.raises(InvalidParameterError, match=message):
        operation(given | {name: spoil(given[name])})


@pytest.mark.gpu
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("frames", [1, 3, 9])
@pytest.mark.parametrize("layer", ["head", "torso"])
def test_cuda(layer: str, frames: int, offsets: bool) -> None:
    """As on the CPU, and the same bits every time."""
    given, operation, _ = Scene(frames=frames, count=1000, offsets=offsets).of(layer)
    ours, theirs = leaves(given, torch.float32, "cuda"), leaves(given, torch.float32)
    got, expected = operation(ours), operation(theirs)
    assert_close({"bound": got}, {"bound": expected.detach()}, 2e-6)
    slopes = gradients(got, ours)
    assert_close(slopes, gradients(expected, theirs), 2e-5)
    again = operation(ours)
    assert torch.equal(again, got)
    for name, slope in gradients(again, ours).items():
        assert torch.equal(slope, slopes[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("layer", ["head", "torso"])
def test_cuda_without_gaussians(layer: str) -> None:
    given, operation, _ = Scene(frames=2, count=0).of(layer)
    inputs = leaves(given, torch.float32, "cuda")
    for gradient in gradients(operation(inputs), inputs).values():
        assert not gradient.any()
