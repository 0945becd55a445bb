"""What carries a torso: its root, which answers the motion of the head, and the joints of head and neck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from being_rt import _C
from being_rt.ops.native import call, check, check_float
from being_rt.ops.operators import gradient_operator, operator

MOTIONS: int = _C.operations.motions  # that a body answers: 3 of the translation, 3 of the global joint, 3 of the neck


class ResponseUnits(NamedTuple):
    """What the numbers of a trained response count in: ``G_i = per_motion_i (response_i @ about)``."""

    range: Tensor  # [2, 9] lowest and highest value of each motion that is answered
    per_motion: Tensor  # [9]
    about: Tensor  # [4, 4], of homogeneous places at rest


def body_frames(
    translation: Tensor, axis_angles: Tensor, transforms: Tensor, response: Tensor, units: ResponseUnits
) -> Tensor:
    """What carries the torso, in B frames at once: affine maps of root, global joint and neck joint.

    The twin is :func:`being_rt.reference.body_frames` of :func:`being_rt.reference.body_root`, whose motion is
    translation, axis angles of the global joint and of the neck joint, and whose maps G are those of ``units``.
    Gradients reach the translation, transforms and response, but only as what carries the body: through the motion
    that the root answers there are none, by design, for a response is not what a track is corrected for. Results are
    the same to the bit from run to run; one kernel each way. All tensors are contiguous, of one float type (float32;
    on the CPU float64 as well) and on one device.

    Args:
        translation: [B, 3] metres, common to all three maps.
        axis_angles: [B, 5, 3] radians: global, neck, jaw, left eye, right eye. No gradient.
        transforms: [B, 5, 3, 4] of :func:`being_rt.ops.skinning.skin`.
        response: [9, 12], three rows of four numbers for each motion.
        units: what it counts in. No gradients.

    Returns:
        body [B, 3, 3, 4], rest pose to world: what :func:`being_rt.ops.binding.bind_torso` takes.

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Example::

        units = ResponseUnits(response_range, torch.ones(9), torch.eye(4))  # the response is G itself
        body = body_frames(translation, axis_angles, skinned.transforms, response, units)
        bound = bind_torso(*gaussians, None, weights, body)
    """
    check_float("body_frames", "translation", translation, (-1, 3))
    frames = len(translation)
    shapes = {
        "axis_angles": (axis_angles, (frames, 5, 3)),
        "transforms": (transforms, (frames, 5, 3, 4)),
        "response": (response, (MOTIONS, 12)),
        "units.range": (units.range, (2, MOTIONS)),
        "units.per_motion": (units.per_motion, (MOTIONS,)),
        "units.about": (units.about, (4, 4)),
    }
    for name, (tensor, shape) in shapes.items():
        check("body_frames", name, tensor, shape, translation.dtype)
    body: Tensor = _body(translation, axis_angles, transforms, response, *units)
    return body


@operator("body_frames")
def _body(
    translation: Tensor,
    axis_angles: Tensor,
    transforms: Tensor,
    response: Tensor,
    response_range: Tensor,
    per_motion: Tensor,
    about: Tensor,
) -> Tensor:
    body = translation.new_empty(len(translation), 3, 3, 4)
    motion = (translation, axis_angles, response_range, per_motion, about)
    if len(body):
        _call("body", motion, transforms=transforms, response=response, body=body)
    return body


@_body.register_fake
def _(translation: Tensor, *rest: Tensor) -> Tensor:
    return translation.new_empty(translation.shape[0], 3, 3, 4)


@gradient_operator("body_frames_backward")
def _body_backward(
    d_body: Tensor,
    translation: Tensor,
    axis_angles: Tensor,
    response_range: Tensor,
    per_motion: Tensor,
    about: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Gradients of translation, transforms and response, empty where they are not wanted."""
    results = _results(d_body, wanted)
    names = ("d_translation", "d_transforms", "d_response")
    gradients = {name: result if want else None for name, result, want in zip(names, results, wanted, strict=True)}
    _call("body_backward", (translation, axis_angles, response_range, per_motion, about), d_body=d_body, **gradients)
    return results


@_body_backward.register_fake
def _(d_body: Tensor, *arguments: Any) -> list[Tensor]:
    return _results(d_body, arguments[-1])


def _results(d_body: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    frames = d_body.shape[0]
    shapes = ((frames, 3), (frames, 5, 3, 4), (MOTIONS, 12))
    return [d_body.new_empty(shape if want else (0,)) for shape, want in zip(shapes, wanted, strict=True)]


_TENSORS = ("transforms", "response", "body", "d_body", "d_translation", "d_transforms", "d_response")


def _call(name: str, motion: tuple[Tensor, ...], **tensors: Tensor | None) -> None:
    translation, axis_angles, response_range, per_motion, about = motion
    call(
        name,
        translation,
        translation=translation,
        axis_angles=axis_angles,
        response_range=response_range,
        per_motion=per_motion,
        about=about,
        frames=len(translation),
        **{key: tensors.get(key) for key in _TENSORS},
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    translation, axis_angles, _, _, *units = inputs
    ctx.save_for_backward(translation, axis_angles, *units)


def _differentiate(ctx: Any, d_body: Tensor) -> tuple[Tensor | None, ...]:
    wanted = [ctx.needs_input_grad[i] for i in (0, 2, 3)]
    if not any(wanted):
        return (None,) * 7
    results = _body_backward(d_body.contiguous(), *ctx.saved_tensors, wanted)
    translation, transforms, response = (g if want else None for g, want in zip(results, wanted, strict=True))
    return translation, None, transforms, response, None, None, None


_body.register_autograd(_differentiate, setup_context=_setup_context)
