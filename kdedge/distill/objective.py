"""What the student is asked to match: weighted named terms over signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from optimum.utils import NormalizedConfigManager
from torch import nn

from kdedge.distill import losses
from kdedge.distill.signals import Signals, read_signals
from kdedge.errors import UsageError
from kdedge.layermap import LayerMap
from kdedge.recipe import Objective as ObjectiveRecipe
from kdedge.runtime.spec import Kind
from kdedge.textmodel import TextModel


class Objective(nn.Module):
    """Weighted terms; the projections from student width to teacher width live here and stay behind at export."""

    def __init__(self, recipe: ObjectiveRecipe, kind: Kind, student: Any, teacher: Any) -> None:
        """student, teacher: their configurations; only sizes are read, and only if layers are matched."""
        super().__init__()
        if kind == "regression" and recipe.logits == "kl":
            raise UsageError("a regression has no distribution to compare", 'objective.logits = "kl"', 'use "mse"')
        self.recipe, self.kind = recipe, kind
        self.layer_map: LayerMap | None = None
        self.projections = nn.ModuleDict()
        if recipe.reads_layers:
            self._prepare_layers(student, teacher)

    def _prepare_layers(self, student: Any, teacher: Any) -> None:
        recipe, mine, theirs = self.recipe, sizes_of(student), sizes_of(teacher)
        self.layer_map = LayerMap.named(recipe.layer_map, mine.layers, theirs.layers)
        self._refuse_empty_terms()
        if recipe.attention_weight and mine.heads != theirs.heads:
            raise UsageError(
                "attention scores can be matched only head by head",
                f"{mine.heads} student and {theirs.heads} teacher heads",
                "give the student as many heads as the teacher, or set attention_weight = 0",
            )
        if mine.width != theirs.width:
            layers = [s for s, _ in self.layer_map.pairs if (recipe.embedding_weight if s == 0 else recipe.hidden_weight)]
            for layer in layers:
                self.projections[str(layer)] = nn.Linear(mine.width, theirs.width, bias=False)

    def _refuse_empty_terms(self) -> None:
        """Raises UsageError where a term has no layers to match."""
        recipe, pairs = self.recipe, self.layer_map.pairs if self.layer_map else ()
        needed = {"embedding": (0, 0) in pairs, "hidden": any(s > 0 for s, _ in pairs), "attention": any(s > 0 and t > 0 for s, t in pairs)}
        for name, there in needed.items():
            if getattr(recipe, f"{name}_weight") and not there:
                what = f"objective.{name}_weight asks for layers that layer_map does not name"
                raise UsageError(what, f"{self.layer_map}", f"add {'[0, 0]' if name == 'embedding' else 'a pair of layers'}, or set the weight to 0")

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        labels: torch.Tensor | None,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted sum and its unweighted parts by name. mask: (B, T), 1 on real tokens."""
        parts = dict(self._parts(student, teacher, labels, mask))
        weights = self.recipe.model_dump(include={f"{name}_weight" for name in parts})
        total = torch.stack([weights[f"{name}_weight"] * value for name, value in parts.items()]).sum()
        return total, parts

    def _parts(self, student: Signals, teacher: Signals, labels: torch.Tensor | None, mask: torch.Tensor) -> Any:
        recipe = self.recipe
        if recipe.logits_weight:
            yield "logits", self._logit_loss(student.logits.float(), teacher.logits.float())
        if recipe.labels_weight and labels is not None:
            yield "labels", losses.label_loss(student.logits.float(), labels, self.kind)
        if self.layer_map is None:
            return
        above = [(s, t) for s, t in self.layer_map.pairs if s > 0]
        if recipe.embedding_weight:
            yield "embedding", self._hidden_loss(0, 0, student, teacher, mask)
        if recipe.hidden_weight:
            yield "hidden", torch.stack([self._hidden_loss(s, t, student, teacher, mask) for s, t in above]).mean()
        if recipe.attention_weight:
            pairs = [(student.attention[s - 1].float(), teacher.attention[t - 1].float()) for s, t in above if t > 0]
            yield "attention", torch.stack([losses.attention_mse(mine, theirs, mask) for mine, theirs in pairs]).mean()

    def _logit_loss(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if self.recipe.logits == "mse":
            return losses.logit_mse(student, teacher)
        kl = losses.soft_binary_kl if self.kind == "multilabel" else losses.soft_cross_entropy_kl
        return kl(student, teacher, self.recipe.temperature)

    def _hidden_loss(self, s: int, t: int, student: Signals, teacher: Signals, mask: torch.Tensor) -> torch.Tensor:
        mine = student.hidden[s]
        if str(s) in self.projections:
            mine = self.projections[str(s)](mine)
        return losses.hidden_mse(mine.float(), teacher.hidden[t].float(), mask)


@dataclass(frozen=True)
class Sizes:
    """Layers, heads and width of an encoder."""

    layers: int
    heads: int
    width: int


def sizes_of(config: Any) -> Sizes:
    """Sizes under whichever names an architecture gives them. Raises UsageError for one that has no such layers."""
    try:
        named = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
        return Sizes(named.num_layers, named.num_attention_heads, named.hidden_size)
    except (KeyError, AttributeError) as error:
        raise UsageError(
            "layers of this architecture cannot be matched", f"{config.model_type}: {error}", "set hidden, attention and embedding weights to 0"
        ) from error


class Distillation(nn.Module):
    """A student being taught: batches in, loss, logits and the parts of the loss out.

    The teacher's logits come with the batch; the teacher itself runs only when its layers are matched.
    """

    def __init__(self, student: nn.Module, objective: Objective, teacher: TextModel | None) -> None:
        super().__init__()
        self.model, self.objective = student, objective
        self._teacher: tuple[Any, ...] = (teacher.model.eval(),) if teacher else ()  # in a tuple: not a part of what is trained or saved

    def forward(self, teacher_logits: torch.Tensor, labels: torch.Tensor | None = None, **batch: torch.Tensor) -> dict[str, Any]:
        layers = self.objective.layer_map is not None
        student = read_signals(self.model, batch, layers=layers)
        teacher = Signals(teacher_logits)
        if layers:
            with torch.no_grad():
                live = read_signals(self._teacher[0], batch, layers=True)
            teacher = Signals(teacher_logits, live.hidden, live.attention)
        loss, parts = self.objective(student, teacher, labels, batch["attention_mask"])
        return {"loss": loss, "logits": student.logits, "parts": parts}
