"""What all pictures share: widths, colours, and the parts of charts.

altair is imported when a picture is drawn, because a device install does not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdedge.benchmarks.pictures.data import Axis, colour_of
from kdedge.benchmarks.report import Report
from kdedge.benchmarks.row import Row

WIDE, NARROW = 1090, 324
"""Widths of a picture in pixels: for screens, and for phones."""

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"

Layer = Any
"""An altair chart."""

MARGIN = 12

NAME_GUTTER, FIGURE_GUTTER = 200, 190
"""Width of the texts on the left and right of a wide picture."""


def chart(rows: Sequence[Mapping[str, Any]]) -> Layer:
    import altair as alt

    return alt.Chart(alt.Data(values=list(rows)))


def halo_text(base: Layer, **style: Any) -> list[Layer]:
    """Write text on a halo of the page's colour, so that lines do not cross it."""
    halo = {**style, "stroke": "var(--page)", "color": "var(--page)", "strokeWidth": 4}
    return [base.mark_text(strokeJoin="round", **halo), base.mark_text(**style)]


def fixed_position(pixels: float) -> Any:
    """Encode a fixed position."""
    import altair as alt

    return alt.value(pixels)


def scale_of(axis: Axis, kind: str = "linear") -> Any:
    import altair as alt

    return alt.Scale(type=kind, domain=[axis.low, axis.high], nice=False, zero=False)


def literal_colour() -> Any:
    """Encode the field `colour`, which holds a CSS colour."""
    import altair as alt

    return alt.Color("colour:N", scale=None)


def css(colour: str) -> str:
    return f"var(--{colour})"


def score_values(report: Report, row: Row) -> dict[str, Any]:
    low, high = row.interval or (row.value, row.value)
    return {
        "score": row.value,
        "low": low,
        "high": high,
        "colour": css(colour_of(report, row)),
    }


def score_format(axis: Axis) -> str:
    """Return a number format with as many digits as the ticks of the axis need."""
    return ".2f" if axis.high - axis.low > 0.04 else ".3f"


def latency_ticks(axis: Axis, narrow: bool) -> Any:
    import altair as alt

    expression = (
        "datum.value < 1 ? format(datum.value * 1000, '.3~r') + ' µs'"
        " : datum.value < 1000 ? format(datum.value, '.3~r') + ' ms'"
        " : format(datum.value / 1000, '.3~r') + ' s'"
    )
    ticks = list(axis.ticks)
    if narrow and len(ticks) > 5:
        ticks = ticks[:: (len(ticks) + 4) // 5]
    return alt.Axis(values=ticks, labelExpr=expression, grid=True, labelFlush=False)


def shorten(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


@dataclass(frozen=True)
class RowFrame:
    """Where marks and texts stand in a picture with one row for each subject.

    In a wide picture the texts are left and right of the plot, in a narrow one above each mark.

    Attributes:
        row: Height of a row in pixels.
        plot_width: Width of the plot in pixels.
        text_place: Middle of the text, as a share of the row.
        mark_place: Middle of a mark, as a share of the row.
        mark_share: Height of a hill, as a share of the row.
        name_x: Left end of the names.
        name_length: Characters of the longest name.
        figures_x: Right end of the figures.
    """

    row: int
    plot_width: int
    text_place: float
    mark_place: float
    mark_share: float
    name_x: int
    name_length: int
    figures_x: int


WIDE_FRAME = RowFrame(
    row=36,
    plot_width=WIDE - MARGIN - NAME_GUTTER - FIGURE_GUTTER,
    text_place=0.62,
    mark_place=0.62,
    mark_share=0.84,
    name_x=-NAME_GUTTER,
    name_length=30,
    figures_x=WIDE - MARGIN - NAME_GUTTER,
)
NARROW_FRAME = RowFrame(
    row=48,
    plot_width=NARROW - MARGIN,
    text_place=0.22,
    mark_place=0.66,
    mark_share=0.54,
    name_x=0,
    name_length=20,
    figures_x=NARROW - MARGIN,
)
FRAMES = {WIDE: WIDE_FRAME, NARROW: NARROW_FRAME}
"""Width of a picture -> its frame."""


def rows_y(count: int) -> Any:
    """Return a function that encodes a field as vertical position among `count` rows."""
    import altair as alt

    scale = alt.Scale(domain=[0, count], reverse=True, nice=False)

    def encode(field: str) -> Any:
        return alt.Y(f"{field}:Q", scale=scale, axis=None)

    return encode


def row_texts(texts: Sequence[Mapping[str, Any]], frame: RowFrame, y: Any) -> list[Layer]:
    """Write the name of each row on the left and its figures on the right."""
    base = chart(texts).encode(y=y("y"))
    names = base.encode(x=fixed_position(frame.name_x), text="name:N")
    figures = base.encode(x=fixed_position(frame.figures_x), text="figures:N")
    return [
        *halo_text(names, align="left", fontSize=12, fontWeight=600, color=INK),
        *halo_text(figures, align="right", fontSize=12, color=MUTED),
    ]
