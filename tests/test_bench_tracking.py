"""The bench of tracking finds no error in the truth, and the ones that are put into it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from being_rt.flame.rotations import matrices, matrix_axis_angles
from being_rt.track.fit import Fit
from being_rt.track.observations import LANDMARKS
from bench.tracking import Result, bust_shake, compared, performance, table
from bench.tracking_scenes import Scene

FRAMES = 20


@pytest.fixture(scope="module")
def known() -> Scene:
    return performance(3, FRAMES)


@pytest.fixture(scope="module")
def truth(known: Scene) -> Fit:
    return Fit(
        params=known.params,
        shape=known.shape,
        resting_lids=np.zeros(2, np.float32),
        camera=known.camera,
        error=np.zeros(FRAMES, np.float32),
        per_landmark=np.zeros((FRAMES, LANDMARKS), np.float32),
        bias=np.zeros((LANDMARKS, 3), np.float32),
        tracked=np.ones(FRAMES, bool),
        unit=107.0,
        focal_deviation=0.1,
        costs=(),
    )


@pytest.fixture(scope="module")
def exact(known: Scene, truth: Fit) -> Result:
    return compared(known, truth, 0.0, 1.0, 1.0)


def test_the_truth_has_no_error(exact: Result) -> None:
    for name in (
        "face_pixels",
        "rotation",
        "rotation_offset",
        "place_pixels",
        "place",
        "distance",
        "jaw",
        "jaw_offset",
    ):
        assert getattr(exact, name) == pytest.approx(0, abs=2e-3), name
    for name in ("expression", "identity", "focal", "eyelids", "gaze"):
        assert getattr(exact, name) == pytest.approx(0, abs=2e-3), name
    assert "rotation offset" in table([exact, exact])


def test_errors_are_found_as_they_are(known: Scene, truth: Fit, exact: Result) -> None:
    turn = matrices(np.radians([0.0, 2.0, 0.0]))
    intrinsics = known.camera.intrinsics.copy()
    intrinsics[[0, 1], [0, 1]] *= 1.05
    params = known.params.replace(
        rotation=matrix_axis_angles(turn @ matrices(known.params.rotation)),
        jaw=known.params.jaw + np.radians([3.0, 0, 0]),
    )
    wrong = compared(
        known, replace(truth, params=params, camera=replace(known.camera, intrinsics=intrinsics)), 0.0, 1.0, 1.0
    )
    assert wrong.focal == pytest.approx(5, abs=0.01)
    assert wrong.jaw_offset == pytest.approx(3, abs=0.01)
    assert wrong.rotation_offset == pytest.approx(2, abs=0.01)
    assert wrong.rotation == pytest.approx(0, abs=0.01)
    assert wrong.expression < 0.1  # what does not change is not counted
    assert wrong.face_pixels > 1


def test_shake_is_that_of_the_bust(known: Scene, truth: Fit) -> None:
    params = known.params.replace(rotation=0 * known.params.rotation, jaw=0 * known.params.jaw)
    still = replace(truth, params=params)
    place = np.tile(known.params.translation[:1], (FRAMES, 1))
    still = replace(still, params=still.params.replace(translation=place, expression=0 * known.params.expression))
    assert bust_shake(still, known) == pytest.approx(0, abs=1e-4)
    metres = float(-place[0, 2] / known.camera.intrinsics[0, 0])  # per pixel
    place = place + np.outer(np.arange(FRAMES) % 2, [metres, 0, 0])
    shaken = replace(still, params=still.params.replace(translation=place))
    assert bust_shake(shaken, known) == pytest.approx(1, rel=0.15)
