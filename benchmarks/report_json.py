"""The JSON of a report: the figures of its rows, and all measured times."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row import Row, percentiles, speedup

if TYPE_CHECKING:
    from kdedge.benchmarks.report import Report


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


def row_json(report: Report, row: Row) -> dict[str, Any]:
    """Return a row's figures; those that were not measured are None."""
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


def raw_json(row: Row) -> dict[str, Any]:
    """Return every measured time in microseconds, one list for each round."""
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


def wrong_form(error: Exception) -> str:
    """Say in words why a document is no report, from the error that reading it raised."""
    if isinstance(error, KeyError):
        return f"it has no entry {str(error.args[0])!r}"
    return "its entries have another form"


def _microseconds(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    return round(float(seconds) * 1e6, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(float(value), digits)
