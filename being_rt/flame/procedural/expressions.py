"""Facial expressions as displacement fields over the mesh: named shapes, eyelids, pose correctives, and their basis.

The named shapes follow the muscles' lines of pull (Ekman and Friesen's action units in brackets where they match).
Each is what ARKit would call weight 1: the full expression of an expressive person. All fields are [V, 3] in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.model import EXPRESSION_COUNT, POSE_FEATURE_COUNT
from being_rt.flame.procedural import joints
from being_rt.flame.procedural.surface import (
    EYE,
    MOUTH_HALF_WIDTH,
    STOMION_Y,
    bell,
    lip_coordinate,
    lip_seam,
    smoothstep,
)
from being_rt.flame.procedural.topology import (
    EYE_COLUMNS,
    LID_RIM_ROW,
    LIP_ROWS,
    MOUTH_CORNER,
    HeadMesh,
    Part,
    vertex_normals,
)

Float64 = NDArray[np.float64]

JAW_OPEN = 0.30  # radians at jawOpen = 1
_NAMED_SHARE = 0.5  # a full named expression lies two standard deviations out, as in FLAME's fitted codes

_X, _Y, _Z = np.eye(3)
# How much of the lid margin's rotation each eye row takes, from the skin outside to the rim and behind it.
_LID_ROW_SHARE = np.array([0.0, 0.10, 0.34, 0.66, 0.90, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class ExpressionSpace:
    """What :func:`build_expressions` makes."""

    named: dict[str, Float64]  # name -> [V, 3]
    basis: Float64  # [V, 3, 100]
    codes: dict[str, Float64]  # name -> [100], basis @ code = named field
    eyelids: Float64  # [V, 3, 2]
    pose_basis: Float64  # [V, 3, 36]


class _Sculptor:
    """Masks and directions that the fields are written in."""

    def __init__(self, mesh: HeadMesh) -> None:
        self.mesh = mesh
        self.v = mesh.vertices
        self.x, self.y, self.z = self.v.T
        self.ax = np.abs(self.x)
        self.u = self.ax / MOUTH_HALF_WIDTH
        self.out = np.stack([np.sign(self.x), 0.0 * self.x, 0.0 * self.x], 1)
        self.normal = vertex_normals(self.v, mesh.faces)
        self.side = joints.mouth_side(mesh)
        self.t = lip_coordinate(self.x, self.y)
        part = mesh.part
        self.skin = part <= Part.LIPS
        soft = self.skin | (part == Part.MOUTH_INTERIOR)
        self.face = smoothstep(-0.035, 0.010, self.z) * soft
        seam_z = self.v[mesh.mouth_rows[LIP_ROWS - 1][0], 2]
        self.inside = np.where(part == Part.MOUTH_INTERIOR, np.exp(-np.maximum(seam_z - self.z, 0.0) / 0.015), 1.0)
        upper = np.where(self.side != 0, self.side > 0, self.y > lip_seam(np.minimum(self.ax, MOUTH_HALF_WIDTH)))
        free = smoothstep(1.0, 0.72, np.minimum(self.u, 1.0))  # the corners belong to neither lip
        span = np.exp(-((self.ax / 0.0225) ** 4)) * free * self.face * self.inside
        self.upper_lip = upper * bell(np.maximum(self.y - STOMION_Y, 0.0), 0.016) * span
        self.lower_lip = ~upper * bell(np.maximum(STOMION_Y - self.y, 0.0), 0.017) * span
        self.mouth = bell(self.ax, 0.030) * bell(self.y - STOMION_Y, 0.016) * self.face * self.inside
        corner = np.hypot(self.ax - MOUTH_HALF_WIDTH, self.y - STOMION_Y)
        self.corner = bell(corner, 0.013) * self.face * self.inside
        self.around_corner = bell(corner, 0.024) * self.face * self.inside
        self.left = smoothstep(-0.010, 0.010, self.x)

    def patch(self, center: tuple[float, float, float], size: tuple[float, float, float]) -> Float64:
        """Gaussian weight about a point of the left half and its twin on the right, on the face."""
        c = np.array(center)
        total = np.exp(-(((self.v - c) / size) ** 2).sum(1))
        if c[0] > 0:
            total = total + np.exp(-(((self.v - c * [-1.0, 1.0, 1.0]) / size) ** 2).sum(1))
        return total * self.face

    def brow(self, x: float, y: float, width: float, height: float) -> Float64:
        return bell(self.ax - x, width) * bell(self.y - y, height) * self.face * self.skin

    def fold(self) -> Float64:
        """Signed distance in the frontal plane from the nasolabial fold, positive on the cheek."""
        drop = np.clip(-0.012 - self.y, 0.0, 0.045)
        return self.ax - (0.0175 + 0.50 * drop + 4.0 * drop**2)

    def along_fold(self) -> Float64:
        return smoothstep(-0.056, -0.036, self.y) * smoothstep(0.004, -0.014, self.y) * self.face * self.skin


def _move(weight: Float64, direction: Float64) -> Float64:
    """weight [V] times one direction [3] or one per vertex [V, 3]."""
    return weight[:, None] * direction


def _lid_rotation(mesh: HeadMesh, right: bool, upper: Float64, lower: Float64) -> Float64:
    """Turn the lids of one eye about the eye's x axis by an angle per column (positive is down), as a delta.

    ``upper`` and ``lower`` [EYE_COLUMNS] are read on the columns of their lid alone.
    """
    center = EYE * ([-1.0, 1.0, 1.0] if right else [1.0, 1.0, 1.0])
    column = np.arange(EYE_COLUMNS)
    angle = np.where((column > 0) & (column < EYE_COLUMNS // 2), upper, np.where(column > EYE_COLUMNS // 2, lower, 0.0))
    delta = np.zeros_like(mesh.vertices)
    for share, row in zip(_LID_ROW_SHARE, mesh.eye_rows, strict=True):
        ids = mesh.mirror[row] if right else row
        q = mesh.vertices[ids] - center
        c, s = np.cos(angle * share), np.sin(angle * share)
        turned = np.stack([q[:, 0], q[:, 1] * c - q[:, 2] * s, q[:, 1] * s + q[:, 2] * c], 1)
        delta[ids] = turned * (1.0 + 0.14 * (1.0 - c))[:, None] - q  # out a little: the way is a chord of the arc
    return delta


def _lid_angles(mesh: HeadMesh) -> tuple[Float64, Float64]:
    """Angles [EYE_COLUMNS] that bring each column's rim to the closure line: for the upper, for the lower lid."""
    rim = mesh.vertices[mesh.eye_rows[LID_RIM_ROW]] - EYE
    elevation = np.arctan2(rim[:, 1], rim[:, 2])
    partner = elevation[(-np.arange(EYE_COLUMNS)) % EYE_COLUMNS]
    upper, lower = np.maximum(elevation, partner), np.minimum(elevation, partner)
    near_corner = np.abs(np.cos(np.arange(EYE_COLUMNS) * 2.0 * np.pi / EYE_COLUMNS)) ** 8
    closure = lower + (0.16 + 0.34 * near_corner) * (upper - lower)
    overlap = 0.020 * np.clip(
        (upper - lower) / 0.3, 0.0, 1.0
    )  # a quarter millimetre: lids press, they do not just touch
    # A delta is linear but lids travel on an arc; positive angles turn downwards.
    return upper - closure + overlap, lower - closure


def _named_fields(mesh: HeadMesh) -> dict[str, Float64]:
    s = _Sculptor(mesh)
    fields: dict[str, Float64] = {}

    def both(name: str, field: Float64) -> None:
        fields[name + "Left"] = field * s.left[:, None]
        fields[name + "Right"] = field * (1.0 - s.left)[:, None]

    cheek = s.patch((0.040, -0.004, 0.035), (0.020, 0.016, 0.03))
    beside_nose = s.patch((0.027, -0.022, 0.045), (0.011, 0.014, 0.03))
    lower_lid = bell(s.ax - EYE[0], 0.013) * bell(s.y - (EYE[1] - 0.011), 0.006) * s.face * s.skin
    seam = lip_seam(np.minimum(s.ax, MOUTH_HALF_WIDTH))
    to_seam = _move(seam - s.y, _Y)

    # Zygomaticus major (AU12): the whole lip line is drawn out and up, most at the corners; the cheek is pushed up,
    # bulges over the nasolabial fold and closes the lower lid a little.
    line = bell(s.y - STOMION_Y, 0.021) * smoothstep(0.060, 0.022, s.ax) * s.face * s.inside
    u = np.minimum(s.u, 1.15)
    fold, along = s.fold(), s.along_fold()
    bulge = bell(fold - 0.0105, 0.0090) * along
    crease = bell(fold + 0.0010, 0.0050) * along
    both(
        "smile",
        _move(line * u, s.out * 0.0072)
        + _move(line * u**1.9, _Y * 0.0056)
        - _move(line * u**2.3, _Z * 0.0060)
        + _move(cheek, _Y * 0.0036 + _Z * 0.0024)
        + _move(bulge, s.normal * 0.0020 + _Y * 0.0010)
        - _move(crease, s.normal * 0.0008)
        + _move(lower_lid, _Y * 0.0004 + _Z * 0.0003)
        + _move(s.upper_lip, _Y * 0.0013 - _Z * 0.0012)
        + _move(s.lower_lip, _Y * 0.0011 - _Z * 0.0014)
        + to_seam * (0.26 * line * bell(s.t, 1.4))[:, None],
    )
    both("frown", _move(s.corner, -_Y * 0.0046 + s.out * 0.001) + _move(s.around_corner, -_Y * 0.0024))  # AU15
    both("dimple", _move(s.corner, s.out * 0.0042 - _Z * 0.0036) + _move(s.around_corner, -_Z * 0.001))  # AU14
    both(
        "stretch",  # AU20
        _move(line * u, s.out * 0.0056 - _Y * 0.0006) + _move(s.around_corner, -_Y * 0.0020 - _Z * 0.0030),
    )
    gather = np.stack([-s.x * 0.42, -(s.y - STOMION_Y) * 0.05, np.full_like(s.x, 0.0092)], 1)
    fields["pucker"] = (  # AU18
        _move(s.mouth, gather)
        + _move(s.corner * 0.75, -s.out * 0.0060 + _Z * 0.003)
        + _move(s.upper_lip, _Z * 0.001)
        + to_seam * (-0.10 * s.mouth * bell(s.t, 1.2))[:, None]
    )
    gather = np.stack([-s.x * 0.30, 0.0 * s.x, np.full_like(s.x, 0.0072)], 1)
    fields["funnel"] = (  # AU22
        _move(s.mouth, gather)
        + _move(s.corner * 0.5, -s.out * 0.004)
        + _move(s.upper_lip, _Y * 0.0022 + _Z * 0.0014)
        + _move(s.lower_lip, -_Y * 0.0030 + _Z * 0.0010)
    )
    lips = s.upper_lip + s.lower_lip
    both("press", to_seam * (0.30 * lips * bell(s.t, 1.1))[:, None] - _move(lips, _Z * 0.0016))  # AU24
    near_seam = np.clip(1.3 - np.abs(s.t), 0.0, 1.0)
    roll = to_seam * (0.42 * near_seam)[:, None] - _move(near_seam, _Z * 0.0046)
    fields["rollUpper"] = roll * s.upper_lip[:, None]  # AU28
    fields["rollLower"] = roll * s.lower_lip[:, None]
    both("upperUp", _move(s.upper_lip, _Y * 0.0050 + _Z * 0.0008) + _move(beside_nose, _Y * 0.0025))  # AU10
    chin_side = s.patch((0.014, -0.061, 0.05), (0.016, 0.012, 0.03))
    both("lowerDown", _move(s.lower_lip, -_Y * 0.0054 + _Z * 0.0008) - _move(chin_side, _Y * 0.0020))  # AU16
    chin = s.patch((0.0, -0.068, 0.05), (0.018, 0.012, 0.03))
    fields["shrugLower"] = _move(chin, _Y * 0.0050 + _Z * 0.0022) + _move(
        s.lower_lip, _Y * 0.0002 + _Z * 0.0036
    )  # AU17
    fields["shrugUpper"] = _move(s.upper_lip, _Y * 0.0003 + _Z * 0.0034) + _move(beside_nose, _Y * 0.0012)
    fields["lipsPart"] = _move(s.upper_lip, _Y * 0.0015) - _move(s.lower_lip, _Y * 0.0022)  # AU25
    jaw = joints.jaw_weights(mesh)
    fields["jawSide"] = _move(jaw, _X * 0.0070)
    fields["jawForward"] = _move(jaw, _Z * 0.0055 - _Y * 0.0006)
    fields["mouthSide"] = _move(s.mouth, _X * 0.0080) + _move(s.around_corner, _X * 0.0020)
    both(
        "browInnerUp",  # AU1
        _move(s.brow(0.014, 0.046, 0.014, 0.014), _Y * 0.0062 + _Z * 0.0006)
        + _move(s.brow(0.012, 0.067, 0.016, 0.016), _Y * 0.0024),
    )
    both(
        "browOuterUp",  # AU2
        _move(s.brow(0.039, 0.047, 0.014, 0.013), _Y * 0.0060 - _Z * 0.0010)
        + _move(s.brow(0.040, 0.065, 0.016, 0.014), _Y * 0.0022),
    )
    both(
        "browDown",  # AU4
        _move(s.brow(0.019, 0.044, 0.018, 0.011), -_Y * 0.0052 - s.out * 0.0020 + _Z * 0.0010)
        - _move(s.brow(0.027, 0.037, 0.016, 0.008), _Y * 0.0018),
    )
    hollow = s.patch((0.040, -0.042, 0.030), (0.019, 0.021, 0.03))
    both("cheekPuff", _move(hollow, s.out * 0.0065 + _Z * 0.0050) + _move(s.mouth, _Z * 0.0012))
    both("cheekSuck", _move(hollow, -s.out * 0.0045 - _Z * 0.0030))
    both("cheekSquint", _move(cheek, _Y * 0.0038 + _Z * 0.0024) + _move(lower_lid, _Y * 0.0007 + _Z * 0.0004))  # AU6
    wing = s.patch((0.012, 0.002, 0.055), (0.010, 0.016, 0.02))
    both(
        "noseSneer",  # AU9
        _move(wing, _Y * 0.0032)
        + _move(beside_nose, _Y * 0.0030 + _Z * 0.0006)
        + _move(s.upper_lip * bell(s.ax - 0.012, 0.012), _Y * 0.0022)
        - _move(s.brow(0.014, 0.041, 0.012, 0.010), _Y * 0.0028),
    )
    both("nostrilFlare", _move(s.patch((0.013, -0.015, 0.054), (0.006, 0.008, 0.010)), s.out * 0.0022))  # AU38
    tongue = (mesh.part == Part.TONGUE) * 1.0
    ahead = smoothstep(-0.002, 0.045, s.z) * tongue
    tip = smoothstep(0.022, 0.046, s.z) * tongue  # over the lower teeth and the lip, then down
    fields["tongueOut"] = _move(ahead, _Z * 0.0360 + _Y * 0.0100) - _move(tip, _Y * 0.0110)
    fields["tongueUp"] = _move(smoothstep(0.012, 0.045, s.z) * tongue, _Y * 0.0075 + _Z * 0.0030)
    upper, lower = _lid_angles(mesh)
    for name, right in (("Left", False), ("Right", True)):
        own = (s.x < 0 if right else s.x > 0) * 1.0
        fields["eyeSquint" + name] = _lid_rotation(mesh, right, 0.20 * upper, 0.62 * lower) + _move(  # AU7
            own, _move(lower_lid, _Y * 0.0009 + _Z * 0.0006) + _move(cheek, _Y * 0.0014 + _Z * 0.0007)
        )
        fields["eyeWide" + name] = _lid_rotation(mesh, right, -0.28 * upper, -0.20 * lower)  # AU5
    rigid = np.isin(mesh.part, (Part.EYEBALL, Part.UPPER_TEETH))
    for field in fields.values():
        field[rigid] = 0.0
    return fields


def _pose_basis(mesh: HeadMesh) -> Float64:
    """Correctives [V, 3, 36] for joint rotations: cheeks and corners of the open jaw, neck, lids that follow gaze.

    Column 9 (j - 1) + 3 r + c is driven by (R_j - I)[r, c].
    """
    s = _Sculptor(mesh)
    basis = np.zeros((len(mesh.vertices), 3, POSE_FEATURE_COUNT))
    jaw_open = 9 + 3 * 2 + 1  # sine of the opening angle
    hollow = s.patch((0.044, -0.030, 0.025), (0.016, 0.022, 0.03))
    throat = s.patch((0.0, -0.112, 0.005), (0.03, 0.02, 0.02))
    basis[:, :, jaw_open] = (
        _move(hollow, -s.out * 0.0060 - _Z * 0.0010)
        + _move(s.corner, -s.out * 0.0066 + _Z * 0.0008)
        - _move(s.around_corner, s.out * 0.0044)
        - _move(throat, _Y * 0.004 + _Z * 0.002)
    )
    nape = np.exp(-(((s.v - [0.0, -0.10, 0.0]) / [0.04, 0.03, 0.03]) ** 2).sum(1)) * s.skin
    basis[:, :, 3 * 2 + 1] = _move(nape, -_Y * 0.006 + _Z * 0.004)
    for sign in (1.0, -1.0):
        strap = np.exp(-(((s.v - [0.035 * sign, -0.13, -0.02]) / [0.02, 0.05, 0.03]) ** 2).sum(1)) * s.skin
        basis[:, :, 2] += _move(strap, _X * 0.003 + sign * _Z * 0.003)  # turning tightens one strap muscle
    column = np.arange(EYE_COLUMNS) * 2.0 * np.pi / EYE_COLUMNS
    free = np.abs(np.sin(column)) ** 0.7
    for joint, right in ((2, False), (3, True)):
        small = 0.05
        basis[:, :, 9 * joint + 3 * 2 + 1] = (
            _lid_rotation(mesh, right, 0.58 * small * free, 0.42 * small * free) / small
        )
    return basis


def _mouth_close(mesh: HeadMesh, weights: Float64, pose_basis: Float64) -> Float64:
    """The shape that brings the lips together while the jaw is fully open (ARKit's mouthClose).

    For each column of the mouth the two inner lips, posed with the open jaw, meet between them; the delta that does so
    is taken back to rest through the skinning, so jawOpen = mouthClose = 1 seals exactly.
    """
    s = _Sculptor(mesh)
    transforms = joints.jaw_transforms(JAW_OPEN)
    blended = np.einsum("vj,jab->vab", weights, transforms)
    rest = mesh.vertices + pose_basis[:, :, 9 + 3 * 2 + 1] * np.sin(JAW_OPEN)
    posed = np.einsum("vab,vb->va", blended[:, :, :3], rest) + blended[:, :, 3]
    inner = mesh.mouth_rows[LIP_ROWS - 1]
    columns = np.arange(MOUTH_CORNER + 1)
    up, down = inner[columns], inner[len(inner) - 1 - columns]
    share = np.array([0.5, 0.80, 0.90])  # the lower lip rises most of the way; the teeth keep the lips forward
    meet = share * posed[up] + (1.0 - share) * posed[down]
    x_of = mesh.vertices[up, 0]
    order = np.argsort(x_of)
    ids = np.flatnonzero(s.face * s.inside > 1e-4)
    column_x = np.clip(s.ax[ids], 0.0, MOUTH_HALF_WIDTH)
    delta = np.zeros_like(mesh.vertices)
    above = np.where(s.side != 0, s.side > 0, s.y > lip_seam(np.minimum(s.ax, MOUTH_HALF_WIDTH)))
    for lip, of_lip in ((up, above), (down, ~above)):
        shift = (meet - posed[lip])[order]
        wanted = np.stack([np.interp(column_x, x_of[order], shift[:, k]) for k in range(3)], 1)
        wanted[:, 0] *= np.sign(s.x[ids])
        delta[ids] += np.where(of_lip[ids, None], wanted, 0.0)
    reach = np.where(s.y > lip_seam(np.minimum(s.ax, MOUTH_HALF_WIDTH)), s.y - STOMION_Y, STOMION_Y - s.y)
    fade = np.where(mesh.part == Part.MOUTH_INTERIOR, s.inside, smoothstep(0.034, 0.003, np.maximum(reach, 0.0)))
    fade = fade * smoothstep(0.045, 0.024, s.ax) * (s.face > 0)
    back = np.linalg.inv(blended[:, :, :3])
    return np.einsum("vab,vb->va", back, delta * fade[:, None])


def random_fields(count: int, seed: int) -> tuple[Float64, Float64, Float64, NDArray[np.bool_]]:
    """Smooth random vector fields u(p) = cos(p W + phase) A, as (W [n,3,3], phase [n,3], A [n,3,3], symmetric [n])."""
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(count, 3, 3)) * 2.2,
        rng.uniform(0.0, 2.0 * np.pi, (count, 3)),
        rng.normal(size=(count, 3, 3)),
        np.arange(count) % 4 != 3,
    )


def principal_basis(raw: Float64) -> tuple[Float64, Float64]:
    """Orthogonal columns with the raw fields' energies: raw [V, 3, K] -> basis [V, 3, K] = raw @ U, and U [K, K].

    As in a PCA model a coefficient has unit variance where the raw fields' own weights have it.
    """
    flat = raw.reshape(-1, raw.shape[-1])
    energy, u = np.linalg.eigh(flat.T @ flat)
    u = u[:, np.argsort(-energy, kind="stable")]
    u *= np.sign(u[np.abs(u).argmax(0), np.arange(u.shape[1])])
    return raw @ u, u


def build_expressions(mesh: HeadMesh, weights: Float64) -> ExpressionSpace:
    """All of the model that moves: named fields, the basis that spans them, eyelids and pose correctives."""
    pose_basis = _pose_basis(mesh)
    named = _named_fields(mesh)
    named["mouthClose"] = _mouth_close(mesh, weights, pose_basis)
    s = _Sculptor(mesh)
    spread = bell(s.y + 0.01, 0.07) * s.face * s.inside
    spare = EXPRESSION_COUNT - len(named)
    w, phase, amplitude, symmetric = random_fields(spare, seed=41)
    raw = [_NAMED_SHARE * field for field in named.values()]
    for k in range(spare):
        here = np.cos(s.v @ w[k] / 0.10 + phase[k]) @ amplitude[k]
        there = (np.cos(s.v * [-1, 1, 1] @ w[k] / 0.10 + phase[k]) @ amplitude[k]) * [-1, 1, 1]
        field = 0.5 * (here + there if symmetric[k] else here - there)
        raw.append(_move(spread * 0.0006 / (1.0 + 0.03 * k), field))
    basis, u = principal_basis(np.stack(raw, -1))
    codes = {name: u[k] / _NAMED_SHARE for k, name in enumerate(named)}
    upper, lower = _lid_angles(mesh)
    eyelids = np.stack([_lid_rotation(mesh, right, upper, lower) for right in (False, True)], -1)
    return ExpressionSpace(named, basis, codes, eyelids, pose_basis)
