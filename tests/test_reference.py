"""The reference renderer: derivatives against finite differences, identities, and cases with a known answer."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_camera, make_params, without_head, without_torso
from torch.autograd import gradcheck

from being_rt import reference
from being_rt.avatar.avatar import Camera
from being_rt.errors import InvalidParameterError
from being_rt.flame.model import PARENTS
from being_rt.flame.params import FlameParams
from being_rt.flame.rotations import matrices
from being_rt.reference import Bound, GaussianTensors, Layer, Splats

FLOAT = torch.float64
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Small tensors are faster without a second thread.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def randn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, dtype=FLOAT, generator=torch.Generator().manual_seed(seed))


def differentiable(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(value.clone().requires_grad_() for value in inputs)


def random_gaussians(seed: int, count: int) -> GaussianTensors:
    return GaussianTensors(
        position=0.01 * randn(seed, count, 3),
        rotation=randn(seed + 1, count, 4),
        log_scale=-4 + 0.3 * randn(seed + 2, count, 3),
        opacity_logit=randn(seed + 3, count),
        colour=0.2 + 0.6 * rand(seed + 4, count, 3),
        facing_fade=rand(seed + 5, count) < 0.5,
    )


def random_bound(seed: int, count: int, spread: float = 0.03) -> Bound:
    factor = 0.008 * randn(seed, count, 3, 3)
    return Bound(spread * randn(seed + 1, count, 3), factor, reference.normalise(randn(seed + 2, count, 3)))


def random_splats(seed: int, count: int, size: tuple[int, int]) -> Splats:
    factor = 2.5 * randn(seed, count, 2, 2)
    return Splats(
        mean=(1.4 * rand(seed + 1, count, 2) - 0.2) * torch.tensor(size, dtype=FLOAT),
        covariance=factor @ factor.mT + 0.3 * torch.eye(2, dtype=FLOAT),
        depth=1 + rand(seed + 2, count),
        opacity=rand(seed + 3, count),
        colour=rand(seed + 4, count, 3),
        visible=rand(seed + 5, count) < 0.9,
    )


def camera_tensors(camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(camera.world_to_camera, dtype=FLOAT), torch.tensor(camera.intrinsics, dtype=FLOAT)


def random_layer(seed: int, height: int = 4, width: int = 6) -> Layer:
    alpha = 0.05 + 0.9 * rand(seed, height, width)
    colour = rand(seed + 1, height, width, 3) * alpha[..., None]
    return Layer(colour, alpha, 1 + 0.01 * randn(seed + 2, height, width), torch.zeros(height, width, dtype=FLOAT))


# ------------------------------------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("length", [0.0, 1e-6, 1e-4, 1.0, 3.0])
def test_gradient_of_rodrigues(length: float) -> None:
    axis_angle = length * reference.normalise(randn(0, 4, 3))
    assert gradcheck(reference.rodrigues, differentiable(axis_angle))


def test_gradient_of_pose_skin_and_conditioning() -> None:
    avatar = make_avatar(head_count=0, torso_count=0, segments=3, rings=3, network=False)
    rig = reference.tensors(avatar.rig)

    def posed(expression, axis_angles, eyelids, translation):
        joints = reference.pose(rig["joint_rest"], rig["joint_expression"], expression, axis_angles)
        theta = reference.conditioning(expression, joints.rotations, eyelids)
        return reference.skin(rig, joints, expression, eyelids, translation), theta

    inputs = differentiable(randn(0, 100), 0.3 * randn(1, 5, 3), rand(2, 2), randn(3, 3))
    assert gradcheck(posed, inputs, fast_mode=True)


def test_gradient_of_network() -> None:
    network = reference.tensors(make_avatar(head_count=10, torso_count=0, rank=4).network)
    names = [name for name in network if name != "anchor_index"]

    def offsets(theta, *values):
        return reference.network_offsets(network | dict(zip(names, values, strict=True)), theta)

    inputs = differentiable(randn(0, 138), *(network[name] for name in names))
    assert gradcheck(offsets, inputs, fast_mode=True)


def test_gradient_of_deform_and_bind() -> None:
    gaussians = random_gaussians(0, 5)
    vertices, faces = randn(10, 6, 3), torch.tensor([[0, 1, 2], [3, 4, 5]])
    face_frames = torch.eye(2, dtype=FLOAT) + 0.2 * randn(11, 2, 2, 2)
    face, barycentric = torch.tensor([0, 1, 1, 0, 1]), rand(12, 5, 3)
    body = randn(13, 3, 3, 4)

    def bound(position, rotation, log_scale, offsets, vertices, weights, body):
        changed = gaussians._replace(position=position, rotation=rotation, log_scale=log_scale)
        changed = reference.deform(changed, offsets)
        frames = reference.triangle_frames(vertices, faces, face_frames)
        head = reference.bind_head(changed, vertices, faces, frames, face, barycentric)
        torso = reference.bind_torso(changed, weights, body)
        return *head, *torso, head.covariance, torso.covariance, changed.opacity_logit, changed.colour

    inputs = (gaussians.position, gaussians.rotation, gaussians.log_scale, 0.1 * randn(15, 3, 13), vertices)
    assert gradcheck(bound, differentiable(*inputs, rand(16, 5, 3), body), fast_mode=True)


def test_gradient_of_facing_fade() -> None:
    world_to_camera, _ = camera_tensors(make_camera())
    bound = random_bound(0, 40)
    # Normals a little past grazing, so that many lie on the slope of the fade.
    flat, back = torch.tensor([1.0, 1.0, 0.05], dtype=FLOAT), torch.tensor([0.0, 0.0, 0.28], dtype=FLOAT)
    grazing = reference.normalise(bound.normal * flat - back)
    flagged = torch.ones(40, dtype=torch.bool)

    def fade(mean, normal):
        return reference.facing_fade(Bound(mean, bound.factor, normal), flagged, world_to_camera)

    values = fade(bound.mean, grazing)
    assert ((values > 0.01) & (values < 0.99)).sum() > 5
    assert gradcheck(fade, differentiable(bound.mean, grazing))


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradient_of_project(antialiased: bool) -> None:
    size = (64, 48)
    world_to_camera, intrinsics = camera_tensors(make_camera(size))
    bound = random_bound(0, 6, spread=0.2)  # some lie beyond the clamp of the Jacobian
    bound.mean[0, 2] = 5.0  # behind the camera

    def projected(mean, factor, opacity, world_to_camera, intrinsics):
        moved = Bound(mean, factor, bound.normal)
        splats = reference.project(moved, opacity, randn(1, 6, 3), world_to_camera, intrinsics, size, antialiased)
        return splats.mean, splats.covariance, splats.depth, splats.opacity

    inputs = differentiable(bound.mean, bound.factor, rand(2, 6), world_to_camera, intrinsics)
    assert gradcheck(projected, inputs)


def test_gradient_of_rasterize() -> None:
    size = (20, 18)  # four tiles
    splats = random_splats(0, 7, size)._replace(visible=torch.ones(7, dtype=torch.bool))

    def blended(mean, factor, depth, opacity, colour):
        covariance = factor @ factor.mT + 0.3 * torch.eye(2, dtype=FLOAT)
        return reference.rasterize(Splats(mean, covariance, depth, opacity, colour, splats.visible), size)[:3]

    inputs = (splats.mean, 2.5 * randn(0, 7, 2, 2), splats.depth, 0.3 + 0.6 * splats.opacity, splats.colour)
    assert gradcheck(blended, differentiable(*inputs), fast_mode=True)


def test_gradient_of_match() -> None:
    avatar = make_avatar(head_count=150, torso_count=90, network=False)
    head_position, torso_position = 0.05 * randn(0, 150, 3), torch.tensor(avatar.torso.gaussians.position, dtype=FLOAT)

    def matched(head_colour, torso_colour):
        return reference.match(head_colour, torso_colour, head_position, torso_position, avatar.seam)

    inputs = differentiable(0.4 + 0.2 * rand(1, 150, 3), 0.4 + 0.2 * rand(2, 90, 3))
    assert gradcheck(matched, inputs, fast_mode=True)


def test_gradient_of_composite_and_formats() -> None:
    head, torso, mask = random_layer(0), random_layer(10), rand(20, 4, 6)

    def composed(head_colour, head_alpha, head_depth, torso_colour, torso_alpha, torso_depth, mask, background):
        colour, alpha, depth = reference.composite(
            Layer(head_colour, head_alpha, head_depth, head.doubt),
            Layer(torso_colour, torso_alpha, torso_depth, torso.doubt),
            depth_softness=0.02,
        )
        colour, alpha = reference.fill_holes(colour, alpha, mask)
        picture = reference.over(colour, alpha, background)
        return reference.to_rgba(colour, alpha), depth, picture, reference.to_nv12(0.5 * picture)

    assert gradcheck(composed, differentiable(*head[:3], *torso[:3], mask, rand(21, 4, 6, 3)), fast_mode=True)


def test_gradient_of_seam_mask() -> None:
    size = (24, 18)
    avatar = make_avatar(head_count=0, torso_count=0, network=False)
    camera = make_camera(size)

    def mask(transforms, translation, world_to_camera, intrinsics):
        return reference.seam_mask(avatar.seam, transforms, translation, world_to_camera, intrinsics, size)

    transforms = torch.eye(3, 4, dtype=FLOAT) + 0.02 * randn(0, 5, 3, 4)
    inputs = differentiable(transforms, 0.01 * randn(1, 3), *camera_tensors(camera))
    assert 0 < mask(*inputs).mean() < 1
    assert gradcheck(mask, inputs, fast_mode=True)


# --------------------------------------------------------------------------------------------- rotations, skin, bind


@few
@given(seeds)
def test_rodrigues_is_the_matrix_exponential(seed: int) -> None:
    axis_angle = 2 * randn(seed, 3)
    x, y, z = axis_angle.tolist()
    generator = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=FLOAT)
    torch.testing.assert_close(reference.rodrigues(axis_angle), torch.linalg.matrix_exp(generator))
    torch.testing.assert_close(reference.rodrigues(-axis_angle), reference.rodrigues(axis_angle).T)


def test_rodrigues_near_zero_keeps_its_precision() -> None:
    for angle in (0.0, 1e-9, 0.99e-4, 1.01e-4):
        expected = [math.cos(angle), math.sin(angle)]
        matrix = reference.rodrigues(torch.tensor([angle, 0, 0], dtype=FLOAT))
        np.testing.assert_allclose(matrix[1:, 1].numpy(), expected, rtol=1e-15, atol=1e-17)


@few
@given(seeds)
def test_quaternion_product_is_the_product_of_rotations(seed: int) -> None:
    a, b = randn(seed, 4), randn(seed + 1, 4)
    product = reference.quaternion_matrix(reference.quaternion_multiply(a, b))
    torch.testing.assert_close(product, reference.quaternion_matrix(a) @ reference.quaternion_matrix(b))
    torch.testing.assert_close(product @ product.T, torch.eye(3, dtype=FLOAT))
    assert torch.linalg.det(product) > 0
    torch.testing.assert_close(reference.quaternion_matrix(-2.5 * a), reference.quaternion_matrix(a))


def test_quaternion_and_rodrigues_agree() -> None:
    axis_angle = torch.tensor([0.3, -0.5, 0.2], dtype=FLOAT)
    half = axis_angle.norm() / 2
    quaternion = torch.cat([half.cos()[None], half.sin() * reference.normalise(axis_angle)])
    torch.testing.assert_close(reference.quaternion_matrix(quaternion), reference.rodrigues(axis_angle))


def test_rest_pose_is_the_identity() -> None:
    avatar = make_avatar(network=False)
    rig, expression, none = reference.tensors(avatar.rig), torch.zeros(100, dtype=FLOAT), torch.zeros(3, dtype=FLOAT)
    joints = reference.pose(rig["joint_rest"], rig["joint_expression"], expression, torch.zeros(5, 3, dtype=FLOAT))
    vertices = reference.skin(rig, joints, expression, none[:2], none)
    torch.testing.assert_close(vertices, rig["template"], atol=1e-7, rtol=0)

    # A rest frame is orthonormal, and its normal is the triangle's.
    frames = reference.triangle_frames(vertices, rig["faces"], rig["face_frames"])
    torch.testing.assert_close(frames.mT @ frames, torch.eye(3, dtype=FLOAT).expand_as(frames), atol=1e-5, rtol=0)
    assert (torch.linalg.det(frames) > 0).all()

    torso = GaussianTensors.of(avatar.torso.gaussians)
    body = reference.body_frames(torch.eye(3, 4, dtype=FLOAT), joints.transforms, none)
    bound = reference.bind_torso(torso, torch.tensor(avatar.torso.weights, dtype=FLOAT), body)
    torch.testing.assert_close(bound.mean, torso.position, atol=1e-7, rtol=0)
    scale = torch.linalg.svdvals(bound.factor)
    torch.testing.assert_close(scale, torso.log_scale.exp().sort(descending=True).values, atol=0, rtol=1e-6)


def test_joints_turn_about_themselves() -> None:
    avatar = make_avatar(head_count=0, torso_count=0, network=False)
    rig, expression = reference.tensors(avatar.rig), randn(0, 100)
    rest = reference.pose(rig["joint_rest"], rig["joint_expression"], expression, torch.zeros(5, 3, dtype=FLOAT))
    place = rig["joint_rest"] + rig["joint_expression"] @ expression
    for joint in range(5):
        axis_angles = torch.zeros(5, 3, dtype=FLOAT)
        axis_angles[joint, 0] = 0.5
        turned = reference.pose(rig["joint_rest"], rig["joint_expression"], expression, axis_angles).transforms
        stays = turned[joint, :, :3] @ place[joint] + turned[joint, :, 3]
        torch.testing.assert_close(stays, place[joint])
        torch.testing.assert_close(turned[joint, :, :3], reference.rodrigues(axis_angles[joint]))
        unmoved = {0: [], 1: [0]}.get(joint, [k for k in range(5) if k != joint])
        torch.testing.assert_close(turned[unmoved], rest.transforms[unmoved])


def homogeneous(rotation: np.ndarray, offset: np.ndarray) -> np.ndarray:
    return np.block([[rotation, offset[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def test_skin_written_out_vertex_by_vertex() -> None:
    """FLAME's equations with 4 x 4 matrices, one vertex at a time."""
    avatar, params = make_avatar(head_count=0, torso_count=0, segments=4, rings=4), make_params(seed=2)
    rig, expression = avatar.rig, params.expression[0].astype(float)
    turns = np.concatenate([params.rotation, params.neck, params.jaw, params.eyes.reshape(2, 3)]).astype(float)
    rotations = matrices(turns)
    joints = rig.joint_rest + rig.joint_expression @ expression
    chain = [homogeneous(rotations[0], joints[0])]
    for joint in range(1, 5):
        parent = max(0, PARENTS[joint])
        chain.append(chain[parent] @ homogeneous(rotations[joint], joints[joint] - joints[parent]))
    undo = [matrix @ homogeneous(np.eye(3), -joint) for matrix, joint in zip(chain, joints, strict=True)]
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])

    tensors = reference.tensors(rig)
    posed = reference.pose(
        tensors["joint_rest"], tensors["joint_expression"], torch.tensor(expression), torch.tensor(turns)
    )
    lids, translation = torch.tensor(params.eyelids[0], dtype=FLOAT), torch.tensor(params.translation[0], dtype=FLOAT)
    vertices = reference.skin(tensors, posed, torch.tensor(expression), lids, translation).numpy()
    for v in range(len(rig.template)):
        shaped = rig.template[v] + rig.expression_basis[v].astype(float) @ expression
        shaped = (
            shaped + rig.eyelid_basis[v].astype(float) @ params.eyelids[0] + rig.pose_basis[v].astype(float) @ feature
        )
        blended = sum(weight * matrix for weight, matrix in zip(rig.skinning_weights[v], undo, strict=True))
        np.testing.assert_allclose(vertices[v], (blended @ [*shaped, 1])[:3] + params.translation[0], atol=1e-12)

    theta = reference.conditioning(torch.tensor(expression), posed.rotations, lids).numpy()
    changes = (rotations - np.eye(3)).reshape(5, 9)
    expected = [*expression, *changes[2], *changes[3], *changes[4], *params.eyelids[0], *changes[1]]
    np.testing.assert_allclose(theta, expected, atol=1e-15)


def test_torso_written_out() -> None:
    avatar = make_avatar(head_count=0, torso_count=12)
    gaussians, weights = GaussianTensors.of(avatar.torso.gaussians), avatar.torso.weights.astype(float)
    transforms, translation = randn(0, 5, 3, 4), randn(1, 3)
    motion, response = randn(2, 9), randn(3, 9, 3, 4)
    span = torch.stack([-rand(4, 9), rand(5, 9)])  # some of the motion lies beyond it
    root = reference.body_root(motion, response, span)
    moved = np.clip(motion.numpy(), *span.numpy()) - span.mean(0).numpy()
    np.testing.assert_allclose(root.numpy(), np.eye(3, 4) + np.einsum("i,irc->rc", moved, response.numpy()), atol=1e-12)
    bound = reference.bind_torso(gaussians, torch.tensor(weights), reference.body_frames(root, transforms, translation))
    for i, p in enumerate(avatar.torso.gaussians.position.astype(float)):
        frames = [root.numpy(), transforms[0].numpy(), transforms[1].numpy()]
        places = [a @ [*p, 1] + translation.numpy() for a in frames]
        mean = sum(w * place for w, place in zip(weights[i], places, strict=True))
        linear = sum(w * a[:, :3] for w, a in zip(weights[i], frames, strict=True))
        rotation = reference.quaternion_matrix(gaussians.rotation[i]).numpy()
        scale = np.exp(avatar.torso.gaussians.log_scale[i].astype(float))
        np.testing.assert_allclose(bound.mean[i].numpy(), mean, atol=1e-12)
        np.testing.assert_allclose(bound.factor[i].numpy(), linear @ rotation @ np.diag(scale), atol=1e-12)
        normal = linear @ rotation[:, 2]
        np.testing.assert_allclose(bound.normal[i].numpy(), normal / np.linalg.norm(normal), atol=1e-12)


def test_head_follows_a_stretched_triangle() -> None:
    """A triangle stretched to twice its length along its tangent carries its Gaussians along, and stretches them."""
    rest = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=FLOAT)
    faces, none = torch.tensor([[0, 1, 2]]), torch.eye(2, dtype=FLOAT)[None]
    gaussians = random_gaussians(0, 4)
    face, barycentric = torch.zeros(4, dtype=torch.int64), torch.full((4, 3), 1 / 3, dtype=FLOAT)
    stretch = torch.tensor([2.0, 1.0, 1.0], dtype=FLOAT)
    frames = reference.triangle_frames(stretch * rest, faces, none)
    torch.testing.assert_close(frames[0], torch.diag(stretch))
    bound = reference.bind_head(gaussians, stretch * rest, faces, frames, face, barycentric)
    torch.testing.assert_close(bound.mean, stretch * (torch.tensor([1 / 3, 1 / 3, 0]) + gaussians.position))
    axes = reference.quaternion_matrix(gaussians.rotation) * gaussians.log_scale.exp()[:, None]
    torch.testing.assert_close(bound.factor, stretch[:, None] * axes)


def test_network_written_out() -> None:
    network = make_avatar(head_count=12, torso_count=0, rank=6).network
    theta = randn(0, 138).numpy()
    hidden = np.maximum(0, network.trunk_weight_0 @ theta + network.trunk_bias_0)
    hidden = np.maximum(0, network.trunk_weight_1 @ hidden + network.trunk_bias_1)
    offsets = reference.network_offsets(reference.tensors(network), torch.tensor(theta)).numpy()
    assert offsets.shape == (network.count, 13)
    for i in range(network.count):
        latent = np.zeros(6)
        for anchor, weight in zip(network.anchor_index[i], network.anchor_weight[i], strict=True):
            code = np.concatenate([hidden, network.anchor_code[anchor]])
            code = np.maximum(0, network.head_weight_0 @ code + network.head_bias_0)
            latent += weight * (network.head_weight_1 @ code + network.head_bias_1)
        np.testing.assert_allclose(offsets[i], network.basis[i].astype(float) @ latent, rtol=1e-6, atol=1e-9)


def test_each_channel_of_an_offset_goes_where_it_belongs() -> None:
    gaussians = random_gaussians(0, 3)
    offsets = 0.1 * randn(1, 2, 13)
    changed = reference.deform(gaussians, offsets)
    torch.testing.assert_close(changed.position[:2], gaussians.position[:2] + offsets[:, :3])
    torch.testing.assert_close(changed.log_scale[:2], gaussians.log_scale[:2] + offsets[:, 6:9])
    torch.testing.assert_close(changed.opacity_logit[:2], gaussians.opacity_logit[:2] + offsets[:, 9])
    torch.testing.assert_close(changed.colour[:2], gaussians.colour[:2] + offsets[:, 10:])
    torch.testing.assert_close(changed.colour[2], gaussians.colour[2])


@few
@given(seeds)
def test_covariances_are_symmetric_and_positive(seed: int) -> None:
    gaussians = random_gaussians(seed, 8)
    bound = reference.bind_torso(gaussians, rand(seed, 8, 3), randn(seed, 3, 3, 4))
    size = (64, 48)
    splats = reference.project(
        bound, rand(seed, 8), gaussians.colour, *camera_tensors(make_camera(size)), size, antialiased=True
    )
    for covariance in (bound.covariance, splats.covariance):
        torch.testing.assert_close(covariance, covariance.mT)
        largest = torch.linalg.eigvalsh(covariance)[:, -1]
        assert (torch.linalg.eigvalsh(covariance)[:, 0] >= -1e-12 * largest).all()
    assert (torch.linalg.eigvalsh(splats.covariance)[:, 0] >= reference.DILATION * 0.999).all()
    assert ((splats.opacity >= 0) & (splats.opacity <= 1)).all()


def test_deform_without_offsets_changes_nothing() -> None:
    gaussians = random_gaussians(0, 6)
    changed = reference.deform(gaussians, torch.zeros(4, 13, dtype=FLOAT))
    for name in ("position", "log_scale", "opacity_logit", "colour"):
        torch.testing.assert_close(getattr(changed, name), getattr(gaussians, name))
    torch.testing.assert_close(changed.rotation, reference.normalise(gaussians.rotation))


def test_deform_turns_by_the_rotation_vector() -> None:
    gaussians = random_gaussians(0, 1)
    small = torch.tensor([0.01, -0.02, 0.005], dtype=FLOAT)
    offsets = torch.zeros(1, 13, dtype=FLOAT)
    offsets[0, 3:6] = small
    turned = reference.quaternion_matrix(reference.deform(gaussians, offsets).rotation[0])
    expected = reference.rodrigues(small) @ reference.quaternion_matrix(gaussians.rotation[0])
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------------------------ project, rasterize


def test_projection_is_the_linearised_camera() -> None:
    size = (64, 48)
    world_to_camera, intrinsics = camera_tensors(make_camera(size, yaw=0.4))
    bound, colour = random_bound(3, 5), randn(5, 5, 3)

    def to_pixel(point: torch.Tensor) -> torch.Tensor:
        homogeneous = intrinsics @ (world_to_camera[:3, :3] @ point + world_to_camera[:3, 3])
        return homogeneous[:2] / homogeneous[2]

    opacity = rand(4, 5)
    plain = reference.project(bound, opacity, colour, world_to_camera, intrinsics, size, antialiased=False)
    smooth = reference.project(bound, opacity, colour, world_to_camera, intrinsics, size, antialiased=True)
    torch.testing.assert_close(plain.colour, colour.clamp(0, 1))
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(to_pixel, bound.mean[i])
        before = jacobian @ bound.covariance[i] @ jacobian.T
        torch.testing.assert_close(plain.mean[i], to_pixel(bound.mean[i]))
        torch.testing.assert_close(plain.covariance[i], before + 0.3 * torch.eye(2, dtype=FLOAT))
        # What a splat covers in all, opacity x area, is what it covered before the dilation.
        energy = smooth.opacity[i] * torch.linalg.det(smooth.covariance[i]).sqrt()
        torch.testing.assert_close(energy, opacity[i] * torch.linalg.det(before).sqrt())


def test_what_is_too_near_or_behind_is_not_drawn() -> None:
    size = (16, 12)
    world_to_camera, intrinsics = camera_tensors(make_camera(size))
    depth = torch.tensor([-1.0, 0.0, 0.0099, 0.0101, 1.0], dtype=FLOAT)
    mean = torch.stack([torch.zeros(5), torch.zeros(5), depth], 1).to(FLOAT) - world_to_camera[:3, 3]
    mean = mean @ world_to_camera[:3, :3]
    bound = Bound(mean, 0.01 * torch.eye(3, dtype=FLOAT).expand(5, 3, 3), mean)
    opacity = torch.full((5,), 0.5, dtype=FLOAT)
    splats = reference.project(bound, opacity, rand(0, 5, 3), world_to_camera, intrinsics, size, antialiased=True)
    assert splats.visible.tolist() == [False, False, False, True, True]
    hidden = splats._replace(visible=splats.visible & torch.tensor([True, True, True, False, False]))
    assert (reference.rasterize(hidden, size).alpha == 0).all()


def test_facing_fade_follows_the_normal() -> None:
    world_to_camera, _ = camera_tensors(make_camera())
    angles = torch.linspace(0, math.pi, 19, dtype=FLOAT)
    target = torch.tensor([0.0, -0.04, 0.0], dtype=FLOAT).expand(19, 3)  # the point that the camera looks at
    normal = torch.stack([angles.sin(), torch.zeros_like(angles), angles.cos()], dim=1)
    bound = Bound(target, torch.zeros(19, 3, 3, dtype=FLOAT), normal)
    fade = reference.facing_fade(bound, torch.ones(19, dtype=torch.bool), world_to_camera)
    torch.testing.assert_close(fade, ((angles.cos() + 0.4) / 0.25).clamp(0, 1), atol=1e-5, rtol=0)
    unflagged = reference.facing_fade(bound, torch.zeros(19, dtype=torch.bool), world_to_camera)
    assert (unflagged == 1).all()


def test_one_splat_has_the_profile_of_a_gaussian() -> None:
    colour = torch.tensor([[0.2, 0.6, 1.0]], dtype=FLOAT)
    covariance = torch.tensor([[[9.0, 2.0], [2.0, 4.0]]], dtype=FLOAT)
    centre = torch.tensor([[20.5, 16.5]], dtype=FLOAT)
    splat = Splats(centre, covariance, torch.tensor([1.5], dtype=FLOAT), torch.tensor([0.8], dtype=FLOAT), colour,
                   torch.tensor([True]))  # fmt: skip
    layer = reference.rasterize(splat, (41, 33))
    y, x = np.mgrid[:33, :41]
    offset = np.stack([x + 0.5 - 20.5, y + 0.5 - 16.5], -1)
    expected = 0.8 * np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", offset, np.linalg.inv(covariance[0].numpy()), offset))
    expected[expected < 1 / 255] = 0
    np.testing.assert_allclose(layer.alpha.numpy(), expected, atol=1e-12)
    assert layer.alpha[16, 20] == pytest.approx(0.8)
    torch.testing.assert_close(layer.colour, layer.alpha[..., None] * colour[0])
    torch.testing.assert_close(layer.depth[layer.alpha > 0], torch.full_like(layer.depth[layer.alpha > 0], 1.5))
    assert (layer.depth[layer.alpha == 0] == 0).all()


def blend_pixel_by_pixel(splats: Splats, size: tuple[int, int]) -> np.ndarray:
    """Colour, alpha, depth [H, W, 5], written as the sum is, without tiles or vectors."""
    result = np.zeros((size[1], size[0], 5))
    inverse = np.linalg.inv(splats.covariance.numpy())
    order = [i for i in np.argsort(splats.depth.numpy(), kind="stable") if splats.visible[i]]
    for y in range(size[1]):
        for x in range(size[0]):
            transmittance = 1.0
            for i in order:
                offset = np.array([x + 0.5, y + 0.5]) - splats.mean[i].numpy()
                alpha = min(0.999, float(splats.opacity[i]) * math.exp(-0.5 * offset @ inverse[i] @ offset))
                if alpha < 1 / 255:
                    continue
                weight = transmittance * alpha
                result[y, x] += weight * np.array([*splats.colour[i].tolist(), 1.0, float(splats.depth[i])])
                transmittance *= 1 - alpha
            if result[y, x, 3] > 0:
                result[y, x, 4] /= result[y, x, 3]
    return result


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seeds, st.integers(0, 12), st.integers(1, 35), st.integers(1, 20))
def test_tiles_do_not_change_the_sum(seed: int, count: int, width: int, height: int) -> None:
    splats = random_splats(seed, count, (width, height))
    layer = reference.rasterize(splats, (width, height))
    result = torch.cat([layer.colour, layer.alpha[..., None], layer.depth[..., None]], dim=-1)
    np.testing.assert_allclose(result.numpy(), blend_pixel_by_pixel(splats, (width, height)), atol=1e-10)
    assert ((layer.alpha >= 0) & (layer.alpha <= 1)).all()
    assert (layer.colour <= layer.alpha[..., None] + 1e-12).all()


def test_doubt_marks_alphas_at_the_cut_off() -> None:
    flat = 1e8 * torch.eye(2, dtype=FLOAT)[None]  # one alpha all over the picture
    for opacity, doubtful in ((1 / 255 + 1e-7, True), (1 / 255 - 1e-7, True), (0.0045, False), (0.0, False)):
        splat = Splats(torch.zeros(1, 2, dtype=FLOAT), flat, torch.ones(1, dtype=FLOAT),
                       torch.tensor([opacity], dtype=FLOAT), torch.ones(1, 3, dtype=FLOAT),
                       torch.tensor([True]))  # fmt: skip
        layer = reference.rasterize(splat, (8, 8), doubt_margin=1e-3)
        assert ((layer.doubt > 0) == doubtful).all()
        assert ((layer.alpha > 0) == (opacity >= 1 / 255)).all()


# ------------------------------------------------------------------------------------------------- match, composite


def test_sectors_start_at_the_front_and_grow_to_the_left() -> None:
    seam = replace(make_avatar(head_count=0, torso_count=0).seam, axis=np.array([0, 1, 0], np.float32))
    directions = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0]], dtype=FLOAT)
    sector = reference.seam_sector(torch.tensor(seam.centre, dtype=FLOAT) + 0.1 * directions, seam)
    torch.testing.assert_close(sector, torch.tensor([0, 2, 4, 6], dtype=FLOAT))


def test_match_brings_the_band_to_the_heads_colour() -> None:
    avatar = make_avatar(network=False)
    ones = np.ones_like(avatar.seam.torso_band_weight)
    seam = replace(avatar.seam, torso_band_weight=ones)
    torso_position = torch.tensor(avatar.torso.gaussians.position, dtype=FLOAT)
    # Points of the head's band all around the seam.
    head_position = torch.tensor(seam.centre, dtype=FLOAT) + randn(0, avatar.head.gaussians.count, 3)
    head_colour = torch.tensor([0.8, 0.5, 0.4], dtype=FLOAT).expand(len(head_position), 3)
    torso_colour = torch.tensor([0.3, 0.3, 0.6], dtype=FLOAT).expand(len(torso_position), 3)
    matched = reference.match(head_colour, torso_colour, head_position, torso_position, seam)
    band = torch.zeros(len(torso_position), dtype=torch.bool)
    band[torch.tensor(seam.torso_band, dtype=torch.int64)] = True
    torch.testing.assert_close(matched[band], head_colour[: int(band.sum())])
    torch.testing.assert_close(matched[~band], torso_colour[~band])
    unmatched = replace(seam, head_band=seam.head_band[:0])
    torch.testing.assert_close(
        reference.match(head_colour, torso_colour, head_position, torso_position, unmatched), torso_colour
    )


def test_match_interpolates_between_the_centres_of_sectors() -> None:
    """The head is brighter by k / 10 in sector k; one torso Gaussian per half sector takes its share of it."""
    turns = (torch.arange(16, dtype=FLOAT) / 2 + 0.25) / 8
    angle = 2 * math.pi * turns
    around = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], dim=1)
    band = np.arange(16, dtype=np.int32)
    seam = replace(
        make_avatar(head_count=0, torso_count=0).seam, centre=np.zeros(3, np.float32), torso_band=band, head_band=band,
        axis=np.array([0, 1, 0], np.float32), torso_band_weight=np.full(16, 0.5, np.float32),
    )  # fmt: skip
    brighter = torch.arange(8, dtype=FLOAT).repeat_interleave(2) / 10
    dark = torch.full((16, 3), 0.1, dtype=FLOAT)
    matched = reference.match(dark + brighter[:, None], dark, around, around, seam)
    for i in range(16):
        sector, half = divmod(i, 2)
        neighbour = (sector + (1 if half else -1)) % 8
        expected = 0.1 + 0.5 * (0.75 * sector + 0.25 * neighbour) / 10
        assert matched[i].tolist() == pytest.approx([expected] * 3)


def test_composite_blends_over_the_softness_of_depth() -> None:
    head, torso = random_layer(0), random_layer(10)
    for difference, front in ((0.03, 1.0), (0.02, 1.0), (0.01, 0.84375), (0.0, 0.5), (-0.02, 0.0)):
        torso = torso._replace(depth=head.depth + difference)
        colour, alpha, depth = reference.composite(head, torso, depth_softness=0.02)
        over = head.colour + (1 - head.alpha[..., None]) * torso.colour
        under = torso.colour + (1 - torso.alpha[..., None]) * head.colour
        torch.testing.assert_close(colour, front * over + (1 - front) * under)
        head_share = head.alpha * (1 - (1 - front) * torso.alpha)
        torch.testing.assert_close(depth, torso.depth - head_share / alpha * difference)


@few
@given(seeds)
def test_composite_with_an_empty_layer_is_the_other_layer(seed: int) -> None:
    layer, depth = random_layer(seed), 2 * rand(seed + 3, 4, 6)
    empty = Layer(torch.zeros_like(layer.colour), torch.zeros_like(layer.alpha), depth, layer.doubt)
    for pair in ((layer, empty), (empty, layer)):
        composed = reference.composite(*pair, depth_softness=0.01)
        for value, expected in zip(composed, layer, strict=False):
            torch.testing.assert_close(value, expected)


@few
@given(seeds)
def test_composite_does_not_care_which_layer_is_called_head(seed: int) -> None:
    head, torso = random_layer(seed), random_layer(seed + 10)
    composed = reference.composite(head, torso, depth_softness=0.02)
    torch.testing.assert_close(composed, reference.composite(torso, head, depth_softness=0.02))
    alpha = composed[1]
    assert ((alpha >= torch.maximum(head.alpha, torso.alpha) - 1e-12) & (alpha <= 1)).all()


def test_an_opaque_layer_in_front_hides_the_other() -> None:
    front, back = random_layer(0), random_layer(10)
    front = front._replace(alpha=torch.ones_like(front.alpha), depth=torch.full_like(front.depth, 0.5))
    for pair in ((front, back), (back, front)):
        colour, alpha, _ = reference.composite(*pair, depth_softness=0.01)
        torch.testing.assert_close(colour, front.colour)
        assert (alpha == 1).all()


@few
@given(seeds)
def test_holes_are_only_ever_filled(seed: int) -> None:
    layer, mask = random_layer(seed), rand(seed + 3, 4, 6)
    colour, alpha = reference.fill_holes(layer.colour, layer.alpha, mask)
    assert ((alpha >= layer.alpha) & (alpha <= 1 + 1e-12)).all()
    torch.testing.assert_close(colour / alpha[..., None], layer.colour / layer.alpha[..., None])
    colour, alpha = reference.fill_holes(layer.colour, layer.alpha, torch.ones_like(mask))
    assert (alpha[layer.alpha >= 0.5] >= 1 - 1e-9).all()
    for untouched in (torch.zeros_like(mask), torch.ones_like(mask)):
        bare = torch.zeros_like(layer.alpha)
        assert (reference.fill_holes(torch.zeros_like(layer.colour), bare, untouched)[1] == 0).all()


def test_seam_mask_covers_the_seam() -> None:
    size = (96, 72)
    seam = make_avatar(head_count=0, torso_count=0).seam
    world_to_camera, intrinsics = camera_tensors(make_camera(size))
    still, none = torch.eye(3, 4, dtype=FLOAT).expand(5, 3, 4), torch.zeros(3, dtype=FLOAT)
    mask = reference.seam_mask(seam, still, none, world_to_camera, intrinsics, size)
    homogeneous = intrinsics @ (
        world_to_camera[:3, :3] @ torch.tensor(seam.centre, dtype=FLOAT) + world_to_camera[:3, 3]
    )
    x, y = (homogeneous[:2] / homogeneous[2]).tolist()
    assert mask[int(y), int(x)] == 1
    assert mask[0, 0] == mask[-1, -1] == 0
    # Two half heights up: the mask has ended (the axis leans, so its projection is a little wider).
    pixels_per_metre = float(intrinsics[0, 0] / homogeneous[2])
    assert mask[int(y - 2.6 * seam.half_height * pixels_per_metre), int(x)] == 0
    # It rides half on the global, half on the neck joint: each of them moves it by half of its own way.
    for joint, share in ((0, 0.5), (1, 0.5), (2, 0.0)):
        moved = still.clone()
        moved[joint, 0, 3] = 0.02
        as_translation = torch.tensor([share * 0.02, 0, 0], dtype=FLOAT)
        torch.testing.assert_close(
            reference.seam_mask(seam, moved, none, world_to_camera, intrinsics, size),
            reference.seam_mask(seam, still, as_translation, world_to_camera, intrinsics, size),
        )
    behind = reference.seam_mask(seam, still, torch.tensor([0, 0, 5.0]), world_to_camera, intrinsics, size)
    assert (behind == 0).all()


# ------------------------------------------------------------------------------------------------- formats, pictures


@few
@given(st.floats(0, 1))
def test_grey_has_no_chroma(level: float) -> None:
    nv12 = reference.to_nv12(torch.full((2, 4, 3), level, dtype=FLOAT)) * 255
    torch.testing.assert_close(nv12[:2], torch.full((2, 4), 16 + 219 * level, dtype=FLOAT))
    torch.testing.assert_close(nv12[2], torch.full((4,), 128.0, dtype=FLOAT))


@pytest.mark.parametrize(
    ("rgb", "luma", "blue", "red"),
    [((1, 0, 0), 63, 102, 240), ((0, 1, 0), 173, 42, 26), ((0, 0, 1), 32, 240, 118), ((1, 1, 1), 235, 128, 128)],
)
def test_primaries_in_bt709(rgb: tuple[int, int, int], luma: int, blue: int, red: int) -> None:
    nv12 = reference.quantise(reference.to_nv12(torch.tensor(rgb, dtype=FLOAT).expand(2, 2, 3)))
    assert nv12.tolist() == [[luma, luma], [luma, luma], [blue, red]]


def test_nv12_refuses_odd_sizes() -> None:
    with pytest.raises(InvalidParameterError, match="even"):
        reference.to_nv12(torch.zeros(3, 4, 3))


def test_rgba_over_the_background_is_the_picture() -> None:
    layer = random_layer(0)
    background = rand(5, 4, 6, 3)
    rgba = reference.to_rgba(layer.colour, layer.alpha)
    again = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) * background
    torch.testing.assert_close(again, reference.over(layer.colour, layer.alpha, background))


def test_quantise_rounds_to_nearest_and_clamps() -> None:
    values = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.0, 2.0])
    assert reference.quantise(values).tolist() == [0, 0, 0, 1, 255, 255, 255]


def test_psnr() -> None:
    a = np.full((4, 5, 3), 100, np.uint8)
    assert reference.psnr(a, a) == math.inf
    assert reference.psnr(a, a + np.uint8(1)) == pytest.approx(20 * math.log10(255))
    assert reference.psnr(a, torch.tensor(a / 255 + 0.1)) == pytest.approx(20)
    with pytest.raises(InvalidParameterError, match="one shape"):
        reference.psnr(a, a[:2])


def test_resized_camera_sees_the_same() -> None:
    camera = make_camera((320, 240))
    camera = replace(camera, intrinsics=camera.intrinsics + np.float32([[0, 0, 8], [0, 0, -4], [0, 0, 0]]))
    half = camera.resized((160, 120))
    np.testing.assert_allclose(half.intrinsics[:2], camera.intrinsics[:2] / 2)
    wide = camera.resized((640, 240))
    np.testing.assert_allclose(wide.intrinsics, camera.intrinsics + np.float32([[0, 0, 160], [0, 0, 0], [0, 0, 0]]))


# ---------------------------------------------------------------------------------------------------- whole frames

SIZE = (96, 72)


def test_moving_the_head_is_moving_the_camera() -> None:
    avatar = without_torso(make_avatar(seed=3, head_count=400, size=SIZE))
    rotation, translation = torch.tensor([0.1, 0.6, -0.2], dtype=FLOAT), np.array([0.02, -0.01, 0.1])
    params = make_params(seed=3)
    still = params.replace(rotation=np.zeros((1, 3)), translation=np.zeros((1, 3)))
    moved = params.replace(rotation=rotation.numpy()[None], translation=translation[None])
    turn = reference.rodrigues(rotation).numpy()
    joint = avatar.rig.joint_rest[0] + avatar.rig.joint_expression[0] @ params.expression[0]
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = turn, joint - turn @ joint + translation
    camera = avatar.camera
    opposite = replace(camera, world_to_camera=(camera.world_to_camera @ motion).astype(np.float32))
    first = reference.frame(avatar, moved, background="transparent")
    second = reference.frame(avatar, still, camera=opposite, background="transparent")
    assert reference.psnr(first.colour, second.colour) > 80
    assert first.alpha.mean() > 0.1


def test_float32_and_float64_agree() -> None:
    avatar, params = make_avatar(seed=4, head_count=400, torso_count=250, size=SIZE), make_params(seed=4)
    single = reference.frame(avatar, params, dtype=torch.float32)
    double = reference.frame(avatar, params)
    assert single.colour.dtype == torch.float32
    assert reference.psnr(single.colour, double.colour) > 55


@pytest.mark.parametrize("network", [False, True])
def test_formats_and_backgrounds_of_one_frame(network: bool) -> None:
    avatar = make_avatar(seed=5, head_count=400, torso_count=250, network=network, size=SIZE)
    params = make_params(seed=5)
    rgb = reference.render(avatar, params)
    assert rgb.shape == (72, 96, 3)
    assert rgb.dtype == np.uint8
    assert reference.render(avatar, params, format="nv12").shape == (108, 96)
    rgba = reference.render(avatar, params, format="rgba")
    # Straight alpha, laid over the avatar's background by hand, is the picture but for rounding.
    alpha = rgba[..., 3:] / 255
    by_hand = rgba[..., :3] * alpha + (1 - alpha) * avatar.background
    assert np.abs(by_hand - rgb).max() <= 1.5
    grey = reference.render(avatar, params, background=(0.5, 0.5, 0.5))
    assert (grey[0, 0] == 128).all()
    assert (reference.render(avatar, params, background="transparent")[0, 0] == 0).all()
    assert (rgb[0, 0] == avatar.background[0, 0]).all()
    # The person is in the middle of the picture.
    assert rgba[36, 48, 3] > 150
    assert rgba[0, 0, 3] == 0


def test_layers_of_a_person_without_head_or_torso() -> None:
    avatar, params = make_avatar(seed=6, head_count=300, torso_count=200, size=SIZE), make_params(seed=6)
    bare = reference.frame(without_head(avatar), params)
    assert (bare.head.alpha == 0).all()
    assert bare.torso.alpha.max() > 0.5
    nobody = reference.render(without_torso(without_head(avatar)), params)
    assert (nobody == avatar.background).all()


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_are_drawn_in_silence() -> None:
    avatar, params = make_avatar(head_count=20, torso_count=20, size=(32, 24)), make_params()
    records = (avatar.rig, avatar.head, avatar.head.gaussians, avatar.torso, avatar.network, avatar.seam, avatar.camera)
    for record in (*records, params):
        for value in vars(record).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
    avatar.background.flags.writeable = False
    assert reference.render(avatar, params).shape == (24, 32, 3)


def test_motion_changes_the_picture_and_only_one_frame_is_taken() -> None:
    avatar = make_avatar(head_count=300, torso_count=200, size=SIZE)
    rest, moved = (reference.render(avatar, params) for params in (FlameParams.neutral(), make_params()))
    assert reference.psnr(rest, moved) < 35
    with pytest.raises(InvalidParameterError, match="T = 1"):
        reference.render(avatar, make_params(count=2))
    with pytest.raises(InvalidParameterError, match="format"):
        reference.render(avatar, make_params(), format="bgr")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_compare_of_the_reference_with_itself_finds_rounding_only(format: reference.Format) -> None:
    avatar, params = make_avatar(head_count=300, torso_count=200, size=SIZE), make_params()
    result = reference.compare(reference.render(avatar, params, format=format), avatar, params, format=format)
    assert result.psnr > 55
    assert result.largest <= 0.5 + 1e-6
    assert result.doubtful < 0.05
    other = reference.compare(
        reference.render(avatar, FlameParams.neutral(), format=format), avatar, params, format=format
    )
    assert other.psnr < 35
    assert other.largest > 10


def test_without_torch_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["torch"] = None
import being_rt
from being_rt.errors import MissingDependencyError
try:
    import being_rt.reference
except MissingDependencyError as error:
    assert "pip install" in str(error) and "\\n" not in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
