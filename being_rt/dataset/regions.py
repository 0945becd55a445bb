"""Where mouth, eyes, face, scalp and neck are on any FLAME-shaped rig, and where a camera sees them.

FLAME files carry no names for the parts of the mesh. What they do carry is skinning weights: eyeballs follow the eye
joints, and the lips lie where vertices that follow the jaw touch vertices that do not. Everything else is measured
from there, in units of the distance between the eyes. Landmarks, where a rig has them, only sharpen the mouth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import on_surface, skin

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

REGIONS = ("mouth", "left_eye", "right_eye", "scalp", "face", "neck")
BOXES = ("mouth", "left_eye", "right_eye", "face")
_JAW, _LEFT_EYE, _RIGHT_EYE = 2, 3, 4
_SEAM_LANDMARKS = (("dlib68", slice(60, 68)), ("inner_lips_upper", slice(None)), ("inner_lips_lower", slice(None)))
_LIP_LANDMARKS = (("dlib68", slice(48, 68)), ("inner_lips_upper", slice(None)), ("inner_lips_lower", slice(None)))


def face_regions(rig: Rig) -> dict[str, Int32]:
    """Vertices of the parts of the face: "mouth", "left_eye", "right_eye", "scalp", "face", "neck", int32 each, sorted.

    "face" is the skin from brow to chin and ear to ear, with mouth and eyes in it; "mouth" holds lips, teeth and what
    lies behind them; an eye is the eyeball, its lids and the skin just around. "face", "scalp" and "neck" share the
    mesh between them. Left is the person's.

    Raises:
        InvalidParameterError: no vertex follows the eye joints or the jaw, so this is not a face.

    Example::

        mouth = rig.template[face_regions(rig)["mouth"]]
    """
    vertices = rig.template.astype(np.float64)
    weights = rig.skinning_weights
    eyes = [_eye(vertices, weights[:, joint]) for joint in (_LEFT_EYE, _RIGHT_EYE)]
    between = (eyes[0] + eyes[1]) / 2
    unit = float(np.linalg.norm(eyes[0] - eyes[1]))  # 6 cm in an adult
    relative = (vertices - between) / unit
    mouth = _mouth(relative, _lips(rig, relative))
    scalp, neck = _scalp(relative), _neck(relative, weights)
    masks = {
        "mouth": mouth,
        **{
            name: (np.linalg.norm(vertices - eye, axis=1) < 0.36 * unit) | (weights[:, joint] > 0.5)
            for name, eye, joint in (("left_eye", eyes[0], _LEFT_EYE), ("right_eye", eyes[1], _RIGHT_EYE))
        },
        "scalp": scalp & ~neck,
        "face": ~scalp & ~neck,
        "neck": neck,
    }
    return {name: np.flatnonzero(masks[name]).astype(np.int32) for name in REGIONS}


def lip_seam(rig: Rig) -> Float64:
    """Points along the line at which the resting lips meet [n, 3], metres, in no order.

    Landmarks of the inner lips, where the rig has them, or else vertices that follow the jaw beside some that do not.

    Raises:
        InvalidParameterError: as :func:`face_regions`.
    """
    vertices = rig.template.astype(np.float64)
    known = [
        on_surface(vertices, rig.faces, (rig.landmarks[name][0][part], rig.landmarks[name][1][part]))
        for name, part in _SEAM_LANDMARKS
        if name in rig.landmarks and len(rig.landmarks[name][0][part])
    ]
    if known:
        return np.concatenate(known)
    eyes = [_eye(vertices, rig.skinning_weights[:, joint]) for joint in (_LEFT_EYE, _RIGHT_EYE)]
    unit = float(np.linalg.norm(eyes[0] - eyes[1]))
    return _touching_lips(rig, vertices / unit) * unit


def region_boxes(
    rig: Rig, params: FlameParams, camera: Camera, vertices: Float32 | None = None, margin: float = 0.25
) -> dict[str, Float32]:
    """Boxes around "mouth", "left_eye", "right_eye" and "face" on a camera's picture, frame by frame.

    Args:
        vertices: [T, V, 3] from :func:`being_rt.flame.skinning.skin` where they are known already.
        margin: added on each side, in parts of the box's width and height.

    Returns:
        float32 [T, 4] per region: left, top, right, bottom in pixels, not cut off at the picture's border. NaN where
        a part of the region lies behind the camera.

    Example::

        left, top, right, bottom = region_boxes(rig, params, camera)["mouth"][0]
    """
    posed = skin(rig, params) if vertices is None else vertices
    regions = face_regions(rig)
    return {name: _boxes(posed[:, regions[name]], camera, margin) for name in BOXES}


def project(points: NDArray[Any], camera: Camera) -> tuple[Float64, Float64]:
    """Where points [..., 3] of FLAME space lie on a picture: pixels [..., 2] and depth [...] in metres.

    Points at or behind the camera have pixels that are NaN.
    """
    pose = camera.world_to_camera.astype(np.float64)
    seen = np.asarray(points, np.float64) @ pose[:3, :3].T + pose[:3, 3]
    depth = seen[..., 2]
    with np.errstate(invalid="ignore"):
        plane = seen / np.where(depth > 1e-6, depth, np.nan)[..., None]
    return (plane @ camera.intrinsics.astype(np.float64).T)[..., :2], depth


def _boxes(points: Float32, camera: Camera, margin: float) -> Float32:
    pixels, _ = project(points, camera)
    low, high = pixels.min(1), pixels.max(1)
    border = margin * (high - low)
    return np.concatenate([low - border, high + border], axis=1).astype(np.float32)


def _eye(vertices: Float64, weight: Float32) -> Float64:
    follows = weight > 0.5
    if not follows.any():
        raise InvalidParameterError("the rig has no vertices that follow an eye joint; is it a FLAME head?")
    return (vertices[follows].min(0) + vertices[follows].max(0)) / 2


def _lips(rig: Rig, vertices: Float64) -> Float64:
    """Points along the lips [n, 3]: landmarks, or else where skin that follows the jaw touches skin that does not.

    Vertices, and so the points, are in units of the distance between the eyes.
    """
    known = [
        on_surface(vertices, rig.faces, (rig.landmarks[name][0][part], rig.landmarks[name][1][part]))
        for name, part in _LIP_LANDMARKS
        if name in rig.landmarks and len(rig.landmarks[name][0][part])
    ]
    if known:
        return np.concatenate(known)
    return _touching_lips(rig, vertices)


def _touching_lips(rig: Rig, vertices: Float64) -> Float64:
    """Vertices [n, 3] of the lower lip where it meets the upper one, in units of the distance between the eyes."""
    jaw = rig.skinning_weights[:, _JAW]
    lower, upper = np.flatnonzero(jaw > 0.7), np.flatnonzero(jaw < 0.3)
    if not lower.size or not upper.size:
        raise InvalidParameterError("the rig has no vertices that follow the jaw; is it a FLAME head?")
    squared = (
        np.sum(vertices[lower] ** 2, 1)[:, None]
        + np.sum(vertices[upper] ** 2, 1)[None]
        - 2 * vertices[lower] @ vertices[upper].T
    )
    closest = squared.min(1)
    # Lips at rest are within a millimetre or two of each other; elsewhere the weight changes over centimetres.
    touching = vertices[lower][closest < max(1e-3, 4 * float(np.quantile(closest, 0.01)))]
    front = touching[:, 2] > touching[:, 2].max() - 0.5
    return touching[front]


def _mouth(relative: Float64, lips: Float64) -> Bool:
    low, high = lips.min(0) - np.array([0.15, 0.2, 0.9]), lips.max(0) + np.array([0.15, 0.2, 0.3])
    inside = (relative > low) & (relative < high)
    return inside.all(1)


def _scalp(relative: Float64) -> Bool:
    """Behind a plane from the hairline over the ears to the nape, which leaves the ears to the face."""
    front, back = relative[:, 2].max(), relative[:, 2].min()
    hairline = np.array([1.15, front - 0.22 * (front - back)])
    nape = np.array([-0.9, back + 0.18 * (front - back)])
    along = hairline - nape
    return along[0] * (relative[:, 2] - nape[1]) - along[1] * (relative[:, 1] - nape[0]) < 0


def _neck(relative: Float64, weights: Float32) -> Bool:
    """Below the chin, and below a line that rises from there to the nape."""
    jaw = (weights[:, _JAW] > 0.5) & (relative[:, 2] > np.quantile(relative[:, 2], 0.5))
    chin = relative[jaw, 1].min() if jaw.any() else relative[:, 1].min() / 2
    front = relative[:, 2].max()
    rising = chin - 0.1 + 0.45 * np.clip(front - 1.0 - relative[:, 2], 0, None)
    return relative[:, 1] < np.minimum(rising, chin + 0.9)
