"""Shares of texts: intervals, and tests that compare shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution, for intervals of 95 %."""


def share_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    Args:
        successes: Number of texts of one kind.
        trials: Number of all texts, at least 1.
    """
    share = successes / trials
    scale = 1 + Z**2 / trials
    middle = (share + Z**2 / (2 * trials)) / scale
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2)) / scale
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == trials else middle + half
    return low, high


def less_than_rest(inside: np.ndarray, successes: np.ndarray) -> float:
    """Test whether a group of texts has a lower share of successes than all other texts.

    It is Fisher's one-sided exact test: the probability of this number of successes in the group,
    or fewer, if the successes are spread over all texts by chance.

    Args:
        inside: Whether a text belongs to the group. *Shape:* (N,) bool
        successes: Whether a text is a success. *Shape:* (N,) bool
    """
    texts, size, total = len(inside), int(inside.sum()), int(successes.sum())
    found = int((inside & successes).sum())
    fewest = max(0, size + total - texts)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, texts + 1)))])

    def log_ways(of: int, chosen: np.ndarray) -> np.ndarray:
        return np.asarray(log_factorial[of] - log_factorial[chosen] - log_factorial[of - chosen])

    counts = np.arange(fewest, found + 1)
    logs = log_ways(total, counts) + log_ways(texts - total, size - counts)
    logs -= log_ways(texts, np.array(size))
    return min(1.0, float(np.exp(logs).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct the p values of several tests (Holm 1979).

    The smallest of m values is multiplied by m, the next by m - 1, and so on. No corrected value is
    smaller than that of a smaller p value.
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
