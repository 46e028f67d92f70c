"""Pictures of what was measured, as SVG."""

from __future__ import annotations

import altair as alt
import vl_convert

from kdedge.distill.growth import Growth


def growth_picture(growth: Growth, metric: str, title: str) -> str:
    """Score on the select split against texts, a line through all that help, a point for each source alone, and the band of one standard error."""
    helpful = max((point.sources for point in growth.points), key=len)
    rows = [
        {"texts": point.texts, "score": point.select, "from": "+".join(point.sources) or "labelled alone", "line": point.sources in ((), helpful)}
        for point in growth.points
    ]
    best = max(point.select for point in growth.points)
    scores = [point.select for point in growth.points]
    ends = alt.Scale(domain=[min(scores) - growth.error, max(scores) + growth.error], nice=True, zero=False)
    x = alt.X("texts:Q", title="texts the student learns from", scale=alt.Scale(type="log", nice=True))
    y = alt.Y("score:Q", title=f"{metric} on the select split", scale=ends)
    band = alt.Chart(alt.Data(values=[{"low": best - growth.error, "high": best}])).mark_rect(opacity=0.15).encode(y="low:Q", y2="high:Q")
    line = alt.Chart(alt.Data(values=[row for row in rows if row["line"]])).mark_line().encode(x=x, y=y)
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=70).encode(x=x, y=y, color=alt.Color("from:N", title="texts from"))
    chosen = alt.Chart(alt.Data(values=[{"texts": growth.chosen.texts, "score": growth.chosen.select}]))
    ring = chosen.mark_point(size=260, color="black").encode(x=x, y=y)
    subtitle = f"band: within one standard error of the best; ring: the smallest set inside it ({growth.chosen.texts:,} texts)"
    picture = alt.layer(band, line, points, ring).properties(width=520, height=320, title=alt.Title(title, subtitle=subtitle))
    return str(vl_convert.vegalite_to_svg(picture.to_json()))
