"""Which pixels are the person: MediaPipe's selfie segmentation, coarse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from being_rt.track.interpreter import Network

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

WIDE = 1.35  # width over height from which the network for wide pictures sees more


class PersonSegmentation:
    """Tells a person from what is behind. For one thread at a time.

    Args:
        size: width and height of the pictures to come, which decides between two networks.

    Example::

        mask = PersonSegmentation((1920, 1080))(picture)  # uint8 [144, 256]
    """

    def __init__(self, size: tuple[int, int]) -> None:
        is_wide = size[0] >= WIDE * size[1]
        self.shape = (144, 256) if is_wide else (256, 256)  # height, width of masks
        self._network = Network("selfie_landscape" if is_wide else "selfie")

    def __call__(self, picture: UInt8) -> UInt8:
        """How sure each cell of a mask uint8 [h, w] over the whole picture uint8 [H, W, 3] is of the person, 0..255."""
        height, width = self.shape
        # Whole pixels are averaged first, as many as fit, which takes a third of the time.
        image = Image.fromarray(np.ascontiguousarray(picture))
        small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.0)
        (mask,) = self._network(np.asarray(small, np.float32) * np.float32(1 / 255))
        return np.round(255 * np.clip(mask[..., 0], 0, 1)).astype(np.uint8)
