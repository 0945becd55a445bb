"""What operations on pictures share: backgrounds that are broadcast, pixels that are read as one vector."""

from __future__ import annotations

from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import check


def check_background(operation: str, background: Tensor, like: Tensor) -> None:
    """Check that a background is [B or 1, H or 1, W or 1, 3], of the dtype of ``like`` [B, H, W, ...].

    Raises:
        InvalidParameterError: it is not.
    """
    check(operation, "background", background, (-1, -1, -1, 3), like.dtype)
    if any(size not in (1, whole) for size, whole in zip(background.shape[:3], like.shape[:3], strict=True)):
        wanted = ", ".join(f"{whole} or 1" if whole != 1 else "1" for whole in like.shape[:3])
        raise InvalidParameterError(f"{operation}: background must be [{wanted}, 3], got {list(background.shape)}")


def background_arguments(background: Tensor) -> dict[str, Tensor | int]:
    """A checked background as the native core takes it (csrc/training/background.h)."""
    return {
        "background": background,
        "background_stride_picture": background.stride(0) if background.shape[0] > 1 else 0,
        "background_stride_row": background.stride(1) if background.shape[1] > 1 else 0,
        "background_stride_column": background.stride(2) if background.shape[2] > 1 else 0,
    }


def seen_over(target: Tensor, background: Tensor) -> Tensor:
    """What was seen, uint8 [B, H, W, 4] with straight alpha, over a background [B or 1, H or 1, W or 1, 3].

    Returns:
        [B, H, W, 3] in 0..1, of the background's type.
    """
    colour, alpha = (target.to(background.dtype) / 255).split([3, 1], dim=-1)
    return alpha * colour + (1 - alpha) * background


def whole_vectors(pixels: Tensor) -> Tensor:
    """The tensor [..., 4] itself, or a copy where it is a view at an address that whole pixels cannot be read from."""
    aligned = not pixels.is_cuda or pixels.data_ptr() % (4 * pixels.element_size()) == 0
    return pixels if aligned else pixels.clone()
