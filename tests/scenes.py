"""Small synthetic avatars for tests: an egg on a bust. Deterministic, valid in every field, made in milliseconds.

    avatar = make_avatar(seed=1, head_count=1500, torso_count=800, network=False)
    params = make_params(count=3, seed=1)

Import it as ``from scenes import make_avatar`` (pytest puts this folder on the path).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import (
    CHANNELS,
    MOTIONS,
    AnchorLatentNetwork,
    Avatar,
    Camera,
    Gaussians,
    HeadLayer,
    Seam,
    TorsoLayer,
)
from being_rt.flame.rig import Rig

if TYPE_CHECKING:
    from being_rt.flame.params import FlameParams

Array = NDArray[np.float64]

HEAD_RADII = (0.075, 0.11, 0.09)  # metres, the egg's half axes; its centre is the origin
SEAM_HEIGHT = -0.11  # metres, where the egg's lower end meets the torso's neck
JOINTS = ((0.0, -0.16, -0.02), (0.0, -0.11, -0.02), (0.0, -0.02, 0.01), (0.03, 0.03, 0.06), (-0.03, 0.03, 0.06))
THETA_COUNT = 138


def make_avatar(
    seed: int = 0,
    head_count: int = 2000,
    torso_count: int = 1200,
    segments: int = 16,
    rings: int = 16,
    network: bool = True,
    rank: int = 20,
    antialiased: bool = True,
    size: tuple[int, int] = (320, 240),
) -> Avatar:
    """An egg-shaped head of ``2 segments (rings - 1)`` triangles (default 480) above a bust, filling most of the frame.

    Counts may be 0. ``network`` False gives rigid binding; True gives offset bases to the first 60 % of the head.
    ``size`` is width, height in pixels of the camera and of the background picture.
    """
    random = np.random.default_rng(seed)
    rig = make_rig(random, segments, rings)
    head = _make_head(random, rig, head_count)
    torso = _make_torso(random, torso_count)
    return Avatar(
        name=f"egg-{seed}",
        rig=rig,
        head=head,
        torso=torso,
        network=_make_network(random, int(0.6 * head_count), rank) if network else None,
        seam=_make_seam(rig, head, torso),
        camera=make_camera(size),
        background=make_background(size),
        antialiased=antialiased,
        licence="CC0-1.0",
        consent="synthetic",
    )


def make_params(count: int = 1, seed: int = 0, strength: float = 1.0, fps: float = 25.0) -> FlameParams:
    """``count`` independent random poses: a turned head, moving jaw, eyes and lids. ``strength`` 0 is the rest pose."""
    from being_rt.flame.params import FlameParams

    random = np.random.default_rng(1000 + seed)

    def draw(columns: int, deviation: float) -> NDArray[np.float32]:
        return (strength * deviation * random.standard_normal((count, columns))).astype(np.float32)

    return FlameParams(
        expression=draw(100, 0.7),
        rotation=draw(3, 0.08),
        neck=draw(3, 0.12),
        jaw=draw(3, 0.04) + np.float32(strength) * np.array([[0.15, 0, 0]], np.float32),
        eyes=draw(6, 0.15),
        translation=draw(3, 0.01),
        eyelids=np.clip(np.abs(draw(2, 0.5)), 0, 1),
        fps=fps,
    )


def make_camera(
    size: tuple[int, int] = (320, 240), distance: float = 1.05, yaw: float = 0.0, field_of_view: float = 22.0
) -> Camera:
    """A camera ``distance`` metres from (0, -0.04, 0), turned by ``yaw`` radians about Y (positive: towards +X).

    ``field_of_view`` is vertical, in degrees. At yaw 0 it looks along -Z, straight at the face.
    """
    target = np.array([0.0, -0.04, 0.0])
    backward = np.array([np.sin(yaw), 0.0, np.cos(yaw)])
    right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
    rotation = np.stack([right, [0.0, -1.0, 0.0], -backward])
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = rotation
    world_to_camera[:3, 3] = -rotation @ (target + distance * backward)
    width, height = size
    focal = 0.5 * height / np.tan(np.radians(field_of_view) / 2)
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(world_to_camera.astype(np.float32), intrinsics.astype(np.float32), size)


def make_background(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth colour gradient, uint8 [H, W, 3]."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([40 + 120 * x, 60 + 90 * y, 150 - 80 * x * y], axis=-1).round().astype(np.uint8)


def make_rig(random: np.random.Generator, segments: int = 16, rings: int = 16) -> Rig:
    """A closed egg with smooth random bases, skinned to the five joints of FLAME."""
    template, faces = _egg(segments, rings)
    vertex_count = len(template)

    def smooth_basis(count: int, amplitude: float) -> NDArray[np.float16]:
        # A sum of long waves through space: neighbouring vertices move together, as in a real basis.
        wave = random.normal(0, 25.0, (count, 3, 3))
        phase = random.uniform(0, 2 * np.pi, (count, 3))
        basis = amplitude * np.sin(np.einsum("vi,kci->vck", template, wave) + phase.T)
        return np.ascontiguousarray(basis, np.float16)

    height = template[:, 1]
    jaw = 0.8 * _ramp(-0.01, -0.05, height) * _ramp(0.0, 0.04, template[:, 2])
    eyes = [0.7 * _ramp(0.03, 0.01, np.linalg.norm(template - joint, axis=1)) for joint in JOINTS[3:]]
    to_global = 0.6 * _ramp(-0.07, -0.12, height)
    rest = 1 - to_global
    weights = np.stack([to_global, np.zeros(vertex_count), rest * jaw, rest * eyes[0], rest * eyes[1]], axis=1)
    weights[:, 2:] *= np.minimum(1.0, rest / np.maximum(weights[:, 2:].sum(1), 1e-9))[:, None]
    weights[:, 1] = 1 - weights.sum(1)
    return Rig(
        edition="unknown",
        template=template.astype(np.float32),
        faces=faces,
        expression_basis=smooth_basis(100, 0.0004),
        eyelid_basis=smooth_basis(2, 0.002),
        pose_basis=smooth_basis(36, 0.002),
        skinning_weights=weights.astype(np.float32),
        joint_rest=np.array(JOINTS, np.float32),
        joint_expression=random.normal(0, 0.0002, (5, 3, 100)).astype(np.float32),
        face_frames=_face_frames(template, faces),
    )


def _egg(segments: int, rings: int) -> tuple[Array, NDArray[np.int32]]:
    """Vertices [2 + (rings - 1) segments, 3] and faces, counter-clockwise from outside, of the egg."""
    latitude = np.pi * np.arange(1, rings) / rings
    longitude = 2 * np.pi * np.arange(segments) / segments
    ring = np.stack([np.sin(longitude), np.zeros(segments), np.cos(longitude)], axis=1)
    body = np.sin(latitude)[:, None, None] * ring + np.cos(latitude)[:, None, None] * np.array([0.0, 1.0, 0.0])
    vertices = np.concatenate([[[0.0, 1.0, 0.0]], body.reshape(-1, 3), [[0.0, -1.0, 0.0]]])
    vertices *= np.array(HEAD_RADII)
    faces = []
    last = len(vertices) - 1
    for i in range(segments):
        j = (i + 1) % segments
        faces.append((0, 1 + i, 1 + j))
        for r in range(rings - 2):
            upper, lower = 1 + r * segments, 1 + (r + 1) * segments
            faces += [(upper + i, lower + i, lower + j), (upper + i, lower + j, upper + j)]
        bottom = 1 + (rings - 2) * segments
        faces.append((last, bottom + j, bottom + i))
    return vertices, np.array(faces, np.int32)


def _face_frames(template: Array, faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Inverse rest edges in the rest tangent frame (tangent: along the parallels of the egg, east), [F, 2, 2]."""
    corner = template[faces]
    edges = corner[:, 1:] - corner[:, :1]
    normal = _unit(np.cross(edges[:, 0], edges[:, 1]))
    tangent = _unit(np.cross([0.0, 1.0, 0.0], normal))
    bitangent = np.cross(normal, tangent)
    frame = np.stack([tangent, bitangent], axis=1)
    return np.linalg.inv(np.einsum("fri,fki->frk", frame, edges)).astype(np.float32)


def _make_head(random: np.random.Generator, rig: Rig, count: int) -> HeadLayer:
    corner = rig.template[rig.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    face = random.choice(len(rig.faces), count, p=area / area.sum()).astype(np.int32)
    barycentric = random.dirichlet(np.ones(3), count).astype(np.float32)
    place = np.einsum("nk,nki->ni", barycentric, corner[face])
    offset = random.normal(0, 0.0008, (count, 3))
    # Skin: flat, lying in the triangle, and facing. The rest: blobs of any orientation, as hair.
    flat = random.random(count) < 0.6
    scale = np.where(flat[:, None], [0.0065, 0.0045, 0.0010], random.uniform(0.001, 0.007, (count, 3)))
    scale = scale * np.sqrt(2000 / max(count, 500)) * random.uniform(0.7, 1.3, (count, 1))
    colour = 0.5 + 0.3 * np.sin(40 * place + [0.0, 1.0, 2.0]) + random.normal(0, 0.05, (count, 3))
    return HeadLayer(_make_gaussians(random, offset, flat, scale, colour), face, barycentric)


def _make_torso(random: np.random.Generator, count: int) -> TorsoLayer:
    # One third neck (a cylinder that rises into the egg), two thirds shoulders (a flat ellipsoid below it).
    angle = random.uniform(-np.pi, np.pi, count)
    height = random.uniform(0, 1, count)
    neck = np.stack([0.045 * np.sin(angle), -0.16 + 0.09 * height, 0.045 * np.cos(angle)], axis=1)
    direction = _unit(random.standard_normal((count, 3)))
    shoulders = np.array([0.0, -0.24, -0.01]) + np.array([0.17, 0.08, 0.07]) * direction
    is_neck = random.random(count) < 1 / 3
    place = np.where(is_neck[:, None], neck, shoulders)
    scale = random.uniform(0.003, 0.010, (count, 3)) * np.sqrt(1200 / max(count, 300))
    colour = 0.45 + 0.25 * np.sin(30 * place + [2.0, 0.0, 1.0]) + random.normal(0, 0.05, (count, 3))
    follow = _ramp(-0.20, -0.08, place[:, 1])
    weights = np.stack([(1 - follow), follow * (1 - follow), follow * follow], axis=1).astype(np.float32)
    gaussians = _make_gaussians(random, place, np.zeros(count, bool), scale, colour)
    answers = np.random.default_rng(count)
    response = answers.normal(0, 0.2, (MOTIONS, 3, 4)).astype(np.float32)
    reach = answers.uniform(0.01, 0.3, MOTIONS).astype(np.float32)  # some motions go beyond
    return TorsoLayer(gaussians, weights / weights.sum(1, keepdims=True), response, np.stack([-reach, 0.5 * reach]))


def _make_gaussians(
    random: np.random.Generator, position: Array, facing: NDArray[np.bool_], scale: Array, colour: Array
) -> Gaussians:
    count = len(position)
    # Facing Gaussians turn freely about their normal and tilt a little; the others point anywhere.
    turn = random.uniform(-np.pi, np.pi, count)
    tilt = random.normal(0, 0.15, (count, 2))
    facing_rotation = np.stack([np.cos(turn / 2), tilt[:, 0], tilt[:, 1], np.sin(turn / 2)], axis=1)
    rotation = np.where(facing[:, None], facing_rotation, random.standard_normal((count, 4)))
    return Gaussians(
        position=position.astype(np.float32),
        rotation=_unit(rotation).astype(np.float32),
        log_scale=np.log(scale).astype(np.float32),
        opacity_logit=random.normal(1.0, 2.0, count).astype(np.float32),
        colour=np.clip(colour, 0, 1).astype(np.float32),
        facing_fade=facing,
    )


def _make_network(random: np.random.Generator, count: int, rank: int) -> AnchorLatentNetwork:
    trunk, hidden, code_size, head, anchors = 48, 32, 8, 32, 24

    def layer(rows: int, columns: int) -> NDArray[np.float32]:
        return random.normal(0, np.sqrt(2 / columns), (rows, columns)).astype(np.float32)

    deviation = np.repeat([0.0006, 0.08, 0.08, 0.3, 0.03], [3, 3, 3, 1, 3])  # per channel; metres, radians, ...
    weight = random.dirichlet(np.ones(4), count).astype(np.float32)
    return AnchorLatentNetwork(
        trunk_weight_0=layer(trunk, THETA_COUNT),
        trunk_bias_0=random.normal(0, 0.1, trunk).astype(np.float32),
        trunk_weight_1=layer(hidden, trunk),
        trunk_bias_1=random.normal(0, 0.1, hidden).astype(np.float32),
        anchor_code=random.standard_normal((anchors, code_size)).astype(np.float32),
        head_weight_0=layer(head, hidden + code_size),
        head_bias_0=random.normal(0, 0.1, head).astype(np.float32),
        head_weight_1=layer(rank, head),
        head_bias_1=random.normal(0, 0.1, rank).astype(np.float32),
        anchor_index=random.integers(0, anchors, (count, 4)).astype(np.uint16),
        anchor_weight=weight / weight.sum(1, keepdims=True),
        basis=(deviation[:, None] * random.normal(0, rank**-0.5, (count, CHANNELS, rank))).astype(np.float16),
    )


def _make_seam(rig: Rig, head: HeadLayer, torso: TorsoLayer) -> Seam:
    head_height = np.einsum("nk,nk->n", head.barycentric, rig.template[rig.faces[head.face], 1])
    torso_position = torso.gaussians.position
    near_neck = np.linalg.norm(torso_position[:, [0, 2]], axis=1) < 0.06
    torso_band = np.flatnonzero(near_neck & (torso_position[:, 1] > -0.15)).astype(np.int32)
    return Seam(
        centre=np.array([0.0, SEAM_HEIGHT, -0.005], np.float32),
        axis=_unit(np.array([0.0, 1.0, 0.1])).astype(np.float32),
        radius=0.045,
        half_height=0.015,
        depth_softness=0.01,
        head_band=np.flatnonzero(head_height < -0.07).astype(np.int32),
        torso_band=torso_band,
        torso_band_weight=_ramp(-0.15, -0.11, torso_position[torso_band, 1]).astype(np.float32),
    )


def without_torso(avatar: Avatar) -> Avatar:
    """The same avatar with an empty torso layer."""
    return replace(avatar, torso=_take_torso(avatar.torso, 0), seam=_without_bands(avatar.seam))


def without_head(avatar: Avatar) -> Avatar:
    """The same avatar with an empty head layer (and no network)."""
    head = avatar.head
    empty = HeadLayer(_take(head.gaussians, 0), head.face[:0], head.barycentric[:0])
    return replace(avatar, head=empty, network=None, seam=_without_bands(avatar.seam))


def _take_torso(torso: TorsoLayer, count: int) -> TorsoLayer:
    return replace(torso, gaussians=_take(torso.gaussians, count), weights=torso.weights[:count])


def _take(gaussians: Gaussians, count: int) -> Gaussians:
    return Gaussians(**{name: value[:count] for name, value in vars(gaussians).items()})


def _without_bands(seam: Seam) -> Seam:
    return replace(
        seam,
        head_band=seam.head_band[:0],
        torso_band=seam.torso_band[:0],
        torso_band_weight=seam.torso_band_weight[:0],
    )


def _ramp(low: float, high: float, value: Array) -> Array:
    """0 at ``low``, 1 at ``high`` (which may be the smaller), linear between."""
    return np.clip((value - low) / (high - low), 0, 1)


def _unit(value: Array) -> Array:
    return value / np.maximum(np.linalg.norm(value, axis=-1, keepdims=True), 1e-12)
