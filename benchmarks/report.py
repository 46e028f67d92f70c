"""What was measured, raw values kept, and the one JSON document that says it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from kdedge.benchmarks.footprint import NOT_WEIGHED, Footprint
from kdedge.benchmarks.retention import Retention

from kdedge.evaluation.timing import Timings, compare_timings, speedup_quartiles


@dataclass(frozen=True)
class Row:
    """One subject's measurements; None where a thing was not measured.

    value: the task's metric on the reported texts. single: seconds a text, tokenization included; model: without it.
    batched: seconds a batch of `batch` texts, tokenization included. bytes: of the model's own file.
    """

    subject: str
    kind: str
    form: str
    precision: str | None
    provider: str | None
    threads: int | None = None
    batch: int | None = None
    value: float | None = None
    retention: Retention | None = None
    single: Timings | None = None
    model: Timings | None = None
    batched: Timings | None = None
    bytes: int | None = None
    footprint: Footprint = NOT_WEIGHED
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Short name in tables, such as `bilstm onnx int8`."""
        if self.kind == "baseline":
            return self.subject
        where = self.provider.replace("ExecutionProvider", "").lower() if self.provider else ""
        place = f" {where}" if self.form == "onnx" and where != "cpu" else ""
        return f"{self.subject} {self.provider if where == 'torch cuda' else self.form + ' ' + (self.precision or '')}{place}".strip()

    @property
    def texts_per_s(self) -> float | None:
        return None if self.batched is None or self.batch is None else self.batch / self.batched.p50


@dataclass(frozen=True)
class Report:
    """A whole bench. Raw values are in the rows; everything else follows from them.

    task: name, kind, metric, pair, texts. teacher: model, metric and value, or {} when unknown. learned_from: see `lessons`.
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

    @property
    def base(self) -> Row | None:
        """What speed-ups are told against: the teacher in torch on the CPU."""
        return next((row for row in self._timed_teachers() if row.provider == "torch cpu"), None)

    @property
    def fastest_teacher(self) -> Row | None:
        return min(
            self._timed_teachers(),
            key=lambda row: row.single.p50 if row.single else math.inf,
            default=None,
        )

    def _timed_teachers(self) -> list[Row]:
        return [row for row in self.rows if row.subject == "teacher" and row.single is not None]

    def speedup(self, row: Row, base: Row | None) -> tuple[float, float, float] | None:
        """Median and quartiles over rounds; None where either was not timed."""
        return (
            None
            if row.single is None or base is None or base.single is None
            else speedup_quartiles(base.single, row.single)
        )

    def notes_of(self, row: Row) -> list[str]:
        """All that must be said aloud of one row."""
        said = list(row.notes)
        if row.retention is not None and row.retention.note:
            said.append(row.retention.note)
        if row.single is not None:
            said += row.single.warnings()
        if row.footprint.problem:
            said.append(row.footprint.problem)
        return said + self._int8_pays(row)

    def _int8_pays(self, row: Row) -> list[str]:
        """Whether int8 is measurably faster than fp32 of the same subject, where both were timed."""
        baseline = next(
            (
                r
                for r in self.rows
                if (r.subject, r.form, r.precision, r.provider)
                == (row.subject, "onnx", "fp32", row.provider)
            ),
            None,
        )
        if (
            row.precision != "int8"
            or row.single is None
            or baseline is None
            or baseline.single is None
        ):
            return []
        found = compare_timings(row.single.medians, baseline.single.medians)
        if found.different and found.ratio < 1:
            return []
        if not found.different:
            return [
                f"whether int8 pays here is not told: {found.ratio:.2f}x the time of fp32 [{found.low:.2f}-{found.high:.2f}]"
            ]
        return [
            f"int8 does not pay here: {found.ratio:.2f}x the time of fp32 [{found.low:.2f}-{found.high:.2f}]"
        ]

    def to_json(self) -> dict[str, Any]:
        """The document of `--json` and report.json; numbers that are not finite are null."""
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
            "notes": list(self.notes),
            "rows": [self._row_json(row) for row in self.rows],
            "raw": [_raw(row) for row in self.rows if row.single is not None],
        }
        clean = finite(document)
        assert isinstance(clean, dict)
        return clean

    def _row_json(self, row: Row) -> dict[str, Any]:
        kept, single, model = row.retention, row.single, row.model
        speed, against_best = self.speedup(row, self.base), self.speedup(row, self.fastest_teacher)
        return {
            "subject": row.subject,
            "kind": row.kind,
            "form": row.form,
            "precision": row.precision,
            "provider": row.provider,
            "threads": row.threads,
            "batch": row.batch,
            "p50_us": _us(single.p50 if single else None),
            "p90_us": _us(single.p90 if single else None),
            "p99_us": _us(single.p99 if single else None),
            "p50_model_us": _us(model.p50 if model else None),
            "texts_per_s": _rounded(row.texts_per_s, 1),
            "speedup": _rounded(speed[0] if speed else None, 3),
            "speedup_low": _rounded(speed[1] if speed else None, 3),
            "speedup_high": _rounded(speed[2] if speed else None, 3),
            "speedup_fastest_teacher": _rounded(against_best[0] if against_best else None, 3),
            "metric": self.task["metric"] if row.value is not None else None,
            "value": _rounded(row.value, 6),
            "retention": _rounded(kept.share if kept else None, 6),
            "retention_low": _rounded(kept.low if kept else None, 6),
            "retention_high": _rounded(kept.high if kept else None, 6),
            "verdict": kept.verdict if kept else None,
            "bytes": row.bytes,
            "peak_mb": _rounded(row.footprint.peak_mb, 1),
            "load_s": _rounded(row.footprint.load_s, 4),
            "import_s": _rounded(row.footprint.import_s, 4),
            "notes": self.notes_of(row),
        }


def one_line(report: Report) -> str:
    """The document as one line of strict JSON, equal for equal reports."""
    return json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False)


def finite(value: Any) -> Any:
    """A JSON-able copy: numpy numbers become Python's, NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _raw(row: Row) -> dict[str, Any]:
    """Every measured value in microseconds, one list for each round."""
    named = {"single_us": row.single, "model_us": row.model, "batch_us": row.batched}
    raw = {
        name: [[_us(v) for v in values] for values in timings.rounds]
        for name, timings in named.items()
        if timings is not None
    }
    return {
        "subject": row.subject,
        "form": row.form,
        "precision": row.precision,
        "provider": row.provider,
        **raw,
    }


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else round(float(seconds) * 1e6, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
