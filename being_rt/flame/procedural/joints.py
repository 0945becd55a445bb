"""Joints of the average head, the weights that skin it to them, and the regressor that finds them again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.model import PARENTS
from being_rt.flame.procedural.surface import (
    EYE,
    MOUTH_HALF_WIDTH,
    NECK_CUT_Y,
    lip_seam,
    smoothstep,
)
from being_rt.flame.procedural.topology import LIP_ROWS, MOUTH_CORNER, HeadMesh, Part, edges_of

Float64 = NDArray[np.float64]
Int = NDArray[np.int64]

# global, neck (atlas), jaw, eyes. The jaw's hinge lies below and before the real joint, because a real jaw also slides
# forward as it opens; one rotation about this axis follows that path closely up to 0.4 rad.
JOINTS = np.array([[0.0, -0.1800, -0.0720], [0.0, -0.1000, -0.0560], [0.0, -0.0030, -0.0300], EYE, EYE * [-1, 1, 1]])


def mouth_side(mesh: HeadMesh) -> Int:
    """+1 on the rows of the upper lip and the mouth's roof, -1 on lower lip and floor, 0 elsewhere and at corners."""
    side = np.zeros(len(mesh.vertices), dtype=np.int64)
    for row in mesh.mouth_rows[2:]:
        for ids in (row, mesh.mirror[row]):
            side[ids[:MOUTH_CORNER]] = 1
            side[ids[MOUTH_CORNER + 1 :]] = -1
    return side


def jaw_weights(mesh: HeadMesh) -> Float64:
    """Share of the jaw in each vertex's motion with the head, [V].

    Below the lips' seam the skin goes with the jaw: a step inside the lips, a ramp of 35 mm beyond their corners. On
    the lip rows the step is kept by row, so that lips never stick together.
    """
    x, y, z = np.abs(mesh.vertices[:, 0]), mesh.vertices[:, 1], mesh.vertices[:, 2]
    beyond = smoothstep(0.70, 1.55, x / MOUTH_HALF_WIDTH)
    soft = 0.0012 + 0.034 * beyond
    below = lip_seam(np.minimum(x, MOUTH_HALF_WIDTH)) - 0.18 * np.clip(x - MOUTH_HALF_WIDTH, 0.0, 0.05) - y
    weight = smoothstep(-0.5, 0.5, below / (2.0 * soft))
    weight *= smoothstep(-0.060, 0.005, z + 0.35 * (y + 0.09))
    weight *= smoothstep(-0.122, -0.084, y - 0.25 * np.clip(z, -0.02, 0.05)) * smoothstep(0.015, -0.03, y)
    side = mouth_side(mesh)
    corner = np.clip(x / MOUTH_HALF_WIDTH, 0.0, 1.0) ** 3.5
    inside = mesh.part == Part.MOUTH_INTERIOR
    weight = np.where(side > 0, np.where(inside, 0.45, 0.48) * corner, weight)
    weight = np.where(side < 0, 1.0 - np.where(inside, 0.50, 0.52) * corner, weight)
    weight[np.isin(mesh.part, (Part.UPPER_TEETH, Part.EYEBALL, Part.EAR))] = 0.0
    weight[np.isin(mesh.part, (Part.LOWER_TEETH, Part.TONGUE))] = 1.0
    return weight


def skinning_weights(mesh: HeadMesh) -> Float64:
    """Linear blend skinning weights [V, 5], rows sum to 1."""
    v, part = mesh.vertices, mesh.part
    neck = smoothstep(-0.185, -0.100, v[:, 1] + 0.35 * np.clip(v[:, 2] + 0.06, -0.06, 0.06))
    neck *= smoothstep(NECK_CUT_Y, NECK_CUT_Y + 0.03, v[:, 1])
    jaw = jaw_weights(mesh)
    weights = np.zeros((len(v), 5))
    weights[:, 0], weights[:, 1], weights[:, 2] = 1.0 - neck, neck * (1.0 - jaw), neck * jaw
    ball = part == Part.EYEBALL
    weights[ball] = 0.0
    weights[ball & (v[:, 0] > 0), 3] = 1.0
    weights[ball & (v[:, 0] < 0), 4] = 1.0
    edges = edges_of(mesh.faces)
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(edges[:, 0], minlength=len(v))[:, None]
    smoothed = (part <= Part.EYELIDS) | ((part == Part.LIPS) & (mesh.row < 1))
    for _ in range(8):
        total = np.zeros_like(weights)
        np.add.at(total, edges[:, 0], weights[edges[:, 1]])
        weights = np.where(smoothed[:, None], 0.5 * weights + 0.5 * total / degree, weights)
    for k, row in enumerate(mesh.mouth_rows[1:], 1):  # the corner goes half way, on every row alike
        share = 0.48 if k < LIP_ROWS + 2 else 0.5
        for i in (row[MOUTH_CORNER], mesh.mirror[row[MOUTH_CORNER]]):
            head = 1.0 - weights[i, 0]
            weights[i] = [weights[i, 0], head * (1.0 - share), head * share, 0.0, 0.0]
    weights = np.where(weights < 1e-6, 0.0, weights)
    for ids in (mesh.neck_ring, mesh.mirror[mesh.neck_ring]):
        weights[ids] = [1.0, 0.0, 0.0, 0.0, 0.0]
    return weights / weights.sum(1, keepdims=True)


def joint_regressor(mesh: HeadMesh) -> Float64:
    """Weights [5, V] over a patch of vertices near each joint that reproduce JOINTS; rows sum to 1 (least norm)."""
    v, part = mesh.vertices, mesh.part
    skin = part <= Part.LIPS
    ball = part == Part.EYEBALL
    patches = [
        skin & (v[:, 1] < -0.160),
        skin & (np.abs(v[:, 1] - JOINTS[1, 1]) < 0.03) & (v[:, 2] < 0.01),
        skin & (np.abs(v[:, 1] - JOINTS[2, 1]) < 0.035) & (v[:, 2] < 0.02),
        ball & (v[:, 0] > 0),
        ball & (v[:, 0] < 0),
    ]
    regressor = np.zeros((5, len(v)))
    for j, patch in enumerate(patches):
        ids = np.flatnonzero(patch)
        system = np.concatenate([v[ids].T, np.ones((1, len(ids)))])
        mean = np.full(len(ids), 1.0 / len(ids))
        regressor[j, ids] = mean + np.linalg.pinv(system) @ (np.append(JOINTS[j], 1.0) - system @ mean)
    return regressor


def jaw_transforms(angle: float) -> Float64:
    """Skinning transforms [5, 3, 4] of the average head with the jaw open by ``angle`` radians, all else at rest."""
    transforms = np.tile(np.eye(3, 4), (len(PARENTS), 1, 1))
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    transforms[2, :, :3] = rotation
    transforms[2, :, 3] = JOINTS[2] - rotation @ JOINTS[2]
    return transforms
