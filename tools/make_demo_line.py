"""Make the bundled line of speech with festival's voice cmu_us_slt_arctic_hts, and its phone timings for the tests.

    apt install festival festlex-cmu festvox-us-slt-hts
    python -m tools.make_demo_line

The voice is Carnegie Mellon University's, under its permissive licence (NOTICE).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np

from being_rt.audio.demo import DEMO_LINE, DEMO_TEXT
from being_rt.audio.resample import resample

LABELS = Path(__file__).parent.parent / "tests" / "data" / "demo_line.phones.json"
PEAK = 0.8


def main() -> None:
    """Write the WAV (16 kHz, 16 bit, mono) and the phones as [begin, end, ARPAbet name]."""
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "line.scm"
        script.write_text(
            f"""(voice_cmu_us_slt_arctic_hts)
            (set! utt (utt.synth (eval (list 'Utterance 'Text "{DEMO_TEXT}"))))
            (utt.save.wave utt "{scratch}/line.wav" 'riff)
            (utt.save.segs utt "{scratch}/line.lab")"""
        )
        subprocess.run(["festival", "-b", str(script)], check=True)
        with wave.open(f"{scratch}/line.wav") as file:
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
            pcm = resample(pcm, file.getframerate())
        rows = [line.split() for line in Path(f"{scratch}/line.lab").read_text().splitlines()[1:]]
    pcm *= PEAK / np.abs(pcm).max()
    with wave.open(str(DEMO_LINE), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(np.round(pcm * 32767).astype("<i2").tobytes())
    ends = [float(row[0]) for row in rows]
    phones = [[begin, end, row[2]] for begin, end, row in zip([0.0, *ends], ends, rows, strict=False)]
    LABELS.parent.mkdir(parents=True, exist_ok=True)
    LABELS.write_text(json.dumps(phones) + "\n")
    print(f"{DEMO_LINE}: {len(pcm) / 16000:.2f} s, {DEMO_LINE.stat().st_size} bytes; {LABELS}")


if __name__ == "__main__":
    main()
