"""The weight of each part of the loss: fixed, ramped over the training, or balanced."""

from __future__ import annotations

import torch
from torch import nn

from kdedge.nn import losses
from kdedge.recipe import TERMS, ObjectiveConfig
from kdedge.runtime.spec import Kind

POSITIONS: dict[str, int] = {name: position for position, name in enumerate(TERMS)}

DECAY = 0.99
"""Decay of the running magnitudes: about the last hundred batches count."""


class Weighting(nn.Module):
    """The weights of the parts of the loss at the present batch.

    Its counts are buffers, so a checkpoint holds them and a resumed training continues with the
    same weights.
    """

    step: torch.Tensor
    running_magnitude: torch.Tensor

    def __init__(self, config: ObjectiveConfig, batches: int) -> None:
        """Start at the first of `batches` batches; a ramp ends with the last."""
        super().__init__()
        self.config = config
        self.batches = batches
        self.ramps: dict[str, tuple[float, float]] = {}
        for term, ends in config.ramp.items():
            self.ramps[term] = ends
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("running_magnitude", torch.zeros(len(TERMS)))

    def forward(
        self, parts: dict[str, torch.Tensor], *, is_counted: bool = True
    ) -> dict[str, torch.Tensor]:
        """Return part name -> weight for one batch, and count the batch in training mode.

        Of a batch in pieces, only the last piece is counted.
        """
        is_counted = is_counted and self.training
        if is_counted and self.config.balanced:
            self._update_magnitudes(parts)
        progress = torch.clamp(self.step / max(1, self.batches - 1), max=1.0)
        weights = {}
        for name, part in parts.items():
            weight = getattr(self.config, f"{name}_weight")
            weights[name] = weight * self._ramp(name, progress) / self._magnitude(name, part)
        if is_counted:
            self.step += 1
        return weights

    def _ramp(self, name: str, progress: torch.Tensor) -> torch.Tensor:
        first, last = self.ramps.get(name, (1.0, 1.0))
        return torch.lerp(
            torch.full_like(progress, first), torch.full_like(progress, last), progress
        )

    def _magnitude(self, name: str, part: torch.Tensor) -> torch.Tensor:
        """Return the running magnitude that a balanced weight is divided by, else 1."""
        if not self.config.balanced:
            return torch.ones_like(part.detach())
        running = self.running_magnitude[POSITIONS[name]]
        return torch.where(running > 0, running, part.detach().abs()).clamp(min=1e-8)

    def _update_magnitudes(self, parts: dict[str, torch.Tensor]) -> None:
        for name, part in parts.items():
            position = POSITIONS[name]
            running = self.running_magnitude[position].clone()
            magnitude = part.detach().abs()
            self.running_magnitude[position] = torch.where(
                running > 0, DECAY * running + (1 - DECAY) * magnitude, magnitude
            )


def per_example_weight(teacher: torch.Tensor, labels: torch.Tensor, kind: Kind) -> torch.Tensor:
    """Weigh each text by how well the teacher predicts its label: exp(-loss).

    For classes this is the probability that the teacher gives the right class. The student
    follows the teacher where the teacher is right, and the label elsewhere. The loss of a
    regression has no natural scale, so it is divided by its mean over the labelled texts of the
    batch.

    The idea is AdaKD's (Ganguly et al. 2024, arXiv 2405.08019). Its own formula,
    exp(-1 / sqrt(difficulty)), has a scale that must be set.

    Args:
        teacher: The teacher's logits. *Shape:* (batch_size, num_labels)
        labels: As in `losses.label_loss`.

    Returns:
        Weights between 0 and 1; 1 for texts without a label. *Shape:* (batch_size,)
    """
    rows, known = losses.label_rows(teacher, labels, kind)
    if kind == "regression":
        rows = rows / (rows.sum() / known.sum().clamp(min=1)).clamp(min=1e-12)
    return torch.where(known, torch.exp(-rows), 1.0)
