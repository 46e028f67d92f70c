"""The steps of an int8 LSTM against a loop that autograd differentiates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kdedge.export.fake_quant import to_integers
from kdedge.export.lstm_steps import IntegerSteps, state_scale
from torch.utils._python_dispatch import TorchDispatchMode

Steps = Callable[..., tuple[torch.Tensor, torch.Tensor]]

VIEWS = ("alias", "detach", "expand", "permute", "select", "slice", "split", "squeeze", "transpose")


def loop(
    inputs: torch.Tensor,
    weight: torch.Tensor,
    row_scales: torch.Tensor,
    is_token: torch.Tensor,
    hook: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same arithmetic, one operation after the other, as autograd records it."""
    state = cell = torch.zeros_like(inputs[:, :, 0, : weight.shape[1]])
    states = []
    for token in range(inputs.shape[2]):
        sums = inputs[:, :, token]
        if token:
            scale, zero = state_scale(token)
            whole = to_integers(state, scale, zero, 0, 255)
            sums = sums + torch.bmm(whole - zero, weight) * (scale * row_scales)
        i, f, g, o = sums.chunk(4, dim=2)
        new_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        present = is_token[token][None, :, None]
        cell = torch.where(present, new_cell, cell)
        state = torch.where(present, o.sigmoid() * new_cell.tanh(), state)
        states.append(state)
    return torch.stack(states), cell


def arguments(lengths: list[int]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(len(lengths))
    tokens, hidden = max(lengths), 7
    inputs = torch.randn(
        2, len(lengths), tokens, 4 * hidden, generator=generator, dtype=torch.float64
    )
    weight = torch.randint(-63, 64, (2, hidden, 4 * hidden), generator=generator).double()
    row_scales = torch.rand(2, 1, 4 * hidden, generator=generator, dtype=torch.float64) / 63
    is_token = torch.arange(tokens)[:, None] < torch.tensor(lengths)
    return inputs.requires_grad_(), weight.requires_grad_(), row_scales, is_token


def gradients(steps: Steps, lengths: list[int]) -> list[torch.Tensor]:
    """Return states, cells, and the gradients of a sum with other weights for each number."""
    inputs, weight, row_scales, is_token = arguments(lengths)
    states, cell = steps(inputs, weight, row_scales, is_token, None)
    shares = torch.linspace(-1, 1, states.numel(), dtype=torch.float64).view_as(states)
    ((states * shares).sum() + (cell * shares[-1].flip(2)).sum()).backward()
    assert inputs.grad is not None
    weight_grad = torch.zeros(()) if weight.grad is None else weight.grad
    return [states.detach(), cell.detach(), inputs.grad, weight_grad]


@pytest.mark.parametrize("lengths", [[1], [6], [1, 6, 3, 1], [9, 9, 2, 8, 5]])
def test_values_and_gradients_are_those_of_autograd(lengths: list[int]) -> None:
    expected, found = gradients(loop, lengths), gradients(IntegerSteps.apply, lengths)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert max(lengths) == 1 or found[3].abs().max() > 1e-4


def test_gradients_follow_after_inference() -> None:
    """Calibration runs in inference mode, and training uses the same scales of states after it."""
    state_scale.cache_clear()
    with torch.inference_mode():
        gradients_free = IntegerSteps.apply(*arguments([6]), None)
    assert gradients_free[0].shape == (6, 2, 1, 7)
    assert gradients(IntegerSteps.apply, [6])[3].abs().max() > 1e-4


class OperationCounter(TorchDispatchMode):
    """Counts the operations that would each be a launch on a GPU; views are not."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = str(operation)
        if not any(view in name for view in VIEWS) and "view" not in name:
            self.count += 1
        return operation(*args, **(kwargs or {}))


def operations_per_token(steps: Steps) -> float:
    counts = []
    for tokens in (10, 30):
        gradients(steps, [tokens])  # Fills the cache of state scales.
        with OperationCounter() as counter:
            gradients(steps, [tokens])
        counts.append(counter.count)
    return (counts[1] - counts[0]) / 20


def test_a_token_takes_few_operations() -> None:
    """A step of autograd's loop takes more than twice as many, forward and backward."""
    assert operations_per_token(IntegerSteps.apply) <= 27
    assert operations_per_token(loop) > 2 * operations_per_token(IntegerSteps.apply)
