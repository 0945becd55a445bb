"""Does the camera stand still? Patches of the background are followed from the first frame of a video to every other.

Everything later takes the camera to stand: the empty scene is a median over frames, and the head's motion is the
person's. Patches are aligned all at once, with one shift, turn and zoom for the whole picture (Lucas and Kanade, 1981,
in the form of Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 56(3), 2004, section 3.2, with weights per patch).
Each is compared with its own mean and contrast, so light may change; what moves by itself, and what the person hides,
is left out. Where the last frame's motion does not help, the whole background is searched for by normalised
correlation under masks (Padfield, "Masked object registration in the Fourier domain", IEEE TIP 21(5), 2012).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.track.plate import bare_pixels

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

STATIC = 0.0007  # of the width: background that moves less is still; 1.3 pixels at 1920
LEAST = 0.7  # pixels that always count as still
SHAKY = 0.015  # of the width: a hand that tries to hold still

SIDE = 360  # pixels of the shorter side at which patches are followed
LEVELS = 3  # each half the size of the one before
BLUR = 1.0  # pixels, deviation, at each level
PATCH = 7  # pixels a side
MOST = 240  # patches
SPACING = 8  # pixels between them at least
TEXTURE = 1.5  # grey levels per pixel: root mean square gradient of a patch that can be followed
STEPS = 12  # of alignment per level at most
FINE = 0.01  # pixels: a step that ends it
ALIKE = 0.75  # correlation of a patch with itself in another frame, at least
SHARE = 0.4  # of the patches in sight that must be alike
FEWEST = 10  # patches in sight
FEW_FRAMES = 4  # fewer are too few to say that a camera moves, if nothing is known of most others
THUMBNAIL = 96  # pixels of the longer side at which the whole background is searched for
SURE = 0.5  # pixels of the frame: a shift that is less certain is none


@dataclass(frozen=True)
class CameraMotion:
    """How a video's background moves, frame by frame, against the first frame."""

    shifts: Float32  # [T, 2] pixels to the right and down, mean over the patches; NaN where it cannot be told
    distances: Float32  # [T] pixels, root mean square over the patches: turns and zooms count too
    shares: Float32  # [T] 0..1 of the patches in sight that were found again
    verdict: str  # "static", "shaky", "moving"; "unknown" where too little of the background is to be seen
    words: str  # the same as a sentence

    @property
    def is_static(self) -> bool:
        """Whether nothing speaks against one background for all frames."""
        return self.verdict in ("static", "unknown")


def camera_motion(frames: Iterable[UInt8], alphas: Iterable[UInt8]) -> CameraMotion:
    """Whether the camera moves, by how many pixels, and in words.

    Args:
        frames: uint8 [H, W, 3], all of one size. A hundred, evenly spread, show as much as all.
        alphas: uint8 [H, W] or coarse [h, w], the person 0..255 in each of them.

    Raises:
        InvalidParameterError: no frame, sizes that differ, more frames than alphas or the other way round.

    Example::

        motion = camera_motion(frames[::10], observations.masks[::10])
        print(motion.words)
    """
    first: _First | None = None
    warp = np.zeros(4)
    found: list[_Found] = []
    for frame, alpha in zip(frames, alphas, strict=True):
        if frame.dtype != np.uint8 or frame.ndim != 3 or alpha.dtype != np.uint8 or alpha.ndim != 2:
            raise InvalidParameterError("a frame must be uint8 [H, W, 3] and its alpha uint8 [H, W]")
        size = frame.shape[1], frame.shape[0]
        if first is not None and size != first.size:
            given = [f"{width}x{height}" for width, height in (first.size, size)]
            raise InvalidParameterError(f"frames must be of one size, got {' and '.join(given)}")
        bare = bare_pixels(alpha, size)
        if first is None:
            first = _First(frame, bare)
        seen, warp = first.follow(frame, bare, warp)
        found.append(seen)
    if first is None:
        raise InvalidParameterError("to see whether a camera moves takes at least one frame")
    verdict, words = _judged(found, first.size[0])
    return CameraMotion(
        shifts=np.array([one.shift for one in found], np.float32),
        distances=np.array([one.distance for one in found], np.float32),
        shares=np.array([one.share for one in found], np.float32),
        verdict=verdict,
        words=words,
    )


class _Found(NamedTuple):
    shift: tuple[float, float]
    distance: float
    share: float
    lost: bool  # enough of the background was in sight, and not where any motion would have it


class _Level:
    """Patches of the first frame at one size: where they are, what they show, and how that changes with the warp.

    A warp is (x, y, zoom, turn): points move by (x, y) + zoom r + turn r', with r from the picture's centre in units
    of ``unit`` and r' the same a quarter turn on; all in pixels of the level.
    """

    def __init__(self, grey: Float32, bare: Bool) -> None:
        self.unit = float(np.hypot(*grey.shape)) / 2
        down, across = np.gradient(grey, axis=0), np.gradient(grey, axis=1)
        noise = _noise(across)
        self.least = max(TEXTURE / 3, 2 * noise) ** 2
        centres = _corners(across, down, bare, noise)
        offset = np.arange(PATCH) - PATCH // 2
        self.rows = (centres[:, 0, None, None] + offset[:, None]).repeat(PATCH, 2).reshape(len(centres), PATCH * PATCH)
        self.columns = (centres[:, 1, None, None] + offset).repeat(PATCH, 1).reshape(len(centres), PATCH * PATCH)
        self.centre = (np.array(grey.shape) - 1) / 2
        self.y, self.x = (self.rows - self.centre[0]) / self.unit, (self.columns - self.centre[1]) / self.unit
        template = grey[self.rows, self.columns].astype(np.float64)
        self.template = template - template.mean(1, keepdims=True)
        self.contrast = np.sqrt((self.template**2).mean(1))
        gx, gy = across[self.rows, self.columns], down[self.rows, self.columns]
        slopes = np.stack([gx, gy, gx * self.x + gy * self.y, gy * self.x - gx * self.y], -1).astype(np.float64)
        self.slopes = slopes - slopes.mean(1, keepdims=True)  # [n, PATCH^2, 4]
        self.normal = np.einsum("npi,npj->nij", self.slopes, self.slopes)

    def places(self, warp: Float64) -> tuple[Float64, Float64]:
        """Where the patches' pixels [n, PATCH^2] lie in another frame: rows and columns."""
        return (
            self.rows + warp[1] + warp[2] * self.y + warp[3] * self.x,
            self.columns + warp[0] + warp[2] * self.x - warp[3] * self.y,
        )

    def compare(self, grey: Float32, bare: Bool, warp: Float64) -> tuple[Float64, Float64, Bool]:
        """Differences [n, PATCH^2] in the first frame's contrast, correlations [n], and which patches are in sight."""
        rows, columns = self.places(warp)
        middle = PATCH * PATCH // 2
        y, x = np.rint(rows[:, middle]).astype(np.intp), np.rint(columns[:, middle]).astype(np.intp)
        margin = PATCH // 2 + 1
        height, width = grey.shape
        inside = (y >= margin) & (y < height - margin) & (x >= margin) & (x < width - margin)
        seen = inside & bare[np.where(inside, y, 0), np.where(inside, x, 0)]
        there = _sampled(grey, rows, columns)
        there -= there.mean(1, keepdims=True)
        contrast = np.sqrt((there**2).mean(1))
        correlation = (there * self.template).mean(1) / (contrast * self.contrast + 1e-6)
        gain = np.clip(self.contrast / (contrast + 1e-6), 0.5, 2.0)
        return there * gain[:, None] - self.template, np.where(seen, correlation, 0), seen

    def align(self, grey: Float32, bare: Bool, warp: Float64) -> tuple[Float64, float, Float64]:
        """The warp that fits best, beginning from one; the share of patches alike; the covariance [4, 4] of the warp.

        The share is 0 where fewer than ``FEWEST`` patches are in sight.
        """
        share, covariance = 0.0, np.full((4, 4), np.inf)
        for _ in range(STEPS):
            off, correlation, seen = self.compare(grey, bare, warp)
            if np.count_nonzero(seen) < FEWEST:
                return warp, 0.0, covariance
            share = float((correlation[seen] > ALIKE).mean())
            squared = (off**2).mean(1)
            usual = float(np.median(squared[seen])) + 0.25
            weight = seen * (usual / (usual + squared)) ** 2  # Geman and McClure
            # A little of its own trace keeps directions that no patch tells about where they are.
            normal = np.einsum("n,nij->ij", weight, self.normal)
            normal += 1e-4 * np.trace(normal) / 4 * np.eye(4)
            step = np.linalg.solve(normal, np.einsum("n,npi,np->i", weight, self.slopes, off))
            warp = warp - step
            covariance = usual * np.linalg.inv(normal)
            # Structure that is noise in one direction, as along a shelf, tells nothing about it.
            weakest = np.linalg.eigvalsh(normal[:2, :2])[0] / (weight.sum() * PATCH * PATCH)
            if not weakest > self.least:
                covariance = np.full((4, 4), np.inf)
            if np.abs(step).max() < FINE:
                break
        return warp, share, covariance


class _First:
    """The first frame, ready for others to be laid on it."""

    def __init__(self, frame: UInt8, bare: Bool) -> None:
        self.size = frame.shape[1], frame.shape[0]
        self._scale = max(1, round(min(self.size) / SIDE))
        self._levels = [_Level(grey, free) for grey, free in _pyramid(frame, bare, self._scale)]
        self._thumbnail = _thumbnail(frame, bare)

    def follow(self, frame: UInt8, bare: Bool, last: Float64) -> tuple[_Found, Float64]:
        """How a frame's background lies against the first one's; ``last``: the warp of the frame before."""
        pyramid = _pyramid(frame, bare, self._scale)
        sharpest = self._levels[0]
        nothing = _Found((np.nan, np.nan), np.nan, 0.0, False)
        if len(sharpest.rows) < FEWEST:
            return nothing, last
        warp, share, covariance = self._refine(pyramid, last)
        if share < SHARE:
            shift = _searched(self._thumbnail, _thumbnail(frame, bare)) / self._scale
            other = self._refine(pyramid, np.array([*shift, 0, 0]))
            if other[1] > share:
                warp, share, covariance = other
        if share < SHARE:
            seen = sharpest.compare(*pyramid[0], last)[2]
            return nothing._replace(share=share, lost=bool(np.count_nonzero(seen) >= FEWEST)), last
        if not np.sqrt(covariance[:2, :2].trace()) * self._scale < SURE:
            return nothing, last
        rows, columns = sharpest.places(warp)
        seen = sharpest.compare(*pyramid[0], warp)[2]
        moved = np.stack([columns - sharpest.columns, rows - sharpest.rows])[:, seen].mean(2) * self._scale
        distance = float(np.sqrt((moved**2).sum(0).mean()))
        across, down = moved.mean(1)
        return _Found((float(across), float(down)), distance, share, False), warp

    def _refine(self, pyramid: list[tuple[Float32, Bool]], warp: Float64) -> tuple[Float64, float, Float64]:
        for depth in reversed(range(1, len(pyramid))):
            factor = 2.0**depth
            level = self._levels[depth]
            if len(level.rows) >= FEWEST:
                coarse, share, _ = level.align(*pyramid[depth], warp / factor)
                warp = coarse * factor if share > SHARE / 2 else warp
        return self._levels[0].align(*pyramid[0], warp)


def _pyramid(frame: UInt8, bare: Bool, scale: int, levels: int = LEVELS) -> list[tuple[Float32, Bool]]:
    """A frame in grey and where it is bare, at sizes that are halved from one to the next."""
    from PIL import Image
    from scipy import ndimage

    picture = Image.fromarray(frame)
    result = []
    for level in range(levels):
        factor = scale * 2**level
        grey = (picture.reduce(factor) if factor > 1 else picture).convert("L")
        middle = factor // 2
        free = bare[middle::factor, middle::factor]
        free = np.pad(free, [(0, grey.height - free.shape[0]), (0, grey.width - free.shape[1])], mode="edge")
        # Without this, steps between pixels draw alignment to whole pixels.
        result.append((ndimage.gaussian_filter(np.asarray(grey, np.float32), BLUR), free))
    return result


def _noise(across: Float32) -> float:
    """The deviation of a picture's slopes that is noise: structure hardly reaches the median of their twists.

    After Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996. 1.56 is what ``BLUR`` makes of white noise.
    """
    twist = np.abs(np.diff(np.diff(across, axis=1), axis=0))
    return 1.56 * float(np.median(twist)) / 0.6745


def _corners(across: Float32, down: Float32, bare: Bool, noise: float) -> NDArray[np.intp]:
    """Centres (row, column) [n, 2] of patches to follow: where there is structure, and all over the picture."""
    from scipy import ndimage

    xx, yy, xy = (ndimage.uniform_filter(product, PATCH) for product in (across**2, down**2, across * down))
    middle, radius = (xx + yy) / 2, np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    score = middle - 0.8 * radius  # corners most; edges still tell one direction
    free = ndimage.minimum_filter(bare, PATCH + 2, mode="constant", cval=0)
    margin = PATCH // 2 + 1
    free[:margin], free[-margin:], free[:, :margin], free[:, -margin:] = False, False, False, False
    good = free & (xx + yy > max(TEXTURE, 2.8 * noise) ** 2)
    best = good & (score == ndimage.maximum_filter(np.where(good, score, -np.inf), 2 * SPACING + 1))
    centres = np.argwhere(best)
    centres = centres[np.argsort(-score[best], kind="stable")]
    cell = (centres * 8 // np.array(across.shape)) @ np.array([8, 1])
    order = np.argsort(cell, kind="stable")  # by cell, the best first
    starts = np.searchsorted(cell[order], cell[order])
    rank = np.empty(len(centres), np.intp)
    rank[order] = np.arange(len(centres)) - starts
    return centres[np.argsort(rank, kind="stable")][:MOST]


def _sampled(grey: Float32, rows: Float64, columns: Float64) -> Float64:
    """Bilinear samples, of the nearest pixel outside."""
    y = np.clip(rows, 0, grey.shape[0] - 1.001)
    x = np.clip(columns, 0, grey.shape[1] - 1.001)
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, right = y - top, x - left
    flat, start = grey.reshape(-1), top * grey.shape[1] + left
    above = flat[start] * (1 - right) + flat[start + 1] * right
    start += grey.shape[1]
    below = flat[start] * (1 - right) + flat[start + 1] * right
    return above * (1 - down) + below * down


class _Thumbnail(NamedTuple):
    grey: Float64  # [h, w] less the mean around; 0 where the person is
    bare: Float64  # [h, w] 0 or 1
    factor: int


def _thumbnail(frame: UInt8, bare: Bool) -> _Thumbnail:
    from scipy import ndimage

    factor = max(1, round(max(frame.shape) / THUMBNAIL))
    ((grey, free),) = _pyramid(frame, bare, factor, levels=1)
    weight = free.astype(np.float64)
    around = ndimage.uniform_filter(grey * weight, 15) / np.maximum(ndimage.uniform_filter(weight, 15), 1e-3)
    return _Thumbnail((grey - around) * weight, weight, factor)


def _searched(first: _Thumbnail, other: _Thumbnail) -> Float64:
    """How far [x, y], in pixels of the frame, the background of one has to go to lie on the other's best."""
    shape = tuple(2 * side for side in first.grey.shape)
    a, am, aa = (np.fft.rfft2(one, shape).conj() for one in (first.grey, first.bare, first.grey**2))
    b, bm, bb = (np.fft.rfft2(one, shape) for one in (other.grey, other.bare, other.grey**2))
    both, ab, a_sum, b_sum, a_squares, b_squares = np.fft.irfft2(
        np.stack([am * bm, a * b, a * bm, am * b, aa * bm, am * bb]), shape
    )
    both = np.maximum(both, 1e-6)
    covariance = ab - a_sum * b_sum / both
    spread = (a_squares - a_sum**2 / both) * (b_squares - b_sum**2 / both)
    score = np.where(both > 0.3 * both.max(), covariance / np.sqrt(np.maximum(spread, 1e-3)), -1)
    y, x = np.unravel_index(int(np.argmax(score)), shape)
    height, width = shape
    moved = [x - width if x >= width // 2 else x, y - height if y >= height // 2 else y]
    return np.array(moved, np.float64) * first.factor


def _judged(found: list[_Found], width: int) -> tuple[str, str]:
    told = np.array([one.distance for one in found])
    lost = np.array([one.lost for one in found])
    known = np.isfinite(told)
    if lost.sum() > 0.1 * len(found):
        return "moving", (
            f"the camera moves, or the scene changes: in {int(lost.sum())} of {len(found)} frames the background is "
            "not that of the first one; film with the camera on a tripod or a shelf, without cuts"
        )
    usual, most = (float(np.quantile(told[known], 0.95)), float(told[known].max())) if known.any() else (0.0, 0.0)
    still = usual <= max(LEAST, STATIC * width)
    # A pan leaves behind what the first frame shows, and cannot be told from then on: what came before is enough.
    if known.sum() < max(1, 0.3 * len(found)) and (still or known.sum() < FEW_FRAMES):
        return "unknown", "whether the camera moves cannot be told: too little of the background is to be seen"
    if still:
        return "static", f"the camera stands still: the background moves by {usual:.1f} pixels"
    size = f"by {usual:.1f} pixels, at most by {most:.1f}; put it on a tripod or a shelf"
    if usual <= SHAKY * width:
        return "shaky", f"the camera shakes: the background moves {size}"
    return "moving", f"the camera moves: the background goes {size}"
