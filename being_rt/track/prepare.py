"""A video becomes a data set: observe, fit, separate person from room, refine, write. Stages are not done again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset import Dataset, DatasetWriter
from being_rt.errors import FileFormatError, InvalidParameterError, TrackError
from being_rt.flame.model import FlameModel
from being_rt.parallel import ahead, thread_count
from being_rt.track.alpha import refine_alphas
from being_rt.track.camera_motion import CameraMotion, camera_motion
from being_rt.track.embedding import landmark_embedding
from being_rt.track.fit import Fit, fit
from being_rt.track.fit_config import FitConfig
from being_rt.track.fit_file import load_fit, save_fit
from being_rt.track.observations import Observations
from being_rt.track.observe import observe
from being_rt.track.photometric import PhotometricConfig, Refine, Refined, is_wanted
from being_rt.track.photometric import refine as refine_track
from being_rt.track.photometric_file import load_refined, save_refined
from being_rt.track.photometric_gate import Landmarks
from being_rt.track.placement import centred
from being_rt.track.plate import Plate, background_plate
from being_rt.track.source import VideoSource
from being_rt.track.stages import Stages, content_key, key_of

UInt8 = NDArray[np.uint8]
Progress = Callable[[str, float], None]  # what is being done, and the share of it that is

# Real faces are farther from a model than its own deviations say, and where they are, all landmarks are off together:
# taken for outliers, they would leave the rest of the face to a few that fit by an impossible skull.
REAL_FACES = FitConfig(outlier=0.2, shape=0.4)

VERSION = 2  # of what the stages do: a new one does them all again
REFINED_VERSION = 3  # of what refining does
AHEAD = 4  # frames that are decoded in advance
PLATE_FRAMES = 60  # that the empty scene is found from
KEY = "key"  # of a data set's metadata: what it was made from
LEAST_SHARE = 0.5  # of the frames that must be tracked


@dataclass(frozen=True)
class Prepared:
    """What :func:`prepare` found, and the data set that it wrote."""

    dataset: Dataset
    observations: Observations
    fit: Fit
    motion: CameraMotion
    frames: tuple[int, ...]  # of the video, one per frame of the data set
    known: float  # share of the picture whose background some frame shows
    warnings: tuple[str, ...]

    @property
    def refinement(self) -> dict[str, str]:
        """What refining the track by pictures did, by name; empty where it was not."""
        return {name: told for name, told in self.dataset.metadata.items() if name.startswith("refined")}


def prepare(
    video: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: FlameModel,
    *,
    work: str | os.PathLike[str],
    name: str = "",
    licence: str = "",
    consent: str = "",
    held_out: float = 0.15,
    image_suffix: str = ".jpg",
    replace: bool = False,
    config: FitConfig | None = None,
    refine: Refine = "auto",
    photometric: PhotometricConfig | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: Progress | None = None,
) -> Prepared:
    """Track the person in a video and write a data set to train on.

    Args:
        video: any file that FFmpeg reads: one person, one camera that stands still.
        out: the data set's folder, made when it is complete.
        model: FLAME, or the procedural head.
        work: a folder for results on the way; a second run on the same video goes on from them.
        name: the person's; the video's file name, if not given.
        licence, consent: text for the data set.
        held_out: share of the frames, the last ones, that training does not see.
        image_suffix: of frames: .png, or .jpg (quality 95) for a fifth of the size.
        replace: whether a data set of that name, made from something else, is replaced.
        config: of the fit; None: :data:`REAL_FACES`.
        refine: whether pictures refine what landmarks found (:mod:`being_rt.track.photometric`), held-out frames
            included. auto: where PyTorch is installed.
        photometric: how; None: the defaults.
        device: of refining: "auto", "cpu", "cuda" or "cuda:N".
        threads: for decoding, networks and filters; 0: one per core.
        progress: hears what is done.

    Raises:
        TrackError: the video cannot be read, or shows no face that can be followed; ``work`` cannot be made.
        DatasetError: ``out`` is there already, or cannot be written.
        InvalidParameterError: a share or a suffix that cannot be.
        MissingDependencyError: ``refine`` is on and PyTorch is not installed.

    Example::

        made = prepare("selfie.mp4", "me", procedural_head(), work="me.work")
        print(made.dataset.count, "frames;", *made.warnings)
    """
    if not 0 <= held_out <= 0.9:
        raise InvalidParameterError(f"held_out must be a share 0..0.9, got {held_out}")
    tell = progress or (lambda stage, share: None)
    config = config or REAL_FACES
    how = (photometric or PhotometricConfig()) if is_wanted(refine) else None
    threads = thread_count(threads)
    stages = Stages(work)
    source_key = key_of(VERSION, content_key(video))
    seen = stages.result(
        "observations",
        source_key,
        ".npz",
        Observations.load,
        lambda path: observe(video, threads=threads, progress=_counted("looking", tell)).save(path),
    )
    fit_key = key_of(source_key, asdict(config), model.edition, float(model.template.sum()))
    found = stages.result(
        "fit",
        fit_key,
        ".npz",
        load_fit,
        lambda path: save_fit(
            fit(seen, model, landmark_embedding(model), config, lambda share: tell("fitting", share)), path
        ),
    )
    tracked = np.flatnonzero(found.tracked)
    if len(tracked) < LEAST_SHARE * len(seen):
        raise TrackError(
            f"{video}: the face could be followed in {len(tracked)} of {len(seen)} frames; "
            "film one face that looks about the camera, sharp and in even light"
        )
    tell("separating", 0.0)
    # Frames without a face count as well: an empty room at the start is the best that can be.
    chosen = np.unique(np.linspace(0, len(seen) - 1, PLATE_FRAMES).round().astype(np.int64))
    pictures = [picture for _, picture in _frames(video, chosen, threads)]
    motion = camera_motion(pictures, [seen.masks[i] for i in chosen])
    plate = background_plate(pictures, [seen.masks[i] for i in chosen]) if motion.is_static else None
    refined_key = key_of(fit_key, held_out, image_suffix, REFINED_VERSION, asdict(how)) if how is not None else ""
    key = key_of(fit_key, held_out, image_suffix, name, licence, consent, refined_key)

    def refined(written: Dataset) -> Refined | None:
        """The better track of the frames as they were written, if one is wanted."""
        if how is None:
            return None
        seen_there = Landmarks(
            seen.landmarks[tracked, :, :2], seen.found[tracked], landmark_embedding(model), found.bias
        )
        folder = stages.folder / f"appearance-{refined_key}"
        result = stages.result(
            "refined", refined_key, ".npz", load_refined,
            lambda path: save_refined(
                refine_track(
                    written, seen_there, how, work=folder, device=device, progress=lambda share: tell("refining", share)
                ),
                path,
            ),
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        return result

    dataset = _written(
        video, Path(out), key, model, seen, found, tracked, plate,
        held_out=held_out, suffix=image_suffix, replace=replace, threads=threads, tell=tell, refined=refined,
        texts={"name": name or Path(video).stem, "licence": licence, "consent": consent},
    )  # fmt: skip
    known = float(plate.known.mean()) if plate is not None else 0.0
    warnings = (*seen.warnings, *found.warnings, *([] if motion.is_static else [motion.words]))
    if how is None and refine == "auto":
        warnings = (*warnings, "the track is that of landmarks alone; with PyTorch installed, pictures would refine it")
    return Prepared(dataset, seen, found, motion, tuple(tracked.tolist()), known, warnings)


def _counted(stage: str, tell: Progress) -> Callable[[int, int], None]:
    """Progress by frames as progress of a stage."""
    return lambda done, count: tell(stage, done / max(count, 1))


def _frames(video: str | os.PathLike[str], chosen: NDArray[np.int64], threads: int) -> Iterator[tuple[int, UInt8]]:
    """The chosen frames of a video, in their order."""
    wanted = set(chosen.tolist())
    for index, _, picture in VideoSource(video, threads=threads):
        if index in wanted:
            yield index, picture


def _written(
    video: str | os.PathLike[str],
    out: Path,
    key: str,
    model: FlameModel,
    seen: Observations,
    found: Fit,
    tracked: NDArray[np.int64],
    plate: Plate | None,
    *,
    held_out: float,
    suffix: str,
    replace: bool,
    threads: int,
    tell: Progress,
    refined: Callable[[Dataset], Refined | None],
    texts: dict[str, Any],
) -> Dataset:
    """The data set: what is there already, if it was made from the same, or a new one."""
    if _made_from(out, key):
        return Dataset.load(out)
    rig = found.rig(model)
    params, camera = centred(found.params, found.camera, rig, found.tracked)
    train = round(len(tracked) * (1 - held_out))
    details: dict[str, Any] = {KEY: key, "video": Path(video).name, "focal deviation": f"{found.focal_deviation:.3f}"}
    with DatasetWriter(
        out, rig=rig, cameras=(camera,), fps=seen.fps, source=Path(video).name, image_suffix=suffix,
        replace=replace, metadata={name: str(value) for name, value in details.items()}, **texts,
    ) as writer:  # fmt: skip
        if plate is not None:
            writer.background(0, plate.picture)
        kept: list[UInt8] = []

        def pictures(frames: Iterator[tuple[int, UInt8]]) -> Iterator[UInt8]:
            for _, picture in frames:
                kept.append(picture)
                yield picture

        with ahead(_frames(video, tracked, threads), AHEAD) as frames:
            alphas = refine_alphas(pictures(frames), (seen.masks[i] for i in tracked), plate, threads)
            for number, (index, alpha) in enumerate(zip(tracked.tolist(), alphas, strict=True)):
                writer.add(kept.pop(0), alpha, params[index], split="train" if number < train else "test")
                tell("separating", (number + 1) / len(tracked))
        better = refined(writer.preview())
        if better is not None:
            writer.retrack(better.params, better.figures(), better.rig(rig))
    return Dataset.load(out)


def _made_from(path: Path, key: str) -> bool:
    try:
        return Dataset.load(path).metadata.get(KEY) == key
    except FileFormatError:
        return False
