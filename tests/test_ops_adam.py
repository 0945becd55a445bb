"""FusedAdam against torch.optim.Adam."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.adam import FusedAdam

SHAPES = {"position": (1500, 3), "logit": (7,), "basis": (3, 13, 20), "weight": (), "nothing": (0, 3)}
RATES = {"position": 2.0**-7, "logit": 2.0**-4, "basis": 2.0**-9, "weight": 0.5, "nothing": 1.0}  # exact in float32


def make(dtype: torch.dtype = torch.float64, device: str = "cpu") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_()
        for name, shape in SHAPES.items()
    }


def give_gradients(parameters: dict[str, Tensor], step: int) -> None:
    """Of very different sizes, some of them zero."""
    generator = torch.Generator().manual_seed(100 + step)
    for i, tensor in enumerate(parameters.values()):
        gradient = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 10.0 ** (i - 3)
        gradient = gradient * (torch.rand(tensor.shape, generator=generator) > 0.2)
        tensor.grad = gradient.to(tensor)


def torch_adam(parameters: dict[str, Tensor], betas: tuple[float, float], eps: float) -> torch.optim.Adam:
    groups = [{"params": [tensor], "lr": RATES[name]} for name, tensor in parameters.items()]
    return torch.optim.Adam(groups, betas=betas, eps=eps)


def check_against_torch(dtype: torch.dtype, device: str, tolerance: float, eps: float = 1e-8) -> None:
    ours, theirs = make(dtype, device), make(torch.float64)
    optimizer = FusedAdam(ours, RATES, betas=(0.8, 0.99), eps=eps)
    reference = torch_adam(theirs, (0.8, 0.99), eps)
    for step in range(12):
        give_gradients(theirs, step)
        for name, tensor in ours.items():
            tensor.grad = theirs[name].grad.to(tensor)
        optimizer.step()
        reference.step()
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor.detach().cpu().double(), theirs[name].detach(), rtol=0, atol=tolerance)
    assert optimizer.steps.item() == 12
    state = optimizer.state_dict()
    for name, tensor in theirs.items():
        if tensor.numel():
            expected = reference.state[tensor]
            torch.testing.assert_close(state[f"first.{name}"].cpu().double(), expected["exp_avg"], rtol=1e-4, atol=1e-9)
            torch.testing.assert_close(
                state[f"second.{name}"].cpu().double(), expected["exp_avg_sq"], rtol=1e-4, atol=1e-12
            )


@pytest.mark.parametrize("eps", [1e-8, 1e-15])
def test_float64_is_torch(eps: float) -> None:
    check_against_torch(torch.float64, "cpu", 1e-12, eps)


def test_float32_is_torch_in_float64() -> None:
    check_against_torch(torch.float32, "cpu", 3e-6)


@pytest.mark.gpu
def test_cuda_is_torch_in_float64() -> None:
    check_against_torch(torch.float32, "cuda", 3e-6)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_first_step_is_the_learning_rate(device: str) -> None:
    """Corrected for bias, both moments cancel: a correction that loses digits shows here."""
    parameter = torch.zeros(5, device=device, requires_grad=True)
    optimizer = FusedAdam({"x": parameter}, 1.0, eps=0.0)
    parameter.grad = torch.tensor([1e-3, 1.0, -7.0, 1e6, -1e-9], device=device)
    optimizer.step()
    expected = -parameter.grad.sign()
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=0)


def check_many(device: str) -> None:
    """More tensors than a launch takes, of sizes around a block's and at odd addresses."""
    stride = 4200
    store = torch.zeros(70 * stride, device=device)
    sizes = [1 + i * 67 if i < 60 else 4092 + i - 60 for i in range(70)]
    ours = {f"t{i}": store[i * stride + i % 4 :][:size].detach().requires_grad_() for i, size in enumerate(sizes)}
    theirs = {name: tensor.detach().clone().requires_grad_() for name, tensor in ours.items()}
    optimizer, reference = FusedAdam(ours, 0.25), torch.optim.Adam(theirs.values(), lr=0.25)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for name, tensor in ours.items():
            tensor.grad = torch.randn(tensor.shape, generator=generator).to(device)
            theirs[name].grad = tensor.grad.clone()
        optimizer.step()
        reference.step()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-5)
    assert optimizer.steps.item() == 2
    untouched = torch.ones(len(store), dtype=torch.bool)
    for i, size in enumerate(sizes):
        untouched[i * stride + i % 4 :][:size] = False
    assert not store.cpu()[untouched].any()


def test_many_tensors() -> None:
    check_many("cpu")


@pytest.mark.gpu
def test_many_tensors_on_cuda() -> None:
    check_many("cuda")


def test_a_tensor_without_gradient_is_left_alone() -> None:
    parameters = make()
    give_gradients(parameters, 0)
    parameters["logit"].grad = None
    before = parameters["logit"].detach().clone()
    position = parameters["position"].detach().clone()
    FusedAdam(parameters, RATES).step()
    assert torch.equal(parameters["logit"], before)
    assert not torch.equal(parameters["position"], position)


def test_learning_rates_change_by_name() -> None:
    parameters = make()
    optimizer = FusedAdam(parameters, 0.5)
    optimizer.set_learning_rates({"logit": 0.0})
    optimizer.set_learning_rates({"weight": 0.125})
    assert optimizer.learning_rates.tolist() == [0.5, 0.0, 0.5, 0.125, 0.5]
    logit, weight = parameters["logit"].detach().clone(), parameters["weight"].detach().clone()
    give_gradients(parameters, 0)
    parameters["weight"].grad = torch.ones((), dtype=torch.float64)
    optimizer.step()
    assert torch.equal(parameters["logit"], logit)
    torch.testing.assert_close(weight - parameters["weight"], torch.tensor(0.125, dtype=torch.float64))


def test_second_beta_by_name() -> None:
    ours, theirs = make(), make()
    optimizer = FusedAdam(ours, RATES, second_betas={"basis": 0.9})
    groups = [
        {"params": [tensor], "lr": RATES[name], "betas": (0.9, 0.9 if name == "basis" else 0.999)}
        for name, tensor in theirs.items()
    ]
    reference = torch.optim.Adam(groups)
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step()
        reference.step()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_skip_leaves_everything_as_it_is(device: str) -> None:
    parameters = make(torch.float32, device)
    optimizer = FusedAdam(parameters, RATES)
    give_gradients(parameters, 0)
    optimizer.step()
    everything = {**parameters, **optimizer.state_dict()}
    before = {name: tensor.detach().clone() for name, tensor in everything.items()}
    skip = torch.ones(1, dtype=torch.int32, device=device)
    optimizer.step(skip)
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything.items())
    optimizer.step(torch.zeros_like(skip))
    assert optimizer.steps.item() == 2
    assert not torch.equal(parameters["position"], before["position"])


def test_reset_forgets_rows() -> None:
    parameters = make()
    optimizer = FusedAdam(parameters, RATES)
    give_gradients(parameters, 0)
    parameters["position"].grad.fill_(1)
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    optimizer.reset("position", torch.tensor([3, 1499]))
    mask = torch.zeros(1500, dtype=torch.bool)
    mask[7] = True
    optimizer.reset("position", mask)
    for name, tensor in optimizer.state_dict().items():
        if name in ("first.position", "second.position"):
            assert not tensor[[3, 7, 1499]].any()
            mask[[3, 1499]] = True
            assert torch.equal(tensor[~mask], before[name][~mask])
        else:
            assert torch.equal(tensor, before[name])


def test_a_loaded_state_goes_on_as_the_saved_one() -> None:
    first = make(torch.float32)
    optimizer = FusedAdam(first, RATES)
    for step in range(3):
        give_gradients(first, step)
        optimizer.step()
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    second = {name: tensor.detach().clone().requires_grad_() for name, tensor in first.items()}
    resumed = FusedAdam(second, 0.0)
    addresses = {name: tensor.data_ptr() for name, tensor in resumed.state_dict().items()}
    resumed.load_state_dict(saved)
    assert addresses == {name: tensor.data_ptr() for name, tensor in resumed.state_dict().items()}
    for step in range(3, 5):
        for parameters, each in ((first, optimizer), (second, resumed)):
            give_gradients(parameters, step)
            each.step()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    parameter = torch.ones(3, requires_grad=True)
    optimizer = FusedAdam({"x": parameter}, 0.1)
    loss = (parameter**2).sum()
    parameter.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def check_raised_epsilons(device: str, dtype: torch.dtype) -> None:
    """One number has a thousandth of the other's gradients: it hardly moves, or as far without an epsilon."""
    gradient = torch.tensor([1.0, 1e-3], device=device, dtype=dtype)
    parameters = {name: torch.zeros(2, device=device, dtype=dtype).requires_grad_() for name in ("raised", "left")}
    optimizer = FusedAdam(parameters, 0.1, eps=1e-15)
    for _ in range(3):
        optimizer.raise_epsilons({"raised": 0.5, "left": 0.0})  # before the first step there is nothing to go by
        before = {name: tensor.detach().clone() for name, tensor in parameters.items()}
        for tensor in parameters.values():
            tensor.grad = gradient.clone()
        optimizer.step()
    moved = {name: (before[name] - tensor.detach()).double().cpu() for name, tensor in parameters.items()}
    epsilon = 0.5 * (1 + 1e-3) / 2  # moments of a gradient that does not change are that gradient
    expected = 0.1 * gradient.double().cpu() / (gradient.double().cpu() + epsilon)
    torch.testing.assert_close(moved["raised"], expected, rtol=1e-5, atol=5e-8)
    torch.testing.assert_close(moved["left"], torch.full((2,), 0.1, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_raised_epsilon_holds_what_has_hardly_a_gradient(dtype: torch.dtype) -> None:
    check_raised_epsilons("cpu", dtype)


@pytest.mark.gpu
def test_a_raised_epsilon_on_cuda() -> None:
    check_raised_epsilons("cuda", torch.float32)


def test_epsilons_belong_to_the_state() -> None:
    parameters = make(torch.float32)
    optimizer = FusedAdam(parameters, RATES)
    give_gradients(parameters, 0)
    optimizer.step()
    optimizer.raise_epsilons(dict.fromkeys(SHAPES, 0.1))
    resumed = FusedAdam(make(torch.float32), RATES)
    resumed.load_state_dict(optimizer.state_dict())
    assert torch.equal(resumed.epsilons, optimizer.epsilons)
    for epsilon, tensor in zip(resumed.epsilons.tolist(), parameters.values(), strict=True):
        assert epsilon > 1e-8 or not tensor.numel()


@pytest.mark.gpu
def test_a_captured_step_is_replayed() -> None:
    target = torch.linspace(-1, 1, 5000)

    def train(device: str) -> tuple[Tensor, FusedAdam]:
        parameter = torch.zeros(5000, device=device, requires_grad=True)
        return parameter, FusedAdam({"x": parameter}, 0.01)

    def one(parameter: Tensor, optimizer: FusedAdam, wanted: Tensor) -> None:
        optimizer.zero_grad()
        ((parameter - wanted) ** 2).sum().backward()
        optimizer.step()

    parameter, optimizer = train("cuda")
    wanted = target.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        one(parameter, optimizer, wanted)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one(parameter, optimizer, wanted)
    for _ in range(4):
        graph.replay()
    optimizer.set_learning_rates({"x": 0.02})
    graph.replay()

    expected, cpu_optimizer = train("cpu")
    for i in range(6):
        cpu_optimizer.set_learning_rates({"x": 0.02 if i == 5 else 0.01})
        one(expected, cpu_optimizer, target)
    assert optimizer.steps.item() == 6
    torch.testing.assert_close(parameter.detach().cpu(), expected.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_tensor_that_is_stepped_early_is_stepped_as_any_other(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    # Chunks of 4096 numbers: more of them than a device has room for beside other work.
    start = {"large": torch.randn(5_000_001, generator=generator), "small": torch.randn(70, generator=generator)}
    runs = []
    for early in ((), ("large",), ("large", "small")):
        parameters = {name: tensor.to(device).clone().requires_grad_() for name, tensor in start.items()}
        optimizer = FusedAdam(parameters, {"large": 0.01, "small": 0.02})
        for _ in range(3):
            optimizer.zero_grad()
            (parameters["large"].sin().sum() + parameters["small"].square().sum()).backward()
            for name in early:
                optimizer.step_early(name)
            optimizer.step()
        assert optimizer.steps.item() == 3
        runs.append({**parameters, **optimizer.state_dict()})
    for run in runs[1:]:
        assert all(torch.equal(run[name], runs[0][name]) for name in runs[0])
    assert not torch.equal(runs[0]["large"].cpu(), start["large"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_an_early_step_is_skipped_with_the_others(device: str) -> None:
    parameters = {name: torch.ones(5, device=device, requires_grad=True) for name in ("a", "b")}
    optimizer = FusedAdam(parameters, 0.1)
    for tensor in parameters.values():
        tensor.grad = torch.ones_like(tensor)
    for skip in (1, 0):
        flag = torch.tensor([skip], dtype=torch.int32, device=device)
        optimizer.step_early("a", flag)
        optimizer.step(flag)
        assert optimizer.steps.item() == 1 - skip
        assert all((tensor == 1).all() == bool(skip) for tensor in parameters.values())


def test_early_steps_that_cannot_be_taken() -> None:
    parameters = {name: torch.ones(5, requires_grad=True) for name in ("a", "b")}
    optimizer = FusedAdam(parameters, 0.1)
    with pytest.raises(InvalidParameterError, match="step_early names c, which is not a parameter"):
        optimizer.step_early("c")
    with pytest.raises(InvalidParameterError, match="a has no gradient"):
        optimizer.step_early("a")
    parameters["a"].grad = torch.ones(5)
    optimizer.step_early("a")
    with pytest.raises(InvalidParameterError, match="a has been stepped already"):
        optimizer.step_early("a")
    optimizer.zero_grad()  # forgets a step that was begun
    optimizer.step()
    assert optimizer.steps.item() == 0


def test_bad_input() -> None:
    parameters = make()
    with pytest.raises(InvalidParameterError, match="there are no parameters"):
        FusedAdam({}, 0.1)
    with pytest.raises(InvalidParameterError, match=r"logit is torch\.float32 on cpu, others are torch\.float64"):
        FusedAdam({**parameters, "logit": torch.zeros(3)}, 0.1)
    with pytest.raises(InvalidParameterError, match="x must be float32"):
        FusedAdam({"x": torch.zeros(3, dtype=torch.float16)}, 0.1)
    with pytest.raises(InvalidParameterError, match="contiguous leaf"):
        FusedAdam({"x": torch.zeros(3, 4).T}, 0.1)
    with pytest.raises(InvalidParameterError, match="contiguous leaf"):
        FusedAdam({"x": parameters["logit"] * 2}, 0.1)
    with pytest.raises(InvalidParameterError, match="learning_rates lacks basis"):
        FusedAdam(parameters, {name: 0.1 for name in SHAPES if name != "basis"})
    with pytest.raises(InvalidParameterError, match="learning_rates names colour, which is not a parameter"):
        FusedAdam(parameters, 0.1).set_learning_rates({"colour": 0.1})
    for rate in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InvalidParameterError, match="learning rate of logit must be 0 or more"):
            FusedAdam(parameters, {**RATES, "logit": rate})
    with pytest.raises(InvalidParameterError, match="betas must be"):
        FusedAdam(parameters, 0.1, betas=(0.9, 1.0))
    with pytest.raises(InvalidParameterError, match="second_betas names colour"):
        FusedAdam(parameters, 0.1, second_betas={"colour": 0.9})
    with pytest.raises(InvalidParameterError, match="eps must not be negative"):
        FusedAdam(parameters, 0.1, eps=-1e-8)
    with pytest.raises(InvalidParameterError, match="raise_epsilons names colour"):
        FusedAdam(parameters, 0.1).raise_epsilons({"colour": 0.1})
    for share in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InvalidParameterError, match="share of logit must be 0 or more"):
            FusedAdam(parameters, 0.1).raise_epsilons({"logit": share})


def test_bad_steps_and_states() -> None:
    parameters = make()
    optimizer = FusedAdam(parameters, RATES)
    before = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    parameters["position"].grad = torch.zeros(3, 1500, dtype=torch.float64).T
    with pytest.raises(InvalidParameterError, match="gradient of position must be contiguous"):
        optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(InvalidParameterError, match=r"skip must be int32 \[1\]"):
        optimizer.step(torch.zeros(1))
    with pytest.raises(InvalidParameterError, match="reset names colour"):
        optimizer.reset("colour", torch.tensor([0]))
    with pytest.raises(InvalidParameterError, match="rows must be int64"):
        optimizer.reset("position", torch.tensor([0], dtype=torch.int32))
    state = optimizer.state_dict()
    with pytest.raises(InvalidParameterError, match=r"the state lacks first\.basis"):
        optimizer.load_state_dict({name: state[name] for name in state if name != "first.basis"})
    with pytest.raises(InvalidParameterError, match="the state has an unknown extra"):
        optimizer.load_state_dict({**state, "extra": torch.zeros(1)})
    with pytest.raises(InvalidParameterError, match=r"first\.logit must be float64 \[7\]"):
        optimizer.load_state_dict({**state, "first.logit": torch.zeros(8, dtype=torch.float64)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in parameters.items())
