"""Cutting a picture into square cells: small ones where it has detail, large ones where it is flat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

SIDES = (8, 4, 2, 1)  # pixels
COARSEST = 32.0  # of 255: contrast within a cell beyond which it is no longer raised


class Cells(NamedTuple):
    """N squares of a picture."""

    pixel: Float64  # [N, 2] x, y of their middles
    side: Int64  # [N] pixels

    def chosen(self, which: Bool) -> Cells:
        """Some of them."""
        return Cells(self.pixel[which], self.side[which])


def cut_at_most(picture: UInt8, region: Bool, contrast: float, most: int, largest: int = SIDES[0]) -> Cells:
    """As :func:`cut`, with more contrast within cells, as much as it takes to get by with ``most``, within reason.

    A sharp photograph of cloth has detail everywhere; a million Gaussians would show it, and draw slowly.
    """
    while True:
        cells = cut(picture, region, contrast, largest)
        if len(cells.side) <= most or contrast > COARSEST:
            return cells
        contrast *= 1.4


def cut(picture: UInt8, region: Bool, contrast: float, largest: int = SIDES[0]) -> Cells:
    """Cells that cover a region [H, W] of a picture [H, W, C], each pixel once.

    A cell larger than a pixel is as far from the region's border as it is wide, and no channel differs by ``contrast``
    (of 255) in it and half its width around: its Gaussian reaches over its own border.

    Args:
        largest: side that a cell may have, 1 to 8 pixels.

    Example::

        cells = cut(picture, alpha > 127, contrast=12)
    """
    from scipy import ndimage

    height, width = region.shape
    margin = ((0, -height % SIDES[0]), (0, -width % SIDES[0]))
    inner = np.pad(ndimage.distance_transform_edt(np.pad(region, 1, mode="edge"))[1:-1, 1:-1], margin)
    colours = np.pad(picture, (*margin, (0, 0)), mode="edge")
    left = inner > 0
    pixels, sides = [], []
    for side in [side for side in SIDES if side <= largest]:
        blocks = (inner.shape[0] // side, side, inner.shape[1] // side, side)
        taken = left.reshape(blocks).all((1, 3))
        if side > 1:
            around = (2 * side + 1, 2 * side + 1, 1)
            high, low = ndimage.maximum_filter(colours, around), ndimage.minimum_filter(colours, around)
            spread = (
                high[side // 2 :: side, side // 2 :: side].astype(np.int16) - low[side // 2 :: side, side // 2 :: side]
            )
            taken &= (spread.max(-1) < contrast) & (inner.reshape(blocks).min((1, 3)) > side)
        y, x = np.nonzero(taken)
        pixels.append(np.stack([x + 0.5, y + 0.5], 1) * side)
        sides.append(np.full(len(x), side))
        left &= ~np.repeat(np.repeat(taken, side, 0), side, 1)
    return Cells(np.concatenate(pixels), np.concatenate(sides))
