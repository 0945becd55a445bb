"""FLAME model files: 2020, 2023 and 2023 Open, as published (.pkl) or converted (.npz). None of them can run code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.checks import check_range
from being_rt.errors import InvalidParameterError, ModelFileError
from being_rt.files import read_npy, read_npz
from being_rt.flame.model import EXPRESSION_COUNT, PARENTS, POSE_FEATURE_COUNT, SHAPE_COUNT, FlameModel
from being_rt.flame.unpickler import as_array, read_pickle

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
FilePath = str | os.PathLike[str]

EDITIONS = ("flame-2020", "flame-2023", "flame-2023-open", "procedural", "unknown")
MAXIMUM_VERTICES = 100_000  # FLAME has 5,023; with teeth 5,143

# How an edition is recognised. All have the same keys and shapes, so what is left is:
# the published file of 2020, by its SHA-256 ...
_PICKLE_2020 = "efcd14cc4a69f3a3d9af8ded80146b5b6b50df3bd74cf69108213b144eba725b"
# ... a key that 2023 Open alone has ...
_KEY_2023_OPEN = "supr_expression_metadata"
# ... the bounds of 2023 Open's template in metres (that of 2020 differs by up to 6.6 mm) ...
_BOUNDS_2023_OPEN = ((-0.109784, -0.187242, -0.153232), (0.107766, 0.132121, 0.075089))
# ... and last the year in the name of the file or of its folder.


def load_flame_model(
    path: FilePath,
    *,
    edition: str | None = None,
    uv: FilePath | None = None,
    landmarks: Mapping[str, FilePath] | None = None,
    masks: FilePath | None = None,
    eyelids: tuple[FilePath, FilePath] | None = None,
) -> FlameModel:
    """Read a FLAME model. The file is data: whatever it holds, nothing in it is executed.

    Args:
        path: ``generic_model.pkl`` (2020), ``flame2023.pkl``, ``flame2023_Open.pkl``, or an ``.npz`` with the same
            keys: ``f``, ``v_template``, ``shapedirs``, ``posedirs``, ``J_regressor``, ``weights``, ``kintree_table``.
        edition: one of :data:`EDITIONS`; None recognises it, and says "unknown" rather than guess. Expression
            coefficients of one edition are not valid on another.
        uv: ``.npz`` with ``vt`` [U, 2] and ``ft`` [F, 3], as in FLAME's texture files. Models carry no UVs.
        landmarks: name -> ``.npz`` with ``lmk_face_idx`` [L] and ``lmk_b_coords`` [L, 3], for instance
            ``{"mediapipe105": "mediapipe_landmark_embedding.npz"}``.
        masks: ``FLAME_masks.pkl``, name -> vertex indices; becomes ``regions``.
        eyelids: two ``.npy`` [V, 3], what closing the left and the right eyelid adds. Without them the eyelid basis
            is zero, because FLAME itself has none.

    Raises:
        ModelFileError: a file is missing, damaged, hostile, or not what it should be; one line says which and why.
        InvalidParameterError: ``edition`` is not one of :data:`EDITIONS`.

    Example::

        model = load_flame_model("flame2023_Open.pkl", masks="FLAME_masks.pkl")
        model.edition  # "flame-2023-open"
    """
    if edition is not None and edition not in EDITIONS:
        raise InvalidParameterError(f"edition must be one of {', '.join(EDITIONS)}, got {edition!r}")
    with _about(path):
        content = _read_table(path)
        arrays = _model_arrays(content)
    model = FlameModel(
        edition=edition or _recognised(path, content, arrays["template"]),
        **arrays,
        eyelid_basis=_eyelid_basis(eyelids, len(arrays["template"])),
        **(_uv(uv) if uv else {}),
        regions=_regions(masks) if masks else {},
        landmarks={name: _landmarks(file) for name, file in (landmarks or {}).items()},
    )
    with _about(path):
        model.validate()
    return model


@contextmanager
def _about(path: FilePath) -> Iterator[None]:
    """Turn what is wrong with the content of a file into a ``ModelFileError`` that begins with its path."""
    try:
        yield
    except (ModelFileError, InvalidParameterError) as problem:
        message = str(problem)
        raise ModelFileError(message if str(path) in message else f"{path}: {message}") from problem


def _read_table(path: FilePath) -> dict[Any, Any]:
    suffix = Path(path).suffix.lower()
    if suffix not in (".pkl", ".npz"):
        raise ModelFileError("expected a .pkl or .npz file")
    content = read_npz(path, ModelFileError) if suffix == ".npz" else read_pickle(path)
    if not isinstance(content, dict):
        raise ModelFileError("it holds no table of arrays")
    return content


def _array(content: Mapping[Any, Any], key: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """One array of a table, of numbers, with the given shape; None fits any size."""
    if key not in content:
        raise ModelFileError(f"not a FLAME file of this kind: it has no {key!r}")
    value = content[key]
    try:
        array = value if isinstance(value, np.ndarray) else as_array(value)
    except ModelFileError as problem:
        raise ModelFileError(f"{key!r}: {problem}") from problem
    fits = len(shape) == array.ndim and all(e in (None, s) for s, e in zip(array.shape, shape, strict=True))
    if not fits or array.dtype.kind not in "iuf":
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ModelFileError(f"{key!r} should be numbers [{expected}], it is {array.dtype} {list(array.shape)}")
    return array


def _floats(array: NDArray[Any]) -> Float32:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and the model's check refuses it
        return np.ascontiguousarray(array, np.float32)


def _indices(name: str, array: NDArray[Any], limit: int) -> Int32:
    if array.dtype.kind not in "iu":
        raise ModelFileError(f"{name} has indices that are not whole numbers")
    check_range(name, array, limit)  # before the cast, which would wrap
    return np.ascontiguousarray(array, np.int32)


def _model_arrays(content: Mapping[Any, Any]) -> dict[str, Any]:
    template = _array(content, "v_template", (None, 3))
    count = len(template)
    if count > MAXIMUM_VERTICES:
        raise ModelFileError(f"it has {count} vertices, more than the {MAXIMUM_VERTICES} that are accepted")
    parents = _array(content, "kintree_table", (2, len(PARENTS)))[0]
    if not np.array_equal(parents[1:], PARENTS[1:]):  # the root's parent is written as 2^32 - 1 or -1
        raise ModelFileError(f"not FLAME's joints: their parents are {parents[1:].tolist()}, not {list(PARENTS[1:])}")
    directions = _array(content, "shapedirs", (count, 3, SHAPE_COUNT + EXPRESSION_COUNT))
    return {
        "template": _floats(template),
        "faces": _indices("f", _array(content, "f", (None, 3)), count),
        "shape_basis": _floats(directions[:, :, :SHAPE_COUNT]),
        "expression_basis": _floats(directions[:, :, SHAPE_COUNT:]),
        "pose_basis": _floats(_array(content, "posedirs", (count, 3, POSE_FEATURE_COUNT))),
        "joint_regressor": _floats(_array(content, "J_regressor", (len(PARENTS), count))),
        "skinning_weights": _floats(_array(content, "weights", (count, len(PARENTS)))),
    }


def _recognised(path: FilePath, content: Mapping[Any, Any], template: Float32) -> str:
    if Path(path).suffix.lower() == ".pkl" and hashlib.sha256(Path(path).read_bytes()).hexdigest() == _PICKLE_2020:
        return "flame-2020"
    if _KEY_2023_OPEN in content:
        return "flame-2023-open"
    bounds = np.stack([template.min(0), template.max(0)]) if len(template) else np.zeros((2, 3))
    if np.allclose(bounds, _BOUNDS_2023_OPEN, rtol=0, atol=2e-6):
        return "flame-2023-open"
    for name in (Path(path).name, Path(path).resolve().parent.name):
        if "2023" in name:
            return "flame-2023-open" if "open" in name.lower() else "flame-2023"
        if "2020" in name:
            return "flame-2020"
    return "unknown"


def _uv(path: FilePath) -> dict[str, Any]:
    with _about(path):
        content = read_npz(path, ModelFileError)
        coordinates = _array(content, "vt", (None, 2))
        return {
            "uv": _floats(coordinates),
            "uv_faces": _indices("ft", _array(content, "ft", (None, 3)), len(coordinates)),
        }


def _landmarks(path: FilePath) -> tuple[Int32, Float32]:
    with _about(path):
        content = read_npz(path, ModelFileError)
        face = _array(content, "lmk_face_idx", (None,))
        barycentric = _array(content, "lmk_b_coords", (len(face), 3))
        return _indices("lmk_face_idx", face, np.iinfo(np.int32).max), _floats(barycentric)


def _regions(path: FilePath) -> dict[str, Int32]:
    with _about(path):
        content = read_pickle(path)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ModelFileError("it holds no table of vertex masks")
        limit = np.iinfo(np.int32).max
        return {name: _indices(name, _array(content, name, (None,)), limit) for name in content}


def _eyelid_basis(paths: tuple[FilePath, FilePath] | None, count: int) -> Float32:
    basis = np.zeros((count, 3, 2), np.float32)
    for side, path in enumerate(paths or ()):
        with _about(path):
            basis[:, :, side] = _array({"the array": read_npy(path, ModelFileError)}, "the array", (count, 3))
    return basis
