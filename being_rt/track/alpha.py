"""From the coarse mask of a network to a soft alpha of the frame's size, with what is known of the background.

The mask is brought to the edges of the picture by a guided filter (He, Sun, Tang, "Guided image filtering", IEEE PAMI
35(6), 2013) whose coefficients are found at a fraction of the size (He, Sun, "Fast guided filter", 2015) and applied
at the full size along the edge alone: everywhere else alpha is 0 or 1. Where the background is known, what does not
differ from it is no person, whatever the mask says, and what differs near the person is hair that the mask has missed:
as much of it as the pixel's colour is on its way from the background's to the person's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.parallel import in_order, one_thread_each
from being_rt.track.plate import Plate

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Intp = NDArray[np.intp]
Map = TypeVar("Map", Bool, Float32)
Picture = TypeVar("Picture", Bool, UInt8)

SIDE = 270  # pixels of the shorter side at which coefficients are found: a coarse mask has no more
RADIUS = 8  # of the guided filter's window, in those pixels: three of a mask of 256
RADIUS_KNOWN = 6  # where the background is known, which makes masks more exact
EPSILON = 1e-4  # of the guided filter: variance, of colours 0..1, below which a window has no edge
STRETCH = (0.06, 0.94)  # alphas that become 0 and 1: a filter leaves a haze on both sides of an edge
SURE = (0.05, 0.95)  # of a mask: background, person
INWARDS, OUTWARDS = 2, 2  # pixels at the small size by which alpha may lie inside and outside of the mask

STILL = (1.5, 3.0)  # deviations of noise between frames: nothing moves, something does
STEADY_GAIN = 0.2  # share of a new mask where nothing moves

ENOUGH = 0.02  # of the picture that must be known background, to learn noise and brightness from
LEAST_NOISE = 0.6 / 255  # deviation
SHAKE = 0.12  # pixels at the small size by which edges of the background may be off
FURNITURE = 3.0  # deviations of noise: less is background, as it was
WINDOW, MOSTLY = 6, 0.9  # radius of a window, and share of it that must be, to overrule the mask
HAIR = 6.0  # deviations of noise: more, near the person, is the person
SHADE = (0.75, 1.12)  # brightness of a background in a shadow and in more light
REACH = 0.08  # of the shorter side: how far from the mask hair may be
UNSURE = 4  # pixels at the small size from its edge up to which a mask may be wrong anyway
INSIDE = 2  # pixels at the small size inside of the edge, where colours are the person's alone
SPREADS = (6, 32)  # radii over which these are averaged
TELLING = 6.0  # deviations of noise between the colours of person and background at which both ways count the same


def refine_alpha(frame: UInt8, coarse: UInt8, plate: Plate | None = None) -> UInt8:
    """Soft alpha, uint8 [H, W], of a frame on its own. For a video see :func:`refine_alphas`.

    Args:
        frame: uint8 [H, W, 3] sRGB.
        coarse: uint8 [h, w], the person 0..255 over the same field of view, of any size.
        plate: the empty scene and where it is known, from :func:`being_rt.track.plate.background_plate`.

    Raises:
        InvalidParameterError: a wrong shape or type.

    Example::

        alpha = refine_alpha(frame, observations.masks[t], plate)
    """
    _check_frame(frame)
    refiner = AlphaRefiner((frame.shape[1], frame.shape[0]), plate)
    return refiner.finish(refiner.reduce(frame, coarse))


def refine_alphas(
    frames: Iterable[UInt8], coarse: Iterable[UInt8], plate: Plate | None = None, threads: int = 0
) -> Iterator[UInt8]:
    """Soft alphas of the successive frames of a video. Edges that stand still in it do not flicker.

    Args:
        frames, coarse, plate: as in :func:`refine_alpha`, one mask per frame; both end together.
        threads: how many frames are worked on at a time; 0: one per core.

    Raises:
        InvalidParameterError: a wrong shape or type.
        ValueError: more frames than masks, or the other way round.

    Example::

        for t, alpha in enumerate(refine_alphas(frames, observations.masks, plate)):
            ...
    """
    pairs = zip(frames, coarse, strict=True)
    first = next(pairs, None)
    if first is None:
        return
    _check_frame(first[0])
    refiner = AlphaRefiner((first[0].shape[1], first[0].shape[0]), plate)
    reduced = in_order(lambda pair: refiner.reduce(*pair), chain([first], pairs), threads)
    with one_thread_each():
        yield from in_order(refiner.finish, map(refiner.steady, reduced), threads)


class Reduced(NamedTuple):
    """A frame, the same at the size at which coefficients are found, and its mask there."""

    frame: UInt8  # [H, W, 3]
    small: Float32  # [3, h, w] 0..1
    mask: Float32  # [h, w] 0..1


class AlphaRefiner:
    """Refines the frames of one video: :meth:`steady` in their order, the rest in any, on any thread.

    Args:
        size: width, height of the frames.
        plate: the empty scene and where it is known.

    Raises:
        InvalidParameterError: the plate is of another size.

    Example::

        refiner = AlphaRefiner((1920, 1080), plate)
        alpha = refiner.finish(refiner.steady(refiner.reduce(frame, coarse)))
    """

    def __init__(self, size: tuple[int, int], plate: Plate | None = None) -> None:
        self.size = size
        self._scale = max(1, round(min(size) / SIDE))
        self._last: tuple[Float32, Float32] | None = None
        self._plate = None
        if plate is not None:
            if plate.picture.shape != (size[1], size[0], 3) or plate.known.shape != (size[1], size[0]):
                raise InvalidParameterError(f"a plate must be of the frames' size {size[0]}x{size[1]}")
            self._plate = _SmallPlate(plate, self._scale)

    def reduce(self, frame: UInt8, coarse: UInt8) -> Reduced:
        """A frame and its mask at the small size."""
        _check_frame(frame)
        if frame.shape[:2] != (self.size[1], self.size[0]):
            raise InvalidParameterError(
                f"frames must be {self.size[0]}x{self.size[1]}, got {frame.shape[1]}x{frame.shape[0]}"
            )
        if coarse.dtype != np.uint8 or coarse.ndim != 2 or not coarse.size:
            raise InvalidParameterError(f"a mask must be uint8 [h, w], got {coarse.dtype} {list(coarse.shape)}")
        small = _reduced(frame, self._scale)
        return Reduced(frame, small, _resized(coarse, (small.shape[2], small.shape[1])))

    def steady(self, reduced: Reduced) -> Reduced:
        """The same with a mask that is steadied by the frame before, which was steadied last."""
        if self._last is not None:
            reduced = reduced._replace(mask=_steadied(reduced.small, reduced.mask, *self._last))
        self._last = reduced.small, reduced.mask
        return reduced

    def finish(self, reduced: Reduced) -> UInt8:
        """Alpha, uint8 [H, W], of a frame."""
        mask, radius = reduced.mask, RADIUS
        if self._plate is not None:
            mask, radius = self._plate.judge(reduced.small, mask), RADIUS_KNOWN
        return _apply(reduced.frame, mask, _guided_filter(reduced.small, mask, radius), self._scale)


class _SmallPlate:
    """The empty scene at the small size, and what a frame's differences from it say of a mask."""

    def __init__(self, plate: Plate, scale: int) -> None:
        self._colours = _reduced(plate.picture, scale)
        self._known = _blocks(plate.known, scale).all((1, 3))
        slope = np.abs(np.gradient(self._colours, axis=2)) + np.abs(np.gradient(self._colours, axis=1))
        self._shaken = (SHAKE * slope) ** 2

    def judge(self, small: Float32, mask: Float32) -> Float32:
        """A mask [h, w] without furniture, with hair, and with gaps between; as it is where too little is known."""
        near = _maximum(mask, 2 * max(2, round(REACH * min(mask.shape))) + 1) > 0.5
        bare = np.flatnonzero(self._known & ~near)
        if len(bare) < ENOUGH * mask.size:
            return mask
        behind, noise = self._in_its_light(small, bare[:: max(1, len(bare) // 4000)])
        off = small - behind
        precision = 1 / (noise[:, None, None] ** 2 + self._shaken)
        differs = _mean((off * off * precision).mean(0), 1)  # squared, in deviations of noise
        same = (differs < FURNITURE**2) & self._known
        furniture = same & _maximum(_mean(same.astype(np.float32), WINDOW) > MOSTLY, 2 * WINDOW + 1)
        at_edge = _minimum(mask, 2 * UNSURE + 1) < SURE[1]
        mask = np.where(furniture, 0, mask)
        # A shadow scales all channels alike: what it may have done does not count as hair.
        shade = (off * behind).sum(0) / ((behind * behind).sum(0) + 1e-4)
        plain = off - np.clip(shade, SHADE[0] - 1, SHADE[1] - 1) * behind
        unlike = np.maximum(_mean((plain * plain * precision).mean(0), 1), 0)  # running sums can end below
        hair = _touching(near & (mask < SURE[1]) & (unlike > HAIR**2) & self._known, mask > 0.5)
        # How much of it is between the colours of background and person; where these are alike, all that is clearly
        # not background.
        person, telling = self._person(small, mask, differs, behind, float(noise.mean()))
        apart, way = np.sqrt((off * off).sum(0)), np.sqrt(((person - behind) ** 2).sum(0))
        share = np.minimum(apart / np.maximum(way, 1e-3), 1)
        clear = np.clip(np.sqrt(unlike) / HAIR - 1, 0, 1)
        mask = np.where(hair, np.minimum(clear, 1 + telling * (share - 1)), mask)
        gap = same & at_edge & (telling > 0.5)
        return np.where(gap, np.minimum(mask, share), mask).astype(np.float32)

    def _in_its_light(self, small: Float32, bare: Intp) -> tuple[Float32, Float32]:
        """The plate [3, h, w] at the exposure of a frame, and the noise [3], from pixels that show the background."""
        theirs, ours = self._colours.reshape(3, -1)[:, bare], small.reshape(3, -1)[:, bare]
        gain = np.median(ours / np.maximum(theirs, 0.02), axis=1).astype(np.float32)
        deviation = 1.4826 * np.median(np.abs(ours - gain[:, None] * theirs), axis=1)
        return gain[:, None, None] * self._colours, np.maximum(deviation, LEAST_NOISE).astype(np.float32)

    def _person(
        self, small: Float32, mask: Float32, differs: Float32, behind: Float32, noise: float
    ) -> tuple[Float32, Float32]:
        """The person's own colour near each pixel [3, h, w], and how well it tells him from the background 0..1."""
        sure = _minimum((mask > SURE[1]) & ((differs > HAIR**2) | ~self._known), 2 * INSIDE + 1)
        given = np.concatenate([small * sure, sure[None].astype(np.float32)])
        person, found = np.zeros_like(behind), np.zeros(mask.shape, bool)
        for radius in reversed(SPREADS):  # a narrow mean where there is one, else a wide one
            spread = _mean(given, radius)
            enough = spread[3] > 0.02
            np.copyto(person, spread[:3] / np.maximum(spread[3], 1e-3), where=enough)
            found |= enough
        apart = ((person - behind) ** 2).sum(0)
        return person, found * apart / (apart + 3 * (TELLING * noise) ** 2)


def _guided_filter(guide: Float32, mask: Float32, radius: int) -> Float32:
    """Coefficients [4, h, w] of alpha = a . colour + b (He et al., equations 19 to 21), averaged over windows."""
    stacked = np.empty((13, *mask.shape), np.float32)
    stacked[:3], stacked[3] = guide, mask
    stacked[4:7] = guide[0] * guide
    stacked[7:9] = guide[1] * guide[1:]
    stacked[9] = guide[2] * guide[2]
    stacked[10:] = guide * mask
    means = _mean(stacked, radius)
    colour, alpha = means[:3], means[3]
    rr = means[4] - colour[0] * colour[0] + EPSILON
    rg = means[5] - colour[0] * colour[1]
    rb = means[6] - colour[0] * colour[2]
    gg = means[7] - colour[1] * colour[1] + EPSILON
    gb = means[8] - colour[1] * colour[2]
    bb = means[9] - colour[2] * colour[2] + EPSILON
    with_mask = means[10:] - colour * alpha
    # The inverse of a symmetric 3 x 3 matrix: its cofactors over its determinant.
    c00, c01, c02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c11, c12, c22 = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    scale = 1 / (rr * c00 + rg * c01 + rb * c02)
    coefficients = np.empty((4, *mask.shape), np.float32)
    coefficients[0] = (c00 * with_mask[0] + c01 * with_mask[1] + c02 * with_mask[2]) * scale
    coefficients[1] = (c01 * with_mask[0] + c11 * with_mask[1] + c12 * with_mask[2]) * scale
    coefficients[2] = (c02 * with_mask[0] + c12 * with_mask[1] + c22 * with_mask[2]) * scale
    coefficients[3] = alpha - np.einsum("chw,chw->hw", coefficients[:3], colour)
    return _mean(coefficients, radius)


def _apply(frame: UInt8, mask: Float32, coefficients: Float32, scale: int) -> UInt8:
    """Alpha at the full size: in cells of ``scale`` x ``scale`` pixels near the edge, pixel by pixel."""
    lowest = _stretched(_mean(_minimum(mask, 2 * INWARDS + 1), 1), SURE)
    highest = _stretched(_mean(_maximum(mask, 2 * OUTWARDS + 1), 1), SURE)
    flat = np.clip(_stretched(mask, SURE), lowest, highest)
    alpha = np.repeat(np.repeat(_bytes(flat), scale, 0), scale, 1)
    rows, columns = np.nonzero((lowest < 1) & (highest > 0))
    if len(rows):
        raised = _raised(np.concatenate([coefficients, lowest[None], highest[None]]), rows, columns, scale)
        filtered = (raised[:3] * _pixels(_blocks(frame, scale), rows, columns)).sum(0) + raised[3]
        edge = np.clip(_stretched(filtered, STRETCH), raised[4], raised[5])
        cells = alpha.reshape(mask.shape[0], scale, mask.shape[1], scale)
        cells[rows, :, columns] = _bytes(edge).T.reshape(-1, scale, scale)
    height, width = frame.shape[:2]
    return np.ascontiguousarray(alpha[:height, :width])


def _steadied(small: Float32, mask: Float32, last_small: Float32, last_mask: Float32) -> Float32:
    """A mask [h, w] drawn towards the last one where the picture has not changed: networks jitter, scenes do not."""
    change = _mean(np.abs(small - last_small).max(0), 2)
    quiet = max(float(np.median(change[::4, ::4])), LEAST_NOISE)
    moves = np.clip((change / quiet - STILL[0]) / (STILL[1] - STILL[0]), STEADY_GAIN, 1)
    return last_mask + moves * (mask - last_mask)


def _touching(candidates: Bool, seeds: Bool) -> Bool:
    """Those connected parts [h, w] of candidates and seeds that have a seed in them."""
    from scipy import ndimage

    parts, count = ndimage.label(candidates | seeds, np.ones((3, 3)))
    wanted = np.zeros(count + 1, bool)
    wanted[parts[seeds]] = True
    wanted[0] = False
    return wanted[parts] & candidates


def _check_frame(frame: UInt8) -> None:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise InvalidParameterError("a frame must be uint8 [H, W, 3]")


def _reduced(picture: UInt8, scale: int) -> Float32:
    """Means of cells of ``scale`` pixels, [3, h, w] 0..1; at the right and lower border of what there is of a cell."""
    from PIL import Image

    small = np.asarray(Image.fromarray(picture).reduce(scale) if scale > 1 else picture)
    return np.ascontiguousarray(small.transpose(2, 0, 1)) * np.float32(1 / 255)


def _resized(mask: UInt8, size: tuple[int, int]) -> Float32:
    from PIL import Image

    fitted = Image.fromarray(mask)
    if fitted.size != size:
        fitted = fitted.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(fitted) * np.float32(1 / 255)


def _blocks(picture: Picture, scale: int) -> Picture:
    """A picture [H, W, ...] as cells [h, s, w, s, ...], its last pixels repeated where a cell is not full."""
    below, right = -picture.shape[0] % scale, -picture.shape[1] % scale
    if below or right:
        picture = np.pad(picture, ((0, below), (0, right), *((0, 0),) * (picture.ndim - 2)), mode="edge")
    height, width = picture.shape[0] // scale, picture.shape[1] // scale
    return picture.reshape(height, scale, width, scale, *picture.shape[2:])


def _pixels(blocks: UInt8, rows: Intp, columns: Intp) -> Float32:
    """The pixels of n cells: [3, s * s, n] 0..1."""
    picked = blocks[rows, :, columns]
    return picked.reshape(len(rows), -1, 3).transpose(2, 1, 0) * np.float32(1 / 255)


def _raised(maps: Float32, rows: Intp, columns: Intp, scale: int) -> Float32:
    """Maps [k, h, w] at the pixels of n cells, interpolated between the cells' centres: [k, s * s, n]."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.stack([padded[:, rows + down, columns + across] for down in range(3) for across in range(3)])
    raised = _bilinear(scale) @ around.reshape(9, -1)
    return raised.reshape(scale * scale, len(maps), len(rows)).transpose(1, 0, 2)


@cache
def _bilinear(scale: int) -> Float32:
    """Weights [s * s, 9] of a cell and its neighbours at each of its pixels."""
    place = (np.arange(scale) + 0.5) / scale - 0.5
    along = np.stack([np.maximum(-place, 0), 1 - np.abs(place), np.maximum(place, 0)], 1)
    return np.einsum("ia,jb->ijab", along, along).reshape(scale * scale, 9).astype(np.float32)


def _stretched(alpha: Float32, limits: tuple[float, float]) -> Float32:
    return np.clip((alpha - np.float32(limits[0])) * np.float32(1 / (limits[1] - limits[0])), 0, 1)


def _bytes(alpha: Float32) -> UInt8:
    return (alpha * 255 + 0.5).astype(np.uint8)


def _mean(maps: Float32, radius: int) -> Float32:
    """Means over windows of 2 radius + 1 pixels a side."""
    from scipy import ndimage

    side = 2 * radius + 1
    return ndimage.uniform_filter(maps, (1,) * (maps.ndim - 2) + (side, side), mode="nearest")


def _minimum(mask: Map, side: int) -> Map:
    from scipy import ndimage

    lowest: Map = ndimage.minimum_filter(mask, side, mode="nearest")
    return lowest


def _maximum(mask: Map, side: int) -> Map:
    from scipy import ndimage

    highest: Map = ndimage.maximum_filter(mask, side, mode="nearest")
    return highest
