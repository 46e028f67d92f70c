"""A bench report on the terminal: its warnings, a table and a summary, or one JSON line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from kdedge.cli.console import print_line, results
from kdedge.cli.meaning import exit_if_strict, warn
from kdedge.cli.options import OutputOptions
from kdedge.printable import printable
from kdedge.run.progress import Progress

if TYPE_CHECKING:
    from kdedge.benchmarks.report import Report
    from kdedge.benchmarks.row import Row
    from kdedge.benchmarks.scenarios.tables import ScenarioTable

SUBJECT_WIDTH = 26
"""Widest label in the table; a longer name is shortened."""

TERMINAL_COLUMNS = {
    "subject": "subject",
    "score": "score",
    "retention % [95 %]": "retention\n% [95 %]",
    "verdict": "verdict",
    "p50 µs": "p50\nµs",
    "p90 µs": "p90\nµs",
    "p99 µs": "p99\nµs",
    "speedup": "speed\nup",
    "vs fastest": "vs\nfastest",
    "texts/s": "texts\n/s",
    "size": "size",
    "peak MB": "peak\nMB",
}
"""Column -> header. Headers break into two lines, so that the numbers decide the widths."""

NARROW_COLUMNS = (
    "subject",
    "score",
    "retention % [95 %]",
    "verdict",
    "p50 µs",
    "speedup",
    "size",
)
"""Columns that fit into 80; the others are shown with --wide, and are in the report."""

LEFT_ALIGNED = ("subject", "retention % [95 %]", "verdict")


def show_report(report: Report, path: Path, output: OutputOptions, *, progress: Progress) -> None:
    """Print a report: its warnings, a table, the summary and the path, or one JSON line."""
    from kdedge.benchmarks.cells import report_tables
    from kdedge.benchmarks.render import PAGE_FILE
    from kdedge.benchmarks.report import one_line, warnings
    from kdedge.benchmarks.summary import summary

    page = path.with_name(PAGE_FILE)
    if output.as_json:
        progress.say(f"report: {page}")
        click.echo(one_line(report))
        return
    console = results(wide=output.wide)
    for line in warnings(report):
        console.print(f"- {_escape_line(line)}", highlight=False)
    console.print(rich_table(report, wide=output.wide))
    for table in report_tables(report):
        console.print()
        console.print(_scenario_table(table))
    sentence = summary(report)
    if sentence:
        console.print(f"\n{_escape_line(sentence)}", highlight=False)
    console.print()
    print_line(f"report: {page}")


def rich_table(report: Report, *, wide: bool = True) -> Table:
    """Build the table for stdout: all columns fit into 120, without `wide` into 80."""
    from kdedge.benchmarks.cells import caption, cells_of, format_speedup, title
    from kdedge.benchmarks.summary import metric_name

    # Without padding and edges, the box's own column is the only gap.
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=_escape_line(title(report)),
        title_justify="left",
        caption=_escape_line(caption(report)),
        caption_justify="left",
    )
    headers = {name: TERMINAL_COLUMNS[name] for name in _columns(wide)}
    headers["score"] = metric_name(report)
    if not wide:
        headers["speedup"] = "speedup"
    for column, header in headers.items():
        justify: Literal["left", "right"] = "left" if column in LEFT_ALIGNED else "right"
        is_name = column == "subject" and not wide
        table.add_column(escape(header), justify=justify, no_wrap=not is_name, overflow="fold")
    for row in report.rows:
        cells = cells_of(report, row)
        cells["subject"] = _short_label(row) if wide else row.label
        cells["speedup"] = format_speedup(row, report.base)
        table.add_row(
            *[_escape_line(cells[column]) for column in headers],
            style="dim" if row.kind == "baseline" else None,
        )
    return table


def _scenario_table(table: ScenarioTable) -> Table:
    """Build the table of one scenario for stdout."""
    shown = Table(
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
        title=_escape_line(table.title),
        title_justify="left",
    )
    for number, column in enumerate(table.header):
        justify: Literal["left", "right"] = "left" if number == 0 else "right"
        shown.add_column(escape(column), justify=justify, overflow="fold")
    for row in table.rows:
        shown.add_row(*map(_escape_line, row))
    return shown


def _columns(wide: bool) -> tuple[str, ...]:
    return tuple(TERMINAL_COLUMNS) if wide else NARROW_COLUMNS


def _short_label(row: Row) -> str:
    """Shorten a long name; keep the form after it."""
    excess = len(row.label) - SUBJECT_WIDTH
    if excess <= 0:
        return row.label
    name = row.subject[: max(1, len(row.subject) - excess - 1)] + "…"
    return row.label.replace(row.subject, name, 1)


def _escape_line(text: str) -> str:
    """Put text on one line and protect it from rich's markup."""
    return escape(printable(" ".join(text.split())))


def judge(report: Report, output: OutputOptions) -> None:
    """Apply `--strict` to the warnings of a report; in a JSON line they are not visible."""
    from kdedge.benchmarks.result_warnings import result_warnings

    warnings = result_warnings(report)
    if output.as_json:
        warn(warnings, strict=output.strict)
    exit_if_strict(warnings, strict=output.strict)
