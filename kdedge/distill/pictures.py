"""Pictures of what was measured, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

from kdedge.distill.growth import Growth

WIDTH, HEIGHT = 520, 320


def bars(title: str, values: Mapping[str, float]) -> str:
    """One bar per name, in the order given, its number beside it."""
    rows = alt.Chart(alt.Data(values=[{"name": name, "value": value} for name, value in values.items()]))
    rows = rows.encode(x=alt.X("value:Q", title=None), y=alt.Y("name:N", title=None, sort=list(values), axis=alt.Axis(labelLimit=260)))
    return _svg(alt.layer(rows.mark_bar(), rows.mark_text(align="left", dx=4).encode(text=alt.Text("value:Q", format=".2f"))), title, height=26 * len(values))


def scatter(title: str, x: str, y: str, points: Sequence[tuple[float, float]], front: Sequence[tuple[float, float]]) -> str:
    """Points (x, y) in grey and those of the front, joined, in blue, with their y."""
    across, along = alt.X("x:Q", title=x, scale=alt.Scale(zero=False, padding=24)), alt.Y("y:Q", title=y, scale=alt.Scale(zero=False, padding=24))
    every = alt.Chart(_points(points)).mark_point(filled=True, color="#bbbbbb", size=50).encode(x=across, y=along)
    best = alt.Chart(_points(front)).encode(x=across, y=along)
    return _svg(alt.layer(every, best.mark_line(point=alt.OverlayMarkDef(size=70)), best.mark_text(dy=-12).encode(text=alt.Text("y:Q", format=".3f"))), title)


def growth_picture(growth: Growth, metric: str, title: str) -> str:
    """Score on the select split against texts, a line through all that help, a point for each source alone, each with the error of its distance to the best."""
    helpful = max((point.sources for point in growth.points), key=len)
    rows = [
        {
            "texts": point.texts,
            "score": point.select,
            "low": point.select - point.error,
            "high": point.select + point.error,
            "from": "+".join(point.sources) or "labelled alone",
            "line": point.sources in ((), helpful),
        }
        for point in growth.points
    ]
    x = alt.X("texts:Q", title="texts the student learns from", scale=alt.Scale(type="log", nice=True))
    asked = f"{metric} on the select split"
    y = alt.Y("score:Q", title=asked, scale=alt.Scale(nice=True, zero=False))
    data, colour = alt.Data(values=rows), alt.Color("from:N", title="texts from")
    level = alt.Chart(alt.Data(values=[{"score": growth.best.select}])).mark_rule(strokeDash=[4, 4], color="#888888").encode(y=y)
    line = alt.Chart(alt.Data(values=[row for row in rows if row["line"]])).mark_line().encode(x=x, y=y)
    bars = alt.Chart(data).mark_rule().encode(x=x, y=alt.Y("low:Q", title=asked), y2="high:Q", color=colour)
    points = alt.Chart(data).mark_point(filled=True, size=70).encode(x=x, y=y, color=colour)
    chosen = alt.Chart(alt.Data(values=[{"texts": growth.chosen.texts, "score": growth.chosen.select}]))
    ring = chosen.mark_point(size=260, color="black").encode(x=x, y=y)
    told = f"bars: one standard error of the distance to the best; ring: the smallest set whose bar reaches it ({growth.chosen.texts:,} texts)"
    return _svg(alt.layer(level, line, bars, points, ring), title, told)


def _points(points: Sequence[tuple[float, float]]) -> Any:
    return alt.Data(values=[{"x": x, "y": y} for x, y in points])


def _svg(picture: Any, title: str, subtitle: str = "", height: int = HEIGHT) -> str:
    titled = picture.properties(width=WIDTH, height=height, title=alt.Title(title, subtitle=subtitle, anchor="start"))
    return str(vl_convert.vegalite_to_svg(titled.to_json()))
