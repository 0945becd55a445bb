"""The speech driver: the same for any chunking, lips that close where they must, and a face that lives."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from being_rt.audio import demo_line, resample
from being_rt.errors import AudioError, FileFormatError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head
from being_rt.motion import MotionFrame, VisemeDriver, drive
from being_rt.motion.analysis import SpeechAnalyzer
from being_rt.motion.articulation import CHANNELS, TARGETS
from being_rt.motion.behaviour import Behaviour
from being_rt.motion.lip_sync import LipSync, count_blinks, measure, pooled, read_clip
from being_rt.motion.viseme_network import VisemeNetwork, load_weights
from being_rt.motion.visemes import ARPABET, NEXT, VISEMES, phone_visemes, viseme_segments

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("BEING_RT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
PHONES = json.loads((REPOSITORY / "tests" / "data" / "demo_line.phones.json").read_text())


@pytest.fixture(scope="module")
def line() -> np.ndarray:
    return demo_line()[0]


def run(driver: VisemeDriver, chunks: list[np.ndarray], rate: int) -> list[MotionFrame]:
    driver.reset()
    frames = [frame for chunk in chunks for frame in driver.push(chunk, rate)]
    return frames + driver.flush()


def joined(frames: list[MotionFrame]) -> FlameParams:
    return FlameParams.concatenate([frame.params for frame in frames])


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("milliseconds", [1, 20, 1000])
def test_same_motion_for_any_chunk_size(line: np.ndarray, rate: int, milliseconds: int) -> None:
    sound = resample(line[: 2 * 16000], 16000, rate)
    size = max(1, rate * milliseconds // 1000)
    pieces = [sound[i : i + size] for i in range(0, len(sound), size)]
    assert joined(run(VisemeDriver(), pieces, rate)) == drive(VisemeDriver(), sound, rate)


@settings(max_examples=15, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 4000), min_size=1, max_size=10),
    fps=st.sampled_from([24.0, 25.0, 30.0, 50.0, 60.0, 23.976]),
    look_ahead=st.sampled_from([0.0, 0.013, 0.06, 0.1]),
)
def test_same_motion_for_random_chunks(chunks: list[int], fps: float, look_ahead: float) -> None:
    sound = demo_line()[0][: sum(chunks)]
    driver = VisemeDriver(fps=fps, look_ahead=look_ahead)
    frames = run(driver, np.split(sound, np.cumsum(chunks)[:-1]), 16000)
    assert [frame.time for frame in frames] == [k / fps for k in range(len(frames))]
    assert len(frames) == int(np.ceil(len(sound) / 16000 * fps - 1e-6))
    if frames:
        assert joined(frames) == drive(driver, sound, 16000)


@pytest.mark.parametrize("look_ahead", [0.0, 0.04, 0.06, 0.1])
@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_frames_come_as_soon_as_promised(line: np.ndarray, fps: float, look_ahead: float) -> None:
    driver = VisemeDriver(fps=fps, look_ahead=look_ahead)
    size = 16  # 1 ms
    for i in range(0, 16000, size):
        for frame in driver.push(line[i : i + size], 16000):
            # One step of the network is the least that can be heard: the first moments of Λ < 20 ms wait for it.
            assert frame.time <= (i + size) / 16000 <= max(0.02, frame.time + look_ahead) + 0.021


def test_motion_does_not_foresee_more_than_its_look_ahead(line: np.ndarray) -> None:
    other = line.copy()
    other[16000:] = np.random.default_rng(0).normal(0, 0.2, len(line) - 16000)
    driver = VisemeDriver(fps=50, look_ahead=0.06)
    a, b = drive(driver, line, 16000), drive(driver, other, 16000)
    same = int((1.0 - 0.06) * 50)
    assert a[:same] == b[:same]
    assert a != b


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_type_and_channels_give_nearly_the_same(line: np.ndarray, rate: int) -> None:
    sound = line[: 3 * 16000]
    wanted = drive(VisemeDriver(), sound, 16000).jaw[:, 0]
    other = resample(sound, 16000, rate)
    stereo = np.repeat((other * 32767).astype(np.int16)[:, None], 2, axis=1)
    made = drive(VisemeDriver(), stereo, rate).jaw[:, 0]
    assert len(made) == len(wanted)
    assert np.corrcoef(made, wanted)[0, 1] > (0.85 if rate == 8000 else 0.97)


@pytest.mark.parametrize("gain", [0.03, 0.2, 5.0])
def test_level_hardly_matters(line: np.ndarray, gain: float) -> None:
    """From -30 dB to clipped. The first 1.5 s are left out: a level must be heard before it is known."""
    wanted = drive(VisemeDriver(), line, 16000).jaw[37:, 0]
    made = drive(VisemeDriver(), np.clip(line * gain, -1, 1).astype(np.float32), 16000).jaw[37:, 0]
    assert np.corrcoef(made, wanted)[0, 1] > 0.85


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_silence_keeps_the_mouth_shut(noise: float) -> None:
    sound = np.random.default_rng(1).normal(0, noise, 5 * 16000).astype(np.float32)
    params = drive(VisemeDriver(procedural_head().expression_map), sound, 16000)
    assert len(params) == 125
    assert params.jaw[:, 0].max() < 0.005
    assert np.ptp(params.neck, axis=0).max() > 0.005  # the person still lives


@pytest.mark.parametrize("decibels", [-60, -45, -30])
def test_steady_noise_is_not_speech(line: np.ndarray, decibels: float) -> None:
    sound = np.random.default_rng(0).normal(0, 10 ** (decibels / 20), 14 * 16000).astype(np.float32)
    sound[: len(line)] += line
    jaw = drive(VisemeDriver(), sound, 16000).jaw[:, 0]
    assert np.degrees(jaw[int(9.5 * 25) :]).max() < 0.5  # a second after the line
    clean = drive(VisemeDriver(), line, 16000).jaw[:, 0]
    assert np.corrcoef(jaw[37 : len(clean)], clean[37:])[0, 1] > (0.9 if decibels < -40 else 0.7)


def test_mouth_shuts_soon_after_speech(line: np.ndarray) -> None:
    sound = np.concatenate([line[: int(4.54 * 16000)], np.zeros(16000, np.float32)])  # cut at the end of "frame"
    jaw = drive(VisemeDriver(fps=50), sound, 16000).jaw[:, 0]
    assert jaw[:220].max() > 0.08
    assert jaw[int(4.54 * 50) + 12 :].max() < 0.01  # 240 ms later


def test_lips_of_the_bundled_line(line: np.ndarray) -> None:
    result = pooled([measure(line, viseme_segments([(b, e, name) for b, e, name in PHONES]))])
    assert result["closure_recall"] >= 0.85
    assert result["false_closure_share"] < 0.1  # /h/ and /w/ count as vowels here, and are nearly shut
    assert result["jaw_correlation"] > 0.8
    assert result["gap_speed_mm_s"] < 300


@pytest.mark.skipif(not (DATA / "speech").is_dir(), reason=f"recorded speech with phone timings is not at {DATA}")
def test_lips_of_recorded_speech() -> None:
    results: list[LipSync] = []
    for path in sorted((DATA / "speech").glob("librivox-*.wav")):
        results += [measure(pcm, segments) for _, pcm, segments in read_clip(path)]
    assert len(results) == 3
    result = pooled(results)
    assert result["closure_recall"] >= 0.85
    assert result["jaw_correlation"] >= 0.8
    assert result["silence_gap_max_mm"] < 0.5
    assert result["false_closure_share"] < 0.05
    assert 10 <= result["blinks_per_minute"] <= 30


def test_network_against_float64() -> None:
    weights = load_weights()
    features = np.random.default_rng(5).normal(-6, 2, (120, 40)).astype(np.float32)
    network = VisemeNetwork()
    made = np.stack([network.step(features[2 * i : 2 * i + 2]) for i in range(60)])
    (weight, bias), *blocks, (head, head_bias) = [
        (w.astype(np.float64), b.astype(np.float64)) for w, b in weights.layers
    ]
    x = np.maximum((features.reshape(60, 80).astype(np.float64) + 6) / 4 @ weight + bias, 0)
    for (weight, bias), d in zip(blocks, weights.dilations, strict=True):  # the whole sound at once, per layer
        padded = np.concatenate([np.zeros((2 * d, x.shape[1])), x])
        x = x + np.maximum(np.concatenate([padded[:60], padded[d : d + 60], padded[2 * d :]], 1) @ weight + bias, 0)
    logits = (x @ head + head_bias).reshape(60, -1, 15)
    wanted = np.exp(logits - np.log(np.exp(logits).sum(2, keepdims=True)))
    np.testing.assert_allclose(made, wanted, atol=2e-6)


def test_network_hears_the_bundled_line(line: np.ndarray) -> None:
    steps = SpeechAnalyzer().push(np.concatenate([line, np.zeros(1600, np.float32)]))
    head = load_weights().look_ahead_ms.index(60)
    guess = np.array([step.visemes[head].argmax() for step in steps])
    times = np.array([step.time for step in steps]) - 0.06
    right = total = 0
    for begin, end, viseme in viseme_segments([(b, e, name) for b, e, name in PHONES]):
        inside = (times >= begin) & (times < end)
        right += int((guess[inside] == viseme).sum())
        total += int(inside.sum())
    assert right / total > 0.65


def test_shipped_weights_are_small_and_described() -> None:
    path = REPOSITORY / "being_rt" / "motion" / "viseme_network.safetensors"
    assert path.stat().st_size < 1_000_000
    assert load_weights().look_ahead_ms[0] == 0
    assert load_weights().look_ahead_ms[-1] == 100


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", bytes(100)])
def test_damaged_weights(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "network.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"network\.safetensors"):
        load_weights(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fps", 0),
        ("fps", -25),
        ("fps", float("nan")),
        ("look_ahead", 0.2),
        ("look_ahead", -0.1),
        ("smile", 2),
        ("seed", -1),
    ],
)
def test_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        VisemeDriver(**{name: value})


def test_bad_sound() -> None:
    driver = VisemeDriver()
    with pytest.raises(AudioError):
        driver.push(np.array([np.nan] * 100, np.float32), 16000)
    with pytest.raises(InvalidParameterError):
        driver.push(np.zeros((2, 3, 4), np.float32), 16000)
    with pytest.raises(InvalidParameterError):
        driver.push(np.zeros(100, np.float32), 10)
    with pytest.raises(AudioError, match="0 samples"):
        drive(driver, np.zeros(0, np.float32), 16000)
    assert driver.flush() == []


def test_seeds_and_liveliness(line: np.ndarray) -> None:
    sound = line[:32000]
    a, b = drive(VisemeDriver(seed=1), sound, 16000), drive(VisemeDriver(seed=2), sound, 16000)
    assert np.array_equal(a.jaw, b.jaw)
    assert not np.array_equal(a.neck, b.neck)
    still = drive(VisemeDriver(seed=1, liveliness=0), sound, 16000)
    assert np.abs(still.neck[:, 1:]).max() == 0
    wide = drive(VisemeDriver(articulation=1.4), sound, 16000)
    assert wide.jaw[:, 0].max() > 1.2 * a.jaw[:, 0].max()


def test_motion_of_different_frame_rates_agrees(line: np.ndarray) -> None:
    slow, fast = drive(VisemeDriver(fps=25), line, 16000), drive(VisemeDriver(fps=50), line, 16000)
    for name in ("jaw", "neck", "eyes", "eyelids"):
        np.testing.assert_allclose(getattr(fast, name)[::2][: len(slow)], getattr(slow, name), atol=1e-5)


class Quiet:
    """A step of sound in which nothing is said."""

    def __init__(self, time: float, accent: float = 0.0) -> None:
        self.time, self.accent, self.speaking, self.loudness = time, accent, 0.5, -10.0


@pytest.mark.parametrize("seed", range(4))
def test_behaviour_is_that_of_people(seed: int) -> None:
    behaviour, lids, gaze, head = Behaviour(seed), [], [], []
    for step in range(1, 50 * 180):
        behaviour.hear(Quiet(step * 0.02, 0.7 * (step % 60 == 0)), step * 0.02)  # type: ignore[arg-type]
        pose = behaviour.pose(step * 0.02)
        lids.append(pose.eyelids[0])
        gaze.append(pose.gaze)
        head.append(pose.neck + pose.rotation)
    closed = np.array(lids)
    assert 10 <= count_blinks(closed) / 3 <= 30
    runs = np.split(closed > 0.5, np.flatnonzero(np.diff(closed > 0.5)) + 1)
    durations = [len(run) * 0.02 for run in runs if run[0]]
    assert all(0.06 <= duration <= 0.32 for duration in durations)  # half closed: 100 to 250 ms
    degrees = np.degrees(head)
    assert np.all(np.abs(degrees) < (12, 15, 8))
    assert np.all(degrees.std(0) > (0.5, 1.0, 0.3))
    assert np.degrees(np.abs(gaze)).max() < 22


def test_phones_and_targets_are_complete() -> None:
    assert set(TARGETS) == set(VISEMES)
    assert {name for target in TARGETS.values() for name in target} <= set(CHANNELS)
    assert {name for names in ARPABET.values() for name in names} <= {*VISEMES, NEXT}
    assert phone_visemes("AH0") == ("aa",)
    assert phone_visemes("+NOISE+") == ("sil",)
    assert viseme_segments([(0, 1, "B"), (1, 2, "HH")])[1][2] == VISEMES.index("sil")
