"""The measured equivalence of one subject with its teacher."""

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
    """How alike the predictions of a subject and its teacher are; None or () if not known.

    Attributes:
        loyalty: Agreement with the teacher; None for the teacher itself and for a regression.
        flips: Predictions that change from right to wrong, or from wrong to right.
        quality: MLPerf's quality classes.
        raw: Calibration of a classification without a temperature.
        calibrated: The same with the temperature of the subject's bundle; None for a subject
            without a bundle.
        classes: Score and agreement by class.
        lengths: Score and agreement by the number of tokens.
        label_sets: Agreement on sets of labels.
        numbers: Agreement on the numbers of a regression.
        robustness: How many predictions change with the texts.
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
    """A text on which student and teacher differ. Reports hold it only with `--show-texts`.

    Attributes:
        text: The text, as the user gave it.
        pair: The second text of a pair, or None.
        label: The true label, or None.
        teacher: The teacher's prediction.
        student: The student's prediction.
        sharpness: By how much both differ: the square root of the Jensen-Shannon divergence, or
            the absolute difference of two numbers.
    """

    text: str
    pair: str | None
    label: str | None
    teacher: str
    student: str
    sharpness: float
