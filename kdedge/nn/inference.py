"""Run a model over many texts, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from kdedge.errors import MachineError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.run.progress import SILENT, Progress

Output = TypeVar("Output")


def token_batches(lengths: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Indices of texts of like length, longest first, at most `batch_tokens` tokens a batch with padding counted.

    What is left at the end comes in powers of two: every new shape of a batch costs a kernel of its own, and the memory to keep it.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size, rest = max(1, batch_tokens // max(1, int(lengths[order[start]]))), len(order) - start
        size = size if size <= rest else 1 << (rest.bit_length() - 1)
        yield order[start : start + size]
        start += size


def iter_predictions(
    ask: Callable[[dict[str, torch.Tensor]], Output],
    data: Encoded,
    pad: PaddingCollator,
    device: torch.device,
    batch_tokens: int,
) -> Iterator[tuple[np.ndarray, Output]]:
    """Rows of `data` and what `ask` says of their padded batch on `device`, longest texts first, until every row was asked about.

    A batch is halved when memory runs out; MachineError when one text alone does not fit.
    """
    pending = list(token_batches(data.lengths, batch_tokens))[::-1]
    while pending:
        rows = pending.pop()
        batch = pad([{name: values[i] for name, values in data.tokens.items()} for i in rows])
        try:
            answer = ask({name: values.to(device) for name, values in batch.items()})
        except RuntimeError as error:
            if not _no_memory(error):
                raise
            if len(rows) == 1:
                raise MachineError(
                    "memory ran out on a single text",
                    f"{data.lengths[rows[0]]} tokens on {device}",
                    "lower max_length",
                ) from error
            torch.cuda.empty_cache()
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
        else:
            yield rows, answer


def _no_memory(error: RuntimeError) -> bool:
    """A device has a kind of error of its own for it; a CPU tells it in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def predict_logits(
    model: nn.Module,
    data: Encoded,
    pad: PaddingCollator,
    *,
    batch_tokens: int = 4096,
    precision: torch.dtype | None = None,
    progress: Progress = SILENT,
) -> np.ndarray:
    """Logits (N, C) float32 of `model` in evaluation mode, in the order of `data`; halves a batch as `batch_answers` does."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    answers: np.ndarray | None = None
    done = 0

    def ask(batch: dict[str, torch.Tensor]) -> np.ndarray:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, precision, enabled=precision is not None),
        ):
            return model(**batch)["logits"].float().cpu().numpy()  # type: ignore[no-any-return]

    for rows, logits in iter_predictions(ask, data, pad, device, batch_tokens):
        if answers is None:
            answers = np.empty((len(data), logits.shape[1]), np.float32)
        answers[rows] = logits
        done += len(rows)
        progress.advance(done)
    model.train(was_training)
    return np.zeros((0, 0), np.float32) if answers is None else answers
