"""Held-out frames with the error of their track taken out: the motion is fitted to their pictures, the avatar stays.

What a tracker gets wrong in a held-out frame costs all avatars more than what tells them apart. This is measured beside
the plain evaluation, not in its place: who drives an avatar has no picture to fit to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from being_rt.dataset import Dataset
from being_rt.errors import InvalidParameterError
from being_rt.ops.pictures import seen_over
from being_rt.train.config import TrackConfig
from being_rt.train.evaluate import Renderable, frame_of, plate, rgba
from being_rt.train.feed import read_frames
from being_rt.train.tracks import Tracks

Int32 = NDArray[np.int32]

STEPS = 50
# Rates of Adam, large because there are few steps; units as in TrackConfig.
RATES = TrackConfig(
    expression=2e-2,
    rotation=1e-3,
    neck=1e-3,
    jaw=2e-3,
    eyes=2e-3,
    eyelids=5e-3,
    translation=1e-4,
    start=0.0,
    end=0.1,
    slow_seconds=0.0,
)


def fit_tracks(
    model: Renderable,
    dataset: Dataset,
    frames: Sequence[int] | Int32,
    *,
    steps: int = STEPS,
    device: torch.device | str = "cpu",
) -> Tracks:
    """Tracks that follow the pictures of some frames, for :func:`being_rt.train.evaluate.evaluate`.

    L1 of whole frames, with the costs on corrections that training has. The same for every kind of avatar.

    Args:
        dataset: whose track and cameras are those that the model was trained with.
        frames: their indices.
        steps: of Adam, on all the frames at once.
        device: of the model.

    Raises:
        DatasetError: a frame cannot be read.
        InvalidParameterError: there are no frames.

    Example::

        tracks = fit_tracks(result.model, dataset, dataset.split("test"))
        evaluate(result.model, tracks, dataset, dataset.split("test"), "fitted").mean("mouth_psnr")
    """
    indices = np.asarray(frames, np.int32)
    if not len(indices):
        raise InvalidParameterError("there are no frames to fit a track to")
    tracks = Tracks(dataset.params, dataset.timestep[indices], RATES, device)
    backgrounds = [plate(dataset, camera, device) for camera in range(len(dataset.cameras))]
    behind = [backgrounds[int(dataset.camera_index[index])] for index in indices]
    given = tracks.sequence().detach()
    frames_given = [frame_of(tracks, given, dataset, *each) for each in zip(indices.tolist(), behind, strict=True)]
    targets = [rgba(picture, mask, device) for picture, mask in read_frames(dataset, indices)]
    timesteps = torch.tensor(dataset.timestep[indices], dtype=torch.int64, device=device).split(1)
    groups = [{"params": [leaf], "name": name} for name, leaf in tracks.leaves.items()]
    optimizer = torch.optim.Adam(groups, lr=0.0)
    for step in range(steps):
        rates = tracks.learning_rates(step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]]
        optimizer.zero_grad()
        sequence = tracks.sequence()
        motion = sequence.detach().requires_grad_()
        gradient = torch.zeros_like(motion)
        for frame, timestep, target in zip(frames_given, timesteps, targets, strict=True):
            moved = frame._replace(**tracks.gather(motion, timestep)._asdict())
            difference = model.render(moved)[..., :3] - seen_over(target, frame.background)
            gradient += torch.autograd.grad(difference.abs().mean() / len(targets), motion)[0]
        cost = torch.stack(list(tracks.terms(sequence).values())).sum()
        torch.autograd.backward([sequence, cost], [gradient, None])
        optimizer.step()
    return tracks
