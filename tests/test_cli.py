"""The command line from end to end: videos that play and are in sync; every wrong input one line and no file."""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import make_avatar, make_params

import being_rt.jobs
from being_rt import _C, FlameParams, save_avatar
from being_rt.audio.decode import decode_audio
from being_rt.audio.demo import DEMO_LINE
from being_rt.errors import InvalidParameterError
from being_rt.jobs import Render, Talk, parse_background, parse_size

av = pytest.importorskip("av")
pytest.importorskip("tyro")

from being_rt.cli import main  # noqa: E402

BEING = [sys.executable, "-m", "being_rt.cli"]
SMALL = ["--size", "320x180"]


def write_wav(path: Path, sound: np.ndarray, rate: int) -> Path:
    samples = np.asarray(sound, np.float32)
    samples = samples[:, None] if samples.ndim == 1 else samples
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def speech(seconds: float) -> tuple[np.ndarray, int]:
    sound, rate = decode_audio(DEMO_LINE)
    return sound[: int(seconds * rate), 0], rate


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small avatar file, so that most tests need not wait for a person to be generated."""
    path = tmp_path_factory.mktemp("avatar") / "egg.being"
    save_avatar(make_avatar(size=(320, 180)), path)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def frames(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def durations(path: Path) -> tuple[float, float]:
    """Seconds of picture and of sound, counted in decoded frames and by the container's own word."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        count = sum(1 for _ in container.decode(video=0))
        assert float(video.duration * video.time_base) == pytest.approx(count / float(video.average_rate), abs=1e-3)
        return count / float(video.average_rate), float(audio.duration * audio.time_base)


def offset(path: Path, sound: np.ndarray, rate: int) -> float:
    """Seconds by which the file's sound, where it is played, lags behind ``sound`` starting with the first picture."""
    with av.open(str(path)) as container:
        first_picture = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        blocks = list(container.decode(audio=0))
    assert blocks[0].sample_rate == rate
    decoded = np.concatenate([block.to_ndarray() for block in blocks], axis=1)[0]
    n = len(decoded) + len(sound)
    correlation = np.fft.irfft(np.fft.rfft(decoded, n) * np.conj(np.fft.rfft(sound, n)), n)
    peak = int(np.argmax(correlation))
    return (peak - n if peak > n // 2 else peak) / rate + blocks[0].time - first_picture


def test_demo_needs_no_arguments_but_these_to_be_quick(folder: Path) -> None:
    done = subprocess.run([*BEING, "demo", *SMALL], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert str(folder / "demo.mp4") in done.stdout
    assert "times real time" in done.stdout
    assert os.listdir(folder) == ["demo.mp4"]

    sound, rate = decode_audio(DEMO_LINE)
    picture_seconds, sound_seconds = durations(folder / "demo.mp4")
    assert sound_seconds == pytest.approx(len(sound) / rate, abs=0.005)
    assert abs(picture_seconds - sound_seconds) <= 1 / 25
    assert abs(offset(folder / "demo.mp4", sound[:, 0], rate)) <= 0.020
    pictures = list(frames(folder / "demo.mp4"))
    assert pictures[0].shape == (180, 320, 3)
    assert min(picture.std() for picture in pictures) > 10  # a person before a background, never a blank frame
    changes = [np.abs(a.astype(int) - b).max() for a, b in zip(pictures, pictures[5:], strict=False)]
    assert min(changes) > 0
    assert max(changes) > 30  # the mouth


@pytest.mark.parametrize(("rate", "channels", "fps", "name"), [(8000, 2, 29.97, "a.mp4"), (44100, 1, 24, "b.mov")])
def test_talk(folder: Path, egg: str, rate: int, channels: int, fps: float, name: str) -> None:
    sound, own_rate = speech(1.7)
    there = np.interp(np.arange(int(1.7 * rate)) / rate, np.arange(len(sound)) / own_rate, sound)
    write_wav(folder / "in.wav", np.repeat(there[:, None], channels, axis=1), rate)
    options = ["--avatar", egg, "--audio", "in.wav", "--out", name, "--fps", str(fps), "--background", "#c02010"]
    assert main(["talk", *options, *SMALL, "--threads", "1"]) == 0
    assert sorted(os.listdir(folder)) == sorted(["in.wav", name])
    picture_seconds, sound_seconds = durations(folder / name)
    assert abs(picture_seconds - sound_seconds) <= 1 / fps
    assert abs(offset(folder / name, there, rate)) <= 0.020
    corner = next(frames(folder / name))[:8, :8].reshape(-1, 3).mean(0)
    assert corner == pytest.approx((0xC0, 0x20, 0x10), abs=6)


def test_silent_and_clipped_sound_are_sound(folder: Path, egg: str) -> None:
    for name, sound in {"silent": np.zeros(8000), "clipped": np.sign(speech(0.5)[0])}.items():
        write_wav(folder / "in.wav", sound, 16000)
        assert main(["talk", "--avatar", egg, "--audio", "in.wav", "--out", f"{name}.mp4", *SMALL]) == 0
        assert len(list(frames(folder / f"{name}.mp4"))) == int(np.ceil(len(sound) / 16000 * 25))


def test_say(folder: Path, egg: str) -> None:
    pytest.importorskip("espeakng_loader")
    assert main(["say", "Good morning.", "--avatar", egg, *SMALL]) == 0
    picture_seconds, sound_seconds = durations(folder / "say.mp4")
    assert 0.3 < sound_seconds < 3
    assert abs(picture_seconds - sound_seconds) <= 1 / 25


def test_render(folder: Path, egg: str) -> None:
    make_params(7).save("motion.npz")
    assert main(["render", "--params", "motion.npz", "--avatar", egg, *SMALL]) == 0
    assert len(list(frames(folder / "render.mp4"))) == 7


def test_jobs_from_python(folder: Path, egg: str) -> None:
    write_wav(folder / "in.wav", speech(0.4)[0], speech(0.4)[1])
    seen: list[tuple[int, int]] = []
    first = Talk("in.wav", out="a.mkv", avatar=egg, size=(160, 90)).run(lambda done, total: seen.append((done, total)))
    assert (first.frames, first.size, first.duration) == (10, (160, 90), 0.4)
    assert seen == [(i + 1, 10) for i in range(10)]
    Talk("in.wav", out="b.mkv", avatar=egg, size="160x90").run()
    assert all(np.array_equal(a, b) for a, b in zip(frames(folder / "a.mkv"), frames(folder / "b.mkv"), strict=True))
    make_params(2).save("motion.npz")
    assert Render("motion.npz", avatar=egg, size=(160, 90), fps=50, out="c.mp4").run().frames == 4


def test_the_device_that_draws(
    folder: Path, egg: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_params(2).save("motion.npz")
    command = ["render", "--params", "motion.npz", "--avatar", egg, "--size", "64x64"]
    monkeypatch.setenv("BEING_RT_DEVICE", "cuda:99")
    assert main([*command, "--device", "cpu"]) == 0
    for options in ([], ["--device", "auto"]):
        assert main([*command, *options, "--out", "other.mp4"]) == 2
        assert "CUDA" in capsys.readouterr().err
    assert not (folder / "other.mp4").exists()
    monkeypatch.setenv("BEING_RT_DEVICE", "cpu")
    assert main([*command, "--out", "other.mp4"]) == 0


@pytest.mark.gpu
def test_cuda_makes_the_same_video(folder: Path, egg: str) -> None:
    make_params(7).save("motion.npz")
    for device in ("cpu", "cuda"):
        Render("motion.npz", avatar=egg, size=(320, 180), quality=0, out=f"{device}.mkv", device=device).run()
    for a, b in zip(frames(folder / "cpu.mkv"), frames(folder / "cuda.mkv"), strict=True):
        assert (np.abs(a.astype(int) - b) > 3).mean() < 1e-2


def rewritten(egg: str, path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(egg) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return path


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def make_bad_files(folder: Path, egg: str) -> None:
    """One file per name that test_bad_input mentions."""
    write_wav(folder / "good.wav", *speech(0.4))
    write_wav(folder / "empty.wav", np.zeros(0), 16000)
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "text.mp3").write_text("this is no sound\n" * 50)
    (folder / "cut.wav").write_bytes((folder / "good.wav").read_bytes()[:30])
    (folder / "text.being").write_text("this is no avatar")
    header = struct.pack(">IIBBBBB", 12000, 9000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    (folder / "cut.being").write_bytes(Path(egg).read_bytes()[:5000])

    def newer(name: str, data: bytes) -> bytes:
        return json.dumps({**json.loads(data), "format_version": 99}).encode() if name == "manifest.json" else data

    def flipped(name: str, data: bytes) -> bytes:
        return data if name != "avatar.safetensors" else data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]

    rewritten(egg, folder / "newer.being", newer)
    rewritten(egg, folder / "flipped.being", flipped)
    (folder / "hostile.pkl").write_bytes(pickle.dumps({"v_template": Hostile()}))
    (folder / "cut.pkl").write_bytes(pickle.dumps({"v_template": np.zeros((5023, 3))})[:1000])
    (folder / "other.pkl").write_bytes(pickle.dumps({"colour": "red"}))
    np.savez(folder / "other.npz", a=np.zeros(3))
    make_params(2).save("motion.npz")
    with np.load(folder / "motion.npz") as motion:
        np.savez(folder / "nan.npz", **{k: np.full_like(v, np.nan) if k == "jaw" else v for k, v in motion.items()})


LONG = 300 * "a" + ".mp4"
TALK = "talk --avatar EGG --size 64x64 --out out.mp4 --audio "
BAD_INPUT = [
    *(TALK + name for name in ("missing.wav", "nothing.wav", "empty.wav", "cut.wav", "text.mp3", "text.being", ".")),
    *(TALK.replace("EGG", name) + "good.wav" for name in ("nobody", "missing.being", "text.being", "cut.being")),
    *(TALK.replace("EGG", name) + "good.wav" for name in ("newer.being", "flipped.being", "good.wav", ".")),
    *(TALK.replace("64x64", size) + "good.wav" for size in ("0x0", "-64x64", "63x64", "99999x99999", "big", "64", "")),
    *(TALK.replace("out.mp4", name) + "good.wav" for name in ("out.txt", "out", "no/folder/out.mp4", "folder.mp4")),
    *(TALK + f"good.wav --fps {fps}" for fps in ("0", "-25", "nan", "inf", "1000")),
    *(TALK + f"good.wav --background {name}" for name in ("missing.png", "huge.png", "good.wav", "#12345", ".")),
    *(TALK + f"good.wav --device {name}" for name in ("tpu", "cuda:99", "cuda:", "CPU", "")),
    *(TALK + f"good.wav {option}" for option in ("--threads -1", "--quality 99", "--look-ahead 3", "--smile nan")),
    *(
        f"info {name}"
        for name in ("missing.being", "text.being", "cut.being", "newer.being", "flipped.being", "good.wav")
    ),
    *(f"info {name}" for name in ("hostile.pkl", "cut.pkl", "other.pkl", "other.npz", "nan.npz", "nothing.wav", ".")),
    *(f"render --avatar EGG --params {name}" for name in ("missing.npz", "nan.npz", "other.npz", "text.being")),
    *(TALK.replace(word, LONG) + "good.wav" for word in ("EGG", "out.mp4")),
    *(TALK + LONG, f"info {LONG}", f"render --avatar EGG --params {LONG}"),
    "say --avatar EGG --out out.mp4 ...",
]


@pytest.mark.parametrize("command", BAD_INPUT)
def test_bad_input(command: str, folder: Path, egg: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command.startswith("say"):
        pytest.importorskip("espeakng_loader")
    (folder / "folder.mp4").mkdir()
    make_bad_files(folder, egg)
    before = sorted(os.listdir(folder))
    assert main([egg if word == "EGG" else word for word in command.split(" ")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("being: ")
    assert said.err.count("\n") == 1
    assert len(said.err) > 20
    assert "Traceback" not in said.err
    assert said.out == ""
    assert sorted(os.listdir(folder)) == before  # no output, no temporary file, nothing executed


def test_no_memory_is_one_line(
    folder: Path, egg: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def allocate(name: str) -> None:
        raise MemoryError

    monkeypatch.setattr(being_rt.jobs, "open_avatar", allocate)
    assert main(["demo", "--avatar", egg, *SMALL]) == 2
    assert capsys.readouterr().err == "being: not enough memory: use a smaller size or a shorter sound\n"
    assert os.listdir(folder) == []


def test_debug_shows_where(folder: Path) -> None:
    with pytest.raises(InvalidParameterError, match="no avatar 'nobody'"):
        main(["demo", "--avatar", "nobody", "--debug"])


def test_failure_keeps_the_earlier_video(folder: Path, egg: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "demo.mp4").write_bytes(b"earlier")
    avatar = make_avatar(size=(64, 64))
    broken = replace(avatar, background=avatar.background[:, :, :1])
    with pytest.raises(InvalidParameterError):
        save_avatar(broken, "broken.being")
    assert main(["demo", "--avatar", "missing.being"]) == 2
    assert os.listdir(folder) == ["demo.mp4"]
    assert (folder / "demo.mp4").read_bytes() == b"earlier"


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
def test_full_disk(folder: Path, egg: str) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000));"
        "from being_rt.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", limited, "demo", "--avatar", egg, *SMALL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("being: cannot write demo.mp4: ")
    assert done.stderr.count("\n") == 1
    assert os.listdir(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_kill_leaves_no_video_and_the_next_run_clears_up(folder: Path, egg: str) -> None:
    command = [*BEING, "demo", "--avatar", egg]
    with subprocess.Popen([*command, "--size", "1920x1080", "--fps", "240"], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not os.listdir(folder) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert not (folder / "demo.mp4").exists()
    assert len(os.listdir(folder)) == 1  # hidden, under a temporary name
    assert main(["demo", "--avatar", egg, *SMALL]) == 0
    assert os.listdir(folder) == ["demo.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_nothing(folder: Path, egg: str, number: signal.Signals, code: int) -> None:
    command = [*BEING, "demo", "--avatar", egg, "--size", "1920x1080", "--fps", "240"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not os.listdir(folder) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert len(os.listdir(folder)) == 1  # the temporary file: it is writing
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert said == ""
    assert "Traceback" not in errors
    assert os.listdir(folder) == []


def test_info(folder: Path, egg: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", egg, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["name"], facts["Gaussians"]) == ("avatar", "egg-0", 3200)
    FlameParams.neutral(50, fps=25).save("motion.npz")
    assert main(["info", "motion.npz"]) == 0
    assert "2.00 s" in capsys.readouterr().out


def test_avatars_lists_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["avatars"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) >= 2
    assert listed[0].startswith("ada")


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {"machine", "native core", "NVIDIA GPU", "CUDA part", "video", "cache", "drawing"} <= findings.keys()
    assert "frames per second" in findings["drawing"]["detail"]
    assert all(finding["state"] in ("ok", "absent") for finding in findings.values())
    if _C.cuda_built:
        assert findings["CUDA part"]["detail"] == f"built for {_C.cuda_architectures.replace(' ', ', ')}"
        assert findings["cuda" if not _C.cuda_devices() else "cuda:0"]["detail"]
    else:
        assert "BEING_RT_CUDA=1" in findings["CUDA part"]["remedy"]


def test_doctor_knows_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BEING_RT_DEVICE", "cpu")
    monkeypatch.setattr(_C, "cuda_built", True)
    monkeypatch.setattr(_C, "cuda_architectures", "90", raising=False)
    device = {"name": "NVIDIA A", "capability": (9, 0), "multiprocessors": 132, "memory": 80 * 10**9, "supported": True}
    old = device | {"name": "NVIDIA B", "capability": (7, 5), "supported": False}
    monkeypatch.setattr(_C, "cuda_devices", lambda: [device, old], raising=False)
    assert main(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["cuda:0"]["detail"] == "NVIDIA A, sm_90, 132 multiprocessors, 80 GB memory"
    assert findings["cuda:1"]["state"] == "absent"
    assert "CMAKE_CUDA_ARCHITECTURES=75" in findings["cuda:1"]["remedy"]


def test_doctor_tells_how_to_get_what_is_missing(
    tmp_path: Path, egg: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("being_rt.jobs.DEFAULT_AVATAR", egg)  # a person would be generated, there being no cache
    monkeypatch.setenv("BEING_RT_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("in the way")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert 'pip install "being_rt[cli]"' in said
    assert "BEING_RT_CACHE" in said


def test_without_the_extra_one_line_says_so(folder: Path) -> None:
    code = "import sys; sys.modules['tyro'] = None; from being_rt.cli import main"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == 'being: the command line needs its extra: pip install "being_rt[cli]"\n'


@pytest.mark.parametrize("command", [[], ["demo"], ["talk"], ["say"], ["render"], ["info"], ["avatars"], ["doctor"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "usage: being" in capsys.readouterr().out


def test_a_video_has_the_avatars_shape_unless_told_otherwise(folder: Path) -> None:
    tall = make_avatar(head_count=40, torso_count=20, size=(30, 40))
    save_avatar(tall, "tall.being")
    FlameParams.neutral(2, fps=25).save("still.npz")
    assert main(["render", "--avatar", "tall.being", "--params", "still.npz", "--out", "a.mp4"]) == 0
    assert next(iter(frames(folder / "a.mp4"))).shape == (1440, 1080, 3)


def test_sizes_and_backgrounds() -> None:
    assert parse_size("1920x1080") == parse_size((1920, 1080)) == parse_size(" 1920 × 1080 ") == (1920, 1080)
    assert parse_background("") is None
    assert parse_background("#ff0080") == pytest.approx((1, 0, 0.502), abs=1e-3)
