"""Pictures of what was measured, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

WIDTH, HEIGHT = 520, 320


def bars(title: str, values: Mapping[str, float]) -> str:
    """One bar per name, in the order given, its number beside it."""
    rows = alt.Chart(
        alt.Data(values=[{"name": name, "value": value} for name, value in values.items()])
    )
    rows = rows.encode(
        x=alt.X("value:Q", title=None),
        y=alt.Y("name:N", title=None, sort=list(values), axis=alt.Axis(labelLimit=260)),
    )
    return _svg(
        alt.layer(
            rows.mark_bar(),
            rows.mark_text(align="left", dx=4).encode(text=alt.Text("value:Q", format=".2f")),
        ),
        title,
        height=26 * len(values),
    )


def scatter(
    title: str,
    x: str,
    y: str,
    points: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
) -> str:
    """Points (x, y) in grey and those of the front, joined, in blue, with their y."""
    across, along = (
        alt.X("x:Q", title=x, scale=alt.Scale(zero=False, padding=24)),
        alt.Y("y:Q", title=y, scale=alt.Scale(zero=False, padding=24)),
    )
    every = (
        alt.Chart(_points(points))
        .mark_point(filled=True, color="#bbbbbb", size=50)
        .encode(x=across, y=along)
    )
    best = alt.Chart(_points(front)).encode(x=across, y=along)
    return _svg(
        alt.layer(
            every,
            best.mark_line(point=alt.OverlayMarkDef(size=70)),
            best.mark_text(dy=-12).encode(text=alt.Text("y:Q", format=".3f")),
        ),
        title,
    )


def _points(points: Sequence[tuple[float, float]]) -> Any:
    return alt.Data(values=[{"x": x, "y": y} for x, y in points])


def _svg(picture: Any, title: str, subtitle: str = "", height: int = HEIGHT) -> str:
    titled = picture.properties(
        width=WIDTH, height=height, title=alt.Title(title, subtitle=subtitle, anchor="start")
    )
    return str(vl_convert.vegalite_to_svg(titled.to_json()))
