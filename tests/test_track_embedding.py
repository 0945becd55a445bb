"""Landmarks are found on FLAME's own head, whose topology is none of the procedural head's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from being_rt.flame.model import FlameModel
from being_rt.flame.procedural import procedural_head
from being_rt.flame.skinning import bake_rig
from being_rt.track import embedding_find as module
from being_rt.track import fit_landmarks as names
from being_rt.track.embedding import landmark_embedding
from being_rt.track.embedding_find import vertex_normals

NORMAL = 0.015  # metres that a right angle between normals counts as, so that lips are told apart where they touch


@pytest.fixture(scope="module")
def flame() -> FlameModel:
    """FLAME's template; its file lacks the bases, so weights and lids are those of the nearest procedural vertex."""
    root = os.environ.get("BEING_RT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(root) / "flame" / "flame2023-open-template.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent; it is not part of the repository")
    from scipy.spatial import cKDTree

    with np.load(path) as real:
        template, faces = real["v_template"].astype(np.float64), real["faces_all_hull_eyes"]
        ball = np.isin(np.arange(len(template)), real["eyeball_vids"])
    known = procedural_head()
    own = known.template.astype(np.float64)
    eyes = known.skinning_weights[:, 3:].max(1) > 0.5
    own += template[ball].mean(0) - own[eyes].mean(0)

    def described(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        return np.concatenate([vertices, NORMAL * vertex_normals(vertices, triangles)], 1)

    _, nearest = cKDTree(described(own, known.faces)[~eyes]).query(described(template, faces))
    nearest = np.flatnonzero(~eyes)[nearest]
    weights = np.where(ball[:, None], 0, known.skinning_weights[nearest])
    weights[:, 3:] = np.stack([ball & (template[:, 0] > 0), ball & (template[:, 0] < 0)], 1)
    weights /= weights.sum(1, keepdims=True)
    regressor = np.linalg.pinv(np.concatenate([template, np.ones((len(template), 1))], 1).T)
    joints = np.concatenate([known.joint_regressor @ own, np.ones((5, 1))], 1) @ regressor.T

    def nothing(columns: int) -> np.ndarray:
        return np.zeros((len(template), 3, columns), np.float32)

    return FlameModel(
        edition="flame-2023-open",
        template=template.astype(np.float32),
        faces=np.ascontiguousarray(faces, np.int32),
        shape_basis=nothing(300),
        expression_basis=nothing(100),
        pose_basis=nothing(36),
        joint_regressor=joints.astype(np.float32),
        skinning_weights=weights.astype(np.float32),
        eyelid_basis=np.where(ball[:, None, None], 0, known.eyelid_basis[nearest]).astype(np.float32),
    )


def test_all_landmarks_are_found_on_flame(networks: None, flame: FlameModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from being_rt.track.mesh import landmarks_in

    # Fewer and smaller pictures, for the time they take.
    views = {"YAWS": (-24, -12, 0, 12, 24), "PITCHES": (-6, 6), "FEWEST_VIEWS": 2, "SIZE": 448, "FOCAL": 945.0}
    for name, value in views.items():
        monkeypatch.setattr(module, name, value)
    flame.validate()
    found = landmark_embedding(flame, landmarks_in)
    assert found.found.all()
    points = found.points(flame.template.astype(np.float64), flame.faces)
    weights = bake_rig(flame).skinning_weights
    for iris, joint in ((names.LEFT_IRIS, 3), (names.RIGHT_IRIS, 4)):
        middle = flame.template[weights[:, joint] > 0.5].mean(0)
        assert np.abs(points[iris[0]] - middle)[:2].max() < 0.002
    across = points[list(names.LEFT_CORNERS)].mean(0) - points[list(names.RIGHT_CORNERS)].mean(0)
    assert 0.058 < across[0] < 0.074
    nose, chin = points[1], points[152]
    assert nose[2] == pytest.approx(flame.template[:, 2].max(), abs=0.004)
    assert np.abs([nose[0], chin[0]]).max() < 0.003
    assert 0.06 < nose[1] - chin[1] < 0.09
    upper, lower = np.array(names.LID_PAIRS).T
    gaps = (points[upper] - points[lower])[:, 1].reshape(2, 7)
    assert (gaps > 0.001).all()
    assert (np.diff(gaps[:, :3]) > 0).all()  # lids part towards the middle of the eye
    assert (np.diff(gaps[:, 4:]) < 0).all()
