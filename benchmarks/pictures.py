"""Pictures of a report as SVG without colours of its own: the page's stylesheet sets them.

altair and vl-convert draw them. Both are imported when a picture is drawn, because a device
install does not have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
from kdedge.benchmarks.labels import Box, place_labels
from kdedge.benchmarks.picture_data import (
    Axis,
    Group,
    colour_of,
    density,
    groups,
    is_constant,
    is_label_only,
    latency_axis,
    pareto_front,
    percentiles,
    score_axis,
)
from kdedge.benchmarks.report import Report, Row
from kdedge.benchmarks.summary import duration, metric_name

WIDE, NARROW = 1090, 324
"""Widths of a picture in pixels: for screens, and for phones."""

SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"

ALLOWED_TAGS = {"svg", "g", "path", "line", "rect", "text", "tspan", "circle"}
"""Elements that a picture may have."""

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"

WIDE_ROW, NARROW_ROW = 36, 48
"""Height of a subject. A narrow picture has a line of text above each mark."""

NAME_GUTTER, FIGURE_GUTTER = 200, 190
"""Width of the texts on the left and right of a wide picture."""

Layer = Any
"""An altair chart."""


@dataclass(frozen=True)
class Picture:
    """One picture in two widths.

    Attributes:
        wide, narrow: SVG elements, safe to put into a page.
    """

    wide: str
    narrow: str


def draw(report: Report) -> dict[str, Picture]:
    """Draw every picture for which the report has values.

    Returns:
        Pictures named `pareto`, `latency` and `scores`.

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


# Pareto: latency against score


def pareto(report: Report, width: int) -> Layer | None:
    """Plot score against latency; the area of a circle is the size of the file."""
    import altair as alt

    scores = score_axis(report)
    timed = [row for row in report.rows if row.single is not None and row.value is not None]
    if scores is None or not timed:
        return None
    latency = latency_axis(timed, whole=False)
    untimed = [row for row in report.rows if row.single is None and row.value is not None]
    height = 380 if width == WIDE else 330
    strip_width = _strip_width(untimed, width)
    plot = Plot(width - strip_width - _axis_space(width), height, latency, scores)
    main = _pareto_plane(report, plot)
    if not untimed:
        return main
    strip = _untimed_strip(report, untimed, plot, strip_width - 26)
    return alt.hconcat(main, strip, spacing=14)


@dataclass(frozen=True)
class Plot:
    """Size and axes of a plot, to know where a point lies in pixels."""

    width: int
    height: int
    latency: Axis
    scores: Axis

    @property
    def is_narrow(self) -> bool:
        return self.width < 500

    def point(self, row: Row) -> tuple[float, float]:
        """Return where a row's point lies, in pixels from the top left corner."""
        x = self.latency.log_share(percentiles(row)[0]) * self.width
        return x, self.y(row)

    def y(self, row: Row) -> float:
        assert row.value is not None
        inside = min(max(row.value, self.scores.low), self.scores.high)
        return (1 - self.scores.share(inside)) * self.height

    def radius(self, row: Row, largest: int) -> float:
        """Return the radius of a circle whose area is the size of the file."""
        most = 13.0 if self.is_narrow else 21.0
        return most * float(np.sqrt((row.bytes or 0) / largest))


def _axis_space(width: int) -> int:
    return 62 if width == WIDE else 46


def _strip_width(untimed: Sequence[Row], width: int) -> int:
    if not untimed:
        return 0
    return 190 if width == WIDE else 26 + 16 * len(untimed)


def _pareto_plane(report: Report, plot: Plot) -> Layer:
    import altair as alt

    largest = max((row.bytes or 0 for row in report.rows), default=0) or 1
    circles: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    timed_rows: list[Row] = []
    for group in groups(report):
        timed = [row for row in group.rows if row.single is not None and row.value is not None]
        for row in timed:
            point = {**_score_values(report, row), "latency": percentiles(row)[0]}
            timed_rows.append(row)
            point["area"] = 3.14 * plot.radius(row, largest) ** 2
            circles.append(point)
            lines.append({**point, "group": group.name})
    x = alt.X(
        "latency:Q",
        title="median time for one text",
        scale=_scale(plot.latency, "log"),
        axis=_latency_ticks(plot.latency, plot.is_narrow),
    )
    y = _score_y(report, plot)
    colour = _literal_colour()
    path = _chart(lines).mark_line(strokeWidth=1.5, opacity=0.45)
    rules = _chart(circles).mark_rule(strokeWidth=1.2, opacity=0.75)
    area = _chart(circles).mark_circle(fillOpacity=0.22, strokeWidth=1.4, opacity=1)
    size = alt.Size("area:Q", scale=None)
    stroke = alt.Stroke("colour:N", scale=None)
    centre = _chart(circles).mark_circle(size=14, opacity=1)
    layers = [
        _front_line(timed_rows, x, y),
        _target_line(report, plot),
        path.encode(x=x, y=y, color=colour, detail="group:N", order="latency:Q"),
        rules.encode(x=x, y="low:Q", y2="high:Q", color=colour),
        area.encode(x=x, y=y, color=colour, stroke=stroke, size=size),
        centre.encode(x=x, y=y, color=colour),
        *_pareto_labels(report, plot, largest),
    ]
    shown = [layer for layer in layers if layer is not None]
    return alt.layer(*shown).properties(width=plot.width, height=plot.height)


def _front_line(rows: Sequence[Row], x: Any, y: Any) -> Layer:
    """Join the rows that no other row beats in both time and score."""
    values = [{"latency": latency, "score": score} for latency, score in pareto_front(rows)]
    mark = _chart(values).mark_line(
        interpolate="step-after", strokeDash=[1, 4], strokeWidth=1.6, color=MUTED, strokeCap="round"
    )
    return mark.encode(x=x, y=y)


def _target_line(report: Report, plot: Plot) -> Layer | None:
    """Draw the score that counts as retained."""
    teacher = report.teacher.get("value")
    if teacher is None or not plot.scores.low < teacher * report.target < plot.scores.high:
        return None
    values = [
        {"score": teacher * report.target, "text": f"{100 * report.target:.4g} % of the teacher"}
    ]
    base = _chart(values).encode(y=_score_y(report, plot))
    rule = base.mark_rule(strokeDash=[3, 4], color=MUTED)
    if plot.is_narrow:
        return rule
    text = base.mark_text(
        align="left", baseline="bottom", dx=3, dy=-3, color=MUTED, fontSize=11
    ).encode(x=_pixels(0), text="text:N")
    return rule + text


def _target_text_box(report: Report, plot: Plot) -> Box:
    """Return the pixels of the text at the target's line; an empty box without a teacher."""
    teacher = report.teacher.get("value")
    if teacher is None or plot.is_narrow:
        return Box(0, 0, 0, 0)
    y = (1 - plot.scores.share(teacher * report.target)) * plot.height
    return Box(0, y - 18, 130, y)


def _pixels(pixels: float) -> Any:
    """Encode a fixed position."""
    import altair as alt

    return alt.value(pixels)


def _pareto_labels(report: Report, plot: Plot, largest: int) -> list[Layer]:
    """Write each group's name at its fastest point, and the form at every point."""
    obstacles = [_target_text_box(report, plot)]
    wanted = []
    for group in groups(report):
        timed = [row for row in group.rows if row.single is not None and row.value is not None]
        for row in timed:
            x, y = plot.point(row)
            radius = plot.radius(row, largest)
            obstacles.append(Box(x - radius, y - radius, x + radius, y + radius))
            text = _form(row)
            if row is timed[-1]:
                text = f"{group.name} {text}".strip()
            if plot.is_narrow and row is not timed[-1]:
                continue
            wanted.append((x, y, radius, _short(text, 24 if plot.is_narrow else 40)))
    layers = []
    for label in place_labels(wanted, obstacles, plot.width, plot.height):
        values = [{"x": label.x, "y": label.y, "text": label.text}]
        x, y = _pixels(label.x), _pixels(label.y)
        base = _chart(values).encode(x=x, y=y, text="text:N")
        layers += _text(base, align=label.align, baseline="middle", fontSize=11, color=INK)
    return layers


def _text(base: Layer, **style: Any) -> list[Layer]:
    """Write text on a halo of the page's colour, so that lines do not cross it."""
    halo = {**style, "stroke": "var(--page)", "color": "var(--page)", "strokeWidth": 4}
    return [base.mark_text(strokeJoin="round", **halo), base.mark_text(**style)]


def _untimed_strip(report: Report, rows: Sequence[Row], plot: Plot, width: int) -> Layer:
    """Plot the scores of subjects that have no time, next to the plane."""
    import altair as alt

    points = []
    for number, row in enumerate(rows):
        point = _score_values(report, row)
        point["place"] = (number + 0.5) * width / len(rows)
        point["shown"] = min(max(float(row.value or 0), plot.scores.low), plot.scores.high)
        point["below"] = bool(row.value is not None and row.value < plot.scores.low)
        point["name"] = _strip_name(report, row)
        points.append(point)
    no_axis = alt.Axis(labels=False, ticks=False, domain=False, title=None, tickCount=6)
    y = alt.Y("shown:Q", scale=_scale(plot.scores), axis=no_axis)
    x_scale = alt.Scale(domain=[0, width], nice=False)
    x = alt.X(
        "place:Q",
        title="not timed",
        scale=x_scale,
        axis=alt.Axis(labels=False, ticks=False, grid=False),
    )
    colour = _literal_colour()
    inside = [point for point in points if not point["below"]]
    outside = [point for point in points if point["below"]]
    layers = []
    if inside:
        base = _chart(inside).encode(x=x, y=y, color=colour)
        rule = base.mark_rule(strokeWidth=1.2, opacity=0.75).encode(
            y=alt.Y("low:Q", scale=_scale(plot.scores), axis=no_axis), y2="high:Q"
        )
        layers += [rule, base.mark_point(shape="diamond", size=60, strokeWidth=1.6, opacity=1)]
    if outside:
        base = _chart(outside).encode(x=x, y=y, color=colour)
        layers.append(base.mark_point(shape="triangle-down", size=60, dy=-6, opacity=1))
    if width > 100:
        layers += _strip_text(points, x, plot.height - 6)
    return alt.layer(*layers).properties(width=width, height=plot.height)


def _strip_name(report: Report, row: Row) -> str:
    name = _short(row.subject.removesuffix(" baseline"), 14)
    if is_label_only(report, row):
        return f"{name}, labels only"
    return f"{name} {row.value:.2f}"


def _strip_text(points: Sequence[Mapping[str, Any]], x: Any, bottom: float) -> list[Layer]:
    """Write the names of untimed subjects upwards from the bottom, next to their points."""
    import altair as alt

    base = _chart(points).encode(x=x, y=alt.value(bottom), text="name:N")
    return _text(base, angle=270, align="left", baseline="middle", dy=14, fontSize=11, color=INK)


# Latency: one ridge for each subject


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
        scale=_scale(axis, "log"),
        axis=_latency_ticks(axis, width == NARROW),
    )
    y = _rows_y(len(rows))
    frame = RowFrame(width)
    shapes: list[dict[str, Any]] = []
    ticks: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        colour = _css(colour_of(report, row))
        base = number + 0.96
        for latency, height in density(row, axis):
            shape = {"row": number, "latency": latency, "base": base, "colour": colour}
            shapes.append({**shape, "top": base - frame.mark_share * height})
        for latency in percentiles(row):
            ticks.append({"latency": latency, "base": base, "top": base - 0.22})
        texts.append(
            {
                "y": number + frame.text_place,
                "name": _short(row.label, 30),
                "figures": _percentile_text(row),
            }
        )
    area = _chart(shapes).mark_area(fillOpacity=0.35, strokeWidth=1.3, line=False, clip=False)
    marks = _chart(ticks).mark_rule(strokeWidth=1.3, color=INK)
    layers = [
        area.encode(
            x=x,
            y=y("base"),
            y2="top:Q",
            color=_literal_colour(),
            stroke=alt.Stroke("colour:N", scale=None),
            detail="row:N",
        ),
        marks.encode(x=x, y=y("top"), y2="base:Q"),
        *_row_texts(texts, frame, y),
    ]
    return alt.layer(*layers).properties(width=frame.plot_width, height=frame.row * len(rows))


def _percentile_text(row: Row) -> str:
    p50, p90, p99 = [duration(value / 1e3) for value in percentiles(row)]
    return f"{p50} · {p90} · {p99}"


# Scores with intervals


def scores(report: Report, width: int) -> Layer | None:
    """Plot each subject's score with its 95 % interval, one row for each subject."""
    import altair as alt

    rows = [row for row in report.rows if row.value is not None]
    axis = score_axis(report)
    if axis is None:
        return None
    x_scale = _scale(axis)
    frame = RowFrame(width)
    x_axis = alt.Axis(format=_score_format(axis), tickCount=4 if width == NARROW else 8, grid=True)
    x = alt.X("score:Q", title=metric_name(report), scale=x_scale, axis=x_axis)
    y = _rows_y(len(rows))
    points: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        point = {**_score_values(report, row), "y": number + frame.mark_place}
        point["kind"] = _point_kind(report, row, axis)
        if point["kind"] == "below":
            point["score"] = axis.low
        points.append(point)
        name = _short(row.label, 30)
        texts.append({"y": number + frame.text_place, "name": name, "figures": _score_text(row)})
    layers = [*_reference_lines(report, axis, x)]
    inside = [point for point in points if point["kind"] != "below"]
    colour = _literal_colour()
    base = _chart(inside).encode(y=y("y"), color=colour)
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
    for kind, style in marks.items():
        chosen = [point for point in points if point["kind"] == kind]
        if chosen:
            mark = _chart(chosen).mark_point(opacity=1, strokeWidth=1.8, **style)
            stroke = alt.Stroke("colour:N", scale=None)
            encoded = {"x": x, "y": y("y"), "stroke": stroke}
            if kind != "label only":
                encoded["color"] = colour
            layers.append(mark.encode(**encoded))
    layers += _row_texts(texts, frame, y)
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
            mark = _chart([{"score": value}]).mark_rule(color=MUTED, strokeDash=dash)
            lines.append(mark.encode(x=x))
    return lines


def _score_text(row: Row) -> str:
    if row.interval is None:
        return f"{row.value:.4f}"
    low, high = row.interval
    return f"{row.value:.4f} [{low:.3f}–{high:.3f}]"


# Parts of charts


@dataclass(frozen=True)
class RowFrame:
    """Where marks and texts stand in a picture with one row for each subject.

    In a wide picture the texts are left and right of the plot, in a narrow one above each mark.
    """

    width: int

    @property
    def is_wide(self) -> bool:
        return self.width == WIDE

    @property
    def row(self) -> int:
        return WIDE_ROW if self.is_wide else NARROW_ROW

    @property
    def plot_width(self) -> int:
        return self.width - 12 - (NAME_GUTTER + FIGURE_GUTTER if self.is_wide else 0)

    @property
    def text_place(self) -> float:
        """Middle of the text, as a share of the row."""
        return 0.62 if self.is_wide else 0.22

    @property
    def mark_place(self) -> float:
        """Middle of a mark, as a share of the row."""
        return 0.62 if self.is_wide else 0.66

    @property
    def mark_share(self) -> float:
        """Height of a hill, as a share of the row."""
        return 0.84 if self.is_wide else 0.54

    @property
    def name_x(self) -> int:
        return -NAME_GUTTER if self.is_wide else 0

    @property
    def figures_x(self) -> int:
        return self.plot_width + (FIGURE_GUTTER if self.is_wide else 0)


def _rows_y(count: int) -> Any:
    """Return a function that encodes a field as vertical position among `count` rows."""
    import altair as alt

    scale = alt.Scale(domain=[0, count], reverse=True, nice=False)

    def encode(field: str) -> Any:
        return alt.Y(f"{field}:Q", scale=scale, axis=None)

    return encode


def _row_texts(texts: Sequence[Mapping[str, Any]], frame: RowFrame, y: Any) -> list[Layer]:
    """Write the name of each row on the left and its figures on the right."""
    base = _chart(texts).encode(y=y("y"))
    names = base.encode(x=_pixels(frame.name_x), text="name:N")
    figures = base.encode(x=_pixels(frame.figures_x), text="figures:N")
    return [
        *_text(names, align="left", fontSize=12, fontWeight=600, color=INK),
        *_text(figures, align="right", fontSize=12, color=MUTED),
    ]


def _score_values(report: Report, row: Row) -> dict[str, Any]:
    low, high = row.interval or (row.value, row.value)
    return {
        "score": row.value,
        "low": low,
        "high": high,
        "colour": _css(colour_of(report, row)),
    }


def _score_y(report: Report, plot: Plot) -> Any:
    import altair as alt

    axis = alt.Axis(format=_score_format(plot.scores), tickCount=6, grid=True)
    title = metric_name(report)
    return alt.Y("score:Q", title=title, scale=_scale(plot.scores), axis=axis)


def _score_format(axis: Axis) -> str:
    """Return a number format with as many digits as the ticks of the axis need."""
    return ".2f" if axis.high - axis.low > 0.04 else ".3f"


def _latency_ticks(axis: Axis, narrow: bool) -> Any:
    import altair as alt

    expression = (
        "datum.value < 1 ? format(datum.value * 1000, '.3~r') + ' µs'"
        " : datum.value < 1000 ? format(datum.value, '.3~r') + ' ms'"
        " : format(datum.value / 1000, '.3~r') + ' s'"
    )
    ticks = list(axis.ticks)
    if narrow and len(ticks) > 5:
        ticks = ticks[:: (len(ticks) + 4) // 5]
    return alt.Axis(values=ticks, labelExpr=expression, grid=True, labelFlush=False)


def _scale(axis: Axis, kind: str = "linear") -> Any:
    import altair as alt

    return alt.Scale(type=kind, domain=[axis.low, axis.high], nice=False, zero=False)


def _literal_colour() -> Any:
    """Encode the field `colour`, which holds a CSS colour."""
    import altair as alt

    return alt.Color("colour:N", scale=None)


def _chart(rows: Sequence[Mapping[str, Any]]) -> Layer:
    import altair as alt

    return alt.Chart(alt.Data(values=list(rows)))


def _css(colour: str) -> str:
    return f"var(--{colour})"


def _form(row: Row) -> str:
    """Name the form of a row in one word: its precision, or torch."""
    if row.kind == "baseline":
        return ""
    words = row.label.removeprefix(row.subject).split()
    if words[:1] == ["torch"]:
        return " ".join(words).replace(" fp32", "")
    return " ".join(words[1:]) or " ".join(words)


def _short(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


# SVG


def to_svg(chart: Layer, name: str, title: str) -> str:
    """Render a chart as an SVG element with a title, without ids or links to elsewhere."""
    import vl_convert

    styled = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        padding={"left": 2, "top": 8, "right": 10, "bottom": 2},
        aria=False,
        axis={
            "labelColor": MUTED,
            "titleColor": MUTED,
            "titleFontWeight": "normal",
            "titleFontSize": 12,
            "titlePadding": 10,
            "labelFontSize": 11,
            "gridColor": GRID,
            "domainColor": GRID,
            "tickColor": GRID,
        },
        view={"stroke": None},
    )
    return clean_svg(str(vl_convert.vegalite_to_svg(styled.to_json())), name, title)


def clean_svg(svg: str, name: str, title: str) -> str:
    """Return an SVG as an element of an HTML page.

    Every element and attribute that can refer to something or run code is refused or removed.

    Args:
        svg: The document of an SVG file.
        name: An id that no other element of the page has.
        title: What a screen reader says.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = str(element.tag).removeprefix(SVG_NAMESPACE)
        if element.tag not in ALLOWED_TAGS:
            raise ValueError(f"a picture has an element <{element.tag}>")
        for attribute in list(element.attrib):
            if _is_unsafe(attribute, element.attrib[attribute]):
                del element.attrib[attribute]
    root.set("role", "img")
    root.set("aria-labelledby", name)
    caption = ElementTree.Element("title", {"id": name})
    caption.text = title
    root.insert(0, caption)
    return ElementTree.tostring(root, encoding="unicode")


def _is_unsafe(attribute: str, value: str) -> bool:
    return (
        attribute.startswith(("on", "{"))
        or attribute in ("id", "href", "class", "style", "clip-path")
        or re.search(r"url\(|javascript:", value) is not None
    )


PICTURES = {
    "pareto": (
        pareto,
        "{metric} against time for one text; the area of a circle is the size of the file",
    ),
    "latency": (latencies, "Distribution of the time for one text, for each subject"),
    "scores": (scores, "{metric} with its 95 % interval, for each subject"),
}
"""Name -> function that draws it, and its title."""

__all__ = ["NARROW", "WIDE", "Group", "Picture", "clean_svg", "draw"]
