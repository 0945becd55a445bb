"""How a torso answers the motion: what its numbers mean, and that it is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import make_camera

from being_rt import FlameParams, Renderer
from being_rt.avatar.avatar import MOTIONS, Avatar
from being_rt.avatar.demo import demo_avatar
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.reference import body_root
from being_rt.train.config import TrainConfig
from being_rt.train.distributed import join
from being_rt.train.initialise import new_model
from being_rt.train.response import ResponseScale, initial_response
from being_rt.train.trainer import train

SIZE = (96, 96)
FRAMES = 24


def test_a_unit_is_a_metre_at_the_end_of_the_range() -> None:
    span = torch.tensor([[-0.02] * 3 + [-0.3] * 6, [0.06] * 3 + [0.1] * 6])
    centre = torch.tensor([0.0, -0.3, 0.05])
    response = torch.zeros(MOTIONS, 12)
    response[0, 3] = 0.01  # translation along x moves the whole body 1 cm along x
    response[4, 4] = 0.02  # a turn moves what is 10 cm to the side 2 cm up
    maps = ResponseScale(span, centre).maps(response)
    motion = torch.tensor([[0.06, 0, 0, -0.1, -0.1, -0.1, -0.1, -0.1, -0.1], [0.02, 0, 0, -0.1, 0.1, *[-0.1] * 4]])
    root = body_root(motion, maps, span)
    place = centre + torch.tensor([0.1, 0.0, 0.0])
    moved = root[:, :, :3] @ place + root[:, :, 3] - place
    np.testing.assert_allclose(moved.numpy(), [[0.01, 0, 0], [0, 0.02, 0]], atol=1e-6)


def test_what_does_not_move_is_not_answered() -> None:
    span = torch.zeros(2, MOTIONS)
    maps = ResponseScale(span, torch.zeros(3)).maps(torch.ones(MOTIONS, 12))
    assert (maps == 0).all()


@pytest.fixture(scope="module")
def leaning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Avatar]:
    """A demo person whose chest stays where it is when the head goes sideways, and tilts when it turns."""
    ada = demo_avatar("ada")
    response = np.zeros((MOTIONS, 3, 4), np.float32)
    response[0, 0, 3] = -1.0  # the translation along x, undone
    response[5, 0, 1], response[5, 1, 0] = -0.6, 0.6  # degrees of roll, shared
    span = np.concatenate([np.full((1, MOTIONS), -1), np.full((1, MOTIONS), 1)]).astype(np.float32)
    person = replace(ada, torso=replace(ada.torso, response=response, response_range=span))
    camera = make_camera(SIZE, distance=1.1, field_of_view=30)
    time = np.linspace(0, 2 * np.pi, FRAMES, dtype=np.float32)
    params = FlameParams.neutral(FRAMES)
    translation, rotation, neck = params.translation.copy(), params.rotation.copy(), params.neck.copy()
    translation[:, 0] = 0.02 * np.sin(time)
    rotation[:, 2] = 0.12 * np.cos(2 * time)
    neck[:, 1] = 0.1 * np.sin(3 * time)  # a track that has the neck is taken as it is
    params = replace(params, translation=translation, rotation=rotation, neck=neck)
    wall = np.full((*SIZE, 3), 90, np.uint8)
    renderer = Renderer(person, SIZE, "cpu", camera=camera, background=wall)
    path = tmp_path_factory.mktemp("data") / "leaning"
    with DatasetWriter(path, rig=person.rig, cameras=(camera,), fps=25, name="leaning") as writer:
        writer.background(0, wall)
        for row, split in zip(params, ["train", "train", "test"] * (FRAMES // 3), strict=True):
            picture, alpha, _ = renderer.render_layers(row)
            writer.add(picture, np.round(255 * alpha).astype(np.uint8), row, split=split)
    return Dataset.load(path), person


def small() -> TrainConfig:
    config = TrainConfig()
    model = replace(
        config.model, head_gaussians=1200, hair_gaussians=800, mouth_gaussians=200, torso_gaussians=1500, network="none"
    )
    schedule = replace(config.schedule, steps=250, batch=1, evaluate_interval=0, checkpoint_seconds=0.0)
    return replace(config, model=model, schedule=schedule, tracks=replace(config.tracks, refine=False))


def test_a_body_that_leans_is_learned(leaning: tuple[Dataset, Avatar], tmp_path: Path) -> None:
    dataset, _ = leaning
    with join("cpu") as group:
        result = train(dataset, small(), tmp_path, group=group)
    learned = result.model.tensors["sheet.response"].detach().view(MOTIONS, 3, 4) * 1000  # millimetres
    assert learned[0, 0, 3] < -1  # the chest stays behind
    assert learned[5, 0, 1] < -0.5 < 0.4 < learned[5, 1, 0]  # and turns back
    assert not learned[:, 2].any()  # depth is the sheet's relief


def test_a_model_begins_without_one(leaning: tuple[Dataset, Avatar]) -> None:
    dataset, _ = leaning
    model = new_model(small().model, dataset)
    assert (model.response() == 0).all()
    given = initial_response(dataset, torch.zeros(0, 3))
    low, high = given["sheet.response_range"]
    assert high[0] > 0.02 > -0.02 > low[0]
    assert (low <= high).all()
