"""Held-out frames: drawn with the avatar as it is, compared with the camera's, frame by frame.

The motion of a held-out frame is the track's, steadied as the training frames' is; it has no corrections, and nothing
is fitted to its picture. The background is the dataset's, or white.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.dataset import Dataset
from being_rt.ops.pictures import seen_over
from being_rt.train.feed import camera_intrinsics, frame_boxes, pack, read_frames
from being_rt.train.frames import Frames
from being_rt.train.metrics import body_shake, psnr, ssim
from being_rt.train.perceptual import Lpips
from being_rt.train.tracks import Tracks

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]


class Renderable(Protocol):
    """What evaluation needs of a model."""

    def render(self, frames: Frames) -> Tensor: ...


@dataclass(frozen=True)
class FrameScore:
    """One held-out frame. Decibels are of 8-bit pictures; NaN where a region is not in the picture."""

    frame: int  # of the dataset
    timestep: int
    psnr: float
    ssim: float
    person_psnr: float  # weighed by the mask
    face_psnr: float  # in the face's box
    mouth_psnr: float
    eyes_psnr: float
    lpips: float = math.nan  # NaN without its weights


MEASURES = tuple(field.name for field in fields(FrameScore) if field.name not in ("frame", "timestep"))


@dataclass(frozen=True)
class Evaluation:
    """Scores of the frames of a split."""

    split: str
    scores: tuple[FrameScore, ...]
    body_shake: float  # px root mean square, of the whole motion in the first camera

    def mean(self, measure: str) -> float:
        """Mean over the frames that have a finite value; NaN where none has."""
        values = [getattr(score, measure) for score in self.scores]
        finite = [value for value in values if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else math.nan

    def summary(self) -> dict[str, Any]:
        """Means by measure, for JSON."""
        means = {measure: self.mean(measure) for measure in MEASURES}
        known = {name: round(value, 4) for name, value in means.items() if not math.isnan(value)}
        return {"split": self.split, "frames": len(self.scores), **known, "body_shake": round(self.body_shake, 4)}

    def rows(self) -> list[dict[str, Any]]:
        """The scores, for JSON: NaN as None."""
        return [
            {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row}
            for row in (asdict(score).items() for score in self.scores)
        ]


def evaluate(
    model: Renderable,
    tracks: Tracks,
    dataset: Dataset,
    frames: Sequence[int] | Int32,
    split: str = "test",
    *,
    lpips: Lpips | None = None,
    sink: Callable[[FrameScore, UInt8, UInt8], None] | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Draw and compare frames of a dataset.

    Args:
        frames: their indices.
        split: a name for them.
        sink: called with each score, what was drawn and what the camera saw, uint8 [H, W, 3].

    Raises:
        DatasetError: a frame cannot be read.

    Example::

        evaluate(model, tracks, dataset, dataset.split("test")).mean("psnr")
    """
    indices = np.asarray(frames, np.int32)
    boxes = frame_boxes(dataset, indices) if len(indices) else {}
    backgrounds = [plate(dataset, camera, device) for camera in range(len(dataset.cameras))]
    scores = []
    with torch.no_grad():
        sequence = tracks.sequence()
        for position, (picture, mask) in enumerate(read_frames(dataset, indices)):
            index = int(indices[position])
            camera = int(dataset.camera_index[index])
            camera_saw = rgba(picture, mask, device)
            target = quantised(seen_over(camera_saw, backgrounds[camera][None])[0])
            frame = frame_of(tracks, sequence, dataset, index, backgrounds[camera])
            drawn = quantised(model.render(frame)[0, ..., :3])
            own = {name: box[position] for name, box in boxes.items()}
            score = _score(drawn, target, camera_saw[0, ..., 3] / 255, own, lpips, index, int(dataset.timestep[index]))
            scores.append(score)
            if sink is not None:
                sink(score, to_bytes(drawn), to_bytes(target))
    return Evaluation(split, tuple(scores), body_shake(tracks.params(), dataset.rig, dataset.cameras[0]))


def rgba(picture: UInt8, mask: UInt8, device: torch.device | str) -> Tensor:
    """A frame and its mask as a batch of one, uint8 [1, H, W, 4]."""
    return torch.tensor(pack(picture, mask)[None], device=device).view(torch.uint8).unflatten(-1, (-1, 4))


def frame_of(tracks: Tracks, sequence: Tensor, dataset: Dataset, index: int, background: Tensor) -> Frames:
    """A batch of one: frame ``index`` of a dataset, with the motion of a sequence of its tracks.

    ``background``: [H, W, 3] or [1, 1, 3], on the device to draw on.
    """
    device = background.device
    camera = dataset.cameras[int(dataset.camera_index[index])]
    timestep = torch.tensor([int(dataset.timestep[index])], device=device)
    intrinsics = tracks.intrinsics(torch.tensor(camera_intrinsics(camera)[None], device=device), reduction=1)
    pose = torch.tensor(camera.world_to_camera[None, :3].astype(np.float32), device=device)
    motion = tracks.gather(sequence, timestep)
    return Frames(*motion, pose, intrinsics, camera.size, background[None])


def quantised(picture: Tensor) -> Tensor:
    """A picture in 0..1 as 8 bits have it."""
    return (picture.clamp(0, 1) * 255).round() / 255


def to_bytes(picture: Tensor) -> UInt8:
    """A picture [H, W, 3] in 0..1 as uint8 on the CPU."""
    words: UInt8 = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return words


def box_weight(boxes: Sequence[Float32], size: tuple[int, int], device: torch.device | str) -> Tensor:
    """1 within any of the boxes, 0 elsewhere: [H, W]. Boxes of NaN are nowhere."""
    weight = torch.zeros(size[1], size[0], device=device)
    for box in boxes:
        if np.isfinite(box).all():
            left, top, right, bottom = np.clip(np.round(box), 0, [*size, *size]).astype(int).tolist()
            weight[top:bottom, left:right] = 1
    return weight


def _score(
    drawn: Tensor,
    target: Tensor,
    alpha: Tensor,
    boxes: dict[str, Float32],
    lpips: Lpips | None,
    frame: int,
    timestep: int,
) -> FrameScore:
    size = drawn.shape[1], drawn.shape[0]

    def within(*names: str) -> float:
        return psnr(drawn, target, box_weight([boxes[name] for name in names], size, drawn.device))

    return FrameScore(
        frame=frame,
        timestep=timestep,
        psnr=psnr(drawn, target),
        ssim=float(ssim(drawn, target).mean()),
        person_psnr=psnr(drawn, target, alpha),
        face_psnr=within("face"),
        mouth_psnr=within("mouth"),
        eyes_psnr=within("left_eye", "right_eye"),
        lpips=math.nan if lpips is None else float(lpips(drawn[None], target[None])),
    )


def plate(dataset: Dataset, camera: int, device: torch.device | str) -> Tensor:
    """What frames of a camera are compared over: its background [H, W, 3], or white [1, 1, 3]."""
    picture = dataset.backgrounds[camera]
    if picture is None:
        return torch.ones(1, 1, 3, device=device)
    return torch.tensor(picture, device=device) / 255


def worst(evaluation: Evaluation, count: int) -> Iterator[FrameScore]:
    """The frames that look least like the camera's, worst first."""
    finite = [score for score in evaluation.scores if math.isfinite(score.psnr)]
    return iter(sorted(finite, key=lambda score: score.psnr)[:count])
