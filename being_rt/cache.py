"""Where generated things are kept between runs."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from being_rt.errors import FileFormatError
from being_rt.files import os_error_reason


def cache_directory() -> Path:
    """The folder for generated files (heads, demo avatars), created if needed.

    The first of: ``$BEING_RT_CACHE``; on Windows ``%LOCALAPPDATA%\\being_rt``; ``$XDG_CACHE_HOME/being_rt``;
    ``~/.cache/being_rt``. Everything in it can be deleted at any time and is generated again.

    Raises:
        FileFormatError: the folder cannot be created.

    Example::

        path = cache_directory() / "head-0.npz"
    """
    chosen = os.environ.get("BEING_RT_CACHE")
    if chosen:
        directory = Path(chosen).expanduser()
    elif sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        directory = Path(os.environ["LOCALAPPDATA"]) / "being_rt"
    else:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "being_rt"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileFormatError(
            f"cannot create the cache folder {directory}: {os_error_reason(error)} or set BEING_RT_CACHE"
        ) from error
    return directory


def remove_outdated(path: Path) -> None:
    """Remove what earlier versions kept where ``path`` has just been written: the same name with another key.

    The names of generated files end in a key of their content, ``demo-ada-0123456789abcdef.being``. A process that
    has an outdated file open keeps what it has. Never raises for a file it cannot remove.
    """
    name = re.fullmatch(r"(.+-)[0-9a-f]{16}", path.stem)
    if not name:
        return
    outdated = re.compile(re.escape(name[1]) + "[0-9a-f]{16}" + re.escape(path.suffix))
    with suppress(OSError):
        for other in path.parent.iterdir():
            if other.name != path.name and outdated.fullmatch(other.name) and not other.is_dir():
                with suppress(OSError):  # another process was faster, or Windows has it in use
                    other.unlink()
