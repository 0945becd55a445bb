"""Finding faces: BlazeFace, short range (Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile
GPUs", 2019), whose answers are decoded here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from being_rt.track.crop import Crop
from being_rt.track.interpreter import Network

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

SIZE = 128  # pixels a side of what the network sees
LAYERS = ((8, 2), (16, 6))  # stride in pixels, anchors per cell: 16 x 16 x 2 + 8 x 8 x 6 = 896
LEAST_SCORE = 0.5
SAME_FACE = 0.3  # intersection over union from which two boxes are of one face
MARGIN = 1.5  # the landmark network's square, in sides of the box


@dataclass(frozen=True)
class Detection:
    """A face: its box and six points in pixels, and how sure the network is."""

    box: Float32  # [4]: left, top, right, bottom
    points: Float32  # [6, 2]: the eye on the left of the picture, the other, nose tip, mouth, left and right ear
    score: float

    @property
    def crop(self) -> Crop:
        """The square to look for landmarks in: the eyes lie level in it."""
        corners = self.box.reshape(2, 2)
        return Crop.around(corners, MARGIN, self.points[0], self.points[1])

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FaceDetector:
    """Finds faces in a picture; the surest first. For one thread at a time.

    Example::

        faces = FaceDetector()(picture)
        print(len(faces), "faces")
    """

    def __init__(self) -> None:
        self._network = Network("face_detection")
        self._anchors = anchors()

    def __call__(self, picture: UInt8, thorough: bool = False) -> list[Detection]:
        """Faces of a picture uint8 [H, W, 3].

        The network sees faces from about a tenth of the picture's longer side. ``thorough`` looks into parts of the
        picture as well where the whole has none: down to about a thirtieth, in fifteen times the time.
        """
        height, width = picture.shape[:2]
        found = self._look(picture, 0, 0)
        if found or not thorough:
            return found
        for side in dict.fromkeys((min(height, width), (min(height, width) + 1) // 2)):
            for top in _starts(height, side):
                for left in _starts(width, side):
                    found += self._look(picture[top : top + side, left : left + side], left, top)
            if found:
                break
        return merged(found)

    def _look(self, picture: UInt8, left: int, top: int) -> list[Detection]:
        shrunk, scale, offset = _letterboxed(picture)
        regressors, scores = self._network(shrunk)
        boxes, points, certain = decoded(regressors, scores[:, 0], self._anchors)
        shift = np.array([left, top], np.float32) - offset * np.float32(scale)
        return merged(
            [
                Detection(box * scale + np.tile(shift, 2), six * scale + shift, float(score))
                for box, six, score in zip(boxes, points, certain, strict=True)
            ]
        )


def anchors() -> Float32:
    """[896, 2]: the middles of the network's anchors in its input's pixels, row by row, coarse cells last."""
    layers = []
    for stride, count in LAYERS:
        middles = (np.arange(SIZE // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(middles, middles, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), count, axis=0))
    return np.concatenate(layers)


def decoded(regressors: Float32, logits: Float32, middles: Float32) -> tuple[Float32, Float32, Float32]:
    """Boxes [n, 4], points [n, 6, 2] and scores [n] of the anchors that see a face, in the input's pixels.

    A row of ``regressors`` [896, 16] is: offset of the box's middle from the anchor's, its width and height, and the
    offsets of six points.
    """
    score = 1 / (1 + np.exp(-np.clip(logits, -100, 100).astype(np.float64)))
    keep = score >= LEAST_SCORE
    values = regressors[keep].reshape(-1, 8, 2)
    middle = middles[keep] + values[:, 0]
    half = values[:, 1] / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    return boxes, middles[keep][:, None] + values[:, 2:], score[keep].astype(np.float32)


def merged(detections: list[Detection]) -> list[Detection]:
    """One detection per face: the mean of those that overlap its surest, weighted by their scores (BlazeFace, sec. 3.4:
    steadier from frame to frame than the surest alone)."""
    left = sorted(detections, key=lambda one: -one.score)
    faces = []
    while left:
        best = left[0]
        same = [one for one in left if one is best or overlap(one.box, best.box) > SAME_FACE]
        left = [one for one in left if all(one is not other for other in same)]
        weight = np.array([one.score for one in same], np.float32)
        weight /= weight.sum()
        box = np.einsum("n,nk->k", weight, np.stack([one.box for one in same]))
        points = np.einsum("n,nkc->kc", weight, np.stack([one.points for one in same]))
        faces.append(Detection(box, points, best.score))
    return faces


def overlap(first: Float32, second: Float32) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return common / max(areas - common, 1e-9)


def _starts(length: int, side: int) -> list[int]:
    """Where squares of ``side`` begin that cover ``length`` and overlap by half."""
    count = 1 + max(0, -(-2 * (length - side) // side))
    return [round(index * (length - side) / max(count - 1, 1)) for index in range(count)]


def _letterboxed(picture: UInt8) -> tuple[Float32, float, Float32]:
    """The whole picture in a black square [128, 128, 3] in -1..1, pixels of the picture per pixel of it, its corner."""
    height, width = picture.shape[:2]
    scale = max(height, width) / SIZE
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    image = Image.fromarray(np.ascontiguousarray(picture))
    shrunk = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
    left, top = (SIZE - size[0]) // 2, (SIZE - size[1]) // 2
    square = np.zeros((SIZE, SIZE, 3), np.float32)
    square[top : top + size[1], left : left + size[0]] = np.asarray(shrunk)
    return square * np.float32(2 / 255) - 1, scale, np.array([left, top], np.float32)
