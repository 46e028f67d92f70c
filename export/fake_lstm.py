"""A BiLSTM in the numbers of its int8 file, as ONNX Runtime's DynamicQuantizeLSTM computes them.

That operator finds the range of its input, and of its hidden states at every step, over the whole batch. The file
pins both ranges (see `pinned` in lstm.py), so that they depend on nothing: the input's is that of the embedding
table, and the states' at step t is [-tanh t, tanh t], which no LSTM can leave: a cell gains at most 1 a step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from kdedge.export.fake_quant import (
    ActivationRange,
    activation_scale,
    observed_by,
    to_integers,
    weight_scale,
)
from kdedge.export.scheme import STEPS, QuantScheme
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

State = tuple[torch.Tensor, torch.Tensor]


def state_scale(step: int) -> State:
    """Scale and zero point of the hidden states after `step` steps, over [-tanh step, tanh step]."""
    bound = torch.tanh(torch.tensor(float(step)))
    return activation_scale(-bound, bound)


class FakeQuantLstm(nn.LSTM):
    """A bidirectional LSTM layer on uint8 inputs and states and int8 weights, each gate's row with a scale of its own.

    enabled, seen: as in FakeQuantLinear. watch looks on: told at each call how many steps it takes, it gives what looks on after each
    step but the last, with that step's number, counted from 1, and then as in FakeQuantLinear, of the states (2, B, H).
    """

    def __init__(self, lstm: nn.LSTM, scheme: QuantScheme) -> None:
        super().__init__(lstm.input_size, lstm.hidden_size, batch_first=True, bidirectional=True)
        for name, parameter in lstm.named_parameters():
            setattr(self, name, parameter)
        self.scheme, self.range, self.enabled = scheme, ActivationRange(), True
        self.seen: list[torch.Tensor] | None = None
        self.watch: (
            Callable[[int], Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]] | None
        ) = None

    @property
    def input_range(self) -> ActivationRange:
        return self.range

    def integer_weight(self, name: str) -> State:
        """(2, 4H, in) whole numbers of `weight_ih` or `weight_hh`, forward and backward, and their scales (2, 4H, 1)."""
        largest = self.scheme.largest_weight
        both = [getattr(self, f"{name}_l0{direction}") for direction in ("", "_reverse")]
        scales = [weight_scale(weight.detach(), largest) for weight in both]
        whole = [
            to_integers(weight, scale, 0.0, -largest, largest)
            for weight, scale in zip(both, scales, strict=True)
        ]
        return torch.stack(whole), torch.stack(scales)

    def forward(self, packed: PackedSequence) -> tuple[object, State]:  # type: ignore[override]
        """Final states (2, B, H) in the places where torch's own layer gives them."""
        x, lengths = pad_packed_sequence(packed, batch_first=True)  # (B, T, E)
        if self.seen is not None:
            self.seen.append(observed_by(packed.data))
        if not self.enabled:
            answer: tuple[object, State] = super().forward(packed)
            return answer
        return None, self._steps(self._inputs(x, lengths), lengths)

    def _inputs(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(2, B, T, 4H): what the tokens add to the filters, in the order in which each direction reads them."""
        scale, zero = self.input_range(x.numel())
        whole = to_integers(x, scale, zero, 0, STEPS) - zero
        places = (
            (lengths[:, None] - 1 - torch.arange(x.shape[1])).clamp(min=0)[..., None].expand_as(x)
        )
        both = torch.stack([whole, whole.gather(1, places.to(x.device))])  # (2, B, T, E)
        weight, scales = self.integer_weight("weight_ih")
        biases = torch.stack(
            [
                getattr(self, f"bias_ih_l0{d}") + getattr(self, f"bias_hh_l0{d}")
                for d in ("", "_reverse")
            ]
        )
        sums: torch.Tensor = (
            torch.einsum("dbte,dge->dbtg", both, weight) * (scale * scales[:, None, None, :, 0])
            + biases[:, None, None]
        )
        return sums

    def _steps(self, inputs: torch.Tensor, lengths: torch.Tensor) -> State:
        weight, scales = self.integer_weight("weight_hh")
        turned, scales = weight.transpose(1, 2), scales.transpose(1, 2)  # (2, H, 4H), (2, 1, 4H)
        look = None if self.watch is None else self.watch(inputs.shape[2])
        state = cell = torch.zeros_like(inputs[:, :, 0, : self.hidden_size])  # (2, B, H)
        for step in range(inputs.shape[2]):
            filters = inputs[:, :, step]
            if step:
                scale, zero = state_scale(step)
                whole = to_integers(state, scale, zero, 0, STEPS)
                if look is not None:
                    whole = look(step, state / scale + zero, whole)
                filters = filters + torch.bmm(whole - zero, turned) * (scale * scales)
            i, f, g, o = filters.chunk(4, dim=2)
            fresh = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            reading = (step < lengths)[None, :, None].to(state.device)
            cell = torch.where(reading, fresh, cell)
            state = torch.where(reading, o.sigmoid() * fresh.tanh(), state)
        return state, cell


class FakeQuantTable(nn.Module):
    """The embedding table that an LSTM reads: uint8 over the range of the LSTM's input, so that it is rounded once."""

    def __init__(self, embedding: nn.Embedding, reader: FakeQuantLstm) -> None:
        super().__init__()
        self.weight, self.padding_idx = embedding.weight, embedding.padding_idx
        self._reader = (reader,)  # in a tuple: saved once, under its own name
        self.enabled = True

    def integer_weight(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(V, E) whole numbers, the scale and the zero point."""
        scale, zero = self._reader[0].input_range()
        return to_integers(self.weight, scale, zero, 0, STEPS), scale, zero

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = F.embedding(ids, self.weight, self.padding_idx)  # (B, T, E)
        if not self.enabled:
            return rows
        scale, zero = self._reader[0].input_range(rows.numel())
        rounded: torch.Tensor = (to_integers(rows, scale, zero, 0, STEPS) - zero) * scale
        return rounded
