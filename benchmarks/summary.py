"""Sum up a report in a sentence or two: retention, speedup, size, label-only baseline."""

from __future__ import annotations

import math

from kdedge.benchmarks.gain import gain_text
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import DEVICES, Row, speedup

from kdedge.evaluation.timing import FEWEST

CPU = DEVICES["cpu"]

VERDICT_ORDER = ("retained", "inconclusive", "not retained")
"""Verdicts, the best first."""


def headline(report: Report) -> Row | None:
    """Return the row that stands for the whole report; None if no model was timed.

    It is the fastest student that retains the target. If no student does, it is the fastest whose
    verdict is inconclusive (without any interval, the one with the highest score), and else the one
    with the highest retention.
    """
    students = [row for row in report.rows if row.kind == "model" and not row.is_teacher]
    timed = [row for row in students if row.single is not None]
    for verdict in VERDICT_ORDER:
        matching = [row for row in timed if row.retention and row.retention.verdict == verdict]
        if not matching:
            continue
        if verdict == "not retained":
            return max(matching, key=_retention_ratio)
        if not any(row.retention and row.retention.low is not None for row in matching):
            # The teacher's score is too near 0 to compare with.
            return max(matching, key=lambda row: row.value or 0)
        return min(matching, key=_median_time)
    return min(timed, key=_median_time, default=None)


def summary(report: Report) -> str:
    """Write the summary; "" if no student was timed.

    A student on a GPU is compared with the teacher there. If it was not timed there, the sentence
    names both devices.

    Example:
        >>> summary(report)
        "bilstm onnx int8 retains 98.4 % of the teacher's accuracy (95 % interval 95.5 to 101.1 %),
        is 42 times as fast and 7.3 times as small. The same student trained on the labels alone
        reaches 90.8 % (a gain of 7.6 points, 95 % interval +5.0 to +9.9)."
    """
    row = headline(report)
    if row is None:
        return ""
    claims = [_quality(report, row), _speed(report, row), _size(report, row)]
    sentence = f"{row.label} {_joined([claim for claim in claims if claim])}"
    return sentence + _fastest(report, row) + _baseline(report, row) + "."


def _median_time(row: Row) -> float:
    assert row.single is not None
    return row.single.p50


def _retention_ratio(row: Row) -> float:
    if row.retention is None or row.retention.ratio is None:
        return 0.0
    return row.retention.ratio


def _quality(report: Report, row: Row) -> str:
    if row.value is None:
        return ""
    metric = metric_name(report)
    retention = row.retention
    if retention is None or retention.ratio is None:
        return f"reaches {metric} {row.value:.4f}"
    claim = f"retains {100 * retention.ratio:.1f} % of the teacher's {metric}"
    if retention.low is None or retention.high is None:
        return claim
    return f"{claim} (95 % interval {100 * retention.low:.1f} to {100 * retention.high:.1f} %)"


def _speed(report: Report, row: Row) -> str:
    base = report.base_for(row)
    ratios = speedup(row, base)
    rough = "roughly " if _is_rough(row) else ""
    if base is None or ratios is None:
        return f"classifies a text in {rough}{duration(_median_time(row))}"
    against = _against(row, base)
    if rough or _is_rough(base):
        more = f" as fast{against}" if against else ""
        return f"was timed too briefly for a speedup (about {ratios[0]:.0f} times{more})"
    claim = _times(ratios[0], "is {} times as fast", "takes {} times as long", "is as fast")
    return claim + against


def _against(row: Row, base: Row) -> str:
    """Say what a row is compared with; "" if both ran on the CPU."""
    if row.device != base.device:
        return f" on {row.device} as the teacher on {base.device}"
    return "" if row.device == CPU else f" as the teacher on {base.device}"


def _is_rough(row: Row) -> bool:
    return row.single is not None and len(row.single.values) < FEWEST


def _fastest(report: Report, row: Row) -> str:
    """Compare with the teacher in another library, if one runs it faster than torch."""
    fastest = report.fastest_teacher_for(row)
    if fastest is None or not fastest.is_form_of_teacher or _is_rough(fastest) or _is_rough(row):
        return ""
    ratios = speedup(row, fastest)
    if ratios is None:
        return ""
    times = _times(ratios[0], "{} times as fast", "{} times as slow", "as fast")
    place = "" if fastest.device == row.device else f" on {fastest.device}"
    return f". It is {times} as the teacher's fastest form, {fastest.label}{place}"


def _size(report: Report, row: Row) -> str:
    if not row.bytes:
        return ""
    teachers = [other for other in report.rows if other.subject == "teacher" and other.bytes]
    if not teachers:
        return f"has a file of {file_size(row.bytes)}"
    ratio = (teachers[0].bytes or 0) / row.bytes
    return _times(ratio, "is {} times as small", "is {} times as large", "is as large")


def _baseline(report: Report, row: Row) -> str:
    """Add what the same student reaches without a teacher."""
    baseline = report.label_only_baseline(row)
    if baseline is None or baseline.retention is None or baseline.retention.ratio is None:
        return ""
    ratio = 100 * baseline.retention.ratio
    reached = f". The same student trained on the labels alone reaches {ratio:.1f} %"
    return reached if row.gain is None else f"{reached} ({gain_text(row.gain)})"


def _times(ratio: float, more: str, less: str, same: str) -> str:
    """Fill `more` with the ratio, or `less` with its inverse if the ratio is below 1.

    `same` replaces both if the number would be 1.0.
    """
    text = more
    if ratio < 1:
        text = less
        ratio = 1 / ratio
    number = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return same if number == "1.0" else text.format(number)


def _joined(claims: list[str]) -> str:
    """Join claims as `a, is b and c`; the last one does not repeat the verb `is`."""
    if len(claims) == 1:
        return claims[0]
    *first, last = claims
    if first[-1].startswith("is "):
        last = last.removeprefix("is ")
    return f"{', '.join(first)} and {last}"


def metric_name(report: Report) -> str:
    """Return the metric as words, such as `macro f1`."""
    return str(report.task["metric"]).replace("_", " ")


def duration(seconds: float) -> str:
    """Format seconds as `439 µs`, `3.75 ms`, `20.0 ms` or `1.20 s`."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    unit = "s"
    if seconds < 1:
        seconds *= 1e3
        unit = "ms"
    digits = max(0, 2 - math.floor(math.log10(seconds)))
    return f"{seconds:.{digits}f} {unit}"


def file_size(count: int) -> str:
    """Format bytes as `211 kB`, `15.8 MB` or `438 MB`."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    digits = 1 if count < 1e8 else 0
    return f"{count / 1e6:.{digits}f} MB"
