"""How often a student agrees with its teacher, against the share of texts that it answers."""

from __future__ import annotations

from typing import Any

from kdedge.benchmarks.agreement import AgreementCurve
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, colour_of
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report

HEIGHT = 260
AXIS_WIDTH = 80
"""Width of the labels on the left."""

FIRST_SHARE = 0.05
"""Smaller shares hold so few texts that their agreement jumps."""


def agreement(report: Report, width: int) -> Layer | None:
    """Plot the curve of each student, with the thresholds that were chosen on validation texts."""
    import altair as alt

    lines: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    for row in report.rows:
        if row.agreement is None or row.is_teacher:
            continue
        colour = f"var(--{colour_of(report, row)})"
        lines += _line(row.agreement, row.label, colour)
        chosen += _chosen(row.agreement, row.label, colour)
    if not lines:
        return None
    lowest = min(point["agreement"] for point in [*lines, *chosen])
    lowest = min(lowest, *(point["promised"] for point in chosen), 1.0)
    axis = Axis(lowest - 0.05 * (1 - lowest) - 0.002, 1.0)
    x = alt.X(
        "share:Q",
        title="share of the texts that the student answers",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".0%", tickCount=5 if width == style.NARROW else 10, grid=True),
    )
    y = alt.Y(
        "agreement:Q",
        title="agreement with the teacher",
        scale=style.scale_of(axis),
        axis=alt.Axis(format=".1%", tickCount=6, grid=True),
    )
    colour = style.literal_colour()
    layers = [
        style.chart(lines).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="name:N")
    ]
    if chosen:
        promises = [{"agreement": promise} for promise in {point["promised"] for point in chosen}]
        rule = style.chart(promises).mark_rule(color=style.MUTED, strokeDash=[3, 4])
        layers.append(rule.encode(y=y))
        marks = style.chart(chosen).mark_point(filled=True, size=90, opacity=1)
        layers.append(marks.encode(x=x, y=y, color=colour))
    return alt.layer(*layers).properties(width=width - AXIS_WIDTH, height=HEIGHT)


def _line(curve: AgreementCurve, name: str, colour: str) -> list[dict[str, Any]]:
    points = []
    for share, agreement in zip(curve.shares, curve.agreements, strict=True):
        if share >= FIRST_SHARE:
            point = {"share": share, "agreement": agreement, "name": name, "colour": colour}
            points.append(point)
    return points


def _chosen(curve: AgreementCurve, name: str, colour: str) -> list[dict[str, Any]]:
    if curve.chosen is None or curve.chosen.agreement is None:
        return []
    point = {
        "share": curve.chosen.share,
        "agreement": curve.chosen.agreement,
        "promised": curve.chosen.promised,
        "name": name,
        "colour": colour,
    }
    return [point]
