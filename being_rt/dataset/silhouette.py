"""Where a mesh covers a picture, and how well that agrees with a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]


def silhouette(pixels: NDArray[Any], faces: Int32, size: tuple[int, int]) -> Bool:
    """The pixels [H, W] that triangles with corners at ``pixels`` [V, 2] cover, drawn without depth.

    Triangles with a corner that is NaN (behind the camera) are left out.
    """
    from PIL import Image, ImageDraw

    corners = pixels[faces]
    edges = corners[:, 1:] - corners[:, :1]
    # Those that face the camera cover what all do: outward is counterclockwise where y points up.
    turn = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    low, high = corners.min(1), corners.max(1)
    with np.errstate(invalid="ignore"):
        seen = (turn < 0) & (high > 0).all(1) & (low < np.array(size)).all(1) & (high - low < 4 * max(size)).all(1)
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for triangle in (corners[seen] - 0.5).reshape(-1, 6).tolist():
        draw.polygon(triangle, fill=1)
    return np.asarray(canvas)


def resized_mask(mask: UInt8, size: tuple[int, int]) -> Bool:
    """Where a mask is more than half, at another size."""
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX)) > 127


def overlap(covered: Bool, mask: Bool) -> float:
    """Intersection over union of a head and the part of a person's mask that lies no lower than it: 0 to 1.

    The mesh is a head without a body, the mask a person with one; hair makes the figure of a perfect track less than 1.
    """
    rows = np.flatnonzero(covered.any(1))
    if not rows.size:
        return 0.0
    above = mask.copy()
    above[rows[-1] + 1 :] = False
    union = int(np.count_nonzero(covered | above))
    return float(np.count_nonzero(covered & above) / union) if union else 0.0
