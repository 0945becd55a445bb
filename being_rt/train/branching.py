"""Two pieces of work of a step that do not need each other, at the same time on one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Branching:
    """A stream beside the current one. Backward passes run where their forward passes did, so they branch as well; a
    captured graph has two branches. On the CPU nothing branches.

    Example::

        beside = Branching(device)
        with beside.branch(x):
            a = f(x)
        b = g(x)  # meanwhile
        beside.merge(a)
        c = h(a, b)
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def branch(self, *used: Tensor) -> Iterator[None]:
        """Work on the stream, after all that has been begun. ``used``: what it and its backward pass read of others'.

        Their memory is not given to others until the stream is done with it, which the allocator cannot see by itself.
        """
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        for tensor in used:
            tensor.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            yield

    def merge(self, *results: Tensor) -> None:
        """Wait, on the device, for what was begun on the stream, and take over its results."""
        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_stream(self._stream)
        for tensor in results:
            tensor.record_stream(current)
