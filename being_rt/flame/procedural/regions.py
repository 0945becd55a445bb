"""Names for the parts of the mesh (vertex sets) and landmarks on it (points of triangles)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.procedural._scipy import scipy_spatial
from being_rt.flame.procedural.surface import (
    CHIN_Y,
    FACE_HALF_WIDTH,
    FACE_WIDEST_Z,
    MOUTH_HALF_WIDTH,
    front,
    lip_coordinate,
    project,
    skull_distance,
)
from being_rt.flame.procedural.topology import (
    EYE_COLUMNS,
    LID_RIM_ROW,
    LIP_ROWS,
    MOUTH_COLUMNS,
    MOUTH_CORNER,
    HeadMesh,
    Part,
)

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Landmarks = dict[str, tuple[Int32, Float32]]


def hairline(points: Float64) -> Float64:
    """Signed height above the hairline in metres, positive where hair grows. Points [N, 3] -> [N]."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    forehead = y - (0.0950 - 0.75 * np.clip(0.026 - z, 0.0, 0.5) + 0.004 * np.exp(-(((x - 0.040) / 0.014) ** 2)))
    sideburn = np.minimum.reduce([-0.022 - z, z + 0.040, y - 0.006])
    hair = np.maximum(np.minimum(forehead, (-0.008 - z) + 1.1 * (y - 0.030)), sideburn)
    nape = np.minimum(-0.066 - z - 0.45 * np.clip(-y, 0.0, 0.1), y + 0.062)
    hair = np.maximum(hair, nape)
    around_ear = np.hypot((z + 0.051) / 0.022, (y - 0.003) / 0.036) - 1.0
    return np.where(x > 0.060, np.minimum(hair, around_ear * 0.03), hair)


def brow_line(x: Float64) -> tuple[Float64, Float64]:
    """Centre height and half thickness of the eyebrow at distance |x| from the midline (zero thickness outside it)."""
    ax = np.abs(x)
    stations = [0.0100, 0.0130, 0.0220, 0.0340, 0.0420, 0.0490]
    height = np.interp(ax, stations, [0.0425, 0.0435, 0.0465, 0.0488, 0.0472, 0.0430])
    half = np.interp(ax, stations, [0.0, 0.0030, 0.0032, 0.0026, 0.0016, 0.0])
    return height, half


def build_regions(mesh: HeadMesh) -> dict[str, Int32]:
    """Vertex indices by name; sets may overlap (``lips`` lies in ``face``)."""
    v, part = mesh.vertices, mesh.part
    x, y, z = v.T
    skin = (part <= Part.LIPS) | (part == Part.EAR)
    t = lip_coordinate(x, y)
    lips = (part == Part.LIPS) & (np.abs(t) < 1.08) & (np.abs(x) < MOUTH_HALF_WIDTH + 0.0015)
    scalp = (part == Part.SKIN) & (hairline(v) > 0.0)
    ears = part == Part.EAR
    neck = skin & ~scalp & ~ears & ((y < -0.098) | ((y < -0.070) & (z < -0.045 + 0.9 * (-0.070 - y))))
    height, half = brow_line(x)
    rim = np.zeros(len(v), dtype=bool)
    for ids in (mesh.neck_ring, mesh.mirror[mesh.neck_ring]):
        rim[ids] = True
    upper_rows = np.zeros(len(v), dtype=bool)
    for row in mesh.mouth_rows[1:LIP_ROWS]:
        for ids in (row, mesh.mirror[row]):
            upper_rows[ids[: MOUTH_COLUMNS // 2 + 1]] = True
    masks = {
        "face": skin & ~scalp & ~neck & ~ears,
        "scalp": scalp,
        "neck": neck,
        "lips": lips,
        "lips_upper": lips & upper_rows,
        "lips_lower": lips & ~upper_rows,
        "left_eye": (part == Part.EYELIDS) & (x > 0),
        "right_eye": (part == Part.EYELIDS) & (x < 0),
        "left_eyeball": (part == Part.EYEBALL) & (x > 0),
        "right_eyeball": (part == Part.EYEBALL) & (x < 0),
        "teeth_upper": part == Part.UPPER_TEETH,
        "teeth_lower": part == Part.LOWER_TEETH,
        "mouth_interior": part == Part.MOUTH_INTERIOR,
        "tongue": part == Part.TONGUE,
        "ears": ears,
        "nose": (part == Part.SKIN) & (np.abs(x) < 0.0185) & (np.abs(y + 0.002) < 0.021) & (z > 0.046),
        "brows": (part <= Part.EYELIDS) & (np.abs(y - height) < half + 0.0028) & (half > 0.0) & (z > 0.0),
        "boundary": rim,
    }
    return {name: np.flatnonzero(mask).astype(np.int32) for name, mask in masks.items()}


def _embed_vertices(mesh: HeadMesh, ids: NDArray[np.int64]) -> tuple[Int32, Float32]:
    faces, corners = [], []
    for i in ids:
        face, corner = np.argwhere(mesh.faces == i)[0]
        faces.append(face)
        corners.append(np.eye(3)[corner])
    return np.array(faces, dtype=np.int32), np.array(corners, dtype=np.float32)


def _embed_points(mesh: HeadMesh, points: Float64) -> tuple[Int32, Float32]:
    """The nearest point on the skin of each point [N, 3]."""
    skin = np.flatnonzero((mesh.part[mesh.faces] <= Part.LIPS).all(1))
    triangles = mesh.vertices[mesh.faces[skin]]
    _, near = scipy_spatial().cKDTree(triangles.mean(1)).query(points, 8)
    face, weights = [], []
    for point, candidates in zip(points, near, strict=True):
        best = (np.inf, 0, np.zeros(3))
        for k in candidates:
            corners = triangles[k]
            edges = np.stack([corners[1] - corners[0], corners[2] - corners[0]], 1)
            b = np.linalg.lstsq(edges, point - corners[0], rcond=None)[0]
            bary = np.clip([1.0 - b.sum(), *b], 0.0, 1.0)
            bary /= bary.sum()
            best = min(best, (float(np.linalg.norm(bary @ corners - point)), int(skin[k]), bary), key=lambda c: c[0])
        face.append(best[1])
        weights.append(best[2])
    return np.array(face, dtype=np.int32), np.array(weights, dtype=np.float32)


def _mirrored(points: Float64) -> Float64:
    return points * [-1.0, 1.0, 1.0]


def _join(*groups: tuple[Int32, Float32]) -> tuple[Int32, Float32]:
    return np.concatenate([g[0] for g in groups]), np.concatenate([g[1] for g in groups])


def build_landmarks(mesh: HeadMesh) -> Landmarks:
    """Landmark sets, each (triangle [L], barycentric [L, 3]).

    - ``dlib68``: the 68 points of iBUG 300-W in dlib's order (jaw from the subject's right, right brow, left brow,
      nose bridge, nose base, right eye, left eye, outer lips, inner lips).
    - ``dense105``: 28 lid points (left eye 14 from the outer corner over the upper lid, right eye likewise), 40 lip
      points (outer border 20 from the subject's right corner over the upper lip, inner border 20 likewise), 20 brow
      points (left 10 from the inner end: 5 upper edge, 5 lower edge; right likewise), 4 nose bridge points downwards,
      9 nose base points from the subject's right, then glabella, chin, left cheekbone, right cheekbone.
    - ``inner_lips_upper`` / ``inner_lips_lower``: the lips' inner edges, 21 paired columns from the subject's right
      corner to the left; the distance of pair k is the gap between the lips there (the corner pairs coincide).
    - ``eyelid_upper_left`` / ``eyelid_lower_left`` and ``..._right``: lid margins, 15 paired columns from the outer
      corner to the inner.
    """
    mirror = mesh.mirror
    inner, border = mesh.mouth_rows[LIP_ROWS - 1], mesh.mouth_rows[2]
    top = np.arange(MOUTH_COLUMNS // 2 + 1)  # midline to corner
    bottom = MOUTH_COLUMNS - 1 - top

    def across(row: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """A lip edge from the subject's right corner to the left."""
        return np.concatenate([mirror[row[columns[:0:-1]]], row[columns]])

    def around(row: NDArray[np.int64], step: int) -> NDArray[np.int64]:
        """A closed lip border from the right corner over the upper lip, every ``step`` columns."""
        upper, lower = across(row, top), across(row, bottom)
        return np.concatenate([upper, lower[-2:0:-1]])[::step]

    rim = mesh.eye_rows[LID_RIM_ROW]
    half = EYE_COLUMNS // 2
    upper_lid, lower_lid = np.arange(half + 1), (-np.arange(half + 1)) % EYE_COLUMNS
    result: Landmarks = {
        "inner_lips_upper": _embed_vertices(mesh, across(inner, top)),
        "inner_lips_lower": _embed_vertices(mesh, across(inner, bottom)),
        "eyelid_upper_left": _embed_vertices(mesh, rim[upper_lid]),
        "eyelid_lower_left": _embed_vertices(mesh, rim[lower_lid]),
        "eyelid_upper_right": _embed_vertices(mesh, mirror[rim[upper_lid]]),
        "eyelid_lower_right": _embed_vertices(mesh, mirror[rim[lower_lid]]),
    }

    jaw_y = np.array([0.018, -0.002, -0.021, -0.040, -0.056, -0.069, -0.079, -0.085])
    jaw = np.stack([FACE_HALF_WIDTH(jaw_y), jaw_y, FACE_WIDEST_Z(jaw_y)], 1)
    jaw[:, 2] += 0.018 * (jaw_y > -0.03)  # before the ear
    jaw = project(jaw, skull_distance, 4)
    chin = project(np.array([[0.0, CHIN_Y - 0.001, 0.043]]), skull_distance, 4)
    brow_x = np.array([0.0130, 0.0210, 0.0290, 0.0380, 0.0470])
    brow = front(brow_x, brow_line(brow_x)[0])
    bridge = front(np.zeros(4), np.array([0.0260, 0.0140, 0.0030, -0.0085]))
    base_x = np.array([0.0, 0.0065, 0.0125])
    base = front(base_x, np.array([-0.0215, -0.0200, -0.0180]))
    eye = np.array([14, 10, 5, 0, 23, 18])  # inner corner, upper lid, outer corner, lower lid
    corners = inner[[MOUTH_CORNER]]
    upper_border, lower_border = across(border, top), across(border, bottom)
    outer_ids = np.concatenate(
        [mirror[corners], upper_border[[4, 7, 10, 13, 16]], corners, lower_border[[16, 13, 10, 7, 4]]]
    )
    inner_ids = np.concatenate([across(inner, top)[[1, 6, 10, 14, 19]], across(inner, bottom)[[14, 10, 6]]])
    result["dlib68"] = _join(
        _embed_points(mesh, np.concatenate([_mirrored(jaw), chin, jaw[::-1]])),
        _embed_points(mesh, np.concatenate([_mirrored(brow)[::-1], brow])),
        _embed_points(mesh, np.concatenate([bridge, _mirrored(base)[:0:-1], base])),
        _embed_vertices(mesh, mirror[rim[[0, 5, 10, 14, 18, 23]]]),
        _embed_vertices(mesh, rim[eye]),
        _embed_vertices(mesh, outer_ids),
        _embed_vertices(mesh, inner_ids),
    )

    edge = brow_line(brow_x)[1]
    brow_edges = np.concatenate(
        [front(brow_x, brow_line(brow_x)[0] + edge), front(brow_x, brow_line(brow_x)[0] - edge)]
    )
    wide_x = np.array([0.0, 0.0040, 0.0080, 0.0115, 0.0150])
    wide = front(wide_x, np.array([-0.0215, -0.0210, -0.0198, -0.0185, -0.0140]))
    single = np.concatenate(
        [front(np.zeros(1), np.array([0.0440])), chin, front(np.array([0.047, -0.047]), np.array([-0.003, -0.003]))]
    )
    result["dense105"] = _join(
        _embed_vertices(mesh, np.concatenate([rim[::2], mirror[rim[::2]]])),
        _embed_vertices(mesh, np.concatenate([around(border, 2), around(inner, 2)])),
        _embed_points(mesh, np.concatenate([brow_edges, _mirrored(brow_edges)])),
        _embed_points(mesh, np.concatenate([bridge, _mirrored(wide)[:0:-1], wide, single])),
    )
    return result
