"""How alike pictures are, in the measures of the field, and how much a body shakes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from being_rt.avatar.avatar import Camera
from being_rt.dataset.jitter import jitter
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def psnr(picture: Tensor, target: Tensor, weight: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of pictures [H, W, 3] in 0..1; with ``weight`` [H, W], of the weighted mean.

    Infinite where they are equal; NaN where no pixel counts.
    """
    squared = (picture - target).square().mean(-1)
    if weight is not None:
        total = float(weight.sum())
        error = float((squared * weight).sum()) / total if total > 0 else math.nan
    else:
        error = float(squared.mean()) if squared.numel() else math.nan
    return math.inf if error == 0 else -10 * math.log10(error) if error > 0 else math.nan


def ssim(picture: Tensor, target: Tensor) -> Tensor:
    """Structural similarity [H, W] of pictures [H, W, 3] in 0..1, mean of the channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, equation 13, with
    its Gaussian window of 11 x 11, sigma 1.5; zeros beyond the border, as training's D-SSIM term has it.
    """
    place = torch.arange(WINDOW, dtype=picture.dtype, device=picture.device) - WINDOW // 2
    bell = torch.exp(-0.5 * (place / SIGMA) ** 2)
    bell = bell / bell.sum()
    a, b = picture.permute(2, 0, 1), target.permute(2, 0, 1)
    planes = torch.cat([a, b, a * a, b * b, a * b])[None]  # as groups of one convolution, which CPUs do fastest
    count = planes.shape[1]
    across = functional.conv2d(
        planes, bell.view(1, 1, 1, -1).expand(count, 1, 1, -1), padding=(0, WINDOW // 2), groups=count
    )
    means = functional.conv2d(
        across, bell.view(1, 1, -1, 1).expand(count, 1, -1, 1), padding=(WINDOW // 2, 0), groups=count
    )[0]
    mean_a, mean_b, square_a, square_b, product = means.unflatten(0, (5, 3))
    variance_a, variance_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))
    return similarity.mean(0)


def body_shake(params: FlameParams, rig: Rig, camera: Camera) -> float:
    """By how many pixels, root mean square, the shoulders shake from frame to frame.

    See :func:`being_rt.dataset.jitter.jitter`. The shoulders are a point 12 cm below the global joint that follows the
    translation alone, as most of a torso's Gaussians do.
    """
    shoulders = rig.joint_rest[0].astype(np.float64) - [0, 0.12, 0]
    world = shoulders + params.translation
    pose = camera.world_to_camera.astype(np.float64)
    seen = world @ pose[:3, :3].T + pose[:3, 3]
    pixels = (seen / np.maximum(seen[:, 2:], 1e-6)) @ camera.intrinsics.astype(np.float64).T
    return jitter(pixels[:, :2])
