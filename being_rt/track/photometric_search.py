"""The motion that a held appearance looks most like the frames with: Gauss and Newton's method over all frames."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.reduced import ReducedDataset
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.track.photometric import PhotometricConfig
from being_rt.track.photometric_gate import Landmarks
from being_rt.track.photometric_landmarks import LandmarkLooker
from being_rt.track.photometric_parameters import POSE, Parameters
from being_rt.track.photometric_shoulders import ShouldersLooker
from being_rt.track.photometric_solve import MotionPrior
from being_rt.track.photometric_views import (
    Looker,
    Renderable,
    View,
    chunks,
    face_window,
    make_views,
    packed_row,
    unpacked,
)
from being_rt.track.shoulders import Shoulders
from being_rt.train.tracks import second_differences

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


_SAMPLE = 16  # frames that tell how large differences usually are
_OVERLAP = 12  # frames of the next segment that are solved along
_FIXED = 1e6  # closeness of frames that are solved already, in that of others
_TOGETHER = {"cpu": 2, "cuda": 8}  # frames whose derivatives are drawn at once


class Comparison(NamedTuple):
    """How much T timesteps look like their frames; NaN where there is none."""

    cost: Float64  # [T]
    psnr: Float64  # [T] of the person
    face_psnr: Float64  # [T]


@dataclass(frozen=True)
class Found:
    """The result of :func:`search`. Rows of two are before and after."""

    params: FlameParams  # [T]
    compared: Bool  # [T] timesteps that the first camera shows
    cost: Float64  # [2, T]
    psnr: Float64  # [2, T]
    face_psnr: Float64  # [2, T]
    compare: Callable[[FlameParams], Comparison]  # of any other motion


def search(
    model: Renderable,
    dataset: ReducedDataset,
    given: FlameParams,
    landmarks: Landmarks | None,
    config: PhotometricConfig,
    device: str,
    progress: Callable[[float], None],
    shoulders: Shoulders | None = None,
) -> Found:
    """Refine all timesteps that the first camera shows.

    Raises:
        InvalidParameterError: it shows none.
    """
    run = _Search(model, dataset, given, landmarks, config, device, shoulders)
    total = (config.iterations + 2) * len(run.times)
    done = 0

    def advance(frames: int) -> None:
        nonlocal done
        done += frames
        progress(min(1.0, done / total))

    rows = run.given.copy()
    for start in range(0, len(run.times), config.segment):
        end = min(start + config.segment, len(run.times))
        run.refine(rows, start, end, advance)
    before, after = run.compare(run.given, advance), run.compare(rows, advance)
    progress(1.0)
    return Found(
        params=unpacked(rows, given.fps),
        compared=np.isfinite(before.cost),
        cost=np.stack([before.cost, after.cost]),
        psnr=np.stack([before.psnr, after.psnr]),
        face_psnr=np.stack([before.face_psnr, after.face_psnr]),
        compare=lambda params: run.compare(packed_row(params), lambda frames: None),
    )


class _Search:
    """The work of :func:`search`."""

    def __init__(
        self,
        model: Renderable,
        dataset: ReducedDataset,
        given: FlameParams,
        landmarks: Landmarks | None,
        config: PhotometricConfig,
        device: str,
        shoulders: Shoulders | None,
    ) -> None:
        self.dataset, self.config = dataset, config
        own = np.flatnonzero(dataset.camera_index == 0)
        if not len(own):
            raise InvalidParameterError(f"{dataset.path} has no frame of its first camera, which a track is refined by")
        self.times, first = np.unique(dataset.timestep[own].astype(np.int64), return_index=True)
        self.frames = own[first].astype(np.int64)
        self.params, self.given = given, packed_row(given)
        self.parameters = Parameters.of(dataset.rig, given, config.expressions)
        self.window = face_window(dataset, given)
        self.together = _TOGETHER[device.partition(":")[0]]
        self.looker = Looker(model, dataset, self.parameters.columns, self.parameters.steps, device)
        self.landmarks = None
        if landmarks is not None:
            assert dataset.original is not None
            self.landmarks = LandmarkLooker(
                landmarks,
                dataset.rig,
                dataset.original.cameras[0],
                self.given,
                self.parameters.columns,
                self.parameters.steps,
                config.landmarks,
                config.openings,
                device,
            )
        self.shoulders = None
        if shoulders is not None:
            full = (dataset.original or dataset).cameras[0]
            self.shoulders = ShouldersLooker(shoulders, dataset.rig, full, self.given, self.parameters.columns)
        self.acceleration = second_differences(given, self.times)
        self._latest: tuple[slice, tuple[View, View]] | None = None
        self.scales = self._usual_differences()

    def refine(self, rows: Float64, start: int, end: int, advance: Callable[[int], None]) -> None:
        """Refine the frames ``start`` to ``end``, in place, those before them as they are."""
        before, after = max(0, start - 2), min(end + (_OVERLAP if end < len(self.times) else 0), len(self.times))
        part = slice(before, after)
        times, own = self.times[part], self.parameters
        views = self._segment_views(part)
        x = rows[np.ix_(times, own.columns)]
        closeness = np.tile(own.correction**-2.0, (len(x), 1))
        given = self.given[np.ix_(times, own.columns)]
        given[: start - before] = x[: start - before]
        closeness[: start - before] *= _FIXED
        bends = self.acceleration[before : max(before, after - 2)]
        prior = MotionPrior(given, closeness, own.acceleration**-2.0, bends)
        for _ in range(self.config.iterations):
            hessian, gradient = self._equations(views, rows, times, x, advance)
            x = own.limited(x + prior.step(x, hessian, gradient), given)
        solved = slice(start - before, end - before)
        rows[np.ix_(times[solved], own.columns)] = x[solved]

    def compare(self, rows: Float64, advance: Callable[[int], None]) -> Comparison:
        """How much a motion [T, 120] looks like the frames."""
        result = np.full((3, len(rows)), np.nan)
        for segment in chunks(len(self.times), self.config.segment):
            views = self._segment_views(segment)
            for part in chunks(len(self.times[segment]), 8 * self.together):
                times = self.times[segment][part]
                cost = np.zeros(len(times))
                errors, weights = np.zeros((2, 2, len(times)))
                for i, (view, scale) in enumerate(zip(views, self.scales, strict=True)):
                    look = self.looker.look(view, np.arange(part.start, part.stop), rows[times], False)
                    squares = look.residual.square()
                    limit = (self.config.outlier * scale) ** 2
                    robust = squares / (1 + squares / limit) / scale**2
                    cost += (look.weight * robust).sum(1).double().cpu().numpy()
                    errors[i] = (look.weight * squares).sum(1).double().cpu().numpy()
                    weights[i] = look.weight.sum(1).double().cpu().numpy()
                result[0, times] = cost
                result[1, times] = _decibels(errors.sum(0), weights.sum(0))
                result[2, times] = _decibels(errors[1], weights[1])
                advance(len(times))
        return Comparison(*result)

    def _equations(
        self, views: tuple[View, View], rows: Float64, times: Int64, x: Float64, advance: Callable[[int], None]
    ) -> tuple[Float64, Float64]:
        """Gauss and Newton's matrices [n, P, P] and gradients [n, P] of frames at parameters x [n, P]."""
        count, columns = x.shape
        hessian, gradient = np.zeros((count, columns, columns)), np.zeros((count, columns))
        for part in chunks(count, self.together):
            index = np.arange(part.start, part.stop)
            motion = rows[times[part]]
            motion[:, self.parameters.columns] = x[part]
            for view, scale in zip(views, self.scales, strict=True):
                look = self.looker.look(view, index, motion, True)
                limit = (self.config.outlier * scale) ** 2
                robust = (1 + look.residual.square() / limit) ** -2 / (scale**2 * self.config.area)
                own, pull = look._replace(weight=look.weight * robust).equations()
                hessian[np.ix_(index, view.columns, view.columns)] += own
                gradient[np.ix_(index, view.columns)] += pull
            if self.landmarks is not None:
                own, pull = self.landmarks.look(times[part], motion).equations()
                hessian[part] += own
                gradient[part] += pull
            if self.shoulders is not None:
                own, pull = self.shoulders.equations(times[part], motion, columns)
                hessian[part] += own
                gradient[part] += pull
            advance(len(index))
        return hessian, gradient

    def _usual_differences(self) -> tuple[float, float]:
        """Root mean square differences of a pixel in each view, of frames all over the clip."""
        chosen = np.unique(np.linspace(0, len(self.times) - 1, _SAMPLE).round().astype(np.int64))
        views = self._views(chosen)
        result = []
        for view in views:
            look = self.looker.look(view, np.arange(len(chosen)), self.given[self.times[chosen]], False)
            squares = (look.weight * look.residual.square()).sum() / look.weight.sum().clamp(min=1e-6)
            result.append(max(math.sqrt(float(squares)), 1 / 255))
        return result[0], result[1]

    def _segment_views(self, part: slice) -> tuple[View, View]:
        """Views of frames in a row, kept until others are asked for: a clip of one segment is read once."""
        if self._latest is None or self._latest[0] != part:
            self._latest = None  # never two segments in memory
            self._latest = part, self._views(part)
        return self._latest[1]

    def _views(self, part: slice | Int64) -> tuple[View, View]:
        own = self.parameters
        return make_views(
            self.dataset, self.times[part], self.frames[part], self.params, self.window,
            own.chosen(*POSE), len(own.columns), self.config.busy,
        )  # fmt: skip


def _decibels(error: Float64, weight: Float64) -> Float64:
    return -10 * np.log10(np.maximum(error, 1e-12) / np.maximum(weight, 1e-12))
