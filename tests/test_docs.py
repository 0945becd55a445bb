"""The documentation tells the truth: its examples run, its links lead somewhere, its options and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
COMPLETE = [page for page in (ROOT / "README.md", ROOT / "docs" / "api.md") if page.exists()]  # elsewhere: fragments


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python_blocks(page: Path) -> str:
    """All Python examples of a page as one script whose line numbers are the page's."""
    lines: list[str] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line.strip() == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", COMPLETE, ids=name)
def test_examples_run(page: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    script = tmp_path / f"{page.stem}.py"
    script.write_text(python_blocks(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:being_rt|csrc|kernels|tests|tools|docs|bench)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_options_are_those_of_the_commands(tmp_path: Path) -> None:
    pytest.importorskip("tyro")

    def options_of(*command: str) -> set[str]:
        line = [sys.executable, "-m", *command, "--help"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(re.findall(r"--[a-z][a-z-]*", done.stdout))

    commands, _, bench = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## Bench")
    known = set.union(*(options_of("being_rt.cli", c) for c in ("talk", "say", "render", "info", "doctor")))
    assert set(re.findall(r"`(--[a-z][a-z-]*)", commands)) <= known | {"--debug"}
    assert set(re.findall(r"--[a-z][a-z-]*", bench)) <= options_of("being_rt.bench")
