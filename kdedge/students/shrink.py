"""Cut a student out of its teacher: fewer layers, a narrower hidden space, its strongest heads.

Hidden states are projected onto their principal directions on the task's texts. The heads and FFN
units on which the predictions depend most are kept. Then layers and head are fitted in closed
form to the teacher's states and logits. At the teacher's own shape the student computes the same
logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.data.task import Task
from kdedge.nn.text_model import TextClassifier
from kdedge.students.activation_stats import ActivationStats, collect_stats, split_heads
from kdedge.students.low_rank_head import fit_low_rank_head
from kdedge.students.refit import refit_head, refit_layers
from kdedge.students.training_batches import TrainingBatches

Linear = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias."""


@dataclass(frozen=True)
class HiddenSpace:
    """The h-dimensional subspace of the teacher's H dimensions that the student keeps.

    Attributes:
        mean: Mean of the teacher's hidden states. *Shape:* (H,)
        directions: Orthonormal basis of the subspace, in columns. *Shape:* (H, h)
    """

    mean: torch.Tensor
    directions: torch.Tensor

    def project_input(self, weight: torch.Tensor, bias: torch.Tensor) -> Linear:
        """Narrow the input of a layer (O, H); removed directions are replaced by their mean."""
        removed = self.mean - self.directions @ (self.directions.T @ self.mean)
        return weight @ self.directions, bias + weight @ removed

    def project_output(self, weight: torch.Tensor, bias: torch.Tensor) -> Linear:
        """Narrow the output of a layer (H, I)."""
        return self.directions.T @ weight, self.directions.T @ bias


def shrink(
    student: BertForSequenceClassification,
    teacher: TextClassifier,
    task: Task,
    layers: list[int],
    seed: int,
) -> None:
    """Set the weights of `student` in place, cut out of a BERT teacher.

    Args:
        student: A BERT that is not larger than the teacher in any dimension.
        teacher: The fine-tuned teacher.
        task: Its training split decides what is kept.
        layers: Teacher layer (1-based) of each student layer.
        seed: Seed for the choice of texts if there are many.
    """
    teacher.model.eval()
    texts = TrainingBatches(teacher, task, seed)
    stats = collect_stats(teacher.model, texts.with_labels(), task.spec.kind)
    space = fill_from_teacher(student, teacher.model, stats, layers)
    refit_layers(student, teacher.model, texts.for_layers(), space.directions, layers)
    refit_head(student, teacher.model, texts.inputs())


@torch.no_grad()
def fill_from_teacher(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    stats: ActivationStats,
    layers: list[int],
) -> HiddenSpace:
    """Set the weights of `student` from teacher layers (1-based); return its hidden space."""
    mean, directions = stats.principal_directions(student.config.hidden_size)
    space = HiddenSpace(mean, directions)
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        table = getattr(teacher.bert.embeddings, name).weight.double()
        getattr(student.bert.embeddings, name).weight.copy_(table @ space.directions)
    for layer, number in zip(student.bert.encoder.layer, layers, strict=True):
        source = teacher.bert.encoder.layer[number - 1]
        _fill_attention(layer.attention, source.attention, stats, number - 1, space)
        _fill_ffn(layer, source, stats, number - 1, space)
    _fill_classifier(student, teacher, stats, space)
    return space


def strongest(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices of the `count` largest numbers, in ascending order."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _fill_attention(
    target: Any, source: Any, stats: ActivationStats, layer: int, space: HiddenSpace
) -> None:
    heads = source.self.num_attention_heads
    kept = strongest(stats.heads[layer], target.self.num_attention_heads)
    weight, bias = _double(source.output.dense)
    removed = split_heads(stats.context[layer], heads, 0).index_fill(0, kept, 0).flatten()
    bias = bias + weight @ removed / stats.tokens
    output, bias = space.project_output(weight, bias)
    output_by_head = split_heads(output, heads, 1)  # (h, A, D)
    narrow_heads = []
    for head in kept.tolist():
        moments = stats.moments[layer, :, head]
        width = target.self.attention_head_size
        narrow_heads.append(fit_low_rank_head(moments, output_by_head[:, head], width))
    for name in ("query", "key", "value"):
        linear_weight, linear_bias = _double(getattr(source.self, name))
        weight_by_head = split_heads(linear_weight, heads, 0)  # (A, D, H)
        bias_by_head = split_heads(linear_bias, heads, 0)  # (A, D)
        weights, biases = [], []
        for head, narrow in zip(kept.tolist(), narrow_heads, strict=True):
            basis = getattr(narrow, name)  # (d, D)
            w, b = space.project_input(basis @ weight_by_head[head], basis @ bias_by_head[head])
            weights.append(w)
            biases.append(b)
        _fill(getattr(target.self, name), torch.cat(weights), torch.cat(biases))
    _fill(target.output.dense, torch.cat([narrow.output for narrow in narrow_heads], dim=1), bias)


def _fill_ffn(
    target: Any, source: Any, stats: ActivationStats, layer: int, space: HiddenSpace
) -> None:
    kept = strongest(stats.units[layer], target.intermediate.dense.out_features)
    weight, bias = _double(source.intermediate.dense)
    _fill(target.intermediate.dense, *space.project_input(weight[kept], bias[kept]))
    weight, bias = _double(source.output.dense)
    bias = bias + weight @ stats.active[layer].index_fill(0, kept, 0) / stats.tokens
    _fill(target.output.dense, *space.project_output(weight[:, kept], bias))


def _fill_classifier(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    stats: ActivationStats,
    space: HiddenSpace,
) -> None:
    kept = strongest(stats.pooled, student.config.hidden_size)
    weight, bias = _double(teacher.bert.pooler.dense)
    _fill(student.bert.pooler.dense, *space.project_input(weight[kept], bias[kept]))
    weight, bias = _double(teacher.classifier)
    _fill(student.classifier, weight[:, kept], bias)


def _double(linear: nn.Linear) -> Linear:
    return linear.weight.double(), linear.bias.double()


def _fill(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
