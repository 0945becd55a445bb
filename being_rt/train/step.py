"""One training step: gather, draw, compare, differentiate, update. On CUDA a replayed graph, on the CPU line by line.

A graph needs fixed room for what the rasterizer lists. Where that is too little the picture is empty and a flag is up;
nobody looks at it for some fifty steps. :class:`Stepper` therefore works in blocks: it keeps the state from before a
block, looks once at its end, and where the room was too small goes back, takes more, and does the block again. Steps
depend on nothing but that state and their numbers, so how much room there was at first leaves no trace in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from being_rt.errors import InvalidParameterError, TrainingError
from being_rt.ops.adam import FusedAdam
from being_rt.ops.loss import photometric_loss
from being_rt.ops.pictures import seen_over
from being_rt.ops.rasterization import Workspace
from being_rt.ops.weights import box_weights
from being_rt.train.branching import Branching
from being_rt.train.config import LossConfig
from being_rt.train.distributed import Flat, Group
from being_rt.train.feed import Feed
from being_rt.train.frames import Frames
from being_rt.train.ledger import PAGE, Ledger
from being_rt.train.perceptual import Lpips, repeatable
from being_rt.train.sampling import CHANCE, COLUMNS, WEIGHTED, View
from being_rt.train.tracks import Tracks

PHOTOMETRIC = ("total", "l1", "dssim", "alpha")  # the total with factors applied, its terms without
ONE, LARGEST = 16, 255  # a weight map's byte for weight 1, and the largest that it can have
SPARE_ROOM = 1.5  # of what was needed when last looked at
LEAST_ROOM = 1 << 16  # instances
AHEAD = 8  # steps whose orders go to the device in one piece, while it is busy with those before
WARM_UP = 2  # eager steps before a capture, in which libraries make their allocations
LARGE = 1 << 20  # numbers; a gradient of as many or more is sent, or its parameter updated, as soon as it is there


class Drawn(Protocol):
    """What a model draws: its picture [B, H, W, 4], and whatever else it needs itself."""

    @property
    def picture(self) -> Tensor: ...


class Statistics(Protocol):
    """What a model wants to know about the steps between two relocations."""

    def accumulate(self, layers: Any, frames: Frames) -> None: ...

    def tensors(self) -> dict[str, Tensor]: ...


class Trainable(Protocol):
    """What a step needs of a model; :class:`being_rt.train.model.AvatarModel` has it."""

    tensors: dict[str, Tensor]
    parameters: dict[str, Tensor]

    def layers(self, frames: Frames, workspaces: tuple[Workspace, Workspace] | None = None) -> Drawn: ...

    def regularisation(self, layers: Any) -> dict[str, Tensor]: ...

    def learning_rates(self, progress: float) -> dict[str, float]: ...

    def set_progress(self, progress: float) -> None: ...

    def phase(self, progress: float) -> Hashable: ...

    def after_step(self) -> None: ...


class Planned(NamedTuple):
    """A step to do."""

    step: int
    progress: float  # 0..1 of the run
    view: View


class Kind(NamedTuple):
    """What the steps of one graph have in common."""

    view: View
    phase: Hashable  # of the model
    perceptual: bool  # whether that term counts yet


class Stepper:
    """Does steps.

    Args:
        model, tracks: what is trained.
        feed: where frames come from.
        optimizer: over the parameters of both, by name.
        loss: how pictures are compared.
        statistics: of the model, filled by the way.
        group: the ranks of the run.
        lpips: what the perceptual term is measured with; for a loss that has one.

    Raises:
        InvalidParameterError: the loss has one, and there is nothing to measure it with.

    Example::

        stepper = Stepper(model, tracks, feed, optimizer, config.loss, Statistics.of(model), group)
        losses = stepper.block([Planned(0, 0.0, view), Planned(1, 0.001, view)])  # [2, len(stepper.names)]
    """

    def __init__(
        self,
        model: Trainable,
        tracks: Tracks,
        feed: Feed,
        optimizer: FusedAdam,
        loss: LossConfig,
        statistics: Statistics,
        group: Group,
        lpips: Lpips | None = None,
    ) -> None:
        check_perceptual(loss, lpips)
        self.model, self.tracks, self.feed, self.optimizer = model, tracks, feed, optimizer
        self.statistics, self.group = statistics, group
        self._loss, self._lpips = loss, lpips
        self._weights = WeightMap(loss, feed.device)
        self._unweighted = torch.tensor([self._weights.factor, self._weights.factor, 1.0], device=feed.device)
        self.names: tuple[str, ...] = ()  # of the columns of losses, once a step has been done
        self._losses = torch.empty(0, device=feed.device)
        self._flat: dict[Kind, Flat] = {}
        self._on_their_way: list[Callable[[], object]] = []
        self._beside = Branching(feed.device)
        self._is_branched = False  # whether something was begun beside the backward pass
        self._hooks: list[RemovableHandle] = []
        for name, tensor in optimizer.parameters.items():
            if tensor.numel() >= LARGE:
                at_once = self._send if group.ranks > 1 else partial(self._step_early, name)
                self._hooks.append(tensor.register_post_accumulate_grad_hook(at_once))
        shape = feed.sampler.local_batch, COLUMNS
        self._ledger = Ledger(math.prod(shape) + len(optimizer.parameters), feed.device)
        self._row = self._ledger.order[: math.prod(shape)].view(shape)
        self._rates = self._ledger.order[math.prod(shape) :]
        self._on_cuda = feed.device.type == "cuda"
        self._graphs: dict[Kind, torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._on_cuda else None
        self.workspaces: tuple[Workspace, Workspace] | None = None
        if self._on_cuda:
            self.workspaces = Workspace(0, feed.device), Workspace(0, feed.device)
        self._state = [tensor.detach() for tensor in self.lasting().values()]
        self._before = [torch.empty_like(tensor) for tensor in self._state]

    # --------------------------------------------------------------------------------------------------------- blocks

    def block(self, plan: Sequence[Planned], following: Sequence[Planned] = ()) -> NDArray[np.float64]:
        """Do steps, then look at how they went: their losses [steps, names], averaged over ranks.

        ``following``: what will probably come next, whose frames may be fetched ahead.

        Raises:
            TrainingError: a loss is not finite; parameters and everything else are as they were before the block. Or
                the device has too little memory.
        """
        with out_of_memory(self.feed.device):
            self.keep()
            while True:
                losses = self._attempt(plan, following)
                if not self._overflowed():
                    break
                self.restore()
                self._take_more_room()
        broken = np.flatnonzero(~np.isfinite(losses).all(axis=1))
        if len(broken):
            self.restore()
            step, values = plan[broken[0]].step, losses[broken[0]]
            name = self.names[int(np.flatnonzero(~np.isfinite(values))[-1])]
            raise TrainingError(f"training diverged at step {step}: {name} is {values[self.names.index(name)]}")
        return losses

    def _attempt(self, plan: Sequence[Planned], following: Sequence[Planned]) -> NDArray[np.float64]:
        history: list[Tensor] = []
        queue = [(item.step, item.view) for item in (*plan, *following)]
        for start in range(0, len(plan), PAGE):
            page = plan[start : start + PAGE]
            self._ledger.turn()
            for i, item in enumerate(page):
                if i % AHEAD == 0:
                    self._ledger.write(i, np.stack([self._order(ahead) for ahead in page[i : i + AHEAD]]))
                self.feed.fetch(item.step, item.view, queue[start + i + 1 : start + i + 4])
                self.model.set_progress(item.progress)
                self._run(self._kind(item))
            history.append(self._ledger.reports(len(page)))
        table = torch.cat(history)
        values: NDArray[np.float64] = table.double().cpu().numpy()  # waits for the device
        return values

    def keep(self) -> None:
        """Remember parameters, moments, statistics and corrections as they are."""
        torch._foreach_copy_(self._before, self._state)

    def restore(self) -> None:
        """Go back to what :meth:`keep` saw."""
        torch._foreach_copy_(self._state, self._before)

    def lasting(self) -> dict[str, Tensor]:
        """All tensors that outlive a step, by name."""
        return {
            **{f"model.{name}": tensor for name, tensor in self.model.tensors.items()},
            **self.tracks.leaves,
            **{f"statistics.{name}": tensor for name, tensor in self.statistics.tensors().items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state_dict().items()},
        }

    # ----------------------------------------------------------------------------------------------------------- room

    def _overflowed(self) -> bool:
        """Whether, on any rank, a picture was not drawn for want of room."""
        if self.workspaces is None:
            return False
        flag = torch.stack([workspace.overflow[0] for workspace in self.workspaces]).max()
        self.group.maximum(flag)
        return bool(flag.item())

    def _take_more_room(self) -> None:
        """As much as the ranks' calls needed, and more. Graphs hold the old room, so they are made anew."""
        assert self.workspaces is not None
        for workspace in self.workspaces:
            needed = workspace.status[0].clone()
            self.group.maximum(needed)
            workspace.capacity = max(workspace.capacity, roomy(int(needed.item())))
            workspace.reset()
        self._graphs.clear()
        self._pool = torch.cuda.graph_pool_handle()  # the old one died with the last graph that used it

    def _measure(self, view: View) -> None:
        """Draw a view's present frames without any room, which says how much they take."""
        assert self.workspaces is not None
        probes = Workspace(0, self.feed.device), Workspace(0, self.feed.device)
        with torch.no_grad():
            self.model.layers(self.frames_of(self._row, view, self.tracks.sequence()), probes)
        for workspace, probe in zip(self.workspaces, probes, strict=True):
            workspace.capacity = max(workspace.capacity, roomy(int(probe.status[0].item())))

    # ---------------------------------------------------------------------------------------------------------- steps

    def _order(self, item: Planned) -> NDArray[np.float32]:
        """What a step has to know: its rows, then the learning rates."""
        rates = self.model.learning_rates(item.progress) | self.tracks.learning_rates(item.progress)
        values = np.array([rates[name] for name in self.optimizer.parameters], np.float32)
        return np.concatenate([self.feed.sampler.rows(item.step, item.view).ravel(), values])

    def _kind(self, item: Planned) -> Kind:
        """Which of the graphs a step is."""
        due = self._loss.perceptual > 0 and item.progress >= self._loss.perceptual_start
        return Kind(item.view, self.model.phase(item.progress), perceptual=due)

    def _run(self, kind: Kind) -> None:
        if not self._on_cuda:
            self._do(kind)
            return
        if kind not in self._graphs:
            self._graphs[kind] = self._capture(kind)
        self._graphs[kind].replay()

    def _do(self, kind: Kind) -> None:
        """A step of the present order, line by line."""
        self._differentiate(kind)
        self._share(kind)
        self._update(kind)

    def _capture(self, kind: Kind) -> torch.cuda.CUDAGraph:
        """A graph of a step of a kind, messages between ranks among it."""
        self._ledger.begin()
        self._measure(kind.view)
        state = [*self._state, self._ledger.place]
        inside = [tensor.clone() for tensor in state]  # of the middle of a block, where this happens
        side = torch.cuda.Stream(self.feed.device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._do(kind)
        torch.cuda.current_stream().wait_stream(side)
        torch._foreach_copy_(state, inside)
        self.optimizer.zero_grad()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Threads that decode or copy frames do as they like meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._do(kind)
        return graph

    def close(self) -> None:
        """Let go of the graphs, which send messages in a group that may be gone soon. The last thing that is called."""
        self._graphs.clear()
        for hook in self._hooks:
            hook.remove()

    def _differentiate(self, kind: Kind) -> None:
        """Losses of the frames of the present order, and their gradients."""
        view = kind.view
        self.optimizer.zero_grad()
        self._ledger.begin()
        self.optimizer.learning_rates.copy_(self._rates)
        sequence = self.tracks.sequence()
        frames = self.frames_of(self._row, view, sequence)
        layers = self.model.layers(frames, self.workspaces)
        target = self.feed.target(self._row, view).view(torch.uint8).unflatten(-1, (-1, 4))
        weight = self._weights(self._row, view.size)
        photometric = photometric_loss(
            layers.picture,
            target,
            frames.background,
            weight,
            l1=self._loss.l1 * self._weights.factor,
            dssim=self._loss.dssim * self._weights.factor,
            alpha=self._loss.alpha if self.feed.has_masks else 0.0,
            huber=self._loss.huber or None,
            tolerance=self._loss.alpha_tolerance,
        )
        terms = self.model.regularisation(layers) | self.tracks.terms(sequence)
        with repeatable():
            if kind.perceptual:
                terms["perceptual"] = self._perceptual(layers.picture, target, frames.background)
            elif self._loss.perceptual > 0:  # losses have the same columns throughout a run
                terms["perceptual"] = torch.zeros_like(photometric[0])
            parts = torch.stack([photometric[0], *terms.values()])
            total = parts.sum()
            total.backward()
        self.statistics.accumulate(layers, frames)
        self.names = (*PHOTOMETRIC, *terms)
        with torch.no_grad():
            torch.cat([total[None], photometric[1:] * self._unweighted, parts[1:]], out=self._losses)

    def _send(self, parameter: Tensor) -> None:
        """Begin to average a large gradient, in the middle of the backward pass.

        It travels with eight bits of mantissa: half the message, and far below the noise that a batch has.
        """
        gradient = parameter.grad
        assert gradient is not None
        message = gradient.bfloat16()
        wait = self.group.start_average(message)
        self._on_their_way.append(lambda: (wait(), gradient.copy_(message)))

    def _step_early(self, name: str, parameter: Tensor) -> None:
        """Update a large parameter, in the middle of the backward pass, which has no more use for it.

        That takes as long as all that is left of the pass, but only memory; what is left is many small kernels.
        """
        with self._beside.branch():
            self.optimizer.step_early(name)
        self._is_branched = True

    def _perceptual(self, picture: Tensor, target: Tensor, background: Tensor) -> Tensor:
        """That term of the loss, with its weight."""
        assert self._lpips is not None
        distance = self._lpips(picture[..., :3].clamp(0, 1), seen_over(target, background))
        return self._loss.perceptual * distance.mean()

    def _share(self, kind: Kind) -> None:
        """Average gradients and losses over the ranks."""
        if self.group.ranks == 1:
            return
        if kind not in self._flat:
            small = [tensor for tensor in self.optimizer.parameters.values() if tensor.numel() < LARGE]
            self._flat[kind] = Flat(small, len(self._losses))
        self._flat[kind].gather(self._losses)
        self._on_their_way.append(self.group.start_average(self._flat[kind].values))
        while self._on_their_way:
            self._on_their_way.pop(0)()

    def _update(self, kind: Kind) -> None:
        if self.group.ranks > 1:
            self._flat[kind].scatter()
        if self._is_branched:
            self._beside.merge()
            self._is_branched = False
        self.optimizer.step()
        self.model.after_step()
        self._ledger.finish(self._flat[kind].extra if self.group.ranks > 1 else self._losses)

    def frames_of(self, row: Tensor, view: View, sequence: Tensor) -> Frames:
        """Frames of rows [B, COLUMNS]."""
        motion = self.tracks.gather(sequence, row[:, 1].long())
        pose, intrinsics = self.feed.cameras(row, view)
        intrinsics = self.tracks.intrinsics(intrinsics, view.reduction)
        return Frames(*motion, pose, intrinsics, view.size, self.feed.background(row, view), row[:, CHANCE])


class WeightMap:
    """Weights of pixels: more in the boxes around mouth and eyes.

    A weight map is bytes that count in sixteenths, so 15.9 is its largest weight; where more is asked for, everything
    is scaled down, and the loss back up.
    """

    def __init__(self, loss: LossConfig, device: torch.device | str = "cpu") -> None:
        weights = {"mouth": loss.mouth, "left_eye": loss.eyes, "right_eye": loss.eyes}
        self._plain = all(weight == 1 for weight in weights.values())
        self._base = ONE if self._plain else max(1, min(ONE, int(LARGEST / max(weights.values()))))
        values = [max(1, round(self._base * weights[name])) for name in WEIGHTED]
        self._values = torch.tensor(values, dtype=torch.uint8, device=device)
        self.factor = ONE / self._base
        """What a loss that was weighed by the map is to be multiplied by."""

    def __call__(self, row: Tensor, size: tuple[int, int]) -> Tensor | None:
        """The map uint8 [B, H, W] of a batch's rows; None where all weights are 1."""
        if self._plain:
            return None
        return box_weights(row, COLUMNS - 4 * len(WEIGHTED), self._values, self._base, size)


def check_perceptual(loss: LossConfig, lpips: object) -> None:
    """Check that what a perceptual term is measured with is there, if the loss has one.

    Raises:
        InvalidParameterError: it is not.
    """
    if loss.perceptual > 0 and lpips is None:
        raise InvalidParameterError("loss.perceptual needs the weights of LPIPS: pass --lpips FILE")


def roomy(needed: int) -> int:
    """Room for what was needed and what more will come."""
    return min(2**31 - 1, max(LEAST_ROOM, math.ceil(SPARE_ROOM * needed)))


@contextmanager
def out_of_memory(device: torch.device) -> Any:
    """Turn a device's or the host's lack of memory into one line that says what to do."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError) as problem:
        where = str(device) if isinstance(problem, torch.cuda.OutOfMemoryError) else "this machine"
        raise TrainingError(
            f"{where} has too little memory: lower schedule.batch, feed.device_gigabytes, feed.window or the numbers "
            "of Gaussians"
        ) from problem
