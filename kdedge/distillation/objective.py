"""The training objective of a student: a weighted sum of losses against its teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from kdedge.distillation.layer_sizes import LayerSizes, layer_sizes
from kdedge.errors import UsageError
from kdedge.nn import losses
from kdedge.nn.layer_map import LayerMap
from kdedge.nn.losses import logit_loss
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch, Share
from kdedge.nn.mpnet_attention import Vectors
from kdedge.nn.signals import ATTENTION_TYPES, LayerSelection, Signals
from kdedge.recipe import ObjectiveConfig
from kdedge.runtime.spec import Kind

LayerLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HIDDEN_LOSSES: dict[str, LayerLoss] = {
    "mse": losses.hidden_mse,
    "cosine": losses.hidden_cosine,
    "pkd": losses.hidden_pkd,
    "cka": losses.hidden_cka,
}
HEAD_LOSSES: dict[str, LayerLoss] = {
    "scores": losses.attention_mse,
    "probabilities": losses.attention_probability_mse,
    "kl": losses.attention_kl,
}
"""Attention losses that compare head by head."""

RELATIONS = {"value_relation": ((2, 2),), "qk_relation": ((0, 1),), "minilm": ((0, 1), (2, 2))}
"""Attention losses for any numbers of heads: which two of queries, keys and values are related."""


class Objective(nn.Module):
    """The weighted sum of all terms of an `ObjectiveConfig`.

    It owns the projections from student width to teacher width. They are trained with the student
    and are not exported.

    Args:
        student: The student's transformers configuration; used only if layers are matched.
        teacher: The teacher's configuration, likewise.

    Raises:
        UsageError: If the terms do not fit the task or the two models.
    """

    def __init__(self, config: ObjectiveConfig, kind: Kind, student: Any, teacher: Any) -> None:
        super().__init__()
        if kind == "regression" and config.logits != "mse" and config.logits_weight:
            raise UsageError(
                "a regression has no distribution to compare",
                f'objective.logits = "{config.logits}"',
                'use "mse"',
            )
        self.config = config
        self.kind = kind
        self.layer_map: LayerMap | None = None
        self.projections = nn.ModuleDict()
        if config.reads_layers:
            if config.attention_weight:
                _check_reads_attention(teacher.model_type)
            self._prepare_layers(layer_sizes(student), layer_sizes(teacher))

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        labels: torch.Tensor | None,
        mask: torch.Tensor,
        micro_batch: MicroBatch = WHOLE_BATCH,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss of a batch, or the share that a micro-batch contributes.

        The shares of all micro-batches add up to the loss of the batch, except for `cka`: it
        compares texts with each other, but only those within a micro-batch.

        Args:
            labels: As in `losses.label_loss`; None if there are none.
            mask: 1 for real tokens, 0 for padding. *Shape:* (batch_size, length)
            micro_batch: The share of a larger batch that these texts are; by default all of it.

        Returns:
            The weighted sum, and its unweighted parts by name.
        """
        parts = self._output_losses(student.logits.float(), teacher.logits.float(), labels)
        if self.config.reads_layers:
            parts |= self._layer_losses(student, teacher, mask)
        weighted = []
        for name in parts:
            parts[name] = self._share(name, micro_batch) * parts[name]
            weighted.append(getattr(self.config, f"{name}_weight") * parts[name])
        return torch.stack(weighted).sum(), parts

    def _share(self, term: str, micro_batch: MicroBatch) -> Share:
        """Return the weight of a micro-batch's mean loss in the mean over the whole batch."""
        config = self.config
        if term == "logits" or (term == "hidden" and config.hidden == "pkd"):
            return micro_batch.texts
        if term == "labels":
            return micro_batch.labelled
        if term == "attention" and config.attention in ("scores", "probabilities"):
            return micro_batch.token_pairs
        return micro_batch.tokens

    @property
    def reads(self) -> LayerSelection:
        """The teacher's layers that the loss needs."""
        config = self.config
        if not config.reads_layers:
            return LayerSelection()
        matched = sorted({t for s, t in self._pairs if s > 0})
        hidden = set(matched) if config.hidden_weight else set()
        if config.embedding_weight:
            hidden.add(0)
        blocks: tuple[int, ...] = ()
        if config.attention_weight:
            blocks = tuple(t - 1 for t in matched if t > 0)
        if config.attention in HEAD_LOSSES:
            return LayerSelection(tuple(sorted(hidden)), attention=blocks)
        return LayerSelection(tuple(sorted(hidden)), vectors=blocks)

    @property
    def _pairs(self) -> tuple[tuple[int, int], ...]:
        """The matched layers (student, teacher); () if the loss uses only logits."""
        return self.layer_map.pairs if self.layer_map else ()

    def _prepare_layers(self, student: LayerSizes, teacher: LayerSizes) -> None:
        config = self.config
        self.layer_map = LayerMap.named(config.layer_map, student.layers, teacher.layers)
        self._check_terms_have_layers(self.layer_map)
        if config.attention_weight and config.attention in HEAD_LOSSES:
            _check_same_heads(config.attention, student, teacher)
        self.relation_heads = config.relation_heads or math.gcd(student.width, teacher.heads)
        if student.width % self.relation_heads or teacher.width % self.relation_heads:
            raise UsageError(
                "objective.relation_heads must divide the widths of student and teacher",
                f"{self.relation_heads}; widths {student.width} and {teacher.width}",
                f"such as {math.gcd(student.width, teacher.heads)}",
            )
        if student.width != teacher.width:
            for layer in self._layers_to_project():
                projection = nn.Linear(student.width, teacher.width, bias=False)
                self.projections[str(layer)] = projection

    def _layers_to_project(self) -> list[int]:
        """Return the student layers whose loss needs equal widths; 0 is the embedding output."""
        layers = []
        for layer, _ in self._pairs:
            if layer == 0:
                needed = self.config.embedding_weight > 0
            else:
                needed = self.config.hidden_weight > 0 and self.config.hidden != "cka"
            if needed:
                layers.append(layer)
        return layers

    def _check_terms_have_layers(self, layer_map: LayerMap) -> None:
        """Raise UsageError if a term has no layers to match."""
        has_layers = {
            "embedding": (0, 0) in layer_map.pairs,
            "hidden": any(s > 0 for s, _ in layer_map.pairs),
            "attention": any(s > 0 and t > 0 for s, t in layer_map.pairs),
        }
        for term, present in has_layers.items():
            if getattr(self.config, f"{term}_weight") and not present:
                missing = "[0, 0]" if term == "embedding" else "a pair of layers"
                raise UsageError(
                    f"objective.{term}_weight needs layers that layer_map does not name",
                    f"{layer_map}",
                    f"add {missing}, or set the weight to 0",
                )

    def _output_losses(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Return the terms on logits (B, C): against the teacher and against the labels."""
        parts: dict[str, torch.Tensor] = {}
        if self.config.logits_weight:
            parts["logits"] = logit_loss(self.config, self.kind)(student, teacher)
        if self.config.labels_weight and labels is not None:
            parts["labels"] = losses.label_loss(student, labels, self.kind)
        return parts

    def _layer_losses(
        self, student: Signals, teacher: Signals, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return the terms on embeddings, hidden states and attention."""
        config = self.config
        states = [self._project(layer, s).float() for layer, s in enumerate(student.hidden)]

        def hidden_loss(s: int, t: int) -> torch.Tensor:
            return HIDDEN_LOSSES[config.hidden](states[s], teacher.hidden[t].float(), mask)

        def attention_loss(s: int, t: int) -> torch.Tensor:
            return self._attention_loss(s - 1, t - 1, student, teacher, mask)

        parts: dict[str, torch.Tensor] = {}
        if config.embedding_weight:
            parts["embedding"] = losses.hidden_mse(states[0], teacher.hidden[0].float(), mask)
        if config.hidden_weight:
            parts["hidden"] = self._mean_over_layers(hidden_loss, lowest=0)
        if config.attention_weight:
            parts["attention"] = self._mean_over_layers(attention_loss, lowest=1)
        return parts

    def _project(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        if str(layer) not in self.projections:
            return states
        projected: torch.Tensor = self.projections[str(layer)](states)
        return projected

    def _mean_over_layers(
        self, loss: Callable[[int, int], torch.Tensor], lowest: int
    ) -> torch.Tensor:
        """Average loss(s, t) over the matched layers whose teacher layer is at least `lowest`."""
        matched = [loss(s, t) for s, t in self._pairs if s > 0 and t >= lowest]
        return torch.stack(matched).mean()

    def _attention_loss(
        self, s: int, t: int, student: Signals, teacher: Signals, mask: torch.Tensor
    ) -> torch.Tensor:
        """Compare the attention of student block `s` and teacher block `t`, counted from 0."""
        name = self.config.attention
        if name in HEAD_LOSSES:
            return HEAD_LOSSES[name](
                student.attention[s].float(), teacher.attention[t].float(), mask
            )
        terms = []
        for first, second in RELATIONS[name]:
            student_scores = self._relation(student.vectors[s], first, second)
            teacher_scores = self._relation(teacher.vectors[t], first, second)
            terms.append(losses.attention_kl(student_scores, teacher_scores, mask))
        return torch.stack(terms).sum()

    def _relation(self, vectors: Vectors, first: int, second: int) -> torch.Tensor:
        return losses.relation_scores(
            vectors[first].float(), vectors[second].float(), self.relation_heads
        )


def _check_reads_attention(model_type: str) -> None:
    if model_type not in ATTENTION_TYPES:
        raise UsageError(
            "the attention of this teacher cannot be matched",
            f"its model type is {model_type}, not one of {', '.join(ATTENTION_TYPES)}",
            "set attention_weight = 0; hidden states can be matched",
        )


def _check_same_heads(loss: str, student: LayerSizes, teacher: LayerSizes) -> None:
    if student.heads != teacher.heads:
        raise UsageError(
            f"attention {loss} can be matched only head by head",
            f"{student.heads} student and {teacher.heads} teacher heads",
            f"set objective.attention to one of {', '.join(RELATIONS)}, which fit any numbers of "
            "heads; or give the student as many heads; or set attention_weight = 0",
        )
