"""478 landmarks of a face: MediaPipe's face mesh of 468 points, its lids refined and the irises added by a second
network that sees each eye alone.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019; Ablavatski et al.,
"Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020. Which square a network sees, and how the
points of the second replace those of the first, is as MediaPipe has it, so that its numbering and its accuracy hold.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.track.crop import Crop
from being_rt.track.detector import MARGIN, FaceDetector
from being_rt.track.interpreter import Network

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

MESH_SIZE, EYE_SIZE = 192, 64  # pixels a side of what the networks see
MESH_COUNT, IRIS_COUNT = 468, 5
LEAST_PRESENCE = 0.5
EYE_MARGIN = 2.3  # the iris network's square, in widths of the eye
OUTER_CORNERS = (33, 263)  # of the eyes; the line between them lies level in the mesh network's square
EYES = ((33, 133), (362, 263))  # the corners of each eye, left to right in the picture
SETTLING = 3  # times that the square follows the landmarks in a picture without predecessor

# Landmarks of the mesh that the iris network sees as well, in its order: the lower lid from corner to corner and the
# upper without the corners (16 points), then rings around the eye, outwards, up to the brow. Left eye in the picture.
_EYE_LEFT = (
    "33 7 163 144 145 153 154 155 133 246 161 160 159 158 157 173 "
    "130 25 110 24 23 22 26 112 243 247 30 29 27 28 56 190 "
    "226 31 228 229 230 231 232 233 244 113 225 224 223 222 221 189 "
    "35 124 46 53 52 65 143 111 117 118 119 120 121 128 245 156 70 63 105 66 107 55 193"
)
_EYE_RIGHT = (
    "263 249 390 373 374 380 381 382 362 466 388 387 386 385 384 398 "
    "359 255 339 254 253 252 256 341 463 467 260 259 257 258 286 414 "
    "446 261 448 449 450 451 452 453 464 342 445 444 443 442 441 413 "
    "265 353 276 283 282 295 372 340 346 347 348 349 350 357 465 383 300 293 334 296 336 285 417"
)
EYE_CONTOURS: tuple[Int32, Int32] = (
    np.array(_EYE_LEFT.split(), np.int32),
    np.array(_EYE_RIGHT.split(), np.int32),
)
LID_COUNT = 16


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
        self._mesh = Network("face_mesh")
        self._iris = Network("iris")

    def __call__(self, picture: UInt8, crop: Crop, irises: bool = True) -> tuple[Float32, float]:
        """Landmarks [478, 3] in pixels of a picture uint8 [H, W, 3], and how sure it is, 0..1, that a face is there.

        Without ``irises``, in half the time, [468, 3].
        """
        points, logit = self._mesh(crop.cut(picture, MESH_SIZE))
        presence = 1 / (1 + float(np.exp(-np.clip(logit.ravel()[0], -80, 80))))
        landmarks = crop.to_picture(points.reshape(MESH_COUNT, 3), MESH_SIZE)
        if irises:
            landmarks = self.refine_eyes(picture, landmarks)
        return landmarks, presence

    def refine_eyes(self, picture: UInt8, landmarks: Float32) -> Float32:
        """[468, 3] -> [478, 3]: lids and their surroundings replaced, irises added."""
        refined = np.concatenate([landmarks, np.zeros((2 * IRIS_COUNT, 3), np.float32)])
        for eye, (corners, contour) in enumerate(zip(EYES, EYE_CONTOURS, strict=True)):
            start, end = landmarks[list(corners)]
            crop = Crop.around(np.stack([start, end]), EYE_MARGIN, start, end)
            mirrored = eye == 1  # the network knows eyes on the left of the picture
            outputs = self._iris(crop.cut(picture, EYE_SIZE, mirrored))
            around, iris = (crop.to_picture(output.reshape(-1, 3), EYE_SIZE, mirrored) for output in outputs)
            # Its depths are not measured from the head's middle; those of the mesh stay, and an iris is at its lids'.
            refined[contour, :2] = around[:, :2]
            rows = slice(MESH_COUNT + IRIS_COUNT * eye, MESH_COUNT + IRIS_COUNT * (eye + 1))
            refined[rows, :2] = iris[:, :2]
            refined[rows, 2] = landmarks[contour[:LID_COUNT], 2].mean()
        return refined


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
    landmarks, presence = mesh(picture, crop, irises=False)
    for _ in range(SETTLING - 1):
        if presence < LEAST_PRESENCE:
            return None
        landmarks, presence = mesh(picture, face_crop(landmarks), irises=False)
    return mesh.refine_eyes(picture, landmarks) if presence >= LEAST_PRESENCE else None


_kept = threading.local()


def _networks() -> tuple[FaceDetector, FaceMesh]:
    """This thread's networks: loading them takes longer than running them."""
    if not hasattr(_kept, "networks"):
        _kept.networks = FaceDetector(), FaceMesh()
    networks: tuple[FaceDetector, FaceMesh] = _kept.networks
    return networks
