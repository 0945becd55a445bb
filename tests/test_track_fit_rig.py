"""The model at its landmarks: where they are seen, how that changes, and the person that comes out of a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, skin
from being_rt.track.embedding_find import shut_lids
from being_rt.track.fit_landmarks import LID_PAIRS
from being_rt.track.fit_rig import EXPRESSION, EYELIDS, GAZE, JAW, PLACE, ROTATION, LandmarkRig, SharedParameters
from bench.tracking_scenes import Scene, made_up_embedding, scene

Float64 = NDArray[np.float64]

IDS = np.arange(0, 478, 3, dtype=np.int32)
SHAPES, EXPRESSIONS = 300, 100


@pytest.fixture(scope="module")
def known() -> Scene:
    return scene(6, noise=0.0, bias=0.0)


@pytest.fixture(scope="module")
def rig(known: Scene) -> LandmarkRig:
    return LandmarkRig.of(known.model, known.embedding, IDS, SHAPES, EXPRESSIONS, known.camera.size, 150.0)


@pytest.fixture(scope="module")
def truth(known: Scene, rig: LandmarkRig) -> tuple[Float64, SharedParameters]:
    """The performance in the fitter's own parameters."""
    params, focal = known.params, float(known.camera.intrinsics[0, 0])
    frames = np.zeros((len(params), rig.columns))
    frames[:, ROTATION], frames[:, JAW] = params.rotation, params.jaw
    frames[:, GAZE], frames[:, EYELIDS] = params.eyes[:, [0, 1, 3, 4]], params.eyelids
    frames[:, EXPRESSION] = params.expression
    shared = SharedParameters(known.shape.astype(np.float64), math.log(focal), np.zeros((len(IDS), 3)))
    joint, shape, expression = rig.root
    root = joint + shape @ shared.shape + frames[:, EXPRESSION] @ expression.T
    lever = np.einsum("tab,tb->ta", matrices(frames[:, ROTATION]), rig.middle - root)
    middle = root + params.translation + lever
    metres = -middle[:, 2] / focal
    frames[:, PLACE] = np.stack(
        [middle[:, 0] / metres / rig.unit, -middle[:, 1] / metres / rig.unit, np.log(metres)], 1
    )
    return frames, shared


def test_landmarks_are_where_the_mesh_has_them(
    known: Scene, rig: LandmarkRig, truth: tuple[Float64, SharedParameters]
) -> None:
    frames, shared = truth
    seen = known.observations.landmarks[:, IDS, :2]
    np.testing.assert_allclose(rig.project(frames, shared).pixels, seen, atol=0.02)
    np.testing.assert_allclose(rig.translations(frames, shared), known.params.translation, atol=1e-9)


def test_derivatives(rig: LandmarkRig, truth: tuple[Float64, SharedParameters]) -> None:
    frames, shared = truth
    random = np.random.default_rng(0)
    shared = SharedParameters(shared.shape, shared.log_focal, 0.002 * random.standard_normal((len(IDS), 3)))
    _, derivatives = rig.linearise(frames, shared)
    step = 1e-5

    def pixels(frames: Float64, shared: SharedParameters) -> Float64:
        return rig.project(frames, shared).pixels

    direction = random.standard_normal(rig.columns)
    slope = (pixels(frames + step * direction, shared) - pixels(frames - step * direction, shared)) / (2 * step)
    np.testing.assert_allclose(derivatives.frame @ direction, slope, rtol=1e-5, atol=1e-3)
    direction = random.standard_normal(SHAPES + 1)
    bias = random.standard_normal(shared.bias.shape)

    def moved(size: float) -> SharedParameters:
        return SharedParameters(
            shared.shape + size * direction[:-1], shared.log_focal + size * direction[-1], shared.bias + size * bias
        )

    slope = (pixels(frames, moved(step)) - pixels(frames, moved(-step))) / (2 * step)
    found = derivatives.shared @ direction + np.einsum("tlxk,lk->tlx", derivatives.bias, bias)
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-2)


def test_a_longer_lens_leaves_the_picture_nearly_as_it_is(
    rig: LandmarkRig, truth: tuple[Float64, SharedParameters]
) -> None:
    frames, shared = truth
    longer = SharedParameters(shared.shape, shared.log_focal + 0.1, shared.bias)
    moved = np.linalg.norm(rig.project(frames, longer).pixels - rig.project(frames, shared).pixels, axis=-1)
    assert moved.mean() < 0.02 * rig.unit
    assert rig.translations(frames, longer)[:, 2].mean() < 1.08 * rig.translations(frames, shared)[:, 2].mean()


def test_landmarks_of_the_lids_meet_when_they_shut() -> None:
    model, embedding = procedural_head(), made_up_embedding()
    rig = bake_rig(model)
    upper, lower = np.array(LID_PAIRS).T
    face, mix = embedding.face.copy(), embedding.barycentric.astype(np.float64)
    for eye in (lower[:7], lower[7:]):  # each lies where its neighbour does
        face[eye[:-1]], mix[eye[:-1]] = face[eye[1:]], mix[eye[1:]]
    lids = np.array([[0, 0], [1, 1]], np.float32)
    opened, shut = skin(rig, FlameParams.neutral(2).replace(eyelids=lids)).astype(np.float64)

    def gaps(vertices: Float64) -> Float64:
        points = np.einsum("lk,lka->la", mix, vertices[model.faces[face]])
        return np.asarray(np.linalg.norm(points[upper] - points[lower], axis=1))

    assert gaps(shut).max() > 0.002
    wide = gaps(opened).max()
    inside = np.isin(np.arange(model.vertex_count), model.regions["face"])
    shut_lids(face, mix, rig, np.flatnonzero(inside[model.faces].all(1)))
    assert gaps(shut).max() < 0.001
    assert gaps(opened).max() > 0.9 * wide
