"""What a batch says about which Gaussians are of use."""

from __future__ import annotations

import torch
from torch import Tensor

from being_rt.ops.native import call, check, check_float
from being_rt.ops.rasterization import SPLAT_FLOATS


def add_statistics(
    splats: Tensor,
    splats_gradient: Tensor,
    half_size: tuple[float, float],
    gradient: Tensor,
    seen: Tensor,
    opacity: Tensor,
) -> None:
    """Add to what is known of N Gaussians what a batch of B frames shows, in place and in one launch.

    All tensors are contiguous, of one float type (float32; on the CPU float64 as well) and on one device.

    Args:
        splats: [B, N, 12], from :func:`being_rt.ops.projection.project`.
        splats_gradient: [B, N, 12] dL/dsplats.
        half_size: what a derivative by x, and one by y, is multiplied by: pixels of half a picture make it one by the
            place in half pictures.
        gradient: [N], to which the sum over frames of the length of that derivative is added.
        seen: [N], to which the number of frames is added in which it is not 0.
        opacity: [N], which becomes the larger of itself and the opacities of the splats.

    Raises:
        InvalidParameterError: a tensor of a wrong shape, dtype or device, or one that is not contiguous.
        DeviceError: CUDA tensors, and this build has no CUDA part.

    Source:
        Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, section 5.2, for what the
        gradient says.

    Example::

        loss.backward()
        add_statistics(splats, splats.grad, (width / 2, height / 2), gradient, seen, opacity)
    """
    check_float("add_statistics", "splats", splats, (-1, -1, SPLAT_FLOATS))
    check("add_statistics", "splats_gradient", splats_gradient, splats.shape, splats.dtype)
    sums = {"gradient": gradient, "seen": seen, "opacity": opacity}
    for name, tensor in sums.items():
        check("add_statistics", name, tensor, splats.shape[1:2], splats.dtype)
    frames, count = splats.shape[:2]
    if frames == 0 or count == 0:
        return
    call(
        "statistics",
        splats,
        splats=splats.detach(),
        d_splats=splats_gradient.detach(),
        **{name: tensor.detach() for name, tensor in sums.items()},
        half_x=half_size[0],
        half_y=half_size[1],
        frames=frames,
        count=count,
    )
    for tensor in sums.values():
        torch.autograd.graph.increment_version(tensor)
