"""safetensors files and JSON objects, read without trusting them: every size is checked before it is used.

The parser is a few dozen lines, because the point is to take nothing on trust. Any safetensors tool reads what
:func:`encode_tensors` writes. Reference: safetensors README, "Format".
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_LIMIT = 1 << 20  # bytes of the header; 60 tensors take 6 KB
FILE_LIMIT = (1 << 31) - 1  # bytes
DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
_METADATA = "__metadata__"


def encode_tensors(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> bytes:
    """The safetensors file of the arrays, sorted by size of their elements and by name."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return bytes(save(arrays, None if metadata is None else dict(metadata)))


def decode_tensors(data: memoryview, file: str) -> dict[str, NDArray[Any]]:
    """Arrays by name, as views of ``data``, read-only where it is. ``file`` is its name in messages.

    Raises:
        ValueError: it is damaged.
    """
    return _decode(data, file)[0]


def decode_tensors_and_metadata(data: memoryview, file: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """As :func:`decode_tensors`, and the text that :func:`encode_tensors` was given beside the arrays."""
    tensors, metadata = _decode(data, file)
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"the metadata of its {file} is not text")
    return tensors, metadata


def json_object(data: bytes | memoryview, what: str) -> dict[str, Any]:
    """A JSON object without NaN, infinities or repeated keys. Raises ``ValueError``, which begins "its WHAT"."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a key occurs twice")
        return result

    try:
        value = json.loads(bytes(data).decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"its {what} is not valid JSON: {problem}") from None
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is not a JSON object")
    return value


def _decode(data: memoryview, file: str) -> tuple[dict[str, NDArray[Any]], Any]:
    if len(data) < 8:
        raise ValueError(f"its {file} is too short")
    (header_size,) = struct.unpack_from("<Q", data)
    if header_size > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"the header of its {file} is damaged")
    header = json_object(data[8 : 8 + header_size], f"{file} header")
    metadata = header.pop(_METADATA, {})
    content = data[8 + header_size :]
    tensors: dict[str, NDArray[Any]] = {}
    ranges = []
    for name, entry in header.items():
        dtype, shape, begin, end = _tensor_entry(name, entry)
        if end > len(content) or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"its tensor {name!r} does not have the size that its shape says")
        ranges.append((begin, end))
        tensor: NDArray[Any] = np.ndarray(shape, dtype, content, begin)
        if dtype.kind == "b" and end > begin and tensor.view(np.uint8).max() > 1:
            raise ValueError(f"its tensor {name!r} has truth values other than 0 and 1")
        # Repacked by another tool the data may lie anywhere; native code wants whole words.
        tensors[name] = tensor if tensor.flags.aligned else tensor.copy()
    ranges.sort()
    if [begin for begin, _ in ranges] != [0, *(end for _, end in ranges)][: len(ranges)] or (
        len(content) != max((end for _, end in ranges), default=0)
    ):
        raise ValueError(f"the tensors of its {file} overlap or leave gaps")
    return tensors, metadata


def _tensor_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    try:
        dtype = np.dtype(DTYPES[entry["dtype"]])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"its tensor {name[:60]!r} has a damaged or unsupported header") from None
    if not name.isprintable():
        raise ValueError("it has a tensor whose name is not printable text")
    numbers = (*shape, begin, end)
    if (
        len(shape) > 4
        or not all(type(number) is int and 0 <= number <= FILE_LIMIT for number in numbers)
        or end < begin
    ):
        raise ValueError(f"its tensor {name[:60]!r} has an impossible shape or place")
    return dtype, shape, begin, end
