"""How much a point shakes on a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def jitter(pixels: NDArray[np.float64]) -> float:
    """How far a point [T, 2] px jumps from frame to frame beyond smooth motion: px, root mean square.

    From second differences, which slow motion leaves near 0, divided by the root of 6: noise that is independent in
    each frame has the deviation that this returns. 0 for fewer than three frames.

    >>> jitter(np.arange(10.0)[:, None] * [1.0, 2.0])
    0.0
    """
    jerk = np.diff(pixels, n=2, axis=0)
    return float(np.sqrt(np.mean(np.sum(jerk**2, axis=1)) / 6)) if len(jerk) else 0.0
