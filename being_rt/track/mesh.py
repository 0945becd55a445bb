"""478 landmarks of a face: MediaPipe's mesh of 468 points, and the irises.

A first network sees the face and gives the mesh, parts of it look at its features again around the mouth and the eyes
(Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time", 2020), and a second network sees
each eye in the picture itself (Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital
Puppetry", 2020) and gives its lids and its iris.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.track.crop import Crop, Window
from being_rt.track.detector import MARGIN, FaceDetector
from being_rt.track.interpreter import Network
from being_rt.track.topology import (
    EYE_CONTOURS,
    EYE_CORNERS,
    IRISES,
    LANDMARKS,
    LID_COUNT,
    LIDS,
    LIPS,
    MESH_COUNT,
    MIRROR,
    MOUTH_CORNERS,
    OUTER_CORNERS,
)

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

MESH_SIZE, EYE_SIZE = 192, 64  # pixels a side of what the networks see
LEAST_PRESENCE = 0.5
EYE_MARGIN = 2.3  # the eye network's square, in widths of the eye
SETTLING = 2  # times that the square follows the landmarks in a picture without predecessor

# A network's answer depends a little on where its square lies. It is asked twice, about squares of different size, of
# which one is mirrored: the mean favours neither side, and has two thirds of the noise. Turning them gains no more.
SCALES = (1.08, 1 / 1.08)

# The regions whose features are sampled once more, where the first network is cut: landmarks, the ends of the line
# that lies level in the sample, and the names of the tensors.
_SAMPLES = "transform_tensor_bilinear_v2"
_TRUNK = (("input_1",), ("output_mesh_identity", "conv_faceflag", "p_re_lu_3"))
_HEADS = ((_SAMPLES, f"{_SAMPLES}_1", f"{_SAMPLES}_2"), ("conv_lips", "conv_left_eye", "conv_right_eye"))
_REGIONS = ((LIPS, MOUTH_CORNERS), *zip(EYE_CONTOURS, EYE_CORNERS, strict=True))
_FEATURES = 4  # pixels of the network's input per cell of the features, which are 48 x 48
_SAMPLE = 16  # cells a side of a sample; a head's landmarks are in quarters of them
_SAMPLE_MARGIN = 1.5  # sides of a sample, in those of its landmarks' box


def face_crop(landmarks: Float32) -> Crop:
    """The square to look for these landmarks [468 or more, 2+] in, in the next frame or again."""
    start, end = OUTER_CORNERS
    return Crop.around(landmarks[:MESH_COUNT], MARGIN, landmarks[start], landmarks[end])


class FaceMesh:
    """The landmark networks. For one thread at a time.

    Example::

        mesh = FaceMesh()
        landmarks, presence = mesh(picture, detection.crop)
        landmarks, presence = mesh(next_picture, face_crop(landmarks))
    """

    def __init__(self) -> None:
        self._trunk = Network("face_mesh", _TRUNK)
        self._heads = Network("face_mesh", _HEADS)
        self._eye = Network("iris")

    def __call__(self, picture: UInt8, crop: Crop) -> tuple[Float32, float]:
        """Landmarks [478, 3] in pixels of a picture uint8 [H, W, 3], and how sure it is, 0..1, that a face is there."""
        window = Window.of(picture, crop, MESH_SIZE, max(SCALES))
        straight, first = self.look(window, crop.changed(SCALES[0]))
        mirrored, second = self.look(window, crop.changed(SCALES[1], mirrored=True))
        landmarks = np.zeros((LANDMARKS, 3), np.float32)
        landmarks[:MESH_COUNT] = (straight + mirrored[MIRROR[:MESH_COUNT]]) / 2
        presence = (first + second) / 2
        if presence >= LEAST_PRESENCE:
            for eye in (0, 1):
                self._refine_eye(picture, landmarks, eye)
        return landmarks, presence

    def look(self, picture: UInt8 | Window, crop: Crop) -> tuple[Float32, float]:
        """The mesh [468, 3] in pixels as one square shows it, without irises, and how sure the network is of a face.

        In a mirrored square, landmarks are numbered as the mirrored face's.
        """
        mesh, logit, features = self._trunk(crop.cut(picture, MESH_SIZE))
        points = mesh.reshape(MESH_COUNT, 3)
        samples, transforms = [], []
        for landmarks, (start, end) in _REGIONS:
            axes, corner = _sample_frame(points[landmarks, :2], points[end, :2] - points[start, :2])
            samples.append(_sample(features, axes, corner))
            transforms.append((axes, corner))
        for (landmarks, _), (axes, corner), refined in zip(_REGIONS, transforms, self._heads(*samples), strict=True):
            in_cells = refined.reshape(-1, 2) / _FEATURES @ axes.T + corner
            points[landmarks, :2] = in_cells * _FEATURES
        presence = 1 / (1 + float(np.exp(-np.clip(logit.ravel()[0], -80, 80))))
        return crop.to_picture(points, MESH_SIZE), presence

    def _refine_eye(self, picture: UInt8, landmarks: Float32, eye: int) -> None:
        """Replace an eye's lids and add its iris, in place."""
        start, end = (landmarks[corner] for corner in EYE_CORNERS[eye])
        crop = Crop.around(np.stack([start, end]), EYE_MARGIN, start, end)
        window = Window.of(picture, crop, EYE_SIZE, max(SCALES))
        lids, irises = [], []
        for scale in SCALES:
            # The network knows eyes on the left of the picture; the other is shown to it in the mirror.
            look = crop.changed(scale, mirrored=eye == 1)
            around, iris = (answer.reshape(-1, 3) for answer in self._eye(look.cut(window, EYE_SIZE)))
            # Of what lies around the lids it sees too little: a raised brow is outside.
            lids.append(look.to_picture(around[:LID_COUNT, :2], EYE_SIZE))
            irises.append(look.to_picture(iris[:, :2], EYE_SIZE))
        landmarks[LIDS[eye], :2] = np.mean(lids, axis=0)
        order = [0, 3, 2, 1, 4] if eye == 1 else [0, 1, 2, 3, 4]  # of a ring, which the mirror turns round
        landmarks[IRISES[eye], :2] = np.mean(irises, axis=0)[order]
        landmarks[IRISES[eye], 2] = landmarks[LIDS[eye], 2].mean()  # the network's depths are not the mesh's


def _sample_frame(landmarks: Float32, level: Float32) -> tuple[Float64, Float64]:
    """Axes [2, 2] (columns, a cell of the sample long) and corner [2] of a region's sample, in cells of the features.

    The box is around the landmarks as seen with ``level`` lying level, and is not square.
    """
    x, y = level / np.hypot(*level)
    turned = np.array([[x, -y], [y, x]], np.float64)  # columns: the region's axes
    inside = landmarks.astype(np.float64) / _FEATURES @ turned
    low, high = inside.min(axis=0), inside.max(axis=0)
    axes = turned * (_SAMPLE_MARGIN * (high - low) / _SAMPLE)
    return axes, turned @ ((low + high) / 2) - axes @ np.full(2, _SAMPLE / 2)


def _sample(features: Float32, axes: Float64, corner: Float64) -> Float32:
    """Features [48, 48, C] at the middles of a sample's cells [16, 16, C], bilinear, zero outside."""
    limit = len(features) - 1
    middles = np.arange(_SAMPLE) + 0.5
    x = corner[0] - 0.5 + axes[0, 0] * middles + axes[0, 1] * middles[:, None]
    y = corner[1] - 0.5 + axes[1, 0] * middles + axes[1, 1] * middles[:, None]
    outside = (x < 0) | (x > limit) | (y < 0) | (y > limit)
    left = np.clip(x.astype(np.int32), 0, limit - 1)
    top = np.clip(y.astype(np.int32), 0, limit - 1)
    right_share = (x - left).astype(np.float32)[..., None]
    lower_share = (y - top).astype(np.float32)[..., None]
    flat, width = features.reshape(-1, features.shape[2]), features.shape[1]
    first = top * width + left
    upper = flat[first] + (flat[first + 1] - flat[first]) * right_share
    lower = flat[first + width] + (flat[first + width + 1] - flat[first + width]) * right_share
    sampled = upper + (lower - upper) * lower_share
    sampled[outside] = 0
    return sampled


def landmarks_in(picture: UInt8, box: Sequence[float] | None = None) -> Float32 | None:
    """Landmarks [478, 3] of one face in one picture, in pixels (see ``Observations``); None where no face is seen.

    Args:
        picture: uint8 [H, W, 3], sRGB.
        box: left, top, right, bottom of the face in pixels, about; without it the largest face is looked for.

    Example::

        landmarks = landmarks_in(np.asarray(Image.open("portrait.jpg").convert("RGB")))
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InvalidParameterError(f"a picture must be uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
    detector, mesh = _networks()
    if box is None:
        faces = detector(picture, thorough=True)
        if not faces:
            return None
        crop = max(faces, key=lambda face: face.area).crop
    else:
        left, top, right, bottom = (float(edge) for edge in box)
        if not (np.isfinite([left, top, right, bottom]).all() and left < right and top < bottom):
            raise InvalidParameterError(f"a box must be left, top, right, bottom in pixels, got {tuple(box)}")
        crop = Crop((left + right) / 2, (top + bottom) / 2, MARGIN * max(right - left, bottom - top))
    for _ in range(SETTLING):
        rough, presence = mesh.look(picture, crop)
        if presence < LEAST_PRESENCE:
            return None
        crop = face_crop(rough)
    landmarks, presence = mesh(picture, crop)
    return landmarks if presence >= LEAST_PRESENCE else None


_kept = threading.local()


def _networks() -> tuple[FaceDetector, FaceMesh]:
    """This thread's networks: loading them takes longer than running them."""
    if not hasattr(_kept, "networks"):
        _kept.networks = FaceDetector(), FaceMesh()
    networks: tuple[FaceDetector, FaceMesh] = _kept.networks
    return networks
