"""Regions of a person, against people whose parts are known: the same Gaussians drawn in a colour per part."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from being_rt import FlameParams, Renderer, demo_avatar
from being_rt.avatar.avatar import Avatar, Camera
from being_rt.dataset.labels import LABELS, region_labels
from being_rt.dataset.regions import lip_seam, project
from being_rt.errors import InvalidParameterError
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import on_surface, skin
from being_rt.track.embedding import Embedding
from being_rt.track.topology import LIPS as LIP_LANDMARKS

pytest.importorskip("scipy")

SIZE = (640, 360)
POSES = {"resting": ((0.0, 0.0, 0.0), 0.0), "turned": ((0.1, 0.45, 0.1), 0.3)}
HEAD, HAIR_PART, TORSO_PART = range(3)
BACKGROUND, SKIN, MOUTH_INTERIOR, LIPS, EYES, HAIR, NECK, TORSO = range(8)


def motion(pose: str) -> FlameParams:
    rotation, jaw = POSES[pose]
    return FlameParams.neutral(1).replace(rotation=[rotation], jaw=[[jaw, 0, 0]])


def painted(avatar: Avatar, bald: bool = False) -> Avatar:
    """The person with a channel per part: 0 the head without hair, 1 hair, 2 the torso."""
    head, torso = avatar.head.gaussians, avatar.torso.gaussians
    # Hair comes last, and does not face anywhere.
    is_hair = np.arange(head.count) > np.flatnonzero(head.facing_fade).max()
    colours = np.eye(3, dtype=np.float32)[np.where(is_hair, HAIR_PART, HEAD)]
    return replace(
        avatar,
        head=replace(avatar.head, gaussians=replace(head, colour=colours)),
        torso=replace(avatar.torso, gaussians=replace(torso, colour=np.tile(np.float32([0, 0, 1]), (torso.count, 1)))),
        network=None,
    )


@cache
def camera() -> Camera:
    return demo_avatar("ada").camera.resized(SIZE)


@cache
def shot(name: str, pose: str) -> tuple[Rig, np.ndarray, np.ndarray, np.ndarray]:
    """Rig, frame with noise, alpha, and which part [H, W] is seen (-1: none clearly)."""
    avatar = demo_avatar(name)
    renderer = Renderer(avatar, SIZE, threads=1)
    frame = renderer.render(motion(pose)).astype(np.float32)
    frame = (frame + np.random.default_rng(0).normal(0, 2, frame.shape)).clip(0, 255).astype(np.uint8)
    alpha = np.ascontiguousarray(renderer.render(motion(pose), format="rgba")[..., 3])
    parts = Renderer(painted(avatar), SIZE, threads=1, background=(0, 0, 0)).render(motion(pose))
    part = np.where((alpha >= 128) & (parts.max(2) > 140), parts.argmax(2), -1)
    return avatar.rig, frame, alpha, part


def labelled(name: str, pose: str, lips: tuple[Any, ...] = ()) -> np.ndarray:
    rig, frame, alpha, _ = shot(name, pose)
    return region_labels(rig, motion(pose), camera(), alpha, frame, lips)


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


# Long black hair before a dark jacket is the hardest of the generated people, short curls above a beard the next.
@pytest.mark.parametrize(("name", "hair"), [("ada", 0.82), ("marcus", 0.6), ("mei", 0.65), ("henrik", 0.72)])
@pytest.mark.parametrize("pose", list(POSES))
def test_parts_are_where_they_are(name: str, pose: str, hair: float) -> None:
    labels = labelled(name, pose)
    _, _, alpha, part = shot(name, pose)
    assert np.array_equal(labels == BACKGROUND, alpha < 128)
    assert overlap(labels == HAIR, part == HAIR_PART) > hair
    assert overlap(labels == TORSO, part == TORSO_PART) > (0.8 if name == "mei" else 0.93)
    face = np.isin(labels, [SKIN, MOUTH_INTERIOR, LIPS, EYES, NECK])
    assert overlap(face, part == HEAD) > (0.8 if name == "mei" else 0.84)


@pytest.mark.parametrize("pose", list(POSES))
def test_points_of_the_face(pose: str) -> None:
    rig = shot("ada", pose)[0]
    labels = labelled("ada", pose)
    vertices = skin(rig, motion(pose))[0]

    def at(point: np.ndarray) -> int:
        x, y = project(point, camera())[0]
        return int(labels[int(y), int(x)])

    for joint in (3, 4):
        eyeball = vertices[rig.skinning_weights[:, joint] > 0.5]
        assert at(eyeball[eyeball[:, 2].argmax()]) == EYES
    points = on_surface(vertices, rig.faces, rig.landmarks["dlib68"])
    for skin_point in (30, 8, 2, 14):  # tip of the nose, chin, sides of the jaw
        assert at(points[skin_point]) in ((SKIN, HAIR) if skin_point in (2, 14) else (SKIN,))
    assert at((points[51] + points[62]) / 2) == LIPS  # upper
    assert at((points[57] + points[66]) / 2) == LIPS  # lower
    if pose == "turned":
        assert at((points[62] + points[66]) / 2) == MOUTH_INTERIOR
    chest = vertices[vertices[:, 1].argmin()]
    assert at(chest - [0, 0.06, 0]) == TORSO


def test_a_closed_mouth_has_no_inside() -> None:
    closed, opened = ((labelled("ada", pose) == MOUTH_INTERIOR).sum() for pose in ("resting", "turned"))
    assert opened > 200
    assert closed < 0.15 * opened


def test_closed_eyes_are_skin() -> None:
    rig, frame, alpha, _ = shot("ada", "resting")
    closed = motion("resting").replace(eyelids=[[1.0, 1.0]])
    opened = (labelled("ada", "resting") == EYES).sum()
    assert (region_labels(rig, closed, camera(), alpha, frame) == EYES).sum() < 0.2 * opened


def test_a_bald_head_has_skin() -> None:
    """Without hair, and the skin of the forehead on the scalp."""
    rig, frame, _, part = shot("ada", "resting")
    bald, alpha = frame.copy(), np.where(part == HAIR_PART, 0, 255).astype(np.uint8)
    scalp = np.zeros(part.shape, bool)
    vertices = skin(rig, motion("resting"))[0]
    top, brow = (project(point, camera())[0] for point in (vertices[vertices[:, 1].argmax()], vertices[:, :].mean(0)))
    scalp[int(top[1]) : int(brow[1]) - 20] = True
    alpha[part == -1] = 0
    alpha[scalp & (part == HAIR_PART)] = 255
    patch = frame[part == HEAD]
    bald[scalp & (part == HAIR_PART)] = np.median(patch, axis=0)
    bald = (bald + np.random.default_rng(1).normal(0, 2, bald.shape)).clip(0, 255).astype(np.uint8)
    labels = region_labels(rig, motion("resting"), camera(), alpha, bald)
    assert (labels == HAIR).sum() < 0.15 * (labelled("ada", "resting") == HAIR).sum()


def test_a_rig_without_landmarks_has_lips_too() -> None:
    rig, frame, alpha, _ = shot("ada", "turned")
    plain = region_labels(replace(rig, landmarks={}), motion("turned"), camera(), alpha, frame)
    known = labelled("ada", "turned")
    mouth, found = (np.isin(labels, [LIPS, MOUTH_INTERIOR]) for labels in (known, plain))
    assert overlap(found, mouth) > 0.6
    assert (plain == MOUTH_INTERIOR)[known == MOUTH_INTERIOR].mean() > 0.5
    assert np.array_equal(plain == EYES, known == EYES)


def as_embedding(rig: Rig) -> Embedding:
    """The rig's own edges of the lips under the face mesh's numbers, at vertices."""
    points = on_surface(rig.template.astype(np.float64), rig.faces, rig.landmarks["dlib68"])
    embedding = Embedding(
        np.zeros(478, np.int32),
        np.tile(np.float32([1, 0, 0]), (478, 1)),
        np.zeros(478, np.float32),
        np.zeros(478, bool),
    )
    for ids, lower, upper in (
        (LIP_LANDMARKS[:20], [48, 59, 58, 57, 56, 55, 54], [48, 49, 50, 51, 52, 53, 54]),
        (LIP_LANDMARKS[20:40], [60, 67, 66, 65, 64], [60, 61, 62, 63, 64]),
    ):
        for number, place, line in [
            *[(ids[k], k / 10, lower) for k in range(11)],
            *[(ids[11 + k], (k + 1) / 10, upper) for k in range(9)],
        ]:
            along = place * (len(line) - 1)
            first = min(int(along), len(line) - 2)
            point = points[line[first]] + (along - first) * (points[line[first + 1]] - points[line[first]])
            follows = rig.skinning_weights[:, 2] > 0.5  # closed lips touch: only the jaw tells one from the other
            off = np.linalg.norm(rig.template - point, axis=1)
            vertex = int(np.where(follows == (line is lower), off, np.inf).argmin())
            face, corner = np.argwhere(rig.faces == vertex)[0]
            embedding.face[number], embedding.found[number] = face, True
            embedding.barycentric[number] = np.eye(3, dtype=np.float32)[corner]
    return embedding


def test_landmarks_of_the_face_mesh() -> None:
    embedding = as_embedding(shot("ada", "turned")[0])
    own, given = labelled("ada", "turned"), labelled("ada", "turned", embedding.lips())
    assert overlap(np.isin(given, [LIPS, MOUTH_INTERIOR]), np.isin(own, [LIPS, MOUTH_INTERIOR])) > 0.75
    assert overlap(given == MOUTH_INTERIOR, own == MOUTH_INTERIOR) > 0.6
    nothing = replace(embedding, found=np.zeros(478, bool))
    assert np.array_equal(labelled("ada", "turned", nothing.lips()), own)


def test_a_head_that_is_out_of_sight_leaves_a_torso() -> None:
    rig, frame, alpha, _ = shot("ada", "resting")
    for place in ([0, 0, 5.0], [3.0, 0, 0]):  # behind the camera; beside the picture
        away = motion("resting").replace(translation=[place])
        labels = region_labels(rig, away, camera(), alpha, frame)
        assert np.array_equal(labels, np.where(alpha >= 128, TORSO, BACKGROUND))
    assert not region_labels(rig, motion("resting"), camera(), np.zeros_like(alpha), frame).any()


def test_where_lips_meet() -> None:
    rig = shot("ada", "resting")[0]
    with_landmarks, without = lip_seam(rig), lip_seam(replace(rig, landmarks={}))
    for seam in (with_landmarks, without):
        assert 0.035 < np.ptp(seam[:, 0]) < 0.08  # metres
        assert np.ptp(seam[:, 1]) < 0.015
    assert np.abs(with_landmarks.mean(0) - without.mean(0)).max() < 0.008


def test_what_labels_refuse() -> None:
    rig, frame, alpha, _ = shot("ada", "resting")
    with pytest.raises(InvalidParameterError, match=r"a frame must be uint8 \[360, 640, 3\]"):
        region_labels(rig, motion("resting"), camera(), alpha, frame[:100])
    with pytest.raises(InvalidParameterError, match=r"alpha must be uint8 \[360, 640\]"):
        region_labels(rig, motion("resting"), camera(), alpha[:100], frame)
    with pytest.raises(InvalidParameterError, match="labels are of one frame, got 3 rows"):
        region_labels(rig, FlameParams.neutral(3), camera(), alpha, frame)
    assert LABELS[MOUTH_INTERIOR] == "mouth interior"
