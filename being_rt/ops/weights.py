"""Maps of how much pixels count."""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float


def box_weights(rows: Tensor, first: int, values: Tensor, base: int, size: tuple[int, int]) -> Tensor:
    """Maps uint8 [B, H, W] of weights that are ``base``, but other values within boxes. One launch.

    A pixel is in a box if its centre is; where boxes overlap, the last one counts. A box of NaN is nowhere.

    Args:
        rows: [B, columns], contiguous, float32; on the CPU float64 as well. From column ``first`` on there is a box for
            each of the values: left, top, right, bottom, in pixels.
        values: uint8 [boxes], on the same device.
        base: 0..255.
        size: W, H.

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous; a weight that
            a byte does not hold.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Example::

        weight = box_weights(boxes, 0, torch.tensor([64], dtype=torch.uint8), 16, (512, 512))  # boxes [B, 4]
    """
    check_float("box_weights", "rows", rows, (-1, -1))
    check("box_weights", "values", values, (-1,), torch.uint8)
    if not 0 <= base <= 255:
        raise InvalidParameterError(f"box_weights: base must be 0..255, got {base}")
    if first < 0 or first + 4 * len(values) > rows.shape[1]:
        raise InvalidParameterError(
            f"box_weights: {len(values)} boxes from column {first} on do not fit in rows of {rows.shape[1]}"
        )
    weight = torch.empty(len(rows), size[1], size[0], dtype=torch.uint8, device=rows.device)
    if weight.numel():
        call(
            "box_weights",
            rows,
            rows=rows,
            values=values,
            boxes=len(values),
            first=first,
            columns=rows.shape[1],
            base=base,
            batch=len(rows),
            height=size[1],
            width=size[0],
            weight=weight,
        )
    return weight
