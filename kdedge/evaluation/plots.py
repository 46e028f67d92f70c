"""Plots as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

WIDTH, HEIGHT = 520, 320


def bars(title: str, values: Mapping[str, float]) -> str:
    """Plot one bar with its value per name, in the given order; return the SVG."""
    rows = [{"name": name, "value": value} for name, value in values.items()]
    base = chart(rows).encode(
        x=alt.X("value:Q", title=None),
        y=alt.Y("name:N", title=None, sort=list(values), axis=alt.Axis(labelLimit=260)),
    )
    numbers = base.mark_text(align="left", dx=4).encode(text=alt.Text("value:Q", format=".2f"))
    return to_svg(alt.layer(base.mark_bar(), numbers), title, height=26 * len(values))


def scatter(
    title: str,
    x: str,
    y: str,
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
) -> str:
    """Plot points (x, y) in grey, and a Pareto front as a blue line with its y values.

    Args:
        x, y: Titles of the axes.
    """
    axes = {
        "x": alt.X("x:Q", title=x, scale=alt.Scale(zero=False, padding=24)),
        "y": alt.Y("y:Q", title=y, scale=alt.Scale(zero=False, padding=24)),
    }
    grey = chart(_rows(points)).mark_point(filled=True, color="#bbbbbb", size=50).encode(**axes)
    best = chart(_rows(front)).encode(**axes)
    line = best.mark_line(point=alt.OverlayMarkDef(size=70))
    numbers = best.mark_text(dy=-12).encode(text=alt.Text("y:Q", format=".3f"))
    return to_svg(alt.layer(grey, line, numbers), title)


def _rows(points: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points]


def chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return an altair chart of these rows."""
    return alt.Chart(alt.Data(values=list(rows)))


def to_svg(layers: Any, title: str, subtitle: str = "", height: int = HEIGHT) -> str:
    """Render a chart with its title as SVG."""
    heading = alt.Title(title, subtitle=subtitle, anchor="start")
    plot = layers.properties(width=WIDTH, height=height, title=heading)
    return str(vl_convert.vegalite_to_svg(plot.to_json()))
