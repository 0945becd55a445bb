"""What a FLAME-shaped rig is: the tensors, their meaning and their checks. No file formats, no skinning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from being_rt.checks import Specification, check_arrays, check_range, check_rows
from being_rt.errors import InvalidParameterError

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]

PARENTS = (-1, 0, 1, 1, 1)  # of the joints: global, neck, jaw, left eye, right eye
SHAPE_COUNT = 300
EXPRESSION_COUNT = 100
POSE_FEATURE_COUNT = 36


@dataclass(frozen=True)
class ExpressionMap:
    """Named expressions (ARKit's 52 names) as a linear map into FLAME parameters.

    ``weights [52] @ matrix`` gives one row of concatenated offsets: expression 100, jaw 3, eyes 6, eyelids 2
    (``COLUMNS`` says where each starts). Rows are what a weight of 1 adds; a name whose row is zero has no effect.
    """

    names: tuple[str, ...]
    matrix: Float32  # [len(names), 111]

    COLUMNS: ClassVar = {
        "expression": slice(0, 100),
        "jaw": slice(100, 103),
        "eyes": slice(103, 109),
        "eyelids": slice(109, 111),
    }

    def __post_init__(self) -> None:
        if self.matrix.shape != (len(self.names), 111) or self.matrix.dtype != np.float32:
            raise InvalidParameterError(
                f"ExpressionMap.matrix must be float32 [{len(self.names)}, 111], "
                f"got {self.matrix.dtype} {list(self.matrix.shape)}"
            )

    def offsets(self, weights: NDArray[Any]) -> dict[str, Float32]:
        """What named expressions add to FLAME's parameters.

        Args:
            weights: [len(names)] or [T, len(names)], usually 0..1.

        Returns:
            ``expression`` [T, 100], ``jaw`` [T, 3], ``eyes`` [T, 6], ``eyelids`` [T, 2], float32; no T where weights
            has none. Add them to a :class:`~being_rt.flame.params.FlameParams`'s fields of those names.

        Raises:
            InvalidParameterError: another number of weights.

        Example::

            params = FlameParams.neutral(len(weights)).replace(**expression_map.offsets(weights))
        """
        weights = np.asarray(weights, np.float32)
        if weights.ndim not in (1, 2) or weights.shape[-1] != len(self.names):
            raise InvalidParameterError(
                f"weights must be [{len(self.names)}] or [T, {len(self.names)}], got {list(weights.shape)}"
            )
        row = weights @ self.matrix
        return {name: row[..., columns] for name, columns in self.COLUMNS.items()}


@dataclass(frozen=True)
class FlameModel:
    """A FLAME-shaped head: template, linear bases, joints and skinning weights (metres, Y up, face to +Z).

    Li et al., "Learning a model of facial shape and expression from 4D scans", ACM TOG 36(6), 2017, section 4.
    V vertices, F triangles. Arrays are float32 and C-contiguous unless said otherwise.
    """

    edition: str  # "flame-2020", "flame-2023", "flame-2023-open", "procedural", "unknown"
    template: Float32  # [V, 3]
    faces: Int32  # [F, 3]
    shape_basis: Float32  # [V, 3, 300]
    expression_basis: Float32  # [V, 3, 100]
    pose_basis: Float32  # [V, 3, 36], feature = (R_1..4 - I) row-major, joint-major
    joint_regressor: Float32  # [5, V], each row sums to 1
    skinning_weights: Float32  # [V, 5], each row sums to 1
    eyelid_basis: Float32  # [V, 3, 2] left, right; added before skinning; zeros where the model has none
    uv: Float32 | None = None  # [U, 2] in 0..1
    uv_faces: Int32 | None = None  # [F, 3] indices into uv
    regions: dict[str, Int32] = field(default_factory=dict)  # name -> vertex indices
    landmarks: dict[str, tuple[Int32, Float32]] = field(default_factory=dict)  # name -> (face [L], barycentric [L, 3])
    expression_map: ExpressionMap | None = None

    @property
    def vertex_count(self) -> int:
        return int(self.template.shape[0])

    @property
    def face_count(self) -> int:
        return int(self.faces.shape[0])

    def validate(self) -> None:
        """Check that the tensors are what this class says and fit together.

        Raises:
            InvalidParameterError: names the first tensor that does not.
        """
        sizes = check_arrays(vars(self), _TENSORS)
        check_range("faces", self.faces, self.vertex_count)
        # FLAME's own weights and regressor are rounded; 1e-3 of a head's size would be 0.3 mm.
        check_rows("skinning_weights", self.skinning_weights, 1e-3)
        check_rows("joint_regressor", self.joint_regressor, 1e-3)
        if (self.uv is None) != (self.uv_faces is None):
            raise InvalidParameterError("uv and uv_faces must be given together")
        if self.uv is not None and self.uv_faces is not None:
            uvs = check_arrays({"uv": self.uv, "uv_faces": self.uv_faces, "faces": self.faces}, _UV_TENSORS)
            check_range("uv_faces", self.uv_faces, uvs["U"])
        for name, region in self.regions.items():
            check_arrays({name: region}, {name: ("int32", ("N",))})
            check_range(f"region {name}", region, self.vertex_count)
        check_landmarks(self.landmarks, sizes["F"])


def check_landmarks(landmarks: Mapping[str, tuple[Int32, Float32]], face_count: int) -> None:
    """Check landmarks given as (face [L], barycentric [L, 3]); raises ``InvalidParameterError``."""
    for name, (face, barycentric) in landmarks.items():
        label = f"landmarks {name}"
        check_arrays(
            {label: face, f"{label}, barycentric": barycentric},
            {
                label: ("int32", ("L",)),
                f"{label}, barycentric": ("float32", ("L", 3)),
            },
        )
        check_range(label, face, face_count)
        check_rows(f"{label}, barycentric", barycentric, 1e-3)


_TENSORS: dict[str, Specification] = {
    "template": ("float32", ("V", 3)),
    "faces": ("int32", ("F", 3)),
    "shape_basis": ("float32", ("V", 3, SHAPE_COUNT)),
    "expression_basis": ("float32", ("V", 3, EXPRESSION_COUNT)),
    "pose_basis": ("float32", ("V", 3, POSE_FEATURE_COUNT)),
    "joint_regressor": ("float32", (5, "V")),
    "skinning_weights": ("float32", ("V", 5)),
    "eyelid_basis": ("float32", ("V", 3, 2)),
}
_UV_TENSORS: dict[str, Specification] = {
    "uv": ("float32", ("U", 2)),
    "uv_faces": ("int32", ("F", 3)),
    "faces": ("int32", ("F", 3)),
}
