"""Measure which batch size, in tokens, is the fastest for a model."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from kdedge.errors import MachineError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.inference import BATCH_TOKENS, predict_logits
from kdedge.nn.memory import is_out_of_memory, release_memory

LARGEST = 1 << 19
"""Most tokens of a batch."""

SMALLEST_GAIN = 1.05
"""The search ends if twice the size is not faster per token by this factor."""

TRIAL_BATCHES = 4
"""Batches of one size that are timed."""


def fastest_batch_tokens(rate: Callable[[int], float | None]) -> int:
    """Double the tokens per batch as long as the rate grows by `SMALLEST_GAIN`.

    Args:
        rate: Tokens per batch -> tokens per second; None if memory runs out.
    """
    best = BATCH_TOKENS
    best_rate = rate(best)
    while best_rate is not None and 2 * best <= LARGEST:
        next_rate = rate(2 * best)
        if next_rate is None or next_rate < SMALLEST_GAIN * best_rate:
            break
        best, best_rate = 2 * best, next_rate
    return best


def measure_batch_tokens(
    model: nn.Module, data: Encoded, pad: PaddingCollator, precision: torch.dtype | None
) -> int:
    """Return the tokens per batch with which `model` reads texts like `data` fastest.

    On a CPU that is `BATCH_TOKENS`, without a trial: larger batches do not fit into its caches.
    """
    if next(model.parameters()).device.type == "cpu":
        return BATCH_TOKENS

    def rate(batch_tokens: int) -> float | None:
        """Return the tokens per second of a trial; None if memory runs out."""
        # The texts are repeated, so that there are enough of them for several whole batches.
        tokens = max(1, int(data.lengths.sum()))
        repeats = -(-TRIAL_BATCHES * batch_tokens // tokens)
        trial = Encoded(data.tokens).take(np.tile(np.arange(len(data)), repeats))
        try:
            predict_logits(model, trial, pad, batch_tokens=batch_tokens, precision=precision)
            start = time.perf_counter()
            predict_logits(model, trial, pad, batch_tokens=batch_tokens, precision=precision)
        except (MachineError, RuntimeError, MemoryError) as error:
            if not isinstance(error, MachineError) and not is_out_of_memory(error):
                raise
            release_memory()
            return None
        return float(trial.lengths.sum()) / (time.perf_counter() - start)

    return fastest_batch_tokens(rate)
