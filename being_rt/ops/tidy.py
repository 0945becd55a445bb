"""What is done to Gaussians after every step, so that their numbers keep making sense."""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check, check_float


def tidy(
    rotation: Tensor | None = None,
    colour: Tensor | None = None,
    opacity_logit: Tensor | None = None,
    log_scale: Tensor | None = None,
    position: Tensor | None = None,
    home: Tensor | None = None,
    *,
    largest_logit: float = 12.0,
    log_scale_limits: tuple[float, float] = (-12.0, -1.6),
    reach: float = 0.01,
) -> None:
    """Bring the Gaussians of a layer back to where they make sense, in place and in one launch. NaN stays NaN.

    All tensors are contiguous, of one float type (float32; on the CPU float64 as well) and on one device; what is None
    is left out.

    Args:
        rotation: quaternions [N, 4], which get unit length.
        colour: [N, 3], clamped to 0..1.
        opacity_logit: [N], clamped to ``largest_logit`` on either side of 0.
        log_scale: [N, 3], clamped to ``log_scale_limits``.
        position: [N, 3], of which x and y are clamped to ``reach`` on either side of ``home``.
        home: [N, 3], stays as it is; with ``position`` only.

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, one that is not contiguous, or none;
            position or home without the other.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Example::

        optimizer.step()
        tidy(rotation, colour, opacity_logit, log_scale)
    """
    tensors = {"rotation": rotation, "colour": colour, "opacity_logit": opacity_logit, "log_scale": log_scale}
    tensors |= {"position": position, "home": home}
    given = {name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}
    if not given:
        raise InvalidParameterError("tidy: there are no tensors")
    if (position is None) != (home is None):
        raise InvalidParameterError("tidy: position and home go together")
    like = next(iter(given.values()))
    check_float("tidy", next(iter(given)), like, like.shape)
    shapes = {"rotation": (4,), "colour": (3,), "opacity_logit": (), "log_scale": (3,), "position": (3,), "home": (3,)}
    for name, tensor in given.items():
        check("tidy", name, tensor, (len(like), *shapes[name]), like.dtype)
    if len(like) == 0:
        return
    limits = dict(zip(("least_log_scale", "largest_log_scale"), log_scale_limits, strict=True))
    absent = dict.fromkeys(tensors.keys() - given.keys())
    call("tidy", like, **given, **absent, largest_logit=largest_logit, **limits, reach=reach, count=len(like))
    for name, tensor in given.items():
        if name != "home":
            torch.autograd.graph.increment_version(tensor)
