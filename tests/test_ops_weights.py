"""Weights within boxes: against plain PyTorch, odd sizes, boxes that are nowhere, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.weights import box_weights

VALUES = torch.tensor([64, 32, 3], dtype=torch.uint8)


def plain(rows: Tensor, size: tuple[int, int]) -> Tensor:
    boxes = rows[:, 2:14].unflatten(1, (3, 4))
    x, y = (torch.arange(side) + 0.5 for side in size)
    weight = torch.full((len(rows), size[1], size[0]), 16, dtype=torch.uint8)
    for k, value in enumerate(VALUES.tolist()):
        left, top, right, bottom = boxes[:, k, :, None, None].unbind(1)
        inside = (x >= left) & (x < right) & (y[:, None] >= top) & (y[:, None] < bottom)
        weight[inside] = value
    return weight


def check_against_torch(size: tuple[int, int], device: str, dtype: torch.dtype) -> None:
    corners = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(size)
    rows = torch.zeros(5, 15)
    rows[:, 2:14] = torch.cat([corners.amin(2), corners.amax(2)], dim=2).flatten(1)
    rows[0, 2:6] = torch.tensor([0.5, 0.5, 2.5, 1.5])  # through centres of pixels
    rows[1, 2:6] = torch.nan
    weight = box_weights(rows.to(device, dtype), 2, VALUES.to(device), 16, size)
    assert torch.equal(weight.cpu(), plain(rows, size))


@pytest.mark.parametrize("size", [(1, 1), (37, 20), (64, 48)])
def test_weights_are_what_pytorch_does(size: tuple[int, int]) -> None:
    check_against_torch(size, "cpu", torch.float32)
    check_against_torch(size, "cpu", torch.float64)


def test_box_weights_refuses() -> None:
    rows = torch.zeros(2, 13)
    with pytest.raises(InvalidParameterError, match="3 boxes from column 2 on do not fit in rows of 13"):
        box_weights(rows, 2, VALUES, 16, (4, 4))
    with pytest.raises(InvalidParameterError, match=r"base must be 0\.\.255, got 256"):
        box_weights(rows, 1, VALUES, 256, (4, 4))
    with pytest.raises(InvalidParameterError, match=r"values must be uint8 \[any\]"):
        box_weights(rows, 1, VALUES.int(), 16, (4, 4))
    with pytest.raises(InvalidParameterError, match="rows must be contiguous"):
        box_weights(torch.zeros(12, 2).T, 0, VALUES, 16, (4, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1), (37, 20), (512, 512), (1001, 3)])
def test_weights_on_cuda(size: tuple[int, int]) -> None:
    check_against_torch(size, "cuda", torch.float32)
