"""Parts of the face found from skinning weights and geometry: where the model itself says they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from being_rt.avatar.avatar import Camera
from being_rt.dataset.regions import BOXES, REGIONS, face_regions, project, region_boxes
from being_rt.errors import InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head, procedural_identity
from being_rt.flame.rig import Rig
from being_rt.flame.skinning import bake_rig

MODEL = procedural_head()


def rig(seed: int = 0, landmarks: bool = True, scale: float = 1.0) -> Rig:
    """A person; FLAME files come without landmarks, and other tools scale heads."""
    made = bake_rig(MODEL, procedural_identity(seed))
    return replace(made, template=made.template * np.float32(scale), landmarks=made.landmarks if landmarks else {})


def share(found: np.ndarray, part: str) -> float:
    """Of a part of the mesh that the generator named, how much is in a region."""
    return float(np.isin(MODEL.regions[part], found).mean())


@pytest.mark.parametrize("landmarks", [True, False], ids=["landmarks", "weights alone"])
@pytest.mark.parametrize("seed", [0, 3, 8])
def test_regions_are_where_the_model_says(seed: int, landmarks: bool) -> None:
    found = face_regions(rig(seed, landmarks))
    assert tuple(found) == REGIONS
    assert all(ids.dtype == np.int32 and np.array_equal(ids, np.unique(ids)) for ids in found.values())
    for region, parts in {
        "mouth": ("lips", "teeth_upper", "teeth_lower", "tongue"),
        "left_eye": ("left_eyeball", "left_eye"),
        "right_eye": ("right_eyeball", "right_eye"),
        "scalp": ("scalp",),
        "face": ("face", "nose", "ears", "brows", "lips"),
        "neck": ("neck",),
    }.items():
        for part in parts:
            assert share(found[region], part) > 0.75, (region, part)
    for region, parts in {
        "mouth": ("left_eye", "right_eye", "scalp", "neck", "ears"),
        "left_eye": ("right_eye", "lips", "ears", "right_eyeball"),
        "right_eye": ("left_eye", "lips", "ears", "left_eyeball"),
        "scalp": ("face", "neck", "ears", "lips"),
        "face": ("neck",),
        "neck": ("face", "lips", "left_eye"),
    }.items():
        for part in parts:
            assert share(found[region], part) < 0.08, (region, part)


def test_face_scalp_and_neck_share_the_mesh() -> None:
    found = face_regions(rig())
    together = np.concatenate([found[name] for name in ("face", "scalp", "neck")])
    assert np.array_equal(np.sort(together), np.arange(len(MODEL.template)))


@pytest.mark.parametrize("landmarks", [True, False])
def test_regions_do_not_depend_on_the_unit(landmarks: bool) -> None:
    small, large = face_regions(rig(0, landmarks)), face_regions(rig(0, landmarks, scale=4))
    for name in REGIONS:
        assert np.array_equal(small[name], large[name]), name


def test_left_is_the_persons() -> None:
    found = face_regions(rig())
    assert MODEL.template[found["left_eye"], 0].mean() > 0 > MODEL.template[found["right_eye"], 0].mean()


@pytest.mark.parametrize("joint", [2, 3])
def test_what_has_no_face_is_refused(joint: int) -> None:
    weights = np.zeros_like(MODEL.skinning_weights)
    weights[:, 1] = 1
    if joint == 2:
        weights[:10, 1], weights[:10, 3] = 0, 1
        weights[10:20, 1], weights[10:20, 4] = 0, 1
    with pytest.raises(InvalidParameterError, match="follow the jaw" if joint == 2 else "follow an eye"):
        face_regions(replace(rig(landmarks=False), skinning_weights=weights))


CAMERA = Camera(
    np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.8], [0, 0, 0, 1]], np.float32),
    np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1]], np.float32),
    (640, 480),
)


def test_boxes_follow_the_head() -> None:
    motion = FlameParams.neutral(3).replace(
        translation=[[0, 0, 0], [0.1, 0, 0], [0, 0, 0]], jaw=[[0, 0, 0], [0, 0, 0], [0.3, 0, 0]]
    )
    boxes = region_boxes(rig(), motion, CAMERA, margin=0)
    assert set(boxes) == set(BOXES)
    for name, box in boxes.items():
        assert box.shape == (3, 4)
        assert box.dtype == np.float32
        assert np.all(box[:, 0] < box[:, 2])
        assert np.all(box[:, 1] < box[:, 3])
        assert (box[1] - box[0])[[0, 2]].min() > 60, name  # 10 cm at 0.75 m or nearer
    assert boxes["mouth"][2, 3] > boxes["mouth"][0, 3] + 5  # the jaw opens downwards
    assert np.allclose(boxes["left_eye"][2], boxes["left_eye"][0], atol=0.5)
    assert boxes["left_eye"][0, 0] > 320 > boxes["right_eye"][0, 2]  # the person's left is on the viewer's right
    wide = region_boxes(rig(), motion, CAMERA, margin=0.5)["face"]
    plain = boxes["face"]
    assert np.allclose(wide[:, 2] - wide[:, 0], 2 * (plain[:, 2] - plain[:, 0]), rtol=1e-4)


def test_a_face_behind_the_camera_has_no_box() -> None:
    behind = FlameParams.neutral(1).replace(translation=[[0, 0, 2.0]])
    assert np.isnan(region_boxes(rig(), behind, CAMERA)["face"]).all()
    pixels, depth = project(np.array([[0, 0, 2.0], [0, 0, 0]]), CAMERA)
    assert np.isnan(pixels[0]).all()
    assert np.allclose(pixels[1], [320, 240])
    assert depth[0] < 0 < depth[1]
