"""How a transformers configuration names the outputs of a task."""

from __future__ import annotations

from typing import Any

from kdedge.runtime.spec import TaskSpec

PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


def label_config(spec: TaskSpec) -> dict[str, Any]:
    """Return the settings of a transformers configuration that describe the task's outputs."""
    return {
        "num_labels": spec.outputs,
        "id2label": dict(enumerate(spec.labels)),
        "label2id": {name: i for i, name in enumerate(spec.labels)},
        "problem_type": PROBLEM_TYPES[spec.kind],
    }
