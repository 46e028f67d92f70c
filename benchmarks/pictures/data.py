"""What the pictures of a report show, as plain values: points, densities and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row

from kdedge.evaluation.pareto import pareto_front

COLOURS = 6
"""Number of colours for students; a seventh student has the first colour again."""

TEACHER_COLOUR = "teacher"
SIMPLE_COLOUR = "simple"
PEER_COLOUR = "peer"

BINS = 96
SMOOTHING = 1.3
"""Points of a density, and the width of its kernel in points."""

TAILS = (0.002, 0.998)
"""Quantiles of the latencies that the picture shows."""

PERCENTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Group:
    """One teacher, student or simple classifier with all its files.

    Attributes:
        name: As in the report.
        colour: Name of a colour in the stylesheet of the page.
        rows: Its rows, the slowest first; rows without time last.
    """

    name: str
    colour: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Axis:
    """Range and ticks of an axis."""

    low: float
    high: float
    ticks: tuple[float, ...] = ()

    def share(self, value: float) -> float:
        """Return where a value lies on a linear axis, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def log_share(self, value: float) -> float:
        """Return where a value lies on a logarithmic axis, from 0 to 1."""
        return math.log(value / self.low) / math.log(self.high / self.low)


def groups(report: Report) -> list[Group]:
    """Group the rows by what they measure; a label-only baseline belongs to its student."""
    members: dict[str, list[Row]] = {}
    for row in report.rows:
        members.setdefault(_owner(report, row), []).append(row)
    colours = _colours(report)
    return [Group(name, colours[name], tuple(_slowest_first(members[name]))) for name in members]


def colour_of(report: Report, row: Row) -> str:
    """Return the colour of a row's group."""
    return _colours(report)[_owner(report, row)]


def is_label_only(report: Report, row: Row) -> bool:
    """Return whether the row is a student trained on the labels only."""
    return _owner(report, row) != row.subject


def score_axis(report: Report) -> Axis | None:
    """Return the range of all scores; None if nothing has a score.

    Rows that were neither timed nor trained, such as the majority class, widen it only upwards: an
    arrow stands for one that is below.
    """
    rows = [row for row in report.rows if row.value is not None]
    ends = _ends([row for row in rows if not is_constant(row)])
    highest = max(ends, default=-math.inf)
    ends += _ends([row for row in rows if is_constant(row) and (row.value or 0) > highest])
    if not ends:
        return None
    margin = max(0.05 * (max(ends) - min(ends)), 0.002)
    return Axis(min(ends) - margin, max(ends) + margin)


def _ends(rows: Sequence[Row]) -> list[float]:
    """Return the scores of some rows and the ends of their intervals."""
    ends: list[float] = []
    for row in rows:
        ends += [row.value or 0, *(row.interval or ())]
    return ends


def is_constant(row: Row) -> bool:
    """Return whether the row is a classifier that ignores the text."""
    return row.form == "simple" and row.single is None


def latency_axis(rows: Sequence[Row], *, whole: bool) -> Axis:
    """Return a logarithmic axis in milliseconds for timed rows.

    Args:
        rows: Rows with times.
        whole: Show nearly all values, not only the medians.
    """
    low, high = TAILS if whole else (0.5, 0.5)
    lows = [_milliseconds(row, low) for row in rows]
    highs = [_milliseconds(row, high) for row in rows]
    margin = 1.08 if whole else 1.45
    first, last = min(lows) / margin, max(highs) * margin
    return Axis(first, last, log_ticks(first, last))


def time_front(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """Return milliseconds and scores of the rows that no other row beats in both."""
    points = []
    for row in rows:
        if row.value is not None:
            points.append((_milliseconds(row, 0.5), row.value))
    return pareto_front(points)


def density(row: Row, axis: Axis) -> list[tuple[float, float]]:
    """Estimate how a row's latencies are distributed over a logarithmic axis.

    Returns:
        Milliseconds and heights; the highest is 1.
    """
    assert row.single is not None
    edges = np.geomspace(axis.low, axis.high, BINS + 1)
    counts, _ = np.histogram(row.single.values * 1e3, edges)
    reach = np.arange(-4, 5)
    kernel = np.exp(-0.5 * (reach / SMOOTHING) ** 2)
    heights = np.convolve(counts, kernel, mode="same")
    heights = heights / max(float(heights.max()), 1e-9)
    middles = np.sqrt(edges[:-1] * edges[1:])
    visible = np.flatnonzero(heights > 0.003)
    if len(visible) == 0:
        return []
    shown = slice(max(visible[0] - 1, 0), visible[-1] + 2)
    return list(zip(middles[shown].tolist(), heights[shown].tolist(), strict=True))


def percentiles(row: Row) -> list[float]:
    """Return p50, p90 and p99 of a row's times for one text, in milliseconds."""
    return [_milliseconds(row, q) for q in PERCENTILES]


def _owner(report: Report, row: Row) -> str:
    """Return the group of a row: its subject, or the student of a label-only baseline."""
    for other in report.rows:
        if other.kind == "model" and report.label_only_baseline(other) is row:
            return other.subject
    return row.subject


def _colours(report: Report) -> dict[str, str]:
    colours: dict[str, str] = {}
    students = 0
    for row in report.rows:
        name = _owner(report, row)
        if name in colours:
            continue
        if row.is_teacher:
            colours[name] = TEACHER_COLOUR
        elif row.kind == "baseline":
            colours[name] = SIMPLE_COLOUR
        elif row.kind == "peer":
            colours[name] = PEER_COLOUR
        else:
            colours[name] = f"student{students % COLOURS + 1}"
            students += 1
    return colours


def _slowest_first(rows: Sequence[Row]) -> list[Row]:
    timed = [row for row in rows if row.single is not None]
    timed.sort(key=lambda row: -_milliseconds(row, 0.5))
    return timed + [row for row in rows if row.single is None]


def _milliseconds(row: Row, quantile: float) -> float:
    assert row.single is not None
    return row.single.quantile(quantile) * 1e3


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2 and 5 times powers of ten inside a range; every power of 10 for a wide one."""
    steps = (1.0, 2.0, 5.0) if high / low < 200 else (1.0,)
    ticks = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        for step in steps:
            tick = step * 10.0**power
            if low <= tick <= high:
                ticks.append(tick)
    if len(ticks) < 2:
        return tuple(float(f"{tick:.2g}") for tick in np.geomspace(low, high, 5)[1:-1])
    return tuple(ticks)
