"""Sound: decoding of good and bad files, resampling, features, and that chunking changes nothing."""

from __future__ import annotations

import builtins
import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from being_rt.audio import AudioStream, Resampler, decode_audio, demo_line, load_audio, mix_down, resample
from being_rt.audio.features import BANDS, HOP, LOG_FLOOR, WINDOW, MelSpectrum, log_mel, mel_filterbank
from being_rt.audio.synthesis import synthesize
from being_rt.audio.wav import parse_wav
from being_rt.errors import AudioError, InvalidParameterError, MissingDependencyError


def tone(rate: int, seconds: float = 0.5, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int, code: int = 1, bits: int = 16, extensible: bool = False) -> bytes:
    """A WAV file of float samples [n, channels] in any coding of the reader."""
    channels = samples.shape[1]
    if code == 3:
        body = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        body = np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    else:
        integers = np.round(samples.astype(np.float64) * (2 ** (bits - 1) - 1)).astype("<i4")
        body = integers.reshape(-1, 1).view(np.uint8)[:, : bits // 8].tobytes()
    block = channels * bits // 8
    layout = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * block, block, bits)
    if extensible:
        guid_tail = bytes.fromhex("000000001000800000aa00389b71")
        layout += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", code) + guid_tail
    chunks = b"LIST" + struct.pack("<I", 3) + b"odd\0"
    chunks += b"fmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("code", "bits", "tolerance"), [(1, 8, 1.2e-2), (1, 16, 1e-4), (1, 24, 1e-6), (1, 32, 1e-6), (3, 32, 0), (3, 64, 0)]
)
@pytest.mark.parametrize("extensible", [False, True])
def test_wav_codings(code: int, bits: int, tolerance: float, extensible: bool) -> None:
    samples = np.random.default_rng(bits).uniform(-0.9, 0.9, (300, 2)).astype(np.float32)
    read, rate = parse_wav(wav_bytes(samples, 22050, code, bits, extensible))
    assert rate == 22050
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, samples, atol=tolerance)


def test_wav_agrees_with_the_standard_library(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-32768, 32767, (500, 2), dtype=np.int16)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(values.astype("<i2").tobytes())
    samples, rate = decode_audio(tmp_path / "a.wav")
    assert rate == 8000
    assert np.array_equal(np.round(samples * 32768), values)


def test_interrupted_recording_gives_what_is_there() -> None:
    data = wav_bytes(tone(8000)[:, None], 8000)
    promised_more = data.replace(b"data" + struct.pack("<I", 8000), b"data\xff\xff\xff\xff")
    assert len(parse_wav(promised_more[:-1001])[0]) == 4000 - 501


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_wav_raises_only_audio_errors(data: st.DataObject) -> None:
    sound = bytearray(wav_bytes(tone(8000, 0.01)[:, None], 8000, extensible=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(sound)))
    try:
        samples, rate = parse_wav(bytes(sound[:cut]))
    except AudioError:
        return
    assert np.isfinite(samples).all()
    assert rate > 0


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_wav(data: bytes) -> None:
    with pytest.raises(AudioError):
        parse_wav(b"RIFF" + data[:4].ljust(4, b"\0") + b"WAVE" + data)


@pytest.mark.parametrize(
    "content", [b"", b"Hello, this is text and no sound at all.\n" * 20, b"\x89PNG\r\n\x1a\n" + bytes(100)]
)
def test_files_without_sound(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.mp3"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"file\.mp3") as caught:
        load_audio(path)
    assert "Errno" not in str(caught.value)


def test_missing_file_directory_and_too_short(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"nowhere\.wav does not exist"):
        load_audio(tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match=r"cannot read .*: it is a folder"):
        load_audio(tmp_path)
    (tmp_path / "short.wav").write_bytes(wav_bytes(tone(8000, 0.01)[:, None], 8000))
    with pytest.raises(AudioError, match="10 ms"):
        load_audio(tmp_path / "short.wav")
    (tmp_path / "nan.wav").write_bytes(wav_bytes(np.full((4000, 1), np.nan), 8000, 3, 32))
    with pytest.raises(AudioError, match="finite"):
        load_audio(tmp_path / "nan.wav")


@pytest.mark.parametrize("codec", ["flac", "mp3", "ogg"])
def test_other_formats_through_pyav(tmp_path: Path, codec: str) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / f"sound.{codec}"
    encoder = {"flac": "flac", "mp3": "libmp3lame", "ogg": "libopus"}[codec]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=48000)
        stream.layout = "stereo"
        pcm = (np.tile(tone(48000, 1.0), (2, 1)) * 32767).astype(np.int16).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.rate = 48000
        for converted in av.AudioResampler(stream.format, "stereo", 48000, stream.frame_size or 4096).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    samples, rate = decode_audio(path)
    assert rate == 48000
    assert samples.shape[1] == 2
    assert abs(len(samples) / 48000 - 1) < 0.08
    pcm16, rate16 = load_audio(path)
    assert rate16 == 16000
    assert 0.3 < np.sqrt((pcm16[2000:-3000] ** 2).mean()) < 0.4  # 0.5 / sqrt(2) = 0.354


def test_without_pyav_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sound.mp3").write_bytes(b"ID3" + bytes(100))
    real = builtins.__import__

    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name in ("av", "espeakng_loader"):
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"being_rt\[cli\]"):
        load_audio(tmp_path / "sound.mp3")


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44099, 48000, 96000])
def test_resampling_keeps_a_tone_in_place(rate: int) -> None:
    made = resample(tone(rate, 0.5, 1234.5), rate)
    wanted = 0.5 * np.sin(2 * np.pi * 1234.5 * np.arange(len(made)) / 16000)
    assert len(made) == -(-round(0.5 * rate) * 16000 // rate)
    assert np.sqrt(((made - wanted)[300:-300] ** 2).mean()) < 1e-4 * 0.5  # -80 dB


def test_resampling_does_not_alias() -> None:
    made = resample(tone(48000, 0.5, 11000.0), 48000)
    assert np.abs(made[300:-300]).max() < 2e-4


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    chunks=st.lists(st.integers(0, 900), min_size=1, max_size=12),
    channels=st.integers(1, 3),
)
def test_stream_does_not_depend_on_chunks(rate: int, chunks: list[int], channels: int) -> None:
    sound = np.random.default_rng(sum(chunks)).uniform(-1, 1, (sum(chunks), channels)).astype(np.float32)
    whole, pieces = AudioStream(), AudioStream()
    wanted = np.concatenate([whole.push(sound, rate), whole.flush()])
    parts = [pieces.push(part, rate) for part in np.split(sound, np.cumsum(chunks)[:-1])]
    assert np.array_equal(np.concatenate([*parts, pieces.flush()]), wanted)
    assert len(wanted) == -(-sum(chunks) * 16000 // rate)


def test_resampler_can_be_used_again() -> None:
    resampler = Resampler(44100)
    sound = tone(44100)
    first = np.concatenate([resampler.push(sound), resampler.flush()])
    assert np.array_equal(np.concatenate([resampler.push(sound), resampler.flush()]), first)


@pytest.mark.parametrize("rate", [0, -8000, 999, 1_000_000, 16000.5])
def test_absurd_rates(rate: float) -> None:
    with pytest.raises(InvalidParameterError):
        AudioStream().push(np.zeros(10, np.float32), rate)  # type: ignore[arg-type]


def test_rate_must_not_change() -> None:
    stream = AudioStream()
    stream.push(np.zeros(10, np.float32), 8000)
    with pytest.raises(InvalidParameterError, match="8000 to 16000"):
        stream.push(np.zeros(10, np.float32), 16000)


def test_mix_down() -> None:
    assert np.array_equal(mix_down(np.array([-32768, 16384], np.int16)), np.array([-1, 0.5], np.float32))
    assert np.array_equal(mix_down(np.array([[1.0, 0.0], [0.5, 0.5]])), np.array([0.5, 0.5], np.float32))
    for wrong in (np.zeros((2, 2, 2), np.float32), np.zeros((10, 0), np.float32), np.array(["a"]), np.zeros(3, bool)):
        with pytest.raises(InvalidParameterError):
            mix_down(wrong)
    for wrong in (np.array([np.nan]), np.array([np.inf]), np.array([20000.0])):
        with pytest.raises(AudioError):
            mix_down(wrong)


def test_mel_spectrum_against_float64() -> None:
    pcm = np.random.default_rng(3).normal(0, 0.1, 4000).astype(np.float32)
    made = log_mel(MelSpectrum().push(pcm))
    padded = np.concatenate([np.zeros(WINDOW - HOP), pcm.astype(np.float64)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    frequency = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(WINDOW)) / 512)  # the transform, spelled out
    wanted = [
        np.log(np.abs(frequency @ (padded[t * HOP : t * HOP + WINDOW] * window)) ** 2 @ mel_filterbank() + LOG_FLOOR)
        for t in range(25)
    ]
    np.testing.assert_allclose(made, np.array(wanted), atol=2e-4)


def test_mel_filters_cover_the_band_evenly() -> None:
    filters = mel_filterbank()
    assert filters.shape == (257, BANDS)
    np.testing.assert_allclose(filters.sum(1)[10:220], 1, atol=1e-4)
    tone_bin = mel_filterbank()[32].argmax()  # 1000 Hz
    assert tone_bin in (13, 14)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=10))
def test_mel_spectrum_does_not_depend_on_chunks(chunks: list[int]) -> None:
    pcm = np.random.default_rng(len(chunks)).normal(0, 0.1, sum(chunks)).astype(np.float32)
    pieces = MelSpectrum()
    parts = [pieces.push(part) for part in np.split(pcm, np.cumsum(chunks)[:-1])]
    assert np.array_equal(np.concatenate(parts), MelSpectrum().push(pcm))


def test_demo_line() -> None:
    pcm, rate, text = demo_line()
    assert rate == 16000
    assert 6 < len(pcm) / rate < 10
    assert 0.5 < np.abs(pcm).max() <= 1
    assert "Ada" in text


def test_synthesis() -> None:
    pytest.importorskip("espeakng_loader")
    speech = synthesize("Hello, my name is Bob.", "en-us")
    assert 0.8 < len(speech.pcm) / speech.sample_rate < 4
    assert np.abs(speech.pcm).max() > 0.05
    assert "b" in [name for _, name in speech.phones]
    slow = synthesize("Hello, my name is Bob.", "en-us", words_per_minute=100)
    assert len(slow.pcm) > 1.2 * len(speech.pcm)
    with pytest.raises(InvalidParameterError, match="no voice"):
        synthesize("Hello", "klingon-nowhere")


def test_synthesis_refuses_nonsense() -> None:
    with pytest.raises(InvalidParameterError):
        synthesize("Hello", words_per_minute=5)
    with pytest.raises(InvalidParameterError):
        synthesize("Hello", pitch=100)
    with pytest.raises(AudioError, match="no text"):
        synthesize("  \n")


def test_synthesis_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from being_rt.audio import synthesis

    synthesis._bundled.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    with pytest.raises(MissingDependencyError, match=r"being_rt\[say\]"):
        synthesize("Hello")
    synthesis._bundled.cache_clear()


def test_wave_files_need_no_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    buffer = io.BytesIO(wav_bytes(np.repeat(tone(8000)[:, None], 2, 1), 8000))
    (tmp_path / "telephone.wav").write_bytes(buffer.getvalue())
    pcm, rate = load_audio(tmp_path / "telephone.wav")
    assert (len(pcm), rate) == (8000, 16000)
