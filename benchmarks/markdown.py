"""Write a report as the page report.md."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

from kdedge.benchmarks.cells import caption, cells_of, columns_in, plain, report_tables, title
from kdedge.benchmarks.equivalence.sections import sections_of
from kdedge.benchmarks.figures import FigureSection
from kdedge.benchmarks.int8_gain import int8_answers
from kdedge.benchmarks.report import Report, warnings
from kdedge.benchmarks.summary import summary

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
    header = ["source", "target", "attempts", "produced", "used", "rejected"]
    is_cleaned = any(source.get("cleaned") for source in sources.values())
    if is_cleaned:
        header.append("changed by cleaning")
    rows = []
    for name, source in sources.items():
        counts = [f"{source[key]:.0f}" for key in ("target", "attempts", "produced", "used")]
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
