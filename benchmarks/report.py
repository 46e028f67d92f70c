"""The report of a bench: rows of measured values, and what they mean together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kdedge.benchmarks.changes import Comparison
from kdedge.benchmarks.equivalence.values import Disagreement
from kdedge.benchmarks.figures import FigureSection
from kdedge.benchmarks.report_json import finite, raw_json, row_json
from kdedge.benchmarks.result_warnings import result_warnings
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.row_notes import baseline_notes, int8_speed_notes
from kdedge.benchmarks.scenarios.series import ScenarioResults

from kdedge.io.optional import import_pandas
from kdedge.io.show import html_table, text_table
from kdedge.printable import json_line

if TYPE_CHECKING:
    import pandas as pd


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
        for row in self._forms_of_teacher():
            if row.provider == "torch cpu":
                return row
        return None

    @property
    def fastest_teacher(self) -> Row | None:
        """The teacher's row with the lowest median time, in whatever library."""
        return _fastest(self._forms_of_teacher())

    def base_for(self, row: Row) -> Row | None:
        """Return the teacher in torch on the device of `row`; `base` if it was not timed there."""
        for other in self._forms_of_teacher():
            if other.form == "torch" and other.device == row.device:
                return other
        return self.base

    def fastest_teacher_for(self, row: Row) -> Row | None:
        """Return the fastest form of the teacher on the device of `row`, or else on any device."""
        forms = self._forms_of_teacher()
        return _fastest([each for each in forms if each.device == row.device] or forms)

    def label_only_baseline(self, row: Row) -> Row | None:
        """Return the same student trained on the labels only; None if it was not trained."""
        for other in self.rows:
            if other.kind == "baseline" and other.subject == f"{row.subject} baseline":
                return other
        return None

    def _forms_of_teacher(self) -> list[Row]:
        """Return the timed rows of the teacher, in whatever library."""
        teachers = [row for row in self.rows if row.is_teacher or row.is_form_of_teacher]
        return [row for row in teachers if row.single is not None]

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
            "rows": [row_json(self, row) for row in self.rows],
            "scenarios": self.scenarios.to_json(),
            "against": asdict(self.comparison) if self.comparison else None,
            "sections": [asdict(section) for section in self.sections],
            "raw": [raw_json(row) for row in self.rows if row.single is not None],
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
        table: pd.DataFrame = pandas.DataFrame([finite(row_json(self, row)) for row in self.rows])
        return table


def _fastest(rows: Sequence[Row]) -> Row | None:
    """Return the first of the timed rows with the lowest median."""
    fastest, best = None, math.inf
    for row in rows:
        if row.single is not None and row.single.p50 < best:
            fastest, best = row, row.single.p50
    return fastest


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
