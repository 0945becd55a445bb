"""The bytes of an avatar file: a zip of stored members, one of them safetensors, all usable where they lie.

Both formats are parsed here, in a few dozen lines, because the point is to take nothing on trust: every offset, size
and name is checked against the file before it is used, and no step costs more than the file is long. Any zip or
safetensors tool reads what :func:`write_container` writes.

References: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification" 6.3, sections 4.3.7, 4.3.12 and 4.3.16;
safetensors README, "Format".
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors

ALIGNMENT = 64  # bytes; the tensors begin at a multiple, so mapped arrays lie as the SIMD units like them
MANIFEST = "manifest.json"
TENSORS = "avatar.safetensors"
MEMBERS = (MANIFEST, TENSORS, "background.png", "preview.png")
MANIFEST_LIMIT = 1 << 20  # bytes
HEADER_LIMIT = 1 << 20  # bytes of the safetensors header; 60 tensors take 6 KB
FILE_LIMIT = (1 << 31) - 1  # bytes; beyond lie zip's 64-bit extensions

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DTYPES = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the same avatar gives the same bytes


def write_container(stream: IO[bytes], members: Mapping[str, bytes]) -> None:
    """Write members, uncompressed, in their order, with the tensors' data aligned to :data:`ALIGNMENT`."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _TIMESTAMP)
            info.external_attr = 0o644 << 16
            if name == TENSORS:
                data_start = 8 + struct.unpack("<Q", data[:8])[0]
                before = stream.tell() + _LOCAL.size + len(name) + 4 + data_start
                # An extra field of the private kind that Android's zipalign uses too: identifier, length, zeros.
                info.extra = struct.pack("<HH", 0xD935, -before % ALIGNMENT) + bytes(-before % ALIGNMENT)
            archive.writestr(info, data)


def encode_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The safetensors file of the arrays, sorted by size of their elements and by name."""
    return bytes(save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def read_container(data: memoryview) -> dict[str, memoryview]:
    """The members of a container, as views of ``data``.

    Raises:
        ValueError: it is not such a container, or damaged.
    """
    if len(data) < _END.size or len(data) > FILE_LIMIT:
        raise ValueError("it is too short or too long to be an avatar file")
    signature, disk, first_disk, here, count, size, start, comment = _END.unpack_from(data, len(data) - _END.size)
    if signature != b"PK\5\6" or comment:
        raise ValueError("it is not a zip file, or it is truncated")
    if disk or first_disk or here != count or count > len(MEMBERS) or start + size + _END.size != len(data):
        raise ValueError("its zip directory is damaged")
    members: dict[str, memoryview] = {}
    ranges = [(start, len(data))]
    position = start
    for _ in range(count):
        if position + _CENTRAL.size > start + size:
            raise ValueError("its zip directory is damaged")
        entry = _CENTRAL.unpack_from(data, position)
        signature, flags, method = entry[0], entry[3], entry[4]
        stored, unpacked, name_size, extra_size, comment_size = entry[8:13]
        offset = entry[16]
        position += _CENTRAL.size
        name = bytes(data[position : position + name_size]).decode("ascii", "backslashreplace")
        position += name_size + extra_size + comment_size
        if signature != b"PK\1\2" or position > start + size:
            raise ValueError("its zip directory is damaged")
        if name not in MEMBERS or name in members:
            raise ValueError(f"it has an unexpected member {name[:60]!r}")
        if method != zipfile.ZIP_STORED or stored != unpacked or flags & 1:
            raise ValueError(f"its member {name} is compressed or encrypted; members must be stored")
        begin, end = _member_range(data, offset, name, stored)
        ranges.append((offset, end))
        members[name] = data[begin:end]
        if name == MANIFEST and zlib.crc32(members[name]) != entry[7]:
            raise ValueError(f"its member {name} is damaged: the checksum does not match")
    ranges.sort()
    if position != start + size or any(a_end > b for (_, a_end), (b, _) in pairwise(ranges)):
        raise ValueError("its members overlap, or its zip directory is damaged")
    return members


def _member_range(data: memoryview, offset: int, name: str, size: int) -> tuple[int, int]:
    if offset + _LOCAL.size > len(data):
        raise ValueError(f"its member {name} lies outside the file")
    signature, *_, name_size, extra_size = _LOCAL.unpack_from(data, offset)
    begin = offset + _LOCAL.size + name_size + extra_size
    local_name = bytes(data[offset + _LOCAL.size : offset + _LOCAL.size + name_size])
    if signature != b"PK\3\4" or local_name != name.encode("ascii"):
        raise ValueError(f"its member {name} has a damaged zip header")
    if begin + size > len(data):
        raise ValueError(f"its member {name} lies outside the file")
    return begin, begin + size


def read_manifest(data: memoryview) -> dict[str, Any]:
    """The manifest's JSON object, without NaN, infinities or repeated keys. Raises ``ValueError``."""
    if len(data) > MANIFEST_LIMIT:
        raise ValueError(f"its {MANIFEST} is longer than {MANIFEST_LIMIT >> 20} MB")
    return _json_object(data, MANIFEST)


def decode_tensors(data: memoryview) -> dict[str, NDArray[Any]]:
    """Arrays by name, as views of ``data``, read-only where it is. Raises ``ValueError``."""
    if len(data) < 8:
        raise ValueError(f"its {TENSORS} is too short")
    (header_size,) = struct.unpack_from("<Q", data)
    if header_size > min(HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"the header of its {TENSORS} is damaged")
    header = _json_object(data[8 : 8 + header_size], f"{TENSORS} header")
    header.pop("__metadata__", None)
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
        raise ValueError(f"the tensors of its {TENSORS} overlap or leave gaps")
    return tensors


def _tensor_entry(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    try:
        dtype = np.dtype(_DTYPES[entry["dtype"]])
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


def _json_object(data: memoryview, what: str) -> dict[str, Any]:
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
