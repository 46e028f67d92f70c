"""Place labels next to points so that they cover neither points nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CHARACTER, LINE = 6.1, 13.0
"""Width of a character and height of a line in pixels, at a font size of 11."""

GAP = 4.0

STEP = 10.0
"""Pixels between two places that are tried for a label on a line."""

Align = Literal["left", "center", "right"]

Wanted = tuple[float, float, float, str]
"""x, y and radius of a point, and its text."""


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from its top left to its bottom right corner."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the common area of two boxes."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


@dataclass(frozen=True)
class Label:
    """A text and where it stands: x is its left end, middle or right end; y is its middle."""

    text: str
    x: float
    y: float
    align: Align

    @property
    def box(self) -> Box:
        """The pixels that the text covers."""
        width = CHARACTER * len(self.text)
        left = {"left": self.x, "center": self.x - width / 2, "right": self.x - width}[self.align]
        return Box(left, self.y - LINE / 2, left + width, self.y + LINE / 2)


def place_labels(
    wanted: Sequence[Wanted], obstacles: Sequence[Box], width: float, height: float
) -> list[Label]:
    """Choose for each point the place where its label covers the least.

    Labels are placed one after another: below, above, right or left of the point, then further
    away.

    Args:
        wanted: The points and their texts.
        obstacles: What labels should not cover.
        width: Width of the plot.
        height: Height of the plot.
    """
    taken = list(obstacles)
    labels = []
    for x, y, radius, text in wanted:
        best = min(
            _candidates(x, y, radius, text),
            key=lambda label: _cost(label.box, taken, width, height),
        )
        labels.append(best)
        taken.append(best.box)
    return labels


def place_on_line(text: str, y: float, obstacles: Sequence[Box], width: float) -> Label:
    """Choose where a horizontal line's label covers the least: above it, or else below.

    Args:
        text: The label.
        y: Height of the line in pixels.
        obstacles: What the label should not cover.
        width: Width of the plot.

    Returns:
        Of equally good places above the line, the one furthest to the left.
    """
    room = max(width - CHARACTER * len(text), GAP)
    candidates = []
    for distance in (-LINE / 2 - 1, LINE / 2 + 1):
        x = GAP
        while x <= room:
            candidates.append(Label(text, x, y + distance, "left"))
            x += STEP
    return min(candidates, key=lambda label: sum(map(label.box.overlap, obstacles)))


def _candidates(x: float, y: float, radius: float, text: str) -> list[Label]:
    candidates = []
    for away in (0.0, LINE, 2 * LINE):
        reach = radius + GAP + away
        candidates += [
            Label(text, x, y + reach + LINE / 2, "center"),
            Label(text, x, y - reach - LINE / 2, "center"),
            Label(text, x + reach, y, "left"),
            Label(text, x - reach, y, "right"),
            Label(text, x + radius / 2 + GAP, y + reach + LINE / 2, "left"),
            Label(text, x - radius / 2 - GAP, y + reach + LINE / 2, "right"),
            Label(text, x + radius / 2 + GAP, y - reach - LINE / 2, "left"),
            Label(text, x - radius / 2 - GAP, y - reach - LINE / 2, "right"),
        ]
    return candidates


def _cost(box: Box, taken: Sequence[Box], width: float, height: float) -> float:
    """Return the covered area; leaving the plot costs more."""
    covered = sum(box.overlap(other) for other in taken)
    area = (box.right - box.left) * (box.bottom - box.top)
    outside = area - box.overlap(Box(0, 0, width, height))
    return covered + 3 * outside
