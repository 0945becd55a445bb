"""The per-Gaussian offset network of FlashAvatar: a small MLP for every Gaussian, on CPU or CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from being_rt.checks import check_arrays
from being_rt.errors import DeviceError, InvalidParameterError

Float32 = NDArray[np.float32]

LARGEST_INPUTS = 256  # positional, and of the condition
LARGEST_WIDTH = 256
LARGEST_OUTPUTS = 16
LARGEST_POINTS = 4_000_000
LARGEST_WEIGHT = 65504.0  # the largest half float
CHUNK = 4096  # rows that the CPU takes through all layers at once: they stay in its caches


class OffsetMlp:
    """Maps a condition, one per frame, to the offsets of every Gaussian.

    The network of Xiang et al., "FlashAvatar: High-fidelity head avatar with efficient Gaussian embedding", CVPR 2024:
    a Gaussian's positional inputs and the condition side by side, hidden layers with ReLU, a linear output layer.
    FlashAvatar's own size is 51 + 120 inputs, six hidden layers of 256 and 10 outputs. The share of the positional
    inputs in the first layer does not change from frame to frame; it is computed once, here.

    "cpu" computes in float32. "cuda" keeps weights, activations and the positional share in half floats and adds up in
    float32, in one kernel per frame; activations must stay below 65504. The same condition gives the same bits,
    whatever was evaluated before. One instance evaluates one condition at a time.

    Args:
        weights: of the layers in order, float32 [outputs, inputs] each: [W, P + C], then [W, W] for every further
            hidden layer, then [O, W]. W 1..256, P and C 1..256, O 1..16.
        biases: of the same layers, float32 [outputs] each.
        positional: float32 [N, P], every Gaussian's positional inputs; N 1..4,000,000.
        device: "cuda", the first CUDA device, or "cpu".

    Raises:
        InvalidParameterError: an array of a wrong dtype or shape, NaN or infinite, or a weight beyond 65504.
        DeviceError: there is no such device, or this build has no CUDA part.

    Example::

        network = OffsetMlp(weights, biases, positional, device="cuda")
        offsets = network.offsets(condition)  # float32 [N, 10]
    """

    def __init__(
        self,
        weights: Sequence[Float32],
        biases: Sequence[Float32],
        positional: Float32,
        device: Literal["cuda", "cpu"] = "cuda",
    ) -> None:
        _check_network(weights, biases, positional)
        self.device = device
        self.points = positional.shape[0]
        self.conditions = weights[0].shape[1] - positional.shape[1]
        self.outputs = weights[-1].shape[0]
        if device == "cuda":
            self._native = _native(weights, biases, positional)
        elif device == "cpu":
            inputs = positional.shape[1]
            self._first = positional @ weights[0][:, :inputs].T + biases[0]  # [N, W]
            self._condition_weight = weights[0][:, inputs:].copy()
            self._layers = [(w.T.copy(), b.copy()) for w, b in zip(weights[1:], biases[1:], strict=True)]
        else:
            raise InvalidParameterError(f"device must be 'cuda' or 'cpu', got {device!r}")

    def offsets(self, condition: Float32) -> Float32:
        """Evaluate the network for all Gaussians.

        Args:
            condition: float32 [C], the frame's.

        Returns:
            float32 [N, O], in the units that the network was trained in.

        Raises:
            InvalidParameterError: a condition of a wrong dtype or length, or one that is NaN or infinite.
            DeviceError: the device failed.
        """
        check_arrays({"condition": condition}, {"condition": ("float32", (self.conditions,))})
        result = np.empty((self.points, self.outputs), np.float32)
        if self.device == "cuda":
            self._native.evaluate(np.ascontiguousarray(condition), result)
            return result
        share = self._condition_weight @ condition
        for begin in range(0, self.points, CHUNK):
            rows = slice(begin, begin + CHUNK)
            x = self._first[rows] + share
            for weight, bias in self._layers:
                np.maximum(x, 0, out=x)
                x = x @ weight
                x += bias
            result[rows] = x
        return result


def _check_network(weights: Sequence[Float32], biases: Sequence[Float32], positional: Float32) -> None:
    if len(weights) < 2 or len(weights) != len(biases):
        raise InvalidParameterError(
            f"weights and biases must be of as many layers, two or more, got {len(weights)} and {len(biases)}"
        )
    last = len(weights) - 1
    arrays: dict[str, Any] = {"positional": positional}
    specifications: dict[str, tuple[str, tuple[int | str, ...]]] = {"positional": ("float32", ("N", "P"))}
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs, inputs = "O" if i == last else "W", "P + C" if i == 0 else "W"
        arrays |= {f"weights[{i}]": weight, f"biases[{i}]": bias}
        specifications |= {f"weights[{i}]": ("float32", (outputs, inputs)), f"biases[{i}]": ("float32", (outputs,))}
    sizes = check_arrays(arrays, specifications)
    for name, size, greatest in (
        ("the number of points", sizes["N"], LARGEST_POINTS),
        ("the number of positional inputs", sizes["P"], LARGEST_INPUTS),
        ("the number of condition inputs", sizes["P + C"] - sizes["P"], LARGEST_INPUTS),
        ("the hidden layers' width", sizes["W"], LARGEST_WIDTH),
        ("the number of outputs", sizes["O"], LARGEST_OUTPUTS),
    ):
        if not 1 <= size <= greatest:
            raise InvalidParameterError(f"{name} must be 1 to {greatest}, got {size}")
    for i, weight in enumerate(weights):
        if max(weight.max(), -weight.min()) > LARGEST_WEIGHT:
            raise InvalidParameterError(f"weights[{i}] has values beyond 65504, the largest half float")


def _native(weights: Sequence[Float32], biases: Sequence[Float32], positional: Float32) -> Any:
    from being_rt import _C

    if not _C.cuda_built:
        raise DeviceError("this build of being_rt has no CUDA part; use device='cpu'")
    contiguous = np.ascontiguousarray
    return _C.OffsetMlp([contiguous(w) for w in weights], [contiguous(b) for b in biases], contiguous(positional))
