"""The viseme network in NumPy: log-mel frames in, viseme probabilities out, one 20 ms step at a time.

``tools/train_viseme_network.py`` makes the weights and says what the network is.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.features import BANDS
from being_rt.errors import FileFormatError
from being_rt.files import reading
from being_rt.motion.visemes import VISEMES

Float32 = NDArray[np.float32]

STEP = 0.02  # seconds between two answers of the network
FRAMES_PER_STEP = 2  # log-mel frames of 10 ms
WEIGHTS = Path(__file__).with_name("viseme_network.safetensors")
FORMAT = "being_rt viseme network 1"


@dataclass(frozen=True)
class Weights:
    """The layers of the network: weights [inputs, outputs] and biases, float32."""

    layers: tuple[tuple[Float32, Float32], ...]  # input, blocks, head
    dilations: tuple[int, ...]
    look_ahead_ms: tuple[int, ...]
    reference_rms: float  # level of speech that the network was trained at


@functools.cache
def load_weights(path: Path = WEIGHTS) -> Weights:
    """Read the safetensors that the training writes; ``FileFormatError`` if it is not such a file."""
    from safetensors import safe_open

    with reading(path, "a viseme network", FileFormatError), safe_open(path, "numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT or metadata["visemes"].split() != list(VISEMES):
            raise FileFormatError(f"{path} is not a viseme network of this version")
        dilations = tuple(map(int, metadata["dilations"].split()))
        names = ["input", *(f"block{i}" for i in range(len(dilations))), "head"]
        layers = tuple(
            (file.get_tensor(f"{n}.weight").astype(np.float32), file.get_tensor(f"{n}.bias").astype(np.float32))
            for n in names
        )
        look_ahead = tuple(map(int, metadata["look_ahead_ms"].split()))
        return Weights(layers, dilations, look_ahead, float(metadata["reference_rms"]))


class VisemeNetwork:
    """Runs the network over sound as it arrives.

    Every step is computed alone with the same shapes, so the result does not depend on chunking.

    >>> VisemeNetwork().step(np.zeros((2, 40), np.float32)).shape
    (6, 15)
    """

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights or load_weights()
        self.reset()

    def reset(self) -> None:
        """Forget all sound, as if newly made. What came before the beginning are zeros, as in training."""
        channels = self.weights.layers[0][1].shape[0]
        self._past = [np.zeros((2 * d, channels), np.float32) for d in self.weights.dilations]
        self._steps = 0

    def step(self, log_mel: Float32) -> Float32:
        """Take log-mel frames [2, 40], give probabilities float32 [heads, 15].

        Row h says which viseme is ``look_ahead_ms[h]`` before the end of the second frame.
        """
        (weight, bias), *blocks, (head_weight, head_bias) = self.weights.layers
        x = np.maximum((log_mel.reshape(FRAMES_PER_STEP * BANDS) + np.float32(6)) / np.float32(4) @ weight + bias, 0)
        for (weight, bias), past, dilation in zip(blocks, self._past, self.weights.dilations, strict=True):
            oldest, newer = self._steps % (2 * dilation), (self._steps + dilation) % (2 * dilation)
            taps = np.concatenate([past[oldest], past[newer], x])
            past[oldest] = x
            x = x + np.maximum(taps @ weight + bias, 0)
        self._steps += 1
        logits = (x @ head_weight + head_bias).reshape(-1, len(VISEMES))
        exponential = np.exp(logits - logits.max(1, keepdims=True))
        return exponential / exponential.sum(1, keepdims=True)
