"""The table of a comparison with an earlier bench."""

from __future__ import annotations

from collections.abc import Mapping

from kdedge.benchmarks.changes import Change, Comparison
from kdedge.benchmarks.figures import NOTHING
from kdedge.benchmarks.scenarios.process_ratio import CONFIDENCE, RELEVANT
from kdedge.benchmarks.scenarios.tables import ScenarioTable


def change_table(comparison: Comparison, labels: Mapping[str, str]) -> ScenarioTable:
    """Build the table; `labels`: `Subject.key` -> the subject's name in tables."""
    rows = []
    for change in comparison.changes:
        rows.append((labels.get(change.subject, change.subject), *_cells(change)))
    for subject in comparison.only_new:
        rows.append((labels.get(subject, subject), "not in the earlier bench", *[NOTHING] * 5))
    for subject in comparison.only_old:
        rows.append((subject, "only in the earlier bench", *[NOTHING] * 5))
    return ScenarioTable(
        "against",
        "Against the earlier bench",
        f"The earlier bench is of {comparison.created}. Ratio is new time divided by old time,"
        f" with an interval of {100 * CONFIDENCE:.0f} % over processes. The time of a fixed"
        " piece of work corrects it for a faster or slower machine."
        f" A change below {100 * RELEVANT:.0f} % is no difference.",
        ("subject", "time", "ratio", "interval", "machine", "score", "old and new score"),
        tuple(rows),
    )


def _cells(change: Change) -> tuple[str, ...]:
    interval = f"{change.low:.3f}–{change.high:.3f}"
    scores = NOTHING
    if change.old_score is not None and change.new_score is not None:
        scores = f"{change.old_score:.4f}, {change.new_score:.4f}"
    return (
        change.verdict,
        f"{change.ratio:.3f}",
        interval,
        f"{change.machine:.3f}",
        change.score_verdict or NOTHING,
        scores,
    )
