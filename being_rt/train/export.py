"""From a trained model to the avatar that the engine draws: the same picture, in the format's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from being_rt.avatar.avatar import AnchorLatentNetwork, Avatar, Camera, Gaussians, HeadLayer, Seam, TorsoLayer
from being_rt.avatar.validation import NETWORK_TENSORS, validate_avatar
from being_rt.errors import InvalidParameterError
from being_rt.train.model import AvatarModel

_INVISIBLE = 1 / 255  # opacity below which nothing is drawn, in any pose
_LARGEST_HALF = 65504.0


@torch.no_grad()
def to_avatar(
    model: AvatarModel,
    name: str,
    camera: Camera,
    background: NDArray[np.uint8],
    licence: str = "",
    consent: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Avatar:
    """The avatar that a renderer draws as ``model.render`` does.

    Raises:
        InvalidParameterError: a network per Gaussian, which the avatar format does not hold, or values that are not
            finite.
    """
    if model.config.network == "points":
        raise InvalidParameterError(
            f"preset {model.config.preset!r} has a network per Gaussian, which the avatar format does not hold; "
            "it can be trained and evaluated only"
        )
    for key, tensor in model.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidParameterError(f"{key} has values that are NaN or infinite; the training diverged")
    kept = _drawn(model)
    tensors = model.tensors
    head = HeadLayer(
        gaussians=_gaussians(model, "head", kept),
        face=_array(tensors["head.face"][kept], np.int32),
        barycentric=_array(tensors["head.barycentric"][kept], np.float32),
    )
    everything = torch.ones(model.count("torso"), dtype=torch.bool, device=model.device)
    torso = TorsoLayer(
        gaussians=_gaussians(model, "torso", everything),
        weights=_array(model.torso_weights(), np.float32),
        response=_array(model.response(), np.float32),
        response_range=_array(tensors["sheet.response_range"], np.float32),
    )
    rig = model.rig
    if "rig.template" in tensors:
        rig = replace(rig, template=_array(tensors["rig.template"], np.float32))
    avatar = Avatar(
        name=name,
        rig=rig,
        head=head,
        torso=torso,
        network=_network(model, kept) if model.config.network == "anchors" else None,
        seam=no_seam(model.config.depth_softness),
        camera=camera,
        background=np.ascontiguousarray(background),
        antialiased=model.config.antialiased,
        licence=licence,
        consent=consent,
        metadata={"preset": model.config.preset, **(metadata or {})},
    )
    validate_avatar(avatar)
    return avatar


def no_seam(depth_softness: float) -> Seam:
    """A seam that changes nothing: trained layers meet as they were trained to, without colour match or filled gaps."""
    nobody = np.zeros(0, np.int32)
    return Seam(
        centre=np.zeros(3, np.float32),
        axis=np.array([0, 1, 0], np.float32),
        radius=0.0,
        half_height=0.01,
        depth_softness=depth_softness,
        head_band=nobody,
        torso_band=nobody,
        torso_band_weight=np.zeros(0, np.float32),
    )


def _drawn(model: AvatarModel) -> Tensor:
    """Head Gaussians [N] bool that some pose may show: what is transparent for good is left out of the file."""
    visible = torch.sigmoid(model.tensors["head.opacity_logit"]) >= _INVISIBLE
    if model.config.network == "anchors" and "opacity" in model.config.channels:
        visible |= model.tensors["network.basis"][:, 9].abs().amax(1) > 0
    return visible


def _gaussians(model: AvatarModel, layer: str, kept: Tensor) -> Gaussians:
    tensors = model.tensors
    rotation = tensors[f"{layer}.rotation"][kept].double()
    facing = tensors["head.facing"][kept] if layer == "head" else torch.zeros(int(kept.sum()))
    return Gaussians(
        position=_array(model.position(layer)[kept], np.float32),
        rotation=_array(rotation / rotation.norm(dim=1, keepdim=True), np.float32),
        log_scale=_array(model.log_scale(layer)[kept], np.float32),
        opacity_logit=_array(tensors[f"{layer}.opacity_logit"][kept], np.float32),
        colour=_array(tensors[f"{layer}.colour"][kept], np.float32),
        facing_fade=_array(facing, np.bool_),
    )


def _network(model: AvatarModel, kept: Tensor) -> AnchorLatentNetwork:
    tensors = {name: model.tensors[name] for name in NETWORK_TENSORS}
    rows = ("network.anchor_index", "network.anchor_weight", "network.basis")
    tensors |= {name: tensors[name][kept] for name in rows}
    tensors["network.basis"] = tensors["network.basis"] * model.channel_factors()[:, None]
    largest = float(tensors["network.basis"].abs().amax()) if len(tensors["network.basis"]) else 0.0
    if largest > _LARGEST_HALF:
        raise InvalidParameterError(
            f"network.basis reaches {largest:.3g}, beyond the half floats of the avatar format; the training diverged"
        )
    return AnchorLatentNetwork(
        **{n.removeprefix("network."): _array(tensors[n], np.dtype(kind)) for n, (kind, _) in NETWORK_TENSORS.items()}
    )


def _array(tensor: Tensor, kind: Any) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(kind))
