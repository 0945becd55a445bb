"""Bringing the fitted mesh onto the landmarks exactly, so that lids are painted on lids and lips on lips.

A model's identities and expressions come near a face, not onto it; two pixels beside the rim of a lid, the lid's skin
would be painted on the eyeball. So the mesh is moved across the picture by what is left at the landmarks: a smooth
field about them that fades out where there are none, a smoothing interpolation with radial basis functions
(Carr et al., "Reconstruction and representation of 3D objects with radial basis functions", SIGGRAPH 2001, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.avatar.demo.features import landmark_points, resample
from being_rt.dataset.regions import project
from being_rt.flame.model import FlameModel
from being_rt.track.embedding import Embedding
from being_rt.track.topology import LIDS, LIPS

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

RIM, OUTLINE, OTHER = 0.002, 0.05, 0.3  # smoothing at lids and lips, which must fit, at the outline and elsewhere
REACH = 0.03  # metres from the nearest landmark over which the field fades out
POINTS = 12  # along each rim


def aligned(
    model: FlameModel,
    embedding: Embedding,
    vertices: Float64,
    camera: Camera,
    landmarks: Float32,
    outline: tuple[Float64, Float64] | None = None,
) -> Float64:
    """How the vertices [V, 3] of the photograph's pose are to be moved [V, 3], metres, parallel to the picture.

    Args:
        vertices: [V, 3] posed.
        landmarks: [478, 2 or more] px.
        outline: further points of the mesh [n, 3] and where they belong [n, 2] px.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.spatial import cKDTree

    ids = np.flatnonzero(embedding.found)
    ids = np.setdiff1d(ids, np.concatenate([*LIDS, LIPS[:40], np.arange(468, 478)]))
    places = [embedding.points(vertices, model.faces)[ids]]
    targets = [landmarks[ids, :2].astype(np.float64)]
    smoothing = [np.full(len(ids), OTHER)]
    for line, target in _rims(model, vertices, landmarks[:, :2].astype(np.float64)):
        places.append(resample(line, POINTS))
        targets.append(_resampled(target, POINTS))
        smoothing.append(np.full(POINTS, RIM))
    place, target = np.concatenate(places), np.concatenate(targets)
    facing = _facing(model, vertices, camera, place)
    strength = np.concatenate(smoothing)
    if outline is not None and len(outline[0]):
        place, target = np.concatenate([place, outline[0]]), np.concatenate([target, outline[1]])
        facing = np.concatenate([facing, np.ones(len(outline[0]), bool)])
        strength = np.concatenate([strength, np.full(len(outline[0]), OUTLINE)])
    pixel, depth = project(place, camera)
    unit = camera.intrinsics[0, 0] / float(np.median(depth))  # px per metre
    away = (target - pixel) / unit
    kept = facing & (np.linalg.norm(away, axis=1) < 0.02)
    field = RBFInterpolator(100 * place[kept], away[kept], smoothing=strength[kept], kernel="linear", degree=0)
    near = cKDTree(place[kept]).query(vertices)[0]
    across = field(100 * vertices) * np.exp(-((near / REACH) ** 2))[:, None]
    move = across @ camera.world_to_camera[:2, :3].astype(np.float64)
    # What is rigid moves as one: eyeballs with their lids, teeth not at all.
    for side in ("left", "right"):
        rim = np.concatenate([landmark_points(model, vertices, f"eyelid_{lid}_{side}") for lid in ("upper", "lower")])
        ball = model.regions[f"{side}_eyeball"]
        mean = field(100 * rim).mean(0)
        move[ball] = mean @ camera.world_to_camera[:2, :3].astype(np.float64)
    for name in ("teeth_upper", "teeth_lower", "tongue"):
        move[model.regions[name]] = 0
    return move


def _rims(model: FlameModel, vertices: Float64, landmarks: Float64) -> list[tuple[Float64, Float64]]:
    """Lines on the mesh [n, 3] and in the picture [m, 2] that should lie on each other, ends on ends."""
    result = []
    for side, lids in (("right", LIDS[0]), ("left", LIDS[1])):
        inner_to_outer = {"lower": lids[8::-1], "upper": np.concatenate([lids[8:9], lids[:8:-1], lids[:1]])}
        for lid, ids in inner_to_outer.items():
            line = landmark_points(model, vertices, f"eyelid_{lid}_{side}")
            outwards = abs(line[-1, 0]) > abs(line[0, 0])
            result.append((line if outwards else line[::-1], landmarks[ids]))
    for edge, lips in (("inner", LIPS[20:40]), ("outer", LIPS[:20])):
        from_left = {"lower": lips[:11], "upper": np.concatenate([lips[:1], lips[11:], lips[10:11]])}
        for lip, ids in from_left.items():
            if edge == "inner":
                line = landmark_points(model, vertices, f"inner_lips_{lip}")
            else:
                around = landmark_points(model, vertices, "dlib68")[48:60]
                line = around[:7] if lip == "upper" else np.concatenate([around[6:], around[:1]])
            # The picture's left is the person's right, -x.
            result.append((line if line[0, 0] < line[-1, 0] else line[::-1], landmarks[ids]))
    return result


def _resampled(curve: Float64, count: int) -> Float64:
    flat = np.concatenate([curve, np.zeros((len(curve), 1))], 1)
    return resample(flat, count)[:, :2]


def _facing(model: FlameModel, vertices: Float64, camera: Camera, place: Float64) -> NDArray[np.bool_]:
    """Which places [n] on the mesh's surface are turned to the camera by more than 70 degrees off."""
    from scipy.spatial import cKDTree

    corners = vertices[model.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    pose = camera.world_to_camera.astype(np.float64)
    centre = -pose[:3, :3].T @ pose[:3, 3]
    nearest = cKDTree(corners.mean(1)).query(place)[1]
    view = centre - place
    cosine = np.sum(normal[nearest] * view, 1) / (
        np.linalg.norm(normal[nearest], axis=1) * np.linalg.norm(view, axis=1) + 1e-12
    )
    return np.asarray(cosine > 0.34)
