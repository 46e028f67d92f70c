"""The time of each subject on several machines: one row for each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import COLOURS, latency_axis
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.row import Row
from kdedge.benchmarks.summary import duration


def machine_colour(number: int) -> str:
    """Return the colour of a machine by its number; a seventh one has the first colour again."""
    return f"student{number % COLOURS + 1}"


def machines(rows: Mapping[str, Sequence[Row | None]], width: int) -> Layer | None:
    """Plot the p50 of a single text.

    Args:
        rows: Label of a subject -> its row on each machine, or None.
        width: Width of the picture in pixels.
    """
    import altair as alt

    timed = {label: [_timed(row) for row in measured] for label, measured in rows.items()}
    timed = {label: measured for label, measured in timed.items() if any(measured)}
    if not timed:
        return None
    every = [row for measured in timed.values() for row in measured if row is not None]
    axis = latency_axis(every, whole=False)
    frame = style.FRAMES[width]
    points: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, (label, measured) in enumerate(timed.items()):
        medians = [row.single.p50 for row in measured if row is not None and row.single]
        for machine, row in enumerate(measured):
            if row is None or row.single is None:
                continue
            colour = style.css(machine_colour(machine))
            point = {"latency": row.single.p50 * 1e3, "colour": colour}
            points.append({**point, "y": number + frame.mark_place})
        figures = duration(min(medians))
        if len(medians) > 1:
            figures = f"{figures} to {duration(max(medians))}"
        name = style.shorten(label, 30)
        texts.append({"y": number + frame.text_place, "name": name, "figures": figures})
    x = alt.X(
        "latency:Q",
        title="median time for one text",
        scale=style.scale_of(axis, "log"),
        axis=style.latency_ticks(axis, width == style.NARROW),
    )
    y = style.rows_y(len(timed))
    base = style.chart(points).encode(x=x, y=y("y"), color=style.literal_colour())
    layers = [base.mark_point(filled=True, size=110, opacity=0.9)]
    layers += style.row_texts(texts, frame, y)
    return alt.layer(*layers).properties(width=frame.plot_width, height=frame.row * len(timed))


def _timed(row: Row | None) -> Row | None:
    return row if row is not None and row.single is not None else None
