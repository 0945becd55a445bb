"""A generated, FLAME-shaped parametric head: the same tensors, made from formulas and not from anyone's scans.

Everything runs on it where a licensed FLAME file is absent. All heads share one topology and one set of bases;
what makes a person is ``shape [300]``.

Example::

    model = procedural_head()                       # the average head and its bases
    shape = procedural_identity(seed=3)             # a person in it
    surface = HeadSurface(shape)                    # that person's skin as a signed distance
    person = procedural_head(traits=HeadTraits(masculinity=1.0, age=0.5))  # a person as the template
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import InvalidParameterError
from being_rt.flame.model import SHAPE_COUNT, FlameModel
from being_rt.flame.procedural.generator import generated_head
from being_rt.flame.procedural.head_surface import HeadSurface
from being_rt.flame.procedural.shape_space import HeadTraits, seed_weights, trait_weights

__all__ = [
    "HeadSurface",
    "HeadTraits",
    "expression_codes",
    "identity_weights",
    "procedural_head",
    "procedural_identity",
]

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]


def procedural_head(seed: int = 0, *, traits: HeadTraits | None = None) -> FlameModel:
    """The generated head as a :class:`FlameModel` (edition ``"procedural"``, 5023 vertices), cached on disk.

    Bases, topology, weights, regions and landmarks are the same for all seeds and traits; the template carries the
    identity. ``procedural_head(s)`` is ``procedural_head()`` with ``shape_basis @ procedural_identity(s)`` added.

    Args:
        seed: 0 is the average head; any other number a plausible person.
        traits: describe the person instead (the seed is then not used).

    Raises:
        InvalidParameterError: the seed is negative.
        MissingDependencyError: SciPy is needed to generate the head the first time.

    Example::

        model = procedural_head(seed=7)
        left_lid = model.regions["left_eye"]
    """
    model = generated_head().model
    shape = procedural_identity(seed, traits=traits)
    if not np.any(shape):
        return model
    return replace(model, template=np.ascontiguousarray(model.template + model.shape_basis @ shape, dtype=np.float32))


def procedural_identity(seed: int = 0, *, traits: HeadTraits | None = None) -> Float32:
    """Identity coefficients ``shape [300]`` float32 of a person, in the basis of ``procedural_head()``.

    Args:
        seed: 0 gives zeros (the average head); any other number a plausible woman or man.
        traits: describe the person instead (the seed is then not used).

    Raises:
        InvalidParameterError: the seed is negative.
    """
    if seed < 0:
        raise InvalidParameterError(f"seed must be 0 or more, got {seed}")
    weights = trait_weights(traits) if traits is not None else seed_weights(seed)
    return (generated_head().field_mixing.T @ weights).astype(np.float32)


def identity_weights(shape: NDArray[np.floating]) -> Float64:
    """Weights [300] of the identity fields that ``shape [300]`` stands for (inverse of the mixing by traits).

    Raises:
        InvalidParameterError: wrong length, or values that are not finite.
    """
    shape = np.asarray(shape, dtype=np.float64)
    if shape.shape != (SHAPE_COUNT,) or not np.isfinite(shape).all():
        raise InvalidParameterError(f"shape must be {SHAPE_COUNT} finite numbers, got an array {list(shape.shape)}")
    return generated_head().field_mixing @ shape


def expression_codes() -> dict[str, Float32]:
    """Codes ``expression [100]`` of the named fields, finer than ARKit's: smileLeft, funnel, tongueUp, lipsPart ..."""
    return dict(generated_head().expression_codes)
