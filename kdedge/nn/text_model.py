"""A classifier with its tokenizer: texts in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, DataError, IntegrityError, UsageError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import native_precision
from kdedge.nn.inference import BATCH_TOKENS, predict_logits
from kdedge.nn.tokenization import encode
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import read_result, read_stage, verify_stage
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec

VALIDATION_LOGITS = "validation_logits.npy"

ROUNDING = 1e-9
"""Largest difference of equal scores, which may come from sums in another order."""

LOGIT_TOLERANCE = 0.02
"""Largest difference of a logit between the machine that trained and this one, as a share of the
largest logit. A GPU may train in TF32, whose mantissa has 10 bits."""

REMAKE_HINT = (
    "restore the files; or remove the folder and run `kdedge distill` on the recipe to make the "
    "stage again"
)


@dataclass(frozen=True)
class TextClassifier:
    """A classifier and its tokenizer: a teacher, or a student once it is built."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    max_length: int

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, **columns: np.ndarray
    ) -> Encoded:
        """Tokenize N texts and attach columns of N rows."""
        return encode(self.tokenizer, texts, pairs, self.max_length, **columns)

    @property
    def pad(self) -> PaddingCollator:
        return PaddingCollator(self.tokenizer.pad_token_id)

    def predict_logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        batch_tokens: int = BATCH_TOKENS,
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> np.ndarray:
        """Compute logits (N, C) float32 for N texts.

        Args:
            precision: One of a recipe's: "fp32", "bf16", "fp16" or "auto".

        Raises:
            CheckFailed: If a logit is not finite.
        """
        logits = self.predict_encoded(
            self.encode(texts, pairs),
            batch_tokens=batch_tokens,
            precision=precision,
            progress=progress,
        )
        check_finite(logits, texts)
        return logits

    def predict_encoded(
        self,
        data: Encoded,
        *,
        batch_tokens: int = BATCH_TOKENS,
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> np.ndarray:
        """Compute logits (N, C) float32 for N tokenized texts, as `predict_logits` does."""
        return predict_logits(
            self.model,
            data,
            self.pad,
            batch_tokens=batch_tokens,
            precision=native_precision(precision, self.model.device),
            progress=progress,
        )


def check_finite(logits: np.ndarray, texts: Sequence[str]) -> None:
    """Raise CheckFailed if a logit (N, C) of N texts is not finite; the error quotes the text."""
    finite = np.isfinite(logits).all(1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise CheckFailed(
            "the model gives a logit that is not finite",
            f"text {row}: {texts[row][:80]!r}",
            "check its weights",
        )


@dataclass(frozen=True)
class MeasuredResult:
    """Scores and sizes of a saved classifier.

    Attributes:
        metric: Name of the metric of both scores.
        test: Score on the test split.
        validation: Score on the validation split.
        parameters: Number of weights.
        max_length: Number of tokens that the classifier reads of a text.
    """

    metric: str
    test: float
    validation: float
    parameters: int
    max_length: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Read the fields of this class; other keys of the document are ignored."""
        return cls(**{field.name: document[field.name] for field in fields(cls)})


def save_measured(
    model: TextClassifier, task: Task, folder: Path, *, progress: Progress = SILENT
) -> MeasuredResult:
    """Save weights, tokenizer and logits of both splits; return scores and sizes."""
    progress.start("measuring on the test split", len(task.test))
    logits = model.predict_logits(task.test.texts, task.test.pairs, progress=progress)
    progress.finish()
    validation = model.predict_logits(task.validation.texts, task.validation.pairs)
    if is_main():
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        np.save(folder / "test_logits.npy", logits)
        np.save(folder / VALIDATION_LOGITS, validation)
    barrier()
    return MeasuredResult(
        metric=task.spec.metric,
        test=score_of(task.spec, logits, task.test),
        validation=score_of(task.spec, validation, task.validation),
        parameters=sum(p.numel() for p in model.model.parameters()),
        max_length=model.max_length,
    )


def read_measured(folder: Path, task: Task) -> tuple[MeasuredResult, np.ndarray]:
    """Return the result of a finished stage of `save_measured`, and its test logits (N, C).

    Every file of the stage is read and compared with what was written, and the stored score with
    the stored logits.

    Raises:
        UsageError: If the stage was measured on other data than `task`.
        IntegrityError: If a file has changed, or the score is not that of the logits.
    """
    verify_stage(folder)
    inputs = read_stage(folder).inputs
    logits = np.load(folder / "test_logits.npy", allow_pickle=False)
    expected = (len(task.test), task.spec.outputs)
    if logits.shape != expected:
        difference = f"{logits.shape[0]} texts of {logits.shape[1]} outputs instead of {expected}"
        raise _other_data(folder, difference)
    if inputs.get("data", task.content_hash()) != task.content_hash():
        raise _other_data(folder, "as many texts, but not the same")
    result = read_result(folder, MeasuredResult)
    _check_score(folder, result, score_of(task.spec, logits, task.test))
    return result, logits


def _other_data(folder: Path, difference: str) -> UsageError:
    return UsageError(
        "the data has changed since this stage was measured",
        f"{folder}: {difference}",
        "run `kdedge distill --force` on the recipe, or restore the data",
    )


def read_validation_logits(folder: Path, task: Task) -> np.ndarray:
    """Return the validation logits (N, C) of a stage that `read_measured` accepts."""
    logits = np.load(folder / VALIDATION_LOGITS, allow_pickle=False)
    if logits.shape != (len(task.validation), task.spec.outputs):
        raise IntegrityError(
            "the stored validation logits do not fit the task",
            f"{folder}: {logits.shape}",
            REMAKE_HINT,
        )
    return np.asarray(logits)


def _check_score(folder: Path, result: MeasuredResult, score: float) -> None:
    """Raise IntegrityError unless the stored test score is the given one."""
    # Not `>`: a score that is not a number must fail too.
    if not abs(result.test - score) <= ROUNDING:
        raise IntegrityError(
            "the stored score of a stage is not that of its logits",
            f"{folder}: {result.metric} {result.test:.4f} is stored, and the logits score "
            f"{score:.4f}",
            REMAKE_HINT,
        )


def check_stored_logits(folder: Path, stored: np.ndarray, measured: np.ndarray, task: Task) -> None:
    """Check that a model still gives the logits on the test split that its stage stored.

    Args:
        folder: The folder of the stage.
        stored: Its logits. *Shape:* (N, C)
        measured: The model's logits now. *Shape:* (N, C)

    Raises:
        IntegrityError: If a logit differs by more than devices and numbers of threads explain.
    """
    difference = np.abs(stored.astype(np.float64) - measured).max()
    allowed = LOGIT_TOLERANCE * max(1.0, float(np.abs(stored).max()))
    if difference <= allowed:
        return
    spec, split = task.spec, task.test
    raise IntegrityError(
        "the weights of a stage contradict the results that it stored",
        f"{folder}: {spec.metric} {score_of(spec, stored, split):.4f} is stored, and the weights "
        f"score {score_of(spec, measured, split):.4f} on the test split; logits differ by up to "
        f"{difference:.3g}, {allowed:.2g} is allowed",
        REMAKE_HINT,
    )


def score_of(spec: TaskSpec, logits: np.ndarray, split: Split) -> float:
    """Return the task's metric for logits (N, C) on a split of N examples."""
    if logits.shape != (len(split), spec.outputs):
        raise DataError(
            "logits and examples do not belong together",
            f"{logits.shape} for {len(split)} examples of {spec.outputs} outputs",
        )
    return metrics.score(spec, logits, split.labels)
