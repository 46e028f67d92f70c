"""What each part of the loss counts: as the recipe fixes it, along a ramp, or balanced by the parts' own magnitudes."""

from __future__ import annotations

import torch
from torch import nn

from kdedge.nn import losses
from kdedge.recipe import TERMS, ObjectiveConfig
from kdedge.runtime.spec import Kind

PLACES: dict[str, int] = {name: place for place, name in enumerate(TERMS)}

MEMORY = 0.99
"""Share of the running magnitude that a batch leaves as it was: about the last hundred batches count."""


class Weighting(nn.Module):
    """The recipe's weights as they stand at the present batch.

    Its counts are buffers, which a checkpoint holds: a resumed training goes on with the same weights.
    """

    shown: torch.Tensor
    magnitudes: torch.Tensor

    def __init__(self, recipe: ObjectiveConfig, batches: int) -> None:
        """batches: how many a whole training has; ramps reach their end with the last."""
        super().__init__()
        self.recipe, self.batches = recipe, batches
        self.register_buffer("shown", torch.zeros((), dtype=torch.int64))
        self.register_buffer("magnitudes", torch.zeros(len(TERMS)))

    def forward(self, parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Part name -> weight, for the parts of one batch; in training mode the batch is counted."""
        if self.training and self.recipe.balanced:
            self._remember(parts)
        share = torch.clamp(self.shown / max(1, self.batches - 1), max=1.0)
        weights = {
            name: getattr(self.recipe, f"{name}_weight")
            * self._ramp(name, share)
            / self._size(name, parts[name])
            for name in parts
        }
        if self.training:
            self.shown += 1
        return weights

    def _ramp(self, name: str, share: torch.Tensor) -> torch.Tensor:
        first, last = next(
            (ends for term, ends in self.recipe.ramp.items() if term == name), (1.0, 1.0)
        )
        return torch.lerp(torch.full_like(share, first), torch.full_like(share, last), share)

    def _size(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """The part's running magnitude, by which a balanced weight divides."""
        if not self.recipe.balanced:
            return torch.ones_like(part.detach())
        seen = self.magnitudes[PLACES[name]]
        return torch.where(seen > 0, seen, part.detach().abs()).clamp(min=1e-8)

    def _remember(self, parts: dict[str, torch.Tensor]) -> None:
        for name, part in parts.items():
            place = PLACES[name]
            before, now = self.magnitudes[place].clone(), part.detach().abs()
            self.magnitudes[place] = torch.where(
                before > 0, MEMORY * before + (1 - MEMORY) * now, now
            )


def per_example_weight(teacher: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    """(B,) how far each text's label bears its teacher out: exp(-loss of the teacher's logits (B, C) on the label), 1 without one.

    Numbers have no scale of their own: there the loss counts in units of its mean over the batch's labelled texts. For classes this is the probability the teacher gives the right one: the teacher is followed where it is right, the label
    where it is not. The idea is AdaKD's (Ganguly et al. 2024, arXiv 2405.08019), which weighs each example's distillation by the
    teacher's loss on it; the formula is not: theirs, exp(-1 / sqrt(difficulty)), has a scale that must be set.
    """
    rows, known = losses.label_rows(teacher, labels, kind)
    if kind == "regression":
        rows = rows / (rows.sum() / known.sum().clamp(min=1)).clamp(min=1e-12)
    return torch.where(known, torch.exp(-rows), 1.0)
