"""Rasterizing: splats to the sums that blending leaves in each pixel, differentiably."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check_float
from being_rt.ops.operators import gradient_operator, operator

SPLAT_FLOATS = 12
SUM_FLOATS = 5
LARGEST_PICTURE = 8192  # px a side
TRANSMITTANCE_STOP = 1 / 1024  # as kernels/config.h has it


def rasterize(
    splats: Tensor, size: tuple[int, int], stop: float = TRANSMITTANCE_STOP, workspace: Workspace | None = None
) -> Tensor:
    """Blend splats from front to back.

    ``alpha_i = min(0.999, o_i exp(-1/2 d^T Q d))`` with d from the mean to the pixel's centre and Q the conic, skipped
    below 1/255; ``T_i = prod_{j<i} (1 - alpha_j)``; the sums are ``sum_i T_i alpha_i (red, green, blue, 1, depth)``.
    Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, equations 2 and 3; the
    derivative is in ``kernels/common/blend.h``. The readable twin is :func:`being_rt.reference.rasterize`, with
    ``stop`` 0 and with the mean of depth instead of its sum.

    Where alpha is skipped or at its limit, opacity, mean and conic get no gradient from that pixel. Nothing is drawn of
    splats whose opacity is below 1/255, whose conic is not positive definite, or that hold a value that is not finite
    in place of mean, conic, opacity or depth; they get zeros. Results are the same to the bit from run to run.

    Args:
        splats: float32 (float64: CPU only) [B, N, 12], contiguous: x, y (px), conic a, b, c (``[[a, b], [b, c]]``,
            px^-2), opacity 0..1, red, green, blue, depth (metres), and two numbers that are not read. Any order; equal
            depths keep theirs.
        size: width, height of the picture in px, 1 to 8192.
        stop: a pixel takes no further splat once its transmittance is below, by default where the renderer stops, too;
            0: all of them.
        workspace: on CUDA, fixed room for what is drawn, which a CUDA graph needs; None: as much as it takes, for which
            the host waits for the device. The CPU takes what it needs.

    Returns:
        [B, H, W, 5]: red, green, blue (premultiplied by alpha), alpha, and depth weighted like a colour, for which see
        :func:`layer_depth`.

    Raises:
        InvalidParameterError: wrong shape or dtype, not contiguous, or a size or stop out of range.

    Example::

        sums = rasterize(project(...), (512, 512))
        (sums[..., :3] - target).abs().mean().backward()
    """
    width, height = size
    check_float("rasterize", "splats", splats, (-1, -1, SPLAT_FLOATS))
    if not (1 <= width <= LARGEST_PICTURE and 1 <= height <= LARGEST_PICTURE):
        raise InvalidParameterError(f"rasterize: size must be 1 to {LARGEST_PICTURE} px a side, got {width} x {height}")
    if not 0 <= stop < 1:
        raise InvalidParameterError(f"rasterize: stop must be at least 0 and below 1, got {stop}")
    outputs = _rasterize(splats, width, height, stop, -1 if workspace is None else workspace.capacity)
    if workspace is not None and splats.is_cuda:
        workspace.add(outputs[1])
    sums: Tensor = outputs[0]
    return sums


class Workspace:
    """Room for the instances (a splat in a tile of 8 x 8 px) of calls of :func:`rasterize` on a CUDA device.

    A call that needs more than ``capacity`` draws nothing, has gradients of 0 and says so in ``status``, without the
    host's having to wait: read it now and then, and go on with a larger workspace.

    Args:
        capacity: instances of all frames of a call, 0 to 2^31 - 1.
        device: of the status.

    Raises:
        InvalidParameterError: capacity out of range.

    Example::

        workspace = Workspace(2_000_000, "cuda")
        sums = rasterize(splats, (512, 512), workspace=workspace)
        needed, overflow = workspace.status.tolist()
    """

    def __init__(self, capacity: int, device: torch.device | str) -> None:
        if not 0 <= capacity < 2**31:
            raise InvalidParameterError(f"Workspace: capacity must be 0 to {2**31 - 1}, got {capacity}")
        self.capacity = capacity
        self.status = torch.zeros(2, dtype=torch.int32, device=device)
        """The most instances of any call, and 1 if that was too much for one, since :meth:`reset`."""

    @property
    def overflow(self) -> Tensor:
        """int32 [1], a view of ``status``."""
        return self.status[1:]

    def add(self, status: Tensor) -> None:
        """Take the status int32 [2] of one more call into account."""
        torch.maximum(self.status, status, out=self.status)

    def reset(self) -> None:
        """Forget earlier calls."""
        self.status.zero_()


def layer_depth(sums: Tensor) -> Tensor:
    """The mean depth [..., H, W] in metres of what each pixel of :func:`rasterize`'s sums shows; 0 where alpha is 0."""
    alpha, depth = sums[..., 3], sums[..., 4]
    covered = alpha > 0
    return torch.where(covered, depth / torch.where(covered, alpha, 1.0), 0.0)


# What one pass leaves for the other on a CUDA device, in this order after `sums`; see kernels/training/rasterize.h. On
# the CPU they are empty.
Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
KEPT = ("status", "splat_slots", "block_slots", "tile_begin", "tile_cursor", "entries")


@operator("rasterize")
def _rasterize(splats: Tensor, width: int, height: int, stop: float, capacity: int) -> Outputs:
    sums = splats.new_empty(splats.shape[0], height, width, SUM_FLOATS)
    kept = _scratch(splats, width, height)
    if not splats.is_cuda or not splats.numel():
        if splats.is_cuda:
            sums.zero_()
            kept["status"].zero_()
        else:
            _run("rasterize", splats, stop, capacity, sums, **kept)
        return _outputs(sums, kept)
    long_tiles = torch.empty_like(kept["tile_begin"])
    _run("rasterize_count", splats, stop, 0, sums, **kept, long_tiles=long_tiles)
    if capacity < 0:
        capacity = int(kept["status"][0].item())
    kept["entries"] = splats.new_empty(capacity, dtype=torch.int64)
    owner = splats.new_empty(capacity, dtype=torch.int32)
    _run("rasterize", splats, stop, capacity, sums, **kept, long_tiles=long_tiles, owner=owner)
    return _outputs(sums, kept)


def _outputs(sums: Tensor, kept: dict[str, Tensor]) -> Outputs:
    status, splat_slots, block_slots, tile_begin, tile_cursor, entries = kept.values()
    return sums, status, splat_slots, block_slots, tile_begin, tile_cursor, entries


def _scratch(splats: Tensor, width: int, height: int) -> dict[str, Tensor]:
    """Of every size that is known before instances are counted; empty on the CPU."""
    sizes = dict.fromkeys(KEPT, 0)
    if splats.is_cuda:
        tile, each = _C.operations.tile_size, _C.operations.bin_splats
        count = splats.shape[0] * splats.shape[1]
        tiles = splats.shape[0] * -(-width // tile) * -(-height // tile)
        sizes |= {"status": 2, "splat_slots": count + 1, "block_slots": -(-count // each) + 1}
        sizes |= {"tile_begin": tiles, "tile_cursor": tiles + _C.operations.tile_counters}
    return {
        name: splats.new_empty(size, dtype=torch.int64 if name == "entries" else torch.int32)
        for name, size in sizes.items()
    }


@gradient_operator("rasterize_backward")
def _rasterize_backward(splats: Tensor, sums: Tensor, gradient: Tensor, kept: Sequence[Tensor], stop: float) -> Tensor:
    result = torch.empty_like(splats)
    if splats.is_cuda and not splats.numel():
        return result
    named = dict(zip(KEPT, kept, strict=True))
    capacity = len(named["entries"])
    slots = splats.new_empty(capacity if splats.is_cuda else 0, SPLAT_FLOATS)
    gradients = {"sums_gradient": gradient, "splats_gradient": result}
    _run("rasterize_backward", splats, stop, capacity, sums, **named, **gradients, slots=slots)
    return result


def _run(name: str, splats: Tensor, stop: float, capacity: int, sums: Tensor, **more: Tensor) -> None:
    frames, height, width, _ = sums.shape
    sizes = {"frames": frames, "splats_per_frame": splats.shape[1], "width": width, "height": height}
    unused = dict.fromkeys(("sums_gradient", "splats_gradient", "long_tiles", "owner", "slots"))
    call(name, splats, splats=splats, **sizes, stop=stop, sums=sums, capacity=capacity, **(unused | more))


@_rasterize.register_fake
def _(splats: Tensor, width: int, height: int, stop: float, capacity: int) -> Outputs:
    kept = _scratch(splats, width, height)
    if splats.is_cuda:
        size = capacity if capacity >= 0 else torch.library.get_ctx().new_dynamic_size()
        kept["entries"] = splats.new_empty(size, dtype=torch.int64)
    return _outputs(splats.new_empty(splats.shape[0], height, width, SUM_FLOATS), kept)


@_rasterize_backward.register_fake
def _(splats: Tensor, sums: Tensor, gradient: Tensor, kept: Sequence[Tensor], stop: float) -> Tensor:
    return torch.empty_like(splats)


def _setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, int, int, float, int], output: Outputs) -> None:
    splats, _, _, ctx.stop, _ = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(splats, *output)
    ctx.mark_non_differentiable(*output[1:])
    # Else a gradient of zeros would be made for each of these, as large as it is, only to be ignored.
    ctx.set_materialize_grads(False)


def _backward(ctx: FunctionCtx, gradient: Tensor | None, *_: None) -> tuple[Tensor | None, None, None, None, None]:
    if gradient is None:
        return None, None, None, None, None
    splats, sums, *kept = ctx.saved_tensors  # type: ignore[attr-defined]
    result = _rasterize_backward(splats, sums, gradient.contiguous(), kept, ctx.stop)  # type: ignore[attr-defined]
    return result, None, None, None, None


_rasterize.register_autograd(_backward, setup_context=_setup_context)
