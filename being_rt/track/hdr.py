"""HDR pictures to sRGB, by one stated curve.

Codes become light relative to diffuse white, 203 cd/m2 (ITU-R BT.2408): PQ by SMPTE ST 2084, HLG by ITU-R BT.2100 on a
display of 1000 cd/m2, with its system gamma of 1.2 applied to each channel. BT.2020 becomes BT.709 by a matrix. Up to
0.6 of white, where faces are, light stays as it is; above, it bends smoothly towards the brightest that sRGB has.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]

TRANSFERS = {16: "pq", 18: "hlg"}  # ITU-T H.273, transfer characteristics
WHITE = 203.0  # cd/m2
KNEE = 0.6
ROWS = 64  # at a time, so that what is between stays in the cache

_BITS = 12  # of codes; cameras have 10
_STEPS = 4096  # of the curve's table, even in the square root of light
_PEAK = 10_000 / WHITE

_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def to_srgb(picture: UInt16, transfer: str) -> UInt8:
    """uint16 [H, W, 3] of BT.2020 codes, full range, -> uint8 [H, W, 3] sRGB. ``transfer``: "pq" or "hlg"."""
    to_light, to_code = _light_table(transfer), _code_table()
    result = np.empty(picture.shape, np.uint8)
    scale = np.float32(_STEPS / np.sqrt(_PEAK))
    for top in range(0, len(picture), ROWS):
        light = to_light[picture[top : top + ROWS] >> (16 - _BITS)] @ _BT2020_TO_BT709.T
        steps = np.sqrt(np.maximum(light, 0, out=light), out=light)
        steps *= scale
        result[top : top + ROWS] = to_code[np.minimum(steps, _STEPS - 1).astype(np.uint16)]
    return result


def tone_mapped(light: Float64) -> Float64:
    """Light relative to diffuse white, 0 and up, -> 0..1; continuous in value and slope."""
    room = 1 - KNEE
    return np.where(light < KNEE, light, KNEE + room * (1 - np.exp(-np.maximum(light - KNEE, 0) / room)))


@cache
def _light_table(transfer: str) -> Float32:
    """[4096]: code -> light relative to diffuse white."""
    code = np.arange(1 << _BITS) / ((1 << _BITS) - 1)
    if transfer == "pq":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = code ** (1 / m2)
        nits = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
        nits = 1000 * scene**1.2
    return (nits / WHITE).astype(np.float32)


@cache
def _code_table() -> UInt8:
    """[4096]: square root of light -> 8-bit sRGB (IEC 61966-2-1), tone-mapped."""
    light = tone_mapped(_PEAK * ((np.arange(_STEPS) + 0.5) / _STEPS) ** 2)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * np.clip(code, 0, 1)).astype(np.uint8)
