"""Quantization-aware tuning: a student learns to keep its predictions in int8 arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from kdedge.export.calibrate import calibrate, sensitivity, unpadded_batches
from kdedge.export.fake_model import fake_quantized
from kdedge.export.qat_score import ScoreWithAgreement
from kdedge.export.qat_training import QatData, encode_rows, tune, validation_logits
from kdedge.export.scheme import QuantScheme
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from kdedge.nn.label_loss import LabelLossModule
from kdedge.nn.text_model import TextClassifier
from kdedge.run.progress import SILENT, Progress

WEIGHTS_FILE = "model.safetensors"
CALIBRATED_FILE = "calibrated.safetensors"

SENSITIVITY_TEXTS = 64
"""Texts on which sensitivity is measured: every layer reads them again."""


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
    predict = validation_logits(student, data)
    logits = {
        "float": predict(LabelLossModule(student.model)),
        "calibrated": predict(LabelLossModule(model)),
    }
    score = ScoreWithAgreement(data.task, logits["float"], logits["calibrated"])
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
    batches = unpadded_batches(student.pad, encode_rows(student, data, chosen))
    model = fake_quantized(student.model, scheme).eval()
    progress.say(f"calibrating on {len(chosen)} texts")
    coverage = calibrate(model, student.model, batches)
    few = unpadded_batches(student.pad, encode_rows(student, data, chosen[:SENSITIVITY_TEXTS]))
    return model, Calibration(coverage, sensitivity(model, few))


def _save(model: nn.Module, path: Path) -> None:
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, path)


def _load(student: PreTrainedModel, scheme: QuantScheme, path: Path) -> PreTrainedModel:
    model = fake_quantized(student, scheme)
    model.load_state_dict(load_file(path))
    return model.eval()
