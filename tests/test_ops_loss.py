"""The photometric loss against reference.py and against SSIM written out in loops, in value and derivative."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from being_rt import reference
from being_rt.errors import InvalidParameterError
from being_rt.ops.loss import photometric_loss


class Scene(NamedTuple):
    picture: Tensor  # float64 [B, H, W, 4]
    target: Tensor  # uint8 [B, H, W, 4]
    background: Tensor  # float64
    weight: Tensor  # uint8 [B, H, W]

    def to(self, device: str, dtype: torch.dtype) -> Scene:
        return Scene(
            self.picture.to(device, dtype),
            self.target.to(device),
            self.background.to(device, dtype),
            self.weight.to(device),
        )


def make_scene(
    size: tuple[int, int, int] = (2, 37, 45), background: tuple[int, ...] = (1, 1, 1, 3), flat: bool = False
) -> Scene:
    """Noise all over; ``flat``: an opaque, nearly even target, and a picture that is nearly right."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    target = torch.randint(0, 256, (*size, 4), generator=generator)
    weight = torch.randint(0, 256, size, generator=generator).to(torch.uint8)
    picture = uniform(*size, 4)
    if flat:
        target = target // 64 + torch.tensor([130, 100, 80, 252])
        picture = target / 255 + 0.02 * (picture - 0.5)
    return Scene(picture, target.to(torch.uint8), uniform(*background), weight)


def run(function: Any, scene: Scene, outputs: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The four losses, and the gradient of them weighed by ``outputs``, else of the total."""
    picture = scene.picture.detach().clone().requires_grad_()
    losses = function(picture, scene.target, scene.background, scene.weight, **options)
    factors = torch.tensor([1.0, 0, 0, 0]) if outputs is None else outputs
    return losses.detach(), torch.autograd.grad(losses, picture, factors.to(losses))[0]


CASES = {
    "all terms": dict(l1=0.8, dssim=0.2, alpha=0.5),
    "Huber": dict(l1=1.0, dssim=0.3, alpha=0.0, huber=0.1),
    "no SSIM": dict(l1=1.0, dssim=0.0, alpha=0.3),
    "no SSIM, Huber": dict(l1=1.0, dssim=0.0, alpha=0.3, huber=0.2),
    "tolerance": dict(l1=0.8, dssim=0.2, alpha=0.5, tolerance=0.3),
    "no SSIM, tolerance": dict(l1=1.0, dssim=0.0, alpha=0.5, tolerance=0.02),
    "SSIM alone": dict(l1=0.0, dssim=1.0, alpha=0.0),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("size", [(2, 37, 45), (1, 32, 64), (3, 4, 3), (1, 1, 1)], ids=str)
def test_is_the_reference(size: tuple[int, int, int], options: dict[str, float]) -> None:
    scene = make_scene(size, background=(size[0], 1, size[2], 3))
    outputs = torch.tensor([1.0, 0.3, -0.2, 0.7])
    losses, gradient = run(photometric_loss, scene, outputs, **options)
    expected, expected_gradient = run(reference.photometric_loss, scene, outputs, **options)
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-14)


def test_without_weight_everything_weighs_one() -> None:
    scene = make_scene()
    ones = torch.full_like(scene.weight, 16)
    weighted = photometric_loss(scene.picture, scene.target, scene.background, ones)
    torch.testing.assert_close(photometric_loss(*scene[:3]), weighted, rtol=1e-15, atol=0)
    torch.testing.assert_close(reference.photometric_loss(*scene[:3]), weighted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("background", [(2, 1, 1, 3), (1, 9, 1, 3), (1, 1, 40, 3), (2, 9, 40, 3)], ids=str)
def test_backgrounds_are_broadcast(background: tuple[int, ...]) -> None:
    scene = make_scene((2, 9, 40), background)
    losses, gradient = run(photometric_loss, scene)
    whole = scene._replace(background=scene.background.expand(2, 9, 40, 3).contiguous())
    expected, expected_gradient = run(photometric_loss, whole)
    assert torch.equal(losses, expected)
    assert torch.equal(gradient, expected_gradient)


def test_coverage_is_tolerated_in_parts_of_the_coverage_seen() -> None:
    scene = make_scene((1, 1, 6))
    scene.target[..., 3] = torch.tensor([255, 255, 51, 51, 0, 255])
    scene.picture[..., 3] = torch.tensor([0.95, 0.85, 0.19, 0.25, 0.01, 1.0])
    losses, gradient = run(photometric_loss, scene, l1=0.0, dssim=0.0, alpha=1.0, tolerance=0.1)
    torch.testing.assert_close(losses[3].item(), (0.05 + 0.03 + 0.01) / 6)
    torch.testing.assert_close(gradient[0, 0, :, 3].sign(), torch.tensor([0.0, -1, 0, 1, 1, 0]).double())


def test_weight_is_what_a_pixel_counts() -> None:
    scene = make_scene((1, 6, 7))
    for options in (CASES["all terms"], CASES["no SSIM"]):
        losses = photometric_loss(*scene[:3], torch.zeros_like(scene.weight), **options)
        assert losses[1].item() == losses[2].item() == 0
        torch.testing.assert_close(losses[0], options["alpha"] * losses[3])
        one = torch.zeros_like(scene.weight)
        one[0, 2, 3] = 32
        seen = scene.target[0, 2, 3] / 255
        colour = seen[3] * seen[:3] + (1 - seen[3]) * scene.background[0, 0, 0]
        expected = 2 * (scene.picture[0, 2, 3, :3] - colour).abs().sum() / (3 * 6 * 7)
        torch.testing.assert_close(photometric_loss(*scene[:3], one, **options)[1], expected, rtol=1e-6, atol=0)


def test_a_perfect_picture_costs_nothing() -> None:
    scene = make_scene()
    coverage = scene.target[..., 3:] / 255.0
    colour = coverage * scene.target[..., :3] / 255 + (1 - coverage) * scene.background
    perfect = scene._replace(picture=torch.cat([colour, coverage.double()], -1))
    losses, gradient = run(photometric_loss, perfect, alpha=1.0)
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-6)
    _, only_ssim = run(photometric_loss, perfect, l1=0.0, dssim=1.0)
    torch.testing.assert_close(only_ssim, torch.zeros_like(only_ssim), rtol=0, atol=1e-6)
    assert torch.isfinite(gradient).all()


# ---------------------------------------------------------------- SSIM itself


def ssim_in_loops(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Wang et al. 2004, equations 13 to 16 as they stand, of one channel [H, W]."""
    height, width = a.shape
    window = {(i, j): math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i in range(-5, 6) for j in range(-5, 6)}
    total = sum(window.values())
    result = np.zeros_like(a)
    for y in range(height):
        for x in range(width):
            samples = []
            for (i, j), share in window.items():
                inside = 0 <= y + i < height and 0 <= x + j < width
                samples.append((share / total, a[y + i, x + j] if inside else 0.0, b[y + i, x + j] if inside else 0.0))
            mean_a = sum(w * p for w, p, _ in samples)
            mean_b = sum(w * q for w, _, q in samples)
            variance_a = sum(w * (p - mean_a) ** 2 for w, p, _ in samples)
            variance_b = sum(w * (q - mean_b) ** 2 for w, _, q in samples)
            covariance = sum(w * (p - mean_a) * (q - mean_b) for w, p, q in samples)
            c1, c2 = 0.01**2, 0.03**2
            result[y, x] = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
                (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
            )
    return result


def test_reference_ssim_is_the_paper_in_loops() -> None:
    random = np.random.default_rng(0)
    a, b = random.random((2, 7, 14, 2))
    ours = reference.ssim(torch.from_numpy(a)[None], torch.from_numpy(b)[None])[0].numpy()
    for channel in range(2):
        np.testing.assert_allclose(ours[..., channel], ssim_in_loops(a[..., channel], b[..., channel]), rtol=1e-10)


def test_properties_of_ssim() -> None:
    scene = make_scene((1, 20, 25))
    a, b = scene.picture[..., :3], scene.picture.flip(1)[..., :3]
    torch.testing.assert_close(reference.ssim(a, a), torch.ones_like(a))
    torch.testing.assert_close(reference.ssim(a, b), reference.ssim(b, a))
    assert reference.ssim(a, b).abs().max() < 1
    # Two even pictures, away from the border: the luminance term alone.
    even = reference.ssim(torch.full((1, 21, 21, 1), 0.3).double(), torch.full((1, 21, 21, 1), 0.7).double())
    assert even[0, 10, 10, 0].item() == pytest.approx((2 * 0.3 * 0.7 + 1e-4) / (0.3**2 + 0.7**2 + 1e-4), abs=1e-6)


def test_the_operation_has_the_papers_ssim() -> None:
    scene = make_scene((1, 6, 13))
    opaque = scene.target.clone()
    opaque[..., 3] = 255
    losses = photometric_loss(scene.picture, opaque, scene.background, dssim=1.0)
    seen = (opaque[..., :3].double() / 255).numpy()[0]
    values = [ssim_in_loops(scene.picture[0, ..., c].numpy(), seen[..., c]) for c in range(3)]
    assert losses[2].item() == pytest.approx(1 - np.mean(values), rel=1e-10)


# ---------------------------------------------------------------- derivatives, precision, devices


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_gradcheck(options: dict[str, float]) -> None:
    scene = make_scene((1, 3, 4))
    rest = scene[1:]
    picture = scene.picture.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: photometric_loss(p, *rest, **options), picture)


def test_values_do_not_depend_on_whether_a_gradient_is_wanted() -> None:
    scene = make_scene()
    losses, _ = run(photometric_loss, scene)
    assert torch.equal(photometric_loss(*scene), losses)
    with torch.no_grad():
        assert torch.equal(photometric_loss(scene.picture.requires_grad_(), *scene[1:]), losses)


def test_nothing_reaches_target_and_background() -> None:
    scene = make_scene((1, 5, 5))
    background = scene.background.requires_grad_()
    losses = photometric_loss(scene.picture.requires_grad_(), scene.target, background)
    assert torch.autograd.grad(losses[0], background, allow_unused=True)[0] is None


def check_float32(device: str, tolerance: float, flat: bool, options: dict[str, float]) -> None:
    scene = make_scene((2, 70, 45), background=(2, 70, 45, 3), flat=flat)
    rounded = scene.to(device, torch.float32)
    # The very numbers that float32 has: where pictures are even, SSIM takes differences of a rounding seriously.
    exact = Scene(rounded.picture.cpu().double(), scene.target, rounded.background.cpu().double(), scene.weight)
    outputs = torch.tensor([1.0, 0.3, -0.2, 0.7])
    expected, expected_gradient = run(photometric_loss, exact, outputs, **options)
    losses, gradient = run(photometric_loss, rounded, outputs, **options)
    torch.testing.assert_close(losses.cpu().double(), expected, rtol=2e-5, atol=1e-6)
    error = (gradient.cpu().double() - expected_gradient).abs().max() / expected_gradient.abs().max()
    assert error < tolerance
    again, gradient_again = run(photometric_loss, rounded, outputs, **options)
    assert torch.equal(again, losses)
    assert torch.equal(gradient_again, gradient)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_float32_is_float64_rounded(options: dict[str, float], flat: bool) -> None:
    check_float32("cpu", 1e-4, flat, options)


@pytest.mark.gpu
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_cuda_is_the_cpu(options: dict[str, float], flat: bool) -> None:
    check_float32("cuda", 1e-3, flat, options)


@pytest.mark.gpu
@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    "where", [(slice(40, 75), slice(50, 110)), (slice(0, 1), slice(0, 1)), (slice(69, 70), slice(95, 97))]
)
def test_cuda_where_most_is_background_that_both_show(where: tuple[slice, slice], options: dict[str, float]) -> None:
    scene = make_scene((2, 150, 171), background=(2, 1, 1, 3)).to("cuda", torch.float32)
    shown = torch.zeros(2, 150, 171, 1, dtype=torch.bool, device="cuda")
    shown[0][where] = True  # nothing in the second picture
    plain = torch.cat([scene.background.expand(2, 150, 171, 3), torch.zeros(2, 150, 171, 1, device="cuda")], 3)
    picture = torch.where(shown, scene.picture, plain)
    target = scene.target.clone()
    target[..., 3:] *= shown
    scene = scene._replace(picture=picture, target=target)
    exact = Scene(picture.cpu().double(), target.cpu(), scene.background.cpu().double(), scene.weight.cpu())
    expected, expected_gradient = run(photometric_loss, exact, **options)
    losses, gradient = run(photometric_loss, scene, **options)
    torch.testing.assert_close(losses.cpu().double(), expected, rtol=2e-5, atol=1e-6)
    assert (gradient.cpu().double() - expected_gradient).abs().max() < 3e-3 * expected_gradient.abs().max()
    assert not gradient[1].any()
    again, gradient_again = run(photometric_loss, scene, **options)
    assert torch.equal(again, losses)
    assert torch.equal(gradient_again, gradient)

    none = Scene(plain, target * 0, scene.background, scene.weight)  # the same everywhere
    losses, gradient = run(photometric_loss, none, **options)
    assert not losses.any()
    assert not gradient.any()


@pytest.mark.gpu
@pytest.mark.parametrize("dssim", [0.0, 0.2])
def test_cuda_reads_views_at_any_address(dssim: float) -> None:
    scene = make_scene((1, 33, 35)).to("cuda", torch.float32)

    def shifted(tensor: Tensor) -> Tensor:
        store = tensor.new_empty(tensor.numel() + 1)
        view = store[1:].view(tensor.shape)
        view.copy_(tensor)
        return view

    expected, expected_gradient = run(photometric_loss, scene, dssim=dssim)
    picture = shifted(scene.picture).requires_grad_()
    losses = photometric_loss(
        picture, shifted(scene.target), shifted(scene.background), shifted(scene.weight), dssim=dssim
    )
    assert torch.equal(losses.detach(), expected)
    assert torch.equal(torch.autograd.grad(losses[0], picture)[0], expected_gradient)


@pytest.mark.gpu
@pytest.mark.parametrize("dssim", [0.0, 0.2])
def test_a_captured_loss_is_replayed(dssim: float) -> None:
    scene = make_scene().to("cuda", torch.float32)
    picture = scene.picture.clone().requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        losses = photometric_loss(picture, *scene[1:], dssim=dssim)
        return losses, torch.autograd.grad(losses[0], picture)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses, gradient = step()
    with torch.no_grad():
        picture.mul_(0.5)
    graph.replay()
    expected, expected_gradient = step()
    assert torch.equal(losses, expected)
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("options", [CASES["all terms"], CASES["no SSIM"]])
def test_registration(options: dict[str, float]) -> None:
    scene = make_scene((1, 5, 6))
    picture = scene.picture.requires_grad_()
    arguments = ([*options.values(), 0.0, 0.1], options["dssim"] > 0)
    for weight in (scene.weight, None):
        torch.library.opcheck(
            torch.ops.being_rt.photometric_loss.default, (picture, scene.target, scene.background, weight, *arguments)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(picture=torch.zeros(1, 5, 6, 3)), r"picture must be float32 \[any, any, any, 4\]"),
        (dict(picture=torch.zeros(1, 5, 6, 4, dtype=torch.float16)), "picture must be float32"),
        (dict(picture=torch.zeros(1, 6, 5, 4).transpose(1, 2)), "picture must be contiguous"),
        (dict(target=torch.zeros(1, 5, 6, 4)), "target must be uint8"),
        (dict(target=torch.zeros(1, 5, 7, 4, dtype=torch.uint8)), r"target must be uint8 \[1, 5, 6, 4\]"),
        (dict(background=torch.zeros(3)), "background must be float32"),
        (dict(background=torch.zeros(1, 5, 6, 3, dtype=torch.float64)), "background must be float32"),
        (dict(background=torch.zeros(1, 2, 6, 3)), r"background must be \[1, 5 or 1, 6 or 1, 3\]"),
        (dict(weight=torch.zeros(1, 5, 6)), "weight must be uint8"),
        (dict(weight=torch.zeros(5, 6, dtype=torch.uint8)), "weight must be uint8"),
        (dict(l1=-1.0), "l1 must be 0 or more"),
        (dict(dssim=math.nan), "dssim must be 0 or more"),
        (dict(alpha=math.inf), "alpha must be 0 or more"),
        (dict(huber=-0.1), "huber must be 0 or more"),
        (dict(tolerance=-0.1), "tolerance must be 0 or more"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    scene = make_scene((1, 5, 6)).to("cpu", torch.float32)
    with pytest.raises(InvalidParameterError, match=message):
        photometric_loss(**{**scene._asdict(), **change})


def test_no_pixels() -> None:
    scene = make_scene((1, 0, 6)).to("cpu", torch.float32)
    with pytest.raises(InvalidParameterError, match="there are no pixels"):
        photometric_loss(*scene)
