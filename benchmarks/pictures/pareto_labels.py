"""The texts in the plane of score against latency: names of points, and of the target's line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import groups
from kdedge.benchmarks.pictures.label_places import Box, Label, place_labels, place_on_line
from kdedge.benchmarks.pictures.plot import Plot
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row

LINE_BOXES = 40
"""Number of small boxes that stand for a line."""

Point = tuple[float, float]
"""x and y in pixels."""


def target_score(report: Report, plot: Plot) -> float | None:
    """Return the score that counts as retained; None if the plot does not show it."""
    teacher = report.teacher.get("value")
    if teacher is None:
        return None
    score = float(teacher * report.target)
    return score if plot.scores.low < score < plot.scores.high else None


def pareto_labels(report: Report, plot: Plot, largest: int) -> list[Layer]:
    """Write each group's name at its fastest point, the form at every point, and the target.

    Narrow plots have no room for the names of other libraries, and for more than one form.
    """
    circles = []
    lines = []
    wanted = []
    for group in groups(report):
        timed = [row for row in group.rows if row.single is not None and row.value is not None]
        for row in timed:
            x, y = plot.point(row)
            radius = plot.radius(row, largest)
            circles.append(Box(x - radius, y - radius, x + radius, y + radius))
            lines.append(_interval_box(row, plot))
            text = _form(row)
            if row is timed[-1]:
                text = f"{group.name} {text}".strip()
            if plot.is_narrow and (row is not timed[-1] or row.kind == "peer"):
                continue
            wanted.append((x, y, radius, style.shorten(text, 24 if plot.is_narrow else 40)))
        for start, end in pairwise(map(plot.point, timed)):
            lines += _line_boxes(start, end)
    layers = []
    target = _target_label(report, plot, [*circles, *lines])
    if target is not None:
        circles.append(target.box)
        layers += _text(target, style.MUTED)
    for label in place_labels(wanted, circles, plot.width, plot.height):
        layers += _text(label, style.INK)
    return layers


def _target_label(report: Report, plot: Plot, obstacles: Sequence[Box]) -> Label | None:
    """Place the text at the target's line; narrow plots have no room for it."""
    score = target_score(report, plot)
    if score is None or plot.is_narrow:
        return None
    y = (1 - plot.scores.share(score)) * plot.height
    text = f"{100 * report.target:.4g} % of the teacher"
    return place_on_line(text, y, obstacles, plot.width)


def _interval_box(row: Row, plot: Plot) -> Box:
    """Return the pixels of the 95 % interval of a row's score."""
    x, y = plot.point(row)
    if row.interval is None:
        return Box(x, y, x, y)
    low, high = ((1 - plot.scores.share(end)) * plot.height for end in row.interval)
    return Box(x - 1, high, x + 1, low)


def _line_boxes(start: Point, end: Point) -> list[Box]:
    """Return small boxes along the line between two points."""
    boxes = []
    for share in np.linspace(0, 1, LINE_BOXES):
        x = start[0] + share * (end[0] - start[0])
        y = start[1] + share * (end[1] - start[1])
        boxes.append(Box(x - 1, y - 1, x + 1, y + 1))
    return boxes


def _text(label: Label, colour: str) -> list[Layer]:
    values = [{"x": label.x, "y": label.y, "text": label.text}]
    x, y = style.fixed_position(label.x), style.fixed_position(label.y)
    base = style.chart(values).encode(x=x, y=y, text="text:N")
    return style.halo_text(base, align=label.align, baseline="middle", fontSize=11, color=colour)


def _form(row: Row) -> str:
    """Name the form of a row in one word: its precision, or torch."""
    if row.kind in ("baseline", "peer"):
        return ""
    words = row.label.removeprefix(row.subject).split()
    if words[:1] == ["torch"]:
        return " ".join(words).replace(" fp32", "")
    return " ".join(words[1:]) or " ".join(words)
