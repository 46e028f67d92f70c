"""The strip next to the plane: the scores of subjects that have no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import is_label_only
from kdedge.benchmarks.pictures.plot import Plot
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row


def strip_width(untimed: Sequence[Row], width: int) -> int:
    if not untimed:
        return 0
    return 190 if width == style.WIDE else 26 + 16 * len(untimed)


def untimed_strip(report: Report, rows: Sequence[Row], plot: Plot, width: int) -> Layer:
    """Plot the scores of subjects that have no time, next to the plane."""
    import altair as alt

    points = []
    for number, row in enumerate(rows):
        point = style.score_values(report, row)
        point["place"] = (number + 0.5) * width / len(rows)
        point["shown"] = min(max(float(row.value or 0), plot.scores.low), plot.scores.high)
        point["below"] = bool(row.value is not None and row.value < plot.scores.low)
        point["name"] = _strip_name(report, row)
        points.append(point)
    no_axis = alt.Axis(labels=False, ticks=False, domain=False, title=None, tickCount=6)
    y = alt.Y("shown:Q", scale=style.scale_of(plot.scores), axis=no_axis)
    x_scale = alt.Scale(domain=[0, width], nice=False)
    x = alt.X(
        "place:Q",
        title="not timed",
        scale=x_scale,
        axis=alt.Axis(labels=False, ticks=False, grid=False),
    )
    colour = style.literal_colour()
    inside = [point for point in points if not point["below"]]
    outside = [point for point in points if point["below"]]
    layers = []
    if inside:
        base = style.chart(inside).encode(x=x, y=y, color=colour)
        rule = base.mark_rule(strokeWidth=1.2, opacity=0.75).encode(
            y=alt.Y("low:Q", scale=style.scale_of(plot.scores), axis=no_axis), y2="high:Q"
        )
        layers += [rule, base.mark_point(shape="diamond", size=60, strokeWidth=1.6, opacity=1)]
    if outside:
        base = style.chart(outside).encode(x=x, y=y, color=colour)
        layers.append(base.mark_point(shape="triangle-down", size=60, dy=-6, opacity=1))
    if width > 100:
        layers += _strip_text(points, x, plot.height - 6)
    return alt.layer(*layers).properties(width=width, height=plot.height)


def _strip_name(report: Report, row: Row) -> str:
    name = style.shorten(row.subject.removesuffix(" baseline"), 14)
    if is_label_only(report, row):
        return f"{name}, labels only"
    return f"{name} {row.value:.2f}"


def _strip_text(points: Sequence[Mapping[str, Any]], x: Any, bottom: float) -> list[Layer]:
    """Write the names of untimed subjects upwards from the bottom, next to their points."""
    import altair as alt

    base = style.chart(points).encode(x=x, y=alt.value(bottom), text="name:N")
    return style.halo_text(
        base, angle=270, align="left", baseline="middle", dy=14, fontSize=11, color=style.INK
    )
