"""Sample-rate conversion and downmix, as sound arrives, the same to the last bit however it is cut into chunks."""

from __future__ import annotations

import functools
from math import gcd

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.features import SAMPLE_RATE
from being_rt.audio.wav import RATE_RANGE
from being_rt.errors import AudioError, InvalidParameterError

Float32 = NDArray[np.float32]

# Zero crossings of the sinc on each side, at the lower of the two rates: 16 puts the delay at 1 ms for 16 kHz.
ZERO_CROSSINGS = 16
KAISER_BETA = 8.0  # stop band about -80 dB
ROLLOFF = 0.92  # pass band edge as a share of the lower Nyquist frequency
PHASES = 512  # table positions per sample; linear interpolation between them errs by about -106 dB
# Output samples made at a time. Always the same number from the same place in the stream, so that vector instructions
# and BLAS kernels sum in the same order for every chunking.
BLOCK = 160
LOUDEST = 16.0  # float samples beyond it are integers that were cast by mistake


class Resampler:
    """Band-limited interpolation from any rate to any rate (Smith and Gossett, ICASSP 1984), without delay: output
    sample n is the sound at n / to_rate seconds.

    ``push`` returns what can be computed so far, ``flush`` the rest, up to ``ceil(samples * to_rate / from_rate)``.

    >>> resampler = Resampler(8000, 16000)
    >>> sum(len(resampler.push(np.zeros(80, np.float32))) for _ in range(10)) + len(resampler.flush())
    1600
    """

    def __init__(self, from_rate: int, to_rate: int = SAMPLE_RATE) -> None:
        for rate in (from_rate, to_rate):
            if rate != int(rate) or not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
                raise InvalidParameterError(
                    f"the sample rate must be a whole number of {RATE_RANGE[0]} to {RATE_RANGE[1]} Hz, got {rate}"
                )
        divisor = gcd(int(from_rate), int(to_rate))
        self._up, self._down = int(to_rate) // divisor, int(from_rate) // divisor
        self._table, self._reach = _sinc_table(self._up, self._down)
        self.reset()

    def reset(self) -> None:
        """Forget all sound, as if newly made."""
        self._received = 0  # input samples so far
        self._made = 0  # output samples so far
        self._held = np.zeros(self._reach, np.float32)  # input from _start on
        self._start = -self._reach

    def push(self, pcm: Float32) -> Float32:
        """Take mono float32 samples, give those of the output that they complete."""
        if self._up == self._down:
            return pcm
        self._held = np.concatenate([self._held, pcm])
        self._received += len(pcm)
        blocks = []
        while self._start + len(self._held) > self._last_input(self._made + BLOCK - 1):
            blocks.append(self._block())
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def flush(self) -> Float32:
        """The output that is left, with silence after the end; then `reset`."""
        if self._up == self._down:
            return np.zeros(0, np.float32)
        left = -(-self._received * self._up // self._down) - self._made
        blocks = []
        while left > 0:
            missing = self._last_input(self._made + BLOCK - 1) + 1 - self._start - len(self._held)
            self._held = np.concatenate([self._held, np.zeros(max(0, missing), np.float32)])
            blocks.append(self._block()[:left])
            left -= len(blocks[-1])
        self.reset()
        return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)

    def _last_input(self, output: int) -> int:
        return output * self._down // self._up + self._reach

    def _block(self) -> Float32:
        outputs = np.arange(self._made, self._made + BLOCK, dtype=np.int64) * self._down
        whole, part = np.divmod(outputs, self._up)
        position = part * (PHASES / self._up)
        phase = position.astype(np.int64)
        fraction = (position - phase).astype(np.float32)[:, None]
        weights = self._table[phase] + fraction * (self._table[phase + 1] - self._table[phase])
        first = whole - self._reach + 1 - self._start
        result = (self._held[first[:, None] + np.arange(2 * self._reach)] * weights).sum(1)
        self._made += BLOCK
        drop = max(0, self._made * self._down // self._up - self._reach + 1 - self._start)
        self._held, self._start = self._held[drop:], self._start + drop
        return result.astype(np.float32)


@functools.lru_cache(maxsize=8)
def _sinc_table(up: int, down: int) -> tuple[Float32, int]:
    """Kaiser-windowed sinc [PHASES + 1, 2 reach]: row p weighs inputs -reach + 1 .. reach about position p / PHASES."""
    scale = min(1.0, up / down)  # the lower rate, as a share of the input's
    reach = int(np.ceil(ZERO_CROSSINGS / scale))
    distance = np.arange(-reach + 1, reach + 1)[None] - np.arange(PHASES + 1)[:, None] / PHASES
    window = np.i0(KAISER_BETA * np.sqrt(np.clip(1 - (distance / reach) ** 2, 0, None))) / np.i0(KAISER_BETA)
    table = np.sinc(distance * scale * ROLLOFF) * window
    return (table / table.sum(1, keepdims=True)).astype(np.float32), reach


def resample(pcm: Float32, from_rate: int, to_rate: int = SAMPLE_RATE) -> Float32:
    """Mono float32 [n] at one rate as float32 [ceil(n * to_rate / from_rate)] at another."""
    resampler = Resampler(from_rate, to_rate)
    return np.concatenate([resampler.push(np.ascontiguousarray(pcm, np.float32)), resampler.flush()])


def mix_down(pcm: NDArray[np.generic]) -> Float32:
    """Samples [n] or [n, channels] of float or integer type as mono float32 [n]; integers are scaled by their range.

    Raises ``InvalidParameterError`` for other shapes and types, ``AudioError`` for NaN, infinity, and floats that are
    integers in disguise.
    """
    samples = np.asarray(pcm)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= 64):
        raise InvalidParameterError(
            f"pcm must be [n] or [n, channels] with 1 to 64 channels, got {list(samples.shape)}"
        )
    if samples.dtype.kind == "i":
        samples = (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    elif samples.dtype == np.uint8:
        samples = ((samples.astype(np.float32) - 128) / 128).astype(np.float32)
    elif samples.dtype.kind == "f":
        if not (np.abs(samples) <= LOUDEST).all():
            raise AudioError("float samples must be finite and lie in -1..1: pass integer samples with an integer type")
        samples = samples.astype(np.float32)
    else:
        raise InvalidParameterError(f"pcm must be float32 or int16, got {samples.dtype}")
    if samples.ndim == 1:
        return samples
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    mono = samples[:, 0].copy()
    for channel in range(1, samples.shape[1]):  # in this order for every length, unlike a reduction
        mono += samples[:, channel]
    return mono / np.float32(samples.shape[1])
