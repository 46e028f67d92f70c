"""A classifier with its tokenizer: texts in, logits out, and what it scores written beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kdedge.data.task import Split, Task
from kdedge.errors import CheckFailed, DataError, UsageError
from kdedge.nn.batching import Encoded, PaddingCollator
from kdedge.nn.device import native_precision
from kdedge.nn.inference import predict_logits
from kdedge.nn.tokenization import encode
from kdedge.run.processes import barrier, is_main
from kdedge.run.progress import SILENT, Progress
from kdedge.run.stage import read_stage
from kdedge.runtime import metrics
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class TextClassifier:
    """A classifier and the tokenizer it reads with: a teacher, or a student once it is built."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    max_length: int

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None, **columns: np.ndarray
    ) -> Encoded:
        return encode(self.tokenizer, texts, pairs, self.max_length, **columns)

    @property
    def pad(self) -> PaddingCollator:
        return PaddingCollator(self.tokenizer.pad_token_id)

    def predict_logits(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        batch_tokens: int = 4096,
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> np.ndarray:
        """Logits (N, C) float32 for N texts, computed in `precision` as recipes name it.

        Raises GateFailed where one is not finite.
        """
        kind = native_precision(precision, next(self.model.parameters()).device)
        data = self.encode(texts, pairs)
        logits = predict_logits(
            self.model, data, self.pad, batch_tokens=batch_tokens, precision=kind, progress=progress
        )
        if not np.isfinite(logits).all():
            row = int(np.flatnonzero(~np.isfinite(logits).all(1))[0])
            raise CheckFailed(
                "the model gives a logit that is not finite",
                f"text {row}: {texts[row][:80]!r}",
                "check its weights",
            )
        return logits


def save_measured(
    model: TextClassifier, task: Task, folder: Path, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Save weights and tokenizer, the logits on the test split, and return the scores that follow from them."""
    progress.start("measuring on the test split", len(task.test))
    logits = model.predict_logits(task.test.texts, task.test.pairs, progress=progress)
    progress.finish()
    validation = model.predict_logits(task.validation.texts, task.validation.pairs)
    if is_main():
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        np.save(folder / "test_logits.npy", logits)
    barrier()
    return {
        "metric": task.spec.metric,
        "test": score_of(task.spec, logits, task.test),
        "validation": score_of(task.spec, validation, task.validation),
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "max_length": model.max_length,
    }


def read_measured(folder: Path, task: Task) -> tuple[dict[str, Any], np.ndarray]:
    """What `save_measured` left in a finished stage: its result, and its logits (N, C) on the test split.

    Raises UsageError where the stage was made from other data than `task`.
    """
    whole = read_stage(folder)
    logits = np.load(folder / "test_logits.npy", allow_pickle=False)
    same = whole["inputs"].get("data", task.content_hash()) == task.content_hash()
    if not same or logits.shape != (len(task.test), task.spec.outputs):
        raise UsageError(
            "the data has changed since this stage was measured",
            f"{folder}: {logits.shape[0]} texts of {logits.shape[1]} outputs; the recipe now gives {len(task.test)} of {task.spec.outputs}"
            + (
                ", as many but not the same"
                if logits.shape == (len(task.test), task.spec.outputs)
                else ""
            ),
            "run `kdedge distill --force` on the recipe, or bring the data back",
        )
    return whole["result"], logits


def score_of(spec: TaskSpec, logits: np.ndarray, split: Split) -> float:
    """The task's metric of logits (N, C) on a split of N examples."""
    if logits.shape != (len(split), spec.outputs):
        raise DataError(
            "logits and examples do not belong together",
            f"{logits.shape} for {len(split)} examples of {spec.outputs} outputs",
        )
    return metrics.score(spec.metric, spec.kind, logits, split.labels)
