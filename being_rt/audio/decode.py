"""Any sound file to samples: WAV with NumPy alone, everything else through PyAV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.features import SAMPLE_RATE
from being_rt.audio.resample import mix_down, resample
from being_rt.audio.wav import MAXIMUM_CHANNELS, RATE_RANGE, UnknownWavCodingError, is_wav, parse_wav
from being_rt.errors import AudioError, MissingDependencyError
from being_rt.files import read_error_reason

SHORTEST = 0.02  # seconds; less is no speech, and less than one analysis window


def load_audio(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """The sound of any audio or video file as mono float32 in -1..1 at 16 kHz: ``(pcm [n], 16000)``.

    Silence is valid sound. Errors as `decode_audio`.

    >>> pcm, rate = load_audio("speech.mp3")  # doctest: +SKIP
    """
    samples, rate = decode_audio(path)
    return resample(mix_down(samples), rate, SAMPLE_RATE), SAMPLE_RATE


def decode_audio(path: str | os.PathLike[str]) -> tuple[NDArray[np.float32], int]:
    """The sound of any audio or video file as it is: ``(samples float32 [n, channels], sample rate)``.

    WAV needs nothing but NumPy; other formats and codings need PyAV (extra ``cli``).

    Raises ``AudioError`` if the file is missing, empty, not sound, damaged, or shorter than 20 ms, and
    ``MissingDependencyError`` if PyAV is needed and not there.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(12)
            if not head:
                raise AudioError(f"{path} is empty")
            samples, rate = parse_wav(head + file.read(), str(path)) if is_wav(head) else _decode_with_av(path)
    except UnknownWavCodingError:
        samples, rate = _decode_with_av(path)
    except FileNotFoundError as error:
        raise AudioError(f"{path} does not exist") from error
    except OSError as error:
        raise AudioError(f"cannot read {path}: {read_error_reason(error)}") from error
    if len(samples) < SHORTEST * rate:
        raise AudioError(f"{path} has {1000 * len(samples) / rate:.0f} ms of sound: at least 20 ms are needed")
    return samples, rate


def _decode_with_av(path: Path) -> tuple[NDArray[np.float32], int]:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"reading {path} needs PyAV, which the extra `cli` brings: pip install 'being_rt[cli]'"
        ) from error
    blocks: list[NDArray[Any]] = []
    rate = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise AudioError(f"{path} has no sound in it")
            converter: av.AudioResampler | None = None
            for frame in container.decode(container.streams.audio[0]):
                if converter is None:
                    rate = frame.sample_rate
                    if not (
                        RATE_RANGE[0] <= rate <= RATE_RANGE[1] and 1 <= frame.layout.nb_channels <= MAXIMUM_CHANNELS
                    ):
                        raise AudioError(f"{path} has {frame.layout.nb_channels} channels at {rate} Hz: cannot be read")
                    converter = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
                blocks += [converted.to_ndarray() for converted in converter.resample(frame)]
            if converter is not None:
                blocks += [converted.to_ndarray() for converted in converter.resample(None)]
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, AudioError):
            raise
        if not blocks:
            # FFmpeg's own words for it are a number and the path once more: no help.
            raise AudioError(f"{path} is not a sound file, or damaged: give a sound or video file") from error
        # A file that was cut off: what came before the damage is good sound.
    if not blocks:
        raise AudioError(f"{path} has no sound in it")
    samples = np.ascontiguousarray(np.concatenate(blocks, 1).T, np.float32)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path} has samples that are not finite numbers")
    return samples, rate
