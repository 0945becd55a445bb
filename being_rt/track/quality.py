"""How good a track is, in figures and in plain words: what fits, what moves, and what to film again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.jitter import jitter
from being_rt.dataset.regions import face_regions, project
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import skin
from being_rt.track.embedding import Embedding
from being_rt.track.fit import Fit
from being_rt.track.fit_landmarks import ALL_SETS, LID_PAIRS, LIP_PAIRS, OVAL
from being_rt.track.observations import Observations

Float64 = NDArray[np.float64]

CLOSED, OPEN = 0.35, 0.7  # of an eye's usual opening: a blink goes below the first from above the second
PARTED = 0.06  # of the distance between the eyes: lips that are farther apart are open
GOOD_ERROR, POOR_ERROR = 1.5, 3.0  # per cent of the distance between the eyes
WIDE, NARROW = 40.0, 15.0  # degrees of yaw, from one side to the other
JAW_LINE = slice(11, 26)  # of the oval; above it hangs the ear
AROUND = 0.025  # metres around a landmark of the jaw's line in which the line may slide
BESIDE = 0.04  # of the distance between the eyes: vertices that may be the outline at a landmark
_FRAMES = 64  # skinned at a time
_OUTLINES = 60  # frames of which the outline is compared


@dataclass(frozen=True)
class Gap:
    """The opening between paired landmarks over time, in parts of the distance between the eyes; [T], NaN: no face."""

    seen: Float64
    fitted: Float64

    @property
    def error(self) -> float:
        """Root mean square of what the track's opening differs by."""
        return float(np.sqrt(np.nanmean((self.fitted - self.seen) ** 2)))

    @property
    def agreement(self) -> float:
        """Correlation of the two; NaN where nothing opens or closes."""
        known = np.isfinite(self.seen) & np.isfinite(self.fitted)
        if known.sum() < 3 or self.seen[known].std() == 0 or self.fitted[known].std() == 0:
            return float("nan")
        return float(np.corrcoef(self.seen[known], self.fitted[known])[0, 1])


@dataclass(frozen=True)
class TrackQuality:
    """Figures of a track of T frames."""

    frames: int
    tracked: int
    empty: int  # frames before the first face and after the last one: the room alone
    lost: tuple[tuple[int, int], ...]  # first and last frame of each run between these that is not tracked
    errors: dict[str, float]  # per set of landmarks: their median, per cent of the distance between the eyes
    error: float  # root mean square over all landmarks in view, median over frames, likewise
    outline: float  # root mean square of what the mesh's jaw line is off the face's, likewise
    lids: Gap
    lips: Gap
    jitter: float  # px, root mean square, of the head's middle from frame to frame beyond smooth motion
    yaw: tuple[float, float]  # degrees, between which the head turns
    pitch: tuple[float, float]
    blinks: int
    blinks_found: int  # of those, how many the track has
    open_share: float  # of the frames, lips apart
    expression: float  # root mean square over frames of what expressions move the face by, millimetres
    focal: float  # px
    focal_deviation: float  # of its logarithm
    sharpness: float  # median


def judge(observations: Observations, fit: Fit, model: FlameModel, embedding: Embedding) -> TrackQuality:
    """Measure a track against what was seen.

    Example::

        quality = judge(observations, fit, model, landmark_embedding(model))
        print(quality.error, *advice(quality), sep="\\n")
    """
    rig = fit.rig(model)
    pixels = _landmark_pixels(rig, embedding, fit.params, fit.camera)
    lids = Gap(*(_gap(points, LID_PAIRS) / fit.unit for points in (observations.landmarks, pixels)))
    lips = Gap(*(_gap(points, LIP_PAIRS) / fit.unit for points in (observations.landmarks, pixels)))
    hidden = ~(fit.tracked & observations.found)
    for gap in (lids, lips):
        gap.seen[hidden] = np.nan
        gap.fitted[hidden] = np.nan
    rotation = matrices(fit.params.rotation[fit.tracked])
    turned = np.degrees(np.arctan2(rotation[:, 0, 2], rotation[:, 2, 2]))
    nodded = np.degrees(np.arcsin(np.clip(-rotation[:, 1, 2], -1, 1)))
    there = np.logical_or.accumulate(observations.found) & np.logical_or.accumulate(observations.found[::-1])[::-1]
    seen_blinks, found_blinks = _blinks(lids.seen), _blinks(lids.fitted)
    shown = fit.params.expression.astype(np.float64) @ _face_basis(rig).T
    return TrackQuality(
        frames=len(observations),
        tracked=int(fit.tracked.sum()),
        empty=len(observations) - int(there.sum()),
        lost=_runs(there & ~fit.tracked),
        errors={
            group.name: 100 * _median(fit.per_landmark[:, list(group.ids)].astype(np.float64)) / fit.unit
            for group in ALL_SETS
            if not group.contour
        },
        error=100 * _median(fit.error.astype(np.float64)) / fit.unit,
        outline=100 * _outline_error(rig, embedding, fit, observations) / fit.unit,
        lids=lids,
        lips=lips,
        jitter=_jitter(fit.params, rig, fit.camera),
        yaw=_range(turned),
        pitch=_range(nodded),
        blinks=len(seen_blinks),
        blinks_found=sum(any(abs(a - b) <= 2 for b in found_blinks) for a in seen_blinks),
        open_share=float(np.nanmean(lips.seen > PARTED)) if np.isfinite(lips.seen).any() else 0.0,
        expression=1e3 * float(np.sqrt(np.mean((shown - shown.mean(0)) ** 2) * 3)),
        focal=float(fit.camera.intrinsics[0, 0]),
        focal_deviation=fit.focal_deviation,
        sharpness=_median(observations.sharpness.astype(np.float64)),
    )


def advice(quality: TrackQuality, *, static: bool = True, known: float = 1.0) -> list[str]:
    """What to film again, in plain words; nothing where nothing is wrong.

    Args:
        quality: from :func:`judge`.
        static: whether the camera stood still.
        known: share of the background that some frame shows.
    """
    said = []
    if not static:
        said.append("Put the camera on something that does not move; the shoulders will shake otherwise.")
    share = quality.tracked / max(quality.frames - quality.empty, 1)
    if share < 0.99:
        said.append(
            f"The face was lost in {100 * (1 - share):.0f} % of the frames: keep it in the picture, nothing before it, "
            "and turn less far."
        )
    width = quality.yaw[1] - quality.yaw[0]
    if width < NARROW:
        said.append(
            f"The head turns by {width:.0f} degrees only: its depth and the focal length are little more than guesses. "
            f"Look slowly to both sides, {WIDE / 2:.0f} degrees each."
        )
    elif width < WIDE:
        said.append(f"The head turns by {width:.0f} degrees; {WIDE:.0f} would show ears and cheeks better.")
    if quality.error > POOR_ERROR:
        said.append("The mesh fits poorly: film in even light, without glasses that mirror, with hair off the face.")
    if quality.blinks < 2:
        said.append("There are hardly any blinks: blink a few times, and close the eyes once for a second.")
    if quality.open_share < 0.1:
        said.append("The mouth hardly opens: talk, and show the teeth once in a broad smile.")
    if quality.expression < 0.6:
        said.append("The face hardly moves: smile, raise the brows, pout, frown; a second each.")
    if known < 0.6:
        said.append(
            f"Only {100 * known:.0f} % of the background is ever seen. Two seconds of the empty room would show it all."
        )
    return said


def _landmark_pixels(rig: Rig, embedding: Embedding, params: FlameParams, camera: Camera) -> Float64:
    """[T, 478, 2] where the track puts the landmarks; NaN of those that the embedding lacks."""
    result = np.full((len(params), len(embedding.face), 2), np.nan)
    for start in range(0, len(params), _FRAMES):
        vertices = skin(rig, params[start : start + _FRAMES])
        points = embedding.points(vertices.astype(np.float64), rig.faces)
        result[start : start + _FRAMES] = project(points, camera)[0]
    result[:, ~embedding.found] = np.nan
    return result


def _outline_error(rig: Rig, embedding: Embedding, fit: Fit, observations: Observations) -> float:
    """How far the mesh's jaw line lies from its landmarks in the picture, px, root mean square; NaN without a frame.

    Along the line's normal, beside each landmark, from it to the last of the face's vertices around where the landmark
    is embedded; whichever vertex that is, for the line that is seen slides over the skin as the head turns.
    """
    frames = np.flatnonzero(fit.tracked & observations.found)
    frames = frames[:: max(1, len(frames) // _OUTLINES)]
    face, line = face_regions(rig)["face"], np.array(OVAL)[JAW_LINE]
    middles = embedding.points(rig.template.astype(np.float64), rig.faces)[line]
    around = np.linalg.norm(rig.template[face] - middles[:, None], axis=-1) < AROUND  # [15, n]
    around &= embedding.found[line][:, None]
    oval = observations.landmarks[:, list(OVAL), :2].astype(np.float64)
    along = np.roll(oval, -1, 1) - np.roll(oval, 1, 1)
    along = (along / np.linalg.norm(along, axis=-1, keepdims=True))[:, JAW_LINE]
    outwards = along[..., ::-1] * [1.0, -1.0]
    squares = [np.zeros(0)]
    for frame in frames.tolist():
        pixels, _ = project(skin(rig, fit.params[frame : frame + 1])[0, face], fit.camera)
        away = pixels - oval[frame, JAW_LINE, None]  # [15, n, 2]
        beside = np.abs(np.einsum("kna,ka->kn", away, along[frame])) < BESIDE * fit.unit
        last = np.where(around & beside, np.einsum("kna,ka->kn", away, outwards[frame]), -np.inf).max(1)
        squares.append(last[np.isfinite(last)] ** 2)
    every = np.concatenate(squares)
    return float(np.sqrt(every.mean())) if len(every) else float("nan")


def _gap(points: NDArray[np.floating], pairs: Sequence[tuple[int, int]]) -> Float64:
    """Mean distance [T] between paired landmarks of [T, 478, 2 or 3], px."""
    upper, lower = (points[:, list(ids), :2].astype(np.float64) for ids in zip(*pairs, strict=True))
    distance: Float64 = np.linalg.norm(upper - lower, axis=-1)
    known = np.isfinite(distance)
    total = np.where(known, distance, 0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


def _blinks(gap: Float64) -> list[int]:
    """The frames in which eyes are shut most, one per blink."""
    known = gap[np.isfinite(gap)]
    if not len(known):
        return []
    usual = float(np.quantile(known, 0.8))
    found, lowest = [], -1
    for frame, value in enumerate(gap):
        if not np.isfinite(value):
            continue
        if value < CLOSED * usual and (lowest < 0 or value < gap[lowest]):
            lowest = frame
        elif value > OPEN * usual and lowest >= 0:
            found.append(lowest)
            lowest = -1
    return found if lowest < 0 else [*found, lowest]


def _jitter(params: FlameParams, rig: Rig, camera: Camera) -> float:
    joint = rig.joint_rest[1].astype(np.float64)
    head = joint + np.array([0, 0.08, 0.06])  # about the middle of the face
    origin = rig.joint_rest[0].astype(np.float64)
    world = matrices(params.rotation) @ (head - origin) + origin + params.translation
    pixels, _ = project(world, camera)
    return jitter(pixels)


def _face_basis(rig: Rig) -> Float64:
    """Expression basis [3 n, 100] of vertices that expressions move."""
    basis = rig.expression_basis.astype(np.float64)
    reach = np.linalg.norm(basis, axis=(1, 2))
    return basis[reach > 0.1 * reach.max()].reshape(-1, basis.shape[2])


def _runs(flags: NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return tuple((int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _median(values: Float64) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _range(degrees: Float64) -> tuple[float, float]:
    low, high = np.quantile(degrees, [0.02, 0.98]) if len(degrees) else (0.0, 0.0)
    return float(low), float(high)
