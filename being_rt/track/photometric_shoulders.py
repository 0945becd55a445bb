"""What shoulders that were found in pictures say of a motion, in the form that landmarks and pixels say it in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.regions import project
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.track.photometric_views import packed_row
from being_rt.track.shoulders import Shoulders
from being_rt.train.tracks import COLUMNS

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Deviation of what is found, in parts of the picture's width, however sharp the clothes: they fold, and slide over a
# body that turns. Of a shift; of growth, which a chest that leans and a neck that hides it feign.
ERRORS = (0.0016, 0.0016, 0.0024)
_STEP = 1e-4  # metres


class ShouldersLooker:
    """Compares where a motion has the body with where the pictures have it.

    A torso follows the translation, so a point of it tells: the one that is seen in the middle of the clothes, as far
    away as the neck. Where it lies is of no interest, only how it moves: what both are apart usually is taken off.

    Args:
        found: of all timesteps.
        rig: the person's.
        camera: of the full frames.
        given: [T, 120] a motion that is about right: says where the point is, and what is usual.
        columns: [P] of a motion's row, those that are solved for.
    """

    def __init__(self, found: Shoulders, rig: Rig, camera: Camera, given: Float64, columns: Int64) -> None:
        self._found, self._camera = found, camera
        place = COLUMNS["translation"]
        self._columns = np.arange(place.start, place.stop)
        self._into = np.array([columns.tolist().index(column) for column in self._columns])
        resting = np.median(given[found.known][:, self._columns], axis=0)
        pose = camera.world_to_camera.astype(np.float64)
        neck = pose[:3, :3] @ (rig.joint_rest[1] + resting) + pose[:3, 3]
        self._depth = float(neck[2])
        ray = np.linalg.inv(camera.intrinsics.astype(np.float64)) @ [*found.middle, 1.0]
        self._point = pose[:3, :3].T @ (self._depth * ray - pose[:3, 3]) - resting
        floor = np.diag((np.array(ERRORS) * camera.size[0]) ** 2)
        self._information = np.linalg.solve(np.eye(3) + found.information @ floor, found.information)
        self._usual = np.zeros(3)
        self._usual = np.median(self.off(np.arange(len(given)), given)[found.known], axis=0)

    def off(self, times: Int64, rows: Float64) -> Float64:
        """Differences [n, 3] px of a motion [n, 120], as :attr:`Shoulders.motion` has them."""
        pixels, depth = project(self._point + rows[:, self._columns], self._camera)
        growth = self._found.reach * (self._depth / depth - 1)
        return np.concatenate([pixels, growth[:, None]], 1) - self._found.motion[times] - self._usual

    def equations(self, times: Int64, rows: Float64, parameters: int) -> tuple[Float64, Float64]:
        """Gauss and Newton's matrices [n, P, P] and gradients [n, P] of half the weighted sum of squares."""
        off = self.off(times, rows)
        change = np.zeros((len(times), 3, 3))
        for axis, column in enumerate(self._columns):
            varied = rows.copy()
            varied[:, column] += _STEP
            change[:, :, axis] = (self.off(times, varied) - off) / _STEP
        weighted = np.einsum("tia,tij->taj", change, self._information[times])
        matrix, gradient = np.zeros((len(times), parameters, parameters)), np.zeros((len(times), parameters))
        matrix[np.ix_(np.arange(len(times)), self._into, self._into)] = weighted @ change
        gradient[:, self._into] = np.einsum("taj,tj->ta", weighted, off)
        return matrix, gradient


def body_off(found: Shoulders, rig: Rig, camera: Camera, params: FlameParams) -> Float64:
    """How far [n, 2] px a motion's body lies off the shoulders, in frames that they were found in.

    Example::

        print(np.median(np.abs(body_off(found, rig, camera, params)), axis=0))
    """
    rows = packed_row(params)
    looker = ShouldersLooker(found, rig, camera, rows, np.arange(rows.shape[1]))
    return looker.off(np.arange(len(rows)), rows)[found.known, :2]
