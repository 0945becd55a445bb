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
from being_rt.track.embedding import Embedding
from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_equations import chunks
from being_rt.track.fit_landmarks import LANDMARKS, chosen_landmarks
from being_rt.track.fit_prior import MotionPrior
from being_rt.track.fit_residuals import Observed, observed_landmarks
from being_rt.track.fit_rig import (
    EXPRESSION,
    EYELIDS,
    GAZE,
    JAW,
    POSE,
    ROTATION,
    TRANSLATION,
    LandmarkRig,
    SharedParameters,
)
from being_rt.track.fit_shared import SharedPrior
from being_rt.track.fit_solver import FIRST_OUTLIER, Estimate, Problem, minimise
from being_rt.track.fit_start import first_poses, interpolated
from being_rt.track.fit_threads import one_thread_each
from being_rt.track.observations import Observations

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]

WORLD_TO_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)  # the camera looks along -z, y up
LOST = 0.06  # of the distance between the eyes: frames with a larger error are not tracked
FEWEST = 5  # frames with a face
NARROW = 15  # degrees of yaw
POOR = 0.03  # of the distance between the eyes


@dataclass(frozen=True)
class Fit:
    """A person's motion in T frames, before a camera that stands still at the origin and looks along -z."""

    params: FlameParams  # [T]; the neck is at rest
    shape: Float32  # [300]
    camera: Camera
    error: Float32  # [T] px, root mean square over the landmarks in view; NaN without a face
    per_landmark: Float32  # [T, 478] px; NaN without a face, and of landmarks that the embedding lacks
    bias: Float32  # [478, 3] metres, from the embedding to what the network takes for the landmark
    tracked: Bool  # [T] a face was found and the mesh fits it; other frames are interpolated
    unit: float  # px between the eyes, the median over the clip
    focal_deviation: float  # of the focal length's logarithm, as far as landmarks tell
    costs: tuple[float, ...]  # on the way, for diagnosis
    warnings: tuple[str, ...] = ()


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
        TrackError: fewer than five frames have a face.
        InvalidParameterError: the embedding is not one into this model.

    Example::

        result = fit(observe("selfie.mp4"), model, landmark_embedding(model))
        rig = bake_rig(model, result.shape)
        pixels, _ = project(skin(rig, result.params), result.camera)
    """
    config = config or FitConfig()
    embedding.validate(model)
    found = observations.found
    if np.count_nonzero(found) < FEWEST:
        raise TrackError(f"a face is seen in {np.count_nonzero(found)} of {len(found)} frames; {FEWEST} are needed")
    template = embedding.points(model.template.astype(np.float64), model.faces)
    ids = chosen_landmarks(template, embedding.found, config.skin)
    rig = LandmarkRig.of(model, embedding, ids, config.shapes, config.expressions, observations.size)
    observed = observed_landmarks(observations.landmarks, found, ids, config)
    report = progress or (lambda share: None)
    with one_thread_each():
        estimate = _estimate(rig, observed, ids, observations, config, lambda share: report(0.95 * share))
        result = _result(observations, model, embedding, config, ids, observed, estimate)
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
    shared = SharedPrior.of(config, rig, ids, observations.size)
    step = 1 / observations.fps

    def problem(stride: int) -> Problem:
        motion = MotionPrior.of(config, config.expressions, stride * step)
        return Problem(rig, observed[::stride], motion, shared, config.threads)

    stride = math.ceil(len(observed) / config.shared_frames)
    if stride == 1:
        return _first_pass(problem(1), config, report)
    some = _first_pass(problem(stride), config, lambda share: report(0.5 * share))
    known = np.arange(len(observed)) % stride == 0
    frames = np.zeros((len(observed), rig.columns))
    frames[known] = some.frames
    return minimise(
        problem(1),
        replace(some, frames=interpolated(frames, known)),
        columns=rig.columns,
        unknowns=0,
        outliers=(config.outlier, config.outlier),
        iterations=config.iterations,
        tolerance=config.tolerance,
        progress=lambda share: report(0.5 + 0.5 * share),
    )


def _first_pass(problem: Problem, config: FitConfig, report: Callable[[float], None]) -> Estimate:
    """Poses of a rigid head, then with its identity and expressions, then with focal length and biases."""
    shared = problem.shared.start()
    estimate = Estimate(first_poses(problem.rig, problem.observed, shared), shared)
    stages = (
        (POSE.stop, 0, 4, (FIRST_OUTLIER, FIRST_OUTLIER)),
        (problem.rig.columns, len(problem.shared.mean), config.iterations, (FIRST_OUTLIER, config.outlier)),
    )
    for index, (columns, unknowns, iterations, outliers) in enumerate(stages):
        estimate = minimise(
            problem,
            estimate,
            columns=columns,
            unknowns=unknowns,
            outliers=outliers,
            iterations=iterations,
            tolerance=config.tolerance,
            progress=lambda share, index=index: report((index + share) / len(stages)),  # type: ignore[misc]
        )
    return estimate


def _result(
    observations: Observations,
    model: FlameModel,
    embedding: Embedding,
    config: FitConfig,
    ids: Int32,
    observed: Observed,
    estimate: Estimate,
) -> Fit:
    found = observations.found
    frames, shared = estimate.frames, estimate.shared
    bias, per_landmark, facing = _all_landmarks(observations, model, embedding, config, ids, estimate)
    counted = np.isin(np.arange(LANDMARKS), ids[~observed.contour])[None] & (facing > 0.3) & np.isfinite(per_landmark)
    squares = np.where(counted, np.nan_to_num(per_landmark) ** 2, 0).sum(1)
    number = counted.sum(1)
    error = np.where(found & (number > 0), np.sqrt(squares / np.maximum(number, 1)), np.nan)
    with np.errstate(invalid="ignore"):
        tracked = found & (error < LOST * observed.unit)

    params = FlameParams(
        expression=np.pad(frames[:, EXPRESSION], ((0, 0), (0, 100 - config.expressions))),
        rotation=frames[:, ROTATION].astype(np.float32),
        neck=np.zeros((len(frames), 3)).astype(np.float32),
        jaw=frames[:, JAW].astype(np.float32),
        eyes=np.insert(frames[:, GAZE], [2, 4], 0, axis=1),
        translation=frames[:, TRANSLATION].astype(np.float32),
        eyelids=np.clip(frames[:, EYELIDS], 0, 1),
        fps=observations.fps,
    )
    focal = math.exp(shared.log_focal)
    width, height = observations.size
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)
    deviation = config.focal_deviation
    if estimate.information is not None and len(estimate.information) > config.shapes:
        unit = np.eye(len(estimate.information))[config.shapes]
        deviation = math.sqrt(np.linalg.solve(estimate.information, unit)[config.shapes])
    shape = np.zeros(SHAPE_COUNT, np.float32)
    shape[: config.shapes] = shared.shape
    return Fit(
        params=params,
        shape=shape,
        camera=Camera(WORLD_TO_CAMERA.copy(), intrinsics, observations.size),
        error=error.astype(np.float32),
        per_landmark=per_landmark.astype(np.float32),
        bias=bias.astype(np.float32),
        tracked=tracked,
        unit=observed.unit,
        focal_deviation=deviation,
        costs=estimate.costs,
        warnings=_warnings(params, tracked, found, error / observed.unit),
    )


def _all_landmarks(
    observations: Observations,
    model: FlameModel,
    embedding: Embedding,
    config: FitConfig,
    ids: Int32,
    estimate: Estimate,
) -> tuple[Float64, Float64, Float64]:
    """Biases [478, 3], residuals in px [T, 478] and cosines to the view [T, 478] of all landmarks, fitted to or not.

    Biases of those that were not fitted to are the likeliest, given everything else.
    """
    every = np.flatnonzero(embedding.found).astype(np.int32)
    rig = LandmarkRig.of(model, embedding, every, config.shapes, config.expressions, observations.size)
    observed = observed_landmarks(observations.landmarks, observations.found, every, config)
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


def _warnings(params: FlameParams, tracked: Bool, found: Bool, error: Float64) -> tuple[str, ...]:
    result = []
    turned = np.degrees(params.rotation[tracked, 1]) if tracked.any() else np.zeros(1)
    low, high = np.quantile(turned, [0.02, 0.98])
    if high - low < NARROW:
        result.append(
            f"the head turns by {high - low:.0f} degrees only: its depth and the focal length are little more than "
            f"guesses; {NARROW} degrees to both sides together would tell them"
        )
    if not found.all():
        result.append(f"no face in {np.count_nonzero(~found)} of {len(found)} frames; their motion is interpolated")
    lost = found & ~tracked
    if lost.any():
        result.append(f"the mesh does not fit the landmarks of {np.count_nonzero(lost)} frames")
    typical = float(np.nanmedian(error))
    if typical > POOR:
        result.append(
            f"landmarks are off by {100 * typical:.1f} % of the distance between the eyes; expect a poor mesh"
        )
    return tuple(result)
