"""Give a model its attention mask in the form that no device has to be asked about.

transformers looks whether a mask (B, T) is all ones, to leave it out. On a GPU this look waits for
all work that came before, in every forward pass. A mask (B, 1, 1, T) of numbers that are added to
the scores is used as it is. A decoder needs no mask: padding comes last, and a token sees only
those before it.
"""

from __future__ import annotations

from typing import Any

import torch

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Types of models whose tokens all see each other and that take such a mask."""


DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Types of models whose tokens see only those before them, also if they classify."""


def with_added_mask(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs of a model, on a GPU with the mask of an encoder to be added.

    A decoder gets no mask. A module without a configuration, which contains a model, gets the
    inputs as they are.
    """
    mask = batch.get("attention_mask")
    if mask is None or not _on_gpu(mask) or not hasattr(model, "config"):
        return batch
    if model.config.model_type in ENCODERS:
        return {**batch, "attention_mask": added_mask(mask, model.dtype)}
    if model.config.model_type in DECODERS:
        return {name: values for name, values in batch.items() if name != "attention_mask"}
    return batch


def added_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a mask (B, T) of ones and zeros into 0 and a very low number: (B, 1, 1, T).

    Args:
        dtype: The type of the model's weights. Attention on a GPU accepts no other.
    """
    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"
