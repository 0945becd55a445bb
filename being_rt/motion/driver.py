"""What a motion driver is: sound goes in piece by piece, FLAME parameters come out frame by frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import AudioError
from being_rt.flame.params import FlameParams


@dataclass(frozen=True)
class MotionFrame:
    """One frame of motion: ``params`` (T = 1) for the moment ``time``, in seconds since the first sample."""

    time: float
    params: FlameParams


class MotionDriver(ABC):
    """Turns speech into motion while it arrives.

    Frame k is for time k / fps of the sound, so picture and sound are aligned; ``look_ahead`` delays its delivery, not
    its time: it comes out of the `push` that brings the sound up to its time plus ``look_ahead``. The frames are the
    same, bit for bit, however the sound is cut into chunks.
    """

    fps: float
    look_ahead: float  # seconds

    @abstractmethod
    def push(self, pcm: NDArray[np.generic], sample_rate: int) -> list[MotionFrame]:
        """Take the next sound, float32 in -1..1 or int16, [n] or [n, channels], and give the frames that it completes.

        Any rate is taken, but one rate from beginning to `flush`. Raises ``InvalidParameterError`` for other shapes,
        types and rates, ``AudioError`` for values that are no sound.
        """

    @abstractmethod
    def flush(self) -> list[MotionFrame]:
        """End of the sound: the frames that are left, so that they cover all of it. Then as after `reset`."""

    @abstractmethod
    def reset(self) -> None:
        """Forget everything, as if newly made."""


def drive(driver: MotionDriver, pcm: NDArray[np.generic], sample_rate: int) -> FlameParams:
    """The motion of a whole sound: ``ceil(duration * fps)`` frames. Errors as `MotionDriver.push`.

    >>> from being_rt.motion import VisemeDriver
    >>> len(drive(VisemeDriver(fps=25), np.zeros(16000, np.float32), 16000))
    25
    """
    driver.reset()
    frames = driver.push(pcm, sample_rate) + driver.flush()
    if not frames:
        raise AudioError("there is no sound to move to: 0 samples were given")
    return FlameParams.concatenate([frame.params for frame in frames])
