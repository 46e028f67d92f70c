"""Train a fake-quantized student: its data, its loss and the learning rates of its ranges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.export.fake_model import range_owners
from kdedge.export.fake_quant import ActivationRange
from kdedge.export.registry import export_of
from torch import nn
from transformers import PreTrainedModel

from kdedge.data.task import Task
from kdedge.nn import losses
from kdedge.nn.device import this_device
from kdedge.nn.label_loss import validation_predictor
from kdedge.nn.losses import LogitLoss, logit_loss
from kdedge.nn.micro_batches import WHOLE_BATCH, MicroBatch
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.nn.training import train
from kdedge.nn.training_plan import Training
from kdedge.recipe import FitConfig, ObjectiveConfig, QuantizeConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.transfer.dataset import TransferSet

PRECISION = "fp32"
"""16 bits cannot hold the integer sums of int8 arithmetic."""

Predict = Callable[[nn.Module], np.ndarray]
"""From a module with a `.model` to logits (N, C)."""


@dataclass(frozen=True)
class QatData:
    """What quantization-aware tuning reads; `objective` is that of the float student."""

    task: Task
    transfer: TransferSet
    recipe: QuantizeConfig
    objective: ObjectiveConfig
    seed: int


class QatModule(nn.Module):
    """The fake-quantized student as a training module: its loss has three parts.

    `logits`: the loss that distilled the float student, against the teacher's logits. KL compares
    only probabilities, and a student distilled with it has logits at a level of its own.
    `float`: against the float student's logits. `hidden`: against its hidden states.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reference: PreTrainedModel,
        recipe: QuantizeConfig,
        teacher_loss: LogitLoss,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.teacher_loss = model, recipe, teacher_loss
        # In a tuple, so that it is neither trained nor saved.
        self._reference = (reference.eval(),)
        self._export = export_of(reference)

    def train(self, mode: bool = True) -> QatModule:
        """Never use dropout: the float student's states are computed without it."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self,
        teacher_logits: torch.Tensor,
        micro_batch: MicroBatch = WHOLE_BATCH,
        **batch: torch.Tensor,
    ) -> dict[str, Any]:
        logits, hidden = self._export.read_states(self.model, batch)
        with torch.no_grad():
            reference = self._reference[0]
            float_logits, float_hidden = self._export.read_states(reference, batch)
        distances = []
        for (states, mask), (target, _) in zip(hidden, float_hidden, strict=True):
            # A BiLSTM compares one state for each text, without padding.
            share = micro_batch.tokens if mask is batch["attention_mask"] else micro_batch.texts
            distances.append(share * losses.hidden_mse(states, target, mask))
        parts = {
            "logits": micro_batch.texts * self.teacher_loss(logits.float(), teacher_logits.float()),
            "float": micro_batch.texts * losses.logit_mse(logits.float(), float_logits.float()),
            "hidden": torch.stack(distances).mean(),
        }
        loss = (
            parts["logits"]
            + self.recipe.float_weight * parts["float"]
            + self.recipe.hidden_weight * parts["hidden"]
        )
        return {"loss": loss, "logits": logits, "parts": parts}


def tune(
    model: PreTrainedModel,
    student: TextClassifier,
    data: QatData,
    folder: Path,
    *,
    score: Callable[[np.ndarray], float],
    progress: Progress = SILENT,
) -> None:
    """Train a calibrated student and its ranges in place; `folder` is for checkpoints.

    The weights are kept whose logits (N, C) on the validation split have the highest `score`.
    """
    recipe = data.recipe
    for owner in range_owners(model).values():
        owner.range.requires_grad_(recipe.learn_ranges)
    loss = logit_loss(data.objective, data.task.spec.kind)
    module = QatModule(model, student.model.to(this_device()), recipe, loss)
    fit = FitConfig(
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        checks=recipe.checks,
        precision=PRECISION,
    ).model_copy(update={"epochs": epochs_of(recipe, len(data.transfer))})
    plan = Training(
        fit,
        data.seed,
        encode_rows(student, data),
        student.pad,
        validation_logits(student, data),
        score,
        "quantization-aware tuning",
        range_rates(module, recipe),
    )
    try:
        train(module, plan, folder, progress=progress)
    finally:
        module.cpu()
        student.model.cpu()


def epochs_of(recipe: QuantizeConfig, texts: int) -> float:
    """Return the epochs over a number of texts that take `recipe.steps` steps.

    The trainer rounds steps up. Half a step less keeps errors of rounding from adding one.
    """
    return (recipe.steps - 0.5) / math.ceil(texts / recipe.batch_size)


def range_rates(model: nn.Module, recipe: QuantizeConfig) -> dict[str, float]:
    """Return the learning rates of the trainable ends of ranges by parameter name.

    A step of Adam is as long as the learning rate, so the rate is a share of the range's width.
    """
    rates: dict[str, float] = {}
    for name, owner in model.named_modules():
        if isinstance(owner, ActivationRange):
            width = (owner.high.clamp(min=0) - owner.low.clamp(max=0)).item()
            for end, value in owner.named_parameters():
                if value.requires_grad:
                    rates[f"{name}.{end}"] = recipe.range_learning_rate * width
    return rates


def validation_logits(student: TextClassifier, data: QatData) -> Predict:
    """Return a function from a training module to its logits (N, C) on the validation split."""
    split = data.task.validation
    encoded = student.encode(split.texts, split.pairs)
    predict: Predict = validation_predictor(encoded, student.pad, PRECISION)
    return predict


def encode_rows(student: TextClassifier, data: QatData, rows: np.ndarray | None = None) -> Any:
    """Encode rows of the transfer set (default: all) with the teacher's logits."""
    if rows is None:
        rows = np.arange(len(data.transfer.texts))
    texts, logits = data.transfer.texts.take(rows), data.transfer.logits[rows]
    return encode(
        student.tokenizer, texts.texts, texts.pairs, student.max_length, teacher_logits=logits
    )
