"""Several GPUs, one run: every rank draws its share of each batch, then gradients are averaged.

A large gradient travels as soon as the backward pass has it, beside the rest of that pass; all others in one message.
Ranks start from the same seed and see the same averages, so their parameters are equal to the bit and are never sent.
Rank 0 writes files and talks; the others follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from being_rt.errors import DeviceError, InvalidParameterError

PATIENCE = timedelta(minutes=30)  # that ranks wait for rank 0, which evaluates and writes
_ALIGNMENT = 64  # numbers: each gradient begins at a multiple, as vectorised kernels like it


class Group:
    """The ranks of a run. Alone, every method does nothing, at no cost.

    Example::

        with join("auto") as group:
            flat = Flat(parameters, group)
    """

    def __init__(self, device: torch.device, rank: int = 0, ranks: int = 1) -> None:
        self.device, self.rank, self.ranks = device, rank, ranks

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def start_average(self, tensor: Tensor) -> Callable[[], object]:
        """Begin to replace a tensor by its mean over ranks; it is there once the function that is returned was called.

        Meanwhile other work may go on, on CUDA of the same stream, and may be captured in a graph together with this.
        """
        if self.ranks == 1:
            return _nothing
        if self.device.type == "cuda":
            return torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.AVG, async_op=True).wait
        work = torch.distributed.all_reduce(tensor, async_op=True)  # gloo cannot divide
        return lambda: (work.wait(), tensor.div_(self.ranks))

    def sum(self, tensor: Tensor) -> None:
        """The sum over ranks, in place."""
        if self.ranks > 1:
            torch.distributed.all_reduce(tensor)

    def maximum(self, tensor: Tensor) -> None:
        """The largest of the ranks' values, in place."""
        if self.ranks > 1:
            torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX)

    def first_says(self, values: Sequence[float]) -> list[float]:
        """Numbers of rank 0, on every rank."""
        if self.ranks == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(tensor, 0)
        return [float(value) for value in tensor.tolist()]

    def wait(self) -> None:
        """Until every rank is here."""
        if self.ranks > 1:
            torch.distributed.barrier()


def _nothing() -> None: ...


class Flat:
    """The gradients of many parameters, and a few numbers beside them, in one tensor: one message averages them all.

    Args:
        parameters: leaf tensors; those without a gradient are left out, and must be on every rank.
        extra: how many numbers travel along.

    Example::

        flat = Flat(parameters, 3)
        loss.backward()
        flat.gather(losses)
        group.start_average(flat.values)()
        flat.scatter()  # the averages are the parameters' gradients now; flat.extra holds the losses'
    """

    def __init__(self, parameters: Sequence[Tensor], extra: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.grad is not None]
        starts, total = [], 0
        for parameter in self._parameters:
            starts.append(total)
            total += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        like = parameters[0]
        self.values = torch.zeros(total + extra, dtype=like.dtype, device=like.device)
        self.extra = self.values[total:]
        self._views = [
            self.values[start : start + parameter.numel()].view_as(parameter)
            for start, parameter in zip(starts, self._parameters, strict=True)
        ]

    def gather(self, extra: Tensor) -> None:
        """Copy the gradients, and ``extra``, in."""
        gradients = [parameter.grad for parameter in self._parameters]
        torch._foreach_copy_(self._views, [gradient for gradient in gradients if gradient is not None])
        self.extra.copy_(extra)

    def scatter(self) -> None:
        """Make what is in here the parameters' gradients."""
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view


def chosen_device(device: str = "auto") -> torch.device:
    """The device that an option names, if PyTorch can use it. "auto": the first CUDA device, or else the CPU.

    Under torchrun, "auto" and "cuda" are the rank's own.

    Raises:
        DeviceError: there is no such device.
        InvalidParameterError: no device is called that.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    usable = torch.cuda.is_available()
    if device == "auto":
        return torch.device("cuda", local) if usable else torch.device("cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InvalidParameterError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from None
    if chosen.type not in ("cpu", "cuda"):
        raise InvalidParameterError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}")
    if chosen.type == "cuda":
        index = local if chosen.index is None else chosen.index
        if not usable or index >= torch.cuda.device_count():
            found = f"PyTorch finds {torch.cuda.device_count()} CUDA devices" if usable else "PyTorch finds none"
            raise DeviceError(f"there is no device cuda:{index}: {found}; `being doctor` says more")
        return torch.device("cuda", index)
    return chosen


@contextmanager
def join(device: str = "auto") -> Iterator[Group]:
    """The group that torchrun started this process in, or a group of one.

    Raises:
        DeviceError, InvalidParameterError: as :func:`chosen_device`.
    """
    chosen = chosen_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield Group(chosen)
        return
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    options: dict[str, Any] = {"device_id": chosen} if backend == "nccl" else {}
    torch.distributed.init_process_group(backend, timeout=PATIENCE, **options)
    try:
        yield Group(chosen, torch.distributed.get_rank(), ranks)
    finally:
        torch.distributed.destroy_process_group()
