"""Refined tracks: values and derivatives against plain PyTorch, gathered rows, precision, refusals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from being_rt.errors import InvalidParameterError
from being_rt.ops.tracks import SparseRows, TrackConstants, correct_tracks, gather_motion, track_costs

DOUBLE = torch.float64
WIDTHS = (5, 3, 1)


class CorrectedTracks(NamedTuple):
    """Everything that comes out."""

    values: Tensor
    closeness: Tensor
    smoothness: Tensor


def corrected(constants: TrackConstants, corrections: list[Tensor]) -> CorrectedTracks:
    values = correct_tracks(constants, corrections)
    return CorrectedTracks(values, *track_costs(constants, values))


class Case(NamedTuple):
    """What constants are made of."""

    given: Tensor
    times: np.ndarray
    acceleration: np.ndarray
    closeness: np.ndarray
    smoothness: np.ndarray
    slow: tuple[np.ndarray, np.ndarray] | None

    def constants(self, device: str = "cpu", dtype: torch.dtype = DOUBLE) -> TrackConstants:
        return TrackConstants.of(self.given.to(device, dtype), *self[1:])


def make_case(count: int = 40, slow: bool = True) -> Case:
    """Every third timestep is not shown; lines between six knots are slow."""
    random = np.random.default_rng(0)
    times = np.flatnonzero(np.arange(count) % 3 != 1) if count > 2 else np.arange(count)
    hats = np.maximum(0, 1 - np.abs(np.arange(count)[:, None] - np.linspace(0, count - 1, 6)) / max(1, count - 1) * 5)
    fit = np.zeros((6, count))
    fit[:, times] = np.linalg.pinv(hats[times])
    return Case(
        torch.tensor(random.normal(size=(count, sum(WIDTHS)))),
        times,
        random.normal(size=(max(0, len(times) - 2), 3)),
        random.uniform(0.1, 1, sum(WIDTHS)),
        random.uniform(0.1, 1, sum(WIDTHS)),
        (hats, fit) if slow else None,
    )


def make_corrections(count: int, device: str = "cpu", dtype: torch.dtype = DOUBLE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, width, dtype=DOUBLE, generator=generator).to(device, dtype) for width in WIDTHS]


def plain(case: Case, corrections: list[Tensor]) -> CorrectedTracks:
    x = torch.cat(corrections, dim=1)
    if case.slow is not None:
        hats, fit = (torch.tensor(matrix) for matrix in case.slow)
        x = x - hats @ (fit @ x)
    shown = torch.zeros(len(case.given), 1, dtype=DOUBLE)
    shown[case.times] = 1
    change = shown * x
    values = case.given + change
    rows, weights = values[case.times], torch.tensor(case.acceleration)[:, :, None]
    triples = torch.stack([rows[:-2], rows[1:-1], rows[2:]], 1) if len(rows) > 2 else rows.new_zeros(0, 3, x.shape[1])
    return CorrectedTracks(
        values,
        (torch.tensor(case.closeness) * change).square().sum(),
        (torch.tensor(case.smoothness) * (weights * triples).sum(1)).square().sum(),
    )


def gradients(function, corrections: list[Tensor], of: tuple[float, float, float]) -> tuple[Tensor, ...]:
    """The results, and the gradients of a linear function of them; a factor of 0 leaves its part out."""
    leaves = [value.clone().requires_grad_() for value in corrections]
    results = function(leaves)
    slope = torch.randn(results.values.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    parts = [(slope.to(results.values) * results.values).sum(), results.closeness, results.smoothness]
    total = sum(factor * part for factor, part in zip(of, parts, strict=True) if factor)
    return *(result.detach() for result in results), *torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("of", [(1.0, 2.0, 3.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_corrected_tracks_are_those_of_pytorch(slow: bool, of: tuple[float, float, float]) -> None:
    case, corrections = make_case(slow=slow), make_corrections(40)
    expected = gradients(lambda leaves: plain(case, leaves), corrections, of)
    got = gradients(lambda leaves: corrected(case.constants(), leaves), corrections, of)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)  # what is small in A is left out
    constants = case.constants(dtype=torch.float32)
    single = gradients(lambda leaves: corrected(constants, leaves), make_corrections(40, "cpu", torch.float32), of)
    for a, b in zip(single, expected, strict=True):
        assert (a.double() - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_timesteps(count: int) -> None:
    case, corrections = make_case(count, slow=False), make_corrections(count)
    of = (1.0, 1.0, 1.0)
    expected = gradients(lambda leaves: plain(case, leaves), corrections, of)
    got = gradients(lambda leaves: corrected(case.constants(), leaves), corrections, of)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_gradcheck_and_a_correction_that_is_not_trained() -> None:
    constants = make_case(9).constants()
    first, fixed, last = make_corrections(9)

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return corrected(constants, [a, fixed, b])

    assert gradcheck(function, (first.requires_grad_(), last.requires_grad_()))


def test_sparse_rows() -> None:
    rows = SparseRows.of(np.array([[0, 2.0, 0, 3], [0, 0, 0, 0], [4, 0, 0, 0]]))
    assert rows.starts.tolist() == [0, 2, 2, 3]
    assert rows.columns.tolist() == [1, 3, 0]
    assert rows.weights.tolist() == [2, 3, 4]


def test_constants_refuse() -> None:
    case = make_case()
    with pytest.raises(InvalidParameterError, match=r"times must be sorted, one at least, within 0\.\.39"):
        case._replace(times=case.times[::-1]).constants()
    with pytest.raises(InvalidParameterError, match="times must be sorted"):
        case._replace(times=np.array([3, 40])).constants()
    with pytest.raises(InvalidParameterError, match=r"acceleration must be \[25, 3\], got \[24, 3\]"):
        case._replace(acceleration=case.acceleration[1:]).constants()
    with pytest.raises(InvalidParameterError, match=r"closeness must be \[9\]"):
        case._replace(closeness=case.closeness[1:]).constants()
    hats, fit = make_case().slow or (None, None)
    with pytest.raises(InvalidParameterError, match=r"slow\[1\] must be \[6, 40\]"):
        case._replace(slow=(hats, fit[:, 1:])).constants()
    with pytest.raises(InvalidParameterError, match="1 to 128 columns, got 4 and 129"):
        case._replace(given=torch.zeros(4, 129)).constants()


def test_correct_tracks_refuses() -> None:
    constants, corrections = make_case().constants(), make_corrections(40)
    with pytest.raises(InvalidParameterError, match="9 columns in all, got 8"):
        correct_tracks(constants, corrections[:2])
    with pytest.raises(InvalidParameterError, match=r"corrections\[1\] must be float64 \[40, any\]"):
        correct_tracks(constants, [corrections[0], corrections[1].float(), corrections[2]])
    with pytest.raises(InvalidParameterError, match="7 corrections at most, got 9"):
        correct_tracks(constants, [corrections[2]] * 9)
    with pytest.raises(InvalidParameterError, match="correction_0 must be contiguous"):
        correct_tracks(constants, [corrections[0].T.contiguous().T, *corrections[1:]])
    with pytest.raises(InvalidParameterError, match=r"values must be float64 \[40, 9\]"):
        track_costs(constants, constants.given[1:])


# ----------------------------------------------------------------------------------------------------------- gathering

PARTS = (4, 0, 3, 2)


def motion(count: int = 12) -> tuple[Tensor, Tensor]:
    """Values, and timesteps of which some are taken twice and most not at all."""
    values = torch.randn(count, sum(PARTS), dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    return values, torch.tensor([3, 0, 3, count - 1, 3]) % count


@pytest.mark.parametrize("count", [1, 12])
def test_rows_are_gathered(count: int) -> None:
    values, timestep = motion(count)
    parts = gather_motion(values, timestep, PARTS)
    for part, expected in zip(parts, values[timestep].split(PARTS, 1), strict=True):
        assert torch.equal(part, expected)
    assert gradcheck(lambda values: gather_motion(values, timestep, PARTS), values.requires_grad_())


def test_rows_of_which_some_are_not_used() -> None:
    values, timestep = motion()
    values.requires_grad_()
    third = gather_motion(values, timestep, PARTS)[2]
    slope = torch.randn(third.shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
    (got,) = torch.autograd.grad((slope * third).sum(), values)
    (expected,) = torch.autograd.grad((slope * values[timestep][:, 4:7]).sum(), values)
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=1e-14)


def test_gathering_refuses() -> None:
    values, timestep = motion()
    with pytest.raises(InvalidParameterError, match=r"timestep must be int64 \[any\]"):
        gather_motion(values, timestep.int(), PARTS)
    with pytest.raises(InvalidParameterError, match=r"0\.\.11, has values from 1 to 12"):
        gather_motion(values, timestep + 1, PARTS)
    with pytest.raises(InvalidParameterError, match="widths must be 4 that add up to 9"):
        gather_motion(values, timestep, (4, 3, 3, 2))
    with pytest.raises(InvalidParameterError, match="needs a timestep, a frame"):
        gather_motion(values, timestep[:0], PARTS)


# ---------------------------------------------------------------------------------------------------------------- CUDA


@pytest.mark.gpu
@pytest.mark.parametrize("slow", [True, False])
def test_cuda_is_the_cpu(slow: bool) -> None:
    of = (1.0, 2.0, 3.0)
    for count in (1, 40, 1500):
        case = make_case(count, slow=slow and count > 1)
        expected = gradients(lambda leaves, case=case: plain(case, leaves), make_corrections(count), of)
        constants = case.constants("cuda", torch.float32)
        given = make_corrections(count, "cuda", torch.float32)
        got, again = (gradients(lambda leaves: corrected(constants, leaves), given, of) for _ in range(2))  # noqa: B023
        for a, b, c in zip(got, expected, again, strict=True):
            assert (a.cpu().double() - b).abs().max() <= 2e-5 * b.abs().max()
            assert torch.equal(a, c)


@pytest.mark.gpu
def test_cuda_gathers() -> None:
    values, timestep = motion()
    results = []
    for device in ("cpu", "cuda"):
        leaf = values.float().to(device).requires_grad_()
        parts = gather_motion(leaf, timestep.to(device), PARTS)
        sum((k + 1) * part.square().sum() for k, part in enumerate(parts)).backward()
        results.append((*parts, leaf.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b.cpu())
