"""Which refined frames are believed, how they join those that are not, and how steady a motion is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.jitter import jitter
from being_rt.dataset.regions import face_regions, project
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import skin
from being_rt.track.embedding import Embedding
from being_rt.track.fit_landmarks import OVAL

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

FACING = 0.3  # cosine between surface and view from which a landmark counts
_FRAMES = 64  # skinned at a time


@dataclass(frozen=True)
class Landmarks:
    """What was seen of landmarks in T timesteps, and where they lie on the mesh."""

    pixels: Float32  # [T, 478, 2] of the full frame
    found: Bool  # [T]
    embedding: Embedding
    bias: Float32  # [478, 3] metres, added to the mesh at rest; of a :class:`being_rt.track.fit.Fit`


def landmark_error(landmarks: Landmarks, rig: Rig, params: FlameParams, camera: Camera) -> Float64:
    """How far [T] px a motion's landmarks are from those seen: root mean square over the inner ones in view.

    NaN in frames without a face.
    """
    embedding = landmarks.embedding
    inner = embedding.found.copy()
    inner[list(OVAL)] = False
    ids = np.flatnonzero(inner)
    in_view = facing(landmarks, rig, params, camera)[:, ids] > FACING
    follows = followed(landmarks, rig)[ids]
    result = np.full(len(params), np.nan)
    for start in range(0, len(params), _FRAMES):
        part = slice(start, start + _FRAMES)
        points = embedding.points(skin(rig, params[part]).astype(np.float64), rig.faces)[:, ids]
        turned = np.einsum("lj,tjab->tlab", follows, _joint_rotations(params[part]))
        points = points + np.einsum("tlab,lb->tla", turned, landmarks.bias[ids])
        squares = np.sum((project(points, camera)[0] - landmarks.pixels[part][:, ids, :2]) ** 2, -1)
        counted = in_view[part] & np.isfinite(squares)
        total = np.where(counted, squares, 0).sum(1)
        result[part] = np.sqrt(total / np.maximum(counted.sum(1), 1))
    result[~landmarks.found] = np.nan
    return result


def followed(landmarks: Landmarks, rig: Rig) -> Float64:
    """How much each landmark follows the joints [478, 5]."""
    embedding = landmarks.embedding
    weights = rig.skinning_weights.astype(np.float64)[rig.faces[embedding.face]]
    return np.asarray(np.einsum("lc,lcj->lj", embedding.barycentric, weights))


def _joint_rotations(params: FlameParams) -> Float64:
    """Rotations [T, 5, 3, 3] of global, neck, jaw, left and right eye joint."""
    base = matrices(params.rotation)
    neck = base @ matrices(params.neck)
    eyes = params.eyes.reshape(-1, 2, 3)
    moving = (params.jaw, eyes[:, 0], eyes[:, 1])
    return np.stack([base, neck, *(neck @ matrices(each) for each in moving)], 1)


def facing(landmarks: Landmarks, rig: Rig, params: FlameParams, camera: Camera) -> Float64:
    """Cosines [T, 478] between the mesh's surface at the landmarks and the direction to the camera."""
    embedding = landmarks.embedding
    corners = rig.faces[embedding.face]
    eye = np.linalg.inv(camera.world_to_camera.astype(np.float64))[:3, 3]
    result = np.zeros((len(params), len(corners)))
    for start in range(0, len(params), _FRAMES):
        part = slice(start, start + _FRAMES)
        triangles = skin(rig, params[part]).astype(np.float64)[:, corners]  # [t, 478, 3, 3]
        normal = np.cross(triangles[:, :, 1] - triangles[:, :, 0], triangles[:, :, 2] - triangles[:, :, 0])
        view = eye - triangles.mean(2)
        lengths = np.linalg.norm(normal, axis=-1) * np.linalg.norm(view, axis=-1)
        result[part] = np.sum(normal * view, -1) / np.maximum(lengths, 1e-12)
    return result


def blended(given: FlameParams, refined: FlameParams, accepted: Bool, ramp: int) -> FlameParams:
    """Refined where accepted, given elsewhere, and in between from the one to the other over ``ramp`` frames."""
    count = len(given)
    refused = np.flatnonzero(~accepted)
    distance = np.full(count, np.inf)
    if len(refused):
        after = np.searchsorted(refused, np.arange(count))
        distance = np.minimum(
            np.where(after < len(refused), refused[np.minimum(after, len(refused) - 1)] - np.arange(count), np.inf),
            np.where(after > 0, np.arange(count) - refused[np.maximum(after - 1, 0)], np.inf),
        )
    share = np.clip(distance / (ramp + 1), 0, 1)[:, None]
    return given.replace(
        **{
            name: getattr(given, name) + share * (getattr(refined, name).astype(np.float64) - getattr(given, name))
            for name in WIDTHS
        }
    )


def head_and_body_jitter(params: FlameParams, rig: Rig, camera: Camera) -> tuple[float, float]:
    """How far head and body jump from frame to frame beyond smooth motion: px, root mean square.

    See :func:`being_rt.dataset.jitter.jitter`.
    """
    face = face_regions(rig)["face"]
    joints = rig.joint_rest + np.einsum("jce,te->tjc", rig.joint_expression, params.expression, dtype=np.float64)
    centre = rig.template[face].astype(np.float64).mean(0)
    turned, leaned = matrices(params.rotation), matrices(params.neck)
    head = np.einsum("tab,tb->ta", leaned, centre - joints[:, 1]) + joints[:, 1] - joints[:, 0]
    head = np.einsum("tab,tb->ta", turned, head) + joints[:, 0] + params.translation
    # Shoulders follow the translation, and neither joint.
    body = rig.joint_rest[0] + params.translation.astype(np.float64)
    return jitter(project(head, camera)[0]), jitter(project(body, camera)[0])
