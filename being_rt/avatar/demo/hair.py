"""Heads of hair: four styles, grown strand by strand over the scalp and baked into elongated Gaussians.

Strands follow a comb field (which way a hair lies at a place), keep a height above the scalp (how full the hair is
there) and gather into locks. Below the thin strands lie wide, dark ones and a cap on the skin, so that nothing shines
through. Places are given on the standard skull of :class:`being_rt.avatar.demo.strands.Scalp`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from being_rt.avatar.avatar import HeadLayer
from being_rt.avatar.demo.cloud import unit
from being_rt.avatar.demo.lighting import Distance, Visibility, develop, linear, shade_strands
from being_rt.avatar.demo.strands import (
    Fibres,
    Hairline,
    SampledField,
    Scalp,
    Strands,
    fibres,
    head_layer,
    light_through,
)
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]
PARTING_Z = -0.050  # hair from before this place falls in front of the shoulders, the rest behind them
GREY = linear((196, 194, 192))  # a hair without pigment, seen among others

# Hairlines: height over azimuth. From 83 degrees on all run alike, over the ear, behind it and along the nape.
_FRONT = (0.0, 12.0, 24.0, 36.0, 46.0, 56.0, 63.0, 68.0, 73.0, 79.0)
_BEHIND = (83.0, 88.0, 98.0, 107.0, 115.0, 124.0, 140.0, 180.0)
_NAPE = (0.0340, 0.0450, 0.0450, 0.0220, -0.0120, -0.0330, -0.0500, -0.0560)


def _hairline(*front: float) -> Hairline:
    return Hairline(_FRONT + _BEHIND, front + _NAPE)


HAIRLINES = {
    # A man's straight front with slight corners, sideburns to the middle of the ear.
    "masculine": _hairline(0.0945, 0.0945, 0.0955, 0.0965, 0.0870, 0.0640, 0.0430, 0.0200, -0.0020, -0.0030),
    # Rounder, lower at the temples, no sideburns.
    "feminine": _hairline(0.0945, 0.0950, 0.0955, 0.0940, 0.0870, 0.0680, 0.0500, 0.0350, 0.0230, 0.0150),
}


@dataclass(frozen=True)
class Style:
    """One way to wear hair. Functions take places on the standard skull [N, 3]."""

    hairline: Hairline
    comb: Callable[[Array, Array], Array]  # place, outward normal -> direction along which hair lies [N, 3]
    thickness: Callable[[Array], Array]  # height of the hair's envelope above the scalp, metres [N]
    length: Callable[[Array], Array]  # of a strand with this root, metres [N]
    density: Callable[[Array], Array]  # relative number of roots per area [N]
    layer: Callable[[Array], Array] = lambda place: np.zeros(len(place))  # raises strands with these roots
    segments: int = 5
    strands: int = 2000
    width: float = 0.00042
    locks: int = 300  # how many locks strands gather into
    gather: float = 0.55  # how far a strand's tip moves to its lock's guide, 0..1
    stray: float = 0.10  # random turn of a strand's direction
    lock_turn: float = 0.15  # random turn of a lock's direction
    root_shade: float = 0.55  # darkening at the roots
    short_edge: float = 0.45  # how much shorter strands are at the hairline
    hangs: bool = False  # falls freely once past the head's widest place
    cut: float | None = None  # standard height at which hanging hair ends
    turn_in: float = 0.0  # how much hanging tips bend towards the neck
    baby_hairs: int = 950
    fly_aways: int = 90
    cap: int = 1700
    cap_opacity: float = 0.96
    cap_lift: float = 0.25  # height of the cap over the hair's thickness


def _front_weighted(place: Array) -> Array:
    """More, finer strands where the camera looks."""
    return 0.34 + 0.66 * smoothstep(-0.110, -0.055, place[:, 2])


def _from_part(place: Array, part: float) -> Array:
    """Signed distance from the parting, which runs slightly outwards towards the crown."""
    return place[:, 0] - part - 0.10 * (place[:, 2] + 0.02)


def _short(traits: PersonTraits, hairline: Hairline) -> Style:
    """A parting on the subject's left, the top swept over it, sides tapered towards ears and nape."""
    part = 0.031
    full = traits.hair_length / 0.05

    def comb(place: Array, normal: Array) -> Array:
        side = np.tanh(_from_part(place, part) / 0.006)
        top = smoothstep(0.30, 0.80, normal[:, 1])[:, None]
        front = smoothstep(-0.015, 0.035, place[:, 2])[:, None]
        swept = np.stack([0.95 * side, 0.10 + 0 * side, -0.40 + 0 * side], axis=1)
        lifted = np.stack([0.85 * side, 0.45 + 0 * side, 0.05 - 0.12 * (side > 0)], axis=1)
        over = swept * (1 - front) + lifted * front
        whorl = place - [0.012, 0.120, -0.090]
        radial = unit(whorl * [1.0, 0.3, 1.0] + 1e-6) + np.array([0.0, -0.3, 0.0])
        behind = smoothstep(-0.050, -0.090, place[:, 2])[:, None]
        over = over * (1 - behind) + radial * behind
        down = np.stack([0.10 * side, -0.92 + 0 * side, -0.42 + 0.30 * behind[:, 0]], axis=1)
        return over * top + down * (1 - top)

    def thickness(place: Array) -> Array:
        height = (
            0.0024
            + 0.0058 * smoothstep(0.025, 0.070, place[:, 1])
            + 0.0085 * full * smoothstep(0.070, 0.112, place[:, 1])
        )
        quiff = (
            smoothstep(0.080, 0.100, place[:, 1])
            * smoothstep(0.0, 0.035, place[:, 2])
            * smoothstep(part + 0.004, -0.004, place[:, 0])
        )
        groove = bell(_from_part(place, part), 0.009) * smoothstep(0.075, 0.095, place[:, 1])
        groove *= smoothstep(-0.075, -0.045, place[:, 2])
        return (height + 0.0085 * full * quiff) * (1 - 0.50 * groove)

    def length(place: Array) -> Array:
        top = smoothstep(0.055, 0.100, place[:, 1])
        sides = 0.006 + 0.013 * smoothstep(-0.02, 0.055, place[:, 1])
        return sides * (1 - top) + 0.050 * full * top

    return Style(hairline, comb, thickness, length, _front_weighted, strands=1550, width=0.00046, gather=0.6)


def _hanging(traits: PersonTraits, hairline: Hairline) -> Style:
    """Parted near the middle, falling over the ears beside the neck down to the trait's length below the crown."""
    short = traits.hair_length < 0.28
    part = 0.020 if short else 0.006

    def comb(place: Array, normal: Array) -> Array:
        side = np.tanh(_from_part(place, part) / 0.003)
        upright = smoothstep(0.15, 0.75, normal[:, 1])[:, None]
        front = smoothstep(-0.01, 0.040, place[:, 2])[:, None]
        behind = smoothstep(-0.060, -0.100, place[:, 2])[:, None]
        # Off the parting sideways; at the forehead a little backwards, so that the face stays free.
        over = np.stack([side, 0.05 + 0 * side, -0.20 - 0.35 * front[:, 0]], axis=1)
        over = over * (1 - behind) + behind * np.stack([0.55 * side, 0 * side, -0.85 + 0 * side], axis=1)
        clear = -1.0 * smoothstep(-0.004, 0.020, place[:, 2])
        down = np.stack([0.05 * side, -1.0 + 0 * side, clear], axis=1)
        return over * upright + down * (1 - upright)

    def thickness(place: Array) -> Array:
        height = (
            0.0115
            + 0.0040 * min(traits.hair_wave / 0.35, 1.4)
            + 0.0060 * smoothstep(0.085, -0.01, place[:, 1])
            + 0.004 * smoothstep(-0.03, -0.09, place[:, 2])
        )
        groove = smoothstep(0.016, 0.0, np.abs(_from_part(place, part))) * smoothstep(0.080, 0.100, place[:, 1])
        return height * (1 - 0.45 * groove * smoothstep(-0.095, -0.07, place[:, 2]))

    def density(place: Array) -> Array:
        # Hair from the parting lies on top of all other hair and is what one sees.
        near = bell(_from_part(place, part), 0.022) * smoothstep(0.07, 0.10, place[:, 1])
        line = smoothstep(0.014, 0.004, hairline.distance(place)) * smoothstep(-0.02, 0.0, place[:, 2])
        return (0.28 + 0.35 * smoothstep(0.03, 0.10, place[:, 1]) + 1.3 * near + 0.7 * line) * (
            0.5 + 0.5 * smoothstep(-0.11, -0.06, place[:, 2])
        )

    def layer(place: Array) -> Array:
        return 0.30 * smoothstep(0.05, 0.11, place[:, 1])

    def length(place: Array) -> Array:
        return traits.hair_length + 0.05 + 0.6 * np.minimum(place[:, 1] - 0.10, 0.0)

    return Style(
        hairline,
        comb,
        thickness,
        length,
        density,
        layer,
        segments=15 if short else 17 if traits.hair_wave < 0.3 else 19,
        strands=780 if short else 740 if traits.hair_wave < 0.3 else 660,
        width=0.00072,
        locks=170,
        gather=0.50 + 0.25 * traits.hair_wave,
        stray=0.05,
        lock_turn=0.08,
        hangs=True,
        cut=Scalp.CROWN - traits.hair_length,
        turn_in=0.9 if short else 0.10,
        baby_hairs=850,
        fly_aways=110,
    )


def _crop(traits: PersonTraits, hairline: Hairline) -> Style:
    """Tight curls, faded towards ears and nape."""
    full = max(traits.hair_length, 0.006)

    def comb(place: Array, normal: Array) -> Array:
        return normal + np.array([0.0, -0.2, -0.2])

    def thickness(place: Array) -> Array:
        return (
            0.0016
            + 0.0030 * smoothstep(0.020, 0.060, place[:, 1])
            + (full - 0.004) * smoothstep(0.050, 0.092, place[:, 1])
        )

    return Style(
        hairline, comb, thickness, lambda place: full + 0 * place[:, 0], _front_weighted, strands=1750, width=0.00050,
        locks=420, fly_aways=0, cap_opacity=0.97, cap_lift=0.55, segments=17,
    )  # fmt: skip


STYLES: dict[str, Callable[[PersonTraits, Hairline], Style]] = {
    "short": _short,
    "bob": _hanging,
    "long": _hanging,
    "crop": _crop,
}


def hairline_of(traits: PersonTraits) -> Hairline:
    """Where this person's hair begins."""
    return HAIRLINES["feminine" if traits.femininity > 0.5 else "masculine"]


def build_hair(
    rig: Rig, head: SampledField, traits: PersonTraits, rng: np.random.Generator, body: Distance | None = None
) -> HeadLayer:
    """The hair of one person as a layer bound to the scalp's triangles, 10-18 thousand Gaussians.

    Args:
        rig: the head with its identity.
        head: the same head's distance, from :func:`being_rt.avatar.demo.strands.sample_head`.
        traits: style, length, wave, colour and grey.
        rng: source of all randomness; the same state gives the same hair.
        body: shoulders and chest that long hair rests on.

    Example::

        head = sample_head(rig, HeadSurface(shape).signed_distance)
        hair = build_hair(rig, head, PRESETS["ada"], np.random.default_rng(7))
    """
    scalp = Scalp(rig, head)
    style = STYLES[traits.hair_style](traits, hairline_of(traits))
    parts = [_cap(scalp, style, traits, rng)]
    if traits.hair_style == "crop":
        parts += _coils(scalp, style, traits, rng)
    else:
        parts += _tresses(scalp, style, traits, rng, body)
        parts += _strays(scalp, style, traits, rng)
    hair = Fibres.concatenate(parts)
    if not style.hangs:
        hair = hair[~scalp.on_ear(hair.centre)]
    seen = _at_the_line(light_through(hair, scalp), style.hairline.distance(scalp.standard(hair.centre)))
    light = shade_strands(hair.albedo, hair.tangent, hair.normal, seen, hair.gloss[:, None])
    return head_layer(hair, develop(light), scalp)


def _at_the_line(seen: Visibility, depth: Array) -> Visibility:
    """Hair is thin at its line: light gets under it that a density of whole voxels would swallow."""
    thin = smoothstep(0.014, 0.002, depth)
    lamps = np.maximum(seen.lamps, 0.30 * thin[:, None] * np.array([1.0, 1.0, 0.0]))
    return Visibility(np.maximum(seen.ambient, 0.50 * thin), seen.bent, lamps)


def _albedo(traits: PersonTraits, place: Array, rng: np.random.Generator) -> Array:
    """Colour of each strand [N, 3]: natural spread, and grey ones, first at the temples."""
    count = len(place)
    base = traits.hair_albedo * np.exp(0.16 * rng.normal(size=(count, 1)) + 0.05 * rng.normal(size=(count, 3)))
    temples = 0.35 * smoothstep(0.09, 0.03, place[:, 1]) * smoothstep(-0.08, -0.02, place[:, 2])
    grey = rng.random(count) < traits.hair_grey * (0.85 + temples)
    return np.where(grey[:, None], GREY * np.exp(0.10 * rng.normal(size=(count, 1))), base)


def _mean_albedo(traits: PersonTraits) -> Array:
    return traits.hair_albedo * (1 - 0.9 * traits.hair_grey) + GREY * 0.9 * traits.hair_grey


def _relative_width(style: Style, place: Array) -> Array:
    """Fewer roots, wider strands."""
    return 1.0 / np.sqrt(np.clip(style.density(place), 0.15, 1.0))


def _cap(scalp: Scalp, style: Style, traits: PersonTraits, rng: np.random.Generator) -> Fibres:
    """A dark layer on the skin."""
    centres = scalp.triangle_centres()
    triangle, _, start = scalp.roots(
        style.hairline.distance(centres) + 0.002, np.clip(style.density(centres), 0.3, 1.0), style.cap, rng
    )
    place = scalp.standard(start)
    depth = style.hairline.distance(place) - np.abs(0.0045 * rng.normal(size=len(start)))  # a broken edge
    normal = scalp.field.normal(start)
    tangent = unit(style.comb(place, normal) + 1e-6)
    tangent = unit(tangent - np.einsum("nd,nd->n", tangent, normal)[:, None] * normal)
    spread = 0.0033 / np.sqrt(np.clip(style.density(place), 0.3, 1.0))
    lift = style.cap_lift * style.thickness(place) * smoothstep(0.0, 0.014, depth)
    return Fibres(
        start + normal * lift[:, None],
        tangent,
        normal,
        np.stack([1.3 * spread, 0.9 * spread, 0 * spread + 0.0007], axis=1),
        np.tile(_mean_albedo(traits), (len(start), 1)) * (0.95 - 0.35 * smoothstep(0.0, 0.02, depth))[:, None],
        style.cap_opacity * smoothstep(-0.001, 0.018, depth),
        triangle,
        np.zeros(len(start)),
    )


def _grow(
    scalp: Scalp, style: Style, start: Array, layer: Array, length: Array, turn: Array, body: Distance | None
) -> Array:
    """Nodes [N, S + 1, 3] of strands that lie along the comb field at ``layer`` of the hair's thickness."""
    field = scalp.envelope if style.hangs else scalp.field
    nodes = [start]
    here = start
    heading = np.zeros_like(start)
    finer = 3 if style.hangs else 1  # steps per segment, so that long segments still follow the head's curve
    steps = np.repeat(_segment_shares(style, float(np.median(length))), finer) / finer
    share = np.cumsum(steps)
    # Hair from the front of the ears falls before the shoulders, the rest behind them.
    ahead = np.where(scalp.standard(start)[:, 2] > PARTING_Z, 1.0, -1.0)
    for index in range(len(steps)):
        normal = field.normal(here)
        place = scalp.standard(here)
        wish = style.comb(place, normal)
        wish = unit(wish - np.einsum("nd,nd->n", wish, normal)[:, None] * normal) + turn
        if style.hangs:
            # Once the head recedes below, gravity alone decides; at the end the tips turn in.
            falling = (smoothstep(0.40, 0.05, normal[:, 1]) * smoothstep(0.100, 0.050, place[:, 1]))[:, None]
            inwards = -style.turn_in * smoothstep(0.02, -0.10, place[:, 1]) * np.clip(place[:, 0] / 0.03, -1, 1)
            inwards *= smoothstep(0.060, 0.085, np.abs(place[:, 0]))
            part = (
                (0.12 if style.turn_in > 0.5 else 0.30)
                * ahead
                * np.where(ahead > 0, smoothstep(0.030, -0.010, place[:, 2]), 1.0)
                * smoothstep(0.00, -0.06, place[:, 1])
                * smoothstep(-0.26, -0.18, place[:, 1])
            )
            drop = np.stack([0.3 * turn[:, 0] + inwards, np.full(len(here), -1.0), 0.3 * turn[:, 2] + part], axis=1)
            wish = wish * (1 - falling) + drop * falling
        keep = 0.50 if style.hangs else 0.45
        heading = unit(keep * heading + unit(wish)) if index else unit(wish)
        there = here + heading * (length * steps[index])[:, None]
        place = scalp.standard(there)
        run = length * share[index]
        rise = np.minimum(1.0, 0.25 + run / 0.060) if style.hangs else np.minimum(1.0, 0.30 + 1.25 * share[index])
        gap = 0.0006 + style.thickness(place) * layer * rise - field.distance(there)
        if style.hangs:
            gap = np.where(gap > 0, gap, gap * smoothstep(-0.01, 0.035, place[:, 1]))
            gap = np.clip(gap, -0.012, 0.004)
        there = there + field.normal(there) * np.clip(gap, -0.012, 0.012)[:, None]
        if style.hangs:  # the envelope is smooth, ears are not
            buried = np.maximum(0.0012 - scalp.field.distance(there), 0.0)
            there = there + scalp.field.normal(there) * buried[:, None]
        if body is not None and style.hangs:
            there = _rest_on(body, there)
            reach = np.minimum(np.abs(there[:, 0]), 0.112 + 0.06 * smoothstep(-0.09, 0.0, there[:, 1]))
            there[:, 0] = np.sign(there[:, 0]) * reach  # shoulders carry no hair outwards
        if (index + 1) % finer == 0:
            nodes.append(there)
        here = there
    return np.stack(nodes, axis=1)


def _segment_shares(style: Style, length: float) -> Array:
    """Share of a strand's length in each segment. Hanging hair has short ones where it bends over the head: a long
    Gaussian would leave the curve like a spike."""
    if not style.hangs:
        return np.full(style.segments, 1.0 / style.segments)
    bent = 12
    over_head = min(0.185 / length, 0.70)
    falling = 1.30 ** np.arange(style.segments - bent)
    return np.concatenate([np.full(bent, over_head / bent), (1.0 - over_head) * falling / falling.sum()])


def _cut(nodes: Array, height: Array) -> Array:
    """End hanging strands at a height [N] each; segments keep their proportions."""
    count, size, _ = nodes.shape
    below = nodes[:, :, 1] < height[:, None]
    step = np.linalg.norm(np.diff(nodes, axis=1), axis=2)
    run = np.concatenate([np.zeros((count, 1)), np.cumsum(step, axis=1)], axis=1)
    first = np.where(below.any(axis=1), np.argmax(below, axis=1), size - 1)
    rows = np.arange(count)
    last = np.maximum(first - 1, 0)
    upper, lower = nodes[rows, last, 1], nodes[rows, first, 1]
    portion = np.where(below.any(axis=1), np.clip((upper - height) / np.maximum(upper - lower, 1e-9), 0.0, 1.0), 1.0)
    end = run[rows, last] + portion * (run[rows, first] - run[rows, last])
    at = run / run[:, -1:] * np.maximum(end, 0.004)[:, None]
    index = np.clip((run[:, None, :] <= at[:, :, None]).sum(axis=2) - 1, 0, size - 2)
    low, high = np.take_along_axis(run, index, 1), np.take_along_axis(run, index + 1, 1)
    blend = ((at - low) / np.maximum(high - low, 1e-9))[:, :, None]
    return nodes[rows[:, None], index] * (1 - blend) + nodes[rows[:, None], index + 1] * blend


def _rest_on(body: Distance, points: Array, clearance: float = 0.015) -> Array:
    """Push points out of the body."""
    low = np.flatnonzero(points[:, 1] < -0.09)
    near = points[low]
    depth = clearance - body(near)
    low, near, depth = low[depth > 0], near[depth > 0], depth[depth > 0]
    if not len(low):
        return points
    step = 0.001
    slope = [body(near + step * axis) - body(near - step * axis) for axis in np.eye(3)]
    normal = unit(np.stack(slope, axis=1))
    way = unit(normal * [0.05, 1.0, 1.6] + [0.0, 1e-6, 0.0])  # rather forwards or backwards than along the shoulder
    reach = depth / np.clip(np.einsum("nd,nd->n", normal, way), 0.4, 1.0)
    points = points.copy()
    points[low] = near + way * reach[:, None]
    return points


def _gather(nodes: Array, lock: NDArray[np.int64], guides: NDArray[np.int64], amount: Array) -> Array:
    """Pull strands to their locks' guides, more towards the tip."""
    s = np.linspace(0.0, 1.0, nodes.shape[1])
    way = nodes[guides[lock]] - nodes
    together = smoothstep(0.050, 0.025, np.linalg.norm(way, axis=2))  # never through the head to its other side
    pull = amount[:, None] * smoothstep(0.0, 1.0, s)[None, :] ** 0.8 * together
    return nodes + way * pull[:, :, None]


def _tresses(
    scalp: Scalp, style: Style, traits: PersonTraits, rng: np.random.Generator, body: Distance | None
) -> list[Fibres]:
    """Wide strands that carry the volume, and the fine ones on top of them."""
    centres = scalp.triangle_centres()
    inside = style.hairline.distance(centres)
    front = smoothstep(0.016, 0.005, inside) * smoothstep(-0.04, -0.02, centres[:, 2])
    density = style.density(centres) * (1.0 + 0.9 * front)  # the line in front is seen closest
    parts = []
    for wide in (True, False):
        triangle, _, start = scalp.roots(inside + 0.003, density, style.strands // (4 if wide else 1), rng)
        place = scalp.standard(start)
        depth = style.hairline.distance(place) + 0.0028 * rng.normal(size=len(start))
        keep = depth > (0.006 if wide else 0.0)
        triangle, start, place, depth = triangle[keep], start[keep], place[keep], depth[keep]
        count = len(start)
        layer = rng.uniform(0.35, 0.75, count) if wide else 0.45 + 0.60 * rng.random(count) ** 0.7
        layer = np.minimum(layer + style.layer(place), 0.82 if wide else 1.05)
        edge = smoothstep(0.0, 0.010, depth)
        guides = rng.choice(count, min(style.locks, count), replace=False)
        lock = cKDTree(start[guides]).query(start + 0.002 * rng.normal(size=start.shape))[1]
        turn = style.lock_turn * rng.normal(size=(len(guides), 3))[lock] + style.stray * rng.normal(size=(count, 3))
        length = (
            style.length(place)
            * rng.uniform(0.80, 1.12, count)
            * (1.0 if style.hangs else 1.0 - style.short_edge * (1.0 - edge))
        )
        nodes = _grow(scalp, style, start, layer * (0.35 + 0.65 * edge), length, turn, body)
        nodes = _gather(nodes, lock, guides, style.gather * rng.uniform(0.5, 1.0, count))
        if style.cut is not None:
            level = scalp.from_standard(np.array([[0.0, style.cut, 0.0]]))[0, 1]
            ends = 0.010 * rng.normal(size=len(guides))[lock] + 0.006 * rng.normal(size=count)
            # Behind, hair ends on the shoulders: below them it would only show through.
            shoulder = float(scalp.rig.joint_rest[0, 1]) + 0.045
            behind = (place[:, 2] < PARTING_Z) & (level < shoulder)
            nodes = _cut(nodes, np.where(behind, shoulder, level) + ends + (0.012 if wide else 0.0))
        if style.hangs:
            nodes = _wave(nodes, lock, traits.hair_wave, rng)
        tone = np.exp(0.13 * rng.normal(size=len(guides)))[lock][:, None]
        albedo = _albedo(traits, place, rng) * tone
        if style.hangs:
            crossing = _crosses_throat(scalp, nodes)
            nodes[crossing] = nodes[np.flatnonzero(~crossing)[np.arange(crossing.sum()) % (~crossing).sum()]]
        width = style.width * rng.uniform(0.8, 1.2, count) * (0.55 + 0.45 * edge) * _relative_width(style, place)
        bound = np.full(count, -1) if style.hangs else triangle
        if wide:
            fade = 0.6 if style.hangs else 0.3
            strands = Strands(nodes, bound, albedo * 0.8, width * 3.6, np.full(count, 0.92), 0.45, tip_fade=fade)
        else:
            strands = Strands(nodes, bound, albedo, width, 0.90 * (0.6 + 0.4 * edge), root_shade=style.root_shade)
            if style.hangs:
                strands.tip_width, strands.tip_fade = 0.45, 0.45
        parts.append(fibres(strands, scalp))
    return parts


def _crosses_throat(scalp: Scalp, nodes: Array) -> NDArray[np.bool_]:
    """Strands that would lie across the front of the face or neck, [N]."""
    place = scalp.standard(nodes.reshape(-1, 3)).reshape(nodes.shape)
    before = (np.abs(place[..., 0]) < 0.056) & (place[..., 2] > -0.045) & (place[..., 1] < 0.06)
    before |= (np.abs(place[..., 0]) < 0.070) & (place[..., 2] > -0.018) & (np.abs(place[..., 1]) < 0.055)  # cheeks
    return np.asarray(before.any(axis=1))


def _wave(nodes: Array, lock: NDArray[np.int64], amount: float, rng: np.random.Generator) -> Array:
    """Bend hanging strands into waves that locks share."""
    step = np.linalg.norm(np.diff(nodes, axis=1), axis=2)
    run = np.concatenate([np.zeros((len(nodes), 1)), np.cumsum(step, axis=1)], axis=1)
    phase = rng.uniform(0, 2 * np.pi, lock.max() + 1)[lock] + 0.18 * rng.normal(size=len(nodes))
    angle = run / 0.105 * 2 * np.pi + phase[:, None]
    grow = smoothstep(0.03, 0.16, run) * 0.014 * amount
    along = unit(np.gradient(nodes, axis=1))
    side = unit(np.cross(along, [0.0, 0.0, 1.0]) + 1e-6)
    front = np.cross(side, along)
    return nodes + grow[:, :, None] * (np.sin(angle)[:, :, None] * side + 0.8 * np.cos(angle)[:, :, None] * front)


def _strays(scalp: Scalp, style: Style, traits: PersonTraits, rng: np.random.Generator) -> list[Fibres]:
    """Fine short hairs along the hairline, and single hairs that stand off the surface."""
    centres = scalp.triangle_centres()
    distance = style.hairline.distance(centres)
    ahead = smoothstep(-0.045, -0.030, centres[:, 2])
    near_line = bell(distance - 0.0020, 0.0055) * (0.15 + ahead) * (np.abs(distance) < 0.012)
    parts = []
    for kind, count in (("baby", style.baby_hairs), ("fly", style.fly_aways)):
        if kind == "baby":
            triangle, _, start = scalp.roots(near_line, near_line + 1e-4, count, rng)
            place = scalp.standard(start)
            layer = rng.uniform(0.1, 0.5, len(start))
            length = rng.uniform(0.007, 0.020, len(start))
            keep = np.abs(style.hairline.distance(place) - 0.0020) < 0.0075 * rng.random(len(start)) ** 0.5
            width, opacity = 0.00024, 0.66
        else:
            triangle, _, start = scalp.roots(distance - 0.012, smoothstep(0.06, 0.11, centres[:, 1]) + 0.02, count, rng)
            place = scalp.standard(start)
            layer = rng.uniform(1.05, 1.45, len(start))
            length = np.minimum(style.length(place), 0.075) * rng.uniform(0.7, 1.2, len(start))
            keep = np.ones(len(start), bool)
            width, opacity = 0.00022, 0.50
        triangle, start, place, layer, length = triangle[keep], start[keep], place[keep], layer[keep], length[keep]
        turn = (0.25 if kind == "baby" else 0.22) * rng.normal(size=start.shape)
        loose = replace(style, segments=3 if kind == "baby" else 5, hangs=False)
        nodes = _grow(scalp, loose, start, layer, length, turn, None)
        count = len(start)
        strands = Strands(
            nodes, triangle, _albedo(traits, place, rng), np.full(count, width), np.full(count, opacity), 0.8,
            root_shade=0.8, tip_width=0.5, tip_fade=0.35, root_fade=0.5,
        )  # fmt: skip
        parts.append(fibres(strands, scalp))
    return parts


def _coils(scalp: Scalp, style: Style, traits: PersonTraits, rng: np.random.Generator) -> list[Fibres]:
    """Tight curls that stand on the scalp: each strand ends in a turn of a helix at the hair's surface."""
    centres = scalp.triangle_centres()
    inside, density = style.hairline.distance(centres), style.density(centres)
    triangle, _, start = scalp.roots(inside + 0.002, density, style.strands, rng)
    place = scalp.standard(start)
    depth = style.hairline.distance(place) + 0.0012 * rng.normal(size=len(start))
    keep = depth > 0.0
    triangle, start, place, depth = triangle[keep], start[keep], place[keep], depth[keep]
    count, arcs = len(start), 7
    edge = smoothstep(0.0, 0.008, depth)
    thick = style.thickness(place)
    normal = scalp.field.normal(start)
    # Neighbours gather into tufts that lean, rise and shine alike.
    guides = rng.choice(count, min(style.locks, count), replace=False)
    tuft = cKDTree(start[guides]).query(start)[1]
    lean = unit(normal + 0.45 * rng.normal(size=(len(guides), 3))[tuft] + 0.20 * rng.normal(size=(count, 3)))
    side = unit(np.cross(lean, rng.normal(size=(count, 3))))
    other = np.cross(lean, side)
    radius = np.minimum(rng.uniform(0.0011, 0.0021, count) * (1.0 + 12.0 * thick), 0.7 * thick + 0.0006)
    top = thick * rng.uniform(0.60, 1.05, count) * rng.uniform(0.78, 1.12, len(guides))[tuft] * (0.45 + 0.55 * edge)
    t = np.linspace(0.0, 1.0, arcs + 1)
    angle = (
        rng.uniform(0, 2 * np.pi, count)[:, None]
        + 2 * np.pi * 1.4 * t[None, :] * rng.choice([-1.0, 1.0], count)[:, None]
    )
    rise = top[:, None] - (0.5 - t[None, :]) * np.minimum(0.004, 0.5 * thick)[:, None]
    nodes = (
        start[:, None]
        + normal[:, None] * rise[:, :, None]
        + radius[:, None, None]
        * (np.cos(angle)[:, :, None] * side[:, None] + np.sin(angle)[:, :, None] * other[:, None])
    )
    lift = np.maximum(0.0004 - scalp.field.distance(nodes.reshape(-1, 3)), 0.0)
    nodes = nodes + (scalp.field.normal(nodes.reshape(-1, 3)) * lift[:, None]).reshape(nodes.shape)
    albedo = _albedo(traits, place, rng) * np.exp(0.22 * rng.normal(size=len(guides)))[tuft][:, None]
    width = style.width * rng.uniform(0.8, 1.25, count) * _relative_width(style, place) * (0.6 + 0.4 * edge)
    strands = Strands(
        nodes, triangle, albedo, width, 0.86 * (0.5 + 0.5 * edge), root_shade=0.8, tip_width=0.8, tip_fade=0.8
    )
    return [fibres(strands, scalp)]
