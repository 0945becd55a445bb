"""Native core. Arrays are C-contiguous NumPy arrays, shapes in brackets; misfits: ``InvalidParameterError``."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

cuda_built: bool  # whether a CUDA renderer is in this build
compiler: str  # that this build was made with, and its version

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
    threads: int = 0,  # 0: one per core, 16 at most
) -> Float32:  # [T, V, 3] metres
    """Blendshapes, pose correctives and linear blend skinning of T frames (Li et al. 2017, section 4)."""

def composite(
    head_colour: Float32,  # [H, W, 3] premultiplied
    head_alpha: Float32,  # [H, W]
    head_depth: Float32,  # [H, W] metres
    torso_colour: Float32,  # [H, W, 3] premultiplied
    torso_alpha: Float32,  # [H, W]
    torso_depth: Float32,  # [H, W] metres
    depth_softness: float,  # metres
    seam_centre: Float32,  # [3] posed, world
    seam_axis: Float32,  # [3] posed, unit
    seam_radius: float,  # metres
    seam_half_height: float,  # metres
    world_to_camera: Float32,  # [4, 4]
    intrinsics: Float32,  # [3, 3] pixels
) -> Float32:  # [H, W, 4] premultiplied colour, alpha
    """Head over or under torso by depth, and holes at the seam filled: the last stage, on finished layers."""

def simd_levels() -> list[str]:
    """Instruction sets that this build has and this machine runs, slowest first."""

class Engine:
    """An avatar packed for drawing. :class:`being_rt.renderer.Renderer` is its public face."""

    def __init__(self, avatar: dict[str, Any], threads: int = 0, simd: str = "") -> None: ...
    def set_camera(self, world_to_camera: Float32, intrinsics: Float32, width: int, height: int) -> None: ...
    def set_background(self, rgb: UInt8 | None) -> None: ...
    def render(
        self,
        expression: Float32,  # [1, 100]
        rotation: Float32,  # [1, 3]
        neck: Float32,  # [1, 3]
        jaw: Float32,  # [1, 3]
        eyes: Float32,  # [1, 6]
        translation: Float32,  # [1, 3]
        eyelids: Float32,  # [1, 2]
        out: UInt8,
        format: str = "rgb",
        alpha: Float32 | None = None,
        depth: Float32 | None = None,
    ) -> None: ...
    def stage_times(self) -> dict[str, float]: ...
    def splats(self) -> dict[str, NDArray[Any]]: ...
    @property
    def threads(self) -> int: ...
    @property
    def simd(self) -> str: ...
    @property
    def memory(self) -> int: ...
