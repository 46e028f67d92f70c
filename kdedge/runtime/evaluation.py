"""The evaluation texts of a bundle: texts of its test split, to measure it on a device.

`evaluation.json` is one object: `texts`, `pairs` for a task on pairs, `labels`, and
`teacher_logits` if they are known. Predictions do not need it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdedge.errors import IntegrityError, UsageError
from kdedge.runtime.bundle import MAX_STRUCTURE, Bundle
from kdedge.runtime.layout import EVALUATION, MAX_EVALUATION_BYTES
from kdedge.runtime.spec import TaskSpec


@dataclass(frozen=True)
class EvaluationTexts:
    """N labelled texts of the test split.

    Attributes:
        pairs: N second texts, or None for single-text tasks.
        labels: Class indices, *shape:* (N,) int64; for multilabel zeros and ones, *shape:* (N, C)
            float32; for regression scores, *shape:* (N,) float32.
        teacher_logits: The teacher's logits, *shape:* (N, C) float32, or None.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: np.ndarray
    teacher_logits: np.ndarray | None

    def to_text(self) -> str:
        """Return the content of evaluation.json.

        Raises:
            UsageError: If it would be larger than a bundle may hold.
        """
        document: dict[str, Any] = {"texts": self.texts, "labels": self.labels.tolist()}
        if self.pairs is not None:
            document["pairs"] = self.pairs
        if self.teacher_logits is not None:
            document["teacher_logits"] = _shortest(self.teacher_logits)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        size = len(text.encode("utf-8"))
        structure = sum(text.count(mark) for mark in "[{,")
        if size > MAX_EVALUATION_BYTES or structure > MAX_STRUCTURE:
            raise UsageError(
                "the test split is too large to travel with a bundle",
                f"{len(self.texts):,} texts need {size:,} bytes and {structure:,} commas and"
                f" brackets; {MAX_EVALUATION_BYTES:,} and {MAX_STRUCTURE:,} are allowed",
                "export without --with-eval, and give `kdedge bench` some of the texts with --data",
            )
        return text

    @classmethod
    def from_json(cls, document: Any, spec: TaskSpec) -> EvaluationTexts:
        """Validate a parsed evaluation.json. Raises IntegrityError if it is malformed."""
        if not isinstance(document, dict):
            raise _malformed("it is not an object")
        texts = _strings(document, "texts")
        if not texts:
            raise _malformed("it holds no texts")
        pairs = None
        if spec.pair:
            pairs = _strings(document, "pairs")
            if len(pairs) != len(texts):
                raise _malformed(f"{len(texts)} texts and {len(pairs)} pairs")
        teacher = None
        if document.get("teacher_logits") is not None:
            teacher = _numbers(document, "teacher_logits", (len(texts), spec.outputs))
        return cls(texts, pairs, _labels(document, spec, len(texts)), teacher)


def read_evaluation(bundle: Bundle) -> EvaluationTexts | None:
    """Return the evaluation texts of a bundle; None if it has none.

    Raises:
        IntegrityError: If the file is not the one that was exported, or is malformed.
    """
    if EVALUATION not in bundle.manifest.files:
        return None
    return EvaluationTexts.from_json(bundle.json(EVALUATION), bundle.manifest.spec)


def _shortest(logits: np.ndarray) -> list[list[float]]:
    """Return numbers with as few digits as float32 needs to be read back unchanged."""
    return [[float(str(value)) for value in row] for row in logits.astype(np.float32)]


def _strings(document: dict[str, Any], name: str) -> tuple[str, ...]:
    values = document.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _malformed(f"{name} is not a list of texts")
    return tuple(values)


def _labels(document: dict[str, Any], spec: TaskSpec, count: int) -> np.ndarray:
    shape: tuple[int, ...] = (count,)
    if spec.kind == "multilabel":
        shape = (count, spec.outputs)
    labels = _numbers(document, "labels", shape)
    if spec.kind == "regression":
        return labels
    largest = 1 if spec.kind == "multilabel" else spec.outputs - 1
    if (labels != np.floor(labels)).any() or labels.min() < 0 or labels.max() > largest:
        raise _malformed(f"labels are not whole numbers from 0 to {largest}")
    return labels.astype(np.int64) if spec.kind == "classification" else labels


def _numbers(document: dict[str, Any], name: str, shape: Sequence[int]) -> np.ndarray:
    """Return a list of finite numbers as float32. Raises IntegrityError for another shape."""
    try:
        values = np.array(document.get(name), np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise _malformed(f"{name} are not numbers in rows of equal length") from error
    if values.shape != tuple(shape) or not np.isfinite(values).all():
        raise _malformed(f"{name} have the shape {values.shape}, or a value is not finite")
    return values


def _malformed(detail: str) -> IntegrityError:
    return IntegrityError(f"{EVALUATION} of the bundle is malformed", detail, "export again")
