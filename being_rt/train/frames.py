"""One batch of frames as the model takes them: what the face does, what the camera is, what stands behind."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import Camera
from being_rt.flame.params import FlameParams
from being_rt.reference import FRUSTUM_MARGIN


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
    chance: Tensor | None = None  # [B] 0..1: which of its kinds of noise a model in training is to have; None: no noise

    @classmethod
    def of(
        cls,
        params: FlameParams,
        camera: Camera,
        background: NDArray[np.uint8] | tuple[float, float, float] = (0.0, 0.0, 0.0),
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Frames:
        """Whole frames of one camera, one per row of ``params``.

        Args:
            params: T rows; T becomes B.
            camera: at the size to draw.
            background: uint8 [H, W, 3] of that size, or a colour 0..1.

        Example::

            picture = model.render(Frames.of(dataset.params[:4], dataset.cameras[0]))
        """

        def tensor(values: Any) -> Tensor:
            return torch.tensor(np.ascontiguousarray(values), device=device, dtype=dtype)

        count = len(params)
        k = camera.intrinsics.astype(np.float64)
        limits = FRUSTUM_MARGIN * np.array(camera.size) / (2 * k[[0, 1], [0, 1]])
        intrinsics = np.concatenate([k[[0, 1, 0, 1], [0, 1, 2, 2]], limits])
        joints = np.concatenate([params.rotation, params.neck, params.jaw, params.eyes], axis=1).reshape(count, 5, 3)
        plate = tensor(background) / 255 if isinstance(background, np.ndarray) else tensor(background).expand(1, 1, 3)
        return cls(
            expression=tensor(params.expression),
            axis_angles=tensor(joints),
            eyelids=tensor(params.eyelids),
            translation=tensor(params.translation),
            world_to_camera=tensor(np.broadcast_to(camera.world_to_camera[:3], (count, 3, 4))),
            intrinsics=tensor(np.broadcast_to(intrinsics, (count, 6))),
            size=camera.size,
            background=plate[None],
        )
