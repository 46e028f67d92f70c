"""Give a model on a GPU its attention mask in a form that it need not test.

For a mask (B, T) of ones and zeros, transformers tests in every forward pass whether it has a zero,
and on a GPU this test waits for all earlier work. It uses a mask (B, 1, 1, T) of numbers, which are
added to the scores, as it is. A decoder needs no mask if padding comes last: a token attends only
to those before it. If padding comes first, it gets a mask (B, 1, T, T).
"""

from __future__ import annotations

from typing import Any

import torch

ENCODERS = ("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Types of models that accept such a mask: each token attends to all others."""

DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Types of models whose tokens attend only to those before them, also if they classify."""


def with_additive_mask(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Prepare the inputs of a model, so that a GPU need not test the attention mask.

    On a GPU an encoder gets an additive mask, and a decoder gets none. Without a GPU, and for a
    module without a configuration (a wrapper around a model), the inputs stay as they are.
    """
    mask = batch.get("attention_mask")
    if mask is None or not _on_gpu(mask) or not hasattr(model, "config"):
        return batch
    if model.config.model_type in ENCODERS:
        return {**batch, "attention_mask": additive_mask(mask, model.dtype)}
    if model.config.model_type in DECODERS:
        return {name: values for name, values in batch.items() if name != "attention_mask"}
    return batch


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a mask (B, T) of ones and zeros into 0 and a very low number: (B, 1, 1, T).

    Args:
        dtype: The type of the model's weights. Attention on a GPU accepts no other.
    """
    return (1.0 - mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


def causal_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Turn a mask (B, T) of a decoder into 0 and a very low number: (B, 1, T, T).

    A token attends to itself and to the real tokens before it. Without itself, padding at the
    beginning would attend to nothing, and a softmax over nothing is not a number.
    """
    steps = torch.arange(mask.shape[1], device=mask.device)
    before = steps[:, None] > steps  # (T, T)
    attends = mask[:, None, :].bool() & before | (steps[:, None] == steps)  # (B, T, T)
    return (~attends)[:, None].to(dtype) * torch.finfo(dtype).min


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cuda"
