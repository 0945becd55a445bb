"""What tests share. Those marked `gpu` are skipped, with the reason, where this build finds no CUDA device that it can
use; those that need the networks of tracking, or real data, where these cannot be had."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

from being_rt.cuda import check_device
from being_rt.errors import BeingError, DeviceError
from being_rt.parallel import usable_cores

sys.path.append(
    str(Path(__file__).parents[1])
)  # for `bench`, which is no part of the package; at the end, for that is tested

# Shells start background jobs with interrupts ignored, and children inherit that: tests of Ctrl-C need the default.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


MOST_WORKERS = 8  # of `pytest -n auto`: each holds a PyTorch of its own

# Workers share the cores; libraries that start a thread per core in each of them would only wait for one another.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // int(workers))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return min(usable_cores(), MOST_WORKERS)


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


@cache
def why_no_networks() -> str:
    pytest.importorskip("ai_edge_litert")
    from being_rt.track.assets import fetch

    try:
        fetch()
    except BeingError as problem:
        return str(problem)
    return ""


@pytest.fixture(scope="session")
def networks() -> None:
    """The networks that look at videos are in the cache."""
    if reason := why_no_networks():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def real_video() -> Path:
    """A recording of a person, 241 frames of 834x884 at 24 per second; not part of the repository."""
    root = os.environ.get("BEING_RT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(root) / "video" / "weekly-address-834x884-24fps.mp4"
    if not path.exists():
        pytest.skip(f"{path} is absent; it is not part of the repository")
    return path
