"""One frame, in plain PyTorch: the readable twin of the native renderer, and the picture that it is measured against.

Read it from top to bottom and you have read a frame: :func:`frame` and :func:`frame_splats` list the stages in order,
and below them stands one function per stage, with the equation that it computes. Everything runs in any float type
(float64 by default) and is differentiable with autograd wherever the mathematics is smooth. Nothing here is fast: a
1080p frame of 60,000 Gaussians takes seconds, which is what the native core is for.

Conventions (docs/conventions.md): metres, radians; FLAME space has Y up and the face looks to +Z; cameras have OpenCV's
axes, pixel centres lie at +0.5; quaternions are w, x, y, z; colours are sRGB 0..1 and are blended as they are.
Letters in shapes: V vertices, F triangles, N Gaussians, H x W pixels.

Example::

    from being_rt import FlameParams, demo_avatar
    from being_rt.reference import psnr, render

    picture = render(demo_avatar(), FlameParams.neutral(), size=(960, 540))  # uint8 [540, 960, 3]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Camera, Gaussians, Seam
from being_rt.errors import InvalidParameterError, MissingDependencyError

try:
    import torch
    from torch import Tensor
except ImportError as error:
    raise MissingDependencyError(
        "being_rt.reference needs PyTorch; install it with: pip install 'being_rt[train]'"
    ) from error

if TYPE_CHECKING:
    from being_rt.flame.params import FlameParams

Format = Literal["rgb", "rgba", "nv12"]
Background = tuple[float, float, float] | NDArray[np.uint8] | Literal["transparent"] | None

NEAR = 0.01  # metres; what lies closer to the camera's plane, or behind it, is not drawn
DILATION = 0.3  # px^2 added to both variances of a splat: no splat is thinner than about a pixel (3DGS)
FRUSTUM_MARGIN = 1.3  # the Jacobian is not evaluated further out than 1.3 times half the picture (3DGS)
ALPHA_MINIMUM = 1 / 255  # what cannot change an 8-bit pixel is skipped (3DGS)
ALPHA_MAXIMUM = 0.999
FADE_START, FADE_RANGE = -0.40, 0.25  # cosine between normal and view at which a facing Gaussian appears; to full
TIE = 1e-6  # metres at up to 1 m, more beyond: what float32 and a sort by 21 bits cannot tell apart
SECTORS = 8  # of the colour match around the neck, 45 degrees each
HOLE_START, HOLE_RANGE = 0.05, 0.45  # coverage at the seam that counts as none, and from there to full
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # px
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
TILE = 16  # px; rasterize works tile by tile, for speed and memory only: the result does not depend on it


# ---------------------------------------------------------------------------------------------------- the whole frame


class Layer(NamedTuple):
    """A rasterized layer."""

    colour: Tensor  # [H, W, 3] premultiplied by alpha
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W] metres along the camera's axis, expected over what is seen; 0 where alpha is 0
    doubt: Tensor  # [H, W] see rasterize


class Frame(NamedTuple):
    """Both layers of a frame and what they compose to, before background and quantisation."""

    head: Layer
    torso: Layer
    colour: Tensor  # [H, W, 3] premultiplied
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W] metres, expected; 0 where alpha is 0
    background: Tensor  # [H, W, 3]
    doubt: Tensor  # [H, W] by how much a colour may differ because rounding decides a cut-off or an order


def render(
    avatar: Avatar,
    params: FlameParams,
    size: tuple[int, int] | None = None,
    camera: Camera | None = None,
    background: Background = None,
    format: Format = "rgb",
    dtype: torch.dtype = torch.float64,
) -> NDArray[np.uint8]:
    """Draw one frame, as ``Renderer.render`` does: the same arguments, the same picture, slowly.

    Args:
        avatar: the person.
        params: one frame of motion (T = 1).
        size: width, height in pixels; the avatar's own where None.
        camera: the avatar's own where None; rescaled to ``size`` by :meth:`Camera.resized`.
        background: None (the avatar's own), a colour in 0..1, a picture uint8 [H, W, 3], or "transparent" (black where
            the format has no alpha).
        format: "rgb" [H, W, 3], "rgba" [H, W, 4] with straight alpha and no background, "nv12" [H * 3 / 2, W].
        dtype: float type of the whole computation.

    Raises:
        InvalidParameterError: T is not 1, an unknown format, or a size that NV12 cannot have.
    """
    with torch.no_grad(), _one_thread():
        drawn = frame(avatar, params, size, camera, background, dtype)
        return quantise(picture(drawn, format))


def frame(
    avatar: Avatar,
    params: FlameParams,
    size: tuple[int, int] | None = None,
    camera: Camera | None = None,
    background: Background = None,
    dtype: torch.dtype = torch.float64,
    doubt_margin: float = 0.0,
) -> Frame:
    """The stages of a frame in their order, up to the premultiplied picture. Arguments and errors as :func:`render`.

    ``doubt_margin`` is :func:`rasterize`'s: with 0, ``doubt`` is 0 everywhere.
    """
    camera = (camera or avatar.camera).resized(size or avatar.camera.size)
    head_splats, torso_splats, joints = frame_splats(avatar, params, camera, dtype)
    head = rasterize(head_splats, camera.size, doubt_margin)
    torso = rasterize(torso_splats, camera.size, doubt_margin)
    colour, alpha, depth = composite(head, torso, avatar.seam.depth_softness)
    translation = torch.tensor(params.translation[0], dtype=dtype)
    mask = seam_mask(avatar.seam, joints.transforms, translation, *_camera_tensors(camera, dtype), camera.size)
    colour, alpha = fill_holes(colour, alpha, mask)
    plate = background_picture(avatar.background if background is None else background, camera.size, dtype)
    return Frame(head, torso, colour, alpha, depth, plate, head.doubt + torso.doubt)


def frame_splats(
    avatar: Avatar, params: FlameParams, camera: Camera, dtype: torch.dtype = torch.float64
) -> tuple[Splats, Splats, Joints]:
    """The first half of a frame, from parameters to the splats of head and torso, in the avatar's order.

    Args:
        avatar: the person.
        params: one frame of motion (T = 1).
        camera: at the size to draw.
        dtype: float type.

    Raises:
        InvalidParameterError: T is not 1.
    """
    if len(params.expression) != 1:
        raise InvalidParameterError(f"a frame needs params with T = 1, got T = {len(params.expression)}; use params[t]")
    motion = {name: torch.tensor(value[0], dtype=dtype) for name, value in vars(params).items() if name != "fps"}
    rig = tensors(avatar.rig, dtype)
    faces, face_frames = rig["faces"], rig["face_frames"]
    head = rest_head = GaussianTensors.of(avatar.head.gaussians, dtype)
    torso = GaussianTensors.of(avatar.torso.gaussians, dtype)
    binding = tensors(avatar.head, dtype)  # face, barycentric
    carried = tensors(avatar.torso, dtype)  # weights, response, response_range
    world_to_camera, intrinsics = _camera_tensors(camera, dtype)

    # pose, skin
    axis_angles = torch.cat([motion["rotation"], motion["neck"], motion["jaw"], motion["eyes"]]).reshape(5, 3)
    joints = pose(rig["joint_rest"], rig["joint_expression"], motion["expression"], axis_angles)
    vertices = skin(rig, joints, motion["expression"], motion["eyelids"], motion["translation"])

    # deform; match: where a Gaussian lies around the neck is decided at rest, what colour it has is this frame's
    if avatar.network is not None:
        theta = conditioning(motion["expression"], joints.rotations, motion["eyelids"])
        head = deform(head, network_offsets(tensors(avatar.network, dtype), theta))
    rest_frames = triangle_frames(rig["template"], faces, face_frames)
    rest_mean = bind_head(rest_head, rig["template"], faces, rest_frames, **binding).mean
    torso = torso._replace(colour=match(head.colour, torso.colour, rest_mean, torso.position, avatar.seam))

    # bind
    frames = triangle_frames(vertices, faces, face_frames)
    head_bound = bind_head(head, vertices, faces, frames, **binding)
    torso_bound = bind_torso(torso, carried["weights"], torso_body(carried, motion, joints.transforms))

    # fade, project: each layer alone
    splats = []
    for gaussians, bound in ((head, head_bound), (torso, torso_bound)):
        opacity = torch.sigmoid(gaussians.opacity_logit)
        opacity = opacity * facing_fade(bound, gaussians.facing_fade, world_to_camera)
        colour = gaussians.colour
        splats.append(project(bound, opacity, colour, world_to_camera, intrinsics, camera.size, avatar.antialiased))
    return splats[0], splats[1], joints


def _camera_tensors(camera: Camera, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """world_to_camera [4, 4], intrinsics [3, 3]."""
    return torch.tensor(camera.world_to_camera, dtype=dtype), torch.tensor(camera.intrinsics, dtype=dtype)


def picture(drawn: Frame, format: Format) -> Tensor:
    """The frame in an output format, not yet quantised: values 0..1 stand for the bytes 0..255. Shapes: :func:`render`.

    Raises:
        InvalidParameterError: an unknown format, or an odd size with "nv12".
    """
    if format == "rgba":
        return to_rgba(drawn.colour, drawn.alpha)
    rgb = over(drawn.colour, drawn.alpha, drawn.background)
    if format == "rgb":
        return rgb
    if format == "nv12":
        return to_nv12(rgb)
    raise InvalidParameterError(f"format must be 'rgb', 'rgba' or 'nv12', got {format!r}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """A tile is too little work to share: on two busy cores, waiting for the second one costs ten times the gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------- records as tensors, by name


class GaussianTensors(NamedTuple):
    """:class:`being_rt.avatar.avatar.Gaussians` as tensors of one float type."""

    position: Tensor  # [N, 3]
    rotation: Tensor  # [N, 4]
    log_scale: Tensor  # [N, 3]
    opacity_logit: Tensor  # [N]
    colour: Tensor  # [N, 3]
    facing_fade: Tensor  # [N] bool

    @classmethod
    def of(cls, gaussians: Gaussians, dtype: torch.dtype = torch.float64) -> GaussianTensors:
        return cls(**tensors(gaussians, dtype))


def tensors(record: Any, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """The arrays of a dataclass by name: floats in ``dtype``, indices as int64, flags as bool."""
    result = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            kind = {"f": dtype, "b": torch.bool}.get(value.dtype.kind, torch.int64)
            # Integers by way of NumPy, for PyTorch knows uint16 by name only. Copies, for files are mapped read-only.
            result[field.name] = torch.tensor(value.astype(np.int64) if kind is torch.int64 else value, dtype=kind)
    return result


# ---------------------------------------------------------------------------------------------------------- rotations


def rodrigues(axis_angle: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3]: ``R = I + sin(a)/a K + (1 - cos(a))/a^2 K^2``.

    Loper et al., "SMPL: a skinned multi-person linear model", 2015, equation 1. Smooth at 0 as well.
    """
    squared = (axis_angle * axis_angle).sum(-1)[..., None, None]
    # Both factors are smooth in a^2; below 1e-8 two terms of their series are exact in float64, and have a derivative.
    small = squared < 1e-8
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=axis_angle.dtype) + sine * cross + cosine * (cross @ cross)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton's product of quaternions [..., 4]: the rotation b, then the rotation a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quaternion_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4] of any length but 0."""
    w, x, y, z = normalise(quaternion).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def normalise(vector: Tensor) -> Tensor:
    """Unit vectors along [..., n]."""
    return vector / vector.norm(dim=-1, keepdim=True)


# --------------------------------------------------------------------------------------------------------- pose, skin


class Joints(NamedTuple):
    """The posed skeleton."""

    rotations: Tensor  # [5, 3, 3] each joint's own
    transforms: Tensor  # [5, 3, 4] A_j: rest pose to posed, without the translation of the whole
    feature: Tensor  # [36] what drives the pose correctives


def pose(joint_rest: Tensor, joint_expression: Tensor, expression: Tensor, axis_angles: Tensor) -> Joints:
    """Carry the rotations along the joint chain global - neck - (jaw, left eye, right eye).

    ``J = joint_rest + joint_expression expression``, ``G_0 = [R_0 | J_0]``, ``G_j = G_parent [R_j | J_j - J_parent]``,
    and ``A_j = G_j`` with the rest position undone: ``t_j - (rotation of G_j) J_j``. The feature is ``R_1..4 - I``,
    row by row. Loper et al. 2015, equations 3, 4 and 9; Li et al. 2017, section 4.

    Args:
        joint_rest: [5, 3] metres.
        joint_expression: [5, 3, 100].
        expression: [100].
        axis_angles: [5, 3] radians: global, neck, jaw, left eye, right eye.
    """
    position = joint_rest + joint_expression @ expression
    rotation = rodrigues(axis_angles)
    turned = [rotation[0], rotation[0] @ rotation[1]]
    moved = [position[0], position[0] + rotation[0] @ (position[1] - position[0])]
    for joint in (2, 3, 4):
        turned.append(turned[1] @ rotation[joint])
        moved.append(moved[1] + turned[1] @ (position[joint] - position[1]))
    turn, move = torch.stack(turned), torch.stack(moved)
    offset = move - (turn @ position[:, :, None])[:, :, 0]
    feature = (rotation[1:] - torch.eye(3, dtype=rotation.dtype)).flatten()
    return Joints(rotation, torch.cat([turn, offset[:, :, None]], dim=2), feature)


def skin(rig: dict[str, Tensor], joints: Joints, expression: Tensor, eyelids: Tensor, translation: Tensor) -> Tensor:
    """Posed vertices [V, 3]: blendshapes and pose correctives, then linear blend skinning.

    ``v = template + E expression + L eyelids + P feature``, ``v' = sum_j w_j A_j v + translation``.
    Li et al., "Learning a model of facial shape and expression from 4D scans", 2017, equations 1 to 4; the eyelids are
    two further blendshapes.

    Args:
        rig: :func:`tensors` of a :class:`being_rt.flame.rig.Rig`.
        joints: from :func:`pose`.
        expression: [100].
        eyelids: [2].
        translation: [3] metres.
    """
    shaped = rig["template"] + rig["expression_basis"] @ expression + rig["eyelid_basis"] @ eyelids
    shaped = shaped + rig["pose_basis"] @ joints.feature
    blended = torch.einsum("vj,jrc->vrc", rig["skinning_weights"], joints.transforms)
    return _apply(blended, shaped) + translation


def conditioning(expression: Tensor, rotations: Tensor, eyelids: Tensor) -> Tensor:
    """What the offset network sees, [138]: expression, jaw, left eye, right eye, eyelids, neck (R - I, row by row)."""
    change = (rotations - torch.eye(3, dtype=rotations.dtype)).flatten(1)
    return torch.cat([expression, change[2], change[3], change[4], eyelids, change[1]])


# ------------------------------------------------------------------------------------------------------------- deform


def network_offsets(network: dict[str, Tensor], theta: Tensor) -> Tensor:
    """Offsets [n, 13] of the first n head Gaussians: anchor-latent blended Gaussians.

    A small network turns theta [138] into one latent vector per anchor,
    ``h = relu(W1 relu(W0 theta + b0) + b1)``, ``Z_k = V1 relu(V0 [h, code_k] + c0) + c1``;
    each Gaussian mixes those of its four anchors, ``z_i = sum_k w_ik Z_k``, and has its own basis: ``o_i = B_i z_i``.
    The bases are blendshapes per Gaussian, as in Ma et al., "3D Gaussian blendshapes for head avatar animation", 2024,
    equation 4, with learned coefficients that vary over the head.

    Args:
        network: :func:`tensors` of an :class:`being_rt.avatar.avatar.AnchorLatentNetwork`.
        theta: from :func:`conditioning`.
    """
    latent = anchor_latents(network, theta)
    return blend_offsets(latent, network["anchor_index"], network["anchor_weight"], network["basis"])


def anchor_latents(network: dict[str, Tensor], theta: Tensor) -> Tensor:
    """Latents [M, K] of the anchors: the first half of :func:`network_offsets`, which names the arguments."""
    hidden = torch.relu(network["trunk_weight_0"] @ theta + network["trunk_bias_0"])
    hidden = torch.relu(network["trunk_weight_1"] @ hidden + network["trunk_bias_1"])
    code = network["anchor_code"]
    anchors = torch.cat([hidden.expand(len(code), -1), code], dim=1)
    anchors = torch.relu(anchors @ network["head_weight_0"].T + network["head_bias_0"])
    return anchors @ network["head_weight_1"].T + network["head_bias_1"]


def blend_offsets(latent: Tensor, anchor_index: Tensor, anchor_weight: Tensor, basis: Tensor) -> Tensor:
    """Offsets [n, 13] from latents [M, K]: the second half of :func:`network_offsets`."""
    mixed = (anchor_weight[:, :, None] * latent[anchor_index]).sum(1)
    return (basis @ mixed[:, :, None])[:, :, 0]


def point_offsets(positional: Tensor, theta: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """Offsets [n, O] of points that share a network: a perceptron on a point's own inputs and the frame's, ReLU.

    Xiang et al., "FlashAvatar: High-fidelity head avatar with efficient Gaussian embedding", 2024, section 3.2.

    Args:
        positional: [n, P] a point's own inputs.
        theta: [C] the frame's.
        weights: of the layers, [outputs, inputs] each; the first takes P + C inputs.
        biases: of the same layers.
    """
    hidden = torch.cat([positional, theta.expand(len(positional), -1)], dim=1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = (torch.relu(hidden) if layer > 0 else hidden) @ weight.T + bias
    return hidden


def deform(gaussians: GaussianTensors, offsets: Tensor) -> GaussianTensors:
    """Add offsets [n, 13] to the first n of N Gaussians (channels as in being_rt.avatar.avatar.CHANNELS).

    Position, log scale, opacity logit and colour add up (colours are clamped last of all, in :func:`project`); the
    rotation is followed by the rotation vector v to first order, ``q' = normalise(q + 1/2 (0, v) q)``.
    """
    missing = gaussians.position.shape[0] - offsets.shape[0]
    offsets = torch.cat([offsets, offsets.new_zeros(missing, offsets.shape[1])])
    turn = torch.cat([torch.zeros_like(offsets[:, :1]), offsets[:, 3:6]], dim=1)
    rotation = gaussians.rotation + 0.5 * quaternion_multiply(turn, gaussians.rotation)
    return gaussians._replace(
        position=gaussians.position + offsets[:, 0:3],
        rotation=normalise(rotation),
        log_scale=gaussians.log_scale + offsets[:, 6:9],
        opacity_logit=gaussians.opacity_logit + offsets[:, 9],
        colour=gaussians.colour + offsets[:, 10:13],
    )


# --------------------------------------------------------------------------------------------------------------- bind


class Bound(NamedTuple):
    """Gaussians in world space (FLAME space)."""

    mean: Tensor  # [N, 3] metres
    factor: Tensor  # [N, 3, 3] M; the covariance is M M^T, metres^2
    normal: Tensor  # [N, 3] unit: where local +Z points

    @property
    def covariance(self) -> Tensor:
        """[N, 3, 3], symmetric, positive semi-definite. Kerbl et al. 2023, equation 6, with M = R S."""
        return self.factor @ self.factor.mT


def triangle_frames(vertices: Tensor, faces: Tensor, face_frames: Tensor) -> Tensor:
    """Frames [F, 3, 3] of posed triangles, columns tangent, bitangent, normal.

    ``[t b] = [e1 e2] E^-1``: tangent and bitangent are the rest frame's unit vectors carried by the triangle's own
    affine deformation, so they stretch with it; ``n = normalise(e1 x e2)``. This is the deformation gradient of Sumner
    and Popovic, "Deformation transfer for triangle meshes", 2004, equation 4, without stretch along the normal.

    Args:
        vertices: [V, 3].
        faces: [F, 3] int64.
        face_frames: [F, 2, 2], E^-1: the inverse of the rest edges in the rest tangent frame.
    """
    corner = vertices[faces]
    edges = torch.stack([corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]], dim=2)
    normal = normalise(torch.linalg.cross(edges[:, :, 0], edges[:, :, 1], dim=1))
    return torch.cat([edges @ face_frames, normal[:, :, None]], dim=2)


def bind_head(
    gaussians: GaussianTensors, vertices: Tensor, faces: Tensor, frames: Tensor, face: Tensor, barycentric: Tensor
) -> Bound:
    """Carry Gaussians with their triangles: ``mean = sum_k beta_k v_k + F p``, ``M = F R(q) diag(s)``.

    Shao et al., "SplattingAvatar", 2024, section 3.2 (barycentric embedding), with the local frame of Qian et al.,
    "GaussianAvatars", 2024, section 3.2.

    Args:
        gaussians: N of them, positions in the frame of their triangle.
        vertices: [V, 3] posed.
        faces: [F, 3] int64.
        frames: [F, 3, 3] from :func:`triangle_frames`.
        face: [N] int64, the triangle of each Gaussian.
        barycentric: [N, 3].
    """
    anchor = (barycentric[:, :, None] * vertices[faces[face]]).sum(1)
    return _place(gaussians, frames[face], anchor)


def body_root(motion: Tensor, response: Tensor, response_range: Tensor) -> Tensor:
    """How the body's rest pose answers the motion, [..., 3, 4]: ``I + sum_i f_i G_i``.

    Args:
        motion: [..., 9] translation, axis angles of the global joint and of the neck joint.
        response: G, [9, 3, 4].
        response_range: [2, 9], lowest and highest value of each; f is kept within it and counted from its middle.
    """
    low, high = response_range
    moved = motion.clamp(low, high) - (low + high) / 2
    identity = torch.eye(3, 4, dtype=motion.dtype, device=motion.device)
    return identity + (moved @ response.flatten(1)).unflatten(-1, (3, 4))


def body_frames(root: Tensor, transforms: Tensor, translation: Tensor) -> Tensor:
    """What carries a torso: affine maps [..., 3, 3, 4] of root, global joint and neck joint, rest pose to world.

    Args:
        root: [..., 3, 4] from :func:`body_root`.
        transforms: [..., 5, 3, 4] from :func:`pose`.
        translation: [..., 3] metres, common to all three.
    """
    frames = torch.cat([root[..., None, :, :], transforms[..., :2, :, :]], -3)
    return torch.cat([frames[..., :3], frames[..., 3:] + translation[..., None, :, None]], -1)


def torso_body(torso: Mapping[str, Tensor], motion: Mapping[str, Tensor], transforms: Tensor) -> Tensor:
    """:func:`body_frames` [3, 3, 4] of an avatar's torso in one frame.

    Args:
        torso: response and response_range, as :func:`tensors` gives them of a layer.
        motion: translation, rotation and neck, [3] each.
        transforms: [5, 3, 4] from :func:`pose`.
    """
    answered = torch.cat([motion["translation"], motion["rotation"], motion["neck"]])
    root = body_root(answered, torso["response"], torso["response_range"])
    return body_frames(root, transforms, motion["translation"])


def bind_torso(gaussians: GaussianTensors, weights: Tensor, body: Tensor) -> Bound:
    """Linear blend skinning of Gaussians: ``mean = sum_k w_k A_k p``, ``M = (sum_k w_k R_k) R(q) diag(s)``.

    Args:
        gaussians: N of them, positions in the rest pose.
        weights: [N, 3] of root, global joint and neck joint.
        body: [3, 3, 4] from :func:`body_frames`.
    """
    blended = torch.einsum("nk,krc->nrc", weights, body)
    return _place(gaussians, blended[:, :, :3], blended[:, :, 3])


def _place(gaussians: GaussianTensors, linear: Tensor, offset: Tensor) -> Bound:
    """Gaussians under affine maps ``x -> linear x + offset``."""
    mean = (linear @ gaussians.position[:, :, None])[:, :, 0] + offset
    turned = linear @ quaternion_matrix(gaussians.rotation)
    factor = turned * gaussians.log_scale.exp()[:, None, :]
    return Bound(mean, factor, normalise(turned[:, :, 2]))


def _apply(transforms: Tensor, points: Tensor) -> Tensor:
    """Points [N, 3] under affine maps [N, 3, 4]."""
    return (transforms[:, :, :3] @ points[:, :, None])[:, :, 0] + transforms[:, :, 3]


def facing_fade(bound: Bound, flagged: Tensor, world_to_camera: Tensor) -> Tensor:
    """Factor [N] on the opacity: flagged Gaussians vanish as their normal turns away from the camera; others keep 1.

    ``clamp((n . v + 0.40) / 0.25, 0, 1)`` with v the direction to the camera: skin seen from behind is not drawn, so
    the far side of a head does not shine through the near one. It begins well past the silhouette: skin at an outline
    whose normal is a little wrong, as on an ear, would be half transparent there.
    """
    camera_position = -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]
    cosine = (bound.normal * normalise(camera_position - bound.mean)).sum(-1)
    fade = ((cosine - FADE_START) / FADE_RANGE).clamp(0, 1)
    return torch.where(flagged, fade, torch.ones_like(fade))


# ------------------------------------------------------------------------------------------------- project, rasterize


class Splats(NamedTuple):
    """Gaussians on the picture."""

    mean: Tensor  # [N, 2] px
    covariance: Tensor  # [N, 2, 2] px^2, dilated
    depth: Tensor  # [N] metres along the camera's axis
    opacity: Tensor  # [N] 0..1
    colour: Tensor  # [N, 3]
    visible: Tensor  # [N] bool: in front of the camera


def project(
    bound: Bound,
    opacity: Tensor,
    colour: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    antialiased: bool,
) -> Splats:
    """Project Gaussians to splats: the camera's map, linearised at each mean.

    ``Sigma' = J W Sigma W^T J^T`` (Zwicker et al., "EWA volume splatting", 2001, equations 24 to 31; Kerbl et al., "3D
    Gaussian splatting", 2023, equation 5), J at a point clamped to 1.3 times the picture, plus a dilation of 0.3 px^2.
    With ``antialiased`` the opacity shrinks by as much as the dilation swells the splat, ``sqrt(det Sigma' before / det
    after)`` (the 2D Mip filter of Yu et al., "Mip-Splatting", 2024, section 5.2).

    Args:
        bound: in world space.
        opacity: [N].
        colour: [N, 3], clamped to 0..1 here.
        world_to_camera: [4, 4].
        intrinsics: [3, 3] px.
        size: width, height px.
        antialiased: see above.
    """
    rotation = world_to_camera[:3, :3]
    point = bound.mean @ rotation.T + world_to_camera[:3, 3]
    visible = point[:, 2] >= NEAR
    # Points that are not drawn get a harmless depth, so that no division by 0 reaches a gradient.
    depth = torch.where(visible, point[:, 2], torch.ones_like(point[:, 2]))
    focal = intrinsics.diagonal()[:2]
    slope = point[:, :2] / depth[:, None]
    mean = focal * slope + intrinsics[:2, 2]
    axes = _project_axes(bound.factor, rotation, slope, depth, focal, size)
    covariance = axes @ axes.mT + DILATION * torch.eye(2, dtype=axes.dtype)
    if antialiased:
        # det(E E^T) is the sum of the squared minors of E; as a difference of products it would be lost for a hair.
        before = torch.linalg.cross(axes[:, 0], axes[:, 1], dim=1).square().sum(1)
        opacity = opacity * (before / torch.linalg.det(covariance)).sqrt()
    return Splats(mean, covariance, depth, opacity, colour.clamp(0, 1), visible)


def _project_axes(
    factor: Tensor, rotation: Tensor, slope: Tensor, depth: Tensor, focal: Tensor, size: tuple[int, int]
) -> Tensor:
    """E = J W M [N, 2, 3] px of factors M [N, 3, 3] metres in world space: the covariance on the picture is E E^T."""
    limit = FRUSTUM_MARGIN * torch.tensor(size, dtype=focal.dtype) / (2 * focal)
    clamped = torch.minimum(torch.maximum(slope, -limit), limit)
    # J = [f_x/z 0 -f_x (x/z)/z; 0 f_y/z -f_y (y/z)/z]
    jacobian = torch.cat([torch.diag(focal).expand(len(slope), 2, 2), -(focal * clamped)[:, :, None]], dim=2)
    return jacobian / depth[:, None, None] @ rotation @ factor


def rasterize(splats: Splats, size: tuple[int, int], doubt_margin: float = 0.0) -> Layer:
    """Blend splats from front to back.

    ``alpha_i = min(0.999, o_i exp(-1/2 d^T Sigma'^-1 d))`` with d from the pixel's centre, skipped below 1/255;
    ``T_i = prod_{j<i} (1 - alpha_j)``; ``C = sum T_i alpha_i c_i``, ``A = 1 - T``, ``D = sum T_i alpha_i z_i / A``.
    Kerbl et al. 2023, equation 3. There is no early stop: whoever stops at T < 1e-4 is off by less than that.

    Args:
        splats: from :func:`project`; order does not matter, equal depths keep theirs.
        size: width, height px.
        doubt_margin: relative width of the band around alpha = 1/255 within which another implementation's rounding may
            decide otherwise. The layer's ``doubt`` is the sum of ``T_i alpha_i`` over splats in that band, and of ``T_i
            alpha_i alpha_j |c_i - c_j|`` over neighbours in order whose depths are equal to float32's rounding: no
            colour channel can differ by much more on that account. 0: no doubt is computed.
    """
    width, height = size
    columns, rows = math.ceil(width / TILE), math.ceil(height / TILE)
    lowest = ALPHA_MINIMUM * (1 - doubt_margin)
    inverse = torch.linalg.inv(splats.covariance)
    with torch.no_grad():
        members = _tile_members(splats, columns, rows, lowest)
        pixel = torch.arange(TILE, dtype=splats.mean.dtype) + 0.5
        pixel_y, pixel_x = (axis.flatten() for axis in torch.meshgrid(pixel, pixel, indexing="ij"))
    features = torch.cat([splats.colour, torch.ones_like(splats.depth)[:, None], splats.depth[:, None]], dim=1)
    nothing = features.new_zeros(TILE * TILE, 6)

    tiles = []
    for index, member in enumerate(members):
        if len(member) == 0:
            tiles.append(nothing)
            continue
        x = (pixel_x + TILE * (index % columns))[:, None] - splats.mean[member, 0]
        y = (pixel_y + TILE * (index // columns))[:, None] - splats.mean[member, 1]
        conic = inverse[member]
        exponent = -0.5 * (conic[:, 0, 0] * x * x + conic[:, 1, 1] * y * y) - conic[:, 0, 1] * x * y
        alpha = (splats.opacity[member] * exponent.exp()).clamp(max=ALPHA_MAXIMUM)
        drawn = torch.where(alpha >= ALPHA_MINIMUM, alpha, torch.zeros_like(alpha))
        # Products as sums of logarithms, shifted by one: what lies before a splat, not the splat itself.
        logarithm = torch.log1p(-drawn)
        transmittance = (logarithm.cumsum(1) - logarithm).exp()
        doubt = nothing[:, :1]
        if doubt_margin > 0:
            near = (alpha - ALPHA_MINIMUM).abs() < ALPHA_MINIMUM * doubt_margin
            doubt = (transmittance * alpha * near).sum(1, keepdim=True)
            doubt = doubt + (transmittance * drawn)[:, :-1] * drawn[:, 1:] @ _tie_contrast(splats, member)[:, None]
        tiles.append(torch.cat([(transmittance * drawn) @ features[member], doubt], dim=1))

    canvas = torch.stack(tiles).reshape(rows, columns, TILE, TILE, 6).transpose(1, 2)
    canvas = canvas.reshape(rows * TILE, columns * TILE, 6)[:height, :width]
    alpha = canvas[..., 3]
    return Layer(canvas[..., :3], alpha, _divide(canvas[..., 4], alpha), canvas[..., 5])


def _tie_contrast(splats: Splats, member: Tensor) -> Tensor:
    """Of neighbours in a tile's list: the largest difference of a colour channel if their depths tie, else 0."""
    depth, colour = splats.depth[member], splats.colour[member]
    tied = depth.diff() < TIE * depth[1:].clamp(min=1)
    return tied * colour.diff(dim=0).abs().amax(1)


def _tile_members(splats: Splats, columns: int, rows: int, lowest: float) -> tuple[Tensor, ...]:
    """For each tile, row by row, the indices of the splats that reach it, nearest first."""
    index = torch.nonzero(splats.visible & (splats.opacity >= lowest))[:, 0]
    index = index[torch.argsort(splats.depth[index], stable=True)]
    # alpha >= lowest inside the ellipse d^T Sigma^-1 d <= r^2 = 2 ln(o / lowest), whose half width is r sqrt(Sigma_xx).
    reach = (2 * (splats.opacity[index] / lowest).log()).clamp(min=0).sqrt()
    half = reach[:, None] * splats.covariance[index].diagonal(dim1=1, dim2=2).sqrt()
    grid = torch.tensor([columns, rows])
    first = ((splats.mean[index] - half) / TILE).floor().long().clamp(min=0).minimum(grid)
    end = (((splats.mean[index] + half) / TILE).floor().long() + 1).clamp(min=0).minimum(grid)
    spans = (end - first).clamp(min=0)
    count = spans[:, 0] * spans[:, 1]
    # One entry per splat and tile, splats in order of depth; a stable sort by tile keeps that order within a tile.
    owner = torch.repeat_interleave(torch.arange(len(index)), count)
    within = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
    tile_x = first[owner, 0] + within % spans[owner, 0]
    tile_y = first[owner, 1] + within // spans[owner, 0]
    tile = tile_y * columns + tile_x
    order = torch.argsort(tile, stable=True)
    return index[owner[order]].split(torch.bincount(tile, minlength=columns * rows).tolist())


# --------------------------------------------------------------------------------------------------- match, composite


def seam_sector(position: Tensor, seam: Seam) -> Tensor:
    """Where points [N, 3] of the rest pose lie around the seam's axis, in sectors: [N] in [0, 8).

    0 points along +Z (the front), and the angle grows towards +X.
    """
    centre = torch.tensor(seam.centre, dtype=position.dtype)
    axis = torch.tensor(seam.axis, dtype=position.dtype)
    front = torch.tensor([0.0, 0.0, 1.0], dtype=position.dtype)
    front = normalise(front - (front @ axis) * axis)
    side = torch.linalg.cross(axis, front)
    relative = position - centre
    turns = torch.atan2(relative @ side, relative @ front) / (2 * math.pi)
    return (turns % 1.0) * SECTORS


def match(
    head_colour: Tensor, torso_colour: Tensor, head_position: Tensor, torso_position: Tensor, seam: Seam
) -> Tensor:
    """Colours [N_torso, 3] of the torso, shifted so that neck and head agree in each direction around the seam.

    Per sector of 45 degrees: the mean colour of the head's band minus that of the torso's band (0 where either has no
    member). Each Gaussian of the torso's band adds its weight times that difference, interpolated linearly between the
    centres of the two nearest sectors. Nothing is clamped before or here. It moves the lowest frequencies only, as the
    coarsest band of Burt and Adelson, "A multiresolution spline", 1983, does, and leaves texture alone.

    Args:
        head_colour: [N_head, 3], this frame's, after :func:`deform`.
        torso_colour: [N_torso, 3].
        head_position: [N_head, 3] in the rest pose.
        torso_position: [N_torso, 3] in the rest pose.
        seam: names the two bands.
    """
    head_band = torch.tensor(seam.head_band.astype(np.int64))
    torso_band = torch.tensor(seam.torso_band.astype(np.int64))
    weight = torch.tensor(seam.torso_band_weight, dtype=torso_colour.dtype)
    torso_sector = seam_sector(torso_position[torso_band], seam)
    head_mean, head_members = _sector_means(head_colour[head_band], seam_sector(head_position[head_band], seam))
    torso_mean, torso_members = _sector_means(torso_colour[torso_band], torso_sector)
    both = (head_members > 0) & (torso_members > 0)
    difference = torch.where(both[:, None], head_mean - torso_mean, torch.zeros_like(head_mean))
    place = torso_sector - 0.5  # centres of the sectors lie at halves
    before = place.floor()
    fraction = (place - before)[:, None]
    lower = before.long() % SECTORS
    shift = (1 - fraction) * difference[lower] + fraction * difference[(lower + 1) % SECTORS]
    return torso_colour.index_add(0, torso_band, weight[:, None] * shift)


def _sector_means(colour: Tensor, sector: Tensor) -> tuple[Tensor, Tensor]:
    """Mean colours [8, 3] and numbers of members [8]."""
    index = sector.long().clamp(max=SECTORS - 1)
    members = torch.bincount(index, minlength=SECTORS)
    total = colour.new_zeros(SECTORS, 3).index_add(0, index, colour)
    return total / members.clamp(min=1)[:, None], members


def smoothstep(value: Tensor) -> Tensor:
    """``3 x^2 - 2 x^3`` of x clamped to 0..1."""
    x = value.clamp(0, 1)
    return x * x * (3 - 2 * x)


def composite(head: Layer, torso: Layer, depth_softness: float) -> tuple[Tensor, Tensor, Tensor]:
    """Premultiplied colour [H, W, 3], alpha [H, W] and expected depth [H, W] of both layers, whichever is in front.

    Porter and Duff, "Compositing digital images", 1984, section 4.3 (over), in both orders, mixed by a soft depth test:
    ``s = smoothstep(1/2 + (D_torso - D_head) / (2 softness))`` is 1 where the head is in front. Where a layer is empty
    both orders give the other layer, so its depth there does not matter. Depths are blended as colours are.

    Args:
        head: from :func:`rasterize`.
        torso: from :func:`rasterize`.
        depth_softness: metres.
    """
    order = smoothstep(0.5 + (torso.depth - head.depth) / (2 * depth_softness))[..., None]
    head_sums, torso_sums = _sums(head), _sums(torso)
    head_over_torso = head_sums + (1 - head_sums[..., 3:4]) * torso_sums
    torso_over_head = torso_sums + (1 - torso_sums[..., 3:4]) * head_sums
    colour, alpha, depth = (order * head_over_torso + (1 - order) * torso_over_head).split([3, 1, 1], dim=-1)
    return colour, alpha[..., 0], _divide(depth, alpha)[..., 0]


def _sums(layer: Layer) -> Tensor:
    """[H, W, 5]: colour, alpha, and depth times alpha; sums over splats, all of which blend as colour does."""
    return torch.cat([layer.colour, layer.alpha[..., None], (layer.alpha * layer.depth)[..., None]], dim=-1)


def _divide(value: Tensor, by: Tensor) -> Tensor:
    """``value / by``, and 0 where ``by`` is 0, in the derivative as well."""
    positive = by > 0
    return torch.where(positive, value / torch.where(positive, by, torch.ones_like(by)), torch.zeros_like(by))


def seam_mask(
    seam: Seam,
    transforms: Tensor,
    translation: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """Where the seam is on the picture [H, W]: 1 within it, 0 away from it.

    The seam is an ellipsoid, ``Sigma = r^2 / 2 (I - a a^T) + h^2 a a^T``, carried by the mean of the global and the
    neck joint's transforms, projected as a Gaussian without dilation; ``1 - smoothstep(1, 2, m)`` of the Mahalanobis
    distance m. 0 everywhere where the radius is 0: there is no seam then.

    Args:
        seam: in the rest pose.
        transforms: [5, 3, 4] from :func:`pose`.
        translation: [3] metres.
        world_to_camera: [4, 4].
        intrinsics: [3, 3] px.
        size: width, height px.
    """
    width, height = size
    dtype = transforms.dtype
    carried = (transforms[0] + transforms[1]) / 2
    centre = carried[:, :3] @ torch.tensor(seam.centre, dtype=dtype) + carried[:, 3] + translation
    axis = normalise(carried[:, :3] @ torch.tensor(seam.axis, dtype=dtype))
    along = torch.outer(axis, axis)
    # Both terms are projections, orthogonal to each other: the square root of their sum takes that of each factor.
    root = seam.radius / math.sqrt(2) * (torch.eye(3, dtype=dtype) - along) + seam.half_height * along
    rotation = world_to_camera[:3, :3]
    point = rotation @ centre + world_to_camera[:3, 3]
    if point[2] < NEAR or seam.radius == 0:
        return torch.zeros(height, width, dtype=dtype)
    focal = intrinsics.diagonal()[:2]
    slope = point[:2] / point[2]
    axes = _project_axes(root[None], rotation, slope[None], point[2:], focal, size)[0]
    x = torch.arange(width, dtype=dtype) + 0.5
    y = torch.arange(height, dtype=dtype) + 0.5
    offset = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) - (focal * slope + intrinsics[:2, 2])
    squared = torch.einsum("hwi,ij,hwj->hw", offset, torch.linalg.inv(axes @ axes.T), offset)
    return 1 - smoothstep(squared.clamp(min=1).sqrt() - 1)


def fill_holes(colour: Tensor, alpha: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Close the gap that two soft edges leave where they meet: raise the coverage at the seam.

    ``A* = A + m (smoothstep((A - 0.05) / 0.45) - A)`` where that is more than A; ``C* = C A* / A``. What is half
    covered becomes full, what is bare stays bare.

    Args:
        colour: [H, W, 3] premultiplied.
        alpha: [H, W].
        mask: [H, W] from :func:`seam_mask`.
    """
    raised = torch.maximum(alpha, alpha + mask * (smoothstep((alpha - HOLE_START) / HOLE_RANGE) - alpha))
    return colour * _divide(raised, alpha)[..., None], raised


# ------------------------------------------------------------------------------------------------------------ formats


def over(colour: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """Premultiplied [H, W, 3] with alpha [H, W] over an opaque picture [H, W, 3]. Porter and Duff 1984, section 4.3."""
    return colour + (1 - alpha[..., None]) * background


def to_rgba(colour: Tensor, alpha: Tensor) -> Tensor:
    """Straight (unpremultiplied) colour and alpha [H, W, 4]; transparent black where alpha is 0."""
    return torch.cat([_divide(colour, alpha[..., None]), alpha[..., None]], dim=-1)


def to_nv12(rgb: Tensor) -> Tensor:
    """BT.709 limited range, NV12 layout [H * 3 / 2, W]: a plane of Y, then Cb and Cr interleaved at half resolution.

    ``Y = 16 + 219 Y'``, ``C = 128 + 224 C'`` with ``Y' = 0.2126 R + 0.7152 G + 0.0722 B``, ``Cb' = (B - Y') / 1.8556``,
    ``Cr' = (R - Y') / 1.5748`` (ITU-R BT.709-6, items 3.2, 3.3, 3.4), divided by 255 here; chroma is the mean of 2 x 2
    pixels.

    Raises:
        InvalidParameterError: width or height is odd.
    """
    height, width, _ = rgb.shape
    if height % 2 or width % 2:
        raise InvalidParameterError(f"NV12 needs an even width and height, got {width} x {height}")
    red, green, blue = rgb.clamp(0, 1).unbind(-1)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    chroma = torch.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748], dim=-1)
    chroma = chroma.reshape(height // 2, 2, width // 2, 2, 2).mean(dim=(1, 3))
    return torch.cat([16 + 219 * luma, (128 + 224 * chroma).reshape(height // 2, width)]) / 255


def quantise(values: Tensor) -> NDArray[np.uint8]:
    """Values 0..1, clamped, to the nearest of 0..255."""
    quantised: NDArray[np.uint8] = (values.detach().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return quantised


def background_picture(background: Background, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> Tensor:
    """A background as :func:`render` takes it, as a picture [H, W, 3].

    Of another shape, its middle, as large as fills the frame; resized with Pillow's bicubic filter.
    """
    width, height = size
    if background is None or isinstance(background, str):
        return torch.zeros(height, width, 3, dtype=dtype)
    if not isinstance(background, np.ndarray):
        return torch.tensor(background, dtype=dtype).expand(height, width, 3)
    if background.shape[:2] != (height, width):
        from PIL import Image

        rows, columns = background.shape[:2]
        scale = max(width / columns, height / rows)
        left, top = (columns - width / scale) / 2, (rows - height / scale) / 2
        middle = max(left, 0.0), max(top, 0.0), min(columns - left, columns), min(rows - top, rows)
        background = np.asarray(Image.fromarray(background).resize(size, Image.Resampling.BICUBIC, middle))
    return torch.tensor(background, dtype=dtype) / 255


# ------------------------------------------------------------------------------------------------------------- losses


def photometric_loss(
    picture: Tensor,
    target: Tensor,
    background: Tensor,
    weight: Tensor | None = None,
    l1: float = 0.8,
    dssim: float = 0.2,
    alpha: float = 0.0,
    huber: float | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """How far pictures are from what was seen: ``l1 * L1 + dssim * D + alpha * A`` and the three terms, [4].

    L1 is the mean over pixels and channels of :func:`difference` times the pixel's weight, D that of
    ``1 - SSIM`` (Kerbl et al. 2023, equation 7), A the mean over pixels of the absolute difference in coverage, beyond
    ``tolerance`` times the coverage seen.

    Args:
        picture: [B, H, W, 4] colour over the background, and alpha.
        target: uint8 [B, H, W, 4] colour and straight alpha; seen as ``a rgb + (1 - a) background``.
        background: what broadcasts to [B, H, W, 3].
        weight: uint8 [B, H, W] in sixteenths; 1 where None.
        l1: factor.
        dssim: factor; 0 leaves SSIM out, and D is 0.
        alpha: factor.
        huber: see :func:`difference`.
        tolerance: difference in coverage that costs nothing, in parts of the coverage seen.
    """
    colour, coverage = target.to(picture.dtype).div(255).split([3, 1], dim=-1)
    seen = coverage * colour + (1 - coverage) * background
    importance = torch.ones(picture.shape[:3]) if weight is None else weight / 16
    importance = importance.to(picture.dtype)[..., None]
    l1_term = (importance * difference(picture[..., :3], seen, huber)).mean()
    dssim_term = (importance * (1 - ssim(picture[..., :3], seen))).mean() if dssim else torch.zeros_like(l1_term)
    alpha_term = ((picture[..., 3:] - coverage).abs() - tolerance * coverage).relu().mean()
    return torch.stack([l1 * l1_term + dssim * dssim_term + alpha * alpha_term, l1_term, dssim_term, alpha_term])


def difference(first: Tensor, second: Tensor, huber: float | None = None) -> Tensor:
    """``|x|`` of the difference x; with ``huber`` d above 0: ``x^2 / 2`` where ``|x| < d``, else ``d (|x| - d / 2)``.

    Huber, "Robust estimation of a location parameter", 1964.
    """
    if not huber:
        return (first - second).abs()
    return torch.nn.functional.huber_loss(first, second, reduction="none", delta=huber)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of every value of pictures [B, H, W, C] in 0..1, channel by channel.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, equation 13, with
    section III.C's window (11 x 11, Gaussian, 1.5 px) and constants (0.01^2, 0.03^2). Pictures go on as zeros.
    """
    offset = torch.arange(SSIM_WINDOW, dtype=first.dtype) - SSIM_WINDOW // 2
    row = torch.exp(-(offset**2) / (2 * SSIM_SIGMA**2))
    window = torch.outer(row, row) / row.sum() ** 2

    def mean(values: Tensor) -> Tensor:
        planes = values.movedim(-1, 1).flatten(0, 1)[:, None]  # [B * C, 1, H, W]
        blurred = torch.nn.functional.conv2d(planes, window[None, None], padding=SSIM_WINDOW // 2)
        return blurred[:, 0].unflatten(0, (values.shape[0], values.shape[-1])).movedim(1, -1)

    a, b = mean(first), mean(second)
    variance_a, variance_b = mean(first**2) - a**2, mean(second**2) - b**2
    covariance = mean(first * second) - a * b
    luminance = (2 * a * b + SSIM_C1) / (a**2 + b**2 + SSIM_C1)
    return luminance * (2 * covariance + SSIM_C2) / (variance_a + variance_b + SSIM_C2)


# ------------------------------------------------------------------------------------------------------ how alike


class Comparison(NamedTuple):
    """How a picture compares with the reference."""

    psnr: float  # dB, over all values, against the unquantised reference
    largest: float  # largest difference of a value outside doubtful pixels, in steps of 1/255
    doubtful: float  # share of pixels where rounding decides on more than half a step, see rasterize


def psnr(a: NDArray[Any] | Tensor, b: NDArray[Any] | Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two pictures of one shape; inf where they are equal.

    uint8 counts 0..255, floats count 0..1. Rounding alone to 8 bits costs all but 58.9 dB.

    Raises:
        InvalidParameterError: the shapes differ.
    """
    first, second = _unit_range(a), _unit_range(b)
    if first.shape != second.shape:
        raise InvalidParameterError(
            f"psnr needs pictures of one shape, got {list(first.shape)} and {list(second.shape)}"
        )
    error = float(np.mean((first - second) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def compare(
    rendered: NDArray[np.uint8],
    avatar: Avatar,
    params: FlameParams,
    size: tuple[int, int] | None = None,
    camera: Camera | None = None,
    background: Background = None,
    format: Format = "rgb",
    doubt_margin: float = 1e-3,
) -> Comparison:
    """Measure a rendered picture against the float64 reference. Arguments as :func:`render`.

    Example::

        picture = Renderer(avatar, size=(640, 360)).render(params)
        assert compare(picture, avatar, params, size=(640, 360)).psnr >= 50
    """
    with torch.no_grad(), _one_thread():
        drawn = frame(avatar, params, size, camera, background, torch.float64, doubt_margin)
        expected = picture(drawn, format).clamp(0, 1).numpy()
    doubtful = (drawn.doubt > 0.5 / 255).numpy()
    difference = np.abs(_unit_range(rendered) - expected) * 255
    if format == "rgba":
        # Colour under little alpha is the quotient of two small numbers: only its product with alpha is seen.
        difference[..., :3] *= expected[..., 3:]
    if format == "nv12":
        height, width = doubtful.shape
        blocks = doubtful.reshape(height // 2, 2, width // 2, 2).any(axis=(1, 3))
        settled = ~np.concatenate([doubtful, blocks.repeat(2, axis=1)])
    else:
        settled = ~doubtful
    return Comparison(psnr(rendered, expected), float(difference[settled].max(initial=0)), float(doubtful.mean()))


def _unit_range(picture: NDArray[Any] | Tensor) -> NDArray[np.float64]:
    array = picture.detach().numpy() if isinstance(picture, Tensor) else picture
    return array.astype(np.float64) / (255 if array.dtype == np.uint8 else 1)
