"""The Pareto front against a comparison of every point with every other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kdedge.evaluation.pareto import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(points=POINTS)
def test_the_front_holds_the_points_that_none_beats(points: list[tuple[int, int]]) -> None:
    unbeaten = set()
    for cost, score in points:
        as_good = {(c, s) for c, s in points if c <= cost and s >= score}
        if as_good == {(cost, score)}:
            unbeaten.add((cost, score))
    assert pareto_front(points) == sorted(unbeaten)
