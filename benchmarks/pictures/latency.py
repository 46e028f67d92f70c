"""The distribution of latencies: one ridge for each subject."""

from __future__ import annotations

from typing import Any

from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import colour_of, density, latency_axis, percentiles
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import duration


def latencies(report: Report, width: int) -> Layer | None:
    """Plot the distribution of single-text latencies, one row for each timed subject."""
    import altair as alt

    rows = [row for row in report.rows if row.single is not None]
    if not rows:
        return None
    axis = latency_axis(rows, whole=True)
    x = alt.X(
        "latency:Q",
        title="time for one text",
        scale=style.scale_of(axis, "log"),
        axis=style.latency_ticks(axis, width == style.NARROW),
    )
    y = style.rows_y(len(rows))
    frame = style.FRAMES[width]
    shapes: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        colour = style.css(colour_of(report, row))
        base = number + 0.96
        for latency, height in density(row, axis):
            shape = {"row": number, "latency": latency, "base": base, "colour": colour}
            shapes.append({**shape, "top": base - frame.mark_share * height})
        for latency in percentiles(row):
            ticks.append({"latency": latency, "base": base, "top": base - 0.22})
        texts.append(
            {
                "y": number + frame.text_place,
                "name": style.shorten(row.label, frame.name_length),
                "figures": _percentile_text(row),
            }
        )
    area = style.chart(shapes).mark_area(fillOpacity=0.35, strokeWidth=1.3, line=False, clip=False)
    marks = style.chart(ticks).mark_rule(strokeWidth=1.3, color=style.INK)
    layers = [
        area.encode(
            x=x,
            y=y("base"),
            y2="top:Q",
            color=style.literal_colour(),
            stroke=alt.Stroke("colour:N", scale=None),
            detail="row:N",
        ),
        marks.encode(x=x, y=y("top"), y2="base:Q"),
        *style.row_texts(texts, frame, y),
    ]
    return alt.layer(*layers).properties(width=frame.plot_width, height=frame.row * len(rows))


def _percentile_text(row: Row) -> str:
    p50, p90, p99 = [duration(value / 1e3) for value in percentiles(row)]
    return f"{p50} · {p90} · {p99}"
