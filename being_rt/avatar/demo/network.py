"""The offset network of a demo person, written down instead of trained: which expression changes which Gaussian how.

The network is an ordinary :class:`~being_rt.avatar.avatar.AnchorLatentNetwork`; only its weights have meaning:

- Trunk layer 0 measures named expressions: dual vectors of the expression map's rows (the pseudo-inverse) on the
  expression block, the matching rotation entries for jaw and gaze, the eyelid inputs. Each signal has two units,
  ``relu(s - dead)`` and ``relu(s - 1)``; layer 1 subtracts them, which clamps the signal to 0..1.
- The anchors' codes say left or right half, and eye or not. The head's first layer gates the signals with them
  (``relu(signal - (1 - code))``), its second layer adds the open ones up to K = 20 latents. A latent such as "smile"
  thus means the smile of the side where a Gaussian lies, blended across the middle by the anchor weights.
- Bases are baked, not fitted: the head is posed with each expression, and what its new normals, its squeezed skin and
  its passing wrinkles do to the light becomes the colour basis; wrinkles' heights become the position basis.

All latents are exactly zero in the neutral pose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import CHANNELS, AnchorLatentNetwork
from being_rt.avatar.demo import wrinkles
from being_rt.avatar.demo.cloud import PARTS, Cloud, nearest, triangle_frames, unit
from being_rt.avatar.demo.features import MOUTH_HALF, MOUTH_Y, Place
from being_rt.avatar.demo.skin import SkinSurface
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural.surface import bell, smoothstep
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import skin

Array = NDArray[np.float64]
THETA = 138
_JAW, _LEFT_EYE, _RIGHT_EYE, _EYELIDS = 100, 109, 118, 127
_DEAD = 0.02  # a signal below this is noise of other expressions
ANCHORS = 256


@dataclass(frozen=True)
class Latent:
    """One latent: the ARKit names that drive it (both sides' for a sided one), and what it does to skin."""

    drivers: tuple[str, ...]
    sided: bool
    wrinkle: Callable[[Place], Array] | None = None
    millimetres: float = 0.0
    flush: float = 0.0  # change of blood in the lips (negative: paler) or the cheeks


def _smile_folds(place: Place) -> Array:
    return wrinkles.nasolabial(place) + 0.22 * wrinkles.crows_feet(place) + 0.35 * wrinkles.corner_brackets(place)


def _squint_folds(place: Place) -> Array:
    return wrinkles.crows_feet(place) + 0.7 * wrinkles.under_eye_lines(place)


def _sneer_folds(place: Place) -> Array:
    return wrinkles.bunny_lines(place) + 0.5 * wrinkles.nasolabial(place) + 0.3 * wrinkles.frown_lines(place)


LATENTS: tuple[Latent, ...] = (
    Latent(("browInnerUp",), False, lambda place: wrinkles.forehead_lines(place, inner=True), 0.34),
    Latent(("browOuterUp",), True, lambda place: wrinkles.forehead_lines(place, inner=False), 0.34),
    Latent(("browDown",), True, wrinkles.frown_lines, 0.46),
    Latent(("eyeSquint", "cheekSquint"), True, _squint_folds, 0.26),
    Latent(("eyeBlink",), True, wrinkles.lid_crease, -0.40),
    Latent(("mouthSmile",), True, _smile_folds, 0.52, 0.07),
    Latent(("noseSneer",), True, _sneer_folds, 0.36, 0.06),
    Latent(("jawOpen",), False, lambda place: wrinkles.nasolabial(place), -0.10),
    Latent(("mouthPucker",), False, wrinkles.lip_lines, 0.09, -0.05),
    Latent(("mouthFunnel",), False, wrinkles.lip_lines, 0.05),
    Latent(
        ("mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper"),
        False,
        wrinkles.dimpled_chin,
        0.04,
        -0.45,
    ),
    Latent(("mouthFrown",), True, wrinkles.marionette, 0.42),
    Latent(("mouthStretch", "mouthDimple"), True, wrinkles.corner_brackets, 0.30, -0.12),
    Latent(("mouthUpperUp",), True, wrinkles.nasolabial, 0.42),
    Latent(("mouthLowerDown",), True),
    Latent(("cheekPuff",), False, None, 0.0, 0.05),
    Latent(("eyeWide",), True, lambda place: wrinkles.forehead_lines(place, inner=False), 0.06),
    Latent(("mouthShrugLower",), False, wrinkles.dimpled_chin, 0.11),
)
# On the eyes' own anchors the first four latents mean something else: where the eye looks.
GAZE = ("gaze_left", "gaze_right", "gaze_up", "gaze_down")
RANK = 20
JAW_OPEN_SINE = float(np.sin(0.30))  # of jawOpen = 1
GAZE_SINE = 0.40  # of a full glance
CORNEA_OFFSET = 0.0056  # metres from the eye's centre to the cornea's


def _signals(expression_map: ExpressionMap) -> tuple[list[str], Array]:
    """Names of the measured signals and their rows over theta, [S, 138]."""
    code = expression_map.matrix[:, :100].astype(np.float64)
    used = np.flatnonzero(np.abs(code).max(1) > 1e-6)
    active = code[used]
    dual = active.T @ np.linalg.inv(active @ active.T + 1e-3 * np.mean((active**2).sum(1)) * np.eye(len(used)))
    expression_rows = {expression_map.names[index]: dual[:, column] for column, index in enumerate(used)}

    def row_of(name: str) -> Array:
        row = np.zeros(THETA)
        if name in ("eyeBlinkLeft", "eyeBlinkRight"):
            row[_EYELIDS + (name == "eyeBlinkRight")] = 1.0
        elif name == "jawOpen":
            row[_JAW + 7] = 1.0 / JAW_OPEN_SINE  # R[2, 1] of a rotation about x
        elif name in expression_rows:
            row[:100] = expression_rows[name]
        return row

    names, rows = [], []
    for latent in LATENTS:
        for side in ("Left", "Right") if latent.sided else ("",):
            mean = np.sum([row_of(driver + side) for driver in latent.drivers], axis=0)
            names.append(latent.drivers[0] + side)
            rows.append(mean / max(1.0, 0.6 * len(latent.drivers)))
    for name, entry, sign in zip(GAZE, (2, 2, 7, 7), (1.0, -1.0, -1.0, 1.0), strict=True):
        row = np.zeros(THETA)
        row[[_LEFT_EYE + entry, _RIGHT_EYE + entry]] = 0.5 * sign / GAZE_SINE
        names.append(name)
        rows.append(row)
    return names, np.stack(rows)


def _farthest(points: Array, count: int) -> NDArray[np.int64]:
    """Indices of points spread as far apart as possible (Gonzalez 1985), starting from the first."""
    count = min(count, len(points))
    chosen = np.zeros(count, np.int64)
    gap = np.linalg.norm(points - points[0], axis=1)
    for index in range(1, count):
        chosen[index] = int(np.argmax(gap))
        gap = np.minimum(gap, np.linalg.norm(points - points[chosen[index]], axis=1))
    return chosen


def _anchor_space(average: Array) -> Array:
    """The average face, stretched where expressions need finer anchors: around mouth, eyes and brows."""
    x, y, z = average.T
    return np.stack([1.25 * x, 1.25 * y, 0.6 * z], 1)


@dataclass(frozen=True)
class Bases:
    """What each latent adds to each Gaussian, in world axes of the rest pose."""

    position: Array  # [n, K, 3] metres
    colour: Array  # [n, K, 3]

    @staticmethod
    def zeros(count: int) -> Bases:
        return Bases(np.zeros((count, RANK, 3)), np.zeros((count, RANK, 3)))


def _vertex_normals(vertices: Array, faces: NDArray[np.int32]) -> tuple[Array, Array]:
    triangle = vertices[faces]
    face_normal = np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0])
    total = np.zeros_like(vertices)
    area = np.zeros(len(vertices))
    for column in range(3):
        np.add.at(total, faces[:, column], face_normal)
        np.add.at(area, faces[:, column], np.linalg.norm(face_normal, axis=1))
    return unit(total), area


def _posed(rig: Rig, latent: Latent) -> Array:
    """Vertices with all drivers of a latent at full strength on both sides."""
    assert rig.expression_map is not None
    names = rig.expression_map.names
    offsets = np.zeros(111)
    sides = ("Left", "Right") if latent.sided else ("",)
    for driver in latent.drivers:
        for side in sides:
            offsets += rig.expression_map.matrix[names.index(driver + side)] / max(1.0, 0.6 * len(latent.drivers))
    params = FlameParams.neutral().replace(
        expression=offsets[None, :100].astype(np.float32),
        jaw=offsets[None, 100:103].astype(np.float32),
        eyelids=offsets[None, 109:111].astype(np.float32),
    )
    return skin(rig, params)[0].astype(np.float64)


def skin_bases(rig: Rig, surface: SkinSurface, place: Place, traits: PersonTraits) -> Bases:
    """Bake what every latent does to the skin's light and height."""
    rest = rig.template.astype(np.float64)
    rest_normal, rest_area = _vertex_normals(rest, rig.faces)
    corners, weight = rig.faces[surface.samples.face], surface.samples.barycentric
    neutral = surface.colour()
    bases = Bases.zeros(len(place.x))
    near = nearest(surface.position).query(surface.position, 6)[1]
    corner = np.exp(-(((place.ax - MOUTH_HALF) / 0.0065) ** 2) - ((place.y - MOUTH_Y) / 0.0060) ** 2) * place.front
    unfolded = smoothstep(0.0105, 0.0050, place.rim) * smoothstep(-0.001, 0.002, place.eye_y) * place.front
    lined = 0.45 + 0.75 * float(np.clip((traits.age - 20.0) / 40.0, 0.0, 1.2))
    for index, latent in enumerate(LATENTS):
        posed = _posed(rig, latent)
        normal, area = _vertex_normals(posed, rig.faces)
        change = np.einsum("nk,nkd->nd", weight, (normal - rest_normal)[corners])
        squeeze = np.einsum("nk,nk->n", weight, np.clip(area / np.maximum(rest_area, 1e-12), 0.4, 1.8)[corners])
        height = np.zeros(len(place.x))
        bend = np.zeros_like(change)
        if latent.wrinkle is not None:
            amount = latent.millimetres * 1e-3 * lined
            wrinkle = latent.wrinkle
            height = amount * wrinkle(place)
            bend = -amount * wrinkles.slope(wrinkle, place)
        hollow = np.exp(-np.clip(-height, 0.0, None) / 0.0007) * np.clip(squeeze, 0.55, 1.25) ** 0.30
        # Lids slide over the ball and lips roll: their normals' change is real, their area's is not a shadow.
        still = np.clip(place.lips + bell(place.rim, 0.006), 0.0, 1.0)
        hollow = hollow * (1.0 - still) + still
        reveal = unfolded if latent.drivers[0] == "eyeBlink" else None
        changed = surface.colour(lean=change, bumps=change + bend, shade=hollow, reveal=reveal)
        # A mesh that folds at the mouth's corners and under the jaw has wild normals there; single samples are noisy.
        delta = (changed - neutral)[near].mean(1) * ((1.0 - 0.85 * corner) * (1.0 - 0.9 * place.neck))[:, None]
        blush = latent.flush * (place.cheek if latent.flush > 0 else place.lips)
        delta += neutral * blush[:, None] * np.array([-0.02, -0.34, -0.28])
        moved = smoothstep(0.0, 2e-4, np.linalg.norm(posed - rest, axis=1))
        reach = np.einsum("nk,nk->n", weight, moved[corners])
        reach = np.maximum(reach, smoothstep(0.0, 2e-5, np.abs(height)))
        bases.colour[:, index] = np.clip(delta, -0.30, 0.22) * reach[:, None]
        bases.position[:, index] = surface.normal * height[:, None]
    return bases


def mouth_bases(part: Cloud) -> Bases:
    """Light enters as the mouth opens; rounding the lips shuts it out."""
    bases = Bases.zeros(len(part))
    depth = np.clip(0.045 - part.average[:, 2], 0.0, None)
    open_gain = {
        "jawOpen": 0.34,
        "mouthUpperUp": 0.14,
        "mouthLowerDown": 0.12,
        "mouthSmile": 0.10,
        "mouthPucker": -0.22,
    }
    below = smoothstep(MOUTH_Y + 0.004, MOUTH_Y - 0.006, part.average[:, 1])
    for index, latent in enumerate(LATENTS):
        gain = open_gain.get(latent.drivers[0], 0.0)
        if not gain:
            continue
        near = np.exp(-depth / 0.030)
        reach = near * (0.45 + 0.55 * below if latent.drivers[0] == "jawOpen" else 1.0)
        bases.colour[:, index] = part.colour * (gain * reach)[:, None] * np.array([1.0, 0.97, 0.95])
    return bases


def glint_bases(part: Cloud) -> Bases:
    """Highlights slide with the cornea as the eye turns."""
    bases = Bases.zeros(len(part))
    way = CORNEA_OFFSET * GAZE_SINE
    for index, direction in enumerate(([1.0, 0, 0.09], [-1.0, 0, -0.26], [0, 1.0, -0.26], [0, -1.0, 0.09])):
        bases.position[:, index] = np.array(direction) * way
    return bases


def build_network(rig: Rig, part: Cloud, bases: Bases) -> AnchorLatentNetwork:
    """The network for the first ``len(part)`` Gaussians of the head layer.

    Args:
        rig: with an expression map.
        part: the Gaussians that carry bases.
        bases: of the same Gaussians.
    """
    assert rig.expression_map is not None
    count = len(part)
    eye = part.part == PARTS.index("glint")
    space = _anchor_space(part.average)
    eye_anchors = 16 if eye.any() else 0
    groups = [(np.flatnonzero(~eye), ANCHORS - eye_anchors), (np.flatnonzero(eye), eye_anchors)]
    anchor_index = np.zeros((count, 4), np.uint16)
    anchor_weight = np.zeros((count, 4), np.float32)
    codes, first = [], 0
    for members, wanted in groups:
        if not len(members):
            continue
        picked = members[_farthest(space[members], wanted)]
        tree = nearest(space[picked])
        near = min(4, len(picked))
        distance, index = tree.query(space[members], near)
        distance, index = distance.reshape(len(members), near), index.reshape(len(members), near)
        # Weights fall to zero at the fourth neighbour, so that latents have no jumps where neighbours change.
        reach = distance[:, -1:] * 1.0001 + 1e-9
        weight = (1.0 - distance / reach) ** 2 + 1e-6
        anchor_index[members, :near] = index + first
        anchor_weight[members, :near] = weight / weight.sum(1, keepdims=True)
        left = part.average[picked, 0] > 0
        codes.append(np.stack([left, ~left, eye[picked]], 1).astype(np.float32))
        first += len(picked)
    code = np.concatenate(codes)
    code = np.concatenate([code, np.zeros((len(code), 1), np.float32)], 1)

    names, rows = _signals(rig.expression_map)
    signals = len(names)
    trunk_0 = np.concatenate([rows, rows]) / (1.0 - _DEAD)
    bias_0 = np.concatenate([np.full(signals, -_DEAD), np.full(signals, -1.0)]) / (1.0 - _DEAD)
    trunk_1 = np.concatenate([np.eye(signals), -np.eye(signals)], 1)

    units: list[tuple[int, int, tuple[float, float, float], float]] = []  # signal, latent, code weights, bias
    for latent_index, latent in enumerate(LATENTS):
        if latent.sided:
            units.append((names.index(latent.drivers[0] + "Left"), latent_index, (1.0, 0.0, -1.0), -1.0))
            units.append((names.index(latent.drivers[0] + "Right"), latent_index, (0.0, 1.0, -1.0), -1.0))
        else:
            units.append((names.index(latent.drivers[0]), latent_index, (0.0, 0.0, -1.0), 0.0))
    for latent_index, name in enumerate(GAZE):
        units.append((names.index(name), latent_index, (0.0, 0.0, 1.0), -1.0))
    # Looking down lowers the lids about half as far as a blink does (through the pose basis).
    blink = [latent.drivers[0] for latent in LATENTS].index("eyeBlink")
    units.append((names.index("gaze_down"), blink, (0.0, 0.0, -1.0), 0.0))
    head_0 = np.zeros((len(units), signals + code.shape[1]))
    head_bias_0 = np.zeros(len(units))
    head_1 = np.zeros((RANK, len(units)))
    for unit_index, (signal, latent_index, gate, bias) in enumerate(units):
        head_0[unit_index, signal] = 1.0
        head_0[unit_index, signals : signals + 3] = gate
        head_bias_0[unit_index] = bias
        head_1[latent_index, unit_index] = 1.0
    head_1[blink, -1] = 0.5

    frames = triangle_frames(rig)[part.face]
    basis = np.zeros((count, CHANNELS, RANK))
    basis[:, 0:3] = np.einsum("nji,nkj->nik", frames, bases.position)
    basis[:, 10:13] = bases.colour.transpose(0, 2, 1)
    return AnchorLatentNetwork(
        trunk_weight_0=trunk_0.astype(np.float32),
        trunk_bias_0=bias_0.astype(np.float32),
        trunk_weight_1=trunk_1.astype(np.float32),
        trunk_bias_1=np.zeros(signals, np.float32),
        anchor_code=code,
        head_weight_0=head_0.astype(np.float32),
        head_bias_0=head_bias_0.astype(np.float32),
        head_weight_1=head_1.astype(np.float32),
        head_bias_1=np.zeros(RANK, np.float32),
        anchor_index=anchor_index,
        anchor_weight=anchor_weight,
        basis=basis.astype(np.float16),
    )
