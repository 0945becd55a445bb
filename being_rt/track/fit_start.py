"""A first guess of where the head is in every frame, from its landmarks alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.rotations import matrix_axis_angles, nearest_rotations
from being_rt.track.fit_residuals import Observed
from being_rt.track.fit_rig import PLACE, ROTATION, LandmarkRig, SharedParameters

Float64 = NDArray[np.float64]


def first_poses(rig: LandmarkRig, observed: Observed, shared: SharedParameters) -> Float64:
    """Parameters [T, P] of a resting face whose pose fits each frame, as if the camera were far away.

    Seen from far away, pixels are an affine map of points of the head: scale times two rows of a rotation. It is found
    by linear least squares and made a rotation afterwards (Dementhon and Davis, "Model-based object pose in 25 lines of
    code", IJCV 15, 1995, without its iterations, which the fit itself replaces). Frames without a face, and frames
    whose landmarks are no face's, are interpolated.
    """
    points = rig.rest(shared)[:, 0:3]
    trust = np.where(observed.contour, 0.0, observed.weight.max(0, initial=0.0))
    trust = trust / trust.sum()
    mean = trust @ points
    centred = points - mean
    normal = np.linalg.inv((trust[:, None] * centred).T @ centred)
    middle = np.einsum("l,tla->ta", trust, observed.pixels)
    affine = np.einsum("tla,l,lb->tab", observed.pixels - middle[:, None], trust, centred @ normal, optimize=True)
    affine[:, 1] *= -1  # y points up in the world
    scale = np.sqrt((affine**2).sum((1, 2)) / 2)
    seen = (observed.weight.any(1)) & (scale > 1e-6)
    frames = np.zeros((len(observed), rig.columns))
    if not seen.any():
        return frames
    rows = np.where(seen[:, None, None], affine / np.maximum(scale, 1e-6)[:, None, None], np.eye(3)[:2])
    rotation = nearest_rotations(np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], 1))
    frames[:, ROTATION] = matrix_axis_angles(rotation)
    # The pixel of the template's middle, from that of the landmarks' weighted mean.
    middle = middle - np.einsum("tab,b->ta", affine, mean) * [1.0, -1.0] - rig.centre
    frames[:, PLACE] = np.concatenate([middle / rig.unit, -np.log(np.maximum(scale, 1e-6))[:, None]], 1)
    return interpolated(frames, seen)


def interpolated(frames: Float64, known: NDArray[np.bool_]) -> Float64:
    """Rows [T, P] that are not known, linearly from their neighbours that are; held beyond the ends."""
    at = np.flatnonzero(known)
    every = np.arange(len(frames))
    return np.stack([np.interp(every, at, column) for column in frames[at].T], 1)
