"""The head's surface: the photograph laid on the mesh where it shows it, made up where it does not.

Every pixel of the face becomes a Gaussian on the triangle under it, so that the photograph comes out as it went in.
Beneath them lies the whole skin, evenly sampled, which other views and motion bring to light: the sides, the upper
lids, the lips' inner edges. Its colours are a membrane over the surface (screened Poisson equation: Bhat et al.,
"Fourier analysis of the 2D screened Poisson equation for gradient domain problems", ECCV 2008), held by the photograph
where it is seen well, less so by the other half of the face where only that is, and by its neighbours elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import HeadLayer
from being_rt.avatar.demo.cloud import Mesh, scatter, smooth_normals, unit
from being_rt.avatar.demo.skin import skin_faces
from being_rt.dataset.regions import project
from being_rt.flame.params import FlameParams
from being_rt.flame.skinning import skin
from being_rt.portrait.cells import Cells, cut_at_most
from being_rt.portrait.splats import Bool, Bound, Float64, Splats, head_layer
from being_rt.portrait.view import (
    FOLDED,
    NOT_SKIN,
    View,
    eye_point,
    faces_of,
    laid,
    lash_width,
    outline_distance,
    unprojected,
)

CONTRAST, MOST = 10, 150_000  # of 255: flatter cells are taken as one; of them
FINE, COARSE = 0.0011, 0.0018  # metres between the samples of the face and of the rest
_CLOSE = 0.95  # deviation of samples, of their distance: nothing shines through
SUNK = 0.0004  # metres by which samples lie below the photograph's pixels
BEHIND = 0.004  # metres: a sample that lies so far behind the mesh's picture is hidden
SURE, DOUBTFUL = 0.6, 0.2  # cosines to the view at which a colour counts fully, and not at all
_MIRROR = 0.35  # weight of the other half's colour
_MIRROR_REACH = 0.006  # metres
_HOLD = 4.0  # of colours against the membrane
_NEIGHBOURS = 8
_FORWARD = 0.0009  # metres by which what the photograph shows of a mouth lies before the generic one
_MARGIN = 1.3  # of the samples' distance: how far inside of the outline they end
_FAR_OUT = 0.03  # metres beside the outline from which the mesh's surface is left out
_SET_BACK = 0.002  # metres by which skin beside the mesh lies behind the mesh's border
_BARE_LID = 2.2  # of the lashes' width: how far from the eye skin is as light as on a lid
_SPREAD = {"jaw": 0.25, "eyelids": 0.9}  # the pose in which samples are even: folds are open


def seen_skin(view: View) -> Bound:
    """Skin and open mouth as the photograph shows them."""
    return Bound.concatenate(
        [
            _on_mesh(view, view.skin & ~view.beside & ~view.torn & ~view.blinking, facing=True),
            _beside_mesh(view),
            _on_mesh(view, view.mouth, facing=False, forward=_FORWARD),
        ]
    )


def lashes(view: View) -> Bound:
    """What the photograph shows beside open eyes, and a blink hides: lashes and the lids' creases."""
    return _on_mesh(view, view.blinking, facing=True)


def _on_mesh(view: View, region: Bool, *, facing: bool, forward: float = 0.0) -> Bound:
    cells, face, weight, place, normal = _under(view, region)
    place = place + forward * unit(eye_point(view.camera) - place)
    return Bound(laid(view, cells.pixel, cells.side, place, normal, facing), face, weight)


def _beside_mesh(view: View) -> Bound:
    """What goes on from the mesh's border, upright at the border's depth."""
    cells, face, weight, _, _ = _under(view, view.beside)
    x, y = cells.pixel.astype(np.int64).T
    place = unprojected(view.camera, cells.pixel, view.depth[y, x] + _SET_BACK)
    toward = unit(eye_point(view.camera) - place)
    return Bound(laid(view, cells.pixel, cells.side, place, toward, False), face, weight)


def _under(view: View, region: Bool) -> tuple[Cells, NDArray[np.int64], Float64, Float64, Float64]:
    """Cells of a region with the triangle under each, barycentric coordinates, place and normal."""
    cells = cut_at_most(view.with_alpha, region, CONTRAST, MOST, largest=4)
    x, y = cells.pixel.astype(np.int64).T
    face, weight = view.face[y, x].astype(np.int64), view.barycentric[y, x].astype(np.float64)
    corners = view.vertices[view.subject.rig.faces[face]]
    place = np.einsum("nk,nkd->nd", weight, corners)
    normal = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    return cells, face, weight, place, normal


def eye_distance(view: View) -> Float64:
    """Distance [H, W] of each pixel to an open eye, px."""
    from scipy import ndimage

    if not view.eyes.any():
        return np.full(view.eyes.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~view.eyes))


def whole_skin(view: View) -> tuple[HeadLayer, Bool]:
    """All of the head's skin, a little below what the photograph shows; nothing outside of the person's outline.

    And which of its Gaussians the photograph shows, because nothing was laid over them.
    """
    subject = view.subject
    rig, model = subject.rig, subject.model
    spread = FlameParams.neutral().replace(
        expression=subject.params.expression,
        jaw=np.array([[_SPREAD["jaw"], 0, 0]], np.float32),
        eyelids=np.full((1, 2), _SPREAD["eyelids"], np.float32),
    )
    opened = skin(rig, spread)[0].astype(np.float64)
    mesh = Mesh(rig.faces, model.template.astype(np.float64), opened)
    not_skin = np.zeros(model.vertex_count, bool)
    for name in NOT_SKIN:
        not_skin[model.regions[name]] = True
    faces, margins = skin_faces(mesh, not_skin)
    faces = np.concatenate([faces, margins])
    faces = faces[rig.skinning_weights[:, 0][rig.faces[faces]].mean(1) < 0.5]
    front = mesh.average[rig.faces[faces]].mean(1)
    radius = np.where((front[:, 2] > 0) & (front[:, 1] > -0.1), FINE, COARSE)
    samples = scatter(mesh, faces, radius, seed=1, oversampling=4.0)
    order = np.argsort(faces, kind="stable")
    at = radius[order][np.searchsorted(faces[order], samples.face)]

    corners = view.vertices[rig.faces[samples.face]]
    place = np.einsum("nk,nkd->nd", samples.barycentric, corners)
    normal = unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    ear = view.covered_ears[samples.face]
    flat_to = np.quantile(np.abs(place[ear, 0]), 0.1) if ear.any() else 0.0  # under hair, flat against the head
    place[ear, 0] = np.clip(place[ear, 0], -flat_to, flat_to)
    inwards = _within_outline(view, place, at)
    inside = np.linalg.norm(inwards, axis=1) < _FAR_OUT
    place = place + inwards
    colour, bare = _colours(view, samples.face, place, normal, samples.average, samples.person)

    smooth = smooth_normals(mesh, faces)
    up = unit(np.einsum("nk,nkd->nd", samples.barycentric, smooth[rig.faces[samples.face]]))
    flat = opened[rig.faces[samples.face]]
    across = unit(flat[:, 1] - flat[:, 0])
    out = unit(np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]))
    factor = np.stack([across, np.cross(out, across), 0.3 * out], 2) * (_CLOSE * at)[:, None, None]
    under = samples.person + inwards - SUNK * up
    under[ear, 0] = np.clip(under[ear, 0], -flat_to, flat_to)
    factor[ear] = np.array([[0, 0, 0.3], [1, 0, 0], [0, 1, 0]]) * (1.5 * at[ear])[:, None, None]
    splats = Splats.of(under, factor, colour)._replace(facing=~ear, seen=bare)
    bound = Bound(splats, samples.face, samples.barycentric).chosen(inside)
    return head_layer(rig, opened, bound), bound.splats.seen


def _within_outline(view: View, place: Float64, spacing: Float64) -> Float64:
    """What moves places [N, 3] that lie beside the person's outline inside of it, parallel to the picture; else zeros.

    The mesh of a skull may be larger than the person's. Were it cut off, there would be a gap between its front and
    its back when the head turns. Gaussians of ``spacing`` [N] reach as far over their places.
    """
    from scipy import ndimage

    inside = outline_distance(view.subject.alpha)
    pixel, depth = project(place, view.camera)
    height, width = inside.shape
    x, y = (np.floor(pixel[:, axis]).astype(np.int64) for axis in (0, 1))
    within = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    margin = _MARGIN * spacing * float(view.camera.intrinsics[0, 0]) / np.maximum(depth, 1e-3)
    result = np.zeros_like(place)
    for reach in np.unique(spacing):
        group = spacing == reach
        solid = inside > float(np.median(margin[group]))
        outside = np.flatnonzero(group & within & ~solid[y, x])
        if len(outside) and solid.any():
            nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
            rows, columns = nearest[:, y[outside], x[outside]]
            onto = unprojected(view.camera, np.stack([columns, rows], 1) + 0.5, depth[outside])
            result[outside] = onto - place[outside]
    return result


def _colours(
    view: View, face: NDArray[np.int64], place: Float64, normal: Float64, average: Float64, even: Float64
) -> tuple[Float64, Bool]:
    """Colours [N, 3] of places on the skin, and which of them are in sight where nothing is laid.

    Args:
        average: their places on the average head, which is the same on both sides.
        even: their places in the pose in which they are evenly spread.
    """
    from scipy.ndimage import map_coordinates
    from scipy.spatial import cKDTree

    subject = view.subject
    pixel, depth = project(place, view.camera)
    coordinates = [pixel[:, 1] - 0.5, pixel[:, 0] - 0.5]
    photo = np.stack(
        [map_coordinates(view.colours[..., k] / 255.0, coordinates, order=1, mode="nearest") for k in range(3)], 1
    )
    height, width = subject.alpha.shape
    x = np.clip(pixel[:, 0], 0, width - 1).astype(np.int64)
    y = np.clip(pixel[:, 1], 0, height - 1).astype(np.int64)
    toward = unit(eye_point(view.camera) - place)
    cosine = np.sum(toward * normal, 1)
    scalp = faces_of(subject, ("scalp",))[face]
    visible = (depth < view.depth[y, x] + BEHIND) & (view.skin[y, x] | (scalp & view.hair[y, x]))
    visible &= ~view.torn[y, x] | (cosine > DOUBTFUL)
    visible &= ~view.covered_ears[face] & ~view.blinking[y, x]
    visible &= eye_distance(view)[y, x] > _BARE_LID * lash_width(subject)
    own = visible * np.clip((cosine - DOUBTFUL) / (SURE - DOUBTFUL), 0, 1)
    colour, weight = photo, own
    good = np.flatnonzero(own > 0.3)
    if len(good):
        distance, index = cKDTree(average[good]).query(average * [-1, 1, 1])
        # Around an eye a mirror image would bring the other side's light onto a lid.
        away = eye_distance(view)[y, x] > 2 * _BARE_LID * lash_width(subject)
        mirrored = _MIRROR * (away & (distance < _MIRROR_REACH)) * own[good[index]] * (1 - own)
        weight = own + mirrored
        share = (mirrored / np.maximum(weight, 1e-9))[:, None]
        colour = photo * (1 - share) + photo[good[index]] * share
    off = (pixel < 0).any(1) | (pixel[:, 0] >= width) | (pixel[:, 1] >= height)
    bare = (
        view.torn[y, x]
        & (view.stretch[face] < FOLDED)
        & (eye_distance(view)[y, x] > 2 * lash_width(subject))
        & (depth < view.depth[y, x] + BEHIND)
        & (cosine > 0)
        & ~off
    )
    return membrane(even, colour, weight), bare


def membrane(points: Float64, colour: Float64, weight: Float64) -> Float64:
    """Colours [N, 3] near the given ones where ``weight`` [N] is large, and like their neighbours' elsewhere."""
    from scipy import sparse
    from scipy.sparse.linalg import splu
    from scipy.spatial import cKDTree

    count = len(points)
    if not count:
        return colour
    near = min(_NEIGHBOURS + 1, count)
    index = cKDTree(points).query(points, near)[1].reshape(count, near)[:, 1:]
    row = np.repeat(np.arange(count), index.shape[1])
    graph = sparse.coo_matrix((np.ones(len(row)), (row, index.ravel())), shape=(count, count)).tocsr()
    graph = graph.maximum(graph.T)
    degree = np.asarray(graph.sum(1)).ravel()
    hold = (_HOLD * weight + 1e-5) * _NEIGHBOURS
    mean = (colour * hold[:, None]).sum(0) / hold.sum()
    wanted = np.where(weight[:, None] > 0, colour, mean)
    system = sparse.diags(degree + hold) - graph
    return np.clip(splu(system.tocsc()).solve(hold[:, None] * wanted), 0, 1)
