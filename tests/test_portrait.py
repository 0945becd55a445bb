"""An avatar from one photograph, piece by piece and whole, without networks: on a drawn head with known landmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from being_rt.avatar.avatar import Avatar
from being_rt.avatar.demo.cloud import rest_positions
from being_rt.avatar.file import load_avatar
from being_rt.dataset.regions import project
from being_rt.dataset.silhouette import silhouette
from being_rt.errors import AvatarFileError, InvalidParameterError, TrackError
from being_rt.flame.params import FlameParams
from being_rt.flame.procedural import procedural_head
from being_rt.flame.skinning import bake_rig, lip_gap, skin
from being_rt.jobs import Demo
from being_rt.portrait import build as build_module
from being_rt.portrait import subject as subject_module
from being_rt.portrait.build import avatar_of
from being_rt.portrait.cells import cut, cut_at_most
from being_rt.portrait.photograph import read_photograph
from being_rt.portrait.skin import membrane
from being_rt.portrait.splats import Bound, Splats, head_layer, posed_frames
from being_rt.portrait.subject import Subject, subject_of
from being_rt.portrait_jobs import ClonePortrait
from being_rt.renderer import Renderer
from being_rt.track.observations import Observations
from being_rt.track.observe import NobodyError
from bench.tracking_scenes import Scene, scene

SIZE = (240, 256)
SKIN, ROOM = (205, 150, 120), (70, 90, 130)


def test_photographs_of_all_kinds_are_8_bit_rgb(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 200).round().astype(np.uint8), (180, 1))
    colour = np.dstack([ramp, ramp[::-1], 255 - ramp])
    pictures = {
        "rgb.png": Image.fromarray(colour),
        "grey.png": Image.fromarray(ramp),
        "deep.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "palette.png": Image.fromarray(colour).quantize(64),
        "clear.png": Image.fromarray(np.dstack([colour, np.full_like(ramp, 255)])),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
        read = read_photograph(tmp_path / name)
        assert read.shape == (180, 200, 3)
        assert read.dtype == np.uint8
        expected = np.dstack([ramp] * 3) if name in ("grey.png", "deep.png") else colour
        assert np.abs(read.astype(int) - expected).max() <= (24 if name == "palette.png" else 1), name
    seen_through = np.dstack([colour, np.zeros_like(ramp)])
    Image.fromarray(seen_through).save(tmp_path / "nothing.png")
    assert (read_photograph(tmp_path / "nothing.png") == 128).all()


def test_a_photograph_is_turned_upright_and_kept_to_a_size(tmp_path: Path) -> None:
    upright = np.zeros((300, 200, 3), np.uint8)
    upright[:100] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side: the file is to be turned by 90 degrees clockwise
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_photograph(tmp_path / "turned.png"), upright)
    assert read_photograph(tmp_path / "turned.png", longest=180).shape == (180, 120, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no picture at all", "not a picture"),
        ("cut", "cannot read the picture"),
        ("tiny", "60x60 pixels; a portrait needs"),
    ],
)
def test_bad_photographs_are_one_line(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    if content == "tiny":
        Image.fromarray(noise[:60, :60]).save(path)
    elif content == "cut":
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:20_000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(TrackError, match=message) as problem:
        read_photograph(path)
    assert "\n" not in str(problem.value)


def test_cells_cover_a_region_once_and_are_small_where_there_is_detail() -> None:
    picture = np.full((61, 83, 3), 100, np.uint8)
    picture[20:24, 30:60] = 200
    region = np.hypot(*(np.mgrid[:61, :83] - np.array([30, 40])[:, None, None])) < 29
    cells = cut(picture, region, contrast=10)
    count = np.zeros(region.shape, int)
    for (x, y), side in zip(cells.pixel, cells.side, strict=True):
        left, top = int(x - side / 2), int(y - side / 2)
        count[top : top + side, left : left + side] += 1
    assert np.array_equal(count, region.astype(int))
    assert set(cells.side) > {1, 2, 4}
    near = (np.abs(cells.pixel[:, 1] - 20) < 1.5) & (np.abs(cells.pixel[:, 0] - 45) < 10)
    assert (cells.side[near] == 1).all()


def test_many_cells_become_fewer() -> None:
    picture = np.random.default_rng(0).integers(100, 130, (64, 64, 3)).astype(np.uint8)
    region = np.ones((64, 64), bool)
    assert len(cut(picture, region, contrast=10).side) == 64 * 64
    fewer = cut_at_most(picture, region, contrast=10, most=500)
    assert len(fewer.side) < 500
    assert (fewer.side**2).sum() == 64 * 64


def test_gaussians_are_bound_where_they_are_laid() -> None:
    rig = bake_rig(procedural_head())
    posed = FlameParams.neutral().replace(jaw=np.array([[0.2, 0, 0]], np.float32))
    vertices = skin(rig, posed)[0].astype(np.float64)
    random = np.random.default_rng(1)
    face = random.choice(np.flatnonzero((rig.face_frames != 0).any((1, 2))), 50)
    weight = random.dirichlet(np.ones(3), 50)
    place = np.einsum("nk,nkd->nd", weight, vertices[rig.faces[face]]) + random.normal(0, 0.002, (50, 3))
    factor = random.normal(0, 0.001, (50, 3, 3))
    layer = head_layer(rig, vertices, Bound(Splats.of(place, factor, np.full((50, 3), 0.5)), face, weight))
    frames = posed_frames(rig, vertices)[face]
    anchor = np.einsum("nk,nkd->nd", weight, vertices[rig.faces[face]])
    back = anchor + np.einsum("nij,nj->ni", frames, layer.gaussians.position)
    assert np.abs(back - place).max() < 1e-6
    w, x, y, z = layer.gaussians.rotation.astype(np.float64).T
    rotation = np.stack(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    drawn = frames @ rotation * np.exp(layer.gaussians.log_scale.astype(np.float64))[:, None, :]
    covariance = factor @ factor.transpose(0, 2, 1)
    assert np.abs(drawn @ drawn.transpose(0, 2, 1) - covariance).max() < 1e-4 * np.abs(covariance).max()


def test_a_membrane_keeps_what_is_known_and_joins_it_without_steps() -> None:
    x = np.linspace(0, 1, 200)
    points = np.stack([x, 0 * x, 0 * x], 1)
    known = (x < 0.1) | (x > 0.9)
    colour = np.where(x[:, None] < 0.5, [0.9, 0.2, 0.1], [0.1, 0.4, 0.1])
    filled = membrane(points, colour, 5.0 * known)
    assert np.abs(filled[known & ((x < 0.05) | (x > 0.95))] - colour[known & ((x < 0.05) | (x > 0.95))]).max() < 0.02
    assert np.abs(np.diff(filled[:, 0])).max() < 0.03
    assert abs(filled[100, 0] - 0.5) < 0.1


@pytest.fixture(scope="module")
def posed() -> Scene:
    return scene(1, size=SIZE, eyes_apart=45.0, noise=0.1, bias=0.0)


@pytest.fixture(scope="module")
def mask(posed: Scene) -> NDArray[np.uint8]:
    pixels = project(posed.vertices[0], posed.camera)[0]
    return (255 * silhouette(pixels, posed.rig.faces, SIZE)).astype(np.uint8)


@pytest.fixture(scope="module")
def picture(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    shade = 8 * np.sin(x / 6) + 8 * np.sin(y / 5)
    drawn = np.where(mask[..., None] > 0, np.array(SKIN) + shade[..., None], np.array(ROOM) + 0.5 * shade[..., None])
    return drawn.round().astype(np.uint8)


def stand_in(posed: Scene, mask: NDArray[np.uint8], faces: int = 1) -> Callable[..., Observations]:
    """What the networks would say."""
    seen = posed.observations
    warnings = () if faces == 1 else (f"{faces} faces are in the picture at times",)
    counted = np.full(1, faces, np.int32)

    def observe(frames: Any, fps: float, size: tuple[int, int], **_: Any) -> Observations:
        assert len(list(frames)) == 1
        return Observations(
            size, fps, seen.landmarks, seen.presence, counted, seen.sharpness, mask[None, ::2, ::2].copy(), warnings
        )

    return observe


@pytest.fixture(scope="module")
def found(posed: Scene, mask: NDArray[np.uint8], picture: NDArray[np.uint8]) -> Subject:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject_module, "observe_frames", stand_in(posed, mask, faces=2))
        patch.setattr(subject_module, "landmark_embedding", lambda model: posed.embedding)
        return subject_of(picture, posed.model)


def test_the_head_is_found(found: Subject, posed: Scene) -> None:
    assert any("2 faces are in the picture: the largest" in line for line in found.warnings)
    drawn = project(found.vertices, found.camera)[0]
    truth = project(posed.vertices[0], posed.camera)[0]
    face = found.model.regions["face"]
    assert np.median(np.linalg.norm(drawn - truth, axis=1)[face]) < 2.0  # px
    assert not np.allclose(found.background, found.picture)
    assert np.abs(found.background[found.alpha > 250].astype(int) - ROOM).mean() < 10


def test_lips_meet_and_lids_close_at_rest(found: Subject) -> None:
    rest = FlameParams.neutral()
    apart = lip_gap(found.rig, skin(found.rig, rest))
    assert np.median(apart) < 0.0025
    shut = skin(found.rig, rest.replace(eyelids=np.ones((1, 2), np.float32)))[0]
    for side in ("left", "right"):
        lids = []
        for lid in ("upper", "lower"):
            face, weight = found.model.landmarks[f"eyelid_{lid}_{side}"]
            lids.append(np.einsum("lk,lkd->ld", weight, shut[found.rig.faces[face]])[4:-4])
        assert abs((lids[0] - lids[1])[:, 1].mean()) < 0.0005


@pytest.fixture(scope="module")
def avatar(found: Subject) -> Avatar:
    return avatar_of(found, "drawn", licence="CC0-1.0", consent="drawn")


def test_the_avatar_is_the_photograph(found: Subject, avatar: Avatar) -> None:
    renderer = Renderer(avatar, SIZE)
    picture = renderer.render(found.params).astype(float)
    error = np.mean((picture - found.picture) ** 2)
    assert 10 * np.log10(255**2 / error) > 30
    # No Gaussian lies far from the head.
    assert np.linalg.norm(rest_positions(avatar.rig, avatar.head), axis=1).max() < 0.5
    # A head that turns shows no hole: pixels in the middle of the person stay the person's.
    turned = FlameParams.neutral().replace(neck=np.array([[0, 0.35, 0]], np.float32))
    alpha = renderer.render_layers(turned).alpha
    inner = found.alpha.copy()
    inner[:, : SIZE[0] // 2 - 30], inner[:, SIZE[0] // 2 + 30 :] = 0, 0
    rows = np.flatnonzero(inner.any(1))[10:-30]
    assert (alpha[rows][inner[rows] > 250] > 0.9).mean() > 0.98
    # An open mouth is darker than lips, shut eyes are skin.
    opened = renderer.render(FlameParams.neutral().replace(jaw=np.array([[0.3, 0, 0]], np.float32))).astype(int)
    closed = renderer.render(FlameParams.neutral()).astype(int)
    middle = found.landmarks[[13, 14], :2].mean(0).astype(int)
    window = np.s_[middle[1] - 2 : middle[1] + 14, middle[0] - 6 : middle[0] + 6]
    assert closed[window].min() - opened[window].min() > 30


def test_a_job_writes_an_avatar_that_talks(
    posed: Scene,
    mask: NDArray[np.uint8],
    picture: NDArray[np.uint8],
    found: Subject,
    avatar: Avatar,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("av")
    asked: list[tuple[str, dict[str, Any]]] = []

    def built(subject: Subject, name: str, **options: Any) -> Avatar:
        assert subject is found
        asked.append((name, options))
        return avatar

    monkeypatch.setattr(subject_module, "subject_of", lambda *_: found)
    monkeypatch.setattr(build_module, "avatar_of", built)
    spoken: list[Demo] = []
    monkeypatch.setattr(Demo, "run", lambda self, progress: spoken.append(self))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save("drawn.png")
    made = ClonePortrait("drawn.png", device="cpu", consent="drawn").run()
    written = load_avatar(made.avatar)
    assert (made.avatar, made.sample) == (Path("drawn.being"), Path("drawn.talk.mp4"))
    assert [(name, options["consent"]) for name, options in asked] == [("drawn", "drawn")]
    assert (written.name, written.licence, written.consent) == ("drawn", "CC0-1.0", "drawn")
    assert made.gaussians == written.head.gaussians.count + written.torso.gaussians.count
    assert made.likeness > 30
    assert np.array_equal(FlameParams.load(made.motion).expression, found.params.expression)
    assert (spoken[0].avatar, spoken[0].size) == ("drawn.being", None)  # None: its own shape
    with pytest.raises(AvatarFileError, match="does not exist"):
        ClonePortrait("drawn.png", out=tmp_path / "nowhere" / "me.being").run()


def test_no_face_is_one_line(picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any, **__: Any) -> None:
        raise NobodyError("a person was looked for in 1 frames")

    monkeypatch.setattr(subject_module, "observe_frames", nobody)
    with pytest.raises(TrackError, match="no face is found in the picture"):
        subject_of(picture, procedural_head())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clone"], "takes a video or --image FILE, as in"),
        (["clone", "me.mp4", "--image", "me.jpg"], "takes a video or --image FILE, not both"),
        (["clone", "--image", "me.jpg", "--steps", "7"], "of videos alone: --steps"),
        (["clone", "--image", "me.jpg", "--refine", "off"], "of videos alone: --refine"),
        (["clone", "--image", "me.jpg"], "cannot read the picture me.jpg: it does not exist"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("tyro")
    pytest.importorskip("ai_edge_litert")
    from being_rt.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not list(tmp_path.iterdir())


def test_only_one_frame_is_enough_if_asked_for(posed: Scene) -> None:
    from being_rt.track.fit import fit
    from being_rt.track.fit_config import FitConfig

    with pytest.raises(TrackError, match="5 are needed"):
        fit(posed.observations, posed.model, posed.embedding)
    assert fit(posed.observations, posed.model, posed.embedding, replace(FitConfig(), fewest=1)).tracked.all()
    with pytest.raises(InvalidParameterError, match="fewest"):
        FitConfig(fewest=0)
