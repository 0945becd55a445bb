"""Posed FLAME vertices, joint transforms and the offset network's condition, differentiable in motion and rig.

Definition: pose, skin and conditioning of :mod:`being_rt.reference`, for B frames at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

if TYPE_CHECKING:
    from being_rt.flame.rig import Rig

JOINTS, EXPRESSIONS, EYELIDS, FEATURES, CONDITION = 5, 100, 2, 36, 138


class RigTensors(NamedTuple):
    """What posing a head needs of a :class:`being_rt.flame.rig.Rig`, as tensors of one float type on one device."""

    template: Tensor  # [V, 3] metres
    expression_basis: Tensor  # [V, 3, 100]
    eyelid_basis: Tensor  # [V, 3, 2]
    pose_basis: Tensor  # [V, 3, 36]
    skinning_weights: Tensor  # [V, 5]
    joint_rest: Tensor  # [5, 3] metres
    joint_expression: Tensor  # [5, 3, 100]
    faces: Tensor  # int32 [F, 3]
    face_frames: Tensor  # [F, 2, 2]

    @classmethod
    def of(cls, rig: Rig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> RigTensors:
        """Copies of a rig's arrays; the bases become ``dtype``.

        Example::

            rig = RigTensors.of(avatar.rig, device="cuda")
        """
        arrays = {name: torch.tensor(getattr(rig, name)) for name in cls._fields}
        return cls(**{name: a.to(device, a.dtype if name == "faces" else dtype) for name, a in arrays.items()})


class Skinned(NamedTuple):
    """What :func:`skin` returns."""

    vertices: Tensor  # [B, V, 3] metres
    transforms: Tensor  # [B, 5, 3, 4] rest pose to posed, without the translation
    condition: Tensor  # [B, 138]


def skin(rig: RigTensors, expression: Tensor, axis_angles: Tensor, eyelids: Tensor, translation: Tensor) -> Skinned:
    """Pose a head for B frames: blendshapes, pose correctives, linear blend skinning.

    Gradients reach the four inputs, and the rig's template, expression_basis and eyelid_basis where they require them;
    a change of the template does not move the joints. All tensors are contiguous, of one float type (float32; on the
    CPU float64 as well) and on one device. On CUDA expression_basis and pose_basis begin at multiples of 16 bytes, as
    whole tensors do.

    Args:
        rig: from :meth:`RigTensors.of`.
        expression: [B, 100].
        axis_angles: [B, 5, 3] radians: global, neck, jaw, left eye, right eye.
        eyelids: [B, 2].
        translation: [B, 3] metres.

    Returns:
        Vertices, joint transforms, and what the offset network sees: expression, jaw, left eye, right eye, eyelids,
        neck (rotations as R - I, row by row).

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous; no frames.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Source:
        Li et al., "Learning a model of facial shape and expression from 4D scans", 2017, equations 1 to 4; Loper et
        al., "SMPL: a skinned multi-person linear model", 2015, equations 1, 3, 4 and 9.

    Example::

        rig = RigTensors.of(avatar.rig, device="cuda")
        vertices, transforms, condition = skin(rig, expression, axis_angles, eyelids, translation)
    """
    constants = rig[: RigTensors._fields.index("faces")]
    motion = (expression, axis_angles, eyelids, translation)
    _check(rig, *motion)
    vertices, transforms, condition, _ = _forward(*constants, *motion)
    return Skinned(vertices, transforms, condition)


def _check(rig: RigTensors, expression: Tensor, axis_angles: Tensor, eyelids: Tensor, translation: Tensor) -> None:
    check_float("skin", "expression", expression, (-1, EXPRESSIONS))
    frames, vertices, dtype = len(expression), len(rig.template), expression.dtype
    if frames == 0 or vertices == 0:
        raise InvalidParameterError(f"skin: needs a frame and a vertex at least, got {frames} and {vertices}")
    for name, tensor, shape in (
        ("axis_angles", axis_angles, (frames, JOINTS, 3)),
        ("eyelids", eyelids, (frames, EYELIDS)),
        ("translation", translation, (frames, 3)),
        ("rig.template", rig.template, (vertices, 3)),
        ("rig.expression_basis", rig.expression_basis, (vertices, 3, EXPRESSIONS)),
        ("rig.eyelid_basis", rig.eyelid_basis, (vertices, 3, EYELIDS)),
        ("rig.pose_basis", rig.pose_basis, (vertices, 3, FEATURES)),
        ("rig.skinning_weights", rig.skinning_weights, (vertices, JOINTS)),
        ("rig.joint_rest", rig.joint_rest, (JOINTS, 3)),
        ("rig.joint_expression", rig.joint_expression, (JOINTS, 3, EXPRESSIONS)),
    ):
        check("skin", name, tensor, shape, dtype)


# The tensors that both directions take, in this order.
_NAMES = (*RigTensors._fields[:7], "expression", "axis_angles", "eyelids", "translation")
_DIFFERENTIABLE = (
    "expression",
    "axis_angles",
    "eyelids",
    "translation",
    "template",
    "expression_basis",
    "eyelid_basis",
)
_OPTIONAL = _DIFFERENTIABLE[4:]


_SCHEMA = f"({', '.join(f'Tensor {name}' for name in _NAMES)}) -> (Tensor, Tensor, Tensor, Tensor)"


@operator("skin", schema=_SCHEMA)
def _forward(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vertices, transforms, condition, and the vertices before skinning, which the backward pass needs."""
    given = dict(zip(_NAMES, inputs, strict=True))
    vertices, transforms, condition, shaped = outputs = _outputs(inputs)
    call(
        "skin_forward",
        vertices,
        **given,
        posed=vertices,
        shaped=shaped,
        transforms=transforms,
        condition=condition,
        vertices=len(given["template"]),
        frames=len(given["expression"]),
    )
    return outputs


@_forward.register_fake
def _(*inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(inputs)


def _outputs(inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    template, expression = inputs[0], inputs[_NAMES.index("expression")]
    frames, vertices = expression.shape[0], template.shape[0]
    return (
        expression.new_empty(frames, vertices, 3),
        expression.new_empty(frames, JOINTS, 3, 4),
        expression.new_empty(frames, CONDITION),
        expression.new_empty(frames, vertices, 3),
    )


@gradient_operator("skin_backward")
def _backward(
    inputs: list[Tensor],
    outputs: list[Tensor],
    d_vertices: Tensor | None,
    d_transforms: Tensor | None,
    d_condition: Tensor | None,
    wanted: list[bool],
) -> list[Tensor]:
    """Gradients of _DIFFERENTIABLE; those of the rig are empty where they are not wanted."""
    given = dict(zip(_NAMES, inputs, strict=True))
    transforms, condition, shaped = outputs
    gradients = _gradients(inputs, wanted)
    frames, vertices = len(given["expression"]), len(given["template"])
    blocks = -(-vertices // _C.operations.skin_block)
    call(
        "skin_backward",
        shaped,
        **given,
        **{f"d_{name}": gradients[name] if gradients[name].numel() else None for name in _DIFFERENTIABLE},
        shaped=shaped,
        transforms=transforms,
        condition=condition,
        d_posed=d_vertices,
        d_transforms=d_transforms,
        d_condition=d_condition,
        sums=shaped.new_empty(blocks, frames, _C.operations.skin_sums),
        vertices=vertices,
        frames=frames,
    )
    return list(gradients.values())


@_backward.register_fake
def _(
    inputs: list[Tensor],
    outputs: list[Tensor],
    d_vertices: Tensor | None,
    d_transforms: Tensor | None,
    d_condition: Tensor | None,
    wanted: list[bool],
) -> list[Tensor]:
    return list(_gradients(inputs, wanted).values())


def _gradients(inputs: list[Tensor], wanted: list[bool]) -> dict[str, Tensor]:
    given = dict(zip(_NAMES, inputs, strict=True))
    unwanted = [name for name, is_wanted in zip(_OPTIONAL, wanted, strict=True) if not is_wanted]
    return {
        name: given[name].new_empty(0) if name in unwanted else torch.empty_like(given[name])
        for name in _DIFFERENTIABLE
    }


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, d_vertices: Tensor | None, d_transforms: Tensor | None, d_condition: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    inputs, outputs = list(ctx.saved_tensors[: len(_NAMES)]), list(ctx.saved_tensors[len(_NAMES) :])
    needed = dict(zip(_NAMES, ctx.needs_input_grad, strict=True))
    # Without dL/dvertices nothing reaches the rig.
    wanted = [needed[name] and d_vertices is not None for name in _OPTIONAL]
    incoming = [None if d is None else d.contiguous() for d in (d_vertices, d_transforms, d_condition)]
    gradients = dict(zip(_DIFFERENTIABLE, _backward(inputs, outputs, *incoming, wanted), strict=True))
    return tuple(gradients[name] if needed[name] and gradients[name].numel() else None for name in _NAMES)


_forward.register_autograd(_differentiate, setup_context=_setup_context)
