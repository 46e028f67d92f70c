"""A student cut out of its teacher: fewer layers, a narrower hidden space, its strongest heads and FFN units.

Hidden states keep their principal directions on the task's texts, heads and units those that the answers hang on most.
Then the norms and the head are fitted, in closed form, to what the teacher says there. At the teacher's own shape nothing
is lost: the student answers as the teacher does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel

from kdedge.data.task import Task
from kdedge.nn.text_model import TextClassifier
from kdedge.students.activation_stats import ActivationStats, Batch, by_head, collect_stats
from kdedge.students.low_rank_head import fit_low_rank_head
from kdedge.students.refit import refit_head, refit_norms

TEXTS = 1024
"""Training texts, at most, on which the teacher is watched."""

NORM_TEXTS = 256
BATCH = 32


@dataclass(frozen=True)
class Space:
    """The student's hidden space in the teacher's: mean (H,) of its states, directions (H, h), orthonormal columns."""

    mean: torch.Tensor
    directions: torch.Tensor

    def reading(
        self, weight: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A linear layer (O, H) that reads hidden states, for states of the narrow space; what is left out stays at its mean."""
        lost = self.mean - self.directions @ (self.directions.T @ self.mean)
        return weight @ self.directions, bias + weight @ lost

    def writing(
        self, weight: torch.Tensor, bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A linear layer (H, I) that writes into hidden states, for the narrow space."""
        return self.directions.T @ weight, self.directions.T @ bias


def shrink(
    student: BertForSequenceClassification,
    teacher: TextClassifier,
    task: Task,
    layers: list[int],
    seed: int,
) -> None:
    """Fill `student` in place from a BERT teacher; layers: one of the teacher's numbers (1-based) for each of the student's."""
    teacher.model.eval()
    chosen = np.sort(np.random.default_rng(seed).permutation(len(task.train))[:TEXTS])
    batches = [
        _batch(teacher, task, chosen[start : start + BATCH])
        for start in range(0, len(chosen), BATCH)
    ]
    space = cut(
        student, teacher.model, collect_stats(teacher.model, batches, task.spec.kind), layers
    )
    norms = _without_labels(
        _batch(teacher, task, chosen[:: max(1, len(chosen) // NORM_TEXTS)][:NORM_TEXTS])
    )
    refit_norms(student, teacher.model, norms, space.directions, layers)
    refit_head(student, teacher.model, [_without_labels(batch) for batch in batches])


def _batch(teacher: TextClassifier, task: Task, rows: np.ndarray) -> Batch:
    part = task.train.take(rows)
    data = teacher.encode(part.texts, part.pairs, labels=part.labels)
    batch = teacher.pad([data[i] for i in range(len(data))])
    return {name: values.to(teacher.model.device) for name, values in batch.items()}


def _without_labels(batch: Batch) -> Batch:
    return {name: values for name, values in batch.items() if name != "labels"}


@torch.no_grad()
def cut(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    evidence: ActivationStats,
    layers: list[int],
) -> Space:
    """Fill `student` in place from the teacher's layers of these numbers (1-based); returns the space it lives in."""
    space = Space(*evidence.directions(student.config.hidden_size))
    mine, theirs = student.bert.embeddings, teacher.bert.embeddings
    for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        getattr(mine, name).weight.copy_(getattr(theirs, name).weight.double() @ space.directions)
    for layer, number in zip(student.bert.encoder.layer, layers, strict=True):
        _cut_attention(
            layer.attention,
            teacher.bert.encoder.layer[number - 1].attention,
            evidence,
            number - 1,
            space,
        )
        _cut_units(layer, teacher.bert.encoder.layer[number - 1], evidence, number - 1, space)
    _cut_head(student, teacher, evidence, space)
    return space


def strongest(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Places of the `count` largest numbers, in their own order."""
    return importance.argsort(descending=True, stable=True)[:count].sort().values


def _cut_attention(
    mine: Any, theirs: Any, evidence: ActivationStats, layer: int, space: Space
) -> None:
    heads = theirs.self.num_attention_heads
    kept = strongest(evidence.heads[layer], mine.self.num_attention_heads)
    weights = {
        name: [by_head(part, heads, 0) for part in _double(getattr(theirs.self, name))]
        for name in ("query", "key", "value")
    }
    weight, bias = _double(theirs.output.dense)
    dropped = by_head(evidence.context[layer], heads, 0).index_fill(0, kept, 0).flatten()
    bias = bias + weight @ dropped / evidence.tokens
    out, bias = space.writing(weight, bias)
    rows: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in weights}
    columns = []
    for head in kept.tolist():
        narrow = fit_low_rank_head(
            evidence.moments[layer, :, head],
            by_head(out, heads, 1)[:, head],
            mine.self.attention_head_size,
        )
        for name, basis in zip(weights, (narrow.query, narrow.key, narrow.value), strict=True):
            w, b = (part[head] for part in weights[name])
            rows[name].append(space.reading(basis @ w, basis @ b))
        columns.append(narrow.output)
    for name, parts in rows.items():
        _fill(
            getattr(mine.self, name),
            torch.cat([w for w, _ in parts]),
            torch.cat([b for _, b in parts]),
        )
    _fill(mine.output.dense, torch.cat(columns, dim=1), bias)


def _cut_units(mine: Any, theirs: Any, evidence: ActivationStats, layer: int, space: Space) -> None:
    kept = strongest(evidence.units[layer], mine.intermediate.dense.out_features)
    weight, bias = _double(theirs.intermediate.dense)
    _fill(mine.intermediate.dense, *space.reading(weight[kept], bias[kept]))
    weight, bias = _double(theirs.output.dense)
    bias = bias + weight @ evidence.active[layer].index_fill(0, kept, 0) / evidence.tokens
    _fill(mine.output.dense, *space.writing(weight[:, kept], bias))


def _cut_head(
    student: BertForSequenceClassification,
    teacher: PreTrainedModel,
    evidence: ActivationStats,
    space: Space,
) -> None:
    kept = strongest(evidence.pooled, student.config.hidden_size)
    weight, bias = _double(teacher.bert.pooler.dense)
    _fill(student.bert.pooler.dense, *space.reading(weight[kept], bias[kept]))
    weight, bias = _double(teacher.classifier)
    _fill(student.classifier, weight[:, kept], bias)


def _double(linear: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    return linear.weight.double(), linear.bias.double()


def _fill(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
