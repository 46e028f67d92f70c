"""Activation statistics of a BERT teacher on the task's texts, to build a shrunk student.

They show where the hidden states vary, and which heads and units the predictions depend on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from kdedge.nn.losses import label_loss
from kdedge.nn.signals import Signals, read_signals
from kdedge.runtime.spec import Kind

Batch = dict[str, torch.Tensor]

Call = tuple[tuple[torch.Tensor, ...], torch.Tensor]
"""Inputs and output of one call of a module."""


@dataclass
class ActivationStats:
    """Sums of activations and their importance over texts and real tokens.

    The teacher has L layers, A heads of D numbers, hidden states of H and FFNs of F units.
    Importance is |activation x gradient of the loss|: to first order, the cost of removing the part
    (Michel et al. 2019, eq. 2; Molchanov et al. 2019). It is summed over the tokens of a text
    before the absolute value, and over texts after it.
    """

    heads: torch.Tensor
    """Importance of each head. *Shape:* (L, A)"""
    units: torch.Tensor
    """Importance of each FFN unit. *Shape:* (L, F)"""
    pooled: torch.Tensor
    """Importance of each number of the pooled output. *Shape:* (H,)"""
    states: torch.Tensor
    """Hidden states of all layers. *Shape:* (H,)"""
    products: torch.Tensor
    """Outer products of the hidden states. *Shape:* (H, H)"""
    moments: torch.Tensor
    """Outer products of queries, keys and values. *Shape:* (L, 3, A, D, D)"""
    context: torch.Tensor
    """Inputs of the attention's output layers; they replace removed heads. *Shape:* (L, A·D)"""
    active: torch.Tensor
    """Inputs of the FFN's output layers; they replace removed units. *Shape:* (L, F)"""
    tokens: int
    """Number of real tokens."""

    @classmethod
    def empty(cls, teacher: PreTrainedModel) -> ActivationStats:
        config = teacher.config
        layers, heads = config.num_hidden_layers, config.num_attention_heads
        width, units = config.hidden_size, config.intermediate_size
        head_width = width // heads
        shapes = {
            "heads": (layers, heads),
            "units": (layers, units),
            "pooled": (width,),
            "states": (width,),
            "products": (width, width),
            "moments": (layers, 3, heads, head_width, head_width),
            "context": (layers, width),
            "active": (layers, units),
        }
        zeros = {}
        for name, shape in shapes.items():
            zeros[name] = torch.zeros(shape, dtype=torch.float64, device=teacher.device)
        return cls(tokens=0, **zeros)

    def principal_directions(self, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean (H,) and `width` principal directions (H, width) of the hidden states.

        At full width the directions are the coordinate axes.
        """
        count = self.tokens * (len(self.heads) + 1)
        mean = self.states / count
        if width == len(mean):
            return mean, torch.eye(width, dtype=mean.dtype, device=mean.device)
        ascending: torch.Tensor = torch.linalg.eigh(self.products / count - mean.outer(mean))[1]
        return mean, ascending.flip(1)[:, :width]


def split_heads(values: torch.Tensor, heads: int, axis: int) -> torch.Tensor:
    """Split an axis of A·D numbers into two axes (A, D)."""
    return values.reshape(*values.shape[:axis], heads, -1, *values.shape[axis + 1 :])


def collect_stats(
    teacher: PreTrainedModel, batches: Sequence[Batch], kind: Kind
) -> ActivationStats:
    """Run the teacher on batches of inputs and labels, and sum up its activations."""
    stats = ActivationStats.empty(teacher)
    for batch in batches:
        inputs = {name: values for name, values in batch.items() if name != "labels"}
        with recorded_calls(_readers(teacher)) as calls:
            signals = read_signals(teacher, inputs, layers=True)
        activations = [given[0] for given, _ in calls]
        mean_loss = label_loss(signals.logits, batch["labels"], kind)
        gradients = torch.autograd.grad(mean_loss * len(batch["labels"]), activations)
        with torch.no_grad():
            _add_importance(stats, activations, gradients)
            _add_moments(stats, activations, signals, batch["attention_mask"].bool())
    return stats


def _readers(teacher: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that read each layer's attention context and FFN units, and the head."""
    modules: list[nn.Module] = []
    for layer in teacher.bert.encoder.layer:
        modules += [layer.attention.output.dense, layer.output.dense]
    return [*modules, teacher.classifier]


@contextmanager
def recorded_calls(modules: Sequence[nn.Module]) -> Iterator[list[Call]]:
    """Record inputs and output of each call of some modules, in the order of the calls."""
    calls: list[Call] = []

    def record(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls.append((inputs, output))

    hooks = [module.register_forward_hook(record) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _add_importance(
    stats: ActivationStats, activations: list[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> None:
    costs = []
    for activation, gradient in zip(activations, gradients, strict=True):
        costs.append((activation * gradient).double())
    heads = stats.heads.shape[1]
    for layer in range(len(stats.heads)):
        context, active = costs[2 * layer], costs[2 * layer + 1]  # (B, T, A·D), (B, T, F)
        stats.heads[layer] += split_heads(context, heads, 2).sum((1, 3)).abs().sum(0)
        stats.units[layer] += active.sum(1).abs().sum(0)
    stats.pooled += costs[-1].abs().sum(0)


def _add_moments(
    stats: ActivationStats, activations: list[torch.Tensor], signals: Signals, real: torch.Tensor
) -> None:
    """Add one batch to the sums; `real` (B, T) marks its N tokens that are not padding."""
    stats.tokens += int(real.sum())
    for hidden in signals.hidden:
        states = hidden[real].double()  # (N, H)
        stats.states += states.sum(0)
        stats.products += states.T @ states
    for layer, vectors in enumerate(signals.vectors):
        for i, vector in enumerate(vectors):
            rows = vector.transpose(1, 2)[real].transpose(0, 1).double()  # (A, N, D)
            stats.moments[layer, i] += rows.transpose(1, 2) @ rows
        stats.context[layer] += activations[2 * layer][real].double().sum(0)
        stats.active[layer] += activations[2 * layer + 1][real].double().sum(0)
