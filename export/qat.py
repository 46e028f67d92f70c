"""Quantization-aware tuning: a student learns to keep its predictions in int8 arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.export.calibrate import calibrate, sensitivity, unpadded_batches
from kdedge.export.fake_model import fake_quantized, range_owners
from kdedge.export.fake_quant import ActivationRange
from kdedge.export.parity import SAME_ANSWERS, ParityReport, compare_logits
from kdedge.export.registry import export_of
from kdedge.export.scheme import QuantScheme
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from kdedge.data.task import Task
from kdedge.nn import losses
from kdedge.nn.device import this_device
from kdedge.nn.losses import LogitLoss, logit_loss
from kdedge.nn.pieces import WHOLE, Piece
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.nn.training import LabelLossModule, Training, train, validation_predictor
from kdedge.recipe import FitConfig, ObjectiveConfig, QuantizeConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime import metrics
from kdedge.transfer.dataset import TransferSet

WEIGHTS_FILE = "model.safetensors"
CALIBRATED_FILE = "calibrated.safetensors"

CALIBRATION_AGREEMENT = 0.995
"""Share of the float student's predictions above which calibration alone is good enough."""

SENSITIVITY_TEXTS = 64
"""Texts on which sensitivity is measured: every layer reads them again."""

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


@dataclass(frozen=True)
class Calibration:
    """Figures of a calibration.

    Attributes:
        values_in_range: Share of the activations' values that the ranges cover.
        sensitivity: Layer -> RMS change of the logits if only that layer is rounded.
    """

    values_in_range: float
    sensitivity: dict[str, float]


@dataclass(frozen=True)
class QatResult(Calibration):
    """Figures of calibration and tuning.

    Attributes:
        validation: Validation scores of the `float`, `calibrated` and `tuned` student.
        agreement: Share of the float student's predictions, for `calibrated` and `tuned`.
        weights: Which of the two the final weights are.
    """

    validation: dict[str, float]
    agreement: dict[str, float]
    weights: str


@dataclass(frozen=True)
class QuantizedStudent:
    """A student in int8 arithmetic: its final form, and as it was after calibration."""

    model: PreTrainedModel
    calibrated: PreTrainedModel
    scheme: QuantScheme
    result: QatResult

    @classmethod
    def load(
        cls, student: PreTrainedModel, scheme: QuantScheme, folder: Path, result: QatResult
    ) -> QuantizedStudent:
        """Load what `quantize_aware_tune` saved for a float student."""
        final = _load(student, scheme, folder / WEIGHTS_FILE)
        calibrated = _load(student, scheme, folder / CALIBRATED_FILE)
        return cls(final, calibrated, scheme, result)


def quantize_aware_tune(
    student: TextClassifier,
    scheme: QuantScheme,
    data: QatData,
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> QatResult:
    """Save a fake-quantized copy of a student in `folder`: calibrated, and tuned if that helps.

    Tuning is training, so it also moves predictions that calibration left unchanged. It takes place
    only if calibration lowers the validation score and changes more than 0.5 % of the predictions
    there. Its weights are kept only if they score better than the calibrated ones and give 99 % of
    the float student's predictions, or as many as the calibrated ones.
    """
    model, calibration = calibrated(student, scheme, data, progress=progress)
    predict = _validation_predictor(student, data)
    logits = {
        "float": predict(LabelLossModule(student.model)),
        "calibrated": predict(LabelLossModule(model)),
    }
    score = _ScoreWithAgreement(data.task, logits["float"], logits["calibrated"])
    _save(model, folder / CALIBRATED_FILE)
    weights = "calibrated"
    if data.recipe.steps and score.calibration_suffices():
        progress.say(f"no tuning: {score.describe_calibration()}")
    elif data.recipe.steps:
        progress.say(
            "tuning; a validation score below -1 means that too many predictions differ from "
            "those of the float student"
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tune(model, student, data, folder, score=score, progress=progress)
        logits["tuned"] = predict(LabelLossModule(model))
        reason = score.rejection(logits["tuned"])
        if reason is None:
            weights = "tuned"
        else:
            progress.say(f"the calibrated weights are used: {reason}")
            model.load_state_dict(before)
    _save(model.eval(), folder / WEIGHTS_FILE)
    quantized = [name for name in logits if name != "float"]
    return QatResult(
        **vars(calibration),
        validation={name: score.score(values) for name, values in logits.items()},
        agreement={name: score.compare(logits[name]).agreement for name in quantized},
        weights=weights,
    )


def calibrated(
    student: TextClassifier, scheme: QuantScheme, data: QatData, *, progress: Progress = SILENT
) -> tuple[PreTrainedModel, Calibration]:
    """Return a fake-quantized copy of a student with ranges from its transfer set."""
    recipe = data.recipe
    order = np.random.default_rng(data.seed).permutation(len(data.transfer))
    chosen = order[: recipe.calibration_texts]
    batches = unpadded_batches(student.pad, _encode(student, data, chosen))
    model = fake_quantized(student.model, scheme).eval()
    progress.say(f"calibrating on {len(chosen)} texts")
    coverage = calibrate(model, student.model, batches)
    few = unpadded_batches(student.pad, _encode(student, data, chosen[:SENSITIVITY_TEXTS]))
    return model, Calibration(coverage, sensitivity(model, few))


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
        self, teacher_logits: torch.Tensor, piece: Piece = WHOLE, **batch: torch.Tensor
    ) -> dict[str, Any]:
        logits, hidden = self._export.read_states(self.model, batch)
        with torch.no_grad():
            reference = self._reference[0]
            float_logits, float_hidden = self._export.read_states(reference, batch)
        distances = []
        for (states, mask), (target, _) in zip(hidden, float_hidden, strict=True):
            # A BiLSTM compares one state for each text, without padding.
            share = piece.tokens if mask is batch["attention_mask"] else piece.texts
            distances.append(share * losses.hidden_mse(states, target, mask))
        parts = {
            "logits": piece.texts * self.teacher_loss(logits.float(), teacher_logits.float()),
            "float": piece.texts * losses.logit_mse(logits.float(), float_logits.float()),
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
        epochs=recipe.steps * recipe.batch_size / len(data.transfer),
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        checks=recipe.checks,
        precision=PRECISION,
    )
    plan = Training(
        fit,
        data.seed,
        _encode(student, data),
        student.pad,
        _validation_predictor(student, data),
        score,
        "quantization-aware tuning",
        range_rates(module, recipe),
    )
    try:
        train(module, plan, folder, progress=progress)
    finally:
        module.cpu()
        student.model.cpu()


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


@dataclass(frozen=True)
class _ScoreWithAgreement:
    """Rates logits (N, C) on the validation split.

    The rating is the score if enough predictions equal those of the float student (`reference`);
    otherwise their share - 2, which is below every score.
    """

    task: Task
    reference: np.ndarray
    calibrated: np.ndarray

    def __call__(self, logits: np.ndarray) -> float:
        score = self.score(logits)
        return score if self.agrees(logits) else self.compare(logits).agreement - 2

    def score(self, logits: np.ndarray) -> float:
        spec = self.task.spec
        labels = self.task.validation.labels
        return metrics.score(spec.metric, spec.kind, logits, labels, spec.threshold)

    def compare(self, logits: np.ndarray) -> ParityReport:
        """Compare with the float student."""
        return compare_logits(self.reference, logits, self.task.spec.kind)

    def calibration_suffices(self) -> bool:
        """Whether calibration lost nothing, or changed too few predictions to matter."""
        if self.score(self.calibrated) >= self.score(self.reference):
            return True
        return not self.compare(self.calibrated).differs(CALIBRATION_AGREEMENT)

    def describe_calibration(self) -> str:
        agreement = self.compare(self.calibrated).agreement
        return (
            f"calibration kept {100 * agreement:.2f} % of the predictions on the validation split; "
            f"the score changed from {self.score(self.reference):.4f} to "
            f"{self.score(self.calibrated):.4f}"
        )

    def agrees(self, logits: np.ndarray) -> bool:
        """Whether 99 % of the predictions, or as many as after calibration, are the float ones."""
        least = min(SAME_ANSWERS, self.compare(self.calibrated).agreement)
        return not self.compare(logits).differs(least)

    def rejection(self, logits: np.ndarray) -> str | None:
        """Return why the tuned weights are not used; None if they are."""
        if not self.agrees(logits):
            agreement = self.compare(logits).agreement
            return (
                f"after tuning only {100 * agreement:.2f} % of the predictions on the validation "
                "split equal those of the float student"
            )
        if self.score(logits) > self.score(self.calibrated):
            return None
        return "tuning did not improve the validation score"


def _validation_predictor(student: TextClassifier, data: QatData) -> Predict:
    split = data.task.validation
    encoded = student.encode(split.texts, split.pairs)
    predict: Predict = validation_predictor(encoded, student.pad, PRECISION)
    return predict


def _encode(student: TextClassifier, data: QatData, rows: np.ndarray | None = None) -> Any:
    """Encode rows of the transfer set (default: all) with the teacher's logits."""
    if rows is None:
        rows = np.arange(len(data.transfer.texts))
    texts, logits = data.transfer.texts.take(rows), data.transfer.logits[rows]
    return encode(
        student.tokenizer, texts.texts, texts.pairs, student.max_length, teacher_logits=logits
    )


def _save(model: nn.Module, path: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, path)


def _load(student: PreTrainedModel, scheme: QuantScheme, path: Path) -> PreTrainedModel:
    model = fake_quantized(student, scheme)
    model.load_state_dict(load_file(path))
    return model.eval()
