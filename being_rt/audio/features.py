"""Log-mel features, frame by frame as sound arrives, the same to the last bit however it is cut into chunks."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SAMPLE_RATE = 16000
HOP = 160  # samples, 10 ms
WINDOW = 400  # samples, 25 ms
FFT_SIZE = 512
BANDS = 40
LOWEST_HZ, HIGHEST_HZ = 60.0, 7600.0
LOG_FLOOR = 1e-6  # added to the band power before the logarithm


@functools.cache
def mel_filterbank(warp: float = 1.0) -> Float32:
    """Triangular mel filters, float32 [257, 40], peak 1, on the scale mel = 2595 log10(1 + f / 700).

    Davis and Mermelstein, IEEE TASSP 28(4), 1980. ``warp`` multiplies all frequencies, as a vocal tract that is shorter
    (> 1) or longer (< 1) does; training uses it to make new speakers out of few.
    """
    mel = np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2)
    hertz = np.minimum(700 * (10 ** (mel / 2595) - 1) * warp, SAMPLE_RATE / 2 - 10)
    edges = (hertz * FFT_SIZE / SAMPLE_RATE)[:, None]
    bins = np.arange(FFT_SIZE // 2 + 1)[None]
    rising = (bins - edges[:-2]) / np.maximum(edges[1:-1] - edges[:-2], 1e-3)
    falling = (edges[2:] - bins) / np.maximum(edges[2:] - edges[1:-1], 1e-3)
    return np.ascontiguousarray(np.clip(np.minimum(rising, falling), 0, None).T, np.float32)


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


@functools.cache
def hann_window() -> Float32:
    """Periodic Hann window, float32 [400]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
