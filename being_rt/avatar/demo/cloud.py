"""Gaussians in the rest pose before they are bound: sampling a mesh evenly, collecting, binding to triangles."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Gaussians, HeadLayer
from being_rt.errors import MissingDependencyError
from being_rt.flame.rig import Rig

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def nearest(points: Array) -> Any:
    """SciPy's k-d tree over points [N, 3], imported on first use.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise MissingDependencyError(
            "generating a demo person needs SciPy; install being_rt with its extra: pip install 'being_rt[demo]'"
        ) from error
    return cKDTree(points)


def unit(vectors: Array) -> Array:
    """Vectors [..., 3] scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def noise(points: Array, wavelength: float, seed: int, octaves: int = 1) -> Array:
    """Smooth noise of unit variance over points [N, 3]: plane waves, each octave half as long and half as high."""
    rng = np.random.default_rng(seed)
    total, power = np.zeros(len(points)), 0.0
    for octave in range(octaves):
        waves = rng.normal(size=(3, 10))
        waves *= 2.0 * np.pi * 2.0**octave / wavelength / np.linalg.norm(waves, axis=0)
        height = 0.5**octave
        total += height * np.cos(points @ waves + rng.uniform(0, 2 * np.pi, 10)).sum(1) / np.sqrt(5.0)
        power += height**2
    return total / np.sqrt(power)


@dataclass(frozen=True)
class Mesh:
    """A head's mesh twice: as the average person, where features lie at known places, and as this person."""

    faces: NDArray[np.int32]
    average: Array  # [V, 3]
    person: Array  # [V, 3]


@dataclass(frozen=True)
class Samples:
    """Points on triangles."""

    face: Index  # [N]
    barycentric: Array  # [N, 3]
    average: Array  # [N, 3] place on the average head
    person: Array  # [N, 3] place on this head

    def __getitem__(self, selection: Any) -> Samples:
        return Samples(*(getattr(self, item.name)[selection] for item in fields(self)))

    def __len__(self) -> int:
        return len(self.face)


def scatter(mesh: Mesh, faces: Index, radius: Array, seed: int, oversampling: float = 5.0) -> Samples:
    """Spread points over triangles so that no two lie closer than their mean radius (Poisson disks of varying size).

    Candidates of random priority knock out weaker ones in parallel rounds (Bowers et al., "Parallel Poisson disk
    sampling with spectrum analysis on surfaces", 2010).

    Args:
        mesh: vertices and triangles.
        faces: [K] triangles to cover.
        radius: [K] wanted distance between neighbours on each triangle, metres.
        seed: of the candidates.
        oversampling: candidates per expected survivor.
    """
    rng = np.random.default_rng(seed)
    corners = mesh.person[mesh.faces[faces]]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    expected = area / radius**2 * oversampling
    cumulative = np.concatenate([[0.0], np.cumsum(expected)])
    count = int(cumulative[-1]) + 1
    marks = (np.arange(count) + rng.random(count)) / count * cumulative[-1]
    pick = np.clip(np.searchsorted(cumulative, marks, side="right") - 1, 0, len(faces) - 1)
    u, v = np.sqrt(rng.random(count)), rng.random(count)
    barycentric = np.stack([1.0 - u, u * (1.0 - v), u * v], 1)
    points = np.einsum("nk,nkd->nd", barycentric, corners[pick])
    kept = np.sort(_thin(points, radius[pick], rng))
    return _sample(mesh, faces[pick[kept]], barycentric[kept])


def smooth_normals(mesh: Mesh, faces: NDArray[np.int64]) -> Array:
    """Area-weighted vertex normals of some triangles of this person's mesh, [V, 3], zero elsewhere."""
    corner = mesh.faces[faces]
    triangle = mesh.person[corner]
    face_normal = np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0])
    total = np.zeros_like(mesh.person)
    for column in range(3):
        np.add.at(total, corner[:, column], face_normal)
    return unit(total)


def _sample(mesh: Mesh, face: Index, barycentric: Array) -> Samples:
    corner = mesh.faces[face]
    average = np.einsum("nk,nkd->nd", barycentric, mesh.average[corner])
    person = np.einsum("nk,nkd->nd", barycentric, mesh.person[corner])
    return Samples(face.astype(np.int64), barycentric, average, person)


def _thin(points: Array, radius: Array, rng: np.random.Generator) -> Index:
    distance, other = nearest(points).query(points, k=28, distance_upper_bound=float(radius.max()))
    first, slot = np.nonzero(np.isfinite(distance[:, 1:]))
    second = other[first, slot + 1]
    close = distance[first, slot + 1] < 0.5 * (radius[first] + radius[second])
    first, second = first[close], second[close]
    priority = rng.random(len(points))
    alive, kept = np.ones(len(points), bool), np.zeros(len(points), bool)
    while alive.any():
        beaten = np.zeros(len(points), bool)
        beaten[np.where(priority[first] > priority[second], second, first)] = True
        winners = alive & ~beaten
        kept |= winners
        alive &= ~winners
        alive[second[winners[first]]] = False
        alive[first[winners[second]]] = False
        pair = alive[first] & alive[second]
        first, second = first[pair], second[pair]
    return np.flatnonzero(kept)


def attach(mesh: Mesh, faces: Index, points: Array) -> Samples:
    """Bind points [N, 3] of this person's head to the nearest of the given triangles; offsets are kept by ``bind``."""
    corners = mesh.person[mesh.faces[faces]]
    near = nearest(corners.mean(1)).query(points, k=min(6, len(faces)))[1]
    near = near.reshape(len(points), -1)
    best, best_weight = near[:, 0].copy(), np.full((len(points), 3), 1.0 / 3.0)
    best_distance = np.full(len(points), np.inf)
    for slot in range(near.shape[1]):
        triangle = corners[near[:, slot]]
        edge_1, edge_2 = triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]
        to_point = points - triangle[:, 0]
        a, b, c = (np.einsum("nd,nd->n", *pair) for pair in ((edge_1, edge_1), (edge_1, edge_2), (edge_2, edge_2)))
        d, e = np.einsum("nd,nd->n", edge_1, to_point), np.einsum("nd,nd->n", edge_2, to_point)
        scale = np.maximum(a * c - b * b, 1e-30)
        weight = np.stack([(c * d - b * e) / scale, (a * e - b * d) / scale], 1)
        weight = np.clip(np.concatenate([1.0 - weight.sum(1, keepdims=True), weight], 1), 0.0, 1.0)
        weight /= weight.sum(1, keepdims=True)
        distance = np.linalg.norm(np.einsum("nk,nkd->nd", weight, triangle) - points, axis=1)
        better = distance < best_distance - 1e-12
        best[better], best_weight[better], best_distance[better] = near[better, slot], weight[better], distance[better]
    samples = _sample(mesh, faces[best], best_weight)
    return replace(samples, person=points)


@dataclass(frozen=True)
class Cloud:
    """Gaussians of one part in the rest pose, not yet bound. Scales in metres, opacities 0..1, colours sRGB 0..1."""

    position: Array  # [N, 3]
    tangent: Array  # [N, 3] direction of scale[:, 0], made orthogonal to the normal by bind
    normal: Array  # [N, 3] direction of scale[:, 2]
    scale: Array  # [N, 3]
    colour: Array  # [N, 3]
    opacity: Array  # [N]
    face: Index  # [N]
    barycentric: Array  # [N, 3]
    average: Array  # [N, 3] place on the average head
    facing_fade: NDArray[np.bool_]  # [N]
    part: NDArray[np.int64]  # [N] one of PARTS' numbers

    def __len__(self) -> int:
        return len(self.position)

    def __getitem__(self, selection: Any) -> Cloud:
        return Cloud(*(getattr(self, item.name)[selection] for item in fields(self)))


PARTS = ("skin", "eye", "lid", "glint", "mouth", "brow", "lash", "stubble")


def cloud(
    part: str,
    samples: Samples,
    normal: Array,
    scale: Any,
    colour: Array,
    opacity: Any,
    *,
    position: Array | None = None,
    tangent: Array | None = None,
    facing_fade: bool = False,
) -> Cloud:
    """A cloud from samples; ``scale`` and ``opacity`` broadcast, missing tangents are any."""
    count = len(samples)
    if tangent is None:
        tangent = np.cross(normal, [0.31, 0.90, 0.30])
    return Cloud(
        position=(samples.person if position is None else position).astype(np.float64),
        tangent=np.broadcast_to(tangent, (count, 3)).astype(np.float64),
        normal=unit(np.broadcast_to(normal, (count, 3)).astype(np.float64)),
        scale=np.broadcast_to(scale, (count, 3)).astype(np.float64),
        colour=np.broadcast_to(colour, (count, 3)).astype(np.float64),
        opacity=np.broadcast_to(opacity, count).astype(np.float64),
        face=samples.face,
        barycentric=samples.barycentric,
        average=samples.average,
        facing_fade=np.full(count, facing_fade),
        part=np.full(count, PARTS.index(part), np.int64),
    )


def concatenate(clouds: list[Cloud]) -> Cloud:
    return Cloud(*(np.concatenate([getattr(each, item.name) for each in clouds]) for item in fields(Cloud)))


def triangle_frames(rig: Rig) -> Array:
    """Rest frames [t b n] of all triangles, [F, 3, 3], as the renderer builds them."""
    corners = rig.template[rig.faces].astype(np.float64)
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    tangents = np.stack([edge_1, edge_2], 2) @ rig.face_frames
    return np.concatenate([tangents, unit(np.cross(edge_1, edge_2))[:, :, None]], 2)


def rest_positions(rig: Rig, layer: HeadLayer) -> Array:
    """Where a bound layer's Gaussians lie in the rest pose, FLAME space, [N, 3]."""
    anchor = np.einsum("nk,nkd->nd", layer.barycentric, rig.template[rig.faces[layer.face]].astype(np.float64))
    return anchor + np.einsum("nij,nj->ni", triangle_frames(rig)[layer.face], layer.gaussians.position)


def bind(rig: Rig, part: Cloud) -> HeadLayer:
    """Express a cloud in the frames of its triangles, as the renderer reads it."""
    frames = triangle_frames(rig)[part.face]
    anchor = np.einsum("nk,nkd->nd", part.barycentric, rig.template[rig.faces[part.face]].astype(np.float64))
    tangent = unit(part.tangent - np.einsum("nd,nd->n", part.tangent, part.normal)[:, None] * part.normal)
    axes = np.stack([tangent, np.cross(part.normal, tangent), part.normal], 2)
    local = np.einsum("nji,njk->nik", frames, axes)
    opacity = np.clip(part.opacity, 1e-4, 1.0 - 1e-4)
    gaussians = Gaussians(
        position=np.einsum("nji,nj->ni", frames, part.position - anchor).astype(np.float32),
        rotation=quaternions(local).astype(np.float32),
        log_scale=np.log(np.maximum(part.scale, 1e-6)).astype(np.float32),
        opacity_logit=np.log(opacity / (1.0 - opacity)).astype(np.float32),
        colour=np.clip(part.colour, 0.0, 1.0).astype(np.float32),
        facing_fade=part.facing_fade,
    )
    return HeadLayer(gaussians, part.face.astype(np.int32), part.barycentric.astype(np.float32))


def quaternions(matrices: Array) -> Array:
    """Unit quaternions w, x, y, z of rotation matrices [N, 3, 3] (Shepperd 1978: the largest of four pivots)."""
    m = matrices
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    pivots = np.stack([trace, m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], 1)
    choice = pivots.argmax(1)
    result = np.empty((len(m), 4))
    for pivot in range(4):
        rows = choice == pivot
        r = m[rows]
        if pivot == 0:
            w = 1.0 + trace[rows]
            parts = (w, r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1])
        else:
            i, j, k = pivot - 1, pivot % 3, (pivot + 1) % 3
            lead = 1.0 + r[:, i, i] - r[:, j, j] - r[:, k, k]
            values = {i: lead, j: r[:, j, i] + r[:, i, j], k: r[:, k, i] + r[:, i, k]}
            parts = (r[:, k, j] - r[:, j, k], values[0], values[1], values[2])
        result[rows] = np.stack(parts, 1)
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    return np.where(result[:, :1] < 0, -result, result)
