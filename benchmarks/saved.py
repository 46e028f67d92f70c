"""Read a saved report, and reuse it if its run, settings and machine have not changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kdedge.benchmarks import machine
from kdedge.benchmarks.footprint import Footprint
from kdedge.benchmarks.gain import DistillationGain
from kdedge.benchmarks.options import Options
from kdedge.benchmarks.render import PAGE_FILE
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.report_json import finite
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.scenarios.series import ScenarioResults

from kdedge import __version__
from kdedge.evaluation.timing import Timings
from kdedge.io.atomic import hash_files
from kdedge.run.stage import STAGE_FILE

if TYPE_CHECKING:
    from kdedge.run.layout import RunDir

DECIDING_FILES = (STAGE_FILE, "kdedge.json")
"""Files that change whenever a stage or a bundle is made again."""


@dataclass(frozen=True, repr=False)
class SavedReport(Report):
    """A report that was read from report.json; its document stays as it was written.

    Attributes:
        document: The content of report.json.
    """

    document: dict[str, Any] = field(default_factory=dict)

    def notes_of(self, row: Row) -> list[str]:
        """Return the notes that were saved: they hold every warning already."""
        return list(row.notes)

    def to_json(self) -> dict[str, Any]:
        """Return the document as it was written."""
        return self.document


def measured_from(run: RunDir, students: Sequence[str]) -> dict[str, str]:
    """Return a hash for every stage and bundle of a run that a report on it measures."""
    folders = [run.teacher, run.teacher_bundle, run.transfer, run.curve]
    for name in students:
        student = run.students[name]
        folders += [student.student, student.baseline, student.bundle]
    hashes = {}
    for folder in folders:
        if folder.exists():
            name = folder.relative_to(run.folder.parent).as_posix()
            hashes[name] = hash_files(folder, DECIDING_FILES)
    return hashes


def saved_report(
    folder: Path, settings: Mapping[str, Any], hashes: Mapping[str, str], options: Options
) -> SavedReport | None:
    """Return the report in a folder if a new one would measure the same on this machine.

    Args:
        folder: Folder of the report.
        settings: `Report.settings` of a new report.
        hashes: `Report.measured_from` of a new report.
        options: How a new bench would measure.

    Returns:
        None if there is no whole report, or if it has other settings, stages or bundles, or comes
        from another machine or version of kdedge.
    """
    if not (folder / PAGE_FILE).is_file():
        return None
    expected = {
        "kdedge": __version__,
        "settings": finite(dict(settings)),
        "measured_from": dict(hashes),
        "machine": finite(machine.describe(options.threads)),
    }
    try:
        document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        found = {name: document[name] for name in expected}
        return read_document(document) if found == expected else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return None


def read_document(document: dict[str, Any]) -> SavedReport:
    """Read the content of report.json."""
    raw = iter(document["raw"])
    rows = [_read_row(entry, raw) for entry in document["rows"]]
    return SavedReport(
        task=document["task"],
        teacher=document["teacher"],
        machine=document["machine"],
        rows=tuple(rows),
        target=document["target"],
        created=document["created"],
        kdedge=document["kdedge"],
        command=document["command"],
        notes=tuple(document["notes"]),
        settings=document["settings"],
        learned_from=document["learned_from"],
        measured_from=document["measured_from"],
        scenarios=ScenarioResults.from_json(document["scenarios"]),
        document=document,
    )


def _read_row(entry: Mapping[str, Any], raw: Iterator[Mapping[str, Any]]) -> Row:
    """Read a row; `raw` yields the measured values of the rows that were timed."""
    same_keys = ("subject", "kind", "form", "precision", "provider", "threads", "batch", "bytes")
    measured: Mapping[str, Any] = {}
    if entry["p50_us"] is not None:
        measured = next(raw)
    interval = None
    if entry["value_low"] is not None:
        interval = (entry["value_low"], entry["value_high"])
    return Row(
        **{key: entry[key] for key in same_keys},
        single=_timings(measured.get("single_us")),
        model=_timings(measured.get("model_us")),
        batched=_timings(measured.get("batch_us")),
        value=None if entry["value"] is None else float(entry["value"]),
        interval=interval,
        retention=_retention(entry),
        footprint=Footprint(
            entry["import_s"],
            entry["load_s"],
            entry["peak_mb"],
            resident_mb=entry["resident_mb"],
        ),
        notes=tuple(entry["notes"]),
        only_prediction=entry["only_prediction"],
        nodes=entry["nodes"],
        gain=DistillationGain(**entry["gain"]) if entry["gain"] else None,
    )


def _retention(entry: Mapping[str, Any]) -> Retention | None:
    if entry["verdict"] is None:
        return None
    low, high = entry["retention_low"], entry["retention_high"]
    return Retention(entry["retention"], low, high, entry["verdict"])


def _timings(rounds: Sequence[Sequence[float]] | None) -> Timings | None:
    """Convert microseconds of each round to timings."""
    if rounds is None:
        return None
    return Timings(tuple(np.array(values) / 1e6 for values in rounds))
