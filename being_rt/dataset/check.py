"""Is a data set fit to train on? Everything that would spoil an avatar hours later, found in seconds and named."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from being_rt.dataset.conventions import IN_STEP, SIMILAR, Verdict, global_motion, judge, picture_lag, views_of
from being_rt.dataset.dataset import Dataset, missing_files, open_dataset
from being_rt.dataset.manifest import TRACKS
from being_rt.dataset.overlay import overlay
from being_rt.dataset.pictures import encode_picture, picture_size
from being_rt.errors import DatasetError, FileFormatError, InvalidParameterError
from being_rt.files import atomic_write
from being_rt.flame.params import WIDTHS

Severity = Literal["error", "warning", "note"]
Int32 = NDArray[np.int32]

LISTED = 10  # findings of one kind that are listed; the rest is counted
FEW_FRAMES = 100  # below, an avatar can only repeat what it has seen
NEAREST, FARTHEST = 0.1, 20.0  # metres from the camera to a head
JUMP = 0.08  # metres between two frames; 2 m/s at 25 fps
TURN = 0.5  # radians between two frames
LARGE_EXPRESSION = 8.0  # standard deviations of a FLAME coefficient
SPACE_NEEDED = 2 << 30  # bytes: an avatar, a few checkpoints and the pictures of a report
SPACE_LEAST = 200 << 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong ("error": training refuses), doubtful ("warning"), or good to know ("note")."""

    severity: Severity
    file: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.message}"


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_dataset` found."""

    path: str
    findings: tuple[Finding, ...]
    frames: int = 0
    timesteps: int = 0
    cameras: int = 0
    overlap: float | None = None  # of head and mask, mean of the sampled frames, 0..1; None without masks
    overlays: tuple[str, ...] = ()  # files

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong that training refuses."""
        return not any(finding.severity == "error" for finding in self.findings)


def check_dataset(
    path: str | os.PathLike[str],
    *,
    overlays: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    samples: int = 16,
) -> CheckReport:
    """Look a data set over: files, sizes, tracks, cameras, and whether the head lies where the masks are.

    Args:
        path: the data set's folder.
        overlays: a folder for pictures of the mesh over sampled frames; made where it is missing.
        output: where training will write, to see whether there is room for it.
        samples: frames whose pictures are read and compared.

    Raises:
        DatasetError: ``overlays`` cannot be written. What is wrong with the data set is in the report.

    Example::

        for finding in check_dataset("ada").findings:
            print(finding)
    """
    folder = Path(path)
    findings: list[Finding] = _space(Path(output)) if output is not None else []
    try:
        dataset = open_dataset(folder)
    except FileFormatError as problem:
        message = str(problem).removeprefix(f"{folder}{os.sep}").removeprefix(f"{folder}: ")
        return CheckReport(str(folder), (*findings, Finding("error", str(folder), message)))
    absent = set(missing_files(dataset))
    findings += _limited("error", sorted(absent), "does not exist", "frames or masks do not exist", folder)
    findings += _sizes(dataset, absent) + _splits(dataset) + _tracks(dataset) + _placement(dataset)
    whole = np.array([_is_whole(dataset, index, absent) for index in range(dataset.count)])
    sampled = _sample(np.flatnonzero(whole), samples)
    readable, damaged = _readable(dataset, sampled)
    findings += damaged
    verdict, about_masks = _masks(dataset, readable, whole)
    findings += about_masks
    return CheckReport(
        path=str(folder),
        findings=tuple(sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))),
        frames=dataset.count,
        timesteps=len(dataset.params),
        cameras=len(dataset.cameras),
        overlap=None if verdict is None else verdict.given,
        overlays=_draw(dataset, readable, Path(overlays)) if overlays is not None else (),
    )


def _limited(severity: Severity, files: list[str], message: str, rest: str, folder: Path) -> list[Finding]:
    """A finding per file, the first few of them, and one that counts the rest."""
    found = [Finding(severity, file, message) for file in files[:LISTED]]
    if len(files) > LISTED:
        found.append(Finding(severity, str(folder), f"{len(files) - LISTED} more {rest}"))
    return found


def _space(output: Path) -> list[Finding]:
    place = output.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if free >= SPACE_NEEDED:
        return []
    message = f"{free >> 20} MB are free on its disk; training writes up to {SPACE_NEEDED >> 20} MB"
    return [Finding("error" if free < SPACE_LEAST else "warning", str(output), message)]


def _sizes(dataset: Dataset, absent: set[str]) -> list[Finding]:
    """Wrong sizes and files that are no pictures, by their headers alone."""
    found = []
    for index in range(dataset.count):
        expected = dataset.cameras[dataset.camera_index[index]].size
        for name in (dataset.image_files[index], dataset.mask_files[index]):
            if name is None or name in absent:
                continue
            try:
                size = picture_size(dataset.path / name)
            except DatasetError as problem:
                found.append(Finding("error", name, _without(problem, dataset)))
                continue
            if size != expected:
                sizes = f"{size[0]}x{size[1]} pixels, its camera is made for {expected[0]}x{expected[1]}"
                found.append(Finding("error", name, f"is {sizes}"))
    return found[:LISTED] + (
        [Finding("error", str(dataset.path), f"{len(found) - LISTED} more pictures are damaged or of a wrong size")]
        if len(found) > LISTED
        else []
    )


def _splits(dataset: Dataset) -> list[Finding]:
    train, test = dataset.split("train"), dataset.split("test")
    steps = len(np.unique(dataset.timestep[train]))
    manifest = "dataset.json"
    if not len(train):
        return [Finding("error", manifest, "no frame is in the split train")]
    found = []
    if steps == 1:
        found.append(Finding("error", manifest, "there is one timestep to train on; a face must be seen moving"))
    elif steps < FEW_FRAMES:
        found.append(
            Finding("warning", manifest, f"there are {steps} timesteps to train on; a minute of video has 1500")
        )
    if not len(test):
        found.append(Finding("warning", manifest, "no frame is in the split test: quality cannot be measured"))
    elif set(dataset.timestep[test].tolist()) & set(dataset.timestep[train].tolist()):
        found.append(Finding("warning", manifest, "timesteps of the split test are in the split train too"))
    unused = len(dataset.params) - len(np.unique(dataset.timestep))
    if unused:
        found.append(Finding("note", TRACKS, f"{unused} timesteps have no picture"))
    return found


def _tracks(dataset: Dataset) -> list[Finding]:
    params = dataset.params
    found = []
    largest = np.abs(params.expression).max(1)
    wild = np.flatnonzero(largest > LARGE_EXPRESSION)
    if wild.size:
        message = f"an expression coefficient is {largest[wild[0]]:.0f} standard deviations out{_others(wild)}"
        found.append(Finding("warning", TRACKS, f"timestep {wild[0]}: {message}; the tracker lost the face"))
    if len(params) > 1:
        if not any(np.ptp(getattr(params, name), axis=0).any() for name in WIDTHS):
            found.append(Finding("error", TRACKS, "all timesteps are the same: the track does not move"))
        elif not np.ptp(params.expression, axis=0).any() and not np.ptp(params.jaw, axis=0).any():
            found.append(Finding("warning", TRACKS, "the expression never changes: the face was not tracked"))
        motion = global_motion(dataset.rig, params)
        moved = np.linalg.norm(np.diff(params.translation, axis=0), axis=1)
        turn = motion[1:, :3, :3] @ np.swapaxes(motion[:-1, :3, :3], 1, 2)
        angle = np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1))
        jumps = np.flatnonzero((moved > JUMP) | (angle > TURN))
        if jumps.size:
            at = jumps[0]
            message = (
                f"the head jumps by {moved[at] * 100:.0f} cm and {np.degrees(angle[at]):.0f} degrees{_others(jumps)}"
            )
            found.append(Finding("warning", TRACKS, f"timestep {at + 1}: {message}"))
    if np.any((params.eyelids < -0.5) | (params.eyelids > 1.5)):
        found.append(Finding("warning", TRACKS, "eyelids lie far outside 0 (open) to 1 (closed)"))
    return found


def _placement(dataset: Dataset) -> list[Finding]:
    """Heads behind their camera, out of reach, upside down, or turned away."""
    motion = global_motion(dataset.rig, dataset.params)
    rest = dataset.rig.joint_rest[3:].mean(0).astype(np.float64)  # between the eyes
    found = []
    for number, camera in enumerate(dataset.cameras):
        frames = np.flatnonzero(dataset.camera_index == number)
        if not frames.size:
            continue
        seen = camera.world_to_camera.astype(np.float64) @ motion[dataset.timestep[frames]]
        centre = seen[:, :3, :3] @ rest + seen[:, :3, 3]
        where = f"dataset.json, camera {number}"
        behind = np.flatnonzero(centre[:, 2] <= 0)
        near = np.flatnonzero((centre[:, 2] > 0) & ((centre[:, 2] < NEAREST) | (centre[:, 2] > FARTHEST)))
        if behind.size:
            first = dataset.image_files[frames[behind[0]]]
            message = f"the head lies behind the camera in {first}{_others(behind)}"
            found.append(Finding("error", where, message))
            continue
        if near.size:
            first, distance = dataset.image_files[frames[near[0]]], centre[near[0], 2]
            message = f"the head is {distance:.3g} m away in {first}{_others(near)}; the unit is the metre"
            found.append(Finding("error", where, message))
        # FLAME's +Y is up, which is -y in a picture; the face looks along +Z, towards the camera.
        if np.median(seen[:, 1, 1]) > 0.3:
            found.append(Finding("error", where, "the head is upside down in most frames"))
        elif np.median(seen[:, 2, 2]) > 0.3 and number == 0:
            found.append(Finding("error", where, "the face looks away from the camera in most frames"))
        pixels = centre @ camera.intrinsics.astype(np.float64).T
        pixels = pixels[:, :2] / pixels[:, 2:]
        out = np.flatnonzero(~((pixels >= 0) & (pixels < camera.size)).all(1))
        if out.size:
            first = dataset.image_files[frames[out[0]]]
            severity: Severity = "error" if out.size > len(frames) / 2 else "warning"
            found.append(Finding(severity, where, f"the face lies outside of the picture in {first}{_others(out)}"))
    return found


def _masks(dataset: Dataset, readable: Int32, whole: NDArray[np.bool_]) -> tuple[Verdict | None, list[Finding]]:
    """Whether heads lie on their masks; if not, which usual mistake explains it; whether pictures are in step."""
    manifest = "dataset.json"
    without = sum(name is None for name in dataset.mask_files)
    found = []
    if without:
        few = f"{without} of {dataset.count} frames have no mask" if without < dataset.count else "no frame has a mask"
        found.append(Finding("warning", manifest, f"{few}: the background is learned with the person"))
    views = views_of(dataset, readable)
    if not views:
        return None, found + _lag(dataset, whole)
    empty = [view.frame for view in views if not view.mask.any()]
    full = [view.frame for view in views if view.mask.all()]
    for indices, message in ((empty, "is empty: nobody is in it"), (full, "is full: it cuts nothing out")):
        if indices:
            name = dataset.mask_files[indices[0]]
            all_empty: Severity = "error" if len(empty) == len(views) else "warning"
            found.append(Finding(all_empty, str(name), f"{message}{_others(np.array(indices))}"))
    useful = [view for view in views if view.mask.any() and not view.mask.all()]
    try:
        verdict = judge(useful, dataset.rig) if useful else None
    except InvalidParameterError as problem:
        return None, [*found, Finding("warning", "rig.safetensors", str(problem))]
    if verdict is None:
        return None, found
    if verdict.mistake is not None:
        overlaps = f"head and masks then overlap by {verdict.best:.0%}, as given by {verdict.given:.0%}"
        severity: Severity = "error" if verdict.certain else "warning"
        found.append(Finding(severity, manifest, f"{verdict.mistake} ({overlaps})"))
    elif verdict.given < SIMILAR:
        severity = "error" if verdict.given < SIMILAR / 2 else "warning"
        name = dataset.image_files[useful[0].frame]
        message = f"head and mask overlap by {verdict.given:.0%} only, in this frame and others; look at the overlays"
        found.append(Finding(severity, name, message))
    if verdict.given >= SIMILAR and not verdict.certain:
        found += _lag(dataset, whole)
    return verdict, found


def _lag(dataset: Dataset, whole: NDArray[np.bool_]) -> list[Finding]:
    one_camera = np.flatnonzero((dataset.camera_index == 0) & whole)
    ordered = one_camera[np.argsort(dataset.timestep[one_camera], kind="stable")]
    try:
        lag, part = picture_lag(dataset, ordered)
    except DatasetError as problem:
        return [Finding("error", dataset.image_files[int(ordered[0])], _without(problem, dataset))]
    if lag == 0 or part > IN_STEP:
        return []
    frames = f"{abs(lag)} frame{'s' * (abs(lag) > 1)} {'late' if lag > 0 else 'early'}"
    order = f"picture n shows timestep n {'-' if lag > 0 else '+'} {abs(lag)}"
    hint = "trackers count from 0, FFmpeg's pictures from 1; see --frame-offset of `being data convert`"
    name = dataset.image_files[int(ordered[0])]
    return [Finding("error", name, f"the pictures come {frames}: {order} ({hint})")]


def _is_whole(dataset: Dataset, index: int, absent: set[str]) -> bool:
    return dataset.image_files[index] not in absent and dataset.mask_files[index] not in absent


def _sample(indices: NDArray[np.intp], count: int) -> Int32:
    """Evenly spread ones of the indices."""
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(np.intp)
    return indices[chosen].astype(np.int32)


def _readable(dataset: Dataset, indices: Int32) -> tuple[Int32, list[Finding]]:
    good, found = [], []
    for index in map(int, indices):
        try:
            dataset.image(index)
            dataset.mask(index)
            good.append(index)
        except DatasetError as problem:
            if " pixels, its camera is made for " not in str(problem):  # said by _sizes
                found.append(Finding("error", dataset.image_files[index], _without(problem, dataset)))
    return np.array(good, np.int32), found


def _draw(dataset: Dataset, indices: Int32, folder: Path) -> tuple[str, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in map(int, indices):
        file = folder / f"{Path(dataset.image_files[index]).stem}.png"
        with atomic_write(file, DatasetError) as temporary:
            temporary.write_bytes(encode_picture(overlay(dataset, index), ".png"))
        written.append(str(file))
    return tuple(written)


def _others(indices: NDArray[np.intp]) -> str:
    return f", and in {len(indices) - 1} more" if len(indices) > 1 else ""


def _without(problem: Exception, dataset: Dataset) -> str:
    """A message without the path that the finding begins with."""
    return str(problem).replace(f"{dataset.path}{os.sep}", "")
