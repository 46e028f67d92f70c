"""The measurements of one subject of a bench, and statistics that are derived from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdedge.benchmarks.agreement import AgreementCurve
from kdedge.benchmarks.equivalence.values import Equivalence
from kdedge.benchmarks.footprint import NOT_MEASURED, Footprint
from kdedge.benchmarks.gain import DistillationGain
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.scenarios.series import subject_key

from kdedge.evaluation.timing import Timings, speedup_quartiles

DEVICES = {"cpu": "the CPU", "xnnpack": "the CPU", "cuda": "the GPU", "tensorrt": "the GPU"}
"""Short name of a provider -> what a sentence calls its device."""

Speedup = tuple[float, float, float]
"""Median, lower and upper quartile over rounds."""


@dataclass(frozen=True)
class Row:
    """The measurements of one subject; None for what was not measured.

    Attributes:
        kind: `model`, `baseline`, or `peer` for another library.
        is_form_of_teacher: Whether another library runs the teacher.
        value: The task's metric on the test texts.
        interval: 95 % interval of `value` over the test texts.
        single: Seconds per text, with tokenization.
        model: Seconds per text, without tokenization.
        batched: Seconds per batch of `batch` texts, with tokenization.
        bytes: Size of the files that the subject needs: weights, tokenizer, configuration.
        gain: The score minus that of the same student trained on the labels only.
        agreement: Agreement with the teacher on the most confident shares of the test texts.
        nodes: Execution provider -> nodes of the graph that run on it.
        only_prediction: What the subject predicts for every text, if its predictions do not differ.
        equivalence: How alike the predictions of subject and teacher are; None for a baseline.
    """

    subject: str
    kind: str
    form: str
    precision: str | None = None
    provider: str | None = None
    threads: int | None = None
    batch: int | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None
    retention: Retention | None = None
    single: Timings | None = None
    model: Timings | None = None
    batched: Timings | None = None
    bytes: int | None = None
    footprint: Footprint = NOT_MEASURED
    notes: tuple[str, ...] = ()
    only_prediction: str | None = None
    agreement: AgreementCurve | None = None
    gain: DistillationGain | None = None
    equivalence: Equivalence | None = None
    is_form_of_teacher: bool = False
    nodes: Mapping[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short name in tables, such as `bilstm onnx int8`."""
        if self.kind in ("baseline", "peer"):
            return self.subject
        if self.provider == "torch cuda":
            return f"{self.subject} torch cuda"
        parts = [self.subject, self.form, self.precision or ""]
        if self.form == "onnx" and self._short_provider != "cpu":
            parts.append(self._short_provider)
        return " ".join(part for part in parts if part)

    @property
    def device(self) -> str:
        """Where it ran: `the CPU`, `the GPU`, or the short name of another provider."""
        return DEVICES.get(self._short_provider, self._short_provider)

    @property
    def _short_provider(self) -> str:
        """The provider in lower case; without one, a subject runs on the CPU."""
        provider = self.provider or "cpu"
        return provider.removeprefix("torch ").removesuffix("ExecutionProvider").lower()

    @property
    def key(self) -> str:
        """The key of its subject, which no other row has."""
        return subject_key(self.subject, self.form, self.precision, self.provider)

    @property
    def is_teacher(self) -> bool:
        return self.subject == "teacher"

    @property
    def texts_per_s(self) -> float | None:
        """Throughput in batches."""
        if self.batched is None or self.batch is None:
            return None
        return self.batch / self.batched.p50


def speedup(row: Row, base: Row | None) -> Speedup | None:
    """Return the speedup of `row` against `base`; None if either was not timed."""
    if row.single is None or base is None or base.single is None:
        return None
    return speedup_quartiles(base.single, row.single)


def percentiles(timings: Timings | None) -> tuple[float | None, float | None, float | None]:
    """Return p50, p90 and p99 in seconds; None without timings."""
    if timings is None:
        return None, None, None
    return timings.p50, timings.p90, timings.p99
