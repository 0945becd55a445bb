"""Measures of pictures against other implementations and known values; of shaking bodies against known shakes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from train_scenes import head_rig, make_camera

from being_rt.flame.params import FlameParams
from being_rt.train.metrics import body_shake, psnr, ssim


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    first = torch.rand(40, 50, 3, generator=random, dtype=torch.float64)
    return first, (first + 0.1 * torch.randn(first.shape, generator=random, dtype=first.dtype)).clamp(0, 1)


def test_psnr() -> None:
    first, second = pictures()
    assert psnr(first, second) == pytest.approx(-10 * math.log10(float(((first - second) ** 2).mean())))
    assert psnr(first, first) == math.inf
    weight = torch.zeros(40, 50, dtype=torch.float64)
    assert math.isnan(psnr(first, second, weight))
    weight[3:5, 7:20] = 0.5
    assert psnr(first, second, weight) == pytest.approx(psnr(first[3:5, 7:20], second[3:5, 7:20]))


def test_ssim_is_that_of_the_paper() -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    first, second = pictures()
    _, expected = structural_similarity(
        first.numpy(), second.numpy(), data_range=1.0, channel_axis=2, full=True,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    inside = np.s_[5:-5, 5:-5]  # beyond, borders are extended differently
    np.testing.assert_allclose(ssim(first, second).numpy()[inside], expected.mean(2)[inside], atol=1e-9)
    assert float(ssim(first, first).min()) == pytest.approx(1)


def test_a_body_that_sways_slowly_does_not_shake() -> None:
    time = np.arange(100)[:, None] / 25
    camera = make_camera((1920, 1080))
    slow = FlameParams.neutral(100).replace(translation=np.concatenate([0.02 * np.sin(time), 0 * time, 0 * time], 1))
    assert body_shake(slow, head_rig(), camera) < 0.3
    noise = np.random.default_rng(0).normal(0, 1e-3, (100, 3)) * [1, 1, 0]
    shaken = slow.replace(translation=slow.translation + noise)
    pixels = 1e-3 * 2 * 1080 * 2**0.5  # in both directions, at a metre
    assert 0.8 * pixels < body_shake(shaken, head_rig(), camera) < 1.1 * pixels
    assert body_shake(slow[:2], head_rig(), camera) == 0
