"""Baking and skinning, against smplx and against what must hold of any rig."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_flame_params import random_params

from being_rt.errors import InvalidParameterError
from being_rt.flame.loader import load_flame_model
from being_rt.flame.model import FlameModel
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices
from being_rt.flame.skinning import bake_rig, face_frames, lip_gap, on_surface, skin

PARITY = 1e-5  # metres


def random_flame(vertices: int, seed: int = 0) -> dict[str, Any]:
    """A FLAME table of FLAME's magnitudes: bases that decay from 2 mm per unit, joints regressed from few vertices."""
    random_ = np.random.default_rng(seed)
    weights = random_.random((vertices, 5)) ** 4
    regressor = random_.random((5, vertices)) * (random_.random((5, vertices)) < 0.02) + 1e-6
    decay = 2e-3 / np.sqrt(1 + np.concatenate([np.arange(300), np.arange(100)]))
    return {
        "f": random_.integers(0, vertices, (2 * vertices, 3)).astype(np.uint32),
        "v_template": random_.normal(0, 0.07, (vertices, 3)),
        "shapedirs": random_.normal(0, 1, (vertices, 3, 400)) * decay,
        "posedirs": random_.normal(0, 1e-3, (vertices, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(regressor / regressor.sum(1, keepdims=True)),
        "J": np.zeros((5, 3)),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flame")
    (folder / "FLAME_NEUTRAL.pkl").write_bytes(pickle.dumps(random_flame(5023), 2))
    landmarks = {"lmk_face_idx": np.zeros(51, np.int64), "lmk_b_coords": np.full((51, 3), 1 / 3)}
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(landmarks, 2))
    return folder / "FLAME_NEUTRAL.pkl"


@pytest.fixture(scope="module")
def model(model_file: Path) -> FlameModel:
    return load_flame_model(model_file)


@pytest.fixture(scope="module")
def rig(model: FlameModel) -> Rig:
    lids = np.random.default_rng(8).normal(0, 2e-3, (5023, 3, 2)).astype(np.float32)
    return bake_rig(replace(model, eyelid_basis=lids), np.random.default_rng(9).normal(size=20))


def test_vertices_equal_smplx(model_file: Path, model: FlameModel) -> None:
    smplx = pytest.importorskip("smplx")
    torch = pytest.importorskip("torch")
    count = 6
    params = random_params(count, seed=2)
    params = params.replace(eyelids=np.zeros((count, 2)), expression=params.expression * 3)
    shape = np.random.default_rng(3).normal(size=300).astype(np.float32)
    layer = smplx.FLAME(str(model_file.parent), num_betas=300, num_expression_coeffs=100, batch_size=count)
    with torch.no_grad():
        expected = layer(
            betas=torch.tensor(shape).expand(count, -1),
            expression=torch.tensor(params.expression),
            global_orient=torch.tensor(params.rotation),
            neck_pose=torch.tensor(params.neck),
            jaw_pose=torch.tensor(params.jaw),
            leye_pose=torch.tensor(params.eyes[:, :3]),
            reye_pose=torch.tensor(params.eyes[:, 3:]),
            transl=torch.tensor(params.translation),
        ).vertices.numpy()
    vertices = skin(bake_rig(model, shape), params)
    assert vertices.dtype == np.float32
    assert np.abs(vertices - expected).max() < PARITY


def reference_skin(rig: Rig, params: FlameParams) -> NDArray[np.float64]:
    """One frame in float64, written from the paper's equations with 4 x 4 matrices."""
    rotation = matrices(np.concatenate([params.rotation, params.neck, params.jaw, params.eyes], 1).reshape(5, 3))
    expression, lids = params.expression[0].astype(np.float64), params.eyelids[0].astype(np.float64)
    joints = rig.joint_rest + rig.joint_expression.astype(np.float64) @ expression
    shaped = rig.template + rig.expression_basis.astype(np.float64) @ expression
    shaped += rig.eyelid_basis.astype(np.float64) @ lids
    shaped += rig.pose_basis.astype(np.float64) @ (rotation[1:] - np.eye(3)).ravel()
    world: list[NDArray[np.float64]] = []
    for joint, parent in enumerate((-1, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = rotation[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    for transform, joint_place in zip(world, joints, strict=True):
        transform[:3, 3] -= transform[:3, :3] @ joint_place
    homogeneous = np.concatenate([shaped, np.ones((len(shaped), 1))], 1)
    posed = np.einsum("vj,jab,vb->va", rig.skinning_weights.astype(np.float64), np.array(world), homogeneous)
    return posed[:, :3] + params.translation


def test_vertices_equal_the_equations_with_eyelids(rig: Rig) -> None:
    params = random_params(3, seed=6)
    vertices = skin(rig, params)
    for index, frame in enumerate(params):
        assert np.abs(vertices[index] - reference_skin(rig, frame)).max() < 2e-6


def test_the_neutral_frame_is_the_template(rig: Rig) -> None:
    assert np.abs(skin(rig, FlameParams.neutral(2)) - rig.template).max() < 1e-6


def test_eyelids_act_before_skinning(rig: Rig) -> None:
    turned = FlameParams.neutral().replace(rotation=np.array([[0.3, -0.5, 0.2]]))
    moved = skin(rig, turned.replace(eyelids=np.array([[1.0, 0.25]])))[0] - skin(rig, turned)[0]
    offset = rig.eyelid_basis.astype(np.float64) @ [1, 0.25]
    assert np.allclose(moved, offset @ matrices(turned.rotation[0]).T, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 100))
def test_global_rotation_and_translation_move_the_head_rigidly(rig: Rig, seed: int) -> None:
    params = random_params(1, seed)
    still = params.replace(rotation=np.zeros((1, 3)), translation=np.zeros((1, 3)))
    root = rig.joint_rest[0] + rig.joint_expression[0].astype(np.float64) @ params.expression[0]
    expected = (skin(rig, still)[0] - root) @ matrices(params.rotation[0]).T + root + params.translation
    assert np.abs(skin(rig, params)[0] - expected).max() < 2e-6


def test_every_frame_is_skinned_alone(rig: Rig) -> None:
    params = random_params(5, seed=1)
    together = skin(rig, params)
    for index in range(5):
        assert np.array_equal(skin(rig, params[index])[0], together[index])


def test_identity_moves_template_and_joints(model: FlameModel) -> None:
    shape = np.array([0.5, -2.0])
    rig = bake_rig(model, shape)
    expected = model.template + model.shape_basis[:, :, :2].astype(np.float64) @ shape
    assert np.allclose(rig.template, expected, atol=1e-6)
    assert np.allclose(rig.joint_rest, model.joint_regressor.astype(np.float64) @ expected, atol=1e-6)
    assert np.array_equal(bake_rig(model).template, model.template)
    # The joints of an expressive face are those regressed from its vertices.
    expression = np.random.default_rng(0).normal(size=100)
    shaped = expected + model.expression_basis.astype(np.float64) @ expression
    joints = rig.joint_rest + rig.joint_expression.astype(np.float64) @ expression
    assert np.allclose(joints, model.joint_regressor.astype(np.float64) @ shaped, atol=1e-6)
    for bad in (np.zeros(301), np.zeros((2, 2)), np.array([np.nan])):
        with pytest.raises(InvalidParameterError, match="shape must be at most 300 finite numbers"):
            bake_rig(model, bad)


def test_invalid_models_are_not_baked(model: FlameModel) -> None:
    for changes, message in [
        ({"faces": model.faces + 1}, "faces has indices outside"),
        ({"template": model.template.astype(np.float64)}, r"template must be float32 \[V, 3\]"),
        ({"eyelid_basis": model.eyelid_basis[1:]}, r"eyelid_basis must be float32 \[5023, 3, 2\]"),
        ({"uv": np.zeros((3, 2), np.float32)}, "must be given together"),
        ({"joint_regressor": model.joint_regressor * 2}, "joint_regressor has rows that do not sum to 1"),
        ({"regions": {"nose": np.array([5023], np.int32)}}, "region nose has indices outside"),
        ({"landmarks": {"a": (np.zeros(1, np.int32), np.ones((1, 3), np.float32))}}, "landmarks a.* sum to 1"),
    ]:
        with pytest.raises(InvalidParameterError, match=message):
            bake_rig(replace(model, **changes))


triangles = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).normal(0, 0.01, (3, 3)))


@settings(max_examples=100, deadline=None)
@given(rest=triangles, uv_seed=st.integers(0, 10_000), posed=triangles)
def test_frames_are_tangents_that_follow_the_triangle(rest: Any, uv_seed: int, posed: Any) -> None:
    e1, e2 = rest[1] - rest[0], rest[2] - rest[0]
    if np.linalg.norm(np.cross(e1, e2)) < 1e-6:
        return
    faces = np.array([[0, 1, 2]])
    uv = np.random.default_rng(uv_seed).random((3, 2))
    area = np.linalg.det(uv[1:] - uv[0])
    if abs(area) < 1e-3:
        return
    frame = face_frames(rest, faces, uv, faces)[0]
    tangent, bitangent = (np.stack([e1, e2], 1) @ frame).T
    normal = np.cross(e1, e2)
    assert tangent @ bitangent == pytest.approx(0, abs=1e-4)
    assert np.linalg.norm(tangent) == pytest.approx(1, abs=1e-4)
    assert np.allclose(np.cross(tangent, bitangent), normal / np.linalg.norm(normal), atol=1e-3)
    # Along the tangent u grows and v stays, mirrored UVs included.
    weights, *_ = np.linalg.lstsq(np.stack([e1, e2], 1), tangent, rcond=None)
    step = weights @ (uv[1:] - uv[0])
    assert step[0] > 0
    assert abs(step[1]) < 1e-3 * step[0] + 1e-3 * np.abs(uv).max() * np.abs(weights).max()
    # In another pose the same matrix carries the affine map of the triangle.
    p1, p2 = posed[1] - posed[0], posed[2] - posed[0]
    assert np.allclose(np.stack([p1, p2], 1) @ frame @ np.linalg.inv(frame), np.stack([p1, p2], 1), atol=1e-4)


def test_frames_fall_back_to_the_first_edge_and_to_zero() -> None:
    vertices = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0], [4, 0, 0]], float) / 100
    faces = np.array([[0, 1, 2], [0, 1, 3]])  # the second has no area
    for uv in (None, np.zeros((3, 2))):
        frames = face_frames(vertices, faces, uv, None if uv is None else np.array([[0, 1, 2]] * 2))
        edges = np.stack([vertices[1] - vertices[0], vertices[2] - vertices[0]], 1)
        assert np.allclose(edges @ frames[0], [[1, 0], [0, 1], [0, 0]], atol=1e-6)
        assert not frames[1].any()


def test_lip_gap_is_the_distance_of_paired_landmarks(rig: Rig) -> None:
    corner = np.eye(3, dtype=np.float32)
    upper = (np.array([3, 4], np.int32), corner[[0, 1]])
    lower = (np.array([7, 8], np.int32), np.full((2, 3), 1 / 3, np.float32))
    marked = replace(rig, landmarks={"inner_lips_upper": upper, "inner_lips_lower": lower})
    vertices = skin(marked, random_params(4))
    gaps = lip_gap(marked, vertices)
    assert gaps.shape == (4, 2)
    expected = vertices[:, rig.faces[3, 0]] - vertices[:, rig.faces[7]].mean(1)
    assert np.allclose(gaps[:, 0], np.linalg.norm(expected, axis=1), atol=1e-6)
    assert np.allclose(on_surface(vertices, rig.faces, upper)[:, 1], vertices[:, rig.faces[4, 1]])
    with pytest.raises(InvalidParameterError, match="no landmarks 'inner_lips_upper'"):
        lip_gap(rig, vertices)
    with pytest.raises(InvalidParameterError, match="equally many"):
        lip_gap(replace(rig, landmarks=marked.landmarks | {"inner_lips_lower": (lower[0][:1], lower[1][:1])}), vertices)
