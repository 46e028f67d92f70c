"""Titles, columns and cells that report.md, report.html and the terminal share."""

from __future__ import annotations

from collections.abc import Iterable

from kdedge.benchmarks.figures import NOTHING, decimal
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row import Row, percentiles, speedup
from kdedge.benchmarks.scenarios.change_table import change_table
from kdedge.benchmarks.scenarios.machine_tables import machine_tables
from kdedge.benchmarks.scenarios.tables import ScenarioTable, scenario_tables
from kdedge.benchmarks.summary import file_size

from kdedge.wording import counted

COLUMNS = (
    ("subject", "the teacher, a student or a baseline, and the form it runs in"),
    ("score", "the task's metric on the test texts; the column has the metric's name"),
    (
        "retention",
        "score divided by the teacher's (its torch row), with a 95 % interval: paired bootstrap"
        " over the texts, never narrower than the number of texts allows",
    ),
    (
        "verdict",
        "retained: the whole interval reaches the target; not retained: the whole interval is"
        " below it; inconclusive: the target lies inside the interval; reference: the teacher",
    ),
    ("p50, p90, p99", "microseconds for a single text, with tokenization"),
    ("model p50", "the same without tokenization"),
    (
        "speedup",
        "against the teacher in torch on the CPU: median [quartiles] over interleaved rounds",
    ),
    ("vs fastest", "speedup against the teacher's fastest row"),
    ("texts/s", "in batches, with tokenization"),
    ("size", "bytes of all files that it needs: model, tokenizer and configuration"),
    (
        "peak",
        "peak resident memory of a process that loads the subject alone and classifies a few"
        " texts, libraries included",
    ),
    ("resident", "resident memory of the same process after the texts"),
    ("load", "seconds from files to a model that is ready, without imports"),
)
"""Meaning of each column."""


def columns_in(header: Iterable[str]) -> list[tuple[str, str]]:
    """Return the entries of `COLUMNS` that a table with this header has."""
    names = [*header]
    found = []
    for title, meaning in COLUMNS:
        first = title.partition(",")[0]
        if title == "score" or any(name.startswith(first) for name in names):
            found.append((title, meaning))
    return found


def title(report: Report) -> str:
    """Return the title of the report."""
    teacher = report.teacher.get("model")
    name = str(report.task["name"])
    compared = any(row.is_teacher or row.retention is not None for row in report.rows)
    if not teacher or not compared:
        return f"{name}: measured"
    if report.teacher.get("fine_tuned"):
        return f"{name}: measured against its teacher (fine-tuned from {teacher})"
    return f"{name}: measured against {teacher}"


def caption(report: Report) -> str:
    """Describe in one line what was measured."""
    texts = counted(report.task["texts"], "text")
    quality = f"time alone: the {texts} have no labels"
    if report.task["measured"]:
        quality = f"{report.task['metric']} on {texts}"
    facts = [
        quality,
        counted(report.machine["threads"], "thread"),
        "single texts with tokenization, interleaved",
    ]
    teacher = report.teacher.get("value")
    if teacher is not None and not any(row.is_teacher for row in report.rows):
        facts.append(f"the teacher reaches {teacher:.4f}")
    if any(row.retention is not None for row in report.rows):
        facts.append(f"target: {report.target:.4g} of the teacher's score")
    return "; ".join(facts)


def cells_of(report: Report, row: Row) -> dict[str, str]:
    """Format one row: column name -> text."""
    p50, p90, p99 = percentiles(row.single)
    model_p50, _, _ = percentiles(row.model)
    return {
        "subject": row.subject,
        "form": f"{row.form} {row.precision}" if row.precision else row.form,
        "provider": row.provider or NOTHING,
        "score": decimal(row.value, 4),
        "retention % [95 %]": _retention(row.retention),
        "verdict": row.retention.verdict if row.retention else NOTHING,
        "p50 µs": _microseconds(p50),
        "p90 µs": _microseconds(p90),
        "p99 µs": _microseconds(p99),
        "model p50 µs": _microseconds(model_p50),
        "speedup": _speedup_with_quartiles(report, row),
        "vs fastest": format_speedup(row, report.fastest_teacher),
        "texts/s": decimal(row.texts_per_s, 0),
        "size": _size(row.bytes),
        "peak MB": decimal(row.footprint.peak_mb, 0),
        "resident MB": decimal(row.footprint.resident_mb, 0),
        "load s": decimal(row.footprint.load_s, 2),
    }


def format_speedup(row: Row, base: Row | None) -> str:
    """Format the median speedup of a row, such as `12.3x`."""
    ratios = speedup(row, base)
    if ratios is None:
        return NOTHING
    median = ratios[0]
    if median < 1:
        return f"{median:.2f}x"
    return f"{median:.1f}x" if median < 100 else f"{median:.0f}x"


def _speedup_with_quartiles(report: Report, row: Row) -> str:
    ratios = speedup(row, report.base)
    if ratios is None:
        return NOTHING
    _, low, high = ratios
    return f"{format_speedup(row, report.base)} [{low:.1f}–{high:.1f}]"


def report_tables(report: Report) -> list[ScenarioTable]:
    """Return the comparison with an earlier bench, and the tables of the scenarios."""
    labels = {row.key: row.label for row in report.rows}
    tables = scenario_tables(report.scenarios, labels)
    tables += machine_tables(report.scenarios, labels)
    if report.comparison is None:
        return tables
    return [change_table(report.comparison, labels), *tables]


def plain(value: object) -> str:
    """Format a value of `Report.machine` as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _retention(retention: Retention | None) -> str:
    if retention is None or retention.ratio is None:
        return NOTHING
    percent = f"{100 * retention.ratio:.1f}"
    if retention.low is None or retention.high is None:
        return percent
    return f"{percent} [{100 * retention.low:.1f}–{100 * retention.high:.1f}]"


def _microseconds(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    return f"{seconds * 1e6:.0f}"


def _size(count: int | None) -> str:
    return NOTHING if count is None else file_size(count)
