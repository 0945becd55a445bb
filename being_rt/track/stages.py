"""Work of minutes in stages that are kept: what has been done once, on the same input, is not done again.

A stage's file is named after a key: a hash of everything that its result depends on. Files appear when they are
complete, so a run that was killed goes on with the stage that it was in.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from being_rt.cache import remove_outdated
from being_rt.errors import FileFormatError, TrackError
from being_rt.files import os_error_reason, reading

Result = TypeVar("Result")

KEY_LENGTH = 16
_CHUNK = 1 << 20


def key_of(*parts: Any) -> str:
    """A short hash of values: text, numbers, None, and lists, tuples and dicts of such."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def content_key(path: str | os.PathLike[str]) -> str:
    """A short hash of a file's content. Raises ``TrackError`` where it cannot be read."""
    digest = hashlib.sha256()
    with reading(path, "a file", TrackError), open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:KEY_LENGTH]


class Stages:
    """A folder of results, one file per stage and key.

    Example::

        stages = Stages("me.clone")
        seen = stages.result("observations", key_of(content_key(video), 1), ".npz", Observations.load,
                             lambda path: observe(video).save(path))
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as problem:
            raise TrackError(f"cannot make the folder {self.folder}: {os_error_reason(problem)}") from problem

    def path(self, name: str, key: str, suffix: str) -> Path:
        """Where a stage's result is kept."""
        return self.folder / f"{name}-{key}{suffix}"

    def result(
        self, name: str, key: str, suffix: str, load: Callable[[Path], Result], make: Callable[[Path], Any]
    ) -> Result:
        """What a stage gives: from its file, or made now and kept in it; a damaged file is made again.

        ``make`` writes the file, all of it or nothing. Results of the stage with other keys are removed.
        """
        path = self.path(name, key, suffix)
        if path.exists():
            try:
                return load(path)
            except FileFormatError:
                path.unlink()
        make(path)
        remove_outdated(path)
        return load(path)
