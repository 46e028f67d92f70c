"""Write a report: report.html, report.md, report.json and the picture of a learning curve."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdedge.benchmarks.equivalence.sections import sections_of
from kdedge.benchmarks.figures import NOTHING, FigureSection, decimal
from kdedge.benchmarks.int8_gain import int8_answers
from kdedge.benchmarks.report import Report, one_line, warnings
from kdedge.benchmarks.retention import Retention
from kdedge.benchmarks.row import Row, percentiles, speedup
from kdedge.benchmarks.scenarios.change_table import change_table
from kdedge.benchmarks.scenarios.machine_tables import machine_tables
from kdedge.benchmarks.scenarios.tables import ScenarioTable, scenario_tables
from kdedge.benchmarks.summary import file_size, summary

from kdedge.errors import MachineError
from kdedge.io.atomic import write_atomic
from kdedge.wording import counted

TEXT_COLUMNS = {
    "subject",
    "form",
    "provider",
    "retention % [95 %]",
    "verdict",
    "source",
    "rejected",
    "group",
    "label",
    "text",
    "teacher",
    "student",
}
"""Columns of Markdown tables that are left-aligned."""

CURVE_FILE = "curve.svg"
PAGE_FILE = "report.html"

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


def write_report(report: Report, folder: Path) -> Path:
    """Write report.html, report.md, report.json and a learning curve.

    Nothing is written before all of it is drawn, which takes seconds. Each file is written
    completely or not at all. curve.svg is written if the run has a curve.

    Returns:
        The path of report.json.

    Raises:
        MachineError: If the folder cannot be created.
    """
    # page.py builds on this module.
    from kdedge.benchmarks.page import html_page

    contents = {}
    if "curve" in report.learned_from:
        contents[CURVE_FILE] = _curve_picture(report)
    contents["report.md"] = markdown(report)
    contents[PAGE_FILE] = html_page(report)
    contents["report.json"] = one_line(report) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            "the folder of the report cannot be created",
            f"{folder}: {error.strerror}",
            "name another folder with --out",
        ) from error
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return folder / "report.json"


def _curve_picture(report: Report) -> str:
    from kdedge.distillation.learning_curve import LearningCurve
    from kdedge.distillation.learning_curve_plot import plot_learning_curve

    curve = LearningCurve.from_json(report.learned_from["curve"])
    return plot_learning_curve(curve, report.task["name"])


def markdown(report: Report) -> str:
    """Build the page report.md."""
    rows = [cells_of(report, row) for row in report.rows]
    header = [report.task["metric"] if name == "score" else name for name in rows[0]]
    meanings = [f"- **{name}**: {meaning}" for name, meaning in columns_in(header)]
    known = {name: value for name, value in report.machine.items() if value is not None}
    facts = [f"- {name}: {_md(plain(value))}" for name, value in known.items()]
    lines = [f"# {_md(title(report))}", ""]
    if summary(report):
        lines += [_md(summary(report)), ""]
    lines += [_md(caption(report)), ""]
    lines += _md_table(header, [list(row.values()) for row in rows])
    for section in sections_of(report):
        lines += _section(section.heading, _figure_lines(section))
    lines += _training_section(report.learned_from)
    lines += _int8_section(report)
    lines += _scenario_sections(report)
    lines += _section("Warnings and conditions", _warning_lines(report))
    lines += _section("What the columns mean", meanings)
    lines += _section("Machine", facts)
    lines += [
        "",
        f"Made {report.created} by kdedge {report.kdedge}. Raw values are in report.json.",
        "",
        *[f"    {line}" for line in report.command.splitlines()],
        "",
    ]
    return "\n".join(lines)


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


def _training_section(learned_from: dict[str, Any]) -> list[str]:
    """Describe the transfer set; a bundle without a run has no such section."""
    if not learned_from:
        return []
    origins = learned_from["origins"].items()
    counts = ", ".join(f"{count:,} {_md(origin)}" for origin, count in origins)
    lines = [f"Texts by origin: {counts}."]
    if "device" in learned_from:
        lines += ["", f"The last `kdedge distill` computed on: {_md(learned_from['device'])}."]
    if "sources" in learned_from:
        lines += ["", *_source_table(learned_from["sources"]), ""]
        rejected = _md(_counts(learned_from["rejected"]))
        lines.append(f"Rejected after the teacher had labelled them: {rejected}.")
    if "curve" in learned_from:
        lines += ["", f"![agreement with the teacher against texts]({CURVE_FILE})"]
    return _section("What the students learned from", lines)


def report_tables(report: Report) -> list[ScenarioTable]:
    """Return the comparison with an earlier bench, and the tables of the scenarios."""
    labels = {row.key: row.label for row in report.rows}
    tables = scenario_tables(report.scenarios, labels)
    tables += machine_tables(report.scenarios, labels)
    if report.comparison is None:
        return tables
    return [change_table(report.comparison, labels), *tables]


def _int8_section(report: Report) -> list[str]:
    answers = int8_answers(report)
    if not answers:
        return []
    return _section("Does int8 pay here?", [f"- {_md(answer.sentence)}" for answer in answers])


def _scenario_sections(report: Report) -> list[str]:
    lines = []
    for table in report_tables(report):
        cells = _md_table(list(table.header), [list(row) for row in table.rows])
        lines += _section(table.title, [table.explain, "", *cells])
    return lines


def _source_table(sources: dict[str, dict[str, Any]]) -> list[str]:
    header = ["source", "requested", "generated", "accepted", "rejected"]
    is_cleaned = any(source.get("cleaned") for source in sources.values())
    if is_cleaned:
        header.append("changed by cleaning")
    rows = []
    for name, source in sources.items():
        counts = [f"{source[key]:.0f}" for key in ("attempts", "produced", "used")]
        row = [name, *counts, _counts(source["rejected"])]
        if is_cleaned:
            row.append(_counts(source.get("cleaned", {})))
        rows.append(row)
    return _md_table(header, rows)


def _counts(by_reason: dict[str, int]) -> str:
    """Format how many texts each filter rejected, or each step of cleaning changed."""
    counts = [f"{reason} {count:,}" for reason, count in by_reason.items() if count]
    return ", ".join(counts) or "none"


def _figure_lines(section: FigureSection) -> list[str]:
    """Write the sentence, the table and the list of a section."""
    lines = [_md(section.explanation)]
    if section.table is not None:
        lines += ["", *_md_table(list(section.table.header), map(list, section.table.rows))]
    if section.terms:
        lines += ["", *[f"- **{_md(name)}**: {_md(meaning)}" for name, meaning in section.terms]]
    if section.lines:
        lines += ["", *[f"- {_md(line)}" for line in section.lines]]
    return lines


def _warning_lines(report: Report) -> list[str]:
    return [f"- {_md(line)}" for line in warnings(report)] or ["- none"]


def _section(heading: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {heading}", "", *lines]


def _md_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [list(map(_md, header))]
    lines.append(["---" if name in TEXT_COLUMNS else "--:" for name in header])
    lines += [list(map(_md, row)) for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _md(text: str) -> str:
    """Escape text for Markdown: no tags, no table breaks, no markup."""
    flat = " ".join(html.escape(text, quote=False).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", flat)


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
