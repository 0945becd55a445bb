"""Small arrays to the device, step by step, without waiting for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Upload:
    """Fills rows of one tensor from the host again and again, while the device may be far behind.

    A copy from ordinary memory waits for everything before it. This one takes turns between page-locked buffers, and
    waits only if the device is more than ``turns`` copies behind.

    Example::

        rates = torch.zeros(40, device="cuda")
        upload = Upload(rates)
        upload(np.full(10, 1e-3, np.float32), start=30)
    """

    def __init__(self, tensor: Tensor, turns: int = 16) -> None:
        self._tensor = tensor
        self._turn = 0
        self._buffers: list[tuple[Tensor, torch.cuda.Event]] = []
        if tensor.is_cuda:
            self._buffers = [
                (torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True), torch.cuda.Event())
                for _ in range(turns)
            ]

    def __call__(self, values: NDArray[np.float32], start: int = 0) -> None:
        """Rows of the tensor from ``start`` on, copied on the current stream."""
        rows = self._tensor[start : start + len(values)]
        if not self._buffers:
            rows.copy_(torch.from_numpy(values))
            return
        buffer, copied = self._buffers[self._turn]
        self._turn = (self._turn + 1) % len(self._buffers)
        copied.synchronize()
        buffer[: len(values)].copy_(torch.from_numpy(values))
        rows.copy_(buffer[: len(values)], non_blocking=True)
        copied.record()
