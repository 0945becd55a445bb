"""Stages: done once per key, again after damage, and no older results are left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from being_rt.errors import FileFormatError, TrackError
from being_rt.files import read_npz
from being_rt.track.stages import Stages, content_key, key_of


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    stages, made = Stages(tmp_path / "work"), []

    def result(key: str) -> float:
        def make(path: Path) -> None:
            made.append(key)
            np.savez(path, value=np.array([len(made)]))

        return float(stages.result("fit", key, ".npz", lambda path: read_npz(path, FileFormatError), make)["value"][0])

    one, two = key_of("video", 1), key_of("video", 2)
    assert one != two
    assert key_of("video", 1) == one
    assert [result(one), result(one)] == [1, 1]
    stages.path("fit", one, ".npz").write_bytes(b"damaged")
    assert result(one) == 2
    assert result(two) == 3
    assert made == [one, one, two]
    assert [path.name for path in (tmp_path / "work").iterdir()] == [f"fit-{two}.npz"]


def test_keys_follow_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    keys = [content_key(tmp_path / name) for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    with pytest.raises(TrackError, match="does not exist"):
        content_key(tmp_path / "none")
    with pytest.raises(TrackError, match="cannot make the folder"):
        Stages(tmp_path / "none" / "work")
