"""Score against latency; the area of a circle is the size of the file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import (
    groups,
    latency_axis,
    percentiles,
    score_axis,
    time_front,
)
from kdedge.benchmarks.pictures.pareto_labels import pareto_labels, target_score
from kdedge.benchmarks.pictures.plot import Plot, score_y
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.pictures.untimed import strip_width, untimed_strip
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row


def pareto(report: Report, width: int) -> Layer | None:
    """Plot score against latency; the area of a circle is the size of the file."""
    import altair as alt

    scores = score_axis(report)
    timed = [row for row in report.rows if row.single is not None and row.value is not None]
    if scores is None or not timed:
        return None
    latency = latency_axis(timed, whole=False)
    untimed = [row for row in report.rows if row.single is None and row.value is not None]
    height = 380 if width == style.WIDE else 330
    side = strip_width(untimed, width)
    plot = Plot(width - side - _axis_space(width), height, latency, scores)
    main = _pareto_plane(report, plot)
    if not untimed:
        return main
    strip = untimed_strip(report, untimed, plot, side - 26)
    return alt.hconcat(main, strip, spacing=14)


def _axis_space(width: int) -> int:
    return 62 if width == style.WIDE else 46


def _pareto_plane(report: Report, plot: Plot) -> Layer:
    import altair as alt

    largest = max((row.bytes or 0 for row in report.rows), default=0) or 1
    circles: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    timed_rows: list[Row] = []
    for group in groups(report):
        timed = [row for row in group.rows if row.single is not None and row.value is not None]
        for row in timed:
            point = {**style.score_values(report, row), "latency": percentiles(row)[0]}
            timed_rows.append(row)
            point["area"] = 3.14 * plot.radius(row, largest) ** 2
            circles.append(point)
            lines.append({**point, "group": group.name})
    x = alt.X(
        "latency:Q",
        title="median time for one text",
        scale=style.scale_of(plot.latency, "log"),
        axis=style.latency_ticks(plot.latency, plot.is_narrow),
    )
    y = score_y(report, plot)
    colour = style.literal_colour()
    path = style.chart(lines).mark_line(strokeWidth=1.5, opacity=0.45)
    rules = style.chart(circles).mark_rule(strokeWidth=1.2, opacity=0.75)
    area = style.chart(circles).mark_circle(fillOpacity=0.22, strokeWidth=1.4, opacity=1)
    size = alt.Size("area:Q", scale=None)
    stroke = alt.Stroke("colour:N", scale=None)
    centre = style.chart(circles).mark_circle(size=14, opacity=1)
    layers = [
        _front_line(timed_rows, x, y),
        _target_line(report, plot),
        path.encode(x=x, y=y, color=colour, detail="group:N", order="latency:Q"),
        rules.encode(x=x, y="low:Q", y2="high:Q", color=colour),
        area.encode(x=x, y=y, color=colour, stroke=stroke, size=size),
        centre.encode(x=x, y=y, color=colour),
        *pareto_labels(report, plot, largest),
    ]
    shown = [layer for layer in layers if layer is not None]
    return alt.layer(*shown).properties(width=plot.width, height=plot.height)


def _front_line(rows: Sequence[Row], x: Any, y: Any) -> Layer:
    """Join the rows that no other row beats in both time and score."""
    values = [{"latency": latency, "score": score} for latency, score in time_front(rows)]
    mark = style.chart(values).mark_line(
        interpolate="step-after",
        strokeDash=[1, 4],
        strokeWidth=1.6,
        color=style.MUTED,
        strokeCap="round",
    )
    return mark.encode(x=x, y=y)


def _target_line(report: Report, plot: Plot) -> Layer | None:
    """Draw the score that counts as retained."""
    score = target_score(report, plot)
    if score is None:
        return None
    base = style.chart([{"score": score}]).encode(y=score_y(report, plot))
    return base.mark_rule(strokeDash=[3, 4], color=style.MUTED)
