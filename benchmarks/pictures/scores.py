"""Each subject's score with its interval."""

from __future__ import annotations

from typing import Any

from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, is_constant, is_label_only, score_axis
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import metric_name


def scores(report: Report, width: int) -> Layer | None:
    """Plot each subject's score with its 95 % interval, one row for each subject."""
    import altair as alt

    rows = [row for row in report.rows if row.value is not None]
    axis = score_axis(report)
    if axis is None:
        return None
    x_scale = style.scale_of(axis)
    frame = style.FRAMES[width]
    x_axis = alt.Axis(
        format=style.score_format(axis), tickCount=4 if width == style.NARROW else 8, grid=True
    )
    x = alt.X("score:Q", title=metric_name(report), scale=x_scale, axis=x_axis)
    y = style.rows_y(len(rows))
    points: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        point = {**style.score_values(report, row), "y": number + frame.mark_place}
        point["kind"] = _point_kind(report, row, axis)
        if point["kind"] == "below":
            point["score"] = axis.low
        points.append(point)
        name = style.shorten(row.label, frame.name_length)
        texts.append({"y": number + frame.text_place, "name": name, "figures": _score_text(row)})
    layers = [*_reference_lines(report, axis, x)]
    inside = [point for point in points if point["kind"] != "below"]
    colour = style.literal_colour()
    base = style.chart(inside).encode(y=y("y"), color=colour)
    layers.append(
        base.mark_rule(strokeWidth=2.2, opacity=0.8).encode(
            x=alt.X("low:Q", title=metric_name(report), scale=x_scale, axis=x_axis), x2="high:Q"
        )
    )
    marks = {
        "score": {"shape": "circle", "filled": True, "size": 80},
        "label only": {"shape": "diamond", "filled": True, "size": 90, "fill": "var(--page)"},
        "below": {"shape": "triangle-left", "filled": True, "size": 80},
    }
    for kind, shape in marks.items():
        chosen = [point for point in points if point["kind"] == kind]
        if chosen:
            mark = style.chart(chosen).mark_point(opacity=1, strokeWidth=1.8, **shape)
            stroke = alt.Stroke("colour:N", scale=None)
            encoded = {"x": x, "y": y("y"), "stroke": stroke}
            if kind != "label only":
                encoded["color"] = colour
            layers.append(mark.encode(**encoded))
    layers += style.row_texts(texts, frame, y)
    return alt.layer(*layers).properties(width=frame.plot_width, height=frame.row * len(rows))


def _point_kind(report: Report, row: Row, axis: Axis) -> str:
    assert row.value is not None
    if is_constant(row) and row.value < axis.low:
        return "below"
    return "label only" if is_label_only(report, row) else "score"


def _reference_lines(report: Report, axis: Axis, x: Any) -> list[Layer]:
    """Draw the teacher's score, and the score that counts as retained."""
    teacher = report.teacher.get("value")
    if teacher is None:
        return []
    lines = []
    for value, dash in ((teacher, [1, 0]), (teacher * report.target, [3, 4])):
        if axis.low < value < axis.high:
            mark = style.chart([{"score": value}]).mark_rule(color=style.MUTED, strokeDash=dash)
            lines.append(mark.encode(x=x))
    return lines


def _score_text(row: Row) -> str:
    if row.interval is None:
        return f"{row.value:.4f}"
    low, high = row.interval
    return f"{row.value:.4f} [{low:.3f}–{high:.3f}]"
