"""Shoulders and clothes: the photograph's pixels on a sheet that runs down the chest and back along the shoulders.

One picture says nothing about a body's depth, and a body that hardly turns does not need it. The sheet goes on beyond
the picture's edges, so that one that breathes shows no gap there, and behind the chin, so that a head that turns shows
the collar and not the wall.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import TorsoLayer
from being_rt.dataset.plates import fill
from being_rt.dataset.regions import project
from being_rt.flame.procedural.surface import smoothstep
from being_rt.portrait.cells import Cells, cut, cut_at_most
from being_rt.portrait.splats import OPAQUE, Bool, Float64, Splats, torso_gaussians
from being_rt.portrait.view import View, deviations, unprojected

CONTRAST, COARSE = 14, 60  # of 255: flatter cells are taken as one; the same where they are hidden
MOST = 300_000  # cells of what is shown
CHEST, SHOULDERS = 0.25, 0.5  # metres forwards per metre down; metres backwards per squared metre aside
BORDER = 0.05  # of the picture's longer side by which the sheet goes on beyond it
LINING = 0.006  # metres between what is shown and its lining
BEHIND = 0.035  # metres by which what the head hides lies behind it
REACH = 0.07  # metres from the body up to which there is something to be hidden
HANGS = 0.12  # metres over which hair passes from the head to the shoulders
SLIVER = 0.002  # metres: thinner pieces of what is hidden are left out
_STILL = 0.75  # share of the root, which does not turn, far from the neck


def body(view: View, hanging: tuple[Cells, Float64], below: float) -> tuple[TorsoLayer, NDArray[np.bool_]]:
    """The torso layer, and which of its Gaussians the photograph shows.

    Args:
        hanging: cells and places of hair that falls onto it.
        below: y, metres, from which hair is that; above, it is the head's.
    """
    subject = view.subject
    height, width = subject.alpha.shape
    border = round(BORDER * max(width, height))
    around = ((border, border), (border, border))

    def beyond(picture: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.pad(picture, (*around, *((0, 0),) * (picture.ndim - 2)), mode="edge")

    colours = beyond(view.colours)
    alpha, shown = beyond(subject.alpha).astype(np.uint8), beyond(view.body).astype(bool)
    hidden = np.pad(_hidden(view), border)
    sure = shown & (alpha >= 250)
    filled = fill(colours.astype(np.uint8), sure) if hidden.any() and sure.any() else colours.astype(np.uint8)
    parts, rest = [], []
    picture = colours.astype(np.uint8)
    behind_mesh = np.pad(np.where(np.isfinite(view.depth), view.depth, -np.inf), border, mode="edge") + BEHIND

    def lay(region: Bool, cells: Cells, shade: NDArray[np.uint8], opacity: Float64, behind: float) -> None:
        x, y = cells.pixel.astype(np.int64).T
        pixel = cells.pixel - border
        depth = _sheet(view, pixel) + behind
        if region is hidden:
            depth = np.maximum(depth, behind_mesh[y, x])
        place = unprojected(view.camera, pixel, depth)
        inside = (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
        factor = _upright(view, depth, cells.side, alpha[y, x] < 250)
        splats = Splats.of(place, factor, shade[y, x] / 255.0, OPAQUE * opacity[y, x])
        parts.append(splats._replace(seen=inside & (region is shown)))
        rest.append(_weights(view, place))

    # What is shown, a coarse lining that nothing shines through, and what the head hides.
    everywhere = np.ones(alpha.shape)
    lay(shown, cut_at_most(np.dstack([picture, alpha]), shown, CONTRAST, MOST), picture, alpha / 255.0, 0.0)
    lay(sure, cut(picture, sure, COARSE), picture, everywhere, LINING)
    lay(hidden, cut(filled, hidden, COARSE), filled, everywhere, BEHIND)
    cells, place = hanging
    if len(place):
        x, y = cells.pixel.astype(np.int64).T
        depth = project(place, view.camera)[1]
        opacity = OPAQUE * subject.alpha[y, x] / 255.0
        factor = _upright(view, depth, cells.side, subject.alpha[y, x] < 250)
        parts.append(Splats.of(place, factor, view.colours[y, x] / 255.0, opacity, seen=True))
        rest.append(_weights(view, place, below))
    splats, weights = Splats.concatenate(parts), np.concatenate(rest)
    # The photograph is the rest pose of the body, so places are stored as they are.
    return TorsoLayer(torso_gaussians(splats, splats.place), weights.astype(np.float32)), splats.seen


def _upright(view: View, depth: Float64, side: NDArray[np.int64], soft: Bool) -> Float64:
    """Factors [N, 3, 3] of Gaussians that face the camera."""
    axes = view.camera.world_to_camera[:3, :3].astype(np.float64).T  # columns: right, down, forwards
    deviation = deviations(view.camera, depth, side, soft)
    return axes[None] * (deviation[:, None] * [1.0, 1.0, 0.3])[:, None, :]


def _sheet(view: View, pixel: Float64) -> Float64:
    """Depth [N] of the sheet at pixels [N, 2]."""
    pose = view.camera.world_to_camera.astype(np.float64)
    vertices, model = view.vertices, view.subject.model
    neck = model.regions["neck"]
    rest = view.subject.rig.template[neck, 1]
    base = vertices[neck[rest <= np.quantile(rest, 0.15)]].mean(0) @ pose[:3, :3].T + pose[:3, 3]
    ray = (
        np.concatenate([pixel, np.ones((len(pixel), 1))], 1)
        @ np.linalg.inv(view.camera.intrinsics.astype(np.float64)).T
    )
    offset = ray[:, :2] * base[2] - base[:2]
    down = np.maximum(offset[:, 1], 0)
    return np.asarray(np.maximum(base[2] - CHEST * down + SHOULDERS * offset[:, 0] ** 2, 0.3 * base[2]))


def _hidden(view: View) -> Bool:
    """Pixels [H, W] of the head behind which the body goes on: near it, and below its outline's convex hull."""
    from scipy import ndimage

    head = view.skin | view.hair | view.mouth
    solid = view.body & (view.subject.alpha >= 250)
    columns = np.flatnonzero(solid.any(0))
    if len(columns) < 2 or not head.any():
        return np.zeros_like(head)
    hull: list[tuple[int, int]] = []
    for x, top in zip(columns.tolist(), solid[:, columns].argmax(0).tolist(), strict=True):
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (top - hull[-2][1]) <= (hull[-1][1] - hull[-2][1]) * (
            x - hull[-2][0]
        ):
            hull.pop()  # not above the line between its neighbours
        hull.append((x, top))
    x, top = np.array(hull, np.float64).T
    height, width = head.shape
    above = np.interp(np.arange(width), x, top, left=height, right=height)
    metre = float(view.camera.intrinsics[0, 0]) / float(np.median(view.depth[np.isfinite(view.depth)]))
    near = ndimage.distance_transform_edt(~view.body) < REACH * metre
    # Without slivers beside the neck.
    inside = head & near & (np.arange(height)[:, None] > above)
    return np.asarray(ndimage.binary_opening(inside, iterations=max(1, round(SLIVER * metre))))


def _weights(view: View, place: Float64, below: float | None = None) -> Float64:
    """Shares [N, 3] of the root, the global and the neck joint; of hair that hangs lower than ``below``."""
    joints = view.subject.rig.joint_rest.astype(np.float64)
    base, neck = joints[0], joints[1]
    across = np.hypot(place[:, 0] - base[0], place[:, 2] - base[2])
    if below is None:
        follow = smoothstep(base[1] + 0.02, neck[1] + 0.02, place[:, 1]) * smoothstep(0.12, 0.07, across)
    else:
        follow = smoothstep(below - HANGS, below, place[:, 1])
    still = _STILL * smoothstep(0.075, 0.19, across) * (1 - follow)
    return np.stack([still, 1 - follow - still, follow], 1)
