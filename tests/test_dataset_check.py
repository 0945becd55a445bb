"""`being data check`: what would spoil an avatar is found, named, and told from what is only doubtful."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from being_rt.avatar.avatar import Camera
from being_rt.dataset import Dataset, DatasetWriter, check
from being_rt.dataset.check import CheckReport, check_dataset
from being_rt.dataset.conventions import global_motion
from being_rt.dataset.overlay import overlay
from being_rt.dataset.regions import project
from being_rt.dataset.silhouette import overlap, resized_mask, silhouette
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head, procedural_identity
from being_rt.flame.rotations import matrices, matrix_axis_angles
from being_rt.flame.skinning import bake_rig, skin

SIZE = (160, 120)
FRAMES = 24
RIG = bake_rig(procedural_head(), procedural_identity(3))
Pose = np.ndarray
Change = Callable[[Pose, FlameParams], tuple[Pose, FlameParams]]


def true_camera(yaw: float = 0.35, off: float = 0.0) -> Camera:
    """Looks at the head from the side and from below, so that no mistake is hidden by symmetry."""
    pose = np.eye(4)
    pose[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ matrices(np.array([0.2, yaw, 0.1]))
    pose[:3, 3] = [0.03, -0.02, 0.9]
    k = np.array([[260, 0, 80 + off], [0, 260, 55 - off], [0, 0, 1]], np.float32)
    return Camera(pose.astype(np.float32), k, SIZE)


def motion(seed: int = 0) -> FlameParams:
    """A head that sways and turns, smoothly and never twice the same."""
    time = np.linspace(0, 4, FRAMES)[:, None]
    random = np.random.default_rng(seed)
    rates, phases = random.uniform(2, 6, (2, 6)), random.uniform(0, 6, (2, 6))
    waves = np.sin(rates[0] * time + phases[0]) + 0.5 * np.sin(2.3 * rates[1] * time + phases[1])
    still = FlameParams.neutral(FRAMES, fps=25)
    expression = random.normal(0, 0.5, (FRAMES, 100))
    return still.replace(rotation=0.1 * waves[:, :3], translation=0.025 * waves[:, 3:], expression=expression)


def person(camera: Camera, params: FlameParams, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask uint8 [H, W]: the head with some hair, and shoulders below it."""
    vertices = skin(RIG, params)[0].astype(np.float64)
    head = vertices.mean(0)
    hair = head + (vertices - head) * 1.1
    covered = np.zeros((size[1], size[0]), bool)
    for points in (vertices, hair + np.array([0, 0.01, -0.01])):
        covered |= silhouette(project(points, camera)[0], RIG.faces, size)
    rows, columns = np.nonzero(covered)
    if rows.size:
        bottom = rows.max()
        middle, half = int(columns.mean()), int(np.ptp(columns))
        covered[bottom - 4 :, max(0, middle - half) : middle + half] = True
    return np.where(covered, 255, 0).astype(np.uint8)


@cache
def true_masks() -> list[np.ndarray]:
    return [person(true_camera(), row) for row in motion()]


@cache
def true_frames() -> list[np.ndarray]:
    """The head with stripes on its skin, before grey."""
    frames = []
    x, y, z = RIG.template[RIG.faces].mean(1).T
    stripes = (127 + 60 * np.sin(150 * x) + 60 * np.sin(170 * y + 40 * z)).astype(int)
    for row, mask in zip(motion(), true_masks(), strict=True):
        pixels, depth = project(skin(RIG, row)[0], true_camera())
        canvas = Image.fromarray(np.repeat(mask[:, :, None] // 2, 3, 2))
        draw = ImageDraw.Draw(canvas)
        corners = pixels[RIG.faces]
        for face in np.argsort(-depth[RIG.faces].mean(1)):  # far ones first
            draw.polygon([tuple(corner) for corner in corners[face] - 0.5], fill=(int(stripes[face]),) * 3)
        frames.append(np.asarray(canvas))
    return frames


def write(
    path: Path,
    change: Change = lambda pose, params: (pose, params),
    *,
    shift: int = 0,
    intrinsics: Callable[[np.ndarray], np.ndarray] = lambda k: k,
    masks: Callable[[np.ndarray], np.ndarray | None] = lambda mask: mask,
    tracks: Callable[[FlameParams], FlameParams] = lambda params: params,
    test: int = 4,
) -> Path:
    """A data set whose masks are true, and whose camera and tracks are what ``change`` makes of the truth."""
    camera = true_camera()
    pose, params = change(camera.world_to_camera.astype(np.float64), motion())
    given = Camera(pose.astype(np.float32), intrinsics(camera.intrinsics.copy()), SIZE)
    with DatasetWriter(path, rig=RIG, cameras=(given,), fps=25, name="x") as writer:
        for i, row in enumerate(tracks(params)):
            seen = min(max(i + shift, 0), FRAMES - 1)
            writer.add(
                true_frames()[seen], masks(true_masks()[seen]), row, split="test" if i >= FRAMES - test else "train"
            )
    return path


def motion_in_camera(change: Callable[[Pose], Pose]) -> Change:
    """A mistake that was made with every frame's camera, before the head was made to move in its place."""

    def apply(pose: Pose, params: FlameParams) -> tuple[Pose, FlameParams]:
        poses = np.stack([change(pose @ move) for move in global_motion(RIG, params)])
        still = poses[0]
        moved = np.linalg.inv(still) @ poses
        joint = RIG.joint_rest[0] + params.expression @ RIG.joint_expression[0].T
        rotation = matrix_axis_angles(moved[:, :3, :3])
        translation = np.einsum("tij,tj->ti", moved[:, :3, :3], joint) + moved[:, :3, 3] - joint
        return still, params.replace(rotation=rotation, translation=translation)

    return apply


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("good") / "ada")


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "ada"))


def lines(report: CheckReport) -> list[str]:
    return [str(finding) for finding in report.findings]


def errors(report: CheckReport) -> str:
    return "\n".join(line for line in lines(report) if line.startswith("error"))


def test_a_good_data_set_passes(good: Path, tmp_path: Path) -> None:
    report = check_dataset(good, output=tmp_path)
    assert report.passed
    assert lines(report) == ["warning: dataset.json: there are 20 timesteps to train on; a minute of video has 1500"]
    assert report.overlap is not None
    assert report.overlap > 0.7
    assert (report.frames, report.timesteps, report.cameras) == (FRAMES, FRAMES, 1)


def flipped(*signs: float) -> Change:
    return lambda pose, params: (np.diag([*signs, 1.0]) @ pose, params)


def transposed(pose: Pose) -> Pose:
    return np.block([[pose[:3, :3].T, pose[:3, 3:]], [np.zeros((1, 3)), 1]])


def scaled(pose: Pose, factor: float) -> Pose:
    return np.block([[pose[:3, :3], factor * pose[:3, 3:]], [np.zeros((1, 3)), 1]])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (flipped(1, -1, -1), "OpenGL's .y up, z backwards. taken for OpenCV's"),
        (flipped(-1, -1, 1), "PyTorch3D's .x left, y up. taken for OpenCV's"),
        (motion_in_camera(lambda pose: np.diag([1.0, -1, -1, 1]) @ pose), "OpenGL's .y up, z backwards."),
        (lambda pose, params: (transposed(pose), params), "rotation looks transposed"),
        (motion_in_camera(transposed), "rotation looks transposed"),
        (lambda pose, params: (np.linalg.inv(pose), params), "looks like camera to world"),
        (motion_in_camera(np.linalg.inv), "looks like camera to world"),
        (
            lambda pose, params: (scaled(pose, 4), params),
            "in quarters of a metre, as IMavatar's mesh is: divide it by 4",
        ),
        (lambda pose, params: (scaled(pose, 0.25), params), "multiply it by 4|looks? cropped or resized"),
        (motion_in_camera(lambda pose: scaled(pose, 4)), "divide it by 4"),
    ],
)
def test_the_convention_that_is_wrong_is_named(tmp_path: Path, change: Change, named: str) -> None:
    import re

    report = check_dataset(write(tmp_path / "x", change), samples=5)
    found = "\n".join(lines(report))
    assert re.search(named, found), found
    assert report.passed == ("transposed" in named)  # a head that looks about straight ahead hides it: a warning
    assert report.overlap is not None
    assert report.overlap < 0.75


def test_a_forgotten_crop_is_named(tmp_path: Path) -> None:
    def of_the_crop(k: np.ndarray) -> np.ndarray:
        k[:2] *= 0.5  # tracked at half the size
        return k

    report = check_dataset(write(tmp_path / "x", intrinsics=of_the_crop), samples=5)
    assert "cropped or resized after they were tracked: the head fits at about 2.2 times its size" in errors(report)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("shift", [1, -1, 2])
def test_pictures_out_of_step_are_named(tmp_path: Path, shift: int, masks: bool) -> None:
    path = write(tmp_path / "x", shift=shift, masks=lambda mask: mask if masks else None)
    report = check_dataset(path, samples=5)
    late = f"{abs(shift)} frame{'s' * (abs(shift) > 1)} {'early' if shift > 0 else 'late'}"
    sign = "+" if shift > 0 else "-"
    assert f"the pictures come {late}: picture n shows timestep n {sign} {abs(shift)}" in errors(report)


def change_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        table = json.loads((path / "dataset.json").read_text(encoding="utf-8"))
        change(table)
        (path / "dataset.json").write_text(json.dumps(table), encoding="utf-8")

    return spoil


def unlink_many(path: Path) -> None:
    for i in range(12):
        (path / "images" / f"{i:06}.png").unlink()


def spoil_tracks(path: Path) -> None:
    arrays = dict(np.load(path / "tracks.npz"))
    arrays["jaw"][7] = np.nan
    np.savez(path / "tracks.npz", **arrays)
    change_json(lambda table: table.update(checksums={}))(path)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: (p / "images/000003.png").unlink(), "error: images/000003.png: does not exist"),
        (lambda p: (p / "masks/000003.png").unlink(), "error: masks/000003.png: does not exist"),
        (unlink_many, "2 more frames or masks do not exist"),
        (
            lambda p: Image.new("RGB", (80, 60)).save(p / "images/000003.png"),
            "error: images/000003.png: is 80x60 pixels, its camera is made for 160x120",
        ),
        (
            lambda p: (p / "images/000000.png").write_bytes(b"x"),
            "error: images/000000.png: images/000000.png is not a PNG",
        ),
        (
            lambda p: (p / "images/000000.png").write_bytes((p / "images/000000.png").read_bytes()[:200]),
            "error: images/000000.png: cannot read images/000000.png: image file is truncated",
        ),
        (spoil_tracks, "tracks.npz: FlameParams.jaw has a value that is not finite in frame 7"),
        (change_json(lambda t: [f.update(split="test") for f in t["frames"]]), "no frame is in the split train"),
        (
            change_json(lambda t: [f.update(split="other") for f in t["frames"][1:]]),
            "error: dataset.json: there is one timestep to train on",
        ),
        (change_json(lambda t: t.update(frames=t["frames"][:1])), "there is one timestep to train on"),
        (
            change_json(lambda t: [f.update(split="train") for f in t["frames"]]),
            "warning: dataset.json: no frame is in the",
        ),
        (
            change_json(lambda t: t["frames"][0].update(split="test", timestep=3)),
            "warning: dataset.json: timesteps of the split test are in the split train too",
        ),
        (change_json(lambda t: t["frames"][0].update(timestep=3)), "note: tracks.npz: 1 timesteps have no picture"),
        (change_json(lambda t: t["frames"][5].update(mask=None)), "warning: dataset.json: 1 of 24 frames have no mask"),
        (
            change_json(lambda t: [f.update(mask=None) for f in t["frames"]]),
            "warning: dataset.json: no frame has a mask",
        ),
        (lambda p: (p / "dataset.json").write_text("{"), "error: "),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_file(copy: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(copy)
    report = check_dataset(copy, samples=4)
    found = lines(report)
    assert any(expected in line for line in found), found
    assert all("\n" not in line for line in found)
    assert report.passed == (not expected.startswith("error") and not any(line.startswith("error") for line in found))


def far(distance: float) -> Change:
    def change(pose: Pose, params: FlameParams) -> tuple[Pose, FlameParams]:
        pose = pose.copy()
        pose[2, 3] = distance
        return pose, params

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            far(-0.9),
            "error: dataset.json, camera 0: the head lies behind the camera in images/000000.png, and in 23 more",
        ),
        (far(90.0), "m away in images/000000.png"),
        (far(0.14), "the unit is the metre"),
        (flipped(1, -1, -1), "behind the camera"),
        (lambda pose, params: (pose @ np.diag([-1.0, 1, -1, 1]), params), "the face looks away from the camera"),
        (lambda pose, params: (np.diag([-1.0, -1, 1, 1]) @ pose, params), "the head is upside down"),
        (
            lambda pose, params: (pose, params.replace(translation=params.translation + np.float32([5, 0, 0]))),
            "the face lies outside of the picture",
        ),
    ],
)
def test_heads_that_cannot_be_seen(tmp_path: Path, change: Change, expected: str) -> None:
    report = check_dataset(write(tmp_path / "x", change, masks=lambda mask: None), samples=2)
    assert expected in errors(report)
    assert report.overlap is None


def jump(params: FlameParams) -> FlameParams:
    translation = params.translation.copy()
    translation[10:, 0] += 0.2
    return params.replace(translation=translation)


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        (jump, "warning: tracks.npz: timestep 10: the head jumps by 18 cm and"),
        (lambda p: p.replace(expression=p.expression * 100), "standard deviations out, and in"),
        (lambda p: p.replace(expression=p.expression * 0), "warning: tracks.npz: the expression never changes"),
        (lambda p: FlameParams.neutral(FRAMES), "error: tracks.npz: all timesteps are the same"),
        (lambda p: p.replace(eyelids=np.full((FRAMES, 2), 3.0)), "warning: tracks.npz: eyelids lie far outside"),
    ],
)
def test_tracks_that_cannot_be(tmp_path: Path, tracks: Callable[[FlameParams], FlameParams], expected: str) -> None:
    report = check_dataset(write(tmp_path / "x", masks=lambda mask: None, tracks=tracks), samples=2)
    assert any(expected in line for line in lines(report)), lines(report)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (np.zeros_like, "is empty: nobody is in it, and in 3 more"),
        (lambda mask: np.full_like(mask, 255), "is full: it cuts nothing out"),
        (lambda mask: mask[::-1], "head and mask overlap by|cropped or resized"),
        (lambda mask: 255 - mask, "error: dataset.json: the masks look inverted"),
    ],
)
def test_masks_that_do_not_match(tmp_path: Path, masks: Callable[[np.ndarray], np.ndarray], expected: str) -> None:
    import re

    report = check_dataset(write(tmp_path / "x", masks=masks), samples=4)
    assert re.search(expected, "\n".join(lines(report))), lines(report)


def test_room_on_the_disk(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(free: int) -> None:
        monkeypatch.setattr(check.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, free << 20))

    disk(500)
    report = check_dataset(good, output=tmp_path / "run" / "of" / "today", samples=2)
    assert report.passed
    assert any("500 MB are free on its disk; training writes up to 2048 MB" in line for line in lines(report))
    disk(50)
    assert "50 MB are free" in errors(check_dataset(good, output=tmp_path / "run", samples=2))


def test_overlays(good: Path, tmp_path: Path) -> None:
    report = check_dataset(good, overlays=tmp_path / "look" / "here", samples=3)
    assert [Path(name).name for name in report.overlays] == ["000000.png", "000012.png", "000023.png"]
    dataset = Dataset.load(good)
    for name, index in zip(report.overlays, (0, 12, 23), strict=True):
        drawn = np.asarray(Image.open(name))
        assert np.array_equal(drawn, overlay(dataset, index))
        mask = dataset.mask(index)[:, :, None].astype(np.float32) / 255
        plain = (dataset.image(index) * (0.45 + 0.55 * mask)).astype(np.uint8)
        mesh = (drawn != plain).any(axis=2)
        inside = dataset.mask(index) > 0
        assert np.count_nonzero(mesh & inside) > 0.1 * np.count_nonzero(inside)
        assert np.count_nonzero(mesh & ~inside) < 0.02 * np.count_nonzero(mesh)
        assert np.all(drawn == (255, 60, 60), axis=2).any()  # landmarks


def test_silhouettes_cover_what_the_mesh_does() -> None:
    square = np.array([[2.0, 2], [2, 10], [12, 10], [12, 2]])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)  # counterclockwise where y points up
    covered = silhouette(square, faces, (20, 14))
    assert covered.shape == (14, 20)
    assert abs(np.count_nonzero(covered) - 80) <= 20  # a row and a column more at most
    assert covered[3:9, 3:11].all()
    assert not silhouette(square, faces[:, ::-1], (20, 14)).any()  # seen from behind
    assert not silhouette(np.where(square == 12, np.nan, square), faces, (20, 14)).any()


def test_overlap_looks_no_lower_than_the_head() -> None:
    head, body = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    head[4:10, 6:12] = body[4:10, 6:12] = True
    body[10:, :] = True
    assert overlap(head, body) == 1
    assert overlap(head, ~body) == 0
    assert overlap(np.zeros_like(head), body) == 0
    mask = np.where(body, 255, 0).astype(np.uint8)
    assert resized_mask(mask, (10, 10)).shape == (10, 10)
    assert resized_mask(mask, (10, 10))[2:5, 3:6].all()


def test_global_motion_is_flames() -> None:
    params = motion(4)
    moved = skin(RIG, params)
    still = skin(RIG, params.replace(rotation=0 * params.rotation, translation=0 * params.translation))
    move = global_motion(RIG, params)
    expected = np.einsum("tij,tvj->tvi", move[:, :3, :3], still.astype(np.float64)) + move[:, None, :3, 3]
    assert np.abs(moved - expected).max() < 1e-6


def test_a_rig_without_a_face_is_not_judged(tmp_path: Path) -> None:
    weights = np.zeros_like(RIG.skinning_weights)
    weights[:, 1] = 1
    rig = replace(RIG, skinning_weights=weights)
    with DatasetWriter(tmp_path / "x", rig=rig, cameras=(true_camera(),), fps=25, name="x") as writer:
        for row in motion()[:4]:
            mask = person(true_camera(), row)
            writer.add(np.repeat(mask[:, :, None], 3, 2), mask, row)
    assert any("rig.safetensors" in line for line in lines(check_dataset(tmp_path / "x", samples=2)))
