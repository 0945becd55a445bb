"""The entries of an LMDB file (Symas, "Lightning memory-mapped database", data format 1), read without the library.

A file is pages of equal size, numbered from 0. Pages 0 and 1 say where the root of the tree is, as of the last two
transactions. Branch pages hold the numbers of pages below, leaf pages hold keys and values; a value that is too large
for a page lies in pages of its own. All numbers are little-endian; nothing that they say is believed without a look.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from being_rt.errors import DatasetError
from being_rt.files import reading

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = 0xBEEFC0DE
HEADER = 16  # bytes of a page before its content
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # flags of pages
BIG, SUBTREE = 1, 6  # flags of entries: the value lies elsewhere; it is a tree of its own
NO_PAGE = 2**64 - 1
MOST_ENTRIES = 10_000_000


class LmdbFile:
    """Keys and values of the main database of ``data.mdb``; a context manager that keeps the file mapped.

    Raises:
        DatasetError: the file is missing, damaged, or of a kind that is not read here.

    Example::

        with LmdbFile(folder / "data.mdb") as images:
            jpeg = images["obama_0"]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path, "an LMDB file", DatasetError), open(path, "rb") as stream:
            self._data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            with reading(path, "an LMDB file", DatasetError):
                self._size, root = self._last_root()
                self._places = dict(self._entries(root))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._data.close()

    def keys(self) -> list[str]:
        """All keys, in the order of their bytes."""
        return list(self._places)

    def __getitem__(self, key: str) -> bytes:
        """A value. Raises ``DatasetError`` where there is none."""
        if key not in self._places:
            raise DatasetError(f"{self.path} has no entry {key[:60]!r}")
        start, length = self._places[key]
        return self._data[start : start + length]

    def _last_root(self) -> tuple[int, int]:
        """Size of a page, and the number of the root of the latest of the two states."""
        size, states = 4096, []
        for number in range(2):
            magic, version, _, _, size = struct.unpack_from("<IIQQI", self._data, number * size + HEADER)
            if magic != MAGIC or version != 1 or not 512 <= size <= 65536 or size & (size - 1):
                raise ValueError("it has another format or version")
            # The tree of free pages comes first, 48 bytes, then the main one; its root is the last of six fields.
            (root,) = struct.unpack_from("<Q", self._data, number * size + HEADER + 24 + 48 + 40)
            (transaction,) = struct.unpack_from("<Q", self._data, number * size + HEADER + 24 + 96 + 8)
            states.append((transaction, root))
        return size, max(states)[1]

    def _entries(self, root: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """Each key with the place and length of its value."""
        if root == NO_PAGE:
            return
        waiting, seen, count = [root], {root}, 0
        while waiting:
            page = waiting.pop() * self._size
            flags, lower = struct.unpack_from("<HH", self._data, page + 10)
            if not flags & (BRANCH | LEAF) or not HEADER <= lower <= self._size:
                raise ValueError("a page of its tree is damaged")
            offsets = struct.unpack_from(f"<{(lower - HEADER) // 2}H", self._data, page + HEADER)
            below = []
            for offset in offsets:
                low, high, kind, key_size = struct.unpack_from("<HHHH", self._data, page + offset)
                if flags & BRANCH:
                    below.append(low | high << 16 | kind << 32)
                    continue
                count += 1
                if kind & SUBTREE or count > MOST_ENTRIES:
                    raise ValueError("it has more than one value per key, or too many keys")
                key = page + offset + 8
                yield self._data[key : key + key_size].decode(), self._value(key + key_size, low | high << 16, kind)
            if seen & set(below):
                raise ValueError("its tree leads back to itself")
            seen |= set(below)
            waiting += reversed(below)

    def _value(self, place: int, length: int, kind: int) -> tuple[int, int]:
        if kind & BIG:
            (number,) = struct.unpack_from("<Q", self._data, place)
            place = number * self._size
            if not struct.unpack_from("<H", self._data, place + 10)[0] & OVERFLOW:
                raise ValueError("a value lies where none can be")
            place += HEADER
        if place + length > len(self._data):
            raise ValueError("it ends before its values do")
        return place, length
