"""Finding the face mesh's landmarks on a model: drawn from many sides, looked at by the network, and put together.

The network is asked where it sees its landmarks on pictures of the model itself; each answer, looked up in the
picture's map of triangles, is a point of the mesh. The geometric median of many views is where that landmark lies for
this network, which is what matters for the fit. No table of correspondences is needed, for whatever topology.

Half of the views have the mouth open. Points are averaged on the mesh with its mouth open, where upper and lower lip
lie apart; but where lips meet is seen with the mouth closed, and what meets there must meet in the fit. Each landmark
has a surface: irises the eyeballs, lips their lip, all others the skin. One that falls beside it by a few pixels, as a
lid's between the lids, goes to its surface, not to what is behind. Lids move along their edges until what belongs
together meets when they shut. The outline slides over the face as the head turns; it is taken where views from the
front show it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import TrackError
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, skin
from being_rt.parallel import in_order
from being_rt.track import fit_landmarks as names
from being_rt.track.embedding_paint import Paint
from being_rt.track.embedding_render import BACKGROUND, Seen, points_seen, rasterize
from being_rt.track.topology import LANDMARKS, MIRROR

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Look = Callable[[UInt8], "Float32 | None"]

YAWS, PITCHES = (-40, -27, -14, 0, 14, 27, 40), (-14, -5, 5, 16)  # degrees
JAWS = (0.0, 0.22)  # radians, alternating
SIZE = 640  # pixels
FOCAL, DISTANCE = 1350.0, 0.75  # pixels, metres
FEWEST_VIEWS = 6  # of all, in which the network must see a face, and of a landmark
FEWEST_FRONTAL = 2  # of the views from the front, for a landmark of the outline
FACING = 0.25  # cosine between surface and view below which a view says nothing about a landmark
ASTRAY = 0.015  # metres from where most views have a landmark, from which a view is not believed
REACH = 14  # pixels, 8 mm, from which a landmark is brought back to its surface
LIDS_MOVE = 0.002  # metres; a model whose lids move less cannot shut its eyes
LID_REACH = 0.012  # metres around a pair of the lids' landmarks in which both may move
APART = 20.0  # how much worse a square millimetre between shut lids is than one that a landmark moves
SYMMETRIC = 5e-4  # metres to which a template must agree with its mirror image

_IRISES = np.array((*names.RIGHT_IRIS, *names.LEFT_IRIS))
_UPPER_LIP = np.array((*names.OUTER_UPPER_LIP, *names.UPPER_LIP_SURFACE, *names.INNER_UPPER_LIP))
_LOWER_LIP = np.array((*names.OUTER_LOWER_LIP, *names.LOWER_LIP_SURFACE, *names.INNER_LOWER_LIP))
_OVAL = np.array(names.OVAL)
_CLOSED = np.array(  # believed with the mouth closed alone
    (*names.UPPER_LIP_SURFACE, *names.INNER_UPPER_LIP, *names.LOWER_LIP_SURFACE, *names.INNER_LOWER_LIP)
)
_SAMPLES = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]])  # of a triangle


@dataclass(frozen=True)
class View:
    """A picture of the model, and where the network sees its landmarks."""

    picture: UInt8
    seen: Seen
    pixels: Float64  # [V, 2]
    depth: Float64  # [V]
    facing: Float64  # [V] cosine between surface and view
    opened: bool  # the mouth
    frontal: bool
    landmarks: Float32 | None = None  # [478, 3]


def find_landmarks(model: FlameModel, look: Look) -> tuple[Int32, Float32, Float32, Bool]:
    """Triangles [478], barycentric coordinates [478, 3], spread in metres [478], and which landmarks were found.

    Args:
        look: the landmarks [478, 3] in a picture, or None.

    Raises:
        TrackError: the network takes the model for no face.
    """
    rig = bake_rig(model)
    opened = skin(rig, FlameParams.neutral(1).replace(jaw=np.array([[JAWS[1], 0, 0]], np.float32)))[0].astype(
        np.float64
    )
    # A first look at a face without brows and lips says where to paint them; the second is the one that counts.
    landmarks: Float64 | None = None
    for _ in range(2):
        paint = Paint.of(rig, _painted(model), landmarks)
        views = [view for view in draw_views(rig, paint, look) if view.landmarks is not None]
        if len(views) < FEWEST_VIEWS:
            raise TrackError(
                f"the network sees a face in {len(views)} of {len(YAWS) * len(PITCHES)} pictures of the model"
            )
        parts = surfaces(views, rig)
        points, spread, found = together(views, opened, model.faces, parts)
        if symmetric(rig):
            points, found = symmetrised(points, found)
        face, barycentric = np.zeros(LANDMARKS, np.int32), np.zeros((LANDMARKS, 3))
        for ids, surface in parts:
            allowed = np.flatnonzero(surface).astype(np.int32)
            face[ids], barycentric[ids] = nearest_on_surface(points[ids], opened, model.faces, allowed)
        shut_lids(face, barycentric, rig, np.flatnonzero(parts[-1][1]))
        template = rig.template.astype(np.float64)[model.faces[face]]
        landmarks = np.einsum("lk,lka->la", barycentric, template)
    return (
        np.where(found, face, 0).astype(np.int32),
        barycentric.astype(np.float32),
        np.where(found, spread, 0).astype(np.float32),
        found,
    )


def draw_views(rig: Rig, paint: Paint, look: Look) -> list[View]:
    """The model from all sides, mouth closed and open in turn."""
    sides = [(math.radians(yaw), math.radians(pitch)) for pitch in PITCHES for yaw in YAWS]
    drawn = in_order(lambda item: draw(rig, paint, *item[1], JAWS[item[0] % 2]), enumerate(sides))
    return [replace(view, landmarks=look(view.picture)) for view in drawn]


def draw(rig: Rig, paint: Paint, yaw: float, pitch: float, jaw: float) -> View:
    """One view: the head turned to its left by ``yaw`` and down by ``pitch``, radians."""
    params = FlameParams.neutral(1).replace(jaw=np.array([[jaw, 0, 0]], np.float32))
    vertices = skin(rig, params)[0].astype(np.float64)
    turn = matrices(np.array([0.0, yaw, 0.0])) @ matrices(np.array([pitch, 0.0, 0.0]))
    middle = (rig.joint_rest[3] + rig.joint_rest[4]) / 2 + [0.0, -0.03, -0.02]  # between the eyes, down and inwards
    turned = (vertices - middle) @ turn.T
    depth = DISTANCE - turned[:, 2]
    pixels = FOCAL * turned[:, :2] * [1.0, -1.0] / depth[:, None] + SIZE / 2
    normals = vertex_normals(turned, rig.faces)
    towards = np.array([0.0, 0.0, DISTANCE]) - turned
    facing = np.sum(normals * towards, 1) / np.linalg.norm(towards, axis=1)
    seen = rasterize(pixels, depth, rig.faces, (SIZE, SIZE))
    light = np.array([0.25 * math.sin(3 * yaw), 0.3, 0.9])
    picture = paint.picture(seen, rig.faces, normals, light / np.linalg.norm(light))
    return View(picture, seen, pixels, depth, facing, opened=jaw > 0, frontal=yaw == 0)


def surfaces(views: list[View], rig: Rig) -> list[tuple[NDArray[np.intp], Bool]]:
    """Landmarks and the triangles [F] that they lie on: skin is what is seen with the mouth closed."""
    corners = rig.skinning_weights[rig.faces]
    ball = (corners[:, :, 3:].max(2) > 0.5).all(1)
    lower = corners[:, :, 2].mean(1) > 0.5
    skin_shown = np.zeros(len(rig.faces), bool)
    for view in views:
        if not view.opened:
            skin_shown[view.seen.face[view.seen.face != BACKGROUND]] = True
    skin_shown &= ~ball
    rest = np.setdiff1d(np.arange(LANDMARKS), [*_IRISES, *_UPPER_LIP, *_LOWER_LIP])
    return [(_IRISES, ball), (_UPPER_LIP, skin_shown & ~lower), (_LOWER_LIP, skin_shown & lower), (rest, skin_shown)]


def together(
    views: list[View], vertices: Float64, faces: Int32, parts: list[tuple[NDArray[np.intp], Bool]]
) -> tuple[Float64, Float64, Bool]:
    """Where the views together see the landmarks on vertices [V, 3]: points [478, 3], spread [478] and found [478]."""
    places, weights = [], []
    for view in views:
        assert view.landmarks is not None
        place, weight, edge = np.zeros((LANDMARKS, 3)), np.zeros(LANDMARKS), np.zeros(LANDMARKS)
        for ids, surface in parts:
            where, near = nearest_pixels(view.seen, surface, view.landmarks[ids, :2].astype(np.float64))
            face, mix = points_seen(view.seen, where, view.pixels, view.depth, faces)
            corners = faces[np.maximum(face, 0)]
            facing = np.einsum("lk,lk->l", mix, view.facing[corners])
            place[ids] = np.einsum("lk,lka->la", mix, vertices[corners])
            weight[ids] = np.where(near & (face != BACKGROUND) & (facing > FACING), facing**2, 0.0)
            edge[ids] = near & (face != BACKGROUND)
        if view.opened:
            weight[_CLOSED] = 0
        weight[_OVAL] = edge[_OVAL] if view.frontal else 0
        places.append(place)
        weights.append(weight)
    place, weight = np.stack(places), np.stack(weights)
    # Beside the head's edge lies an ear or the neck, which face the camera well; most views are not that wrong.
    about = geometric_medians(place, (weight > 0).astype(np.float64))
    weight = np.where(np.linalg.norm(place - about, axis=-1) < ASTRAY, weight, 0.0)
    found = (weight > 0).sum(0) >= np.where(np.isin(np.arange(LANDMARKS), _OVAL), FEWEST_FRONTAL, FEWEST_VIEWS)
    points = geometric_medians(place, weight)
    away = np.linalg.norm(place - points, axis=-1)
    spread = np.sum(weight * away, 0) / np.maximum(weight.sum(0), 1e-12)
    return points, spread, found


def nearest_pixels(seen: Seen, surface: Bool, points: Float64) -> tuple[Float64, Bool]:
    """Points [n, 2] of a picture, moved to the nearest pixel that shows a surface where they do not lie on one.

    Returns:
        The points, and which of them lie within :data:`REACH` of the surface.
    """
    from scipy.ndimage import distance_transform_edt

    shown = (seen.face != BACKGROUND) & surface[np.maximum(seen.face, 0)]
    if not shown.any():
        return points, np.zeros(len(points), bool)
    distance, (rows, columns) = distance_transform_edt(~shown, return_indices=True)
    height, width = shown.shape
    x, y = np.clip(np.floor(points).astype(np.int64), 0, [width - 1, height - 1]).T
    nearest = np.stack([columns[y, x], rows[y, x]], 1) + 0.5
    return np.where((distance[y, x] > 0)[:, None], nearest, points), distance[y, x] < REACH


def geometric_medians(points: Float64, weights: Float64, iterations: int = 30) -> Float64:
    """Points [L, 3] with the least weighted sum of distances to points [n, L, 3]; weights [n, L].

    Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnés est minimum", Tohoku Mathematical
    Journal 43, 1937; distances are kept above 0.1 mm, so that it does not stop at one of the points.
    """
    share = weights
    for _ in range(iterations):
        total = np.maximum(share.sum(0), 1e-12)
        median = np.einsum("nl,nla->la", share, points) / total[:, None]
        share = weights / np.maximum(np.linalg.norm(points - median, axis=-1), 1e-4)
    return np.asarray(median)


def symmetric(rig: Rig) -> bool:
    """Whether the template is its own mirror image."""
    from scipy.spatial import cKDTree

    away, _ = cKDTree(rig.template).query(rig.template * np.array([-1, 1, 1], np.float32))
    return bool(np.quantile(away, 0.99) < SYMMETRIC)


def symmetrised(points: Float64, found: Bool) -> tuple[Float64, Bool]:
    """The mean of points [478, 3] and the mirror image of their counterparts; the one alone where only it was found."""
    other, too = points[MIRROR] * [-1.0, 1.0, 1.0], found[MIRROR]
    both = np.where(found[:, None], np.where(too[:, None], (points + other) / 2, points), other)
    return both, found | too


def nearest_on_surface(points: Float64, vertices: Float64, faces: Int32, allowed: Int32) -> tuple[Int32, Float64]:
    """The nearest point of the triangles ``allowed``: triangle [n] and barycentric coordinates [n, 3]."""
    from scipy.spatial import cKDTree

    corners = vertices[faces[allowed]]
    _, near = cKDTree(corners.mean(1)).query(points, min(24, len(allowed)))
    candidates = corners[near]  # [n, k, 3, 3]
    mix = nearest_barycentric(points[:, None], candidates)
    away = np.linalg.norm(np.einsum("nkc,nkca->nka", mix, candidates) - points[:, None], axis=-1)
    best = away.argmin(1)
    row = np.arange(len(points))
    return allowed[near[row, best]].astype(np.int32), mix[row, best]


def shut_lids(face: Int32, barycentric: Float64, rig: Rig, allowed: NDArray[np.intp]) -> None:
    """Move paired landmarks of the lids to where the lids meet when the eye is shut, as little as that takes; in place.

    The network marks a lid's edge well, but not how far along it a landmark lies, least of all at the corners. What
    meets in the picture when a person blinks must meet on the mesh, or no blink ever closes it.

    Args:
        face: [478] and barycentric: [478, 3] where landmarks lie. allowed: triangles of the skin that is seen.
    """
    lids = np.repeat([[0.0], [1.0]], 2, 1).astype(np.float32)
    opened, shut = skin(rig, FlameParams.neutral(2).replace(eyelids=lids)).astype(np.float64)
    if np.linalg.norm(shut - opened, axis=1).max() < LIDS_MOVE:
        return
    corners = opened[rig.faces]
    for upper, lower in names.LID_PAIRS:
        ends = [barycentric[i] @ corners[face[i]] for i in (upper, lower)]
        near = allowed[np.linalg.norm(corners[allowed].mean(1) - np.mean(ends, 0), axis=1) < LID_REACH]
        triangle, mix = np.repeat(near, len(_SAMPLES)), np.tile(_SAMPLES, (len(near), 1))
        rest, met = (np.einsum("nk,nka->na", mix, vertices[rig.faces[triangle]]) for vertices in (opened, shut))
        cost = APART * np.sum((met[:, None] - met[None]) ** 2, -1)
        cost += np.sum((rest - ends[0]) ** 2, 1)[:, None] + np.sum((rest - ends[1]) ** 2, 1)
        apart = np.linalg.norm(rest[:, None] - rest[None], axis=-1)  # at the corner, lids are one and always meet
        cost[apart < 0.5 * np.linalg.norm(ends[0] - ends[1])] = np.inf
        for landmark, best in zip((upper, lower), np.unravel_index(cost.argmin(), cost.shape), strict=True):
            face[landmark], barycentric[landmark] = triangle[best], mix[best]


def nearest_barycentric(points: Float64, corners: Float64) -> Float64:
    """Barycentric coordinates [..., 3] of the points of triangles [..., 3, 3] nearest to points [..., 3]."""
    origin = corners[..., 0, :]
    edges = corners[..., 1:, :] - origin[..., None, :]  # [..., 2, 3]
    gram = edges @ np.swapaxes(edges, -1, -2) + 1e-18 * np.eye(2)
    inner = np.linalg.solve(gram, np.sum(edges * (points - origin)[..., None, :], -1)[..., None])[..., 0]
    best = np.concatenate([1 - inner.sum(-1, keepdims=True), inner], -1)
    inside = (best >= 0).all(-1)
    least = np.full(inside.shape, np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):  # outside, the nearest point lies on an edge
        start, along = corners[..., a, :], corners[..., b, :] - corners[..., a, :]
        t = np.sum((points - start) * along, -1) / np.maximum(np.sum(along**2, -1), 1e-18)
        t = np.clip(t, 0, 1)
        away = np.linalg.norm(start + t[..., None] * along - points, axis=-1)
        mix = np.zeros_like(best)
        mix[..., a], mix[..., b] = 1 - t, t
        better = ~inside & (away < least)
        best = np.where(better[..., None], mix, best)
        least = np.where(better, away, least)
    return best


def vertex_normals(vertices: Float64, faces: Int32) -> Float64:
    """Unit normals [V, 3], means of the triangles around weighted by their areas."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.stack([np.bincount(faces.reshape(-1), np.repeat(normal[:, k], 3), len(vertices)) for k in range(3)], 1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-18)


def _painted(model: FlameModel) -> dict[str, Int32]:
    """The parts that the model names and that are painted as they are."""
    names = ("lips", "brows", "mouth_interior", "tongue", "teeth_upper", "teeth_lower", "scalp")
    return {name: model.regions[name] for name in names if name in model.regions}
