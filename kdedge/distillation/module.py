"""The student in training: the module that the trainer optimizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from kdedge.distillation.layer_cache import LayerCache
from kdedge.distillation.objective import Objective
from kdedge.distillation.teacher_tokens import split_batch
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch
from kdedge.nn.signals import Signals, read_signals
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.token_alignment import averaged, without_alignment


class DistillationModule(nn.Module):
    """A student with its objective; maps a batch to loss, logits and parts of the loss.

    Args:
        teacher: Needed only if the objective matches layers.
        layer_cache: The teacher's layers on disk, looked up by the batch's `row` (B,). Without it
            the teacher runs at every step.
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective,
        teacher: TextClassifier | None,
        layer_cache: LayerCache | None = None,
    ) -> None:
        super().__init__()
        self.model = student
        self.objective = objective
        self.layer_cache = layer_cache
        # A tuple hides the teacher from parameters() and state_dict().
        self._teacher: tuple[Any, ...] = (teacher.model.eval(),) if teacher else ()

    def forward(
        self,
        teacher_logits: torch.Tensor,
        labels: torch.Tensor | None = None,
        row: np.ndarray | None = None,
        micro_batch: MicroBatch = WHOLE_BATCH,
        **batch: torch.Tensor,
    ) -> dict[str, Any]:
        layers = self.objective.config.reads_layers
        inputs, teacher_inputs = split_batch(batch)
        student = read_signals(self.model, inputs, layers=layers)
        teacher = Signals(teacher_logits)
        if layers:
            teacher = self._teacher_layers(teacher_logits, row, teacher_inputs)
        loss, parts = self.objective(
            student, teacher, labels, inputs["attention_mask"], micro_batch
        )
        return {"loss": loss, "logits": student.logits, "parts": parts}

    def _teacher_layers(
        self, logits: torch.Tensor, row: np.ndarray | None, batch: dict[str, torch.Tensor]
    ) -> Signals:
        if self.layer_cache is not None and row is not None:
            return self.layer_cache.read(row, logits, batch["input_ids"].shape[1])
        with torch.no_grad():
            live = read_signals(self._teacher[0], without_alignment(batch), layers=True)
        live = averaged(live, batch)
        return Signals(logits, live.hidden, live.attention, live.vectors)
