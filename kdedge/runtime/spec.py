"""What a classifier answers: kind, label names, metric, one text or two."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["classification", "multilabel", "regression"]
KINDS: tuple[str, ...] = get_args(Kind)

BETWEEN_LABELS = "|"
"""Between the labels of one multilabel cell of a csv or tsv file."""


@dataclass(frozen=True)
class TaskSpec:
    """The part of a task that travels with the student.

    name: short name, used in reports.
    kind: `classification` (one of C labels), `multilabel` (any of C labels), `regression` (one number).
    labels: C names in the order of the logits; `("score",)` for regression.
    metric: a name of `kdedge.runtime.metrics.METRICS`.
    pair: whether an example is two texts.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    metric: str
    pair: bool

    @property
    def outputs(self) -> int:
        """C, the number of logits."""
        return len(self.labels)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "labels": list(self.labels)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TaskSpec:
        return cls(**{**document, "labels": tuple(document["labels"])})
