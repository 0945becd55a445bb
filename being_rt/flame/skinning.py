"""From a FLAME model and an identity to a rig, and from a rig and a motion to vertices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.flame.model import SHAPE_COUNT, FlameModel
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


def bake_rig(model: FlameModel, shape: NDArray[Any] | None = None) -> Rig:
    """The rig of one person: identity added to the template, joints regressed, triangle frames measured.

    The expression, eyelid and pose bases are stored as float16: with FLAME's displacements of a few millimetres per
    unit this moves a vertex by less than 0.01 mm.

    Args:
        model: any edition of FLAME, or a procedural head.
        shape: identity coefficients [S <= 300], the missing ones 0; None is the mean face.

    Raises:
        InvalidParameterError: the model's tensors do not fit together, or shape is too long or not finite.

    Example::

        rig = bake_rig(load_flame_model("flame2023_Open.pkl"), shape=np.zeros(300))
    """
    model.validate()
    coefficients = np.zeros(SHAPE_COUNT, np.float32)
    if shape is not None:
        given = np.asarray(shape, np.float32)
        if given.ndim != 1 or given.size > SHAPE_COUNT or not np.isfinite(given).all():
            raise InvalidParameterError(f"shape must be at most {SHAPE_COUNT} finite numbers, got {list(given.shape)}")
        coefficients[: given.size] = given
    template = (model.template + model.shape_basis @ coefficients).astype(np.float32)
    return Rig(
        edition=model.edition,
        template=template,
        faces=np.ascontiguousarray(model.faces),
        expression_basis=np.ascontiguousarray(model.expression_basis, np.float16),
        eyelid_basis=np.ascontiguousarray(model.eyelid_basis, np.float16),
        pose_basis=np.ascontiguousarray(model.pose_basis, np.float16),
        skinning_weights=np.ascontiguousarray(model.skinning_weights),
        joint_rest=model.joint_regressor @ template,
        joint_expression=np.tensordot(model.joint_regressor, model.expression_basis, axes=1),
        face_frames=face_frames(template, model.faces, model.uv, model.uv_faces),
        expression_map=model.expression_map,
        landmarks=model.landmarks,
    )


def face_frames(
    template: NDArray[Any], faces: NDArray[Any], uv: NDArray[Any] | None = None, uv_faces: NDArray[Any] | None = None
) -> Float32:
    """What turns a triangle's edges, in any pose, into its tangent frame: the inverse rest edges.

    In the rest pose each triangle has a tangent t, the direction of growing u, made orthogonal to the normal
    n = normalize(e1 x e2), and b = n x t. The edges in that frame are the 2x2 matrix E = [[e1.t, e2.t], [e1.b, e2.b]],
    and [t b] = [e1 e2] E^-1 holds in the rest pose and, for the skinned edges, defines the tangents of every other:
    they stretch and shear with the triangle, and with them the Gaussians that are bound to it.

    Args:
        template: [V, 3] rest pose. faces: [F, 3].
        uv: [U, 2] and uv_faces: [F, 3]; without them, or where a triangle's UVs have no area, t = normalize(e1).

    Returns:
        float32 [F, 2, 2], E^-1. Zeros for a triangle without area: it cannot carry a Gaussian.

    Example::

        t_b = np.stack([e1, e2], -1) @ frames[face]  # [3, 2]
    """
    corners = np.asarray(template, np.float64)[faces]
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = _unit(np.cross(e1, e2))
    tangent = e1
    if uv is not None and uv_faces is not None:
        corners_uv = np.asarray(uv, np.float64)[uv_faces]
        d1, d2 = corners_uv[:, 1] - corners_uv[:, 0], corners_uv[:, 2] - corners_uv[:, 0]
        area = d1[:, 0] * d2[:, 1] - d2[:, 0] * d1[:, 1]
        # d position / d u solves [e1 e2] = [dp/du dp/dv] [d1 d2]; the sign keeps its direction on mirrored UVs.
        along_u = np.sign(area)[:, None] * (d2[:, 1:] * e1 - d1[:, 1:] * e2)
        tangent = np.where(np.abs(area)[:, None] > 1e-12, along_u, e1)
    tangent = _unit(tangent - np.sum(tangent * normal, -1, keepdims=True) * normal)
    bitangent = np.cross(normal, tangent)
    edges = np.stack([np.stack([np.sum(e * axis, -1) for e in (e1, e2)], -1) for axis in (tangent, bitangent)], -2)
    flat = np.linalg.det(edges) <= 1e-14  # square metres: twice the area of a triangle 0.0001 mm on a side
    edges[flat] = np.eye(2)
    inverse = np.linalg.inv(edges)
    inverse[flat] = 0
    return inverse.astype(np.float32)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def skin(rig: Rig, params: FlameParams, threads: int = 0) -> Float32:
    """Vertices of every frame: float32 [T, V, 3], metres, FLAME space. Computed by the native core.

    Linear blend skinning of the shaped, pose-corrected template: Li et al., "Learning a model of facial shape and
    expression from 4D scans", ACM TOG 36(6), 2017, equations 1 to 5; eyelids are added to the shape before skinning.

    Args:
        threads: 0 is one per core.

    Example::

        vertices = skin(rig, FlameParams.neutral())[0]
    """
    from being_rt import _C  # here, so that reading models and baking rigs needs no native core

    posed = {name: getattr(params, name) for name in WIDTHS}
    return _C.skin(
        rig.template,
        rig.expression_basis,
        rig.eyelid_basis,
        rig.pose_basis,
        rig.skinning_weights,
        rig.joint_rest,
        rig.joint_expression,
        **posed,
        threads=threads,
    )


def on_surface(vertices: NDArray[Any], faces: NDArray[Any], landmarks: tuple[Int32, Float32]) -> NDArray[Any]:
    """Points given as (face [L], barycentric [L, 3]) on vertices [..., V, 3]: [..., L, 3]."""
    face, barycentric = landmarks
    return np.einsum("lk,...lka->...la", barycentric, vertices[..., faces[face], :])


def lip_gap(rig: Rig, vertices: NDArray[Any]) -> Float32:
    """Distance between the lips at each pair of inner lip landmarks, from corner to corner, in metres.

    Args:
        rig: with the landmarks ``inner_lips_upper`` and ``inner_lips_lower``, paired columns.
        vertices: [T, V, 3] from :func:`skin`.

    Returns:
        float32 [T, columns].

    Raises:
        InvalidParameterError: the rig has no paired inner lip landmarks.
    """
    for name in ("inner_lips_upper", "inner_lips_lower"):
        if name not in rig.landmarks:
            raise InvalidParameterError(f"the rig has no landmarks {name!r}; lip gaps need them")
    upper = on_surface(vertices, rig.faces, rig.landmarks["inner_lips_upper"])
    lower = on_surface(vertices, rig.faces, rig.landmarks["inner_lips_lower"])
    if upper.shape != lower.shape:
        raise InvalidParameterError("inner_lips_upper and inner_lips_lower must have equally many points")
    return np.linalg.norm(upper - lower, axis=-1).astype(np.float32)
