"""Tracks of held-out frames, fitted to pictures that the model itself has drawn under a motion that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from train_scenes import make_camera, make_dataset, make_motion, small_config

from being_rt.dataset import Dataset, DatasetWriter
from being_rt.errors import InvalidParameterError
from being_rt.flame.skinning import skin
from being_rt.train.evaluate import evaluate, to_bytes
from being_rt.train.fitted import fit_tracks
from being_rt.train.frames import Frames
from being_rt.train.initialise import colours, new_model
from being_rt.train.model import AvatarModel

WHITE = (1.0, 1.0, 1.0)
ERROR = np.array([0.004, -0.003, 0.0], np.float32)  # metres: 0.25 px of these small frames


@pytest.fixture(scope="module")
def model_and_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[AvatarModel, Dataset]:
    """A model with the colours of an ellipse, and frames that it has drawn, whose track is off by ``ERROR``."""
    folder = tmp_path_factory.mktemp("fitted")
    size, motion = (48, 48), make_motion(6)
    ellipse = make_dataset(folder / "ellipse", 6, size, test=0)
    model = new_model(small_config().model, ellipse, seed=0)
    rgba = [np.concatenate([ellipse.image(i), ellipse.mask(i)[..., None]], 2) for i in range(6)]
    colours(model, Frames.of(ellipse.params, make_camera(size), WHITE), torch.tensor(np.stack(rgba)))
    with torch.no_grad():
        drawn = to_bytes(model.render(Frames.of(motion, make_camera(size), WHITE))[..., :3])
    tracked = motion.replace(translation=motion.translation + ERROR)
    with DatasetWriter(folder / "drawn", rig=ellipse.rig, cameras=(make_camera(size),), fps=25, name="drawn") as writer:
        for t, picture in enumerate(drawn):
            writer.add(picture, None, tracked[t], split="test")
    return model, Dataset.load(folder / "drawn")


def test_fitting_finds_the_motion_that_was_drawn(model_and_dataset: tuple[AvatarModel, Dataset]) -> None:
    model, dataset = model_and_dataset
    frames = dataset.split("test")
    before = {name: leaf.detach().clone() for name, leaf in model.tensors.items()}
    given = evaluate(model, fit_tracks(model, dataset, frames, steps=0), dataset, frames)
    tracks = fit_tracks(model, dataset, frames, steps=30)
    fitted = evaluate(model, tracks, dataset, frames, "fitted")
    assert fitted.mean("psnr") > given.mean("psnr") + 6
    true = dataset.params.replace(translation=dataset.params.translation - ERROR)
    left = skin(dataset.rig, tracks.params()) - skin(dataset.rig, true)
    assert np.linalg.norm(left.mean(1), axis=1).max() < 0.4 * np.linalg.norm(ERROR)
    for name, tensor in model.tensors.items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.grad is None, name
    assert all(leaf.requires_grad for leaf in model.parameters.values())


def test_the_avatar_can_be_trained_on_after_an_error(
    model_and_dataset: tuple[AvatarModel, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dataset = model_and_dataset

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(model, "render", fail)
    with pytest.raises(MemoryError):
        fit_tracks(model, dataset, dataset.split("test"), steps=1)
    assert all(leaf.requires_grad for leaf in model.parameters.values())


def test_no_frames(model_and_dataset: tuple[AvatarModel, Dataset]) -> None:
    model, dataset = model_and_dataset
    with pytest.raises(InvalidParameterError, match="no frames"):
        fit_tracks(model, dataset, [])
