"""Add the equivalence of all subjects to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdedge.benchmarks.equivalence.compute import Evidence, left_out, rows_with_equivalence
from kdedge.benchmarks.equivalence.disagreements import with_disagreements
from kdedge.benchmarks.measure import timed_examples
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.subjects import Subject

from kdedge.run.progress import Progress


def with_equivalence(
    report: Report,
    subjects: Sequence[Subject],
    evidence: Evidence,
    *,
    options: Options,
    progress: Progress,
) -> Report:
    """Compare every subject of a report with the teacher; list the figures that are missing.

    Args:
        report: A report whose rows belong to `subjects`.
        subjects: What was measured.
        evidence: The test texts and the teacher's logits.
        options: `show_texts` decides whether the report shows texts.
        progress: Receives messages.
    """
    pairs = list(zip(report.rows, subjects, strict=True))
    rows = rows_with_equivalence(pairs, evidence, seed=options.seed, progress=progress)
    timed = evidence.tokens[timed_examples(evidence.examples, options)]
    report = replace(
        report,
        rows=tuple(rows),
        left_out=tuple(left_out(pairs, evidence)),
        timed_tokens=tuple(timed.tolist()),
    )
    return with_disagreements(report, subjects, evidence) if options.show_texts else report
