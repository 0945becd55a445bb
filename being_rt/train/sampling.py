"""Which frames, and which parts of them, a step sees: a function of seed and step alone, so a run resumes anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.train.config import FeedConfig

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

WEIGHTED = ("mouth", "left_eye", "right_eye")  # regions whose boxes a batch carries
COLUMNS = 9 + 4 * len(WEIGHTED)  # of a batch's rows, see Sampler.rows
CHANCE = 8  # the column of the number for whatever else is random
# How often a window looks at what. The face is most of what people look at; the mouth is what moves.
FOCUS = {"face": 0.4, "mouth": 0.2, "left_eye": 0.05, "right_eye": 0.05, "body": 0.3}
_ORDER, _BATCH = 0, 1  # keys of independent streams of random numbers


@dataclass(frozen=True)
class View:
    """A kind of picture that steps see. All steps of a view have tensors of the same shapes."""

    size: tuple[int, int]  # width, height
    reduction: int  # how many pixels of the frame one of its pixels is wide
    windowed: bool  # a part of the frame, or all of it

    @property
    def name(self) -> str:
        kind = "window" if self.windowed else "whole"
        return f"{kind} {self.size[0]}x{self.size[1]}"


def make_views(config: FeedConfig, size: tuple[int, int]) -> tuple[View, ...]:
    """The views of frames of ``size``: whole frames first, windows second where there are any.

    Raises:
        InvalidParameterError: the frame is too small to be reduced.
    """
    width, height = min(config.window[0], size[0]), min(config.window[1], size[1])
    foveated = config.crops == "foveated" or (
        config.crops == "auto" and size[0] * size[1] > 2 * config.window[0] * config.window[1]
    )
    if not foveated:
        return (View(size, 1, False),)
    reduced = size[0] // config.reduction, size[1] // config.reduction
    if min(reduced) < 16:
        raise InvalidParameterError(f"frames of {size[0]}x{size[1]} are too small for feed.crops foveated: use whole")
    return View(reduced, config.reduction, False), View((width, height), 1, True)


class Sampler:
    """Draws batches. Every frame is seen once before any is seen again, in an order that is new each time.

    Args:
        config: which views there are and how often.
        size: width, height of the frames, all the same.
        timestep, camera: int32 [n], of the training frames.
        boxes: float32 [n, 4] px per name of ``FOCUS``: left, top, right, bottom; NaN where unknown.
        seed, batch: of the run; ``batch`` over all ranks.
        rank, ranks: the share that :meth:`rows` returns.

    Raises:
        InvalidParameterError: there are no frames, or the batch cannot be shared evenly.
    """

    def __init__(
        self,
        config: FeedConfig,
        size: tuple[int, int],
        timestep: Int32,
        camera: Int32,
        boxes: Mapping[str, Float32],
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if not len(timestep):
            raise InvalidParameterError("the dataset has no training frames; its split 'train' is empty")
        if batch % ranks:
            raise InvalidParameterError(f"schedule.batch must be a multiple of {ranks} GPUs, got {batch}")
        self.config, self.size, self.views = config, size, make_views(config, size)
        self.batch, self.share = batch, slice(rank * batch // ranks, (rank + 1) * batch // ranks)
        self._timestep, self._camera, self._seed = timestep, camera, seed
        whole = np.array([0, 0, *size], np.float32)
        self._boxes = np.stack([np.where(np.isfinite(boxes[name]), boxes[name], whole) for name in FOCUS], axis=1)
        self._shares = np.cumsum(list(FOCUS.values())) / sum(FOCUS.values())
        self._weighted = np.stack([np.nan_to_num(boxes[name], nan=0.0) for name in WEIGHTED], axis=1)
        self._permutation = lru_cache(maxsize=4)(self._shuffled)

    @property
    def local_batch(self) -> int:
        """Frames per step of this rank."""
        return self.share.stop - self.share.start

    def view(self, step: int, progress: float) -> View:
        """What a step sees, at ``progress`` 0..1 of the run: whole frames first, then windows in an even mix."""
        if len(self.views) == 1 or progress < self.config.whole_until:
            return self.views[0]
        share = self.config.window_share
        return self.views[int((step + 1) * share) > int(step * share)]

    def frames(self, step: int) -> NDArray[np.int64]:
        """The training frames [batch] of a step, by position."""
        epoch, place = np.divmod(step * self.batch + np.arange(self.batch), len(self._timestep))
        if epoch[0] == epoch[-1]:
            return self._permutation(int(epoch[0]))[place]
        return np.array([self._permutation(int(e))[p] for e, p in zip(epoch, place, strict=True)])

    def rows(self, step: int, view: View) -> Float32:
        """What this rank needs to know of its frames of a step: float32 [local batch, COLUMNS].

        Columns: frame (position among the training frames), timestep, camera, left and top of the crop in its own
        pixels, a random background colour, a number 0..1 for whatever else is random, then the boxes of ``WEIGHTED`` in
        pixels of the crop.
        """
        drawn = self._random(_BATCH, step).random((self.batch, 9))
        frame = self.frames(step)
        rows = np.zeros((self.batch, COLUMNS))
        rows[:, 0], rows[:, 1], rows[:, 2] = frame, self._timestep[frame], self._camera[frame]
        if view.windowed:
            focus = np.minimum(np.searchsorted(self._shares, drawn[:, 0]), len(FOCUS) - 1)
            box = self._boxes[frame, focus]
            # A point of the box, somewhere in the middle half of the window.
            point = box[:, :2] + drawn[:, 1:3] * (box[:, 2:] - box[:, :2])
            start = np.round(point - np.array(view.size) * (0.25 + 0.5 * drawn[:, 3:5]))
            rows[:, 3:5] = np.clip(start, 0, np.array(self.size) - view.size)
        rows[:, 5:9] = drawn[:, 5:9]
        corner = rows[:, [3, 4, 3, 4]]
        rows[:, 9:] = (self._weighted[frame] / view.reduction - corner[:, None]).reshape(self.batch, -1)
        return rows[self.share].astype(np.float32)

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return self._random(_ORDER, epoch).permutation(len(self._timestep))

    def _random(self, purpose: int, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._seed, purpose], counter=[0, 0, 0, number]))


def evenly(indices: NDArray[Any] | Sequence[int], count: int) -> Int32:
    """At most ``count`` of them, evenly spread, the first and the last among them; 0: all."""
    everything = np.asarray(indices, np.int32)
    if not 0 < count < len(everything):
        return everything
    return everything[np.round(np.linspace(0, len(everything) - 1, count)).astype(np.intp)]
