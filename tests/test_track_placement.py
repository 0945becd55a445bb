"""A tracked person is put at the origin without moving a pixel."""

from __future__ import annotations

import numpy as np
from scenes import make_params, make_rig

from being_rt.avatar.avatar import Camera
from being_rt.dataset.regions import project
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import skin
from being_rt.track.placement import centred


def test_no_pixel_moves() -> None:
    rig = make_rig(np.random.default_rng(0))
    params = make_params(9, seed=4, strength=1.0)
    away = params.replace(
        rotation=params.rotation + np.array([0.3, -0.5, 0.1]),
        translation=params.translation + np.array([0.1, 0.2, -0.9]),
    )
    pose = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    camera = Camera(pose, np.array([[900, 0, 320], [0, 900, 240], [0, 0, 1]], np.float32), (640, 480))
    chosen = np.arange(9) != 4
    moved, seen_by = centred(away, camera, rig, chosen)
    before, _ = project(skin(rig, away), camera)
    after, _ = project(skin(rig, moved), seen_by)
    np.testing.assert_allclose(after, before, atol=2e-2)
    np.testing.assert_allclose(moved.translation[chosen].mean(0), 0, atol=1e-6)
    mean = matrices(moved.rotation[chosen]).mean(0)
    np.testing.assert_allclose(mean, mean.T, atol=1e-6)  # a mean of rotations without a turn is symmetric
    again, same = centred(moved, seen_by, rig, chosen)
    np.testing.assert_allclose(again.translation, moved.translation, atol=1e-6)
    np.testing.assert_allclose(same.world_to_camera, seen_by.world_to_camera, atol=1e-5)
