"""The command ``being``: parses, shows progress, and turns errors into one line and an exit code. No work of its own.

Exit codes: 0 done; 1 a check failed (``being doctor``, ``being data``); 2 wrong input, with one line on stderr;
130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Union

from being_rt.asset_jobs import FLAME_HELP, Assets
from being_rt.clone_jobs import Clone, Prepare, PreparedJob
from being_rt.dataset.synth import Synthesize
from being_rt.dataset_jobs import Check, Convert, Export
from being_rt.errors import BeingError, InvalidParameterError
from being_rt.jobs import Demo, FilePath, Render, Say, Size, Talk, VideoJob
from being_rt.portrait_jobs import ClonePortrait
from being_rt.record_guide import RecordGuide
from being_rt.train.config import TrainConfig
from being_rt.train_jobs import Train

try:
    import tyro
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text
except ImportError:
    print('being: the command line needs its extra: pip install "being_rt[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from being_rt.dataset.check import CheckReport
    from being_rt.doctor import Finding

DESCRIPTION = """being_rt: speech in, full-frame video of a person out, in real time.

`being demo` needs no arguments and no files. `being COMMAND --help` explains a command; every command takes --debug to
show where an error comes from."""


@dataclass(frozen=True, kw_only=True)
class SayCommand(Say):
    __doc__ = Say.__doc__
    text: tyro.conf.Positional[str] = field(kw_only=False)
    """What to say."""


@dataclass(frozen=True, kw_only=True)
class TrainCommand(Train):
    __doc__ = Train.__doc__
    dataset: tyro.conf.Positional[FilePath] = field(kw_only=False)
    """The data set's folder."""
    preset: str = "being"
    """Where all values below start from: being, rgbavatar, splattingavatar, gaussianavatars or flashavatar."""
    configuration: FilePath = ""
    """A file of TrainConfig.save to start from, in place of a preset."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    def execute(self) -> int:
        """Run it with a display on the terminal, and print what was made."""
        from being_rt.train.progress import Terminal, duration

        if os.environ.get("RANK", "0") == "0":
            display = Terminal()
            try:
                made = self.run([display])
            finally:
                display.close()
        else:
            made = self.run()
        if not made.complete:
            print(f"being: stopped at step {made.steps}; --resume goes on from {made.folder}", file=sys.stderr)
            return 130
        if made.report is not None:
            quality = f", held-out PSNR {made.quality['psnr']:.2f} dB" if made.quality else ""
            trained = f"{made.steps} steps in {duration(made.seconds)}, {made.images_per_second:.1f} images/s{quality}"
            print(f"{(made.avatar or made.folder).resolve()}: {trained}; report: {made.report}")
        return 0


@dataclass(frozen=True, kw_only=True)
class PrepareCommand(Prepare):
    __doc__ = Prepare.__doc__
    video: tyro.conf.Positional[FilePath] = field(kw_only=False)
    """One person before a camera that stands still; any file that FFmpeg reads."""

    def execute(self) -> int:
        with _staging() as progress:
            made = self.run(progress)
        return _print_prepared(made)


@dataclass(frozen=True, kw_only=True)
class CloneCommand(Clone):
    """A video or a photograph in, an avatar of that person and a video in which it talks out. Run again, it goes on."""

    video: tyro.conf.Positional[FilePath] = field(default="", kw_only=False)
    """One person before a camera that stands still, some 30 seconds; any file that FFmpeg reads."""
    image: FilePath = ""
    """One photograph instead of a video: head and shoulders from the front. Quick, and good from the front."""
    config: Annotated[TrainConfig, tyro.conf.Suppress] = field(default_factory=TrainConfig)

    def execute(self) -> int:
        """Run it with a display on the terminal, and print what was made."""
        if bool(self.video) == bool(self.image):
            given = "not both" if self.video else "as in: being clone selfie.mp4"
            raise InvalidParameterError(f"being clone takes a video or --image FILE, {given}")
        return self._from_image() if self.image else self._from_video()

    def _from_image(self) -> int:
        unused = [
            f"--{item.name.replace('_', '-')}"
            for item in fields(Clone)
            if item.name in ("flame", "eyelids", "held_out", "steps", "seconds", "replace", "refine")
            and getattr(self, item.name) != item.default
        ]
        if unused:
            raise InvalidParameterError(f"of videos alone: {', '.join(unused)}; leave it out with --image")
        job = ClonePortrait(
            self.image, name=self.name, out=self.out, licence=self.licence, consent=self.consent, device=self.device,
            threads=self.threads, sample=self.sample,
        )  # fmt: skip
        with _staging() as progress:
            made = job.run(progress)
        for line in made.warnings:
            print(f"note: {line}")
        print(
            f"{made.avatar.resolve()}: {made.gaussians} Gaussians in {made.seconds:.1f} s; in the photograph's pose "
            f"{made.likeness:.1f} dB from it"
        )
        if made.sample is not None:
            print(f"{made.sample.resolve()}: it talks")
        return 0

    def _from_video(self) -> int:
        from being_rt.train.progress import Terminal

        with _staging() as progress:
            prepared = self.prepare(progress)
        _print_prepared(prepared)
        display = Terminal()
        try:
            made = self.train(prepared, [display])
        finally:
            display.close()
        if made.avatar is None:
            print(f"being: stopped at step {made.trained.steps}; the same command goes on", file=sys.stderr)
            return 130
        quality = f"held-out PSNR {made.trained.quality['psnr']:.2f} dB; " if made.trained.quality else ""
        print(f"{made.avatar.resolve()}: {quality}report: {made.trained.report}")
        if made.sample is not None:
            print(f"{made.sample.resolve()}: it talks")
        return 0


@dataclass(frozen=True, kw_only=True)
class AssetsCommand(Assets):
    __doc__ = Assets.__doc__
    json: bool = False
    """Print JSON instead of lines."""

    def execute(self) -> int:
        needed = self.run(lambda line: print(f"being: {line}", file=sys.stderr, flush=True))
        if self.json:
            print(json.dumps(asdict(needed), indent=1, default=str))
            return 0 if needed.complete else 1
        width = max(len(network.name) for network in needed.networks)
        for network in needed.networks:
            facts = f"{network.size / 1e6:.1f} MB, {network.licence}, from {network.source}"
            print(f"{network.state:8} {network.name:{width}}  {network.purpose} ({facts})")
        print(f"kept in {needed.networks[0].path.parent}")
        if needed.flame is None:
            print(FLAME_HELP)
        else:
            flame = needed.flame
            print(f"{flame.path}: {flame.edition}, {flame.vertices} vertices; {flame.licence}")
        return 0 if needed.complete else 1


@dataclass(frozen=True)
class CheckCommand(Check):
    __doc__ = Check.__doc__
    dataset: tyro.conf.Positional[FilePath]
    """The data set's folder."""
    json: bool = False
    """Print JSON instead of lines."""

    def execute(self) -> int:
        report = self.run()
        if self.json:
            print(json.dumps(asdict(report), indent=1))
        else:
            _print_check(report)
        return 0 if report.passed else 1


@dataclass(frozen=True, kw_only=True)
class ConvertCommand(Convert):
    __doc__ = Convert.__doc__
    source: tyro.conf.Positional[FilePath] = field(kw_only=False)
    """The folder that the tracker wrote; its format is seen by its files."""

    def execute(self) -> int:
        with _counting("reading tracks", "copying frames") as progress:
            made = self.run(progress)
        for note in made.notes:
            print(f"note: {note}")
        _print_check(made.report)
        size = "x".join(map(str, made.size))
        print(f"{made.path.resolve()}: {made.frames} frames of {size}, took {made.elapsed:.1f} s")
        return 0 if made.report.passed else 1


@dataclass(frozen=True, kw_only=True)
class ExportCommand(Export):
    __doc__ = Export.__doc__
    dataset: tyro.conf.Positional[FilePath] = field(kw_only=False)
    """The data set's folder."""

    def execute(self) -> int:
        with _counting("reading the model", "writing frames") as progress:
            made = self.run(progress)
        for note in made.notes:
            print(f"note: {note}")
        print(f"{made.path.resolve()}: {made.frames} frames of {made.timesteps} timesteps")
        return 0


@dataclass(frozen=True, kw_only=True)
class SynthCommand(Synthesize):
    __doc__ = Synthesize.__doc__

    def execute(self) -> int:
        with _counting("preparing avatar and motion", "recording") as progress:
            made = self.run(progress)
        size = "x".join(map(str, made.size))
        print(f"{made.path.resolve()}: {made.frames} frames of {size}, took {made.elapsed:.1f} s")
        return 0


DataCommand = Union[  # noqa: UP007 (as Command)
    Annotated[CheckCommand, tyro.conf.subcommand("check", description=Check.__doc__)],
    Annotated[ConvertCommand, tyro.conf.subcommand("convert", description=Convert.__doc__)],
    Annotated[ExportCommand, tyro.conf.subcommand("export", description=Export.__doc__)],
    Annotated[SynthCommand, tyro.conf.subcommand("synth", description=Synthesize.__doc__)],
]


@dataclass(frozen=True)
class Data:
    """Data sets, what avatars are trained on."""

    command: DataCommand
    """What to do with one."""

    def run(self) -> int:
        return self.command.execute()


@dataclass(frozen=True)
class Info:
    """What is in a file: an avatar (.being), a FLAME model (.pkl, .npz) or a motion (.npz)."""

    file: tyro.conf.Positional[FilePath]
    """The file to look into. Nothing in it is executed."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        from being_rt.inspection import inspect_file

        facts = inspect_file(self.file)
        if self.json:
            print(json.dumps(facts, indent=1))
        else:
            _print_facts(facts)
        return 0


@dataclass(frozen=True)
class Avatars:
    """The people that come with the package."""

    def run(self) -> int:
        from being_rt.avatar.demo import PRESETS

        width = max(map(len, PRESETS))
        for name, traits in PRESETS.items():
            print(f"{name:{width}}  {traits.title}".rstrip())
        return 0


@dataclass(frozen=True)
class Doctor:
    """What was built, what this machine can do, what is missing and how to get it."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        from being_rt.doctor import examine

        findings = examine()
        if self.json:
            print(json.dumps([vars(finding) for finding in findings], indent=1))
        else:
            _print_findings(findings)
        return 1 if any(finding.state == "broken" for finding in findings) else 0


Command = Union[  # noqa: UP007 (tyro reads the annotations of a Union's members)
    Annotated[Demo, tyro.conf.subcommand("demo", description=Demo.__doc__)],
    Annotated[Talk, tyro.conf.subcommand("talk", description=Talk.__doc__)],
    Annotated[SayCommand, tyro.conf.subcommand("say", description=Say.__doc__)],
    Annotated[Render, tyro.conf.subcommand("render", description=Render.__doc__)],
    Annotated[CloneCommand, tyro.conf.subcommand("clone", description=CloneCommand.__doc__)],
    Annotated[PrepareCommand, tyro.conf.subcommand("prepare", description=Prepare.__doc__)],
    Annotated[RecordGuide, tyro.conf.subcommand("record-guide", description=RecordGuide.__doc__)],
    Annotated[TrainCommand, tyro.conf.subcommand("train", description=Train.__doc__)],
    Annotated[Data, tyro.conf.subcommand("data", description=Data.__doc__)],
    Annotated[AssetsCommand, tyro.conf.subcommand("assets", description=Assets.__doc__)],
    Annotated[Avatars, tyro.conf.subcommand("avatars", description=Avatars.__doc__)],
    Annotated[Info, tyro.conf.subcommand("info", description=Info.__doc__)],
    Annotated[Doctor, tyro.conf.subcommand("doctor", description=Doctor.__doc__)],
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. ``arguments`` as in ``sys.argv[1:]``, which is the default.

    >>> main(["avatars"])  # doctest: +SKIP
    0
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        command = _parse([argument for argument in given if argument != "--debug"])
    except BeingError as error:
        print(f"being: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        if isinstance(command, VideoJob):
            return _make_video(command)
        if isinstance(command, TrainCommand | AssetsCommand | CloneCommand | PrepareCommand):
            return command.execute()
        return int(command.run())
    except KeyboardInterrupt:
        print("being: interrupted; nothing was written", file=sys.stderr)
        return 130
    except BeingError as error:
        if debug:
            raise
        print(f"being: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except MemoryError:
        if debug:
            raise
        print("being: not enough memory: use a smaller size or a shorter sound", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `being info ... | head`: not an error; nothing more can be printed, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)


def _parse(given: list[str]) -> Any:
    """The command that the arguments describe. Raises ``BeingError`` for a configuration that cannot be had."""
    options: dict[str, Any] = {"prog": "being", "args": given, "config": (tyro.conf.OmitSubcommandPrefixes,)}
    with _registry():
        if given[:1] != ["train"]:
            return tyro.cli(Command, description=DESCRIPTION, **options)
        # What the options of training start from is an option itself.
        start = TrainCommand(tyro.MISSING, config=_starting_point(given))
        options |= {"prog": "being train", "args": given[1:]}
        return tyro.cli(TrainCommand, description=Train.__doc__, default=start, **options)


def _starting_point(given: list[str]) -> TrainConfig:
    """The configuration that ``--configuration`` or ``--preset`` names."""

    def value(option: str) -> str:
        for argument, following in zip(given, [*given[1:], ""], strict=True):
            if argument == option:
                return following
            if argument.startswith(f"{option}="):
                return argument.partition("=")[2]
        return ""

    if value("--configuration"):
        return TrainConfig.load(value("--configuration"))
    from being_rt.train.presets import preset

    return preset(value("--preset") or "being")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM as an exception, so that what is half-written goes away as it does on Ctrl-C."""
    raise SystemExit(128 + number)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How options of our own types are shown. Their text goes on as it is: the job says what is wrong with it."""
    registry = tyro.constructors.ConstructorRegistry()
    metavars = {FilePath: "FILE", Size: "WxH"}

    @registry.primitive_rule
    def plain_text(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        for kind, metavar in metavars.items():
            if info.type == kind:
                return tyro.constructors.PrimitiveConstructorSpec(
                    nargs=1,
                    metavar=metavar,
                    instance_from_str=lambda texts: texts[0],
                    is_instance=lambda value: isinstance(value, (str, Path, tuple)),
                    str_from_instance=lambda value: [str(value)],
                )
        return None

    return registry


def _print_prepared(made: PreparedJob) -> int:
    quality = made.quality
    print(
        f"{made.dataset.resolve()}: {made.frames} of {quality.frames} frames, landmarks off by {quality.error:.2f} % "
        f"of the distance between the eyes; report: {made.report}"
    )
    for name, told in made.refinement.items():
        print(f"{name}: {told}")
    for line in made.advice:
        print(f"note: {line}")
    _print_check(made.check)
    return 0 if made.check.passed else 1


@contextmanager
def _staging() -> Iterator[Callable[[str, float], None]]:
    """A display of stages, each with its share that is done. Where stderr is a file, a line per stage."""
    terminal = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as display:
        tasks: dict[str, Any] = {}

        def report(stage: str, share: float) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    display.update(task, visible=False)
                tasks[stage] = display.add_task(stage, total=1.0)
                if not terminal.is_terminal:
                    print(stage, file=sys.stderr, flush=True)
            display.update(tasks[stage], completed=share)

        yield report


@contextmanager
def _counting(before: str, doing: str) -> Iterator[Callable[[int, int], None]]:
    """A display of frames done and in all: a function to call after each. Nothing is shown where stderr is a file."""
    terminal = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("[cyan]{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as display:
        task = display.add_task(before, total=None, count="", rate="")
        first = time.perf_counter()

        def report(done: int, total: int) -> None:
            nonlocal first
            if done == 1:
                first = time.perf_counter()
                display.reset(task, description=doing, total=total)
            rate = f"{(done - 1) / max(time.perf_counter() - first, 1e-9):.0f} fps" if done > 1 else ""
            display.update(task, completed=done, count=f"{done}/{total}", rate=rate)

        yield report


def _make_video(job: VideoJob) -> int:
    with _counting("preparing avatar and motion", "drawing") as progress:
        result = job.run(progress)
    width, height = result.size
    print(
        f"{result.path.resolve()}: {result.duration:.2f} s of {width}x{height} video at {float(result.fps):.6g} fps "
        f"({result.frames} frames), took {result.elapsed:.1f} s, {result.speed:.1f} times real time"
    )
    return 0


def _print_check(report: CheckReport) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colours = {"error": "red", "warning": "yellow", "note": "default"}
    for finding in report.findings:
        line = Text(f"{finding.severity}: ", colours[finding.severity])
        console.print(line.append(f"{finding.file}: {finding.message}", "default"))
    overlap = "" if report.overlap is None else f", head and masks overlap by {report.overlap:.0%}"
    if report.overlays:
        console.print(Text(f"{len(report.overlays)} overlays in {Path(report.overlays[0]).parent}"))
    verdict = "fit to train on" if report.passed else "not fit to train on: see the errors above"
    console.print(Text(f"{report.path}: {report.frames} frames, {report.cameras} cameras{overlap}: {verdict}"))


def _print_facts(facts: dict[str, Any]) -> None:
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")


def _print_findings(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "absent": "yellow", "broken": "red"}
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        line = Text(f"{finding.state:6}", colours[finding.state])
        console.print(line.append(f"  {finding.subject:{width}}  {finding.detail}", "default"))
        if finding.remedy:
            console.print(Text(f"{'':{width + 10}}to get it: {finding.remedy}"))


if __name__ == "__main__":
    sys.exit(main())
