"""The examples in the pages on formats and conventions run, and the page on the format lists every tensor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scenes import make_avatar

import being_rt
from being_rt.avatar.validation import NETWORK_TENSORS, TENSORS

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("page", ["conventions.md", "avatar-format.md"])
def test_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The demo person takes seconds to build, and any avatar serves the examples.
    monkeypatch.setattr(being_rt, "demo_avatar", lambda name: make_avatar(head_count=50, torso_count=20), raising=False)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_the_format_page_lists_every_tensor_with_its_type() -> None:
    listed: dict[str, str] = {}
    for row in re.findall(r"^\| (`.*?) \| (.*?) \|", (DOCS / "avatar-format.md").read_text("utf-8"), re.MULTILINE):
        names = re.findall(r"`([\w.]+)`", row[0])
        kinds = row[1].split(", ")
        for index, name in enumerate(names):
            full = name if not name.startswith(".") else names[0].split(".")[0] + name
            listed[full] = kinds[min(index, len(kinds) - 1)]
    expected = {name: dtype for name, (dtype, _) in (TENSORS | NETWORK_TENSORS).items()}
    assert {name: listed.get(name) for name in expected} == expected
