"""Quantization-aware tuning: a student learns to answer as before in the numbers of the int8 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kdedge.export.calibrate import calibrate, sensitivity, unpadded_batches
from kdedge.export.fake_model import fake_quantized, quantized_layers, range_owners
from kdedge.export.fake_quant import ActivationRange
from kdedge.export.parity import SAME_ANSWERS, ParityReport, compare_logits
from kdedge.export.scheme import QuantScheme
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from kdedge.data.task import Task
from kdedge.nn import losses
from kdedge.nn.device import this_device
from kdedge.nn.losses import LogitLoss, logit_loss
from kdedge.nn.text_model import TextClassifier
from kdedge.nn.tokenization import encode
from kdedge.nn.training import Training, train, validation_predictor
from kdedge.recipe import FitConfig, ObjectiveConfig, QuantizeConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime import metrics
from kdedge.students.bilstm import BiLstmForSequenceClassification
from kdedge.transfer.dataset import TransferSet

WEIGHTS_FILE = "model.safetensors"
CALIBRATED_FILE = "calibrated.safetensors"
UNTOUCHED = 0.995
"""Share of the float student's answers on the validation split above which calibrated ranges are good enough."""

SENSED_TEXTS = 64
"""Texts that each layer's sensitivity is measured on: every layer reads them again."""


@dataclass(frozen=True)
class QatData:
    """What a student is tuned on: its task, its transfer set, the recipe's section, and the objective it was distilled with."""

    task: Task
    transfer: TransferSet
    recipe: QuantizeConfig
    objective: ObjectiveConfig
    seed: int


class QatResult(nn.Module):
    """The fake-quantized student beside the float one: the teacher's logits, and the float student's logits and hidden states, to match.

    The teacher's are matched by the loss that taught the float student: KL asks only for its shares, and a student taught
    so has logits of its own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        reference: PreTrainedModel,
        recipe: QuantizeConfig,
        teaching: LogitLoss,
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.teaching = model, recipe, teaching
        self._reference = (reference.eval(),)  # in a tuple: not a part of what is trained or saved

    def train(self, mode: bool = True) -> QatResult:
        """Without dropout in any mode: the float student's states, which are to be met, have none."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(self, teacher_logits: torch.Tensor, **batch: torch.Tensor) -> dict[str, Any]:
        logits, hidden = read_states(self.model, batch)
        with torch.no_grad():
            before, wanted = read_states(self._reference[0], batch)
        apart = [
            losses.hidden_mse(mine, theirs, mask)
            for (mine, mask), (theirs, _) in zip(hidden, wanted, strict=True)
        ]
        parts = {
            "logits": self.teaching(logits.float(), teacher_logits.float()),
            "float": losses.logit_mse(logits.float(), before.float()),
            "hidden": torch.stack(apart).mean(),
        }
        loss = (
            parts["logits"]
            + self.recipe.float_weight * parts["float"]
            + self.recipe.hidden_weight * parts["hidden"]
        )
        return {"loss": loss, "logits": logits, "parts": parts}


States = list[tuple[torch.Tensor, torch.Tensor]]
"""Hidden states (B, T, H), each with the mask (B, T) of those that the head reads in the end."""


def read_states(
    model: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, States]:
    """Logits (B, C) and hidden states: of a BERT after each layer but the last, of a BiLSTM what its head reads."""
    if not isinstance(model, BiLstmForSequenceClassification):
        answer = model(**batch, output_hidden_states=True)
        # The last layer's other tokens are never read by the head, nor computed on the device.
        return answer.logits, [
            (hidden, batch["attention_mask"]) for hidden in answer.hidden_states[:-1]
        ]
    seen: States = []
    hook = model.dense.register_forward_pre_hook(
        lambda _, given: seen.append((given[0][:, None], torch.ones_like(given[0][:, :1])))
    )
    try:
        return model(**batch).logits, seen
    finally:
        hook.remove()


def quantize_aware_tune(
    student: TextClassifier,
    scheme: QuantScheme,
    context: QatData,
    folder: Path,
    *,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Leave in `folder` a fake-quantized copy of a student, calibrated on its transfer set and, for `steps` > 0, tuned; both are kept.

    Tuning is training: it also moves answers that calibration left as they were. So it is done only where calibration costs
    something on the validation split and changes more than 0.5 % of the answers there, and kept only where it wins some of
    that back and still gives 99 % of the float student's answers, or as many as the calibrated one.
    Returns figures: share of values the ranges hold, sensitivity of each layer, layers left in fp32; validation scores
    of the float, calibrated and, where there is one, tuned student, and shares of the float student's answers that
    the latter two give; and which of the two the weights are.
    """
    model, figures = calibrated(student, scheme, context, progress=progress)
    validation = _validation(student, context)
    answers = {
        "float": validation(_Wrapped(student.model)),
        "calibrated": validation(_Wrapped(model)),
    }
    judge = _ScoreWithAgreement(context.task, answers["float"], answers["calibrated"])
    _save(model, folder / CALIBRATED_FILE)
    final = "calibrated"
    if context.recipe.steps and judge.content():
        left = f"calibration left {100 * judge.beside(answers['calibrated']).agreement:.2f} % of the answers on the validation split as they were"
        progress.say(
            f"{left}, the score {judge.score(answers['calibrated']):.4f} of {judge.score(answers['float']):.4f}: there is nothing to tune for"
        )
    elif context.recipe.steps:
        progress.say(
            "tuning; a validation score below -1 marks weights under which too many answers are no longer the float student's"
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        tune(model, student, context, folder, score=judge, progress=progress)
        answers["tuned"] = validation(_Wrapped(model))
        if judge.holds(answers["tuned"]) and judge.score(answers["tuned"]) > judge.score(
            answers["calibrated"]
        ):
            final = "tuned"
        else:
            progress.say(f"the calibrated weights are kept: {judge.verdict(answers['tuned'])}")
            model.load_state_dict(before)
    _save(model.eval(), folder / WEIGHTS_FILE)
    return figures | {
        "validation": {name: judge.score(logits) for name, logits in answers.items()},
        "agreement": {
            name: judge.beside(logits).agreement
            for name, logits in answers.items()
            if name != "float"
        },
        "weights": final,
    }


def calibrated(
    student: TextClassifier, scheme: QuantScheme, context: QatData, *, progress: Progress = SILENT
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A fake-quantized copy of a student with ranges from its transfer set; the share of values they hold, each layer's sensitivity, layers left in fp32."""
    recipe = context.recipe
    chosen = np.random.default_rng(context.seed).permutation(len(context.transfer))[
        : recipe.calibration_texts
    ]
    batches = unpadded_batches(student.pad, _encode(student, context, chosen).tokens)
    model = fake_quantized(student.model, scheme).eval()
    progress.say(f"calibrating on {len(chosen)} texts")
    kept = calibrate(model, student.model, batches, recipe.calibration)
    felt = sensitivity(
        model,
        unpadded_batches(student.pad, _encode(student, context, chosen[:SENSED_TEXTS]).tokens),
    )
    for name, layer in quantized_layers(model):
        layer.enabled = recipe.keep_float_above is None or felt[name] <= recipe.keep_float_above
    if isinstance(model, BiLstmForSequenceClassification) and model.lstm.enabled:
        model.embedding.enabled = True  # an LSTM in integers reads a table of integers
    left = [name for name, layer in quantized_layers(model) if not layer.enabled]
    return model, {"values_in_range": kept, "sensitivity": felt, "float_layers": left}


def tune(
    model: PreTrainedModel,
    student: TextClassifier,
    context: QatData,
    folder: Path,
    *,
    score: Callable[[np.ndarray], float],
    progress: Progress = SILENT,
) -> None:
    """Train a calibrated student in place, and its ranges with it; score: logits (N, C) of the validation split -> what chooses its best moment."""
    recipe = context.recipe
    for owner in range_owners(model).values():
        owner.range.requires_grad_(recipe.learn_ranges)
    tuning = QatResult(
        model,
        student.model.to(this_device()),
        recipe,
        logit_loss(context.objective, context.task.spec.kind),
    )
    epochs = recipe.steps * recipe.batch_size / len(context.transfer)
    fit = FitConfig(
        epochs=epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        checks=recipe.checks,
        precision="fp32",
    )
    title, rates = "quantization-aware tuning", range_rates(tuning, recipe)
    plan = Training(
        fit,
        context.seed,
        _encode(student, context),
        student.pad,
        _validation(student, context),
        score,
        title,
        rates,
    )
    try:
        train(tuning, plan, folder, progress=progress)
    finally:
        tuning.cpu()
        student.model.cpu()


def range_rates(model: nn.Module, recipe: QuantizeConfig) -> dict[str, float]:
    """Learning rates of the ends of a model's ranges, where they learn: Adam's steps are as long as the rate, so it is a share of the width, 0 held."""
    rates = {}
    for name, owner in model.named_modules():
        if isinstance(owner, ActivationRange):
            width = (owner.high.clamp(min=0) - owner.low.clamp(max=0)).item()
            rates |= {
                f"{name}.{end}": recipe.range_learning_rate * width
                for end, value in owner.named_parameters()
                if value.requires_grad
            }
    return rates


def _validation(student: TextClassifier, context: QatData) -> Callable[[nn.Module], np.ndarray]:
    """What reads the validation split: model -> logits (N, C)."""
    split = context.task.validation
    return validation_predictor(student.encode(split.texts, split.pairs), student.pad)


def _save(model: nn.Module, path: Path) -> None:
    save_file(
        {name: value.detach().contiguous() for name, value in model.state_dict().items()}, path
    )


def load_tuned(
    student: PreTrainedModel,
    scheme: QuantScheme,
    folder: Path,
    figures: Mapping[str, Any],
    file: str = WEIGHTS_FILE,
) -> PreTrainedModel:
    """A model that `quantize_aware_tune` saved."""
    model = fake_quantized(student, scheme)
    model.load_state_dict(load_file(folder / file))
    for name, layer in quantized_layers(model):
        layer.enabled = name not in figures["float_layers"]
    return model.eval()


@dataclass(frozen=True)
class _ScoreWithAgreement:
    """Rates logits (N, C) of the validation split: by their score; where too many answers are not the float student's, by how few these are, below -1.

    reference, calibrated: logits of the float and of the calibrated student.
    """

    task: Task
    reference: np.ndarray
    calibrated: np.ndarray

    def __call__(self, logits: np.ndarray) -> float:
        score = self.score(logits)
        return score if self.holds(logits) else self.beside(logits).agreement - 2

    def score(self, logits: np.ndarray) -> float:
        return metrics.score(
            self.task.spec.metric, self.task.spec.kind, logits, self.task.validation.labels
        )

    def beside(self, logits: np.ndarray) -> ParityReport:
        return compare_logits(self.reference, logits, self.task.spec.kind)

    def content(self) -> bool:
        """Whether calibration has lost nothing, or changed so few answers that what it lost is luck."""
        return self.score(self.calibrated) >= self.score(self.reference) or not self.beside(
            self.calibrated
        ).differs(UNTOUCHED)

    def holds(self, logits: np.ndarray) -> bool:
        """Whether the share of the float student's answers is 99 %, or the calibrated student's."""
        return not self.beside(logits).differs(
            min(SAME_ANSWERS, self.beside(self.calibrated).agreement)
        )

    def verdict(self, logits: np.ndarray) -> str:
        """Why these are not taken."""
        if self.holds(logits):
            return "tuning made the validation score no better"
        return f"after tuning {100 * self.beside(logits).agreement:.2f} % of the answers on the validation split were the float student's"


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


def _encode(student: TextClassifier, context: QatData, chosen: np.ndarray | None = None) -> Any:
    texts, logits = context.transfer.texts, context.transfer.logits
    rows = np.arange(len(texts)) if chosen is None else chosen
    some = texts.take(rows)
    return encode(
        student.tokenizer, some.texts, some.pairs, student.max_length, teacher_logits=logits[rows]
    )
