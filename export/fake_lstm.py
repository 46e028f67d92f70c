"""A BiLSTM in the arithmetic of its int8 file, which is ONNX Runtime's DynamicQuantizeLSTM.

That operator finds the range of its input, and of its hidden states at every step, over the whole
batch. The file anchors both ranges (`range_anchored` in lstm_weights.py), so they do not depend
on the batch: the input's range is that of the embedding table, and the states' range at step t is
[-tanh t, tanh t], which no state can leave because a cell gains at most 1 per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from kdedge.export.fake_quant import (
    ActivationRange,
    observed_values,
    to_integers,
    weight_scale,
)
from kdedge.export.lstm_steps import IntegerSteps, TokenHook
from kdedge.export.scheme import UINT8_MAX, QuantScheme
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from kdedge.students.lstm_states import (
    in_order_of_tokens,
    padded_final_states,
    padded_token_states,
    reversed_positions,
)

DIRECTIONS = ("", "_reverse")


class LstmState(NamedTuple):
    """The last hidden states and cells of both directions. *Shape:* (2, B, H) each"""

    hidden: torch.Tensor
    cell: torch.Tensor


class IntegerWeight(NamedTuple):
    """A weight of both directions as integers (2, 4H, in) and scales of its rows (2, 4H, 1)."""

    integers: torch.Tensor
    scales: torch.Tensor


class FakeQuantLstm(nn.LSTM):
    """A bidirectional LSTM layer on uint8 inputs and states and int8 weights.

    Every row of a weight has its own scale.

    Attributes:
        enabled, observed: As in FakeQuantLinear.
        hook: Called at each forward pass with the number of tokens. Returns the hook for the states
            (2, B, H) after each token except the last.
    """

    def __init__(self, lstm: nn.LSTM, scheme: QuantScheme) -> None:
        super().__init__(lstm.input_size, lstm.hidden_size, batch_first=True, bidirectional=True)
        for name, parameter in lstm.named_parameters():
            setattr(self, name, parameter)
        self.scheme, self.range, self.enabled = scheme, ActivationRange(), True
        self.observed: list[torch.Tensor] | None = None
        self.hook: Callable[[int], TokenHook] | None = None

    @property
    def input_range(self) -> ActivationRange:
        return self.range

    def integer_weight(self, name: str) -> IntegerWeight:
        """Round `weight_ih` or `weight_hh`."""
        largest = self.scheme.largest_weight
        integers, scales = [], []
        for direction in DIRECTIONS:
            weight = getattr(self, f"{name}_l0{direction}")
            scale = weight_scale(weight.detach(), largest)
            integers.append(to_integers(weight, scale, 0.0, -largest, largest))
            scales.append(scale)
        return IntegerWeight(torch.stack(integers), torch.stack(scales))

    def forward(  # type: ignore[override]
        self, packed: PackedSequence
    ) -> tuple[PackedSequence, LstmState]:
        """Return the states (B, T, 2H) of all tokens, packed, and the last states and cells."""
        x, lengths = pad_packed_sequence(packed, batch_first=True)  # (B, T, E)
        if self.observed is not None:
            self.observed.append(observed_values(packed.data))
        if not self.enabled:
            result: tuple[PackedSequence, tuple[torch.Tensor, torch.Tensor]]
            result = super().forward(packed)
            return result[0], LstmState(*result[1])
        on_device = lengths.to(x.device)
        states, cell = self._read_tokens(x, on_device)
        in_order = in_order_of_tokens(*_both_directions(states), on_device)
        in_order_packed = pack_padded_sequence(
            in_order, lengths, batch_first=True, enforce_sorted=False
        )
        return in_order_packed, LstmState(states[-1], cell)

    def padded_final_states(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the final states (B, 2H) without packing, for which a GPU would have to wait.

        Args:
            vectors: *Shape:* (B, T, E)
            lengths: Number of tokens of each text, at least 1. *Shape:* (B,)
        """
        self._observe(vectors, lengths)
        if not self.enabled:
            return padded_final_states(self, vectors, lengths)
        state = self._read_tokens(vectors, lengths)[0][-1]
        return torch.cat([state[0], state[1]], dim=1)

    def padded_token_states(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states (B, T, 2H) of all tokens without packing, and 0 for padding."""
        self._observe(vectors, lengths)
        if not self.enabled:
            return padded_token_states(self, vectors, lengths)
        states, _ = self._read_tokens(vectors, lengths)
        return in_order_of_tokens(*_both_directions(states), lengths)

    def _observe(self, vectors: torch.Tensor, lengths: torch.Tensor) -> None:
        if self.observed is not None:
            real = torch.arange(vectors.shape[1], device=vectors.device) < lengths[:, None]
            self.observed.append(observed_values(vectors[real]))

    def _gate_inputs(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return what the tokens add to the gates: (2, B, T, 4H), in each direction's order."""
        scale, zero = self.input_range(x.numel())
        whole = to_integers(x, scale, zero, 0, UINT8_MAX) - zero
        reverse = reversed_positions(lengths, x.shape[1])
        backward = whole.gather(1, reverse[..., None].expand_as(x))
        both = torch.stack([whole, backward])  # (2, B, T, E)
        weight, scales = self.integer_weight("weight_ih")
        biases = torch.stack([self._bias(direction) for direction in DIRECTIONS])  # (2, 4H)
        sums = torch.einsum("dbte,dge->dbtg", both, weight)
        scaled: torch.Tensor = sums * (scale * scales[:, None, None, :, 0])
        return scaled + biases[:, None, None]

    def _bias(self, direction: str) -> torch.Tensor:
        input_bias: torch.Tensor = getattr(self, f"bias_ih_l0{direction}")
        hidden_bias: torch.Tensor = getattr(self, f"bias_hh_l0{direction}")
        return input_bias + hidden_bias

    def _read_tokens(
        self, x: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run both directions over vectors (B, T, E).

        Returns:
            States (T, 2, B, H), each direction in the order in which it reads, and the last cells
            (2, B, H).
        """
        inputs = self._gate_inputs(x, lengths)
        weight = self.integer_weight("weight_hh")
        num_tokens = inputs.shape[2]
        hook = None if self.hook is None else self.hook(num_tokens)
        is_token = torch.arange(num_tokens, device=lengths.device)[:, None] < lengths  # (T, B)
        result: tuple[torch.Tensor, torch.Tensor] = IntegerSteps.apply(
            inputs,
            weight.integers.transpose(1, 2),
            weight.scales.transpose(1, 2),
            is_token,
            hook,
        )
        return result


def _both_directions(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split states (T, 2, B, H) into those of each direction: (B, T, H)."""
    forward, backward = states.permute(1, 2, 0, 3)
    return forward, backward


class FakeQuantTable(nn.Module):
    """The embedding table of an LSTM: uint8 over the range of the LSTM's input.

    So the LSTM does not round its input a second time.
    """

    def __init__(self, embedding: nn.Embedding, reader: FakeQuantLstm) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx
        # In a tuple, so that the LSTM is saved only under its own name.
        self._reader = (reader,)
        self.enabled = True

    def integer_weight(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return whole numbers (V, E), their scale and zero point."""
        scale, zero = self._reader[0].input_range()
        return to_integers(self.weight, scale, zero, 0, UINT8_MAX), scale, zero

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(ids, self.weight, self.padding_idx)  # (B, T, E)
        if not self.enabled:
            return rows
        scale, zero = self._reader[0].input_range(rows.numel())
        rounded: torch.Tensor = (to_integers(rows, scale, zero, 0, UINT8_MAX) - zero) * scale
        return rounded
