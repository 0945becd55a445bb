"""The fifteen visemes, and how phones map to them.

The set is the one of the Oculus lip-sync convention (an MPEG-4 FAP subset), which most game and avatar tools know.
"""

from __future__ import annotations

from collections.abc import Iterable

VISEMES = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
INDEX = {name: index for index, name in enumerate(VISEMES)}

# A diphthong is two visemes, each half as long. "HH" has no mouth shape of its own: it takes the next phone's.
NEXT = "next"
ARPABET: dict[str, tuple[str, ...]] = {
    "AA": ("aa",),
    "AE": ("aa",),
    "AH": ("aa",),
    "AO": ("oh",),
    "AW": ("aa", "ou"),
    "AX": ("E",),
    "AXR": ("RR",),
    "AY": ("aa", "ih"),
    "B": ("PP",),
    "CH": ("CH",),
    "D": ("DD",),
    "DH": ("TH",),
    "DX": ("DD",),
    "EH": ("E",),
    "EL": ("nn",),
    "EM": ("PP",),
    "EN": ("nn",),
    "ER": ("RR",),
    "EY": ("E", "ih"),
    "F": ("FF",),
    "G": ("kk",),
    "H": (NEXT,),
    "HH": (NEXT,),
    "HV": (NEXT,),
    "IH": ("ih",),
    "IX": ("ih",),
    "IY": ("ih",),
    "JH": ("CH",),
    "K": ("kk",),
    "L": ("nn",),
    "M": ("PP",),
    "N": ("nn",),
    "NG": ("kk",),
    "OW": ("oh", "ou"),
    "OY": ("oh", "ih"),
    "P": ("PP",),
    "PAU": ("sil",),
    "R": ("RR",),
    "S": ("SS",),
    "SH": ("CH",),
    "SIL": ("sil",),
    "SSIL": ("sil",),
    "T": ("DD",),
    "TH": ("TH",),
    "UH": ("ou",),
    "UW": ("ou",),
    "UX": ("ou",),
    "V": ("FF",),
    "W": ("ou",),
    "Y": ("ih",),
    "Z": ("SS",),
    "ZH": ("CH",),
    "#": ("sil",),
    "H#": ("sil",),
}

Phone = tuple[float, float, str]  # begin and end in seconds, name


def phone_visemes(phone: str) -> tuple[str, ...]:
    """Visemes of an ARPAbet phone, with or without stress digit, in any case; noises and the unknown are silence.

    >>> phone_visemes("OW1")
    ('oh', 'ou')
    """
    return ARPABET.get(phone.upper().rstrip("012"), ("sil",))


def viseme_segments(phones: Iterable[Phone]) -> list[tuple[float, float, int]]:
    """Turn timed ARPAbet phones into timed viseme indices; diphthongs are split in half.

    >>> viseme_segments([(0.0, 0.1, "HH"), (0.1, 0.3, "AY")])
    [(0.0, 0.1, 10), (0.1, 0.2, 10), (0.2, 0.3, 12)]
    """
    return split_segments((begin, end, phone_visemes(name)) for begin, end, name in phones)


def split_segments(segments: Iterable[tuple[float, float, tuple[str, ...]]]) -> list[tuple[float, float, int]]:
    """Divide timed groups of viseme names evenly and resolve ``NEXT`` to the viseme that follows."""
    flat: list[tuple[float, float, str]] = []
    for begin, end, names in segments:
        step = (end - begin) / len(names)
        flat += [(begin + i * step, begin + (i + 1) * step, name) for i, name in enumerate(names)]
    result: list[tuple[float, float, int]] = []
    following = "sil"
    for begin, end, name in reversed(flat):
        following = following if name == NEXT else name
        result.append((begin, end, INDEX[following]))
    return result[::-1]
