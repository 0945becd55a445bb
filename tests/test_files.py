"""Files that are written whole or not at all, whenever an interrupt comes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from being_rt import files
from being_rt.files import atomic_write


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("others", [0, 3], ids=["alone", "beside other threads"])
def test_an_interrupt_at_the_birth_of_a_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    create, over = files._locked, threading.Event()
    beside = [threading.Thread(target=over.wait) for _ in range(others)]  # any of which the system may tell first
    for thread in beside:
        thread.start()

    def interrupted(temporary: Path) -> int:
        made = create(temporary)
        assert temporary.exists()
        os.kill(os.getpid(), signal.SIGINT)  # before anybody knows that there is a file
        time.sleep(10)
        return made

    monkeypatch.setattr(files, "_locked", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.bin"):
            pytest.fail("the block must not begin")
    finally:
        over.set()
        for thread in beside:
            thread.join()
    assert os.listdir(tmp_path) == []
