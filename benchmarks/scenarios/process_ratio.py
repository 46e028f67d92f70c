"""Tests of a change between two results of the scenario `gate`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from kdedge.benchmarks.scenarios.series import Series

RELEVANT = 0.05
"""The smallest change in time that counts."""

CONFIDENCE = 0.99
"""Confidence of the interval of a ratio, and 1 minus the significance level for scores."""

LOW_QUANTILE = 0.1
"""A process's time for a text is this quantile over its rounds: noise only adds time."""


def compare_processes(
    old: Sequence[Series], new: Sequence[Series]
) -> tuple[float, float, float, float]:
    """Compare the times of one subject in the processes of two benches.

    Args:
        old: Parts `text` and `yardstick` of each process.
        new: The same of the later bench, on the same texts.

    Returns:
        The ratio of new to old, its interval, and the ratio of the yardsticks.
    """
    old_texts, old_yard = _levels(old)
    new_texts, new_yard = _levels(new)
    # Paired by text: a text that takes long takes long in both.
    centre = np.mean(np.concatenate([old_texts, new_texts]), axis=0)
    old_level = np.median(old_texts - centre, axis=1) - old_yard
    new_level = np.median(new_texts - centre, axis=1) - new_yard
    ratio, low, high = shift_interval(new_level, old_level)
    machine = math.exp(float(np.median(new_yard) - np.median(old_yard)))
    return math.exp(ratio), math.exp(low), math.exp(high), machine


def shift_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Estimate by how much the values of `a` (m,) are above those of `b` (n,).

    Returns:
        The median of all differences, and the interval of the rank-sum test. With too few values
        for the confidence, the interval is infinite.
    """
    differences = np.sort(np.subtract.outer(a, b).ravel())
    rank = rank_sum_limit(len(a), len(b))
    middle = float(np.median(differences))
    if rank < 0:
        return middle, -math.inf, math.inf
    return middle, float(differences[rank]), float(differences[-1 - rank])


def rank_sum_limit(m: int, n: int) -> int:
    """Return the largest k with P(U <= k) <= (1 - `CONFIDENCE`) / 2; -1 if there is none.

    U is the statistic of Mann and Whitney 1947 for samples of m and n values: the number of pairs
    in which the value of the first sample is larger. Both samples have the same distribution here.
    """
    # counts[u]: number of orders of i values of one sample and j of the other with U = u.
    table = {(0, j): [1] for j in range(n + 1)}
    for i in range(1, m + 1):
        table[i, 0] = [1]
        for j in range(1, n + 1):
            counts = [0] * (i * j + 1)
            for u, count in enumerate(table[i - 1, j]):
                counts[u + j] += count
            for u, count in enumerate(table[i, j - 1]):
                counts[u] += count
            table[i, j] = counts
    total, tail, limit = math.comb(m + n, n), 0, -1
    for u, count in enumerate(table[m, n]):
        tail += count
        if tail / total > (1 - CONFIDENCE) / 2:
            break
        limit = u
    return limit


def verdict_of(low: float, high: float) -> str:
    """Compare the interval of a ratio of times with `RELEVANT`, the smallest change that counts.

    `faster` and `slower` need the whole interval beyond that change. The interval does not contain
    the drift of the machine between two benches, which would otherwise count as a change.
    """
    most = 1 + RELEVANT
    if low > most:
        return "slower"
    if high < 1 / most:
        return "faster"
    if low >= 1 / most and high <= most:
        return "no difference"
    return "inconclusive"


def _levels(series: Sequence[Series]) -> tuple[np.ndarray, np.ndarray]:
    """Return logs of the low quantile over rounds: texts (P, texts) and yardstick (P,)."""
    yards = {each.at: each.values for each in series if each.part == "yardstick"}
    texts, levels = [], []
    for each in series:
        if each.part == "text":
            yard = yards[each.at]
            rounds = each.values.reshape(len(yard), -1)
            texts.append(np.log(np.quantile(rounds, LOW_QUANTILE, axis=0)))
            levels.append(math.log(np.quantile(yard, LOW_QUANTILE)))
    return np.array(texts), np.array(levels)
