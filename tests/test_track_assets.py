"""Networks are fetched once, known by hash, and what goes wrong is one line that says what to do."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from being_rt.asset_jobs import Assets, check_flame
from being_rt.errors import ModelFileError, TrackError
from being_rt.track import assets
from being_rt.track.assets import ASSETS, asset, asset_path, fetch, status


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and networks that are a few bytes long."""
    monkeypatch.setenv("BEING_RT_CACHE", str(tmp_path / "cache"))
    for name, one in ASSETS.items():
        content = contents(name)
        small = replace(one, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(ASSETS, name, small)
    return tmp_path / "cache" / "assets"


def contents(name: str) -> bytes:
    return f"network {name}".encode()


def wheel(path: Path, damage: Callable[[bytes], bytes] = lambda content: content, leave: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for one in list(ASSETS.values())[leave:]:
            archive.writestr(one.member, damage(contents(one.name)))
    return path


def pip(monkeypatch: pytest.MonkeyPatch, code: int = 0, error: str = "", make: bool = True) -> list[list[str]]:
    """Stands in for pip; gives the list of the commands that it was called with."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if make:
            wheel(Path(command[command.index("--dest") + 1]) / "mediapipe.whl")
        return subprocess.CompletedProcess(command, code, "", error)

    monkeypatch.setattr(assets.subprocess, "run", run)
    return calls


def test_a_wheel_that_is_given_is_taken_apart(cache: Path, tmp_path: Path) -> None:
    assert {one.state for one in status()} == {"missing"}
    made = fetch(wheel(tmp_path / "some.whl"))
    assert {one.state for one in made} == {"there"}
    for name in ASSETS:
        assert asset(name).read_bytes() == contents(name)
    assert sorted(cache.iterdir()) == sorted(asset_path(name) for name in ASSETS)


def test_fetched_through_pip_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pip(monkeypatch)
    said: list[str] = []
    fetch(progress=said.append)
    assert len(said) == 1
    assert "36 MB" in said[0]
    assert asset("iris").read_bytes() == contents("iris")
    (command,) = calls
    assert command[:5] == [sys.executable, "-m", "pip", "download", "mediapipe==0.10.21"]
    assert "--no-deps" in command


def test_what_is_damaged_is_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fetch(wheel(tmp_path / "some.whl"))
    asset_path("iris").write_bytes(contents("iris")[::-1])
    assert {one.name: one.state for one in status() if one.state != "there"} == {"iris": "damaged"}
    calls = pip(monkeypatch)
    assert asset("selfie").read_bytes() == contents("selfie")
    assert not calls
    assert asset("iris").read_bytes() == contents("iris")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("damage", "leave"), [(lambda content: content[::-1], 0), (lambda content: content * 2, 0), (bytes, 1)]
)
def test_a_wheel_with_other_networks_is_refused(
    cache: Path, tmp_path: Path, damage: Callable[[bytes], bytes], leave: int
) -> None:
    with pytest.raises(TrackError, match=r"does not hold mediapipe/.* as in mediapipe==0\.10\.21") as problem:
        fetch(wheel(tmp_path / "some.whl", damage, leave))
    assert "\n" not in str(problem.value)
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"no zip at all"])
def test_no_wheel_at_all(cache: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "some.whl").write_bytes(content)
    with pytest.raises(TrackError, match=r"some\.whl is not a wheel, or damaged"):
        fetch(tmp_path / "some.whl")
    with pytest.raises(TrackError, match="does not exist"):
        fetch(tmp_path / "none.whl")


def test_without_a_network_one_line_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip(monkeypatch, 1, "WARNING: retrying\nERROR: No matching distribution found for mediapipe==0.10.21\n", make=False)
    with pytest.raises(TrackError, match=r"No matching distribution.*being assets --wheel FILE") as problem:
        asset("iris")
    assert "\n" not in str(problem.value)


def test_pip_that_never_ends(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, 900)

    monkeypatch.setattr(assets.subprocess, "run", run)
    with pytest.raises(TrackError, match="pip took more than 900 s"):
        fetch()


def test_the_job_only_looks_if_told_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pip(monkeypatch)
    assert not Assets(fetch=False).run().complete
    assert not calls
    assert Assets().run().complete
    assert len(calls) == 1


def test_the_command(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tyro")
    from being_rt.cli import main

    pip(monkeypatch)
    assert main(["assets", "--no-fetch"]) == 1
    assert capsys.readouterr().out.count("missing ") == len(ASSETS)
    assert main(["assets"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Apache-2.0") == len(ASSETS)
    assert "flame2023_Open.pkl" in printed
    assert main(["assets", "--flame", "none.pkl"]) == 2


def test_a_flame_file_is_checked(tmp_path: Path) -> None:
    np.savez(tmp_path / "photo.npz", pixels=np.zeros(3))
    with pytest.raises(ModelFileError, match="not a FLAME file"):
        check_flame(tmp_path / "photo.npz")


def test_the_real_networks_are_those_that_are_expected(networks: None) -> None:
    assert {one.state for one in status()} == {"there"}
