"""Refining a track by pictures: what was disturbed comes nearer to the truth, what got worse is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from train_scenes import head_rig

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.dataset.reduced import ReducedDataset, face_reduction
from being_rt.dataset.regions import face_regions, project
from being_rt.dataset.synth_motion import perform
from being_rt.dataset.synth_tracking import TrackingErrors, tracked_motion, without_neck
from being_rt.errors import FileFormatError, InvalidParameterError, MissingDependencyError
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import skin
from being_rt.track import photometric
from being_rt.track.photometric import BASE, PhotometricConfig, Refined, is_wanted, refine, refine_with
from being_rt.track.photometric_file import load_refined, save_refined
from being_rt.track.photometric_gate import Landmarks, blended, head_and_body_jitter, landmark_error
from being_rt.track.photometric_settle import settle
from being_rt.track.photometric_solve import MotionPrior
from being_rt.track.shoulders import Shoulders
from being_rt.train.config import ModelConfig
from being_rt.train.frames import Frames
from being_rt.train.initialise import new_model
from being_rt.train.model import AvatarModel
from being_rt.train.tracks import steady
from bench.tracking_scenes import made_up_embedding, scene

FRAMES, SIZE = 8, (60, 68)
FAST = PhotometricConfig(
    gaussians=300, steps=20, face=50, expressions=4, iterations=1, area=60.0, seed=2
)  # fmt: skip


@dataclass(frozen=True)
class Teacher:
    """Who was filmed, what really happened, and the data set with a disturbed track."""

    model: AvatarModel
    truth: FlameParams
    dataset: Dataset

    @property
    def small(self) -> ReducedDataset:
        return ReducedDataset.of(self.dataset, 1)


def camera() -> Camera:
    focal = 2.6 * SIZE[1]
    pose = np.array([[1, 0, 0, 0], [0, -1, 0, 0.02], [0, 0, -1, 0.9], [0, 0, 0, 1]], np.float32)
    intrinsics = np.array([[focal, 0, SIZE[0] / 2], [0, focal, SIZE[1] / 2], [0, 0, 1]], np.float32)
    return Camera(pose, intrinsics, SIZE)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = tmp_path_factory.mktemp("teacher")
    rig = head_rig()
    truth = perform(rig, FRAMES, 0, fps=25.0, seed=3)
    blank = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    with DatasetWriter(folder / "blank", rig=rig, cameras=(camera(),), fps=25, name="blank") as writer:
        for t in range(2):
            writer.add(blank, blank[..., 0], truth[t])
    config = ModelConfig(
        head_gaussians=900, hair_gaussians=50, mouth_gaussians=50, torso_gaussians=0, network="none",
        initial_opacity=0.9,
    )  # fmt: skip
    model = new_model(config, Dataset.load(folder / "blank"), "cpu", seed=1)
    with torch.no_grad():  # a tattooed person: something to see everywhere
        random = torch.Generator().manual_seed(4)
        colour = model.tensors["head.colour"]
        colour.copy_(torch.rand(colour.shape, generator=random))
        drawn = model.render(Frames.of(truth, camera(), (0.4, 0.5, 0.6)))
    pictures = (drawn.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    errors = TrackingErrors(
        focal_error=0.0, expression_bias=0.0, jaw_bias=0.0, rotation_noise=0.5, translation_noise=0.8
    )
    track = tracked_motion(rig, truth, camera(), errors, seed=5)
    with DatasetWriter(folder / "person", rig=rig, cameras=(camera(),), fps=25, name="person") as writer:
        writer.background(0, np.broadcast_to(np.array([102, 128, 153], np.uint8), blank.shape).copy())
        for t in range(FRAMES):
            split = "train" if t < FRAMES - 3 else "test"
            writer.add(pictures[t, ..., :3].copy(), pictures[t, ..., 3].copy(), track[t], split=split)
    return Teacher(model, truth, Dataset.load(folder / "person"))


@pytest.fixture(scope="module")
def refined(teacher: Teacher) -> Refined:
    return refined_by(teacher)


def refined_by(teacher: Teacher, config: PhotometricConfig = FAST) -> Refined:
    return refine_with(teacher.model, teacher.small, None, config, "cpu", lambda share: None)


def off(teacher: Teacher, params: FlameParams) -> dict[str, float]:
    """Errors against the truth: face, px; lids; gaze and jaw, degrees; all root mean squares."""
    rig, truth = teacher.dataset.rig, teacher.truth
    face = face_regions(rig)["face"]
    seen, true = (project(skin(rig, motion)[:, face], camera())[0] for motion in (params, truth))
    return {
        "face": float(np.sqrt(((seen - true) ** 2).sum(-1).mean())),
        "jaw": float(np.degrees(np.sqrt(((params.jaw - truth.jaw) ** 2).mean()))),
        "gaze": float(np.degrees(np.sqrt(((params.eyes - truth.eyes) ** 2).mean()))),
        "jitter": abs(head_and_body_jitter(params, rig, camera())[0] - head_and_body_jitter(truth, rig, camera())[0]),
    }


def seen_by(rig: Rig, params: FlameParams) -> Landmarks:
    """Landmarks that say that a motion is right."""
    embedding = made_up_embedding()
    points = embedding.points(skin(rig, params).astype(np.float64), rig.faces)
    pixels = project(points, camera())[0].astype(np.float32)
    return Landmarks(pixels, np.ones(FRAMES, bool), embedding, np.zeros((478, 3), np.float32))


def test_a_disturbed_track_comes_nearer_to_the_truth(teacher: Teacher, refined: Refined) -> None:
    result = refined
    before, after = off(teacher, teacher.dataset.params), off(teacher, result.params)
    assert result.accepted.all()
    assert after["face"] < 0.6 * before["face"]
    assert after["gaze"] < 0.9 * before["gaze"]
    assert after["jitter"] < 0.6 * before["jitter"]
    assert result.body_jitter[1] < 0.1 < result.body_jitter[0]
    assert result.held_out.tolist() == [t >= FRAMES - 3 for t in range(FRAMES)]
    shown = result.held_out_psnr()
    assert shown[1] > shown[0] + 2


def test_the_appearance_is_trained_and_kept(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from being_rt.train import trainer

    told: list[float] = []
    first = refine(teacher.dataset, None, FAST, work=tmp_path / "work", device="cpu", progress=told.append)
    assert np.isfinite(first.psnr).all()
    assert first.global_joint is None  # without landmarks nobody looks for shoulders
    assert first.rig(teacher.dataset.rig) is teacher.dataset.rig
    assert not np.isfinite(first.shoulders).any()
    assert told == sorted(told)
    assert told[-1] == 1
    steps: list[int] = []
    monkeypatch.setattr(trainer._Run, "_block", lambda self: steps.append(1))
    monkeypatch.setattr(photometric, "refine_with", lambda *arguments: first)
    assert refine(teacher.dataset, None, FAST, work=tmp_path / "work", device="cpu").params is first.params
    assert steps == []  # the run was complete


def test_a_body_that_was_found_has_a_joint_of_its_own(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body stays where shoulders stay; the rig that the motion is of is told, and the face is where it was."""
    from being_rt.track import photometric_appearance
    from being_rt.track import shoulders as finding

    still = Shoulders(
        np.zeros((FRAMES, 3)), np.tile(np.eye(3), (FRAMES, 1, 1)), np.zeros(FRAMES), np.array([30.0, 60.0]), 20.0
    )
    monkeypatch.setattr(photometric_appearance, "appearance", lambda *arguments: teacher.model)
    monkeypatch.setattr(finding, "shoulders", lambda *arguments: still)
    rig = teacher.dataset.rig
    given = without_neck(rig, teacher.dataset.params)  # as fitters of faces give it
    dataset, seen = replace(teacher.dataset, params=given), seen_by(rig, given)
    result = refine(dataset, seen, FAST, work=tmp_path, device="cpu")
    np.testing.assert_allclose(result.global_joint, rig.joint_rest[0] + BASE, atol=1e-6)
    assert result.shoulders[1] < 0.1 < result.shoulders[0]
    assert result.figures()["refined, base of the neck"] == "5 cm behind the model's"
    error = landmark_error(seen, result.rig(rig), result.params, camera())
    assert np.median(error) < 1.0


def test_frames_that_look_worse_keep_their_track(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    from being_rt.track import photometric_search

    found = photometric_search.search

    def spoil(*arguments: Any) -> Any:
        result = found(*arguments)
        params = result.params
        turned = params.rotation.copy()
        turned[4:6, 1] += 0.3
        spoilt = params.replace(rotation=turned)
        return replace(result, params=spoilt, cost=np.stack([result.cost[0], result.compare(spoilt).cost]))

    monkeypatch.setattr(photometric_search, "search", spoil)
    result = refined_by(teacher, replace(FAST, ramp=1))
    assert np.flatnonzero(~result.accepted).tolist() == [4, 5]
    given = steady(teacher.dataset.params, teacher.dataset.rig, camera())
    for t in (4, 5):
        assert result.params[t] == given[t]
    assert np.abs(result.params.rotation - given.rotation).max() < 0.1


def test_frames_whose_landmarks_get_worse_keep_their_track(teacher: Teacher) -> None:
    """The landmarks say that the track was right, whatever the pictures do."""
    seen = seen_by(teacher.dataset.rig, teacher.dataset.params)
    config = replace(FAST, landmarks=1e-9, growth=0.0)
    result = refine_with(teacher.model, teacher.small, seen, config, "cpu", lambda share: None)
    assert not result.accepted.any()
    assert result.params == teacher.dataset.params


def test_a_ramp_joins_refused_frames() -> None:
    given = FlameParams.neutral(9)
    refined = given.replace(jaw=np.tile([[0.3, 0, 0]], (9, 1)))
    accepted = np.ones(9, bool)
    accepted[[0, 8]] = False
    opened = blended(given, refined, accepted, ramp=2).jaw[:, 0]
    np.testing.assert_allclose(opened, [0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.2, 0.1, 0], atol=1e-6)
    assert blended(given, refined, ~np.zeros(9, bool), ramp=2).jaw[0, 0] == np.float32(0.3)
    assert blended(given, refined, np.zeros(9, bool), ramp=2) == given


def test_a_step_is_the_least_of_all() -> None:
    random = np.random.default_rng(0)
    frames, columns = 6, 3
    root = random.standard_normal((frames, columns, columns))
    hessian, gradient = root @ root.swapaxes(1, 2), random.standard_normal((frames, columns))
    x = random.standard_normal((frames, columns))
    prior = MotionPrior(
        random.standard_normal((frames, columns)),
        random.uniform(0.5, 2, (frames, columns)),
        np.array([5.0, 1.0, 0.2]),
        random.standard_normal((frames - 2, 3)),
    )

    def cost(step: NDArray[np.float64]) -> float:
        return prior.cost(x + step) + float(0.5 * np.einsum("ti,tij,tj", step, hessian, step) + np.sum(gradient * step))

    least = prior.step(x, hessian, gradient)
    flat = np.eye(frames * columns).reshape(-1, frames, columns)
    slopes = [cost(least + 1e-4 * unit) - cost(least - 1e-4 * unit) for unit in flat]
    np.testing.assert_allclose(slopes, 0, atol=1e-9)


def test_shoulders_settle_and_the_head_stays() -> None:
    """Of a head that bobs three times a second, the trainer's own filter loses half."""
    motion = perform(head_rig(), 24, 0, fps=25.0, seed=1)
    bob = 0.003 * np.sin(2 * np.pi * 3 * np.arange(24) / 25)
    motion = motion.replace(translation=motion.translation + bob[:, None] * [0.0, 1.0, 0.0])
    filmed = scene(24, size=(240, 256), eyes_apart=45.0, noise=0.0, bias=0.001, params=motion)
    seen = Landmarks(
        filmed.observations.landmarks[:, :, :2], np.ones(24, bool), filmed.embedding, filmed.bias.astype(np.float32)
    )

    def measured(params: FlameParams) -> tuple[float, float]:
        error = landmark_error(seen, filmed.rig, params, filmed.camera)
        return float(np.sqrt((error**2).mean())), head_and_body_jitter(params, filmed.rig, filmed.camera)[1]

    config = PhotometricConfig(expressions=4)
    settled = settle(filmed.params, filmed.rig, filmed.camera, seen, config)
    filtered = settle(filmed.params, filmed.rig, filmed.camera, None, config)
    assert filtered == steady(filmed.params, filmed.rig, filmed.camera)
    (given, shaken), (loss, _), (error, still) = measured(filmed.params), measured(filtered), measured(settled)
    assert error < given + 0.5 * (loss - given)
    assert still < 0.2 * shaken
    assert settle(settled, filmed.rig, filmed.camera, seen, config) is settled


def test_the_same_again_and_in_segments(teacher: Teacher, refined: Refined) -> None:
    assert refined_by(teacher).params == refined.params
    parts = refined_by(teacher, replace(FAST, segment=5))
    pixels = [project(skin(teacher.dataset.rig, each.params), camera())[0] for each in (refined, parts)]
    assert 0 < np.abs(pixels[0] - pixels[1]).max() < 0.2


def test_reduced_frames_see_the_same(teacher: Teacher) -> None:
    half = ReducedDataset.of(teacher.dataset, 2)
    assert half.size == (SIZE[0] // 2, SIZE[1] // 2)
    assert half.image(3).shape == (SIZE[1] // 2, SIZE[0] // 2, 3)
    blocks = teacher.dataset.image(3).astype(float).reshape(SIZE[1] // 2, 2, SIZE[0] // 2, 2, 3).mean((1, 3))
    assert np.abs(half.image(3) - blocks).max() <= 0.51
    point = np.array([0.01, 0.02, 0.05])
    np.testing.assert_allclose(
        project(point, half.cameras[0])[0] * 2, project(point, teacher.dataset.cameras[0])[0], atol=1e-4
    )
    assert face_reduction(teacher.dataset, 1000) == 1
    assert face_reduction(teacher.dataset, 10) == min(SIZE) // 32


def test_it_survives_a_file(teacher: Teacher, tmp_path: Path) -> None:
    params = teacher.dataset.params
    made = Refined(
        params=params,
        accepted=np.arange(FRAMES) > 2,
        held_out=np.zeros(FRAMES, bool),
        psnr=np.full((2, FRAMES), 30, np.float32),
        face_psnr=np.full((2, FRAMES), 31, np.float32),
        landmarks=np.full((2, FRAMES), np.nan, np.float32),
        head_jitter=(0.5, 0.25),
        body_jitter=(0.3, 0.0625),
        shoulders=(7.5, 0.5),
        global_joint=np.array([0, -0.2, -0.1], np.float32),
    )
    save_refined(made, tmp_path / "refined.npz")
    read = load_refined(tmp_path / "refined.npz")
    assert read.params == params
    assert read.figures() == made.figures()
    assert read.figures()["refined by pictures"] == "62.5 % of the frames"
    assert read.figures()["refined, shoulders"] == "off by 0.50 px, before 7.50"
    rig = teacher.dataset.rig
    np.testing.assert_array_equal(read.rig(rig).joint_rest[0], made.global_joint)
    unmoved = replace(made, global_joint=None, shoulders=(np.nan, np.nan))
    save_refined(unmoved, tmp_path / "unmoved.npz")
    assert load_refined(tmp_path / "unmoved.npz").rig(rig) is rig
    assert "refined, shoulders" not in unmoved.figures()
    (tmp_path / "refined.npz").write_bytes(b"damaged")
    with pytest.raises(FileFormatError):
        load_refined(tmp_path / "refined.npz")


def test_without_pytorch_it_says_so(monkeypatch: pytest.MonkeyPatch, teacher: Teacher, tmp_path: Path) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(photometric.importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    assert not is_wanted("auto")
    assert not is_wanted("off")
    with pytest.raises(MissingDependencyError, match="needs PyTorch"):
        is_wanted("on")
    with pytest.raises(MissingDependencyError, match="needs PyTorch"):
        refine(teacher.dataset, work=tmp_path / "work")
    with pytest.raises(InvalidParameterError, match="auto, on or off"):
        is_wanted("yes")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="steps"):
        PhotometricConfig(steps=0)
