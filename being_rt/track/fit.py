"""From landmarks of a clip to a person's identity, a camera, and the motion of every frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.errors import TrackError
from being_rt.flame.model import SHAPE_COUNT, FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig
from being_rt.parallel import one_thread_each
from being_rt.track.embedding import Embedding
from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_equations import chunks
from being_rt.track.fit_landmarks import LANDMARKS, chosen_landmarks, rigid_landmarks
from being_rt.track.fit_prior import LIVELY, STIFF, MotionPrior
from being_rt.track.fit_residuals import Observed, observed_landmarks
from being_rt.track.fit_rig import (
    ALL,
    EXPRESSION,
    EYELIDS,
    GAZE,
    JAW,
    POSE,
    ROTATION,
    LandmarkRig,
    SharedParameters,
)
from being_rt.track.fit_shared import SharedPrior
from being_rt.track.fit_solver import FIRST_OUTLIER, Estimate, Problem, minimise
from being_rt.track.fit_start import first_poses, interpolated
from being_rt.track.observations import Observations

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]

WORLD_TO_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)  # the camera looks along -z, y up
LOST = 0.06  # of the distance between the eyes: frames with a larger error are not tracked
NARROW, WIDE = 15, 40  # degrees of yaw, from side to side, that tell nothing of the focal length, and all
YAW_QUANTILES = (0.02, 0.98)
OPEN, RESTING = 0.05, (-0.5, 0.6)  # quantile of the lids' closing that is a person's open eye, and where it may lie
POOR = 0.03  # of the distance between the eyes


@dataclass(frozen=True)
class Fit:
    """A person's motion in T frames, before a camera that stands still at the origin and looks along -z."""

    params: FlameParams  # [T]; the neck is at rest
    shape: Float32  # [300]
    resting_lids: Float32  # [2] how far this person's open eyes are shut by the model's measure, left and right
    camera: Camera
    error: Float32  # [T] px, root mean square over the landmarks in view; NaN without a face
    per_landmark: Float32  # [T, 478] px; NaN without a face, and of landmarks that the embedding lacks
    bias: Float32  # [478, 3] metres, from the embedding to what the network takes for the landmark
    tracked: Bool  # [T] a face was found and the mesh fits it; other frames are interpolated
    unit: float  # px between the eyes, the median over the clip
    focal_deviation: float  # of the focal length's logarithm, as far as landmarks tell
    costs: tuple[float, ...]  # on the way, for diagnosis
    warnings: tuple[str, ...] = ()

    def rig(self, model: FlameModel) -> Rig:
        """The person: the model with this shape, and lids that rest where the person's do, 0 open and 1 shut."""
        rig = bake_rig(model, self.shape)
        lids = rig.eyelid_basis.astype(np.float32)
        return replace(
            rig,
            template=rig.template + lids @ self.resting_lids,
            eyelid_basis=(lids * (1 - self.resting_lids)).astype(np.float16),
        )


def fit(
    observations: Observations,
    model: FlameModel,
    embedding: Embedding,
    config: FitConfig | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fit:
    """Fit a FLAME-shaped model to the landmarks of a clip, all frames at once.

    Minimises, over what is shared (identity, focal length, a bias per landmark) and each frame's pose, jaw, gaze,
    eyelids and expression, the robust distance to the landmarks plus what is likely of people, cameras and motion
    (:class:`FitConfig`). Two passes: everything from at most ``config.shared_frames`` frames, then the motion of all
    frames with what is shared held. Both are Levenberg and Marquardt's method with exact linear solves.

    Args:
        progress: hears the share of the work that is done, 0 to 1.

    Raises:
        TrackError: fewer than ``config.fewest`` frames have a face.
        InvalidParameterError: the embedding is not one into this model.

    Example::

        result = fit(observe("selfie.mp4"), model, landmark_embedding(model))
        pixels, _ = project(skin(result.rig(model), result.params), result.camera)
    """
    config = config or FitConfig()
    embedding.validate(model)
    found = observations.found
    if np.count_nonzero(found) < config.fewest:
        raise TrackError(
            f"a face is seen in {np.count_nonzero(found)} of {len(found)} frames; {config.fewest} are needed"
        )
    template = embedding.points(model.template.astype(np.float64), model.faces)
    ids = chosen_landmarks(template, embedding.found, config.skin)
    observed = observed_landmarks(observations.landmarks, found, ids, embedding.spread, config)
    rig = LandmarkRig.of(model, embedding, ids, config.shapes, config.expressions, observations.size, observed.unit)
    report = progress or (lambda share: None)
    with one_thread_each():
        estimate = _estimate(rig, observed, ids, observations, config, lambda share: report(0.95 * share))
        result = _result(observations, model, embedding, config, ids, rig, observed, estimate)
    report(1.0)
    return result


def _estimate(
    rig: LandmarkRig,
    observed: Observed,
    ids: Int32,
    observations: Observations,
    config: FitConfig,
    report: Callable[[float], None],
) -> Estimate:
    """Both passes."""
    stride = math.ceil(len(observed) / config.shared_frames)
    seen = int(np.count_nonzero(observations.found[::stride]))
    shared = SharedPrior.of(config, rig, ids, observations.size, seen)
    step = 1 / observations.fps

    def problem(stride: int) -> Problem:
        motion = MotionPrior.of(config, config.expressions, stride * step, successive=stride == 1)
        return Problem(rig, observed[::stride], motion, shared, config.threads)

    some = _first_pass(problem(stride), ids, config, lambda share: report(0.6 * share))
    known = np.arange(len(observed)) % stride == 0
    frames = np.zeros((len(observed), rig.columns))
    frames[known] = some.frames
    some = replace(some, frames=interpolated(frames, known))
    # At first noise would pass for motion: a head is believed to turn once what looked like it is smooth.
    every = problem(1)
    for index, (lively, tolerance) in enumerate(((STIFF, 10 * config.tolerance), (LIVELY, config.tolerance))):
        some = minimise(
            replace(every, motion=replace(every.motion, lively=lively)),
            some,
            columns=ALL,
            unknowns=0,
            outliers=(config.outlier, config.outlier),
            iterations=config.iterations,
            tolerance=tolerance,
            progress=lambda share, index=index: report(0.6 + 0.2 * (index + share)),  # type: ignore[misc]
        )
    return some


def _first_pass(problem: Problem, ids: Int32, config: FitConfig, report: Callable[[float], None]) -> Estimate:
    """Poses of a resting face; what is rigid of it, with identity, biases and focal length; then everything else.

    The focal length is decided by what is rigid, and held afterwards. Left to lips and lids, it goes where it helps to
    draw them, for a close camera sees a lip that moves forwards grow.
    """
    shared = problem.shared.start()
    start = Estimate(first_poses(problem.rig, problem.observed, shared), shared)
    every = len(problem.shared.mean)
    wide, narrow = (FIRST_OUTLIER, FIRST_OUTLIER), (FIRST_OUTLIER, config.outlier)

    def descend(
        stage: Problem, begin: Estimate, columns: slice, unknowns: int, outliers: tuple[float, float]
    ) -> Estimate:
        return minimise(
            stage,
            begin,
            columns=columns,
            unknowns=unknowns,
            outliers=outliers,
            iterations=config.iterations,
            tolerance=config.tolerance,
        )

    posed = descend(problem, start, POSE, 0, wide)
    report(0.05)
    rigid = replace(problem, observed=problem.observed.restricted(rigid_landmarks(problem.rig.points(), ids)))
    posed = descend(rigid, posed, POSE, every, narrow)
    report(0.3)
    focal, deviation = _focal_length(posed, problem.shared)
    held = replace(problem, shared=problem.shared.holding(focal))
    posed = replace(posed, shared=replace(posed.shared, log_focal=focal))
    found = descend(held, posed, ALL, every, narrow)
    return replace(found, focal_deviation=deviation)


def _focal_length(estimate: Estimate, prior: SharedPrior) -> tuple[float, float]:
    """The logarithm of the focal length, and its deviation.

    A head that does not turn looks much the same through all lenses, while errors of its shape do not average out: the
    less it turns, the less is believed of what was found, and the more of what was expected.
    """
    yaw = np.degrees(estimate.frames[:, ROTATION.start + 1])
    low, high = np.quantile(yaw, YAW_QUANTILES)
    trust = float(np.clip((high - low - NARROW) / (WIDE - NARROW), 0, 1))
    expected = float(prior.mean[prior.shapes])
    deviation = prior.deviation(prior.precision)
    found = deviation if estimate.information is None else prior.deviation(estimate.information)
    value = expected + trust * (estimate.shared.log_focal - expected)
    return value, math.hypot(trust * found, (1 - trust) * deviation)


def _result(
    observations: Observations,
    model: FlameModel,
    embedding: Embedding,
    config: FitConfig,
    ids: Int32,
    rig: LandmarkRig,
    observed: Observed,
    estimate: Estimate,
) -> Fit:
    found = observations.found
    frames, shared = estimate.frames, estimate.shared
    bias, per_landmark, facing = _all_landmarks(observations, model, embedding, config, ids, rig.middle, estimate)
    counted = np.isin(np.arange(LANDMARKS), ids[~observed.contour])[None] & (facing > 0.3) & np.isfinite(per_landmark)
    squares = np.where(counted, np.nan_to_num(per_landmark) ** 2, 0).sum(1)
    number = counted.sum(1)
    error = np.where(found & (number > 0), np.sqrt(squares / np.maximum(number, 1)), np.nan)
    with np.errstate(invalid="ignore"):
        tracked = found & (error < LOST * observed.unit)

    resting = np.zeros(2)
    if tracked.any():
        resting = np.clip(np.quantile(frames[tracked][:, EYELIDS], OPEN, axis=0), *RESTING)
    lids = (frames[:, EYELIDS] - resting) / (1 - resting)
    params = FlameParams(
        expression=np.pad(frames[:, EXPRESSION], ((0, 0), (0, 100 - config.expressions))),
        rotation=frames[:, ROTATION].astype(np.float32),
        neck=np.zeros((len(frames), 3)).astype(np.float32),
        jaw=frames[:, JAW].astype(np.float32),
        eyes=np.insert(frames[:, GAZE], [2, 4], 0, axis=1),
        translation=rig.translations(frames, shared).astype(np.float32),
        eyelids=np.clip(lids, 0, 1).astype(np.float32),
        fps=observations.fps,
    )
    focal = math.exp(shared.log_focal)
    width, height = observations.size
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)
    shape = np.zeros(SHAPE_COUNT, np.float32)
    shape[: config.shapes] = shared.shape
    return Fit(
        params=params,
        shape=shape,
        resting_lids=resting.astype(np.float32),
        camera=Camera(WORLD_TO_CAMERA.copy(), intrinsics, observations.size),
        error=error.astype(np.float32),
        per_landmark=per_landmark.astype(np.float32),
        bias=bias.astype(np.float32),
        tracked=tracked,
        unit=observed.unit,
        focal_deviation=estimate.focal_deviation,
        costs=estimate.costs,
        warnings=_warnings(tracked, found, error / observed.unit),
    )


def _all_landmarks(
    observations: Observations,
    model: FlameModel,
    embedding: Embedding,
    config: FitConfig,
    ids: Int32,
    middle: Float64,
    estimate: Estimate,
) -> tuple[Float64, Float64, Float64]:
    """Biases [478, 3], residuals in px [T, 478] and cosines to the view [T, 478] of all landmarks, fitted to or not.

    Biases of those that were not fitted to are the likeliest, given everything else.
    """
    every = np.flatnonzero(embedding.found).astype(np.int32)
    observed = observed_landmarks(observations.landmarks, observations.found, every, embedding.spread, config)
    full = LandmarkRig.of(model, embedding, every, config.shapes, config.expressions, observations.size, observed.unit)
    # Places are told from the middle of the landmarks that were fitted to.
    rig = replace(full, base=full.base + np.pad(full.middle - middle, (0, 9)), middle=middle)
    fitted = np.isin(every, ids)
    bias = np.zeros((len(every), 3))
    bias[fitted] = estimate.shared.bias
    shared = SharedParameters(estimate.shared.shape, estimate.shared.log_focal, bias)
    system = np.zeros((len(every), 3, 3)) + config.bias**-2.0 * np.eye(3)
    pull = np.zeros((len(every), 3))
    for part in chunks(0, len(observed)):
        projection, derivatives = rig.linearise(estimate.frames[part], shared)
        own, weight = derivatives.bias, observed.weight[part]
        system += np.einsum("tl,tlxj,tlxk->ljk", weight, own, own, optimize=True)
        away = observed.pixels[part] - projection.pixels
        pull += np.einsum("tl,tlxj,tlx->lj", weight, own, away, optimize=True)
    bias = np.where(fitted[:, None], bias, np.linalg.solve(system, pull[..., None])[..., 0])
    shared = SharedParameters(shared.shape, shared.log_focal, bias)
    residual = np.full((len(observed), LANDMARKS), np.nan)
    facing = np.zeros((len(observed), LANDMARKS))
    for part in chunks(0, len(observed)):
        projection = rig.project(estimate.frames[part], shared)
        view = -projection.world / np.linalg.norm(projection.world, axis=-1, keepdims=True)
        residual[part, every] = np.linalg.norm(projection.pixels - observed.pixels[part], axis=-1)
        facing[part, every] = np.sum(view * projection.normal, -1)
    residual[~observations.found] = np.nan
    result = np.zeros((LANDMARKS, 3))
    result[every] = bias
    return result, residual, facing


def _warnings(tracked: Bool, found: Bool, error: Float64) -> tuple[str, ...]:
    result = []
    between = np.flatnonzero(found)
    missing = np.count_nonzero(~found[between[0] : between[-1]])
    if missing:
        result.append(f"no face in {missing} frames between others with one; their motion is interpolated")
    lost = found & ~tracked
    if lost.any():
        result.append(f"the mesh does not fit the landmarks of {np.count_nonzero(lost)} frames")
    typical = float(np.nanmedian(error))
    if typical > POOR:
        result.append(
            f"landmarks are off by {100 * typical:.1f} % of the distance between the eyes; expect a poor mesh"
        )
    return tuple(result)
