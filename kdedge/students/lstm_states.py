"""Read texts with a bidirectional LSTM: its final states, or its states after every token.

Padding never enters the LSTM. A CPU packs the texts. Packing needs their lengths on the CPU, for
which a GPU would have to wait at every step; there, each direction runs over padded texts, the
backward one from each text's last token on. Padding comes last, so it does not change the state
after the last token. A fake-quantized LSTM has its own methods for padded texts.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# On a GPU the weights of both directions are in one piece of memory. `_read_padded` passes those of
# one direction, and cuDNN joins them in a copy at each call, which takes little time. A filter for
# each call would make Python repeat its other warnings.
warnings.filterwarnings(
    "ignore",
    "RNN module weights are not part of single contiguous chunk of memory",
    UserWarning,
    module=r"kdedge\.students\.lstm_states$",
)


def final_states(lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the final forward and backward states (B, 2H).

    Args:
        vectors: *Shape:* (B, T, E)
        lengths: Number of tokens of each text, at least 1. *Shape:* (B,)
    """
    if vectors.is_cuda:
        own = getattr(lstm, "padded_final_states", None)
        states: torch.Tensor = (
            own(vectors, lengths) if own else padded_final_states(lstm, vectors, lengths)
        )
        return states
    packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
    with _lstm_precision():
        _, (state, _) = lstm(packed)
    return torch.cat([state[0], state[1]], dim=1)


def token_states(lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the forward and backward states (B, T, 2H) of every token, and 0 for padding.

    Args:
        vectors: *Shape:* (B, T, E)
        lengths: Number of tokens of each text, at least 1. *Shape:* (B,)
    """
    if vectors.is_cuda:
        own = getattr(lstm, "padded_token_states", None)
        states: torch.Tensor = (
            own(vectors, lengths) if own else padded_token_states(lstm, vectors, lengths)
        )
        return states
    packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
    with _lstm_precision():
        outputs, _ = lstm(packed)
    padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=vectors.shape[1])
    return padded


def _lstm_precision() -> AbstractContextManager[Any]:
    """Switch off 16-bit autocast on a CPU that has no LSTM for it.

    torch has no fp16 LSTM for any CPU, and a bf16 LSTM only for CPUs with AVX512.
    """
    if not torch.is_autocast_enabled("cpu"):
        return nullcontext()
    is_bf16 = torch.get_autocast_dtype("cpu") is torch.bfloat16
    if is_bf16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return nullcontext()
    return torch.autocast("cpu", enabled=False)


def padded_final_states(
    lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return what `final_states` does, without packing."""
    rows = torch.arange(len(vectors), device=vectors.device)
    outputs = _read_padded(lstm, vectors, lengths)
    return torch.cat([output[rows, lengths - 1] for output in outputs], dim=1)


def padded_token_states(
    lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return what `token_states` does, without packing."""
    forward, backward = _read_padded(lstm, vectors, lengths)
    return in_order_of_tokens(forward, backward, lengths)


def _read_padded(lstm: nn.LSTM, vectors: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Return the states (B, T, H) of both directions, each in the order in which it reads."""
    rows = torch.arange(len(vectors), device=vectors.device)
    reverse = reversed_positions(lengths, vectors.shape[1])
    readings = (vectors, vectors[rows[:, None], reverse])
    zeros = vectors.new_zeros(1, len(vectors), lstm.hidden_size)
    outputs = []
    for direction, inputs in enumerate(readings):
        weights: list[torch.Tensor] = [*lstm.all_weights[direction]]
        output = torch.lstm(
            inputs, (zeros, zeros), weights, True, 1, 0.0, lstm.training, False, True
        )[0]  # (B, T, H)
        outputs.append(output)
    return outputs


def reversed_positions(lengths: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Return the positions (B, T) in which the backward direction reads: last token first."""
    steps = torch.arange(num_tokens, device=lengths.device)
    return (lengths[:, None] - 1 - steps).clamp(min=0)


def in_order_of_tokens(
    forward: torch.Tensor, backward: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Join the states of both directions (B, T, H each) to (B, T, 2H), with 0 for padding."""
    num_tokens = forward.shape[1]
    reverse = reversed_positions(lengths, num_tokens)
    backward = backward.gather(1, reverse[..., None].expand_as(backward))
    is_token = torch.arange(num_tokens, device=lengths.device) < lengths[:, None]  # (B, T)
    return torch.cat([forward, backward], dim=2) * is_token[..., None]
