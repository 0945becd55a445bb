"""The measurement on a CUDA device: FlameParams in, 8-bit pixels in device memory out, by the wall clock.

A row has two speeds. Latency: one frame at a time, from the call of ``draw`` to the end of the wait for it.
Throughput: many frames submitted before one wait, divided by their number. Stages are timed by events in a second
renderer that launches them one by one (``graph=False``): a graph is one launch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from being_rt.avatar.avatar import Avatar
from being_rt.bench.measure import CLOSE_UP, FULL_SIZE, Case, Float64, Gpu, Row, gaussian_count, summary, zoomed
from being_rt.bench.scenes import with_count
from being_rt.errors import DeviceError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.renderer import BatchRenderer, Format, Renderer

WARM_UP = 30  # frames at least: clocks rise, and lists grow to what the motion needs
FRAMES = 500  # measured at least
STAGE_FRAMES = 200
BURSTS = 3  # measurements of throughput, of which the median counts
COUNTS = (14_000, 50_000, 100_000, 300_000, 1_000_000)
SESSIONS = (1, 4, 16, 64)
SPLAT_BYTES = 32
POSED_BYTES = 16  # a vertex
BYTES_PER_PIXEL = {"rgb": 3.0, "rgba": 4.0, "nv12": 1.5}
RASTERIZE = "sort+rasterize+composite"
DEFORM = "deform+project+bin"


@dataclass(frozen=True)
class Skipped:
    """A case that the device could not draw."""

    case: Case
    reason: str


def copy_bandwidth(device: str) -> float:
    """GB/s, read and written bytes together, of a large copy on the device. Raises ``DeviceError``."""
    return float(native().cuda_copy_bandwidth(device_index(device)))


def native() -> Any:
    """The native module."""
    from being_rt import _C

    return _C


def device_index(device: str) -> int:
    """Of "cuda" or "cuda:N"."""
    return int(device.partition(":")[2] or 0)


def cases(avatar: Avatar, level: str) -> list[Case]:
    """The rows of a run. ``level``: "quick", "default" or "full"."""
    own = gaussian_count(avatar)
    rows = [close_up(own), close_up(50_000)]
    if level != "quick":
        rows += [close_up(count) for count in COUNTS]
        rows += [Case(FULL_SIZE, own, 0, device="cuda"), Case((512, 512), own, 0, device="cuda")]
        rows += [close_up(50_000, sessions=sessions) for sessions in SESSIONS]
    if level == "full":
        rows += [close_up(own, size) for size in ((1280, 720), (3840, 2160))]
        rows += [close_up(own, format="nv12")]
        rows += [Case((512, 512), 50_000, 0, device="cuda", sessions=256)]
    return list(dict.fromkeys(rows))


def close_up(gaussians: int, size: tuple[int, int] = FULL_SIZE, sessions: int = 0, format: str = "rgb") -> Case:
    """A case in which the person fills much of the frame."""
    return Case(size, gaussians, 0, CLOSE_UP, "cuda", sessions, format)


class Scene:
    """What the cases of a run draw: avatars by their number of Gaussians, and the motion.

    Args:
        avatar: the person.
        motion: frames that are drawn in turn; the sessions of a batch are a few frames apart.
    """

    def __init__(self, avatar: Avatar, motion: FlameParams) -> None:
        self._avatars = {gaussian_count(avatar): avatar}
        self._avatar = avatar
        self._frames = [motion[i] for i in range(len(motion))]

    def avatar(self, case: Case) -> Avatar:
        """Of the case's number of Gaussians."""
        if case.gaussians not in self._avatars:
            self._avatars = {gaussian_count(self._avatar): self._avatar}  # the large ones take gigabytes
            self._avatars[case.gaussians] = with_count(self._avatar, case.gaussians)
        return self._avatars[case.gaussians]

    def frames(self, case: Case) -> list[FlameParams]:
        """A frame's parameters each, of all sessions."""
        if not case.sessions:
            return self._frames
        count = len(self._frames)
        return [
            FlameParams.concatenate([self._frames[(i + 7 * session) % count] for session in range(case.sessions)])
            for i in range(count)
        ]

    def renderer(self, case: Case, device: str, graph: bool) -> Renderer | BatchRenderer:
        """Raises ``DeviceError`` if it does not fit."""
        avatar, camera = self.avatar(case), zoomed(self._avatar.camera, case.zoom)
        if not case.sessions:
            return Renderer(avatar, size=case.size, device=device, camera=camera, graph=graph)
        sessions, cameras = [0] * case.sessions, [camera] * case.sessions
        return BatchRenderer([avatar], sessions, size=case.size, device=device, cameras=cameras, graph=graph)


def measure(
    scene: Scene, device: str, rows: Sequence[Case], seconds: float, progress: Callable[[Case], None], graph: bool
) -> Iterator[Row | Skipped]:
    """Measure every case for ``seconds`` and at least FRAMES frames. ``graph`` False: launched stage by stage."""
    for case in rows:
        progress(case)
        try:
            yield _row(case, scene, device, seconds, graph)
        except DeviceError as problem:
            yield Skipped(case, " ".join(str(problem).split()))


def _row(case: Case, scene: Scene, device: str, seconds: float, graph: bool) -> Row:
    frames = scene.frames(case)
    coverage, visible = _first_frame(case, scene, device)
    renderer = scene.renderer(case, device, graph)
    draw_all(renderer, frames, max(WARM_UP, len(frames)), case.format)
    latency, host = _latency(renderer, frames, seconds, case.format)
    burst = max(50, FRAMES // max(1, case.sessions))
    bursts = [_burst(renderer, frames, burst, case.format) for _ in range(BURSTS)]
    memory, engine = renderer.memory, native_engine(renderer)
    constant, redrawn = engine.stage_bytes(0), int(engine.lost_frames)
    del renderer, engine  # a second one like it follows

    timed = scene.renderer(case, device, graph=False)
    stages = stage_medians(timed, frames, STAGE_FRAMES, case.format)
    vertices = len(scene.avatar(case).rig.template)
    moved = stage_bytes(case, constant, vertices, visible, coverage)
    gpu = Gpu(
        host=1000 * float(np.median(host)),
        throughput=float(np.median(bursts)),
        longest=float(latency.max()),
        redrawn=redrawn,
        visible=visible,
        bytes=moved,
    )
    return summary(case, latency, memory, coverage, stages, gpu)


def _first_frame(case: Case, scene: Scene, device: str) -> tuple[float, float]:
    """The share of the first frame that the person covers more than half, and how many Gaussians are visible."""
    camera = zoomed(scene.avatar(case).camera, case.zoom)
    renderer = Renderer(scene.avatar(case), size=case.size, device=device, camera=camera)
    layers = renderer.render_layers(scene.frames(case)[0][0])
    return float((layers.alpha > 0.5).mean()), float(renderer.splats()["visible"].sum())


def draw_all(
    renderer: Renderer | BatchRenderer, frames: Sequence[FlameParams], count: int, format: str = "rgb"
) -> None:
    """Draw ``count`` frames, waiting for each."""
    for i in range(count):
        renderer.draw(frames[i % len(frames)], format=_format(format)).wait()


def _latency(
    renderer: Renderer | BatchRenderer, frames: Sequence[FlameParams], seconds: float, format: str
) -> tuple[Float64, Float64]:
    """Milliseconds of whole frames, and of the calls of ``draw`` alone."""
    whole: list[float] = []
    submitting: list[float] = []
    end, kind = time.perf_counter() + seconds, _format(format)
    while len(whole) < FRAMES or time.perf_counter() < end:
        params = frames[len(whole) % len(frames)]
        start = time.perf_counter()
        frame = renderer.draw(params, format=kind)
        submitted = time.perf_counter()
        frame.wait()
        whole.append(time.perf_counter() - start)
        submitting.append(submitted - start)
    return 1000 * np.array(whole), 1000 * np.array(submitting)


def _burst(renderer: Renderer | BatchRenderer, frames: Sequence[FlameParams], count: int, format: str) -> float:
    """Milliseconds per frame of ``count`` that are submitted before one wait."""
    kind = _format(format)
    start = time.perf_counter()
    for i in range(count):
        frame = renderer.draw(frames[i % len(frames)], format=kind)
    frame.wait()
    return 1000 * (time.perf_counter() - start) / count


def stage_medians(
    renderer: Renderer | BatchRenderer,
    frames: Sequence[FlameParams],
    count: int,
    format: str = "rgb",
    stream: int | None = None,
) -> dict[str, float]:
    """Median milliseconds of each stage, of a renderer with ``graph=False``, on a stream of its own or this one."""
    times: dict[str, list[float]] = {}
    warm_up = max(WARM_UP, len(frames))
    for i in range(warm_up + count):
        renderer.draw(frames[i % len(frames)], format=_format(format), stream=stream).wait()
        if i >= warm_up:
            for name, value in renderer.stage_times().items():
                times.setdefault(name, []).append(value)
    return {name: float(np.median(values)) for name, values in times.items()}


def stage_bytes(
    case: Case, constant: dict[str, int], vertices: int, visible: float, coverage: float
) -> dict[str, float]:
    """Bytes that each stage is known to move per frame of all sessions, each byte counted once.

    Args:
        case: what is drawn.
        constant: what no frame changes, by the engine: an upper limit, for groups that face away are not read.
        vertices: of the mesh; posed ones are written by one stage and read by the next.
        visible: splats of a session, written by one stage and read by the next.
        coverage: share of the picture for which no background is read.

    The tiles' lists are left out: their length is not known here.
    """
    pixels = case.size[0] * case.size[1] * BYTES_PER_PIXEL[case.format]
    posed, splats = POSED_BYTES * vertices, SPLAT_BYTES * visible
    session = {
        "skin": constant["skin"] + posed,
        DEFORM: constant["deform"] + posed + splats,
        RASTERIZE: splats + pixels * (1 + (1 - coverage)),
    }
    return {name: value * max(1, case.sessions) for name, value in session.items()}


def floor(moved: float, bandwidth: float) -> float:
    """Milliseconds that ``moved`` bytes take at ``bandwidth`` GB/s."""
    return moved / (bandwidth * 1e6)


def native_engine(renderer: Renderer | BatchRenderer) -> Any:
    """The native object behind a renderer on CUDA."""
    backend: Any = renderer._cuda if isinstance(renderer, BatchRenderer) else renderer._backend
    return backend.engine


def _format(name: str) -> Format:
    if name == "rgb":
        return "rgb"
    if name == "nv12":
        return "nv12"
    if name == "rgba":
        return "rgba"
    raise InvalidParameterError(f"format must be 'rgb', 'rgba' or 'nv12', got {name!r}")
