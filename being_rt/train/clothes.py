"""What the person wears, in the pictures: clothes go with the body, whatever part of a head's mesh lies behind them."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.dataset.labels import BACKGROUND, TORSO, Labeller
from being_rt.dataset.reduced import ReducedDataset
from being_rt.dataset.regions import face_regions, project
from being_rt.flame.skinning import skin

Bool = NDArray[np.bool_]

SIDE = 300  # pixels of the shorter side at which clothes are told from skin
MOST = 0.5  # of the frames
SWAY = 6  # pixels around, where the body comes to at times: most of the frames that show anything there will do


class Clothes(NamedTuple):
    """Where most frames show clothes."""

    pixels: Bool  # [h, w] of the reduced frames
    reduction: int  # pixels of a frame that one of these is wide
    triangles: Bool  # [F] of the mesh, those that they lie over; none but the neck's

    def at(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> Bool:
        """Whether there are clothes at places of the frame, pixels [n] each; no in its last, incomplete block."""
        return _at(self.pixels, x / self.reduction, y / self.reduction)


def find_clothes(dataset: Dataset, frames: NDArray[np.int32]) -> Clothes | None:
    """Look at frames of the first camera; None where one has no mask, or SciPy is not installed.

    Raises:
        DatasetError: a picture cannot be read.

    Example::

        clothes = find_clothes(dataset, dataset.split("train")[::50])
    """
    if not len(frames) or not all(dataset.has_mask(int(frame)) for frame in frames):
        return None
    if importlib.util.find_spec("scipy") is None:
        return None
    from scipy import ndimage

    small = ReducedDataset.of(dataset, max(1, round(min(dataset.size) / SIDE)))
    camera, rig = small.cameras[0], small.rig
    labeller = Labeller(rig, camera)
    within = np.zeros(len(rig.template), bool)
    within[face_regions(rig)["neck"]] = True
    neck = np.flatnonzero(within[rig.faces].all(1))
    seen, clad = np.zeros((2, camera.size[1], camera.size[0]))
    hidden = np.zeros(len(neck))
    for frame in frames.tolist():
        motion = small.params[int(small.timestep[frame])]
        labels = labeller.label(motion, small.mask(frame), small.image(frame))
        worn = labels == TORSO
        seen += labels != BACKGROUND
        clad += worn
        x, y = project(skin(rig, motion)[0][rig.faces[neck]].astype(np.float64).mean(1), camera)[0].T
        hidden += _at(worn, x, y)
    triangles = np.zeros(len(rig.faces), bool)
    triangles[neck[hidden > MOST * len(frames)]] = True
    around = ndimage.binary_dilation(clad > MOST * len(frames), iterations=SWAY)
    return Clothes((clad > MOST * seen) & around, small.reduction, triangles)


def _at(mask: Bool, x: NDArray[np.floating], y: NDArray[np.floating]) -> Bool:
    """Values of a mask [h, w] at places; False outside and where they are not finite."""
    height, width = mask.shape
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    column, row = (np.where(inside, axis, 0).astype(np.intp) for axis in (x, y))
    return inside & mask[row, column]
