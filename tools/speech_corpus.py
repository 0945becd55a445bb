"""Make labelled training speech from espeak-ng, flite and festival: sound at 16 kHz and a viseme per 10 ms.

    apt install espeak-ng flite festival festlex-cmu festvox-us-slt-hts festvox-kdlpc16k
    python -m tools.speech_corpus --out corpus

Sentences come from the docstrings of Python's standard library and from words of the CMU pronouncing dictionary, so
nothing is downloaded. One core needs about 15 minutes. Written are ``NAME.npz`` files, one per voice group, with
``pcm`` int16, ``labels`` int8 (one per 160 samples) and ``lengths`` (labels per utterance).
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sysconfig
import tempfile
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from being_rt.audio.synthesis import Espeak
from being_rt.errors import InvalidParameterError
from being_rt.motion.visemes import NEXT, Phone, split_segments, viseme_segments

RATE = 16000
HOP = 160  # samples per label
SYSTEM_ESPEAK = "libespeak-ng.so.1"
CMU_DICTIONARY = Path("/usr/share/festival/dicts/cmu/cmudict-0.4.out")

# Minutes of speech per group. "test-*" voices are never trained on.
GROUPS = {
    "espeak": 90.0,
    "flite-slt": 45.0,
    "flite-rms": 45.0,
    "flite-awb": 45.0,
    "flite-kal16": 15.0,
    "festival-slt-hts": 20.0,
    "test-espeak": 8.0,
    "test-festival-ked": 6.0,
}
ESPEAK_ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan")
ESPEAK_HELD_OUT = ("f5", "m8", "belinda", "Mario")
ESPEAK_UNNATURAL = ("robo", "robot", "whisper", "demonic", "croak", "storm", "unirobot", "tweaky", "gene")
FLITE_PITCH_HZ = {"slt": 185, "awb": 130, "rms": 105, "kal16": 105}
FESTIVAL_VOICES = {"slt-hts": "voice_cmu_us_slt_arctic_hts", "ked": "voice_ked_diphone"}

Utterance = tuple[NDArray[np.int16], NDArray[np.int8]]

# espeak-ng mnemonics by first character, after the diphthongs and affricates below have been taken out.
_ESPEAK_PREFIXES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("aI", "AI", "aj"), ("aa", "ih")),
    (("eI", "EI"), ("E", "ih")),
    (("oU", "o@U", "OU", "@U"), ("oh", "ou")),
    (("aU", "AU"), ("aa", "ou")),
    (("OI",), ("oh", "ih")),
    (("i@", "I@"), ("ih", "RR")),
    (("e@", "E@"), ("E", "RR")),
    (("O@", "o@", "OR"), ("oh", "RR")),
    (("U@", "u@"), ("ou", "RR")),
    (("A@", "AR"), ("aa", "RR")),
    (("tS", "dZ", "S", "Z"), ("CH",)),
)
_ESPEAK_LETTERS = {
    letter: names
    for letters, names in (
        ("pbm", ("PP",)),
        ("fv", ("FF",)),
        ("TD", ("TH",)),
        ("td", ("DD",)),
        ("kgNxQC", ("kk",)),
        ("sz", ("SS",)),
        ("nl", ("nn",)),
        ("rR3", ("RR",)),
        ("aAV&", ("aa",)),
        ("eE@", ("E",)),
        ("iIjyY", ("ih",)),
        ("oO0", ("oh",)),
        ("uUw", ("ou",)),
        ("h", (NEXT,)),
        ("?_", ("sil",)),
    )
    for letter in letters
}


def espeak_visemes(mnemonic: str) -> tuple[str, ...]:
    """Visemes of one espeak-ng phoneme mnemonic; length and stress marks are ignored.

    >>> espeak_visemes("oU"), espeak_visemes("tS"), espeak_visemes("_:")
    (('oh', 'ou'), ('CH',), ('sil',))
    """
    name = re.sub(r"[:'#2\-|~;^,%]", "", mnemonic)
    for prefixes, visemes in _ESPEAK_PREFIXES:
        if name.startswith(prefixes):
            return visemes
    return _ESPEAK_LETTERS.get(name[:1], ("sil",) if not name else ("E",))


def label_frames(segments: list[tuple[float, float, int]], count: int) -> NDArray[np.int8]:
    """One viseme per 10 ms from timed segments; silence where there is none."""
    labels = np.zeros(count, np.int8)
    for begin, end, viseme in segments:
        labels[round(begin * RATE / HOP) : round(end * RATE / HOP)] = viseme
    return labels


def sentences() -> list[str]:
    """Sentences of 5 to 26 words out of the docstrings and comments of Python's standard library."""
    found: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        for match in re.findall(r"[A-Z][a-z]+(?:[ \n#]+[a-z',]+){4,25}[.?!]", text):
            sentence = re.sub(r"[\s#]+", " ", match)
            if len(sentence) < 220:
                found.add(sentence)
    result = sorted(found)
    random.Random(0).shuffle(result)
    return result


def words() -> list[str]:
    """Words of the CMU pronouncing dictionary."""
    return sorted(set(re.findall(r'^\("([a-z]{3,12})"', CMU_DICTIONARY.read_text(errors="ignore"), re.M)))


class Texts:
    """Endless lines to speak: 60 % natural sentences, 40 % random words, which have the rarer sound sequences."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.sentences, self.words = sentences(), words()

    def line(self) -> str:
        """One to three sentences, or 3 to 12 random words."""
        if self.random.random() < 0.6:
            return " ".join(self.random.choices(self.sentences, k=self.random.randint(1, 3)))
        return " ".join(self.random.choices(self.words, k=self.random.randint(3, 12))).capitalize() + "."


def espeak_speech(texts: Texts, held_out: bool) -> Iterator[Utterance]:
    """Utterances of espeak-ng with random accent, voice variant, speed, pitch and intonation."""
    data = next(Path("/usr").glob("lib/*/espeak-ng-data/voices/!v"))
    names = sorted(p.name for p in data.iterdir() if not p.name.lower().startswith(ESPEAK_UNNATURAL))
    variants = [n for n in names if (n in ESPEAK_HELD_OUT) == held_out and " " not in n]
    espeak, draw = Espeak(SYSTEM_ESPEAK), texts.random
    while True:
        voice = f"{draw.choice(ESPEAK_ACCENTS)}+{draw.choice(variants)}"
        speed, pitch, pitch_range = draw.randint(120, 260), draw.randint(25, 80), draw.randint(20, 80)
        try:
            speech = espeak.speak(texts.line(), voice, speed, pitch, pitch_range)
        except InvalidParameterError:  # a few variant files cannot be combined with every accent
            continue
        pcm = resample_poly(speech.pcm, 320, 441) if speech.sample_rate == 22050 else speech.pcm
        ends = [begin for begin, _ in speech.phones[1:]] + [len(pcm) / RATE]
        groups = [(begin, end, espeak_visemes(name)) for (begin, name), end in zip(speech.phones, ends, strict=True)]
        labels = label_frames(split_segments(groups), len(pcm) // HOP)
        yield (pcm[: len(labels) * HOP] * 32767).clip(-32767, 32767).astype(np.int16), labels


def flite_speech(texts: Texts, voice: str, scratch: Path) -> Iterator[Utterance]:
    """Utterances of one flite voice with random speed and pitch."""
    draw, sound = texts.random, scratch / "flite.wav"
    while True:
        command = ["flite", "-voice", voice, "-psdur", "--setf", f"duration_stretch={draw.uniform(0.75, 1.35):.2f}"]
        if draw.random() < 0.6:
            command += ["--setf", f"int_f0_target_mean={FLITE_PITCH_HZ[voice] * draw.uniform(0.8, 1.25):.0f}"]
        printed = subprocess.run(
            [*command, "-t", texts.line(), "-o", str(sound)], capture_output=True, text=True, check=True
        ).stdout
        phones: list[Phone] = []
        base = last = 0.0  # flite restarts its clock with every sentence
        for token in printed.split():
            name, _, end_text = token.rpartition(":")
            end = float(end_text)
            if end < last:
                base, last = base + last, 0.0
            phones.append((base + last, base + end, name))
            last = end
        pcm = read_wave(sound)
        if phones and abs(phones[-1][1] - len(pcm) / RATE) < 0.15:
            labels = label_frames(viseme_segments(phones), len(pcm) // HOP)
            yield pcm[: len(labels) * HOP], labels


def festival_speech(texts: Texts, voice: str, scratch: Path) -> Iterator[Utterance]:
    """Utterances of one festival voice, 60 per run of festival (its start is slow), with random speed."""
    draw = texts.random
    while True:
        script = [f"({FESTIVAL_VOICES[voice]})"]
        for i in range(60):
            script.append(f"(Parameter.set 'Duration_Stretch {draw.uniform(0.8, 1.3):.2f})")
            script.append(f"(set! utt (utt.synth (eval (list 'Utterance 'Text \"{texts.line()}\"))))")
            script.append(f'(utt.save.wave utt "{scratch}/{i}.wav" \'riff) (utt.save.segs utt "{scratch}/{i}.lab")')
        (scratch / "run.scm").write_text("\n".join(script))
        subprocess.run(["festival", "-b", str(scratch / "run.scm")], check=True, capture_output=True)
        for i in range(60):
            rows = [line.split() for line in (scratch / f"{i}.lab").read_text().splitlines()[1:]]
            ends = [float(row[0]) for row in rows]
            phones = [(b, e, row[2]) for b, e, row in zip([0.0, *ends], ends, rows, strict=False)]
            pcm = read_wave(scratch / f"{i}.wav")
            labels = label_frames(viseme_segments(phones), len(pcm) // HOP)
            yield pcm[: len(labels) * HOP], labels


def read_wave(path: Path) -> NDArray[np.int16]:
    """Mono 16-bit WAV at 16 or 32 kHz as 16 kHz."""
    with wave.open(str(path)) as file:
        pcm, rate = np.frombuffer(file.readframes(file.getnframes()), np.int16), file.getframerate()
    if rate == RATE:
        return pcm
    return resample_poly(pcm.astype(np.float32), RATE, rate).clip(-32767, 32767).astype(np.int16)


def source(name: str, texts: Texts, scratch: Path) -> Iterator[Utterance]:
    """The endless utterances of one group of `GROUPS`."""
    engine, _, voice = name.removeprefix("test-").partition("-")
    makers: dict[str, Callable[[], Iterator[Utterance]]] = {
        "espeak": lambda: espeak_speech(texts, held_out=name.startswith("test-")),
        "flite": lambda: flite_speech(texts, voice, scratch),
        "festival": lambda: festival_speech(texts, voice, scratch),
    }
    return makers[engine]()


def main() -> None:
    """Write every group that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("corpus"))
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the minutes of every group")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, (name, minutes) in enumerate(GROUPS.items()):
        path = options.out / f"{name}.npz"
        if path.exists():
            continue
        utterances: list[Utterance] = []
        total = 0
        with tempfile.TemporaryDirectory() as scratch:
            for utterance in source(name, Texts(seed), Path(scratch)):
                if len(utterance[1]) >= 50 and utterance[1].any():
                    utterances.append(utterance)
                    total += len(utterance[1])
                if total >= minutes * options.scale * 6000:
                    break
        partial = path.with_suffix(".part.npz")
        np.savez(
            partial,
            pcm=np.concatenate([u[0] for u in utterances]),
            labels=np.concatenate([u[1] for u in utterances]),
            lengths=np.array([len(u[1]) for u in utterances]),
        )
        partial.replace(path)
        print(f"{path}: {total / 6000:.1f} minutes, {len(utterances)} utterances", flush=True)


if __name__ == "__main__":
    main()
