"""Two small pictures of a study, drawn as SVG: what mattered, and what speed costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, LEFT, ROW = 640, 260, 26
STYLE = "font-family='sans-serif' font-size='13'"


def bars(title: str, values: Mapping[str, float]) -> str:
    """One bar per name, longest value at full width, its number beside it."""
    longest = max([*values.values(), 1e-12])
    lines = [f"<text x='10' y='22' font-weight='bold'>{escape(title)}</text>"]
    for i, (name, value) in enumerate(values.items()):
        y = 44 + i * ROW
        length = (WIDTH - LEFT - 70) * value / longest
        lines += [
            f"<text x='{LEFT - 8}' y='{y + 14}' text-anchor='end'>{escape(name)}</text>",
            f"<rect x='{LEFT}' y='{y}' width='{length:.1f}' height='18' fill='#4477aa'/>",
            f"<text x='{LEFT + length + 6:.1f}' y='{y + 14}'>{value:.2f}</text>",
        ]
    return _svg(lines, 56 + len(values) * ROW)


def scatter(title: str, x: str, y: str, points: Sequence[tuple[float, float]], front: Sequence[tuple[float, float]]) -> str:
    """Points (x, y) in grey and those of the front, joined, in blue, with their numbers."""
    top, bottom, left, right = 50, 360, 70, WIDTH - 40
    across, along = _scale([p[0] for p in points], left, right), _scale([p[1] for p in points], bottom, top)
    lines = [
        f"<text x='10' y='22' font-weight='bold'>{escape(title)}</text>",
        f"<text x='{(left + right) / 2}' y='{bottom + 40}' text-anchor='middle'>{escape(x)}</text>",
        f"<text x='10' y='{top - 8}'>{escape(y)}</text>",
        f"<path d='M{left} {top} V{bottom} H{right}' fill='none' stroke='#888'/>",
    ]
    lines += [f"<circle cx='{across(a):.1f}' cy='{along(b):.1f}' r='4' fill='#bbbbbb'/>" for a, b in points]
    path = " ".join(f"{across(a):.1f},{along(b):.1f}" for a, b in front)
    lines.append(f"<polyline points='{path}' fill='none' stroke='#4477aa'/>")
    for a, b in front:
        lines.append(f"<circle cx='{across(a):.1f}' cy='{along(b):.1f}' r='5' fill='#4477aa'/>")
        lines.append(f"<text x='{across(a):.1f}' y='{along(b) - 9:.1f}' text-anchor='middle'>{b:.3f}, {a:.0f}</text>")
    return _svg(lines, bottom + 60)


def _scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = min(values), max(values)
    return lambda value: start + (end - start) * (0.05 + 0.9 * ((value - low) / (high - low) if high > low else 0.5))


def _svg(lines: list[str], height: int) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height}' {STYLE}><rect width='100%' height='100%' fill='white'/>"
    return "\n".join([head, *lines, "</svg>"]) + "\n"
