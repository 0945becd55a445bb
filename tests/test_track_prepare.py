"""A video becomes a data set: without networks, on a drawn head whose landmarks are known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from being_rt.clone_jobs import Clone, Prepare
from being_rt.dataset import Dataset
from being_rt.dataset.check import check_dataset
from being_rt.dataset.regions import project
from being_rt.dataset.silhouette import silhouette
from being_rt.errors import DatasetError, TrackError
from being_rt.flame.skinning import skin
from being_rt.track import prepare as module
from being_rt.track.observations import Observations
from being_rt.track.photometric import Refined
from being_rt.track.photometric_gate import Landmarks, landmark_error
from being_rt.track.prepare import prepare
from being_rt.video import VideoWriter
from bench.tracking_scenes import Scene, scene

FRAMES, SIZE = 30, (240, 256)
SKIN = (205, 150, 120)


@pytest.fixture(scope="module")
def filmed() -> Scene:
    return scene(FRAMES, size=SIZE, eyes_apart=45.0, noise=0.1, bias=0.0)


@pytest.fixture(scope="module")
def masks(filmed: Scene) -> NDArray[np.uint8]:
    pixels = [project(vertices, filmed.camera)[0] for vertices in filmed.vertices]
    return np.stack([255 * silhouette(each, filmed.rig.faces, SIZE).astype(np.uint8) for each in pixels])


@pytest.fixture(scope="module")
def room() -> NDArray[np.uint8]:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    waves = 60 + 25 * np.sin(x / 9) + 25 * np.sin(y / 7)
    return np.stack([waves, waves + 20, waves + 60], -1).astype(np.uint8)


@pytest.fixture(scope="module")
def video(masks: NDArray[np.uint8], room: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "head.mp4"
    with VideoWriter(path, SIZE, 25, quality=5) as writer:
        for mask in masks:
            writer.write(np.where(mask[..., None] > 0, np.array(SKIN, np.uint8), room))
    return path


@pytest.fixture
def looked(filmed: Scene, masks: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the networks; says how often it was asked."""
    asked: list[str] = []
    seen = filmed.observations

    def observe(path: Any, **_: Any) -> Observations:
        asked.append(str(path))
        small = np.ascontiguousarray(masks[:, ::2, ::2])
        return Observations(
            seen.size, seen.fps, seen.landmarks, seen.presence, seen.faces, seen.sharpness, small, ("dim light",)
        )

    monkeypatch.setattr(module, "observe", observe)
    monkeypatch.setattr(module, "landmark_embedding", lambda model: filmed.embedding)
    monkeypatch.setattr(module, "is_wanted", lambda refine: refine == "on")  # as if there were no PyTorch
    return asked


def test_a_video_becomes_a_data_set(
    video: Path, looked: list[str], filmed: Scene, masks: NDArray[np.uint8], room: NDArray[np.uint8], tmp_path: Path
) -> None:
    heard: list[tuple[str, float]] = []
    made = prepare(
        video, tmp_path / "head", filmed.model, work=tmp_path / "work", name="Head", licence="CC0-1.0", held_out=0.2,
        progress=lambda stage, share: heard.append((stage, share)),
    )  # fmt: skip
    dataset = Dataset.load(tmp_path / "head")
    assert (dataset.count, dataset.size, dataset.fps) == (FRAMES, SIZE, 25)
    assert len(dataset.split("test")) == 6
    assert (dataset.name, dataset.licence) == ("Head", "CC0-1.0")
    assert "dim light" in made.warnings
    assert {stage for stage, _ in heard} == {"fitting", "separating"}

    assert check_dataset(tmp_path / "head").passed
    off = []
    for index in (0, 11, 29):
        vertices = skin(dataset.rig, dataset.params[index])[0]
        pixels, _ = project(vertices, dataset.cameras[0])
        truth, _ = project(filmed.vertices[index], filmed.camera)
        off.append(np.linalg.norm(pixels - truth, axis=1)[filmed.model.regions["face"]].mean())
        wrong = np.abs(dataset.mask(index).astype(float) - masks[index]).mean() / 255
        assert wrong < 0.02
    assert max(off) < 1.2
    np.testing.assert_allclose(dataset.params.translation.mean(0), 0, atol=1e-5)
    plate = dataset.backgrounds[0]
    assert plate is not None
    bare = (masks == 0).all(0)
    assert np.abs(plate.astype(float) - room)[bare].mean() < 6


def test_what_was_done_is_not_done_again(
    video: Path, looked: list[str], filmed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(**changes: Any) -> Any:
        return prepare(video, tmp_path / "head", filmed.model, work=tmp_path / "work", **changes)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # in the middle of the last stage
        patch.setattr(module, "background_plate", killed)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert not (tmp_path / "head").exists()
    monkeypatch.setattr(module, "fit", killed)  # what is kept is enough
    first = again()
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "head").rglob("*"))]
    assert again().dataset.count == first.dataset.count
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "head").rglob("*"))] == times
    assert len(looked) == 1
    with pytest.raises(DatasetError, match="exists"):
        again(held_out=0.5)
    assert len(again(held_out=0.5, replace=True).dataset.split("test")) == FRAMES // 2


def test_what_pictures_refined_is_written_and_kept(
    video: Path, looked: list[str], filmed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(**changes: Any) -> Any:
        return prepare(video, tmp_path / "head", filmed.model, work=tmp_path / "work", **changes)

    def refine(dataset: Dataset, landmarks: Landmarks, *_: Any, work: Path, progress: Any, **__: Any) -> Refined:
        asked.append(dataset.count)
        work.mkdir()
        progress(1.0)
        error = landmark_error(landmarks, dataset.rig, dataset.params, dataset.cameras[0])
        assert np.median(error) < 0.5
        assert dataset.image(0).shape == (SIZE[1], SIZE[0], 3)
        assert len(dataset.split("train")) == 24
        two = np.zeros((2, FRAMES), np.float32)
        opened = dataset.params.replace(jaw=dataset.params.jaw + np.float32(0.01))
        return Refined(
            opened, np.ones(FRAMES, bool), np.zeros(FRAMES, bool), two, two, two, (2.0, 1.0), (0.5, 0.25),
            global_joint=dataset.rig.joint_rest[0] + np.float32(0.01),
        )  # fmt: skip

    asked: list[int] = []
    monkeypatch.setattr(module, "refine_track", refine)
    plain = again(held_out=0.2)
    assert any("landmarks alone" in warning for warning in plain.warnings)
    assert plain.refinement == {}
    assert not any("landmarks alone" in warning for warning in again(held_out=0.2, refine="off").warnings)
    with pytest.raises(DatasetError, match="exists"):
        again(held_out=0.2, refine="on")
    heard: list[str] = []
    made = again(held_out=0.2, refine="on", replace=True, progress=lambda stage, share: heard.append(stage))
    assert "refining" in heard
    np.testing.assert_allclose(made.dataset.params.jaw, plain.dataset.params.jaw + 0.01, atol=1e-6)
    assert made.refinement["refined, body jitter"] == "0.25 px, before 0.50"
    np.testing.assert_allclose(made.dataset.rig.joint_rest[0], plain.dataset.rig.joint_rest[0] + 0.01, atol=1e-6)
    np.testing.assert_array_equal(made.dataset.rig.joint_rest[1:], plain.dataset.rig.joint_rest[1:])
    assert [path.name for path in (tmp_path / "work").iterdir() if path.is_dir()] == []
    shutil.rmtree(tmp_path / "head")  # the data set is gone, the stage is not
    assert again(held_out=0.2, refine="on").dataset.params == made.dataset.params
    assert asked == [FRAMES]


def test_a_face_that_cannot_be_followed_is_refused(
    video: Path, looked: list[str], filmed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    found: Callable[..., Any] = module.fit
    lost = np.zeros(FRAMES, bool)
    lost[:8] = True
    monkeypatch.setattr(module, "fit", lambda *given: replace(found(*given), tracked=lost))
    with pytest.raises(TrackError, match="followed in 8 of 30 frames"):
        prepare(video, tmp_path / "head", filmed.model, work=tmp_path / "work")


def test_the_job_reports(
    video: Path, looked: list[str], filmed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("being_rt.track.embedding.landmark_embedding", lambda model: filmed.embedding)
    monkeypatch.chdir(tmp_path)
    made = Prepare(video, out="head").run()
    assert made.check.passed
    assert made.frames == FRAMES
    assert made.quality.error < 3
    page = made.report.read_text(encoding="utf-8")
    assert "What to film again" in page
    assert page.count("<svg") == 4
    assert page.count("data:image/jpeg") == 6
    assert made.overlay.stat().st_size > 1000
    assert {"fitting", "separating"} <= set(made.times)


def test_a_clone_talks(
    video: Path, looked: list[str], filmed: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from being_rt import clone_jobs
    from being_rt.jobs import Demo

    monkeypatch.setattr("being_rt.track.embedding.landmark_embedding", lambda model: filmed.embedding)
    monkeypatch.chdir(tmp_path)
    small = clone_jobs.light

    def tiny(config: Any) -> Any:
        from dataclasses import replace

        config = small(config)
        model = replace(
            config.model, head_gaussians=600, hair_gaussians=100, mouth_gaussians=60, torso_gaussians=0, anchors=16
        )
        return replace(config, model=model)

    monkeypatch.setattr(clone_jobs, "light", tiny)
    spoken: list[Demo] = []
    monkeypatch.setattr(Demo, "run", lambda self: spoken.append(self))
    made = Clone(video, name="head", device="cpu", steps=6).run()
    assert made.avatar == Path("head.being")
    assert made.avatar.exists()
    assert made.trained.steps == 6
    assert made.sample == Path("head.talk.mp4")
    assert [job.avatar for job in spoken] == ["head.being"]
    assert Clone(video, name="head", device="cpu", steps=6, sample=False).run().sample is None
    assert len(looked) == 1
