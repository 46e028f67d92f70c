"""Warn if a result means nothing, after `kdedge distill` and `kdedge bench`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kdedge.cli.console import print_message

if TYPE_CHECKING:
    from kdedge.data.task import Task
    from kdedge.run.layout import RunDir


def warn(warnings: list[str], *, strict: bool) -> None:
    """Print warnings on stderr; with `strict`, the command then ends with exit code 1."""
    for line in warnings:
        print_message(f"warning: {line}")
    exit_if_strict(warnings, strict=strict)


def exit_if_strict(warnings: list[str], *, strict: bool) -> None:
    """End the command with exit code 1 if there are warnings and `strict` is on."""
    if warnings and strict:
        sys.exit(1)


def run_warnings(run: RunDir, task: Task) -> list[str]:
    """List the reasons why the scores of a finished run mean nothing."""
    from kdedge.benchmarks import baselines
    from kdedge.distillation.scores import stored_logits
    from kdedge.evaluation.sanity import (
        baseline_warnings,
        one_class_warning,
        only_prediction,
        split_warnings,
    )
    from kdedge.nn.text_model import score_of

    lines = split_warnings(task)
    logits = stored_logits(run, task)
    for name, of_model in logits.items():
        prediction = only_prediction(task.spec, of_model)
        if prediction is not None:
            lines.append(one_class_warning(name, prediction))
    scores = {}
    for name, of_model in logits.items():
        if not name.endswith(" baseline"):
            scores[name] = score_of(task.spec, of_model, task.test)
    constant = baselines.constant(task).logits
    assert constant is not None
    bag_of_words = None
    if baselines.has_words(task):
        words = baselines.tfidf(task).logits
        assert words is not None
        bag_of_words = score_of(task.spec, words, task.test)
    majority = score_of(task.spec, constant, task.test)
    return lines + baseline_warnings(scores, majority, bag_of_words)
