"""Give an encoder its attention mask in the form that no device has to be asked about.

transformers looks whether a mask (B, T) is all ones, to leave it out. On a GPU this look waits for
all work that came before, in every forward pass. A mask (B, 1, 1, T) of numbers that are added to
the scores is used as it is.
"""

from __future__ import annotations

from typing import Any

import torch

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Types of models whose tokens all see each other and that take such a mask."""


def with_added_mask(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs of a model, on a GPU with the mask of an encoder to be added."""
    mask = batch.get("attention_mask")
    if mask is None or not _on_gpu(mask) or model.config.model_type not in ENCODERS:
        return batch
    return {**batch, "attention_mask": added_mask(mask)}


def added_mask(mask: torch.Tensor) -> torch.Tensor:
    """Turn a mask (B, T) of ones and zeros into 0 and a very low number: (B, 1, 1, T)."""
    lowest = torch.finfo(torch.float32).min
    return (1.0 - mask[:, None, None, :].float()) * lowest


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"
