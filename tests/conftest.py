"""Tests marked `gpu` are skipped, with the reason, where this build finds no CUDA device that it can use."""

from __future__ import annotations

from functools import cache

import pytest

from being_rt.cuda import check_device
from being_rt.errors import DeviceError


@cache
def why_no_gpu() -> str:
    try:
        check_device("cuda")
    except DeviceError as problem:
        return str(problem)
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and (reason := why_no_gpu()):
        pytest.skip(reason)
