"""The measurement: whole frames by the wall clock, from FlameParams to 8-bit pixels, over real motion.

On the CPU here, on CUDA in :mod:`being_rt.bench.cuda`; the records and the picture guard are common.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Camera
from being_rt.bench.scenes import with_count
from being_rt.errors import InvalidParameterError, MissingDependencyError
from being_rt.flame.params import FlameParams
from being_rt.renderer import Renderer

Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

WARM_UP = 10  # frames: caches, branch predictors and the tile lists' capacity settle within a few
BLOCKS = 5  # a row's noise is how far the medians of its fifths lie apart
CLOSE_UP = 2.15  # zoom at which the demo person fills 45 % of a 16:9 frame
GUARD_SIZE = (480, 270)
FULL_SIZE = (1920, 1080)  # at which CUDA is compared with the CPU
AGREEMENT_FLOOR = 0.999  # share of the pixels within 1/255 on both
PSNR_FLOOR = 50.0  # dB
DIFFERENCE_CEILING = 2.0  # steps of 1/255, outside pixels where an alpha lies at the cut-off


@dataclass(frozen=True)
class Case:
    """One row to measure."""

    size: tuple[int, int]
    gaussians: int
    threads: int
    zoom: float = 1.0  # how much longer the lens is than the avatar's own
    device: str = "cpu"  # or "cuda"
    sessions: int = 0  # of a BatchRenderer; 0: a Renderer
    format: str = "rgb"

    @property
    def name(self) -> str:
        """The case in words."""
        words = [f"{self.size[0]}x{self.size[1]}", f"{self.gaussians} Gaussians", f"lens x{self.zoom:g}"]
        words += [self.device if self.device == "cuda" else f"{self.threads} threads"]
        words += [f"{self.sessions} sessions"] if self.sessions else []
        words += [self.format] if self.format != "rgb" else []
        return ", ".join(words)


@dataclass(frozen=True)
class Gpu:
    """What a row has on CUDA alone. A frame is one of all sessions."""

    host: float  # microseconds, median, until draw() returns
    throughput: float  # ms per frame of many that are submitted before one wait
    longest: float  # ms
    redrawn: int  # frames that were drawn twice, as lists had to grow
    visible: float  # Gaussians of a session that reach the picture, in the first frame
    bytes: dict[str, float] = field(default_factory=dict)  # known to be moved per stage and frame, all sessions


@dataclass(frozen=True)
class Row:
    """What was measured. Times in milliseconds."""

    case: Case
    frames: int
    fps: float  # 1000 / median; of a batch: of all sessions together
    p50: float
    p90: float
    p99: float
    low_fps: float  # "1 % low": frames per second over the slowest hundredth of the frames
    noise: float  # half the spread of the medians of the fifths of the run, over the median
    memory: float  # MB that the renderer holds
    coverage: float  # share of the first frame's pixels that the person covers more than half
    stages: dict[str, float]  # median per stage
    gpu: Gpu | None = None


@dataclass(frozen=True)
class Guard:
    """How the pictures compare with the float64 reference; ``reason`` says why they were not compared.

    On CUDA also with the CPU's, at full size.
    """

    frames: int = 0
    psnr: float = 0.0  # the worst frame's
    largest: float = 0.0
    reason: str = ""
    agreement: float | None = None  # the worst frame's share of pixels within 1/255 of the CPU's

    @property
    def passed(self) -> bool:
        faithful = self.frames == 0 or (self.psnr >= PSNR_FLOOR and self.largest <= DIFFERENCE_CEILING)
        return faithful and (self.agreement is None or self.agreement >= AGREEMENT_FLOOR)


def cases(avatar: Avatar, threads: int, level: str) -> list[Case]:
    """The rows of a run. ``level``: "quick", "default" or "full"."""
    own = gaussian_count(avatar)
    full_hd, square = (1920, 1080), (512, 512)
    rows = [Case(full_hd, own, threads), Case(square, own, threads)]
    if level != "quick":
        rows += [Case(full_hd, own, threads, CLOSE_UP)]
        rows += [Case(full_hd, own, fewer) for fewer in _powers_of_two_below(threads)]
        rows += [Case(full_hd, count, threads) for count in (10_000, 100_000, 300_000)]
    if level == "full":
        rows += [Case(size, own, threads) for size in ((256, 256), (1280, 720), (1080, 1920), (3840, 2160))]
        rows += [Case(square, own, fewer) for fewer in _powers_of_two_below(threads)]
        rows += [Case(square, count, threads) for count in (10_000, 30_000, 100_000, 300_000)]
        rows += [Case(full_hd, 30_000, threads)]
    return list(dict.fromkeys(rows))


def measure(
    avatar: Avatar, motion: FlameParams, rows: Sequence[Case], seconds: float, progress: Callable[[Case], None]
) -> Iterator[Row]:
    """Measure every case for ``seconds`` (and at least 20 frames), each on the frames of ``motion`` in turn."""
    frames = [motion[i] for i in range(len(motion))]
    scenes: dict[int, Avatar] = {gaussian_count(avatar): avatar}
    for case in rows:
        progress(case)
        if case.gaussians not in scenes:
            scenes[case.gaussians] = with_count(avatar, case.gaussians)
        camera = zoomed(avatar.camera, case.zoom)
        renderer = Renderer(scenes[case.gaussians], size=case.size, threads=case.threads, camera=camera)
        yield _row(case, renderer, frames, seconds)


def _row(case: Case, renderer: Renderer, frames: Sequence[FlameParams], seconds: float) -> Row:
    picture, alpha, _ = renderer.render_layers(frames[0])
    for i in range(WARM_UP):
        renderer.render(frames[i % len(frames)], out=picture)
    times: list[float] = []
    stages: dict[str, list[float]] = {}
    spent = 0.0
    while spent < seconds or len(times) < 20:
        params = frames[len(times) % len(frames)]
        start = time.perf_counter()
        renderer.render(params, out=picture)
        elapsed = time.perf_counter() - start
        times.append(elapsed)
        spent += elapsed
        for name, value in renderer.stage_times().items():
            stages.setdefault(name, []).append(value)
    medians = {name: float(np.median(values)) for name, values in stages.items()}
    return summary(case, 1000 * np.array(times), renderer.memory, float((alpha > 0.5).mean()), medians)


def summary(
    case: Case, milliseconds: Float64, memory: int, coverage: float, stages: dict[str, float], gpu: Gpu | None = None
) -> Row:
    """A row from the times of its frames in their order."""
    medians = [float(np.median(block)) for block in np.array_split(milliseconds, BLOCKS)]
    p50, p90, p99 = (float(value) for value in np.percentile(milliseconds, (50, 90, 99)))
    slowest = np.sort(milliseconds)[-max(1, len(milliseconds) // 100) :]
    pictures = 1000 * max(1, case.sessions)
    return Row(
        case=case,
        frames=len(milliseconds),
        fps=pictures / p50,
        p50=p50,
        p90=p90,
        p99=p99,
        low_fps=pictures / float(slowest.mean()),
        noise=(max(medians) - min(medians)) / 2 / p50,
        memory=memory / 1e6,
        coverage=coverage,
        stages=stages,
        gpu=gpu,
    )


def gaussian_count(avatar: Avatar) -> int:
    """Of head and torso."""
    return avatar.head.gaussians.count + avatar.torso.gaussians.count


def zoomed(camera: Camera, zoom: float) -> Camera:
    """The camera with a lens ``zoom`` times as long."""
    lens = np.diag([zoom, zoom, 1.0]).astype(np.float32)
    lens[:2, 2] = (1 - zoom) * camera.intrinsics[:2, 2]  # about the principal point
    return replace(camera, intrinsics=lens @ camera.intrinsics)


def guard(avatar: Avatar, motion: FlameParams, count: int, device: str = "cpu") -> Guard:
    """Compare ``count`` frames, spread over ``motion``, with the float64 reference, and CUDA's also with the CPU's."""
    chosen = [motion[int(i)] for i in np.linspace(0, len(motion) - 1, count + 2)[1:-1]]
    agreement = None if device == "cpu" else _agreement(avatar, chosen, device)
    try:
        from being_rt.reference import compare
    except MissingDependencyError as problem:
        return Guard(reason=str(problem), agreement=agreement)
    renderer = Renderer(avatar, size=GUARD_SIZE, device=device)
    results = [compare(renderer.render(params), avatar, params, size=GUARD_SIZE) for params in chosen]
    psnr, largest = min(result.psnr for result in results), max(result.largest for result in results)
    return Guard(count, psnr, largest, agreement=agreement)


def _agreement(avatar: Avatar, frames: Sequence[FlameParams], device: str) -> float:
    """The worst frame's share of pixels that the device draws within 1/255 of the CPU, in every channel."""
    camera = zoomed(avatar.camera, CLOSE_UP)
    first, second = (Renderer(avatar, size=FULL_SIZE, device=name, camera=camera) for name in (device, "cpu"))
    return min(agreement(first.render(params), second.render(params)) for params in frames)


def agreement(first: UInt8, second: UInt8) -> float:
    """The share of pixels [H, W, 3] that lie within 1/255 of each other in every channel."""
    difference = np.abs(first.astype(np.int16) - second)
    return float((difference.max(axis=2) <= 1).mean())


def parse_counts(texts: Iterable[str]) -> list[int]:
    """``"60000"``, ``"60k"`` and ``"1m"`` as numbers. Raises ``InvalidParameterError``."""
    scale = {"k": 1000, "m": 1_000_000}
    counts = []
    for text in texts:
        digits = text.lower().rstrip("km")
        try:
            counts.append(int(float(digits) * scale.get(text.lower()[len(digits) :], 1)))
        except ValueError:
            raise InvalidParameterError(f"a number of Gaussians must be like 60000 or 60k, got {text!r}") from None
    return counts


def _powers_of_two_below(threads: int) -> list[int]:
    return [1 << i for i in range(threads.bit_length()) if 1 << i < threads]
