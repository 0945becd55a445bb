"""The door for sound that arrives piece by piece: any type, channels and rate in, mono float32 at 16 kHz out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.resample import Resampler, mix_down
from being_rt.errors import InvalidParameterError


class AudioStream:
    """Downmix and rate conversion of one stream of sound; the result does not depend on how it is cut into chunks.

    >>> stream = AudioStream()
    >>> len(stream.push(np.zeros((480, 2), np.int16), 48000)) + len(stream.flush())
    160
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all sound and the rate."""
        self._resampler: Resampler | None = None
        self.sample_rate = 0  # of the sound that comes in, 0 before the first
        self.received = 0  # samples that came in

    @property
    def duration(self) -> float:
        """Seconds of sound so far."""
        return self.received / self.sample_rate if self.sample_rate else 0.0

    def push(self, pcm: NDArray[np.generic], sample_rate: int) -> NDArray[np.float32]:
        """Take samples [n] or [n, channels], float or integer, give mono samples; errors as `mix_down`."""
        mono = mix_down(pcm)
        if self._resampler is None:
            self._resampler = Resampler(sample_rate)
            self.sample_rate = int(sample_rate)
        elif sample_rate != self.sample_rate:
            raise InvalidParameterError(
                f"the sample rate changed from {self.sample_rate} to {sample_rate} Hz: flush the driver between sounds"
            )
        self.received += len(mono)
        return self._resampler.push(mono)

    def flush(self) -> NDArray[np.float32]:
        """The samples that are left; the rate and the count stay until `reset`."""
        return np.zeros(0, np.float32) if self._resampler is None else self._resampler.flush()
