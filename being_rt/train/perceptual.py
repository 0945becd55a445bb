"""Learned perceptual distance between pictures, with VGG-16: a measure of held-out frames, and a term of the loss."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import reading

# VGG-16's layers that LPIPS compares after their ReLU: torchvision's index of the convolution, and its channels.
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
COMPARED = (2, 7, 14, 21, 28)
_POOLED_BEFORE = (5, 10, 17, 24)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LEAST_SIDE = 1 << len(_POOLED_BEFORE)  # px


class Lpips:
    """Learned perceptual distance with VGG-16 (Zhang et al., "The unreasonable effectiveness of deep features as a
    perceptual metric", 2018, equation 1). 0: the same; lower is better.

    The weights come in one safetensors file: VGG-16's ``features.N.weight`` and ``features.N.bias`` under torchvision's
    names, and the metric's ``linK.model.1.weight``, K = 0..4, under those of the ``lpips`` package.

    Args:
        path: the file.
        device, dtype: of the computation.

    Raises:
        FileFormatError: the file is missing, or not those weights.

    Example::

        distance = Lpips("lpips-vgg.safetensors", "cuda")
        distance(pictures, targets).mean().backward()  # pictures [B, H, W, 3] in 0..1
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        from safetensors.torch import load_file

        with reading(path, "the weights of LPIPS as safetensors", FileFormatError):
            weights = load_file(Path(path), device=str(device))
        names = [f"features.{n}.{kind}" for n in CONVOLUTIONS for kind in ("weight", "bias")]
        names += [f"lin{k}.model.1.weight" for k in range(len(COMPARED))]
        missing = [name for name in names if name not in weights]
        if missing:
            raise FileFormatError(f"{path} has no tensor {missing[0]!r}: it is not LPIPS with VGG-16")
        self._weights = {name: weights[name].to(dtype) for name in names}
        for name, weight in self._weights.items():
            if weight.ndim == 4:  # laid out as pictures are, or every call would do it
                self._weights[name] = weight.contiguous(memory_format=torch.channels_last)
        self._shift = torch.tensor(_SHIFT, device=device, dtype=dtype).view(1, 3, 1, 1)
        self._scale = torch.tensor(_SCALE, device=device, dtype=dtype).view(1, 3, 1, 1)

    def __call__(self, pictures: Tensor, targets: Tensor) -> Tensor:
        """Distances [B] of pictures [B, H, W, 3] in 0..1, at least 16 pixels a side. Differentiable by both.

        Runs in a CUDA graph; :func:`repeatable` makes the derivative the same to the bit from run to run.

        Raises:
            InvalidParameterError: pictures of other shapes.
        """
        shape = pictures.shape
        if targets.shape != shape or len(shape) != 4 or shape[3] != 3 or min(shape[1:3]) < _LEAST_SIDE:
            raise InvalidParameterError(
                f"LPIPS compares pictures [B, H, W, 3] of one size, {_LEAST_SIDE} pixels a side or more, got "
                f"{list(shape)} and {list(targets.shape)}"
            )
        distance = self._shift.new_zeros(len(pictures))
        levels = zip(self._features(pictures), self._features(targets), strict=True)
        for level, (first, second) in enumerate(levels):
            weight = self._weights[f"lin{level}.model.1.weight"]
            distance = distance + functional.conv2d((first - second).square(), weight).mean((1, 2, 3))
        return distance

    def _features(self, pictures: Tensor) -> Iterator[Tensor]:
        """What is compared of pictures: [B, C, h, w], of unit length over the channels, level by level."""
        values = pictures.permute(0, 3, 1, 2).to(self._shift.dtype) * 2 - 1
        values = (values - self._shift) / self._scale
        for number in CONVOLUTIONS:
            if number in _POOLED_BEFORE:
                values = functional.max_pool2d(values, 2)
            weight, bias = self._weights[f"features.{number}.weight"], self._weights[f"features.{number}.bias"]
            values = functional.conv2d(values, weight, bias, padding=1).relu_()
            if number in COMPARED:
                yield values / (values.norm(dim=1, keepdim=True) + 1e-10)


@contextmanager
def repeatable() -> Iterator[None]:
    """Within the context cuDNN's convolutions and their derivatives give the same bits in every run."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        # A choice of algorithms by how fast they just were differs from run to run as well.
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
