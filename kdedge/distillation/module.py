"""A student being taught: the model that the trainer trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kdedge.distillation.layer_cache import LayerCache
from kdedge.distillation.objective import Objective
from kdedge.nn.signals import Signals, read_signals
from kdedge.nn.text_model import TextClassifier


class DistillationModule(nn.Module):
    """A student being taught: batches in, loss, logits and the parts of the loss out.

    The teacher's logits come with the batch. Where its layers are matched they are read from `stored`, by the batch's `row` (B,);
    without that, the teacher runs beside the student.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        teacher: TextClassifier | None,
        stored: LayerCache | None = None,
    ) -> None:
        super().__init__()
        self.model, self.objective, self.stored = student, objective, stored
        self._teacher: tuple[Any, ...] = (
            (teacher.model.eval(),) if teacher else ()
        )  # in a tuple: not a part of what is trained or saved

    def forward(
        self,
        teacher_logits: torch.Tensor,
        labels: torch.Tensor | None = None,
        row: torch.Tensor | None = None,
        **batch: torch.Tensor,
    ) -> dict[str, Any]:
        layers = self.objective.recipe.reads_layers
        student = read_signals(self.model, batch, layers=layers)
        teacher = Signals(teacher_logits)
        if layers and self.stored is not None and row is not None:
            teacher = self.stored.of(row, teacher_logits, batch["input_ids"].shape[1])
        elif layers:
            with torch.no_grad():
                live = read_signals(self._teacher[0], batch, layers=True)
            teacher = Signals(teacher_logits, live.hidden, live.attention, live.vectors)
        loss, parts = self.objective(student, teacher, labels, batch["attention_mask"])
        return {"loss": loss, "logits": student.logits, "parts": parts}
