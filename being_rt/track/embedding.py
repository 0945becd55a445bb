"""Where the face mesh's landmarks lie on a FLAME-shaped head: a point of a triangle for each."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.cache import cache_directory
from being_rt.checks import check_arrays, check_range
from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, read_npz
from being_rt.flame.model import FlameModel
from being_rt.track.observations import LANDMARKS
from being_rt.track.topology import LIPS

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
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

    def lips(self) -> tuple[tuple[Int32, Float32], ...]:
        """Their outer and inner edge, each once around, as :func:`being_rt.dataset.labels.region_labels` takes them;
        nothing where too few landmarks were found."""
        # Each edge: eleven points of the lower lip from corner to corner, then nine of the upper one.
        rings = [np.concatenate([edge[:11], edge[:10:-1]]) for edge in (LIPS[:20], LIPS[20:40])]
        kept = [ring[self.found[ring]] for ring in rings]
        if min(map(len, kept)) <= 10:
            return ()
        return tuple((self.face[ring], self.barycentric[ring]) for ring in kept)


_TENSORS = {
    "face": ("int32", (LANDMARKS,)),
    "barycentric": ("float32", (LANDMARKS, 3)),
    "spread": ("float32", (LANDMARKS,)),
    "found": ("bool", (LANDMARKS,)),
}


def landmark_embedding(model: FlameModel, look: Callable[[UInt8], Float32 | None] | None = None) -> Embedding:
    """Where the network sees its landmarks on a model: asked once, about half a minute, and kept in the cache folder.

    Args:
        look: the landmarks [478, 3] in a picture uint8 [H, W, 3], or None; by default the network's
            (:func:`being_rt.track.mesh.landmarks_in`). With one of your own, nothing is kept.

    Raises:
        TrackError: the network takes the model for no face, or cannot be had.

    Example::

        embedding = landmark_embedding(procedural_head())
        tip_of_the_nose = embedding.points(model.template, model.faces)[1]
    """
    from being_rt.track.embedding_find import find_landmarks

    if look is not None:
        return Embedding(*find_landmarks(model, look))
    from being_rt.track.mesh import landmarks_in

    path = _cached(model)
    if path is not None:
        with contextlib.suppress(FileFormatError, InvalidParameterError, TypeError):
            kept = Embedding(**read_npz(path))
            kept.validate(model)
            return kept
    result = Embedding(*find_landmarks(model, landmarks_in))
    if path is not None:
        with contextlib.suppress(FileFormatError, OSError):
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, **vars(result))
    return result


def _cached(model: FlameModel) -> Path | None:
    """The file of this model and this way of finding; None where there is no cache folder."""
    digest = hashlib.sha256()
    for array in (model.template, model.faces, model.skinning_weights):
        digest.update(np.ascontiguousarray(array).tobytes())
    folder = Path(__file__).parent
    for source in (*sorted(folder.glob("embedding*.py")), folder / "mesh.py"):
        digest.update(source.read_bytes())
    try:
        return cache_directory() / "embeddings" / f"{digest.hexdigest()[:16]}.npz"
    except FileFormatError:
        return None
