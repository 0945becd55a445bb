"""``python -m bench.quality``: how good avatars become, preset by preset, on the same frames, masks, tracks and split.

For each identity a data set is rendered from a known avatar (being_rt.dataset.synth: capture-like motion, sensor noise,
a tracker's errors), or a data set is taken as it is. Every preset is trained on it, for the same time or for its own
steps, and judged on what it has not seen: other expressions, and other sides of the head. What was trained is exported,
drawn by the engine and timed.

DIR gets quality.md, quality.json, sheets of pictures, the data sets and the avatars. Runs that it has already are not
done again, so that a long bench can be done in parts.

    python -m bench.quality --identities ada marcus --presets being rgbavatar --seconds 60 --out results
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from being_rt.bench.environment import environment
from being_rt.dataset import Dataset
from being_rt.dataset.synth import Synthesize
from being_rt.dataset.synth_tracking import TrackingErrors
from being_rt.errors import BeingError, InvalidParameterError
from being_rt.train.config import TrainConfig
from being_rt.train.distributed import Group, join
from being_rt.train.presets import PRESETS, preset
from bench.quality_report import earlier_rows, markdown, write_results, write_sheets
from bench.quality_runs import Row, measured

TRACKS: dict[str, TrackingErrors] = {
    "realistic": TrackingErrors(),
    "head-only": TrackingErrors(head_only=True),
    "perfect": TrackingErrors.none(),
}


@dataclass(frozen=True)
class Options:
    """What all runs of a bench have in common: rows are comparable where these agree."""

    size: str = "512x512"
    frames: int = 750
    track: str = "realistic"
    seconds: float = 60.0  # of training; 0: no limit
    steps: int = 0  # at most; 0: the preset's own
    seed: int = 0
    fit: bool = False  # judge held-out frames with their track fitted to them as well
    overrides: tuple[str, ...] = ()  # "model.head_gaussians=5000", in every preset's configuration


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge, write, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", nargs="+", default=["ada"], help="demo people, .being files or data sets")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help=f"of {', '.join(PRESETS)}; default: all")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60.0, help="of training per run; 0: no limit (default: 60)")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0: the preset's own (default)")
    parser.add_argument("--size", default="512x512", metavar="WxH", help="of rendered data sets")
    parser.add_argument("--frames", type=int, default=750, help="of rendered data sets, test frames included")
    parser.add_argument("--track", default="realistic", choices=list(TRACKS), help="errors of rendered data sets")
    parser.add_argument("--fit", action="store_true", help="judge held-out frames with fitted tracks as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="its weights; without them LPIPS is not measured")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="in every preset's configuration")
    given = parser.parse_args(arguments)
    options = Options(
        size=given.size,
        frames=given.frames,
        track=given.track,
        seconds=given.seconds,
        steps=given.steps,
        seed=given.seed,
        fit=given.fit,
        overrides=tuple(given.set),
    )
    try:
        with join(given.device) as group:
            print(markdown(run(given.identities, given.presets, options, given.out, group, given.lpips)))
    except BeingError as error:
        print(f"quality: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def run(
    identities: Sequence[str],
    presets: Sequence[str],
    options: Options,
    out: Path,
    group: Group,
    lpips: Path | None = None,
) -> list[Row]:
    """Do what is not done yet, and write table and JSON after every run, sheets after every identity.

    Raises:
        InvalidParameterError: an option that cannot be, or ``out`` holds results of other options.
    """
    configurations = {name: configuration(name, options) for name in presets}  # a wrong option costs no time
    shared = asdict(options)
    rows = earlier_rows(out / "quality.json", shared)
    facts = environment(str(group.device))
    for identity in identities:
        dataset = prepared(identity, options, out, group)
        for name, config in configurations.items():
            if any((row.identity, row.preset) == (dataset.name, name) for row in rows):
                continue
            print(f"training {dataset.name}, {name}", file=sys.stderr)
            folder = out / "runs" / f"{dataset.name}-{name}"
            rows.append(measured(dataset, name, config, folder, group, lpips, options.fit))
            write_results(out, rows, shared, facts)
        write_sheets(dataset, [row.preset for row in rows if row.identity == dataset.name], out)
    return rows


def configuration(name: str, options: Options) -> TrainConfig:
    """A preset's configuration with the bench's options; evaluations and checkpoints wait for the end of the run.

    Raises:
        InvalidParameterError: an unknown preset, a name that no configuration has, or a value that it cannot take.
    """
    values = json.loads(preset(name).to_json())
    values["schedule"] |= {"seconds": options.seconds, "evaluate_interval": 0, "checkpoint_seconds": 0.0}
    values["schedule"]["steps"] = min(values["schedule"]["steps"], options.steps or values["schedule"]["steps"])
    values["seed"] = options.seed
    for override in options.overrides:
        path, _, text = override.partition("=")
        *groups, last = path.split(".")
        record = values
        for part in groups:
            record = record.get(part) if isinstance(record.get(part), dict) else {}
        if last not in record:
            raise InvalidParameterError(f"--set {override}: a configuration has no {path!r}")
        try:
            record[last] = json.loads(text)
        except ValueError:  # a word
            record[last] = text
    return TrainConfig.from_json(json.dumps(values))


def prepared(identity: str, options: Options, out: Path, group: Group) -> Dataset:
    """The data set of an identity: the one of that name, or one that is rendered, once, into ``out``/data."""
    if (Path(identity) / "dataset.json").exists():
        return Dataset.load(identity)
    folder = out / "data"
    path = folder / f"{Path(identity).stem}-{options.size}-{options.frames}-{options.track}-{options.seed}"
    if not path.exists():
        print(f"rendering {path.name}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        job = Synthesize(
            avatar=identity,
            out=path,
            frames=options.frames,
            size=options.size,
            tracking=TRACKS[options.track],
            seed=options.seed,
            device=str(group.device),
        )
        job.run()
    return Dataset.load(path)


if __name__ == "__main__":
    sys.exit(main())
