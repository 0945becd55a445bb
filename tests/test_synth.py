"""Synthetic data sets: what they claim about themselves is true, in pixels, millimetres and degrees."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import make_avatar, make_params

from being_rt.audio.demo import demo_line
from being_rt.avatar.avatar import Avatar, Gaussians, HeadLayer
from being_rt.avatar.file import save_avatar
from being_rt.dataset import Dataset
from being_rt.dataset import synth_motion as motion
from being_rt.dataset.synth import Synthesize, head_centre, orbited, truth_cameras
from being_rt.dataset.synth_motion import MotionLimits, held_out, perform
from being_rt.dataset.synth_picture import PictureErrors, mask_of, noise_deviations, noisy_picture
from being_rt.dataset.synth_tracking import TrackingErrors, tracked_camera, tracked_motion, without_neck
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.skinning import on_surface, skin
from being_rt.renderer import Renderer

SIZE = (96, 72)
TINY: dict[str, Any] = {
    "frames": 16,
    "size": SIZE,
    "fps": 5.0,
    "seed": 3,
    "views": (-20.0, 30.0),
    "view_frames": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return make_avatar(seed=4, head_count=600, torso_count=300, size=SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, avatar: Avatar) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    save_avatar(avatar, folder / "egg.being")
    for name, clean in (("noisy", False), ("clean", True)):
        Synthesize(avatar=str(folder / "egg.being"), out=folder / name, clean=clean, **TINY).run()
    return folder


# ---------------------------------------------------------------- the data set


def test_splits_show_different_moments(folder: Path) -> None:
    data = Dataset.load(folder / "noisy")
    assert data.size == SIZE
    assert data.split_names == ("train", "test", "views")
    steps = {name: set(data.timestep[data.split(name)].tolist()) for name in data.split_names}
    assert steps["train"] == set(range(13))
    assert steps["test"] == {13, 14, 15}
    assert steps["views"] == {13, 15}
    assert set(data.camera_index[data.split("views")].tolist()) == {1, 2}
    assert not data.camera_index[: len(data.params)].any()
    assert data.licence == "CC0-1.0"


def test_seed_decides_everything(folder: Path, tmp_path: Path) -> None:
    source = str(folder / "egg.being")
    Synthesize(avatar=source, out=tmp_path / "again", **TINY, threads=1).run()
    Synthesize(avatar=source, out=tmp_path / "other", **{**TINY, "seed": 4}).run()
    pictures = sorted(path.relative_to(folder / "noisy") for path in (folder / "noisy").rglob("*.png"))
    assert len(pictures) == 2 * 20 + 3  # frames and masks, and a plate for each camera
    first, again, other = (Dataset.load(path) for path in (folder / "noisy", tmp_path / "again", tmp_path / "other"))
    same = [(first.path / file).read_bytes() == (again.path / file).read_bytes() for file in pictures]
    assert all(same)
    assert (first.params, first.truth) == (again.params, again.truth)
    frame = "images/000003.png"
    assert (first.path / frame).read_bytes() != (other.path / frame).read_bytes()
    assert first.params != other.params
    assert first.truth != other.truth


def test_truth_draws_the_frames(folder: Path, avatar: Avatar) -> None:
    clean, noisy = Dataset.load(folder / "clean"), Dataset.load(folder / "noisy")
    assert clean.truth == clean.params == noisy.truth
    assert clean.truth is not None
    assert noisy.truth is not None
    assert noisy.truth != noisy.params
    np.testing.assert_array_equal(noisy.truth.rotation[13:], noisy.params.rotation[13:])
    assert np.abs(noisy.truth.rotation - noisy.params.rotation)[:13].min() > 0
    renderer = Renderer(avatar, SIZE)
    for cameras, data in ((clean.cameras, clean), (truth_cameras(noisy), noisy)):
        for i in range(data.count):
            t, camera = int(data.timestep[i]), cameras[data.camera_index[i]]
            layers = renderer.render_layers(clean.truth[t], camera)
            np.testing.assert_array_equal(data.mask(i), (layers.alpha * 255 + 0.5).astype(np.uint8))
            difference = data.image(i).astype(int) - layers.picture
            assert np.abs(difference).max() <= (0 if data is clean else 40)
    for plate in noisy.backgrounds:
        assert plate is not None
        np.testing.assert_array_equal(plate, avatar.background)


def test_landmarks_lie_where_truth_says(tmp_path: Path) -> None:
    """Three bright dots ride on the face of an avatar that is black; they are found where skinning puts them."""
    egg = make_avatar(seed=2, torso_count=0, network=False, size=(192, 160))
    front = np.argsort(-egg.rig.template[egg.rig.faces].mean(1)[:, 2])
    faces = np.ascontiguousarray(front[[0, 25, 50]], np.int32)
    barycentric = np.full((3, 3), 1 / 3, np.float32)
    dots = Gaussians(
        position=np.zeros((3, 3), np.float32),
        rotation=np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1)),
        log_scale=np.full((3, 3), np.log(0.004), np.float32),
        opacity_logit=np.full(3, 8, np.float32),
        colour=np.eye(3, dtype=np.float32),
        facing_fade=np.zeros(3, bool),
    )
    seam = replace(
        egg.seam,
        head_band=np.zeros(0, np.int32),
        torso_band=np.zeros(0, np.int32),
        torso_band_weight=np.zeros(0, np.float32),
    )
    marked = replace(egg, head=HeadLayer(dots, faces, barycentric), seam=seam, background=np.zeros_like(egg.background))
    save_avatar(marked, tmp_path / "dots.being")
    options = {**TINY, "size": (192, 160), "frames": 6, "test_share": 0.5, "view_frames": 3, "views": (25.0,)}
    limits = MotionLimits(yaw=25, pitch=15)
    Synthesize(avatar=str(tmp_path / "dots.being"), out=tmp_path / "d", clean=True, limits=limits, **options).run()
    data = Dataset.load(tmp_path / "d")
    assert data.truth is not None
    points = on_surface(skin(data.rig, data.truth), data.rig.faces, (faces, barycentric))
    checked = 0
    for i in range(data.count):
        camera = data.cameras[data.camera_index[i]]
        seen = points[data.timestep[i]] @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
        expected = (seen @ camera.intrinsics.T)[:, :2] / seen[:, 2:]
        picture = data.image(i).astype(np.float64)
        y, x = np.mgrid[: data.size[1], : data.size[0]] + 0.5
        for k in range(3):
            weight = picture[:, :, k]
            found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
            if np.abs(expected - expected[k]).max(1)[np.arange(3) != k].min() > 12:  # apart from the others
                assert np.abs(found - expected[k]).max() < 0.15
                checked += 1
    assert checked >= 9


def test_errors_are_found_before_anything_is_drawn(folder: Path, tmp_path: Path) -> None:
    source = str(folder / "egg.being")
    for wrong, words in (
        ({"frames": 1}, "frames must be"),
        ({"test_share": 0.95}, "test_share"),
        ({"size": "96"}, "size"),
        ({"views": (400.0,)}, "views"),
        ({"view_frames": 0}, "view_frames"),
        ({"threads": -1}, "threads"),
        ({"fps": 0.0}, "fps"),
        ({"seed": -1}, "seed"),
        ({"avatar": "nobody"}, "there is no avatar"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            Synthesize(**{"avatar": source, "out": tmp_path / "x", **TINY, **wrong}).run()
    with pytest.raises(DatasetError, match="it exists"):
        Synthesize(avatar=source, out=folder / "clean", **TINY).run()
    assert list(tmp_path.iterdir()) == []


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tyro")
    from being_rt.cli import main

    given = ["data", "synth", "--avatar", str(folder / "egg.being"), "--out", str(tmp_path / "x"), "--size", "48x36"]
    given += ["--frames", "5", "--fps", "10", "--views", "-30", "--tracking.jaw-bias", "2", "--device", "cpu"]
    assert main(given) == 0
    assert "6 frames of 48x36" in capsys.readouterr().out
    data = Dataset.load(tmp_path / "x")
    assert data.truth is not None
    opened = np.degrees(data.params.jaw - data.truth.jaw)[-1, 0]
    assert abs(opened) == pytest.approx(2, abs=1e-3)
    assert main(given) == 2
    assert "it exists" in capsys.readouterr().err


def test_an_avatar_out_of_sight_is_refused(avatar: Avatar, tmp_path: Path) -> None:
    away = replace(avatar, camera=orbited(avatar.camera, np.array([0.0, 0.0, 5.0]), 90.0))
    save_avatar(away, tmp_path / "away.being")
    with pytest.raises(InvalidParameterError, match="out of sight"):
        Synthesize(avatar=str(tmp_path / "away.being"), out=tmp_path / "x", **TINY).run()


def test_data_without_truth_has_no_true_cameras(folder: Path) -> None:
    data = Dataset.load(folder / "clean")
    with pytest.raises(DatasetError, match="no true cameras"):
        truth_cameras(replace(data, metadata={}))


# ---------------------------------------------------------------- the performance


def test_performance_is_bounded_smooth_and_of_one_seed(avatar: Avatar) -> None:
    limits = MotionLimits(yaw=30, pitch=10, roll=5, sway=8)
    params = perform(avatar.rig, 400, 100, fps=25, seed=7, limits=limits)
    assert len(params) == 500
    assert params == perform(avatar.rig, 400, 100, fps=25, seed=7, limits=limits)
    assert params != perform(avatar.rig, 400, 100, fps=25, seed=8, limits=limits)
    turn = np.degrees(params.rotation + params.neck)  # about one axis, so angles add
    assert (np.abs(turn).max(0) < (12, 31.5, 8)).all()
    for part in (turn[:400], turn[400:]):
        assert np.ptp(part[:, 1]) > 30
        assert np.ptp(part[:, 0]) > 8
    assert np.abs(params.translation).max() <= 0.008
    speed = np.abs(np.diff(turn, axis=0)).max() * 25
    assert 10 < speed < 120  # degrees per second
    assert np.abs(np.diff(params.jaw, axis=0)).max() < 0.1
    assert np.ptp(params.jaw[:400, 0]) > 0.1
    assert params.eyelids.max() > 0.9
    still = perform(avatar.rig, 30, 0, limits=MotionLimits(yaw=0, pitch=0, roll=0, sway=0))
    assert not still.rotation.any()
    assert not still.neck.any()
    assert not still.translation.any()


def test_frame_rate_samples_the_same_performance(avatar: Avatar) -> None:
    slow = perform(avatar.rig, 50, 0, fps=25, seed=1)
    fast = perform(avatar.rig, 100, 0, fps=50, seed=1)
    np.testing.assert_allclose(fast.rotation[::2], slow.rotation, atol=1e-5)
    np.testing.assert_allclose(fast.expression[:80:2], slow.expression[:40], atol=1e-4)


def test_pairs_for_tests_are_never_trained() -> None:
    random = np.random.default_rng(0)
    trained, tested = (set(islice(motion._pairs(testing, random), 600)) for testing in (False, True))
    assert not trained & tested
    assert all(held_out(*pair) for pair in tested)
    for upper in motion.UPPER:  # each part of a held-out pair is trained with other partners
        assert any(pair[0] == upper for pair in trained)
    for lower in motion.LOWER:
        assert any(pair[1] == lower for pair in trained)
        assert any(pair[1] == lower for pair in tested)


def test_phrases_are_cut_in_pauses_and_apart() -> None:
    line, rate, _ = demo_line()
    cuts = {edge for phrase in (*motion.TRAINING_PHRASES, *motion.HELD_OUT_PHRASES) for edge in phrase}
    loudest = np.abs(line).max()
    for cut in cuts:
        around = line[max(0, round((cut - 0.01) * rate)) : round((cut + 0.01) * rate)]
        assert np.abs(around).max(initial=0) < 0.02 * loudest
    assert max(end for _, end in motion.TRAINING_PHRASES) <= min(start for start, _ in motion.HELD_OUT_PHRASES)


def test_turns_compose_as_matrices() -> None:
    from being_rt.flame.rotations import matrices

    angles = np.random.default_rng(0).uniform(-1, 1, (3, 20))
    zero = np.zeros(20)
    yaw, pitch, roll = angles
    expected = (
        matrices(np.stack([zero, yaw, zero], 1))
        @ matrices(np.stack([pitch, zero, zero], 1))
        @ matrices(np.stack([zero, zero, roll], 1))
    )
    np.testing.assert_allclose(matrices(motion._turned(yaw, pitch, roll)), expected, atol=1e-12)


def test_expressions_come_from_the_rigs_map(avatar: Avatar) -> None:
    names = ("jawOpen", "mouthSmileLeft", "mouthSmileRight")
    matrix = np.zeros((3, 111), np.float32)
    matrix[0, 100], matrix[1, 5], matrix[2, 6] = 0.25, 1.5, 2.5
    rows = motion.expression_rows(replace(avatar.rig, expression_map=ExpressionMap(names, matrix)))
    row = rows({"jawOpen": 0.5, "mouthSmile": 0.4, "cheekPuff": 1.0})
    assert row[[100, 5, 6]] == pytest.approx([0.125, 0.6, 1.0])
    assert np.count_nonzero(row) == 3
    codes = motion.expression_rows(avatar.rig)  # it has no map
    assert codes({"jawOpen": 1.0})[100] == pytest.approx(0.3)
    np.testing.assert_array_equal(codes({"cheekPuff": 2.0}), 2 * codes({"cheekPuff": 1.0}))
    assert np.abs(codes({"cheekPuff": 1.0}) - codes({"mouthPucker": 1.0})).max() > 0.1


# ---------------------------------------------------------------- errors of the tracker


def test_tracking_errors_are_as_large_as_told(avatar: Avatar) -> None:
    errors = TrackingErrors(
        expression_noise=0.5,
        expression_bias=0.8,
        jaw_noise=0.4,
        jaw_bias=1.2,
        rotation_noise=0.3,
        translation_noise=0.5,
        depth_noise=3.0,
        gaze_noise=2.0,
        eyelid_noise=0.04,
        eyelid_gain=0.8,
        correlation=0.08,
    )
    count = 6000
    truth = make_params(count, seed=5).replace(eyelids=np.full((count, 2), 0.5))
    camera = orbited(avatar.camera, np.zeros(3), 30.0)
    track = tracked_motion(avatar.rig, truth, camera, errors, seed=1)
    difference = {name: getattr(track, name).astype(np.float64) - getattr(truth, name) for name in WIDTHS}
    assert not difference["neck"].any()
    jaw = np.degrees(difference["jaw"])
    assert abs(jaw[:, 0].mean()) == pytest.approx(1.2, abs=0.1)
    assert jaw[:, 0].std() == pytest.approx(0.4, rel=0.1)
    assert not jaw[:, 1:].any()
    assert np.degrees(difference["rotation"]).std(0) == pytest.approx([0.3] * 3, rel=0.1)
    seen = 1e3 * difference["translation"] @ camera.world_to_camera[:3, :3].T
    assert seen.std(0) == pytest.approx([0.5, 0.5, 3.0], rel=0.1)
    assert np.degrees(difference["eyes"]).std(0) == pytest.approx([2, 2, 0, 2, 2, 0], rel=0.1, abs=1e-6)
    assert difference["eyelids"].mean(0) == pytest.approx([-0.1, -0.1], abs=0.01)
    assert difference["eyelids"].std(0) == pytest.approx([0.04, 0.04], rel=0.1)
    # Two frames at 25 fps are one time constant apart.
    turn = difference["rotation"][:, 0]
    assert np.corrcoef(turn[:-2], turn[2:])[0, 1] == pytest.approx(np.exp(-1), abs=0.06)
    constant = difference["expression"].mean(0)
    assert _face_error(avatar, difference["expression"] - constant) == pytest.approx(0.5, rel=0.05)
    biases = []
    for seed in range(30):
        found = tracked_motion(avatar.rig, truth[:2], camera, replace(errors, expression_noise=0.0), seed)
        biases.append(found.expression[0].astype(np.float64) - truth.expression[0])
        np.testing.assert_allclose(found.expression[1] - truth.expression[1], biases[-1], atol=1e-5)


def _face_error(avatar: Avatar, codes: np.ndarray) -> float:
    """Millimetres, root mean square over frames and over vertices that move; the egg's all do."""
    moved = np.einsum("vak,tk->tva", avatar.rig.expression_basis.astype(np.float64), codes[::20])
    return 1e3 * float(np.sqrt((moved**2).sum(-1).mean()))


def test_bias_is_as_large_as_told_on_average(avatar: Avatar) -> None:
    truth = make_params(50, seed=6)
    errors = replace(TrackingErrors.none(), expression_bias=0.8)
    sizes = []
    for seed in range(40):
        track = tracked_motion(avatar.rig, truth, avatar.camera, errors, seed)
        difference = track.expression.astype(np.float64) - truth.expression
        assert np.ptp(difference, axis=0).max() < 1e-5
        sizes.append(_face_error(avatar, difference))
    assert np.sqrt(np.mean(np.square(sizes))) == pytest.approx(0.8, rel=0.1)


def test_noise_may_spare_frames_and_biases_none(avatar: Avatar) -> None:
    truth = make_params(40, seed=6)
    noisy = np.arange(40) < 30
    track = tracked_motion(avatar.rig, truth, avatar.camera, TrackingErrors(), 1, noisy)
    everywhere = tracked_motion(avatar.rig, truth, avatar.camera, TrackingErrors(), 1)
    np.testing.assert_array_equal(track.jaw[:30], everywhere.jaw[:30])
    np.testing.assert_array_equal(track.rotation[30:], truth.rotation[30:])
    left = np.degrees((track.jaw - truth.jaw)[30:, 0])
    assert np.abs(left) == pytest.approx(0.5, abs=1e-3)
    bias = (track.expression - truth.expression)[30:]
    assert np.abs(bias).max() > 0.01
    assert np.ptp(bias, axis=0).max() < 1e-5


def test_no_errors_change_nothing(avatar: Avatar) -> None:
    truth = make_params(5, seed=1)
    assert tracked_motion(avatar.rig, truth, avatar.camera, TrackingErrors.none()) == truth
    camera = tracked_camera(avatar.camera, np.zeros(3), TrackingErrors.none())
    np.testing.assert_array_equal(camera.world_to_camera, avatar.camera.world_to_camera)
    np.testing.assert_array_equal(camera.intrinsics, avatar.camera.intrinsics)


def test_a_wrong_focal_length_is_wrong_off_the_head_only(avatar: Avatar) -> None:
    centre = head_centre(avatar.rig)
    wrong = tracked_camera(avatar.camera, centre, TrackingErrors(focal_error=0.1))
    assert wrong.intrinsics[0, 0] == pytest.approx(1.1 * avatar.camera.intrinsics[0, 0])
    assert wrong.intrinsics[0, 2] == avatar.camera.intrinsics[0, 2]
    beside, behind = centre + np.array([0.05, 0.05, 0.0]), centre + np.array([0.05, 0.05, -0.3])
    assert _seen(wrong, beside) == pytest.approx(_seen(avatar.camera, beside), abs=1e-2)
    assert np.abs(_seen(wrong, behind) - _seen(avatar.camera, behind)).max() > 0.2


def _seen(camera: Any, point: np.ndarray) -> np.ndarray:
    local = camera.world_to_camera[:3, :3].astype(np.float64) @ point + camera.world_to_camera[:3, 3]
    return (camera.intrinsics @ local)[:2] / local[2]


def test_a_track_without_neck_poses_the_head_alike(avatar: Avatar) -> None:
    rig = replace(avatar.rig, pose_basis=np.zeros_like(avatar.rig.pose_basis))  # its correctives know the neck
    truth = make_params(4, seed=9)
    track = tracked_motion(rig, truth, avatar.camera, replace(TrackingErrors.none(), head_only=True))
    assert track == without_neck(rig, truth)
    assert not track.neck.any()
    head = rig.skinning_weights[:, 0] == 0
    assert head.sum() > 50
    there, here = skin(rig, truth), skin(rig, track)
    np.testing.assert_allclose(here[:, head], there[:, head], atol=1e-6)
    assert np.abs(here[:, ~head] - there[:, ~head]).max() > 1e-3


def test_cameras_go_around_the_head(avatar: Avatar) -> None:
    centre = head_centre(avatar.rig)
    side = orbited(avatar.camera, centre, 90.0)
    assert _seen(side, centre) == pytest.approx(_seen(avatar.camera, centre), abs=1e-3)
    place = -side.world_to_camera[:3, :3].T @ side.world_to_camera[:3, 3]
    assert place[0] > 0.9  # to the person's left


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TrackingErrors, "jaw_noise", -0.1),
        (TrackingErrors, "correlation", float("nan")),
        (TrackingErrors, "focal_error", 2.0),
        (PictureErrors, "shot_noise", 1.5),
        (PictureErrors, "mask_erosion", -1),
        (MotionLimits, "yaw", 120.0),
    ],
)
def test_sizes_out_of_range_are_refused(kind: Any, name: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        kind(**{name: value})


# ---------------------------------------------------------------- errors of the picture


def test_noise_has_the_deviation_that_light_gives() -> None:
    errors = PictureErrors(read_noise=0.002, shot_noise=0.02)
    deviations = noise_deviations(errors)
    for value in (40, 128, 210):
        flat = np.full((80, 80, 3), value, np.uint8)
        noise = noisy_picture(flat, deviations, np.random.default_rng(1)).astype(np.float64) - value
        assert abs(noise.mean()) < 0.15
        assert noise.std() == pytest.approx(np.hypot(deviations[value], 12**-0.5), rel=0.05)  # rounding adds its own
        light = ((value / 255 + 0.055) / 1.055) ** 2.4
        step = 1e-6
        slope = (1.055 * (light + step) ** (1 / 2.4) - 1.055 * light ** (1 / 2.4)) / step
        assert deviations[value] == pytest.approx(255 * slope * np.sqrt(4e-6 + 4e-4 * light), rel=1e-3)
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    untouched = noisy_picture(picture, noise_deviations(PictureErrors.none()), np.random.default_rng(0))
    np.testing.assert_array_equal(untouched, picture)


def test_erosion_moves_the_edge_inwards_softly() -> None:
    alpha = np.zeros((40, 60), np.float32)
    alpha[:, 30:] = 1
    exact, eroded = mask_of(alpha, PictureErrors.none()), mask_of(alpha, PictureErrors(mask_erosion=4))
    assert set(np.unique(exact)) == {0, 255}
    row = eroded[20].astype(int)
    assert row[28] == 0
    assert row[59] == 255
    edge = np.interp(127.5, row[20:50], np.arange(20, 50) + 0.5)
    assert edge == pytest.approx(34, abs=0.3)
    assert np.count_nonzero((row > 5) & (row < 250)) >= 4


def test_motion_that_does_not_fit_is_refused(avatar: Avatar) -> None:
    for train, test, seed in ((0, 3, 0), (3, -1, 0), (3, 0, -5)):
        with pytest.raises(InvalidParameterError):
            perform(avatar.rig, train, test, seed=seed)
    assert isinstance(perform(avatar.rig, 1, 0), FlameParams)
