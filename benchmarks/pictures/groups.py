"""Score by class and by length: the best student, and its teacher."""

from __future__ import annotations

from typing import Any

from kdedge.benchmarks.equivalence.groups import TextGroup
from kdedge.benchmarks.equivalence.shares import share_interval
from kdedge.benchmarks.equivalence.tables import shown_groups, shown_student, teacher_groups
from kdedge.benchmarks.figures import percent
from kdedge.benchmarks.pictures import style
from kdedge.benchmarks.pictures.data import Axis, colour_of
from kdedge.benchmarks.pictures.style import Layer
from kdedge.benchmarks.report import Report


def groups(report: Report, width: int) -> Layer | None:
    """Plot the share of right answers in each group of texts, with 95 % intervals."""
    import altair as alt

    chosen = shown_student(report)
    if chosen is None:
        return None
    row, found = chosen
    shown = [group for group in shown_groups(found) if group.right is not None]
    if not shown:
        return None
    colour = style.css(colour_of(report, row))
    teacher = teacher_groups(report)
    frame = style.FRAMES[width]
    students: list[dict[str, Any]] = []
    teachers: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for number, group in enumerate(shown):
        assert group.right is not None
        place = number + frame.mark_place
        low, high = share_interval(round(group.right * group.texts), group.texts)
        students.append({"y": place, "right": group.right, "low": low, "high": high})
        other = teacher.get(group.name)
        if other is not None:
            teachers.append({"y": place, "right": other.right})
        name = style.shorten(group.name, 28)
        texts.append({"y": number + frame.text_place, "name": name, "figures": _figures(group)})
    lowest = [point["low"] for point in students] + [point["right"] for point in teachers]
    axis = Axis(min(lowest) - 0.01, 1.0)
    ticks = alt.Axis(format=".0%", tickCount=4 if width == style.NARROW else 8, grid=True)
    title = "right answers; the upright line is the teacher" if teachers else "right answers"
    x = alt.X("right:Q", title=title, scale=style.scale_of(axis), axis=ticks)
    y = style.rows_y(len(shown))
    base = style.chart(students).encode(y=y("y"))
    low = alt.X("low:Q", title=title, scale=style.scale_of(axis), axis=ticks)
    layers = [
        base.mark_rule(strokeWidth=2.2, opacity=0.8, color=colour).encode(x=low, x2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1, color=colour).encode(x=x),
    ]
    if teachers:
        tick = style.chart(teachers).mark_tick(thickness=3, height=16, color=style.css("teacher"))
        layers.append(tick.encode(x=x, y=y("y")))
    layers += style.row_texts(texts, frame, y)
    return alt.layer(*layers).properties(width=frame.plot_width, height=frame.row * len(shown))


def _figures(group: TextGroup) -> str:
    right = f"{percent(group.right)} % of {group.texts}"
    if group.agreement is None:
        return right
    return f"{right} · {percent(group.agreement)} % agree"
