"""How tensors reach the native core: checks, then addresses. No tensor type crosses the border, and no copy is made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from being_rt import _C
from being_rt.errors import DeviceError, InvalidParameterError


def call(name: str, like: Tensor, **arguments: Tensor | float | None) -> None:
    """Run ``_C.operations.NAME`` on the device, stream and float type of ``like``.

    Tensors go as addresses and must be contiguous and on the device of ``like``; None goes as a null pointer. The
    native function also gets ``cuda_device`` (-1: the CPU), ``stream`` and ``is_double``.

    Raises:
        InvalidParameterError: a tensor is not contiguous or lies elsewhere.
        DeviceError: tensors on a CUDA device, and this build has no CUDA part.
    """
    given: dict[str, float | None] = {}
    for key, value in arguments.items():
        if isinstance(value, Tensor):
            if value.device != like.device:
                raise InvalidParameterError(f"{name}: {key} is on {value.device}, other tensors are on {like.device}")
            if not value.is_contiguous():
                raise InvalidParameterError(f"{name}: {key} must be contiguous; pass {key}.contiguous()")
            given[key] = value.data_ptr()
        else:
            given[key] = value
    device, stream = -1, 0
    if like.is_cuda:
        if not _C.cuda_built:
            raise DeviceError(f"{name}: this build of being_rt has no CUDA part; install it with nvcc on the path")
        device, stream = like.device.index, torch.cuda.current_stream(like.device).cuda_stream
    getattr(_C.operations, name)(**given, cuda_device=device, stream=stream, is_double=like.dtype == torch.float64)


def check(operation: str, name: str, tensor: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Check one tensor's shape (-1 takes any length) and dtype.

    Raises:
        InvalidParameterError: it differs.
    """
    fits = tensor.dim() == len(shape) and all(a in (-1, b) for a, b in zip(shape, tensor.shape, strict=True))
    if not fits or tensor.dtype != dtype:
        spelled = ", ".join("any" if size < 0 else str(size) for size in shape)
        raise InvalidParameterError(
            f"{operation}: {name} must be {str(dtype)[6:]} [{spelled}], "
            f"got {str(tensor.dtype)[6:]} {list(tensor.shape)}"
        )


def check_float(operation: str, name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    """Check that a tensor is float32, or float64 on the CPU, of the given shape (-1 takes any length).

    Raises:
        InvalidParameterError: it differs.
    """
    check(operation, name, tensor, shape, torch.float64 if tensor.dtype == torch.float64 else torch.float32)
