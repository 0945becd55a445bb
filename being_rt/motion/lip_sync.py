"""Measure how well the lips of the built-in driver follow speech whose phones are known.

    python -m being_rt.motion.lip_sync clip.wav ... [corpus/test-espeak.npz ...] [--fps 25] [--look-ahead 0.1] [--json]

Beside ``clip.wav`` lies ``clip.phone.json`` (the output of ``pocketsphinx align``) or ``clip.phones.json`` (a list of
[begin, end, ARPAbet name]). Files of ``tools.speech_corpus`` carry their labels.

The lips are those of the procedural head, head movements taken away. The gap is the vertical distance between the
inner borders of the lips, mean over the central third of their columns, never below 0. Reported are

- closures: share of /p b m/ with a frame of gap < 1 mm between 40 ms before and 40 ms after the phone;
- their delay: middle of the closed run of frames against the middle of the phone;
- false closures: frames of gap < 1 mm inside vowels, 40 ms or further from any /p b m/ or silence, as a share of such
  frames, and as runs per minute; spurious closures: closed runs further than 60 ms from any /p b m/ or silence;
- jaw: correlation of the jaw's angle with the mean opening of the visemes, smoothed over 140 ms, and the delay at
  which that correlation is best;
- silence: largest and mean gap inside pauses of 0.2 s or longer, 0.12 s away from speech;
- speed: 99th percentile of the gap's speed (lips of people reach 150 to 250 mm/s);
- jitter: mean |third difference| of gap and jaw per (1/50 s)^3, and the share of the jaw's variance beyond 8 Hz (human
  jaws move below); reversals: turns of the jaw of 1 degree and more per second;
- blinks per minute.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.decode import load_audio
from being_rt.audio.features import HOP, SAMPLE_RATE
from being_rt.files import read_npz
from being_rt.flame.params import FlameParams
from being_rt.motion.driver import drive
from being_rt.motion.viseme_driver import VisemeDriver
from being_rt.motion.visemes import INDEX, VISEMES, Phone, viseme_segments

CLOSED = 0.001  # metres
TOLERANCE = 0.04
VOWELS = {INDEX[name] for name in ("aa", "E", "ih", "oh", "ou")}
# Mean opening of the jaw per viseme, 0..1, of the target curve.
OPENING = dict(zip(VISEMES, (0, 0, 0.1, 0.2, 0.25, 0.3, 0.25, 0.12, 0.25, 0.3, 1, 0.65, 0.4, 0.7, 0.35), strict=True))
FINE_FPS = 50.0  # jitter is measured at this rate

Segment = tuple[float, float, int]
Float64 = NDArray[np.float64]


@dataclass
class LipSync:
    """The figures of one clip; sums and counts can be pooled over clips with `pooled`."""

    seconds: float
    closures: int
    closures_hit: int
    closure_delay_ms: float
    vowel_frames: int
    vowel_frames_closed: int
    false_closures: int
    spurious_closures: int
    jaw_correlation: float
    jaw_delay_ms: float
    silence_frames: int
    silence_gap_max_mm: float
    silence_gap_mean_mm: float
    gap_mean_mm: float
    gap_jitter_mm: float
    gap_speed_mm_s: float
    jaw_jitter_degrees: float
    jaw_above_8hz: float
    jaw_reversals_per_second: float
    blinks: int


def measure(pcm: NDArray[np.float32], segments: list[Segment], **driver: Any) -> LipSync:
    """Drive the procedural head with sound at 16 kHz and compare with its timed visemes (begin, end, index)."""
    fps = driver.setdefault("fps", 25.0)
    expression_map = _head()[1]
    coarse = drive(VisemeDriver(expression_map, **driver), pcm, SAMPLE_RATE)
    fine = drive(VisemeDriver(expression_map, **driver | {"fps": FINE_FPS}), pcm, SAMPLE_RATE)
    gap, times = lip_gap(coarse), np.arange(len(coarse)) / fps
    bilabials = [s for s in segments if s[2] == INDEX["PP"]]
    apart = [s for s in segments if s[2] in (INDEX["PP"], INDEX["sil"])]
    closed = gap < CLOSED
    hits, delays = 0, []
    for begin, end, _ in bilabials:
        near = closed & (times >= begin - TOLERANCE - 1e-9) & (times <= end + TOLERANCE + 1e-9)
        hits += bool(near.any())
        if near.any():
            delays.append(times[near].mean() - (begin + end) / 2)
    vowel = _inside(times, [s for s in segments if s[2] in VOWELS])
    vowel &= ~_inside(times, [(begin - TOLERANCE, end + TOLERANCE, 0) for begin, end, _ in apart])
    wrong = closed & vowel
    excused = _inside(times, [(begin - 0.06, end + 0.06, 0) for begin, end, _ in apart])
    spurious = [run for run in np.split(np.arange(len(gap)), np.flatnonzero(np.diff(closed)) + 1) if closed[run[0]]]
    end_of_clip = len(pcm) / SAMPLE_RATE - 0.03
    pauses = [(b, e) for b, e, v in _merged(segments) if v == INDEX["sil"] and e - b >= 0.2]
    inner = [(b + 0.12 * (b > 0.03), e - 0.12 * (e < end_of_clip), 0) for b, e in pauses]
    silent = _inside(times, inner)
    fine_times, fine_gap, jaw = np.arange(len(fine)) / FINE_FPS, lip_gap(fine), np.degrees(fine.jaw[:, 0])
    target = _smooth(np.array([OPENING[VISEMES[v]] for v in _visemes_at(segments, fine_times)]))
    lags = range(-8, 9)
    correlations = [_correlation(np.roll(jaw, -lag)[8:-8], target[8:-8]) for lag in lags]
    spectrum = np.abs(np.fft.rfft(jaw - jaw.mean())) ** 2
    frequency = np.fft.rfftfreq(len(jaw), 1 / FINE_FPS)
    return LipSync(
        seconds=len(pcm) / SAMPLE_RATE,
        closures=len(bilabials),
        closures_hit=hits,
        closure_delay_ms=1000 * float(np.mean(delays)) if delays else 0.0,
        vowel_frames=int(vowel.sum()),
        vowel_frames_closed=int(wrong.sum()),
        false_closures=int((np.diff(np.concatenate([[0], wrong.astype(int)])) == 1).sum()),
        spurious_closures=sum(not excused[run].any() for run in spurious),
        jaw_correlation=_correlation(jaw, target),
        jaw_delay_ms=1000 * lags[int(np.argmax(correlations))] / FINE_FPS,
        silence_frames=int(silent.sum()),
        silence_gap_max_mm=1000 * float(gap[silent].max(initial=0)),
        silence_gap_mean_mm=1000 * float(gap[silent].mean()) if silent.any() else 0.0,
        gap_mean_mm=1000 * float(gap[~silent].mean()),
        gap_jitter_mm=1000 * float(np.abs(np.diff(fine_gap, 3)).mean()),
        gap_speed_mm_s=1000 * FINE_FPS * float(np.percentile(np.abs(np.diff(fine_gap)), 99)),
        jaw_jitter_degrees=float(np.abs(np.diff(jaw, 3)).mean()),
        jaw_above_8hz=float(spectrum[frequency > 8].sum() / spectrum[1:].sum()),
        jaw_reversals_per_second=_reversals(jaw, 1.0) / fine_times[-1],
        blinks=count_blinks(fine.eyelids.mean(1)),
    )


def lip_gap(params: FlameParams) -> Float64:
    """Gap of the lips [T] in metres, see the top of this file."""
    from being_rt.flame.skinning import skin

    rig = _head()[0]
    still = np.zeros_like(params.rotation)
    vertices = skin(rig, params.replace(rotation=still, neck=still, translation=still))
    heights = []
    for name in ("inner_lips_upper", "inner_lips_lower"):
        face, barycentric = rig.landmarks[name]
        corners = vertices[:, rig.faces[face], 1].astype(np.float64)  # [T, L, 3]
        heights.append((corners * barycentric).sum(2))
    gap = heights[0] - heights[1]
    third = gap.shape[1] // 3
    return np.maximum(gap[:, third : gap.shape[1] - third].mean(1), 0)


def count_blinks(eyelids: NDArray[np.floating[Any]]) -> int:
    """How often eyelids [T] pass half closed on their way down."""
    return int(((eyelids[1:] > 0.5) & (eyelids[:-1] <= 0.5)).sum())


def pooled(results: list[LipSync]) -> dict[str, float]:
    """One table for several clips: counts are added, the rest is averaged by duration."""
    seconds = sum(r.seconds for r in results)
    mean = {
        f.name: sum(getattr(r, f.name) * r.seconds for r in results) / seconds
        for f in fields(LipSync)
        if f.type != "int"
    }
    total = {f.name: sum(getattr(r, f.name) for r in results) for f in fields(LipSync) if f.type == "int"}
    return {
        "seconds": seconds,
        "closures": total["closures"],
        "closure_recall": total["closures_hit"] / max(1, total["closures"]),
        "false_closure_share": total["vowel_frames_closed"] / max(1, total["vowel_frames"]),
        "false_closures_per_minute": total["false_closures"] / seconds * 60,
        "spurious_closures_per_minute": total["spurious_closures"] / seconds * 60,
        "blinks_per_minute": total["blinks"] / seconds * 60,
        "silence_frames": total["silence_frames"],
        **{name: value for name, value in mean.items() if name not in ("seconds", "silence_gap_max_mm")},
        "silence_gap_max_mm": max(r.silence_gap_max_mm for r in results),
    }


def read_clip(path: Path) -> list[tuple[str, NDArray[np.float32], list[Segment]]]:
    """Name, sound at 16 kHz and timed visemes of a clip, or of the utterances of a corpus file."""
    if path.suffix == ".npz":
        data, start = read_npz(path), 0
        clips: list[tuple[str, NDArray[np.float32], list[Segment]]] = []
        for i, length in enumerate(data["lengths"]):
            pcm = data["pcm"][start * HOP : (start + length) * HOP].astype(np.float32) / np.float32(32768)
            labels = data["labels"][start : start + length]
            edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [length]])
            segments = [(a / 100, b / 100, int(labels[a])) for a, b in itertools.pairwise(edges)]
            clips.append((f"{path.stem} {i}", pcm, segments))
            start += length
        return clips
    aligned, plain = path.with_suffix(".phone.json"), path.with_suffix(".phones.json")
    if aligned.exists():
        words = json.loads(aligned.read_text())["w"]
        phones: list[Phone] = [(p["b"], p["b"] + p["d"], p["t"]) for w in words for p in w.get("w", [])]
    else:
        phones = [(begin, end, name) for begin, end, name in json.loads(plain.read_text())]
    return [(path.stem, load_audio(path)[0], viseme_segments(phones))]


@functools.cache
def _head() -> tuple[Any, Any]:
    from being_rt.flame.procedural import procedural_head
    from being_rt.flame.skinning import bake_rig

    model = procedural_head()
    return bake_rig(model), model.expression_map


def _inside(times: Float64, segments: list[Segment]) -> NDArray[np.bool_]:
    result = np.zeros(len(times), bool)
    for begin, end, _ in segments:
        result |= (times >= begin) & (times <= end)
    return result


def _merged(segments: list[Segment]) -> list[Segment]:
    result: list[Segment] = []
    for begin, end, viseme in segments:
        if result and result[-1][2] == viseme and begin - result[-1][1] < 0.01:
            begin = result.pop()[0]
        result.append((begin, end, viseme))
    return result


def _visemes_at(segments: list[Segment], times: Float64) -> NDArray[np.int64]:
    result = np.zeros(len(times), np.int64)
    for begin, end, viseme in segments:
        result[(times >= begin) & (times < end)] = viseme
    return result


def _smooth(values: Float64) -> Float64:
    kernel = np.hanning(9)[1:-1]
    return np.convolve(np.pad(values, 3, mode="edge"), kernel / kernel.sum(), "valid")


def _correlation(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0


def _reversals(values: NDArray[Any], size: float) -> int:
    turns, extreme, direction = 0, values[0], 0
    for value in values:
        if direction >= 0 and value < extreme - size:
            turns, direction, extreme = turns + 1, -1, value
        elif direction <= 0 and value > extreme + size:
            turns, direction, extreme = turns + 1, 1, value
        extreme = max(extreme, value) if direction > 0 else min(extreme, value) if direction < 0 else extreme
    return turns


def main() -> None:
    """Print the figures of every clip and of all together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--look-ahead", type=float, default=0.1)
    parser.add_argument("--limit", type=int, default=1000, help="utterances per corpus file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: dict[str, LipSync] = {}
    for path in options.clips:
        for name, pcm, segments in read_clip(path)[: options.limit]:
            results[name] = measure(pcm, segments, fps=options.fps, look_ahead=options.look_ahead)
    summary = pooled(list(results.values()))
    if options.json:
        print(json.dumps({"clips": {n: asdict(r) for n, r in results.items()}, "all": summary}, indent=1))
        return
    for name, value in summary.items():
        print(f"{name:28s} {value:9.3f}")


if __name__ == "__main__":
    main()
