"""What the driver hears every 20 ms: viseme probabilities, loudness against the speaker's own level, and accents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.features import BANDS, HOP, POWER_PER_MEAN_SQUARE, MelSpectrum, log_mel
from being_rt.motion.viseme_network import FRAMES_PER_STEP, STEP, VisemeNetwork, Weights
from being_rt.motion.visemes import INDEX

Float32 = NDArray[np.float32]

# Peaks of 20 ms lie about 9 dB above the root mean square of whole sentences, at which the network was trained.
PEAK_OVER_RMS_DB = 9.0
FIRST_LEVEL_DB = -16.0  # assumed peak level before anything was heard, dB of full scale
LOWEST_LEVEL_DB = -45.0  # quieter speech is not amplified further, nor is noise taken for speech
ATTACK = 0.5  # share of the way up per step: the level follows a louder voice within 50 ms
HOLD, RELEASE_DB = 1.0, 5.0  # seconds, then dB per second down while someone speaks: a quiet voice is met in seconds
# The noise floor follows dips of the energy at once and rises slowly. What hardly clears it is noise, whatever its
# level; what is far below the speaker's level is noise as well. Loudness is brought down accordingly.
FIRST_FLOOR_DB, LOWEST_FLOOR_DB, FLOOR_RISE_DB = -60.0, -75.0, 10.0
CLEAR_DB = 8.0  # above the floor: someone speaks
NOISE_DB, NOISE_LOUDNESS, NOISE_SLOPE = 4.0, -33.0, 1.5  # loudness is at most -33 + 1.5 (clearance - 4)
SILENCE_DB, QUIETEST = -65.0, -60.0
# An accent is a peak of the smoothed loudness that stands out of the last second.
ACCENT_PROMINENCE_DB, ACCENT_GAP = 2.5, 0.4
ACCENT_MEMORY = 50  # steps


@dataclass(frozen=True)
class Heard:
    """One step of 20 ms that ends at ``time``: probabilities [heads, 15] as of `VisemeNetwork.step`."""

    time: float
    visemes: Float32
    loudness: float  # dB against the speaker's peak level, 0 is loud, below -33 is no speech
    speaking: float  # 0..1, share of the last second that was speech
    accent: float  # 0, or the strength 0..1 of an accent that has just peaked


class SpeechAnalyzer:
    """Listens to mono sound at 16 kHz. The result does not depend on how the sound is cut into chunks."""

    def __init__(self, weights: Weights | None = None) -> None:
        self._network = VisemeNetwork(weights)
        self._spectrum = MelSpectrum()
        rms = self._network.weights.reference_rms
        self._reference_db = 20 * math.log10(rms) + PEAK_OVER_RMS_DB
        self.reset()

    def reset(self) -> None:
        """Forget all sound, as if newly made."""
        self._network.reset()
        self._spectrum.reset()
        self._powers = np.zeros((0, BANDS), np.float32)
        self._steps = 0
        self._level, self._held = FIRST_LEVEL_DB, 0.0
        self._floor = self._energy = FIRST_FLOOR_DB
        self._speaking = 0.0
        self._smooth = QUIETEST
        self._envelope = [QUIETEST] * ACCENT_MEMORY
        self._last_accent = -1.0

    @property
    def samples(self) -> int:
        """Samples that all steps so far have used."""
        return self._steps * FRAMES_PER_STEP * HOP

    def push(self, pcm: Float32) -> list[Heard]:
        """Take mono float32 samples at 16 kHz, give the steps that they complete."""
        self._powers = np.concatenate([self._powers, self._spectrum.push(pcm)])
        count = len(self._powers) // FRAMES_PER_STEP
        steps = [self._step(self._powers[i * FRAMES_PER_STEP : (i + 1) * FRAMES_PER_STEP]) for i in range(count)]
        self._powers = self._powers[count * FRAMES_PER_STEP :].copy()
        return steps

    def _step(self, powers: Float32) -> Heard:
        self._steps += 1
        time = self._steps * STEP
        mean_square = float(powers.sum()) / (FRAMES_PER_STEP * POWER_PER_MEAN_SQUARE)
        energy = 10 * math.log10(mean_square + 1e-12)
        clearance = self._follow(energy)
        gain = 10 ** ((self._reference_db - self._level) / 10)
        visemes = self._network.step(log_mel(powers, gain))
        loudness = min(energy - self._level, NOISE_LOUDNESS + NOISE_SLOPE * (clearance - NOISE_DB))
        loudness = QUIETEST if energy < SILENCE_DB else max(QUIETEST, loudness)
        speech = float(1 - visemes[-1, INDEX["sil"]]) if loudness > NOISE_LOUDNESS else 0.0
        self._speaking += (speech - self._speaking) * STEP / 0.5
        return Heard(time, visemes, loudness, self._speaking, self._accent(loudness, time))

    def _follow(self, energy: float) -> float:
        """Follow noise floor and level, in dB of full scale; gives how far the energy is above the floor."""
        self._energy += 0.5 * (energy - self._energy)
        self._floor = max(LOWEST_FLOOR_DB, min(self._floor + FLOOR_RISE_DB * STEP, self._energy))
        clearance = energy - self._floor
        if energy > self._level:
            self._level += ATTACK * (energy - self._level)
            self._held = HOLD
        elif self._held > 0:
            self._held -= STEP
        elif clearance > CLEAR_DB:
            self._level = max(LOWEST_LEVEL_DB, self._level - RELEASE_DB * STEP)
        return clearance

    def _accent(self, loudness: float, time: float) -> float:
        self._smooth += 0.35 * (loudness - self._smooth)
        self._envelope = [*self._envelope[1:], self._smooth]
        before, peak, after = self._envelope[-3:]
        heard = [value for value in self._envelope if value > -35]
        if not (before < peak >= after) or peak < -20 or len(heard) < 5:
            return 0.0
        prominence = peak - sum(heard) / len(heard)
        if prominence < ACCENT_PROMINENCE_DB or time - self._last_accent < ACCENT_GAP:
            return 0.0
        self._last_accent = time
        return min(1.0, prominence / 10)
