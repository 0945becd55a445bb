"""Files that are written whole or not at all, whenever an interrupt comes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from being_rt import files
from being_rt.files import atomic_write


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_an_interrupt_at_the_birth_of_a_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create = files._locked_temporary

    def interrupted(target: Path) -> tuple[Path, int]:
        made = create(target)
        os.kill(os.getpid(), signal.SIGINT)  # before anybody knows the file's name
        return made

    monkeypatch.setattr(files, "_locked_temporary", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.bin"):
        pytest.fail("the block must not begin")
    assert os.listdir(tmp_path) == []
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
