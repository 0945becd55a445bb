"""Running the networks, by LiteRT on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import MissingDependencyError, TrackError
from being_rt.files import first_line
from being_rt.track.assets import asset

Float32 = NDArray[np.float32]


class Network:
    """One network, ready to run. It belongs to one thread at a time; other Python threads go on while it runs.

    Args:
        name: one of :data:`being_rt.track.assets.ASSETS`.
        threads: of the CPU. These networks take a millisecond or two, so one is best; more of them on other frames.

    Raises:
        MissingDependencyError: LiteRT is not installed.
        TrackError: the network's file cannot be had.

    Example::

        regressors, scores = Network("face_detection")(np.zeros((128, 128, 3), np.float32))
    """

    def __init__(self, name: str, threads: int = 1) -> None:
        path = asset(name)
        try:
            self._interpreter: Any = _interpreter_class()(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as problem:
            raise TrackError(f"LiteRT cannot run {path}: {first_line(problem)}") from problem
        (entry,) = self._interpreter.get_input_details()
        self._input = entry["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        self.input_shape: tuple[int, ...] = tuple(int(length) for length in entry["shape"][1:])

    def __call__(self, picture: Float32) -> list[Float32]:
        """The outputs for one input [H, W, 3], in the file's order, without the batch axis. They are copies."""
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(picture[None], np.float32))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index)[0] for index in self._outputs]


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as problem:
        raise MissingDependencyError('tracking needs LiteRT: pip install "being_rt[track]"') from problem
    return Interpreter
