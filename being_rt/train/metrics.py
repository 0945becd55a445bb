"""How alike pictures are, in the measures of the field, and how much a body shakes."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from being_rt.avatar.avatar import Camera
from being_rt.errors import FileFormatError
from being_rt.files import reading
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2

# VGG-16's layers that LPIPS compares after their ReLU: torchvision's index of the convolution, and its channels.
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_POOLED_BEFORE = (5, 10, 17, 24)
_COMPARED = (2, 7, 14, 21, 28)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


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

    def mean(values: Tensor) -> Tensor:
        across = functional.conv2d(values[:, None], bell.view(1, 1, 1, -1), padding=(0, WINDOW // 2))
        return functional.conv2d(across, bell.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))[:, 0]

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    similarity = similarity / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))
    return similarity.mean(0)


class Lpips:
    """Learned perceptual distance with VGG-16 (Zhang et al., "The unreasonable effectiveness of deep features as a
    perceptual metric", 2018, equation 1). 0: the same; lower is better.

    The weights come in one safetensors file: VGG-16's ``features.N.weight`` and ``features.N.bias`` under torchvision's
    names, and the metric's ``linK.model.1.weight``, K = 0..4, under those of the ``lpips`` package.

    Raises:
        FileFormatError: the file is missing, or not those weights.

    Example::

        distance = Lpips("lpips-vgg.safetensors", "cuda")
        distance(picture, target)  # pictures [H, W, 3] in 0..1
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        from safetensors.torch import load_file

        with reading(path, "the weights of LPIPS as safetensors", FileFormatError):
            weights = load_file(Path(path), device=str(device))
        names = [f"features.{n}.{kind}" for n in _CONVOLUTIONS for kind in ("weight", "bias")]
        names += [f"lin{k}.model.1.weight" for k in range(len(_COMPARED))]
        missing = [name for name in names if name not in weights]
        if missing:
            raise FileFormatError(f"{path} has no tensor {missing[0]!r}: it is not LPIPS with VGG-16")
        self._weights = {name: weights[name].float() for name in names}
        self._shift = torch.tensor(_SHIFT, device=device).view(1, 3, 1, 1)
        self._scale = torch.tensor(_SCALE, device=device).view(1, 3, 1, 1)

    @torch.no_grad()
    def __call__(self, picture: Tensor, target: Tensor) -> float:
        """Of two pictures [H, W, 3] in 0..1, at least 16 pixels a side."""
        values = torch.stack([picture, target]).permute(0, 3, 1, 2).float() * 2 - 1
        values = (values - self._shift) / self._scale
        distance = 0.0
        for number in _CONVOLUTIONS:
            if number in _POOLED_BEFORE:
                values = functional.max_pool2d(values, 2)
            weight, bias = self._weights[f"features.{number}.weight"], self._weights[f"features.{number}.bias"]
            values = functional.relu(functional.conv2d(values, weight, bias, padding=1))
            if number in _COMPARED:
                unit = values / (values.norm(dim=1, keepdim=True) + 1e-10)
                linear = self._weights[f"lin{_COMPARED.index(number)}.model.1.weight"]
                distance += float(functional.conv2d((unit[:1] - unit[1:]).square(), linear).mean())
        return distance


def body_shake(params: FlameParams, rig: Rig, camera: Camera) -> float:
    """By how many pixels, root mean square, the shoulders shake from frame to frame.

    From second differences over time, which slow motion leaves near 0, divided by the square root of 6: noise that is
    independent in each frame has the deviation that this returns. 0 for fewer than three frames. The shoulders are a
    point 12 cm below the global joint that follows the translation alone, as most of a torso's Gaussians do.
    """
    shoulders = rig.joint_rest[0].astype(np.float64) - [0, 0.12, 0]
    world = shoulders + params.translation
    pose = camera.world_to_camera.astype(np.float64)
    seen = world @ pose[:3, :3].T + pose[:3, 3]
    pixels = (seen / np.maximum(seen[:, 2:], 1e-6)) @ camera.intrinsics.astype(np.float64).T
    jerk = np.diff(pixels[:, :2], n=2, axis=0)
    return float(np.sqrt(np.mean(np.sum(jerk**2, axis=1)) / 6)) if len(jerk) else 0.0
