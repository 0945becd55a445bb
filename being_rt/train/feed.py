"""Frames to the device: decoded once, kept where they fit, cropped there or copied while the device computes.

A frame is one 32-bit word per pixel (red, green, blue, alpha), so that a crop is one gather. Frames live in device
memory up to a budget, reduced ones first, because every run sees them; the rest lie in page-locked host memory, from
where a thread cuts the next steps' crops and a stream of their own carries them over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset
from being_rt.dataset.regions import region_boxes
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.parallel import in_order
from being_rt.train.config import FeedConfig
from being_rt.train.sampling import COLUMNS, WEIGHTED, Sampler, View, evenly, make_views

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
Value = TypeVar("Value")

LIMIT = 1.3  # FRUSTUM_MARGIN of being_rt.reference
SLOTS = 3  # crops on their way to the device: one being cut, one being copied, one being used
BOX_ROWS = 256  # timesteps whose vertices are in memory at once while boxes are measured
HOST_SHARE = 0.8  # of the free memory that frames may take


class Feed:
    """The training frames of a dataset, step by step.

    Args:
        dataset: whose split "train" is used.
        config: which part of the frames, and where they are kept.
        device: where they are needed.
        seed, batch, rank, ranks: see :class:`being_rt.train.sampling.Sampler`.
        progress: called as ``progress(frames read, frames in all)``.

    Raises:
        DatasetError: a frame cannot be read; cameras that differ in size; masks that only some frames have; frames with
            neither mask nor background, in which nothing says what the person is.
        InvalidParameterError: no training frames, or more than the machine's memory takes.

    Example::

        feed = Feed(dataset, config.feed, "cuda", seed=0, batch=8)
        view = feed.sampler.view(step, progress=0.0)
        row = torch.tensor(feed.sampler.rows(step, view), device="cuda")
        feed.fetch(step, view)
        pictures = feed.target(row, view).view(torch.uint8).unflatten(-1, (-1, 4))
    """

    def __init__(
        self,
        dataset: Dataset,
        config: FeedConfig,
        device: torch.device | str,
        *,
        seed: int,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.dataset, self.device = dataset, torch.empty(0, device=device).device  # with its index
        self.frames = evenly(dataset.split("train"), config.frame_limit)
        self.has_masks = check_frames(dataset, self.frames)
        self.random_background = config.random_background and self.has_masks
        timestep, camera = dataset.timestep[self.frames], dataset.camera_index[self.frames]
        self.size = dataset.cameras[camera[0]].size
        self.views = make_views(config, self.size)
        self._levels = self._make_levels(config)
        boxes = frame_boxes(dataset, self.frames)
        boxes["body"] = self._load(progress)
        self.sampler = Sampler(
            config, self.size, timestep, camera, boxes, seed=seed, batch=batch, rank=rank, ranks=ranks
        )
        intrinsics = np.stack([camera_intrinsics(camera) for camera in dataset.cameras])
        self._intrinsics = {
            view: torch.tensor(intrinsics / np.array([view.reduction] * 4 + [1, 1], np.float32), device=self.device)
            for view in self.views
        }
        poses = np.stack([camera.world_to_camera[:3] for camera in dataset.cameras]).astype(np.float32)
        self._poses = torch.tensor(poses, device=self.device)
        self._plates = {view.reduction: self._plate(view.reduction) for view in self.views}
        self._across, self._down = (
            {view: torch.arange(view.size[axis], device=self.device) for view in self.views} for axis in (0, 1)
        )
        count = self.sampler.local_batch
        self._delivered = {  # by the courier; the tensors stay, what is in them changes
            view: torch.zeros(count, view.size[1], view.size[0], dtype=torch.int32, device=self.device)
            for view in self.views
            if self._on_host(view)
        }
        self._courier = _Courier(self, self._delivered) if self._delivered else None

    @property
    def bytes_on_device(self) -> int:
        """Memory that the frames take there."""
        return sum(level.nbytes for level in self._levels.values() if level.device == self.device)

    def fetch(self, step: int, view: View, following: Sequence[tuple[int, View]] = ()) -> None:
        """Bring a step's frames to the device if they are not there, without waiting for it.

        ``following``: the steps that will probably be next, whose frames are then fetched ahead.
        """
        if self._courier is not None and view in self._delivered:
            self._courier.deliver(step, view, [ahead for ahead in following if ahead[1] in self._delivered])

    def target(self, row: Tensor, view: View) -> Tensor:
        """The frames of a batch's rows: int32 [B, H, W], RGBA with straight alpha, a byte each.

        Where they come from host memory, those of the step that was fetched last, in the same tensor every time.
        """
        delivered = self._delivered.get(view)
        return self._crop(self._levels[view.reduction], row, view) if delivered is None else delivered

    def cameras(self, row: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """world_to_camera [B, 3, 4] and intrinsics [B, 6] (:class:`being_rt.train.frames.Frames`) of a batch's rows."""
        index = row[:, 2].long()
        intrinsics = self._intrinsics[view].index_select(0, index)
        if view.windowed:
            intrinsics[:, 2:4] -= row[:, 3:5]
        return self._poses.index_select(0, index), intrinsics

    def background(self, row: Tensor, view: View) -> Tensor:
        """What stands behind a batch's frames: a random colour each [B, 1, 1, 3], or the scene [B or 1, H, W, 3]."""
        if self.random_background:
            return row[:, None, None, 5:8].contiguous()
        plates = self._plates[view.reduction]
        if plates is None:
            return torch.ones(1, 1, 1, 3, device=self.device)
        same = len(plates) == 1 and not view.windowed
        words = plates if same else self._crop(plates, row, view, column=2)
        return (words.view(torch.uint8).unflatten(-1, (-1, 4))[..., :3] / 255).contiguous()

    def sample(self, count: int) -> tuple[Tensor, View, Tensor]:
        """Frames for the first look at a person: at most ``count`` whole ones, evenly spread.

        Returns:
            Rows [n, COLUMNS] and the view that they are of, as for steps, and the pictures uint8 [n, H, W, 4].
        """
        view = self.views[0]
        positions = evenly(np.arange(len(self.frames)), count)
        row = np.zeros((len(positions), COLUMNS), np.float32)
        row[:, 0] = positions
        row[:, 1] = self.dataset.timestep[self.frames[positions]]
        row[:, 2] = self.dataset.camera_index[self.frames[positions]]
        level = self._levels[view.reduction]
        words = level[torch.from_numpy(positions.astype(np.int64)).to(level.device)].to(self.device)
        return torch.from_numpy(row).to(self.device), view, words.view(torch.uint8).unflatten(-1, (-1, 4))

    def close(self) -> None:
        """Stop fetching ahead."""
        if self._courier is not None:
            self._courier.close()
            self._courier = None

    # ------------------------------------------------------------------------------------------------------- storage

    def _make_levels(self, config: FeedConfig) -> dict[int, Tensor]:
        """Empty frames by reduction, each level where there is room for it."""
        shapes = {
            reduction: (len(self.frames), self.size[1] // reduction, self.size[0] // reduction)
            for reduction in sorted({view.reduction for view in self.views}, reverse=True)
        }
        budget = room_for_frames(config, self.device)
        place = {}
        for reduction, shape in shapes.items():
            size = 4 * int(np.prod(shape))
            place[reduction] = size <= budget
            budget -= size if size <= budget else 0
        host = sum(4 * int(np.prod(shape)) for reduction, shape in shapes.items() if not place[reduction])
        free = free_memory()
        if host > HOST_SHARE * free:
            limit = int(len(self.frames) * HOST_SHARE * free / host)
            raise InvalidParameterError(
                f"{len(self.frames)} frames take {host / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free: "
                f"set feed.frame_limit to {max(1, limit)} or less"
            )
        pinned = self.device.type == "cuda"
        return {
            reduction: torch.empty(shape, dtype=torch.int32, device=self.device)
            if place[reduction]
            else torch.empty(shape, dtype=torch.int32, pin_memory=pinned)
            for reduction, shape in shapes.items()
        }

    def _load(self, progress: Callable[[int, int], None] | None) -> Float32:
        """Decode all frames into the levels. Returns the boxes [n, 4] px of what the masks show."""
        body = np.empty((len(self.frames), 4), np.float32)

        def levels(index: int) -> tuple[Float32, list[Int32]]:
            picture, mask = self.dataset.image(index), self.dataset.mask(index)
            return mask_box(mask), [pack(*reduced(picture, mask, reduction)) for reduction in self._levels]

        for position, (box, words) in enumerate(in_order(levels, self.frames.tolist())):
            body[position] = box
            for level, packed in zip(self._levels.values(), words, strict=True):
                level[position].copy_(torch.from_numpy(packed))
            if progress is not None:
                progress(position + 1, len(self.frames))
        return body

    def _plate(self, reduction: int) -> Tensor | None:
        """The scenes of all cameras, packed [C, H, W], or None where training has no use for them."""
        used = sorted(set(self.dataset.camera_index[self.frames].tolist()))
        pictures = self.dataset.backgrounds
        if self.random_background or any(pictures[camera] is None for camera in used):
            return None
        shape = self.size[1] // reduction, self.size[0] // reduction
        plates = np.zeros((len(pictures), *shape), np.int32)
        for camera in used:
            picture = pictures[camera]
            assert picture is not None
            full = np.full(picture.shape[:2], 255, np.uint8)
            plates[camera] = pack(*reduced(picture, full, reduction))
        return torch.tensor(plates, device=self.device)

    def _on_host(self, view: View) -> bool:
        return self._levels[view.reduction].device != self.device

    def _crop(self, level: Tensor, row: Tensor, view: View, column: int = 0) -> Tensor:
        """Crops [B, H, W] of a level on the device; ``column`` of the rows says which of its pictures."""
        index = row[:, column].long()
        if not view.windowed:
            return level.index_select(0, index)
        left, top = row[:, 3:5].long().unbind(1)
        x = left[:, None] + self._across[view]
        y = top[:, None] + self._down[view]
        return level[index[:, None, None], y[:, :, None], x[:, None, :]]

    def cut(self, rows: Float32, view: View, out: Tensor) -> None:
        """Crops of a level in host memory, into ``out`` [B, H, W]."""
        level = self._levels[view.reduction]
        for item, (frame, left, top) in enumerate(rows[:, [0, 3, 4]].astype(int).tolist()):
            out[item].copy_(level[frame, top : top + view.size[1], left : left + view.size[0]])


class _Slot(NamedTuple):
    """A batch on its way: page-locked memory, and where it goes on the device."""

    target: Tensor  # int32 [largest batch]
    device_target: Tensor
    arrived: torch.cuda.Event  # the copy to the device is complete
    used: torch.cuda.Event  # so is the one to where the step reads it


class _Courier:
    """Cuts crops out of host memory on a thread, and copies them on a stream of its own, some steps ahead.

    A batch is the same whoever asks for it and when, so a guess that was wrong (the next step was another one) costs
    time and nothing else.
    """

    def __init__(self, feed: Feed, delivered: Mapping[View, Tensor]) -> None:
        self._feed, self._delivered = feed, delivered
        self._stream = torch.cuda.Stream(feed.device)
        pixels = max(target.numel() for target in delivered.values())
        self._free = deque(
            _Slot(
                torch.empty(pixels, dtype=torch.int32, pin_memory=True),
                torch.empty(pixels, dtype=torch.int32, device=feed.device),
                torch.cuda.Event(),
                torch.cuda.Event(),
            )
            for _ in range(SLOTS)
        )
        self._thread = ThreadPoolExecutor(1, "being-feed")
        self._coming: dict[tuple[int, View], Future[_Slot]] = {}

    def deliver(self, step: int, view: View, following: Sequence[tuple[int, View]]) -> None:
        """Fill the view's tensor on the current stream, and fetch what follows."""
        wanted = [(step, view), *following][:SLOTS]
        for key in [key for key in self._coming if key not in wanted]:
            self._free.append(self._coming.pop(key).result())
        for key in wanted:
            if key not in self._coming and self._free:
                self._coming[key] = self._thread.submit(self._fetch, self._free.popleft(), *key)
        slot = self._coming.pop((step, view)).result()
        current = torch.cuda.current_stream(self._feed.device)
        current.wait_event(slot.arrived)
        target = self._delivered[view]
        target.copy_(slot.device_target[: target.numel()].view_as(target))
        slot.used.record(current)
        self._free.append(slot)

    def _fetch(self, slot: _Slot, step: int, view: View) -> _Slot:
        slot.arrived.synchronize()  # the copy before this one may still be reading the page-locked memory
        rows = self._feed.sampler.rows(step, view)
        shape = (len(rows), view.size[1], view.size[0])
        count = int(np.prod(shape))
        self._feed.cut(rows, view, slot.target[:count].view(shape))
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.used)
            slot.device_target[:count].copy_(slot.target[:count], non_blocking=True)
            slot.arrived.record(self._stream)
        return slot

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


# ------------------------------------------------------------------------------------------------------------- frames


def check_frames(dataset: Dataset, frames: Int32) -> bool:
    """Whether the frames have masks. Raises what :class:`Feed` says of datasets that cannot be trained on."""
    if not len(frames):
        raise InvalidParameterError(f"{dataset.path} has no training frames; its split 'train' is empty")
    cameras = sorted(set(dataset.camera_index[frames].tolist()))
    sizes = {dataset.cameras[camera].size for camera in cameras}
    if len(sizes) > 1:
        raise DatasetError(f"{dataset.path} has training cameras of different sizes: {sorted(sizes)}; crop them alike")
    masked = [dataset.has_mask(int(index)) for index in frames]
    if any(masked) and not all(masked):
        missing = int(frames[masked.index(False)])
        raise DatasetError(f"{dataset.path / dataset.image_files[missing]} has no mask, other training frames have one")
    plain = [camera for camera in cameras if dataset.background_files[camera] is None]
    if not any(masked) and plain:
        raise DatasetError(
            f"{dataset.path} has neither masks nor a background picture of camera {plain[0]}: nothing tells the person "
            "from the room"
        )
    return all(masked)


def frame_boxes(dataset: Dataset, frames: Int32) -> dict[str, Float32]:
    """Where the frames show mouth, eyes and face: float32 [n, 4] px by name, NaN where unknown."""
    boxes = {name: np.full((len(frames), 4), np.nan, np.float32) for name in (*WEIGHTED, "face")}
    for camera_index in sorted(set(dataset.camera_index[frames].tolist())):
        camera = dataset.cameras[camera_index]
        members = np.flatnonzero(dataset.camera_index[frames] == camera_index)
        for part in np.array_split(members, -(-len(members) // BOX_ROWS)):
            timesteps = dataset.timestep[frames[part]]
            params = dataset.params.replace(
                **{name: value[timesteps] for name, value in vars(dataset.params).items() if name != "fps"}
            )
            measured = region_boxes(dataset.rig, params, camera)
            for name, box in boxes.items():
                box[part] = measured[name]
    return boxes


def read_frames(dataset: Dataset, frames: Sequence[int] | Int32) -> Iterator[tuple[UInt8, UInt8]]:
    """Pictures [H, W, 3] and masks [H, W] of frames in order, decoded ahead."""
    return in_order(lambda index: (dataset.image(int(index)), dataset.mask(int(index))), frames)


def pack(picture: UInt8, mask: UInt8) -> Int32:
    """RGBA in one word per pixel: int32 [H, W] of uint8 [H, W, 3] and [H, W]."""
    return np.concatenate([picture, mask[..., None]], axis=2).view(np.int32)[..., 0]


def reduced(picture: UInt8, mask: UInt8, reduction: int) -> tuple[UInt8, UInt8]:
    """Means of blocks of pixels, colours weighted by alpha, so that a reduced frame over a colour is that, reduced."""
    if reduction == 1:
        return picture, mask
    height, width = (side // reduction * reduction for side in mask.shape)

    def sums(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
        rows = sum((values[i:height:reduction] for i in range(1, reduction)), values[:height:reduction])
        return sum((rows[:, i:width:reduction] for i in range(1, reduction)), rows[:, :width:reduction])

    alpha = mask.astype(np.uint32)
    total = sums(alpha)
    colour = np.empty((*total.shape, 3), np.uint8)
    for channel in range(3):  # a plane at a time: NumPy adds rows of neighbours quickly, and rows of three slowly
        plane = picture[..., channel].astype(np.uint32)
        weighted = sums(plane * alpha) / np.maximum(total, 1)
        colour[..., channel] = np.round(np.where(total > 0, weighted, sums(plane) / reduction**2))
    return colour, np.round(total / reduction**2).astype(np.uint8)


def mask_box(mask: UInt8) -> Float32:
    """Left, top, right, bottom of what a mask shows; NaN where it shows nothing."""
    rows, columns = np.flatnonzero((mask > 127).any(1)), np.flatnonzero((mask > 127).any(0))
    if not len(rows):
        return np.full(4, np.nan, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def camera_intrinsics(camera: Camera) -> Float32:
    """fx, fy, cx, cy px and the limits of the whole frame, as :class:`being_rt.train.frames.Frames` has them."""
    focal = camera.intrinsics.diagonal()[:2].astype(np.float64)
    limits = LIMIT * np.array(camera.size) / (2 * focal)
    return np.concatenate([focal, camera.intrinsics[:2, 2], limits]).astype(np.float32)


def room_for_frames(config: FeedConfig, device: torch.device) -> int:
    """Bytes of a device's memory that frames may take; none on a CPU, which has them in its own."""
    if device.type != "cuda":
        return 0
    if config.device_gigabytes >= 0:
        return int(config.device_gigabytes * 1e9)
    return torch.cuda.mem_get_info(device)[0] // 3


def free_memory() -> float:
    """Bytes of main memory that can be had; infinite where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return 1024.0 * int(kilobytes)
    except (OSError, StopIteration, ValueError):
        return float("inf")
