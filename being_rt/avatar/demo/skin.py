"""The skin: even samples of the mesh, two-pigment colour at several scales, and the studio's light.

Albedo starts at the person's tone and is filtered by two pigments, as real skin is: haemoglobin (reddening: cheeks,
nose, ears, lids) and melanin (darkening: under the eyes, freckles, spots), each a map over the face with noise at
30, 8 and 2 mm (Donner et al., "A layered, heterogeneous reflectance model for acquiring and rendering human skin",
SIGGRAPH Asia 2008, by its idea of separate chromophore maps).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo import wrinkles
from being_rt.avatar.demo.cloud import Cloud, Mesh, Samples, cloud, nearest, noise, scatter, unit
from being_rt.avatar.demo.features import EYE, LID_RADIUS, MOUTH_HALF, MOUTH_Y, FaceMap, Place
from being_rt.avatar.demo.lighting import Distance, Visibility, develop, diffuse, linear, specular, visibility
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.flame.procedural.surface import bell, smoothstep

Array = NDArray[np.float64]

HAEMOGLOBIN = np.array([0.05, 0.60, 0.38])  # absorbance per unit, linear RGB
MELANIN = np.array([0.52, 0.84, 1.12])
EXPOSURE = 0.90
COVER = 1.04  # standard deviation of a skin Gaussian over the distance to its neighbours


@dataclass(frozen=True)
class Studio:
    """What shading needs of one person: the surface and what else casts shadows."""

    surface: Distance
    occluders: Distance
    face_map: FaceMap
    traits: PersonTraits
    brow_shadow: Distance  # [N] of points on the average head: how much fine brow hair darkens the skin, 0..1

    def normal(self, points: Array, step: float) -> Array:
        """Unit normals of the surface by four-point differences."""
        total = np.zeros_like(points)
        for corner in np.array([[1.0, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]]):
            total += corner * self.surface(points + step * corner)[:, None]
        return unit(total)

    def settle(self, points: Array, limit: float) -> Array:
        """Points moved onto the surface, at most ``limit`` metres."""
        moved = points
        for _ in range(2):
            moved = moved - self.surface(moved)[:, None] * self.normal(moved, 3e-4)
        way = moved - points
        length = np.linalg.norm(way, axis=1, keepdims=True)
        return points + way * np.minimum(1.0, limit / np.maximum(length, 1e-9))


@dataclass(frozen=True)
class SkinSurface:
    """Shaded skin samples, with what expressions need to shade them again."""

    samples: Samples
    position: Array
    normal: Array  # of the smooth surface
    bumped: Array  # with wrinkles and pores
    albedo: Array
    seen: Visibility
    sheen: Array  # [N] weight of the highlight
    roughness: Array

    def colour(
        self,
        lean: Array | None = None,
        bumps: Array | None = None,
        shade: Array | None = None,
        reveal: Array | None = None,
    ) -> Array:
        """sRGB [N, 3]. ``lean`` [N, 3] is added to the smooth normals, ``bumps`` [N, 3] to the detailed ones; ``shade``
        [N] multiplies all light, the room's most; ``reveal`` [N] is how far a fold has opened to the light."""
        normal = self.normal if lean is None else unit(self.normal + lean)
        bumped = self.bumped if bumps is None else unit(self.bumped + bumps)
        seen = self.seen
        if reveal is not None:
            lamps = seen.lamps + np.clip(0.75 - seen.lamps, 0.0, 1.0) * reveal[:, None]
            seen = Visibility(seen.ambient + np.clip(0.8 - seen.ambient, 0.0, 1.0) * reveal, seen.bent, lamps)
        if shade is not None:
            ambient = np.clip(seen.ambient * shade, 0.0, 1.2)
            seen = Visibility(ambient, seen.bent, seen.lamps * np.clip(shade, 0.0, 1.0)[:, None] ** 0.6)
        light = diffuse(bumped, seen, scatter=0.75, soft_normals=normal, albedo=self.albedo)
        # The rim light's mirror image belongs to the silhouette; baked, it would be seen from elsewhere as a streak.
        mirrored = Visibility(seen.ambient, seen.bent, seen.lamps * np.array([1.0, 1.0, 0.35]))
        shine = specular(self.position, bumped, mirrored, self.roughness)
        return develop(self.albedo * light + 0.028 * self.sheen[:, None] * shine, EXPOSURE)


def skin_faces(mesh: Mesh, not_skin: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles of the skin, and those of the lids' margins, which turn in towards the ball."""
    to_eye = np.linalg.norm(np.stack([np.abs(mesh.average[:, 0]), *mesh.average[:, 1:].T], 1) - EYE, axis=1)
    inward = (to_eye < LID_RADIUS - 0.0005)[mesh.faces].any(1)
    bare = ~not_skin[mesh.faces].any(1)
    return np.flatnonzero(bare & ~inward), np.flatnonzero(bare & inward)


def sample_radius(place: Place, bare_ears: bool) -> Array:
    """Wanted distance between skin samples, metres: fine where the face has edges, coarse under the hair."""
    x, y, z = place.ax, place.y, place.z
    face = smoothstep(-0.045, 0.005, z) * smoothstep(-0.110, -0.088, y) * smoothstep(0.105, 0.088, y)
    radius = 0.0044 - 0.0028 * face
    radius = np.minimum(
        radius, 0.0025 + 0.06 * np.clip(-0.045 - z, 0.0, None) + 0.06 * np.clip(-0.150 - y, 0.0, 0.04)
    )  # neck, sides
    middle = (
        np.exp(-((x / 0.046) ** 4))
        * smoothstep(-0.098, -0.084, y)
        * smoothstep(0.092, 0.070, y)
        * smoothstep(0.0, 0.02, z)
    )
    radius = np.minimum(radius, 0.00168 - 0.00044 * middle) * (face > 0.02) + radius * (face <= 0.02)
    near_nose = np.hypot(x, (y + 0.012) * 0.9)
    radius = np.minimum(radius, 0.00078 + 0.026 * np.clip(near_nose - 0.017, 0.0, None) + 0.05 * (z < 0.035))
    mouth = np.hypot(
        np.clip(x - MOUTH_HALF + 0.003, 0.0, None), np.clip(np.abs(y - MOUTH_Y + 0.001) - 0.0095, 0.0, None)
    )
    radius = np.minimum(radius, 0.00066 + 0.045 * np.clip(mouth - 0.0015, 0.0, None) + 0.05 * (z < 0.02))
    radius = np.minimum(radius, 0.00060 + 0.050 * np.clip(place.rim - 0.0035, 0.0, None))
    ear = (x > 0.062) & (np.abs(y - 0.004) < 0.042) & (z < -0.026) & (z > -0.085)
    return np.where(ear, np.minimum(radius, 0.00160 if bare_ears else 0.0024), radius)


def _bare_ears(traits: PersonTraits) -> bool:
    return traits.hair_style in ("short", "crop")


def pigments(place: Place, traits: PersonTraits) -> tuple[Array, Array]:
    """Haemoglobin and melanin over the person's mean, [N] each."""
    p, old = place.points, float(np.clip((traits.age - 25.0) / 45.0, 0.0, 1.0))
    seed = traits.seed * 101
    broad, middle, fine = noise(p, 0.034, seed + 1, 2), noise(p, 0.0085, seed + 2, 2), noise(p, 0.0026, seed + 3)
    blood = 0.10 * place.cheek + 0.22 * place.nose_tip + 0.22 * place.ala + 0.24 * place.ear + 0.16 * place.chin
    blood += 0.12 * place.upper_lid + 0.20 * bell(place.rim, 0.0030) * place.front
    blood += (
        0.10 * place.under_eye
        - 0.10 * place.forehead
        + 0.10 * np.exp(-(((place.fold + 0.004) / 0.005) ** 2)) * place.fold_length
    )
    blood += 0.10 * bell(place.x, 0.004) * bell(place.y + 0.0245, 0.003) * place.front
    blood *= 0.35 + 1.05 * traits.redness
    blood += 0.030 * broad + (0.008 + 0.03 * old) * middle + 0.010 * fine
    flush = np.clip(place.cheek + place.nose + place.nose_tip + place.ala, 0.0, 1.0) * traits.redness
    threads = np.clip(1.0 - np.abs(noise(p, 0.0068, seed + 4)) * 6.0, 0.0, 1.0) * np.clip(
        noise(p, 0.014, seed + 5) - 0.2, 0.0, 1.0
    )
    blood += 0.32 * old * flush * threads
    pale_scale = 1.0 - 0.45 * traits.skin_tone
    brown = 0.13 * place.under_eye * (0.7 + 0.8 * traits.skin_tone + 0.5 * old) + 0.08 * place.upper_lid
    brown += 0.045 * place.forehead * (0.3 + traits.skin_tone) + 0.05 * place.neck
    brown += 0.16 * traits.skin_tone * bell(place.ax - 0.006, 0.024) * bell(place.y - MOUTH_Y, 0.016) * place.front
    brown += (
        (0.030 + 0.02 * traits.skin_tone) * noise(p, 0.045, seed + 6, 2)
        + 0.010 * middle
        + 0.007 * noise(p, 0.0034, seed + 7)
    )
    return blood * pale_scale, brown


def spots(place: Place, traits: PersonTraits) -> Array:
    """Melanin of freckles, moles and, later, age spots, [N]."""
    rng = np.random.default_rng(traits.seed * 7 + 5)
    amount = np.zeros(len(place.x))
    tree = nearest(place.points)
    old = float(np.clip((traits.age - 45.0) / 30.0, 0.0, 1.0))

    def scatter_spots(count: int, low: float, high: float, strength: float, spread: Array, centre: Array) -> None:
        for _ in range(count):
            middle = centre + rng.normal(size=3) * spread
            size = rng.uniform(low, high)
            weight = strength * rng.uniform(0.4, 1.0)
            distance, nearest_index = tree.query(middle)
            if distance > 0.03:
                continue
            hit = tree.query_ball_point(place.points[nearest_index], 2.5 * size)
            away = np.linalg.norm(place.points[hit] - place.points[nearest_index], axis=1)
            amount[hit] += weight * np.exp(-((away / size) ** 2))

    for side in (1.0, -1.0):
        cheek = np.array([side * 0.036, -0.004, 0.046])
        scatter_spots(int(230 * traits.freckles), 0.0005, 0.0008, 0.34, np.array([0.020, 0.015, 0.012]), cheek)
        temple = np.array([side * 0.052, 0.030, 0.015])
        scatter_spots(int(16 * old), 0.0015, 0.0040, 0.22, np.array([0.014, 0.030, 0.02]), temple)
    scatter_spots(
        int(130 * traits.freckles), 0.0005, 0.0008, 0.36, np.array([0.012, 0.014, 0.006]), np.array([0.0, 0.002, 0.058])
    )
    scatter_spots(
        int(60 * traits.freckles), 0.0006, 0.0012, 0.24, np.array([0.035, 0.014, 0.01]), np.array([0.0, 0.066, 0.045])
    )
    scatter_spots(5, 0.0007, 0.0012, 0.9, np.array([0.05, 0.05, 0.03]), np.array([0.0, -0.02, 0.02]))
    return amount * (1.0 - place.lips) * (1.0 - bell(place.rim, 0.002))


def albedo(place: Place, traits: PersonTraits) -> Array:
    """Linear RGB of skin and lips, [N, 3]."""
    blood, brown = pigments(place, traits)
    brown = brown + spots(place, traits) * (1.0 - 0.6 * traits.skin_tone)
    base = traits.skin_albedo * np.exp(-blood[:, None] * HAEMOGLOBIN) * np.exp(-brown[:, None] * MELANIN)
    shaved = (
        traits.stubble
        * place.beard
        * (1.0 + 0.18 * noise(place.points, 0.0030, 17) + 0.12 * noise(place.points, 0.012, 18))
    )
    base *= 1.0 - np.clip(shaved, 0.0, 1.3)[:, None] * np.array([0.40, 0.34, 0.26])
    rooted = (0.92 * traits.beard * place.beard)[:, None]
    base = base * (1.0 - rooted) + traits.hair_albedo * 0.8 * rooted
    lip = linear(traits.lip_colour) * np.exp(
        -0.10 * noise(place.points * [1.0, 0.35, 1.0], 0.0016, 31)[:, None] * HAEMOGLOBIN
    )
    lip *= (1.0 + 0.07 * noise(place.points, 0.009, 32) + 0.10 * (place.lip < 0))[:, None]
    lip *= (1.0 - 0.16 * bell(np.abs(place.lip) - 0.97, 0.10) * traits.makeup)[:, None]
    cover = (0.62 + 0.30 * traits.makeup) * place.lips * (0.84 + 0.16 * smoothstep(1.0, 0.7, np.abs(place.lip)))
    border = (
        bell(np.abs(place.lip) - 1.22, 0.12)
        * (1.0 - place.lips)
        * smoothstep(MOUTH_HALF, MOUTH_HALF * 0.7, place.ax)
        * place.front
    )
    base *= 1.0 + 0.05 * border[:, None]
    result = base * (1.0 - cover[:, None]) + lip * cover[:, None]
    wet = smoothstep(0.30, 0.0, np.abs(place.lip)) * place.lips
    result *= 1.0 - wet[:, None] * np.array([0.28, 0.46, 0.42])
    result *= 1.0 - (0.88 * place.seam)[:, None] * np.array([0.80, 0.97, 0.97])
    corner = (
        np.exp(-(((place.ax - MOUTH_HALF - 0.0008) / 0.0020) ** 2) - ((place.y - MOUTH_Y) / 0.0016) ** 2) * place.front
    )
    result *= 1.0 - 0.10 * corner[:, None] * np.array([0.75, 1.0, 1.0])
    # Lids: thin and pink at the rim; make-up darkens the crease and the line of the lashes.
    line = bell(place.rim, 0.0011) * (place.eye_y > -0.002) * (0.22 + 0.40 * traits.makeup)
    shadow = place.upper_lid * smoothstep(0.0, 0.004, place.eye_y) * 0.22 * traits.makeup
    result *= 1.0 - np.clip(line + shadow, 0.0, 0.9)[:, None] * np.array([0.85, 1.0, 0.98])
    return np.clip(result, 0.003, 0.95)


def _hollow(place: Place, traits: PersonTraits) -> Array:
    """Darkening in creases, 0..1: what ambient occlusion would give at a finer scale than it is sampled."""
    depth = np.clip(-wrinkles.lasting(place, traits), 0.0, None)
    return np.exp(-depth / 0.0011)


def shade_skin(studio: Studio, samples: Samples, limit: float = 0.0022) -> SkinSurface:
    """Everything about skin samples that light needs."""
    traits = studio.traits
    place = studio.face_map.locate(samples.average)
    position = studio.settle(samples.person, limit)
    normal = studio.normal(position, 3.5e-4)
    # The mesh is too coarse for the nostrils' rims: they are smoothed, and painted.
    nostril = np.exp(-(((place.ax - 0.0066) / 0.0036) ** 2 + ((place.y + 0.0202) / 0.0024) ** 2)) * (place.z > 0.04)
    calm = np.clip(1.6 * nostril, 0.0, 1.0)[:, None]
    position = samples.person * calm + position * (1.0 - calm)
    normal = unit(normal * (1.0 - calm) + np.array([0.0, -0.75, 0.66]) * calm)
    gradient = wrinkles.slope(lambda at: wrinkles.lasting(at, traits), place)
    gradient -= np.einsum("nd,nd->n", gradient, normal)[:, None] * normal
    rng = np.random.default_rng(traits.seed + 3)
    own = sample_radius(place, _bare_ears(traits))
    pore = 0.015 + 0.022 * np.clip(place.nose + place.cheek + 0.6 * place.t_zone + 0.4 * place.chin, 0.0, 1.0)
    pore = pore * (1.0 - place.lips) * (0.7 + 0.3 * np.clip((traits.age - 20) / 40, 0, 1))
    bumped = unit(
        normal - gradient + (pore * np.clip(0.0014 / own, 0.3, 1.0))[:, None] * rng.normal(size=position.shape)
    )
    seen = visibility(position + normal * 2e-4, normal, studio.occluders)
    # Neighbours share their visibility: the march is sampled, and its error must not show as speckle.
    near = nearest(position).query(position, 12)[1]
    seen = Visibility(seen.ambient[near].mean(1), unit(seen.bent[near].mean(1)), seen.lamps[near].mean(1))
    # The wings' rims are thinner than the shadow march resolves.
    rim = np.exp(-(((place.ax - 0.0110) / 0.0042) ** 2) - ((place.y + 0.0165) / 0.0034) ** 2) * (place.z > 0.04)
    open_lamps = seen.lamps + (1.0 - seen.lamps) * (0.7 * rim)[:, None]
    seen = Visibility(seen.ambient + (1.0 - seen.ambient) * 0.35 * rim, seen.bent, open_lamps)
    soft = unit(studio.normal(position, 2.4e-3) + 0.3 * normal)
    # Under the nose the mesh's facets and the surface's normals part: none may face so far away that it fades.
    under = np.exp(-((place.ax / 0.0165) ** 6) - (((place.y + 0.0165) / 0.0062) ** 4)) * (place.z > 0.045)
    soft = unit(soft + under[:, None] * np.array([0.0, 0.0, 0.7]))
    # Skin that hair hides is full of roots: they take the red out of the deep shade along the hairline.
    haired = np.maximum(smoothstep(0.050, 0.066, place.y), smoothstep(-0.004, -0.018, place.z) * (place.y > 0.0))
    haired = (0.75 * haired * smoothstep(0.52, 0.20, seen.ambient))[:, None]
    brow = studio.brow_shadow(samples.average)[:, None]
    pigment = albedo(place, traits) * (1.0 - brow) + traits.brow_albedo * brow
    roots = traits.hair_albedo + 0.9 * traits.hair_grey * (linear((196, 194, 192)) - traits.hair_albedo)
    pigment = pigment * (1.0 - haired) + 0.9 * roots * haired
    pigment = pigment * _hollow(place, traits)[:, None] ** np.array([0.7, 1.0, 1.0])
    pigment = pigment * (1.0 - 0.50 * smoothstep(0.35, 1.0, nostril)[:, None] * np.array([0.92, 1.0, 1.0]))
    seen = Visibility(seen.ambient * (1.0 - 0.45 * nostril), seen.bent, seen.lamps * (1.0 - 0.5 * nostril[:, None]))
    oily = (0.3 + 0.7 * traits.oiliness) * place.t_zone
    lips = place.lips
    roughness = 0.47 - 0.12 * oily - (0.10 + 0.12 * traits.lip_gloss) * lips - 0.05 * bell(place.rim, 0.003)
    broken = 1.0 + (0.20 * rng.normal(size=len(samples)) + 0.18 * noise(place.points, 0.004, 51)) * (
        1.0 - lips
    ) * np.clip(0.0014 / own, 0.2, 1.0)
    sheen = (0.95 + 0.80 * oily + 0.40 * place.cheek + (0.5 + 0.9 * traits.lip_gloss) * lips) * np.clip(
        broken, 0.2, 2.0
    )
    sheen = (
        sheen
        * (1.0 - 0.85 * place.seam)
        * (1.0 - nostril)
        * (1.0 - 0.8 * lips * smoothstep(0.80, 0.97, place.ax / MOUTH_HALF))
    )
    return SkinSurface(samples, position, soft, bumped, pigment, seen, sheen, roughness)


def build_skin(studio: Studio, mesh: Mesh, faces: NDArray[np.int64], spacing: float = 1.0) -> tuple[Cloud, SkinSurface]:
    """The skin's Gaussians and their surface (for expressions).

    Args:
        studio: surface, occluders, maps, traits.
        mesh: the head.
        faces: triangles of skin.
        spacing: multiplies all sample distances.
    """
    traits = studio.traits
    bare_ears = _bare_ears(traits)
    centres = studio.face_map.locate(mesh.average[mesh.faces[faces]].mean(1))
    radius = sample_radius(centres, bare_ears) * spacing
    samples = scatter(mesh, faces, radius, seed=traits.seed)
    surface = shade_skin(studio, samples)
    own = sample_radius(studio.face_map.locate(samples.average), bare_ears) * spacing
    # Wide enough that four neighbours hide what lies behind, stretched skin included. An under-layer against pin-holes
    # does more harm: sorted by their centres, its large Gaussians come before the skin wherever it slants.
    sigma = COVER * own * (1.0 + 0.22 * smoothstep(0.0017, 0.0022, own))
    skin = cloud(
        "skin",
        samples,
        surface.normal,
        np.stack([sigma, sigma, 0.22 * sigma], 1),
        surface.colour(),
        0.97,
        position=surface.position,
        facing_fade=True,
    )
    return skin, surface
