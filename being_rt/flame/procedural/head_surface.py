"""The skin of one person as a signed distance function."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.procedural import surface
from being_rt.flame.procedural._scipy import scipy_ndimage

Float64 = NDArray[np.float64]

_LOW, _HIGH = np.array([-0.160, -0.260, -0.220]), np.array([0.160, 0.200, 0.130])
_CELL = 0.0065  # metres; the traits vary over 5 mm and more
_RANDOM_CELL = 0.016  # those random fields that are not tiny vary over 10 cm


class _Table:
    """A vector field on a grid, interpolated by cubic splines."""

    def __init__(self, cell: float) -> None:
        axes = [np.arange(low, high + cell, cell) for low, high in zip(_LOW, _HIGH, strict=True)]
        self.cell = cell
        self.shape = tuple(len(axis) for axis in axes)
        self.points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        self.coefficients: Float64 | None = None

    def fill(self, values: Float64) -> _Table:
        filtered = [scipy_ndimage().spline_filter(v.reshape(self.shape), order=3) for v in values.T]
        self.coefficients = np.stack(filtered)
        return self

    def __call__(self, points: Float64) -> Float64:
        assert self.coefficients is not None
        at = ((points - _LOW) / self.cell).T
        look_up = scipy_ndimage().map_coordinates
        return np.stack([look_up(c, at, order=3, mode="nearest", prefilter=False) for c in self.coefficients], -1)


class HeadSurface:
    """Signed distance to the skin (head, ears, neck; closed lips and lids) of one identity, at rest.

    A person is a smooth warp of the average head (see ``shape_space``). A point is taken back through the inverse of
    that warp, tabulated once on a grid, and measured against the average head; the mesh of the identity thus lies on
    the zero level, to about a tenth of a millimetre. Distances are in metres, negative inside, to first order true
    near the skin and no more than a guide beyond some 3 cm.

    Args:
        shape: [300] identity coefficients of :func:`procedural_head`'s model; None is the average head.

    Example::

        surface = HeadSurface(procedural_identity(seed=3))
        height = surface.signed_distance(points)  # points [N, 3] float64 -> [N]
    """

    def __init__(self, shape: NDArray[np.floating] | None = None) -> None:
        from being_rt.flame.procedural import identity_weights  # the basis lives with the model
        from being_rt.flame.procedural.shape_space import displacement, random_displacement

        self._inverse: _Table | None = None
        if shape is None or not np.any(shape):
            return
        weights = identity_weights(shape)
        coarse, fine = _Table(_RANDOM_CELL), _Table(_CELL)
        coarse.fill(random_displacement(coarse.points, weights))
        warp = _Table(_CELL).fill(displacement(fine.points, weights, coarse))
        source = fine.points
        for _ in range(4):  # fixed point of source = point - warp(source); the warp is a contraction
            source = fine.points - warp(source)
        self._inverse = fine.fill(source - fine.points)

    def to_average(self, points: Float64) -> Float64:
        """The points [..., 3] of the average head that this person's warp carries to ``points``."""
        points = np.asarray(points, dtype=np.float64)
        if self._inverse is None:
            return points
        flat = points.reshape(-1, 3)
        return (flat + self._inverse(flat)).reshape(points.shape)

    def signed_distance(self, points: Float64) -> Float64:
        """Distance [...] of points [..., 3] to the skin in metres, negative inside."""
        return surface.head_distance(self.to_average(points))

    def normal(self, points: Float64) -> Float64:
        """Outward unit normals [..., 3] of the level sets at points [..., 3]."""
        g = surface.gradient(np.asarray(points, dtype=np.float64), self.signed_distance)
        return g / (np.linalg.norm(g, axis=-1, keepdims=True) + 1e-12)

    def project(self, points: Float64, iterations: int = 3) -> Float64:
        """Points [N, 3] moved onto the skin along its gradient, at most 4 mm an iteration."""
        return surface.project(np.asarray(points, dtype=np.float64), self.signed_distance, iterations)
