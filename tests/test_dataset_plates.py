"""Medians in bounded memory, and holes that are filled without edges or streaks."""

from __future__ import annotations

import numpy as np
import pytest

from being_rt.dataset.plates import MedianPlate, fill
from being_rt.errors import InvalidParameterError


def test_the_median_is_of_bare_moments_alone() -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (9, 6, 8, 3)).astype(np.uint8)
    bare = random.random((9, 6, 8)) < 0.5
    bare[:, 0, 0] = False
    median = MedianPlate((8, 6), samples=9)
    for frame, where in zip(frames, bare, strict=True):
        median.add(frame, where)
    plate, count = median.result()
    assert np.array_equal(count, bare.sum(0))
    for y, x in np.ndindex(6, 8):
        seen = np.sort(frames[bare[:, y, x], y, x], axis=0)
        expected = seen[(len(seen) - 1) // 2] if len(seen) else [255] * 3
        assert np.array_equal(plate[y, x], expected)


def test_a_few_samples_stand_for_many_frames() -> None:
    """A pixel drifts from 0 to 199; the sample of 15 must be from all of the time, the same at every run."""

    def drifted() -> np.ndarray:
        median = MedianPlate((40, 30), samples=15)
        for level in range(200):
            median.add(np.full((30, 40, 3), level, np.uint8), np.ones((30, 40), bool))
        return median.result()[0]

    plate = drifted()
    assert abs(float(plate.mean()) - 99.5) < 4  # the mean of 1200 medians of 15, each with a deviation of 27
    assert 15 < plate[..., 0].std() < 40
    assert np.array_equal(plate, drifted())


def test_what_does_not_fit_is_refused() -> None:
    median = MedianPlate((8, 6))
    with pytest.raises(InvalidParameterError, match=r"a frame must be \[6, 8, 3\] .* got \[8, 6, 3\]"):
        median.add(np.zeros((8, 6, 3), np.uint8), np.ones((6, 8), bool))
    with pytest.raises(InvalidParameterError, match="samples must be 1 to 255, got 0"):
        MedianPlate((8, 6), samples=0)


def test_filling_is_smooth_and_leaves_what_is_known() -> None:
    """A membrane that a plane holds at its border is that plane; pixels of the border are kept."""
    y, x = np.mgrid[:120, :161]
    plane = np.stack([40 + 0.9 * x, 200 - 0.6 * x - 0.5 * y, 90 + 0.7 * y], -1)
    picture = plane.round().astype(np.uint8)
    known = np.ones(x.shape, bool)
    known[20:95, 30:130] = False
    filled = fill(np.where(known[..., None], picture, 255).astype(np.uint8), known)
    assert np.array_equal(filled[known], picture[known])
    assert np.abs(filled - plane).max() < 4
    assert (fill(picture, np.zeros_like(known)) == 128).all()
    assert np.array_equal(fill(picture, np.ones_like(known)), picture)


def test_filling_leaves_no_streaks() -> None:
    """Noise at the border of a hole does not reach into it, where other methods draw rays and steps."""
    random = np.random.default_rng(1)
    picture = (120 + random.normal(0, 20, (200, 260, 3))).clip(0, 255).astype(np.uint8)
    y, x = np.mgrid[:200, :260]
    hole = (y > 40) & (np.abs(x - 130) < 70)  # open at the lower border, as behind a person
    filled = fill(picture, ~hole).astype(np.float64)
    inner = filled[60:, 80:180]
    assert np.abs(inner - 120).max() < 12
    for axis in (0, 1):
        assert np.abs(np.diff(inner, axis=axis)).max() <= 1
        assert np.abs(np.diff(inner, 2, axis=axis)).max() <= 2
