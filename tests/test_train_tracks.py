"""Tracks: what steadying a body leaves alone, what corrections cost, and that they find a motion the pictures show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scenes import JOINTS, make_camera, make_params, make_rig

from being_rt.errors import InvalidParameterError
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.reference import pose
from being_rt.train.config import TrackConfig
from being_rt.train.tracks import COLUMNS, Tracks, slow_part, steady

CAMERA = make_camera((320, 240))
EVERYTHING = TrackConfig(start=0.0, slow_seconds=0.2, focal=1e-3, principal=0.1)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return make_rig(np.random.default_rng(0), 8, 8)


def swaying(count: int = 100) -> FlameParams:
    """A head that nods and turns about the neck joint, from the global joint, as trackers of heads have it; noise."""
    random = np.random.default_rng(5)
    time = np.arange(count) / 25
    rotation = np.stack([0.1 * np.sin(3 * time), 0.3 * np.sin(time), 0 * time], 1)
    bone = np.array(JOINTS[1]) - np.array(JOINTS[0])
    turned = np.einsum("tij,j->ti", matrices(rotation), bone)
    moved = np.stack([0.01 * np.sin(0.5 * time), 0 * time, 0 * time], 1) + bone - turned
    noise = random.normal(0, 1, (count, 3)) * [3e-4, 3e-4, 2e-3]
    return FlameParams.neutral(count).replace(rotation=rotation, translation=moved + noise)


def skull(rig: Rig, params: FlameParams) -> tuple[np.ndarray, np.ndarray]:
    """The neck joint's turn and place, [T, 3, 3] and [T, 3]."""
    turns, places = [], []
    rest, basis = torch.tensor(rig.joint_rest).double(), torch.tensor(rig.joint_expression).double()
    for t in range(len(params)):
        row = params[t]
        angles = np.concatenate([row.rotation, row.neck, row.jaw, row.eyes.reshape(2, 3)])
        expression = torch.tensor(row.expression[0]).double()
        transform = pose(rest, basis, expression, torch.tensor(angles).double()).transforms[1].numpy()
        joint = (rest + basis @ expression)[1].numpy()
        turns.append(transform[:, :3])
        places.append(transform[:, :3] @ joint + transform[:, 3] + row.translation[0])
    return np.array(turns), np.array(places)


def jerk(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.diff(values, n=2, axis=0) ** 2)))


def test_steady_shoulders_leave_the_head_where_it_was(rig: Rig) -> None:
    given = swaying()
    settled = steady(given, rig, CAMERA)
    before, after = skull(rig, given), skull(rig, settled)
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    moved = np.abs(after[1] - before[1])
    assert moved[:, 0].max() < 5e-5  # sideways: by the neck
    assert moved[:, 1].max() < 1.5e-3  # along the neck: what is faster than two frames is lost
    assert moved[:, 2].max() < 8e-3  # away from the camera: noise is
    assert jerk(settled.translation) < 0.1 * jerk(given.translation)
    # A nod about the neck joint does not move the shoulders: what is left is the sway.
    assert np.ptp(given.translation[:, 2]) > 0.012
    assert np.ptp(settled.translation[:, 2]) < 0.004
    assert 0.1 < np.ptp(settled.rotation[:, 1]) / np.ptp(given.rotation[:, 1]) < 0.3


def test_a_body_that_was_tracked_stays_as_it_is(rig: Rig) -> None:
    given = swaying().replace(neck=np.full((100, 3), 0.1))
    assert steady(given, rig, CAMERA) is given


def test_a_body_that_was_tracked_can_be_freed_of_noise(rig: Rig) -> None:
    given = swaying().replace(neck=np.full((100, 3), 0.1))
    settled = steady(given, rig, CAMERA, seconds=0.1)
    assert np.abs(settled.rotation - given.rotation).max() < 0.03
    assert jerk(settled.translation) < 0.3 * jerk(given.translation)
    slow = np.abs(settled.translation[:, 2] - given.translation[:, 2])
    assert slow.max() < 8e-3


def test_nothing_is_smoothed_across_a_cut(rig: Rig) -> None:
    still = FlameParams.neutral(10)
    jump = FlameParams.concatenate([still, still.replace(translation=np.full((10, 3), 0.2))])
    np.testing.assert_allclose(steady(jump, rig, CAMERA).translation, jump.translation, atol=1e-6)
    tracks = Tracks(jump, np.arange(20, dtype=np.int32), EVERYTHING, "cpu", torch.float64)
    assert float(tracks.terms(tracks.sequence())["smoothness"].detach()) == 0


def test_steady_can_be_turned_off(rig: Rig) -> None:
    given = swaying(5)
    assert steady(given, rig, CAMERA, seconds=0) is given


def test_smoothness_knows_how_far_frames_are_apart() -> None:
    """An even acceleration costs the same whichever frames see it; what is half a second away costs nothing."""
    time = np.arange(40)[:, None]
    speeding = FlameParams.neutral(40).replace(translation=1e-4 * time**2 * [1, 0, 0])
    costs = []
    for trained in (range(40), range(0, 40, 3), (0, 1, 5, 6, 9, 20 - 3, 18, 20)):
        tracks = Tracks(speeding, np.array(trained, np.int32), EVERYTHING, "cpu", torch.float64)
        costs.append(float(tracks.terms(tracks.sequence())["smoothness"].detach()))
    assert costs[0] > 0
    np.testing.assert_allclose(costs, costs[0], rtol=1e-5)
    apart = Tracks(speeding, np.array([0, 1, 20, 39], np.int32), EVERYTHING, "cpu", torch.float64)
    assert float(apart.terms(apart.sequence())["smoothness"].detach()) == 0


def test_uncorrected_tracks_are_the_given_ones() -> None:
    given = make_params(6)
    tracks = Tracks(given, np.arange(6, dtype=np.int32), EVERYTHING, "cpu")
    assert tracks.params() == given
    timestep = torch.tensor([4, 0, 4])
    motion = tracks.gather(tracks.sequence(), timestep)
    for mine, name in ((motion.expression, "expression"), (motion.translation, "translation")):
        np.testing.assert_array_equal(mine.detach().numpy(), getattr(given, name)[[4, 0, 4]])
    joints = np.concatenate([given.rotation, given.neck, given.jaw, given.eyes], 1).reshape(6, 5, 3)[[4, 0, 4]]
    np.testing.assert_array_equal(motion.axis_angles.detach().numpy(), joints)


def test_without_refinement_there_is_nothing_to_learn() -> None:
    tracks = Tracks(make_params(3), np.arange(3, dtype=np.int32), TrackConfig(refine=False), "cpu")
    assert tracks.leaves == {}
    assert tracks.learning_rates(0.5) == {}


def test_gradients_of_everything() -> None:
    tracks = Tracks(make_params(5), np.arange(4, dtype=np.int32), EVERYTHING, "cpu", torch.float64)
    random = torch.Generator().manual_seed(0)
    timestep = torch.tensor([1, 1, 3])
    base = torch.rand(3, 6, generator=random, dtype=torch.float64)
    leaves = list(tracks.leaves.values())

    def everything(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tracks.leaves = dict(zip(tracks.leaves, values, strict=True))
        sequence = tracks.sequence()
        return (*tracks.gather(sequence, timestep), *tracks.terms(sequence).values(), tracks.intrinsics(base, 2))

    scattered = [
        (1e-3 * torch.randn(leaf.shape, generator=random, dtype=leaf.dtype)).requires_grad_() for leaf in leaves
    ]
    assert torch.autograd.gradcheck(everything, scattered, atol=1e-6, fast_mode=True)


def test_corrections_find_a_shaken_motion() -> None:
    """Pictures that show the true translation, tracks with noise: closer after than before, smoother too."""
    random = np.random.default_rng(0)
    truth = swaying(40).replace(translation=np.linspace([0, 0, 0], [0.02, 0.01, 0], 40))
    noisy = truth.replace(translation=truth.translation + random.normal(0, 2e-3, (40, 3)))
    trained = np.arange(0, 40, 2, dtype=np.int32)  # every other timestep is held out
    tracks = Tracks(noisy, trained, TrackConfig(start=0.0, slow_seconds=0.4), "cpu")
    target = torch.tensor(truth.translation)
    adam = torch.optim.Adam([tracks.leaves["tracks.translation"]], lr=1e-4)
    for step in range(400):
        adam.zero_grad()
        sequence = tracks.sequence()
        timestep = torch.tensor(trained[np.arange(4 * step, 4 * step + 4) % 20]).long()
        shown = (tracks.gather(sequence, timestep).translation - target[timestep]).square().sum(1).mean() * 300
        (shown + sum(tracks.terms(sequence).values())).backward()
        adam.step()
    error = np.abs(tracks.params().translation - truth.translation)
    before = np.abs(noisy.translation - truth.translation)
    assert error[trained].mean() < 0.5 * before[trained].mean()
    drawn = tracks.sequence()[:, COLUMNS["translation"]].detach().numpy()
    np.testing.assert_array_equal(drawn[1::2], noisy.translation[1::2])  # held out: as given
    between = tracks.params().translation - noisy.translation  # played: corrected as its neighbours are
    np.testing.assert_allclose(between[1:-1:2], (between[:-2:2] + between[2::2]) / 2, atol=1e-6)
    hats, weights = slow_part(trained.astype(np.int64), 0.4 * 25, 40)
    np.testing.assert_allclose(hats @ (weights @ between), 0, atol=1e-6)  # nothing slow is corrected


def test_the_slow_part_of_lines_is_all_of_them() -> None:
    times = np.array([2, 3, 5, 8, 12, 13, 20])
    hats, weights = slow_part(times, 6, 24)
    knots = np.linspace(2, 20, 4)
    for values in (np.ones(24), np.arange(24.0), np.abs(np.arange(24) - knots[1])):
        np.testing.assert_allclose((hats @ (weights @ values))[2:21], values[2:21], atol=1e-9)
    hats, weights = slow_part(times, 100, 24)
    values = np.random.default_rng(0).normal(size=24)
    np.testing.assert_allclose(hats @ (weights @ values), np.full(24, values[times].mean()))


def test_the_camera_takes_its_corrections() -> None:
    tracks = Tracks(make_params(3), np.arange(3, dtype=np.int32), EVERYTHING, "cpu")
    camera = CAMERA
    with torch.no_grad():
        tracks.leaves["camera.focal"].fill_(0.1)
        tracks.leaves["camera.principal"].copy_(torch.tensor([2.0, -4.0]))
    refined = tracks.camera(camera)
    assert refined.intrinsics[0, 0] == pytest.approx(camera.intrinsics[0, 0] * np.exp(0.1))
    np.testing.assert_allclose(refined.intrinsics[:2, 2] - camera.intrinsics[:2, 2], [2, -4], atol=1e-4)
    crop = tracks.intrinsics(torch.tensor([[100.0, 100.0, 50.0, 40.0, 0.7, 0.6]]), 2).detach()[0]
    np.testing.assert_allclose(crop, [100 * np.exp(0.1)] * 2 + [51, 38, 0.7, 0.6], rtol=1e-5)


def test_learning_rates_wait_for_the_start() -> None:
    tracks = Tracks(make_params(3), np.arange(3, dtype=np.int32), TrackConfig(start=0.5, end=0.25, jaw=1.0), "cpu")
    assert tracks.learning_rates(0.4)["tracks.jaw"] == 0
    assert tracks.learning_rates(0.5)["tracks.jaw"] == pytest.approx(1)
    assert tracks.learning_rates(1.0)["tracks.jaw"] == pytest.approx(0.25)
    assert set(tracks.learning_rates(1.0)) == {f"tracks.{name}" for name in WIDTHS}


def test_no_training_frames() -> None:
    with pytest.raises(InvalidParameterError, match="no training frames"):
        Tracks(make_params(3), np.zeros(0, np.int32), TrackConfig(), "cpu")
