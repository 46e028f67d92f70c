"""Build one page from the reports of several machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdedge.benchmarks.compare import (
    NamedReport,
    differences,
    read_reports,
    rows_of,
    scores,
    throughputs,
    times,
    warnings,
)
from kdedge.benchmarks.figures import FigureSection
from kdedge.benchmarks.page import STYLE, resource, template_of
from kdedge.benchmarks.pictures import draw_machines
from kdedge.benchmarks.pictures.machines import machine_colour
from kdedge.benchmarks.summary import metric_name

from kdedge.errors import UsageError
from kdedge.io.atomic import write_atomic

TEMPLATE = "compare.html.jinja"
HEADING = "<b>kdedge bench compare</b>"
"""What the page of a comparison holds, as its template writes it."""


def compare_reports(paths: Sequence[Path], page: Path) -> list[NamedReport]:
    """Read reports of several machines and write one page that compares them.

    Args:
        paths: Files report.json of two or more benches on the same texts.
        page: The HTML file to write.

    Raises:
        UsageError: If the reports have different tasks, or `page` exists and is not the page of
            an earlier comparison.
        DataError: If they were measured on different texts, or a file is no report.
    """
    reports = read_reports(paths)
    _check_replaceable(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(page, comparison_page(reports))
    return reports


def _check_replaceable(page: Path) -> None:
    """Raise UsageError if a file exists that is not the page of a comparison."""
    if not page.exists():
        return
    try:
        is_comparison = HEADING in page.read_text(encoding="utf-8")
    except (OSError, ValueError):
        is_comparison = False
    if not is_comparison:
        raise UsageError(
            "the page would replace another file", str(page), "name another file with --out"
        )


def comparison_page(reports: Sequence[NamedReport]) -> str:
    """Build the page; everything that comes from files is escaped."""
    first = reports[0].report
    sections = [
        FigureSection(
            "times",
            "Time for one text",
            "The p50 of a single text, with tokenization. The axis of the picture is logarithmic.",
            times(reports),
        ),
        FigureSection(
            "throughput",
            "Texts per second",
            "In batches, with tokenization.",
            throughputs(reports),
        ),
    ]
    if scores(reports).rows:
        explanation = (
            f"{metric_name(first).capitalize()} on the same {first.task['texts']} texts; an int8"
            " file can score differently on another kind of processor."
        )
        sections.append(FigureSection("scores", "Scores", explanation, scores(reports)))
    sections.append(
        FigureSection(
            "differences",
            "What differs",
            "Facts about machines, versions, settings and files that are not the same everywhere.",
            differences(reports),
        )
    )
    lines = warnings(reports)
    if lines:
        explanation = "What the reports themselves say about their figures."
        sections.append(FigureSection("warnings", "Warnings", explanation, lines=lines))
    names = [each.name for each in reports]
    return template_of(TEMPLATE).render(
        title=f"{first.task['name']}: {len(reports)} reports compared",
        style=resource(STYLE),
        kdedge=first.kdedge,
        legend=[(name, machine_colour(number)) for number, name in enumerate(names)],
        pictures=draw_machines(rows_of(reports)),
        sections=sections,
        reports=reports,
    )
