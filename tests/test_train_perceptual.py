"""LPIPS, with random weights: a distance that has the derivative it says, and a term of the loss from its time on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_scenes import make_dataset, small_config

from being_rt.dataset import Dataset
from being_rt.errors import FileFormatError, InvalidParameterError
from being_rt.ops.adam import FusedAdam
from being_rt.ops.loss import photometric_loss
from being_rt.ops.pictures import seen_over
from being_rt.train.checkpoint import load_checkpoint
from being_rt.train.config import LossConfig, TrainConfig
from being_rt.train.distributed import Group
from being_rt.train.feed import Feed
from being_rt.train.initialise import new_model
from being_rt.train.perceptual import COMPARED, CONVOLUTIONS, Lpips, repeatable
from being_rt.train.progress import Observer, Status
from being_rt.train.relocate import Statistics
from being_rt.train.step import Planned, Stepper
from being_rt.train.tracks import Tracks
from being_rt.train.trainer import CHECKPOINT, train

CHANNELS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
PERCEPTUAL = LossConfig(perceptual=0.5, perceptual_start=0.5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = torch.Generator().manual_seed(1)
    tensors = {}
    for i, number in enumerate(CONVOLUTIONS):
        shape = CHANNELS[i + 1], CHANNELS[i], 3, 3
        tensors[f"features.{number}.weight"] = torch.randn(shape, generator=random) / (4 * CHANNELS[i]) ** 0.5
        tensors[f"features.{number}.bias"] = torch.zeros(CHANNELS[i + 1])
    for k, number in enumerate(COMPARED):
        width = CHANNELS[CONVOLUTIONS.index(number) + 1]
        tensors[f"lin{k}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=random)
    path = tmp_path_factory.mktemp("weights") / "lpips.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def lpips(weights: Path) -> Lpips:
    return Lpips(weights)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("perceptual") / "data", count=6, size=(48, 40))


def pictures(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    first = torch.rand(count, 32, 24, 3, generator=random)
    return first, (first + 0.1 * torch.randn(first.shape, generator=random)).clamp(0, 1)


# ----------------------------------------------------------------------------------------------------------- distance


def test_the_distance_orders_pictures(lpips: Lpips) -> None:
    first, second = pictures(1)
    assert lpips(first, first).item() == 0
    assert 0 < lpips(first, (first + second) / 2).item() < lpips(first, second).item()
    assert lpips(first, second).item() == pytest.approx(lpips(second, first).item())


def test_a_batch_is_its_pictures(lpips: Lpips) -> None:
    first, second = pictures(3)
    single = torch.cat([lpips(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    assert len(set(single.tolist())) == 3
    torch.testing.assert_close(lpips(first, second), single, rtol=1e-5, atol=0)


def test_the_derivative_is_that_of_the_distance(weights: Path) -> None:
    double = Lpips(weights, dtype=torch.float64)
    first, second = (values.double() for values in pictures(2))
    leaf = first.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(double(leaf, second).sum(), leaf)
    random = torch.Generator().manual_seed(2)
    for _ in range(3):
        step = 1e-6 * torch.randn(first.shape, generator=random, dtype=torch.float64)
        change = double(first + step, second).sum() - double(first - step, second).sum()
        assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-5)
    leaf = first.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(double(leaf, first).sum(), leaf)
    assert not gradient.any()


def test_what_cannot_be_compared_is_refused(lpips: Lpips, weights: Path, tmp_path: Path) -> None:
    first, second = pictures(2)
    for one, other in ((first[:1], second), (first[..., :2],) * 2, (first[0],) * 2, (first[:, :15],) * 2):
        with pytest.raises(InvalidParameterError, match=r"pictures \[B, H, W, 3\] of one size, 16 pixels a side"):
            lpips(one, other)
    less = load_file(weights)
    less.pop("lin4.model.1.weight")
    save_file(less, tmp_path / "less.safetensors")
    with pytest.raises(FileFormatError, match=r"less\.safetensors has no tensor 'lin4"):
        Lpips(tmp_path / "less.safetensors")
    with pytest.raises(FileFormatError, match="does not exist"):
        Lpips(tmp_path / "none.safetensors")


def test_what_was_seen_is_what_the_photometric_loss_compares_with() -> None:
    random = torch.Generator().manual_seed(3)
    target = torch.randint(0, 256, (2, 5, 7, 4), generator=random, dtype=torch.uint8)
    for shape in ((2, 5, 7, 3), (2, 1, 1, 3), (1, 5, 7, 3)):
        background = torch.rand(shape, generator=random, dtype=torch.float64)
        seen = seen_over(target, background)
        picture = torch.cat([seen, target[..., 3:] / 255], dim=-1).contiguous()
        losses = photometric_loss(picture, target, background, dssim=0.2, alpha=1.0)
        np.testing.assert_allclose(losses.numpy(), 0, atol=1e-7)


def test_convolutions_are_repeatable_within_a_context_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "benchmark", True)
    with repeatable():
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)


# ----------------------------------------------------------------------------------------------------------- training


def make_stepper(dataset: Dataset, loss: LossConfig, lpips: Lpips | None, device: str = "cpu") -> Stepper:
    config = small_config()
    feed = Feed(dataset, config.feed, device, seed=1, batch=2)
    tracks = Tracks(dataset.params, dataset.timestep[feed.frames], config.tracks, device)
    model = new_model(config.model, dataset, device, seed=0)
    optimizer = FusedAdam(model.parameters | tracks.leaves, 0.0, eps=1e-15)
    return Stepper(model, tracks, feed, optimizer, loss, Statistics.of(model), Group(torch.device(device)), lpips)


def plan(stepper: Stepper, first: int, end: int) -> list[Planned]:
    """Steps of a run of ten, of both views."""
    steps = [(step, 0.1 * step) for step in range(first, end)]
    return [Planned(step, progress, stepper.feed.sampler.view(step, progress)) for step, progress in steps]


def state(stepper: Stepper) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in stepper.lasting().items()}


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name, tensor in first.items() if not torch.equal(tensor, second[name])}


def test_the_term_counts_from_its_time_on(dataset: Dataset, lpips: Lpips) -> None:
    plain, stepper = make_stepper(dataset, LossConfig(), None), make_stepper(dataset, PERCEPTUAL, lpips)
    expected, losses = plain.block(plan(plain, 0, 5)), stepper.block(plan(stepper, 0, 5))
    assert stepper.names == (*plain.names, "perceptual")
    np.testing.assert_array_equal(losses[:, 1:-1], expected[:, 1:])
    assert not losses[:, -1].any()
    assert not differing(state(plain), state(stepper))
    expected, losses = plain.block(plan(plain, 5, 7)), stepper.block(plan(stepper, 5, 7))
    assert (losses[:, -1] > 0.01).all()
    assert losses[0, 0] == pytest.approx(expected[0, 0] + losses[0, -1])  # the first of them is of the same model
    moved = differing(state(plain), state(stepper))
    assert {"model.head.colour", "model.head.position", "model.torso.colour"} <= moved


def test_the_term_makes_pictures_alike(dataset: Dataset, lpips: Lpips) -> None:
    """Alone, as far as a loss may be, it is what goes down."""
    loss = LossConfig(l1=1e-9, dssim=0.0, alpha=0.0, perceptual=1.0, perceptual_start=0.0)
    stepper = make_stepper(dataset, loss, lpips)
    view = stepper.feed.views[0]
    losses = stepper.block([Planned(step, 0.0, view) for step in range(12)])
    assert losses[-2:, -1].mean() < 0.8 * losses[:2, -1].mean()


def with_term(start: float) -> TrainConfig:
    config = small_config(steps=3, check_interval=1)
    return replace(config, loss=replace(PERCEPTUAL, perceptual_start=start))


class StopAfter(Observer):
    def __init__(self, step: int) -> None:
        self._step = step

    def status(self, status: Status) -> None:
        if status.step == self._step:
            import signal

            signal.raise_signal(signal.SIGINT)


def final(folder: Path) -> dict[str, Tensor]:
    return load_checkpoint(folder / CHECKPOINT).tensors


def test_runs_with_the_term(dataset: Dataset, weights: Path, tmp_path: Path) -> None:
    config = with_term(start=0.3)
    with pytest.raises(InvalidParameterError, match=r"loss\.perceptual needs the weights of LPIPS: pass --lpips FILE"):
        train(dataset, config, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    result = train(dataset, config, tmp_path / "whole", lpips=weights)
    assert result.evaluations[0].mean("lpips") > 0
    train(dataset, with_term(start=1.0), tmp_path / "never", lpips=weights)
    assert "model.head.colour" in differing(final(tmp_path / "whole"), final(tmp_path / "never"))

    stopped = train(dataset, config, tmp_path / "cut", lpips=weights, observers=(StopAfter(2),))
    assert not stopped.complete
    with pytest.raises(InvalidParameterError, match=r"pass --lpips FILE"):
        train(dataset, config, tmp_path / "cut", resume=True)
    assert train(dataset, config, tmp_path / "cut", resume=True, lpips=weights).complete
    assert not differing(final(tmp_path / "whole"), final(tmp_path / "cut"))


@pytest.mark.gpu
def test_a_graph_does_what_the_cpu_does_in_the_same_bits(dataset: Dataset, lpips: Lpips, weights: Path) -> None:
    here = make_stepper(dataset, PERCEPTUAL, lpips)
    expected = here.block(plan(here, 0, 10))
    runs = [make_stepper(dataset, PERCEPTUAL, Lpips(weights, "cuda"), "cuda") for _ in range(2)]
    losses = [there.block(plan(there, 0, 10)) for there in runs]
    np.testing.assert_allclose(losses[0][:, :4], expected[:, :4], rtol=2e-2, atol=1e-4)
    np.testing.assert_allclose(losses[0][:, -1], expected[:, -1], rtol=5e-2)
    assert {kind.perceptual for kind in runs[0]._graphs} == {False, True}
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not differing(state(runs[0]), state(runs[1]))
