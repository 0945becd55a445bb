"""The room behind a demo person, far out of focus: a lit wall, soft light, and lamps and window panes as discs.

Blur is done in linear light with a disc-shaped aperture, as a lens does it, so that highlights stay bright discs. Noise
of less than one grey level dithers the 8-bit picture; without it the slow gradients would show bands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.lighting import linear
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import smoothstep

Array = NDArray[np.float64]
UInt8 = NDArray[np.uint8]


def build_background(traits: PersonTraits, size: tuple[int, int] = (1920, 1080)) -> UInt8:
    """A background plate, uint8 [height, width, 3] sRGB.

    Args:
        traits: the palette (lit centre, dark edge) and the seed of the room.
        size: width and height in pixels.

    Example::

        plate = build_background(PRESETS["ada"])
    """
    rng = np.random.default_rng(traits.seed * 31 + 9)
    width, height = size
    # Everything is so soft that a quarter of the resolution holds it.
    columns, rows = (width + 3) // 4, (height + 3) // 4
    x = ((np.arange(columns) + 0.5) / columns - 0.5)[None, :] * (width / height) * np.ones((rows, 1))
    y = ((np.arange(rows) + 0.5) / rows - 0.5)[:, None] * np.ones((1, columns))
    centre, edge = linear(traits.background[0]), linear(traits.background[1])
    room = _wall(x, y, centre, edge, rng) + _lights(x, y, centre, rng)
    picture = _enlarge(_encode(room), width, height)
    grain = rng.normal(size=(height, width, 1)) * 0.55 + rng.normal(size=(height, width, 3)) * 0.35
    return np.clip(np.rint(picture * 255.0 + grain), 3, 252).astype(np.uint8)


def _encode(light: Array) -> Array:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _wall(x: Array, y: Array, centre: Array, edge: Array, rng: np.random.Generator) -> Array:
    """A wall with a pool of light behind the person, a corner, a darker shelf or door, a window's glow on one side."""
    side = rng.choice([-1.0, 1.0])
    pool = np.exp(-((x - 0.22 * side) ** 2) / 0.42 - (y + 0.10) ** 2 / 0.30)
    level = 0.18 + 0.82 * pool
    level *= 1.0 - 0.28 * smoothstep(0.15, 0.62, y)  # darker below
    corner = smoothstep(-0.05, 0.09, side * x + 0.62)  # the adjoining wall lies in shade
    level *= 0.66 + 0.34 * corner
    wall = edge + (centre - edge) * level[..., None]
    # Out-of-focus furniture on the far side: dark uprights that melt into the wall.
    for _ in range(3):
        middle = side * rng.uniform(0.50, 0.88) * rng.choice([-1.0, -1.0, 1.0])
        half, soft = rng.uniform(0.05, 0.12), rng.uniform(0.09, 0.13)
        upright = smoothstep(soft, -soft, np.abs(x - middle) - half)
        top = smoothstep(-0.20, 0.20, y - rng.uniform(-0.45, -0.10))
        wall = wall * (1.0 - rng.uniform(0.20, 0.42) * (upright * top)[..., None] * np.array([0.92, 1.0, 1.06]))
    glow = np.exp(-((x + 0.92 * side) ** 2) / 0.055 - (y + 0.12) ** 2 / 0.16)
    return wall + glow[..., None] * centre * np.array([0.85, 0.93, 1.02])


def _lights(x: Array, y: Array, centre: Array, rng: np.random.Generator) -> Array:
    """Discs of confusion: small lamps and reflections, warm and cool, away from the middle of the picture."""
    light = np.zeros((*x.shape, 3))
    side = rng.choice([-1.0, 1.0])
    for index in range(13):
        far = index % 4 == 3
        at = np.array([(side if not far else -side) * rng.uniform(0.34, 0.88), rng.uniform(-0.48, 0.10)])
        radius = rng.uniform(0.028, 0.070)
        warm = rng.random() < 0.65
        tint = np.array([1.0, 0.80, 0.56]) if warm else np.array([0.76, 0.88, 1.0])
        away = np.hypot((x - at[0]), (y - at[1]) * 1.02)
        disc = smoothstep(radius * 1.22, radius * 0.80, away)
        rim = 1.0 + 0.16 * smoothstep(radius * 0.60, radius, away)  # a lens that is slightly over-corrected
        strength = rng.uniform(0.04, 0.16) * (0.4 if far else 1.0) * (0.045 / radius)
        light += (disc * rim * strength)[..., None] * tint * (0.25 + centre)
    return light


def _enlarge(picture: Array, width: int, height: int) -> Array:
    """Bilinear enlargement."""
    rows, columns = picture.shape[:2]
    at_y = np.clip((np.arange(height) + 0.5) * rows / height - 0.5, 0, rows - 1)
    at_x = np.clip((np.arange(width) + 0.5) * columns / width - 0.5, 0, columns - 1)
    top, left = np.minimum(at_y.astype(int), rows - 2), np.minimum(at_x.astype(int), columns - 2)
    fy, fx = (at_y - top)[:, None, None], (at_x - left)[None, :, None]
    upper = picture[top][:, left] * (1 - fx) + picture[top][:, left + 1] * fx
    lower = picture[top + 1][:, left] * (1 - fx) + picture[top + 1][:, left + 1] * fx
    return upper * (1 - fy) + lower * fy
