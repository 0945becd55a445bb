"""The native core against the float64 reference: every operation it offers, and whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_camera, make_params, without_head, without_torso

from being_rt import _C, reference
from being_rt.avatar.avatar import Avatar, Camera, Gaussians
from being_rt.flame.params import FlameParams
from being_rt.renderer import Renderer

SMALLEST_PSNR = 50.0  # dB against the unquantised reference; rounding to 8 bits alone leaves 58.9
LARGEST_DIFFERENCE = 2.0  # steps of 1/255, outside doubtful pixels
MOST_DOUBTFUL = 0.02  # share of pixels where an alpha lies so near the cut-off that rounding decides


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Scene(NamedTuple):
    avatar: Avatar
    params: FlameParams
    size: tuple[int, int]
    camera: Camera | None = None
    background: reference.Background = None
    format: reference.Format = "rgb"
    threads: int = 1


def scene(
    seed: int,
    size: tuple[int, int] = (160, 120),
    camera: Camera | None = None,
    background: reference.Background = None,
    format: reference.Format = "rgb",
    threads: int = 1,
    strength: float = 1.0,
    **options: int | bool,
) -> Scene:
    avatar = make_avatar(seed=seed, size=(320, 240), **options)  # type: ignore[arg-type]
    return Scene(avatar, make_params(seed=seed, strength=strength), size, camera, background, format, threads)


PICTURE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
SCENES = {
    "network": scene(0),
    "rest pose": scene(1, strength=0.0),
    "rigid": scene(2, network=False),
    "strong motion": scene(3, strength=2.0),
    "not antialiased": scene(4, antialiased=False),
    "two threads": scene(5, threads=2),
    "odd size": scene(6, size=(149, 83)),
    "tall": scene(7, size=(72, 200), threads=2),
    "one pixel row": scene(8, size=(64, 1), antialiased=False),
    "from the side": scene(9, camera=make_camera((320, 240), yaw=1.3)),
    "from behind": scene(10, camera=make_camera((320, 240), yaw=3.0), threads=2),
    "close, cut off by the picture": scene(11, camera=make_camera((160, 120), distance=0.35)),
    "far, splats below a pixel": scene(12, camera=make_camera((160, 120), distance=6.0)),
    "wide angle": scene(13, camera=make_camera((160, 120), distance=0.25, field_of_view=90.0)),
    "camera inside": scene(14, camera=make_camera((160, 120), distance=0.05)),
    "rgba": scene(15, format="rgba"),
    "rgba on transparent": scene(16, format="rgba", background="transparent", threads=2),
    "rgb on transparent": scene(17, background="transparent"),
    "colour behind": scene(18, background=(0.1, 0.7, 0.3)),
    "picture behind": scene(19, background=PICTURE),
    "nv12": scene(20, format="nv12"),
    "nv12, two threads, narrow": scene(21, format="nv12", size=(98, 46), threads=2),
    "rank 7": scene(22, rank=7),
    "rank 33": scene(23, rank=33),
    "few triangles": scene(24, segments=3, rings=2, head_count=40, torso_count=17),
    "many small Gaussians": scene(25, head_count=9000, torso_count=4000, size=(320, 240), threads=2),
    "no torso": (lambda s: s._replace(avatar=without_torso(s.avatar)))(scene(26)),
    "no head": (lambda s: s._replace(avatar=without_head(s.avatar)))(scene(27)),
    "nobody": (lambda s: s._replace(avatar=without_head(without_torso(s.avatar))))(scene(28)),
}


@pytest.mark.parametrize("name", SCENES)
def test_picture(name: str) -> None:
    avatar, params, size, camera, background, format, threads = SCENES[name]
    renderer = Renderer(avatar, size=size, threads=threads, camera=camera, background=background)
    picture = renderer.render(params, format=format)
    result = reference.compare(picture, avatar, params, size, camera, background, format)
    assert result.psnr >= SMALLEST_PSNR
    assert result.largest <= LARGEST_DIFFERENCE
    assert result.doubtful <= MOST_DOUBTFUL


def test_every_scene_but_one_shows_somebody() -> None:
    for name, (avatar, params, size, camera, *_) in SCENES.items():
        alpha = Renderer(avatar, size=size, camera=camera, threads=1).render(params, format="rgba")[..., 3]
        assert (alpha > 64).any() != (name == "nobody"), name


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(0, 1500), st.integers(0, 900)),
    mesh=st.tuples(st.integers(3, 18), st.integers(2, 18)),
    rank=st.integers(0, 64),
    antialiased=st.booleans(),
    size=st.tuples(st.integers(1, 170), st.integers(1, 140)),
    view=st.tuples(st.floats(0.15, 4), st.floats(-3.1, 3.1), st.sampled_from([10.0, 22.0, 70.0, 110.0])),
    strength=st.sampled_from([0.0, 1.0, 3.0]),
    wild=st.booleans(),
    threads=st.integers(1, 3),
)
def test_picture_of_any_scene(
    seed: int,
    counts: tuple[int, int],
    mesh: tuple[int, int],
    rank: int,
    antialiased: bool,
    size: tuple[int, int],
    view: tuple[float, float, float],
    strength: float,
    wild: bool,
    threads: int,
) -> None:
    avatar = make_avatar(seed, *counts, *mesh, network=rank > 0, rank=max(rank, 1), antialiased=antialiased)
    if wild:
        random = np.random.default_rng(seed)
        head, torso = (
            replace(layer, gaussians=with_extremes(layer.gaussians, random)) for layer in (avatar.head, avatar.torso)
        )
        avatar = replace(avatar, head=head, torso=torso)
    params, camera = make_params(seed=seed % 1000, strength=strength), make_camera(size, *view)
    picture = Renderer(avatar, size=size, camera=camera, threads=threads).render(params)
    result = reference.compare(picture, avatar, params, size, camera)
    assert result.psnr >= SMALLEST_PSNR
    assert result.largest <= LARGEST_DIFFERENCE
    assert result.doubtful <= 0.5  # from inside a head, one Gaussian's edge is everywhere


def with_extremes(gaussians: Gaussians, random: np.random.Generator) -> Gaussians:
    """Three in ten as hairs, flakes, dust and clouds; three in ten of any opacity from nothing to solid."""
    count = gaussians.count
    log_scale = np.where(random.random((count, 1)) < 0.3, random.uniform(-13, -1.5, (count, 3)), gaussians.log_scale)
    opacity = np.where(random.random(count) < 0.3, random.uniform(-25, 25, count), gaussians.opacity_logit)
    return replace(gaussians, log_scale=log_scale.astype(np.float32), opacity_logit=opacity.astype(np.float32))


@pytest.mark.parametrize("level", _C.simd_levels())
@pytest.mark.parametrize("name", ["network", "many small Gaussians", "nv12", "rgba", "odd size"])
def test_every_instruction_set_draws_the_same(level: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    avatar, params, size, camera, background, format, _ = SCENES[name]
    best = Renderer(avatar, size, threads=1, camera=camera, background=background).render(params, format=format)
    monkeypatch.setenv("BEING_RT_SIMD", level)
    renderer = Renderer(avatar, size, threads=1, camera=camera, background=background)
    assert renderer.simd == level
    difference = np.abs(renderer.render(params, format=format).astype(int) - best)
    assert reference.psnr(renderer.render(params, format=format), best) > 60
    assert (difference > 1).mean() < 1e-3  # a cut-off or an order that rounding decides


# ------------------------------------------------------------------------------------------------- single operations


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("threads", [1, 2])
def test_skin(dtype: type, threads: int) -> None:
    rig, params = make_avatar(seed=1, head_count=0, torso_count=0).rig, make_params(count=3, seed=1)
    bases = (getattr(rig, name).astype(dtype) for name in ("expression_basis", "eyelid_basis", "pose_basis"))
    motion = (
        getattr(params, name) for name in ("expression", "rotation", "neck", "jaw", "eyes", "translation", "eyelids")
    )
    skeleton = (rig.skinning_weights, rig.joint_rest, rig.joint_expression)
    vertices = _C.skin(rig.template, *bases, *skeleton, *motion, threads=threads)
    assert vertices.shape == (3, len(rig.template), 3)
    tensors = reference.tensors(rig)
    for t in range(3):
        frame = {
            name: torch.tensor(value[t], dtype=torch.float64) for name, value in vars(params).items() if name != "fps"
        }
        turns = torch.cat([frame["rotation"], frame["neck"], frame["jaw"], frame["eyes"]]).reshape(5, 3)
        joints = reference.pose(tensors["joint_rest"], tensors["joint_expression"], frame["expression"], turns)
        expected = reference.skin(tensors, joints, frame["expression"], frame["eyelids"], frame["translation"])
        np.testing.assert_allclose(vertices[t], expected, atol=5e-7)  # half a micrometre


@pytest.mark.parametrize("name", SCENES)
def test_splats(name: str) -> None:
    """Everything up to projection: pose, skin, deform, match, bind, fade, project."""
    avatar, params, size, camera, _, _, threads = SCENES[name]
    renderer = Renderer(avatar, size=size, threads=threads, camera=camera)
    renderer.render(params)
    native = renderer.splats()
    view = (camera or avatar.camera).resized(size)
    layers = reference.frame_splats(avatar, params, view)[:2]
    expected = {key: torch.cat([getattr(layer, key) for layer in layers]).numpy() for key in reference.Splats._fields}
    inverse = np.linalg.inv(expected["covariance"])

    # Who is drawn: in front, not too faint, and its visible ellipse's box holds the centre of a pixel.
    faint = np.log(np.maximum(expected["opacity"] * 255, 1e-30))
    half = np.sqrt(np.maximum(2 * faint, 0))[:, None] * np.sqrt(np.diagonal(expected["covariance"], axis1=1, axis2=2))
    first = np.maximum(np.ceil(expected["mean"] - half - 0.5), 0)
    last = np.minimum(np.floor(expected["mean"] + half - 0.5), np.array(size) - 1)
    visible = expected["visible"] & (faint >= 0) & (first <= last).all(1)
    agreed = native["visible"] & visible
    assert (native["visible"] != visible).sum() <= 2 + 0.002 * len(visible)

    # float32 knows a splat's place to about a thousandth of a pixel, where it lies near the picture.
    close = agreed & (np.abs(expected["mean"]) < 1000).all(1)
    np.testing.assert_allclose(native["mean"][close], expected["mean"][close], atol=2e-3)
    np.testing.assert_allclose(native["depth"][agreed], expected["depth"][agreed], atol=2e-6, rtol=1e-6)
    np.testing.assert_allclose(native["colour"][agreed], expected["colour"][agreed], atol=2e-5)
    opacity = np.minimum(expected["opacity"], reference.ALPHA_MAXIMUM)
    np.testing.assert_allclose(native["opacity"][agreed], opacity[agreed], atol=2e-4)
    conic = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], 1)
    size_of_conic = np.linalg.norm(conic, axis=1, keepdims=True)
    np.testing.assert_allclose((native["conic"] / size_of_conic)[agreed], (conic / size_of_conic)[agreed], atol=2e-3)


@pytest.mark.parametrize("name", ["network", "two threads", "odd size", "from the side", "no torso", "no head"])
def test_alpha_and_depth(name: str) -> None:
    avatar, params, size, camera, background, _, threads = SCENES[name]
    renderer = Renderer(avatar, size, threads=threads, camera=camera, background=background)
    layers = renderer.render_layers(params)
    expected = reference.frame(avatar, params, size, camera, doubt_margin=1e-3)
    settled = expected.doubt.numpy() < 0.5 / 255
    alpha, depth = expected.alpha.numpy(), expected.depth.numpy()
    assert settled.mean() > 1 - MOST_DOUBTFUL
    np.testing.assert_allclose(layers.alpha[settled], alpha[settled], atol=1 / 255)
    covered = settled & (alpha > 0.1)
    np.testing.assert_allclose(layers.depth[covered], depth[covered], atol=1e-3)
    assert (layers.depth[layers.alpha == 0] == 0).all()
    np.testing.assert_array_equal(layers.picture, renderer.render(params))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 24), st.sampled_from([0.001, 0.01, 0.3]))
def test_composite(seed: int, width: int, height: int, softness: float) -> None:
    random = np.random.default_rng(seed)

    def layer() -> tuple[np.ndarray, ...]:
        alpha = np.clip(random.uniform(-0.3, 1.3, (height, width)), 0, 1)  # some empty, some full
        colour = random.random((height, width, 3)) * alpha[..., None]
        depth = np.where(alpha > 0, 1 + 0.02 * random.standard_normal((height, width)), 0)
        return tuple(value.astype(np.float32) for value in (colour, alpha, depth))

    head, torso, camera = layer(), layer(), make_camera((width, height))
    seam = make_avatar(head_count=0, torso_count=0).seam
    result = _C.composite(
        *head, *torso, softness, seam.centre, seam.axis, seam.radius, seam.half_height,
        camera.world_to_camera, camera.intrinsics,
    )  # fmt: skip
    doubt = torch.zeros(height, width)
    exact = [
        reference.Layer(*(torch.tensor(value, dtype=torch.float64) for value in values), doubt)
        for values in (head, torso)
    ]
    colour, alpha, _ = reference.composite(*exact, softness)
    view = (torch.tensor(value, dtype=torch.float64) for value in (camera.world_to_camera, camera.intrinsics))
    still, none = torch.eye(3, 4, dtype=torch.float64).expand(5, 3, 4), torch.zeros(3, dtype=torch.float64)
    colour, alpha = reference.fill_holes(colour, alpha, reference.seam_mask(seam, still, none, *view, camera.size))
    np.testing.assert_allclose(result[..., 3], alpha, atol=5e-5)
    np.testing.assert_allclose(result[..., :3], colour, atol=5e-5)
