"""Following the faces of a video, so that the person it is about can be told from those who pass by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from being_rt.track.crop import Crop
from being_rt.track.detector import Detection, FaceDetector, overlap
from being_rt.track.mesh import LEAST_PRESENCE, FaceMesh, face_crop
from being_rt.track.topology import MESH_COUNT

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

COUNT_EVERY = 12  # frames between two looks for other faces
MOST_TRACKS = 3  # followed at a time; more faces are counted
SAME = 0.3  # intersection over union from which a detection is of a face that is followed
MOVED = 0.15  # of the square's side: where the face is that far from where it was, it is looked at again
SMALLEST_SIDE = 32  # pixels of a face's square
SHARPNESS_SIDE = 256  # pixels a side, at most, of the face that sharpness is measured in


@dataclass
class Track:
    """One face through time."""

    crop: Crop  # where it will be looked for
    is_active: bool = True
    landmarks: dict[int, Float32] = field(default_factory=dict)  # by frame
    presence: dict[int, float] = field(default_factory=dict)
    sharpness: dict[int, float] = field(default_factory=dict)
    weight: float = 0.0  # sum over frames of the share of the picture, less at its edges

    @property
    def box(self) -> Float32:
        """Left, top, right, bottom of the square without its margin."""
        half = self.crop.side / 3
        return np.array([self.crop.x - half, self.crop.y - half, self.crop.x + half, self.crop.y + half], np.float32)


class FaceTracks:
    """All faces of a video, frame by frame. For one thread at a time.

    Example::

        faces = FaceTracks()
        for index, _, frame in VideoSource("selfie.mp4"):
            faces.add(index, frame)
        person = faces.main()
    """

    def __init__(self) -> None:
        self._detector = FaceDetector()
        self._mesh = FaceMesh()
        self.tracks: list[Track] = []
        self.counts: dict[int, int] = {}  # faces seen, by frame, where they were counted

    def add(self, index: int, picture: UInt8) -> None:
        """Look at the next frame, uint8 [H, W, 3]."""
        for track in self._active():
            self._follow(track, index, picture)
        self._drop_doubles(index)
        is_due = index % COUNT_EVERY == 0
        if is_due or not self._active():
            detections = self._detector(picture, thorough=is_due and not self._active())
            for detection in detections:
                if all(overlap(detection.box, track.box) < SAME for track in self._active()):
                    self._begin(detection, index, picture)
            self.counts[index] = max(len(detections), len(self._active()))

    def main(self) -> Track | None:
        """The person that the video is about: the largest and most central over time; None where there is nobody.

        Where never two faces were seen at once, it is one person who was lost and found again.
        """
        if not self.tracks:
            return None
        if max(self.counts.values(), default=0) > 1:
            return max(self.tracks, key=lambda track: track.weight)
        merged = Track(self.tracks[-1].crop)
        for track in self.tracks:
            for kept, part in (
                (merged.landmarks, track.landmarks),
                (merged.presence, track.presence),
                (merged.sharpness, track.sharpness),
            ):
                kept.update(part)  # type: ignore[arg-type]
            merged.weight += track.weight
        return merged

    def _active(self) -> list[Track]:
        return [track for track in self.tracks if track.is_active]

    def _begin(self, detection: Detection, index: int, picture: UInt8) -> None:
        """Follow a face that was found: one that was lost near by, or a new one."""
        lost = [track for track in self.tracks if not track.is_active and _is_near(track.crop, detection.crop)]
        if lost:
            track = max(lost, key=lambda track: max(track.landmarks))
        elif len(self._active()) < MOST_TRACKS:
            track = Track(detection.crop)
        else:
            return
        track.crop, track.is_active = detection.crop, True
        self._follow(track, index, picture)
        if track.is_active and not lost:
            self.tracks.append(track)

    def _follow(self, track: Track, index: int, picture: UInt8) -> None:
        landmarks, presence = self._mesh(picture, track.crop)
        if presence >= LEAST_PRESENCE:
            crop = face_crop(landmarks)
            if np.hypot(crop.x - track.crop.x, crop.y - track.crop.y) > MOVED * track.crop.side:
                landmarks, presence = self._mesh(picture, crop)
        crop = face_crop(landmarks)
        if presence < LEAST_PRESENCE or not _is_sane(crop, picture.shape):
            track.is_active = False
            return
        track.crop = crop
        track.landmarks[index] = landmarks
        track.presence[index] = presence
        track.sharpness[index] = sharpness(picture, landmarks)
        track.weight += _prominence(crop, picture.shape)

    def _drop_doubles(self, index: int) -> None:
        """Where two tracks have come to follow the same face, the older keeps it."""
        active = self._active()
        for number, track in enumerate(active):
            if any(overlap(track.box, other.box) > 0.5 for other in active[:number]):
                track.is_active = False
                for table in (track.landmarks, track.presence, track.sharpness):
                    table.pop(index, None)
        self.tracks = [track for track in self.tracks if track.is_active or track.landmarks]


def sharpness(picture: UInt8, landmarks: Float32) -> float:
    """Variance of the Laplacian in grey levels of the face [478, 3], shrunk to 128..256 pixels a side."""
    low = np.floor(landmarks[:MESH_COUNT, :2].min(axis=0)).astype(int)
    high = np.ceil(landmarks[:MESH_COUNT, :2].max(axis=0)).astype(int)
    left, top = (max(int(edge), 0) for edge in low)
    face = picture[top : max(int(high[1]), 0), left : max(int(high[0]), 0)]
    if min(face.shape[:2]) < 3:
        return 0.0
    image = Image.fromarray(np.ascontiguousarray(face)).convert("L")
    shrink = -(-max(image.size) // SHARPNESS_SIDE)
    grey = np.asarray(image.reduce(shrink) if shrink > 1 else image, np.float32)
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle
    return float(laplacian.var())


def _prominence(crop: Crop, shape: tuple[int, ...]) -> float:
    """Share of the picture that a face's square takes, halved at a third of the picture's width from its middle."""
    height, width = shape[:2]
    away = np.hypot(crop.x - width / 2, crop.y - height / 2) / (width / 3)
    return float(crop.side**2 / (width * height) * 0.5 ** (away**2))


def _is_near(first: Crop, second: Crop) -> bool:
    """Can a face have gone from one square to the other while it was not seen?"""
    distance = np.hypot(first.x - second.x, first.y - second.y)
    return bool(distance < 1.5 * max(first.side, second.side) and 0.5 < first.side / second.side < 2)


def _is_sane(crop: Crop, shape: tuple[int, ...]) -> bool:
    height, width = shape[:2]
    inside = 0 <= crop.x < width and 0 <= crop.y < height
    return bool(np.isfinite(crop.side) and inside and SMALLEST_SIDE <= crop.side < 4 * max(width, height))
