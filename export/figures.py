"""Figures measured at export, as the manifest and the model card show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kdedge.export.int8_parity import IntegerCheck
from kdedge.export.parity import BatchDependence, ParityReport
from kdedge.export.qat import QatResult

FLOAT = "float"

VARIANT_ORDER = (FLOAT, "dynamic", "calibrated", "tuned", "fp16", "portable")
"""All variants of a student's file, in the order of tables."""


def times(speedup: tuple[float, float, float]) -> str:
    """Format the median and quartiles of a ratio."""
    return "{:.2f}x [{:.2f}-{:.2f}]".format(*speedup)


@dataclass(frozen=True)
class Variant:
    """One file of a student.

    Attributes:
        metric: The task's metric on the test split.
        agreement: Share of predictions equal to those of the float file.
        bytes: Size of the file.
        p50_us: Median time in µs of one text alone on one thread, with tokenization.
        speedup: Median, lower and upper quartile of the float file's time over this file's time,
            for the same text at nearly the same moment.
    """

    metric: float
    agreement: float
    bytes: int
    p50_us: float
    speedup: tuple[float, float, float]


@dataclass(frozen=True)
class VariantDecision:
    """All variants of a student, and whether the int8 one is packed.

    Attributes:
        files: Variant name -> figures.
        int8: Name of the variant that is the int8 file.
        loss_reason: Why the bundle is better without the int8 file.
        slow_reason: Why the int8 file only saves bytes.
    """

    files: Mapping[str, Variant]
    int8: str | None = None
    loss_reason: str | None = None
    slow_reason: str | None = None

    def rows(self) -> list[tuple[str, Variant]]:
        """Return names and variants in the order of tables."""
        return [(name, self.files[name]) for name in VARIANT_ORDER if name in self.files]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> VariantDecision:
        files = {}
        for name, figures in document["files"].items():
            files[name] = Variant(**{**figures, "speedup": tuple(figures["speedup"])})
        return cls(**{**document, "files": files})


@dataclass(frozen=True)
class SplitFigures:
    """Scores before and after a change on one split, and the share of equal predictions."""

    before: float
    after: float
    agreement: float


@dataclass(frozen=True)
class VocabularyFigures:
    """The effect of a smaller vocabulary; `pieces` counts them `before` and `after`."""

    pieces: Mapping[str, int]
    validation: SplitFigures
    test: SplitFigures


@dataclass(frozen=True)
class Int8Figures:
    """Figures of the int8 file.

    Attributes:
        comparison: With the fp32 file.
        batches: How much a text depends on its batch.
        integers: With fake-quantized torch (static only).
        tuning: Of calibration and tuning (static only).
    """

    comparison: ParityReport
    batches: BatchDependence
    integers: IntegerCheck | None = None
    tuning: QatResult | None = None

    def to_json(self) -> dict[str, Any]:
        document = self.comparison.to_json() | asdict(self.batches)
        if self.integers is not None:
            document |= self.integers.to_json()
        if self.tuning is not None:
            document["tuning"] = asdict(self.tuning)
        return document


@dataclass(frozen=True)
class TemperatureFigures:
    """The expected calibration error on the validation split, at temperature 1 and at the fit."""

    temperature: float
    error_before: float
    error_after: float


@dataclass(frozen=True)
class ParityFigures:
    """Figures of all checks of a bundle; None for what it does not have."""

    fp32: ParityReport | None = None
    int8: Int8Figures | None = None
    fp16: ParityReport | None = None
    portable: ParityReport | None = None
    vocabulary: VocabularyFigures | None = None
    variants: VariantDecision | None = None
    calibration: TemperatureFigures | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for name in ("fp32", "int8", "fp16", "portable"):
            report = getattr(self, name)
            if report is not None:
                document[name] = report.to_json()
        if self.vocabulary is not None:
            document["vocabulary"] = asdict(self.vocabulary)
        if self.variants is not None:
            document["variants"] = asdict(self.variants)
        if self.calibration is not None:
            document["calibration"] = asdict(self.calibration)
        return document
