"""Demo people: valid, deterministic, distinct; a face that is calm at rest and creases where it smiles."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from being_rt.avatar import demo
from being_rt.avatar.avatar import AnchorLatentNetwork, Avatar
from being_rt.avatar.demo import PRESETS, PersonTraits, build_avatar, demo_avatar
from being_rt.avatar.demo.cloud import quaternions, rest_positions
from being_rt.avatar.demo.lighting import develop, linear
from being_rt.avatar.demo.network import GAZE_SINE, LATENTS
from being_rt.avatar.file import load_avatar, save_avatar
from being_rt.avatar.validation import avatar_tensors, validate_avatar
from being_rt.errors import InvalidParameterError, MissingDependencyError
from being_rt.flame.rotations import matrices


@pytest.fixture(scope="module")
def ada() -> Avatar:
    return demo_avatar("ada")


def theta(avatar: Avatar, **weights: float) -> np.ndarray:
    """The network's input for weights of ARKit names."""
    expression_map = avatar.rig.expression_map
    assert expression_map is not None
    offsets = np.zeros(111)
    for name, weight in weights.items():
        offsets += weight * expression_map.matrix[expression_map.names.index(name)]
    jaw, left, right = offsets[100:103], offsets[103:106], offsets[106:109]
    turned = matrices(np.stack([jaw, left, right])) - np.eye(3)
    return np.concatenate([offsets[:100], turned.reshape(-1), offsets[109:], np.zeros(9)])


def latents(network: AnchorLatentNetwork, inputs: np.ndarray) -> np.ndarray:
    """Z_k(theta) of the record's docstring, [M, K], written out."""
    hidden = np.maximum(network.trunk_weight_0 @ inputs + network.trunk_bias_0, 0)
    hidden = np.maximum(network.trunk_weight_1 @ hidden + network.trunk_bias_1, 0)
    rows = []
    for code in network.anchor_code:
        inner = np.maximum(network.head_weight_0 @ np.concatenate([hidden, code]) + network.head_bias_0, 0)
        rows.append(network.head_weight_1 @ inner + network.head_bias_1)
    return np.stack(rows)


def offsets(network: AnchorLatentNetwork, inputs: np.ndarray) -> np.ndarray:
    """What the network adds to each Gaussian's 13 channels, [n, 13]."""
    z = np.einsum("nk,nkd->nd", network.anchor_weight, latents(network, inputs)[network.anchor_index.astype(int)])
    return np.einsum("nck,nk->nc", network.basis.astype(np.float64), z)


def network_of(avatar: Avatar) -> AnchorLatentNetwork:
    assert avatar.network is not None
    return avatar.network


def test_a_person_is_a_valid_avatar_of_the_promised_size(ada: Avatar) -> None:
    validate_avatar(ada)
    assert 40_000 <= ada.head.gaussians.count + ada.torso.gaussians.count <= 80_000
    assert 12_000 <= network_of(ada).count < ada.head.gaussians.count
    np.testing.assert_allclose(network_of(ada).anchor_weight.sum(1), 1, atol=1e-5)
    assert ada.background.shape == (1080, 1920, 3)
    assert ada.camera.size == (1920, 1080)


def test_skin_faces_outwards_and_lies_on_the_head(ada: Avatar) -> None:
    place = rest_positions(ada.rig, ada.head)
    low, high = ada.rig.template.min(0) - 0.2, ada.rig.template.max(0) + 0.2
    assert (place > low).all()
    assert (place < high).all()
    skin = np.flatnonzero(ada.head.gaussians.facing_fade[: network_of(ada).count])
    centre = ada.rig.template.mean(0)
    corners = ada.rig.template[ada.rig.faces[ada.head.face[skin]]]
    anchor = np.einsum("nk,nkd->nd", ada.head.barycentric[skin], corners)
    assert np.linalg.norm(place[skin] - anchor, axis=1).max() < 0.004
    assert ((place[skin] - centre)[:, 2] > -0.05).mean() > 0.9


def test_neutral_changes_nothing(ada: Avatar) -> None:
    inputs = theta(ada)
    assert not latents(network_of(ada), inputs).any()
    assert not offsets(network_of(ada), inputs).any()


def test_a_smile_creases_its_own_side(ada: Avatar) -> None:
    network = network_of(ada)
    changed = np.abs(offsets(network, theta(ada, mouthSmileLeft=1.0)))
    place = rest_positions(ada.rig, ada.head)[: network.count]
    skin = ada.head.gaussians.facing_fade[: network.count]
    left, right = skin & (place[:, 0] > 0.02), skin & (place[:, 0] < -0.02)
    assert changed[left, 10:].mean() > 5 * changed[right, 10:].mean()
    assert changed[left, 10:].max() > 0.05
    assert 1e-4 < changed[left, :3].max() < 3e-3


def test_signals_saturate(ada: Avatar) -> None:
    network = network_of(ada)
    once, twice = (latents(network, theta(ada, jawOpen=weight)) for weight in (1.0, 1.6))
    jaw = [latent.drivers[0] for latent in LATENTS].index("jawOpen")
    np.testing.assert_allclose(once[:, jaw].max(), 1.0, atol=0.02)
    np.testing.assert_allclose(twice[:, jaw].max(), 1.0, atol=1e-5)


def test_the_mouth_brightens_as_it_opens(ada: Avatar) -> None:
    network = network_of(ada)
    change = offsets(network, theta(ada, jawOpen=1.0))
    inside = ~ada.head.gaussians.facing_fade[: network.count]
    assert change[inside, 10:].mean() > 0.02


def test_highlights_slide_with_the_gaze(ada: Avatar) -> None:
    network = network_of(ada)
    change = offsets(network, theta(ada, eyeLookOutLeft=1.0, eyeLookInRight=1.0))
    eye = network.anchor_code[network.anchor_index[:, 0], 2] > 0
    assert eye.any()
    way = np.linalg.norm(change[eye, :3], axis=1)
    assert (way > 0.001).all()
    assert (way < 0.004).all()
    assert 0.3 < GAZE_SINE < 0.5
    assert not np.abs(change[~eye, :3]).max() > 1e-3


def test_the_same_traits_give_the_same_person() -> None:
    traits = dataclasses.replace(PRESETS["marcus"], beard=0.3)
    one, two = (avatar_tensors(build_avatar(traits, spacing=3.0)) for _ in range(2))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert np.array_equal(tensor, two[name]), name


def test_saving_and_loading_keeps_everything(ada: Avatar, tmp_path: Path) -> None:
    save_avatar(ada, tmp_path / "ada.being")
    loaded = load_avatar(tmp_path / "ada.being")
    before, after = avatar_tensors(ada), avatar_tensors(loaded)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert loaded.name == "ada"
    assert loaded.metadata["title"] == PRESETS["ada"].title
    assert np.array_equal(loaded.background, ada.background)


def test_people_are_generated_once(ada: Avatar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def build(traits: PersonTraits) -> Avatar:
        built.append(traits.name)
        return ada

    monkeypatch.setenv("BEING_RT_CACHE", str(tmp_path))
    monkeypatch.setattr(demo, "build_avatar", build)
    assert demo_avatar("ada").name == "ada"
    assert demo_avatar("ada").name == "ada"
    assert built == ["ada"]
    [path] = tmp_path.glob("demo-ada-*.being")
    path.write_bytes(path.read_bytes()[:1000])
    outdated = tmp_path / f"demo-ada-{'0' * 16}.being"
    outdated.write_bytes(b"of an earlier version")
    assert demo_avatar("ada").name == "ada"
    assert built == ["ada", "ada"]
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.setenv("BEING_RT_CACHE", str(path / "no folder"))
    assert demo_avatar("ada").name == "ada"


def test_presets_are_different_people() -> None:
    from being_rt.flame.procedural import procedural_identity

    people = list(PRESETS.values())
    assert len(people) >= 4
    assert {person.femininity > 0.5 for person in people} == {True, False}
    assert len({person.hair_style for person in people}) >= 4
    assert max(person.age for person in people) - min(person.age for person in people) > 25
    identities = [procedural_identity(traits=demo.head_traits(person)) for person in people]
    for first in range(len(people)):
        for second in range(first):
            assert np.linalg.norm(identities[first] - identities[second]) > 0.5
            assert people[first].seed != people[second].seed
    skins = np.stack([person.skin_albedo for person in people])
    assert skins[:, 0].max() > 3 * skins[:, 0].min()
    assert ((skins > 0) & (skins < 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name != "ada"])
def test_every_preset_is_valid(name: str) -> None:
    avatar = demo_avatar(name)
    validate_avatar(avatar)
    assert 40_000 <= avatar.head.gaussians.count + avatar.torso.gaussians.count <= 80_000


def test_wrong_wishes_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="choose one of ada"):
        demo_avatar("nobody")
    with pytest.raises(InvalidParameterError, match="hair_style"):
        PersonTraits("x", hair_style="mohawk")
    with pytest.raises(InvalidParameterError, match="garment"):
        PersonTraits("x", garment="toga")
    with pytest.raises(InvalidParameterError, match="horns"):
        demo.head_traits(PersonTraits("x", head={"horns": 1.0}))


def test_without_scipy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    with pytest.raises(MissingDependencyError, match="demo"):
        build_avatar(PRESETS["ada"])


@given(st.lists(st.floats(0, 50), min_size=2, max_size=20))
def test_film_is_monotone_and_never_clips(values: list[float]) -> None:
    light = np.sort(np.array(values))
    developed: Any = develop(light)
    assert (np.diff(developed) >= 0).all()
    assert developed.min() >= 0
    assert developed.max() < 1


def test_film_keeps_middle_grey() -> None:
    np.testing.assert_allclose(linear(255 * develop(np.array([0.18]))), 0.18, rtol=1e-6)


@given(st.integers(0, 10_000))
def test_quaternions_invert_rotation_matrices(seed: int) -> None:
    axes = np.random.default_rng(seed).normal(size=(20, 3)) * 2
    rotation = matrices(axes)
    w, x, y, z = quaternions(rotation).T
    back = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1),
        ],
        1,
    )
    np.testing.assert_allclose(back, rotation, atol=1e-6)
