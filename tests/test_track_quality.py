"""What is said of a track: figures of known tracks, and what to film again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from being_rt.errors import FileFormatError
from being_rt.flame.params import FlameParams
from being_rt.flame.skinning import skin
from being_rt.track.fit import Fit
from being_rt.track.fit_file import load_fit, save_fit
from being_rt.track.observations import LANDMARKS
from being_rt.track.quality import Gap, TrackQuality, advice, judge
from bench.tracking_scenes import Scene, scene

FRAMES = 60


@pytest.fixture(scope="module")
def known() -> Scene:
    return scene(FRAMES, noise=0.3, bias=0.0005, sliding=True)


@pytest.fixture(scope="module")
def true_fit(known: Scene) -> Fit:
    """The truth, as a fit would have found it; two frames are lost."""
    tracked = np.ones(FRAMES, bool)
    tracked[10:12] = False
    unit = 150.0
    return Fit(
        params=known.params,
        shape=np.asarray(known.shape, np.float32),
        resting_lids=np.zeros(2, np.float32),
        camera=known.camera,
        error=np.full(FRAMES, 0.01 * unit, np.float32),
        per_landmark=np.full((FRAMES, LANDMARKS), 0.02 * unit, np.float32),
        bias=np.zeros((LANDMARKS, 3), np.float32),
        tracked=tracked,
        unit=unit,
        focal_deviation=0.04,
        costs=(2.0, 1.0),
        warnings=("look",),
    )


@pytest.fixture(scope="module")
def quality(known: Scene, true_fit: Fit) -> TrackQuality:
    return judge(known.observations, true_fit, known.model, known.embedding)


def test_the_empty_room_is_no_loss(known: Scene, true_fit: Fit, quality: TrackQuality) -> None:
    presence = known.observations.presence.copy()
    landmarks = known.observations.landmarks.copy()
    for frames in (slice(0, 5), slice(30, 32), slice(57, None)):
        presence[frames], landmarks[frames] = 0, np.nan
    seen = replace(known.observations, presence=presence, landmarks=landmarks)
    found = judge(seen, replace(true_fit, tracked=true_fit.tracked & seen.found), known.model, known.embedding)
    assert (found.empty, found.lost) == (8, ((10, 11), (30, 31)))
    assert quality.empty == 0
    assert any("lost in 4 %" in line for line in advice(replace(quality, frames=100, empty=50, tracked=48)))
    assert not any("lost" in line for line in advice(replace(quality, frames=100, empty=50, tracked=50)))


def test_figures_of_a_true_track(quality: TrackQuality) -> None:
    assert (quality.frames, quality.tracked, quality.lost) == (FRAMES, FRAMES - 2, ((10, 11),))
    assert quality.error == pytest.approx(1.0, rel=1e-5)
    assert all(error == pytest.approx(2.0, rel=1e-5) for error in quality.errors.values())
    for gap in (quality.lids, quality.lips):
        assert gap.error < 0.01
        assert gap.agreement > 0.97
        assert np.isnan(gap.seen[10:12]).all()
    assert quality.yaw[1] > quality.yaw[0]
    assert 0 < quality.jitter < 2
    assert quality.blinks == quality.blinks_found


def test_a_frozen_face_is_noticed(known: Scene, true_fit: Fit, quality: TrackQuality) -> None:
    still = known.params.replace(
        eyelids=0 * known.params.eyelids, jaw=0 * known.params.jaw, expression=0 * known.params.expression
    )
    frozen = judge(known.observations, replace(true_fit, params=still), known.model, known.embedding)
    assert frozen.lids.error > 3 * quality.lids.error
    assert frozen.lips.error > 3 * quality.lips.error
    assert frozen.blinks_found == 0
    assert frozen.expression == 0


def test_a_jaw_that_lies_elsewhere_is_noticed(known: Scene, true_fit: Fit, quality: TrackQuality) -> None:
    assert quality.outline < 7
    intrinsics = known.camera.intrinsics.copy()
    intrinsics[1, 2] += 0.2 * true_fit.unit
    lower = replace(true_fit, camera=replace(known.camera, intrinsics=intrinsics))
    assert judge(known.observations, lower, known.model, known.embedding).outline > 1.5 * quality.outline


def test_a_person_may_rest_with_narrow_eyes(known: Scene, true_fit: Fit) -> None:
    narrow = replace(true_fit, resting_lids=np.array([0.25, 0.5], np.float32))
    person, plain = narrow.rig(known.model), true_fit.rig(known.model)
    lids = np.array([[0, 0], [1, 1], [0.5, 0.5]], np.float32)
    same = np.array([[0.25, 0.5], [1, 1], [0.625, 0.75]], np.float32)  # by the model's measure
    still = FlameParams.neutral(3)
    found = skin(person, still.replace(eyelids=lids))
    np.testing.assert_allclose(found, skin(plain, still.replace(eyelids=same)), atol=2e-5)


def test_advice_is_for_what_is_wrong(quality: TrackQuality) -> None:
    gap = Gap(np.ones(4), np.ones(4))
    fine = replace(
        quality,
        frames=100,
        tracked=100,
        yaw=(-25.0, 25.0),
        error=1.0,
        blinks=3,
        open_share=0.4,
        expression=2.0,
        lids=gap,
    )
    assert advice(fine) == []
    cases = {
        "does not move": advice(fine, static=False),
        "lost in 10 %": advice(replace(fine, tracked=90)),
        "turns by 4 degrees only": advice(replace(fine, yaw=(-2.0, 2.0))),
        "fits poorly": advice(replace(fine, error=5.0)),
        "hardly any blinks": advice(replace(fine, blinks=0)),
        "mouth hardly opens": advice(replace(fine, open_share=0.0)),
        "face hardly moves": advice(replace(fine, expression=0.1)),
        "empty room": advice(fine, known=0.4),
    }
    for words, said in cases.items():
        assert len(said) == 1
        assert words in said[0]


def test_fits_come_back_from_files(true_fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "fit.npz"
    save_fit(true_fit, path)
    again = load_fit(path)
    assert again.warnings == true_fit.warnings
    assert again.camera.size == true_fit.camera.size
    np.testing.assert_array_equal(again.params.expression, true_fit.params.expression)
    np.testing.assert_array_equal(again.tracked, true_fit.tracked)
    random = np.random.default_rng(0)
    data = path.read_bytes()
    for _ in range(40):  # whatever is in the file, the error is ours
        broken = bytearray(data)
        for place in random.integers(0, len(data), 8):
            broken[place] = random.integers(0, 256)
        path.write_bytes(bytes(broken[: random.integers(1, len(data))]))
        with pytest.raises(FileFormatError):
            load_fit(path)
