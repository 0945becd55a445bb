"""Where the face mesh's landmarks lie on a FLAME-shaped head: a point of a triangle for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.checks import check_arrays, check_range
from being_rt.errors import InvalidParameterError
from being_rt.flame.model import FlameModel
from being_rt.track.observations import LANDMARKS

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Embedding:
    """Landmarks of the face mesh as points of a model's triangles."""

    face: Int32  # [478] triangle; 0 where the landmark was not found
    barycentric: Float32  # [478, 3]
    spread: Float32  # [478] metres: how far its places differ from view to view
    found: Bool  # [478]

    def validate(self, model: FlameModel) -> None:
        """Check that this is an embedding into that model.

        Raises:
            InvalidParameterError: says what does not fit.
        """
        check_arrays(vars(self), _TENSORS)
        check_range("Embedding.face", self.face, model.face_count)
        if not self.found.any():
            raise InvalidParameterError("the embedding has no landmark: none was found on this model")

    def points(self, vertices: NDArray[Any], faces: Int32) -> NDArray[Any]:
        """The landmarks [..., 478, 3] on vertices [..., V, 3]."""
        corners = vertices[..., faces[self.face], :]
        return np.einsum("lk,...lka->...la", self.barycentric.astype(corners.dtype), corners)


_TENSORS = {
    "face": ("int32", (LANDMARKS,)),
    "barycentric": ("float32", (LANDMARKS, 3)),
    "spread": ("float32", (LANDMARKS,)),
    "found": ("bool", (LANDMARKS,)),
}
