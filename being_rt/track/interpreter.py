"""Running the networks, by LiteRT on the CPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import MissingDependencyError, TrackError
from being_rt.files import first_line
from being_rt.track.assets import asset
from being_rt.track.extract import extract

Float32 = NDArray[np.float32]


class Network:
    """One network, ready to run. It belongs to one thread at a time; other Python threads go on while it runs.

    Args:
        name: one of :data:`being_rt.track.assets.ASSETS`.
        part: names of tensors, (from these, to those): the part of the network that lies between.
        threads: of the CPU. These networks take a millisecond or two, so one is best; more of them on other frames.

    Raises:
        MissingDependencyError: LiteRT is not installed.
        TrackError: the network's file cannot be had.

    Example::

        regressors, scores = Network("face_detection")(np.zeros((128, 128, 3), np.float32))
    """

    def __init__(self, name: str, part: tuple[Sequence[str], Sequence[str]] | None = None, threads: int = 1) -> None:
        interpreter = _interpreter_class()
        path = asset(name)
        content = path.read_bytes()
        try:
            if part is not None:
                content = extract(content, *part)
            with _without_greeting():
                self._interpreter: Any = interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as problem:
            raise TrackError(f"LiteRT cannot run {path}: {first_line(problem)}") from problem
        self._inputs = [tensor["index"] for tensor in self._interpreter.get_input_details()]
        self._outputs = [tensor["index"] for tensor in self._interpreter.get_output_details()]

    def __call__(self, *inputs: Float32) -> list[Float32]:
        """The outputs, in the network's order and without the batch axis, for inputs likewise. They are copies."""
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, np.ascontiguousarray(value[None], np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as problem:
        raise MissingDependencyError('tracking needs LiteRT: pip install "being_rt[track]"') from problem
    return Interpreter


_greeting = threading.Lock()
_greeted = False


@contextmanager
def _without_greeting() -> Iterator[None]:
    """LiteRT says on the error output, once per process, which instructions it uses, and has no switch for that. It
    would tear through a display of progress, so what is written there meanwhile, some milliseconds, goes nowhere."""
    global _greeted
    with _greeting:
        if _greeted:
            quiet = None
        else:
            quiet = _to_nowhere()
            _greeted = True
        try:
            yield
        finally:
            if quiet is not None:
                os.dup2(quiet, 2)
                os.close(quiet)


def _to_nowhere() -> int | None:
    """Discard what is written to the error output; a handle of where it went before, None where there was none."""
    try:
        before = os.dup(2)
    except OSError:
        return None
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return before
