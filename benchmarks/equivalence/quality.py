"""MLPerf's quality classes: at least 99 % or 99.9 % of the reference's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdedge.benchmarks.retention import Retention, verdict_of

SHARES = (0.99, 0.999)
"""Quality targets of MLPerf Inference, as shares of the fp32 reference (Reddi et al. 2020)."""

Met = Literal["met", "not met", "inconclusive"]

MET_OF_VERDICT: dict[str, Met] = {
    "retained": "met",
    "not retained": "not met",
    "inconclusive": "inconclusive",
}


@dataclass(frozen=True)
class QualityClass:
    """Whether a student reaches a share of its teacher's score.

    Attributes:
        share: Share of the teacher's score: one of `SHARES`.
        met: `met` if the whole interval of the retention reaches the share, `not met` if the
            whole interval is below it.
    """

    share: float
    met: Met


def quality_classes(retention: Retention | None) -> tuple[QualityClass, ...]:
    """Compare the interval of a retention with every share; () without an interval."""
    if retention is None or retention.low is None or retention.high is None:
        return ()
    if retention.verdict == "reference":
        return ()
    classes = []
    for share in SHARES:
        verdict = verdict_of(retention.low, retention.high, share)
        classes.append(QualityClass(share, MET_OF_VERDICT[verdict]))
    return tuple(classes)
