"""Draw the learning curve."""

from __future__ import annotations

import altair as alt

from kdedge.distillation.learning_curve import LearningCurve
from kdedge.evaluation.plots import chart, to_svg


def plot_learning_curve(growth: LearningCurve, metric: str, title: str) -> str:
    """Score on the validation split against texts, a line through all that help, a point for each source alone, each with the error of its distance to the best."""
    helpful = max((point.sources for point in growth.points), key=len)
    rows = [
        {
            "texts": point.texts,
            "score": point.validation,
            "low": point.validation - point.error,
            "high": point.validation + point.error,
            "from": "+".join(point.sources) or "labelled alone",
            "line": point.sources in ((), helpful),
        }
        for point in growth.points
    ]
    x = alt.X(
        "texts:Q", title="texts the student learns from", scale=alt.Scale(type="log", nice=True)
    )
    asked = f"{metric} on the validation split"
    y = alt.Y("score:Q", title=asked, scale=alt.Scale(nice=True, zero=False))
    data, colour = rows, alt.Color("from:N", title="texts from")
    level = (
        chart([{"score": growth.best.validation}])
        .mark_rule(strokeDash=[4, 4], color="#888888")
        .encode(y=y)
    )
    line = chart([row for row in rows if row["line"]]).mark_line().encode(x=x, y=y)
    bars = (
        chart(data)
        .mark_rule()
        .encode(x=x, y=alt.Y("low:Q", title=asked), y2="high:Q", color=colour)
    )
    points = chart(data).mark_point(filled=True, size=70).encode(x=x, y=y, color=colour)
    chosen = chart([{"texts": growth.chosen.texts, "score": growth.chosen.validation}])
    ring = chosen.mark_point(size=260, color="black").encode(x=x, y=y)
    told = f"bars: one standard error of the distance to the best; ring: the smallest set whose bar reaches it ({growth.chosen.texts:,} texts)"
    return to_svg(alt.layer(level, line, bars, points, ring), title, told)
