"""What was built, what this machine can do, what is missing and the command that brings it: ``being doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from being_rt import __version__
from being_rt.bench.environment import memory_gigabytes, native_build, processor
from being_rt.cache import cache_directory
from being_rt.errors import BeingError, DeviceError
from being_rt.parallel import usable_cores
from being_rt.renderer import Renderer, default_device

NEEDED_ENCODERS = ("libx264", "aac")
OTHER_ENCODERS = ("libvpx-vp9", "libopus", "h264_nvenc")


@dataclass(frozen=True)
class Finding:
    """One line of the report. ``state``: "ok"; "absent" (works without); "broken" (does not work without)."""

    subject: str
    state: str
    detail: str
    remedy: str = ""  # what to type


def examine() -> list[Finding]:
    """Every check, in the order of importance. Never raises: a check that fails is a finding.

    >>> any(finding.state == "broken" for finding in examine())
    False
    """
    checks: tuple[Callable[[], list[Finding]], ...] = (
        _package,
        _machine,
        _native_core,
        _gpu,
        _video,
        _optional_packages,
        _cache,
        _speed,
    )
    findings = []
    for check in checks:
        try:
            findings += check()
        except Exception as problem:  # the doctor must not die of what it diagnoses
            subject = check.__name__.strip("_").replace("_", " ")
            findings.append(Finding(subject, "broken", f"{type(problem).__name__}: {problem}".splitlines()[0]))
    return findings


def _package() -> list[Finding]:
    numpy = importlib.metadata.version("numpy")
    return [Finding("being_rt", "ok", f"{__version__}, Python {platform.python_version()}, NumPy {numpy}")]


def _machine() -> list[Finding]:
    memory = memory_gigabytes()
    cores = usable_cores()
    detail = f"{processor()}, {cores} core{'s' if cores > 1 else ''}"
    return [Finding("machine", "ok", detail + (f", {memory:.0f} GB memory" if memory else ""))]


def _native_core() -> list[Finding]:
    try:
        from being_rt import _C

        build = native_build()
    except ImportError as problem:
        return [Finding("native core", "broken", str(problem).splitlines()[0], "pip install --force-reinstall .")]
    levels = ", ".join(_C.simd_levels())
    detail = f"runs {build['instruction set']} (this machine can: {levels}), built with {build['compiler']}"
    return [Finding("native core", "ok", detail)]


def _gpu() -> list[Finding]:
    gpus = _nvidia_gpus()
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(home / "bin"))
    findings = [
        Finding("NVIDIA GPU", "ok" if gpus else "absent", ", ".join(gpus) or "none; frames are drawn on the CPU"),
        Finding(
            "nvcc", "ok" if nvcc else "absent", nvcc or "no CUDA compiler; it is needed only to build the CUDA part"
        ),
    ]
    return [*findings, *_cuda_part()]


def _cuda_part() -> list[Finding]:
    from being_rt import _C

    if not _C.cuda_built:
        detail = "not in this build; frames are drawn on the CPU"
        return [Finding("CUDA part", "absent", detail, "BEING_RT_CUDA=1 pip install .")]
    findings = [Finding("CUDA part", "ok", f"built for {_C.cuda_architectures.replace(' ', ', ')}")]
    devices = _C.cuda_devices()
    if not devices:
        try:
            _C.check_cuda_device()
        except DeviceError as problem:
            findings.append(
                Finding("cuda", "absent", str(problem).replace("use device='cpu'", "frames are drawn on the CPU"))
            )
    for index, device in enumerate(devices):
        number = "{}{}".format(*device["capability"])
        detail = (
            f"{device['name']}, sm_{number}, {device['multiprocessors']} multiprocessors, "
            f"{device['memory'] / 1e9:.0f} GB memory"
        )
        if device["supported"]:
            findings.append(Finding(f"cuda:{index}", "ok", detail))
        else:
            remedy = f"CMAKE_CUDA_ARCHITECTURES={number} pip install --force-reinstall --no-deps ."
            findings.append(Finding(f"cuda:{index}", "absent", f"{detail}; not in this build", remedy))
    return findings


def _nvidia_gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in listing.splitlines() if line.strip()]


def _video() -> list[Finding]:
    try:
        import av
    except ImportError:
        return [
            Finding("video", "broken", "PyAV is missing, so no video can be written", 'pip install "being_rt[cli]"')
        ]
    have = [name for name in (*NEEDED_ENCODERS, *OTHER_ENCODERS) if name in av.codecs_available]
    detail = f"PyAV {av.__version__} with {', '.join(have)}"
    if missing := [name for name in NEEDED_ENCODERS if name not in have]:
        remedy = "pip install --force-reinstall --only-binary av av"
        return [Finding("video", "broken", f"{detail}; without {', '.join(missing)}", remedy)]
    return [Finding("video", "ok", detail)]


def _optional_packages() -> list[Finding]:
    findings = []
    for module, extra, purpose in (
        ("scipy", "demo", "demo people"),
        ("espeakng_loader", "say", "being say"),
        ("torch", "train", "bench's guard"),
        ("ai_edge_litert", "track", "tracking"),
    ):
        try:
            version = importlib.metadata.version(module.replace("_", "-"))
            findings.append(Finding(purpose, "ok", f"{module} {version}"))
        except importlib.metadata.PackageNotFoundError:
            findings.append(
                Finding(purpose, "absent", f"{module} is not installed", f'pip install "being_rt[{extra}]"')
            )
    return findings


def _cache() -> list[Finding]:
    try:
        folder = cache_directory()
    except BeingError as problem:
        return [Finding("cache", "broken", str(problem), "export BEING_RT_CACHE=some/folder")]
    if not os.access(folder, os.W_OK):
        return [Finding("cache", "broken", f"{folder} cannot be written", "export BEING_RT_CACHE=some/folder")]
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return [Finding("cache", "ok", f"{folder}, {size / 1e6:.0f} MB")]


def _speed() -> list[Finding]:
    """Draws for about a second on each device that frames are drawn on: the one check that goes through everything."""
    devices = dict.fromkeys(("cpu", default_device()))
    return [_speed_on(device) for device in devices]


def _speed_on(device: str) -> Finding:
    from being_rt.flame.params import FlameParams
    from being_rt.jobs import DEFAULT_AVATAR, open_avatar

    subject = "drawing" if device == "cpu" else f"drawing on {device}"
    try:
        renderer = Renderer(open_avatar(DEFAULT_AVATAR), size=(1920, 1080), device=device)
    except DeviceError as problem:
        return Finding(subject, "broken", str(problem), "unset BEING_RT_DEVICE")
    still = FlameParams.neutral()
    picture = renderer.render(still)
    if picture.std() < 1:
        return Finding(subject, "broken", "the demo avatar's picture is blank", "pip install --force-reinstall .")
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < 1.0:
        renderer.render(still, out=picture)
        count += 1
    return Finding(subject, "ok", f"demo avatar, 1920x1080: {count / elapsed:.0f} frames per second")
