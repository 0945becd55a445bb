"""What the networks see: of a generated person whose motion is known, and of a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from being_rt.errors import InvalidParameterError, TrackError
from being_rt.track.crop import Crop
from being_rt.track.faces import FaceTracks, Track, sharpness
from being_rt.track.mesh import landmarks_in
from being_rt.track.observations import LANDMARKS, Observations
from being_rt.track.observe import NobodyError, observe, observe_frames, remarks, yaw
from being_rt.track.segmentation import PersonSegmentation
from being_rt.track.topology import IRISES, LIDS, MIRROR

UPPER_LIP, LOWER_LIP = 13, 14
WIDTH, HEIGHT = 400, 360


@cache
def person(
    turn: float = 0.0, jaw: float = 0.0, lids: float = 0.0, gaze: float = 0.0, roll: float = 0.0, shift: float = 0.0
) -> np.ndarray:
    """A picture of a generated person: radians, metres, lids 0 open..1 closed."""
    pytest.importorskip("scipy")
    from being_rt import FlameParams, Renderer, demo_avatar

    params = FlameParams.neutral()
    params.rotation[0] = [0, turn, roll]
    params.jaw[0, 0] = jaw
    params.eyelids[:] = lids
    params.eyes[0, [1, 4]] = gaze
    params.translation[0, 0] = shift
    picture: np.ndarray = Renderer(demo_avatar("ada"), size=(WIDTH, HEIGHT), device="cpu").render(params)
    return picture


def seen(**pose: float) -> np.ndarray:
    landmarks = landmarks_in(person(**pose))
    assert landmarks is not None
    assert landmarks.shape == (LANDMARKS, 3)
    return landmarks


def width(landmarks: np.ndarray) -> float:
    """Of the eyes, from outer corner to outer corner."""
    return float(np.linalg.norm(landmarks[33, :2] - landmarks[263, :2]))


def lid_gap(landmarks: np.ndarray) -> float:
    """Of both eyes, in their widths."""
    gaps = [landmarks[low, 1] - landmarks[high, 1] for low, high in ((145, 159), (374, 386))]
    return float(np.mean(gaps)) / width(landmarks)


# ---------------------------------------------------------------------- landmarks of one picture


@pytest.mark.usefixtures("networks")
class TestLandmarks:
    def test_the_mouth_opens(self) -> None:
        closed, opened = (lips[LOWER_LIP, 1] - lips[UPPER_LIP, 1] for lips in (seen(), seen(jaw=0.25)))
        assert closed < 0.03 * width(seen())
        assert opened > 0.1 * width(seen())

    def test_the_eyes_close(self) -> None:
        assert lid_gap(seen()) > 0.08
        assert lid_gap(seen(lids=1.0)) < 0.5 * lid_gap(seen())

    def test_irises_follow_the_gaze(self) -> None:
        def sideways(landmarks: np.ndarray) -> float:
            corners = landmarks[[33, 133, 362, 263], 0].mean()
            return float(landmarks[[468, 473], 0].mean() - corners) / width(landmarks)

        # About +y, from the subject's right, which is the picture's left, to its left.
        assert sideways(seen(gaze=0.3)) - sideways(seen(gaze=-0.3)) > 0.04

    def test_irises_lie_between_the_lids_and_are_rings(self) -> None:
        landmarks = seen()
        for iris, lids in zip(IRISES, LIDS, strict=True):
            low, high = landmarks[lids, :2].min(axis=0), landmarks[lids, :2].max(axis=0)
            assert ((landmarks[iris[0], :2] > low) & (landmarks[iris[0], :2] < high)).all()
            right, top, left, bottom = landmarks[iris[1:], :2] - landmarks[iris[0], :2]
            assert right[0] > 1 > -1 > left[0]
            assert bottom[1] > 1 > -1 > top[1]

    def test_yaw_has_a_sign(self) -> None:
        degrees = [float(yaw(seen(turn=angle)[None])[0]) for angle in (-0.4, 0.0, 0.4)]
        np.testing.assert_allclose(degrees, np.degrees([-0.4, 0.0, 0.4]), atol=12)

    def test_the_mirrored_picture_has_mirrored_landmarks(self) -> None:
        landmarks = seen(turn=0.2)
        mirrored = landmarks_in(np.ascontiguousarray(person(turn=0.2)[:, ::-1]))
        assert mirrored is not None
        back = mirrored[MIRROR] * [-1, 1, 1] + [WIDTH, 0, 0]
        assert np.sqrt(np.square((back - landmarks)[:, :2]).mean()) < 0.01 * width(landmarks)

    def test_a_tilted_head(self) -> None:
        across = (seen(roll=0.5)[263] - seen(roll=0.5)[33])[:2]
        assert np.arctan2(-across[1], across[0]) == pytest.approx(0.5, abs=0.08)

    def test_a_box_says_where(self) -> None:
        whole = seen()
        low, high = whole[:, :2].min(axis=0), whole[:, :2].max(axis=0)
        landmarks = landmarks_in(person(), (*low, *high))
        assert landmarks is not None
        assert np.abs(landmarks - whole)[:, :2].max() < 3
        assert landmarks_in(person(), (0, 0, 40, 40)) is None

    def test_no_face(self) -> None:
        assert landmarks_in(np.full((200, 300, 3), 127, np.uint8)) is None
        assert landmarks_in(np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8)) is None

    def test_a_face_that_is_small_in_the_picture(self) -> None:
        scene = np.full((1080, 1920, 3), 90, np.uint8)
        scene[700 : 700 + HEIGHT, 1500 : 1500 + WIDTH] = person()  # a face of 90 pixels
        landmarks = landmarks_in(scene)
        assert landmarks is not None
        expected = seen()[:, :2] + [1500, 700]
        assert np.abs(landmarks[:, :2] - expected).max() < 4


@pytest.mark.parametrize(
    "picture",
    [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3), np.float32), np.zeros((0, 10, 3), np.uint8)],
)
def test_what_is_no_picture(picture: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match="a picture must be uint8"):
        landmarks_in(picture)


# ---------------------------------------------------------------------- videos


def moving(count: int) -> Iterator[np.ndarray]:
    """The person goes to the right by three pixels a frame."""
    for number in range(count):
        yield np.roll(person(), 3 * number - 60, axis=1)


@pytest.mark.usefixtures("networks")
class TestVideos:
    def test_a_person_who_moves(self) -> None:
        told: list[tuple[int, int]] = []
        seen = observe_frames(moving(30), 25.0, (WIDTH, HEIGHT), count=30, progress=lambda *state: told.append(state))
        assert seen.found.all()
        assert told == [(number + 1, 30) for number in range(30)]
        assert seen.masks.shape == (30, 256, 256)
        assert (seen.faces[[0, 12, 24]] == 1).all()
        assert (np.delete(seen.faces, [0, 12, 24]) == -1).all()
        assert (seen.presence > 0.9).all()
        assert (seen.sharpness > 0).all()
        steps = np.diff(seen.landmarks[:, :, 0].mean(axis=1))
        np.testing.assert_allclose(steps, 3, atol=0.6)
        still = seen.landmarks[:, :, 0] - 3 * np.arange(30)[:, None]
        assert still.std(axis=0).mean() < 0.008 * width(seen.landmarks[0])

    def test_one_thread_sees_the_same(self) -> None:
        several = observe_frames(moving(6), 25.0, (WIDTH, HEIGHT))
        alone = observe_frames(moving(6), 25.0, (WIDTH, HEIGHT), threads=1)
        for name in ("landmarks", "presence", "faces", "sharpness", "masks"):
            np.testing.assert_array_equal(getattr(several, name), getattr(alone, name))

    def test_a_face_that_is_lost_and_found_again(self) -> None:
        def frames() -> Iterator[np.ndarray]:
            for number in range(24):
                yield np.full_like(person(), 120) if 6 <= number < 11 else np.roll(person(), 80 * (number > 8), 1)

        seen = observe_frames(frames(), 25.0, (WIDTH, HEIGHT), mask=False)
        assert np.flatnonzero(~seen.found).tolist() == [6, 7, 8, 9, 10]
        assert seen.presence[7] == 0
        assert np.isnan(seen.landmarks[8]).all()
        assert "not seen in 5 of 24 frames, for up to 0.2 s" in seen.warnings[0]
        assert seen.masks.shape == (24, 0, 0)

    def test_the_larger_of_two_is_tracked(self) -> None:
        other = np.asarray(Image.fromarray(person(turn=0.1)).resize((WIDTH * 4 // 5, HEIGHT * 4 // 5)))
        left = other.shape[1]
        scene = np.full((HEIGHT, left + WIDTH, 3), 100, np.uint8)
        scene[: len(other), :left] = other
        scene[:, left:] = person()
        seen = observe_frames([scene] * 14, 25.0, (left + WIDTH, HEIGHT), mask=False)
        assert (seen.faces[[0, 12]] == 2).all()
        assert (seen.landmarks[:, :, 0] > left).all()
        assert any("2 faces" in warning for warning in seen.warnings)

    def test_blur_is_seen(self) -> None:
        coarse = Image.fromarray(person()).resize((WIDTH // 8, HEIGHT // 8)).resize((WIDTH, HEIGHT))
        frames = [np.asarray(coarse) if number % 5 == 4 else person() for number in range(15)]
        seen = observe_frames(frames, 25.0, (WIDTH, HEIGHT), mask=False)
        assert (seen.sharpness[4::5] < 0.2 * np.median(seen.sharpness)).all()
        assert any("blurred frames: 3 of" in warning for warning in seen.warnings)

    def test_nobody(self) -> None:
        with pytest.raises(NobodyError, match="looked for in 5 frames"):
            observe_frames([np.full((90, 120, 3), 200, np.uint8)] * 5, 25.0, (120, 90))

    def test_frames_that_do_not_fit(self) -> None:
        with pytest.raises(InvalidParameterError, match="no frames"):
            observe_frames([], 25.0, (120, 90))
        with pytest.raises(InvalidParameterError, match=r"frame 1 should be uint8 \[90, 120, 3\]"):
            observe_frames([np.zeros((90, 120, 3), np.uint8), np.zeros((90, 121, 3), np.uint8)], 25.0, (120, 90))

    def test_what_goes_wrong_in_the_source_comes_through(self) -> None:
        def frames() -> Iterator[np.ndarray]:
            yield person()
            raise TrackError("the disk is on fire")

        with pytest.raises(TrackError, match="on fire"):
            observe_frames(frames(), 25.0, (WIDTH, HEIGHT))

    def test_a_file(self, tmp_path: Path) -> None:
        pytest.importorskip("av")
        from being_rt.video import VideoWriter

        with VideoWriter(tmp_path / "ada.mp4", (WIDTH, HEIGHT), 25) as video:
            for frame in moving(26):
                video.write(frame)
        seen = observe(tmp_path / "ada.mp4")
        assert (len(seen), seen.fps, seen.size) == (26, 25.0, (WIDTH, HEIGHT))
        assert seen.found.all()
        shrunk = observe(tmp_path / "ada.mp4", size_limit=300, mask=False)
        assert shrunk.size == seen.size
        assert np.abs(shrunk.landmarks - seen.landmarks)[..., :2].mean() < 1.0
        seen.save(tmp_path / "seen.npz")
        np.testing.assert_array_equal(Observations.load(tmp_path / "seen.npz").masks, seen.masks)

    def test_a_file_with_nobody(self, tmp_path: Path) -> None:
        pytest.importorskip("av")
        from being_rt.video import VideoWriter

        with VideoWriter(tmp_path / "wall.mp4", (120, 90), 25) as video:
            for _ in range(26):
                video.write(np.full((90, 120, 3), 200, np.uint8))
        with pytest.raises(TrackError, match=r"wall\.mp4 shows no face"):
            observe(tmp_path / "wall.mp4")

    @pytest.mark.parametrize(("size", "shape"), [((WIDTH, HEIGHT), (256, 256)), ((2 * WIDTH, HEIGHT), (144, 256))])
    def test_which_pixels_are_the_person(self, size: tuple[int, int], shape: tuple[int, int]) -> None:
        scene = np.full((size[1], size[0], 3), [70, 110, 90], np.uint8)
        left = (size[0] - WIDTH) // 2
        scene[:, left : left + WIDTH] = person()
        mask = PersonSegmentation(size)(scene)
        assert mask.shape == shape
        assert mask.dtype == np.uint8
        assert mask[shape[0] // 2, shape[1] // 2] > 230
        assert mask[2, 2] < 30
        assert mask[2, -3] < 30


# ---------------------------------------------------------------------- no network needed


def test_the_most_prominent_over_time_is_the_person() -> None:
    tracks = FaceTracks.__new__(FaceTracks)
    near, far = Track(Crop(0, 0, 50)), Track(Crop(50, 0, 20))
    near.weight, far.weight = 3.0, 2.0
    near.landmarks[1] = far.landmarks[0] = np.zeros((LANDMARKS, 3), np.float32)
    tracks.tracks, tracks.counts = [far, near], {0: 2}
    assert tracks.main() is near
    tracks.counts = {0: 1, 12: 1}  # never two at once: it is the same person
    merged = tracks.main()
    assert merged is not None
    assert sorted(merged.landmarks) == [0, 1]
    tracks.tracks = []
    assert tracks.main() is None


def test_sharpness_does_not_depend_on_the_size() -> None:
    random = np.random.default_rng(0)
    fine = Image.fromarray(random.integers(0, 255, (150, 150, 3), dtype=np.uint8))
    landmarks = np.zeros((LANDMARKS, 3), np.float32)
    landmarks[:2, :2] = [[0, 0], [150, 150]]
    small = sharpness(np.asarray(fine), landmarks)
    large = sharpness(np.asarray(fine.resize((300, 300), Image.Resampling.NEAREST)), 2 * landmarks)
    assert small > 1000
    assert large == pytest.approx(small, rel=0.01)
    assert sharpness(np.asarray(fine), landmarks - 500) == 0


def face(count: int, change: Callable[[np.ndarray], None] = lambda landmarks: None) -> np.ndarray:
    landmarks = np.zeros((count, LANDMARKS, 3), np.float32)
    landmarks[:] = np.random.default_rng(0).uniform(100, 400, (LANDMARKS, 3))
    landmarks[:, [234, 454]] = [[100, 200, 0], [400, 200, 0]]
    change(landmarks)
    return landmarks


def said(landmarks: np.ndarray, blurred: int = 0, faces: int = 1) -> str:
    sharp = np.full(len(landmarks), 100, np.float32)
    sharp[:blurred] = 10
    return "; ".join(remarks(landmarks, sharp, np.full(len(landmarks), faces, np.int32), (500, 500), 25.0))


def test_remarks() -> None:
    def profile(landmarks: np.ndarray) -> None:
        landmarks[:5, 454, 2] = 500

    def aside(landmarks: np.ndarray) -> None:
        landmarks[:, :, 0] += 150

    assert said(face(50)) == ""
    assert "turned by more than 50 degrees in 5 frames" in said(face(50, profile))
    assert "cut off by the edge of the picture in 50 frames" in said(face(50, aside))
    assert "75 pixels wide: come closer" in said(face(50) / 4)
    assert "blurred frames: 6 of" in said(face(50), blurred=6)
    assert "3 faces are in the picture at times (100% of the looks)" in said(face(50), faces=3)


# ---------------------------------------------------------------------- a real person


@pytest.mark.usefixtures("networks")
def test_a_real_video(real_video: Path) -> None:
    seen = observe(real_video)
    assert seen.found.all()
    assert seen.warnings == ()
    assert (seen.faces[seen.faces >= 0] == 1).all()
    eyes = np.linalg.norm(seen.landmarks[:, 468, :2] - seen.landmarks[:, 473, :2], axis=1)
    second = np.diff(seen.landmarks[:, :, :2], 2, axis=0)
    jitter = np.sqrt(np.square(second).mean() / 6)
    assert jitter < 0.007 * eyes.mean()  # what moves is mostly the person
    gap = np.array([lid_gap(landmarks) for landmarks in seen.landmarks])
    assert gap.min() < 0.35 * np.median(gap)  # there are blinks
    lips = (seen.landmarks[:, LOWER_LIP, 1] - seen.landmarks[:, UPPER_LIP, 1]) / eyes
    assert lips.min() < 0.02  # and the lips meet
    assert lips.max() > 0.12
    head = seen.landmarks[:, :468, :2].mean(axis=1) / seen.size * 256
    inside = [mask[round(y), round(x)] for mask, (x, y) in zip(seen.masks, head, strict=True)]
    assert min(inside) > 250
    assert seen.masks[:, :8, :8].max() < 40
    assert 0.4 < (seen.masks > 127).mean() < 0.7
