"""Which pixel of a person is skin, lips, the inside of the mouth, an eye, hair, the neck or the torso.

The fitted mesh says where face, eyes, lips and neck are. What it does not reach, or only covers, is told apart by
colour, which every frame shows for itself: skin is what the sure part of the face looks like, hair what covers the top
of the head, the torso what is far below the chin. A histogram of each decides between them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.regions import face_regions, lip_seam, project
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import on_surface, skin

UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Points = tuple[Int32, Float32]  # triangle, barycentric

LABELS = ("background", "skin", "mouth interior", "lips", "eyes", "hair", "neck", "torso")
BACKGROUND, SKIN, MOUTH_INTERIOR, LIPS, EYES, HAIR, NECK, TORSO = range(len(LABELS))
# Of the mesh alone: what it does not reach; what may be hair or skin; skin for sure; brows, which look like hair.
NOTHING, SCALP, SURE_SKIN, BROW = BACKGROUND, 8, 9, 10

SIDE = 270  # pixels of the shorter side at which colours are told apart
PERSON = 128  # of 255: alpha from which a pixel is the person's
LIP_HEIGHT = 0.13  # of the distance between the eyes, where no landmark says how high lips are
BESIDE = 0.3  # of the same: how far from the mesh skin may be that it does not reach, an ear say
FAR_BELOW = 0.8  # of the same: how far below the chin there is torso alone
AROUND = 1.3  # of the same: how far from the head there may be hair
SHOULDERS = 0.8  # of the same: how far above the chin there may be shoulders
FEWEST = 30  # pixels that a colour is learned from
SHARE = 0.02  # of the sure skin that its own histogram may not explain
CLEARLY = 3.0  # log of how much likelier a colour must make what the place speaks against


def region_labels(
    rig: Rig, params: FlameParams, camera: Camera, alpha: UInt8, frame: UInt8, lips: tuple[Points, ...] = ()
) -> UInt8:
    """Labels of all pixels of a frame, uint8 [H, W]: an index into ``LABELS``.

    Args:
        rig: the person's.
        params: T = 1, how the head was.
        camera: of the frame.
        alpha: uint8 [H, W], the person 0..255; where it is less than half there is background.
        frame: uint8 [H, W, 3].
        lips: their outer and inner edge, each once around: triangles [n] and barycentric coordinates [n, 3]. Without
            them the rig's own landmarks serve, or else geometry alone.

    Raises:
        InvalidParameterError: a wrong shape, or not one frame of motion.

    Example::

        labels = region_labels(rig, params[t], camera, alphas[t], frames[t])
        mouth = labels == LABELS.index("mouth interior")
    """
    return Labeller(rig, camera, lips).label(params, alpha, frame)


class Labeller:
    """Labels the frames of one person and camera; arguments as of :func:`region_labels`."""

    def __init__(self, rig: Rig, camera: Camera, lips: tuple[Points, ...] = ()) -> None:
        self._rig, self._camera = rig, camera
        self._rings = lips or _lip_rings(rig)
        regions = face_regions(rig)
        self._classes = _face_classes(rig, regions, bool(self._rings))
        face = rig.template[regions["face"]]
        self._chin = int(regions["face"][face[:, 1].argmin()])
        self._eyes = [int(np.argmax(rig.skinning_weights[:, joint])) for joint in (3, 4)]

    def label(self, params: FlameParams, alpha: UInt8, frame: UInt8) -> UInt8:
        """Labels of a frame, uint8 [H, W]."""
        width, height = self._camera.size
        if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
            raise InvalidParameterError(f"a frame must be uint8 [{height}, {width}, 3], as its camera's")
        if alpha.dtype != np.uint8 or alpha.shape != (height, width):
            raise InvalidParameterError(f"alpha must be uint8 [{height}, {width}], as the frame")
        if len(params) != 1:
            raise InvalidParameterError(f"labels are of one frame, got {len(params)} rows of motion")
        vertices = skin(self._rig, params)[0]
        pixels, depth = project(vertices, self._camera)
        person = alpha >= PERSON
        mesh = _drawn(pixels, depth, self._rig.faces, self._classes, (width, height))
        self._draw_lips(mesh, vertices)
        scale = max(1, round(min(width, height) / SIDE))
        middle = scale // 2
        # A cell is judged by its middle pixel; one that its border cuts off, by its first.
        margin = [(0, middle), (0, middle)]
        small_mesh = np.pad(mesh, margin, mode="edge")[middle::scale, middle::scale]
        small_person = np.pad(person, margin, mode="edge")[middle::scale, middle::scale]
        eyes, chin = pixels[self._eyes].mean(0) / scale, pixels[self._chin] / scale
        told = _told_by_colour(_reduced(frame, scale), small_mesh, small_person, eyes, chin)
        labels = np.repeat(np.repeat(told, scale, 0), scale, 1)[:height, :width]
        exact = (mesh == EYES) | (mesh == LIPS) | (mesh == MOUTH_INTERIOR)
        labels = np.where(exact, mesh, labels)
        return np.where(person, labels, BACKGROUND).astype(np.uint8)

    def _draw_lips(self, mesh: UInt8, vertices: Float32) -> None:
        """Lips and what is between them, where landmarks say it, over the mesh's face."""
        for ring, label in zip(self._rings, (LIPS, MOUTH_INTERIOR), strict=False):
            inside = _polygon(project(on_surface(vertices, self._rig.faces, ring), self._camera)[0], mesh.shape)
            mesh[inside & (mesh != NOTHING) & (mesh != EYES) & (mesh != NECK)] = label


def _lip_rings(rig: Rig) -> tuple[Points, ...]:
    """The outer and the inner edge of the lips, each once around; nothing where no landmarks say it."""
    if "dlib68" in rig.landmarks:
        face, barycentric = rig.landmarks["dlib68"]
        outer, inner = ((face[part], barycentric[part]) for part in (slice(48, 60), slice(60, 68)))
        if {"inner_lips_upper", "inner_lips_lower"} <= set(rig.landmarks):
            upper, lower = rig.landmarks["inner_lips_upper"], rig.landmarks["inner_lips_lower"]
            inner = np.concatenate([upper[0], lower[0][::-1]]), np.concatenate([upper[1], lower[1][::-1]])
        return outer, inner
    return ()


def _face_classes(rig: Rig, regions: dict[str, Int32], landmarks: bool) -> UInt8:
    """What each triangle [F] shows."""
    vertices, weights = rig.template.astype(np.float64), rig.skinning_weights
    eyes = [vertices[weights[:, joint] > 0.5].mean(0) for joint in (3, 4)]
    unit = float(np.linalg.norm(eyes[0] - eyes[1]))
    relative = (vertices - (eyes[0] + eyes[1]) / 2) / unit
    classes = np.full(len(vertices), SKIN, np.uint8)
    # The front of the face without brows, ears and hairline: there is hardly ever anything but skin.
    middle = (np.abs(relative[:, 0]) < 0.85) & (relative[:, 1] < 0.1)
    classes[regions["face"][_in_brows(relative[regions["face"]])]] = BROW
    middle[np.concatenate([regions[name] for name in ("mouth", "left_eye", "right_eye")])] = False
    classes[middle] = SURE_SKIN
    classes[regions["scalp"]] = SCALP
    classes[regions["neck"]] = NECK
    if not landmarks:
        seam = (lip_seam(rig) - (eyes[0] + eyes[1]) / 2) / unit
        mouth = regions["mouth"]
        nearest = np.abs(relative[mouth, None, 0] - seam[None, :, 0]).argmin(1)
        within = np.abs(relative[mouth, 0]) < np.abs(seam[:, 0]).max() + 0.03
        classes[mouth[within & (np.abs(relative[mouth, 1] - seam[nearest, 1]) < LIP_HEIGHT)]] = LIPS
    classes[weights[:, 3:5].max(1) > 0.5] = EYES
    corners = np.sort(classes[rig.faces], axis=1)
    result: UInt8 = corners[:, 1]  # two decide; where all differ, the one in the middle
    if not landmarks:
        in_mouth = np.zeros(len(vertices), bool)
        in_mouth[regions["mouth"]] = True
        result[_hidden(relative, rig.faces) & in_mouth[rig.faces].any(1) & (result != EYES)] = MOUTH_INTERIOR
    return result


def _in_brows(relative: Float64) -> Bool:
    """Which of some points of the face, in distances between the eyes from their middle, are brows or beside them."""
    return (np.abs(relative[:, 0]) < 1.0) & (relative[:, 1] > 0.1) & (relative[:, 1] < 0.55)


def _hidden(vertices: Float64, faces: Int32) -> Bool:
    """Triangles [F] of a resting head that are seen from nowhere before it: they lie behind closed lips and lids."""
    seen = np.zeros(len(faces) + 1, bool)
    for turn in ((0.0, 0.0), (0.0, 0.7), (0.0, -0.7), (0.5, 0.0), (-0.5, 0.0)):  # up and down, sideways
        turned = vertices @ matrices(np.array([turn[0], turn[1], 0.0])).T
        low, high = turned.min(0), turned.max(0)
        side = 400
        pixels = (turned[:, :2] - low[:2]) / (high - low)[:2].max() * side
        pixels[:, 1] = side - pixels[:, 1]
        seen[_painted(pixels, -turned[:, 2], faces, np.arange(1, len(faces) + 1), (side, side), "I")] = True
    return ~seen[1:]


def _drawn(pixels: Float64, depth: Float64, faces: Int32, classes: UInt8, size: tuple[int, int]) -> UInt8:
    """What the nearest triangle of the mesh shows at each pixel [H, W]; holes in the middle of it are the mouth's."""
    from scipy import ndimage

    mesh = _painted(pixels, depth, faces, classes, size, "L").astype(np.uint8)
    rows, columns = np.flatnonzero(mesh.any(1)), np.flatnonzero(mesh.any(0))
    if rows.size:
        box = mesh[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        box[ndimage.binary_fill_holes(box > 0) & (box == NOTHING)] = MOUTH_INTERIOR
    return mesh


def _painted(
    pixels: Float64, depth: Float64, faces: Int32, values: NDArray[np.integer], size: tuple[int, int], mode: str
) -> NDArray[np.integer]:
    """The value of the nearest triangle at each pixel [H, W], 0 where there is none, by the painter's algorithm.

    Triangles that face away, or have a corner that is NaN (behind the camera), are left out. ``mode``: Pillow's.
    """
    from PIL import Image, ImageDraw

    corners = pixels[faces]
    edges = corners[:, 1:] - corners[:, :1]
    turn = edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]
    low, high = corners.min(1), corners.max(1)
    with np.errstate(invalid="ignore"):
        seen = (turn < 0) & (high > 0).all(1) & (low < np.array(size)).all(1) & (high - low < max(size)).all(1)
    order = np.flatnonzero(seen)
    order = order[np.argsort(-depth[faces[order]].mean(1), kind="stable")]
    canvas = Image.new(mode, size)
    draw = ImageDraw.Draw(canvas)
    for triangle, value in zip((corners[order] - 0.5).reshape(-1, 6).tolist(), values[order].tolist(), strict=True):
        draw.polygon(triangle, fill=value)
    return np.asarray(canvas)


def _polygon(points: Float64, shape: tuple[int, ...]) -> Bool:
    """Pixels [H, W] inside of a closed line of points [n, 2]; none where one is behind the camera."""
    from PIL import Image, ImageDraw

    canvas = Image.new("1", (shape[1], shape[0]))
    if np.isfinite(points).all() and np.abs(points).max() < 1e5:
        ImageDraw.Draw(canvas).polygon((points - 0.5).reshape(-1).tolist(), fill=1)
    return np.asarray(canvas)


def _reduced(frame: UInt8, scale: int) -> Float32:
    from PIL import Image

    return np.asarray(Image.fromarray(frame).reduce(scale) if scale > 1 else frame, np.float32)


class _Colours:
    """How common the colours of a region are: a smooth histogram of brightness and two tints."""

    BINS = (20, 32, 32)

    def __init__(self, bins: Int32, where: Bool) -> None:
        from scipy import ndimage

        self.known = int(np.count_nonzero(where)) >= FEWEST
        counts = np.bincount(bins[where], minlength=int(np.prod(self.BINS))).astype(np.float64)
        smooth = ndimage.gaussian_filter(counts.reshape(self.BINS), (1.5, 1.0, 1.0), mode="nearest").reshape(-1)
        share = smooth / max(smooth.sum(), 1e-9)
        # One pixel in a thousand has any colour whatever.
        self.score = np.log(0.999 * share + 0.001 / share.size)

    @classmethod
    def bins(cls, picture: Float32) -> Int32:
        """The bin [h, w] of each pixel. Tints are relative to brightness, so that shade changes them little."""
        red, green, blue = np.moveaxis(picture, -1, 0)
        grey = (red + green + blue) / 3
        brightness = np.log((grey + 16) / 16) / np.log(271 / 16)
        tints = [(channel - green) / (grey + 24) / 2.4 + 0.5 for channel in (red, blue)]
        places = [
            np.clip(value * count, 0, count - 1).astype(np.int32)
            for value, count in zip((brightness, *tints), cls.BINS, strict=True)
        ]
        return (places[0] * cls.BINS[1] + places[1]) * cls.BINS[2] + places[2]


class _Scores(NamedTuple):
    """Log likelihoods [h, w] of a frame's colours, averaged over a few pixels."""

    skin: Float64
    hair: Float64
    torso: Float64


def _told_by_colour(frame: Float32, mesh: UInt8, person: Bool, eyes: Float64, chin: Float64) -> UInt8:
    """Skin, hair, neck and torso of the person's pixels [h, w], at the small size.

    Args:
        frame: [h, w, 3].
        mesh: what the mesh shows there.
        eyes, chin: (x, y) of the middle between the eyes and of the chin, which say how the head is turned.
    """
    from scipy import ndimage

    if not np.isfinite([*eyes, *chin]).all() or not (mesh[person] != NOTHING).any():
        return np.where(person, TORSO, BACKGROUND).astype(np.uint8)
    y, x = np.mgrid[: mesh.shape[0], : mesh.shape[1]] + 0.5
    length = max(float(np.linalg.norm(chin - eyes)), 1.0)
    down = (chin - eyes) / length
    unit = length / 1.9  # chin and eyes are nearly two distances between the eyes apart
    below = (x - chin[0]) * down[0] + (y - chin[1]) * down[1]  # of the chin, along the head
    near = ndimage.distance_transform_edt((mesh == NOTHING) | (mesh == NECK)) < AROUND * unit  # the head
    outside = person & (mesh == NOTHING)
    skin_like, hair_like, scores = _scores(frame, mesh, person, outside, below, unit)
    is_hair = scores.hair > scores.skin
    far = ndimage.distance_transform_edt((mesh == NOTHING) | (mesh == SCALP))

    labels = np.where(person, TORSO, BACKGROUND)
    on_face = person & (mesh != NOTHING) & (mesh != NECK)
    above = outside & (below < 0) & near
    skin_beside = above & skin_like & ~is_hair & (far < BESIDE * unit)
    # Where shoulders may be, the likelier decides; where they hardly can be, it must be clear.
    needed = np.where(below > -SHOULDERS * unit, 0.5, CLEARLY)
    shoulder = above & (scores.torso > np.maximum(scores.hair, scores.skin) + needed)
    hair = (above & ~skin_beside & ~shoulder) | (person & (mesh == SCALP) & (is_hair | ~skin_like))
    # Fringes and what falls over ears; long hair below the chin: only where it hangs together with the rest.
    fringe = (mesh == SKIN) & person & hair_like & (scores.hair > scores.skin + CLEARLY / 3)
    low = person & (outside | (mesh == NECK)) & (below >= 0) & (near | (scores.hair > scores.torso + CLEARLY / 3))
    long = ndimage.binary_opening(low & is_hair & hair_like & (scores.hair > scores.torso), iterations=2)
    hair = _connected(hair | fringe | long, hair)
    labels[on_face | skin_beside] = SKIN
    bare = skin_like & (scores.skin > scores.torso)
    neck = person & (mesh == NECK) & bare
    labels[_connected(neck | (outside & (below >= 0) & bare & (far < BESIDE * unit)), neck)] = NECK
    labels[hair] = HAIR
    return _majority(labels, person)


def _majority(labels: NDArray[np.int64], person: Bool) -> UInt8:
    """Each pixel's most common label among the person's pixels around it: single ones come of noise."""
    from scipy import ndimage

    kinds = np.array([SKIN, HAIR, NECK, TORSO])
    votes = [ndimage.uniform_filter((labels == kind).astype(np.float32), 5) for kind in kinds]
    return np.where(person, kinds[np.argmax(votes, axis=0)], BACKGROUND).astype(np.uint8)


def _scores(
    frame: Float32, mesh: UInt8, person: Bool, outside: Bool, below: Float64, unit: float
) -> tuple[Bool, Bool, _Scores]:
    """Where the colour is one of the skin's and one of the hair's, and how likely it is in each region."""
    from scipy import ndimage

    bins = _Colours.bins(frame)
    inner = ndimage.binary_erosion(person, iterations=2)

    def learned(where: Bool) -> tuple[_Colours, Float64, Bool]:
        """Colours of a region, their scores everywhere, and where these are as high as nearly everywhere in it."""
        colours = _Colours(bins, where)
        likely = colours.score[bins] if colours.known else np.full(bins.shape, -100.0)
        averaged = ndimage.uniform_filter(likely, 3)
        usual = float(np.quantile(likely[where], SHARE)) if colours.known else np.inf
        return colours, averaged, averaged > usual

    face = inner & (mesh == SURE_SKIN)
    _, skin_score, skin_like = learned(ndimage.binary_erosion(face) if face.sum() > 8 * FEWEST else face)
    top = inner & ((mesh == SCALP) | (outside & (below < -unit))) & ~skin_like
    hair_colours, hair_score, hair_like = learned(top)
    reach = float(below[inner & outside].max(initial=0.0))
    low = inner & outside & (below > min(FAR_BELOW * unit, 0.4 * reach))
    if hair_colours.known:  # long hair falls over it
        own = hair_colours.score[bins]
        like = person & (outside | (mesh == SCALP) | (mesh == NECK)) & (own > np.quantile(own[top], 0.1))
        like = ndimage.binary_opening(like, iterations=2)  # without the rim where a person melts into what is behind
        without = low & ~_connected(like, like & top)
        low = without if without.sum() > 0.3 * low.sum() else low
    return skin_like, hair_like, _Scores(skin_score, hair_score, learned(low)[1])


def _connected(candidates: Bool, seeds: Bool) -> Bool:
    """Those connected parts [h, w] of candidates that have a seed in them."""
    from scipy import ndimage

    parts, count = ndimage.label(candidates, np.ones((3, 3)))
    wanted = np.zeros(count + 1, bool)
    wanted[parts[seeds & candidates]] = True
    wanted[0] = False
    kept: Bool = wanted[parts]
    return kept
