"""``python -m being_rt.bench --training``: measures and prints. Under torchrun, of several GPUs at once."""

from __future__ import annotations

import argparse
import sys

from being_rt.bench import measure, training, training_report
from being_rt.bench.environment import environment
from being_rt.files import check_target
from being_rt.jobs import parse_size
from being_rt.train.distributed import join


def run(options: argparse.Namespace) -> int:
    """Do what the command line says; the exit code. Raises what :func:`being_rt.bench.training.measure` does."""
    if options.json:
        check_target(options.json)
    with join(options.device) as group:
        say = print if group.is_first else _say_nothing
        facts = environment(str(group.device)) | training.software(group)
        for name, value in facts.items():
            say(f"{name:>16}  {value}")
        on_cpu = group.device.type == "cpu"
        steps, warm_up = training.lengths(options.level, on_cpu)
        chosen = _cases(options, on_cpu)
        say(f"{'scene':>16}  {options.avatar}, {training.FRAMES} frames, whole steps of training\n", flush=True)
        measured = list(
            training.measure(
                chosen,
                group,
                avatar=options.avatar,
                steps=steps if options.steps is None else options.steps,
                warm_up=warm_up,
                progress=lambda case: say(f"measuring {case.name}", file=sys.stderr, flush=True),
            )
        )
        if not group.is_first:
            return 0
    rows = [row for row in measured if isinstance(row, training.Row)]
    skipped = [row for row in measured if isinstance(row, training.Skipped)]
    print("\n" + training_report.table(rows, skipped))
    for row in rows:
        print("\n" + training_report.stage_table(row))
    print("\n" + (training_report.CPU_FOOTNOTE if on_cpu else training_report.FOOTNOTE))
    if options.json:
        training_report.save(training_report.Result(facts, options.avatar, rows, skipped), options.json)
    return 0


def _cases(options: argparse.Namespace, on_cpu: bool) -> list[training.Case]:
    usual = training.cases("cpu" if on_cpu else "cuda", options.level)
    if not (options.size or options.gaussians or options.batch or options.crops):
        return usual
    sizes = [parse_size(size) for size in options.size] if options.size else [usual[0].size]
    counts = measure.parse_counts(options.gaussians) if options.gaussians else [usual[0].gaussians]
    batches = options.batch or [usual[0].batch]
    crops = options.crops or usual[0].crops
    return [training.Case(size, count, batch, crops) for size in sizes for count in counts for batch in batches]


def _say_nothing(*words: object, **how: object) -> None:
    """What ranks but the first have to say."""
