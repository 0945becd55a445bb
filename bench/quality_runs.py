"""One run of the quality bench: a preset is trained on a data set, judged, exported, and drawn by the engine."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar
from being_rt.avatar.file import save_avatar
from being_rt.dataset import Dataset
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.renderer import Renderer
from being_rt.train.config import TrainConfig
from being_rt.train.distributed import Group
from being_rt.train.evaluate import FrameScore, evaluate, to_bytes
from being_rt.train.export import to_avatar
from being_rt.train.fitted import fit_tracks
from being_rt.train.frames import Frames
from being_rt.train.sampling import evenly
from being_rt.train.trainer import TrainResult, train
from bench.quality_shake import displacement, shake, torso_weight

UInt8 = NDArray[np.uint8]

SPLITS = ("test", "views")
SHEET_FRAMES = 4  # of each split
SHAKE_FRAMES = 60  # of the training split, the last ones; of the test split all
WARM_UP, TIMED_FRAMES = 20, 200


@dataclass(frozen=True)
class Row:
    """A preset on an identity."""

    identity: str
    preset: str
    gaussians: int  # of both layers
    steps: int
    seconds: float  # of training alone
    images_per_second: float
    splits: dict[str, dict[str, float]]  # split -> measure -> mean over its frames
    shake: float | None  # px, of the torso on test frames; None where it cannot be told
    train_shake: float | None  # px, on training frames with the refined track
    peak_memory: int  # bytes on the device
    phases: dict[str, float] = field(default_factory=dict)  # seconds, all of them
    not_exported: str = ""  # why
    bytes: int | None = None  # of the avatar's file
    fps: float | None = None  # of the engine, at the data set's size
    engine_psnr: float | None = None  # dB, of the engine's picture against the trainer's


def measured(
    dataset: Dataset,
    name: str,
    config: TrainConfig,
    folder: Path,
    group: Group,
    lpips: Path | None = None,
    fit: bool = False,
) -> Row:
    """Train a preset and judge it. ``folder`` is emptied and gets pictures (``000123.png``: frame 123) and the avatar.

    ``fit``: held-out frames are judged with their track fitted to them as well.

    Raises:
        KeyboardInterrupt: the run was interrupted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tests = dataset.split("test")
    shown = set(evenly(tests, SHEET_FRAMES).tolist())
    weight = _weight(dataset, tests)
    shifts = []

    def judge(score: FrameScore, drawn: UInt8, seen: UInt8) -> None:
        if weight is not None:
            shifts.append(displacement(drawn, seen, weight))
        if score.frame in shown:
            save_picture(folder / f"{score.frame:06d}.png", drawn)

    result = train(dataset, config, folder / "train", group=group, lpips=lpips, sink=judge)
    if not result.complete:
        raise KeyboardInterrupt
    for index in evenly(dataset.split("views"), SHEET_FRAMES).tolist():
        save_picture(folder / f"{index:06d}.png", drawn_frame(result, dataset, index))
    evaluations = list(result.evaluations)
    if fit and len(tests):
        tracked = replace(dataset, params=result.params, cameras=(result.camera, *dataset.cameras[1:]))
        tracks = fit_tracks(result.model, tracked, tests, device=group.device)
        evaluations.append(evaluate(result.model, tracks, tracked, tests, "fitted", device=group.device))
    row = Row(
        identity=dataset.name,
        preset=name,
        gaussians=result.model.count("head") + result.model.count("torso"),
        steps=result.steps,
        seconds=result.seconds,
        images_per_second=result.images_per_second,
        splits={each.split: _means(each.summary()) for each in evaluations},
        shake=_known(shake(np.array(shifts))) if shifts else None,
        train_shake=_train_shake(result, dataset),
        peak_memory=result.peak_memory,
        phases=dict(result.times),
    )
    try:
        avatar = to_avatar(result.model, f"{dataset.name}-{name}", result.camera, result.background)
    except InvalidParameterError as problem:
        return replace(row, not_exported=str(problem))
    path = folder / "avatar.being"
    save_avatar(avatar, path)
    fps, agreement = _engine(avatar, result, dataset, str(group.device))
    return replace(row, bytes=path.stat().st_size, fps=fps, engine_psnr=agreement)


def drawn_frame(result: TrainResult, dataset: Dataset, index: int) -> UInt8:
    """A frame of the data set as the trained model has it, uint8 [H, W, 3], over the data set's background or white."""
    camera = int(dataset.camera_index[index])
    plate = dataset.backgrounds[camera]
    background = (1.0, 1.0, 1.0) if plate is None else plate
    params = result.params[int(dataset.timestep[index])]
    frames = Frames.of(params, dataset.cameras[camera], background, result.model.device)
    with torch.no_grad():
        return to_bytes(result.model.render(frames)[0, ..., :3])


def save_picture(path: Path, picture: UInt8) -> None:
    """Write a PNG."""
    from PIL import Image

    Image.fromarray(picture).save(path, "PNG")


def _engine(avatar: Avatar, result: TrainResult, dataset: Dataset, device: str) -> tuple[float, float]:
    """Frames per second of the exported avatar in the engine (median of whole frames, at the data set's size), and the
    PSNR in dB of what it draws against what the trainer's operations draw."""
    renderer = Renderer(avatar, dataset.size, device)
    moments = dataset.timestep[dataset.split("test")].tolist() or [0]
    motion: list[FlameParams] = [result.params[moment] for moment in moments]
    times = []
    for k in range(WARM_UP + TIMED_FRAMES):
        start = time.perf_counter()
        renderer.render(motion[k % len(motion)])
        times.append(time.perf_counter() - start)
    frames = Frames.of(motion[0], result.camera, result.background, result.model.device)
    with torch.no_grad():
        expected = to_bytes(result.model.render(frames)[0, ..., :3])
    error = float(np.square(renderer.render(motion[0]).astype(np.float64) - expected).mean())
    return 1 / float(np.median(times[WARM_UP:])), 10 * math.log10(255**2 / max(error, 1e-4))


def _train_shake(result: TrainResult, dataset: Dataset) -> float | None:
    """How the torso shakes on the last training frames of the first camera, drawn with the track as it was refined."""
    frames = dataset.split("train")
    frames = frames[dataset.camera_index[frames] == dataset.camera_index[frames[0]]][-SHAKE_FRAMES:]
    weight = _weight(dataset, frames)
    if weight is None:
        return None
    pairs = ((drawn_frame(result, dataset, index), dataset.image(index)) for index in frames.tolist())
    return _known(shake(np.array([displacement(drawn, seen, weight) for drawn, seen in pairs])))


def _weight(dataset: Dataset, frames: NDArray[np.int32]) -> NDArray[np.float64] | None:
    """Where the torso is in all of these frames; None where nothing tells it from the room."""
    if not len(frames) or not all(dataset.has_mask(index) for index in frames.tolist()):
        return None
    steps = dataset.timestep[frames]
    rows = {name: value[steps] for name, value in vars(dataset.params).items() if name != "fps"}
    camera = dataset.cameras[int(dataset.camera_index[frames[0]])]
    masks = (dataset.mask(index) for index in frames.tolist())
    return torso_weight(dataset.rig, dataset.params.replace(**rows), camera, masks)


def _means(summary: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in summary.items() if name != "split"}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
