"""Plot the learning curve as SVG."""

from __future__ import annotations

from collections import Counter

import altair as alt

from kdedge.distillation.learning_curve import NOT_WORSE, LearningCurve
from kdedge.evaluation.plots import chart, to_svg


def helpful_sources(curve: LearningCurve) -> tuple[str, ...] | None:
    """Return the sources that the curve was measured with at every size; None if none helped.

    If several sources were measured alone and one of them helped, it has more than one point.
    """
    points = Counter(point.sources for point in curve.points if point.sources)
    if len(points) == 1:
        return next(iter(points))
    joined = [sources for sources, count in points.items() if len(sources) > 1 or count > 1]
    return joined[0] if joined else None


def plot_learning_curve(curve: LearningCurve, title: str) -> str:
    """Plot agreement against number of texts; return the SVG.

    A line joins the points with all helpful sources; each source alone is a single point. Bars show
    the 95 % interval of the difference from the best point.
    """
    helpful = helpful_sources(curve)
    rows = []
    for point in curve.points:
        rows.append(
            {
                "texts": point.texts,
                "score": point.agreement,
                "low": point.agreement - NOT_WORSE * point.error,
                "high": point.agreement + NOT_WORSE * point.error,
                "from": "+".join(point.sources) or "labelled alone",
                "line": not point.sources or point.sources == helpful,
            }
        )
    x_scale = alt.Scale(type="log", nice=True)
    x = alt.X("texts:Q", title="texts the student learns from", scale=x_scale)
    y_title = "agreement with the teacher"
    y = alt.Y("score:Q", title=y_title, scale=alt.Scale(nice=True, zero=False))
    colour = alt.Color("from:N", title="texts from")

    best = chart([{"score": curve.best.agreement}])
    level = best.mark_rule(strokeDash=[4, 4], color="#888888").encode(y=y)

    line_rows = [row for row in rows if row["line"]]
    line = chart(line_rows).mark_line().encode(x=x, y=y)

    every = chart(rows)
    low = alt.Y("low:Q", title=y_title)
    bars = every.mark_rule().encode(x=x, y=low, y2="high:Q", color=colour)
    points = every.mark_point(filled=True, size=70).encode(x=x, y=y, color=colour)

    chosen_row = {"texts": curve.chosen.texts, "score": curve.chosen.agreement}
    chosen = chart([chosen_row])
    ring = chosen.mark_point(size=260, color="black").encode(x=x, y=y)

    subtitle = (
        "bars: 95 % of the distance to the best; ring: the smallest set whose bar reaches it "
        f"({curve.chosen.texts:,} texts)"
    )
    return to_svg(alt.layer(level, line, bars, points, ring), title, subtitle)
