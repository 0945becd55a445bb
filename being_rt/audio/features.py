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


class MelSpectrum:
    """Band powers of sound as it arrives: frame t covers the 25 ms of sound that end at (t + 1) * 10 ms.

    Every frame is computed alone, so the result does not depend on how the sound is cut into chunks.

    >>> MelSpectrum().push(np.zeros(1600, np.float32)).shape
    (10, 40)
    """

    def __init__(self) -> None:
        self._window, self._filters = hann_window(), mel_filterbank()
        self.reset()

    def reset(self) -> None:
        """Forget all sound, as if newly made."""
        self._held = np.zeros(WINDOW - HOP, np.float32)

    def push(self, pcm: Float32) -> Float32:
        """Take mono float32 samples at 16 kHz, give band powers float32 [frames, 40] of the frames they complete."""
        sound = np.concatenate([self._held, pcm])
        count = max(0, (len(sound) - WINDOW) // HOP + 1)
        powers = np.empty((count, BANDS), np.float32)
        for t in range(count):
            spectrum = np.fft.rfft(sound[t * HOP : t * HOP + WINDOW] * self._window, FFT_SIZE)
            powers[t] = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) @ self._filters
        self._held = sound[count * HOP :].copy()
        return powers


# Mean square of the samples over the sum of the bands: half the FFT size times the energy of the window.
POWER_PER_MEAN_SQUARE = FFT_SIZE / 2 * float((hann_window().astype(np.float64) ** 2).sum())


def log_mel(powers: Float32, gain: float = 1.0) -> Float32:
    """``log(gain * power + 1e-6)``; ``gain`` is a power ratio."""
    return np.log(powers * np.float32(gain) + np.float32(LOG_FLOOR))
