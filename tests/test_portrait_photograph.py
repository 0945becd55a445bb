"""An avatar from a real photograph, with the networks: NASA's portrait of Eileen Collins, which is in the public domain
and comes with scikit-image. The part of it with the head is enough."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from being_rt.dataset.regions import project
from being_rt.errors import TrackError
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head
from being_rt.portrait.subject import Subject, subject_of

HEAD = np.s_[0:256, 96:352]

pytestmark = pytest.mark.usefixtures("networks")


@pytest.fixture(scope="module")
def photograph() -> NDArray[np.uint8]:
    data = pytest.importorskip("skimage.data", reason="scikit-image, which brings the photograph, is not installed")
    return np.ascontiguousarray(data.astronaut()[HEAD])


@pytest.fixture(scope="module")
def found(photograph: NDArray[np.uint8], networks: None) -> Subject:
    return subject_of(photograph, procedural_head())


def test_a_real_face_is_fitted(found: Subject) -> None:
    assert any("the face is 9" in line for line in found.warnings)  # 92 pixels wide
    # The tip of the nose and the corners of the eyes are where the network sees them.
    assert 0.35 < (found.alpha > 127).mean() < 0.75
    for side, iris in (("right", 468), ("left", 473)):
        ball = found.vertices[found.model.regions[f"{side}_eyeball"]].mean(0)
        assert np.linalg.norm(project(ball[None], found.camera)[0][0] - found.landmarks[iris, :2]) < 6
    # Nobody is left in the room behind.
    x, y = found.landmarks[1, :2].astype(int)
    assert np.linalg.norm(found.background[y, x].astype(int) - found.picture[y, x]) > 40


def test_the_avatar_looks_like_the_photograph_and_moves(found: Subject) -> None:
    from being_rt.portrait.build import avatar_of
    from being_rt.renderer import Renderer

    renderer = Renderer(avatar_of(found, "collins"), found.camera.size)
    drawn = renderer.render(found.params).astype(float)
    assert 10 * np.log10(255**2 / np.mean((drawn - found.picture) ** 2)) > 26

    def at(*landmarks: int) -> tuple[slice, slice]:
        x, y = found.landmarks[list(landmarks), :2].mean(0).astype(int)
        return slice(y - 3, y + 4), slice(x - 3, x + 4)

    rest = FlameParams.neutral()
    still = renderer.render(rest).astype(int)
    shut = renderer.render(rest.replace(eyelids=np.ones((1, 2), np.float32))).astype(int)
    for iris in (468, 473):  # skin is brighter than an eye
        assert shut[at(iris)].mean() - still[at(iris)].mean() > 20
    opened = renderer.render(rest.replace(jaw=np.array([[0.3, 0, 0]], np.float32))).astype(int)
    assert still[at(13, 14)].mean() - opened[at(14, 17)].min() > 60
    turned = renderer.render(rest.replace(neck=np.array([[0, 0.3, 0]], np.float32))).astype(int)
    assert np.abs(turned - still)[at(1)].mean() > 8
    assert np.abs(turned - still)[-6:].mean() < 12  # the body stays


def test_of_two_people_the_larger_is_taken(photograph: NDArray[np.uint8]) -> None:
    both = np.full((256, 440, 3), 200, np.uint8)
    both[:, 184:] = photograph
    small = np.asarray(Image.fromarray(photograph).resize((180, 180)))
    both[40:220, 2:182] = small
    found = subject_of(both, procedural_head())
    assert any("2 faces are in the picture: the largest" in line for line in found.warnings)
    assert found.landmarks[:, 0].min() > 184


def test_what_is_cut_off_is_said(photograph: NDArray[np.uint8]) -> None:
    close = subject_of(np.ascontiguousarray(photograph[30:200, 20:190]), procedural_head())
    assert any("cuts off the top of the head" in line for line in close.warnings)


def test_a_landscape_has_no_face(photograph: NDArray[np.uint8]) -> None:
    y, x = np.mgrid[:240, :240]
    field = np.stack([x / 2, y / 2 + 60, 200 - y / 2], -1).astype(np.uint8)
    with pytest.raises(TrackError, match="no face is found"):
        subject_of(field, procedural_head())
