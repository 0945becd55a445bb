"""What a valid avatar is: every tensor with its dtype and shape, and what must hold between them.

The renderer and the avatar file share these checks, so that native code never sees an index or a size that does not
fit. Names of tensors are those of the records, and of the members of the file: ``head.position``, ``rig.faces``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import CHANNELS, MOTIONS, Avatar, Camera, Gaussians, Seam
from being_rt.checks import Specification, check_arrays, check_range, check_rows
from being_rt.errors import InvalidParameterError
from being_rt.flame.rig_file import RIG_TENSORS, WEIGHT_TOLERANCE, check_rig_extras

THETA_COUNT = 138  # conditioning of the offset network, see AnchorLatentNetwork
MAXIMUM_SIDE = 16384  # pixels of a picture's side
MAXIMUM_PIXELS = 1 << 26  # 8192 x 8192; 200 MB of RGB
MAXIMUM_TEXT = 20_000  # characters of a name, licence, consent note or metadata entry
SUM_TOLERANCE = WEIGHT_TOLERANCE  # of weights that sum to 1, and of unit vectors

_GAUSSIANS: dict[str, tuple[str, tuple[int, ...]]] = {
    "position": ("float32", (3,)),
    "rotation": ("float32", (4,)),
    "log_scale": ("float32", (3,)),
    "opacity_logit": ("float32", ()),
    "colour": ("float32", (3,)),
    "facing_fade": ("bool", ()),
}
TENSORS: dict[str, Specification] = {
    **RIG_TENSORS,
    **{f"head.{name}": (dtype, ("N", *shape)) for name, (dtype, shape) in _GAUSSIANS.items()},
    "head.face": ("int32", ("N",)),
    "head.barycentric": ("float32", ("N", 3)),
    **{f"torso.{name}": (dtype, ("T", *shape)) for name, (dtype, shape) in _GAUSSIANS.items()},
    "torso.weights": ("float32", ("T", 3)),
    "torso.response": ("float32", (MOTIONS, 3, 4)),
    "torso.response_range": ("float32", (2, MOTIONS)),
    "seam.centre": ("float32", (3,)),
    "seam.axis": ("float32", (3,)),
    "seam.head_band": ("int32", ("B",)),
    "seam.torso_band": ("int32", ("D",)),
    "seam.torso_band_weight": ("float32", ("D",)),
}
NETWORK_TENSORS: dict[str, Specification] = {
    "network.trunk_weight_0": ("float32", ("H0", THETA_COUNT)),
    "network.trunk_bias_0": ("float32", ("H0",)),
    "network.trunk_weight_1": ("float32", ("H1", "H0")),
    "network.trunk_bias_1": ("float32", ("H1",)),
    "network.anchor_code": ("float32", ("M", "C")),
    "network.head_weight_0": ("float32", ("H2", "H1 + C")),
    "network.head_bias_0": ("float32", ("H2",)),
    "network.head_weight_1": ("float32", ("K", "H2")),
    "network.head_bias_1": ("float32", ("K",)),
    "network.anchor_index": ("uint16", ("n", 4)),
    "network.anchor_weight": ("float32", ("n", 4)),
    "network.basis": ("float16", ("n", CHANNELS, "K")),
}


def avatar_tensors(avatar: Avatar) -> dict[str, NDArray[Any]]:
    """All arrays of an avatar but the background, by name; landmarks and expression map excluded."""
    tensors = {name: getattr(avatar.rig, name.removeprefix("rig.")) for name in RIG_TENSORS}
    for layer_name, layer in (("head", avatar.head), ("torso", avatar.torso)):
        tensors |= {f"{layer_name}.{field.name}": getattr(layer.gaussians, field.name) for field in fields(Gaussians)}
        tensors |= {f"{layer_name}.{f.name}": getattr(layer, f.name) for f in fields(layer) if f.name != "gaussians"}
    tensors |= {name: getattr(avatar.seam, name.removeprefix("seam.")) for name in TENSORS if name.startswith("seam.")}
    if avatar.network is not None:
        tensors |= {name: getattr(avatar.network, name.removeprefix("network.")) for name in NETWORK_TENSORS}
    return tensors


def validate_avatar(avatar: Avatar) -> None:
    """Check everything that drawing relies on: dtypes, shapes, finite values, index ranges, weights, camera, text.

    Takes about 10 ms for 60,000 Gaussians.

    Raises:
        InvalidParameterError: names the first tensor or field that is wrong, and how.

    Example::

        validate_avatar(dataclasses.replace(avatar, name="Ada"))
    """
    tensors = avatar_tensors(avatar)
    table = TENSORS | (NETWORK_TENSORS if avatar.network is not None else {})
    sizes = check_arrays(tensors, table)
    check_range("rig.faces", tensors["rig.faces"], sizes["V"])
    check_range("head.face", tensors["head.face"], sizes["F"])
    check_range("seam.head_band", tensors["seam.head_band"], sizes["N"])
    check_range("seam.torso_band", tensors["seam.torso_band"], sizes["T"])
    weighted = ["rig.skinning_weights", "head.barycentric", "torso.weights"]
    if avatar.network is not None:
        if sizes["H1 + C"] != sizes["H1"] + sizes["C"]:
            raise InvalidParameterError(
                f"network.head_weight_0 must have {sizes['H1']} + {sizes['C']} columns, got {sizes['H1 + C']}"
            )
        if sizes["n"] > sizes["N"]:
            raise InvalidParameterError(f"network.basis has {sizes['n']} rows for {sizes['N']} head Gaussians")
        check_range("network.anchor_index", tensors["network.anchor_index"], sizes["M"])
        weighted.append("network.anchor_weight")
    for name in weighted:
        check_rows(name, tensors[name], SUM_TOLERANCE)
    for layer in ("head", "torso"):
        _check_gaussians(layer, tensors)
    low, high = tensors["torso.response_range"]
    if (low > high).any():
        raise InvalidParameterError("torso.response_range has a lowest value above the highest")
    if np.abs(tensors["torso.response"]).max() > 1e4:
        raise InvalidParameterError("torso.response has values beyond 10,000 per metre or radian")
    has_area = np.any(tensors["rig.face_frames"].reshape(-1, 4), axis=1)
    if not np.all(has_area[tensors["head.face"]]):
        raise InvalidParameterError("head.face binds Gaussians to triangles without area")
    check_rig_extras(avatar.rig)
    _check_seam(avatar.seam)
    validate_camera(avatar.camera)
    _check_picture("background", avatar.background)
    _check_text(avatar)


def validate_camera(camera: Camera) -> None:
    """Check a camera: a rigid ``world_to_camera``, upper triangular ``intrinsics``, a size from 1 to 16384 pixels.

    Raises:
        InvalidParameterError: says what is wrong.
    """
    arrays = {"camera.world_to_camera": camera.world_to_camera, "camera.intrinsics": camera.intrinsics}
    check_arrays(arrays, {"camera.world_to_camera": ("float32", (4, 4)), "camera.intrinsics": ("float32", (3, 3))})
    rotation = camera.world_to_camera[:3, :3].astype(np.float64)
    rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() <= SUM_TOLERANCE and np.linalg.det(rotation) > 0
    if not rigid or not np.array_equal(camera.world_to_camera[3], (0, 0, 0, 1)):
        raise InvalidParameterError("camera.world_to_camera must be a rotation and a translation with last row 0 0 0 1")
    k = camera.intrinsics
    if k[0, 0] <= 0 or k[1, 1] <= 0 or k[1, 0] or not np.array_equal(k[2], (0, 0, 1)):
        raise InvalidParameterError("camera.intrinsics must be [[fx > 0, skew, cx], [0, fy > 0, cy], [0, 0, 1]]")
    check_size("camera.size", camera.size)


def check_size(name: str, size: Any) -> None:
    """Check a picture size (width, height): whole pixels, sides from 1 to 16384, at most 64 million in all."""
    good = isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int | np.integer) for side in size)
    if not good or not all(1 <= side <= MAXIMUM_SIDE for side in size) or size[0] * size[1] > MAXIMUM_PIXELS:
        raise InvalidParameterError(
            f"{name} must be two whole numbers from 1 to {MAXIMUM_SIDE}, at most {MAXIMUM_PIXELS} pixels, got {size!r}"
        )


def is_text(value: Any) -> bool:
    """Whether a value is text that a terminal can show: control characters but line ends and tabs could rewrite it."""
    return (
        isinstance(value, str)
        and len(value) <= MAXIMUM_TEXT
        and value.replace("\n", "").replace("\t", "").isprintable()
    )


def _check_gaussians(layer: str, tensors: dict[str, NDArray[Any]]) -> None:
    rotation, scale = tensors[f"{layer}.rotation"], tensors[f"{layer}.log_scale"]
    if not len(rotation):
        return
    if np.abs(np.einsum("nk,nk->n", rotation, rotation) - 1).max() > 2 * SUM_TOLERANCE:
        raise InvalidParameterError(f"{layer}.rotation has quaternions that are not of length 1")
    if np.abs(tensors[f"{layer}.position"]).max() > 1e3:
        raise InvalidParameterError(f"{layer}.position has values beyond 1 km; the unit is the metre")
    if np.abs(scale).max() > 20:  # e^20 is 485,000 km, and its square still fits into float32
        raise InvalidParameterError(f"{layer}.log_scale has values outside -20..20; stored scales are log metres")


def _check_seam(seam: Seam) -> None:
    if not 0 <= seam.radius <= 10:
        raise InvalidParameterError(f"seam.radius must lie in [0, 10] metres, got {seam.radius}")
    for name in ("half_height", "depth_softness"):
        if not 0 < getattr(seam, name) <= 10:
            raise InvalidParameterError(f"seam.{name} must lie in (0, 10] metres, got {getattr(seam, name)}")
    if abs(float(np.linalg.norm(seam.axis)) - 1) > SUM_TOLERANCE:
        raise InvalidParameterError("seam.axis must be of length 1")
    weight = seam.torso_band_weight
    if weight.size and (weight.min() < 0 or weight.max() > 1):
        raise InvalidParameterError("seam.torso_band_weight has values outside 0..1")


def _check_picture(name: str, picture: NDArray[Any]) -> None:
    sizes = check_arrays({name: picture}, {name: ("uint8", ("H", "W", 3))})
    check_size(f"{name} size", (sizes["W"], sizes["H"]))


def _check_text(avatar: Avatar) -> None:
    named = {
        "name": avatar.name,
        "licence": avatar.licence,
        "consent": avatar.consent,
        "rig.edition": avatar.rig.edition,
    }
    named |= {f"metadata {key!r}": value for key, value in avatar.metadata.items()}
    named |= {f"key {key!r} of metadata": key for key in avatar.metadata}
    named |= {f"landmarks {key!r}": key for key in avatar.rig.landmarks}
    if avatar.rig.expression_map is not None:
        named |= {f"expression {key!r}": key for key in avatar.rig.expression_map.names}
    for name, text in named.items():
        if not is_text(text):
            raise InvalidParameterError(f"{name} must be printable text of at most {MAXIMUM_TEXT} characters")
    if not avatar.name or "\n" in avatar.name:
        raise InvalidParameterError("name must be one line of text")
    if not isinstance(avatar.antialiased, bool):
        raise InvalidParameterError("antialiased must be True or False")
