"""One batch of frames as the model takes them: what the face does, what the camera is, what stands behind."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Frames(NamedTuple):
    """B frames of one avatar at one size. Floats of one type on one device; every tensor may need gradients but the
    background.

    Intrinsics are those of the crop that is drawn; their limits, ``1.3 * half picture / focal``, are of the whole
    frame, so that a crop sees the very splats that the whole frame does.
    """

    expression: Tensor  # [B, 100]
    axis_angles: Tensor  # [B, 5, 3] radians: global, neck, jaw, left eye, right eye
    eyelids: Tensor  # [B, 2]
    translation: Tensor  # [B, 3] metres
    world_to_camera: Tensor  # [B, 3, 4]
    intrinsics: Tensor  # [B, 6] fx, fy, cx, cy px of this crop; limit_x, limit_y
    size: tuple[int, int]  # width, height px
    background: Tensor  # [B or 1, 1 or H, 1 or W, 3] sRGB 0..1
