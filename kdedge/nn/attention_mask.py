"""Give an encoder on a GPU its attention mask as numbers that are added to the scores.

For a mask (B, T) of ones and zeros, transformers tests in every forward pass whether it has a zero,
and on a GPU this test waits for all earlier work. It uses a mask (B, 1, 1, T) of numbers as it is.
"""

from __future__ import annotations

from typing import Any

import torch

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Types of models that accept such a mask: each token attends to all others."""


def with_additive_mask(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs of a model; for an encoder on a GPU with an additive mask."""
    mask = batch.get("attention_mask")
    if mask is None or not _on_gpu(mask) or model.config.model_type not in ENCODERS:
        return batch
    return {**batch, "attention_mask": additive_mask(mask)}


def additive_mask(mask: torch.Tensor) -> torch.Tensor:
    """Turn a mask (B, T) of ones and zeros into 0 and a very low number: (B, 1, 1, T)."""
    lowest = torch.finfo(torch.float32).min
    return (1.0 - mask[:, None, None, :].float()) * lowest


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"
