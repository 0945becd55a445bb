"""Sound: files and streams of any kind as mono float32 at 16 kHz, features of it, and speech from text."""

from being_rt.audio.decode import decode_audio, load_audio
from being_rt.audio.demo import demo_line
from being_rt.audio.resample import Resampler, mix_down, resample
from being_rt.audio.stream import AudioStream
from being_rt.audio.synthesis import Speech, synthesize

__all__ = [
    "AudioStream",
    "Resampler",
    "Speech",
    "decode_audio",
    "demo_line",
    "load_audio",
    "mix_down",
    "resample",
    "synthesize",
]
