"""Differentiable operations of the renderer as PyTorch custom ops, on the CPU (float32, float64) and CUDA (float32).

One module per operation; each is a thin, checked call of the native core with its derivative registered. The readable
definition of every one is in :mod:`being_rt.reference`. Letters in shapes: B frames of one avatar, V vertices,
F triangles, N Gaussians, H x W pixels. Conventions: docs/conventions.md.
"""

from being_rt.errors import MissingDependencyError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        "being_rt.ops needs PyTorch; install it with: pip install 'being_rt[train]'"
    ) from error
