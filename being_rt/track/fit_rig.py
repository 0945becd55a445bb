"""The model at its landmarks alone: where they appear in the picture, and how that changes with every parameter.

A landmark is a fixed mix of three vertices, so everything linear in FLAME (shape, expression, eyelids, pose
correctives, skinning) is mixed once, beforehand; five thousand vertices are never touched again. With the neck at rest,
FLAME (Li et al., ACM TOG 36(6), 2017, equations 1 to 5) takes vertex x to

    R (x + sum_j w_j (R_j - I) (x - J_j)) + a translation,     j = jaw, left eye, right eye,

because the weights sum to 1. Four vectors per landmark, all linear in the parameters, are therefore enough: x and
w_j (x - J_j), each already mixed over the triangle. They are stacked as 12 rows; what turns them into the landmark is
one 3 x 12 matrix per frame.

The camera is a pinhole at the origin that looks along -z, y up: the world of :func:`being_rt.track.fit.fit`. Where the
head is, is told as the picture shows it: the place (p, q, s) of the middle of the face is p and q distances between the
eyes to the right of and below the principal point, and has the scale of exp(-s) pixels per metre. In these, a longer
lens leaves the picture nearly as it is. In metres, which a single camera hardly knows, every change of the focal length
would have to be answered by every frame's translation, along a curve that linear steps leave at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.model import FlameModel
from being_rt.flame.rotations import matrices
from being_rt.track.embedding import Embedding
from being_rt.track.fit_rotations import left_jacobians

Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]

# Columns of a frame's parameters [T, 15 + E].
ROTATION, PLACE, JAW, GAZE, EYELIDS = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 13), slice(13, 15)
ALL, POSE, LINEAR = slice(None), slice(0, 6), slice(13, None)  # LINEAR: eyelids and expression
EXPRESSION = slice(15, None)
FIXED_COLUMNS = 15

_MOVING = (2, 3, 4)  # joints jaw, left eye, right eye
_ROWS = 3 * (1 + len(_MOVING))
NORMAL_RADIUS = 0.004  # metres over which the surface's direction at a landmark is averaged


@dataclass(frozen=True)
class SharedParameters:
    """What is the same in all frames: S shape coefficients, a focal length, L landmarks' biases."""

    shape: Float64  # [S]
    log_focal: float  # of pixels
    bias: Float64  # [L, 3] metres, added to the template at the landmarks


@dataclass(frozen=True)
class Projection:
    """Landmarks of t frames in the picture."""

    pixels: Float64  # [t, L, 2]
    world: Float64  # [t, L, 3] metres
    normal: Float64  # [t, L, 3] of the surface there, as the head turns it


@dataclass(frozen=True)
class Derivatives:
    """How pixels [t, L, 2] change with the parameters, each [t, L, 2, columns]."""

    frame: Float64  # with the frame's parameters [15 + E]
    shared: Float64  # with shape and the logarithm of the focal length [S + 1]
    bias: Float64  # with the landmark's own bias [3]


@dataclass(frozen=True)
class LandmarkRig:
    """A FLAME model restricted to L landmarks, S shape and E expression coefficients; float64."""

    base: Float64  # [L, 12] the four stacked vectors of the template, seen from its middle
    shape: Float64  # [L, 12, S]
    linear: Float64  # [L, 12, 2 + E] of eyelids and expression
    pose: Float64  # [L, 12, 27] of the pose feature, R_j - I of jaw and eyes, row-major
    offset: Float64  # [L, 12, 3] of a movement of the landmark in the template
    normal: Float64  # [L, 3] of the template's surface
    middle: Float64  # [3] of the template's face
    root: tuple[Float64, Float64, Float64]  # the joint that FLAME's head turns about: [3], its bases [3, S] and [3, E]
    centre: tuple[float, float]  # the principal point, pixels
    unit: float  # pixels between the eyes, about

    @classmethod
    def of(
        cls,
        model: FlameModel,
        embedding: Embedding,
        ids: Int32,
        shapes: int,
        expressions: int,
        size: tuple[int, int],
        unit: float,
    ) -> LandmarkRig:
        """Restrict a model to the landmarks ``ids`` [L] of an embedding and the first coefficients of its bases.

        Args:
            size: of the picture. unit: pixels between the eyes, in which places are measured.
        """
        corners = model.faces[embedding.face[ids]]  # [L, 3]
        mix = embedding.barycentric[ids].astype(np.float64)
        weights = model.skinning_weights.astype(np.float64)[corners]  # [L, 3, 5]
        regressor = model.joint_regressor.astype(np.float64)

        joint = {
            name: np.einsum("jv,vak->jak", regressor, basis.astype(np.float64), optimize=True)
            for name, basis in (
                ("template", model.template[:, :, None]),
                ("shape", model.shape_basis[:, :, :shapes]),
                ("expression", model.expression_basis[:, :, :expressions]),
            )
        }

        def stacked(basis: NDArray[np.float32], joints: Float64 | None = None) -> Float64:
            """Four vectors per landmark [L, 12, K] of a basis [V, 3, K] that moves the joints by [5, 3, K]."""
            at = basis[corners].astype(np.float64)  # [L, 3 corners, 3, K]
            parts = [np.einsum("lc,lcak->lak", mix, at)]
            for j in _MOVING:
                away = at if joints is None else at - joints[j]
                parts.append(np.einsum("lc,lc,lcak->lak", mix, weights[:, :, j], away, optimize=True))
            return np.ascontiguousarray(np.concatenate(parts, 1))

        offset = np.zeros((len(ids), _ROWS, 3))
        offset[:, 0:3] = np.eye(3)
        for row, j in enumerate(_MOVING):
            offset[:, _rows(row)] = (mix * weights[:, :, j]).sum(1)[:, None, None] * np.eye(3)
        points = embedding.points(model.template.astype(np.float64), model.faces)[ids]
        base = stacked(model.template[:, :, None], joint["template"])[:, :, 0]
        base[:, 0:3] -= points.mean(0)
        expression = stacked(model.expression_basis[:, :, :expressions], joint["expression"])
        return cls(
            base=base,
            shape=stacked(model.shape_basis[:, :, :shapes], joint["shape"]),
            linear=np.concatenate([stacked(model.eyelid_basis), expression], -1),
            pose=stacked(model.pose_basis[:, :, 9:]),
            offset=offset,
            normal=surface_normals(model, points),
            middle=points.mean(0),
            root=(joint["template"][0, :, 0], joint["shape"][0], joint["expression"][0]),
            centre=(size[0] / 2, size[1] / 2),
            unit=unit,
        )

    @property
    def count(self) -> int:
        return len(self.base)

    @property
    def columns(self) -> int:
        """Parameters of a frame."""
        return 13 + self.linear.shape[-1]

    @property
    def shapes(self) -> int:
        return self.shape.shape[-1]

    def points(self) -> Float64:
        """The landmarks [L, 3] on the template, seen from its middle."""
        return self.base[:, 0:3]

    def rest(self, shared: SharedParameters) -> Float64:
        """The four stacked vectors [L, 12] of this person at rest."""
        return self.base + self.shape @ shared.shape + np.einsum("lra,la->lr", self.offset, shared.bias)

    def growth(self) -> Float64:
        """By how much of its size each shape coefficient [S] makes the face larger, to first order."""
        moved = self.shape[:, 0:3]
        return np.asarray(np.einsum("la,las->s", self.points(), moved - moved.mean(0)) / np.sum(self.points() ** 2))

    def middles(self, frames: Float64, shared: SharedParameters) -> Float64:
        """Where in the world [t, 3] the template's middle lies."""
        across, down, scale = frames[:, PLACE].T
        metres = np.exp(scale)  # per pixel
        return np.stack(
            [self.unit * across * metres, -self.unit * down * metres, -np.exp(shared.log_focal) * metres], 1
        )

    def translations(self, frames: Float64, shared: SharedParameters) -> Float64:
        """FLAME's translations [t, 3]: of the joint that the head turns about, from where it is at rest."""
        joint, shape, expression = self.root
        root = joint + shape @ shared.shape + frames[:, EXPRESSION] @ expression.T
        turned = np.einsum("tab,tb->ta", matrices(frames[:, ROTATION]), root - self.middle)
        return np.asarray(self.middles(frames, shared) + turned - root)

    def project(self, frames: Float64, shared: SharedParameters) -> Projection:
        """Where landmarks appear in frames with these parameters [t, 15 + E]."""
        return self._project(frames, shared)[0]

    def linearise(self, frames: Float64, shared: SharedParameters) -> tuple[Projection, Derivatives]:
        """:meth:`project` and its derivatives."""
        projection, stacked, turned, joints = self._project(frames, shared)
        count, landmarks = len(frames), self.count
        world = projection.world
        depth = -world[..., 2]
        focal = np.exp(shared.log_focal)
        plane = world[..., :2] / depth[..., None]
        # Rows of d pixel / d world: f / z (1, 0, x / z) and f / z (0, -1, -y / z), for y points up in the world.
        camera = np.zeros((count, landmarks, 2, 3))
        camera[..., 0, 0], camera[..., 0, 2] = 1, plane[..., 0]
        camera[..., 1, 1], camera[..., 1, 2] = -1, -plane[..., 1]
        camera *= (focal / depth)[..., None, None]
        head = camera @ turned[:, None]  # d pixel / d a point of the head
        # All that moves the stacked vectors goes through one [2, 12] matrix per landmark.
        through = np.empty((count, landmarks, 2, _ROWS))
        through[..., 0:3] = head
        for row in range(len(_MOVING)):
            through[..., _rows(row)] = head @ (joints[:, row] - np.eye(3))[:, None]

        frame = np.empty((count, landmarks, 2, self.columns))
        frame[..., LINEAR] = through @ self.linear
        middle = self.middles(frames, shared)
        metres = np.exp(frames[:, PLACE.stop - 1])[:, None, None]
        frame[..., PLACE.start] = self.unit * metres * camera[..., 0]
        frame[..., PLACE.start + 1] = -self.unit * metres * camera[..., 1]
        frame[..., PLACE.start + 2] = np.einsum("tlxa,ta->tlx", camera, middle)
        around = (world - middle[:, None])[:, :, None]
        frame[..., ROTATION] = np.cross(around, camera) @ left_jacobians(frames[:, ROTATION])[:, None]
        features = through @ self.pose  # [t, L, 2, 27]
        for row, (target, vector) in enumerate(_joint_columns(frames)):
            turn = left_jacobians(vector)
            moved = np.einsum("tab,tlb->tla", joints[:, row], stacked[:, :, _rows(row)])
            gradient = np.cross(moved[:, :, None], head) @ turn[:, None]
            feature = _rotation_derivatives(joints[:, row], turn)  # [t, 9, 3]
            gradient += features[..., 9 * row : 9 * row + 9] @ feature[:, None]
            frame[..., target] = gradient[..., : target.stop - target.start]
        common = np.empty((count, landmarks, 2, self.shapes + 1))
        common[..., :-1] = through @ self.shape
        common[..., -1] = projection.pixels - self.centre + camera[..., 2] * middle[:, 2][:, None, None]
        return projection, Derivatives(frame, common, through @ self.offset)

    def _project(self, frames: Float64, shared: SharedParameters) -> tuple[Projection, Float64, Float64, Float64]:
        """Also the stacked vectors [t, L, 12], rotations of the head [t, 3, 3] and of jaw and eyes [t, 3, 3, 3]."""
        count = len(frames)
        turned = matrices(frames[:, ROTATION])
        joints = np.stack([matrices(vector) for _, vector in _joint_columns(frames)], 1)
        feature = (joints - np.eye(3)).reshape(count, 27)
        flat = self.linear.reshape(-1, self.linear.shape[-1])
        stacked = frames[:, LINEAR] @ flat.T + feature @ self.pose.reshape(-1, 27).T
        stacked = stacked.reshape(count, self.count, _ROWS) + self.rest(shared)
        head = stacked[..., 0:3].copy()
        for row in range(len(_MOVING)):
            head += stacked[..., _rows(row)] @ np.swapaxes(joints[:, row] - np.eye(3), -1, -2)
        world = head @ np.swapaxes(turned, -1, -2) + self.middles(frames, shared)[:, None]
        depth = np.maximum(-world[..., 2:], 1e-3)
        pixels = np.exp(shared.log_focal) * world[..., :2] * [1.0, -1.0] / depth + self.centre
        return Projection(pixels, world, self.normal @ np.swapaxes(turned, -1, -2)), stacked, turned, joints


def _rows(moving: int) -> slice:
    """Rows of a moving joint's vector in the stack."""
    return slice(3 + 3 * moving, 6 + 3 * moving)


def _joint_columns(frames: Float64) -> tuple[tuple[slice, Float64], ...]:
    """Columns and axis-angle vectors [t, 3] of jaw, left eye and right eye; eyes do not roll."""
    still = np.zeros((len(frames), 1))
    left, right = slice(GAZE.start, GAZE.start + 2), slice(GAZE.start + 2, GAZE.stop)
    return (
        (JAW, frames[:, JAW]),
        (left, np.concatenate([frames[:, left], still], 1)),
        (right, np.concatenate([frames[:, right], still], 1)),
    )


def _rotation_derivatives(rotation: Float64, turn: Float64) -> Float64:
    """d R / d r, row-major [t, 9, 3]: column k is [J e_k]x R."""
    columns = np.swapaxes(turn, -1, -2)  # [t, k, 3] J e_k
    change = np.cross(columns[:, :, :, None], rotation[:, None], axisa=2, axisb=2, axisc=2)  # [t, k, 3, 3]
    return np.moveaxis(change.reshape(len(rotation), 3, 9), 1, 2)


def surface_normals(model: FlameModel, points: NDArray[np.floating]) -> Float64:
    """Directions [L, 3] of the template's surface around points [L, 3], averaged over some millimetres.

    Averages of the triangles around, because the triangle itself, in the slit of the lips, may face anywhere.
    """
    corners = model.template.astype(np.float64)[model.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # twice the area long
    centre = corners.mean(1)
    result = np.empty((len(points), 3))
    for i, point in enumerate(np.asarray(points, np.float64)):
        squared = np.sum((centre - point) ** 2, 1)
        share = np.exp(-0.5 * squared / NORMAL_RADIUS**2)
        if share.sum() < 1e-6:
            share[squared.argmin()] = 1.0
        result[i] = share @ normal
    return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
