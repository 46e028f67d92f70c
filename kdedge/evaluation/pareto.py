"""The points that no other point beats in both cost and score."""

from __future__ import annotations

from collections.abc import Iterable


def pareto_front(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (cost, score) that no other beats in both, the cheapest first.

    Example:
        >>> pareto_front([(2.0, 0.9), (1.0, 0.8), (3.0, 0.85)])
        [(1.0, 0.8), (2.0, 0.9)]
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front
