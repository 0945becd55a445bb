"""Who a photograph shows: the fitted head, its pose, which pixels are what, and the room behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.avatar.demo.eyes import fit_sphere
from being_rt.avatar.demo.features import landmark_points
from being_rt.dataset.labels import BACKGROUND, TORSO, region_labels
from being_rt.dataset.plates import fill
from being_rt.dataset.regions import face_regions, project
from being_rt.errors import TrackError
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrix_axis_angles
from being_rt.flame.skinning import face_frames, lip_gap, on_surface, skin
from being_rt.portrait.align import aligned
from being_rt.portrait.outline import outline_pairs
from being_rt.track.alpha import refine_alpha
from being_rt.track.embedding import landmark_embedding
from being_rt.track.embedding_render import Seen, rasterize
from being_rt.track.fit import fit
from being_rt.track.fit_config import FitConfig
from being_rt.track.observations import Observations
from being_rt.track.observe import NobodyError, observe_frames
from being_rt.track.placement import centred
from being_rt.track.plate import background_plate
from being_rt.track.topology import IRISES

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# One view tells neither the focal length nor much of a skull's depth: both stay near what is likely.
ONE_PICTURE = FitConfig(outlier=0.2, shape=0.3, focal=1.4, focal_deviation=0.05, fewest=1)
FPS = 25.0
TURNED = 25.0  # degrees from which one half of the face is a guess
SEPARATED = 0.6  # share of the face's landmarks that must lie on the person
LIPS_PARTED = 0.0012  # metres between lips from which they are closed for the resting face
OUTLINE = 0.006  # of the picture's longer side: how far around the outline pixels have something of the person
WINDOWS = 0.016  # of the same: how far from the outline a person may be transparent
FAINT, HAZE = 12, 30  # of 255: alpha below which there is nobody, and next to nobody
LIDS_THICK = 0.0007  # metres, of the Gaussians that lids are made of, behind their surface
LIDS_FACING = 0.85  # cosine between the lids' middle and straight ahead
STILL = 1e-4  # metres, root mean square, by which closing lips may move the face elsewhere
_LEAST = 0.05  # weight of the coefficients themselves
_GAP_WEIGHT = 6e3  # of a metre between the lips against an expression coefficient of 1


@dataclass(frozen=True)
class Subject:
    """A person in a photograph of H x W pixels. The head looks along +z, upright, at the origin."""

    picture: UInt8  # [H, W, 3]
    alpha: UInt8  # [H, W]
    labels: UInt8  # [H, W] index into being_rt.dataset.labels.LABELS
    background: UInt8  # [H, W, 3] without the person
    model: FlameModel
    rig: Rig  # at rest: as in the photograph, but with closed lips
    straight: Rig  # the same with eyes that look ahead, of which eyeballs are made
    params: FlameParams  # T = 1: from rest to the photograph
    camera: Camera
    landmarks: Float32  # [478, 3] px
    warnings: tuple[str, ...]

    @property
    def vertices(self) -> Float64:
        """The mesh in the photograph [V, 3]."""
        return skin(self.rig, self.params)[0].astype(np.float64)

    def seen(self, vertices: Float64, without: NDArray[np.bool_] | None = None) -> Seen:
        """Which triangle of the mesh each pixel would show, were there none of ``without`` [F]."""
        pixels, depth = project(vertices, self.camera)
        kept = np.arange(len(self.rig.faces)) if without is None else np.flatnonzero(~without)
        seen = rasterize(pixels, depth, self.rig.faces[kept], self.camera.size)
        return Seen(np.where(seen.face >= 0, kept[seen.face], -1).astype(np.int32), seen.barycentric)


def subject_of(
    picture: UInt8, model: FlameModel, progress: Callable[[str, float], None] | None = None, threads: int = 2
) -> Subject:
    """Find the person in a photograph uint8 [H, W, 3] and fit the head to it.

    Of several faces it is the largest and most central; ``warnings`` say so.

    Raises:
        TrackError: there is no face, or a network cannot be had.
    """
    tell = progress or (lambda stage, share: None)
    size = picture.shape[1], picture.shape[0]
    tell("looking", 0.0)
    try:
        observations = observe_frames([picture], FPS, size, threads=threads)
    except NobodyError as problem:
        raise TrackError(
            "no face is found in the picture; give one of the head and shoulders from the front, in good light"
        ) from problem
    tell("fitting", 0.0)
    embedding = landmark_embedding(model)
    found = fit(observations, model, embedding, ONE_PICTURE)
    if not found.tracked[0]:
        raise TrackError("the face in the picture cannot be fitted; give one from the front that nothing covers")
    landmarks = observations.landmarks[0]
    params, camera = centred(found.params, found.camera, found.rig(model))
    tell("separating", 0.0)
    mask = observations.masks[0]
    alpha = _solid(refine_alpha(picture, mask, background_plate([picture], [mask], samples=1)))
    if _at_landmarks(alpha, landmarks).mean() < SEPARATED:
        raise TrackError("the person cannot be told from what is behind; give a picture before a plain background")
    tell("fitting", 0.5)

    def moves(vertices: Float64) -> Float64:
        return aligned(model, embedding, vertices, camera, landmarks)

    def moves_with_outline(vertices: Float64) -> Float64:
        pairs = outline_pairs(model, vertices, camera, alpha, labels)
        return aligned(model, embedding, vertices, camera, landmarks, pairs)

    rig, straight, rest = _resting(model, found.rig(model), params, camera, landmarks, moves)
    labels = region_labels(rig, rest, camera, alpha, picture, embedding.lips())
    rig, straight, rest = _resting(model, found.rig(model), params, camera, landmarks, moves_with_outline)
    labels = region_labels(rig, rest, camera, alpha, picture, embedding.lips())
    warnings = (*_remarks(observations), *_turned(found.params), *_cut_off(alpha))
    return Subject(
        picture, alpha, labels, room(picture, alpha, labels), model, rig, straight, rest, camera, landmarks, warnings
    )


def _at_landmarks(alpha: UInt8, landmarks: Float32) -> NDArray[np.bool_]:
    """Which landmarks of the face [468] lie on the person."""
    height, width = alpha.shape
    x, y = np.clip(landmarks[:468, :2], 0, (width - 1, height - 1)).astype(np.int64).T
    return np.asarray(alpha[y, x] >= 128)


def _solid(alpha: UInt8) -> UInt8:
    """Alpha without windows: far from the outline a person is opaque."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(np.pad(alpha >= FAINT, 1, mode="edge"))[1:-1, 1:-1]
    return np.where(inside > WINDOWS * max(alpha.shape), np.uint8(255), alpha)


def room(picture: UInt8, alpha: UInt8, labels: UInt8) -> UInt8:
    """The photograph with what is around the person in place of the person [H, W, 3].

    Close up to shoulders, which stay; a little farther from the head, which moves, and may not leave its outline.
    """
    from scipy import ndimage

    reach = max(2, round(OUTLINE * max(alpha.shape)))
    head = np.where(labels_everywhere(labels) == TORSO, 0, alpha)
    person = (ndimage.maximum_filter(head, 2 * reach + 1) > FAINT) | (ndimage.maximum_filter(alpha, 3) > HAZE)
    return fill(picture, ~person)


def labels_everywhere(labels: UInt8) -> UInt8:
    """Labels, beyond the outline those of the nearest pixel of the person."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(labels == BACKGROUND, return_distances=False, return_indices=True)
    return np.asarray(labels[nearest[0], nearest[1]])


def _remarks(observations: Observations) -> list[str]:
    """What was said of a clip of one frame, as of a picture."""
    faces = int(observations.faces[0])
    said = [line for line in observations.warnings if "faces are in the picture" not in line]
    for words, instead in (("film at a higher resolution", "give a larger picture"), (" in 1 frames", "")):
        said = [line.replace(words, instead) for line in said]
    if faces > 1:
        said.append(f"{faces} faces are in the picture: the largest and most central is taken")
    return said


def _cut_off(alpha: UInt8) -> list[str]:
    if not (alpha[0] >= 128).any():
        return []
    return ["the picture cuts off the top of the head: the cut shows when the head nods"]


def _turned(params: FlameParams) -> list[str]:
    yaw = float(np.degrees(params.rotation[0, 1]))
    if abs(yaw) < TURNED:
        return []
    return [f"the head is turned by {abs(yaw):.0f} degrees: its far side is made up from the near one"]


def _resting(
    model: FlameModel,
    rig: Rig,
    params: FlameParams,
    camera: Camera,
    landmarks: Float32,
    moves: Callable[[Float64], Float64],
) -> tuple[Rig, Rig, FlameParams]:
    """The rig at rest, the same with eyes straight ahead, and what leads from rest to the photograph.

    What the face does in the photograph is its rest, for drivers add their motion to that: brows, lids, gaze, a smile.
    Parted lips alone are closed, for a mouth that cannot close cannot speak.
    """
    expression = params.expression[0].astype(np.float64)
    posed = FlameParams.neutral().replace(expression=params.expression, jaw=params.jaw, eyelids=params.eyelids)
    move = np.zeros_like(rig.template, np.float64)
    for _ in range(2):  # jaw and skinning turn the field a little
        vertices = skin(rig, posed)[0].astype(np.float64)
        further = moves(vertices)
        move += further
        rig = replace(rig, template=(rig.template + further).astype(np.float32))
    rig = _seated(model, rig, move, posed)
    closing = _closing(rig, expression, params)
    rest = expression + closing
    lids = params.eyelids[0].astype(np.float32)
    template = (
        rig.template + rig.expression_basis.astype(np.float64) @ rest + rig.eyelid_basis.astype(np.float64) @ lids
    ).astype(np.float32)
    straight = replace(
        rig,
        template=template,
        joint_rest=(rig.joint_rest + rig.joint_expression @ rest).astype(np.float32),
    )
    straight = replace(straight, eyelid_basis=_closing_lids(model, straight))
    straight = replace(straight, face_frames=face_frames(template, model.faces, model.uv, model.uv_faces))
    back = FlameParams.neutral().replace(expression=-closing[None], jaw=params.jaw)
    gaze = _gaze(model, straight, back, camera, landmarks)
    looking = skin(straight, FlameParams.neutral().replace(eyes=gaze))[0]
    turned = replace(straight, template=looking)
    turned = replace(turned, face_frames=face_frames(looking, model.faces, model.uv, model.uv_faces))
    return turned, straight, back


def _seated(model: FlameModel, rig: Rig, move: Float64, posed: FlameParams) -> Rig:
    """The rig after its vertices were moved [V, 3], with eyeballs as far behind their lids as in the model."""
    vertices = skin(rig, posed)[0].astype(np.float64)
    template, joints = rig.template.copy(), rig.joint_rest.copy()
    for joint, side in ((3, "left"), (4, "right")):
        ball = model.regions[f"{side}_eyeball"]
        wanted = _lid_room(model, model.template.astype(np.float64), side) + LIDS_THICK
        back = (_lid_room(model, vertices, side) - wanted) / LIDS_FACING
        template[ball, 2] += np.float32(back)
        joints[joint] += (move[ball].mean(0) + np.array([0, 0, back])).astype(np.float32)
    return replace(rig, template=template, joint_rest=joints)


def _lid_room(model: FlameModel, vertices: Float64, side: str) -> float:
    """How far the lids' rims lie before the eyeball at least, metres; corners do not count."""
    ball = vertices[model.regions[f"{side}_eyeball"]]
    centre, radius = fit_sphere(ball[ball[:, 2] < ball[:, 2].max() - 0.004])
    rims = [landmark_points(model, vertices, f"eyelid_{lid}_{side}")[3:-3] for lid in ("upper", "lower")]
    return float(np.linalg.norm(np.concatenate(rims) - centre, axis=1).min() - radius)


def _closing_lids(model: FlameModel, rig: Rig) -> NDArray[np.float16]:
    """The eyelid basis [V, 3, 2] scaled so that 1 closes these lids, which need not be as far open as the model's."""
    basis = rig.eyelid_basis.astype(np.float64)
    for column, side in enumerate(("left", "right")):
        gaps = []
        for vertices in (rig.template.astype(np.float64), rig.template + basis[..., column]):
            upper, lower = (
                landmark_points(model, vertices, f"eyelid_{lid}_{side}")[4:-4] for lid in ("upper", "lower")
            )
            gaps.append(float((upper - lower)[:, 1].mean()))
        basis[..., column] *= np.clip(gaps[0] / max(gaps[0] - gaps[1], 1e-4), 0.0, 1.5)
    return basis.astype(np.float16)


def _closing(rig: Rig, expression: Float64, params: FlameParams) -> Float64:
    """What to add to an expression so that the lips meet with the jaw at rest: what moves the other skin least."""
    still = FlameParams.neutral().replace(expression=params.expression, jaw=params.jaw)
    if lip_gap(rig, skin(rig, still)).max() < LIPS_PARTED:
        return np.zeros(100)
    basis = rig.expression_basis.astype(np.float64)
    upper, lower = rig.landmarks["inner_lips_upper"], rig.landmarks["inner_lips_lower"]
    flat = np.moveaxis(basis, 2, 0)  # [100, V, 3]
    apart = on_surface(flat, rig.faces, upper) - on_surface(flat, rig.faces, lower)  # [100, L, 3]
    shaped = rig.template.astype(np.float64) + basis @ expression
    gap = on_surface(shaped, rig.faces, upper) - on_surface(shaped, rig.faces, lower)
    # Lips that overlap by a hair at rest are closed; forwards they may differ.
    weight = _GAP_WEIGHT * np.array([0.3, 1.0, 0.3])
    rows = (apart * weight).reshape(100, -1).T
    wanted = -((gap + np.array([0, 2e-4, 0])) * weight).reshape(-1)
    used = np.linalg.norm(rows, axis=0) > 0
    solution = np.zeros(100)
    system = rows[:, used]
    elsewhere = np.delete(basis, face_regions(rig)["mouth"], 0).reshape(-1, 100)[:, used]
    still_there = elsewhere.T @ elsewhere / (len(elsewhere) * STILL**2)
    solution[used] = np.linalg.solve(
        system.T @ system + _LEAST * np.eye(int(used.sum())) + still_there, system.T @ wanted
    )
    return solution


def _gaze(model: FlameModel, rig: Rig, pose: FlameParams, camera: Camera, landmarks: Float32) -> Float32:
    """Rotations of the eyes [1, 6] that put the irises where the picture shows them."""
    vertices = skin(rig, pose)[0].astype(np.float64)
    pose_matrix = camera.world_to_camera.astype(np.float64)
    eye = -pose_matrix[:3, :3].T @ pose_matrix[:3, 3]
    result = np.zeros((1, 6), np.float32)
    for slot, (side, iris) in enumerate((("left", IRISES[1]), ("right", IRISES[0]))):
        ball = vertices[model.regions[f"{side}_eyeball"]]
        centre, radius = fit_sphere(ball[ball[:, 2] < ball[:, 2].max() - 0.004])
        pixel = landmarks[iris[0], :2].astype(np.float64)
        ray = np.linalg.inv(camera.intrinsics.astype(np.float64)) @ [*pixel, 1.0]
        ray = pose_matrix[:3, :3].T @ ray
        ray /= np.linalg.norm(ray)
        along = (centre - eye) @ ray
        beside = eye + along * ray - centre
        distance = min(float(np.linalg.norm(beside)), 0.6 * radius)
        beside *= distance / max(float(np.linalg.norm(beside)), 1e-9)
        direction = (beside - np.sqrt(radius**2 - distance**2) * ray) / radius
        yaw, pitch = np.arctan2(direction[0], direction[2]), -np.arcsin(np.clip(direction[1], -1, 1))
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        result[0, 3 * slot : 3 * slot + 3] = matrix_axis_angles(turn[None])[0]
    return result
