"""Hair and whatever else of the head the mesh does not reach: a rounded volume behind the outline in the photograph.

Its front is the height field h over the plane through the ears with ``laplace(h^2) = -4``, zero at the outline and the
face's own where it meets the face: for a disc that is a hemisphere (inflation of an outline: Joshi and Carr,
"Repousse: automatic inflation of 2D artwork", SBM 2008). The back is its mirror image, so that a head that turns shows
hair and no edge of a sheet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import unit
from being_rt.portrait.cells import Cells, cut, cut_at_most
from being_rt.portrait.splats import Bool, Bound, Float64, Splats
from being_rt.portrait.view import View, eye_point, faces_of, laid, unprojected

CONTRAST, MOST = 14, 120_000  # of 255: flatter cells are taken as one; of them
GRID = 150  # cells along the longer side of the hair, for its relief
ABOVE = 0.003  # metres: hair over skin
ROUND = 4.0  # of the inflation
_VOLUMINOUS = 0.15  # share of the hair that lies beside the mesh where hair is a volume of its own
_SHADE = 0.82  # brightness of the back, which no light of the face's reaches


def relief(view: View) -> tuple[Float64, float]:
    """Height [H, W] towards the camera, metres, of hair over the plane through the ears, and that plane's depth."""
    from scipy import ndimage, sparse
    from scipy.sparse.linalg import spsolve

    pose = view.camera.world_to_camera.astype(np.float64)
    ears = view.vertices[view.subject.model.regions["ears"]]
    plane = float(np.median(ears @ pose[2, :3] + pose[2, 3]))
    height = np.zeros(view.hair.shape)
    rows, columns = np.flatnonzero(view.hair.any(1)), np.flatnonzero(view.hair.any(0))
    if not len(rows):
        return height, plane
    step = max(1, -(-max(rows[-1] - rows[0], columns[-1] - columns[0]) // GRID))
    top, left = max(rows[0] - 2 * step, 0), max(columns[0] - 2 * step, 0)
    box = np.s_[top : rows[-1] + 2 * step + 1 : step, left : columns[-1] + 2 * step + 1 : step]
    region = np.pad(view.hair[box], 1)
    face = np.pad((view.skin | view.mouth | view.eyes)[box], 1)
    person = region | face | np.pad(view.body[box], 1)
    over = np.pad(np.where(np.isfinite(view.depth[box]), plane - view.depth[box], 0.0), 1)
    metre = step * plane / float(view.camera.intrinsics[0, 0])
    number = np.full(region.shape, -1)
    number[region] = np.arange(region.sum())
    count = int(region.sum())
    y, x = np.nonzero(region)
    diagonal, right = np.zeros(count), np.full(count, ROUND * metre**2)
    row, column = [], []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        ny, nx = y + dy, x + dx
        beside, own = number[ny, nx], np.arange(count)
        inner = beside >= 0
        row.append(own[inner])
        column.append(beside[inner])
        fixed = ~inner & (face[ny, nx] | ~person[ny, nx])  # nothing is said where it meets the body
        diagonal += inner | fixed
        right += np.where(fixed & face[ny, nx], np.maximum(over[ny, nx], 0) ** 2, 0)
    system = sparse.coo_matrix(
        (-np.ones(sum(map(len, row))), (np.concatenate(row), np.concatenate(column))), shape=(count, count)
    ) + sparse.diags(np.maximum(diagonal, 1e-3))
    solved = np.zeros(region.shape)
    solved[region] = np.sqrt(np.maximum(spsolve(system.tocsc(), right), 0))
    solved[face & ~region] = np.maximum(over, 0)[face & ~region]
    smooth = ndimage.gaussian_filter(solved, 0.8)[1:-1, 1:-1]
    full_y = (np.arange(view.hair.shape[0]) - top) / step
    full_x = (np.arange(view.hair.shape[1]) - left) / step
    height = ndimage.map_coordinates(smooth, np.meshgrid(full_y, full_x, indexing="ij"), order=1, mode="nearest")
    skull = np.where(np.isfinite(view.depth), plane - view.depth + ABOVE, 0)
    return np.where(view.hair, np.maximum(height, skull), 0), plane


def hair(view: View, below: float) -> tuple[Bound, tuple[Cells, Float64]]:
    """Gaussians of the head's hair, and cells and places of what hangs lower than ``below`` (y, metres)."""
    height, plane = relief(view)
    cells = cut_at_most(view.with_alpha, view.hair, CONTRAST, MOST, largest=4)
    x, y = cells.pixel.astype(np.int64).T
    depth = plane - height
    place = unprojected(view.camera, cells.pixel, depth[y, x])
    normal = _normals(view, depth, view.hair)[y, x]
    low = place[:, 1] < below
    hanging = cells.chosen(low), place[low]
    front = laid(view, cells.pixel[~low], cells.side[~low], place[~low], normal[~low], facing=False)
    # Short hair needs no back of its own: the mesh has one.
    voluminous = (view.hair & ~np.isfinite(view.depth)).sum() > _VOLUMINOUS * view.hair.sum()
    behind = view.hair & (view.subject.alpha >= 250) & voluminous
    back_cells = cut(view.colours, behind, 60, largest=2)
    bx, by = back_cells.pixel.astype(np.int64).T
    mirrored = unprojected(view.camera, back_cells.pixel, plane + height[by, bx] + 0.002)
    kept = mirrored[:, 1] >= below
    away = _normals(view, plane + height, view.hair)[by, bx]
    back = laid(view, back_cells.pixel, back_cells.side, mirrored, away, facing=False)
    back = back._replace(
        colour=back.colour * _SHADE, seen=np.zeros(len(mirrored), bool), factor=1.2 * back.factor
    ).chosen(kept)
    return Bound.concatenate([_carried(view, front), _carried(view, back)]), hanging


def _carried(view: View, splats: Splats) -> Bound:
    """Bound to the nearest triangles of the skull."""
    from scipy.spatial import cKDTree

    rig = view.subject.rig
    scalp = np.flatnonzero(faces_of(view.subject, ("scalp",)) & (rig.face_frames != 0).any((1, 2)))
    if not len(splats.place):
        return Bound(splats, np.zeros(0, np.int64), np.zeros((0, 3)))
    nearest = cKDTree(view.vertices[rig.faces[scalp]].mean(1)).query(splats.place)[1]
    return Bound(splats, scalp[nearest], np.full((len(nearest), 3), 1 / 3))


def _normals(view: View, depth: Float64, region: Bool) -> NDArray[np.float64]:
    """Normals [H, W, 3] of a surface at a depth [H, W] behind the pixels of a region, turned to the camera."""
    from scipy import ndimage

    weight = ndimage.gaussian_filter(region.astype(np.float64), 1.5) + 1e-6
    smooth = ndimage.gaussian_filter(np.where(region, depth, 0), 1.5) / weight
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    pixel = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1)
    place = unprojected(view.camera, pixel, smooth.ravel()).reshape(*depth.shape, 3)
    normal = unit(np.cross(np.gradient(place, axis=0), np.gradient(place, axis=1)))
    view_direction = eye_point(view.camera) - place
    return np.asarray(normal * np.where(np.sum(normal * view_direction, -1) < 0, -1.0, 1.0)[..., None])
