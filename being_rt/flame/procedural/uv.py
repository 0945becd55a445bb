"""Texture coordinates: one cylindrical chart for the skin, round or oblong islands for everything hidden in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.procedural.surface import CROWN_Y, EYE, NECK_CUT_Y
from being_rt.flame.procedural.topology import (
    EAR_COLUMNS,
    LID_RIM_ROW,
    LIP_ROWS,
    MOUTH_COLUMNS,
    TONGUE_ROWS,
    HeadMesh,
    Part,
)

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

_SKIN_BOTTOM = 0.22  # v below which the islands lie


def _skin_chart(mesh: HeadMesh) -> Float64:
    """u by azimuth (cut at the back of the head), v by height; lid rows behind the rim lie inside the eye's hole."""
    x, y, z = mesh.vertices.T
    u = 0.5 + 0.47 * np.arctan2(x, z + 0.045) / np.pi
    v = _SKIN_BOTTOM + 0.01 + (0.97 - _SKIN_BOTTOM) * (y - NECK_CUT_Y) / (CROWN_Y + 0.005 - NECK_CUT_Y)
    uv = np.stack([u, v], 1)
    for side in (1.0, -1.0):
        rows = [row if side > 0 else mesh.mirror[row] for row in mesh.eye_rows]
        rim = uv[rows[LID_RIM_ROW]]
        for shrink, row in zip((0.90, 0.78), rows[LID_RIM_ROW + 1 :], strict=True):
            uv[row] = rim.mean(0) + shrink * (rim - rim.mean(0))
    return uv


def _disc(center: tuple[float, float], radius: Float64 | float, angle: Float64) -> Float64:
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], -1)


def build_uv(mesh: HeadMesh) -> tuple[Float32, Int32]:
    """Coordinates [U, 2] in 0..1 and corners [F, 3]. Every triangle has area in the chart; islands do not overlap."""
    count = len(mesh.vertices)
    islands: dict[int, Float64] = {}  # island -> [V, 2], meaningful for its own vertices
    islands[0] = _skin_chart(mesh)

    mouth = np.zeros((count, 2))
    angle = np.linspace(np.pi / 2, -np.pi / 2, MOUTH_COLUMNS)
    rows = mesh.mouth_rows[LIP_ROWS - 1 :]
    for k, row in enumerate(rows):
        radius = 0.098 * (1.0 - k / len(rows))
        mouth[mesh.mirror[row]] = _disc((0.11, 0.105), radius, np.pi - angle)
        mouth[row] = _disc((0.11, 0.105), radius, angle)
    mouth[(mesh.part == Part.MOUTH_INTERIOR) & (mesh.row == len(mesh.mouth_rows))] = (0.11, 0.105)
    islands[Part.MOUTH_INTERIOR] = mouth

    for part, bottom in ((Part.UPPER_TEETH, 0.110), (Part.LOWER_TEETH, 0.010)):
        strip = np.zeros((count, 2))
        ids = mesh.tooth_rows[part]
        for k, row in enumerate(ids):
            rise = 4 - k if part is Part.UPPER_TEETH else k  # seen from the front in both
            across = 0.125 * np.linspace(0.0, 1.0, len(row))
            strip[mesh.mirror[row]] = np.stack([0.365 - across, np.full(len(row), bottom + 0.018 * rise)], 1)
            strip[row] = np.stack([0.365 + across, np.full(len(row), bottom + 0.018 * rise)], 1)
        islands[part] = strip

    tongue = np.zeros((count, 2))
    for k, row in enumerate(mesh.tongue_rows):
        angle = np.linspace(np.pi / 2, -np.pi / 2, len(row))
        radius = 0.048 * (1.0 - k / (TONGUE_ROWS + 1))
        tongue[mesh.mirror[row]] = _disc((0.555, 0.055), radius, np.pi - angle)
        tongue[row] = _disc((0.555, 0.055), radius, angle)
    tongue[(mesh.part == Part.TONGUE) & (mesh.row == TONGUE_ROWS)] = (0.555, 0.055)
    islands[Part.TONGUE] = tongue

    ball, ears = np.zeros((count, 2)), np.zeros((count, 2))
    for side, ball_x, ear_x in ((1.0, 0.830, 0.940), (-1.0, 0.725, 0.620)):
        own = np.flatnonzero((mesh.part == Part.EYEBALL) & (mesh.vertices[:, 0] * side > 0))
        q = mesh.vertices[own] - EYE * [side, 1.0, 1.0]
        polar = np.arccos(np.clip(q[:, 2] / np.linalg.norm(q, axis=1), -1.0, 1.0))
        ball[own] = _disc((ball_x, 0.055), 0.050 * polar / np.pi, np.arctan2(q[:, 1], q[:, 0]))
        angle = np.arange(EAR_COLUMNS) * 2.0 * np.pi / EAR_COLUMNS
        for k, row in enumerate(mesh.ear_rows):
            radius = 0.050 * (1.0 - k / (len(mesh.ear_rows) + 0.5))
            ears[row if side > 0 else mesh.mirror[row]] = _disc(
                (ear_x, 0.160), radius, angle if side > 0 else np.pi - angle
            )
        centre = (mesh.part == Part.EAR) & (mesh.row == len(mesh.ear_rows)) & (mesh.vertices[:, 0] * side > 0)
        ears[centre] = (ear_x, 0.160)
    islands[Part.EYEBALL], islands[Part.EAR] = ball, ears

    # A triangle belongs to the island of its most particular corner; rings shared with the skin are doubled there.
    parts = mesh.part[mesh.faces]
    island = np.where(parts > Part.LIPS, parts, 0).max(1)
    corner_uv = np.stack([islands[int(i)][face] for i, face in zip(island, mesh.faces, strict=True)])
    skin = island == 0
    across_cut = skin & (np.ptp(corner_uv[:, :, 0], axis=1) > 0.5)
    corner_uv[across_cut, :, 0] += (corner_uv[across_cut, :, 0] < 0.5) * 0.94
    corner_uv[across_cut, :, 0] = np.minimum(corner_uv[across_cut, :, 0], 1.0)
    balls = np.flatnonzero(island == Part.EYEBALL)
    for face in balls:  # the ball's rear pole is a circle in the chart
        q = np.abs(
            mesh.vertices[mesh.faces[face]][:, :2] - EYE[:2] * [np.sign(mesh.vertices[mesh.faces[face][0], 0]), 1]
        )
        pole = np.flatnonzero((q.max(1) < 1e-9) & (mesh.vertices[mesh.faces[face], 2] < EYE[2]))
        if len(pole):
            others = [k for k in range(3) if k != pole[0]]
            centre = np.array([0.830 if mesh.vertices[mesh.faces[face][0], 0] > 0 else 0.725, 0.055])
            direction = corner_uv[face, others].mean(0) - centre
            corner_uv[face, pole[0]] = centre + direction / np.linalg.norm(direction) * 0.050
    uv, index = np.unique(np.round(corner_uv.reshape(-1, 2), 7), axis=0, return_inverse=True)
    return uv.astype(np.float32), index.reshape(-1, 3).astype(np.int32)
