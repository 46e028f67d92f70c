"""Tables of a report about equivalence."""

from __future__ import annotations

from collections.abc import Sequence

from kdedge.benchmarks.equivalence.groups import TextGroup
from kdedge.benchmarks.equivalence.quality import SHARES, QualityClass
from kdedge.benchmarks.equivalence.text_changes import CHANGES, Robustness
from kdedge.benchmarks.equivalence.values import Equivalence
from kdedge.benchmarks.figures import (
    NOTHING,
    FigureTable,
    decimal,
    p_value,
    percent,
    percent_with_interval,
)
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import headline

MOST_CLASSES = 12
"""Largest number of classes that a page shows."""

CLASS_COLUMNS = tuple(f"{100 * share:.4g} % class" for share in SHARES)


def compared(report: Report) -> list[tuple[Row, Equivalence]]:
    """Return the rows whose equivalence was measured."""
    return [(row, row.equivalence) for row in report.rows if row.equivalence is not None]


def shown_student(report: Report) -> tuple[Row, Equivalence] | None:
    """Return the student that the report's first sentence is about, if it was compared."""
    row = headline(report)
    if row is None or row.equivalence is None:
        return None
    return row, row.equivalence


def teacher_groups(report: Report) -> dict[str, TextGroup]:
    """Return name of a group -> the teacher's results in it; {} without a teacher."""
    for row, found in compared(report):
        if row.is_teacher and (found.classes or found.lengths):
            return {group.name: group for group in (*found.classes, *found.lengths)}
    return {}


def shown_groups(found: Equivalence) -> tuple[TextGroup, ...]:
    """Return the groups to show: all lengths, and the classes with the lowest agreement."""
    classes = found.classes
    if len(classes) > MOST_CLASSES:
        classes = tuple(sorted(classes, key=_least_first)[:MOST_CLASSES])
    return (*classes, *found.lengths)


def _least_first(group: TextGroup) -> float:
    if group.agreement is not None:
        return group.agreement
    return group.right or 0.0


def agreement_table(report: Report) -> FigureTable | None:
    """Compare the predictions of each subject with those of the teacher."""
    rows = []
    for row, found in compared(report):
        if found.loyalty is None:
            continue
        loyalty = found.loyalty
        agreement = percent_with_interval(loyalty.agreement, loyalty.low, loyalty.high)
        flips = (NOTHING, NOTHING, NOTHING)
        if found.flips is not None:
            flips = (str(found.flips.lost), str(found.flips.gained), p_value(found.flips.p))
        hamming = NOTHING
        if found.label_sets is not None:
            hamming = decimal(found.label_sets.hamming, 4)
        measured = (row.label, agreement, decimal(loyalty.probability, 3), *flips)
        rows.append((*measured, *_class_cells(found.quality), hamming))
    header = ("subject", "agreement % [95 %]", "probability loyalty", "lost", "gained", "p")
    return _table((*header, *CLASS_COLUMNS, "Hamming loss"), rows)


def number_table(report: Report) -> FigureTable | None:
    """Compare the numbers of each subject with those of the teacher."""
    rows = []
    for row, found in compared(report):
        numbers = found.numbers
        if numbers is None:
            continue
        measured = (
            decimal(numbers.pearson, 3),
            decimal(numbers.spearman, 3),
            decimal(numbers.mean_absolute, 3),
            f"{numbers.bias:+.3f} [{numbers.low:+.3f} to {numbers.high:+.3f}]",
        )
        rows.append((row.label, *measured, *_class_cells(found.quality)))
    header = ("subject", "Pearson", "Spearman", "mean difference", "bias [limits of agreement]")
    return _table((*header, *CLASS_COLUMNS), rows)


def group_table(report: Report) -> FigureTable | None:
    """Show the scores of the best student and of its teacher by class and by length."""
    chosen = shown_student(report)
    if chosen is None:
        return None
    teacher = teacher_groups(report)
    rows = []
    for group in shown_groups(chosen[1]):
        other = teacher.get(group.name)
        teacher_right = other.right if other is not None else None
        shares = (percent(teacher_right), percent(group.right), percent(group.agreement))
        rows.append((group.name, str(group.texts), *shares, p_value(group.p)))
    header = ("group", "texts", "teacher right %", "student right %", "agreement %", "p")
    return _table(header, rows)


def label_table(report: Report) -> FigureTable | None:
    """Show the labels of a multilabel task on which the best student agrees the least."""
    chosen = shown_student(report)
    if chosen is None or chosen[1].label_sets is None:
        return None
    labels = sorted(chosen[1].label_sets.labels, key=lambda label: label.agreement)
    rows = [(label.name, percent(label.agreement)) for label in labels[:MOST_CLASSES]]
    return _table(("label", "agreement %"), rows)


def calibration_table(report: Report) -> FigureTable | None:
    """Show the calibration of each subject before and after its temperature."""
    rows = []
    for row, found in compared(report):
        before, after = found.raw, found.calibrated
        if before is None:
            continue
        temperature = ece = brier = NOTHING
        if after is not None:
            temperature, ece = f"{after.temperature:.4g}", decimal(after.ece, 4)
            brier = decimal(after.brier, 4)
        rows.append(
            (row.label, temperature, decimal(before.ece, 4), ece, decimal(before.brier, 4), brier)
        )
    header = ("subject", "temperature", "ECE before", "ECE after", "Brier before", "Brier after")
    return _table(header, rows)


def robustness_table(report: Report) -> FigureTable | None:
    """Show how many predictions of each subject change with the texts."""
    rows = []
    for row, found in compared(report):
        if found.robustness:
            cells = {value.change: _change_cell(value) for value in found.robustness}
            rows.append((row.label, *[cells.get(change, NOTHING) for change in CHANGES]))
    unit = "changed % [95 %]"
    if report.task["kind"] == "regression":
        unit = "mean change"
    return _table(("subject", *[f"{change}: {unit}" for change in CHANGES]), rows)


def disagreement_table(report: Report) -> FigureTable | None:
    """Show the texts of the sharpest disagreements; None unless the report holds texts."""
    rows = []
    for each in report.disagreements:
        text = each.text
        if each.pair is not None:
            text = f"{each.text} — {each.pair}"
        answers = (each.teacher, each.student, each.label or NOTHING)
        rows.append((text, *answers, decimal(each.sharpness, 2)))
    if not rows:
        return None
    header = ("text", "teacher", "student", "label", "sharpness")
    return FigureTable(header, tuple(rows), words=(0, 1, 2, 3))


def _class_cells(quality: tuple[QualityClass, ...]) -> tuple[str, ...]:
    """Return a cell for each of MLPerf's classes."""
    if not quality:
        return (NOTHING,) * len(SHARES)
    return tuple(each.met for each in quality)


def _change_cell(value: Robustness) -> str:
    if value.low is None or value.high is None:
        return decimal(value.changed, 3)
    return percent_with_interval(value.changed, value.low, value.high)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> FigureTable | None:
    """Build a table of the columns that have a value; None without rows."""
    return FigureTable(header, tuple(rows)).without_empty_columns() if rows else None
