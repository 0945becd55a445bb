"""``python -m being_rt.bench.offset_mlp``: how long FlashAvatar's offset network takes, and PyTorch in the same run.

The network is FlashAvatar's, 171 -> 256 x 6 -> 10 (51 positional inputs, 120 of the condition), with random weights.
Two times are stated: of one evaluation by the wall clock, from the call to the end of its synchronisation, and of one
out of a hundred that are submitted before the first synchronisation. PyTorch does the same mathematics in half floats,
the constant half of the first layer cached as well, operation by operation and as one CUDA graph.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from being_rt.offset_mlp import Float32, OffsetMlp

POINTS = (13_453, 50_000)
POSITIONAL, CONDITION, WIDTH, HIDDEN, OUTPUTS = 51, 120, 256, 6, 10
REPEATS = 200
SUBMITTED = 100  # before one synchronisation
WARM_UP = 20
PEAK = 989.0  # TFLOP/s, an SXM H200's data sheet, dense half floats; mma.sync, without wgmma, reaches about 620 of them


def measure(device: Literal["cuda", "cpu"] = "cuda") -> list[dict[str, Any]]:
    """Time the network at 13,453 and 50,000 points.

    Returns:
        One row per number of points and evaluator: ``points``, ``evaluator`` ("being_rt", "torch eager",
        "torch graph"), ``p50`` milliseconds of single evaluations, ``throughput`` milliseconds of each of many, and
        ``tflops``, what the second comes to.

    Raises:
        DeviceError: there is no such device, or this build has no CUDA part.

    Example::

        for row in measure("cpu"):
            print(row["points"], row["p50"])
    """
    rows = []
    for points in POINTS:
        weights, biases, positional, condition = _network(points)
        network = OffsetMlp(weights, biases, positional, device)
        if device == "cpu":
            rows.append(_row(points, "being_rt", partial(network.offsets, condition), lambda: None, 10))
            continue
        native = network._native
        rows.append(_row(points, "being_rt", partial(native.evaluate, condition), native.synchronize))
        rows += _torch_rows(weights, biases, positional, condition, network)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print :func:`measure` as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    device = parser.parse_args(arguments).device
    print(f"{'points':>7}  {'evaluator':<12} {'one, ms':>9} {'of many, ms':>12} {'TFLOP/s':>9}", end="")
    print(f"  % of {PEAK:.0f}" if device == "cuda" else "")
    for row in measure(device):
        print(
            f"{row['points']:>7}  {row['evaluator']:<12} {row['p50']:>9.4f} {row['throughput']:>12.4f}"
            f" {row['tflops']:>9.1f}",
            end="",
        )
        print(f" {100 * row['tflops'] / PEAK:>9.1f}" if device == "cuda" else "")


def _network(points: int) -> tuple[list[Float32], list[Float32], Float32, Float32]:
    random = np.random.default_rng(0)
    sizes = [POSITIONAL + CONDITION, *[WIDTH] * HIDDEN, OUTPUTS]
    weights = [(random.standard_normal((b, a)) * np.sqrt(2 / a)).astype(np.float32) for a, b in pairwise(sizes)]
    biases = [(random.standard_normal(size) * 0.1).astype(np.float32) for size in sizes[1:]]
    positional = random.uniform(-1, 1, (points, POSITIONAL)).astype(np.float32)
    return weights, biases, positional, random.standard_normal(CONDITION).astype(np.float32)


def _row(
    points: int,
    evaluator: str,
    submit: Callable[[], Any],
    synchronize: Callable[[], Any],
    repeats: int = REPEATS,
) -> dict[str, Any]:
    def spent(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            submit()
        synchronize()
        return (time.perf_counter() - begin) * 1e3

    spent(min(WARM_UP, repeats))
    p50 = float(np.median([spent(1) for _ in range(repeats)]))
    submitted = min(SUBMITTED, repeats)
    throughput = min(spent(submitted) for _ in range(5)) / submitted
    # Multiplications by weights of hidden and output layers, and of the condition's once.
    operations = 2 * (points * ((HIDDEN - 1) * WIDTH * WIDTH + WIDTH * OUTPUTS) + CONDITION * WIDTH)
    return {
        "points": points,
        "evaluator": evaluator,
        "p50": p50,
        "throughput": throughput,
        "tflops": operations / throughput * 1e-9,
    }


def _torch_rows(
    weights: list[Float32], biases: list[Float32], positional: Float32, condition: Float32, network: OffsetMlp
) -> list[dict[str, Any]]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []

    def half(array: Float32) -> torch.Tensor:
        return torch.from_numpy(array).cuda().half()

    with torch.inference_mode():
        first = half(positional @ weights[0][:, :POSITIONAL].T + biases[0])
        share_weight, layers = (
            half(weights[0][:, POSITIONAL:].copy()),
            [(half(w.T.copy()), half(b)) for w, b in zip(weights[1:], biases[1:], strict=True)],
        )
        given = half(condition)

        def evaluate() -> torch.Tensor:
            x = torch.relu_(first + share_weight @ given)
            for weight, bias in layers[:-1]:
                x = torch.relu_(torch.addmm(bias, x, weight))
            return torch.addmm(layers[-1][1], x, layers[-1][0])

        expected = network.offsets(condition)
        error = np.abs(evaluate().float().cpu().numpy() - expected).max() / np.abs(expected).max()
        if error > 1e-2:
            raise RuntimeError(f"PyTorch's offsets differ by {error:.1e} of their scale: it is another network")
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                evaluate()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            evaluate()
        points = len(positional)
        return [
            _row(points, "torch eager", evaluate, torch.cuda.synchronize),
            _row(points, "torch graph", graph.replay, torch.cuda.synchronize),
        ]


if __name__ == "__main__":
    main()
