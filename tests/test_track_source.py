"""Frames of videos as cameras and phones write them, and of files that are no videos, broken, too short or HDR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from being_rt.errors import TrackError
from being_rt.track.hdr import KNEE, to_srgb, tone_mapped
from being_rt.track.source import Orientation, VideoSource, at_constant_rate, rate_of

av = pytest.importorskip("av")

WIDTH, HEIGHT = 128, 96
RED, GREEN, BLUE, GREY = [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]
BT709, PQ, HLG, BT2020, BT2020_NCL = 1, 16, 18, 9, 9  # ITU-T H.273


def picture(number: int = 0) -> np.ndarray:
    """Red, green, blue and grey quarters; a white bar that moves by a pixel a frame, from the middle to the right."""
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    half = HEIGHT // 2, WIDTH // 2
    frame[: half[0], : half[1]], frame[: half[0], half[1] :] = RED, GREEN
    frame[half[0] :, : half[1]], frame[half[0] :, half[1] :] = BLUE, GREY
    frame[half[0] :, half[1] + number : half[1] + number + 8] = 255
    return frame


def bar(frame: np.ndarray) -> int:
    """Which frame it is: where the white bar begins."""
    row = frame[HEIGHT - 8, WIDTH // 2 :].mean(axis=1)
    return int(np.argmax(row > 190))


def write(
    path: Path,
    times: Sequence[float],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    setup: Callable[[Any], None] = lambda stream: None,
    frame_of: Callable[[int], Any] = lambda number: av.VideoFrame.from_ndarray(picture(number)),
    options: dict[str, str] | None = None,
) -> Path:
    """A video whose frames are shown at the given times in seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {"crf": "10", "g": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        setup(stream)
        for number, time in enumerate(times):
            frame = frame_of(number)
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def evenly(fps: float, count: int) -> list[float]:
    return [number / fps for number in range(count)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "plain.mp4", evenly(25, 40))


# ---------------------------------------------------------------------- ordinary videos


def test_every_frame_once_in_order(plain: Path) -> None:
    source = VideoSource(plain)
    info = source.info
    assert (info.size, info.full_size, info.fps, info.frames) == ((WIDTH, HEIGHT), (WIDTH, HEIGHT), 25.0, 40)
    assert (info.rotation, info.is_variable, info.is_hdr, info.bit_depth, info.codec) == (0, False, False, 8, "h264")
    frames = list(source)
    assert [index for index, _, _ in frames] == list(range(40))
    assert [bar(frame) for _, _, frame in frames] == list(range(40))
    assert frames[-1][1] == pytest.approx(39 / 25)
    assert all(frame.dtype == np.uint8 and frame.shape == (HEIGHT, WIDTH, 3) for _, _, frame in frames)
    assert np.abs(frames[0][2].astype(int)[::95, ::127] - [[RED, GREEN], [BLUE, GREY]]).max() < 6
    assert source.warnings == ()
    assert [bar(frame) for _, _, frame in source] == list(range(40))  # again


@pytest.mark.parametrize(("fps", "meant"), [(24000 / 1001, 24000 / 1001), (29.97, 30000 / 1001), (30.0, 30.0)])
def test_rates_of_broadcast_are_exact(tmp_path: Path, fps: float, meant: float) -> None:
    assert VideoSource(write(tmp_path / "clip.mp4", evenly(fps, 45))).info.fps == pytest.approx(meant, abs=1e-9)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mov", "clip.webm"])
def test_containers(tmp_path: Path, name: str) -> None:
    codec, options = ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}) if "webm" in name else ("libx264", None)
    source = VideoSource(write(tmp_path / name, evenly(30, 36), codec=codec, options=options))
    assert source.info.frames == 36
    assert [bar(frame) for _, _, frame in source] == list(range(36))


def test_large_frames_are_shrunk_if_asked(plain: Path) -> None:
    source = VideoSource(plain, size_limit=64)
    assert source.info.size == (64, 48)
    assert source.info.full_size == (WIDTH, HEIGHT)
    _, _, frame = next(iter(source))
    assert frame.shape == (48, 64, 3)


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    def wide(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    source = VideoSource(write(tmp_path / "wide.mp4", evenly(25, 30), setup=wide))
    assert source.info.size == (192, HEIGHT)
    assert next(iter(source))[2].shape == (HEIGHT, 192, 3)


def test_samples_come_from_all_over(plain: Path) -> None:
    samples = VideoSource(plain).sample(4)
    assert [time for time, _ in samples] == pytest.approx([0, 12 / 25, 24 / 25])  # key frames: each twelfth
    assert [bar(frame) for _, frame in samples] == [0, 12, 24]


# ---------------------------------------------------------------------- what phones do


@pytest.mark.parametrize(
    ("degrees", "flip", "corners"),
    [
        (-90, False, [BLUE, RED, GREY, GREEN]),  # a phone held upright: clockwise
        (90, False, [GREEN, GREY, RED, BLUE]),
        (180, False, [GREY, BLUE, GREEN, RED]),
        (0, True, [GREEN, RED, GREY, BLUE]),
        (-90, True, [RED, BLUE, GREEN, GREY]),
    ],
)
def test_turned_and_mirrored_videos_are_upright(
    tmp_path: Path, degrees: int, flip: bool, corners: list[list[int]]
) -> None:
    if not hasattr(getattr(av, "VideoStream", None), "set_display_rotation"):
        pytest.skip("this PyAV cannot write a display matrix")
    path = write(
        tmp_path / "turned.mp4",
        evenly(30, 31),
        setup=lambda stream: stream.set_display_rotation(degrees, hflip=flip),
        frame_of=lambda number: av.VideoFrame.from_ndarray(picture(60)),
    )
    source = VideoSource(path)
    assert source.info.size == ((HEIGHT, WIDTH) if abs(degrees) == 90 else (WIDTH, HEIGHT))
    assert source.info.rotation == -degrees % 360
    assert source.info.is_mirrored == flip
    frame = next(iter(source))[2]
    assert frame.shape[:2] == source.info.size[::-1]
    assert frame.flags.c_contiguous
    inset = frame[8:-8, 8:-8].astype(int)  # the white bar is in a corner
    seen = [inset[0, 0], inset[0, -1], inset[-1, 0], inset[-1, -1]]
    assert np.abs(np.array(seen) - corners).max() < 12


def test_orientations() -> None:
    def matrix(a: int, b: int, c: int, d: int) -> np.ndarray:
        return np.array([a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30], np.int32)

    stored = np.arange(6, dtype=np.uint8).reshape(2, 3, 1).repeat(3, axis=2)
    for k, numbers in enumerate([(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]):
        orientation = Orientation.of(matrix(*numbers))  # turned clockwise by k quarters
        assert (orientation.upright(stored) == np.rot90(stored, -k)).all()
        assert (orientation.rotation, orientation.is_mirrored) == (90 * k, False)
        mirrored = Orientation(orientation.transposed, not orientation.flipped_x, orientation.flipped_y)
        assert (mirrored.upright(stored) == np.rot90(stored, -k)[:, ::-1]).all()
        assert (mirrored.rotation, mirrored.is_mirrored) == (90 * k, True)
    assert Orientation.of(None) == Orientation()


def test_uneven_frames_are_put_where_they_belong(tmp_path: Path) -> None:
    times = [*evenly(30, 20), *(0.9 + number / 30 for number in range(20))]  # a pause of 8 frames
    source = VideoSource(write(tmp_path / "phone.mp4", times))
    assert (source.info.fps, source.info.frames, source.info.is_variable) == (30.0, 47, True)
    assert "uneven times: resampled to 30 per second" in source.warnings[0]
    shown = [bar(frame) for _, _, frame in source]
    expected = [int(np.argmin(np.abs(np.array(times) - index / 30))) for index in range(47)]
    assert np.abs(np.array(shown) - expected).max() <= 1  # in the middle between two, either will do
    assert shown == sorted(shown)
    assert shown[-1] == 39


def test_a_little_unevenness_is_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    times = [time + random.uniform(0, 0.008) for time in evenly(30, 45)]
    source = VideoSource(write(tmp_path / "phone.mp4", times))
    assert not source.info.is_variable
    assert [bar(frame) for _, _, frame in source] == list(range(45))


def test_rate_of_times() -> None:
    assert rate_of(np.arange(10) / 25) == (25.0, 10, False)
    fps, frames, variable = rate_of(np.concatenate([np.arange(10), np.arange(20, 30)]) / 50)
    assert (fps, frames, variable) == (50.0, 30, True)


def test_at_constant_rate() -> None:
    assert list(at_constant_rate([(0.0, "a"), (0.5, "b"), (1.0, "c")], 2, 3)) == [(0, "a"), (1, "b"), (2, "c")]
    assert list(at_constant_rate([(0.0, "a"), (1.0, "b")], 4, 5)) == list(enumerate("aaabb"))
    assert list(at_constant_rate([(0.0, "a"), (0.1, "b"), (0.2, "c"), (0.3, "d")], 5, 2)) == [(0, "a"), (1, "c")]
    assert list(at_constant_rate([(0.0, "a")], 5, 9)) == [(0, "a")]  # what is not there is not made up
    assert list(at_constant_rate([], 5, 9)) == []


# ---------------------------------------------------------------------- HDR


def hdr_frame(code: float) -> Callable[[int], Any]:
    """Grey of a 10-bit code, 0..1."""

    def make(number: int) -> Any:
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p10le")
        for plane, value in zip(frame.planes, (64 + 876 * code, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(value), np.uint16).tobytes())
        return frame

    return make


@pytest.mark.parametrize(
    ("transfer", "code", "grey"), [(PQ, 0.5807, 237), (PQ, 0.508, 188), (HLG, 0.75, 237), (HLG, 0.6, 172)]
)
def test_hdr_is_tone_mapped(tmp_path: Path, transfer: int, code: float, grey: int) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("this PyAV has no encoder for 10 bits")

    def tag(stream: Any) -> None:
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, BT2020, BT2020_NCL

    path = write(
        tmp_path / "hdr.mp4",
        evenly(30, 31),
        codec="libx265",
        pixel_format="yuv420p10le",
        setup=tag,
        frame_of=hdr_frame(code),
        options={"x265-params": "log-level=none", "preset": "ultrafast", "crf": "4"},
    )
    source = VideoSource(path)
    assert source.info.is_hdr
    assert source.info.bit_depth == 10
    assert "HDR" in source.warnings[0]
    frame = next(iter(source))[2]
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - grey).max() <= 3


def test_ten_bits_without_hdr(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ten.mkv",
        evenly(30, 31),
        codec="ffv1",
        pixel_format="yuv420p10le",
        options={"level": "3"},
        frame_of=hdr_frame(0.5),
    )
    source = VideoSource(path)
    assert (source.info.bit_depth, source.info.is_hdr) == (10, False)
    assert np.abs(next(iter(source))[2].astype(int) - 128).max() <= 2
    assert source.warnings == ()


def test_the_curve_of_tone_mapping() -> None:
    light = np.linspace(0, 50, 100_000)
    mapped = tone_mapped(light)
    assert (np.diff(mapped) >= 0).all()
    assert np.diff(mapped).max() <= light[1] * 1.0001  # it never steepens
    np.testing.assert_allclose(mapped[light < KNEE], light[light < KNEE])
    assert mapped[-1] == pytest.approx(1)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_codes_of_hdr(transfer: str) -> None:
    ramp = np.linspace(0, 65535, 300).astype(np.uint16)[:, None, None].repeat(3, axis=2)
    mapped = to_srgb(ramp, transfer).astype(int)
    assert (mapped[0] == 0).all()
    assert (mapped[-1] >= 254).all()
    assert (np.diff(mapped, axis=0) >= 0).all()
    assert np.ptp(mapped, axis=2).max() <= 1  # grey stays grey


# ---------------------------------------------------------------------- what cannot be tracked


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "none.mp4", "it does not exist"),
        (lambda path: path, "it is a folder"),
        (lambda path: written(path / "text.mp4", b"not a video at all\n" * 100), "is no video"),
        (lambda path: written(path / "empty.mp4", b""), "is no video"),
        (lambda path: sound(path / "sound.m4a"), "has sound but no picture"),
        (lambda path: write(path / "short.mp4", evenly(30, 15)), r"lasts 0.5 s: at least 1 s"),
        (lambda path: still(path / "still.png"), "at least 1 s"),
        (lambda path: write(path / "slow.mp4", evenly(2, 5)), "2 frames per second, outside 5..240"),
    ],
)
def test_what_is_no_usable_video(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(TrackError, match=message) as problem:
        VideoSource(make(tmp_path))
    assert "\n" not in str(problem.value)
    assert str(tmp_path) in str(problem.value)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def still(path: Path) -> Path:
    from PIL import Image

    Image.fromarray(picture()).save(path)
    return path


def test_a_file_without_its_index(plain: Path, tmp_path: Path) -> None:
    cut = written(tmp_path / "cut.mp4", plain.read_bytes()[: plain.stat().st_size // 2])
    with pytest.raises(TrackError, match="is no video, or is cut off before its index"):
        VideoSource(cut)


def test_a_truncated_file_gives_what_is_there(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.mkv", evenly(25, 60))
    cut = written(tmp_path / "cut.mkv", whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    source = VideoSource(cut)
    shown = [bar(frame) for _, _, frame in source]
    assert 25 <= len(shown) < 60
    assert shown == list(range(len(shown)))


def test_an_index_that_promises_more(tmp_path: Path) -> None:
    """An MP4 with its index at the front, cut off: the index still lists all frames."""
    if not hasattr(av.container.OutputContainer, "add_stream_from_template"):
        pytest.skip("this PyAV cannot copy a stream")
    whole = write_faststart(tmp_path / "whole.mp4", evenly(25, 60))
    cut = written(tmp_path / "cut.mp4", whole[: int(len(whole) * 0.75)])
    source = VideoSource(cut)
    shown = [bar(frame) for _, _, frame in source]
    assert 25 <= len(shown) < 60
    assert shown == list(range(len(shown)))
    assert any("damaged or incomplete" in warning for warning in source.warnings) or source.info.frames == len(shown)


def write_faststart(path: Path, times: Sequence[float]) -> bytes:
    moved = path.with_name("moved.mp4")
    options = {"movflags": "+faststart"}
    with av.open(str(write(path, times))) as source, av.open(str(moved), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return moved.read_bytes()


def test_damage_in_the_middle_is_passed_over(plain: Path, tmp_path: Path) -> None:
    content = bytearray(plain.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    source = VideoSource(written(tmp_path / "damaged.mp4", bytes(content)))
    frames = list(source)
    assert 25 <= len(frames) <= 40
    assert [index for index, _, _ in frames] == list(range(len(frames)))
