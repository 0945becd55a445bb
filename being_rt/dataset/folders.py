"""Folders that appear under their name when they are complete: until then they are hidden beside it."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from being_rt.errors import BeingError, DatasetError
from being_rt.files import os_error_reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class NewFolder:
    """A folder in the making: :meth:`begin` makes it, :meth:`finish` gives it its name, :meth:`abandon` removes it.

    As a context manager it does so by itself. What a killed process left is removed by the next one of the same name.

    Args:
        path: its name. The parent must exist.
        replace: whether a folder of that name is replaced.
        mark: a file that only folders of this kind have: no other is ever replaced.
        kind: what to call it in messages.

    Raises:
        DatasetError: something is in the way, or it cannot be written.

    Example::

        with NewFolder(Path("ada"), replace=False, mark="dataset.json", kind="a data set") as folder:
            (folder / "dataset.json").write_text("{}")
    """

    def __init__(self, path: Path, *, replace: bool, mark: str, kind: str) -> None:
        self.path, self._replace, self._mark, self._kind = path, replace, mark, kind
        self._folder: Path | None = None
        self._lock = -1

    def __enter__(self) -> Path:
        return self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.abandon()

    @property
    def folder(self) -> Path | None:
        """Where it is now; None before and after."""
        return self._folder

    def begin(self) -> Path:
        """Make the hidden folder."""
        self._check()
        _remove_abandoned(self.path)
        with writing(self.path):
            self._folder = Path(tempfile.mkdtemp(prefix=_prefix(self.path), dir=self.path.absolute().parent))
            self._lock = _locked(self._folder)
        return self._folder

    def finish(self) -> None:
        """Give it its name, in place of what had it."""
        folder = self._folder
        assert folder is not None
        with writing(self.path):
            for inside in (path for path in folder.iterdir() if path.is_dir()):
                _permit(inside)
            with suppress(FileNotFoundError):
                (folder / LOCK).unlink()
            _permit(folder)
        self._check()  # again: pictures take minutes to write
        with writing(self.path):
            if self.path.exists():
                old = Path(tempfile.mkdtemp(prefix=_prefix(self.path), dir=self.path.absolute().parent))
                old.rmdir()  # Windows does not rename onto it
                os.replace(self.path, old)
                os.replace(folder, self.path)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(folder, self.path)

    def abandon(self) -> None:
        """Remove what has no name yet, and forget about it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # where it was renamed, there is nothing left
            self._folder = None

    def _check(self) -> None:
        check_target(self.path, self._replace, self._mark, self._kind)


def check_target(path: Path, replace: bool, mark: str, kind: str) -> None:
    """Check that a folder can be written at ``path``: a new name, an empty folder, or one that may be replaced.

    Raises:
        DatasetError: says what is in the way.
    """
    parent = path.absolute().parent
    if not parent.is_dir():
        raise DatasetError(f"cannot write {path}: the folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK):
        raise DatasetError(f"cannot write {path}: permission denied; choose a folder that you may write to")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise DatasetError(f"cannot write {path}: a file or link of that name is in the way; choose another name")
    if path.is_dir() and any(path.iterdir()):
        if not replace:
            raise DatasetError(f"cannot write {path}: it exists; choose another name or ask for it to be replaced")
        if not (path / mark).exists():
            raise DatasetError(f"cannot replace {path}: it is not {kind}; choose another name")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong with files while ``path`` is being written, as ``DatasetError`` in one line."""
    try:
        yield
    except BeingError:
        raise
    except OSError as problem:
        raise DatasetError(f"cannot write {path}: {os_error_reason(problem)}") from problem


def _prefix(path: Path) -> str:
    return f".{path.name[:100]}.partial-"


def _permit(folder: Path) -> None:
    """The mode that ``mkdir`` would have left: temporary folders are private."""
    umask = os.umask(0)
    os.umask(umask)
    folder.chmod(0o777 & ~umask)


def _locked(folder: Path) -> int:
    """The open handle of a lock that lasts as long as this process does; -1 where there are no locks."""
    if fcntl is None:
        return -1
    handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of ``path`` left; that of a living one is locked."""
    if fcntl is None:
        return
    for left in path.absolute().parent.glob(f"{glob.escape(_prefix(path))}*"):
        with suppress(OSError):
            handle = os.open(left / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(handle)
