"""A made-up embedding into the procedural head, and landmarks of a known performance before a known camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.regions import project
from being_rt.dataset.synth_motion import MotionLimits, perform
from being_rt.dataset.synth_tracking import without_neck
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head, procedural_identity
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, skin
from being_rt.track import fit_landmarks as names
from being_rt.track.embedding import Embedding
from being_rt.track.fit import WORLD_TO_CAMERA
from being_rt.track.observations import LANDMARKS, Observations

EYES_APART = 0.062  # metres
REACH = 0.02  # metres within which landmarks' smooth biases are alike
JAW_LINE = (10, 27)  # of the face's outline
AROUND, WINDOW, SOFT = 0.022, 0.004, 0.0004  # metres: skin around a landmark of the jaw that may be its line


@cache
def made_up_embedding() -> Embedding:
    """All 478 landmarks: on the head's own where it has them, else at random in the right part of the face."""
    model = procedural_head()
    random = np.random.default_rng(5)
    face = np.zeros(LANDMARKS, np.int32)
    barycentric = np.zeros((LANDMARKS, 3), np.float32)

    def put(ids: tuple[int, ...], name: str, columns: list[int]) -> None:
        face[list(ids)], barycentric[list(ids)] = (part[columns] for part in model.landmarks[name])

    def scatter(ids: tuple[int, ...], inside: NDArray[np.bool_]) -> None:
        triangles = np.flatnonzero(inside[model.faces].all(1))
        face[list(ids)] = random.choice(triangles, len(ids))
        barycentric[list(ids)] = random.dirichlet(np.ones(3), len(ids))

    def nearest(ids: tuple[int, ...], points: NDArray[np.float64], region: str) -> None:
        inside = np.isin(np.arange(model.vertex_count), model.regions[region])
        triangles = np.flatnonzero(inside[model.faces].all(1))
        middles = model.template[model.faces[triangles]].mean(1)
        away = np.linalg.norm(middles[None] - points[:, None], axis=-1)
        face[list(ids)] = triangles[away.argmin(1)]
        barycentric[list(ids)] = 1 / 3

    def masked(*regions: str) -> NDArray[np.bool_]:
        return np.isin(np.arange(model.vertex_count), np.concatenate([model.regions[name] for name in regions]))

    taken = masked("lips", "left_eye", "right_eye", "brows", "nose", "mouth_interior")
    scatter(names.SKIN.ids, masked("face") & ~taken & (model.template[:, 2] > 0.0))
    scatter(names.NOSE, masked("nose"))
    scatter(names.UPPER_LIP_SURFACE, masked("lips_upper"))
    scatter(names.LOWER_LIP_SURFACE, masked("lips_lower"))
    put(names.SURFACE_CORNERS, "inner_lips_upper", [0, 20, 0, 20])
    lid = [2, 3, 5, 7, 9, 11, 12]
    for side, upper, lower, corners in (
        ("left", names.LEFT_UPPER_LID, names.LEFT_LOWER_LID, names.LEFT_CORNERS),
        ("right", names.RIGHT_UPPER_LID, names.RIGHT_LOWER_LID, names.RIGHT_CORNERS),
    ):
        put(upper, f"eyelid_upper_{side}", lid)
        put(lower, f"eyelid_lower_{side}", lid)
        put(corners, f"eyelid_upper_{side}", [0, 14])
    put(names.INNER_UPPER_LIP, "inner_lips_upper", list(range(2, 19, 2)))
    put(names.INNER_LOWER_LIP, "inner_lips_lower", list(range(2, 19, 2)))
    put(names.INNER_CORNERS, "inner_lips_upper", [0, 20])
    put(names.OUTER_UPPER_LIP, "dense105", list(range(29, 38)))
    put(names.OUTER_LOWER_LIP, "dense105", list(range(47, 38, -1)))
    put(names.OUTER_CORNERS, "dense105", [28, 38])
    put(names.LEFT_BROW, "dense105", list(range(68, 78)))
    put(names.RIGHT_BROW, "dense105", list(range(78, 88)))
    jaw = np.linspace(16, 0, 19).round().astype(int).tolist()
    put(names.OVAL[9:28], "dlib68", jaw)
    angle = np.linspace(-1, 1, 17)
    forehead = np.stack(
        [0.068 * np.sin(angle * np.pi / 2), 0.03 + 0.06 * np.cos(angle * 1.2), 0.05 * (1 - angle**2)], 1
    )
    nearest((*names.OVAL[28:], *names.OVAL[:9]), forehead, "face")
    for side, iris in ((-1, names.RIGHT_IRIS), (1, names.LEFT_IRIS)):
        centre = np.array([side * 0.0310, 0.0250, 0.0258])
        ring = centre + np.array([[0, 0, 13], [-6, 0, 11.5], [0, 6, 11.5], [6, 0, 11.5], [0, -6, 11.5]]) * 1e-3
        nearest(iris, ring, "left_eyeball" if side > 0 else "right_eyeball")
    return Embedding(face, barycentric, np.full(LANDMARKS, 0.001, np.float32), np.ones(LANDMARKS, bool))


@dataclass(frozen=True)
class Scene:
    """What a person did, and what a network would have seen of it."""

    model: FlameModel
    embedding: Embedding
    rig: Rig
    shape: NDArray[np.float32]
    params: FlameParams  # the neck at rest
    camera: Camera
    vertices: NDArray[np.float32]
    observations: Observations
    bias: NDArray[np.float64]  # [478, 3] metres
    person: int  # the seed of its identity


def scene(
    frames: int,
    *,
    seed: int = 1,
    person: int = 3,
    eyes_apart: float = 150.0,
    noise: float = 0.7,
    bias: float = 0.002,
    smooth: float = 0.0,
    sliding: bool = False,
    focal: float = 1.3,
    fps: float = 25.0,
    size: tuple[int, int] = (834, 884),
    params: FlameParams | None = None,
    limits: MotionLimits | None = None,
) -> Scene:
    """A performance, and what a network would see of it.

    Args:
        noise: of landmarks, px, per frame. bias: of each landmark by itself, metres, per axis, in all frames.
        smooth: the same, of what neighbours have in common (:func:`smooth_field`).
        sliding: landmarks of the jaw's line lie where the picture shows it, not on the same point of the skin.
    """
    model, embedding = procedural_head(), made_up_embedding()
    random = np.random.default_rng([seed, 7])
    shape = procedural_identity(person)
    rig = bake_rig(model, shape)
    motion = perform(rig, frames, 0, fps=fps, seed=seed, limits=limits) if params is None else params
    pixels = focal * max(size)
    distance = np.array([0.0, 0.0, -pixels * EYES_APART / eyes_apart], np.float32)
    motion = without_neck(rig, motion.replace(translation=motion.translation + distance))
    intrinsics = np.array([[pixels, 0, size[0] / 2], [0, pixels, size[1] / 2], [0, 0, 1]], np.float32)
    camera = Camera(WORLD_TO_CAMERA, intrinsics, size)
    vertices = skin(rig, motion)
    points = embedding.points(vertices.astype(np.float64), model.faces)
    offset = bias * random.standard_normal((LANDMARKS, 3))
    offset += smooth * smooth_field(embedding.points(model.template.astype(np.float64), model.faces), random)
    for upper, lower in (*names.LID_PAIRS, *names.LIP_PAIRS):  # where lids and lips meet, the network sees them meet
        offset[lower] = offset[upper] + 0.2 * offset[lower]
    landmarks, depth = project(points + np.einsum("tab,lb->tla", matrices(motion.rotation), offset), camera)
    if sliding:
        landmarks = slid(landmarks, vertices, model, embedding, camera)
    landmarks = landmarks + noise * random.standard_normal(landmarks.shape)
    relative = (depth - depth.mean(1, keepdims=True)) * pixels / -distance[2]
    return Scene(
        model=model,
        embedding=embedding,
        rig=rig,
        shape=shape,
        params=motion,
        camera=camera,
        vertices=vertices,
        observations=observations(np.concatenate([landmarks, relative[..., None]], -1), size, fps),
        bias=offset,
        person=person,
    )


def smooth_field(points: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """A random field [L, 3] of unit deviation over points [L, 3] that is alike within :data:`REACH`."""
    squared = np.sum((points[:, None] - points[None]) ** 2, -1)
    values, vectors = np.linalg.eigh(np.exp(-0.5 * squared / REACH**2))
    return np.asarray(vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * random.standard_normal((len(points), 3))))


def slid(
    landmarks: NDArray[np.float64],
    vertices: NDArray[np.float32],
    model: FlameModel,
    embedding: Embedding,
    camera: Camera,
) -> NDArray[np.float64]:
    """Landmarks [T, 478, 2], those of the jaw's line moved along its normal to where the skin around it ends."""
    result = landmarks.copy()
    skin_around = model.regions["face"]
    template = embedding.points(model.template.astype(np.float64), model.faces)
    pixels, _ = project(vertices[:, skin_around], camera)
    oval = landmarks[:, list(names.OVAL)]
    along = np.roll(oval, -1, 1) - np.roll(oval, 1, 1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    unit = np.median(np.linalg.norm(landmarks[:, 33] - landmarks[:, 263], axis=-1)) / EYES_APART
    for k in range(*JAW_LINE):
        landmark = names.OVAL[k]
        near = np.linalg.norm(model.template[skin_around] - template[landmark], axis=1) < AROUND
        away = (pixels[:, near] - landmarks[:, None, landmark]) / unit  # metres
        tangent, normal = along[:, k], along[:, k, ::-1] * [1.0, -1.0]
        outwards = np.einsum("tna,ta->tn", away, normal)
        outwards -= 0.5 * np.einsum("tna,ta->tn", away, tangent) ** 2 / WINDOW
        result[:, landmark] += unit * SOFT * np.log(np.mean(np.exp(outwards / SOFT), 1))[:, None] * normal
    return result


def observations(landmarks: NDArray[np.float64], size: tuple[int, int], fps: float) -> Observations:
    count = len(landmarks)
    return Observations(
        size=size,
        fps=fps,
        landmarks=landmarks.astype(np.float32),
        presence=np.ones(count, np.float32),
        faces=np.full(count, 1, np.int32),
        sharpness=np.ones(count, np.float32),
        masks=np.zeros((count, 0, 0), np.uint8),
    )
