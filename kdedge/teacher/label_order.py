"""Check that a finished teacher's outputs are in the order of the task's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from transformers import PreTrainedModel

from kdedge.errors import UsageError
from kdedge.runtime.spec import TaskSpec
from kdedge.wording import listed

STANDARD_ERRORS = 4
"""How clearly another order must be better before it is an error."""

MOST_SHOWN = 8
"""Labels that the hint lists."""


def check_label_names(model: PreTrainedModel, spec: TaskSpec, name: str | Path) -> None:
    """Raise UsageError if the teacher names the task's labels in another order."""
    outputs, labels = _names(model, spec)
    if outputs == labels or set(outputs) != set(labels):
        return
    for i, (output, label) in enumerate(zip(outputs, labels, strict=True)):
        if output != label:
            raise UsageError(
                "the teacher's labels are in another order than the task's",
                f"{name}: output {i} is {output}, label {i} of the task is {label}",
                "list task.labels in the teacher's order if the data has label names; "
                "else relabel the data",
            )


def check_label_order(
    model: PreTrainedModel, spec: TaskSpec, logits: np.ndarray, labels: np.ndarray
) -> None:
    """Check the order of outputs whose names say nothing, such as LABEL_0, on labelled texts.

    It is an error if the outputs in another order are right on more texts than in the given
    order, and on more than the majority class, each by four standard errors.

    Args:
        model: The teacher.
        logits: Its logits on N validation texts. *Shape:* (N, C)
        labels: The classes of these texts. *Shape:* (N,)

    Raises:
        UsageError: If another order fits much better; names an output and the label that fits.
    """
    if spec.kind != "classification":
        return
    names, task_names = _names(model, spec)
    if names == task_names:
        return
    counts = np.zeros((spec.outputs, spec.outputs), dtype=np.int64)
    np.add.at(counts, (logits.argmax(axis=1), labels), 1)
    outputs, best = linear_sum_assignment(counts, maximize=True)  # the best label of each output
    right, right_if_renamed = counts[outputs, outputs], counts[outputs, best]
    changed = best != outputs
    gain = int((right_if_renamed - right).sum())
    # The difference of two paired counts has the variance of the texts that only one of them
    # contains (McNemar).
    only_one = int((right_if_renamed + right)[changed].sum())
    texts = len(labels)
    majority = int(counts.sum(axis=0).max())
    above_majority = int(right_if_renamed.sum()) - majority
    error_of_majority = np.sqrt(majority * (texts - majority) / texts)
    if gain <= STANDARD_ERRORS * np.sqrt(only_one):
        return
    if above_majority <= STANDARD_ERRORS * error_of_majority:
        return
    first = int(np.flatnonzero(changed)[0])
    order = listed([spec.labels[i] for i in best], MOST_SHOWN)
    raise UsageError(
        "the teacher's outputs are in another order than the task's labels",
        f"output {first} fits {spec.labels[best[first]]}, not {spec.labels[first]}: in another "
        f"order {right_if_renamed.sum()} of {texts} validation texts are right, not {right.sum()}",
        f"set task.labels in the order {order} if the data has label names, "
        "else relabel the data; if the order is right, write the task's labels into id2label of "
        "the teacher's config.json",
    )


def _names(model: PreTrainedModel, spec: TaskSpec) -> tuple[list[str], list[str]]:
    """Return the names of the teacher's outputs and of the task's labels, in lower case."""
    outputs = [str(model.config.id2label[i]).casefold() for i in range(spec.outputs)]
    return outputs, [label.casefold() for label in spec.labels]
