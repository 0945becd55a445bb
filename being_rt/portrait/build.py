"""From the person in a photograph to an avatar: layers laid, put together, and colours corrected by what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Seam
from being_rt.avatar.validation import validate_avatar
from being_rt.portrait.body import body
from being_rt.portrait.hair import hair
from being_rt.portrait.inside import eyes, join, mouth, traits_of
from being_rt.portrait.skin import seen_skin, whole_skin
from being_rt.portrait.splats import Bound, head_layer
from being_rt.portrait.subject import Subject
from being_rt.portrait.view import view_of
from being_rt.renderer import Renderer

Bool = NDArray[np.bool_]

ROUNDS = 8  # of corrections
STEP = 0.8  # of what is missing that one correction adds
NEAR = 0.02  # metres from what is drawn that a Gaussian may lie and still be it
HAIR_FALLS = 0.02  # metres above the chin from which hair hangs on the shoulders
SOFTNESS = 0.01  # metres of depth over which head and torso swap order


def avatar_of(
    subject: Subject,
    name: str,
    *,
    licence: str = "",
    consent: str = "",
    progress: Callable[[str, float], None] | None = None,
) -> Avatar:
    """An avatar whose rest is the photograph (with closed lips, where it shows parted ones)."""
    tell = progress or (lambda stage, share: None)
    tell("laying", 0.0)
    view = view_of(subject)
    traits = traits_of(view)
    chin = float(view.vertices[subject.model.regions["face"], 1].min())
    surface = seen_skin(view)
    strands, hanging = hair(view, chin - HAIR_FALLS)
    front = Bound.concatenate([surface, strands])
    inner = mouth(view, traits)
    balls, balls_seen = eyes(view, traits)
    under = whole_skin(view)
    outer = head_layer(subject.rig, view.vertices, Bound.concatenate([front, inner]))
    head = join([outer, balls, under])
    torso, torso_seen = body(view, hanging)
    seen = np.concatenate(
        [front.splats.seen, inner.splats.seen, balls_seen, np.zeros(len(under.face), bool), torso_seen]
    )
    nobody = np.zeros(0, np.int32)
    avatar = Avatar(
        name=name,
        rig=subject.rig,
        head=head,
        torso=torso,
        network=None,
        seam=Seam(
            np.zeros(3, np.float32), np.array([0, 1, 0], np.float32), 0.0, 0.01, SOFTNESS,
            nobody, nobody, np.zeros(0, np.float32),
        ),
        camera=subject.camera,
        background=subject.background,
        licence=licence,
        consent=consent,
        metadata={"made from": "one photograph"},
    )  # fmt: skip
    validate_avatar(avatar)
    return corrected(avatar, subject, seen, tell)


def corrected(avatar: Avatar, subject: Subject, seen: Bool, tell: Callable[[str, float], None]) -> Avatar:
    """Colours such that the avatar drawn in the photograph's pose is the photograph.

    Gaussians overlap, so what is drawn is a blurred photograph. What is missing is added to those that lie where it is
    missing, again and again: van Cittert's iteration (Zeitschrift fuer Physik 69, 1931), a deconvolution.
    """
    from scipy import ndimage

    photo = subject.picture.astype(np.float64) / 255
    colour = np.concatenate([avatar.head.gaussians.colour, avatar.torso.gaussians.colour]).astype(np.float64)
    count = avatar.head.gaussians.count
    for step in range(ROUNDS):
        tell("correcting", step / ROUNDS)
        renderer = Renderer(avatar, subject.camera.size)
        picture, alpha, depth = renderer.render_layers(subject.params)
        splats = renderer.splats()
        missing = photo - picture.astype(np.float64) / 255
        x, y = splats["mean"].astype(np.float64).T
        inside = splats["visible"] & seen
        coordinates = [np.where(inside, y, 0) - 0.5, np.where(inside, x, 0) - 0.5]
        there = ndimage.map_coordinates(depth, coordinates, order=0, mode="nearest")
        near = inside & (np.abs(splats["depth"] - there) < NEAR)
        for channel in range(3):
            change = ndimage.map_coordinates(missing[..., channel], coordinates, order=1, mode="nearest")
            colour[:, channel] += STEP * np.where(near, change, 0)
        colour = np.clip(colour, 0, 1)
        avatar = replace(
            avatar,
            head=replace(avatar.head, gaussians=replace(avatar.head.gaussians, colour=colour[:count].astype(np.float32))),
            torso=replace(
                avatar.torso, gaussians=replace(avatar.torso.gaussians, colour=colour[count:].astype(np.float32))
            ),
        )
    return avatar
