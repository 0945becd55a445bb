"""What a photograph does not show: eyeballs, teeth, tongue and the inside of the mouth, from the generated people's.

Their shapes fit the mesh, which is that of the generated people. Their colours are brought to the photograph's: irises
and whites as far as it shows them, skin that says how dark a face is, and teeth if it smiles.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Gaussians, HeadLayer
from being_rt.avatar.demo.cloud import Cloud, Mesh, concatenate, rest_positions, unit
from being_rt.avatar.demo.eyes import build_eye, fit_sphere
from being_rt.avatar.demo.features import landmark_points
from being_rt.avatar.demo.lighting import linear
from being_rt.avatar.demo.mouth import build_cavity, build_teeth, build_tongue
from being_rt.avatar.demo.traits import PersonTraits
from being_rt.dataset.regions import project
from being_rt.flame.skinning import skin
from being_rt.portrait.splats import Bound, Float64, Splats, head_layer, posed_frames
from being_rt.portrait.view import View, faces_of
from being_rt.track.topology import IRISES, LIPS

_SKIN, _IRIS = (200.0, 160.0, 140.0), (96.0, 72.0, 48.0)  # sRGB, where the photograph shows none
_FINE = 0.8  # spacing of eyes and teeth beside those of the generated people
_TEETH_GAIN = (0.4, 1.6)  # by which teeth may be brought to the photograph's


def traits_of(view: View) -> PersonTraits:
    """What the photograph says of the person: how deep the skin's tone is, the colours of irises and lips."""
    picture, landmarks = view.subject.picture, view.subject.landmarks
    tone = np.median(picture[view.skin], axis=0) if view.skin.any() else np.array(_SKIN)
    depths = np.linspace(0, 1, 21)
    albedo = np.array([PersonTraits("", skin_tone=depth).skin_albedo.mean() for depth in depths])
    depth = float(depths[np.abs(albedo - linear(_colour(tone)).mean()).argmin()])
    iris = np.concatenate([_iris_pixels(view, ids) for ids in IRISES])
    eye = np.median(iris, axis=0) if len(iris) else np.array(_IRIS)
    ring = landmarks[np.concatenate([LIPS[:10], LIPS[20:30]]), :2]
    x, y = np.clip(ring, 0, np.array(picture.shape[1::-1]) - 1).astype(np.int64).T
    lips = np.median(picture[y, x], axis=0)
    return PersonTraits("portrait", seed=1, skin_tone=depth, eye_colour=_colour(eye), lip_colour=_colour(lips))


def _colour(values: NDArray[Any]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _iris_pixels(view: View, ids: NDArray[Any]) -> NDArray[Any]:
    """Colours [n, 3] of an iris without its pupil, as far as lids leave it."""
    centre, edge = view.subject.landmarks[ids[0], :2], view.subject.landmarks[ids[1:], :2]
    radius = float(np.linalg.norm(edge - centre, axis=1).mean())
    y, x = np.mgrid[: view.eyes.shape[0], : view.eyes.shape[1]] + 0.5
    away = np.hypot(x - centre[0], y - centre[1]) / max(radius, 1e-6)
    return view.subject.picture[view.eyes & (away > 0.45) & (away < 0.85)]


def mouth(view: View, traits: PersonTraits) -> Bound:
    """Teeth, tongue and the cavity behind the lips."""
    subject = view.subject
    mesh = Mesh(subject.rig.faces, subject.model.template.astype(np.float64), view.vertices)

    def faces(name: str, touching: bool = False) -> NDArray[Any]:
        return np.flatnonzero(faces_of(subject, (name,), touching=touching))

    teeth = [build_teeth(mesh, faces(f"teeth_{row}"), row == "upper", traits, _FINE) for row in ("upper", "lower")]
    shown = _teeth_brightness(view)
    if shown is not None:
        now = float(np.quantile(np.concatenate([row.colour for row in teeth]).mean(1), 0.9))
        gain = float(np.clip(shown / max(now, 1e-3), *_TEETH_GAIN))
        teeth = [_brighter(row, gain) for row in teeth]
    flesh = [build_tongue(mesh, faces("tongue"), traits), build_cavity(mesh, faces("mouth_interior", True), traits)]
    return _bound(concatenate([*teeth, *flesh]))


def _brighter(cloud: Cloud, gain: float) -> Cloud:
    return replace(cloud, colour=np.clip(cloud.colour * gain, 0, 1))


def _teeth_brightness(view: View) -> float | None:
    """How bright the teeth in the photograph are 0..1; None where it shows none."""
    pixels = view.subject.picture[view.mouth].astype(np.float64) / 255
    if len(pixels) < 12:
        return None
    bright = float(np.quantile(pixels.mean(1), 0.85))
    return bright if bright > 0.3 else None


def _bound(cloud: Cloud) -> Bound:
    normal = cloud.normal
    tangent = unit(cloud.tangent - np.sum(cloud.tangent * normal, 1, keepdims=True) * normal)
    axes = np.stack([tangent, np.cross(normal, tangent), normal], 2) * cloud.scale[:, None, :]
    splats = Splats.of(cloud.position, axes, cloud.colour, cloud.opacity)
    return Bound(splats, cloud.face, cloud.barycentric)


def eyes(view: View, traits: PersonTraits) -> tuple[HeadLayer, NDArray[Any], HeadLayer]:
    """Both eyeballs, which of their Gaussians the photograph shows, and lashes that ride on the lids."""
    subject = view.subject
    vertices = skin(subject.straight, subject.params)[0].astype(np.float64)
    mesh = Mesh(subject.rig.faces, subject.model.template.astype(np.float64), vertices)
    layers, shown, riding = [], [], []
    for side, name in ((1, "left"), (-1, "right")):
        rims = [landmark_points(subject.model, vertices, f"eyelid_{lid}_{name}")[::-1] for lid in ("upper", "lower")]
        ball = np.flatnonzero(faces_of(subject, (f"{name}_eyeball",)))
        lids = np.flatnonzero(faces_of(subject, (f"{name}_eye",)))
        made, lashes = build_eye(mesh, ball, lids, rims[0], rims[1], side, traits, _FINE)
        made = made[made.part == 1]
        layer = head_layer(subject.straight, vertices, _bound(made))
        layer, seen = _painted(view, layer, name)
        layers.append(layer)
        shown.append(seen)
        riding.append(head_layer(subject.straight, vertices, _bound(lashes)))
    return join(layers), np.concatenate(shown), join(riding)


def _painted(view: View, layer: HeadLayer, name: str) -> tuple[HeadLayer, NDArray[Any]]:
    """An eyeball in the photograph's colours: where it is seen, its own; elsewhere those of the same ring about the
    pupil, as bright as what is seen."""
    from scipy import ndimage

    place = _posed(view, layer)
    straight = rest_positions(view.subject.straight, layer)
    rest = view.subject.straight.template[view.subject.model.regions[f"{name}_eyeball"]].astype(np.float64)
    middle, _ = fit_sphere(rest[rest[:, 2] < rest[:, 2].max() - 0.004])
    ahead = unit(straight - middle)
    ring = np.hypot(ahead[:, 0], ahead[:, 1])
    pixel, _ = project(place, view.camera)
    x, y = np.clip(pixel, 0, np.array(view.eyes.shape[::-1]) - 1).astype(np.int64).T
    eye = np.asarray(view.eyes & faces_of(view.subject, (f"{name}_eyeball",))[view.face])
    inner = ndimage.distance_transform_edt(eye)
    own = np.clip(inner[y, x] - 0.3, 0, 1)
    coordinates = [pixel[:, 1] - 0.5, pixel[:, 0] - 0.5]
    picture = view.subject.picture / 255.0
    photo = np.stack(
        [ndimage.map_coordinates(picture[..., k], coordinates, order=1, mode="nearest") for k in range(3)], 1
    )
    colour = layer.gaussians.colour.astype(np.float64)
    weight = own * (ahead[:, 2] > 0)
    matched = colour.copy()
    for low, high in ((0.0, 0.45), (0.45, 2.0)):  # iris, white
        part = (ring >= low) & (ring < high)
        if weight[part].sum() > 5:
            mine = (weight[part, None] * photo[part]).sum(0) / weight[part].sum()
            theirs = (weight[part, None] * colour[part]).sum(0) / weight[part].sum()
            matched[part] = np.clip(colour[part] * np.clip(mine / np.maximum(theirs, 0.02), 0.4, 2.0), 0, 1)
    mixed = weight[:, None] * photo + (1 - weight[:, None]) * matched
    gaussians = replace(layer.gaussians, colour=mixed.astype(np.float32))
    return replace(layer, gaussians=gaussians), weight > 0.5


def _posed(view: View, layer: HeadLayer) -> Float64:
    """Where a layer's Gaussians are in the photograph [N, 3]."""
    rig = view.subject.rig
    frames = posed_frames(rig, view.vertices)[layer.face]
    anchor = np.einsum("nk,nkd->nd", layer.barycentric, view.vertices[rig.faces[layer.face]])
    return np.asarray(anchor + np.einsum("nij,nj->ni", frames, layer.gaussians.position))


def join(layers: list[HeadLayer]) -> HeadLayer:
    """Head layers one after the other."""

    gaussians = {
        item.name: np.concatenate([getattr(layer.gaussians, item.name) for layer in layers])
        for item in fields(Gaussians)
    }
    return HeadLayer(
        Gaussians(**gaussians),
        np.concatenate([layer.face for layer in layers]),
        np.concatenate([layer.barycentric for layer in layers]),
    )
