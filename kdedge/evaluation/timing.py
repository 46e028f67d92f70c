"""Times several subjects so that drift of the machine hits all alike, and keeps every raw value.

A round visits all subjects in a shuffled order and gives each the same few texts; statistics are derived later.
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
"""Does item i once and returns how many seconds its parts took."""

VISIT = 8
"""Most texts a subject answers in one visit."""

WISHED_ROUNDS = 25
UNSTABLE = 3.0
"""p99 above this many times p50 is said aloud."""


@dataclass(frozen=True)
class Timings:
    """Seconds of one subject, as measured.

    rounds: R arrays, one value for each text of the visit.
    """

    rounds: tuple[np.ndarray, ...]

    @property
    def values(self) -> np.ndarray:
        """(n,) seconds, all rounds after one another."""
        return np.concatenate(self.rounds)

    @property
    def medians(self) -> np.ndarray:
        """(R,) seconds, the median of each round."""
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

    def doubts(self) -> list[str]:
        """What makes these values less than they seem, one sentence each."""
        said = []
        if self.p99 > UNSTABLE * self.p50:
            said.append(f"unstable: p99 is {self.p99 / self.p50:.1f}x p50")
        if len(self.values) < 100:
            said.append(
                f"only {len(self.values)} values: p99 is little more than their maximum; give more --seconds"
            )
        return said


@dataclass(frozen=True)
class TimingRatio:
    """How long one subject takes as a multiple of another, from rounds that both took part in.

    ratio: median over rounds; low, high: its distribution-free interval; different: whether the two may be told apart.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    different: bool


def compare_timings(
    a: np.ndarray, b: np.ndarray, *, confidence: float = 0.99, least: float = 0.02
) -> TimingRatio:
    """Compare per-round medians a (R,) and b (R,) in seconds.

    The interval is the sign test's (order statistics of the R ratios), which assumes no shape of noise.
    "Different" needs an interval apart from 1 and a median more than `least` away from it.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"rounds are compared pairwise: {len(a)} and {len(b)} were given")
    ratios = np.sort(np.log(a / b))
    rank = _sign_rank(len(ratios), confidence)
    low, high = float(ratios[max(rank, 0)]), float(ratios[len(ratios) - 1 - max(rank, 0)])
    middle = float(np.median(ratios))
    apart = rank >= 0 and (low > 0 or high < 0) and abs(middle) > math.log1p(least)
    return TimingRatio(math.exp(middle), math.exp(low), math.exp(high), len(ratios), apart)


def _sign_rank(n: int, confidence: float) -> int:
    """0-based rank of the lower end of the sign interval of n values; -1 where n is too small for one."""
    tail, rank = 0.0, -1
    for k in range(n):
        tail += math.comb(n, k) * 0.5**n
        if 2 * tail > 1 - confidence:
            break
        rank = k
    return rank


def speedup_quartiles(base: Timings, row: Timings) -> tuple[float, float, float]:
    """Speed-up of `row` against `base`: median, lower and upper quartile of the per-round ratios of medians."""
    ratios = base.medians / row.medians
    middle, low, high = np.quantile(ratios, [0.5, 0.25, 0.75])
    return float(middle), float(low), float(high)


def representative(lengths: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Indices of `size` texts whose lengths (N,) spread as those of all N, in a seeded random order."""
    generator = np.random.default_rng(seed)
    strata = np.array_split(np.argsort(lengths, kind="stable"), min(size, len(lengths)))
    return generator.permutation(np.array([generator.choice(stratum) for stratum in strata]))


def interleave(
    works: Mapping[str, Work],
    items: int,
    *,
    seconds: float,
    seed: int = 0,
    visit: int | None = None,
    rounds: int | None = None,
    lead_in: bool = True,
    at_least: int = 3,
    at_most: int = 250,
    title: str = "timing",
    progress: Progress = SILENT,
) -> dict[str, tuple[Timings, ...]]:
    """Time every work on the same items, in rounds, until about `seconds` are spent.

    items: how many there are; rounds walk through them and begin again.
    visit: items a work does in one round; None chooses it so that many rounds fit.
    rounds: exactly so many, whatever time they take; else between `at_least` and `at_most`, as time allows.
    lead_in: whether each visit begins with an item that is not counted: the subject before has filled the caches with
        its own weights. Items that take long need none.
    Returns for each work the Timings of its parts, in the order in which it returns them.
    """
    generator = np.random.default_rng(seed)
    start = time.perf_counter()
    cost = _warm_up(works, items)
    visit = visit or max(1, min(VISIT, int(seconds / WISHED_ROUNDS / cost)))
    kept: dict[str, list[np.ndarray]] = {name: [] for name in works}
    progress.start(title, 100)
    done, begun = 0, time.perf_counter()
    while (
        done < rounds
        if rounds
        else done < at_least or (done < at_most and _another_fits(done, begun, start + seconds))
    ):
        chosen = [(done * visit + i) % items for i in range(visit)]
        for name in generator.permutation(list(works)):
            kept[str(name)].append(_visit(works[str(name)], chosen, lead_in))
        done += 1
        share = (
            done / rounds
            if rounds
            else min(done / at_least, (time.perf_counter() - start) / seconds)
        )
        progress.advance(min(99, int(100 * share)), f"round {done}")
    progress.finish()
    return {name: _parts(visits) for name, visits in kept.items()}


def _another_fits(done: int, begun: float, end: float) -> bool:
    """Whether a further round of mean length ends in time."""
    now = time.perf_counter()
    return now + (now - begun) / done <= end


def _warm_up(works: Mapping[str, Work], items: int) -> float:
    """Run every work a few times; returns the seconds that one item takes all works together."""
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
    """Seconds (len(chosen), parts) of one visit."""
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
    return tuple(
        Timings(tuple(visit[:, part] for visit in visits)) for part in range(visits[0].shape[1])
    )
