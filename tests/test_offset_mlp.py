"""The offset network on both devices against plain NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from being_rt import _C
from being_rt.errors import BeingError, DeviceError, InvalidParameterError
from being_rt.offset_mlp import OffsetMlp

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Sizes of a network; weights follow He's rule, so that activations keep their scale from layer to layer."""

    points: int = 100
    positional: int = 51
    condition: int = 120
    width: int = 256
    hidden: int = 6
    outputs: int = 10

    def make(self, seed: int = 0) -> tuple[list, list, NDArray[np.float32]]:
        random = np.random.default_rng(seed)
        sizes = [self.positional + self.condition, *[self.width] * self.hidden, self.outputs]
        weights = [
            (random.standard_normal((after, before)) * np.sqrt(2 / before)).astype(np.float32)
            for before, after in pairwise(sizes)
        ]
        biases = [(random.standard_normal(after) * 0.1).astype(np.float32) for after in sizes[1:]]
        return weights, biases, random.uniform(-1, 1, (self.points, self.positional)).astype(np.float32)

    def make_condition(self, seed: int = 1) -> NDArray[np.float32]:
        return np.random.default_rng(seed).standard_normal(self.condition).astype(np.float32)


def evaluate(weights: list, biases: list, positional: NDArray, condition: NDArray, rounded: bool = False) -> Float64:
    """The definition, in float64; ``rounded``: weights and activations rounded to half floats where CUDA does."""

    def half(x: Float64) -> Float64:
        return x.astype(np.float16).astype(np.float64) if rounded else x

    weights64, biases64 = [w.astype(np.float64) for w in weights], [b.astype(np.float64) for b in biases]
    inputs = positional.shape[1]
    x = half(positional.astype(np.float64) @ weights64[0][:, :inputs].T + biases64[0])
    x = x + half(weights64[0][:, inputs:]) @ condition.astype(np.float64)
    for weight, bias in zip(weights64[1:], biases64[1:], strict=True):
        x = half(np.maximum(x, 0)) @ half(weight).T + bias
    return x


def largest_error(result: NDArray, expected: Float64) -> float:
    """Relative to the scale of the output."""
    assert result.shape == expected.shape
    return float(np.abs(result - expected).max() / np.abs(expected).max())


# ---------------------------------------------------------------- CPU


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        Case,
        points=st.integers(1, 60),
        positional=st.integers(1, 256),
        condition=st.integers(1, 256),
        width=st.integers(1, 256),
        hidden=st.integers(1, 7),
        outputs=st.integers(1, 16),
    ),
    st.integers(0, 2**32 - 1),
)
def test_cpu_is_the_definition(case: Case, seed: int) -> None:
    network, condition = case.make(seed), case.make_condition(seed)
    expected = evaluate(*network, condition)
    result = OffsetMlp(*network, device="cpu").offsets(condition)
    assert result.dtype == np.float32
    # Biases alone set the scale where a narrow network's ReLUs are all shut.
    assert np.abs(result - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


def test_cpu_in_several_chunks() -> None:
    case = Case(points=9000, width=33, hidden=2)
    network = case.make()
    evaluator = OffsetMlp(*network, device="cpu")
    for seed in (1, 2, 1):
        condition = case.make_condition(seed)
        assert largest_error(evaluator.offsets(condition), evaluate(*network, condition)) < 1e-5


# ---------------------------------------------------------------- errors


def change(array: NDArray, value: float) -> NDArray:
    array = array.copy()
    array.flat[3] = value
    return array


@pytest.mark.parametrize(
    ("weights", "biases", "positional", "message"),
    [
        (lambda w: w[:1], lambda b: b[:1], None, "two or more, got 1 and 1"),
        (None, lambda b: b[:-1], None, "got 7 and 6"),
        (lambda w: [*w[:2], w[2][:, :-1], *w[3:]], None, None, r"weights\[2\] must be float32 \[256, 256\]"),
        (lambda w: [w[0].astype(np.float64), *w[1:]], None, None, r"weights\[0\] must be float32 .* got float64"),
        (lambda w: [*w[:-1], change(w[-1], np.nan)], None, None, r"weights\[6\] has values that are NaN"),
        (lambda w: [change(w[0], 7e4), *w[1:]], None, None, r"weights\[0\] has values beyond 65504"),
        (None, lambda b: [*b[:-1], b[-1][:-1]], None, r"biases\[6\] must be float32 \[10\]"),
        (None, lambda b: [change(b[0], np.inf), *b[1:]], None, r"biases\[0\] has values that are NaN or infinite"),
        (None, None, lambda p: p[:0], "the number of points must be 1 to 4000000, got 0"),
        (None, None, lambda p: p[:, :0], "the number of positional inputs must be 1 to 256, got 0"),
        (None, None, lambda p: np.tile(p, (1, 4)), "the number of condition inputs must be 1 to 256, got -33"),
        (None, None, lambda p: change(p, np.nan), "positional has values that are NaN"),
        (None, None, lambda p: p[0], r"positional must be float32 \[N, P\]"),
    ],
)
def test_wrong_networks(weights, biases, positional, message: str) -> None:
    w, b, p = Case(points=5).make()
    given_arrays = (weights(w) if weights else w, biases(b) if biases else b, positional(p) if positional else p)
    with pytest.raises(InvalidParameterError, match=message):
        OffsetMlp(*given_arrays, device="cpu")


@pytest.mark.parametrize("sizes", [{"width": 257}, {"outputs": 17}])
def test_sizes_beyond_the_limit(sizes: dict[str, int]) -> None:
    with pytest.raises(InvalidParameterError, match=f"must be 1 to .*, got {next(iter(sizes.values()))}"):
        OffsetMlp(*Case(points=5, **sizes).make(), device="cpu")


def test_unknown_device() -> None:
    with pytest.raises(InvalidParameterError, match="device must be 'cuda' or 'cpu', got 'tpu'"):
        OffsetMlp(*Case(points=5).make(), device="tpu")  # type: ignore[arg-type]


def check_conditions(evaluator: OffsetMlp, case: Case) -> None:
    condition = case.make_condition()
    for wrong, message in (
        (change(condition, np.nan), "condition has values that are NaN or infinite"),
        (condition[:-1], rf"condition must be float32 \[{case.condition}\], got float32 \[{case.condition - 1}\]"),
        (condition.astype(np.float64), "got float64"),
        (condition.tolist(), "got list"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            evaluator.offsets(wrong)  # type: ignore[arg-type]


def test_wrong_conditions() -> None:
    case = Case(points=5)
    check_conditions(OffsetMlp(*case.make(), device="cpu"), case)


@pytest.mark.skipif(_C.cuda_built, reason="a build without the CUDA part")
def test_no_cuda_part() -> None:
    with pytest.raises(DeviceError, match="has no CUDA part; use device='cpu'"):
        OffsetMlp(*Case(points=5).make(), device="cuda")


# ---------------------------------------------------------------- CUDA

CASES = [
    Case(points=13453),
    *[Case(points=points) for points in (1, 15, 16, 17, 1000)],
    *[Case(width=width, points=777) for width in (1, 16, 33, 64, 65, 100, 128, 129, 200, 255)],
    *[Case(hidden=hidden, points=300) for hidden in (1, 2, 3, 7)],
    *[Case(hidden=hidden, points=300, width=33) for hidden in (1, 7)],
    *[Case(outputs=outputs, points=333, width=64) for outputs in (1, 2, 7, 8, 9, 15, 16)],
    *[Case(positional=p, condition=c) for p, c in ((1, 1), (1, 256), (256, 1), (256, 256), (3, 7), (2, 9))],
    *[Case(positional=3, condition=5, width=width, points=30000) for width in (64, 128)],
    *[Case(points=points, hidden=2) for points in (8448, 8449, 10561, 12672, 14784, 16896, 16897, 50000)],
]


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuda_is_the_definition(case: Case) -> None:
    network = case.make()
    evaluator = OffsetMlp(*network, device="cuda")
    previous = None
    for seed in (1, 2, 1):
        condition = case.make_condition(seed)
        expected = evaluate(*network, condition)
        result = evaluator.offsets(condition)
        half_error = largest_error(evaluate(*network, condition, rounded=True), expected)
        assert largest_error(result, expected) <= max(2 * half_error, 1e-5)
        assert largest_error(result, expected) <= 3e-3
        if seed == 1:
            assert previous is None or np.array_equal(result, previous)
            previous = result


@pytest.mark.gpu
def test_cuda_repeats_every_bit() -> None:
    case = Case(points=20000)
    network, condition = case.make(), case.make_condition()
    first, second = OffsetMlp(*network), OffsetMlp(*network)
    expected = first.offsets(condition)
    assert all(np.array_equal(evaluator.offsets(condition), expected) for evaluator in (first, second) * 10)


@pytest.mark.gpu
def test_cuda_takes_strided_arrays() -> None:
    case = Case(points=40)
    weights, biases, positional = case.make()
    condition = case.make_condition()
    expected = OffsetMlp(weights, biases, positional).offsets(condition)
    strided = OffsetMlp([np.asfortranarray(w) for w in weights], biases, np.asfortranarray(positional))
    assert np.array_equal(strided.offsets(np.repeat(condition, 2)[::2]), expected)


@pytest.mark.gpu
def test_cuda_refuses_before_it_launches() -> None:
    case = Case(points=5)
    network = case.make()
    evaluator = OffsetMlp(*network)
    expected = evaluator.offsets(case.make_condition())
    check_conditions(evaluator, case)
    with pytest.raises(BeingError):
        evaluator._native.evaluate(change(case.make_condition(), np.nan), None)
    assert np.array_equal(evaluator.offsets(case.make_condition()), expected)


@pytest.mark.gpu
def test_result_on_the_device() -> None:
    case = Case(points=100)
    evaluator = OffsetMlp(*case.make())
    assert evaluator._native.shape == (100, 10)
    assert evaluator._native.pointer % 256 == 0
    evaluator._native.evaluate(case.make_condition())
    evaluator._native.synchronize()


@pytest.mark.gpu
def test_native_class_checks_for_itself() -> None:
    weights, biases, positional = Case(points=5).make()
    with pytest.raises(InvalidParameterError, match="two or more"):
        _C.OffsetMlp(weights, biases[:-1], positional)
    with pytest.raises(InvalidParameterError, match=r"weights\[1\] must be float32 \[256, 256\]"):
        _C.OffsetMlp([weights[0], weights[1][:-1].copy(), *weights[2:]], biases, positional)
    with pytest.raises(DeviceError, match="99"):
        _C.OffsetMlp(weights, biases, positional, 99)
