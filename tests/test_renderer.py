"""Renderer, the public face of the native core. test_reference_native compares what it draws with the reference."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import make_avatar, make_camera, make_params, without_head, without_torso

from being_rt import _C
from being_rt.errors import BeingError, DeviceError, InvalidParameterError
from being_rt.renderer import LARGEST_SIDE, Format, Renderer, background_picture

AVATAR = make_avatar(seed=3, size=(160, 120))
PARAMS = make_params(3, seed=3)


def draw(size: tuple[int, int] = (160, 120), **options: object) -> np.ndarray:
    return Renderer(AVATAR, size=size, **options).render(PARAMS[0])  # type: ignore[arg-type]


# ---------------------------------------------------------------- the same picture, however it is drawn


@pytest.mark.parametrize("size", [(160, 120), (33, 77)])
def test_threads_do_not_change_a_byte(size: tuple[int, int]) -> None:
    one = Renderer(AVATAR, size=size, threads=1)
    for count in (2, 3, 7):
        many = Renderer(AVATAR, size=size, threads=count)
        assert many.threads == count
        for t in range(3):
            expected, got = one.render_layers(PARAMS[t]), many.render_layers(PARAMS[t])
            for a, b in zip(expected, got, strict=True):
                np.testing.assert_array_equal(a, b)


def test_what_was_drawn_before_does_not_matter() -> None:
    renderer = Renderer(AVATAR, size=(160, 120))
    first = renderer.render(PARAMS[0])
    renderer.render(PARAMS[1], format="nv12")
    renderer.render(PARAMS[2], camera=make_camera((160, 120), distance=0.3, yaw=1.0))
    again = renderer.render(PARAMS[0], camera=AVATAR.camera)
    np.testing.assert_array_equal(first, again)


def test_two_renderers_at_once() -> None:
    expected = [draw(), Renderer(AVATAR, size=(97, 64), threads=1).render(PARAMS[1])]
    results: list[list[np.ndarray]] = [[], []]
    renderers = [Renderer(AVATAR, size=(160, 120), threads=2), Renderer(AVATAR, size=(97, 64), threads=2)]

    def work(i: int) -> None:
        for _ in range(10):
            results[i].append(renderers[i].render(PARAMS[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for pictures, wanted in zip(results, expected, strict=True):
        assert len(pictures) == 10
        assert all((picture == wanted).all() for picture in pictures)


def test_order_of_gaussians_does_not_matter() -> None:
    """Splats of different depth blend by depth, whatever their place in the file: at most rounding may differ."""
    random = np.random.default_rng(0)
    avatar = make_avatar(seed=4, network=False, size=(160, 120))
    order = random.permutation(avatar.head.gaussians.count)
    head = avatar.head
    gaussians = replace(head.gaussians, **{k: np.ascontiguousarray(v[order]) for k, v in vars(head.gaussians).items()})
    shuffled = replace(head, gaussians=gaussians, face=head.face[order], barycentric=head.barycentric[order])
    band = np.flatnonzero(np.isin(order, avatar.seam.head_band)).astype(np.int32)
    other = replace(avatar, head=shuffled, seam=replace(avatar.seam, head_band=band))
    a = Renderer(avatar, size=(160, 120)).render(PARAMS[0]).astype(int)
    b = Renderer(other, size=(160, 120)).render(PARAMS[0]).astype(int)
    assert np.abs(a - b).max() <= 1


# ---------------------------------------------------------------- output


@pytest.mark.parametrize(("format", "shape"), [("rgb", (120, 160, 3)), ("rgba", (120, 160, 4)), ("nv12", (180, 160))])
def test_out_is_drawn_into(format: Format, shape: tuple[int, ...]) -> None:
    renderer = Renderer(AVATAR, size=(160, 120))
    expected = renderer.render(PARAMS[0], format=format)
    assert expected.shape == shape
    assert expected.dtype == np.uint8
    guarded = np.full((shape[0] + 2, *shape[1:]), 173, np.uint8)
    out = guarded[1:-1]
    assert renderer.render(PARAMS[0], out=out, format=format) is out
    np.testing.assert_array_equal(out, expected)
    assert (guarded[[0, -1]] == 173).all()


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 75),
    height=st.integers(1, 75),
    format=st.sampled_from(["rgb", "rgba", "nv12"]),
    threads=st.integers(1, 2),
)
def test_every_byte_of_any_size_is_written_and_none_beyond(
    width: int, height: int, format: Format, threads: int
) -> None:
    renderer = Renderer(AVATAR, size=(width, height), threads=threads)
    if format == "nv12" and (width % 2 or height % 2):
        with pytest.raises(InvalidParameterError, match="even"):
            renderer.render(PARAMS[0], format=format)
        return
    count = {"rgb": 3 * width * height, "rgba": 4 * width * height, "nv12": width * height * 3 // 2}[format]
    shape = renderer.render(PARAMS[0], format=format).shape
    pictures = []
    for fill in (0, 255):
        memory = np.full(count + 256, fill, np.uint8)
        out = memory[128:-128].reshape(shape)
        renderer.render(PARAMS[0], out=out, format=format)
        assert (memory[:128] == fill).all()
        assert (memory[-128:] == fill).all()
        pictures.append(out)
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_a_crop_is_part_of_the_whole() -> None:
    """Tiles start at a picture's corner: moving the principal point by whole pixels moves the picture, no more."""
    camera = make_camera((160, 120))
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2, 2] -= (43, 17)
    crop = replace(camera, intrinsics=intrinsics, size=(90, 75))
    whole = draw(camera=camera, background="transparent").astype(int)
    part = Renderer(AVATAR, size=(90, 75), camera=crop, background="transparent").render(PARAMS[0]).astype(int)
    difference = np.abs(part - whole[17 : 17 + 75, 43 : 43 + 90])
    # Splats at the limit of the projection's Jacobian, 1.3 times the picture, differ with its size.
    assert np.percentile(difference, 99) <= 1


def test_formats_agree() -> None:
    renderer = Renderer(AVATAR, size=(160, 120))
    rgb = renderer.render(PARAMS[0]).astype(float)
    rgba = renderer.render(PARAMS[0], format="rgba").astype(float)
    alpha = rgba[..., 3:] / 255
    over = rgba[..., :3] * alpha + (1 - alpha) * AVATAR.background
    assert np.abs(over - rgb).max() <= 1.6  # two roundings
    luma = renderer.render(PARAMS[0], format="nv12")[:120].astype(float)
    assert np.abs(luma - (16 + 219 / 255 * rgb @ [0.2126, 0.7152, 0.0722])).max() <= 1.1


def test_layers() -> None:
    picture, alpha, depth = Renderer(AVATAR, size=(160, 120), background="transparent").render_layers(PARAMS[0])
    assert alpha.dtype == depth.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert 0.2 < (alpha > 0.5).mean() < 0.9
    assert (depth[alpha == 0] == 0).all()
    solid = alpha > 0.5
    assert depth[solid].min() > 0.7
    assert depth[solid].max() < 1.4  # the camera is 1.05 m away
    assert (picture[alpha == 0] == 0).all()


def test_stages_and_memory() -> None:
    renderer = Renderer(AVATAR, size=(160, 120))
    renderer.render(PARAMS[0])
    times = renderer.stage_times()
    assert list(times) == ["pose", "skin", "deform+project", "sort", "bin", "rasterize+composite"]
    assert all(value >= 0 for value in times.values())
    larger = Renderer(AVATAR, size=(640, 480))
    larger.render(PARAMS[0])
    # The background alone: four bytes to blend over and three to copy, per pixel.
    assert larger.memory - renderer.memory > 6 * (640 * 480 - 160 * 120)


def test_profiling_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Annotation:
        def __init__(self, name: str, domain: str) -> None:
            self.name = domain, name

        def __enter__(self) -> None:
            opened.append(self.name)

        def __exit__(self, *problem: object) -> None: ...

    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(annotate=Annotation))
    monkeypatch.delenv("NVTX_DISABLE", raising=False)
    renderer = Renderer(AVATAR, size=(16, 16))
    renderer.render(PARAMS[0])
    renderer.render(PARAMS[1])
    assert opened == [("being_rt", "render")] * 2
    monkeypatch.setitem(sys.modules, "nvtx", None)  # cannot be imported
    Renderer(AVATAR, size=(16, 16)).render(PARAMS[0])
    monkeypatch.setitem(sys.modules, "nvtx", SimpleNamespace(annotate=Annotation))
    monkeypatch.setenv("NVTX_DISABLE", "1")
    Renderer(AVATAR, size=(16, 16)).render(PARAMS[0])
    assert len(opened) == 2


# ---------------------------------------------------------------- background and camera


def test_backgrounds() -> None:
    empty = without_head(without_torso(AVATAR))
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    for background, expected in (
        (None, AVATAR.background),
        (picture, picture),
        ((0.2, 0.5, 1.0), np.broadcast_to(np.uint8([51, 128, 255]), (120, 160, 3))),
        ("transparent", np.zeros((120, 160, 3))),
    ):
        renderer = Renderer(empty, size=(160, 120), background=background)  # type: ignore[arg-type]
        np.testing.assert_array_equal(renderer.render(PARAMS[0]), expected)
        assert (renderer.render(PARAMS[0], format="rgba") == 0).all()


def test_background_is_resized() -> None:
    picture = np.zeros((50, 70, 3), np.uint8)
    picture[:, :35] = 200
    resized = background_picture(picture, (140, 100))
    assert resized is not None
    assert resized.shape == (100, 140, 3)
    assert (resized[:, :60] > 195).all()
    assert (resized[:, 80:] < 5).all()


def test_a_background_of_another_shape_is_cropped_not_stretched() -> None:
    picture = np.zeros((60, 60, 3), np.uint8)
    picture[20:40, 20:40] = 200  # a square in the middle stays a square
    for size, side in (((120, 60), 40), ((60, 120), 40), ((240, 120), 80)):
        shown = background_picture(picture, size)
        assert shown is not None
        assert shown.shape == (size[1], size[0], 3)
        rows, columns = np.nonzero(shown[..., 0] > 100)
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (side, side)
        assert abs(rows.mean() - (size[1] - 1) / 2) < 1
        assert abs(columns.mean() - (size[0] - 1) / 2) < 1


@pytest.mark.parametrize(
    "background",
    [
        "blue",
        (0.1, 0.2),
        (0.1, 0.2, 1.1),
        (0.1, np.nan, 0.2),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_bad_backgrounds(background: object) -> None:
    with pytest.raises(InvalidParameterError, match="background must be"):
        draw(background=background)


def test_threads_that_share_a_renderer_keep_their_cameras() -> None:
    cameras = [make_camera((160, 120), yaw=yaw) for yaw in (-0.6, 0.0, 0.6)]
    renderer = Renderer(AVATAR, (160, 120), threads=1)
    expected = [renderer.render_layers(PARAMS[0], camera) for camera in cameras]
    right: list[bool] = []

    def work(index: int) -> None:
        for turn in range(40):
            if turn % 2:
                picture = renderer.render(PARAMS[0], camera=cameras[index])
            else:
                picture = renderer.render_layers(PARAMS[0], cameras[index]).picture
            right.append(np.array_equal(picture, expected[index].picture))

    workers = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(right) == 120
    assert all(right)


def test_resized_camera_keeps_the_view() -> None:
    """A point of the middle of the picture stays there, at any size; vertically the same share of the world is seen."""
    camera = make_camera((160, 120))
    for size in ((320, 240), (90, 200), (33, 77)):
        k = camera.resized(size).intrinsics
        assert k[0, 2] == pytest.approx(size[0] / 2)
        assert k[1, 2] == pytest.approx(size[1] / 2)
        assert k[1, 1] / size[1] == pytest.approx(camera.intrinsics[1, 1] / 120)
        assert k[0, 0] == pytest.approx(k[1, 1])


def test_camera_override_stays() -> None:
    side = make_camera((160, 120), yaw=0.8)
    renderer = Renderer(AVATAR, size=(160, 120))
    front = renderer.render(PARAMS[0])
    turned = renderer.render(PARAMS[0], camera=side)
    assert (front != turned).any()
    np.testing.assert_array_equal(renderer.render(PARAMS[0]), turned)
    np.testing.assert_array_equal(draw(camera=side), turned)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "size", [(0, 10), (10, 0), (-5, 10), (LARGEST_SIDE + 1, 10), (10, 10**9), (10,), (1.5, 10), "ab", None, (np.nan, 4)]
)
def test_absurd_sizes(size: object) -> None:
    with pytest.raises(InvalidParameterError, match="size must be"):
        Renderer(AVATAR, size=size)  # type: ignore[arg-type]


def test_largest_sizes() -> None:
    for size in ((LARGEST_SIDE, 3), (3, LARGEST_SIDE)):
        picture = Renderer(AVATAR, size=size).render(PARAMS[0])
        assert picture.shape == (size[1], size[0], 3)


def test_devices() -> None:
    for wrong in ("tpu", "cuda:", "cuda:-1", "cuda:x", "cuda0", "CUDA", "", "cuda:1" + 40 * "0", None):
        with pytest.raises(DeviceError, match="must be 'cpu', 'cuda' or 'cuda:N'"):
            draw(device=wrong)
    if not _C.cuda_built:
        with pytest.raises(DeviceError, match="no CUDA renderer; rebuild it with BEING_RT_CUDA=1"):
            draw(device="cuda")
    else:
        with pytest.raises(DeviceError, match="no CUDA device"):
            draw(device="cuda:999")


def test_instruction_set_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEING_RT_SIMD", "baseline")
    assert Renderer(AVATAR, size=(8, 8)).simd == "baseline"
    monkeypatch.setenv("BEING_RT_SIMD", "mmx")
    with pytest.raises(InvalidParameterError, match="'mmx' is not available"):
        draw()


def test_bad_calls() -> None:
    renderer = Renderer(AVATAR, size=(160, 120))
    fields = {name: getattr(PARAMS[0], name).copy() for name in vars(PARAMS[0]) if name != "fps"}

    def broken(name: str, value: np.ndarray) -> SimpleNamespace:
        return SimpleNamespace(**{**fields, name: value})

    for params, message in (
        (PARAMS, "T = 1, got T = 3"),
        (broken("jaw", np.full((1, 3), np.nan, np.float32)), "jaw holds NaN"),
        (broken("eyes", np.full((1, 6), np.inf, np.float32)), "eyes holds infinity"),
        (broken("neck", np.zeros((1, 4), np.float32)), r"neck must be float32 \[1, 3\], got float32 \[1, 4\]"),
        (broken("rotation", np.zeros((1, 3))), "rotation must be float32 .* got float64"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            renderer.render(params)  # type: ignore[arg-type]
    for out, message in (
        (np.zeros((120, 160, 4), np.uint8), r"out must be uint8 \[120, 160, 3\], got uint8 \[120, 160, 4\]"),
        (np.zeros((120, 160, 3), np.float32), "got float32"),
        (np.zeros((240, 160, 3), np.uint8)[::2], "C-contiguous"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            renderer.render(PARAMS[0], out=out)
    frozen = np.zeros((120, 160, 3), np.uint8)
    frozen.flags.writeable = False
    with pytest.raises(InvalidParameterError, match="read-only"):
        renderer.render(PARAMS[0], out=frozen)
    with pytest.raises(InvalidParameterError, match="format must be"):
        renderer.render(PARAMS[0], format="yuv")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="threads must be"):
        draw(threads=-1)


def test_bad_cameras() -> None:
    camera = make_camera((160, 120))
    skewed = camera.world_to_camera.copy()
    skewed[0, 0] *= 1.5
    lost = camera.world_to_camera.copy()
    lost[0, 3] = np.nan
    flat = camera.intrinsics.copy()
    flat[0, 0] = 0
    for bad, message in (
        (replace(camera, world_to_camera=skewed), "rotation and a translation"),
        (replace(camera, world_to_camera=lost), "world_to_camera holds NaN"),
        (replace(camera, intrinsics=flat), "focal"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            draw(camera=bad)


def test_bad_avatars() -> None:
    head, network = AVATAR.head, AVATAR.network
    assert network is not None
    face = head.face.copy()
    face[5] = 10**6
    colour = head.gaussians.colour.copy()
    colour[7, 1] = np.nan
    anchor = network.anchor_index.copy()
    anchor[0, 0] = 60_000
    basis = network.basis.copy()
    basis[0, 0, 0] = np.inf
    band = np.array([-1], np.int32)
    for bad, message in (
        (replace(AVATAR, head=replace(head, face=face)), r"head\.face holds index 1000000"),
        (
            replace(AVATAR, head=replace(head, gaussians=replace(head.gaussians, colour=colour))),
            r"head\.colour holds NaN",
        ),
        (replace(AVATAR, network=replace(network, anchor_index=anchor)), "anchor_index holds index 60000"),
        (replace(AVATAR, network=replace(network, basis=basis)), "basis holds NaN or infinity"),
        (replace(AVATAR, network=replace(network, trunk_bias_0=network.trunk_bias_0[:3])), "trunk_bias_0 must be"),
        (replace(AVATAR, seam=replace(AVATAR.seam, head_band=band)), r"seam\.head_band holds index -1"),
        (replace(AVATAR, torso=replace(AVATAR.torso, weights=AVATAR.torso.weights[:5])), r"torso\.weights must be"),
    ):
        with pytest.raises(InvalidParameterError, match=message) as caught:
            Renderer(bad, size=(16, 16))
        assert isinstance(caught.value, BeingError)
        assert "\n" not in str(caught.value)


def test_extreme_motion_draws_something_finite() -> None:
    """Far away, behind the camera, inside the head: whatever it shows, it is drawn without a crash."""
    renderer = Renderer(AVATAR, size=(64, 48))
    background = resized = background_picture(AVATAR.background, (64, 48))
    assert resized is not None
    for translation in ((0, 0, 2), (0, 0, 1.05), (0, 0, -1e6), (1e30, 0, 0), (0, 0, 3e38)):
        params = replace(PARAMS[0], translation=np.array([translation], np.float32))
        picture, alpha, depth = renderer.render_layers(params)
        assert np.isfinite(alpha).all()
        assert np.isfinite(depth).all()
        if abs(translation[0]) > 1 or abs(translation[2]) > 1.5:
            np.testing.assert_array_equal(picture, background)
