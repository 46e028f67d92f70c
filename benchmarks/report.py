"""The report: measured values, statistics that are derived from them, and its JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from kdedge.benchmarks.agreement import AgreementCurve
from kdedge.benchmarks.changes import Comparison
from kdedge.benchmarks.equivalence.values import Disagreement, Equivalence
from kdedge.benchmarks.figures import FigureSection
from kdedge.benchmarks.footprint import NOT_MEASURED, Footprint
from kdedge.benchmarks.gain import DistillationGain
from kdedge.benchmarks.result_warnings import result_warnings
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row_notes import baseline_notes, int8_speed_notes
from kdedge.benchmarks.scenarios.series import ScenarioResults, subject_key

from kdedge.evaluation.timing import Timings, speedup_quartiles
from kdedge.io.optional import import_pandas
from kdedge.io.show import html_table, text_table
from kdedge.printable import json_line

if TYPE_CHECKING:
    import pandas as pd

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
        if self.form == "onnx" and self.provider:
            provider = self.provider.replace("ExecutionProvider", "").lower()
            parts.append("" if provider == "cpu" else provider)
        return " ".join(part for part in parts if part)

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


@dataclass(frozen=True, repr=False)
class Report:
    """A whole bench: raw values in the rows; statistics are derived.

    Attributes:
        task: name, kind, metric, pair, texts, measured, and a digest of texts and labels.
        teacher: model, metric, and value on these texts; None for what is unknown.
        machine: See `machine.describe`.
        target: The retention that a student must reach.
        settings: The options of the bench.
        learned_from: See `training_data.learned_from`; {} for bundles without a run.
        measured_from: See `saved.measured_from`; {} for bundles without a run.
        left_out: Figures of equivalence that this bench cannot compute, with the reason.
        disagreements: Texts on which the best student and its teacher differ, if
            `--show-texts` was given.
        timed_tokens: Tokens of the texts that were timed one by one. Value i of a row's `single`
            is the time of text i modulo their number.
        scenarios: Raw values of the scenarios other than `single`.
        comparison: How the subjects changed since an earlier bench, if it was named.
        sections: More figures; a study adds them.
    """

    task: dict[str, Any]
    teacher: dict[str, Any]
    machine: dict[str, Any]
    rows: tuple[Row, ...]
    target: float
    created: str
    kdedge: str
    command: str
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    learned_from: dict[str, Any] = field(default_factory=dict)
    measured_from: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    timed_tokens: tuple[int, ...] = ()
    scenarios: ScenarioResults = field(default_factory=ScenarioResults)
    comparison: Comparison | None = None
    sections: tuple[FigureSection, ...] = ()

    @property
    def base(self) -> Row | None:
        """The reference of every speedup: the teacher in torch on the CPU."""
        for row in self._timed_teachers():
            if row.provider == "torch cpu":
                return row
        return None

    @property
    def fastest_teacher(self) -> Row | None:
        """The teacher's row with the lowest median time, in whatever library."""
        fastest, best = None, math.inf
        for row in self.rows:
            of_teacher = row.is_teacher or row.is_form_of_teacher
            if of_teacher and row.single is not None and row.single.p50 < best:
                fastest, best = row, row.single.p50
        return fastest

    def label_only_baseline(self, row: Row) -> Row | None:
        """Return the same student trained on the labels only; None if it was not trained."""
        for other in self.rows:
            if other.kind == "baseline" and other.subject == f"{row.subject} baseline":
                return other
        return None

    def _timed_teachers(self) -> list[Row]:
        return [row for row in self.rows if row.subject == "teacher" and row.single is not None]

    def notes_of(self, row: Row) -> list[str]:
        """Return every condition and warning of one row."""
        notes = list(row.notes)
        if row.retention is not None and row.retention.note:
            notes.append(row.retention.note)
        notes += baseline_notes(row, self.label_only_baseline(row))
        if row.single is not None:
            notes += row.single.warnings()
        if row.footprint.problem:
            notes.append(row.footprint.problem)
        return [*notes, *int8_speed_notes(row, self.fp32_of(row))]

    def fp32_of(self, row: Row) -> Row | None:
        """Return the fp32 ONNX row of the same subject and provider."""
        fp32_key = (row.subject, "onnx", "fp32", row.provider)
        for other in self.rows:
            if (other.subject, other.form, other.precision, other.provider) == fp32_key:
                return other
        return None

    def _cells(self) -> list[list[str]]:
        """Return the cells of the short table that Python shows."""
        rows = []
        for row in self.rows:
            value = "-" if row.value is None else f"{row.value:.4f}"
            share = "-"
            if row.retention is not None and row.retention.ratio is not None:
                share = f"{100 * row.retention.ratio:.1f} %"
            p50 = f"{1e6 * row.single.p50:,.0f}" if row.single else "-"
            size = "-" if row.bytes is None else f"{row.bytes / 1e6:.2f}"
            rows.append([row.label, value, share, p50, size])
        return rows

    @property
    def _header(self) -> list[str]:
        return ["model", str(self.task["metric"]), "retention", "p50 µs", "MB"]

    def __repr__(self) -> str:
        return f"Report({self.task['name']!r})\n{text_table(self._header, self._cells())}"

    def _repr_html_(self) -> str:
        """Return the table that notebooks show."""
        return html_table(f"{self.task['name']}: measured", self._header, self._cells())

    def to_json(self) -> dict[str, Any]:
        """Build the document of `--json` and report.json; non-finite numbers are null."""
        document = {
            "kdedge": self.kdedge,
            "created": self.created,
            "command": self.command,
            "task": self.task,
            "teacher": self.teacher,
            "target": self.target,
            "settings": self.settings,
            "machine": self.machine,
            "learned_from": self.learned_from,
            "measured_from": self.measured_from,
            "notes": list(self.notes),
            "left_out": list(self.left_out),
            "disagreements": [asdict(each) for each in self.disagreements],
            "timed_tokens": list(self.timed_tokens),
            "rows": [_row_json(self, row) for row in self.rows],
            "scenarios": self.scenarios.to_json(),
            "against": asdict(self.comparison) if self.comparison else None,
            "sections": [asdict(section) for section in self.sections],
            "raw": [_raw_json(row) for row in self.rows if row.single is not None],
        }
        return {key: finite(value) for key, value in document.items()}

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows of report.json as a table, one row for each subject.

        Needs pandas, which the extra `train` installs.

        Raises:
            MachineError: If pandas is not installed.

        Example:
            >>> report = bench_bundle([Path("my-bundle")])
            >>> report.to_pandas()[["subject", "precision", "p50_us", "bytes"]]
        """
        pandas: Any = import_pandas()
        table: pd.DataFrame = pandas.DataFrame([finite(_row_json(self, row)) for row in self.rows])
        return table


def speedup(row: Row, base: Row | None) -> Speedup | None:
    """Return the speedup of `row` against `base`; None if either was not timed."""
    if row.single is None or base is None or base.single is None:
        return None
    return speedup_quartiles(base.single, row.single)


def warnings(report: Report) -> list[str]:
    """List reasons to doubt the scores, then all notes; rows with equal notes share one line."""
    labels_of: dict[str, dict[str, None]] = {}
    for row in report.rows:
        for note in report.notes_of(row):
            labels_of.setdefault(note, {})[row.label] = None
    lines = [*result_warnings(report), *report.notes, *report.scenarios.notes]
    for note, labels in labels_of.items():
        lines.append(f"{', '.join(labels)}: {note}")
    return lines


def one_line(report: Report) -> str:
    """Write the document as one line of strict JSON; equal reports give equal lines."""
    document = report.to_json()
    json.dumps(document, allow_nan=False)  # Raises if a number is NaN.
    return json_line(document)


def wrong_form(error: Exception) -> str:
    """Say in words why a document is no report, from the error that reading it raised."""
    if isinstance(error, KeyError):
        return f"it has no entry {str(error.args[0])!r}"
    return "its entries have another form"


def finite(value: Any) -> Any:
    """Copy a value for JSON: numpy numbers become Python's, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _row_json(report: Report, row: Row) -> dict[str, Any]:
    return {
        "subject": row.subject,
        "kind": row.kind,
        "form": row.form,
        "precision": row.precision,
        "provider": row.provider,
        "threads": row.threads,
        "batch": row.batch,
        **_time_json(report, row),
        **_quality_json(report, row),
        "bytes": row.bytes,
        "peak_mb": _rounded(row.footprint.peak_mb, 1),
        "resident_mb": _rounded(row.footprint.resident_mb, 1),
        "load_s": _rounded(row.footprint.load_s, 4),
        "import_s": _rounded(row.footprint.import_s, 4),
        "only_prediction": row.only_prediction,
        "nodes": dict(row.nodes),
        "notes": report.notes_of(row),
        "agreement": asdict(row.agreement) if row.agreement else None,
        "gain": asdict(row.gain) if row.gain else None,
        "equivalence": asdict(row.equivalence) if row.equivalence else None,
    }


def _time_json(report: Report, row: Row) -> dict[str, float | None]:
    p50, p90, p99 = percentiles(row.single)
    model_p50, _, _ = percentiles(row.model)
    median, low, high = speedup(row, report.base) or (None, None, None)
    against_fastest, _, _ = speedup(row, report.fastest_teacher) or (None, None, None)
    return {
        "p50_us": _microseconds(p50),
        "p90_us": _microseconds(p90),
        "p99_us": _microseconds(p99),
        "p50_model_us": _microseconds(model_p50),
        "texts_per_s": _rounded(row.texts_per_s, 1),
        "speedup": _rounded(median, 3),
        "speedup_low": _rounded(low, 3),
        "speedup_high": _rounded(high, 3),
        "speedup_fastest_teacher": _rounded(against_fastest, 3),
    }


def _quality_json(report: Report, row: Row) -> dict[str, Any]:
    retention = row.retention or Retention(None, None, None, "inconclusive")
    low, high = row.interval or (None, None)
    return {
        "metric": None if row.value is None else report.task["metric"],
        "value": _rounded(row.value, 6),
        "value_low": _rounded(low, 6),
        "value_high": _rounded(high, 6),
        "retention": _rounded(retention.ratio, 6),
        "retention_low": _rounded(retention.low, 6),
        "retention_high": _rounded(retention.high, 6),
        "verdict": retention.verdict if row.retention else None,
    }


def _raw_json(row: Row) -> dict[str, Any]:
    """Return every measured value in microseconds, one list for each round."""
    document: dict[str, Any] = {
        "subject": row.subject,
        "form": row.form,
        "precision": row.precision,
        "provider": row.provider,
    }
    measured = {"single_us": row.single, "model_us": row.model, "batch_us": row.batched}
    for name, timings in measured.items():
        if timings is not None:
            document[name] = [list(map(_microseconds, values)) for values in timings.rounds]
    return document


def percentiles(timings: Timings | None) -> tuple[float | None, float | None, float | None]:
    """Return p50, p90 and p99 in seconds; None without timings."""
    if timings is None:
        return None, None, None
    return timings.p50, timings.p90, timings.p99


def _microseconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    return round(float(seconds) * 1e6, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
