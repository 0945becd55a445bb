"""A WAV reader that trusts nothing in the file: PCM of 8 to 32 bits, float of 32 and 64 bits, extensible headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import AudioError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
RATE_RANGE = (1000, 768_000)
MAXIMUM_CHANNELS = 64


@dataclass(frozen=True)
class _Format:
    code: int
    channels: int
    rate: int
    bytes_per_sample: int


class UnknownWavCodingError(AudioError):
    """A WAV file whose coding this reader does not know (ADPCM, A-law, MP3 in WAV ...)."""


def is_wav(head: bytes) -> bool:
    """Whether the first 12 bytes are those of a WAV file."""
    return len(head) >= 12 and head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE"


def parse_wav(data: bytes, name: str = "the WAV data") -> tuple[NDArray[np.float32], int]:
    """Samples float32 [n, channels] in -1..1 (float files may exceed it) and the sample rate of a WAV file's bytes.

    A data chunk that promises more than there is (an interrupted or streamed recording) gives what is there.

    Raises ``AudioError`` for damaged headers and impossible values, ``UnknownWavCodingError`` for other codings.

    >>> parse_wav(b"RIFF")
    Traceback (most recent call last):
    being_rt.errors.AudioError: the WAV data is not a WAV file
    """
    if not is_wav(data):
        raise AudioError(f"{name} is not a WAV file")
    layout: _Format | None = None
    position = 12
    while position + 8 <= len(data):
        tag, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        body = position + 8
        if tag == b"fmt ":
            layout = _parse_format(data[body : body + size], name)
        elif tag == b"data":
            if layout is None:
                raise AudioError(f"{name} is a damaged WAV file: its data comes before its format")
            return _samples(data[body : body + size], layout, name), layout.rate
        position = body + size + size % 2
    raise AudioError(f"{name} is a damaged WAV file: it has no sound data")


def _parse_format(chunk: bytes, name: str) -> _Format:
    if len(chunk) < 16:
        raise AudioError(f"{name} is a damaged WAV file: its format is cut off")
    code, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        code = int.from_bytes(chunk[24:26], "little")
    known = (code == _PCM and bits in (8, 16, 24, 32)) or (code == _FLOAT and bits in (32, 64))
    if not known:
        raise UnknownWavCodingError(f"{name} has WAV coding {code:#x} with {bits} bits, which needs PyAV to read")
    if not 1 <= channels <= MAXIMUM_CHANNELS:
        raise AudioError(f"{name} claims {channels} channels: 1 to {MAXIMUM_CHANNELS} can be read")
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise AudioError(f"{name} claims {rate} samples per second: {RATE_RANGE[0]} to {RATE_RANGE[1]} can be read")
    if block != channels * bits // 8:
        raise AudioError(f"{name} is a damaged WAV file: its block size does not fit its format")
    return _Format(code, channels, rate, bits // 8)


def _samples(body: bytes, layout: _Format, name: str) -> NDArray[np.float32]:
    width = layout.channels * layout.bytes_per_sample
    body = body[: len(body) // width * width]
    if layout.code == _FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.frombuffer(body, f"<f{layout.bytes_per_sample}").astype(np.float32)
        if not np.isfinite(values).all():
            raise AudioError(f"{name} has samples that are not finite numbers")
    elif layout.bytes_per_sample == 1:
        values = (np.frombuffer(body, np.uint8).astype(np.float32) - 128) * np.float32(1 / 128)
    elif layout.bytes_per_sample == 3:
        padded = np.zeros((len(body) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        values = (padded.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    else:
        integers = np.frombuffer(body, f"<i{layout.bytes_per_sample}")
        values = (integers / 2.0 ** (8 * layout.bytes_per_sample - 1)).astype(np.float32)
    return values.reshape(-1, layout.channels)
