"""Timing finds differences and no others, and treats all subjects alike."""

from __future__ import annotations

import time

import numpy as np
import pytest

from kdedge.evaluation.timing import (
    TimingPlan,
    Timings,
    compare_timings,
    interleave,
    representative,
    speedup_quartiles,
)

ROUNDS = 30
TRIALS = 400


def simulated_medians(
    generator: np.random.Generator, factor: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Per-round medians of two subjects: common drift, 4 % jitter of each, rare stalls."""
    drift = np.exp(
        0.2 * np.sin(np.linspace(0, 6, ROUNDS)) + np.cumsum(generator.normal(0, 0.02, ROUNDS))
    )
    lengths = generator.lognormal(0, 0.3, ROUNDS)

    def medians(scale: float) -> np.ndarray:
        jitter = generator.normal(0, 0.04, ROUNDS)
        stalls = np.where(generator.random(ROUNDS) < 0.05, generator.uniform(1.5, 4, ROUNDS), 1.0)
        return 1e-3 * scale * drift * lengths * np.exp(jitter) * stalls

    return medians(factor), medians(1.0)


def share_called_different(factor: float, seed: int) -> float:
    generator = np.random.default_rng(seed)
    return float(
        np.mean(
            [
                compare_timings(*simulated_medians(generator, factor)).different
                for _ in range(TRIALS)
            ]
        )
    )


def test_the_same_subject_against_itself_is_rarely_called_different() -> None:
    assert share_called_different(1.0, seed=1) <= 0.05


@pytest.mark.parametrize("factor", [1.1, 1 / 1.1])
def test_a_ten_percent_change_is_found(factor: float) -> None:
    assert share_called_different(factor, seed=2) >= 0.95


def test_the_interval_of_a_comparison_covers_the_true_ratio() -> None:
    generator = np.random.default_rng(3)
    found = [compare_timings(*simulated_medians(generator, 1.3)) for _ in range(TRIALS)]
    assert np.mean([c.low <= 1.3 <= c.high for c in found]) >= 0.97


def test_a_difference_too_small_to_matter_is_not_called_one() -> None:
    base = np.full(50, 1e-3)
    assert not compare_timings(base * 1.01, base).different
    assert compare_timings(base * 1.05, base).different


def test_few_rounds_never_show_a_difference() -> None:
    base = np.full(6, 1e-3)
    assert not compare_timings(base * 2, base).different


def test_different_numbers_of_rounds_are_an_error() -> None:
    with pytest.raises(ValueError, match="pairwise"):
        compare_timings(np.ones(3), np.ones(4))


def test_real_work_against_itself_and_against_slower_work() -> None:
    """With real clocks: one subject twice, and one with 40 % more of the same work."""

    def spinning(count: int):
        def work(item: int) -> tuple[float, ...]:
            start = time.perf_counter()
            sum(range(count))
            return (time.perf_counter() - start,)

        return work

    works = {"a": spinning(10_000), "b": spinning(10_000), "slower": spinning(14_000)}
    timed = {
        name: parts[0]
        for name, parts in interleave(works, 20, TimingPlan(rounds=40, visit=8)).items()
    }
    assert not compare_timings(timed["a"].medians, timed["b"].medians, least=0.15).different
    slower = compare_timings(timed["slower"].medians, timed["a"].medians)
    assert slower.different and 1.2 < slower.ratio < 1.7


def test_every_subject_gets_the_same_items_and_the_order_changes() -> None:
    seen: dict[str, list[int]] = {name: [] for name in "abc"}
    order: list[str] = []

    def recording(name: str):
        def work(item: int) -> tuple[float, ...]:
            seen[name].append(item)
            order.append(name)
            return 1.0, 0.5

        return work

    timed = interleave({name: recording(name) for name in "abc"}, 7, TimingPlan(rounds=12, visit=2))
    assert seen["a"] == seen["b"] == seen["c"]
    assert set(seen["a"]) == set(range(7))
    visits = order[-12 * 9 :: 3]  # a visit is one uncounted item and two counted ones
    assert len({tuple(visits[i : i + 3]) for i in range(0, 36, 3)}) > 2
    assert (
        len(timed["a"]) == 2 and len(timed["a"][0].rounds) == 12 and len(timed["a"][0].values) == 24
    )
    assert timed["a"][1].p50 == 0.5


def test_a_slow_subject_gets_no_more_rounds_than_fit_into_the_time() -> None:
    def slow(item: int) -> tuple[float, ...]:
        time.sleep(0.02)
        return (0.02,)

    timed = interleave({"slow": slow, "fast": lambda item: (1e-6,)}, 50, TimingPlan(seconds=1.0))
    assert 3 <= len(timed["slow"][0].values) == len(timed["fast"][0].values) <= 50


def test_statistics_are_derived_from_the_raw_values() -> None:
    timings = Timings((np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 100.0])))
    assert timings.p50 == 3.5
    assert timings.medians.tolist() == [2.0, 5.0]
    assert timings.quantile(1.0) == 100.0


def test_unstable_and_few_values_are_warnings() -> None:
    steady = Timings((np.linspace(1.0, 1.1, 200),))
    assert steady.warnings() == []
    shaken = Timings((np.r_[np.ones(190), np.full(10, 3.5)],))
    assert shaken.warnings() == ["unstable: p99 is 3.5x p50"]
    assert "only 20 values" in Timings((np.ones(20),)).warnings()[0]


def test_speed_up_is_the_median_over_rounds_with_quartiles() -> None:
    slow = Timings(tuple(np.full(4, value) for value in (2.0, 4.0, 6.0, 8.0, 10.0)))
    fast = Timings(tuple(np.full(4, 1.0) for _ in range(5)))
    assert speedup_quartiles(slow, fast) == (6.0, 4.0, 8.0)


def test_a_small_sample_has_the_lengths_of_the_whole() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 0.7, 5000).astype(int)
    chosen = representative(lengths, 200, seed=1)
    assert len(set(chosen.tolist())) == 200
    for q in (0.1, 0.5, 0.9):
        assert np.quantile(lengths[chosen], q) == pytest.approx(np.quantile(lengths, q), rel=0.06)
    assert representative(lengths, 200, seed=1).tolist() == chosen.tolist()
    assert np.corrcoef(np.arange(200), lengths[chosen])[0, 1] < 0.3
    assert sorted(representative(np.array([3, 1, 2]), 10, seed=0).tolist()) == [0, 1, 2]
