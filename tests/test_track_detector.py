"""Decoding what the face detector says, and the geometry of what the landmark networks see; no network runs here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from being_rt.track.crop import Crop, Window
from being_rt.track.detector import SIZE, Detection, anchors, decoded, merged, overlap
from being_rt.track.mesh import _FEATURES, _sample, _sample_frame, face_crop
from being_rt.track.topology import EYE_CONTOURS, IRISES, LANDMARKS, LIPS, MIRROR, OUTER_CORNERS, OVAL

# ---------------------------------------------------------------------- detector


def test_anchors_are_where_the_network_has_them() -> None:
    middles = anchors()
    assert middles.shape == (896, 2)
    assert middles[0].tolist() == middles[1].tolist() == [4, 4]
    assert middles[2].tolist() == [12, 4]  # x first
    assert middles[2 * 16].tolist() == [4, 12]
    assert middles[511].tolist() == [124, 124]
    assert middles[512].tolist() == middles[517].tolist() == [8, 8]  # six to a coarse cell
    assert middles[895].tolist() == [120, 120]


def test_decoding_undoes_what_was_encoded() -> None:
    regressors = np.zeros((896, 16), np.float32)
    logits = np.full(896, -5, np.float32)
    points = np.array([[50, 40], [70, 41], [60, 52], [60, 60], [42, 45], [80, 44]], np.float32)
    number = 2 * (5 * 16 + 7) + 1
    middle = anchors()[number]
    regressors[number] = np.concatenate([[60, 50] - middle, [30, 34], (points - middle).ravel()])
    logits[number] = 2.0
    boxes, found, scores = decoded(regressors, logits, anchors())
    np.testing.assert_allclose(boxes, [[45, 33, 75, 67]], atol=1e-5)
    np.testing.assert_allclose(found, [points], atol=1e-5)
    np.testing.assert_allclose(scores, [1 / (1 + math.exp(-2))], rtol=1e-6)


def test_extreme_logits_do_not_overflow() -> None:
    logits = np.zeros(896, np.float32) - 1e6
    logits[3] = 1e6
    _, _, scores = decoded(np.zeros((896, 16), np.float32), logits, anchors())
    assert scores.tolist() == [1.0]


def detection(left: float, top: float, side: float, score: float) -> Detection:
    box = np.array([left, top, left + side, top + side], np.float32)
    return Detection(box, np.tile(box[:2], (6, 1)), score)


def test_overlapping_boxes_become_their_weighted_mean() -> None:
    first, second, other = detection(10, 10, 20, 0.9), detection(12, 10, 20, 0.6), detection(80, 80, 20, 0.8)
    faces = merged([second, other, first])
    assert [face.score for face in faces] == [0.9, 0.8]
    np.testing.assert_allclose(faces[0].box, [10.8, 10, 30.8, 30], atol=1e-5)
    np.testing.assert_allclose(faces[0].points[0], [10.8, 10], atol=1e-5)
    np.testing.assert_allclose(faces[1].box, other.box)
    assert merged([]) == []


def test_overlap() -> None:
    box = np.array([0, 0, 4, 2], np.float32)
    assert overlap(box, box) == pytest.approx(1)
    assert overlap(box, box + 100) == 0
    assert overlap(box, np.array([2, 0, 6, 2], np.float32)) == pytest.approx(1 / 3)


def test_a_turned_face_is_looked_at_upright() -> None:
    points = np.zeros((6, 2), np.float32)
    points[:2] = [[0, 0], [10, 10]]
    crop = Detection(np.array([0, 10, 40, 70], np.float32), points, 0.9).crop
    assert (crop.x, crop.y, crop.side) == (20, 40, 90)
    assert crop.angle == pytest.approx(math.pi / 4)


# ---------------------------------------------------------------------- squares


def gradient(height: int = 60, width: int = 60, step: int = 4) -> np.ndarray:
    """Red grows with x, green with y, by 4 levels per pixel: the value at a point tells where it is."""
    y, x = np.mgrid[:height, :width] * step
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("side", "angle"), [(20, 0.0), (20, 0.5), (32, -2.0), (42, 0.3)])
def test_what_is_cut_is_where_it_should_be(side: float, angle: float, mirrored: bool) -> None:
    crop = Crop(30.3, 29.6, side, angle, mirrored)
    cut = crop.cut(gradient(), 16).reshape(-1, 3)[:, :2] * 255 / 4
    y, x = (np.mgrid[:16, :16] + 0.5).reshape(2, -1)
    where = crop.to_picture(np.stack([x, y, np.zeros_like(x)], axis=1), 16)[:, :2]
    inside = ((where > 2) & (where < 58)).all(axis=1)
    difference = (cut - (where - 0.5))[inside]  # a pixel's value is at its middle
    assert np.abs(difference).max() < 0.26  # levels are whole numbers
    assert inside.mean() > 0.9


def test_a_mirrored_square_is_the_mirror_image() -> None:
    random = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    crop = Crop(32, 32, 32)
    np.testing.assert_allclose(crop.changed(1.0, mirrored=True).cut(random, 32), crop.cut(random, 32)[:, ::-1])


def test_shrinking_averages_noise_away() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (400, 400, 3), dtype=np.uint8)
    assert Crop(200, 200, 320).cut(noise, 32).std() < 0.05  # 100 pixels each: a tenth of 0.29


def test_beyond_the_picture_its_edge_goes_on() -> None:
    picture = gradient()
    for x, y in ((-60.5, 30.5), (300.5, 30.5), (30.5, -90.5), (30.5, 300.5), (-300.5, -300.5)):
        cut = Crop(x, y, 8).cut(picture, 9) * 255 / 4  # nine samples: one is in the middle
        np.testing.assert_allclose(cut[4, 4, :2], np.clip([x - 0.5, y - 0.5], 0, 59), atol=0.3)
    cut = Crop(30, 30, 400).cut(picture, 16) * 255 / 4
    np.testing.assert_allclose(cut[0, 0, :2], [0, 0], atol=0.3)
    np.testing.assert_allclose(cut[-1, -1, :2], [59, 59], atol=0.3)


def test_squares_share_a_window() -> None:
    picture = np.random.default_rng(2).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    crop = Crop(100, 100, 60, 0.2)
    window = Window.of(picture, crop, 32, slack=1.25)
    np.testing.assert_allclose(crop.cut(window, 32), crop.cut(picture, 32), atol=1e-6)
    assert window.shrink == Window.of(picture, crop.changed(1.05), 32).shrink
    larger = crop.changed(1.05)
    np.testing.assert_allclose(larger.cut(window, 32), larger.cut(picture, 32), atol=1e-6)


def test_the_square_of_a_face_follows_its_landmarks() -> None:
    landmarks = np.zeros((LANDMARKS, 3), np.float32)
    landmarks[:, :2] = [100, 100]
    landmarks[10, :2], landmarks[152, :2] = [100, 40], [100, 140]
    start, end = OUTER_CORNERS
    landmarks[start, :2], landmarks[end, :2] = [80, 90], [120, 80]
    landmarks[468:] = 1e6  # irises do not count
    crop = face_crop(landmarks)
    assert (crop.x, crop.y) == (100, 90)
    assert crop.side == pytest.approx(150)
    assert crop.angle == pytest.approx(math.atan2(-10, 40))


def test_depth_scales_with_the_square() -> None:
    points = Crop(0, 0, 100).to_picture(np.array([[96, 96, 12]], np.float32), 192)
    np.testing.assert_allclose(points, [[0, 0, 6.25]])


# ---------------------------------------------------------------------- the second look at the features


def test_a_sample_lies_around_its_landmarks() -> None:
    angle = 0.4
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-20, -8], [20, -8], [20, 8], [-20, 8]]) @ turn.T + [96, 100]
    axes, corner = _sample_frame(corners.astype(np.float32), (turn @ [1, 0]).astype(np.float32))
    low = axes @ [0, 0] + corner
    high = axes @ [16, 16] + corner
    np.testing.assert_allclose(low * _FEATURES, turn @ [-30, -12] + [96, 100], atol=1e-4)  # 1.5 times the box
    np.testing.assert_allclose(high * _FEATURES, turn @ [30, 12] + [96, 100], atol=1e-4)


def test_sampling_is_bilinear_and_zero_outside() -> None:
    y, x = np.mgrid[:48, :48].astype(np.float32) + 0.5
    features = np.stack([x, y], axis=2)
    axes, corner = np.array([[0.8, -0.3], [0.2, 0.7]]), np.array([12.0, 9.0])
    sampled = _sample(features, axes, corner)
    cells = np.stack(np.meshgrid(np.arange(16) + 0.5, np.arange(16) + 0.5), axis=2)
    np.testing.assert_allclose(sampled, cells @ axes.T + corner, atol=1e-4)
    outside = _sample(features, np.eye(2), np.array([40.0, 0.0]))
    assert (outside[:, 8:] == 0).all()
    assert (outside[:, :7] > 0).all()


# ---------------------------------------------------------------------- numbering


def test_mirroring_twice_is_nothing() -> None:
    assert (MIRROR[MIRROR] == np.arange(LANDMARKS)).all()
    assert np.count_nonzero(np.arange(LANDMARKS) == MIRROR) == 28  # the middle of the face


def test_mirrored_regions_are_each_other() -> None:
    assert (MIRROR[EYE_CONTOURS[0]] == EYE_CONTOURS[1]).all()
    assert set(MIRROR[IRISES[0]]) == set(IRISES[1])
    assert set(MIRROR[LIPS]) == set(LIPS)
    assert set(MIRROR[OVAL]) == set(OVAL)
    assert MIRROR[LIPS[:11]].tolist() == LIPS[:11][::-1].tolist()
    for region in (*EYE_CONTOURS, LIPS, OVAL):
        assert len(set(region)) == len(region)


def test_sizes() -> None:
    assert SIZE == 128
    assert [len(contour) for contour in EYE_CONTOURS] == [71, 71]
    assert len(LIPS) == 80
    assert len(OVAL) == 36
