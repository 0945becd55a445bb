"""A head's track as that of a person with shoulders, by the landmarks themselves, before any picture is looked at.

A fitter of faces moves the whole person with the head. What the trainer does with such a track
(:func:`being_rt.train.tracks.steady`) filters the translation and lets the neck lean; of a head that bobs along its own
neck it loses the fast half. Here the same is asked of everything at once: where are the landmarks best explained by a
translation that hardly accelerates, by a lean, and by a turn of the neck? The face stays as it is. Where shoulders were
found in the pictures, the translation follows them, and lean and neck carry the head to where its landmarks are.
"""

from __future__ import annotations

import numpy as np

from being_rt.avatar.avatar import Camera
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.track.photometric import PhotometricConfig
from being_rt.track.photometric_gate import Landmarks
from being_rt.track.photometric_landmarks import LandmarkLooker
from being_rt.track.photometric_parameters import POSE, Parameters
from being_rt.track.photometric_shoulders import ShouldersLooker
from being_rt.track.photometric_solve import MotionPrior
from being_rt.track.photometric_views import chunks, packed_row, unpacked
from being_rt.track.shoulders import Shoulders
from being_rt.train.tracks import second_differences, steady

ITERATIONS = 2
FOUND_ITERATIONS = 4  # where shoulders take the body far from where the start has it
LEAN = 0.1  # radians, deviation of lean and neck then
_TOGETHER = 16  # frames


def settle(
    params: FlameParams,
    rig: Rig,
    camera: Camera,
    landmarks: Landmarks | None,
    config: PhotometricConfig,
    device: str = "cpu",
    shoulders: Shoulders | None = None,
) -> FlameParams:
    """The same motion of the face on shoulders that move slowly, or as they were seen to.

    Args:
        params: any motion. One that uses the neck is taken to know of shoulders already.
        landmarks: what was seen; None: the trainer's way.
        camera: of the full frames.
        shoulders: where they were found in the pictures; None: they are believed to move as little as can be.

    Example::

        params = settle(dataset.params, dataset.rig, dataset.cameras[0], landmarks, PhotometricConfig())
    """
    start = steady(params, rig, camera)
    if landmarks is None or start is params:
        return start
    rows = packed_row(start)
    own = Parameters.of(rig, start, 0).only(*POSE)
    looker = LandmarkLooker(
        landmarks, rig, camera, rows, own.columns, own.steps, config.landmarks, config.landmarks, device
    )
    body = None if shoulders is None else ShouldersLooker(shoulders, rig, camera, rows, own.columns)
    x = rows[:, own.columns].copy()
    free = own.correction.copy()
    if body is not None:
        free[own.chosen("rotation", "neck")] = LEAN
    prior = MotionPrior(
        x.copy(),
        np.tile(free**-2.0, (len(x), 1)),
        own.acceleration**-2.0,
        second_differences(start, np.arange(len(x))),
    )
    for _ in range(ITERATIONS if body is None else FOUND_ITERATIONS):
        hessian, gradient = np.zeros((*x.shape, x.shape[1])), np.zeros(x.shape)
        for part in chunks(len(x), _TOGETHER):
            times = np.arange(part.start, part.stop)
            hessian[part], gradient[part] = looker.look(times, rows[part]).equations()
            if body is not None:
                matrix, pull = body.equations(times, rows[part], x.shape[1])
                hessian[part] += matrix
                gradient[part] += pull
        x = x + prior.step(x, hessian, gradient)
        rows[:, own.columns] = x
    return unpacked(rows, params.fps)
