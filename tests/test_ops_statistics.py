"""Statistics of Gaussians: against plain PyTorch, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.statistics import add_statistics

HALF = (256.0, 100.0)


def make(frames: int, count: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Splats, gradients of which a third is 0, and sums that are not 0."""
    generator = torch.Generator().manual_seed(0)
    splats = torch.rand(frames, count, 12, dtype=torch.float64, generator=generator)
    slopes = torch.randn(frames, count, 12, dtype=torch.float64, generator=generator)
    slopes[:, ::3, :2] = 0
    sums = [torch.rand(count, dtype=torch.float64, generator=generator) for _ in range(3)]
    return splats, slopes, sums


def plain(splats: Tensor, slopes: Tensor, sums: list[Tensor]) -> list[Tensor]:
    length = (slopes[..., :2] * torch.tensor(HALF, dtype=torch.float64)).norm(dim=2)
    gradient, seen, opacity = sums
    return [gradient + length.sum(0), seen + (length > 0).sum(0), torch.maximum(opacity, splats[..., 5].amax(0))]


def check_against_torch(frames: int, count: int, device: str, dtype: torch.dtype, tolerance: float) -> None:
    splats, slopes, sums = make(frames, count)
    expected = plain(splats, slopes, sums)
    got = [value.to(device, dtype) for value in sums]
    add_statistics(splats.to(device, dtype), slopes.to(device, dtype), HALF, *got)
    for a, b in zip(got, expected, strict=True):
        assert (a.cpu().double() - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize(("frames", "count"), [(1, 1), (3, 5000)])
def test_statistics_are_those_of_pytorch(frames: int, count: int) -> None:
    check_against_torch(frames, count, "cpu", torch.float64, 1e-14)
    check_against_torch(frames, count, "cpu", torch.float32, 1e-6)


def test_no_frames_change_nothing() -> None:
    splats, slopes, sums = make(0, 10)
    before = [value.clone() for value in sums]
    add_statistics(splats, slopes, HALF, *sums)
    assert all(torch.equal(a, b) for a, b in zip(sums, before, strict=True))


def test_statistics_refuse() -> None:
    splats, slopes, sums = make(2, 10)
    with pytest.raises(InvalidParameterError, match=r"splats must be float64 \[any, any, 12\]"):
        add_statistics(splats[..., :10], slopes, HALF, *sums)
    with pytest.raises(InvalidParameterError, match=r"splats_gradient must be float64 \[2, 10, 12\]"):
        add_statistics(splats, slopes[:1], HALF, *sums)
    with pytest.raises(InvalidParameterError, match=r"opacity must be float64 \[10\]"):
        add_statistics(splats, slopes, HALF, *sums[:2], sums[2].float())


@pytest.mark.gpu
def test_cuda_is_what_pytorch_does() -> None:
    check_against_torch(8, 100_003, "cuda", torch.float32, 1e-6)
