"""Means, intervals and paired differences over seeds and texts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdedge.evaluation.bootstrap import percentile_interval

LEVEL = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class SeedStats:
    """Scores of one model trained with several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1) of the scores; NaN for a single score."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean over seeds (Student's t); NaN for a single score.

        It does not cover the variation over texts.
        """
        count = len(self.values)
        t = float(stats.t.ppf((1 + LEVEL) / 2, max(1, count - 1)))
        half = t * self.sd / math.sqrt(count)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class PairedDifference:
    """Test scores minus those of a reference with the same seeds.

    Attributes:
        mean: Mean over seeds.
        seeds: 95 % interval over seeds (Student's t); it does not cover the variation over texts.
        texts: 95 % interval over texts (paired bootstrap); it does not cover the variation over
            seeds.
    """

    mean: float
    seeds: Interval
    texts: Interval

    @property
    def verdict(self) -> str:
        """`better` or `worse` if both intervals exclude 0, else `inconclusive` or `one seed`."""
        ends = (*self.seeds, *self.texts)
        if any(math.isnan(end) for end in ends):
            return "one seed"
        if math.isclose(*self.seeds, rel_tol=1e-6):
            # The difference is equal for all seeds, up to rounding: the interval has no width.
            return "inconclusive"
        if min(ends) > 0:
            return "better"
        if max(ends) < 0:
            return "worse"
        return "inconclusive"

    def __str__(self) -> str:
        mean, seeds, texts, verdict = self.cells()
        return f"{mean} (95 % over seeds {seeds}, over texts {texts}): {verdict}"

    def cells(self) -> list[str]:
        """Return mean, both intervals and the verdict, for a table."""
        return [
            f"{self.mean:+.4f}",
            _interval_cell(self.seeds),
            _interval_cell(self.texts),
            self.verdict,
        ]


def _interval_cell(interval: Interval) -> str:
    low, high = interval
    return "–" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"


def paired_difference(
    scores: np.ndarray,
    reference: np.ndarray,
    resampled_scores: np.ndarray,
    resampled_reference: np.ndarray,
) -> PairedDifference:
    """Compare the scores of S seeds with a reference of the same seeds.

    Args:
        scores: *Shape:* (S,)
        reference: *Shape:* (S,)
        resampled_scores: The scores on R resamples of the texts. *Shape:* (S, R)
        resampled_reference: The reference on the same resamples. *Shape:* (S, R)
    """
    by_seed = SeedStats(tuple((scores - reference).tolist()))
    by_resample = (resampled_scores - resampled_reference).mean(0)
    return PairedDifference(by_seed.mean, by_seed.interval, percentile_interval(by_resample))
