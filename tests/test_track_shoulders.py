"""Shoulders found in pictures: a torso that moves on its own is found, and nothing is said where nothing shows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from clothed_scenes import SHIFT, SIZE, ZOOM, filmed, plain, slopes, woven
from numpy.typing import NDArray
from train_scenes import head_rig

from being_rt.dataset.synth_motion import perform
from being_rt.flame.joints import with_global_joint
from being_rt.flame.skinning import skin
from being_rt.track.photometric import PhotometricConfig
from being_rt.track.photometric_gate import Landmarks, head_and_body_jitter, landmark_error
from being_rt.track.photometric_settle import settle
from being_rt.track.photometric_shoulders import ShouldersLooker
from being_rt.track.photometric_views import packed_row
from being_rt.track.shoulders import Shoulders, shoulders
from bench.tracking_scenes import Scene, scene

Float64 = NDArray[np.float64]


def moved(found: Shoulders) -> Float64:
    """Shifts of the clothes' middle and growth [T, 3] against the first frame."""
    return found.motion - found.motion[0]


def truth(found: Shoulders) -> Float64:
    away = found.middle - [SIZE[0] / 2, 150.0]
    shift = SHIFT + ZOOM[:, None] * away
    return np.concatenate([shift, found.reach * ZOOM[:, None]], 1)


def sideways(found: Shoulders) -> Float64:
    """Deviation [T] px of the shift to the side."""
    return np.sqrt(np.linalg.inv(found.information)[:, 0, 0])


def test_clothes_are_found_wherever_the_head_goes(tmp_path: Path) -> None:
    told: list[float] = []
    found = shoulders(filmed(tmp_path / "woven", woven, slopes), told.append)
    assert found is not None
    assert found.known.all()
    np.testing.assert_allclose(moved(found), truth(found), atol=0.25)
    assert np.abs(found.turn).max() < 0.01
    assert told == sorted(told)
    assert told[-1] == 1


def test_plain_clothes_have_an_outline(tmp_path: Path) -> None:
    found = shoulders(filmed(tmp_path / "sloping", plain, slopes))
    assert found is not None
    off = moved(found) - truth(found)
    np.testing.assert_allclose(off[:, 1], 0, atol=0.5)
    # What it does not know it says: shoulders that shift look as if they turned.
    deviations = np.sqrt(np.einsum("ti,tij,tj->t", off, found.information, off))
    assert deviations.max() < 3.5
    assert (sideways(found) > 2).all()


def test_a_level_edge_says_nothing_of_what_goes_along_it(tmp_path: Path) -> None:
    found = shoulders(filmed(tmp_path / "level", plain, lambda x: np.full_like(x, 125.0)))
    assert found is None or (sideways(found) > 3).all()


def test_where_nothing_shows_nothing_is_said(tmp_path: Path) -> None:
    assert shoulders(filmed(tmp_path / "head", woven, lambda x: np.full_like(x, 400.0))) is None
    assert shoulders(filmed(tmp_path / "maskless", woven, slopes, masks=False)) is None


@cache
def filmed_with_a_body() -> tuple[Scene, Landmarks, Shoulders]:
    """Landmarks of a head that turns, and shoulders under it that go somewhere else, as the pictures have them."""
    film = scene(24, size=(240, 256), eyes_apart=45.0, noise=0.2, bias=0.001, seed=2)
    seen = Landmarks(
        film.observations.landmarks[:, :, :2], np.ones(24, bool), film.embedding, film.bias.astype(np.float32)
    )
    time = np.arange(24) / 25
    motion = np.stack([4 * np.sin(3 * time), 2 * np.cos(4 * time), 0 * time], 1)
    return film, seen, Shoulders(motion, np.tile(4.0 * np.eye(3), (24, 1, 1)), 0 * time, np.array([120.0, 230.0]), 60.0)


CONFIG = PhotometricConfig(expressions=4)


def test_a_body_follows_shoulders_and_the_head_stays() -> None:
    film, seen, found = filmed_with_a_body()
    rig, params = with_global_joint(film.rig, film.params, film.rig.joint_rest[0] - [0, 0, 0.05])
    without, settled = (settle(params, rig, film.camera, seen, CONFIG, shoulders=each) for each in (None, found))
    off = [
        np.abs(ShouldersLooker(found, rig, film.camera, rows, np.arange(120)).off(np.arange(24), rows)[:, :2]).mean(0)
        for rows in (packed_row(without), packed_row(settled))
    ]
    assert (off[0] > [1.0, 0.7]).all()
    assert (off[1] < 0.4).all()
    given, kept, followed = (
        np.median(landmark_error(seen, rig, motion, film.camera)) for motion in (params, without, settled)
    )
    assert followed < max(given, kept) + 0.1
    assert head_and_body_jitter(settled, rig, film.camera)[1] < 0.1


def test_unknown_frames_are_bridged() -> None:
    """Where nothing was found, whatever is written there, the body goes on smoothly."""
    film, seen, found = filmed_with_a_body()
    told, motion = found.information.copy(), found.motion.copy()
    told[10:13], motion[10:13] = 0, 50.0
    holed = replace(found, motion=motion, information=told)
    whole, bridged = (
        settle(film.params, film.rig, film.camera, seen, CONFIG, shoulders=each) for each in (found, holed)
    )
    apart = whole.translation - bridged.translation
    assert np.abs(apart - np.median(apart, 0)).max() < 0.0005


def test_a_joint_elsewhere_moves_no_vertex() -> None:
    rig = head_rig()
    params = perform(rig, 6, 0, fps=25.0, seed=2)
    joint = rig.joint_rest[0] + np.array([0.01, 0.02, -0.05])
    other, moved_params = with_global_joint(rig, params, joint)
    np.testing.assert_allclose(other.joint_rest[0], joint)
    np.testing.assert_allclose(skin(other, moved_params), skin(rig, params), atol=2e-6)
    assert np.abs(moved_params.translation - params.translation).max() > 1e-4
    back, same = with_global_joint(other, moved_params, rig.joint_rest[0])
    np.testing.assert_allclose(same.translation, params.translation, atol=1e-7)
    np.testing.assert_allclose(back.joint_rest, rig.joint_rest)
