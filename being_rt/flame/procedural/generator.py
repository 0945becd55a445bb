"""Put the parts together to a FLAME-shaped model, and keep it: generating takes seconds, loading a fraction of one."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from being_rt.cache import cache_directory, remove_outdated
from being_rt.errors import FileFormatError
from being_rt.files import atomic_write, read_npz
from being_rt.flame.model import ExpressionMap, FlameModel

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]

_PARTS: tuple[str, ...] = (
    *("template", "faces", "shape_basis", "expression_basis", "eyelid_basis", "pose_basis"),
    *("joint_regressor", "skinning_weights", "uv", "uv_faces"),
)


@dataclass(frozen=True)
class GeneratedHead:
    """The shared model, how its shape coefficients weigh the identity fields, and codes of named expressions."""

    model: FlameModel
    field_mixing: Float64  # [300, 300] field weights = field_mixing @ shape
    expression_codes: dict[str, Float32]  # name -> [100]


def generate() -> GeneratedHead:
    """Build the average head with all its bases. About four seconds.

    Raises:
        MissingDependencyError: SciPy is not installed.
    """
    from being_rt.flame.procedural.arkit import arkit_map
    from being_rt.flame.procedural.expressions import build_expressions, principal_basis
    from being_rt.flame.procedural.joints import joint_regressor, skinning_weights
    from being_rt.flame.procedural.regions import build_landmarks, build_regions
    from being_rt.flame.procedural.shape_space import raw_fields
    from being_rt.flame.procedural.topology import build_mesh
    from being_rt.flame.procedural.uv import build_uv

    mesh = build_mesh()
    weights = skinning_weights(mesh)
    expressions = build_expressions(mesh, weights)
    shape_basis, mixing = principal_basis(raw_fields(mesh.vertices))
    uv, uv_faces = build_uv(mesh)

    def as_float(a: Float64) -> Float32:
        return np.ascontiguousarray(a, dtype=np.float32)

    model = FlameModel(
        edition="procedural",
        template=as_float(mesh.vertices),
        faces=np.ascontiguousarray(mesh.faces, dtype=np.int32),
        shape_basis=as_float(shape_basis),
        expression_basis=as_float(expressions.basis),
        pose_basis=as_float(expressions.pose_basis),
        joint_regressor=as_float(joint_regressor(mesh)),
        skinning_weights=as_float(weights),
        eyelid_basis=as_float(expressions.eyelids),
        uv=uv,
        uv_faces=uv_faces,
        regions=build_regions(mesh),
        landmarks=build_landmarks(mesh),
        expression_map=arkit_map(expressions.codes),
    )
    return GeneratedHead(model, mixing, {name: as_float(code) for name, code in expressions.codes.items()})


def _version() -> str:
    """A key over the generator's own source, so that a changed generator never meets an old file."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _save(head: GeneratedHead, path: Path) -> None:
    model = head.model
    assert model.expression_map is not None
    arrays = {name: getattr(model, name) for name in _PARTS}
    arrays |= {f"region/{name}": ids for name, ids in model.regions.items()}
    for name, (face, barycentric) in model.landmarks.items():
        arrays |= {f"landmark/{name}/face": face, f"landmark/{name}/barycentric": barycentric}
    arrays |= {f"expression/{name}": code for name, code in head.expression_codes.items()}
    arrays["map/names"] = np.array(model.expression_map.names)
    arrays["map/matrix"] = model.expression_map.matrix
    arrays["field_mixing"] = head.field_mixing
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)


def _load(path: Path) -> GeneratedHead:
    arrays = read_npz(path)
    try:
        model = FlameModel(
            edition="procedural",
            **{name: arrays[name] for name in _PARTS},
            regions={k.split("/")[1]: a for k, a in arrays.items() if k.startswith("region/")},
            landmarks={
                k.split("/")[1]: (a, arrays[k.replace("/face", "/barycentric")])
                for k, a in arrays.items()
                if k.startswith("landmark/") and k.endswith("/face")
            },
            expression_map=ExpressionMap(tuple(map(str, arrays["map/names"])), arrays["map/matrix"]),
        )
        codes = {k.split("/")[1]: a for k, a in arrays.items() if k.startswith("expression/")}
        return GeneratedHead(model, arrays["field_mixing"], codes)
    except KeyError as error:
        raise FileFormatError(f"{path} lacks {error}; delete it, it will be made again") from error


@lru_cache(maxsize=1)
def generated_head() -> GeneratedHead:
    """The shared model: from this process, else from the cache folder, else generated and kept there.

    A damaged cache file is replaced; a cache folder that cannot be written to only costs the time next time.
    """
    try:
        path = cache_directory() / f"procedural-head-{_version()}.npz"
    except FileFormatError:
        return generate()
    try:
        return _load(path)
    except FileFormatError:
        head = generate()
    with contextlib.suppress(FileFormatError):
        _save(head, path)
        remove_outdated(path)
    return head
