"""A FLAME model with one person's identity baked in: what drawing a frame needs of the mesh, and no more."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.model import ExpressionMap

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class Rig:
    """A FLAME model with one person's identity baked in: what a frame needs of it and no more. V vertices, F triangles.

    ``joints(expression) = joint_rest + joint_expression @ expression`` equals regressing the joints from the shaped
    mesh, because regression and blendshapes are both linear.
    """

    edition: str
    template: Float32  # [V, 3] with identity
    faces: Int32  # [F, 3]
    expression_basis: Float16  # [V, 3, 100]
    eyelid_basis: Float16  # [V, 3, 2]
    pose_basis: Float16  # [V, 3, 36]
    skinning_weights: Float32  # [V, 5]
    joint_rest: Float32  # [5, 3]
    joint_expression: Float32  # [5, 3, 100]
    face_frames: Float32  # [F, 2, 2] inverse rest edges in the rest tangent frame, see kernels/common/triangle_frame.h
    expression_map: ExpressionMap | None = None
    landmarks: dict[str, tuple[Int32, Float32]] = field(default_factory=dict)  # name -> (face [L], barycentric [L, 3])
