"""Find reasons to doubt the scores of a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdedge.evaluation.sanity import baseline_warnings, size_warnings

if TYPE_CHECKING:
    from kdedge.benchmarks.report import Report

BAG_OF_WORDS = "tf-idf"
MAJORITY = ("majority", "mean of train")
"""How the names of the baselines in a report begin."""


def result_warnings(report: Report) -> list[str]:
    """List reasons to doubt the scores of a report, such as one prediction for every text."""
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
