"""Warn if a result means nothing, after `kdedge distill` and `kdedge bench`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kdedge.cli.console import print_message

if TYPE_CHECKING:
    from kdedge.benchmarks.report import Report
    from kdedge.data.task import Task
    from kdedge.run.layout import RunDir

BAG_OF_WORDS = "tf-idf"
MAJORITY = ("majority", "mean of train")
"""How the names of the baselines in a report begin."""


def warn(warnings: list[str], *, strict: bool) -> None:
    """Print warnings on stderr; with `strict`, the command then ends with exit code 1."""
    for line in warnings:
        print_message(f"warning: {line}")
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


def report_warnings(report: Report) -> list[str]:
    """List the reasons why the scores of a report mean nothing."""
    from kdedge.evaluation.sanity import baseline_warnings, size_warnings

    if not report.task.get("measured"):
        return []
    lines = size_warnings(report.task["texts"])
    scores: dict[str, float] = {}
    majority = bag_of_words = None
    for row in report.rows:
        if row.only_prediction is not None and row.kind != "baseline":
            lines.append(f"{row.label} predicts {row.only_prediction!r} for every text")
        if row.value is None:
            continue
        if row.subject.startswith(MAJORITY):
            majority = row.value
        elif row.subject.startswith(BAG_OF_WORDS):
            bag_of_words = row.value
        elif row.kind != "baseline":
            name = "teacher" if row.label == "teacher torch fp32" else row.label
            scores[name] = row.value
    if majority is None:
        return lines
    return lines + baseline_warnings(scores, majority, bag_of_words)
