"""Small datasets for tests of training: a striped ellipse that moves with the tracks. Made in a blink.

Import it as ``from train_scenes import make_dataset`` (pytest puts this folder on the path).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig
from being_rt.train.config import FeedConfig, ModelConfig, ScheduleConfig, TrackConfig, TrainConfig

FOCAL = 2.0  # of the picture's height
DISTANCE = 1.0  # metres


@cache
def head_rig() -> Rig:
    return bake_rig(procedural_head())


def make_camera(size: tuple[int, int]) -> Camera:
    focal = FOCAL * size[1]
    return Camera(
        np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, DISTANCE], [0, 0, 0, 1]], np.float32),
        np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]], np.float32),
        size,
    )


def make_motion(count: int) -> FlameParams:
    """A head that sways by some centimetres, mouth and eyes busy."""
    time = np.arange(count)[:, None] / 25
    still = FlameParams.neutral(count)
    return still.replace(
        translation=np.concatenate([0.02 * np.sin(3 * time), 0.01 * np.cos(2 * time), 0 * time], axis=1),
        jaw=np.concatenate([0.1 + 0.1 * np.sin(5 * time), 0 * time, 0 * time], axis=1),
        neck=np.concatenate([0 * time, 0.1 * np.sin(time), 0 * time], axis=1),
        expression=np.concatenate([np.sin(4 * time), np.zeros((count, 99))], axis=1),
    )


def make_dataset(
    path: Path,
    count: int = 8,
    size: tuple[int, int] = (40, 32),
    *,
    test: int = 2,
    masks: bool = True,
    background: bool = False,
    **options: Any,
) -> Dataset:
    """``count`` frames, the last ``test`` of them held out, of an ellipse whose place follows the translation."""
    camera, motion = make_camera(size), make_motion(count)
    plate = np.full((size[1], size[0], 3), (40, 80, 120), np.uint8)
    plate[:, : size[0] // 2] += 30
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    writer_options: dict[str, Any] = {"rig": head_rig(), "cameras": (camera,), "fps": 25, "name": "ellipse"}
    with DatasetWriter(path, **(writer_options | options)) as writer:
        if background:
            writer.background(0, plate)
        for t in range(count):
            moved = motion.translation[t] * FOCAL * size[1] / DISTANCE
            u = (x - size[0] / 2 - moved[0]) / (0.25 * size[0])
            v = (y - size[1] / 2 + moved[1]) / (0.35 * size[1])
            inside = np.clip((1 - np.hypot(u, v)) * 6, 0, 1)
            skin = np.stack([180 + 40 * np.sin(6 * u), 120 + 40 * v, 100 + 0 * u], -1)
            picture = np.round(inside[..., None] * skin + (1 - inside[..., None]) * plate).clip(0, 255).astype(np.uint8)
            mask = np.round(255 * inside).astype(np.uint8) if masks else None
            writer.add(picture, mask, motion[t], split="test" if t >= count - test else "train")
    return Dataset.load(path)


def small_config(**schedule: Any) -> TrainConfig:
    """A run of seconds: some hundred Gaussians, two frames a step, windows of 24 x 16 pixels."""
    return TrainConfig(
        model=ModelConfig(
            head_gaussians=200,
            hair_gaussians=20,
            mouth_gaussians=20,
            torso_gaussians=40,
            anchors=8,
            rank=4,
            trunk_sizes=(16, 8),
            code_size=4,
            anchor_size=8,
            network_start=0.3,
        ),
        schedule=ScheduleConfig(**({"steps": 12, "batch": 2, "check_interval": 4, "relocate_interval": 4} | schedule)),
        feed=FeedConfig(crops="foveated", window=(24, 16), whole_until=0.2),
        tracks=TrackConfig(start=0.0),
        seed=3,
    )
