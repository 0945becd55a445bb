"""What refinement compares: two views of every frame, all of it coarsely and the face finely, and how they change.

Derivatives of a view by the parameters are differences of pictures: a frame is drawn once as it is and once per
parameter, in one batch. That takes the forward operations alone, whatever the parameters do, and as many pictures for a
step of Gauss and Newton's method as a gradient descent draws in some fifteen steps, which lead less far.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.dataset.reduced import ReducedDataset
from being_rt.dataset.regions import region_boxes
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.parallel import in_order
from being_rt.train.background import background_plate
from being_rt.train.feed import camera_intrinsics
from being_rt.train.frames import Frames
from being_rt.train.tracks import COLUMNS

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

ONE = 16  # of a weight's byte
BUSY = ("mouth", "left_eye", "right_eye")
SEEN, MARGIN = 20, 3  # of 255: alpha from which a pixel shows the person; pixels around it


class Renderable(Protocol):
    """What refinement needs of an appearance."""

    def render(self, frames: Frames) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """One kind of picture of T frames."""

    name: str
    size: tuple[int, int]  # width, height
    reduction: int  # of the small data set's pixels
    corner: Int64  # [T, 2] left and top of the crop, in the view's own pixels
    columns: Int64  # of the P parameters, those that it tells something about
    target: UInt8  # [T, H, W, 3] over the background
    background: UInt8  # [h, w, 3] of the whole frame, at this reduction
    weight: UInt8  # [T, H, W] in sixteenths of a pixel of the small data set


class Look(NamedTuple):
    """What a view says of n frames: differences, and how they change."""

    residual: Tensor  # [n, D]
    change: Tensor | None  # [n, p, D] by the view's columns
    weight: Tensor  # [n, D] inverse variances

    def equations(self) -> tuple[Float64, Float64]:
        """Gauss and Newton's matrices [n, p, p] and gradients [n, p] of half the weighted sum of squares."""
        assert self.change is not None
        weighted = self.change * self.weight[:, None]
        matrix = weighted @ self.change.transpose(1, 2)
        gradient = (weighted @ self.residual[..., None])[..., 0]
        return matrix.double().cpu().numpy(), gradient.double().cpu().numpy()


def make_views(
    dataset: ReducedDataset,
    timesteps: Int64,
    frames: Int64,
    params: FlameParams,
    window: tuple[int, int],
    pose: Int64,
    columns: int,
    busy: float,
) -> tuple[View, View]:
    """The two views of frames of the first camera, and their pictures.

    Args:
        dataset: the small frames.
        timesteps: [T] rows of ``params``, and frames: [T] that show them.
        params: the motion, which says where the face is.
        window: size of the face's view, from :func:`face_window`.
        pose: which of the ``columns`` parameters move the whole head.
        busy: weight of pixels around mouth and eyes.
    """
    camera = dataset.cameras[0]
    boxes = region_boxes(dataset.rig, rows_of(params, timesteps), camera)
    size = np.array(window)
    middle = np.nan_to_num((boxes["face"][:, :2] + boxes["face"][:, 2:]) / 2)
    corner = np.clip(np.round(middle - size / 2), 0, np.array(camera.size) - size).astype(np.int64)
    half = camera.size[0] // 2, camera.size[1] // 2
    plate = background_plate(dataset, 0)
    fine = _Pictures.empty(len(frames), window)
    coarse = _Pictures.empty(len(frames), half)

    def prepare(i: int) -> None:
        """Fill in frame i, on any thread."""
        picture, mask = dataset.image(int(frames[i])), dataset.mask(int(frames[i]))
        alpha = mask[..., None] / np.float32(255)
        seen = np.round(alpha * picture + (1 - alpha) * plate).astype(np.uint8)
        left, top = corner[i]
        inside = slice(top, top + size[1]), slice(left, left + size[0])
        counted = ONE * near(mask).astype(np.float32)
        fine.target[i] = seen[inside]
        weight = counted[inside].copy()
        for name in BUSY:
            box = boxes[name][i]
            if np.isfinite(box).all():
                x0, y0, x1, y1 = np.clip(np.round(box - np.tile(corner[i], 2)), 0, np.tile(size, 2)).astype(int)
                weight[y0:y1, x0:x1] *= busy
        fine.weight[i] = np.minimum(weight, 255)
        counted[inside] = 0
        coarse.target[i] = halved(seen.astype(np.float32)).round()
        coarse.weight[i] = halved(counted[..., None])[..., 0] * 4  # a pixel of this view is four

    for _ in in_order(prepare, range(len(frames))):
        pass
    still = np.zeros((len(frames), 2), np.int64)
    whole_plate = halved(plate.astype(np.float32)).round().astype(np.uint8)
    return (
        View("whole", half, 2, still, pose, coarse.target, whole_plate, coarse.weight),
        View("face", window, 1, corner, np.arange(columns), fine.target, plate, fine.weight),
    )


def face_window(dataset: ReducedDataset, params: FlameParams) -> tuple[int, int]:
    """Size of a window that holds the face in nearly all frames, pixels of the reduced frames."""
    camera = dataset.cameras[0]
    face = region_boxes(dataset.rig, params, camera, margin=0.1)["face"]
    extent = np.nanquantile(face[:, 2:] - face[:, :2], 0.95, axis=0)
    width, height = np.minimum(np.ceil(extent / 8) * 8, camera.size).astype(int).tolist()
    return width, height


class _Pictures(NamedTuple):
    target: UInt8  # [T, H, W, 3]
    weight: UInt8  # [T, H, W]

    @classmethod
    def empty(cls, count: int, size: tuple[int, int]) -> _Pictures:
        return cls(np.zeros((count, size[1], size[0], 3), np.uint8), np.zeros((count, size[1], size[0]), np.uint8))


class Looker:
    """Draws views of frames as an appearance has them, and compares."""

    def __init__(self, model: Renderable, dataset: ReducedDataset, columns: Int64, steps: Float64, device: str) -> None:
        self.model, self.dataset, self.device = model, dataset, torch.device(device)
        self.columns, self.steps = columns, steps
        camera = dataset.cameras[0]
        self._intrinsics = torch.tensor(camera_intrinsics(camera), device=self.device)
        self._pose = torch.tensor(camera.world_to_camera[None, :3].astype(np.float32), device=self.device)

    @torch.no_grad()
    def look(self, view: View, rows: Int64, motion: Float64, differentiate: bool) -> Look:
        """Compare frames ``rows`` [n] of a view with what the appearance does at ``motion`` [n, 120]."""
        count = len(rows)
        varied = view.columns if differentiate else view.columns[:0]
        batch = np.repeat(motion[:, None], 1 + len(varied), 1)
        for i, column in enumerate(varied):
            batch[:, 1 + i, self.columns[column]] += self.steps[column]
        pictures = self._draw(view, np.repeat(rows, 1 + len(varied)), batch.reshape(-1, batch.shape[2]))
        pictures = pictures.unflatten(0, (count, 1 + len(varied)))
        target = torch.from_numpy(view.target[rows]).to(self.device) / 255
        residual = (pictures[:, 0] - target).flatten(1)
        weight = torch.from_numpy(view.weight[rows]).to(self.device)[..., None].expand_as(target).flatten(1) / ONE
        if not differentiate:
            return Look(residual, None, weight)
        steps = torch.tensor(self.steps[varied], dtype=torch.float32, device=self.device)
        change = (pictures[:, 1:] - pictures[:, :1]).flatten(2) / steps[:, None]
        return Look(residual, change, weight)

    def _draw(self, view: View, rows: Int64, motion: Float64) -> Tensor:
        """Pictures [n, H, W, 3] in 0..1."""

        def field(*names: str) -> Tensor:
            values = np.concatenate([motion[:, COLUMNS[name]] for name in names], 1)
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        count = len(rows)
        intrinsics = self._intrinsics.repeat(count, 1)
        intrinsics[:, :4] /= view.reduction
        corner = torch.tensor(view.corner[rows], dtype=torch.float32, device=self.device)
        intrinsics[:, 2:4] -= corner
        frames = Frames(
            expression=field("expression"),
            axis_angles=field("rotation", "neck", "jaw", "eyes").unflatten(1, (5, 3)),
            eyelids=field("eyelids"),
            translation=field("translation"),
            world_to_camera=self._pose.repeat(count, 1, 1),
            intrinsics=intrinsics,
            size=view.size,
            background=self._backgrounds(view, rows),
        )
        return self.model.render(frames)[..., :3]

    def _backgrounds(self, view: View, rows: Int64) -> Tensor:
        width, height = view.size
        if view.background.shape[:2] == (height, width):
            return torch.from_numpy(view.background)[None].to(self.device) / 255
        crops = np.stack([view.background[y : y + height, x : x + width] for x, y in view.corner[rows]])
        return torch.from_numpy(crops).to(self.device) / 255


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def packed_row(params: FlameParams) -> Float64:
    """All fields side by side, float64 [T, 120]."""
    return np.concatenate([getattr(params, name).astype(np.float64) for name in WIDTHS], axis=1)


def unpacked(rows: Float64, fps: float) -> FlameParams:
    """The motion that rows [T, 120] hold."""
    return FlameParams(**{name: rows[:, part].astype(np.float32) for name, part in COLUMNS.items()}, fps=fps)


def near(mask: UInt8) -> UInt8:
    """1 on the person and a few pixels around, where its edge may be."""
    from scipy import ndimage

    widened: UInt8 = ndimage.maximum_filter((mask > SEEN).astype(np.uint8), 2 * MARGIN + 1, mode="nearest")
    return widened


def halved(values: Float32) -> Float32:
    """Means of 2 x 2 pixels of [H, W, C]; what is left over is cut off."""
    height, width = (side // 2 * 2 for side in values.shape[:2])
    rows = values[0:height:2] + values[1:height:2]
    return np.asarray((rows[:, 0:width:2] + rows[:, 1:width:2]) / 4, np.float32)


def rows_of(params: FlameParams, timesteps: Int64) -> FlameParams:
    """Those timesteps of a motion, in their order."""
    return params.replace(**{name: getattr(params, name)[timesteps] for name in WIDTHS})
