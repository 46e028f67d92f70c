"""Build report.html: one page that needs no other file, no network and no JavaScript.

The page is the template report.html.jinja. On a device install, which has neither jinja2 nor the
packages that draw, it is report.md as HTML in the same style.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from kdedge.benchmarks.agreement import ChosenThreshold
from kdedge.benchmarks.cells import caption, cells_of, columns_in, plain, report_tables, title
from kdedge.benchmarks.equivalence.sections import sections_of
from kdedge.benchmarks.figures import NOTHING
from kdedge.benchmarks.int8_gain import int8_answers
from kdedge.benchmarks.markdown import TEXT_COLUMNS, markdown
from kdedge.benchmarks.pictures.data import (
    PEER_COLOUR,
    SIMPLE_COLOUR,
    colour_of,
    groups,
    is_label_only,
)
from kdedge.benchmarks.report import Report, warnings
from kdedge.benchmarks.summary import headline, metric_name, summary

if TYPE_CHECKING:
    from jinja2 import Template
    from kdedge.benchmarks.pictures import Picture

TEMPLATE = "report.html.jinja"
STYLE = "report.css"

SCROLL_ATTRIBUTES = 'role="region" aria-label="Table" tabindex="0"'
"""Attributes of the element around a table, so that a keyboard can scroll it."""

PICTURE_PACKAGES = {"altair": "altair", "vl_convert": "vl-convert-python"}
"""Import name -> distribution of the packages that draw."""

NO_PICTURES = (
    "This page has no pictures, because {} is not installed."
    ' To draw them, install "kdedge-toolkit[train]" and bench again.'
)

MACHINE_NAMES = {
    "cpu": "CPU",
    "flags": "instruction sets",
    "memory_mb": "memory (MB)",
    "os": "operating system",
    "python": "Python",
    "packages": "packages",
    "providers": "available providers",
    "gpu": "GPU",
    "threads": "threads per subject",
}
"""Key of `Report.machine` -> what the page calls it, if that differs."""

SETTING_NAMES = {
    "providers": "measured providers",
    "seconds": "seconds of timing",
    "repeats": "texts timed per subject",
    "batch": "texts per batch",
    "teacher": "teacher timed",
    "rates": "texts per second offered",
}
"""Key of `Report.settings` -> what the page calls it, if that differs."""

SETTINGS_ELSEWHERE = ("threads", "task", "labels")
"""Keys of `Report.settings` that the page shows in other places, or only report.json holds."""


SHARED_COLOURS = {SIMPLE_COLOUR: "simple classifier", PEER_COLOUR: "other library"}
"""Colours of several groups, and what the legend calls them."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The value.
        below: A second line, such as an interval, or "".
        style: CSS classes.
    """

    text: str
    below: str
    style: str


@dataclass(frozen=True)
class TableRow:
    """A row of the main table.

    Attributes:
        name: The cell that heads the row.
        cells: The other cells.
        colour: Name of the subject's colour.
        style: `headline`, `baseline` or "".
    """

    name: str
    cells: tuple[Cell, ...]
    colour: str
    style: str


def html_page(report: Report) -> str:
    """Build the page.

    Everything that comes from names, labels or the command line is escaped.
    """
    try:
        template = template_of(TEMPLATE)
    except ImportError:
        return _plain_page(report, _missing_packages("jinja2"))
    pictures, without_pictures = _pictures(report)
    header = _header(report)
    return template.render(
        report=report,
        title=title(report),
        style=resource(STYLE),
        summary=summary(report),
        caption=caption(report),
        metric=metric_name(report),
        pictures=pictures,
        without_pictures=without_pictures,
        legend=_legend(report),
        student_legend=_student_legend(report),
        header=header,
        numbers=[_is_number_column(name) for name in header],
        rows=_rows(report),
        has_label_only=_has_label_only(report),
        columns=columns_in(header),
        agreements=_agreements(report),
        sections=sections_of(report),
        int8_answers=int8_answers(report),
        scenarios=report_tables(report),
        warnings=warnings(report),
        environment=_environment(report),
    )


def template_of(name: str) -> Template:
    """Return a template of this package; what it shows is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def resource(name: str) -> str:
    """Read a file that lies next to this module."""
    return files("kdedge.benchmarks").joinpath(name).read_text(encoding="utf-8")


def _pictures(report: Report) -> tuple[dict[str, Picture], str]:
    """Draw the pictures; if a package is missing, return {} and a note that names it."""
    from kdedge.benchmarks.pictures import draw

    try:
        return draw(report), ""
    except ImportError as error:
        package = str(error.name or "altair").partition(".")[0]
        return {}, _missing_packages(package)


def _missing_packages(package: str) -> str:
    return NO_PICTURES.format(PICTURE_PACKAGES.get(package, package))


def _header(report: Report) -> list[str]:
    """Return the columns with a value in at least one row.

    There is no column for the provider: `_cell` writes it below the form of the model.
    """
    cells = [cells_of(report, row) for row in report.rows]
    header = ["subject"]
    for name in cells[0] if cells else ():
        values = {row[name] for row in cells}
        if name not in ("subject", "provider") and values != {NOTHING}:
            header.append(name)
    return header


def _is_number_column(name: str) -> bool:
    return name not in TEXT_COLUMNS or name.startswith("retention")


def _rows(report: Report) -> list[TableRow]:
    header = _header(report)
    best = headline(report)
    rows = []
    for row in report.rows:
        cells = cells_of(report, row)
        style = ""
        if row.kind == "baseline":
            style = "baseline"
        if row is best:
            style = "headline"
        others = [_cell(name, cells) for name in header[1:]]
        rows.append(TableRow(row.subject, tuple(others), colour_of(report, row), style))
    return rows


def _cell(name: str, cells: Mapping[str, str]) -> Cell:
    text = cells[name]
    if name == "form":
        provider = cells["provider"].removesuffix("ExecutionProvider")
        return Cell(text, "" if provider == NOTHING else provider, "")
    if name == "verdict":
        return Cell(text, "", text.replace(" ", "-"))
    value, bracket, interval = text.partition(" [")
    style = "number" if _is_number_column(name) else ""
    return Cell(value, bracket.strip() + interval, style)


def _legend(report: Report) -> list[tuple[str, str]]:
    """Return name and colour of every kind of mark."""
    entries: dict[str, str] = {}
    for group in groups(report):
        entries[SHARED_COLOURS.get(group.colour, group.name)] = group.colour
    if _has_label_only(report):
        entries["label-only baseline"] = "hollow"
    return list(entries.items())


def _student_legend(report: Report) -> list[tuple[str, str]]:
    """Return name and colour of the students whose agreement with the teacher is drawn."""
    colours = {}
    for row in report.rows:
        if row.agreement is not None and not row.is_teacher:
            colours[colour_of(report, row)] = row.subject
    return [(SHARED_COLOURS.get(colour, name), colour) for colour, name in colours.items()]


def _has_label_only(report: Report) -> bool:
    return any(is_label_only(report, row) for row in report.rows)


def _agreements(report: Report) -> list[tuple[str, ChosenThreshold]]:
    """Return the name of each student with a chosen threshold, and the threshold."""
    chosen = []
    for row in report.rows:
        if row.agreement is not None and row.agreement.chosen is not None and not row.is_teacher:
            chosen.append((row.label, row.agreement.chosen))
    return chosen


def _environment(report: Report) -> list[tuple[str, str]]:
    """Return the machine, the versions and the settings as names and values."""
    facts = [("kdedge", report.kdedge), ("measured", report.created)]
    for key, value in report.machine.items():
        if value is not None:
            facts.append((MACHINE_NAMES.get(key, key), plain(value)))
    for key, value in report.settings.items():
        if key not in SETTINGS_ELSEWHERE and value is not None:
            facts.append((SETTING_NAMES.get(key, key), _setting(value)))
    return facts


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return plain(list(value))
    return plain(value)


def _plain_page(report: Report, note: str) -> str:
    """Build the page from report.md; markdown-it-py comes with rich."""
    from markdown_it import MarkdownIt

    # "html" is off, so that tags in names stay text. A picture would be another file.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    body = renderer.render(markdown(report))
    body = body.replace("<table>", f'<div class="scroll" {SCROLL_ATTRIBUTES}><table>')
    body = body.replace("</table>", "</table></div>")
    body = re.sub(r"<th\b", '<th scope="col"', body)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title(report))}</title>\n<style>\n{resource(STYLE)}</style>\n"
        f'</head>\n<body>\n<main class="plain">\n<p class="note">{html.escape(note)}</p>\n'
        f"{body}</main>\n</body>\n</html>\n"
    )
