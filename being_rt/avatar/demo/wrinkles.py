"""Creases of the skin as height over the average face, metres: lasting ones by age, passing ones by expression.

Heights are evaluated at :class:`~being_rt.avatar.demo.features.Place` and used three ways: they bend the normals that
light is baked with, they darken hollows, and, for expressions, they become offsets of the network's bases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import noise
from being_rt.avatar.demo.features import MOUTH_HALF, MOUTH_Y, Place
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep

Array = NDArray[np.float64]


def crease(across: Array, width: float) -> Array:
    """Unit furrow with raised banks: -1 in the valley, small shoulders either side."""
    return -bell(across, width) + 0.42 * bell(np.abs(across) - 1.7 * width, 1.1 * width)


def forehead_lines(place: Place, inner: bool | None = None) -> Array:
    """Horizontal lines of raised brows; ``inner`` picks the middle or the outer part, None both."""
    total = np.zeros(len(place.x))
    for index, (height, strength) in enumerate(((0.0585, 0.7), (0.0665, 1.0), (0.0745, 0.9), (0.0830, 0.6))):
        bow = height + 0.0022 * np.cos(place.x * 78.0 + index) * 0.5 - 1.6 * place.x**2
        bow = bow + 0.0006 * noise(place.points * [1.0, 0.2, 0.2], 0.016, 90 + index)
        gaps = 0.75 + 0.25 * noise(place.points, 0.024, 70 + index)
        total += strength * np.clip(gaps, 0.2, 1.2) * crease(place.y - bow, 0.00105)
    reach = bell(place.ax, 0.043) * place.front
    if inner is not None:
        middle = bell(place.ax, 0.021)
        reach = reach * (middle if inner else 1.0 - middle)
    return total * reach


def frown_lines(place: Place) -> Array:
    """Two upright lines between the brows, and the knot above them."""
    line = place.ax - 0.0072 - 0.16 * (place.y - 0.047)
    upright = crease(line, 0.0011) * bell(place.y - 0.0470, 0.0085)
    return (upright + 0.55 * bell(place.ax - 0.012, 0.006) * bell(place.y - 0.0440, 0.005)) * place.front


def crows_feet(place: Place) -> Array:
    """Rays from the outer corner of the eye."""
    dx, dy = place.eye_x - 0.0135, place.eye_y - 0.0010
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    rays = np.zeros(len(place.x))
    for direction, strength in ((0.55, 0.7), (0.18, 1.0), (-0.18, 1.0), (-0.52, 0.8), (-0.85, 0.5)):
        rays += strength * crease((angle - direction) * np.maximum(radius, 0.004), 0.00080)
    return rays * smoothstep(0.0025, 0.0060, radius) * smoothstep(0.021, 0.010, radius) * (dx > -0.002) * place.front


def under_eye_lines(place: Place) -> Array:
    """The bag's lower edge and fine lines below the lashes."""
    edge = place.eye_y + 0.0118 - 11.0 * np.clip(place.eye_x, -0.02, 0.02) ** 2 + 0.10 * place.eye_x
    fine = place.eye_y + 0.0085 - 9.0 * place.eye_x**2
    reach = bell(place.eye_x, 0.0135) * place.front
    return (crease(edge, 0.0016) + 0.30 * crease(fine, 0.0006)) * reach + 0.6 * bell(edge - 0.0032, 0.0026) * reach


def lid_crease(place: Place) -> Array:
    """The fold of the upper lid."""
    arch = place.eye_y - (0.0112 - 15.0 * np.clip(place.eye_x + 0.001, -0.02, 0.02) ** 2)
    return crease(arch, 0.00085) * bell(place.eye_x, 0.0140) * place.front


def nasolabial(place: Place) -> Array:
    """Fold from the nose's wing past the mouth's corner: a furrow with the cheek's roll above it."""
    shape = (
        0.8 * crease(place.fold, 0.0030) + 0.25 * crease(place.fold, 0.0013) + 0.55 * bell(place.fold - 0.0050, 0.0042)
    )
    return shape * place.fold_length


def marionette(place: Place) -> Array:
    """From the mouth's corners down."""
    line = place.ax - (MOUTH_HALF + 0.0026 + 0.22 * np.clip(MOUTH_Y - place.y, 0.0, 0.03))
    return (
        crease(line, 0.0013) * smoothstep(-0.041, -0.049, place.y) * smoothstep(-0.070, -0.058, place.y) * place.front
    )


def bunny_lines(place: Place) -> Array:
    """Slanting lines on the sides of the nose's bridge."""
    total = np.zeros(len(place.x))
    for offset in (0.0000, 0.0040, 0.0080):
        total += crease(place.y - (0.0150 - offset) - 0.75 * (place.ax - 0.006), 0.00085)
    return total * bell(place.ax - 0.0085, 0.0050) * bell(place.y - 0.0130, 0.0075) * place.front


def dimpled_chin(place: Place) -> Array:
    """Orange-peel of a tensed chin."""
    return noise(place.points, 0.0036, 61) * place.chin


def corner_brackets(place: Place) -> Array:
    """Short arcs beside the mouth's corners when they are pulled back."""
    radius = np.hypot(place.ax - MOUTH_HALF + 0.003, (place.y - MOUTH_Y) * 0.85)
    return crease(radius - 0.0085, 0.0012) * bell(place.y - MOUTH_Y, 0.0095) * (place.ax > MOUTH_HALF) * place.front


def lip_lines(place: Place) -> Array:
    """Fine upright creases of the lips, fanning out from the middle."""
    fan = place.x * (1.0 - 0.10 * np.clip(np.abs(place.lip), 0.0, 1.0))
    wave = np.sin(fan * 4300.0 + 1.7 * np.sin(fan * 1250.0)) + 0.6 * np.sin(fan * 7700.0 + 2.0 * np.sin(fan * 900.0))
    return (
        0.5 * wave * place.lips * smoothstep(0.02, 0.25, np.abs(place.lip)) * smoothstep(1.05, 0.75, np.abs(place.lip))
    )


def vertical_lip_age(place: Place) -> Array:
    """Radial lines above an old upper lip."""
    wave = np.sin(place.x * 2300.0 + 1.1 * np.sin(place.x * 700.0))
    return wave * bell(place.ax, 0.020) * bell(place.y - MOUTH_Y - 0.0115, 0.0045) * place.front * (1.0 - place.lips)


def neck_rings(place: Place) -> Array:
    total = np.zeros(len(place.x))
    for height in (-0.118, -0.141):
        total += crease(place.y - height - 0.20 * (place.z + 0.02) - 0.0015 * np.cos(place.x * 60.0), 0.0016)
    return total * smoothstep(-0.06, -0.02, place.z)


def lasting(place: Place, traits: PersonTraits) -> Array:
    """All of a person's permanent relief, metres: age's lines, lip creases, pores' unevenness."""
    old = float(np.clip((traits.age - 24.0) / 44.0, 0.0, 1.0))
    mm = 1e-3
    height = mm * (0.05 + 0.30 * old**1.4) * forehead_lines(place)
    height += mm * (0.02 + 0.34 * old**1.5) * frown_lines(place)
    height += mm * 0.26 * old**1.5 * crows_feet(place)
    height += mm * (0.10 + 0.42 * old) * under_eye_lines(place)
    height += mm * 0.42 * lid_crease(place)
    height += mm * (0.10 + 0.62 * old) * nasolabial(place)
    height += mm * 0.40 * old**1.3 * marionette(place)
    height += mm * 0.13 * old**2 * vertical_lip_age(place)
    height += mm * (0.05 + 0.30 * old) * neck_rings(place)
    height += mm * 0.075 * lip_lines(place)
    pores = 0.35 + 0.65 * np.clip(place.nose + place.cheek + 0.5 * place.t_zone, 0.0, 1.0)
    calm = (1.0 - place.lips) * (1.0 - 0.7 * place.upper_lid)
    height += (
        mm
        * calm
        * (0.030 * noise(place.points, 0.0075, 41) + (0.010 + 0.008 * old) * pores * noise(place.points, 0.0024, 42))
    )
    return height


def slope(height: object, place: Place, step: float = 2e-4) -> Array:
    """Gradient [N, 3] of a height function of Place."""
    columns = []
    for axis in range(3):
        shift = np.zeros(3)
        shift[axis] = step
        ahead = height(Place(place.points + shift, place.map))  # type: ignore[operator]
        behind = height(Place(place.points - shift, place.map))  # type: ignore[operator]
        columns.append((ahead - behind) / (2.0 * step))
    return np.stack(columns, 1)
