"""SciPy on demand: only generating a head needs it, so only that asks for it."""

from __future__ import annotations

import importlib
from typing import Any

from being_rt.errors import MissingDependencyError


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            "generating a head needs SciPy; install it with: pip install being_rt[demo]"
        ) from error


def scipy_spatial() -> Any:
    """The module scipy.spatial.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    return _load("scipy.spatial")


def scipy_ndimage() -> Any:
    """The module scipy.ndimage; raises like :func:`scipy_spatial`."""
    return _load("scipy.ndimage")
