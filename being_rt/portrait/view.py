"""What the photograph shows of the head: which pixels are skin on the mesh, hair, the mouth, eyes or the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.dataset.labels import HAIR, NECK, SKIN
from being_rt.dataset.regions import project
from being_rt.flame.params import FlameParams
from being_rt.flame.skinning import skin as skinned
from being_rt.portrait.splats import Bool, Float64, Splats
from being_rt.portrait.subject import Subject, labels_everywhere

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]

LEAST = 30  # of 255: alpha from which a pixel is laid
OUTLINE = 0.0025  # of the picture's longer side: how far inside of the outline colours may still be the room's
SHARP, SMOOTH = 0.5, 0.75  # deviations of the Gaussians of single pixels and of flat cells, of their sides
STEEPEST = 0.15  # cosine to the view up to which a surface's Gaussians are as long as their pixels' footprints
FOLDED = 2.2  # times its area to which a blink unfolds a triangle that is not laid pixel by pixel
_STEEP = 0.34  # cosine to the view below which skin is not laid pixel by pixel
_STEP, _WINDOW = 0.012, 5  # metres of depth within so many pixels that are the edge of the jaw
_BLINK = 0.0012  # metres by which a blink moves what is not laid pixel by pixel beside an eye
_BODY = 0.5  # share of the global joint in a triangle's motion from which it is the body's
_COVERED = 0.4  # share of an ear that is hair where hair covers it
_SPECK = 0.03  # of the largest part of the hair: less is none
# Lengths of the distance between the eyes:
_CLOSING = 0.22  # gaps in hair that labels leave
_RIM = 0.08  # half the width of hair that is a volume
_THIN = 0.05  # a body that is thinner is none
_BESIDE, _NECK = 0.15, 0.3  # how far from the mesh its skin may go on
_UPRIGHT = 0.04  # how far inside of the outline all skin is laid pixel by pixel
_LASHES = 0.05  # how far from an open eye its lashes reach
NOT_SKIN = ("left_eyeball", "right_eyeball", "teeth_upper", "teeth_lower", "mouth_interior", "tongue")
MOUTH = ("teeth_upper", "teeth_lower", "mouth_interior", "tongue")


@dataclass(frozen=True)
class View:
    """Masks [H, W] of the photograph, which share the person's pixels between them, and the mesh under each pixel."""

    subject: Subject
    vertices: Float64  # [V, 3] in the photograph
    face: Int32  # [H, W] triangle under the pixel, or -1
    barycentric: NDArray[np.float32]  # [H, W, 3]
    depth: Float64  # [H, W] metres, of the mesh; infinite where there is none
    colours: UInt8  # [H, W, 3] the photograph, beyond the person's edge the person's colours
    skin: Bool
    mouth: Bool
    eyes: Bool
    hair: Bool
    body: Bool
    beside: Bool  # skin that lies beside the mesh, with the nearest triangle for its own
    torn: Bool  # skin so steep, so folded, or so near the edge of the jaw, that a pixel aside is another place
    blinking: Bool  # skin beside an open eye that a blink unfolds: lashes and the lid's crease
    covered_ears: Bool  # [F] triangles of ears under hair
    stretch: Float64  # [F] times their area that triangles have when the eyes are shut

    @property
    def with_alpha(self) -> UInt8:
        """The colours and alpha [H, W, 4]."""
        return np.dstack([self.colours, self.subject.alpha])

    @property
    def camera(self) -> Camera:
        return self.subject.camera


def view_of(subject: Subject) -> View:
    """Decide for every pixel of the person what it shows."""
    from scipy import ndimage

    rig, alpha = subject.rig, subject.alpha
    vertices = subject.vertices
    labels = labels_everywhere(subject.labels)
    covered_ears = _covered_ears(subject, vertices, labels)
    seen = subject.seen(vertices, without=covered_ears)
    face, barycentric = seen.face.copy(), seen.barycentric.copy()
    mesh_depth = project(vertices, subject.camera)[1]
    depth = np.einsum("hwk,hwk->hw", barycentric, mesh_depth[rig.faces[face]])
    depth = np.where(face >= 0, depth, np.inf)

    weight = rig.skinning_weights[:, 0][rig.faces].mean(1)
    on_head = (face >= 0) & (weight[face] < _BODY)
    person = alpha >= LEAST

    def of(names: tuple[str, ...]) -> Bool:
        return np.asarray((face >= 0) & faces_of(subject, names)[face])

    eyes, mouth = of(("left_eyeball", "right_eyeball")) & person, of(MOUTH) & person
    unit = float(np.linalg.norm(subject.landmarks[468, :2] - subject.landmarks[473, :2]))
    hair = person & (labels == HAIR) & ~eyes & ~mouth
    size = max(1, round(_CLOSING * unit))
    thin = max(1, round(_RIM * unit))
    disc = np.hypot(*np.mgrid[-size : size + 1, -size : size + 1]) <= size
    padded = np.pad(hair, size)
    closed = ndimage.binary_erosion(ndimage.binary_dilation(padded, disc), disc)[size:-size, size:-size]
    hair |= closed & of(("scalp",)) & person & ~eyes & ~mouth
    hair = _large_parts(hair)
    # A rim of hair around the mesh is too thin for a volume of its own: it goes on from the mesh as skin does.
    beyond = hair & (face < 0)
    rim = (
        beyond
        & ~ndimage.binary_dilation(
            ndimage.binary_erosion(np.pad(beyond, thin, mode="edge"), iterations=thin), iterations=thin + 1
        )[thin:-thin, thin:-thin]
    )
    hair &= ~rim
    skin = person & on_head & ~hair & ~eyes & ~mouth
    # Skin that the mesh does not reach goes on from its border: cheeks and lobes a little, necks more.
    beside = np.zeros_like(skin)
    on_scalp = person & on_head & ~eyes & ~mouth
    free = person & ~on_head & ~hair & ~rim
    lost = free & ~_main_part(free, max(1, round(_THIN * unit)))
    free &= (labels == SKIN) | (labels == NECK) | lost
    on_neck = skin & of(("neck",))
    for border, reach, which in ((on_scalp, np.inf, rim), (on_neck, _NECK, free), (skin & ~on_neck, _BESIDE, free)):
        away, nearest = ndimage.distance_transform_edt(~border, return_indices=True)
        added = which & ~beside & ((away < reach * unit) | lost) & border.any()
        rows, columns = nearest[0][added], nearest[1][added]
        face[added], barycentric[added] = face[rows, columns], barycentric[rows, columns]
        depth[added] = depth[rows, columns]
        beside |= added
    stretch = _stretch(subject)
    # A skull that is larger than the mesh's: rounded off as hair is.
    hair |= free & ~beside & (labels == SKIN) & _above_lobes(subject, vertices)
    away_from_eyes = ndimage.distance_transform_edt(~eyes) if eyes.any() else np.inf
    lids = (_lid_motion(subject) > _BLINK) | (stretch > FOLDED)
    blinking = skin & lids[face] & (away_from_eyes < 2 * lash_width(subject))
    edge_of_jaw = _folds(depth, of(("face",)), of(("neck",)))
    torn = skin & ~blinking & ((_steep(subject, vertices) | (stretch > FOLDED))[face] | edge_of_jaw)
    # Along the outline it is, for the skin beneath ends before: upright, as if it lay beside the mesh.
    upright = torn & (outline_distance(alpha) < _UPRIGHT * unit + 1)
    torn &= ~upright
    beside |= upright
    skin |= beside
    body = person & ~skin & ~hair & ~eyes & ~mouth
    return View(
        subject, vertices, face, barycentric, depth, _foreground(subject.picture, alpha),
        skin, mouth, eyes, hair, body, beside, torn, blinking, covered_ears, stretch,
    )  # fmt: skip


def _above_lobes(subject: Subject, vertices: Float64) -> Bool:
    """Rows [H, 1] that are not lower than the ears."""
    pixel, _ = project(vertices[subject.model.regions["ears"]], subject.camera)
    return np.asarray(np.arange(subject.alpha.shape[0])[:, None] < np.nanquantile(pixel[:, 1], 0.98))


def _main_part(mask: Bool, thin: int) -> Bool:
    """What hangs together with the largest part of a mask [H, W] by more than ``thin`` pixels."""
    from scipy import ndimage

    padded = np.pad(mask, thin + 1, mode="edge")
    core = ndimage.binary_erosion(padded, iterations=thin)
    parts, count = ndimage.label(core, np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    main = ndimage.binary_dilation(parts == sizes.argmax(), np.ones((3, 3)), iterations=thin + 1)
    return np.asarray(mask & main[thin + 1 : -thin - 1, thin + 1 : -thin - 1])


def _lid_motion(subject: Subject) -> Float64:
    """How far a blink moves each triangle [F], metres."""
    rig = subject.rig
    basis = np.linalg.norm(rig.eyelid_basis.astype(np.float64), axis=1).max(1)
    return np.asarray(basis[rig.faces].mean(1))


def _stretch(subject: Subject) -> Float64:
    rig = subject.rig
    areas = []
    for lids in (0.0, 1.0):
        params = FlameParams.neutral().replace(eyelids=np.full((1, 2), lids, np.float32))
        corners = skinned(rig, params)[0].astype(np.float64)[rig.faces]
        areas.append(np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1))
    return np.asarray(areas[1] / np.maximum(areas[0], 1e-12))


def _steep(subject: Subject, vertices: Float64) -> Bool:
    """Triangles [F] of which a pixel aside is another place."""
    corners = vertices[subject.rig.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    toward = eye_point(subject.camera) - corners.mean(1)
    length = np.linalg.norm(normal, axis=1) * np.linalg.norm(toward, axis=1)
    return np.asarray(np.sum(normal * toward, 1) < _STEEP * length)


def _large_parts(mask: Bool) -> Bool:
    """A mask [H, W] without specks, which labels may have anywhere."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _SPECK * sizes.max())[parts] & mask)


def _folds(depth: Float64, face: Bool, neck: Bool) -> Bool:
    """Pixels [H, W] on both sides of the edge of the jaw, where the neck lies well behind it."""
    from scipy import ndimage

    known = np.isfinite(depth)
    beside = ndimage.maximum_filter(neck, _WINDOW) & ndimage.maximum_filter(face, _WINDOW)
    far = ndimage.maximum_filter(np.where(known, depth, -np.inf), _WINDOW)
    near = ndimage.minimum_filter(depth, _WINDOW)
    return np.asarray(known & beside & (far - near > _STEP))


def _covered_ears(subject: Subject, vertices: Float64, labels: UInt8) -> Bool:
    """Triangles [F] of ears that hair covers in the photograph: there is nothing to lay on them."""
    seen = subject.seen(vertices)
    ears = faces_of(subject, ("ears",))
    left = subject.rig.template[subject.rig.faces, 0].mean(1) > 0
    result = np.zeros(len(ears), bool)
    for side in (left, ~left):
        shown = (seen.face >= 0) & (ears & side)[seen.face]
        if shown.any() and (labels[shown] == HAIR).mean() > _COVERED:
            result |= ears & side
    return result


def faces_of(subject: Subject, names: tuple[str, ...], *, touching: bool = False) -> Bool:
    """Triangles [F] whose corners all (or, ``touching``, any of them) lie in regions of the model."""
    inside = np.zeros(subject.model.vertex_count, bool)
    for name in names:
        inside[subject.model.regions[name]] = True
    corners = inside[subject.model.faces]
    return np.asarray(corners.any(1) if touching else corners.all(1))


def _foreground(picture: UInt8, alpha: UInt8) -> UInt8:
    """The picture, where it is not all the person's with the colours of the person nearby."""
    from scipy import ndimage

    colours = picture.astype(np.float64)
    sure = outline_distance(alpha) > outline_width(alpha)
    result = colours.copy()
    left = ~sure
    for deviation in (1.5, 4.0, 12.0):
        weight = ndimage.gaussian_filter(sure.astype(np.float64), deviation)
        mean = ndimage.gaussian_filter(colours * sure[..., None], (deviation, deviation, 0))
        filled = left & (weight > 0.02)
        result[filled] = mean[filled] / weight[filled][:, None]
        left &= ~filled
    return result.round().clip(0, 255).astype(np.uint8)


def outline_distance(alpha: UInt8) -> Float64:
    """How far inside of the person's outline each pixel [H, W] is, px; the picture's border is no outline."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(np.pad(alpha >= 250, 1, mode="edge"))[1:-1, 1:-1])


def outline_width(alpha: UInt8) -> float:
    """How far inside of the outline colours may still be the room's, for masks are coarse; px."""
    return max(1.0, OUTLINE * max(alpha.shape))


def lash_width(subject: Subject) -> float:
    """How far from an open eye its lashes are, px."""
    return max(1.5, _LASHES * float(np.linalg.norm(np.diff(subject.landmarks[[468, 473], :2], axis=0))))


def unprojected(camera: Camera, pixel: Float64, depth: Float64) -> Float64:
    """Places [N, 3] of pixels [N, 2] at depths [N]."""
    pose = camera.world_to_camera.astype(np.float64)
    ray = np.concatenate([pixel, np.ones((len(pixel), 1))], 1) @ np.linalg.inv(camera.intrinsics.astype(np.float64)).T
    return np.asarray((ray * depth[:, None] - pose[:3, 3]) @ pose[:3, :3])


def eye_point(camera: Camera) -> Float64:
    """Where the camera stands [3]."""
    pose = camera.world_to_camera.astype(np.float64)
    return np.asarray(-pose[:3, :3].T @ pose[:3, 3])


def deviations(camera: Camera, depth: Float64, side: NDArray[np.int64], soft: Bool | bool = False) -> Float64:
    """Deviations [N], metres, of Gaussians at depths [N] that cover cells of ``side`` [N] pixels.

    Single pixels are detail, and a narrow Gaussian blurs it less; what is flat should rather let nothing through, and
    a ``soft`` outline have no grain.
    """
    return np.where((side > 1) | soft, SMOOTH, SHARP) * side * depth / float(camera.intrinsics[0, 0])


def discs(
    camera: Camera, place: Float64, normal: Float64, side: NDArray[np.int64], soft: Bool, flat: float = 0.3
) -> Float64:
    """Factors [N, 3, 3] of flat Gaussians on a surface that cover cells of ``side`` [N] pixels in the picture."""
    pose = camera.world_to_camera.astype(np.float64)
    depth = place @ pose[2, :3] + pose[2, 3]
    deviation = deviations(camera, depth, side, soft)
    view = eye_point(camera) - place
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    cosine = np.sum(view * normal, 1)
    slope = view - cosine[:, None] * normal
    length = np.linalg.norm(slope, axis=1, keepdims=True)
    other = np.cross(normal, [0.31, 0.9, 0.3])
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    slope = np.where(length > 1e-3, slope / np.maximum(length, 1e-3), other)
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    stretch = 1 / np.maximum(np.abs(cosine), STEEPEST)
    return np.stack(
        [
            slope * (deviation * stretch)[:, None],
            np.cross(normal, slope) * deviation[:, None],
            normal * (flat * deviation)[:, None],
        ],
        2,
    )


def laid(view: View, pixel: Float64, side: NDArray[np.int64], place: Float64, normal: Float64, facing: bool) -> Splats:
    """Gaussians at places [N, 3] that show the photograph's cells."""
    x, y = pixel.astype(np.int64).T
    colour = view.colours[y, x] / 255.0
    opacity = 0.97 * view.subject.alpha[y, x] / 255.0
    soft = view.subject.alpha[y, x] < 250
    return Splats.of(place, discs(view.camera, place, normal, side, soft), colour, opacity, facing=facing, seen=True)
