"""Text to speech with espeak-ng, through ctypes: robotic, but offline, small and in a hundred languages.

espeak-ng is GPL-3. Nothing of it is part of being_rt: the pip package ``espeakng-loader`` (extra ``say``) brings the
library, and it is loaded only when this module is asked for speech.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import AudioError, InvalidParameterError, MissingDependencyError


@dataclass(frozen=True)
class Speech:
    """Synthesised speech: mono float32 samples in -1..1, their rate, and the start of each phone in seconds.

    Phone names are espeak-ng's mnemonics (Kirshenbaum-like), not ARPAbet.
    """

    pcm: NDArray[np.float32]
    sample_rate: int
    phones: tuple[tuple[float, str], ...]


def synthesize(text: str, voice: str = "en-us", *, words_per_minute: int = 165, pitch: int = 50) -> Speech:
    """Speak ``text`` with the espeak-ng that the extra ``say`` brings.

    ``voice`` is an espeak-ng voice with an optional variant ("en-us", "en-gb+f3", "de"); ``words_per_minute`` 80..450;
    ``pitch`` 0..99.

    Raises ``MissingDependencyError`` without the extra, ``InvalidParameterError`` for a value out of range or an
    unknown voice, ``AudioError`` if the text has nothing to say.

    >>> speech = synthesize("Good morning.")  # doctest: +SKIP
    >>> speech.pcm.dtype, speech.sample_rate  # doctest: +SKIP
    (dtype('float32'), 22050)
    """
    if not 80 <= words_per_minute <= 450:
        raise InvalidParameterError(f"words_per_minute must be 80..450, got {words_per_minute}")
    if not 0 <= pitch <= 99:
        raise InvalidParameterError(f"pitch must be 0..99, got {pitch}")
    if not text.strip():
        raise AudioError("there is no text to speak: give at least one word")
    speech = _bundled().speak(text, voice, words_per_minute, pitch, 50)
    if not speech.pcm.any():
        raise AudioError(f"espeak-ng found nothing to say in {text[:40]!r}: give at least one word")
    return speech


@functools.cache
def _bundled() -> Espeak:
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingDependencyError(
            "speaking text needs espeak-ng, which the extra `say` brings: pip install 'being_rt[say]'"
        ) from error
    return Espeak(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    class _Id(ctypes.Union):
        _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


# Constants of speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _DONT_EXIT = 0x0001, 0x8000
_EVENT_LIST_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH, _RANGE = 1, 3, 4
_POSITION_CHARACTER, _UTF8 = 1, 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """One loaded espeak-ng library. The library keeps global state, so a process has one of these and one thread."""

    def __init__(self, library: str | Path, data: str | Path | None = None) -> None:
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise MissingDependencyError(f"the espeak-ng library {library} cannot be loaded: {error}") from error
        path = None if data is None else str(data).encode()
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, _PHONEME_EVENTS | _DONT_EXIT)
        if rate <= 0:
            raise MissingDependencyError(f"espeak-ng does not start with its data at {data}: reinstall espeakng-loader")
        self.sample_rate = int(rate)
        self._blocks: list[NDArray[np.int16]] = []
        self._phones: list[tuple[float, str]] = []
        self._callback = _Callback(self._receive)  # kept: the library holds only the pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int) -> Speech:
        """Synthesise ``text``; ``pitch_range`` 0..99 is the liveliness of the intonation. Errors as `synthesize`."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InvalidParameterError(f"espeak-ng has no voice {voice!r}: `espeak-ng --voices` lists what it has")
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._library.espeak_SetParameter(parameter, int(value), 0)
        self._blocks, self._phones = [], []
        encoded = text.replace("\0", " ").encode() + b"\0"
        status = self._library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, _UTF8, None, None
        )
        if status != 0:
            raise AudioError(f"espeak-ng could not speak the text (status {status})")
        pcm = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        return Speech(pcm.astype(np.float32) * np.float32(1 / 32768), self.sample_rate, tuple(self._phones))

    def _receive(self, samples, count: int, events) -> int:  # type: ignore[no-untyped-def]
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_LIST_END:
            if events[i].type == _EVENT_PHONEME:
                name = ctypes.string_at(ctypes.addressof(events[i].id), 8).split(b"\0")[0].decode(errors="replace")
                self._phones.append((events[i].sample / self.sample_rate, name))
            i += 1
        return 0
