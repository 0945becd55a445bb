"""The page on data sets: its example runs, and it lists what is in the file and what the commands take."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from scenes import make_avatar

import being_rt
from being_rt.dataset_jobs import Check, Convert, Export

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "dataset.md").read_text("utf-8")


def test_the_example_runs_and_the_page_lists_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The demo person takes seconds to build, and any avatar serves the example.
    monkeypatch.setattr(being_rt, "demo_avatar", lambda name: make_avatar(head_count=50, torso_count=20), raising=False)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(block, "dataset.md", "exec"), {})
    manifest = json.loads((tmp_path / "ada" / "dataset.json").read_text("utf-8"))
    for key in [*manifest, *manifest["cameras"][0], *manifest["frames"][0]]:
        assert f"`{key}`" in PAGE, key
    for file in (tmp_path / "ada").rglob("*"):
        if file.is_file():
            assert re.sub(r"[0-9]{6}", "000000", file.relative_to(tmp_path / "ada").as_posix()) in PAGE


def test_options_are_those_of_the_jobs() -> None:
    known = {f"--{field.name.replace('_', '-')}" for job in (Check, Convert, Export) for field in fields(job)} | {
        "--json"
    }
    assert set(re.findall(r"`?(--[a-z][a-z-]*)", PAGE)) <= known
