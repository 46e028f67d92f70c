"""What the student is asked to match: weighted named terms over signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from optimum.utils import NormalizedConfigManager
from torch import nn

from kdedge.distillation.learned_map import LearnedMap
from kdedge.distillation.weighting import Weighting, per_example_weight
from kdedge.errors import UsageError
from kdedge.nn import losses
from kdedge.nn.layer_map import LayerMap
from kdedge.nn.losses import logit_loss
from kdedge.nn.signals import LayerSelection, Signals, Vectors
from kdedge.recipe import ObjectiveConfig
from kdedge.runtime.spec import Kind

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

HIDDEN: dict[str, Loss] = {
    "mse": losses.hidden_mse,
    "cosine": losses.hidden_cosine,
    "pkd": losses.hidden_pkd,
    "cka": losses.hidden_cka,
}
HEAD_BY_HEAD: dict[str, Loss] = {
    "scores": losses.attention_mse,
    "probabilities": losses.attention_probability_mse,
    "kl": losses.attention_kl,
}
RELATIONS = {"value_relation": ((2, 2),), "qk_relation": ((0, 1),), "minilm": ((0, 1), (2, 2))}
"""Which two of queries, keys and values meet, term by term."""


class Objective(nn.Module):
    """Weighted terms; the projections from student width to teacher width live here and stay behind at export."""

    def __init__(
        self, recipe: ObjectiveConfig, kind: Kind, student: Any, teacher: Any, *, batches: int = 1
    ) -> None:
        """student, teacher: their configurations; only sizes are read, and only if layers are matched.

        batches: how many batches training will show, on which ramps depend.
        """
        super().__init__()
        if kind == "regression" and recipe.logits != "mse" and recipe.logits_weight:
            raise UsageError(
                "a regression has no distribution to compare",
                f'objective.logits = "{recipe.logits}"',
                'use "mse"',
            )
        self.recipe, self.kind = recipe, kind
        self.weighting = Weighting(recipe, batches)
        self.layer_map: LayerMap | None = None
        self.learned: LearnedMap | None = None
        self.projections = nn.ModuleDict()
        if recipe.reads_layers:
            self._prepare_layers(layer_sizes(student), layer_sizes(teacher))

    def _prepare_layers(self, mine: LayerSizes, theirs: LayerSizes) -> None:
        recipe = self.recipe
        self.teacher_layers = theirs.layers
        if recipe.layer_map == "learned":
            self.learned = LearnedMap(mine.layers, theirs.layers)
        else:
            self.layer_map = LayerMap.named(recipe.layer_map, mine.layers, theirs.layers)
            self._reject_empty_terms(self.layer_map.pairs)
        if recipe.attention_weight and recipe.attention in HEAD_BY_HEAD:
            _reject_other_heads(recipe.attention, mine, theirs)
        self.relation_heads = recipe.relation_heads or math.gcd(mine.width, theirs.heads)
        if mine.width % self.relation_heads or theirs.width % self.relation_heads:
            what = "objective.relation_heads must divide the widths of student and teacher"
            raise UsageError(
                what,
                f"{self.relation_heads}; widths {mine.width} and {theirs.width}",
                f"such as {math.gcd(mine.width, theirs.heads)}",
            )
        if mine.width != theirs.width:
            for layer in self._projected(mine.layers):
                self.projections[str(layer)] = nn.Linear(mine.width, theirs.width, bias=False)

    @property
    def reads(self) -> LayerSelection:
        """The teacher's layers that the terms are computed from."""
        recipe = self.recipe
        if not recipe.reads_layers:
            return LayerSelection()
        matched = (
            {t for s, t in self.layer_map.pairs if s > 0}
            if self.layer_map
            else set(range(1, self.teacher_layers + 1))
        )
        hidden = ({0} if recipe.embedding_weight else set()) | (
            matched if recipe.hidden_weight else set()
        )
        blocks = tuple(sorted(t - 1 for t in matched if t > 0)) if recipe.attention_weight else ()
        by_head = recipe.attention in HEAD_BY_HEAD
        return LayerSelection(
            tuple(sorted(hidden)), blocks if by_head else (), () if by_head else blocks
        )

    def _projected(self, layers: int) -> list[int]:
        """Student layers whose states are compared number by number with the teacher's, 0 for the embedding output."""
        matched = (
            list(range(layers + 1))
            if self.layer_map is None
            else [s for s, _ in self.layer_map.pairs]
        )
        hidden = self.recipe.hidden_weight if self.recipe.hidden != "cka" else 0.0
        return [s for s in matched if (self.recipe.embedding_weight if s == 0 else hidden)]

    def _reject_empty_terms(self, pairs: tuple[tuple[int, int], ...]) -> None:
        """Raises UsageError where a term has no layers to match."""
        needed = {
            "embedding": (0, 0) in pairs,
            "hidden": any(s > 0 for s, _ in pairs),
            "attention": any(s > 0 and t > 0 for s, t in pairs),
        }
        for name, there in needed.items():
            if getattr(self.recipe, f"{name}_weight") and not there:
                what = f"objective.{name}_weight asks for layers that layer_map does not name"
                raise UsageError(
                    what,
                    f"{self.layer_map}",
                    f"add {'[0, 0]' if name == 'embedding' else 'a pair of layers'}, or set the weight to 0",
                )

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        labels: torch.Tensor | None,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum and its unweighted parts by name. mask: (B, T), 1 on real tokens."""
        parts = dict(self._answers(student.logits.float(), teacher.logits.float(), labels))
        if self.recipe.reads_layers:
            parts |= dict(self._layers(student, teacher, mask))
        weights = self.weighting(parts)
        return torch.stack([weights[name] * value for name, value in parts.items()]).sum(), parts

    def _answers(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        loss = logit_loss(self.recipe, self.kind)
        if self.recipe.per_example and labels is not None:
            share = per_example_weight(teacher, labels, self.kind)  # (B,)
            rows, known = losses.label_rows(student, labels, self.kind)
            yield "logits", (share * losses.per_text(loss, student, teacher)).mean()
            yield "labels", ((1 - share) * rows).sum() / known.sum().clamp(min=1)
            return
        if self.recipe.logits_weight:
            yield "logits", loss(student, teacher)
        if self.recipe.labels_weight and labels is not None:
            yield "labels", losses.label_loss(student, labels, self.kind)

    def _layers(
        self, student: Signals, teacher: Signals, mask: torch.Tensor
    ) -> Iterator[tuple[str, torch.Tensor]]:
        recipe = self.recipe
        mine = [self._project(layer, states).float() for layer, states in enumerate(student.hidden)]
        if recipe.embedding_weight:
            yield "embedding", losses.hidden_mse(mine[0], teacher.hidden[0].float(), mask)
        if recipe.hidden_weight:
            yield (
                "hidden",
                self._over_layers(
                    lambda s, t: HIDDEN[recipe.hidden](mine[s], teacher.hidden[t].float(), mask),
                    lowest=0,
                ),
            )
        if recipe.attention_weight:
            yield (
                "attention",
                self._over_layers(
                    lambda s, t: self._attention_loss(s - 1, t - 1, student, teacher, mask),
                    lowest=1,
                ),
            )

    def _project(self, layer: int, states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = (
            self.projections[str(layer)](states) if str(layer) in self.projections else states
        )
        return projected

    def _over_layers(self, loss: Callable[[int, int], torch.Tensor], lowest: int) -> torch.Tensor:
        """Mean over student layers of the loss between layers (s, t), t from `lowest` on; a learned map weighs all t of an s."""
        if self.learned is not None:
            shares: torch.Tensor = self.learned()  # (S, T)
            every = [
                [loss(s + 1, t + 1) for t in range(shares.shape[1])] for s in range(shares.shape[0])
            ]
            return (shares * torch.stack([torch.stack(row) for row in every])).sum(1).mean()
        assert self.layer_map is not None
        return torch.stack(
            [loss(s, t) for s, t in self.layer_map.pairs if s > 0 and t >= lowest]
        ).mean()

    def _attention_loss(
        self, s: int, t: int, student: Signals, teacher: Signals, mask: torch.Tensor
    ) -> torch.Tensor:
        name = self.recipe.attention
        if name in HEAD_BY_HEAD:
            return HEAD_BY_HEAD[name](
                student.attention[s].float(), teacher.attention[t].float(), mask
            )
        terms = [
            losses.attention_kl(
                self._relation(student.vectors[s], a, b),
                self._relation(teacher.vectors[t], a, b),
                mask,
            )
            for a, b in RELATIONS[name]
        ]
        return torch.stack(terms).sum()

    def _relation(self, vectors: Vectors, first: int, second: int) -> torch.Tensor:
        return losses.relation_scores(
            vectors[first].float(), vectors[second].float(), self.relation_heads
        )


@dataclass(frozen=True)
class LayerSizes:
    """Layers, heads and width of an encoder; depth: numbers in a head's queries, keys or values."""

    layers: int
    heads: int
    width: int
    depth: int


def layer_sizes(config: Any) -> LayerSizes:
    """Sizes under whichever names an architecture gives them. Raises UsageError for one that has no such layers."""
    try:
        named = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
        depth = getattr(config, "head_dim", None) or named.hidden_size // named.num_attention_heads
        return LayerSizes(named.num_layers, named.num_attention_heads, named.hidden_size, depth)
    except (KeyError, AttributeError) as error:
        raise UsageError(
            "layers of this architecture cannot be matched",
            f"{config.model_type}: {error}",
            "set hidden, attention and embedding weights to 0",
        ) from error


def _reject_other_heads(name: str, mine: LayerSizes, theirs: LayerSizes) -> None:
    if mine.heads != theirs.heads:
        raise UsageError(
            f"attention {name} can be matched only head by head",
            f"{mine.heads} student and {theirs.heads} teacher heads",
            f"set objective.attention to {', '.join(RELATIONS)}, which fit any numbers of heads, as hidden and embedding do; "
            "or give the student as many heads; or set attention_weight = 0",
        )
