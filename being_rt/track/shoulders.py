"""Where a person's clothes lie in every frame, found in the pictures: what says where the body is.

A fitter of faces knows nothing of shoulders, and a head says little of them: it nods, and they stay; they breathe, and
it stays. What the person wears hardly changes, though. So the clothes of one frame, and the outline of the shoulders,
are laid on every other: a shift, a zoom and a turn by Gauss and Newton's method from coarse to fine, with robust
weights for folds and what a chin hides (Lucas and Kanade, 1981; Baker and Matthews, "Lucas-Kanade 20 years on", IJCV
56(3), 2004). A second round does the same with the mean of all aligned frames, which is sharper than any of them about
what stays and blurred about what does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.dataset.labels import TORSO, Labeller
from being_rt.dataset.reduced import ReducedDataset
from being_rt.parallel import in_order, one_thread_each

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

SIDE = 320  # pixels of the shorter side at which clothes are aligned
LEVELS = 4  # each half the size of the one before
BLUR = 1.0  # pixels, deviation, at each level
LABELLED = 16  # frames in which clothes are told from the rest
SHARE = 0.7  # of these that must show clothes at a pixel
FEWEST = 400  # pixels of clothes at the finest level
MOST = 8_000  # that are compared, those with the most structure
STEPS = 12  # of alignment per level at most
FINE = 0.02  # pixels: a step that ends it
TOGETHER = 60.0  # pixels whose differences count as one: folds are wrong together
DEFORMED = 1.0  # pixels by which clothes are not where shift, zoom and turn have them
ALIKE = 0.5  # correlation of the clothes with themselves in another frame, at least


@dataclass(frozen=True)
class Shoulders:
    """How clothes lie in T frames, against where they lie in their reference: pixels of the frame.

    Example::

        found = shoulders(dataset)
        print(found.known.mean(), found.motion.std(0))
    """

    motion: Float64  # [T, 3] to the right and down, of ``middle``; growth: pixels away from it, at ``reach``
    information: Float64  # [T, 3, 3] inverse covariance; 0 where unknown, or along edges
    turn: Float64  # [T] radians, clockwise
    middle: Float64  # [2] px: the middle of what was compared
    reach: float  # px, root mean square distance of it from there

    @property
    def known(self) -> Bool:
        """Frames [T] of which anything was found."""
        return np.asarray(self.information.any((1, 2)))


class _Plane(NamedTuple):
    """Clothes at one size: pixels [n] that are compared, what they show, and how that changes with the warp.

    A warp is (x, y, zoom, turn): points move by (x, y) + zoom r + turn r', with r from ``middle`` in units of ``unit``
    and r' the same a quarter turn on; all in pixels of the plane.
    """

    rows: Float64
    columns: Float64
    y: Float64
    x: Float64
    values: Float64
    slopes: Float64  # [n, 4]

    @classmethod
    def of(cls, grey: Float32, clothes: Bool, middle: Float64, unit: float) -> _Plane:
        down, across = (np.gradient(grey.astype(np.float64), axis=axis) for axis in (0, 1))
        strength = np.where(clothes, down**2 + across**2, -1.0)
        count = int(clothes.sum())
        if count > MOST:
            clothes = clothes & (strength >= np.partition(strength, -MOST, axis=None)[-MOST])
        rows, columns = (axis.astype(np.float64) for axis in np.nonzero(clothes))
        y, x = (rows - middle[1]) / unit, (columns - middle[0]) / unit
        gx, gy = across[clothes], down[clothes]
        slopes = np.stack([gx, gy, gx * x + gy * y, gy * x - gx * y], -1)
        return cls(rows, columns, y, x, grey[clothes].astype(np.float64), slopes)

    def align(self, grey: Float32, warp: Float64) -> tuple[Float64, float, Float64]:
        """The warp that fits best, beginning from one; the correlation there; the inverse covariance [4, 4]."""
        from scipy import ndimage

        height, width = grey.shape
        information, alike = np.zeros((4, 4)), 0.0
        for _ in range(STEPS):
            rows = self.rows + warp[1] + warp[2] * self.y + warp[3] * self.x
            columns = self.columns + warp[0] + warp[2] * self.x - warp[3] * self.y
            there = ndimage.map_coordinates(grey, [rows, columns], order=1, mode="nearest").astype(np.float64)
            inside = (rows > 1) & (rows < height - 2) & (columns > 1) & (columns < width - 2)
            if np.count_nonzero(inside) < 0.3 * len(rows):
                return warp, 0.0, np.zeros((4, 4))
            off = there - self.values
            off -= np.median(off[inside])
            usual = 1.5 * float(np.median(np.abs(off[inside]))) + 0.5
            weight = inside * (1 + (off / (2 * usual)) ** 2) ** -2  # Geman and McClure
            alike = _correlation(there, self.values, weight)
            weighted = self.slopes * weight[:, None]
            normal = weighted.T @ self.slopes
            damped = normal + 1e-4 * np.trace(normal) / 4 * np.eye(4)
            step = np.linalg.solve(damped, weighted.T @ off)
            warp = warp - step
            total = max(float(weight.sum()), 1e-9)
            noise = float((weight * off**2).sum() / total) + 0.25
            noise += DEFORMED**2 * float((weighted[:, :2] * self.slopes[:, :2]).sum() / total)
            information = normal / (noise * TOGETHER)
            if np.abs(step).max() < FINE:
                break
        return warp, alike, information


def _correlation(a: Float64, b: Float64, weight: Float64) -> float:
    total = max(float(weight.sum()), 1e-9)
    a, b = a - (weight * a).sum() / total, b - (weight * b).sum() / total
    return float((weight * a * b).sum() / np.sqrt((weight * a * a).sum() * (weight * b * b).sum() + 1e-9))


def shoulders(dataset: Dataset, progress: Callable[[float], None] | None = None) -> Shoulders | None:
    """Find the clothes of the first camera's frames; None where there are too few, or all is plain.

    Args:
        dataset: with masks; its track says where the head is.
        progress: hears the share of the work that is done, 0 to 1.

    Raises:
        DatasetError: a picture cannot be read.

    Example::

        found = shoulders(Dataset.load("me"))
    """
    tell = progress or (lambda share: None)
    own = np.flatnonzero(dataset.camera_index == 0)
    times, first = np.unique(dataset.timestep[own].astype(np.int64), return_index=True)
    frames = own[first]
    if not len(frames) or not all(dataset.has_mask(int(frame)) for frame in frames):
        return None
    reduction = max(1, round(min(dataset.size) / SIDE))
    small = ReducedDataset.of(dataset, reduction)
    resting = dataset.params.translation[times].astype(np.float64)
    start = int(np.linalg.norm(resting - np.median(resting, axis=0), axis=1).argmin())
    clothes = _clothes(small, frames, times, start)
    if clothes.sum() < FEWEST:
        return None
    pictures = _pictures(small, frames, clothes, start)
    tell(0.3)
    y, x = np.nonzero(clothes)
    middle, unit = np.array([x.mean(), y.mean()]), float(np.hypot(x.std(), y.std())) + 1.0
    reference = pictures[start].astype(np.float32)
    for round_ in range(2):
        planes = _planes(reference, clothes, middle, unit)
        warps, alike, information = np.zeros((len(frames), 4)), np.zeros(len(frames)), np.zeros((len(frames), 4, 4))
        with one_thread_each():
            for order in (range(start, len(frames)), range(start - 1, -1, -1)):
                warp = np.zeros(4)
                for i in order:
                    warps[i], alike[i], information[i] = _laid_on(planes, pictures[i], warp)
                    warp = warps[i] if alike[i] >= ALIKE else warp
        good = alike >= ALIKE
        if round_ == 0 and good.any():
            reference = _mean(pictures, warps, good, middle, unit)
        tell(0.65 + 0.35 * round_)
    return _shoulders(dataset, times, warps, information, good, planes[0], middle, unit, reduction)


def _clothes(small: ReducedDataset, frames: NDArray[np.intp], times: NDArray[np.int64], start: int) -> Bool:
    """Where the clothes are [h, w] in frame ``start``, and in most others too."""
    from scipy import ndimage

    labeller = Labeller(small.rig, small.cameras[0])
    chosen = np.unique(np.linspace(0, len(frames) - 1, LABELLED).round().astype(np.int64))
    seen = np.zeros((small.size[1], small.size[0]))
    outline = np.zeros_like(seen)
    for i in chosen:
        frame = int(frames[i])
        mask = small.mask(frame)
        labels = labeller.label(small.params[int(times[i])], mask, small.image(frame))
        seen += labels == TORSO
        outline += mask > 20
    # Shoulders end where the room begins, and their outline is the best that plain clothes have.
    clothes = seen >= SHARE * len(chosen)
    wide = ndimage.binary_dilation(clothes, iterations=4) & (outline < SHARE * len(chosen))
    return np.asarray(ndimage.binary_opening(clothes, iterations=2) | wide)


def _pictures(small: ReducedDataset, frames: NDArray[np.intp], clothes: Bool, start: int) -> UInt8:
    """Frames [T, h, w] in grey, with a plain background that is as far from the clothes as can be."""
    from PIL import Image

    def grey(frame: int) -> Float32:
        return np.asarray(Image.fromarray(small.image(frame)).convert("L"), np.float32)

    usual = float(np.median(grey(int(frames[start]))[clothes]))
    behind = 0.0 if usual > 127 else 255.0
    behind = usual + 0.5 * (behind - usual)

    def cut_out(frame: int) -> UInt8:
        alpha = small.mask(frame) / np.float32(255)
        return np.round(alpha * grey(frame) + (1 - alpha) * behind).astype(np.uint8)

    return np.stack(list(in_order(cut_out, frames.tolist())))


def _planes(grey: Float32, clothes: Bool, middle: Float64, unit: float) -> list[_Plane]:
    planes = []
    for level, picture in enumerate(_pyramid(grey)):
        factor = 2**level
        height, width = picture.shape
        there = clothes[: height * factor, : width * factor].reshape(height, factor, width, factor).mean((1, 3)) >= 0.5
        edge = np.zeros_like(there)
        edge[2:-2, 2:-2] = True
        planes.append(_Plane.of(picture, there & edge, (middle + 0.5) / factor - 0.5, unit / factor))
    return [plane for plane in planes if len(plane.rows) >= FEWEST / 16] or planes[:1]


def _pyramid(grey: NDArray[np.floating] | UInt8) -> list[Float32]:
    """A picture at sizes that are halved from one to the next, each softened."""
    from scipy import ndimage

    picture = grey.astype(np.float32)
    result = []
    for _ in range(LEVELS):
        result.append(ndimage.gaussian_filter(picture, BLUR))
        height, width = (side // 2 * 2 for side in picture.shape)
        if min(height, width) < 24:
            break
        picture = picture[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return result


def _laid_on(planes: list[_Plane], picture: UInt8, warp: Float64) -> tuple[Float64, float, Float64]:
    """The clothes laid on a frame, from coarse to fine: warp [4], correlation, inverse covariance [4, 4]."""
    pyramid = _pyramid(picture)
    for level in reversed(range(1, len(planes))):
        factor = 2.0**level
        coarse, alike, _ = planes[level].align(pyramid[level], warp / factor)
        warp = coarse * factor if alike >= ALIKE else warp
    return planes[0].align(pyramid[0], warp)


def _mean(pictures: UInt8, warps: Float64, good: Bool, middle: Float64, unit: float) -> Float32:
    """What the frames show on average [h, w], each moved to where the reference is."""
    from scipy import ndimage

    total = np.zeros(pictures.shape[1:])
    rows, columns = (axis.astype(np.float64) for axis in np.indices(total.shape))
    y, x = (rows - middle[1]) / unit, (columns - middle[0]) / unit
    for i in np.flatnonzero(good):
        across, down, zoom, turn = warps[i]
        there = [rows + down + zoom * y + turn * x, columns + across + zoom * x - turn * y]
        total += ndimage.map_coordinates(pictures[i].astype(np.float32), there, order=1, mode="nearest")
    return (total / good.sum()).astype(np.float32)


def _shoulders(
    dataset: Dataset,
    times: NDArray[np.int64],
    warps: Float64,
    information: Float64,
    good: Bool,
    plane: _Plane,
    middle: Float64,
    unit: float,
    reduction: int,
) -> Shoulders | None:
    count = len(dataset.params)
    motion, turn, told = np.zeros((count, 3)), np.zeros(count), np.zeros((count, 3, 3))
    for i in np.flatnonzero(good):
        # What is told of the rest whatever the turn is: the Schur complement.
        own, both, turns = information[i][:3, :3], information[i][:3, 3], information[i][3, 3]
        told[times[i]] = (own - np.outer(both, both) / max(float(turns), 1e-12)) / reduction**2
        motion[times[i]], turn[times[i]] = reduction * warps[i, :3], warps[i, 3] / unit
    if not told.any():
        return None
    return Shoulders(motion, told, turn, reduction * (middle + 0.5), reduction * unit)
