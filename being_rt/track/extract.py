"""A part of a network as a network of its own.

The face mesh with attention (Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time",
2020) samples its own features around the mouth and the eyes, with operations that MediaPipe alone has. Cut at these,
the rest are networks that LiteRT runs, and ``mesh`` does the sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from being_rt.errors import MissingDependencyError, TrackError
from being_rt.files import first_line


def extract(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The part of a network (.tflite) that computes tensors from other tensors, all given by name.

    Raises:
        TrackError: ``content`` is not a network, or has no such tensors.
        MissingDependencyError: LiteRT is not installed.
    """
    schema, flatbuffers = _libraries()
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        (graph,) = model.subgraphs
        _reduce(graph, inputs, outputs)
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise TrackError(f"a network cannot be cut at {', '.join(inputs)}: {first_line(problem)}") from problem
    _drop_unused(model, graph)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _reduce(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Leave the operations that lie between, and number the tensors anew."""
    numbers = {tensor.name.decode(): number for number, tensor in enumerate(graph.tensors)}
    given, wanted = [numbers[name] for name in inputs], [numbers[name] for name in outputs]
    maker = {int(number): operation for operation in graph.operators for number in operation.outputs}
    needed: set[int] = set(given)
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number >= 0 and number not in needed:
            needed.add(number)
            waiting += [int(source) for source in maker[number].inputs] if number in maker else []
    made = needed - set(given)
    graph.operators = [one for one in graph.operators if not made.isdisjoint(int(number) for number in one.outputs)]
    renumbered = {old: new for new, old in enumerate(sorted(needed))}
    renumbered[-1] = -1  # an input that an operation does without
    for operation in graph.operators:
        operation.inputs = [renumbered[int(number)] for number in operation.inputs]
        operation.outputs = [renumbered[int(number)] for number in operation.outputs]
    graph.tensors = [graph.tensors[number] for number in sorted(needed)]
    graph.inputs = [renumbered[number] for number in given]
    graph.outputs = [renumbered[number] for number in wanted]


def _drop_unused(model: Any, graph: Any) -> None:
    """Leave the weights that tensors still refer to; the first buffer is empty by convention."""
    buffers = [model.buffers[0]]
    for tensor in graph.tensors:
        weights = model.buffers[tensor.buffer]
        tensor.buffer = 0
        if weights.data is not None and len(weights.data):
            tensor.buffer = len(buffers)
            buffers.append(weights)
    model.buffers = buffers
    model.metadata = model.metadataBuffer = model.signatureDefs = None


def _libraries() -> tuple[Any, Any]:
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated
    except ImportError as problem:
        raise MissingDependencyError('tracking needs LiteRT: pip install "being_rt[track]"') from problem
    return schema_py_generated, flatbuffers
