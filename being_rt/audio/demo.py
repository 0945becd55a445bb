"""The bundled line of speech that demos and tests use; ``tools/make_demo_line.py`` made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.decode import load_audio

DEMO_LINE = Path(__file__).with_name("demo_line.wav")
DEMO_TEXT = (
    "Hello! I am Ada. Every picture of me is made right here, frame by frame, while you listen. "
    "Bring your own voice, and I will speak for you."
)


def demo_line() -> tuple[NDArray[np.float32], int, str]:
    """The line as ``(pcm float32 [n], 16000, text)``.

    >>> pcm, rate, text = demo_line()
    """
    pcm, rate = load_audio(DEMO_LINE)
    return pcm, rate, DEMO_TEXT
