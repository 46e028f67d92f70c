"""Compare the reports of several machines: what differs, and what each of them measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdedge.benchmarks.cells import plain
from kdedge.benchmarks.figures import NOTHING, FigureTable, decimal
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.report_json import wrong_form
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.saved import read_document
from kdedge.benchmarks.summary import duration, file_size

from kdedge.errors import DataError, UsageError

ORDINARY_NAME = "report"
"""Name of the file that `kdedge bench` writes; its folder then names the report."""

ABSENT = "absent"
"""Size of a subject that a report does not have: that alone is no difference."""

NOT_COMPARED = ("run", "students", "bundles", "models", "task", "labels", "data")
"""Settings that name what was measured, not how."""


@dataclass(frozen=True)
class NamedReport:
    """A report and its short name, such as that of the machine's folder."""

    name: str
    report: Report


def read_reports(paths: Sequence[Path]) -> list[NamedReport]:
    """Read the reports of one task on the same texts.

    Args:
        paths: Files that `kdedge bench` wrote as report.json.

    Raises:
        UsageError: If there are fewer than two, or they have other tasks.
        DataError: If a file is no report, or the reports were measured on other texts.
    """
    if len(paths) < 2:
        raise UsageError(
            "there is nothing to compare with",
            f"{len(paths)} report",
            "name two or more files, such as lab/report.json board/report.json",
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(
            "a report cannot be compared with itself",
            ", ".join(map(str, paths)),
            "name each file once",
        )
    reports = []
    for name, path in zip(_names(paths), paths, strict=True):
        reports.append(NamedReport(name, _read(path)))
    _check_comparable(reports)
    return reports


def differences(reports: Sequence[NamedReport]) -> FigureTable:
    """List every fact about machine, versions, settings and files that is not the same."""
    values: dict[str, list[str]] = {}
    for number, each in enumerate(reports):
        for name, value in _facts(each.report).items():
            values.setdefault(name, [NOTHING] * len(reports))[number] = value
    rows = []
    for name, cells in (values | _sizes(reports)).items():
        if len({*cells} - {ABSENT}) > 1:
            rows.append((name, *[NOTHING if cell == ABSENT else cell for cell in cells]))
    header = ("fact", *[each.name for each in reports])
    return FigureTable(header, tuple(rows), words=tuple(range(len(header))))


def times(reports: Sequence[NamedReport]) -> FigureTable:
    """List the p50 of a single text of every subject on every machine."""
    return _measured(reports, _p50)


def throughputs(reports: Sequence[NamedReport]) -> FigureTable:
    """List the texts per second in batches."""
    return _measured(reports, lambda row: decimal(row.texts_per_s, 0))


def scores(reports: Sequence[NamedReport]) -> FigureTable:
    """List the scores. An int8 file can differ between processors."""
    return _measured(reports, lambda row: decimal(row.value, 4))


def rows_of(reports: Sequence[NamedReport]) -> dict[str, list[Row | None]]:
    """Return label of a subject -> its row in each report; None where it was not measured."""
    found: dict[str, list[Row | None]] = {}
    for number, each in enumerate(reports):
        # A run names a student `bilstm`, and its bundle alone `reviews-bilstm`.
        prefix = f"{each.report.task['name']}-"
        for row in each.report.rows:
            label = row.label.removeprefix(prefix)
            found.setdefault(label, [None] * len(reports))[number] = row
    return found


def warnings(reports: Sequence[NamedReport]) -> tuple[str, ...]:
    """List the notes of every report, and subjects that nothing is compared with."""
    lines = []
    if not any(None not in rows for rows in rows_of(reports).values()):
        lines.append("No subject stands in all reports.")
    for each in reports:
        for row in each.report.rows:
            lines += [f"{each.name}, {row.label}: {note}" for note in each.report.notes_of(row)]
    return tuple(lines)


def _p50(row: Row) -> str:
    return NOTHING if row.single is None else duration(row.single.p50)


def _measured(reports: Sequence[NamedReport], cell: Callable[[Row], str]) -> FigureTable:
    """Write a cell for each subject and report; leave out subjects without a value."""
    rows = []
    for label, measured in rows_of(reports).items():
        cells = [NOTHING if row is None else cell(row) for row in measured]
        if set(cells) != {NOTHING}:
            rows.append((label, *cells))
    return FigureTable(("subject", *[each.name for each in reports]), tuple(rows))


def _names(paths: Sequence[Path]) -> list[str]:
    """Name each report by its file, or by its folder; equal names get a number."""
    names: list[str] = []
    for path in paths:
        name = path.stem
        if name == ORDINARY_NAME:
            name = path.resolve().parent.name
        taken = sum(other == name or other.startswith(f"{name} (") for other in names)
        names.append(f"{name} ({taken + 1})" if taken else name)
    return names


def _read(path: Path) -> Report:
    """Read a report.json. Raises UsageError or DataError if that is not possible."""
    hint = "name the report.json of a bench"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("a report cannot be read", f"{path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise DataError("a report is not JSON", f"{path}: {error}", hint) from error
    try:
        report = read_document(document)
        if not report.rows:
            raise KeyError("rows")
        if report.task["digest"] is None:
            raise KeyError("digest")
    except (AttributeError, KeyError, TypeError, ValueError, StopIteration) as error:
        raise DataError(
            "this file is not a report of this version of kdedge",
            f"{path}: {wrong_form(error)}",
            "bench again, and name the new report.json",
        ) from error
    return report


def _check_comparable(reports: Sequence[NamedReport]) -> None:
    """Check that the reports have one task and one set of texts."""
    first = reports[0]
    for other in reports[1:]:
        for key in ("kind", "metric", "pair"):
            if other.report.task[key] != first.report.task[key]:
                raise UsageError(
                    "these reports have different tasks",
                    f"{first.name}: {key} {first.report.task[key]}\n"
                    f"{other.name}: {key} {other.report.task[key]}",
                    "compare reports of one task",
                )
        if other.report.task["digest"] != first.report.task["digest"]:
            raise DataError(
                "reports of different texts cannot be compared",
                "\n".join(_data_line(each) for each in (first, other)),
                "bench the same texts on both machines, with --data",
            )


def _data_line(named: NamedReport) -> str:
    task = named.report.task
    return f"{named.name}: {task['texts']} texts, digest {task['digest'][:12]}"


def _facts(report: Report) -> dict[str, str]:
    """Return everything that may explain why two reports differ."""
    facts = {"kdedge": report.kdedge, "teacher": plain(report.teacher.get("model"))}
    for name, value in report.machine.items():
        if isinstance(value, Mapping):
            facts.update({key: str(entry) for key, entry in value.items()})
        else:
            facts[name] = plain(value)
    for name, value in report.settings.items():
        if name not in NOT_COMPARED:
            facts[f"setting {name}"] = plain(value)
    return facts


def _sizes(reports: Sequence[NamedReport]) -> dict[str, list[str]]:
    """Return the size of each subject's files; files of other sizes are other models."""
    sizes = {}
    for label, rows in rows_of(reports).items():
        cells = []
        for row in rows:
            if row is None or row.bytes is None:
                cells.append(ABSENT)
            else:
                cells.append(file_size(row.bytes))
        sizes[f"size of {label}"] = cells
    return sizes
