"""Hair, torso, clothes, seam and background of the demo people: valid, in place, deterministic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from being_rt.avatar.avatar import Gaussians, HeadLayer, TorsoLayer
from being_rt.avatar.demo.background import build_background
from being_rt.avatar.demo.body import Body
from being_rt.avatar.demo.cloud import triangle_frames
from being_rt.avatar.demo.features import FaceMap
from being_rt.avatar.demo.hair import build_hair
from being_rt.avatar.demo.strands import SampledField, sample_head
from being_rt.avatar.demo.torso import build_seam, build_torso, neck_opacity
from being_rt.avatar.demo.traits import HAIR_STYLES, PRESETS, PersonTraits
from being_rt.flame.model import FlameModel
from being_rt.flame.procedural import HeadSurface, procedural_head
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig


@pytest.fixture(scope="module")
def model() -> FlameModel:
    return procedural_head()


@pytest.fixture(scope="module")
def rig(model: FlameModel) -> Rig:
    return bake_rig(model)


@pytest.fixture(scope="module")
def head(rig: Rig) -> SampledField:
    return sample_head(rig, HeadSurface().signed_distance)


@pytest.fixture(scope="module")
def hair(rig: Rig, head: SampledField) -> dict[str, HeadLayer]:
    def make(style: str) -> HeadLayer:
        length = {"short": 0.05, "crop": 0.012, "bob": 0.24, "long": 0.36}.get(style, 0.05)
        traits = PersonTraits("x", hair_style=style, hair_length=length, hair_grey=0.3)
        return build_hair(rig, head, traits, np.random.default_rng(5))

    return {style: make(style) for style in HAIR_STYLES}


@pytest.fixture(scope="module")
def torso(model: FlameModel, rig: Rig, head: SampledField) -> tuple[TorsoLayer, np.ndarray]:
    return build_torso(rig, head, FaceMap(model), PRESETS["ada"], np.random.default_rng(5))


def rest(rig: Rig, layer: HeadLayer) -> np.ndarray:
    anchor = np.einsum("nk,nkd->nd", layer.barycentric, rig.template[rig.faces[layer.face]])
    return anchor + np.einsum("nij,nj->ni", triangle_frames(rig)[layer.face], layer.gaussians.position)


def check(gaussians: Gaussians) -> None:
    for array, shape in (
        (gaussians.position, (gaussians.count, 3)),
        (gaussians.rotation, (gaussians.count, 4)),
        (gaussians.log_scale, (gaussians.count, 3)),
        (gaussians.opacity_logit, (gaussians.count,)),
        (gaussians.colour, (gaussians.count, 3)),
    ):
        assert array.shape == shape
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert gaussians.facing_fade.dtype == np.bool_
    np.testing.assert_allclose(np.linalg.norm(gaussians.rotation, axis=1), 1.0, atol=1e-5)
    assert gaussians.colour.min() >= 0.0
    assert gaussians.colour.max() <= 1.0
    assert np.exp(gaussians.log_scale).max() < 0.06  # nothing as large as a hand


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_is_a_valid_layer_of_the_agreed_size(style: str, hair: dict[str, HeadLayer], rig: Rig) -> None:
    layer = hair[style]
    check(layer.gaussians)
    assert 7_000 <= layer.gaussians.count <= 18_000
    assert layer.face.min() >= 0
    assert layer.face.max() < len(rig.faces)
    np.testing.assert_allclose(layer.barycentric.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("style", HAIR_STYLES)
def test_hair_leaves_the_face_free_and_stays_outside_the_skin(
    style: str, hair: dict[str, HeadLayer], rig: Rig, head: SampledField
) -> None:
    points = rest(rig, hair[style]).astype(np.float64)
    face = (np.abs(points[:, 0]) < 0.045) & (points[:, 1] < 0.070) & (points[:, 1] > -0.09) & (points[:, 2] > 0.01)
    assert not face.any()
    depth = -head.distance(points)
    assert depth.max() < 0.008
    assert (depth > 0.002).mean() < 0.02


def test_hair_covers_the_scalp(hair: dict[str, HeadLayer], rig: Rig) -> None:
    points = rest(rig, hair["short"])
    crown = rig.template[rig.template[:, 1] > 0.115]
    gap = np.linalg.norm(points[None] - crown[:, None], axis=2).min(axis=1)
    assert gap.max() < 0.012


def test_hair_hangs_on_triangles_that_do_not_move_with_expressions(hair: dict[str, HeadLayer], rig: Rig) -> None:
    layer = hair["long"]
    low = rest(rig, layer)[:, 1] < -0.05
    assert low.any()
    motion = np.abs(rig.expression_basis.astype(np.float32)).max(axis=(1, 2))
    assert motion[rig.faces[layer.face[low]]].max() < 0.0015
    np.testing.assert_allclose(rig.skinning_weights[rig.faces[layer.face[low]], 1], 1.0, atol=0.05)


def test_long_hair_rests_on_the_body(rig: Rig, head: SampledField) -> None:
    traits = PRESETS["mei"]
    body = Body(rig, head, traits)
    layer = build_hair(rig, head, traits, np.random.default_rng(5), body.signed_distance)
    points = rest(rig, layer).astype(np.float64)
    low = points[points[:, 1] < -0.12]
    assert len(low) > 500
    assert (body.signed_distance(low) < -0.004).mean() < 0.05
    throat = (np.abs(points[:, 0]) < 0.035) & (points[:, 1] < -0.05) & (points[:, 2] > 0.0)
    assert not throat.any()


def test_grey_hair_is_lighter(rig: Rig, head: SampledField) -> None:
    dark = PersonTraits("x", hair_style="short", hair_colour=(40, 30, 24))
    young = build_hair(rig, head, dark, np.random.default_rng(5))
    old = build_hair(rig, head, replace(dark, hair_grey=0.9), np.random.default_rng(5))
    assert old.gaussians.colour.mean() > young.gaussians.colour.mean() + 0.1


@pytest.mark.parametrize("garment", ["crew", "shirt", "vneck", "turtleneck", "blazer"])
def test_torso_is_a_valid_layer(garment: str, model: FlameModel, rig: Rig, head: SampledField) -> None:
    traits = replace(PRESETS["henrik"], garment=garment)
    layer, matched = build_torso(rig, head, FaceMap(model), traits, np.random.default_rng(5))
    check(layer.gaussians)
    assert 9_000 <= layer.gaussians.count <= 19_000
    assert layer.weights.min() >= -1e-6
    np.testing.assert_allclose(layer.weights.sum(axis=1), 1.0, atol=1e-5)
    assert matched.shape == (layer.gaussians.count,)
    assert matched.min() >= 0
    assert matched.max() <= 1


def test_neck_follows_the_neck_joint_and_shoulders_do_not(torso: tuple[TorsoLayer, np.ndarray], rig: Rig) -> None:
    layer, matched = torso
    position = layer.gaussians.position
    skin = matched > 0.5
    top = skin & (position[:, 1] > rig.joint_rest[0, 1] + 0.05)
    assert top.any()
    assert layer.weights[top, 2].mean() > 0.3
    shoulder = np.abs(position[:, 0]) > 0.13
    assert layer.weights[shoulder, 2].max() < 0.02
    assert layer.weights[shoulder, 0].mean() > 0.4


def test_seam_bands(torso: tuple[TorsoLayer, np.ndarray], rig: Rig) -> None:
    layer, matched = torso
    corners = rig.template[rig.faces]
    count = len(corners)
    skin = Gaussians(
        np.zeros((count, 3), np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        np.full((count, 3), -6.0, np.float32),
        np.full(count, 3.0, np.float32),
        np.full((count, 3), 0.5, np.float32),
        np.ones(count, bool),
    )
    head_layer = HeadLayer(skin, np.arange(count, dtype=np.int32), np.full((count, 3), 1 / 3, np.float32))
    seam = build_seam(rig, head_layer, corners.mean(axis=1).astype(np.float64), layer, matched)
    assert len(seam.head_band) > 50
    assert len(seam.torso_band) > 200
    assert seam.torso_band_weight.max() > 0.9
    assert seam.torso_band_weight.min() >= 0
    assert seam.torso_band_weight.max() <= 1
    assert (matched[seam.torso_band] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(seam.axis), 1.0, atol=1e-6)
    assert seam.axis[1] > 0.8
    assert 0.04 < seam.radius < 0.09
    # The band lies on the ring all around, so that each of the eight sectors has a colour to match.
    around = corners.mean(axis=1)[seam.head_band] - seam.centre
    sector = np.floor((np.degrees(np.arctan2(around[:, 0], around[:, 2])) % 360) / 45).astype(int)
    assert set(sector) == set(range(8))


def test_head_layer_fades_out_over_the_torso(rig: Rig) -> None:
    root = rig.joint_rest[0].astype(np.float64)
    points = root + np.array([[0.0, 0.05, 0.05], [0.0, -0.03, 0.05]])
    np.testing.assert_allclose(neck_opacity(points, rig), [1.0, 0.0])


def test_background_is_soft_dithered_and_unclipped() -> None:
    plate = build_background(PRESETS["ada"])
    assert plate.shape == (1080, 1920, 3)
    assert plate.dtype == np.uint8
    assert plate.min() > 10
    assert plate.max() < 245
    # Without dither a gradient of a few levels makes runs of equal pixels a hundred long: bands.
    row = plate[540, :, 1].astype(int)
    edges = np.flatnonzero(np.diff(row))
    assert np.diff(edges).max() < 40
    rough = np.abs(np.diff(plate.astype(int), axis=1)).mean()
    assert 0.2 < rough < 1.5


def test_everything_repeats(
    model: FlameModel, rig: Rig, head: SampledField, torso: tuple[TorsoLayer, np.ndarray]
) -> None:
    again, _ = build_torso(rig, head, FaceMap(model), PRESETS["ada"], np.random.default_rng(5))
    np.testing.assert_array_equal(again.gaussians.position, torso[0].gaussians.position)
    np.testing.assert_array_equal(again.gaussians.colour, torso[0].gaussians.colour)
    traits = PRESETS["marcus"]
    first = build_hair(rig, head, traits, np.random.default_rng(3))
    second = build_hair(rig, head, traits, np.random.default_rng(3))
    np.testing.assert_array_equal(first.gaussians.position, second.gaussians.position)
    np.testing.assert_array_equal(first.gaussians.colour, second.gaussians.colour)
    small = (320, 180)
    np.testing.assert_array_equal(build_background(traits, small), build_background(traits, small))
    assert (build_background(traits, small) != build_background(PRESETS["mei"], small)).any()
