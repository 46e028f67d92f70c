"""Finds the ranges of activations on real texts, and which layers suffer from rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from .fakemodel import Reader, quantized_layers, range_owners

KEEPS = (1.0, 0.9999, 0.999)
"""Shares of an activation's values that a range may hold; the best by logits is taken."""

Batch = dict[str, torch.Tensor]


def calibrate(model: nn.Module, reference: nn.Module, batches: Sequence[Batch]) -> float:
    """Set every activation's range from what `batches` make it hold; returns the share of values they cover.

    Of several shares the one is taken with which the logits stay nearest to those of `reference`.
    Batches must hold no padding: its activations are not the text's.
    """
    products = range_owners(model)
    with torch.inference_mode():
        wanted = logits_of(reference, batches)
        _enable(model, False)
        for product in products.values():
            product.seen = []
        logits_of(model, batches)
        seen = {name: torch.cat(product.seen or []).sort().values for name, product in products.items()}
        for product in products.values():
            product.seen = None
        _enable(model, True)
    errors = {}
    for keep in KEEPS:
        _set_ranges(products, seen, keep)
        errors[keep] = _error(model, batches, wanted)
    best = min(errors, key=lambda keep: errors[keep])
    _set_ranges(products, seen, best)
    return best


def sensitivity(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Layer -> root mean squared change of the logits when that layer alone is rounded."""
    layers = dict(quantized_layers(model))
    states = {name: layer.enabled for name, layer in layers.items()}
    _enable(model, False)
    wanted = logits_of(model, batches)
    found = {}
    for name, layer in layers.items():
        layer.enabled = True
        found[name] = _error(model, batches, wanted)
        layer.enabled = False
    for name, layer in layers.items():
        layer.enabled = states[name]
    return found


def logits_of(model: nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
    """Logits (N, C) in evaluation mode, batch after batch."""
    with torch.inference_mode(), evaluating(model):
        return torch.cat([model(**batch)["logits"] for batch in batches])


class evaluating:
    """A model in evaluation mode for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.before = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.before)


def _enable(model: nn.Module, enabled: bool) -> None:
    for _, layer in quantized_layers(model):
        layer.enabled = enabled


def _set_ranges(products: dict[str, Reader], seen: dict[str, torch.Tensor], keep: float) -> None:
    with torch.no_grad():
        for name, product in products.items():
            values = seen[name]
            cut = round((1.0 - keep) * (len(values) - 1))
            product.range.low.copy_(values[cut])
            product.range.high.copy_(values[len(values) - 1 - cut])


def _error(model: nn.Module, batches: Sequence[Batch], wanted: torch.Tensor) -> float:
    return float((logits_of(model, batches) - wanted).square().mean().sqrt())


def unpadded_batches(pad: Callable[[list[dict[str, list[int]]]], Batch], tokens: dict[str, list[list[int]]], most: int = 32) -> list[Batch]:
    """Texts of equal length together, at most `most` at once, so that no batch is padded."""
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(tokens["input_ids"]):
        by_length.setdefault(len(ids), []).append(i)
    groups = [group[start : start + most] for _, group in sorted(by_length.items()) for start in range(0, len(group), most)]
    return [pad([{name: values[i] for name, values in tokens.items()} for i in group]) for group in groups]
