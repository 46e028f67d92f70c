"""The steps of an int8 LSTM over the tokens, with gradients computed by hand.

Each step needs the state before it, so the steps come one after the other. Autograd would record
every operation of every step and then replay each one. Here a step is few operations, and the
backward pass fewer still: whatever does not depend on the step before is computed for all tokens at
once. On a GPU this decides the time, because each operation is a launch of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from kdedge.export.fake_quant import activation_scale, to_integers
from kdedge.export.scheme import UINT8_MAX

TokenHook = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""A `Hook` with the number of tokens read so far as its first argument."""


class StateScale(NamedTuple):
    """How hidden states are rounded: real = (integer - zero_point) · scale."""

    scale: torch.Tensor
    zero_point: torch.Tensor


@cache
def state_scale(num_tokens: int) -> StateScale:
    """Return how hidden states are rounded after `num_tokens` tokens."""
    # A cell changes by at most 1 per token, so no state leaves [-tanh(tokens), tanh(tokens)].
    with torch.inference_mode(False):  # Tensors that outlive this call must fit into any graph.
        bound = torch.tanh(torch.tensor(float(num_tokens)))
        return StateScale(*activation_scale(-bound, bound))


class IntegerSteps(torch.autograd.Function):
    """Read all tokens in both directions; rounding has a straight-through gradient.

    Arguments of `apply`:
        inputs: What the tokens add to the gates. *Shape:* (2, B, T, 4H), gates i, f, g, o
        weight: Integers of the recurrent weight. *Shape:* (2, H, 4H)
        row_scales: Their scales, without a gradient. *Shape:* (2, 1, 4H)
        is_token: Whether a text has that many tokens. *Shape:* (T, B)
        hook: None, or called with the number of tokens read, the states / scale + zero point, and
            their integers (2, B, H); the step continues with the integers that it returns.

    Returns:
        The states after each token, and the cells after the last one. Once a text has ended, its
        state and cell stay as they are. *Shapes:* (T, 2, B, H) and (2, B, H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        weight: torch.Tensor,
        row_scales: torch.Tensor,
        is_token: torch.Tensor,
        hook: TokenHook | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        num_tokens = inputs.shape[2]
        hidden = weight.shape[1]
        scales = [state_scale(token) for token in range(num_tokens)]
        factors = row_scales * _as_column([scale for scale, _ in scales], inputs.device)
        present = is_token[:, None, :, None]  # (T, 1, B, 1)
        state = cell = torch.zeros_like(inputs[:, :, 0, :hidden])  # (2, B, H)
        states = []
        record: dict[str, list[torch.Tensor]] = {"rounded": [], "gates": [], "cells": []}
        for token, (scale, zero) in enumerate(scales):
            sums = inputs[:, :, token]
            if token:
                whole = to_integers(state, scale, zero, 0, UINT8_MAX)
                if hook is not None:
                    whole = hook(token, state / scale + zero, whole)
                rounded = whole - zero
                sums = torch.addcmul(sums, torch.bmm(rounded, weight), factors[token])
                record["rounded"].append(rounded)
            gates = sums.sigmoid()
            gates[..., 2 * hidden : 3 * hidden] = sums[..., 2 * hidden : 3 * hidden].tanh()
            i, f, g, o = gates.chunk(4, dim=2)
            record["gates"].append(gates)
            record["cells"].append(cell)
            new_cell = torch.addcmul(f * cell, i, g)
            state = torch.where(present[token], o * new_cell.tanh(), state)
            cell = torch.where(present[token], new_cell, cell)
            states.append(state)
        ctx.save_for_backward(weight, row_scales, factors, present)
        ctx.record = {name: torch.stack(steps) for name, steps in record.items() if steps}
        return torch.stack(states), cell

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, None, None]:
        weight, row_scales, factors, present = ctx.saved_tensors
        record = ctx.record
        by_cell, by_output, of_cell, keep_cell = _slopes(record["gates"], record["cells"], present)
        keep_state = (~present).to(weight.dtype)
        # The gradient through rounding divides by the scale that the sums were multiplied with.
        back = (weight * row_scales).transpose(1, 2)  # (2, 4H, H)
        hidden = weight.shape[1]
        d_states, d_cell = gradients
        d_state = d_states[-1]
        d_gates = torch.empty_like(record["gates"])  # (T, 2, B, 4H)
        for token in reversed(range(len(d_gates))):
            d_new_cell = torch.addcmul(d_cell, d_state, of_cell[token])
            torch.mul(
                d_new_cell.repeat(1, 1, 3), by_cell[token], out=d_gates[token, ..., : 3 * hidden]
            )
            torch.mul(d_state, by_output[token], out=d_gates[token, ..., 3 * hidden :])
            d_cell = d_new_cell * keep_cell[token]
            if token:
                kept = torch.addcmul(d_states[token - 1], d_state, keep_state[token])
                d_state = torch.baddbmm(kept, d_gates[token], back)
        d_weight = None
        if "rounded" in record:
            products = (d_gates[1:] * factors[1:]).permute(1, 0, 2, 3).flatten(1, 2)  # (2, TB, 4H)
            rounded = record["rounded"].permute(1, 0, 2, 3).flatten(1, 2)  # (2, TB, H)
            d_weight = torch.bmm(rounded.transpose(1, 2), products)
        return d_gates.permute(1, 2, 0, 3), d_weight, None, None, None


class _Slopes(NamedTuple):
    """Derivatives of a step, for all tokens at once; tensors begin with (T, 2, B).

    Attributes:
        by_cell: Of the new cell by the sums of the gates i, f and g. *Shape:* (T, 2, B, 3H)
        by_output: Of the state by the sums of the gate o. *Shape:* (T, 2, B, H)
        of_cell: Of the state by the new cell. *Shape:* (T, 2, B, H)
        keep_cell: Of the new cell by the cell before. *Shape:* (T, 2, B, H)
    """

    by_cell: torch.Tensor
    by_output: torch.Tensor
    of_cell: torch.Tensor
    keep_cell: torch.Tensor


def _slopes(gates: torch.Tensor, cells: torch.Tensor, present: torch.Tensor) -> _Slopes:
    """Return the derivatives; where a text has ended, state and cell only pass through.

    Args:
        gates: The gates i, f, g, o of each step. *Shape:* (T, 2, B, 4H)
        cells: The cells before each step. *Shape:* (T, 2, B, H)
    """
    i, f, g, o = gates.chunk(4, dim=3)
    tanh_cell = torch.addcmul(f * cells, i, g).tanh()
    by_cell = torch.cat([g * i * (1 - i), cells * f * (1 - f), i * (1 - g * g)], dim=3)
    mask = present.to(gates.dtype)
    return _Slopes(
        by_cell * mask,
        tanh_cell * o * (1 - o) * mask,
        o * (1 - tanh_cell * tanh_cell) * mask,
        torch.where(present, f, 1.0),
    )


def _as_column(scales: list[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Return T scales as a tensor (T, 1, 1, 1) on a device, in one copy."""
    return torch.stack(scales).view(-1, 1, 1, 1).to(device, non_blocking=True)
