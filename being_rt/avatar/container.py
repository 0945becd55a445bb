"""The bytes of an avatar file: a zip of stored members, one of them safetensors, all usable where they lie.

The zip is parsed here, in a few dozen lines, because the point is to take nothing on trust: every offset, size and
name is checked against the file before it is used, and no step costs more than the file is long. Any zip tool reads
what :func:`write_container` writes. The tensors are being_rt/tensor_file.py's.

Reference: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification" 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise
from typing import IO, Any

from being_rt.tensor_file import FILE_LIMIT, json_object

ALIGNMENT = 64  # bytes; the tensors begin at a multiple, so mapped arrays lie as the SIMD units like them
MANIFEST = "manifest.json"
TENSORS = "avatar.safetensors"
MEMBERS = (MANIFEST, TENSORS, "background.png", "preview.png")
MANIFEST_LIMIT = 1 << 20  # bytes

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
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


def read_container(data: memoryview) -> dict[str, memoryview]:
    """The members of a container, as views of ``data``.

    Raises:
        ValueError: it is not such a container, or damaged.
    """
    if len(data) < _END.size or len(data) > FILE_LIMIT:  # beyond lie zip's 64-bit extensions
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
    return json_object(data, MANIFEST)
