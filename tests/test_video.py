"""Video files: decoded again and compared with what went in; and what is left when writing fails (nothing)."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from being_rt.errors import InvalidParameterError, MissingDependencyError, VideoError
from being_rt.video import VideoWriter, check_video_size, exact_fps

av = pytest.importorskip("av")


def speech_like(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Noise whose loudness comes and goes: its correlation with itself has one sharp peak."""
    n = int(seconds * rate)
    noise = np.random.default_rng(0).standard_normal((n, channels)) * 0.1
    return (noise * np.abs(np.sin(np.arange(n) / rate * 3))[:, None]).astype(np.float32)


def moving_bar(i: int, size: tuple[int, int]) -> np.ndarray:
    """An RGB frame that says which one it is: a red bar that moves four pixels a frame over blue."""
    width, height = size
    frame = np.full((height, width, 3), (20, 40, 200), np.uint8)
    frame[:, 4 * i % width : 4 * i % width + 8] = (220, 40, 30)
    return frame


def decode(path: Path) -> tuple[np.ndarray, list[float], np.ndarray, float, int]:
    """RGB frames, their times, sound [channels, n], its first time and its rate."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        blocks = [(block.time, block.to_ndarray()) for block in container.decode(audio=0)]
    pictures = np.stack([frame for _, frame in frames])
    return pictures, [t for t, _ in frames], np.concatenate([b for _, b in blocks], axis=1), blocks[0][0], rate


def lag_seconds(decoded: np.ndarray, original: np.ndarray, rate: int) -> float:
    """How much later ``decoded`` is than ``original``: the peak of their cross-correlation."""
    n = min(decoded.size, original.size)
    spectrum = np.fft.rfft(decoded[:n], 2 * n) * np.conj(np.fft.rfft(original[:n], 2 * n))
    peak = int(np.argmax(np.fft.irfft(spectrum)))
    return (peak - 2 * n if peak > n else peak) / rate


@pytest.mark.parametrize(
    ("name", "fps", "rate", "channels", "kept_rate"),
    [
        ("a.mp4", 25, 16000, 1, 16000),
        ("b.mp4", 29.97, 44100, 2, 44100),
        ("c.mkv", 24, 22050, 1, 22050),
        ("d.webm", 30, 16000, 1, 16000),
        ("e.mov", 12.5, 37800, 2, 44100),
    ],
)
def test_round_trip(tmp_path: Path, name: str, fps: float, rate: int, channels: int, kept_rate: int) -> None:
    seconds, size = 2.013, (160, 96)
    sound = speech_like(seconds, rate, channels)
    count = int(np.ceil(seconds * exact_fps(fps)))
    with VideoWriter(tmp_path / name, size, fps, sound=sound, sample_rate=rate) as video:
        for i in range(count):
            video.write(moving_bar(i, size))
    assert os.listdir(tmp_path) == [name]

    pictures, times, decoded, first_sound, decoded_rate = decode(tmp_path / name)
    assert len(pictures) == count
    assert times == pytest.approx([float(i / exact_fps(fps)) for i in range(count)], abs=1e-3)
    error = max(np.abs(pictures[i].astype(int) - moving_bar(i, size)).mean() for i in range(count))
    assert error < 12  # 4:2:0 smears the bar's edges; BT.601 for BT.709, or full range for limited, would give > 20

    if not name.endswith(".webm"):  # Opus always decodes at 48 kHz
        assert decoded_rate == kept_rate
    reference = np.interp(
        np.arange(int(seconds * decoded_rate)) / decoded_rate, np.arange(len(sound)) / rate, sound[:, 0]
    )
    assert abs(lag_seconds(decoded[0], reference, decoded_rate) + first_sound - times[0]) <= 0.002
    with av.open(str(tmp_path / name)) as container:
        assert container.duration / 1e6 == pytest.approx(seconds, abs=1 / fps + 0.064)  # one AAC packet at 16 kHz
        assert {int(container.streams.video[0].codec_context.color_primaries)} == {1}
        for stream in container.streams:
            if stream.duration is not None:
                assert float(stream.duration * stream.time_base) == pytest.approx(seconds, abs=1 / fps)


def test_nv12_frames_arrive_unchanged(tmp_path: Path) -> None:
    size = (64, 48)
    given = [np.random.default_rng(i).integers(16, 236, (72, 64), dtype=np.uint8) for i in range(6)]
    with VideoWriter(tmp_path / "a.mp4", size, 25, quality=0) as video:
        for frame in given:
            buffer = video.frame()
            buffer[:] = frame
            video.write(buffer)
    with av.open(str(tmp_path / "a.mp4")) as container:
        for frame, decoded in zip(given, container.decode(video=0), strict=True):
            planes = decoded.to_ndarray(format="yuv420p")
            assert np.array_equal(planes[:48], frame[:48])
            assert np.array_equal(planes[48:60].reshape(24, 32), frame[48:, 0::2])
            assert np.array_equal(planes[60:72].reshape(24, 32), frame[48:, 1::2])


def test_index_comes_first_so_that_players_can_stream(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@given(st.integers(1, 240), st.integers(1, 240))
def test_exact_fps_keeps_whole_and_broadcast_rates(whole: int, base: int) -> None:
    assert exact_fps(whole) == whole
    broadcast = Fraction(base * 1000, 1001)
    if broadcast >= 1:
        assert exact_fps(round(float(broadcast), 3)) == broadcast


@pytest.mark.parametrize("fps", [0, -25, float("nan"), float("inf"), 1e9])
def test_impossible_rates(fps: float) -> None:
    with pytest.raises(InvalidParameterError, match="fps must be"):
        exact_fps(fps)


@pytest.mark.parametrize("size", [(0, 0), (-2, 100), (1921, 1080), (1920, 1079), (100_000, 100_000), (2, 2)])
def test_impossible_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidParameterError):
        check_video_size(size)


@pytest.mark.parametrize("name", ["a.txt", "a", "missing/a.mp4", "folder.mp4"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="cannot write"):
        VideoWriter(tmp_path / name, (64, 48), 25)


@pytest.mark.parametrize(
    "sound", [np.zeros(0, np.float32), np.array([np.nan], np.float32), np.zeros((2, 3, 4), np.float32)]
)
def test_impossible_sound(tmp_path: Path, sound: np.ndarray) -> None:
    with pytest.raises(InvalidParameterError, match="sound must be"):
        VideoWriter(tmp_path / "a.mp4", (64, 48), 25, sound=sound, sample_rate=16000)


def test_wrong_frames_and_no_frames_leave_nothing(tmp_path: Path) -> None:
    def write(name: str, *shapes: tuple[int, ...]) -> None:
        with VideoWriter(tmp_path / name, (64, 48), 25) as video:
            for shape in shapes:
                video.write(np.zeros(shape, np.uint8))

    with pytest.raises(InvalidParameterError, match="a frame must be"):
        write("a.mp4", (48, 64, 3), (48, 65, 3))
    with pytest.raises(InvalidParameterError, match="would be empty"):
        write("b.mp4")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("problem", [RuntimeError("mine"), FileNotFoundError(2, "mine"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file(tmp_path: Path, problem: BaseException) -> None:
    def fail() -> None:
        with VideoWriter(tmp_path / "a.mp4", (64, 48), 25) as video:
            video.write(np.zeros((48, 64, 3), np.uint8))
            raise problem

    (tmp_path / "a.mp4").write_bytes(b"old")
    with pytest.raises(type(problem)) as raised:
        fail()
    assert raised.value is problem
    assert (tmp_path / "a.mp4").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_missing_pyav_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "being_rt\[cli\]"'):
        VideoWriter(tmp_path / "a.mp4", (64, 48), 25)


WRITE_NOISE = """
    import os, resource, signal, sys
    import numpy as np
    from being_rt.errors import VideoError
    from being_rt.video import VideoWriter

    path, action = sys.argv[1:]
    if action.isdigit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(action),) * 2)
    rng = np.random.default_rng(0)
    try:
        with VideoWriter(path, (320, 240), 25, sound=np.zeros(20000, np.float32), sample_rate=16000) as video:
            for i in range(30):
                video.write(rng.integers(0, 255, (240, 320, 3), dtype=np.uint8))
                if action == "interrupt" and i == 20:
                    os.kill(os.getpid(), signal.SIGINT)
    except (VideoError, KeyboardInterrupt) as problem:
        print(type(problem).__name__, problem)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals are POSIX")
@pytest.mark.parametrize("action", ["20000", "600000", "almost", "interrupt"])
def test_full_disk_and_interrupt_leave_nothing(tmp_path: Path, action: str) -> None:
    """A file size limit stands for the full disk: both fail in the same call, at the start, midway, in the index."""

    def write(name: str, action: str) -> str:
        command = [sys.executable, "-c", textwrap.dedent(WRITE_NOISE), str(tmp_path / name), action]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    if action == "almost":
        assert write("whole.mp4", "nothing") == ""
        action = str((tmp_path / "whole.mp4").stat().st_size - 100)
        (tmp_path / "whole.mp4").unlink()
    said = write("a.mp4", action)
    assert said.startswith("KeyboardInterrupt" if action == "interrupt" else "VideoError cannot write")
    assert said.count("\n") == 1
    assert os.listdir(tmp_path) == []
