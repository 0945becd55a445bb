"""A frame with the tracked mesh and its landmarks drawn over it: one look tells whether a track is right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.regions import project
from being_rt.flame.skinning import on_surface, skin

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

_EDGE, _LANDMARK = (80, 220, 255), (255, 60, 60)
_STRENGTH = 0.43  # of edges: the face must be seen through them
_OUTSIDE = 0.45  # brightness of what the mask leaves out


def overlay(dataset: Dataset, index: int, size: tuple[int, int] | None = None) -> UInt8:
    """Frame ``index`` with the edges of the mesh's near side and all landmarks; darker where the mask is empty.

    Args:
        size: width and height in pixels; None: the frame's.

    Returns:
        uint8 [H, W, 3].

    Raises:
        DatasetError: the frame or its mask cannot be read.

    Example::

        Image.fromarray(overlay(dataset, 0)).save("overlay.png")
    """
    from PIL import Image, ImageDraw

    camera = dataset.cameras[dataset.camera_index[index]]
    picture, mask = dataset.image(index), dataset.mask(index)
    if size is not None and size != camera.size:
        picture, mask = (
            np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)) for values in (picture, mask)
        )
        camera = _resized(camera, size)
    brightness = _OUTSIDE + (1 - _OUTSIDE) / 255 * np.arange(256, dtype=np.float32)
    shown = (picture * brightness[mask][:, :, None]).astype(np.uint8)
    vertices = skin(dataset.rig, dataset.params[int(dataset.timestep[index])])[0]
    pixels, _ = project(vertices, camera)
    rows, columns = _lines(pixels[near_edges(pixels, dataset.rig.faces)], camera.size)
    shown[rows, columns] = (1 - _STRENGTH) * shown[rows, columns] + _STRENGTH * np.array(_EDGE)
    marked = Image.fromarray(shown)
    draw = ImageDraw.Draw(marked)
    radius = max(1.0, max(camera.size) / 400)
    for landmarks in dataset.rig.landmarks.values():
        points, depth = project(on_surface(vertices, dataset.rig.faces, landmarks), camera)
        for x, y in points[depth > 0].tolist():
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_LANDMARK)
    return np.asarray(marked)


def near_edges(pixels: Float64, faces: Int32) -> Int32:
    """Edges [n, 2] of the triangles that face the camera, each once; none with a corner behind it."""
    corners = pixels[faces]
    edges = corners[:, 1:] - corners[:, :1]
    with np.errstate(invalid="ignore"):
        facing = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] < 0
    near = faces[facing]
    pairs = np.sort(np.concatenate([near[:, [0, 1]], near[:, [1, 2]], near[:, [2, 0]]]), axis=1)
    # Two numbers in one: NumPy finds unique numbers ten times as fast as unique rows.
    unique = np.unique(pairs[:, 0].astype(np.int64) * len(pixels) + pairs[:, 1])
    return np.stack([unique // len(pixels), unique % len(pixels)], 1).astype(np.int32)


def _lines(ends: Float64, size: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels that lines [n, 2, 2] run through, within a picture."""
    start, way = ends[:, 0], ends[:, 1] - ends[:, 0]
    steps = np.ceil(np.abs(way).max(1)).clip(1, max(size)).astype(np.int64) + 1  # one per pixel of the longer side
    line = np.repeat(np.arange(len(steps)), steps)
    step = np.arange(len(line)) - np.repeat(np.cumsum(steps) - steps, steps)
    columns, rows = np.floor(start[line] + (step / (steps[line] - 1))[:, None] * way[line]).astype(np.intp).T
    inside = (columns >= 0) & (rows >= 0) & (columns < size[0]) & (rows < size[1])
    return rows[inside], columns[inside]


def _resized(camera: Camera, size: tuple[int, int]) -> Camera:
    """The camera of a frame that is stretched to another size."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2] *= (np.array(size) / np.array(camera.size))[:, None]
    return replace(camera, intrinsics=intrinsics, size=size)
