"""``python bench/peers.py``: other rasterizers and this renderer on the same Gaussians, in one run on one GPU.

A peer gets the avatar as it stands in one frame: means, quaternions, scales, opacities and colours in world space, on
the device beforehand, those that turn away and cannot be seen left out. So it draws one layer of Gaussians; it poses
nobody, evaluates no offsets, joins no layers. Ours is the whole frame, from FlameParams to 8-bit pixels, and beside it
its last two stages, which are nearest to what a peer does. Wall clock per frame with a wait after each, median.

Only what is installed is measured; the rest is named. gsplat (Apache-2.0): https://github.com/nerfstudio-project/gsplat
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Camera
from being_rt.bench.cuda import DEFORM, RASTERIZE, stage_medians
from being_rt.bench.measure import CLOSE_UP, parse_counts, zoomed
from being_rt.bench.scenes import with_count
from being_rt.errors import BeingError, DeviceError
from being_rt.files import check_target
from being_rt.flame.params import FlameParams
from being_rt.renderer import Renderer

Float32 = NDArray[np.float32]

COUNTS = ("50k", "100k", "1m")
WARM_UP = 30
FRAMES = 200
INVISIBLE = 1 / 255  # opacity below which no pixel changes


@dataclass(frozen=True)
class Gaussians:
    """Of a person in one frame, head's and torso's together, in world space."""

    means: Float32  # [N, 3] metres
    quaternions: Float32  # [N, 4] w, x, y, z
    scales: Float32  # [N, 3] metres
    opacities: Float32  # [N]
    colours: Float32  # [N, 3] 0..1


@dataclass(frozen=True)
class Row:
    """A renderer on a scene."""

    renderer: str
    gaussians: int  # that it was given
    milliseconds: float
    coverage: float  # share of the picture that the person covers more than half: the same scene must give the same


def posed(avatar: Avatar, params: FlameParams, camera: Camera) -> Gaussians:
    """The avatar's Gaussians in one frame, by the stages of being_rt.reference. ``camera`` fades what turns away."""
    import torch
    from scipy.spatial.transform import Rotation

    from being_rt import reference

    kind = torch.float32
    with torch.no_grad():
        motion = {name: torch.tensor(value[0]) for name, value in vars(params).items() if name != "fps"}
        rig = reference.tensors(avatar.rig, kind)
        head = rest_head = reference.GaussianTensors.of(avatar.head.gaussians, kind)
        torso = reference.GaussianTensors.of(avatar.torso.gaussians, kind)
        binding = reference.tensors(avatar.head, kind)
        angles = torch.cat([motion["rotation"], motion["neck"], motion["jaw"], motion["eyes"]]).reshape(5, 3)
        joints = reference.pose(rig["joint_rest"], rig["joint_expression"], motion["expression"], angles)
        vertices = reference.skin(rig, joints, motion["expression"], motion["eyelids"], motion["translation"])
        if avatar.network is not None:
            theta = reference.conditioning(motion["expression"], joints.rotations, motion["eyelids"])
            head = reference.deform(head, reference.network_offsets(reference.tensors(avatar.network, kind), theta))
        rest_frames = reference.triangle_frames(rig["template"], rig["faces"], rig["face_frames"])
        rest_mean = reference.bind_head(rest_head, rig["template"], rig["faces"], rest_frames, **binding).mean
        colour = reference.match(head.colour, torso.colour, rest_mean, torso.position, avatar.seam)
        torso = torso._replace(colour=colour)
        frames = reference.triangle_frames(vertices, rig["faces"], rig["face_frames"])
        carried = reference.tensors(avatar.torso, kind)
        bound = (
            reference.bind_head(head, vertices, rig["faces"], frames, **binding),
            reference.bind_torso(torso, carried["weights"], reference.torso_body(carried, motion, joints.transforms)),
        )
        view = torch.tensor(camera.world_to_camera, dtype=kind)
        opacity = [
            torch.sigmoid(layer.opacity_logit) * reference.facing_fade(place, layer.facing_fade, view)
            for layer, place in zip((head, torso), bound, strict=True)
        ]
        colours = torch.cat([head.colour, torso.colour]).clamp(0, 1).numpy()
        opacities = torch.cat(opacity).numpy()
        means = torch.cat([place.mean for place in bound]).numpy()
        factor = torch.cat([place.factor for place in bound]).double().numpy()
    seen = opacities >= INVISIBLE
    # M = U S V^T, so that the covariance M M^T = U S^2 U^T: a rotation U and scales S, whatever shear M has.
    turn, scales, _ = np.linalg.svd(factor[seen])
    turn[:, :, 2] *= np.sign(np.linalg.det(turn))[:, None]
    quaternions = np.roll(Rotation.from_matrix(turn).as_quat(), 1, axis=1)
    chosen = (means[seen], quaternions, scales, opacities[seen], colours[seen])
    return Gaussians(*(np.ascontiguousarray(array, np.float32) for array in chosen))


def ours(avatar: Avatar, params: FlameParams, camera: Camera, device: str, frames: int) -> list[Row]:
    """The whole frame, and its last two stages as events time them."""
    renderer = Renderer(avatar, size=camera.size, device=device, camera=camera)
    coverage = float((renderer.render_layers(params).alpha > 0.5).mean())
    count = avatar.head.gaussians.count + avatar.torso.gaussians.count
    whole = median_milliseconds(lambda: renderer.draw(params).wait(), frames)
    timed = Renderer(avatar, size=camera.size, device=device, camera=camera, graph=False)
    stages = stage_medians(timed, [params], frames)
    last = stages[DEFORM] + stages[RASTERIZE]
    return [
        Row("being_rt, whole frame to RGB8", count, whole, coverage),
        Row("being_rt, deform to composite", count, last, coverage),
    ]


def gsplat(scene: Gaussians, camera: Camera, antialiased: bool, device: str, frames: int) -> list[Row]:
    """gsplat's ``rasterization``, packed and not, to float RGB, and the faster of them on to RGB8.

    Raises ``ImportError`` with the reason where it, or PyTorch with CUDA, is not there.
    """
    import torch

    if not torch.cuda.is_available():
        raise ImportError("PyTorch has no CUDA device")
    from gsplat import rasterization

    def on_device(array: NDArray[Any]) -> torch.Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    arrays = [on_device(array) for array in vars(scene).values()]
    view, lens = on_device(camera.world_to_camera)[None], on_device(camera.intrinsics)[None]
    mode = "antialiased" if antialiased else "classic"

    def draw(packed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        colour, alpha, _ = rasterization(
            *arrays, view, lens, *camera.size, packed=packed, rasterize_mode=mode, near_plane=0.01
        )
        return colour, alpha

    def to_bytes(packed: bool) -> torch.Tensor:
        colour, alpha = draw(packed)
        return torch.addcmul(colour, 1 - alpha, plate).mul_(255).add_(0.5).clamp_(0, 255).byte()

    def synchronised(work: Callable[[bool], Any], packed: bool) -> Callable[[], None]:
        def run() -> None:
            work(packed)
            torch.cuda.synchronize(device)

        return run

    with torch.inference_mode(), torch.cuda.device(device):
        plate = torch.full((camera.size[1], camera.size[0], 3), 0.5, device=device)
        times = {packed: median_milliseconds(synchronised(draw, packed), frames) for packed in (True, False)}
        coverage = float((draw(False)[1] > 0.5).float().mean())
        faster = min(times, key=lambda packed: times[packed])
        bytes_too = median_milliseconds(synchronised(to_bytes, faster), frames)
    count = len(scene.means)
    return [
        Row("gsplat, packed, float RGB", count, times[True], coverage),
        Row("gsplat, not packed, float RGB", count, times[False], coverage),
        Row("gsplat, the faster, to RGB8", count, bytes_too, coverage),
    ]


def median_milliseconds(work: Callable[[], Any], frames: int) -> float:
    """Of ``frames`` calls, each of which ends with a wait."""
    times = []
    for i in range(WARM_UP + frames):
        start = time.perf_counter()
        work()
        if i >= WARM_UP:
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def table(rows: Sequence[Row]) -> str:
    """A line per renderer and scene."""
    head = f"{'renderer':>32} {'Gaussians':>10} {'ms':>8} {'fps':>7} {'covered':>8}"
    lines = [head, "-" * len(head)]
    lines += [
        f"{row.renderer:>32} {row.gaussians:>10} {row.milliseconds:>8.4f} {1000 / row.milliseconds:>7.0f} "
        f"{row.coverage:>8.2%}"
        for row in rows
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avatar", default="ada", help="a .being file or a preset's name (default: ada)")
    parser.add_argument("--gaussians", action="append", metavar="N", help="like 50k (repeatable)")
    parser.add_argument("--size", default="1920x1080", metavar="WxH")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N")
    parser.add_argument("--frames", type=int, default=FRAMES, help="measured per row")
    parser.add_argument("--json", metavar="FILE", help="write the rows to this file")
    try:
        return _run(parser.parse_args(arguments))
    except BeingError as error:
        print(f"peers: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from being_rt.audio.demo import demo_line
    from being_rt.jobs import chosen_device, open_avatar, parse_size
    from being_rt.motion.driver import drive
    from being_rt.motion.viseme_driver import VisemeDriver

    device = chosen_device(options.device)
    if device == "cpu":
        raise DeviceError("peers are compared on a CUDA device: --device cuda")
    if options.json:
        check_target(options.json)
    avatar = open_avatar(options.avatar)
    sound, sample_rate, _ = demo_line()
    motion = drive(VisemeDriver(avatar.rig.expression_map, fps=25), sound, sample_rate)
    params = motion[len(motion) // 2]
    camera = zoomed(avatar.camera, CLOSE_UP).resized(parse_size(options.size))

    rows: list[Row] = []
    missing: dict[str, str] = {}
    for count in parse_counts(options.gaussians or COUNTS):
        scene = with_count(avatar, count)
        rows += ours(scene, params, camera, device, max(1, options.frames))
        try:
            rows += gsplat(posed(scene, params, camera), camera, avatar.antialiased, device, max(1, options.frames))
        except (ImportError, OSError, RuntimeError) as problem:  # not there, or its native part does not load or build
            missing["gsplat"] = " ".join(str(problem).split())[:200]
    print(table(rows))
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    if options.json:
        document = {"size": options.size, "rows": [asdict(row) for row in rows], "missing": missing}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
