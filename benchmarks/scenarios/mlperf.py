"""How many queries a percentile needs, by the rules of MLPerf Inference.

The number of queries, out of n, that are slower than the true percentile has a binomial
distribution. With early stopping, MLPerf requires a confidence of 99 % that the percentile is below
the bound (MLPerf Inference rules, appendix on early stopping). Without it, the margin of the
measured share may be a twentieth of the share's distance to 1.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from kdedge.runtime.agreement import binomial_cdf

MIN_QUERIES = 1024
"""The fewest queries of a single stream."""

CONFIDENCE = 0.99
MARGIN_SHARE = 1 / 20
"""Margin of a percentile, as a share of its distance to 1."""


def queries_for(percentile: float) -> int:
    """Return the fewest queries from which early stopping can bound a percentile.

    Example:
        >>> queries_for(0.9), queries_for(0.99)
        (64, 662)
    """
    return _queries_for_slower(percentile, 1)


def queries_without_early_stopping(percentile: float) -> int:
    """Return the queries after which the percentile itself may be reported.

    n = z² p (1 - p) / margin², with margin = (1 - p) / 20 and a confidence of 99 %.

    Example:
        >>> queries_without_early_stopping(0.9)
        23886
    """
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2)
    margin = (1 - percentile) * MARGIN_SHARE
    count = z**2 * percentile * (1 - percentile) / margin**2
    return round(count)


def bounded_percentile(values: np.ndarray, percentile: float) -> float | None:
    """Return a value that the true percentile does not exceed, with a confidence of 99 %.

    Args:
        values: Seconds of n queries. *Shape:* (n,)
        percentile: Such as 0.99.

    Returns:
        The t-th largest value, for the largest t for which n queries are enough; None if n is
        smaller than `queries_for(percentile)`.
    """
    count = len(values)
    if count < queries_for(percentile):
        return None
    slower = 1
    while _is_enough(count, slower + 1, percentile):
        slower += 1
    return float(np.sort(values)[count - slower])


def _queries_for_slower(percentile: float, slower: int) -> int:
    """Return the fewest queries of which `slower` may be above the percentile."""
    low, high = slower, slower + 1
    while not _is_enough(high, slower, percentile):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _is_enough(middle, slower, percentile):
            high = middle
        else:
            low = middle
    return high


def _is_enough(count: int, slower: int, percentile: float) -> bool:
    """Return whether it is unlikely that at most `slower` queries exceed the percentile."""
    return binomial_cdf(slower, count, 1 - percentile) <= 1 - CONFIDENCE
