"""From the person in a photograph to an avatar: layers laid, put together, and colours corrected by what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Gaussians, Seam
from being_rt.avatar.demo.cloud import rest_positions
from being_rt.avatar.validation import validate_avatar
from being_rt.portrait.blink import FADE, blink_network
from being_rt.portrait.body import body
from being_rt.portrait.hair import hair
from being_rt.portrait.inside import eyes, join, mouth, traits_of
from being_rt.portrait.skin import lashes, seen_skin, whole_skin
from being_rt.portrait.splats import Bound, head_layer
from being_rt.portrait.subject import Subject
from being_rt.portrait.view import outline_distance, outline_width, view_of
from being_rt.renderer import Renderer

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

ROUNDS = 5  # of corrections
STEP = 1.1  # of what is missing that one correction adds
BLUR = 0.7  # px over which what is missing is averaged, about a Gaussian's own size
FARTHEST, FARTHEST_BENEATH = 0.25, 0.08  # of full brightness by which a colour may be corrected
SOLID = 0.97  # of the person's alpha from which nothing of the room shines through
HAIR_FALLS = 0.02  # metres below the chin from which hair hangs on the shoulders
FAINTEST = 0.06  # opacity below which a Gaussian is left out
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
    falls = float(view.vertices[subject.model.regions["face"], 1].min()) - HAIR_FALLS
    surface = seen_skin(view)
    strands, hanging = hair(view, falls)
    front = Bound.concatenate([surface, strands])
    inner = mouth(view, traits)
    balls, balls_seen, riding = eyes(view, traits)
    painted = lashes(view)
    under, under_seen = whole_skin(view)
    outer = head_layer(subject.rig, view.vertices, Bound.concatenate([front, inner]))
    painted_layer = head_layer(subject.rig, view.vertices, painted)
    hidden = replace(riding.gaussians, opacity_logit=riding.gaussians.opacity_logit - np.float32(FADE))
    blinking = join([painted_layer, replace(riding, gaussians=hidden)])
    head = join([blinking, outer, balls, under])
    left = rest_positions(subject.rig, blinking)[:, 0] > 0
    network = blink_network(left, np.arange(len(left)) < len(painted.face)) if len(left) else None
    torso, torso_seen = body(view, hanging, falls)
    seen = np.concatenate(
        [
            painted.splats.seen,
            np.zeros(len(riding.face), bool),
            front.splats.seen,
            inner.splats.seen,
            balls_seen,
            under_seen,
            torso_seen,
        ]
    )
    nobody = np.zeros(0, np.int32)
    avatar = Avatar(
        name=name,
        rig=subject.rig,
        head=head,
        torso=torso,
        network=network,
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
    farthest = np.full(len(seen), FARTHEST)
    farthest[len(head.face) - len(under.face) : len(head.face)] = FARTHEST_BENEATH
    farthest[len(head.face) :] = 1.0  # shoulders stay, whatever they are corrected by
    return corrected(avatar, subject, seen, farthest, tell)


def corrected(
    avatar: Avatar, subject: Subject, seen: Bool, farthest: Float64, tell: Callable[[str, float], None]
) -> Avatar:
    """Colours and, along the outline, opacities such that the avatar in the photograph's pose is the photograph.

    Gaussians overlap, so what is drawn is a blurred photograph. What is missing, blurred alike, is added to those that
    lie where it is missing, again and again: Landweber's iteration (American Journal of Mathematics 73, 1951), a
    deconvolution that leaves alone what the blur has wiped out.
    """
    from scipy import ndimage

    rim = outline_distance(subject.alpha) <= outline_width(subject.alpha)
    photo, wanted = subject.picture.astype(np.float64) / 255, subject.alpha.astype(np.float64) / 255
    layers = avatar.head.gaussians, avatar.torso.gaussians
    start = np.concatenate([layer.colour for layer in layers]).astype(np.float64)
    opacity = 1 / (1 + np.exp(-np.concatenate([layer.opacity_logit for layer in layers]).astype(np.float64)))
    colour = start.copy()
    moves = np.arange(len(start)) < avatar.head.gaussians.count
    for step in range(ROUNDS):
        tell("correcting", step / ROUNDS)
        renderer = Renderer(avatar, subject.camera.size)
        picture, alpha, _ = renderer.render_layers(subject.params)
        splats = renderer.splats()
        shown = splats["visible"] & seen
        x, y = splats["mean"][shown].astype(np.float64).T
        places = [y - 0.5, x - 0.5]

        def at(image: Float64, places: list[Float64] = places) -> Float64:
            return np.asarray(ndimage.map_coordinates(image, places, order=1, mode="nearest"))

        missing = ndimage.gaussian_filter(photo - picture / 255.0, (BLUR, BLUR, 0))
        aim, now = at(wanted), at(alpha.astype(np.float64))
        edge = aim < SOLID
        own = opacity[shown]
        opacity[shown] = np.where(edge, np.clip(own * (aim + 0.02) / (now + 0.02), 0.002, 0.97), own)
        # Where the room may shine through hair, it is not for the hair to correct: that moves. Shoulders stay.
        share = np.where((at(rim.astype(np.float64)) > 0.5) & moves[shown], 0.0, 1.0)
        change = np.stack([at(missing[..., channel]) for channel in range(3)], 1)
        colour[shown] += STEP * share[:, None] * change
        colour = np.clip(np.clip(colour, start - farthest[:, None], start + farthest[:, None]), 0, 1)
        avatar = _with(avatar, colour, opacity)
    return _visible(avatar)


def _visible(avatar: Avatar) -> Avatar:
    """Without Gaussians that are as good as transparent."""
    least = float(np.log(FAINTEST / (1 - FAINTEST)))
    head, torso = avatar.head, avatar.torso
    kept, stays = head.gaussians.opacity_logit > least, torso.gaussians.opacity_logit > least
    kept[: avatar.network.count if avatar.network is not None else 0] = True  # which the network may show
    return replace(
        avatar,
        head=replace(
            head, gaussians=_chosen(head.gaussians, kept), face=head.face[kept], barycentric=head.barycentric[kept]
        ),
        torso=replace(torso, gaussians=_chosen(torso.gaussians, stays), weights=torso.weights[stays]),
    )


def _chosen(gaussians: Gaussians, which: Bool) -> Gaussians:
    return Gaussians(**{item.name: getattr(gaussians, item.name)[which] for item in fields(Gaussians)})


def _with(avatar: Avatar, colour: Float64, opacity: Float64) -> Avatar:
    """The avatar with other colours [N, 3] and opacities [N], the head's first."""
    count = avatar.head.gaussians.count
    logit = np.log(opacity / (1 - opacity)).astype(np.float32)

    def changed(gaussians: Gaussians, part: slice) -> Gaussians:
        return replace(gaussians, colour=colour[part].astype(np.float32), opacity_logit=logit[part])

    return replace(
        avatar,
        head=replace(avatar.head, gaussians=changed(avatar.head.gaussians, slice(0, count))),
        torso=replace(avatar.torso, gaussians=changed(avatar.torso.gaussians, slice(count, None))),
    )
