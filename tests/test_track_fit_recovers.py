"""A known performance is found from its landmarks: noise, a bias per landmark, a person who is not the average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from being_rt.dataset.regions import project
from being_rt.errors import TrackError
from being_rt.flame.rotations import matrices, matrix_axis_angles
from being_rt.flame.skinning import skin
from being_rt.track.fit import Fit, fit
from being_rt.track.fit_config import FitConfig
from being_rt.track.quality import judge
from bench.tracking_scenes import Scene, scene

FRAMES = 60


@pytest.fixture(scope="module")
def known() -> Scene:
    return scene(FRAMES, seed=4)


@pytest.fixture(scope="module")
def found(known: Scene) -> Fit:
    seen = known.observations
    landmarks = seen.landmarks.copy()
    landmarks[30:33] = np.nan  # a hand before the face
    return fit(replace(seen, landmarks=landmarks), known.model, known.embedding, FitConfig(shared_frames=30, shapes=60))


def test_the_mesh_lies_on_the_person(known: Scene, found: Fit) -> None:
    assert found.error[~np.isnan(found.error)].mean() < 0.015 * found.unit
    assert found.tracked.sum() == FRAMES - 3
    face = known.model.regions["face"]
    fitted, _ = project(skin(found.rig(known.model), found.params)[:, face], found.camera)
    truth, _ = project(known.vertices[:, face], known.camera)
    off = np.linalg.norm(fitted - truth, axis=-1)
    assert off[found.tracked].mean() < 0.03 * found.unit
    assert off[30:33].mean() < 0.1 * found.unit  # interpolated


def test_the_motion_is_the_persons(known: Scene, found: Fit) -> None:
    turned = matrix_axis_angles(matrices(found.params.rotation) @ np.swapaxes(matrices(known.params.rotation), 1, 2))
    assert np.degrees((turned - turned.mean(0)).std(0)).max() < 1.0
    jaw = np.degrees(found.params.jaw - known.params.jaw)[:, 0]
    assert jaw.std() < 2.5
    assert abs(float(found.camera.intrinsics[0, 0] / known.camera.intrinsics[0, 0]) - 1) < 0.15


def test_lids_and_lips_close_when_they_do(known: Scene, found: Fit) -> None:
    quality = judge(known.observations, found, known.model, known.embedding)
    for gap in (quality.lids, quality.lips):
        assert gap.agreement > 0.97
        assert gap.error < 0.02
    assert quality.blinks_found == quality.blinks
    off = found.params.eyelids - known.params.eyelids
    assert np.sqrt((off**2).mean()) < 0.1
    assert abs(off[known.params.eyelids > 0.9].mean()) < 0.1


def test_too_few_faces_are_refused(known: Scene) -> None:
    seen = known.observations
    landmarks = seen.landmarks.copy()
    landmarks[4:] = np.nan
    with pytest.raises(TrackError, match="a face is seen in 4 of 60 frames"):
        fit(replace(seen, landmarks=landmarks), known.model, known.embedding)
