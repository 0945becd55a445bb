"""What to film: thirty seconds that show what training needs, as text and as a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from being_rt.errors import FileFormatError
from being_rt.record_guide import ACTS, BEFORE, RecordGuide, duration, guide_text, write_page


def test_it_takes_half_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    assert duration() == pytest.approx(30)
    assert RecordGuide().run() == 0
    printed = capsys.readouterr().out
    assert printed.strip() == guide_text()
    assert all(act.do in printed and act.say in printed for act in ACTS)


def test_what_is_said_closes_the_lips() -> None:
    said = " ".join(act.say for act in ACTS).lower()
    assert all(len(re.findall(sound, said)) >= 3 for sound in "pbm")


def test_the_page_has_it_all_and_needs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "film.html"
    RecordGuide(page=path).run()
    page = path.read_text(encoding="utf-8")
    assert all(line in page for line in BEFORE)
    assert all(act.do in page for act in ACTS)
    assert not re.search(r"https?://|src=", page)
    with pytest.raises(FileFormatError):
        write_page(tmp_path / "none" / "film.html")
