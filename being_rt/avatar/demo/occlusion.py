"""What casts shadows on the face: the head itself and its mass of hair, as one sampled distance field."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import HeadLayer
from being_rt.avatar.demo.cloud import rest_positions
from being_rt.avatar.demo.lighting import Distance
from being_rt.avatar.demo.strands import SampledField
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]
_CELL = 0.003  # metres
_EXACT = 0.007  # metres from the skin within which the exact distance is used
_DENSE = 0.9  # summed opacity per cell, after blurring, at which hair counts as solid


def hair_and_head(rig: Rig, field: SampledField, surface: Distance, hair: HeadLayer) -> Distance:
    """Signed distance of head and hair together, looked up in a grid of 3 mm cells.

    ``field`` is the same head's distance on a coarser grid, good enough away from the skin, where ``surface`` is not
    asked. Hair becomes a solid where its Gaussians are dense; single strands cast no shadow.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

    vertices = rig.template.astype(np.float64)
    low = vertices.min(0) - [0.05, 0.03, 0.05]
    counts = np.ceil((vertices.max(0) + 0.05 - low) / _CELL).astype(int)
    axes = [low[axis] + _CELL * np.arange(counts[axis]) for axis in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values = field.distance(grid)
    near = np.flatnonzero(np.abs(values) < _EXACT)
    values[near] = surface(grid[near])
    values = values.reshape(counts)

    place = rest_positions(rig, hair)
    cell = np.round((place - low) / _CELL).astype(int)
    inside = ((cell >= 0) & (cell < counts)).all(1)
    density = np.zeros(counts)
    np.add.at(density, tuple(cell[inside].T), 1.0)
    solid = gaussian_filter(density, 1.3) * 8.0 > _DENSE
    if solid.any():
        outside = distance_transform_edt(~solid) * _CELL
        values = np.minimum(values, outside - 0.5 * _CELL)

    def distance(points: Array) -> Array:
        return map_coordinates(values, ((points - low) / _CELL).T, order=1, mode="nearest")

    return distance
