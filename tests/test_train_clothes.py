"""Clothes over a neck: their Gaussians stay with the body, and the head's mesh has none there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clothed_scenes import FRAMES, SIZE, filmed, slopes, woven

from being_rt.dataset import Dataset
from being_rt.dataset.regions import face_regions
from being_rt.train.clothes import find_clothes
from being_rt.train.initialise import initial_tensors
from being_rt.train.presets import preset
from being_rt.train.torso import chosen_frames


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return filmed(tmp_path_factory.mktemp("clothed") / "person", woven, slopes)


def test_clothes_are_told_from_the_neck(person: Dataset) -> None:
    clothes = find_clothes(person, chosen_frames(person))
    assert clothes is not None
    assert clothes.reduction == 1
    shown = clothes.at(
        np.array([75.5, 75.5, 20.5, 75.5, -3.0, np.nan]), np.array([150.5, 60.5, 150.5, 110.5, 150.0, 9])
    )
    assert shown.tolist() == [True, False, True, False, False, False]
    rig = person.rig
    heights = rig.template[rig.faces].mean(1)[:, 1]
    within = np.zeros(len(rig.template), bool)
    within[face_regions(rig)["neck"]] = True
    neck = within[rig.faces].all(1)
    assert clothes.triangles[neck & (heights < -0.13)].mean() > 0.9
    assert not clothes.triangles[~neck].any()
    assert not clothes.triangles[heights > -0.05].any()


def test_they_stay_with_the_body(person: Dataset, tmp_path: Path) -> None:
    model = replace(
        preset("being").model, head_gaussians=400, hair_gaussians=40, mouth_gaussians=40, torso_gaussians=300
    )
    made = initial_tensors(model, person, 0)
    clothes = find_clothes(person, chosen_frames(person))
    assert clothes is not None
    alive = made["head.opacity_logit"] > -10
    assert not clothes.triangles[made["head.face"][alive].numpy()].any()
    weights = torch.softmax(made["torso.skinning_logit"], 1)
    assert (weights[:, 0] > 0.85).float().mean() > 0.8
    without = filmed(tmp_path / "maskless", woven, slopes, masks=False)
    assert find_clothes(without, chosen_frames(without)) is None
    following = torch.softmax(initial_tensors(model, without, 0)["torso.skinning_logit"], 1)
    assert (following[:, 2] > 0.5).float().mean() > 0.2
    assert without.count == FRAMES
    assert without.size == SIZE
