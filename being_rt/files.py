"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from being_rt.errors import BeingError, FileFormatError

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
    """What went wrong with a file and what to do about it, in one line, for use in error messages."""
    return _REASONS.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__).splitlines()[0])


@contextmanager
def atomic_write(path: str | os.PathLike[str], error: type[BeingError] = FileFormatError) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` only when the block succeeds.

    The content is flushed to the disk before the rename, so after a crash ``path`` is the old file or the new one.
    The temporary name keeps the suffix of ``path`` (video muxers choose their format by it) and its file exists,
    empty, when the block starts. On any exception, ``KeyboardInterrupt`` included, it is removed.

    Args:
        path: the file to create or replace. Its folder must exist.
        error: the type that an ``OSError`` (full disk, no permission, missing folder) is turned into. Every other
            exception passes unchanged.

    Example::

        with atomic_write("frames.npz", AvatarFileError) as temporary:
            temporary.write_bytes(data)
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # mkstemp keeps a running writer's file from being opened by anyone else; 0o600 is widened below.
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:100]}-", suffix=target.suffix, dir=target.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(_permissions(target))
        os.replace(temporary, target)
    except BaseException as problem:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(problem, OSError) and not isinstance(problem, BeingError):
            raise error(f"cannot write {target}: {os_error_reason(problem)}") from problem
        raise


def _permissions(target: Path) -> int:
    """The mode that a plain ``open(target, "w")`` would have left: the old file's, else what the umask allows."""
    try:
        return target.stat().st_mode & 0o777
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
