"""Order and explain the sections of a report about equivalence."""

from __future__ import annotations

from dataclasses import replace

from kdedge.benchmarks.equivalence.tables import (
    agreement_table,
    calibration_table,
    disagreement_table,
    group_table,
    label_table,
    number_table,
    robustness_table,
    shown_groups,
    shown_student,
)
from kdedge.benchmarks.equivalence.values import Equivalence
from kdedge.benchmarks.figures import FigureSection, FigureTable, Terms
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row

AGREEMENT = (
    "How often each subject gives the teacher's answer, and on how many texts the teacher's answer"
    " was right and is now wrong (lost), or the other way round (gained)."
)
QUALITY_TERM = (
    "99 % and 99.9 % class",
    "MLPerf's quality classes: met if the whole interval of the retention reaches the share",
)
AGREEMENT_TERMS = (
    ("agreement", "share of texts with the teacher's label, with its 95 % interval (Wilson)"),
    (
        "probability loyalty",
        "how alike the probabilities are: the mean of 1 - sqrt(Jensen-Shannon divergence), 1 at"
        " most",
    ),
    ("p", "McNemar's exact test: if it is small, lost and gained differ by more than chance"),
    QUALITY_TERM,
)
LABEL_SET_TERMS = (
    *AGREEMENT_TERMS,
    ("Hamming loss", "share of all decisions about single labels that differ"),
)
NUMBERS = "How close each subject's numbers are to the teacher's numbers."
NUMBER_TERMS = (
    ("Pearson, Spearman", "correlation with the teacher's numbers, and with their ranks"),
    ("mean difference", "mean of the absolute differences"),
    ("bias", "mean of the differences; about 95 % of them lie between the limits of agreement"),
    QUALITY_TERM,
)
GROUPS = "In which groups of texts {name} is right, and agrees with its teacher."
LENGTH_TERMS = (("tokens", "what the bundle reads of a text, after truncation"),)
GROUP_TERMS = (
    (
        "p",
        "Fisher's exact test: if it is small, the group agrees less than the other texts; corrected"
        " for the number of groups (Holm)",
    ),
    *LENGTH_TERMS,
)
LABELS = "The labels on which {name} and its teacher differ most often."
GROUPS_ALONE = "Share of right answers of {name} in each class, and by the length of the text."
CALIBRATION = (
    "If a classifier is 80 % sure, it should be right on 80 % of such texts: the closer to the"
    " straight line, the better."
)
CALIBRATION_TERMS = (
    ("temperature", "the bundle divides its logits by it; before: without it, after: with it"),
    ("ECE", "expected calibration error: the mean distance from the straight line; 0 is best"),
    ("Brier", "squared error of the probabilities, summed over the classes; 0 is best"),
)
ROBUSTNESS = "How many answers change on {texts} texts with typos, in capitals, or cut in half."
NUMBER_ROBUSTNESS = (
    "How far the number moves, on average over {texts} texts with typos, in capitals, or cut in"
    " half."
)
DISAGREEMENTS = (
    "The texts on which {name} differs most from its teacher, with the answers of both; sharpness"
    " is the distance of their probabilities (1 at most), or the difference of their numbers."
)
FEWER_CLASSES = " Only the classes with the lowest agreement are shown; report.json has all."
LEFT_OUT = "Figures that need more than this bench had:"


def sections_of(report: Report) -> list[FigureSection]:
    """Return the sections for which the report has values."""
    chosen = shown_student(report)
    sections = _comparison(report)
    if chosen is not None:
        sections += _groups(report, *chosen)
    sections += _section(
        FigureSection("reliability", "Are the probabilities right?", CALIBRATION),
        calibration_table(report),
        CALIBRATION_TERMS,
    )
    sections += _section(
        FigureSection("robustness", "Changed texts", _robustness_explanation(report)),
        robustness_table(report),
    )
    if chosen is not None:
        explanation = DISAGREEMENTS.format(name=chosen[0].label)
        sharpest = FigureSection("disagreements", "Sharpest disagreements", explanation)
        sections += _section(sharpest, disagreement_table(report))
    if report.left_out:
        left_out = FigureSection("left-out", "Not known here", LEFT_OUT, lines=report.left_out)
        sections.append(left_out)
    return [*sections, *report.sections]


def _comparison(report: Report) -> list[FigureSection]:
    heading = "Agreement with the teacher"
    if report.task.get("kind") == "regression":
        numbers = FigureSection("loyalty", heading, NUMBERS)
        return _section(numbers, number_table(report), NUMBER_TERMS)
    terms = LABEL_SET_TERMS if report.task.get("kind") == "multilabel" else AGREEMENT_TERMS
    return _section(FigureSection("loyalty", heading, AGREEMENT), agreement_table(report), terms)


def _groups(report: Report, row: Row, found: Equivalence) -> list[FigureSection]:
    """Return the sections on groups of texts, and on single labels."""
    heading = "By class and by length" if found.classes else "By length"
    explanation = GROUPS_ALONE
    terms: Terms = LENGTH_TERMS
    if found.loyalty is not None:
        explanation, terms = GROUPS, GROUP_TERMS
    explanation = explanation.format(name=row.label)
    if len(shown_groups(found)) < len(found.classes) + len(found.lengths):
        explanation += FEWER_CLASSES
    labels = FigureSection("labels", "By label", LABELS.format(name=row.label))
    groups = FigureSection("groups", heading, explanation)
    return [
        *_section(labels, label_table(report)),
        *_section(groups, group_table(report), terms),
    ]


def _robustness_explanation(report: Report) -> str:
    """Explain the section on changed texts; all subjects have the same number of them."""
    texts = 0
    for row in report.rows:
        if row.equivalence is not None and row.equivalence.robustness:
            texts = row.equivalence.robustness[0].texts
    kind = report.task.get("kind")
    return (NUMBER_ROBUSTNESS if kind == "regression" else ROBUSTNESS).format(texts=texts)


def _section(
    section: FigureSection, table: FigureTable | None, terms: Terms = ()
) -> list[FigureSection]:
    """Return a section with its table; [] without a table."""
    return [] if table is None else [replace(section, table=table, terms=terms)]
