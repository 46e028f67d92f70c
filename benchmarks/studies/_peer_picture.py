"""Draw the picture of the README: retention against time, for the students and other libraries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
from _peer_runs import PEERS
from kdedge.benchmarks.pictures.label_places import Box, place_labels
from quickstart import to_svg

WIDTH, HEIGHT = 700, 400
LARGEST = 18.0
"""Radius in pixels of the circle of the largest model."""

INK, GRID = "#374151", "#e5e7eb"
COLOURS = {"student": "#0f766e", "teacher": "#6b7280", "peer": "#b45309"}
STUDENTS = {"bilstm": "kdedge BiLSTM, int8", "tinybert": "kdedge TinyBERT, int8"}
NAMES = {**STUDENTS, "teacher": "teacher, torch fp32"}
CONVERTED = {"teacher"} | {peer.title for peer in PEERS if not peer.texts}
"""Subjects that are the teacher in some form."""


def draw(report: Path) -> str:
    """Draw the rows of a report's JSON file as SVG."""
    points = points_of(json.loads(report.read_text(encoding="utf-8"))["rows"])
    times = [point["ms"] for point in points]
    shares = [point["retention"] for point in points]
    x = alt.X(
        "ms:Q",
        title="milliseconds for one text on one core (logarithmic)",
        scale=alt.Scale(type="log", domain=span(times, 1.5), nice=False),
        axis=alt.Axis(values=[0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10], format="~g", grid=False),
    )
    low, high = min(shares) - 1.2, max(shares) + 1.2
    y = alt.Y(
        "retention:Q",
        title="score in % of the teacher's",
        scale=alt.Scale(domain=[low, high], nice=False),
        axis=alt.Axis(tickCount=6, gridColor=GRID),
    )
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=literal("colour"))
    layers = [
        base.mark_circle(opacity=0.3).encode(size=alt.Size("area:Q", scale=None)),
        base.mark_circle(opacity=1, size=20),
        *labels_of(points, span(times, 1.5), (low, high)),
    ]
    plot = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, background="white", padding=12)
    return to_svg(plot.configure_view(stroke=None))


def points_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the picture shows of each row."""
    largest = max(row["bytes"] for row in rows)
    points = []
    for row in rows:
        name = row["subject"]
        kind = "student" if name in STUDENTS else row["kind"]
        if name in CONVERTED:
            kind = "teacher"
        radius = LARGEST * float(np.sqrt(row["bytes"] / largest))
        points.append(
            {
                "name": NAMES.get(name, name),
                "kind": kind,
                "colour": COLOURS[kind],
                "ms": row["p50_us"] / 1e3,
                "retention": 100 * row["retention"],
                "radius": radius,
                "area": 3.14 * radius**2,
            }
        )
    return points


def span(values: Sequence[float], margin: float) -> list[float]:
    """Return the ends of a logarithmic axis."""
    return [min(values) / margin, max(values) * margin]


def labels_of(
    points: Sequence[dict[str, Any]], times: Sequence[float], shares: tuple[float, float]
) -> list[alt.Chart]:
    """Write the name of each point where it covers the least; those of the students first."""
    wanted = []
    circles = []
    ordered = sorted(points, key=lambda point: point["kind"] != "student")
    for point in ordered:
        x = WIDTH * float(np.log(point["ms"] / times[0]) / np.log(times[1] / times[0]))
        y = HEIGHT * (shares[1] - point["retention"]) / (shares[1] - shares[0])
        radius = point["radius"]
        circles.append(Box(x - radius, y - radius, x + radius, y + radius))
        wanted.append((x, y, radius, point["name"]))
    charts = []
    for label, point in zip(place_labels(wanted, circles, WIDTH, HEIGHT), ordered, strict=True):
        weight = "bold" if point["kind"] == "student" else "normal"
        text = alt.Chart(alt.Data(values=[{"text": label.text}])).mark_text(
            align=label.align,
            baseline="middle",
            fontSize=11,
            fontWeight=weight,
            color=point["colour"],
        )
        charts.append(text.encode(x=alt.value(label.x), y=alt.value(label.y), text="text:N"))
    return charts


def literal(field: str) -> alt.Color:
    """Encode a field that holds colours."""
    return alt.Color(f"{field}:N", scale=None)
