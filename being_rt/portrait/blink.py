"""What a blink does beyond moving skin: painted lashes fade, and lashes that ride on the lid take their place.

Lashes and the lid's crease in the photograph belong to an open eye. On a lid that closes they would be drawn out over
all of it, for its skin unfolds. So their opacity falls as the lid does, by an offset network that is written down
instead of trained: its latents are how far the left and the right lid are closed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import CHANNELS, AnchorLatentNetwork

GONE_AT = 0.45  # share of the way to a closed lid at which what is painted has gone
FADE = 9.0  # logits of opacity
_OPACITY = 9  # channel
_EYELIDS = 127  # of the left lid among the network's conditions
_CONDITIONS = 138


def blink_network(left: NDArray[np.bool_], fades: NDArray[np.bool_]) -> AnchorLatentNetwork:
    """The network of a head's first n Gaussians.

    Args:
        left: [n] whether the left lid rules each; else the right.
        fades: [n] whether closing makes it fade; else it appears, by as much as it is hidden at rest: :data:`FADE`.
    """
    measure = np.zeros((4, _CONDITIONS), np.float32)
    measure[[0, 1], _EYELIDS] = measure[[2, 3], _EYELIDS + 1] = 1 / GONE_AT
    count = len(left)
    basis = np.zeros((count, CHANNELS, 2), np.float16)
    basis[np.arange(count), _OPACITY, np.where(left, 0, 1)] = np.where(fades, -FADE, FADE)
    weight = np.zeros((count, 4), np.float32)
    weight[:, 0] = 1
    # relu(s) - relu(s - 1) is s between 0 and 1; the anchor's code says nothing.
    return AnchorLatentNetwork(
        trunk_weight_0=measure,
        trunk_bias_0=np.array([0, -1, 0, -1], np.float32),
        trunk_weight_1=np.array([[1, -1, 0, 0], [0, 0, 1, -1]], np.float32),
        trunk_bias_1=np.zeros(2, np.float32),
        anchor_code=np.zeros((1, 1), np.float32),
        head_weight_0=np.eye(2, 3, dtype=np.float32),
        head_bias_0=np.zeros(2, np.float32),
        head_weight_1=np.eye(2, dtype=np.float32),
        head_bias_1=np.zeros(2, np.float32),
        anchor_index=np.zeros((count, 4), np.uint16),
        anchor_weight=weight,
        basis=basis,
    )
