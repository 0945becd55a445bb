"""Where the mesh's outline should be: on the person's, where skin or short hair borders on the room.

Landmarks end at the cheeks. Were the mesh narrower than the person there, skin would have to be laid beside it, and
flakes of it would stand off when the head turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.labels import HAIR, NECK, SKIN
from being_rt.dataset.regions import project
from being_rt.flame.model import FlameModel
from being_rt.track.embedding_render import rasterize

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]

REGIONS = ("face", "neck", "ears", "scalp")
REACH, HAIR_REACH = 0.35, 0.22  # of the distance between the eyes: how far apart both outlines may be
INWARDS = 0.03  # of the same: how far inside of the mesh's a neck's outline may lie
INSIDE = 128  # of 255: alpha from which a pixel is the person
_STEP = 0.5  # px
_INWARDS = 2.0  # px from the outline at which its pixel's label is asked for
_HIDDEN = 0.012  # metres behind the mesh's picture


def outline_pairs(
    model: FlameModel, vertices: Float64, camera: Camera, alpha: UInt8, labels: UInt8
) -> tuple[Float64, Float64]:
    """Points of the mesh's outline [n, 3] and where they belong [n, 2] px.

    Args:
        vertices: [V, 3] in the photograph.
        alpha, labels: [H, W] of the photograph.
    """
    pose = camera.world_to_camera.astype(np.float64)
    corners = vertices[model.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    front = np.sum(normal * (-pose[:3, :3].T @ pose[:3, 3] - corners.mean(1)), 1) > 0
    smooth = np.zeros_like(vertices)
    touches = np.zeros((2, len(vertices)), bool)
    for column in model.faces.T:
        np.add.at(smooth, column, normal)
        touches[0, column[front]], touches[1, column[~front]] = True, True
    wanted = np.zeros(len(vertices), bool)
    for name in REGIONS:
        wanted[model.regions[name]] = True
    for name in ("left_eye", "right_eye", "mouth_interior", "lips", "boundary"):
        wanted[model.regions[name]] = False
    chosen = np.flatnonzero(touches.all(0) & wanted)
    pixel, depth = project(vertices[chosen], camera)
    aside = project(vertices[chosen] + 0.001 * _unit(smooth[chosen]), camera)[0] - pixel
    aside = _unit(aside)

    # The nearest step outwards at which the person ends, by samples along the normal.
    eyes = [vertices[model.regions[f"{side}_eyeball"]].mean(0) for side in ("left", "right")]
    unit = float(np.linalg.norm(np.diff(project(np.array(eyes), camera)[0], axis=0)))
    steps = np.arange(-REACH * unit, REACH * unit + _STEP, _STEP)
    on_way = pixel[:, None] + steps[None, :, None] * aside[:, None]
    # A neck ends where clothes begin.
    bare = np.isin(labels, (SKIN, NECK))
    neck = np.isin(chosen, model.regions["neck"])
    person = np.where(neck[:, None], _at(bare, on_way), _at(alpha, on_way) >= INSIDE)
    ends = person[:, :-1] & ~person[:, 1:]
    scalp = np.isin(chosen, model.regions["scalp"])
    lowest = np.where(neck, -INWARDS * unit, -np.inf)  # nor is a collar before the neck its outline
    farthest = np.where(scalp, HAIR_REACH * unit, np.inf)
    possible = ends & (steps[:-1] > lowest[:, None]) & (np.abs(steps[:-1]) < farthest[:, None])
    away = np.where(possible, np.abs(steps[:-1])[None], np.inf)
    nearest = away.argmin(1)
    moved = steps[nearest] + _STEP / 2
    label = _at(labels, pixel + (moved - _INWARDS)[:, None] * aside)
    image = rasterize(*project(vertices, camera), model.faces, camera.size)
    shown = np.where(image.face >= 0, 1, 0)
    surface = np.einsum("hwk,hwk->hw", image.barycentric, project(vertices, camera)[1][model.faces[image.face]])
    behind = depth - np.where(_at(shown, pixel) > 0, _at(surface, pixel), np.inf)
    height, width = alpha.shape
    target = pixel + moved[:, None] * aside
    within = (target > 1).all(1) & (target[:, 0] < width - 1) & (target[:, 1] < height - 1)
    good = np.isfinite(away.min(1)) & np.isin(label, (SKIN, NECK, HAIR)) & (behind < _HIDDEN) & within
    return vertices[chosen[good]], target[good]


def _at(image: NDArray[Any], pixel: Float64) -> NDArray[Any]:
    """Values of an image [H, W] at pixels [..., 2], its border's beyond it."""
    height, width = image.shape
    x = np.clip(np.floor(pixel[..., 0]), 0, width - 1).astype(np.int64)
    y = np.clip(np.floor(pixel[..., 1]), 0, height - 1).astype(np.int64)
    return image[y, x]


def _unit(vectors: Float64) -> Float64:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
