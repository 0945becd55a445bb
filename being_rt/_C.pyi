"""Native core. Arrays are C-contiguous NumPy arrays; shapes in brackets; a wrong shape or dtype raises ``ValueError``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

cuda_built: bool  # whether a CUDA renderer is in this build

def skin(
    template: Float32,  # [V, 3] with identity
    expression_basis: NDArray[Any],  # [V, 3, E] float32 or float16
    eyelid_basis: NDArray[Any],  # [V, 3, 2] float32 or float16
    pose_basis: NDArray[Any],  # [V, 3, 36] float32 or float16
    skinning_weights: Float32,  # [V, 5]
    joint_rest: Float32,  # [5, 3]
    joint_expression: Float32,  # [5, 3, E]
    expression: Float32,  # [T, E]
    rotation: Float32,  # [T, 3]
    neck: Float32,  # [T, 3]
    jaw: Float32,  # [T, 3]
    eyes: Float32,  # [T, 6]
    translation: Float32,  # [T, 3]
    eyelids: Float32,  # [T, 2]
    threads: int = 0,  # 0: one per core
) -> Float32:  # [T, V, 3] metres
    """Blendshapes, pose correctives and linear blend skinning of T frames (Li et al. 2017, section 4)."""
