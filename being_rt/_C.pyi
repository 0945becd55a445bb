"""Native core. Arrays are C-contiguous NumPy arrays, shapes in brackets; misfits: ``InvalidParameterError``."""

from collections.abc import Sequence
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

# ---------------------------------------------------------------- with CUDA; `cuda_built` tells

cuda_architectures: str  # that this build has code for, as CMake names them

def cuda_devices() -> list[dict[str, Any]]:
    """Name, capability, multiprocessors, memory (bytes) and whether this build supports it, of every device."""

def check_cuda_device(device: int = 0) -> None:
    """Raises ``DeviceError`` unless the device exists and this build has code for it."""

def cuda_copy_bandwidth(device: int = 0) -> float:
    """GB/s, read and written together, of a large copy on a device."""

class CudaPartition:
    """A part of a device: a stream whose kernels run on so many multiprocessors."""

    def __init__(self, multiprocessors: int, device: int = 0) -> None: ...
    @property
    def stream(self) -> int: ...
    @property
    def multiprocessors(self) -> int: ...  # that were given, perhaps a few more

class CudaBuffer:
    """Device memory, zero at first, that frames are drawn into and copied from."""

    def __init__(self, device: int, bytes: int) -> None: ...
    def dlpack(self, shape: Sequence[int]) -> Any: ...  # a capsule of uint8, which keeps the memory
    @property
    def pointer(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def device(self) -> int: ...

class CudaEngine:
    """Sessions of avatars packed for drawing on a device. :mod:`being_rt.cuda` is its only user."""

    def __init__(
        self,
        avatars: list[Any],  # dict of arrays each, as Engine
        sessions: list[int],  # index of an avatar each
        width: int,
        height: int,
        device: int = 0,
        graph: bool = True,
    ) -> None: ...
    def set_camera(self, session: int, world_to_camera: Float32, intrinsics: Float32) -> None: ...
    def set_background(self, session: int, rgb: UInt8 | None) -> None: ...
    def submit(
        self,
        expression: Float32,  # [S, 100]
        rotation: Float32,  # [S, 3]
        neck: Float32,  # [S, 3]
        jaw: Float32,  # [S, 3]
        eyes: Float32,  # [S, 6]
        translation: Float32,  # [S, 3]
        eyelids: Float32,  # [S, 2]
        format: str = "rgb",
        buffer: CudaBuffer | None = None,  # to draw into, or
        pixels: int = 0,  # a device pointer
        alpha: int = 0,  # device pointers to float32 [S, H, W], or 0
        depth: int = 0,
        stream: int = 0,  # 0: the engine's own
    ) -> int:  # the frame's number
        """Puts a frame on its way and returns at once."""

    def wait(self, frame: int) -> bool:
        """Until a frame is complete; True if it was drawn again because lists had to grow."""

    def start_copy(self, frame: int, buffer: CudaBuffer, shape: Sequence[int]) -> UInt8:
        """Pinned memory that the frame's output arrives in; complete after wait_for_copy."""

    def copy_into(self, frame: int, buffer: CudaBuffer, out: NDArray[Any]) -> None: ...
    def wait_for_copy(self, buffer: CudaBuffer) -> None: ...
    def stage_times(self) -> dict[str, float]: ...
    def stage_bytes(self, session: int = 0) -> dict[str, int]: ...  # that stages read of what no frame changes, at most
    def splats(self, session: int = 0) -> dict[str, NDArray[Any]]: ...
    @property
    def memory(self) -> int: ...
    @property
    def sessions(self) -> int: ...
    @property
    def list_capacity(self) -> int: ...
    @property
    def lost_frames(self) -> int: ...
    @property
    def device_name(self) -> str: ...

class OffsetMlp:
    """An offset network on a device. :class:`being_rt.offset_mlp.OffsetMlp` is its public face."""

    def __init__(
        self,
        weights: Sequence[Float32],  # [outputs, inputs] each
        biases: Sequence[Float32],  # [outputs] each
        positional: Float32,  # [N, P]
        device: int = 0,
    ) -> None: ...
    def evaluate(
        self,
        condition: Float32,  # [C]
        out: Float32 | None = None,  # [N, O]; None: the result stays on the device
        stream: int = 0,
    ) -> None: ...
    def synchronize(self, stream: int = 0) -> None: ...
    @property
    def pointer(self) -> int: ...  # of the last result
    @property
    def shape(self) -> tuple[int, int]: ...

operations: Any  # differentiable operations on addresses, see being_rt.ops.native
