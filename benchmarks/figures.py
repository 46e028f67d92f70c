"""Tables of figures, as plain values that every kind of page can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "–"
"""What a table shows for a value that was not measured."""

Terms = tuple[tuple[str, str], ...]
"""Names of figures, and what they mean."""


@dataclass(frozen=True)
class FigureTable:
    """A table of figures.

    Attributes:
        header: Names of the columns.
        rows: One cell for each column; the first one names the row.
        words: Columns that hold words: they are left-aligned and break into lines.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)

    def without_empty_columns(self) -> FigureTable:
        """Leave out the columns in which no row has a value."""
        kept = []
        for column in range(len(self.header)):
            if {row[column] for row in self.rows} != {NOTHING}:
                kept.append(column)
        rows = tuple(_chosen(row, kept) for row in self.rows)
        return FigureTable(_chosen(self.header, kept), rows)


@dataclass(frozen=True)
class FigureSection:
    """A section of a page.

    Attributes:
        name: Name of its picture, if the page has one; also its id.
        heading: The heading.
        explanation: One sentence that says what the figures mean.
        table: The figures, or None.
        lines: A list below the table.
        terms: The names of the columns, and what they mean.
    """

    name: str
    heading: str
    explanation: str
    table: FigureTable | None = None
    lines: tuple[str, ...] = ()
    terms: Terms = ()


def percent(share: float | None) -> str:
    """Format a share as a number of percent."""
    return NOTHING if share is None else f"{100 * share:.1f}"


def percent_with_interval(share: float, low: float, high: float) -> str:
    """Format a share and its interval, such as `98.3 [96.2–99.3]`."""
    return f"{percent(share)} [{percent(low)}–{percent(high)}]"


def decimal(value: float | None, digits: int) -> str:
    """Format a number."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def p_value(p: float | None) -> str:
    """Format a p value, such as `0.032` or `<0.001`."""
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _chosen(cells: Sequence[str], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(cells[column] for column in columns)
