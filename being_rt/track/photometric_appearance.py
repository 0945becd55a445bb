"""The small avatar that a track is refined against: rigid, a few thousand Gaussians, trained on the training frames."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from being_rt.dataset.reduced import ReducedDataset
from being_rt.errors import CheckpointError
from being_rt.track.photometric import PhotometricConfig
from being_rt.train.config import ModelConfig, TrainConfig
from being_rt.train.distributed import Group
from being_rt.train.model import AvatarModel
from being_rt.train.presets import preset
from being_rt.train.progress import Observer, Status
from being_rt.train.trainer import TrainResult, train

WINDOW = 144  # px; of the whole frame, a window sees the face


def appearance(
    dataset: ReducedDataset,
    config: PhotometricConfig,
    folder: Path,
    device: str,
    progress: Callable[[float], None] | None = None,
) -> AvatarModel:
    """Train it, or go on where an interrupted run stopped.

    It is rigid: with an offset network it would explain by looks what is motion, and FLAME's parameters would mean
    something else for it than for the mesh.

    Raises as :func:`being_rt.train.trainer.train`, and ``KeyboardInterrupt`` where that was interrupted.
    """

    # Held-out frames are not to be judged: what the appearance is for comes after.
    shown = replace(dataset, splits=tuple("train" if split == "train" else "unseen" for split in dataset.splits))

    def run(resume: bool) -> TrainResult:
        return train(
            shown,
            training(config, dataset.size),
            folder,
            resume=resume,
            group=Group(torch.device(device)),
            observers=(_Share(progress),) if progress is not None else (),
        )

    try:
        result = run(resume=True)
    except CheckpointError:  # of another track or device, or damaged; it costs a minute or two
        shutil.rmtree(folder, ignore_errors=True)
        result = run(resume=False)
    if not result.complete:
        raise KeyboardInterrupt
    return result.model


def training(config: PhotometricConfig, size: tuple[int, int]) -> TrainConfig:
    """The run's configuration for reduced frames of ``size``."""
    base = preset("being")
    count = config.gaussians
    model: ModelConfig = replace(
        base.model,
        head_gaussians=count,
        hair_gaussians=count // 4,
        mouth_gaussians=count // 6,
        torso_gaussians=count // 2,
        network="none",
    )
    small = min(size) < 64
    return replace(
        base,
        model=model,
        schedule=replace(
            base.schedule,
            steps=config.steps,
            visits=0,
            batch=2,
            relocate_interval=50,
            evaluate_interval=0,
            checkpoint_seconds=20,
        ),
        feed=replace(
            base.feed,
            crops="whole" if small else "foveated",
            window=(WINDOW, WINDOW),
            window_share=0.5,
            frame_limit=config.frames,
        ),
        seed=config.seed,
    )


class _Share(Observer):
    """Passes the run's progress on."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress

    def status(self, status: Status) -> None:
        self._progress(status.progress)
