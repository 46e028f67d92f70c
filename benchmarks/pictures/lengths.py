"""Time for one text against its number of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, colour_of, log_ticks
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row

HEIGHT = 360
AXIS_WIDTH = 80
LABEL_WIDTH = {style.WIDE: 190, style.NARROW: 118}
LETTERS = {style.WIDE: 28, style.NARROW: 17}
"""Longest label on the right of the lines."""

FEWEST = 100
"""A row with fewer times has no line: its medians would be of a few texts."""

PARTS = 8
"""Most points of a line."""

LINE = 14.0
"""Pixels between two labels."""


def lengths(report: Report, width: int) -> Layer | None:
    """Plot the median time of each timed subject against the number of tokens."""
    import altair as alt

    lines = _lines(report)
    if not lines:
        return None
    points = [point for _, line in lines for point in line]
    times = [point["time"] for point in points]
    tokens = [point["tokens"] for point in points]
    low, high = min(times) / 1.3, max(times) * 1.3
    axis = Axis(low, high, log_ticks(low, high))
    plot_width = width - AXIS_WIDTH - LABEL_WIDTH[width]
    ends = Axis(min(tokens), max(tokens))
    x = alt.X(
        "tokens:Q",
        title="tokens",
        scale=style.scale_of(ends),
        axis=alt.Axis(tickCount=4 if width == style.NARROW else 8, grid=True, format="d"),
    )
    y = alt.Y(
        "time:Q",
        title="median time for one text",
        scale=style.scale_of(axis, "log"),
        axis=style.latency_ticks(axis, narrow=False),
    )
    encoded = style.chart(points).encode(
        x=x, y=y, color=style.literal_colour(), detail=alt.Detail("name:N")
    )
    layers = [encoded.mark_line(strokeWidth=1.8), encoded.mark_point(filled=True, size=28)]
    layers.append(_labels(lines, axis, y, width))
    # An unseen point keeps room for the labels: a browser's letters may be wider than measured.
    unseen = style.chart([{"time": low}]).mark_point(opacity=0, size=1)
    layers.append(unseen.encode(x=alt.value(width - AXIS_WIDTH), y=y))
    return alt.layer(*layers).properties(width=plot_width, height=HEIGHT)


def median_times(row: Row, tokens: np.ndarray) -> list[tuple[float, float]]:
    """Return median tokens and median milliseconds for parts of the timed texts.

    Args:
        row: A timed row.
        tokens: `Report.timed_tokens`, (n,): value i of the row belongs to text i modulo n.

    Returns:
        At most `PARTS` points of growing length; texts of the same length are in the same part.
    """
    assert row.single is not None
    times = row.single.values * 1e3
    of_time = tokens[np.arange(len(times)) % len(tokens)]
    limits = np.unique(np.quantile(of_time, np.arange(1, PARTS + 1) / PARTS, method="lower"))
    parts = np.searchsorted(limits, of_time)
    points = []
    for part in range(len(limits)):
        inside = parts == part
        points.append((float(np.median(of_time[inside])), float(np.median(times[inside]))))
    return points


def _lines(report: Report) -> list[tuple[Row, list[dict[str, Any]]]]:
    """Return the points of each timed row; [] if there are fewer than two lengths."""
    tokens = np.array(report.timed_tokens)
    if len(np.unique(tokens)) < 2:
        return []
    lines = []
    for row in report.rows:
        if row.single is None or len(row.single.values) < FEWEST:
            continue
        colour = style.css(colour_of(report, row))
        line = []
        for count, time in median_times(row, tokens):
            line.append({"tokens": count, "time": time, "name": row.label, "colour": colour})
        lines.append((row, line))
    return lines


def _labels(lines: list[tuple[Row, list[dict[str, Any]]]], axis: Axis, y: Any, width: int) -> Layer:
    """Write the name of each line at its right end; names that would overlap move apart."""
    import altair as alt

    wanted = [HEIGHT * (1 - axis.log_share(line[-1]["time"])) for _, line in lines]
    texts = []
    for (row, line), place in zip(lines, spread(wanted, LINE, HEIGHT), strict=True):
        name = style.shorten(row.label, LETTERS[width])
        time = axis.low * (axis.high / axis.low) ** (1 - place / HEIGHT)
        texts.append({"name": name, "time": time, "colour": line[-1]["colour"]})
    mark = style.chart(texts).mark_text(align="left", fontSize=11, fontWeight=600)
    right = width - AXIS_WIDTH - LABEL_WIDTH[width] + 8
    return mark.encode(x=alt.value(right), y=y, text="name:N", color=style.literal_colour())


def spread(wanted: list[float], distance: float, height: float) -> list[float]:
    """Move places apart so that neighbours have a distance; keep their order.

    Example:
        >>> spread([10, 12, 50], distance=5, height=100)
        [10, 15, 50]
    """
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    places = list(wanted)
    above = -distance
    for index in order:
        places[index] = max(places[index], above + distance)
        above = places[index]
    below = height + distance
    for index in reversed(order):
        places[index] = min(places[index], below - distance)
        below = places[index]
    return places
