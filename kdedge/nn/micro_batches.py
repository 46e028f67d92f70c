"""Micro-batches: parts of a batch, one after the other, if the batch does not fit into memory.

Every part of a loss is a mean over the batch: over its texts, its labelled texts, its tokens or
its pairs of tokens. The mean over the batch is the sum over the micro-batches of

    (count in the micro-batch / count in the batch) · (mean over the micro-batch),

so the gradients of the micro-batches, each multiplied by this share, add up to the gradient of the
batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

Share = float | torch.Tensor
"""A number, or a scalar on the device of the batch: a look at it would make a GPU wait."""


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch's shares of the batch: of everything that a loss can be a mean over.

    Attributes:
        texts: Share of the texts.
        labelled: Share of the texts that have a label.
        tokens: Share of the real tokens.
        targets: Share of the real tokens without the first one of each text: a language model
            predicts them.
        token_pairs: Share of the pairs of real tokens of one text.
        is_last: Whether no micro-batch of the batch follows.
    """

    texts: Share = 1.0
    labelled: Share = 1.0
    tokens: Share = 1.0
    targets: Share = 1.0
    token_pairs: Share = 1.0
    is_last: bool = True


WHOLE_BATCH = MicroBatch()
"""A batch in one micro-batch."""

Batch = Mapping[str, Any]
"""Name -> tensor of B rows."""


def micro_batches(batch: Batch, size: int) -> Iterator[tuple[dict[str, Any], MicroBatch]]:
    """Yield micro-batches of at most `size` texts, each with its share of the batch.

    Args:
        batch: Has `attention_mask` (B, T) and perhaps `labels`: classes (B,), -1 for none; or
            zeros and ones (B, C) or scores (B,), NaN for none.
        size: Number of texts.
    """
    counts = _counts(batch)  # name -> (B,)
    rows = len(batch["attention_mask"])
    for start in range(0, rows, size):
        chosen = slice(start, start + size)
        shares: dict[str, Share] = {}
        for name, count in counts.items():
            total = count.sum().clamp(min=1)  # Without any, the share is 0.
            shares[name] = (count[chosen].sum() / total).float()
        micro_batch = MicroBatch(**shares, is_last=start + size >= rows)
        yield {name: values[chosen] for name, values in batch.items()}, micro_batch


def _counts(batch: Batch) -> dict[str, torch.Tensor]:
    """Return, for each text, the count of everything that a loss is a mean over."""
    mask = batch["attention_mask"].double()
    tokens = mask.sum(1)
    texts = torch.ones_like(tokens)
    return {
        "texts": texts,
        "labelled": _has_label(batch["labels"]).double() if "labels" in batch else texts,
        "tokens": tokens,
        "targets": mask[:, 1:].sum(1),
        "token_pairs": tokens.square(),
    }


def _has_label(labels: torch.Tensor) -> torch.Tensor:
    """Return which texts have a label. *Shape:* (B,)"""
    if labels.is_floating_point():
        return ~labels.reshape(len(labels), -1).isnan().any(1)
    return labels >= 0
