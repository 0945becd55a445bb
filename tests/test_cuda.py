"""The CUDA engine: against the CPU's and the float64 reference, and what it promises about frames on the device.

Tests marked `gpu` need a device. The others run everywhere: frames are handed over by an engine that is played.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_camera, make_params, without_head, without_torso

import being_rt
from being_rt import _C
from being_rt.avatar.avatar import Avatar, Camera, Gaussians
from being_rt.cuda import check_device, stream_handle
from being_rt.errors import BeingError, DeviceError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.renderer import Background, BatchRenderer, Format, Renderer, default_device

gpu = pytest.mark.gpu

SMALLEST_PSNR = 50.0  # dB against the unquantised reference; rounding to 8 bits alone leaves 58.9
SIZE = (160, 120)
AVATAR = make_avatar(seed=3, size=SIZE)
PARAMS = make_params(8, seed=3)


def assert_close(got: np.ndarray, expected: np.ndarray, share: float = 1e-3, largest: int = 8) -> None:
    """Within 1/255, but for a share of the values where an alpha at the cut-off falls on either side of it."""
    assert got.shape == expected.shape
    difference = np.abs(got.astype(int) - expected)
    if got.ndim == 3 and got.shape[2] == 4:  # colour under little alpha is a quotient of two small numbers
        difference[..., :3] = difference[..., :3] * expected[..., 3:] // 255
    assert np.count_nonzero(difference > 1) <= 3 + share * difference.size
    assert difference.max() <= largest


class Scene(NamedTuple):
    avatar: Avatar
    params: FlameParams
    size: tuple[int, int] = SIZE
    camera: Camera | None = None
    background: Background = None
    format: Format = "rgb"


def scene(
    seed: int,
    size: tuple[int, int] = SIZE,
    camera: Camera | None = None,
    background: Background = None,
    format: Format = "rgb",
    strength: float = 1.0,
    **options: int | bool,
) -> Scene:
    avatar = make_avatar(seed=seed, size=(320, 240), **options)  # type: ignore[arg-type]
    return Scene(avatar, make_params(seed=seed, strength=strength), size, camera, background, format)


PICTURE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
SCENES = {
    "network": scene(0),
    "rest pose": scene(1, strength=0.0),
    "rigid": scene(2, network=False),
    "strong motion": scene(3, strength=2.0),
    "not antialiased": scene(4, antialiased=False),
    "odd size": scene(6, size=(33, 77)),
    "one pixel": scene(7, size=(1, 1)),
    "one row": scene(8, size=(64, 1), antialiased=False),
    "one column": scene(8, size=(1, 64)),
    "640x480": scene(9, size=(640, 480)),
    "from the side": scene(9, camera=make_camera((320, 240), yaw=1.3)),
    "from behind": scene(10, camera=make_camera((320, 240), yaw=3.0)),
    "near": scene(11, camera=make_camera(SIZE, distance=0.35)),
    "far": scene(12, camera=make_camera(SIZE, distance=6.0)),
    "wide angle": scene(13, camera=make_camera(SIZE, distance=0.25, field_of_view=90.0)),
    "camera inside": scene(14, camera=make_camera(SIZE, distance=0.05)),
    "rgba": scene(15, format="rgba"),
    "rgba, odd size": scene(15, format="rgba", size=(33, 77)),
    "rgba on transparent": scene(16, format="rgba", background="transparent"),
    "rgb on transparent": scene(17, background="transparent"),
    "colour behind": scene(18, background=(0.1, 0.7, 0.3)),
    "picture behind": scene(19, background=PICTURE),
    "nv12": scene(20, format="nv12"),
    "nv12, narrow": scene(21, format="nv12", size=(98, 46)),
    "nv12, smallest": scene(21, format="nv12", size=(2, 2)),
    "rank 7": scene(22, rank=7),
    "rank 33": scene(23, rank=33),
    "few triangles": scene(24, segments=3, rings=2, head_count=40, torso_count=17),
    "many small Gaussians": scene(25, head_count=9000, torso_count=4000, size=(320, 240)),
    "no torso": (lambda s: s._replace(avatar=without_torso(s.avatar)))(scene(26)),
    "no head": (lambda s: s._replace(avatar=without_head(s.avatar)))(scene(27)),
    "nobody": (lambda s: s._replace(avatar=without_head(without_torso(s.avatar))))(scene(28)),
}


def renderer_of(it: Scene, device: str = "cuda", **options: Any) -> Renderer:
    return Renderer(it.avatar, it.size, device, camera=it.camera, background=it.background, **options)


def draw(it: Scene, device: str = "cuda", **options: Any) -> np.ndarray:
    return renderer_of(it, device, **options).render(it.params, format=it.format)


# ---------------------------------------------------------------- the same pictures as the CPU and the reference


@gpu
@pytest.mark.parametrize("name", SCENES)
def test_cuda_draws_what_the_cpu_draws(name: str) -> None:
    assert_close(draw(SCENES[name]), draw(SCENES[name], "cpu"))


@gpu
@pytest.mark.parametrize(
    "name", ["network", "not antialiased", "odd size", "near", "far", "rgba", "nv12", "no torso", "no head"]
)
def test_cuda_draws_what_the_reference_draws(name: str) -> None:
    pytest.importorskip("torch")
    from being_rt import reference

    avatar, params, size, camera, background, format = it = SCENES[name]
    result = reference.compare(draw(it), avatar, params, size, camera, background, format)
    assert result.psnr >= SMALLEST_PSNR
    assert result.largest <= 2


@gpu
@pytest.mark.parametrize("name", ["network", "odd size", "from the side", "near", "no torso", "no head", "nobody"])
def test_layers(name: str) -> None:
    it = SCENES[name]
    renderer = renderer_of(it)
    got, expected = renderer.render_layers(it.params), renderer_of(it, "cpu").render_layers(it.params)
    assert got.alpha.dtype == got.depth.dtype == np.float32
    assert got.alpha.shape == got.depth.shape == (it.size[1], it.size[0])
    assert_close(got.picture, expected.picture)
    np.testing.assert_array_equal(got.picture, renderer.render(it.params))
    assert (np.abs(got.alpha - expected.alpha) > 1 / 255).mean() <= 2e-3
    covered = np.minimum(got.alpha, expected.alpha) > 0.1
    assert (np.abs(got.depth - expected.depth)[covered] > 1e-3).sum() <= 3 + 2e-3 * covered.sum()
    assert (got.depth[got.alpha == 0] == 0).all()


@gpu
@pytest.mark.parametrize("name", SCENES)
def test_splats(name: str) -> None:
    it = SCENES[name]
    renderers = [renderer_of(it, device) for device in ("cuda", "cpu")]
    for renderer in renderers:
        renderer.render(it.params)
    got, expected = (renderer.splats() for renderer in renderers)
    count = it.avatar.head.gaussians.count + it.avatar.torso.gaussians.count
    assert got["visible"].shape == (count,)
    assert (got["visible"] != expected["visible"]).sum() <= 4 + 0.005 * count
    both = got["visible"] & expected["visible"]
    close = both & (np.abs(expected["mean"]) < 1000).all(1)
    np.testing.assert_allclose(got["mean"][close], expected["mean"][close], atol=4e-3)
    np.testing.assert_allclose(got["depth"][both], expected["depth"][both], atol=4e-6, rtol=2e-6)
    np.testing.assert_allclose(got["colour"][both], expected["colour"][both], atol=1e-3)  # half floats
    np.testing.assert_allclose(got["opacity"][both], expected["opacity"][both], atol=5e-4)
    scale = np.maximum(np.linalg.norm(expected["conic"], axis=1, keepdims=True), 1e-30)
    np.testing.assert_allclose((got["conic"] / scale)[both], (expected["conic"] / scale)[both], atol=4e-3)


@gpu
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(st.integers(0, 1500), st.integers(0, 900)),
    mesh=st.tuples(st.integers(3, 18), st.integers(2, 18)),
    rank=st.integers(0, 64),
    antialiased=st.booleans(),
    size=st.tuples(st.integers(1, 170), st.integers(1, 140)),
    view=st.tuples(st.floats(0.2, 4), st.floats(-3.1, 3.1), st.sampled_from([10.0, 22.0, 70.0])),
    strength=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_any_scene(
    seed: int,
    counts: tuple[int, int],
    mesh: tuple[int, int],
    rank: int,
    antialiased: bool,
    size: tuple[int, int],
    view: tuple[float, float, float],
    strength: float,
) -> None:
    avatar = make_avatar(seed, *counts, *mesh, network=rank > 0, rank=max(rank, 1), antialiased=antialiased)
    it = Scene(avatar, make_params(seed=seed % 1000, strength=strength), size, make_camera(size, *view))
    assert_close(draw(it), draw(it, "cpu"), share=4e-3)


# ---------------------------------------------------------------- the same bytes, however a frame is drawn


@gpu
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_every_run_is_the_same(format: Format) -> None:
    renderers = [Renderer(AVATAR, SIZE, "cuda", graph=graph) for graph in (True, True, False)]
    expected = [renderers[0].render(PARAMS[t], format=format) for t in range(8)]
    for _ in range(5):
        for renderer in renderers:
            for t in range(8):
                np.testing.assert_array_equal(renderer.render(PARAMS[t], format=format), expected[t])


@gpu
def test_what_was_drawn_before_does_not_matter() -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    first = renderer.render(PARAMS[0])
    renderer.render(PARAMS[1], format="nv12")
    renderer.render_layers(PARAMS[3])
    renderer.render(PARAMS[2], camera=make_camera(SIZE, distance=0.3, yaw=1.0))
    np.testing.assert_array_equal(renderer.render(PARAMS[0], camera=AVATAR.camera), first)


@gpu
def test_camera_override_stays() -> None:
    side = make_camera(SIZE, yaw=0.8)
    renderer = Renderer(AVATAR, SIZE, "cuda")
    front = renderer.render(PARAMS[0])
    turned = renderer.render(PARAMS[0], camera=side)
    assert (front != turned).any()
    np.testing.assert_array_equal(renderer.render(PARAMS[0]), turned)
    np.testing.assert_array_equal(Renderer(AVATAR, SIZE, "cuda", camera=side).render(PARAMS[0]), turned)


@gpu
def test_two_renderers_at_once() -> None:
    sizes = (SIZE, (97, 64))
    expected = [Renderer(AVATAR, size, "cuda").render(PARAMS[i]) for i, size in enumerate(sizes)]
    renderers = [Renderer(AVATAR, size, "cuda") for size in sizes]
    results: list[list[np.ndarray]] = [[], []]

    def work(i: int) -> None:
        for _ in range(50):
            results[i].append(renderers[i].render(PARAMS[i]).copy())

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for pictures, wanted in zip(results, expected, strict=True):
        assert len(pictures) == 50
        assert all((picture == wanted).all() for picture in pictures)


@gpu
def test_many_threads_share_a_renderer() -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = [renderer.render(PARAMS[t]).copy() for t in range(8)]
    wrong: list[int] = []

    def work(t: int) -> None:
        wrong.extend(t for _ in range(50) if (renderer.render(PARAMS[t]) != expected[t]).any())
        wrong.append(-1)

    workers = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == [-1] * 8


@gpu
def test_stage_times_and_memory() -> None:
    timed, graph = (Renderer(AVATAR, SIZE, "cuda", graph=graph) for graph in (False, True))
    for renderer in (timed, graph):
        renderer.render(PARAMS[0])
    stages = ["pose", "skin", "deform+project+bin", "sort+rasterize+composite"]
    assert list(timed.stage_times()) == list(graph.stage_times()) == stages
    assert all(0 < value < 1000 for value in timed.stage_times().values())
    assert not any(graph.stage_times().values())
    assert (graph.device, graph.threads, graph.simd) == ("cuda:0", 0, "")
    larger = Renderer(AVATAR, (640, 480), "cuda")
    larger.render(PARAMS[0])
    assert larger.memory - graph.memory > 3 * (640 * 480 - 160 * 120)


# ---------------------------------------------------------------- long lists, hard scenes


def changed(avatar: Avatar, **values: Any) -> Avatar:
    """The avatar with fields of all its Gaussians set, each to a value per Gaussian or one for all."""

    def of(gaussians: Gaussians) -> Gaussians:
        new = {name: np.broadcast_to(np.float32(v), getattr(gaussians, name).shape) for name, v in values.items()}
        return replace(gaussians, **{name: np.ascontiguousarray(value) for name, value in new.items()})

    head, torso = avatar.head, avatar.torso
    return replace(
        avatar,
        head=replace(head, gaussians=of(head.gaussians)),
        torso=replace(torso, gaussians=of(torso.gaussians)),
    )


@gpu
@pytest.mark.parametrize(("heads", "torsos"), [(3000, 0), (0, 3000), (2500, 2000), (20000, 20000)])
def test_long_lists(heads: int, torsos: int) -> None:
    """Thousands of splats on a tile or two."""
    avatar = make_avatar(seed=6, head_count=heads, torso_count=torsos, network=False, antialiased=False, size=(40, 30))
    for layer in (avatar.head, avatar.torso):  # faint, so that no pixel is opaque before the last batch
        layer.gaussians.opacity_logit[:] -= 3.5
    it = Scene(avatar, make_params(seed=6), (40, 30))
    renderer = renderer_of(it)
    picture = renderer.render(it.params)
    assert_close(picture, draw(it, "cpu"), share=5e-3)
    assert renderer.splats()["visible"].sum() > 1024
    np.testing.assert_array_equal(picture, renderer.render(it.params))


@gpu
def test_one_depth() -> None:
    """Thousands of Gaussians in one plane: any order is right, but always the same one."""
    avatar = without_head(make_avatar(seed=12, torso_count=6000, network=False, size=SIZE))
    avatar.torso.gaussians.position[:, 2] = 0
    it = Scene(avatar, make_params(strength=0.0), camera=make_camera(SIZE))
    renderer = renderer_of(it)
    picture = renderer.render(it.params)
    for _ in range(10):
        np.testing.assert_array_equal(renderer.render(it.params), picture)
    np.testing.assert_array_equal(draw(it, graph=False), picture)
    # Of one colour, the order does not show.
    plain = it._replace(avatar=changed(avatar, colour=(0.7, 0.5, 0.3)))
    assert_close(draw(plain), draw(plain, "cpu"))


HARD = {
    "huge": {"log_scale": -0.7},
    "large": {"log_scale": -3.0},
    "tiny": {"log_scale": -13.0},
    "needles": {"log_scale": (-13.0, -13.0, -2.5)},
    "flakes": {"log_scale": (-13.0, -3.0, -3.0)},
    "transparent": {"opacity_logit": -25.0},
    "at the cut-off": {"opacity_logit": -5.5},
    "solid": {"opacity_logit": 25.0},
    "huge and solid": {"log_scale": -0.7, "opacity_logit": 25.0},
    "enormous": {"log_scale": 5.0},
}


@gpu
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("name", HARD)
def test_hard_scenes(name: str, antialiased: bool) -> None:
    avatar = changed(make_avatar(seed=13, network=False, antialiased=antialiased, size=SIZE), **HARD[name])
    for camera in (make_camera(SIZE), make_camera(SIZE, distance=0.05), make_camera(SIZE, distance=8.0)):
        it = Scene(avatar, make_params(seed=13), camera=camera)
        got = draw(it)
        # Needles of 8 cm by 2 micrometres turn by rounding alone.
        assert_close(got, draw(it, "cpu"), share=2e-2 if name == "needles" else 1e-2)
        np.testing.assert_array_equal(got, draw(it))


@gpu
def test_mixed_extremes() -> None:
    random = np.random.default_rng(5)
    avatar = make_avatar(seed=14, size=SIZE)
    for layer in (avatar.head, avatar.torso):
        count = layer.gaussians.count
        some = random.random(count) < 0.3
        layer.gaussians.log_scale[some] = random.uniform(-13, -1.5, (count, 3))[some]
        some = random.random(count) < 0.3
        layer.gaussians.opacity_logit[some] = random.uniform(-25, 25, count)[some]
    it = Scene(avatar, make_params(seed=14))
    assert_close(draw(it), draw(it, "cpu"), share=5e-3)


@gpu
def test_out_of_sight() -> None:
    """Far away, behind the camera, inside the head: whatever it shows, it is drawn, and the next frame is right."""
    it = Scene(AVATAR, PARAMS[0], (64, 48))
    renderer, cpu = renderer_of(it), renderer_of(it, "cpu")
    expected = renderer.render(it.params)
    for translation in ((0, 0, 2), (0, 0, 1.05), (0, 0, -1e6), (1e30, 0, 0), (0, 0, 3e38)):
        params = replace(it.params, translation=np.array([translation], np.float32))
        picture, alpha, depth = renderer.render_layers(params)
        assert np.isfinite(alpha).all()
        assert np.isfinite(depth).all()
        if abs(translation[0]) > 1 or abs(translation[2]) > 1.5:
            np.testing.assert_array_equal(picture, cpu.render(params))
        np.testing.assert_array_equal(renderer.render(it.params), expected)


# ---------------------------------------------------------------- lists that overflow

CROWD = make_avatar(seed=7, head_count=20000, torso_count=20000, network=False, antialiased=False, size=(320, 240))
CROWD_PARAMS = make_params(6, seed=7)
FAR = make_camera((320, 240), distance=25.0)  # everybody within a few tiles


@gpu
def test_lists_grow() -> None:
    renderer = Renderer(CROWD, (320, 240), "cuda")
    engine = renderer._backend.engine  # type: ignore[union-attr]
    behind = replace(CROWD_PARAMS[0], translation=np.array([[0, 0, 9]], np.float32))
    renderer.render(behind)
    before, memory = engine.list_capacity, renderer.memory
    grown = renderer.render(CROWD_PARAMS[0], camera=FAR)
    assert engine.list_capacity > before
    assert renderer.memory > memory
    assert_close(grown, Renderer(CROWD, (320, 240), camera=FAR).render(CROWD_PARAMS[0]), share=5e-3)
    np.testing.assert_array_equal(grown, Renderer(CROWD, (320, 240), "cuda", camera=FAR).render(CROWD_PARAMS[0]))
    near = Renderer(CROWD, (320, 240), "cuda").render(CROWD_PARAMS[0])
    np.testing.assert_array_equal(renderer.render(CROWD_PARAMS[0], camera=CROWD.camera), near)
    assert engine.lost_frames == 0


@gpu
@pytest.mark.parametrize("graph", [True, False])
def test_overflow_of_frames_under_way(graph: bool) -> None:
    """Downloads that began before anybody knew; frames that wait; layers; memory of the caller's."""
    expected = [Renderer(CROWD, (320, 240), "cuda", camera=FAR).render(CROWD_PARAMS[t]) for t in range(6)]

    def fresh() -> Renderer:
        return Renderer(CROWD, (320, 240), "cuda", camera=FAR, graph=graph)

    renderer = fresh()
    coming = [renderer.draw(CROWD_PARAMS[t]).download() for t in range(6)]
    for t in range(6):
        np.testing.assert_array_equal(coming[t].result(), expected[t])
    renderer = fresh()
    frames = [renderer.draw(CROWD_PARAMS[t]) for t in range(3)]
    assert frames[0].wait()
    for t in range(3):
        np.testing.assert_array_equal(frames[t].numpy(), expected[t])
    assert not renderer.draw(CROWD_PARAMS[0]).wait()
    np.testing.assert_array_equal(fresh().render_layers(CROWD_PARAMS[0]).picture, expected[0])
    out = np.zeros_like(expected[0])
    np.testing.assert_array_equal(fresh().render(CROWD_PARAMS[0], out=out), expected[0])


# ---------------------------------------------------------------- errors, and life after them


def broken(name: str, value: np.ndarray) -> Any:
    return SimpleNamespace(**{**{k: v.copy() for k, v in vars(PARAMS[0]).items() if k != "fps"}, name: value})


@gpu
def test_bad_motion_leaves_the_next_frame_right() -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = [renderer.render(PARAMS[t]).copy() for t in range(3)]
    for params, message in (
        (PARAMS, "T = 1, got T = 8"),
        (broken("jaw", np.full((1, 3), np.nan, np.float32)), "jaw holds NaN"),
        (broken("eyes", np.full((1, 6), np.inf, np.float32)), "eyes holds infinity"),
        (broken("neck", np.zeros((1, 4), np.float32)), r"neck must be float32 \[1, 3\], got float32 \[1, 4\]"),
        (broken("rotation", np.zeros((1, 3))), "rotation must be float32 .* got float64"),
    ):
        before = renderer.draw(PARAMS[1])
        with pytest.raises(InvalidParameterError, match=message):
            renderer.render(params)
        with pytest.raises(InvalidParameterError, match=message):
            renderer.draw(params)
        np.testing.assert_array_equal(before.numpy(), expected[1])
        np.testing.assert_array_equal(renderer.render(PARAMS[2]), expected[2])


@gpu
def test_bad_outputs() -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0]).copy()
    frozen = np.zeros((120, 160, 3), np.uint8)
    frozen.flags.writeable = False
    for out, message in (
        (np.zeros((120, 160, 4), np.uint8), r"out must be uint8 \[120, 160, 3\], got uint8 \[120, 160, 4\]"),
        (np.zeros((120, 160, 3), np.float32), "got float32"),
        (np.zeros((240, 160, 3), np.uint8)[::2], "C-contiguous"),
        (frozen, "read-only"),
        ([1, 2], "got list"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            renderer.render(PARAMS[0], out=out)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="format must be"):
        renderer.render(PARAMS[0], format="yuv")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="even"):
        Renderer(AVATAR, (33, 77), "cuda").render(PARAMS[0], format="nv12")
    for stream in (True, -1, "x", 1.5, object()):
        with pytest.raises(InvalidParameterError, match="stream must be"):
            renderer.draw(PARAMS[0], stream=stream)
    np.testing.assert_array_equal(renderer.render(PARAMS[0]), expected)


@gpu
def test_bad_avatars_and_cameras() -> None:
    colour = AVATAR.head.gaussians.colour.copy()
    colour[7, 1] = np.nan
    bad = replace(AVATAR, head=replace(AVATAR.head, gaussians=replace(AVATAR.head.gaussians, colour=colour)))
    with pytest.raises(InvalidParameterError, match=r"head\.colour holds NaN"):
        Renderer(bad, SIZE, "cuda")
    skewed = make_camera(SIZE).world_to_camera.copy()
    skewed[0, 0] *= 1.5
    with pytest.raises(InvalidParameterError, match="rotation and a translation"):
        Renderer(AVATAR, SIZE, "cuda", camera=replace(make_camera(SIZE), world_to_camera=skewed))


@gpu
def test_no_such_device() -> None:
    with pytest.raises(DeviceError, match="no CUDA device 99") as caught:
        Renderer(AVATAR, SIZE, "cuda:99")
    assert "\n" not in str(caught.value)


@gpu
def test_out_of_memory() -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0]).copy()
    with pytest.raises(DeviceError, match="memory") as caught:
        BatchRenderer([AVATAR], [0] * 5000, (8192, 8192))
    assert "\n" not in str(caught.value)
    gc.collect()
    np.testing.assert_array_equal(renderer.render(PARAMS[0]), expected)
    np.testing.assert_array_equal(Renderer(AVATAR, SIZE, "cuda").render(PARAMS[0]), expected)


# ---------------------------------------------------------------- frames on the device


@gpu
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_out_in_host_memory(format: Format) -> None:
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0], format=format)
    guarded = np.full((expected.shape[0] + 2, *expected.shape[1:]), 173, np.uint8)
    out = guarded[1:-1]
    assert renderer.render(PARAMS[0], out=out, format=format) is out
    np.testing.assert_array_equal(out, expected)
    assert (guarded[[0, -1]] == 173).all()


@gpu
@pytest.mark.parametrize("size", [(160, 120), (33, 77), (1, 1), (31, 17), (64, 32)])
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_out_as_a_tensor(size: tuple[int, int], format: Format) -> None:
    """Every byte is written and none beyond, wherever the memory begins."""
    torch = pytest.importorskip("torch")
    if format == "nv12":
        size = (size[0] // 2 * 2 + 2, size[1] // 2 * 2 + 2)
    renderer = Renderer(AVATAR, size, "cuda")
    expected = renderer.render(PARAMS[0], format=format)
    for begin in (256, 1, 3, 8, 12):
        for fill in (0, 255):
            memory = torch.full((expected.size + 512,), fill, dtype=torch.uint8, device="cuda")
            out = memory[begin : begin + expected.size].view(expected.shape)
            assert renderer.render(PARAMS[0], out=out, format=format) is out
            np.testing.assert_array_equal(out.cpu().numpy(), expected)
            assert (memory[:begin] == fill).all()
            assert (memory[begin + expected.size :] == fill).all()


@gpu
def test_out_as_a_cupy_array() -> None:
    cupy = pytest.importorskip("cupy")
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0])
    out = cupy.zeros(expected.shape, cupy.uint8)
    assert renderer.render(PARAMS[0], out=out) is out
    np.testing.assert_array_equal(out.get(), expected)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        out = cupy.zeros(expected.shape, cupy.uint8)
        renderer.draw(PARAMS[0], stream=stream, out=out)
        doubled = out.astype(cupy.int32) * 2
    np.testing.assert_array_equal(doubled.get(stream=stream), expected.astype(np.int32) * 2)


@gpu
def test_bad_device_memory() -> None:
    torch = pytest.importorskip("torch")
    renderer = Renderer(AVATAR, SIZE, "cuda")
    for out, message in (
        (torch.zeros((120, 160, 4), dtype=torch.uint8, device="cuda"), r"out must be uint8 \[120, 160, 3\], got"),
        (torch.zeros((120, 160, 3), device="cuda"), "got <f4"),
        (torch.zeros((240, 160, 3), dtype=torch.uint8, device="cuda")[::2], "C-contiguous"),
        (torch.zeros((120, 160, 3), dtype=torch.uint8), "got Tensor"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            renderer.render(PARAMS[0], out=out)
        with pytest.raises(InvalidParameterError, match=message):
            renderer.draw(PARAMS[0], out=out)


@gpu
def test_another_device() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    renderer = Renderer(AVATAR, SIZE, "cuda:0")
    expected = renderer.render(PARAMS[0]).copy()
    with pytest.raises(InvalidParameterError, match="out is on CUDA device 1, the renderer on device 0"):
        renderer.render(PARAMS[0], out=torch.zeros((120, 160, 3), dtype=torch.uint8, device="cuda:1"))
    with pytest.raises(DeviceError, match="the stream is of CUDA device 1"):
        renderer.draw(PARAMS[0], stream=torch.cuda.Stream(device=1))
    other = Renderer(AVATAR, SIZE, "cuda:1")
    assert other.device == "cuda:1"
    np.testing.assert_array_equal(other.render(PARAMS[0]), expected)
    with torch.cuda.device(1):
        np.testing.assert_array_equal(renderer.render(PARAMS[0]), expected)
    assert torch.from_dlpack(other.draw(PARAMS[0])).device.index == 1


@gpu
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_tensors_of_a_frame(format: Format) -> None:
    torch = pytest.importorskip("torch")
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0], format=format)
    frame = renderer.draw(PARAMS[0], format=format)
    assert frame.shape == expected.shape
    assert frame.__dlpack_device__() == (2, 0)
    tensor = torch.from_dlpack(frame)
    assert (tensor.dtype, tensor.device.type, tuple(tensor.shape)) == (torch.uint8, "cuda", expected.shape)
    np.testing.assert_array_equal(tensor.cpu().numpy(), expected)
    assert torch.as_tensor(frame, device="cuda").data_ptr() == tensor.data_ptr()  # no copy
    del frame, renderer
    gc.collect()
    np.testing.assert_array_equal(tensor.cpu().numpy(), expected)  # the memory lives as long as the tensor


@gpu
def test_cupy_arrays_of_a_frame() -> None:
    cupy = pytest.importorskip("cupy")
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = renderer.render(PARAMS[0])
    frame = renderer.draw(PARAMS[0])
    np.testing.assert_array_equal(cupy.from_dlpack(frame).get(), expected)
    array = cupy.asarray(frame)
    np.testing.assert_array_equal(array.get(), expected)
    assert array.data.ptr == frame.__cuda_array_interface__["data"][0]


@gpu
def test_streams() -> None:
    """Frames on the caller's streams: in order with the caller's work, and after the frames before them."""
    torch = pytest.importorskip("torch")
    renderer = Renderer(AVATAR, SIZE, "cuda")
    expected = [renderer.render(PARAMS[t]).copy() for t in range(8)]
    streams = [torch.cuda.Stream() for _ in range(3)]
    kept = []
    for i in range(64):
        stream: Any = [*streams, torch.cuda.default_stream(), streams[0].cuda_stream][i % 5]
        on = stream if not isinstance(stream, int) else streams[0]
        with torch.cuda.stream(on):
            out = torch.empty((120, 160, 3), dtype=torch.uint8, device="cuda")
            renderer.draw(PARAMS[i % 8], stream=stream, out=out)
            kept.append(out.clone())
    torch.cuda.synchronize()
    for i, picture in enumerate(kept):
        np.testing.assert_array_equal(picture.cpu().numpy(), expected[i % 8])
    with torch.cuda.stream(streams[1]):  # the stream that the tensor's library works on, without being told
        out = torch.zeros((120, 160, 3), dtype=torch.uint8, device="cuda")
        renderer.draw(PARAMS[1], out=out)
        copy = out.clone()
    torch.cuda.synchronize()
    np.testing.assert_array_equal(copy.cpu().numpy(), expected[1])


@gpu
def test_downloads_overlap_the_next_frames() -> None:
    renderer = Renderer(AVATAR, (640, 480), "cuda")
    expected = [renderer.render(PARAMS[t]).copy() for t in range(8)]
    for depth in (1, 2, 3, 7):
        coming: list[Any] = []
        for i in range(60):
            coming.append(renderer.draw(PARAMS[i % 8]).download())
            if len(coming) > depth:
                np.testing.assert_array_equal(coming.pop(0).result(), expected[(i - depth) % 8])
    abandoned = [renderer.draw(PARAMS[t]).download() for t in range(8)]
    del abandoned
    np.testing.assert_array_equal(renderer.render(PARAMS[0]), expected[0])


@gpu
def test_pictures_are_the_callers() -> None:
    """Pinned memory goes round, but never that of an array that somebody holds."""
    renderer = Renderer(AVATAR, SIZE, "cuda")
    kept = [renderer.render(PARAMS[t]) for t in range(8)]
    copies = [picture.copy() for picture in kept]
    for t in range(20):
        renderer.render(PARAMS[t % 8])
    for picture, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(picture, copy)
    expected = kept[0].copy()
    del renderer
    gc.collect()
    np.testing.assert_array_equal(kept[0], expected)


@gpu
def test_no_memory_is_lost() -> None:
    torch = pytest.importorskip("torch")
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)) > 1:
        pytest.skip("other workers take memory of the same device")
    motion = make_params(300, seed=9, strength=2.0)
    renderer = Renderer(AVATAR, (640, 480), "cuda")

    def once() -> int:
        for t in range(300):
            frame = renderer.draw(motion[t], format=("rgb", "rgba", "nv12")[t % 3])
            if t % 4 == 0:
                frame.download()
            elif t % 4 == 1:
                frame.numpy()
            elif t % 4 == 2:
                torch.from_dlpack(frame)
        renderer.render_layers(motion[0])
        torch.cuda.synchronize()
        return torch.cuda.mem_get_info()[0]

    first = once()
    assert once() >= first
    free = []
    for _ in range(5):  # the driver keeps some memory of the first; what is lost, is lost every time
        for _ in range(20):
            Renderer(AVATAR, (640, 480), "cuda").render(PARAMS[0])
        gc.collect()
        free.append(torch.cuda.mem_get_info()[0])
    assert free[-1] >= free[-3]


@gpu
def test_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "cupy"):
        pytest.importorskip(module)
    monkeypatch.setattr(being_rt, "demo_avatar", lambda name: AVATAR, raising=False)
    page = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    exec("\n".join(blocks), {})


# ---------------------------------------------------------------- batches

OTHER = make_avatar(seed=5, head_count=900, torso_count=2100, antialiased=False, size=SIZE)
BATCH: dict[str, Any] = dict(
    avatars=[AVATAR, OTHER],
    sessions=[0, 1, 1, 0, 0],
    cameras=[None, None, make_camera(SIZE, yaw=0.7), make_camera(SIZE, distance=0.5), None],
    backgrounds=[None, (0.2, 0.4, 0.6), None, "transparent", PICTURE],
)


@gpu
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_a_batch_is_many_renderers(format: Format, graph: bool) -> None:
    batch = BatchRenderer(**BATCH, size=SIZE, graph=graph)
    alone = [
        Renderer(BATCH["avatars"][avatar], SIZE, "cuda", camera=camera, background=background)
        for avatar, camera, background in zip(BATCH["sessions"], BATCH["cameras"], BATCH["backgrounds"], strict=True)
    ]
    for begin in range(3):
        params = PARAMS[begin : begin + 5]
        expected = np.stack([alone[i].render(params[i], format=format) for i in range(5)])
        np.testing.assert_array_equal(batch.render(params, format=format), expected)
        frame = batch.draw(params, format=format)
        assert frame.shape == expected.shape
        np.testing.assert_array_equal(frame.numpy(), expected)
        out = np.zeros_like(expected)
        assert batch.render(params, out=out, format=format) is out
        np.testing.assert_array_equal(out, expected)
    batch.set_camera(1, make_camera(SIZE, yaw=-0.5))
    expected[1] = alone[1].render(params[1], format=format, camera=make_camera(SIZE, yaw=-0.5))
    np.testing.assert_array_equal(batch.render(params, format=format), expected)


@gpu
def test_a_batch_of_one_and_of_many() -> None:
    expected = Renderer(AVATAR, (33, 77), "cuda").render(PARAMS[0])
    np.testing.assert_array_equal(BatchRenderer([AVATAR], [0], (33, 77)).render(PARAMS[:1]), expected[None])
    params = FlameParams.concatenate([PARAMS[0]] * 64)
    pictures = BatchRenderer([AVATAR], [0] * 64, (33, 77)).render(params)
    assert (pictures == expected).all()


@gpu
def test_a_batch_overflows() -> None:
    batch = BatchRenderer([CROWD, AVATAR], [0, 1], (320, 240), cameras=[FAR, None])
    params = FlameParams.concatenate([CROWD_PARAMS[0], PARAMS[0]])
    pictures = batch.render(params)
    np.testing.assert_array_equal(pictures[0], Renderer(CROWD, (320, 240), "cuda", camera=FAR).render(CROWD_PARAMS[0]))
    np.testing.assert_array_equal(pictures[1], Renderer(AVATAR, (320, 240), "cuda").render(PARAMS[0]))


@gpu
def test_batch_of_different_ranks() -> None:
    with pytest.raises(InvalidParameterError, match="offset networks of one rank"):
        BatchRenderer([make_avatar(rank=4), make_avatar(rank=33)], [0, 1], SIZE)
    rigid = make_avatar(network=False, size=SIZE)
    pictures = BatchRenderer([AVATAR, rigid], [0, 1], SIZE).render(PARAMS[:2])
    np.testing.assert_array_equal(pictures[1], Renderer(rigid, SIZE, "cuda").render(PARAMS[1]))


@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_a_batch_on_the_cpu(format: Format) -> None:
    batch = BatchRenderer(**BATCH, size=SIZE, device="cpu")
    alone = [
        Renderer(BATCH["avatars"][avatar], SIZE, camera=camera, background=background)
        for avatar, camera, background in zip(BATCH["sessions"], BATCH["cameras"], BATCH["backgrounds"], strict=True)
    ]
    batch.set_camera(1, make_camera(SIZE, yaw=-0.5))
    alone[1].render(PARAMS[0], camera=make_camera(SIZE, yaw=-0.5))
    expected = np.stack([alone[i].render(PARAMS[i], format=format) for i in range(5)])
    out = np.zeros_like(expected)
    assert batch.render(PARAMS[:5], out=out, format=format) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(batch.render(PARAMS[:5], format=format), expected)
    assert sum(batch.stage_times().values()) > 0
    assert batch.memory == sum(renderer.memory for renderer in batch._renderers)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=gpu)])
def test_bad_batches(device: str) -> None:
    for options, message in (
        ({"sessions": []}, "sessions must be 1 to 65535, got 0"),
        ({"sessions": [0] * 65536}, "sessions must be 1 to 65535"),
        ({"sessions": [0, 1]}, "names avatar 1, there are 1"),
        ({"sessions": [-1]}, "names avatar -1"),
        ({"cameras": [None]}, "cameras must be one per session"),
        ({"backgrounds": "transparent"}, "backgrounds must be one per session"),
        ({"backgrounds": ["blue", None]}, "background must be"),
        ({"size": (0, 4)}, "size must be"),
    ):
        given_options: Any = {"avatars": [AVATAR], "sessions": [0, 0], "size": (16, 16), "device": device} | options
        with pytest.raises(InvalidParameterError, match=message):
            BatchRenderer(**given_options)
    batch = BatchRenderer([AVATAR], [0, 0], (16, 16), device)
    with pytest.raises(InvalidParameterError, match="params with T = 2, got T = 3"):
        batch.render(PARAMS[:3])
    with pytest.raises(InvalidParameterError, match=r"out must be uint8 \[2, 16, 16, 3\]"):
        batch.render(PARAMS[:2], out=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(InvalidParameterError, match="session must be 0 to 1, got 2"):
        batch.set_camera(2, AVATAR.camera)


# ---------------------------------------------------------------- devices


def test_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEING_RT_DEVICE", raising=False)
    try:
        check_device("cuda")
        assert default_device() == "cuda"
    except DeviceError:
        assert default_device() in ("cpu", "cuda:1")
    monkeypatch.setattr(_C, "cuda_built", True)
    for supported, expected in (([], "cpu"), ([True], "cuda"), ([False, True], "cuda:1"), ([False], "cpu")):
        devices = [{"supported": value} for value in supported]
        monkeypatch.setattr(_C, "cuda_devices", lambda devices=devices: devices, raising=False)
        assert default_device() == expected
    monkeypatch.setattr(_C, "cuda_built", False)
    assert default_device() == "cpu"
    for chosen in ("cpu", "cuda", "cuda:3"):
        monkeypatch.setenv("BEING_RT_DEVICE", chosen)
        assert default_device() == chosen


def test_a_build_without_cuda_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_C, "cuda_built", False)
    for make in (lambda: Renderer(AVATAR, SIZE, "cuda"), lambda: BatchRenderer([AVATAR], [0], SIZE)):
        with pytest.raises(DeviceError, match="no CUDA renderer; rebuild it with BEING_RT_CUDA=1") as caught:
            make()
        assert isinstance(caught.value, BeingError)
        assert "\n" not in str(caught.value)


def test_frames_on_the_device_need_one() -> None:
    with pytest.raises(DeviceError, match="draw needs a CUDA device"):
        Renderer(AVATAR, (16, 16)).draw(PARAMS[0])
    with pytest.raises(DeviceError, match="draw needs a CUDA device"):
        BatchRenderer([AVATAR], [0], (16, 16), "cpu").draw(PARAMS[0])


def test_stream_handles() -> None:
    for stream, handle in (
        (77, 77),
        (0, 1),  # CUDA's default stream, which the engine knows by its other name
        (SimpleNamespace(cuda_stream=5), 5),
        (SimpleNamespace(cuda_stream=0), 1),
        (SimpleNamespace(ptr=6), 6),
        (SimpleNamespace(__cuda_stream__=lambda: (0, 9)), 9),
    ):
        assert stream_handle(stream) == handle
    for wrong in (True, -1, 1.5, "7", object(), SimpleNamespace(ptr=None)):
        with pytest.raises(InvalidParameterError, match="stream must be"):
            stream_handle(wrong)


# ---------------------------------------------------------------- frames, handed over by an engine that is played


class PlayedBuffer:
    def __init__(self, device: int, bytes: int) -> None:
        self.device, self.memory, self.size = device, np.zeros(bytes, np.uint8), bytes
        self.pointer = self.memory.ctypes.data

    def dlpack(self, shape: tuple[int, ...]) -> Any:
        return "capsule", shape


class PlayedEngine:
    """Paints a frame in the value of its first expression; frames in `overflows` only when they are waited for."""

    memory = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.frames: dict[int, tuple[PlayedBuffer | None, int]] = {}
        self.overflows: set[int] = set()
        self.stream = self.count = 0

    def set_camera(self, *arguments: Any) -> None: ...

    def set_background(self, *arguments: Any) -> None: ...

    def submit(self, expression: np.ndarray, *others: Any) -> int:
        buffer, self.stream = others[7], others[-1]
        self.count += 1
        self.frames[self.count] = buffer, int(expression[0, 0])
        if self.count not in self.overflows:
            self._paint(self.count)
        return self.count

    def wait(self, frame: int) -> bool:
        if frame not in self.overflows:
            return False
        self.overflows.remove(frame)
        self._paint(frame)
        return True

    def start_copy(self, frame: int, buffer: PlayedBuffer, shape: tuple[int, ...]) -> np.ndarray:
        return buffer.memory.reshape(shape).copy()

    def copy_into(self, frame: int, buffer: PlayedBuffer, out: np.ndarray) -> None:
        out.flat = buffer.memory

    def wait_for_copy(self, buffer: PlayedBuffer) -> None: ...

    def _paint(self, frame: int) -> None:
        buffer, value = self.frames[frame]
        if buffer:
            buffer.memory[:] = value


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Renderer:
    monkeypatch.setattr(_C, "cuda_built", True)
    for name, value in (
        ("CudaEngine", PlayedEngine),
        ("CudaBuffer", PlayedBuffer),
        ("check_cuda_device", lambda device: None),
    ):
        monkeypatch.setattr(_C, name, value, raising=False)
    return Renderer(make_avatar(head_count=5, torso_count=5, size=(32, 16)), (32, 16), "cuda:2")


def painted(value: int) -> FlameParams:
    return FlameParams.neutral().replace(expression=np.full((1, 100), value, np.float32))


def test_frames_take_turns(played: Renderer) -> None:
    assert played.device == "cuda:2"
    frames = [played.draw(painted(value)) for value in range(4)]
    assert [int(frame.numpy().max()) for frame in frames[1:]] == [1, 2, 3]
    for use in (
        frames[0].wait,
        frames[0].numpy,
        frames[0].download,
        frames[0].__dlpack__,
        lambda: frames[0].__cuda_array_interface__,
    ):
        with pytest.raises(DeviceError, match="a later frame has taken this one's memory"):
            use()
    played.draw(painted(9), format="nv12")  # has memory of its own
    assert int(frames[1].numpy().max()) == 1


def test_downloads_survive_overflow_and_later_frames(played: Renderer) -> None:
    engine: Any = played._backend.engine  # type: ignore[union-attr]
    engine.overflows = set(range(1, 20, 3))
    coming = [played.draw(painted(value)).download() for value in range(20)]
    assert [int(picture.result().max()) for picture in coming] == list(range(20))
    frame = played.draw(painted(7))
    assert frame.download() is frame.download()


def test_rendering_waits_for_overflow(played: Renderer) -> None:
    engine: Any = played._backend.engine  # type: ignore[union-attr]
    engine.overflows = {1, 2, 3, 4}
    assert (played.render(painted(7)) == 7).all()
    out = np.zeros((16, 32, 3), np.uint8)
    assert played.render(painted(8), out=out) is out
    assert (out == 8).all()
    frame = played.draw(painted(9))
    assert frame.__dlpack__(stream=5) == ("capsule", (16, 32, 3))
    assert 3 not in engine.overflows
    frame = played.draw(painted(9))
    frame.__dlpack__(stream=-1)
    assert 4 in engine.overflows
    interface = frame.__cuda_array_interface__
    assert 4 not in engine.overflows
    assert (interface["shape"], interface["typestr"], interface["version"]) == ((16, 32, 3), "|u1", 3)
    assert frame.__dlpack_device__() == (2, 2)
    for options in ({"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError):
            frame.__dlpack__(**options)


def test_memory_of_the_callers(played: Renderer) -> None:
    engine: Any = played._backend.engine  # type: ignore[union-attr]

    def memory(**values: Any) -> Any:
        interface = {"shape": (16, 32, 3), "typestr": "|u1", "data": (1234, False), "version": 3}
        return SimpleNamespace(__cuda_array_interface__=interface | values)

    out = memory(stream=77, strides=(96, 3, 1))
    assert played.render(painted(1), out=out) is out
    assert engine.stream == 77
    frame = played.draw(painted(1), out=out, stream=5)
    assert engine.stream == 5
    assert frame.__cuda_array_interface__["data"] == (1234, False)
    with pytest.raises(DeviceError, match="copied by its owner"):
        frame.numpy()
    for values, message in (
        ({"shape": (16, 32, 4)}, r"out must be uint8 \[16, 32, 3\], got .* \[16, 32, 4\]"),
        ({"typestr": "<f4"}, "got <f4"),
        ({"strides": (192, 3, 1)}, "C-contiguous"),
        ({"data": (1234, True)}, "read-only"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            played.draw(painted(1), out=memory(**values))
    elsewhere = SimpleNamespace(**vars(memory()), __dlpack_device__=lambda: (2, 1))
    with pytest.raises(InvalidParameterError, match="out is on CUDA device 1, the renderer on device 2"):
        played.draw(painted(1), out=elsewhere)
