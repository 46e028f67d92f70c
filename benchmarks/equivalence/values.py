"""What a bench knows about the equivalence of one subject with its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from kdedge.benchmarks.equivalence.calibration import ReliabilityFigures
from kdedge.benchmarks.equivalence.flips import Flips
from kdedge.benchmarks.equivalence.groups import TextGroup
from kdedge.benchmarks.equivalence.loyalty import Loyalty
from kdedge.benchmarks.equivalence.other_tasks import LabelSetAgreement, NumberAgreement
from kdedge.benchmarks.equivalence.quality import QualityClass
from kdedge.benchmarks.equivalence.text_changes import Robustness


@dataclass(frozen=True)
class Equivalence:
    """How alike a subject and its teacher answer; None or () for what is not known.

    Attributes:
        loyalty: Agreement with the teacher; None for the teacher itself and for a regression.
        flips: Answers that change from right to wrong and back.
        quality: MLPerf's quality classes.
        raw: Calibration of a classification without a temperature.
        calibrated: The same with the temperature of the subject's bundle; None for a subject that
            is no bundle.
        classes: Score and agreement by class.
        lengths: Score and agreement by the number of tokens.
        label_sets: Agreement on sets of labels.
        numbers: Agreement on the numbers of a regression.
        robustness: How many answers change with the texts.
    """

    loyalty: Loyalty | None = None
    flips: Flips | None = None
    quality: tuple[QualityClass, ...] = ()
    raw: ReliabilityFigures | None = None
    calibrated: ReliabilityFigures | None = None
    classes: tuple[TextGroup, ...] = ()
    lengths: tuple[TextGroup, ...] = ()
    label_sets: LabelSetAgreement | None = None
    numbers: NumberAgreement | None = None
    robustness: tuple[Robustness, ...] = ()


@dataclass(frozen=True)
class Disagreement:
    """A text on which student and teacher differ. It is shown only if the user asks for texts.

    Attributes:
        text: The text, as the user gave it.
        pair: The second text of a pair, or None.
        label: The text's own label, or None.
        teacher: The teacher's answer.
        student: The student's answer.
        sharpness: By how much both differ: the square root of the Jensen-Shannon divergence, or
            the absolute difference of two numbers.
    """

    text: str
    pair: str | None
    label: str | None
    teacher: str
    student: str
    sharpness: float
