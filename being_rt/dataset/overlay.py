"""A frame with the tracked mesh and its landmarks drawn over it: one look tells whether a track is right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.dataset import Dataset
from being_rt.dataset.regions import project
from being_rt.flame.skinning import on_surface, skin

UInt8 = NDArray[np.uint8]

_EDGE, _LANDMARK = (80, 220, 255), (255, 60, 60)
_STRENGTH = 110  # of edges, 0..255: the face must be seen through them
_OUTSIDE = 0.45  # brightness of what the mask leaves out


def overlay(dataset: Dataset, index: int) -> UInt8:
    """Frame ``index`` with the edges of the mesh's near side and all landmarks; darker where the mask is empty.

    Returns:
        uint8 [H, W, 3], of the frame's size.

    Raises:
        DatasetError: the frame or its mask cannot be read.

    Example::

        Image.fromarray(overlay(dataset, 0)).save("overlay.png")
    """
    from PIL import Image, ImageDraw

    camera = dataset.cameras[dataset.camera_index[index]]
    inside = dataset.mask(index)[:, :, None].astype(np.float32) / 255
    shaded = (dataset.image(index) * (_OUTSIDE + (1 - _OUTSIDE) * inside)).astype(np.uint8)
    lines = Image.new("L", camera.size)
    draw = ImageDraw.Draw(lines)
    vertices = skin(dataset.rig, dataset.params[int(dataset.timestep[index])])[0]
    pixels, _ = project(vertices, camera)
    for start, end in pixels[near_edges(pixels, dataset.rig.faces)].tolist():
        draw.line([*start, *end], fill=_STRENGTH)
    picture = Image.composite(Image.new("RGB", camera.size, _EDGE), Image.fromarray(shaded), lines)
    draw = ImageDraw.Draw(picture)
    radius = max(1.0, max(camera.size) / 400)
    for landmarks in dataset.rig.landmarks.values():
        points, depth = project(on_surface(vertices, dataset.rig.faces, landmarks), camera)
        for x, y in points[depth > 0].tolist():
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_LANDMARK)
    return np.asarray(picture)


def near_edges(pixels: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.int32]:
    """Edges [n, 2] of the triangles that face the camera, each once; none with a corner behind it."""
    corners = pixels[faces]
    edges = corners[:, 1:] - corners[:, :1]
    with np.errstate(invalid="ignore"):
        facing = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0] < 0
    near = faces[facing]
    pairs = np.sort(np.concatenate([near[:, [0, 1]], near[:, [1, 2]], near[:, [2, 0]]]), axis=1)
    return np.unique(pairs, axis=0)
