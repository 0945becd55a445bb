"""Files: written so that a reader never meets half of one, and read without trusting them."""

from __future__ import annotations

import errno
import glob
import math
import os
import secrets
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import BeingError, FileFormatError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NPZ_LIMIT = 1 << 29  # bytes that the arrays of one .npz may take in memory; a FLAME model takes 50-100 MB

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file would exceed the size limit; raise it or write elsewhere",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; write elsewhere",
    errno.ENOENT: "the folder does not exist; create it first",
    errno.ENOTDIR: "the folder does not exist; create it first",
    errno.EISDIR: "a folder of that name is in the way; choose another name",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def os_error_reason(error: OSError) -> str:
    """What went wrong in writing a file and what to do about it, in one line, for use in error messages."""
    return _REASONS.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__).splitlines()[0])


def read_error_reason(error: OSError) -> str:
    """What went wrong in reading a file, in one line, for use in error messages."""
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    return "it is a folder" if isinstance(error, IsADirectoryError) else first_line(error.strerror or error)


def check_target(path: str | os.PathLike[str], error: type[BeingError] = FileFormatError) -> None:
    """Check that a file can be written at ``path``, so that a long job fails at its start and not at its end.

    Raises:
        error: a folder of that name is in the way, its folder is missing, or may not be written to.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long, which opening it refuses
        raise error(f"cannot write {path}: {_REASONS[errno.EISDIR]}")
    folder = Path(path).parent
    if not os.path.isdir(folder):
        raise error(f"cannot write {path}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise error(f"cannot write {path}: {_REASONS[errno.EACCES]}")


@contextmanager
def atomic_write(path: str | os.PathLike[str], error: type[BeingError] = FileFormatError) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` only when the block succeeds.

    The content is flushed to the disk before the rename, so after a crash ``path`` is the old file or the new one.
    The temporary name keeps the suffix of ``path`` (video muxers choose their format by it) and its file exists,
    empty, when the block starts. On any exception, ``KeyboardInterrupt`` included, it is removed; what a killed
    process left is removed by the next one that writes ``path``.

    Args:
        path: the file to create or replace. Its folder must exist.
        error: the type that an ``OSError`` (full disk, no permission, missing folder) is turned into. Every other
            exception passes unchanged.

    Example::

        with atomic_write("frames.npz", AvatarFileError) as temporary:
            temporary.write_bytes(data)
    """
    target = Path(os.path.realpath(path))  # through a link, the file that it points to is replaced
    # Named before it is born: whenever an interrupt comes, what is there can be removed.
    temporary = target.with_name(f"{_temporary_prefix(target)}{secrets.token_hex(8)}{target.suffix}")
    lock = -1
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():  # renaming over /dev/null would replace the device
            raise error(f"cannot write {path}: it is a device or a pipe; choose the name of a file")
        remove_abandoned(target)
        lock = _locked(temporary)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(_permissions(target))
        os.replace(temporary, target)
    except BaseException as problem:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(problem, OSError) and not isinstance(problem, BeingError):
            raise error(f"cannot write {path}: {os_error_reason(problem)}") from problem
        raise
    finally:
        if lock >= 0:
            os.close(lock)


def remove_abandoned(target: Path) -> None:
    """Remove temporary files for ``target`` that no living process is writing: it was killed, or the power went.

    A writer holds a lock on its file for as long as it lives. Where there are no such locks (Windows), nothing is done.
    """
    if fcntl is None:
        return
    for left in target.parent.glob(f"{glob.escape(_temporary_prefix(target))}*{glob.escape(target.suffix)}"):
        with suppress(OSError):  # locked: someone is writing it; gone: someone else has removed it
            handle = os.open(left, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(handle)


def _locked(temporary: Path) -> int:
    """Make a file, and return the open handle that holds its lock (-1 where there are no locks)."""
    while True:
        # Others cannot open the file of a running writer; 0o600 is widened at the end.
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if fcntl is None:
            os.close(handle)  # Windows does not rename open files
            return -1
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # another process took it for an abandoned one before it was locked


def _temporary_prefix(target: Path) -> str:
    return f".{target.stem[:100]}.partial-"


def _permissions(target: Path) -> int:
    """The mode that a plain ``open(target, "w")`` would have left: the old file's, else what the umask allows."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask


def read_npz(
    path: str | os.PathLike[str],
    error: type[BeingError] = FileFormatError,
    limit: int = NPZ_LIMIT,
    names: Collection[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file by name, compressed or not. Never unpickles or takes more than ``limit`` bytes.

    Of those in ``names``, where they are given, only what is there; others are not looked at.

    ``numpy.load`` allocates what an array's header promises before it looks at the data; here the promise is checked
    against the size of the member first, and that against ``limit``.

    Raises:
        error: the file is missing, too large, damaged, or holds anything but plain arrays of numbers or text.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with reading(path, "an .npz file", error), zipfile.ZipFile(path) as archive:
        members = [
            member for member in archive.infolist() if names is None or member.filename.removesuffix(".npy") in names
        ]
        if len(members) > 1000 or sum(member.file_size for member in members) > limit:
            raise error(f"{path} is too large: more than 1000 arrays or {limit >> 20} MB")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise error(f"{path} is damaged: it has two arrays {name!r}")
            with archive.open(member) as stream:
                arrays[name] = _read_npy(stream, member.file_size)
    return arrays


def read_npy(
    path: str | os.PathLike[str], error: type[BeingError] = FileFormatError, limit: int = NPZ_LIMIT
) -> NDArray[Any]:
    """The array of an ``.npy`` file, as carefully as :func:`read_npz`."""
    with reading(path, "an .npy file", error), open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit:
            raise error(f"{path} is too large: more than {limit >> 20} MB")
        return _read_npy(stream, size)


@contextmanager
def reading(path: str | os.PathLike[str], kind: str, error: type[BeingError]) -> Iterator[None]:
    """Turn whatever goes wrong in reading a file into ``error``, in one line. ``kind`` says what was expected."""
    try:
        yield
    except BeingError:
        raise
    except FileNotFoundError as problem:
        raise error(f"{path} does not exist") from problem
    except OSError as problem:
        raise error(f"cannot read {path}: {read_error_reason(problem)}") from problem
    except Exception as problem:  # parsers of damaged input raise a dozen types
        raise error(f"{path} is not {kind}, or damaged: {first_line(problem)}") from problem


def _read_npy(stream: IO[bytes], size: int) -> NDArray[Any]:
    """One array of ``size`` bytes, header included. Raises ``ValueError`` where header and size disagree."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"array format {version} is not supported")
    if dtype.kind not in "biufUS":
        raise ValueError(f"arrays of {dtype} are not accepted")
    if math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError("an array is shorter or longer than its header says")
    data = np.frombuffer(stream.read(), dtype)
    return data.reshape(shape, order="F" if fortran_order else "C")


def first_line(problem: BaseException | str) -> str:
    """The first line of an exception's message, or its type's name, for use in error messages."""
    line = (str(problem) or type(problem).__name__).splitlines()[0][:200]
    return "".join(character if character.isprintable() else "?" for character in line)  # it may quote the file
