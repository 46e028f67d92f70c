"""Pictures of a report as SVG without colours of its own: the page's stylesheet sets them.

altair and vl-convert draw them. Both are imported when a picture is drawn, because a device
install does not have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdedge.benchmarks.pictures.agreement import agreement
from kdedge.benchmarks.pictures.groups import groups
from kdedge.benchmarks.pictures.latency import latencies
from kdedge.benchmarks.pictures.lengths import lengths
from kdedge.benchmarks.pictures.machines import machines
from kdedge.benchmarks.pictures.pareto import pareto
from kdedge.benchmarks.pictures.reliability import reliability
from kdedge.benchmarks.pictures.scores import scores
from kdedge.benchmarks.pictures.style import NARROW, WIDE
from kdedge.benchmarks.pictures.svg import clean_svg, to_svg
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import metric_name

__all__ = ["NARROW", "WIDE", "Picture", "clean_svg", "draw", "draw_machines"]

PICTURES = {
    "pareto": (
        pareto,
        "{metric} against time for one text; the area of a circle is the size of the file",
    ),
    "latency": (latencies, "Distribution of the time for one text, for each subject"),
    "scores": (scores, "{metric} with its 95 % interval, for each subject"),
    "agreement": (agreement, "Agreement with the teacher against the share of answered texts"),
    "lengths": (lengths, "Time for one text against its number of tokens, for each subject"),
    "reliability": (reliability, "Share of right answers against the probability of the label"),
    "groups": (groups, "Share of right answers by class and by length"),
}
"""Name -> function that draws it, and its title."""


@dataclass(frozen=True)
class Picture:
    """One picture in two widths.

    Attributes:
        wide, narrow: SVG elements, safe to put into a page.
    """

    wide: str
    narrow: str


def draw_machines(rows: Mapping[str, Sequence[Row | None]]) -> dict[str, Picture]:
    """Draw the times of several machines; see `machines`. Returns {} if nothing was timed."""
    wide, narrow = machines(rows, WIDE), machines(rows, NARROW)
    if wide is None or narrow is None:
        return {}
    title = "Time for one text on each machine"
    return {
        "times": Picture(to_svg(wide, "times-wide", title), to_svg(narrow, "times-narrow", title))
    }


def draw(report: Report) -> dict[str, Picture]:
    """Draw every picture for which the report has values.

    Returns:
        Name in `PICTURES` -> picture.

    Raises:
        ImportError: If altair or vl-convert is missing.
    """
    pictures = {}
    for name, (function, title) in PICTURES.items():
        wide = function(report, WIDE)
        narrow = function(report, NARROW)
        if wide is None or narrow is None:
            continue
        heading = title.format(metric=metric_name(report))
        pictures[name] = Picture(
            to_svg(wide, f"{name}-wide", heading), to_svg(narrow, f"{name}-narrow", heading)
        )
    return pictures
