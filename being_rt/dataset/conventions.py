"""Does the head lie where the masks are, and if not: which of the usual mistakes would put it there?

Cameras go wrong in few ways: axes of another program, a matrix that is the inverse or the transpose of what it was
taken for, a mesh at another scale, a crop that was forgotten, pictures that count from 1. Each is tried on a few
frames; the one that fits the masks clearly better than what was given is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.dataset import Dataset
from being_rt.dataset.regions import face_regions, project
from being_rt.dataset.silhouette import Bool, overlap, resized_mask, silhouette
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import skin

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

LONG_SIDE = 160  # pixels that silhouettes are compared at
COLOUR_SIDE = 320  # and colours: lips and lids must be seen
CLEARLY = 0.12  # by how much more a mistake's correction must overlap to be named
PERHAPS = 0.06  # or to be named as a possibility
SIMILAR = 0.5  # and how much at least
LAGS = range(-3, 4)
WINDOW, LEAST_WINDOW = 64, 12  # successive frames that colours are followed over
LEAST_SPREAD = 2.0  # of 255: below, nothing moves or nothing is to be seen
IN_STEP = 0.9  # part of the variation of colours that another lag must come below to be named


class View(NamedTuple):
    """One frame to compare: the head at rest in space, how FLAME moves it, its camera, the mask."""

    frame: int
    vertices: Float64  # [V, 3] with FLAME's global motion undone
    motion: Float64  # [4, 4] FLAME's global motion
    camera: Camera  # at the size of the mask
    mask: Bool


@dataclass(frozen=True)
class Mistake:
    """Something that makes a head miss its mask, and what corrects it: (camera [4, 4], motion [4, 4]) -> both."""

    text: str
    correct: Callable[[Float64, Float64], tuple[Float64, Float64]]


class Verdict(NamedTuple):
    """How well the head covers the masks as given (mean over frames), and with the best correction."""

    given: float
    best: float
    mistake: str | None  # what to say, where a correction is better
    certain: bool  # whether it is so much better that nothing else explains it


def global_motion(rig: Rig, params: FlameParams) -> Float64:
    """What FLAME's first joint and translation do to every frame: [T, 4, 4].

    Example::

        head = points @ motion[t, :3, :3].T + motion[t, :3, 3]
    """
    joint = rig.joint_rest[0] + params.expression.astype(np.float64) @ rig.joint_expression[0].astype(np.float64).T
    motion = np.tile(np.eye(4), (len(params), 1, 1))
    motion[:, :3, :3] = matrices(params.rotation)
    motion[:, :3, 3] = joint + params.translation - np.einsum("tij,tj->ti", motion[:, :3, :3], joint)
    return motion


def head_faces(rig: Rig) -> Int32:
    """Triangles of face and scalp, without the neck: a mask ends where clothes or hair are, not where the mesh does."""
    regions = face_regions(rig)
    head = np.zeros(len(rig.template), bool)
    head[regions["face"]] = True
    head[regions["scalp"]] = True
    return np.ascontiguousarray(rig.faces[head[rig.faces].all(1)])


def small_camera(camera: Camera, side: int) -> Camera:
    """The camera at a size whose longer side is ``side``."""
    scale = side / max(camera.size)
    size = (max(1, round(camera.size[0] * scale)), max(1, round(camera.size[1] * scale)))
    intrinsics = camera.intrinsics.astype(np.float64)
    intrinsics[0] *= size[0] / camera.size[0]
    intrinsics[1] *= size[1] / camera.size[1]
    return Camera(camera.world_to_camera, intrinsics.astype(np.float32), size)


def views_of(dataset: Dataset, indices: Iterable[int]) -> list[View]:
    """The frames of a data set that have a mask, as views. Raises ``DatasetError`` for a mask that is damaged."""
    found = []
    for index in map(int, indices):
        if not dataset.has_mask(index):
            continue
        params = dataset.params[int(dataset.timestep[index])]
        motion = global_motion(dataset.rig, params)[0]
        still = params.replace(rotation=np.zeros((1, 3)), translation=np.zeros((1, 3)))
        camera = small_camera(dataset.cameras[dataset.camera_index[index]], LONG_SIDE)
        vertices = skin(dataset.rig, still)[0].astype(np.float64)
        found.append(View(index, vertices, motion, camera, resized_mask(dataset.mask(index), camera.size)))
    return found


def drawn(view: View, faces: Int32, pose: Float64, motion: Float64) -> Bool:
    """The head's silhouette under a camera and a motion."""
    together = pose @ motion
    moved = view.vertices @ together[:3, :3].T + together[:3, 3]
    identity = Camera(np.eye(4, dtype=np.float32), view.camera.intrinsics, view.camera.size)
    return silhouette(project(moved, identity)[0], faces, view.camera.size)


def judge(views: list[View], rig: Rig) -> Verdict:
    """Compare the head with the masks as given and under every usual mistake's correction."""
    faces = head_faces(rig)

    def overlaps(correct: Callable[[Float64, Float64], tuple[Float64, Float64]]) -> Float64:
        given = ((view, view.camera.world_to_camera.astype(np.float64)) for view in views)
        return np.array([overlap(drawn(v, faces, *correct(pose, v.motion)), v.mask) for v, pose in given])

    as_given = overlaps(lambda pose, motion: (pose, motion))
    given, best, text = float(as_given.mean()), float(as_given.mean()), None
    for mistake in MISTAKES:
        corrected = overlaps(mistake.correct)
        # Of corrections that do nearly the same, the first, simplest one is named.
        if corrected.mean() > best + 0.02 and np.mean(corrected > as_given) >= 0.8:
            best, text = float(corrected.mean()), mistake.text
    heads = [drawn(view, faces, view.camera.world_to_camera.astype(np.float64), view.motion) for view in views]
    inverted = float(np.mean([overlap(head, ~view.mask) for head, view in zip(heads, views, strict=True)]))
    if inverted >= SIMILAR and inverted > best + CLEARLY:
        return Verdict(given, inverted, INVERTED, True)
    if text is not None and best >= SIMILAR and best > given + PERHAPS:
        return Verdict(given, best, text, best > given + CLEARLY)
    if given < SIMILAR:
        found, crop = _crop(views, heads)
        if found >= SIMILAR and found > given + CLEARLY:
            return Verdict(given, found, crop, True)
    return Verdict(given, best, None, False)


def _axes(*signs: float) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    flip = np.diag([*signs, 1.0])
    return lambda pose, motion: (flip @ pose, motion)


def _rotation_axes(*signs: float) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    flip = np.diag([*signs, 1.0])

    def correct(pose: Float64, motion: Float64) -> tuple[Float64, Float64]:
        changed = flip @ pose
        changed[:3, 3] = pose[:3, 3]
        return changed, motion

    return correct


def _transposed(pose: Float64) -> Float64:
    changed = pose.copy()
    changed[:3, :3] = pose[:3, :3].T
    return changed


def _inverse(pose: Float64) -> Float64:
    changed = np.eye(4)
    changed[:3, :3] = pose[:3, :3].T
    changed[:3, 3] = -changed[:3, :3] @ pose[:3, 3]
    return changed


def _scaled(pose: Float64, factor: float) -> Float64:
    changed = pose.copy()
    changed[:3, 3] *= factor
    return changed


def _camera(change: Callable[[Float64], Float64]) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    """A correction of the still camera."""
    return lambda pose, motion: (change(pose), motion)


def _moving(change: Callable[[Float64], Float64]) -> Callable[[Float64, Float64], tuple[Float64, Float64]]:
    """A correction of every frame's camera, where the head's motion was the camera's in the original."""
    return lambda pose, motion: (change(pose @ motion), np.eye(4))


MISTAKES = (
    Mistake(
        "the camera's axes look like OpenGL's (y up, z backwards) taken for OpenCV's (y down, z forward), or the other "
        "way round: negate rows 2 and 3 of world_to_camera",
        _axes(1, -1, -1),
    ),
    Mistake(
        "the camera's axes look like PyTorch3D's (x left, y up) taken for OpenCV's: negate rows 1 and 2 of "
        "world_to_camera",
        _axes(-1, -1, 1),
    ),
    Mistake(
        "the axes of the camera's rotation look like OpenGL's, those of its translation like OpenCV's: negate rows 2 "
        "and 3 of the rotation alone",
        _rotation_axes(1, -1, -1),
    ),
    Mistake("the camera's rotation looks transposed", _camera(_transposed)),
    Mistake("the camera's rotation looks transposed in every frame (it moves in the original)", _moving(_transposed)),
    Mistake("world_to_camera looks like camera to world: invert it", _camera(_inverse)),
    Mistake(
        "world_to_camera looks like camera to world in every frame (it moves in the original): invert it",
        _moving(_inverse),
    ),
    Mistake(
        "the camera's translation is in quarters of a metre, as IMavatar's mesh is: divide it by 4",
        _camera(lambda pose: _scaled(pose, 0.25)),
    ),
    Mistake(
        "the camera's translation is a quarter of what the size of the mesh asks for: multiply it by 4",
        _camera(lambda pose: _scaled(pose, 4)),
    ),
    Mistake(
        "the camera's translation is in quarters of a metre in every frame (it moves in the original): divide it by 4",
        _moving(lambda pose: _scaled(pose, 0.25)),
    ),
)


INVERTED = "the masks look inverted: white must be the person, black the background"


def _crop(views: list[View], covered: list[Bool]) -> tuple[float, str]:
    """Whether another scale and shift of the picture would fit: pictures that were cropped or resized after tracking.

    For every scale about the principal point the head's top is laid on the mask's, its middle on the middle of the
    mask's rows there; then the shifts must agree between frames.
    """
    best, text = 0.0, ""
    sides = np.array(views[0].camera.size, np.float64) if views else np.ones(2)
    for scale in np.geomspace(0.25, 4, 33):
        overlaps, shifts = [], []
        for view, head in zip(views, covered, strict=True):
            rows, columns = np.nonzero(head)
            if not len(rows) or not view.mask.any():
                overlaps.append(0.0)
                continue
            moved, shift = _laid_on(np.stack([columns, rows], 1) + 0.5, float(scale), view)
            overlaps.append(overlap(moved, view.mask))
            shifts.append(shift)
        found = float(np.mean(overlaps))
        steady = len(shifts) > 1 and np.abs(np.std(shifts, axis=0) / sides).max() < 0.05
        if found > best and steady:
            across, down = np.median(shifts, axis=0) / sides
            best = found
            text = (
                "the pictures look cropped or resized after they were tracked: the head fits at about "
                f"{scale:.2g} times its size, moved by {across:+.0%} of the width and {down:+.0%} of the height"
            )
    return best, text


def _laid_on(points: NDArray[Any], scale: float, view: View) -> tuple[Bool, Float64]:
    """Covered pixels [n, 2] scaled and laid on the top and the middle of a mask; the picture, and the shift."""
    centre = np.array(view.camera.size) / 2
    scaled = (points - centre) * scale + centre
    top = float(np.flatnonzero(view.mask.any(1))[0])
    height = np.ptp(scaled[:, 1])
    band = view.mask[int(top) : int(top + height) + 1]
    middle = float(np.flatnonzero(band.any(0)).mean()) + 0.5
    shift = np.array([middle - (scaled[:, 0].min() + scaled[:, 0].max()) / 2, top - scaled[:, 1].min()])
    # Every target pixel is looked up in the unscaled head, so that no holes open.
    width, rows = view.camera.size
    y, x = np.mgrid[:rows, :width] + 0.5
    source = np.stack([x, y], -1)
    source = ((source - shift - centre) / scale + centre).astype(np.intp)
    head = np.zeros((rows, width), bool)
    inside = points.astype(np.intp)
    head[inside[:, 1], inside[:, 0]] = True
    valid = ((source >= 0) & (source < [width, rows])).all(-1)
    source[~valid] = 0
    return head[source[..., 1], source[..., 0]] & valid, shift


def picture_lag(dataset: Dataset, indices: NDArray[Any]) -> tuple[int, float]:
    """By how many frames the pictures come after the tracks, and how much less the face's colours then vary.

    A point of the skin keeps its colour. Where tracks and pictures are out of step, it slides over lips, lids and brows
    whenever the head moves, and the colour that it is seen with varies more.

    Args:
        indices: frames of one camera in the order of time.

    Returns:
        The lag, and the variation with it as a part of the variation without; 0 and 1 where too little is to be seen.
    """
    window = _liveliest(dataset, indices)
    if len(window) < LEAST_WINDOW:
        return 0, 1.0
    camera = small_camera(dataset.cameras[dataset.camera_index[window[0]]], COLOUR_SIDE)
    pictures = np.stack([_grey(dataset.image(int(index)), camera.size) for index in window])
    first, last = int(dataset.timestep[window[0]]) - max(LAGS), int(dataset.timestep[window[-1]]) - min(LAGS)
    face = face_regions(dataset.rig)["face"]
    pixels, _ = project(skin(dataset.rig, dataset.params[first : last + 1])[:, face], camera)
    spread = {lag: colour_spread(pictures, pixels[max(LAGS) - lag :][: len(window)]) for lag in LAGS}
    if not np.isfinite(list(spread.values())).all() or spread[0] < LEAST_SPREAD:
        return 0, 1.0
    best = min(spread, key=lambda lag: spread[lag])
    return best, spread[best] / spread[0]


def colour_spread(pictures: Float32, pixels: Float64) -> float:
    """How much the brightness at points varies over time: standard deviation of each point, median over points.

    Args:
        pictures: [T, H, W].
        pixels: [T, n, 2] where each point is in each picture; points that leave the picture do not count.

    Returns:
        In units of the pictures; NaN where no point stays in them.
    """
    count, height, width = pictures.shape
    limit = np.array([width, height]) - 1.0
    inside = ((pixels >= 0.5) & (pixels - 0.5 < limit)).all((0, 2))
    if not inside.any():
        return float("nan")
    corner = pixels[:, inside] - 0.5
    x, y = np.moveaxis(corner.astype(np.intp), -1, 0)
    u, v = np.moveaxis(corner - np.floor(corner), -1, 0)
    t = np.arange(count)[:, None]
    above = pictures[t, y, x] * (1 - u) + pictures[t, y, x + 1] * u
    below = pictures[t, y + 1, x] * (1 - u) + pictures[t, y + 1, x + 1] * u
    return float(np.median((above * (1 - v) + below * v).std(0)))


def _liveliest(dataset: Dataset, indices: NDArray[Any]) -> NDArray[Any]:
    """Up to ``WINDOW`` frames of successive timesteps in which the head moves most, with tracks before and behind."""
    steps = dataset.timestep[indices]
    known = (steps >= max(LAGS)) & (steps < len(dataset.params) + min(LAGS))
    indices, steps = indices[known], steps[known]
    if len(indices) < LEAST_WINDOW:
        return indices[:0]
    centre = dataset.rig.joint_rest[3].astype(np.float64)
    motion = global_motion(dataset.rig, dataset.params)[steps]
    path = motion[:, :3, :3] @ centre + motion[:, :3, 3]
    speed = np.concatenate([[0], np.linalg.norm(np.diff(path, axis=0), axis=1)])
    length = min(WINDOW, len(indices))
    starts = np.arange(len(indices) - length + 1)
    unbroken = steps[starts + length - 1] - steps[starts] == length - 1
    if not unbroken.any():
        return indices[:0]
    total = np.concatenate([[0], np.cumsum(speed)])
    start = int(starts[unbroken][np.argmax((total[starts + length] - total[starts])[unbroken])])
    return indices[start : start + length]


def _grey(picture: NDArray[np.uint8], size: tuple[int, int]) -> Float32:
    from PIL import Image

    small = Image.fromarray(picture).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float32)
