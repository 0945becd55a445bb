"""What the fitter believes beforehand: of motion, of cameras, and derivatives that are those of the costs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.track.fit_blocks import Bands, solve
from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_prior import LIVELY, STIFF, MotionPrior
from being_rt.track.fit_rig import FIXED_COLUMNS, POSE, ROTATION
from being_rt.track.fit_shared import EYES_APART, expected_focal_length

Float64 = NDArray[np.float64]

FPS = 25.0
NOISE = 0.001  # radians


@pytest.fixture(scope="module")
def prior() -> MotionPrior:
    return MotionPrior.of(FitConfig(), 2, 1 / FPS)


def test_derivatives_are_those_of_the_cost(prior: MotionPrior) -> None:
    random = np.random.default_rng(0)
    frames = 0.05 * random.standard_normal((12, FIXED_COLUMNS + 2))
    frames[4, 13:15] = 1.2, -0.7  # lids beyond their range
    bands, gradient = prior.equations(frames)
    step = 1e-6
    for t, column in ((0, 0), (1, 3), (5, 5), (4, 13), (4, 14), (6, 9), (11, 16)):
        moved = frames.copy()
        moved[t, column] += step
        back = frames.copy()
        back[t, column] -= step
        slope = (prior.cost(moved) - prior.cost(back)) / (2 * step)
        assert gradient[t, column] == pytest.approx(slope, rel=1e-4, abs=1e-4)
    # The quadratic that is solved lies nowhere below the cost, so that a full step never leads upwards.
    for size in (1e-3, 1e-2, 0.1):
        step_taken = size * random.standard_normal(frames.shape)
        step_taken[:, POSE.stop :] = 0  # soft limits are no part of this
        quadratic = prior.cost(frames) + np.sum(gradient * step_taken)
        quadratic += 0.5 * np.einsum("tp,tpq,tq", step_taken, bands.blocks, step_taken)
        quadratic += np.sum(step_taken[:-1] * bands.first * step_taken[1:])
        quadratic += np.sum(step_taken[:-2] * bands.second * step_taken[2:])
        assert prior.cost(frames + step_taken) <= quadratic * (1 + 1e-9)


def test_a_resting_head_is_quiet_and_a_nod_is_followed(prior: MotionPrior) -> None:
    time = np.arange(100) / FPS
    nod = 0.15 * np.exp(-0.5 * ((time - 3) / 0.1) ** 2)  # nine degrees and back within half a second
    seen = nod + NOISE * np.random.default_rng(1).standard_normal(len(time))
    found = _smoothed(prior, seen)
    rest = slice(10, 50)
    assert np.diff(found[rest]).std() < 0.15 * np.diff(seen[rest]).std()
    assert np.abs(found - nod).max() < 4 * NOISE


def test_focal_lengths_are_expected_by_lenses_and_distances() -> None:
    config = FitConfig()
    size, unit = (1000, 800), 100.0
    by_lens, by_distance = config.focal * 1000, config.distance * unit / EYES_APART
    expected, deviation = expected_focal_length(config, size, unit)
    assert min(by_lens, by_distance) < math.exp(expected) < max(by_lens, by_distance)
    assert deviation < min(config.focal_deviation, config.distance_deviation)
    # A video that was cropped shows as large a face in a smaller picture: the lens is longer than its size says.
    cropped, _ = expected_focal_length(config, (500, 400), unit)
    assert math.log(config.focal * 500) < cropped < expected
    sure = FitConfig(focal_deviation=1e-3)
    assert math.exp(expected_focal_length(sure, size, unit)[0]) == pytest.approx(by_lens, rel=1e-3)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"FitConfig\.distance must be above 0"):
        FitConfig(distance=0)


def _smoothed(prior: MotionPrior, seen: Float64) -> Float64:
    """The likeliest yaw [T], given one with white noise: some tangents of the prior's cost, one after the other."""
    frames = np.zeros((len(seen), FIXED_COLUMNS + 2))
    yaw = ROTATION.start + 1
    frames[:, yaw] = seen
    for lively in (*[STIFF] * 10, *[LIVELY] * 10):
        bands, gradient = replace(prior, lively=lively).equations(frames)
        blocks = bands.blocks.copy()
        blocks[:, yaw, yaw] += NOISE**-2.0
        gradient[:, yaw] += (frames[:, yaw] - seen) / NOISE**2
        np.einsum("tpp->tp", blocks)[:] += 1.0  # of what is not looked at
        nothing = np.zeros((len(seen), frames.shape[1], 0))
        bands = Bands(blocks, bands.first, bands.second)
        frames += solve(bands, nothing, np.zeros((0, 0)), -gradient, np.zeros(0)).frames
    return np.asarray(frames[:, yaw])
