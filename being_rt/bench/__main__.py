"""``python -m being_rt.bench``: how fast frames are drawn here, by stage, and whether they are the right frames.

With --training: how fast avatars are trained. With --cloning: how long it takes from a video to an avatar that talks.

Exit codes: 0; 1 if the picture guard failed or, with --compare, a row got slower by more than the noise and the
threshold; 2 for wrong input or a device that failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from being_rt.bench import cuda, measure, projection, report
from being_rt.bench.environment import environment, peak_memory_megabytes
from being_rt.errors import BeingError, DeviceError, InvalidParameterError, MissingDependencyError
from being_rt.files import check_target
from being_rt.parallel import usable_cores
from being_rt.renderer import MOST_SESSIONS

SECONDS = {"quick": 0.5, "default": 1.2, "full": 4.0}
CUDA_SECONDS = {"quick": 0.3, "default": 0.5, "full": 1.0}  # and at least 500 frames
DRAWING_ONLY = ("threads", "seconds", "sessions", "no_graph", "profile", "project", "compare", "no_guard")  # options
GUARD_FRAMES = {"quick": 1, "default": 2, "full": 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench as the command line says and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except BeingError as error:
        print(f"bench: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m being_rt.bench",
        description="Measures whole frames, FLAME parameters in and 8-bit pixels out, by wall clock, over real motion.",
        epilog="Part of it alone: python -m being_rt.bench.offset_mlp times the offset network of FlashAvatar, beside "
        "PyTorch. From a checkout, bench/peers.py times other rasterizers on the same Gaussians.",
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_const", const="quick", dest="level", help="two rows, a few seconds")
    level.add_argument("--full", action="store_const", const="full", dest="level", help="many sizes, some minutes")
    parser.set_defaults(level="default")
    parser.add_argument("--avatar", default="ada", help="a .being file or a preset's name (default: ada)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (auto: a GPU where it can)")
    parser.add_argument("--size", action="append", metavar="WxH", help="only this size (repeatable)")
    parser.add_argument("--gaussians", action="append", metavar="N", help="only this many, like 60k (repeatable)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="at most this many (default: all cores)")
    parser.add_argument("--seconds", type=float, help="measured time per row")
    parser.add_argument("--sessions", action="append", type=int, metavar="N", help="CUDA: so many at once (repeatable)")
    parser.add_argument("--no-graph", action="store_true", help="CUDA: launch stage by stage, for profilers")
    parser.add_argument("--profile", type=int, metavar="N", help="draw N frames of the first row and nothing else")
    parser.add_argument(
        "--project",
        choices=sorted(projection.TARGETS),
        help="what a smaller GPU would need, from a part of this one",
    )
    making = parser.add_mutually_exclusive_group()
    making.add_argument("--training", action="store_true", help="measure training: steps, stages, memory")
    making.add_argument("--cloning", action="store_true", help="measure a clone, from a video to an avatar that talks")
    parser.add_argument(
        "--batch", action="append", type=int, metavar="N", help="--training: frames a step (repeatable)"
    )
    parser.add_argument("--crops", choices=("auto", "whole", "foveated"), help="--training: parts of frames (whole)")
    parser.add_argument("--steps", type=int, metavar="N", help="--training: measured per row; --cloning: of training")
    parser.add_argument("--video", metavar="FILE", help="--cloning: whom to clone, instead of a demo person")
    parser.add_argument("--no-guard", action="store_true", help="do not compare pictures with the reference")
    parser.add_argument("--json", metavar="FILE", help="write the result to this file")
    parser.add_argument("--compare", metavar="FILE", help="judge this run against an earlier --json file")
    parser.add_argument("--threshold", type=float, default=0.10, help="slowdown that fails --compare (default: 0.10)")
    return parser


def _run(options: argparse.Namespace) -> int:
    from being_rt.audio.demo import demo_line
    from being_rt.jobs import chosen_device, open_avatar
    from being_rt.motion.driver import drive
    from being_rt.motion.viseme_driver import VisemeDriver

    if options.training:
        return _train(options)
    if options.cloning:
        return _clone(options)
    if options.batch or options.crops or options.steps is not None:
        raise InvalidParameterError("--batch, --crops and --steps are of --training")
    if options.video:
        raise InvalidParameterError("--video is of --cloning")
    if not 1 <= options.threads <= 1024:
        raise InvalidParameterError(f"--threads must be 1..1024, got {options.threads}")
    device = chosen_device(options.device)
    _check_cuda_options(options, device)
    target = projection.target_of(options.project, device) if options.project else None
    if options.json:
        check_target(options.json)
    before = report.load(options.compare) if options.compare else None
    facts, bandwidth = {}, None
    if options.profile is None:
        facts = environment(device)
        if device != "cpu":
            bandwidth = cuda.copy_bandwidth(device)
            facts["copy bandwidth"] = f"{bandwidth:.0f} GB/s"
        for name, value in facts.items():
            print(f"{name:>16}  {value}")

    avatar = open_avatar(options.avatar)
    sound, sample_rate, _ = demo_line()
    motion = drive(VisemeDriver(avatar.rig.expression_map, fps=25), sound, sample_rate)
    chosen = _cases(options, avatar, device)
    if options.profile is not None:
        return _profile(options, avatar, motion, chosen[0], device)
    print(f"{'scene':>16}  {avatar.name}, {len(motion)} frames of speech, whole frames to RGB\n", flush=True)
    if target is not None:
        return _project(options, cuda.Scene(avatar, motion), device, target, facts["GPU"])

    skipped: list[cuda.Skipped] = []
    if bandwidth is None:
        seconds = SECONDS[options.level] if options.seconds is None else options.seconds
        rows = list(measure.measure(avatar, motion, chosen, seconds, _show))
    else:
        seconds = CUDA_SECONDS[options.level] if options.seconds is None else options.seconds
        scene = cuda.Scene(avatar, motion)
        measured = list(cuda.measure(scene, device, chosen, seconds, _show, not options.no_graph))
        rows = [row for row in measured if isinstance(row, measure.Row)]
        skipped = [row for row in measured if isinstance(row, cuda.Skipped)]
    _show(None)
    peak_memory = peak_memory_megabytes()  # before the guard, whose PyTorch would count
    if bandwidth is None:
        print(report.table(rows))
        print("\nmedian ms by stage\n" + report.stage_table(rows))
    else:
        print(report.cuda_table(rows, skipped))
        print("\nmedian ms by stage\n" + report.cuda_stage_table(rows, bandwidth) + "\n" + report.FOOTNOTE)
    if peak_memory is not None:
        print(f"\npeak memory of the process: {peak_memory:.0f} MB", flush=True)
    guard = measure.Guard(reason="--no-guard")
    if not options.no_guard:
        guard = measure.guard(avatar, motion, GUARD_FRAMES[options.level], device)
    print(report.guard_line(guard))
    result = report.Result(facts, avatar.name, rows, guard, peak_memory, skipped, bandwidth)
    if options.json:
        report.save(result, options.json)
    failed = not guard.passed
    if before is not None:
        failed |= _compare(before, result, options.threshold)
    return int(failed)


def _check_cuda_options(options: argparse.Namespace, device: str) -> None:
    """Raises for what only a CUDA device can do, and for values that nothing can."""
    for name in ("no_graph", "sessions"):
        if device == "cpu" and getattr(options, name):
            raise DeviceError(f"--{name.replace('_', '-')} needs a CUDA device; this runs on the CPU")
    for sessions in options.sessions or []:
        if not 1 <= sessions <= MOST_SESSIONS:
            raise InvalidParameterError(f"--sessions must be 1..{MOST_SESSIONS}, got {sessions}")
    if options.profile is not None and options.profile < 1:
        raise InvalidParameterError(f"--profile must be at least 1 frame, got {options.profile}")
    if options.profile is not None and (options.json or options.compare or options.project):
        raise InvalidParameterError("--profile draws and measures nothing: leave --json, --compare and --project out")


def _profile(
    options: argparse.Namespace, avatar: measure.Avatar, motion: measure.FlameParams, case: measure.Case, device: str
) -> int:
    """Draw frames for a profiler to watch."""
    scene = cuda.Scene(avatar, motion)
    frames = scene.frames(case)
    if device == "cpu":
        camera = measure.zoomed(avatar.camera, case.zoom)
        renderer = measure.Renderer(scene.avatar(case), size=case.size, threads=case.threads, camera=camera)
        for i in range(options.profile):
            renderer.render(frames[i % len(frames)])
    else:
        cuda.draw_all(scene.renderer(case, device, not options.no_graph), frames, options.profile, case.format)
    print(f"{options.profile} frames: {case.name}")
    return 0


def _project(
    options: argparse.Namespace, scene: cuda.Scene, device: str, target: projection.Target, device_name: str
) -> int:
    """Print what the target would need."""
    counts = measure.parse_counts(options.gaussians) if options.gaussians else projection.COUNTS
    results = [(count, *projection.measure(scene, device, target, count)) for count in counts]
    print(projection.assumptions(target, device_name, results[0][2]))
    for count, stages, _ in results:
        print("\n" + projection.table(count, stages))
    return 0


def _train(options: argparse.Namespace) -> int:
    """Measure training, in a module of its own: it needs PyTorch."""
    _refuse(options, "--training", *DRAWING_ONLY, "video")
    from being_rt.bench.training_command import run

    return run(options)


def _clone(options: argparse.Namespace) -> int:
    """Measure cloning, likewise."""
    _refuse(options, "--cloning", *DRAWING_ONLY, "gaussians", "batch", "crops")
    from being_rt.bench.cloning import run

    return run(options)


def _refuse(options: argparse.Namespace, part: str, *names: str) -> None:
    """Raises for options that a part of the bench does not have, and without PyTorch, which it needs."""
    for name in names:
        if getattr(options, name) != _parser().get_default(name):
            raise InvalidParameterError(f"--{name.replace('_', '-')} is not of {part}")
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("training needs PyTorch; install it with: pip install 'being_rt[train]'")


def _cases(options: argparse.Namespace, avatar: measure.Avatar, device: str) -> list[measure.Case]:
    from being_rt.jobs import parse_size

    own = measure.gaussian_count(avatar)
    sizes = [parse_size(size) for size in options.size] if options.size else [measure.FULL_SIZE]
    counts = measure.parse_counts(options.gaussians) if options.gaussians else [own]
    if device != "cpu":
        if not (options.size or options.gaussians or options.sessions):
            return cuda.cases(avatar, options.level)
        batches = options.sessions or [0]
        return [cuda.close_up(count, size, batch) for size in sizes for count in counts for batch in batches]
    if options.size or options.gaussians:
        return [measure.Case(size, count, options.threads) for size in sizes for count in counts]
    return measure.cases(avatar, options.threads, options.level)


def _show(case: measure.Case | None) -> None:
    """What is being measured, on a terminal only, in one line that the next one overwrites."""
    if sys.stderr.isatty():
        text = ""
        if case is not None:
            text = f"measuring {case.size[0]}x{case.size[1]}, {case.gaussians} Gaussians"
            text += f", {case.sessions} sessions" if case.sessions else ""
        print(f"\r{text:60}\r", end="", file=sys.stderr, flush=True)


def _compare(before: report.Result, after: report.Result, threshold: float) -> bool:
    """Print the comparison; whether something got worse that can be compared."""
    compared = report.verdicts(before, after, threshold)
    print(f"\nagainst {before.environment.get('commit')} of {before.environment.get('date')}")
    print(report.verdict_table(compared) or "no row in common")
    if different := report.differences(before, after):
        print("warning: the runs cannot be compared, so nothing counts as a regression:")
        print("\n".join(f"  {line}" for line in different))
        return False
    return any(verdict.regression for verdict in compared)


if __name__ == "__main__":
    sys.exit(main())
