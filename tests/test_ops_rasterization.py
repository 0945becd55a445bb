"""The differentiable rasterizer against its twin in being_rt.reference, in value and gradient, on both devices."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from being_rt import reference
from being_rt.errors import BeingError, InvalidParameterError
from being_rt.ops.rasterization import Workspace, layer_depth, rasterize

# ---------------------------------------------------------------- splats


def conics(angle: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of splats with standard deviations ``first`` along ``angle`` (radians) and ``second`` across it, in px."""
    cosine, sine, along, across = angle.cos(), angle.sin(), first**-2, second**-2
    return (
        cosine**2 * along + sine**2 * across,
        cosine * sine * (along - across),
        sine**2 * along + cosine**2 * across,
    )


def make_splat(
    x: float = 0.0,
    y: float = 0.0,
    deviations: tuple[float, float] = (2.0, 2.0),
    angle: float = 0.0,
    opacity: float = 0.5,
    colour: tuple[float, float, float] = (0.2, 0.5, 0.8),
    depth: float = 1.0,
) -> Tensor:
    """One splat [12], float64."""
    conic = conics(*torch.tensor([angle, *deviations], dtype=torch.float64))
    return torch.tensor([x, y, *conic, opacity, *colour, depth, 0, 0], dtype=torch.float64)


def frame_of(*splats: Tensor) -> Tensor:
    """[1, N, 12]"""
    return torch.stack(splats)[None]


def make_splats(frames: int, count: int, size: tuple[int, int], seed: int = 0, deviation: float = 3.0) -> Tensor:
    """Random splats [B, N, 12], float64, up to a tenth outside the picture, of 0.4 to 1.6 times ``deviation`` px."""
    random = torch.rand(frames, count, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x, y, angle, first, second, opacity, red, green, blue, depth = random.unbind(-1)
    conic = conics(math.pi * angle, deviation * (0.4 + 1.2 * first), deviation * (0.4 + 1.2 * second))
    x, y = size[0] * (1.2 * x - 0.1), size[1] * (1.2 * y - 0.1)
    nothing = torch.zeros_like(x)
    return torch.stack([x, y, *conic, 0.95 * opacity, red, green, blue, 0.8 + 0.3 * depth, nothing, nothing], -1)


def reference_sums(splats: Tensor, size: tuple[int, int]) -> Tensor:
    """What rasterize(splats, size, stop=0) must give."""
    frames = []
    for frame in splats:
        x, y, a, b, c, opacity, red, green, blue, depth = frame[:, :10].unbind(-1)
        covariance = torch.linalg.inv(torch.stack([a, b, b, c], -1).unflatten(-1, (2, 2)))
        visible = torch.ones_like(depth, dtype=torch.bool)
        colour = torch.stack([red, green, blue], -1)
        layer = reference.rasterize(
            reference.Splats(torch.stack([x, y], -1), covariance, depth, opacity, colour, visible), size
        )
        alpha = layer.alpha[..., None]
        frames.append(torch.cat([layer.colour, alpha, alpha * layer.depth[..., None]], -1))
    return torch.stack(frames)


# ---------------------------------------------------------------- helpers


def random_gradient(sums: Tensor, seed: int = 7) -> Tensor:
    """Of all five channels, the same values whatever the type and the device."""
    values = torch.randn(sums.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(sums)


def run(draw: Callable[[Tensor], Tensor], splats: Tensor) -> tuple[Tensor, Tensor]:
    """Sums, and the gradient of the splats for a random gradient of the sums."""
    leaf = splats.clone().requires_grad_()
    sums = draw(leaf)
    sums.backward(random_gradient(sums))
    assert leaf.grad is not None
    return sums.detach(), leaf.grad


def distance(a: Tensor, b: Tensor) -> float:
    """Norm of the difference, relative to b's; the largest over the twelve numbers of a splat."""
    a, b = (tensor.cpu().double().flatten(0, -2) for tensor in (a, b))
    return float(((a - b).norm(dim=0) / b.norm(dim=0).clamp(min=1e-30))[b.norm(dim=0) > 0].max())


def check_against_reference(splats: Tensor, size: tuple[int, int], tolerance: float = 1e-11) -> None:
    sums, gradient = run(lambda s: rasterize(s, size, stop=0), splats)
    expected_sums, expected_gradient = run(lambda s: reference_sums(s, size), splats)
    torch.testing.assert_close(sums, expected_sums, rtol=0, atol=tolerance)
    assert distance(gradient, expected_gradient) < tolerance
    assert not gradient[..., 10:].any()


# ---------------------------------------------------------------- against the reference


@pytest.mark.parametrize("size", [(50, 37), (32, 16), (1, 1), (7, 45)])
def test_value_and_gradient_equal_the_reference(size: tuple[int, int]) -> None:
    check_against_reference(make_splats(2, 150, size, seed=size[0]), size)


def test_one_splat_by_hand() -> None:
    sums = rasterize(frame_of(make_splat(2.5, 1.5, (1.0, 2.0), opacity=0.8, depth=1.5)), (6, 4))
    alpha = 0.8 * math.exp(-0.5 * (1.0**2 / 1.0**2 + 2.0**2 / 2.0**2))  # one px right, two down
    expected = torch.tensor([0.2, 0.5, 0.8, 1.0, 1.5], dtype=torch.float64) * alpha
    torch.testing.assert_close(sums[0, 3, 3], expected, rtol=1e-12, atol=0)


def test_gradcheck() -> None:
    size = (6, 5)
    splats = make_splats(2, 6, size, seed=3, deviation=2.0)
    splats[..., 5] = splats[..., 5] * 0.7 + 0.2
    assert torch.autograd.gradcheck(lambda s: rasterize(s, size, stop=0), splats.requires_grad_())


def test_gradcheck_at_the_limit_of_alpha() -> None:
    splats = frame_of(
        make_splat(2.5, 2.5, (3.0, 2.0), opacity=1.0, depth=1.0),
        make_splat(2.0, 3.0, (3.0, 3.0), opacity=0.9, depth=2.0),
    )
    sums = rasterize(splats, (5, 5), stop=0)
    assert sums[0, 2, 2, 3] > 0.999
    assert torch.autograd.gradcheck(lambda s: rasterize(s, (5, 5), stop=0), splats.requires_grad_())


def test_a_pixel_at_the_limit_gives_no_gradient_to_the_shape() -> None:
    gradient = run(lambda s: rasterize(s, (1, 1)), frame_of(make_splat(0.5, 0.5, opacity=1.0)))[1][0, 0]
    assert not gradient[:6].any()
    assert gradient[6:10].all()


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_huge_splats(opacity: float) -> None:
    size = (50, 40)
    splats = make_splats(1, 40, size, deviation=2000.0)
    splats[..., 5] *= opacity
    # The native core holds the limit 0.999 of alpha as a float.
    check_against_reference(splats, size, tolerance=1e-11 if opacity < 1 else 1e-7)


def make_needles(length: float, size: tuple[int, int]) -> Tensor:
    """[1, 12, 12] side by side at an angle, exact as floats; 0.55 px is as thin as the dilation lets a hair be."""
    offsets = torch.rand(12, 2, generator=torch.Generator().manual_seed(5)) - 0.5
    needles = [
        make_splat(
            size[0] / 2 + 0.4 * length * math.cos(0.7) * float(along) - 30 * math.sin(0.7) * float(across),
            size[1] / 2 + 0.4 * length * math.sin(0.7) * float(along) + 30 * math.cos(0.7) * float(across),
            (length, 0.55),
            angle=0.7,
            opacity=0.6,
        )
        for along, across in offsets
    ]
    return frame_of(*needles).float().double()


def test_needles() -> None:
    size = (120, 100)
    check_against_reference(make_needles(60, size), size, tolerance=1e-8)  # which inverts the conic twice


def test_floats_do_not_lose_needles() -> None:
    """As they would if the square in a conic were not completed: its terms are a million times their sum."""
    size = (120, 100)
    needles = make_needles(900, size)
    sums, gradient = run(lambda s: rasterize(s, size, stop=0), needles.float())
    expected_sums, expected_gradient = run(lambda s: rasterize(s, size, stop=0), needles)
    torch.testing.assert_close(expected_sums, reference_sums(needles, size), rtol=0, atol=1e-8)
    torch.testing.assert_close(sums.double(), expected_sums, rtol=0, atol=5e-5)
    assert distance(gradient, expected_gradient) < 2e-4


def test_equal_depths_keep_their_order() -> None:
    first, second = make_splat(8, 8, colour=(1, 0, 0)), make_splat(9, 8, colour=(0, 1, 0))
    one, other = frame_of(first, second), frame_of(second, first)
    check_against_reference(one, (20, 20))
    check_against_reference(other, (20, 20))
    assert not torch.equal(rasterize(one, (20, 20)), rasterize(other, (20, 20)))
    many = make_splats(1, 200, (40, 40))
    many[..., 9] = 1.0
    check_against_reference(many, (40, 40))


def test_negative_depths_come_first() -> None:
    splats = make_splats(1, 60, (20, 20))
    splats[..., 9] -= 0.95
    check_against_reference(splats, (20, 20))


# ---------------------------------------------------------------- what is not drawn


def broken(place: int, value: float) -> Tensor:
    splat = make_splat(8, 8)
    splat[place] = value
    return splat


UNSEEN = {
    "outside": make_splat(-40, 8),
    "far outside": make_splat(1e30, -1e30),
    "just out of reach": make_splat(8, 16 + 2.0 * math.sqrt(2 * math.log(0.5 * 255))),
    "opacity 0": make_splat(8, 8, opacity=0),
    "opacity below 1/255": make_splat(8, 8, opacity=0.0039),
    "negative opacity": make_splat(8, 8, opacity=-1),
    "opacity is not a number": make_splat(8, 8, opacity=math.nan),
    "mean is not a number": make_splat(math.nan, 8),
    "mean is infinite": make_splat(8, -math.inf),
    "conic is not a number": broken(3, math.nan),
    "conic is indefinite": broken(3, 1.0),
    "conic is negative": broken(2, -0.25),
    "conic is 0": broken(2, 0.0),
    "depth is not a number": broken(9, math.nan),
    "depth is infinite": broken(9, math.inf),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("unseen", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_cannot_be_seen_changes_nothing(unseen: Tensor, dtype: torch.dtype) -> None:
    seen = make_splats(1, 20, (16, 16)).to(dtype)
    splats = torch.cat([seen[:, :7], unseen[None, None].to(dtype), seen[:, 7:]], 1)
    sums, gradient = run(lambda s: rasterize(s, (16, 16)), splats)
    expected_sums, expected_gradient = run(lambda s: rasterize(s, (16, 16)), seen)
    assert torch.equal(sums, expected_sums)
    assert torch.equal(torch.cat([gradient[:, :7], gradient[:, 8:]], 1), expected_gradient)
    assert not gradient[:, 7].any()


@pytest.mark.parametrize(("frames", "count"), [(1, 0), (2, 0), (0, 3)])
def test_nothing_to_draw(frames: int, count: int) -> None:
    sums, gradient = run(lambda s: rasterize(s, (5, 4)), torch.zeros(frames, count, 12))
    assert sums.shape == (frames, 4, 5, 5)
    assert not sums.any()
    assert gradient.shape == (frames, count, 12)


# ---------------------------------------------------------------- precision, order, stop


def test_float32_is_close_to_float64() -> None:
    size = (70, 60)
    splats = make_splats(2, 400, size).float()
    sums, gradient = run(lambda s: rasterize(s, size), splats)
    expected_sums, expected_gradient = run(lambda s: rasterize(s, size), splats.double())
    assert sums.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(sums.double(), expected_sums, rtol=0, atol=3e-6)
    assert distance(gradient, expected_gradient) < 1e-5


def test_the_stop_leaves_out_less_than_it_says() -> None:
    size = (40, 30)
    splats = make_splats(1, 600, size, deviation=6.0)
    everything, stopped = rasterize(splats, size, stop=0), rasterize(splats, size, stop=0.01)
    difference = (everything - stopped).abs()
    assert 0 < difference[..., :4].max() < 0.01
    assert (everything[..., 3] > 0.995).any()


def test_behind_a_finished_pixel_there_is_no_gradient() -> None:
    wall = [make_splat(8, 8, (100.0, 100.0), opacity=1.0, depth=1 + 0.1 * i) for i in range(3)]
    gradient = run(lambda s: rasterize(s, (16, 16), stop=1e-4), frame_of(*wall, make_splat(8, 8, depth=2)))[1][0]
    assert gradient[1, 6:10].all()
    assert not gradient[2:].any()


def test_the_derivative_of_a_stopped_picture() -> None:
    size = (20, 15)
    splats = make_splats(1, 80, size, seed=2, deviation=6.0)
    assert (rasterize(splats, size, stop=0.05) != rasterize(splats, size, stop=0)).any()
    leaf = splats.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: rasterize(s, size, stop=0.05), leaf, fast_mode=True)


def test_order_of_the_input_and_other_frames_do_not_matter() -> None:
    size = (60, 50)
    splats = make_splats(3, 300, size).float()
    sums, gradient = run(lambda s: rasterize(s, size), splats)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    shuffled_sums, shuffled_gradient = run(lambda s: rasterize(s, size), splats[:, order].contiguous())
    assert torch.equal(sums, shuffled_sums)
    assert torch.equal(gradient[:, order], shuffled_gradient)
    for frame in range(3):
        assert torch.equal(rasterize(splats[frame : frame + 1], size)[0], sums[frame])


def test_runs_are_equal_to_the_bit() -> None:
    size = (130, 110)
    splats = make_splats(2, 800, size).float()
    sums, gradient = run(lambda s: rasterize(s, size), splats)
    for _ in range(4):
        again = run(lambda s: rasterize(s, size), splats)
        assert torch.equal(again[0], sums)
        assert torch.equal(again[1], gradient)


def test_gradients_that_are_not_contiguous() -> None:
    splats = make_splats(1, 30, (20, 20))
    gradients = []
    for loss in (lambda sums: sums[..., 3].sum(), lambda sums: (sums * torch.eye(5)[3]).sum()):
        leaf = splats.clone().requires_grad_()
        loss(rasterize(leaf, (20, 20))).backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None
    assert gradients[0].any()
    assert torch.equal(*gradients)


def test_it_keeps_the_rules_of_custom_operations() -> None:
    splats = make_splats(1, 10, (12, 9)).requires_grad_()
    torch.library.opcheck(torch.ops.being_rt.rasterize.default, (splats, 12, 9, 1e-4, -1))


# ---------------------------------------------------------------- depth


def test_layer_depth() -> None:
    splats = frame_of(make_splat(3.5, 3.5, (1.0, 1.0), depth=1.25)).requires_grad_()
    depth = layer_depth(rasterize(splats, (30, 8)))
    assert depth.shape == (1, 8, 30)
    torch.testing.assert_close(depth[0, 3, 3], torch.tensor(1.25, dtype=torch.float64))
    assert not depth[0, :, 20:].any()
    depth.sum().backward()
    assert splats.grad is not None
    assert splats.grad.isfinite().all()
    expected = torch.zeros(12, dtype=torch.float64)
    expected[9] = float((depth > 0).sum())  # every covered pixel shows this depth, whatever its alpha
    torch.testing.assert_close(splats.grad[0, 0], expected, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("splats", "size", "stop", "message"),
    [
        (torch.zeros(3, 12), (8, 8), 1e-4, r"splats must be float32 \[any, any, 12\], got float32 \[3, 12\]"),
        (torch.zeros(1, 3, 10), (8, 8), 1e-4, "splats must be"),
        (torch.zeros(1, 3, 12, dtype=torch.float16), (8, 8), 1e-4, "got float16"),
        (torch.zeros(1, 3, 12, dtype=torch.int32), (8, 8), 1e-4, "got int32"),
        (torch.zeros(1, 3, 24)[..., ::2], (8, 8), 1e-4, "must be contiguous"),
        (torch.zeros(1, 3, 12), (0, 8), 1e-4, "1 to 8192 px a side, got 0 x 8"),
        (torch.zeros(1, 3, 12), (8, 8193), 1e-4, "got 8 x 8193"),
        (torch.zeros(1, 3, 12), (8, 8), 1.0, "stop must be at least 0 and below 1, got 1.0"),
        (torch.zeros(1, 3, 12), (8, 8), -1e-4, "stop must be"),
        (torch.zeros(1, 3, 12), (8, 8), math.nan, "stop must be"),
    ],
)
def test_bad_input_is_refused(splats: Tensor, size: tuple[int, int], stop: float, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        rasterize(splats, size, stop)


@pytest.mark.parametrize("capacity", [-1, 2**31])
def test_a_workspace_of_no_size_is_refused(capacity: int) -> None:
    with pytest.raises(InvalidParameterError, match="capacity must be 0 to"):
        Workspace(capacity, "cpu")


def test_a_workspace_changes_nothing_on_the_cpu() -> None:
    splats = make_splats(1, 30, (20, 20))
    workspace = Workspace(0, "cpu")
    assert torch.equal(rasterize(splats, (20, 20), workspace=workspace), rasterize(splats, (20, 20)))
    assert workspace.status.tolist() == [0, 0]


# ---------------------------------------------------------------- CUDA

SCENES = {
    "usual": (2, 3000, (200, 150), 3.0),
    "small": (1, 20000, (256, 256), 0.7),
    "one long list": (1, 6000, (16, 16), 3.0),
    "large": (1, 300, (301, 203), 60.0),
    "one pixel": (3, 50, (1, 1), 2.0),
    "thin": (2, 500, (100, 90), 12.0),
    "of all sizes": (2, 600, (333, 205), 3.0),
}


def make_scene(name: str) -> tuple[Tensor, tuple[int, int]]:
    frames, count, size, deviation = SCENES[name]
    splats = make_splats(frames, count, size, seed=11, deviation=deviation)
    if name == "thin":
        angle = torch.linspace(0, math.pi, count, dtype=torch.float64)
        splats[..., 2:5] = torch.stack(conics(angle, torch.full_like(angle, 40.0), torch.full_like(angle, 0.55)), -1)
    if name == "of all sizes":  # from one tile to hundreds side by side, and many in a row that cannot be seen
        splats[..., 2:5] /= (
            torch.tensor([1 / 4, 1.0, 4.0, 32.0, 1 / 8], dtype=torch.float64).repeat(count // 5)[:, None] ** 2
        )
        splats[:, 100:240, 5] = 0
    return splats.float(), size


@pytest.mark.gpu
@pytest.mark.parametrize("name", SCENES)
def test_cuda_equals_the_cpu(name: str) -> None:
    splats, size = make_scene(name)
    sums, gradient = run(lambda s: rasterize(s, size), splats.cuda())
    expected_sums, expected_gradient = run(lambda s: rasterize(s, size), splats)
    # Rounding decides whether an alpha at 1/255 is drawn: such pixels may differ by as much, and are few.
    difference = (sums.cpu() - expected_sums).abs()
    assert difference.max() < 6e-3
    assert (difference > 1e-4).double().mean() < 2e-4
    assert distance(gradient, expected_gradient) < 1e-3


@pytest.mark.gpu
@pytest.mark.parametrize("name", SCENES)
def test_cuda_runs_are_equal_to_the_bit(name: str) -> None:
    splats, size = make_scene(name)
    sums, gradient = run(lambda s: rasterize(s, size), splats.cuda())
    for _ in range(4):
        again = run(lambda s: rasterize(s, size), splats.cuda())
        assert torch.equal(again[0], sums)
        assert torch.equal(again[1], gradient)


@pytest.mark.gpu
@pytest.mark.parametrize("unseen", UNSEEN.values(), ids=UNSEEN.keys())
def test_what_cannot_be_seen_changes_nothing_on_cuda(unseen: Tensor) -> None:
    seen = make_splats(1, 20, (16, 16)).float().cuda()
    splats = torch.cat([seen[:, :7], unseen[None, None].to(seen), seen[:, 7:]], 1)
    sums, gradient = run(lambda s: rasterize(s, (16, 16)), splats)
    expected_sums, expected_gradient = run(lambda s: rasterize(s, (16, 16)), seen)
    assert torch.equal(sums, expected_sums)
    assert torch.equal(torch.cat([gradient[:, :7], gradient[:, 8:]], 1), expected_gradient)
    assert not gradient[:, 7].any()


@pytest.mark.gpu
@pytest.mark.parametrize(("frames", "count"), [(1, 0), (2, 0), (0, 3)])
def test_nothing_to_draw_on_cuda(frames: int, count: int) -> None:
    sums, gradient = run(lambda s: rasterize(s, (5, 4)), torch.zeros(frames, count, 12, device="cuda"))
    assert sums.shape == (frames, 4, 5, 5)
    assert not sums.any()
    assert gradient.shape == (frames, count, 12)


@pytest.mark.gpu
def test_cuda_keeps_the_order_of_equal_depths() -> None:
    splats = make_splats(1, 500, (40, 40)).float()
    splats[..., 9] = 1.0
    sums, expected = rasterize(splats.cuda(), (40, 40)).cpu(), rasterize(splats, (40, 40))
    assert ((sums - expected).abs() > 1e-4).double().mean() < 2e-3


@pytest.mark.gpu
def test_a_workspace_on_cuda_draws_everything_or_says_that_it_is_too_small() -> None:
    splats, size = make_scene("usual")
    splats = splats.cuda()
    expected_sums, expected_gradient = run(lambda s: rasterize(s, size), splats)

    workspace = Workspace(100, "cuda")
    sums, gradient = run(lambda s: rasterize(s, size, workspace=workspace), splats)
    needed, overflow = workspace.status.tolist()
    assert needed > 100
    assert overflow == 1
    assert not sums.any()
    assert not gradient.any()

    exact = Workspace(needed, "cuda")
    sums, gradient = run(lambda s: rasterize(s, size, workspace=exact), splats)
    assert exact.status.tolist() == [needed, 0]
    assert torch.equal(sums, expected_sums)
    assert torch.equal(gradient, expected_gradient)

    rasterize(splats[:1], size, workspace=workspace)
    assert workspace.status.tolist() == [needed, 1]
    workspace.reset()
    assert workspace.overflow.tolist() == [0]


@pytest.mark.gpu
@pytest.mark.parametrize("count", [1, 64, 130])
def test_a_splat_that_covers_a_picture_is_in_all_of_its_tiles_on_cuda(count: int) -> None:
    size = 301, 203  # 38 x 26 tiles
    splat = make_splat(150.0, 100.0, (2000.0, 2000.0), opacity=0.02)
    splats = torch.cat([frame_of(*[splat] * count), frame_of(make_splat(4.0, 4.0, (0.3, 0.3)))], 1).float()
    workspace = Workspace(0, "cuda")
    rasterize(splats.cuda(), size, workspace=workspace)
    assert workspace.status.tolist() == [count * 38 * 26 + 1, 1]
    sums, gradient = run(lambda s: rasterize(s, size), splats.cuda())
    expected_sums, expected_gradient = run(lambda s: rasterize(s, size), splats)
    torch.testing.assert_close(sums.cpu(), expected_sums, rtol=0, atol=1e-4)
    assert distance(gradient, expected_gradient) < 1e-3


@pytest.mark.gpu
def test_a_cuda_graph_follows_its_input() -> None:
    size = (120, 90)
    first, second = (make_splats(1, 1000, size, seed=seed).float().cuda() for seed in (0, 1))
    expected = [run(lambda s: rasterize(s, size), splats) for splats in (first, second)]
    workspace = Workspace(200_000, "cuda")
    leaf = first.clone().requires_grad_()
    gradient = random_gradient(expected[0][0])

    def step() -> tuple[Tensor, Tensor]:
        sums = rasterize(leaf, size, workspace=workspace)
        return sums.detach(), torch.autograd.grad(sums, leaf, gradient)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for splats, wanted in zip((first, second), expected, strict=True):
        with torch.no_grad():
            leaf.copy_(splats)
        graph.replay()
        assert torch.equal(results[0], wanted[0])
        assert torch.equal(results[1], wanted[1])
    assert workspace.overflow.tolist() == [0]


@pytest.mark.gpu
def test_cuda_takes_no_doubles() -> None:
    with pytest.raises(BeingError, match="float32"):
        rasterize(make_splats(1, 3, (8, 8)).cuda(), (8, 8))
