"""The avatar as something to train: leaf tensors, how they make a picture, and what is done to them between steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.flame.rig import Rig
from being_rt.ops.anchors import AnchorNetwork, anchor_latents
from being_rt.ops.binding import VertexTables, bind_head, bind_torso
from being_rt.ops.body import body_frames
from being_rt.ops.compositing import composite, over
from being_rt.ops.offsets import (
    AnchorTable,
    PenalisedOffsets,
    blend_offsets,
    penalised_offsets,
    point_offsets,
)
from being_rt.ops.projection import project
from being_rt.ops.rasterization import Workspace, rasterize
from being_rt.ops.skinning import RigTensors, skin
from being_rt.ops.tidy import tidy
from being_rt.train import schedule
from being_rt.train.branching import Branching
from being_rt.train.config import ModelConfig
from being_rt.train.frames import Frames
from being_rt.train.networks import POINT_OUTPUTS, channel_scale, condition_noise, offset_penalty
from being_rt.train.regularise import regularisation
from being_rt.train.response import ResponseScale
from being_rt.train.surface import Surface
from being_rt.train.walk import Walk

FORMAT_VERSION = 4
LOG_SCALES = -12.0, -1.6  # 6 micrometres, 20 centimetres
TRIANGLE_LOG_SCALES = -6.0, 3.0  # where scales are in sizes of triangles
LARGEST_LOGIT = 12.0
_TIDIED = ("rotation", "colour", "opacity_logit", "log_scale")
_INTEGERS = {"face": torch.int32, "facing": torch.uint8, "part": torch.uint8, "anchor_index": torch.int32}
_FIXED = (
    *("unit", "home", "limit", "scale_limit", "anchor_weight", "encoding", "spread", "relief_weight"),
    *("response_range", "centre"),  # of the sheet
)
# Metres, sideways and up, that a Gaussian of the torso may go from where it began. Without a limit they wander behind
# the face: what shines through skin that is not quite opaque lowers the loss, until a head turns.
TORSO_REACH = 0.01
_SHARED = ("network.anchor_index", "network.anchor_weight", "network.basis", "network.encoding")  # rows of the head


class Layers(NamedTuple):
    """A batch on its way to the picture. B frames, N head and T torso Gaussians."""

    picture: Tensor  # [B, H, W, 4] sRGB over the background, not clamped; alpha
    offsets: Tensor | None  # [B, N, 13] of the offset network; None: rigid
    offset_cost: Tensor | None  # scalar, weight applied; None: rigid, or offsets cost nothing
    head_bound: Tensor  # [B, N, 16]
    torso_bound: Tensor | None  # [B, T, 16]; None: there is no torso
    head_splats: Tensor  # [B, N, 12]; keeps its gradient
    torso_splats: Tensor | None  # [B, T, 12]


class AvatarModel:
    """A head of Gaussians on a FLAME rig, an offset network, and a torso. Made by :meth:`create` or :meth:`from_state`.

    ``tensors`` holds everything by name, ``parameters`` the leaves among it that are trained: "head.position",
    "network.basis", "torso.skinning_logit" and so on. Positions are in the frame of the triangle for the head and in
    the rest pose for the torso; scales are log metres, opacities logits. All tensors keep their addresses for as long
    as the model lives, so that a captured CUDA graph stays valid.

    Example::

        model = new_model(config.model, dataset, "cuda", seed=0)
        colours(model, frames, images)
        picture = model.render(frames)  # [B, H, W, 4], differentiable
    """

    def __init__(
        self,
        config: ModelConfig,
        rig: Rig,
        tensors: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.rig = config, rig
        self.device, self.dtype = torch.device(device), dtype
        rates = schedule.learning_rates(config.learning_rates, tensors, 0.0)
        self.tensors: dict[str, Tensor] = {}
        for name, given in tensors.items():
            tensor = given.detach().to(self.device, _INTEGERS.get(name.split(".")[1], dtype)).contiguous().clone()
            self.tensors[name] = tensor.requires_grad_(_is_trained(name, config) and rates[name] > 0)
        self.parameters = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        self._rig_tensors = RigTensors.of(rig, self.device, dtype)
        self._channel_scale = self._constant(channel_scale(config))
        self._moved = self._constant(np.sign(channel_scale(config))[:POINT_OUTPUTS])
        self.late = self._constant(1.0)
        """0 before the late regularisers set in, 1 after."""
        self._is_late = True
        self.set_progress(0.0)
        penalty = offset_penalty(config.regularisation)
        self._penalty = None if penalty is None else self._constant(penalty)
        self._forwards = self._constant([0.0, 0.0, 1.0])
        self._beside = Branching(self.device)
        self._noise = None
        if "network.spread" in self.tensors and config.regularisation.noise > 0:
            self._noise = condition_noise(self.tensors["network.spread"], config.regularisation.noise)
        self._response_scale = ResponseScale(self.tensors["sheet.response_range"], self.tensors["sheet.centre"])
        if "sheet.response" in self.parameters:  # one camera hardly sees what goes towards it
            across = self._constant([1.0] * 8 + [0.0] * 4)
            self.parameters["sheet.response"].register_hook(lambda gradient: gradient * across)
        self._not_facing = torch.zeros(self.count("torso"), dtype=torch.uint8, device=self.device)
        self._walk = None
        if "head.barycentric" in self.parameters:
            self._walk = Walk.over(Surface.of(rig), self.device, dtype)
        # Who walks has other tables after every step; they are made in the backward pass then.
        self._vertex_tables = None if self._walk else self._make_vertex_tables()
        self._anchor_table = self._make_anchor_table() if "network.basis" in self.tensors else None
        self._last_reset = 0.0

    def count(self, layer: str) -> int:
        """Number of Gaussians of "head" or "torso"."""
        return len(self.tensors[f"{layer}.position"])

    # ------------------------------------------------------------------------------------------------ the picture

    def render(self, frames: Frames, workspaces: tuple[Workspace, Workspace] | None = None) -> Tensor:
        """Draw a batch: [B, H, W, 4], colour over the background and alpha. Arguments: :meth:`layers`."""
        return self.layers(frames, workspaces).picture

    def layers(self, frames: Frames, workspaces: tuple[Workspace, Workspace] | None = None) -> Layers:
        """Draw a batch and keep what lies between: skin, offsets, bind, project, rasterize, composite.

        Args:
            frames: the batch.
            workspaces: of head and torso, for a CUDA graph; see :func:`being_rt.ops.rasterization.rasterize`.
        """
        t = self.tensors
        head_room, torso_room = workspaces or (None, None)
        rig = self._rig_tensors
        if "rig.template" in t:
            rig = rig._replace(template=t["rig.template"])
        skinned = skin(rig, frames.expression, frames.axis_angles, frames.eyelids, frames.translation)
        camera = (frames.world_to_camera, frames.intrinsics, self.config.antialiased)

        torso_bound = torso_splats = torso = None
        if self.count("torso"):
            with self._beside.branch(skinned.transforms, *(x for x in frames if isinstance(x, Tensor))):
                torso_bound = bind_torso(
                    self.position("torso"),
                    t["torso.rotation"],
                    t["torso.log_scale"],
                    t["torso.opacity_logit"],
                    t["torso.colour"],
                    None,
                    self.torso_weights(),
                    self._body(frames, skinned.transforms),
                )
                torso_splats = _keep_gradient(project(torso_bound, self._not_facing, *camera))
                torso = rasterize(torso_splats, frames.size, workspace=torso_room)

        offsets, offset_cost = self._offsets(self._blurred(skinned.condition, frames.chance))
        head_bound = bind_head(
            self.position("head"),
            t["head.rotation"],
            self.log_scale("head"),
            t["head.opacity_logit"],
            t["head.colour"],
            offsets,
            skinned.vertices,
            rig.faces,
            rig.face_frames,
            t["head.face"],
            t["head.barycentric"],
            self._vertex_tables,
        )
        head_splats = _keep_gradient(project(head_bound, t["head.facing"], *camera))
        head = rasterize(head_splats, frames.size, workspace=head_room)
        if torso is None:
            picture = over(head, frames.background)
            return Layers(picture, offsets, offset_cost, head_bound, None, head_splats, None)
        self._beside.merge(torso)
        picture = composite(head, torso, self.config.depth_softness, frames.background)
        return Layers(picture, offsets, offset_cost, head_bound, torso_bound, head_splats, torso_splats)

    def _body(self, frames: Frames, transforms: Tensor) -> Tensor:
        """What carries the torso [B, 3, 3, 4]."""
        response, units = self.tensors["sheet.response"], self._response_scale.units
        return body_frames(frames.translation, frames.axis_angles, transforms, response, units)

    def _blurred(self, condition: Tensor, chance: Tensor | None) -> Tensor:
        """What the network is told of frames [B, 138], with noise where a step has it."""
        if self._noise is None or chance is None:
            return condition
        row = (chance * len(self._noise)).long().clamp(max=len(self._noise) - 1)
        return condition + self._noise.index_select(0, row)

    def _offsets(self, condition: Tensor) -> PenalisedOffsets | tuple[Tensor | None, None]:
        t = self.tensors
        if not self.phase(self.progress):
            return None, None
        if self.config.network == "anchors":
            latent = anchor_latents(self.anchor_network(), condition)
            blending = (latent, t["network.anchor_index"], t["network.anchor_weight"], t["network.basis"])
            options = (self._anchor_table, self.channel_factors())
            if self._penalty is None:
                return blend_offsets(*blending, *options), None
            return penalised_offsets(*blending, self._penalty, *options)
        if self.config.network == "points":
            layers = range(len(self.config.point_sizes) + 1)
            weights, biases = ([t[f"network.point_{kind}_{k}"] for k in layers] for kind in ("weight", "bias"))
            moved = point_offsets(t["network.encoding"], condition, weights, biases).tanh()
            moved = moved * self._moved
            offsets = torch.cat([moved, moved.new_zeros(*moved.shape[:2], 13 - POINT_OUTPUTS)], dim=2)
            if self._penalty is None:
                return offsets, None
            return PenalisedOffsets(offsets, (offsets * self._penalty).square().mean())
        return None, None

    def anchor_network(self) -> AnchorNetwork:
        """The tensors that :func:`being_rt.ops.anchors.anchor_latents` takes."""
        return AnchorNetwork(**{name: self.tensors[f"network.{name}"] for name in AnchorNetwork._fields})

    def channel_factors(self) -> Tensor:
        """Factors [13] on what the bases say."""
        return self._channel_scale

    def position(self, layer: str) -> Tensor:
        """Positions [N, 3] in metres; the torso's with its sheet's relief (:mod:`being_rt.train.torso`)."""
        unit = self.position_unit(layer)
        position = self.tensors[f"{layer}.position"]
        position = position if unit is None else position * unit
        if layer == "torso":
            relief = self.tensors["torso.relief_weight"] @ self.tensors["sheet.relief"]
            position = position + relief[:, None] * self._forwards
        return position

    def position_unit(self, layer: str) -> Tensor | None:
        """What positions count in, [N, 3] or [N, 1] metres; 0 where they may not go; None: metres."""
        return self.tensors.get(f"{layer}.unit")

    def log_scale(self, layer: str) -> Tensor:
        """Logarithms [N, 3] of standard deviations in metres."""
        log_scale = self.tensors[f"{layer}.log_scale"]
        return log_scale + self.tensors["head.unit"].log() if layer == "head" and self.config.face_scaled else log_scale

    def scale(self, layer: str) -> Tensor:
        """Standard deviations [N, 3] in metres, without gradients."""
        return self.log_scale(layer).detach().exp()

    def torso_weights(self) -> Tensor:
        """Skinning weights [T, 3] of the torso."""
        return torch.softmax(self.tensors["torso.skinning_logit"], dim=1)

    def response(self) -> Tensor:
        """How the torso answers the motion: the maps G [9, 3, 4] of :func:`being_rt.reference.body_root`."""
        return self._response_scale.maps(self.tensors["sheet.response"])

    # ------------------------------------------------------------------------------------------------ the training

    def regularisation(self, layers: Layers) -> dict[str, Tensor]:
        """Named scalar terms to add to the loss; weights are applied. See :mod:`being_rt.train.regularise`."""
        terms = regularisation(self.config.regularisation, self.tensors, self.late)
        if self.config.regularisation.offset and self.config.network != "none":
            cost = layers.offset_cost  # none before the network takes part
            terms["offset"] = layers.picture.new_zeros(()) if cost is None else cost
        return terms

    def set_progress(self, progress: float) -> None:
        """Say how far the run is, 0..1. Writes device tensors that a captured graph reads; call it between replays."""
        self.progress = progress
        weights = self.config.regularisation
        is_late = weights.opacity > 0 and progress >= weights.opacity_start
        if is_late != self._is_late:
            self._is_late = is_late
            self.late.fill_(float(is_late))

    def phase(self, progress: float) -> bool:
        """Whether the network takes part at ``progress`` 0..1 of the run. Steps of one phase do the same work."""
        return self.config.network != "none" and progress >= self.config.network_start

    def learning_rates(self, progress: float) -> dict[str, float]:
        """Rates of all parameters by name, at ``progress`` 0..1 of the run."""
        return schedule.learning_rates(self.config.learning_rates, self.parameters, progress)

    def epsilon_shares(self) -> dict[str, float]:
        """Adam's epsilon by name, in parts of what gradients of that parameter usually are."""
        return schedule.epsilon_shares(self.parameters)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring parameters back to where they make sense after an update, in place; captured in a graph as it is."""
        for layer in ("head", "torso"):
            names = {field: f"{layer}.{field}" for field in _TIDIED}
            trained = {field: self.parameters[name] for field, name in names.items() if name in self.parameters}
            in_triangles = layer == "head" and self.config.face_scaled
            limits = TRIANGLE_LOG_SCALES if in_triangles else LOG_SCALES
            if layer == "torso" and "torso.position" in self.parameters:
                trained |= {"position": self.tensors["torso.position"], "home": self.tensors["torso.home"]}
            if trained:
                tidy(**trained, largest_logit=LARGEST_LOGIT, log_scale_limits=limits, reach=TORSO_REACH)
        if self._walk is not None:
            t = self.tensors
            self._walk.settle(t["head.face"], t["head.barycentric"], t["head.rotation"])

    def reset_is_due(self) -> bool:
        """Whether opacities are to be reset now, as adaptive density control does; yes is said once per interval."""
        interval = self.config.reset_interval
        if not interval or self.progress - self._last_reset < interval or self.progress > 1 - interval / 2:
            return False
        self._last_reset = self.progress
        return True

    def gaussian_rows(self, layer: str) -> dict[str, Tensor]:
        """All tensors, trained or not, with a row for every Gaussian of a layer."""
        shared = _SHARED if layer == "head" else ()
        return {n: t for n, t in self.tensors.items() if n.startswith(f"{layer}.") or n in shared}

    def update_tables(self) -> None:
        """Follow Gaussians that have changed places; in place, for a captured graph reads the tables."""
        if self._vertex_tables is not None:
            self._vertex_tables.update(self._rig_tensors.faces, self.tensors["head.face"])
        if self._anchor_table is not None:
            for kept, new in zip(self._anchor_table, self._make_anchor_table(), strict=True):
                kept.copy_(new)

    # ------------------------------------------------------------------------------------------------ files

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All tensors, on the CPU, and what else there is, for JSON: what :meth:`load_state` takes."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        return tensors, {
            "format_version": FORMAT_VERSION,
            "preset": self.config.preset,
            "progress": self.progress,
            "last_reset": self._last_reset,
        }

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
        """Take the values of a state, in place. All of it or nothing.

        Raises:
            InvalidParameterError: it is of another configuration, or of a newer version.
        """
        version = description.get("format_version")
        if version != FORMAT_VERSION:
            raise InvalidParameterError(
                f"the model's state has version {version!r}, this being_rt reads {FORMAT_VERSION}"
            )
        for name in sorted(self.tensors.keys() ^ tensors.keys()):
            raise InvalidParameterError(
                f"the model's state does not fit the configuration: {name!r} is in one of them only"
            )
        for name, tensor in self.tensors.items():
            given = tensors[name]
            if given.shape != tensor.shape or given.dtype != tensor.dtype:
                raise InvalidParameterError(
                    f"the model's state does not fit the configuration: {name} is {given.dtype} {list(given.shape)}, "
                    f"expected {tensor.dtype} {list(tensor.shape)}"
                )
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.update_tables()
        self._response_scale.update(self.tensors["sheet.response_range"], self.tensors["sheet.centre"])
        self._last_reset = float(description["last_reset"])
        self.set_progress(float(description["progress"]))

    @classmethod
    def from_state(
        cls,
        config: ModelConfig,
        rig: Rig,
        tensors: Mapping[str, Tensor],
        description: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> AvatarModel:
        """The model of a state, without the data set that it was made from. Raises as :meth:`load_state`."""
        if "head.position" not in tensors:
            raise InvalidParameterError("the model's state has no tensor 'head.position'")
        model = cls(config, rig, tensors, device, tensors["head.position"].dtype)
        model.load_state(tensors, description)
        return model

    def _make_vertex_tables(self) -> VertexTables:
        return VertexTables.of(self._rig_tensors.faces, self.tensors["head.face"], len(self.rig.template))

    def _make_anchor_table(self) -> AnchorTable:
        return AnchorTable.of(self.tensors["network.anchor_index"], self.config.anchors)

    def _constant(self, values: Any) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)


def _is_trained(name: str, config: ModelConfig) -> bool:
    layer, field = name.split(".", 1)
    if field in (*_FIXED, *_INTEGERS):
        return False
    if layer == "head" and field == "barycentric":
        return config.placement == "normal"
    # Without hidden units of their own, anchors have no part that would be trained before the last layer.
    return not (field in ("head_weight_0", "head_bias_0", "anchor_code") and not config.anchor_size)


def _keep_gradient(tensor: Tensor) -> Tensor:
    if tensor.requires_grad:
        tensor.retain_grad()
    return tensor
