"""A rig as named tensors, checked, and as a file of its own. Avatar files and data sets share the names."""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from being_rt.checks import Specification, check_arrays, check_range, check_rows, is_finite
from being_rt.errors import BeingError, FileFormatError, InvalidParameterError
from being_rt.files import atomic_write, reading
from being_rt.flame.model import EXPRESSION_COUNT, POSE_FEATURE_COUNT, ExpressionMap, check_landmarks
from being_rt.flame.rig import Rig
from being_rt.tensor_file import FILE_LIMIT, decode_tensors_and_metadata, encode_tensors, json_object

RIG_TENSORS: dict[str, Specification] = {
    "rig.template": ("float32", ("V", 3)),
    "rig.faces": ("int32", ("F", 3)),
    "rig.expression_basis": ("float16", ("V", 3, EXPRESSION_COUNT)),
    "rig.eyelid_basis": ("float16", ("V", 3, 2)),
    "rig.pose_basis": ("float16", ("V", 3, POSE_FEATURE_COUNT)),
    "rig.skinning_weights": ("float32", ("V", 5)),
    "rig.joint_rest": ("float32", (5, 3)),
    "rig.joint_expression": ("float32", (5, 3, EXPRESSION_COUNT)),
    "rig.face_frames": ("float32", ("F", 2, 2)),
}
WEIGHT_TOLERANCE = 1e-3  # of weights that sum to 1; float16 or text on the way costs this much
_MATRIX = "expression_map.matrix"
_METADATA = "rig"


def rig_tensors(rig: Rig) -> dict[str, NDArray[Any]]:
    """Every array of a rig by name: ``rig.template`` ..., ``landmarks.NAME.face``, ``expression_map.matrix``."""
    tensors = {name: getattr(rig, name.removeprefix("rig.")) for name in RIG_TENSORS}
    for name, (face, barycentric) in rig.landmarks.items():
        tensors |= {f"landmarks.{name}.face": face, f"landmarks.{name}.barycentric": barycentric}
    if rig.expression_map is not None:
        tensors[_MATRIX] = rig.expression_map.matrix
    return tensors


def take_rig(tensors: MutableMapping[str, NDArray[Any]], edition: str, expressions: tuple[str, ...] | None) -> Rig:
    """The rig that :func:`rig_tensors` described, its arrays taken out of ``tensors``.

    Args:
        expressions: names of the expression map's rows; None where the rig has no such map.

    Raises:
        ValueError: a tensor is missing, or the expression map does not have a row for each name.
    """
    landmarks = {
        name: (take(tensors, f"landmarks.{name}.face"), take(tensors, f"landmarks.{name}.barycentric"))
        for name in landmark_names(tensors)
    }
    expression_map = None if expressions is None else ExpressionMap(expressions, take(tensors, _MATRIX))
    arrays = {
        field.name: take(tensors, f"rig.{field.name}") for field in fields(Rig) if f"rig.{field.name}" in RIG_TENSORS
    }
    return Rig(edition=edition, expression_map=expression_map, landmarks=landmarks, **arrays)


def landmark_names(tensors: MutableMapping[str, NDArray[Any]]) -> list[str]:
    """Names of the landmark sets among tensors, sorted."""
    return sorted(
        name[len("landmarks.") : -len(".face")]
        for name in tensors
        if name.startswith("landmarks.") and name.endswith(".face")
    )


def take(tensors: MutableMapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """The tensor of that name, taken out. Raises ``ValueError`` where there is none."""
    if name not in tensors:
        raise ValueError(f"it has no tensor {name!r}")
    return tensors.pop(name)


def check_rig(rig: Rig) -> dict[str, int]:
    """Check a rig: dtypes, shapes, finite values, indices, weights, landmarks, expression map.

    Returns:
        V and F by name.

    Raises:
        InvalidParameterError: names the first tensor that is wrong, and how.
    """
    tensors = {name: getattr(rig, name.removeprefix("rig.")) for name in RIG_TENSORS}
    sizes = check_arrays(tensors, RIG_TENSORS)
    check_range("rig.faces", rig.faces, sizes["V"])
    check_rows("rig.skinning_weights", rig.skinning_weights, WEIGHT_TOLERANCE)
    check_rig_extras(rig)
    return sizes


def check_rig_extras(rig: Rig) -> None:
    """Check landmarks and expression map alone; raises ``InvalidParameterError``."""
    check_landmarks(rig.landmarks, len(rig.faces))
    if rig.expression_map is not None:
        if not is_finite(rig.expression_map.matrix):
            raise InvalidParameterError("rig.expression_map has values that are NaN or infinite")
        if len(set(rig.expression_map.names)) != len(rig.expression_map.names):
            raise InvalidParameterError("rig.expression_map has a name twice")


def save_rig(rig: Rig, path: str | os.PathLike[str], error: type[BeingError] = FileFormatError) -> None:
    """Write a rig as one safetensors file, all of it or nothing. The same rig gives the same bytes.

    Raises:
        InvalidParameterError: the rig is not valid.
        error: the file cannot be written.

    Example::

        save_rig(bake_rig(model), "rig.safetensors")
    """
    check_rig(rig)
    names = None if rig.expression_map is None else list(rig.expression_map.names)
    # In one entry, because safetensors writes several in any order.
    metadata = {_METADATA: json.dumps({"edition": rig.edition, "expressions": names}, ensure_ascii=False)}
    with atomic_write(path, error) as temporary:
        temporary.write_bytes(encode_tensors(rig_tensors(rig), metadata))


def load_rig(path: str | os.PathLike[str], error: type[BeingError] = FileFormatError) -> Rig:
    """Read and check what :func:`save_rig` wrote.

    Raises:
        error: missing, damaged or not a valid rig; one line says what.
    """
    with reading(path, "a rig", error):
        file = Path(path)
        if file.stat().st_size > FILE_LIMIT:
            raise ValueError(f"it is longer than {FILE_LIMIT >> 20} MB")
        tensors, metadata = decode_tensors_and_metadata(memoryview(file.read_bytes()), file.name)
        try:
            rig = take_rig(tensors, *_described(metadata))
            check_rig(rig)
        except InvalidParameterError as problem:  # readable, but not a valid rig
            raise ValueError(str(problem)) from problem
        if tensors:
            raise ValueError(f"it has an unexpected tensor {min(tensors)[:60]!r}")
        return rig


def _described(metadata: dict[str, str]) -> tuple[str, tuple[str, ...] | None]:
    """Edition and names of the expressions."""
    table = json_object(metadata.get(_METADATA, "").encode(), f"metadata {_METADATA!r}")
    edition, names = table.get("edition"), table.get("expressions")
    listed = names is None or (isinstance(names, list) and all(isinstance(name, str) for name in names))
    if not isinstance(edition, str) or not listed:
        raise ValueError("its metadata do not say the edition and the names of the expressions")
    return edition, None if names is None else tuple(names)
