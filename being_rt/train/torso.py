"""The torso's Gaussians before training: what the masks show of the person and the head's mesh does not cover.

One camera says nothing about depth, so the pixels are put onto a smooth sheet: through the base of the neck, forwards
down the chest, backwards along the shoulders, and up to the depth of the head for hair beside it. The sheet's depth is
learned as a whole, on a coarse grid (its relief), because a body that sways shows the depth of a shoulder, but hardly
that of each of its Gaussians: left to themselves they tear the sheet, which other sides of the body then show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset
from being_rt.dataset.regions import face_regions, project
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import skin
from being_rt.reference import body_frames, pose
from being_rt.train.clothes import Clothes
from being_rt.train.surface import Surface, uniform

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]

_FRAMES = 16
_CELLS = 160  # along the longer side of the picture
_SAMPLES = 30_000  # of the head's surface, enough to leave no cell of it bare
_CHEST, _SHOULDERS = 0.25, 0.5  # metres forwards per metre down; metres backwards per squared metre aside
_THICKNESS = 0.005  # metres, of the sheet, so that no two Gaussians tie in depth
_RELIEF = 0.05  # metres between the knots of the sheet's relief
_REACH = (0.30, 0.45)  # metres from the base of the neck to the side and down, where there are no masks
# Heights over the base of the neck, metres, between which Gaussians begin to follow the neck; but clothes stay. What
# starts by following the head learns the wrong motion, and learns it first.
_FIXED_BELOW, _FOLLOWS_ABOVE = -0.05, 0.04
_LEAST_WEIGHT = 0.03


class TorsoSeeds(NamedTuple):
    """Gaussians of the torso before training; float64 on the CPU. N is 0 where the masks leave nothing."""

    position: Tensor  # [N, 3] metres, rest pose
    scale: Tensor  # [N, 3] metres
    colour: Tensor  # [N, 3]
    weights: Tensor  # [N, 3] of root, global joint, neck joint


class _View(NamedTuple):
    """A coarse picture of the body: what the chosen frames show beside the head."""

    body: Bool  # [h, w]
    colour: Array  # [h, w, 3]
    cell: int  # px
    row: int  # of dataset.params: the pose that stands for all


def torso_seeds(
    dataset: Dataset,
    surface: Surface,
    count: int,
    scale: float,
    generator: torch.Generator,
    clothes: Clothes | None = None,
) -> TorsoSeeds:
    """``count`` Gaussians on the sheet, evenly over what is seen; none where nothing is.

    Args:
        dataset: training frames of the first camera are used.
        surface: the head's mesh; where it wants Gaussians, the torso needs none.
        scale: standard deviation in parts of the distance to neighbours.
        clothes: which of it stays where the body is.
    """
    frames = chosen_frames(dataset)
    camera = dataset.cameras[0]
    view = _look(dataset, surface, frames, camera)
    cells = np.argwhere(view.body)
    if not len(cells) or not count:
        nothing = torch.zeros(0, 3, dtype=torch.float64)
        return TorsoSeeds(nothing, nothing, nothing, nothing)
    marks = ((torch.arange(count) + uniform(count, generator)) / count * len(cells)).long().clamp(max=len(cells) - 1)
    chosen = cells[marks.numpy()]
    inside = torch.stack([uniform(count, generator), uniform(count, generator)], 1).numpy()
    pixel = (chosen + inside)[:, ::-1] * view.cell  # x, y
    place, height, depth = _on_sheet(dataset.rig, dataset, view.row, camera, pixel)
    place += _THICKNESS * (uniform(count, generator).numpy()[:, None] - 0.5) * camera.world_to_camera[2, :3]
    follow = np.clip((height - _FIXED_BELOW) / (_FOLLOWS_ABOVE - _FIXED_BELOW), 0, 1)
    if clothes is not None:
        follow *= ~clothes.at(*pixel.T)
    weights = np.stack([1 - follow, follow * (1 - follow), follow * follow], 1)
    weights = (weights + _LEAST_WEIGHT) / (weights + _LEAST_WEIGHT).sum(1, keepdims=True)
    footprint = view.cell / float(camera.intrinsics[0, 0]) * depth  # metres a cell
    spacing = np.sqrt(len(cells) / count) * footprint
    return TorsoSeeds(
        position=_unposed(dataset, view.row, torch.tensor(place), torch.tensor(weights)),
        scale=torch.tensor(scale * spacing)[:, None].repeat(1, 3),
        colour=torch.tensor(view.colour[chosen[:, 0], chosen[:, 1]]),
        weights=torch.tensor(weights),
    )


def relief_weights(position: Tensor) -> Tensor:
    """Weights [N, K] with which Gaussians at rest ``position [N, 3]`` take part in the sheet's relief.

    That is K values on a grid over x and y, between which depth is bilinear.
    """
    if not len(position):
        return torch.zeros(0, 1, dtype=position.dtype)
    weight = torch.ones(len(position), 1, dtype=position.dtype)
    for axis in (0, 1):
        low, high = position[:, axis].min(), position[:, axis].max()
        knots = max(2, int(torch.ceil((high - low) / _RELIEF)) + 1)
        place = (position[:, axis] - low) / (high - low).clamp(min=1e-9) * (knots - 1)
        hats = (1 - (place[:, None] - torch.arange(knots)).abs()).clamp(min=0)
        weight = (weight[:, :, None] * hats[:, None, :]).flatten(1)
    return weight


def chosen_frames(dataset: Dataset) -> NDArray[np.int32]:
    """The training frames of the first camera that a torso is found in."""
    train = dataset.split("train")
    return spread(train[dataset.camera_index[train] == 0], _FRAMES)


def spread(frames: NDArray[np.int32], limit: int) -> NDArray[np.int32]:
    """At most ``limit`` of the frames, evenly spread."""
    if len(frames) <= limit:
        return frames
    return frames[np.linspace(0, len(frames) - 1, limit).round().astype(np.int64)]


def _look(dataset: Dataset, surface: Surface, frames: NDArray[np.int32], camera: Camera) -> _View:
    width, height = camera.size
    cell = max(1, -(-max(width, height) // _CELLS))
    rows, columns = -(-height // cell), -(-width // cell)
    rest = dataset.params.translation[dataset.timestep[frames]]
    row = int(dataset.timestep[frames[np.linalg.norm(rest - np.median(rest, axis=0), axis=1).argmin()]])
    head = (surface.density > 0).to(surface.area.dtype)
    face, barycentric, _ = surface.sample(head, _SAMPLES, torch.Generator().manual_seed(0))
    corners = dataset.rig.faces[face.numpy()]
    seen, alpha_sum = np.zeros((rows, columns)), np.zeros((rows, columns))
    colour, fallback = np.zeros((rows, columns, 3)), np.zeros((rows, columns, 3))
    for frame in frames:
        vertices = skin(dataset.rig, dataset.params[int(dataset.timestep[frame])])[0]
        points = np.einsum("nk,nkd->nd", barycentric.numpy(), vertices[corners])
        covered = _splash(project(points, camera)[0] / cell, rows, columns)
        mask = _shrunk(dataset.mask(int(frame))[..., None] / 255.0, cell)[..., 0]
        picture = _shrunk(dataset.image(int(frame)) / 255.0, cell)
        beside = (mask > 0.5) & ~covered
        seen += beside
        colour += beside[..., None] * picture
        alpha_sum += mask
        fallback += mask[..., None] * picture
    body = seen >= 0.25 * len(frames)
    # Where the head begins, the sheet goes on for a bit behind it: a head that turns shows what is there.
    body |= _grown(_grown(body)) & (alpha_sum > 0.5 * len(frames))
    if not any(dataset.has_mask(int(frame)) for frame in frames):
        body &= _near_neck(dataset, row, camera, rows, columns, cell)
    mean = (
        np.where(seen[..., None] > 0, colour, fallback)
        / np.maximum(np.where(seen > 0, seen, alpha_sum), 1e-9)[..., None]
    )
    return _View(body, mean, cell, row)


def _near_neck(dataset: Dataset, row: int, camera: Camera, rows: int, columns: int, cell: int) -> Bool:
    """Cells [rows, columns] that a body could fill, where no mask tells."""
    y, x = np.mgrid[:rows, :columns]
    pixel = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * cell
    base, _ = _neck_and_head(dataset, row)
    base = camera.world_to_camera[:3, :3] @ base + camera.world_to_camera[:3, 3]
    offset = _rays(pixel, camera)[:, :2] * base[2] - base[:2]
    near = (np.abs(offset[:, 0]) < _REACH[0]) & (offset[:, 1] > -0.03) & (offset[:, 1] < _REACH[1])
    return near.reshape(rows, columns)


def _on_sheet(rig: Rig, dataset: Dataset, row: int, camera: Camera, pixel: Array) -> tuple[Array, Array, Array]:
    """Pixels [N, 2] on the sheet: places [N, 3] in the world, heights [N] over the neck's base, depths [N]; metres."""
    pose_matrix = camera.world_to_camera.astype(np.float64)
    base, head = (pose_matrix[:3, :3] @ point + pose_matrix[:3, 3] for point in _neck_and_head(dataset, row))
    ray = _rays(pixel, camera)
    offset = ray[:, :2] * base[2] - base[:2]  # metres to the right and down from the base of the neck
    down, up = np.maximum(offset[:, 1], 0), np.maximum(-offset[:, 1], 0)
    rise = np.clip(up / max(base[1] - head[1], 1e-3), 0, 1)
    depth = base[2] - _CHEST * down + _SHOULDERS * offset[:, 0] ** 2 * (down > 0) + rise * (head[2] - base[2])
    seen = ray * np.maximum(depth, 0.1)[:, None]
    return (seen - pose_matrix[:3, 3]) @ pose_matrix[:3, :3], -offset[:, 1], depth


def _neck_and_head(dataset: Dataset, row: int) -> tuple[Array, Array]:
    """The base of the neck and the middle of the head in the pose of a row, world space [3] each."""
    vertices = skin(dataset.rig, dataset.params[row])[0].astype(np.float64)
    neck = face_regions(dataset.rig)["neck"]
    height = dataset.rig.template[neck, 1]
    return vertices[neck[height <= np.quantile(height, 0.15)]].mean(0), vertices.mean(0)


def _rays(pixel: Array, camera: Camera) -> Array:
    """Directions [N, 3] with z = 1, in the camera's frame."""
    homogeneous = np.concatenate([pixel, np.ones((len(pixel), 1))], 1)
    return homogeneous @ np.linalg.inv(camera.intrinsics.astype(np.float64)).T


def _unposed(dataset: Dataset, row: int, place: Tensor, weights: Tensor) -> Tensor:
    """Rest positions [N, 3] of Gaussians that a row of the tracks puts at ``place``."""
    motion = dataset.params[row]
    rig = dataset.rig

    def tensor(values: NDArray[np.float32]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    joints = tensor(np.concatenate([motion.rotation[0], motion.neck[0], motion.jaw[0], motion.eyes[0]]).reshape(5, 3))
    transforms = pose(
        tensor(rig.joint_rest), tensor(rig.joint_expression), tensor(motion.expression[0]), joints
    ).transforms
    body = body_frames(torch.eye(3, 4, dtype=torch.float64), transforms, tensor(motion.translation[0]))
    blended = torch.einsum("nk,krc->nrc", weights, body)
    return torch.linalg.solve(blended[:, :, :3], place - blended[:, :, 3])


def _splash(cells: Array, rows: int, columns: int) -> Bool:
    """Cells [rows, columns] that points [N, 2] (x, y) fall into or beside."""
    finite = cells[np.isfinite(cells).all(1)]
    x, y = np.floor(finite).astype(np.int64).T
    hit = np.zeros((rows, columns), bool)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    hit[y[inside], x[inside]] = True
    return _grown(hit)


def _grown(mask: Bool) -> Bool:
    """One cell larger on every side."""
    padded = np.pad(mask, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:]


def _shrunk(picture: Array, cell: int) -> Array:
    """Means over cells: [H, W, C] -> [ceil(H / cell), ceil(W / cell), C]."""
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, -height % cell), (0, -width % cell), (0, 0)), mode="edge")
    return padded.reshape(padded.shape[0] // cell, cell, padded.shape[1] // cell, cell, -1).mean(axis=(1, 3))
