"""The reliability diagram: how often a student is right, against its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdedge.benchmarks.equivalence.calibration import ReliabilityFigures
from kdedge.benchmarks.equivalence.tables import shown_student
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, colour_of
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report

HEIGHT = 300
WIDEST = 520
AXIS_WIDTH = 80

SMALLEST, LARGEST = 30, 300
"""Areas of a point for few texts and for the most texts of a bin, in square pixels."""

LINE = 18
"""Pixels between two lines of the legend."""


def reliability(report: Report, width: int) -> Layer | None:
    """Plot accuracy against confidence for the student that the report is about."""
    import altair as alt

    chosen = shown_student(report)
    if chosen is None or chosen[1].raw is None:
        return None
    row, found = chosen
    colour = style.css(colour_of(report, row))
    assert found.raw is not None
    before, after = found.raw, found.calibrated
    drawn = [(f"before the temperature: ECE {before.ece:.3f}", before, style.MUTED)]
    if after is not None:
        name = f"after, with {after.temperature:.3g}: ECE {after.ece:.3f}"
        drawn.append((name, after, colour))
    lowest = min(each.confidence for _, figures, _ in drawn for each in figures.bins)
    axis = Axis(min(lowest, 0.95) - 0.02, 1.0)
    plot_width = min(width, WIDEST) - AXIS_WIDTH
    x = alt.X(
        "confidence:Q",
        title="probability of the predicted label",
        scale=style.scale_of(axis),
        axis=alt.Axis(format=".0%", tickCount=5, grid=True),
    )
    y = alt.Y(
        "accuracy:Q",
        title="share that is right",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".0%", tickCount=5, grid=True),
    )
    ends = [{"confidence": end, "accuracy": end} for end in (max(axis.low, 0.0), 1.0)]
    layers = [style.chart(ends).mark_line(color=style.GRID, strokeWidth=2).encode(x=x, y=y)]
    for number, (name, figures, ink) in enumerate(drawn):
        points = _points(figures)
        base = style.chart(points).encode(x=x, y=y)
        layers.append(base.mark_line(color=ink, strokeWidth=2))
        mark = base.mark_point(filled=True, color=ink, opacity=1)
        layers.append(mark.encode(size=alt.Size("area:Q", scale=None)))
        layers += _legend_line(name, ink, HEIGHT - LINE * (len(drawn) - number), plot_width)
    return alt.layer(*layers).properties(width=plot_width, height=HEIGHT)


def _points(figures: ReliabilityFigures) -> list[dict[str, Any]]:
    most = max(each.texts for each in figures.bins)
    points = []
    for each in figures.bins:
        area = max(SMALLEST, LARGEST * each.texts / most)
        points.append({"confidence": each.confidence, "accuracy": each.accuracy, "area": area})
    return points


def _legend_line(name: str, ink: str, y: float, plot_width: int) -> Sequence[Layer]:
    """Write one line of the legend in the lower right corner, in the colour of its points."""
    import altair as alt

    base = style.chart([{"name": name}]).encode(
        x=alt.value(plot_width - 6), y=alt.value(y), text="name:N"
    )
    return style.halo_text(base, align="right", fontSize=12, fontWeight=600, color=ink)
