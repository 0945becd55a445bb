"""Adam for many tensors in one launch, inside a CUDA graph or out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from being_rt.errors import InvalidParameterError
from being_rt.ops.native import call, check

# A tensor as the native core takes it (csrc/training/bindings_adam.cpp): addresses, numbers, index of its rate.
ROW = np.dtype(
    [(name, np.int64) for name in ("parameter", "gradient", "first", "second", "size", "rate")]
    + [("second_forgetting", np.float64)]
)


class FusedAdam:
    """Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1, as ``torch.optim.Adam`` does it.

    All tensors are stepped by one launch (64 of them; more take one launch per 64), with one counter of steps. Learning
    rates and counter live on the device, so that a step can be captured in a CUDA graph and replayed under a schedule.

    The optimizer owns no gradients: each :meth:`step` takes the addresses of ``parameter.grad`` as they are then, and a
    captured step keeps those for good. So capture the backward pass and the step together, after :meth:`zero_grad`:
    gradients then live in the graph's own memory, and every replay writes them afresh. In eager use nothing needs care.

    Args:
        parameters: leaf tensors by name, float32 (float64: CPU only), contiguous, on one device. They are stepped in
            place, and must stay where they are.
        learning_rates: by name, or one for all.
        betas: forgetting of the first and the second moment, 0 <= beta < 1.
        eps: added to the root of the second moment, until :meth:`raise_epsilons` says otherwise.
        second_betas: by name, for tensors whose second moment forgets at a rate of its own.

    Attributes:
        learning_rates: float32 [tensors] on the device, in the order of ``parameters``; see
            :meth:`set_learning_rates`.
        epsilons: [tensors] in the parameters' dtype, likewise; see :meth:`raise_epsilons`.
        steps: int64 [1] on the device: how many were taken.

    Raises:
        InvalidParameterError: no tensors, tensors that do not go together, unknown names, or numbers out of range.

    Example::

        optimizer = FusedAdam({"position": position, "colour": colour}, {"position": 1.6e-4, "colour": 2.5e-3})
        loss(position, colour).backward()
        optimizer.step()
        optimizer.zero_grad()
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        learning_rates: Mapping[str, float] | float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        second_betas: Mapping[str, float] | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self._check_parameters()
        second_betas = second_betas or {}
        self._check_names("second_betas", second_betas)
        for beta in (*betas, *second_betas.values()):
            if not 0 <= beta < 1:
                raise InvalidParameterError(f"FusedAdam: betas must be at least 0 and below 1, got {beta}")
        if not eps >= 0:
            raise InvalidParameterError(f"FusedAdam: eps must not be negative, got {eps}")
        self._place = {name: i for i, name in enumerate(self.parameters)}  # in learning_rates and epsilons
        self._first_forgetting = 1 - betas[0]
        self._second_forgetting = {name: 1 - second_betas.get(name, betas[1]) for name in self.parameters}

        like = self._like = next(iter(self.parameters.values()))
        self._first = {name: torch.zeros_like(tensor) for name, tensor in self.parameters.items()}
        self._second = {name: torch.zeros_like(tensor) for name, tensor in self.parameters.items()}
        self.steps = torch.zeros(1, dtype=torch.int64, device=like.device)
        self._ticket = torch.zeros(1, dtype=torch.int32, device=like.device)
        self._stepped: set[str] = set()  # of the present step
        self.learning_rates = torch.zeros(len(self.parameters), dtype=torch.float32, device=like.device)
        self.epsilons = torch.full_like(self.learning_rates, eps, dtype=like.dtype)
        if isinstance(learning_rates, Mapping):
            missing = sorted(self.parameters.keys() - learning_rates.keys())
            if missing:
                raise InvalidParameterError(f"FusedAdam: learning_rates lacks {missing[0]}")
        else:
            learning_rates = dict.fromkeys(self.parameters, learning_rates)
        self.set_learning_rates(learning_rates)

    def set_learning_rates(self, learning_rates: Mapping[str, float]) -> None:
        """Set rates by name; others stay. In place, between replays of a graph, with a copy to the device.

        Raises:
            InvalidParameterError: an unknown name, or a rate that is negative or not finite.
        """
        self._check_numbers("learning_rates", "learning rate", learning_rates)
        if learning_rates.keys() == self.parameters.keys():
            rates = [learning_rates[name] for name in self.parameters]
            self.learning_rates.copy_(torch.tensor(rates, dtype=torch.float32))
        else:
            for name, rate in learning_rates.items():
                self.learning_rates[self._place[name]] = rate

    def raise_epsilons(self, shares: Mapping[str, float]) -> None:
        """Make the epsilon of tensors a share of the root of their second moments as these are now, on average.

        With a tiny epsilon every number moves by its rate, however little the loss has to do with it: what is hardly
        seen wanders by the noise of its gradient. A number whose gradients are far below the share of the tensor's
        usual ones moves that much less. In place, between replays of a graph; tensors that have not been stepped keep
        their epsilon.

        Args:
            shares: by name, 0 or more. 0: the tensor keeps its epsilon.

        Raises:
            InvalidParameterError: an unknown name, or a share that is negative or not finite.
        """
        self._check_numbers("raise_epsilons", "share", shares)
        for name, share in shares.items():
            if not share or not self._second[name].numel():
                continue
            # Adam's bias correction of the second moment; 0 before the first step.
            remembered = -torch.expm1(self.steps * math.log1p(-self._second_forgetting[name]))
            usual = self._second[name].sqrt().mean() / remembered.sqrt()
            epsilon = self.epsilons[self._place[name]]
            epsilon.copy_(torch.where(usual > 0, share * usual, epsilon)[0])

    def step(self, skip: Tensor | None = None) -> None:
        """Step every tensor that has a gradient.

        Args:
            skip: int32 [1] on the device. Where it is not 0 when the step runs, nothing changes, the counter included.

        Raises:
            InvalidParameterError: a gradient of a wrong dtype, on another device or not contiguous; a wrong ``skip``.
        """
        remaining = [name for name in self.parameters if name not in self._stepped]
        self._step(remaining, skip, last=bool(self._stepped))
        self._stepped.clear()

    def step_early(self, name: str, skip: Tensor | None = None) -> None:
        """Step one tensor now, before others have gradients; the :meth:`step` that follows leaves it out.

        Meant for a large tensor, on a stream of its own, while the backward pass goes on: the work leaves room for
        other work. The result is the same to the bit. Learning rates must be those of the step, and that step must wait
        for this one.

        Args:
            name: of the tensor, which has a gradient.
            skip: as for :meth:`step`; its value must be the same then.

        Raises:
            InvalidParameterError: an unknown name, a tensor that has no gradient or was stepped already; and as
                :meth:`step`.
        """
        self._check_names("step_early", {name: 0.0})
        if self.parameters[name].grad is None:
            raise InvalidParameterError(f"FusedAdam: {name} has no gradient")
        if name in self._stepped:
            raise InvalidParameterError(f"FusedAdam: {name} has been stepped already")
        self._step([name], skip, early=True)
        self._stepped.add(name)

    def _step(self, names: list[str], skip: Tensor | None, early: bool = False, last: bool = False) -> None:
        """Step tensors that have gradients. ``last``: the step is over even where there are none."""
        rows = np.zeros(len(names), ROW)
        count = 0
        for name in names:
            tensor, rate = self.parameters[name], self._place[name]
            gradient = tensor.grad
            if gradient is None or tensor.numel() == 0:
                continue
            if (gradient.dtype, gradient.device) != (tensor.dtype, tensor.device) or not gradient.is_contiguous():
                raise InvalidParameterError(
                    f"FusedAdam: the gradient of {name} must be contiguous, {tensor.dtype} and on {tensor.device}"
                )
            addresses = (x.data_ptr() for x in (tensor, gradient, self._first[name], self._second[name]))
            rows[count] = (*addresses, tensor.numel(), rate, self._second_forgetting[name])
            count += 1
        if skip is not None:
            check("FusedAdam", "skip", skip, (1,), torch.int32)
        call(
            "adam",
            self._like,
            rows=rows.ctypes.data,
            tensors=count,
            learning_rate=self.learning_rates,
            epsilon=self.epsilons,
            steps=self.steps,
            ticket=self._ticket,
            skip=skip,
            first_forgetting=self._first_forgetting,
            beside=early,
            last=last or (count > 0 and not early),
        )
        for name in names:
            torch.autograd.graph.increment_version(self.parameters[name])

    def zero_grad(self) -> None:
        """Drop all gradients: the next backward pass makes new ones, which costs less than adding to zeros."""
        for tensor in self.parameters.values():
            tensor.grad = None
        self._stepped.clear()

    def reset(self, name: str, rows: Tensor) -> None:
        """Forget both moments of some rows of a tensor, whose contents are new. In place; the counter goes on.

        Args:
            name: of the tensor.
            rows: int64 [R] indices into the first axis, or bool [N]; on the tensor's device.

        Raises:
            InvalidParameterError: an unknown name, or rows that are neither.
        """
        self._check_names("reset", {name: 0.0})
        if rows.dtype == torch.bool:
            check("FusedAdam", "rows", rows, self.parameters[name].shape[:1], torch.bool)
        else:
            check("FusedAdam", "rows", rows, (-1,), torch.int64)
        for moment in (self._first[name], self._second[name]):
            if rows.dtype == torch.bool:
                moment.masked_fill_(rows.reshape(-1, *[1] * (moment.dim() - 1)), 0)
            else:
                moment.index_fill_(0, rows, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that steps change or depend on, as tensors by name; they are the optimizer's own, not copies."""
        state = {"steps": self.steps, "learning_rates": self.learning_rates, "epsilons": self.epsilons}
        for name in self.parameters:
            state[f"first.{name}"] = self._first[name]
            state[f"second.{name}"] = self._second[name]
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy a state of :meth:`state_dict` into this optimizer, whose tensors stay where they are.

        Raises:
            InvalidParameterError: the state is of other tensors; nothing has changed then.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            name = sorted(own.keys() ^ state.keys())[0]
            raise InvalidParameterError(f"FusedAdam: the state {'lacks' if name in own else 'has an unknown'} {name}")
        for name, tensor in own.items():
            check("FusedAdam", name, state[name], tensor.shape, tensor.dtype)
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _check_parameters(self) -> None:
        if not self.parameters:
            raise InvalidParameterError("FusedAdam: there are no parameters")
        like = next(iter(self.parameters.values()))
        for name, tensor in self.parameters.items():
            if tensor.dtype not in ([torch.float32] if tensor.is_cuda else [torch.float32, torch.float64]):
                raise InvalidParameterError(f"FusedAdam: {name} must be float32 (or float64 on the CPU)")
            if (tensor.dtype, tensor.device) != (like.dtype, like.device):
                raise InvalidParameterError(
                    f"FusedAdam: {name} is {tensor.dtype} on {tensor.device}, others are {like.dtype} on {like.device}"
                )
            if not tensor.is_contiguous() or not tensor.is_leaf:
                raise InvalidParameterError(f"FusedAdam: {name} must be a contiguous leaf tensor")

    def _check_numbers(self, what: str, kind: str, numbers: Mapping[str, float]) -> None:
        self._check_names(what, numbers)
        for name, number in numbers.items():
            if not 0 <= number < float("inf"):
                raise InvalidParameterError(f"FusedAdam: the {kind} of {name} must be 0 or more, got {number}")

    def _check_names(self, what: str, names: Mapping[str, float]) -> None:
        unknown = sorted(names.keys() - self.parameters.keys())
        if unknown:
            raise InvalidParameterError(f"FusedAdam: {what} names {unknown[0]}, which is not a parameter")
