"""Finds the ranges of activations on real texts, and which layers suffer from rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from kdedge.export.fake_model import Reader, quantized_layers, range_owners
from torch import nn

KEEPS = (1.0, 0.9999, 0.999)
"""Shares of an activation's values that a range may hold; the best by logits is taken."""

MOMENTUM = 0.9
"""Of moving averages: what one batch leaves of the range so far (Krishnamoorthi 2018, section 3.1.1)."""

Method = Literal["best", "minmax", "percentile", "moving_average"]
KEEPS_OF: dict[str, tuple[float, ...]] = {"best": KEEPS, "minmax": (1.0,), "percentile": (0.9999,)}

Batch = dict[str, torch.Tensor]


def calibrate(
    model: nn.Module, reference: nn.Module, batches: Sequence[Batch], method: Method = "best"
) -> float:
    """Set every activation's range from what `batches` make it hold; returns the share of values they cover.

    best: of several shares the one with which the logits stay nearest to those of `reference`. minmax: all values.
    percentile: 99.99 % of them. moving_average: of the lowest and highest value of each batch.
    Batches must hold no padding: its activations are not the text's.
    """
    products = range_owners(model)
    with torch.inference_mode():
        wanted = logits_of(reference, batches)
        _enable(model, False)
        for product in products.values():
            product.seen = []
        logits_of(model, batches)
        by_batch = {name: product.seen or [] for name, product in products.items()}
        for product in products.values():
            product.seen = None
        _enable(model, True)
    if method == "moving_average":
        return _follow(products, by_batch)
    seen = {name: torch.cat(values).sort().values for name, values in by_batch.items()}
    errors = {}
    for keep in KEEPS_OF[method]:
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


def _follow(products: dict[str, Reader], by_batch: dict[str, list[torch.Tensor]]) -> float:
    shares = []
    for name, product in products.items():
        low, high = moving_average(by_batch[name])
        shares += [
            float(((values >= low) & (values <= high)).float().mean()) for values in by_batch[name]
        ]
        with torch.no_grad():
            product.range.low.fill_(low)
            product.range.high.fill_(high)
    return sum(shares) / len(shares)


def moving_average(batches: Sequence[torch.Tensor]) -> tuple[float, float]:
    """Lowest and highest value, each followed from batch to batch."""
    low, high = float(batches[0].min()), float(batches[0].max())
    for values in batches[1:]:
        low, high = (
            MOMENTUM * end + (1 - MOMENTUM) * float(now)
            for end, now in ((low, values.min()), (high, values.max()))
        )
    return low, high


def _error(model: nn.Module, batches: Sequence[Batch], wanted: torch.Tensor) -> float:
    return float((logits_of(model, batches) - wanted).square().mean().sqrt())


def unpadded_batches(
    pad: Callable[[list[dict[str, list[int]]]], Batch],
    tokens: Mapping[str, Sequence[list[int]]],
    most: int = 32,
) -> list[Batch]:
    """Texts of equal length together, at most `most` at once, so that no batch is padded."""
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(tokens["input_ids"]):
        by_length.setdefault(len(ids), []).append(i)
    groups = [
        group[start : start + most]
        for _, group in sorted(by_length.items())
        for start in range(0, len(group), most)
    ]
    return [
        pad([{name: values[i] for name, values in tokens.items()} for i in group])
        for group in groups
    ]
