"""An avatar before the first step: where its Gaussians are, and what colour they have in the frames."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from being_rt.dataset import Dataset
from being_rt.errors import InvalidParameterError
from being_rt.train.adaptive import DORMANT_LOGIT
from being_rt.train.clothes import find_clothes
from being_rt.train.config import ModelConfig
from being_rt.train.frames import Frames
from being_rt.train.hair import HairOutline
from being_rt.train.model import AvatarModel, Layers
from being_rt.train.mouth import mouth_seeds
from being_rt.train.networks import anchor_network, condition_spread, point_network
from being_rt.train.response import initial_response
from being_rt.train.surface import Part, Seeds, Surface, face_seeds, hair_seeds, skin_seeds
from being_rt.train.torso import chosen_frames, relief_weights, torso_seeds

_LIMIT_FACTOR = {Part.SKIN: 1.0, Part.LIP: 0.3, Part.LID: 0.3, Part.EYE: 0.3, Part.MOUTH: 1.0, Part.HAIR: 3.0}
_ROOM = 2.0  # times its first size that a Gaussian may grow at least
_TORSO_LIMIT = 0.016  # metres
_LEAST_WEIGHT = 0.1  # pixels that a Gaussian must have covered, over all frames, for their colour to be its own
_KNOWN = 4096  # Gaussians of known colour among which unseen ones look for the nearest
_EXACT = "donot_use_mm_for_euclid_dist"


def new_model(
    config: ModelConfig,
    dataset: Dataset,
    device: torch.device | str = "cpu",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> AvatarModel:
    """A model of the person in a data set, grey but for its torso; see :func:`colours`.

    The same seed gives the same model, bit for bit; it is made on the CPU, whatever the device.

    Raises:
        InvalidParameterError: the first camera has no training frame, or the rig is not that of a face.
        DatasetError: a picture cannot be read.
    """
    return AvatarModel(config, dataset.rig, initial_tensors(config, dataset, seed), device, dtype)


def initial_tensors(config: ModelConfig, dataset: Dataset, seed: int) -> dict[str, Tensor]:
    """All tensors of a model by name, on the CPU. Raises as :func:`new_model`."""
    train = dataset.split("train")
    if not (dataset.camera_index[train] == 0).any():
        raise InvalidParameterError(f"data set {dataset.name!r} has no training frame of its first camera")
    generator = torch.Generator().manual_seed(seed)
    surface = Surface.of(dataset.rig)
    clothes = find_clothes(dataset, chosen_frames(dataset)) if config.torso_gaussians else None
    head = surface
    if config.torso_gaussians:
        head = surface.without_body(None if clothes is None else clothes.triangles)
    seeds, alive = _head_seeds(config, head, generator)
    tensors = _head_tensors(config, surface, seeds, alive)
    if config.network == "anchors":
        tensors |= anchor_network(config, surface, seeds, generator)
        tensors["network.spread"] = condition_spread(dataset.params, dataset.timestep[train])
    elif config.network == "points":
        tensors |= point_network(config, surface, seeds, generator)
    torso = torso_seeds(dataset, head, config.torso_gaussians, config.initial_scale, generator, clothes)
    count = len(torso.position)
    tensors |= {
        "torso.position": torso.position,
        "torso.home": torso.position.clone(),
        "torso.relief_weight": relief_weights(torso.position),
        "torso.rotation": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        "torso.log_scale": torso.scale.log(),
        "torso.opacity_logit": _logit(config.initial_opacity).repeat(count),
        "torso.colour": torso.colour.clamp(0, 1),
        "torso.skinning_logit": torso.weights.log(),
        "torso.scale_limit": (_ROOM * torso.scale.amax(1) if count else torch.zeros(0)).clamp(min=_TORSO_LIMIT),
    }
    tensors["sheet.relief"] = torch.zeros(tensors["torso.relief_weight"].shape[1])
    tensors |= initial_response(dataset, torso.position)
    if config.learning_rates.template:
        tensors["rig.template"] = torch.tensor(dataset.rig.template)
    return tensors


def _head_seeds(config: ModelConfig, surface: Surface, generator: torch.Generator) -> tuple[Seeds, int]:
    """Seeds of the whole head, and how many of them, the first ones, are there from the start."""
    alive = max(1, round(config.initial_share * config.head_gaussians))
    scale, opacity = config.initial_scale, config.initial_opacity
    if config.face_scaled:
        skin = face_seeds(surface, alive, scale, opacity, generator)
    else:
        skin = skin_seeds(surface, alive, scale, opacity, config.facing_fade, generator)
    groups = [skin]
    if config.mouth_gaussians:
        groups.append(mouth_seeds(surface, config.mouth_gaussians, scale, opacity, generator))
    if config.hair_gaussians:
        groups.append(hair_seeds(surface, config.hair_gaussians, scale, opacity, config.hair_height, generator))
    present = sum(len(group.face) for group in groups)
    groups.append(skin_seeds(surface, config.head_gaussians - alive, scale, opacity, config.facing_fade, generator))
    return Seeds.concatenate(groups), present


def _head_tensors(config: ModelConfig, surface: Surface, seeds: Seeds, alive: int) -> dict[str, Tensor]:
    limits = config.regularisation
    count = len(seeds.face)
    position, log_scale = seeds.position, seeds.scale.log()
    tensors = {}
    if config.face_scaled:
        unit = (2 * surface.area[seeds.face]).sqrt()[:, None]
        position, log_scale = position / unit, log_scale - unit.log()
        tensors["head.unit"] = unit
    elif config.placement == "normal":
        tensors["head.unit"] = torch.tensor([0.0, 0.0, 1.0]).repeat(count, 1)
    factor = torch.tensor([_LIMIT_FACTOR[part] for part in Part])[seeds.part.long()]
    room = _ROOM * log_scale.exp().amax(1)
    logit = torch.logit(seeds.opacity)
    logit[alive:] = DORMANT_LOGIT
    return tensors | {
        "head.position": position,
        "head.rotation": seeds.rotation,
        "head.log_scale": log_scale,
        "head.opacity_logit": logit,
        "head.colour": seeds.colour,
        "head.face": seeds.face,
        "head.barycentric": seeds.barycentric,
        "head.facing": seeds.facing,
        "head.part": seeds.part,
        "head.home": position.clone(),
        "head.limit": limits.position_limit * (factor if limits.regional else torch.ones(count)),
        "head.scale_limit": room.clamp(min=limits.scale_limit)
        if limits.regional
        else torch.full((count,), limits.scale_limit),
    }


@torch.no_grad()
def colours(model: AvatarModel, frames: Frames, images: Tensor) -> None:
    """Give every Gaussian the mean colour of the pixels that it shows in, in place: two backward passes, no training.

    A pixel is a sum of colours times weights, so the derivative of ``sum(picture * image)`` with respect to a colour is
    the sum of its weights times the image, and that of ``sum(picture)`` the sum of its weights. Their quotient is the
    initialisation of Li et al., "RGBAvatar", 2025. Unseen Gaussians take the colour of the nearest one that is seen
    (on the scalp, of the nearest on the scalp), but for those inside the mouth, which keep a typical one. Where images
    have an alpha channel, opacity falls with the share of a Gaussian that lies outside the person, and hair that no
    frame shows stands as high as hair that one does (:mod:`being_rt.train.hair`).

    Args:
        model: as created.
        frames: any number B of frames; a dozen, spread over the data, does.
        images: uint8 [B, H, W, 3 or 4], straight alpha.

    Raises:
        InvalidParameterError: images of another shape or dtype than the frames'.
    """
    width, height = frames.size
    count = len(frames.expression)
    if images.dtype != torch.uint8 or images.shape[:3] != (count, height, width) or images.shape[3] not in (3, 4):
        raise InvalidParameterError(
            f"images must be uint8 [{count}, {height}, {width}, 3 or 4], got {images.dtype} {list(images.shape)}"
        )
    layers = [layer for layer in ("head", "torso") if model.count(layer)]
    leaves = [model.tensors[f"{layer}.colour"] for layer in layers]
    typical = [leaf.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.fill_(0.5)  # away from where colours are clamped, where the derivative is 0
    sums = [leaf.new_zeros(len(leaf), 6) for leaf in leaves]
    hair = model.tensors["head.part"] == Part.HAIR
    outline = HairOutline(model.position("head").detach()[hair, 2])
    for part, image in _chunks(frames, images.to(model.device)):
        values = image.to(model.dtype) / 255
        alpha = values[..., 3] if values.shape[3] == 4 else torch.ones_like(values[..., 0])
        nothing = torch.zeros_like(alpha)
        with torch.enable_grad():
            drawn = model.layers(part)
            picture = drawn.picture
            weighted = torch.stack([*values[..., :3].unbind(-1), nothing], dim=-1)
            covered = torch.stack([nothing + 1, alpha, nothing, nothing], dim=-1)
            first = torch.autograd.grad(picture, leaves, weighted, retain_graph=True)
            second = torch.autograd.grad(picture, leaves, covered)
        cosine = _facing(drawn, part)
        if image.shape[3] == 4:
            outline.add(drawn.head_splats.detach()[0, hair, :2], cosine[hair], image[0, ..., 3])
        # Nothing is opaque yet: hair behind a head would take the face's colour, through the face. Skin that turns away
        # is not drawn at all.
        in_sight = (~(hair & (cosine < 0))).to(model.dtype)[:, None]
        for layer, total, *gradients in zip(layers, sums, first, second, strict=True):
            shown = torch.cat(gradients, dim=1)
            total += shown * in_sight if layer == "head" else shown
    surface = Surface.of(model.rig)
    for layer, leaf, start, total in zip(layers, leaves, typical, sums, strict=True):
        weight = total[:, 3]
        seen = weight >= _LEAST_WEIGHT
        leaf.copy_((total[:, :3] / weight.clamp(min=_LEAST_WEIGHT)[:, None]).clamp(0, 1))
        if layer == "head":
            keeps = model.tensors["head.part"] == Part.MOUTH
            leaf.copy_(torch.where((keeps & ~seen)[:, None], start, leaf))
            on_scalp = _on_scalp(model, surface)
            groups = [on_scalp, ~on_scalp & ~keeps]  # the back of a head is hair's colour, not that of an ear
        else:
            groups = [torch.ones_like(seen)]
        places = _rest_places(model, layer, surface)
        for group in groups:
            _colour_unseen(leaf, places, seen & group if (seen & group).any() else seen, ~seen & group)
        inside = (total[:, 4] / weight.clamp(min=_LEAST_WEIGHT)).clamp(0.1, 1)
        logit = model.tensors[f"{layer}.opacity_logit"]
        lowered = torch.logit(torch.sigmoid(logit) * inside.square())
        logit.copy_(torch.where(seen & (inside < 0.99), lowered, logit))
    logit = model.tensors["head.opacity_logit"]
    logit[hair] = torch.logit((torch.sigmoid(logit[hair]) * outline.share().square()).clamp(min=1e-4))


def _facing(drawn: Layers, frame: Frames) -> Tensor:
    """Cosines [N] between the normals of the head's Gaussians and the direction to the camera, of one frame."""
    bound, pose = drawn.head_bound.detach()[0], frame.world_to_camera.reshape(-1, 3, 4)[0]
    outwards = bound[:, 3:12].view(-1, 3, 3)[:, :, 2]  # unturned seeds: the third axis is the triangle's normal
    camera = -pose[:, :3].T @ pose[:, 3]
    return torch.nn.functional.cosine_similarity(camera - bound[:, :3], outwards, dim=1)


def _chunks(frames: Frames, images: Tensor) -> Iterator[tuple[Frames, Tensor]]:
    """One frame at a time."""
    for start in range(len(images)):
        rows = slice(start, start + 1)
        others = ("size", "background", "chance")
        batched = {n: getattr(frames, n)[rows].detach() for n in Frames._fields if n not in others}
        background = frames.background[rows] if len(frames.background) > 1 else frames.background
        yield frames._replace(**batched, background=background, chance=None), images[rows]


def _rest_places(model: AvatarModel, layer: str, surface: Surface) -> Tensor:
    if layer == "torso":
        return model.position("torso").detach()
    t = model.tensors
    places = surface.places(
        t["head.face"].cpu().long(),
        t["head.barycentric"].detach().cpu().double(),
        model.position("head").detach().cpu().double(),
    )
    return places.to(model.device, model.dtype)


def _on_scalp(model: AvatarModel, surface: Surface) -> Tensor:
    """Of the head's Gaussians [N], hair, and skin where hair may grow."""
    scalp = surface.scalp.to(model.device)
    return (model.tensors["head.part"] == Part.HAIR) | scalp[model.tensors["head.face"].long()]


def _colour_unseen(colour: Tensor, place: Tensor, seen: Tensor, unseen: Tensor) -> None:
    """Colours [N, 3] of ``unseen`` Gaussians from the nearest of up to 4096 seen ones, in place."""
    known, wanting = torch.nonzero(seen)[:, 0], torch.nonzero(unseen)[:, 0]
    if not len(known):
        return
    known = known[:: -(-len(known) // _KNOWN)]
    for part in wanting.split(4096):
        colour[part] = colour[known[torch.cdist(place[part], place[known], compute_mode=_EXACT).argmin(1)]]


def _logit(opacity: float) -> Tensor:
    return torch.logit(torch.tensor(opacity, dtype=torch.float64))
