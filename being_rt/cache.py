"""Where generated things are kept between runs."""

from __future__ import annotations

import os
import sys
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
