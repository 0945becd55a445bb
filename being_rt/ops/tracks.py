"""Motion that is refined along with an avatar: given tracks, corrections that are trained, and what those cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

Float64 = NDArray[np.float64]
_LEAST = 1e-8  # of a matrix' largest entry: what is smaller is taken for 0


class SparseRows(NamedTuple):
    """A matrix of which most is 0: entries ``starts[i]`` to ``starts[i + 1]`` are those of row i."""

    starts: Tensor  # int32 [rows + 1]
    columns: Tensor  # int32
    weights: Tensor

    @classmethod
    def of(cls, matrix: Float64, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> SparseRows:
        """The entries that are not 0."""
        rows, columns = np.nonzero(matrix)
        starts = np.searchsorted(rows, np.arange(len(matrix) + 1))
        return cls(
            torch.tensor(starts, dtype=torch.int32, device=device),
            torch.tensor(columns, dtype=torch.int32, device=device),
            torch.tensor(matrix[rows, columns], dtype=dtype, device=device),
        )


class TrackConstants(NamedTuple):
    """What a run knows of its tracks: T timesteps, C columns, n timesteps that are shown. Made by :meth:`of`."""

    given: Tensor  # [T, C]
    shown: Tensor  # [T] 1 or 0
    times: Tensor  # int32 [n] which are shown
    place: Tensor  # int32 [T] of a timestep among `times`; -1: it is not shown
    acceleration: Tensor  # [n - 2, 3] weights of three shown timesteps in a row
    closeness: Tensor  # [C] factors on changes before they are squared
    smoothness: Tensor  # [C] factors on accelerations
    slow: tuple[Tensor, ...]  # A, H and both transposed as sparse rows, three tensors each; empty: nothing is taken out

    @classmethod
    def of(
        cls,
        given: Tensor,
        times: NDArray[np.int64],
        acceleration: Float64,
        closeness: Float64,
        smoothness: Float64,
        slow: tuple[Float64, Float64] | None = None,
    ) -> TrackConstants:
        """Make them, on the device and in the type of ``given``.

        Args:
            given: [T, C], C at most 128.
            times: [n] timesteps that are shown, sorted.
            acceleration: [n - 2, 3] weights of each three of them in a row; [0, 3] where there are fewer.
            closeness, smoothness: [C], see :func:`track_costs`.
            slow: H [T, K] and A [K, T], whose product is what is slow in a sequence.

        Raises:
            InvalidParameterError: shapes that do not go together, or timesteps that are not sorted within 0..T-1.
        """
        check_float("TrackConstants", "given", given, (-1, -1))
        count, columns = given.shape
        if count == 0 or not 1 <= columns <= _C.operations.track_columns:
            raise InvalidParameterError(
                f"TrackConstants: needs a timestep and 1 to {_C.operations.track_columns} columns, "
                f"got {count} and {columns}"
            )
        if len(times) == 0 or times[0] < 0 or times[-1] >= count or (np.diff(times) <= 0).any():
            raise InvalidParameterError(f"TrackConstants: times must be sorted, one at least, within 0..{count - 1}")
        place = np.full(count, -1)
        place[times] = np.arange(len(times))
        tensors: tuple[Tensor, ...] = ()
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "acceleration": (acceleration, (max(0, len(times) - 2), 3)),
            "closeness": (closeness, (columns,)),
            "smoothness": (smoothness, (columns,)),
        }
        if slow is not None:
            hats, fit = slow
            shapes |= {"slow[0]": (hats, (count, len(fit))), "slow[1]": (fit, (len(fit), count))}
        for name, (values, shape) in shapes.items():
            if np.shape(values) != shape:
                raise InvalidParameterError(
                    f"TrackConstants: {name} must be {list(shape)}, got {list(np.shape(values))}"
                )
        if slow is not None:
            fit = np.where(np.abs(fit) < _LEAST * np.abs(fit).max(), 0.0, fit)
            for matrix in (fit, hats, fit.T, hats.T):
                tensors += SparseRows.of(matrix, given.device, given.dtype)

        def floats(values: Any) -> Tensor:
            return torch.tensor(values, dtype=given.dtype, device=given.device)

        def integers(values: Any) -> Tensor:
            return torch.tensor(values, dtype=torch.int32, device=given.device)

        return cls(
            given,
            floats(place >= 0),
            integers(times),
            integers(place),
            floats(acceleration),
            floats(closeness),
            floats(smoothness),
            tensors,
        )


def correct_tracks(constants: TrackConstants, corrections: Sequence[Tensor]) -> Tensor:
    """Add corrections to given tracks, at timesteps that are shown, without what is slow in them.

    With x the corrections side by side, H and A the matrices of ``slow``: ``given + shown (x - H A x)``. Gradients
    reach the corrections. All tensors are contiguous, of one float type (float32; on the CPU float64 as well) and on
    one device.

    Args:
        constants: from :meth:`TrackConstants.of`.
        corrections: [T, width] each, at most 7; the widths add up to C.

    Returns:
        [T, C].

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Example::

        values = correct_tracks(constants, [expression, rotation])
        costs = track_costs(constants, values)
    """
    given = constants.given
    if len(corrections) > _C.operations.track_parts:
        raise InvalidParameterError(
            f"correct_tracks: takes {_C.operations.track_parts} corrections at most, got {len(corrections)}"
        )
    for k, correction in enumerate(corrections):
        check("correct_tracks", f"corrections[{k}]", correction, (len(given), -1), given.dtype)
    columns = sum(correction.shape[1] for correction in corrections)
    if columns != given.shape[1]:
        raise InvalidParameterError(
            f"correct_tracks: corrections must have {given.shape[1]} columns in all, got {columns}"
        )
    values: Tensor = _correct(list(corrections), given, constants.shown, list(constants.slow))
    return values


class TrackCosts(NamedTuple):
    """What corrections cost, scalars."""

    closeness: Tensor
    smoothness: Tensor


def track_costs(constants: TrackConstants, values: Tensor) -> TrackCosts:
    """How far tracks are from the given ones, and how they jerk.

    ``sum (closeness (values - given))^2`` and ``sum (smoothness acceleration)^2``, the acceleration a weighted sum of
    three shown timesteps in a row. Gradients reach the values.

    Args:
        constants: from :meth:`TrackConstants.of`.
        values: [T, C] from :func:`correct_tracks`; requirements as there, as for what is raised.

    Example::

        sum(track_costs(constants, values)).backward()
    """
    check("track_costs", "values", values, constants.given.shape, constants.given.dtype)
    closeness, smoothness = _costs(values, *(getattr(constants, name) for name in _COST_CONSTANTS))
    return TrackCosts(closeness, smoothness)


def gather_motion(values: Tensor, timestep: Tensor, widths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows of a motion, one for each frame of a batch, cut into four tensors. The gradient has a fixed order.

    Args:
        values: [T, C], contiguous, C at most 128.
        timestep: int64 [B], 0..T-1. The CPU checks it here; on CUDA that would have to wait for the device.
        widths: of the four, C in all.

    Returns:
        [B, width] each.

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous; widths that
            are not four, or not C in all; a timestep outside 0..T-1 (see there).
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Example::

        expression, rotations, translation, eyelids = gather_motion(values, timestep, (100, 15, 3, 2))
    """
    check_float("gather_motion", "values", values, (-1, -1))
    check("gather_motion", "timestep", timestep, (-1,), torch.int64)
    count, columns = values.shape
    if len(widths) != _C.operations.motion_parts or min(widths) < 0 or sum(widths) != columns:
        raise InvalidParameterError(
            f"gather_motion: widths must be {_C.operations.motion_parts} that add up to {columns}, got {list(widths)}"
        )
    if columns > _C.operations.track_columns or 0 in (count, columns, len(timestep)):
        raise InvalidParameterError(
            f"gather_motion: needs a timestep, a frame and 1 to {_C.operations.track_columns} columns, "
            f"got {count}, {len(timestep)} and {columns}"
        )
    if timestep.device.type == "cpu":
        least, greatest = (int(value) for value in timestep.aminmax())
        if least < 0 or greatest >= count:
            raise InvalidParameterError(
                f"gather_motion: timestep must lie in 0..{count - 1}, has values from {least} to {greatest}"
            )
    parts: tuple[Tensor, Tensor, Tensor, Tensor] = _gather(values, timestep, list(widths))
    return parts


# --------------------------------------------------------------------------------------------------- corrected tracks


@operator("correct_tracks")
def _correct(corrections: list[Tensor], given: Tensor, shown: Tensor, slow: list[Tensor]) -> Tensor:
    values = torch.empty_like(given)
    sizes, fit, hats, *_ = _shared(corrections, given.shape, slow)
    call(
        "tracks",
        given,
        **{f"correction_{k}": tensor for k, tensor in enumerate(_filled(corrections))},
        **sizes,
        **fit,
        **hats,
        given=given,
        shown=shown,
        knot=given.new_empty(sizes["knots"], given.shape[1]),
        values=values,
    )
    return values


@_correct.register_fake
def _(corrections: list[Tensor], given: Tensor, shown: Tensor, slow: list[Tensor]) -> Tensor:
    return torch.empty_like(given)


@gradient_operator("correct_tracks_backward")
def _correct_backward(
    d_values: Tensor, corrections: list[Tensor], shown: Tensor, slow: list[Tensor], wanted: list[bool]
) -> list[Tensor]:
    """Gradients of the corrections, empty where they are not wanted."""
    gradients = _gradients(corrections, wanted)
    slopes = _filled([gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)])
    sizes, _, _, fit, hats = _shared(corrections, d_values.shape, slow)
    call(
        "tracks_backward",
        d_values,
        **{f"d_correction_{k}": slope for k, slope in enumerate(slopes)},
        **sizes,
        **fit,
        **hats,
        shown=shown,
        d_values=d_values,
        d_knot=d_values.new_empty(sizes["knots"], d_values.shape[1]),
    )
    return gradients


@_correct_backward.register_fake
def _(
    d_values: Tensor, corrections: list[Tensor], shown: Tensor, slow: list[Tensor], wanted: list[bool]
) -> list[Tensor]:
    return _gradients(corrections, wanted)


def _gradients(corrections: list[Tensor], wanted: list[bool]) -> list[Tensor]:
    return [torch.empty_like(c) if want else c.new_empty(0) for c, want in zip(corrections, wanted, strict=True)]


def _filled(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """As many as the core takes."""
    return [*tensors, *[None] * (_C.operations.track_parts - len(tensors))]


def _shared(corrections: list[Tensor], shape: torch.Size, slow: list[Tensor]) -> list[dict[str, Any]]:
    """Arguments of both directions: sizes; then A, H, and both transposed."""
    widths = [0 if tensor is None else tensor.shape[1] for tensor in _filled(corrections)]
    sizes: dict[str, Any] = {f"width_{k}": width for k, width in enumerate(widths)}
    sizes |= {"timesteps": shape[0], "columns": shape[1], "knots": len(slow[0]) - 1 if slow else 0}
    results, tensors = [sizes], iter(slow)
    for name in ("fit", "hats", "fit_transposed", "hats_transposed"):
        results.append({f"{name}_{field}": next(tensors, None) for field in SparseRows._fields})
    return results


def _setup_correct(ctx: Any, inputs: tuple[list[Tensor], Tensor, Tensor, list[Tensor]], output: Tensor) -> None:
    corrections, _, shown, slow = inputs
    ctx.count = len(corrections)
    ctx.save_for_backward(*corrections, shown, *slow)


def _differentiate_correct(ctx: Any, d_values: Tensor) -> tuple[Any, ...]:
    wanted, saved = ctx.needs_input_grad[0], ctx.saved_tensors
    corrections, shown, slow = saved[: ctx.count], saved[ctx.count], saved[ctx.count + 1 :]
    gradients = _correct_backward(d_values.contiguous(), corrections, shown, slow, wanted)
    by_corrections = [gradient if want else None for gradient, want in zip(gradients, wanted, strict=True)]
    return by_corrections, None, None, [None] * len(slow)


_correct.register_autograd(_differentiate_correct, setup_context=_setup_correct)


# --------------------------------------------------------------------------------------------------------------- costs

_COST_CONSTANTS = ("given", "times", "place", "acceleration", "closeness", "smoothness")


@operator("track_costs")
def _costs(
    values: Tensor,
    given: Tensor,
    times: Tensor,
    place: Tensor,
    acceleration: Tensor,
    closeness: Tensor,
    smoothness: Tensor,
) -> tuple[Tensor, Tensor]:
    costs = values.new_empty(()), values.new_empty(())
    constants = (given, times, place, acceleration, closeness, smoothness)
    _call_costs("track_costs", values, constants, share=values.new_empty(len(values), 2), costs=costs)
    return costs


@_costs.register_fake
def _(
    values: Tensor,
    given: Tensor,
    times: Tensor,
    place: Tensor,
    acceleration: Tensor,
    closeness: Tensor,
    smoothness: Tensor,
) -> tuple[Tensor, Tensor]:
    return values.new_empty(()), values.new_empty(())


@gradient_operator("track_costs_backward")
def _costs_backward(
    d_closeness: Tensor | None,
    d_smoothness: Tensor | None,
    values: Tensor,
    given: Tensor,
    times: Tensor,
    place: Tensor,
    acceleration: Tensor,
    closeness: Tensor,
    smoothness: Tensor,
) -> Tensor:
    d_values = torch.empty_like(values)
    constants = (given, times, place, acceleration, closeness, smoothness)
    d_costs = (d_closeness, d_smoothness)
    _call_costs("track_costs_backward", values, constants, d_costs=d_costs, d_values=d_values)
    return d_values


@_costs_backward.register_fake
def _(
    d_closeness: Tensor | None,
    d_smoothness: Tensor | None,
    values: Tensor,
    given: Tensor,
    times: Tensor,
    place: Tensor,
    acceleration: Tensor,
    closeness: Tensor,
    smoothness: Tensor,
) -> Tensor:
    return torch.empty_like(values)


def _call_costs(
    name: str,
    values: Tensor,
    constants: tuple[Tensor, ...],
    share: Tensor | None = None,
    costs: tuple[Tensor | None, Tensor | None] = (None, None),
    d_costs: tuple[Tensor | None, Tensor | None] = (None, None),
    d_values: Tensor | None = None,
) -> None:
    given, times, place, acceleration, closeness, smoothness = constants
    call(
        name,
        values,
        values=values,
        given=given,
        times=times,
        place=place,
        acceleration=acceleration,
        closeness_factors=closeness,
        smoothness_factors=smoothness,
        timesteps=values.shape[0],
        columns=values.shape[1],
        triples=len(acceleration),
        share=share,
        closeness=costs[0],
        smoothness=costs[1],
        d_closeness=d_costs[0],
        d_smoothness=d_costs[1],
        d_values=d_values,
    )


def _setup_costs(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _differentiate_costs(ctx: Any, *d_costs: Tensor | None) -> tuple[Tensor | None, ...]:
    none = (None,) * len(_COST_CONSTANTS)
    if all(d is None for d in d_costs):
        return None, *none
    return _costs_backward(*(d if d is None else d.contiguous() for d in d_costs), *ctx.saved_tensors), *none


_costs.register_autograd(_differentiate_costs, setup_context=_setup_costs)


# ----------------------------------------------------------------------------------------------------------- gathering


@operator("gather_motion")
def _gather(values: Tensor, timestep: Tensor, widths: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    parts = _parts(values, timestep, widths)
    _call_motion("motion", values, values.shape, timestep, parts, widths, values=values, d_values=None)
    return parts


@_gather.register_fake
def _(values: Tensor, timestep: Tensor, widths: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _parts(values, timestep, widths)


def _parts(values: Tensor, timestep: Tensor, widths: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c, d = (values.new_empty(timestep.shape[0], width) for width in widths)
    return a, b, c, d


@gradient_operator("gather_motion_backward")
def _gather_backward(
    first: Tensor | None,
    second: Tensor | None,
    third: Tensor | None,
    fourth: Tensor | None,
    timestep: Tensor,
    widths: list[int],
    timesteps: int,
) -> Tensor:
    parts = (first, second, third, fourth)
    like = next(part for part in parts if part is not None)
    d_values = like.new_empty(timesteps, sum(widths))
    _call_motion("motion_backward", like, d_values.shape, timestep, parts, widths, values=None, d_values=d_values)
    return d_values


@_gather_backward.register_fake
def _(
    first: Tensor | None,
    second: Tensor | None,
    third: Tensor | None,
    fourth: Tensor | None,
    timestep: Tensor,
    widths: list[int],
    timesteps: int,
) -> Tensor:
    like = next(part for part in (first, second, third, fourth) if part is not None)
    return like.new_empty(timesteps, sum(widths))


def _call_motion(
    name: str,
    like: Tensor,
    shape: torch.Size,
    timestep: Tensor,
    parts: Sequence[Tensor | None],
    widths: list[int],
    **tensors: Tensor | None,
) -> None:
    call(
        name,
        like,
        timestep=timestep,
        **{f"part_{k}": part for k, part in enumerate(parts)},
        **{f"width_{k}": width for k, width in enumerate(widths)},
        frames=len(timestep),
        timesteps=shape[0],
        columns=shape[1],
        **tensors,
    )


def _setup_gather(ctx: Any, inputs: tuple[Tensor, Tensor, list[int]], output: tuple[Tensor, ...]) -> None:
    values, timestep, ctx.widths = inputs
    ctx.timesteps = values.shape[0]
    ctx.save_for_backward(timestep)
    ctx.set_materialize_grads(False)


def _differentiate_gather(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, None, None]:
    if all(slope is None for slope in slopes):
        return None, None, None
    given = (slope if slope is None else slope.contiguous() for slope in slopes)
    return _gather_backward(*given, *ctx.saved_tensors, ctx.widths, ctx.timesteps), None, None


_gather.register_autograd(_differentiate_gather, setup_context=_setup_gather)
