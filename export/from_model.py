"""Export a fine-tuned classifier as it is: calibrated on texts, without distillation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from kdedge.export.build import build_bundle
from kdedge.export.card import OWN_PREDICTIONS
from kdedge.export.export import check_overflow
from kdedge.export.options import DEFAULT_OPTIONS, ExportOptions
from kdedge.export.pack import ExportInput
from kdedge.export.qat import QuantizedStudent, quantize_aware_tune
from kdedge.export.qat_training import QatData
from kdedge.export.registry import find_export
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Split, Task
from kdedge.errors import UsageError
from kdedge.nn.labels import PROBLEM_TYPES
from kdedge.nn.text_model import TextClassifier, score_of
from kdedge.recipe import ObjectiveConfig, QuantizeConfig
from kdedge.run.progress import SILENT, Progress
from kdedge.runtime.layout import MANIFEST
from kdedge.runtime.metrics import DEFAULT_METRIC, decide
from kdedge.runtime.spec import Kind, TaskSpec
from kdedge.teacher.finetune import cap_length
from kdedge.transfer.dataset import TransferSet
from kdedge.transfer.texts import TransferTexts

SMALLEST_CALIBRATION = 8
"""Fewer texts give ranges that other texts leave."""

LONGEST = 512
"""Most tokens of a text, also if neither the model nor its tokenizer has a limit."""


@dataclass(frozen=True)
class CalibrationTexts:
    """N texts that calibrate an int8 file; labels as in `Split.labels`, or None."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray | None


def classifier_spec(config: PretrainedConfig, name: str, *, pair: bool) -> TaskSpec:
    """Return the task that the configuration of a classifier describes.

    Raises:
        UsageError: If the configuration is that of no classifier.
    """
    kind: Kind = "classification"
    if config.problem_type == PROBLEM_TYPES["multilabel"]:
        kind = "multilabel"
    elif config.problem_type == PROBLEM_TYPES["regression"] or config.num_labels == 1:
        kind = "regression"
    labels: tuple[str, ...] = ("score",)
    if kind != "regression":
        labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    if len(set(labels)) < len(labels):
        raise UsageError(
            "the model has two labels of the same name",
            ", ".join(labels[:8]),
            "set model.config.id2label",
        )
    return TaskSpec(name, kind, labels, DEFAULT_METRIC[kind], pair)


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    spec: TaskSpec,
    calibration: CalibrationTexts,
    folder: Path,
    *,
    options: ExportOptions = DEFAULT_OPTIONS,
    progress: Progress = SILENT,
) -> Path:
    """Write, check and pack a fine-tuned classifier; the model itself is not changed.

    Without labels, every file is compared with the model's own predictions.

    Args:
        model: A classifier. Fixed ranges need a BERT; other architectures have dynamic ones.
        tokenizer: Its tokenizer.
        spec: Its task.
        calibration: Texts of the task, which set the ranges and on which the files are checked.
        folder: The folder of the bundle; an older bundle in it is replaced.
        options: What the bundle contains.
        progress: Receives messages.

    Returns:
        The folder.

    Raises:
        UsageError: If the model, an option or the folder does not fit.
        CheckFailed: If a file does not do what the model does. The old bundle is unchanged.
    """
    _check(model, calibration, folder, options)
    classifier = TextClassifier(
        copy.deepcopy(model).cpu().float().eval(),
        copy.deepcopy(tokenizer),
        cap_length(model, int(min(tokenizer.model_max_length, LONGEST))),
    )
    logits = classifier.predict_logits(calibration.texts, calibration.pairs)
    labels = calibration.labels
    if labels is None:
        labels = decide(spec, logits)
    split = Split(calibration.texts, calibration.pairs, _typed(labels, spec))
    task = Task(spec, split, split, split)
    score = score_of(spec, logits, split)
    scores = {
        "metric": spec.metric if calibration.labels is not None else OWN_PREDICTIONS,
        "split_size": len(split),
        "teacher": score,
        "student": score,
    }
    source = ExportInput(
        classifier.model,
        classifier.tokenizer,
        spec,
        classifier.max_length,
        spec.name,
        scores,
        {},
        largest_drop=QuantizeConfig().largest_drop,
    )
    quantized = None
    if options.static_int8:
        quantized = _calibrated(classifier, task, logits, options, progress)
    progress.say(f"{spec.name}: writing the graph")
    build_bundle(source, task, folder, options, quantized=quantized, progress=progress)
    return folder


def _check(
    model: PreTrainedModel, calibration: CalibrationTexts, folder: Path, options: ExportOptions
) -> None:
    check_overflow(options)
    if options.static_int8 and find_export(model) is None:
        raise UsageError(
            "int8 with fixed ranges needs a BertForSequenceClassification",
            f"the model is a {type(model).__name__}",
            'give scheme="dynamic", precisions=("fp32",), or distill it first',
        )
    if options.trim_vocab is not None:
        raise UsageError(
            "only students of a run can get a smaller vocabulary",
            f"trim_vocab={options.trim_vocab}",
            "leave trim_vocab out",
        )
    if options.with_eval:
        raise UsageError(
            "only students of a run have a test split to pack",
            "with_eval=True",
            "leave with_eval out, and give `kdedge bench` your texts with --data",
        )
    if len(calibration.texts) < SMALLEST_CALIBRATION:
        raise UsageError(
            f"calibration needs at least {SMALLEST_CALIBRATION} texts, better a few hundred",
            f"{len(calibration.texts)} texts",
            "give more texts of the task",
        )
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise UsageError(
            "the folder exists and is not a bundle", str(folder), "name another folder with out="
        )


def _typed(labels: np.ndarray, spec: TaskSpec) -> np.ndarray:
    return labels.astype(np.int64 if spec.kind == "classification" else np.float32)


def _calibrated(
    classifier: TextClassifier,
    task: Task,
    logits: np.ndarray,
    options: ExportOptions,
    progress: Progress,
) -> QuantizedStudent:
    """Return the model in int8 arithmetic, with ranges from the calibration texts."""
    split = task.train
    origins = ("labelled",) * len(split)
    texts = TransferTexts.of(split.texts, split.pairs, origins, split.labels)
    recipe = QuantizeConfig(steps=0)
    scheme = options.scheme
    data = QatData(task, TransferSet(texts, logits), recipe, ObjectiveConfig(), seed=0)
    with TemporaryDirectory(prefix="kdedge-") as folder:
        result = quantize_aware_tune(classifier, scheme, data, Path(folder), progress=progress)
        classifier.model.eval()
        return QuantizedStudent.load(classifier.model, scheme, Path(folder), result)
