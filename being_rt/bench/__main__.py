"""``python -m being_rt.bench``: how fast frames are drawn here, by stage, and whether they are the right frames.

Exit codes: 0; 1 if the picture guard failed or, with --compare, a row got slower by more than the noise and the
threshold; 2 for wrong input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from being_rt.bench import measure, report
from being_rt.bench.environment import environment, peak_memory_megabytes
from being_rt.errors import BeingError, InvalidParameterError
from being_rt.files import check_target
from being_rt.renderer import usable_cores

SECONDS = {"quick": 0.5, "default": 1.2, "full": 4.0}
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
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--quick", action="store_const", const="quick", dest="level", help="two rows, a few seconds")
    level.add_argument("--full", action="store_const", const="full", dest="level", help="many sizes, some minutes")
    parser.set_defaults(level="default")
    parser.add_argument("--avatar", default="ada", help="a .being file or a preset's name (default: ada)")
    parser.add_argument("--size", action="append", metavar="WxH", help="only this size (repeatable)")
    parser.add_argument("--gaussians", action="append", metavar="N", help="only this many, like 60k (repeatable)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="at most this many (default: all cores)")
    parser.add_argument("--seconds", type=float, help="measured time per row")
    parser.add_argument("--no-guard", action="store_true", help="do not compare pictures with the reference")
    parser.add_argument("--json", metavar="FILE", help="write the result to this file")
    parser.add_argument("--compare", metavar="FILE", help="judge this run against an earlier --json file")
    parser.add_argument("--threshold", type=float, default=0.10, help="slowdown that fails --compare (default: 0.10)")
    return parser


def _run(options: argparse.Namespace) -> int:
    from being_rt.audio.demo import demo_line
    from being_rt.jobs import open_avatar
    from being_rt.motion.driver import drive
    from being_rt.motion.viseme_driver import VisemeDriver

    if not 1 <= options.threads <= 1024:
        raise InvalidParameterError(f"--threads must be 1..1024, got {options.threads}")
    if options.json:
        check_target(options.json)
    before = report.load(options.compare) if options.compare else None
    facts = environment()
    for name, value in facts.items():
        print(f"{name:>16}  {value}")

    avatar = open_avatar(options.avatar)
    sound, sample_rate, _ = demo_line()
    motion = drive(VisemeDriver(avatar.rig.expression_map, fps=25), sound, sample_rate)
    print(f"{'scene':>16}  {avatar.name}, {len(motion)} frames of speech, whole frames to RGB\n", flush=True)

    seconds = SECONDS[options.level] if options.seconds is None else options.seconds
    rows = list(measure.measure(avatar, motion, _cases(options, avatar), seconds, _show))
    _show(None)
    peak_memory = peak_memory_megabytes()  # before the guard, whose PyTorch would count
    print(report.table(rows))
    print("\nmedian ms by stage\n" + report.stage_table(rows))
    if peak_memory is not None:
        print(f"\npeak memory of the process: {peak_memory:.0f} MB", flush=True)
    guard = measure.Guard(reason="--no-guard")
    if not options.no_guard:
        guard = measure.guard(avatar, motion, GUARD_FRAMES[options.level])
    print(report.guard_line(guard))
    result = report.Result(facts, avatar.name, rows, guard, peak_memory)
    if options.json:
        report.save(result, options.json)
    failed = not guard.passed
    if before is not None:
        failed |= _compare(before, result, options.threshold)
    return int(failed)


def _cases(options: argparse.Namespace, avatar: measure.Avatar) -> list[measure.Case]:
    from being_rt.jobs import parse_size

    chosen = measure.cases(avatar, options.threads, options.level)
    if options.size or options.gaussians:
        sizes = [parse_size(size) for size in options.size or ["1920x1080"]]
        own = avatar.head.gaussians.count + avatar.torso.gaussians.count
        counts = measure.parse_counts(options.gaussians) if options.gaussians else [own]
        chosen = [measure.Case(size, count, options.threads) for size in sizes for count in counts]
    return chosen


def _show(case: measure.Case | None) -> None:
    """What is being measured, on a terminal only, in one line that the next one overwrites."""
    if sys.stderr.isatty():
        text = "" if case is None else f"measuring {case.size[0]}x{case.size[1]}, {case.gaussians} Gaussians"
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
