"""Where a training step's time goes: PyTorch's profiler, what it saw put down to the operations of a step.

Steps of a graph tell nothing but the names of kernels. So steps are taken line by line as well, and every kernel goes
to the operator that launched it: an operation of :mod:`being_rt.ops`, or what PyTorch computes in a part of the step
that has a name here. A kernel of the backward pass goes to the operator whose derivative it is a part of; autograd
gives both the same number.

On the CPU there are no kernels: a stage's time is that of its operators, without what they call.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from being_rt.errors import TrainingError
from being_rt.train.sampling import View
from being_rt.train.step import Planned, Stepper

STEPS = 8  # looked at, on CUDA
CPU_STEPS = 1
PROGRESS = 0.5  # of the run: everything that moves, moves
MARGIN = 0.002  # seconds between phases
LARGEST = 16  # kernels that a profile names
OTHER = "everything else"
BACKWARD = " backward"
# In the order of a step. "rasterize" is "bin+sort" and "blend" where there are kernels to tell them apart.
STAGES = (
    "feed", "tracks", "skin", "offsets", "bind", "project", "bin+sort", "blend", "rasterize", "composite", "weights",
    "loss", "regularisation", "statistics", "adam", "constraints", OTHER,
)  # fmt: skip
_OPERATIONS = {"anchor_latents": "offsets", "blend_offsets": "offsets", "bind_head": "bind", "bind_torso": "bind",
               "body_frames": "bind", "over": "composite", "photometric_loss": "loss",
               "gaussian_costs": "regularisation", "correct_tracks": "tracks", "gather_motion": "tracks",
               "track_costs": "tracks"}  # fmt: skip
_RANGE = "bench: "  # before the names of this module's ranges
_PHASE = _RANGE + "phase "
_ENGINE = "autograd::engine::evaluate_function"


@dataclass(frozen=True)
class Stage:
    """A part of a step."""

    forward: float  # ms
    backward: float
    launches: float  # kernels, copies and fills; on the CPU operators

    @property
    def total(self) -> float:
        """Milliseconds."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Kernel:
    """What many launches of a step have in common."""

    name: str  # without namespaces and arguments; on the CPU the operator's
    operator: str  # of PyTorch's, that launched it; "" where none did
    stage: str
    launches: float  # per step
    milliseconds: float  # per step, all of them


@dataclass(frozen=True)
class Profile:
    """Steps of one kind of picture. Everything is per step."""

    view: str
    nodes: dict[str, float]  # of the step's CUDA graph: kernels, copies, fills; empty on the CPU
    around: float  # launches outside the graph
    busy: float  # ms that the graph's nodes take; on the CPU the sum of the stages
    stages: dict[str, Stage]
    kernels: list[Kernel]  # those that take longest


def profiles(stepper: Stepper) -> list[Profile]:
    """Take some steps of each view of a stepper's feed, and look at them.

    The stepper is a trained model's: where nothing is drawn, nothing takes long.

    Raises:
        TrainingError: PyTorch's profiler does not work here, or there is too little memory.
    """
    return [_profile(stepper, view) for view in stepper.feed.views]


def _profile(stepper: Stepper, view: View) -> Profile:
    on_cuda = stepper.feed.device.type == "cuda"
    count = STEPS if on_cuda else CPU_STEPS
    plan = [Planned(step, PROGRESS, view) for step in range(count)]
    phases: dict[str, Callable[[], object]] = {"lines": lambda: _line_by_line(stepper, plan)}
    if on_cuda:
        phases |= {"replays": lambda: _replay(stepper, plan), "blocks": lambda: stepper.block(plan)}
    stepper.block(plan)
    events = _seen(stepper, phases)
    pieces = list(work(events["lines"], on_cuda))
    if on_cuda and not pieces:
        raise TrainingError("the profiler saw no kernels; measure one case in a process of its own")
    stages = by_stage(pieces, count)
    busy, around = sum(stage.total for stage in stages.values()), 0.0
    nodes: Counter[str] = Counter()
    if on_cuda:
        replays, blocks = _device_events(events["replays"]), _device_events(events["blocks"])
        nodes.update(_kind(event.name) for event in replays)
        around = (len(blocks) - len(replays)) / count
        busy = sum(_duration(event) for event in replays) / count / 1e3
    return Profile(
        view=view.name,
        nodes={kind: number / count for kind, number in nodes.items()},
        around=around,
        busy=busy,
        stages=stages,
        kernels=longest(pieces, count),
    )


def _replay(stepper: Stepper, plan: Sequence[Planned]) -> None:
    """Steps' graphs alone, on frames that are there."""
    stepper._ledger.turn()
    for item in plan:
        stepper._run(stepper._kind(item))


def _line_by_line(stepper: Stepper, plan: Sequence[Planned]) -> None:
    """Steps without a graph."""
    with named(stepper):
        stepper._ledger.turn()
        stepper._ledger.write(0, np.stack([stepper._order(item) for item in plan]))
        for item in plan:
            stepper.feed.fetch(item.step, item.view)
            stepper.model.set_progress(item.progress)
            kind = stepper._kind(item)
            stepper._differentiate(kind)
            stepper._share(kind)
            stepper._update(kind)


def _seen(stepper: Stepper, phases: dict[str, Callable[[], object]]) -> dict[str, list[Any]]:
    """The profiler's events of calls, by their names. On CUDA each is made twice: the first one fills caches.

    All in one session, for not every version of CUDA's tracing has a second one.
    """
    on_cuda = stepper.feed.device.type == "cuda"
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_cuda else [ProfilerActivity.CPU]

    def wait() -> None:
        if on_cuda:
            torch.cuda.synchronize()
            time.sleep(MARGIN)  # the clocks of both sides may differ a little

    while True:
        if on_cuda:
            for function in phases.values():
                function()
        wait()
        with profile(activities=activities) as profiler:
            for name, function in phases.items():
                with record_function(_PHASE + name):
                    wait()
                    function()
                    wait()
        if not stepper._overflowed():
            return by_phase(list(profiler.events()))
        stepper._take_more_room()  # nothing was drawn, and that did not take long


def by_phase(events: Sequence[Any]) -> dict[str, list[Any]]:
    """Events by the phase that they began in."""
    phases = {
        event.name.removeprefix(_PHASE): event.time_range
        for event in events
        if event.name.startswith(_PHASE) and event.device_type == DeviceType.CPU
    }
    return {
        name: [event for event in events if time_range.start <= event.time_range.start < time_range.end]
        for name, time_range in phases.items()
    }


@contextmanager
def named(stepper: Stepper) -> Iterator[None]:
    """Ranges around what PyTorch computes between the operations, for as long as the context lasts."""
    model, tracks, feed = stepper.model, stepper.tracks, stepper.feed
    parts: list[tuple[str, object, tuple[str, ...]]] = [
        ("feed", feed, ("fetch", "target", "cameras", "background")),
        ("feed", stepper._ledger, ("begin", "finish")),
        ("tracks", tracks, ("sequence", "gather", "intrinsics", "terms")),
        ("offsets", model, ("_offsets",)),
        ("weights", stepper._weights, ("__call__",)),
        ("regularisation", model, ("regularisation",)),
        ("statistics", stepper.statistics, ("accumulate",)),
        ("adam", stepper.optimizer, ("step", "step_early")),
        ("constraints", model, ("after_step",)),
    ]
    before = []
    try:
        for stage, owner, methods in parts:
            for method in methods:
                kind, function = type(owner), getattr(type(owner), method)
                before.append((kind, method, function))
                setattr(kind, method, _within(_RANGE + stage, function))
        yield
    finally:
        for kind, method, function in before:
            setattr(kind, method, function)


def _within(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*arguments, **options)

    return wrapped


# ---------------------------------------------------------------------------------------------- what the profiler saw


class Work(NamedTuple):
    """A kernel, copy or fill; on the CPU an operator without what it calls."""

    name: str
    operator: str
    stage: str  # with BACKWARD behind it where it is part of a derivative
    microseconds: float


def work(events: Sequence[Any], on_cuda: bool) -> Iterator[Work]:
    """What a profile saw, by stage. ``events``: of ``torch.profiler.profile.events()``, taken under :func:`named`."""
    stage_of = _Stages(events)
    operators = [event for event in events if event.device_type == DeviceType.CPU and not event.is_async]
    if not on_cuda:
        for event in operators:
            if not event.name.startswith(_PHASE):
                yield Work(event.name, event.name, stage_of(event), event.self_cpu_time_total)
        return
    launched: Counter[tuple[str, float]] = Counter()
    for event in operators:
        for kernel in event.kernels:
            if not kernel.name.startswith(_RANGE):
                launched[kernel.name, kernel.duration] += 1
                stage = _part_of(stage_of(event), kernel.name)
                yield Work(kernel.name, event.name, stage, kernel.duration)
    # What no operator launched: the optimizer calls the core without one.
    seen = Counter((event.name, _duration(event)) for event in _device_events(events))
    for name, duration in (seen - launched).elements():
        yield Work(name, "", "adam" if "adam_kernel" in name else OTHER, duration)


class _Stages:
    """Stages of operators."""

    def __init__(self, events: Sequence[Any]) -> None:
        self._known: dict[int, str] = {}
        # Operators that make no node of the backward graph have the number of the next one that does.
        self._maker = {}
        for event in sorted(events, key=lambda event: event.time_range.start):
            if event.sequence_nr >= 0 and event.scope == 0 and not _is_backward(event):
                self._maker[event.thread, event.sequence_nr] = event

    def __call__(self, event: Any) -> str:
        key = id(event)
        if key not in self._known:
            self._known[key] = self._found(event)
        return self._known[key]

    def _found(self, event: Any) -> str:
        name = event.name
        if name.startswith(_PHASE):
            return OTHER
        if name.startswith(_RANGE):
            return str(name.removeprefix(_RANGE))
        if name.startswith("being_rt::"):
            operation = name.removeprefix("being_rt::")
            forward = operation.removesuffix("_backward")
            return _OPERATIONS.get(forward, forward) + (BACKWARD if operation != forward else "")
        if name.startswith(_ENGINE):
            maker = self._maker.get((event.fwd_thread, event.sequence_nr))
            return (self(maker) if maker is not None else OTHER) + BACKWARD
        return self(event.cpu_parent) if event.cpu_parent is not None else OTHER


def _is_backward(event: Any) -> bool:
    while event is not None:
        if event.name.startswith(_ENGINE):
            return True
        event = event.cpu_parent
    return False


def _part_of(stage: str, kernel: str) -> str:
    """Binning and blending are one operation, told apart by their kernels."""
    if stage == "rasterize":
        return "blend" if "blend_kernel" in kernel else "bin+sort"
    return "blend" + BACKWARD if stage == "rasterize" + BACKWARD else stage


def _device_events(events: Iterable[Any]) -> list[Any]:
    """Kernels, copies and fills, but for the device's image of ranges."""
    return [event for event in events if event.device_type == DeviceType.CUDA and not event.name.startswith(_RANGE)]


def _duration(event: Any) -> float:
    return float(event.time_range.end - event.time_range.start)


def _kind(name: str) -> str:
    return {"Memcpy": "copies", "Memset": "fills"}.get(name.split(" ")[0], "kernels")


def by_stage(pieces: Iterable[Work], steps: int) -> dict[str, Stage]:
    """Milliseconds and launches per step, in the order of STAGES; what takes no time is left out."""
    sums: dict[str, list[float]] = {}
    for piece in pieces:
        name = piece.stage.removesuffix(BACKWARD)
        entry = sums.setdefault(name, [0.0, 0.0, 0.0])
        entry[int(name != piece.stage)] += piece.microseconds / 1e3 / steps
        entry[2] += 1 / steps
    order = [*STAGES[:-1], *(name for name in sums if name not in STAGES), OTHER]
    return {name: Stage(*sums[name]) for name in order if name in sums}


def longest(pieces: Iterable[Work], steps: int) -> list[Kernel]:
    """The kernels that take longest, their launches added up where name, operator and stage agree."""
    sums: dict[tuple[str, str, str], list[float]] = {}
    for piece in pieces:
        entry = sums.setdefault((short_name(piece.name), piece.operator, piece.stage), [0.0, 0.0])
        entry[0] += 1 / steps
        entry[1] += piece.microseconds / 1e3 / steps
    kernels = [Kernel(*key, *values) for key, values in sums.items()]
    return sorted(kernels, key=lambda kernel: -kernel.milliseconds)[:LARGEST]


def short_name(kernel: str) -> str:
    """
    >>> short_name("void being_rt::(anonymous namespace)::bin_kernel<true>(being_rt::RasterizeStage<float>)")
    'bin_kernel<true>'
    >>> short_name("Memcpy DtoD (Device -> Device)")
    'Memcpy DtoD (Device -> Device)'
    """
    if kernel.startswith("Mem"):
        return kernel
    name = re.sub(r"\((anonymous namespace|[a-z_]+ const)\)::|^void |\b\w+::", "", kernel)
    depth, end = 0, len(name)
    for i, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            end = i
            break
    return name[:end] if end <= 80 else name[:77] + "..."
