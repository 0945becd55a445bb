"""Demo people: whole avatars that are generated, so that everything runs without anybody's face or licensed file.

Example::

    avatar = demo_avatar("ada")          # generated once, then read from the cache folder
    for person in PRESETS.values():
        print(person.name, person.title)
    mine = build_avatar(dataclasses.replace(PRESETS["ada"], name="zoe", hair_style="long"))
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.demo.traits import PRESETS, PersonTraits
from being_rt.errors import FileFormatError, InvalidParameterError, MissingDependencyError

if TYPE_CHECKING:
    from being_rt.avatar.avatar import Avatar, Camera, HeadLayer
    from being_rt.flame.procedural import HeadTraits
    from being_rt.flame.rig import Rig

__all__ = ["PRESETS", "PersonTraits", "build_avatar", "demo_avatar"]

FRAME = (1920, 1080)
FIELD_OF_VIEW = 18.5  # degrees, vertical
CAMERA_DISTANCE = 1.40  # metres from the face
CAMERA_HEIGHT = -0.045  # metres: the head's room above, chest below
INDIVIDUALITY = 0.35  # of the random identity of the same seed that is mixed in
LICENCE = "Apache-2.0"
CONSENT = "Generated from formulas; shows nobody."


def demo_avatar(name: str = "ada") -> Avatar:
    """A generated person by name; built in some ten seconds the first time, then read from the cache folder.

    Args:
        name: a key of ``PRESETS``.

    Raises:
        InvalidParameterError: there is no person of that name.
        MissingDependencyError: SciPy is needed to generate a person the first time.

    Example::

        avatar = demo_avatar("marcus")
    """
    from being_rt.avatar.file import load_avatar, save_avatar
    from being_rt.cache import cache_directory, remove_outdated

    if name not in PRESETS:
        raise InvalidParameterError(f"there is no demo person {name!r}; choose one of {', '.join(PRESETS)}")
    traits = PRESETS[name]
    try:
        path = cache_directory() / f"demo-{name}-{_content_key(traits)}.being"
    except FileFormatError:  # no place to keep anything: it only costs the time again
        return build_avatar(traits)
    with suppress(FileFormatError):  # not there yet, or damaged
        return load_avatar(path)
    avatar = build_avatar(traits)
    with suppress(FileFormatError):
        save_avatar(avatar, path)
        remove_outdated(path)
    return avatar


def build_avatar(traits: PersonTraits, spacing: float = 1.0) -> Avatar:
    """Generate a person. Deterministic: the same traits give the same avatar.

    Args:
        traits: the person.
        spacing: multiplies the distance between the face's Gaussians: 1 is made for 1080p.

    Raises:
        InvalidParameterError: ``traits.head`` names a trait that the procedural head does not have.
        MissingDependencyError: SciPy is not installed.
    """
    try:
        import scipy.ndimage
        import scipy.spatial  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "generating a demo person needs SciPy; install being_rt with its extra: pip install 'being_rt[demo]'"
        ) from error
    from being_rt.avatar.avatar import Avatar
    from being_rt.avatar.demo.background import build_background
    from being_rt.avatar.demo.body import Body
    from being_rt.avatar.demo.cloud import rest_positions
    from being_rt.avatar.demo.face import build_face
    from being_rt.avatar.demo.features import FaceMap
    from being_rt.avatar.demo.hair import build_hair
    from being_rt.avatar.demo.occlusion import hair_and_head
    from being_rt.avatar.demo.strands import sample_head
    from being_rt.avatar.demo.torso import build_seam, build_torso, neck_opacity
    from being_rt.flame.procedural import HeadSurface, procedural_head, procedural_identity
    from being_rt.flame.skinning import bake_rig

    model = procedural_head()
    # A share of a random person: features that no word names, and a little asymmetry.
    shape = procedural_identity(traits=head_traits(traits)) + INDIVIDUALITY * procedural_identity(traits.seed)
    rig = bake_rig(model, shape)
    face_map = FaceMap(model)
    surface = HeadSurface(shape).signed_distance
    field = sample_head(rig, surface)
    body = Body(rig, field, traits)
    hair = build_hair(rig, field, traits, np.random.default_rng(traits.seed * 3 + 1), body.signed_distance)
    occluders = hair_and_head(rig, field, surface, hair)

    def cover(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return neck_opacity(points, rig)

    face, network = build_face(model, face_map, rig, surface, occluders, cover, traits, spacing)
    torso, matched = build_torso(rig, field, face_map, traits, np.random.default_rng(traits.seed * 3 + 2), body, hair)
    head = _join(face, hair)
    return Avatar(
        name=traits.name,
        rig=_at_rest(rig, traits),
        head=head,
        torso=torso,
        network=network,
        seam=build_seam(rig, head, rest_positions(rig, head), torso, matched),
        camera=portrait_camera(),
        background=build_background(traits),
        licence=LICENCE,
        consent=CONSENT,
        metadata={"title": traits.title, "generator": "being_rt.avatar.demo"},
    )


def head_traits(traits: PersonTraits) -> HeadTraits:
    """The procedural head's traits of a person: sex and age from the person, the rest from ``traits.head``."""
    from being_rt.flame.procedural import HeadTraits

    given = {"masculinity": 1.0 - 2.0 * traits.femininity, "age": (traits.age - 30.0) / 30.0, **traits.head}
    try:
        return HeadTraits(**given)
    except TypeError as error:
        raise InvalidParameterError(f"traits.head of {traits.name!r}: {error}") from error


def _at_rest(rig: Rig, traits: PersonTraits) -> Rig:
    """The rig with the person's resting expression in its template: nobody's face is blank.

    Triangle frames stay those of the blank face, so Gaussians move as they do under the same expression.
    """
    table = rig.expression_map
    if table is None or not traits.resting:
        return rig
    code = np.zeros(100, np.float32)
    for name, amount in traits.resting.items():
        rows = [row for row in (name, f"{name}Left", f"{name}Right") if row in table.names]
        if not rows:
            raise InvalidParameterError(f"traits.resting of {traits.name!r}: there is no expression {name!r}")
        for row in rows:
            code += np.float32(amount) * table.matrix[table.names.index(row), :100]
    shift = (rig.expression_basis.astype(np.float32) @ code).astype(np.float32)
    return replace(rig, template=rig.template + shift, joint_rest=rig.joint_rest + rig.joint_expression @ code)


def portrait_camera() -> Camera:
    """The camera of all demo people: a portrait lens at head height, 1080p."""
    from being_rt.avatar.avatar import Camera

    width, height = FRAME
    focal = 0.5 * height / np.tan(np.radians(FIELD_OF_VIEW) / 2.0)
    world_to_camera = np.diag([1.0, -1.0, -1.0, 1.0])
    world_to_camera[1, 3] = CAMERA_HEIGHT
    world_to_camera[2, 3] = CAMERA_DISTANCE
    intrinsics = np.array([[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]])
    return Camera(world_to_camera.astype(np.float32), intrinsics.astype(np.float32), FRAME)


def _join(first: HeadLayer, second: HeadLayer) -> HeadLayer:
    from being_rt.avatar.avatar import Gaussians, HeadLayer

    gaussians = {
        item.name: np.concatenate([getattr(first.gaussians, item.name), getattr(second.gaussians, item.name)])
        for item in fields(Gaussians)
    }
    return HeadLayer(
        Gaussians(**gaussians),
        np.concatenate([first.face, second.face]),
        np.concatenate([first.barycentric, second.barycentric]),
    )


def _content_key(traits: PersonTraits) -> str:
    """Changes with the person and with every line of code that makes it."""
    digest = hashlib.sha256(repr(traits).encode())
    home = Path(__file__).parent
    for source in sorted([*home.glob("*.py"), *(home.parents[1] / "flame" / "procedural").glob("*.py")]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
