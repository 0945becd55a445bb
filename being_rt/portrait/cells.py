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


class Cells(NamedTuple):
    """N squares of a picture."""

    pixel: Float64  # [N, 2] x, y of their middles
    side: Int64  # [N] pixels

    def at(self, picture: NDArray[np.generic]) -> NDArray[np.generic]:
        """The values [N, ...] of a picture [H, W, ...] at the cells' middles (the lower right of four pixels)."""
        x, y = self.pixel.astype(np.int64).T
        return picture[y, x]

    def chosen(self, which: Bool) -> Cells:
        return Cells(self.pixel[which], self.side[which])


def cut(picture: UInt8, region: Bool, contrast: float, largest: int = 8) -> Cells:
    """Cells that cover a region [H, W] of a picture [H, W, 3], each pixel once.

    A cell is divided until it lies in the region and its colours differ by less than ``contrast`` (of 255) in each
    channel; single pixels are taken as they are.

    Example::

        cells = cut(picture, alpha > 127, contrast=12)
    """
    height, width = region.shape
    below, right = -height % SIDES[0], -width % SIDES[0]
    inside = np.pad(region, ((0, below), (0, right)))
    colours = np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
    open_ = inside.copy()
    pixels, sides = [], []
    for side in SIDES:
        if side > largest:
            continue
        rows, columns = inside.shape[0] // side, inside.shape[1] // side
        blocks = colours.reshape(rows, side, columns, side, 3)
        spread = (blocks.max((1, 3)).astype(np.int16) - blocks.min((1, 3))).max(-1)
        whole = open_.reshape(rows, side, columns, side).all((1, 3))
        taken = whole & ((spread < contrast) | (side == 1))
        y, x = np.nonzero(taken)
        pixels.append(np.stack([x + 0.5, y + 0.5], 1) * side)
        sides.append(np.full(len(x), side))
        open_ &= ~np.repeat(np.repeat(taken, side, 0), side, 1)
    return Cells(np.concatenate(pixels), np.concatenate(sides))
