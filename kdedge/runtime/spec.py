"""What a classifier predicts: kind of task, labels, metric, one text or two."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["classification", "multilabel", "regression"]
KINDS: tuple[str, ...] = get_args(Kind)

BETWEEN_LABELS = "|"
"""Separates the labels in a multilabel cell of a csv or tsv file."""


@dataclass(frozen=True)
class TaskSpec:
    """The part of a task that is stored with the student.

    Attributes:
        name: Short name for reports.
        kind: `classification` (one of C labels), `multilabel` (any of C labels) or
            `regression` (one number).
        labels: C names in the order of the logits; `("score",)` for regression.
        metric: A name in `kdedge.runtime.metrics.METRICS`.
        pair: Whether an example consists of two texts.
        threshold: For multilabel, the probability above which a label is predicted.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    metric: str
    pair: bool
    threshold: float = 0.5

    @property
    def outputs(self) -> int:
        """The number of logits, C."""
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TaskSpec:
        return cls(**{**document, "labels": tuple(document["labels"])})
