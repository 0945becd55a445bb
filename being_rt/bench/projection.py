"""What a smaller GPU would need for a frame, from stages measured on as many multiprocessors of a larger one.

Only a projection: it says what to expect before anybody has measured there, with every assumption printed.
"""

from __future__ import annotations

from dataclasses import dataclass

from being_rt.bench.cuda import (
    FRAMES,
    Scene,
    close_up,
    device_index,
    floor,
    native,
    native_engine,
    stage_bytes,
    stage_medians,
)
from being_rt.bench.measure import zoomed
from being_rt.errors import DeviceError
from being_rt.renderer import Renderer

H200_CLOCK = 1.98  # GHz; `nvidia-smi -q -d CLOCK`, Max Clocks: SM 1980 MHz
LAUNCH = 2.0  # microseconds that a kernel waits for the one before it; our estimate, not measured
COUNTS = (50_000, 100_000)


@dataclass(frozen=True)
class Target:
    """A GPU that is not here."""

    title: str
    multiprocessors: int
    clock: float  # GHz, boost
    bandwidth: float  # GB/s
    source: str


TARGETS = {
    "rtx-4070-super": Target(
        "GeForce RTX 4070 Super",
        56,
        2.475,
        504.0,
        "NVIDIA's product page: 7168 CUDA cores (56 x 128), boost 2.48 GHz, GDDR6X, 192 bits at 21 Gbit/s",
    ),
}


@dataclass(frozen=True)
class Stage:
    """A stage of a frame, in milliseconds."""

    name: str
    measured: float  # here, on the target's number of multiprocessors
    compute: float  # the same at the target's clock
    memory: float  # what its known bytes take at the target's bandwidth
    launch: float

    @property
    def total(self) -> float:
        """The slower of the two, and the launch."""
        return max(self.compute, self.memory) + self.launch


def project(measured: dict[str, float], moved: dict[str, float], target: Target) -> list[Stage]:
    """Carry measured stages over to the target.

    Args:
        measured: milliseconds by stage, on the target's number of multiprocessors of this device.
        moved: known bytes by stage; none is 0.
        target: the GPU that is not here.
    """
    return [
        Stage(
            name,
            value,
            value * H200_CLOCK / target.clock,
            floor(moved.get(name, 0.0), target.bandwidth),
            LAUNCH / 1000,
        )
        for name, value in measured.items()
    ]


def target_of(name: str, device: str) -> Target:
    """The target, once it is sure that the device can stand in for it. Raises ``DeviceError``."""
    target = TARGETS[name]
    if device == "cpu":
        raise DeviceError(f"--project {name} measures on a CUDA device; the CPU cannot stand in for a GPU")
    facts = native().cuda_devices()[device_index(device)]
    if facts["multiprocessors"] <= target.multiprocessors:
        raise DeviceError(
            f"--project {name} needs a GPU of more than {target.multiprocessors} multiprocessors, "
            f"{facts['name']} has {facts['multiprocessors']}"
        )
    return target


def measure(scene: Scene, device: str, target: Target, gaussians: int) -> tuple[list[Stage], int]:
    """A 1080p close-up's stages for the target, and how many multiprocessors they were measured on."""
    case = close_up(gaussians)
    avatar, frames = scene.avatar(case), scene.frames(case)
    part = native().CudaPartition(target.multiprocessors, device_index(device))
    camera = zoomed(avatar.camera, case.zoom)
    renderer = Renderer(avatar, size=case.size, device=device, camera=camera, graph=False)
    coverage = float((renderer.render_layers(frames[0]).alpha > 0.5).mean())
    visible = float(renderer.splats()["visible"].sum())
    measured = stage_medians(renderer, frames, FRAMES, stream=part.stream)
    moved = stage_bytes(case, native_engine(renderer).stage_bytes(0), len(avatar.rig.template), visible, coverage)
    count = int(part.multiprocessors)
    del renderer  # before the stream that they drew on
    return project(measured, moved, target), count


def assumptions(target: Target, device_name: str, multiprocessors: int) -> str:
    """What the figures rest on, a line each."""
    return "\n".join(
        [
            f"projection: {target.title} from {device_name}",
            f"  measured: stages one by one on {multiprocessors} multiprocessors of {device_name}",
            f"  clocks: {H200_CLOCK:.2f} GHz here (an H200's largest; other GPUs: edit it) to {target.clock:.3f} there",
            f"  there: {target.source}",
            f"  a stage: the larger of its time scaled by clocks and its known bytes at {target.bandwidth:.0f} GB/s, "
            f"plus {LAUNCH:.0f} us of launch (an estimate)",
            "  the same for both is assumed: work per multiprocessor and clock (tensor cores of an H200 do more,",
            "  for they are larger), shared memory (228 KB here, 100 KB there), resident warps (64, 48),",
            "  hits in a second-level cache of about the same size; the host is not in it",
        ]
    )


def table(gaussians: int, stages: list[Stage]) -> str:
    """The stages in ms, and their sum."""
    total = sum(stage.total for stage in stages)
    head = f"{'stage':>26} {'measured':>9} {'compute':>9} {'memory':>9} {'launch':>9} {'total':>9} ms"
    lines = [f"1920x1080 close-up, {gaussians} Gaussians", head, "-" * len(head)]
    lines += [
        f"{stage.name:>26} {stage.measured:>9.4f} {stage.compute:>9.4f} {stage.memory:>9.4f} {stage.launch:>9.4f} "
        f"{stage.total:>9.4f}"
        for stage in stages
    ]
    lines.append(f"{'frame':>26} {sum(stage.measured for stage in stages):>9.4f} {'':>29} {total:>9.4f}")
    if total > 0:
        lines.append(f"projected: {total:.3f} ms, {1000 / total:.0f} frames per second")
    return "\n".join(lines)
