"""What all pictures share: widths, colours, and the parts of charts.

altair is imported when a picture is drawn, because a device install does not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdedge.benchmarks.pictures.data import Axis, colour_of
from kdedge.benchmarks.report import Report, Row

WIDE, NARROW = 1090, 324
"""Widths of a picture in pixels: for screens, and for phones."""

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--grid)"

Layer = Any
"""An altair chart."""


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
