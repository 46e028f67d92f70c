"""Time several subjects alternately, so that drift of the machine affects all of them alike.

A round visits all subjects in random order and gives each the same few items. All raw values are
kept; statistics are derived from them later.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdedge.run.progress import SILENT, Progress

Work = Callable[[int], tuple[float, ...]]
"""Processes item i once and returns the seconds of its parts."""

VISIT = 8
"""Maximum of items per visit."""

TARGET_ROUNDS = 25

FEWEST = 20
"""With fewer values, even the median is rough."""

UNSTABLE = 3.0
"""A p99 above this many times the p50 is a warning."""


@dataclass(frozen=True)
class Timings:
    """Measured seconds of one subject.

    Attributes:
        rounds: One array for each of R rounds, with the seconds of each item.
    """

    rounds: tuple[np.ndarray, ...]

    @property
    def values(self) -> np.ndarray:
        """Seconds of all rounds. *Shape:* (n,)"""
        return np.concatenate(self.rounds)

    @property
    def medians(self) -> np.ndarray:
        """Median seconds of each round. *Shape:* (R,)"""
        return np.array([np.median(values) for values in self.rounds])

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.values, q))

    @property
    def p50(self) -> float:
        return self.quantile(0.5)

    @property
    def p90(self) -> float:
        return self.quantile(0.9)

    @property
    def p99(self) -> float:
        return self.quantile(0.99)

    def warnings(self) -> list[str]:
        """Return one sentence for each reason not to trust these values."""
        warnings = []
        if self.p99 > UNSTABLE * self.p50:
            warnings.append(f"unstable: p99 is {self.p99 / self.p50:.1f}x p50")
        if len(self.values) < FEWEST:
            warnings.append(
                f"timed only {len(self.values)} times: times and speedups are rough; "
                "give more --seconds"
            )
        elif len(self.values) < 100:
            warnings.append(
                f"only {len(self.values)} values: p99 is close to their maximum; "
                "give more --seconds"
            )
        return warnings


CONFIDENCE = 0.99
"""Confidence of the interval of a `TimingRatio`."""


@dataclass(frozen=True)
class TimingRatio:
    """Time of one subject divided by another's, from the rounds of both.

    Attributes:
        ratio: Median over rounds.
        low, high: Confidence interval from the sign test; 0 and infinity with fewer than 8 rounds.
        different: Whether the two subjects differ.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    different: bool

    @property
    def interval(self) -> str:
        """The interval for readers, or why there is none."""
        if math.isinf(self.high):
            return f"{self.rounds} rounds are too few for an interval"
        return f"{100 * CONFIDENCE:.0f} % interval {self.low:.2f} to {self.high:.2f}"


def compare_timings(a: np.ndarray, b: np.ndarray, *, least: float = 0.02) -> TimingRatio:
    """Compare the medians of R rounds of two subjects.

    The interval is that of the sign test (order statistics of the R ratios), which makes no
    assumption about the noise.

    Args:
        a: Seconds. *Shape:* (R,)
        b: Seconds. *Shape:* (R,)
        least: Two subjects differ if the interval excludes 1 and the median is further from 1 than
            this.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"rounds are compared pairwise, but there are {len(a)} and {len(b)}")
    ratios = np.sort(np.log(a / b))
    rank = _sign_rank(len(ratios))
    middle = float(np.median(ratios))
    if rank < 0:
        return TimingRatio(math.exp(middle), 0.0, math.inf, len(ratios), different=False)
    low = float(ratios[rank])
    high = float(ratios[len(ratios) - 1 - rank])
    different = (low > 0 or high < 0) and abs(middle) > math.log1p(least)
    return TimingRatio(math.exp(middle), math.exp(low), math.exp(high), len(ratios), different)


def _sign_rank(n: int) -> int:
    """Return the 0-based rank of the interval's lower end; -1 if n values are too few."""
    tail, rank = 0.0, -1
    for k in range(n):
        tail += math.comb(n, k) * 0.5**n
        if 2 * tail > 1 - CONFIDENCE:
            break
        rank = k
    return rank


def speedup_quartiles(base: Timings, subject: Timings) -> tuple[float, float, float]:
    """Return median, lower and upper quartile of the speedup (median times) over rounds."""
    ratios = base.medians / subject.medians
    middle, low, high = np.quantile(ratios, [0.5, 0.25, 0.75])
    return float(middle), float(low), float(high)


def representative(lengths: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return `size` rows in random order whose lengths are distributed like all lengths (N,)."""
    generator = np.random.default_rng(seed)
    strata = np.array_split(np.argsort(lengths, kind="stable"), min(size, len(lengths)))
    return generator.permutation(np.array([generator.choice(stratum) for stratum in strata]))


@dataclass(frozen=True)
class TimingPlan:
    """How long `interleave` measures. In a round, each subject runs the same few items.

    Attributes:
        seconds: Time for everything, unless `rounds` is given.
        seed: Seed for the order of the subjects.
        visit: Items per subject and round; None: chosen so that many rounds fit into the time.
        rounds: Exact number of rounds; None: as many as fit, from `at_least` to `at_most`.
        lead_in: Whether to run the first item once more, untimed, because the previous subject
            has filled the CPU caches with its weights. Long items do not need it.
    """

    seconds: float = 1.0
    seed: int = 0
    visit: int | None = None
    rounds: int | None = None
    lead_in: bool = True
    at_least: int = 3
    at_most: int = 250

    def next_round_fits(self, done: int, elapsed: float, left: float) -> bool:
        """Return whether another round fits after `done` rounds.

        elapsed: seconds of the rounds so far. left: seconds that remain.
        """
        if self.rounds is not None:
            return done < self.rounds
        if done < self.at_least:
            return True
        return done < self.at_most and elapsed / done <= left

    def share_done(self, done: int, spent: float) -> float:
        """Return the finished share of the measurement (0 to 1), for a progress bar."""
        if self.rounds is not None:
            return done / self.rounds
        return min(done / self.at_least, spent / self.seconds)


def interleave(
    works: Mapping[str, Work],
    items: int,
    plan: TimingPlan,
    *,
    title: str = "timing",
    progress: Progress = SILENT,
) -> dict[str, tuple[Timings, ...]]:
    """Time every subject on the same items, in rounds.

    Args:
        works: Subject -> function that runs one item and returns the seconds of its parts.
        items: Number of items; rounds go through them and start again.
        plan: How long to measure.
        title: For the progress bar.
        progress: Shows the rounds.

    Returns:
        For each subject the timings of its parts, in the order in which its work returns them.
    """
    generator = np.random.default_rng(plan.seed)
    start = time.perf_counter()
    cost = _warm_up(works, items)
    visit = plan.visit or max(1, min(VISIT, int(plan.seconds / TARGET_ROUNDS / cost)))
    visits: dict[str, list[np.ndarray]] = {name: [] for name in works}
    progress.start(title, 100)
    done = 0
    first_round = now = time.perf_counter()
    while plan.next_round_fits(done, now - first_round, start + plan.seconds - now):
        chosen = [(done * visit + i) % items for i in range(visit)]
        for name in generator.permutation(list(works)).tolist():
            visits[name].append(_visit(works[name], chosen, plan.lead_in))
        done += 1
        now = time.perf_counter()
        share = plan.share_done(done, now - start)
        progress.advance(min(99, int(100 * share)), f"round {done}")
    progress.finish()
    return {name: _parts(arrays) for name, arrays in visits.items()}


def _warm_up(works: Mapping[str, Work], items: int) -> float:
    """Run every subject a few times; return the seconds per item, summed over subjects."""
    cost = 0.0
    for work in works.values():
        start = time.perf_counter()
        work(0)
        first, tries = time.perf_counter() - start, 0
        start = time.perf_counter()
        while tries < 10 and first + time.perf_counter() - start < 0.2:
            work((1 + tries) % items)
            tries += 1
        cost += (time.perf_counter() - start) / tries if tries else first
    return cost


def _visit(work: Work, chosen: Sequence[int], lead_in: bool) -> np.ndarray:
    """Time the chosen items of one subject. *Shape:* (len(chosen), parts)"""
    if lead_in:
        work(chosen[0])
    collecting = gc.isenabled()
    gc.disable()
    try:
        return np.array([work(item) for item in chosen])
    finally:
        if collecting:
            gc.enable()


def _parts(visits: Sequence[np.ndarray]) -> tuple[Timings, ...]:
    """Split the seconds of a subject's rounds into the timings of each part."""
    parts = []
    for part in range(visits[0].shape[1]):
        parts.append(Timings(tuple(visit[:, part] for visit in visits)))
    return tuple(parts)
