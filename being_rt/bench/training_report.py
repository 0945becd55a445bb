"""What was measured of training, as tables and as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from being_rt.bench.training import Row, Skipped
from being_rt.bench.training_profile import Profile
from being_rt.files import atomic_write

FORMAT_VERSION = 1
SHOWN = 8  # kernels
FOOTNOTE = """\
steps/s, images/s: by the wall clock, everything included but evaluations and checkpoints; step: median over blocks of
steps. nodes ms: what the kernels, copies and fills of a step's CUDA graph take, added up; on the CPU the stages, added
up. memory: the most that PyTorch held, the training frames among it. By stage: steps taken line by line."""
CPU_FOOTNOTE = """\
These are rates of the CPU, which trains slowly; docs/training.md says what it is for. By stage: time of PyTorch's
operators without what they call: an operation's own code is in it, the Python between most operators is not."""


@dataclass(frozen=True)
class Result:
    """A run of the training bench."""

    environment: dict[str, str]
    avatar: str
    rows: list[Row]
    skipped: list[Skipped] = field(default_factory=list)


def table(rows: Sequence[Row], skipped: Sequence[Skipped] = ()) -> str:
    """The rows, a line each, and what could not be trained."""
    head = (
        f"{'size':>10} {'crops':>8} {'Gaussians':>9} {'torso':>6} {'covered':>7} {'batch':>5} | {'steps/s':>8} "
        f"{'images/s':>8} | {'step ms':>8} {'noise':>6} | {'nodes ms':>8} {'nodes':>5} | {'memory':>8} {'frames':>8}"
    )
    lines = [head, "-" * len(head)]
    for row in rows:
        case = row.case
        size = f"{case.size[0]}x{case.size[1]}"
        busy = "/".join(f"{profile.busy:.3f}" for profile in row.profiles) or "-"
        nodes = "/".join(f"{sum(profile.nodes.values()):.0f}" for profile in row.profiles if profile.nodes) or "-"
        lines.append(
            f"{size:>10} {case.crops:>8} {row.head + row.torso:>9} {row.torso:>6} {row.coverage:>7.0%} "
            f"{case.batch:>5} | {row.steps_per_second:>8.2f} {row.images_per_second:>8.1f} | "
            f"{row.step:>8.3f} {row.noise:>6.1%} | {busy:>8} {nodes or '-':>5} | "
            f"{_megabytes(row.reserved)} {_megabytes(row.frames)}"
        )
    lines += [f"skipped: {skip.case.name}: {skip.reason}" for skip in skipped]
    return "\n".join(lines)


def stage_table(row: Row) -> str:
    """Milliseconds of a step's stages, and the kernels that take longest, of every view."""
    return "\n\n".join(f"{row.case.name}: {profile.view}\n{_profile_table(profile)}" for profile in row.profiles)


def _profile_table(profile: Profile) -> str:
    head = f"{'stage':>16} {'forward':>9} {'backward':>9} {'share':>6} {'launches':>8}"
    lines = [head, "-" * len(head)]
    stages = profile.stages.values()
    total = max(sum(stage.total for stage in stages), 1e-12)
    for name, stage in profile.stages.items():
        share = stage.total / total
        lines.append(f"{name:>16} {stage.forward:>9.4f} {stage.backward:>9.4f} {share:>6.1%} {stage.launches:>8.1f}")
    forward, backward = sum(stage.forward for stage in stages), sum(stage.backward for stage in stages)
    launches = sum(stage.launches for stage in stages)
    lines.append(f"{'sum':>16} {forward:>9.4f} {backward:>9.4f} {'':>6} {launches:>8.1f}")
    if profile.nodes:
        nodes = ", ".join(f"{number:.0f} {kind}" for kind, number in profile.nodes.items())
        lines.append(f"{'graph':>16} {nodes}: {profile.busy:.4f} ms; {profile.around:.1f} launches around it")
    for kernel in profile.kernels[:SHOWN]:
        by = f" by {kernel.operator}" if kernel.operator not in ("", kernel.name) else ""
        lines.append(f"{kernel.milliseconds:>16.4f} ms, {kernel.launches:g}x {kernel.name}{by} ({kernel.stage})")
    return "\n".join(lines)


def _megabytes(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:>5.0f} MB"


def save(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result as JSON. Raises ``FileFormatError`` where that is not possible."""
    document = {"format": FORMAT_VERSION, "kind": "training", **asdict(result)}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
