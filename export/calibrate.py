"""Finds the ranges of activations on real texts, and the layers that suffer from rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from kdedge.export.fake_model import Reader, quantized_layers, range_owners
from torch import nn

from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.runtime.text_encoder import length_batches

BATCH_SIZE = 32
COVERAGES = (1.0, 0.9999, 0.999)
"""Shares of an activation's values that a range may cover."""

Batch = dict[str, torch.Tensor]


def calibrate(
    model: nn.Module,
    reference: nn.Module,
    batches: Sequence[Batch],
    coverages: Sequence[float] = COVERAGES,
) -> float:
    """Set the range of every activation from its values on `batches`.

    Of several coverages the one is chosen whose logits are nearest to the reference.

    Args:
        model: Fake-quantized; changed in place.
        reference: The float model.
        batches: Without padding, whose activations do not belong to the texts.
        coverages: Shares of the values to try.

    Returns:
        The share of the values that the ranges cover.
    """
    owners = range_owners(model)
    target = logits_of(reference, batches)
    values = _observe(model, owners, batches)
    errors = {}
    for coverage in coverages:
        _set_ranges(owners, values, coverage)
        errors[coverage] = _error(model, batches, target)
    best = min(errors, key=lambda coverage: errors[coverage])
    _set_ranges(owners, values, best)
    return best


def _observe(
    model: nn.Module, owners: Mapping[str, Reader], batches: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Return the sorted values that each activation takes in the float model."""
    _enable(model, False)
    observed: dict[str, list[torch.Tensor]] = {}
    for name, owner in owners.items():
        observed[name] = owner.observed = []
    logits_of(model, batches)
    for owner in owners.values():
        owner.observed = None
    _enable(model, True)
    return {name: torch.cat(parts).sort().values for name, parts in observed.items()}


def sensitivity(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """Return, per layer, the RMS change of the logits if only that layer is rounded."""
    layers = dict(quantized_layers(model))
    _enable(model, False)
    target = logits_of(model, batches)
    errors = {}
    for name, layer in layers.items():
        layer.enabled = True
        errors[name] = _error(model, batches, target)
        layer.enabled = False
    _enable(model, True)
    return errors


def logits_of(model: nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
    """Return the logits (N, C) of all batches in evaluation mode."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(**batch)["logits"] for batch in batches])
    finally:
        model.train(training)


def _enable(model: nn.Module, enabled: bool) -> None:
    for _, layer in quantized_layers(model):
        layer.enabled = enabled


@torch.no_grad()
def _set_ranges(
    owners: Mapping[str, Reader], values: Mapping[str, torch.Tensor], coverage: float
) -> None:
    """Cut an equal number of the sorted values off both ends."""
    for name, owner in owners.items():
        last = len(values[name]) - 1
        cut = round((1.0 - coverage) * last)
        owner.range.low.copy_(values[name][cut])
        owner.range.high.copy_(values[name][last - cut])


def _error(model: nn.Module, batches: Sequence[Batch], target: torch.Tensor) -> float:
    return float((logits_of(model, batches) - target).square().mean().sqrt())


def unpadded_batches(pad: PaddingCollator, texts: Encoded) -> list[Batch]:
    """Batch texts of equal length, so that no batch is padded."""
    tokens = Encoded(texts.tokens)
    lengths = texts.lengths.tolist()
    batches = length_batches(lengths, BATCH_SIZE, equal_lengths=True)
    return [pad(tokens.take(chosen)) for chosen in batches]
