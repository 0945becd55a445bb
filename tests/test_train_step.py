"""Steps: the same bits however they are cut into blocks, done again where room was short, undone where they diverge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from train_scenes import make_dataset, small_config

from being_rt.dataset import Dataset
from being_rt.errors import TrainingError
from being_rt.ops.adam import FusedAdam
from being_rt.train.config import LossConfig
from being_rt.train.distributed import Flat, Group
from being_rt.train.feed import Feed
from being_rt.train.initialise import new_model
from being_rt.train.model import AvatarModel, Layers
from being_rt.train.relocate import Statistics
from being_rt.train.step import LEAST_ROOM, Planned, Stepper, WeightMap, out_of_memory, roomy
from being_rt.train.tracks import Tracks

CONFIG = small_config()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("step") / "data", count=6, size=(48, 40), background=True)


@pytest.fixture(scope="module")
def start(dataset: Dataset) -> dict[str, Tensor]:
    return new_model(CONFIG.model, dataset, "cpu", seed=0).state()[0]


def make_stepper(dataset: Dataset, start: dict[str, Tensor], device: str = "cpu") -> Stepper:
    feed = Feed(dataset, CONFIG.feed, device, seed=1, batch=2)
    tracks = Tracks(dataset.params, dataset.timestep[feed.frames], CONFIG.tracks, device)
    model = AvatarModel(CONFIG.model, dataset.rig, start, device)
    optimizer = FusedAdam(model.parameters | tracks.leaves, 0.0, eps=1e-15)
    group = Group(torch.device(device))
    return Stepper(model, tracks, feed, optimizer, CONFIG.loss, Statistics.of(model), group)


def plan(stepper: Stepper, first: int, end: int) -> list[Planned]:
    """Steps of a run of ten, of both views."""
    steps = [(step, 0.1 * step) for step in range(first, end)]
    return [Planned(step, progress, stepper.feed.sampler.view(step, progress)) for step, progress in steps]


def state(stepper: Stepper) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in stepper.lasting().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_a_step_moves_everything_that_is_trained(dataset: Dataset, start: dict[str, Tensor]) -> None:
    stepper = make_stepper(dataset, start)
    before = state(stepper)
    losses = stepper.block(plan(stepper, 0, 6))
    assert {item.view for item in plan(stepper, 0, 6)} == set(stepper.feed.views)
    assert losses.shape == (6, len(stepper.names))
    assert stepper.names[:4] == ("total", "l1", "dssim", "alpha")
    factors = np.ones(losses.shape[1] - 1)
    factors[:3] = CONFIG.loss.l1, CONFIG.loss.dssim, CONFIG.loss.alpha
    np.testing.assert_allclose(losses[:, 0], losses[:, 1:] @ factors, rtol=1e-5)
    after = state(stepper)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    for name in stepper.optimizer.parameters:
        lasting = name if name in after else f"model.{name}"
        assert lasting in moved, name
    assert "statistics.head.gradient" in moved
    assert after["optimizer.steps"] == 6


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_what_is_updated_during_the_backward_pass_becomes_the_same(
    dataset: Dataset, start: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    after, during = make_stepper(dataset, start, device), None
    monkeypatch.setattr("being_rt.train.step.LARGE", 100)
    during = make_stepper(dataset, start, device)
    assert not after._hooks
    assert len(during._hooks) > 5
    np.testing.assert_array_equal(after.block(plan(after, 0, 6)), during.block(plan(during, 0, 6)))
    assert_same(state(after), state(during))


def test_blocks_do_not_matter(dataset: Dataset, start: dict[str, Tensor]) -> None:
    one, many = make_stepper(dataset, start), make_stepper(dataset, start)
    losses = one.block(plan(one, 0, 6))
    parts = [many.block(plan(many, first, end)) for first, end in ((0, 1), (1, 4), (4, 6))]
    np.testing.assert_array_equal(losses, np.concatenate(parts))
    assert_same(state(one), state(many))


def test_steps_for_which_room_was_short_are_done_again(
    dataset: Dataset, start: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, short = make_stepper(dataset, start), make_stepper(dataset, start)
    losses = expected.block(plan(expected, 0, 5))
    answers = iter([False, True, True, False])
    grown = []
    monkeypatch.setattr(short, "_overflowed", lambda: next(answers))
    monkeypatch.setattr(short, "_take_more_room", lambda: grown.append(1))
    parts = [short.block(plan(short, 0, 2)), short.block(plan(short, 2, 5))]
    assert len(grown) == 2
    np.testing.assert_array_equal(losses, np.concatenate(parts))
    assert_same(state(expected), state(short))


def test_a_loss_that_is_not_finite_is_undone(
    dataset: Dataset, start: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = make_stepper(dataset, start)
    stepper.block(plan(stepper, 0, 1))
    before = state(stepper)
    calls, healthy = iter(range(100)), stepper.model.regularisation

    def poisoned(layers: Layers) -> dict[str, Tensor]:
        return healthy(layers) | ({"position": torch.tensor(float("nan"))} if next(calls) == 2 else {})

    monkeypatch.setattr(stepper.model, "regularisation", poisoned)
    with pytest.raises(TrainingError, match="training diverged at step 3: position is nan"):
        stepper.block(plan(stepper, 1, 6))
    assert_same(before, state(stepper))


def test_weights_of_pixels() -> None:
    row = torch.zeros(2, 21)
    row[0, 9:13] = torch.tensor([1.0, 2.0, 4.0, 5.0])  # mouth
    row[1, 13:17] = torch.tensor([0.0, 0.0, 2.0, 2.0])  # left eye
    plain = WeightMap(LossConfig(mouth=4, eyes=2))
    weight = plain(row, (6, 7))
    assert weight is not None
    assert plain.factor == 1
    expected = torch.full((2, 7, 6), 16)
    expected[0, 2:5, 1:4] = 64
    expected[1, :2, :2] = 32
    assert torch.equal(weight.int(), expected.int())
    assert WeightMap(LossConfig(mouth=1, eyes=1))(row, (6, 7)) is None
    steep = WeightMap(LossConfig(mouth=41, eyes=1))
    weight = steep(row, (6, 7))
    assert weight is not None
    assert weight.max() * steep.factor / 16 == 41
    assert weight.min() * steep.factor / 16 == 1


def test_room_grows_with_what_was_needed() -> None:
    assert roomy(0) == LEAST_ROOM
    assert roomy(10**7) == 15 * 10**6
    assert roomy(2**31) == 2**31 - 1


def test_gradients_travel_in_one_tensor() -> None:
    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, 40, requires_grad=True), torch.zeros(1)]
    parameters[2].requires_grad_()
    gradients = [torch.arange(3.0), torch.arange(80.0).view(2, 40)]
    for parameter, gradient in zip(parameters, gradients, strict=False):
        parameter.grad = gradient.clone()
    flat = Flat(parameters, 2)
    flat.gather(torch.tensor([7.0, 8.0]))
    flat.values.mul_(2)
    flat.scatter()
    for parameter, gradient in zip(parameters, gradients, strict=False):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, 2 * gradient)
        assert parameter.grad.data_ptr() % 16 == flat.values.data_ptr() % 16
    assert parameters[2].grad is None
    assert flat.extra.tolist() == [14, 16]


def test_too_little_memory_is_one_line() -> None:
    for problem in (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()):
        with (
            pytest.raises(TrainingError, match=r"has too little memory: lower schedule\.batch"),
            out_of_memory(torch.device("cuda:1")),
        ):
            raise problem


@pytest.mark.gpu
def test_a_graph_does_what_the_cpu_does(dataset: Dataset, start: dict[str, Tensor]) -> None:
    here, there = make_stepper(dataset, start), make_stepper(dataset, start, "cuda")
    expected = here.block(plan(here, 0, 8))
    losses = there.block(plan(there, 0, 8))
    np.testing.assert_allclose(losses[:, :4], expected[:, :4], rtol=2e-2, atol=1e-4)
    views, phases = ({kind[i] for kind in there._graphs} for i in range(2))
    assert (len(views), phases) == (2, {False, True})  # with the offset network, and before it begins


@pytest.mark.gpu
def test_the_room_at_first_leaves_no_trace(
    dataset: Dataset, start: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    ample, short = make_stepper(dataset, start, "cuda"), make_stepper(dataset, start, "cuda")
    losses = ample.block(plan(ample, 0, 8))
    monkeypatch.setattr("being_rt.train.step.LEAST_ROOM", 0)
    monkeypatch.setattr("being_rt.train.step.SPARE_ROOM", 0.9)
    monkeypatch.setattr(short, "_take_more_room", lambda: (monkeypatch.undo(), Stepper._take_more_room(short)))
    np.testing.assert_array_equal(losses, short.block(plan(short, 0, 8)))
    assert_same(state(ample), state(short))
