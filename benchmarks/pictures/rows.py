"""The frame of pictures with one row for each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdedge.benchmarks.pictures.style import (
    INK,
    MUTED,
    WIDE,
    Layer,
    chart,
    fixed_position,
    halo_text,
)

WIDE_ROW, NARROW_ROW = 36, 48
"""Height of a subject. A narrow picture has a line of text above each mark."""

NAME_GUTTER, FIGURE_GUTTER = 200, 190
"""Width of the texts on the left and right of a wide picture."""


@dataclass(frozen=True)
class RowFrame:
    """Where marks and texts stand in a picture with one row for each subject.

    In a wide picture the texts are left and right of the plot, in a narrow one above each mark.
    """

    width: int

    @property
    def is_wide(self) -> bool:
        return self.width == WIDE

    @property
    def row(self) -> int:
        return WIDE_ROW if self.is_wide else NARROW_ROW

    @property
    def plot_width(self) -> int:
        return self.width - 12 - (NAME_GUTTER + FIGURE_GUTTER if self.is_wide else 0)

    @property
    def text_place(self) -> float:
        """Middle of the text, as a share of the row."""
        return 0.62 if self.is_wide else 0.22

    @property
    def mark_place(self) -> float:
        """Middle of a mark, as a share of the row."""
        return 0.62 if self.is_wide else 0.66

    @property
    def mark_share(self) -> float:
        """Height of a hill, as a share of the row."""
        return 0.84 if self.is_wide else 0.54

    @property
    def name_x(self) -> int:
        return -NAME_GUTTER if self.is_wide else 0

    @property
    def figures_x(self) -> int:
        return self.plot_width + (FIGURE_GUTTER if self.is_wide else 0)


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
