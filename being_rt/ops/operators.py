"""Operations as PyTorch's dispatcher knows them: schema, kernel, shapes without data, derivative.

``torch.library.custom_op`` does the same, but the first call of anything that it made imports the whole of
``torch._dynamo``, which nothing here uses: a second at best, more where files are slow to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_NAMESPACE = "being_rt"
_LIBRARY = torch.library.Library(_NAMESPACE, "FRAGMENT")


class Operator:
    """``torch.ops.being_rt.NAME``. Called with the function's arguments in order, none of which is changed in place."""

    def __init__(self, name: str, kernel: Callable[..., Any], schema: str | None) -> None:
        self._name = f"{_NAMESPACE}::{name}"
        schema = schema or torch.library.infer_schema(kernel, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
        self._call = getattr(getattr(torch.ops, _NAMESPACE), name).default

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> None:
        """Say what shapes come out, as ``torch.library.register_fake`` wants it. Decorates."""
        torch.library.register_fake(self._name, function, lib=_LIBRARY)

    def register_autograd(self, backward: Callable[..., Any], setup_context: Callable[..., None] | None = None) -> None:
        """Say how to differentiate, as ``torch.library.register_autograd`` wants it."""
        torch.library.register_autograd(self._name, backward, setup_context=setup_context, lib=_LIBRARY)


def operator(name: str, schema: str | None = None) -> Callable[[Callable[..., Any]], Operator]:
    """Make a function of tensors an operator.

    Args:
        schema: "(Tensor a, float b) -> Tensor"; by default as the function's annotations say.

    Example::

        @operator("over")
        def _over(layer: Tensor, background: Tensor) -> Tensor: ...
    """
    return lambda kernel: Operator(name, kernel, schema)


def gradient_operator(name: str, schema: str | None = None) -> Callable[[Callable[..., Any]], Operator]:
    """As :func:`operator`, for what computes a gradient; to differentiate that again raises ``RuntimeError``."""

    def no_derivative(*_: Any) -> None:
        raise RuntimeError(f"{_NAMESPACE}::{name} has no derivative: being_rt has no second derivatives")

    def make(kernel: Callable[..., Any]) -> Operator:
        made = Operator(name, kernel, schema)
        made.register_autograd(no_derivative)
        return made

    return make
