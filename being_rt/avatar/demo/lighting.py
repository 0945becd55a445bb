"""The portrait studio that every demo person stands in: key, fill, rim and room, baked into the Gaussians' colours.

A photographer's set-up, fixed to the head in its rest pose: a large warm key above the camera's left shoulder, a weak
warm fill on the other side, as from a sunlit wall, a rim light behind, and a room that is brighter above than below.
All of it is computed in linear light; :func:`develop` is the film: an S-shaped response and the sRGB encoding in which
Gaussians blend.

Arrays are float64, N points: positions and distances in metres, directions as unit vectors, colours linear RGB.
``distance`` arguments are functions ``points [N, 3] -> signed distance [N]`` of everything that casts a shadow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.cloud import unit

Array = NDArray[np.float64]
Distance = Callable[[Array], Array]

EYE_POINT = np.array([0.0, 0.0, 1.40])  # where the camera stands when highlights are baked


@dataclass(frozen=True)
class Lamp:
    """A distant, soft light. ``size`` is the tangent of its angular radius: it softens shadows and highlights."""

    direction: Array
    colour: Array
    size: float


KEY = Lamp(unit(np.array([-0.66, 0.56, 0.66])), np.array([1.00, 0.925, 0.83]) * 1.34, 0.22)
FILL = Lamp(unit(np.array([0.85, 0.10, 0.62])), np.array([1.00, 0.90, 0.80]) * 0.23, 0.55)
RIM = Lamp(unit(np.array([0.72, 0.42, -0.62])), np.array([0.94, 0.97, 1.00]) * 0.62, 0.25)
LAMPS = (KEY, FILL, RIM)
SKY = np.array([0.94, 0.95, 0.96]) * 0.26  # the room's light from above, in front and from below
WALL = np.array([0.98, 0.95, 0.92]) * 0.16
FLOOR = np.array([1.00, 0.84, 0.70]) * 0.09


@dataclass(frozen=True)
class Visibility:
    """How much of each light reaches a point, 0..1, and the mean unoccluded direction."""

    ambient: Array  # [N]
    bent: Array  # [N, 3]
    lamps: Array  # [N, len(LAMPS)]

    def __getitem__(self, selection: NDArray[np.generic] | slice) -> Visibility:
        return Visibility(self.ambient[selection], self.bent[selection], self.lamps[selection])

    @staticmethod
    def open(normals: Array) -> Visibility:
        """Nothing in the way: for points that need no baking."""
        return Visibility(np.ones(len(normals)), normals.copy(), np.ones((len(normals), len(LAMPS))))


def visibility(points: Array, normals: Array, distance: Distance, reach: float = 0.045) -> Visibility:
    """Ambient occlusion, bent normal and soft lamp shadows by marching a signed distance field.

    Occlusion compares the free distance along seven directions of the hemisphere with the distance walked (Evans,
    "Fast approximations for global illumination on dynamic scenes", SIGGRAPH 2006 course). Shadows are the narrowest
    cone that passes (Quilez, "Soft shadows in raymarched SDFs").

    Args:
        points: [N, 3], on or just above the surface.
        normals: [N, 3] unit.
        distance: signed distance of all occluders.
        reach: how far occlusion looks, metres.
    """
    helper = np.where(np.abs(normals[:, 1:2]) < 0.8, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    tangent = unit(np.cross(helper, normals))
    bitangent = np.cross(normals, tangent)
    free_sum = np.zeros(len(points))
    bent = np.zeros_like(points)
    steps = reach * np.array([0.06, 0.18, 0.45, 1.0])
    for spoke in range(7):
        if spoke == 6:
            direction = normals
        else:
            angle = spoke * np.pi / 3
            direction = 0.55 * normals + 0.835 * (np.cos(angle) * tangent + np.sin(angle) * bitangent)
        cosine = 1.0 if spoke == 6 else 0.55
        free = np.ones(len(points))
        for step in steps:
            clearance = distance(points + direction * step) / (step * cosine)
            free = np.minimum(free, np.clip(0.5 + 0.62 * clearance, 0.0, 1.0))
        free_sum += free
        bent += direction * free[:, None]
    shadows = np.stack([_lamp_visibility(points, normals, distance, lamp) for lamp in LAMPS], axis=1)
    return Visibility(free_sum / 7.0, unit(bent + 0.2 * normals), shadows)


def _lamp_visibility(points: Array, normals: Array, distance: Distance, lamp: Lamp) -> Array:
    seen = np.ones(len(points))
    facing = np.flatnonzero(normals @ lamp.direction > -0.35)
    start = points[facing] + normals[facing] * 0.0012
    narrowest = np.ones(len(facing))
    walked = 0.0035
    while walked < 0.16:
        clearance = distance(start + lamp.direction * walked) / (walked * lamp.size)
        narrowest = np.minimum(narrowest, clearance)
        walked *= 1.42
    share = np.clip(0.5 + 0.5 * narrowest, 0.0, 1.0)
    seen[facing] = share * share * (3.0 - 2.0 * share)
    return seen


def diffuse(
    normals: Array,
    seen: Visibility,
    scatter: float = 0.0,
    soft_normals: Array | None = None,
    albedo: Array | None = None,
) -> Array:
    """Light that a matt surface gathers, [N, 3]; multiply by the albedo.

    ``scatter`` in 0..1 imitates light under the skin: red wraps further around edges than blue and bleeds into
    shadows, and red sees ``soft_normals`` (the surface without its small bumps) where blue sees ``normals``
    (Jimenez et al., "Separable subsurface scattering", CGF 2015, by its look; Penner, "Pre-integrated skin shading").
    With ``albedo`` [N, 3] hollows are brightened in the surface's own colour by light that bounces about in them
    (Jimenez et al., "Practical realtime strategies for accurate indirect occlusion", 2016, eq. 13's fit).
    """
    soft_normals = normals if soft_normals is None else soft_normals
    # In deep shade, as under hair, red light from the surroundings is as rare as any other.
    depth = scatter * np.clip(1.7 * seen.ambient - 0.15, 0.0, 1.0)
    light = np.zeros((len(normals), 3))
    for channel, reach in enumerate((1.0, 0.45, 0.25)):
        softness = depth * reach
        blend = (scatter * reach) * np.ones((len(normals), 1))
        facing = unit(normals * (1.0 - 0.8 * blend) + soft_normals * 0.8 * blend)
        ambient = seen.ambient ** (1.35 - 0.35 * softness)
        bounce = np.zeros(len(normals))
        if albedo is not None:
            own = albedo[:, channel]
            fit = ((2.0404 * own - 0.3324) * ambient - 4.7951 * own + 0.6417) * ambient + 2.7552 * own + 0.6903
            ambient = np.maximum(ambient, fit * ambient)
            bounce = 0.17 * own
        for index, lamp in enumerate(LAMPS):
            wrap = 0.04 + 0.20 * softness + 0.25 * lamp.size
            lit = np.clip((facing @ lamp.direction + wrap) / (1.0 + wrap), 0.0, None) ** 1.15
            shadow = seen.lamps[:, index] ** (1.0 - 0.45 * softness)
            light[:, channel] += lamp.colour[channel] * lit * (shadow + (1.0 - shadow) * bounce)
        up = unit(0.5 * facing + 0.5 * seen.bent)[:, 1]
        room = WALL[channel] + np.where(up > 0, SKY[channel] - WALL[channel], WALL[channel] - FLOOR[channel]) * up
        light[:, channel] += room * ambient
    return light


def specular(points: Array, normals: Array, seen: Visibility, roughness: Array | float) -> Array:
    """Light mirrored towards the camera by a rough surface of full reflectance, [N, 3]; multiply by F0 (skin 0.028).

    GGX distribution with each lamp's size added to the roughness (Karis, "Real shading in Unreal Engine 4", 2013),
    Schlick's Fresnel included as a factor on F0 = 0.04, plus the room seen in the mirror direction.
    """
    view = unit(EYE_POINT - points)
    cos_view = np.clip(np.einsum("nd,nd->n", normals, view), 0.05, 1.0)
    alpha = np.clip(np.broadcast_to(np.asarray(roughness, dtype=np.float64), len(points)), 0.05, 1.0) ** 2
    light = np.zeros((len(points), 3))
    for index, lamp in enumerate(LAMPS):
        half = unit(view + lamp.direction)
        cos_light = np.clip(normals @ lamp.direction, 0.0, 1.0)
        cos_half = np.clip(np.einsum("nd,nd->n", normals, half), 0.0, 1.0)
        wide = np.clip(alpha + 0.35 * lamp.size, 0.0, 1.0) ** 2
        lobe = wide / (np.pi * ((cos_half**2) * (wide - 1.0) + 1.0) ** 2)
        fresnel = 1.0 + 24.0 * (1.0 - np.clip(np.einsum("nd,nd->n", view, half), 0.0, 1.0)) ** 5
        masking = (
            0.25
            / (np.maximum(cos_light, 0.05) * (1 - alpha / 2) + alpha / 2)
            / (cos_view * (1 - alpha / 2) + alpha / 2)
        )
        light += (lobe * masking * fresnel * cos_light * seen.lamps[:, index])[:, None] * lamp.colour * np.pi
    mirrored = 2.0 * cos_view[:, None] * normals - view
    up = np.clip(mirrored[:, 1], -1.0, 1.0)[:, None]
    room = WALL + np.where(up > 0, SKY - WALL, WALL - FLOOR) * up
    grazing = 1.0 + 7.0 * (1.0 - cos_view) ** 5 * (1.0 - 0.7 * np.sqrt(alpha))
    return light + room * (grazing * seen.ambient**1.5)[:, None]


def shade_strands(
    colour: Array, tangents: Array, normals: Array, seen: Visibility, gloss: Array | float = 1.0
) -> Array:
    """Hair: Kajiya and Kay's diffuse term with two shifted highlights (Marschner et al. 2003), linear [N, 3].

    ``colour`` [N, 3] is the fibre's albedo, ``normals`` those of the hair's envelope. The first highlight is white
    and lies towards the root, the second takes the fibre's colour and lies towards the tip. Points are taken to be
    seen from the front.
    """
    view = unit(np.array([0.0, 0.0, 1.0]))
    light = np.zeros_like(colour)
    for index, lamp in enumerate(LAMPS):
        along = np.clip(tangents @ lamp.direction, -1.0, 1.0)
        across = np.sqrt(1.0 - along**2)
        facing = np.clip((normals @ lamp.direction + 0.30) / 1.30, 0.0, 1.0)
        lit = (across * facing * seen.lamps[:, index])[:, None] * lamp.colour
        half = unit(view + lamp.direction)
        white = _strand_lobe(tangents + 0.12 * normals, half, 90.0)
        tinted = _strand_lobe(tangents - 0.10 * normals, half, 22.0)
        sheen = 0.055 * gloss * white[:, None] + 0.55 * gloss * colour * tinted[:, None]
        light += lit * (0.85 * colour + sheen)
    up = seen.bent[:, 1:2]
    room = WALL + np.where(up > 0, SKY - WALL, WALL - FLOOR) * up
    return light + colour * room * seen.ambient[:, None]


def _strand_lobe(tangents: Array, half: Array, exponent: float) -> Array:
    along = np.clip(unit(tangents) @ half, -1.0, 1.0)
    return (1.0 - along**2) ** (exponent / 2.0)


def linear(srgb: tuple[float, float, float] | Array) -> Array:
    """sRGB 0..255 to linear 0..1."""
    encoded = np.asarray(srgb, dtype=np.float64) / 255.0
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def develop(light: Array, exposure: float = 1.0) -> Array:
    """Linear light to sRGB 0..1 through a film-like S curve that keeps middle grey (0.18) and never clips.

    ``y = x^c / (x^c + k)`` (Naka and Rushton's response, as film's density curve), contrast c = 1.30.
    """
    contrast = 1.30
    x = np.maximum(light * exposure, 0.0) ** contrast
    y = x / (x + 0.18**contrast * (1.0 - 0.18) / 0.18)
    return np.where(y <= 0.0031308, 12.92 * y, 1.055 * np.maximum(y, 1e-9) ** (1 / 2.4) - 0.055)
