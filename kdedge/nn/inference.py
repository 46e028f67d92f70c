"""Run a model over many texts, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from kdedge.errors import MachineError
from kdedge.nn.attention_mask import with_additive_mask
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import exact_fp32, to_device
from kdedge.nn.memory import is_out_of_memory, release_memory
from kdedge.run.progress import SILENT, Progress

Output = TypeVar("Output")

BATCH_TOKENS = 4096
"""Default for the tokens of one batch, padding included."""


def token_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Yield rows of texts of similar length, longest first.

    A batch has at most `batch_tokens` tokens, padding included. The last batches have powers of
    two of texts, because every new shape of a batch costs a GPU a new kernel and its memory.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        remaining = len(order) - start
        size = max(1, batch_tokens // longest)
        if size > remaining:
            size = 1 << (remaining.bit_length() - 1)
        yield order[start : start + size]
        start += size


def iter_predictions(
    forward: Callable[[dict[str, torch.Tensor]], Output],
    data: Encoded,
    pad: PaddingCollator,
    device: torch.device,
    batch_tokens: int,
) -> Iterator[tuple[np.ndarray, Output]]:
    """Yield rows of `data` and the output of `forward` for them, longest texts first.

    A batch is halved if memory runs out.

    Args:
        forward: Called with each padded batch on `device`.
        data: Tokenized texts.
        pad: Pads a batch.
        device: Where `forward` computes.
        batch_tokens: Maximum of tokens per batch, padding included.

    Raises:
        MachineError: If a single text does not fit into memory.
    """
    tokens = Encoded(data.tokens)
    pending = list(token_batches(data.lengths, batch_tokens))[::-1]
    while pending:
        rows = pending.pop()
        batch = pad(tokens.take(rows))
        try:
            output = forward({name: to_device(values, device) for name, values in batch.items()})
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise MachineError(
                    "memory ran out on a single text",
                    f"{data.lengths[rows[0]]} tokens on {device}",
                    "lower max_length",
                ) from error
            release_memory()
            middle = len(rows) // 2
            pending += [rows[middle:], rows[:middle]]
        else:
            yield rows, output


def predict_logits(
    model: nn.Module,
    data: Encoded,
    pad: PaddingCollator,
    *,
    batch_tokens: int = BATCH_TOKENS,
    precision: torch.dtype | None = None,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Compute logits (N, C) float32 in evaluation mode, in the order of `data`.

    The logits stay on the model's device until the last batch, so that a GPU does not wait for a
    copy after each batch.

    Args:
        precision: Autocast type; None is fp32.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    order: list[np.ndarray] = []
    parts: list[torch.Tensor] = []
    done = 0

    @torch.inference_mode()
    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        autocast = torch.autocast(device.type, precision, enabled=precision is not None)
        with exact_fp32(), autocast:
            logits: torch.Tensor = model(**with_additive_mask(model, batch))["logits"]
        return logits.float()

    for rows, logits in iter_predictions(forward, data, pad, device, batch_tokens):
        order.append(rows)
        parts.append(logits)
        done += len(rows)
        progress.advance(done)
    model.train(was_training)
    if not parts:
        return np.zeros((0, 0), np.float32)
    result = np.empty((len(data), parts[0].shape[1]), np.float32)
    result[np.concatenate(order)] = torch.cat(parts).cpu().numpy()
    return result
