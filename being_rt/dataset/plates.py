"""The picture behind a person: the median of what each pixel shows while nobody is before it, and smooth filling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_CHUNK = 1 << 22  # bytes that are sorted at a time
_SWEEPS = 12  # of relaxation per level: the level above has left errors of the length of a few pixels only


class MedianPlate:
    """Median of each pixel over the frames in which it is bare, in memory that does not grow with their number.

    Of every pixel a sample of fixed size is kept, drawn evenly from all moments at which it was bare (reservoir
    sampling: Vitter, "Random sampling with a reservoir", ACM TOMS 11(1), 1985, algorithm R). A pixel that is bare in
    few frames is judged by all of them. The same frames give the same plate.

    Args:
        size: width, height.
        samples: of each pixel, 1 to 255; so many pictures' memory is taken.

    Example::

        median = MedianPlate((1920, 1080))
        for picture, alpha in zip(pictures, alphas):
            median.add(picture, alpha < 25)
        plate, count = median.result()
    """

    def __init__(self, size: tuple[int, int], samples: int = 15) -> None:
        if not 1 <= samples <= 255:
            raise InvalidParameterError(f"samples must be 1 to 255, got {samples}")
        self.size = size
        pixels = size[0] * size[1]
        self._samples = np.full((samples, pixels, 3), 255, np.uint8)  # what is missing sorts to the end
        self._count = np.zeros(pixels, np.int32)
        self._random = np.random.default_rng(0)

    def add(self, picture: UInt8, bare: Bool) -> None:
        """Take what a frame, uint8 [H, W, 3], shows where it is ``bare`` [H, W]."""
        shape = (self.size[1], self.size[0])
        if picture.shape != (*shape, 3) or bare.shape != shape:
            raise InvalidParameterError(
                f"a frame must be [{shape[0]}, {shape[1]}, 3] and where it is bare [{shape[0]}, {shape[1]}], "
                f"got {list(picture.shape)} and {list(bare.shape)}"
            )
        chosen = np.flatnonzero(bare)
        seen = self._count[chosen]
        self._count[chosen] += 1
        slot = seen
        if seen.max(initial=0) >= len(self._samples):
            later = (self._random.random(len(seen), np.float32) * (seen + 1)).astype(np.int32)
            slot = np.where(seen < len(self._samples), seen, later)
            kept = slot < len(self._samples)
            chosen, slot = chosen[kept], slot[kept]
        # Pixels as single items of three bytes: NumPy moves those in a third of the time.
        pixels = np.ascontiguousarray(picture).reshape(-1, 3).view("V3")[:, 0]
        self._samples.reshape(-1, 3).view("V3")[slot.astype(np.intp) * len(self._count) + chosen, 0] = pixels[chosen]

    def result(self) -> tuple[UInt8, Int32]:
        """The plate, uint8 [H, W, 3], and in how many frames each pixel was bare, [H, W]; where in none: 255.

        Of an even number of samples it is the lower one of the middle two.
        """
        plate = np.empty(self._samples.shape[1:], np.uint8)
        middle = np.maximum(np.minimum(self._count, len(self._samples)) - 1, 0) // 2
        step = max(1, _CHUNK // (3 * len(self._samples)))
        for start in range(0, len(plate), step):
            part = slice(start, start + step)
            ordered = np.sort(self._samples[:, part], axis=0)
            plate[part] = np.take_along_axis(ordered, middle[None, part, None].astype(np.intp), axis=0)[0]
        shape = (self.size[1], self.size[0])
        return plate.reshape(*shape, 3), self._count.reshape(shape)


def fill(picture: UInt8, known: Bool) -> UInt8:
    """Give the pixels [H, W, 3] that are not ``known`` [H, W] the colours around them, without edges or streaks.

    They become a solution of Laplace's equation, like a membrane that known pixels hold and the picture's border does
    not. It is found from coarse to fine: what half the size has inside is raised to the full size and relaxed there
    (cascadic multigrid: Bornemann and Deuflhard, Numerische Mathematik 75, 1996). Grey where nothing is known.

    Example::

        plate = fill(plate, count > 0)
    """
    if known.all():
        return picture.copy()
    filled = _membrane(np.where(known[..., None], picture, 0).astype(np.float32), known)
    return np.where(known[..., None], picture, filled.round().clip(0, 255)).astype(np.uint8)


def _membrane(colour: Float32, known: Bool) -> Float32:
    """Colours [H, W, 3] of all pixels, from known ones and zeros elsewhere."""
    height, width = known.shape
    if known.all():
        return colour
    if height == 1 and width == 1:
        return np.full_like(colour, 127.5)
    padding = ((0, height % 2), (0, width % 2))
    count, total = (
        np.pad(values, (*padding, (0, 0))).reshape(-(-height // 2), 2, -(-width // 2), 2, -1).sum((1, 3))
        for values in (known[..., None].astype(np.float32), colour)
    )
    coarse = _membrane(total / np.maximum(count, 1), count[..., 0] > 0)
    raised = np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:height, :width]
    value = np.where(known[..., None], colour, raised)
    rows, columns = np.flatnonzero(~known.all(1)), np.flatnonzero(~known.all(0))
    # Sweeps touch the box of what is missing, and a frame of one pixel that holds it.
    top, bottom = max(rows[0] - 1, 0), rows[-1] + 2
    left, right = max(columns[0] - 1, 0), columns[-1] + 2
    box = value[top:bottom, left:right]
    hole = ~known[top:bottom, left:right, None]
    for _ in range(_SWEEPS):
        around = np.pad(box, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = around[:-2, 1:-1]
        mean = (mean + around[2:, 1:-1] + around[1:-1, :-2] + around[1:-1, 2:]) / 4
        # Half of the way: the other half would leave a chequered error as it is.
        np.copyto(box, (box + 2 * mean) / 3, where=hole)
    return value
