"""Writing a data set: into a hidden folder beside its name, which appears under that name when it is complete."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.crop import Crop
from being_rt.dataset.dataset import Dataset, checksum
from being_rt.dataset.folders import NewFolder, check_target, writing
from being_rt.dataset.manifest import (
    MANIFEST,
    RIG,
    TRACKS,
    TRUTH,
    Frame,
    Manifest,
    View,
    check_manifest,
    check_split,
    encode_manifest,
)
from being_rt.dataset.pictures import (
    IMAGE_SUFFIXES,
    check_picture,
    encode_picture,
    is_rgb_file,
    read_picture,
    write_picture,
)
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rig_file import check_rig, save_rig
from being_rt.parallel import thread_count

UInt8 = NDArray[np.uint8]

KIND = "a data set"


class DatasetWriter:
    """Writes a data set frame by frame; leaving the ``with`` block without an exception makes it appear.

    Pictures are compressed on other threads while the caller makes the next ones.

    Args:
        path: the folder to make. Its parent must exist.
        rig: the person's, from :func:`being_rt.flame.skinning.bake_rig`.
        cameras: static ones; frames name them by index.
        fps: timesteps per second.
        name: of the person or the recording, one line.
        source, licence, consent, metadata: text: where it comes from, under which terms, who agreed to what.
        crops: per camera, how the original video became these frames, oldest first.
        image_suffix: ``.png``, or ``.jpg`` (quality 95) for a fifth of the size.
        replace: whether a data set of that name is replaced; otherwise its presence is an error.

    Raises:
        InvalidParameterError: what it is given does not fit.
        DatasetError: the folder is there already, or cannot be written.

    Example::

        with DatasetWriter("ada", rig=rig, cameras=(camera,), fps=25, name="Ada") as writer:
            for picture, alpha, row in zip(pictures, alphas, params):
                writer.add(picture, alpha, row)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rig: Rig,
        cameras: Sequence[Camera],
        fps: float,
        name: str,
        source: str = "",
        licence: str = "",
        consent: str = "",
        metadata: Mapping[str, str] | None = None,
        crops: Sequence[Sequence[Crop]] | None = None,
        image_suffix: str = ".png",
        replace: bool = False,
    ) -> None:
        if image_suffix not in IMAGE_SUFFIXES:
            raise InvalidParameterError(f"image_suffix must be one of {IMAGE_SUFFIXES}, got {image_suffix!r}")
        histories = [()] * len(cameras) if crops is None else [tuple(history) for history in crops]
        if len(histories) != len(cameras):
            raise InvalidParameterError(f"crops must have a history for each of {len(cameras)} cameras")
        check_rig(rig)
        self.path = Path(path)
        self._rig, self._fps, self._suffix = rig, float(fps), image_suffix
        self._views = [View(camera, None, history) for camera, history in zip(cameras, histories, strict=True)]
        self._texts: dict[str, Any] = {
            **{"name": name, "source": source, "licence": licence, "consent": consent},
            "metadata": dict(metadata or {}),
        }
        self._pending: deque[Future[None]] = deque()  # pictures that are being compressed
        self._frames: list[Frame] = []
        self._rows: list[FlameParams] = []
        self._truth: list[FlameParams | None] = []
        self._target = NewFolder(self.path, replace=replace, mark=MANIFEST, kind=KIND)
        placeholder = Frame("images/000000.png", None, 0, 0, "train")
        check_manifest(self._manifest((placeholder,), {}))

    def __enter__(self) -> DatasetWriter:
        self._frames, self._rows, self._truth = [], [], []
        folder = self._target.begin()
        with writing(self.path):
            (folder / "images").mkdir()
            (folder / "masks").mkdir()
        self._pool = ThreadPoolExecutor(thread_count(), "being-compress")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for future in self._pending:
                future.cancel()
            self._pool.shutdown()
            self._pending.clear()
            self._target.abandon()

    @property
    def count(self) -> int:
        """Frames so far."""
        return len(self._frames)

    def background(self, camera_index: int, picture: UInt8) -> None:
        """The picture of the empty scene that a camera sees, uint8 [H, W, 3] of its size."""
        view = self._views[self._checked_camera(camera_index)]
        check_picture("background", picture, view.camera.size, 3)
        name = f"background{camera_index or ''}.png"
        self._write(name, encode_picture(picture, ".png"))
        self._views[camera_index] = View(view.camera, name, view.crops)

    def add(
        self,
        image: UInt8 | Path,
        mask: UInt8 | None,
        params_row: FlameParams,
        camera_index: int = 0,
        split: str = "train",
        timestep: int | None = None,
        truth: FlameParams | None = None,
    ) -> int:
        """Add one frame and return its index.

        Args:
            image: uint8 [H, W, 3] of the camera's size; or a PNG or JPEG file, of which an RGB one is copied as it is.
            mask: alpha, uint8 [H, W], or None.
            params_row: T = 1. Where the timestep is there already (another camera's), it must be the same.
            camera_index: which of the cameras took it.
            split: "train", "test", "views" (other cameras than those trained on) or another short word.
            timestep: None makes a new one; a number is that of an earlier frame.
            truth: T = 1, of synthetic data; for every timestep or none.

        Raises:
            InvalidParameterError: a wrong shape, size or index.
            DatasetError: a file cannot be read, or one of this or of an earlier frame cannot be written.
        """
        size = self._views[self._checked_camera(camera_index)].camera.size
        check_split(split)
        step = self._checked_timestep(params_row, timestep, truth)
        if mask is not None:
            check_picture("mask", mask, size, 0)
        index = len(self._frames)
        image_name = self._write_image(image, size, index)
        mask_name = None
        if mask is not None:
            mask_name = f"masks/{index:06}.png"
            self._compress(mask_name, mask)
        if step == len(self._rows):
            self._rows.append(params_row)
            self._truth.append(truth)
        self._frames.append(Frame(image_name, mask_name, step, camera_index, split))
        return index

    def preview(self) -> Dataset:
        """The frames so far as a data set, readable until the ``with`` block ends.

        Raises ``InvalidParameterError``: there are none yet; ``DatasetError``: one cannot be written.
        """
        if not self._frames:
            raise InvalidParameterError(f"nothing was added to {self.path} yet")
        self._wait_until(0)
        frames = self._frames
        return Dataset(
            path=self._inside("."),
            fps=self._fps,
            rig=self._rig,
            params=self._tracks(self._rows),
            cameras=tuple(view.camera for view in self._views),
            crops=tuple(view.crops for view in self._views),
            timestep=np.array([frame.timestep for frame in frames], np.int32),
            camera_index=np.array([frame.camera for frame in frames], np.int32),
            image_files=tuple(frame.image for frame in frames),
            mask_files=tuple(frame.mask for frame in frames),
            background_files=tuple(view.background for view in self._views),
            splits=tuple(frame.split for frame in frames),
            **self._texts,
        )

    def retrack(self, params: FlameParams, metadata: Mapping[str, str] | None = None, rig: Rig | None = None) -> None:
        """Replace the motion of all timesteps so far by another, perhaps of another rig, and say something of it.

        Raises ``InvalidParameterError``: the number of timesteps differs, the text cannot be printed, or the rig is
        none.
        """
        if len(params) != len(self._rows):
            raise InvalidParameterError(f"params must have T = {len(self._rows)}, got {len(params)}")
        if rig is not None:
            check_rig(rig)
            self._rig = rig
        self._rows = [params[t] for t in range(len(params))]
        self._texts["metadata"] = {**self._texts["metadata"], **(metadata or {})}
        check_manifest(self._manifest(tuple(self._frames), {}))

    def _write_image(self, image: UInt8 | Path, size: tuple[int, int], index: int) -> str:
        if isinstance(image, Path):
            suffix = image.suffix.lower().replace(".jpeg", ".jpg")
            picture = read_picture(image, size)
            if suffix in IMAGE_SUFFIXES and is_rgb_file(image):
                name = f"images/{index:06}{suffix}"
                with writing(self.path):
                    shutil.copyfile(image, self._inside(name))
                return name
            image = np.repeat(picture[:, :, None], 3, 2) if picture.ndim == 2 else picture[:, :, :3]
        check_picture("image", image, size, 3)
        name = f"images/{index:06}{self._suffix}"
        self._compress(name, image)
        return name

    def _checked_camera(self, index: int) -> int:
        if not isinstance(index, int | np.integer) or not 0 <= index < len(self._views):
            raise InvalidParameterError(f"camera_index must be one of 0..{len(self._views) - 1}, got {index!r}")
        return int(index)

    def _checked_timestep(self, row: FlameParams, timestep: int | None, truth: FlameParams | None) -> int:
        for name, value in (("params_row", row), ("truth", truth)):
            if value is not None and len(value) != 1:
                raise InvalidParameterError(f"{name} must have T = 1, got T = {len(value)}; use params[t]")
        count = len(self._rows)
        step = count if timestep is None else timestep
        if not isinstance(step, int | np.integer) or not 0 <= step <= count:
            raise InvalidParameterError(f"timestep must be an earlier frame's or {count}, got {timestep!r}")
        if step == count:
            if count and (truth is None) != (self._truth[0] is None):
                raise InvalidParameterError("truth must be given for every timestep or for none")
        elif any(not np.array_equal(getattr(row, name), getattr(self._rows[step], name)) for name in WIDTHS):
            raise InvalidParameterError(f"params_row differs from that of timestep {step}, which was added earlier")
        return int(step)

    def _finish(self) -> None:
        if not self._frames:
            raise InvalidParameterError(f"nothing was added to {self.path}; a data set needs at least one frame")
        self._wait_until(0)
        save_rig(self._rig, self._inside(RIG), DatasetError)
        self._tracks(self._rows).save(self._inside(TRACKS))
        names = [RIG, TRACKS]
        if self._truth[0] is not None:
            self._tracks([row for row in self._truth if row is not None]).save(self._inside(TRUTH))
            names.append(TRUTH)
        manifest = self._manifest(tuple(self._frames), {name: checksum(self._inside(name)) for name in names})
        check_manifest(manifest)
        self._write(MANIFEST, encode_manifest(manifest))
        with writing(self.path):
            if not any(self._inside("masks").iterdir()):
                self._inside("masks").rmdir()
        self._target.finish()

    def _tracks(self, rows: Sequence[FlameParams]) -> FlameParams:
        joined = {name: np.concatenate([getattr(row, name) for row in rows]) for name in WIDTHS}
        return FlameParams(**joined, fps=self._fps)

    def _manifest(self, frames: tuple[Frame, ...], checksums: dict[str, str]) -> Manifest:
        return Manifest(
            fps=self._fps,
            views=tuple(self._views),
            frames=frames,
            edition=self._rig.edition,
            checksums=checksums,
            **self._texts,
        )

    def _inside(self, name: str) -> Path:
        if self._target.folder is None:
            raise InvalidParameterError("a DatasetWriter writes inside its `with` block only")
        return self._target.folder / name

    def _compress(self, name: str, picture: UInt8) -> None:
        """Compress and write a picture, which may be changed once this returns, on another thread."""
        file, kept = self._inside(name), picture.copy()

        def compress() -> None:
            with writing(self.path):
                write_picture(file, kept)

        self._pending.append(self._pool.submit(compress))
        self._wait_until(2 * thread_count())

    def _wait_until(self, count: int) -> None:
        """Until no more than ``count`` pictures are being compressed. Raises what went wrong with the others."""
        while len(self._pending) > count:
            self._pending.popleft().result()

    def _write(self, name: str, data: bytes) -> None:
        file = self._inside(name)
        with writing(self.path):
            file.write_bytes(data)


def check_folder_target(path: Path, replace: bool) -> None:
    """Check that a data set can be written at ``path``. Raises ``DatasetError``, which says what is in the way."""
    check_target(path, replace, MANIFEST, KIND)
