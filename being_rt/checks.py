"""Checks of arrays against a table of what they must be. One line says which array is wrong, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError

# dtype and shape; a size that is a name must be the same wherever the name stands
Specification = tuple[str, tuple[int | str, ...]]


def check_arrays(arrays: Mapping[str, Any], specifications: Mapping[str, Specification]) -> dict[str, int]:
    """Check that arrays have the dtype, the shape and only the finite values that the table says.

    Returns:
        The named sizes, as the arrays have them.

    Raises:
        InvalidParameterError: for the first array that differs, by its name.

    Example::

        sizes = check_arrays({"faces": faces, "uv_faces": uv_faces}, dict.fromkeys(("faces", "uv_faces"),
                                                                                   ("int32", ("F", 3))))
        sizes["F"]  # number of triangles
    """
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in specifications.items():
        array = arrays[name]
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(shape):
            raise InvalidParameterError(f"{name} must be {_spelled(dtype, shape, sizes)}, got {_described(array)}")
        for size, expected in zip(array.shape, shape, strict=True):
            if size != (sizes.setdefault(expected, size) if isinstance(expected, str) else expected):
                raise InvalidParameterError(f"{name} must be {_spelled(dtype, shape, sizes)}, got {_described(array)}")
        if array.dtype.kind == "f" and not is_finite(array):
            raise InvalidParameterError(f"{name} has values that are NaN or infinite")
    return sizes


def is_finite(array: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite; several times faster than ``np.isfinite`` on float16."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    exponent = np.uint16(0x7C00)  # all bits of a half's exponent set: infinite or NaN
    flat = array.reshape(-1).view(np.uint16)
    block = 1 << 16  # stays in the cache
    return all(bool(((part & exponent) != exponent).all()) for part in np.split(flat, range(block, flat.size, block)))


def check_range(name: str, array: NDArray[Any], limit: int) -> None:
    """Check that all indices lie in 0..limit-1."""
    if array.size and (array.min() < 0 or array.max() >= limit):
        raise InvalidParameterError(f"{name} has indices outside 0..{limit - 1}")


def check_rows(name: str, array: NDArray[Any], tolerance: float) -> None:
    """Check that the rows of weights [N, K] sum to 1 within ``tolerance``."""
    if array.size and not np.abs(array.sum(axis=1, dtype=np.float64) - 1).max() <= tolerance:
        raise InvalidParameterError(f"{name} has rows that do not sum to 1")


def _spelled(dtype: str, shape: tuple[int | str, ...], sizes: Mapping[str, int]) -> str:
    spelled = (str(sizes.get(size, size)) if isinstance(size, str) else str(size) for size in shape)
    return f"{dtype} [{', '.join(spelled)}]"


def _described(array: Any) -> str:
    if isinstance(array, np.ndarray):
        return f"{array.dtype} {list(array.shape)}"
    return type(array).__name__
