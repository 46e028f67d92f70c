"""Means, intervals and paired differences over seeds and texts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdedge.evaluation.bootstrap import percentile_interval

LEVEL = 0.95


@dataclass(frozen=True)
class SeedStats:
    """Scores of one model from several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        """Standard deviation of the scores (n - 1); NaN of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over seeds (Student's t), which says nothing about other texts; NaN of a single score."""
        half = (
            float(stats.t.ppf((1 + LEVEL) / 2, max(1, len(self.values) - 1)))
            * self.sd
            / math.sqrt(len(self.values))
        )
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class PairedDifference:
    """Scores on the test split less those of a reference, at equal seeds.

    seeds: 95 % interval of the mean over seeds (Student's t), which says nothing about other texts.
    texts: 95 % interval of the mean over resampled texts (paired bootstrap), which says nothing about other seeds.
    """

    mean: float
    seeds: tuple[float, float]
    texts: tuple[float, float]

    @property
    def verdict(self) -> str:
        """`better` or `worse` where both intervals, each by itself, exclude 0, else `inconclusive`."""
        ends = (*self.seeds, *self.texts)
        if any(map(math.isnan, ends)):
            return "one seed"
        if self.seeds[0] == self.seeds[1]:
            return "inconclusive"  # seeds that all differ by as many answers are too few to tell what others would
        return "better" if min(ends) > 0 else "worse" if max(ends) < 0 else "inconclusive"

    def __str__(self) -> str:
        mean, seeds, texts, verdict = self.cells()
        return f"{mean} (95 % over seeds {seeds}, over texts {texts}): {verdict}"

    def cells(self) -> list[str]:
        """Mean, both intervals and the verdict, for a table."""
        intervals = [
            "–" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
            for low, high in (self.seeds, self.texts)
        ]
        return [f"{self.mean:+.4f}", *intervals, self.verdict]


def paired_difference(
    mine: np.ndarray, theirs: np.ndarray, my_draws: np.ndarray, their_draws: np.ndarray
) -> PairedDifference:
    """mine, theirs: (S,) scores by seed; my_draws, their_draws: (S, R) the same on R resamples of the texts."""
    spread = SeedStats(tuple((mine - theirs).tolist()))
    return PairedDifference(
        spread.mean, spread.interval, percentile_interval((my_draws - their_draws).mean(0))
    )
