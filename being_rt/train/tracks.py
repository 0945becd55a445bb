"""The motion that training starts from and refines: per frame what the face does, once for all what the camera is.

Two things are done to a given track. Before training, :func:`steady` takes what is fast out of the translation, which
carries the shoulders, and lets the neck lean instead: trackers find the head, and put their noise, and often what its
turns move, into the translation. During training, :class:`Tracks` adds corrections that follow the pictures, cost
something where they leave the given track, and cost more where the motion is not smooth in time.

The result is FlameParams again, with the meaning that every avatar and driver gives them, so the engine needs to know
nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import Camera
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import axis_angles, quaternion_matrices, quaternions, slerp
from being_rt.motion.behaviour import NECK_SHARE
from being_rt.ops.tracks import TrackConstants, correct_tracks, gather_motion, track_costs
from being_rt.train.config import TrackConfig

Float64 = NDArray[np.float64]


class _Unit(NamedTuple):
    """What counts as a correction, and as a jerk, of size 1; and how freely the parameter may have either."""

    correction: float
    acceleration: float  # second difference between frames at 25 fps
    closeness: float
    smoothness: float


# Corrections: about the error of a good monocular tracker. Accelerations: of the translation, what a sitting person's
# shoulders do between two frames, so that noise is far above it; of all else, what speech needs, which is free.
_UNITS = {
    "expression": _Unit(0.3, 0.5, 1e-4, 1e-5),
    "rotation": _Unit(0.01, 0.01, 2e-4, 1e-5),
    "neck": _Unit(0.01, 0.01, 2e-4, 1e-5),
    "jaw": _Unit(0.03, 0.05, 2e-4, 1e-5),
    "eyes": _Unit(0.05, 0.1, 2e-4, 1e-6),
    "translation": _Unit(0.003, 0.0003, 2e-4, 1e-4),
    "eyelids": _Unit(0.1, 0.3, 2e-4, 1e-6),
}
CUT_TURN, CUT_MOVE = 0.35, 0.05  # radians, metres between two frames: more is a cut, and nothing is smoothed across it
UNUSED_NECK = 1e-6  # radians
LEAN = 0.25  # radians that the neck's lower end may lean to keep the body still
BODY_SECONDS = 0.25  # low-pass on the translation where the neck is unused: shoulders follow a neck, not its noise
DEPTH_SECONDS = 0.15  # on the head's distance from the camera, which a picture hardly shows and a tracker guesses
ALONG_SECONDS = 0.08  # on what leaning cannot absorb, motion along the neck: two frames at 25 fps
GAP_SECONDS = 0.5  # between frames whose corrections say what is right in between


# Where a field of FlameParams is in a row [120] that has them all, in their order.
COLUMNS = {
    name: slice(end - width, end)
    for (name, width), end in zip(WIDTHS.items(), np.cumsum(list(WIDTHS.values())).tolist(), strict=True)
}
_MOTION = {"expression": 100, "axis_angles": 15, "translation": 3, "eyelids": 2}  # the fields of Motion in such a row


class Motion(NamedTuple):
    """What the face does in B frames."""

    expression: Tensor  # [B, 100]
    axis_angles: Tensor  # [B, 5, 3]
    eyelids: Tensor  # [B, 2]
    translation: Tensor  # [B, 3]


class Tracks:
    """The tracks of a dataset with corrections as leaf tensors, refined together with the avatar.

    A correction of T timesteps is a tensor [T, width]; those that no training frame shows have none. What is slow in
    the corrections is taken out (:func:`slow_part`): errors that a tracker makes all the time, or whenever a head looks
    that way, it makes in held-out frames and in motions to come as well, so that is what the avatar has to live with.

    Args:
        params: the given tracks, one row per timestep.
        trained: int [n], the timesteps that training frames show.
        config: which parameters have corrections, and at what cost.
        device: of the tensors.
        dtype: float32; float64 in tests.

    Raises:
        InvalidParameterError: ``trained`` is empty.

    Example::

        params = steady(dataset.params, dataset.rig, dataset.cameras[0])
        tracks = Tracks(params, dataset.timestep[train], config.tracks, "cuda")
        sequence = tracks.sequence()
        motion = tracks.gather(sequence, timestep)  # of a batch
        loss = loss + sum(tracks.terms(sequence).values())
    """

    def __init__(
        self,
        params: FlameParams,
        trained: NDArray[np.int32],
        config: TrackConfig,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if len(trained) == 0:
            raise InvalidParameterError("the dataset has no training frames; its split 'train' is empty")
        self.config = config
        self.fps = params.fps
        count = len(params)
        self.leaves: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, ...]] = {f"tracks.{name}": (count, width) for name, width in WIDTHS.items()}
        shapes |= {"camera.focal": (1,), "camera.principal": (2,)}
        for name, shape in shapes.items():
            if config.refine and getattr(config, name.partition(".")[2]) > 0:
                self.leaves[name] = torch.zeros(shape, dtype=dtype, device=device).requires_grad_()
        self._uncorrected = {
            name: torch.zeros(count, width, dtype=dtype, device=device)
            for name, width in WIDTHS.items()
            if f"tracks.{name}" not in self.leaves
        }
        times = np.unique(trained).astype(np.int64)
        acceleration = second_differences(params, times)
        slow = slow_part(times, config.slow_seconds * params.fps, count) if config.slow_seconds > 0 else None
        given = torch.tensor(packed(params), dtype=dtype, device=device)
        factors = self._factors(count, len(acceleration))
        self._constants = TrackConstants.of(given, times, acceleration, *factors, slow)

    def learning_rates(self, progress: float) -> dict[str, float]:
        """By the names of ``leaves``, at ``progress`` 0..1 of the run: 0 before the start, then a cosine."""
        if progress < self.config.start:
            return dict.fromkeys(self.leaves, 0.0)
        through = (progress - self.config.start) / max(1 - self.config.start, 1e-9)
        factor = self.config.end + (1 - self.config.end) * 0.5 * (1 + np.cos(np.pi * min(1.0, through)))
        return {name: float(factor * getattr(self.config, name.partition(".")[2])) for name in self.leaves}

    def sequence(self) -> Tensor:
        """All timesteps [T, 120], corrected and differentiable; :data:`COLUMNS` says what they are."""
        if len(self._uncorrected) == len(WIDTHS):
            return self._constants.given
        everything = self._uncorrected | {name.partition(".")[2]: leaf for name, leaf in self.leaves.items()}
        return correct_tracks(self._constants, [everything[name] for name in WIDTHS])

    def gather(self, sequence: Tensor, timestep: Tensor) -> Motion:
        """The rows of a batch, timestep int64 [B]."""
        row = dict(zip(_MOTION, gather_motion(sequence, timestep, list(_MOTION.values())), strict=True))
        return Motion(**row | {"axis_angles": row["axis_angles"].unflatten(1, (5, 3))})

    def intrinsics(self, base: Tensor, reduction: int) -> Tensor:
        """Intrinsics [B, 6] of crops, ``base`` as given, with the shared camera's corrections.

        ``reduction``: how many pixels of the camera one pixel of the crop is wide.
        """
        focal, principal = self.leaves.get("camera.focal"), self.leaves.get("camera.principal")
        if focal is None and principal is None:
            return base
        lengths, centre, limits = base.split(2, dim=1)
        lengths = lengths if focal is None else lengths * focal.exp()
        centre = centre if principal is None else centre + principal / reduction
        return torch.cat([lengths, centre, limits], dim=1)

    def terms(self, sequence: Tensor) -> dict[str, Tensor]:
        """What the corrections cost: mean over time of squares in natural units, weights applied. Scalars by name.

        Smoothness is that of the training timesteps, with the time between them as it is.
        """
        return track_costs(self._constants, sequence)._asdict()

    def _factors(self, count: int, triples: int) -> tuple[Float64, Float64]:
        """What columns [120] of changes, and of accelerations, are multiplied by so that their squares are costs."""
        factors = np.zeros((2, sum(WIDTHS.values())))
        for name, column in COLUMNS.items():
            if f"tracks.{name}" in self.leaves:
                unit, config = _UNITS[name], self.config
                factors[0, column] = np.sqrt(config.closeness * unit.closeness / count) / unit.correction
                factors[1, column] = np.sqrt(config.smoothness * unit.smoothness / max(triples, 1)) / unit.acceleration
        return factors[0], factors[1]

    def params(self) -> FlameParams:
        """The refined motion, all timesteps.

        Between training frames that are at most half a second apart it goes on smoothly: what they are corrected by,
        interpolated. That is for whoever plays the motion; :meth:`sequence`, which is what is drawn, has it not.
        """
        with torch.no_grad():
            values = self.sequence().cpu().numpy().copy()
        shown = self._constants.times.cpu().numpy()
        rest = np.setdiff1d(np.arange(shown[0], shown[-1]), shown)
        after = np.searchsorted(shown, rest)
        rest = rest[shown[after] - shown[after - 1] <= GAP_SECONDS * self.fps]
        correction = values - self._constants.given.cpu().numpy()
        for column in range(correction.shape[1]):
            values[rest, column] += np.interp(rest, shown, correction[shown, column])
        return FlameParams(**{name: values[:, columns] for name, columns in COLUMNS.items()}, fps=self.fps)

    def camera(self, camera: Camera) -> Camera:
        """A camera of the dataset with the refined focal length and principal point."""
        matrix = camera.intrinsics.astype(np.float64)
        if "camera.focal" in self.leaves:
            matrix[[0, 1], [0, 1]] *= float(self.leaves["camera.focal"].detach().exp())
        if "camera.principal" in self.leaves:
            matrix[:2, 2] += self.leaves["camera.principal"].detach().cpu().numpy()
        return Camera(camera.world_to_camera, matrix.astype(np.float32), camera.size)


def packed(params: FlameParams) -> NDArray[np.float32]:
    """All fields side by side, float32 [T, 120]; see :data:`COLUMNS`."""
    return np.concatenate([getattr(params, name) for name in WIDTHS], axis=1)


def slow_part(times: NDArray[np.int64], spacing: float, count: int) -> tuple[Float64, Float64]:
    """What is slow in a motion: its least-squares fit by straight lines between knots, ``H (A x)``.

    Args:
        times: int [n], the timesteps that count, sorted.
        spacing: timesteps between knots, at most; as many as there are times: their mean.
        count: T timesteps in all.

    Returns:
        H [T, K], from knots to timesteps, and A [K, T], the least-squares values of the knots.
    """
    knots = max(1, int(np.ceil((times[-1] - times[0]) / spacing)) + 1) if spacing < times[-1] - times[0] else 1
    place = np.linspace(times[0], times[-1], knots)
    width = place[1] - place[0] if knots > 1 else np.inf
    hats = np.maximum(0.0, 1 - np.abs(np.arange(count)[:, None] - place) / width)
    weights = np.zeros((knots, count))
    weights[:, times] = np.linalg.pinv(hats[times])
    return hats, weights


# ------------------------------------------------------------------------------------------------------ a steady body


def steady(params: FlameParams, rig: Rig, camera: Camera, seconds: float = -1.0) -> FlameParams:
    """The same motion of the head on shoulders that move slowly.

    The translation goes through a low-pass. The neck's lower end then leans (by at most 14 degrees) so that the neck
    joint is where it was, and the neck joint turns so that the head looks where it did. What leaning cannot absorb,
    motion along the neck, stays in the translation, without what is faster than some two frames; that, and what is fast
    in the distance from the camera, is all that is lost.

    A track that leaves the neck unused has the head's whole turn in the global joint, and what the turn moves in the
    translation: most of the turn goes to the neck joint first, as drivers have it.

    Args:
        params: any motion.
        rig: of the person.
        camera: that saw it.
        seconds: standard deviation of the low-pass. 0: ``params`` as they are. -1: 0.25 where the neck is unused,
            because then nobody tracked a body; else 0, for refinement takes the noise out and loses less of the motion.

    Example::

        settled = steady(dataset.params, dataset.rig, dataset.cameras[0])
    """
    if seconds == 0:
        return params
    unused = np.abs(params.neck).max() < UNUSED_NECK
    if seconds < 0 and not unused:
        return params
    width = BODY_SECONDS if seconds < 0 else seconds
    axis = camera.world_to_camera[2, :3].astype(np.float64)
    parts = [params[cut] for cut in _takes(params)]
    return FlameParams.concatenate([_steady_take(part, rig, axis, bool(unused), width) for part in parts])


def _steady_take(params: FlameParams, rig: Rig, axis: Float64, unused: bool, seconds: float) -> FlameParams:
    joints = rig.joint_rest + np.einsum("jce,te->tjc", rig.joint_expression, params.expression, dtype=np.float64)
    base, bone = joints[:, 0], joints[:, 1] - joints[:, 0]
    turn = quaternions(params.rotation)
    head = _product(turn, quaternions(params.neck))
    pivot = _turned(turn, bone) + params.translation + base  # where the neck joint is, and stays
    depth = (pivot @ axis)[:, None]
    pivot = pivot + (_low_pass(depth, DEPTH_SECONDS * params.fps) - depth) * axis

    if unused:
        turn = quaternions(slerp(np.zeros((len(params), 3)), axis_angles(head), np.full(len(params), 1 - NECK_SHARE)))
    upright = _turned(turn, bone)
    moved = _low_pass(pivot - upright - base, seconds * params.fps)
    leaning = _product(_shortest(upright, pivot - base - moved), turn)
    left = pivot - base - moved - _turned(leaning, bone)
    moved = moved + _low_pass(left, min(ALONG_SECONDS, seconds) * params.fps)
    neck = _product(leaning * [1, -1, -1, -1], head)
    return params.replace(rotation=axis_angles(leaning), neck=axis_angles(neck), translation=moved)


def _takes(params: FlameParams) -> Iterator[slice]:
    """Runs of frames without a cut."""
    turned = np.linalg.norm(axis_angles(_change(params)), axis=1)
    moved = np.linalg.norm(np.diff(params.translation, axis=0), axis=1)
    ends = [*(np.flatnonzero((turned > CUT_TURN) | (moved > CUT_MOVE)) + 1), len(params)]
    start = 0
    for end in ends:
        yield slice(start, int(end))
        start = int(end)


def second_differences(params: FlameParams, times: NDArray[np.int64]) -> Float64:
    """Weights [n - 2, 3] of each three timesteps in a row that give the second derivative, in 1/25 s.

    0 where a cut, or more than half a second, lies between them.
    """
    if len(times) < 3:
        return np.zeros((0, 3))
    seconds = np.diff(times) / params.fps
    before, after = 25 * seconds[:-1], 25 * seconds[1:]
    weights = 2 * np.stack([1 / before, -1 / before - 1 / after, 1 / after], axis=1) / (before + after)[:, None]
    take = np.zeros(len(params), np.int64)
    for start in _takes(params):
        take[start] = start.start
    whole = (take[times[:-2]] == take[times[2:]]) & (np.maximum(seconds[:-1], seconds[1:]) <= GAP_SECONDS)
    return weights * whole[:, None]


def _change(params: FlameParams) -> Float64:
    """The head's turn from each frame to the next, as quaternions [T - 1, 4]."""
    head = _product(quaternions(params.rotation), quaternions(params.neck))
    return _product(head[1:], head[:-1] * [1, -1, -1, -1])


def _low_pass(values: Float64, width: float) -> Float64:
    """[T, n] under a Gaussian of ``width`` frames; the first and the last value go on beyond the ends."""
    if width <= 0:
        return values
    radius = min(int(np.ceil(3 * width)), 4 * len(values))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="edge")
    return np.stack([np.convolve(column, kernel, mode="valid") for column in padded.T], axis=1)


def _product(a: Float64, b: Float64) -> Float64:
    """Hamilton's product of quaternions [T, 4]: the rotation b, then the rotation a."""
    real = a[:, :1] * b[:, :1] - np.sum(a[:, 1:] * b[:, 1:], axis=1, keepdims=True)
    return np.concatenate([real, a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + np.cross(a[:, 1:], b[:, 1:])], axis=1)


def _turned(quaternion: Float64, vector: Float64) -> Float64:
    return np.einsum("tij,tj->ti", quaternion_matrices(quaternion), vector)


def _shortest(start: Float64, end: Float64) -> Float64:
    """Quaternions of the shortest rotations that take directions [T, 3] to others, by at most ``LEAN``."""
    a = start / np.linalg.norm(start, axis=1, keepdims=True)
    b = end / np.maximum(np.linalg.norm(end, axis=1, keepdims=True), 1e-12)
    half = np.concatenate([1 + np.sum(a * b, axis=1, keepdims=True), np.cross(a, b)], axis=1)
    vector = axis_angles(half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-12))
    angle = np.linalg.norm(vector, axis=1)
    return quaternions(slerp(np.zeros_like(vector), vector, np.minimum(1.0, LEAN / np.maximum(angle, 1e-12))))
